"""Results go to stdout, everything else to stderr; one JSON document where it is asked for."""

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from failover.errors import Failed, FailoverError, Invalid
from failover.secret import redact, redact_all


def encodable() -> None:
    """Whatever a terminal's character set lacks is shown as a question mark; nothing goes unsaid for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def defect(error: Exception) -> Failed:
    """An error that nobody foresaw, with where it came from and how to find out where things stand."""
    trace = traceback.extract_tb(error.__traceback__)
    return Failed(
        redact(f"a defect of failover itself: {type(error).__name__}: {error}"),
        where="; ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in trace[-4:]),
        next="failover status says where things stand, and a run that was open can be resumed; please report this",
    )


def out(lines: Iterable[str]) -> bool:
    """Results. False where nobody listens any more."""
    return _print("\n".join(lines), sys.stdout)


def err(lines: Iterable[str]) -> None:
    """What a person should see who keeps only the results."""
    _print("\n".join(lines), sys.stderr)


def document(data: Mapping[str, Any]) -> None:
    """The one JSON document of a command."""
    _print(json.dumps(redact_all(data), indent=2, ensure_ascii=False, default=str), sys.stdout)


def failure(error: FailoverError, *, as_json: bool) -> None:
    """Show an error: on stdout as JSON, or on stderr for a person."""
    from failover.report.plan import error_data
    from failover.report.words import error_lines

    if isinstance(error, Invalid):
        from failover.report.problems import render

        if as_json:
            problems = [
                {"file": one.file, "line": one.line, "column": one.column, "message": one.message}
                for one in error.problems
            ]
            document({"error": {"what": "invalid files", "problems": problems, "exit_code": error.exit_code}})
        else:
            err([render(error.problems)])
    elif as_json:
        document({"error": error_data(error)})
    else:
        err(error_lines(error))


def _print(text: str, stream: Any) -> bool:
    """Print, as long as anybody listens: a terminal or a pipe that has gone changes nothing about what was done."""
    try:
        print(redact(text), file=stream, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            # What is still in its buffer would otherwise fail once more, at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
