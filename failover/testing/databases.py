"""The contract of every database provider, as tests: subclass it, say how yours is set up, and let pytest run it."""

from collections.abc import Callable

from failover.clock import SYSTEM
from failover.errors import Conflict, FailoverError
from failover.ports import Database
from failover.world import MemberChange, Role

HOME = "east"
AWAY = "west"


class DatabaseContract:
    """A cluster with its primary in `east` and a replica in `west`, new for every test.

    A subclass gives the first four methods their meaning for its own kind of server.
    """

    patience = 20.0
    """Seconds that a server may need for what happens by itself, such as starting to stream."""

    def database(self) -> Database:
        """The provider under test, on the test's cluster."""
        raise NotImplementedError

    def commit(self, order: int) -> str:
        """Write `order` as a client of this kind would; the region that acknowledged it, or "" if none did."""
        raise NotImplementedError

    def orders(self, region: str) -> set[int]:
        """The orders that a member holds, read from the member itself."""
        raise NotImplementedError

    def hide(self, region: str) -> None:
        """Make a member impossible to ask; whether it lives on is then unknown."""
        raise NotImplementedError

    def diverge(self) -> set[int]:
        """Promote `west` behind the back of `east`, which has orders that `west` never got; returns these.

        Afterwards `east` answers and does not follow `west`.
        """
        raise NotImplementedError

    def change(self, region: str, before: Role, after: Role, primary: str = "") -> MemberChange:
        return MemberChange("orders", region, before, after, "the contract", primary)

    def expect(self, database: Database, region: str, *roles: Role) -> None:
        """Wait until a member has one of `roles`; a replica must stream, too."""
        wanted = ", ".join(roles)

        def there() -> bool:
            member = database.read()[region]
            return member.role in roles and (member.role is not Role.REPLICA or member.streaming)

        self.until(there, lambda: f"{region} should be {wanted}, but it is {database.read()[region]}")

    def until(self, condition: Callable[[], bool], says: Callable[[], str]) -> None:
        """Wait for `condition`, `patience` seconds at most."""
        deadline = SYSTEM.monotonic() + self.patience
        while not condition():
            check(SYSTEM.monotonic() < deadline, says())
            SYSTEM.sleep(0.02)

    def switch_over(self, database: Database, source: str, target: str) -> None:
        """Fence, catch up, promote and rejoin, as a step would."""
        database.write(self.change(source, Role.PRIMARY, Role.FENCED))
        verdict = database.caught_up(source, target, self.patience)
        check(verdict.passed, f"{target} did not catch up: {verdict}")
        database.write(self.change(target, Role.REPLICA, Role.PRIMARY, target))
        database.write(self.change(source, Role.FENCED, Role.REPLICA, target))

    def test_reads_one_primary_and_one_streaming_replica(self) -> None:
        database = self.database()
        self.expect(database, HOME, Role.PRIMARY)
        self.expect(database, AWAY, Role.REPLICA)
        self.until(lambda: database.read()[AWAY].lag == 0.0, lambda: "an idle replica is not behind")
        found = database.read()
        check(found[HOME].position is not None and found[AWAY].position is not None, "positions are known")

    def test_a_switchover_loses_nothing_and_leaves_a_replica(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        acknowledged = {order for order in range(20) if self.commit(order)}
        self.switch_over(database, HOME, AWAY)
        check(self.commit(20) == AWAY, f"{AWAY} takes writes after the switchover")
        self.expect(database, HOME, Role.REPLICA)
        self.expect(database, AWAY, Role.PRIMARY)
        check(acknowledged <= self.orders(AWAY), "every acknowledged order is in the new primary")
        self.until(lambda: 20 in self.orders(HOME), lambda: f"{HOME} receives what {AWAY} writes")

    def test_a_switchover_there_and_back_ends_as_it_began(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        self.switch_over(database, HOME, AWAY)
        self.expect(database, HOME, Role.REPLICA)
        self.switch_over(database, AWAY, HOME)
        self.expect(database, HOME, Role.PRIMARY)
        self.expect(database, AWAY, Role.REPLICA)
        check(self.commit(1) == HOME, f"{HOME} takes writes again")

    def test_a_fenced_primary_takes_no_writes_until_the_fence_is_taken_back(self) -> None:
        database = self.database()
        database.write(self.change(HOME, Role.PRIMARY, Role.FENCED))
        check(database.read()[HOME].role is Role.FENCED, "it reads as fenced")
        check(self.commit(1) == "", "nobody takes writes")
        database.write(self.change(HOME, Role.FENCED, Role.PRIMARY))
        check(database.read()[HOME].role is Role.PRIMARY, "it reads as primary again")
        check(self.commit(2) == HOME, "it takes writes again")

    def test_the_fence_is_not_taken_back_once_another_is_primary(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        database.write(self.change(HOME, Role.PRIMARY, Role.FENCED))
        check(database.caught_up(HOME, AWAY, self.patience).passed, "the replica catches up")
        database.write(self.change(AWAY, Role.REPLICA, Role.PRIMARY, AWAY))
        refused(database, self.change(HOME, Role.FENCED, Role.PRIMARY))
        check(database.read()[HOME].role is Role.FENCED, "it stays fenced")

    def test_a_second_primary_is_refused(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        refused(database, self.change(AWAY, Role.REPLICA, Role.PRIMARY, AWAY))
        check(database.read()[AWAY].role is Role.REPLICA, "it stays a replica")

    def test_a_role_that_is_not_the_expected_one_is_a_conflict(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        for change in (
            self.change(AWAY, Role.PRIMARY, Role.FENCED),
            self.change(HOME, Role.REPLICA, Role.PRIMARY, HOME),
            self.change(HOME, Role.FENCED, Role.PRIMARY),
        ):
            error = refused(database, change)
            check(isinstance(error, Conflict), f"{change.region} is in another role, so Conflict, not {error!r}")
        check(self.commit(1) == HOME, "nothing was written")

    def test_catching_up_with_a_primary_that_takes_writes_never_passes(self) -> None:
        verdict = self.database().caught_up(HOME, AWAY, 0.2)
        check(not verdict.passed, f"{HOME} may be written to at any moment, but: {verdict}")

    def test_a_member_that_cannot_be_asked_is_unknown(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        self.hide(HOME)
        found = database.read()
        check(found[HOME].role is Role.UNKNOWN and bool(found[HOME].detail), f"unknown, and why: {found[HOME]}")
        check(found[AWAY].role is Role.REPLICA, "the other one is still seen")
        check(not database.caught_up(HOME, AWAY, 0.2).passed, "what is not seen has not been caught up with")

    def test_a_diverged_member_says_what_it_would_lose_and_rejoins(self) -> None:
        database = self.database()
        self.expect(database, AWAY, Role.REPLICA)
        self.commit(1)
        own = self.diverge()
        self.expect(database, HOME, Role.DIVERGED, Role.FENCED)
        found = database.read()[HOME]
        check(found.lost == len(own), f"{len(own)} commits would be lost, but it says {found.lost}")
        database.write(self.change(HOME, found.role, Role.REPLICA, AWAY))
        self.expect(database, HOME, Role.REPLICA)
        check(not own & self.orders(HOME), "its own orders are gone")
        check(self.commit(2) == AWAY, f"{AWAY} takes writes")


def check(condition: bool, says: str) -> None:
    """Raise AssertionError with `says` unless `condition` holds; works with `python -O`, too."""
    if not condition:
        raise AssertionError(says)


def refused(database: Database, change: MemberChange) -> FailoverError:
    """The error with which `change` is refused."""
    try:
        database.write(change)
    except FailoverError as error:
        return error
    raise AssertionError(f"{change.region} must not go from {change.before} to {change.after} now")
