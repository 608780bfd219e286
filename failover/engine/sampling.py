"""From single looks to a verdict: as many samples as a change of mind takes, from as many places as have to agree."""

from collections.abc import Mapping
from dataclasses import dataclass

from failover.clock import Clock
from failover.engine.gather import gather
from failover.ports import Probe
from failover.units import duration
from failover.verdict import Outcome, Verdict, agreed, unknown


@dataclass(frozen=True, slots=True)
class Sampled:
    """A check as it was declared. It passes after `rise` passing samples in a row, and fails or is unknown after
    `fall` that do not pass and are alike; one that goes to and fro is unknown.
    """

    vantages: Mapping[str, Probe]
    quorum: int
    fall: int
    rise: int
    every: float
    clock: Clock

    def probe(self) -> Verdict:
        """Looks until it is sure, twice as often as that could take at the most. Never raises. Writes nothing."""
        last, row = None, 0
        most = 2 * max(self.fall, self.rise)
        for turn in range(most):
            if turn:
                self.clock.sleep(self.every)
            verdict = self._look()
            row = row + 1 if verdict.outcome is last else 1
            last = verdict.outcome
            if row >= (self.rise if last is Outcome.PASS else self.fall):
                return verdict
        return unknown(f"it goes to and fro: {most} samples, {duration(self.every)} apart", *verdict.evidence)

    def _look(self) -> Verdict:
        if len(self.vantages) == 1:
            [probe] = self.vantages.values()
            return probe.probe()
        seen = gather(
            {name: probe.probe for name, probe in self.vantages.items()}, lambda _: unknown("did not answer in time")
        )
        return agreed(seen, self.quorum)
