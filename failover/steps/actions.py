"""What a step may ask for. A step yields these, one after another, and is handed what was seen after each."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from failover.secret import Secret
from failover.topology import Topology
from failover.verdict import Verdict
from failover.world import Change, CheckId, RouteState, World


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may know besides the world. `weighted` are the routes that take any share, `fenceable` the
    members, as (database, region), that a device can fence although they cannot be asked. `counted` are the routes
    whose connections are seen, `remarks` what routers have to say of a route."""

    topology: Topology
    weighted: frozenset[str]
    fenceable: frozenset[tuple[str, str]]
    counted: frozenset[str] = frozenset()
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of the world that a step starts from."""

    routes: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    checks: tuple[CheckId, ...] = ()
    loads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """Make these, which do not depend on each other. `stoppable` is false where stopping before it would leave
    customers without something that they had."""

    items: tuple[Change, ...]
    stoppable: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """Run these checks now. `about` says for a person whose they are."""

    checks: tuple[CheckId, ...]
    about: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Wait until the routes are seen to be as wanted; with `wait_out`, also until answers given before are stale.
    `stale` are the seconds that answers from before this run may live, by route, where it has changed nothing; for
    `tail` seconds more, resolvers that keep an answer longer than they should are waited for, and then named."""

    wanted: Mapping[str, RouteState]
    within: float
    wait_out: bool
    stale: Mapping[str, int] = field(default_factory=dict)
    tail: float = 0.0


@dataclass(frozen=True, slots=True)
class Empty:
    """Wait until no connection to `region` is left on `routes`, for `within` seconds at most; count those that are,
    and end them where `close` says so."""

    routes: tuple[str, ...]
    region: str
    within: float
    close: bool


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Wait until `target` has replayed all that the fenced `source` wrote."""

    database: str
    source: str
    target: str
    within: float


@dataclass(frozen=True, slots=True)
class Follow:
    """Wait until the member in `region` receives the primary's writes and is at most `lag` seconds behind."""

    database: str
    region: str
    lag: float
    within: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Let `seconds` pass."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program; what it does is not ours to know."""

    argv: tuple[str, ...]
    env: Mapping[str, str | Secret]
    timeout: float
    repeatable: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Stop until a person agrees."""

    message: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message."""

    notifier: str
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Say this in the plan, and in the record too where it `lasts`."""

    text: str
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class Forecast:
    """What `region` will carry of `service`, in requests per second: now and after each stage, and its `limit`."""

    service: str
    region: str
    loads: tuple[float, ...]
    limit: float

    @property
    def peak(self) -> float:
        """The most of it, as a part of the limit."""
        return max(self.loads) / self.limit


Action = Changes | Look | Settle | Empty | CatchUp | Follow | Pause | Run | Ask | Tell | Note | Forecast


@dataclass(frozen=True, slots=True)
class Seen:
    """The world after an action, its verdict, and the seconds that it took. No verdict means that only the run itself
    can tell."""

    world: World
    verdict: Verdict | None = None
    took: float = 0.0


Steps = Generator[Action, Seen, None]
