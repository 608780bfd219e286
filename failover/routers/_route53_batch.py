"""Change batches: as many routes in each as the API takes, so that there are as few calls as can be.

Sources: API_ChangeResourceRecordSets, and the maximums on API requests in the Route 53 Developer Guide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from failover.routers._route53_api import RecordSet
from failover.routers._route53_group import Group
from failover.world import RouteChange

BATCH_RECORDS, BATCH_CHARACTERS = 1000, 32_000


@dataclass(frozen=True)
class Move:
    """One route's record sets going from `before` to `after`, whole: siblings decide together who takes traffic.

    With `exact`, each set is deleted as it was read and created anew. A set whose own weight stays is among them,
    because a delete is the only request that compares: without it, two people could each drain the other's survivor.
    """

    change: RouteChange
    before: Group
    after: Group
    exact: bool

    def items(self) -> list[dict[str, Any]]:
        """The changes of a batch, as the API takes them."""
        created = [("CREATE" if self.exact else "UPSERT", record) for record in self.after.sets.values()]
        deleted = [("DELETE", record) for record in self.before.sets.values()] if self.exact else []
        return [{"Action": action, "ResourceRecordSet": record} for action, record in (*deleted, *created)]

    @property
    def size(self) -> tuple[int, int]:
        """The ResourceRecord elements and value characters that it takes of a batch.

        An alias counts as one element. An UPSERT counts twice; so do a DELETE and a CREATE, once each.
        """
        of_all = [_size(record) for record in self.after.sets.values()]
        return 2 * sum(records for records, _ in of_all), 2 * sum(characters for _, characters in of_all)


def fits(size: tuple[int, int]) -> bool:
    """Whether a batch may be that large."""
    return size[0] <= BATCH_RECORDS and size[1] <= BATCH_CHARACTERS


def pack(moves: Sequence[Move]) -> list[list[Move]]:
    """`moves` in few batches (first fit, largest first), each in the order given. One too large stands alone."""
    order = sorted(range(len(moves)), key=lambda place: _share(moves[place].size), reverse=True)
    batches: list[list[int]] = []
    sizes: list[tuple[int, int]] = []
    for place in order:
        more = moves[place].size
        for number, size in enumerate(sizes):
            if fits(both := (size[0] + more[0], size[1] + more[1])):
                batches[number].append(place)
                sizes[number] = both
                break
        else:
            batches.append([place])
            sizes.append(more)
    return [[moves[place] for place in sorted(batch)] for batch in sorted(batches, key=min)]


def fewest(moves: Sequence[Move]) -> int:
    """How many batches any packing needs at least, by the totals alone."""
    records = sum(move.size[0] for move in moves)
    characters = sum(move.size[1] for move in moves)
    return max(-(-records // BATCH_RECORDS), -(-characters // BATCH_CHARACTERS))


def _size(record: RecordSet) -> tuple[int, int]:
    values = [each["Value"] for each in record.get("ResourceRecords", ())]
    return max(1, len(values)), sum(map(len, values))


def _share(size: tuple[int, int]) -> float:
    return max(size[0] / BATCH_RECORDS, size[1] / BATCH_CHARACTERS)
