"""A large estate: the plan of an evacuation, from starting the program to its last line."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.peers import Row, ours

SERVICES, REGIONS = 1000, 20


def rows() -> list[Row]:
    """Milliseconds and memory of `failover plan` on a topology of 1,000 services in 20 regions."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "failover.yaml").write_text(_topology())
        found = sorted(_planned(home) for _ in range(3))
    seconds, peak = found[1]
    what = f"plan, {SERVICES:,} services in {REGIONS} regions"
    return [
        Row(f"{what} (aim: 2 s)", 1000 * seconds, 0, "ms", ""),
        Row(f"{what} (aim: 300 MB)", peak, 0, "MB", ""),
    ]


def _topology() -> str:
    regions = [f"r{number:02}" for number in range(REGIONS)]
    weights = ", ".join(f"{region}: 10" for region in regions)
    capacity = ", ".join(f"{region}: 1000" for region in regions)
    services = "".join(
        f"  s{number:04}:\n"
        f"    routes: [{{router: dns, weights: {{{weights}}}, ttl: 60s}}]\n"
        f"    checks: {{up: {{memory: {{}}}}}}\n"
        f"    capacity: {{{capacity}}}\n"
        "    load: 4000\n"
        for number in range(SERVICES)
    )
    return (
        f"topology: large\nregions: [{', '.join(regions)}]\nservices:\n{services}"
        "routers: {dns: {memory: {}}}\ndrain: {stages: [50, 0], ttl: 10s}\nstore: {memory: {}}\n"
    )


def _planned(home: Path) -> tuple[float, float]:
    argv = [ours(), "plan", "evacuate-region", "-i", "region=r00"]
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=home, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return took, usage.ru_maxrss / 1024
