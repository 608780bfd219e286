"""Every guard refuses what it is for, and nothing else; by itself, in a plan, and in a run."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from failover.engine.estate import Estate
from failover.errors import Failed, FailoverError, Refused
from failover.guards import MEMBER_GUARDS, ROUTE_GUARDS, WAIVABLE, Judgement, judge
from failover.steps.actions import Context
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import Change, CheckId, Member, MemberChange, Role, RouteChange, RouteState, Unknown, World
from tests import worlds

THREE = """
topology: three
regions: [east, west, north]
services:
  web:
    routes:
      - {router: dns, weights: {east: 10, west: 10, north: 10}}
      - {router: edge, weights: {east: 1, west: 1, north: 1}}
    checks: {up: {memory: {}}, writes: {memory: {}, needs: [orders]}}
    capacity: {east: 300, west: 300, north: 300}
    load: 500
  bare:
    routes: [{router: dns, weights: {east: 1, west: 1}}]
databases:
  orders: {primary: east, memory: {regions: [east, west, north]}}
routers: {dns: {memory: {}}, edge: {memory_switch: {}}}
objectives: {survivors: %d, lag: 10s}
store: {memory: {}}
"""
P, F, U = passed("it answers"), failed("connection refused"), unknown("no answer")
REPLICA = Member(Role.REPLICA, 7, lag=0.0, streaming=True)
PRIMARY = Member(Role.PRIMARY, 7)


def context(survivors: int = 1) -> Context:
    return worlds.estate(THREE % survivors).context


def health(**regions: Verdict) -> World:
    """Everybody is healthy but those named."""
    return World(
        checks={
            CheckId("web", check, region): regions.get(region, P)
            for region in ("east", "west", "north")
            for check in ("up", "writes")
        },
        databases={"orders": {"east": PRIMARY, "west": REPLICA, "north": REPLICA}},
    )


def weights(east: int, west: int, north: int) -> RouteState:
    return RouteState({"east": east, "west": west, "north": north})


def move(before: RouteState, after: RouteState, route: str = "web@dns") -> RouteChange:
    return RouteChange(route, before, after, "a test")


NORMAL = weights(10, 10, 10)
EVEN = weights(1, 1, 1)


def verdicts(world: World, change: Change, guard: str, *, survivors: int = 1) -> list[Verdict]:
    return [judgement.verdict for judgement in judge(context(survivors), world, [change]) if judgement.guard == guard]


Case = tuple[str, World, Change]
REFUSED: dict[str, Case] = {
    "all-weights-zero": ("all-weights-zero", health(), move(NORMAL, weights(0, 0, 0))),
    "weights-unsupported at half": (
        "weights-unsupported",
        health(),
        move(weights(2, 1, 1), weights(1, 2, 1), "web@edge"),
    ),
    "last-region: the only healthy one leaves": (
        "last-region",
        health(west=F, north=F),
        move(NORMAL, weights(0, 15, 15)),
    ),
    "last-region: unknown is not healthy": ("last-region", health(west=U, north=U), move(NORMAL, weights(0, 15, 15))),
    "last-region: the last one with traffic": ("last-region", health(), move(weights(0, 30, 0), weights(0, 0, 0))),
    "target-health: a receiver fails": ("target-health", health(west=F), move(NORMAL, weights(0, 15, 15))),
    "target-health: a receiver is unknown": ("target-health", health(north=U), move(NORMAL, weights(0, 15, 15))),
    "target-health: one that is switched back on fails": (
        "target-health",
        health(east=F),
        move(weights(0, 15, 15), NORMAL),
    ),
    "target-health: on a switch, those that stay": (
        "target-health",
        health(west=U),
        move(EVEN, weights(0, 1, 1), "web@edge"),
    ),
    "target-health: nobody has looked": ("target-health", World(), move(NORMAL, weights(0, 15, 15))),
    "target-health: a service without checks": (
        "target-health",
        health(),
        move(RouteState({"east": 1, "west": 1}), RouteState({"east": 0, "west": 2}), "bare@dns"),
    ),
    "survivor-capacity": ("survivor-capacity", health(), move(NORMAL, weights(0, 30, 0))),
    "survivor-capacity: all weights fall, and one by less": (
        "survivor-capacity",
        health(),
        move(NORMAL, weights(1, 3, 0)),
    ),
    "target-health: all weights fall, and one by less": (
        "target-health",
        health(west=F),
        move(NORMAL, weights(2, 3, 0)),
    ),
    "survivor-capacity: on a switch, those that stay": (
        "survivor-capacity",
        health(),
        move(weights(1, 1, 0), weights(0, 1, 0), "web@edge"),
    ),
}
FINE: dict[str, Case] = {
    "all-weights-zero": ("all-weights-zero", health(), move(NORMAL, weights(0, 0, 1))),
    "weights-unsupported off": ("weights-unsupported", health(), move(EVEN, weights(0, 1, 1), "web@edge")),
    "weights-unsupported on": ("weights-unsupported", health(), move(weights(0, 1, 1), EVEN, "web@edge")),
    "last-region: a healthy one stays": ("last-region", health(west=F), move(NORMAL, weights(0, 15, 15))),
    "last-region: one that is known to be healthy is enough": (
        "last-region",
        health(west=U),
        move(NORMAL, weights(0, 15, 15)),
    ),
    "target-health: the one that leaves may fail": (
        "target-health",
        health(east=F),
        move(NORMAL, weights(0, 15, 15)),
    ),
    "target-health: one that neither gains nor loses may fail": (
        "target-health",
        health(north=F),
        move(weights(10, 20, 0), weights(0, 30, 0)),
    ),
    "survivor-capacity: it holds": ("survivor-capacity", health(), move(NORMAL, weights(0, 15, 15))),
    "survivor-capacity: exactly": ("survivor-capacity", health(), move(NORMAL, weights(2, 3, 0))),
    "survivor-capacity: whoever is relieved may be too full": (
        "survivor-capacity",
        health(),
        move(weights(30, 0, 0), weights(20, 10, 0)),
    ),
}


@pytest.mark.parametrize(("guard", "world", "change"), REFUSED.values(), ids=list(REFUSED))
def test_a_route_guard_refuses(guard: str, world: World, change: RouteChange) -> None:
    [verdict] = verdicts(world, change, guard)
    assert not verdict.passed
    assert all(verdict.evidence)
    assert verdict.evidence


@pytest.mark.parametrize(("guard", "world", "change"), FINE.values(), ids=list(FINE))
def test_a_route_guard_does_not_refuse_what_is_fine(guard: str, world: World, change: RouteChange) -> None:
    [verdict] = verdicts(world, change, guard)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("survivors", "after", "refused"),
    [
        (1, weights(0, 15, 15), False),
        (2, weights(0, 15, 15), False),
        (1, weights(0, 30, 0), False),
        (2, weights(0, 30, 0), True),
    ],
)
def test_as_many_survivors_must_stay_as_the_topology_says(survivors: int, after: RouteState, refused: bool) -> None:
    [verdict] = verdicts(health(), move(NORMAL, after), "last-region", survivors=survivors)
    assert verdict.passed is not refused


def test_dead_survivors_do_not_count() -> None:
    [verdict] = verdicts(health(west=F), move(NORMAL, weights(0, 15, 15)), "last-region", survivors=2)
    assert not verdict.passed
    assert any("west" in line for line in verdict.evidence)


@pytest.mark.parametrize("guard", ["last-region", "target-health", "survivor-capacity"])
def test_a_change_of_the_ttl_alone_moves_nobody(guard: str) -> None:
    change = move(NORMAL, RouteState(NORMAL.weights, 5))
    assert verdicts(health(east=F, west=F, north=F), change, guard) == []


@pytest.mark.parametrize(("of", "says"), [("500", "fail"), ("nothing", "")])
def test_without_a_declared_load_capacity_says_nothing(of: str, says: str) -> None:
    text = (
        THREE % 1
        if of == "500"
        else (THREE % 1)
        .replace("    load: 500\n", "")
        .replace("    capacity: {east: 300, west: 300, north: 300}\n", "")
    )
    found = judge(worlds.estate(text).context, health(), [move(NORMAL, weights(0, 30, 0))])
    outcomes = [str(one.verdict.outcome) for one in found if one.guard == "survivor-capacity"]
    assert outcomes == ([says] if says else [])


def test_a_capacity_that_is_not_declared_is_unknown() -> None:
    text = (THREE % 1).replace("west: 300, north: 300}", "west: 300}")
    found = judge(worlds.estate(text).context, health(), [move(NORMAL, weights(0, 15, 15))])
    [verdict] = [one.verdict for one in found if one.guard == "survivor-capacity"]
    assert str(verdict.outcome) == "unknown"


# --- databases ---


def members(**changed: Member) -> World:
    return World(databases={"orders": {"east": PRIMARY, "west": REPLICA, "north": REPLICA, **changed}})


def turn(
    region: str, before: Role, after: Role, primary: str = "west", *, planned: bool = True, recovery: bool = False
) -> MemberChange:
    return MemberChange("orders", region, before, after, "a test", primary, planned, recovery)


FENCE = turn("east", Role.PRIMARY, Role.FENCED)
DEVICE = turn("east", Role.UNKNOWN, Role.FENCED, planned=False)
PROMOTE = turn("west", Role.REPLICA, Role.PRIMARY)
TAKE_OVER = turn("west", Role.REPLICA, Role.PRIMARY, planned=False)
REJOIN = turn("east", Role.FENCED, Role.REPLICA)
REWIND = turn("east", Role.DIVERGED, Role.REPLICA, planned=False)
BACK = turn("east", Role.FENCED, Role.PRIMARY, "east", recovery=True)
FENCED = members(east=Member(Role.FENCED, 7))


def replica(**changed: Any) -> World:
    return members(west=replace(REPLICA, **changed))


MEMBERS_REFUSED: dict[str, Case] = {
    "replica-lag: too far behind": ("replica-lag", replica(lag=10.5), FENCE),
    "replica-lag: not known": ("replica-lag", replica(lag=None), FENCE),
    "replica-lag: does not stream": ("replica-lag", replica(lag=0.0, streaming=False), FENCE),
    "replica-lag: no replica": ("replica-lag", members(west=Member(Role.DIVERGED)), FENCE),
    "replica-lag: cannot be asked": ("replica-lag", members(west=Member(Role.UNKNOWN)), FENCE),
    "unfenced-primary: it still takes writes": ("unfenced-primary", members(), PROMOTE),
    "unfenced-primary: cannot be asked": (
        "unfenced-primary",
        members(east=Member(Role.UNKNOWN, detail="no answer")),
        TAKE_OVER,
    ),
    "unfenced-primary: only stopped": ("unfenced-primary", members(east=Member(Role.STOPPED)), TAKE_OVER),
    "unfenced-primary: a diverged one takes writes": (
        "unfenced-primary",
        members(east=Member(Role.FENCED, 7), north=Member(Role.DIVERGED, 7)),
        PROMOTE,
    ),
    "unfenced-primary: somebody else cannot be asked": (
        "unfenced-primary",
        members(east=Member(Role.FENCED, 7), north=Member(Role.UNKNOWN)),
        PROMOTE,
    ),
    "data-loss": ("data-loss", FENCED, TAKE_OVER),
    "data-loss: position unknown": ("data-loss", members(west=Member(Role.REPLICA)), TAKE_OVER),
    "diverged-primary: commits counted": ("diverged-primary", members(east=Member(Role.DIVERGED, 9, lost=2)), REWIND),
    "diverged-primary: not counted": ("diverged-primary", members(east=Member(Role.DIVERGED, 9)), REWIND),
    "diverged-primary: even where planned": (
        "diverged-primary",
        members(east=Member(Role.FENCED, 9, lost=1)),
        REJOIN,
    ),
}
MEMBERS_FINE: dict[str, Case] = {
    "replica-lag: at the limit": ("replica-lag", replica(lag=10.0), FENCE),
    "replica-lag: none": ("replica-lag", replica(lag=0.0), FENCE),
    "unfenced-primary: fenced": ("unfenced-primary", FENCED, PROMOTE),
    "unfenced-primary: proven off by its device": (
        "unfenced-primary",
        members(east=Member(Role.FENCED, detail="proven off")),
        TAKE_OVER,
    ),
    "data-loss: planned": ("data-loss", FENCED, PROMOTE),
    "diverged-primary: nothing lost": ("diverged-primary", members(east=Member(Role.DIVERGED, 7, lost=0)), REWIND),
    "diverged-primary: a planned move": ("diverged-primary", FENCED, REJOIN),
}


@pytest.mark.parametrize(("guard", "world", "change"), MEMBERS_REFUSED.values(), ids=list(MEMBERS_REFUSED))
def test_a_member_guard_refuses(guard: str, world: World, change: MemberChange) -> None:
    [verdict] = verdicts(world, change, guard)
    assert not verdict.passed
    assert verdict.evidence


@pytest.mark.parametrize(("guard", "world", "change"), MEMBERS_FINE.values(), ids=list(MEMBERS_FINE))
def test_a_member_guard_does_not_refuse_what_is_fine(guard: str, world: World, change: MemberChange) -> None:
    [verdict] = verdicts(world, change, guard)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("change", "guards"),
    [
        (FENCE, {"replica-lag"}),
        (DEVICE, set()),
        (PROMOTE, {"unfenced-primary", "data-loss"}),
        (REJOIN, {"diverged-primary"}),
        (turn("north", Role.REPLICA, Role.REPLICA), set()),
        (BACK, set()),
    ],
    ids=["fence", "device", "promote", "rejoin", "repoint", "take back"],
)
def test_each_change_is_judged_by_those_who_have_a_say(change: MemberChange, guards: set[str]) -> None:
    assert {one.guard for one in judge(context(), members(), [change])} == guards


def test_changes_are_judged_one_after_another() -> None:
    found = [one for one in judge(context(), members(), [FENCE, PROMOTE]) if not one.verdict.passed]
    assert found == []


def test_every_guard_is_shown_to_refuse_and_not_to_refuse() -> None:
    everybody = {*ROUTE_GUARDS, *MEMBER_GUARDS}
    assert {case[0] for case in (*REFUSED.values(), *MEMBERS_REFUSED.values())} == everybody
    assert {case[0] for case in (*FINE.values(), *MEMBERS_FINE.values())} == everybody


def test_what_can_be_accepted_is_said_and_the_rest_never_can() -> None:
    assert set(WAIVABLE) == {*ROUTE_GUARDS, *MEMBER_GUARDS} - {"all-weights-zero", "weights-unsupported"}
    found: list[Judgement] = [
        *judge(context(), health(), [move(NORMAL, weights(0, 15, 15)), move(EVEN, weights(0, 1, 1), "web@edge")]),
        *judge(context(), members(), [FENCE, PROMOTE, REJOIN]),
    ]
    assert {one.guard: one.waivable for one in found} == {
        name: name in WAIVABLE for name in (*ROUTE_GUARDS, *MEMBER_GUARDS)
    }
    assert all(one.ways_out for one in found)


# --- the same in a plan as in a run ---

TOPOLOGY = """
topology: two
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}%s}]
    checks: {up: {memory: {}}}
    %s
databases:
  orders: {primary: east, memory: {regions: [east, west]}}
routers: {dns: {%s: {}}}
store: {memory: {}}
"""
DRAIN = "runbook: r\nsteps: [{id: drain, drain: {region: east}}]\n"
RAMP = "runbook: r\nsteps: [{id: drain, drain: {region: east, stages: [50, 0]}}]\n"
AT_ONCE = "runbook: r\nsteps: [{id: drain, drain: {region: east, pace: immediate}}]\n"
SHIFT = "runbook: r\nsteps: [{id: shift, shift: {weights: {east: 0, west: 0}}}]\n"
HALF = "runbook: r\nsteps: [{id: shift, shift: {weights: {east: 25}}}]\n"
PROMOTION = "runbook: r\nsteps: [{id: promote, promote: {to: west}}]\n"
REJOINING = "runbook: r\nsteps: [{id: promote, promote: {to: west}}]\n"
Break = Callable[[Estate], None]


def fails(region: str, verdict: Verdict = F) -> Break:
    return lambda made: worlds.see(made, "web", region, verdict)


def copies(region: str, **changed: Any) -> Break:
    def change(made: Estate) -> None:
        for name, value in changed.items():
            setattr(worlds.copy_of(made, "orders", region), name, value)

    return change


def all_of(*breaks: Break) -> Break:
    return lambda made: [each(made) for each in breaks] and None


def promoted_with_a_rest(made: Estate) -> None:
    """The primary is in the west, and the east came back with two orders that the west never got."""
    west, east = worlds.copy_of(made, "orders", "west"), worlds.copy_of(made, "orders", "east")
    west.role, west.timeline, west.follows = Role.PRIMARY, 2, ""
    east.orders = ["lost 1", "lost 2"]


STOPPED: dict[str, tuple[str, str, str, Break]] = {
    "last-region": ("last-region", TOPOLOGY % ("", "", "memory"), DRAIN, fails("west")),
    "last-region unknown": ("last-region", TOPOLOGY % ("", "", "memory"), AT_ONCE, fails("west", U)),
    "target-health": ("target-health", TOPOLOGY % ("", "", "memory"), RAMP, fails("west", U)),
    "survivor-capacity": (
        "survivor-capacity",
        TOPOLOGY % ("", "capacity: {east: 50, west: 50}\n    load: 80", "memory"),
        DRAIN,
        lambda _: None,
    ),
    "all-weights-zero": ("all-weights-zero", TOPOLOGY % ("", "", "memory"), SHIFT, lambda _: None),
    "weights-unsupported": ("weights-unsupported", TOPOLOGY % ("", "", "memory_switch"), HALF, lambda _: None),
    "weights-unsupported in a stage": (
        "weights-unsupported",
        TOPOLOGY % (", stages: [50, 0]", "", "memory_switch"),
        DRAIN,
        lambda _: None,
    ),
    "replica-lag": ("replica-lag", TOPOLOGY % ("", "", "memory"), PROMOTION, copies("west", lag=60.0)),
    "replica-lag unknown": ("replica-lag", TOPOLOGY % ("", "", "memory"), PROMOTION, copies("west", lag=None)),
    "replica-lag broken": ("replica-lag", TOPOLOGY % ("", "", "memory"), PROMOTION, copies("west", paused=True)),
    "unfenced-primary": (
        "unfenced-primary",
        TOPOLOGY % ("", "", "memory"),
        PROMOTION,
        copies("east", unreachable="no answer", can_fence=False),
    ),
    "data-loss": ("data-loss", TOPOLOGY % ("", "", "memory"), PROMOTION, copies("east", unreachable="no answer")),
    "diverged-primary": ("diverged-primary", TOPOLOGY % ("", "", "memory"), REJOINING, promoted_with_a_rest),
}
STOPPED_CASES = pytest.mark.parametrize(("guard", "text", "runbook", "harm"), STOPPED.values(), ids=list(STOPPED))


def carried_out(made: Estate, runbook: str, accepted: Iterable[str] = ()) -> FailoverError | None:
    """What stops a run that nobody has planned before; None where it gets to its end."""
    book = worlds.book(made, runbook)
    reasons = dict.fromkeys(accepted, "a test says so")
    planned = worlds.plan(made, book, *reasons)
    try:
        worlds.begin(made, planned, accepted=reasons).go(planned, reasons)
    except FailoverError as error:
        return error
    return None


@STOPPED_CASES
def test_a_plan_and_a_run_refuse_alike(guard: str, text: str, runbook: str, harm: Break) -> None:
    made = worlds.estate(text)
    harm(made)
    refusal = worlds.plan(made, worlds.book(made, runbook)).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == guard
    assert refusal.seen or refusal.what
    assert (f"--accept {guard}" in refusal.next) == (guard in WAIVABLE)
    assert worlds.store(made).streams("") == []
    error = carried_out(made, runbook)
    assert isinstance(error, Refused)
    assert (error.guard, error.what, error.exit_code) == (guard, refusal.what, 3)
    assert [change for change in worlds.log(made) if isinstance(change, RouteChange)] == []


@STOPPED_CASES
def test_accepting_a_guard_by_name_waives_that_one_where_it_can_be(
    guard: str, text: str, runbook: str, harm: Break
) -> None:
    made = worlds.estate(text)
    harm(made)
    refusal = worlds.plan(made, worlds.book(made, runbook), guard).refusal
    still = isinstance(refusal, Refused) and refusal.guard == guard
    assert still is (guard not in WAIVABLE)


@STOPPED_CASES
def test_accepting_another_guard_waives_nothing(guard: str, text: str, runbook: str, harm: Break) -> None:
    made = worlds.estate(text)
    harm(made)
    others = [name for name in (*ROUTE_GUARDS, *MEMBER_GUARDS) if name != guard]
    refusal = worlds.plan(made, worlds.book(made, runbook), *others).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == guard
    assert isinstance(carried_out(made, runbook, others), Refused)


HARMLESS: dict[str, tuple[str, str, Break]] = {
    "last-region": (TOPOLOGY % ("", "", "memory"), DRAIN, fails("east")),
    "target-health": (TOPOLOGY % ("", "", "memory"), DRAIN, fails("east", U)),
    "survivor-capacity": (
        TOPOLOGY % ("", "capacity: {east: 50, west: 80}\n    load: 80", "memory"),
        DRAIN,
        lambda _: None,
    ),
    "weights at 25 %": (TOPOLOGY % (", stages: [25, 0]", "", "memory"), DRAIN, lambda _: None),
    "a switch": (TOPOLOGY % ("", "", "memory_switch"), DRAIN, lambda _: None),
    "lag within limits": (TOPOLOGY % ("", "", "memory"), PROMOTION, copies("west", lag=9.0)),
}


@pytest.mark.parametrize(("text", "runbook", "harm"), HARMLESS.values(), ids=list(HARMLESS))
def test_neither_refuses_what_is_fine(text: str, runbook: str, harm: Break) -> None:
    made = worlds.estate(text)
    harm(made)
    assert worlds.plan(made, worlds.book(made, runbook)).refusal is None
    assert carried_out(made, runbook) is None
    assert worlds.log(made)


def test_what_was_waived_is_in_the_record_with_its_reason() -> None:
    made = worlds.estate(TOPOLOGY % ("", "", "memory"))
    worlds.see(made, "web", "west", U)
    record = worlds.run(made, worlds.book(made, AT_ONCE), None, "last-region", "target-health")
    assert record.accepted == dict.fromkeys(("last-region", "target-health"), "a test says so")
    assert [
        (judged["guard"], judged["outcome"], judged["accepted"]) for judged in worlds.events(made, kind="guard")
    ] == [
        ("last-region", "unknown", True),
        ("target-health", "unknown", True),
    ]


def test_a_route_that_cannot_be_seen_stops_the_plan_and_the_run() -> None:
    made = worlds.estate(TOPOLOGY % ("", "", "memory"))
    worlds.routers(made)["dns"].unreachable.add("web@dns")
    assert isinstance(worlds.world(made).routes["web@dns"], Unknown)
    refusal = worlds.plan(made, worlds.book(made, DRAIN)).refusal
    assert isinstance(refusal, Failed)
    assert isinstance(carried_out(made, DRAIN), Failed)
    assert worlds.log(made) == []
