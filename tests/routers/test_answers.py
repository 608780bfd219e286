"""What name servers and resolvers answer: BIND behind real Unbound caches, one of which stretches TTLs."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dns.message
import dns.query
import pytest

from failover.clock import SYSTEM
from failover.ports import SupportsAnswers
from failover.routers._answers import agreed, allows, ask_all
from failover.routers._dns import Server, Unanswered
from failover.routers.rfc2136 import Rfc2136
from failover.testing.routers import change
from failover.verdict import Outcome, failed, passed, unknown
from failover.world import RouteState
from tests.routers.bind import ADDRESSES, KEY, SECRET, ZONE, Pair
from tests.routers.specs import LOOPBACK, free_port, spec, until
from tests.routers.unbound import Unbound

WEB, SRV = "web@dns", "srv@dns"
TTL = 1
EVERYTHING = [address for each in ADDRESSES.values() for address in each]
NORMAL = {"east": 50, "west": 50}
FULL, EASTLESS, WESTLESS = (
    RouteState({"east": east, "west": west}, TTL) for east, west in ((50, 50), (0, 50), (50, 0))
)


@dataclass(frozen=True)
class Estate:
    """Records under a name of its own, so that no cache knows them yet."""

    pair: Pair
    honest: Unbound
    stretching: Unbound
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def record(self, name: str) -> str:
        return f"{name}.{self.name}.{ZONE}"

    def router(self, resolvers: Sequence[int]) -> Rfc2136:
        config: dict[str, Any] = {
            "server": f"{LOOPBACK}:{self.pair.primary.port}",
            "zone": ZONE,
            "tsig": {"name": KEY, "secret": {"env": "TSIG_SECRET"}},
            "name_servers": [f"{LOOPBACK}:{self.pair.primary.port}", f"{LOOPBACK}:{self.pair.secondary.port}"],
            "resolvers": [f"{LOOPBACK}:{port}" for port in resolvers],
            "timeout": "500ms",
        }
        srv = {"east": f"east.{ZONE}:443", "west": f"west.{ZONE}:443"}
        routes = {
            WEB: {"record": self.record("web"), "addresses": ADDRESSES},
            SRV: {"record": self.record("_srv"), "type": "SRV", "targets": srv},
        }
        made = {
            route: spec(route, Rfc2136.RouteConfig.model_validate(each), NORMAL) for route, each in routes.items()
        }
        return Rfc2136("dns", Rfc2136.Config.model_validate(config), made, SYSTEM)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, Unbound, Unbound]]:
    home = tmp_path_factory.mktemp("answers")
    pair = Pair(home)
    honest = Unbound(home / "honest", pair.primary.port)
    stretching = Unbound(home / "stretching", pair.primary.port, ["cache-min-ttl: 300"])
    started = (pair, honest, stretching)
    try:
        for each in started:
            each.start()
        yield started
    finally:
        for each in reversed(started):
            each.stop()


@pytest.fixture
def estate(servers: tuple[Pair, Unbound, Unbound], monkeypatch: pytest.MonkeyPatch) -> Estate:
    monkeypatch.setenv("TSIG_SECRET", SECRET)
    made = Estate(*servers)
    made.pair.put(made.record("web"), EVERYTHING, ttl=TTL)
    made.pair.put(made.record("_srv"), [f"0 50 443 {host}.{ZONE}" for host in NORMAL], ttl=TTL, kind="SRV")
    return made


def outcomes(one: Rfc2136, wanted: RouteState, route: str = WEB) -> Mapping[str, Outcome]:
    return {name: verdict.outcome for name, verdict in one.answers(route, wanted).items()}


def warm(port: int, name: str, kind: str = "A") -> None:
    assert dns.query.udp(dns.message.make_query(name, kind), LOOPBACK, 5, port).answer


@pytest.mark.parametrize("route", [WEB, SRV])
def test_a_cache_that_stretches_ttls_is_named_until_it_forgets(estate: Estate, route: str) -> None:
    ports = [estate.honest.port, estate.stretching.port]
    one = estate.router(ports)
    assert isinstance(one, SupportsAnswers)
    config = one._config(route)
    for port in ports:
        warm(port, config.record, config.type)
    one.write([change(route, FULL, EASTLESS)])
    until(lambda: one.settled(route, EASTLESS, "").passed, 10, "both name servers")
    stretched = f"resolver {LOOPBACK}:{ports[1]}"
    expected = {
        f"name server {LOOPBACK}:{estate.pair.primary.port}": Outcome.PASS,
        f"name server {LOOPBACK}:{estate.pair.secondary.port}": Outcome.PASS,
        f"resolver {LOOPBACK}:{ports[0]}": Outcome.PASS,
        stretched: Outcome.FAIL,
    }
    until(lambda: outcomes(one, EASTLESS, route) == expected, 10, "the honest cache forgetting")
    [line] = one.answers(route, EASTLESS)[stretched].evidence
    first = (
        f"{LOOPBACK}:{ports[1]} still answers {min(config.values['east'])}, which is east; its cache keeps it for "
    )
    assert line.startswith(first)
    assert 200 < int(line.removeprefix(first).removesuffix(" s")) <= 300
    assert outcomes(one, FULL, route)[stretched] is Outcome.PASS


def test_before_a_change_every_server_says_the_old_thing(estate: Estate) -> None:
    one = estate.router([estate.honest.port])
    warm(estate.honest.port, estate.record("web"))
    assert set(outcomes(one, WESTLESS).values()) == {Outcome.FAIL}
    until(lambda: set(outcomes(one, FULL).values()) == {Outcome.PASS}, 10, "the secondary's transfer")


def test_a_resolver_that_has_less_than_it_may_passes(estate: Estate) -> None:
    one = estate.router([estate.stretching.port])
    one.write([change(WEB, FULL, EASTLESS)])
    warm(estate.stretching.port, estate.record("web"))
    one.write([change(WEB, EASTLESS, FULL)])
    assert one.answers(WEB, FULL)[f"resolver {LOOPBACK}:{estate.stretching.port}"].passed


def test_what_cannot_be_asked_is_unknown_and_the_rest_is_asked_all_the_same(estate: Estate) -> None:
    nobody = free_port()
    one = estate.router([nobody, estate.honest.port])
    began = SYSTEM.monotonic()
    found = one.answers(WEB, FULL)
    assert SYSTEM.monotonic() - began < 4
    assert found[f"resolver {LOOPBACK}:{nobody}"] == unknown(
        f"{LOOPBACK}:{nobody} gave no answer within 0.5 s, asked 2 times"
    )
    assert found[f"resolver {LOOPBACK}:{estate.honest.port}"].passed


def test_an_authoritative_server_is_no_resolver(estate: Estate) -> None:
    at = estate.pair.primary.port
    found = estate.router([at]).answers(WEB, FULL)[f"resolver {LOOPBACK}:{at}"]
    assert found.outcome is Outcome.UNKNOWN
    assert "does no recursion for us" in found.evidence[0]


def test_a_resolver_that_knows_of_no_record_fails(estate: Estate) -> None:
    at = Server(LOOPBACK, estate.honest.port)
    verdict = allows(at, f"nothing.{ZONE}", "A", {"east": ["192.0.2.1"]}, ["east"], 2)
    assert verdict == failed(f"{at} says that there is no nothing.{ZONE} A")


@pytest.mark.parametrize(
    ("values", "on", "outcome"),
    [
        ({"east": ["192.0.2.1", "192.0.2.2"], "west": ["192.0.2.11"]}, ["east", "west"], Outcome.PASS),
        ({"east": ["192.0.2.1", "192.0.2.2"], "west": ["192.0.2.11"]}, ["west"], Outcome.FAIL),
        ({"east": ["192.0.2.1", "192.0.2.2"], "west": []}, ["east", "west"], Outcome.PASS),
        ({"east": ["192.0.2.1", "192.0.2.2"], "west": []}, ["west"], Outcome.FAIL),
        ({"east": ["192.0.2.1"], "west": ["192.0.2.11"]}, ["east", "west"], Outcome.FAIL),
        ({"east": EVERYTHING, "west": EVERYTHING}, ["west"], Outcome.PASS),
    ],
)
def test_what_is_allowed(estate: Estate, values: dict[str, list[str]], on: list[str], outcome: Outcome) -> None:
    at = Server(LOOPBACK, estate.honest.port)
    assert allows(at, estate.record("web"), "A", values, on, 2).outcome is outcome


def test_a_resolver_that_cannot_reach_the_zone_is_unknown(estate: Estate) -> None:
    one = estate.router([estate.honest.port])
    estate.pair.primary.stop()
    try:
        found = one.answers(WEB, FULL)
    finally:
        estate.pair.primary.start()
    assert found[f"name server {LOOPBACK}:{estate.pair.primary.port}"].outcome is Outcome.UNKNOWN
    assert found[f"resolver {LOOPBACK}:{estate.honest.port}"].outcome is Outcome.UNKNOWN


def test_all_are_asked_at_once_and_each_has_its_name() -> None:
    one, other = Server("192.0.2.1", 53), Server("2001:db8::1", 53)

    def look(at: Server) -> Any:
        if at == other:
            raise Unanswered("silence")
        return passed(str(at))

    assert ask_all([one, other], [one], look, lambda at: failed(str(at))) == {
        "name server 192.0.2.1:53": passed("192.0.2.1:53"),
        "name server [2001:db8::1]:53": unknown("silence"),
        "resolver 192.0.2.1:53": failed("192.0.2.1:53"),
    }
    assert ask_all([], [], look, look) == {}


def test_those_that_agree_and_those_that_do_not() -> None:
    assert agreed([passed("a"), passed("b")]) == passed("a", "b")
    assert agreed([passed("a"), failed("b"), unknown("c")]) == unknown("b", "c")
    assert not agreed([]).passed
