"""A clock that a test moves."""

import threading


class FakeClock:
    """Implements `failover.clock.Clock`. Sleeping takes no time and moves both of its times on."""

    def __init__(self, wall: float = 1_700_000_000.0, monotonic: float = 0.0) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self.slept: list[float] = []
        """Every sleep that was not stopped, in seconds."""

    def wall(self) -> float:
        with self._lock:
            return self._wall

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Move on by `seconds` and return True; where `stop` is already set, move nothing and return False."""
        if stop is not None and stop.is_set():
            return False
        self.advance(max(0.0, seconds))
        self.slept.append(seconds)
        return True

    def advance(self, seconds: float) -> None:
        """Let `seconds` go by."""
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def set_wall(self, wall: float) -> None:
        """Set the time of day, as an administrator or NTP would; the monotonic clock does not move."""
        with self._lock:
            self._wall = wall
