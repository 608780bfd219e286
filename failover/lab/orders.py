"""The shop's way to whichever PostgreSQL is primary: an order is written once, by retrying under its own id."""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psycopg
from psycopg.rows import TupleRow

Connection = psycopg.AsyncConnection[TupleRow]

PATIENCE = 2.0
PAUSE = 0.01
ANSWER = 0.4
ATTEMPT = 1.0
SLOTS = 4


class Unavailable(Exception):
    """The order was not written within the shop's patience; the text says what was in the way."""


class Sentinel:
    """A connection kept open to one PostgreSQL, only to ask whether it takes writes."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def objection(self) -> str:
        """Why this PostgreSQL takes no writes right now, or an empty text where it does."""
        deadline = _now() + ANSWER
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError:
            return "no answer in time"
        try:
            if self._connection is None:
                self._connection = await connect(self.conninfo, deadline)
            with _bounded(self._connection, deadline):
                row = await (await self._connection.execute("SHOW transaction_read_only")).fetchone()
        except (psycopg.Error, TimeoutError) as error:
            await _close(self._connection)
            self._connection = None
            return _reason(error)
        finally:
            self._turn.release()
        return "" if row == ("off",) else "read-only"


class Orders:
    """Writes orders over a few connections to the primary, and finds the primary again when it has moved."""

    def __init__(self, members: Mapping[str, str]) -> None:
        self._sentinels = {name: Sentinel(conninfo) for name, conninfo in members.items()}
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(SLOTS)
        self._search: asyncio.Task[str | None] | None = None
        self._wanted = 0.0
        self._objections: dict[str, str] = {}

    async def objections(self) -> dict[str, str]:
        """For each member why it takes no writes right now; the writable one has an empty text."""
        reasons = await asyncio.gather(*(sentinel.objection() for sentinel in self._sentinels.values()))
        self._objections = dict(zip(self._sentinels, reasons, strict=True))
        return self._objections

    async def write(self, order: str, region: str) -> None:
        """Write the order, or raise Unavailable within the shop's patience."""
        deadline = _now() + PATIENCE
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(self._blocked()) from None
        try:
            while reason := await self._attempt(order, region, deadline):
                if _now() + PAUSE >= deadline:
                    raise Unavailable(reason)
                await asyncio.sleep(PAUSE)
        finally:
            self._slots.release()

    async def _attempt(self, order: str, region: str, deadline: float) -> str:
        connection: Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else await self._open(deadline)
            with _bounded(connection, min(deadline, _now() + ATTEMPT)):
                await connection.execute(
                    "INSERT INTO orders (id, region) VALUES (%s, %s) ON CONFLICT DO NOTHING", (order, region)
                )
        except (psycopg.Error, TimeoutError) as error:
            # What happened to one connection will happen to its siblings.
            stale, self._idle = [connection, *self._idle], []
            for other in stale:
                await _close(other)
            return _reason(error)
        self._idle.append(connection)
        return ""

    async def _open(self, deadline: float) -> Connection:
        self._wanted = max(self._wanted, deadline)
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._look())
        # Everybody who needs the primary waits for one search: the databases are busy enough without them.
        await asyncio.wait({self._search}, timeout=max(deadline - _now(), 0))
        conninfo = self._search.result() if self._search.done() else None
        if conninfo is None:
            raise TimeoutError(self._blocked())
        return await connect(conninfo, min(deadline, _now() + ANSWER))

    async def _look(self) -> str | None:
        while _now() < self._wanted:
            for name, objection in (await self.objections()).items():
                if not objection:
                    return self._sentinels[name].conninfo
            await asyncio.sleep(PAUSE)
        return None

    def _blocked(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self._objections.items() if reason)
        return reasons or "every connection is busy"


async def connect(conninfo: str, deadline: float) -> Connection:
    """A connection that commits each statement, or an error by `deadline`."""
    async with asyncio.timeout_at(deadline):
        return await Connection.connect(conninfo, autocommit=True)


@contextmanager
def _bounded(connection: Connection, deadline: float) -> Iterator[None]:
    timer = asyncio.get_running_loop().call_at(deadline, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: Connection) -> None:
    # Cancelling the task would first ask the server, which may be the one that hangs.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


async def _close(connection: Connection | None) -> None:
    if connection is not None:
        with suppress(psycopg.Error):
            await connection.close()


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no answer in time"


def _now() -> float:
    return asyncio.get_running_loop().time()
