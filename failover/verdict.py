"""Pass, fail or unknown, with the evidence. Unknown is never pass and never fail."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    UNKNOWN = "unknown"
    FAIL = "fail"


_RANK = {Outcome.PASS: 0, Outcome.UNKNOWN: 1, Outcome.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and what was seen that led to it, one short line each."""

    outcome: Outcome
    evidence: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASS

    def __str__(self) -> str:
        return f"{self.outcome}: {'; '.join(self.evidence)}" if self.evidence else str(self.outcome)


def passed(*evidence: str) -> Verdict:
    return Verdict(Outcome.PASS, evidence)


def failed(*evidence: str) -> Verdict:
    return Verdict(Outcome.FAIL, evidence)


def unknown(*evidence: str) -> Verdict:
    return Verdict(Outcome.UNKNOWN, evidence)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst outcome wins, fail before unknown before pass, with the evidence of that outcome only.

    Nothing to judge is unknown: an empty list of checks has not shown anything.
    """
    seen = list(verdicts)
    if not seen:
        return unknown("nothing was checked")
    outcome = max((verdict.outcome for verdict in seen), key=_RANK.__getitem__)
    lines = (line for verdict in seen if verdict.outcome is outcome for line in verdict.evidence)
    return Verdict(outcome, tuple(dict.fromkeys(lines)))
