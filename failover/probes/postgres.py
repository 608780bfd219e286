"""Asks a PostgreSQL server what it is, and how far behind."""

import os
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import psycopg
from pydantic import BaseModel, Field

from failover.clock import Clock
from failover.probes.looking import look
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration, duration
from failover.verdict import Verdict, failed, passed, unknown

# A replica that receives nothing has replayed all it received, and may still be hours behind.
QUESTION = """
SELECT pg_is_in_recovery(),
       EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
       CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
"""
SILENT = ("timeout", "timed out")
LOCKED_OUT = ("authentication", "pg_hba.conf", "no password supplied")
ANSWERED = ("refused", "reset", "closed the connection", "FATAL")


class PostgresProbeConfig(Model):
    """`expect` is the role that it must have; `max_lag` is how far behind a replica may be.

    `timeout` bounds the whole look. `sslmode` and `ca_file` are libpq's `sslmode` and `sslrootcert`.
    """

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    database: str = "postgres"
    user: str
    password: Secret | None = None
    expect: Literal["primary", "replica", "any"] = "any"
    max_lag: Duration | None = None
    timeout: Duration = 2.0
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca_file: Path | None = None


class PostgresProbe:
    """Passes where the server answers a query, has the role and is not too far behind.

    Another role, a larger lag and a refused connection fail. Silence, a rejected password and a lag that cannot be
    told are unknown.
    """

    Config: ClassVar[type[BaseModel]] = PostgresProbeConfig

    def __init__(self, config: PostgresProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One connection and one query, `timeout` at most."""
        config = self._config
        open_now: list[psycopg.Connection[Any]] = []

        def cut() -> None:
            for connection in open_now:
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)

        asked = f"PostgreSQL {config.host}:{config.port}/{config.database} as {config.user}"
        return look(asked, config.timeout, self._clock, lambda: self._see(open_now), cut)

    def _see(self, open_now: list[psycopg.Connection[Any]]) -> Verdict:
        try:
            connection = self._connect()
        except psycopg.OperationalError as error:
            return _unconnected(str(error))
        with closing(connection):
            open_now.append(connection)
            try:
                row = connection.execute(QUESTION).fetchone()
            except psycopg.errors.QueryCanceled:
                raise TimeoutError from None
            except psycopg.OperationalError as error:
                return failed(f"it broke off: {error}")
            finally:
                open_now.clear()
        return self._judge(*row) if row else unknown("it answered nothing")

    def _connect(self) -> psycopg.Connection[Any]:
        config = self._config
        return psycopg.connect(
            host=config.host,
            port=config.port,
            dbname=config.database,
            user=config.user,
            password=config.password.reveal() if config.password else None,
            sslmode=config.sslmode,
            sslrootcert=str(config.ca_file) if config.ca_file else None,
            connect_timeout=max(2, round(config.timeout)),
            options=f"-c statement_timeout={max(1, round(config.timeout * 1000))}",
            application_name="failover",
            autocommit=True,
        )

    def _judge(self, recovering: bool, receiving: bool, lag: Any) -> Verdict:
        role = "replica" if recovering else "primary"
        if self._config.expect not in (role, "any"):
            return failed(f"it is a {role}, expected a {self._config.expect}")
        limit = self._config.max_lag
        if not recovering or limit is None:
            return passed(f"it is a {role}")
        if lag is None or (lag > limit and not receiving):
            why = "has replayed nothing since it started" if receiving else "receives nothing"
            return unknown(f"it is a replica that {why}, so nobody can tell how far behind it is")
        behind = f"it is a replica, {duration(max(0.0, float(lag)))} behind, at most {duration(limit)} wanted"
        return failed(behind) if lag > limit else passed(behind)


def _unconnected(said: str) -> Verdict:
    if any(word in said for word in SILENT):
        raise TimeoutError
    if any(word in said for word in LOCKED_OUT):
        return unknown(f"it does not let us look: {said}")
    return failed(said) if any(word in said for word in ANSWERED) else unknown(said)
