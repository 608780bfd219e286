"""The one piece of code that moves traffic: drain, its way back, and weights set by hand."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from failover import verbs
from failover.errors import Failed, FailoverError
from failover.health import check_ids, databases_of, load_of, loads_of, out_of_service
from failover.steps.actions import Action, Changes, Context, Empty, Forecast, Note, Scope, Seen, Steps
from failover.steps.back import stage_back
from failover.steps.watching import settle, watch
from failover.topology import Route, reached
from failover.weights import active, staged, switched
from failover.world import RouteChange, RouteState, Unknown, World


def drain_scope(context: Context, spec: verbs.Drain | verbs.Restore) -> Scope:
    """The routes to be moved, the health of everybody on them, and the loads that they carry."""
    return _scope(context, spec.services, _moved(context, spec))


def shift_scope(context: Context, spec: verbs.Shift) -> Scope:
    """The routes whose weights are set, the health of everybody on them, and the loads that they carry."""
    return _scope(context, spec.services, _routes(context, spec.services))


def drain(context: Context, spec: verbs.Drain, world: World) -> Steps:
    """Lower the TTL and wait out the old one, then take the region to zero stage by stage, watching the survivors.

    Services go in the order of their needs: who calls leaves before who is called. At once goes all together.
    """
    routes = _moved(context, spec)
    yield from _remarks(context, routes)
    if spec.pace == "staged":
        world = yield from _lower_ttl(context, routes, world, spec.region)
    out = out_of_service(context.topology, _services(context, spec.services), world)
    survivors = tuple(name for name in _others(routes, spec.region) if name not in out)
    for wave in _waves(context, spec):
        ramp = _Ramp(context, spec, [route for route in routes if route.service in wave], survivors)
        yield from _predicted(ramp, world)
        world = yield from ramp.go(world)
    yield from _empty(context, spec, routes)


def restore(context: Context, spec: verbs.Restore, world: World) -> Steps:
    """Look at the region first, then bring it back by the stages of its drain in reverse, and the TTL at the end.

    Services come back in the opposite order of a drain.
    """
    routes = _moved(context, spec)
    yield from _remarks(context, routes)
    for wave in reversed(_waves(context, spec)):
        ramp = _Ramp(context, spec, [route for route in routes if route.service in wave], (spec.region,), back=True)
        yield from _predicted(ramp, world)
        world = yield from ramp.go(world)


def shift(context: Context, spec: verbs.Shift, world: World) -> Steps:
    """Set the named regions' weights and see that it has settled."""
    routes = [route for route in _routes(context, spec.services) if set(spec.weights) & set(route.weights)]
    yield from _remarks(context, routes)

    def target(route: Route, now: RouteState) -> RouteState:
        named = {region: weight for region, weight in spec.weights.items() if region in route.weights}
        return RouteState({**now.weights, **named}, now.ttl)

    changes, wanted = _differences(routes, world, target, "shift")
    if changes:
        yield Changes(tuple(changes))
    yield from settle(context, wanted, wait_out=True)


@dataclass(frozen=True)
class _Ramp:
    """The stages by which some routes leave the region, or come back to it, while `watched` are looked at."""

    context: Context
    spec: verbs.Drain | verbs.Restore
    routes: Sequence[Route]
    watched: tuple[str, ...]
    back: bool = False

    def go(self, world: World) -> Generator[Action, Seen, World]:
        """Stage after stage; while a check that slows does not pass, in smaller steps than the stages."""
        at, strained = (0 if self.back else 100), False
        goals = self.goals()
        for goal in goals:
            routes = [route for route in self.routes if goal in self.stages(route)]
            parted = False
            while at != goal:
                at = self._smaller(at, goal) if strained else goal
                parted = parted or at != goal
                able = [route for route in routes if at == goal or route.id in self.context.weighted]
                final = at == goals[-1]
                world, strained = yield from self._stage(able, world, at, final=final, parted=parted)
        return world

    def goals(self) -> list[int]:
        """The percentages of all routes, in the order in which they are gone through."""
        return sorted({stage for route in self.routes for stage in self.stages(route)}, reverse=not self.back)

    def stages(self, route: Route) -> set[int]:
        down = stages_of(self.context, self.spec, route)
        return {100, *(percent for percent in down if percent)} if self.back else set(down)

    def target(self, route: Route, now: RouteState, percent: int) -> RouteState:
        """The weights of `route` at `percent`. Whoever is further already stays there."""
        region = self.spec.region
        weights = _share(self.context, route, now, region, percent)
        if not self.back:
            return RouteState(weights, now.ttl) if weights[region] < now.weights.get(region, 0) else now
        ttl = route.ttl if percent == 100 and route.ttl is not None else now.ttl
        higher = weights[region] > now.weights.get(region, 0)
        return RouteState(weights if higher or percent == 100 else now.weights, ttl)

    def _smaller(self, at: int, goal: int) -> int:
        """Half of the way to `goal`, but not less than the topology's least step."""
        step = max(abs(goal - at) // 2, self.context.topology.drain.least)
        return goal if step >= abs(goal - at) else at + step if goal > at else at - step

    def _stage(
        self, routes: Sequence[Route], world: World, percent: int, *, final: bool, parted: bool
    ) -> Generator[Action, Seen, tuple[World, bool]]:
        drain, spec = self.context.topology.drain, self.spec
        reason = f"{'restore' if self.back else 'drain'} {spec.region} to {percent} %"
        changes, wanted = _differences(
            routes, world, lambda route, now: self.target(route, now, percent), reason, part=parted
        )
        if not changes and not final:
            return world, False
        if changes:
            world = (yield Changes(tuple(changes))).world
        staged_pace = spec.pace == "staged"
        tail = drain.tail if final and staged_pace and not self.back else 0.0
        seen = yield from settle(self.context, wanted, wait_out=staged_pace, tail=tail)
        world = seen.world if seen else world
        # Where nobody is left to look at, the guards refuse the last stage.
        if not (changes and staged_pace and self.watched):
            return world, False
        soak = drain.soak if spec.soak is None else spec.soak
        try:
            services = _services(self.context, spec.services)
            return (yield from watch(self.context, services, self.watched, reason, soak))
        except Failed as error:
            if drain.on_fail == "step-back":
                yield from self._step_back(changes, error)
            raise

    def _step_back(self, changes: Sequence[RouteChange], error: Failed) -> Generator[Action, Seen, None]:
        """One stage back; where a guard or a router does not allow that, the weights stay, and it is said."""
        try:
            yield from stage_back(self.context, changes)
        except FailoverError as other:
            error.next = f"the step back was not made ({other.what}); mend it and resume, or undo the run"
        else:
            error.next = "the weights are those of the stage before; mend it and resume, or undo the run"


def _predicted(ramp: _Ramp, world: World) -> Generator[Action, Seen, None]:
    """Say what each region that is to receive traffic will carry at each stage, where that is declared."""
    topology = ramp.context.topology
    goals = ramp.goals()
    for route in ramp.routes:
        service, now = topology.services[route.service], world.routes[route.id]
        load = load_of(service, world)
        if isinstance(now, Unknown) or not isinstance(load, int | float) or not service.capacity:
            continue
        states, own = [now], ramp.stages(route)
        for percent in goals:
            if percent in own:
                states.append(ramp.target(route, states[-1], percent))
        for region in route.weights:
            carried = [load * state.weights.get(region, 0) / (sum(state.weights.values()) or 1) for state in states]
            limit = service.capacity.get(region)
            if carried[-1] > carried[0] and limit:
                yield Forecast(service.name, region, tuple(dict.fromkeys(carried)), limit)


def _remarks(context: Context, routes: Iterable[Route]) -> Generator[Action, Seen, None]:
    said = dict.fromkeys(text for route in routes for text in context.remarks.get(route.id, ()))
    for text in said:
        yield Note(text, lasts=False)


def _empty(context: Context, spec: verbs.Drain, routes: Iterable[Route]) -> Generator[Action, Seen, None]:
    """The last layer of settled: connections that were open before the traffic left."""
    counted = tuple(route.id for route in routes if route.id in context.counted)
    if counted:
        drain = context.topology.drain
        within = drain.connections if spec.pace == "staged" else 0.0
        yield Empty(counted, spec.region, within, drain.close)


def _waves(context: Context, spec: verbs.Drain | verbs.Restore) -> list[tuple[str, ...]]:
    """The services in the order in which they leave: each before those that it needs, and others beside it."""
    services = tuple(_services(context, spec.services))
    if spec.pace == "immediate":
        return [services]
    declared = context.topology.services
    below = {name: reached(declared, name) - {name} for name in services}
    waves: list[tuple[str, ...]] = []
    left = services
    while left:
        needed = set().union(*(below[name] for name in left))
        wave = tuple(name for name in left if name not in needed)
        waves.append(wave)
        left = tuple(name for name in left if name in needed)
    return waves


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
    seen = yield from settle(context, wanted, wait_out=True, stale=stale)
    return seen.world if seen else world


def _differences(
    routes: Iterable[Route],
    world: World,
    target: Callable[[Route, RouteState], RouteState],
    reason: str,
    *,
    part: bool = False,
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
            changes.append(RouteChange(route.id, now, wanted[route.id], reason, part=part))
    return changes, wanted


def _share(context: Context, route: Route, now: RouteState, region: str, percent: int) -> dict[str, int]:
    present = active(route.weights, now.weights) - {region}
    if route.id in context.weighted:
        return staged(route.weights, present, region, percent)
    return switched(route.weights, present, region, percent)


def stages_of(context: Context, spec: verbs.Drain | verbs.Restore, route: Route) -> tuple[int, ...]:
    """The percentages of its normal share that a region goes down by on `route`."""
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
    named = tuple(_services(context, services))
    checks = check_ids(context.topology, named, context.topology.regions)
    needed = databases_of(context.topology, checks)
    return Scope(tuple(route.id for route in routes), needed, checks, loads_of(context.topology, named))
