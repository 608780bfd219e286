"""Runbooks resolved: order, loops, calls, and what is filled in."""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover import registry, resolution
from failover.errors import Invalid, Usage
from failover.inputs import Input, Names, convert, read, sample
from failover.runbook import Runbook
from failover.substitute import substitute
from failover.topology import Topology
from failover.yaml import Document, parse
from tests.files import test_files as files

TOPOLOGY = files.topology()
NAMES = Names.of(TOPOLOGY)
BUNDLED = registry.FileLibrary().folders[-1]


class Shelf:
    """Runbooks in memory, by their names."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.opened: list[str] = []

    def names(self) -> Iterable[str]:
        return self.texts

    def open(self, name: str) -> Document:
        self.opened.append(name)
        return parse(self.texts[name], f"{name}.yaml")


def resolve(text: str, given: Mapping[str, Any] | None = None, **others: str) -> Runbook:
    head = "" if text.startswith(("runbook:", "inputs:")) else "steps:\n"
    name = "" if text.startswith("runbook:") else "runbook: main\n"
    return resolution.resolve(parse(f"{name}{head}{text}", "main.yaml"), given or {}, TOPOLOGY, Shelf(others))


def mistakes(text: str, given: Mapping[str, Any] | None = None, **others: str) -> list[str]:
    with pytest.raises(Invalid) as refused:
        resolve(text, given, **others)
    return [str(problem) for problem in refused.value.problems]


def order(found: Runbook) -> dict[str, list[str]]:
    return {step.id: list(step.after) for step in found.steps}


ORDERS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "each after the one above": (
        "- {id: a, wait: 1s}\n- {id: b, wait: 1s}\n- {id: c, wait: 1s}\n",
        {"a": [], "b": ["a"], "c": ["b"]},
    ),
    "ids by verb and place": (
        "- wait: 1s\n- check: {}\n- wait: 1s\n",
        {"wait-1": [], "check-2": ["wait-1"], "wait-3": ["check-2"]},
    ),
    "an id that is a number": ("- {id: 7, wait: 1s}\n- {needs: [7], wait: 1s}\n", {"7": [], "wait-2": ["7"]}),
    "needs instead of the one above": (
        "- {id: a, wait: 1s}\n- {id: b, wait: 1s}\n- {id: c, needs: [a], wait: 1s}\n",
        {"a": [], "b": ["a"], "c": ["a"]},
    ),
    "needs several": (
        "- {id: a, needs: [], wait: 1s}\n- {id: b, needs: [], wait: 1s}\n- {id: c, needs: [b, a, b], wait: 1s}\n",
        {"a": [], "b": [], "c": ["b", "a"]},
    ),
    "needs nothing": ("- {id: a, wait: 1s}\n- {id: b, needs: [], wait: 1s}\n", {"a": [], "b": []}),
    "the one above may have needs": (
        "- {id: a, wait: 1s}\n- {id: b, needs: [], wait: 1s}\n- {id: c, wait: 1s}\n",
        {"a": [], "b": [], "c": ["b"]},
    ),
    "a loop goes one by one": (
        "- {id: l, each: {x: [p, q]}, wait: 1s}\n- {id: z, wait: 1s}\n",
        {"l[p]": [], "l[q]": ["l[p]"], "z": ["l[q]"]},
    ),
    "a parallel loop ends with all of them": (
        "- {id: a, wait: 1s}\n- {id: l, each: {x: [p, q]}, parallel: true, wait: 1s}\n- {id: z, wait: 1s}\n",
        {"a": [], "l[p]": ["a"], "l[q]": ["a"], "z": ["l[p]", "l[q]"]},
    ),
    "all is every region": (
        "- {id: l, each: {x: all}, wait: 1s}\n",
        {"l[east]": [], "l[west]": ["l[east]"], "l[north]": ["l[west]"]},
    ),
    "a loop of several steps": (
        "- id: l\n  each: {x: [p, q]}\n  steps:\n    - {id: a, wait: 1s}\n    - wait: 1s\n- {id: z, wait: 1s}\n",
        {"l[p].a": [], "l[p].wait-2": ["l[p].a"], "l[q].a": ["l[p].wait-2"], "l[q].wait-2": ["l[q].a"],
         "z": ["l[q].wait-2"]},
    ),
    "needs inside a loop are its own": (
        "- id: l\n  each: {x: [p, q]}\n  parallel: true\n  steps:\n    - {id: a, wait: 1s}\n"
        "    - {id: b, needs: [], wait: 1s}\n    - {id: c, needs: [a], wait: 1s}\n- {id: z, wait: 1s}\n",
        {"l[p].a": [], "l[p].b": [], "l[p].c": ["l[p].a"], "l[q].a": [], "l[q].b": [], "l[q].c": ["l[q].a"],
         "z": ["l[p].b", "l[p].c", "l[q].b", "l[q].c"]},
    ),
    "a loop in a loop": (
        "- each: {x: [1, 2]}\n  parallel: true\n  steps:\n    - {id: i, each: {y: [true, 2.5]}, wait: 1s}\n",
        {"each-1[1].i[True]": [], "each-1[1].i[2.5]": ["each-1[1].i[True]"], "each-1[2].i[True]": [],
         "each-1[2].i[2.5]": ["each-1[2].i[True]"]},
    ),
    "an id with what the loop goes through": (
        "- id: l\n  each: {x: [p]}\n  steps:\n    - {id: \"${x}-a\", wait: 1s}\n    - {needs: [p-a], wait: 1s}\n",
        {"l[p].p-a": [], "l[p].wait-2": ["l[p].p-a"]},
    ),
    "several ends of the list are ends of the run": (
        "- {id: a, needs: [], wait: 1s}\n- {id: b, needs: [], wait: 1s}\n",
        {"a": [], "b": []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_steps(name: str) -> None:
    text, expected = ORDERS[name]
    assert order(resolve(text)) == expected


CALLED = """runbook: other
inputs: {region: region, hold: {type: duration, default: 5s}, note: {type: text, optional: true}}
steps:
  - {id: a, drain: {region: "${region}"}}
  - {id: b, needs: [], wait: "${hold}"}
  - {id: c, approve: "go${note}?"}
"""


def test_a_called_runbook_stands_in_place() -> None:
    text = (
        "inputs: {where: region}\nsteps:\n- {id: first, wait: 1s}\n"
        '- {id: call, runbook: {name: other, inputs: {region: "${where}", hold: 1min}}}\n- {id: last, wait: 1s}\n'
    )
    found = resolve(text, {"where": "west"}, other=CALLED)
    assert order(found) == {
        "first": [], "call.a": ["first"], "call.b": ["first"], "call.c": ["call.b"], "last": ["call.a", "call.c"],
    }  # fmt: skip
    drain, wait, approve = (step.spec for step in found.steps[1:4])
    assert (drain.region, wait.seconds, approve.message) == ("west", 60.0, "go?")
    assert [step.place for step in found.steps[:2]] == ["main.yaml:4", "other.yaml:4"]
    assert set(found.sources) == {"main", "other"}
    assert found.sources["other"] == ("other.yaml", CALLED)


def test_a_runbook_is_opened_once_however_often_it_is_called() -> None:
    shelf = Shelf({"other": CALLED})
    text = 'runbook: main\nsteps:\n- {id: l, each: {x: all}, runbook: {name: other, inputs: {region: "${x}"}}}\n'
    found = resolution.resolve(parse(text, "main.yaml"), {}, TOPOLOGY, shelf)
    assert len(found.steps) == 9
    assert shelf.opened == ["other"]
    assert [step.spec.region for step in found.steps[::3]] == ["east", "west", "north"]


def test_an_empty_optional_input_is_passed_on_as_empty() -> None:
    text = (
        "inputs: {note: {type: text, optional: true}}\nsteps:\n- runbook: {name: other, inputs: {region: east, note: "
    )
    assert resolve(text + '"${note}"}}\n', other=CALLED).steps[2].spec.message == "go?"
    assert resolve(text + '"${note}"}}\n', {"note": " on"}, other=CALLED).steps[2].spec.message == "go on?"


def test_a_call_that_goes_too_deep_says_the_way() -> None:
    others = {f"r{n}": f"runbook: r{n}\nsteps:\n- runbook: r{n + 1}\n" for n in range(1, 10)}
    [said] = mistakes("- runbook: r1\n", **others)
    assert said.startswith("r7.yaml:3:12  runbooks call each other more than 8 deep: main → r1 → r2")


FILLED: dict[str, tuple[Any, Any]] = {
    "text": ("a ${word} b", "a east b"),
    "text alone": ("${word}", "east"),
    "whole number": ("${number}", 3),
    "number in a text": ("${number}s", "3s"),
    "fraction in a text": ("${share}", 2.5),
    "boolean": ("${yes}", True),
    "boolean in a text": ("it is ${yes}", "it is true"),
    "list": ("${list}", ["a", "b"]),
    "two": ("${word}${number}", "east3"),
    "plain": ("$${word}", "${word}"),
    "plain and filled": ("$${word} ${word}", "${word} east"),
    "dollars": ("$5 $word $", "$5 $word $"),
    "not text": ([1, None, True, {"a": 2.5}], [1, None, True, {"a": 2.5}]),
    "inside": ({"a": ["${word}", {"b": "${number}"}]}, {"a": ["east", {"b": 3}]}),
    "a key": ({"${word}": 1, "$${x}": 2}, {"east": 1, "${x}": 2}),
    "filled in once only": ("${tricky}", "${word}"),
    "filled in once only in a text": ("-${tricky}", "-${word}"),
}
VALUES = {
    "word": "east", "number": 3, "share": 2.5, "yes": True, "list": ["a", "b"], "map": {}, "tricky": "${word}",
}  # fmt: skip


@pytest.mark.parametrize("name", FILLED)
def test_what_is_filled_in(name: str) -> None:
    value, expected = FILLED[name]
    found = substitute(value, VALUES, lambda loc, said: pytest.fail(f"{loc}: {said}"))
    assert found == expected
    assert type(found) is type(expected)


UNFILLED: dict[str, tuple[Any, list[tuple[tuple[str | int, ...], str]]]] = {
    "unknown": ("${wrod}", [((), "'${wrod}' is not known here; did you mean 'word'?")]),
    "inside": ({"a": ["x", "${wrod}"]}, [(("a", 1), "'${wrod}' is not known here; did you mean 'word'?")]),
    "list in a text": ("a ${list}", [((), "'${list}' is a list and cannot stand inside a text; write it alone")]),
    "mapping in a text": ("${map}!", [((), "'${map}' is a mapping and cannot stand inside a text; write it alone")]),
    "open": ("${word", [((), "this '${' is never closed; add the '}', or write '$${' for a plain '${'")]),
    "the same key twice": (
        {"east": 1, "${word}": 2},
        [(("${word}",), "'east' stands here twice, once by way of '${…}'")],
    ),
}


@pytest.mark.parametrize("name", UNFILLED)
def test_what_cannot_be_filled_in(name: str) -> None:
    value, expected = UNFILLED[name]
    found: list[tuple[tuple[str | int, ...], str]] = []
    substitute(value, VALUES, lambda loc, said: found.append((loc, said)))
    assert found == expected


@given(st.text("${}ab", max_size=12), st.dictionaries(st.sampled_from("ab"), st.text("${}ab", max_size=5)))
def test_substitution_ends_and_complains_or_fills(text: str, names: dict[str, str]) -> None:
    said: list[str] = []
    filled = substitute(text, names, lambda _, message: said.append(message))
    assert isinstance(filled, str)
    if not said and "${" in text.replace("$${", ""):
        assert any("${" + name + "}" in text for name in names)


def test_numbers_that_are_filled_in_become_text_where_text_is_wanted() -> None:
    text = (
        "inputs: {n: number, yes: boolean}\nsteps:\n"
        '- command: {argv: [scale, "${n}", "${yes}"], repeatable: "${yes}"}\n'
        '- approve: "${n}"\n- shift: {services: web, weights: {east: "${n}"}}\n'
    )
    command, approve, shift = (step.spec for step in resolve(text, {"n": "3", "yes": "true"}).steps)
    assert (command.argv, command.repeatable) == (("scale", "3", "true"), True)
    assert approve.message == "3"
    assert shift.weights == {"east": 3}


def test_a_loop_fills_in_its_value() -> None:
    text = '- {each: {site: [east, west]}, shift: {services: all, weights: {"${site}": 10}}}\n'
    assert [step.spec.weights for step in resolve(text).steps] == [{"east": 10}, {"west": 10}]


CONVERTED: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "region"}, "west", "west"),
    ({"type": "regions"}, "west,east", ["west", "east"]),
    ({"type": "regions"}, " west , east", ["west", "east"]),
    ({"type": "regions"}, "all", ["east", "west", "north"]),
    ({"type": "regions"}, ["north"], ["north"]),
    ({"type": "service"}, "web", "web"),
    ({"type": "services"}, "all", ["web", "api"]),
    ({"type": "database"}, "ledger", "ledger"),
    ({"type": "databases"}, "orders", ["orders"]),
    ({"type": "text"}, "a, b", "a, b"),
    ({"type": "text"}, "", ""),
    ({"type": "text"}, 5, "5"),
    ({"type": "text"}, True, "true"),
    ({"type": "number"}, "5", 5),
    ({"type": "number"}, "-2.5", -2.5),
    ({"type": "number"}, 2.5, 2.5),
    ({"type": "boolean"}, "true", True),
    ({"type": "boolean"}, "false", False),
    ({"type": "boolean"}, False, False),
    ({"type": "duration"}, "1h 30m", "1h 30m"),
    ({"type": "duration"}, 0, 0),
    ({"type": "choice", "of": ("a", "b")}, "b", "b"),
    ({"type": "command"}, ["make", "it"], ["make", "it"]),
]


@pytest.mark.parametrize(("declared", "value", "expected"), CONVERTED)
def test_inputs_are_converted(declared: dict[str, Any], value: Any, expected: Any) -> None:
    found = convert(Input(**declared), value, NAMES)
    assert found == expected
    assert type(found) is type(expected)
    assert sample(Input(**declared, default=value), NAMES) == value
    assert convert(Input(**declared), sample(Input(**declared), NAMES), NAMES) is not None


REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({"type": "region"}, "esat", "region 'esat' is not declared; did you mean 'east'?"),
    ({"type": "region"}, "", "region '' is not declared; known: east, north, west"),
    ({"type": "region"}, ["east"], "the name of a region is expected"),
    ({"type": "regions"}, "east,wset", "region 'wset' is not declared; did you mean 'west'?"),
    ({"type": "regions"}, "east,east", "'east' is named twice"),
    ({"type": "regions"}, "", "regions are expected: a list of names, or the word all"),
    ({"type": "regions"}, 5, "regions are expected: a list of names, or the word all"),
    ({"type": "regions"}, "all,east", "region 'all' is not declared; known: east, north, west"),
    ({"type": "services"}, ["web", 5], "the name of a service is expected"),
    ({"type": "service"}, "wbe", "service 'wbe' is not declared; did you mean 'web'?"),
    ({"type": "database"}, "order", "database 'order' is not declared; did you mean 'orders'?"),
    ({"type": "text"}, ["a"], "text is expected, not a list"),
    ({"type": "number"}, "five", "'five' is not a number"),
    ({"type": "number"}, "inf", "'inf' is not a number"),
    ({"type": "number"}, "nan", "'nan' is not a number"),
    ({"type": "number"}, True, "true is not a number"),
    ({"type": "boolean"}, "yes", "'yes' is neither true nor false"),
    ({"type": "duration"}, "5", "5 has no unit; write 5s, 5min or 5h"),
    ({"type": "duration"}, "soon", "'soon' is not a duration; write it like 250ms, 30s, 2min, 1h or 7d"),
    ({"type": "duration"}, "9" * 400 + "d", f"'{'9' * 59}…' is longer than ten years"),
    ({"type": "choice", "of": ("staged", "immediate")}, "stagd",
     "'stagd' is not one of staged, immediate; did you mean 'staged'?"),
    ({"type": "command"}, "make it",
     "a command is a list of words, like [make, deploy]; on the command line, put it after --"),
    ({"type": "command"}, [],
     "a command is a list of words, like [make, deploy]; on the command line, put it after --"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "value", "said"), REFUSED)
def test_inputs_are_refused_in_words(declared: dict[str, Any], value: Any, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        convert(Input(**declared), value, NAMES)
    assert str(refused.value) == said


def test_everything_wrong_with_the_inputs_is_said_at_once() -> None:
    text = (
        "runbook: evacuate\ninputs:\n  region: {type: region, summary: the region to leave}\n  hold: duration\n"
        '  others: {type: regions}\n  spare: {type: region, optional: true}\nsteps:\n- wait: "${hold}"\n'
    )
    with pytest.raises(Usage) as refused:
        resolve(text, {"hold": "5", "regoin": "east"})
    assert str(refused.value).splitlines() == [
        "runbook 'evacuate' has no input 'regoin'; did you mean 'region'?",
        "runbook 'evacuate' needs the input 'region' (the region to leave): -i region=east",
        "input 'hold' of runbook 'evacuate': 5 has no unit; write 5s, 5min or 5h",
        "runbook 'evacuate' needs the input 'others': -i others=east,west,north",
        "  next: failover show evacuate lists its inputs",
    ]
    assert refused.value.exit_code == 2


def test_defaults_and_optional_inputs() -> None:
    declared = {
        "a": Input(type="regions", default="all"),
        "b": Input(type="text", optional=True),
        "c": Input(type="region", optional=True, default="west"),
        "d": Input(type="duration", default="5s"),
    }
    assert read(declared, {}, NAMES, "r") == {"a": ["east", "west", "north"], "b": "", "c": "west", "d": "5s"}
    assert read(declared, {"b": None, "d": "1s"}, NAMES, "r")["d"] == "1s"


def test_a_mistake_of_the_file_comes_before_one_of_the_inputs() -> None:
    assert mistakes("inputs: {region: regoin}\nsteps:\n- wait: 1\n", {"region": "nowhere"}) == [
        "main.yaml:2:18  'regoin' is not one of region, regions, service, services, database, databases, text, "
        "number, boolean, duration, choice, command; did you mean 'region'?",
        "main.yaml:4:9  1 has no unit; write 1s, 1min or 1h",
    ]


def test_a_wrong_value_of_an_input_is_said_where_it_is_used() -> None:
    text = (
        "inputs: {pause: text, where: {type: text, default: west}}\nsteps:\n"
        '- wait: "${pause}"\n- drain: {region: "${where}"}\n'
    )
    document = parse("runbook: main\n" + text, "main.yaml")
    resolution.validate(document, TOPOLOGY, Shelf({}))
    assert len(resolution.resolve(document, {"pause": "3s"}, TOPOLOGY, Shelf({})).steps) == 2
    assert mistakes(text, {"pause": "a while", "where": "esat"}) == [
        "main.yaml:4:9  'a while' is not a duration; write it like 250ms, 30s, 2min, 1h or 7d",
        "main.yaml:5:19  region 'esat' is not declared in failover.yaml; did you mean 'east'?",
    ]


def test_a_loop_over_what_there_is_none_of_makes_no_steps() -> None:
    text = (
        "runbook: main\ninputs: {databases: {type: databases, default: all}}\nsteps:\n- {id: a, wait: 1s}\n"
        '- {each: {db: "${databases}"}, promote: {databases: "${db}", to: blue}}\n- {id: z, wait: 1s}\n'
    )
    topology = files.open_topology(files.HERE / "valid" / "topologies" / "services-only.yaml")
    found = resolution.resolve(parse(text, "main.yaml"), {}, topology, Shelf({}))
    assert order(found) == {"a": [], "z": ["a"]}


def test_too_many_steps() -> None:
    loop = "- {each: {x: [%s]}, wait: 1s}\n"
    assert len(resolve(loop % ",".join(map(str, range(20_000)))).steps) == 20_000
    [said] = mistakes(loop % ",".join(map(str, range(20_001))))
    assert said.startswith("main.yaml:3:")
    assert said.endswith("  this makes more than 20,000 steps; split the runbook")


SHAPES = sorted((files.HERE / "valid" / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", [path.stem for path in sorted(BUNDLED.glob("*.yaml"))])
def test_the_bundled_runbooks_fit_every_topology(shape: Path, name: str) -> None:
    topology: Topology = files.open_topology(shape)
    library = registry.FileLibrary()
    found = resolution.validate(library.open(name), topology, library)
    assert found.name == name
    assert found.summary
    assert found.steps
    ids = [step.id for step in found.steps]
    assert len(set(ids)) == len(ids)
    for index, step in enumerate(found.steps):
        assert set(step.after) <= set(ids[:index])


def test_what_a_run_recorded_resolves_to_the_same_steps() -> None:
    library = registry.FileLibrary()
    inputs = {"region": "east"}
    first = resolution.resolve(library.open("game-day"), inputs, TOPOLOGY, library)
    recorded = registry.RecordedLibrary(first.sources)
    assert set(recorded.names()) == {"game-day", "evacuate-region", "restore-region"}
    assert resolution.resolve(recorded.open("game-day"), inputs, TOPOLOGY, recorded).steps == first.steps


blocks = st.recursive(
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 5))), min_size=1, max_size=5),
    lambda inner: st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 5)), inner), min_size=1, max_size=3),
    max_leaves=8,
)


def written(block: list[Any], loop: int = 0) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for index, (above, needs, *inner) in enumerate(block):
        item: dict[str, Any] = {"id": f"s{index}"}
        if not above:
            item["needs"] = [f"s{need}" for need in sorted(needs) if need < index]
        if inner:
            item.update({"each": {f"x{loop}": ["p", "q"]}, "parallel": above, "steps": written(inner[0], loop + 1)})
        else:
            item["wait"] = "1s"
        items.append(item)
    return items


@settings(deadline=None)
@given(blocks)
def test_whatever_its_needs_a_runbook_is_ordered_and_whole(block: list[Any]) -> None:
    import yaml

    steps = resolve(yaml.safe_dump({"runbook": "main", "steps": written(block)})).steps
    done: set[str] = set()
    for step in steps:
        assert set(step.after) <= done
        assert step.id not in done
        done.add(step.id)
    flat = yaml.safe_dump({"runbook": "main", "steps": [*written(block), {"id": "z", "wait": "1s"}]})
    after = next(step for step in resolve(flat).steps if step.id == "z").after
    assert after
    assert set(after) <= done


MANY = """
import resource, sys
from pathlib import Path
from failover import registry, resolution
from failover.yaml import load, parse
top = registry.open_estate(load(Path(sys.argv[1]))).topology
text = "runbook: r\\nsteps:\\n" + "".join(f"- id: s{n}\\n  wait: 1s\\n" for n in range(10_000))
base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (base + 100 * 2**20,) * 2)
print(len(resolution.resolve(parse(text, "r.yaml"), {}, top, registry.FileLibrary()).steps))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds its child's memory by /proc and RLIMIT_AS")
def test_ten_thousand_steps_fit_into_little_memory() -> None:
    child = subprocess.run(
        [sys.executable, "-c", MANY, files.HERE / "failover.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.stdout == "10000\n", child.stderr[-2000:]
