"""Killed at every point of a drain on real HAProxy and BIND servers, and resumed: the world is that of a calm run.

As in tests/engine/test_killed.py, a killed process is one whose next append or write, and every later one, raises;
what it has made stays made. Whoever resumes is another process, an hour later.
"""

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from failover.clock import SYSTEM, SystemClock
from failover.engine.estate import Estate
from failover.engine.locks import Locks
from failover.engine.record import OPEN
from failover.engine.runner import read_record, runs
from failover.errors import Indeterminate, Refused
from failover.registry import open_estate
from failover.routers._haproxy_socket import Instance
from failover.yaml import load
from tests import worlds
from tests.e2e.killer import argv
from tests.e2e.laboratory import ended, last_run, made
from tests.e2e.onprem import KEYS, NORMAL, SECRET, Site, Topology, site
from tests.e2e.product import failover

pytestmark = pytest.mark.usefixtures("in_turn", "key")

OUT = {"web@edge": {"east": 0, "west": 200}, "chat@dns": {"east": 0, "west": 100}}
PARTS = 4


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Later(SystemClock):
    """What a write that was begun by somebody else could still have done, it has done by now."""

    def wall(self) -> float:
        return super().wall() + 3600


@dataclass
class Reaper:
    """Counts every point at which a process can be killed, and kills at the one with number `at`."""

    at: int = 0
    points: list[str] = field(default_factory=list)

    def watch(self, made: Estate) -> Estate:
        self._around(made.store, "append", lambda stream, seq, event: f"append {stream} {seq} {event}")
        for name, router in made.routers.items():
            self._around(router, "write", lambda changes, name=name: f"write {name} {changes}")
        return made

    def _around(self, port: Any, method: str, words: Callable[..., str]) -> None:
        original = getattr(port, method)

        def struck(*arguments: Any) -> Any:
            self._strike(f"before {words(*arguments)}")
            result = original(*arguments)
            self._strike(f"after {words(*arguments)}")
            return result

        setattr(port, method, struck)

    def _strike(self, where: str) -> None:
        self.points.append(where)
        if self.at and len(self.points) >= self.at:
            raise Killed(where)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("kills")) as made:
        yield made


@pytest.fixture(scope="module")
def in_turn() -> Iterator[None]:
    """The engine's parallel calls happen one after another, so that each point is the same one every time."""
    from failover.engine import estate, live
    from tests.engine.conftest import one_by_one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estate, "gather", one_by_one)
        patch.setattr(live, "gather", one_by_one)
        yield


@pytest.fixture(scope="module")
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAILOVER_TSIG", SECRET)
        yield


def three(topology: Topology) -> None:
    """Three stages; no secondary, so that a hundred runs take seconds."""
    topology["drain"] |= {"stages": [66, 33, 0], "soak": "0s"}
    del topology["routers"]["dns"]["rfc2136"]["name_servers"]
    # A write that may still arrive is waited for, for this long.
    topology["routers"]["edge"]["haproxy"]["timeout"] = "500ms"


def topology(here: Site, place: Path) -> Path:
    """A topology whose journal is new, on servers that are as always."""
    here.normal()
    stands(here, NORMAL)
    place.mkdir()
    return here.topology(place, three)


def stands(here: Site, wanted: Any) -> None:
    assert here.weights(primary=True) == wanted


def drain(made: Estate) -> Any:
    return worlds.run(made, worlds.book(made, "drain", region="east"))


def again(path: Path) -> Estate:
    """What an operator would do after a kill, from another machine: resume what is open, or begin it."""
    made = open_estate(load(path), Later())
    if not runs(made):
        drain(made)
    elif read_record(made, runs(made)[-1]).status in OPEN:
        worlds.resume(made)
    return made


def whole(made: Estate, effects: Sequence[Any], where: str) -> None:
    """Each effect was made once, the run is done, and nobody holds anything."""
    [run] = runs(made)
    record = read_record(made, run)
    assert record.status == "done", where
    assert record.pending == [], where
    assert worlds.shape(record.applied) == effects, where
    alive = Locks(made.store, made.clock, lambda name: read_record(made, name).status in OPEN)
    assert alive.holders() == {}, where


@pytest.fixture(scope="module")
def calm(here: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Any]:
    """How many points a run has that nobody kills, and its effects."""
    path = topology(here, tmp_path_factory.mktemp("calm") / "calm")
    reaper = Reaper()
    record = drain(reaper.watch(open_estate(load(path), SYSTEM)))
    stands(here, OUT)
    effects = worlds.shape(record.applied)
    assert len(effects) == 6, "three stages of two routes"
    assert sum("write" in point for point in reaper.points) == 2 * 6
    return len(reaper.points), effects


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_anywhere_it_is_resumed_to_the_end(
    part: int, here: Site, calm: tuple[int, Any], tmp_path: Path
) -> None:
    count, effects = calm
    for point in range(1 + part, count + 1, PARTS):
        path = topology(here, tmp_path / str(point))
        reaper = Reaper(point)
        with pytest.raises(Killed):
            drain(reaper.watch(open_estate(load(path), SYSTEM)))
        whole(again(path), effects, reaper.points[-1])
        stands(here, OUT)


@pytest.fixture
def half(here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The topology of a run that was killed when one HAProxy had the first stage, and the other had not."""
    path = topology(here, tmp_path / "half")
    first, second = here.edges
    ask, gone = Instance.ask, False

    def dying(at: Instance, commands: Sequence[str], seconds: float) -> list[str]:
        nonlocal gone
        gone = gone or (at.port == second.port and any(command.startswith("set weight") for command in commands))
        if gone:
            raise Killed
        return ask(at, commands, seconds)

    made = open_estate(load(path), SYSTEM)
    with monkeypatch.context() as patch:
        patch.setattr(Instance, "ask", dying)
        with pytest.raises(Killed):
            drain(made)
    assert (first.weights("web")["west1"], second.weights("web")["west1"]) == (67, 50)
    return path


def test_killed_between_two_haproxies_it_is_resumed_to_the_end(here: Site, half: Path, calm: tuple[int, Any]) -> None:
    whole(again(half), calm[1], "between two HAProxies")
    stands(here, OUT)


def test_killed_between_two_haproxies_it_can_be_undone(here: Site, half: Path) -> None:
    failover(half, "undo", last_run(half), "--yes", "--take-over", **KEYS)
    stands(here, NORMAL)


def test_killed_between_two_haproxies_and_changed_by_hand_since(here: Site, half: Path) -> None:
    """Then only a person can tell what is meant; the words say how to make them agree, and the run goes on."""
    second = here.edges[1]
    second.tell("set weight web/west1 40", "set weight web/west2 40")
    with pytest.raises(Indeterminate, match=rf"the instances differ: .*{second.port} has east 100, west 80") as told:
        again(half)
    assert second.weights("web") == {"east1": 50, "east2": 50, "west1": 40, "west2": 40}, "left as they are"
    [(line, port)] = re.findall(r'echo "([^"]*)" \| socat stdio TCP:127.0.0.1:(\d+)', told.value.what)
    assert int(port) == second.port
    second.tell(line)
    made = again(half)
    assert read_record(made, runs(made)[-1]).status == "done"
    stands(here, OUT)


def test_killed_between_two_haproxies_while_the_survivor_has_died(here: Site, half: Path) -> None:
    here.shops["west"].health = lambda: 503
    with pytest.raises(Refused, match="503 Service Unavailable"):
        again(half)
    assert [edge.weights("web")["west1"] for edge in here.edges] == [67, 50], "no traffic to the dead"
    here.shops["west"].health = lambda: 200
    made = again(half)
    assert read_record(made, runs(made)[-1]).status == "done"
    stands(here, OUT)


SIGKILL = (
    ("edge 1", "after"),
    ("record 1", "before"),
    ("journal settled", "before"),
    ("edge 1", "before"),
)


def test_a_process_that_is_killed_again_and_again_is_resumed_by_the_next(here: Site, tmp_path: Path) -> None:
    """By SIGKILL, in the middle of writes that go to both routers side by side; each kill takes one stage at most."""

    def quick(topology: Topology) -> None:
        three(topology)
        topology["drain"]["stages"] = [80, 60, 40, 20, 0]
        topology["routers"]["dns"]["rfc2136"]["timeout"] = "600ms"

    here.normal()
    path = here.topology(tmp_path, quick)
    words = ["run", "drain", "-i", "region=east", "--yes"]
    for point, when in SIGKILL:
        failover(path, *words, code=-signal.SIGKILL, program=argv(point, when), **KEYS)
        words = ["resume", last_run(path), "--yes"]
    failover(path, *words, **KEYS)
    for edge in here.edges:
        assert edge.weights("web") == {"east1": 0, "east2": 0, "west1": 100, "west2": 100}
    assert here.shares(here.bind.primary.port) == {"west": 100}
    assert len(made(path)) == len(set(made(path))) == 10, "five stages of two routes, each once"
    ended(path)
