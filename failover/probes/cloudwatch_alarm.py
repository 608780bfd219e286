"""Asks CloudWatch for the state of one alarm, of a metric or composite.

Source: API_DescribeAlarms of the CloudWatch API Reference.
"""

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from failover.aws import ERRORS, Identity, shared, words
from failover.clock import Clock, stamp
from failover.probes.looking import look
from failover.units import Duration
from failover.verdict import Verdict, failed, passed, unknown


class CloudWatchAlarmConfig(Identity):
    """`region` is where the alarm is, which need not be the region that is looked after."""

    alarm: Annotated[str, Field(min_length=1, max_length=255)]
    endpoint: str | None = None
    timeout: Annotated[Duration, Field(gt=0)] = 5.0


class CloudWatchAlarmProbe:
    """Passes on OK and fails on ALARM. INSUFFICIENT_DATA, and an alarm that is not there, are unknown."""

    Config: ClassVar[type[BaseModel]] = CloudWatchAlarmConfig

    def __init__(self, config: CloudWatchAlarmConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One request, `timeout` at most."""
        where = f" in {self._config.region}" if self._config.region else ""
        asked = f"CloudWatch alarm '{self._config.alarm}'{where}"
        return look(asked, self._config.timeout, self._clock, self._see)

    def _see(self) -> Verdict:
        config = self._config
        account = shared(
            Identity(region=config.region, profile=config.profile, credentials_file=config.credentials_file),
            config.timeout,
        )
        try:
            client = account.client("cloudwatch", config.region, config.endpoint)
            found = client.describe_alarms(AlarmNames=[config.alarm], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        except ERRORS as error:
            what, then = words(error, "CloudWatch's API")
            return unknown(f"{what}; {then}")
        alarms = [*found.get("MetricAlarms", ()), *found.get("CompositeAlarms", ())]
        if not alarms:
            return unknown("there is no such alarm; check its name, 'region' and the account that asks")
        state, changed = alarms[0]["StateValue"], alarms[0].get("StateUpdatedTimestamp")
        since = f" since {stamp(changed.timestamp())}" if changed else ""
        why = alarms[0].get("StateReason") or "no reason given"
        judge = {"OK": passed, "ALARM": failed}.get(state, unknown)
        return judge(f"{state}{since}: {why}")
