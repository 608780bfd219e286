"""What the product asks of the outside world: one small protocol for each kind of provider.

A provider is one class in one file with its own config model. Its constructor does no I/O. Whatever talks over a
network bounds its own time: no call may take longer than the timeouts of its config allow.

Errors that a port raises: `Conflict` where the value to be replaced is not there (nothing was written), `Failed`
where nothing was written for another reason, `Indeterminate` where the write may have happened.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from failover.clock import Clock
from failover.topology import Route
from failover.verdict import Verdict
from failover.world import Member, MemberChange, RouteChange, RouteState, Unknown

Mistake = tuple[tuple[str | int, ...], str]
"""A path into a provider's own part of the file, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route of a router: what every route has, and the router's own config for it."""

    route: Route
    config: Any


class Router(Protocol):
    """Steers traffic. Routes are named by their ids; weights are per region, zero is drained."""

    Config: ClassVar[type[BaseModel]]
    RouteConfig: ClassVar[type[BaseModel]]
    path_version: ClassVar[str]
    """Changes when what this provider does to move traffic changes; part of a path's fingerprint."""
    write_timeout: float
    """Seconds after which a write that was begun has either happened or never will."""

    def __init__(self, name: str, config: Any, routes: Mapping[str, RouteSpec], clock: Clock) -> None: ...

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """What is wrong with a route beyond what its config model can see. No I/O."""
        ...

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The state of each of `routes`; what cannot be seen is `Unknown` with the reason. Never raises for that."""
        ...

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes`, all or none where the system can, raised weights before lowered ones where it cannot.

        Compares and sets: each `before` must be what is there. Returns a receipt for `settled`.
        """
        ...

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:
        """Whether the router and everything that answers for it now say `wanted`. `receipt` may be empty."""
        ...


@runtime_checkable
class SupportsWeights(Protocol):
    """A router that can give a region any share of some routes. Without it, it only switches a region on and off."""

    def weight_limit(self, route: str) -> int:
        """The greatest weight that a region can have on `route`; 0 where that route is only switched. No I/O."""
        ...


@runtime_checkable
class SupportsAnswers(Protocol):
    """A router for which several servers answer, which do not all learn of a change at the same moment."""

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """Whether each authoritative server and each declared resolver answers `wanted` now, by the server's name.

        A server that cannot be asked is unknown. Never raises for that. Writes nothing.
        """
        ...


@runtime_checkable
class SupportsParts(Protocol):
    """A router whose writes take several calls, so that one which is cut off may leave a part of a change made."""

    def part_of(self, change: RouteChange, found: RouteState) -> bool:
        """Whether `found` is what a write of `change` that was cut off can have left. No I/O."""
        ...


@runtime_checkable
class SupportsCompletion(Protocol):
    """A router of several servers that are written one after another, so that a write which is cut off between two
    leaves them different."""

    def half_made(self, change: RouteChange) -> bool:
        """Whether every server shows exactly `before` or `after` of `change`, and both are there. Writes nothing."""
        ...

    def complete(self, changes: Sequence[RouteChange]) -> None:
        """Make the rest of what was cut off: as `write`, but a server that shows `after` already is done. Writes."""
        ...


@runtime_checkable
class SupportsConnections(Protocol):
    """A router that sees the connections which it carries."""

    def connections(self, route: str, region: str) -> int:
        """The connections to `region` that are open now. Raises Failed where they cannot be counted."""
        ...

    def close_connections(self, route: str, region: str) -> None:
        """End them. Writes. Raises Failed, or Indeterminate where it may have happened."""
        ...


@runtime_checkable
class SupportsRemarks(Protocol):
    """A router with something to say before traffic is moved by it."""

    def remarks(self, route: str) -> Sequence[str]:
        """What a person must know of moving `route`, one sentence each, for the plan. No I/O."""
        ...


class Database(Protocol):
    """A replicated store with one primary and one member per region."""

    Config: ClassVar[type[BaseModel]]
    path_version: ClassVar[str]
    write_timeout: float

    def __init__(self, name: str, config: Any, primary: str, clock: Clock) -> None: ...

    @classmethod
    def mistakes(cls, config: Any, regions: Sequence[str]) -> Iterable[Mistake]:
        """What is wrong with a config beyond what its model can see. No I/O."""
        ...

    def read(self) -> Mapping[str, Member]:
        """Every declared member by region; one that cannot be asked has the role unknown, with why."""
        ...

    def write(self, change: MemberChange) -> str:
        """Fence, unfence, promote or rejoin one member, as the roles of `change` say.

        Refuses with `Conflict` where the member is not in the role `before`.
        """
        ...

    def caught_up(self, source: str, target: str, within: float) -> Verdict:
        """Wait, `within` seconds at most, until `target` has replayed all that the fenced `source` ever wrote."""
        ...


@runtime_checkable
class SupportsFencing(Protocol):
    """A database that can prove a member to be off, although it cannot be asked."""

    def can_fence(self, region: str) -> bool:
        """Whether a fencing device is declared for that member."""
        ...


class Probe(Protocol):
    """Looks at one thing from here and gives a verdict; what it cannot see is unknown."""

    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: Any, clock: Clock) -> None: ...

    def probe(self) -> Verdict: ...


@runtime_checkable
class SupportsValue(Protocol):
    """A probe that looks at a number."""

    def value(self) -> float:
        """The number, now. Raises Failed where it cannot be had."""
        ...


class Store(Protocol):
    """Append-only streams. Everything durable rests on `append`."""

    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: Any) -> None: ...

    def append(self, stream: str, seq: int, event: str) -> bool:
        """Put `event` at number `seq` of `stream`, from 1. Durable on return. False where that number is taken."""
        ...

    def read(self, stream: str, after: int = 0) -> Sequence[str]:
        """The events of `stream` that come after number `after`, in order."""
        ...

    def streams(self, prefix: str) -> Sequence[str]:
        """The names of all streams that begin with `prefix`, oldest first."""
        ...

    def close(self) -> None: ...


class Notifier(Protocol):
    """Tells people."""

    Config: ClassVar[type[BaseModel]]

    def __init__(self, name: str, config: Any, clock: Clock) -> None: ...

    def send(self, message: str) -> None:
        """Deliver `message` or raise Failed."""
        ...
