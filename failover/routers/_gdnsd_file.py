"""gdnsd's admin_state file: which states it forces, and who wrote each line.

Every line that is not this tool's is kept byte by byte. Its own lines end with a comment that says so and stand at
the end, since a later line overrides an earlier one; a key twice makes gdnsd ignore the whole file.

Sources: gdnsd(8), "ADMIN STATE FILE"; gdnsd.config(5), "LOW-LEVEL SYNTAX".
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_TOKEN = re.compile(
    rb'(?P<skip>[\s,]+|[#;][^\n]*)|(?P<arrow>=>?)|(?P<text>"(?:[^"\\]|\\.)*"|(?:[^\s\]\[}{;#,"=\\]|\\.)+)', re.DOTALL
)
_ESCAPE = re.compile(rb"\\(\d{3}|.)", re.DOTALL)
_VALUE = re.compile(r"(UP|DOWN)(/\d+)?")
_OURS = re.compile(rb"([A-Za-z0-9_.:/-]+) => DOWN # set by failover")


class Unclear(Exception):
    """What the file says cannot be told, or cannot be switched here; the message says where and the way out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One forced state: a key or pattern, `UP` or `DOWN`, its line, and whether this tool wrote it."""

    key: str
    state: str
    line: int
    ours: bool

    def matches(self, key: str) -> bool:
        return self.key == key or fnmatchcase(key, self.key.replace("[^", "[!"))

    def __str__(self) -> str:
        return f"line {self.line} ({self.key} => {self.state})"


def parse(content: bytes) -> Sequence[Entry]:
    """The entries in their order. Raises Unclear where gdnsd would not take the file, or it includes another."""
    entries: dict[str, Entry] = {}
    ours = {at for at, line in enumerate(content.split(b"\n"), 1) if _OURS.fullmatch(line)}
    tokens = _tokens(content)
    for line, key in tokens:
        found = [next(tokens, (line, "")), next(tokens, (line, ""))]
        state = found[1][1]
        if found[0][1] != "=" or not _VALUE.fullmatch(state):
            raise Unclear(f"line {line} cannot be understood: a state is written as KEY => DOWN")
        if key in entries:
            raise Unclear(f"line {line} has {key} a second time, for which gdnsd ignores the whole file")
        entries[key] = Entry(key, state.partition("/")[0], line, line in ours)
    return list(entries.values())


def switched(entries: Sequence[Entry], regions: Mapping[str, Sequence[str]]) -> Mapping[str, bool]:
    """Whether each of `regions`, given by its keys, is on: not all of its keys are forced down. Raises Unclear."""
    found = {}
    for region, keys in regions.items():
        last = {key: next((each for each in reversed(entries) if each.matches(key)), None) for key in keys}
        for key, entry in last.items():
            if entry and entry.state == "UP":
                raise Unclear(
                    f"{entry} forces {key} up, and failover did not write it; remove it to have it switched"
                )
        down = [key for key, entry in last.items() if entry]
        up = [key for key, entry in last.items() if not entry]
        if up and any(entry and entry.ours for entry in last.values()):
            raise Unclear(f"only a part of {region} is forced down: {', '.join(down)}, but not {', '.join(up)}")
        found[region] = bool(up)
    return found


def holding(entries: Sequence[Entry], keys: Collection[str]) -> Sequence[Entry]:
    """The entries of other people that force any of `keys`."""
    return [entry for entry in entries if not entry.ours and any(entry.matches(key) for key in keys)]


def rewritten(content: bytes, down: Collection[str], free: Collection[str]) -> bytes:
    """`content` with this tool's lines for `down` added and those for `free` removed; all else stays as it is.

    A key that somebody else's line names exactly gets none: it would stand there twice. A last line without a newline
    gets one where something is added, since gdnsd ignores a file that ends within a comment.
    """
    kept = [line for line in re.findall(rb"[^\n]*\n|[^\n]+", content) if not _free(line, free)]
    named = {entry.key for entry in parse(content)}
    new = [f"{key} => DOWN # set by failover\n".encode() for key in down if key not in named]
    if new and kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\n"
    return b"".join([*kept, *new])


def _free(line: bytes, free: Collection[str]) -> bool:
    own = _OURS.fullmatch(line.rstrip(b"\n"))
    return own is not None and own[1].decode() in free


def _tokens(content: bytes) -> Iterator[tuple[int, str]]:
    at, line = 0, 1
    while at < len(content):
        found = _TOKEN.match(content, at)
        if found is None or found[0].startswith(b"$"):
            words = content[at:].split(b"\n")[0][:40].decode(errors="replace")
            raise Unclear(f"line {line} cannot be understood from '{words}' on")
        if found["skip"] and found[0][:1] in b"#;" and found.end() == len(content):
            raise Unclear(f"line {line} is a comment without a newline at the end of the file, which gdnsd ignores")
        if found["arrow"]:
            yield line, "="
        elif found["text"]:
            text = found["text"]
            bare = text[1:-1] if text.startswith(b'"') else text
            yield line, _ESCAPE.sub(_character, bare).decode(errors="surrogateescape")
        line += found[0].count(b"\n")
        at = found.end()


def _character(found: re.Match[bytes]) -> bytes:
    text = found[1]
    return bytes([int(text) & 255]) if len(text) == 3 else text
