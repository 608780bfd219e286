"""The command line as a process of its own: run to its end, watched while it runs, or on a terminal."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

FAILOVER = (sys.executable, "-m", "failover.cli.main")
ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def until(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "it", poll: float = 0.02) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds:g} s")
        time.sleep(poll)
    return found


def environment(topology: Path | None, **more: str) -> dict[str, str]:
    """Nothing of the caller's own that the product would look at."""
    left = ("FAILOVER", "AWS_", "PG", "XDG_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    named = {"FAILOVER_TOPOLOGY": str(topology)} if topology else {}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **named, **more}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout, which has to be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def said(self) -> str:
        """All of it with its lines unwrapped."""
        return " ".join(self.all.split())

    def __str__(self) -> str:
        return f"failover {' '.join(self.words)} ended with {self.code}\n{self.out}\n{self.err}"


def failover(
    topology: Path | None,
    *words: str,
    code: int | None = 0,
    cwd: Path | None = None,
    program: Sequence[str] = FAILOVER,
    before: Callable[[], None] | None = None,
    **env: str,
) -> Done:
    """Run a command to its end and hold it to its exit code; never a traceback, never an escape code."""
    done = subprocess.run(
        [*program, *words],
        env=environment(topology, **env),
        cwd=cwd or ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=before,
    )
    found = Done(words, done.returncode, done.stdout, done.stderr)
    assert code is None or found.code == code, str(found)
    assert "Traceback" not in found.all, str(found)
    assert "\x1b" not in found.all, str(found)
    return found


class Running:
    """A command under way, without a terminal."""

    def __init__(self, topology: Path, *words: str, program: Sequence[str] = FAILOVER, **env: str) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        self.words = words
        self.process = subprocess.Popen(
            [*program, *words],
            env=environment(topology, **env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def err(self) -> str:
        return _text(self._err)

    def says(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until `text` stands on its stderr."""

        def said() -> bool:
            over = self.process.poll() is not None
            if text in self.err:
                return True
            assert not over, f"it ended with {self.process.returncode} before it said '{text}':\n{self.err}"
            return False

        until(said, seconds, f"'{text}' in {self.err!r}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, code: int | None = None) -> Done:
        """Wait for its end."""
        found = Done(self.words, self.process.wait(PATIENCE), _text(self._out), _text(self._err))
        assert code is None or found.code == code, str(found)
        assert "Traceback" not in found.all, str(found)
        return found


def _text(file: Any) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class Terminal:
    """A command on a terminal of its own, whose session it leads."""

    def __init__(self, topology: Path, *words: str, size: tuple[int, int] = (40, 110), **env: str) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.words = words
        self.process = subprocess.Popen(
            [*FAILOVER, *words],
            env=environment(topology, **env),
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=lambda: os.login_tty(slave),
        )
        os.close(slave)
        self._raw = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.close()

    @property
    def raw(self) -> str:
        return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        """What was written, without colours and movements."""
        return ESCAPE.sub("", self.raw).replace("\r", "")

    def says(self, text: str, seconds: float = PATIENCE) -> None:
        def said() -> bool:
            over = self.process.poll() is not None
            if text in self.text:
                return True
            assert not over, f"it ended with {self.process.returncode} before it said '{text}':\n{self.text}"
            return False

        until(said, seconds, f"'{text}' on the screen")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        """Close the terminal, as a window that is shut or a connection that is lost."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def end(self, code: int) -> str:
        assert self.process.wait(PATIENCE) == code, self.text
        self._reader.join(5)
        assert "Traceback" not in self.text
        return self.text

    def _read(self) -> None:
        while self.master >= 0:
            try:
                # A short wait, so that a master which is closed meanwhile is noticed.
                with _readable(self.master) as ready:
                    if ready:
                        self._raw += os.read(self.master, 65536)
            except (OSError, ValueError):
                return


@contextmanager
def _readable(handle: int) -> Iterator[bool]:
    import select

    yield bool(select.select([handle], [], [], 0.05)[0])
