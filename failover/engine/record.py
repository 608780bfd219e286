"""What a run's events add up to. Pure: the same events give the same record on any machine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from failover.engine.journal import Event
from failover.world import Change, Role, RouteChange, decode

OPEN = ("running", "stopped")
"""The states of a run that still holds its regions."""


@dataclass
class StepRecord:
    """One step so far: `running`, `done`, `failed` or `skipped`, with its times in seconds since the epoch."""

    status: str = "running"
    started: float = 0.0
    ended: float | None = None
    error: str = ""
    answered: set[str] = field(default_factory=set)
    """What must not be done twice and has been done: commands, approvals and messages, by their texts."""


@dataclass
class Intent:
    """A write that was decided on: `outcome` is done, partly, failed or, while nobody knows, empty."""

    number: int
    step: str
    changes: tuple[Change, ...]
    at: float
    command: tuple[str, ...] = ()
    outcome: str = ""
    made: tuple[Change, ...] = ()
    receipt: str = ""
    pid: int = 0


@dataclass
class Record:
    """One run: what it was to do, what it did, and how it stands."""

    id: str
    events: int = 0
    started: Mapping[str, Any] = field(default_factory=dict)
    owner: Mapping[str, Any] = field(default_factory=dict)
    status: str = "empty"
    exit_code: int = 0
    error: str = ""
    at: float = 0.0
    steps: dict[str, StepRecord] = field(default_factory=dict)
    intents: dict[int, Intent] = field(default_factory=dict)
    settled: dict[str, float] = field(default_factory=dict)
    """When each route was first seen to have settled after its last change."""
    notes: list[str] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)
    """The guards that were waived, each with its reason."""

    @property
    def finished(self) -> frozenset[str]:
        """The steps that need not be done any more."""
        return frozenset(name for name, step in self.steps.items() if step.status in ("done", "skipped"))

    @property
    def pending(self) -> list[Intent]:
        """The writes of which nobody knows whether they happened."""
        return [intent for intent in self._all if not intent.outcome]

    @property
    def applied(self) -> list[Change]:
        """Every change that was made, oldest first."""
        return [change for intent in self._all for change in intent.made]

    @property
    def fenced(self) -> dict[tuple[str, str], bool]:
        """The members, as (database, region), that this run fenced and left so, and whether as planned."""
        found: dict[tuple[str, str], bool] = {}
        for change in self.applied:
            if not isinstance(change, RouteChange):
                found.pop((change.database, change.region), None)
                if change.after is Role.FENCED:
                    found[change.database, change.region] = change.planned
        return found

    @property
    def receipts(self) -> dict[str, str]:
        """What each route's router gave for its last change, to ask by whether it has settled."""
        return {
            change.route: intent.receipt
            for intent in self._all
            for change in intent.changes
            if isinstance(change, RouteChange) and intent.outcome == "done"
        }

    @property
    def _all(self) -> list[Intent]:
        """The intents as they are now: a step that runs beside may add one at any moment."""
        return list(self.intents.values())

    def moved(self, step: str) -> list[Change]:
        """Every change that `step` made, oldest first."""
        return [change for intent in self._all if intent.step == step for change in intent.made]

    def last_stage(self, step: str) -> list[RouteChange]:
        """The changes of the last stage of `step` that was not taken back; none where none was made."""
        left: list[RouteChange] = []
        for change in self.moved(step):
            if not isinstance(change, RouteChange) or change.before.weights == change.after.weights:
                continue
            if change.recovery:
                left = [one for one in left if (one.route, one.after) != (change.route, change.before)]
            else:
                left.append(change)
        return [change for change in left if change.reason == left[-1].reason]

    def before(self, route: str) -> Change | None:
        """The last change of `route` that was made."""
        made = [change for change in self.applied if isinstance(change, RouteChange) and change.route == route]
        return made[-1] if made else None

    def add(self, event: Event) -> None:
        """Take one more event in."""
        self.events, self.at = event["seq"], event["at"]
        match event["kind"]:
            case "run-started":
                self.started, self.owner, self.status = event, event["owner"], "running"
                self.accepted = dict(event["accepted"])
            case "run-adopted":
                self.owner, self.status, self.error = event["owner"], "running", ""
            case "run-stopped":
                self.status, self.error, self.exit_code = "stopped", event["error"], event["exit_code"]
            case "run-ended":
                self.status, self.error = event["status"], event.get("error", "")
                self.exit_code = event["exit_code"]
            case "step-started":
                self.steps.setdefault(event["step"], StepRecord(started=event["at"])).status = "running"
            case "step-done" | "step-failed" | "step-skipped" as kind:
                step = self.steps.setdefault(event["step"], StepRecord(started=event["at"]))
                step.status, step.ended = kind.removeprefix("step-"), event["at"]
                step.error = event.get("error", "")
            case "intent":
                changes = tuple(decode(change) for change in event.get("changes", ()))
                self.intents[event["seq"]] = Intent(
                    event["seq"], event["step"], changes, event["at"], tuple(event.get("command", ()))
                )
            case "spawned":
                self.intents[event["intent"]].pid = event["pid"]
            case "outcome":
                self._outcome(event)
            case "settled":
                for route in event["routes"]:
                    self.settled.setdefault(route, event["at"])
            case "answered":
                self.steps[event["step"]].answered.add(event["what"])
            case "accepted":
                self.accepted.update(event["guards"])
            case "note":
                self.notes.append(event["text"])

    def _outcome(self, event: Event) -> None:
        intent = self.intents[event["intent"]]
        intent.outcome, intent.receipt = event["result"], event.get("receipt", "")
        intent.made = (
            *(intent.changes[place] for place in event.get("made", ())),
            *(decode(part) for part in event.get("parts", ())),
        )
        if intent.outcome == "done" and intent.command:
            self.steps[intent.step].answered.add(command_key(intent.command))
        for change in intent.made:
            if isinstance(change, RouteChange):
                self.settled.pop(change.route, None)


def command_key(argv: Iterable[str]) -> str:
    """How a finished command is remembered within its step."""
    return "command " + " ".join(argv)


def fold(run: str, events: Iterable[Event]) -> Record:
    """The record that `events` add up to."""
    record = Record(run)
    for event in events:
        record.add(event)
    return record
