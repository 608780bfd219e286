"""One HTTP request on a connection of its own, within a given time, and whether anybody can have heard of it."""

import http.client
import threading
from collections.abc import Mapping
from contextlib import suppress
from socket import SHUT_RDWR, socket

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from failover.bounded import bounded

_BODY_LIMIT = 16 << 20


class Gone(Exception):
    """An exchange failed; `sent` says whether the server may have heard of it."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


def exchange(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
) -> tuple[int, bytes]:
    """The status and the body that answer a request; `seconds` bound all of it, the name's resolution too.

    Redirects are not followed. Raises Gone.
    """
    if seconds <= 0:
        raise Gone("it took too long", sent=False)
    call = _Call(connection)
    try:
        return bounded(seconds, lambda: call.run(method, path, body, headers), call.cut)
    except TimeoutError:
        raise Gone(f"no answer within {seconds:.3g} s", sent=call.sent) from None
    except (HTTPError, http.client.HTTPException, OSError) as error:
        raise Gone(_why(error), sent=call.sent) from None


class _Call:
    """One request on a connection of its own. `sent` is false as long as nothing can have reached the server."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.sent = False
        self._connection = connection
        self._wire: socket | None = None
        self._late = False
        self._turn = threading.Lock()

    def run(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.connect()
            with self._turn:
                # A connection that comes up when its caller has given up must not write after all.
                if self._late:
                    raise TimeoutError
                self._wire, self.sent = self._connection.sock, True
            self._connection.request(method, path, body, headers, preload_content=False, decode_content=False)
            response = self._connection.getresponse()
            content = b""
            while len(content) < _BODY_LIMIT and (part := response.read(_BODY_LIMIT - len(content))):
                content += part
            return response.status, content
        finally:
            self._connection.close()

    def cut(self) -> None:
        with self._turn:
            self._late = True
            if self._wire is not None:
                with suppress(OSError):
                    self._wire.shutdown(SHUT_RDWR)


def _why(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    for each in (error, cause):
        if isinstance(each, OSError) and each.strerror:
            return each.strerror.lower()
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "the connection was closed"
    return "what it answers is not HTTP" if isinstance(error, http.client.HTTPException) else type(error).__name__
