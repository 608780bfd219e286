"""A real Unbound on loopback, a resolver that asks one authoritative server for one zone."""

from collections.abc import Sequence
from pathlib import Path

from tests.parts import program
from tests.routers.bind import ZONE, Process
from tests.routers.specs import LOOPBACK, free_port

_CONF = """
server:
    directory: "{home}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: {address}
    port: {port}
    num-threads: 1
    do-ip6: no
    do-not-query-localhost: no
    module-config: "iterator"
    local-zone: "test." nodefault
    {more}
remote-control:
    control-enable: no
stub-zone:
    name: "{zone}"
    stub-addr: {address}@{server}
"""


class Unbound(Process):
    """`more` are settings of its own."""

    def __init__(self, home: Path, server: int, more: Sequence[str] = ()) -> None:
        home.mkdir()
        port = free_port()
        text = _CONF.format(
            home=home, address=LOOPBACK, port=port, zone=ZONE, server=server, more="\n    ".join(more)
        )
        (home / "unbound.conf").write_text(text)
        super().__init__([program("unbound", "unbound"), "-d", "-p", "-c", str(home / "unbound.conf")], home, port)
