"""The verbs of a runbook: what may be written under each, as one model a verb."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from failover.schema import Model
from failover.secret import Secret
from failover.topology import Percent, Weight, downwards
from failover.units import Duration

ALL = ("all",)
SURVIVORS = ("survivors",)

Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "description": "a name, a list of names, or the word all",
        }
    ),
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

    regions: Names = Field(ALL, description="where; `survivors` are all with traffic but the region `of`")
    of: str = Field("", description="the region that `survivors` leaves out")
    services: Names = Field(ALL, description="whose checks")
    within: Duration = Field(0.0, description="how long to wait for them to pass")

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

    region: str = Field(description="the region that is left or comes back")
    services: Names = Field(ALL, description="whose traffic")
    stages: tuple[Percent, ...] | None = Field(
        None, description="percentages of the normal share, falling to 0; by default those of the topology"
    )
    soak: Duration | None = Field(
        None, description="how long each stage is watched before the next; by default as the topology says"
    )
    pace: Pace = Field("staged", description="`immediate` leaves out the stages")

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

    services: Names = Field(ALL, description="whose traffic")
    weights: dict[str, Weight] = Field(min_length=1, description="the new weight of each region named")

    def references(self) -> Iterator[Reference]:
        yield from _names("services", "service", self.services)
        for region in self.weights:
            yield ("weights", region), "region", region


class Promote(Spec):
    """Move the primaries of databases: away from a region, to a region, or back to the region that is their home."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [way]} for way in ("away_from", "to", "back_to")]}
    )

    databases: Names = Field(ALL, description="whose primary")
    away_from: str = Field("", description="the region that is to hold no primary")
    to: str = Field("", description="the region that takes the writes")
    back_to: str = Field("", description="the region whose own primaries return")
    within: Duration = Field(60.0, description="how long a replica may take to catch up")

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

    argv: tuple[str, ...] = Field(min_length=1, description="the program and its arguments")
    env: dict[str, str | Secret] = Field({}, description="variables for it; a secret as {env: NAME} or {file: PATH}")
    timeout: Duration = Field(3600.0, description="how long it may run")
    repeatable: bool = Field(False, description="whether running it twice does no harm")


class Approve(Spec):
    """Stop until a person agrees."""

    shorthand = "message"

    message: str = Field(description="what the person is asked")


class Wait(Spec):
    """Let time pass."""

    shorthand = "for"

    seconds: Duration = Field(alias="for", description="how long")


class Notify(Spec):
    """Tell people through a notifier of the topology."""

    to: str = Field(description="the notifier")
    message: str = Field(description="the text")

    def references(self) -> Iterator[Reference]:
        yield ("to",), "notifier", self.to


class Call(Spec):
    """Run the steps of another runbook here."""

    shorthand = "name"

    name: str = Field(description="the runbook")
    inputs: dict[str, Any] = Field({}, description="the values of its inputs")


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
