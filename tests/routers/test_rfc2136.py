"""The rfc2136 router against real BIND and Knot servers: a primary, a secondary, and TSIG."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dns.message
import dns.opcode
import pytest

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.routers.rfc2136 import Rfc2136
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState, Unknown
from tests.routers.bind import ADDRESSES, KEY, OTHER_ZONE, READER, READER_SECRET, SECRET, TTL, ZONE, Pair, Proxy
from tests.routers.knot import KnotPair
from tests.routers.specs import LOOPBACK, spec, until

WEB, API = "web@dns", "api@dns"
NORMAL = {"east": 50, "west": 50}
RECORDS = {WEB: f"web.{ZONE}", API: f"api.{ZONE}"}
EVERYTHING = [address for each in ADDRESSES.values() for address in each]
FULL = RouteState(NORMAL, TTL)
EASTLESS = RouteState({"east": 0, "west": 50}, TTL)
SHORT = RouteState({"east": 0, "west": 50}, 5)


@pytest.fixture(scope="module", params=[Pair, KnotPair], ids=["bind", "knot"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair: Pair = request.param(tmp_path_factory.mktemp("dns"))
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()


@pytest.fixture
def pair(servers: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setenv("TSIG_SECRET", SECRET)
    monkeypatch.setenv("WRONG_SECRET", READER_SECRET)
    servers.put_all(list(RECORDS.values()), EVERYTHING)
    return servers


@pytest.fixture
def proxy(pair: Pair) -> Iterator[Proxy]:
    made = Proxy(pair.primary.port)
    yield made
    made.close()


def router(
    port: int,
    *,
    key: str = KEY,
    variable: str = "TSIG_SECRET",
    zone: str = ZONE,
    name_servers: Sequence[int] = (),
    timeout: str = "2s",
    records: Mapping[str, str] = RECORDS,
    **tsig: Any,
) -> Rfc2136:
    config = Rfc2136.Config.model_validate(
        {
            "server": f"{LOOPBACK}:{port}",
            "zone": zone,
            "tsig": {"name": key, "secret": {"env": variable}, **tsig} if key else None,
            "name_servers": [f"{LOOPBACK}:{each}" for each in name_servers],
            "timeout": timeout,
        }
    )
    routes = {
        route: spec(route, Rfc2136.RouteConfig.model_validate({"record": record, "addresses": ADDRESSES}), NORMAL)
        for route, record in records.items()
    }
    return Rfc2136("dns", config, routes, SYSTEM)


class DnsHarness:
    routes = (WEB, API)
    patience = 10.0

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def make(self) -> Rfc2136:
        ports = [self.pair.primary.port, self.pair.secondary.port]
        return router(ports[0], name_servers=ports, timeout="1s")

    def stranger(self) -> Rfc2136:
        return router(self.pair.primary.port, variable="WRONG_SECRET")

    def meddle(self, route: str) -> None:
        self.pair.put(RECORDS[route], ADDRESSES["west"], ttl=90)

    def stop(self) -> None:
        self.pair.primary.stop()

    def start(self) -> None:
        self.pair.primary.start()


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, pair: Pair) -> DnsHarness:
        return DnsHarness(pair)


def test_addresses_have_no_weights(pair: Pair) -> None:
    one = router(pair.primary.port)
    assert one.weight_limit(WEB) == 0
    with pytest.raises(Refused) as refused:
        one.write([change(WEB, FULL, RouteState({"east": 25, "west": 50}, TTL))])
    assert refused.value.guard == "weights-unsupported"
    assert "can only switch east on (50) or off (0)" in str(refused.value)


def test_all_routes_go_in_one_message(pair: Pair, proxy: Proxy) -> None:
    router(proxy.port).write([change(WEB, FULL, EASTLESS), change(API, FULL, SHORT)])
    assert proxy.updates() == 1
    assert router(pair.primary.port).read([WEB, API]) == {WEB: EASTLESS, API: SHORT}


def test_a_write_of_what_is_there_sends_no_update(proxy: Proxy) -> None:
    router(proxy.port).write([change(WEB, FULL, FULL)])
    assert proxy.updates() == 0


def test_a_batch_of_more_than_64_kb_is_split(pair: Pair, proxy: Proxy) -> None:
    names = {f"s{number}@dns": f"{'x' * 40}{number}.{ZONE}" for number in range(600)}
    pair.put_all(list(names.values()), EVERYTHING)
    one = router(proxy.port, records=names, timeout="10s")
    one.write([change(route, FULL, EASTLESS) for route in names])
    assert proxy.updates() == 3
    assert set(one.read(list(names)).values()) == {EASTLESS}


@pytest.mark.parametrize(
    ("fault", "second"),
    [("REFUSED", "not written"), ("lose", "written or not"), ("close", "written or not")],
)
def test_a_later_message_that_fails_says_exactly_what_was_made(
    pair: Pair, proxy: Proxy, fault: str, second: str
) -> None:
    names = {f"s{number}@dns": f"{'x' * 40}{number}.{ZONE}" for number in range(600)}
    pair.put_all(list(names.values()), EVERYTHING)
    proxy.fault = lambda message: fault if _is_update(message) and proxy.updates() > 1 else ""
    one = router(proxy.port, records=names, timeout="10s")
    with pytest.raises(Indeterminate) as failed:
        one.write([change(route, FULL, EASTLESS) for route in names])
    assert failed.value.what.startswith("1 of 3 messages were taken (written: s0@dns, s1@dns, ")
    told = _told(failed.value.what, list(names))
    found = router(pair.primary.port, records=names, timeout="10s").read(list(names))
    assert {found[route] for route in told["written"]} == {EASTLESS}
    assert {found[route] for route in told[second]} == {EASTLESS if fault == "lose" else FULL}
    assert {found[route] for route in told["not written"]} == {FULL}
    assert proxy.updates() == 2


def test_a_later_message_that_finds_a_change_says_exactly_what_was_made(pair: Pair, proxy: Proxy) -> None:
    names = {f"s{number}@dns": f"{'x' * 40}{number}.{ZONE}" for number in range(600)}
    pair.put_all(list(names.values()), EVERYTHING)

    def meddle(message: dns.message.Message) -> str:
        if _is_update(message) and proxy.updates() == 3:
            pair.put(names["s599@dns"], ADDRESSES["west"], ttl=9)
        return ""

    proxy.fault = meddle
    with pytest.raises(Indeterminate, match=r"route s599@dns was to go from .* somebody else changed it") as failed:
        router(proxy.port, records=names, timeout="10s").write([change(route, FULL, EASTLESS) for route in names])
    told = _told(failed.value.what, list(names))
    assert failed.value.what.startswith("2 of 3 messages were taken")
    found = router(pair.primary.port, records=names, timeout="10s").read(list(names))
    assert {found[route] for route in told["written"]} == {EASTLESS}
    assert {found[route] for route in told["not written"]} == {FULL, RouteState({"east": 0, "west": 50}, 9)}


def test_a_change_between_reading_and_updating_is_refused_by_the_server(pair: Pair, proxy: Proxy) -> None:
    def meddle(message: dns.message.Message) -> str:
        if _is_update(message):
            pair.put(RECORDS[WEB], ADDRESSES["west"])
        return ""

    proxy.fault = meddle
    with pytest.raises(Conflict) as conflict:
        router(proxy.port).write([change(API, FULL, EASTLESS), change(WEB, FULL, EASTLESS)])
    assert conflict.value.seen == ("expected east 50, west 50, TTL 60 s", "found east 0, west 50, TTL 60 s")
    assert router(pair.primary.port).read([API])[API] == FULL


BADSIG = "says that the secret of key 'failover-key' is wrong (BADSIG)"
BADKEY = "does not know the key '{}', or not for this zone (BADKEY)"
NOTAUTH = "does not take an update of zone {} from {} (NOTAUTH)"


@pytest.mark.parametrize(
    ("settings", "on_bind", "on_knot"),
    [
        ({"variable": "WRONG_SECRET"}, BADSIG, BADSIG),
        ({"key": "no-such-key"}, BADKEY.format("no-such-key"), BADKEY.format("no-such-key")),
        ({"algorithm": "hmac-sha512"}, BADKEY.format(KEY), BADKEY.format(KEY)),
        (
            {"key": READER, "variable": "WRONG_SECRET"},
            f"refuses updates from key '{READER}' (REFUSED)",
            BADKEY.format(READER),
        ),
        (
            {"key": ""},
            "refuses updates from a client without a key (REFUSED)",
            NOTAUTH.format(ZONE, "a client without a key"),
        ),
        (
            {"zone": "elsewhere.test."},
            NOTAUTH.format("elsewhere.test.", f"key '{KEY}'"),
            NOTAUTH.format("elsewhere.test.", f"key '{KEY}'"),
        ),
        (
            {"zone": OTHER_ZONE},
            f"says that a record is not in zone {OTHER_ZONE} (NOTZONE)",
            f"says that a record is not in zone {OTHER_ZONE} (NOTZONE)",
        ),
    ],
    ids=["secret", "unknown-key", "algorithm", "key-not-allowed", "no-key", "zone-not-served", "another-zone"],
)
def test_a_refusal_is_told_in_words(pair: Pair, settings: dict[str, Any], on_bind: str, on_knot: str) -> None:
    words = on_knot if isinstance(pair, KnotPair) else on_bind
    with pytest.raises(Failed) as failed:
        router(pair.primary.port, **settings).write([change(WEB, FULL, EASTLESS)])
    assert failed.value.what == f"DNS server {LOOPBACK}:{pair.primary.port} {words}; nothing was written"
    assert failed.value.where == "router dns"
    assert failed.value.next
    assert SECRET not in str(failed.value)
    assert READER_SECRET not in str(failed.value)
    assert state(router(pair.primary.port), WEB) == FULL


def test_clocks_that_differ_are_told_in_words(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("dns.message.time.time", lambda: now() + 3600)
    with pytest.raises(Failed, match=r"the clocks differ too much \(BADTIME\); nothing was written"):
        router(pair.primary.port).write([change(WEB, FULL, EASTLESS)])


@pytest.mark.parametrize(
    ("code", "words"),
    [("SERVFAIL", "failed inside"), ("NOTIMP", "does not take dynamic updates"), ("FORMERR", "does not understand")],
)
def test_a_server_that_fails_is_told_in_words(proxy: Proxy, code: str, words: str) -> None:
    proxy.fault = lambda message: code if _is_update(message) else ""
    with pytest.raises(Failed, match=words):
        router(proxy.port).write([change(WEB, FULL, EASTLESS)])


def test_a_secret_that_is_missing_or_no_base64_is_told_in_words(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "not base64!")
    with pytest.raises(Failed, match="the secret of TSIG key 'failover-key' is not base64; nothing was written"):
        router(pair.primary.port, variable="BROKEN").write([change(WEB, FULL, EASTLESS)])
    with pytest.raises(Failed, match="the environment variable NOWHERE is not set"):
        router(pair.primary.port, variable="NOWHERE").write([change(WEB, FULL, EASTLESS)])


@pytest.mark.parametrize("fault", ["lose", "hang"])
def test_a_lost_answer_is_indeterminate_and_not_repeated(pair: Pair, proxy: Proxy, fault: str) -> None:
    proxy.fault = lambda message: fault if _is_update(message) else ""
    with pytest.raises(Indeterminate, match="its answer was lost"):
        router(proxy.port, timeout="500ms").write([change(WEB, FULL, EASTLESS)])
    assert proxy.updates() == 1
    assert state(router(pair.primary.port), WEB) == EASTLESS


def test_a_server_that_goes_down_under_an_update_is_indeterminate(pair: Pair, proxy: Proxy) -> None:
    proxy.fault = lambda message: "close" if _is_update(message) else ""
    with pytest.raises(Indeterminate, match="it may have been made or not"):
        router(proxy.port).write([change(WEB, FULL, EASTLESS)])
    assert state(router(pair.primary.port), WEB) == FULL


def test_an_answer_without_a_signature_proves_nothing(proxy: Proxy) -> None:
    proxy.fault = lambda message: "NOERROR unsigned" if _is_update(message) else ""
    with pytest.raises(Indeterminate, match="not signed"):
        router(proxy.port).write([change(WEB, FULL, EASTLESS)])


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ((), f"there is no record web.{ZONE} A on "),
        ((*EVERYTHING, "192.0.2.99"), f"web.{ZONE} has addresses that belong to no region: 192.0.2.99"),
        (("192.0.2.1", "192.0.2.11"), f"web.{ZONE} has only a part of east: 192.0.2.2 is missing"),
    ],
)
def test_what_is_no_state_of_a_switch_is_unknown(pair: Pair, addresses: Sequence[str], why: str) -> None:
    pair.put(RECORDS[WEB], addresses)
    one = router(pair.primary.port)
    found = one.read([WEB, API])
    assert isinstance(found[WEB], Unknown)
    assert found[WEB].why.startswith(why)
    assert found[API] == FULL
    with pytest.raises(Conflict):
        one.write([change(WEB, FULL, EASTLESS)])


def test_a_server_of_another_zone_is_unknown(pair: Pair) -> None:
    one = router(pair.primary.port, records={WEB: "web.elsewhere.test."})
    seen = one.read([WEB])[WEB]
    assert isinstance(seen, Unknown)
    assert "answers REFUSED for web.elsewhere.test. A" in seen.why
    with pytest.raises(Failed, match=r"answers REFUSED for web\.elsewhere\.test\. A; nothing was written"):
        one.write([change(WEB, FULL, EASTLESS)])


def test_a_stale_secondary_is_named_with_its_serial(pair: Pair) -> None:
    ports = [pair.primary.port, pair.secondary.port]
    one = router(pair.primary.port, name_servers=ports, timeout="600ms")
    until(lambda: one.settled(WEB, FULL, "").passed, 10, "the secondary's transfer")
    pair.secondary.stop()
    try:
        one.write([change(WEB, FULL, EASTLESS)])
        down = one.settled(WEB, EASTLESS, "")
        assert not down.passed
        assert down.evidence == (f"{LOOPBACK}:{ports[1]} gave no answer within 0.6 s, asked 2 times",)
        stopped = pair.primary
        stopped.stop()
        pair.secondary.start()
        try:
            alone = router(ports[0], name_servers=ports[1:]).settled(WEB, EASTLESS, "")
            assert not alone.passed
            [line] = alone.evidence
            assert line.startswith(
                f"{LOOPBACK}:{ports[1]} still answers 192.0.2.1, 192.0.2.11, 192.0.2.2 (zone serial "
            )
            assert line.endswith("wanted 192.0.2.11")
        finally:
            stopped.start()
    finally:
        pair.secondary.stop()
        pair.secondary.start()
    until(lambda: one.settled(WEB, EASTLESS, "").passed, 15, "the secondary catching up")


def test_a_ttl_that_is_too_long_is_not_settled(pair: Pair) -> None:
    one = router(pair.primary.port)
    verdict = one.settled(WEB, RouteState(NORMAL, 5), "")
    assert not verdict.passed
    assert "still answers with TTL 60 s" in verdict.evidence[0]


def test_addresses_of_ipv6(pair: Pair) -> None:
    pair.put(f"six.{ZONE}", ["2001:db8::1", "2001:db8::2"], kind="AAAA")
    own = {
        "record": f"six.{ZONE}",
        "type": "AAAA",
        "addresses": {"east": ["2001:0db8:0::1"], "west": ["2001:db8::2"]},
    }
    config = Rfc2136.Config.model_validate(
        {
            "server": f"{LOOPBACK}:{pair.primary.port}",
            "zone": ZONE,
            "tsig": {"name": KEY, "secret": {"env": "TSIG_SECRET"}},
        }
    )
    one = Rfc2136("dns", config, {WEB: spec(WEB, Rfc2136.RouteConfig.model_validate(own), NORMAL)}, SYSTEM)
    assert state(one, WEB) == FULL
    one.write([change(WEB, FULL, EASTLESS)])
    assert one.settled(WEB, EASTLESS, "").passed


def _is_update(message: dns.message.Message) -> bool:
    return message.opcode() == dns.opcode.UPDATE


def _told(what: str, routes: list[str]) -> dict[str, list[str]]:
    """Which of `routes` an error is about, by what it says of them: in their order, and together all of them."""
    told, left = {}, routes
    for part in what.partition("(")[2].partition("). The next one: ")[0].split("; "):
        key, _, said = part.partition(": ")
        shown, _, more = said.partition(" and ")
        first = shown.split(", ")
        told[key] = left[: len(first) + int(more.partition(" ")[0] or 0)]
        assert told[key][: len(first)] == first
        left = left[len(told[key]) :]
    assert left == []
    return told
