"""What a topology says of Consul: its datacenters, and how each route is steered."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from failover._consul import Address, Agent, Tls
from failover.errors import Invalid, Problem, did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._dns import ServerText
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration

WEIGHT_LIMIT = 65_535
"""The greatest weight of an SRV record (RFC 2782), which is where Consul's service weights come out."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")


class Datacenter(Model):
    """Where one datacenter is asked. `datacenter` is its name in Consul, where that is not the region's.

    `dns` is a Consul DNS server of it, which must then answer as wanted. Each node's own agent is asked at the
    node's address, with the scheme and the port of `address`, unless `agents` says otherwise, by the node's name.
    """

    address: Address
    token: Secret | None = None
    datacenter: str = ""
    dns: ServerText | None = None
    agents: dict[str, Address] = {}


class ConsulConfig(Model):
    """The datacenters by region. `primary` is the one that holds the config entries, which `redirect` writes.

    `timeout` bounds each call, `within` one whole write. `lock` is the folder in the key-value store, in the first
    region's datacenter, where writers of `maintenance` and `weights` wait for each other.
    """

    datacenters: Annotated[dict[str, Datacenter], Field(min_length=1)]
    primary: str = ""
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 3.0
    within: Annotated[Duration, Field(ge=1, le=600)] = 15.0
    lock: str = "failover/lock"
    domain: str = "consul"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @field_validator("primary")
    @classmethod
    def _primary_is_one(cls, primary: str, info: ValidationInfo) -> str:
        known = info.data.get("datacenters", {primary: None})
        if primary and primary not in known:
            raise ValueError(f"'{primary}' is not one of 'datacenters'{did_you_mean(primary, known)}")
        return primary

    @field_validator("key_file")
    @classmethod
    def _key_of_a_certificate(cls, key_file: Path | None, info: ValidationInfo) -> Path | None:
        if key_file is not None and info.data.get("cert_file") is None:
            raise ValueError("a key without its certificate is of no use; name 'cert_file' too")
        return key_file

    def name_of(self, region: str) -> str:
        """The name that Consul has for the datacenter of `region`."""
        return self.datacenters[region].datacenter or region

    def agent(self, router: str, region: str, address: str = "") -> Agent:
        """The agent of `region` that is asked, or another one of that datacenter at `address`."""
        at = self.datacenters[region]
        tls = Tls(self.ca_file, self.cert_file, self.key_file)
        return Agent(f"router {router}", address or at.address, self.name_of(region), at.token, self.timeout, tls)


class ConsulRoute(Model):
    """How one service is steered, and by what.

    `query` is a prepared query, by name or id, that must then answer as wanted too.
    """

    service: str
    mode: Literal["redirect", "maintenance", "weights"]
    of: Literal["service", "node"] = "service"
    query: str = ""

    @field_validator("service", "query")
    @classmethod
    def _named(cls, name: str) -> str:
        if name and not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' cannot be a name in Consul: letters, digits, '-', '_' and '.' only")
        return name


def route_mistakes(spec: RouteSpec) -> Iterator[Mistake]:
    """What Consul cannot do with a route, beyond what the models see."""
    config, weights = spec.config, spec.route.weights
    if not config.service:
        yield ("service",), "this is empty; write the service's name in Consul"
    if spec.route.ttl is not None:
        yield ("ttl",), "Consul's TTLs are its own configuration (dns_config); leave this out"
    if config.mode == "redirect":
        yield from _redirect_mistakes(spec)
    for region, weight in weights.items():
        if config.mode == "weights" and weight > WEIGHT_LIMIT:
            yield ("weights", region), f"must be at most {WEIGHT_LIMIT}, not {weight}"
        elif config.mode == "redirect" and weight == 0:
            yield ("weights", region), "a redirect only switches a region on and off: a weight above 0 is needed"
        elif config.mode == "maintenance" and weight < 2:
            yield (
                ("weights", region),
                "maintenance only switches a region on and off; its normal weight is 2 at least, so that a region "
                "of which only a part is out can be told from both",
            )
    whole = sum(weights.values())
    if config.mode == "weights" and whole > WEIGHT_LIMIT and max(weights.values()) <= WEIGHT_LIMIT:
        yield (
            ("weights",),
            f"the weights add up to {whole}; {WEIGHT_LIMIT} is the limit, and one region may have to take all of it: "
            "use smaller weights in the same proportion",
        )


def _redirect_mistakes(spec: RouteSpec) -> Iterator[Mistake]:
    if len(spec.route.weights) != 2:
        yield (
            ("weights",),
            "a redirect sends everybody to one datacenter, so it takes exactly two regions; use mode: maintenance "
            "for more",
        )
    for key in ("of", "query"):
        if key in spec.config.model_fields_set:
            yield (key,), f"'{key}' has no meaning for a redirect, which is about the mesh alone; leave it out"


def check(name: str, config: ConsulConfig, routes: Mapping[str, RouteSpec]) -> None:
    """Raises Invalid for what is wrong between the router and its routes."""
    problems = []
    seen: dict[tuple[str, str], str] = {}

    def complain(message: str) -> None:
        problems.append(Problem(f"router {name}", 0, 0, message))

    for route, spec in routes.items():
        for region in spec.route.weights:
            if region not in config.datacenters:
                near = did_you_mean(region, config.datacenters)
                complain(f"route {route}: region '{region}' has no entry under 'datacenters'{near}")
        if spec.config.mode == "redirect" and not config.primary:
            complain(
                f"route {route}: a redirect is written in the primary datacenter; say which it is with 'primary'"
            )
        kind = "redirect" if spec.config.mode == "redirect" else "instances"
        other = seen.setdefault((spec.config.service, kind), route)
        if other != route:
            complain(
                f"route {route} and route {other} both steer service '{spec.config.service}'; one undoes the other"
            )
    if problems:
        raise Invalid(problems)
