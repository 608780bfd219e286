"""The laboratory as its users see it, on its real parts."""

import http.client
import json
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import dns.message
import dns.query
import dns.rcode
import psycopg
import pytest
import yaml
from psycopg import sql

from failover.errors import Locked, Usage
from failover.lab import install, postgres, process, zone
from failover.lab.lab import (
    AlreadyUp,
    How,
    break_region,
    down,
    mend_region,
    running,
    start_customers,
    stop_customers,
    up,
)
from failover.lab.measure import Ledger, failures, measure, shares
from failover.lab.state import Lab, NoLab, load, locked
from tests.lab.conftest import traces


def fetch(lab: Lab, region: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(lab.region(region).address, lab.shop_port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def healthy(lab: Lab, region: str) -> bool:
    return fetch(lab, region, "GET", "/health")[0] == 200


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start


def in_recovery(lab: Lab, region: str) -> object:
    return postgres.ask(lab, lab.region(region), "SELECT pg_is_in_recovery()")


def test_everything_runs_and_the_replica_streams(lab: Lab) -> None:
    parts = running(lab)
    assert parts.pop("customers") is False
    assert all(parts.values())
    assert (in_recovery(lab, "east"), in_recovery(lab, "west")) == (False, True)
    status, _ = fetch(lab, "west", "POST", "/orders", {"id": "streamed"})
    assert status == 201
    question = "SELECT region FROM orders WHERE id = 'streamed'"
    assert process.until(lambda: postgres.ask(lab, lab.region("west"), question) == "west", 5)
    assert postgres.ask(lab, lab.region("east"), "SHOW data_checksums") == "on"


def test_the_state_is_what_up_returned_and_secrets_are_private(lab: Lab) -> None:
    assert load(lab.directory) == lab
    for secret in (lab.directory / "secrets").iterdir():
        assert secret.stat().st_mode & 0o777 == 0o600
        for path in lab.directory.glob("*.*"):
            assert secret.read_text() not in path.read_text()


def test_everything_listens_on_loopback_only(lab: Lab) -> None:
    ports = {lab.shop_port, lab.postgres_port, lab.dns_port, lab.api_port}
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(port, 16) in ports and line.split()[2].endswith(":0000"):
                listening.append(address)
    assert len(listening) >= 6
    assert all(len(address) == 8 and address.endswith("7F") for address in listening)


def test_the_topology_file_names_the_running_parts(lab: Lab) -> None:
    document = yaml.safe_load(lab.topology.read_text())
    members = document["databases"]["orders"]["postgres"]["members"]
    for name, region in lab.regions.items():
        assert document["regions"][name] == {"address": region.address}
        assert members[name]["port"] == lab.postgres_port
        version = process.run(
            lab.directory, "test", [*members[name]["via"], f"{members[name]['bin']}/pg_rewind", "--version"]
        )
        assert "PostgreSQL" in version
        state = [*members[name]["via"], f"{members[name]['bin']}/pg_controldata", members[name]["data"]]
        assert "Database cluster state" in process.run(lab.directory, "test", state)
    router = document["routers"]["dns"]["route53"]
    assert router["zone"] == lab.zone
    assert router["name_servers"] == [f"127.0.0.1:{lab.dns_port}"]


def test_the_credentials_file_opens_route_53(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(lab.credentials))
    session = boto3.Session(profile_name="lab", region_name="us-east-1")
    api = session.client("route53", endpoint_url=lab.endpoint)
    assert [item["Name"] for item in api.list_hosted_zones()["HostedZones"]] == [zone.ZONE]


@pytest.mark.parametrize("ask", [dns.query.udp, dns.query.tcp], ids=["udp", "tcp"])
def test_the_name_server_follows_the_weights(lab: Lab, ask: Callable[..., dns.message.Message]) -> None:
    def answered(times: int) -> Counter[str]:
        query = dns.message.make_query(zone.RECORD, "A")
        responses = [ask(query, "127.0.0.1", port=lab.dns_port, timeout=5) for _ in range(times)]
        return Counter(str(record) for response in responses for record in response.answer[0])

    def weigh(**weights: int) -> None:
        records = zone.read(zone.client(lab.endpoint), lab.zone)[zone.RECORD, "A"]
        for record in records:
            weight = weights[str(record.identifier)]
            zone.write(lab, [zone.Record(record.name, "A", record.ttl, record.values, record.identifier, weight)])

    east, west = (region.address for region in lab.regions.values())
    counts = answered(200)
    # Six standard deviations off, either way.
    assert counts[east] + counts[west] == 200
    assert 58 <= counts[east] <= 142
    try:
        weigh(east=0, west=50)
        assert process.until(lambda: answered(20) == {west: 20}, 5)
        weigh(east=0, west=0)
        assert process.until(lambda: set(answered(30)) == {east, west}, 5)
    finally:
        weigh(east=50, west=50)
    assert process.until(lambda: set(answered(30)) == {east, west}, 5)


def test_the_name_server_takes_several_queries_on_one_connection_and_survives_noise(lab: Lab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        for wire in (b"", b"x", b"\0" * 12, b"\0" * 11 + b"\1" + b"\xff" * 40):
            noise.sendto(wire, ("127.0.0.1", lab.dns_port))
    query = dns.message.make_query("nothing.lab.example.", "A")
    wire = query.to_wire()
    with socket.create_connection(("127.0.0.1", lab.dns_port), timeout=5) as line, line.makefile("rb") as answers:
        line.sendall((struct.pack("!H", len(wire)) + wire) * 2)
        for _ in range(2):
            (length,) = struct.unpack("!H", answers.read(2))
            assert dns.message.from_wire(answers.read(length)).rcode() == dns.rcode.NXDOMAIN


def test_the_name_server_serves_the_last_answer_while_the_api_is_away(lab: Lab) -> None:
    api = [found for found in process.marked(lab.directory) if found.part == "route53"]
    query = dns.message.make_query(zone.RECORD, "A")
    process.send(api, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert dns.query.udp(query, "127.0.0.1", port=lab.dns_port, timeout=5).answer
    finally:
        process.send(api, signal.SIGCONT)


def test_orders_flow_and_the_ledger_equals_the_database(lab: Lab) -> None:
    ledger = Ledger(lab.ledger)
    start = time.time()
    start_customers(lab, 60)
    with pytest.raises(AlreadyUp):
        start_customers(lab)
    assert process.until(lambda: len(ledger.entries()) >= 240, 30)
    assert stop_customers(lab)
    assert not stop_customers(lab)
    end = time.time()
    entries = ledger.entries()
    seen = measure(entries, start, end, postgres.stored_orders(lab))
    assert failures(entries, start, end) == {}
    assert (seen.failed, seen.orders_lost) == (0, 0)
    assert seen.requests == seen.orders_acknowledged >= 240
    run = {order for order in postgres.stored_orders(lab) if order.startswith(entries[-1].id[:8])}
    assert run == {entry.id for entry in entries if entry.id in run} == {e.id for e in entries if e.intended >= start}
    assert set(shares(entries, start, end)) == {"east", "west"}
    steps = sorted(entry.intended for entry in entries)
    assert all(after - before == pytest.approx(1 / 60, abs=1e-3) for before, after in pairwise(steps))


def test_an_order_is_written_once(lab: Lab) -> None:
    for region in ("east", "west", "east"):
        assert fetch(lab, region, "POST", "/orders", {"id": "twice"})[0] == 201
    assert postgres.ask(lab, lab.region("east"), "SELECT region FROM orders WHERE id = 'twice'") == "east"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/live", None, 200),
        ("GET", "/health?verbose", None, 200),
        ("GET", "/nothing", None, 404),
        ("GET", "/orders", None, 405),
        ("POST", "/orders", {"id": ""}, 400),
        ("POST", "/orders", {"id": "nul\0"}, 400),
        ("POST", "/orders", {"id": 7}, 400),
        ("POST", "/orders", ["id"], 400),
        ("POST", "/orders", {"id": "x" * 20_000}, 400),
    ],
)
def test_the_shop_says_what_it_does_not_understand(
    lab: Lab, method: str, path: str, body: object, status: int
) -> None:
    assert fetch(lab, "east", method, path, body)[0] == status


def test_the_shop_keeps_a_connection_and_closes_what_is_not_http(lab: Lab) -> None:
    connection = http.client.HTTPConnection(lab.region("east").address, lab.shop_port, timeout=5)
    for _ in range(3):
        connection.request("GET", "/live")
        assert connection.getresponse().read()
        assert connection.sock is not None
    connection.close()
    with socket.create_connection((lab.region("east").address, lab.shop_port), timeout=5) as line:
        line.sendall(b"hello\r\n\r\n")
        assert line.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("how", ["web", "database", "region"])
def test_a_broken_region_is_gone_at_once_and_mended_as_it_was(lab: Lab, how: How) -> None:
    assert break_region(lab.directory, "east", how) > 0
    assert break_region(lab.directory, "east", how) == 0
    parts = running(lab)
    assert parts["shop-east"] is (how == "database")
    assert parts["postgres-east"] is (how == "web")
    (status, answer), took = timed(lambda: fetch(lab, "west", "GET", "/health"))
    assert status == (200 if how == "web" else 503)
    assert took < 1
    if how != "web":
        assert answer["databases"]["west"] == "read-only"
        (status, answer), took = timed(lambda: fetch(lab, "west", "POST", "/orders", {"id": f"lost {how}"}))
        assert status == 503
        assert "east" in answer["error"]
        assert 1.5 < took < 3
    started = mend_region(lab.directory, "east")
    assert set(started) == {part for part, runs in parts.items() if not runs and part.endswith("east")}
    assert mend_region(lab.directory, "east") == []
    assert process.until(lambda: healthy(lab, "east") and healthy(lab, "west"), 10)
    assert (in_recovery(lab, "east"), in_recovery(lab, "west")) == (False, True)


def test_a_hanging_primary_does_not_hang_the_shop(lab: Lab) -> None:
    assert healthy(lab, "west")
    frozen = postgres.running(lab.region("east"))
    process.send(frozen, signal.SIGSTOP)
    try:
        (status, _), took = timed(lambda: fetch(lab, "west", "GET", "/health"))
        assert status == 503
        assert took < 1
        (status, _), took = timed(lambda: fetch(lab, "west", "POST", "/orders", {"id": "frozen"}))
        assert status == 503
        assert took < 3
    finally:
        process.send(frozen, signal.SIGCONT)
    assert process.until(lambda: healthy(lab, "west"), 10)
    assert fetch(lab, "west", "POST", "/orders", {"id": "frozen"})[0] == 201


def test_a_refused_write_is_tried_again_until_the_primary_takes_it(lab: Lab) -> None:
    def refuse(state: str) -> None:
        with postgres.connected(lab, lab.region("east")) as connection:
            connection.execute("SET default_transaction_read_only = off")
            setting = sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}")
            connection.execute(setting.format(sql.Literal(state)))
            connection.execute("SELECT pg_reload_conf()")

    ledger = Ledger(lab.ledger)
    start = time.time()
    start_customers(lab, 40)
    try:
        refuse("on")
        assert process.until(lambda: not healthy(lab, "west"), 5)
    finally:
        refuse("off")
    assert process.until(lambda: healthy(lab, "west"), 5)
    count = len(ledger.entries())
    assert process.until(lambda: len(ledger.entries()) > count + 60, 10)
    stop_customers(lab)
    seen = measure(ledger.entries(), start, time.time(), postgres.stored_orders(lab))
    assert (seen.failed, seen.orders_lost) == (0, 0)


def test_wrong_words_are_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(Usage, match="no region 'north'"):
        break_region(lab.directory, "north", "web")
    with pytest.raises(Usage, match="not a way to break"):
        break_region(lab.directory, "east", "gently")  # type: ignore[arg-type]
    with pytest.raises(Usage, match="cannot be sent"):
        start_customers(lab, 0)
    with pytest.raises(AlreadyUp, match="a lab is up here already"):
        up(lab.directory)
    with pytest.raises(NoLab):
        load(tmp_path)
    with locked(lab.directory), pytest.raises(Locked):
        up(lab.directory)


def test_nobody_elses_directory_is_used_or_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(Usage, match="not empty"):
        up(tmp_path)
    with pytest.raises(NoLab):
        down(tmp_path)
    assert (tmp_path / "precious").exists()
    assert down(tmp_path / "never was") == 0


def test_an_up_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "lab"

    def refuse(lab: Lab) -> str:
        assert len(process.marked(lab.directory)) > 1
        raise OSError("the zone was not made")

    monkeypatch.setattr(zone, "create", refuse)
    with pytest.raises(OSError, match="the zone was not made"):
        up(directory)
    assert not directory.exists()
    assert traces(directory) == []


def test_two_labs_live_side_by_side(lab: Lab, tmp_path: Path) -> None:
    other = up(tmp_path / "other lab's ö")
    try:
        memory = segments(other)
        assert len(memory) == 2
        assert healthy(lab, "east")
        assert healthy(other, "east")
        assert fetch(other, "west", "POST", "/orders", {"id": "only there"})[0] == 201
        assert "only there" in postgres.stored_orders(other)
        assert "only there" not in postgres.stored_orders(lab)
        break_region(other.directory, "east", "region")
        assert healthy(lab, "east")
    finally:
        down(other.directory)
    assert not other.directory.exists()
    assert other.shelter is None or not other.shelter.exists()
    assert traces(other.directory) == []
    assert not memory & kernel_segments()
    assert healthy(lab, "east")


def kernel_segments() -> set[tuple[str, str]]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {(key, number) for key, number, *_ in map(str.split, lines)}


def segments(lab: Lab) -> set[tuple[str, str]]:
    locks = [(region.data / "postmaster.pid").read_text().splitlines() for region in lab.regions.values()]
    return {(key, number) for key, number in (lock[6].split() for lock in locks)} & kernel_segments()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_root_shelters_what_the_unprivileged_user_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    hidden = install.copy(install.packaged(), tmp_path / "hidden")
    monkeypatch.setattr(install, "packaged", lambda: hidden)
    lab = up(tmp_path / "lab")
    try:
        assert lab.shelter is not None
        assert lab.binaries.is_relative_to(lab.shelter)
        assert all(region.home.is_relative_to(lab.shelter) for region in lab.regions.values())
        assert healthy(lab, "west")
        with psycopg.connect(postgres.conninfo(lab, lab.region("west"), postgres.APPLICATION)) as connection:
            connection.execute("SELECT count(*) FROM orders")
    finally:
        down(lab.directory)
    assert lab.shelter is not None
    assert not lab.shelter.exists()
