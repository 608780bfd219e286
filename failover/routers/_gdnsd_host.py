"""A gdnsd server's host: its admin_state file and gdnsdctl, by small shell scripts on stdin.

Nothing but `via` and `sh` is ever an argument, so a script passes through ssh unharmed.
"""

import base64
import binascii
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from failover.secret import redact

_STATES = "failover states:"
_DONE = "failover done"
_NOTHING, _CTL, _CHANGED = 74, 75, 77
_LOOK = """
file=$(readlink -f -- {path}) || {{ echo "there is no directory for" {path} >&2; exit 74; }}
if test -e "$file"; then base64 <"$file" || exit 74; fi
echo "failover states:"
{ctl} states || exit 75
"""
_REPLACE = """
fail() {{ echo "$1" >&2; exit 74; }}
owner() {{ set -- $(ls -ln -- "$1"); echo "$1 $3 $4"; }}
as_expected() {{ test "$(if test -e "$file"; then base64 <"$file" | tr -d '\\n'; fi)" = {expected}; }}
began=$(date +%s)
file=$(readlink -f -- {path}) || fail "there is no directory for the file"
dir=$(dirname -- "$file")
exec 9<"$dir" || fail "$dir cannot be opened"
if command -v flock >/dev/null; then flock -w {wait} 9 || fail "another run still writes $file"; fi
as_expected || exit 77
new=$(mktemp "$dir/.admin_state.XXXXXX") || fail "nothing can be written in $dir"
trap 'rm -f -- "$new"' EXIT
if test -e "$file"; then
  cp -p -- "$file" "$new" || fail "$file cannot be copied"
else
  chmod 644 "$new"
fi
base64 -d >"$new" <<'END_OF_FILE' || fail "$new cannot be written"
{content}
END_OF_FILE
if test -e "$file" && test "$(owner "$file")" != "$(owner "$new")"; then
  fail "this user cannot keep the mode and owner of $file ($(owner "$file")); go there as its owner or as root"
fi
sync "$new" 2>/dev/null || sync
# Whoever waited for the answer has given up by then, and may believe that nothing was written.
test $(($(date +%s) - began)) -lt {seconds} || fail "its disk is too slow: nothing was replaced within {seconds} s"
as_expected || exit 77
mv -f -- "$new" "$file" || fail "$file cannot be replaced"
sync "$dir" 2>/dev/null || sync
echo "failover done"
"""


class Unseen(Exception):
    """The host could not show its file and states; the message says which host and what happened."""


class Unchanged(Exception):
    """The file was certainly not replaced, and why."""


class Changed(Exception):
    """The file was not replaced, because it no longer was what was to be replaced."""


class Lost(Exception):
    """The file may have been replaced or not."""


@dataclass(frozen=True, slots=True)
class Look:
    """The file as it is, empty where there is none, and gdnsd's states: what each is, and whether that is forced."""

    content: bytes
    states: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Host:
    """One server's host. `via` are the words before `sh -s` that reach it; `ctl` runs gdnsdctl there."""

    path: str
    ctl: Sequence[str]
    via: Sequence[str]
    seconds: float

    def __str__(self) -> str:
        return f"{self.path} on {self.via[-1]}" if self.via else self.path

    def look(self) -> Look:
        """The file and the states, `seconds` at most. Writes nothing. Raises Unseen."""
        try:
            code, out, err = self._run(_LOOK.format(path=shlex.quote(self.path), ctl=shlex.join(self.ctl)))
        except Unchanged as error:
            raise Unseen(str(error)) from None
        if code == _CTL:
            raise Unseen(f"gdnsd of {self} does not answer: {_said(err)}")
        text, mark, states = out.partition(f"{_STATES}\n")
        if code or not mark:
            raise Unseen(f"{self} cannot be read: {_said(err) if code is not None else err}")
        try:
            found = json.loads(states)
            return Look(base64.b64decode(text), {key: _state(value) for key, value in found.items()})
        except (ValueError, AttributeError, KeyError, TypeError, binascii.Error):
            raise Unseen(f"gdnsdctl of {self} says what cannot be understood: {_said(states)}") from None

    def replace(self, expected: bytes, content: bytes) -> None:
        """Put `content` in the place of `expected`, in one move that is on the disk on return. Writes.

        The file is compared directly before it is moved, under a lock that other runs take too; an editor that saves
        in between is not seen. Raises Changed, Unchanged, or Lost where the answer was lost.
        """
        script = _REPLACE.format(
            path=shlex.quote(self.path),
            expected=shlex.quote(base64.b64encode(expected).decode()),
            content=base64.encodebytes(content).decode().rstrip("\n"),
            wait=max(1, int(self.seconds / 2)),
            seconds=max(1, int(self.seconds)),
        )
        code, out, err = self._run(script)
        if code == 0 and _DONE in out:
            return
        if code == _CHANGED:
            raise Changed(f"{self} has changed")
        if code == _NOTHING:
            raise Unchanged(f"{self} was not written: {_said(err)}")
        raise Lost(f"{self}: {_said(err) if code is not None else err}")

    def _run(self, script: str) -> tuple[int | None, str, str]:
        """Exit code, stdout and stderr; the code is None where it did not end in time. Raises Unchanged."""
        # The braces make the shell read all of it before anything in it can read the same stdin.
        text = "{\nexec </dev/null\n" + script + "\n}\n"
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own words, without a shell between
                [*self.via, "sh", "-s"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise Unchanged(f"{self}: '{[*self.via, 'sh'][0]}' cannot be run: {said}") from None
        try:
            out, err = process.communicate(text, timeout=self.seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, "", f"its host did not finish within {self.seconds:g} s"
        return process.returncode, out, err


def _state(value: Any) -> str:
    return str(value["state"])


def _said(text: str, lines: int = 3) -> str:
    """The end of what a program said, on one line and without secrets."""
    return redact("; ".join(text.strip().splitlines()[-lines:])) or "it said nothing"
