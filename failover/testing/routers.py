"""What every router must do, as tests: ours pass them, and so must one of your own.

Subclass `RouterContract` in a test module and give it a pytest fixture `harness`, fresh for every test:

    class TestMyRouter(RouterContract):
        @pytest.fixture
        def harness(self) -> Iterator[Harness]:
            with my_server() as server:
                yield MyHarness(server)

A test that has no meaning for a router, as wrong credentials where there are none, is set to None in the subclass.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.ports import Router, SupportsWeights
from failover.verdict import Verdict
from failover.world import RouteChange, RouteState, Unknown

E = TypeVar("E", bound=BaseException)
WRITERS = 4
_POLL = 0.05


class Harness(Protocol):
    """A real server behind the router, with all of `routes` at their normal weights and two regions on at least."""

    routes: Sequence[str]
    """Two or more, by id."""
    patience: float
    """Seconds within which a change settles on this server."""

    def make(self) -> Router:
        """A new router for all of `routes`, as another process would have it."""
        ...

    def stranger(self) -> Router:
        """The same with credentials that the server does not take."""
        ...

    def meddle(self, route: str) -> None:
        """Change the state of `route` on the server, past the router, so that the router can still read it."""
        ...

    def stop(self) -> None:
        """Make the server unreachable; what it holds stays."""
        ...

    def start(self) -> None:
        """Make it reachable again, on the same address. Returns when it answers."""
        ...


def expect(truth: object, message: str) -> None:
    """Raises AssertionError with `message` unless `truth`; `assert` would vanish under `python -O`."""
    if not truth:
        raise AssertionError(message)


def raised(kinds: type[E] | tuple[type[E], ...], call: Callable[[], object]) -> E:
    """What `call` raised, which must be one of `kinds`."""
    try:
        result = call()
    except kinds as error:
        return error
    raise AssertionError(f"{kinds} was expected, but it returned {result!r}")


def state(router: Router, route: str) -> RouteState:
    """The state of `route`, which must be readable."""
    found = router.read([route])[route]
    if isinstance(found, Unknown):
        raise AssertionError(f"{route} cannot be read: {found.why}")
    return found


def _limit(router: Router, route: str) -> int:
    return router.weight_limit(route) if isinstance(router, SupportsWeights) else 0


def drained(router: Router, route: str, before: RouteState, position: int = 0) -> RouteState:
    """`before` with one of the regions that are on at zero, and its weight moved where the router has weights."""
    on = [region for region, weight in before.weights.items() if weight]
    victim, survivor = on[position % len(on)], on[(position + 1) % len(on)]
    weights = {**before.weights, victim: 0}
    if _limit(router, route):
        weights[survivor] += before.weights[victim]
    return RouteState(weights, before.ttl)


def change(route: str, before: RouteState, after: RouteState) -> RouteChange:
    return RouteChange(route, before, after, "contract")


class RouterContract:
    """The contract. Each test gets a fresh `harness` from the subclass's fixture of that name."""

    def settle(self, harness: Harness, router: Router, route: str, wanted: RouteState, receipt: str) -> Verdict:
        """Ask until it has settled, or until the harness's patience is at its end."""
        deadline = SYSTEM.monotonic() + harness.patience
        while True:
            verdict = router.settled(route, wanted, receipt)
            if verdict.passed or SYSTEM.monotonic() > deadline:
                return verdict
            SYSTEM.sleep(_POLL)

    def test_reads_every_route(self, harness: Harness) -> None:
        found = harness.make().read(harness.routes)
        expect(set(found) == set(harness.routes), f"asked for {harness.routes}, read {list(found)}")
        for route, seen in found.items():
            expect(isinstance(seen, RouteState), f"{route} cannot be read: {seen}")
            expect(isinstance(seen, RouteState) and any(seen.weights.values()), f"{route} starts without traffic")

    def test_writes_and_reads_back(self, harness: Harness) -> None:
        router, (route, other, *_) = harness.make(), harness.routes
        before, untouched = state(router, route), state(router, other)
        after = drained(router, route, before)
        receipt = router.write([change(route, before, after)])
        expect(isinstance(receipt, str), f"a receipt is text, not {receipt!r}")
        expect(state(harness.make(), route) == after, "what was written is not what is read")
        expect(state(harness.make(), other) == untouched, "a route that was not named has changed")

    def test_writes_several_routes_in_one_call(self, harness: Harness) -> None:
        router = harness.make()
        before = {route: state(router, route) for route in harness.routes}
        after = {route: drained(router, route, each) for route, each in before.items()}
        router.write([change(route, before[route], after[route]) for route in harness.routes])
        expect({route: state(router, route) for route in harness.routes} == after, "not all routes were written")

    def test_comes_back_to_exactly_what_was_there(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        for _ in range(2):
            after = drained(router, route, before)
            router.write([change(route, before, after)])
            router.write([change(route, after, before)])
        expect(state(harness.make(), route) == before, "drain and restore did not come back to the start")

    def test_writes_a_ttl(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        if before.ttl is None:
            return
        after = RouteState(before.weights, before.ttl + 7)
        router.write([change(route, before, after)])
        expect(state(harness.make(), route) == after, "the TTL that was written is not what is read")

    def test_writing_what_is_there_changes_nothing(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        router.write([change(route, before, before)])
        expect(state(harness.make(), route) == before, "a write of what was there has changed it")

    def test_settles(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        after = drained(router, route, before)
        receipt = router.write([change(route, before, after)])
        verdict = self.settle(harness, router, route, after, receipt)
        expect(verdict.passed, f"not settled within {harness.patience} s: {verdict}")
        expect(verdict.evidence, "a verdict names what was seen")
        newcomer = self.settle(harness, harness.make(), route, after, "")
        expect(newcomer.passed, f"not settled for one who has no receipt: {newcomer}")

    def test_is_not_settled_on_something_else(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        wanted = drained(router, route, state(router, route))
        verdict = router.settled(route, wanted, "")
        expect(not verdict.passed, f"settled on what was never written: {verdict}")
        expect(verdict.evidence, "a verdict that is not a pass names what was seen")

    def test_refuses_what_somebody_else_changed(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        harness.meddle(route)
        theirs = state(harness.make(), route)
        expect(theirs != before, "the harness's meddle() did not change what is read")
        after = drained(router, route, before)
        error = raised(Conflict, lambda: router.write([change(route, before, after)]))
        expect(route in error.what, f"the conflict does not name the route: {error}")
        expect(state(harness.make(), route) == theirs, "somebody else's change was overwritten")

    def test_writes_nothing_where_one_of_several_was_changed(self, harness: Harness) -> None:
        router = harness.make()
        before = {route: state(router, route) for route in harness.routes}
        harness.meddle(harness.routes[-1])
        changes = [change(route, each, drained(router, route, each)) for route, each in before.items()]
        raised(Conflict, lambda: router.write(changes))
        expect(state(harness.make(), harness.routes[0]) == before[harness.routes[0]], "a part of it was written")

    def test_lets_exactly_one_of_several_writers_win(self, harness: Harness) -> None:
        route = harness.routes[0]
        writers = [harness.make() for _ in range(WRITERS)]
        before = state(writers[0], route)
        wanted = [drained(router, route, before, position) for position, router in enumerate(writers)]
        errors = self._at_once(writers, [change(route, before, after) for after in wanted])
        won = [position for position in range(WRITERS) if position not in errors]
        expect(len(won) == 1, f"{len(won)} writers won: {errors}")
        for error in errors.values():
            expect(isinstance(error, Conflict), f"a writer that lost was told {error!r}, not Conflict")
        expect(state(harness.make(), route) == wanted[won[0]], "what is there is not what the winner wrote")

    def test_refuses_to_leave_nobody(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        nobody = RouteState(dict.fromkeys(before.weights, 0), before.ttl)
        raised(Refused, lambda: router.write([change(route, before, nobody)]))
        expect(state(harness.make(), route) == before, "a refused write has changed something")

    def test_refuses_a_weight_that_it_cannot_give(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        region = next(region for region, weight in before.weights.items() if weight)
        weight = (_limit(router, route) or before.weights[region]) + 1
        after = RouteState({**before.weights, region: weight}, before.ttl)
        error = raised(Refused, lambda: router.write([change(route, before, after)]))
        expect(region in error.what and error.next, f"the refusal names neither the region nor a way out: {error}")
        expect(state(harness.make(), route) == before, "a refused write has changed something")

    def test_fails_clearly_with_wrong_credentials(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        error = raised(
            Failed, lambda: harness.stranger().write([change(route, before, drained(router, route, before))])
        )
        expect(error.next, f"it does not say what to do next: {error}")
        expect(state(harness.make(), route) == before, "a write without the right credentials was made")

    def test_never_writes_in_silence_while_the_server_is_gone(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        harness.stop()
        try:
            began = SYSTEM.monotonic()
            attempt = change(route, before, drained(router, route, before))
            error = raised((Failed, Indeterminate), lambda: router.write([attempt]))
            took = SYSTEM.monotonic() - began
            expect(
                took <= router.write_timeout + 1, f"it took {took:.1f} s; write_timeout is {router.write_timeout} s"
            )
            expect(error.what, f"it does not say what happened: {error!r}")
        finally:
            harness.start()
        expect(state(harness.make(), route) == before, "a write that failed was made")

    def test_reads_unknown_while_the_server_is_gone(self, harness: Harness) -> None:
        router = harness.make()
        before = router.read(harness.routes)
        harness.stop()
        try:
            found = router.read(harness.routes)
            verdicts = {route: router.settled(route, self._seen(before, route), "") for route in harness.routes}
        finally:
            harness.start()
        for route in harness.routes:
            seen = found[route]
            expect(isinstance(seen, Unknown) and seen.why, f"{route} was read as {seen} from a server that is gone")
            expect(not verdicts[route].passed, f"{route} is settled on a server that is gone: {verdicts[route]}")

    def test_works_on_after_the_server_was_restarted(self, harness: Harness) -> None:
        router, route = harness.make(), harness.routes[0]
        before = state(router, route)
        after = drained(router, route, before)
        harness.stop()
        harness.start()
        expect(state(router, route) == before, "a restart has changed what is read")
        receipt = router.write([change(route, before, after)])
        verdict = self.settle(harness, router, route, after, receipt)
        expect(verdict.passed, f"not settled within {harness.patience} s of a restart: {verdict}")

    def _seen(self, found: Mapping[str, RouteState | Unknown], route: str) -> RouteState:
        seen = found[route]
        if isinstance(seen, Unknown):
            raise AssertionError(f"{route} cannot be read: {seen.why}")
        return seen

    def _at_once(self, routers: Sequence[Router], changes: Sequence[RouteChange]) -> dict[int, Any]:
        errors: dict[int, Any] = {}
        gate = threading.Barrier(len(routers))

        def write(position: int) -> None:
            gate.wait()
            try:
                routers[position].write([changes[position]])
            except BaseException as error:  # noqa: BLE001 - it must reach the test, not end a thread in silence
                errors[position] = error

        threads = [threading.Thread(target=write, args=[position]) for position in range(len(routers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors
