"""A store in this process: for tests and simulation. Nothing of it survives the process."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from failover.schema import Model

Hook = Callable[[str, int, str], None]


class MemoryStoreConfig(Model):
    """Stores with the same `shared` name hold the same streams; without one, each has its own."""

    shared: str = ""


@dataclass
class _State:
    streams: dict[str, list[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_shared: dict[str, _State] = {}
_guard = threading.Lock()


def forget() -> None:
    """Drop everything that shared stores have kept; those that exist already keep theirs to themselves."""
    with _guard:
        _shared.clear()


class MemoryStore:
    """Streams in memory. A hook that raises is a process killed before, or after, the event was kept."""

    Config: ClassVar[type[BaseModel]] = MemoryStoreConfig

    def __init__(self, config: MemoryStoreConfig) -> None:
        self.before_append: Hook | None = None
        self.after_append: Hook | None = None
        with _guard:
            self._state = _shared.setdefault(config.shared, _State()) if config.shared else _State()

    def append(self, stream: str, seq: int, event: str) -> bool:
        """Put `event` at number `seq`, from 1. False where that number is taken.

        Raises ValueError for a number that would leave a gap. Hooks run for an append that finds its number free.
        """
        if not self._free(stream, seq):
            return False
        if self.before_append:
            self.before_append(stream, seq, event)
        with self._state.lock:
            events = self._state.streams.get(stream, [])
            if len(events) >= seq:
                return False
            self._state.streams.setdefault(stream, events).append(event)
        if self.after_append:
            self.after_append(stream, seq, event)
        return True

    def read(self, stream: str, after: int = 0) -> Sequence[str]:
        """The events of `stream` that come after number `after`, in order."""
        with self._state.lock:
            return self._state.streams.get(stream, [])[max(after, 0) :]

    def streams(self, prefix: str) -> Sequence[str]:
        """The names of all streams that begin with `prefix`, oldest first."""
        with self._state.lock:
            return [name for name in self._state.streams if name.startswith(prefix)]

    def close(self) -> None:
        """Nothing to let go of."""

    def _free(self, stream: str, seq: int) -> bool:
        with self._state.lock:
            last = len(self._state.streams.get(stream, []))
        if seq < 1 or seq > last + 1:
            raise ValueError(f"stream {stream} has {last} events; {seq} cannot come next")
        return seq > last
