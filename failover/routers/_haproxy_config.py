"""What a topology says of HAProxy, and what can be wrong with it."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from failover.errors import did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._haproxy_servers import SERVER_LIMIT
from failover.routers._haproxy_socket import Instance, InstanceText
from failover.schema import Model
from failover.units import Duration

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_SMALLER = "use smaller weights in the same proportion, here and in haproxy.cfg"
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?\[\]-]+")
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class HaproxyConfig(Model):
    """The stats sockets of every HAProxy process that carries the routes, each of level admin.

    `timeout` bounds each exchange. `state_file` is the server-state-file of the only instance, which is on this host.
    """

    instances: Annotated[tuple[InstanceText, ...], Field(min_length=1)]
    state_file: str = ""
    timeout: Annotated[Duration, Field(gt=0)] = 3.0

    @field_validator("instances")
    @classmethod
    def _once(cls, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        for instance in instances:
            if instances.count(instance) > 1:
                raise ValueError(f"{instance} stands here twice")
        return instances

    @model_validator(mode="after")
    def _local(self) -> Self:
        if self.state_file and (len(self.instances) > 1 or not self.instances[0].path):
            raise ValueError(
                "'state_file' is for one instance on this host, named by the path of its socket; leave it out, and "
                "have each HAProxy's own reload save its state (show servers state) first"
            )
        if self.state_file and not self.state_file.startswith("/"):
            raise ValueError("'state_file' must be a whole path, as haproxy.cfg's server-state-file")
        return self


class HaproxyRoute(Model):
    """A backend, and which of its servers belong to which region, by name or pattern (`east-*`).

    `others` are servers of no region, which are left alone. `switch` says that the backend's balance algorithm is
    static (static-rr, or a hash without `hash-type consistent`), so that weights are on or off.
    """

    backend: str
    servers: Mapping[str, Names]
    others: tuple[str, ...] = ()
    switch: bool = False

    @field_validator("backend")
    @classmethod
    def _backend(cls, backend: str) -> str:
        if not _NAME.fullmatch(backend):
            raise ValueError(f"'{backend}' is not a backend's name; it has letters, digits and _ . : - only")
        return backend


def mistakes(spec: RouteSpec) -> Iterable[Mistake]:
    """Servers that are missing or shared, weights that they cannot have, and a TTL, which HAProxy has not."""
    config, weights = spec.config, spec.route.weights
    owner: dict[str, str] = {}
    if spec.route.ttl is not None:
        yield ("ttl",), "HAProxy has no TTL: a change holds from the next request on; leave this out"
    for region in config.servers:
        if region not in weights:
            yield ("servers", region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
    for region, weight in weights.items():
        names = config.servers.get(region, ())
        if not names:
            yield ("servers",), f"region '{region}' has no servers; name those of backend '{config.backend}'"
        elif 0 < weight < len(names):
            yield ("weights", region), f"must be at least {len(names)}: its {len(names)} servers share it"
        elif weight == 0 and config.switch:
            yield ("weights", region), "a region that is only switched needs a weight above 0 to be switched on"
    limit = SERVER_LIMIT * min((len(names) for names in config.servers.values()), default=0)
    if not config.switch and limit and sum(weights.values()) > limit:
        yield ("weights",), f"the last region left would take the sum, which must be at most {limit}: {_SMALLER}"
    for region, names in config.servers.items():
        for index, name in enumerate(names):
            place = ("servers", region, index)
            if problem := _not_a_name(name):
                yield place, problem
            elif owner.setdefault(name, region) != region:
                yield place, f"'{name}' belongs to region '{owner[name]}' too; one drains the other"
            elif name in names[:index]:
                yield place, f"'{name}' stands here twice"
    for index, name in enumerate(config.others):
        if problem := _not_a_name(name):
            yield ("others", index), problem
        elif name in owner:
            yield ("others", index), f"'{name}' belongs to region '{owner[name]}'"


def _not_a_name(name: str) -> str:
    if _PATTERN.fullmatch(name):
        return ""
    return f"'{name}' is not a server's name or pattern; it has letters, digits, _ . : - and the wildcards * ? [ ]"
