"""One laboratory for all of these tests, brought back to its normal state before each."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from failover.errors import FailoverError
from failover.lab import lab as labs
from failover.lab import postgres, zone
from failover.lab.measure import Ledger, measure
from failover.lab.state import Lab
from tests.e2e.product import Done, failover, until

Topology = dict[str, Any]
Edit = Callable[[Topology], None]
TTL = 2
_REPLAY = "SELECT pg_is_in_recovery()"
_STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"


class Laboratory:
    """A lab that can be put back to how it started: east primary, west streaming, half of the traffic each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lab: Lab = labs.up(directory)

    def close(self) -> None:
        labs.down(self.directory)

    def normal(self, scratch: Path) -> None:
        """Bring everything back, by a new lab where nothing else helps."""
        labs.stop_customers(self.lab)
        if not self._mended():
            try:
                topology = self.variant(scratch)
                done = failover(topology, "promote", "--to", "east", "--yes", code=None)
            except (AssertionError, FailoverError):
                done = None
            if done is None or done.code or not self._mended():
                self.close()
                self.lab = labs.up(self.directory)
        self.put({"east": 50, "west": 50})
        for region in self.lab.regions.values():
            assert labs.parts.running(self.lab, labs.parts.shop_part(region))

    def _mended(self) -> bool:
        try:
            for name in self.lab.regions:
                labs.mend_region(self.directory, name)
        except FailoverError:
            return False
        return self.primaries() == ["east"] and self._streaming()

    def _streaming(self) -> bool:
        return postgres.ask(self.lab, self.lab.regions["east"], _STREAMS, "west") == 1

    def put(self, weights: dict[str, int], ttl: int = TTL) -> None:
        """Write the weights as somebody else would, and wait until the name server has them."""
        records = [
            zone.Record(zone.RECORD, "A", ttl, (region.address,), region.name, weights[region.name])
            for region in self.lab.regions.values()
        ]
        zone.write(self.lab, records)
        wanted = {self.lab.regions[name].address for name, weight in weights.items() if weight}
        seen: list[set[str]] = []

        def answers() -> bool:
            seen.append(set(labs.parts.resolve(self.lab)))
            return seen[-8:].count(seen[-1]) == 8 if len(wanted) == 1 else set().union(*seen[-20:]) == wanted

        until(answers, what=f"answers from {wanted}")

    def weights(self) -> dict[str, int]:
        """What Route 53 says now."""
        found = zone.read(zone.client(self.lab.endpoint), self.lab.zone)[zone.RECORD, "A"]
        return {str(record.identifier): record.weight or 0 for record in found}

    def ttl(self) -> int:
        return zone.read(zone.client(self.lab.endpoint), self.lab.zone)[zone.RECORD, "A"][0].ttl

    def primaries(self) -> list[str]:
        """Every region whose PostgreSQL takes writes by default."""
        setting = "SELECT current_setting('transaction_read_only')"
        return [name for name, region in self.lab.regions.items() if postgres.ask(self.lab, region, setting) == "off"]

    def timeline(self, region: str) -> int:
        """How often a primary was promoted so far."""
        query = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
        found = postgres.ask(self.lab, self.lab.regions[region], query)
        assert isinstance(found, int)
        return found

    def secrets(self) -> list[str]:
        return [path.read_text().strip() for path in sorted((self.directory / "secrets").iterdir())]

    def variant(self, place: Path, *edits: Edit) -> Path:
        """The lab's topology with short waits and a journal of its own in `place`, and with `edits` made to it."""
        topology: Topology = yaml.safe_load(self.lab.topology.read_text())
        topology["services"]["web"]["routes"][0]["ttl"] = f"{TTL}s"
        topology["drain"] = {"ttl": "1s", "stages": [50, 0], "soak": "0s", "settle": "30s"}
        topology["objectives"] = {"survivors": 1, "lag": "30s"}
        topology["store"] = {"sqlite": {"path": str(place / "journal.db")}}
        topology["routers"]["dns"]["route53"] |= {"retry_for": "2s", "connect_timeout": "1s", "read_timeout": "3s"}
        for edit in edits:
            edit(topology)
        path = place / "failover.yaml"
        path.write_text(yaml.safe_dump(topology, sort_keys=False))
        return path

    @contextmanager
    def customers(self) -> "Iterator[Trade]":
        """Customers who order while this is open."""
        labs.start_customers(self.lab)
        try:
            yield Trade(self.lab)
        finally:
            labs.stop_customers(self.lab)


class Trade:
    """What the customers see from now on."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ledger = Ledger(lab.ledger)
        self.start = max(entry.intended for entry in self.ledger.entries())

    def measured(self) -> Any:
        """Everything since the start, once the customers have left and every request has its outcome."""
        labs.stop_customers(self.lab)
        entries = self.ledger.entries()
        end = max(entry.finished for entry in entries)
        return measure(entries, self.start, end, postgres.stored_orders(self.lab))

    def why(self) -> list[str]:
        return [entry.why for entry in self.ledger.entries() if entry.why and entry.intended >= self.start]


def events(topology: Path, run: str = "", kind: str = "") -> list[dict[str, Any]]:
    """The journal of a run, of the last one if none is named, past the product: from the file itself."""
    path = yaml.safe_load(topology.read_text())["store"]["sqlite"]["path"]
    if not Path(path).exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM streams WHERE name LIKE 'run/%' ORDER BY id")]
        if not names:
            return []
        query = "SELECT event FROM events WHERE stream = ? ORDER BY seq"
        found = [json.loads(row[0]) for row in connection.execute(query, (f"run/{run}" if run else names[-1],))]
    return [event for event in found if not kind or event["kind"] == kind]


def last_run(topology: Path) -> str:
    """The name of the newest run."""
    return str(failover(topology, "runs", "--json").json["runs"][-1]["run"])


def made(topology: Path, run: str = "") -> list[str]:
    """Every change that the run's journal says was made, in words."""
    intents = {event["seq"]: event for event in events(topology, run, "intent")}
    found = []
    for outcome in events(topology, run, "outcome"):
        changes = intents[outcome["intent"]].get("changes", [])
        found += [_words(changes[place]) for place in outcome.get("made", [])]
    return found


def _words(change: dict[str, Any]) -> str:
    if "route" in change:
        return f"route {change['before']} → {change['after']}"
    return f"{change['region']} {change['before']} → {change['after']}"


def ended(topology: Path) -> Done:
    """Hold the journal to this: nothing is running, nothing is held."""
    done = failover(topology, "status", "--json")
    assert done.json["open_runs"] == []
    assert done.json["held"] == {}
    return done
