"""A plan, as a person reads it in ten seconds and as a program does."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from failover.engine.plan import Plan, PlannedStep, describe
from failover.errors import FailoverError, Refused
from failover.report.words import WIDTH, filled, series, table
from failover.steps.actions import (
    Ask,
    CatchUp,
    Changes,
    Empty,
    Follow,
    Forecast,
    Look,
    Note,
    Pause,
    Run,
    Settle,
    Tell,
)
from failover.units import count, duration
from failover.verdict import worst
from failover.world import MemberChange, Role, RouteChange, RouteState, World

_NAMED = 6
"""How many services that move alike are named."""
_FORECASTS = 8
"""How many regions are shown with what they will carry."""


def plan_lines(plan: Plan, command: str) -> list[str]:
    """The plan in text. `command` is what would run exactly this."""
    subject = " ".join(str(value) for value in plan.runbook.inputs.values() if isinstance(value, str) and value)
    counts = f"{count(len(plan.changes), 'change')}, {count(plan.checks, 'check')}"
    head, digest = f"{plan.runbook.name} {subject}".strip(), plan.hash
    lines = [f"{head:<42} plan {digest} · {counts}", ""]
    heads = table(
        [(f"{number} {planned.step.id}", planned.step.verb) for number, planned in enumerate(plan.steps, 1)]
    )
    width = max(map(len, heads), default=0) + 2
    for planned, head in zip(plan.steps, heads, strict=True):
        stopped = plan.refusal is not None and planned is plan.steps[-1]
        lines += _step(planned, head.ljust(width), plan.before, stopped=stopped)
    guards = _guards(plan)
    if guards:
        lines += ["", *filled("guards  ", guards, " · ")]
    if plan.refusal is None:
        lines += [f"Nothing was changed. To run exactly this: {command} --plan {digest}"]
    return lines


def _step(planned: PlannedStep, head: str, before: World, *, stopped: bool) -> Iterator[str]:
    said = list(_said(planned, before))
    if stopped:
        said.append("refused, see below")
    for line in said or ["nothing to do: it is so already"]:
        # What goes on below stands two further in, so that it does not look like a line of its own.
        first, *more = filled("  ", line.split(" "), width=WIDTH - len(head) + 2)
        yield (head + first[2:]).rstrip()
        yield from (" " * len(head) + text for text in more)
        head = " " * len(head)


def _said(planned: PlannedStep, before: World) -> Iterator[str]:
    for index, action in enumerate(planned.actions):
        if isinstance(action, Look) and index in planned.verdicts:
            verdict = planned.verdicts[index]
            evidence = "" if verdict.passed else f" ({'; '.join(verdict.evidence)})"
            yield f"{action.about}: {count(len(action.checks), 'check')}, now {verdict.outcome}{evidence}"
    routes: dict[str, list[RouteState]] = {}
    for change in planned.changes:
        if isinstance(change, RouteChange):
            routes.setdefault(change.route, [change.before]).append(change.after)
    alike: dict[tuple[str, str], list[str]] = {}
    for route, states in routes.items():
        service, _, router = route.partition("@")
        alike.setdefault(("   ".join(series(states)), router), []).append(service)
    for (moves_so, router), services in alike.items():
        yield f"{_several(services) + ' ':<8} {moves_so}   by {router}"
    moves = [change for change in planned.changes if isinstance(change, MemberChange)]
    yield from _moves(moves)
    for change in moves:
        if change.after is Role.FENCED and change.before is not Role.PRIMARY:
            detail = before.databases[change.database][change.region].detail
            yield f"{change.database:<8} {change.region} is {change.before}: {detail or 'nothing is known about why'}"
    for action in planned.actions:
        match action:
            case Run(argv=argv):
                yield "will be run: " + " ".join(argv)
            case Ask(message=message):
                yield f"will be asked: {message}"
            case Tell(notifier=notifier, message=message):
                yield f"{notifier} will be told: {message}"
            case Note(text=text):
                yield text
    yield from _forecasts([action for action in planned.actions if isinstance(action, Forecast)])
    checked = _stages(_checked(planned))
    if checked:
        yield "will be checked: " + "; ".join(checked)
    waits = sum(action.seconds for action in planned.actions if isinstance(action, Pause))
    if waits:
        yield f"waits {duration(waits)} in all, and for what is named above"


def _several(names: list[str]) -> str:
    most = ", ".join(names[:_NAMED])
    return most if len(names) <= _NAMED else f"{most} and {len(names) - _NAMED} more"


def _forecasts(forecasts: list[Forecast]) -> Iterator[str]:
    """The fullest first, and of very many only those."""
    fullest = sorted(forecasts, key=lambda one: -one.peak)
    for one in fullest[:_FORECASTS]:
        row = " → ".join(f"{load:,.0f}" for load in one.loads)
        yield f"{one.service:<8} {one.region} will carry {row} of {one.limit:,.0f} rps ({_percent(one.peak)})"
    if len(fullest) > _FORECASTS:
        yield f"{len(fullest) - _FORECASTS} more will be no fuller than {_percent(fullest[_FORECASTS].peak)}"


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _moves(changes: list[MemberChange]) -> Iterator[str]:
    databases = dict.fromkeys(change.database for change in changes)
    for database in databases:
        parts = []
        for change in changes:
            if change.database != database:
                continue
            match change.before, change.after:
                case Role.PRIMARY, Role.FENCED:
                    parts.append(f"stop writes in {change.region}")
                case _, Role.FENCED:
                    parts.append(f"fence {change.region} by its device")
                case Role.REPLICA, Role.PRIMARY:
                    kind = "switchover, no loss" if change.planned else "failover, may lose writes"
                    parts.append(f"promote {change.region} ({kind})")
                case _, Role.PRIMARY:
                    parts.append(f"let {change.region} take writes again")
                case Role.REPLICA, Role.REPLICA:
                    parts.append(f"{change.region} follows {change.primary}")
                case _:
                    parts.append(f"{change.region} becomes a replica again (now {change.before})")
        yield f"{database:<8} {', then '.join(parts)}"


def _checked(planned: PlannedStep) -> Iterator[str]:
    for index, action in enumerate(planned.actions):
        match action:
            case Look(about=about) if index not in planned.verdicts:
                yield about
            case Settle(wait_out=wait_out):
                yield "every router and name server answers so" + (", old answers expired" if wait_out else "")
            case Empty(region=region, close=close):
                yield f"connections left in {region}" + (", which are ended" if close else "")
            case CatchUp(source=source, target=target):
                yield f"{target} has every write of {source}"
            case Follow(region=region):
                yield f"{region} follows"


def _stages(checked: Iterator[str]) -> list[str]:
    """The same looks after one stage and after the next are said once."""
    whose = [(text, text.partition(" after ")[0]) for text in dict.fromkeys(checked)]
    staged = Counter(who for text, who in whose if text != who)
    return list(dict.fromkeys(f"{who} after each stage" if staged[who] > 1 else text for text, who in whose))


def _guards(plan: Plan) -> list[str]:
    names = dict.fromkeys(judgement.guard for _, judgement in plan.judgements)
    said = []
    for name in names:
        verdict = worst(judgement.verdict for _, judgement in plan.judgements if judgement.guard == name)
        waived = not verdict.passed and name in plan.accepted
        peak = [line for line in verdict.evidence if "would carry" in line]
        said.append(f"{name} {'waived' if waived else verdict.outcome}" + (f" ({peak[-1]})" if peak else ""))
    return said


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan for a program."""
    return {
        "plan": plan.hash,
        "runbook": plan.runbook.name,
        "inputs": dict(plan.runbook.inputs),
        "changes": len(plan.changes),
        "steps": [
            {
                "id": planned.step.id,
                "verb": planned.step.verb,
                "actions": [
                    {**describe(action), **_reasons(action), **_verdict(planned, index)}
                    for index, action in enumerate(planned.actions)
                ],
            }
            for planned in plan.steps
        ],
        "guards": [
            {
                "step": step,
                "guard": judgement.guard,
                "outcome": str(judgement.verdict.outcome),
                "evidence": list(judgement.verdict.evidence),
                "accepted": judgement.guard in plan.accepted,
            }
            for step, judgement in plan.judgements
        ],
        "refused": error_data(plan.refusal) if plan.refusal else None,
    }


def _reasons(action: object) -> dict[str, Any]:
    return {"reasons": [item.reason for item in action.items]} if isinstance(action, Changes) else {}


def _verdict(planned: PlannedStep, index: int) -> dict[str, Any]:
    verdict = planned.verdicts.get(index)
    return {"outcome": str(verdict.outcome), "evidence": list(verdict.evidence)} if verdict else {}


def error_data(error: FailoverError) -> dict[str, Any]:
    """An error for a program."""
    data = {"what": error.what, "where": error.where, "next": error.next, "exit_code": error.exit_code}
    return {**data, "guard": error.guard, "seen": list(error.seen)} if isinstance(error, Refused) else data
