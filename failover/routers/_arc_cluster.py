"""The five regional endpoints of an Application Recovery Controller cluster, of which three always answer.

Sources: the Routing Control API Reference, and the routing control pages and quotas of the ARC Developer Guide.
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Annotated, Any, TypeVar

from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError
from pydantic import Field, field_validator

from failover.aws import ERRORS, THROTTLED, Access, Account, code, lost, said, words
from failover.clock import Clock
from failover.errors import Failed, FailoverError, Indeterminate, Refused
from failover.schema import Model
from failover.units import Duration, duration

T = TypeVar("T")
View = Mapping[str, bool]
"""Routing controls by ARN: whether each is on."""

MOST_CONTROLS = 10
"""How many routing controls one UpdateRoutingControlStates may set."""
_FEW = 5
_ROUNDS = 3
_PAUSE = 0.5
_ELSEWHERE = THROTTLED | {"EndpointTemporarilyUnavailableException"}
_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)


class Endpoint(Model):
    """One of the cluster's endpoints, and the region that requests to it are signed for."""

    endpoint: str
    region: str

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, endpoint: str) -> str:
        if not re.match(r"https?://[^/\s]+", endpoint):
            raise ValueError(
                f"'{endpoint}' is not a URL; it looks like "
                "https://host-aaaaaa.us-east-1.example.com, as DescribeCluster gives it"
            )
        return endpoint

    def __str__(self) -> str:
        return self.region


class ArcConfig(Access):
    """A cluster's endpoints. The timeouts are for one of them, short, since there is always another to ask.

    `retry_for` bounds all calls of one read or write together.
    """

    endpoints: tuple[Endpoint, ...]
    connect_timeout: Annotated[Duration, Field(gt=0)] = 1.0
    read_timeout: Annotated[Duration, Field(gt=0)] = 2.0
    retry_for: Duration = 15.0

    @field_validator("endpoints")
    @classmethod
    def _several(cls, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        if not endpoints:
            raise ValueError("no endpoint is named; a cluster has five, and DescribeCluster lists them")
        for name, values in (
            ("endpoint", [x.endpoint for x in endpoints]),
            ("region", [x.region for x in endpoints]),
        ):
            if twice := next((value for value in values if values.count(value) > 1), ""):
                raise ValueError(f"{name} {twice} stands here twice; each of the cluster's five has its own")
        return endpoints


class Cluster:
    """Asks the endpoints in turn, each time from another one on."""

    def __init__(self, name: str, config: ArcConfig, clock: Clock) -> None:
        self.where = f"router {name}"
        self.config = config
        self.clock = clock
        self._account = Account(config, config.connect_timeout, config.read_timeout)
        self._turn = count(random.randrange(len(config.endpoints)))  # noqa: S311 - so that not all begin with one

    def deadline(self) -> float:
        return self.clock.monotonic() + self.config.retry_for

    def read(self, controls: Collection[str], deadline: float) -> View:
        """What the first endpoint to answer says of `controls`; what it does not know is missing. Raises Failed."""
        return self._rotate(self.config.endpoints, lambda at: self._ask(at, controls, deadline), deadline, False)

    def views(self, controls: Collection[str], deadline: float) -> Mapping[Endpoint, View | Failed]:
        """What each endpoint says of `controls`, all asked at once."""

        def look(at: Endpoint) -> View | Failed:
            try:
                return self._ask(at, controls, deadline)
            except Failed as error:
                return error
            except ERRORS as error:
                what, then = words(error, f"ARC's endpoint in {at}")
                return Failed(what, where=self.where, next=then)

        with ThreadPoolExecutor(max_workers=len(self.config.endpoints)) as pool:
            return dict(zip(self.config.endpoints, pool.map(look, self.config.endpoints), strict=True))

    def update(self, states: Mapping[str, bool], endpoints: Sequence[Endpoint], deadline: float) -> None:
        """Set all of `states`, ten at most, or none, by one of `endpoints`. Writes.

        Source: UpdateRoutingControlStates.
        No safety rule is ever overridden. Raises Refused where one says no, Failed where nothing was written for
        another reason, Indeterminate where the answer to what was sent did not come.
        """
        entries: Any = [
            {"RoutingControlArn": control, "RoutingControlState": "On" if on else "Off"}
            for control, on in states.items()
        ]
        self._rotate(
            endpoints,
            lambda at: self._client(at).update_routing_control_states(UpdateRoutingControlStateEntries=entries),
            deadline,
            True,
        )

    def _ask(self, at: Endpoint, controls: Collection[str], deadline: float) -> View:
        client = self._client(at)
        if len(controls) > _FEW:
            return self._list(client, controls, deadline)
        view = {}
        for control in controls:
            self._in_time(deadline)
            try:
                found = client.get_routing_control_state(RoutingControlArn=control)
            except ERRORS as error:
                if code(error) == "ResourceNotFoundException":
                    continue
                raise
            view[control] = found["RoutingControlState"] == "On"
        return view

    def _list(self, client: Any, controls: Collection[str], deadline: float) -> View:
        wanted = set(controls)
        view: dict[str, bool] = {}
        token: dict[str, str] = {}
        while True:
            self._in_time(deadline)
            page = client.list_routing_controls(**token)
            view |= {
                each["RoutingControlArn"]: each["RoutingControlState"] == "On" for each in page["RoutingControls"]
            }
            if not page.get("NextToken"):
                return {control: on for control, on in view.items() if control in wanted}
            token = {"NextToken": page["NextToken"]}

    def _rotate(
        self, endpoints: Sequence[Endpoint], ask: Callable[[Endpoint], T], deadline: float, writes: bool
    ) -> T:
        reasons: dict[Endpoint, str] = {}
        for at in self._order(endpoints, deadline):
            try:
                return ask(at)
            except ERRORS as error:
                if not _another_may_answer(error, writes):
                    raise self._explained(error, at, writes) from None
                reasons[at] = code(error) or said(error)
        tried = "; ".join(f"{at}: {why}" for at, why in reasons.items()) or "there was no time left to ask one"
        raise Failed(
            f"no endpoint of the ARC cluster answers within {duration(self.config.retry_for)} ({tried})"
            f"{_unchanged(writes)}",
            where=self.where,
            next="check the network from here to them, and 'endpoints' against what DescribeCluster lists",
        )

    def _order(self, endpoints: Sequence[Endpoint], deadline: float) -> Iterator[Endpoint]:
        first = next(self._turn) % len(endpoints)
        for turn in range(_ROUNDS):
            if turn:
                self.clock.sleep(random.uniform(_PAUSE, 2 * _PAUSE))  # noqa: S311 - jitter
            for at in (*endpoints[first:], *endpoints[:first]):
                if self.clock.monotonic() > deadline:
                    return
                yield at

    def _client(self, at: Endpoint) -> Any:
        try:
            return self._account.client("route53-recovery-cluster", at.region, at.endpoint)
        except Failed as error:
            raise Failed(error.what, where=self.where, next=error.next) from None
        except ERRORS as error:
            what, then = words(error, "signing in to AWS")
            raise Failed(what, where=self.where, next=then) from None

    def _in_time(self, deadline: float) -> None:
        if self.clock.monotonic() > deadline:
            raise Failed(f"ARC did not answer within {duration(self.config.retry_for)}", where=self.where)

    def _explained(self, error: Exception, at: Endpoint, writes: bool) -> FailoverError:
        if code(error) == "ConflictException":
            return self._conflict(error)
        if writes and lost(error):
            return Indeterminate(
                f"a change of routing controls was sent to ARC's endpoint in {at}, but its answer was lost "
                f"({said(error)}); it may have been made or not",
                where=self.where,
                next="read the states back before anything else; resume does",
            )
        what, then = words(error, f"ARC's endpoint in {at}")
        return Failed(what + _unchanged(writes), where=self.where, next=then)

    def _conflict(self, error: Exception) -> FailoverError:
        answer: Mapping[str, Any] = getattr(error, "response", {})
        rule, kind = str(answer.get("resourceId", "")), str(answer.get("resourceType", ""))
        if "rule" not in f"{rule} {kind} {said(error)}".lower():
            return Failed(
                f"ARC says that this conflicts with another request: {said(error)}; nothing was written",
                where=self.where,
                next="see who else changes these routing controls at this moment, then try again",
            )
        return Refused(
            "safety-rule",
            f"ARC's safety rule {rule or 'of the control panel'} refuses it: {said(error)}; nothing was written",
            seen=(f"{kind} {rule}: {said(error)}",),
            where=self.where,
            next="bring back what the rule asks for first, or change the rule; to override it is for a person to do: "
            f"aws route53-recovery-cluster update-routing-control-states --safety-rules-to-override {rule or 'ARN'}",
        )


def _unchanged(writes: bool) -> str:
    return "; nothing was written" if writes else ""


def _another_may_answer(error: Exception, writes: bool) -> bool:
    """Whether it is right to go on to another endpoint: always for a read, but not where a write may be under way."""
    return code(error) in _ELSEWHERE or isinstance(error, _NOT_SENT) or (not writes and lost(error))
