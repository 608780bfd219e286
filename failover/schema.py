"""From a positioned document to checked models, with every mistake in our own words and at its own place."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from failover.errors import Problem, did_you_mean
from failover.secret import InTheFile
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
        problems.append(document.problem(loc, f"a mapping (key: value) is expected here, not {_say(data)}"))
        return None
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        problems.extend(_problems(model, details, data, document, loc, tuple(extra)))
        return None


def rest(model: type[M], data: Any, instead: Mapping[str, Any]) -> M | None:
    """What is right in `data`, to go on looking for mistakes; wrong keys are as in `instead`, or their defaults."""
    if not isinstance(data, Mapping):
        return None
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
    kept = {key: value for key, value in data.items() if key not in wrong}
    try:
        return model.model_validate({**kept, **{key: value for key, value in instead.items() if key in wrong}})
    except ValidationError:
        return None


def _problems(
    model: type[BaseModel], details: Sequence[Any], data: Any, document: Document, loc: Loc, extra: tuple[str, ...]
) -> Iterator[Problem]:
    meant = _meant(model, details, data)
    for path, detail in _one_of_each(details, data):
        kind = detail["type"]
        error = detail.get("ctx", {}).get("error")
        if kind == "missing" and path in meant:
            key = meant[path]
            message = f"unknown key '{key}'; did you mean '{path[-1]}'?"
            yield document.problem((*loc, *path[:-1], key), message, key=True)
        elif kind == "missing":
            yield document.problem((*loc, *path[:-1]), f"'{path[-1]}' is missing")
        elif kind == "extra_forbidden":
            if path not in {(*at[:-1], key) for at, key in meant.items()}:
                yield document.problem((*loc, *path), _message(model, detail, extra), key=True)
        elif isinstance(error, InTheFile):
            yield replace(document.problem((*loc, *path), str(error)), source="", width=1)
        else:
            yield document.problem((*loc, *path), _message(model, detail, extra))


def _meant(model: type[BaseModel], details: Sequence[Any], data: Any) -> dict[Loc, str]:
    """For a key that is missing, the misspelled one that stands in its place."""
    found: dict[Loc, str] = {}
    for detail in details:
        if detail["type"] == "missing":
            path: Loc = detail["loc"]
            others = [key for key in _at(data, path[:-1]) if key not in _fields(model, path[:-1])]
            for key in get_close_matches(str(path[-1]), others, n=1, cutoff=0.7):
                found[path] = key
    return found


def _one_of_each(details: Sequence[Any], data: Any) -> Iterator[tuple[Loc, Any]]:
    """Each mistake and its path. Of what may be a text or a secret, only the mistake in the likelier one."""
    chosen: dict[tuple[Loc, str], Any] = {}
    for detail in details:
        path: Loc = detail["loc"]
        kind = detail["type"] if detail["type"] in ("missing", "extra_forbidden") else ""
        while not kind and path and not _stands(data, path):
            path = path[:-1]
        likelier = isinstance(detail["input"], Mapping) == (detail["type"] == "value_error")
        if (path, kind) not in chosen or likelier:
            chosen[path, kind] = detail
    return ((path, detail) for (path, _), detail in chosen.items())


def _stands(data: Any, path: Loc) -> bool:
    for step in path:
        listed = isinstance(data, list | tuple) and isinstance(step, int) and step < len(data)
        if not listed and not (isinstance(data, Mapping) and step in data):
            return False
        data = data[step]
    return True


def _at(data: Any, path: Loc) -> Mapping[str, Any]:
    for step in path:
        data = data[step] if _stands(data, (step,)) else {}
    return data if isinstance(data, Mapping) else {}


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
        number = f"{limit:g}" if isinstance(limit, int | float) else limit
        return f"must be {words.get(kind, 'at most')} {number}, not {value}"
    if kind in ("too_short", "string_too_short"):
        return "this is empty; write at least one" if kind == "too_short" else "this is empty; write a text"
    expected_words = {
        "int": "a whole number",
        "float": "a number",
        "string": "text",
        "path": "a path",
        "bool": "true or false",
        "list": "a list",
        "tuple": "a list",
        "dict": "a mapping (key: value)",
        "model": "a mapping (key: value)",
        "mapping": "a mapping (key: value)",
    }
    for prefix, words_ in expected_words.items():
        if kind.startswith(prefix + "_"):
            hint = f"; quote it: '{value}'" if words_ == "text" and isinstance(value, int | float) else ""
            return f"{words_} is expected here, not {_say(value)}{hint if not isinstance(value, bool) else ''}"
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
    for step in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = _inner(field.annotation) if field else None
        else:
            arguments = get_args(kind)
            kind = _inner(arguments[-1 if get_origin(kind) is dict else 0]) if arguments else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name for name, field in kind.model_fields.items()}
    return set()


def _inner(annotation: Any) -> Any:
    optional = [kind for kind in get_args(annotation) if kind is not type(None)]
    return optional[0] if len(optional) == 1 and type(None) in get_args(annotation) else annotation
