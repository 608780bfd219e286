"""YAML as the product reads it: values, places, every refusal in words, and bounds that hostile files meet."""

import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import example, given
from hypothesis import strategies as st

from failover import yaml
from failover.errors import Invalid
from failover.yaml import MAX_BYTES, MAX_DIGITS, MAX_NODES, MAX_PROBLEMS, Map, Mark, Seq

PARSERS = [pyyaml.SafeLoader] + ([pyyaml.CSafeLoader] if hasattr(pyyaml, "CSafeLoader") else [])


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.__name__)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "_Parser", request.param)


def read(text: str | bytes) -> Map:
    return yaml.parse(text, "f").root


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(Invalid) as refused:
        yaml.parse(text, "f")
    return [str(problem).removeprefix("f:") for problem in refused.value.problems]


SCALARS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "nULL": "nULL",
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False, "tRUE": "tRUE",
    "yes": "yes", "no": "no", "on": "on", "off": "off", "y": "y", "n": "n", "=": "=",
    "0": 0, "12": 12, "-12": -12, "+12": 12, "010": 10, "0o17": 15, "0x1F": 31, "0xfg": "0xfg", "0o8": "0o8",
    "-0x1": "-0x1", "0b1": "0b1", "1_000": "1_000", "1,000": "1,000", "22:30": "22:30", "22:30:15": "22:30:15",
    "2024-01-01": "2024-01-01", "1.2.3": "1.2.3", "10.0.0.1": "10.0.0.1", "+": "+", ".": ".",
    "1.5": 1.5, ".5": 0.5, "5.": 5.0, "-.5": -0.5, "1e3": 1000.0, "1E-3": 0.001, "+1.5e+3": 1500.0, "e3": "e3",
    "inf": "inf", "nan": "nan", "٣": "٣",
    "'12'": "12", '"true"': "true", "''": "", '"a\\tb"': "a\tb", '"\\u00e9\\0"': "é\0",
    "|\n  12\n": "12\n", ">-\n  a\n  b\n": "a b", "a # b": "a", "a#b": "a#b",
    "[]": [], "{}": {}, "[1, a, [b]]": [1, "a", ["b"]], "{b: 1, c: }": {"b": 1, "c": None},
    "\n- 1\n- b: 2": [1, {"b": 2}],
}  # fmt: skip


def same(left: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return isinstance(left, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in right)
    if isinstance(right, list):
        return isinstance(left, list) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("source", SCALARS)
def test_scalars_mean_what_yaml_1_2_says(source: str) -> None:
    found = read(f"a: {source}")["a"]
    assert same(found, SCALARS[source]), found


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "on: 1\n80: 2\ntrue: 3\nnull: 4\n1.5: 5\n~: 6\n",
            {"on": 1, "80": 2, "true": 3, "null": 4, "1.5": 5, "~": 6},
        ),
        ("'<<': 1", {"<<": 1}),
        ("? a\n: 1", {"a": 1}),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        (b"\xef\xbb\xbfa: \xc3\xa9", {"a": "é"}),
        ("a: 1\r\nb: 2\rc: 3", {"a": 1, "b": 2, "c": 3}),
        ("a: &x [1, {b: 2}]\nc: *x\nd: [*x, *x]", {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": [[1, {"b": 2}]] * 2}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: &x [&x 1, *x]\nb: *x", {"a": [1, 1], "b": 1}),
        ("&k 80: 1\nb: *k", {"80": 1, "b": "80"}),
    ],
)
def test_documents(text: str | bytes, value: dict[str, Any]) -> None:
    assert same(read(text), value)


def test_an_alias_shares_the_object_of_its_anchor() -> None:
    root = read("a: &x [1]\nb: *x")
    assert root["a"] is root["b"]
    assert root.values_at == {"a": (1, 4), "b": (2, 4)}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1  the file must hold a mapping (key: value) at its top"]),
        ("# nothing\n", ["1:1  the file must hold a mapping (key: value) at its top"]),
        ("\n - a", ["2:2  the file must hold a mapping (key: value) at its top"]),
        ("a: 1\nb: 2\na: 3\nb: 4", [
            "3:1  duplicate key 'a'; the first is on line 1", "4:1  duplicate key 'b'; the first is on line 2"]),
        ("80: 1\n'80': 2", ["2:1  duplicate key '80'; the first is on line 1"]),
        ("a: {b: 1, b: {c: 1, c: 2}}", [
            "1:11  duplicate key 'b'; the first is on line 1", "1:21  duplicate key 'c'; the first is on line 1"]),
        ('"\\e[2J": 1\n"\\e[2J": 2', ["2:1  duplicate key '\\x1b[2J'; the first is on line 1"]),
        ("a: &x {b: 1}\nc:\n  <<: *x", ["3:3  merge keys ('<<') are not allowed; write the keys out"]),
        ("a: !!python/object:os.system x\nb: !foo\nc: !!str d\nd: ! 1\ne: !foo [1]\nf: !!map {}", [
            "1:4  tags are not allowed; remove '!!python/object:os.system'",
            "2:4  tags are not allowed; remove '!foo'",
            "3:4  tags are not allowed; remove '!!str'", "4:4  tags are not allowed; remove '!'",
            "5:4  tags are not allowed; remove '!foo'", "6:4  tags are not allowed; remove '!!map'"]),
        ("%TAG !a! b\n---\na: 1", ["1:1  tags are not allowed; remove the %TAG directive"]),
        ("a: *x", ["1:4  the alias '*x' has no anchor above it"]),
        ("a: &x [*x]", ["1:8  the alias '*x' is used within itself"]),
        ("a: {{ x }}", ["1:5  a key must be a string; write it out, or quote it"]),
        ("? [a]\n: 1", ["1:3  a key must be a string; write it out, or quote it"]),
        ("a: &x b\n*x : c", ["2:1  a key must be a string; write it out, or quote it"]),
        ("a: .inf\nb: -.INF\nc: .nan", [
            f"{n}:4  {w} is not a number to work with; quote it if it is a word"
            for n, w in ((1, ".inf"), (2, "-.INF"), (3, ".nan"))]),
        ("a: 1e400", ["1:4  this number is too large; quote it if it is a word"]),
        ("a: 1\n---\nb: 1", ["2:1  only one document a file is allowed; split the file here"]),
        ("a: b\0", ["1:5  the character U+0000 is not allowed; remove it, or escape it in double quotes"]),
        ("é: \x1b\nb: \u2028\nc: \ufeff\nd: \x85", [
            f"{n}  the character U+{c} is not allowed; remove it, or escape it in double quotes"
            for n, c in (("1:4", "001B"), ("2:4", "2028"), ("3:4", "FEFF"), ("4:4", "0085"))]),
        (b"a: 1\n\xc3\xa9: \xff", ["2:4  the byte 0xFF is not UTF-8; save the file as UTF-8"]),
        ("a:\n\t- b", ["2:1  a tab cannot indent; use spaces"]),
        ("a:\n  b: 1\n\tc: 2", ["3:1  a tab cannot indent; use spaces"]),
        ("a: b: c", ["1:5  ':' cannot stand here; check the indentation, or quote the value"]),
        ("a: - b", ["1:4  '-' cannot stand here; check the indentation, or quote the value"]),
        ("a: 1\nfoo\nb: 2", ["2:1  this key lacks its ':'"]),
        ("a: 1\nb: 'x\n", ["2:4  this quote is never closed"]),
        ("a: 'x\n---\n'", ["2:1  a quote that opens on line 1 is not closed before the document ends"]),
        ("a: [1, 2\nb: 3", ["2:2  what opens on line 1 lacks a ',' or its closing bracket"]),
        ("a: {b: 1\n", ["1:4  what opens on line 1 lacks a ',' or its closing bracket"]),
        ("a:\n  - 1\n b: 2", ["3:2  this does not continue what starts on line 1; check indentation and quotes"]),
        ("a: 'it's'", ["1:8  this does not continue what starts on line 1; check indentation and quotes"]),
        ("a: @x", ["1:4  a value cannot start with '@'; quote it"]),
        ("a: ]", ["1:4  expected a value, not ']'; quote it if it is one"]),
        ("a: *.log", ["1:5  '*' and '&' start an alias or an anchor; quote the value"]),
        ("a: | x\n", ["1:6  nothing but a comment may follow '|' or '>' on its line"]),
        ("{a: 1} b", ["1:8  the document has ended above; check the indentation"]),
        ("a: !x!y z", ["1:4  tags are not allowed; remove it, or quote the value"]),
        ("%YAML 3.0\n---\na: 1", ["1:1  this is not valid YAML here; quote the value"]),
        ("a: 1\na: 2\nb: !t c\nd: [", [
            "2:1  duplicate key 'a'; the first is on line 1", "3:4  tags are not allowed; remove '!t'",
            "4:4  expected a value, not the end of the file; quote it if it is one"]),
    ],
)  # fmt: skip
def test_every_mistake_has_its_place_and_words(text: str | bytes, expected: list[str]) -> None:
    assert mistakes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a: "\\q"', ["1:5  this escape is unknown; write '\\\\' for a backslash, or use single quotes"]),
        ('a: "\\ud800"', ["1:7  this escape is unknown; write '\\\\' for a backslash, or use single quotes"]),
        ('a: "\\xZZ"', ["1:7  this escape lacks digits; write '\\\\' for a backslash, or use single quotes"]),
        ("%FOO\n---\na: 1", ["1:5  directives are not allowed; remove this line"]),
    ],
)
@pytest.mark.skipif(not hasattr(pyyaml, "CSafeLoader"), reason="the pure parser is laxer here")
def test_mistakes_that_libyaml_sees(text: str, expected: list[str]) -> None:
    assert mistakes(text) == expected


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text", ['a: "\\U00110000"', 'a: "\\UFFFFFFFF"', "%YAML 1." + "9" * 5000 + "\n---\na: 1", "a: !%80 b"]
)
def test_slips_of_the_parsers_are_refused_too(text: str) -> None:
    assert len(mistakes(text)) == 1


DOCUMENT = """\
# héllo
é\tü: "ñ: \\" x"   # c
steps:
  - {id: s1, wait: 0s}
  - id: two words
    list:\t[ a b, -1.5, 'it''s' ]
    none:
"""


@pytest.mark.parametrize(
    ("loc", "key", "mark", "width"),
    [
        ((), False, (2, 1), 1),
        (("é\tü",), True, (2, 1), 3),
        (("é\tü",), False, (2, 6), 9),
        (("steps",), True, (3, 1), 5),
        (("steps",), False, (4, 3), 1),
        (("steps", 0), False, (4, 5), 1),
        (("steps", 0, "wait"), True, (4, 14), 4),
        (("steps", 0, "wait"), False, (4, 20), 2),
        (("steps", 1, "id"), False, (5, 9), 9),
        (("steps", 1, "list"), False, (6, 11), 1),
        (("steps", 1, "list", 0), False, (6, 13), 3),
        (("steps", 1, "list", 1), True, (6, 18), 4),
        (("steps", 1, "list", 2), False, (6, 24), 7),
        (("steps", 1, "none"), False, (7, 10), 1),
        (("steps", 1, "nowhere", "at all"), True, (5, 5), 2),
        (("steps", 7), False, (4, 3), 1),
        (("steps", -1), False, (4, 3), 1),
        (("steps", "id"), False, (4, 3), 1),
        (("é\tü", 0), False, (2, 6), 9),
        (("nowhere",), True, (2, 1), 1),
    ],
)
def test_places(loc: tuple[str | int, ...], key: bool, mark: tuple[int, int], width: int) -> None:
    document = yaml.parse(DOCUMENT, "f")
    assert document.mark(loc, key=key) == Mark(*mark)
    problem = document.problem(loc, "words", key=key)
    assert (problem.file, problem.line, problem.column, problem.message) == ("f", *mark, "words")
    assert (problem.source, problem.width) == (DOCUMENT.split("\n")[mark[0] - 1], width)


def test_a_refusal_shows_its_line_without_what_would_disturb_a_terminal() -> None:
    with pytest.raises(Invalid) as refused:
        yaml.parse("ab: 1\nab: 2 # \x1b[2J", "f")
    assert [(p.source, p.width) for p in refused.value.problems] == [("ab: 2 # \ufffd[2J", 1)]
    with pytest.raises(Invalid) as refused:
        yaml.parse("a b: 1\na b: 2", "f")
    assert [(p.source, p.width) for p in refused.value.problems] == [("a b: 2", 3)]


BOUNDS = {
    "digits": ("a: " + "9" * MAX_DIGITS, "a: -1" + "0" * MAX_DIGITS),
    "hexadecimal": ("a: 0x" + "F" * 3500, "a: 0x" + "F" * 4200),
    "depth": ("a: " + "[" * 63 + "]" * 63, "a: " + "[" * 64 + "]" * 64),
    "depth of an alias": (
        "a: &x " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 23 + "*x" + "]" * 23,
        "a: &x " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 24 + "*x" + "]" * 24,
    ),
    "values": ("a: [" + "1," * (MAX_NODES - 3) + "]", "a: [" + "1," * (MAX_NODES - 2) + "]"),
    "values of aliases": (
        "a: &x [" + "1," * 9_998 + "]\nb: [" + "1," * 14 + "]\nc: [" + "*x," * 19 + "]",
        "a: &x [" + "1," * 9_998 + "]\nb: [" + "1," * 15 + "]\nc: [" + "*x," * 19 + "]",
    ),
    "bytes": ("a: 1 #" + "é" * ((MAX_BYTES - 6) // 2), "a: 1 #" + "é" * ((MAX_BYTES - 4) // 2)),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_hold_to_the_last_one(bound: str) -> None:
    most, more = BOUNDS[bound]
    str(read(most.encode()))
    assert len(mistakes(more.encode())) == 1


HOSTILE: dict[str, str | bytes] = {
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    "chain of aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 50_000)),
    "lists": "[" * 100_000,
    "lists on lines": "[\n" * 100_000,
    "dashes": "- " * 100_000,
    "mappings": "{a: " * 100_000,
    "question marks": "? " * 100_000,
    "recursion": "a: &a {b: *a, c: [*a]}",
    "tags": "a: !!python/object/apply:os.system [x]\n" * 50_000,
    "tag directives": "".join(f"%TAG !a{n}! b\n" for n in range(200_000)) + "---\na: 1",
    "duplicates on a line": "{" + "a: 1, " * 150_000 + "}",
    "NUL": "a: 1\n" + "\0" * 4_000_000,
    "binary": bytes(range(256)) * 16_000,
    "UTF-16": "a: 1\n".encode("utf-16") * 1000,
    "surrogates": "a: \ud800",
    "huge integer": "a: " + "9" * 4_000_000,
    "huge octal": "a: 0o" + "7" * 4_000_000,
    "huge exponent": "a: 1e" + "9" * 4_000_000,
    "near number": "a: " + "1" * 4_000_000 + "x\na: 1",
    "long key": "k" * 4_000_000 + ": 1",
    "long quote": "a: '" + "''" * 2_000_000,
    "long line": "a: [" + "'x y', " * 100_000 + "!t z]",
    "blank lines": "\n" * 4_000_000 + "a: @",
    "many values": "a: [" + "," * 5 + "1," * 1_000_000 + "]",
    "too large": "a" * 50_000_000,
}

REFUSE = """
import resource, sys
from pathlib import Path
from failover import yaml
from failover.errors import Invalid
base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (base + 400 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
try:
    yaml.load(Path(sys.argv[1]))
except Invalid as refused:
    assert len(refused.problems) <= 101 and len(str(refused)) < 100_000, len(str(refused))
    print("refused", refused.problems[0])
"""


def refused_in_a_child(path: Path) -> str:
    child = subprocess.run(
        [sys.executable, "-c", REFUSE, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.stdout.startswith("refused"), child.stderr[-2000:]
    return child.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="bounds its child's memory by /proc and RLIMIT_AS")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_little_time_and_memory(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    path = tmp_path / "hostile.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    refused_in_a_child(path)


@pytest.mark.skipif(sys.platform != "linux", reason="bounds its child's memory by /proc and RLIMIT_AS")
@pytest.mark.parametrize("name", ["/dev/zero", "/dev/tty", "pipe", "directory", "missing", "a\0b", "sparse"])
def test_what_is_no_file_to_read_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    if "\0" in name:
        with pytest.raises(Invalid, match="cannot be read"):
            yaml.load(tmp_path / name)
    else:
        assert name in refused_in_a_child(tmp_path / name)


def test_load_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(Invalid) as refused:
        yaml.load(path)
    assert (
        str(refused.value) == f"{path}  cannot be read: No such file or directory; check the path and its permissions"
    )
    path.write_text("a: 1\nb: [é]\n", encoding="utf-8")
    document = yaml.load(path)
    assert (document.name, document.text, document.root) == (str(path), "a: 1\nb: [é]\n", {"a": 1, "b": ["é"]})


def test_problems_are_counted_out() -> None:
    found = mistakes("a: 1\n" * 1000)
    assert len(found) == MAX_PROBLEMS + 1
    assert sum("too many problems" in line for line in found) == 1


class Quoting(pyyaml.SafeDumper):
    """Quotes every string, as a program that writes YAML for us would."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
Quoting.ignore_aliases = lambda *_: True  # type: ignore[method-assign]

texts = st.text(st.characters(exclude_categories=["Cs"]))
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)
pieces = [*"ab1:-?[]{},#&*!|>'\"%@` \t\n\r\\.<~é\ufeff\u2028\0", "- ", ": ", "---", "\n  "]
soups = st.lists(st.sampled_from(pieces), max_size=40).map("".join)


@given(st.dictionaries(texts, jsons, max_size=5), st.sampled_from([True, False, None]))
def test_what_is_dumped_reads_back_equal(value: dict[str, Any], flow: bool | None) -> None:
    assert same(read(pyyaml.dump(value, Dumper=Quoting, default_flow_style=flow)), value)


def marks(node: Any) -> list[Mark]:
    if isinstance(node, Map):
        own = [node.at, *node.keys_at.values(), *node.values_at.values()]
        assert node.keys() == node.keys_at.keys() == node.values_at.keys()
        return own + [mark for value in node.values() for mark in marks(value)]
    if isinstance(node, Seq):
        assert len(node) == len(node.items_at)
        return [node.at, *node.items_at] + [mark for value in node for mark in marks(value)]
    return []


@pytest.mark.parametrize("loader", PARSERS)
@given(text=soups | st.text(string.printable) | st.text() | st.binary())
@example(text="a: [")
@example(text="---")
@example(text="%YAML 1.1")
@example(text="a:\n\n\n")
def test_any_text_is_read_or_refused_and_every_place_lies_within_it(loader: Any, text: str | bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "_Parser", loader)
        decoded = text.decode(errors="replace") if isinstance(text, bytes) else text
        lines = decoded.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        try:
            found = marks(yaml.parse(text, "f").root)
        except Invalid as refused:
            found = [Mark(problem.line, problem.column) for problem in refused.problems]
            assert found
        for line, column in found:
            assert 1 <= line <= len(lines)
            assert 1 <= column <= len(lines[line - 1]) + 1
