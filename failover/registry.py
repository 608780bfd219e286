"""From files to a working estate: providers found by their entry points, their configs checked, their ports made."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from failover import declaration
from failover.clock import SYSTEM, Clock
from failover.engine.estate import Estate
from failover.engine.sampling import Sampled
from failover.errors import Failed, Invalid, Problem, Usage, did_you_mean
from failover.ports import Database, Notifier, Probe, Router, RouteSpec, Store, SupportsValue
from failover.schema import Loc, build
from failover.substitute import substitute
from failover.topology import Provided, RouteModel, Topology
from failover.world import CheckId
from failover.yaml import Document, load, parse

KINDS = ("routers", "databases", "probes", "stores", "notifiers")
DEFAULT_FILE = "failover.yaml"


@cache
def found(group: str) -> Mapping[str, EntryPoint]:
    """Every provider of the kind `group` that is installed, ours and other people's, by its name in files."""
    return {point.name: point for point in _installed().select(group=f"failover.{group}")}


@cache
def _installed() -> Any:
    # One pass over everything that is installed serves all five kinds.
    return entry_points()


def provider(group: str, name: str) -> Any:
    """The class of the provider. Raises Failed where what it needs is not installed."""
    point = found(group)[name]
    try:
        return point.load()
    except ImportError as error:
        raise Failed(
            f"the {group[:-1]} '{name}' needs the Python package '{error.name}', which is not installed",
            next=f"pip install 'failover[{name}]', or the package itself",
        ) from None


def topology_file(given: Path | None) -> Path:
    """The topology to use: the one given, `$FAILOVER_TOPOLOGY`, or failover.yaml here. Raises Usage without one."""
    if given is not None:
        return given
    named = os.environ.get("FAILOVER_TOPOLOGY")
    path = Path(named) if named else Path(DEFAULT_FILE)
    if not named and not path.exists():
        raise Usage(
            f"there is no {DEFAULT_FILE} in this directory",
            next="name one with --topology FILE or FAILOVER_TOPOLOGY; failover lab up writes one to try things on",
        )
    return path


def open_estate(document: Document, clock: Clock = SYSTEM) -> Estate:
    """The estate that `document` declares. Raises Invalid with every mistake in it, at once."""
    problems: list[Problem] = []
    topology = declaration.parse(document, problems)
    made = _Assembly(topology, problems, clock).estate() if topology else None
    if problems or made is None:
        raise Invalid(problems)
    return made


@dataclass
class _Assembly:
    topology: Topology
    problems: list[Problem]
    clock: Clock

    def estate(self) -> Estate | None:
        topology = self.topology
        routers = {name: self._router(name, provided) for name, provided in topology.routers.items()}
        databases = {name: self._database(name) for name in topology.databases}
        notifiers = {name: self._notifier(name, provided) for name, provided in topology.notifiers.items()}
        probes = dict(self._probes())
        store = self._store(topology.store or Provided({"sqlite": {}}, ("store",)))
        loads = {
            service.name: self._load(service.load)
            for service in topology.services.values()
            if isinstance(service.load, Provided)
        }
        if self.problems or store is None:
            return None
        made = (_whole(routers), _whole(databases), probes, _whole(loads), _whole(notifiers))
        return Estate(topology, *made, store, self.clock)

    def complain(self, loc: Loc, message: str, *, key: bool = False) -> None:
        self.problems.append(self.topology.document.problem(loc, message, key=key))

    def _router(self, name: str, provided: Provided) -> Router | None:
        chosen = self._choose("routers", provided)
        if chosen is None:
            return None
        kind, data, loc = chosen
        config = self._build(kind.Config, data, loc)
        routes: dict[str, RouteSpec] = {}
        for route in self.topology.routes.values():
            if route.router != name:
                continue
            ours = tuple(RouteModel.model_fields)
            model = build(kind.RouteConfig, route.config, self.topology.document, route.loc, self.problems, ours)
            if model is not None:
                routes[route.id] = RouteSpec(route, model)
                for path, message in kind.mistakes(routes[route.id]):
                    self.complain((*route.loc, *path), message)
        return None if config is None or self.problems else kind(name, config, routes, self.clock)

    def _database(self, name: str) -> Database | None:
        spec = self.topology.databases[name]
        chosen = self._choose("databases", spec.provider)
        if chosen is None:
            return None
        kind, data, loc = chosen
        config = self._build(kind.Config, data, loc)
        if config is None:
            return None
        for path, message in kind.mistakes(config, tuple(self.topology.regions)):
            self.complain((*loc, *path), message)
        return None if self.problems else kind(name, config, spec.primary, self.clock)

    def _notifier(self, name: str, provided: Provided) -> Notifier | None:
        chosen = self._choose("notifiers", provided)
        config = self._build(chosen[0].Config, *chosen[1:]) if chosen else None
        return None if chosen is None or config is None else chosen[0](name, config, self.clock)

    def _store(self, provided: Provided) -> Store | None:
        chosen = self._choose("stores", provided)
        config = self._build(chosen[0].Config, *chosen[1:]) if chosen else None
        if chosen is None or config is None or self.problems:
            return None
        path = getattr(config, "path", None)
        if isinstance(path, Path) and not str(path).startswith("~"):
            # Two people in two directories have to meet in one journal, or neither sees the other's locks.
            config = config.model_copy(update={"path": Path(self.topology.document.name).parent / path})
        return chosen[0](config)  # type: ignore[no-any-return]  # whatever class the entry point names

    def _probes(self) -> Iterable[tuple[CheckId, Sampled]]:
        for service in self.topology.services.values():
            regions = service.regions or tuple(self.topology.regions)
            for check in service.checks:
                places = {name: self._looks(provided, regions) for name, provided in check.vantages.items()}
                for region in regions:
                    probes = {name: looks[region] for name, looks in places.items() if region in looks}
                    if len(probes) == len(check.vantages):
                        manner = (check.quorum, check.fall, check.rise, check.every, self.clock)
                        yield CheckId(service.name, check.name, region), Sampled(probes, *manner)

    def _looks(self, provided: Provided, regions: Iterable[str]) -> dict[str, Probe]:
        """The probe that `provided` is in each of `regions`."""
        chosen = self._choose("probes", provided)
        if chosen is None:
            return {}
        kind, data, loc = chosen
        made: dict[str, Probe] = {}
        for region in regions:
            names = {**self.topology.regions.get(region, {}), "region": region}
            before = len(self.problems)
            filled = substitute(data, names, self.complain, loc, place=f"for region '{region}'")
            spoiled = {(problem.line, problem.column) for problem in self.problems[before:]}
            after = len(self.problems)
            config = self._build(kind.Config, filled, loc)
            self.problems[after:] = [
                problem for problem in self.problems[after:] if (problem.line, problem.column) not in spoiled
            ]
            if config is None or spoiled:
                break
            made[region] = kind(config, self.clock)
        return made

    def _load(self, provided: Provided) -> SupportsValue | None:
        chosen = self._choose("probes", provided)
        if chosen is None:
            return None
        kind, data, loc = chosen
        config = self._build(kind.Config, data, loc)
        if not hasattr(kind, "value"):
            self.complain(loc, f"'{loc[-1]}' gives a verdict and no number", key=True)
            return None
        return kind(config, self.clock) if config is not None else None

    def _build(self, model: Any, data: Any, loc: Loc) -> Any:
        return build(model, {} if data is None else data, self.topology.document, loc, self.problems)

    @staticmethod
    def _fields(group: str, name: str) -> Iterable[str]:
        try:
            fields: Iterable[str] = provider(group, name).Config.model_fields
        except Failed:
            return ()
        return fields

    def _choose(self, group: str, provided: Provided) -> tuple[Any, Any, Loc] | None:
        """The one key of `provided` that names a provider: its class, what stands under it, and where."""
        known = found(group)
        kinds = [key for key in provided.keys if key in known]
        for key in provided.keys:
            if key not in known:
                what = "key" if kinds else f"{group[:-1]} or key"
                near = did_you_mean(key, (*known, *provided.known))
                near = near if "did you mean" in near else did_you_mean(key, known)
                if kinds and key in self._fields(group, kinds[0]):
                    near = f"; it belongs under '{kinds[0]}'"
                self.complain((*provided.loc, key), f"unknown {what} '{key}'{near}", key=True)
        if len(kinds) > 1:
            self.complain((*provided.loc, kinds[1]), f"'{kinds[0]}' stands here already; one is enough", key=True)
        if not provided.keys:
            self.complain(provided.loc, f"say which {group[:-1]} this is; known: {', '.join(sorted(known))}")
        if not kinds:
            return None
        loc = (*provided.loc, kinds[0])
        try:
            return provider(group, kinds[0]), provided.keys[kinds[0]], loc
        except Failed as error:
            self.complain(loc, f"{error.what}; {error.next}", key=True)
            return None


def _whole(made: Mapping[str, Any | None]) -> dict[str, Any]:
    return {name: item for name, item in made.items() if item is not None}


@dataclass(frozen=True)
class FileLibrary:
    """Runbooks in files: those in `runbooks/` here come first, then the ones that come with the product."""

    @property
    def folders(self) -> tuple[Path, ...]:
        package = Path(__file__).parent
        bundled = package / "runbooks"
        return (Path("runbooks"), bundled if bundled.is_dir() else package.parent / "runbooks")

    def names(self) -> list[str]:
        return sorted({path.stem for folder in self.folders for path in folder.glob("*.yaml")})

    def open(self, name: str) -> Document:
        """The runbook called `name`. Raises KeyError where there is none, Invalid where it cannot be read."""
        for folder in self.folders:
            for path in folder.glob("*.yaml"):
                if path.stem == name:
                    return load(path)
        raise KeyError(name)

    def find(self, name: str) -> Document:
        """The runbook called `name`, or in the file `name`. Raises Usage where there is neither."""
        if name.endswith((".yaml", ".yml")) or "/" in name:
            return load(Path(name))
        try:
            return self.open(name)
        except KeyError:
            raise Usage(
                f"there is no runbook called '{name}'{did_you_mean(name, self.names())}",
                next="name one of those, or a file that ends in .yaml",
            ) from None


@dataclass(frozen=True)
class RecordedLibrary:
    """The runbooks of a run, as its journal holds them."""

    sources: Mapping[str, tuple[str, str]]

    def names(self) -> Iterable[str]:
        return self.sources

    def open(self, name: str) -> Document:
        """The runbook called `name` as it was when the run began. Raises KeyError where the run has none."""
        file, text = self.sources[name]
        return parse(text, file)
