"""Real HAProxy processes on loopback, each with stats sockets of every level, and what lies between them and us."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.parts import program
from tests.routers.specs import LOOPBACK, free_port, until

_HEAD = """
global
    nbthread 2
    stats socket {home}/admin.sock mode 600 level admin
    stats socket {home}/operator.sock mode 600 level operator
    stats socket ipv4@127.0.0.1:{port} level admin
    server-state-file {home}/saved
defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout server 20s
    load-server-state-from-file global
"""


class Haproxy:
    """One process. What it was told at run time is gone when it is stopped."""

    def __init__(self, home: Path, backends: str) -> None:
        self.binary = program("haproxy", "haproxy")
        home.mkdir()
        self.home = home
        self.socket = str(home / "admin.sock")
        self.operator = str(home / "operator.sock")
        self.port = free_port()
        self.front = 0
        self.configure(backends)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, backends: str) -> None:
        text = _HEAD.format(home=self.home, port=self.port) + backends
        (self.home / "haproxy.cfg").write_text(text)

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            argv = [self.binary, "-db", "-f", str(self.home / "haproxy.cfg")]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until(self._answers, 10, f"haproxy in {self.home}")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}: {(self.home / 'log').read_text()[-2000:]}") from None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def tell(self, *commands: str) -> str:
        """What a person would type at the socket, and its answer."""
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(5)
            made.connect(self.socket)
            made.sendall(";".join(commands).encode() + b"\n")
            text = b""
            while part := made.recv(65536):
                text += part
        return text.decode()

    def weights(self, backend: str) -> dict[str, int]:
        rows = [line.split() for line in self.tell(f"show servers state {backend}").splitlines()]
        return {row[3]: int(row[7]) for row in rows if len(row) > 20 and row[0] != "#"}

    def _answers(self) -> bool:
        try:
            return "Pid:" in self.tell("show info")
        except OSError:
            return False


Fault = Callable[[bytes], str]


class Proxy:
    """In front of a stats socket. `fault` says of each line what becomes of it:

    "" it is passed on; "lose" it is passed on and its answer is not; "hang" nothing is answered while this is open;
    anything else is answered in HAProxy's place.
    """

    def __init__(self, to: str) -> None:
        self.fault: Fault = lambda _: ""
        self.lines: list[bytes] = []
        self._to = to
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
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
        with client, client.makefile("rb") as reader:
            line = reader.readline()
            self.lines.append(line)
            fault = self.fault(line)
            if fault == "hang":
                self._done.wait(10)
            elif fault not in ("", "lose"):
                client.sendall(fault.encode())
            else:
                with socket.socket(socket.AF_UNIX) as server:
                    server.connect(self._to)
                    server.sendall(line)
                    text = b""
                    while part := server.recv(65536):
                        text += part
                if not fault:
                    client.sendall(text)


class Shop:
    """An HTTP server of one region: `/` says which one, `/wait` after a while, and `/slow` not until `release`.

    `/health` answers with the status that `health` gives, or not in time where that is 0.
    """

    def __init__(self, name: str) -> None:
        self.waiting = 0
        self.served = 0
        self.release = threading.Event()
        self.health: Callable[[], int] = lambda: 200
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    shop.waiting += 1
                    shop.release.wait(15)
                elif self.path == "/wait":
                    shop.release.wait(0.3)
                status = shop.health() if self.path == "/health" else 200
                if not status:
                    shop.release.wait(2)
                body = name.encode()
                self.send_response(status or 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                shop.served += 1

            def log_message(self, *_: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A connection that was cut is what some tests are about."""

        self._server = Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def shops(*names: str) -> Iterator[Mapping[str, Shop]]:
    made = {name: Shop(name) for name in names}
    try:
        yield made
    finally:
        for shop in made.values():
            shop.close()
