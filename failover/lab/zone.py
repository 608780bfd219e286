"""The laboratory's hosted zone, written and read through Route 53's API."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from failover.lab.state import Lab

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.literals import RRTypeType
    from mypy_boto3_route53.type_defs import ChangeTypeDef, ResourceRecordSetTypeDef

ZONE = "lab.example."
RECORD = "shop.lab.example."
TTL = 5
WEIGHT = 50
AUTHORITY = "ns.lab.example. hostmaster.lab.example. 1 7200 900 1209600 5"
PROFILE = "lab"
KEY = "lab"
SIGNING_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Record:
    """One record set of the zone; those with an identifier are alternatives to each other."""

    name: str
    kind: str
    ttl: int
    values: tuple[str, ...]
    identifier: str | None = None
    weight: int | None = None


Zone = Mapping[tuple[str, str], tuple[Record, ...]]
"""The records by lower-case name and type."""


def client(endpoint: str) -> "Route53Client":
    """A client of the laboratory's Route 53, whatever the caller's own AWS settings are."""
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=SIGNING_REGION)
    config = Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}, proxies={})
    return session.client("route53", endpoint_url=endpoint, config=config)


def write_credentials(lab: Lab) -> None:
    """The dummy key pair, for everybody who talks to the laboratory's Route 53."""
    lab.credentials.write_text(f"[{PROFILE}]\naws_access_key_id = {KEY}\naws_secret_access_key = {KEY}\n")


def probe(lab: Lab) -> Callable[[], bool]:
    """What tells whether the API answers now."""
    api = client(lab.endpoint)

    def answers() -> bool:
        try:
            api.list_hosted_zones()
        except (BotoCoreError, ClientError):
            return False
        return True

    return answers


def create(lab: Lab) -> str:
    """Create the zone with the shop's weighted record in it, and return the zone's id."""
    api = client(lab.endpoint)
    made = api.create_hosted_zone(Name=ZONE, CallerReference=str(lab.directory))
    zone = made["HostedZone"]["Id"].rpartition("/")[2]
    # The authority that moto makes is not a record's text, so it is replaced.
    records = [Record(ZONE, "SOA", 900, (AUTHORITY,))]
    records += [Record(RECORD, "A", TTL, (region.address,), region.name, WEIGHT) for region in lab.regions.values()]
    _put(api, zone, records)
    return zone


def write(lab: Lab, records: Iterable[Record]) -> None:
    """Create or replace records of the zone."""
    _put(client(lab.endpoint), lab.zone, records)


def _put(api: "Route53Client", zone: str, records: Iterable[Record]) -> None:
    changes = [_change(record) for record in records]
    api.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


def _change(record: Record) -> "ChangeTypeDef":
    record_set: ResourceRecordSetTypeDef = {
        "Name": record.name,
        "Type": cast("RRTypeType", record.kind),
        "TTL": record.ttl,
        "ResourceRecords": [{"Value": value} for value in record.values],
    }
    if record.identifier is not None and record.weight is not None:
        record_set |= {"SetIdentifier": record.identifier, "Weight": record.weight}
    return {"Action": "UPSERT", "ResourceRecordSet": record_set}


def read(api: "Route53Client", zone: str) -> Zone:
    """The whole zone as the API tells it now."""
    found: list[Record] = []
    for page in api.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone):
        found += [
            Record(
                name=entry["Name"].lower(),
                kind=entry["Type"],
                ttl=entry.get("TTL", 0),
                values=tuple(value["Value"] for value in entry.get("ResourceRecords", ())),
                identifier=entry.get("SetIdentifier"),
                weight=entry.get("Weight"),
            )
            for entry in page["ResourceRecordSets"]
        ]
    return grouped(found)


def grouped(records: Iterable[Record]) -> Zone:
    """`records` by name and type."""
    groups: dict[tuple[str, str], tuple[Record, ...]] = {}
    for record in records:
        key = (record.name, record.kind)
        groups[key] = (*groups.get(key, ()), record)
    return groups
