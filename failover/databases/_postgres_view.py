"""What PostgreSQL members say of themselves, and what role each has beside the others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from failover.databases._postgres_host import Look
from failover.databases._postgres_link import Session
from failover.world import Member, Role

_ASK = """
SELECT r.recovering,
       (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only') = 'on',
       (CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint,
       (CASE WHEN r.recovering THEN pg_last_wal_receive_lsn() END - '0/0')::bigint,
       CASE WHEN r.recovering
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()), w.received_tli)
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END,
       (SELECT system_identifier FROM pg_control_system()),
       extract(epoch FROM clock_timestamp())::float8,
       extract(epoch FROM pg_last_xact_replay_timestamp())::float8,
       w.status, w.sender_host, w.sender_port
  FROM (SELECT pg_is_in_recovery() AS recovering) r LEFT JOIN pg_stat_wal_receiver w ON true
"""
_HISTORY = "SELECT pg_read_file('pg_wal/' || %s || '.history', 0, 1000000, true)"

History = tuple[tuple[int, int], ...]
"""Timelines and the position at which each was left, oldest first; the last one has not been left."""
ENDLESS = 1 << 63


@dataclass(frozen=True, slots=True)
class Seen:
    """One server's answer. Positions are bytes of WAL; times are seconds since the epoch by its own clock."""

    recovering: bool
    read_only: bool
    position: int
    received: int
    timeline: int
    system: int
    now: float
    last_commit: float | None
    receiver: str
    sender: tuple[str, int]

    @property
    def end(self) -> int:
        """How far its own WAL reaches."""
        return max(self.position, self.received)


@dataclass(frozen=True, slots=True)
class Silent:
    """A member that told us nothing, why, and what its host says where it can be asked."""

    why: str
    look: Look | None = None
    answers: bool = False
    """It is there and says no, for a reason that is ours: it is not dead."""
    asked: bool = True
    """False where a mistake of ours kept us from asking at all; that says nothing of the member."""


def ask(session: Session) -> Seen:
    """What this server is now, in one statement. Raises psycopg.Error."""
    row: tuple[Any, ...] = session.row(_ASK)
    return Seen(
        row[0], row[1], row[2] or 0, row[3] or 0, row[4], row[5], row[6], row[7],
        row[8] or "", (row[9] or "", row[10] or 0),
    )  # fmt: skip


def ask_history(session: Session, timeline: int) -> str:
    """The text of a timeline's history file, or "" where there is none. Needs pg_read_server_files."""
    return session.value(_HISTORY, f"{timeline:08X}") or "" if timeline > 1 else ""


def parse_history(timeline: int, text: str) -> History:
    """The path of `timeline` from the first one on, from the text of its history file."""
    left = re.findall(r"^\s*(\d+)\s+([0-9A-Fa-f]+)/([0-9A-Fa-f]+)", text, re.MULTILINE)
    return (*((int(number), (int(high, 16) << 32) + int(low, 16)) for number, high, low in left), (timeline, ENDLESS))


def fork(one: History, other: History) -> tuple[int, int]:
    """The last timeline that both were on, and the position at which they parted."""
    common = [
        (mine[0], min(mine[1], theirs[1])) for mine, theirs in zip(one, other, strict=False) if mine[0] == theirs[0]
    ]
    return common[-1] if common else (0, 0)


def lsn(position: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def leader(answers: Mapping[str, Seen | Silent]) -> str:
    """The member to compare the others with: not in recovery, on the newest timeline; "" where there is none."""
    up = [
        (seen.timeline, not seen.read_only, region)
        for region, seen in answers.items()
        if isinstance(seen, Seen) and not seen.recovering
    ]
    return max(up)[2] if up else ""


def member(seen: Seen, newest: Seen | None, parted: int | None) -> Member:
    """What a server that answered is beside `newest`, from whose history its own parted at position `parted`."""
    if not seen.recovering:
        if seen.read_only:
            return Member(Role.FENCED, seen.position, detail="refuses writes by default_transaction_read_only")
        if newest and newest.timeline > seen.timeline:
            return Member(
                Role.DIVERGED, seen.position, detail=f"takes writes on timeline {seen.timeline}, which was left"
            )
        return Member(Role.PRIMARY, seen.position)
    if parted is not None and seen.end > parted:
        return Member(
            Role.DIVERGED,
            seen.position,
            detail=f"its history goes on to {lsn(seen.end)}, past {lsn(parted)} where it was left",
        )
    detail = "" if seen.receiver == "streaming" else "receives nothing"
    return Member(Role.REPLICA, seen.position, detail=detail)


def silent(answer: Silent, proven: str) -> Member:
    """What a server that did not answer is; `proven` says how it was shown to be off, if it was."""
    look = answer.look
    if answer.answers:
        return Member(Role.UNKNOWN, detail=f"it answers: {answer.why}")
    if look and look.fenced:
        able = "cannot be started before its rewind is complete" if look.barred else "would start as a standby"
        return Member(Role.FENCED, detail=f"does not run, and {able}")
    if look and not look.running:
        return Member(Role.STOPPED, detail=f"does not run; its cluster state is '{look.state}'")
    if proven:
        return Member(Role.FENCED, detail=proven)
    return Member(Role.UNKNOWN, detail=(look and look.problem) or answer.why)
