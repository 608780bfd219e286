"""The typed inputs of a runbook: declared in its file, given on the command line or by a calling runbook."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from failover.errors import Usage, did_you_mean
from failover.schema import Model
from failover.topology import Topology
from failover.units import seconds

Type = Literal[
    "region", "regions", "service", "services", "database", "databases",
    "text", "number", "boolean", "duration", "choice", "command",
]  # fmt: skip


class Input(Model):
    """One input: its type, what it is for, and what it is when nobody says."""

    type: Type
    summary: str = ""
    default: Any = None
    of: tuple[str, ...] = ()
    optional: bool = False


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
    wrong = [
        f"runbook '{runbook}' has no input '{name}'{did_you_mean(name, declared)}"
        for name in given
        if name not in declared
    ]
    values: dict[str, Any] = {}
    for name, input_ in declared.items():
        value = given.get(name, input_.default)
        if value is None:
            if input_.optional:
                values[name] = ""
                continue
            about = f" ({input_.summary})" if input_.summary else ""
            wrong.append(f"runbook '{runbook}' needs the input '{name}'{about}: -i {name}={_example(input_, names)}")
            continue
        try:
            values[name] = convert(input_, value, names)
        except ValueError as error:
            wrong.append(f"input '{name}' of runbook '{runbook}': {error}")
    if wrong:
        raise Usage("\n".join(wrong), next=f"failover show {runbook} lists its inputs")
    return values


def convert(input_: Input, value: Any, names: Names) -> Any:
    """`value`, which may be a text of the command line, in the type of `input_`. Raises ValueError."""
    match input_.type:
        case "region" | "service" | "database":
            return _one(str(value), input_.type, names.among(input_.type))
        case "regions" | "services" | "databases":
            known = names.among(input_.type)
            chosen = value.split(",") if isinstance(value, str) else list(value)
            if chosen == ["all"]:
                return list(known)
            return [_one(str(item).strip(), input_.type[:-1], known) for item in chosen]
        case "number":
            return _number(value)
        case "boolean":
            return _boolean(value)
        case "duration":
            if value != 0:
                seconds(str(value))
            return value
        case "choice":
            if value not in input_.of:
                raise ValueError(f"'{value}' is not one of {', '.join(input_.of)}{_near(str(value), input_.of)}")
            return value
        case "command":
            if isinstance(value, str) or not all(isinstance(word, str) for word in value) or not value:
                raise ValueError("a command is a list of words")
            return list(value)
    if not isinstance(value, str | int | float):
        raise ValueError("text is expected")
    return str(value)


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


def _one(value: str, kind: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"{kind} '{value}' is not declared{did_you_mean(value, known)}")
    return value


def _near(value: str, known: Iterable[str]) -> str:
    near = did_you_mean(value, known)
    return near if near.startswith("; did") else ""


def _number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a number") from None
    return int(number) if number.is_integer() else number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise ValueError(f"'{value}' is neither true nor false")


def _example(input_: Input, names: Names) -> str:
    value = sample(input_, names)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
