"""YAML read with positions, as YAML 1.2 means it, in bounded time and memory, and with all of its mistakes at once."""

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
MAX_PROBLEMS = 100
MAX_DIGITS = 4300
MAX_SOURCE = 1000

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_LINE_BREAK = re.compile(r"\r\n?|\n")
_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_TAG_DIRECTIVE = re.compile(r"^%TAG\b", re.MULTILINE)
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

# Parts of both parsers' messages, in the order to look for them, and what they mean to a person.
_SYNTAX = {
    "mapping values": "a ':' cannot stand here; check the indentation, or quote the value",
    "sequence entries": "a '-' item cannot stand here; check the indentation, or quote the value",
    "expected ':'": "this key lacks its ':'",
    "tab character": "a tab cannot indent; use spaces",
    "'\\t'": "a tab cannot indent; use spaces",
    "start any token": "a value cannot start with {char!r}; quote it",
    "end of stream": "this quote is never closed",
    "escape": "this escape is unknown; write '\\\\' for a backslash, or use single quotes",
    "hexdecimal": "this escape lacks digits; write '\\\\' for a backslash, or use single quotes",
    "',' or ']'": "the list that starts on line {start} lacks a ',' or its ']'",
    "',' or '}'": "the mapping that starts on line {start} lacks a ',' or its '}}'",
    "'-' indicator": "expected a '-' item of the list that starts on line {start}; check the indentation",
    "expected key": "expected a key of the mapping that starts on line {start}; check indentation and quotes",
    "<block end>": "this does not continue what starts on line {start}; check indentation and quotes",
    "node content": "expected a value, not {char!r}; quote it if it is one",
    "alphabetic or numeric": "'*' and '&' start an alias or an anchor; quote the value",
    "document start": "the document has ended above; check the indentation",
    "undefined tag handle": "tags are not allowed; remove it, or quote the value",
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
    """A text and what it says. An aliased value is one object, with the place of its anchor."""

    name: str
    text: str
    root: Map

    def mark(self, loc: Sequence[str | int], *, key: bool = False) -> Mark:
        """Where the value at the path stands, or its key; else where its nearest existing ancestor stands."""
        return self._find(loc, key)[0]

    def problem(self, loc: Sequence[str | int], message: str, *, key: bool = False) -> Problem:
        """A problem at that place, with its source line and the width of what stands there."""
        at, word = self._find(loc, key)
        return _problem(self.name, self._lines, at, message, word)

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
    """Read a file. Raises Invalid where it cannot be read, and for what `parse` refuses."""
    name = str(path)
    try:
        # Not blocking: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise _refused(name, "is a directory; name a YAML file in it")
            if not stat.S_ISREG(found.st_mode):
                raise _refused(name, "is not a regular file; save its content to a file and name that")
            if found.st_size > MAX_BYTES:
                raise _too_large(name)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _refused(name, f"cannot be read: {reason}; check the path and its permissions") from None
    return parse(data, name)


def parse(text: str | bytes, name: str) -> Document:
    """Read a text whose root is a mapping. Raises Invalid with every mistake up to the first of syntax."""
    if len(text) > MAX_BYTES:
        raise _too_large(name)
    text = (_decoded(text, name) if isinstance(text, bytes) else text).removeprefix("\ufeff")
    reader = _Reader(text)
    with suppress(_Stop):
        reader.refuse_unprintable() if _UNPRINTABLE.search(text) else reader.read()
    if reader.faults:
        lines = _LINE_BREAK.split(text)
        raise Invalid(_problem(name, lines, at, message, word) for at, message, word in reader.faults)
    return Document(name, text, reader.root)


class _Stop(Exception):  # noqa: N818 - ends a reading, is never seen outside
    pass


class _Frame:
    """A mapping or list that is still being read."""

    __slots__ = ("anchor", "awaits_key", "before", "height", "key", "key_at", "node")

    def __init__(self, node: Map | Seq, anchor: str | None, before: int) -> None:
        self.node = node
        self.anchor = anchor
        self.before = before
        self.height = 1
        self.awaits_key = isinstance(node, Map)
        self.key: str | None = None
        self.key_at = node.at


class _Reader:
    """Builds the root from the parser's events. An alias counts as all that it stands for; `anchors` hold value, size and height."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root: Any = None
        self.root_at = self.seen_to = Mark(1, 1)
        self.faults: list[tuple[Mark, str, Any]] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}
        self.nodes = 0
        self.documents = 0

    def refuse_unprintable(self) -> None:
        hint = "is not allowed; remove it, or write it as an escape in double quotes"
        for number, line in enumerate(_LINE_BREAK.split(self.text), 1):
            for found in _UNPRINTABLE.finditer(line):
                self.fault(Mark(number, found.start() + 1), f"the character U+{ord(found[0]):04X} {hint}")

    def read(self) -> None:
        # A list of %TAG directives takes libyaml quadratic time.
        if directive := _TAG_DIRECTIVE.search(self.text):
            before = _LINE_BREAK.split(self.text[: directive.start()])
            self.fault(Mark(len(before), 1), "tags are not allowed; remove the %TAG directive")
            return
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
                self.fault(
                    self.root_at, f"expected a mapping (key: value) at the top, found {_kind(self.root)}"
                )
        finally:
            parser.dispose()

    def take(self, event: Any) -> None:
        kind = type(event)
        mark = event.start_mark
        at = self.seen_to = Mark(mark.line + 1, mark.column + 1)
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
        self.count(at, 1)
        if event.tag is not None:
            self.refuse_tag(event.tag, at)
        text: str = event.value
        plain = event.style is None
        frame = self.stack[-1] if self.stack else None
        if frame and frame.awaits_key:
            value: Any = sys.intern(text)
            self.key(frame, value, at, plain)
        else:
            value = self.resolve(text, at) if plain else text
            self.place(value, at)
        if event.anchor:
            self.anchors[event.anchor] = (value, 1, 0)

    def key(self, frame: _Frame, key: str, at: Mark, plain: bool) -> None:
        frame.awaits_key = False
        frame.key = None
        if plain and key == "<<":
            self.fault(
                at, "merge keys ('<<') are not allowed; write the keys out, or use an alias as a value", key
            )
        elif key in frame.node:
            first = frame.node.keys_at[key].line if isinstance(frame.node, Map) else 0
            self.fault(at, f"duplicate key {_show(key)}; the first is on line {first}", key)
        else:
            frame.key, frame.key_at = key, at

    def place(self, value: Any, at: Mark) -> None:
        if not self.stack:
            self.root, self.root_at = value, at
            return
        frame = self.stack[-1]
        node = frame.node
        if isinstance(node, Seq):
            node.append(value)
            node.items_at.append(at)
        elif frame.awaits_key:
            frame.awaits_key, frame.key = False, None
            self.fault(at, f"a key must be a string, not {_kind(value)}; quote it if it is one")
        else:
            frame.awaits_key = True
            if frame.key is not None:
                node[frame.key] = value
                node.keys_at[frame.key] = frame.key_at
                node.values_at[frame.key] = at

    def open(self, event: Any, node: Map | Seq) -> None:
        self.count(node.at, 1)
        if event.tag is not None:
            self.refuse_tag(event.tag, node.at)
        if len(self.stack) >= MAX_DEPTH:
            self.fault(node.at, f"nested more than {MAX_DEPTH} deep; flatten it", fatal=True)
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(node, event.anchor, self.nodes - 1))

    def close(self) -> None:
        frame = self.stack.pop()
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, frame.height + 1)
        # An anchor of the same name further in is the later one, and stays.
        if frame.anchor and self.anchors[frame.anchor] is None:
            self.anchors[frame.anchor] = (frame.node, self.nodes - frame.before, frame.height)
        self.place(frame.node, frame.node.at)

    def alias(self, name: str, at: Mark) -> None:
        found = self.anchors.get(name)
        value, size, height = found or (None, 1, 0)
        self.count(at, size, "aliases expand to ")
        if found is None:
            reason = (
                "is used within itself"
                if name in self.anchors
                else f"has no anchor {_show('&' + name)} above it"
            )
            self.fault(at, f"the alias {_show('*' + name)} {reason}")
        if len(self.stack) + height > MAX_DEPTH:
            self.fault(at, f"with this alias, nested more than {MAX_DEPTH} deep; flatten it", fatal=True)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, height + 1)
        self.place(value, at)

    def count(self, at: Mark, size: int, what: str = "") -> None:
        self.nodes += size
        if self.nodes > MAX_NODES:
            self.fault(at, f"{what}more than {MAX_NODES:,} values; split the file", fatal=True)

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

    def refuse_tag(self, tag: str, at: Mark) -> None:
        shown = _show(tag.replace("tag:yaml.org,2002:", "!!", 1))
        self.fault(at, f"tags are not allowed; remove {shown}")

    def syntax(self, error: yaml.MarkedYAMLError) -> None:
        problem = str(error.problem)
        words = next(
            (said for part, said in _SYNTAX.items() if part in problem), f"not valid YAML: {problem}"
        )
        mark, context = error.problem_mark, error.context_mark or error.problem_mark
        if mark is None or context is None:
            return self.fault(self.seen_to, words)
        start = Mark(context.line + 1, context.column + 1)
        at = Mark(mark.line + 1, mark.column + 1)
        if not self.text[mark.index :].strip():
            at = start if error.context_mark else self.seen_to
        elif words.startswith("this key"):
            at = start
        self.fault(at, words.format(start=start.line, char=self.text[mark.index : mark.index + 1]))

    def fault(self, at: Mark, message: str, word: Any = None, *, fatal: bool = False) -> None:
        self.faults.append((at, message, word))
        if len(self.faults) == MAX_PROBLEMS and not fatal:
            self.faults.append((at, f"{MAX_PROBLEMS} problems already; the rest was not read", word))
            fatal = True
        if fatal:
            raise _Stop


def _problem(name: str, lines: list[str], at: Mark, message: str, word: Any = None) -> Problem:
    source = lines[at.line - 1]
    if len(source) > MAX_SOURCE:
        return Problem(name, *at, message)
    if isinstance(word, str) and word and source.startswith(word, at.column - 1):
        width = len(word)
    else:
        token = _TOKEN.match(source, at.column - 1)
        width = len(token[0]) if token else 1
    return Problem(name, *at, message, _UNPRINTABLE.sub("\ufffd", source), width)


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        above = _LINE_BREAK.split(data[: error.start].decode())
        at = Mark(len(above), len(above[-1]) + 1)
        lines = _LINE_BREAK.split(data.decode(errors="replace"))
        message = f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        raise Invalid([_problem(name, lines, at, message)]) from None


def _refused(name: str, message: str) -> Invalid:
    return Invalid([Problem(name, 0, 0, message)])


def _too_large(name: str) -> Invalid:
    return _refused(name, f"larger than {MAX_BYTES // 1024**2} MiB; split it")


def _kind(value: Any) -> str:
    return (
        "a mapping"
        if isinstance(value, Map)
        else "a list"
        if isinstance(value, Seq)
        else "nothing"
        if value is None
        else "a scalar"
    )


def _show(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
