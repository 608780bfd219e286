"""The cost of one more step that does nothing, journalled in full: a slope, so that starting does not count."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.peers import Row, ours, peer

_TOPOLOGY = """\
topology: bench
regions: [east, west]
services: {web: {routes: [{router: dns, weights: {east: 1, west: 1}}], checks: {live: {memory: {}}}}}
routers: {dns: {memory: {}}}
store: {sqlite: {path: journal.db}}
"""


def rows() -> list[Row]:
    """Milliseconds a step for us, Chaos Toolkit and Ansible, and our memory for 10,000 of them."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        mine = _slope(home, _failover, 100, 10_000)
        chaos = _slope(home, _chaos, 100, 10_000)
        ansible = _slope(home, _ansible, 2, 22)
        peak = _peak(home, 10_000)
    return [
        Row("a no-op step, journalled with full sync", mine, chaos, "ms", "chaos run, a python no-op, not durable"),
        Row("a no-op step, journalled with full sync", mine, ansible, "ms", "ansible-playbook, local command: true"),
        Row("memory at 10,000 steps (aim: 150 MB)", peak, 0, "MB", ""),
    ]


def _slope(home: Path, command: Callable[[Path, int], list[str]], few: int, many: int, turns: int = 3) -> float:
    """The median over `turns` of what one of the steps between `few` and `many` costs, in milliseconds."""
    found = []
    for _ in range(turns):
        took = []
        for count in (few, many):
            argv = command(home, count)
            began = time.perf_counter()
            subprocess.run(argv, check=True, capture_output=True, cwd=home)
            took.append(time.perf_counter() - began)
        found.append(1000 * (took[1] - took[0]) / (many - few))
    return sorted(found)[turns // 2]


def _failover(home: Path, count: int) -> list[str]:
    (home / "failover.yaml").write_text(_TOPOLOGY)
    steps = "".join(f"  - {{id: s{number}, wait: 0s}}\n" for number in range(count))
    (home / "noop.yaml").write_text(f"runbook: noop\nsteps:\n{steps}")
    for old in home.glob("journal.db*"):
        old.unlink()
    return [ours(), "run", "./noop.yaml", "--yes", "--json"]


def _chaos(home: Path, count: int) -> list[str]:
    action = {
        "type": "action",
        "provider": {"type": "python", "module": "os", "func": "getpid"},
    }
    experiment = {
        "title": "noop",
        "description": "noop",
        "method": [{"name": f"s{number}", **action} for number in range(count)],
    }
    (home / "noop.json").write_text(json.dumps(experiment))
    return [peer("chaos"), "--no-version-check", "run", "--journal-path", "chaos.json", "noop.json"]


def _ansible(home: Path, count: int) -> list[str]:
    tasks = "".join("    - ansible.builtin.command: 'true'\n" for _ in range(count))
    play = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
    (home / "noop-play.yaml").write_text(play + tasks)
    interpreter = f"ansible_python_interpreter={peer('python')}"
    return [peer("ansible-playbook"), "-i", "localhost,", "-e", interpreter, "noop-play.yaml"]


def _peak(home: Path, count: int) -> float:
    process = subprocess.Popen(_failover(home, count), cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "failover run")
    return usage.ru_maxrss / 1024
