"""The one piece of code that moves traffic: drain, its way back, and weights set by hand."""

from collections.abc import Callable, Generator, Iterable, Mapping

from failover import verbs
from failover.errors import Failed
from failover.health import check_ids, databases_of, out_of_service, regions_health
from failover.steps.actions import Action, Changes, Context, Look, Pause, Scope, Seen, Settle, Steps
from failover.topology import Route
from failover.verdict import Verdict
from failover.weights import active, staged, switched
from failover.world import RouteChange, RouteState, Unknown, World


def drain_scope(context: Context, spec: verbs.Drain | verbs.Restore) -> Scope:
    """The routes to be moved, and the health of everybody on them."""
    return _scope(context, spec.services, _moved(context, spec))


def shift_scope(context: Context, spec: verbs.Shift) -> Scope:
    """The routes whose weights are set, and the health of everybody on them."""
    return _scope(context, spec.services, _routes(context, spec.services))


def drain(context: Context, spec: verbs.Drain, world: World) -> Steps:
    """Lower the TTL and wait out the old one, then take the region to zero stage by stage, watching the survivors."""
    routes = _moved(context, spec)
    staged_pace = spec.pace == "staged"
    if staged_pace:
        world = yield from _lower_ttl(context, routes, world, spec.region)
    out = out_of_service(context.topology, _services(context, spec.services), world)
    survivors = tuple(name for name in _others(routes, spec.region) if name not in out)
    stages = {route.id: _stages(context, spec, route) for route in routes}
    for percent in sorted({stage for each in stages.values() for stage in each}, reverse=True):
        moved = [route for route in routes if percent in stages[route.id]]

        def target(route: Route, now: RouteState, percent: int = percent) -> RouteState:
            weights = _share(context, route, now, spec.region, percent)
            lower = weights[spec.region] < now.weights.get(spec.region, 0)
            return RouteState(weights, now.ttl) if lower else now

        reason = f"drain {spec.region} to {percent} %"
        world = yield from _stage(context, spec, moved, world, target, reason, survivors, last=percent == 0)


def restore(context: Context, spec: verbs.Restore, world: World) -> Steps:
    """Look at the region first, then bring it back by the stages of its drain in reverse, and the TTL at the end."""
    routes = _moved(context, spec)
    stages = {route.id: {100, *(p for p in _stages(context, spec, route) if p)} for route in routes}
    for percent in sorted({stage for each in stages.values() for stage in each}):
        moved = [route for route in routes if percent in stages[route.id]]

        def target(route: Route, now: RouteState, percent: int = percent) -> RouteState:
            weights = _share(context, route, now, spec.region, percent)
            higher = weights[spec.region] > now.weights.get(spec.region, 0)
            ttl = route.ttl if percent == 100 and route.ttl is not None else now.ttl
            return RouteState(weights if higher or percent == 100 else now.weights, ttl)

        reason = f"restore {spec.region} to {percent} %"
        world = yield from _stage(context, spec, moved, world, target, reason, (spec.region,), last=percent == 100)


def shift(context: Context, spec: verbs.Shift, world: World) -> Steps:
    """Set the named regions' weights and see that it has settled."""
    routes = [route for route in _routes(context, spec.services) if set(spec.weights) & set(route.weights)]

    def target(route: Route, now: RouteState) -> RouteState:
        named = {region: weight for region, weight in spec.weights.items() if region in route.weights}
        return RouteState({**now.weights, **named}, now.ttl)

    changes, wanted = _differences(routes, world, target, "shift")
    if changes:
        yield Changes(tuple(changes))
    yield from _settle(context, wanted, wait_out=True)


def require(verdict: Verdict | None, what: str) -> None:
    """Raise Failed, saying `what`, where a verdict is there and does not pass."""
    if verdict is not None and not verdict.passed:
        raise Failed(f"{what}: {'; '.join(verdict.evidence)}", next="see to what is named, then resume the run")


def _stage(
    context: Context,
    spec: verbs.Drain | verbs.Restore,
    routes: Iterable[Route],
    world: World,
    target: Callable[[Route, RouteState], RouteState],
    reason: str,
    watched: Iterable[str],
    *,
    last: bool,
) -> Generator[Action, Seen, World]:
    changes, wanted = _differences(routes, world, target, reason)
    if not changes and not last:
        return world
    if changes:
        world = (yield Changes(tuple(changes))).world
    seen = yield from _settle(context, wanted, wait_out=spec.pace == "staged")
    world = seen.world if seen else world
    if changes and spec.pace == "staged":
        soak = context.topology.drain.soak if spec.soak is None else spec.soak
        if soak:
            world = (yield Pause(soak, f"soak after {reason}")).world
        world = yield from _watch(context, spec.services, watched, reason)
    return world


def _watch(
    context: Context, services: tuple[str, ...], regions: Iterable[str], reason: str
) -> Generator[Action, Seen, World]:
    chosen, wanted = tuple(_services(context, services)), tuple(regions)
    seen = yield Look(check_ids(context.topology, chosen, wanted), f"{', '.join(wanted)} after {reason}")
    if seen.verdict is None:
        return seen.world
    verdict = regions_health(context.topology, chosen, wanted, seen.world)
    if not verdict.passed:
        raise Failed(
            f"after {reason}: {'; '.join(verdict.evidence)}",
            next="the weights stay as they are; mend it and resume, or undo the run",
        )
    return seen.world


def _lower_ttl(context: Context, routes: list[Route], world: World, region: str) -> Generator[Action, Seen, World]:
    short = context.topology.drain.ttl
    if short is None:
        return world
    lowered = [route for route in routes if route.ttl is not None and route.ttl > short]

    def target(_: Route, now: RouteState) -> RouteState:
        return RouteState(now.weights, min(now.ttl, int(short)) if now.ttl is not None else None)

    changes, wanted = _differences(lowered, world, target, f"lower the TTL to {int(short)} s")
    if changes:
        world = (yield Changes(tuple(changes))).world
    # Whoever lowered it before may have done so a moment ago.
    stale = {route.id: route.ttl for route in lowered if route.ttl and wanted[route.id].weights.get(region)}
    seen = yield from _settle(context, wanted, wait_out=True, stale=stale)
    return seen.world if seen else world


def _settle(
    context: Context, wanted: Mapping[str, RouteState], *, wait_out: bool, stale: Mapping[str, int] | None = None
) -> Generator[Action, Seen, Seen | None]:
    if not wanted:
        return None
    seen = yield Settle(wanted, context.topology.drain.settle, wait_out, stale or {})
    require(seen.verdict, "the routers do not all answer with the new weights")
    return seen


def _differences(
    routes: Iterable[Route], world: World, target: Callable[[Route, RouteState], RouteState], reason: str
) -> tuple[list[RouteChange], dict[str, RouteState]]:
    changes: list[RouteChange] = []
    wanted: dict[str, RouteState] = {}
    for route in routes:
        now = world.routes[route.id]
        if isinstance(now, Unknown):
            raise Failed(
                f"route {route.id} cannot be seen: {now.why}",
                next="nothing was written to it; make its router answer, then try again",
            )
        wanted[route.id] = target(route, now)
        if wanted[route.id] != now:
            changes.append(RouteChange(route.id, now, wanted[route.id], reason))
    return changes, wanted


def _share(context: Context, route: Route, now: RouteState, region: str, percent: int) -> dict[str, int]:
    present = active(route.weights, now.weights) - {region}
    if route.id in context.weighted:
        return staged(route.weights, present, region, percent)
    return switched(route.weights, present, region, percent)


def _stages(context: Context, spec: verbs.Drain | verbs.Restore, route: Route) -> tuple[int, ...]:
    if spec.pace == "immediate":
        return (0,)
    return spec.stages or route.stages or context.topology.drain.stages


def _moved(context: Context, spec: verbs.Drain | verbs.Restore) -> list[Route]:
    return [route for route in _routes(context, spec.services) if spec.region in route.weights]


def _routes(context: Context, services: tuple[str, ...]) -> list[Route]:
    return [route for name in _services(context, services) for route in context.topology.services[name].routes]


def _services(context: Context, services: tuple[str, ...]) -> Iterable[str]:
    return context.topology.services if services == verbs.ALL else services


def _others(routes: Iterable[Route], region: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for route in routes for name in route.weights if name != region))


def _scope(context: Context, services: tuple[str, ...], routes: Iterable[Route]) -> Scope:
    checks = check_ids(context.topology, _services(context, services), context.topology.regions)
    return Scope(tuple(route.id for route in routes), databases_of(context.topology, checks), checks)
