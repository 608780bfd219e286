"""examples/consul-two-datacenters on real agents: the example's file with their addresses, and a hook on requests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest
import yaml

from tests.consuls import READERS, Agent, Proxy, Two
from tests.e2e.product import ROOT, Done, failover

EXAMPLE = ROOT / "examples" / "consul-two-datacenters"
SERVICES = {"web": ("web-1", "web-2"), "chat": ("chat-1", "chat-2"), "api": ("api-1",)}
EAST, WEST = ["192.0.2.11", "192.0.2.12"], ["192.0.2.21", "192.0.2.22"]
README = (EXAMPLE / "README.md").read_text()
TOKENS = {
    "CONSUL_EAST": "e2e2e2e2-1111-2222-3333-444444444444",
    "CONSUL_WEST": "d2d2d2d2-1111-2222-3333-444444444444",
}
SECRETS = {**TOKENS, "CONSUL_READER": READERS["east"]}


class Shop:
    """The two datacenters as the example wants them, and the example's file with short waits."""

    secrets = SECRETS

    def __init__(self, two: Two, place: Path) -> None:
        self.two = two
        two.reset(SERVICES)
        self.proxies = {region: Proxy(agent) for region, agent in two.both.items()}
        document: dict[str, Any] = yaml.safe_load((EXAMPLE / "failover.yaml").read_text())
        router = document["routers"]["consul"]["consul"]
        for region, agent in two.both.items():
            url = self.proxies[region].url
            document["regions"][region]["consul"] = agent.url
            router["datacenters"][region] |= {"address": url, "dns": agent.dns, "agents": {agent.node: url}}
        router |= {"timeout": "1s", "within": "2s"}
        document["drain"] = {"stages": [50, 0], "soak": "0s"}
        self.topology = place / "failover.yaml"
        self.topology.write_text(yaml.safe_dump(document, sort_keys=False))
        self.stood = self.standing()

    def __call__(self, *words: str, code: int = 0, **more: Any) -> Done:
        return failover(self.topology, *words, code=code, **self.secrets, **more)

    def edit(self, change: Callable[[Any], None]) -> None:
        document = yaml.safe_load(self.topology.read_text())
        change(document)
        self.topology.write_text(yaml.safe_dump(document, sort_keys=False))

    def only(self, service: str) -> None:
        """Leave just that service in the file."""

        def others_out(document: Any) -> None:
            document["services"] = {service: document["services"][service]}

        self.edit(others_out)

    def standing(self) -> Any:
        """All that a run could have changed, in both datacenters, without the numbers that only count up."""

        def kept(agent: Agent, service: str) -> Any:
            fields = ("ID", "Address", "Port", "Tags", "Meta", "Weights")
            return [
                ({key: one["Service"][key] for key in fields}, sorted(check["CheckID"] for check in one["Checks"]))
                for one in agent.get(f"health/service/{service}")
            ]

        found = {f"{service} {name}": kept(a, service) for service in SERVICES for name, a in self.two.both.items()}
        return {**found, "api": resolver(self.two.east)}

    def weights(self) -> dict[str, dict[str, int]]:
        """What `failover status` says of each service."""
        routes = self("status", "--json").json["routes"]
        return {name.partition("@")[0]: dict(route["weights"]) for name, route in routes.items()}

    def last(self) -> str:
        return str(self("runs", "--json").json["runs"][-1]["run"])

    def when(self, region: str, first: str, then: Callable[[], object]) -> None:
        """Do `then` once, as the first request that begins with `first` has come and before it is passed on."""
        due = [then]

        def fault(line: str) -> str:
            if due and line.startswith(first):
                due.pop()()
            return ""

        self.proxies[region].fault = fault

    def writes(self) -> list[str]:
        """Every write to a service or a config entry that was asked of either datacenter: no locks, no sessions."""
        return [
            line.removesuffix(" HTTP/1.1")
            for proxy in self.proxies.values()
            for line in proxy.writes()
            if "/v1/agent/" in line or "/v1/config" in line
        ]

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()


def resolver(agent: Agent, service: str = "api") -> Any:
    found = agent.get(f"config/service-resolver/{service}")
    return found and {key: value for key, value in found.items() if not key.endswith("Index")}


def chain(agent: Agent, service: str = "api") -> set[str]:
    """The datacenters to which the mesh's clients of `agent` are led."""
    found = agent.get(f"discovery-chain/{service}", query=f"compile-dc={agent.datacenter}")
    return {target["Datacenter"] for target in found["Chain"]["Targets"].values()}


def addresses(agent: Agent, name: str) -> list[str]:
    """What a DNS client of that datacenter is answered."""
    response = dns.query.tcp(dns.message.make_query(name, "A"), agent.address, 5, agent.ports["dns"])
    return sorted(record.address for each in response.answer for record in each)


def weights(agent: Agent, name: str) -> list[int]:
    response = dns.query.tcp(dns.message.make_query(name, "SRV"), agent.address, 5, agent.ports["dns"])
    return sorted(record.weight for each in response.answer for record in each)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    made = Two(tmp_path_factory.mktemp("consul"))
    try:
        made.start()
        # The policy that the README asks for, and no more.
        made.east.put("acl/policy", {"Name": "example", "Rules": README.split("```hcl\n")[1].split("```")[0]})
        for secret in TOKENS.values():
            made.east.put("acl/token", {"SecretID": secret, "Policies": [{"Name": "example"}]})
        made.copied("example", secrets=TOKENS.values())
        for agent in made.both.values():
            others = [name for name in made.both if name != agent.datacenter]
            query = {"Name": "web", "Service": {"Service": "web", "Failover": {"Datacenters": others}}}
            agent.put("query", query, method="POST")
        yield made
    finally:
        made.stop()


@pytest.fixture
def shop(two: Two, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(two, tmp_path)
    yield made
    made.close()
