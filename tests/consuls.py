"""Real Consul datacenters on loopback, federated over their WAN, and a proxy that loses what they say."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import urllib3

from tests.parts import program
from tests.routers.specs import until

ROOT = "0f0f0f0f-1111-2222-3333-444444444444"  # a management token of these tests only
TOKENS = {"east": "e0e0e0e0-1111-2222-3333-444444444444", "west": "d0d0d0d0-1111-2222-3333-444444444444"}
READERS = {"east": "e1e1e1e1-1111-2222-3333-444444444444", "west": "d1d1d1d1-1111-2222-3333-444444444444"}
_ROUTER = """
service_prefix "" { policy = "write" }
node_prefix "" { policy = "write" }
query_prefix "" { policy = "read" }
key_prefix "failover/" { policy = "write" }
session_prefix "" { policy = "write" }
"""
_READER = """
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
query_prefix "" { policy = "read" }
"""
_PORTS = ("http", "dns", "server", "serf_lan", "serf_wan")
_pool = urllib3.PoolManager(retries=False)


def own_address(number: int) -> str:
    """A loopback address for the `number`th agent of this process."""
    return f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{number}"


def free_ports(address: str) -> dict[str, int]:
    """A port of `address` for each that an agent needs, free for TCP and UDP, held until all are found."""
    held: list[socket.socket] = []
    found: dict[str, int] = {}
    try:
        while len(found) < len(_PORTS):
            tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
            held += [tcp, udp]
            tcp.bind((address, 0))
            port = tcp.getsockname()[1]
            with suppress(OSError):
                udp.bind((address, port))
                found[_PORTS[len(found)]] = port
    finally:
        for each in held:
            each.close()
    return found


class Agent:
    """One agent, a server unless it joins as a client; what it knows stays in its home where it is stopped."""

    def __init__(self, home: Path, datacenter: str, node: str, number: int, **more: Any) -> None:
        self.binary = program("consul", "consul")
        self.home, self.datacenter, self.node = home, datacenter, node
        self.address = own_address(number)
        self.ports = free_ports(self.address)
        self.more = more
        home.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.ports['http']}"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def dns(self) -> str:
        return f"{self.address}:{self.ports['dns']}"

    @property
    def lan(self) -> str:
        return f"{self.address}:{self.ports['serf_lan']}"

    @property
    def wan(self) -> str:
        return f"{self.address}:{self.ports['serf_wan']}"

    def launch(self) -> None:
        config = {
            "datacenter": self.datacenter,
            "primary_datacenter": "east",
            "node_name": self.node,
            "server": True,
            "data_dir": str(self.home / "data"),
            "bind_addr": self.address,
            "client_addr": self.address,
            "ports": self.ports,
            "performance": {"raft_multiplier": 1},
            "connect": {"enabled": True},
            "log_level": "warn",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "skip_leave_on_interrupt": True,
            "limits": {"http_max_conns_per_client": 1000},
            "acl": {
                "enabled": True,
                "default_policy": "deny",
                "enable_token_replication": True,
                "tokens": {"master": ROOT, "agent": ROOT, "replication": ROOT},
            },
            **self.more,
        }
        (self.home / "agent.json").write_text(json.dumps(config))
        with (self.home / "log").open("ab") as log:
            argv = [self.binary, "agent", "-config-file", str(self.home / "agent.json")]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    def start(self) -> None:
        self.launch()
        self.ready()

    def ready(self) -> None:
        try:
            until(self.answers, 30, f"consul {self.node}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {(self.home / 'log').read_text()[-2000:]}") from None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def answers(self) -> bool:
        """Whether it takes writes, reads by way of its leader, and knows its management token."""
        try:
            wrote = self.ask("PUT", "kv/ready", {})[0] == 200
            return wrote and self.ask("GET", "kv/ready", query="consistent")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, method: str, path: str, body: Any = None, token: str = ROOT, query: str = "") -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        url = f"{self.url}/v1/{path}" + (f"?{query}" if query else "")
        response = _pool.request(method, url, body=data, headers={"X-Consul-Token": token}, timeout=10)
        try:
            return response.status, json.loads(response.data)
        except ValueError:
            return response.status, response.data.decode()

    def get(self, path: str, query: str = "") -> Any:
        status, body = self.ask("GET", path, query=query)
        return body if status == 200 else None

    def put(self, path: str, body: Any = None, query: str = "", method: str = "PUT") -> Any:
        status, answer = self.ask(method, path, body, query=query)
        assert status == 200, (path, status, answer)
        return answer


class Two:
    """The datacenters east, which is the primary one, and west, a server each, with tokens for each."""

    def __init__(self, home: Path) -> None:
        self.east = Agent(home / "east", "east", "east-1", 1, bootstrap_expect=1)
        self.west = Agent(home / "west", "west", "west-1", 2, bootstrap_expect=1, retry_join_wan=[self.east.wan])
        self.east.more["retry_join_wan"] = [self.west.wan]

    @property
    def both(self) -> Mapping[str, Agent]:
        return {"east": self.east, "west": self.west}

    def launch(self) -> None:
        for agent in self.both.values():
            if not agent.running:
                agent.launch()
        for agent in self.both.values():
            agent.ready()
        until(self.federated, 30, "the federation")

    def federated(self) -> bool:
        """Whether each gets through to the other."""
        return all(
            agent.ask("GET", "kv/ready", query=f"dc={other}")[0] in (200, 404)
            for agent in self.both.values()
            for other in self.both
        )

    def start(self) -> None:
        # What is there when the other datacenter comes up is copied at once; later changes take seconds.
        self.east.start()
        for name, rules in (("router", _ROUTER), ("reader", _READER)):
            self.east.put("acl/policy", {"Name": name, "Rules": rules})
        self.east.put("acl/token/00000000-0000-0000-0000-000000000002", {"Policies": [{"Name": "reader"}]})
        for policy, secrets in (("router", TOKENS), ("reader", READERS)):
            for secret in secrets.values():
                self.east.put("acl/token", {"SecretID": secret, "Policies": [{"Name": policy}]})
        self.launch()
        self.copied("router", "reader", secrets=(*TOKENS.values(), *READERS.values()))

    def copied(self, *policies: str, secrets: Iterable[str]) -> None:
        """Wait until the west knows these policies, and then that each of these tokens lets its holder see the nodes.

        They are copied apart from each other; a token that is there first may do nothing, and is remembered so.
        """

        def known() -> bool:
            return {each["Name"] for each in self.west.get("acl/policies") or ()} >= set(policies)

        until(known, 30, "copied policies")
        for secret in secrets:
            until(lambda s=secret: self.west.ask("GET", "acl/token/self", token=s)[0] == 200, 30, "copied tokens")
            until(lambda s=secret: bool(self.west.ask("GET", "catalog/nodes", token=s)[1]), 60, "their policies")

    def stop(self) -> None:
        for agent in self.both.values():
            agent.stop()

    def reset(self, services: Mapping[str, Sequence[str]], weight: int = 50) -> None:
        """Exactly the instances of `services`, by service, in both datacenters, in service; no resolver; no query."""
        for each in self.east.get("config/service-resolver"):
            self.east.put(f"config/service-resolver/{each['Name']}", method="DELETE")
        for number, agent in enumerate(self.both.values(), 1):
            agent.put("agent/maintenance", query="enable=false")
            for one in agent.get("agent/services"):
                agent.put(f"agent/service/deregister/{one}")
            for service, ids in services.items():
                for place, one in enumerate(ids, 1):
                    self.register(agent, service, one, f"192.0.2.{10 * number + place}", weight)
            until(lambda a=agent: self._settled(a, services, weight), 10, "a clean start")
        until(lambda: not self.west.get("config/service-resolver"), 10, "the copies of no resolver")

    def _settled(self, agent: Agent, services: Mapping[str, Sequence[str]], weight: int) -> bool:
        return all(
            [(one["Service"]["ID"], one["Service"]["Weights"]["Passing"]) for one in found]
            == [(i, weight) for i in ids]
            and not any("maintenance" in check["CheckID"] for one in found for check in one["Checks"])
            for service, ids in services.items()
            for found in [agent.get(f"health/service/{service}")]
        )

    @staticmethod
    def register(agent: Agent, service: str, one: str, address: str, weight: int, **more: Any) -> None:
        agent.put(
            "agent/service/register",
            {
                "Name": service,
                "ID": one,
                "Address": address,
                "Port": 80,
                "Weights": {"Passing": weight, "Warning": 1},
                "Tags": ["blue"],
                "Meta": {"version": "1"},
                "Check": {"CheckID": f"up-{one}", "Name": "up", "TTL": "24h", "Status": "passing"},
                **more,
            },
        )


Fault = Callable[[str], Any]


class Proxy:
    """A proxy in front of an agent's HTTP. `fault` says of each request, by its first line, what becomes of it:

    "" it is passed on; "lose" it is passed on and its answer is not; "hang" it is not, and the connection stays open;
    "close" it is not passed on. Bytes are the whole answer, given in the agent's place.
    """

    def __init__(self, agent: Agent) -> None:
        self.fault: Fault = lambda _: ""
        self.seen: list[tuple[str, str]] = []
        """The first line of each request, and its token."""
        self._to = (agent.address, agent.ports["http"])
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server((own_address(9), port))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, args=[self._listener])
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"http://{own_address(9)}:{self.port}"

    def stop(self) -> None:
        """Refuse connections, as a machine whose agent is gone does."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()

    def start(self) -> None:
        self._listen(self.port)

    def close(self) -> None:
        self._over.set()
        with suppress(OSError):
            self.stop()
        for thread in self._threads:
            thread.join()

    def writes(self) -> list[str]:
        return [line for line, _ in self.seen if not line.startswith("GET ")]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[client])
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(10)
            head, body = _request(client)
            if not head:
                return
            lines = head.decode().split("\r\n")
            tokens = [line.split(": ", 1)[1] for line in lines if line.lower().startswith("x-consul-token: ")]
            self.seen.append((lines[0], ",".join(tokens)))
            fault = self.fault(lines[0])
            if isinstance(fault, bytes):
                client.sendall(fault)
            elif fault == "hang":
                self._over.wait(10)
            elif fault in ("", "lose"):
                kept = [line for line in lines if not line.lower().startswith("connection:")]
                with socket.create_connection(self._to, 5) as server:
                    server.settimeout(15)
                    server.sendall("\r\n".join([*kept, "Connection: close"]).encode() + b"\r\n\r\n" + body)
                    while part := server.recv(65536):
                        if not fault:
                            client.sendall(part)


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    came = b""
    while b"\r\n\r\n" not in came:
        part = client.recv(65536)
        if not part:
            return b"", b""
        came += part
    head, body = came.split(b"\r\n\r\n", 1)
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        body += client.recv(65536)
    return head, body


def answer(body: Any, status: str = "200 OK", **headers: Any) -> bytes:
    """A whole HTTP answer."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{more}\r\n"
    return head.encode() + data


def took(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun
