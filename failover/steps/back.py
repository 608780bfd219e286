"""One stage of a drain or a restore, taken back."""

from collections.abc import Generator, Sequence

from failover.health import check_ids, databases_of
from failover.schema import Model
from failover.steps.actions import Action, Changes, Context, Look, Scope, Seen, Steps
from failover.steps.watching import settle
from failover.world import RouteChange, World


class Back(Model):
    """The changes of one stage, as they were made; no file can say this."""

    stage: Sequence[RouteChange]


def back_scope(context: Context, spec: Back) -> Scope:
    """The stage's routes, and the health of everybody on them."""
    checks = check_ids(context.topology, _services(context, spec.stage), _regions(spec.stage))
    return Scope(tuple(change.route for change in spec.stage), databases_of(context.topology, checks), checks)


def back(context: Context, spec: Back, _: World) -> Steps:
    """The stage's routes to where they stood before it; refused where somebody has changed one since."""
    yield from stage_back(context, spec.stage)


def stage_back(context: Context, stage: Sequence[RouteChange]) -> Generator[Action, Seen, None]:
    """Look at everybody who is to receive traffic again, reverse `stage`, and see that it has settled."""
    taken_back = tuple(
        RouteChange(change.route, change.after, change.before, "step back", recovery=True) for change in stage
    )
    yield Look(
        check_ids(context.topology, _services(context, stage), _regions(stage)), "everybody before a step back"
    )
    yield Changes(taken_back)
    yield from settle(context, {change.route: change.after for change in taken_back}, wait_out=False)


def _services(context: Context, stage: Sequence[RouteChange]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(context.topology.routes[change.route].service for change in stage))


def _regions(stage: Sequence[RouteChange]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for change in stage for name in change.before.weights))
