"""A PostgreSQL member's host: what its server's owner can see and do there, as small shell scripts on stdin.

Nothing but `via` and `sh` is ever an argument, so a script may carry a secret and passes through ssh unharmed.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from failover.errors import Failed
from failover.secret import redact
from failover.units import duration

ON = ("in production", "shutting down", "shut down", "in crash recovery")
"""What pg_controldata says of a cluster that last ran, or was last stopped, as a primary."""

CLEAN = ("shut down", "shut down in recovery")
"""What it says of a data directory that nothing has changed since its server was stopped properly."""
BAR = "0-half-rewound-by-failover;run-it-again"
"""Stands in PG_VERSION while a data directory is rewound: PostgreSQL will not start in it, and says these words."""
_KNOW = r"""
server() {
  LC_ALL=C "$bin/pg_ctl" status -D "$data" >/dev/null 2>&1; code=$?
  pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
  # A dead server that nobody has reaped, as in a container without an init, still runs for pg_ctl.
  if test $code -eq 0 && grep -q "^State:[[:space:]]*Z" "/proc/$pid/status" 2>/dev/null; then code=3; fi
  return $code
}
durable() { sync "$@" 2>/dev/null || sync; }
left() {
  for cwd in $(find /proc -maxdepth 2 -name cwd -lname "$(readlink -f "$data")" 2>/dev/null); do
    case $(cat "${cwd%cwd}comm" 2>/dev/null) in postgres|postmaster) echo "failover left: ${cwd%/cwd}" ;; esac
  done
}
"""
_LOOK = """
server; echo "failover status: $?"
test -e "$data/standby.signal" && echo "failover standby: yes"
grep -q "^__BAR__$" "$data/PG_VERSION" 2>/dev/null && echo "failover barred: yes"
left
LC_ALL=C "$bin/pg_controldata" -D "$data"
"""
_COUNT = """
LC_ALL=C "$bin/pg_waldump" --path="$data/pg_wal" --timeline={timeline} --start={start} --rmgr=Transaction
"""
_LOCK = """
if command -v flock >/dev/null; then
  exec 9<"$data" || exit
  flock -w {seconds} 9 || {{ echo "another run still works on $data" >&2; exit 75; }}
fi
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a member's host says about its server."""

    running: bool
    standby: bool
    state: str
    timeline: int
    end: str = ""
    problem: str = ""
    barred: bool = False
    """Its server cannot be started at all, because its rewind is not complete."""

    @property
    def fenced(self) -> bool:
        """A primary that is off, and that comes up as a standby, or not at all, whoever starts it."""
        return not self.running and (self.barred or (self.standby and self.state in ON))


class Host:
    """Runs scripts as the server's owner. Raises Failed with the end of what a script said."""

    def __init__(self, where: str, data: str, binaries: str, via: Sequence[str]) -> None:
        self.where = where
        self.data = data
        self._binaries = binaries
        self._via = tuple(via)

    def run(self, script: str, seconds: float, *, check: bool = True, lock: bool = False) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `script`, which sees $data and $bin. One `lock` holder at a time."""
        head = f"data={shlex.quote(self.data)}\nbin={shlex.quote(self._binaries)}\n"
        guard = _LOCK.format(seconds=max(1, int(seconds))) if lock else ""
        # The braces make the shell read all of it before anything in it can read the same stdin.
        text = "{\nexec </dev/null\n" + head + _KNOW + guard + script + "\n}\n"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own words, without a shell between
                [*self._via, "sh", "-s"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(
                f"'{self._via[0] if self._via else 'sh'}' cannot be run: {error.strerror}", where=self.where
            ) from None
        try:
            out, err = process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failed(
                f"its host did not finish within {duration(seconds)}",
                where=self.where,
                next="see whether that host is overloaded, its disk slow or its network cut, and raise 'within' (or"
                " 'timeout', where it was only looked at) if it needs longer; then resume, which begins again safely",
            ) from None
        if check and process.returncode:
            raise Failed(f"its host ended with {process.returncode}: {said(err or out)}", where=self.where)
        return process.returncode, out, err

    def look(self, seconds: float) -> Look:
        """Whether the server runs, and what its control file says. Writes nothing."""
        _, out, err = self.run(_LOOK.replace("__BAR__", BAR), seconds, check=False)
        status = re.search(r"^failover status: (\d+)$", out, re.MULTILINE)
        state = control(out, "Database cluster state")
        if not status or not state:
            raise Failed(f"its host does not show a cluster in {self.data}: {said(err or out)}", where=self.where)
        left = out.count("failover left: ")
        gone = status[1] == "3"
        return Look(
            running=not gone or left > 0,
            standby="failover standby: yes" in out,
            state=state,
            timeline=max(
                _number(out, "Latest checkpoint's TimeLineID"), _number(out, "Min recovery ending loc's timeline")
            ),
            end=control(out, "Latest checkpoint location"),
            barred="failover barred: yes" in out,
            problem=f"its server is gone, but {left} of its processes still run" if gone and left else "",
        )

    def history(self, timeline: int, seconds: float) -> str:
        """The timeline's history file, or "" where there is none. Writes nothing."""
        return self.run(f'cat "$data/pg_wal/{timeline:08X}.history" 2>/dev/null', seconds, check=False)[1]

    def commits_after(self, timeline: int, start: str, seconds: float) -> int | None:
        """How many transactions were committed on `timeline` after `start`; None where that WAL is gone.

        Reads the write-ahead log with pg_waldump, which ends with an error wherever the log ends.
        """
        _, out, err = self.run(_COUNT.format(timeline=timeline, start=start), seconds, check=False)
        if not out and not re.search(r"invalid|unexpected|incorrect|could not find a valid record|wanted", err):
            return None if err.strip() else 0
        return len(re.findall(r"desc: COMMIT", out))


def control(text: str, name: str) -> str:
    """One value of pg_controldata's output, or ""."""
    found = re.search(rf"^{re.escape(name)}:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def said(text: str, lines: int = 4) -> str:
    """The end of what a program said, on one line and without secrets."""
    return redact("; ".join(text.strip().splitlines()[-lines:])) or "it said nothing"


def _number(text: str, name: str) -> int:
    return int(control(text, name) or 0)
