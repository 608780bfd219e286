"""Two real Knot servers on loopback, a primary and a secondary."""

from pathlib import Path

from tests.parts import program
from tests.routers.bind import DATA, KEY, OTHER_ZONE, READER, READER_SECRET, SECRET, ZONE, Pair, Process
from tests.routers.specs import LOOPBACK, free_port

_SERVER = """
server:
    listen: {address}@{port}
    rundir: {home}
    udp-workers: 1
    tcp-workers: 2
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {home}
    journal-db-mode: asynchronous
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
  - id: {reader}
    algorithm: hmac-sha256
    secret: {reader_secret}
remote:
  - id: other
    address: {address}@{other}
acl:
  - id: update
    key: {key}
    action: update
  - id: peers
    address: 127.0.0.0/8
    action: [transfer, notify]
template:
  - id: default
    storage: {home}
    file: "%s.zone"
    zonefile-sync: 0
zone:
"""
_PRIMARY = """
  - domain: {zone}
    acl: [update, peers]
    notify: other
  - domain: {other_zone}
    acl: [update, peers]
"""
_SECONDARY = """
  - domain: {zone}
    master: other
    acl: peers
"""


class Knotd(Process):
    """Knot."""

    def __init__(self, home: Path, port: int, other: int, zones: str) -> None:
        home.mkdir()
        names = {"key": KEY, "secret": SECRET, "reader": READER, "reader_secret": READER_SECRET}
        text = _SERVER.format(home=home, address=LOOPBACK, port=port, other=other, **names)
        (home / "knot.conf").write_text(text + zones.format(zone=ZONE, other_zone=OTHER_ZONE))
        super().__init__([program("knotd", "knot"), "-c", str(home / "knot.conf")], home, port)


class KnotPair(Pair):
    def __init__(self, home: Path) -> None:
        ports = free_port(), free_port()
        self.primary = Knotd(home / "primary", ports[0], ports[1], _PRIMARY)
        self.secondary = Knotd(home / "secondary", ports[1], ports[0], _SECONDARY)
        for zone in (ZONE, OTHER_ZONE):
            (home / "primary" / f"{zone}zone").write_text(DATA)
