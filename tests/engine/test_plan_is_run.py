"""The plan is the run: what one lists, the other makes, on generated worlds. The ports' own logs are the witness."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from failover.engine.estate import Estate
from failover.engine.plan import Plan
from failover.errors import Failed, FailoverError, Refused
from failover.world import MemberChange, Role
from tests import worlds

pytestmark = pytest.mark.usefixtures("in_turn")
REGIONS = ("east", "west", "north", "south")
STAGES = [[0], [50, 0], [75, 50, 25, 0], [90, 1, 0]]
BOOKS = (
    "check",
    "drain",
    "evacuate-region",
    "game-day",
    "promote",
    "restore",
    "restore-region",
    "rolling-release",
)
CONVERGENT = tuple(name for name in BOOKS if name not in ("game-day", "rolling-release"))
slow = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@dataclass
class Given:
    """A topology, and how the world has come to differ from what it calls normal."""

    topology: dict[str, Any]
    routes: dict[str, tuple[dict[str, int], int | None]] = field(default_factory=dict)
    primaries: dict[str, str] = field(default_factory=dict)

    def estate(self) -> Estate:
        made = worlds.estate(json.dumps(self.topology))
        for route, (weights, ttl) in self.routes.items():
            worlds.put(made, route, weights, ttl)
        for name, primary in self.primaries.items():
            for region, copy in worlds.databases(made)[name].state.copies.items():
                copy.role = Role.PRIMARY if region == primary else Role.REPLICA
                copy.follows = "" if region == primary else primary
        return made

    @property
    def normal(self) -> bool:
        return not self.routes and not self.primaries


def some(names: Any, least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(names)), min_size=least, unique=True)


@st.composite
def givens(draw: st.DrawFn, *, normal: bool = False) -> Given:
    regions = list(REGIONS[: draw(st.integers(2, 4))])
    services: dict[str, Any] = {}
    changed: dict[str, tuple[dict[str, int], int | None]] = {}
    for service in draw(some(["web", "api", "mail"])):
        routes = []
        for router in draw(some(["dns", "edge"])):
            names = draw(some(regions, 2))
            weights = {name: draw(st.integers(0, 9)) for name in names}
            assume(any(weights.values()))
            ttl = draw(st.none() | st.integers(1, 300))
            route: dict[str, Any] = {"router": router, "weights": weights}
            if ttl is not None:
                route["ttl"] = f"{ttl}s"
            if router == "edge":
                route["stages"] = [0]
            elif draw(st.booleans()):
                route["stages"] = draw(st.sampled_from(STAGES))
            routes.append(route)
            if not normal and draw(st.booleans()):
                highest = dict.fromkeys(names, 20 if router == "dns" else 1)
                now = {name: draw(st.integers(0, highest[name])) for name in names}
                now = now if router == "dns" else {name: on * weights[name] for name, on in now.items()}
                if any(now.values()):
                    changed[f"{service}@{router}"] = (now, ttl and draw(st.integers(1, 300)))
        services[service] = {"routes": routes, "checks": {"up": {"memory": {}}}}
    databases, primaries = {}, {}
    for name in draw(st.lists(st.sampled_from(["orders", "carts"]), unique=True)):
        members = draw(some(regions, 2))
        home = draw(st.sampled_from(members))
        databases[name] = {"primary": home, "memory": {"regions": members}}
        primary = home if normal else draw(st.sampled_from(members))
        if primary != home:
            primaries[name] = primary
    drain: dict[str, Any] = {"stages": draw(st.sampled_from(STAGES)), "soak": draw(st.sampled_from(["0s", "30s"]))}
    if draw(st.booleans()):
        drain["ttl"] = f"{draw(st.integers(1, 60))}s"
    topology = {
        "topology": "generated",
        "regions": regions,
        "services": services,
        "databases": databases,
        "routers": {"dns": {"memory": {}}, "edge": {"memory_switch": {}}},
        "drain": drain,
        "store": {"memory": {}},
    }
    return Given(topology, changed, primaries)


@st.composite
def orders(draw: st.DrawFn, given_: Given, names: tuple[str, ...] = BOOKS) -> tuple[str, dict[str, Any]]:
    """A bundled runbook and its inputs."""
    name = draw(st.sampled_from(names))
    region = draw(st.sampled_from(given_.topology["regions"]))
    if name == "check":
        return name, {}
    if name == "promote":
        holders = [data["memory"]["regions"] for data in given_.topology["databases"].values()]
        everywhere = sorted(set.intersection(*map(set, holders))) if holders else []
        assume(everywhere)
        return name, {"to": draw(st.sampled_from(everywhere))}
    pace = {"pace": draw(st.sampled_from(["staged", "staged", "immediate"]))}
    if name == "rolling-release":
        return name, {"command": ["true"], **pace}
    return name, {"region": region, **pace}


def attempt(made: Estate, name: str, inputs: dict[str, Any], purpose: str = "incident") -> tuple[Plan, Any]:
    """The plan, and what stopped the run of it."""
    planned = worlds.plan(made, worlds.book(made, name, **inputs))
    session = worlds.begin(made, planned, purpose=purpose)
    try:
        session.go(planned, {})
    except FailoverError as error:
        return planned, error
    return planned, None


def holds(name: str, inputs: dict[str, Any], world: Given) -> Estate:
    made = world.estate()
    planned, error = attempt(made, name, inputs)
    assert worlds.in_batches(worlds.log(made), planned) == worlds.in_batches(planned.changes, planned)
    if planned.refusal is None:
        assert error is None
        assert worlds.standing(made)[0] == {
            route: planned.after.routes.get(route, state) for route, state in (worlds.standing(made)[0].items())
        }
    else:
        assert type(error) is type(planned.refusal)
        assert error.what == planned.refusal.what
    many = "none" if not planned.changes else "few" if len(planned.changes) < 5 else "many"
    if currently_in_test_context():
        event(f"{name} {'refused' if error else 'done'}, changes: {many}")
    return made


@pytest.mark.parametrize("name", BOOKS)
@slow
@given(st.data())
def test_the_changes_of_the_plan_are_the_changes_of_the_run(name: str, data: st.DataObject) -> None:
    world = data.draw(givens())
    name, inputs = data.draw(orders(world, (name,)))
    made = holds(name, inputs, world)
    recorded = [
        change for one in worlds.read_record(made, worlds.runs(made)[-1]).intents.values() for change in one.made
    ]
    assert sorted(map(repr, worlds.shape(recorded))) == sorted(map(repr, worlds.shape(worlds.log(made))))


def test_the_run_refuses_for_the_reason_of_the_plan_where_nobody_is_left_to_look_at() -> None:
    edge = {"router": "edge", "weights": {"east": 1, "north": 1}, "ttl": "1s", "stages": [0]}
    dns = {"router": "dns", "weights": {"east": 0, "north": 1}, "ttl": "1s"}
    topology = {
        "topology": "nobody-left",
        "regions": ["east", "north"],
        "services": {"api": {"routes": [edge, dns], "checks": {"up": {"memory": {}}}}},
        "databases": {},
        "routers": {"dns": {"memory": {}}, "edge": {"memory_switch": {}}},
        "drain": {"stages": [50, 0], "soak": "0s"},
        "store": {"memory": {}},
    }
    now = {"api@edge": ({"east": 1, "north": 0}, 1), "api@dns": ({"east": 2, "north": 0}, 1)}
    holds("drain", {"region": "east", "pace": "staged"}, Given(topology, now, {}))


@pytest.mark.parametrize("name", BOOKS)
@slow
@given(st.data())
def test_a_plan_writes_nothing(name: str, data: st.DataObject) -> None:
    world = data.draw(givens())
    name, inputs = data.draw(orders(world, (name,)))
    made = world.estate()
    before = worlds.standing(made)
    worlds.store(made).before_append = _never
    for router in worlds.routers(made).values():
        router.before_write = _never
    for database in worlds.databases(made).values():
        database.before_write = _never
    one = worlds.plan(made, worlds.book(made, name, **inputs))
    other = worlds.plan(made, worlds.book(made, name, **inputs))
    assert one.hash == other.hash
    assert worlds.log(made) == []
    assert worlds.store(made).streams("") == []
    assert worlds.standing(made) == before


def _never(*_: Any) -> None:
    raise AssertionError("a plan has written")


@pytest.mark.parametrize("name", CONVERGENT)
@slow
@given(st.data())
def test_a_second_run_changes_nothing(name: str, data: st.DataObject) -> None:
    world = data.draw(givens())
    name, inputs = data.draw(orders(world, (name,)))
    made = world.estate()
    _, error = attempt(made, name, inputs)
    assume(error is None)
    worlds.log(made).clear()
    planned, again = attempt(made, name, inputs)
    assert planned.changes == []
    assert again is None
    assert worlds.log(made) == []


@slow
@given(st.data())
def test_evacuating_and_restoring_a_region_leaves_the_normal_world(data: st.DataObject) -> None:
    world = data.draw(givens(normal=True))
    region = data.draw(st.sampled_from(world.topology["regions"]))
    made = world.estate()
    before = worlds.standing(made)
    _, error = attempt(made, "evacuate-region", {"region": region})
    assume(error is None)
    now = worlds.standing(made)
    assert not any(state.weights.get(region) for state in now[0].values())
    assert not any(where == region and role is Role.PRIMARY for (_, where), (role, _) in now[1].items())
    _, error = attempt(made, "restore-region", {"region": region})
    assert error is None
    assert worlds.standing(made) == before


@slow
@given(st.data())
def test_a_game_day_leaves_the_normal_world(data: st.DataObject) -> None:
    world = data.draw(givens(normal=True))
    region = data.draw(st.sampled_from(world.topology["regions"]))
    made = world.estate()
    before = worlds.standing(made)
    _, error = attempt(made, "game-day", {"region": region})
    assume(error is None)
    assert worlds.standing(made) == before


@pytest.mark.parametrize("name", ["drain", "evacuate-region", "restore-region"])
@slow
@given(st.data())
def test_the_purpose_changes_nothing_of_what_is_changed(name: str, data: st.DataObject) -> None:
    world = data.draw(givens())
    name, inputs = data.draw(orders(world, (name,)))
    seen = []
    for purpose in ("incident", "drill", "release"):
        made = world.estate()
        planned, error = attempt(made, name, inputs, purpose)
        seen.append((worlds.in_batches(worlds.log(made), planned), planned.hash, planned.fingerprint({}), str(error)))
    assert seen[0] == seen[1] == seen[2]


PATHS = {"incident": "evacuate-region", "drill": "game-day", "release": "rolling-release"}


def test_incident_drill_and_release_drain_alike() -> None:
    """The three runbooks take a region's traffic away by the very same changes."""
    drains = {}
    for purpose, name in PATHS.items():
        made = worlds.estate(worlds.THREE)
        inputs = {"command": ["true"], "regions": "east"} if purpose == "release" else {"region": "east"}
        planned, error = attempt(made, name, inputs, purpose)
        assert error is None
        steps = [step for step in planned.steps if step.step.verb == "drain"]
        drains[purpose] = worlds.shape(steps[0].changes)
    assert drains["incident"] == drains["drill"] == drains["release"]
    assert len(drains["incident"]) > 3


def test_a_planned_move_that_will_be_refused_lists_no_way_back() -> None:
    """A plan says what would be done; taking back what failed is no part of it."""
    made = worlds.estate(worlds.THREE)
    worlds.copy_of(made, "orders", "north").unreachable = "no answer"
    planned = worlds.plan(made, worlds.book(made, "promote", to="west", databases="orders"))
    assert isinstance(planned.refusal, Refused)
    assert planned.refusal.guard == "unfenced-primary"
    assert [change for change in planned.changes if isinstance(change, MemberChange) and change.recovery] == []


def test_a_region_without_a_member_is_named() -> None:
    made = worlds.estate(worlds.THREE)
    planned = worlds.plan(made, worlds.book(made, "promote", to="north", databases="carts"))
    assert isinstance(planned.refusal, Failed)
    assert "carts has no member in north" in planned.refusal.what


DATABASES_ONLY = """
topology: databases
regions: [east, west]
databases:
  orders: {primary: east, memory: {regions: [east, west]}}
store: {memory: {}}
"""


@pytest.mark.parametrize("name", ["evacuate-region", "game-day"])
def test_a_region_with_databases_alone_is_evacuated_too(name: str) -> None:
    made = worlds.estate(DATABASES_ONLY)
    planned, error = attempt(made, name, {"region": "east"})
    assert (planned.refusal, error) == (None, None)
    assert len(worlds.log(made)) >= 3
    notes = worlds.read_record(made, worlds.runs(made)[-1]).notes
    assert notes[0].startswith("no service takes traffic in ")


def test_a_service_without_checks_is_named_in_the_plan_even_after_changes() -> None:
    text = worlds.TWO.replace(
        "databases:", "  bare:\n    routes: [{router: dns, weights: {east: 1, west: 1}}]\ndatabases:"
    )
    made = worlds.estate(text)
    runbook = worlds.book(
        made, "runbook: r\nsteps:\n- drain: {region: east, services: web}\n- check: {regions: west}\n"
    )
    refusal = worlds.plan(made, runbook).refusal
    assert isinstance(refusal, Failed)
    assert "no checks are declared for bare" in refusal.what
