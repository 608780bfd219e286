"""10,000 weights of SRV records on a real BIND: ours beside nsupdate with the same changes and prerequisites.

Both sign with TSIG, state the records that each change replaces, and send messages: nsupdate of 1,000 records each,
which is near what 64 KB hold, ours of as many as fit. Ours also reads every record set before, which nsupdate does
not; the second line is without that. The sets, two records each, go from one pair of weights to another and back.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.peers import Row
from failover.clock import SYSTEM
from failover.ports import RouteSpec
from failover.routers.rfc2136 import Rfc2136
from failover.topology import Route
from failover.world import RouteChange, RouteState
from tests.parts import program
from tests.routers.bind import DATA, KEY, SECRET, ZONE, Named
from tests.routers.specs import LOOPBACK, free_port

ROUTES, BATCH, TTL, TURNS = 5000, 1000 // 5, 60, 5
# A record set takes five records in a message: two that have to be there, one that deletes, two that are added.
_TARGETS = {"east": "east.example.test.:443", "west": "west.example.test.:443"}
_STATES = [RouteState({"east": 50, "west": 50}, TTL), RouteState({"east": 10, "west": 90}, TTL)]
_PRIMARY = 'zone "{zone}" {{ type primary; file "{file}"; allow-update {{ key "{key}"; }}; }};'


def rows() -> list[Row]:
    """Seconds of our `write`, as a whole and without what it reads before, beside nsupdate."""
    with tempfile.TemporaryDirectory() as place, _named(Path(place)) as port:
        home = Path(place)
        (home / "key").write_text(SECRET)
        router = _router(port, home / "key")
        _nsupdate(home, port, _creation())
        whole, reading, peer = [], [], []
        for turn in range(2 * TURNS):
            before, after = _STATES if turn % 2 == 0 else _STATES[::-1]
            if turn % 4 in (0, 3):
                whole.append(_ours(router, before, after))
                reading.append(_reading(router))
            else:
                peer.append(_nsupdate(home, port, _script(before, after)))
            _check(router, after)
    what = f"{2 * ROUTES:,} weights of SRV records on BIND"
    beside = "nsupdate, 1,000 records a message, reads nothing"
    return [
        Row(what, median(whole), median(peer), "s", beside),
        Row("the same without reading before", median(whole) - median(reading), median(peer), "s", beside),
    ]


def _ours(router: Rfc2136, before: RouteState, after: RouteState) -> float:
    changes = [RouteChange(_id(number), before, after, "a benchmark") for number in range(ROUTES)]
    began = time.perf_counter()
    router.write(changes)
    return time.perf_counter() - began


def _reading(router: Rfc2136) -> float:
    began = time.perf_counter()
    router.read([_id(number) for number in range(ROUTES)])
    return time.perf_counter() - began


def _nsupdate(home: Path, port: int, lines: Iterable[str]) -> float:
    """How long nsupdate takes for `lines`; the file is written before."""
    script = home / "script"
    script.write_text("\n".join([f"server {LOOPBACK} {port}", f"zone {ZONE}", *lines, ""]))
    began = time.perf_counter()
    done = subprocess.run(
        [program("nsupdate", "bind9-dnsutils"), "-v", "-y", f"hmac-sha256:{KEY}:{SECRET}", script],
        check=True,
        capture_output=True,
        text=True,
    )
    took = time.perf_counter() - began
    if done.stdout or done.stderr:
        raise RuntimeError(f"nsupdate said {done.stdout}{done.stderr}")
    return took


def _creation() -> Iterator[str]:
    for number in range(ROUTES):
        yield from (f"add {_record(number)} {TTL} SRV {data}" for data in _data(_STATES[0]))
        if number % (BATCH // 4) == BATCH // 4 - 1:
            yield "send"


def _script(before: RouteState, after: RouteState) -> Iterator[str]:
    """For each record set what ours sends: what has to be there, and what takes its place."""
    for number in range(ROUTES):
        name = _record(number)
        yield from (f"prereq yxrrset {name} SRV {data}" for data in _data(before))
        yield f"del {name} SRV"
        yield from (f"add {name} {TTL} SRV {data}" for data in _data(after))
        if number % (BATCH // 2) == BATCH // 2 - 1:
            yield "send"


def _data(state: RouteState) -> Iterator[str]:
    for region, weight in state.weights.items():
        host, _, port = _TARGETS[region].partition(":")
        yield f"0 {weight} {port} {host}"


def _check(router: Rfc2136, wanted: RouteState) -> None:
    found = router.read([_id(number) for number in range(ROUTES)])
    if set(map(str, found.values())) != {str(wanted)}:
        raise RuntimeError(f"not everything was moved: {list(found.values())[:3]}")


def _router(port: int, secret: Path) -> Rfc2136:
    settings = {
        "server": f"{LOOPBACK}:{port}",
        "zone": ZONE,
        "tsig": {"name": KEY, "secret": {"file": str(secret)}},
        "timeout": "60s",
    }
    routes = {}
    for number in range(ROUTES):
        route = Route(_id(number), "s", "dns", dict(_STATES[0].weights), TTL, None, {}, ())
        config = Rfc2136.RouteConfig.model_validate({"record": _record(number), "type": "SRV", "targets": _TARGETS})
        routes[route.id] = RouteSpec(route, config)
    return Rfc2136("dns", Rfc2136.Config.model_validate(settings), routes, SYSTEM)


@contextmanager
def _named(home: Path) -> Iterator[int]:
    port = free_port()
    (home / "zone").write_text(DATA)
    server = Named(home / "named", port, _PRIMARY.format(zone=ZONE, file=home / "zone", key=KEY))
    server.start()
    try:
        yield port
    finally:
        server.stop()


def _id(number: int) -> str:
    return f"s{number}@dns"


def _record(number: int) -> str:
    return f"_https._tcp.s{number:04}.{ZONE}"
