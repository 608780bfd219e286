"""A DNS server that takes dynamic updates: BIND, Knot and others.

Plain DNS has no weights for addresses, so those are only switched: a region's addresses are all in the record set or
none of them is. SRV records have weights (RFC 2782). Every update names the record set that it replaces (RFC 2136,
section 2.4.2: RRset exists, value dependent), so that the server itself refuses where somebody else was faster; one
message is all or nothing (section 3.7). Requests are signed by TSIG (RFC 8945).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataset
import dns.update
from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import Mistake, RouteSpec
from failover.routers._answers import agreed, allows, ask_all
from failover.routers._dns import Server, answer, ask
from failover.routers._octets import Replacement, answered, message, owner, replacement
from failover.routers._primary import Primary, Rfc2136Config, Unmet
from failover.routers._rfc2136_route import SRV_LIMIT, Rfc2136Route, listed
from failover.routers._words import names, say
from failover.verdict import Verdict, failed, passed
from failover.world import RouteChange, RouteState, Unknown

ROOM = 65_535 - 1_024
"""Octets for the records of one message; the rest is for its header, zone and signature."""

_Found = tuple[int, frozenset[bytes]]
"""The TTL and the records of a set that is there."""


class Rfc2136:
    """Record sets of one zone: addresses, each region switched on or off, and SRV records with weights."""

    Config: ClassVar[type[BaseModel]] = Rfc2136Config
    RouteConfig: ClassVar[type[BaseModel]] = Rfc2136Route
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: Rfc2136Config, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = 4 * config.timeout
        self._routes = routes
        self._primary = Primary(name, config, clock)
        self._zone = dns.name.from_text(config.zone)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Addresses or targets that are missing, shared or none, and normal weights that the record cannot have."""
        config: Rfc2136Route = spec.config
        return config.mistakes(spec.route.weights)

    def weight_limit(self, route: str) -> int:
        """65535 for a route of SRV records, 0 for one of addresses."""
        return SRV_LIMIT if self._config(route).weighted else 0

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """Asks the primary. A region has its normal weight where all of its addresses are there, 0 where none is.

        In a set of SRV records it has its record's weight, 0 where it has no record.
        """
        try:
            wires = dict(zip(routes, self._ask(routes), strict=True))
            return {
                route: usual[0]
                if (usual := self._usual(route, wire))
                else self._state(route, self._records(route, wire))
                for route, wire in wires.items()
            }
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes` by as few update messages as 64 KB each allow, one nearly always. Writes.

        Raises Refused for weights that the record cannot have, Conflict where a record is not as `before` says,
        Failed where the server refused, and Indeterminate where it did not answer after the update was sent. Where
        a later message of several fails the earlier ones stand, and the error says which routes those are.
        """
        latest = self.clock.monotonic() + self.write_timeout / 2
        for change in changes:
            self._refuse(change)
        expected = self._expected(changes)
        moved = [change for change in changes if change.before != change.after]
        parts = list(self._messages(moved, expected))
        for index, (update, part) in enumerate(parts):
            try:
                if index and self.clock.monotonic() > latest:
                    raise self._primary.failed("takes too long", "look at its load; move fewer services at a time")
                self._primary.update(update)
            except Unmet as error:
                conflict = self._unmet(str(error), part)
                raise self._halfway(conflict, index, [each for _, each in parts]) from None
            except FailoverError as error:
                raise self._halfway(error, index, [each for _, each in parts]) from None
        return ""

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where every name server answers exactly the wanted records, with the wanted TTL at most.

        Unknown where one does not answer so yet; the evidence names it and the serial of the zone that it has.
        """
        look = partial(self._answers, route, wanted)
        return agreed(ask_all(self._servers, (), look, look).values())

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """What each name server and each resolver answers now, all asked at once."""
        config = self._config(route)
        on = [region for region, weight in wanted.weights.items() if weight]
        return ask_all(
            self._servers,
            self.config.resolvers,
            partial(self._answers, route, wanted),
            lambda at: allows(at, config.record, config.type, config.values, on, self.config.timeout, config.spell),
        )

    @property
    def _servers(self) -> tuple[Server, ...]:
        return self.config.name_servers or (self.config.server,)

    def _config(self, route: str) -> Rfc2136Route:
        config: Rfc2136Route = self._routes[route].config
        return config

    def _ask(self, routes: Sequence[str]) -> list[bytes]:
        return self._primary.ask([self._config(route).question for route in routes])

    def _records(self, route: str, wire: bytes) -> dns.rdataset.Rdataset | Unknown | None:
        config = self._config(route)
        response = self._primary.understood(wire)
        what = f"{config.record} {config.type}"
        server = self.config.server
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Unknown(f"{server} answers {dns.rcode.to_text(response.rcode())} for {what}")
        if not response.flags & dns.flags.AA:
            return Unknown(f"{server} is not authoritative for {what}; check 'server' and 'zone'")
        records = answer(response, config.record, config.type)
        return records and records.to_rdataset()

    def _state(self, route: str, records: dns.rdataset.Rdataset | Unknown | None) -> RouteState | Unknown:
        config = self._config(route)
        if isinstance(records, Unknown):
            return records
        if records is None:
            return Unknown(f"there is no record {config.record} {config.type} on {self.config.server}")
        weights = config.weights(records, self._routes[route].route.weights)
        return weights if isinstance(weights, Unknown) else RouteState(weights, records.ttl)

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any {'target' if self._limit(change) else 'address'}",
                next="keep or restore one region first",
            )
        normal = self._routes[change.route].route.weights
        for region, weight in change.after.weights.items():
            if self._limit(change) and not 0 <= weight <= SRV_LIMIT:
                raise Refused(
                    "weight-limit",
                    f"{change.resource} would give {region} {weight}; an SRV record takes weights up to {SRV_LIMIT}",
                    where=self._primary.where,
                    next="use smaller normal weights in the same proportion",
                )
            if not self._limit(change) and weight not in (0, normal[region]):
                raise Refused(
                    "weights-unsupported",
                    f"plain DNS can only switch {region} on ({normal[region]}) or off (0), "
                    f"and {change.resource} would give it {weight}",
                    where=self._primary.where,
                    next="drain in one stage (stages: [0]), or use a router that has weights",
                )

    def _limit(self, change: RouteChange) -> int:
        return self.weight_limit(change.route)

    def _expected(self, changes: Sequence[RouteChange]) -> Mapping[str, _Found]:
        """What `changes` are to replace, as it is there now. Raises Conflict where that is not their `before`."""
        wires = self._ask([change.route for change in changes])
        return {change.route: self._found(change, wire) for change, wire in zip(changes, wires, strict=True)}

    def _usual(self, route: str, wire: bytes) -> tuple[RouteState, _Found] | None:
        """The state and the records in `wire` where they are written as usual; None where dnspython has to look."""
        config = self._config(route)
        if (found := answered(wire, config.question, config.kind)) is None:
            return None
        weights = config.usual(found[1], self._routes[route].route.weights)
        return None if weights is None else (RouteState(weights, found[0]), found)

    def _found(self, change: RouteChange, wire: bytes) -> _Found:
        usual = self._usual(change.route, wire)
        if usual and usual[0] == change.before:
            return usual[1]
        records = self._records(change.route, wire)
        if isinstance(records, Unknown):
            raise self._primary.error(f"{records.why}; nothing was written", "check 'server' and 'zone'")
        state = self._state(change.route, records)
        if records is None or isinstance(state, Unknown):
            found = state.why if isinstance(state, Unknown) else "gone"
            raise Conflict(change.resource, say(change.before), found)
        if state != change.before:
            raise Conflict(change.resource, say(change.before), say(state))
        return records.ttl, frozenset(record.to_wire() or b"" for record in records)

    def _messages(
        self, changes: Sequence[RouteChange], expected: Mapping[str, _Found]
    ) -> Iterator[tuple[dns.update.UpdateMessage, Sequence[RouteChange]]]:
        part: list[tuple[RouteChange, Replacement]] = []
        size = 0
        for change in changes:
            alone = self._replacement(change, *expected[change.route])
            if alone.size > ROOM:
                said = f"cannot be sent the change of {change.route}: it does not fit into one message"
                raise self._primary.failed(f"{said}; nothing was written", "give the record fewer addresses")
            if part and size + alone.size > ROOM:
                yield self._message(part)
                part, size = [], 0
            part.append((change, alone))
            size += alone.size
        if part:
            yield self._message(part)

    def _message(
        self, part: Sequence[tuple[RouteChange, Replacement]]
    ) -> tuple[dns.update.UpdateMessage, Sequence[RouteChange]]:
        return message(self._zone, [made for _, made in part]), [change for change, _ in part]

    def _replacement(self, change: RouteChange, ttl: int, before: Collection[bytes]) -> Replacement:
        config = self._config(change.route)
        # A prerequisite does not compare TTLs (RFC 2136, section 2.4.2); reading has just done that.
        after = config.rdata(change.after.weights)
        wanted = ttl if change.after.ttl is None else change.after.ttl
        return replacement(owner(config.name, self._zone), config.kind, before, after, wanted)

    def _unmet(self, code: str, changes: Sequence[RouteChange]) -> FailoverError:
        try:
            self._expected(changes)
        except FailoverError as error:
            return error
        said = f"refused the update ({code}), but now the records are what was expected; nothing was written"
        return self._primary.failed(said, "somebody else is changing them at this moment; see who, then try again")

    def _halfway(self, error: FailoverError, done: int, parts: Sequence[Sequence[RouteChange]]) -> FailoverError:
        """`error` of message number `done`, and what the messages before it have made, where there are any."""
        if not done:
            return error
        lost = isinstance(error, Indeterminate)
        rest = parts[done + 1 if lost else done :]
        told = [f"written: {_routes(parts[:done])}"]
        told += [f"written or not: {_routes(parts[done : done + 1])}"] if lost else []
        told += [f"not written: {_routes(rest)}"] if rest else []
        what = f"{done} of {len(parts)} messages were taken ({'; '.join(told)}). The next one: {error.what}"
        # Failed would say that nothing was written; this makes the run read back what was.
        return Indeterminate(what, where=self._primary.where, next=error.next)

    def _answers(self, route: str, wanted: RouteState, at: Server) -> Verdict:
        config = self._config(route)
        expected = config.records(wanted.weights)
        records = answer(ask(at, config.record, config.type, self.config.timeout), config.record, config.type)
        if not records:
            return failed(f"{at} has no {config.record} {config.type}{self._serial(at)}")
        seen = config.seen(records)
        if seen != expected:
            return failed(f"{at} still answers {listed(seen)}{self._serial(at)}, wanted {listed(expected)}")
        if wanted.ttl is not None and records.ttl > wanted.ttl:
            return failed(f"{at} still answers with TTL {records.ttl} s{self._serial(at)}, wanted {wanted.ttl} s")
        return passed(f"{at} answers {listed(seen)}, TTL {records.ttl} s")

    def _serial(self, at: Server) -> str:
        records = answer(ask(at, self._zone, "SOA", self.config.timeout), self._zone, "SOA")
        return f" (zone serial {records[0].serial})" if records else ""


def _routes(parts: Sequence[Sequence[RouteChange]]) -> str:
    return names([change.route for part in parts for change in part])
