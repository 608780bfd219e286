"""What has changed in the files since a run began."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failover.errors import Invalid
from failover.yaml import Document


def differences(started: Mapping[str, Any], topology: Document, library: Any) -> list[str]:
    """A unified diff of each file that the run began with and that reads otherwise now."""
    lines: list[str] = []
    name, text = started["topology"]
    lines += _diff(name, text, topology.text)
    for runbook, (file, before) in started["sources"].items():
        try:
            now = Path(file).read_text(encoding="utf-8") if Path(file).is_file() else _bundled(runbook, library)
        except (OSError, UnicodeDecodeError, Invalid):
            lines.append(f"{file} cannot be read now")
        else:
            lines += _diff(file, before, now)
    return lines


def _bundled(runbook: str, library: Any) -> str:
    try:
        document: Document = library.open(runbook)
    except KeyError:
        return ""
    return document.text


def _diff(name: str, before: str, now: str) -> list[str]:
    return list(
        difflib.unified_diff(
            before.splitlines(), now.splitlines(), f"{name} (as the run began)", f"{name} (now)", lineterm="", n=1
        )
    )
