"""The route53 router against moto's server, behind a proxy that adds what moto leaves out."""

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.routers.route53 import Route53
from failover.testing import FakeClock
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState, Unknown
from tests.routers.aws import Moto, RecordSet
from tests.routers.route53_estate import (
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


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, estate: Estate) -> Estate:
        return estate


class TestContractOfAnEmulator(RouterContract):
    """moto as it is, without the proxy's strictness: compare and set is a re-read."""

    @pytest.fixture
    def harness(self, moto: Moto, credentials: Path) -> Iterator[Estate]:
        made = Estate(moto, credentials, strict=False)
        yield made
        made.close()

    # Between a re-read and a write somebody may always come.
    test_lets_exactly_one_of_several_writers_win = None  # type: ignore[assignment]
    # The same code as above, whichever way it compares.
    test_fails_clearly_with_wrong_credentials = None  # type: ignore[assignment]
    test_never_writes_in_silence_while_the_server_is_gone = None  # type: ignore[assignment]
    test_reads_unknown_while_the_server_is_gone = None  # type: ignore[assignment]
    test_works_on_after_the_server_was_restarted = None  # type: ignore[assignment]


def test_replaces_the_whole_group_in_one_batch(estate: Estate) -> None:
    receipt = estate.make().write([change(WEB, FULL, EASTLESS)])
    [batch] = estate.proxy.batches
    assert [(action, each["SetIdentifier"], each["Weight"]) for action, each in batch] == [
        ("DELETE", "east", 50),
        ("DELETE", "west", 50),
        ("CREATE", "east", 0),
        ("CREATE", "west", 100),
    ]
    assert receipt == "C000001"


def test_a_change_between_reading_and_writing_is_refused_by_the_api(estate: Estate) -> None:
    def meddle(operation: str) -> str:
        if operation == "ChangeResourceRecordSets" and len(estate.proxy.batches) == 0:
            estate.meddle(WEB)
        return ""

    estate.proxy.fault = meddle
    with pytest.raises(Conflict) as conflict:
        estate.make().write([change(WEB, FULL, EASTLESS)])
    assert conflict.value.seen == ("expected east 50, west 50, TTL 60 s", "found east 10, west 50, TTL 60 s")
    assert estate.weights() == {"east": 10, "west": 50}


def test_a_change_of_an_address_in_between_is_kept(estate: Estate) -> None:
    def meddle(operation: str) -> str:
        if operation == "ChangeResourceRecordSets" and len(estate.proxy.batches) == 0:
            estate.moto.put(estate.zone, record(RECORDS[WEB], "west", ResourceRecords=[{"Value": "192.0.2.77"}]))
        return ""

    estate.proxy.fault = meddle
    estate.make().write([change(WEB, FULL, EASTLESS)])
    assert len(estate.proxy.batches) == 2
    assert estate.weights() == EASTLESS.weights
    assert {"Value": "192.0.2.77"} in [each["ResourceRecords"][0] for each in estate.moto.records(estate.zone)[2:]]


def test_keeps_everything_but_weight_and_ttl(estate: Estate) -> None:
    check = estate.moto.api.create_health_check(
        CallerReference=uuid.uuid4().hex, HealthCheckConfig={"Type": "TCP", "IPAddress": "192.0.2.1", "Port": 80}
    )["HealthCheck"]["Id"]
    whole = record(
        RECORDS[WEB], "east", HealthCheckId=check, ResourceRecords=[{"Value": "192.0.2.1"}, {"Value": "192.0.2.2"}]
    )
    estate.moto.put(estate.zone, whole)
    estate.make().write([change(WEB, FULL, RouteState({"east": 5, "west": 95}, 30))])
    assert {**whole, "Weight": 5, "TTL": 30} in estate.moto.records(estate.zone)


def test_alias_records_have_no_ttl(estate: Estate) -> None:
    target = {"HostedZoneId": "Z2FDTNDATAQYW2", "DNSName": "lb.example.test.", "EvaluateTargetHealth": True}
    for region in NORMAL:
        estate.moto.put(estate.zone, record("alias.example.test.", region, AliasTarget=target))
    one = estate.router({WEB: "alias.example.test."})
    before = RouteState(NORMAL, None)
    assert state(one, WEB) == before
    with pytest.raises(Refused, match="aliases, whose targets set it"):
        one.write([change(WEB, before, EASTLESS)])
    one.write([change(WEB, before, RouteState(EASTLESS.weights, None))])
    assert state(one, WEB) == RouteState(EASTLESS.weights, None)
    found = [each for each in estate.moto.records(estate.zone) if each["Name"] == "alias.example.test."]
    assert [each["AliasTarget"] for each in found] == [target, target]


def test_a_group_with_several_ttls_has_the_longest_and_is_evened_out(estate: Estate) -> None:
    estate.moto.put(estate.zone, record(RECORDS[WEB], "east", TTL=300))
    one = estate.make()
    before = RouteState(NORMAL, 300)
    assert state(one, WEB) == before
    one.write([change(WEB, before, FULL)])
    assert state(one, WEB) == FULL


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "there is no record new.example.test. A in zone ZONE"),
        (
            [record("new.example.test.", "east")],
            "record new.example.test. A in zone ZONE has no set identifier 'west' (region west); it has 'east'",
        ),
        (
            [
                record("new.example.test.", "east"),
                record("new.example.test.", "west"),
                record("new.example.test.", "east", SetIdentifier="canary"),
            ],
            "record new.example.test. A in zone ZONE has a set identifier that belongs to no region: 'canary'",
        ),
        (
            [{"Name": "new.example.test.", "Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "192.0.2.1"}]}],
            "record new.example.test. A in zone ZONE is not weighted; it needs one weighted record set per region",
        ),
    ],
)
def test_what_is_not_one_weighted_set_a_region_is_unknown(estate: Estate, records: list[RecordSet], why: str) -> None:
    if records:
        estate.moto.put(estate.zone, *records)
    one = estate.router({WEB: "new.example.test"})
    assert one.read([WEB]) == {WEB: Unknown(why.replace("ZONE", estate.zone))}
    with pytest.raises(Conflict):
        one.write([change(WEB, FULL, EASTLESS)])
    assert estate.proxy.batches == []


def test_set_identifiers_of_ones_own(estate: Estate) -> None:
    for region in NORMAL:
        estate.moto.put(estate.zone, record("own.example.test.", region, SetIdentifier=f"lb-{region}"))
    one = estate.router({WEB: "own.example.test"}, own={"set_identifiers": {"east": "lb-east", "west": "lb-west"}})
    assert state(one, WEB) == FULL
    one.write([change(WEB, FULL, EASTLESS)])
    assert state(one, WEB) == EASTLESS


def test_reads_neighbours_in_one_call_and_leaps_over_strangers(estate: Estate) -> None:
    one = estate.router({WEB: RECORDS[WEB], API: RECORDS[API], "zoo@aws": "zoo.example.test."})
    estate.moto.put(estate.zone, *(record("zoo.example.test.", region) for region in NORMAL))
    assert set(one.read([WEB, API, "zoo@aws"]).values()) == {FULL}
    assert estate.proxy.calls == ["ListResourceRecordSets"]
    plain = {"Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "192.0.2.1"}]}
    estate.moto.put(estate.zone, *({"Name": f"m{number:03}.example.test.", **plain} for number in range(900)))
    estate.proxy.calls.clear()
    assert set(one.read([WEB, API, "zoo@aws"]).values()) == {FULL}
    assert estate.proxy.calls == ["ListResourceRecordSets"] * 2


def test_a_group_that_a_page_cuts_in_two_is_read_whole(estate: Estate) -> None:
    plain = {"Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "192.0.2.1"}]}
    between = [{"Name": f"m{number:03}.example.test.", **plain} for number in range(297)]
    estate.moto.put(estate.zone, *between)
    one = estate.make()
    assert set(one.read([API, WEB]).values()) == {FULL}
    assert estate.proxy.calls == ["ListResourceRecordSets"] * 2


def test_pending_is_unknown_until_in_sync(estate: Estate) -> None:
    clock = FakeClock()
    one = estate.make(clock=clock)
    estate.proxy.hold = True
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    for _ in range(3):
        verdict = one.settled(WEB, EASTLESS, receipt)
        assert not verdict.passed
        assert verdict.evidence == (f"{WEB}: Route 53's change {receipt} is PENDING",)
    assert estate.proxy.calls.count("GetChange") == 1
    estate.proxy.pending.clear()
    clock.advance(1)
    verdict = one.settled(WEB, EASTLESS, receipt)
    assert verdict.passed
    assert verdict.evidence[0] == f"{WEB}: Route 53's change {receipt} is INSYNC"


def test_30_percent_throttled_completes_without_a_duplicate(estate: Estate) -> None:
    dice = random.Random(3)  # noqa: S311 - dice, not a secret
    taken = []

    def throttle(operation: str) -> str:
        if dice.random() < 0.3:
            return "Throttling"
        taken.append(operation)
        return ""

    estate.proxy.fault = throttle
    clock = FakeClock()
    one = estate.make(clock=clock, retry_for="10min")
    states = [FULL]
    for step in range(20):
        states.append(RouteState({"east": 50 - 2 * step, "west": 50 + 2 * step}, TTL + 1))
        one.write([change(WEB, states[-2], states[-1])])
    assert state(one, WEB) == states[-1]
    assert taken.count("ChangeResourceRecordSets") == len(estate.proxy.batches) == 20
    assert len(clock.slept) == len(estate.proxy.calls) - len(taken) > 5


@pytest.mark.parametrize("code", ["Throttling", "PriorRequestNotComplete"])
def test_throttled_for_good_fails_within_bounds(estate: Estate, code: str) -> None:
    estate.proxy.fault = lambda operation: code if operation == "ChangeResourceRecordSets" else ""
    clock = FakeClock()
    one = estate.make(clock=clock, attempts=4)
    with pytest.raises(Failed, match=f"Route 53 said {code} 4 times in a row: .*; nothing was written"):
        one.write([change(WEB, FULL, EASTLESS)])
    assert len(clock.slept) == 3
    assert all(0.25 <= pause <= 5 for pause in clock.slept)
    assert estate.weights() == NORMAL
    with pytest.raises(Failed, match="times in a row"):
        estate.make(clock=clock, attempts=1000, retry_for="3s").write([change(WEB, FULL, EASTLESS)])
    assert sum(clock.slept[3:]) <= 3 + 1  # each fifty record sets add a second


def test_prior_request_not_complete_is_tried_again(estate: Estate) -> None:
    left = ["PriorRequestNotComplete", "PriorRequestNotComplete"]
    estate.proxy.fault = lambda operation: left.pop() if left and operation == "ChangeResourceRecordSets" else ""
    estate.make(clock=FakeClock()).write([change(WEB, FULL, EASTLESS)])
    assert estate.weights() == EASTLESS.weights
    assert len(estate.proxy.batches) == 1


@pytest.mark.parametrize(
    ("fault", "weights"), [("lose", EASTLESS.weights), ("hang", EASTLESS.weights), ("close", NORMAL)]
)
def test_a_lost_answer_is_indeterminate_and_not_repeated(
    estate: Estate, fault: str, weights: Mapping[str, int]
) -> None:
    estate.proxy.fault = lambda operation: fault if operation == "ChangeResourceRecordSets" else ""
    with pytest.raises(Indeterminate, match="was sent, but its answer was lost") as lost:
        estate.make(read_timeout="700ms").write([change(WEB, FULL, EASTLESS)])
    assert "read the records back" in lost.value.next
    assert estate.proxy.calls.count("ChangeResourceRecordSets") == 1
    assert estate.weights() == weights


def test_an_internal_failure_of_a_write_is_indeterminate(estate: Estate) -> None:
    estate.proxy.fault = lambda operation: "InternalFailure" if operation == "ChangeResourceRecordSets" else ""
    with pytest.raises(Indeterminate):
        estate.make().write([change(WEB, FULL, EASTLESS)])


def test_a_batch_that_is_refused_for_itself_fails(estate: Estate) -> None:
    estate.proxy.fault = lambda operation: "InvalidChangeBatch" if operation == "ChangeResourceRecordSets" else ""
    with pytest.raises(Failed, match=r"Route 53 refused the change .*: InvalidChangeBatch by the proxy; nothing was"):
        estate.make().write([change(WEB, FULL, EASTLESS)])
    assert estate.proxy.calls.count("ChangeResourceRecordSets") == 1


def test_a_batch_beyond_the_limits_is_refused_before_it_is_sent(estate: Estate) -> None:
    many = [{"Value": f"10.0.{number // 250}.{number % 250}"} for number in range(300)]
    for region in NORMAL:
        estate.moto.put(estate.zone, record(RECORDS[WEB], region, ResourceRecords=many))
    with pytest.raises(Failed, match="larger than one batch of Route 53 may be"):
        estate.make().write([change(WEB, FULL, EASTLESS)])
    assert "ChangeResourceRecordSets" not in estate.proxy.calls


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile": "stranger"}, "the AWS access key is not valid"),
        (
            {"profile": "nobody"},
            "there are no usable AWS credentials: The config profile (nobody) could not be found",
        ),
        (
            {"profile": None, "credentials_file": None},
            "there are no usable AWS credentials: Unable to locate credentials",
        ),
        ({"zone": "Z0NOWHERE"}, "there is no hosted zone Z0NOWHERE"),
        ({"endpoint": "http://127.0.0.1:9"}, "Route 53's API at http://127.0.0.1:9 does not answer: "),
    ],
)
def test_what_is_wrong_is_told_in_words(estate: Estate, settings: dict[str, Any], words: str) -> None:
    one = estate.make(**settings)
    seen = one.read([WEB])[WEB]
    assert isinstance(seen, Unknown)
    assert seen.why.startswith(words)
    with pytest.raises(Failed) as failed:
        one.write([change(WEB, FULL, EASTLESS)])
    assert failed.value.what.startswith(words)
    assert failed.value.where == "router aws"
    assert failed.value.next
    assert not one.settled(WEB, EASTLESS, "").passed


def test_access_denied_names_what_is_missing(estate: Estate) -> None:
    estate.proxy.fault = lambda operation: "AccessDenied" if operation == "ChangeResourceRecordSets" else ""
    with pytest.raises(Failed, match="access denied: AccessDenied by the proxy; nothing was written"):
        estate.make().write([change(WEB, FULL, EASTLESS)])


def test_a_credentials_file_that_is_not_there_is_named(estate: Estate) -> None:
    one = estate.make(credentials_file="/nowhere/credentials")
    assert one.read([WEB]) == {WEB: Unknown("the credentials file /nowhere/credentials is not there")}


def test_a_stale_name_server_is_named(estate: Estate) -> None:
    estate.names.freeze()
    one = estate.make()
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    verdict = one.settled(WEB, EASTLESS, receipt)
    assert not verdict.passed
    assert verdict.evidence == (f"{estate.names.address} still answers 192.0.2.1, which is east",)
    estate.names.thaw()
    assert one.settled(WEB, EASTLESS, receipt).passed


def test_a_stale_ttl_is_not_settled(estate: Estate) -> None:
    estate.names.freeze()
    one = estate.make()
    wanted = RouteState(NORMAL, 5)
    receipt = one.write([change(WEB, FULL, wanted)])
    verdict = one.settled(WEB, wanted, receipt)
    assert verdict.evidence == (f"{estate.names.address} still answers with TTL 60 s, wanted 5 s",)


def test_a_region_that_never_appears_is_not_settled(estate: Estate) -> None:
    one = estate.make()
    one.write([change(WEB, FULL, EASTLESS)])
    estate.names.freeze()
    receipt = one.write([change(WEB, EASTLESS, FULL)])
    verdict = one.settled(WEB, FULL, receipt)
    assert verdict.evidence == (f"{estate.names.address} did not answer with east in 8 answers",)


def test_a_name_server_that_is_gone_is_named(estate: Estate) -> None:
    estate.names.close()
    one = estate.make(dns_timeout="200ms")
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    verdict = one.settled(WEB, EASTLESS, receipt)
    assert verdict.evidence == (f"{estate.names.address} gave no answer within 0.2 s, asked 2 times",)


def test_a_truncated_answer_is_asked_again_over_tcp(estate: Estate) -> None:
    estate.names.truncated = True
    one = estate.make()
    assert one.settled(WEB, FULL, one.write([change(WEB, FULL, FULL)])).passed


def test_weights_changed_by_others_meanwhile_are_a_failure(estate: Estate) -> None:
    estate.meddle(WEB)
    verdict = estate.make().settled(WEB, EASTLESS, "")
    assert str(verdict) == f"fail: {WEB}: Route 53 has east 10, west 50, TTL 60 s, not east 0, west 100, TTL 60 s"


def test_the_zones_own_name_servers_are_asked_by_default(estate: Estate) -> None:
    one = estate.make(name_servers=[])
    servers = one._api.name_servers(SYSTEM.monotonic() + 5)
    assert [str(each) for each in servers[:2]] == ["ns-2048.awsdns-64.com:53", "ns-2049.awsdns-65.net:53"]


def test_a_private_zone_without_name_servers_says_so(estate: Estate) -> None:
    vpc = {"VPCRegion": "us-east-1", "VPCId": "vpc-1"}
    estate.zone = estate.moto.zone("private.test.", HostedZoneConfig={"PrivateZone": True}, VPC=vpc)
    estate.moto.put(estate.zone, *(record("web.private.test.", region) for region in NORMAL))
    one = estate.router({WEB: "web.private.test."}, name_servers=[])
    receipt = one.write([change(WEB, FULL, EASTLESS)])
    assert one.settled(WEB, EASTLESS, receipt).passed
    assert not one.settled(WEB, EASTLESS, "").passed


@pytest.mark.parametrize(
    ("weights", "ttl", "own", "wrong"),
    [
        ({"east": 200, "west": 56}, 60, {}, (("weights",), "the weights add up to 256; 255 is Route 53's limit")),
        (NORMAL, 2**31, {}, (("ttl",), "Route 53 takes a TTL up to 2147483647 s")),
        (
            NORMAL,
            60,
            {"set_identifiers": {"estern": "x"}},
            (("set_identifiers", "estern"), "this route has no region 'estern'; did you mean 'west'?"),
        ),
        (
            NORMAL,
            60,
            {"set_identifiers": {"east": ""}},
            (("set_identifiers", "east"), "a set identifier has 1 to 128"),
        ),
        (NORMAL, 60, {"set_identifiers": {"east": "west"}}, (("set_identifiers",), "two regions have the same")),
    ],
)
def test_mistakes_in_a_route(
    weights: dict[str, int], ttl: int, own: dict[str, Any], wrong: tuple[tuple[str | int, ...], str]
) -> None:
    config = Route53.RouteConfig.model_validate({"record": "Web.Example.test", **own})
    [(path, message)] = Route53.mistakes(spec(WEB, config, weights, ttl))
    assert path == wrong[0]
    assert message.startswith(wrong[1])


def test_a_route_without_mistakes_has_none() -> None:
    config = Route53.RouteConfig.model_validate({"record": "Web.Example.test"})
    assert list(Route53.mistakes(spec(WEB, config, {"east": 155, "west": 100}))) == []
    assert config.record == "web.example.test."


@pytest.mark.parametrize(
    "name", ["", ".", "web", "web..test", "web example.test", "-web.example.test", "x" * 64 + ".test"]
)
def test_a_record_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a full domain name"):
        Route53.RouteConfig.model_validate({"record": name})


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ({"endpoint": "https://route53.amazonaws.com"}, True),
        ({"endpoint": "http://127.0.0.1:5000"}, False),
        ({"endpoint": "https://route53.amazonaws.com.evil.example"}, False),
        ({"endpoint": "http://127.0.0.1:5000", "compare_and_set": "exact"}, True),
        ({"compare_and_set": None}, False),
    ],
)
def test_emulators_are_not_trusted_to_compare(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], exact: bool
) -> None:
    """The last has no endpoint of its own, but boto3's own setting names one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_ROUTE_53", "http://127.0.0.1:5000")
    assert estate.make(**{"compare_and_set": None, "endpoint": None, **settings})._api.exact() is exact


def test_awss_own_endpoint_is_trusted(estate: Estate) -> None:
    assert estate.make(compare_and_set=None, endpoint=None)._api.exact()


@pytest.mark.parametrize("settings", [{"zone": "example.com"}, {"zone": "Z1", "endpoint": "localhost:5000"}])
def test_a_config_that_cannot_be_is_refused(settings: Mapping[str, Sequence[str]]) -> None:
    with pytest.raises(ValidationError, match="it looks like"):
        Route53.Config.model_validate(settings)
