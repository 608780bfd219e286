"""Holes that a review from outside found, each shown to be closed."""

import pytest

from failover.errors import Refused
from failover.world import Role
from tests import worlds


def test_whoever_approved_a_switchover_has_not_approved_a_failover() -> None:
    made = worlds.estate()
    accepted = {"data-loss": "it is dead", "unfenced-primary": "it is dead"}
    planned = worlds.plan(made, worlds.book(made, "promote", to="west"), *accepted)
    session = worlds.begin(made, planned, accepted=accepted)
    east = worlds.copy_of(made, "orders", "east")
    east.unreachable, east.can_fence = "no route to host", False
    with pytest.raises(Refused) as refused:
        session.go(planned, accepted)
    assert refused.value.guard == "plan-changed"
    assert worlds.copy_of(made, "orders", "west").role is Role.REPLICA
