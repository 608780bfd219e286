"""What only looks, writes nothing: seen at the wire of Route 53's API, in PostgreSQL's log, and on the disk."""

import re
from collections import Counter
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
READING = {"SELECT", "SHOW", "SET", "BEGIN", "COMMIT", "ROLLBACK"}
SENT = re.compile(r"failover LOG:\s+(?:statement|execute [^:]*):\s*(\w+)")
NEXT = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


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


def _asked(lab: Laboratory) -> list[str]:
    """The first word of every statement that the product's user has sent to either server."""
    logs = [(region.home / "log" / "postgres.log").read_text() for region in lab.lab.regions.values()]
    return [word.upper() for log in logs for word in SENT.findall(log)]


def test_nothing_that_looks_writes(lab: Laboratory, api: Proxy, tmp_path: Path) -> None:
    topology = behind(lab, api, tmp_path)
    east, west = lab.lab.regions.values()
    for region in (east, west):
        with postgres.connected(lab.lab, region) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute("SELECT pg_reload_conf()")
    try:
        before = Counter(_asked(lab))
        transaction = postgres.ask(lab.lab, east, NEXT)
        files = sorted(tmp_path.iterdir())
        for words in LOOKS:
            failover(topology, *words)
        asked = Counter(_asked(lab)) - before
        assert postgres.ask(lab.lab, east, NEXT) == transaction
    finally:
        for region in (east, west):
            with postgres.connected(lab.lab, region) as connection:
                connection.execute("ALTER SYSTEM RESET log_statement")
                connection.execute("SELECT pg_reload_conf()")
    assert asked["SELECT"] > len(LOOKS), "PostgreSQL has logged what was asked"
    assert asked.keys() <= READING
    assert "ListResourceRecordSets" in api.calls
    assert set(api.calls) <= {"ListResourceRecordSets", "GetHostedZone"}
    assert api.batches == []
    assert sorted(tmp_path.iterdir()) == files, "no journal, and nothing beside it"
    assert lab.primaries() == ["east"]


def test_a_journal_that_is_there_stays_as_it_is(lab: Laboratory, tmp_path: Path) -> None:
    topology, journal = lab.variant(tmp_path), tmp_path / "journal.db"
    failover(topology, "drain", "east", "--pace", "immediate", "--yes")
    before = journal.read_bytes()
    for words in (("plan", "restore-region", "-i", "region=east"), ("status",), ("runs",)):
        failover(topology, *words)
    assert journal.read_bytes() == before
    assert lab.weights() == {"east": 0, "west": 100}
