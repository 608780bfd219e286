"""The declared regions, services, databases, routers and objectives: `failover.yaml`.

These are its words; `declare` reads them from the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

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
    """A check of a service: a probe or several vantage points, and the databases that it cannot pass without.

    After a pass, `fall` failing samples in a row are a fail; after a fail, `rise` passing ones a pass.
    """

    model_config = ConfigDict(extra="allow")

    needs: tuple[str, ...] = ()
    slows: bool = False
    fall: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    rise: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    every: Duration = 1.0
    vantages: dict[str, Any] | None = Field(None, alias="from")
    quorum: Annotated[int, Field(ge=1, strict=True)] | None = None


class ServiceModel(Model):
    """Something that takes traffic in several regions. Capacity and load are requests per second.

    `needs` are the services that this one calls: it leaves a region before them and comes back after them.
    """

    needs: tuple[str, ...] = ()
    routes: tuple[RouteModel, ...] = ()
    capacity: dict[str, Annotated[Rate, Field(gt=0)]] = {}
    load: Annotated[Rate, Field(ge=0)] | dict[str, Any] | None = None
    checks: dict[str, CheckModel] = {}


class DatabaseModel(Model):
    """A replicated store. `primary` is the region that is its home in normal times."""

    model_config = ConfigDict(extra="allow")

    primary: str


class Drain(Model):
    """How traffic is moved unless a step says otherwise. Stages are percentages of a region's normal share.

    While a stage soaks, the survivors are looked at every `every`; an unknown is waited for, `hold` at most. A step
    that a slowing check makes smaller is never smaller than `least` percent. `tail` is how long resolvers that keep
    an old answer are waited for, `connections` how long open connections are, before they are counted, and ended
    where `close` says so and the router can.
    """

    ttl: Duration | None = None
    stages: tuple[Percent, ...] = (0,)
    soak: Duration = 0.0
    settle: Duration = 300.0
    every: Duration = 10.0
    hold: Duration = 60.0
    least: Annotated[int, Field(ge=1, le=100, strict=True)] = 5
    on_fail: Literal["pause", "step-back"] = "pause"
    tail: Duration = 60.0
    connections: Duration = 0.0
    close: bool = False

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
    """A check of a service; `needs` are databases whose missing primary explains its failure.

    One that `slows` says nothing of health: while it does not pass, traffic is moved in smaller steps. `vantages`
    are where it is looked from, of which `quorum` have to agree.
    """

    name: str
    needs: tuple[str, ...]
    vantages: Mapping[str, Provided]
    quorum: int = 1
    slows: bool = False
    fall: int = 1
    rise: int = 1
    every: float = 1.0


@dataclass(frozen=True)
class Service:
    name: str
    routes: tuple[Route, ...]
    checks: tuple[Check, ...]
    capacity: Mapping[str, float]
    load: float | Provided | None
    needs: tuple[str, ...] = ()

    @cached_property
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


def reached(services: Mapping[str, Service], name: str) -> set[str]:
    """The service `name` and all that it needs, directly or by others."""
    found: set[str] = set()
    left = [name]
    while left:
        one = left.pop()
        if one not in found and one in services:
            found.add(one)
            left += services[one].needs
    return found
