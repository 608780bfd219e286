"""Route 53's API as the router needs it: paced and bounded calls, and what a lost answer means."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from botocore.exceptions import ConnectionClosedError
from pydantic import Field, field_validator

from failover.aws import ERRORS, THROTTLED, Access, Account, code, lost, said, status, words
from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate
from failover.routers._dns import Server, ServerText
from failover.routers._pace import Pace, shared
from failover.units import Duration, duration

RecordSet = Mapping[str, Any]
"""A ResourceRecordSet as the API lists it."""
Key = tuple[str, str]
"""A record's name, lower case and with its final dot, and its type."""

RECORDS_A_SECOND = 50
"""How many record sets a second a call may take on top of `retry_for`, where a call is about many."""
LABEL = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_NOT_TAKEN = THROTTLED | {"PriorRequestNotComplete"}
_REJECTED = {"InvalidChangeBatch", "InvalidInput"}
_OWN_WORDS = {
    "NoSuchHostedZone": ("there is no hosted zone {zone}", "compare 'zone' with the id in the Route 53 console"),
    "NoSuchChange": ("Route 53 does not know that change any more", "look at the records themselves"),
}
_PLACE = ("RecordName", "RecordType", "RecordIdentifier")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Route53Config(Access):
    """A hosted zone. Credentials come by boto3's own chain unless `profile` or `credentials_file` say otherwise.

    `compare_and_set` is `exact` (the API itself refuses where a record is not what was read) or `reread` (read
    directly before writing; for emulators). By default it is `exact`, unless the endpoint is not AWS's own.
    `pace` bounds the calls of this process, `retry_for` all retries of one read or write together.
    """

    zone: str
    endpoint: str | None = None
    name_servers: tuple[ServerText, ...] = ()
    resolvers: tuple[ServerText, ...] = ()
    compare_and_set: Literal["exact", "reread"] | None = None
    dns_timeout: Annotated[Duration, Field(gt=0)] = 2.0
    pace: Pace = Pace()
    attempts: Annotated[int, Field(ge=1)] = 8
    retry_for: Duration = 20.0

    @field_validator("zone")
    @classmethod
    def _zone_is_an_id(cls, zone: str) -> str:
        if not re.fullmatch(r"(/hostedzone/)?[A-Za-z0-9]{1,32}", zone):
            raise ValueError(f"'{zone}' is not a hosted zone's id; it looks like Z0123456789ABCDEFGHIJ")
        return zone.rpartition("/")[2]

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.match(r"https?://[^/\s]+", endpoint):
            raise ValueError(f"'{endpoint}' is not a URL; it looks like https://route53.amazonaws.com")
        return endpoint

    def exact(self, endpoint: str) -> bool:
        """Whether the API at `endpoint` is trusted to compare what it deletes with what it is told."""
        if self.compare_and_set:
            return self.compare_and_set == "exact"
        host = urlsplit(endpoint).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


class Rejected(Exception):
    """The API refused a change batch as a whole; nothing was written."""


class Api:
    """The few calls that the router makes. Every call ends within its deadline plus the config's `longest`."""

    def __init__(self, name: str, config: Route53Config, clock: Clock) -> None:
        self.where = f"router {name}"
        self.config = config
        self.clock = clock
        self.zone = config.zone
        self._account = Account(config, config.connect_timeout, config.read_timeout)
        self._bucket = shared((config.profile, config.credentials_file, config.endpoint), config.pace, clock)

    def budget(self, records: int) -> float:
        """Seconds for all calls and retries that are about `records` record sets together."""
        return self.config.retry_for + records / RECORDS_A_SECOND

    def deadline(self, records: int = 0) -> float:
        return self.clock.monotonic() + self.budget(records)

    def exact(self) -> bool:
        """Whether this API compares what it deletes with what it is told. Raises Failed where nobody can sign in."""
        return self.config.exact(self._client(writes=True).meta.endpoint_url)

    def record_sets(self, wanted: Iterable[Key], deadline: float) -> Mapping[Key, Sequence[RecordSet]]:
        """The record sets of each of `wanted`, in as few calls as the zone allows. Raises Failed.

        Source: ListResourceRecordSets. A page starts at the next name that is still missing, and everything else
        that it happens to hold is used too.
        """
        keys = set(wanted)
        missing = sorted(keys, key=lambda key: (key[0].rstrip(".").split(".")[::-1], key[1]))
        found: dict[Key, list[RecordSet]] = {key: [] for key in missing}
        start: dict[str, Any] = {}
        while missing:
            first = missing[0]
            start = start or {"StartRecordName": first[0], "StartRecordType": first[1]}
            page = self._call("list_resource_record_sets", deadline, HostedZoneId=self.zone, **start)
            seen = {first}
            for record in page["ResourceRecordSets"]:
                key = (canonical(record["Name"]), record["Type"])
                if key in keys:
                    found[key].append(record)
                    seen.add(key)
            start = {}
            if page.get("IsTruncated"):
                cut = (canonical(page["NextRecordName"]), page["NextRecordType"])
                if cut == first and page.get("NextRecordIdentifier"):
                    start = {f"Start{name}": page[f"Next{name}"] for name in _PLACE}
                    seen.discard(first)
                elif cut in seen - {first}:
                    found[cut] = []
                    seen.discard(cut)
            keys -= seen
            missing = [key for key in missing if key not in seen]
        return found

    def change(self, changes: Sequence[Mapping[str, Any]], comment: str, deadline: float) -> str:
        """Make `changes`, all or none, and return the change's id. Source: ChangeResourceRecordSets. Writes.

        Raises Rejected where the batch as a whole is refused, Failed where nothing was written for another reason,
        and Indeterminate where the answer to what was sent did not come.
        """
        batch = {"Comment": comment[:256], "Changes": list(changes)}
        done = self._call("change_resource_record_sets", deadline, True, HostedZoneId=self.zone, ChangeBatch=batch)
        return str(done["ChangeInfo"]["Id"]).rpartition("/")[2]

    def in_sync(self, change: str, deadline: float) -> bool:
        """Whether `change` has reached all of Route 53's name servers. Source: GetChange. Raises Failed."""
        return bool(self._call("get_change", deadline, Id=change)["ChangeInfo"]["Status"] == "INSYNC")

    def name_servers(self, deadline: float) -> tuple[Server, ...]:
        """The zone's delegation set; none where the zone is private. Source: GetHostedZone. Raises Failed."""
        zone = self._call("get_hosted_zone", deadline, Id=self.zone)
        return tuple(Server(name, 53) for name in zone.get("DelegationSet", {}).get("NameServers", ()))

    def _call(self, operation: str, deadline: float, writes: bool = False, **parameters: Any) -> Any:
        attempt = 0
        while True:
            attempt += 1
            client = self._client(writes)
            if not self._bucket.take(deadline):
                raise self._out_of_time(writes)
            try:
                return getattr(client, operation)(**parameters)
            except ERRORS as error:
                if writes and code(error) in _REJECTED:
                    raise Rejected(said(error)) from None
                pause = random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)  # noqa: S311 - jitter
                if (
                    not _worth_another(error, writes)
                    or attempt >= self.config.attempts
                    or self.clock.monotonic() + pause > deadline
                ):
                    raise self._explained(error, writes, attempt) from None
                self.clock.sleep(pause)

    def _client(self, writes: bool) -> Any:
        try:
            # There is one Route 53, which takes what is signed for this region.
            return self._account.client("route53", self.config.region or "us-east-1", self.config.endpoint)
        except Failed as error:
            raise Failed(error.what + _unchanged(writes), where=self.where, next=error.next) from None
        except ERRORS as error:
            what, then = words(error, "signing in to AWS")
            raise Failed(what + _unchanged(writes), where=self.where, next=then) from None

    def _out_of_time(self, writes: bool) -> Failed:
        rate = self.config.pace.rate
        return Failed(
            f"Route 53 takes {rate:g} calls a second from here, and there was no turn left within "
            f"{duration(self.config.retry_for)}{_unchanged(writes)}",
            where=self.where,
            next="move fewer services at a time, or raise 'retry_for'",
        )

    def _explained(self, error: Exception, writes: bool, attempts: int) -> FailoverError:
        if writes and code(error) not in _NOT_TAKEN and lost(error):
            return Indeterminate(
                f"a change of zone {self.zone} was sent, but its answer was lost ({said(error)}); "
                "it may have been made or not",
                where=self.where,
                next="read the records back before anything else; resume does",
            )
        what, then = self._words(error, attempts)
        return Failed(what + _unchanged(writes), where=self.where, next=then)

    def _words(self, error: Exception, attempts: int) -> tuple[str, str]:
        if code(error) in _OWN_WORDS:
            what, then = _OWN_WORDS[code(error)]
            return what.format(zone=self.zone), then
        if code(error) in _NOT_TAKEN:
            times = "once" if attempts == 1 else f"{attempts} times"
            return (
                f"Route 53 said {code(error)} {times} in a row: {said(error)}",
                "wait a minute; see who else calls this account's Route 53 API, and raise 'retry_for' if it stays so",
            )
        return words(error, f"Route 53's API at {self.config.endpoint or 'route53.amazonaws.com'}")


def canonical(name: str) -> str:
    """`name` in lower case, with its final dot, and with the API's octal escapes undone, as in `\\052`."""
    plain = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
    return plain.lower().rstrip(".") + "."


def _unchanged(writes: bool) -> str:
    return "; nothing was written" if writes else ""


def _worth_another(error: Exception, writes: bool) -> bool:
    cut_off = isinstance(error, ConnectionClosedError) or status(error) >= 500
    return code(error) in _NOT_TAKEN or (cut_off and not writes)
