"""The probes that ask AWS, against moto's server behind the Route 53 proxy."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from pydantic import ValidationError

from failover.probes.cloudwatch_alarm import CloudWatchAlarmProbe
from failover.probes.route53_health_check import Route53HealthCheckProbe
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.probes.servers import free_port, serving, silent
from tests.routers.aws import KEY, Moto, Proxy
from tests.routers.route53_estate import sign_in
from tests.routers.specs import LOOPBACK

GOOD = "Success: HTTP Status Code: 200. Resolved IP: 192.0.2.1. OK"
BAD = "Failure: The health checker could not establish a connection within the timeout limit."
WORSE = "Failure: HTTP Status Code: 503. Resolved IP: 192.0.2.1. Service Unavailable"
CHECK = "abcdef11-2222-3333-4444-555555fedcba"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.stop()


@pytest.fixture
def proxy(moto: Moto) -> Iterator[Proxy]:
    made = Proxy(moto)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return sign_in(tmp_path, monkeypatch)


@pytest.fixture
def identity(credentials: Path) -> dict[str, Any]:
    return {"profile": "failover", "credentials_file": str(credentials), "region": "eu-west-1"}


@pytest.fixture
def hole() -> Iterator[str]:
    with serving(silent) as port:
        yield f"http://{LOOPBACK}:{port}"


class TestRoute53HealthCheck(ProbeContract):
    provider = Route53HealthCheckProbe

    @pytest.fixture
    def good(self, proxy: Proxy, identity: dict[str, Any]) -> dict[str, Any]:
        proxy.observations["good"] = [(GOOD, 10)] * 16
        return {**identity, "endpoint": proxy.endpoint, "health_check": "good"}

    @pytest.fixture
    def bad(self, proxy: Proxy, identity: dict[str, Any]) -> dict[str, Any]:
        proxy.observations["bad"] = [(BAD, 10)] * 16
        return {**identity, "endpoint": proxy.endpoint, "health_check": "bad"}

    @pytest.fixture
    def blind(self, hole: str, identity: dict[str, Any]) -> dict[str, Any]:
        return {**identity, "endpoint": hole, "health_check": CHECK, "timeout": "500ms"}


@pytest.mark.parametrize(
    ("observations", "settings", "outcome", "words"),
    [
        (
            [(GOOD, 5)] * 3 + [(BAD, 5)] * 13,
            {},
            Outcome.PASS,
            "3 of 16 checkers report success, 19 % (more",
        ),
        (
            [(GOOD, 5)] * 2 + [(BAD, 5)] * 14,
            {},
            Outcome.FAIL,
            "2 of 16 checkers report success, 12 % (more",
        ),
        ([(GOOD, 5)] * 9 + [(BAD, 5)] * 41, {}, Outcome.FAIL, "9 of 50 checkers report success, 18 %"),
        ([(GOOD, 5)] * 8 + [(BAD, 5)] * 8, {"more_than": 50}, Outcome.FAIL, "50 % (more than 50 %)"),
        ([(GOOD, 5)] * 9 + [(BAD, 5)] * 7, {"more_than": 50}, Outcome.PASS, "56 % (more than 50 %)"),
        ([(BAD, 5)] * 5 + [(WORSE, 5)] * 6, {}, Outcome.FAIL, "most say: Failure: HTTP Status Code: 503"),
        ([(GOOD, 400)] * 16, {}, Outcome.UNKNOWN, "16 of 16 checkers have not looked for 3 min"),
        ([(GOOD, 400)] * 9 + [(GOOD, 5)] * 7, {}, Outcome.UNKNOWN, "9 of 16 checkers have not looked for 3 min"),
        ([(GOOD, 400)] * 7 + [(BAD, 5)] * 9, {}, Outcome.FAIL, "0 of 9 checkers report success"),
        ([(GOOD, 400)] * 16, {"fresh": "10min"}, Outcome.PASS, "16 of 16"),
        ([], {}, Outcome.UNKNOWN, "no checker reports on it"),
    ],
)
def test_checkers_are_counted_as_route53_counts_them(
    proxy: Proxy, identity: dict[str, Any], observations: Any, settings: dict[str, Any], outcome: Outcome, words: str
) -> None:
    proxy.observations[CHECK] = observations
    asked = {**identity, "endpoint": proxy.endpoint, "health_check": CHECK, **settings}
    verdict = see(Route53HealthCheckProbe, asked)
    assert verdict.outcome is outcome, str(verdict)
    assert words in str(verdict)
    assert str(verdict.evidence[0]).startswith(f"Route 53 health check {CHECK}: ")


def test_a_health_check_of_motos_own_passes(moto: Moto, proxy: Proxy, identity: dict[str, Any]) -> None:
    config = {"Type": "TCP", "IPAddress": "192.0.2.1", "Port": 80}
    made = moto.api.create_health_check(CallerReference=uuid.uuid4().hex, HealthCheckConfig=config)
    asked = {**identity, "endpoint": proxy.endpoint, "health_check": made["HealthCheck"]["Id"]}
    assert "1 of 1 checkers report success" in str(see(Route53HealthCheckProbe, asked))


@pytest.mark.parametrize(
    ("settings", "fault", "words"),
    [
        ({}, "", "there is no such health check"),
        ({}, "Throttling", "says Throttling: Rate exceeded"),
        ({}, "InternalFailure", "says InternalFailure"),
        ({}, "close", "does not answer"),
        ({"profile": "stranger"}, "", "the AWS access key is not valid"),
        ({"profile": "nobody"}, "", "there are no usable AWS credentials"),
        ({"credentials_file": "/nowhere"}, "", "the credentials file /nowhere is not there"),
        ({"endpoint": f"http://{LOOPBACK}:{free_port()}"}, "", "does not answer"),
    ],
)
def test_what_cannot_be_seen_is_unknown(
    proxy: Proxy, identity: dict[str, Any], settings: dict[str, Any], fault: str, words: str
) -> None:
    proxy.fault = lambda _: fault
    asked = {**identity, "endpoint": proxy.endpoint, "health_check": CHECK, **settings}
    verdict = see(Route53HealthCheckProbe, asked)
    assert verdict.outcome is Outcome.UNKNOWN
    assert words in str(verdict)
    assert len(proxy.calls) <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"health_check": "a/b"}, "is not a health check's id"),
        ({"health_check": CHECK, "more_than": 100}, "less than"),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Route53HealthCheckProbe.Config.model_validate(settings)


@pytest.fixture(scope="module")
def alarms(moto: Moto) -> Iterator[str]:
    """The endpoint of a CloudWatch with alarms called ok, alarm, insufficient_data, all and some."""
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name="eu-west-1")
    endpoint = f"http://{LOOPBACK}:{moto.port}"
    api = session.client("cloudwatch", endpoint_url=endpoint, config=Config(proxies={}))
    how: Any = {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    for state in ("OK", "ALARM", "INSUFFICIENT_DATA"):
        name = state.lower()
        api.put_metric_alarm(AlarmName=name, Namespace="shop", MetricName="errors", Period=60, Statistic="Sum", **how)
        api.set_alarm_state(AlarmName=name, StateValue=state, StateReason="Threshold crossed: 7 > 1")
    # moto has composite alarms, but no PutCompositeAlarm; the query protocol gets one in by the other door.
    composite = {"Action": "PutMetricAlarm", "AlarmName": "all", "AlarmRule": "ALARM(alarm) AND ALARM(ok)"}
    composite |= {"Version": "2010-08-01", "EvaluationPeriods": "1", "ComparisonOperator": how["ComparisonOperator"]}
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/eu-west-1/monitoring/aws4_request"}
    made = urllib3.PoolManager().request_encode_body("POST", endpoint, composite, signed, encode_multipart=False)
    assert made.status == 200, made.data
    yield endpoint
    api.close()


class TestCloudWatchAlarm(ProbeContract):
    provider = CloudWatchAlarmProbe

    @pytest.fixture
    def good(self, alarms: str, identity: dict[str, Any]) -> dict[str, Any]:
        return {**identity, "endpoint": alarms, "alarm": "ok"}

    @pytest.fixture
    def bad(self, alarms: str, identity: dict[str, Any]) -> dict[str, Any]:
        return {**identity, "endpoint": alarms, "alarm": "alarm"}

    @pytest.fixture
    def blind(self, hole: str, identity: dict[str, Any]) -> dict[str, Any]:
        return {**identity, "endpoint": hole, "alarm": "ok", "timeout": "500ms"}


@pytest.mark.parametrize(
    ("settings", "outcome", "words"),
    [
        ({"alarm": "ok"}, Outcome.PASS, "CloudWatch alarm 'ok' in eu-west-1: OK since 20"),
        ({"alarm": "alarm"}, Outcome.FAIL, "Threshold crossed: 7 > 1"),
        ({"alarm": "insufficient_data"}, Outcome.UNKNOWN, "INSUFFICIENT_DATA since"),
        ({"alarm": "gone"}, Outcome.UNKNOWN, "there is no such alarm; check its name, 'region'"),
        ({"alarm": "ok", "region": "us-east-1"}, Outcome.UNKNOWN, "there is no such alarm"),
        ({"alarm": "ok", "region": None}, Outcome.UNKNOWN, "You must specify a region"),
        ({"alarm": "ok", "profile": "nobody"}, Outcome.UNKNOWN, "there are no usable AWS credentials"),
        ({"alarm": "ok", "endpoint": f"http://{LOOPBACK}:{free_port()}"}, Outcome.UNKNOWN, "does not answer"),
    ],
)
def test_the_state_of_an_alarm_is_the_verdict(
    alarms: str, identity: dict[str, Any], settings: dict[str, Any], outcome: Outcome, words: str
) -> None:
    verdict = see(CloudWatchAlarmProbe, {**identity, "endpoint": alarms, **settings})
    assert verdict.outcome is outcome, str(verdict)
    assert words in str(verdict)


def test_a_composite_alarm_is_read_like_any_other(alarms: str, identity: dict[str, Any]) -> None:
    verdict = see(CloudWatchAlarmProbe, {**identity, "endpoint": alarms, "alarm": "all"})
    assert verdict.outcome is Outcome.PASS, str(verdict)
    assert "CloudWatch alarm 'all' in eu-west-1: OK since 20" in str(verdict)
