"""The verbs of a runbook: what may be written under each, as one model a verb."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from failover.schema import Model
from failover.secret import Secret
from failover.topology import Percent, Weight, downwards
from failover.units import Duration

ALL = ("all",)
SURVIVORS = ("survivors",)

Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One name, a list of names, or the word `all`."""

Pace = Literal["staged", "immediate"]
Reference = tuple[tuple[str | int, ...], str, str]
"""Where in the spec a name stands, what it must be (region, service, database, notifier), and the name."""


class Spec(Model):
    """What stands under a verb. A text or a list there is short for the field `shorthand`."""

    shorthand: ClassVar[str] = ""

    def references(self) -> Iterator[Reference]:
        """The names in here that the topology must know."""
        return iter(())


def _names(field: str, kind: str, names: tuple[str, ...], words: tuple[str, ...] = ALL) -> Iterator[Reference]:
    for index, name in enumerate(names):
        if not (len(names) == 1 and name in words):
            yield (field, index), kind, name


class Check(Spec):
    """Run the checks of services in regions; fail unless all pass, within `within` at the latest."""

    regions: Names = ALL
    of: str = ""
    services: Names = ALL
    within: Duration = 0.0

    @model_validator(mode="after")
    def _survivors_of(self) -> "Check":
        if (self.regions == SURVIVORS) != bool(self.of):
            raise ValueError("'regions: survivors' and 'of: REGION' belong together; write both, or neither")
        return self

    def references(self) -> Iterator[Reference]:
        yield from _names("regions", "region", self.regions, ("all", "survivors"))
        yield from _names("services", "service", self.services)
        if self.of:
            yield ("of",), "region", self.of


class Move(Spec):
    """What drain and restore share: the region, which services, and how fast."""

    region: str
    services: Names = ALL
    stages: tuple[Percent, ...] | None = None
    soak: Duration | None = None
    pace: Pace = "staged"

    @field_validator("stages")
    @classmethod
    def _downwards(cls, stages: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return stages if stages is None else downwards(stages)

    def references(self) -> Iterator[Reference]:
        yield ("region",), "region", self.region
        yield from _names("services", "service", self.services)


class Drain(Move):
    """Take a region's traffic to zero, stage by stage, and see that it is gone."""


class Restore(Move):
    """Bring a region back to its normal weights, by the stages of its drain in reverse."""


class Shift(Spec):
    """Set the weights of services by hand; regions that are not named keep theirs."""

    services: Names = ALL
    weights: Annotated[dict[str, Weight], Field(min_length=1)]

    def references(self) -> Iterator[Reference]:
        yield from _names("services", "service", self.services)
        for region in self.weights:
            yield ("weights", region), "region", region


class Promote(Spec):
    """Move the primaries of databases: away from a region, to a region, or back to the region that is their home."""

    databases: Names = ALL
    away_from: str = ""
    to: str = ""
    back_to: str = ""
    within: Duration = 60.0

    @model_validator(mode="after")
    def _one_way(self) -> "Promote":
        if sum(map(bool, (self.away_from, self.to, self.back_to))) != 1:
            raise ValueError("say where the primaries go: one of 'away_from', 'to' and 'back_to', each with a region")
        return self

    def references(self) -> Iterator[Reference]:
        yield from _names("databases", "database", self.databases)
        for field in ("away_from", "to", "back_to"):
            if name := getattr(self, field):
                yield (field,), "region", name


class Command(Spec):
    """Run a program, without a shell. `repeatable` says that running it twice does no harm."""

    shorthand = "argv"

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    env: dict[str, str | Secret] = {}
    timeout: Duration = 3600.0
    repeatable: bool = False


class Approve(Spec):
    """Stop until a person agrees."""

    shorthand = "message"

    message: str


class Wait(Spec):
    """Let time pass."""

    shorthand = "for"

    seconds: Duration = Field(alias="for")


class Notify(Spec):
    """Tell people through a notifier of the topology."""

    to: str
    message: str

    def references(self) -> Iterator[Reference]:
        yield ("to",), "notifier", self.to


class Call(Spec):
    """Run the steps of another runbook here."""

    shorthand = "name"

    name: str
    inputs: dict[str, Any] = {}


VERBS: dict[str, type[Spec]] = {
    "check": Check,
    "drain": Drain,
    "restore": Restore,
    "shift": Shift,
    "promote": Promote,
    "command": Command,
    "approve": Approve,
    "wait": Wait,
    "notify": Notify,
    "runbook": Call,
}
