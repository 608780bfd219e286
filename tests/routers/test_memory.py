"""The routers in memory keep the contract too, so that tests on them mean something."""

from collections.abc import Iterator

import pytest

from failover.clock import SYSTEM
from failover.routers.memory import MemoryRouter, MemorySwitch, forget
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState
from tests.routers.specs import spec

ROUTES = ("web@memory", "api@memory")


class MemoryHarness:
    routes = ROUTES
    patience = 0.0

    def __init__(self, kind: type[MemorySwitch]) -> None:
        self.kind = kind
        self._made: list[MemorySwitch] = []

    def make(self) -> MemorySwitch:
        config = self.kind.Config.model_validate({"shared": "contract"})
        own = self.kind.RouteConfig.model_validate({})
        specs = {route: spec(route, own, {"east": 50, "west": 50}) for route in ROUTES}
        made = self.kind("memory", config, specs, SYSTEM)
        self._made.append(made)
        return made

    def stranger(self) -> MemorySwitch:
        raise NotImplementedError("there are no credentials in memory")

    def meddle(self, route: str) -> None:
        made = self.make()
        before = state(made, route)
        made.write([change(route, before, RouteState({"east": 50, "west": 0}, before.ttl))])

    def stop(self) -> None:
        for made in self._made:
            made.unreachable.update(ROUTES)

    def start(self) -> None:
        for made in self._made:
            made.unreachable.clear()


@pytest.fixture(params=[MemoryRouter, MemorySwitch])
def harness(request: pytest.FixtureRequest) -> Iterator[MemoryHarness]:
    forget()
    yield MemoryHarness(request.param)
    forget()


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, harness: MemoryHarness) -> MemoryHarness:
        return harness

    test_fails_clearly_with_wrong_credentials = None  # type: ignore[assignment]
