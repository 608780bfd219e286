"""What the customers saw, from their ledger. Pure functions, but for reading the file."""

import json
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

SLOW = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. Times are seconds since the epoch; `intended` is when it was to be sent."""

    id: str
    intended: float
    finished: float
    address: str
    region: str
    acknowledged: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A window of time as the customers saw it."""

    requests: int
    failed: int
    slow: int
    longest_gap_s: float
    orders_acknowledged: int
    orders_lost: int


class Ledger:
    """A ledger that is still being written: each reading takes up what was added since the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[Entry] = []
        self._offset = 0

    def entries(self) -> list[Entry]:
        """Every whole line so far, in the order in which the requests ended."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        # A writer that was killed leaves half a line behind, which was never a request's outcome.
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._entries += [Entry(**json.loads(line)) for line in whole.splitlines()]
        return list(self._entries)


def within(entries: Iterable[Entry], start: float, end: float) -> list[Entry]:
    """The requests that were to be sent in the window."""
    return [entry for entry in entries if start <= entry.intended < end]


def longest_gap(entries: Iterable[Entry], start: float, end: float) -> float:
    """The longest time, from the window's start to its end, in which no order was acknowledged."""
    acknowledged = sorted(
        entry.finished for entry in entries if entry.acknowledged and start <= entry.finished <= end
    )
    edges = [start, *acknowledged, end]
    return max((after - before for before, after in pairwise(edges)), default=0.0)


def lost(entries: Iterable[Entry], stored: AbstractSet[str]) -> set[str]:
    """The orders that were acknowledged and are not in the database."""
    return {entry.id for entry in entries if entry.acknowledged} - stored


def measure(entries: Iterable[Entry], start: float, end: float, stored: AbstractSet[str]) -> Measured:
    """The window in numbers. Requests count where they were to be sent in it, gaps where answers came in it."""
    everything = list(entries)
    requests = within(everything, start, end)
    acknowledged = [entry for entry in requests if entry.acknowledged]
    return Measured(
        requests=len(requests),
        failed=len(requests) - len(acknowledged),
        slow=sum(entry.finished - entry.intended > SLOW for entry in acknowledged),
        longest_gap_s=longest_gap(everything, start, end),
        orders_acknowledged=len(acknowledged),
        orders_lost=len(lost(requests, stored)),
    )


def shares(entries: Iterable[Entry], start: float, end: float) -> dict[str, float]:
    """Which share of the window's requests went to each region; none of those that found no address."""
    counts = Counter(entry.region for entry in within(entries, start, end) if entry.region)
    return {region: count / counts.total() for region, count in sorted(counts.items())}


def failures(entries: Iterable[Entry], start: float, end: float) -> dict[str, int]:
    """Why the window's requests failed, the most frequent reason first."""
    return dict(Counter(entry.why for entry in within(entries, start, end) if not entry.acknowledged).most_common())
