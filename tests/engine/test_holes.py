"""Holes that a review from outside found, each shown to be closed."""

import getpass
import os
import time

import pytest

from failover.engine.process import owner, run_command
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


def test_a_command_that_leaves_something_running_has_ended_all_the_same() -> None:
    began = time.monotonic()
    argv = ("bash", "-c", "setsid sleep 20 & echo deployed")
    assert run_command(argv, {}, 15, lambda _: None, lambda _: None) == (0, ["deployed"])
    assert time.monotonic() - began < 10


def test_a_user_without_a_name_can_run_things(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert owner()["by"] == f"user {os.getuid()}"
