"""SIGKILL around every write of a real evacuation; `resume` ends in the world of an undisturbed one.

Between fence and promote nobody takes writes until somebody resumes: a process that is gone can take nothing back.
Customers are failed meanwhile, which is the price of never having two primaries; what was acknowledged stays.
"""

import signal
from pathlib import Path

from failover.lab import postgres
from tests.e2e.killer import argv
from tests.e2e.laboratory import Laboratory, Topology, ended, events, last_run, made
from tests.e2e.product import failover

TRAFFIC = (
    ("journal run-started", "after"),
    ("lock", "after"),
    ("route 1", "before"),
    ("route 1", "after"),
    ("journal settled", "before"),
    ("route 1", "after"),
    ("journal outcome", "after"),
    ("journal step-done", "before"),
)
PRIMARY = (
    ("journal intent fenced", "before"),
    ("fence", "after"),
    ("journal outcome", "after"),
    ("journal intent primary", "before"),
    ("promote", "before"),
    ("promote", "after"),
    ("journal intent replica", "before"),
    ("rejoin", "after"),
    ("journal run-ended", "before"),
)


def _quick(topology: Topology) -> None:
    """A write that may still arrive is waited for this long, so it is kept short here."""
    topology["databases"]["orders"]["postgres"]["within"] = "20s"
    topology["routers"]["dns"]["route53"] |= {"retry_for": "1s", "connect_timeout": "500ms", "read_timeout": "1s"}


def _killed(topology: Path, points: tuple[tuple[str, str], ...], *words: str) -> str:
    """Start a run, kill it at the first point, resume it, kill that at the second, and so on. The run's name."""
    run = ""
    for point, when in points:
        command = ("resume", run) if run else words
        failover(topology, *command, "--yes", code=-signal.SIGKILL, program=argv(point, when))
        run = run or last_run(topology)
    return run


def _resumed(topology: Path, run: str) -> None:
    record = failover(topology, "resume", run, "--yes", "--json").json
    assert (record["status"], record["exit_code"]) == ("done", 0)
    assert failover(topology, "resume", run, "--yes", code=2).err.startswith("failed   run")
    ended(topology)


def test_traffic_killed_around_every_write(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path, _quick)
    with lab.customers() as trade:
        run = _killed(topology, TRAFFIC, "run", "drain", "-i", "region=east")
        held = failover(topology, "status", "--json").json["held"]
        assert held["east"]["run"] == run
        _resumed(topology, run)
        measured = trade.measured()
    assert lab.weights() == {"east": 0, "west": 100}
    assert lab.ttl() == 1
    assert len(made(topology)) == 3, "each effect once: the TTL and two stages"
    assert len(set(made(topology))) == 3
    assert (measured.failed, trade.why()) == (0, [])
    assert measured.orders_lost == 0


def test_primary_killed_around_every_write(lab: Laboratory, tmp_path: Path) -> None:
    topology = lab.variant(tmp_path, _quick)
    before = lab.timeline("east")
    with lab.customers() as trade:
        run = _killed(topology, PRIMARY, "run", "evacuate-region", "-i", "region=east", "-i", "pace=immediate")
        _resumed(topology, run)
        measured = trade.measured()
    assert lab.weights() == {"east": 0, "west": 100}
    assert lab.primaries() == ["west"]
    assert lab.timeline("west") == before + 1, "promoted once"
    streaming = "SELECT state FROM pg_stat_replication WHERE application_name = 'east'"
    assert postgres.ask(lab.lab, lab.lab.regions["west"], streaming) == "streaming"
    assert made(topology)[1:] == ["east primary → fenced", "west replica → primary", "east fenced → replica"]
    adopted = events(topology, run, "run-adopted")
    assert len(adopted) == len(PRIMARY)
    assert measured.orders_lost == 0
    assert measured.failed > 0, "nobody took writes between fence and promote: an outage until somebody resumes"


def test_killed_while_the_old_primary_is_off_to_be_rewound(lab: Laboratory, tmp_path: Path) -> None:
    """One primary throughout; the run ends, and whatever is left of the rejoin, restore-region finishes."""

    def impatient(topology: Topology) -> None:
        topology["databases"]["orders"]["postgres"]["within"] = "10s"

    topology = lab.variant(tmp_path, impatient)
    run = _killed(topology, (("off", "after"),), "run", "promote", "-i", "to=west")
    assert lab.primaries() == ["west"]
    _resumed(topology, run)
    assert lab.primaries() == ["west"]
    failover(topology, "run", "restore-region", "-i", "region=east", "-i", "pace=immediate", "--yes")
    assert lab.primaries() == ["east"]
