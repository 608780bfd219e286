"""What counts as a proof of a region's way out, and what makes it another way."""

from collections.abc import Callable
from typing import Any

import pytest

from failover.engine.estate import Estate
from failover.engine.evidence import Evidence, evidence, path
from failover.engine.live import Hands
from failover.engine.record import Record
from failover.engine.runner import read_record, runs
from failover.errors import Failed, Interrupted
from failover.registry import open_estate
from failover.verbs import Drain
from failover.yaml import parse
from tests import worlds


def records(made: Estate) -> list[Record]:
    return [read_record(made, run) for run in runs(made)]


def found(made: Estate, text: str = worlds.THREE) -> dict[tuple[str, str], Evidence]:
    """What the runs of `made` show of the paths that `text` declares."""
    today = open_estate(parse(text, "failover.yaml"), made.clock)
    return {(one.region, one.service): one for one in evidence(today, records(made), today.topology.regions)}


@pytest.mark.parametrize("purpose", ["incident", "drill", "release"])
@pytest.mark.parametrize("runbook", ["drain", "evacuate-region"])
def test_a_drain_to_the_end_is_a_proof_whatever_it_was_for(purpose: str, runbook: str) -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, runbook, region="east"), purpose=purpose)
    seen = found(made)
    assert {key for key, one in seen.items() if one.exact} == {("east", "web"), ("east", "api")}
    proof = seen["east", "web"].exact
    assert proof is not None
    assert (proof.run, proof.purpose) == (runs(made)[-1], purpose)
    assert 60 <= proof.seconds <= 200
    assert seen["east", "web"].differs == ()
    assert seen["west", "web"].latest is None


def test_every_region_of_a_release_is_a_proof_of_its_own() -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, "rolling-release", command=["true"]), purpose="release")
    assert all(one.exact and not one.differs for one in found(made).values())


DIFFERENT: dict[str, tuple[str, str, str]] = {
    "a stage": ("stages: [50, 0]", "stages: [50, 25, 0]", "stages of web@dns: 50, 0 → 50, 25, 0"),
    "the soak": ("soak: 30s", "soak: 10s", "soak: 30 s → 10 s"),
    "the TTL": ("ttl: 10s", "ttl: 20s", "TTL of web@dns: lowered to 10 s → lowered to 20 s"),
    "a check": (
        "checks: {up: {memory: {}}}",
        "checks: {up: {memory: {}}, more: {memory: {}}}",
        "checks: up → more, up",
    ),
    "a route": (
        "      - {router: edge, weights: {east: 1, west: 1, north: 1}, stages: [0]}\n",
        "",
        "route web@edge is gone",
    ),
    "another router": ("edge: {memory_switch: {}}", "edge: {memory: {}}", "route web@edge: MemorySwitch, path"),
    "a region more": ("regions: [east, west, north]", "regions: [east, west, north, south]", ""),
    "what must survive": (
        "store: {memory: {}}",
        "store: {memory: {}}\nobjectives: {survivors: 2}",
        "survivors: 1 → 2",
    ),
}


@pytest.mark.parametrize(("old", "new", "says"), DIFFERENT.values(), ids=list(DIFFERENT))
def test_what_differs_now_makes_it_another_path(old: str, new: str, says: str) -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, "drain", region="east"))
    assert old in worlds.THREE
    one = found(made, worlds.THREE.replace(old, new, 1))["east", "web"]
    assert one.latest is not None
    assert (one.exact is None) == bool(says)
    assert any(line.startswith(says) for line in one.differs) if says else one.differs == ()


def test_a_new_service_has_no_proof() -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, "drain", region="east"))
    more = (
        "  new:\n    routes: [{router: dns, weights: {east: 1, west: 1}}]\n    checks: {up: {memory: {}}}\ndatabases:"
    )
    seen = found(made, worlds.THREE.replace("databases:", more, 1))
    assert seen["east", "new"].latest is None
    assert seen["east", "web"].exact is not None


def test_another_version_of_a_router_is_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, "drain", region="east"))
    monkeypatch.setattr(type(made.routers["dns"]), "path_version", "2")
    [line] = found(made)["east", "api"].differs
    assert line == "route api@dns: MemoryRouter, path version 1, weights → MemoryRouter, path version 2, weights"


def stopped(made: Estate) -> None:
    hands = Hands()
    worlds.routers(made)["dns"].before_write = lambda _: hands.stop.set()
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, "drain", region="east"), hands)


def failing(made: Estate) -> None:
    worlds.routers(made)["edge"].before_write = lambda _: (_ for _ in ()).throw(Failed("full"))
    with pytest.raises(Failed):
        worlds.run(made, worlds.book(made, "drain", region="east"))


def at_once(made: Estate) -> None:
    worlds.run(made, worlds.book(made, "drain", region="east", pace="immediate"))


def nothing_to_do(made: Estate) -> None:
    for route, state in worlds.world(made).routes.items():
        worlds.put(made, route, {**state.weights, "east": 0})  # type: ignore[union-attr]  # memory is always seen
    worlds.run(made, worlds.book(made, "drain", region="east"))


@pytest.mark.parametrize("do", [stopped, failing, at_once, nothing_to_do])
def test_what_is_no_proof(do: Callable[[Estate], None]) -> None:
    made = worlds.estate(worlds.THREE)
    do(made)
    assert not any(one.exact for one in found(made).values())


def test_a_drain_that_was_resumed_is_a_proof() -> None:
    made = worlds.estate(worlds.THREE)
    stopped(made)
    worlds.routers(made)["dns"].before_write = None
    worlds.resume(made)
    assert found(made)["east", "web"].exact


def test_a_later_change_hides_no_older_proof_of_the_same_path() -> None:
    made = worlds.estate(worlds.THREE)
    worlds.run(made, worlds.book(made, "drain", region="east"))
    first = runs(made)[-1]
    worlds.run(made, worlds.book(made, "restore", region="east"))
    at_once(made)
    one = found(made)["east", "web"]
    assert one.exact is not None
    assert one.latest is not None
    assert (one.exact.run, one.latest.run != first) == (first, True)
    assert "pace: immediate → staged" in one.differs


def test_the_path_says_nothing_of_the_world() -> None:
    made = worlds.estate(worlds.THREE)

    def now() -> Any:
        return path(made, made.topology.services["web"], Drain(region="east"))

    before = now()
    worlds.run(made, worlds.book(made, "drain", region="west"))
    worlds.dark(made, "north")
    assert now() == before
