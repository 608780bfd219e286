"""A starter that is killed anywhere leaves nothing that `down` does not find."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from failover.lab import process
from failover.lab.lab import AlreadyUp, down, up
from failover.lab.state import NoLab, load, read
from tests.lab.conftest import traces

UP = "import sys, pathlib; from failover.lab.lab import up; up(pathlib.Path(sys.argv[1]))"


@pytest.mark.parametrize("moment", ["route53", "initdb-east", "postgres-east", "pg_basebackup-west", "dns"])
def test_down_after_a_killed_up_leaves_no_process_and_no_file(tmp_path: Path, moment: str) -> None:
    directory = tmp_path / "lab"
    starter = subprocess.Popen([sys.executable, "-c", UP, str(directory)])
    assert process.until(lambda: moment in {found.part for found in process.marked(directory)}, 30, 0.005)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    with pytest.raises(NoLab, match="never finished"):
        load(directory)
    with pytest.raises(AlreadyUp, match="not taken down"):
        up(directory)
    shelter = read(directory).shelter
    down(directory)
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
