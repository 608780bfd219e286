"""The contract, once for each mode."""

from collections.abc import Mapping

import pytest

from failover.routers.consul import Consul
from failover.testing.routers import RouterContract
from tests.consuls import Proxy, Two
from tests.routers.consul.mesh import (
    API,
    SERVICES,
    WEB,
    router,
)


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
