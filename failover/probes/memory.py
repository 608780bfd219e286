"""A probe that sees what it is told to see: for tests and simulation."""

from typing import ClassVar, Literal

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Failed
from failover.schema import Model
from failover.verdict import Outcome, Verdict

verdicts: dict[str, Verdict] = {}
"""What the probes with that `shared` name see; without an entry, their configured outcome."""


class MemoryProbeConfig(Model):
    """`outcome` is what it sees, unless `verdicts` says otherwise for its `shared` name; `number` is its value."""

    outcome: Literal["pass", "fail", "unknown"] = "pass"
    number: float | None = None
    shared: str = ""


def forget() -> None:
    """Drop every verdict that was set; all probes see their configured outcome again."""
    verdicts.clear()


class MemoryProbe:
    """Gives the verdict that was set for it."""

    Config: ClassVar[type[BaseModel]] = MemoryProbeConfig

    def __init__(self, config: MemoryProbeConfig, clock: Clock) -> None:  # noqa: ARG002 - the port's signature
        self._shared = config.shared
        self._number = config.number
        self._configured = Verdict(Outcome(config.outcome), (f"set to {config.outcome}",))

    def probe(self) -> Verdict:
        return verdicts.get(self._shared, self._configured)

    def value(self) -> float:
        """The configured number. Raises Failed where there is none."""
        if self._number is None:
            raise Failed("no number is configured", next="set 'number' on the probe")
        return self._number
