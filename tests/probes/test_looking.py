import threading
from collections.abc import Callable

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
