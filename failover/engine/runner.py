"""Runs: begun, carried out, stopped, taken up again by whoever comes, and ended."""

import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from failover.clock import stamp
from failover.engine import projected
from failover.engine.estate import Estate
from failover.engine.evidence import paths
from failover.engine.journal import PREFIX, Journal
from failover.engine.live import Hands, Live
from failover.engine.locks import Locks, held
from failover.engine.loop import drive, strike
from failover.engine.plan import Plan
from failover.engine.process import alive, owner
from failover.engine.readback import Readback
from failover.engine.record import OPEN, Record, fold
from failover.errors import Failed, FailoverError, Indeterminate, Interrupted, Locked, Refused, Usage
from failover.guards import Judgement
from failover.runbook import Runbook, Step
from failover.secret import redact
from failover.steps.back import Back
from failover.world import World

_MOVING = ("drain", "restore", "shift", "promote", "undo")


@dataclass(frozen=True)
class Order:
    """What a run is started with besides its runbook: why, and which guards were waived for which reason."""

    purpose: str = "incident"
    accepted: Mapping[str, str] = field(default_factory=dict)
    undo_of: str = ""


def regions_of(runbook: Runbook) -> tuple[str, ...]:
    """The regions that a run of `runbook` must hold: all that a moving step names."""
    named = [
        name
        for step in runbook.steps
        if step.verb in _MOVING
        for _, kind, name in step.spec.references()
        if kind == "region"
    ]
    return tuple(dict.fromkeys(named))


def read_record(estate: Estate, run: str) -> Record:
    """The record of `run`, from the store. Raises Usage where there is no such run."""
    record = fold(run, Journal(estate.store, run, estate.clock).replay())
    if not record.events:
        raise Usage(f"there is no run called '{run}'", next="failover runs lists them")
    return record


def let_go(estate: Estate, run: str) -> list[str]:
    """Release every region that `run` holds, without a look at its journal; their names."""
    locks = Locks(estate.store, estate.clock, lambda _: True)
    regions = [region for region, lock in locks.holders().items() if lock["run"] == run]
    locks.release(regions, run)
    return regions


def runs(estate: Estate) -> list[str]:
    """The names of all runs in the store, oldest first."""
    return [stream.removeprefix(PREFIX) for stream in estate.store.streams(PREFIX)]


class Session:
    """One process carrying out one run. Every method that writes raises Locked once another has taken it over."""

    def __init__(self, estate: Estate, runbook: Runbook, journal: Journal, record: Record, hands: Hands) -> None:
        self.estate = estate
        self.runbook = runbook
        self.journal = journal
        self.record = record
        self.hands = replace(hands, progress=lambda step, text: hands.progress(step, redact(text)))
        self.live: Live | None = None
        self._looked = World()
        self.locks = Locks(estate.store, estate.clock, self._open)
        if record.add not in journal.listeners:
            journal.listeners.insert(0, record.add)

    @classmethod
    def begin(cls, estate: Estate, plan: Plan, order: Order, hands: Hands, versions: Mapping[str, str]) -> "Session":
        """Write a new run down and take its regions. Raises Locked, with the run ended, where one is held."""
        runbook, regions = plan.runbook, regions_of(plan.runbook)
        head = {
            "runbook": runbook.name,
            "summary": runbook.summary,
            "inputs": dict(runbook.inputs),
            "sources": {name: list(source) for name, source in runbook.sources.items()},
            "topology": [estate.topology.document.name, estate.topology.document.text],
            "purpose": order.purpose,
            "accepted": dict(order.accepted),
            "undo_of": order.undo_of,
            "regions": list(regions),
            "plan": plan.hash,
            "fingerprint": plan.fingerprint(versions),
            "paths": paths(estate, runbook),
            "owner": owner(),
        }
        subject = "-".join(regions) if 0 < len(regions) <= 2 else runbook.name
        minute = stamp(estate.clock.wall())[:16].translate(str.maketrans("", "", "-:")).replace("T", "-")
        name = f"{minute}-{subject}"
        for turn in range(1, 1000):
            run = name if turn == 1 else f"{name}-{turn}"
            journal = Journal(estate.store, run, estate.clock)
            session = cls(estate, runbook, journal, Record(run), hands)
            try:
                journal.append("run-started", **head)
            except Locked:
                continue
            session._take(regions)
            return session
        raise Failed(f"a thousand runs were started in the minute {minute}", next="find out what starts them")

    @classmethod
    def take_up(cls, estate: Estate, runbook: Runbook, run: str, hands: Hands, *, take_over: bool) -> "Session":
        """Go on with a run that was stopped or killed, in this process, and find out about its open writes."""
        journal = Journal(estate.store, run, estate.clock)
        record = fold(run, journal.replay())
        if record.status not in OPEN:
            raise Usage(f"run {run} is over: it ended as {record.status}", next=f"failover show {run}")
        if record.status == "running":
            _must_be_gone(record, take_over=take_over)
        session = cls(estate, runbook, journal, record, hands)
        journal.append("run-adopted", owner=owner())
        session._hold(record.started["regions"])
        session._resolve()
        return session

    @property
    def world(self) -> World:
        """The world as this process last saw or made it."""
        return self.live.world if self.live else self._looked

    def plan(self, accepted: Iterable[str]) -> Plan:
        """What is left to do, from the world as it is now."""
        record = self.record
        made = projected.plan(self.estate, self.runbook, frozenset(accepted), record.finished, record.fenced)
        self._looked = made.before
        return made

    def skip(self, step: str, reason: str) -> None:
        """Leave a step out, for a reason that stays in the record. Raises Usage where there is no such step."""
        if step not in {one.id for one in self.runbook.steps}:
            raise Usage(f"run {self.record.id} has no step '{step}'", next=f"failover show {self.record.id}")
        for intent in self.record.pending:
            if intent.step == step:
                self._close(intent.number, f"skipped: {reason}")
        self.journal.append("step-skipped", step=step, reason=reason)

    def go(self, plan: Plan, accepted: Mapping[str, str]) -> Record:
        """Carry out `plan` to its end. Raises what stopped it, after that was written down."""
        if self.record.accepted != dict(accepted):
            self.journal.append("accepted", guards=dict(accepted))
        expected = {planned.step.id: list(planned.changes) for planned in plan.steps}
        live = Live(self.estate, self.journal, self.record, self.hands, expected)
        self.live = live
        self._open_command()
        try:
            self._steps(live, frozenset(accepted))
        except Locked:
            raise
        except FailoverError as error:
            self._stopped(error)
            raise
        self._end("done", 0)
        return self.record

    def again(self) -> None:
        """Go on in this process after a stop. Raises Locked where somebody else has taken the run up meanwhile."""
        self.journal.append("run-adopted", owner=owner())

    def back(self, step: str) -> None:
        """Take the last stage of `step` back and leave the run stopped there. Raises what kept it from that."""
        self.again()
        why = f"one stage back in step {step}"
        spec = Back(stage=tuple(self.record.last_stage(step)))
        live = Live(self.estate, self.journal, self.record, self.hands, {})
        self.live = live
        try:
            drive(Step(step, "back", spec, (), why), self.estate.context, live, self._judged, frozenset())
        except Locked:
            raise
        except FailoverError as error:
            self.stop(error.what)
            raise
        self.stop(why)

    def stop(self, why: str) -> None:
        """Leave the run as it is, to be taken up again later."""
        self.journal.append("run-stopped", error=why, exit_code=Interrupted.exit_code)

    def abort(self, why: str) -> None:
        """End the run here: nothing is taken back, its regions are let go of."""
        self._end("aborted", Failed.exit_code, why)

    def _take(self, regions: Sequence[str]) -> None:
        try:
            self._hold(regions)
        except Locked as error:
            self._end("refused", error.exit_code, error.what)
            raise

    def _hold(self, regions: Sequence[str]) -> None:
        """Take the locks of `regions`. One is out at a time: whoever moves one is refused while another is held."""
        self.locks.take(regions, self.record.id, self.record.owner["by"], self.record.owner["host"])
        for region, lock in self.locks.holders().items() if regions else ():
            if lock["run"] != self.record.id:
                self.locks.release(regions, self.record.id)
                raise held(region, lock)

    def _open(self, run: str) -> bool:
        return fold(run, Journal(self.estate.store, run, self.estate.clock).replay()).status in OPEN

    def _resolve(self) -> None:
        live = Live(self.estate, self.journal, self.record, self.hands, {})
        for intent in self.record.pending:
            if intent.command:
                continue
            changes = list(intent.changes)
            readback = Readback(self.estate, self.hands)
            made, parts, problem = readback.resolve(changes, intent.at, None)
            try:
                if made is None and readback.complete(intent.step, changes, frozenset(self.record.accepted)):
                    made, parts, problem = readback.resolve(changes, intent.at, None)
                if made is None:
                    raise problem or Indeterminate("a write cannot be read back")
            except FailoverError as error:
                strike(error)
                self.stop(error.what)
                raise
            live.settle_intent(intent.number, changes, made, intent.receipt, problem, parts)

    def _open_command(self) -> None:
        """A command that was cut off may have done anything; only its author can say whether to run it again."""
        repeatable = {step.id for step in self.runbook.steps if getattr(step.spec, "repeatable", False)}
        for intent in self.record.pending:
            if intent.step in repeatable:
                self._close(intent.number, "cut off")
            elif intent.command:
                pid = f" as process {intent.pid}" if intent.pid else ""
                error = Indeterminate(
                    f"the command of step {intent.step} was cut off and may have done its work, or still run{pid}: "
                    + " ".join(intent.command),
                    next=f"look at what it did; then failover resume {self.record.id} with "
                    f'--retry {intent.step} or with --skip {intent.step} --reason "…"',
                )
                self._stopped(error)
                raise error

    def retry(self, step: str) -> None:
        """Say that a command which was cut off may be run again."""
        for intent in self.record.pending:
            if intent.step == step:
                self._close(intent.number, "to be retried")

    def _close(self, intent: int, error: str) -> None:
        self.journal.append("outcome", intent=intent, result="failed", made=[], error=error)

    def _stopped(self, error: FailoverError) -> None:
        untouched = not self.record.intents
        if untouched and isinstance(error, Refused | Failed):
            self._end("refused" if isinstance(error, Refused) else "failed", error.exit_code, error.what)
            return
        code = Interrupted.exit_code if isinstance(error, Failed) else error.exit_code
        self.journal.append("run-stopped", error=error.what, guard=getattr(error, "guard", ""), exit_code=code)

    def _end(self, status: str, code: int, error: str = "") -> None:
        self.journal.append("run-ended", status=status, exit_code=code, error=error)
        self.locks.release(self.record.started["regions"], self.record.id)

    def _steps(self, live: Live, accepted: frozenset[str]) -> None:
        """Each step as soon as those before it are done: alone in this thread, or side by side in their own."""
        finished = self.record.finished
        left = {step.id: {name for name in step.after if name not in finished} for step in self.runbook.steps}
        following: dict[str, list[Step]] = {}
        for step in self.runbook.steps:
            for name in left[step.id]:
                following.setdefault(name, []).append(step)
        ready = [step for step in self.runbook.steps if step.id not in finished and not left[step.id]]
        ended: queue.SimpleQueue[tuple[Step, BaseException | None]] = queue.SimpleQueue()
        running = 0
        first: BaseException | None = None
        stop, halted = self.hands.stop, False
        while running or (ready and first is None):
            if len(ready) == 1 and not running:
                step = ready.pop()
                self._one(step, live, accepted)
            else:
                while ready and first is None:
                    beside = (ready.pop(0), live, accepted, ended)
                    threading.Thread(target=self._aside, args=beside, daemon=True).start()
                    running += 1
                step, error = ended.get()
                running -= 1
                if error is not None:
                    # The steps beside it stop too, between two changes, and are taken up again with it.
                    halted = halted or not stop.is_set()
                    stop.set()
                    first = error if first is None or isinstance(error, Indeterminate) else first
                    continue
            for after in following.get(step.id, ()):
                left[after.id].discard(step.id)
                if not left[after.id]:
                    ready.append(after)
        if halted:
            stop.clear()
        if first is not None:
            raise first

    def _aside(
        self,
        step: Step,
        live: Live,
        accepted: frozenset[str],
        ended: "queue.SimpleQueue[tuple[Step, BaseException | None]]",
    ) -> None:
        try:
            self._one(step, live, accepted)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits for the step
            ended.put((step, error))
        else:
            ended.put((step, None))

    def _one(self, step: Step, live: Live, accepted: frozenset[str]) -> None:
        if self.hands.stop.is_set():
            raise Interrupted(f"stopped before step {step.id}")
        try:
            drive(step, self.estate.context, live, self._judged, accepted)
        except (Interrupted, Locked):
            raise
        except FailoverError as error:
            self.journal.append("step-failed", step=step.id, error=error.what)
            raise
        self.journal.append("step-done", step=step.id)

    def _judged(self, step: Step, judgement: Judgement) -> None:
        if not judgement.verdict.passed:
            self.journal.append(
                "guard",
                step=step.id,
                guard=judgement.guard,
                outcome=str(judgement.verdict.outcome),
                evidence=list(judgement.verdict.evidence),
                accepted=judgement.guard in self.record.accepted,
            )


def _must_be_gone(record: Record, *, take_over: bool) -> None:
    living = alive(record.owner)
    who = f"process {record.owner['pid']} of {record.owner['by']} on {record.owner['host']}"
    if living is True and not take_over:
        raise Locked(
            f"run {record.id} is being carried out by {who} since {stamp(record.started['at'])}",
            next="stop it there with Ctrl-C, or take it from that process: the same command with --take-over",
        )
    if living is None and not take_over:
        raise Locked(
            f"run {record.id} may still be carried out by {who}, which cannot be seen from here",
            next="if that machine is gone: the same command with --take-over",
        )
