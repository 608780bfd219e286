"""The main job, shown: a region leaves and comes back as planned; then it dies, and is evacuated. Under load."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from failover.cli.running import Manner, run
from failover.clock import SYSTEM
from failover.engine.estate import Estate
from failover.engine.record import Record
from failover.engine.runner import Order
from failover.errors import Failed
from failover.health import check_ids
from failover.lab import lab as labs
from failover.lab import postgres
from failover.lab.measure import Entry, Ledger, Measured, failures, measure, shares
from failover.lab.state import Lab
from failover.registry import FileLibrary, open_estate
from failover.report.words import table
from failover.resolution import resolve
from failover.units import duration
from failover.yaml import load

_LEFT = "east"
_BEFORE, _AFTER = 3.0, 3.0
"""Seconds of ordinary trade that belong to a measurement on either side of what is measured."""
_RECENT = 3.0
_NOTICE_WITHIN = 30.0
_ANSWERED = 4.0
Say = Callable[[str], None]


@dataclass
class Face:
    """One of the two faces: what the customers measured, and how long each phase took, in seconds."""

    measured: Measured
    phases: dict[str, float]
    why: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self.measured), "phases": self.phases, "failures": dict(self.why), "runs": list(self.runs)}

    @property
    def clean(self) -> bool:
        """Whether no customer was failed and no order was lost."""
        return self.measured.failed == 0 and self.measured.orders_lost == 0 and self.measured.requests > 0


class Customers:
    """What the customers see, from their ledger as it grows."""

    def __init__(self, lab: Lab) -> None:
        self.ledger = Ledger(lab.ledger)
        self.since = SYSTEM.wall()

    def lines(self) -> list[str]:
        """Where their orders go now, and how many failed since `since`."""
        now = SYSTEM.wall()
        entries = self.ledger.entries()
        going = "   ".join(f"{region} {part:.0%}" for region, part in shares(entries, now - _RECENT, now).items())
        counted = measure(entries, self.since, now, frozenset(entry.id for entry in entries))
        return [f"customers  {going or 'nobody is served'}   {counted.requests} orders, {counted.failed} failed"]


class Demo:
    """Both faces in one laboratory. `console` is a terminal to draw on, or nothing for plain lines."""

    def __init__(self, directory: Path, say: Say, console: Any = None) -> None:
        self.directory = directory
        self.say = say
        self.console = console

    def play(self) -> dict[str, Face]:
        """Start the laboratory, show both faces, and leave nothing behind. Raises what stopped it."""
        with self._lab() as lab:
            estate = open_estate(load(lab.topology))
            customers = Customers(lab)
            labs.start_customers(lab)
            self.say("customers order 60 times a second, from both regions")
            SYSTEM.sleep(_BEFORE)
            return {
                "planned": self._planned(lab, estate, customers),
                "unplanned": self._unplanned(lab, estate, customers),
            }

    @contextmanager
    def _lab(self) -> Iterator[Lab]:
        self.say("starting two regions: PostgreSQL, a shop and its customers, Route 53's API, a DNS server")
        began = SYSTEM.monotonic()
        try:
            lab = labs.up(self.directory, self.say)
            self.say(f"the lab is up after {duration(SYSTEM.monotonic() - began)}")
            yield lab
        finally:
            if self.directory.exists():
                labs.down(self.directory)

    def _planned(self, lab: Lab, estate: Estate, customers: Customers) -> Face:
        self.say(f"PLANNED: {_LEFT} is evacuated and brought back, while customers order")
        start = customers.since = SYSTEM.wall() - _BEFORE
        records = {
            "evacuate": self._run(estate, "evacuate-region", {"region": _LEFT}, {}, customers),
            "restore": self._run(estate, "restore-region", {"region": _LEFT}, {}, customers),
        }
        return self._measured(lab, customers, start, records, {})

    def _unplanned(self, lab: Lab, estate: Estate, customers: Customers) -> Face:
        self.say(f"UNPLANNED: {_LEFT} dies without notice, shop and database")
        start = customers.since = SYSTEM.wall() - _BEFORE
        died = SYSTEM.monotonic()
        labs.break_region(lab.directory, _LEFT, "region")
        self._notice(estate)
        noticed = SYSTEM.monotonic() - died
        self.say(f"noticed by the checks after {duration(noticed)}; evacuating")
        accepted = {"data-loss": f"{_LEFT} is dead, and its last writes with it"}
        inputs = {"region": _LEFT, "pace": "immediate"}
        record = self._run(estate, "evacuate-region", inputs, accepted, customers)
        return self._measured(lab, customers, start, {"evacuate": record}, {"noticed": round(noticed, 3)})

    def _notice(self, estate: Estate) -> None:
        deadline = SYSTEM.monotonic() + _NOTICE_WITHIN
        checks = check_ids(estate.topology, estate.topology.services, [_LEFT])
        while all(verdict.passed for verdict in estate.look(checks).values()):
            if SYSTEM.monotonic() > deadline:
                raise Failed(f"{_LEFT} was killed, and its checks still pass", next="look at the lab's logs")
            SYSTEM.sleep(0.2)

    def _run(
        self, estate: Estate, name: str, inputs: dict[str, str], accepted: dict[str, str], customers: Customers
    ) -> Record:
        library = FileLibrary()
        runbook = resolve(library.find(name), inputs, estate.topology, library)
        order = Order("drill", accepted)
        manner = Manner(yes=True, order=order, extra=customers.lines, console=self.console, quiet=True)
        return run(estate, runbook, "", manner)

    def _measured(
        self, lab: Lab, customers: Customers, start: float, records: dict[str, Record], phases: dict[str, float]
    ) -> Face:
        SYSTEM.sleep(_AFTER)
        end = SYSTEM.wall() - 0.1
        entries = self._until_answered(customers, end)
        for part, record in records.items():
            phases |= {
                f"{part}.{name}": round((step.ended or step.started) - step.started, 3)
                for name, step in record.steps.items()
            }
        measured = measure(entries, start, end, postgres.stored_orders(lab))
        runs = tuple(record.id for record in records.values())
        return Face(measured, phases, failures(entries, start, end), runs)

    def _until_answered(self, customers: Customers, end: float) -> list[Entry]:
        """Every request of the window has its outcome once the customers' own time limit is over."""
        SYSTEM.sleep(max(0.0, end + _ANSWERED - SYSTEM.wall()))
        return customers.ledger.entries()


def summary(faces: Mapping[str, Face]) -> list[str]:
    """What the customers and the ledger say, for a person."""
    rows = [("", *faces)]
    numbers: list[tuple[str, Callable[[Measured], str]]] = [
        ("requests", lambda one: f"{one.requests:,}"),
        ("failed", lambda one: f"{one.failed:,}"),
        ("slow (over 1 s)", lambda one: f"{one.slow:,}"),
        ("longest gap in service (RTO)", lambda one: f"{one.longest_gap_s:.2f} s"),
        ("orders acknowledged", lambda one: f"{one.orders_acknowledged:,}"),
        ("orders lost (RPO)", lambda one: f"{one.orders_lost:,}"),
    ]
    rows += [(name, *(say(face.measured) for face in faces.values())) for name, say in numbers]
    phases = dict.fromkeys(name for face in faces.values() for name in face.phases)
    rows += [
        (f"  {name}", *(f"{face.phases[name]:.1f} s" if name in face.phases else "" for face in faces.values()))
        for name in phases
    ]
    return table(rows)
