"""The fence: a PostgreSQL primary that goes on running and acknowledges no more writes.

Two settings, both taken back by `down`. `default_transaction_read_only` refuses new writes with a clear error, but a
client may override it. So `synchronous_standby_names` names a standby that does not exist: what such a client commits
is never acknowledged to it, unless it also turns `synchronous_commit` down. (PostgreSQL manual, 19.5 and 19.11)
"""

import re
import subprocess
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from failover.clock import Clock
from failover.databases._postgres_host import said
from failover.databases._postgres_link import Session, why
from failover.errors import Failed, Indeterminate

MARK = "failover fence"
_POLL = 0.001
_MARKED = re.compile(rf'^"{MARK}(?:; restore (.*))?"$')
_FILES = """
SELECT name, setting FROM pg_file_settings
 WHERE applied AND name IN ('synchronous_standby_names', 'default_transaction_read_only')
"""
_NAMES = "SELECT reset_val, coalesce(sourcefile, '') FROM pg_settings WHERE name = 'synchronous_standby_names'"
_READ_ONLY = (
    "SELECT reset_val = 'on', coalesce(sourcefile || ':' || sourceline, source)"
    " FROM pg_settings WHERE name = 'default_transaction_read_only'"
)
_WRITERS = """
SELECT pid, pg_terminate_backend(pid), usename FROM pg_stat_activity
 WHERE pid <> ALL(%s) AND pid <> pg_backend_pid()
   AND (backend_type = 'client backend' AND backend_start < %s
        OR backend_xid IS NOT NULL AND backend_type NOT IN ('walsender', 'autovacuum worker'))
"""


def up(session: Session, ours: Sequence[int], clock: Clock, seconds: float, where: str) -> str:
    """Refuse writes, end every other client's connection, and flush what was written. Returns the last position.

    Raises Failed where that did not succeed within `seconds` and the server takes writes as before, Indeterminate
    where it could not be made so.
    """
    deadline = clock.monotonic() + seconds
    try:
        names, file = session.row(_NAMES)
        if not _MARKED.match(names):
            kept = f"; restore {names}" if names and file.endswith("postgresql.auto.conf") else ""
            _alter(session, "synchronous_standby_names", '"' + (MARK + kept).replace('"', '""') + '"')
        _alter(session, "default_transaction_read_only", "on")
        session.rows("SELECT pg_reload_conf()")
        _until(lambda: bool(session.value(_READ_ONLY)), clock, deadline, "the setting did not take effect")
        # Our session has seen the reload, so the server has: whoever connects from now on starts read-only.
        since = session.value("SELECT clock_timestamp()")
        _until(lambda: not session.rows(_WRITERS, list(ours), since), clock, deadline, "clients do not end")
        return _flush(session)
    except (psycopg.Error, TimeoutError) as error:
        try:
            down(session, clock, seconds, where)
        except (psycopg.Error, Failed) as second:
            said = why(second) if isinstance(second, psycopg.Error) else second.what
            raise Indeterminate(
                f"writes could not be stopped ({why(error)}) nor allowed again ({said})",
                where=where,
                next="see whether it takes writes; if not: ALTER SYSTEM RESET default_transaction_read_only, then"
                " synchronous_standby_names, then SELECT pg_reload_conf()",
            ) from None
        raise Failed(
            f"writes could not be stopped: {why(error)}; it takes writes as before",
            where=where,
            next="look at pg_stat_activity for what does not end, then resume",
        ) from None


def down(session: Session, clock: Clock, seconds: float, where: str) -> None:
    """Take writes again, with the settings as they were. Raises Failed where another file forbids it.

    Nothing is acknowledged before the last setting has gone, so a fence that is half lifted, and that somebody's
    reload may lift a little more, still is one.
    """
    deadline = clock.monotonic() + seconds
    settings = reset(_files(session).get("synchronous_standby_names", ""))
    _alter(session, "default_transaction_read_only", None)
    session.rows("SELECT pg_reload_conf()")
    try:
        _until(lambda: not session.value(_READ_ONLY), clock, deadline, "")
    except TimeoutError:
        source = session.row(_READ_ONLY)[1]
        raise Failed(
            f"default_transaction_read_only stays on: {source} says so",
            where=where,
            next="take it out there and reload, or it will never take writes",
        ) from None
    for name, value in settings[:-1]:
        _alter(session, name, value)
    session.rows("SELECT pg_reload_conf()")
    _until(lambda: not _MARKED.match(session.row(_NAMES)[0]), clock, deadline, "the setting did not take effect")


def run_device(argv: Sequence[str], seconds: float, where: str) -> None:
    """Run a declared fencing command, which exits 0 only where the member cannot take writes. Raises Failed."""
    advice = "turn it off yourself and accept the guard unfenced-primary by name, or mend the command and resume"
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own words, without a shell between
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        what = f"its fencing command did not end within {seconds:g} s"
    except OSError as error:
        what = f"its fencing command '{argv[0]}' cannot be run: {error.strerror}"
    else:
        if not done.returncode:
            return
        what = f"its fencing command ended with {done.returncode}: {said(done.stderr or done.stdout)}"
    raise Failed(what, where=where, next=advice)


def left(session: Session) -> bool:
    """Whether any part of a fence is in force."""
    return bool(session.value(_READ_ONLY)) or bool(_MARKED.match(session.value(_NAMES)))


def half(session: Session) -> str:
    """What was left of a fence on a server that takes writes, and how to lift it; "" where nothing was."""
    names = _files(session).get("synchronous_standby_names", "")
    now = bool(_MARKED.match(session.value(_NAMES)))
    if not now and not _MARKED.match(names):
        return ""
    by_hand = "; ".join(
        f"ALTER SYSTEM SET {name} = {_quoted(value)}" if value else f"ALTER SYSTEM RESET {name}"
        for name, value in reversed(reset(names))
    )
    does = "it acknowledges no commits" if now else "the next reload of its settings, by whomever, stops its writes"
    return f"a fence was left half done, and {does}; resume, or lift it: {by_hand}; SELECT pg_reload_conf()"


def reset(names: str) -> list[tuple[str, str | None]]:
    """The settings that lift a fence, given the present `synchronous_standby_names`; None resets."""
    settings: list[tuple[str, str | None]] = [("default_transaction_read_only", None)]
    if marked := _MARKED.match(names):
        before = (marked[1] or "").replace('""', '"')
        settings.insert(0, ("synchronous_standby_names", before or None))
    return settings


def _alter(session: Session, name: str, value: str | None) -> None:
    setting = sql.Identifier(name)
    if value is None:
        session.run(sql.SQL("ALTER SYSTEM RESET {}").format(setting))
    else:
        session.run(sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, sql.Literal(value)))


def _files(session: Session) -> dict[str, str]:
    """What the server's files say of the fence's settings, whether or not that is in force yet."""
    return dict(session.rows(_FILES))


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _flush(session: Session) -> str:
    """Make sure that what was acknowledged before it was on disk (synchronous_commit = off) gets there too."""
    query = "SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()"
    if session.value(query):
        session.rows("SELECT pg_logical_emit_message(true, 'failover', 'fence')")
    return str(session.value("SELECT pg_current_wal_flush_lsn()"))


def _until(condition: Callable[[], bool], clock: Clock, deadline: float, what: str) -> None:
    while not condition():
        if clock.monotonic() >= deadline:
            raise TimeoutError(what)
        clock.sleep(_POLL)
