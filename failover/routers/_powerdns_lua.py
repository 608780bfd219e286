"""A route of the powerdns router, and the LUA record that gives its regions their shares.

Source: LUA records of the PowerDNS Authoritative Server, pickwrandom.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import lcm
from typing import Literal

from pydantic import field_validator

from failover.errors import did_you_mean
from failover.ports import Mistake
from failover.routers._dns import full_name
from failover.schema import Model

WEIGHT_LIMIT = 65_535
_SUM_LIMIT = 2**31 - 1
"""pickwrandom adds its weights up in a signed integer of 32 bits."""
_SEGMENT = 255
"""Octets of one quoted part: a transfer to a secondary cuts longer ones anywhere."""
_CONTENT = re.compile(r'(?P<type>A|AAAA) (?P<parts>"[^"\\]*"( "[^"\\]*")*)')
_CODE = re.compile(r"pickwrandom\(\{(?P<entries>\{\d{1,10},'[0-9a-f.:]+'\}(,\{\d{1,10},'[0-9a-f.:]+'\})*)\}\)")
_ENTRY = re.compile(r"\{(\d+),'([^']+)'\}")


class NotOurs(Exception):
    """A record's content is not as this router writes it; the message says why."""


class PowerDnsRoute(Model):
    """A name with a LUA record of `type`, and which addresses belong to which region."""

    record: str
    type: Literal["A", "AAAA"] = "A"
    addresses: Mapping[str, tuple[str, ...]]

    @field_validator("record")
    @classmethod
    def _record(cls, record: str) -> str:
        return full_name(record)

    @cached_property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The addresses of each region, in their shortest spelling."""
        return {region: tuple(map(shortest, texts)) for region, texts in self.addresses.items()}

    @property
    def _whole(self) -> int:
        # A region's share is its own, however many addresses it has: each gets an equal part of it, a whole number.
        return lcm(*(len(own) for own in self.values.values()))

    def content(self, weights: Mapping[str, int]) -> str:
        """The record's content at `weights`; a region of weight 0 is left out. One part is 255 octets at most."""
        entries = [
            f"{{{weight * self._whole // len(self.values[region])},'{address}'}}"
            for region, weight in weights.items()
            if weight
            for address in self.values[region]
        ]
        parts = ["pickwrandom({"]
        for number, entry in enumerate(entries):
            text = entry + ("," if number + 1 < len(entries) else "})")
            if len(parts[-1]) + len(text) > _SEGMENT:
                parts.append("")
            parts[-1] += text
        return f"{self.type} " + " ".join(f'"{part}"' for part in parts)

    def weights(self, content: str, regions: Iterable[str]) -> Mapping[str, int]:
        """The weights of `regions` that `content` gives. Raises NotOurs for anything that `content` never writes."""
        outer = _CONTENT.fullmatch(content)
        code = _CODE.fullmatch("".join(re.findall(r'"([^"]*)"', outer["parts"]))) if outer else None
        if outer is None or code is None or outer["type"] != self.type:
            raise NotOurs("is not a single pickwrandom as this router writes it")
        given: dict[str, int] = {}
        for weight, address in _ENTRY.findall(code["entries"]):
            name = _shortest_or_not(address)
            if name in given:
                raise NotOurs(f"names {name} twice")
            given[name] = int(weight)
        weights = {}
        for region in regions:
            own = [given.pop(address, None) for address in self.values[region]]
            if len(set(own)) > 1:
                raise NotOurs(f"gives the addresses of {region} different weights")
            weight, rest = divmod((own[0] or 0) * len(own), self._whole)
            if rest or own[0] == 0:
                raise NotOurs(f"gives {region} a weight that the topology cannot say")
            weights[region] = weight
        if given:
            raise NotOurs(f"names addresses that belong to no region: {', '.join(sorted(given))}")
        return weights

    def mistakes(self, weights: Mapping[str, int]) -> Iterable[Mistake]:
        """Addresses that are missing, shared or none, and weights that a record cannot hold."""
        owner: dict[str, str] = {}
        wrong = False
        for region in weights:
            if not self.addresses.get(region):
                wrong = True
                yield ("addresses",), f"region '{region}' has no addresses; it takes at least one to switch it on"
        for region, texts in self.addresses.items():
            if region not in weights:
                yield ("addresses", region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
            for index, text in enumerate(texts):
                if problem := _problem(text, self.type):
                    wrong = True
                    yield ("addresses", region, index), problem
                elif (other := owner.setdefault(shortest(text), region)) != region:
                    said = f"{text} belongs to region '{other}' too; one drains the other"
                    yield ("addresses", region, index), said
                elif shortest(text) in map(_shortest_or_not, texts[:index]):
                    yield ("addresses", region, index), f"{text} stands here twice"
        whole = sum(weights.values())
        if whole > WEIGHT_LIMIT or (not wrong and whole * self._whole > _SUM_LIMIT):
            yield (
                ("weights",),
                f"the weights add up to {whole}; {WEIGHT_LIMIT} is the limit, less where the regions' numbers of "
                "addresses have no common divisor: use smaller weights in the same proportion",
            )


def shortest(text: str) -> str:
    """An IP address in its shortest spelling. Raises ValueError."""
    return str(ipaddress.ip_address(text))


def _shortest_or_not(text: str) -> str:
    try:
        return shortest(text)
    except ValueError:
        return text


def _problem(text: str, kind: str) -> str:
    version = 4 if kind == "A" else 6
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return f"'{text}' is not an IP address"
    if found.version != version:
        return f"{text} is not an IPv{version} address, which type {kind} needs"
    return f"{text} has a zone, which no record can have" if "%" in text else ""
