"""The append-only record of a run: written one numbered event at a time, each carrying the hash of the one before."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from failover.clock import Clock
from failover.errors import Failed, Locked
from failover.ports import Store
from failover.secret import redact_all

Event = Mapping[str, Any]
PREFIX = "run/"
_NAMES = (
    "step", "verb", "port", "changes", "routes", "regions",
    "result", "status", "guard", "owner", "topology", "sources",
)  # fmt: skip
"""What is read back to go on with the run: names of the topology and its text, in which no secret may stand."""


class Altered(Failed):
    """A journal that is not as it was written. What its run did cannot be told from it."""


class Journal:
    """The stream of one run. Appending is durable on return; secrets are struck out before anything is written.

    Each of `listeners` is called with every event once it is durable.
    """

    def __init__(self, store: Store, run: str, clock: Clock) -> None:
        self.run = run
        self._store = store
        self._clock = clock
        self._turn = threading.Lock()
        self._seq = 0
        self._last = ""
        self.listeners: list[Callable[[Event], None]] = []

    def replay(self) -> Iterator[Event]:
        """The events so far, each checked by the hash of the one before. Raises Altered where one does not fit."""
        for line in self._store.read(PREFIX + self.run, self._seq):
            event = _decoded(line)
            if event.get("seq") != self._seq + 1 or event.get("prev") != self._last:
                raise Altered(
                    f"the journal of run {self.run} was altered at event {self._seq + 1}",
                    next="do not resume it: look at the world itself; "
                    f"failover abort {self.run} lets go of its regions; then start anew",
                )
            self._seq, self._last = event["seq"], _hash(line)
            yield event

    def append(self, kind: str, **data: Any) -> Event:
        """Write one event. Raises Locked where another process has gone on with this run since."""
        with self._turn:
            struck = {key: value if key in _NAMES else redact_all(value) for key, value in data.items()}
            event = {"seq": self._seq + 1, "at": self._clock.wall(), "kind": kind, **struck, "prev": self._last}
            line = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
            if not self._store.append(PREFIX + self.run, self._seq + 1, line):
                raise Locked(
                    f"run {self.run} was taken over by another process",
                    next=f"nothing more is done here; follow it with: failover show {self.run}",
                )
            self._seq, self._last = self._seq + 1, _hash(line)
            for listener in self.listeners:
                listener(event)
        return event


def _decoded(line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
