"""A replicated database that lives in this process: for tests, for simulation, and as the smallest example."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from failover.clock import Clock
from failover.errors import Conflict, Failed, Refused, did_you_mean
from failover.ports import Mistake
from failover.schema import Model
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import Member, MemberChange, Role

Hook = Callable[[MemberChange], None]


@dataclass
class Copy:
    """One member as it really is, whether or not anybody can see it. A test may change any field."""

    role: Role
    timeline: int = 1
    orders: list[str] = field(default_factory=list)
    follows: str = ""
    lag: float | None = 0.0
    paused: bool = False
    """Receives nothing for now, although it follows the primary."""
    unreachable: str = ""
    """Why nobody can ask it; empty where it answers."""
    can_fence: bool = True
    off: bool = False
    """Does not run, and was shown not to."""
    uncounted: bool = False
    """What it would lose cannot be counted."""


@dataclass
class State:
    """What all instances of one `shared` name have in common."""

    copies: dict[str, Copy]
    log: list[MemberChange] = field(default_factory=list)
    before_write: Hook | None = None
    after_write: Hook | None = None
    guard: threading.RLock = field(default_factory=threading.RLock)

    def commit(self, order: str) -> str:
        """Write `order` as a client would; the region that acknowledged it, or "" where nobody takes writes."""
        with self.guard:
            writable = [
                (copy.timeline, region)
                for region, copy in self.copies.items()
                if copy.role is Role.PRIMARY and not copy.unreachable
            ]
            if not writable:
                return ""
            region = max(writable)[1]
            self.copies[region].orders.append(order)
            self.replicate()
            return region

    def replicate(self) -> None:
        """Bring every replica that receives to where the member that it follows is."""
        for copy in self.copies.values():
            source = self.copies.get(copy.follows)
            if copy.role is Role.REPLICA and source and streams(copy, source):
                copy.orders = list(source.orders)
                copy.timeline = source.timeline


_states: dict[str, State] = {}
_states_guard = threading.Lock()


def streams(copy: Copy, source: Copy) -> bool:
    """Whether `copy` receives what `source` writes."""
    up = source.role in (Role.PRIMARY, Role.FENCED) and not source.unreachable and not copy.unreachable
    return up and not copy.paused and copy.orders == source.orders[: len(copy.orders)]


def forget() -> None:
    """Drop every shared state; instances that exist keep theirs."""
    with _states_guard:
        _states.clear()


class MemoryConfig(Model):
    """Instances with the same `shared` name have one state; without a name each has its own."""

    regions: tuple[str, ...]
    shared: str = ""


class MemoryDatabase:
    """A database of which everything can be seen and everything can be broken, through its `state`."""

    Config = MemoryConfig
    path_version: ClassVar[str] = "1"
    write_timeout: float = 1.0

    def __init__(self, name: str, config: Any, primary: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.regions: tuple[str, ...] = config.regions
        fresh = State(
            {
                region: Copy(Role.PRIMARY) if region == primary else Copy(Role.REPLICA, follows=primary)
                for region in self.regions
            }
        )
        with _states_guard:
            self.state = _states.setdefault(config.shared, fresh) if config.shared else fresh

    @classmethod
    def mistakes(cls, config: Any, regions: Sequence[str]) -> Iterable[Mistake]:
        for index, region in enumerate(config.regions):
            if region not in regions:
                yield ("regions", index), f"region '{region}' is not declared{did_you_mean(region, regions)}"
        if len(config.regions) < 2:
            yield ("regions",), "at least two members are needed: one to leave and one to promote"

    @property
    def log(self) -> list[MemberChange]:
        """The changes that took effect, in their order."""
        return self.state.log

    @property
    def before_write(self) -> Hook | None:
        """Called before a change takes effect; what it raises leaves everything as it was."""
        return self.state.before_write

    @before_write.setter
    def before_write(self, hook: Hook | None) -> None:
        self.state.before_write = hook

    @property
    def after_write(self) -> Hook | None:
        """Called when a change has taken effect; what it raises hides that from the caller."""
        return self.state.after_write

    @after_write.setter
    def after_write(self, hook: Hook | None) -> None:
        self.state.after_write = hook

    def can_fence(self, region: str) -> bool:
        return region in self.state.copies and self.state.copies[region].can_fence

    def read(self) -> Mapping[str, Member]:
        with self.state.guard:
            self.state.replicate()
            return {region: self._member(region) for region in self.regions}

    def write(self, change: MemberChange) -> str:
        if self.state.before_write:
            self.state.before_write(change)
        with self.state.guard:
            self._compare(change)
            self._set(change)
            self.state.log.append(change)
        if self.state.after_write:
            self.state.after_write(change)
        return f"{change.region} is {change.after}"

    def caught_up(self, source: str, target: str, within: float) -> Verdict:
        deadline = self.clock.monotonic() + within
        while True:
            with self.state.guard:
                self.state.replicate()
                theirs, ours = self.state.copies[source], self.state.copies[target]
                if hidden := theirs.unreachable or ours.unreachable:
                    return unknown(f"positions could not be compared: {hidden}")
                if theirs.role is not Role.FENCED:
                    return failed(f"{source} is {theirs.role}, so it may still be written to")
                missing = len(theirs.orders) - len(ours.orders)
                if not missing:
                    return passed(f"{target} has replayed position {len(ours.orders)}, the last one of {source}")
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return failed(f"{target} is {missing} orders behind {source} after {within:g} s")
            self.clock.sleep(min(left, 0.1))

    def _primary(self) -> str:
        """The reachable primary on the newest timeline, or ""."""
        copies = self.state.copies
        seen = [
            (copy.timeline, region)
            for region, copy in copies.items()
            if copy.role is Role.PRIMARY and not copy.unreachable
        ]
        return max(seen)[1] if seen else ""

    def _member(self, region: str) -> Member:
        copy = self.state.copies[region]
        if copy.role is Role.FENCED and copy.off:
            return Member(Role.FENCED, detail="proven off")
        if copy.unreachable:
            return Member(Role.UNKNOWN, detail=copy.unreachable)
        primary = self._primary()
        newest = self.state.copies[primary] if primary else None
        behind = newest is not None and copy.timeline < newest.timeline
        own = [order for order in copy.orders if newest and order not in newest.orders] if behind else []
        counted = len(own) if behind and not copy.uncounted else None
        if copy.role is Role.REPLICA and not own:
            source = self.state.copies.get(copy.follows)
            follows = bool(source and copy.follows == primary and streams(copy, source))
            return Member(Role.REPLICA, len(copy.orders), copy.lag if newest else None, streaming=follows)
        if copy.role is Role.REPLICA or (copy.role is Role.PRIMARY and behind):
            return Member(Role.DIVERGED, len(copy.orders), lost=counted)
        position = None if copy.role is Role.STOPPED else len(copy.orders)
        return Member(copy.role, position, lost=None if copy.role is Role.PRIMARY else counted)

    def _compare(self, change: MemberChange) -> None:
        found = self._member(change.region)
        if found.role is not change.before:
            raise Conflict(change.resource, str(change.before), str(found.role))

    def _set(self, change: MemberChange) -> None:
        copies = self.state.copies
        copy = copies[change.region]
        primary = self._primary()
        match change.before, change.after:
            case Role.PRIMARY, Role.FENCED:
                copy.role = Role.FENCED
            case ((Role.UNKNOWN | Role.STOPPED), Role.FENCED):
                if not copy.can_fence:
                    raise Failed(
                        "no fencing device is declared, so nothing proves it off",
                        where=change.resource,
                        next="declare one, or accept the guard unfenced-primary by name",
                    )
                copy.role, copy.off = Role.FENCED, True
            case ((Role.FENCED | Role.REPLICA), Role.PRIMARY):
                if copy.off:
                    raise Failed("it does not run", where=change.resource, next="start it")
                if primary:
                    raise Refused(
                        "two-primaries", f"{primary} takes writes", where=change.resource, next=f"fence {primary}"
                    )
                if change.before is Role.REPLICA:
                    copy.timeline = 1 + max(other.timeline for other in copies.values())
                copy.role, copy.follows = Role.PRIMARY, ""
            case _, Role.REPLICA:
                if change.primary != primary or not primary or copy.unreachable:
                    why = copy.unreachable or f"{change.primary or 'nobody'} is not the primary"
                    raise Failed(f"it cannot follow: {why}", where=change.resource, next="look at failover status")
                copies[change.region] = Copy(
                    Role.REPLICA, copies[primary].timeline, list(copies[primary].orders), primary
                )
                copies[change.region].can_fence = copy.can_fence
            case _:
                raise Failed(
                    f"nothing makes a {change.after} of a {change.before}", where=change.resource, next="plan again"
                )
