"""A server that says no, or that we could not ask, is not a dead one; a replica says why its lag is not known."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from failover.clock import SYSTEM
from failover.databases import _postgres_hail as hail
from failover.databases.postgres import Postgres
from failover.errors import Refused
from failover.world import Role
from tests.databases.cluster import HOST, Cluster, free_port, until
from tests.databases.test_postgres import change


def never_fenced(servers: Cluster, database: Postgres, device: Path, reason: str) -> None:
    """East reads as unknown with `reason`, and neither its fencing command nor its host turns it off."""
    found = database.read()["east"]
    assert found.role is Role.UNKNOWN
    assert reason in found.detail
    with pytest.raises(Refused, match="our own mistake") as raised:
        database.write(change("east", Role.UNKNOWN, Role.FENCED))
    assert reason in raised.value.what
    assert "canary" not in str(raised.value)
    assert not device.exists()
    assert servers._processes("east")
    assert not (servers.data("east") / "standby.signal").exists()


@pytest.mark.parametrize("fenced_by", ["device", "host"])
def test_our_own_mistake_never_leads_to_a_fence(servers: Cluster, tmp_path: Path, fenced_by: str) -> None:
    wrong, device = tmp_path / "wrong", tmp_path / "device-ran"
    wrong.write_text("canary-of-the-wrong-kind\n")
    fence = {"fence": ["touch", str(device)]} if fenced_by == "device" else {}

    def database(**top: Any) -> Postgres:
        return servers.database(east=fence, top=top)

    never_fenced(servers, database(password={"file": str(wrong)}), device, "it answers: connection failed")
    never_fenced(servers, database(password={"file": str(tmp_path / "gone")}), device, "cannot be read")
    never_fenced(servers, database(database="elsewhere"), device, 'database "elsewhere" does not exist')
    never_fenced(servers, database(sslmode="require"), device, "SSL")
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(servers.connect("east"))
        never_fenced(servers, database(), device, "too many clients")
        assert database().read()["west"].role is Role.REPLICA
    servers.kill("east")
    found = database(password={"file": str(wrong)}).read()["east"]
    assert found.role is Role.STOPPED


def test_a_name_that_does_not_exist_is_our_own_mistake(
    servers: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    database = servers.database(east={"host": "east.invalid", "fence": ["touch", str(tmp_path / "ran")]})
    never_fenced(servers, database, tmp_path / "ran", "east.invalid")


@contextmanager
def replying(reply: bytes) -> Iterator[int]:
    """A port on which somebody reads one message, sends `reply` and hangs up."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            wire, _ = server.accept()
            with wire:
                wire.recv(4096)
                for part in (reply[:3], reply[3:]):
                    wire.sendall(part)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def refusal(code: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C{code}\0Mthe words depend on the language\0\0".encode()
    return b"E" + struct.pack("!I", 4 + len(fields)) + fields


@pytest.mark.parametrize(
    ("reply", "there"),
    [
        (b"R\0\0\0\x08\0\0\0\0", True),
        (refusal("53300"), True),
        (refusal("28000"), True),
        (refusal("57P03"), False),
        (refusal("58030"), False),
        (b"", False),
    ],
)
def test_only_a_server_in_order_counts_as_there(reply: bytes, there: bool) -> None:
    with replying(reply) as port:
        assert hail.answers({"host": HOST, "port": port, "user": "failover", "dbname": "orders"}, 5, SYSTEM) is there


def test_nobody_there_is_silence() -> None:
    options = {"host": HOST, "port": free_port(), "user": "failover", "dbname": "orders"}
    assert not hail.answers(options, 1, SYSTEM)
    assert not hail.answers({**options, "host": "/nowhere"}, 1, SYSTEM)


def test_a_replica_that_has_replayed_nothing_says_why_its_lag_is_not_known(servers: Cluster) -> None:
    database = servers.database()
    servers.stop("west")
    servers.start("west")
    until(lambda: database.read()["west"].streaming)
    assert servers.sql("west", "SELECT pg_last_xact_replay_timestamp()") is None
    until(lambda: database.read()["west"].lag == 0.0)
    assert not database.read()["west"].detail
    servers.sql("west", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    servers.sql("west", "SELECT pg_reload_conf()")
    servers.sql("east", "INSERT INTO orders (id) VALUES (1)")
    found = database.read()["west"]
    assert (found.role, found.streaming, found.lag) == (Role.REPLICA, True, None)
    assert "has replayed no commit since it started" in found.detail
    assert "bytes behind" in found.detail
    servers.kill("east")
    assert "no primary answers" in database.read()["west"].detail
