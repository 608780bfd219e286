"""Runbooks: what one declares, and what it is once `resolve` has filled everything in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from failover.errors import Problem
from failover.inputs import Input
from failover.schema import Model, build, rest
from failover.yaml import Document

NO_STEPS = "steps are a list with at least one step, like - check: {regions: all}"


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
    head = build(Head, document.root, document, (), problems)
    head = head or rest(Head, {"runbook": "", "steps": None, **document.root}, {"runbook": ""})
    if head is None:
        return None
    inputs: dict[str, Input] = {}
    if isinstance(head.inputs, Mapping):
        for name, data in head.inputs.items():
            data = {"type": data} if isinstance(data, str) else data
            input_ = build(Input, data, document, ("inputs", name), problems)
            if input_ and (input_.type == "choice") != bool(input_.of):
                said = "a choice needs its words, like of: [staged, immediate]"
                if input_.of:
                    said = (
                        f"only a choice has 'of', and this is of type {input_.type}; write type: choice, or drop it"
                    )
                problems.append(document.problem(("inputs", name), said))
            if input_:
                inputs[name] = input_
    else:
        problems.append(document.problem(("inputs",), "inputs are a mapping (key: value) from a name to its type"))
    if not isinstance(head.steps, list) or not head.steps:
        if "steps" in document.root:
            problems.append(document.problem(("steps",), NO_STEPS))
        return None
    return Declared(head.runbook, head.summary, inputs, head.steps, document)
