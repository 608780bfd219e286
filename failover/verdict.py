"""Pass, fail or unknown, with the evidence. Unknown is never pass and never fail."""

from collections.abc import Iterable, Mapping
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


def agreed(seen: Mapping[str, Verdict], quorum: int) -> Verdict:
    """Pass or fail where `quorum` of those who looked say so, each named; otherwise nobody knows.

    With a quorum of more than half, who is blind alone decides nothing, and both can never be reached.
    """
    lines = tuple(f"from {place}: {line}" for place, verdict in seen.items() for line in verdict.evidence)
    for outcome in (Outcome.PASS, Outcome.FAIL):
        alike = sum(verdict.outcome is outcome for verdict in seen.values())
        if alike >= quorum:
            return Verdict(outcome, (f"{alike} of {len(seen)} say {outcome}", *lines))
    return unknown(f"fewer than {quorum} of {len(seen)} agree", *lines)
