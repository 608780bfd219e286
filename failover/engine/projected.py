"""The actuator of a plan: changes are laid over the world, and nothing is written."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from failover.engine.estate import Estate
from failover.engine.loop import drive
from failover.engine.plan import Plan, PlannedStep, no_race
from failover.engine.process import must_be_there, reveal
from failover.errors import FailoverError
from failover.health import checks_health
from failover.runbook import Runbook, Step
from failover.steps.actions import Action, Changes, Look, Run, Scope, Seen
from failover.verdict import passed
from failover.world import CheckId, MemberChange, Role, World


def plan(
    estate: Estate,
    runbook: Runbook,
    accepted: frozenset[str],
    skip: frozenset[str] = frozenset(),
    fenced: Mapping[tuple[str, str], bool] = MappingProxyType({}),
) -> Plan:
    """What `runbook` would do now, by the steps' own generators. Reads, and writes nothing.

    A refusal or a failure that can be foreseen ends the plan and stands in its `refusal`. Steps in `skip` are done;
    `fenced` are the members that the run has fenced, and whether as planned.
    """
    made = Plan(runbook, accepted=accepted, topology=estate.topology.document.text)
    projected = Projected(estate, made, fenced)
    latest: dict[str, str] = {}
    for step in runbook.steps:
        if step.id in skip:
            continue
        made.steps.append(PlannedStep(step))
        try:
            drive(step, estate.context, projected, lambda at, found: made.judgements.append((at.id, found)), accepted)
            no_race(made, step, latest)
        except FailoverError as error:
            made.refusal = error
            break
    made.before, made.after = projected.seen, projected.world
    return made


class Projected:
    """Lays changes over what was seen at first. What only the run can tell has no verdict here."""

    def __init__(self, estate: Estate, made: Plan, fenced: Mapping[tuple[str, str], bool]) -> None:
        self.estate = estate
        self.fenced = fenced
        self.plan = made
        self.world = World()
        self.seen = World()
        self.touched = self.ran = False

    def observe(self, scope: Scope) -> World:
        missing = Scope(
            tuple(route for route in scope.routes if route not in self.seen.routes),
            tuple(database for database in scope.databases if database not in self.seen.databases),
            tuple(check for check in scope.checks if check not in self.seen.checks),
            tuple(service for service in scope.loads if service not in self.seen.loads),
        )
        if missing != Scope():
            found = self.estate.observe(missing, self.fenced)
            self.seen = self.seen.merge(found)
            self.world = self.world.merge(found)
        return self.world

    def perform(self, step: Step, action: Action) -> Seen:  # noqa: ARG002 - an actuator is told which step it is
        planned = self.plan.steps[-1]
        if isinstance(action, Changes) and any(one.recovery for one in action.items):
            return Seen(self.world)
        again = isinstance(action, Look) and action in planned.actions
        planned.actions.append(action)
        if isinstance(action, Changes):
            self.touched = True
            self.world = self.world.after(*action.items)
            for change in action.items:
                if isinstance(change, MemberChange) and change.after is Role.PRIMARY:
                    why = f"expected once {change.database} has a primary; will be checked"
                    self._expect(self._needing(change.database), why)
        elif isinstance(action, Look) and not self.touched and not again:
            world = self.observe(Scope(checks=action.checks))
            verdict = checks_health(self.estate.topology, action.checks, world)
            planned.verdicts[len(planned.actions) - 1] = verdict
            return Seen(world, verdict)
        elif isinstance(action, Look) and self.ran:
            self.observe(Scope(checks=action.checks))
            self._expect(action.checks, "expected once the command has run; will be checked")
        elif isinstance(action, Run):
            if not self.ran:
                must_be_there(action.argv, reveal(action.env))
            # What a command leaves behind may be the program of the next one.
            self.touched = self.ran = True
        return Seen(self.world)

    def _needing(self, database: str) -> list[CheckId]:
        return [
            check
            for check in self.world.checks
            for declared in self.estate.topology.services[check.service].checks
            if declared.name == check.check and database in declared.needs
        ]

    def _expect(self, checks: Iterable[CheckId], why: str) -> None:
        """What fails now and is to be mended by then holds up no guard of a plan; the run looks at it."""
        found = self.world.checks
        mended = {check: passed(why) for check in checks if check in found and not found[check].passed}
        self.world = replace(self.world, checks={**found, **mended})
