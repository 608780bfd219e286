"""Asks Consul how many instances of a service are passing in a datacenter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from failover._consul import Address, Agent, Tls, set_by_us
from failover.clock import Clock
from failover.probes.looking import look
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed, unknown


class ConsulProbeConfig(Model):
    """`passing` is how many instances must have all of their checks passing, `tag` narrows them down.

    `datacenter` is Consul's name for it; without one it is that of the agent at `address`.
    """

    address: Address
    service: Annotated[str, Field(min_length=1)]
    datacenter: str = ""
    tag: str = ""
    passing: Annotated[int, Field(ge=1)] = 1
    token: Secret | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 2.0
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @field_validator("service")
    @classmethod
    def _no_path(cls, service: str) -> str:
        if "/" in service or not service.isprintable():
            raise ValueError(f"'{service}' cannot be the name of a service")
        return service


class ConsulProbe:
    """Passes where enough instances are passing; fails where Consul answers that they are not.

    Unknown where Consul cannot be asked: it is not what the service hangs on. Maintenance is critical, so an
    instance that somebody keeps out by it does not count. What a router of ours has drained so does count where all
    else of it is passing: else a region that was drained could never be found fit to come back.

    Source: https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service
    """

    Config: ClassVar[type[BaseModel]] = ConsulProbeConfig

    def __init__(self, config: ConsulProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        tls = Tls(config.ca_file, config.cert_file, config.key_file)
        # The bound of the look is a little longer, so that what Consul's client has to say of its own is heard.
        self._agent = Agent("", config.address, config.datacenter, config.token, 0.9 * config.timeout, tls)

    def probe(self) -> Verdict:
        """One request, `timeout` at most."""
        where = f" in {self._config.datacenter}" if self._config.datacenter else ""
        asked = f"{self._config.service}{where} at {self._config.address}"
        return look(asked, self._config.timeout, self._clock, self._see)

    def _see(self) -> Verdict:
        config = self._config
        narrowed = {"tag": config.tag} if config.tag else {}
        found = self._agent.get(f"health/service/{config.service}", **narrowed).body
        try:
            good = [_well(one["Checks"]) for one in found]
            drained = sum(any(map(set_by_us, one["Checks"])) for one in found)
        except (KeyError, TypeError, AttributeError):
            return unknown("what it answers is not a list of instances")
        if not good:
            return self._none()
        line = f"{sum(good)} of {len(good)} instances are passing (at least {config.passing})"
        if drained:
            line += f", {drained} of all drained by failover"
        return passed(line) if sum(good) >= config.passing else failed(line)

    def _none(self) -> Verdict:
        """What an empty list means: who may not read a service or its nodes is shown one, and not a refusal."""
        self._agent.get(f"config/service-resolver/{self._config.service}")
        if not self._agent.get("catalog/nodes").body:
            return unknown("it shows no nodes: the token may not read them")
        return failed(f"no instance is registered (at least {self._config.passing})")


def _well(checks: Sequence[Mapping[str, Any]]) -> bool:
    return all(check["Status"] == "passing" or set_by_us(check) for check in checks)
