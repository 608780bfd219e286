"""YAML with positions, as YAML 1.2 means it, within bounds, and with all of its mistakes at once."""

import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from failover.errors import Invalid, Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 64
MAX_DIGITS = 4300
MAX_PROBLEMS = 100
MAX_SOURCE = 1000

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_BREAK = re.compile(r"\r\n?|\n")
_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"?|'(?:[^']|'')*'?|[\[{]|[^\s,\]}:]+""")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASES = {"0o": 8, "0x": 16}
_TOO_LARGE = 10**MAX_DIGITS
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

# What to look for in both parsers' messages, in this order, and what it means to a person.
_SYNTAX = {
    "not allowed": "{char} cannot stand here; check the indentation, or quote the value",
    "expected ':'": "this key lacks its ':'",
    "tab": "a tab cannot indent; use spaces",
    "any token": "a value cannot start with {char}; quote it",
    "end of stream": "this quote is never closed",
    "document start": "the document has ended above; check the indentation",
    "unexpected document": "a quote that opens on line {start} is not closed before the document ends",
    "escape": "this escape is unknown; write '\\\\' for a backslash, or use single quotes",
    "hexdecimal": "this escape lacks digits; write '\\\\' for a backslash, or use single quotes",
    "',' or": "what opens on line {start} lacks a ',' or its closing bracket",
    "node content": "expected a value, not {char}; quote it if it is one",
    "block scalar": "nothing but a comment may follow '|' or '>' on its line",
    "block": "this does not continue what starts on line {start}; check indentation and quotes",
    "alphabetic": "'*' and '&' start an alias or an anchor; quote the value",
    "tag": "tags are not allowed; remove it, or quote the value",
    "directive": "directives are not allowed; remove this line",
}


class Mark(NamedTuple):
    """A place in a text; line and column count from 1, columns in characters."""

    line: int
    column: int


class Map(dict[str, Any]):
    """A mapping that knows where it, its keys and its values stand."""

    __slots__ = ("at", "keys_at", "values_at")

    def __init__(self, at: Mark) -> None:
        super().__init__()
        self.at = at
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}


class Seq(list[Any]):
    """A list that knows where it and its items stand."""

    __slots__ = ("at", "items_at")

    def __init__(self, at: Mark) -> None:
        super().__init__()
        self.at = at
        self.items_at: list[Mark] = []


@dataclass(frozen=True)
class Document:
    """A text and what it says. An alias and its anchor share one object, whose `at` is the anchor's."""

    name: str
    text: str
    root: Map

    def mark(self, loc: Sequence[str | int], *, key: bool = False) -> Mark:
        """Where the value at the path stands, or its key; else where its nearest existing ancestor stands."""
        return self._find(loc, key)[0]

    def problem(self, loc: Sequence[str | int], message: str, *, key: bool = False) -> Problem:
        """A problem at that place, with its source line and the width of what stands there."""
        at, found = self._find(loc, key)
        return _problem(self.name, self._lines, at, message, found)

    @cached_property
    def _lines(self) -> list[str]:
        return _LINE_BREAK.split(self.text)

    def _find(self, loc: Sequence[str | int], key: bool) -> tuple[Mark, Any]:
        node: Any = self.root
        at = self.root.at
        for depth, step in enumerate(loc, 1):
            if isinstance(node, Map) and isinstance(step, str) and step in node:
                if key and depth == len(loc):
                    return node.keys_at[step], step
                at, node = node.values_at[step], node[step]
            elif isinstance(node, Seq) and isinstance(step, int) and 0 <= step < len(node):
                at, node = node.items_at[step], node[step]
            else:
                break
        return at, node


def load(path: Path) -> Document:
    """Read a regular file. Raises Invalid where it cannot be read, and for what `parse` refuses."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise _refused(str(path), "is a directory; name a file in it")
            if not stat.S_ISREG(found.st_mode):
                raise _refused(str(path), "is not a regular file; save its content to one and name that")
            if found.st_size > MAX_BYTES:
                raise _too_large(str(path))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _refused(str(path), f"cannot be read: {reason}; check the path and its permissions") from None
    return parse(data, str(path))


def parse(text: str | bytes, name: str) -> Document:
    """Read a text whose root is a mapping. Raises Invalid with every mistake up to the first of syntax."""
    if len(text) > MAX_BYTES:
        raise _too_large(name)
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    text = text.removeprefix("\ufeff")
    reader = _Reader(text)
    with suppress(_Stop):
        reader.refuse_unprintable() if _UNPRINTABLE.search(text) else reader.read()
    if reader.faults:
        raise Invalid(_problem(name, reader.lines, *fault) for fault in reader.faults)
    return Document(name, text, reader.root)


class _Stop(Exception):
    """Ends a reading; never seen outside."""


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is still being read; `before` is how many nodes were read before it."""

    node: Map | Seq
    anchor: str | None
    before: int
    awaits_key: bool
    key_at: Mark
    key: str | None = None
    height: int = 1


class _Reader:
    """Builds the root from the parser's events; an alias counts as all that it stands for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = _LINE_BREAK.split(text)
        self.end = Mark(len(self.lines), len(self.lines[-1]) + 1)
        self.root: Any = None
        self.root_at = self.seen_to = Mark(1, 1)
        self.faults: list[tuple[Mark, str, Any]] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}  # value, size, height; None while open
        self.nodes = self.documents = 0

    def refuse_unprintable(self) -> None:
        for number, line in enumerate(self.lines, 1):
            if found := _UNPRINTABLE.search(line):
                code = ord(found[0])
                what = f"the byte 0x{code & 0xFF:02X} is not UTF-8; save the file as UTF-8"
                if not 0xDC80 <= code <= 0xDCFF:
                    what = f"the character U+{code:04X} is not allowed; remove it, or escape it in double quotes"
                self.fault(Mark(number, found.start() + 1), what, found[0])

    def read(self) -> None:
        # libyaml takes quadratic time over many %TAG directives, so none reaches it.
        if directive := re.search(r"^%TAG", self.text, re.MULTILINE):
            line = len(_LINE_BREAK.split(self.text[: directive.start()]))
            self.fault(Mark(line, 1), "tags are not allowed; remove the %TAG directive", fatal=True)
        parser = _Parser(self.text)
        try:
            while event := parser.get_event():
                self.take(event)
        except yaml.MarkedYAMLError as error:
            self.syntax(error)
        except (yaml.YAMLError, ValueError, OverflowError):  # the pure parser lets its own slips through
            self.fault(self.seen_to, "not valid YAML after this place")
        else:
            if not isinstance(self.root, Map) and not self.faults:
                self.fault(self.root_at, "the file must hold a mapping (key: value) at its top")
        finally:
            parser.dispose()

    def take(self, event: Any) -> None:
        kind = type(event)
        mark = event.start_mark
        # libyaml places what is empty at the end of a text without a last line break on a line below it.
        at = min(Mark(mark.line + 1, mark.column + 1), self.end)
        if kind is yaml.ScalarEvent:
            self.scalar(event, at)
        elif kind is yaml.MappingStartEvent:
            self.open(event, Map(at))
        elif kind is yaml.SequenceStartEvent:
            self.open(event, Seq(at))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self.close()
        elif kind is yaml.AliasEvent:
            self.alias(event.anchor, at)
        elif kind is yaml.DocumentStartEvent:
            self.documents += 1
            if self.documents > 1:
                self.fault(at, "only one document a file is allowed; split the file here", fatal=True)

    def scalar(self, event: Any, at: Mark) -> None:
        self.count(event, at)
        value: Any = event.value
        plain = not event.style
        frame = self.stack[-1] if self.stack else None
        if frame and frame.awaits_key:
            self.key(frame, sys.intern(value), at, plain)
        else:
            value = self.resolve(value, at) if plain else value
            self.place(value, at)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1, 0)

    def key(self, frame: _Frame, key: str, at: Mark, plain: bool) -> None:
        frame.awaits_key, frame.key, frame.key_at = False, None, at
        if plain and key == "<<":
            self.fault(at, "merge keys ('<<') are not allowed; write the keys out", key)
        elif isinstance(frame.node, Map) and key in frame.node:
            first = frame.node.keys_at[key].line
            self.fault(at, f"duplicate key {_show(key)}; the first is on line {first}", key)
        else:
            frame.key = key

    def place(self, value: Any, at: Mark, height: int = 0) -> None:
        self.seen_to = at
        if not self.stack:
            self.root, self.root_at = value, at
            return
        frame = self.stack[-1]
        frame.height = max(frame.height, height + 1)
        if isinstance(frame.node, Seq):
            frame.node.append(value)
            frame.node.items_at.append(at)
        elif frame.awaits_key:
            frame.awaits_key, frame.key = False, None
            self.fault(at, "a key must be a string; write it out, or quote it")
        else:
            frame.awaits_key = True
            if frame.key is not None:
                frame.node[frame.key] = value
                frame.node.keys_at[frame.key] = frame.key_at
                frame.node.values_at[frame.key] = at

    def open(self, event: Any, node: Map | Seq) -> None:
        self.count(event, node.at)
        if len(self.stack) >= MAX_DEPTH:
            self.fault(node.at, f"nested more than {MAX_DEPTH} deep; flatten it", fatal=True)
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, event.anchor, self.nodes - 1, isinstance(node, Map), node.at))

    def close(self) -> None:
        frame = self.stack.pop()
        # The same anchor on something further in is the later one, and stays.
        if frame.anchor and self.anchors[frame.anchor] is None:
            self.anchors[frame.anchor] = (frame.node, self.nodes - frame.before, frame.height)
        self.place(frame.node, frame.node.at, frame.height)

    def alias(self, name: str, at: Mark) -> None:
        found = self.anchors.get(name)
        if found is None:
            reason = "is used within itself" if name in self.anchors else "has no anchor above it"
            self.fault(at, f"the alias {_show('*' + name)} {reason}")
        value, size, height = found or (None, 1, 0)
        self.nodes += size
        if self.nodes > MAX_NODES:
            self.fault(at, f"aliases expand to more than {MAX_NODES:,} values; use fewer", fatal=True)
        if len(self.stack) + height > MAX_DEPTH:
            self.fault(at, f"this alias nests more than {MAX_DEPTH} deep; flatten it", fatal=True)
        self.place(value, at, height)

    def count(self, event: Any, at: Mark) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fault(at, f"more than {MAX_NODES:,} values; split the file", fatal=True)
        if event.tag is not None:
            tag = _show(event.tag.replace("tag:yaml.org,2002:", "!!", 1))
            self.fault(at, f"tags are not allowed; remove {tag}")

    def resolve(self, text: str, at: Mark) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _NOT_FINITE.fullmatch(text):
            self.fault(at, f"{text} is not a number to work with; quote it if it is a word", text)
        whole = _INT.fullmatch(text)
        if not whole and not _FLOAT.fullmatch(text):
            return text
        if len(text.lstrip("+-")) <= MAX_DIGITS:
            value = int(text, _BASES.get(text[:2], 10)) if whole else float(text)
            if abs(value) < _TOO_LARGE:
                return value
        self.fault(at, "this number is too large; quote it if it is a word", text)
        return None

    def syntax(self, error: yaml.MarkedYAMLError) -> None:
        problem, mark = f"{error.problem} ({error.context})", error.problem_mark
        words = next(
            (said for part, said in _SYNTAX.items() if part in problem),
            "this is not valid YAML here; quote the value",
        )
        index = mark.index if mark else len(self.text)
        start = self.place_of(error.context_mark)
        at = start if words.startswith("this key") else self.place_of(mark, start)
        char = self.text[index : index + 1]
        words = _SYNTAX["tab"] if char == "\t" else words
        self.fault(at, words.format(start=start.line, char=repr(char) if char else "the end of the file"))

    def place_of(self, mark: Any, instead: Mark | None = None) -> Mark:
        if mark and self.text[mark.index :].strip():
            return Mark(mark.line + 1, mark.column + 1)
        return instead or (self.stack[-1].node.at if self.stack else self.root_at)

    def fault(self, at: Mark, message: str, found: Any = None, *, fatal: bool = False) -> None:
        self.faults.append((at, message, found))
        if len(self.faults) >= MAX_PROBLEMS and not fatal:
            self.fault(at, "too many problems; the rest was not read", found, fatal=True)
        if fatal:
            raise _Stop


def _problem(name: str, lines: list[str], at: Mark, message: str, found: Any) -> Problem:
    source = lines[at.line - 1]
    if len(source) > MAX_SOURCE:
        return Problem(name, *at, message)
    if isinstance(found, str) and found and source.startswith(found, at.column - 1):
        width = len(found)
    else:
        token = _TOKEN.match(source, at.column - 1)
        width = len(token[0]) if token else 1
    return Problem(name, *at, message, _UNPRINTABLE.sub("\ufffd", source), width)


def _refused(name: str, message: str) -> Invalid:
    return Invalid([Problem(name, 0, 0, message)])


def _too_large(name: str) -> Invalid:
    return _refused(name, f"larger than {MAX_BYTES // 1024**2} MiB; split it")


def _show(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
