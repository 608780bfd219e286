"""The typed inputs of a runbook: declared in its file, given on the command line or by a calling runbook."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from failover.errors import Usage, did_you_mean
from failover.schema import Model
from failover.topology import Topology
from failover.units import seconds

Type = Literal[
    "region", "regions", "service", "services", "database", "databases",
    "text", "number", "boolean", "duration", "choice", "command",
]  # fmt: skip


MEANING: Mapping[Type, str] = {
    "region": "a region of the topology",
    "regions": "a list of regions, or `all`",
    "service": "a service of the topology",
    "services": "a list of services, or `all`",
    "database": "a database of the topology",
    "databases": "a list of databases, or `all`",
    "text": "any text",
    "number": "a number",
    "boolean": "`true` or `false`",
    "duration": "a duration like `250ms`, `30s`, `5min`, `1h` or `7d`",
    "choice": "one of the words under `of`",
    "command": "a program and its arguments, as a list of words",
}


class Input(Model):
    """One input: its type, what it is for, and what it is when nobody says."""

    type: Type = Field(description="one of the types below")
    summary: str = Field("", description="what it is for")
    default: Any = Field(None, description="its value when nobody gives one")
    of: tuple[str, ...] = Field((), description="the words of a choice")
    optional: bool = Field(False, description="whether it may be left out; it is empty then")


@dataclass(frozen=True, slots=True)
class Names:
    """The names that inputs may take; None where no topology is at hand and any name will do."""

    regions: tuple[str, ...]
    services: tuple[str, ...]
    databases: tuple[str, ...]

    @classmethod
    def of(cls, topology: Topology) -> "Names":
        return cls(tuple(topology.regions), tuple(topology.services), tuple(topology.databases))

    def among(self, type_: str) -> tuple[str, ...]:
        """The names of the kind that the input type `type_` speaks of, in the topology's order."""
        found: tuple[str, ...] = getattr(self, type_ if type_.endswith("s") else type_ + "s")
        return found


def read(declared: Mapping[str, Input], given: Mapping[str, Any], names: Names, runbook: str) -> dict[str, Any]:
    """The value of every declared input. Raises Usage, naming all that is missing, unknown or of the wrong type."""
    values, wrong = check(declared, given, names, runbook)
    if wrong:
        says = [
            message if name in given else f"{message}: -i {name}={_example(declared[name], names)}"
            for name, message in wrong
        ]
        raise Usage("\n".join(says), next=f"failover show {runbook} lists its inputs")
    return values


def check(
    declared: Mapping[str, Input], given: Mapping[str, Any], names: Names, runbook: str
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The value of every declared input that has a good one, and what is wrong with the others, by their names."""
    wrong = [
        (name, f"runbook '{runbook}' has no input '{name}'{did_you_mean(name, declared) or '; it takes none'}")
        for name in given
        if name not in declared
    ]
    values: dict[str, Any] = {}
    for name, input_ in declared.items():
        value = given.get(name)
        if value is None or (value == "" and input_.optional):
            value = input_.default
        if value is None:
            if input_.optional:
                values[name] = ""
                continue
            about = f" ({input_.summary})" if input_.summary else ""
            wrong.append((name, f"runbook '{runbook}' needs the input '{name}'{about}"))
            continue
        try:
            values[name] = convert(input_, value, names)
        except ValueError as error:
            wrong.append((name, f"input '{name}' of runbook '{runbook}': {error}"))
    return values, wrong


def convert(input_: Input, value: Any, names: Names) -> Any:
    """`value`, which may be a text of the command line, in the type of `input_`. Raises ValueError."""
    match input_.type:
        case "region" | "service" | "database":
            return _one(value, input_.type, names.among(input_.type))
        case "regions" | "services" | "databases":
            known = names.among(input_.type)
            if not isinstance(value, str | list | tuple) or not value:
                raise ValueError(f"{input_.type} are expected: a list of names, or the word all")
            chosen = [item.strip() for item in value.split(",")] if isinstance(value, str) else list(value)
            if chosen == ["all"]:
                return list(known)
            for item in chosen:
                _one(item, input_.type[:-1], known)
                if chosen.count(item) > 1:
                    raise ValueError(f"'{item}' is named twice")
            return chosen
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "duration":
            if value == 0 and not isinstance(value, bool):
                return value
            seconds(str(value).lower() if isinstance(value, bool) else str(value))
            return str(value)
        case "choice":
            if value not in input_.of:
                raise ValueError(
                    f"{_quoted(value)} is not one of {', '.join(input_.of)}{_near(str(value), input_.of)}"
                )
            return value
        case "command":
            words = isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
            if not words or not value:
                raise ValueError(
                    "a command is a list of words, like [make, deploy]; on the command line, put it after --"
                )
            return list(value)
    if not isinstance(value, str | int | float):
        raise ValueError(f"text is expected, not a {'list' if isinstance(value, list | tuple) else 'mapping'}")
    return str(value).lower() if isinstance(value, bool) else str(value)


def sample(input_: Input, names: Names) -> Any:
    """A value that fits, so that a file can be checked before anybody has said anything."""
    if input_.default is not None:
        return input_.default
    match input_.type:
        case "region" | "service" | "database":
            return next(iter(names.among(input_.type)), input_.type)
        case "regions" | "services" | "databases":
            return list(names.among(input_.type)) or [input_.type[:-1]]
        case "choice":
            return next(iter(input_.of), "")
    return {"number": 1, "boolean": True, "duration": "1s", "command": ["true"]}.get(input_.type, "text")


def _one(value: Any, kind: str, known: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the name of a {kind} is expected")
    if value not in known:
        raise ValueError(f"{kind} '{_short(value)}' is not declared{did_you_mean(value, known)}")
    return value


def _quoted(value: Any) -> str:
    return f"'{_short(value)}'" if isinstance(value, str) else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple | Mapping):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _near(value: str, known: Iterable[str]) -> str:
    near = did_you_mean(value, known)
    return near if near.startswith("; did") else ""


def _number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_quoted(value)} is not a number")
    return int(number) if number.is_integer() else number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise ValueError(f"{_quoted(value)} is neither true nor false")


def _example(input_: Input, names: Names) -> str:
    value = sample(input_, names)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
