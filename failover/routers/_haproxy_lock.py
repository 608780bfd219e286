"""One writer at a time on one machine, since HAProxy's socket cannot compare and set."""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from failover.clock import Clock
from failover.errors import Failed
from failover.routers._haproxy_socket import Instance

_POLL = 0.02
_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()


@contextmanager
def alone(instances: Sequence[Instance], clock: Clock, seconds: float, where: str) -> Iterator[None]:
    """Keep other writers on this machine away from `instances`: threads, and for UNIX sockets processes too.

    Raises Failed where somebody else has not finished within `seconds`.
    """
    deadline = clock.monotonic() + seconds
    late = Failed(
        f"another run on this machine has been writing for {seconds:g} s; nothing was written",
        where=where,
        next="wait for it, or end it; then try again",
    )
    with ExitStack() as stack:
        for place in sorted({instance.place for instance in instances}):
            with _guard:
                lock = _locks.setdefault(place, threading.Lock())
            if not lock.acquire(timeout=max(0.0, deadline - clock.monotonic())):
                raise late
            stack.callback(lock.release)
            if not place.startswith("/"):
                continue
            try:
                handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue  # Whoever may not look into the directory is still held back by the threads' lock.
            stack.callback(os.close, handle)
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if clock.monotonic() > deadline:
                        raise late from None
                    clock.sleep(_POLL)
        yield
