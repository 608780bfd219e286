"""The consul router against two real, federated datacenters: the contract in each of its modes."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from failover.clock import SYSTEM
from failover.routers.consul import Consul
from failover.testing.routers import RouterContract
from tests.consuls import READERS, TOKENS, Proxy, Two
from tests.routers.specs import spec

WEB, API = "web@mesh", "api@mesh"
NORMAL = {"east": 50, "west": 50}
SERVICES = {"web": ("web-1", "web-2"), "api": ("api-1",)}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("consul"))
    try:
        two.start()
        for agent in two.both.values():
            others = [name for name in two.both if name != agent.datacenter]
            query = {"Name": "web", "Service": {"Service": "web", "Failover": {"Datacenters": others}}}
            agent.put("query", query, method="POST")
        yield two
    finally:
        two.stop()


@pytest.fixture
def two(servers: Two, monkeypatch: pytest.MonkeyPatch) -> Two:
    for region in TOKENS:
        monkeypatch.setenv(f"CONSUL_{region.upper()}", TOKENS[region])
        monkeypatch.setenv(f"READER_{region.upper()}", READERS[region])
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "not-to-be-used")
    servers.reset(SERVICES)
    return servers


@pytest.fixture
def proxies(two: Two) -> Iterator[Mapping[str, Proxy]]:
    made = {region: Proxy(agent) for region, agent in two.both.items()}
    yield made
    for proxy in made.values():
        proxy.close()


def router(
    two: Two,
    mode: str,
    *,
    urls: Mapping[str, str] | None = None,
    who: str = "CONSUL",
    routes: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, int] = NORMAL,
    **config: Any,
) -> Consul:
    at = urls or {region: agent.url for region, agent in two.both.items()}
    datacenters = {
        region: {
            "address": at[region],
            "token": {"env": f"{who}_{region.upper()}"},
            "dns": agent.dns,
            "agents": {agent.node: at[region]},
        }
        for region, agent in two.both.items()
    }
    whole = {"datacenters": datacenters, "primary": "east", "timeout": "1s", "within": "5s", **config}
    query = {} if mode == "redirect" else {"query": "web"}
    mine = routes or {WEB: {"service": "web", **query}, API: {"service": "api"}}
    specs = {
        route: spec(route, Consul.RouteConfig.model_validate({"mode": mode, **one}), weights, None)
        for route, one in mine.items()
    }
    for each in specs.values():
        assert list(Consul.mistakes(each)) == []
    return Consul("mesh", Consul.Config.model_validate(whole), specs, SYSTEM)


class ConsulHarness:
    """Both datacenters behind proxies, which is where they are made unreachable."""

    routes = (WEB, API)
    patience = 10.0
    mode: str

    def __init__(self, two: Two, proxies: Mapping[str, Proxy], mode: str) -> None:
        self.two = two
        self.proxies = proxies
        self.mode = mode

    def make(self) -> Consul:
        return router(self.two, self.mode, urls={region: proxy.url for region, proxy in self.proxies.items()})

    def stranger(self) -> Consul:
        return router(self.two, self.mode, who="READER")

    def meddle(self, route: str) -> None:
        service = route.partition("@")[0]
        for one in SERVICES[service]:
            self.two.east.put(f"agent/service/maintenance/{one}", query="enable=true&reason=disk+swap")

    def stop(self) -> None:
        for proxy in self.proxies.values():
            proxy.stop()

    def start(self) -> None:
        for proxy in self.proxies.values():
            proxy.start()


class RedirectHarness(ConsulHarness):
    """The servers themselves are killed and started again."""

    def make(self) -> Consul:
        return router(self.two, self.mode)

    def meddle(self, route: str) -> None:
        body = {"Kind": "service-resolver", "Name": route.partition("@")[0], "Redirect": {"Datacenter": "west"}}
        self.two.east.put("config", body)

    def stop(self) -> None:
        self.two.stop()

    def start(self) -> None:
        self.two.launch()


class TestRedirect(RouterContract):
    @pytest.fixture
    def harness(self, two: Two, proxies: Mapping[str, Proxy]) -> ConsulHarness:
        return RedirectHarness(two, proxies, "redirect")


class TestMaintenance(RouterContract):
    @pytest.fixture
    def harness(self, two: Two, proxies: Mapping[str, Proxy]) -> ConsulHarness:
        return ConsulHarness(two, proxies, "maintenance")


class TestWeights(RouterContract):
    @pytest.fixture
    def harness(self, two: Two, proxies: Mapping[str, Proxy]) -> ConsulHarness:
        return ConsulHarness(two, proxies, "weights")
