"""A starter that is killed anywhere leaves nothing that `down` does not find."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.lab import process
from failover.lab.lab import AlreadyUp, down, up
from failover.lab.state import NoLab, load, read
from tests.lab.conftest import traces

# Dies the moment after it has started the given part, with the part still at work.
UP = """
import os, pathlib, signal, subprocess, sys
from failover.lab.lab import up
directory, moment = sys.argv[1:]
run = subprocess.run
def dying(argv, **options):
    part = options.get("env", {}).get("FAILOVER_LAB_PART")
    if part != moment:
        return run(argv, **options)
    if "check" in options and options["check"]:
        run(argv, **options)
    else:
        options.pop("timeout"), options.pop("check")
        subprocess.Popen(argv, **options)
    os.kill(os.getpid(), signal.SIGKILL)
subprocess.run = dying
up(pathlib.Path(directory))
"""
MOMENTS = ["route53", "initdb-east", "postgres-east", "pg_basebackup-west", "dns", "postgres-west"]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "lab"
    down(tmp_path / "lab")


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_after_a_killed_up_leaves_no_process_and_no_file(directory: Path, moment: str) -> None:
    starter = subprocess.run([sys.executable, "-c", UP, str(directory), moment], check=False, timeout=120)
    assert starter.returncode == -signal.SIGKILL
    with pytest.raises(NoLab, match="never finished"):
        load(directory)
    with pytest.raises(AlreadyUp, match="not taken down"):
        up(directory)
    shelter = read(directory).shelter
    assert down(directory) > 0
    assert not directory.exists()
    assert shelter is None or not shelter.exists()
    assert traces(directory) == []


def test_processes_are_found_where_the_directory_was_removed_by_hand(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    process.spawn(directory, "left", [sys.executable, "-c", "import signal; signal.pause()"], tmp_path / "log")
    assert down(directory) == 1
    assert traces(directory) == []


@pytest.mark.parametrize("left", [[], ["lab.json.new"]])
def test_a_directory_of_an_up_that_hardly_began_is_removed(tmp_path: Path, left: list[str]) -> None:
    directory = tmp_path / "lab"
    directory.mkdir()
    for name in left:
        (directory / name).touch()
    down(directory)
    assert not directory.exists()
