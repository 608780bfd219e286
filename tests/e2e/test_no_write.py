"""What only looks, writes nothing: seen at the wire of Route 53's API, in PostgreSQL's log, and on the disk."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from failover.lab import postgres
from tests.e2e.laboratory import Laboratory, Topology
from tests.e2e.product import failover
from tests.routers.aws import KEY, Proxy

LOOKS = (
    ("plan", "evacuate-region", "-i", "region=east"),
    ("plan", "evacuate-region", "-i", "region=east", "-i", "pace=immediate", "--json"),
    ("plan", "restore-region", "-i", "region=east"),
    ("plan", "promote", "-i", "to=west"),
    ("plan", "game-day", "-i", "region=east"),
    ("status",),
    ("check",),
    ("validate",),
    ("runs",),
    ("show", "evacuate-region"),
)
READING = ("SELECT", "SHOW", "SET ", "BEGIN", "COMMIT", "ROLLBACK")


@pytest.fixture
def api(lab: Laboratory) -> Iterator[Proxy]:
    """Route 53's API behind a proxy that notes what is asked of it."""
    proxy = Proxy(cast(Any, SimpleNamespace(port=lab.lab.api_port)), strict=False)
    yield proxy
    proxy.stop()


def behind(lab: Laboratory, api: Proxy, place: Path, *edits: Any) -> Path:
    """A topology whose router talks to the proxy."""
    credentials = place / "credentials"
    credentials.write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {KEY}\n")

    def route(topology: Topology) -> None:
        topology["routers"]["dns"]["route53"] |= {"endpoint": api.endpoint, "credentials_file": str(credentials)}

    return lab.variant(place, route, *edits)


def _log(lab: Laboratory) -> list[str]:
    homes = [region.home for region in lab.lab.regions.values()]
    lines = [line for home in homes for line in (home / "log" / "postgres.log").read_text().splitlines()]
    return [line for line in lines if "failover LOG:" in line and ("statement:" in line or "execute " in line)]


def test_nothing_that_looks_writes(lab: Laboratory, api: Proxy, tmp_path: Path) -> None:
    topology = behind(lab, api, tmp_path)
    east, west = lab.lab.regions.values()
    for region in (east, west):
        with postgres.connected(lab.lab, region) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute("SELECT pg_reload_conf()")
    try:
        before = len(_log(lab))
        transaction = postgres.ask(lab.lab, east, "SELECT pg_current_xact_id_if_assigned() IS NULL")
        assert transaction is True
        next_id = postgres.ask(lab.lab, east, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        files = sorted(tmp_path.iterdir())
        for words in LOOKS:
            failover(topology, *words)
        said = [line.partition("statement: ")[2] or line.partition(": ")[2] for line in _log(lab)[before:]]
        assert postgres.ask(lab.lab, east, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == next_id
    finally:
        for region in (east, west):
            with postgres.connected(lab.lab, region) as connection:
                connection.execute("ALTER SYSTEM RESET log_statement")
                connection.execute("SELECT pg_reload_conf()")
    assert len(said) > len(LOOKS), "PostgreSQL has logged what was asked"
    assert [text for text in said if not text.strip().upper().startswith(READING)] == []
    assert set(api.calls) == {"GetHostedZone", "ListResourceRecordSets"} or set(api.calls) == {
        "ListResourceRecordSets"
    }
    assert api.batches == []
    assert sorted(tmp_path.iterdir()) == files, "no journal, and nothing beside it"
    assert lab.primaries() == ["east"]


def test_a_journal_that_is_there_stays_as_it_is(lab: Laboratory, tmp_path: Path) -> None:
    topology, journal = lab.variant(tmp_path), tmp_path / "journal.db"
    failover(topology, "drain", "east", "--pace", "immediate", "--yes")
    before = journal.read_bytes()
    for words in LOOKS:
        failover(topology, *words, code=None)
    failover(topology, "show", "restore")
    assert journal.read_bytes() == before
    assert lab.weights() == {"east": 0, "west": 100}
