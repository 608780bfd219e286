"""The pages say what is so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.reference import PAGE, page
from failover.guards import MEMBER_GUARDS, ROUTE_GUARDS, WAIVABLE
from failover.registry import KINDS, found, open_estate
from failover.yaml import load

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_runbook_reference_is_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m docs.reference"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_every_guard_is_explained() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \|.*\| (yes|no)", (ROOT / "docs/concepts.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    explained = dict(rows)
    assert {name: explained.get(name) for name in (*ROUTE_GUARDS, *MEMBER_GUARDS)} == {
        name: "yes" if name in WAIVABLE else "no" for name in (*ROUTE_GUARDS, *MEMBER_GUARDS)
    }


def test_every_provider_is_documented() -> None:
    text = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    assert [name for kind in KINDS for name in found(kind) if f"`{name}`" not in text] == []


def _blocks() -> list[tuple[str, str]]:
    shown = [
        (f"{page.name}-{at}", text)
        for page in PAGES
        for at, text in enumerate(
            re.findall(r"^```yaml\n(topology:(?:.|\n)*?)^```$", page.read_text("utf-8"), re.MULTILINE)
        )
    ]
    assert shown
    return shown


@pytest.mark.parametrize("text", [text for _, text in _blocks()], ids=[name for name, _ in _blocks()])
def test_a_topology_that_is_shown_is_a_topology(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\{env: (\w+)\}", text):
        monkeypatch.setenv(name, "c2VjcmV0")
    file = tmp_path / "failover.yaml"
    file.write_text(text, encoding="utf-8")
    assert open_estate(load(file)).topology.regions


def test_the_readme_shows_the_plan_that_is_printed_today(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/first-look/failover.yaml", tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command, shown = re.findall(r"^```\n\$ (failover .*)\n((?:.|\n)*?)```$", readme, re.MULTILINE)[0]
    ran = subprocess.run(
        [Path(sys.executable).with_name("failover"), *command.split()[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert ran.stdout == shown
