"""The powerdns router against real PowerDNS servers: LUA records by the HTTP API, and a secondary."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.ports import SupportsAnswers, SupportsRemarks, SupportsWeights
from failover.routers.powerdns import PowerDns
from failover.testing.routers import RouterContract, change, state
from failover.verdict import Outcome
from failover.world import RouteState, Unknown
from tests.routers.bind import ZONE
from tests.routers.powerdns import API_KEY, PdnsPair, PdnsServer, Proxy
from tests.routers.specs import LOOPBACK, free_port, spec, until
from tests.routers.unbound import Unbound

WEB, API, SIX = "web@dns", "api@dns", "six@dns"
NORMAL = {"east": 50, "west": 50}
TTL = 60
RECORDS = {WEB: f"web.{ZONE}", API: f"api.{ZONE}"}
ADDRESSES = {"east": ["192.0.2.1", "192.0.2.2"], "west": ["192.0.2.11"]}
SIXES = {"east": ["2001:db8::1"], "west": ["2001:db8::11"]}
CONTENT = "A \"pickwrandom({{50,'192.0.2.1'},{50,'192.0.2.2'},{100,'192.0.2.11'}})\""
FULL = RouteState(NORMAL, TTL)
EASTLESS = RouteState({"east": 0, "west": 100}, TTL)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PdnsPair]:
    pair = PdnsPair(tmp_path_factory.mktemp("pdns"))
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def pair(servers: PdnsPair, monkeypatch: pytest.MonkeyPatch) -> PdnsPair:
    monkeypatch.setenv("PDNS_API_KEY", API_KEY)
    monkeypatch.setenv("WRONG_API_KEY", "another-key-altogether")
    for record in RECORDS.values():
        for kind in servers.rrsets(record):
            servers.put(record, [], 0, kind)
        servers.put(record, [CONTENT], TTL)
    return servers


@pytest.fixture
def proxy(pair: PdnsPair) -> Iterator[Proxy]:
    made = Proxy(pair.primary.api)
    yield made
    made.close()


def router(
    pair: PdnsPair, *, api: int = 0, key: str = "PDNS_API_KEY", servers: Sequence[int] = (), **more: Any
) -> PowerDns:
    config: dict[str, Any] = {
        "url": f"http://{LOOPBACK}:{api or pair.primary.api}",
        "api_key": {"env": key},
        "zone": ZONE,
        "name_servers": [f"{LOOPBACK}:{port}" for port in servers or [pair.primary.port]],
        "timeout": "1s",
        "dns_timeout": "300ms",
        "race_window": "400ms",
        **more,
    }
    routes = {
        route: spec(route, PowerDns.RouteConfig.model_validate({"record": record, "addresses": ADDRESSES}), NORMAL)
        for route, record in RECORDS.items()
    }
    six = PowerDns.RouteConfig.model_validate({"record": RECORDS[WEB], "type": "AAAA", "addresses": SIXES})
    return PowerDns("dns", PowerDns.Config.model_validate(config), {**routes, SIX: spec(SIX, six, NORMAL)}, SYSTEM)


class PdnsHarness:
    routes = (WEB, API)
    patience = 10.0

    def __init__(self, pair: PdnsPair) -> None:
        self.pair = pair

    def make(self) -> PowerDns:
        return router(self.pair, servers=[self.pair.primary.port, self.pair.secondary.port], notify=True)

    def stranger(self) -> PowerDns:
        return router(self.pair, key="WRONG_API_KEY")

    def meddle(self, route: str) -> None:
        self.pair.put(RECORDS[route], [CONTENT], 90)

    def stop(self) -> None:
        self.pair.primary.stop()

    def start(self) -> None:
        self.pair.primary.start()


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, pair: PdnsPair) -> PdnsHarness:
        return PdnsHarness(pair)


def test_has_weights_answers_and_a_remark(pair: PdnsPair) -> None:
    one = router(pair)
    assert isinstance(one, SupportsWeights)
    assert isinstance(one, SupportsAnswers)
    assert isinstance(one, SupportsRemarks)
    assert one.weight_limit(WEB) == 65_535
    [remark] = one.remarks(WEB)
    assert f"leave web.{ZONE} alone with other tools meanwhile" in remark


def test_what_is_written_is_a_pickwrandom_and_a_mark(pair: PdnsPair) -> None:
    one = router(pair)
    one.write([change(WEB, FULL, RouteState({"east": 25, "west": 75}, 5))])
    there = pair.rrsets(RECORDS[WEB])["LUA"]
    assert there["records"] == [
        {"content": "A \"pickwrandom({{25,'192.0.2.1'},{25,'192.0.2.2'},{150,'192.0.2.11'}})\"", "disabled": False}
    ]
    assert there["ttl"] == 5
    [comment] = there["comments"]
    assert comment["account"] == "failover"
    one.write([change(WEB, RouteState({"east": 25, "west": 75}, 5), EASTLESS)])
    there = pair.rrsets(RECORDS[WEB])["LUA"]
    assert there["records"] == [{"content": "A \"pickwrandom({{200,'192.0.2.11'}})\"", "disabled": False}]
    assert len(there["comments"]) == 1


def test_regions_get_their_shares_however_many_addresses_they_have(pair: PdnsPair) -> None:
    router(pair).write([change(WEB, FULL, RouteState({"east": 25, "west": 75}, TTL))])
    query = dns.message.make_query(RECORDS[WEB], "A")
    picked = [dns.query.udp(query, LOOPBACK, 5, pair.primary.port).answer[0][0].to_text() for _ in range(600)]
    east = sum(address in ADDRESSES["east"] for address in picked)
    assert 80 < east < 220, "a quarter of 600, six standard deviations on either side"
    assert set(picked) == {address for own in ADDRESSES.values() for address in own}


def test_what_is_there_is_not_written_again(pair: PdnsPair, proxy: Proxy) -> None:
    router(pair, api=proxy.port).write([change(WEB, FULL, FULL)])
    assert proxy.count("PATCH") == 0


def test_all_routes_go_in_one_patch(pair: PdnsPair, proxy: Proxy) -> None:
    router(pair, api=proxy.port).write([change(WEB, FULL, EASTLESS), change(API, FULL, EASTLESS)])
    assert proxy.count("PATCH") == 1


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ([], f"there is no LUA record of type A at web.{ZONE}; make one: LUA {CONTENT}"),
        (["A \"pickrandom({'192.0.2.1'})\""], 'is not a single pickwrandom as this router writes it: A "pickrandom('),
        (["A \";return pickwrandom({{1,'192.0.2.1'}})\""], "is not a single pickwrandom"),
        (["A \"pickwrandom({{1,'192.0.2.1'}, {1,'192.0.2.11'}})\""], "is not a single pickwrandom"),
        (
            ["A \"pickwrandom({{100,'192.0.2.99'}})\""],
            'names addresses that belong to no region: 192.0.2.99: A "pick',
        ),
        (
            ["A \"pickwrandom({{50,'192.0.2.1'},{100,'192.0.2.11'}})\""],
            "gives the addresses of east different weights",
        ),
        (["A \"pickwrandom({{5,'192.0.2.1'},{9,'192.0.2.2'}})\""], "gives the addresses of east different weights"),
        (["A \"pickwrandom({{5,'192.0.2.11'}})\""], "gives west a weight that the topology cannot say"),
        (["A \"pickwrandom({{0,'192.0.2.11'}})\""], "gives west a weight that the topology cannot say"),
        (["A \"pickwrandom({{2,'192.0.2.11'},{2,'192.0.2.11'}})\""], "names 192.0.2.11 twice"),
        ([CONTENT, "A \"'192.0.2.7'\""], f"has 2 LUA records of type A: A \"'192.0.2.7'\" and {CONTENT}"),
    ],
)
def test_what_this_router_does_not_write_is_unknown_and_left_alone(
    pair: PdnsPair, contents: Sequence[str], why: str
) -> None:
    pair.put(RECORDS[WEB], contents, TTL)
    before = pair.rrsets(RECORDS[WEB])
    one = router(pair)
    found = one.read([WEB, API])
    assert isinstance(found[WEB], Unknown)
    assert why in found[WEB].why
    assert found[API] == FULL
    with pytest.raises(Conflict) as conflict:
        one.write([change(API, FULL, EASTLESS), change(WEB, FULL, EASTLESS)])
    assert why in conflict.value.what
    assert pair.rrsets(RECORDS[WEB]) == before
    assert state(one, API) == FULL


def test_a_disabled_record_is_not_deleted(pair: PdnsPair) -> None:
    off = {"content": "TXT \"'off'\"", "disabled": True}
    body = {"name": RECORDS[WEB], "type": "LUA", "ttl": TTL, "changetype": "REPLACE"}
    records = [{"content": CONTENT, "disabled": False}, off]
    assert pair.primary.call("PATCH", f"/zones/{ZONE}", {"rrsets": [{**body, "records": records}]})[0] == 204
    one = router(pair)
    assert state(one, WEB) == FULL
    with pytest.raises(Failed, match="has disabled LUA records at web") as failed:
        one.write([change(API, FULL, EASTLESS), change(WEB, FULL, EASTLESS)])
    assert "which a change would delete: TXT \"'off'\"; nothing was written" in failed.value.what
    assert off in pair.rrsets(RECORDS[WEB])["LUA"]["records"]
    assert state(one, API) == FULL


def test_a_route_that_is_disabled_or_in_the_shadow_of_plain_records_is_unknown(pair: PdnsPair) -> None:
    pair.put(RECORDS[WEB], [CONTENT], TTL, disabled=True)
    pair.put(RECORDS[API], ["192.0.2.9"], TTL, "A")
    found = router(pair).read([WEB, API])
    assert isinstance(found[WEB], Unknown)
    assert found[WEB].why.startswith(f"there is no LUA record of type A at web.{ZONE}")
    assert found[API] == Unknown(f"api.{ZONE} has records of type A beside its LUA record")


def test_records_in_another_order_or_another_cut_are_read(pair: PdnsPair) -> None:
    mixed = "A \"pickwrandom({{100,'192.0.2.11'},\" \"{50,'192.0.2.2'},{50,'192.0.2.1'}})\""
    pair.put(RECORDS[WEB], [mixed], TTL)
    assert state(router(pair), WEB) == FULL


def test_what_is_somebody_elses_in_the_same_set_is_kept(pair: PdnsPair) -> None:
    text = "TXT \"'hello'\""
    comment = {"account": "ops", "content": "ask the shop team first", "modified_at": 1_700_000_000}
    body = {
        "name": RECORDS[WEB],
        "type": "LUA",
        "ttl": TTL,
        "changetype": "REPLACE",
        "records": [{"content": content, "disabled": False} for content in (CONTENT, text)],
        "comments": [comment],
    }
    assert pair.primary.call("PATCH", f"/zones/{ZONE}", {"rrsets": [body]})[0] == 204
    one = router(pair)
    one.write([change(WEB, FULL, EASTLESS)])
    one.write([change(WEB, EASTLESS, FULL)])
    there = pair.rrsets(RECORDS[WEB])["LUA"]
    assert {record["content"] for record in there["records"]} == {CONTENT, text}
    assert comment in there["comments"]
    with pytest.raises(Refused, match="would change the TTL of all LUA records at web") as refused:
        one.write([change(WEB, FULL, RouteState(NORMAL, 5))])
    assert refused.value.guard == "ttl-shared"
    assert pair.rrsets(RECORDS[WEB])["LUA"] == there


def test_both_families_of_one_name_move_together(pair: PdnsPair) -> None:
    six = "AAAA \"pickwrandom({{50,'2001:db8::1'},{50,'2001:db8::11'}})\""
    pair.put(RECORDS[WEB], [CONTENT, six], TTL)
    one = router(pair)
    short = RouteState({"east": 0, "west": 100}, 5)
    one.write([change(WEB, FULL, short), change(SIX, FULL, short)])
    assert one.read([WEB, SIX]) == {WEB: short, SIX: short}
    assert one.settled(SIX, short, "").passed
    with pytest.raises(Refused, match="would change the TTL of all LUA records"):
        one.write([change(WEB, short, FULL), change(SIX, short, RouteState(NORMAL, 6))])
    assert one.read([WEB, SIX]) == {WEB: short, SIX: short}


@pytest.mark.parametrize(
    ("settings", "words", "then"),
    [
        ({"key": "WRONG_API_KEY"}, "does not take this API key (401)", "api_key"),
        ({"zone": "elsewhere.test."}, "has no zone elsewhere.test. on server 'localhost' (404)", "'zone'"),
        ({"server_id": "other"}, f"has no zone {ZONE} on server 'other' (404)", "'server_id'"),
        ({"api": free_port()}, "cannot be asked: connection refused", "'url'"),
    ],
    ids=["key", "zone", "server-id", "nobody"],
)
def test_what_the_api_refuses_is_told_in_words(
    pair: PdnsPair, settings: dict[str, Any], words: str, then: str
) -> None:
    one = router(pair, **settings)
    found = one.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert words in found.why
    with pytest.raises(Failed, match="the PowerDNS API at http") as failed:
        one.write([change(WEB, FULL, EASTLESS)])
    assert words in failed.value.what
    assert then in failed.value.next
    assert failed.value.where == "router dns"
    assert not one.settled(WEB, FULL, "").passed
    assert "another-key" not in str(failed.value)
    assert state(router(pair), WEB) == FULL


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("400 {}", "does not take this (400)"),
        ('422 {"error": "no\\nway"}', "does not take this (422): no way; nothing was written"),
        ("403 Forbidden", "does not take this API key (403); nothing was written"),
        ("404 Not Found", f"has no zone {ZONE} on server 'localhost' (404); nothing was written"),
        ("301 ", "answers 301 Moved Permanently"),
        ('500 {"error": "database is locked"}', "failed inside (500): database is locked; nothing was written"),
    ],
)
def test_a_refused_patch_has_written_nothing(pair: PdnsPair, proxy: Proxy, fault: str, words: str) -> None:
    proxy.fault = lambda method: fault if method == "PATCH" else ""
    with pytest.raises(Failed) as failed:
        router(pair, api=proxy.port).write([change(WEB, FULL, EASTLESS)])
    assert words in failed.value.what
    assert failed.value.next
    assert proxy.count("PATCH") == 1
    assert state(router(pair), WEB) == FULL


@pytest.mark.parametrize(
    ("fault", "after"),
    [
        ("lose", EASTLESS),
        ("hang", EASTLESS),
        ("close", FULL),
        ("502 Bad Gateway", FULL),
        ("504 Gateway Timeout", FULL),
        ("202 Accepted", FULL),
        ("raw SSH-2.0-OpenSSH_9.2\r\n", FULL),
    ],
)
def test_a_patch_whose_answer_was_lost_is_indeterminate_and_not_repeated(
    pair: PdnsPair, proxy: Proxy, fault: str, after: RouteState
) -> None:
    proxy.fault = lambda method: fault if method == "PATCH" else ""
    one = router(pair, api=proxy.port)
    began = SYSTEM.monotonic()
    with pytest.raises(Indeterminate, match="its answer was lost"):
        one.write([change(WEB, FULL, EASTLESS)])
    assert SYSTEM.monotonic() - began < one.write_timeout
    assert proxy.count("PATCH") == 1
    assert state(router(pair), WEB) == after


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("200 <html>hello</html>", "answers what no zone looks like: <html>hello</html>"),
        ("200 []", "answers what no zone looks like: []"),
        ('200 {"serial": 1, "name": "other.test.", "rrsets": []}', "answers what no zone looks like"),
        (f'200 {{"serial": 1, "name": "{ZONE}", "rrsets": [{{"name": 1}}]}}', "answers what no zone looks like"),
        ("500 Internal Server Error", "answers 500 Internal Server Error: Internal Server Error"),
        ("302 ", "answers 302 Found"),
        ("raw garbage\r\n\r\n", "cannot be asked: "),
        ("close", "cannot be asked: "),
        ("hang", "cannot be asked: no answer within 1 s"),
        ("drip", "cannot be asked: no answer within 1 s"),
    ],
)
def test_nonsense_and_silence_are_unknown(pair: PdnsPair, proxy: Proxy, fault: str, words: str) -> None:
    proxy.fault = lambda _: fault
    one = router(pair, api=proxy.port)
    began = SYSTEM.monotonic()
    found = one.read([WEB, API])
    assert SYSTEM.monotonic() - began < 3
    for seen in found.values():
        assert isinstance(seen, Unknown)
        assert words in seen.why


def test_a_500_that_wrote_after_all_is_done(pair: PdnsPair, proxy: Proxy) -> None:
    one = router(pair, api=proxy.port)
    proxy.fault = lambda method: "500after" if method == "PATCH" else ""
    one.write([change(WEB, FULL, EASTLESS)])
    assert state(router(pair), WEB) == EASTLESS


def test_a_change_in_the_same_moment_is_told(pair: PdnsPair, proxy: Proxy) -> None:
    def meddle(method: str) -> str:
        if method == "GET" and proxy.count("PATCH"):
            pair.put(RECORDS[WEB], [CONTENT], 77)
        return ""

    proxy.fault = meddle
    with pytest.raises(Conflict, match="it is east 50, west 50, TTL 77 s now"):
        router(pair, api=proxy.port).write([change(WEB, FULL, EASTLESS)])
    assert state(router(pair), WEB) == RouteState(NORMAL, 77)


def test_a_change_of_one_of_two_in_the_same_moment_is_told_exactly(pair: PdnsPair, proxy: Proxy) -> None:
    def meddle(method: str) -> str:
        if method == "GET" and proxy.count("PATCH"):
            pair.put(RECORDS[WEB], [CONTENT], 77)
        return ""

    proxy.fault = meddle
    with pytest.raises(Indeterminate, match="written: api@dns; changed by somebody else in the same moment: web@dns"):
        router(pair, api=proxy.port).write([change(WEB, FULL, EASTLESS), change(API, FULL, EASTLESS)])


def test_a_rival_that_writes_the_same_is_a_rival_too(pair: PdnsPair, proxy: Proxy) -> None:
    rivals: list[str] = []

    def meddle(method: str) -> str:
        if method == "GET" and proxy.count("PATCH") and not rivals:
            rivals.append("one")
            pair.put(RECORDS[WEB], [CONTENT], TTL)
            router(pair).write([change(WEB, FULL, EASTLESS)])
        return ""

    proxy.fault = meddle
    with pytest.raises(Conflict):
        router(pair, api=proxy.port, timeout="3s").write([change(WEB, FULL, EASTLESS)])


def test_a_write_that_cannot_be_read_back_is_indeterminate(pair: PdnsPair, proxy: Proxy) -> None:
    proxy.fault = lambda method: "close" if method == "GET" and proxy.count("PATCH") else ""
    with pytest.raises(Indeterminate, match="was sent and cannot be read back"):
        router(pair, api=proxy.port).write([change(WEB, FULL, EASTLESS)])
    assert state(router(pair), WEB) == EASTLESS


def test_a_zone_whose_serial_stands_still_is_refused_where_it_has_secondaries(pair: PdnsPair) -> None:
    ports = [pair.primary.port, pair.secondary.port]
    assert pair.primary.call("PUT", f"/zones/{ZONE}", {"soa_edit_api": ""})[0] == 204
    try:
        with pytest.raises(Failed, match="does not raise the serial of example") as failed:
            router(pair, servers=ports).write([change(WEB, FULL, EASTLESS)])
        assert "SOA-EDIT-API" in failed.value.next
        assert state(router(pair), WEB) == FULL
        alone = router(pair)
        alone.write([change(WEB, FULL, EASTLESS)])
        assert alone.settled(WEB, EASTLESS, "").passed
    finally:
        assert pair.primary.call("PUT", f"/zones/{ZONE}", {"soa_edit_api": "DEFAULT"})[0] == 204


def test_a_stale_secondary_is_named_until_it_is_notified(pair: PdnsPair) -> None:
    pair.transferred()
    ports = [pair.primary.port, pair.secondary.port]
    silent = router(pair, servers=ports)
    receipt = silent.write([change(WEB, FULL, EASTLESS)])
    stale = re.compile(rf"{LOOPBACK}:{ports[1]} still has serial \d+ of {re.escape(ZONE)}, wanted {receipt}")

    def only_the_secondary() -> bool:
        verdict = silent.settled(WEB, EASTLESS, receipt)
        assert not verdict.passed
        return len(verdict.evidence) == 1 and stale.fullmatch(verdict.evidence[0]) is not None

    until(only_the_secondary, 10, "the primary's answer")
    loud = router(pair, servers=ports, notify=True)
    receipt = loud.write([change(WEB, EASTLESS, FULL)])
    until(lambda: loud.settled(WEB, FULL, receipt).passed, 10, "the secondary's transfer")
    pair.secondary.stop()
    try:
        receipt = loud.write([change(WEB, FULL, EASTLESS)])
        down = loud.settled(WEB, EASTLESS, receipt)
    finally:
        pair.secondary.start()
    assert down.evidence == (f"{LOOPBACK}:{ports[1]} gave no answer within 0.3 s, asked 2 times",)


def test_a_notify_that_fails_is_told_by_whoever_waits(pair: PdnsPair, proxy: Proxy) -> None:
    pair.transferred()
    proxy.fault = lambda method: '422 {"error": "not a primary"}' if method == "PUT" else ""
    one = router(pair, api=proxy.port, servers=[pair.primary.port, pair.secondary.port], notify=True)
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    said = one.settled(WEB, EASTLESS, receipt).evidence
    assert f"the secondaries were not notified (422 not a primary); pdns_control notify {ZONE} does it" in said


def test_a_secondary_that_does_not_carry_out_lua_is_named(pair: PdnsPair, tmp_path: Path) -> None:
    deaf = PdnsServer(tmp_path / "deaf", free_port(), "secondary=yes\n", lua=False)
    deaf.start()
    try:
        copy = {"name": ZONE, "kind": "Slave", "masters": [f"{LOOPBACK}:{pair.primary.port}"]}
        assert deaf.call("POST", "/zones", copy)[0] == 201
        assert deaf.call("PUT", f"/zones/{ZONE}/axfr-retrieve")[0] == 200
        one = router(pair, servers=[pair.primary.port, deaf.port])
        wanted = f"{LOOPBACK}:{deaf.port} answers no web.{ZONE} A; is enable-lua-records on there?"
        until(lambda: wanted in one.settled(WEB, FULL, "").evidence, 10, "its transfer")
    finally:
        deaf.stop()


def test_a_long_record_arrives_whole_at_the_secondary(pair: PdnsPair) -> None:
    many = {"east": [f"198.51.100.{n}" for n in range(1, 41)], "west": [f"203.0.113.{n}" for n in range(1, 31)]}
    config = PowerDns.RouteConfig.model_validate({"record": RECORDS[WEB], "addresses": many})
    pair.put(RECORDS[WEB], [config.content(NORMAL)], TTL)
    assert all(len(part) <= 255 for part in config.content(NORMAL).split('"')[1::2])
    model = router(pair, servers=[pair.primary.port, pair.secondary.port], notify=True)
    one = PowerDns("dns", model.config, {WEB: spec(WEB, config, NORMAL)}, SYSTEM)
    wanted = RouteState({"east": 1, "west": 99}, TTL)
    receipt = one.write([change(WEB, FULL, wanted)])
    assert state(one, WEB) == wanted
    until(lambda: one.settled(WEB, wanted, receipt).passed, 10, "the secondary's transfer")


def test_resolvers_between_a_drain_and_its_end(pair: PdnsPair, tmp_path: Path) -> None:
    pair.put(RECORDS[WEB], [CONTENT], 1)
    honest = Unbound(tmp_path / "honest", pair.primary.port)
    stretching = Unbound(tmp_path / "stretching", pair.primary.port, ["cache-min-ttl: 300"])
    full, eastless, half = (RouteState({"east": e, "west": w}, 1) for e, w in ((50, 50), (0, 100), (20, 80)))
    eastern = RouteState({"east": 100, "west": 0}, 1)
    try:
        honest.start()
        stretching.start()
        resolvers = [f"{LOOPBACK}:{each.port}" for each in (honest, stretching)]
        one = router(pair, resolvers=resolvers)
        own = f"name server {LOOPBACK}:{pair.primary.port}"
        one.write([change(WEB, full, eastern)])
        for each in (honest, stretching):
            assert dns.query.udp(dns.message.make_query(RECORDS[WEB], "A"), LOOPBACK, 5, each.port).answer
        assert {name: verdict.outcome for name, verdict in one.answers(WEB, eastless).items()} == {
            own: Outcome.FAIL,
            f"resolver {resolvers[0]}": Outcome.FAIL,
            f"resolver {resolvers[1]}": Outcome.FAIL,
        }
        one.write([change(WEB, eastern, half)])
        assert all(verdict.passed for verdict in one.answers(WEB, half).values())
        one.write([change(WEB, half, eastless)])

        def found() -> dict[str, Outcome]:
            return {name: verdict.outcome for name, verdict in one.answers(WEB, eastless).items()}

        wanted = {
            own: Outcome.PASS,
            f"resolver {resolvers[0]}": Outcome.PASS,
            f"resolver {resolvers[1]}": Outcome.FAIL,
        }
        until(lambda: found() == wanted, 10, "the honest cache forgetting")
        assert found() == wanted
    finally:
        stretching.stop()
        honest.stop()


def test_nobody_can_tell_a_share_from_a_few_answers_alone(pair: PdnsPair) -> None:
    one = router(pair, api=free_port())
    [verdict] = one.answers(WEB, FULL).values()
    assert verdict.outcome is Outcome.UNKNOWN
    assert "cannot be asked: connection refused" in verdict.evidence[-1]
    [verdict] = router(pair).answers(WEB, RouteState({"east": 40, "west": 60}, TTL)).values()
    assert verdict.outcome is Outcome.UNKNOWN
    assert "has east 50, west 50, TTL 60 s, wanted east 40, west 60, TTL 60 s" in verdict.evidence[-1]


@pytest.mark.parametrize(
    ("addresses", "weights", "place", "said"),
    [
        ({"east": ["192.0.2.1"]}, NORMAL, ("addresses",), "region 'west' has no addresses"),
        ({**ADDRESSES, "west": []}, NORMAL, ("addresses",), "region 'west' has no addresses"),
        ({**ADDRESSES, "west": ["here"]}, NORMAL, ("addresses", "west", 0), "'here' is not an IP address"),
        ({**ADDRESSES, "west": ["::1"]}, NORMAL, ("addresses", "west", 0), "::1 is not an IPv4 address"),
        (
            {**ADDRESSES, "west": ["192.0.2.2"]},
            NORMAL,
            ("addresses", "west", 0),
            "192.0.2.2 belongs to region 'east'",
        ),
        ({**ADDRESSES, "west": ["192.0.2.9"] * 2}, NORMAL, ("addresses", "west", 1), "192.0.2.9 stands here twice"),
        ({**ADDRESSES, "wst": ["192.0.2.9"]}, NORMAL, ("addresses", "wst"), "this route has no region 'wst'"),
        (ADDRESSES, {"east": 65_535, "west": 1}, ("weights",), "the weights add up to 65536; 65535 is the limit"),
    ],
)
def test_mistakes_in_a_route(
    addresses: dict[str, list[str]], weights: dict[str, int], place: tuple[str | int, ...], said: str
) -> None:
    config = PowerDns.RouteConfig.model_validate({"record": "web.example.test", "addresses": addresses})
    [(path, message)] = PowerDns.mistakes(spec(WEB, config, weights))
    assert path == place
    assert message.startswith(said)


def test_a_standby_needs_no_weight() -> None:
    config = PowerDns.RouteConfig.model_validate({"record": "web.example.test", "addresses": ADDRESSES})
    assert list(PowerDns.mistakes(spec(WEB, config, {"east": 100, "west": 0}))) == []
    assert config.weights(config.content({"east": 100, "west": 0}), NORMAL) == {"east": 100, "west": 0}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("url", "192.0.2.53:8081", "this is not the URL of an API"),
        ("url", "http://u:p@192.0.2.53:8081", "a URL with a user or a password in it ends up in logs"),
        ("url", "http://192.0.2.53:8081/api/v1/", "leave /api/v1 out"),
        ("zone", "", "is not a full domain name"),
        ("server_id", "a/b", "a server id is one word"),
        ("name_servers", [], "at least 1 item"),
        ("api_key", "geheim", "a secret never stands in a file"),
    ],
)
def test_mistakes_in_the_router(key: str, value: Any, said: str) -> None:
    good = {"url": "http://192.0.2.53:8081", "api_key": {"env": "X"}, "zone": ZONE, "name_servers": ["192.0.2.53"]}
    PowerDns.Config.model_validate(good)
    with pytest.raises(ValidationError, match=said):
        PowerDns.Config.model_validate({**good, key: value})
