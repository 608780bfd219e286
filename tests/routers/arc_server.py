"""Application Recovery Controller's five endpoints on loopback, as mean as the real ones.

They speak JSON 1.0 with X-Amz-Target, want requests signed for their own region by a known key, set ten controls in
one call at most, all or none, hold assertion rules, and may be slow, gone, out of step or full of errors.
"""

import json
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.routers.aws import KEY
from tests.routers.specs import LOOPBACK

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")
PANEL = "arn:aws:route53-recovery-control::111122223333:controlpanel/0123456bbbbbbb0123456bbbbbb0123456"
PAGE = 4
_TARGET = "ToggleCustomerAPI."
_STATUS = {
    "AccessDeniedException": 403,
    "ConflictException": 409,
    "EndpointTemporarilyUnavailableException": 503,
    "InternalServerException": 500,
    "ResourceNotFoundException": 404,
    "ServiceLimitExceededException": 402,
    "ThrottlingException": 429,
}
Answer = tuple[int, dict[str, Any]]
Fault = Callable[[str, str], str]


def control(name: str) -> str:
    return f"{PANEL}/routingcontrol/{name}"


@dataclass(frozen=True)
class AtLeast:
    """An assertion rule: so many of `controls` stay on whenever one of them is changed."""

    name: str
    number: int
    controls: frozenset[str]

    @property
    def arn(self) -> str:
        return f"{PANEL}/safetyrule/{self.name}"


class Arc:
    """The cluster. `states` are the truth; an endpoint whose region is in `lagging` answers from before it lagged.

    `fault` says of each region and operation what becomes of it: "" it is carried out; "lose" and "hang" it is
    carried out and not answered; "close" and "slow" it is not carried out and not answered; anything else is the
    error that is answered.
    """

    def __init__(self, states: Mapping[str, bool], rules: Sequence[AtLeast] = ()) -> None:
        self.states = dict(states)
        self.rules = rules
        self.fault: Fault = lambda *_: ""
        self.calls: list[tuple[str, str]] = []
        self.updates: list[dict[str, Any]] = []
        self.before_update: Callable[[], None] = lambda: None
        self._lagging: dict[str, dict[str, bool]] = {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._open: set[socket.socket] = set()
        self._servers: dict[str, tuple[ThreadingHTTPServer, threading.Thread]] = {}
        self._ports = dict.fromkeys(REGIONS, 0)
        self.start()

    @property
    def endpoints(self) -> list[dict[str, str]]:
        return [{"endpoint": f"http://{LOOPBACK}:{self._ports[region]}", "region": region} for region in REGIONS]

    def lag(self, *regions: str) -> None:
        self._lagging |= {region: dict(self.states) for region in regions}

    def catch_up(self) -> None:
        self._lagging.clear()

    def start(self) -> None:
        self._released.clear()
        for region in REGIONS:
            if region not in self._servers:
                server = _server(self, region, self._ports[region])
                self._ports[region] = server.server_address[1]
                thread = threading.Thread(target=server.serve_forever, args=[0.02])
                thread.start()
                self._servers[region] = server, thread

    def stop(self, *regions: str) -> None:
        """Stop the endpoints in `regions`, or all of them."""
        self._released.set()
        for region in regions or tuple(self._servers):
            server, thread = self._servers.pop(region)
            server.shutdown()
            thread.join()
            with self._lock:
                mine = {
                    each for each in self._open if each.fileno() >= 0 and each.getsockname()[1] == self._ports[region]
                }
            for connection in mine:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            server.server_close()
        if self._servers:
            self._released.clear()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def handle(self, region: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        target = headers.get("X-Amz-Target", "")
        operation = target.removeprefix(_TARGET)
        self.calls.append((region, operation))
        if operation == target or headers.get("Content-Type") != "application/x-amz-json-1.0":
            return _error("UnknownOperationException", "")
        signed = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", headers.get("Authorization", ""))
        if not signed or signed[1] != KEY:
            return _error("UnrecognizedClientException", "The security token included in the request is invalid.")
        if (signed[2], signed[3]) != (region, "route53-recovery-cluster"):
            return _error(
                "InvalidSignatureException", f"Credential should be scoped to a valid region, not '{signed[2]}'."
            )
        fault = self.fault(region, operation)
        if fault == "slow":
            self._released.wait(10)
        if fault in ("close", "slow"):
            return None
        if fault not in ("", "lose", "hang"):
            return _error(fault, f"{fault} by the test", resourceId="", resourceType="")
        with self._lock:
            answer = self._carry_out(region, operation, json.loads(body))
        if fault == "hang":
            self._released.wait(10)
        return None if fault else answer

    def _carry_out(self, region: str, operation: str, asked: Mapping[str, Any]) -> Answer:
        seen = self._lagging.get(region, self.states)
        if operation == "GetRoutingControlState":
            arn = asked["RoutingControlArn"]
            return (200, _described(arn, seen[arn])) if arn in seen else _missing(arn)
        if operation == "ListRoutingControls":
            start = int(asked.get("NextToken", 0))
            page = sorted(seen)[start : start + PAGE]
            more = {"NextToken": str(start + PAGE)} if start + PAGE < len(seen) else {}
            return 200, {"RoutingControls": [_described(arn, seen[arn]) for arn in page], **more}
        if operation == "UpdateRoutingControlStates":
            return self._update(asked)
        return _error("UnknownOperationException", operation)

    def _update(self, asked: Mapping[str, Any]) -> Answer:
        self.updates.append(dict(asked))
        self.before_update()
        entries = {
            each["RoutingControlArn"]: each["RoutingControlState"]
            for each in asked["UpdateRoutingControlStateEntries"]
        }
        if len(entries) > 10:
            return _error("ServiceLimitExceededException", "Too many routing controls", limitCode="", serviceCode="")
        if absent := [arn for arn in entries if arn not in self.states]:
            return _missing(absent[0])
        if set(entries.values()) - {"On", "Off"}:
            return _error("ValidationException", "Value at 'routingControlState' failed to satisfy constraint")
        after = {**self.states, **{arn: state == "On" for arn, state in entries.items()}}
        for rule in self.rules:
            broken = sum(after[arn] for arn in rule.controls) < rule.number
            if broken and rule.controls & set(entries) and rule.arn not in asked.get("SafetyRulesToOverride", ()):
                message = f"The update violates the assertion rule {rule.name}: at least {rule.number} must be On."
                return _error("ConflictException", message, resourceId=rule.arn, resourceType="SafetyRule")
        self.states = after
        return 200, {}


def _server(arc: Arc, region: str, port: int) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, peer = super().get_request()
            arc.opened(connection)
            return connection, peer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = arc.handle(region, dict(self.headers.items()), body)
            if answer is None:
                self.close_connection = True
                return
            status, content = answer[0], json.dumps(answer[1]).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing; the tests look at `calls`."""

    return Server((LOOPBACK, port), Handler)


def _described(arn: str, on: bool) -> dict[str, str]:
    return {"RoutingControlArn": arn, "RoutingControlName": arn[-4:], "RoutingControlState": "On" if on else "Off"}


def _missing(arn: str) -> Answer:
    return _error("ResourceNotFoundException", f"Routing control {arn} not found", resourceId=arn, resourceType="")


def _error(code: str, message: str, **more: str) -> Answer:
    return _STATUS.get(code, 400), {"__type": f"com.amazonaws.toggle#{code}", "message": message, **more}
