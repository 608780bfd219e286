"""The mistakes of files, as a person reads them: each with its place, its line, and a mark under what is wrong."""

import re
import unicodedata
from collections.abc import Sequence

from failover.errors import Problem
from failover.secret import redact

_TAB = 4
_WIDEST = 100
_LONGEST = 600
_GAP = 3
_SECRET = re.compile(
    r"(?:pass\w*|pas?wo?r?d|pwd|secret|token|credentials?|api_?key|private_?key|authorization)['\"]?\s*:"
    r"(?!\s*(?:\{\s*(?:env|file)\b.*|[\[{]?\s*|type:.*)$)",
    re.IGNORECASE,
)


def render(problems: Sequence[Problem]) -> str:
    """Every problem with its place, and its source line marked; the last line counts them.

    A line that holds a secret, or may, is not shown.
    """
    places = [_place(problem) for problem in problems]
    widest = max(map(len, places), default=0)
    hidden = {(problem.file, problem.line) for problem in problems if not problem.source}
    gutter = max((len(str(problem.line)) for problem in problems), default=0)
    lines: list[str] = []
    for place, problem in zip(places, problems, strict=True):
        lines.append(f"{place.ljust(widest)}{' ' * _GAP}{_cut(_printable(redact(problem.message)))}")
        if (problem.file, problem.line) not in hidden and not _may_be_secret(problem.source):
            lines += _excerpt(problem, gutter)
    count = f"{len(problems)} error{'' if len(problems) == 1 else 's'}"
    return "\n".join([*lines, f"{count}. Nothing was run."])


def _place(problem: Problem) -> str:
    name = _printable(problem.file)
    return f"{name}:{problem.line}:{problem.column}" if problem.line else name


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST * 2 // 3]}…{message[-_LONGEST // 3 :]}"


def _may_be_secret(source: str) -> bool:
    return bool(_SECRET.search(source)) or redact(source) != source


def _excerpt(problem: Problem, gutter: int) -> list[str]:
    begin = min(problem.column - 1, len(problem.source))
    end = max(min(begin + problem.width, len(problem.source)), begin + 1)
    cells = [*_cells(problem.source), " "]
    before, marked = "".join(cells[:begin]), "".join(cells[begin:end])
    shown, indent, length = "".join(cells), _columns(before), max(_columns(marked), 1)
    if _columns(shown) > _WIDEST:
        shown, indent, length = _window(cells, begin, end)
    margin = f"    {problem.line:>{gutter}} | "
    return [f"{margin}{shown.rstrip()}", " " * (len(margin) + indent) + "^" * length]


def _window(cells: list[str], begin: int, end: int) -> tuple[str, int, int]:
    """The part of a long line around what is marked, with an ellipsis where something was cut off."""
    start = max(begin - _WIDEST // 3, 0)
    stop = start + _WIDEST
    head, tail = "…" if start else "", "…" if stop < len(cells) - 1 else ""
    indent = _columns(head + "".join(cells[start:begin]))
    length = max(_columns("".join(cells[begin : min(end, stop)])), 1)
    return f"{head}{''.join(cells[start:stop])}{tail}", indent, length


def _cells(text: str) -> list[str]:
    """What is shown for each character: a tab as spaces up to its stop, and nothing that steers a terminal."""
    cells: list[str] = []
    column = 0
    for char in text:
        cell = " " * (_TAB - column % _TAB) if char == "\t" else _printable(char, "\ufffd")
        cells.append(cell)
        column += _columns(cell)
    return cells


def _printable(text: str, instead: str = "") -> str:
    return "".join(
        char if char.isprintable() or unicodedata.combining(char) else instead or ascii(char)[1:-1] for char in text
    )


def _columns(text: str) -> int:
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
