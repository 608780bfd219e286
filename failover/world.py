"""An immutable snapshot of what was observed, and the changes that lead from one to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from failover.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be observed, and why. It is neither healthy nor dead."""

    why: str

    def __str__(self) -> str:
        return f"unknown ({self.why})"


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route as its router has it: a weight per region, and the TTL in seconds where there is one."""

    weights: Mapping[str, int]
    ttl: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    def __str__(self) -> str:
        weights = ", ".join(f"{region} {weight}" for region, weight in self.weights.items())
        return weights + (f", TTL {self.ttl} s" if self.ttl is not None else "")

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.weights.items())), self.ttl))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RouteState):
            return NotImplemented
        return dict(self.weights) == dict(other.weights) and self.ttl == other.ttl


class Role(StrEnum):
    """What one member of a database is."""

    PRIMARY = "primary"
    """Takes writes."""
    FENCED = "fenced"
    """Was the primary; it has been made to refuse writes, or has been shown to be off."""
    REPLICA = "replica"
    """Follows, or would follow, the primary."""
    DIVERGED = "diverged"
    """Was the primary on a history that the present one has left; it must be rewound or rebuilt."""
    STOPPED = "stopped"
    """Its host answers and says that the server does not run."""
    UNKNOWN = "unknown"
    """Could not be asked. It may well be taking writes."""


@dataclass(frozen=True, slots=True)
class Member:
    """One copy of a database. `position` counts bytes of history; `lag` is seconds behind the primary.

    `streaming` says whether it receives the primary's writes now. `lost` is how many commits of its own would be
    discarded if it rejoined, where that could be counted. `ours` says that the run at hand stopped it, on its way
    from primary to replica.
    """

    role: Role
    position: int | None = None
    lag: float | None = None
    streaming: bool = False
    lost: int | None = None
    detail: str = ""
    ours: bool = False

    def __str__(self) -> str:
        return f"{self.role} ({self.detail})" if self.detail else str(self.role)


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One route going from `before` to `after`."""

    route: str
    before: RouteState
    after: RouteState
    reason: str
    recovery: bool = False
    """Takes back the change before it, after which something went wrong; no plan lists it."""
    part: bool = False
    """Goes a part of the way of a change that the plan lists."""

    @property
    def resource(self) -> str:
        return f"route {self.route}"


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One member of a database going from one role to another.

    `primary` is the region whose member is, or will be, the primary. `planned` says that the history is complete:
    the old primary was fenced and its last write was seen in the new one.
    """

    database: str
    region: str
    before: Role
    after: Role
    reason: str
    primary: str
    planned: bool = True
    recovery: bool = False
    """Takes back the change before it after that could not be completed; no plan lists it."""

    @property
    def resource(self) -> str:
        return f"database {self.database}/{self.region}"


Change = RouteChange | MemberChange


@dataclass(frozen=True, slots=True)
class CheckId:
    """One check of one service in one region."""

    service: str
    check: str
    region: str

    def __str__(self) -> str:
        return f"{self.service}/{self.check} in {self.region}"


@dataclass(frozen=True, slots=True)
class World:
    """What was observed: routes by id, database members by database and region, checks by id, loads by service in
    requests per second."""

    routes: Mapping[str, RouteState | Unknown] = field(default_factory=dict)
    databases: Mapping[str, Mapping[str, Member]] = field(default_factory=dict)
    checks: Mapping[CheckId, Verdict] = field(default_factory=dict)
    loads: Mapping[str, float | Unknown] = field(default_factory=dict)

    def merge(self, other: "World") -> "World":
        """This world with everything that `other` has seen put over it."""
        return World(
            {**self.routes, **other.routes},
            {**self.databases, **other.databases},
            {**self.checks, **other.checks},
            {**self.loads, **other.loads},
        )

    def after(self, *changes: Change) -> "World":
        """The world in which `changes` have been made, one after another, and nothing else has moved."""
        moved = {change.route: change.after for change in changes if isinstance(change, RouteChange)}
        world = replace(self, routes={**self.routes, **moved}) if moved else self
        for change in changes:
            if isinstance(change, MemberChange):
                world = world._with(change)  # noqa: SLF001 - of its own class
        return world

    def _with(self, change: MemberChange) -> "World":
        members = dict(self.databases[change.database])
        if change.after is Role.PRIMARY and change.before is not Role.FENCED:
            members = {region: replace(member, streaming=False) for region, member in members.items()}
        following = change.after is Role.REPLICA
        members[change.region] = replace(
            members[change.region],
            role=change.after,
            streaming=following,
            lag=0.0 if following else None,
            lost=None,
            detail="",
            ours=False,
        )
        return replace(self, databases={**self.databases, change.database: members})

    def primaries(self, database: str) -> tuple[str, ...]:
        """The regions whose member of `database` takes writes, as far as anybody can see."""
        members = self.databases.get(database, {})
        return tuple(region for region, member in members.items() if member.role is Role.PRIMARY)


def encode(change: Change) -> dict[str, Any]:
    """`change` as plain data, for a journal, a plan or JSON output."""
    if isinstance(change, RouteChange):
        return {
            "route": change.route,
            "before": {"weights": dict(change.before.weights), "ttl": change.before.ttl},
            "after": {"weights": dict(change.after.weights), "ttl": change.after.ttl},
            "reason": change.reason,
            "recovery": change.recovery,
            "part": change.part,
        }
    return {
        "database": change.database,
        "region": change.region,
        "before": str(change.before),
        "after": str(change.after),
        "primary": change.primary,
        "reason": change.reason,
        "planned": change.planned,
        "recovery": change.recovery,
    }


def decode(data: Mapping[str, Any]) -> Change:
    """The change that `encode` made `data` of. Raises KeyError or ValueError for anything else."""
    if "route" in data:
        before, after = (RouteState(data[end]["weights"], data[end]["ttl"]) for end in ("before", "after"))
        return RouteChange(data["route"], before, after, data["reason"], data["recovery"], data["part"])
    return MemberChange(
        data["database"],
        data["region"],
        Role(data["before"]),
        Role(data["after"]),
        data["reason"],
        data["primary"],
        data["planned"],
        data["recovery"],
    )


def same(one: Change, other: Change) -> bool:
    """Whether both take the same resource from the same state to the same state, whatever their reasons."""
    if isinstance(one, RouteChange) and isinstance(other, RouteChange):
        return (one.route, one.before, one.after) == (other.route, other.before, other.after)
    if isinstance(one, MemberChange) and isinstance(other, MemberChange):
        mine = (one.database, one.region, one.before, one.after, _loses_nothing(one))
        return mine == (other.database, other.region, other.before, other.after, _loses_nothing(other))
    return False


def covers(planned: Change, change: Change) -> bool:
    """Whether `change` is a part of `planned`: it begins and ends on the way of that one."""
    if not isinstance(planned, RouteChange) or not isinstance(change, RouteChange) or not change.part:
        return False
    return planned.route == change.route and all(
        _between(planned.before, state, planned.after) for state in (change.before, change.after)
    )


def _between(before: RouteState, state: RouteState, after: RouteState) -> bool:
    if state.ttl not in (before.ttl, after.ttl) or state.weights.keys() != after.weights.keys():
        return False
    ways = (
        (before.weights.get(region, 0), weight, after.weights[region]) for region, weight in state.weights.items()
    )
    return all(min(start, end) <= weight <= max(start, end) for start, weight, end in ways)


def _loses_nothing(change: MemberChange) -> bool:
    """Whether it is not a promotion that may lose writes: whoever approved a switchover approved no failover."""
    return change.planned or change.after is not Role.PRIMARY
