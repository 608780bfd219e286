"""5,000 HTTP checks of a HAProxy on loopback: seconds and memory, beside aiohttp and httpx asking for the same.

Each check opens a connection of its own, has two seconds and is answered 200. Every program is a process of its own:
the seconds are those from its first check to its last, measured inside, and the memory is its peak.
"""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.peers import Row, ours, peer, seconds
from tests.parts import program
from tests.routers.specs import LOOPBACK, free_port, until

SERVICES, REGIONS, TURNS = 250, 20, 5
_LOOKERS = Path(__file__).parent / "lookers"
_HAPROXY = """\
global
    nbthread 1
    maxconn 2000
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
frontend checked
    bind {host}:{port}
    http-request return status 200 content-type text/plain string ok
"""


def rows() -> list[Row]:
    """Seconds and MB of `estate.look` at 5,000 checks, of the peers, and of `failover check` as a whole."""
    with tempfile.TemporaryDirectory() as place, _haproxy(Path(place)) as port:
        home = Path(place)
        home.joinpath("failover.yaml").write_text(_topology(port))
        count = str(SERVICES * REGIONS)
        programs = {
            "ours": [sys.executable, str(_LOOKERS / "ours.py"), count],
            "aiohttp": [peer("python"), str(_LOOKERS / "with_aiohttp.py"), _URL.format(port=port), count],
            "httpx": [peer("python"), str(_LOOKERS / "with_httpx.py"), _URL.format(port=port), count],
        }
        found = _taken_in_turns(programs, home)
        whole = median(seconds([ours(), "check"], cwd=home) for _ in range(3))
    what = f"{SERVICES * REGIONS:,} HTTP checks"
    mine, peak = found["ours"]
    peers = ("aiohttp", "httpx")
    return [
        *(Row(f"{what} (aim: 1 s)", mine, found[name][0], "s", name) for name in peers),
        *(Row(f"memory for {what} (aim: 60 MB)", peak, found[name][1], "MB", name) for name in peers),
        Row("the same by `failover check`, start to end", whole, 0, "s", ""),
    ]


_URL = f"http://{LOOPBACK}:{{port}}/health"


def _topology(port: int) -> str:
    regions = ", ".join(f"r{number:02}" for number in range(REGIONS))
    url = f"{_URL.format(port=port)}?${{region}}"
    checks = f"{{checks: {{up: {{http: {{url: '{url}'}}}}}}}}"
    services = "".join(f"  s{number:03}: {checks}\n" for number in range(SERVICES))
    return f"topology: checked\nregions: [{regions}]\nservices:\n{services}store: {{memory: {{}}}}\n"


@contextmanager
def _haproxy(home: Path) -> Iterator[int]:
    port = free_port()
    file = home / "haproxy.cfg"
    file.write_text(_HAPROXY.format(host=LOOPBACK, port=port))
    process = subprocess.Popen([program("haproxy", "haproxy"), "-db", "-f", file])
    try:
        until(lambda: _listens(port), 10, "haproxy")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0


def _taken_in_turns(programs: Mapping[str, Sequence[str]], home: Path) -> dict[str, tuple[float, float]]:
    """The median seconds and peak MB of each of `programs`, taking turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(TURNS):
        for name, argv in programs.items():
            found[name].append(_measured(argv, home))
    return {name: (median(s for s, _ in all_), median(p for _, p in all_)) for name, all_ in found.items()}


def _measured(argv: Sequence[str], home: Path) -> tuple[float, float]:
    said = subprocess.run(argv, cwd=home, check=True, stdout=subprocess.PIPE, text=True).stdout
    took, peak = map(float, said.split())
    return took, peak
