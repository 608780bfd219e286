"""What a person is asked while a run waits, and what becomes of the run by the answer."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from failover.cli import running
from failover.routers import memory as routers
from failover.world import RouteChange, RouteState
from tests.e2e.in_memory import TOPOLOGY, Estate
from tests.e2e.product import Terminal, failover

BOOK = """
runbook: book
inputs: {{flag: text}}
steps:
  - id: ready
    command: [test, -e, "${{flag}}"]
  - id: leave
    drain: {{region: east, pace: immediate}}
"""


@pytest.fixture
def book(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "book.yaml").write_text(BOOK.format())
    return ("run", str(tmp_path / "book.yaml"), "-i", f"flag={tmp_path / 'flag'}")


WRITE = routers.MemoryRouter.write


def person(monkeypatch: pytest.MonkeyPatch, *answers: str | Callable[[], str]) -> None:
    """Somebody at the terminal who says this, one after another."""
    left = list(answers)

    def say() -> str:
        answer = left.pop(0)
        return answer if isinstance(answer, str) else answer()

    monkeypatch.setattr(running, "interactive", lambda: True)
    monkeypatch.setattr(running, "answer", say)


def test_a_retry_asks_again_where_the_plan_has_changed(
    estate: Estate, book: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_shifts() -> str:
        (estate.place / "flag").touch()
        routers._shared[estate.name].routes["web@dns"] = RouteState({"east": 40, "west": 160})
        return "r\n"

    person(monkeypatch, "y\n", somebody_shifts, "n\n")
    estate(*book, code=6)
    assert "what is left to do is not what was approved" in estate.err
    assert "nothing more was changed" in estate.err
    assert estate.weights() == {"east": 40, "west": 160}
    assert estate.json("runs")["runs"][-1]["status"] == "stopped"


def test_a_retry_of_what_was_approved_does_not_ask_and_is_a_living_run(
    estate: Estate, book: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mended() -> str:
        (estate.place / "flag").touch()
        return "r\n"

    person(monkeypatch, "y\n", mended)
    estate(*book)
    kinds = [event["kind"] for event in estate.json("show", estate.last())["events"]]
    assert kinds[kinds.index("run-stopped") + 1] == "run-adopted", "nobody else may take it for a stopped one"
    assert estate.weights() == {"east": 0, "west": 200}


def test_a_refused_resume_says_where_the_run_stands(estate: Estate, book: tuple[str, ...]) -> None:
    estate(*book, "--yes", code=6)
    estate.sick("west")
    (estate.place / "flag").touch()
    run = estate.last()
    estate("resume", run, "--yes", code=3)
    assert "nothing more was changed; now web east 50 %, west 50 %" in estate.err
    assert f"failover resume {run}, or failover abort {run}" in " ".join(estate.err.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_is_an_answer_to_every_question(tmp_path: Path, number: signal.Signals) -> None:
    topology, book = tmp_path / "failover.yaml", tmp_path / "book.yaml"
    topology.write_text(TOPOLOGY.format(name="asked", place=tmp_path))
    book.write_text("runbook: book\nsteps:\n  - command: ['false']\n")
    with Terminal(topology, "run", str(book)) as terminal:
        terminal.says("[y/N]")
        terminal.type("y\n")
        terminal.says("r retry")
        terminal.process.send_signal(number)
        assert f"{number.name} instead of an answer" in terminal.end(6)
    run = failover(topology, "runs", "--json").json["runs"][-1]
    assert run["status"] == "stopped"
    with Terminal(topology, "resume", run["run"]) as terminal:
        terminal.says("[y/N]")
        terminal.process.send_signal(number)
        assert "nothing more was changed" in terminal.end(6)
    assert failover(topology, "runs", "--json").json["runs"][-1]["status"] == "stopped"


@pytest.fixture
def halted(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> Estate:
    """An estate on which a drain of east pauses at half its share: west is not up to more than that."""
    estate.topology.write_text(estate.topology.read_text().replace("stages: [50, 0]", "stages: [75, 50, 0]"))

    def too_much(router: routers.MemoryRouter, changes: Sequence[RouteChange]) -> str:
        receipt = WRITE(router, changes)
        if changes[-1].after.weights["east"] == 50:
            estate.sick("west")
        else:
            estate.well()
        return receipt

    monkeypatch.setattr(routers.MemoryRouter, "write", too_much)
    return estate


def easts(estate: Estate) -> list[int]:
    """The weights of east that the last run set, one after another."""
    events = estate.json("show", estate.last())["events"]
    changes = [change for event in events if event["kind"] == "intent" for change in event["changes"]]
    return [change["after"]["weights"]["east"] for change in changes]


def test_one_stage_back_then_another_and_on_again(halted: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    def enough() -> str:
        monkeypatch.setattr(routers.MemoryRouter, "write", WRITE)
        halted.well()
        return "r\n"

    person(monkeypatch, "y\n", "b\n", "b\n", "b\n", enough)
    halted("drain", "east")
    offers = [line for line in halted.err.splitlines() if "r retry" in line]
    assert [("(east 38 %)" in line, "(east 50 %)" in line) for line in offers] == [
        (True, False),
        (False, True),
        (False, False),
        (False, False),
    ], "one stage at a time, and nothing to go back to at the beginning"
    assert easts(halted) == [75, 50, 75, 100, 75, 50, 0]
    assert halted.json("runs")["runs"][-1]["status"] == "done"


def test_no_stage_back_over_what_somebody_else_has_set(halted: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = RouteState({"east": 10, "west": 190})

    def somebody_shifts() -> str:
        routers._shared[halted.name].routes["web@dns"] = by_hand
        return "b\n"

    person(monkeypatch, "y\n", somebody_shifts, "a\n")
    halted("drain", "east", code=6)
    assert "refused  changed-by-others: route web@dns" in halted.err
    assert halted.weights() == by_hand.weights
    assert halted.json("runs")["runs"][-1]["status"] == "stopped"


def test_everything_undone_from_the_pause(halted: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    person(monkeypatch, "y\n", "u\n", "y\n")
    halted("drain", "east", code=1)
    said = halted.err
    assert halted.weights() == {"east": 100, "west": 100}
    drained, undone = halted.json("runs")["runs"]
    assert (drained["status"], undone["status"]) == ("aborted", "done")
    assert f"it was taken back by run {undone['run']}" in said


def test_an_undo_that_is_not_agreed_to_leaves_the_run_to_resume(
    halted: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(monkeypatch, "y\n", "u\n", "n\n")
    halted("drain", "east", code=6)
    said = halted.err
    assert halted.weights() == {"east": 50, "west": 150}
    [drained] = halted.json("runs")["runs"]
    assert drained["status"] == "stopped"
    assert f"failover resume {drained['run']}" in said
