"""Asks an HTTP or HTTPS address once and judges its status and its body."""

import http.client
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.exceptions import TimeoutError as LateError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from failover.clock import Clock
from failover.errors import Failed
from failover.probes.looking import look
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed

BODY_LIMIT = 1 << 20
SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class HttpProbeConfig(Model):
    """`expect` are the good statuses, `contains` a text that the first MiB of the body must have.

    `timeout` bounds the whole exchange, body included. Redirects are not followed: they are a status like any other.
    """

    url: str
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    expect: tuple[Annotated[int, Field(ge=100, le=599)], ...] = (200,)
    contains: str = ""
    headers: dict[str, str | Secret] = {}
    timeout: Duration = 2.0
    ca_file: Path | None = None
    verify: bool = True

    @field_validator("expect")
    @classmethod
    def _some(cls, expect: tuple[int, ...]) -> tuple[int, ...]:
        if not expect:
            raise ValueError("no status would be good; write at least one, like [200]")
        return expect

    @field_validator("url")
    @classmethod
    def _checked(cls, url: str) -> str:
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise ValueError("this is not a URL; write it like https://shop.example/health") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ValueError("a URL begins with http:// or https:// and a host, like https://shop.example/health")
        if parts.auth is not None:
            raise ValueError(
                "a URL with a user or a password in it ends up in logs; "
                "send them in headers, like headers: {Authorization: {env: SHOP_AUTHORIZATION}}"
            )
        return url


class HttpProbe:
    """Passes where a good status came back, and the text where one is wanted.

    Another status, a refused or broken connection and a certificate that is not accepted fail. Silence, an
    unreachable network and a name that cannot be resolved are unknown.
    """

    Config: ClassVar[type[BaseModel]] = HttpProbeConfig

    def __init__(self, config: HttpProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._url = parse_url(config.url)

    def probe(self) -> Verdict:
        """One request, `timeout` at most."""
        with_query = "?…" if self._url.query else ""
        shown = Url(self._url.scheme, None, self._url.host, self._url.port, self._url.path).url + with_query
        open_now: list[socket] = []

        def cut() -> None:
            for wire in open_now:
                with suppress(OSError):
                    wire.shutdown(SHUT_RDWR)

        asked = f"{self._config.method} {shown}"
        return look(asked, self._config.timeout, self._clock, lambda: self._see(open_now), cut)

    def _see(self, open_now: list[socket]) -> Verdict:
        headers = {"Accept-Encoding": "identity", "User-Agent": "failover", **_values(self._config.headers)}
        connection = self._connection()
        try:
            connection.connect()
            open_now.append(connection.sock)
            connection.request(
                self._config.method,
                self._url.request_uri,
                headers=headers,
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
            return self._judge(response.status, response.headers, _body(response))
        except HTTPError as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OSError):
                raise cause from None
            if isinstance(error, LateError):
                raise TimeoutError from None
            return failed("its answer broke off")
        except http.client.HTTPException as error:
            if isinstance(error, OSError):
                raise
            return failed(f"what it answers is not HTTP: {type(error).__name__}")
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        host, timeout = str(self._url.host).strip("[]"), self._config.timeout
        if self._url.scheme == "http":
            return HTTPConnection(host, self._url.port, timeout=timeout)
        return HTTPSConnection(host, self._url.port or 443, timeout=timeout, ssl_context=self._tls)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._config.ca_file)
        except OSError as error:
            what = f"ca_file {self._config.ca_file} cannot be used: {error.strerror}"
            raise Failed(what, next="name a readable file of certificates in PEM form") from None
        if not self._config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
        came = f"{status} {http.client.responses.get(status, '')}".strip()
        if status not in self._config.expect:
            to = f" to {headers['Location'].split('?')[0]}" if "Location" in headers else ""
            return failed(f"{came}{to}, expected {' or '.join(map(str, self._config.expect))}")
        if self._config.contains and self._config.contains not in body.decode("utf-8", "replace"):
            short = " in its first MiB" if len(body) == BODY_LIMIT else ""
            return failed(f"{came}, but '{self._config.contains}' is not in its body{short}")
        return passed(came)


def _values(headers: Mapping[str, str | Secret]) -> dict[str, str]:
    values = {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
    for name, value in values.items():
        if not SENDABLE.fullmatch(value):
            raise Failed(
                f"the value of header {name} has a character that no header can have",
                next="look for line breaks in it",
            )
    return values


def _body(response: BaseHTTPResponse) -> bytes:
    body = b""
    while len(body) < BODY_LIMIT and (part := response.read(BODY_LIMIT - len(body))):
        body += part
    return body
