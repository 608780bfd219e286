from collections.abc import Iterator

import pytest

from failover.clock import SYSTEM
from failover.probes.memory import MemoryProbe, MemoryProbeConfig, forget, verdicts
from failover.testing.probes import see
from failover.verdict import Outcome, failed


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("outcome", ["pass", "fail", "unknown"])
def test_it_sees_what_its_config_says(outcome: str) -> None:
    assert see(MemoryProbe, {"outcome": outcome}).outcome is Outcome(outcome)


def test_it_passes_unless_told_otherwise() -> None:
    assert see(MemoryProbe, {}).passed


def test_a_verdict_set_for_its_name_wins_until_forgotten() -> None:
    probe = MemoryProbe(MemoryProbeConfig(shared="east"), SYSTEM)
    verdicts["east"] = failed("on fire")
    assert probe.probe() == failed("on fire")
    assert MemoryProbe(MemoryProbeConfig(shared="west"), SYSTEM).probe().passed
    forget()
    assert probe.probe().passed
