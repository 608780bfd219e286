"""The commands that only look."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli import output
from failover.cli.options import Accept, Inputs, Json, Reason, TopologyFile, accepted_guards, estate_of, pairs
from failover.clock import SYSTEM
from failover.errors import Invalid, Problem, Usage, did_you_mean

if TYPE_CHECKING:
    from failover.engine.estate import Estate
    from failover.engine.record import Record
    from failover.registry import FileLibrary
    from failover.world import World

Names = Annotated[list[str] | None, typer.Argument(help="Files or names of runbooks; all that are found otherwise.")]
_RECENT = 200


def status(
    topology: TopologyFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it on the screen, renewed every two seconds.")] = False,
    as_json: Json = False,
) -> None:
    """The whole estate on one screen: traffic, databases, health, who holds what."""
    from failover.report.status import status_data

    estate = estate_of(topology)
    if as_json:
        output.document(status_data(estate.topology, *_seen(estate)))
        return
    while True:
        lines = _status(estate)
        if not watch:
            output.out(lines)
            return
        if not output.out(["\x1b[2J\x1b[H" + lines[0], *lines[1:]]):
            return
        SYSTEM.sleep(2.0)


def _status(estate: "Estate") -> list[str]:
    from failover.report.status import status_lines

    world, held, records = _seen(estate)
    return status_lines(estate.topology, world, held, records, estate.clock.wall())


def _seen(estate: "Estate") -> "tuple[World, dict[str, Mapping[str, Any]], list[Record]]":
    from failover.engine.journal import Altered
    from failover.engine.locks import Locks
    from failover.engine.record import OPEN
    from failover.engine.runner import read_record
    from failover.health import check_ids
    from failover.steps.actions import Scope

    topology = estate.topology
    checks = check_ids(topology, topology.services, topology.regions)
    world = estate.observe(Scope(tuple(topology.routes), tuple(topology.databases), checks))
    records = _records(estate)
    statuses = {record.id: record.status for record in records}

    def is_open(run: str) -> bool:
        try:
            return (statuses.get(run) or read_record(estate, run).status) in OPEN
        except Altered:
            return True

    return world, Locks(estate.store, estate.clock, is_open).holders(), records


def _records(estate: "Estate", recent: int | None = _RECENT) -> list["Record"]:
    from failover.engine.journal import Altered
    from failover.engine.runner import read_record
    from failover.engine.runner import runs as all_runs
    from failover.report.words import error_lines

    records = []
    for run in all_runs(estate)[-recent if recent else None :]:
        try:
            records.append(read_record(estate, run))
        except Altered as error:
            output.err(error_lines(error))
    return records


def evidence(
    region: Annotated[list[str] | None, typer.Argument(help="The regions; all otherwise.")] = None,
    topology: TopologyFile = None,
    max_age: Annotated[
        str, typer.Option("--max-age", help="End with 1 where a path was not proven within this time, like 30d.")
    ] = "",
    as_json: Json = False,
) -> None:
    """When exactly today's way out of each region was last gone, for what, how long it took, and what differs."""
    from failover.engine.evidence import evidence as gathered
    from failover.report.evidence import evidence_data, evidence_lines, overdue
    from failover.units import seconds

    estate = estate_of(topology)
    for name in region or ():
        if name not in estate.topology.regions:
            raise Usage(f"there is no region called '{name}'{did_you_mean(name, estate.topology.regions)}")
    try:
        most = seconds(max_age) if max_age else None
    except ValueError as error:
        raise Usage(f"--max-age: {error}") from None
    found = gathered(estate, _records(estate, None), region or estate.topology.regions)
    now = estate.clock.wall()
    if as_json:
        output.document({"topology": estate.topology.name, "paths": evidence_data(found, now, most)})
    else:
        output.out(evidence_lines(found, now, most))
    if any(overdue(one, now, most) for one in found):
        raise typer.Exit(1)


def plan(
    runbook: Annotated[str, typer.Argument(help="The name of a runbook, or its file.")],
    inputs: Inputs = None,
    topology: TopologyFile = None,
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """What a runbook would do now, step by step. Writes nothing."""
    import shlex

    from failover.engine import projected
    from failover.registry import FileLibrary
    from failover.report.plan import plan_data, plan_lines
    from failover.resolution import resolve

    estate = estate_of(topology)
    library = FileLibrary()
    accepted = accepted_guards(accept, reason)
    resolved = resolve(library.find(runbook), pairs(inputs), estate.topology, library)
    made = projected.plan(estate, resolved, frozenset(accepted))
    given = "".join(f" -i {shlex.quote(word)}" for word in inputs or ())
    waived = "".join(f" --accept {name}" for name in accepted)
    waived += f" --reason {shlex.quote(reason)}" if accepted else ""
    if as_json:
        output.document(plan_data(made))
    else:
        output.out(plan_lines(made, f"failover run {runbook}{given}{waived}"))
    if made.refusal is not None:
        if not as_json:
            made.refusal.where = "; ".join(filter(None, (made.refusal.where, "nothing was changed")))
            output.failure(made.refusal, as_json=False)
        raise typer.Exit(made.refusal.exit_code)


def runs(topology: TopologyFile = None, as_json: Json = False) -> None:
    """All runs in the journal, the newest last."""
    from failover.report.status import run_data, runs_lines

    records = _records(estate_of(topology))
    if as_json:
        output.document({"runs": [run_data(record) for record in records]})
    else:
        output.out(runs_lines(records))


def show(
    name: Annotated[str, typer.Argument(help="A run, or a runbook.")],
    topology: TopologyFile = None,
    as_json: Json = False,
) -> None:
    """A run, event by event; or a runbook, with its inputs."""
    from failover.registry import FileLibrary

    library = FileLibrary()
    if name in library.names() or name.endswith((".yaml", ".yml")):
        _show_runbook(name, library, as_json=as_json)
        return
    _show_run(name, estate_of(topology), as_json=as_json)


def _show_run(name: str, estate: "Estate", *, as_json: bool) -> None:
    from failover.clock import stamp
    from failover.engine.journal import Journal
    from failover.engine.runner import read_record
    from failover.report.status import run_data
    from failover.report.words import event_lines, when
    from failover.units import duration

    record = read_record(estate, name)
    events = list(Journal(estate.store, name, estate.clock).replay())
    if as_json:
        output.document({**run_data(record), "events": events})
        return
    started = record.started
    subject = " ".join(f"{key}={value}" for key, value in started["inputs"].items())
    lines = [
        f"run {record.id}   {record.status}   {started['runbook']} {subject}",
        f"purpose {started['purpose']}, by {started['owner']['by']} on {started['owner']['host']}, "
        f"{when(started['at'])}, {duration(record.at - started['at'])}, {len(record.applied)} changes",
        f"plan {started['plan']}, path {started['fingerprint']}",
        *[f"waived {guard}: {why}" for guard, why in record.accepted.items()],
        "",
    ]
    for event in events:
        lines += [f"{stamp(event['at'])[11:23]}  {event.get('step', ''):<20} {text}" for text in event_lines(event)]
    output.out(lines)


def _show_runbook(name: str, library: "FileLibrary", *, as_json: bool) -> None:
    from failover.report.words import table
    from failover.runbook import declare

    document = library.find(name)
    problems: list[Problem] = []
    declared = declare(document, problems)
    if declared is None or problems:
        raise Invalid(problems)
    if as_json:
        inputs = {key: input_.model_dump() for key, input_ in declared.inputs.items()}
        output.document(
            {"runbook": declared.name, "summary": declared.summary, "inputs": inputs, "text": document.text}
        )
        return
    rows = [
        (f"  -i {key}=…", input_.type, "" if input_.default is None else f"default {input_.default}", input_.summary)
        for key, input_ in declared.inputs.items()
    ]
    output.out(
        [f"{declared.name}: {declared.summary}", f"from {document.name}", *table(rows), "", document.text.rstrip()]
    )


def validate(files: Names = None, topology: TopologyFile = None, as_json: Json = False) -> None:
    """Check the topology and runbooks; every mistake at once, each with its place."""
    from failover.registry import FileLibrary, open_estate, topology_file
    from failover.resolution import validate as check_runbook
    from failover.units import count
    from failover.yaml import load

    library = FileLibrary()
    document = load(topology_file(topology))
    estate = open_estate(document)
    names = files or library.names()
    problems: list[Problem] = []
    for name in names:
        try:
            check_runbook(library.find(name), estate.topology, library)
        except Invalid as invalid:
            problems.extend(invalid.problems)
    if problems:
        raise Invalid(problems)
    if as_json:
        output.document({"topology": document.name, "runbooks": list(names), "problems": []})
    else:
        are = "is" if len(names) == 1 else "are"
        output.out([f"{document.name} and {count(len(names), 'runbook')} {are} valid: {', '.join(names)}"])


def schema(
    of: Annotated[str, typer.Argument(help="topology or runbook.")] = "runbook",
    as_json: Json = False,  # noqa: ARG001 - it is JSON in any case
) -> None:
    """JSON Schema for editors."""
    from failover.errors import Usage
    from failover.report.schema import runbook_schema, topology_schema

    made = {"topology": topology_schema, "runbook": runbook_schema}
    if of not in made:
        raise Usage(f"there is no schema of '{of}'", next="failover schema topology, or failover schema runbook")
    output.document(made[of]())


def providers(as_json: Json = False) -> None:
    """Every provider that is installed, ours and other people's."""
    from failover.registry import KINDS, found
    from failover.report.words import table

    listed = {kind: {name: point.value for name, point in sorted(found(kind).items())} for kind in KINDS}
    if as_json:
        output.document(listed)
    else:
        output.out(table([(kind, name, value) for kind, points in listed.items() for name, value in points.items()]))
