"""The JSON Schemas that editors use, held against every file that the product itself takes or refuses."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from failover import registry
from failover.errors import Failed, Invalid
from failover.report.schema import runbook_reference, runbook_schema, topology_schema
from failover.verbs import VERBS
from tests.files import test_files as files

BUNDLED = sorted(registry.FileLibrary().folders[-1].glob("*.yaml"))
VALID = {kind: sorted((files.HERE / "valid" / kind).glob("*.yaml")) for kind in files.KINDS}
SEEN = re.compile(
    r"^(?!.*this default).*(?:unknown (verb|key)|is expected here|the key '\w+' is missing|has no unit|"
    r"is not a duration|has no verb|a step has one verb|this is empty|a list with at least one step|"
    r"must be at least|at least two regions|a choice needs its words|'parallel'|takes keys here|"
    r"where the primaries go|a mapping with one verb)"
)
SCHEMAS = {"topologies": Draft202012Validator(topology_schema()), "runbooks": Draft202012Validator(runbook_schema())}


def plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    return [plain(item) for item in node] if isinstance(node, list) else node


def takes(kind: str, path: Path) -> bool:
    return bool(SCHEMAS[kind].is_valid(plain(files.document(path).root)))


@pytest.mark.parametrize("kind", files.KINDS)
def test_a_schema_is_one(kind: str) -> None:
    schema = SCHEMAS[kind].schema
    Draft202012Validator.check_schema(schema)
    assert "$ref" not in str(schema).replace("'$ref': '#/$defs/step", "")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *(("topologies", path) for path in (*VALID["topologies"], files.HERE / "failover.yaml")),
        *(("runbooks", path) for path in (*VALID["runbooks"], *BUNDLED)),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_what_is_right_passes(kind: str, path: Path) -> None:
    files.OPEN[kind](path)
    SCHEMAS[kind].validate(plain(files.document(path).root))


def test_what_is_wrong_by_its_form_fails() -> None:
    passed = []
    for path in files.WRONG:
        expected = path.with_suffix(".expected").read_text(encoding="utf-8")
        try:
            files.document(path)
        except Invalid:
            continue
        if any(SEEN.search(line) for line in expected.splitlines() if line.startswith(f"{path.name}:")):
            passed += [path.stem] if takes(path.parent.name, path) else []
    assert passed == ["list-inside-a-text"]  # it is right in form, and what is filled in has the wrong type


def test_a_provider_that_cannot_be_imported_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def provider(group: str, name: str) -> Any:
        if name in ("route53", "postgres"):
            raise Failed("it is not installed")
        return registry.provider(group, name)

    monkeypatch.setattr("failover.report.schema.provider", provider)
    schema = Draft202012Validator(topology_schema())
    for path in VALID["topologies"]:
        schema.validate(plain(files.document(path).root))
    root = plain(files.document(VALID["topologies"][0]).root)
    root["databases"]["orders"]["postgres"]["whatever"] = 1
    schema.validate(root)


def test_the_reference_has_every_verb_and_key() -> None:
    reference = runbook_reference()
    for verb, model in VERBS.items():
        section = reference.partition(f"### {verb}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in section
        assert "|  |\n" not in section
    assert reference == runbook_reference()
    assert "| `within` | duration | `1 min` |" in reference
