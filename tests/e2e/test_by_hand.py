"""Stopped by hand, in every way a person or a machine can: a known state, the right exit code, and the way on."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from failover.lab import postgres
from tests.e2e.laboratory import Laboratory, Topology, ended, events, last_run, made
from tests.e2e.product import ESCAPE, FAILOVER, ROOT, Running, Terminal, environment, failover, until
from tests.parts import program

DRAIN = ("run", "drain", "-i", "region=east")
UNSEEN = ("--accept", "replica-lag", "--reason", "its replay is paused by this test")
SOAKING = "soak after drain east to 0 %"
QUICK = """
runbook: quick
inputs: {region: {type: region}}
steps:
  - id: promote
    promote: {databases: all, away_from: "${region}", within: 4s}
"""


def _long(topology: Topology) -> None:
    """One stage with a soak that nobody sits out."""
    topology["drain"] |= {"stages": [0], "soak": "10min"}


def _stopped(lab: Laboratory, topology: Path, status: str = "stopped") -> str:
    """The run is resumable and holds its region; what it had done stands. Its name."""
    seen = failover(topology, "status", "--json").json
    run = last_run(topology)
    assert seen["open_runs"] == [run]
    assert seen["held"]["east"]["run"] == run
    assert seen["routes"]["web@dns"]["weights"] == {"east": 0, "west": 100}
    assert failover(topology, "show", run, "--json").json["status"] == status
    assert lab.primaries() == ["east"]
    return run


def _resumes(topology: Path, run: str) -> None:
    effects = made(topology)
    assert failover(topology, "resume", run, "--yes", "--json").json["status"] == "done"
    assert made(topology) == effects, "nothing is done a second time"
    ended(topology)


def test_while_a_run_lives_nobody_else_gets_its_region(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path, _long)
    with Running(topology, *DRAIN, "--yes") as running:
        running.says(SOAKING)
        run = last_run(topology)
        other = failover(topology, *DRAIN, "--yes", code=5)
        assert re.search(rf"region east is held by run {run}, by \S+ on \S+ since \d{{4}}-", other.said)
        assert f"failover show {run}" in other.said
        alive = failover(topology, "resume", run, "--yes", code=5)
        assert f"is being carried out by process {running.process.pid} of " in alive.said
        assert "--take-over" in alive.said
        assert failover(topology, "resume", run, "--yes", "--take-over", "--json").json["status"] == "done"
        running.send(signal.SIGTERM)
        lost = running.end(5)
    assert f"run {run} was taken over by another process" in lost.said
    ended(topology)


@pytest.mark.parametrize("word", ["abort", "undo"])
def test_a_living_run_is_ended_from_elsewhere_only_by_taking_it_over(
    lab: Laboratory, tmp_path: Path, word: str
) -> None:
    topology = lab.variant(tmp_path, _long)
    with Running(topology, *DRAIN, "--yes") as running:
        running.says(SOAKING)
        run = last_run(topology)
        yes = ["--yes"] if word == "undo" else []
        assert "--take-over" in failover(topology, word, run, *yes, code=5).said
        failover(topology, word, run, *yes, "--take-over")
        running.send(signal.SIGTERM)
        running.end(5)
    assert failover(topology, "show", run, "--json").json["status"] == "aborted"
    ended(topology)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_the_first_signal_stops_between_two_changes(lab: Laboratory, tmp_path: Path, number: signal.Signals) -> None:
    topology = lab.variant(tmp_path, _long)
    with Running(topology, *DRAIN, "--yes") as running:
        running.says(SOAKING)
        running.send(number)
        done = running.end(6)
    run = events(topology)[0]
    assert run["kind"] == "run-started"
    assert f"{number.name}: stopping after the change in flight" in done.err
    assert re.search(r"failover resume \S+-east, or failover undo \S+-east", done.said)
    assert "now web east 0 %, west 100 %" in done.said
    assert "\x1b" not in done.all
    stopped = events(topology)[-1]
    assert (stopped["kind"], stopped["exit_code"]) == ("run-stopped", 6)
    if number is signal.SIGINT:
        _resumes(topology, _stopped(lab, topology))


def test_the_second_signal_stops_at_once(lab: Laboratory, tmp_path: Path) -> None:
    """A fence that its device takes long for; what it cuts off is read back by resume."""
    device = tmp_path / "slow"
    device.write_text('#!/bin/sh\ntouch "$0.began"\nexec sleep 60\n')
    device.chmod(0o755)

    def slow(topology: Topology) -> None:
        member = topology["databases"]["orders"]["postgres"]["members"]["east"]
        fence, member["fence"] = member["fence"], [str(device)]
        assert fence
        topology["databases"]["orders"]["postgres"]["within"] = "5s"

    topology = lab.variant(tmp_path, slow)
    postgres.kill(lab.lab, lab.lab.regions["east"])
    words = ("run", "evacuate-region", "-i", "region=east", "-i", "pace=immediate", "--yes")
    with Running(topology, *words, "--accept", "data-loss", "--reason", "it is dead") as running:
        until(device.with_name("slow.began").exists)
        running.send(signal.SIGINT)
        running.says("once more to stop at once")
        running.send(signal.SIGINT)
        done = running.end(6)
    assert "SIGINT again: stopping at once" in done.err
    run = last_run(topology)
    assert failover(topology, "show", run, "--json").json["status"] == "running"
    device.write_text("#!/bin/sh\nexit 0\n")
    assert failover(topology, "resume", run, "--yes", "--json").json["status"] == "done"
    assert lab.primaries() == ["west"]
    ended(topology)


def test_a_signal_in_a_switchover_leaves_somebody_who_takes_writes(lab: Laboratory, tmp_path: Path) -> None:
    """Stopped while the target catches up: it promotes, as that is nearer than the way back, and stops then."""
    topology = lab.variant(tmp_path)
    with Behind(lab), Running(topology, "run", "promote", "-i", "to=west", "--yes", *UNSEEN) as running:
        running.says("stop its writes")
        until(lambda: lab.primaries() == [], 20)
        running.send(signal.SIGINT)
        running.says("stopping after the change in flight")
        _replay(lab)
        running.end(6)
    assert lab.primaries() == ["west"]
    run = last_run(topology)
    assert failover(topology, "resume", run, "--yes", "--json").json["status"] == "done"
    assert made(topology, run) == ["east primary → fenced", "west replica → primary", "east fenced → replica"]


def test_a_switchover_that_cannot_end_gives_the_source_back(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path)
    book = tmp_path / "quick.yaml"
    book.write_text(QUICK)
    with Behind(lab), Running(topology, "run", str(book), "-i", "region=east", "--yes", *UNSEEN) as running:
        running.says("stop its writes")
        until(lambda: lab.primaries() == [], 20)
        running.send(signal.SIGINT)
        done = running.end()
    assert done.code == 6, str(done)
    assert lab.primaries() == ["east"]
    run = last_run(topology)
    assert f"failover resume {run}" in done.err
    assert "takes writes in east as before" in done.err
    failover(topology, "abort", run)
    ended(topology)


class Behind:
    """West receives what east writes, and does not replay it."""

    def __init__(self, lab: Laboratory) -> None:
        self.lab = lab

    def __enter__(self) -> None:
        east, west = self.lab.lab.regions.values()
        with postgres.connected(self.lab.lab, west) as replica, postgres.connected(self.lab.lab, east) as primary:
            replica.execute("SELECT pg_wal_replay_pause()")
            paused = "SELECT pg_get_wal_replay_pause_state()"
            until(lambda: replica.execute(paused).fetchone() == ("paused",))
            primary.execute("CREATE TABLE IF NOT EXISTS noise (n int)")
            primary.execute("INSERT INTO noise SELECT generate_series(1, 100)")

    def __exit__(self, *_: object) -> None:
        _replay(self.lab)


def _replay(lab: Laboratory) -> None:
    query = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_replay_resume()::text END"
    postgres.ask(lab.lab, lab.lab.regions["west"], query)


def test_a_terminal_is_asked_and_drawn_on(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path)
    with Terminal(topology, *DRAIN) as terminal:
        terminal.says("[y/N]")
        terminal.type("n\n")
        text = terminal.end(6)
    assert "not run: nobody agreed to the plan" in text
    assert failover(topology, "runs", "--json").json == {"runs": []}
    assert lab.weights() == {"east": 50, "west": 50}

    with Terminal(topology, *DRAIN) as terminal:
        terminal.says("Run this plan (3 changes)? [y/N]")
        terminal.type("y\n")
        text = terminal.end(0)
        raw = terminal.raw
    assert "╭─ drain east" in text
    assert "\x1b" not in ESCAPE.sub("", raw), "nothing but whole control sequences"
    assert "█" in text
    assert "done     drain east   run " in text
    assert raw.rstrip().endswith(last_run(topology))
    assert "\x1b[?25h" in raw[raw.rindex("\x1b[?25l") :], "the cursor comes back"


def test_no_color_on_a_terminal(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path)
    with Terminal(topology, "restore", "east", NO_COLOR="1") as terminal:
        terminal.says("[y/N]")
        terminal.type("y\n")
        terminal.end(0)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.raw)


def test_a_failed_step_asks_what_to_do(lab: Laboratory, tmp_path: Path) -> None:
    topology, book, flag = lab.variant(tmp_path), tmp_path / "book.yaml", tmp_path / "flag"
    book.write_text(
        f"runbook: book\nsteps:\n  - id: first\n    command: [test, -e, {flag}]\n"
        "  - id: second\n    command: ['false']\n  - id: third\n    command: ['false']\n"
    )
    with Terminal(topology, "run", str(book)) as terminal:
        terminal.says("[y/N]")
        terminal.type("y\n")
        terminal.says("paused   first")
        terminal.says("r retry   s skip this step   a leave it here")
        flag.touch()
        terminal.type("r\n")
        terminal.says("paused   second")
        terminal.type("s\n")
        terminal.says("why?")
        terminal.type("it is not needed\n")
        terminal.says("paused   third")
        terminal.type("a\n")
        terminal.end(6)
    steps = failover(topology, "show", last_run(topology), "--json").json["steps"]
    assert [step["status"] for step in steps] == ["done", "skipped", "failed"]


def test_a_closed_terminal_leaves_a_run_to_resume(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path, _long)
    with Terminal(topology, *DRAIN) as terminal:
        terminal.says("[y/N]")
        terminal.type("y\n")
        terminal.says(SOAKING)
        terminal.close()
        assert terminal.process.wait(60) == 6
    _resumes(topology, _stopped(lab, topology))


def test_a_closed_window_of_tmux(lab: Laboratory, tmp_path: Path) -> None:
    tmux = program("tmux", "tmux")
    topology = lab.variant(tmp_path, _long)
    server = [tmux, "-S", str(tmp_path / "tmux"), "-f", os.devnull]
    env = {**environment(topology), "LC_ALL": "C.UTF-8"}

    def screen() -> str:
        return subprocess.run([*server, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    command = [*server, "new-session", "-d", "-x", "110", "-y", "40", *FAILOVER, *DRAIN]
    subprocess.run(command, env=env, cwd=ROOT, check=True)
    try:
        until(lambda: "[y/N]" in screen(), what="the question")
        subprocess.run([*server, "send-keys", "y", "Enter"], check=True)
        until(lambda: SOAKING in screen(), what="the soak on the screen")
        seen = screen()
    finally:
        subprocess.run([*server, "kill-server"], check=True)
    assert seen.count("╭─ drain east") == 1, seen
    assert "▶ 2 drain" in re.sub(r" +", " ", seen)
    assert "100%" in seen
    until(lambda: failover(topology, "show", last_run(topology), "--json").json["status"] == "stopped")
    run = _stopped(lab, topology)
    _resumes(topology, run)
