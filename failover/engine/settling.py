"""Settled, in three layers: the routers say so, everybody who answers for them says so, and nobody is left behind."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from failover.errors import FailoverError
from failover.ports import Router, SupportsAnswers, SupportsConnections
from failover.runbook import Step
from failover.steps.actions import Empty, Seen, Settle
from failover.units import duration
from failover.verdict import Verdict, passed, worst
from failover.world import RouteChange, RouteState

if TYPE_CHECKING:
    from failover.engine.live import Live

SOONEST, LATEST = 0.05, 1.0
"""Seconds between two looks at something that is waited for: at first, and at the most."""


class Settling:
    """One wait until routes are as wanted, with the seconds after which each server was first seen to answer so."""

    def __init__(self, live: "Live", step: Step, action: Settle) -> None:
        self.live = live
        self.step = step
        self.action = action
        self.clock = live.estate.clock
        self.began = self.clock.monotonic()
        self.curve: dict[str, dict[str, float]] = {}
        self.late: dict[str, dict[str, Verdict]] = {}

    def done(self) -> Seen:
        """Wait for all layers. A router or a server of its own that does not come is in the verdict; resolvers that
        keep an answer are written down and named."""
        found = self._routers()
        if not found.passed:
            return self.live.seen(self.step, "settled", found)
        self.live.journal.append("settled", step=self.step.id, routes=list(self.action.wanted))
        if self.action.wait_out:
            self._wait_out()
        self._everybody()
        return Seen(self.live.world, passed())

    def _routers(self) -> Verdict:
        waiting = dict(self.action.wanted)
        pause = SOONEST
        while True:
            verdicts = {}
            for route, wanted in waiting.items():
                router = self._router(route)
                verdicts[route] = router.settled(route, wanted, self.live.record.receipts.get(route, ""))
            self._ask(waiting)
            waiting = {route: state for route, state in waiting.items() if not verdicts[route].passed}
            found = worst(verdicts.values())
            if not waiting or self._seconds() >= self.action.within:
                return found
            self.live.hands.progress(self.step.id, f"settling: {'; '.join(found.evidence)}")
            self.live.sleep(self.step, pause)
            pause = min(2 * pause, LATEST)

    def _wait_out(self) -> None:
        """Until no answer that was given before this run's changes can still be in a cache."""
        now, record = self.clock.wall(), self.live.record
        left = 0.0
        for route in self.action.wanted:
            made = record.before(route)
            ttl = self.action.stale.get(route, 0)
            if isinstance(made, RouteChange) and made.before.ttl:
                ttl = made.before.ttl
            since = now - record.settled.get(route, now)
            left = max(left, min(ttl - since, ttl))
        if left > 0:
            self.live.hands.progress(self.step.id, f"waiting out the TTL: {duration(left)}")
            self.live.sleep(self.step, left)

    def _everybody(self) -> None:
        """Resolvers too, for `tail` seconds more. One that stretches TTLs is no reason to stop, and is named."""
        self._ask(self.action.wanted)
        deadline, pause = self.clock.monotonic() + self.action.tail, SOONEST
        while any(self.late.values()) and self.clock.monotonic() < deadline:
            stale = "; ".join(server for late in self.late.values() for server in late)
            self.live.hands.progress(self.step.id, f"waiting for {stale}")
            self.live.sleep(self.step, pause)
            pause = min(2 * pause, LATEST)
            self._ask({route: self.action.wanted[route] for route, late in self.late.items() if late})
        for route in self.curve:
            self.live.journal.append(
                "converged",
                step=self.step.id,
                routes=[route],
                seconds=self.curve[route],
                late={server: list(verdict.evidence) for server, verdict in self.late[route].items()},
            )

    def _ask(self, routes: Mapping[str, RouteState]) -> None:
        for route, wanted in routes.items():
            router = self._router(route)
            if isinstance(router, SupportsAnswers):
                answers = router.answers(route, wanted)
                curve = self.curve.setdefault(route, {})
                for server, verdict in answers.items():
                    if verdict.passed:
                        curve.setdefault(server, round(self._seconds(), 3))
                self.late[route] = {server: verdict for server, verdict in answers.items() if not verdict.passed}

    def _router(self, route: str) -> Router:
        return self.live.estate.routers[self.live.estate.topology.routes[route].router]

    def _seconds(self) -> float:
        return self.clock.monotonic() - self.began


def empty(live: "Live", step: Step, action: Empty) -> Seen:
    """Wait for connections to end, count those that do not, and end them where that was asked for."""
    clock = live.estate.clock
    deadline, pause = clock.monotonic() + action.within, SOONEST
    while True:
        left = {route: _connections(live, route, action.region) for route in action.routes}
        if not any(left.values()) or clock.monotonic() >= deadline:
            break
        open_ones = sum(number for number in left.values() if isinstance(number, int))
        live.hands.progress(step.id, f"{open_ones} connections to {action.region} are open")
        live.sleep(step, pause)
        pause = min(2 * pause, LATEST)
    problems = []
    for route, number in left.items() if action.close else ():
        if number:
            try:
                _counting(live, route).close_connections(route, action.region)
            except FailoverError as error:
                problems.append(f"{route}: {error.what}")
    live.journal.append(
        "connections", step=step.id, region=action.region, left=left, closed=action.close, problems=problems
    )
    return Seen(live.world)


def _connections(live: "Live", route: str, region: str) -> int | str:
    """How many there are, or why they cannot be counted."""
    try:
        return _counting(live, route).connections(route, region)
    except FailoverError as error:
        return error.what


def _counting(live: "Live", route: str) -> SupportsConnections:
    router = live.estate.routers[live.estate.topology.routes[route].router]
    assert isinstance(router, SupportsConnections)  # noqa: S101 - only counted routes are asked
    return router
