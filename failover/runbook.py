"""Runbooks: read, checked, and resolved into steps with everything filled in.

A runbook is resolved for given inputs and a topology: `${…}` replaced, `each` expanded, called runbooks put in
place. What comes out is a flat row of steps, each naming the steps that it runs after.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from failover import inputs as given_inputs
from failover.errors import Invalid, Problem, Usage, did_you_mean
from failover.inputs import Input, Names
from failover.schema import Loc, Model, build
from failover.substitute import substitute
from failover.topology import Topology
from failover.verbs import VERBS, Call, Spec
from failover.yaml import Document

_STEP_KEYS = ("id", "needs", "each", "parallel", "steps")
_MOST_STEPS = 20_000
_DEEPEST_CALL = 8


class Library(Protocol):
    """Where runbooks are found by their names."""

    def names(self) -> Iterable[str]: ...

    def open(self, name: str) -> Document:
        """The runbook called `name`. Raises KeyError where there is none, Invalid where it cannot be read."""
        ...


class Head(Model):
    """The top of a runbook."""

    runbook: str
    summary: str = ""
    inputs: Any = {}
    steps: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One step, resolved: its verb and what stands under it, the steps before it, and the line it stands at."""

    id: str
    verb: str
    spec: Any
    after: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Runbook:
    """A resolved runbook. `sources` holds the text of every file that went into it, by runbook name."""

    name: str
    summary: str
    inputs: Mapping[str, Any]
    steps: tuple[Step, ...]
    sources: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a runbook says of itself before anything is filled in."""

    name: str
    summary: str
    inputs: Mapping[str, Input]
    steps: Sequence[Any]
    document: Document


def declare(document: Document, problems: list[Problem]) -> Declared | None:
    """The head and the inputs of a runbook, or None; mistakes are added to `problems`."""
    head = build(Head, document.root, document, (), problems, extra=("runbook",))
    if head is None:
        return None
    inputs: dict[str, Input] = {}
    if isinstance(head.inputs, Mapping):
        for name, data in head.inputs.items():
            data = {"type": data} if isinstance(data, str) else data
            input_ = build(Input, data, document, ("inputs", name), problems)
            if input_ and (input_.type == "choice") != bool(input_.of):
                problems.append(
                    document.problem(("inputs", name), "'type: choice' and 'of: [words]' belong together")
                )
            if input_:
                inputs[name] = input_
    else:
        problems.append(document.problem(("inputs",), "inputs are a mapping from a name to its type"))
    if not isinstance(head.steps, list) or not head.steps:
        problems.append(document.problem(("steps",), "steps are a list with at least one step"))
        return None
    return Declared(head.runbook, head.summary, inputs, head.steps, document)


def resolve(document: Document, given: Mapping[str, Any], topology: Topology, library: Library) -> Runbook:
    """`document` with its inputs filled in. Raises Invalid with every mistake, or Usage for a wrong input."""
    problems: list[Problem] = []
    declared = declare(document, problems)
    if declared is None:
        raise Invalid(problems)
    if problems:
        return _resolve(declared, _samples(declared, topology), topology, library, problems)
    values = given_inputs.read(declared.inputs, given, Names.of(topology), declared.name)
    return _resolve(declared, values, topology, library, problems)


def validate(document: Document, topology: Topology, library: Library) -> Runbook:
    """`document` resolved with sample inputs, which finds every mistake that does not lie in an input's value."""
    problems: list[Problem] = []
    declared = declare(document, problems)
    if declared is None:
        raise Invalid(problems)
    return _resolve(declared, _samples(declared, topology), topology, library, problems)


def _samples(declared: Declared, topology: Topology) -> dict[str, Any]:
    names = Names.of(topology)
    return {name: given_inputs.sample(input_, names) for name, input_ in declared.inputs.items()}


def _resolve(
    declared: Declared,
    values: Mapping[str, Any],
    topology: Topology,
    library: Library,
    problems: list[Problem],
) -> Runbook:
    expansion = _Expansion(topology, library, problems)
    expansion.runbook(declared, values, (), "", ())
    if problems:
        raise Invalid(problems)
    return Runbook(declared.name, declared.summary, values, tuple(expansion.steps), expansion.sources)


@dataclass
class _Expansion:
    topology: Topology
    library: Library
    problems: list[Problem]
    steps: list[Step] = field(default_factory=list)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def runbook(
        self,
        declared: Declared,
        values: Mapping[str, Any],
        after: tuple[str, ...],
        prefix: str,
        callers: tuple[str, ...],
    ) -> tuple[str, ...]:
        self.sources[declared.name] = (declared.document.name, declared.document.text)
        scope = _Scope(self, declared.document, (*callers, declared.name))
        return scope.block(declared.steps, ("steps",), values, after, prefix)


@dataclass
class _Scope:
    """The steps of one file."""

    expansion: _Expansion
    document: Document
    callers: tuple[str, ...]

    def complain(self, loc: Loc, message: str, *, key: bool = False) -> None:
        self.expansion.problems.append(self.document.problem(loc, message, key=key))

    def block(
        self, items: Sequence[Any], loc: Loc, values: Mapping[str, Any], after: tuple[str, ...], prefix: str
    ) -> tuple[str, ...]:
        """The steps of one list, which begin once `after` is done. Returns those with which the list ends."""
        ends: dict[str, tuple[str, ...]] = {}
        needed: set[str] = set()
        previous = after
        for index, item in enumerate(items):
            at = (*loc, index)
            if not isinstance(item, Mapping):
                self.complain(at, "a step is a mapping with one verb, like {wait: 30s}")
                continue
            raw = item.get("id", "")
            identity = str(self._fill(raw, values, (*at, "id"))) or f"{_verb_of(item)}-{index + 1}"
            start = self._start(item, at, ends, previous, after, needed)
            if identity in ends:
                self.complain((*at, "id") if raw else at, f"a step called '{identity}' stands above already")
            previous = ends[identity] = self._item(item, at, values, start, prefix + identity)
        last = [end for name, end in ends.items() if name not in needed]
        return tuple(dict.fromkeys(step for end in last for step in end)) or after

    def _start(
        self,
        item: Mapping[str, Any],
        at: Loc,
        ends: dict[str, tuple[str, ...]],
        previous: tuple[str, ...],
        after: tuple[str, ...],
        needed: set[str],
    ) -> tuple[str, ...]:
        if "needs" not in item:
            if ends:
                needed.add(next(reversed(ends)))
            return previous
        needs = item["needs"]
        if not isinstance(needs, list):
            self.complain((*at, "needs"), "needs is a list of the ids of steps above, like [drain]")
            return previous
        start: list[str] = [] if needs else list(after)
        for index, name in enumerate(needs):
            if name in ends:
                needed.add(name)
                start.extend(ends[name])
            else:
                near = did_you_mean(str(name), ends)
                self.complain((*at, "needs", index), f"no step called '{name}' stands above this one{near}")
        return tuple(dict.fromkeys(start))

    def _item(
        self,
        item: Mapping[str, Any],
        at: Loc,
        values: Mapping[str, Any],
        start: tuple[str, ...],
        identity: str,
    ) -> tuple[str, ...]:
        if "each" in item:
            return self._each(item, at, values, start, identity)
        if "parallel" in item:
            self.complain((*at, "parallel"), "'parallel' belongs to 'each'; other steps use 'needs'", key=True)
        return self._one(item, at, values, start, identity)

    def _each(
        self,
        item: Mapping[str, Any],
        at: Loc,
        values: Mapping[str, Any],
        start: tuple[str, ...],
        identity: str,
    ) -> tuple[str, ...]:
        each = item["each"]
        if not isinstance(each, Mapping) or len(each) != 1:
            self.complain((*at, "each"), "each is one name and its list, like {site: [east, west]}")
            return start
        [(name, source)] = each.items()
        if name in values:
            self.complain((*at, "each", name), f"'{name}' is an input already; use another name", key=True)
        listed = self._fill(source, values, (*at, "each", name))
        if listed == "all":
            listed = list(self.expansion.topology.regions)
        if not isinstance(listed, list) or not listed:
            self.complain((*at, "each", name), "a list is expected here, or the word all for every region")
            return start
        ends: list[str] = []
        following = start
        for value in listed:
            if len(self.expansion.steps) > _MOST_STEPS:
                break
            scope = {**values, name: value}
            following = self._one(item, at, scope, following, f"{identity}[{value}]")
            ends = [*ends, *following] if item.get("parallel") is True else list(following)
            following = start if item.get("parallel") is True else following
        return tuple(ends)

    def _one(
        self,
        item: Mapping[str, Any],
        at: Loc,
        values: Mapping[str, Any],
        start: tuple[str, ...],
        identity: str,
    ) -> tuple[str, ...]:
        verbs = [key for key in item if key not in _STEP_KEYS]
        if "steps" in item:
            for verb in verbs:
                self.complain((*at, verb), f"'{verb}' cannot stand beside 'steps'", key=True)
            if "each" not in item:
                self.complain((*at, "steps"), "'steps' belongs to 'each'", key=True)
            if not isinstance(item["steps"], list) or not item["steps"]:
                self.complain((*at, "steps"), "steps are a list with at least one step")
                return start
            return self.block(item["steps"], (*at, "steps"), values, start, identity + ".")
        known = [verb for verb in verbs if verb in VERBS]
        for verb in verbs:
            if verb not in VERBS:
                what = "key" if known else "verb"
                self.complain(
                    (*at, verb),
                    f"unknown {what} '{verb}'{did_you_mean(verb, (*VERBS, *_STEP_KEYS))}",
                    key=True,
                )
        if len(known) > 1:
            self.complain((*at, known[1]), f"a step has one verb, and '{known[0]}' stands here already", key=True)
        if not verbs:
            self.complain(at, f"this step has no verb; known: {', '.join(VERBS)}")
        return self._step(known[0], item[known[0]], (*at, known[0]), values, start, identity) if known else start

    def _step(
        self, verb: str, data: Any, at: Loc, values: Mapping[str, Any], start: tuple[str, ...], identity: str
    ) -> tuple[str, ...]:
        model = VERBS[verb]
        data = self._fill(data, values, at)
        if model.shorthand and not isinstance(data, Mapping):
            data = {model.shorthand: data}
        spec = build(model, data, self.document, at, self.expansion.problems)
        if spec is None:
            return start
        self._references(spec, at)
        if isinstance(spec, Call):
            return self._call(spec, at, start, identity)
        mark = self.document.mark(at, key=True)
        if identity in self.expansion.ids:
            self.complain(at, f"a step called '{identity}' stands above already", key=True)
        self.expansion.ids.add(identity)
        self.expansion.steps.append(Step(identity, verb, spec, start, f"{self.document.name}:{mark.line}"))
        if len(self.expansion.steps) == _MOST_STEPS + 1:
            self.complain(at, f"this makes more than {_MOST_STEPS:,} steps")
        return (identity,)

    def _references(self, spec: Spec, at: Loc) -> None:
        topology = self.expansion.topology
        known: Mapping[str, Iterable[str]] = {
            "region": topology.regions,
            "service": topology.services,
            "database": topology.databases,
            "notifier": topology.notifiers,
        }
        for loc, kind, name in spec.references():
            if name not in known[kind]:
                near = did_you_mean(name, known[kind])
                self.complain((*at, *loc), f"{kind} '{name}' is not declared in {topology.document.name}{near}")

    def _call(self, spec: Call, at: Loc, start: tuple[str, ...], identity: str) -> tuple[str, ...]:
        problems = self.expansion.problems
        if spec.name in self.callers or len(self.callers) >= _DEEPEST_CALL:
            self.complain(
                (*at, "name"),
                f"runbooks call each other in a circle: {' → '.join((*self.callers, spec.name))}",
            )
            return start
        try:
            document = self.expansion.library.open(spec.name)
        except KeyError:
            near = did_you_mean(spec.name, self.expansion.library.names())
            self.complain((*at, "name"), f"there is no runbook called '{spec.name}'{near}")
            return start
        except Invalid as invalid:
            problems.extend(invalid.problems)
            return start
        declared = declare(document, problems)
        if declared is None:
            return start
        names = Names.of(self.expansion.topology)
        try:
            values = given_inputs.read(declared.inputs, spec.inputs, names, declared.name)
        except Usage as usage:
            for line in usage.what.splitlines():
                self.complain((*at, "inputs"), line.split(": -i ")[0])
            return start
        return self.expansion.runbook(declared, values, start, identity + ".", self.callers)

    def _fill(self, value: Any, values: Mapping[str, Any], at: Loc) -> Any:
        return substitute(value, values, lambda loc, message: self.complain((*at, *loc), message))


def _verb_of(item: Mapping[str, Any]) -> str:
    return next((key for key in item if key in VERBS), "each" if "each" in item else "step")
