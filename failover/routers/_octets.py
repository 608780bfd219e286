"""DNS records as octets: what goes into an update by the thousand, and the answers that are just as expected.

dnspython makes an object of each name and each record, which takes it longer than a server takes to change them. It
still makes the message around them, signs it, and reads every answer that is not as expected.
"""

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import dns.name
import dns.rdataclass
import dns.update

_FIRST = b"\xc0\x0c"
"""A pointer to the first name of a message (RFC 1035, section 4.1.4): the zone of an update, the name of a query."""
_HEAD, _RECORD = struct.Struct("!HHHHHH"), struct.Struct("!HHIH")
_SURE, _GOOD = 0xFE0F, 0x8400
"""Of the flags those that count, and how they are in a whole answer with authority: QR and AA, no TC, no error."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A record set that has to be there, and what takes its place, in the wire format of an update."""

    required: bytes
    requirements: int
    update: bytes
    updates: int

    @property
    def size(self) -> int:
        return len(self.required) + len(self.update)


def replacement(
    owner: bytes, kind: int, before: Collection[bytes], after: Collection[bytes], ttl: int
) -> Replacement:
    """Exactly the records `before` of `owner` become `after` with `ttl` (RFC 2136, sections 2.4.2, 2.5.1, 2.5.2)."""
    required = _records(owner, kind, 0, before)
    gone = owner + _RECORD.pack(kind, dns.rdataclass.ANY, 0, 0)
    return Replacement(required, len(before), gone + _records(owner, kind, ttl, after), 1 + len(after))


def message(zone: dns.name.Name, replacements: Iterable[Replacement]) -> dns.update.UpdateMessage:
    """The update that makes all of `replacements`, or none."""
    all_ = list(replacements)
    update = dns.update.UpdateMessage(zone)
    required = _Written(b"".join(each.required for each in all_), sum(each.requirements for each in all_))
    made = _Written(b"".join(each.update for each in all_), sum(each.updates for each in all_))
    update.prerequisite.append(required)  # type: ignore[arg-type]  # all that a message does with it is to_wire
    update.update.append(made)  # type: ignore[arg-type]  # as above
    return update


def owner(name: dns.name.Name, zone: dns.name.Name) -> bytes:
    """`name` as the owner of a record in an update of `zone`; both are full names in lower case."""
    own = len(name.labels) - len(zone.labels)
    if own < 0 or name.labels[own:] != zone.labels:
        return name.to_wire() or b""
    return b"".join(bytes([len(label)]) + label for label in name.labels[:own]) + _FIRST


def question(name: dns.name.Name, kind: int) -> bytes:
    """The question section of a query."""
    return (name.to_wire() or b"") + struct.pack("!HH", kind, dns.rdataclass.IN)


def answered(wire: bytes, asked: bytes, kind: int) -> tuple[int, frozenset[bytes]] | None:
    """The TTL and the records with which `wire` answers the question `asked`, in full and with authority.

    None says nothing of what there is: the same may be written in another way.
    """
    try:
        _, flags, questions, count, _, _ = _HEAD.unpack_from(wire)
        at = _HEAD.size + len(asked)
        if flags & _SURE != _GOOD or questions != 1 or wire[_HEAD.size : at] != asked:
            return None
        lifetimes, seen = set(), set()
        for _ in range(count):
            found, of, ttl, length = _RECORD.unpack_from(wire, at + 2)
            if wire[at : at + 2] != _FIRST or (found, of) != (kind, dns.rdataclass.IN):
                return None
            at += 2 + _RECORD.size + length
            lifetimes.add(ttl)
            seen.add(wire[at - length : at])
    except struct.error:
        return None
    return (lifetimes.pop(), frozenset(seen)) if len(seen) == count and len(lifetimes) == 1 else None


@dataclass(frozen=True, slots=True)
class _Written:
    """Records in wire format, in the place of an RRset."""

    data: bytes
    count: int

    def to_wire(self, file: BinaryIO, *_: Any, **__: Any) -> int:
        file.write(self.data)
        return self.count


def _records(owner: bytes, kind: int, ttl: int, data: Iterable[bytes]) -> bytes:
    return b"".join(owner + _RECORD.pack(kind, dns.rdataclass.IN, ttl, len(each)) + each for each in data)
