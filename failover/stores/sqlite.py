"""The default store: one SQLite file in the user's state directory, in WAL mode with full sync."""

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from failover.errors import Failed
from failover.schema import Model
from failover.units import Duration, duration

APPLICATION = 0x66616F76
FORMAT = 1
# The trigger keeps an append at one statement, which is one transaction and one sync of the disk.
SCHEMA = """
CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE events (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TRIGGER stream_begins AFTER INSERT ON events WHEN NEW.seq = 1
BEGIN INSERT INTO streams (name) VALUES (NEW.stream); END;
"""
LAST = "SELECT coalesce(max(seq), 0) FROM events WHERE stream = ?"
APPEND = f"INSERT INTO events SELECT ?1, ?2, ?3 WHERE ({LAST.replace('?', '?1')}) = ?2 - 1"
READ = "SELECT event FROM events WHERE stream = ? AND seq > ? ORDER BY seq"
STREAMS = "SELECT name FROM streams WHERE name >= ?1 AND name < ?1 || char(0x10FFFF) ORDER BY id"

ASIDE = "move it aside together with its -wal and -shm files, or restore it from a backup"
TROUBLE = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space there and run it again"),
    sqlite3.SQLITE_READONLY: ("it cannot be written", "make the file and its directory writable to this user"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "make the file and its directory writable to this user"),
    sqlite3.SQLITE_PERM: ("it cannot be opened", "make the file and its directory writable to this user"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", ASIDE),
    sqlite3.SQLITE_NOTADB: ("it is not a journal, or it is damaged", ASIDE),
    sqlite3.SQLITE_IOERR: ("the disk reported an error", "look at the disk and the system's log; then run it again"),
}


class SqliteConfig(Model):
    """`path` is a file on a local disk, seen from the topology's directory; without one, `failover/journal.db` in
    the user's state directory.

    `timeout` is how long to wait for another process that is writing.
    """

    path: Path | None = None
    timeout: Duration = 5.0


def default_path() -> Path:
    """Where the journal is kept: `$XDG_STATE_HOME` or `~/.local/state` (XDG Base Directory Specification).

    Raises Failed where this user has no home directory.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state, "failover", "journal.db")
    return _expand(Path("~/.local/state/failover/journal.db"))


class SqliteStore:
    """Streams in one file, for several processes and threads at once.

    Nothing is opened before the first use; reading does not create the file. Every method raises Failed, with the
    file and what to do, where the file or its disk does not allow what was asked; an append has then not been made.
    """

    Config: ClassVar[type[BaseModel]] = SqliteConfig

    def __init__(self, config: SqliteConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """The file, whether or not it exists yet."""
        return _expand(self._config.path) if self._config.path else default_path()

    def append(self, stream: str, seq: int, event: str) -> bool:
        """Put `event` at number `seq`, from 1; on the disk on return. False where that number is taken.

        Raises ValueError for a number that would leave a gap.
        """
        with self._connected(create=True) as connection:
            if connection is not None and connection.execute(APPEND, (stream, seq, event)).rowcount == 1:
                return True
            last = self._last(connection, stream)
        if 1 <= seq <= last:
            return False
        raise ValueError(f"stream {stream} has {last} events; {seq} cannot come next")

    def read(self, stream: str, after: int = 0) -> Sequence[str]:
        """The events of `stream` that come after number `after`, in order."""
        with self._connected(create=False) as connection:
            if connection is None:
                return []
            return [event for (event,) in connection.execute(READ, (stream, after))]

    def streams(self, prefix: str) -> Sequence[str]:
        """The names of all streams that begin with `prefix`, oldest first."""
        with self._connected(create=False) as connection:
            if connection is None:
                return []
            return [name for (name,) in connection.execute(STREAMS, (prefix,))]

    def close(self) -> None:
        """Let go of the file. The next use opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    @staticmethod
    def _last(connection: sqlite3.Connection | None, stream: str) -> int:
        return int(connection.execute(LAST, (stream,)).fetchone()[0]) if connection is not None else 0

    @contextmanager
    def _connected(self, *, create: bool) -> Iterator[sqlite3.Connection | None]:
        with self._lock:
            try:
                if self._open is None and (create or self.path.exists()):
                    self._open = self._connect()
                yield self._open
            except sqlite3.Error as error:
                raise self._failed(error) from error
            except OSError as error:
                in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
                raise self._failure(
                    "its directory is a file" if in_the_way else str(error.strerror).lower(),
                    "make room or permission there, or name another 'path' of the store",
                ) from error

    def _connect(self) -> sqlite3.Connection:
        path = self.path
        if not path.exists():
            self._create(path)
        connection = self._session(path)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            [application] = connection.execute("PRAGMA application_id").fetchone()
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION:
                raise self._failure(
                    "it is not a journal", "name another 'path' of the store, or move this file aside"
                )
            if version != FORMAT:
                raise self._failure(
                    f"it has format {version} and this version knows {FORMAT}",
                    "use the version of failover that wrote it, or name another 'path' of the store",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _session(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._config.timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def _create(self, path: Path) -> None:
        """Make the file whole under another name first, so that nobody ever sees half of one."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            with closing(self._session(draft)) as connection:
                [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                if mode != "wal":
                    raise self._failure("this file system cannot share memory", "keep the journal on a local disk")
                connection.executescript(SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                return
        finally:
            draft.unlink()

    def _failed(self, error: sqlite3.Error) -> Failed:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._failure(
                f"another process has kept it locked for {duration(self._config.timeout)}",
                "find that process (fuser names it) and let it finish or stop it",
            )
        if self.path.is_dir():
            return self._failure("it is a directory", "name a file as the 'path' of the store")
        what, todo = TROUBLE.get(code, (f"SQLite says: {error}", "run it again; if it comes back, " + ASIDE))
        return self._failure(what, todo)

    def _failure(self, what: str, todo: str) -> Failed:
        return Failed(f"the journal cannot be used: {what}", where=str(self.path), next=todo)


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise Failed("this user has no home directory to keep the journal in", next="set XDG_STATE_HOME") from None
