"""PowerDNS's HTTP API, as far as the router needs it: one zone's records, its serial, a PATCH and a NOTIFY.

Source: the built-in webserver and HTTP API of the PowerDNS Authoritative Server (zones endpoint).
"""

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, field_validator
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate
from failover.routers._dns import ServerText, full_name
from failover.routers._http import Gone, exchange
from failover.schema import Model
from failover.secret import Secret, redact
from failover.units import Duration

_SAID_LIMIT = 300
_SEARCH_LIMIT = 1000
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_OURS = "failover"
"""The account of this router's comments."""


class PowerDnsConfig(Model):
    """The API of one primary. `name_servers` are all that answer for the zone, the primary among them.

    `notify` has the server tell its secondaries after each change. `timeout` bounds one call of the API, and
    `dns_timeout` one question. A change is looked at again after `race_window`, to see that it still stands.
    """

    url: str
    api_key: Secret
    zone: str
    server_id: str = "localhost"
    name_servers: Annotated[tuple[ServerText, ...], Field(min_length=1)]
    resolvers: tuple[ServerText, ...] = ()
    notify: bool = False
    ca_file: Path | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 3.0
    dns_timeout: Annotated[Duration, Field(gt=0)] = 2.0
    race_window: Annotated[Duration, Field(ge=0.1)] = 0.5

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        try:
            parts = parse_url(url)
        except LocationParseError:
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
            raise ValueError("this is not the URL of an API; write it like http://192.0.2.53:8081, without /api/v1")
        if parts.auth is not None:
            raise ValueError("a URL with a user or a password in it ends up in logs; the API wants api_key alone")
        if (parts.path or "").rstrip("/").endswith("/api/v1"):
            raise ValueError("leave /api/v1 out of the URL; it is added")
        return url.rstrip("/")

    @field_validator("zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        return full_name(zone)

    @field_validator("server_id")
    @classmethod
    def _server_id(cls, name: str) -> str:
        if not name or not set(name) <= _PLAIN | set("_ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            raise ValueError("a server id is one word, nearly always localhost")
        return name


class Api:
    """Calls the API of `config`; each call takes the config's timeout at most."""

    def __init__(self, name: str, config: PowerDnsConfig, clock: Clock) -> None:
        self.where = f"router {name}"
        self.config = config
        self._clock = clock
        self._parts = parse_url(config.url)
        zone = "".join(char if char in _PLAIN else f"={ord(char):02X}" for char in config.zone)
        self._server = f"{(self._parts.path or '').rstrip('/')}/api/v1/servers/{config.server_id}"
        self._path = f"{self._server}/zones/{zone}"

    def zone(self, record: str, seconds: float) -> Mapping[str, Any]:
        """The zone's own fields and the record sets at `record`, within `seconds`. Raises Failed.

        Disabled records are not among them; `disabled` finds those.
        """
        path = f"{self._path}?rrset_name={quote(record)}" if record else f"{self._path}?rrsets=false"
        found, body = self._get(path, seconds)
        try:
            found["serial"] = int(found.get("edited_serial", found["serial"]))
            if found["name"].lower() != self.config.zone:
                raise ValueError
            found["rrsets"] = [] if not record else [each for each in found["rrsets"] if _whole(each)]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self.failed(f"answers what no zone looks like: {_said(body)}", "check 'url'") from None
        return dict(found)

    def disabled(self, record: str, kind: str, seconds: float) -> list[str]:
        """The contents of the disabled records of that name and type, which a PATCH would delete. Raises Failed."""
        wanted = quote(record.removesuffix(".").replace("*", "\\*"))
        path = f"{self._server}/search-data?q={wanted}&max={_SEARCH_LIMIT}&object_type=record"
        found, body = self._get(path, seconds)
        try:
            own = [each for each in found if (each["name"].lower(), each["type"]) == (record, kind)]
            hidden = [str(each["content"]) for each in own if each["disabled"]]
        except (TypeError, KeyError, AttributeError):
            raise self.failed(f"answers what no search looks like: {_said(body)}", "check 'url'") from None
        if len(found) >= _SEARCH_LIMIT:
            raise self.failed(
                f"finds {_SEARCH_LIMIT} records or more that have to do with {record}, too many to see whether one "
                "of its own is disabled; nothing was written",
                "see by hand whether one is, and change it there",
            )
        return hidden

    def _get(self, path: str, seconds: float) -> tuple[Any, bytes]:
        try:
            status, body = self._exchange("GET", path, None, min(seconds, self.config.timeout))
        except Gone as error:
            raise self.failed(f"cannot be asked: {error}", "check 'url', and webserver-allow-from there") from None
        if status != 200:
            raise self._refused(status, body)
        try:
            return json.loads(body), body
        except ValueError:
            raise self.failed(f"answers what no zone looks like: {_said(body)}", "check 'url'") from None

    def replace(self, rrsets: Sequence[Mapping[str, Any]]) -> FailoverError | None:
        """Have each of `rrsets` replace what is at its name and type, all or none. Writes.

        Raises Failed where the server refused or was not reached, Indeterminate where its answer was lost. Returns
        an error where the server says that it failed inside, after which reading tells what became of it.
        """
        body = json.dumps({"rrsets": [{**each, "changetype": "REPLACE"} for each in rrsets]}).encode()
        try:
            status, said = self._exchange("PATCH", self._path, body, self.config.timeout)
        except Gone as error:
            if error.sent:
                raise self._lost(str(error)) from None
            raise self.failed(
                f"cannot be reached: {error}; nothing was written", "check that it runs and that 'url' is right"
            ) from None
        if status in (200, 204):
            return None
        if status == 500:
            return self.failed(f"failed inside (500): {_said(said)}; nothing was written", "look at its log")
        if status > 500 or status < 300:
            raise self._lost(f"it came as {status} {http.client.responses.get(status, '')}".rstrip())
        raise self._refused(status, said, "; nothing was written")

    def notify(self) -> str:
        """Have the server tell its secondaries now. Returns why that did not go, empty where it did."""
        try:
            status, body = self._exchange("PUT", f"{self._path}/notify", b"", self.config.timeout)
        except Gone as error:
            return str(error)
        return "" if status == 200 else f"{status} {_said(body)}"

    def failed(self, said: str, then: str) -> Failed:
        """What `said` about this server, as an error."""
        return Failed(f"the PowerDNS API at {self.config.url} {said}", where=self.where, next=then)

    def _refused(self, status: int, body: bytes, more: str = "") -> Failed:
        if status in (401, 403):
            return self.failed(f"does not take this API key ({status}){more}", "check 'api_key' and api-key there")
        if status == 404:
            said = f"has no zone {self.config.zone} on server '{self.config.server_id}' (404){more}"
            return self.failed(
                said, "check 'zone' and 'server_id'; the zone must be in a backend that the API can write"
            )
        if status in (400, 422):
            return self.failed(f"does not take this ({status}): {_said(body)}{more}", "see what it complains of")
        reason = http.client.responses.get(status, "")
        return self.failed(f"answers {status} {reason}: {_said(body)}{more}", "check 'url', and look at its log")

    def _lost(self, why: str) -> Indeterminate:
        return Indeterminate(
            f"a change was sent to the PowerDNS API at {self.config.url}, but its answer was lost ({why}); "
            "it may have been made or not",
            where=self.where,
            next="read the records back before anything else; resume does",
        )

    def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        key = self.config.api_key.reveal()
        if not key.isprintable() or not key.isascii():
            raise Failed("the API key has a character that no header can have", where=self.where, next="look at it")
        headers = {"X-API-Key": key, "Accept": "application/json", "Content-Type": "application/json"}
        return exchange(self._connection(seconds), method, path, body, headers, seconds)

    def _connection(self, seconds: float) -> HTTPConnection:
        host = str(self._parts.host).strip("[]")
        if self._parts.scheme == "http":
            return HTTPConnection(host, self._parts.port, timeout=seconds)
        return HTTPSConnection(host, self._parts.port or 443, timeout=seconds, ssl_context=self._tls)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.config.ca_file)
        except OSError as error:
            what = f"ca_file {self.config.ca_file} cannot be used: {error.strerror}"
            raise Failed(what, where=self.where, next="name a readable file of certificates in PEM form") from None


def mark(token: str) -> list[dict[str, str]]:
    """A comment that says who wrote a record set, and in which write."""
    return [{"account": _OURS, "content": f"written by failover, change {token}"}]


def kept(comments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Other people's comments of a record set."""
    return [dict(each) for each in comments if each.get("account") != _OURS]


def marked(comments: Sequence[Mapping[str, Any]], token: str) -> bool:
    """Whether the write `token` is the last one that this product made."""
    return any(each.get("content") == mark(token)[0]["content"] for each in comments)


def _whole(rrset: Mapping[str, Any]) -> bool:
    """Whether an entry of the API's list is a record set; with a filter, 4.7 lists other names' comments too."""
    if not isinstance(rrset["name"], str) or not isinstance(rrset["type"], str) or not isinstance(rrset["ttl"], int):
        raise TypeError
    for record in rrset["records"]:
        if not isinstance(record["content"], str):
            raise TypeError
    return bool(rrset["records"])


def _said(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"])
    text = redact(" ".join(text.split()))
    return (text if len(text) <= _SAID_LIMIT else text[:_SAID_LIMIT] + " …") or "nothing"
