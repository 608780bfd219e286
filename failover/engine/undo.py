"""The way back from a run, made from its journal alone."""

from failover import verbs
from failover.engine.record import Record
from failover.errors import Usage
from failover.runbook import Runbook, Step
from failover.steps.undo import Undo
from failover.topology import Topology
from failover.world import Change, MemberChange, Role, RouteChange


def undo_runbook(record: Record, topology: Topology) -> Runbook:
    """Steps that reverse what `record` says was applied, newest first.

    Routes go back to what the run found; a primary that moved goes back by a switchover of its own. Raises Usage
    where the run changed nothing.
    """
    spans: dict[str, RouteChange] = {}
    primaries: dict[str, str] = {}
    order: list[str] = []
    for change in record.applied:
        _still_declared(change, topology)
        if isinstance(change, RouteChange):
            first = spans.get(change.route, change)
            spans[change.route] = RouteChange(change.route, first.before, change.after, change.reason)
        elif change.before is Role.PRIMARY or (change.after is Role.PRIMARY and not change.planned):
            primaries.setdefault(change.database, _home(change, topology))
        key = change.resource if isinstance(change, RouteChange) else f"database {change.database}"
        order = [*(one for one in order if one != key), key]
    steps: list[Step] = []
    routes: list[RouteChange] = []
    for key in reversed(order):
        kind, name = key.split(" ", 1)
        if kind == "route":
            routes.append(spans[name])
            continue
        _flush(steps, routes, record)
        if name in primaries:
            spec = verbs.Promote(databases=(name,), to=primaries[name])
            _add(steps, f"primary-{name}", "promote", spec, record)
    _flush(steps, routes, record)
    if not steps:
        raise Usage(f"run {record.id} changed nothing", next=f"failover show {record.id}")
    return Runbook(f"undo-{record.id}", f"Take back what run {record.id} did.", {}, tuple(steps), {})


def _still_declared(change: Change, topology: Topology) -> None:
    declared, name = (
        (topology.routes, change.route) if isinstance(change, RouteChange) else (topology.databases, change.database)
    )
    if name not in declared:
        raise Usage(
            f"the run changed {change.resource}, which {topology.document.name} does not declare any more",
            next="undo it with the topology that it was run with, by --topology FILE",
        )


def _home(change: MemberChange, topology: Topology) -> str:
    return change.region if change.before is Role.PRIMARY else topology.databases[change.database].primary


def _flush(steps: list[Step], routes: list[RouteChange], record: Record) -> None:
    if routes:
        _add(steps, f"routes-{len(steps) + 1}", "undo", Undo(moved=tuple(routes)), record)
        routes.clear()


def _add(steps: list[Step], identity: str, verb: str, spec: object, record: Record) -> None:
    after = (steps[-1].id,) if steps else ()
    steps.append(Step(identity, verb, spec, after, f"run {record.id}"))
