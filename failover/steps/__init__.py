"""Steps as generators: pure, without I/O, and without knowledge of any provider."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from failover.steps import back, promote, simple, traffic, undo
from failover.steps.actions import Context, Scope, Steps
from failover.world import World


@dataclass(frozen=True, slots=True)
class Verb:
    """How a verb starts: the part of the world that it needs, and the generator that it is."""

    scope: Callable[[Context, Any], Scope]
    steps: Callable[[Context, Any, World], Steps]


VERBS: Mapping[str, Verb] = {
    "check": Verb(simple.check_scope, simple.check),
    "drain": Verb(traffic.drain_scope, traffic.drain),
    "restore": Verb(traffic.drain_scope, traffic.restore),
    "shift": Verb(traffic.shift_scope, traffic.shift),
    "promote": Verb(promote.promote_scope, promote.promote),
    "command": Verb(simple.nothing, simple.command),
    "approve": Verb(simple.nothing, simple.approve),
    "wait": Verb(simple.nothing, simple.wait),
    "notify": Verb(simple.nothing, simple.notify),
    "back": Verb(back.back_scope, back.back),
    "undo": Verb(undo.undo_scope, undo.undo),
}
