"""examples/aws-two-region, by the command line as people run it, against moto behind the Route 53 proxy."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config

from tests.e2e.product import ROOT, Done, failover
from tests.routers.aws import KEY, Moto, NameServer, Proxy, RecordSet
from tests.routers.specs import LOOPBACK

EXAMPLE = ROOT / "examples" / "aws-two-region"
REGIONS = {"east": ("us-east-1", "192.0.2.1", "2001:db8::1"), "west": ("us-west-2", "192.0.2.11", "2001:db8::11")}
GOOD = "Success: HTTP Status Code: 200. OK"


def records() -> Iterator[RecordSet]:
    for region in REGIONS:
        own = {"SetIdentifier": region, "Weight": 50}
        target = {
            "HostedZoneId": "Z35SXDOTRQ7X7K",
            "DNSName": f"lb-{region}.example.com.",
            "EvaluateTargetHealth": True,
        }
        for kind in ("A", "AAAA"):
            yield {"Name": "shop.example.com.", "Type": kind, **own, "AliasTarget": target}
        values = [{"Value": REGIONS[region][1]}]
        yield {"Name": "api.example.com.", "Type": "A", **own, "TTL": 60, "ResourceRecords": values}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY)
    for region, (aws, *_) in REGIONS.items():
        api = session.client(
            "cloudwatch", region_name=aws, endpoint_url=f"http://{LOOPBACK}:{server.port}", config=Config(proxies={})
        )
        for service in ("web", "api"):
            how: Any = {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
            name = f"{service}-5xx-{region}"
            api.put_metric_alarm(AlarmName=name, Namespace="s", MetricName="5xx", Period=60, Statistic="Sum", **how)
            api.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="no errors")
        api.close()
    yield server
    server.stop()


class Account:
    """The example's own file with this account's ids in it, no waits for people, and a name server to ask."""

    def __init__(self, moto: Moto, place: Path) -> None:
        self.moto = moto
        self.zone = moto.zone("example.com.")
        moto.put(self.zone, *records())
        self.proxy = Proxy(moto)
        self.names = NameServer(lambda: moto.records(self.zone))
        self.names.targets = {
            (f"lb-{region}.example.com.", kind): [value]
            for region, (_, *values) in REGIONS.items()
            for kind, value in zip(("A", "AAAA"), values, strict=True)
        }
        document = yaml.safe_load((EXAMPLE / "failover.yaml").read_text())
        for region in document["regions"].values():
            self.proxy.observations[region["health_check"]] = [(GOOD, 5)] * 16
        document["routers"]["dns"]["route53"] |= {"zone": self.zone, "name_servers": [self.names.address]}
        document["drain"] |= {"stages": [50, 0], "soak": "0s", "ttl": "1s"}
        [api] = document["services"]["api"]["routes"]
        api["ttl"] = "1s"
        for each in moto.records(self.zone):
            if "TTL" in each:
                moto.put(self.zone, {**each, "TTL": 1})
        self.topology = place / "failover.yaml"
        self.topology.write_text(yaml.safe_dump(document, sort_keys=False))
        self.before = moto.records(self.zone)

    def __call__(self, *words: str, code: int = 0) -> Done:
        endpoints = {
            "AWS_ENDPOINT_URL_ROUTE_53": self.proxy.endpoint,
            "AWS_ENDPOINT_URL_CLOUDWATCH": f"http://{LOOPBACK}:{self.moto.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.topology.with_name("none")),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.topology.with_name("none")),
        }
        return failover(self.topology, *words, code=code, **endpoints)

    def weights(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for each in self.moto.records(self.zone):
            if "Weight" in each:
                found.setdefault(each["SetIdentifier"], set()).add(each["Weight"])
        return found

    def close(self) -> None:
        self.proxy.stop()
        self.names.close()


@pytest.fixture
def account(moto: Moto, tmp_path: Path) -> Iterator[Account]:
    made = Account(moto, tmp_path)
    yield made
    made.close()


def test_the_example_is_valid_as_it_stands(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "failover.yaml", tmp_path)
    failover(tmp_path / "failover.yaml", "validate")


PAGE = (ROOT / "docs" / "providers.md").read_text()


@pytest.mark.parametrize("router", ["route53", "arc"])
def test_the_topology_in_the_documentation_is_valid(router: str, tmp_path: Path) -> None:
    part = PAGE.split(f"### `{router}`")[1].split("\n### ")[0]
    (tmp_path / "failover.yaml").write_text(part.split("```yaml\n")[1].split("```")[0])
    failover(tmp_path / "failover.yaml", "validate")


def test_a_region_is_evacuated_and_brought_back(account: Account) -> None:
    plan = account("plan", "evacuate-region", "-i", "region=east")
    assert "Nothing was changed" in plan.said
    assert "ChangeResourceRecordSets" not in account.proxy.calls
    assert account.moto.records(account.zone) == account.before
    account("run", "evacuate-region", "-i", "region=east", "--yes")
    assert account.weights() == {"east": {0}, "west": {100}}
    assert account("status", "--json").json["routes"]["web@dns"]["weights"] == {"east": 0, "west": 100}
    account("run", "restore-region", "-i", "region=east", "--yes")
    assert account.moto.records(account.zone) == account.before


def test_a_run_whose_answers_are_lost_finds_out_and_repeats_nothing(account: Account) -> None:
    lost = iter(["lose", "lose"])
    account.proxy.fault = lambda operation: next(lost, "") if operation == "ChangeResourceRecordSets" else ""
    account("run", "evacuate-region", "-i", "region=east", "--yes")
    assert account.weights() == {"east": {0}, "west": {100}}
    sent = [str(batch) for batch in account.proxy.batches]
    assert len(sent) == len(set(sent)) == account.proxy.calls.count("ChangeResourceRecordSets")


def test_a_survivor_that_the_checkers_cannot_reach_stops_it_before_any_change(account: Account) -> None:
    west = account.proxy.observations
    for check in west:
        if check.startswith("0bbb"):
            west[check] = [("Failure: no connection", 5)] * 16
    refused = account("run", "evacuate-region", "-i", "region=east", "--yes", code=1)
    assert "0 of 16 checkers report success" in refused.said
    assert account.moto.records(account.zone) == account.before
