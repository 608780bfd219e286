"""A write that took several calls and was cut off: what it made of a change counts as made, and can be undone."""

from collections.abc import Sequence
from typing import Any

import pytest

from failover.engine.runner import read_record, runs
from failover.engine.undo import undo_runbook
from failover.errors import Conflict, FailoverError, Indeterminate
from failover.routers.memory import MemoryRouter
from failover.world import RouteChange, RouteState
from tests import worlds

WEB = "web@dns"
NORMAL = RouteState({"east": 50, "west": 50})
HALF = RouteState({"east": 20, "west": 75})
TEXT = """
topology: two
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 50, west: 50}}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}}
drain: {stages: [50, 0]}
store: {memory: {}}
"""


def cut_off(made: worlds.Estate, found: RouteState) -> None:
    """The next write of that router leaves `found`, and nobody hears of it."""
    router = worlds.routers(made)["dns"]

    def before(_: Sequence[RouteChange]) -> None:
        router.before_write = None
        worlds.put(made, WEB, found.weights)
        raise Indeterminate("the connection was lost")

    router.before_write = before


class InParts(MemoryRouter):
    """The router in memory with what one says that writes in parts."""

    def part_of(self, change: RouteChange, found: RouteState) -> bool:  # noqa: ARG002 - the port's signature
        return found == HALF


def in_parts() -> worlds.Estate:
    made = worlds.estate(TEXT)
    router: Any = worlds.routers(made)["dns"]
    router.__class__ = InParts
    return made


@pytest.mark.parametrize("resumed", [False, True])
def test_what_was_half_made_is_undone(resumed: bool) -> None:
    made = in_parts()
    cut_off(made, HALF)
    with pytest.raises(FailoverError, match="the write was not completed"):
        worlds.run(made, worlds.book(made, "drain", region="east"))
    record = read_record(made, runs(made)[-1])
    assert [(change.before, change.after) for change in record.applied if isinstance(change, RouteChange)] == [
        (NORMAL, HALF)
    ]
    if resumed:
        record = worlds.resume(made)
        assert worlds.world(made).routes[WEB] == RouteState({"east": 0, "west": 100})
    else:
        worlds.take_up(made).abort("a test says so")
    worlds.run(made, undo_runbook(record, made.topology))
    assert worlds.world(made).routes[WEB] == NORMAL


def test_what_is_no_part_of_it_is_somebody_elses() -> None:
    made = in_parts()
    cut_off(made, RouteState({"east": 60, "west": 40}))
    with pytest.raises(Conflict):
        worlds.run(made, worlds.book(made, "drain", region="east"))
    assert read_record(made, runs(made)[-1]).applied == []


def test_a_router_that_writes_at_once_leaves_no_parts() -> None:
    made = worlds.estate(TEXT)
    cut_off(made, HALF)
    with pytest.raises(Conflict):
        worlds.run(made, worlds.book(made, "drain", region="east"))
    assert read_record(made, runs(made)[-1]).applied == []
