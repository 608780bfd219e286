"""The actuator of a run: every write is journalled before and after, and what it left open is read back."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from failover.engine.estate import Estate
from failover.engine.gather import gather
from failover.engine.journal import Journal
from failover.engine.process import reveal, run_command
from failover.engine.readback import Readback
from failover.engine.record import Record, command_key
from failover.engine.settling import LATEST, SOONEST, Settling, empty
from failover.errors import Failed, FailoverError, Indeterminate, Interrupted, Refused
from failover.health import checks_health, databases_of
from failover.runbook import Step
from failover.secret import redact
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
    Scope,
    Seen,
    Settle,
    Tell,
)  # fmt: skip
from failover.units import count, duration
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import Change, MemberChange, Role, RouteChange, World, covers, encode, same


@dataclass
class Hands:
    """What a run needs of the person or program that started it. `approve` answers yes, no, or None for nobody."""

    stop: threading.Event = field(default_factory=threading.Event)
    approve: Callable[[str, str], bool | None] = lambda _, __: None
    progress: Callable[[str, str], None] = lambda _, __: None


class Live:
    """Makes changes through the ports. `expected` are the changes of the approved plan, by step; no other is made."""

    def __init__(
        self, estate: Estate, journal: Journal, record: Record, hands: Hands, expected: Mapping[str, list[Change]]
    ) -> None:
        self.estate = estate
        self.journal = journal
        self.record = record
        self.hands = hands
        self.expected = {step: list(changes) for step, changes in expected.items()}
        self.world = World()
        self._begun: set[str] = set()
        self._turn = threading.RLock()

    def observe(self, scope: Scope) -> World:
        fenced = self.record.fenced if scope.databases else {}
        return self._merge(self.estate.observe(scope, fenced))

    def perform(self, step: Step, action: Action) -> Seen:
        self._begin(step)
        if not isinstance(action, CatchUp) and not (isinstance(action, Changes) and not action.stoppable):
            self._stop_here(step)
        match action:
            case Changes():
                return Seen(self._change(step, action))
            case Look():
                return self._look(step, action)
            case Settle():
                return Settling(self, step, action).done()
            case Empty():
                return empty(self, step, action)
            case CatchUp():
                database = self.estate.databases[action.database]
                verdict = database.caught_up(action.source, action.target, action.within)
                return self.seen(step, f"{action.database}: {action.target} has caught up", verdict)
            case Follow():
                return self._follow(step, action)
            case Pause():
                self.hands.progress(step.id, f"{action.why}: {duration(action.seconds)}")
                self.sleep(step, action.seconds)
                return Seen(self.world)
            case Run():
                return self._run(step, action)
            case Ask():
                return self._ask(step, action)
            case Tell():
                return self._tell(step, action)
            case Note() | Forecast():
                if isinstance(action, Note) and action.lasts:
                    self.journal.append("note", step=step.id, text=action.text)
                return Seen(self.world)

    def _begin(self, step: Step) -> None:
        """A step begins in the journal with the first thing that it does; one with nothing to do is only done."""
        if step.id not in self._begun:
            self._begun.add(step.id)
            self.journal.append("step-started", step=step.id, verb=step.verb)

    def _change(self, step: Step, action: Changes) -> World:
        for change in action.items:
            self._planned(step, change)
        batches: dict[str, list[Change]] = {}
        for change in action.items:
            batches.setdefault(self._port(change), []).append(change)
        numbers = {}
        for port, changes in batches.items():
            event = self.journal.append("intent", step=step.id, port=port, changes=[encode(one) for one in changes])
            numbers[port] = event["seq"]
        writes = {port: partial(self._write, numbers[port], changes) for port, changes in batches.items()}
        errors = (
            [write() for write in writes.values()]
            if len(writes) == 1
            else list(gather(writes, lambda port: Indeterminate(f"{port} did not answer in time")).values())
        )
        if any(isinstance(change, MemberChange) for change in action.items):
            moved = dict.fromkeys(change.database for change in action.items if isinstance(change, MemberChange))
            self.observe(Scope(databases=tuple(moved)))
        for error in errors:
            if error is not None:
                raise error
        return self.world

    def _write(self, number: int, changes: list[Change]) -> FailoverError | None:
        readback = Readback(self.estate, self.hands)
        made: list[int] | None = []
        parts: list[RouteChange] = []
        receipt, problem = "", None
        try:
            receipt = readback.write(changes)
            made = list(range(len(changes)))
        except Indeterminate as error:
            made, parts, problem = readback.resolve(changes, self.record.intents[number].at, error)
        except FailoverError as error:
            problem = error
        if made is not None:
            self.settle_intent(number, changes, made, receipt, problem, parts)
        return problem

    def settle_intent(
        self,
        number: int,
        changes: list[Change],
        made: list[int],
        receipt: str,
        problem: FailoverError | None,
        parts: list[RouteChange],
    ) -> None:
        """Journal what became of an intent, and take what was made into the world."""
        result = "done" if len(made) == len(changes) else "partly" if made or parts else "failed"
        more: dict[str, Any] = {"error": problem.what} if problem else {}
        if parts:
            more["parts"] = [encode(part) for part in parts]
        self.journal.append("outcome", intent=number, result=result, made=made, receipt=receipt, **more)
        with self._turn:
            for change in (*(changes[place] for place in made), *parts):
                if isinstance(change, RouteChange) or change.database in self.world.databases:
                    self.world = self.world.after(change)

    def _planned(self, step: Step, change: Change) -> None:
        if change.recovery:
            return
        left = self.expected.get(step.id, [])
        for index, expected in enumerate(left):
            part = covers(expected, change)
            if same(expected, change) or (part and change.after == expected.after):
                del left[: index + 1]
            elif not part:
                continue
            return
        raise Refused(
            "plan-changed",
            f"the approved plan does not hold {change.resource} going from {change.before} to {change.after}",
            where=f"step {step.id}, {step.place}",
            next="something moved since the plan was made; resume the run to see and approve what is left to do",
        )

    def _look(self, step: Step, action: Look) -> Seen:
        self.hands.progress(step.id, f"looking at {action.about}: {count(len(action.checks), 'check')}")
        needed = databases_of(self.estate.topology, action.checks)
        began = self.estate.clock.monotonic()
        world = self.observe(Scope(databases=needed, checks=action.checks))
        verdict = checks_health(self.estate.topology, action.checks, world)
        seen = self.seen(step, f"{action.about}: {count(len(action.checks), 'check')}", verdict)
        return replace(seen, took=self.estate.clock.monotonic() - began)

    def _follow(self, step: Step, action: Follow) -> Seen:
        clock = self.estate.clock
        deadline = clock.monotonic() + action.within
        pause = SOONEST
        while True:
            member = self.observe(Scope(databases=(action.database,))).databases[action.database][action.region]
            if (
                member.role is Role.REPLICA
                and member.streaming
                and member.lag is not None
                and member.lag <= action.lag
            ):
                verdict = passed(f"{action.region} is {duration(member.lag)} behind")
                break
            lag = "an unknown time" if member.lag is None else duration(member.lag)
            state = f"{action.region} is {member.role}, {lag} behind" + (
                f" ({member.detail})" if member.detail else ""
            )
            verdict = failed(state) if member.role is not Role.UNKNOWN else unknown(state)
            if clock.monotonic() >= deadline:
                break
            self.hands.progress(step.id, f"waiting: {state}")
            self.sleep(step, pause)
            pause = min(2 * pause, LATEST)
        return self.seen(step, f"{action.database}: {action.region} follows", verdict)

    def _run(self, step: Step, action: Run) -> Seen:
        env = reveal(action.env)
        key = command_key(map(redact, action.argv))
        if key in self.record.steps[step.id].answered:
            return Seen(self.world, passed("it has been run already"))
        number = self.journal.append("intent", step=step.id, command=list(action.argv))["seq"]
        try:
            code, lines = run_command(
                action.argv,
                env,
                action.timeout,
                lambda pid: self._note_pid(number, pid),
                partial(self.hands.progress, step.id),
            )
        except Failed as error:
            self.journal.append("outcome", intent=number, result="failed", error=str(error))
            raise
        result = "done" if code == 0 else "failed"
        self.journal.append("outcome", intent=number, result=result, exit_code=code, output=lines)
        last = f": {lines[-1]}" if lines else ""
        words = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
        line = f"{action.argv[0]} {words}{last if code else ''}"
        return Seen(self.world, passed(line) if code == 0 else failed(line))

    def _note_pid(self, number: int, pid: int) -> None:
        self.journal.append("spawned", intent=number, pid=pid)

    def _ask(self, step: Step, action: Ask) -> Seen:
        key = redact(f"approve {action.message}")
        if key not in self.record.steps[step.id].answered:
            answer = self.hands.approve(step.id, action.message)
            if answer is None:
                raise Interrupted(
                    f"step {step.id} waits for approval: {action.message}",
                    next=f"failover resume {self.record.id} --approve {step.id}",
                )
            if not answer:
                raise Failed(
                    f"step {step.id} was not approved: {action.message}", next="resume the run to be asked again"
                )
            self.journal.append("answered", step=step.id, what=key)
        return Seen(self.world, passed())

    def _tell(self, step: Step, action: Tell) -> Seen:
        key = redact(f"notify {action.notifier} {action.message}")
        if key in self.record.steps[step.id].answered:
            return Seen(self.world, passed())
        try:
            self.estate.notifiers[action.notifier].send(action.message)
        except FailoverError as error:
            # Nobody's traffic waits for a message.
            text = f"{action.notifier} was not told '{action.message}': {error.what}"
            self.hands.progress(step.id, text)
            self.journal.append("note", step=step.id, text=text)
            return Seen(self.world)
        self.journal.append("answered", step=step.id, what=key)
        return Seen(self.world, passed())

    def seen(self, step: Step, what: str, verdict: Verdict) -> Seen:
        self.journal.append(
            "check", step=step.id, what=what, outcome=str(verdict.outcome), evidence=list(verdict.evidence)
        )
        return Seen(self.world, verdict)

    def _port(self, change: Change) -> str:
        if isinstance(change, RouteChange):
            return f"router {self.estate.topology.routes[change.route].router}"
        return f"database {change.database}"

    def _merge(self, found: World) -> World:
        with self._turn:
            self.world = self.world.merge(found)
            return self.world

    def sleep(self, step: Step, seconds: float) -> None:
        if not self.estate.clock.sleep(seconds, self.hands.stop):
            self._stop_here(step)

    def _stop_here(self, step: Step) -> None:
        if self.hands.stop.is_set():
            raise Interrupted(f"stopped in step {step.id}, between two changes")
