"""Small estates in memory, made from the text of a topology, and the calls with which tests run things on them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from failover.clock import Clock
from failover.databases.memory import Copy, MemoryConfig, MemoryDatabase
from failover.engine import projected
from failover.engine.estate import Estate
from failover.engine.plan import Plan
from failover.engine.record import Record
from failover.engine.runner import Hands, Order, Session, read_record, runs
from failover.registry import FileLibrary, RecordedLibrary, open_estate
from failover.resolution import resolve
from failover.routers.memory import MemorySwitch
from failover.runbook import Runbook
from failover.steps.actions import Changes, Scope
from failover.stores.memory import MemoryStore
from failover.testing import FakeClock
from failover.verdict import Verdict, failed, passed
from failover.world import Change, CheckId, MemberChange, Role, RouteChange, RouteState, World
from failover.yaml import parse

TWO = """
topology: two
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}, ttl: 60s}]
    checks: {up: {memory: {}}}
databases:
  orders: {primary: east, memory: {regions: [east, west]}}
routers: {dns: {memory: {}}}
store: {memory: {}}
"""

THREE = """
topology: three
regions: [east, west, north]
services:
  web:
    routes:
      - {router: dns, weights: {east: 50, west: 50, north: 50}, ttl: 60s}
      - {router: edge, weights: {east: 1, west: 1, north: 1}, stages: [0]}
    checks: {up: {memory: {}}}
  api:
    routes: [{router: dns, weights: {east: 3, west: 2, north: 1}}]
    checks: {up: {memory: {}}}
databases:
  orders: {primary: east, memory: {regions: [east, west, north]}}
  carts: {primary: west, memory: {regions: [east, west]}}
routers: {dns: {memory: {}}, edge: {memory_switch: {}}}
drain: {stages: [50, 0], soak: 30s, ttl: 10s}
store: {memory: {}}
"""


class Manual(MemoryDatabase):
    """A database whose replicas follow a new primary only when they are told to, as most databases' do."""

    def can_fence(self, region: str) -> bool:
        return region in self.regions and super().can_fence(region)

    def _set(self, change: MemberChange) -> None:
        followed = {region: copy.follows for region, copy in self.state.copies.items() if copy.role is Role.REPLICA}
        super()._set(change)
        if change.after is Role.PRIMARY:
            for region, follows in followed.items():
                if region != change.region:
                    self.state.copies[region].follows = follows


class Eye:
    """A probe that sees what the test says, by turns; the last one stays."""

    def __init__(self) -> None:
        self.turns = [passed("it answers")]

    def probe(self) -> Verdict:
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


def estate(text: str = TWO, clock: Clock | None = None) -> Estate:
    """The estate that `text` declares, in memory. All its ports note their effects in one log, in order."""
    made = open_estate(parse(text, "failover.yaml"), clock or FakeClock())
    log: list[Change] = []
    databases = cast(dict[str, Any], made.databases)
    for name, database in databases.items():
        primary = made.topology.databases[name].primary
        databases[name] = Manual(name, MemoryConfig(regions=database.regions), primary, made.clock)
        databases[name].state.log = log
    for router in routers(made).values():
        router._state.log = cast(list[RouteChange], log)
    for check in made.probes:
        cast(dict[CheckId, Any], made.probes)[check] = Eye()
    return made


def routers(made: Estate) -> Mapping[str, MemorySwitch]:
    return cast(Mapping[str, MemorySwitch], made.routers)


def databases(made: Estate) -> Mapping[str, Manual]:
    return cast(Mapping[str, Manual], made.databases)


def store(made: Estate) -> MemoryStore:
    return cast(MemoryStore, made.store)


def clock(made: Estate) -> FakeClock:
    return cast(FakeClock, made.clock)


def copy_of(made: Estate, database: str, region: str) -> Copy:
    return databases(made)[database].state.copies[region]


def log(made: Estate) -> list[Change]:
    """Every effect that was made, by any port, in order."""
    ports: list[Any] = [*made.routers.values(), *made.databases.values()]
    return cast(list[Change], ports[0].log)


def put(made: Estate, route: str, weights: Mapping[str, int], ttl: int | None = None) -> None:
    """Set a route as somebody else would: no log has it."""
    state = routers(made)[made.topology.routes[route].router]._state
    state.routes[route] = RouteState(weights, ttl)


def see(made: Estate, service: str, region: str, *verdicts: Verdict, check: str = "up") -> None:
    """What the check's probe sees from now on, one after another; the last one stays."""
    cast(Eye, made.probes[CheckId(service, check, region)]).turns = list(verdicts)


def dark(made: Estate, region: str) -> None:
    """The region is gone: its checks fail and its databases cannot be asked."""
    for check in made.probes:
        if check.region == region:
            see(made, check.service, region, failed("connection refused"), check=check.check)
    for database in databases(made).values():
        if region in database.state.copies:
            database.state.copies[region].unreachable = "connection refused"


def world(made: Estate) -> World:
    """All that there is."""
    return made.observe(Scope(tuple(made.topology.routes), tuple(made.databases), tuple(made.probes)))


def standing(made: Estate) -> tuple[Any, ...]:
    """Where traffic goes and who is primary: what a customer could tell two worlds apart by."""
    now = world(made)
    members = {
        (name, region): (member.role, member.streaming)
        for name, found in now.databases.items()
        for region, member in found.items()
    }
    return dict(now.routes), members


def book(made: Estate, name: str, **inputs: Any) -> Runbook:
    """The bundled runbook of that name; or, of several lines, a runbook's own text."""
    document = parse(name, "runbook.yaml") if "\n" in name else FileLibrary().open(name)
    return resolve(document, inputs, made.topology, FileLibrary())


def plan(made: Estate, runbook: Runbook, *accepted: str) -> Plan:
    return projected.plan(made, runbook, frozenset(accepted))


def begin(
    made: Estate,
    planned: Plan,
    hands: Hands | None = None,
    *,
    purpose: str = "incident",
    accepted: Mapping[str, str] | None = None,
    undo_of: str = "",
) -> Session:
    order = Order(purpose, accepted or {}, undo_of)
    return Session.begin(made, planned, order, hands or Hands(), {})


def run(
    made: Estate, runbook: Runbook, hands: Hands | None = None, *accepted: str, purpose: str = "incident"
) -> Record:
    """Plan it, begin it and carry it out, as the command line would."""
    planned = plan(made, runbook, *accepted)
    if planned.refusal is not None:
        raise planned.refusal
    reasons = dict.fromkeys(accepted, "a test says so")
    return begin(made, planned, hands, purpose=purpose, accepted=reasons).go(planned, reasons)


def take_up(made: Estate, name: str = "", hands: Hands | None = None) -> Session:
    """Go on with the run, with its runbook as the journal holds it."""
    name = name or runs(made)[-1]
    started = read_record(made, name).started
    library = RecordedLibrary({key: (file, text) for key, (file, text) in started["sources"].items()})
    runbook = resolve(library.open(started["runbook"]), started["inputs"], made.topology, library)
    return Session.take_up(made, runbook, name, hands or Hands(), take_over=True)


def resume(made: Estate, name: str = "", hands: Hands | None = None, accepted: Iterable[str] = ()) -> Record:
    """Take the run up, plan what is left, and carry that out."""
    session = take_up(made, name, hands)
    reasons = {**session.record.accepted, **dict.fromkeys(accepted, "a test says so")}
    planned = session.plan(reasons)
    if planned.refusal is not None:
        raise planned.refusal
    return session.go(planned, reasons)


def events(made: Estate, name: str = "", kind: str = "") -> list[dict[str, Any]]:
    """The journal of the run, of the last one if none is named; only those of one kind, if one is."""
    name = name or runs(made)[-1]
    found = [json.loads(line) for line in made.store.read(f"run/{name}")]
    return [event for event in found if not kind or event["kind"] == kind]


def batches(planned: Plan) -> list[list[Change]]:
    """The changes of a plan, those together that do not depend on each other."""
    return [list(action.items) for step in planned.steps for action in step.actions if isinstance(action, Changes)]


def shape(changes: Iterable[Change]) -> list[Any]:
    """Changes without their reasons, to be compared."""
    return [
        (change.route, change.before, change.after)
        if isinstance(change, RouteChange)
        else (change.database, change.region, change.before, change.after, change.primary, change.planned)
        for change in changes
    ]


def in_batches(found: list[Change], planned: Plan) -> list[list[str]]:
    """`found`, cut into the batches of `planned`, each sorted: within one the order is nobody's."""
    cut, place = [], 0
    for batch in batches(planned):
        cut.append(sorted(map(repr, shape(found[place : place + len(batch)]))))
        place += len(batch)
    return [*cut, *([sorted(map(repr, shape(found[place:])))] if found[place:] else [])]
