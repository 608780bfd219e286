"""Named rules that refuse a change. Pure: they see the world, the declared topology and the change, nothing else."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from failover.health import load_of, region_health
from failover.steps.actions import Context
from failover.topology import Route
from failover.units import duration
from failover.verdict import Verdict, failed, passed, unknown, worst
from failover.world import Change, MemberChange, Role, RouteChange, Unknown, World


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one guard says of one change, and the ways out where it refuses."""

    guard: str
    verdict: Verdict
    ways_out: str
    waivable: bool


RouteRule = Callable[[Context, World, Route, RouteChange], Verdict | None]
MemberRule = Callable[[Context, World, MemberChange], Verdict | None]


def judge(context: Context, world: World, changes: Iterable[Change]) -> Iterator[Judgement]:
    """What every guard that has a say says of each of `changes`, made one after another on `world`."""
    for change in changes:
        # No guard looks at a route but at the change itself, so the world moves on with the members only.
        if isinstance(change, RouteChange):
            route = context.topology.routes[change.route]
            for name, (route_rule, ways_out, waivable) in ROUTE_GUARDS.items():
                verdict = route_rule(context, world, route, change)
                if verdict is not None:
                    yield Judgement(name, verdict, ways_out, waivable)
        else:
            for name, (member_rule, ways_out) in MEMBER_GUARDS.items():
                verdict = member_rule(context, world, change)
                if verdict is not None:
                    yield Judgement(name, verdict, ways_out, waivable=True)
            world = world.after(change)


def all_weights_zero(_: Context, __: World, route: Route, change: RouteChange) -> Verdict | None:
    if any(change.after.weights.values()):
        return passed()
    return failed(f"{route.id} would have no weight left in any region")


def weights_unsupported(context: Context, _: World, route: Route, change: RouteChange) -> Verdict | None:
    if route.id in context.weighted:
        return None
    odd = [
        f"{region} {weight}"
        for region, weight in change.after.weights.items()
        if weight not in (0, route.weights.get(region, 0))
    ]
    if not odd:
        return passed()
    return failed(f"{route.id} can only switch a region on and off, not to {', '.join(odd)}; it can do stage 0")


def last_region(context: Context, world: World, route: Route, change: RouteChange) -> Verdict | None:
    if not _lowered(change):
        return None
    service = context.topology.services[route.service]
    needed = context.topology.objectives.survivors
    health: dict[str, Verdict] = {}
    alive = 0
    for region in (name for name, weight in change.after.weights.items() if weight > 0):
        health[region] = region_health(service, region, world)
        alive += health[region].passed
        if alive == needed:
            return passed(f"{needed} needed, and there")
    seen = [
        f"{region}: {line}" for region, verdict in health.items() if not verdict.passed for line in verdict.evidence
    ]
    perhaps = sum(verdict.outcome == "unknown" for verdict in health.values())
    said = f"{route.id} would be left with {alive} regions known to be healthy, and {needed} must stay"
    return (unknown if alive + perhaps >= needed else failed)(said, *seen)


def target_health(context: Context, world: World, route: Route, change: RouteChange) -> Verdict | None:
    receivers = _receivers(change)
    if not receivers or change.before.weights == change.after.weights:
        return None
    service = context.topology.services[route.service]
    return worst(region_health(service, region, world) for region in receivers)


def survivor_capacity(context: Context, world: World, route: Route, change: RouteChange) -> Verdict | None:
    service = context.topology.services[route.service]
    whole = sum(change.after.weights.values())
    if not service.capacity or not whole or change.before.weights == change.after.weights:
        return None
    total = load_of(service, world)
    if total is None:
        return None
    if isinstance(total, Unknown):
        return unknown(f"the load of {service.name} is not known: {total.why}")
    verdicts = []
    for region in _receivers(change):
        weight = change.after.weights[region]
        load = total * weight / whole
        limit = service.capacity.get(region)
        if limit is None:
            verdicts.append(unknown(f"{region} would carry {load:,.0f} rps; its capacity is not declared"))
            continue
        line = f"{region} would carry {load:,.0f} of {limit:,.0f} rps ({load / limit:.0%})"
        verdicts.append(passed(line) if load <= limit else failed(line))
    return worst(verdicts) if verdicts else None


def replica_lag(context: Context, world: World, change: MemberChange) -> Verdict | None:
    if change.after is not Role.FENCED or not change.planned:
        return None
    replica = world.databases[change.database][change.primary]
    limit = context.topology.objectives.lag
    who = f"{change.database} in {change.primary}"
    if replica.role is not Role.REPLICA:
        return failed(f"{who} is {replica.role}, not a replica")
    if replica.lag is None:
        return unknown(f"how far {who} is behind cannot be seen" + (f": {replica.detail}" if replica.detail else ""))
    line = f"{who} is {duration(replica.lag)} behind (limit {duration(limit)})"
    if not replica.streaming:
        return failed(f"{line} and does not stream from the primary")
    return passed(line) if replica.lag <= limit else failed(line)


def unfenced_primary(_: Context, world: World, change: MemberChange) -> Verdict | None:
    if change.after is not Role.PRIMARY or change.recovery:
        return None
    verdicts = [passed()]
    for region, member in world.databases[change.database].items():
        who = f"{change.database} in {region}"
        if region == change.region or member.role in (Role.REPLICA, Role.FENCED):
            continue
        if member.role in (Role.PRIMARY, Role.DIVERGED):
            verdicts.append(failed(f"{who} is {member.role} and can take writes"))
        elif member.role is Role.STOPPED:
            verdicts.append(unknown(f"{who} is stopped, but nothing keeps it from being started"))
        else:
            verdicts.append(unknown(f"{who} cannot be asked and may be taking writes: {member.detail}"))
    return worst(verdicts)


def data_loss(_: Context, world: World, change: MemberChange) -> Verdict | None:
    if change.after is not Role.PRIMARY or change.recovery:
        return None
    if change.planned:
        return passed()
    member = world.databases[change.database][change.region]
    reached = (
        f"it has replayed up to byte {member.position:,}"
        if member.position is not None
        else "its position is unknown"
    )
    return failed(f"{change.database} in {change.region} may lack the last acknowledged writes; {reached}")


def diverged_primary(_: Context, world: World, change: MemberChange) -> Verdict | None:
    if change.after is not Role.REPLICA or change.before is Role.REPLICA:
        return None
    lost = world.databases[change.database][change.region].lost
    who = f"{change.database} in {change.region}"
    if lost:
        return failed(f"{who} holds {lost:,} commits that {change.primary} never got; rejoining discards them")
    if lost is None and not change.planned:
        return unknown(f"{who} may hold commits that {change.primary} never got; they could not be counted")
    return passed(f"{who} holds nothing that {change.primary} lacks")


_HEALTH = "mend that region, or wait until it can be seen"
ROUTE_GUARDS: dict[str, tuple[RouteRule, str, bool]] = {
    "all-weights-zero": (all_weights_zero, "leave one region with traffic", False),
    "weights-unsupported": (weights_unsupported, "set 'stages: [0]' on that route or 'pace: immediate'", False),
    "last-region": (last_region, "bring another region back first", True),
    "target-health": (target_health, _HEALTH, True),
    "survivor-capacity": (survivor_capacity, "drain fewer services, or raise the capacity", True),
}
MEMBER_GUARDS: dict[str, tuple[MemberRule, str]] = {
    "replica-lag": (replica_lag, "wait until it has caught up"),
    "unfenced-primary": (unfenced_primary, "declare a 'fence' command for that member, or switch the machine off"),
    "data-loss": (data_loss, "bring the old primary back for a planned move, or accept the loss by name"),
    "diverged-primary": (diverged_primary, "save those commits by hand first"),
}
WAIVABLE = (*(name for name, (_, __, waivable) in ROUTE_GUARDS.items() if waivable), *MEMBER_GUARDS)


def _lowered(change: RouteChange) -> list[str]:
    before, after = change.before.weights, change.after.weights
    return [region for region in before if after.get(region, 0) < before[region]]


def _receivers(change: RouteChange) -> list[str]:
    """Whose share of the traffic grows. Weights alone do not tell: all of them may fall, and some by less."""
    before, after = change.before.weights, change.after.weights
    was, becomes = sum(before.values()) or 1, sum(after.values())
    return [region for region, weight in after.items() if weight * was > before.get(region, 0) * becomes]
