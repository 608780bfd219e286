"""The plan: what a runbook would do now, in its order, with a hash, and the shape of its path."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failover.errors import FailoverError, Refused
from failover.guards import Judgement
from failover.runbook import Runbook, Step
from failover.secret import Secret
from failover.steps.actions import (
    Action,
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
from failover.verdict import Verdict
from failover.world import Change, RouteChange, World, encode


@dataclass
class PlannedStep:
    """One step, what it would do, and what was seen while planning it: verdicts by the action's place."""

    step: Step
    actions: list[Action] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    @property
    def changes(self) -> Iterator[Change]:
        for action in self.actions:
            if isinstance(action, Changes):
                yield from action.items


@dataclass
class Plan:
    """What would happen. `refusal` is why it would not, after the steps that were planned before it."""

    runbook: Runbook
    steps: list[PlannedStep] = field(default_factory=list)
    judgements: list[tuple[str, Judgement]] = field(default_factory=list)
    accepted: frozenset[str] = frozenset()
    topology: str = ""
    """The text of the topology: the same names may stand for other machines in another file."""
    refusal: FailoverError | None = None
    before: World = field(default_factory=World)
    after: World = field(default_factory=World)

    @property
    def changes(self) -> list[Change]:
        return [change for planned in self.steps for change in planned.changes]

    @property
    def checks(self) -> int:
        """How many checks and waits for something to be seen the plan holds."""
        actions = [action for planned in self.steps for action in planned.actions]
        looks = sum(len(action.checks) for action in actions if isinstance(action, Look))
        return looks + sum(1 for action in actions if isinstance(action, Settle | CatchUp | Follow))

    @property
    def hash(self) -> str:
        """Names exactly this row of changes, checks and commands, on this topology, with these guards waived; the
        reasons and the lag do not enter it."""
        shape = [
            [
                planned.step.id,
                [describe(action) for action in planned.actions if not isinstance(action, Note | Forecast)],
            ]
            for planned in self.steps
        ]
        return _digest([self.runbook.name, shape, sorted(self.accepted), self.topology])

    def fingerprint(self, versions: Mapping[str, str]) -> str:
        """The shape of the path alone: resources, order, stages, gates, and each provider's path version."""
        shape = [
            [
                planned.step.verb,
                [_shape(action) for action in planned.actions if not isinstance(action, Note | Forecast)],
            ]
            for planned in self.steps
        ]
        return _digest([shape, dict(sorted(versions.items()))])


def no_race(plan: Plan, step: Step, latest: dict[str, str]) -> None:
    """Raise Refused where `step`, planned last, changes what a step beside it changes too: either may come first.

    `latest` names the step that changed each route or database last, and is kept up to date: whoever waits for that
    one waits for all before it.
    """
    for subject in dict.fromkeys(map(_subject, plan.steps[-1].changes)):
        other = latest.get(subject, step.id)
        if other != step.id and not _waits_for(plan.runbook, step, other):
            raise Refused(
                "parallel-steps",
                f"the steps {other} and {step.id} both change {subject}, and neither waits for the other",
                where=f"step {step.id}, {step.place}",
                next=f"let one wait: write 'needs: [{other}]' into step {step.id}",
            )
        latest[subject] = step.id


def _waits_for(runbook: Runbook, step: Step, other: str) -> bool:
    before = {one.id: one.after for one in runbook.steps}
    seen: set[str] = set()
    left = list(step.after)
    while left:
        name = left.pop()
        if name == other:
            return True
        if name not in seen:
            seen.add(name)
            left += before[name]
    return False


def _subject(change: Change) -> str:
    return change.resource if isinstance(change, RouteChange) else f"database {change.database}"


def describe(action: Action) -> dict[str, Any]:
    """`action` as plain data, for the plan's hash, its JSON form and a journal."""
    match action:
        case Changes(items=items):
            return {"changes": [{k: v for k, v in encode(item).items() if k != "reason"} for item in items]}
        case Look(checks=checks, about=about):
            return {"look": [str(check) for check in checks], "about": about}
        case Settle(wanted=wanted, wait_out=wait_out, tail=tail):
            weights = {route: dict(state.weights) for route, state in wanted.items()}
            return {"settle": weights, "wait_out": wait_out, "tail": tail}
        case Empty(routes=routes, region=region, within=within, close=close):
            return {"empty": list(routes), "region": region, "within": within, "close": close}
        case CatchUp(database=database, source=source, target=target, within=within):
            return {"catch_up": database, "source": source, "target": target, "within": within}
        case Follow(database=database, region=region):
            return {"follow": database, "region": region}
        case Pause(seconds=seconds, why=why):
            return {"pause": seconds, "why": why}
        case Run(argv=argv, env=env, timeout=timeout, repeatable=repeatable):
            named = {name: value.source if isinstance(value, Secret) else value for name, value in env.items()}
            return {"command": list(argv), "env": named, "timeout": timeout, "repeatable": repeatable}
        case Ask(message=message):
            return {"approve": message}
        case Tell(notifier=notifier, message=message):
            return {"notify": notifier, "message": message}
        case Note(text=text):
            return {"note": text}
        case Forecast(service=service, region=region, loads=loads, limit=limit):
            return {"forecast": service, "region": region, "loads": list(loads), "limit": limit}


def _shape(action: Action) -> Any:
    if not isinstance(action, Changes):
        return sorted(describe(action))
    return [
        [item.resource, sorted(region for region, weight in item.after.weights.items() if not weight)]
        if isinstance(item, RouteChange)
        else [item.resource, str(item.before), str(item.after)]
        for item in action.items
    ]


def _digest(data: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
