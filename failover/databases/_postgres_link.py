"""Bounded connections to one PostgreSQL server, kept open between calls."""

import math
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import ConnStatus

from failover.secret import redact

Query = LiteralString | sql.Composed


def why(error: BaseException) -> str:
    """What the server or the driver said, on one line and without secrets."""
    text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return redact("; ".join(lines) or type(error).__name__)


class Session:
    """One connection in use. Every statement is its own transaction and raises psycopg.Error."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    def rows(self, query: Query, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values or None).fetchall()

    def row(self, query: Query, *values: Any) -> tuple[Any, ...]:
        return self.rows(query, *values)[0]

    def value(self, query: Query, *values: Any) -> Any:
        return self.row(query, *values)[0]

    def run(self, query: Query) -> None:
        self.connection.execute(query)


class Link:
    """Hands out sessions on one server; `options` gives libpq's parameters, with the secret, at connection time."""

    def __init__(self, options: Callable[[], dict[str, Any]], timeout: float) -> None:
        self._options = options
        self._timeout = timeout
        self._idle: list[Session] = []
        self._pids: set[int] = set()
        self._guard = threading.Lock()
        weakref.finalize(self, _close, self._idle)

    @property
    def pids(self) -> list[int]:
        """The server's processes that serve this link."""
        with self._guard:
            return sorted(self._pids)

    @contextmanager
    def session(self, seconds: float | None = None) -> Iterator[Session]:
        """A session for `seconds` at most: then its socket is shut down and the statement in flight fails."""
        session = self._take()
        watchdog = threading.Timer(
            self._timeout if seconds is None else seconds, _cut, (session.connection.fileno(),)
        )
        watchdog.daemon = True
        watchdog.start()
        try:
            yield session
        finally:
            watchdog.cancel()
            watchdog.join()
            self._give_back(session)

    def close(self) -> None:
        """Close what is not in use."""
        with self._guard:
            _close(self._idle)
            self._pids.clear()

    def _take(self) -> Session:
        while True:
            with self._guard:
                session = self._idle.pop() if self._idle else None
            if session is None:
                break
            if _alive(session.connection):
                return session
            self._drop(session)
        session = Session(psycopg.connect(**self._parameters()))
        with self._guard:
            self._pids.add(session.pid)
        return session

    def _give_back(self, session: Session) -> None:
        if _alive(session.connection):
            with self._guard:
                self._idle.append(session)
        else:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        with self._guard:
            self._pids.discard(session.pid)
        with suppress(psycopg.Error):
            session.connection.close()

    def _parameters(self) -> dict[str, Any]:
        milliseconds = max(1, round(self._timeout * 1000))
        return {
            **self._options(),
            "autocommit": True,
            "prepare_threshold": None,
            "application_name": "failover",
            # Text is bytes otherwise where the database has the encoding SQL_ASCII.
            "client_encoding": "UTF8",
            "target_session_attrs": "any",
            "connect_timeout": max(2, math.ceil(self._timeout)),
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": max(1, math.ceil(self._timeout)),
            # A fenced server waits for a standby that does not exist; our own records must not wait for it.
            "options": f"-c statement_timeout={milliseconds} -c synchronous_commit=local",
        }


def _close(sessions: list[Session]) -> None:
    while sessions:
        with suppress(psycopg.Error):
            sessions.pop().connection.close()


def _alive(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has not hung up, without asking it."""
    if connection.closed or connection.broken:
        return False
    try:
        if select.select([connection.fileno()], [], [], 0)[0]:
            connection.pgconn.consume_input()
    except (psycopg.Error, OSError, ValueError):
        return False
    return connection.pgconn.status == ConnStatus.OK


def _cut(number: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as wire:
        wire.shutdown(socket.SHUT_RDWR)
