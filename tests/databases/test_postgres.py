"""PostgreSQL, on real servers: the contract of every database, and what goes wrong with real ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from failover.databases import _postgres_rejoin as hands
from failover.databases._postgres_view import fork, parse_history
from failover.databases.postgres import Postgres, PostgresConfig
from failover.errors import Failed, Refused
from failover.testing.databases import DatabaseContract
from failover.world import MemberChange, Role
from tests.databases.cluster import Cluster, Writer, cluster, until


def change(region: str, before: Role, after: Role, primary: str = "") -> MemberChange:
    return MemberChange("orders", region, before, after, "a test", primary)


def switch_over(database: Postgres, source: str, target: str) -> None:
    database.write(change(source, Role.PRIMARY, Role.FENCED))
    verdict = database.caught_up(source, target, 10)
    assert verdict.passed, verdict
    database.write(change(target, Role.REPLICA, Role.PRIMARY, target))


def lose_primary(servers: Cluster, orders: int) -> None:
    """East has `orders` that west never got, and dies without notice."""
    nowhere = servers.sql("west", "SHOW primary_conninfo").replace(f"port={servers.ports['east']}", "port=1")
    with servers.connect("west") as west:
        west.execute(sql.SQL("ALTER SYSTEM SET primary_conninfo = {}").format(sql.Literal(nowhere)))
    servers.sql("west", "SELECT pg_reload_conf()")
    until(lambda: not servers.streams("west"))
    for number in range(orders):
        servers.sql("east", "INSERT INTO orders (id) VALUES (%s)", 1000 + number)
    servers.kill("east")


class TestContract(DatabaseContract):
    @pytest.fixture(autouse=True)
    def _servers(self, servers: Cluster) -> None:
        self.servers = servers
        self.it = servers.database()

    def database(self) -> Postgres:
        return self.it

    def commit(self, order: int) -> str:
        for region in self.servers.regions:
            try:
                self.servers.sql(region, "INSERT INTO orders (id) VALUES (%s)", order)
            except psycopg.Error:
                continue
            return region
        return ""

    def orders(self, region: str) -> set[int]:
        return self.servers.orders(region)

    def hide(self, region: str) -> None:
        # Its host goes with it: where that answers, the member is known to be stopped.
        del self.it._estate.hosts[region]
        self.servers.stop(region, "immediate")

    def diverge(self) -> set[int]:
        lose_primary(self.servers, 3)
        self.servers.sql("west", "SELECT pg_promote()")
        self.servers.start("east")
        return {1000, 1001, 1002}


def test_a_switchover_under_a_writing_client_loses_nothing(both: Cluster) -> None:
    database = both.database()
    with Writer(both) as client:
        for source, target in (("east", "west"), ("west", "east")):
            switch_over(database, source, target)
            found = database.read()
            assert (found[source].role, found[source].lost) == (Role.FENCED, 0)
            written = len(client.acknowledged)
            until(lambda written=written: len(client.acknowledged) > written + 20)
            database.write(change(source, Role.FENCED, Role.REPLICA, target))
    acknowledged = {number for number, _ in client.acknowledged}
    assert acknowledged <= both.orders("east")
    until(lambda: acknowledged <= both.orders("west"))
    assert both.sql("west", "SHOW default_transaction_read_only") == "off"
    assert both.sql("west", "SHOW synchronous_standby_names") == ""
    assert not (both.home / "west.failover").exists()


def test_a_failover_counts_exactly_what_is_lost_and_the_rejoin_rewinds_it(both: Cluster) -> None:
    database = both.database()
    lose_primary(both, 5)
    found = database.read()
    assert found["east"].role is Role.STOPPED
    assert "in production" in found["east"].detail
    assert database.can_fence("east")
    database.write(change("east", Role.STOPPED, Role.FENCED))
    assert both.data("east").joinpath("standby.signal").exists()
    fenced = database.read()["east"]
    assert (fenced.role, fenced.position) == (Role.FENCED, None)
    database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
    assert database.read()["east"].lost == 5
    both.sql("west", "INSERT INTO orders (id) VALUES (1)")
    database.write(change("east", Role.FENCED, Role.REPLICA, "west"))
    assert database.read()["east"].streaming
    until(lambda: both.orders("east") == {1})


def test_a_dead_primary_that_comes_back_as_a_standby_is_diverged(servers: Cluster) -> None:
    database = servers.database()
    lose_primary(servers, 2)
    database.write(change("east", Role.STOPPED, Role.FENCED))
    database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
    servers.start("east")
    found = database.read()["east"]
    assert (found.role, found.lost) == (Role.DIVERGED, 2)
    assert "past" in found.detail
    database.write(change("east", Role.DIVERGED, Role.REPLICA, "west"))
    assert database.read()["east"].streaming


def test_a_client_that_overrides_the_read_only_default_is_not_acknowledged(servers: Cluster) -> None:
    database = servers.database()
    script = (
        "import psycopg, sys\n"
        "with psycopg.connect(sys.argv[1], autocommit=True) as connection:\n"
        "    connection.execute('SET default_transaction_read_only = off')\n"
        "    print('writing', flush=True)\n"
        "    connection.execute('INSERT INTO orders (id) VALUES (7)')\n"
        "    print('acknowledged', flush=True)\n"
    )
    database.write(change("east", Role.PRIMARY, Role.FENCED))
    where = f"host=127.0.0.1 port={servers.ports['east']} user=failover dbname=postgres"
    with subprocess.Popen(
        [sys.executable, "-c", script, where],
        env={**os.environ, "PGPASSWORD": servers.secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "writing\n"
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        until(lambda: servers.sql("east", waits) == 1)
        verdict = database.caught_up("east", "west", 5)
        assert verdict.passed, verdict
        database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
        database.write(change("east", Role.FENCED, Role.REPLICA, "west"))
        assert client.stdout.read() == ""
    assert client.returncode != 0


def test_commits_after_the_last_position_are_counted_as_lost(servers: Cluster) -> None:
    database = servers.database()
    switch_over(database, "east", "west")
    with servers.connect("east") as stubborn:
        stubborn.execute("SET default_transaction_read_only = off")
        stubborn.execute("SET synchronous_commit = local")
        stubborn.execute("INSERT INTO orders (id) VALUES (8)")
        stubborn.execute("INSERT INTO orders (id) VALUES (9)")
    assert database.read()["east"].lost == 2


def test_asynchronous_commits_before_the_fence_reach_the_new_primary(servers: Cluster) -> None:
    database = servers.database()
    with servers.connect("east", options="-c synchronous_commit=off") as hasty:
        for number in range(50):
            hasty.execute("INSERT INTO orders (id) VALUES (%s)", (number,))
        switch_over(database, "east", "west")
    assert servers.orders("west") == set(range(50))


def test_the_fence_keeps_the_synchronous_standbys_for_later(servers: Cluster) -> None:
    database = servers.database()
    servers.sql("east", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"west\", north)'")
    servers.sql("east", "SELECT pg_reload_conf()")
    database.write(change("east", Role.PRIMARY, Role.FENCED))
    assert "failover fence" in servers.sql("east", "SHOW synchronous_standby_names")
    database.write(change("east", Role.FENCED, Role.PRIMARY))
    assert servers.sql("east", "SHOW synchronous_standby_names") == 'ANY 1 ("west", north)'


def test_a_stopped_replica_is_stopped_and_comes_back(servers: Cluster) -> None:
    database = servers.database()
    servers.stop("west")
    found = database.read()["west"]
    assert found.role is Role.STOPPED
    assert "shut down in recovery" in found.detail
    database.write(change("west", Role.STOPPED, Role.REPLICA, "east"))
    assert database.read()["west"].streaming
    servers.kill("west")
    assert database.read()["west"].role is Role.STOPPED
    database.write(change("west", Role.STOPPED, Role.REPLICA, "east"))
    assert database.read()["west"].streaming


def test_a_third_member_is_pointed_at_the_new_primary() -> None:
    with cluster(16, ("east", "west", "north")) as servers:
        database = servers.database()
        switch_over(database, "east", "west")
        north = database.read()["north"]
        assert (north.role, north.streaming) == (Role.REPLICA, False)
        database.write(change("north", Role.REPLICA, Role.REPLICA, "west"))
        assert database.read()["north"].streaming
        assert "application_name=north" in servers.sql("north", "SHOW primary_conninfo")


def test_a_wrong_password_and_a_hanging_server_are_unknown_with_the_reason(servers: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("canary-of-the-wrong-kind\n")
    database = servers.database(top={"password": {"file": str(wrong)}})
    found = database.read()["east"]
    assert found.role is Role.UNKNOWN
    assert 'password authentication failed for user "failover"' in found.detail
    assert "canary" not in str(database.read())
    servers.stop("east", "immediate")
    assert "refused" in servers.database(east={"data": "", "bin": "", "via": None}).read()["east"].detail
    servers.start("east")
    with pytest.raises(Refused, match="unknown"):
        database.write(change("east", Role.PRIMARY, Role.FENCED))

    database = servers.database(top={"timeout": "1s"})
    database.read()
    stopped = servers._processes("east")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    found = database.read()["east"]
    assert found.role is Role.UNKNOWN
    assert time.monotonic() - began < 4
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    until(lambda: database.read()["east"].role is Role.PRIMARY)


def test_only_a_fencing_command_that_succeeds_proves_anything(servers: Cluster, tmp_path: Path) -> None:
    blind = {"data": "", "bin": "", "via": None}
    secret = f"echo the switch says {servers.secret} >&2; exit 3"
    database = servers.database(east={**blind, "fence": ["sh", "-c", secret]})
    servers.kill("east")
    with pytest.raises(Failed, match=r"ended with 3: the switch says \[secret\]"):
        database.write(change("east", Role.UNKNOWN, Role.FENCED))
    assert database.read()["east"].role is Role.UNKNOWN

    database = servers.database(east={**blind, "fence": ["sh", "-c", f"touch {tmp_path}/off"]})
    assert database.can_fence("east")
    database.write(change("east", Role.UNKNOWN, Role.FENCED))
    assert (tmp_path / "off").exists()
    assert database.read()["east"].role is Role.FENCED
    servers.start("east")
    assert database.read()["east"].role is Role.PRIMARY

    database = servers.database(east=blind)
    assert not database.can_fence("east")
    servers.kill("east")
    with pytest.raises(Failed, match="nothing proves it off"):
        database.write(change("east", Role.UNKNOWN, Role.FENCED))


def test_a_server_that_cannot_be_asked_is_turned_off_on_its_host(servers: Cluster) -> None:
    database = servers.database(east={"port": 1})
    assert database.read()["east"].role is Role.UNKNOWN
    database.write(change("east", Role.UNKNOWN, Role.FENCED))
    assert not servers._processes("east")
    assert database.read()["east"].role is Role.FENCED


def test_a_rewind_that_was_killed_half_way_is_completed_by_the_next_one(
    servers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = servers.database()
    lose_primary(servers, 3)
    database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
    servers.sql("west", "INSERT INTO orders (id) VALUES (1)")
    with monkeypatch.context() as patch:
        # What a killed pg_rewind leaves: the other's WAL and settings, and the old control file.
        other = servers.data("west")
        half = (
            'rm "$data"/pg_wal/0*'
            f'; cp -p {other}/pg_wal/0* "$data/pg_wal/"; cp {other}/postgresql.conf "$data/"; kill -KILL $$\n'
        )
        patch.setattr(hands, "_REWIND", hands._REWIND.replace("rewind || exit 71", half))
        with pytest.raises(Failed):
            database.write(change("east", Role.STOPPED, Role.REPLICA, "west"))
    role = database.read()["east"].role
    database.write(change("east", role, Role.REPLICA, "west"))
    assert database.read()["east"].streaming
    assert servers.sql("east", "SHOW port") == str(servers.ports["east"])
    until(lambda: servers.orders("east") == {1})


def test_a_rejoin_without_access_to_the_host_says_how_to_do_it_by_hand(servers: Cluster) -> None:
    database = servers.database(east={"data": "", "bin": "", "via": None})
    switch_over(database, "east", "west")
    with pytest.raises(Failed) as raised:
        database.write(change("east", Role.FENCED, Role.REPLICA, "west"))
    assert "pg_rewind --target-pgdata" in raised.value.next
    assert servers.secret not in str(raised.value)


def test_a_replica_that_cannot_catch_up_is_told_by_how_much(servers: Cluster) -> None:
    database = servers.database()
    servers.sql("east", "INSERT INTO orders (id) VALUES (0)")
    until(lambda: servers.orders("west") == {0})
    servers.sql("west", "SELECT pg_wal_replay_pause()")
    servers.sql("east", "INSERT INTO orders SELECT generate_series(1, 100)")
    database.write(change("east", Role.PRIMARY, Role.FENCED))
    verdict = database.caught_up("east", "west", 0.2)
    assert not verdict.passed
    assert "bytes behind east after 0.2 s" in verdict.evidence[0]
    database.write(change("east", Role.FENCED, Role.PRIMARY))
    assert database.read()["west"].lag is not None


def test_settings_lose_the_fence_and_gain_the_primary() -> None:
    before = (
        "# written by ALTER SYSTEM\nwork_mem = '8MB'\ndefault_transaction_read_only = 'on'\n"
        'synchronous_standby_names = \'"failover fence; restore ANY 1 (""west"")"\'\n'
        "primary_conninfo = 'host=old port=1'\n"
    )
    following = hands.conninfo(
        "host=old hostaddr=192.0.2.1 user=replicator passfile='/a b' application_name=east",
        {"host": "new", "port": 5433, "user": "failover"},
    )
    assert hands.rejoined(before, following) == (
        "# written by ALTER SYSTEM\nwork_mem = '8MB'\nsynchronous_standby_names = 'ANY 1 (\"west\")'\n"
        "primary_conninfo = 'user=replicator passfile=''/a b'' host=new application_name=east port=5433'\n"
    )


def test_histories_part_where_the_older_one_was_left() -> None:
    first, second = parse_history(1, ""), parse_history(2, "1\t0/3000060\tno recovery target specified\n")
    assert fork(first, second) == (1, 0x3000060)
    third = parse_history(3, "1\t0/3000060\tx\n\n2\t1/5000000\ty\n")
    assert fork(second, third) == (2, 0x105000000)
    other = parse_history(2, "1\t0/2000000\tx\n")
    assert fork(other, third) == (2, 0x105000000)


def test_a_config_is_checked_beyond_its_model() -> None:
    config = PostgresConfig.model_validate(
        {"user": "failover", "members": {"east": {"host": "a", "data": "/data"}, "nowhere": {"host": "b"}}}
    )
    assert list(Postgres.mistakes(config, ("east", "west"))) == [
        (("members", "east"), "'data', 'bin' and 'via' belong together: they give access to the member's host"),
        (("members", "nowhere"), "region 'nowhere' is not declared; known: east, west"),
    ]
    with pytest.raises(ValueError, match="a secret never stands in a file"):
        PostgresConfig.model_validate({"user": "failover", "password": "hunter2", "members": {}})
