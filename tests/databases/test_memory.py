"""The in-memory database: the contract of every database, and what tests may do to it."""

import pytest

from failover.clock import SYSTEM
from failover.databases import memory
from failover.databases.memory import MemoryConfig, MemoryDatabase
from failover.errors import Failed, Indeterminate
from failover.testing.databases import DatabaseContract
from failover.world import MemberChange, Role

REGIONS = ("east", "west")


def make(shared: str = "") -> MemoryDatabase:
    return MemoryDatabase("orders", MemoryConfig(regions=REGIONS, shared=shared), "east", SYSTEM)


def change(region: str, before: Role, after: Role, primary: str = "") -> MemberChange:
    return MemberChange("orders", region, before, after, "a test", primary)


class TestContract(DatabaseContract):
    @pytest.fixture(autouse=True)
    def _cluster(self) -> None:
        self.it = make()

    def database(self) -> MemoryDatabase:
        return self.it

    def commit(self, order: int) -> str:
        return self.it.state.commit(str(order))

    def orders(self, region: str) -> set[int]:
        return {int(order) for order in self.it.state.copies[region].orders}

    def hide(self, region: str) -> None:
        self.it.state.copies[region].unreachable = "no route to host"

    def diverge(self) -> set[int]:
        east, west = (self.it.state.copies[region] for region in REGIONS)
        west.paused = True
        own = {100, 101, 102}
        for order in own:
            self.commit(order)
        west.role, west.timeline = Role.PRIMARY, 2
        assert east.role is Role.PRIMARY
        return own


def test_instances_with_one_name_share_one_state() -> None:
    memory.forget()
    make("orders").write(change("east", Role.PRIMARY, Role.FENCED))
    assert make("orders").read()["east"].role is Role.FENCED
    assert make("others").read()["east"].role is Role.PRIMARY
    assert [item.region for item in make("orders").log] == ["east"]
    memory.forget()
    assert make("orders").read()["east"].role is Role.PRIMARY


def test_a_hook_before_a_write_prevents_it_and_one_after_hides_it() -> None:
    database = make()

    def fail(_: MemberChange) -> None:
        raise Indeterminate("cut off")

    database.before_write = fail
    with pytest.raises(Indeterminate):
        database.write(change("east", Role.PRIMARY, Role.FENCED))
    assert database.read()["east"].role is Role.PRIMARY
    assert not database.log
    database.before_write, database.after_write = None, fail
    with pytest.raises(Indeterminate):
        database.write(change("east", Role.PRIMARY, Role.FENCED))
    assert database.read()["east"].role is Role.FENCED
    assert len(database.log) == 1


def test_an_unreachable_primary_is_proven_off_only_by_a_device() -> None:
    database = make()
    east = database.state.copies["east"]
    east.unreachable, east.can_fence = "no route to host", False
    with pytest.raises(Failed, match="no fencing device"):
        database.write(change("east", Role.UNKNOWN, Role.FENCED))
    east.can_fence = True
    database.write(change("east", Role.UNKNOWN, Role.FENCED))
    found = database.read()["east"]
    assert (found.role, found.position) == (Role.FENCED, None)
    database.write(change("west", Role.REPLICA, Role.PRIMARY, "west"))
    with pytest.raises(Failed, match="no route to host"):
        database.write(change("east", Role.FENCED, Role.REPLICA, "west"))
    east.unreachable = ""
    database.write(change("east", Role.FENCED, Role.REPLICA, "west"))
    assert database.read()["east"].streaming


def test_a_paused_replica_falls_behind_and_does_not_catch_up() -> None:
    database = make()
    database.state.copies["west"].paused = True
    database.state.commit("1")
    database.write(change("east", Role.PRIMARY, Role.FENCED))
    verdict = database.caught_up("east", "west", 0.01)
    assert not verdict.passed
    assert verdict.evidence == ("west is 1 orders behind east after 0.01 s",)


def test_a_config_names_declared_regions_and_two_at_least() -> None:
    assert list(MemoryDatabase.mistakes(MemoryConfig(regions=("east", "nowhere")), REGIONS)) == [
        (("regions", 1), "region 'nowhere' is not declared; known: east, west")
    ]
    assert list(MemoryDatabase.mistakes(MemoryConfig(regions=("east",)), REGIONS)) == [
        (("regions",), "at least two members are needed: one to leave and one to promote")
    ]
