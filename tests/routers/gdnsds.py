"""Real gdnsd servers on loopback, each with a file of forced states and a configuration of its own."""

import subprocess
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.parts import program
from tests.routers.specs import LOOPBACK, free_port, until

ZONE = "example.test."
_CONFIG = """
options => {{
  listen => [ 127.0.0.1:{port} ], run_dir => {home}/run, state_dir => {home}/state, udp_threads => 1, tcp_threads => 1
}}
plugins => {{
  metafo => {{ resources => {{
    web => {{ datacenters => [ east, west ], dcmap => {{ east => [ 192.0.2.1, 192.0.2.2 ], west => 192.0.2.11 }} }}
  }} }}
  multifo => {{
    api => {{ up_thresh => 0.1, e1 => 192.0.2.21, e2 => 192.0.2.22, w1 => 192.0.2.31 }}
    most => {{ up_thresh => 0.9, e1 => 192.0.2.41, w1 => 192.0.2.51 }}
  }}
}}
"""
_DATA = """$TTL 60
@ SOA ns1 hostmaster 1 3600 60 3600 60
@ NS ns1
@ NS ns2
ns1 A 127.0.0.1
ns2 A 127.0.0.1
web 60 DYNA metafo!web
api 60 DYNA multifo!api
most 60 DYNA multifo!most
"""


class Gdnsd:
    """One server. Its file stays where it is stopped."""

    def __init__(self, home: Path) -> None:
        self.binary = program("gdnsd", "gdnsd")
        self.home = home
        self.ctl = [program("gdnsdctl", "gdnsd"), "-c", str(home), "-o", "-t", "5"]
        self.state = home / "state" / "admin_state"
        for folder in ("run", "state", "zones"):
            (home / folder).mkdir(parents=True)
        (home / "zones" / "example.test").write_text(_DATA)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = self.port or free_port()
        (self.home / "config").write_text(_CONFIG.format(port=self.port, home=self.home))
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen([self.binary, "-c", str(self.home), "start"], stdout=log, stderr=log)
        try:
            until(self._ready, 10, f"gdnsd on port {self.port}")
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

    def addresses(self, name: str) -> set[str]:
        response = dns.query.udp(dns.message.make_query(f"{name}.{ZONE}", "A"), LOOPBACK, 2, self.port)
        return {record.to_text() for each in response.answer for record in each}

    def _ready(self) -> bool:
        try:
            asked = dns.query.udp(dns.message.make_query(ZONE, "SOA"), LOOPBACK, 0.3, self.port)
        except (dns.exception.DNSException, OSError):
            return False
        return bool(asked.answer) and subprocess.run([*self.ctl, "status"], capture_output=True).returncode == 0
