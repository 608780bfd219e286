"""Who holds which region. A lock is the last event of the region's own stream, and never expires by itself."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from failover.clock import Clock, stamp
from failover.errors import Locked
from failover.ports import Store

_PREFIX = "lock/"


class Locks:
    """The regions' locks in a store. A lock whose run is not `open` any more, or never began, holds nothing."""

    def __init__(self, store: Store, clock: Clock, is_open: Callable[[str], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_open = is_open

    def holders(self) -> dict[str, Mapping[str, Any]]:
        """Every region that is held now: by which run, by whom, on which host, since when."""
        found = {}
        for stream in self._store.streams(_PREFIX):
            event = self._last(stream)[1]
            if self._held(event):
                found[stream.removeprefix(_PREFIX)] = event
        return found

    def take(self, regions: Iterable[str], run: str, by: str, host: str) -> None:
        """Hold `regions` for `run`, all or none. Raises Locked with who holds one, and since when.

        In the same order everywhere, so that two runs cannot each wait for what the other has.
        """
        taken: list[str] = []
        for region in sorted(regions):
            seq, last = self._last(_PREFIX + region)
            if last.get("run") == run:
                continue
            event = {"run": run, "by": by, "host": host, "at": self._clock.wall()}
            if self._held(last) or not self._store.append(_PREFIX + region, seq + 1, json.dumps(event)):
                self.release(taken, run)
                raise held(region, self._last(_PREFIX + region)[1])
            taken.append(region)

    def release(self, regions: Iterable[str], run: str) -> None:
        """Let go of those of `regions` that `run` holds."""
        for region in regions:
            seq, last = self._last(_PREFIX + region)
            if last.get("run") == run:
                event = {"run": "", "released_by": run, "at": self._clock.wall()}
                self._store.append(_PREFIX + region, seq + 1, json.dumps(event))

    def _held(self, event: Mapping[str, Any]) -> bool:
        return bool(event.get("run")) and self._is_open(event["run"])

    def _last(self, stream: str) -> tuple[int, Mapping[str, Any]]:
        lines = self._store.read(stream)
        return len(lines), json.loads(lines[-1]) if lines else {}


def held(region: str, lock: Mapping[str, Any]) -> Locked:
    """The refusal for a region that somebody else holds."""
    run = lock.get("run", "another run")
    since = stamp(lock["at"]) if "at" in lock else "just now"
    who = f"{lock.get('by', 'somebody')} on {lock.get('host', 'some host')}"
    return Locked(
        f"region {region} is held by run {run}, by {who} since {since}",
        next=f"see what it does: failover show {run}; if it was left behind: failover resume {run}, "
        f"or failover abort {run}",
    )
