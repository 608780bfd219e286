"""Consul's HTTP API, the one place that knows the client library: bounded calls, one token, errors in clear words.

The library lets the environment override what it is given (`CONSUL_HTTP_TOKEN`, proxies, `.netrc`), and its
transactions carry no token at all. Here the token that was declared, or none, is on every request, and the
environment is not looked at.

Source: https://developer.hashicorp.com/consul/api-docs
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import consul
import requests
from consul.base import Response
from pydantic import AfterValidator
from urllib3.exceptions import NameResolutionError, NewConnectionError

from failover.bounded import bounded
from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate
from failover.secret import Secret, redact

_NOT_TAKEN = (
    "No cluster leader",
    "No path to datacenter",
    "failed to get conn",
    "Unknown service",
    "cannot both be set",
    "exceeds maximum",
)
"""What a status of 500 says where nothing was written."""
_DENIED = ("Permission denied", "ACL not found")
REASON = "failover: "
"""How the reason of a maintenance begins that a router of ours has set."""
SERVICE_MAINTENANCE, NODE_MAINTENANCE = "_service_maintenance:", "_node_maintenance"
"""The ids of the checks that stand for a maintenance. That of a service goes on with the instance's id."""
_LONGEST = 300
_EVERY = 0.1


def _address(text: str) -> str:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"'{text}' is not the address of a Consul agent; it looks like http://192.0.2.1:8500")
    if parts.username is not None or parts.path.strip("/") or parts.query:
        raise ValueError("an agent's address ends with its port: no user, no path; the token is a key of its own")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]
"""An agent's HTTP API, as `http://host:port` or `https://host:port`. Without a port it is 8500."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What stands behind https: the authorities that are believed, and a certificate of our own."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def set_by_us(check: Mapping[str, Any]) -> bool:
    """Whether a check of Consul's is a maintenance by which a router of ours has drained what it stands on."""
    kept = check["CheckID"] == NODE_MAINTENANCE or check["CheckID"].startswith(SERVICE_MAINTENANCE)
    return bool(kept and check["Notes"].startswith(REASON))


class Unreached(Failed):
    """The agent was not reached, or did not answer. For a write: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and the index at which it is true; 0 where it came without a usable one. None where there is none."""

    body: Any
    index: int = 0


class Agent:
    """One agent of one datacenter. Every call takes `timeout` seconds at most."""

    def __init__(
        self,
        where: str,
        address: str,
        datacenter: str,
        token: Secret | None,
        timeout: float,
        tls: Tls = Tls(),
    ) -> None:
        self.where = where
        self.address = address
        self.datacenter = datacenter
        self.timeout = timeout
        self._token = token
        self._tls = tls

    def __str__(self) -> str:
        return f"Consul at {self.address}" + (f" ({self.datacenter})" if self.datacenter else "")

    def get(self, path: str, **params: Any) -> Answer:
        """What is at `path`, read by way of the leader; a body of None where there is nothing. Raises Failed."""
        return self._read(path, {"dc": self.datacenter, **params}, self.timeout)

    def local(self, path: str, **params: Any) -> Answer:
        """What this agent itself has at `path`. Raises Failed."""
        return self._read(path, params, self.timeout)

    def watch(self, path: str, until: Callable[[Any], bool], clock: Clock, deadline: float, **params: Any) -> bool:
        """Read `path` until its body is what `until` wants. False where that is not so by `deadline`. Raises Failed.

        Blocking queries, as the API's page of that name asks for them: an index that is not above zero, or goes
        backwards, is forgotten and read anew.
        """
        index = 0
        while True:
            left = deadline - clock.monotonic()
            wait = min(self.timeout, max(left, 0.05))
            block = {"index": index, "wait": f"{wait * 1000:.0f}ms"} if index else {}
            answer = self._read(path, {"dc": self.datacenter, **params, **block}, wait * 17 / 16 + self.timeout)
            if until(answer.body):
                return True
            if clock.monotonic() >= deadline:
                return False
            if answer.index <= index:
                clock.sleep(_EVERY)
            index = answer.index if answer.index >= index else 0

    def put(self, path: str, body: Any = None, **params: Any) -> Any:
        """Write, and give back what it answers. Writes.

        Raises Failed where nothing was written, Indeterminate where it may have been.
        """
        data = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        return self._write("put", path, params, data=data)

    def delete(self, path: str, **params: Any) -> Any:
        """Delete what is at `path`, and give back what it answers. Writes; raises what `put` raises."""
        return self._write("delete", path, params)

    def client(self, timeout: float | None = None) -> consul.Consul:
        """The library's client, with this agent's token and nothing of the environment's."""
        parts = urlsplit(self.address)
        own = self._tls.cert_file and (str(self._tls.cert_file), str(self._tls.key_file or self._tls.cert_file))
        made = consul.Consul(
            host=f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname,
            port=parts.port or 8500,
            scheme=parts.scheme,
            verify=str(self._tls.ca_file) if self._tls.ca_file else True,
            cert=own,
            connections_timeout=timeout or self.timeout,
        )
        made.token = self._token.reveal() if self._token else None
        session = made.http.session
        session.trust_env = False
        # Following one would carry the token to wherever it points.
        session.max_redirects = 0
        if made.token:
            session.headers["X-Consul-Token"] = made.token
        return made

    def _read(self, path: str, params: Mapping[str, Any], timeout: float) -> Answer:
        try:
            response = self._ask("get", path, params, timeout)
        except Indeterminate as error:
            raise Unreached(error.what, where=self.where, next="check that it runs, and the network to it") from None
        if response.code == 404:
            return Answer(None)
        if response.code != 200:
            raise self._refused(response)
        index = str(response.headers.get("X-Consul-Index", ""))
        return Answer(self._json(response), int(index) if index.isdecimal() else 0)

    def _write(self, method: str, path: str, params: Mapping[str, Any], **more: Any) -> Any:
        try:
            response = self._ask(method, path, params, self.timeout, **more)
        except Indeterminate as error:
            raise self._lost(error.what) from None
        if response.code in (200, 204):
            try:
                return json.loads(response.body) if response.body.strip() else None
            except ValueError:
                raise self._lost(f"{self} answers something that is not JSON") from None
        if response.code < 500 or any(word in response.body for word in (*_NOT_TAKEN, *_DENIED)):
            raise self._refused(response, "; nothing was written")
        raise self._lost(f"{self} answers {response.code}: {_short(response.body)}")

    def _ask(self, method: str, path: str, params: Mapping[str, Any], timeout: float, **more: Any) -> Response:
        """The response, whatever its status. Raises Failed where nothing was sent, Indeterminate with no answer."""
        try:
            made = self.client(timeout)
        except (ValueError, OSError) as error:
            raise self._failed(
                f"cannot be asked: {_short(str(error))}", "check 'address' and the TLS files"
            ) from None
        call = getattr(made.http, method)
        arriving: list[requests.Response] = []
        made.http.session.stream = True
        made.http.session.hooks["response"].append(lambda response, *_, **__: arriving.append(response))

        def ask() -> Response:
            try:
                found: Response = call(lambda got: got, f"/v1/{path}", params=list(params.items()), **more)
                return found
            finally:
                made.http.session.close()

        def cut() -> None:
            for response in arriving:
                with suppress(Exception):
                    response.raw.shutdown()

        try:
            return bounded(timeout, ask, cut)
        except TimeoutError:
            raise Indeterminate(f"{self} gave no answer within {timeout:g} s") from None
        except requests.exceptions.SSLError as error:
            raise self._unreached(
                f"no TLS connection: {_short(_root(error))}", "check 'ca_file' and the address"
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise self._failed("redirects elsewhere, which is not followed", "name the agent itself") from None
        except requests.exceptions.InvalidHeader:
            said = "cannot be sent its token: it has a character that no header can have"
            raise self._failed(said, "look for line breaks in it") from None
        except requests.exceptions.ConnectTimeout:
            raise self._unreached(f"no connection within {timeout:g} s", "check the host and the network") from None
        except requests.exceptions.ReadTimeout:
            raise Indeterminate(f"{self} gave no answer within {timeout:g} s") from None
        except requests.exceptions.RequestException as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(reason, NewConnectionError | NameResolutionError):
                raise self._unreached(_short(_root(error)), "check that it runs, and its address") from None
            if isinstance(error, requests.exceptions.InvalidURL):
                raise self._failed("cannot be asked: its address is not a URL", "check 'address'") from None
            raise Indeterminate(f"{self} broke its answer off: {_short(_root(error))}") from None
        except OSError as error:
            # A file of certificates that is not there is told as a plain OSError, before anything is sent.
            raise self._failed(f"cannot be asked: {_short(str(error))}", "check the TLS files") from None

    def _json(self, response: Response) -> Any:
        try:
            return json.loads(response.body)
        except ValueError:
            raise self._failed(
                "answers something that is not JSON", "check that 'address' is a Consul agent"
            ) from None

    def _refused(self, response: Response, then: str = "") -> FailoverError:
        said = _short(response.body)
        if "ACL not found" in response.body:
            named = "does not know the token" if self._token else "knows no anonymous token"
            return self._failed(
                f"{named} (ACL not found){then}",
                f"check the token for {self.datacenter or self.address}: {self._token}",
            )
        if response.code == 403 or "Permission denied" in response.body:
            who = "this token" if self._token else "who comes without a token"
            return self._failed(
                f"refuses it to {who}: {said}{then}", f"let the token for {self.datacenter or self.address} do that"
            )
        if "No cluster leader" in response.body:
            return self._failed(
                f"has no leader{then}", "wait for an election; without a majority of servers, mend them"
            )
        if "No path to datacenter" in response.body or "failed to get conn" in response.body:
            return self._unreached_there(f"{said}{then}")
        return self._failed(f"answers {response.code}: {said}{then}", "look at the agent's log")

    def _unreached_there(self, said: str) -> Failed:
        return Unreached(
            f"{self} does not get through to the datacenter: {said}",
            where=self.where,
            next=f"check 'datacenter', and that the servers of {self.datacenter} run",
        )

    def _failed(self, said: str, then: str) -> Failed:
        return Failed(f"{self} {said}", where=self.where, next=then)

    def _unreached(self, said: str, then: str) -> Failed:
        return Unreached(f"{self} cannot be reached: {said}", where=self.where, next=then)

    def _lost(self, why: str) -> Indeterminate:
        return Indeterminate(
            f"a write was sent and its answer was lost ({why}); it may have been made or not",
            where=self.where,
            next="read it back before anything else; resume does",
        )


def _root(error: BaseException) -> str:
    """What lies at the bottom of the library's wrappers, in its own words."""
    inner: Any = error
    for _ in range(8):
        deeper = getattr(inner, "reason", None)
        found = deeper if isinstance(deeper, BaseException) else inner.__cause__ or inner.__context__
        if not isinstance(found, BaseException):
            break
        inner = found
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    return str(inner) or type(inner).__name__


def _short(text: str) -> str:
    line = " ".join(redact(text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
