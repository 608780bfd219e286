"""The contract of a store. Subclass it in your own tests, as the built-in stores' tests do:

class TestMyStore(SharedStoreContract):
    provider = MyStore

    @pytest.fixture
    def config(self, tmp_path):
        return {"path": str(tmp_path / "journal")}
"""

# ruff: noqa: S101 - a contract suite is a test, and asserts with pytest

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, ClassVar

import pytest

from failover.ports import Store

Open = Callable[[], Store]


class StoreContract:
    """What every store keeps to. `config` is plain data of an empty store; a store opened with it twice is one."""

    provider: ClassVar[type[Store]]

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'config' with its provider's configuration")

    @pytest.fixture
    def connect(self, config: dict[str, Any]) -> Iterator[Open]:
        """Opens the store once more; all that were opened are closed at the end."""
        opened: list[Store] = []

        def connect() -> Store:
            opened.append(self.provider(self.provider.Config.model_validate(config)))
            return opened[-1]

        yield connect
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, connect: Open) -> Store:
        return connect()

    def test_nothing_is_there_at_first(self, store: Store) -> None:
        assert list(store.read("run/1")) == []
        assert list(store.streams("")) == []

    def test_what_was_appended_is_read_in_order(self, store: Store) -> None:
        for seq, event in enumerate(("one", "two", "three"), start=1):
            assert store.append("run/1", seq, event) is True
        assert list(store.read("run/1")) == ["one", "two", "three"]

    def test_reading_goes_on_after_a_number(self, store: Store) -> None:
        for seq in range(1, 6):
            store.append("run/1", seq, f"event {seq}")
        assert list(store.read("run/1", 3)) == ["event 4", "event 5"]
        assert list(store.read("run/1", 5)) == []
        assert list(store.read("run/1", 99)) == []

    def test_a_taken_number_is_refused_and_keeps_what_it_has(self, store: Store) -> None:
        store.append("run/1", 1, "first")
        store.append("run/1", 2, "second")
        assert store.append("run/1", 1, "late") is False
        assert store.append("run/1", 2, "late") is False
        assert list(store.read("run/1")) == ["first", "second"]
        assert store.append("run/1", 3, "third") is True

    @pytest.mark.parametrize("seq", [-1, 0, 3, 100])
    def test_a_number_that_would_leave_a_gap_is_an_error(self, store: Store, seq: int) -> None:
        store.append("run/1", 1, "first")
        with pytest.raises(ValueError, match="run/1"):
            store.append("run/1", seq, "astray")
        assert list(store.read("run/1")) == ["first"]

    def test_a_stream_begins_with_one(self, store: Store) -> None:
        with pytest.raises(ValueError, match="run/1"):
            store.append("run/1", 2, "astray")
        assert list(store.streams("")) == []

    def test_streams_are_found_by_prefix_oldest_first(self, store: Store) -> None:
        for stream in ("run/b", "lock/east", "run/a", "run%", "Run/c", "run/é"):
            store.append(stream, 1, "begun")
        store.append("run/b", 2, "goes on")
        assert list(store.streams("run/")) == ["run/b", "run/a", "run/é"]
        assert list(store.streams("lock/")) == ["lock/east"]
        assert list(store.streams("run%")) == ["run%"]
        assert list(store.streams("run_")) == []
        assert list(store.streams("")) == ["run/b", "lock/east", "run/a", "run%", "Run/c", "run/é"]

    def test_streams_do_not_touch_each_other(self, store: Store) -> None:
        assert store.append("run/1", 1, "mine")
        assert store.append("run/11", 1, "yours")
        assert list(store.read("run/1")) == ["mine"]

    @pytest.mark.parametrize(
        "event",
        ["", " \n\t ", "Zürich → Genève", "日本語 🗾", "'; DROP TABLE events; --", "a\x00b", '{"a": "\\u0000"}'],
    )
    def test_any_text_comes_back_as_it_was(self, store: Store, event: str) -> None:
        assert store.append("run/1", 1, event)
        assert list(store.read("run/1")) == [event]

    def test_a_large_event_comes_back_as_it_was(self, store: Store) -> None:
        event = "0123456789abcdef" * 131_072
        assert store.append("run/1", 1, event)
        assert store.append("run/1", 2, "small")
        assert list(store.read("run/1")) == [event, "small"]

    def test_what_one_handle_appends_another_reads(self, connect: Open) -> None:
        one, other = connect(), connect()
        assert one.append("run/1", 1, "one")
        assert other.append("run/1", 1, "other") is False
        assert other.append("run/1", 2, "other")
        assert list(one.read("run/1")) == ["one", "other"]

    @pytest.mark.parametrize("handles", [1, 8])
    def test_of_many_threads_on_one_number_one_wins(self, connect: Open, handles: int) -> None:
        stores = [connect() for _ in range(handles)]
        ready = threading.Barrier(8)

        def race(racer: int) -> list[bool]:
            store = stores[racer % handles]
            won = []
            for seq in range(1, 21):
                ready.wait(30)
                won.append(store.append("run/1", seq, f"{racer}"))
            return won

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(race, range(8)))
        winners = [[racer for racer in range(8) if results[racer][turn]] for turn in range(20)]
        assert [len(names) for names in winners] == [1] * 20
        assert list(stores[0].read("run/1")) == [str(racer) for [racer] in winners]

    def test_closing_twice_does_no_harm(self, connect: Open) -> None:
        store = connect()
        store.append("run/1", 1, "one")
        store.close()
        store.close()


class SharedStoreContract(StoreContract):
    """What a store keeps to besides, where several processes can open it."""

    def start(self, config: dict[str, Any], name: str, count: int) -> "subprocess.Popen[str]":
        """A process that appends `name` to the stream run/1, `count` times at most."""
        child = subprocess.Popen(
            [sys.executable, "-m", "failover.testing.appender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        provider = f"{self.provider.__module__}:{self.provider.__qualname__}"
        order = {"provider": provider, "config": config, "stream": "run/1", "name": name, "count": count}
        _pipe(child.stdin).write(json.dumps(order))
        _pipe(child.stdin).close()
        return child

    def test_of_two_processes_on_one_number_one_wins(self, config: dict[str, Any], store: Store) -> None:
        children = {name: self.start(config, name, 200) for name in ("a", "b")}
        won: dict[int, list[str]] = {seq: [] for seq in range(1, 201)}
        for name, child in children.items():
            with child:
                for line in _pipe(child.stdout):
                    seq, mine = line.split()
                    won[int(seq)] += [name] * int(mine)
            assert child.returncode == 0
        assert [len(names) for names in won.values()] == [1] * 200
        assert list(store.read("run/1")) == [name for [name] in won.values()]

    @pytest.mark.parametrize("appends", [1, 2, 7, 50, 400])
    def test_what_was_appended_survives_a_kill(self, config: dict[str, Any], connect: Open, appends: int) -> None:
        with self.start(config, "event", 1_000_000) as child:
            lines = _pipe(child.stdout)
            for _ in range(appends):
                lines.readline()
            child.send_signal(signal.SIGKILL)
            told = appends + sum(line.endswith("\n") for line in lines)
        events = list(connect().read("run/1"))
        assert len(events) in (told, told + 1), f"{told} appends returned, {len(events)} events are there"
        assert set(events) == {"event"}
        assert connect().append("run/1", len(events) + 1, "goes on")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
