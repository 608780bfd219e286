"""A datacenter of three servers that loses its leader, and then its majority."""

from collections.abc import Iterator

import pytest

from failover.clock import SYSTEM
from failover.errors import Failed, Indeterminate
from failover.routers.consul import Consul
from failover.testing.routers import change
from failover.world import Unknown
from tests.consuls import ROOT, Agent
from tests.routers.consul.mesh import EASTLESS, FULL, WEB
from tests.routers.specs import spec, until


@pytest.fixture
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Agent]]:
    home = tmp_path_factory.mktemp("three")
    agents = [Agent(home / f"s{n}", "east", f"s{n}", 20 + n, bootstrap_expect=3) for n in range(3)]
    for agent in agents:
        agent.more["retry_join"] = [other.lan for other in agents if other is not agent]
    try:
        for agent in agents:
            agent.launch()
        for agent in agents:
            agent.ready()
        yield agents
    finally:
        for agent in agents:
            agent.stop()


def leader(agents: list[Agent]) -> Agent:
    def found() -> list[Agent]:
        said = next(agent for agent in agents if agent.running).get("status/leader") or ""
        return [agent for agent in agents if agent.running and said == f"{agent.address}:{agent.ports['server']}"]

    until(lambda: bool(found()), 30, "an election")
    return found()[0]


def leaderless(one: Consul) -> bool:
    [seen] = one.read([WEB]).values()
    return isinstance(seen, Unknown) and ("gave no answer within 1 s" in seen.why or "has no leader" in seen.why)


def test_a_lost_leader(three: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_TOKEN", ROOT)
    first = leader(three)
    asked, third = [agent for agent in three if agent is not first]

    datacenter = {"address": asked.url, "token": {"env": "ROOT_TOKEN"}, "datacenter": "east"}
    config = Consul.Config.model_validate(
        {
            "datacenters": {"east": datacenter, "west": {**datacenter, "datacenter": "west"}},
            "primary": "east",
            "timeout": "1s",
            "within": "3s",
        }
    )
    route = Consul.RouteConfig.model_validate({"service": "web", "mode": "redirect"})
    one = Consul("mesh", config, {WEB: spec(WEB, route, {"east": 50, "west": 50}, None)}, SYSTEM)
    assert one.read([WEB]) == {WEB: FULL}

    first.stop()
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown) or seen == FULL, "until the others have noticed, a read may still be answered"
    until(lambda: one.read([WEB]) == {WEB: FULL}, 30, "the next leader")
    one.write([change(WEB, FULL, EASTLESS)])
    assert one.read([WEB]) == {WEB: EASTLESS}

    third.stop()
    # A server that has lost its leader dials it for a while, and says so in several ways, before it waits for a vote.
    until(lambda: leaderless(one), 30, "the loss of the majority")
    begun = SYSTEM.monotonic()
    with pytest.raises((Failed, Indeterminate)) as error:
        one.write([change(WEB, EASTLESS, FULL)])
    assert SYSTEM.monotonic() - begun < one.write_timeout
    assert error.value.next

    first.start()
    until(lambda: one.read([WEB]) == {WEB: EASTLESS}, 30, "a majority")
    one.write([change(WEB, EASTLESS, FULL)])
    assert one.read([WEB]) == {WEB: FULL}
