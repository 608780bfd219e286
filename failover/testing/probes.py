"""The contract of a probe. Subclass it in your own tests and give it real things to look at:

class TestMyProbe(ProbeContract):
    provider = MyProbe

    @pytest.fixture
    def good(self, server):
        return {"address": server.address}
    ...
"""

# ruff: noqa: S101 - a contract suite is a test, and asserts with pytest

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from failover.clock import SYSTEM
from failover.ports import Probe
from failover.schema import Model
from failover.verdict import Outcome, Verdict

SLACK = 3.0
"""Seconds above its timeout that a look may take on a busy machine."""


def see(provider: type[Probe], config: dict[str, Any]) -> Verdict:
    """What a new probe with that configuration sees."""
    return provider(provider.Config.model_validate(config), SYSTEM).probe()


class ProbeContract:
    """What every probe keeps to. The fixtures are plain data, as a topology has it."""

    provider: ClassVar[type[Probe]]

    @pytest.fixture
    def good(self) -> dict[str, Any]:
        """A configuration whose verdict is pass."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'good': a configuration that passes")

    @pytest.fixture
    def bad(self) -> dict[str, Any]:
        """A configuration whose verdict is fail."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'bad': a configuration that fails")

    @pytest.fixture
    def blind(self) -> dict[str, Any]:
        """A configuration that looks, for half a second at most, at what accepts a question and never answers."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'blind': a configuration that cannot see")

    def test_its_config_has_no_room_for_unknown_keys(self) -> None:
        assert issubclass(self.provider.Config, Model)

    def test_what_is_good_passes(self, good: dict[str, Any]) -> None:
        _judged(see(self.provider, good), Outcome.PASS)

    def test_what_is_bad_fails(self, bad: dict[str, Any]) -> None:
        _judged(see(self.provider, bad), Outcome.FAIL)

    def test_silence_is_unknown_and_soon_over(self, blind: dict[str, Any]) -> None:
        begun = time.monotonic()
        verdict = see(self.provider, blind)
        took = time.monotonic() - begun
        _judged(verdict, Outcome.UNKNOWN)
        assert took < 0.5 + SLACK, f"the look took {took:.1f} s"

    def test_constructing_it_looks_at_nothing(self, bad: dict[str, Any], blind: dict[str, Any]) -> None:
        for config in (bad, blind):
            self.provider(self.provider.Config.model_validate(config), SYSTEM)

    def test_it_looks_anew_each_time(self, good: dict[str, Any]) -> None:
        probe = self.provider(self.provider.Config.model_validate(good), SYSTEM)
        for _ in range(3):
            _judged(probe.probe(), Outcome.PASS)

    def test_several_threads_may_look_at_once(self, good: dict[str, Any]) -> None:
        probe = self.provider(self.provider.Config.model_validate(good), SYSTEM)
        with ThreadPoolExecutor(4) as pool:
            for verdict in pool.map(lambda _: probe.probe(), range(8)):
                _judged(verdict, Outcome.PASS)

    def test_nothing_is_left_open(self, good: dict[str, Any], bad: dict[str, Any]) -> None:
        see(self.provider, good)
        see(self.provider, bad)
        gc.collect()


def _judged(verdict: Verdict, outcome: Outcome) -> None:
    assert verdict.outcome is outcome, str(verdict)
    assert verdict.evidence, "a verdict needs evidence"
    for line in verdict.evidence:
        assert line.isprintable(), f"evidence is text on one line, not {line!r}"
        assert len(line) < 1000
