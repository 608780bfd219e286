"""The peers, in a virtual environment of their own, and how commands are timed beside them."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parent.parent / ".bench"
PEERS = ("chaostoolkit==1.19.0", "ansible-core==2.19.14", "aiohttp==3.14.5", "httpx==0.28.1")


@dataclass(frozen=True)
class Row:
    """One line of the table: medians of ours and of the peer's; lower is better."""

    what: str
    ours: float
    peer: float
    unit: str
    beside: str


def peer(program: str) -> str:
    """The path of a peer's program; installs the peers the first time."""
    home = HOME / "peers"
    done, wanted = home / "done", " ".join(PEERS)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS]
        subprocess.run(pip, check=True)
        done.write_text(wanted)
    return str(home / "bin" / program)


def ours() -> str:
    """The path of our own program."""
    return str(Path(sys.executable).parent / "failover")


def seconds(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> float:
    """How long `argv` takes as a whole process. Raises where it fails."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, **(env or {})}, cwd=cwd)
    return time.perf_counter() - began


def side_by_side(a: Sequence[str], b: Sequence[str], runs: int = 15, cwd: Path | None = None) -> tuple[float, float]:
    """The medians of two commands that take turns, so that a change in the machine's speed meets both."""
    seconds(a, cwd=cwd)
    seconds(b)
    pairs = [(seconds(a, cwd=cwd), seconds(b)) for _ in range(runs)]
    return statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs)
