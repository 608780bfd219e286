"""The providers of one topology, made and ready to be asked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from failover.clock import Clock
from failover.engine.gather import gather
from failover.ports import Database, Notifier, Probe, Router, Store, SupportsFencing, SupportsWeights
from failover.steps.actions import Context, Scope
from failover.topology import Topology
from failover.verdict import Verdict, unknown
from failover.world import CheckId, Member, Role, Unknown, World


@dataclass(frozen=True)
class Estate:
    """Every port of a topology. Making it does no I/O."""

    topology: Topology
    routers: Mapping[str, Router]
    databases: Mapping[str, Database]
    probes: Mapping[CheckId, Probe]
    notifiers: Mapping[str, Notifier]
    store: Store
    clock: Clock

    @cached_property
    def context(self) -> Context:
        """What steps and guards may know of the providers."""
        return Context(
            self.topology,
            frozenset(
                route.id
                for route in self.topology.routes.values()
                if isinstance(self.routers[route.router], SupportsWeights)
            ),
            frozenset(
                (name, region)
                for name, database in self.databases.items()
                if isinstance(database, SupportsFencing)
                for region in self.topology.regions
                if database.can_fence(region)
            ),
        )

    def observe(self, scope: Scope) -> World:
        """What is there now, of all that is in `scope`; what cannot be seen is unknown. Writes nothing."""
        by_router: dict[str, list[str]] = {}
        for route in scope.routes:
            by_router.setdefault(self.topology.routes[route].router, []).append(route)
        calls: dict[str, Callable[[], World]] = {}
        silent = World(
            {route: Unknown("its router did not answer in time") for route in scope.routes},
            {name: self._silent() for name in scope.databases},
            {check: unknown(f"{check} did not answer in time") for check in scope.checks},
        )
        for name, ids in by_router.items():
            calls[f"router {name}"] = partial(self._routes, name, tuple(ids))
        for name in scope.databases:
            calls[f"database {name}"] = partial(self._members, name)
        for check in scope.checks:
            calls[f"check {check}"] = partial(self._check, check)
        seen = gather(calls, lambda _: World())
        return World(
            {**silent.routes, **{key: state for part in seen.values() for key, state in part.routes.items()}},
            {**silent.databases, **{key: state for part in seen.values() for key, state in part.databases.items()}},
            {**silent.checks, **{key: state for part in seen.values() for key, state in part.checks.items()}},
        )

    def look(self, checks: Iterable[CheckId]) -> Mapping[CheckId, Verdict]:
        """The verdict of each of `checks`, now."""
        return self.observe(Scope(checks=tuple(checks))).checks

    def _routes(self, router: str, routes: tuple[str, ...]) -> World:
        return World(routes=self.routers[router].read(routes))

    def _members(self, database: str) -> World:
        return World(databases={database: self.databases[database].read()})

    def _check(self, check: CheckId) -> World:
        return World(checks={check: self.probes[check].probe()})

    def _silent(self) -> dict[str, Member]:
        return {region: Member(Role.UNKNOWN, detail="did not answer in time") for region in self.topology.regions}
