"""Holes that a review from outside found, each shown to be closed."""

import getpass
import os
import time

import pytest

from failover.engine.process import owner, run_command
from failover.errors import Failed, Refused
from failover.verdict import failed
from failover.world import Role, RouteState
from tests import worlds

SICK = failed("connection refused")
REST = """
topology: three
regions: [east, west, north]
services:
  web:
    routes: [{router: dns, weights: {east: 50, west: 30, north: 20}}]
    checks: {up: {memory: {}}}
databases:
  orders: {primary: east, memory: {regions: [east, west, north]}}
routers: {dns: {memory: {}}}
drain: {stages: [50, 0]}
store: {memory: {}}
"""
PROMOTE = """
runbook: promote
steps:
  - id: promote
    promote: {to: west, within: %s}
"""


@pytest.mark.parametrize("runbook", ["evacuate-region", "drain"])
def test_a_region_that_is_out_already_does_not_keep_people_in_the_next(runbook: str) -> None:
    made = worlds.estate(REST)
    worlds.put(made, "web@dns", {"east": 62, "west": 38, "north": 0})
    worlds.see(made, "web", "north", SICK)
    record = worlds.run(made, worlds.book(made, runbook, region="east"))
    assert worlds.world(made).routes["web@dns"] == RouteState({"east": 0, "west": 100, "north": 0})
    assert "north takes no traffic now, and is not counted on" in record.notes


def test_a_sick_survivor_that_has_traffic_does() -> None:
    made = worlds.estate(REST)
    worlds.see(made, "web", "north", SICK)
    with pytest.raises(Failed, match="west, north cannot be counted on"):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))


def test_the_last_region_with_traffic_is_not_left_for_those_that_are_out() -> None:
    made = worlds.estate(REST)
    worlds.put(made, "web@dns", {"east": 100, "west": 0, "north": 0})
    for region in ("west", "north"):
        worlds.see(made, "web", region, SICK)
    with pytest.raises(Failed, match="west, north cannot be counted on"):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))


def test_whoever_approved_a_switchover_has_not_approved_a_failover() -> None:
    made = worlds.estate()
    accepted = {"data-loss": "it is dead", "unfenced-primary": "it is dead"}
    planned = worlds.plan(made, worlds.book(made, "promote", to="west"), *accepted)
    session = worlds.begin(made, planned, accepted=accepted)
    east = worlds.copy_of(made, "orders", "east")
    east.unreachable, east.can_fence = "no route to host", False
    with pytest.raises(Refused) as refused:
        session.go(planned, accepted)
    assert refused.value.guard == "plan-changed"
    assert worlds.copy_of(made, "orders", "west").role is Role.REPLICA


def test_a_command_that_leaves_something_running_has_ended_all_the_same() -> None:
    began = time.monotonic()
    argv = ("bash", "-c", "setsid sleep 20 & echo deployed")
    assert run_command(argv, {}, 15, lambda _: None, lambda _: None) == (0, ["deployed"])
    assert time.monotonic() - began < 10


def test_a_user_without_a_name_can_run_things(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert owner()["by"] == f"user {os.getuid()}"


def test_a_hash_does_not_stand_for_other_machines_nor_for_more_waivers_nor_for_another_patience() -> None:
    one, other = worlds.estate(), worlds.estate(worlds.TWO + "# the same names, other machines\n")
    hashes = {
        worlds.plan(one, worlds.book(one, "promote", to="west")).hash,
        worlds.plan(one, worlds.book(one, "promote", to="west"), "data-loss").hash,
        worlds.plan(other, worlds.book(other, "promote", to="west")).hash,
        worlds.plan(one, worlds.book(one, PROMOTE % "5min")).hash,
        worlds.plan(one, worlds.book(one, PROMOTE % "60s")).hash,
    }
    assert len(hashes) == 4, "the same patience makes the same plan"
