"""The commands that run something: a runbook, the rest of one, or the way back from one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli import output
from failover.cli.options import (
    Accept,
    Inputs,
    Json,
    PlanHash,
    Purpose,
    Reason,
    TakeOver,
    TopologyFile,
    Yes,
    accepted_guards,
    estate_of,
    pairs,
    purpose_of,
)
from failover.errors import FailoverError, Usage

if TYPE_CHECKING:
    from failover.cli.running import Manner
    from failover.engine.estate import Estate
    from failover.engine.record import Record
    from failover.engine.runner import Session

Region = Annotated[str, typer.Argument(help="The region.")]
Service = Annotated[list[str] | None, typer.Option("--service", help="Only this service; may be given again.")]
Pace = Annotated[str, typer.Option("--pace", help="staged or immediate.")]
RunName = Annotated[str, typer.Argument(help="The run, as failover runs lists it.")]


def run(
    runbook: Annotated[str, typer.Argument(help="The name of a runbook, or its file.")],
    inputs: Inputs = None,
    topology: TopologyFile = None,
    purpose: Purpose = "incident",
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Run a runbook: show the plan, ask once, carry it out."""
    given: dict[str, Any] = dict(pairs(inputs))
    _run(runbook, given, topology, purpose, _manner(yes, plan, accept, reason, as_json), inputs)


def _manner(yes: bool, plan: str, accept: list[str] | None, reason: str, as_json: bool) -> "Manner":
    from failover.cli.running import Manner
    from failover.engine.runner import Order

    return Manner(yes, plan, as_json, Order(accepted=accepted_guards(accept, reason)))


def _run(
    name: str,
    given: dict[str, Any],
    topology: Path | None,
    purpose: str,
    manner: "Manner",
    words: list[str] | None = None,
) -> None:
    import shlex
    from dataclasses import replace

    from failover.cli import running
    from failover.registry import FileLibrary
    from failover.resolution import resolve

    manner.order = replace(manner.order, purpose=purpose_of(purpose))
    estate = estate_of(topology)
    library = FileLibrary()
    runbook = resolve(library.find(name), given, estate.topology, library)
    typed = words if words is not None else [f"{key}={value}" for key, value in given.items()]
    command = f"failover run {name}" + "".join(f" -i {shlex.quote(word)}" for word in typed)
    _told(running.run(estate, runbook, command, manner), manner)


def _told(record: "Record", manner: "Manner") -> None:
    from failover.report.status import run_data

    if manner.as_json:
        output.document(run_data(record))


def _chosen(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in (None, "", [])}


def check(
    region: Annotated[list[str] | None, typer.Argument(help="The regions; all otherwise.")] = None,
    service: Service = None,
    topology: TopologyFile = None,
    as_json: Json = False,
) -> None:
    """Run the declared checks. Changes nothing; fails unless all pass."""
    from failover.cli.running import Manner

    given = _chosen(regions=region, services=service)
    _look(given, topology, Manner(yes=True, as_json=as_json))


def _look(given: dict[str, Any], topology: Path | None, manner: "Manner") -> None:
    """A runbook of checks alone is its own plan: nothing would be learned by running it again."""
    from failover.engine import projected
    from failover.registry import FileLibrary
    from failover.report.plan import plan_data
    from failover.report.words import table
    from failover.resolution import resolve

    estate = estate_of(topology)
    library = FileLibrary()
    made = projected.plan(estate, resolve(library.find("check"), given, estate.topology, library), frozenset())
    if manner.as_json:
        output.document(plan_data(made))
    else:
        rows = [
            (str(verdict.outcome), str(check), "; ".join(verdict.evidence))
            for check, verdict in made.before.checks.items()
        ]
        output.out(table(rows))
    if made.refusal is not None:
        if not manner.as_json:
            output.failure(made.refusal, as_json=False)
        raise typer.Exit(made.refusal.exit_code)


def drain(
    region: Region,
    service: Service = None,
    pace: Pace = "staged",
    topology: TopologyFile = None,
    purpose: Purpose = "incident",
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Take a region's traffic to zero."""
    given = _chosen(region=region, services=service, pace=pace)
    _run("drain", given, topology, purpose, _manner(yes, plan, accept, reason, as_json))


def restore(
    region: Region,
    service: Service = None,
    pace: Pace = "staged",
    topology: TopologyFile = None,
    purpose: Purpose = "incident",
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Bring a region's traffic back to its normal weights."""
    given = _chosen(region=region, services=service, pace=pace)
    _run("restore", given, topology, purpose, _manner(yes, plan, accept, reason, as_json))


def promote(
    to: Annotated[str, typer.Option("--to", help="The region that takes the writes.")],
    database: Annotated[list[str] | None, typer.Argument(help="The databases; all otherwise.")] = None,
    topology: TopologyFile = None,
    purpose: Purpose = "incident",
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Move the primaries of databases to a region."""
    given = _chosen(to=to, databases=database)
    _run("promote", given, topology, purpose, _manner(yes, plan, accept, reason, as_json))


def drill(
    region: Region,
    hold: Annotated[str, typer.Option("--hold", help="How long to stay without the region.")] = "",
    pace: Pace = "staged",
    topology: TopologyFile = None,
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """A game day: evacuate a region, hold, and bring it back."""
    given = _chosen(region=region, hold=hold, pace=pace)
    _run("game-day", given, topology, "drill", _manner(yes, plan, accept, reason, as_json))


def release(
    command: Annotated[list[str], typer.Argument(help="The deploy command, after --.", metavar="-- COMMAND")],
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Only this region; may be given again.")
    ] = None,
    service: Service = None,
    pace: Pace = "staged",
    topology: TopologyFile = None,
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Upgrade one region after another: drain, run COMMAND with FAILOVER_REGION set, check, restore."""
    given = _chosen(command=command, regions=region, services=service, pace=pace)
    _run("rolling-release", given, topology, "release", _manner(yes, plan, accept, reason, as_json))


def resume(
    run_name: RunName,
    topology: TopologyFile = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Leave this step out; needs --reason.")] = None,
    retry: Annotated[list[str] | None, typer.Option("--retry", help="Run this step's cut-off command again.")] = None,
    approve: Annotated[list[str] | None, typer.Option("--approve", help="Answer yes to this approve step.")] = None,
    take_over: TakeOver = False,
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed, on any machine that reaches its journal."""
    from failover.cli import running

    if skip and not reason.strip():
        raise Usage("--skip needs --reason", next="say why; it stays in the run's record")
    manner = _manner(yes, plan, accept, reason, as_json)
    manner.answers = frozenset(approve or ())
    estate, runbook = _recorded(run_name, estate_of(topology), manner)
    command = f"failover resume {run_name}"
    how = {"take_over": take_over, "skip": skip or [], "retry": retry or [], "reason": reason}
    _told(running.resume(estate, runbook, run_name, command, manner, **how), manner)


def _recorded(run_name: str, current: "Estate", manner: "Manner") -> tuple["Estate", Any]:
    """The estate and the runbook as the run began with them; what has changed in the files since is shown."""
    from dataclasses import replace

    from failover.cli.options import interactive
    from failover.engine.runner import read_record
    from failover.engine.undo import undo_runbook
    from failover.registry import FileLibrary, RecordedLibrary, open_estate
    from failover.report.changed import differences
    from failover.resolution import resolve
    from failover.yaml import parse

    record = read_record(current, run_name)
    started = record.started
    name, text = started["topology"]
    estate = current
    if text != current.topology.document.text:
        estate = replace(open_estate(parse(text, name), current.clock), store=current.store)
    changed = differences(started, current.topology.document, FileLibrary())
    if changed:
        output.err([*changed, "", f"run {run_name} goes on with what it was started with."])
        if not (manner.yes or manner.approved or interactive()):
            raise Usage("files have changed since the run began, and nobody is here to be asked", next="pass --yes")
    if started["undo_of"]:
        return estate, undo_runbook(read_record(current, started["undo_of"]), estate.topology)
    library = RecordedLibrary({key: (source[0], source[1]) for key, source in started["sources"].items()})
    return estate, resolve(library.open(started["runbook"]), started["inputs"], estate.topology, library)


def abort(
    run_name: RunName,
    topology: TopologyFile = None,
    take_over: TakeOver = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """End a stopped run where it is: nothing is taken back, its regions are let go of."""
    from failover.engine.journal import Altered
    from failover.engine.runner import let_go, read_record
    from failover.report.status import run_data
    from failover.units import count

    estate = estate_of(topology)
    try:
        read_record(estate, run_name)
    except Altered:
        freed = let_go(estate, run_name)
        if as_json:
            output.document({"run": run_name, "status": "altered", "released": freed})
        else:
            said = ", ".join(freed) or "nothing, it held nothing"
            output.out([f"let go   {run_name}: {said}; its journal was altered and stays as it is"])
        return
    with _taken_up(estate, run_name, take_over=take_over) as session:
        session.abort(reason or "aborted by hand")
    if as_json:
        output.document(run_data(session.record))
        return
    applied = len(session.record.applied)
    output.out(
        [
            f"aborted  {run_name}: {count(applied, 'change')} made and left as is; its regions are free",
            *([f"         to take them back: failover undo {run_name}"] if applied else []),
        ]
    )


def undo(
    run_name: RunName,
    topology: TopologyFile = None,
    take_over: TakeOver = False,
    yes: Yes = False,
    plan: PlanHash = "",
    accept: Accept = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Take back what a run did, as far as it is still in effect, newest first. Ends the run if it was stopped."""
    from dataclasses import replace

    from failover.cli import running
    from failover.engine.record import OPEN
    from failover.engine.runner import read_record
    from failover.engine.undo import undo_runbook

    manner = _manner(yes, plan, accept, reason, as_json)
    estate = estate_of(topology)
    record = read_record(estate, run_name)
    manner.order = replace(manner.order, undo_of=run_name, purpose=record.started["purpose"])
    command = f"failover undo {run_name}"
    if record.status not in OPEN:
        done = running.run(estate, undo_runbook(record, estate.topology), command, manner)
    else:
        with _taken_up(estate, run_name, take_over=take_over) as session:
            manner.agreed = lambda: session.abort("it is undone")
            done = running.run(estate, undo_runbook(session.record, estate.topology), command, manner)
    _told(done, manner)
    if done.notes:
        raise typer.Exit(1)


@contextmanager
def _taken_up(estate: "Estate", run_name: str, *, take_over: bool) -> "Iterator[Session]":
    """A run in this process to end it, with its open writes read back; stopped again where that did not come."""
    from failover.engine.live import Hands
    from failover.engine.record import OPEN
    from failover.engine.runner import Session
    from failover.runbook import Runbook

    session = Session.take_up(estate, Runbook("", "", {}, (), {}), run_name, Hands(), take_over=take_over)
    try:
        yield session
    except FailoverError as error:
        if session.record.status in OPEN:
            session.stop(error.what)
        raise
