"""Small real servers with bad manners, for whoever looks at them."""

import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[[socket.socket, threading.Event], None]


@contextmanager
def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A TCP server on a free port that gives each connection to `handler`, with an event that is set at the end."""
    over = threading.Event()
    workers: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def work(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if tls is None:
                handler(connection, over)
                return
            with tls.wrap_socket(connection, server_side=True) as wrapped:
                handler(wrapped, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(10)
                connections.append(connection)
                workers.append(threading.Thread(target=work, args=(connection,)))
                workers[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for worker in workers:
                worker.join()


@contextmanager
def answering_udp(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A UDP server on a free port that sends what `answer` makes of each datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def work() -> None:
            while True:
                came, sender = server.recvfrom(65535)
                if came == b"stop":
                    return
                for part in answer(came):
                    server.sendto(part, sender)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"stop", server.getsockname())
            thread.join()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port where connecting gets no answer at all: its queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Takes everything and never says a word."""
    while not over.is_set() and connection.recv(65536):
        pass
    over.wait(10)


def reset(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
    """Breaks the connection off without a goodbye."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def request(connection: socket.socket) -> bytes:
    """The head of one HTTP request."""
    came = b""
    while b"\r\n\r\n" not in came:
        part = connection.recv(65536)
        if not part:
            break
        came += part
    return came


def http(status: str = "200 OK", body: bytes = b"ok", head: str = "") -> Handler:
    """Answers every request with the same."""

    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        request(connection)
        start = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{head}\r\n"
        connection.sendall(start.encode() + body)

    return handler


def dripping(first: bytes, drop: bytes) -> Handler:
    """Answers with `first` and then, without end, `drop` ten times a second."""

    def handler(connection: socket.socket, over: threading.Event) -> None:
        request(connection)
        connection.sendall(first)
        while not over.wait(0.1):
            connection.sendall(drop)

    return handler


def self_signed(directory: Path, name: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """A TLS context for a server called `name` at 127.0.0.1, and the file with its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(public)
    both = directory / f"{name}.key.pem"
    both.write_bytes(private + public)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, file
