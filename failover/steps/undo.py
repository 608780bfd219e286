"""Taking back what a run did, as far as it is still in effect."""

from collections.abc import Sequence

from failover.health import check_ids, databases_of
from failover.schema import Model
from failover.steps.actions import Changes, Context, Note, Scope, Settle, Steps
from failover.steps.watching import require
from failover.world import RouteChange, World


class Undo(Model):
    """The routes that a run moved, each from what it found to what it left. Newest first; no file can say this."""

    moved: Sequence[RouteChange]

    def references(self) -> Sequence[tuple[tuple[str | int, ...], str, str]]:
        """Every region of the routes: all of them are held while a route goes back."""
        regions = dict.fromkeys(region for change in self.moved for region in change.before.weights)
        return [((), "region", region) for region in regions]


def undo_scope(context: Context, spec: Undo) -> Scope:
    """The routes to take back, and the health of everybody on them."""
    services = dict.fromkeys(context.topology.routes[change.route].service for change in spec.moved)
    checks = check_ids(context.topology, services, context.topology.regions)
    return Scope(tuple(change.route for change in spec.moved), databases_of(context.topology, checks), checks)


def undo(context: Context, spec: Undo, world: World) -> Steps:
    """Each route back to what the run found, unless somebody has changed it since: that one is named and left."""
    for change in spec.moved:
        now = world.routes[change.route]
        if now == change.before:
            continue
        if now != change.after:
            yield Note(f"{change.resource} is left as it is: the run left {change.after}, and now it is {now}")
            continue
        world = (yield Changes((RouteChange(change.route, change.after, change.before, "undo"),))).world
        seen = yield Settle({change.route: change.before}, context.topology.drain.settle, wait_out=False)
        require(seen.verdict, f"{change.resource} was taken back, but not everybody answers so yet")
