"""The rfc2136 router's SRV records with weights, against real BIND and Knot servers."""

from collections.abc import Iterator, Sequence
from typing import Any

import dns.opcode
import pytest

from failover.clock import SYSTEM
from failover.errors import Conflict, Refused
from failover.routers.rfc2136 import Rfc2136
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState, Unknown
from tests.routers.bind import KEY, SECRET, TTL, ZONE, Pair, Proxy
from tests.routers.knot import KnotPair
from tests.routers.specs import LOOPBACK, spec

WEB, API = "web@dns", "api@dns"
NORMAL = {"east": 60, "west": 40}
RECORDS = {WEB: f"_web._tcp.{ZONE}", API: f"_api._tcp.{ZONE}"}
TARGETS = {"east": f"east.{ZONE}:443", "west": f"west.{ZONE}:8443"}
SRV = [f"10 60 443 east.{ZONE}", f"10 40 8443 west.{ZONE}"]
FULL = RouteState(NORMAL, TTL)


@pytest.fixture(scope="module", params=[Pair, KnotPair], ids=["bind", "knot"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair: Pair = request.param(tmp_path_factory.mktemp("srv"))
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def pair(servers: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setenv("TSIG_SECRET", SECRET)
    monkeypatch.setenv("WRONG_SECRET", "d3Jvbmctc2VjcmV0LXdyb25nLXNlY3JldC13cm9uZw==")
    servers.put_all(list(RECORDS.values()), SRV, kind="SRV")
    return servers


def router(port: int, *, variable: str = "TSIG_SECRET", name_servers: Sequence[int] = ()) -> Rfc2136:
    config: dict[str, Any] = {
        "server": f"{LOOPBACK}:{port}",
        "zone": ZONE,
        "tsig": {"name": KEY, "secret": {"env": variable}},
        "name_servers": [f"{LOOPBACK}:{each}" for each in name_servers],
        "timeout": "1s",
    }
    routes = {
        route: spec(
            route,
            Rfc2136.RouteConfig.model_validate({"record": record, "type": "SRV", "targets": TARGETS, "priority": 10}),
            NORMAL,
        )
        for route, record in RECORDS.items()
    }
    return Rfc2136("dns", Rfc2136.Config.model_validate(config), routes, SYSTEM)


class SrvHarness:
    routes = (WEB, API)
    patience = 10.0

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def make(self) -> Rfc2136:
        ports = [self.pair.primary.port, self.pair.secondary.port]
        return router(ports[0], name_servers=ports)

    def stranger(self) -> Rfc2136:
        return router(self.pair.primary.port, variable="WRONG_SECRET")

    def meddle(self, route: str) -> None:
        self.pair.put(RECORDS[route], [f"10 61 443 east.{ZONE}", SRV[1]], kind="SRV")

    def stop(self) -> None:
        self.pair.primary.stop()

    def start(self) -> None:
        self.pair.primary.start()


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, pair: Pair) -> SrvHarness:
        return SrvHarness(pair)


def test_gives_any_share(pair: Pair) -> None:
    one = router(pair.primary.port)
    assert one.weight_limit(WEB) == 65_535
    after = RouteState({"east": 1, "west": 65_535}, TTL)
    one.write([change(WEB, FULL, after)])
    assert state(one, WEB) == after
    with pytest.raises(Refused, match="would give west 65536; an SRV record takes weights up to 65535"):
        one.write([change(WEB, after, RouteState({"east": 0, "west": 65_536}, TTL))])


def test_a_drained_region_has_no_record_and_comes_back(pair: Pair) -> None:
    one = router(pair.primary.port)
    drained = RouteState({"east": 0, "west": 100}, TTL)
    one.write([change(WEB, FULL, drained)])
    [verdict] = one.answers(WEB, drained).values()
    assert verdict.passed
    assert verdict.evidence == (f"{LOOPBACK}:{pair.primary.port} answers 10 100 8443 west.{ZONE}, TTL 60 s",)
    one.write([change(WEB, drained, FULL)])
    assert state(one, WEB) == FULL


def test_somebody_elses_weight_in_the_last_moment_is_not_overwritten(pair: Pair) -> None:
    proxy = Proxy(pair.primary.port)
    theirs = [f"10 59 443 east.{ZONE}", f"10 41 8443 west.{ZONE}"]

    def meddle(message: Any) -> str:
        if message.opcode() == dns.opcode.UPDATE:
            pair.put(RECORDS[WEB], theirs, kind="SRV")
        return ""

    proxy.fault = meddle
    try:
        with pytest.raises(Conflict) as conflict:
            router(proxy.port).write([change(WEB, FULL, RouteState({"east": 0, "west": 100}, TTL))])
    finally:
        proxy.close()
    assert "found east 59, west 41, TTL 60 s" in conflict.value.seen
    assert state(router(pair.primary.port), WEB) == RouteState({"east": 59, "west": 41}, TTL)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([SRV[0], f"10 0 8443 west.{ZONE}"], "has weight 0 for west, which is not off"),
        ([SRV[0], f"11 40 8443 west.{ZONE}"], "has priority 11 for west, the topology says 10"),
        ([*SRV, f"10 1 443 north.{ZONE}"], f"has targets that belong to no region: north.{ZONE}:443"),
    ],
)
def test_what_is_not_ours_is_unknown_and_left_alone(pair: Pair, records: Sequence[str], why: str) -> None:
    pair.put(RECORDS[WEB], records, kind="SRV")
    one = router(pair.primary.port)
    found = one.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert why in found.why
    with pytest.raises(Conflict):
        one.write([change(WEB, FULL, RouteState({"east": 0, "west": 100}, TTL))])
    assert one.read([WEB])[WEB] == found
