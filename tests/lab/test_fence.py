"""A fenced region takes no writes, whoever starts it, and comes back as a replica of the other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from failover.lab import postgres, process
from failover.lab.fence import main
from failover.lab.lab import break_region, down, mend_region, up
from failover.lab.state import Lab


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    yield up(tmp_path / "lab")
    down(tmp_path / "lab")


def write(lab: Lab, region: str) -> None:
    with postgres.connected(lab, lab.region(region)) as connection:
        connection.execute("INSERT INTO orders (id) VALUES (%s)", (f"written in {region}",))


def test_a_fenced_primary_returns_read_only_and_can_be_rewound(own: Lab) -> None:
    east, west = own.region("east"), own.region("west")
    fence = [sys.executable, "-m", "failover.lab.fence", str(own.directory), "east"]
    for _ in range(2):
        subprocess.run(fence, check=True)
        assert postgres.running(east) == []
    assert postgres.ask(own, west, "SELECT pg_promote()") is True
    write(own, "west")
    assert mend_region(own.directory, "east") == ["postgres-east"]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        write(own, "east")
    assert postgres.stored_orders(own) == {"written in west"}

    # pg_rewind cannot repair a crashed standby by itself: it wants one that was shut down.
    stop = ["-D", str(east.data), "-w", "-m", "fast", "stop"]
    process.run(own.directory, "stop", [*own.via, str(own.binaries / "pg_ctl"), *stop])
    source = postgres.conninfo(own, west, postgres.SUPERUSER)
    rewind = ["pg_rewind", "--target-pgdata", str(east.data), "--source-server", source]
    process.run(own.directory, "rewind", [*own.via, str(own.binaries / rewind[0]), *rewind[1:]])
    postgres.become_standby(east)
    assert mend_region(own.directory, "east") == ["postgres-east"]
    streams = "SELECT state FROM pg_stat_replication WHERE application_name = 'east' AND state = 'streaming'"
    assert process.until(lambda: postgres.ask(own, west, streams) == "streaming", 15)
    found = "SELECT id FROM orders WHERE id = 'written in west'"
    assert process.until(lambda: postgres.ask(own, east, found) is not None, 10)


def test_a_server_that_the_lab_did_not_start_is_fenced_too(own: Lab) -> None:
    east = own.region("east")
    break_region(own.directory, "east", "database")
    start = [*own.via, str(own.binaries / "pg_ctl"), "-D", str(east.data), "-w", "-l", os.devnull, "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60)
    assert main([str(own.directory), "east"]) == 0
    assert postgres.running(east) == []
    assert (east.data / "standby.signal").exists()


def test_what_cannot_be_fenced_is_not_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "east"]) == 1
    assert main([]) == 2
    assert capsys.readouterr().err.count("not fenced") == 2
