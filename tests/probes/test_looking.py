import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from failover.bounded import bounded
from failover.probes.looking import LONGEST, look, plain
from failover.testing import FakeClock
from failover.verdict import Verdict, passed, unknown


def nothing() -> None:
    pytest.fail("nothing was to be cut")


def raising(error: BaseException) -> Callable[[], Verdict]:
    def call() -> Verdict:
        raise error

    return call


def test_a_call_in_time_gives_what_it_returns() -> None:
    assert bounded(5, lambda: 42, nothing) == 42


def test_a_call_in_time_raises_what_it_raises() -> None:
    with pytest.raises(ZeroDivisionError, match="nought"):
        bounded(5, raising(ZeroDivisionError("nought")), nothing)


def test_a_call_that_is_late_is_cut() -> None:
    over = threading.Event()
    with pytest.raises(TimeoutError):
        bounded(0.05, lambda: over.wait(10), over.set)
    assert over.is_set()


def test_calls_take_turns_on_one_thread_and_a_late_one_keeps_its_own() -> None:
    over = threading.Event()
    first = bounded(5, threading.get_ident, nothing)
    assert {bounded(5, threading.get_ident, nothing) for _ in range(20)} == {first}
    with pytest.raises(TimeoutError):
        bounded(0.05, lambda: over.wait(10), lambda: None)
    assert bounded(5, threading.get_ident, nothing) != first
    over.set()


def test_many_calls_at_once_each_get_their_own_answer() -> None:
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda number: bounded(5, lambda: number, nothing), range(2000))
    assert list(found) == list(range(2000))


def test_threads_end_some_time_after_their_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("failover.bounded._PATIENCE", 0.001)
    for _ in range(300):
        # Some calls meet a thread that is about to end.
        assert bounded(5, lambda: 42, nothing) == 42
        time.sleep(0.001)
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("bounded") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_forked_process_has_threads_of_its_own() -> None:
    program = """
import os
from failover.bounded import bounded
bounded(5, int, int)
child = os.fork()
if not child:
    os._exit(bounded(5, lambda: 42, int))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False).returncode == 42


def test_evidence_names_what_was_asked_and_how_long_it_took() -> None:
    clock = FakeClock()

    def see() -> Verdict:
        clock.advance(0.0123)
        return passed("one", "two")

    assert look("it", 5, clock, see) == passed("it: one (12 ms)", "it: two (12 ms)")


def test_a_mistake_of_the_probe_itself_is_unknown() -> None:
    verdict = look("it", 5, FakeClock(), raising(ZeroDivisionError("nought")))
    assert verdict == unknown("it: not seen: ZeroDivisionError: nought (0 ms)")


def test_evidence_stays_on_one_short_line() -> None:
    assert plain("a\x1b[31m\nb\x00\u2028c") == "a [31m b c"
    assert plain("d" * 1000) == "d" * (LONGEST - 1) + "…"
