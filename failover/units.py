"""Durations, as people write them, and the type that files use for them."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")
_LONGEST = 3650 * 86400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """`text` such as `250ms`, `30s`, `2min`, `1h 30m` or `7d` in seconds. Raises ValueError for anything else."""
    rest = _PART.sub("", text).strip()
    parts = _PART.findall(text)
    if rest or not parts:
        shown = text if len(text) <= 60 else text[:59] + "…"
        if re.fullmatch(r"\d+(\.\d+)?", text):
            raise ValueError(f"{shown} has no unit; write {shown}s, {shown}min or {shown}h")
        raise ValueError(f"'{shown}' is not a duration; write it like 250ms, 30s, 2min, 1h or 7d")
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if total > _LONGEST:
        raise ValueError(f"'{text if len(text) <= 60 else text[:59] + '…'}' is longer than ten years")
    return total


def duration(value: float) -> str:
    """`value` seconds as a person would say it: `0.05 s`, `30 s`, `2 min 4 s`, `3 h 5 min`, `2 d 4 h`."""
    if value < 1:
        return f"{value:.2f} s"
    if value < 10:
        return f"{value:.1f} s".replace(".0 s", " s")
    whole = round(value)
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def _read(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("a duration is expected, like 30s")
    if isinstance(value, int | float):
        if value == 0:
            return 0.0
        raise ValueError(f"{value} has no unit; write {value}s, {value}min or {value}h")
    if isinstance(value, str):
        return seconds(value)
    raise ValueError("a duration is expected, like 30s")


Duration = Annotated[
    float,
    BeforeValidator(_read),
    PlainSerializer(lambda value: f"{value:g}s", return_type=str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|s|min|m|h|d)\s*)+$"}, {"const": 0}],
            "description": "a duration, like 30s",
        }
    ),
]
"""Seconds, written in a file as `30s`, `2min`, `1h`."""


def count(number: int, what: str) -> str:
    """`1 change`, `2 changes`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
