"""Two real PowerDNS servers on loopback, a primary with its API and a secondary, and a proxy before the API."""

import json
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.parts import missing, program
from tests.routers.bind import ZONE, Process
from tests.routers.specs import LOOPBACK, free_port, until

API_KEY = "the-api-key-of-these-tests"
_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
_CONF = """
launch=gsqlite3
gsqlite3-database={home}/zones.sqlite
gsqlite3-pragma-synchronous=0
gsqlite3-dnssec=no
local-address={address}
local-port={port}
socket-dir={home}
daemon=no
guardian=no
security-poll-suffix=
api=yes
api-key={key}
webserver=yes
webserver-address={address}
webserver-port={api}
webserver-loglevel=none
distributor-threads=1
receiver-threads=1
xfr-cycle-interval=3600
"""
_PRIMARY = """primary=yes
also-notify={address}:{other}
only-notify=
"""
_SECONDARY = """secondary=yes
"""


class PdnsServer(Process):
    """One server with a database of its own. `lua` says whether it carries out LUA records."""

    def __init__(self, home: Path, port: int, more: str, *, lua: bool = True) -> None:
        if not _SCHEMA.exists():
            missing("PowerDNS's SQLite backend is missing; install Debian's pdns-backend-sqlite3")
        home.mkdir()
        self.api = free_port()
        text = _CONF.format(home=home, address=LOOPBACK, port=port, key=API_KEY, api=self.api)
        (home / "pdns.conf").write_text(f"{text}{more}enable-lua-records={'yes' if lua else 'no'}\n")
        with sqlite3.connect(home / "zones.sqlite") as database:
            database.executescript(_SCHEMA.read_text())
        database.close()
        super().__init__([program("pdns_server", "pdns-server"), f"--config-dir={home}"], home, port)

    def answers(self) -> bool:
        try:
            return self.call("GET", "")[0] == 200
        except (OSError, HTTPException):
            return False

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = HTTPConnection(LOOPBACK, self.api, timeout=10)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1/servers/localhost{path}", sent, {"X-API-Key": API_KEY})
            response = connection.getresponse()
            said = response.read()
            return response.status, json.loads(said) if said.startswith((b"{", b"[")) else said.decode()
        finally:
            connection.close()


class PdnsPair:
    """A primary and a secondary that transfers the zone from it, for one module of tests."""

    def __init__(self, home: Path) -> None:
        ports = free_port(), free_port()
        self.primary = PdnsServer(home / "primary", ports[0], _PRIMARY.format(address=LOOPBACK, other=ports[1]))
        self.secondary = PdnsServer(home / "secondary", ports[1], _SECONDARY)
        self.home = home

    def start(self) -> None:
        self.primary.start()
        self.secondary.start()
        zone = {"name": ZONE, "kind": "Master", "nameservers": [f"ns1.{ZONE}"]}
        assert self.primary.call("POST", "/zones", zone)[0] == 201
        copy = {"name": ZONE, "kind": "Slave", "masters": [f"{LOOPBACK}:{self.primary.port}"]}
        assert self.secondary.call("POST", "/zones", copy)[0] == 201

    def stop(self) -> None:
        self.secondary.stop()
        self.primary.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def put(self, record: str, contents: Sequence[str], ttl: int, kind: str = "LUA", **more: Any) -> None:
        """Replace a record set by a call of the test's own; with no content it is deleted."""
        records = [{"content": content, "disabled": False, **more} for content in contents]
        change = {"name": record, "type": kind, "ttl": ttl, "changetype": "REPLACE" if records else "DELETE"}
        status, said = self.primary.call("PATCH", f"/zones/{ZONE}", {"rrsets": [{**change, "records": records}]})
        assert status == 204, said

    def rrsets(self, record: str) -> Mapping[str, Any]:
        zone = self.primary.call("GET", f"/zones/{ZONE}")[1]
        return {each["type"]: each for each in zone["rrsets"] if each["name"] == record}

    def transferred(self) -> None:
        """Have the secondary fetch the zone and wait for it; the new serial tells that fetch from those before."""
        self.put(f"transfer.{ZONE}", [f'"{time.monotonic_ns()}"'], 60, "TXT")
        serial = self.primary.call("GET", f"/zones/{ZONE}")[1]["serial"]
        assert self.secondary.call("PUT", f"/zones/{ZONE}/axfr-retrieve")[0] == 200
        until(
            lambda: self.secondary.call("GET", f"/zones/{ZONE}")[1]["serial"] == serial,
            10,
            "the secondary's transfer",
        )


Fault = Callable[[str], str]


class Proxy:
    """The API behind faults. `fault` says of each method what becomes of the call:

    "" it is passed on; "lose" and "hang" it is carried out and not answered; "close" it is not carried out and not
    answered; "drip" its answer comes a byte at a time; "500after" it is carried out and answered with 500. Anything
    else is a status and a body, answered in its place, or "raw" and bytes that need not be HTTP.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault = lambda _: ""
        self.seen: list[tuple[str, str]] = []
        self.done = threading.Event()
        self._to = port
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self))
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()

    def count(self, method: str) -> int:
        return sum(seen == method for seen, _ in self.seen)

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(LOOPBACK, self._to, timeout=10)
        try:
            connection.request(method, path, body or None, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.done.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.seen.append((self.command, self.path))
            fault = proxy.fault(self.command)
            if fault == "close":
                return self.drop()
            if fault not in ("", "lose", "hang", "drip", "500after"):
                status, _, said = fault.partition(" ")
                if status == "raw":
                    self.wfile.write(said.encode())
                    return self.drop()
                return self.say(int(status), said.encode())
            code, content = proxy.forward(self.command, self.path, dict(self.headers.items()), body)
            if fault == "500after":
                return self.say(500, b"")
            if fault == "hang":
                proxy.done.wait(10)
            if fault in ("lose", "hang"):
                return self.drop()
            return self.drip(content) if fault == "drip" else self.say(code, content)

        do_PATCH = do_PUT = do_GET  # noqa: N815 - the library's names

        def say(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def drip(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for byte in content:
                if proxy.done.wait(0.05):
                    return
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return

        def drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            """Nothing; the tests look at `seen`."""

    return Handler
