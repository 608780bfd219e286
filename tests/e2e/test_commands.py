"""Every command on an estate in memory: what it says, its exit code, and its one JSON document."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.in_memory import TOPOLOGY, Estate
from tests.e2e.product import FAILOVER, ROOT, environment, failover

LOOKING = ("status", "check", "plan", "runs", "show", "validate", "schema", "providers")
ACTING = ("run", "resume", "abort", "undo", "drain", "restore", "promote", "drill", "release", "lab")
COMMANDS = (*LOOKING, *ACTING)
DEPLOY = """
import os, pathlib, sys
region = os.environ["FAILOVER_REGION"]
with open(sys.argv[1], "a") as log:
    log.write(region + "\\n")
if pathlib.Path(sys.argv[1] + "." + region).exists():
    print("no room for it in", region)
    sys.exit(7)
"""
RUN = ("run", "evacuate-region", "-i", "region=east")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(estate: Estate, command: str) -> None:
    said = estate(*filter(None, (command, "--help")))
    assert "Usage: failover" in said
    assert "-h" in said
    if not command:
        assert [name for name in COMMANDS if f"  {name} " not in said] == []


def test_version_and_no_command(estate: Estate) -> None:
    assert estate("--version").startswith("failover ")
    estate(code=2)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("plan", "evacuate-regio"), 2, "did you mean 'evacuate-region'?"),
        (("plan", "evacuate-region"), 2, "region"),
        (("plan", "evacuate-region", "-i", "region=esat"), 2, "did you mean 'east'?"),
        (("plan", "evacuate-region", "-i", "regoin=east"), 2, "did you mean 'region'?"),
        (("plan", "evacuate-region", "-i", "region"), 2, "is not NAME=VALUE"),
        (("plan", "evacuate-region", "-i", "region=east", "-i", "region=west"), 2, "given twice"),
        (("plan", "evacuate-region", "-i", "region=east", "-i", "pace=slow"), 2, "slow"),
        ((*RUN, "--yes", "--accept", "data-los", "--reason", "x"), 2, "did you mean 'data-loss'?"),
        ((*RUN, "--yes", "--accept", "data-loss"), 2, "--accept data-loss needs --reason"),
        ((*RUN, "--yes", "--accept", "data-loss", "--reason", "  "), 2, "--accept data-loss needs --reason"),
        ((*RUN, "--yes", "--accept", "all-weights-zero", "--reason", "x"), 2, "cannot be waived"),
        ((*RUN, "--yes", "--purpose", "fun"), 2, "'fun' is not a purpose"),
        (RUN, 2, "nobody is here to be asked"),
        (("show", "no-such-run"), 2, "there is no run called 'no-such-run'"),
        (("resume", "no-such-run"), 2, "there is no run called 'no-such-run'"),
        (("abort", "no-such-run"), 2, "there is no run called 'no-such-run'"),
        (("undo", "no-such-run"), 2, "there is no run called 'no-such-run'"),
        (("resume", "x", "--skip", "drain"), 2, "--skip needs --reason"),
        (("plan", "no/such/file.yaml"), 2, "no/such/file.yaml"),
        (("status", "-t", "no-such.yaml"), 2, "no-such.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_has_no_meaning_is_refused_with_the_way_on(
    estate: Estate, words: tuple[str, ...], code: int, said: str
) -> None:
    assert estate(*words, code=code) == ""
    assert said in estate.err
    assert not (estate.place / "journal.db").exists()
    if words[0] != "nonsense":
        assert json.loads(estate(*words, "--json", code=code))["error"]["exit_code"] == code


def test_the_commands_that_look(estate: Estate) -> None:
    assert estate.json("status")["open_runs"] == []
    assert "50 %" in estate("status")
    assert "There are no runs yet." in estate("runs")
    assert estate.json("runs") == {"runs": []}
    assert "evacuate-region" in estate("validate")
    assert estate.json("validate")["problems"] == []
    assert "region" in estate.json("show", "evacuate-region")["inputs"]
    assert "failover/evacuate" not in estate("show", "evacuate-region")
    assert "sqlite" in estate.json("providers")["stores"]
    assert "route53" in estate("providers")
    assert estate.json("check")["refused"] is None
    estate.sick("west")
    assert estate.json("check", "west", code=1)["refused"]["exit_code"] == 1
    estate("check", "east")
    assert "its cable was cut" in estate("status")
    assert not (estate.place / "journal.db").exists()


def test_a_plan_is_approved_by_its_hash(estate: Estate) -> None:
    planned = estate.json("plan", "evacuate-region", "-i", "region=east")
    assert planned["plan"] in estate("plan", "evacuate-region", "-i", "region=east")
    estate(*RUN, "--plan", "000000000000", code=3)
    assert f"the plan is {planned['plan']} now, not 000000000000" in estate.err
    estate(*RUN, "--plan", planned["plan"][:5], code=3)
    record = estate.json(*RUN, "--plan", planned["plan"][:6])
    assert (record["plan"], record["changes"]) == (planned["plan"], planned["changes"])
    estate(*RUN, "--plan", planned["plan"], code=3)
    assert len(estate.json("runs")["runs"]) == 1


def test_the_verbs_as_commands(estate: Estate) -> None:
    estate("drain", "east", "--yes")
    assert estate.weights() == {"east": 0, "west": 200}
    estate("drain", "west", "--yes", code=3)
    assert "refused  " in estate.err
    assert "nothing was changed" in estate.err
    estate("restore", "east", "--yes", "--pace", "immediate")
    assert estate.weights() == {"east": 100, "west": 100}
    estate("promote", "--to", "west", "--yes")
    assert estate.json("status")["databases"]["orders"]["west"]["role"] == "primary"
    estate("promote", "orders", "--to", "east", "--yes")
    assert estate.json("status")["databases"]["orders"]["east"]["role"] == "primary"
    estate("drill", "east", "--hold", "0s", "--yes")
    last = estate.json("runs")["runs"][-1]
    assert (last["runbook"], last["purpose"], last["status"]) == ("game-day", "drill", "done")
    assert estate.weights() == {"east": 100, "west": 100}


def test_a_run_can_be_undone(estate: Estate) -> None:
    estate(*RUN, "--yes")
    run = estate.last()
    assert estate.json("show", run)["events"][-1]["kind"] == "run-ended"
    estate("resume", run, "--yes", code=2)
    assert "is over" in estate.err
    estate("undo", run, "--yes")
    assert estate.weights() == {"east": 100, "west": 100}
    assert estate.json("status")["databases"]["orders"]["east"]["role"] == "primary"
    estate("undo", run, code=2)


def test_a_release_goes_region_by_region(estate: Estate) -> None:
    log = estate.place / "log"
    estate("release", "--yes", "--", sys.executable, "-c", DEPLOY, str(log), "--json", "-h")
    assert log.read_text().split() == ["east", "west"]
    assert estate.json("runs")["runs"][-1]["purpose"] == "release"
    assert estate.weights() == {"east": 100, "west": 100}
    only = estate.json("release", "--yes", "--region", "west", "--json", "--", sys.executable, "-c", DEPLOY, str(log))
    assert log.read_text().split() == ["east", "west", "west"]
    assert only["regions"] == ["west"]


def _failed_release(estate: Estate) -> tuple[str, Path]:
    log, full = estate.place / "log", estate.place / "log.west"
    full.touch()
    estate("release", "--yes", "--", sys.executable, "-c", DEPLOY, str(log), code=6)
    said = estate.err
    assert "no room for it in west" in said
    assert log.read_text().split() == ["east", "west"]
    assert estate.weights() == {"east": 200, "west": 0}
    run = estate.last()
    assert f"failover resume {run}" in said
    assert estate.json("status")["open_runs"] == [run]
    assert estate.json("status")["held"].keys() == {"east", "west"}
    estate("drain", "west", "--yes", code=5)
    assert f"is held by run {run}" in estate.err
    return run, full


def test_a_release_that_failed_is_tried_again(estate: Estate) -> None:
    run, full = _failed_release(estate)
    estate("resume", run, "--yes", code=6)
    full.unlink()
    estate("resume", run, "--yes")
    assert (estate.place / "log").read_text().split() == ["east", "west", "west", "west"]
    assert estate.weights() == {"east": 100, "west": 100}
    assert estate.json("status")["open_runs"] == []


def test_a_release_that_failed_goes_on_without_the_command(estate: Estate) -> None:
    run, _ = _failed_release(estate)
    step = next(one["id"] for one in estate.json("show", run)["steps"] if one["status"] == "failed")
    estate("resume", run, "--yes", "--skip", "no-such-step", "--reason", "by hand", code=2)
    estate("resume", run, "--yes", "--skip", step, "--reason", "deployed by hand")
    assert "skipped: deployed by hand" in estate("show", run)
    assert estate.weights() == {"east": 100, "west": 100}


def test_a_release_that_failed_is_left_where_it_is(estate: Estate) -> None:
    run, _ = _failed_release(estate)
    estate("undo", run, code=2)
    assert estate.json("show", run)["status"] == "stopped", "an undo that nobody agreed to leaves it resumable"
    assert "made and left as is" in estate("abort", run, "--reason", "next week")
    assert estate.json("status")["held"] == {}
    assert estate.weights() == {"east": 200, "west": 0}
    estate("restore", "west", "--yes")


def test_a_release_that_failed_is_undone_at_once(estate: Estate) -> None:
    run, _ = _failed_release(estate)
    estate("undo", run, "--yes")
    assert estate.json("show", run)["status"] == "aborted"
    assert estate.json("status")["held"] == {}
    assert estate.weights() == {"east": 100, "west": 100}


def test_a_sick_survivor_refuses_and_can_be_waived(estate: Estate) -> None:
    estate.sick("west")
    estate("drain", "east", "--yes", code=1)
    assert "its cable was cut" in estate.err
    assert estate.json("runs")["runs"] == []
    estate.well()
    estate("drain", "east", "--yes")


def test_an_approval_is_waited_for(estate: Estate) -> None:
    book = estate.place / "asks.yaml"
    book.write_text(
        "runbook: asks\nsteps:\n  - id: go\n    approve: is the moon out\n  - id: drain\n    drain: {region: east}\n"
    )
    estate("run", str(book), "--yes", code=6)
    said = estate.err
    run = estate.last()
    assert f"failover resume {run} --approve go" in said
    estate("resume", run, "--yes", "--approve", "go")
    assert estate.weights() == {"east": 0, "west": 200}


def test_files_that_have_changed_are_shown(estate: Estate) -> None:
    run, full = _failed_release(estate)
    full.unlink()
    estate.topology.write_text(estate.topology.read_text().replace("soak: 0s", "soak: 7min"))
    estate("resume", run, code=2)
    assert "+drain: {stages: [50, 0], soak: 7min}" in estate.err
    estate("resume", run, "--yes")


def test_a_topology_that_is_not_there(tmp_path: Path) -> None:
    done = failover(None, "status", code=2, cwd=tmp_path)
    assert "there is no failover.yaml in this directory" in done.err
    assert "failover lab up" in done.err
    assert failover(None, "status", "--json", code=2, cwd=tmp_path).json["error"]["exit_code"] == 2


@pytest.mark.parametrize("words", [("plan", "drain", "--bogus"), ("run",), ("nonsense",), ("lab", "up", "--nope")])
def test_a_program_that_calls_it_wrongly_gets_a_document_too(estate: Estate, words: tuple[str, ...]) -> None:
    error = estate.json(*words, code=2)["error"]
    assert (error["exit_code"], error["next"]) == (2, "failover --help")


def test_a_defect_is_an_error_like_any_other(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("failover.registry.open_estate", broken)
    error = estate.json("status", code=1)["error"]
    assert error["what"] == "a defect of failover itself: ZeroDivisionError: division by zero"
    assert "options.py:" in error["where"]
    assert "failover status" in error["next"]


def test_a_terminal_without_our_letters_is_told_everything(tmp_path: Path) -> None:
    topology = tmp_path / "failover.yaml"
    topology.write_text(TOPOLOGY.format(name="ascii", place=tmp_path))
    done = failover(topology, "plan", "drain", "-i", "region=east", PYTHONIOENCODING="ascii")
    assert "east 50 ? 25 ? 0 %" in done.out


def test_a_watch_that_nobody_watches_ends(tmp_path: Path) -> None:
    topology = tmp_path / "failover.yaml"
    topology.write_text(TOPOLOGY.format(name="watch", place=tmp_path))
    watch = subprocess.Popen(
        [*FAILOVER, "status", "--watch"], stdout=subprocess.PIPE, env=environment(topology), cwd=ROOT
    )
    assert watch.stdout is not None
    assert b"region" in watch.stdout.readline()
    watch.stdout.close()
    assert watch.wait(30) == 0


CHECKS = "{up: {memory: {}}}"
BOOK = "runbook: book\nsteps:\n  - drain: {region: east}\n  - command: ['false']\n"


def stopped(estate: Estate) -> str:
    """A run that has drained east and then stopped."""
    (estate.place / "book.yaml").write_text(BOOK)
    estate("run", "./book.yaml", "--yes", code=6)
    return estate.last()


def test_a_runbook_that_cannot_be_read_any_more_does_not_keep_a_run_from_going_on(estate: Estate) -> None:
    run = stopped(estate)
    (estate.place / "book.yaml").write_bytes(b"\xff\xfe")
    estate("resume", run, "--yes", "--skip", "command-2", "--reason", "not needed")
    assert "book.yaml cannot be read now" in estate.err


def test_an_altered_journal_holds_nobody_up_for_ever(estate: Estate) -> None:
    run = stopped(estate)
    with closing(sqlite3.connect(estate.place / "journal.db")) as journal, journal:
        journal.execute("UPDATE events SET event = event || ' ' WHERE stream = ? AND seq = 3", (f"run/{run}",))
    assert estate.json("status")["held"]["east"]["run"] == run
    assert estate.json("runs")["runs"] == []
    assert f"the journal of run {run} was altered at event 4" in estate.err
    estate("restore", "east", "--yes", code=1)
    assert f"failover abort {run} lets go" in estate.err
    assert estate("abort", run).startswith(f"let go   {run}: east;")
    estate("restore", "east", "--yes")


def test_what_is_not_declared_any_more_cannot_be_undone_and_is_named(estate: Estate) -> None:
    estate("drain", "east", "--yes")
    run = estate.last()
    estate.topology.write_text(estate.topology.read_text().replace("dns", "edge"))
    estate("undo", run, "--yes", code=2)
    assert "route web@dns, which" in estate.err
    assert "--topology FILE" in estate.err


def test_only_a_drain_is_a_drain(estate: Estate) -> None:
    estate("promote", "--to", "west", "--yes")
    assert "incident" not in estate("status")
    estate("drain", "east", "--yes")
    [east, west] = [line for line in estate("status").splitlines() if line.startswith(("east", "west"))]
    assert "incident" in east
    assert "never" in west


def test_the_way_back_brings_back_what_was_drained_and_no_more(estate: Estate) -> None:
    assert "run restore -i region=east\n" in estate("drain", "east", "--yes")
    estate("restore", "east", "--yes")
    text = estate.topology.read_text()
    estate.topology.write_text(text.replace("services:", f"services:\n  api: {{checks: {CHECKS}}}"))
    assert "-i region=east -i services=web\n" in estate("drain", "east", "--service", "web", "--yes")


def test_people_in_two_directories_meet_in_one_journal(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate.topology.write_text(estate.topology.read_text().replace(f"path: {tmp_path}/", "path: "))
    run = stopped(estate)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    estate("drain", "east", "--yes", code=5)
    assert f"region east is held by run {run}" in estate.err


def test_a_run_goes_on_in_the_journal_that_it_was_found_in(estate: Estate) -> None:
    run = stopped(estate)
    text = estate.topology.read_text()
    with closing(sqlite3.connect("journal.db")) as old, closing(sqlite3.connect("moved.db")) as new:
        old.backup(new)
    estate.topology.write_text(text.replace("/journal.db", "/moved.db"))
    estate("resume", run, "--yes", "--skip", "command-2", "--reason", "not needed")
    assert estate.json("runs")["runs"][-1]["status"] == "done"
    estate.topology.write_text(text)
    assert estate.json("runs")["runs"][-1]["status"] == "stopped"


def test_evidence_is_a_gate_for_planned_work(estate: Estate) -> None:
    assert "never" in estate("evidence")
    estate("evidence", "--max-age", "30d", "east", code=1)
    estate("drain", "east", "--yes", "--purpose", "release")
    said = estate("evidence", "--max-age", "30d", "east")
    assert "release" in said
    assert "unchanged" in said
    path = estate.json("evidence", "--max-age", "30d", "east")["paths"][0]
    assert path["exact"]["purpose"] == "release"
    assert (path["differs"], path["overdue"]) == ([], False)
    estate("evidence", "--max-age", "1ms", "east", code=1)
    estate("evidence", "aest", code=2)
    estate("evidence", "--max-age", "soon", code=2)
