"""Two datacenters on loopback: BIND as primary and secondary, an HAProxy and an HTTP server in each, and visitors."""

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import yaml

from tests.e2e.product import Done, Running, failover
from tests.routers.bind import KEY, SECRET, ZONE, Pair
from tests.routers.haproxies import Haproxy, Shop, shops
from tests.routers.specs import LOOPBACK, free_port

WWW, CHAT = f"www.{ZONE}", f"_chat._tcp.{ZONE}"
ADDRESSES = {"east": "192.0.2.1", "west": "198.51.100.1"}
NORMAL = {"web@edge": {"east": 100, "west": 100}, "chat@dns": {"east": 60, "west": 40}}
KEYS = {"FAILOVER_TSIG": SECRET}
_TARGETS = {"east": f"east.{ZONE}:5222", "west": f"west.{ZONE}:5222"}
_BACKEND = """
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
Topology = dict[str, Any]
Edit = Callable[[Topology], None]


class Site:
    """All of it, running. `normal` puts it back to where a test finds it."""

    def __init__(self, both: Mapping[str, Shop], edges: list[Haproxy], bind: Pair) -> None:
        self.shops = both
        self.edges = edges
        self.bind = bind

    def normal(self) -> None:
        for shop in self.shops.values():
            shop.health = lambda: 200
        for edge in self.edges:
            edge.tell(*(f"set weight web/{name} 50" for name in ("east1", "east2", "west1", "west2")))
        self.bind.put(WWW, list(ADDRESSES.values()), ttl=2)
        self.chat(60, 40)

    def chat(self, east: int, west: int, ttl: int = 0) -> None:
        """Set the SRV records past the product, as `nsupdate` would."""
        shares = {"east": east, "west": west}
        records = [f"0 {weight} 5222 {name}.{ZONE}" for name, weight in shares.items() if weight]
        self.bind.put(CHAT, records, ttl=ttl, kind="SRV")

    def topology(self, place: Path, *edits: Edit) -> Path:
        """Two services on two routers that both have weights, with short waits."""
        ports = (self.bind.primary.port, self.bind.secondary.port)
        health = {"http": {"url": "http://${address}:${port}/health", "timeout": "1s"}}
        made: Topology = {
            "topology": "onprem",
            "regions": {name: {"address": LOOPBACK, "port": shop.port} for name, shop in self.shops.items()},
            "services": {
                "web": {
                    "routes": [
                        {
                            "router": "edge",
                            "backend": "web",
                            "servers": {"east": ["east*"], "west": ["west*"]},
                            "weights": NORMAL["web@edge"],
                        }
                    ],
                    "checks": {"answers": health},
                },
                "chat": {
                    "routes": [
                        {
                            "router": "dns",
                            "record": CHAT,
                            "type": "SRV",
                            "targets": _TARGETS,
                            "weights": NORMAL["chat@dns"],
                        }
                    ],
                    "checks": {"answers": health},
                },
            },
            "routers": {
                "edge": {"haproxy": {"instances": [f"{LOOPBACK}:{edge.port}" for edge in self.edges]}},
                "dns": {
                    "rfc2136": {
                        "server": f"{LOOPBACK}:{ports[0]}",
                        "zone": ZONE,
                        "tsig": {"name": KEY, "secret": {"env": "FAILOVER_TSIG"}},
                        "name_servers": [f"{LOOPBACK}:{port}" for port in ports],
                    }
                },
            },
            "drain": {"stages": [50, 0], "soak": "200ms", "every": "100ms", "settle": "20s", "tail": "0s"},
            "objectives": {"survivors": 1},
            "store": {"sqlite": {"path": str(place / "journal.db")}},
        }
        for edit in edits:
            edit(made)
        path = place / "failover.yaml"
        path.write_text(yaml.safe_dump(made, sort_keys=False))
        return path

    def weights(self, *, primary: bool = False) -> dict[str, dict[str, int]]:
        """Where both routes stand, past the product; all HAProxies have to agree, and, unless the `primary` alone is
        asked, the name servers."""
        [web] = {tuple(edge.weights("web").items()) for edge in self.edges}
        servers = [self.bind.primary] if primary else [self.bind.primary, self.bind.secondary]
        [chat] = {tuple(sorted(self.shares(server.port).items())) for server in servers}
        shares = Counter[str]()
        for name, weight in web:
            shares[name[:4]] += weight
        return {"web@edge": dict(shares), "chat@dns": {"east": 0, "west": 0} | dict(chat)}

    def shares(self, port: int) -> dict[str, int]:
        """The weights that the name server on `port` answers for the SRV records."""
        return {text.split()[3].partition(".")[0]: int(text.split()[1]) for text in answered(port, CHAT, "SRV")}


def answered(port: int, name: str, kind: str = "A", timeout: float = 2) -> set[str]:
    response = dns.query.udp(dns.message.make_query(name, kind), LOOPBACK, timeout, port)
    return {record.to_text() for each in response.answer for record in each}


def tell(topology: Path, *words: str, code: int = 0) -> Done:
    """A command that knows the key of the DNS, run to its end."""
    return failover(topology, *words, code=code, **KEYS)


def watched(topology: Path, *words: str) -> Running:
    """The same, under way."""
    return Running(topology, *words, **KEYS)


@contextmanager
def site(home: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        both = stack.enter_context(shops("east", "west"))
        edges = []
        for name in both:
            ports = {"east": both["east"].port, "west": both["west"].port, "front": free_port()}
            edge = Haproxy(home / name, _BACKEND.format(**ports))
            edge.front = ports["front"]
            stack.callback(edge.stop)
            edge.start()
            edges.append(edge)
        folder = home / "bind"
        folder.mkdir()
        bind = Pair(folder)
        stack.callback(bind.stop)
        bind.start()
        yield Site(both, edges, bind)


class Visitors:
    """Requests through all of `ports` by turns, by several at a time: on kept connections, on new ones, some slow."""

    PATHS = ("/", "/", "/wait", "/")

    def __init__(self, ports: list[int], several: int = 4) -> None:
        self.seen: list[tuple[float, str]] = []
        """When each request began, and the region that answered."""
        self.failed: list[str] = []
        self._ports = ports
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=[number]) for number in range(several)]

    @contextmanager
    def open(self) -> Iterator["Visitors"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in self._threads:
                thread.join()

    def regions(self, since: float, until: float) -> Counter[str]:
        return Counter(region for when, region in self.seen if since <= when <= until)

    def _visit(self, number: int) -> None:
        keeps, connections = number % 2 == 0, {}
        for turn in itertools.count(number):
            if self._done.wait(0.02):
                break
            port = self._ports[turn % len(self._ports)]
            connection = connections.get(port) or http.client.HTTPConnection(LOOPBACK, port, timeout=10)
            began = time.monotonic()
            try:
                connection.request("GET", self.PATHS[turn // 2 % len(self.PATHS)])
                response = connection.getresponse()
                body = response.read().decode()
                if response.status != 200:
                    self.failed.append(f"{response.status} {body}")
                self.seen.append((began, body))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            if keeps:
                connections[port] = connection
            else:
                connection.close()
        for connection in connections.values():
            connection.close()
