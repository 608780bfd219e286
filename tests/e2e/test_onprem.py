"""The example with BIND and HAProxy, on real ones: a region leaves and comes back, and no request fails."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.e2e.product import ROOT, failover
from tests.routers.bind import SECRET, ZONE, Pair
from tests.routers.haproxies import Haproxy, Shop, shops
from tests.routers.specs import LOOPBACK, free_port

RECORD = f"www.{ZONE}"
ADDRESSES = ("192.0.2.1", "198.51.100.1")
BACKEND = """
backend web
    balance roundrobin
    retries 0
    server east1 127.0.0.1:{east} weight 50 check inter 500ms
    server east2 127.0.0.1:{east} weight 50 check inter 500ms
    server west1 127.0.0.1:{west} weight 50 check inter 500ms
    server west2 127.0.0.1:{west} weight 50 check inter 500ms
frontend web
    bind 127.0.0.1:{front}
    default_backend web
"""


class Visitors:
    """A light stream of requests through all of `ports`, by turns."""

    def __init__(self, ports: list[int]) -> None:
        self.seen: list[tuple[float, str]] = []
        self.failed: list[str] = []
        self._ports = ports
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._visit)

    @contextmanager
    def open(self) -> Iterator["Visitors"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join()

    def regions(self, since: float, until: float) -> Counter[str]:
        return Counter(region for when, region in self.seen if since <= when <= until)

    def _visit(self) -> None:
        while not self._done.wait(0.01):
            port = self._ports[len(self.seen) % len(self._ports)]
            began = time.monotonic()
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read().decode()
                if response.status != 200:
                    self.failed.append(f"{response.status} {body}")
                self.seen.append((began, body))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()


@pytest.fixture(scope="module")
def both() -> Iterator[Mapping[str, Shop]]:
    with shops("east", "west") as made:
        yield made


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory, both: Mapping[str, Shop]) -> Iterator[list[Haproxy]]:
    home, made = tmp_path_factory.mktemp("edge"), []
    try:
        for name in ("east", "west"):
            ports = {"east": both["east"].port, "west": both["west"].port, "front": free_port()}
            made.append(Haproxy(home / name, BACKEND.format(**ports)))
            made[-1].front = ports["front"]
            made[-1].start()
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("bind"))
    try:
        pair.start()
        pair.put(RECORD, ADDRESSES, ttl=2)
        yield pair
    finally:
        pair.stop()


def example(place: Path, bind: Pair, edges: list[Haproxy], both: Mapping[str, Shop]) -> Path:
    """The example's own file, with this test's places in it and shorter waits."""
    text = (ROOT / "examples" / "onprem-bind-haproxy" / "failover.yaml").read_text(encoding="utf-8")
    ports = (bind.primary.port, bind.secondary.port)
    for old, new in (
        ("{address: 192.0.2.10, port: 8080}", f"{{address: {LOOPBACK}, port: {both['east'].port}}}"),
        ("{address: 198.51.100.10, port: 8080}", f"{{address: {LOOPBACK}, port: {both['west'].port}}}"),
        ("name_servers: [192.0.2.53:53, 198.51.100.53:53]", f"name_servers: {[f'{LOOPBACK}:{port}' for port in ports]}"),
        ("server: 192.0.2.53:53", f"server: {LOOPBACK}:{ports[0]}"),
        ("192.0.2.1:9999, 198.51.100.1:9999", f"'{LOOPBACK}:{edges[0].port}', '{LOOPBACK}:{edges[1].port}'"),
        ("zone: example.com.", f"zone: {ZONE}"),
        ("record: www.example.com.", f"record: {RECORD}"),
        ("ttl: 60s", "ttl: 2s"),
        ("ttl: 10s", "ttl: 1s"),
        ("soak: 30s", "soak: 500ms"),
    ):  # fmt: skip
        assert text.count(old) == 1, f"the example has changed: {old}"
        text = text.replace(old, new)
    path = place / "failover.yaml"
    path.write_text(text)
    return path


def answered(port: int) -> set[str]:
    response = dns.query.udp(dns.message.make_query(RECORD, "A"), LOOPBACK, 2, port)
    return {record.to_text() for each in response.answer for record in each}


def test_a_region_leaves_and_comes_back_and_no_request_fails(
    tmp_path: Path, bind: Pair, edges: list[Haproxy], both: Mapping[str, Shop]
) -> None:
    topology = example(tmp_path, bind, edges, both)
    key = {"FAILOVER_TSIG": SECRET}
    with Visitors([each.front for each in edges]).open() as visitors:
        planned = failover(topology, "plan", "evacuate-region", "-i", "region=east", "--json", **key)
        assert planned.json["refused"] is None
        failover(topology, "run", "evacuate-region", "-i", "region=east", "--yes", **key)
        gone = time.monotonic()
        status = failover(topology, "status", "--json", **key).json["routes"]
        time_without = time.monotonic()
        assert {name: one["weights"] for name, one in status.items()} == {
            "web@dns": {"east": 0, "west": 100},
            "web@edge": {"east": 0, "west": 200},
        }
        assert [answered(each.port) for each in (bind.primary, bind.secondary)] == [{ADDRESSES[1]}] * 2
        for each in edges:
            assert each.weights("web") == {"east1": 0, "east2": 0, "west1": 100, "west2": 100}
        failover(topology, "run", "restore-region", "-i", "region=east", "--yes", **key)
        back = time.monotonic()
        status = failover(topology, "status", "--json", **key).json["routes"]
        end = time.monotonic()
    assert visitors.failed == []
    assert len(visitors.seen) > 100
    assert set(visitors.regions(gone, time_without)) == {"west"}
    assert set(visitors.regions(back, end)) == {"east", "west"}
    assert {name: one["weights"] for name, one in status.items()} == {
        "web@dns": {"east": 100, "west": 100},
        "web@edge": {"east": 100, "west": 100},
    }
    assert answered(bind.secondary.port) == set(ADDRESSES)
    for each in edges:
        assert each.weights("web") == {"east1": 50, "east2": 50, "west1": 50, "west2": 50}


def test_an_edge_that_was_reloaded_meanwhile_is_named_and_nothing_moves(
    tmp_path: Path, bind: Pair, edges: list[Haproxy], both: Mapping[str, Shop]
) -> None:
    topology = example(tmp_path, bind, edges, both)
    key = {"FAILOVER_TSIG": SECRET}
    for each in edges[:1]:
        each.tell("set weight web/east1 0", "set weight web/east2 0", "set weight web/west1 100")
        each.tell("set weight web/west2 100")
    done = failover(topology, "run", "evacuate-region", "-i", "region=east", "--yes", code=1, **key)
    assert "the instances differ" in done.said
    assert f"{LOOPBACK}:{edges[1].port} has east 100, west 100" in done.said
    assert answered(bind.primary.port) == set(ADDRESSES)
