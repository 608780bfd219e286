"""The lab's real passwords never leave it: not in any output, plan, document or error, nor in the journal's bytes."""

from pathlib import Path

from failover.lab import lab as labs
from tests.e2e.laboratory import Laboratory, Topology, last_run
from tests.e2e.product import Terminal, failover

CANARY = "c4nary-in-the-environment"
EVACUATE = ("run", "evacuate-region", "-i", "region=east", "-i", "pace=immediate")


def _hold(secrets: list[str], place: Path, said: str) -> None:
    for secret in secrets:
        assert secret not in said
        for path in place.iterdir():
            assert secret.encode() not in path.read_bytes(), path.name


def test_no_secret_is_ever_shown_or_kept(lab: Laboratory, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    book = tmp_path / "tells.yaml"
    book.write_text(
        "runbook: tells\nsteps:\n"
        "  - id: tell\n    command: {argv: [sh, -c, 'echo $TOLD; exit 3'], env: {TOLD: {env: CANARY}}}\n"
    )
    topology = lab.variant(place)
    secrets = [*lab.secrets(), CANARY]
    assert len(secrets) == 4
    assert all(len(secret) > 10 for secret in secrets)
    said = ""

    def run(*words: str) -> None:
        nonlocal said
        done = failover(topology, *words, code=None, CANARY=CANARY)
        said += done.all

    run("plan", "evacuate-region", "-i", "region=east")
    run("plan", "evacuate-region", "-i", "region=east", "--json")
    run("validate", "--json")
    run(*EVACUATE)
    run(*EVACUATE, "--yes")
    run("run", str(book), "--yes")
    assert "[secret]" in said, "the command printed it, and it was struck out"
    stopped = last_run(topology)
    run("resume", stopped, "--yes", "--json")
    run("abort", stopped)
    for words in (("status",), ("check",), ("runs",), ("show", stopped)):
        run(*words)
        run(*words, "--json")
    labs.break_region(lab.directory, "west", "database")
    run("status")
    run("promote", "--to", "east", "--yes")
    run("promote", "--to", "east", "--yes", "--accept", "data-loss", "--reason", "gone")
    labs.mend_region(lab.directory, "west")
    run("undo", last_run(topology), "--yes")
    run("run", "restore-region", "-i", "region=east", "--yes", "--json")
    _hold(secrets, place, said)
    assert "done     " in said


def test_a_secret_in_a_file_is_refused_without_being_shown(lab: Laboratory, tmp_path: Path) -> None:
    def written(topology: Topology) -> None:
        topology["databases"]["orders"]["postgres"]["password"] = CANARY
        topology["databases"]["orders"]["postgres"]["pasword"] = CANARY

    topology = lab.variant(tmp_path, written)
    for words in (("status",), ("plan", "evacuate-region", "-i", "region=east"), ("validate", "--json")):
        done = failover(topology, *words, code=2)
        assert "a secret never stands in a file" in done.said
        assert CANARY not in done.all


def test_the_live_screen_shows_none_either(lab: Laboratory, tmp_path: Path) -> None:
    topology, book = lab.variant(tmp_path), tmp_path / "tells.yaml"
    book.write_text(
        "runbook: tells\nsteps:\n"
        "  - id: tell\n    command: {argv: [sh, -c, 'echo $TOLD'], env: {TOLD: {env: CANARY}}}\n"
        "  - id: again\n    command: {argv: [sh, -c, 'echo $TOLD; exit 1'], env: {TOLD: {env: CANARY}}}\n"
    )
    with Terminal(topology, "run", str(book), CANARY=CANARY) as terminal:
        terminal.says("[y/N]")
        terminal.type("y\n")
        terminal.says("paused   again")
        terminal.type("a\n")
        terminal.end(6)
        assert CANARY not in terminal.raw
        assert "[secret]" in terminal.text
