"""Modes maintenance and weights: instances, their agents, and the lock between writers."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from failover.errors import Failed, FailoverError, Indeterminate, Refused
from failover.testing.routers import change, state
from failover.verdict import Outcome
from failover.world import RouteState, Unknown
from tests.consuls import Agent, Proxy, Two, answer
from tests.routers.consul.mesh import (
    API,
    EASTLESS,
    FULL,
    SERVICES,
    WEB,
    maintain,
    reasons,
    router,
    settles,
    srv,
    through,
)
from tests.routers.specs import until


@pytest.mark.parametrize("mode", ["maintenance", "weights"])
def test_instances_that_cannot_be_seen_are_unknown(two: Two, proxies: Mapping[str, Proxy], mode: str) -> None:
    proxies["east"].stop()
    one = through(two, proxies, mode)
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown)
    assert f"{proxies['east'].url} (east) cannot be reached: connection refused" in seen.why
    assert one.settled(WEB, FULL, "").outcome is Outcome.UNKNOWN
    proxies["east"].start()


def test_a_service_that_nobody_has_is_unknown(two: Two) -> None:
    for mode in ("maintenance", "weights"):
        one = router(two, mode, routes={WEB: {"service": "nobody"}})
        [seen] = one.read([WEB]).values()
        assert isinstance(seen, Unknown)
        assert "shows no instance of 'nobody'; none is registered, or its token may not read" in seen.why


def test_maintenance_takes_a_region_out_of_dns_and_of_prepared_queries(two: Two) -> None:
    one = router(two, "maintenance")
    assert srv(two.west, "web.service.east.consul") == [50, 50]
    one.write([change(WEB, FULL, EASTLESS)])
    settles(one, EASTLESS)
    assert reasons(two.east) == dict.fromkeys(("web-1", "web-2"), "failover: route web@mesh, region east is drained")
    assert reasons(two.west) == reasons(two.east, "api") == {}
    assert srv(two.west, "web.service.east.consul") == []
    assert srv(two.east, "web.query.consul") == [50, 50]
    assert two.east.get("query/web/execute")["Datacenter"] == "west"
    names = {"consul east", "consul west", f"dns {two.east.dns} for east", f"dns {two.west.dns} for west"}
    assert set(one.answers(WEB, EASTLESS)) == {*names, "query web in east", "query web in west"}
    one.write([change(WEB, EASTLESS, FULL)])
    assert reasons(two.east) == {}
    settles(one, FULL)
    assert srv(two.east, "web.service.east.consul") == [50, 50]


def test_a_query_that_does_not_fail_over_is_not_settled(two: Two) -> None:
    made = two.east.put("query", {"Name": "alone", "Service": {"Service": "web"}}, method="POST")
    one = router(two, "maintenance", routes={WEB: {"service": "web", "query": "alone"}})
    one.write([change(WEB, FULL, EASTLESS)])
    seen = one.answers(WEB, EASTLESS)
    assert "finds no instance; it needs 'Failover'" in str(seen["query alone in east"])
    assert "has no prepared query 'alone'" in str(seen["query alone in west"])
    two.east.put(f"query/{made['ID']}", method="DELETE")


@pytest.mark.parametrize("mode", ["maintenance", "weights"])
def test_maintenance_of_somebody_else_is_never_lifted(two: Two, mode: str) -> None:
    one = router(two, mode)
    maintain(two.east, "web-1", "disk swap")
    until(lambda: reasons(two.east) == {"web-1": "disk swap"}, 5, "theirs")
    assert one.read([WEB]) == {WEB: FULL}, "the region serves by the others"
    one.write([change(WEB, FULL, EASTLESS)])
    assert set(reasons(two.east)) == {"web-1", "web-2"}
    one.write([change(WEB, EASTLESS, FULL)])
    assert reasons(two.east) == {"web-1": "disk swap"}
    settles(one, FULL)
    maintain(two.east, "web-2", "disk swap, too")
    until(lambda: len(reasons(two.east)) == 2, 5, "theirs")
    assert one.read([WEB]) == {WEB: EASTLESS}, "it takes no traffic, whoever did that"
    with pytest.raises(Refused, match=r"somebody else set: web-1 on east-1 \('disk swap'\), web-2"):
        one.write([change(WEB, EASTLESS, FULL)])
    assert reasons(two.east) == {"web-1": "disk swap", "web-2": "disk swap, too"}


@pytest.mark.parametrize("mode", ["maintenance", "weights"])
def test_what_was_left_half_done_leads_on_to_both_ends(two: Two, mode: str) -> None:
    one = router(two, mode)
    half = RouteState({"east": 25, "west": 50})
    for after in (EASTLESS, FULL):
        maintain(two.east, "web-2", "failover: route web@mesh, region east is drained")
        until(lambda: one.read([WEB]) == {WEB: half}, 5, "the half of it")
        assert not one.settled(WEB, FULL, "").passed
        assert not one.settled(WEB, EASTLESS, "").passed
        one.write([change(WEB, half, after)])
        assert one.read([WEB]) == {WEB: after}
        settles(one, after)
        two.reset(SERVICES)


def test_an_instance_that_comes_up_in_a_drained_region_is_seen(two: Two) -> None:
    one = router(two, "maintenance")
    one.write([change(WEB, FULL, EASTLESS)])
    two.register(two.east, "web", "web-3", "192.0.2.99", 50)
    until(lambda: one.read([WEB]) == {WEB: RouteState({"east": 16, "west": 50})}, 5, "the newcomer")
    verdict = one.settled(WEB, EASTLESS, "")
    assert "web-3 on east-1 takes traffic" in str(verdict)


def test_a_nodes_maintenance_of_somebody_else_counts(two: Two) -> None:
    two.east.put("agent/maintenance", query="enable=true&reason=kernel")
    one = router(two, "maintenance")
    until(lambda: one.read([WEB]) == {WEB: EASTLESS}, 5, "the node's maintenance")
    with pytest.raises(Refused, match="'kernel'"):
        one.write([change(WEB, EASTLESS, FULL)])


def test_whole_nodes_can_be_taken_out(two: Two) -> None:
    one = router(two, "maintenance", routes={WEB: {"service": "web", "of": "node"}})
    assert "whatever else runs on them leaves and returns with it" in one.remarks(WEB)[0]
    one.write([change(WEB, FULL, EASTLESS)])
    settles(one, EASTLESS)
    [node] = {
        check["Notes"] for check in two.east.get("health/node/east-1") if check["CheckID"] == "_node_maintenance"
    }
    assert node == "failover: route web@mesh, region east is drained"
    assert srv(two.west, "api.service.east.consul") == []
    one.write([change(WEB, EASTLESS, FULL)])
    assert one.read([WEB]) == {WEB: FULL}
    assert reasons(two.east) == {}


@pytest.mark.parametrize("mode", ["maintenance", "weights"])
@pytest.mark.parametrize(
    ("fault", "kind"), [("lose", Indeterminate), ("close", Indeterminate), ("refuse", Indeterminate)]
)
def test_an_agent_that_does_not_answer(
    two: Two, proxies: Mapping[str, Proxy], mode: str, fault: str, kind: type[FailoverError]
) -> None:
    refused = answer("Permission denied", "403 Forbidden")

    def bad(line: str) -> Any:
        if not line.startswith("PUT /v1/agent/service/maintenance/web-2"):
            return ""
        return refused if fault == "refuse" else fault

    proxies["east"].fault = bad
    after = EASTLESS if mode == "maintenance" else RouteState({"east": 0, "west": 100})
    with pytest.raises((Failed, Indeterminate)) as error:
        through(two, proxies, mode).write([change(WEB, FULL, after)])
    assert type(error.value) is kind
    assert "web-2 on east-1 in east" in error.value.what
    assert sum("maintenance/web-2" in line for line in proxies["east"].writes()) == 1
    proxies["east"].fault = lambda _: ""
    one = through(two, proxies, mode)
    now = state(one, WEB)
    one.write([change(WEB, now, after)])
    assert state(one, WEB) == after


@pytest.fixture
def second(two: Two, tmp_path: Path) -> Iterator[Agent]:
    """Another node in the east, with instances of its own."""
    agent = Agent(tmp_path / "east-2", "east", "east-2", 3, server=False, retry_join=[two.east.lan])
    try:
        agent.start()
        for service in ("web", "api"):
            two.register(agent, service, f"{service}-9", "192.0.2.19", 50)
            until(lambda s=service: len(two.east.get(f"health/service/{s}")) > len(SERVICES[s]), 10, "one more")
        yield agent
    finally:
        agent.stop()
        two.east.put("agent/force-leave/east-2")
        two.east.put("catalog/deregister", {"Node": "east-2"})


def test_a_dead_node_keeps_nobody_in_its_region(two: Two, second: Agent) -> None:
    datacenters = {
        region: {"address": agent.url, "token": {"env": f"CONSUL_{region.upper()}"}, "dns": agent.dns}
        for region, agent in two.both.items()
    }
    datacenters["east"]["agents"] = {second.node: second.url}
    kinds = (("maintenance", WEB, EASTLESS), ("weights", API, RouteState({"east": 0, "west": 100})))
    ways = [(router(two, mode, datacenters=datacenters), route, off) for mode, route, off in kinds]
    second.stop()
    for one, route, off in ways:
        with pytest.raises((Failed, Indeterminate), match="-9 on east-2 in east"):
            one.write([change(route, FULL, off)])
    dead = '"serfHealth", "Name": "Serf Health Status", "Status": "critical"'
    until(lambda: dead in json.dumps(two.east.get("health/node/east-2")), 60, "that it is known to be dead")
    for one, route, off in ways:
        one.write([change(route, state(one, route), off)])
        settles(one, off, route)
        assert f"0 of {len(SERVICES[route[:3]]) + 1} instances" in str(one.answers(route, off))
        assert "1 on nodes that are gone" in str(one.answers(route, off))
    second.start()
    for one, route, off in ways:
        until(lambda one=one, route=route: state(one, route).weights["east"] > 0, 20, "the dead node's return")
        assert "-9 on east-2 takes traffic" in str(one.settled(route, off, ""))
        one.write([change(route, state(one, route), off)])
        settles(one, off, route)
        one.write([change(route, off, FULL)])
        settles(one, FULL, route)
    assert reasons(two.east) == reasons(two.east, "api") == {}


def test_the_agents_that_cannot_be_reached_are_named(two: Two) -> None:
    datacenters = {
        region: {
            "address": agent.url,
            "token": {"env": f"CONSUL_{region.upper()}"},
            "agents": {agent.node: "http://127.0.0.1:9"},
        }
        for region, agent in two.both.items()
    }
    one = router(two, "maintenance", datacenters=datacenters)
    with pytest.raises(
        Failed, match=r"web-\d on east-1 in east: Consul at http://127.0.0.1:9 \(east\) cannot be reached"
    ):
        one.write([change(WEB, FULL, EASTLESS)])
    assert one.read([WEB]) == {WEB: FULL}


def test_nobody_writes_while_somebody_else_holds_the_lock(two: Two) -> None:
    one = router(two, "maintenance", within="1s")
    session = two.east.put("session/create", {"TTL": "60s", "LockDelay": "0s", "Checks": [], "NodeChecks": []})["ID"]
    assert two.east.put("kv/failover/lock/web@mesh", "somebody", query=f"acquire={session}") is True
    with pytest.raises(
        Failed, match="somebody else holds the lock failover/lock/web@mesh, or did a moment ago; nothing was written"
    ) as error:
        one.write([change(WEB, FULL, EASTLESS)])
    assert "ends by itself" in error.value.next
    assert reasons(two.east) == {}
    two.east.put("kv/failover/lock/web@mesh", method="DELETE")
    two.east.put(f"session/destroy/{session}")
    one.write([change(WEB, FULL, EASTLESS)])
    assert two.east.get("kv/failover/lock/web@mesh") is None, "nothing stays behind"
    mine = [each for each in two.east.get("session/list") if each["Name"] == "failover"]
    assert mine == []


def test_weights_come_out_in_dns_and_nothing_else_of_the_service_changes(two: Two) -> None:
    two.register(
        two.east,
        "web",
        "web-1",
        "192.0.2.1",
        50,
        TaggedAddresses={"wan": {"Address": "198.51.100.7", "Port": 8080}},
        EnableTagOverride=True,
        Connect={"Native": True},
        Tags=["blue", "v=1"],
    )
    one = router(two, "weights")
    until(lambda: one.read([WEB]) == {WEB: FULL}, 5, "a clean start")
    assert one.weight_limit(WEB) == 65535

    def kept() -> Any:
        own = two.east.get("agent/service/web-1")
        catalog = next(each for each in two.east.get("health/service/web") if each["Service"]["ID"] == "web-1")
        checks = sorted((check["CheckID"], check["Status"]) for check in catalog["Checks"])
        fields = ("Tags", "Meta", "Port", "Address", "TaggedAddresses", "EnableTagOverride")
        return {key: own.get(key) for key in fields}, catalog["Service"]["Connect"], checks

    stood = kept()
    quarter = RouteState({"east": 25, "west": 75})
    one.write([change(WEB, FULL, quarter)])
    settles(one, quarter)
    assert srv(two.west, "web.service.east.consul") == [25, 25]
    assert srv(two.west, "web.service.west.consul") == [75, 75]
    assert srv(two.west, "api.service.east.consul") == [50]
    assert kept() == stood
    gone = RouteState({"east": 0, "west": 100})
    one.write([change(WEB, quarter, gone)])
    settles(one, gone)
    assert srv(two.west, "web.service.east.consul") == []
    one.write([change(WEB, gone, FULL)])
    settles(one, FULL)
    assert kept() == stood
    assert srv(two.west, "web.service.east.consul") == [50, 50]


def test_an_instance_with_a_warning_has_a_weight_of_its_own(two: Two) -> None:
    two.east.put("agent/check/warn/up-web-2")
    one = router(two, "weights")
    quarter = RouteState({"east": 25, "west": 75})
    one.write([change(WEB, FULL, quarter)])
    until(lambda: srv(two.east, "web.service.east.consul") == [1, 25], 5, "a warning")
    settles(one, quarter)
