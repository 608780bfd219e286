"""The calls that 10,000 weight changes take on Route 53, beside the fewest that its limits allow.

Against a counting fake of the wire, not moto, which takes minutes for so many records: the tests' strict proxy, which
holds the API's limits of a batch and its comparison, over a zone in memory. boto3, HTTP and XML are the real ones.
"""

import tempfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from bench.peers import Row
from failover.clock import SYSTEM
from failover.ports import RouteSpec
from failover.routers._route53_batch import BATCH_CHARACTERS, BATCH_RECORDS
from failover.routers.route53 import Route53
from failover.topology import Route
from failover.world import RouteChange, RouteState
from tests.routers.aws import KEY, Proxy, RecordSet

ROUTES, REGIONS, PAGE = 5000, ("east", "west"), 300
_SPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
_FULL, _DRAINED = RouteState({"east": 50, "west": 50}, 60), RouteState({"east": 0, "west": 100}, 60)
_SHORT = {"east": "192.0.2.1", "west": "192.0.2.11"}
_LONG = {region: f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{region}.example.com" for region in REGIONS}


class Zone:
    """A hosted zone in memory, in place of moto."""

    def __init__(self, kind: str, values: Mapping[str, str]) -> None:
        self._sets: dict[tuple[str, str], RecordSet] = {}
        self.put("", *(_record(number, kind, region, values) for number in range(ROUTES) for region in REGIONS))
        self._order = sorted(self._sets)

    def put(self, zone: str, *records: RecordSet) -> None:  # noqa: ARG002 - as moto's
        self._sets |= {(each["Name"], each["SetIdentifier"]): each for each in records}

    def records(self, zone: str) -> list[RecordSet]:  # noqa: ARG002 - as moto's
        return list(self._sets.values())

    def page(self, name: str, identifier: str) -> tuple[list[RecordSet], tuple[str, str] | None]:
        start = bisect_left(self._order, (name, identifier))
        rest = self._order[start : start + PAGE + 1]
        return [self._sets[key] for key in rest[:PAGE]], rest[PAGE] if len(rest) > PAGE else None


class Wire(Proxy):
    """The proxy with a zone of our own behind it; it answers lists itself."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        super().__init__(zone)  # type: ignore[arg-type]  # what the proxy uses of moto

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:  # noqa: ARG002 - the proxy's
        asked = parse_qs(urlsplit(path).query)
        found, more = self.zone.page(asked["name"][0], asked.get("identifier", [""])[0])
        tail = f"<IsTruncated>{str(more is not None).lower()}</IsTruncated><MaxItems>{PAGE}</MaxItems>"
        if more:
            tail += f"<NextRecordName>{more[0]}</NextRecordName><NextRecordType>{found[0]['Type']}</NextRecordType>"
            tail += f"<NextRecordIdentifier>{more[1]}</NextRecordIdentifier>"
        sets = "".join(_xml(each) for each in found)
        inside = f"<ResourceRecordSets>{sets}</ResourceRecordSets>{tail}"
        return (
            200,
            f"<ListResourceRecordSetsResponse xmlns='{_SPACE}'>{inside}</ListResourceRecordSetsResponse>".encode(),
        )


def rows() -> list[Row]:
    """Calls, ours beside the least: bound by the elements of a batch, then by its characters."""
    found = []
    for what, kind, values in (("A records", "A", _SHORT), ("long CNAMEs", "CNAME", _LONG)):
        changes, lists, least = _measure(kind, values)
        name = f"change calls, 10,000 weights of {what}"
        found.append(
            Row(name, changes, least, "", f"the least: {BATCH_RECORDS} elements, {BATCH_CHARACTERS} characters")
        )
        if kind == "A":
            pages = -(-ROUTES * len(REGIONS) // PAGE)
            found.append(Row("list calls for the same", lists, pages, "", f"the least: {PAGE} records a page"))
    return found


def _measure(kind: str, values: Mapping[str, str]) -> tuple[int, int, int]:
    wire = Wire(Zone(kind, values))
    try:
        with tempfile.TemporaryDirectory() as place:
            credentials = Path(place) / "credentials"
            credentials.write_text(f"[bench]\naws_access_key_id = {KEY}\naws_secret_access_key = {KEY}\n")
            router = _router(wire.endpoint, str(credentials), kind)
            router.write([RouteChange(_id(number), _FULL, _DRAINED, "a benchmark") for number in range(ROUTES)])
    finally:
        wire.stop()
    moved = {each["Weight"] for each in wire.zone.records("") if each["SetIdentifier"] == "east"}
    if moved != {0}:
        raise RuntimeError(f"not everything was moved: {moved}")
    least = max(
        -(-2 * ROUTES * len(REGIONS) // BATCH_RECORDS),
        -(-2 * ROUTES * sum(map(len, values.values())) // BATCH_CHARACTERS),
    )
    return wire.calls.count("ChangeResourceRecordSets"), wire.calls.count("ListResourceRecordSets"), least


def _router(endpoint: str, credentials: str, kind: str) -> Route53:
    settings: dict[str, Any] = {
        "zone": "Z1",
        "endpoint": endpoint,
        "profile": "bench",
        "credentials_file": credentials,
        "compare_and_set": "exact",
        "pace": {"rate": 100_000, "burst": 1000},
    }
    routes = {}
    for number in range(ROUTES):
        route = Route(_id(number), "s", "aws", dict(_FULL.weights), 60, None, {}, ())
        config = Route53.RouteConfig.model_validate({"record": f"r{number:05}.example.test", "type": kind})
        routes[route.id] = RouteSpec(route, config)
    return Route53("aws", Route53.Config.model_validate(settings), routes, SYSTEM)


def _id(number: int) -> str:
    return f"s{number}@aws"


def _record(number: int, kind: str, region: str, values: Mapping[str, str]) -> RecordSet:
    name = {"Name": f"r{number:05}.example.test.", "Type": kind, "SetIdentifier": region}
    return {**name, "Weight": 50, "TTL": 60, "ResourceRecords": [{"Value": values[region]}]}


def _xml(record: RecordSet) -> str:
    values: Sequence[Any] = record["ResourceRecords"]
    inside = "".join(f"<ResourceRecord><Value>{escape(each['Value'])}</Value></ResourceRecord>" for each in values)
    own = "".join(f"<{key}>{record[key]}</{key}>" for key in ("Name", "Type", "SetIdentifier", "Weight", "TTL"))
    return f"<ResourceRecordSet>{own}<ResourceRecords>{inside}</ResourceRecords></ResourceRecordSet>"


if __name__ == "__main__":
    for row in rows():
        print(f"{row.what:<50} {row.ours:>5g} {row.peer:>5g}  {row.beside}")
