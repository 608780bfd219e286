"""Worlds in which parts fail: a clear error, the right exit code, nothing half recorded, and nothing written."""

import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from failover.lab import lab as labs
from failover.lab import parts
from tests.e2e.laboratory import Laboratory, Topology, ended, events, last_run
from tests.e2e.product import Running, failover, until
from tests.e2e.test_no_write import behind
from tests.routers import bind
from tests.routers.aws import Proxy

DRAIN = ("drain", "east", "--pace", "immediate", "--yes")
RUN = ("run", "evacuate-region", "-i", "region=east", "--yes")
UNTOUCHED = {"east": 50, "west": 50}


@pytest.fixture
def api(lab: Laboratory) -> Iterator[Proxy]:
    proxy = Proxy(cast(Any, SimpleNamespace(port=lab.lab.api_port)), strict=False)
    yield proxy
    proxy.stop()


def _nothing_begun(topology: Path) -> None:
    assert events(topology) == []


def test_the_name_server_is_down(lab: Laboratory, tmp_path: Path) -> None:
    """The API took the change, and nobody can see that it is answered: stopped where it stands, and resumable."""
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

    def dead(topology: Topology) -> None:
        topology["drain"]["settle"] = "2s"
        topology["routers"]["dns"]["route53"] |= {"name_servers": [f"127.0.0.1:{port}"], "dns_timeout": "500ms"}

    topology = lab.variant(tmp_path, dead)
    done = failover(topology, *DRAIN, code=6)
    assert "the routers do not all answer with the new weights" in done.said
    assert f"127.0.0.1:{port}" in done.said
    run = last_run(topology)
    assert f"failover resume {run}, or failover undo {run}" in done.said
    assert lab.weights() == {"east": 0, "west": 100}
    assert failover(topology, "abort", run).out.startswith("aborted")
    ended(topology)


def test_the_api_cannot_be_reached(lab: Laboratory, api: Proxy, tmp_path: Path) -> None:
    topology = behind(lab, api, tmp_path)
    api.stop()
    done = failover(topology, *DRAIN, code=1)
    assert "route web@dns cannot be seen" in done.said
    assert "nothing was changed" in done.said
    assert "unknown" in failover(topology, "status").out
    _nothing_begun(topology)
    assert lab.weights() == UNTOUCHED


@pytest.mark.parametrize("error", ["Throttling", "AccessDenied"])
def test_the_api_refuses_the_write(lab: Laboratory, api: Proxy, tmp_path: Path, error: str) -> None:
    topology = behind(lab, api, tmp_path)
    api.fault = lambda operation: error if operation == "ChangeResourceRecordSets" else ""
    done = failover(topology, *DRAIN, code=6)
    assert error in done.said or "throttl" in done.said.lower()
    run = last_run(topology)
    outcomes = events(topology, run, "outcome")
    assert [(one["result"], one["made"]) for one in outcomes] == [("failed", [])]
    assert lab.weights() == UNTOUCHED
    api.fault = lambda _: ""
    failover(topology, "resume", run, "--yes")
    assert lab.weights() == {"east": 0, "west": 100}
    ended(topology)


def test_an_answer_that_is_lost_is_read_back(lab: Laboratory, api: Proxy, tmp_path: Path) -> None:
    topology = behind(lab, api, tmp_path)
    api.fault = lambda operation: "lose" if operation == "ChangeResourceRecordSets" else ""
    failover(topology, *DRAIN)
    assert len(api.batches) == 1, "never written a second time"
    assert lab.weights() == {"east": 0, "west": 100}


def test_the_database_cannot_be_reached(lab: Laboratory, tmp_path: Path) -> None:
    def away(topology: Topology) -> None:
        postgres = topology["databases"]["orders"]["postgres"]
        postgres["timeout"] = "1s"
        for member in postgres["members"].values():
            member["port"] = 1
            for key in ("data", "bin", "via", "fence"):
                member.pop(key, None)

    topology = lab.variant(tmp_path, away)
    done = failover(topology, "run", "promote", "-i", "to=west", "--yes", code=None)
    assert done.code in (1, 3), str(done)
    assert "nothing was changed" in done.said
    assert "refused" in done.said
    assert "Connection refused" in failover(topology, "status").out
    _nothing_begun(topology)
    assert lab.primaries() == ["east"]


def test_a_wrong_password(lab: Laboratory, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("canary-not-the-password\n")

    def key(topology: Topology) -> None:
        topology["databases"]["orders"]["postgres"]["password"] = {"file": str(wrong)}

    topology = lab.variant(tmp_path, key)
    done = failover(topology, "run", "promote", "-i", "to=west", "--yes", code=None)
    assert done.code in (1, 3), str(done)
    seen = failover(topology, "status")
    assert "password authentication failed" in seen.out
    assert "canary" not in seen.all + done.all
    _nothing_begun(topology)
    assert lab.primaries() == ["east"]


def test_a_secret_that_is_not_there(lab: Laboratory, tmp_path: Path) -> None:
    def gone(topology: Topology) -> None:
        topology["databases"]["orders"]["postgres"]["password"] = {"file": str(tmp_path / "gone")}

    topology = lab.variant(tmp_path, gone)
    done = failover(topology, "run", "promote", "-i", "to=west", "--yes", code=None)
    assert done.code in (1, 3), str(done)
    assert f"the secret file {tmp_path / 'gone'} cannot be read: No such file or directory" in done.said
    _nothing_begun(topology)


def test_a_probe_that_hangs(lab: Laboratory, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def hanging(topology: Topology) -> None:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            topology["services"]["web"]["checks"]["live"] = {"http": {"url": url, "timeout": "1s"}}

        topology = lab.variant(tmp_path, hanging)
        done = failover(topology, *DRAIN, code=None)
        assert done.code in (1, 3), str(done)
        assert "nothing was changed" in done.said
        assert failover(topology, "check", code=None).code == 1
    _nothing_begun(topology)
    assert lab.weights() == UNTOUCHED


def test_the_disk_under_the_journal_is_full(lab: Laboratory, tmp_path: Path) -> None:
    """Full before the run begins: nothing is begun. Full in the middle: it stops, and goes on when there is room."""
    topology = lab.variant(tmp_path)

    def limit(size: int) -> Any:
        def lower() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        return lower

    done = failover(topology, *DRAIN, code=1, before=limit(4096))
    assert "the journal cannot be used" in done.said
    assert str(tmp_path / "journal.db") in done.said
    assert lab.weights() == UNTOUCHED

    failover(topology, "runs")
    failover(topology, "run", "check", "--yes")
    done = failover(topology, *DRAIN, code=None, before=limit(60_000))
    assert done.code != 0, str(done)
    assert "the journal cannot be used" in done.said
    found = failover(topology, "status", "--json").json
    if found["open_runs"]:
        failover(topology, "resume", found["open_runs"][0], "--yes")
    else:
        assert lab.weights() == UNTOUCHED
        failover(topology, *DRAIN)
    assert lab.weights() == {"east": 0, "west": 100}
    ended(topology)


def test_a_journal_that_cannot_be_written(lab: Laboratory, tmp_path: Path) -> None:
    place = tmp_path / "in-the-way"
    place.write_text("a file where a directory should be")

    def blocked(topology: Topology) -> None:
        topology["store"] = {"sqlite": {"path": str(place / "journal.db")}}

    topology = lab.variant(tmp_path, blocked)
    done = failover(topology, *DRAIN, code=1)
    assert "the journal cannot be used: its directory is a file" in done.said
    assert lab.weights() == UNTOUCHED

    other = tmp_path / "other.db"
    other.write_bytes(b"this is no database" * 100)
    topology.write_text(topology.read_text().replace(str(place / "journal.db"), str(other)))
    done = failover(topology, *DRAIN, code=1)
    assert "it is not a journal, or it is damaged" in done.said
    assert lab.weights() == UNTOUCHED


def test_somebody_else_changed_the_weights_meanwhile(lab: Laboratory, tmp_path: Path) -> None:
    """Between two stages of ours: theirs stays, and the run says what it found."""

    def slow(topology: Topology) -> None:
        topology["drain"] |= {"soak": "3s", "stages": [50, 0]}

    topology = lab.variant(tmp_path, slow)
    with Running(topology, "drain", "east", "--yes") as running:
        running.says("soak after drain east to 50 %")
        lab.put({"east": 10, "west": 90}, ttl=1)
        done = running.end()
    assert done.code in (3, 6), str(done)
    assert "somebody else changed it" in done.said
    assert lab.weights() == {"east": 10, "west": 90}


def test_a_survivor_that_dies_stops_the_ramp(lab: Laboratory, tmp_path: Path) -> None:
    def slow(topology: Topology) -> None:
        topology["drain"] |= {"soak": "2s"}

    topology = lab.variant(tmp_path, slow)
    with Running(topology, "drain", "east", "--yes") as running:
        running.says("soak after drain east to 50 %")
        labs.break_region(lab.directory, "west", "web")
        done = running.end(6)
    assert "after drain east to 50 %" in done.said
    assert lab.weights() == {"east": 25, "west": 75}
    run = last_run(topology)
    assert failover(topology, "resume", run, "--yes", code=None).code in (3, 6)
    labs.mend_region(lab.directory, "west")
    until(lambda: parts.running(lab.lab, "shop-west"))
    failover(topology, "resume", run, "--yes")
    assert lab.weights() == {"east": 0, "west": 100}


def test_a_wrong_tsig_key(tmp_path: Path) -> None:
    servers = bind.Pair(tmp_path)
    servers.start()
    try:
        everybody = [address for addresses in bind.ADDRESSES.values() for address in addresses]
        servers.put("www.example.test.", everybody)
        (tmp_path / "key").write_text("d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktMDEyMzQ=\n")
        topology = tmp_path / "failover.yaml"
        topology.write_text(TSIG.format(port=servers.primary.port, key=bind.KEY, place=tmp_path))
        done = failover(topology, "drain", "east", "--yes", code=None)
        assert done.code in (1, 6), str(done)
        assert "TSIG" in done.said or "BADSIG" in done.said or "signature" in done.said, str(done)
        assert "d3Jvbmct" not in done.all
    finally:
        servers.stop()


TSIG = """
topology: bind
regions: [east, west]
services:
  web:
    routes:
      - router: dns
        record: www.example.test.
        weights: {{east: 1, west: 1}}
        ttl: 60s
        stages: [0]
        addresses: {{east: [192.0.2.1, 192.0.2.2], west: [192.0.2.11]}}
    checks: {{up: {{memory: {{}}}}}}
routers:
  dns:
    rfc2136:
      zone: example.test.
      server: 127.0.0.1:{port}
      tsig: {{name: {key}, secret: {{file: {place}/key}}}}
store: {{sqlite: {{path: {place}/journal.db}}}}
"""
