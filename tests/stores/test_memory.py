from collections.abc import Iterator
from typing import Any

import pytest

from failover.stores.memory import MemoryStore, MemoryStoreConfig, forget
from failover.testing.stores import StoreContract


class TestMemoryStore(StoreContract):
    provider = MemoryStore

    @pytest.fixture
    def config(self) -> Iterator[dict[str, Any]]:
        yield {"shared": "contract"}
        forget()


class KilledError(Exception):
    pass


def killed(stream: str, seq: int, event: str) -> None:
    raise KilledError(f"{stream} {seq} {event}")


def test_stores_without_a_name_have_nothing_in_common() -> None:
    one, other = MemoryStore(MemoryStoreConfig()), MemoryStore(MemoryStoreConfig())
    assert one.append("run/1", 1, "mine")
    assert other.read("run/1") == []


def test_forget_leaves_the_next_store_empty() -> None:
    MemoryStore(MemoryStoreConfig(shared="gone")).append("run/1", 1, "mine")
    forget()
    assert MemoryStore(MemoryStoreConfig(shared="gone")).streams("") == []


def test_killed_before_an_append_keeps_nothing() -> None:
    store = MemoryStore(MemoryStoreConfig())
    store.before_append = killed
    with pytest.raises(KilledError, match="run/1 1 one"):
        store.append("run/1", 1, "one")
    assert store.streams("") == []


def test_killed_after_an_append_keeps_it() -> None:
    store = MemoryStore(MemoryStoreConfig())
    store.after_append = killed
    with pytest.raises(KilledError, match="run/1 1 one"):
        store.append("run/1", 1, "one")
    assert store.read("run/1") == ["one"]


def test_hooks_do_not_run_for_a_taken_number() -> None:
    store = MemoryStore(MemoryStoreConfig())
    store.append("run/1", 1, "one")
    store.before_append = store.after_append = killed
    assert store.append("run/1", 1, "two") is False
