"""Two federated datacenters for all of these tests."""

from collections.abc import Iterator, Mapping

import pytest

from tests.consuls import READERS, TOKENS, Proxy, Two
from tests.routers.consul.mesh import SERVICES


@pytest.fixture(scope="package")
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
