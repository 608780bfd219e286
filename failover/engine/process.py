"""Which process carries out a run, and whether it still lives; and running a command of a runbook."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from failover.errors import Failed
from failover.secret import Secret, redact

_KEPT_LINES = 20
_LAST_WORDS = 1.0
"""Seconds in which the output of a command that has ended may still be read."""


def owner() -> dict[str, Any]:
    """This process, so that another machine or a later process can tell whether it is still there."""
    return {
        "by": os.environ.get("SUDO_USER") or _user(),
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
    }


def _user() -> str:
    """The name of this user; its number where a container gave it none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def alive(process: Mapping[str, Any]) -> bool | None:
    """Whether the process lives; None where it is, or was, on another machine and nobody here can tell."""
    if process["host"] != socket.gethostname():
        return None
    if process["boot"] != _boot():
        return False
    return bool(process["born"]) and _born(process["pid"]) == str(process["born"])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When the kernel started the process, in its own ticks; empty where it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _born_elsewhere(pid)
    return "" if fields[0] == "Z" else fields[19]


def _born_elsewhere(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607 - where there is no /proc, ps is the only one to ask
    return found.stdout.strip()


def reveal(env: Mapping[str, str | Secret]) -> dict[str, str]:
    """The variables of a command with its secrets read. Raises Failed where one cannot be."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()}


def must_be_there(argv: tuple[str, ...], env: Mapping[str, str]) -> None:
    """Raise Failed where the program of `argv` is not one that can be started from here."""
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        raise Failed(
            f"{argv[0]} cannot be started: there is no such program here",
            next="install it, or write its whole path, and plan again; nothing was changed",
        )


def run_command(
    argv: tuple[str, ...],
    env: Mapping[str, str],
    timeout: float,
    spawned: Callable[[int], None],
    line: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Run `argv` to its end, in a session of its own so that a Ctrl-C meant for us does not reach it.

    `line` gets each line of its output, without secrets. Returns its exit code (minus the signal's number where a
    signal ended it) and its last lines. After `timeout` seconds its whole process group is killed.
    Raises Failed where it cannot be started or ran out of time.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - running the operator's own command is what the step is for
            argv,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{argv[0]} cannot be started: {error.strerror}", next="nothing was run") from None
    kept: list[str] = []
    late = threading.Event()

    def kill() -> None:
        late.set()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def read() -> None:
        nonlocal kept
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout as output:
            for raw in output:
                text = redact(raw.rstrip("\n"))
                line(text)
                kept = [*kept[1 - _KEPT_LINES :], text]

    timer = threading.Timer(timeout, kill)
    timer.daemon = True
    timer.start()
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        spawned(process.pid)
    finally:
        code = process.wait()
        timer.cancel()
    # What it left running in the background may keep its output open for ever; that is not waited for.
    reader.join(_LAST_WORDS)
    if late.is_set():
        raise Failed(
            f"{argv[0]} did not end within {timeout:g} s and was killed",
            where="; ".join(kept[-3:]),
            next="see what it left half done before the step is retried",
        )
    return code, kept
