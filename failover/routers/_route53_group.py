"""The record sets of one route as Route 53 holds them: one weighted set per region and type."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from pydantic import BeforeValidator, WithJsonSchema, field_validator

from failover.errors import did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._route53_api import LABEL, Key, RecordSet, canonical
from failover.routers._words import say
from failover.schema import Model
from failover.world import RouteState, Unknown

WEIGHT_LIMIT = 255
LONGEST_TTL = 2**31 - 1
Place = tuple[str, str]
"""A type and a region."""
Type = Literal["A", "AAAA", "CNAME"]
_TYPES = {"enum": ["A", "AAAA", "CNAME"]}


class Route53Route(Model):
    """A weighted record, of one type or of several that move together.

    `set_identifiers` names a region's record sets where they are not called like the region.
    """

    record: str
    type: Annotated[
        tuple[Type, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        WithJsonSchema({"anyOf": [_TYPES, {"type": "array", "items": _TYPES, "minItems": 1}], "default": "A"}),
    ] = ("A",)
    set_identifiers: Mapping[str, str] = {}

    @field_validator("record")
    @classmethod
    def _fully_qualified(cls, record: str) -> str:
        labels = record.removesuffix(".").split(".")
        if len(record) > 254 or len(labels) < 2 or not all(len(x) < 64 and LABEL.fullmatch(x) for x in labels):
            raise ValueError(f"'{record}' is not a full domain name; it looks like shop.example.com.")
        return canonical(record)

    @field_validator("type")
    @classmethod
    def _go_together(cls, types: tuple[Type, ...]) -> tuple[Type, ...]:
        if not types:
            raise ValueError("no type is named; write at least one, like [A, AAAA]")
        if len(set(types)) < len(types):
            raise ValueError("a type stands here twice")
        if "CNAME" in types and len(types) > 1:
            raise ValueError("a name with a CNAME can have no other record (RFC 1034, section 3.6.2)")
        return types

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple((self.record, kind) for kind in self.type)

    @property
    def what(self) -> str:
        return f"{self.record} {' and '.join(self.type)}"


@dataclass(frozen=True)
class Group:
    """The record sets of one route by type and region, as the API lists them. All types have the same weights."""

    sets: Mapping[Place, RecordSet]

    @property
    def state(self) -> RouteState:
        """Weights, and the highest TTL that any of them has; alias records have none."""
        ttls = [record["TTL"] for record in self.sets.values() if "TTL" in record]
        weights = {region: record["Weight"] for (_, region), record in self.sets.items()}
        return RouteState(weights, max(ttls, default=None))

    def at(self, state: RouteState) -> "Group":
        """The same record sets, whole, with only weight and TTL as `state` has them."""
        moved = {}
        for (kind, region), record in self.sets.items():
            ttl = {"TTL": state.ttl} if "TTL" in record and state.ttl is not None else {}
            moved[kind, region] = {**record, "Weight": state.weights[region], **ttl}
        return Group(moved)

    def values(self, kind: str) -> Mapping[str, frozenset[str]]:
        """By region, the data that an answer of type `kind` holds; empty for an alias, whose target decides."""
        return {
            region: frozenset(plain(own, each["Value"]) for each in record.get("ResourceRecords", ()))
            for (own, region), record in self.sets.items()
            if own == kind
        }


def grouped(spec: RouteSpec, found: Mapping[Key, Sequence[RecordSet]], zone: str) -> Group | Unknown:
    """What was `found` as the group of one route; Unknown where it is not one weighted set per region and type."""
    sets: dict[Place, RecordSet] = {}
    states: dict[str, RouteState] = {}
    for record, kind in spec.config.keys:
        one = _of_one_type(spec, found[record, kind], kind, f"{record} {kind} in zone {zone}")
        if isinstance(one, Unknown):
            return one
        sets |= one.sets
        states[kind] = RouteState(one.state.weights)
    if len(set(states.values())) > 1:
        differing = "; ".join(f"{kind} has {say(state)}" for kind, state in states.items())
        return Unknown(
            f"the types of record {spec.config.record} in zone {zone} have different weights: {differing}; "
            "give them the same ones by hand, then they move together"
        )
    return Group(sets)


def _of_one_type(spec: RouteSpec, records: Sequence[RecordSet], kind: str, what: str) -> Group | Unknown:
    if not records:
        return Unknown(f"there is no record {what}")
    if any("Weight" not in record for record in records):
        return Unknown(f"record {what} is not weighted; it needs one weighted record set per region")
    names = _identifiers(spec)
    by_name = {record["SetIdentifier"]: record for record in records}
    if absent := [f"'{name}' (region {region})" for region, name in names.items() if name not in by_name]:
        there = ", ".join(f"'{name}'" for name in by_name)
        return Unknown(f"record {what} has no set identifier {' or '.join(absent)}; it has {there}")
    if alien := [f"'{name}'" for name in by_name if name not in names.values()]:
        return Unknown(f"record {what} has a set identifier that belongs to no region: {', '.join(alien)}")
    return Group({(kind, region): by_name[name] for region, name in names.items()})


def mistakes(spec: RouteSpec) -> Iterable[Mistake]:
    """Weights, TTL and set identifiers that Route 53 cannot hold."""
    weights, config = spec.route.weights, spec.config
    whole = sum(weights.values())
    if whole > WEIGHT_LIMIT:
        yield (
            ("weights",),
            f"the weights add up to {whole}; {WEIGHT_LIMIT} is Route 53's limit, and one region may have to "
            "take all of it: use smaller weights in the same proportion",
        )
    if spec.route.ttl is not None and spec.route.ttl > LONGEST_TTL:
        yield ("ttl",), f"Route 53 takes a TTL up to {LONGEST_TTL} s"
    for region in config.set_identifiers:
        if region not in weights:
            near = did_you_mean(region, weights)
            yield ("set_identifiers", region), f"this route has no region '{region}'{near}"
    names = _identifiers(spec)
    for region, identifier in names.items():
        if not 1 <= len(identifier) <= 128:
            yield ("set_identifiers", region), "a set identifier has 1 to 128 characters"
    if len(set(names.values())) < len(names):
        yield ("set_identifiers",), "two regions have the same set identifier; each needs its own"


def plain(kind: str, value: str) -> str:
    """`value` as DNS servers are heard to say it."""
    text = canonical(value) if kind == "CNAME" else value
    try:
        data: Any = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)
    except dns.exception.DNSException:
        return text
    return str(data.to_text())


def _identifiers(spec: RouteSpec) -> Mapping[str, str]:
    return {region: spec.config.set_identifiers.get(region, region) for region in spec.route.weights}
