"""A token bucket: no more calls a second than an account is allowed, over all routers of this process."""

import random
import threading
from typing import Annotated, Any

from pydantic import Field

from failover.clock import Clock
from failover.schema import Model

_JITTER = 0.25


class Pace(Model):
    """`rate` calls a second in the long run, and up to `burst` at once after a rest."""

    rate: Annotated[float, Field(gt=0)] = 4.0
    burst: Annotated[int, Field(ge=1)] = 1


class Bucket:
    """Lets callers through at a pace. Several threads may wait; each gets a turn of its own, in order."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self.pace = pace
        self.clock = clock
        self._left = float(pace.burst)
        self._at = clock.monotonic()
        self._guard = threading.Lock()

    def take(self, deadline: float) -> bool:
        """Wait for a turn; False, and nothing waited, where there is none before `deadline`."""
        with self._guard:
            now = self.clock.monotonic()
            self._left = min(self.pace.burst, self._left + (now - self._at) * self.pace.rate)
            self._at = now
            # Processes that began together must not stay in step, or they are throttled together for ever.
            late = random.uniform(0, _JITTER) / self.pace.rate  # noqa: S311 - jitter
            wait = (1 - self._left) / self.pace.rate + late if self._left < 1 else 0.0
            if now + wait > deadline:
                return False
            self._left -= 1
        if wait:
            self.clock.sleep(wait)
        return True


_shared: dict[tuple[Any, ...], Bucket] = {}
_guard = threading.Lock()


def shared(account: tuple[str | None, ...], pace: Pace, clock: Clock) -> Bucket:
    """The bucket that everybody in this process uses who calls as `account`."""
    # The bucket keeps its clock alive, so that no other clock can get the same id.
    key = (*account, pace, id(clock))
    with _guard:
        return _shared.setdefault(key, Bucket(pace, clock))
