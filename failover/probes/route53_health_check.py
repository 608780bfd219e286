"""Asks Route 53 what its health checkers around the world say of one health check.

Source: API_GetHealthCheckStatus of the Route 53 API Reference. It tells nothing of calculated health checks, of those
that follow a CloudWatch alarm, and of routing controls. It is meant for a look now and then, not for every second.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from failover.aws import ERRORS, Identity, code, shared, words
from failover.clock import Clock
from failover.probes.looking import look
from failover.units import Duration, duration
from failover.verdict import Verdict, failed, passed, unknown


class Route53HealthCheckConfig(Identity):
    """`more_than` is the share of checkers, in percent, that must be exceeded; 18 is Route 53's own rule.

    What a checker saw longer ago than `fresh` does not count. `timeout` bounds the whole look.
    """

    health_check: str
    more_than: Annotated[float, Field(ge=0, lt=100)] = 18.0
    fresh: Annotated[Duration, Field(gt=0)] = 180.0
    endpoint: str | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 5.0

    @field_validator("health_check")
    @classmethod
    def _is_an_id(cls, health_check: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", health_check):
            raise ValueError(
                f"'{health_check}' is not a health check's id; it looks like abcdef11-2222-3333-4444-555555fedcba"
            )
        return health_check


class Route53HealthCheckProbe:
    """Passes where more than the given share of the checkers that looked lately report success, else fails.

    Unknown where fewer than half of the checkers looked lately, and where Route 53 cannot be asked.
    """

    Config: ClassVar[type[BaseModel]] = Route53HealthCheckConfig

    def __init__(self, config: Route53HealthCheckConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One request, `timeout` at most."""
        asked = f"Route 53 health check {self._config.health_check}"
        return look(asked, self._config.timeout, self._clock, self._see)

    def _see(self) -> Verdict:
        config = self._config
        account = shared(
            Identity(region=config.region, profile=config.profile, credentials_file=config.credentials_file),
            config.timeout,
        )
        try:
            # The health checks of all regions are behind the one Route 53.
            client = account.client("route53", config.region or "us-east-1", config.endpoint)
            found = client.get_health_check_status(HealthCheckId=config.health_check)
        except ERRORS as error:
            if code(error) == "NoSuchHealthCheck":
                return unknown("there is no such health check; compare 'health_check' with the Route 53 console")
            what, then = words(error, "Route 53's API")
            return unknown(f"{what}; {then}")
        return self._judge(found["HealthCheckObservations"])

    def _judge(self, observations: Sequence[Any]) -> Verdict:
        if not observations:
            return unknown(
                "no checker reports on it; calculated checks and alarms have none: probe what they rest on"
            )
        reports = [each["StatusReport"] for each in observations if "StatusReport" in each]
        oldest = self._clock.wall() - self._config.fresh
        fresh = [each["Status"] for each in reports if each["CheckedTime"].timestamp() >= oldest]
        if 2 * len(fresh) < len(observations):
            old = len(observations) - len(fresh)
            return unknown(
                f"{old} of {len(observations)} checkers have not looked for {duration(self._config.fresh)}"
            )
        good = sum(each.startswith("Success") for each in fresh)
        share = 100 * good / len(fresh)
        line = (
            f"{good} of {len(fresh)} checkers report success, {share:.0f} % (more than {self._config.more_than:g} %)"
        )
        if share > self._config.more_than:
            return passed(line)
        [(most, _)] = Counter(each for each in fresh if not each.startswith("Success")).most_common(1)
        return failed(f"{line}; most say: {most}")
