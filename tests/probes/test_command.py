"""The probe command, with real programs."""

import time
from pathlib import Path
from typing import Any

import pytest

from failover.probes.command import CommandProbe
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome


def shell(line: str, **more: Any) -> dict[str, Any]:
    return {"argv": ["sh", "-c", line], **more}


class TestCommandProbe(ProbeContract):
    provider = CommandProbe

    @pytest.fixture
    def good(self) -> dict[str, Any]:
        return {"argv": ["true"]}

    @pytest.fixture
    def bad(self) -> dict[str, Any]:
        return {"argv": ["false"]}

    @pytest.fixture
    def blind(self) -> dict[str, Any]:
        return {"argv": ["sleep", "60"], "timeout": "500ms"}


@pytest.mark.parametrize(
    ("line", "outcome", "says"),
    [
        ("echo all well; echo more", Outcome.PASS, "run sh: exit code 0: all well ("),
        ("echo slow >&2; exit 1", Outcome.FAIL, "run sh: exit code 1: slow ("),
        ("echo dead; exit 2", Outcome.FAIL, "run sh: exit code 2: dead ("),
        ("exit 3", Outcome.UNKNOWN, "run sh: exit code 3 ("),
        ("exit 127", Outcome.UNKNOWN, "run sh: exit code 127 ("),
        ("kill -9 $$", Outcome.UNKNOWN, "run sh: ended by signal 9 ("),
        ("yes | head -c 1000000; exit 0", Outcome.PASS, "run sh: exit code 0: y ("),
        ("printf '\\033[2Jgone'; exit 1", Outcome.FAIL, "run sh: exit code 1: [2Jgone ("),
    ],
)
def test_what_it_makes_of_an_exit_code(line: str, outcome: Outcome, says: str) -> None:
    verdict = see(CommandProbe, shell(line))
    assert verdict.outcome is outcome
    assert verdict.evidence[0].startswith(says)


@pytest.mark.parametrize("program", ["/no/such/program", "/etc/passwd"])
def test_a_program_that_cannot_be_started_is_unknown(program: str) -> None:
    verdict = see(CommandProbe, {"argv": [program]})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "it cannot be started" in verdict.evidence[0]


def test_what_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    line = f"(while :; do echo x >> {file}; sleep 0.02; done) & sleep 60"
    assert see(CommandProbe, shell(line, timeout="300ms")).outcome is Outcome.UNKNOWN
    deadline = time.monotonic() + 20
    size = -1
    while file.stat().st_size != size:
        assert time.monotonic() < deadline, "its child lives on"
        size = file.stat().st_size
        time.sleep(0.3)


def test_a_secret_reaches_the_program_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "canary-1234567")
    verdict = see(
        CommandProbe, shell('test "$TOKEN" = canary-1234567 && echo $TOKEN', env={"TOKEN": {"env": "CANARY"}})
    )
    assert verdict.passed
    assert "canary" not in verdict.evidence[0]
