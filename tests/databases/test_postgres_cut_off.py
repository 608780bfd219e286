"""What is left of a change that was killed: nothing that comes up as a primary, and nothing for good."""

import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from failover.databases import _postgres_fence as fence
from failover.databases import _postgres_rejoin as hands
from failover.databases._postgres_host import BAR, Host
from failover.databases._postgres_link import Session
from failover.databases.postgres import Postgres
from failover.errors import Conflict, Failed
from failover.world import Role
from tests.databases.cluster import Cluster, cluster, until
from tests.databases.test_postgres import change, lose_primary

LINES = (
    ': >"$keep/ready"',
    "bar || exit",
    'mv "$data/failover.tmp"',
    'durable "$data"/*.conf',
    "unbar || exit\n",
    '"$bin/pg_ctl" start -D "$data" -w -t __SECONDS__ -l "$data/startup.log" 9>&-',
)
"""Of the scripts, where they are killed."""
MOMENTS = ("first", "signal", "last")
"""Of pg_rewind: before it does anything, when standby.signal has just gone, and when all is done."""
REWIND = """#!/bin/sh
case "$*" in *--dry-run*) exec {bin}/pg_rewind "$@" ;; esac
case $(cat {moment}) in
  first) ;;
  signal)
    {bin}/pg_rewind "$@" & rewind=$!
    while test -e {data}/standby.signal && kill -0 $rewind; do :; done
    kill -KILL $rewind ;;
  last) {bin}/pg_rewind "$@" ;;
  *) exec {bin}/pg_rewind "$@" ;;
esac
kill -KILL $PPID
"""


class Stage:
    """East died with orders of its own and west is the primary; east can be put back to that moment."""

    def __init__(self, servers: Cluster) -> None:
        self.servers = servers
        self.moment = servers.home / "moment"
        self.moment.write_text("")
        self.moment.chmod(0o644)
        programs = servers.home / "wrapped"
        programs.mkdir()
        for program in servers.bin.iterdir():
            (programs / program.name).symlink_to(program)
        wrapper = programs / "pg_rewind"
        wrapper.unlink()
        wrapper.write_text(REWIND.format(bin=servers.bin, moment=self.moment, data=servers.data("east")))
        wrapper.chmod(0o755)
        self.database = servers.database(east={"bin": str(programs)})
        lose_primary(servers, 3)
        servers._forget("east")
        self.database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
        servers.sql("west", "INSERT INTO orders (id) SELECT generate_series(1, 30)")
        self._copy(servers.data("east"), servers.home / "kept")

    def again(self) -> None:
        if self.servers._processes("east"):
            self.servers.stop("east")
        shutil.rmtree(self.servers.data("east"))
        shutil.rmtree(f"{self.servers.data('east')}.failover", ignore_errors=True)
        self._copy(self.servers.home / "kept", self.servers.data("east"))

    def rejoin(self) -> None:
        role = self.database.read()["east"].role
        self.database.write(change("east", role, Role.REPLICA, "west"))

    def started_by_somebody(self) -> str:
        """What comes up where somebody starts the server now: "nothing", "standby" or "primary"."""
        data, port = self.servers.data("east"), self.servers.ports["east"]
        # The port is given because a rewind brings the source's own, which would hide a primary here.
        log = self.servers.home / "by-hand.log"
        self.servers.run(
            "pg_ctl", "start", "-D", str(data), "-l", str(log), "-t", "10", "-o", f"-p {port}", check=False
        )
        try:
            found = "standby" if self.servers.sql("east", "SELECT pg_is_in_recovery()") else "primary"
        except psycopg.OperationalError:
            found = "nothing"
        if self.servers._processes("east"):
            self.servers.stop("east", "immediate")
        return found

    def _copy(self, source: Path, target: Path) -> None:
        subprocess.run([*self.servers.via, "cp", "-a", source, target], cwd="/", check=True)


@pytest.mark.parametrize(("version", "moments"), [(16, (*LINES, *MOMENTS)), (18, MOMENTS)], ids=["16", "18"])
def test_nobody_gets_a_second_primary_from_a_rejoin_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, version: int, moments: tuple[str, ...]
) -> None:
    with cluster(version) as servers:
        stage = Stage(servers)
        for moment in moments:
            killed_and_started(stage, moment, monkeypatch)


def killed_and_started(stage: Stage, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a rejoin, have somebody start the server, and rejoin."""
    servers = stage.servers
    stage.again()
    with monkeypatch.context() as patch:
        stage.moment.write_text(moment if moment not in LINES else "")
        for name in ("_REWIND", "_SETTINGS", "_START"):
            text = getattr(hands, name)
            patch.setattr(hands, name, text.replace(moment, "{ kill -KILL $$; } ; " + moment))
        with pytest.raises(Failed):
            stage.rejoin()
    stage.moment.write_text("")
    signal = servers.data("east") / "standby.signal"
    assert moment not in ("signal", "last") or not signal.exists(), "pg_rewind had removed it"
    found = stage.started_by_somebody()
    assert found in ("nothing", "standby"), f"killed at '{moment}'"
    if not signal.exists():
        assert found == "nothing"
        assert BAR in (servers.home / "by-hand.log").read_text()
        seen = stage.database.read()["east"]
        assert (seen.role, "cannot be started before" in seen.detail) == (Role.FENCED, True)
    stage.rejoin()
    assert stage.database.read()["east"].streaming, moment
    until(lambda: servers.orders("east") == set(range(1, 31)))
    version = servers.data("east") / "PG_VERSION"
    assert version.read_text() == (servers.data("east") / "base/1/PG_VERSION").read_text()


def test_a_half_rewound_member_can_be_fenced_and_is_not_unbarred_for_another_history(servers: Cluster) -> None:
    stage = Stage(servers)
    stage.moment.write_text("signal")
    with pytest.raises(Failed):
        stage.rejoin()
    host = stage.database._estate.hosts["east"]
    look = hands.turn_off(host, 10)
    assert look.barred
    assert look.fenced
    source = hands.Source("west", stage.database._estate.options("west"), "", look.timeline, "")
    with pytest.raises(Failed, match="does not have that history") as raised:
        hands.rejoin(host, source, stage.database.clock, 10)
    assert "rebuild it" in raised.value.next
    assert stage.started_by_somebody() == "nothing"


def test_a_host_that_takes_too_long_says_what_to_do(servers: Cluster) -> None:
    host = Host("database orders/east", str(servers.data("east")), str(servers.bin), servers.via)
    with pytest.raises(Failed, match=r"its host did not finish within 0\.30 s") as raised:
        host.run("sleep 60", 0.3)
    assert "raise 'within'" in raised.value.next


class Killed(BaseException):
    """Ends everything on the spot, as SIGKILL would."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, database: Postgres, before: Role, after: Role) -> None:
    """Make the change, and be killed before the ALTER SYSTEM with that number, or after the last one."""
    alter, count = fence._alter, 0

    def counting(session: Session, name: str, value: str | None) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        alter(session, name, value)
        if count == 2 and number == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fence, "_alter", counting)
        with pytest.raises(Killed):
            database.write(change("east", before, after))


def test_a_fence_that_was_killed_half_way_is_seen_and_both_ways_out_converge(
    servers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = servers.database()
    servers.sql("east", "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (*)'")
    servers.sql("east", "SELECT pg_reload_conf()")
    until(lambda: servers.sql("east", "SHOW synchronous_standby_names") == "FIRST 1 (*)")

    def whole() -> None:
        until(lambda: database.read()["east"].role is Role.PRIMARY)
        assert not database.read()["east"].detail
        servers.sql("east", "SELECT pg_reload_conf()")
        assert servers.sql("east", "SHOW synchronous_standby_names") == "FIRST 1 (*)"
        assert servers.sql("east", "SHOW default_transaction_read_only") == "off"
        servers.sql("east", "INSERT INTO orders SELECT coalesce(max(id), 0) + 1 FROM orders")

    for number in (2, 3):
        killed_at(monkeypatch, number, database, Role.PRIMARY, Role.FENCED)
        found = database.read()["east"]
        assert found.role is Role.PRIMARY
        assert "the next reload of its settings" in found.detail
        assert "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (*)'" in found.detail
        database.write(change("east", Role.FENCED, Role.PRIMARY))
        whole()
        with pytest.raises(Conflict):
            database.write(change("east", Role.FENCED, Role.PRIMARY))

        killed_at(monkeypatch, number, database, Role.PRIMARY, Role.FENCED)
        if number == 2:
            servers.sql("east", "SELECT pg_reload_conf()")
            until(lambda: "acknowledges no commits" in database.read()["east"].detail)
        database.write(change("east", Role.PRIMARY, Role.FENCED))
        assert database.read()["east"].role is Role.FENCED
        database.write(change("east", Role.FENCED, Role.PRIMARY))
        whole()


def test_an_unfence_that_was_killed_half_way_lets_nothing_be_acknowledged(
    servers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = servers.database()
    database.write(change("east", Role.PRIMARY, Role.FENCED))
    killed_at(monkeypatch, 2, database, Role.FENCED, Role.PRIMARY)
    assert "failover fence" in servers.sql("east", "SHOW synchronous_standby_names")
    until(lambda: "acknowledges no commits" in database.read()["east"].detail)
    database.write(change("east", Role.FENCED, Role.PRIMARY))
    servers.sql("east", "INSERT INTO orders (id) VALUES (1)")
