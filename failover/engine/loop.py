"""The one loop: observe, ask the step, guard, act. An actuator decides whether acting is real."""

from collections.abc import Callable
from typing import Protocol

from failover.errors import FailoverError, Refused
from failover.guards import Judgement, judge
from failover.runbook import Step
from failover.secret import redact
from failover.steps import VERBS
from failover.steps.actions import Action, Changes, Context, Scope, Seen
from failover.world import World


class Actuator(Protocol):
    """Carries out what a step yields: for real, or on a picture of the world."""

    @property
    def world(self) -> World: ...

    def observe(self, scope: Scope) -> World:
        """The world with everything in `scope` in it."""
        ...

    def perform(self, step: Step, action: Action) -> Seen: ...


def drive(
    step: Step,
    context: Context,
    actuator: Actuator,
    judged: Callable[[Step, Judgement], None],
    accepted: frozenset[str],
) -> None:
    """Carry `step` out. Every change passes the guards first; errors are handed to the step, which may take back."""
    try:
        _drive(step, context, actuator, judged, accepted)
    except FailoverError as error:
        strike(error)
        raise


def strike(error: FailoverError) -> None:
    """Take out of `error` the secrets that a provider has put into it."""
    error.what, error.where, error.next = redact(error.what), redact(error.where), redact(error.next)
    error.args = (error.what,)
    if isinstance(error, Refused):
        error.seen = tuple(map(redact, error.seen))


def _drive(
    step: Step,
    context: Context,
    actuator: Actuator,
    judged: Callable[[Step, Judgement], None],
    accepted: frozenset[str],
) -> None:
    verb = VERBS[step.verb]
    steps = verb.steps(context, step.spec, actuator.observe(verb.scope(context, step.spec)))
    try:
        action = next(steps)
        while True:
            try:
                if isinstance(action, Changes):
                    guard(step, context, actuator.world, action, judged, accepted)
                seen = actuator.perform(step, action)
            except FailoverError as error:
                action = steps.throw(error)
            else:
                action = steps.send(seen)
    except StopIteration:
        return


def guard(
    step: Step,
    context: Context,
    world: World,
    action: Changes,
    judged: Callable[[Step, Judgement], None],
    accepted: frozenset[str],
) -> None:
    """Raise Refused for the first guard that does not pass and was not accepted by name."""
    for judgement in judge(context, world, action.items):
        judged(step, judgement)
        if judgement.verdict.passed or (judgement.waivable and judgement.guard in accepted):
            continue
        waive = f', or --accept {judgement.guard} --reason "…"' if judgement.waivable else ""
        raise Refused(
            judgement.guard,
            "; ".join(judgement.verdict.evidence),
            where=f"step {step.id}, {step.place}",
            next=judgement.ways_out + waive,
        )
