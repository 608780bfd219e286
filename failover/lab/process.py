"""Ordinary child processes that can be found again by whoever comes later.

Nothing is remembered in files. Every process carries its laboratory and its part in its environment, which
its children inherit, so the kernel's own table says what runs, even where the starter was killed half way.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from failover.clock import SYSTEM
from failover.errors import Failed

MARK = "FAILOVER_LAB_PROCESS"
PART = "FAILOVER_LAB_PART"
PROC = Path("/proc")
_POLL = 0.02


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """A process, told from a later one with the same number by the kernel's start time."""

    pid: int
    started: int
    part: str
    parent: int = 0


def until(condition: Callable[[], bool], seconds: float, poll: float = _POLL) -> bool:
    """Whether `condition` came true within `seconds`."""
    deadline = SYSTEM.monotonic() + seconds
    while not condition():
        if SYSTEM.monotonic() >= deadline:
            return False
        SYSTEM.sleep(poll)
    return True


def environment(directory: Path, part: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a part of the laboratory inherits: its mark, and none of the caller's PostgreSQL or AWS settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_", "LC_"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", **(extra or {}), MARK: str(directory), PART: part}


def spawn(directory: Path, part: str, argv: Sequence[str], log: Path) -> Process:
    """Start `argv` in the background, on its own, with its output appended to `log`."""
    # The shell ends at once and leaves the child to init, so that no caller has to reap it.
    script = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'
    done = subprocess.run(  # noqa: S603 - argv is the laboratory's own
        ["/bin/sh", "-c", script, "sh", str(log), *argv],
        env=environment(directory, part),
        cwd="/",
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    pid = int(done.stdout)
    return Process(pid, _stat(pid)[1], part)


def run(
    directory: Path, part: str, argv: Sequence[str], *, extra: Mapping[str, str] | None = None, seconds: float = 60
) -> str:
    """Run `argv` to its end and return its output; a failure carries the last lines of it."""
    try:
        done = subprocess.run(  # noqa: S603 - argv is the laboratory's own
            list(argv),
            env=environment(directory, part, extra),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{part} could not be run: {error}", where=str(directory)) from error
    if done.returncode:
        raise Failed(f"{part} ended with {done.returncode}: {tail(done.stdout)}", where=str(directory))
    return done.stdout


def tail(text: str, lines: int = 5) -> str:
    """The last few lines, which is where a program says why it gave up."""
    return "\n".join(text.strip().splitlines()[-lines:]) or "it said nothing"


def table() -> list[Process]:
    """Every process of the machine, without its part."""
    found: list[Process] = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            parent, started = _stat(int(entry.name))
            if started:
                found.append(Process(int(entry.name), started, "", parent))
    return found


def marked(directory: Path) -> list[Process]:
    """The processes that were started for the laboratory in `directory`, by their mark."""
    mark = os.fsencode(f"{MARK}={directory}")
    name = f"{PART}=".encode()
    found: list[Process] = []
    for process in table():
        variables = _read(process.pid, "environ").split(b"\0")
        if mark in variables and process.pid != os.getpid():
            part = next((entry[len(name) :].decode() for entry in variables if entry.startswith(name)), "")
            found.append(Process(process.pid, process.started, part, process.parent))
    return found


def serving(data: Path, programs: AbstractSet[bytes] = frozenset({b"postgres"})) -> list[Process]:
    """The PostgreSQL processes of one data directory, whoever started them, server first."""
    wanted = os.fsencode(data)
    everything = table()
    servers = {
        process.pid
        for process in everything
        if wanted in (argv := _read(process.pid, "cmdline").split(b"\0")) and argv[0].rsplit(b"/", 1)[-1] in programs
    }
    found = [
        Process(process.pid, process.started, "postgres", process.parent)
        for process in everything
        if process.pid in servers
        or process.parent in servers
        # A worker that lost its server still sits in the data directory under PostgreSQL's name.
        or (_read(process.pid, "comm").strip() == b"postgres" and _cwd(process.pid) == str(data))
    ]
    return sorted(found, key=lambda process: (process.pid not in servers, process.pid))


def alive(process: Process) -> bool:
    """Whether this very process still runs; one that waits to be reaped does not."""
    return _stat(process.pid)[1] == process.started


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signal those of `processes` that still run."""
    for process in processes:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                what = f"process {process.pid} belongs to somebody else"
                raise Failed(what, where=process.part, next="stop it as the user who started it") from error


def end(find: Callable[[], list[Process]], number: signal.Signals, seconds: float = 10) -> int:
    """Signal what `find` finds until it finds nothing, in the end with SIGKILL. Returns how many there were."""
    seen: set[Process] = set()

    def gone() -> bool:
        found = find()
        send([process for process in found if process not in seen], number)
        seen.update(found)
        return not found

    if until(gone, seconds):
        return len(seen)
    count, number = len(seen), signal.SIGKILL
    seen.clear()
    if until(gone, seconds):
        return count
    left = ", ".join(f"{process.part} ({process.pid})" for process in find())
    raise Failed(f"still running after SIGKILL: {left}", next="look at what holds them, then try again")


def _stat(pid: int) -> tuple[int, int]:
    """Parent and start time of a process in clock ticks since boot; 0 where it does not run."""
    text = _read(pid, "stat")
    # The name is in brackets and may hold anything, so the fields count from the last bracket.
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return 0, 0
    return int(fields[1]), int(fields[19])


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _cwd(pid: int) -> str:
    try:
        return str((PROC / str(pid) / "cwd").readlink())
    except OSError:
        return ""
