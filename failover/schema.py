"""From a positioned document to checked models, with every mistake in our own words and at its own place."""

import re
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
_WORDS = re.compile(r"[\w./-]+( [\w./-]+){0,7}")


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
    short: str = "",
) -> M | None:
    """`data`, which stands at `loc` of `document`, as a `model`; or None, with its mistakes added to `problems`.

    `extra` are names besides the model's own fields that a misspelled key may have meant. Where `short` is given,
    the file has no mapping there but only what belongs to that field.
    """
    if not isinstance(data, Mapping):
        problems.append(document.problem(loc, f"a mapping (key: value) is expected here, not {_say(data)}"))
        return None
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        problems.extend(_problems(model, details, data, document, loc, tuple(extra), short))
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
    model: type[BaseModel],
    details: Sequence[Any],
    data: Any,
    document: Document,
    loc: Loc,
    extra: tuple[str, ...],
    short: str,
) -> Iterator[Problem]:
    meant = _meant(model, details, data)
    hidden = {path for path, detail in _placed(details, data) if _holds_secret(model, path, detail)}
    for path, detail in _one_of_each(details, data):
        kind = detail["type"]
        if kind == "missing" and path in meant:
            key = meant[path]
            message = f"unknown key '{key}'; did you mean '{path[-1]}'?"
            problem = document.problem((*loc, *path[:-1], key), message, key=True)
            yield replace(problem, source="", width=1) if _is_secret(model, path) else problem
        elif kind == "missing":
            yield document.problem((*loc, *path[:-1]), f"the key '{path[-1]}' is missing; add it here")
        elif kind != "extra_forbidden" or path not in {(*at[:-1], key) for at, key in meant.items()}:
            message = _message(model, detail, extra)
            place = path[1:] if short and path[:1] == (short,) else path
            problem = document.problem((*loc, *place), message, key=kind == "extra_forbidden")
            yield replace(problem, source="", width=1) if path in hidden else problem


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
    for path, detail in _placed(details, data):
        kind = detail["type"] if detail["type"] in ("missing", "extra_forbidden") else ""
        likelier = isinstance(detail["input"], Mapping) == (detail["type"] == "value_error")
        if (path, kind) not in chosen or likelier:
            chosen[path, kind] = detail
    return ((path, detail) for (path, _), detail in chosen.items())


def _placed(details: Sequence[Any], data: Any) -> Iterator[tuple[Loc, Any]]:
    """Each mistake with its path, without what pydantic puts behind it for a field of several kinds."""
    for detail in details:
        path: Loc = detail["loc"]
        while detail["type"] not in ("missing", "extra_forbidden") and path and not _stands(data, path):
            path = path[:-1]
        yield path, detail


def _holds_secret(model: type[BaseModel], path: Loc, detail: Any) -> bool:
    """Whether a secret stands at `path` itself, or under a key that was to be the one for a secret."""
    if detail["type"] != "extra_forbidden":
        error = detail.get("ctx", {}).get("error")
        optional = isinstance(detail["input"], int | float) and path != detail["loc"]
        if isinstance(error, InTheFile) and not optional:
            error.remember()
            return True
        return False
    near = get_close_matches(str(path[-1]), _fields(model, path[:-1]), n=1, cutoff=0.5)
    return bool(near) and _is_secret(model, (*path[:-1], near[0]))


def _is_secret(model: type[BaseModel], path: Loc) -> bool:
    owner = _kind(model, path[:-1])
    fields = owner.model_fields.items() if isinstance(owner, type) and issubclass(owner, BaseModel) else ()
    return any("Secret" in str(field.annotation) for name, field in fields if (field.alias or name) == path[-1])


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
        who = f"'{loc[-1]}' " if loc and isinstance(loc[-1], str) else ""
        return f"{who}must be {words.get(kind, 'at most')} {number}, not {value}"
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
            return f"{words_} is expected here, not {_say(value)}{_hint(words_, value)}"
    return str(detail["msg"])


def _hint(expected: str, value: Any) -> str:
    if expected == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        return f"; quote it: '{value}'"
    if expected == "a list" and isinstance(value, str) and _WORDS.fullmatch(value):
        return f"; write [{', '.join(value.split())}]"
    return ""


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
    kind = _kind(model, loc)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name for name, field in kind.model_fields.items()}
    return set()


def _kind(model: type[BaseModel], loc: Sequence[str | int]) -> Any:
    kind: Any = model
    for step in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = _inner(field.annotation) if field else None
        else:
            arguments = get_args(kind)
            kind = _inner(arguments[-1 if get_origin(kind) is dict else 0]) if arguments else None
    return kind


def _inner(annotation: Any) -> Any:
    optional = [kind for kind in get_args(annotation) if kind is not type(None)]
    return optional[0] if len(optional) == 1 and type(None) in get_args(annotation) else annotation
