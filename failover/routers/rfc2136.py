"""A DNS server that takes dynamic updates: BIND, Knot, PowerDNS and others.

Plain DNS has no weights for addresses, so this router only switches: a region's addresses are all in the record
set or none of them is. Every update names the record set that it replaces (RFC 2136, section 2.4.2: RRset exists,
value dependent), so that the server itself refuses where somebody else was faster; one message is all or nothing
(section 3.7). Requests are signed by TSIG (RFC 8945).
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.update
from pydantic import BaseModel, field_validator

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused, did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._dns import Server, Unanswered, answer, ask, each, question
from failover.routers._primary import Primary, Rfc2136Config, Unmet, full_name
from failover.routers._words import say
from failover.schema import Model
from failover.verdict import Verdict, passed, unknown, worst
from failover.world import RouteChange, RouteState, Unknown

ROOM = 65_535 - 1_024
"""Octets for the records of one message; the rest is for its header, zone and signature."""


class Rfc2136Route(Model):
    """An address record, and which of its addresses belong to which region."""

    record: str
    type: Literal["A", "AAAA"] = "A"
    addresses: Mapping[str, tuple[str, ...]]

    @field_validator("record")
    @classmethod
    def _record(cls, record: str) -> str:
        return full_name(record)

    def of(self, regions: Iterable[str]) -> frozenset[str]:
        """The addresses of `regions`, in their shortest spelling."""
        return frozenset(_shortest(text) for region in regions for text in self.addresses[region])


class Rfc2136:
    """Address records of one zone, each region switched on or off."""

    Config: ClassVar[type[BaseModel]] = Rfc2136Config
    RouteConfig: ClassVar[type[BaseModel]] = Rfc2136Route
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: Rfc2136Config, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = 4 * config.timeout
        self._routes = routes
        self._primary = Primary(name, config)
        self._zone = dns.name.from_text(config.zone)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Addresses that are missing, shared or not addresses, and normal weights that a switch cannot have."""
        config, weights = spec.config, spec.route.weights
        owner: dict[str, str] = {}
        for region, weight in weights.items():
            if weight == 0:
                yield (
                    ("weights", region),
                    "plain DNS only switches a region on and off: a normal weight above 0 is needed to switch it on",
                )
            if not config.addresses.get(region):
                yield ("addresses",), f"region '{region}' has no addresses; it takes at least one to switch it on"
        for region, addresses in config.addresses.items():
            if region not in weights:
                yield ("addresses", region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
            for index, text in enumerate(addresses):
                problem = _not_an_address(text, config.type)
                if problem:
                    yield ("addresses", region, index), problem
                    continue
                other = owner.setdefault(_shortest(text), region)
                if other != region:
                    yield (
                        ("addresses", region, index),
                        f"{text} belongs to region '{other}' too; one drains the other",
                    )
                elif sum(_same(text, another) for another in addresses[:index]):
                    yield ("addresses", region, index), f"{text} stands here twice"

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """Asks the primary: a region has its normal weight where all of its addresses are there, 0 where none is."""
        try:
            found = self._look(routes)
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))
        return {route: self._state(route, records) for route, records in found.items()}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes` by as few update messages as 64 KB each allow, one nearly always. Writes.

        Raises Refused for weights that plain DNS does not have, Conflict where a record is not as `before` says,
        Failed where the server refused, and Indeterminate where it did not answer after the update was sent. Where
        a later message of several fails the earlier ones stand, which the error says.
        """
        for change in changes:
            self._refuse(change)
        expected = self._expected(changes)
        moved = [change for change in changes if change.before != change.after]
        messages = list(self._messages(moved, expected))
        for index, (message, part) in enumerate(messages):
            try:
                self._primary.update(message)
            except Unmet as error:
                conflict = self._unmet(str(error), part)
                raise self._halfway(conflict, index, len(messages), moved, part) if index else conflict from None
            except FailoverError as error:
                if index:
                    raise self._halfway(error, index, len(messages), moved, part) from None
                raise
        return ""

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where every name server answers exactly the wanted addresses, with the wanted TTL at most.

        Unknown where one does not answer so yet; the evidence names it and the serial of the zone that it has.
        """
        config = self._routes[route].config
        addresses = config.of(region for region, weight in wanted.weights.items() if weight)
        servers = self.config.name_servers or (self.config.server,)
        return worst(each(servers, lambda at: self._answers(at, config, addresses, wanted.ttl)))

    def _look(self, routes: Sequence[str]) -> Mapping[str, dns.rdataset.Rdataset | Unknown | None]:
        configs = [self._routes[route].config for route in routes]
        responses = self._primary.ask([question(config.record, config.type) for config in configs])
        return {route: self._records(*seen) for route, *seen in zip(routes, responses, configs, strict=True)}

    def _records(self, response: dns.message.Message, config: Any) -> dns.rdataset.Rdataset | Unknown | None:
        what = f"{config.record} {config.type}"
        server = self.config.server
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Unknown(f"{server} answers {dns.rcode.to_text(response.rcode())} for {what}")
        if not response.flags & dns.flags.AA:
            return Unknown(f"{server} is not authoritative for {what}; check 'server' and 'zone'")
        records = answer(response, config.record, config.type)
        return records and records.to_rdataset()

    def _state(self, route: str, records: dns.rdataset.Rdataset | Unknown | None) -> RouteState | Unknown:
        if isinstance(records, Unknown):
            return records
        spec = self._routes[route]
        config = spec.config
        if records is None:
            return Unknown(f"there is no record {config.record} {config.type} on {self.config.server}")
        there = _addresses(records)
        if alien := there - config.of(spec.route.weights):
            return Unknown(f"{config.record} has addresses that belong to no region: {_listed(alien)}")
        weights = {}
        for region, normal in spec.route.weights.items():
            own = config.of([region])
            if there & own and own - there:
                return Unknown(f"{config.record} has only a part of {region}: {_listed(own - there)} is missing")
            weights[region] = normal if own <= there else 0
        return RouteState(weights, records.ttl)

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any address",
                next="keep or restore one region first",
            )
        normal = self._routes[change.route].route.weights
        for region, weight in change.after.weights.items():
            if weight not in (0, normal[region]):
                raise Refused(
                    "weights-unsupported",
                    f"plain DNS can only switch {region} on ({normal[region]}) or off (0), "
                    f"and {change.resource} would give it {weight}",
                    where=self._primary.where,
                    next="drain in one stage (stages: [0]), or use a router that has weights",
                )

    def _expected(self, changes: Sequence[RouteChange]) -> Mapping[str, dns.rdataset.Rdataset]:
        expected = {}
        for change, records in zip(changes, self._look([change.route for change in changes]).values(), strict=True):
            if isinstance(records, Unknown):
                raise self._primary.error(f"{records.why}; nothing was written", "check 'server' and 'zone'")
            state = self._state(change.route, records)
            if records is None or isinstance(state, Unknown):
                found = state.why if isinstance(state, Unknown) else "gone"
                raise Conflict(change.resource, say(change.before), found)
            if state != change.before:
                raise Conflict(change.resource, say(change.before), say(state))
            expected[change.route] = records
        return expected

    def _messages(
        self, changes: Sequence[RouteChange], expected: Mapping[str, dns.rdataset.Rdataset]
    ) -> Iterator[tuple[dns.update.UpdateMessage, Sequence[RouteChange]]]:
        part: list[RouteChange] = []
        size = 0
        for change in changes:
            alone = self._bytes(change, expected[change.route])
            if alone > ROOM:
                said = f"cannot be sent the change of {change.route}: it does not fit into one message"
                raise self._primary.failed(f"{said}; nothing was written", "give the record fewer addresses")
            if part and size + alone > ROOM:
                yield self._message(part, expected), part
                part, size = [], 0
            part.append(change)
            size += alone
        if part:
            yield self._message(part, expected), part

    def _bytes(self, change: RouteChange, before: dns.rdataset.Rdataset) -> int:
        config = self._routes[change.route].config
        # Uncompressed: a name beyond the first 16 KB of a message cannot be pointed to (RFC 1035, section 4.1.4).
        record = len(dns.name.from_text(config.record).to_digestable()) + 10 + (4 if config.type == "A" else 16)
        after = sum(len(config.addresses[region]) for region, weight in change.after.weights.items() if weight)
        return int(record * (len(before) + 1 + after))

    def _message(
        self, changes: Sequence[RouteChange], expected: Mapping[str, dns.rdataset.Rdataset]
    ) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._zone)
        for change in changes:
            config = self._routes[change.route].config
            name = dns.name.from_text(config.record)
            before = expected[change.route]
            on = config.of(region for region, weight in change.after.weights.items() if weight)
            ttl = before.ttl if change.after.ttl is None else change.after.ttl
            # Section 2.4.2: a prerequisite has TTL 0, and it does not compare TTLs; reading has just done that.
            update.present(name, dns.rdataset.from_rdata(0, *before))
            update.replace(name, dns.rdataset.from_text_list("IN", config.type, ttl, sorted(on)))
        return update

    def _unmet(self, code: str, changes: Sequence[RouteChange]) -> FailoverError:
        try:
            self._expected(changes)
        except FailoverError as error:
            return error
        said = f"refused the update ({code}), but now the records are what was expected; nothing was written"
        return self._primary.failed(said, "somebody else is changing them at this moment; see who, then try again")

    def _halfway(
        self, error: FailoverError, done: int, of: int, changes: Sequence[RouteChange], part: Sequence[RouteChange]
    ) -> FailoverError:
        written = ", ".join(change.route for change in changes[: changes.index(part[0])])
        kind = Indeterminate if isinstance(error, Indeterminate) else Failed
        what = f"{done} of {of} messages were taken ({written} are written), then: {error.what}"
        return kind(what, where=self._primary.where, next=error.next)

    def _answers(self, at: Server, config: Any, wanted: frozenset[str], ttl: int | None) -> Verdict:
        try:
            records = answer(ask(at, config.record, config.type, self.config.timeout), config.record, config.type)
            if records is None:
                return unknown(f"{at} has no {config.record} {config.type}{self._serial(at)}")
            if _addresses(records) != wanted:
                seen = _listed(_addresses(records))
                return unknown(f"{at} still answers {seen}{self._serial(at)}, wanted {_listed(wanted)}")
            if ttl is not None and records.ttl > ttl:
                return unknown(f"{at} still answers with TTL {records.ttl} s{self._serial(at)}, wanted {ttl} s")
        except Unanswered as error:
            return unknown(str(error))
        return passed(f"{at} answers {_listed(wanted)}, TTL {records.ttl} s")

    def _serial(self, at: Server) -> str:
        records = answer(ask(at, self._zone, "SOA", self.config.timeout), self._zone, "SOA")
        return f" (zone serial {records[0].serial})" if records else ""


def _not_an_address(text: str, kind: str) -> str:
    version = 4 if kind == "A" else 6
    try:
        if ipaddress.ip_address(text).version == version:
            return ""
    except ValueError:
        return f"'{text}' is not an IP address"
    return f"{text} is not an IPv{version} address, which type {kind} needs"


def _shortest(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _same(one: str, other: str) -> bool:
    try:
        return _shortest(one) == _shortest(other)
    except ValueError:
        return False


def _addresses(records: dns.rdataset.Rdataset) -> frozenset[str]:
    return frozenset(_shortest(record.to_text()) for record in records)


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses)) or "nothing"
