"""Route 53 for the tests: moto's server, a proxy in front of it for what moto leaves out, and a name server.

moto carries out a DELETE without comparing weights, and takes every record set of that set identifier with it,
whatever its name. The proxy checks a batch as the API's reference has it and hands moto what comes out of it. It
also knows what moto has no idea of: changes that are PENDING, throttling, lost answers and wrong keys.
"""

import itertools
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import boto3
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from botocore.config import Config

from tests.routers.specs import LOOPBACK, free_port, until

KEY = "AKIDEXAMPLE"
_SPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
_NUMBERS = ("TTL", "Weight")

RecordSet = dict[str, Any]
Fault = Callable[[str], str]


class Moto:
    """moto's server as a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self.port)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.api = client(self.port)
        try:
            until(self._answers, 30, "moto's server")
        except BaseException:
            self.stop()
            raise

    def zone(self, name: str = "example.test.", **more: Any) -> str:
        made = self.api.create_hosted_zone(Name=name, CallerReference=uuid.uuid4().hex, **more)
        return str(made["HostedZone"]["Id"]).rpartition("/")[2]

    def put(self, zone: str, *records: RecordSet) -> None:
        for part in range(0, len(records), 200):
            changes = [{"Action": "UPSERT", "ResourceRecordSet": each} for each in records[part : part + 200]]
            self.api.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})

    def records(self, zone: str) -> list[RecordSet]:
        pages = self.api.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
        return [dict(each) for page in pages for each in page["ResourceRecordSets"]]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self.api.close()

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), 0.2).close()
        except OSError:
            return False
        return True


def client(port: int) -> Any:
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name="us-east-1")
    settings = Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}, proxies={})
    return session.client("route53", endpoint_url=f"http://{LOOPBACK}:{port}", config=settings)


class Proxy:
    """Route 53's API in front of moto.

    `fault` says of each operation what becomes of it: "" it is carried out; "lose" and "hang" it is carried out and
    not answered; "close" it is not carried out and not answered; anything else is the error code that is answered.
    `observations` are what checkers say of a health check: each one's report and its age in seconds. `strict`
    false passes everything on to moto as it is.
    """

    def __init__(self, moto: Moto, *, strict: bool = True) -> None:
        self.moto = moto
        self.strict = strict
        self.fault: Fault = lambda _: ""
        self.calls: list[str] = []
        self.batches: list[list[tuple[str, RecordSet]]] = []
        self.pending: set[str] = set()
        self.hold = False
        self.accepts: Callable[[str], bool] = KEY.__eq__
        self.signed: list[str] = []
        self.observations: dict[str, Sequence[tuple[str, float]]] = {}
        self.now: Callable[[], float] = time.monotonic
        self.times: list[float] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        proxy = self

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, peer = super().get_request()
                proxy._open.add(connection)
                return connection, peer

        self._released.clear()
        self._server = Server((LOOPBACK, self.port), _handler(self))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._open.clear()
        self._server.server_close()
        self._server = None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes] | None:
        operation = _operation(method, path)
        self.calls.append(operation)
        self.times.append(self.now())
        self.signed.append(headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0])
        if not self.accepts(self.signed[-1]):
            return _error("InvalidClientTokenId", "The security token included in the request is invalid.")
        fault = self.fault(operation)
        if fault == "close":
            return None
        if fault not in ("", "lose", "hang"):
            return _error(fault, "Rate exceeded" if "hrottl" in fault else f"{fault} by the proxy")
        answer = self._carry_out(operation, method, path, headers, body)
        if fault == "hang":
            self._released.wait(10)
        return None if fault else answer

    def _carry_out(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        if operation == "ChangeResourceRecordSets":
            changes = ElementTree.fromstring(body).iter(_tag("Change"))  # noqa: S314 - boto3's own XML
            batch = [(each[0].text or "", _record(each[1])) for each in changes]
            self.batches.append(batch)
            if self.strict:
                with self._lock:
                    return self._change(path.split("/")[3], batch)
        if operation == "GetChange" and self.strict:
            change = path.rpartition("/")[2]
            return 200, _change_info("GetChange", change, "PENDING" if change in self.pending else "INSYNC")
        if operation == "GetHealthCheckStatus" and (check := path.split("/")[3]) in self.observations:
            return 200, _observed(self.observations[check])
        return self._forward(method, path, headers, body)

    def _change(self, zone: str, batch: Sequence[tuple[str, RecordSet]]) -> tuple[int, bytes]:
        records, characters = (sum(counted) for counted in zip(*map(_counted, batch), strict=True))
        if records > 1000:
            return _error("InvalidChangeBatch", "[Number of records limit of 1000 exceeded.]")
        if characters > 32_000:
            return _error("InvalidChangeBatch", "[RDATA character limit of 32000 exceeded.]")
        before = {_key(each): each for each in self.moto.records(zone)}
        after = dict(before)
        siblings: dict[tuple[str, str], set[Any]] = {}
        for known in before:
            siblings.setdefault(known[:2], set()).add(known)
        for action, record in batch:
            key = _key(record)
            what = f"resource record set [name='{key[0]}', type='{key[1]}', set identifier='{key[2]}']"
            if action == "DELETE":
                if key not in after:
                    return _error("InvalidChangeBatch", f"[Tried to delete {what} but it was not found]")
                if after.pop(key) != record:
                    reason = "but the values provided do not match the current values"
                    return _error("InvalidChangeBatch", f"[Tried to delete {what} {reason}]")
                continue
            if action == "CREATE" and key in after:
                return _error("InvalidChangeBatch", f"[Tried to create {what} but it already exists]")
            group = siblings.setdefault(key[:2], set())
            others = [after[other] for other in group if other in after and other != key]
            group.add(key)
            if any(each.get("TTL") != record.get("TTL") for each in others if "TTL" in each and "TTL" in record):
                return _error(
                    "InvalidChangeBatch", f"[{what} cannot be created as weighted sets must contain the same TTL.]"
                )
            after[key] = record
        assert before.keys() <= after.keys(), "moto cannot delete one record set of several"
        self.moto.put(zone, *(record for key, record in after.items() if before.get(key) != record))
        change = f"C{next(self._numbers):06}"
        if self.hold:
            self.pending.add(change)
        return 200, _change_info("ChangeResourceRecordSets", change, "PENDING")

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(LOOPBACK, self.moto.port, timeout=20)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
            connection.request(method, path, body or None, kept)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = proxy.handle(self.command, self.path, dict(self.headers.items()), body)
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: Any) -> None:
            """Nothing; the tests look at `calls`."""

    return Handler


class NameServer:
    """Answers for a zone with Route 53's rules for weights, over UDP and TCP.

    `freeze` keeps it at old records. `targets` are the values of aliases by their DNS name and type.
    """

    def __init__(self, records: Callable[[], Sequence[RecordSet]]) -> None:
        self._records = records
        self._kept: Sequence[RecordSet] | None = None
        self.truncated = False
        self.targets: dict[tuple[str, str], list[str]] = {}
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self.port = free_port()
        self._udp.bind((LOOPBACK, self.port))
        self._tcp = socket.create_server((LOOPBACK, self.port))
        self._dice = random.Random(7)  # noqa: S311 - dice, not a secret
        self._threads = [threading.Thread(target=each) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def freeze(self) -> None:
        self._kept = self._records()

    def thaw(self) -> None:
        self._kept = None

    def close(self) -> None:
        if self._udp.fileno() < 0:
            return
        with socket.socket(type=socket.SOCK_DGRAM) as farewell:
            farewell.sendto(b"", (LOOPBACK, self.port))
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _answer(self, wire: bytes, *, truncated: bool = False) -> bytes:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if truncated:
            response.flags |= dns.flags.TC
            return response.to_wire()
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        records = self._records() if self._kept is None else self._kept
        group = [self._resolved(each) for each in records if (each["Name"], each["Type"]) == (name, kind)]
        group = [each for each in group if "ResourceRecords" in each]
        if not group:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        weights = [each.get("Weight", 1) for each in group]
        [chosen] = self._dice.choices(group, weights if any(weights) else None)
        values = [each["Value"] for each in chosen["ResourceRecords"]]
        response.answer.append(
            dns.rrset.from_text_list(
                question.name, chosen["TTL"], "IN", kind, values, origin=dns.name.root, relativize=False
            )
        )
        return response.to_wire()

    def _resolved(self, record: RecordSet) -> RecordSet:
        values = self.targets.get((record.get("AliasTarget", {}).get("DNSName"), record["Type"]))
        return {**record, "TTL": 60, "ResourceRecords": [{"Value": each} for each in values]} if values else record

    def _serve_udp(self) -> None:
        while True:
            wire, peer = self._udp.recvfrom(4096)
            if not wire:
                return
            self._udp.sendto(self._answer(wire, truncated=self.truncated), peer)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                wire = connection.recv(4096)
                answer = self._answer(wire[2:])
                connection.sendall(struct.pack("!H", len(answer)) + answer)


def _operation(method: str, path: str) -> str:
    resource = path.partition("?")[0].rstrip("/")
    if resource.endswith("/rrset"):
        return "ChangeResourceRecordSets" if method == "POST" else "ListResourceRecordSets"
    if resource.endswith("/status"):
        return "GetHealthCheckStatus"
    return "GetChange" if "/change/" in resource else "GetHostedZone"


def _tag(name: str) -> str:
    return f"{{{_SPACE}}}{name}"


def _record(element: ElementTree.Element) -> RecordSet:
    record: RecordSet = {}
    for child in element:
        name = child.tag.partition("}")[2]
        if name == "ResourceRecords":
            record[name] = [{"Value": each.findtext(_tag("Value"))} for each in child]
        elif name == "AliasTarget":
            target = {each.tag.partition("}")[2]: each.text for each in child}
            record[name] = {**target, "EvaluateTargetHealth": target["EvaluateTargetHealth"] == "true"}
        else:
            record[name] = int(child.text or "") if name in _NUMBERS else child.text
    return record


def _counted(change: tuple[str, RecordSet]) -> tuple[int, int]:
    """The elements and the characters that the API counts for one change; an alias is one element."""
    action, record = change
    values = [each["Value"] for each in record.get("ResourceRecords", ())]
    times = 2 if action == "UPSERT" else 1
    return times * (len(values) or 1), times * sum(map(len, values))


def _key(record: RecordSet) -> tuple[str, str, str | None]:
    return record["Name"], record["Type"], record.get("SetIdentifier")


def _error(code: str, message: str) -> tuple[int, bytes]:
    status = {"AccessDenied": 403, "InvalidClientTokenId": 403, "InternalFailure": 500}.get(code, 400)
    text = re.sub("[<>&]", "", message)
    body = f"<ErrorResponse xmlns='{_SPACE}'><Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message>"
    return status, f"{body}</Error><RequestId>0</RequestId></ErrorResponse>".encode()


def _change_info(operation: str, change: str, status: str) -> bytes:
    info = f"<Id>/change/{change}</Id><Status>{status}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt>"
    return f"<{operation}Response xmlns='{_SPACE}'><ChangeInfo>{info}</ChangeInfo></{operation}Response>".encode()


def _observed(observations: Sequence[tuple[str, float]]) -> bytes:
    """moto knows but one checker, which is always content."""
    parts = ""
    for number, (status, age) in enumerate(observations):
        at = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        report = f"<StatusReport><Status>{escape(status)}</Status><CheckedTime>{at}</CheckedTime></StatusReport>"
        where = f"<Region>us-west-{number % 2 + 1}</Region><IPAddress>198.51.100.{number}</IPAddress>"
        parts += f"<HealthCheckObservation>{where}{report}</HealthCheckObservation>"
    body = f"<HealthCheckObservations>{parts}</HealthCheckObservations>"
    return f"<GetHealthCheckStatusResponse xmlns='{_SPACE}'>{body}</GetHealthCheckStatusResponse>".encode()
