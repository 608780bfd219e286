"""How a region's traffic leaves and comes back: the order, the watch over every stage, and who is left behind."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from failover.engine.estate import Estate
from failover.engine.live import Hands
from failover.engine.runner import read_record, runs
from failover.engine.sampling import Sampled
from failover.errors import Failed, Interrupted, Invalid, Refused
from failover.routers.memory import MemoryRouter
from failover.testing import FakeClock
from failover.verdict import Outcome, Verdict, failed, passed, unknown
from failover.world import CheckId, RouteChange, RouteState
from tests import worlds

P, F, U = passed("it answers"), failed("refused"), unknown("no answer")

CHAIN = """
topology: chain
regions: [east, west]
services:
  shop:
    needs: [orders, search]
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
  search:
    needs: [orders]
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
  orders:
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
  blog:
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}}
drain: {stages: [50, 0]}
store: {memory: {}}
"""
WATCHED = """
topology: watched
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks:
      up: {memory: {}}
      fast: {memory: {}, slows: true}
routers: {dns: {memory: {}}}
drain: {stages: [50, 0], soak: 30s, every: 10s, hold: 20s, %s}
store: {memory: {}}
"""


def moved(made: Estate) -> list[tuple[str, int]]:
    """Whose share of east was set to what, in order."""
    return [
        (change.route.partition("@")[0], change.after.weights["east"])
        for change in worlds.log(made)
        if isinstance(change, RouteChange)
    ]


def east(made: Estate) -> int:
    state = worlds.world(made).routes["web@dns"]
    assert isinstance(state, RouteState)
    return state.weights["east"]


def then(made: Estate, weight: int, region: str, *verdicts: Verdict, check: str = "up") -> None:
    """Once the east has been set to `weight`, this is what the check of `region` sees, by turns."""
    router = worlds.routers(made)["dns"]
    before = router.after_write

    def look(changes: Any) -> None:
        if before:
            before(changes)
        if changes[0].after.weights["east"] == weight and not changes[0].recovery:
            worlds.see(made, "web", region, *verdicts, check=check)

    router.after_write = look


def drained(made: Estate, **more: Any) -> Any:
    return worlds.run(made, worlds.book(made, "drain", region="east", **more))


# --- the order of services ---


def test_who_calls_leaves_before_who_is_called_and_comes_back_after() -> None:
    made = worlds.estate(CHAIN)
    drained(made)
    assert moved(made) == [
        *(("shop", 50), ("blog", 50), ("shop", 0), ("blog", 0)),
        *(("search", 50), ("search", 0)),
        *(("orders", 50), ("orders", 0)),
    ]
    worlds.log(made).clear()
    worlds.run(made, worlds.book(made, "restore", region="east"))
    assert [name for name, weight in moved(made) if weight == 100] == ["orders", "search", "shop", "blog"]


def test_at_once_goes_all_together() -> None:
    made = worlds.estate(CHAIN)
    planned = worlds.plan(made, worlds.book(made, "drain", region="east", pace="immediate"))
    assert [len(batch) for batch in worlds.batches(planned)] == [4]


def test_one_service_alone_suspends_nothing_else() -> None:
    made = worlds.estate(CHAIN)
    drained(made, services=["search"])
    assert {name for name, _ in moved(made)} == {"search"}


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        ("[serach]", "service 'shop' needs 'serach', which is not declared; did you mean 'search'?"),
        ("[shop]", "'shop' and 'shop' need each other; neither could leave first"),
        ("[search, blog]", "'shop' and 'search' need each other; neither could leave first"),
    ],
)
def test_needs_that_lead_nowhere_are_told(needs: str, says: str) -> None:
    text = CHAIN.replace("needs: [orders, search]", f"needs: {needs}").replace("needs: [orders]", "needs: [shop]")
    with pytest.raises(Invalid) as found:
        worlds.estate(text)
    assert says in [problem.message for problem in found.value.problems]


# --- the watch over a stage ---


def test_the_survivors_are_looked_at_all_the_while() -> None:
    made = worlds.estate(WATCHED % "on_fail: pause")
    then(made, 50, "west", P, F)
    with pytest.raises(Failed, match="after drain east to 50 %: refused"):
        drained(made)
    assert east(made) == 50
    assert worlds.clock(made).slept == [10.0, 10.0]


@pytest.mark.parametrize(
    ("turns", "ends", "slept"),
    [
        ([P, U, P, P, P], 0, [10.0] * 7),
        ([P, U, U, U, P], 50, [10.0] * 4),
    ],
    ids=["until it is seen again", "not for ever"],
)
def test_unknown_holds(turns: list[Verdict], ends: int, slept: list[float]) -> None:
    made = worlds.estate(WATCHED % "on_fail: pause")
    then(made, 50, "west", *turns)
    if ends:
        with pytest.raises(Failed, match="no answer"):
            drained(made)
    else:
        drained(made)
    assert east(made) == ends
    assert worlds.clock(made).slept == slept


def test_looking_in_vain_is_waiting_too() -> None:
    made = worlds.estate(WATCHED % "on_fail: pause")
    then(made, 50, "west", U)
    eye = made.probes[CheckId("web", "up", "west")]
    look = eye.probe

    def slowly() -> Verdict:
        verdict = look()
        worlds.clock(made).advance(9.0 if verdict is U else 0.0)
        return verdict

    eye.probe = slowly  # type: ignore[method-assign]
    with pytest.raises(Failed, match="no answer"):
        drained(made)
    assert worlds.clock(made).slept == [10.0, 10.0], "10 s of soak; then 9 to look, 10 to wait, 9 to look"


def test_a_failing_stage_is_taken_back_where_the_topology_says_so() -> None:
    made = worlds.estate(WATCHED % "on_fail: step-back")
    then(made, 0, "west", F, P)
    with pytest.raises(Failed) as found:
        drained(made)
    assert moved(made) == [("web", 50), ("web", 0), ("web", 50)]
    assert "the weights are those of the stage before" in found.value.next
    record = read_record(made, runs(made)[-1])
    assert (record.status, record.pending) == ("stopped", [])
    worlds.routers(made)["dns"].after_write = None
    assert worlds.resume(made).status == "done"
    assert east(made) == 0


def test_no_step_back_onto_a_region_that_fails_too() -> None:
    made = worlds.estate(WATCHED % "on_fail: step-back")
    then(made, 50, "west", F)
    then(made, 50, "east", F)
    with pytest.raises(Failed) as found:
        drained(made)
    assert moved(made) == [("web", 50)]
    assert "the step back was not made" in found.value.next


# --- smaller steps under strain ---


def test_under_strain_the_steps_get_smaller_and_the_end_is_the_same() -> None:
    made = worlds.estate(WATCHED % "least: 10")
    then(made, 50, "west", F, check="fast")
    then(made, 25, "west", F, check="fast")
    planned = worlds.plan(made, worlds.book(made, "drain", region="east"))
    worlds.begin(made, planned).go(planned, {})
    assert [weight for _, weight in moved(made)] == [50, 25, 13, 3, 0]
    assert east(made) == 0


def test_strain_never_stops_a_ramp_and_its_steps_have_a_least() -> None:
    made = worlds.estate(WATCHED % "least: 20")
    worlds.see(made, "web", "west", F, check="fast")
    worlds.see(made, "web", "east", F, check="fast")
    drained(made)
    assert [weight for _, weight in moved(made)] == [50, 25, 5, 0]


def test_a_part_of_a_stage_that_was_stopped_is_gone_on_with() -> None:
    made = worlds.estate(WATCHED % "least: 10")
    worlds.see(made, "web", "west", F, check="fast")
    hands = Hands()

    def stop(changes: Any) -> None:
        if changes[0].after.weights["east"] == 25:
            hands.stop.set()

    worlds.routers(made)["dns"].before_write = stop
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, "drain", region="east"), hands)
    assert east(made) == 25
    worlds.routers(made)["dns"].before_write = None
    assert worlds.resume(made).status == "done"
    assert east(made) == 0


def test_a_check_that_slows_says_nothing_of_health() -> None:
    made = worlds.estate(WATCHED % "least: 10")
    worlds.see(made, "web", "west", F, check="fast")
    assert worlds.plan(made, worlds.book(made, "evacuate-region", region="east")).refusal is None


# --- samples, and places to look from ---


class Turns:
    """A probe that sees what it is given, again and again."""

    def __init__(self, clock: FakeClock, *turns: Verdict) -> None:
        self.clock = clock
        self.turns = turns
        self.seen = 0

    def probe(self) -> Verdict:
        self.seen += 1
        return self.turns[(self.seen - 1) % len(self.turns)]


@pytest.mark.parametrize(
    ("fall", "rise", "turns", "outcome", "samples"),
    [
        (1, 1, [P], Outcome.PASS, 1),
        (1, 1, [F], Outcome.FAIL, 1),
        (1, 1, [U], Outcome.UNKNOWN, 1),
        (3, 1, [F, P], Outcome.PASS, 2),
        (3, 1, [F, F, P], Outcome.PASS, 3),
        (3, 1, [F], Outcome.FAIL, 3),
        (3, 1, [U], Outcome.UNKNOWN, 3),
        (3, 1, [F, U, F, U, F, U], Outcome.UNKNOWN, 6),
        (2, 2, [P, F], Outcome.UNKNOWN, 4),
        (1, 3, [P, P, F], Outcome.FAIL, 3),
        (1, 3, [P], Outcome.PASS, 3),
        (2, 3, [F, P, P, P], Outcome.PASS, 4),
    ],
)
def test_a_change_of_mind_takes_as_many_samples_as_declared(
    fall: int, rise: int, turns: list[Verdict], outcome: Outcome, samples: int
) -> None:
    clock = FakeClock()
    probe = Turns(clock, *turns)
    verdict = Sampled({"": cast(Any, probe)}, 1, fall, rise, 2.0, clock).probe()
    assert (verdict.outcome, probe.seen) == (outcome, samples)
    assert clock.slept == [2.0] * (samples - 1)
    assert verdict.evidence


@pytest.mark.parametrize(
    ("places", "outcome"),
    [
        ([P, P, P], Outcome.PASS),
        ([P, P, F], Outcome.PASS),
        ([P, F, F], Outcome.FAIL),
        ([P, F, U], Outcome.UNKNOWN),
        ([F, U, U], Outcome.UNKNOWN),
        ([U, U, P], Outcome.UNKNOWN),
        ([P, P, U], Outcome.PASS),
    ],
)
def test_who_is_blind_alone_decides_nothing(places: list[Verdict], outcome: Outcome) -> None:
    clock = FakeClock()
    probes = {f"place {number}": cast(Any, Turns(clock, verdict)) for number, verdict in enumerate(places)}
    verdict = Sampled(probes, 2, 1, 1, 1.0, clock).probe()
    assert verdict.outcome is outcome
    assert any("place 0" in line for line in verdict.evidence)


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("{from: {here: {memory: {}}}}", "two vantage points are needed at least; one alone needs no 'from'"),
        (
            "{from: {here: {memory: {}}, there: {memory: {}}}, quorum: 1}",
            "of 2 vantage points more than half have to agree, 2 at least",
        ),
        ("{memory: {}, quorum: 2}", "a quorum is one of vantage points; name them under 'from'"),
        (
            "{memory: {}, from: {here: {memory: {}}, there: {memory: {}}}}",
            "'memory' cannot stand beside 'from'; put it under that",
        ),
        ("{from: {here: {mmory: {}}, there: {memory: {}}}}", "unknown probe or key 'mmory'; did you mean 'memory'?"),
        (
            "{memory: {}, fall: 20, every: 1s}",
            "one look may take up to 40 s, and 30 s is the most; look more often",
        ),
    ],
)
def test_a_check_that_cannot_work_is_told_when_the_file_is_read(check: str, says: str) -> None:
    with pytest.raises(Invalid) as found:
        worlds.estate(worlds.TWO.replace("{up: {memory: {}}}", f"{{up: {check}}}"))
    assert says in [problem.message for problem in found.value.problems]


def test_vantage_points_of_a_file_are_asked_together() -> None:
    text = worlds.TWO.replace(
        "{up: {memory: {}}}",
        "{up: {from: {here: {memory: {outcome: fail}}, there: {memory: {}}, far: {memory: {}}}, quorum: 2}}",
    )
    from failover.registry import open_estate
    from failover.yaml import parse

    made = open_estate(parse(text, "failover.yaml"), FakeClock())
    [verdict, _] = [made.look([check])[check] for check in made.probes]
    assert verdict.passed
    assert verdict.evidence == (
        "2 of 3 say pass",
        "from here: set to fail",
        "from there: set to pass",
        "from far: set to pass",
    )


# --- what the survivors will carry ---

LOADED = """
topology: loaded
regions: [east, west, north]
services:
  web:
    routes: [{router: dns, weights: {east: 50, west: 50, north: 100}}]
    checks: {up: {memory: {}}}
    capacity: {east: 300, west: %s, north: 900}
    load: %s
routers: {dns: {memory: {}}}
drain: {stages: [50, 0]}
store: {memory: {}}
"""


@pytest.mark.parametrize("load", ["800", "{memory: {number: 800}}"], ids=["declared", "looked at"])
def test_the_plan_says_what_each_survivor_will_carry_at_each_stage(load: str) -> None:
    made = worlds.estate(LOADED % (400, load))
    from failover.report.plan import plan_lines

    text = "\n".join(plan_lines(worlds.plan(made, worlds.book(made, "drain", region="east")), "x"))
    assert "web      west will carry 200 → 236 → 268 of 400 rps (67 %)" in text
    assert "web      north will carry 400 → 464 → 532 of 900 rps (59 %)" in text


def test_a_survivor_beyond_its_capacity_is_refused_by_the_load_that_was_looked_at() -> None:
    made = worlds.estate(LOADED % (250, "{memory: {number: 800}}"))
    refusal = worlds.plan(made, worlds.book(made, "drain", region="east")).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == "survivor-capacity"
    assert "west would carry 268 of 250 rps" in refusal.what


def test_a_load_that_cannot_be_seen_is_no_load_that_fits() -> None:
    made = worlds.estate(LOADED % (400, "{memory: {}}"))
    refusal = worlds.plan(made, worlds.book(made, "drain", region="east")).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == "survivor-capacity"
    assert refusal.what == "the load of web is not known: no number is configured"


# --- settled, in three layers ---


class Answering(MemoryRouter):
    """A router with a name server, and resolvers that keep an old answer for some seconds, or for ever."""

    keeps: Mapping[str, float]
    changed = 0.0

    def _now(self) -> float:
        return self.clock.monotonic()

    def write(self, changes: Any) -> str:
        self.changed = self._now()
        return super().write(changes)

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:  # noqa: ARG002 - the port's
        return {
            name: P if self._now() >= self.changed + seconds else failed("it answers east")
            for name, seconds in self.keeps.items()
        }

    def connections(self, route: str, region: str) -> int:  # noqa: ARG002 - the port's
        return max(0, self.open - int(self._now() - self.changed))

    def close_connections(self, route: str, region: str) -> None:
        self.ended.append((route, region, self.connections(route, region)))

    open = 0
    ended: list[tuple[str, str, int]]


TAIL = """
topology: tail
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}, ttl: 60s}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}}
drain: {ttl: 5s, tail: 30s, %s}
store: {memory: {}}
"""


def answering(text: str, keeps: Mapping[str, float], connections: int = 0) -> tuple[Estate, Answering]:
    made = worlds.estate(text)
    router = worlds.routers(made)["dns"]
    router.__class__ = Answering
    assert isinstance(router, Answering)
    router.keeps, router.open, router.ended = keeps, connections, []
    return made, router


def test_the_run_records_when_everybody_answered() -> None:
    made, _ = answering(TAIL % "close: false", {"name server": 0.0, "resolver a": 3.0, "resolver b": 12.0})
    drained(made)
    answered = worlds.events(made, kind="converged")[-1]
    assert answered["late"] == {}
    assert list(answered["seconds"]) == ["name server", "resolver a", "resolver b"]
    assert answered["seconds"]["name server"] == 0.0
    assert 3.0 <= answered["seconds"]["resolver a"] <= 5.1
    assert 12.0 <= answered["seconds"]["resolver b"] <= 13.1


def test_a_resolver_that_stretches_ttls_is_named_and_stops_nobody() -> None:
    made, _ = answering(TAIL % "close: false", {"name server": 0.0, "resolver b": 300.0})
    assert drained(made).status == "done"
    answered = worlds.events(made, kind="converged")[-1]
    assert answered["late"] == {"resolver b": ["it answers east"]}
    assert 90 <= sum(worlds.clock(made).slept) <= 100


@pytest.mark.parametrize(
    ("manner", "connections", "left", "ended"),
    [
        ("connections: 10s", 0, 0, []),
        ("connections: 10s", 8, 0, []),
        ("connections: 10s", 100, 84, []),
        ("connections: 10s, close: true", 100, 84, [("web@dns", "east", 84)]),
        ("close: true", 100, 94, [("web@dns", "east", 94)]),
    ],
)
def test_connections_are_waited_for_counted_and_ended(
    manner: str, connections: int, left: int, ended: list[tuple[str, str, int]]
) -> None:
    made, router = answering(TAIL % manner, {"name server": 0.0}, connections)
    drained(made)
    [event] = worlds.events(made, kind="connections")
    assert event["region"] == "east"
    assert event["left"]["web@dns"] == pytest.approx(left, abs=1)
    assert [(route, region) for route, region, _ in router.ended] == [(route, region) for route, region, _ in ended]


# --- active and passive ---

PASSIVE = """
topology: passive
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 0}}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}}
drain: {stages: [50, 0], soak: 30s}
store: {memory: {}}
"""


def test_the_passive_region_takes_over_stage_by_stage_and_gives_back() -> None:
    made = worlds.estate(PASSIVE)
    worlds.run(made, worlds.book(made, "drain", region="east"))
    worlds.run(made, worlds.book(made, "restore", region="east"))
    assert [dict(change.after.weights) for change in worlds.log(made) if isinstance(change, RouteChange)] == [
        {"east": 50, "west": 50},
        {"east": 0, "west": 100},
        {"east": 50, "west": 50},
        {"east": 100, "west": 0},
    ]


def test_a_passive_region_leaves_without_a_change_and_an_ill_one_takes_nothing_over() -> None:
    made = worlds.estate(PASSIVE)
    assert worlds.run(made, worlds.book(made, "drain", region="west")).applied == []
    worlds.see(made, "web", "west", failed("it does not answer"))
    assert worlds.plan(made, worlds.book(made, "drain", region="east")).refusal is not None
