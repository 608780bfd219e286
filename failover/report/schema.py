"""JSON Schema for editors, and the reference of the runbook's verbs; both come from the models that check files."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from failover.errors import Failed
from failover.inputs import MEANING, Input, Type
from failover.registry import found, provider
from failover.runbook import Head
from failover.schema import Model
from failover.topology import CheckModel, DatabaseModel, Header, RouteModel, ServiceModel
from failover.units import duration
from failover.verbs import VERBS, Spec

Schema = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_WHOLE: Schema = {"type": "string", "pattern": r"^\$\{[^}]+\}$", "description": "a value that is filled in"}
_INSIDE: Schema = {"type": "string", "pattern": r"\$\{[^}]+\}", "description": "a text with values filled in"}
_STEP_KEYS: Mapping[str, Schema] = {
    "id": {"type": ["string", "integer"], "description": "what other steps and the journal call it"},
    "needs": {
        "type": "array",
        "items": {"type": ["string", "integer"]},
        "description": "the ids of steps above that must be done first; without it, the step above",
    },
    "each": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": {
            "anyOf": [
                {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1},
                {"const": "all"},
                _WHOLE,
            ]
        },
        "description": "a name and the list that it goes through, like {site: [east, west]}; all means every region",
    },
    "parallel": {"type": "boolean", "description": "with each: all at once instead of one after another"},
    "steps": {"$ref": "#/$defs/steps", "description": "with each: what is done for each one"},
}


def topology_schema() -> Schema:
    """The schema of `failover.yaml`, with the keys of every provider that is installed and can be imported."""
    service = _of(ServiceModel)
    routes = [_config("routers", name, "RouteConfig") for name in sorted(found("routers"))]
    service["properties"]["routes"]["items"] = _merged(_of(RouteModel), routes)
    check = _provided("probes", CheckModel, _filled)
    looks = {key: value for key, value in check["properties"].items() if key in found("probes")}
    vantage = {**_provided("probes"), "properties": looks}
    check["properties"]["from"] = {**_each(vantage), "minProperties": 2}
    check["oneOf"].append({"required": ["from"]})
    check["dependentRequired"] = {"quorum": ["from"]}
    service["properties"]["checks"]["additionalProperties"] = check
    service["properties"]["load"]["anyOf"] = [{"type": "number", "minimum": 0}, _provided("probes")]
    names: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2, "uniqueItems": True}
    variables: Schema = {"type": "object", "additionalProperties": {"type": ["object", "null"]}, "minProperties": 2}
    parts: Mapping[str, Schema] = {
        "regions": {"anyOf": [names, variables]},
        "services": _each(service),
        "databases": _each(_provided("databases", DatabaseModel)),
        "routers": _each(_provided("routers")),
        "notifiers": _each(_provided("notifiers")),
        "store": {"anyOf": [_provided("stores"), {"type": "null"}]},
    }
    schema = _of(Header)
    schema["properties"].update(parts)
    return {"$schema": _DRAFT, "title": "failover topology", **schema}


def runbook_schema() -> Schema:
    """The schema of a runbook. Wherever it takes something other than text it takes `${name}` too."""
    schema = _of(Head)
    entry = _of(Input)
    choice = {"properties": {"type": {"const": "choice"}}}
    entry.update({"if": choice, "then": {"required": ["of"]}, "else": {"properties": {"of": {"maxItems": 0}}}})
    schema["properties"]["inputs"] = _each({"anyOf": [entry, {"enum": [t for t in get_args(Type) if t != "choice"]}]})
    schema["properties"]["steps"] = {"$ref": "#/$defs/steps"}
    step: Schema = {
        "type": "object",
        "properties": {**_STEP_KEYS, **{verb: _verb(model) for verb, model in VERBS.items()}},
        "additionalProperties": False,
        "oneOf": [{"required": [verb]} for verb in (*VERBS, "steps")],
        "dependentRequired": {"parallel": ["each"], "steps": ["each"]},
    }
    steps: Schema = {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}
    return {"$schema": _DRAFT, "title": "failover runbook", **schema, "$defs": {"step": step, "steps": steps}}


def runbook_reference() -> str:
    """Every verb with its keys, and every type of an input, in Markdown."""
    lines = ["## Steps", "", "A step is one verb, and these keys beside it:", ""]
    lines += _table(
        ("key", "type", "meaning"), [(f"`{k}`", _words(s), s["description"]) for k, s in _STEP_KEYS.items()]
    )
    lines += ["", "## Verbs"]
    for verb, model in VERBS.items():
        lines += ["", f"### {verb}", "", _about(model), ""]
        if model.shorthand:
            lines += [f"`{verb}: …` alone is short for `{verb}: {{{model.shorthand}: …}}`.", ""]
        lines += _keys(model)
    lines += ["", "## Inputs", "", _about(Input), ""]
    lines += [*_keys(Input), "", "`region: region` is short for `region: {type: region}`.", ""]
    lines += _table(("type", "what it takes"), [(f"`{name}`", MEANING[name]) for name in get_args(Type)])
    return "\n".join(lines) + "\n"


def _of(model: type[BaseModel]) -> Schema:
    """The schema of `model` in one piece, without the titles that repeat its keys."""
    schema = model.model_json_schema()
    made: Schema = _inlined(schema, schema.pop("$defs", {}))
    for part in made["properties"].values():
        if isinstance(part.get("default"), float) and _words(part) == "duration":
            part["default"] = duration(part["default"]) if part["default"] else 0
    return made


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target: Schema = definitions[schema["$ref"].rpartition("/")[2]]
        schema = target | {key: value for key, value in schema.items() if key != "$ref"}
    return {
        key: {name: _inlined(item, definitions) for name, item in value.items()}
        if key == "properties"
        else _inlined(value, definitions)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }


def _config(group: str, name: str, attribute: str = "Config") -> Schema | None:
    """The schema of a provider's model, or None where the provider cannot be imported."""
    try:
        return _of(getattr(provider(group, name), attribute))
    except Failed:
        return None


def _provided(
    group: str, model: type[Model] | None = None, change: Callable[[Schema], Schema] = lambda schema: schema
) -> Schema:
    """One provider of the kind `group` under its name, beside the keys of `model`."""
    own: Schema = _of(model) if model else {"type": "object", "properties": {}}
    kinds: dict[str, Schema] = {}
    for name in sorted(found(group)):
        config = _config(group, name)
        optional = config is None or not config.get("required")
        kinds[name] = {"anyOf": [change(config or {}), {"type": "null"}]} if optional else change(config or {})
    return {
        **own,
        "properties": {**own["properties"], **kinds},
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in kinds],
    }


def _merged(own: Schema, others: Iterable[Schema | None]) -> Schema:
    """`own` with the keys of any of `others`; open, if one of them is not known."""
    others = list(others)
    keys: dict[str, list[Schema]] = {}
    for other in others:
        for key, schema in (other or {}).get("properties", {}).items():
            if schema not in keys.setdefault(key, []):
                keys[key].append(schema)
    more = {key: kinds[0] if len(kinds) == 1 else {"anyOf": kinds} for key, kinds in keys.items()}
    if None in others:
        return {**own, "additionalProperties": True}
    return {**own, "properties": {**more, **own["properties"]}, "additionalProperties": False}


def _each(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _verb(model: type[Spec]) -> Schema:
    schema = _filled(_of(model))
    if not model.shorthand:
        return schema
    return {"anyOf": [schema, schema["properties"][model.shorthand]], "description": schema["description"]}


def _filled(schema: Schema) -> Schema:
    """`schema` with `${name}` allowed wherever something other than a mapping or a plain text stands."""
    changed = dict(schema)
    for key in ("properties", "additionalProperties", "items", "anyOf"):
        value = schema.get(key)
        if key == "properties" and isinstance(value, dict):
            changed[key] = {name: _filled(item) for name, item in value.items()}
        elif isinstance(value, dict):
            changed[key] = _filled(value)
        elif isinstance(value, list):
            changed[key] = [_filled(item) for item in value]
    if schema.get("type") == "string":
        plain = not schema.keys() & {"enum", "pattern", "minLength", "format"}
        return changed if plain else {"anyOf": [changed, _INSIDE]}
    fillable = schema.get("type") in ("integer", "number", "boolean", "array") or "enum" in schema
    return {"anyOf": [changed, _WHOLE]} if fillable else changed


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _keys(model: type[BaseModel]) -> list[str]:
    schema = _of(model)
    rows = []
    for key, part in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else _default(part.get("default"))
        rows.append((f"`{key}`", _words(part), default, part.get("description", "")))
    return _table(("key", "type", "default", "meaning"), rows)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`" if value else ""
    return f"`{value}`" if value is not None and value not in ("", {}) else ""


def _words(schema: Schema) -> str:
    """What `schema` takes, for a person."""
    if "enum" in schema and len(schema["enum"]) > 6:
        return "a word"
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    if kinds and {"const": 0} in kinds:
        return "duration"
    if kinds:
        return " or ".join(dict.fromkeys(map(_words, kinds)))
    kind = schema.get("type")
    if kind == "array":
        kind = schema.get("items", {}).get("type")
        return f"list of {_words(schema['items'])}s" if isinstance(kind, str) else "list"
    if kind == "object" and schema.get("properties"):
        return "secret" if set(schema["properties"]) == {"env", "file"} else "mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
    if isinstance(kind, list):
        return " or ".join(words[each] for each in kind)
    return words.get(
        kind or "", "list of steps" if "$ref" in schema else "mapping" if kind == "object" else "any value"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
