"""Two real BIND servers on loopback, a primary and a secondary, and a proxy that loses what they say."""

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update

from tests.parts import program
from tests.routers.specs import LOOPBACK, free_port, until

ZONE = "example.test."
OTHER_ZONE = "other.test."
KEY, READER = "failover-key", "reader-key"
SECRET = "c2VjcmV0LW9mLXRoZS1mYWlsb3Zlci1rZXktMDEyMzQ="  # noqa: S105 - of these tests only
READER_SECRET = "c2VjcmV0LW9mLXRoZS1yZWFkaW5nLWtleS01Njc4OTA="  # noqa: S105 - of these tests only
ADDRESSES = {"east": ("192.0.2.1", "192.0.2.2"), "west": ("192.0.2.11",)}
TTL = 60

_OPTIONS = """
options {{
    directory "{home}"; managed-keys-directory "{home}"; session-keyfile none; pid-file none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; allow-query {{ any; }}; notify-delay 0; tcp-initial-timeout 50;
}};
controls {{ }};
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "{reader}" {{ algorithm hmac-sha256; secret "{reader_secret}"; }};
"""
_PRIMARY = """
zone "{zone}" {{
    type primary; file "{file}"; allow-update {{ key "{key}"; }}; allow-transfer {{ any; }};
    notify explicit; also-notify {{ 127.0.0.1 port {secondary}; }};
}};
"""
SECONDARY = """
zone "{zone}" {{
    type secondary; file "{file}"; primaries {{ 127.0.0.1 port {primary}; }}; allow-notify {{ 127.0.0.1; }};
    notify no;
}};
"""
DATA = """$TTL 60
@ SOA ns1 hostmaster 1 3600 1 3600 60
@ NS ns1
ns1 A 127.0.0.1
"""


class Process:
    """One DNS server as a process; its zones stay where it is stopped."""

    def __init__(self, argv: Sequence[str], home: Path, port: int) -> None:
        self.argv = argv
        self.home = home
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(self.argv, stdout=log, stderr=log)
        try:
            until(self.answers, 10, f"{self.argv[0]} on port {self.port}")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}: {(self.home / 'log').read_text()[-2000:]}") from None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def answers(self) -> bool:
        try:
            response = dns.query.udp(dns.message.make_query(ZONE, "SOA"), LOOPBACK, 0.3, self.port)
        except (dns.exception.DNSException, OSError):
            return False
        return bool(response.answer)


class Named(Process):
    """BIND."""

    def __init__(self, home: Path, port: int, zones: str) -> None:
        home.mkdir()
        text = _OPTIONS.format(
            home=home, port=port, key=KEY, secret=SECRET, reader=READER, reader_secret=READER_SECRET
        )
        (home / "named.conf").write_text(text + zones)
        argv = [program("named", "bind9"), "-g", "-n", "1", "-c", str(home / "named.conf")]
        super().__init__(argv, home, port)


class Pair:
    """A primary and its secondary, for one module of tests: BIND, unless a subclass says otherwise."""

    primary: Process
    secondary: Process

    def __init__(self, home: Path) -> None:
        ports = (free_port(), free_port())
        for file in ("example", "other"):
            (home / f"{file}.primary").write_text(DATA)
        zones = [(ZONE, "example"), (OTHER_ZONE, "other")]
        primary = "".join(
            _PRIMARY.format(zone=zone, file=home / f"{file}.primary", key=KEY, secondary=ports[1])
            for zone, file in zones
        )
        secondary = SECONDARY.format(zone=ZONE, file=home / "example.secondary", primary=ports[0])
        self.primary = Named(home / "primary", ports[0], primary)
        self.secondary = Named(home / "secondary", ports[1], secondary)

    def start(self) -> None:
        self.primary.start()
        self.secondary.start()

    def stop(self) -> None:
        self.secondary.stop()
        self.primary.stop()

    def put(self, record: str, addresses: Sequence[str], ttl: int = TTL, kind: str = "A") -> None:
        """Replace a record by an update of the test's own."""
        self.put_all([record], addresses, ttl, kind)

    def put_all(self, records: Sequence[str], addresses: Sequence[str], ttl: int = TTL, kind: str = "A") -> None:
        for part in range(0, len(records), 100):
            update = dns.update.UpdateMessage(ZONE)
            update.use_tsig(dns.tsig.Key(KEY, SECRET, "hmac-sha256"))
            for record in records[part : part + 100]:
                update.delete(record, kind)
                for address in addresses:
                    update.add(record, ttl, kind, address)
            response = dns.query.tcp(update, LOOPBACK, 5, self.primary.port)
            assert response.rcode() == dns.rcode.NOERROR


Fault = Callable[[dns.message.Message], str]


class Proxy:
    """A TCP proxy in front of a DNS server. `fault` says of each message what becomes of it:

    "" it is passed on; "lose" it is passed on and its answer is not; "hang" the same, but the connection stays open;
    "close" it is not passed on. Anything else is the response code that is answered in the server's place, without
    a signature where " unsigned" follows it.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault = lambda _: ""
        self.seen: list[dns.message.Message] = []
        self._to = port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def updates(self) -> int:
        return sum(message.opcode() == dns.opcode.UPDATE for message in self.seen)

    def close(self) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._acceptor, *self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[client])
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection((LOOPBACK, self._to), 5) as server:
            while (wire := _read(client)) is not None:
                # The keys are not the proxy's business: it only looks at the opcode.
                message = dns.message.from_wire(
                    wire, keyring=dns.tsigkeyring.from_text({KEY: SECRET}), ignore_trailing=True
                )
                self.seen.append(message)
                fault = self.fault(message)
                if fault == "close":
                    return
                if fault in ("", "lose", "hang"):
                    server.sendall(struct.pack("!H", len(wire)) + wire)
                    answer = _read(server)
                    if fault == "hang":
                        self._done.wait(10)
                    if fault or answer is None:
                        return
                else:
                    response = dns.message.make_response(message)
                    response.set_rcode(dns.rcode.from_text(fault.removesuffix(" unsigned")))
                    if fault.endswith(" unsigned"):
                        response.tsig = None
                    answer = response.to_wire()
                client.sendall(struct.pack("!H", len(answer)) + answer)


def _read(connection: socket.socket) -> bytes | None:
    try:
        head = _exactly(connection, 2)
        return _exactly(connection, struct.unpack("!H", head)[0])
    except (OSError, EOFError):
        return None


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
