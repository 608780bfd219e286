"""What a topology says of gdnsd, and what can be wrong with it."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from failover.errors import did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._dns import ServerText, full_name
from failover.schema import Model
from failover.units import Duration

_KEY = re.compile(r"[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)+")
Words = tuple[str, ...]


class GdnsdServer(Model):
    """One gdnsd: its admin_state file, how to run gdnsdctl there, and where it answers.

    `via` are the words that reach its host, as `[ssh, ns1]`, and none where it is this one.
    """

    dns: ServerText
    admin_state: str = "/var/lib/gdnsd/admin_state"
    ctl: Annotated[Words, Field(min_length=1)] = ("gdnsdctl",)
    via: Words = ()

    @field_validator("admin_state")
    @classmethod
    def _whole(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"'{path}' is not a whole path; it looks like /var/lib/gdnsd/admin_state")
        return path


class GdnsdConfig(Model):
    """All servers that answer for the routes, which must agree.

    `resolvers` are asked too whether a change has come through. `timeout` bounds each look and each write at a host.
    """

    servers: Annotated[tuple[GdnsdServer, ...], Field(min_length=1)]
    resolvers: tuple[ServerText, ...] = ()
    timeout: Annotated[Duration, Field(ge=1)] = 10.0

    @field_validator("servers")
    @classmethod
    def _once(cls, servers: tuple[GdnsdServer, ...]) -> tuple[GdnsdServer, ...]:
        places = [(server.via, server.admin_state) for server in servers]
        for via, path in places:
            if places.count((via, path)) > 1:
                raise ValueError(
                    f"{path}{f' via {via[-1]}' if via else ''} stands here twice; each server has its own"
                )
        return servers


class GdnsdRoute(Model):
    """A record, which of its addresses belong to which region, and the states that stand for the region.

    States are named as `gdnsdctl states` lists them: `metafo/www/dc-east`, `geoip/www/dc-east`, `192.0.2.1/http`.
    """

    record: str
    type: Literal["A", "AAAA"] = "A"
    addresses: Mapping[str, Words]
    states: Mapping[str, Words]

    @field_validator("record")
    @classmethod
    def _record(cls, record: str) -> str:
        return full_name(record)

    def of(self, region: str) -> frozenset[str]:
        """The region's addresses, in their shortest spelling."""
        return frozenset(str(ipaddress.ip_address(text)) for text in self.addresses[region])


def mistakes(spec: RouteSpec) -> Iterable[Mistake]:
    """States and addresses that are missing, shared or not such, and weights that a switch cannot have."""
    config, weights = spec.config, spec.route.weights
    if spec.route.ttl is not None:
        yield ("ttl",), "gdnsd's TTLs are in its zone files and are not changed here; leave this out"
    for region, weight in weights.items():
        if weight == 0:
            yield (
                ("weights", region),
                "gdnsd is only told that a region is down or not: a normal weight above 0 is needed to switch it on",
            )
        for what, named in (("states", config.states), ("addresses", config.addresses)):
            if not named.get(region):
                yield (what,), f"region '{region}' has no {what}; it takes at least one"
    version = 4 if config.type == "A" else 6
    for what, named in (("states", config.states), ("addresses", config.addresses)):
        owner: dict[str, str] = {}
        for region, values in named.items():
            if region not in weights:
                yield (what, region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
            for index, text in enumerate(values):
                place = (what, region, index)
                problem = _not_a_state(text) if what == "states" else _not_an_address(text, version)
                same = text if problem or what == "states" else str(ipaddress.ip_address(text))
                if problem:
                    yield place, problem
                elif owner.setdefault(same, region) != region:
                    yield place, f"{text} belongs to region '{owner[same]}' too; one drains the other"
                elif text in values[:index]:
                    yield place, f"{text} stands here twice"


def _not_a_state(text: str) -> str:
    if _KEY.fullmatch(text):
        return ""
    return f"'{text}' is not a state; write one that 'gdnsdctl states' lists, like metafo/www/dc-east, no pattern"


def _not_an_address(text: str, version: int) -> str:
    try:
        if ipaddress.ip_address(text).version == version:
            return ""
    except ValueError:
        return f"'{text}' is not an IP address"
    return f"{text} is not an IPv{version} address, which the record's type needs"
