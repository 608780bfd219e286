"""One HTTP exchange, bounded in time and size, for the probes that look by HTTP."""

import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
    responses,
)
from pathlib import Path
from socket import SHUT_RDWR, create_connection, socket

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from failover.errors import Failed
from failover.secret import Secret

BODY_LIMIT = 1 << 20
SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class GarbledError(Exception):
    """What came back is no whole HTTP answer; the message says in what way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, the body up to `BODY_LIMIT`."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def came(self) -> str:
        """The status as people say it."""
        return f"{self.status} {responses.get(self.status, '')}".strip()


def checked_url(url: str) -> str:
    """`url` where it is one for HTTP or HTTPS without anything secret in it. Raises ValueError otherwise."""
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


class Exchange:
    """Requests to one URL, each on a connection of its own."""

    def __init__(
        self,
        url: str,
        method: str,
        headers: Mapping[str, str | Secret],
        timeout: float,
        ca_file: Path | None,
        *,
        verify: bool,
    ) -> None:
        self._url = parse_url(url)
        self._secure = self._url.scheme == "https"
        self._at = str(self._url.host).strip("[]"), self._url.port or (443 if self._secure else 80)
        self._method = method
        self._headers = headers
        self._timeout = timeout
        self._ca_file = ca_file
        self._verify = verify

    @property
    def shown(self) -> str:
        """What is asked, without the query, which may hold anything."""
        plain = Url(self._url.scheme, None, self._url.host, self._url.port, self._url.path).url
        return f"{self._method} {plain}" + ("?…" if self._url.query else "")

    def go(self, open_now: list[socket]) -> Answer:
        """One request. Its connection is put into `open_now`, for `cut`.

        Raises OSError where the connection fails, TimeoutError where it is silent, GarbledError for what is no HTTP.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "failover", **_values(self._headers)}
        connection = self._connection()
        try:
            self._connect(connection, open_now)
            connection.request(self._method, self._url.request_uri, headers=headers)
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, _body(response))
        except IncompleteRead:
            raise GarbledError("its answer broke off") from None
        except HTTPException as error:
            if isinstance(error, OSError):
                raise
            raise GarbledError(f"what it answers is not HTTP: {type(error).__name__}") from None
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        return HTTPSConnection(*self._at, context=self._tls) if self._secure else HTTPConnection(*self._at)

    def _connect(self, connection: HTTPConnection, open_now: list[socket]) -> None:
        connection.sock = create_connection(self._at, self._timeout)
        if self._secure:
            name = self._at[0].rstrip(".")
            connection.sock = self._tls.wrap_socket(
                connection.sock, server_hostname=name, do_handshake_on_connect=False
            )
        open_now.append(connection.sock)
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            what = f"ca_file {self._ca_file} cannot be used: {error.strerror}"
            raise Failed(what, next="name a readable file of certificates in PEM form") from None
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context


def cut(open_now: list[socket]) -> None:
    """Break the connections of an exchange that takes too long."""
    for wire in open_now:
        with suppress(OSError):
            wire.shutdown(SHUT_RDWR)


def _values(headers: Mapping[str, str | Secret]) -> dict[str, str]:
    values = {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
    for name, value in values.items():
        if not SENDABLE.fullmatch(value):
            raise Failed(
                f"the value of header {name} has a character that no header can have",
                next="look for line breaks in it",
            )
    return values


def _body(response: HTTPResponse) -> bytes:
    body = b""
    while len(body) < BODY_LIMIT and (part := response.read(BODY_LIMIT - len(body))):
        body += part
    if response.length and len(body) < BODY_LIMIT:
        raise IncompleteRead(body, response.length)
    return body
