"""Routers that keep their weights in this process: for tests, simulation and examples."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, Refused
from failover.ports import Mistake, RouteSpec
from failover.schema import Model
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import RouteChange, RouteState, Unknown

WEIGHT_LIMIT = 255
Hook = Callable[[Sequence[RouteChange]], None]


class MemoryRouterConfig(Model):
    """Routers with the same `shared` name see the same weights; without one, each has its own."""

    shared: str = ""


class MemoryRouteConfig(Model):
    """A route in memory needs nothing but what every route has."""


@dataclass
class _State:
    routes: dict[str, RouteState] = field(default_factory=dict)
    log: list[RouteChange] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


_shared: dict[str, _State] = {}
_guard = threading.Lock()


def forget() -> None:
    """Drop everything that shared routers have kept; those that exist already keep theirs to themselves."""
    with _guard:
        _shared.clear()


class MemorySwitch:
    """A router that can give a region its normal weight or none.

    A route starts with its normal weights and TTL. `log` holds the effects made, in order. For tests, a hook that
    raises is a fault: `before_write` before the effect, `after_write` after it. Routes in `unreachable` cannot be
    read or written; those in `unsettled` never settle.
    """

    Config: ClassVar[type[BaseModel]] = MemoryRouterConfig
    RouteConfig: ClassVar[type[BaseModel]] = MemoryRouteConfig
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: MemoryRouterConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.write_timeout = 1.0
        self.before_write: Hook | None = None
        self.after_write: Hook | None = None
        self.unreachable: set[str] = set()
        self.unsettled: set[str] = set()
        self._normal = {key: spec.route for key, spec in routes.items()}
        with _guard:
            self._state = _shared.setdefault(config.shared, _State()) if config.shared else _State()
        with self._state.lock:
            for key, route in self._normal.items():
                self._state.routes.setdefault(key, RouteState(route.weights, route.ttl))

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:  # noqa: ARG003 - the port's signature
        """None: every route can be kept in memory."""
        return ()

    @property
    def log(self) -> list[RouteChange]:
        """The effects made so far, by every router that shares this one's weights."""
        return self._state.log

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The weights of `routes`; one in `unreachable`, or of another router, is `Unknown`."""
        with self._state.lock:
            return {route: self._read(route) for route in routes}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make all of `changes` or none; the receipt is how many effects there have been.

        Raises Refused for weights that cannot be given, Failed for a route that cannot be reached, and Conflict
        where a `before` is not what is there.
        """
        for change in changes:
            self._check(change)
        if self.before_write:
            self.before_write(changes)
        with self._state.lock:
            after = dict(self._state.routes)
            for change in changes:
                if after[change.route] != change.before:
                    raise Conflict(change.resource, _say(change.before), _say(after[change.route]))
                after[change.route] = change.after
            self._state.routes.update({change.route: after[change.route] for change in changes})
            self._state.log.extend(changes)
            receipt = str(len(self._state.log))
        if self.after_write:
            self.after_write(changes)
        return receipt

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's
        """Pass where the weights are `wanted`; unknown for a route in `unsettled` or one that cannot be read."""
        if route in self.unsettled:
            return unknown(f"{route}: router {self.name} has not said that it is applied")
        [state] = self.read([route]).values()
        if isinstance(state, Unknown):
            return unknown(f"{route}: {state.why}")
        if state != wanted:
            return failed(f"{route}: {_say(state)}, not {_say(wanted)}")
        return passed(f"{route}: {_say(state)}")

    def _read(self, route: str) -> RouteState | Unknown:
        if route in self.unreachable:
            return Unknown(f"router {self.name} does not answer for it")
        return self._state.routes.get(route) or Unknown(f"router {self.name} has no such route")

    def _check(self, change: RouteChange) -> None:
        if change.route not in self._normal or change.route in self.unreachable:
            why = "does not answer for" if change.route in self._normal else "has no"
            raise Failed(f"router {self.name} {why} route {change.route}; nothing was written")
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any region that takes traffic",
                next="keep or restore one region first",
            )
        self._check_weights(change)

    def _check_weights(self, change: RouteChange) -> None:
        normal = self._normal[change.route].weights
        for region, weight in change.after.weights.items():
            if weight not in (0, normal.get(region, 0)):
                raise Refused(
                    "weights-unsupported",
                    f"router {self.name} can only switch a region on ({normal.get(region, 0)}) or off (0), "
                    f"and {change.resource} would give {region} {weight}",
                    next="drain in one stage (stages: [0]), or use a router that has weights",
                )


class MemoryRouter(MemorySwitch):
    """A router that can give a region any weight up to `WEIGHT_LIMIT`."""

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Normal weights above the limit."""
        for region, weight in spec.route.weights.items():
            if weight > WEIGHT_LIMIT:
                yield ("weights", region), f"must be at most {WEIGHT_LIMIT}, not {weight}"

    def weight_limit(self, route: str) -> int:  # noqa: ARG002 - the port's signature
        """The same for every route."""
        return WEIGHT_LIMIT

    def _check_weights(self, change: RouteChange) -> None:
        for region, weight in change.after.weights.items():
            if weight > WEIGHT_LIMIT:
                raise Refused(
                    "weight-limit",
                    f"router {self.name} takes weights up to {WEIGHT_LIMIT}, "
                    f"and {change.resource} would give {region} {weight}",
                    next="use smaller normal weights in the same proportion",
                )


def _say(state: RouteState) -> str:
    weights = ", ".join(f"{region} {weight}" for region, weight in state.weights.items())
    return weights if state.ttl is None else f"{weights}, TTL {state.ttl} s"
