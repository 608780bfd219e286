"""What has been shown of each way out of a region, for people and for programs."""

from collections.abc import Iterable
from typing import Any

from failover.engine.evidence import Evidence, Proof
from failover.report.words import ago, filled, table
from failover.units import duration


def overdue(found: Evidence, now: float, most: float | None) -> bool:
    """Whether exactly this path was never gone, or not within `most` seconds."""
    return most is not None and (found.exact is None or now - found.exact.at > most)


def evidence_lines(found: Iterable[Evidence], now: float, most: float | None) -> list[str]:
    """One row a region and service: when exactly this path was last gone, for what, how long it took, and what
    differs."""
    listed = list(found)
    rows = [("region", "service", "last proven", "by", "took", "since then")]
    for one in listed:
        proof = one.exact or one.latest
        late = "  overdue" if overdue(one, now, most) else ""
        rows.append(
            (
                one.region,
                one.service,
                ("never" if one.exact is None else ago(one.exact.at, now)) + late,
                f"{proof.purpose} {proof.run}" if proof else "-",
                duration(proof.seconds) if proof else "-",
                _since(one),
            )
        )
    lines = table(rows)
    for one in listed:
        for difference in one.differs if one.latest else ():
            lines += filled("  ", f"{one.region} {one.service}: {difference}".split(" "))
    return lines


def _since(found: Evidence) -> str:
    if found.latest is None:
        return "no drain of it is on record"
    return f"{len(found.differs)} changed, see below" if found.differs else "unchanged"


def evidence_data(found: Iterable[Evidence], now: float, most: float | None) -> list[dict[str, Any]]:
    """The same for a program."""
    return [
        {
            "region": one.region,
            "service": one.service,
            "exact": _proof(one.exact),
            "latest": _proof(one.latest),
            "differs": list(one.differs),
            "overdue": overdue(one, now, most),
        }
        for one in found
    ]


def _proof(proof: Proof | None) -> dict[str, Any] | None:
    return (
        {"run": proof.run, "purpose": proof.purpose, "at": proof.at, "seconds": round(proof.seconds, 3)}
        if proof
        else None
    )
