"""Asks one DNS server one question and judges the answers (RFC 1035)."""

import secrets
import socket
import struct
import threading
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from pydantic import BaseModel, Field, field_validator, model_validator

from failover.clock import Clock
from failover.probes.looking import look
from failover.schema import Model
from failover.units import Duration
from failover.verdict import Verdict, failed, passed


class DnsProbeConfig(Model):
    """`server` is `host` or `host:port`. Every answer must be among `expect`, where it is given.

    Fewer answers than `min_answers` fail. `tcp` asks over TCP at once; a cut-off answer is asked for over TCP anyway.
    """

    server: str
    name: str
    type: str = "A"
    expect: tuple[str, ...] = ()
    min_answers: Annotated[int, Field(ge=0)] = 1
    tcp: bool = False
    timeout: Duration = 2.0

    @field_validator("server")
    @classmethod
    def _server(cls, server: str) -> str:
        split(server)
        return server

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        try:
            dns.name.from_text(name)
        except dns.exception.DNSException:
            raise ValueError(f"'{name}' is not a domain name") from None
        return name

    @field_validator("type")
    @classmethod
    def _type(cls, kind: str) -> str:
        try:
            dns.rdatatype.from_text(kind)
        except (dns.exception.DNSException, ValueError):
            raise ValueError(f"'{kind}' is not a record type; write A, AAAA, CNAME, TXT …") from None
        return kind.upper()

    @model_validator(mode="after")
    def _expect(self) -> "DnsProbeConfig":
        for text in self.expect:
            try:
                record(self.type, text)
            except (dns.exception.DNSException, ValueError):
                raise ValueError(
                    f"'{text}' under 'expect' cannot be the answer to a question for {self.type}"
                ) from None
        return self


class DnsProbe:
    """Passes where enough answers came back and all are expected.

    An error code, other answers and a refused connection fail. Silence and an unreachable server are unknown.
    """

    Config: ClassVar[type[BaseModel]] = DnsProbeConfig

    def __init__(self, config: DnsProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One question, `timeout` at most."""
        asked = f"{self._config.name} {self._config.type} at {self._config.server}"
        open_now: list[socket.socket] = []
        over = threading.Event()

        def cut() -> None:
            over.set()
            for wire in open_now:
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)

        return look(asked, self._config.timeout, self._clock, lambda: self._see(open_now, over), cut)

    def _see(self, open_now: list[socket.socket], over: threading.Event) -> Verdict:
        query = dns.message.make_query(
            self._config.name, self._config.type, use_edns=0, payload=1232, id=secrets.randbits(16)
        )
        answer = None if self._config.tcp else self._ask(socket.SOCK_DGRAM, query, open_now, over)
        if answer is None or answer.flags & dns.flags.TC:
            answer = self._ask(socket.SOCK_STREAM, query, open_now, over)
        return self._judge(answer)

    def _ask(
        self,
        kind: socket.SocketKind,
        query: dns.message.QueryMessage,
        open_now: list[socket.socket],
        over: threading.Event,
    ) -> dns.message.Message:
        host, port = split(self._config.server)
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
        with socket.socket(family, kind) as connection:
            connection.settimeout(self._config.timeout)
            connection.connect(address)
            open_now.append(connection)
            return _exchange(connection, query, over)

    def _judge(self, answer: dns.message.Message) -> Verdict:
        code = answer.rcode()
        if code != dns.rcode.NOERROR:
            return failed(f"answered {dns.rcode.to_text(code)}")
        wanted = dns.rdatatype.from_text(self._config.type)
        records = [item for found in answer.answer if found.rdtype == wanted for item in found]
        said = ", ".join(sorted(item.to_text() for item in records)) or "no record"
        expected = {record(self._config.type, text) for text in self._config.expect}
        others = [item for item in records if item not in expected] if expected else []
        if others:
            return failed(f"answered {said}, expected only {', '.join(self._config.expect)}")
        if len(records) < self._config.min_answers:
            return failed(f"answered {said}, expected {self._config.min_answers} or more")
        return passed(f"answered {said}")


def split(server: str) -> tuple[str, int]:
    """`server` as host and port; 53 where none is named. Raises ValueError where it is neither form."""
    host, port = server, "53"
    if server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif server.count(":") == 1:
        host, _, port = server.partition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"'{server}' is not a server; write 192.0.2.1, ns1.example:5353 or [2001:db8::1]:53")
    return host, int(port)


def record(kind: str, text: str) -> Any:
    """`text` as the data of a record of type `kind`, so that two spellings of one thing are equal."""
    return dns.rdata.from_text(
        dns.rdataclass.IN, dns.rdatatype.from_text(kind), text, dns.name.root, relativize=False
    )


def _exchange(
    connection: socket.socket, query: dns.message.QueryMessage, over: threading.Event
) -> dns.message.Message:
    stream = connection.type is socket.SOCK_STREAM
    wire = query.to_wire()
    connection.sendall(struct.pack("!H", len(wire)) + wire if stream else wire)
    while not over.is_set():
        came = _read_stream(connection) if stream else connection.recv(65535)
        try:
            answer = dns.message.from_wire(came, ignore_trailing=True)
        except dns.exception.DNSException:
            if stream:
                raise ConnectionError("what it answers is not DNS") from None
            continue
        if query.is_response(answer):
            return answer
    raise TimeoutError


def _read_stream(connection: socket.socket) -> bytes:
    [length] = struct.unpack("!H", _read_exactly(connection, 2))
    return _read_exactly(connection, length)


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    came = b""
    while len(came) < size:
        part = connection.recv(size - len(came))
        if not part:
            raise ConnectionResetError("it closed the connection before its answer was whole")
        came += part
    return came
