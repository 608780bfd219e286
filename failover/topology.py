"""The declared regions, services, databases, routers and objectives: `failover.yaml`.

Structure and names are checked here; what belongs to a provider is checked by that provider's own config model,
which `registry` knows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator

from failover.errors import Problem, did_you_mean
from failover.schema import Loc, Model, build
from failover.units import Duration
from failover.yaml import Document

Percent = Annotated[int, Field(ge=0, le=100)]
Weight = Annotated[int, Field(ge=0)]


class RouteModel(Model):
    """A service's steering on one router. Keys besides these are the router's own."""

    model_config = ConfigDict(extra="allow")

    router: str
    name: str = ""
    weights: dict[str, Weight]
    ttl: Duration | None = None
    stages: tuple[Percent, ...] | None = None


class CheckModel(Model):
    """A check of a service: one probe, and the databases that it cannot pass without."""

    model_config = ConfigDict(extra="allow")

    needs: tuple[str, ...] = ()


class ServiceModel(Model):
    """Something that takes traffic in several regions. Capacity and load are requests per second."""

    routes: tuple[RouteModel, ...] = ()
    capacity: dict[str, Annotated[float, Field(gt=0)]] = {}
    load: Annotated[float, Field(ge=0)] | None = None
    checks: dict[str, CheckModel] = {}


class DatabaseModel(Model):
    """A replicated store. `primary` is the region that is its home in normal times."""

    model_config = ConfigDict(extra="allow")

    primary: str


class Drain(Model):
    """How traffic is moved unless a step says otherwise. Stages are percentages of a region's normal share."""

    ttl: Duration | None = None
    stages: tuple[Percent, ...] = (0,)
    soak: Duration = 0.0
    settle: Duration = 300.0

    @field_validator("stages")
    @classmethod
    def _downwards(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        return downwards(stages)


class Objectives(Model):
    """What must hold while a region is out: how many healthy survivors, and how far behind a replica may be."""

    survivors: Annotated[int, Field(ge=1)] = 1
    lag: Duration = 10.0


class Free(Model):
    """A mapping whose keys are somebody else's to check."""

    model_config = ConfigDict(extra="allow")


class Header(Model):
    """The top of the file; its larger parts are built one entry at a time so that all mistakes are seen at once."""

    topology: str
    regions: Any
    services: Any = {}
    databases: Any = {}
    routers: Any = {}
    notifiers: Any = {}
    drain: Drain = Drain()
    objectives: Objectives = Objectives()
    store: Any = None


@dataclass(frozen=True, slots=True)
class Provided:
    """A provider as a file names it: the keys that are not ours, of which one must be its kind."""

    keys: Mapping[str, Any]
    loc: Loc
    known: tuple[str, ...] = ()
    """The keys of ours that may stand beside it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One service's steering on one router; `weights` are the normal ones, `ttl` the normal one in seconds."""

    id: str
    service: str
    router: str
    weights: Mapping[str, int]
    ttl: int | None
    stages: tuple[int, ...] | None
    config: Mapping[str, Any]
    loc: Loc


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a service; `needs` are databases whose missing primary explains its failure."""

    name: str
    needs: tuple[str, ...]
    provider: Provided


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    routes: tuple[Route, ...]
    checks: tuple[Check, ...]
    capacity: Mapping[str, float]
    load: float | None

    def regions(self) -> tuple[str, ...]:
        """The regions in which it takes traffic by any of its routes, in the order of its routes."""
        return tuple(dict.fromkeys(region for route in self.routes for region in route.weights))


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    name: str
    primary: str
    provider: Provided


@dataclass(frozen=True)
class Topology:
    """The whole declaration. `regions` maps each region to its variables."""

    name: str
    regions: Mapping[str, Mapping[str, Any]]
    services: Mapping[str, Service]
    databases: Mapping[str, DatabaseSpec]
    routers: Mapping[str, Provided]
    notifiers: Mapping[str, Provided]
    store: Provided | None
    drain: Drain
    objectives: Objectives
    document: Document

    @property
    def routes(self) -> Mapping[str, Route]:
        return {route.id: route for service in self.services.values() for route in service.routes}


def downwards(stages: tuple[int, ...]) -> tuple[int, ...]:
    """Checks that `stages` fall to zero. Raises ValueError where they do not."""
    falling = all(high > low for high, low in pairwise(stages))
    if not stages or stages[-1] != 0 or not falling:
        raise ValueError("stages must fall and end at 0, like [75, 50, 25, 0]")
    return stages


def parse(document: Document, problems: list[Problem]) -> Topology | None:
    """`document` as a topology, or None; mistakes are added to `problems`, all that can be seen at once."""
    header = build(Header, document.root, document, (), problems)
    return _Reader(document, problems).topology(header) if header else None


class _Reader:
    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self.document = document
        self.problems = problems

    def complain(self, loc: Loc, message: str, *, key: bool = False) -> None:
        self.problems.append(self.document.problem(loc, message, key=key))

    def topology(self, header: Header) -> Topology:
        regions = self._regions(header.regions)
        routers = self._providers(header.routers, "routers")
        notifiers = self._providers(header.notifiers, "notifiers")
        databases = self._each(header.databases, "databases", self._database(regions))
        services = self._each(header.services, "services", self._service(regions, routers, header.databases))
        if not services and not databases:
            self.complain((), "nothing to fail over: declare services or databases")
        return Topology(
            header.topology,
            regions,
            services,
            databases,
            routers,
            notifiers,
            self._provided(header.store, ("store",)) if header.store is not None else None,
            header.drain,
            header.objectives,
            self.document,
        )

    def _regions(self, data: Any) -> dict[str, Mapping[str, Any]]:
        if isinstance(data, list):
            data = dict.fromkeys(data)
        if not isinstance(data, Mapping):
            self.complain(("regions",), "a list of regions is expected, or a mapping with the variables of each")
            return {}
        regions: dict[str, Mapping[str, Any]] = {}
        for name, variables in data.items():
            regions[name] = variables if isinstance(variables, Mapping) else {}
            if variables is not None and not isinstance(variables, Mapping):
                self.complain(("regions", name), "a region's variables are a mapping, like {address: 192.0.2.1}")
            if "region" in regions[name]:
                self.complain(("regions", name, "region"), "'region' is the region's own name", key=True)
        if len(regions) < 2:
            self.complain(("regions",), "at least two regions are needed: one to leave and one to survive")
        return regions

    def _each(self, data: Any, section: str, read: Callable[[str, Any, Loc], Any]) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self.complain((section,), f"{section} are a mapping from a name to what it is")
            return {}
        found = {name: read(name, item, (section, name)) for name, item in data.items()}
        return {name: item for name, item in found.items() if item is not None}

    def _providers(self, data: Any, section: str) -> dict[str, Provided]:
        return self._each(data, section, lambda _, item, loc: self._provided(item, loc))

    def _provided(self, data: Any, loc: Loc, known: Iterable[str] = ()) -> Provided | None:
        free = build(Free, data, self.document, loc, self.problems)
        return Provided(free.model_extra or {}, loc, tuple(known)) if free else None

    def _database(self, regions: Mapping[str, Any]) -> Callable[[str, Any, Loc], DatabaseSpec | None]:
        def read(name: str, data: Any, loc: Loc) -> DatabaseSpec | None:
            model = build(DatabaseModel, data, self.document, loc, self.problems)
            if model is None:
                return None
            self._known(model.primary, regions, (*loc, "primary"), f"database '{name}' has its primary in")
            return DatabaseSpec(name, model.primary, Provided(model.model_extra or {}, loc, ("primary",)))

        return read

    def _known(self, region: str, regions: Mapping[str, Any], loc: Loc, who: str, *, key: bool = False) -> None:
        if region not in regions:
            near = did_you_mean(region, regions)
            self.complain(loc, f"{who} region '{region}', which is not declared{near}", key=key)

    def _service(
        self, regions: Mapping[str, Any], routers: Mapping[str, Any], databases: Any
    ) -> Callable[[str, Any, Loc], Service | None]:
        def read(name: str, data: Any, loc: Loc) -> Service | None:
            model = build(ServiceModel, data, self.document, loc, self.problems)
            if model is None:
                return None
            routes: dict[str, Route] = {}
            for index, item in enumerate(model.routes):
                at = (*loc, "routes", index)
                route = self._route(name, item, at, regions, routers)
                if route.id in routes:
                    self.complain(at, f"service '{name}' has two routes on '{item.router}'; give each a name")
                routes[route.id] = route
            checks = [self._check(name, key, item, loc, databases) for key, item in model.checks.items()]
            for region in model.capacity:
                self._known(
                    region, regions, (*loc, "capacity", region), f"service '{name}' has capacity in", key=True
                )
            if model.capacity and model.load is None:
                self.complain((*loc, "capacity"), "capacity means nothing without 'load', in the same unit", key=True)
            return Service(name, tuple(routes.values()), tuple(checks), model.capacity, model.load)

        return read

    def _route(
        self,
        service: str,
        model: RouteModel,
        loc: Loc,
        regions: Mapping[str, Any],
        routers: Mapping[str, Any],
    ) -> Route:
        if model.router not in routers:
            near = did_you_mean(model.router, routers)
            self.complain((*loc, "router"), f"router '{model.router}' is not declared{near}")
        for region in model.weights:
            self._known(region, regions, (*loc, "weights", region), f"service '{service}' has a route for", key=True)
        if not any(model.weights.values()):
            self.complain((*loc, "weights"), "all weights are zero; in normal times some region takes traffic")
        if len(model.weights) < 2:
            self.complain((*loc, "weights"), "a route needs two regions at least; one alone can never be drained")
        ttl = None
        if model.ttl is not None:
            ttl = int(model.ttl)
            if ttl != model.ttl:
                self.complain((*loc, "ttl"), "a TTL is in whole seconds")
        if model.stages is not None:
            try:
                downwards(model.stages)
            except ValueError as error:
                self.complain((*loc, "stages"), str(error))
        identity = f"{service}@{model.router}" + (f"/{model.name}" if model.name else "")
        config = model.model_extra or {}
        return Route(identity, service, model.router, model.weights, ttl, model.stages, config, loc)

    def _check(self, service: str, name: str, model: CheckModel, loc: Loc, databases: Any) -> Check:
        at = (*loc, "checks", name)
        for index, database in enumerate(model.needs):
            if database not in databases:
                near = did_you_mean(database, databases)
                self.complain(
                    (*at, "needs", index),
                    f"check '{name}' of service '{service}' needs database '{database}', which is not declared{near}",
                )
        return Check(name, model.needs, Provided(model.model_extra or {}, at, ("needs",)))
