"""The route53 router where it gets large, slow, shared or private: limits, pace, types, roles, caches."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, FailoverError, Indeterminate
from failover.ports import SupportsAnswers
from failover.routers._pace import Bucket, Pace
from failover.routers._route53_batch import BATCH_CHARACTERS, BATCH_RECORDS, Move, fewest, fits, pack
from failover.routers._route53_group import Group
from failover.routers.route53 import Route53
from failover.testing import FakeClock
from failover.testing.routers import change, state
from failover.verdict import Outcome
from failover.world import RouteState, Unknown
from tests.routers.aws import KEY, Moto, RecordSet
from tests.routers.cache import Cache
from tests.routers.route53_estate import (
    ADDRESSES,
    API,
    EASTLESS,
    FULL,
    NORMAL,
    RECORDS,
    TTL,
    WEB,
    Estate,
    record,
    sign_in,
)
from tests.routers.specs import spec

TARGET = {"HostedZoneId": "Z2FDTNDATAQYW2", "DNSName": "lb.example.test.", "EvaluateTargetHealth": True}
SIX = {"east": "2001:db8::1", "west": "2001:db8::11"}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return sign_in(tmp_path, monkeypatch)


@pytest.fixture
def estate(moto: Moto, credentials: Path) -> Iterator[Estate]:
    made = Estate(moto, credentials)
    yield made
    made.close()


def six(name: str, region: str, weight: int = 50, **more: Any) -> RecordSet:
    return record(name, region, weight, Type="AAAA", ResourceRecords=[{"Value": SIX[region]}], **more)


def alias(name: str, region: str, kind: str) -> RecordSet:
    return record(name, region, Type=kind, AliasTarget=TARGET)


def cname(name: str, region: str) -> RecordSet:
    return record(name, region, Type="CNAME", ResourceRecords=[{"Value": f"LB-{region}.example.test"}])


NAME = "both.example.test."
KINDS: dict[str, tuple[list[str], list[RecordSet], int | None]] = {
    "A": (["A"], [record(NAME, region) for region in NORMAL], TTL),
    "AAAA": (["AAAA"], [six(NAME, region) for region in NORMAL], TTL),
    "CNAME": (["CNAME"], [cname(NAME, region) for region in NORMAL], TTL),
    "A and AAAA": (["A", "AAAA"], [make(NAME, region) for region in NORMAL for make in (record, six)], TTL),
    "alias A and AAAA": (["A", "AAAA"], [alias(NAME, r, kind) for r in NORMAL for kind in ("A", "AAAA")], None),
    "alias A and plain AAAA": (
        ["A", "AAAA"],
        [each for region in NORMAL for each in (alias(NAME, region, "A"), six(NAME, region))],
        TTL,
    ),
    "with health checks": (
        ["A", "AAAA"],
        [make(NAME, r, HealthCheckId=f"hc-{r}") for r in NORMAL for make in (record, six)],
        TTL,
    ),
    "several values": (
        ["A"],
        [record(NAME, r, ResourceRecords=[{"Value": ADDRESSES[r]}, {"Value": f"{ADDRESSES[r]}9"}]) for r in NORMAL],
        TTL,
    ),
}


@pytest.mark.parametrize("mode", ["exact", "reread"])
@pytest.mark.parametrize(("types", "records", "ttl"), KINDS.values(), ids=KINDS)
def test_every_kind_moves_there_and_back_and_keeps_all_that_it_has(
    estate: Estate, types: list[str], records: list[RecordSet], ttl: int | None, mode: str
) -> None:
    estate.moto.put(estate.zone, *records)
    before = estate.moto.records(estate.zone)
    one = estate.router({WEB: NAME}, own={"type": types}, compare_and_set=mode)
    full, eastless = RouteState(NORMAL, ttl), RouteState(EASTLESS.weights, ttl)
    assert state(one, WEB) == full
    receipt = one.write([change(WEB, full, eastless)])
    moved = [each for each in estate.moto.records(estate.zone) if each["Name"] == NAME]
    assert len(moved) == len(records)
    for each in moved:
        assert each["Weight"] == eastless.weights[each["SetIdentifier"]]
        assert {**each, "Weight": 50} in records
    assert len(estate.proxy.batches) == 1
    if "alias" not in str(types) and not any("AliasTarget" in each for each in records):
        assert one.settled(WEB, eastless, receipt).passed
    one.write([change(WEB, eastless, full)])
    assert estate.moto.records(estate.zone) == before


def test_a_new_ttl_reaches_every_type(estate: Estate) -> None:
    estate.moto.put(estate.zone, *KINDS["A and AAAA"][1])
    one = estate.router({WEB: NAME}, own={"type": ["A", "AAAA"]})
    wanted = RouteState(NORMAL, 5)
    receipt = one.write([change(WEB, FULL, wanted)])
    assert {each["TTL"] for each in estate.moto.records(estate.zone) if each["Name"] == NAME} == {5}
    assert one.settled(WEB, wanted, receipt).passed


def test_types_that_have_drifted_apart_are_unknown_and_left_alone(estate: Estate) -> None:
    estate.moto.put(estate.zone, *(record(NAME, region) for region in NORMAL))
    estate.moto.put(estate.zone, six(NAME, "east", 0), six(NAME, "west", 100))
    one = estate.router({WEB: NAME}, own={"type": ["A", "AAAA"]})
    seen = one.read([WEB])[WEB]
    assert isinstance(seen, Unknown)
    assert "have different weights: A has east 50, west 50; AAAA has east 0, west 100; give them" in seen.why
    for before in (FULL, EASTLESS):
        with pytest.raises(Conflict):
            one.write([change(WEB, before, EASTLESS)])
    assert estate.proxy.batches == []


def test_a_type_that_is_missing_is_named(estate: Estate) -> None:
    seen = estate.router({WEB: RECORDS[WEB]}, own={"type": ["A", "AAAA"]}).read([WEB])[WEB]
    assert seen == Unknown(f"there is no record web.example.test. AAAA in zone {estate.zone}")


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ([], "no type is named"),
        (["A", "A"], "a type stands here twice"),
        (["A", "CNAME"], "a name with a CNAME can have no other record"),
        ("MX", "'A', 'AAAA' or 'CNAME'"),
        (["A", "MX"], "'A', 'AAAA' or 'CNAME'"),
    ],
)
def test_types_that_cannot_be_together_are_refused(types: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Route53.RouteConfig.model_validate({"record": NAME, "type": types})


def test_two_who_drain_each_others_survivor_do_not_both_win(estate: Estate) -> None:
    """The set that neither of them moves is compared too."""
    three = {"east": 50, "west": 50, "north": 0}
    estate.moto.put(estate.zone, record(RECORDS[WEB], "east", SetIdentifier="north", Weight=0))
    before = RouteState(three, TTL)
    ones = [estate.router(RECORDS, three) for _ in range(2)]
    wanted = [RouteState({**three, region: 0}, TTL) for region in ("east", "west")]

    def write(place: int) -> FailoverError | None:
        try:
            ones[place].write([change(WEB, before, wanted[place])])
        except FailoverError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        errors = list(pool.map(write, range(2)))
    assert sorted(type(error).__name__ for error in errors) == ["Conflict", "NoneType"]
    assert any(estate.weights().values())


def move(sets: Sequence[tuple[int, int]], name: str = "r") -> Move:
    """A move of record sets with so many values of so many characters each; no values make an alias."""
    group = {
        ("A", f"r{place}"): {"Weight": 1, "Type": "A", "ResourceRecords": [{"Value": "x" * long}] * values}
        if values
        else {"Weight": 1, "Type": "A", "AliasTarget": TARGET}
        for place, (values, long) in enumerate(sets)
    }
    return Move(change(name, FULL, EASTLESS), Group(group), Group(group), True)


SMALL, ALIAS, LONG, WIDE = [(1, 9)] * 2, [(0, 0)] * 2, [(1, 4000)] * 2, [(100, 9)] * 2


@pytest.mark.parametrize(
    ("routes", "batches"),
    [
        ([], 0),
        ([SMALL], 1),
        ([SMALL] * 250, 1),
        ([SMALL] * 251, 2),
        ([ALIAS] * 250, 1),
        ([ALIAS] * 251, 2),
        ([LONG] * 2, 1),
        ([LONG] * 3, 2),
        ([WIDE] * 2 + [SMALL] * 50, 1),
        ([WIDE] * 2 + [SMALL] * 51, 2),
        ([LONG, SMALL] * 8, 5),
        ([SMALL] * 5000, 20),
        (([WIDE] + [SMALL] * 150) * 20, 20),
    ],
)
def test_batches_are_as_few_as_the_limits_allow(routes: list[list[tuple[int, int]]], batches: int) -> None:
    moves = [move(sets, f"r{number}") for number, sets in enumerate(routes)]
    packed = pack(moves)
    assert len(packed) == batches == fewest(moves)
    assert sorted(each.change.route for batch in packed for each in batch) == sorted(m.change.route for m in moves)
    for batch in packed:
        assert fits((sum(each.size[0] for each in batch), sum(each.size[1] for each in batch)))


def many(estate: Estate, count: int, **settings: Any) -> tuple[Route53, list[str]]:
    records = {f"r{number:03}@aws": f"r{number:03}.example.test." for number in range(count)}
    estate.moto.put(estate.zone, *(record(name, region) for name in records.values() for region in NORMAL))
    return estate.router(records, **settings), list(records)


def test_a_full_batch_is_taken_by_the_api(estate: Estate) -> None:
    one, routes = many(estate, 250)
    receipt = one.write([change(route, FULL, EASTLESS) for route in routes])
    [batch] = estate.proxy.batches
    assert (len(batch), receipt) == (1000, "C000001")


@pytest.mark.parametrize("mode", ["exact", "reread"])
@pytest.mark.parametrize(
    ("fault", "moved", "doubtful", "why"),
    [
        ("AccessDenied", 250, False, "access denied: AccessDenied by the proxy"),
        ("close", 250, True, "its answer was lost"),
        ("lose", 260, True, "its answer was lost"),
        ("meddle", 250, False, "somebody else changed it"),
    ],
)
def test_a_second_batch_that_fails_says_what_was_moved(
    estate: Estate, fault: str, moved: int, doubtful: bool, why: str, mode: str
) -> None:
    one, routes = many(estate, 260, compare_and_set=mode)
    stranger = record("r255.example.test.", "east", 7)
    if fault == "meddle":
        # Just after the first batch: a re-read sees it, and the API itself does where it compares.
        taken = one._api.change

        def then_meddle(*given: Any) -> str:
            receipt = taken(*given)
            estate.moto.put(estate.zone, stranger)
            return receipt

        one._api.change = then_meddle  # type: ignore[method-assign]
    else:
        numbers = iter(range(9))
        estate.proxy.fault = lambda operation: (
            fault if operation == "ChangeResourceRecordSets" and next(numbers) == 1 else ""
        )
    with pytest.raises(Indeterminate) as halfway:
        one.write([change(route, FULL, EASTLESS) for route in routes])
    what = halfway.value.what
    left = "moved or not" if doubtful else "not moved"
    assert what.startswith("batch 2 of 2 did not go through (")
    assert why in what
    assert what.endswith(f"); moved: {', '.join(routes[:20])} and 230 more; {left}: {', '.join(routes[250:])}")
    found = one.read(routes)
    assert sum(seen == EASTLESS for seen in found.values()) == moved
    assert fault != "meddle" or stranger in estate.moto.records(estate.zone)
    assert estate.proxy.calls.count("ChangeResourceRecordSets") == (1 if (fault, mode) == ("meddle", "reread") else 2)


def test_a_group_that_fits_no_batch_stops_all_before_anything_is_written(estate: Estate) -> None:
    values = [{"Value": f"10.0.{number // 250}.{number % 250}"} for number in range(300)]
    for region in NORMAL:
        estate.moto.put(estate.zone, record(RECORDS[WEB], region, ResourceRecords=values))
    with pytest.raises(Failed, match=f"route {WEB} alone is larger than one batch of Route 53"):
        estate.make().write([change(API, FULL, EASTLESS), change(WEB, FULL, EASTLESS)])
    assert "ChangeResourceRecordSets" not in estate.proxy.calls


@pytest.mark.parametrize(("pace", "most"), [({}, 5), ({"rate": 2, "burst": 3}, 5), ({"rate": 10, "burst": 1}, 11)])
def test_calls_keep_to_the_pace(estate: Estate, pace: Mapping[str, Any], most: int) -> None:
    clock = FakeClock()
    estate.proxy.now = clock.monotonic
    ones = [estate.make(clock=clock, pace=pace, retry_for="10min") for _ in range(3)]
    for turn in range(30):
        ones[turn % 3].read([WEB])
    times = estate.proxy.times
    assert len(times) == 30
    assert max(sum(start <= at < start + 0.999 for at in times) for start in times) <= most
    rate = pace.get("rate", 4.0)
    assert times[-1] - times[0] <= 1.25 * 30 / rate
    assert len({round(late - early, 6) for early, late in pairwise(times)}) > 5


def test_threads_share_a_pace_and_nobody_waits_beyond_the_deadline() -> None:
    bucket = Bucket(Pace(rate=50, burst=1), SYSTEM)
    began = SYSTEM.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: bucket.take(began + 60), range(20)))
    assert SYSTEM.monotonic() - began >= 19 / 50
    assert not bucket.take(SYSTEM.monotonic())


def test_no_turn_left_is_told_and_nothing_was_sent(estate: Estate) -> None:
    one = estate.make(clock=FakeClock(), pace={"rate": 0.01}, retry_for="1s")
    one.read([WEB])
    seen = one.read([WEB])[WEB]
    assert seen == Unknown("Route 53 takes 0.01 calls a second from here, and there was no turn left within 1 s")
    with pytest.raises(Failed, match="there was no turn left within 1 s"):
        one.write([change(WEB, FULL, EASTLESS)])
    assert estate.proxy.calls == ["ListResourceRecordSets"]


def test_a_change_that_is_stranded_in_pending_says_so(estate: Estate) -> None:
    clock = FakeClock()
    one = estate.make(clock=clock)
    estate.proxy.hold = True
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    assert one.settled(WEB, EASTLESS, receipt).evidence == (f"{WEB}: Route 53's change {receipt} is PENDING",)
    clock.advance(150)
    verdict = one.settled(WEB, EASTLESS, receipt)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "is PENDING for 2 min 30 s; a minute is usual: see the AWS Health Dashboard" in verdict.evidence[0]
    assert state(one, WEB) == EASTLESS


def test_a_receipt_of_several_changes_waits_for_all_of_them_or_for_its_own(estate: Estate) -> None:
    clock = FakeClock()
    one, routes = many(estate, 251, clock=clock)
    estate.proxy.hold = True
    receipt = one.write([change(route, FULL, EASTLESS) for route in routes])
    assert receipt == "C000001 C000002"
    estate.proxy.pending.discard("C000001")
    assert one.settled(routes[0], EASTLESS, receipt).passed
    assert "C000002 is PENDING" in str(one.settled(routes[250], EASTLESS, receipt))
    newcomer = estate.router({routes[0]: "r000.example.test."})
    assert "C000002 is PENDING" in str(newcomer.settled(routes[0], EASTLESS, receipt))
    estate.proxy.pending.clear()
    assert newcomer.settled(routes[0], EASTLESS, receipt).outcome is Outcome.UNKNOWN


def test_a_role_is_assumed_by_the_profile_and_stays_bounded(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    text = (
        "[profile drill]\nrole_arn = arn:aws:iam::123456789012:role/failover\nsource_profile = failover\n"
        "region = eu-west-1\nservices = here\n[services here]\nsts =\n  endpoint_url = http://127.0.0.1:{}\n"
    )
    config.write_text(text.format(estate.moto.port))
    estate.proxy.accepts = lambda key: key.startswith("ASIA")
    one = estate.make(profile="drill")
    one.write([change(WEB, FULL, EASTLESS)])
    assert estate.weights() == EASTLESS.weights
    assert KEY not in estate.proxy.signed
    config.write_text(text.format(9))
    lost = estate.make(profile="drill")
    before = list(estate.proxy.calls)
    with pytest.raises(Failed, match="signing in to AWS does not answer: Could not connect"):
        lost.write([change(WEB, EASTLESS, FULL)])
    assert estate.proxy.calls == before


@pytest.fixture
def cache(estate: Estate, tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path, estate.names.port)
    yield made
    made.stop()


def test_answers_of_each_name_server_and_each_resolver(estate: Estate, cache: Cache) -> None:
    one = estate.make(resolvers=[cache.address, "127.0.0.1:9"], dns_timeout="300ms")
    assert isinstance(one, SupportsAnswers)
    names, resolver, gone = f"name server {estate.names.address}", f"resolver {cache.address}", "resolver 127.0.0.1:9"
    one.write([change(WEB, FULL, RouteState({"east": 100, "west": 0}, TTL))])
    before = one.answers(WEB, RouteState({"east": 100, "west": 0}, TTL))
    assert {name: verdict.outcome for name, verdict in before.items()} == {
        names: Outcome.PASS,
        resolver: Outcome.PASS,
        gone: Outcome.UNKNOWN,
    }
    one.write([change(WEB, RouteState({"east": 100, "west": 0}, TTL), EASTLESS)])
    after = one.answers(WEB, EASTLESS)
    assert after[names].passed
    assert after[resolver].outcome is Outcome.FAIL
    assert "still answers 192.0.2.1, which is east; its cache keeps it for" in str(after[resolver])
    newcomer = estate.make(resolvers=[cache.address]).answers(WEB, EASTLESS)
    assert {name: verdict.outcome for name, verdict in newcomer.items()} == {
        names: Outcome.PASS,
        resolver: Outcome.FAIL,
    }


def test_answers_that_cannot_be_had_are_unknown(estate: Estate) -> None:
    one = estate.make(name_servers=[], retry_for=0)
    estate.stop()
    [verdict] = one.answers(WEB, EASTLESS).values()
    assert verdict.outcome is Outcome.UNKNOWN
    estate.start()
    [verdict] = estate.router({WEB: "nowhere.example.test."}, name_servers=[]).answers(WEB, EASTLESS).values()
    assert "there is no record nowhere.example.test. A" in str(verdict)


@pytest.mark.parametrize("declared", ["name_servers", "resolvers"])
def test_a_private_zone_is_asked_by_what_is_declared(estate: Estate, cache: Cache, declared: str) -> None:
    vpc = {"VPCRegion": "us-east-1", "VPCId": "vpc-1"}
    estate.zone = estate.moto.zone("private.test.", HostedZoneConfig={"PrivateZone": True}, VPC=vpc)
    estate.moto.put(estate.zone, *(record("web.private.test.", region) for region in NORMAL))
    at = {"name_servers": [], "resolvers": []} | {
        declared: [estate.names.address if declared == "name_servers" else cache.address]
    }
    one = estate.router({WEB: "web.private.test."}, **at)
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    assert one.settled(WEB, EASTLESS, receipt).passed
    assert one.settled(WEB, EASTLESS, "").passed
    estate.names.freeze()
    receipt = one.write([change(WEB, EASTLESS, RouteState({"east": 100, "west": 0}, TTL))])
    verdict = one.settled(WEB, RouteState({"east": 100, "west": 0}, TTL), receipt)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "still answers 192.0.2.11, which is west" in str(verdict)


def test_the_write_timeout_grows_with_what_there_is_to_write(estate: Estate) -> None:
    small = estate.make().write_timeout
    assert small == pytest.approx(10 + 4 / 50 + 2 * (1 + 5))
    assert estate.router({f"r{n}@aws": f"r{n}.example.test." for n in range(500)}).write_timeout == small + 996 / 50


def test_limits_are_those_of_the_reference() -> None:
    assert (BATCH_RECORDS, BATCH_CHARACTERS) == (1000, 32_000)
    assert list(Route53.mistakes(spec(WEB, Route53.RouteConfig.model_validate({"record": NAME}), NORMAL))) == []
