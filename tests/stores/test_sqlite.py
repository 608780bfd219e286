import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failover.errors import Failed
from failover.stores.sqlite import SqliteConfig, SqliteStore, default_path
from failover.testing.stores import Open, SharedStoreContract
from tests.parts import missing

FILL = """
import json, resource, sys
from pathlib import Path
from failover.errors import Failed
from failover.stores.sqlite import SqliteConfig, SqliteStore

path, filler, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
store = SqliteStore(SqliteConfig(path=path))
store.append("run/1", 1, "first")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
else:
    filler.write_bytes(bytes(131072))
made, error = 1, ""
try:
    while made < 20000:
        store.append("run/1", made + 1, "x" * 1500)
        made += 1
except Failed as failed:
    error = str(failed)
try:
    store.append("run/1", made + 1, "x" * 1500)
    again = ""
except Failed as failed:
    again = str(failed)
kept = len(store.read("run/1"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
filler.unlink(missing_ok=True)
goes_on = store.append("run/1", made + 1, "goes on")
store.close()
after = SqliteStore(SqliteConfig(path=path))
events = after.read("run/1")
after.close()
print(json.dumps([made, error, again, kept, goes_on, len(events), events[-1]]))
"""

AS_NOBODY = """
import os, sys
from pathlib import Path
from failover.errors import Failed
from failover.stores.sqlite import SqliteConfig, SqliteStore

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
store = SqliteStore(SqliteConfig(path=Path(sys.argv[1])))
try:
    store.append("run/1", 2, "second")
except Failed as error:
    print(error)
"""


class TestSqliteStore(SharedStoreContract):
    provider = SqliteStore

    @pytest.fixture
    def config(self, tmp_path: Path) -> dict[str, Any]:
        return {"path": str(tmp_path / "state" / "journal.db")}

    def test_killed_again_and_again_it_loses_nothing(self, config: dict[str, Any], connect: Open) -> None:
        store, known = connect(), 0
        for turn in range(8):
            with self.start(config, "event", 1_000_000) as child:
                assert child.stdout is not None
                for _ in range(known + turn):
                    child.stdout.readline()
                child.kill()
                told = known + turn + sum(line.endswith("\n") for line in child.stdout)
            events = store.read("run/1")
            assert told <= len(events) <= max(known, told + 1)
            assert set(events) <= {"event"}
            known = len(events)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that any user can reach; pytest's own are private."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    place.chmod(0o755)
    shutil.rmtree(place)


def used(path: Path) -> SqliteStore:
    store = SqliteStore(SqliteConfig(path=path))
    assert store.append("run/1", 1, "first")
    store.close()
    return store


def refusal(path: Path) -> str:
    """What an append says there; reading must say something too, or find nothing."""
    store = SqliteStore(SqliteConfig(path=path))
    with pytest.raises(Failed) as caught:
        store.append("run/1", 2, "second")
    store.close()
    assert str(caught.value).startswith(f"{path}: the journal cannot be used: ")
    assert caught.value.next
    return caught.value.what.removeprefix("the journal cannot be used: ")


def child(code: str, *arguments: object, before: tuple[str, ...] = ()) -> str:
    argv = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def test_it_syncs_every_append(path: Path) -> None:
    store = SqliteStore(SqliteConfig(path=path))
    store.append("run/1", 1, "first")
    assert store._open is not None
    assert store._open.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._open.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_only_the_user_can_see_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "failover" / "journal.db"
    store = SqliteStore(SqliteConfig(path=path))
    store.append("run/1", 1, "first")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()} == {
        "journal.db": 0o600,
        "journal.db-wal": 0o600,
        "journal.db-shm": 0o600,
    }
    store.close()


def test_reading_makes_no_file(path: Path) -> None:
    store = SqliteStore(SqliteConfig(path=path))
    assert store.read("run/1") == []
    assert store.streams("") == []
    store.close()
    assert list(path.parent.iterdir()) == []


def test_after_closing_it_is_one_file_and_opens_again(path: Path) -> None:
    store = used(path)
    assert [item.name for item in path.parent.iterdir()] == ["journal.db"]
    assert store.append("run/1", 2, "second")
    store.close()


def test_its_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_path() == tmp_path / ".local/state/failover/journal.db"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert default_path() == tmp_path / ".local/state/failover/journal.db"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_path() == tmp_path / "state/failover/journal.db"
    assert SqliteStore(SqliteConfig()).path == default_path()
    assert SqliteStore(SqliteConfig(path=Path("~/j.db"))).path == tmp_path / "j.db"


def test_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(Failed, match="no home directory"):
        SqliteStore(SqliteConfig()).append("run/1", 1, "first")


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir()
    assert refusal(path) == "it is a directory"


def test_a_file_in_the_place_of_its_directory(path: Path) -> None:
    path.write_text("here")
    assert refusal(path / "journal.db") == "its directory is a file"


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at " * 100, b"\x00" * 8192])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refusal(path) == "it is not a journal, or it is damaged"
    assert path.read_bytes() == content


def test_an_empty_file(path: Path) -> None:
    path.touch()
    assert refusal(path) == "it is not a journal"
    assert path.stat().st_size == 0


def test_a_database_of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id TEXT)")
    connection.close()
    assert refusal(path) == "it is not a journal"


def test_a_journal_of_a_later_version(path: Path) -> None:
    used(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert refusal(path) == "it has format 7 and this version knows 1"


def test_a_damaged_page(path: Path) -> None:
    used(path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    assert refusal(path) == "it is damaged"


def test_another_process_that_never_lets_go(path: Path) -> None:
    used(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store = SqliteStore(SqliteConfig.model_validate({"path": path, "timeout": "50ms"}))
    with pytest.raises(Failed, match=r"another process has kept it locked for 0\.05 s"):
        store.append("run/1", 2, "second")
    assert store.read("run/1") == ["first"]
    holder.execute("ROLLBACK")
    holder.close()
    assert store.append("run/1", 2, "second")
    store.close()


def test_a_directory_that_cannot_be_written(open_place: Path) -> None:
    open_place.chmod(0o555)
    assert "permission denied" in child(AS_NOBODY, open_place / "state" / "journal.db")
    assert list(open_place.iterdir()) == []


def test_a_journal_that_cannot_be_written(open_place: Path) -> None:
    path = open_place / "journal.db"
    used(path)
    path.chmod(0o444)
    open_place.chmod(0o555)
    said = child(AS_NOBODY, path)
    assert "it cannot be" in said
    assert "make the file and its directory writable to this user" in said


def test_a_journal_of_another_user(open_place: Path) -> None:
    path = open_place / "journal.db"
    used(path)
    path.chmod(0)
    assert "it cannot be opened" in child(AS_NOBODY, path)


def whole_after_fault(said: str) -> str:
    """That what was told is what is there, through the fault and after it. The error that was given."""
    made, error, again, kept, goes_on, events, last = json.loads(said)
    assert 1 < made == kept
    assert (goes_on, events, last) == (True, made + 1, "goes on")
    assert again == error
    return str(error)


@pytest.mark.parametrize("size", ["1m", "9m"])
def test_a_full_disk(tmp_path: Path, size: str) -> None:
    mounted = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c")
    script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    if subprocess.run([*mounted, script, tmp_path, "true"], capture_output=True, check=False).returncode:
        missing("a small file system cannot be mounted here")
    path = tmp_path / "journal.db"
    said = child(FILL, path, tmp_path / "filler", 0, before=(*mounted, script, str(tmp_path)))
    assert whole_after_fault(said).startswith(f"{path}: the journal cannot be used: the disk is full\n  next: free")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more(path: Path) -> None:
    said = child(FILL, path, path.with_name("filler"), 400_000)
    assert "the journal cannot be used: the disk reported an error" in whole_after_fault(said)
