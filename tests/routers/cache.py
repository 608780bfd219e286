"""A real caching resolver on loopback: unbound, which asks one name server for everything under `test.`"""

import subprocess
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.parts import program
from tests.routers.specs import LOOPBACK, free_port, until

_CONFIG = """
server:
    interface: {host}
    port: {port}
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: ""
    use-syslog: no
    do-not-query-localhost: no
    do-ip6: no
    module-config: "iterator"
    access-control: 127.0.0.0/8 allow
    local-zone: "test." nodefault
    num-threads: 1
forward-zone:
    name: "test."
    forward-addr: {host}@{upstream}
remote-control:
    control-enable: no
"""


class Cache:
    """unbound in front of the name server at port `upstream`."""

    def __init__(self, home: Path, upstream: int) -> None:
        self.port = free_port()
        self.address = f"{LOOPBACK}:{self.port}"
        words = {"home": home, "host": LOOPBACK, "port": self.port, "upstream": upstream}
        (home / "unbound.conf").write_text(_CONFIG.format(**words))
        with (home / "log").open("wb") as log:
            argv = [program("unbound", "unbound"), "-d", "-c", str(home / "unbound.conf")]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until(self._answers, 10, "unbound")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}: {(home / 'log').read_text()[-2000:]}") from None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            dns.query.udp(dns.message.make_query("localhost.", "A"), LOOPBACK, 0.3, self.port)
        except (dns.exception.DNSException, OSError):
            return False
        return True
