"""Consul, a datacenter a region: by the mesh's resolver, by maintenance, or by service weights.

A route names its `mode`. `redirect` writes the service's service-resolver, compared by its ModifyIndex, in the
primary datacenter, which holds it for all. `maintenance` takes the region's instances out at their own agents, and
`weights` gives them their weight in SRV records, and none by maintenance, since Consul knows no weight of zero.
Agents have no compare-and-set: writers of those two hold a lock in Consul's key-value store and read again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate, Refused
from failover.ports import Mistake, RouteSpec
from failover.routers._consul_agents import Agents
from failover.routers._consul_clients import Clients
from failover.routers._consul_config import WEIGHT_LIMIT, ConsulConfig, ConsulRoute, check, route_mistakes
from failover.routers._consul_redirect import Entry, Redirect
from failover.verdict import Verdict, worst
from failover.world import RouteChange, RouteState, Unknown

T = TypeVar("T")
R = TypeVar("R")
_LATE = 15.0
"""Seconds for which Consul may hold a request that nobody waits for any more: `rpc_hold_timeout`, 7 s, and a vote."""
_CALLS = 8
"""Calls that a write may have under way or still to make when `within` is over: the last one, and letting go."""


class Consul:
    """Services of Consul datacenters. Constructing it does no I/O.

    Raises Invalid there where a route has a region without a datacenter.
    """

    Config: ClassVar[type[BaseModel]] = ConsulConfig
    RouteConfig: ClassVar[type[BaseModel]] = ConsulRoute
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: ConsulConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        check(name, config, routes)
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = config.within + _CALLS * config.timeout + _LATE
        self._routes = routes
        self._redirect = Redirect(name, config, routes)
        self._agents = Agents(name, config, routes, clock)
        self._clients = Clients(config, routes, self._agents)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Weights that a mode cannot have, keys that mean nothing to it, and a TTL, which Consul keeps elsewhere."""
        return route_mistakes(spec)

    def weight_limit(self, route: str) -> int:
        """That of an SRV record for mode `weights`; 0 for the others, which switch."""
        return WEIGHT_LIMIT if self._agents.weighted(route) else 0

    def remarks(self, route: str) -> Sequence[str]:
        """That a redirect hangs on the primary datacenter, and that a node takes all with it that runs there."""
        config = self._routes[route].config
        if config.of == "node":
            return (f"{route} is drained by whole nodes: whatever else runs on them leaves and returns with it",)
        if not self._redirects(route):
            return ()
        primary = self.config.name_of(self.config.primary)
        return (
            f"{route} is steered by a config entry that can only be written while Consul's primary datacenter "
            f"{primary} has a leader",
        )

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The weights of `routes`, several at a time; what cannot be read is Unknown with the reason."""
        return dict(zip(routes, self._each(routes, self._read), strict=True))

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes`: all are compared before the first is written, raised weights before lowered ones. Writes.

        Raises Refused for weights that the mode has not and for what somebody else has to undo, Conflict where a
        route is not as `before` says, Failed, or Indeterminate where an answer was lost or only a part was made.
        """
        for change in changes:
            self._refuse(change)
        deadline = self.clock.monotonic() + self.config.within
        resolved = [change for change in changes if self._redirects(change.route)]
        entries = dict(zip(resolved, self._each(resolved, self._redirect.check), strict=True))
        told = [change for change in changes if not self._redirects(change.route)]
        self._agents.write(told)
        done = [change.route for change in told if change.before != change.after]
        for change in resolved:
            if change.before == change.after:
                continue
            try:
                self._apply(change, entries[change], deadline)
            except FailoverError as error:
                raise self._halfway(error, done) if done else error from None
            done.append(change.route)
        return ""

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where every datacenter answers `wanted`.

        For a redirect those are the discovery chains; a drained region's datacenter that cannot be reached does not
        hold it up. For the others they are the catalogs, the DNS servers that are declared and the prepared query.
        """
        if self._redirects(route):
            return worst(self._redirect.settled(route, wanted))
        return worst(self._clients.look(route, wanted).values())

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """The same, each by its name: `consul DATACENTER`, `dns SERVER for …`, `query NAME in …`."""
        return (self._redirect if self._redirects(route) else self._clients).look(route, wanted)

    def part_of(self, change: RouteChange, found: RouteState) -> bool:
        """An entry is written at once; instances are told one by one, and leave weights between the two ends."""
        return not self._redirects(change.route) and all(
            min(change.before.weights[region], weight)
            <= found.weights[region]
            <= max(change.before.weights[region], weight)
            for region, weight in change.after.weights.items()
        )

    def _redirects(self, route: str) -> bool:
        return bool(self._routes[route].config.mode == "redirect")

    def _read(self, route: str) -> RouteState | Unknown:
        return (self._redirect if self._redirects(route) else self._agents).read(route)

    def _apply(self, change: RouteChange, entry: Entry, deadline: float) -> None:
        if self.clock.monotonic() >= deadline:
            raise Failed(
                f"{self.config.within:g} s ('within') were over before {change.route} was written",
                where=f"router {self.name}",
                next="raise 'within', then run it again",
            )
        self._redirect.apply(change, entry)

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any region that takes traffic",
                next="keep or restore one region first",
            )
        normal = self._routes[change.route].route.weights
        limit = self.weight_limit(change.route)
        for region, weight in change.after.weights.items():
            if limit and weight > limit:
                raise Refused(
                    "weight-limit",
                    f"Consul takes weights up to {limit}, and {change.resource} would give {region} {weight}",
                    where=f"router {self.name}",
                    next="use smaller normal weights in the same proportion",
                )
            if not limit and weight not in (0, normal[region], change.before.weights.get(region)):
                raise Refused(
                    "weights-unsupported",
                    f"mode {self._routes[change.route].config.mode} can only switch {region} on ({normal[region]}) "
                    f"or off (0), and {change.resource} would give it {weight}",
                    where=f"router {self.name}",
                    next="drain in one stage (stages: [0]), or use mode: weights",
                )
        if change.after.ttl is not None:
            raise Refused(
                "ttl-unsupported",
                f"{change.resource} would get a TTL of {change.after.ttl} s, and Consul keeps its TTLs elsewhere",
                where=f"router {self.name}",
                next="leave 'ttl' out of the route; dns_config of Consul's agents has it",
            )

    def _halfway(self, error: FailoverError, done: Sequence[str]) -> FailoverError:
        what = f"{', '.join(done)} were written, then: {error.what}"
        return Indeterminate(what, where=error.where or f"router {self.name}", next=error.next)

    @staticmethod
    def _each(items: Sequence[T], call: Callable[[T], R]) -> list[R]:
        with ThreadPoolExecutor(max_workers=min(8, max(1, len(items)))) as pool:
            return list(pool.map(call, items))
