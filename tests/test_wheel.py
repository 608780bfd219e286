"""The built wheel works on its own: in a new virtual environment, outside the checkout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLED = {path.stem for path in (ROOT / "runbooks").glob("*.yaml")}
Failover = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def failover(tmp_path_factory: pytest.TempPathFactory) -> Failover:
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", place, ROOT], check=True, cwd=place)
    [wheel] = place.glob("failover-*.whl")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    inside = [place / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*inside, "install", wheel], check=True, cwd=place)
    (place / "failover.yaml").write_text((ROOT / "examples" / "first-look" / "failover.yaml").read_text())
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FAILOVER", "VIRTUAL"))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = str(place / "venv" / "bin" / "failover")
        return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=place, env=env, check=False)

    return run


def test_every_bundled_runbook_is_inside_and_valid(failover: Failover) -> None:
    done = failover("validate", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["runbooks"]) == BUNDLED


def test_a_bundled_runbook_runs_from_the_wheel(failover: Failover) -> None:
    done = failover("run", "drain", "-i", "region=east", "-i", "pace=immediate", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"


def test_the_lab_says_what_it_lacks(failover: Failover) -> None:
    done = failover("lab", "up")
    assert done.returncode == 1
    assert "pip install 'failover[lab]'" in done.stderr


def test_a_provider_without_its_library_says_what_to_install(failover: Failover, tmp_path: Path) -> None:
    topology = tmp_path / "failover.yaml"
    topology.write_text(
        "topology: t\nregions: [east, west]\ndatabases:\n  orders:\n    primary: east\n"
        "    postgres: {database: d, user: u, members: {east: {host: h}, west: {host: i}}}\n"
    )
    done = failover("validate", "--topology", str(topology))
    assert done.returncode == 2
    assert "pip install 'failover[postgres]'" in done.stderr
