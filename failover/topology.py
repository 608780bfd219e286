"""The declared regions, services, databases, routers and objectives: `failover.yaml`.

These are its words; `declare` reads them from the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator

from failover.schema import Loc, Model
from failover.units import Duration
from failover.yaml import Document

Percent = Annotated[int, Field(ge=0, le=100, strict=True)]
Weight = Annotated[int, Field(ge=0, strict=True)]
Rate = Annotated[float, Field(strict=True)]
WORDS = ("all", "survivors")
"""What runbooks say instead of a name."""


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
    capacity: dict[str, Annotated[Rate, Field(gt=0)]] = {}
    load: Annotated[Rate, Field(ge=0)] | None = None
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

    survivors: Annotated[int, Field(ge=1, strict=True)] = 1
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

    @cached_property
    def routes(self) -> Mapping[str, Route]:
        return {route.id: route for service in self.services.values() for route in service.routes}


def downwards(stages: tuple[int, ...]) -> tuple[int, ...]:
    """Checks that `stages` fall to zero. Raises ValueError where they do not."""
    falling = all(high > low for high, low in pairwise(stages))
    if not stages or stages[-1] != 0 or not falling:
        raise ValueError("stages must fall and end at 0, like [75, 50, 25, 0]")
    return stages
