"""Processes are found by what the kernel says about them, and nobody else's is touched."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from failover.errors import Failed
from failover.lab import process

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
]
PARENT = [
    sys.executable, "-c",
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])",
]  # fmt: skip


def finish(directory: Path) -> int:
    return process.end(lambda: process.marked(directory), signal.SIGKILL)


def test_what_was_started_is_found_and_ended_with_its_children(tmp_path: Path) -> None:
    started = process.spawn(tmp_path, "parent", PARENT, tmp_path / "log")
    assert process.until(lambda: len(process.marked(tmp_path)) == 2, 10)
    assert {found.part for found in process.marked(tmp_path)} == {"parent"}
    assert finish(tmp_path) == 2
    assert not process.alive(started)


def test_a_later_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    started = process.spawn(tmp_path, "one", FOREVER, tmp_path / "log")
    process.send([replace(started, started=started.started - 1)], signal.SIGKILL)
    assert process.alive(started)
    finish(tmp_path)


def test_a_directory_whose_name_begins_alike_is_another_laboratory(tmp_path: Path) -> None:
    other = process.spawn(tmp_path / "a#b", "other", FOREVER, tmp_path / "log")
    assert finish(tmp_path / "a") == 0
    assert process.alive(other)
    assert finish(tmp_path / "a#b") == 1


def test_who_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    deaf = process.spawn(tmp_path, "deaf", DEAF, log)
    assert process.until(lambda: "deaf" in log.read_text(), 10)
    assert process.end(lambda: process.marked(tmp_path), signal.SIGTERM, 0.3) == 1
    assert not process.alive(deaf)


def test_one_that_waits_to_be_reaped_does_not_run() -> None:
    child = subprocess.Popen(FOREVER)
    found = next(entry for entry in process.table() if entry.pid == child.pid)
    os.kill(child.pid, signal.SIGKILL)
    assert process.until(lambda: not process.alive(found), 5)
    child.wait()


def test_a_failure_carries_what_the_program_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ended with 3: no such luck"):
        process.run(tmp_path, "part", ["sh", "-c", "echo no such luck >&2; exit 3"])
    with pytest.raises(Failed, match="could not be run"):
        process.run(tmp_path, "part", [str(tmp_path / "nothing")])


def test_the_callers_own_settings_are_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGSERVICE", "AWS_PROFILE", "LC_ALL"):
        monkeypatch.setenv(name, "the caller's")
    assert "the caller's" not in process.run(tmp_path, "part", ["env"])
