"""A planned PostgreSQL switchover: the write gap that a client sees, beside the same done by hand.

Both ways alternate on the same two servers, each with the client writing and the replica streaming. By hand is
what a careful person types: `pg_ctl stop -m fast` on the old primary, then `SELECT pg_promote()` on the replica.
Bringing the old primary back is in neither figure.
"""

from dataclasses import dataclass
from itertools import cycle
from statistics import median

from bench.peers import Row
from failover.databases.postgres import Postgres
from failover.world import MemberChange, Role
from tests.databases.cluster import Cluster, Writer, cluster, until

PAUSE = 0.002
SETTLED = 50
"""Orders that the client writes before a switchover, and after it, before the next one."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The write gaps in seconds, one a switchover, and the acknowledged orders that were lost."""

    ours: tuple[float, ...]
    by_hand: tuple[float, ...]
    lost: int
    lost_by_hand: int

    @property
    def ratio(self) -> float:
        """Our median gap as a part of the one by hand."""
        return median(self.ours) / median(self.by_hand)

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """A table: the way, its median, fastest and slowest gap in milliseconds, and orders lost."""
        return [
            (
                name,
                f"{median(gaps) * 1000:.0f} ms",
                f"{min(gaps) * 1000:.0f} ms",
                f"{max(gaps) * 1000:.0f} ms",
                f"{lost} lost, n = {len(gaps)}",
            )
            for name, gaps, lost in (
                ("failover: fence, catch up, promote", self.ours, self.lost),
                ("by hand: pg_ctl stop -m fast, pg_promote", self.by_hand, self.lost_by_hand),
            )
        ]


def rows() -> list[Row]:
    """The line for the benchmark's table. Raises RuntimeError where an acknowledged order was lost by us."""
    figures = measure()
    if figures.lost:
        raise RuntimeError(f"{figures.lost} acknowledged orders were lost")
    what = f"write gap of a switchover, n = {len(figures.ours)}, 0 lost"
    by_hand = "by hand: pg_ctl stop -m fast, pg_promote"
    return [Row(what, median(figures.ours) * 1000, median(figures.by_hand) * 1000, "ms", by_hand)]


def measure(n: int = 20, version: int = 16) -> Figures:
    """Make `n` switchovers of each kind, in turn, and measure the gap that a client writing every 2 ms sees."""
    gaps: dict[bool, list[float]] = {True: [], False: []}
    lost = {True: 0, False: 0}
    with cluster(version, segment=16) as servers:
        database = servers.database()
        for turn, (source, target) in zip(range(2 * n), cycle((("east", "west"), ("west", "east"))), strict=False):
            # Pairs, the order within them turned round each time, so that neither way always starts in the east.
            ours = turn % 4 in (0, 3)
            with Writer(servers, PAUSE) as client:
                _written(client, SETTLED)
                if ours:
                    _ours(database, source, target)
                else:
                    _by_hand(servers, source, target)
                _written(client, SETTLED)
            gaps[ours].append(client.gap)
            lost[ours] += len({number for number, _ in client.acknowledged} - servers.orders(target))
            _return(database, source, target)
    return Figures(tuple(gaps[True]), tuple(gaps[False]), lost[True], lost[False])


def _ours(database: Postgres, source: str, target: str) -> None:
    database.write(_change(source, Role.PRIMARY, Role.FENCED))
    verdict = database.caught_up(source, target, 10)
    if not verdict.passed:
        raise RuntimeError(str(verdict))
    database.write(_change(target, Role.REPLICA, Role.PRIMARY, target))


def _by_hand(servers: Cluster, source: str, target: str) -> None:
    servers.stop(source)
    servers.sql(target, "SELECT pg_promote()")


def _return(database: Postgres, source: str, target: str) -> None:
    role = database.read()[source].role
    database.write(_change(source, role, Role.REPLICA, target))
    until(lambda: (found := database.read()[source]).streaming and found.lag == 0.0)


def _written(client: Writer, orders: int) -> None:
    enough = len(client.acknowledged) + orders
    until(lambda: len(client.acknowledged) >= enough)


def _change(region: str, before: Role, after: Role, primary: str = "") -> MemberChange:
    return MemberChange("orders", region, before, after, "a benchmark", primary)


if __name__ == "__main__":
    figures = measure()
    for row in figures.table():
        print("  ".join(row))
    print(f"ratio {figures.ratio:.2f}")
