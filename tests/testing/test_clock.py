import threading

from failover.clock import Clock
from failover.testing import FakeClock


def test_sleeping_takes_no_time_and_moves_both_times_on() -> None:
    fake = FakeClock(wall=1000.0)
    clock: Clock = fake
    assert clock.sleep(30) is True
    assert (clock.wall(), clock.monotonic()) == (1030.0, 30.0)
    assert fake.slept == [30]


def test_a_stop_that_is_set_ends_the_sleep_before_it_begins() -> None:
    clock, stop = FakeClock(), threading.Event()
    assert clock.sleep(1, stop) is True
    stop.set()
    assert clock.sleep(30, stop) is False
    assert clock.monotonic() == 1.0


def test_no_sleep_goes_backwards() -> None:
    clock = FakeClock()
    assert clock.sleep(-5) is True
    assert clock.monotonic() == 0.0


def test_setting_the_time_of_day_leaves_the_monotonic_clock_alone() -> None:
    clock = FakeClock()
    clock.advance(5)
    clock.set_wall(42.0)
    assert (clock.wall(), clock.monotonic()) == (42.0, 5.0)
