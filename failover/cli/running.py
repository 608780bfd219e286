"""Running a runbook for somebody: the plan, one question, the run, and what to do when it stops."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from failover.cli import output
from failover.cli.options import interactive
from failover.cli.signals import answer, stopping
from failover.engine import projected
from failover.engine.estate import Estate
from failover.engine.live import Hands
from failover.engine.plan import Plan
from failover.engine.record import OPEN, Record
from failover.engine.runner import Order, Session
from failover.engine.undo import undo_runbook
from failover.errors import Failed, FailoverError, Interrupted, Locked, Refused, Usage
from failover.health import summary
from failover.report.plan import plan_lines
from failover.report.progress import Lines, Progress, Screen
from failover.report.words import error_lines, stage_line, standing
from failover.runbook import Runbook
from failover.topology import Topology
from failover.units import count, duration
from failover.world import RouteState, World, same

_BACK = {"evacuate-region": "restore-region", "drain": "restore"}
"""The bundled runbooks that have a way back of their own."""


@dataclass
class Manner:
    """How a run is carried out: asked about or not, approved by which hash, and what follows it on the screen.

    `agreed` is called once the plan was agreed to, before anything is written.
    """

    yes: bool = False
    approved: str = ""
    as_json: bool = False
    order: Order = field(default_factory=Order)
    answers: frozenset[str] = frozenset()
    quiet: bool = False
    agreed: Callable[[], None] = lambda: None
    extra: Callable[[], list[str]] = list
    console: Any = None


def run(estate: Estate, runbook: Runbook, command: str, manner: Manner) -> Record:
    """Plan, ask, and run. Raises what stopped it."""
    plan = projected.plan(estate, runbook, frozenset(manner.order.accepted))
    _show(plan, command, manner)
    _agree(plan, manner)
    manner.agreed()
    hands = Hands(stop=threading.Event(), approve=_approver(manner))
    session_plan = plan

    def start() -> Session:
        return Session.begin(estate, session_plan, manner.order, hands, path_versions(estate))

    return _carry_out(start, lambda _: session_plan, runbook, hands, manner)


def resume(estate: Estate, runbook: Runbook, run_id: str, command: str, manner: Manner, **how: Any) -> Record:
    """Take a run up again: find out about open writes, show what is left, ask, and go on."""
    hands = Hands(stop=threading.Event(), approve=_approver(manner))

    def start() -> Session:
        session = Session.take_up(estate, runbook, run_id, hands, take_over=how["take_over"])
        with _or_stopped(session):
            for step in how["skip"]:
                session.skip(step, how["reason"])
            for step in how["retry"]:
                session.retry(step)
        return session

    def left(session: Session) -> Plan:
        with _or_stopped(session):
            plan = session.plan({**session.record.accepted, **manner.order.accepted})
            _show(plan, command, manner)
            _agree(plan, manner, again=True)
        return plan

    return _carry_out(start, left, runbook, hands, manner)


@contextlib.contextmanager
def _or_stopped(session: Session) -> Iterator[None]:
    """What ends a resume before it goes on leaves the run stopped, not running without a process."""
    try:
        yield
    except Locked:
        raise
    except FailoverError as error:
        session.stop(error.what)
        _left(session, error)
        raise


def path_versions(estate: Estate) -> dict[str, str]:
    """The path version of every provider in the estate, which is part of a path's fingerprint."""
    routers = {f"router {name}": router.path_version for name, router in estate.routers.items()}
    return {**routers, **{f"database {name}": one.path_version for name, one in estate.databases.items()}}


def _carry_out(
    start: Callable[[], Session], plan_of: Callable[[Session], Plan], runbook: Runbook, hands: Hands, manner: Manner
) -> Record:
    with stopping(hands.stop):
        session = start()
        plan = plan_of(session)
        accepted = {**session.record.accepted, **manner.order.accepted}
        while True:
            progress = _progress(runbook, session, manner)
            hands.progress = progress.note
            with _listening(session, progress), progress.shown():
                error = _go(session, plan, accepted)
            if error is None:
                _finish(session, manner)
                return session.record
            if session.record.status not in OPEN or not _retried(session, error, manner, hands):
                _left(session, error)
                raise error
            with _or_stopped(session):
                session.again()
                approved, plan = plan, session.plan(accepted)
                if plan.refusal is None and not _is_rest(plan, approved):
                    output.err(["", "what is left to do is not what was approved; it is now:"])
                    _show(plan, f"failover resume {session.record.id}", manner)
                    _agree(plan, replace(manner, approved=""), again=True)


def _is_rest(plan: Plan, approved: Plan) -> bool:
    """Whether every change of `plan` was approved before, in this order."""
    left = iter(approved.changes)
    return all(any(same(change, one) for one in left) for change in plan.changes)


def _go(session: Session, plan: Plan, accepted: Mapping[str, str]) -> FailoverError | None:
    try:
        if plan.refusal is not None:
            session.stop(plan.refusal.what)
            return plan.refusal
        session.go(plan, accepted)
    except FailoverError as error:
        return error
    return None


def _left(session: Session, error: FailoverError) -> None:
    """Say with the error where the run stands and what the ways on are."""
    run_id, record = session.record.id, session.record
    if record.status == "stopped":
        now = standing(session.world)
        if now:
            error.where = (f"{error.where}; " if error.where else "") + f"now {now}"
        resume_line = f"failover resume {run_id}"
        if resume_line not in error.next:
            error.next = f"{error.next}; {resume_line}" if error.next else resume_line
        back = f"failover undo {run_id}" if record.applied else f"failover abort {run_id}"
        error.next += f", or {back}"
        if isinstance(error, Failed):
            error.exit_code = Interrupted.exit_code
    elif not record.applied:
        error.where = (f"{error.where}; " if error.where else "") + "nothing was changed"


def _retried(session: Session, error: FailoverError, manner: Manner, hands: Hands) -> bool:
    """Ask a person what to do about a step that stopped. True where it is to be tried again."""
    if not interactive() or manner.yes or hands.stop.is_set() or isinstance(error, Interrupted):
        return False
    steps = session.record.steps
    stopped = [name for name, step in steps.items() if step.status in ("failed", "running")]
    output.err(["", *error_lines(error), "", f"paused   {', '.join(stopped)}"])
    while True:
        stage = _stage(session, stopped[0]) if stopped else ""
        back = f"b back one stage ({stage})   " if stage else ""
        all_back = "u undo all   " if session.record.applied else ""
        output.err([f"         now: {standing(session.world)}"] if stage else [])
        output.err([f"         r retry   s skip this step   {back}{all_back}a leave it here"])
        said = answer().strip().lower()
        if said in ("", "a"):
            return False
        if said == "s" and stopped:
            output.err(["         why? (for the record)"])
            reason = answer().strip()
            if reason:
                session.skip(stopped[0], reason)
                return True
        if said == "r":
            return True
        if said == "b" and stage:
            _one_stage_back(session, stopped[0], hands)
        if said == "u" and all_back:
            error.next = f"it was taken back by run {_undone(session, manner).id}"
            return False


def _stage(session: Session, step: str) -> str:
    """Where a drain or a restore would be again without its last stage; empty where there is none to take back."""
    stage = session.record.last_stage(step)
    region = next((getattr(one.spec, "region", "") for one in session.runbook.steps if one.id == step), "")
    return stage_line(stage, region) if stage and region else ""


def _one_stage_back(session: Session, step: str, hands: Hands) -> None:
    lines = Lines()
    hands.progress = lines.note
    try:
        with _listening(session, lines):
            session.back(step)
    except (Locked, Interrupted):
        raise
    except FailoverError as error:
        output.err(["", *error_lines(error), ""])


def _undone(session: Session, manner: Manner) -> Record:
    """Take the whole run back in a run of its own, which is shown and asked about like any other."""
    record = session.record
    session.again()
    order = replace(manner.order, undo_of=record.id)
    back = replace(manner, approved="", order=order, agreed=lambda: session.abort("it is undone"))
    with _or_stopped(session):
        return run(session.estate, undo_runbook(record, session.estate.topology), f"failover undo {record.id}", back)


def _finish(session: Session, manner: Manner) -> None:
    record = session.record
    if manner.as_json or manner.quiet:
        return
    took = duration(record.at - record.started["at"])
    what = " ".join((record.started["runbook"], *record.started["regions"]))
    output.out(
        [
            f"done     {what}   run {record.id}   {took}, {count(len(record.applied), 'change')}",
            *[f"         note: {note}" for note in record.notes],
            *_ways_back(record, session.estate.topology),
        ]
    )


def _ways_back(record: Record, topology: Topology) -> list[str]:
    if not record.applied:
        return []
    runbook, region = record.started["runbook"], record.started["inputs"].get("region", "")
    services = record.started["inputs"].get("services") or ("all",)
    whole = "all" in services or set(services) == set(topology.services)
    only = "" if whole else f" -i services={','.join(services)}"
    back = [f"failover run {_BACK[runbook]} -i region={region}{only}"] if runbook in _BACK and region else []
    return [*(f"         the way back: {command}" for command in back), f"         undo: failover undo {record.id}"]


def _show(plan: Plan, command: str, manner: Manner) -> None:
    if manner.as_json or manner.quiet:
        return
    lines = plan_lines(plan, command)
    output.err(lines if plan.refusal else [*lines[:-1], ""])


def _agree(plan: Plan, manner: Manner, *, again: bool = False) -> None:
    untouched = "nothing more was changed" if again else "nothing was changed"
    if plan.refusal is not None:
        plan.refusal.where = (f"{plan.refusal.where}; " if plan.refusal.where else "") + untouched
        raise plan.refusal
    if manner.approved:
        if len(manner.approved) < 6 or not plan.hash.startswith(manner.approved):
            raise Refused(
                "plan-changed",
                f"the plan is {plan.hash} now, not {manner.approved}",
                next="read the plan above; to run it, pass its hash",
            )
        return
    if manner.yes:
        return
    if not interactive():
        raise Usage(
            "nobody is here to be asked whether to run this plan",
            next=f"pass --plan {plan.hash} to run exactly it, or --yes",
        )
    output.err([f"Run this plan ({count(len(plan.changes), 'change')})? [y/N] "])
    try:
        agreed = answer().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        agreed = False
    if not agreed:
        raise Interrupted("not run: nobody agreed to the plan", next=untouched)


def _approver(manner: Manner) -> Callable[[str, str], bool | None]:
    def approve(step: str, message: str) -> bool | None:
        if step in manner.answers:
            return True
        if not interactive() or manner.yes:
            return None
        output.err([f"approve  {step}: {message}  [y/N] "])
        return answer().strip().lower() in ("y", "yes")

    return approve


@contextlib.contextmanager
def _listening(session: Session, progress: Progress) -> Iterator[None]:
    session.journal.listeners.append(progress.event)
    try:
        yield
    finally:
        session.journal.listeners.remove(progress.event)


def _progress(runbook: Runbook, session: Session, manner: Manner) -> Progress:
    asks = any(step.verb == "approve" for step in runbook.steps)
    if manner.console is None and (not sys.stderr.isatty() or asks):
        return Lines(extra=manner.extra)
    return Screen(
        runbook,
        lambda: shares(session.world),
        lambda: healths(session.estate.topology, session.world),
        manner.extra,
        manner.console,
    )


def healths(topology: Topology, world: World) -> dict[str, str]:
    """Each region's health as this process last saw it, for those that it has looked at."""
    seen = {check.region for check in world.checks}
    said = {region: summary(topology, region, world) for region in topology.regions if region in seen}
    return {region: f"{outcome} {good}/{whole}" for region, (outcome, good, whole) in said.items()}


def shares(world: World) -> dict[str, dict[str, float]]:
    """What part of each route's traffic goes to which region, as this process last saw or made it."""
    found: dict[str, dict[str, float]] = {}
    for route, state in world.routes.items():
        if isinstance(state, RouteState) and any(state.weights.values()):
            whole = sum(state.weights.values())
            found[route.partition("@")[0]] = {region: weight / whole for region, weight in state.weights.items()}
    return found
