"""Reading a topology: structure and names, with every mistake at its place.

What belongs to a provider is checked by that provider's own config model, which `registry` knows.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from failover.errors import Problem, did_you_mean
from failover.schema import Loc, build, rest
from failover.topology import (
    WORDS,
    Check,
    CheckModel,
    DatabaseModel,
    DatabaseSpec,
    Free,
    Header,
    Provided,
    Route,
    RouteModel,
    Service,
    ServiceModel,
    Topology,
    downwards,
    reached,
)
from failover.units import duration
from failover.yaml import Document


def parse(document: Document, problems: list[Problem]) -> Topology | None:
    """`document` as a topology, or None; mistakes are added to `problems`, all that can be seen at once."""
    header = build(Header, document.root, document, (), problems)
    header = header or rest(Header, {"topology": "", "regions": None, **document.root}, {"topology": ""})
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
        self._order(services)
        if not header.services and not header.databases and set(self.document.root) <= set(Header.model_fields):
            self.complain((), "nothing to fail over: declare services or databases")
        self._whole(header.drain.ttl, ("drain", "ttl"))
        if len(regions) > 1 and header.objectives.survivors >= len(regions):
            self.complain(
                ("objectives", "survivors"),
                f"of {len(regions)} regions at most {len(regions) - 1} can survive, so none could ever be drained",
            )
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

    def _order(self, services: Mapping[str, Service]) -> None:
        """Complain of needed services that are not declared, and of those that need each other."""
        for service in services.values():
            for index, needed in enumerate(service.needs):
                at = ("services", service.name, "needs", index)
                if needed not in services:
                    near = did_you_mean(needed, services)
                    self.complain(at, f"service '{service.name}' needs '{needed}', which is not declared{near}")
                elif service.name in reached(services, needed):
                    self.complain(at, f"'{service.name}' and '{needed}' need each other; neither could leave first")

    def _regions(self, data: Any) -> dict[str, Mapping[str, Any]]:
        if isinstance(data, list):
            data = self._listed(data)
        if not isinstance(data, Mapping):
            if "regions" in self.document.root:
                self.complain(("regions",), "a list of regions is expected, or a mapping with the variables of each")
            return {}
        regions: dict[str, Mapping[str, Any]] = {}
        for name, variables in data.items():
            regions[name] = variables if isinstance(variables, Mapping) else {}
            self._word("region", name, ("regions", name))
            if variables is not None and not isinstance(variables, Mapping):
                self.complain(("regions", name), "a region's variables are a mapping, like {address: 192.0.2.1}")
            if "region" in regions[name]:
                said = "'region' is the region's own name already; call this variable something else"
                self.complain(("regions", name, "region"), said, key=True)
        if len(regions) < 2:
            self.complain(("regions",), "at least two regions are needed: one to leave and one to survive")
        return regions

    def _listed(self, data: list[Any]) -> dict[str, None]:
        names: dict[str, None] = {}
        for index, name in enumerate(data):
            if not isinstance(name, str) or not name:
                self.complain(
                    ("regions", index), "the name of a region is expected; quote it if it looks like a number"
                )
            elif name in names:
                self.complain(("regions", index), f"region '{name}' stands here twice")
            else:
                names[name] = None
        return names

    def _word(self, kind: str, name: str, loc: Loc) -> None:
        if name in WORDS:
            self.complain(
                loc, f"'{name}' has a meaning of its own in runbooks; give the {kind} another name", key=True
            )

    def _whole(self, ttl: float | None, loc: Loc) -> int | None:
        if ttl is None:
            return None
        if ttl != int(ttl):
            self.complain(loc, "a TTL is in whole seconds, like 30s")
        return int(ttl)

    def _each(self, data: Any, section: str, read: Callable[[str, Any, Loc], Any]) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self.complain((section,), f"{section} are a mapping (key: value) from a name to what it is")
            return {}
        for name in data:
            self._word(section[:-1], name, (section, name))
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
            model = model or rest(DatabaseModel, data, {"primary": next(iter(regions), "")})
            if model is None:
                return None
            self._known(model.primary, regions, (*loc, "primary"), f"database '{name}' has its primary in")
            return DatabaseSpec(name, model.primary, Provided(model.model_extra or {}, loc, ("primary",)))

        return read

    def _known(self, region: str, regions: Mapping[str, Any], loc: Loc, who: str, *, key: bool = False) -> None:
        if regions and region not in regions:
            near = did_you_mean(region, regions)
            self.complain(loc, f"{who} region '{region}', which is not declared{near}", key=key)

    def _service(
        self, regions: Mapping[str, Any], routers: Mapping[str, Any], databases: Any
    ) -> Callable[[str, Any, Loc], Service | None]:
        def read(name: str, data: Any, loc: Loc) -> Service | None:
            parts = ("routes", "checks")
            own = {key: data[key] for key in data if key not in parts} if isinstance(data, Mapping) else data
            model = build(ServiceModel, own, self.document, loc, self.problems, parts) or rest(ServiceModel, own, {})
            if model is None:
                return None
            routes: dict[str, Route] = {}
            for index, item in enumerate(self._routes(data.get("routes", []), (*loc, "routes"))):
                at = (*loc, "routes", index)
                route = self._route(name, item, at, regions, routers) if item else None
                if route and route.id in routes:
                    self.complain(at, _twice(name, route))
                if route:
                    routes[route.id] = route
            found = [self._check(name, key, loc, databases, item) for key, item in self._checks(data, loc)]
            checks = [check for check in found if check]
            for region in model.capacity:
                self._known(
                    region, regions, (*loc, "capacity", region), f"service '{name}' has capacity in", key=True
                )
            if model.capacity and model.load is None:
                self.complain((*loc, "capacity"), "capacity means nothing without 'load', in the same unit", key=True)
            load = model.load
            given = self._provided(load, (*loc, "load")) if isinstance(load, dict) else load
            return Service(name, tuple(routes.values()), tuple(checks), model.capacity, given, model.needs)

        return read

    def _routes(self, data: Any, loc: Loc) -> list[RouteModel | None]:
        if not isinstance(data, list):
            self.complain(loc, "a list of routes is expected here, like [{router: …, weights: …}]")
            return []
        found: list[RouteModel | None] = []
        for index, item in enumerate(data):
            model = build(RouteModel, item, self.document, (*loc, index), self.problems)
            weights = item.get("weights") if isinstance(item, Mapping) else None
            likely = dict.fromkeys(weights, 1) if isinstance(weights, Mapping) else {}
            found.append(model or (rest(RouteModel, item, {"weights": likely}) if likely else None))
        return found

    def _checks(self, data: Mapping[str, Any], loc: Loc) -> Iterable[tuple[str, Any]]:
        checks = data.get("checks", {})
        if isinstance(checks, Mapping):
            return checks.items()
        self.complain((*loc, "checks"), "checks are a mapping (key: value) from a name to what is looked at")
        return ()

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
        if model.weights and not any(model.weights.values()):
            self.complain((*loc, "weights"), "all weights are zero; in normal times some region takes traffic")
        if len(model.weights) < 2:
            self.complain((*loc, "weights"), "a route needs two regions at least; one alone can never be drained")
        ttl = self._whole(model.ttl, (*loc, "ttl"))
        if model.stages is not None:
            try:
                downwards(model.stages)
            except ValueError as error:
                self.complain((*loc, "stages"), str(error))
        identity = f"{service}@{model.router}" + (f"/{model.name}" if model.name else "")
        config = model.model_extra or {}
        return Route(identity, service, model.router, model.weights, ttl, model.stages, config, loc)

    def _check(self, service: str, name: str, loc: Loc, databases: Any, data: Any) -> Check | None:
        at = (*loc, "checks", name)
        model = build(CheckModel, data, self.document, at, self.problems) or rest(CheckModel, data, {})
        if model is None:
            return None
        databases = databases if isinstance(databases, Mapping) else {}
        for index, database in enumerate(model.needs):
            if database not in databases:
                near = did_you_mean(database, databases)
                self.complain(
                    (*at, "needs", index),
                    f"check '{name}' of service '{service}' needs database '{database}', which is not declared{near}",
                )
        own = tuple(field.alias or key for key, field in CheckModel.model_fields.items())
        vantages = {"": Provided(model.model_extra or {}, at, own)}
        if model.vantages is not None:
            vantages = self._vantages(model, at)
        elif model.quorum is not None:
            self.complain((*at, "quorum"), "a quorum is one of vantage points; name them under 'from'", key=True)
        if 2 * max(model.fall, model.rise) * model.every > _LONGEST_LOOK:
            said = f"one look may take up to {duration(2 * max(model.fall, model.rise) * model.every)}"
            self.complain((*at, "every"), f"{said}, and {duration(_LONGEST_LOOK)} is the most; look more often")
        majority = len(vantages) // 2 + 1
        return Check(
            name,
            model.needs,
            vantages,
            model.quorum or majority,
            model.slows,
            model.fall,
            model.rise,
            model.every,
        )

    def _vantages(self, model: CheckModel, at: Loc) -> dict[str, Provided]:
        found = {
            name: provided
            for name, data in (model.vantages or {}).items()
            if (provided := self._provided(data, (*at, "from", name)))
        }
        for key in model.model_extra or {}:
            self.complain((*at, key), f"'{key}' cannot stand beside 'from'; put it under that", key=True)
        if len(found) < 2:
            self.complain((*at, "from"), "two vantage points are needed at least; one alone needs no 'from'")
        elif model.quorum is not None and not len(found) / 2 < model.quorum <= len(found):
            self.complain(
                (*at, "quorum"),
                f"of {len(found)} vantage points more than half have to agree, {len(found) // 2 + 1} at least",
            )
        return found


_LONGEST_LOOK = 30.0
"""Seconds that one look at a check may take with all of its samples."""


def _twice(service: str, route: Route) -> str:
    _, _, name = route.id.partition(f"@{route.router}/")
    if name:
        return f"service '{service}' has two routes on '{route.router}' called '{name}'; give each a name of its own"
    return f"service '{service}' has two routes on '{route.router}'; give each a name, like name: internal"
