"""For whoever writes a provider: the contract suites that every provider passes, and a clock to test with."""

from failover.testing.clock import FakeClock

__all__ = ["FakeClock"]
