"""Writes through a port, and the answer to: did it happen?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from failover.engine.estate import Estate
from failover.engine.loop import guard
from failover.errors import Conflict, FailoverError, Indeterminate
from failover.errors import Failed as NotDone
from failover.health import check_ids, databases_of, loads_of
from failover.ports import SupportsCompletion, SupportsParts
from failover.runbook import Step
from failover.secret import redact
from failover.steps.actions import Changes, Scope
from failover.world import Change, Member, MemberChange, RouteChange, RouteState, Unknown, World

if TYPE_CHECKING:
    from failover.engine.live import Hands

_EVERY = 0.5


class Readback:
    """One batch of changes of one port: write it, and where the answer was lost, read what is there instead."""

    def __init__(self, estate: Estate, hands: "Hands") -> None:
        self.estate = estate
        self.hands = hands

    def write(self, changes: Sequence[Change]) -> str:
        """Make `changes`. Raises what ports raise; anything unforeseen counts as Indeterminate."""
        try:
            routes = [change for change in changes if isinstance(change, RouteChange)]
            if routes:
                return self.estate.routers[self._router(routes[0])].write(routes)
            [member] = [change for change in changes if isinstance(change, MemberChange)]
            return self.estate.databases[member.database].write(member)
        except FailoverError:
            raise
        except Exception as error:  # whatever a provider lets through, the write may have happened
            raise Indeterminate(f"{type(error).__name__}: {redact(str(error))}") from error

    def resolve(
        self, changes: Sequence[Change], begun: float, cause: FailoverError | None
    ) -> tuple[list[int] | None, list[RouteChange], FailoverError | None]:
        """Which of `changes`, by their places, a write begun at `begun` made; None where that cannot be told. Then
        the parts of the others that it made, each as a change of its own, and the error where not all were made.

        A write may still arrive until the port's own time limit is over, so an old value is not believed before.
        """
        clock = self.estate.clock
        latest = begun + self._timeout(changes[0])
        while True:
            found = self._now(changes)
            made = [
                place
                for place, (state, change) in enumerate(zip(found, changes, strict=True))
                if _made(change, state)
            ]
            if len(made) == len(changes):
                return made, [], None
            left = latest - clock.wall()
            if left <= 0:
                break
            self.hands.progress("", f"reading back {changes[0].resource}: {found[0]}; {left:.0f} s to be sure")
            clock.sleep(min(left, _EVERY))
        names = "; ".join(f"{change.resource} is {state}" for change, state in zip(changes, found, strict=True))
        why = f" ({cause.what})" if cause else ""
        if any(isinstance(state, Unknown) for state in found):
            return (
                None,
                [],
                Indeterminate(
                    f"a write may or may not have happened{why}, and reading back does not tell: {names}",
                    next="make it answer again, then resume the run, which reads it back before anything else",
                ),
            )
        parts: list[RouteChange] = []
        for place, (state, change) in enumerate(zip(found, changes, strict=True)):
            if not isinstance(change, RouteChange) or place in made or state == change.before:
                continue
            part = self._part(change, state)
            if part is None:
                return made, parts, Conflict(change.resource, str(change.before), str(state))
            parts.append(part)
        return (
            made,
            parts,
            NotDone(f"the write was not completed{why}: {names}", next="resume the run, which goes on from there"),
        )

    def complete(self, step: str, changes: Sequence[Change], accepted: frozenset[str]) -> bool:
        """Write the rest of what was cut off between two servers of one router, where the guards pass as of now.

        False where that is not what is there, or its own answer was lost. Raises Refused where a guard does not pass,
        and what ports raise.
        """
        halves = [change for change in changes if isinstance(change, RouteChange)]
        router = self.estate.routers[self._router(halves[0])] if halves else None
        if not isinstance(router, SupportsCompletion) or not any(router.half_made(change) for change in halves):
            return False
        topology = self.estate.topology
        services = tuple(dict.fromkeys(topology.routes[change.route].service for change in halves))
        checks = check_ids(topology, services, topology.regions)
        scope = Scope(databases=databases_of(topology, checks), checks=checks, loads=loads_of(topology, services))
        world = self.estate.observe(scope).merge(World({change.route: change.before for change in halves}))
        rest = Step(step, "resume", None, (), "the write that was cut off")
        guard(rest, self.estate.context, world, Changes(tuple(halves)), lambda *_: None, accepted)
        try:
            router.complete(halves)
        except Indeterminate:
            return False
        return True

    def _now(self, changes: Sequence[Change]) -> list[RouteState | Member | Unknown]:
        """What is there of each of `changes`, which are of one port."""
        routes = [change for change in changes if isinstance(change, RouteChange)]
        states = self.estate.routers[self._router(routes[0])].read([one.route for one in routes]) if routes else {}
        return [
            states[change.route]
            if isinstance(change, RouteChange)
            else self.estate.databases[change.database].read()[change.region]
            for change in changes
        ]

    def _part(self, change: RouteChange, found: object) -> RouteChange | None:
        """What of `change` was made, where `found` is there now; None where that is somebody else's."""
        router = self.estate.routers[self._router(change)]
        if isinstance(router, SupportsParts) and isinstance(found, RouteState) and router.part_of(change, found):
            return RouteChange(change.route, change.before, found, change.reason)
        return None

    def _router(self, change: RouteChange) -> str:
        return self.estate.topology.routes[change.route].router

    def _timeout(self, change: Change) -> float:
        if isinstance(change, RouteChange):
            return self.estate.routers[self._router(change)].write_timeout
        return self.estate.databases[change.database].write_timeout


def _made(change: Change, found: RouteState | Member | Unknown) -> bool:
    """Whether `found` is what `change` leads to. A replica that is to follow another primary has to be seen to."""
    if isinstance(change, RouteChange):
        return found == change.after
    followed = change.before is not change.after or (isinstance(found, Member) and found.streaming)
    return isinstance(found, Member) and found.role is change.after and followed
