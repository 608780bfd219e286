"""What a route of the rfc2136 router is in DNS: one set of addresses, or one set of SRV records with weights."""

import ipaddress
import struct
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Literal

import dns.exception
import dns.name
import dns.rdata
import dns.rdataset
import dns.rdatatype
from pydantic import Field, field_validator, model_validator

from failover.errors import did_you_mean
from failover.ports import Mistake
from failover.routers._dns import full_name
from failover.routers._octets import question
from failover.schema import Model
from failover.world import Unknown

SRV_LIMIT = 65_535


class Rfc2136Route(Model):
    """A record set, and what in it belongs to which region: `addresses`, or for SRV one of `targets` each.

    An SRV record has a weight of two octets (RFC 2782). One of weight 0 still gets a small share beside others, so a
    region of weight 0 has no record at all.
    """

    record: str
    type: Literal["A", "AAAA", "SRV"] = "A"
    addresses: Mapping[str, tuple[str, ...]] = {}
    targets: Mapping[str, str] = {}
    priority: Annotated[int, Field(ge=0, le=65_535)] = 0

    @field_validator("record")
    @classmethod
    def _record(cls, record: str) -> str:
        return full_name(record)

    @model_validator(mode="after")
    def _one_kind(self) -> "Rfc2136Route":
        if self.weighted and (self.addresses or not self.targets):
            raise ValueError("type SRV has 'targets', one host:port a region, and no 'addresses'")
        if not self.weighted and (self.targets or not self.addresses or self.priority):
            raise ValueError(f"type {self.type} has 'addresses' by region, and neither 'targets' nor 'priority'")
        return self

    @property
    def weighted(self) -> bool:
        return self.type == "SRV"

    @cached_property
    def values(self) -> Mapping[str, frozenset[str]]:
        """What each region has in the record set, as `spell` writes it: addresses, or one target and its port."""
        if self.weighted:
            return {region: frozenset([_spelled(*_target(text))]) for region, text in self.targets.items()}
        return {region: frozenset(map(_shortest, texts)) for region, texts in self.addresses.items()}

    def spell(self, record: dns.rdata.Rdata) -> str:
        """What `record` leads to: its address, or its target and port."""
        return _spelled(record.target, record.port) if self.weighted else _shortest(record.to_text())  # type: ignore[attr-defined]  # an SRV record

    def records(self, weights: Mapping[str, int]) -> tuple[str, ...]:
        """The whole record set at `weights`, one text a record, in order."""
        on = [region for region, weight in weights.items() if weight]
        if not self.weighted:
            return tuple(sorted(value for region in on for value in self.values[region]))
        made = ((weights[region], *_target(self.targets[region])) for region in on)
        return tuple(sorted(f"{self.priority} {weight} {port} {host}" for weight, host, port in made))

    def seen(self, records: Iterable[dns.rdata.Rdata]) -> tuple[str, ...]:
        """The same of `records`, which a server has answered."""
        return tuple(sorted(record.to_text().lower() if self.weighted else self.spell(record) for record in records))

    def weights(self, records: dns.rdataset.Rdataset, normal: Mapping[str, int]) -> Mapping[str, int] | Unknown:
        """The weights that `records` are, or why they are none."""
        alien = {self.spell(record) for record in records} - set().union(*(self.values[each] for each in normal))
        if alien:
            what = "targets" if self.weighted else "addresses"
            return Unknown(f"{self.record} has {what} that belong to no region: {listed(alien)}")
        return self._shares(records, normal) if self.weighted else self._switches(records, normal)

    def usual(self, data: Collection[bytes], normal: Mapping[str, int]) -> Mapping[str, int] | None:
        """The weights that records in wire format are; None where that takes a closer look, by `weights`."""
        found = dict.fromkeys(normal, 0)
        if not self.weighted:
            for region, weight in normal.items():
                if all(each in data for each in self.octets[region]):
                    found[region] = weight
            return found if sum(len(self.octets[each]) for each in normal if found[each]) == len(data) else None
        for each in data:
            priority, weight = struct.unpack_from("!HH", each) if len(each) > 4 else (0, 0)
            whose = self._regions.get(each[4:])
            if not weight or priority != self.priority or whose is None or found.get(whose, 1):
                return None
            found[whose] = weight
        return found

    def _switches(self, records: dns.rdataset.Rdataset, normal: Mapping[str, int]) -> Mapping[str, int] | Unknown:
        there = {self.spell(record) for record in records}
        weights = {}
        for region, weight in normal.items():
            own = self.values[region]
            if there & own and own - there:
                return Unknown(f"{self.record} has only a part of {region}: {listed(own - there)} is missing")
            weights[region] = weight if own <= there else 0
        return weights

    def _shares(self, records: dns.rdataset.Rdataset, normal: Mapping[str, int]) -> Mapping[str, int] | Unknown:
        weights = dict.fromkeys(normal, 0)
        for region in normal:
            own = [record for record in records if self.spell(record) in self.values[region]]
            if len(own) > 1:
                return Unknown(f"{self.record} has {len(own)} records for {region}; it takes one: {_texts(own)}")
            for record in own:
                if record.priority != self.priority:
                    said = f"has priority {record.priority} for {region}, the topology says {self.priority}"
                    return Unknown(f"{self.record} {said}")
                if not record.weight:
                    said = "which is not off: clients still choose it now and then; remove it or give it a weight"
                    return Unknown(f"{self.record} has weight 0 for {region}, {said}")
                weights[region] = record.weight
        return weights

    def rdata(self, weights: Mapping[str, int]) -> tuple[bytes, ...]:
        """The records of `weights` in wire format (RFC 1035 section 3.4.1, RFC 3596, RFC 2782)."""
        on = [region for region, weight in weights.items() if weight]
        if not self.weighted:
            return tuple(each for region in on for each in self.octets[region])
        ways = ((struct.pack("!HH", self.priority, weights[region]), self.octets[region]) for region in on)
        return tuple(way + each for way, own in ways for each in own)

    @cached_property
    def octets(self) -> Mapping[str, tuple[bytes, ...]]:
        """What each region has in wire format: addresses, or a port and its target."""
        if not self.weighted:
            return {
                region: tuple(ipaddress.ip_address(each).packed for each in own)
                for region, own in self.values.items()
            }
        targets = {region: _target(text) for region, text in self.targets.items()}
        return {
            region: (struct.pack("!H", port) + (dns.name.from_text(host).to_wire() or b""),)
            for region, (host, port) in targets.items()
        }

    @cached_property
    def _regions(self) -> Mapping[bytes, str]:
        return {each: region for region, own in self.octets.items() for each in own}

    @cached_property
    def name(self) -> dns.name.Name:
        return dns.name.from_text(self.record)

    @cached_property
    def kind(self) -> int:
        return int(dns.rdatatype.from_text(self.type))

    @cached_property
    def question(self) -> bytes:
        """The question for the record set, as a query has it."""
        return question(self.name, self.kind)

    def mistakes(self, weights: Mapping[str, int]) -> Iterable[Mistake]:
        """What is wrong with the addresses or targets for a route of these normal weights, or with the weights."""
        yield from self._wrong_weights(weights)
        key = "targets" if self.weighted else "addresses"
        one = "target" if self.weighted else "addresses"
        declared: Mapping[str, Collection[str]] = self.targets if self.weighted else self.addresses
        for region in weights:
            if not declared.get(region):
                yield (key,), f"region '{region}' has no {one}; it takes at least one to switch it on"
        owner: dict[str, str] = {}
        for region in declared:
            if region not in weights:
                yield (key, region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
            texts = (self.targets[region],) if self.weighted else self.addresses[region]
            for index, text in enumerate(texts):
                at = (key, region) if self.weighted else (key, region, index)
                if problem := _no_target(text) if self.weighted else _no_address(text, self.type):
                    yield at, problem
                    continue
                value = _spelled(*_target(text)) if self.weighted else _shortest(text)
                other = owner.get(value)
                if other is not None and other != region:
                    yield at, f"{text} belongs to region '{other}' too; one drains the other"
                elif other is not None:
                    yield at, f"{text} stands here twice"
                owner.setdefault(value, region)

    def _wrong_weights(self, weights: Mapping[str, int]) -> Iterable[Mistake]:
        whole = sum(weights.values())
        if self.weighted and whole > SRV_LIMIT:
            yield (
                ("weights",),
                f"the weights add up to {whole}; {SRV_LIMIT} is the limit of an SRV record, and one region may have "
                "to take all of it: use smaller weights in the same proportion",
            )
        for region, weight in () if self.weighted else weights.items():
            if weight == 0:
                yield (
                    ("weights", region),
                    "plain DNS only switches a region on and off: a normal weight above 0 is needed to switch it on",
                )


def listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "nothing"


def _texts(records: Iterable[dns.rdata.Rdata]) -> str:
    return listed(f"'{record.to_text()}'" for record in records)


def _no_address(text: str, kind: str) -> str:
    version = 4 if kind == "A" else 6
    try:
        if ipaddress.ip_address(text).version == version:
            return ""
    except ValueError:
        return f"'{text}' is not an IP address"
    return f"{text} is not an IPv{version} address, which type {kind} needs"


def _no_target(text: str) -> str:
    try:
        _target(text)
    except (ValueError, dns.exception.DNSException):
        return f"'{text}' is no target; write a full domain name and a port, like web1.example.com.:443"
    return ""


def _target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return full_name(host), int(port)
    raise ValueError


def _spelled(host: object, port: int) -> str:
    return f"{str(host).lower()}:{port}"


def _shortest(text: str) -> str:
    return str(ipaddress.ip_address(text))
