"""Between two stages: until everybody answers alike, and while the survivors are watched."""

from collections.abc import Generator, Iterable, Mapping

from failover.errors import Failed
from failover.health import check_ids, regions_health, strain
from failover.steps.actions import Action, Context, Look, Pause, Seen, Settle
from failover.verdict import Outcome, Verdict
from failover.world import RouteState, World


def require(verdict: Verdict | None, what: str) -> None:
    """Raise Failed, saying `what`, where a verdict is there and does not pass."""
    if verdict is not None and not verdict.passed:
        raise Failed(f"{what}: {'; '.join(verdict.evidence)}", next="see to what is named, then resume the run")


def settle(
    context: Context,
    wanted: Mapping[str, RouteState],
    *,
    wait_out: bool,
    stale: Mapping[str, int] | None = None,
    tail: float = 0.0,
) -> Generator[Action, Seen, Seen | None]:
    """Wait until all of `wanted` is so; raises Failed where it is not within the topology's time."""
    if not wanted:
        return None
    seen = yield Settle(wanted, context.topology.drain.settle, wait_out, stale or {}, tail)
    require(seen.verdict, "the routers do not all answer with the new weights")
    return seen


def watch(
    context: Context, services: Iterable[str], regions: Iterable[str], reason: str, soak: float
) -> Generator[Action, Seen, tuple[World, bool]]:
    """Let a stage soak, and look at `regions` all the while: the world, and whether they are under strain.

    What fails, raises Failed at once. What is unknown is waited for and does not count as soaked.
    """
    drain = context.topology.drain
    chosen, wanted = tuple(services), tuple(regions)
    look = Look(check_ids(context.topology, chosen, wanted), f"{', '.join(wanted)} after {reason}")
    left, held = soak, 0.0
    if left:
        left -= yield from _pause(left, drain.every, f"soak after {reason}")
    while True:
        seen = yield look
        if seen.verdict is None:
            if left:
                seen = yield Pause(left, f"soak after {reason}")
            return seen.world, False
        verdict = regions_health(context.topology, chosen, wanted, seen.world)
        held = 0.0 if verdict.passed else held + seen.took
        if verdict.outcome is Outcome.FAIL or (not verdict.passed and held >= drain.hold):
            raise Failed(
                f"after {reason}: {'; '.join(verdict.evidence)}",
                next="the weights stay as they are; mend it and resume, or undo the run",
            )
        if not verdict.passed:
            held += yield from _pause(drain.hold - held, drain.every, f"hold: {'; '.join(verdict.evidence)}")
        elif left:
            left -= yield from _pause(left, drain.every, f"soak after {reason}")
        else:
            strained = strain(context.topology, chosen, wanted, seen.world)
            return seen.world, strained is not None and not strained.passed


def _pause(left: float, every: float, why: str) -> Generator[Action, Seen, float]:
    seconds = min(left, every) if every else left
    yield Pause(seconds, why)
    return seconds
