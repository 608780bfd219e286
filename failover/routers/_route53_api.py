"""Route 53's API as the router needs it: bounded calls, errors in clear words, and what a lost answer means."""

import random
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.parsers import ResponseParserError
from pydantic import Field, field_validator

from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate
from failover.routers._dns import Server, ServerText
from failover.schema import Model
from failover.units import Duration

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
else:
    Route53Client = Any

RecordSet = Mapping[str, Any]
"""A ResourceRecordSet as the API lists it."""
Key = tuple[str, str]
"""A record's name, lower case and with its final dot, and its type."""

_NOT_TAKEN = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "PriorRequestNotComplete"}
_REJECTED = {"InvalidChangeBatch", "InvalidInput"}
_ANSWER_LOST = (HTTPClientError, SSLError, ResponseParserError)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound)
_WORDS = {
    "NoSuchHostedZone": ("there is no hosted zone {zone}", "compare 'zone' with the id in the Route 53 console"),
    "AccessDenied": ("access denied: {said}", "give this identity the permission that is named"),
    "AccessDeniedException": ("access denied: {said}", "give this identity the permission that is named"),
    "InvalidClientTokenId": ("the AWS access key is not valid", "check 'profile' and 'credentials_file'"),
    "UnrecognizedClientException": ("the AWS access key is not valid", "check 'profile' and 'credentials_file'"),
    "SignatureDoesNotMatch": ("the AWS secret key is wrong, or this clock is", "check the credentials and the time"),
    "ExpiredToken": ("the AWS session has expired", "sign in to AWS again"),
    "ExpiredTokenException": ("the AWS session has expired", "sign in to AWS again"),
    "NoSuchChange": ("Route 53 does not know that change any more", "look at the records themselves"),
}
_PLACE = ("RecordName", "RecordType", "RecordIdentifier")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Route53Config(Model):
    """A hosted zone. Credentials come by boto3's own chain unless `profile` or `credentials_file` say otherwise.

    `compare_and_set` is `exact` (the API itself refuses where a record is not what was read) or `reread` (read
    directly before writing; for emulators). By default it is `exact`, unless `endpoint` is not AWS's own.
    `retry_for` bounds all retries of one call together.
    """

    zone: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    credentials_file: str | None = None
    name_servers: tuple[ServerText, ...] = ()
    compare_and_set: Literal["exact", "reread"] | None = None
    connect_timeout: Annotated[Duration, Field(gt=0)] = 3.0
    read_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    dns_timeout: Annotated[Duration, Field(gt=0)] = 2.0
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

    @property
    def exact(self) -> bool:
        if self.compare_and_set:
            return self.compare_and_set == "exact"
        host = urlsplit(self.endpoint).hostname if self.endpoint else None
        return host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


class Rejected(Exception):
    """The API refused a change batch as a whole; nothing was written."""


class Api:
    """The few calls that the router makes. Every call ends within its deadline plus one connect and read timeout."""

    def __init__(self, name: str, config: Route53Config, clock: Clock) -> None:
        self.where = f"router {name}"
        self.config = config
        self.clock = clock
        self.zone = config.zone
        self._made: Route53Client | None = None
        self._guard = threading.Lock()

    def deadline(self) -> float:
        return self.clock.monotonic() + self.config.retry_for

    def record_sets(self, wanted: Iterable[Key], deadline: float) -> Mapping[Key, Sequence[RecordSet]]:
        """The record sets of each of `wanted`, in as few calls as the zone allows. Raises Failed.

        Source: ListResourceRecordSets. A page starts at the next name that is still missing, and everything else
        that it happens to hold is used too.
        """
        missing = sorted(set(wanted), key=lambda key: (key[0].rstrip(".").split(".")[::-1], key[1]))
        found: dict[Key, list[RecordSet]] = {key: [] for key in missing}
        start: dict[str, Any] = {}
        while missing:
            first = missing[0]
            start = start or {"StartRecordName": first[0], "StartRecordType": first[1]}
            page = self._call("list_resource_record_sets", deadline, HostedZoneId=self.zone, **start)
            seen = {first}
            for record in page["ResourceRecordSets"]:
                key = (canonical(record["Name"]), record["Type"])
                if key in missing:
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
            try:
                return getattr(self._client(), operation)(**parameters)
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                if writes and _code(error) in _REJECTED:
                    raise Rejected(_said(error)) from None
                pause = random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)  # noqa: S311 - jitter
                if (
                    not _worth_another(error, writes)
                    or attempt >= self.config.attempts
                    or self.clock.monotonic() + pause > deadline
                ):
                    raise self._explained(error, writes, attempt) from None
                self.clock.sleep(pause)

    def _client(self) -> Route53Client:
        with self._guard:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Route53Client:
        session = botocore.session.Session()
        if path := self.config.credentials_file:
            if not Path(path).is_file():
                raise Failed(
                    f"the credentials file {path} is not there", where=self.where, next="check 'credentials_file'"
                )
            session.set_config_variable("credentials_file", path)
        settings = Config(
            connect_timeout=self.config.connect_timeout,
            read_timeout=self.config.read_timeout,
            # A write must never be repeated by a library that does not know whether it was taken.
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        made = boto3.Session(
            botocore_session=session, profile_name=self.config.profile, region_name=self.config.region
        )
        # With an endpoint of its own boto3 wants a region to sign for; Route 53 has but this one.
        region = made.region_name or "us-east-1"
        return made.client("route53", region_name=region, endpoint_url=self.config.endpoint, config=settings)

    def _explained(self, error: Exception, writes: bool, attempts: int) -> FailoverError:
        unchanged = "; nothing was written" if writes else ""
        if writes and _may_have_been_taken(error):
            return Indeterminate(
                f"a change of zone {self.zone} was sent, but its answer was lost ({_said(error)}); "
                "it may have been made or not",
                where=self.where,
                next="read the records back before anything else; resume does",
            )
        what, then = self._words(error, attempts)
        return Failed(what + unchanged, where=self.where, next=then)

    def _words(self, error: Exception, attempts: int) -> tuple[str, str]:
        code, said = _code(error), _said(error)
        if code in _WORDS:
            what, then = _WORDS[code]
            return what.format(zone=self.zone, said=said), then
        if code in _NOT_TAKEN:
            times = "once" if attempts == 1 else f"{attempts} times"
            return (
                f"Route 53 said {code} {times} in a row: {said}",
                "wait a minute; see who else calls this account's Route 53 API, and raise 'retry_for' if it stays so",
            )
        if isinstance(error, _NO_CREDENTIALS):
            return f"there are no usable AWS credentials: {said}", "set 'profile', or export AWS_PROFILE"
        if isinstance(error, NotConnectedError | HTTPClientError):
            endpoint = self.config.endpoint or "route53.amazonaws.com"
            return f"Route 53's API at {endpoint} does not answer: {said}", "check the network from here to it"
        who = f"Route 53 says {code}" if code else f"boto3 could not make the call: {type(error).__name__}"
        return f"{who}: {said}", "correct what it names, then try again"


def canonical(name: str) -> str:
    """`name` in lower case, with its final dot, and with the API's octal escapes undone, as in `\\052`."""
    plain = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
    return plain.lower().rstrip(".") + "."


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _said(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
    return " ".join(str(error).split()).rstrip(".")


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _worth_another(error: Exception, writes: bool) -> bool:
    lost = isinstance(error, ConnectionClosedError) or _status(error) >= 500
    return _code(error) in _NOT_TAKEN or (lost and not writes)


def _may_have_been_taken(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return _status(error) >= 500 and _code(error) not in _NOT_TAKEN
    return isinstance(error, _ANSWER_LOST)
