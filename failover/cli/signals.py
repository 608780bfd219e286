"""The first Ctrl-C, SIGTERM or SIGHUP stops between two changes; a second one stops at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from failover.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asking = threading.Event()


def answer() -> str:
    """A line that a person types. Raises Interrupted where a signal comes instead: then nobody waits for one."""
    if threading.current_thread() is not threading.main_thread():
        return sys.stdin.readline()
    _asking.set()
    try:
        return sys.stdin.readline()
    finally:
        _asking.clear()


@contextlib.contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """While this is open, a signal sets `stop`, and a second one ends the process with code 6.

    What the second one cuts off stands in the journal as begun, and `resume` reads it back.
    """

    def handle(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if stop.is_set():
            _say(f"{name} again: stopping at once; resume finds out what the change in flight came to")
            os._exit(Interrupted.exit_code)
        stop.set()
        if _asking.is_set():
            raise Interrupted(f"{name} instead of an answer", next="nothing more was changed")
        _say(f"{name}: stopping after the change in flight; once more to stop at once")

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())
