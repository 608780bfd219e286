"""From a positioned document to checked models, with every mistake in our own words and at its own place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from failover.errors import Problem, did_you_mean
from failover.yaml import Document

Loc = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """A part of a file: frozen, and without room for a key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def build(
    model: type[M],
    data: Any,
    document: Document,
    loc: Loc,
    problems: list[Problem],
    extra: Iterable[str] = (),
) -> M | None:
    """`data`, which stands at `loc` of `document`, as a `model`; or None, with its mistakes added to `problems`.

    `extra` are names besides the model's own fields that a misspelled key may have meant.
    """
    if not isinstance(data, Mapping):
        problems.append(document.problem(loc, f"a mapping is expected here, not {_say(data)}"))
        return None
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            at = (*loc, *detail["loc"])
            kind = detail["type"]
            unknown = kind == "extra_forbidden"
            missing = kind == "missing"
            message = _message(model, detail, extra)
            problems.append(document.problem(at[:-1] if missing else at, message, key=unknown))
        return None


def _message(model: type[BaseModel], detail: Any, extra: Iterable[str]) -> str:
    kind: str = detail["type"]
    loc: Loc = detail["loc"]
    value = detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields(model, loc[:-1]) | (set(extra) if len(loc) == 1 else set())
        return f"unknown key '{loc[-1]}'{did_you_mean(str(loc[-1]), known)}"
    if kind == "missing":
        return f"'{loc[-1]}' is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        expected = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"{_say(value)} is not one of {', '.join(expected)}{_near(value, expected)}"
    if kind.startswith(("greater_than", "less_than")):
        words = {"greater_than": "more than", "greater_than_equal": "at least", "less_than": "less than"}
        limit = next(iter(context.values()))
        return f"must be {words.get(kind, 'at most')} {limit}, not {value}"
    if kind == "too_short":
        return f"at least {context['min_length']} expected here, found {context['actual_length']}"
    expected_words = {
        "int": "a whole number",
        "float": "a number",
        "string": "text",
        "bool": "true or false",
        "list": "a list",
        "tuple": "a list",
        "dict": "a mapping",
        "model": "a mapping",
        "mapping": "a mapping",
    }
    for prefix, words_ in expected_words.items():
        if kind.startswith(prefix + "_"):
            return f"{words_} is expected here, not {_say(value)}"
    return str(detail["msg"])


def _near(value: Any, expected: Sequence[str]) -> str:
    near = did_you_mean(str(value), expected)
    return near if near.startswith("; did") else ""


def _say(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…'"


def _fields(model: type[BaseModel], loc: Sequence[str | int]) -> set[str]:
    kind: Any = model
    for _ in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(_))
            kind = _inner(field.annotation) if field else None
        else:
            arguments = get_args(kind)
            kind = _inner(arguments[-1 if get_origin(kind) is dict else 0]) if arguments else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return set(kind.model_fields)
    return set()


def _inner(annotation: Any) -> Any:
    optional = [kind for kind in get_args(annotation) if kind is not type(None)]
    return optional[0] if len(optional) == 1 and type(None) in get_args(annotation) else annotation
