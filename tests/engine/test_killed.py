"""Killed anywhere, resumed whole: before and after every journal append and every effect, and again while resuming.

A killed process is one whose next append or effect, and every later one, raises. What it has made stays made.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from failover.engine.estate import Estate
from failover.engine.record import OPEN
from failover.engine.runner import read_record, runs
from failover.errors import Indeterminate, Locked
from failover.world import Role
from tests import worlds

pytestmark = pytest.mark.usefixtures("in_turn")

TEXT = """
topology: three
regions: [east, west, north]
services:
  web:
    routes:
      - {router: dns, weights: {east: 50, west: 50, north: 50}, ttl: 60s}
      - {router: edge, weights: {east: 1, west: 1, north: 1}, stages: [0]}
    checks: {up: {memory: {}}}
databases:
  orders: {primary: east, memory: {regions: [east, west, north]}}
routers: {dns: {memory: {}}, edge: {memory_switch: {}}}
drain: {stages: [50, 0], soak: 30s, ttl: 10s}
store: {memory: {}}
"""


class KilledError(BaseException):
    """The process is gone: nothing catches this."""


class Reaper:
    """Counts every point at which a process can be killed, and kills at the one with number `at`."""

    def __init__(self, made: Estate, at: int = 0) -> None:
        self.made = made
        self.at = at
        self.points: list[str] = []
        self.dead = False
        self._arm(self._strike)

    def spare(self) -> None:
        """Nobody is killed any more."""
        self._arm(lambda _: None)

    def _strike(self, where: str) -> None:
        self.points.append(where)
        self.dead = self.dead or len(self.points) == self.at
        if self.dead:
            raise KilledError(where)

    def _arm(self, strike: Callable[[str], None]) -> None:
        store = worlds.store(self.made)
        store.before_append = lambda stream, seq, event: strike(f"before {stream} {seq} {event}")
        store.after_append = lambda stream, seq, event: strike(f"after {stream} {seq} {event}")
        for port in (*worlds.routers(self.made).values(), *worlds.databases(self.made).values()):
            port.before_write = lambda changes: strike(f"before {changes}")
            port.after_write = lambda changes: strike(f"after {changes}")


@dataclass(frozen=True)
class Case:
    """A runbook, its inputs, and what the world looks like before."""

    name: str
    book: str
    inputs: dict[str, Any]
    prepare: Callable[[Estate], None]
    accepted: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    def estate(self) -> Estate:
        made = worlds.estate(TEXT)
        for order in ("one", "two"):
            worlds.databases(made)["orders"].state.commit(order)
        self.prepare(made)
        worlds.log(made).clear()
        worlds.store(made)._state.streams.clear()
        return made

    def start(self, made: Estate) -> None:
        worlds.run(made, worlds.book(made, self.book, **self.inputs), None, *self.accepted)


def evacuated(made: Estate) -> None:
    worlds.run(made, worlds.book(made, "evacuate-region", region="east"))


def lost(made: Estate) -> None:
    """The east cannot be asked; a device can prove its database to be off."""
    worlds.dark(made, "east")


CASES = {
    case.name: case
    for case in (
        Case("evacuate", "evacuate-region", {"region": "east"}, lambda _: None),
        Case("evacuate at once", "evacuate-region", {"region": "east", "pace": "immediate"}, lambda _: None),
        Case("unplanned", "evacuate-region", {"region": "east", "pace": "immediate"}, lost, ("data-loss",)),
        Case("restore", "restore-region", {"region": "east"}, evacuated),
    )
}


def again(made: Estate, case: Case) -> None:
    """What an operator would do after a kill: resume what is open, or begin what never began."""
    if not runs(made):
        case.start(made)
    elif read_record(made, runs(made)[-1]).status in OPEN:
        worlds.resume(made)


@cache
def undisturbed(case: Case) -> tuple[list[str], list[Any], Any]:
    """The points, the effects and the end of a run that nobody kills."""
    made = case.estate()
    reaper = Reaper(made)
    case.start(made)
    return reaper.points, worlds.shape(worlds.log(made)), worlds.standing(made)


def whole(made: Estate, case: Case) -> None:
    """The world is that of an undisturbed run, each effect was made once, and nobody holds anything."""
    _, effects, standing = undisturbed(case)
    assert worlds.shape(worlds.log(made)) == effects
    assert worlds.standing(made) == standing
    [run] = runs(made)
    record = read_record(made, run)
    assert record.status == "done"
    assert record.pending == []
    assert worlds.shape(record.applied) == effects
    session = worlds.begin(made, worlds.plan(made, worlds.book(made, "drain", region="west")))
    assert set(session.locks.holders()) == {"west"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each point of each case; of two kills, the second ones are spread over what is left to do."""
    if "point" in metafunc.fixturenames:
        every = 1 if "second" not in metafunc.fixturenames else 3
        seconds = (1, 2, 3, 5, 8, 13, 21, 34) if every > 1 else (0,)
        with pytest.MonkeyPatch.context() as patch:
            from failover.engine import estate, live
            from tests.engine.conftest import one_by_one

            patch.setattr(estate, "gather", one_by_one)
            patch.setattr(live, "gather", one_by_one)
            chosen = [
                (case, point, second)
                for case in CASES.values()
                for point in range(1, len(undisturbed(case)[0]) + 1, every)
                for second in seconds
            ]
        names = ["case", "point", "second"] if every > 1 else ["case", "point"]
        values = [one[: len(names)] for one in chosen]
        metafunc.parametrize(names, values, ids=["-".join(map(str, (v[0].name, *v[1:]))) for v in values])


def test_killed_once(case: Case, point: int) -> None:
    made = case.estate()
    reaper = Reaper(made, point)
    with pytest.raises(KilledError):
        case.start(made)
    reaper.spare()
    again(made, case)
    whole(made, case)


def test_killed_again_while_resuming(case: Case, point: int, second: int) -> None:
    made = case.estate()
    Reaper(made, point)
    with pytest.raises(KilledError):
        case.start(made)
    reaper = Reaper(made, second)
    with contextlib.suppress(KilledError):
        again(made, case)
    reaper.spare()
    again(made, case)
    whole(made, case)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_points_are_those_that_matter(case: Case) -> None:
    points, effects, _ = undisturbed(case)
    assert sum("RouteChange" in point or "MemberChange" in point for point in points) == 2 * _writes(case)
    assert sum(point.startswith("before ") for point in points) == sum(point.startswith("after ") for point in points)
    for kind in ("run-started", "intent", "outcome", "step-started", "step-done", "run-ended"):
        assert any(f'"kind":"{kind}"' in point for point in points)
    assert any(point.startswith("before lock/") for point in points)
    assert len(effects) >= 4


def _writes(case: Case) -> int:
    made = case.estate()
    case.start(made)
    return len(worlds.events(made, kind="intent"))


# --- a release, whose command does what nobody but its author can know ---


def release(made: Estate, path: Path) -> Any:
    argv = ["sh", "-c", 'echo "$FAILOVER_REGION" >> "$0"', str(path)]
    return worlds.book(made, "rolling-release", command=argv, regions="east,west")


def count_release(path: Path) -> int:
    made = worlds.estate(TEXT)
    reaper = Reaper(made)
    worlds.run(made, release(made, path))
    return len(reaper.points)


def answered(made: Estate, path: Path) -> None:
    """Resume; a deploy that was cut off is skipped where the file shows that it was done, else tried again."""
    try:
        worlds.resume(made)
        return
    except Indeterminate:
        assert read_record(made, runs(made)[-1]).exit_code == 4
    session = worlds.take_up(made)
    [intent] = session.record.pending
    region = intent.step.partition("[")[2].partition("]")[0]
    if region in path.read_text().split() if path.exists() else False:
        session.skip(intent.step, "the file has it")
    else:
        session.retry(intent.step)
    planned = session.plan(())
    session.go(planned, {})


@pytest.mark.parametrize("part", range(8))
def test_a_release_killed_anywhere_deploys_once_to_each_region(part: int, tmp_path: Path) -> None:
    calm = worlds.estate(TEXT)
    worlds.run(calm, release(calm, tmp_path / "calm"))
    for point in range(1 + part, count_release(tmp_path / "count") + 1, 8):
        made, path = worlds.estate(TEXT), tmp_path / str(point)
        reaper = Reaper(made, point)
        with pytest.raises(KilledError):
            worlds.run(made, release(made, path))
        reaper.spare()
        where = reaper.points[point - 1]
        if not runs(made):
            worlds.run(made, release(made, path))
        elif read_record(made, runs(made)[-1]).status in OPEN:
            answered(made, path)
        assert path.read_text().split() == ["east", "west"], where
        assert worlds.shape(worlds.log(made)) == worlds.shape(worlds.log(calm)), where
        assert worlds.standing(made) == worlds.standing(calm), where
        assert read_record(made, runs(made)[-1]).status == "done", where


# --- between the run and its locks ---


def killed_at(wanted: str, book: str = "evacuate-region", **inputs: Any) -> Estate:
    """An estate whose run was killed at the first point whose text is like `wanted`; `…` is anything."""
    inputs = inputs or {"region": "east"}
    made = worlds.estate(TEXT)
    reaper = Reaper(made)
    worlds.run(made, worlds.book(made, book, **inputs))
    start, end = wanted.split("…")
    at = 1 + next(i for i, point in enumerate(reaper.points) if point.startswith(start) and end in point)
    made = worlds.estate(TEXT)
    reaper = Reaper(made, at)
    with pytest.raises(KilledError):
        worlds.run(made, worlds.book(made, book, **inputs))
    reaper.spare()
    return made


@pytest.mark.parametrize("region", ["east", "west"])
def test_a_run_killed_before_it_had_its_lock_holds_nothing(region: str) -> None:
    made = killed_at("before lock/…")
    record = worlds.run(made, worlds.book(made, "drain", region=region))
    assert record.status == "done"
    assert len(runs(made)) == 2


@pytest.mark.parametrize("region", ["east", "west"])
def test_a_run_killed_before_it_had_its_lock_must_wait_for_who_came_after(region: str) -> None:
    made = killed_at("before lock/…")
    [first] = runs(made)
    second = worlds.begin(made, worlds.plan(made, worlds.book(made, "drain", region=region)))
    with pytest.raises(Locked, match=f"region {region} is held by run {second.record.id}"):
        worlds.resume(made, first)
    assert worlds.log(made) == []
    second.go(second.plan(()), {})
    assert worlds.resume(made, first).status == "done"


def test_a_run_killed_after_its_end_holds_nothing() -> None:
    made = killed_at('before lock/…"released_by"')
    [first] = runs(made)
    assert read_record(made, first).status == "done"
    session = worlds.begin(made, worlds.plan(made, worlds.book(made, "drain", region="east")))
    assert [lock["run"] for lock in session.locks.holders().values()] == [session.record.id]


def test_a_run_killed_in_the_middle_still_holds_its_region() -> None:
    made = killed_at("after …RouteChange")
    [first] = runs(made)
    for region in ("east", "west"):
        with pytest.raises(Locked, match=f"region east is held by run {first}"):
            worlds.run(made, worlds.book(made, "drain", region=region))
    assert len(worlds.log(made)) == 1


def test_between_fence_and_promote_nothing_but_the_kill_stops_it() -> None:
    made = killed_at("after …<Role.FENCED")
    members = worlds.world(made).databases["orders"]
    assert [member.role for member in members.values()] == [Role.FENCED, Role.REPLICA, Role.REPLICA]
    worlds.resume(made)
    assert worlds.world(made).primaries("orders") == ("west",)
