import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from failover.lab import install
from failover.probes.postgres import PostgresProbe
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome, Verdict
from tests.probes.servers import black_hole, free_port, serving, silent

PASSWORD = "canary-of-postgres-71"  # noqa: S105 - a canary that must show up nowhere
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
wal_retrieve_retry_interval = 100ms
"""
ACCESS = """
host all         probe   127.0.0.1/32 scram-sha-256
host all         admin   127.0.0.1/32 trust
host replication admin   127.0.0.1/32 trust
"""


@dataclass(frozen=True)
class Pair:
    """Two real servers, the second a replica of the first, by their ports."""

    primary: int
    replica: int

    @property
    def source(self) -> str:
        return f"host=127.0.0.1 port={self.primary} user=admin"

    def tell(self, port: int, *statements: str) -> Any:
        """Carry out `statements` as the superuser; the first value of the last one's answer."""
        with psycopg.connect(host="127.0.0.1", port=port, user="admin", dbname="postgres", autocommit=True) as link:
            for statement in statements:
                cursor = link.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def stream(self) -> None:
        """Return as soon as the replica receives what the primary writes, and has replayed something."""
        self.tell(self.primary, "INSERT INTO t VALUES (0)")
        streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        deadline = time.monotonic() + 30
        while not (
            self.tell(self.primary, streams) and self.tell(self.replica, "SELECT pg_last_xact_replay_timestamp()")
        ):
            assert time.monotonic() < deadline, "the replica does not stream"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(dir="/tmp"))
        stack.callback(shutil.rmtree, home)
        install.hand_over(home)
        via, binaries = install.via(), install.packaged()
        if not install.runnable(binaries, via):
            binaries = install.copy(binaries, home / "programs")
            home.chmod(0o755)

        def run(program: str, *arguments: object) -> None:
            argv = [*via, str(binaries / program), *map(str, arguments)]
            done = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        def start(data: Path, port: int) -> None:
            run("pg_ctl", "start", "-w", "-D", data, "-l", f"{data}.log", "-o", f"-p {port}")
            stack.callback(run, "pg_ctl", "stop", "-m", "immediate", "-D", data)

        one, two = home / "one", home / "two"
        pair = Pair(free_port(), free_port())
        run("initdb", "--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8", "-U", "admin", "-D", one)
        with (one / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        (one / "pg_hba.conf").write_text(ACCESS)
        start(one, pair.primary)
        pair.tell(pair.primary, f"CREATE ROLE probe LOGIN PASSWORD '{PASSWORD}'", "CREATE TABLE t (n int)")
        run("pg_basebackup", "-d", pair.source, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D", two)
        start(two, pair.replica)
        pair.stream()
        yield pair


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_PASSWORD", PASSWORD)


def config(port: int, **more: Any) -> dict[str, Any]:
    login = {"user": "probe", "password": {"env": "PROBE_PASSWORD"}}
    return {"host": "127.0.0.1", "port": port, **login, "timeout": "5s", **more}


def said(verdict: Verdict) -> str:
    [line] = verdict.evidence
    assert PASSWORD not in line
    return line.split(": ", 1)[1].rsplit(" (", 1)[0]


def soon(outcome: Outcome, settings: dict[str, Any]) -> str:
    """What the probe says as soon as its verdict is `outcome`."""
    deadline = time.monotonic() + 30
    while (verdict := see(PostgresProbe, settings)).outcome is not outcome:
        assert time.monotonic() < deadline, str(verdict)
        time.sleep(0.05)
    return said(verdict)


class TestPostgresProbe(ProbeContract):
    provider = PostgresProbe

    @pytest.fixture
    def good(self, pair: Pair) -> dict[str, Any]:
        return config(pair.primary, expect="primary")

    @pytest.fixture
    def bad(self, pair: Pair) -> dict[str, Any]:
        return config(pair.replica, expect="primary")

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with serving(silent) as port:
            yield config(port, timeout="500ms")


def test_its_evidence_names_what_was_asked(pair: Pair) -> None:
    [line] = see(PostgresProbe, config(pair.primary)).evidence
    assert line.startswith(f"PostgreSQL 127.0.0.1:{pair.primary}/postgres as probe: it is a primary (")


def test_a_replica_that_keeps_up_passes(pair: Pair) -> None:
    assert see(PostgresProbe, config(pair.replica, expect="replica")).passed
    assert see(PostgresProbe, config(pair.primary, expect="primary", max_lag="1s")).passed
    pair.tell(pair.primary, "INSERT INTO t VALUES (1)")
    assert "behind, at most 10 s wanted" in soon(Outcome.PASS, config(pair.replica, max_lag="10s"))


def test_another_role_fails(pair: Pair) -> None:
    verdict = see(PostgresProbe, config(pair.primary, expect="replica"))
    assert (verdict.outcome, said(verdict)) == (Outcome.FAIL, "it is a primary, expected a replica")


def test_a_replica_that_falls_behind_fails(pair: Pair) -> None:
    pair.tell(pair.replica, "SELECT pg_wal_replay_pause()")
    try:
        pair.tell(pair.primary, "INSERT INTO t VALUES (2)")
        assert soon(Outcome.FAIL, config(pair.replica, max_lag="50ms")).endswith("behind, at most 0.05 s wanted")
    finally:
        pair.tell(pair.replica, "SELECT pg_wal_replay_resume()")


def test_a_replica_that_receives_nothing_is_unknown(pair: Pair) -> None:
    pair.tell(pair.primary, "INSERT INTO t VALUES (1)")
    pair.tell(pair.replica, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
    try:
        expected = "it is a replica that receives nothing, so nobody can tell how far behind it is"
        assert soon(Outcome.UNKNOWN, config(pair.replica, max_lag="50ms")) == expected
    finally:
        pair.tell(pair.replica, f"ALTER SYSTEM SET primary_conninfo = '{pair.source}'", "SELECT pg_reload_conf()")
        pair.stream()


def test_a_wrong_password_is_unknown_and_not_shown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_PASSWORD", PASSWORD + "-wrong")
    verdict = see(PostgresProbe, config(pair.primary))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "it does not let us look: " in said(verdict)
    assert "password authentication failed" in said(verdict)


@pytest.mark.parametrize("more", [{"user": "stranger"}, {"password": None}])
def test_whoever_is_not_let_in_sees_nothing(pair: Pair, more: dict[str, Any]) -> None:
    verdict = see(PostgresProbe, config(pair.primary, **more))
    assert (verdict.outcome, said(verdict).split(":")[0]) == (Outcome.UNKNOWN, "it does not let us look")


def test_a_database_that_is_not_there_fails(pair: Pair) -> None:
    verdict = see(PostgresProbe, config(pair.primary, database="nowhere"))
    assert verdict.outcome is Outcome.FAIL
    assert 'database "nowhere" does not exist' in said(verdict)


def test_too_many_clients_fail(pair: Pair) -> None:
    pair.tell(pair.primary, "ALTER ROLE probe CONNECTION LIMIT 0")
    try:
        verdict = see(PostgresProbe, config(pair.primary))
    finally:
        pair.tell(pair.primary, "ALTER ROLE probe CONNECTION LIMIT -1")
    assert verdict.outcome is Outcome.FAIL
    assert "too many connections" in said(verdict)


def test_tls_that_is_not_offered_is_no_pass(pair: Pair) -> None:
    assert not see(PostgresProbe, config(pair.primary, sslmode="require")).passed


def test_a_refused_connection_fails() -> None:
    verdict = see(PostgresProbe, config(free_port()))
    assert verdict.outcome is Outcome.FAIL
    assert "refused" in said(verdict)


def test_a_black_hole_is_unknown() -> None:
    with black_hole() as port:
        verdict = see(PostgresProbe, config(port, timeout="300ms"))
    assert (verdict.outcome, said(verdict)) == (Outcome.UNKNOWN, "no answer within 0.30 s")


def test_a_server_that_drips_is_unknown_in_time() -> None:
    def handler(connection: Any, over: Any) -> None:
        connection.recv(8)
        connection.sendall(b"N")
        connection.recv(4096)
        connection.sendall(b"R\x00\x00\x7f\xff")
        while not over.wait(0.1):
            connection.sendall(b"x")

    with serving(handler) as port:
        begun = time.monotonic()
        assert see(PostgresProbe, config(port, timeout="500ms")).outcome is Outcome.UNKNOWN
        assert time.monotonic() - begun < 3


def test_what_is_not_postgresql_is_no_pass() -> None:
    with serving(lambda connection, _: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert not see(PostgresProbe, config(port)).passed


def test_a_name_that_cannot_be_resolved_is_unknown() -> None:
    assert see(PostgresProbe, config(5432, host="db.invalid")).outcome is Outcome.UNKNOWN


def test_a_secret_that_is_not_set_is_unknown_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBE_PASSWORD")
    verdict = see(PostgresProbe, config(free_port()))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "the environment variable PROBE_PASSWORD is not set" in said(verdict)


def test_a_stopped_server_is_unknown_in_time(pair: Pair) -> None:
    """Stopped as a process is stopped: it accepts, by its kernel, and says nothing."""
    pid = int(pair.tell(pair.replica, "SELECT pg_read_file('postmaster.pid')").split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        verdict = see(PostgresProbe, config(pair.replica, timeout="500ms"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (verdict.outcome, said(verdict)) == (Outcome.UNKNOWN, "no answer within 0.50 s")
