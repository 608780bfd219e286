"""A runbook resolved for given inputs and a topology: `${…}` replaced, `each` expanded, called runbooks put in place.

What comes out is a flat row of steps, each naming the steps that it runs after.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from failover import inputs as given_inputs
from failover.errors import Invalid, Problem, did_you_mean
from failover.inputs import Names
from failover.runbook import NO_STEPS, Declared, Library, Runbook, Step, declare
from failover.schema import Loc, build, rest
from failover.substitute import references, substitute
from failover.topology import Topology
from failover.verbs import VERBS, Call, Spec
from failover.yaml import Document

_STEP_KEYS = ("id", "needs", "each", "parallel", "steps")
_MOST_STEPS = 20_000
_MOST_PROBLEMS = 200
_DEEPEST_CALL = 8
_NOBODY = "this list is empty; name at least one, or write all"


def resolve(document: Document, given: Mapping[str, Any], topology: Topology, library: Library) -> Runbook:
    """`document` with its inputs filled in. Raises Invalid with every mistake, or Usage for a wrong input."""
    problems: list[Problem] = []
    declared = declare(document, problems)
    if declared is None:
        raise Invalid(problems)
    if problems:
        values, unsure = _samples(declared, topology, problems)
        return _resolve(declared, values, topology, library, problems, unsure)
    values = given_inputs.read(declared.inputs, given, Names.of(topology), declared.name)
    return _resolve(declared, values, topology, library, problems)


def validate(document: Document, topology: Topology, library: Library) -> Runbook:
    """`document` resolved with sample inputs, which finds every mistake that does not lie in an input's value."""
    problems: list[Problem] = []
    declared = declare(document, problems)
    if declared is None:
        raise Invalid(problems)
    values, unsure = _samples(declared, topology, problems)
    return _resolve(declared, values, topology, library, problems, unsure)


def _samples(
    declared: Declared, topology: Topology, problems: list[Problem]
) -> tuple[dict[str, Any], frozenset[str]]:
    """A value for every input, and the names of those whose value says nothing about the one to come."""
    names = Names.of(topology)
    listed = declared.document.root.get("inputs")
    values: dict[str, Any] = {name: f"${{{name}}}" for name in (listed if isinstance(listed, Mapping) else ())}
    sure: set[str] = set()
    for name, input_ in declared.inputs.items():
        try:
            if input_.default is None or (input_.type == "choice" and not input_.of):
                values[name] = given_inputs.sample(input_, names)
                sure |= {name} if input_.type not in ("text", "number") else set()
            else:
                values[name] = given_inputs.convert(input_, input_.default, names)
                sure.add(name)
        except ValueError as error:
            at = ("inputs", name, "default")
            problems.append(declared.document.problem(at, f"this default does not fit type {input_.type}: {error}"))
    return values, frozenset(values.keys() - sure)


def _resolve(
    declared: Declared,
    values: Mapping[str, Any],
    topology: Topology,
    library: Library,
    problems: list[Problem],
    unsure: frozenset[str] = frozenset(),
) -> Runbook:
    expansion = _Expansion(topology, library, problems)
    expansion.runbook(declared, values, (), "", (), unsure)
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
    opened: dict[str, Declared | None] = field(default_factory=dict)

    def runbook(
        self,
        declared: Declared,
        values: Mapping[str, Any],
        after: tuple[str, ...],
        prefix: str,
        callers: tuple[str, ...],
        unsure: frozenset[str],
    ) -> tuple[str, ...]:
        self.sources[declared.name] = (declared.document.name, declared.document.text)
        scope = _Scope(self, declared.document, (*callers, declared.name), unsure)
        return scope.block(declared.steps, ("steps",), values, after, prefix)

    def open(self, name: str) -> Declared | None:
        """The runbook called `name`, read once. Raises KeyError where there is none."""
        if name not in self.opened:
            self.opened[name] = None
            try:
                document = self.library.open(name)
            except Invalid as invalid:
                self.problems.extend(invalid.problems)
                return None
            except KeyError:
                del self.opened[name]
                raise
            declared = declare(document, self.problems)
            if declared and declared.name != name:
                said = f"this is called as runbook '{name}', by the name of its file; give it that name here too"
                self.problems.append(document.problem(("runbook",), said))
                declared = None
            self.opened[name] = declared
        return self.opened[name]

    @property
    def full(self) -> bool:
        return len(self.steps) > _MOST_STEPS or len(self.problems) > _MOST_PROBLEMS


@dataclass
class _Scope:
    """The steps of one file. `unsure` are inputs whose value is not known, so that nothing is said against it."""

    expansion: _Expansion
    document: Document
    callers: tuple[str, ...]
    unsure: frozenset[str]

    def complain(self, loc: Loc, message: str, *, key: bool = False) -> None:
        self.expansion.problems.append(self.document.problem(loc, message, key=key))

    def block(
        self, items: Sequence[Any], loc: Loc, values: Mapping[str, Any], after: tuple[str, ...], prefix: str
    ) -> tuple[str, ...]:
        """The steps of one list, which begin once `after` is done. Returns those with which the list ends."""
        ends: dict[str, tuple[str, ...]] = {}
        places: dict[str, Loc] = {}
        needed: set[str] = set()
        previous = after
        for index, item in enumerate(items):
            if self.expansion.full:
                break
            at = (*loc, index)
            if not isinstance(item, Mapping):
                self.complain(at, "a step is a mapping (key: value) with one verb, like - wait: 30s")
                continue
            identity = self._identity(item, at, values)
            if identity in ends:
                line = self.document.mark(places[identity]).line
                self.complain(
                    (*at, "id"), f"the step on line {line} is called '{identity}' already; choose another id"
                )
                identity = f"{identity}-{index + 1}"
            start = self._start(item, at, ends, previous, after, needed)
            places[identity] = at
            previous = ends[identity] = self._item(item, at, values, start, prefix + identity)
        last = [end for name, end in ends.items() if name not in needed]
        return tuple(dict.fromkeys(step for end in last for step in end)) or after

    def _identity(self, item: Mapping[str, Any], at: Loc, values: Mapping[str, Any]) -> str:
        if "id" in item:
            raw = self._fill(item["id"], values, (*at, "id"))
            if isinstance(raw, str | int) and not isinstance(raw, bool) and raw != "":
                return str(raw)
            self.complain((*at, "id"), "an id is a text, like drain-east")
        return f"{_verb_of(item)}-{at[-1] + 1}"  # type: ignore[operator]

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
            example = needs if isinstance(needs, str) else "drain"
            self.complain((*at, "needs"), f"needs is a list of the ids of steps above, like [{example}]")
            return previous
        start: list[str] = [] if needs else list(after)
        for index, name in enumerate(map(_plain, needs)):
            if name in ends:
                needed.add(name)
                start.extend(ends[name])
            else:
                self.complain((*at, "needs", index), self._not_above(name, item, at, ends))
        return tuple(dict.fromkeys(start))

    def _not_above(self, name: str, item: Mapping[str, Any], at: Loc, ends: Iterable[str]) -> str:
        if not name:
            return "the id of a step above is expected here"
        if name == _plain(item.get("id")):
            return "a step cannot need itself"
        for below, other in enumerate(_in(self.document.root, at[:-1])):
            if isinstance(other, Mapping) and _plain(other.get("id")) == name:
                line = self.document.mark((*at[:-1], below)).line
                return f"step '{name}' stands below, on line {line}; a step can only need steps above it"
        near = did_you_mean(name, ends) or "; nothing with an id does"
        return f"no step called '{name}' stands above this one{near}"

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
        parallel = item.get("parallel", False)
        if not isinstance(parallel, bool):
            self.complain((*at, "parallel"), f"'parallel' is true or false, not {parallel!r}")
        if not isinstance(each, Mapping) or len(each) != 1:
            self.complain((*at, "each"), "each is one name and its list, like {site: [east, west]}")
            return start
        [(name, source)] = each.items()
        if name in values:
            self.complain((*at, "each", name), f"'{name}' has a value here already; use another name", key=True)
        ends: list[str] = []
        following = start
        listed = self._listed(source, (*at, "each", name), values)
        if listed is None:
            inside = replace(self, unsure=self.unsure | {name})
            return inside._one(item, at, {**values, name: f"${{{name}}}"}, start, identity)  # noqa: SLF001 - of its own class
        for value in listed:
            if self.expansion.full:
                break
            scope = {**values, name: value}
            following = self._one(item, at, scope, following, f"{identity}[{value}]")
            ends = [*ends, *following] if parallel is True else list(following)
            following = start if parallel is True else following
        return tuple(dict.fromkeys(ends)) or start

    def _listed(self, source: Any, at: Loc, values: Mapping[str, Any]) -> list[Any] | None:
        """What a loop goes through; None where that cannot be told."""
        doubtful = any(self._doubtful(source, values, at))
        listed = self._fill(source, values, at)
        if listed == "all":
            return list(self.expansion.topology.regions)
        if not isinstance(listed, list) or source == []:
            if not doubtful:
                said = "a list is expected here, like [east, west], or the word all for every region"
                self.complain(at, f"{said}; '{listed}' is a text" if isinstance(listed, str) else said)
            return None
        once: dict[str, Any] = {}
        for index, value in enumerate(listed):
            where = (*at, index)
            if isinstance(value, Mapping | list) or value is None:
                self.complain(where, "each goes through texts and numbers, like [east, west]")
            elif str(value) in once:
                self.complain(where, f"'{value}' is in this list twice")
            else:
                once[str(value)] = value
        return list(once.values())

    def _one(
        self,
        item: Mapping[str, Any],
        at: Loc,
        values: Mapping[str, Any],
        start: tuple[str, ...],
        identity: str,
    ) -> tuple[str, ...]:
        verbs = [key for key in item if key not in _STEP_KEYS]
        known = [verb for verb in verbs if verb in VERBS]
        for verb in verbs:
            if verb not in VERBS:
                what = "key" if known or "steps" in item else "verb"
                near = did_you_mean(verb, (*VERBS, *_STEP_KEYS)) or f"; the verbs are {', '.join(VERBS)}"
                self.complain((*at, verb), f"unknown {what} '{verb}'{near}", key=True)
        if "steps" in item:
            for verb in known:
                self.complain((*at, verb), f"'{verb}' cannot stand beside 'steps'; put it among them", key=True)
            if "each" not in item and len(verbs) == len(known):
                self.complain(
                    (*at, "steps"), "'steps' belongs to 'each'; without it, put them into the list", key=True
                )
            if not isinstance(item["steps"], list) or not item["steps"]:
                self.complain((*at, "steps"), NO_STEPS)
                return start
            return self.block(item["steps"], (*at, "steps"), values, start, identity + ".")
        if len(known) > 1:
            said = f"a step has one verb, and '{known[0]}' stands here already; begin another step with '-'"
            self.complain((*at, known[1]), said, key=True)
        if not verbs:
            self.complain(at, f"this step has no verb; known: {', '.join(VERBS)}")
        for verb in known[1:]:
            self._step(verb, item[verb], (*at, verb), values, start, identity)
        return self._step(known[0], item[known[0]], (*at, known[0]), values, start, identity) if known else start

    def _step(
        self, verb: str, raw: Any, at: Loc, values: Mapping[str, Any], start: tuple[str, ...], identity: str
    ) -> tuple[str, ...]:
        model = VERBS[verb]
        data = self._fill(raw, values, at)
        short = "" if isinstance(data, Mapping) else model.shorthand
        found = [self.document.problem((*at, field), _NOBODY) for field in _empty(raw)]
        if isinstance(data, Mapping) or short:
            data = {short: data} if short else data
            spec = build(model, data, self.document, at, found, short=short)
            if spec is None and (spec := self._of_texts(model, raw, values, short)):
                found.clear()
        else:
            spec = None
            said = f"'{verb}' takes keys here, like {verb}: {{{_example(model)}}}"
            found.append(self.document.problem(at, said))
        if known := spec or rest(model, data, {}):
            found.extend(self._references(known, at))
        self._keep(found, raw, values, at)
        if spec is None:
            return start
        if isinstance(spec, Call):
            return self._call(spec, raw, values, at, start, identity)
        mark = self.document.mark(at, key=True)
        if identity in self.expansion.ids and not self.expansion.problems:
            self.complain(at, f"a step called '{identity}' stands above already", key=True)
        self.expansion.ids.add(identity)
        self.expansion.steps.append(Step(identity, verb, spec, start, f"{self.document.name}:{mark.line}"))
        if len(self.expansion.steps) == _MOST_STEPS + 1:
            self.complain(at, f"this makes more than {_MOST_STEPS:,} steps; split the runbook")
        return (identity,)

    def _of_texts(self, model: type[Spec], raw: Any, values: Mapping[str, Any], short: str) -> Spec | None:
        """The spec where numbers that are filled in stand for texts, as in the arguments of a command."""
        numbers = {name: str(value).lower() for name, value in values.items() if isinstance(value, int | float)}
        if not numbers:
            return None
        filled = substitute(raw, {**values, **numbers}, lambda *_: None)
        return build(model, {short: filled} if short else filled, self.document, (), [])

    def _references(self, spec: Spec, at: Loc) -> Iterator[Problem]:
        topology = self.expansion.topology
        known: Mapping[str, Iterable[str]] = {
            "region": topology.regions,
            "service": topology.services,
            "database": topology.databases,
            "notifier": topology.notifiers,
        }
        for loc, kind, name in spec.references():
            if name not in known[kind]:
                near = did_you_mean(name, known[kind]) or f"; no {kind} is"
                said = f"{kind} '{name}' is not declared in {topology.document.name}{near}"
                yield self.document.problem((*at, *loc), said, key=len(loc) > 1 and isinstance(loc[-1], str))

    def _keep(self, found: Iterable[Problem], raw: Any, values: Mapping[str, Any], at: Loc) -> None:
        """Complain of those of `found` that do not come from a value that is not known yet."""
        if found := list(found):
            doubtful = {self.document.mark(loc, key=key) for loc, key in self._doubtful(raw, values, at)}
            self.expansion.problems.extend(
                problem for problem in found if (problem.line, problem.column) not in doubtful
            )

    def _doubtful(self, raw: Any, values: Mapping[str, Any], at: Loc) -> Iterator[tuple[Loc, bool]]:
        """The places of values, and of keys (True), into which something is filled that is not known yet."""
        if isinstance(raw, str):
            if self._guess(raw, values):
                yield at, False
        elif isinstance(raw, Mapping):
            for key, item in raw.items():
                yield from self._doubtful(item, values, (*at, key))
                if self._guess(key, values):
                    yield (*at, key), True
        elif isinstance(raw, list):
            inside = [place for index, item in enumerate(raw) for place in self._doubtful(item, values, (*at, index))]
            yield from (*inside, (at, False)) if inside else ()

    def _guess(self, text: str, values: Mapping[str, Any]) -> bool:
        return any(name in self.unsure or name not in values for name in references(text))

    def _call(
        self, spec: Call, raw: Any, values: Mapping[str, Any], at: Loc, start: tuple[str, ...], identity: str
    ) -> tuple[str, ...]:
        circle = " → ".join((*self.callers, spec.name))
        if spec.name in self.callers:
            self.complain((*at, "name"), f"runbooks call each other in a circle: {circle}")
            return start
        if len(self.callers) >= _DEEPEST_CALL:
            self.complain((*at, "name"), f"runbooks call each other more than {_DEEPEST_CALL} deep: {circle}")
            return start
        try:
            declared = self.expansion.open(spec.name)
        except KeyError:
            near = did_you_mean(spec.name, self.expansion.library.names())
            self._keep(
                [self.document.problem((*at, "name"), f"there is no runbook called '{spec.name}'{near}")],
                raw,
                values,
                at,
            )
            return start
        if declared is None:
            return start
        names = Names.of(self.expansion.topology)
        taken, wrong = given_inputs.check(declared.inputs, spec.inputs, names, declared.name)
        for name, message in wrong:
            place = (*at, "inputs", name)
            if name not in declared.inputs:
                self.complain(place, message, key=True)
            elif name not in spec.inputs:
                self.complain(place, f"{message}; write it under 'inputs'")
            else:
                self._keep([self.document.problem(place, message)], raw, values, at)
        doubtful = {loc[len(at) + 1] for loc, _ in self._doubtful(raw, values, at) if len(loc) > len(at) + 1}
        unsure = frozenset(name for name in declared.inputs if name in doubtful or name not in taken)
        taken.update({name: f"${{{name}}}" for name in unsure if name not in taken})
        return self.expansion.runbook(declared, taken, start, identity + ".", self.callers, unsure)

    def _fill(self, value: Any, values: Mapping[str, Any], at: Loc) -> Any:
        return substitute(value, values, lambda loc, message: self.complain((*at, *loc), message))


def _verb_of(item: Mapping[str, Any]) -> str:
    return next((key for key in item if key in VERBS), "each" if "each" in item else "step")


def _example(model: type[Spec]) -> str:
    fields = model.model_fields.items()
    names = [name for name, field in fields if field.is_required()] or [name for name, _ in fields][:2]
    return ", ".join(f"{name}: …" for name in names)


def _empty(raw: Any) -> list[str]:
    """The lists of names in which the file itself has none; what is filled in may have none, where there are none."""
    fields = ("regions", "services", "databases")
    return [field for field in fields if isinstance(raw, Mapping) and raw.get(field) == []]


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _in(node: Any, loc: Loc) -> list[Any]:
    for step in loc:
        node = node[step]
    return list(node)
