"""The providers of one topology, made and ready to be asked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType

from failover.clock import Clock
from failover.engine.gather import gather
from failover.engine.sampling import Sampled
from failover.errors import FailoverError
from failover.ports import (
    Database,
    Notifier,
    Router,
    Store,
    SupportsConnections,
    SupportsFencing,
    SupportsRemarks,
    SupportsValue,
    SupportsWeights,
)
from failover.secret import redact
from failover.steps.actions import Context, Scope
from failover.topology import Topology
from failover.verdict import Verdict, unknown
from failover.world import CheckId, Member, Role, RouteState, Unknown, World


@dataclass(frozen=True)
class Estate:
    """Every port of a topology. Making it does no I/O."""

    topology: Topology
    routers: Mapping[str, Router]
    databases: Mapping[str, Database]
    probes: Mapping[CheckId, Sampled]
    loads: Mapping[str, SupportsValue]
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
                if isinstance(router := self.routers[route.router], SupportsWeights) and router.weight_limit(route.id)
            ),
            frozenset(
                (name, region)
                for name, database in self.databases.items()
                if isinstance(database, SupportsFencing)
                for region in self.topology.regions
                if database.can_fence(region)
            ),
            frozenset(
                route.id
                for route in self.topology.routes.values()
                if isinstance(self.routers[route.router], SupportsConnections)
            ),
            {
                route.id: tuple(router.remarks(route.id))
                for route in self.topology.routes.values()
                if isinstance(router := self.routers[route.router], SupportsRemarks)
            },
        )

    def observe(self, scope: Scope, fenced: Mapping[tuple[str, str], bool] = MappingProxyType({})) -> World:
        """What is there now, of all that is in `scope`; what cannot be seen is unknown. Writes nothing.

        `fenced` are the members, as (database, region), that a run has fenced, and whether as planned: one that was
        shown to be off by a device cannot say so itself, and one that the run stopped on its way is known for it.
        """
        by_router: dict[str, list[str]] = {}
        for route in scope.routes:
            by_router.setdefault(self.topology.routes[route].router, []).append(route)
        calls: dict[str, Callable[[], World]] = {}
        silent = World(
            {route: Unknown("its router did not answer in time") for route in scope.routes},
            {name: self._silent() for name in scope.databases},
            {check: unknown(f"{check} did not answer in time") for check in scope.checks},
            {service: Unknown("its load was not given in time") for service in scope.loads},
        )
        for name, ids in by_router.items():
            calls[f"router {name}"] = partial(self._routes, name, tuple(ids))
        for name in scope.databases:
            calls[f"database {name}"] = partial(self._members, name, fenced)
        for check in scope.checks:
            calls[f"check {check}"] = partial(self._check, check)
        for service in scope.loads:
            calls[f"load {service}"] = partial(self._load, service)
        seen = gather(calls, lambda _: World())
        return World(
            {**silent.routes, **{key: state for part in seen.values() for key, state in part.routes.items()}},
            {**silent.databases, **{key: state for part in seen.values() for key, state in part.databases.items()}},
            {**silent.checks, **{key: state for part in seen.values() for key, state in part.checks.items()}},
            {**silent.loads, **{key: state for part in seen.values() for key, state in part.loads.items()}},
        )

    def look(self, checks: Iterable[CheckId]) -> Mapping[CheckId, Verdict]:
        """The verdict of each of `checks`, now."""
        return self.observe(Scope(checks=tuple(checks))).checks

    def _routes(self, router: str, routes: tuple[str, ...]) -> World:
        try:
            found = self.routers[router].read(routes)
        except FailoverError:
            raise
        except Exception as error:  # noqa: BLE001 - a provider's own mistake must not end the run
            return World(routes=dict.fromkeys(routes, Unknown(_broken(error))))
        return World(routes={route: _struck(state) for route, state in found.items()})

    def _members(self, database: str, fenced: Mapping[tuple[str, str], bool]) -> World:
        try:
            found = self.databases[database].read()
        except FailoverError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            found = self._silent(_broken(error))
        proven = {region: _known(member, fenced.get((database, region))) for region, member in found.items()}
        return World(databases={database: proven})

    def _check(self, check: CheckId) -> World:
        try:
            verdict = self.probes[check].probe()
        except Exception as error:  # noqa: BLE001 - as above; a probe never raises
            verdict = unknown(_broken(error))
        return World(checks={check: Verdict(verdict.outcome, tuple(map(redact, verdict.evidence)))})

    def _load(self, service: str) -> World:
        try:
            return World(loads={service: self.loads[service].value()})
        except FailoverError as error:
            return World(loads={service: Unknown(redact(error.what))})
        except Exception as error:  # noqa: BLE001 - as above
            return World(loads={service: Unknown(_broken(error))})

    def _silent(self, why: str = "did not answer in time") -> dict[str, Member]:
        return {region: Member(Role.UNKNOWN, detail=why) for region in self.topology.regions}


def _broken(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")


def _struck(state: RouteState | Unknown) -> RouteState | Unknown:
    return Unknown(redact(state.why)) if isinstance(state, Unknown) else state


def _known(member: Member, planned: bool | None) -> Member:
    """`member`, with what the run that fenced it knows of it: `planned` is None where none did."""
    member = replace(member, detail=redact(member.detail))
    if planned is False and member.role in (Role.UNKNOWN, Role.STOPPED):
        return replace(member, role=Role.FENCED, position=None, detail=f"fenced by its device; {member.detail}")
    return replace(member, ours=True) if planned and member.role is Role.STOPPED else member
