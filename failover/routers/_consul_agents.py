"""Modes `maintenance` and `weights`: the instances of a region, each at its own node's agent.

The catalog says who they are and what became of it; only the agent that registered an instance can change it.

Source: https://developer.hashicorp.com/consul/api-docs/agent/service and .../agent#enable-maintenance-mode
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from failover._consul import REASON, Agent
from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import RouteSpec
from failover.routers._consul_config import ConsulConfig
from failover.routers._consul_instances import Instance, differs, present, read_instances, weight_of
from failover.routers._consul_lock import held
from failover.routers._words import say
from failover.world import RouteChange, RouteState, Unknown

_AT_ONCE = 8
_KEPT = ("ID", "Tags", "Meta", "Port", "Address", "TaggedAddresses", "EnableTagOverride", "SocketPath")
"""What an agent says of a service and takes back as it is. The checks stay where none are sent."""
Regions = Mapping[str, Sequence[Instance]]


@dataclass(frozen=True)
class Order:
    """One thing to be told to one agent."""

    region: str
    instance: Instance
    tell: Callable[[], None]
    spared: bool = False
    """Whether it is told only if it can be: its node is gone, and others are there."""


class Agents:
    """The routes of a router that are steered so."""

    def __init__(self, name: str, config: ConsulConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.where = f"router {name}"
        self.config = config
        self.clock = clock
        self._routes = routes
        self._agents = {region: config.agent(name, region) for region in config.datacenters}

    def weighted(self, route: str) -> bool:
        return bool(self._routes[route].config.mode == "weights")

    def agent(self, region: str) -> Agent:
        """The agent that is asked for `region`."""
        return self._agents[region]

    def read(self, route: str) -> RouteState | Unknown:
        """The weights as the regions' catalogs have them; Unknown where one of them cannot be read."""
        try:
            return self.state(route, self.regions(route))
        except Failed as error:
            return Unknown(error.what)

    def state(self, route: str, regions: Regions) -> RouteState:
        weights = self._routes[route].route.weights
        fixed = not self.weighted(route)
        return RouteState(
            {region: weight_of(regions[region], normal if fixed else None) for region, normal in weights.items()}
        )

    def regions(self, route: str) -> Regions:
        """The instances of each region, one at least. Raises Failed."""
        names = list(self._routes[route].route.weights)
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            return dict(zip(names, pool.map(lambda region: self.instances(route, region), names), strict=True))

    def instances(self, route: str, region: str) -> Sequence[Instance]:
        """The instances of `region`, one at least. Raises Failed."""
        config, agent = self._routes[route].config, self._agents[region]
        body = agent.get(f"health/service/{config.service}", consistent="").body
        return self._read(route, region, body)

    def write(self, changes: Sequence[RouteChange]) -> None:
        """Make `changes`, one writer at a time, raised weights before lowered ones. Writes.

        Raises Refused where only somebody else's maintenance keeps a region out, Conflict where a route is not as
        `before` says, Failed, or Indeterminate where an agent's answer was lost or some were told and some not.
        """
        deadline = self.clock.monotonic() + self.config.within
        for change in changes:
            self._checked(change)
        moved = [change for change in changes if change.before != change.after]
        if not moved:
            return
        with self._alone(moved, deadline):
            orders = [order for change in changes for order in self._orders(change, self._checked(change))]
            done: list[Order] = []
            for raising in (True, False):
                part = [order for order in orders if self._raises(order, moved) is raising]
                self._carry_out(part, done, len(orders), deadline)
            self._see_it(moved, deadline)

    @contextmanager
    def _alone(self, changes: Sequence[RouteChange], deadline: float) -> Iterator[None]:
        """The lock of each route, in the first of its regions by name, so that every writer goes to the same one."""
        keys: dict[str, list[str]] = {}
        for change in changes:
            arbiter = min(self._routes[change.route].route.weights)
            keys.setdefault(arbiter, []).append(f"{self.config.lock.strip('/')}/{change.route}")
        life = self.config.within + 2 * self.config.timeout
        with ExitStack() as stack:
            for arbiter in sorted(keys):
                stack.enter_context(held(self._agents[arbiter], keys[arbiter], self.clock, deadline, life))
            yield

    def _raises(self, order: "Order", changes: Sequence[RouteChange]) -> bool:
        return any(change.after.weights[order.region] > change.before.weights[order.region] for change in changes)

    def _read(self, route: str, region: str, body: Any) -> Sequence[Instance]:
        config, agent = self._routes[route].config, self._agents[region]
        try:
            found = read_instances(body, config.of)
        except ValueError as error:
            raise Failed(f"{agent}: {error}", where=self.where, next="check 'address'") from None
        if not found:
            raise Failed(
                f"{agent} shows no instance of '{config.service}'; none is registered, or its token may not read "
                "that service and its nodes",
                where=self.where,
                next=f"compare `consul catalog nodes -service {config.service}` with a token that may read all",
            )
        return found

    def _checked(self, change: RouteChange) -> Regions:
        regions = self.regions(change.route)
        state = self.state(change.route, regions)
        if state != change.before:
            raise Conflict(change.resource, say(change.before), say(state))
        for region, weight in change.after.weights.items():
            serves = any(one.theirs is None for one in present(regions[region]))
            if weight and weight != state.weights[region] and not serves:
                theirs = sorted({f"{one} ('{one.theirs}')" for one in regions[region]})
                raise Refused(
                    "maintenance-of-others",
                    f"{change.resource}: every instance in {region} is in maintenance that somebody else set: "
                    f"{', '.join(theirs[:5])}; nothing was written",
                    where=self.where,
                    next="ask whoever set it; `consul maint -disable` on the node ends it, then try again",
                )
        return regions

    def _orders(self, change: RouteChange, regions: Regions) -> Iterable[Order]:
        config = self._routes[change.route].config
        for region, weight in change.after.weights.items():
            told: set[str] = set()
            if weight == change.before.weights[region]:
                continue
            for one in regions[region]:
                agent = self._agent_of(region, one)
                spared = one not in present(regions[region])
                if weight and self.weighted(change.route) and one.weight != weight:
                    yield Order(region, one, self._weigh(agent, one, weight), spared)
                what = one.node if config.of == "node" else one.id
                due = one.ours if weight else not one.ours
                # A node's maintenance is one for all that runs there.
                if due and (config.of == "service" or what not in told):
                    told.add(what)
                    tell = self._maintain(agent, config.of, one, change.route, region, not weight)
                    yield Order(region, one, tell, spared)

    def _agent_of(self, region: str, one: Instance) -> Agent:
        at = self.config.datacenters[region]
        address = at.agents.get(one.node, "")
        if not address:
            parts = urlsplit(at.address)
            host = f"[{one.host}]" if ":" in one.host else one.host
            address = f"{parts.scheme}://{host}:{parts.port or 8500}"
        return self.config.agent(self.name, region, address)

    def _maintain(
        self, agent: Agent, of: str, one: Instance, route: str, region: str, enable: bool
    ) -> Callable[[], None]:
        path = "agent/maintenance" if of == "node" else f"agent/service/maintenance/{one.id}"
        reason = {"reason": f"{REASON}route {route}, region {region} is drained"} if enable else {}
        return lambda: agent.put(path, enable=str(enable).lower(), **reason)

    def _weigh(self, agent: Agent, one: Instance, weight: int) -> Callable[[], None]:
        def tell() -> None:
            found = agent.local(f"agent/service/{one.id}").body
            if not isinstance(found, Mapping) or found.get("Kind"):
                raise Failed(
                    f"{agent} has no plain service '{one.id}', which the catalog has on {one.node}; its weight was "
                    "not written",
                    where=self.where,
                    next=f"see that {agent.address} is the agent of {one.node}, or name it under 'agents'",
                )
            kept = {key: found[key] for key in _KEPT if key in found}
            weights = {**found.get("Weights", {}), "Passing": weight}
            connect = {"Connect": {"Native": True}} if one.native else {}
            agent.put("agent/service/register", {**kept, **connect, "Name": found["Service"], "Weights": weights})

        return tell

    def _carry_out(self, orders: Sequence[Order], done: list[Order], of: int, deadline: float) -> None:
        by_instance: dict[tuple[str, str, str], list[Order]] = {}
        for order in sorted(orders, key=lambda order: order.spared):
            by_instance.setdefault((order.region, order.instance.node, order.instance.id), []).append(order)
        errors: list[tuple[Order, FailoverError]] = []

        def work(mine: Sequence[Order]) -> None:
            for order in mine:
                try:
                    if self.clock.monotonic() >= deadline:
                        raise Failed(f"{self.config.within:g} s ('within') were over", next="raise 'within'")
                    order.tell()
                except FailoverError as error:
                    if not order.spared:
                        errors.append((order, error))
                    return
                done.append(order)

        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            list(pool.map(work, by_instance.values()))
        if not errors:
            return
        order, error = next(((o, e) for o, e in errors if isinstance(e, Indeterminate)), errors[0])
        kind = Indeterminate if done or isinstance(error, Indeterminate) else Failed
        halfway = f"; {len(done)} of {of} agents' changes were made before" if done else ""
        raise kind(
            f"{order.instance} in {order.region}: {error.what}{halfway}",
            where=self.where,
            next=f"{error.next}; what was made stands, and the same run goes on from there",
        ) from None

    def _see_it(self, changes: Sequence[RouteChange], deadline: float) -> None:
        """Wait until the catalogs have it: an agent says yes first and tells its servers then."""
        for change in changes:
            config = self._routes[change.route].config
            for region, weight in change.after.weights.items():
                if weight == change.before.weights[region]:
                    continue
                if self.clock.monotonic() >= deadline:
                    return

                def there(body: Any, route: str = change.route, region: str = region, weight: int = weight) -> bool:
                    return not differs(self._read(route, region, body), weight, weighted=self.weighted(route))

                try:
                    self._agents[region].watch(f"health/service/{config.service}", there, self.clock, deadline)
                except Failed:
                    return  # every agent has said yes; whether it has settled is asked next
