"""AWS Application Recovery Controller: routing controls, one a region, each on or off.

The API has no compare-and-set. Directly before it writes, the router asks every endpoint of the cluster, and refuses
where one that answers does not say what is to be replaced; somebody may still come in between. What then keeps a
route from being off everywhere is an assertion rule of the control panel (ATLEAST 1): the API itself holds it.
A write goes only to an endpoint that has just answered.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, field_validator

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused, did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._arc_cluster import MOST_CONTROLS, ArcConfig, Cluster, Endpoint, View
from failover.routers._words import say
from failover.schema import Model
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import RouteChange, RouteState, Unknown

_ARN = re.compile(
    r"arn:[\w-]+:route53-recovery-control::\d{12}:controlpanel/[A-Za-z0-9]+/routingcontrol/[A-Za-z0-9]+"
)


class ArcRoute(Model):
    """Which routing control, by its ARN, lets traffic into each region."""

    controls: Mapping[str, str]

    @field_validator("controls")
    @classmethod
    def _arns(cls, controls: Mapping[str, str]) -> Mapping[str, str]:
        for arn in controls.values():
            if not _ARN.fullmatch(arn):
                raise ValueError(
                    f"'{arn}' is not a routing control's ARN; it looks like arn:aws:route53-recovery-control::"
                    "111122223333:controlpanel/0123456bbbbbbb0123456bbbbbb0123456/routingcontrol/abcdefg1234567"
                )
        return controls


class Arc:
    """Routing controls of one cluster."""

    Config: ClassVar[type[BaseModel]] = ArcConfig
    RouteConfig: ClassVar[type[BaseModel]] = ArcRoute
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: ArcConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = config.retry_for + config.longest
        self._routes = routes
        self._cluster = Cluster(name, config, clock)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Controls that are missing, unknown or shared, and a TTL or weights that a switch cannot have."""
        controls, weights = spec.config.controls, spec.route.weights
        if spec.route.ttl is not None:
            yield ("ttl",), "a routing control has no TTL; leave it out (the records behind it keep their own)"
        for region, weight in weights.items():
            if weight == 0:
                yield ("weights", region), "a routing control is on or off: a normal weight above 0 means on"
            if region not in controls:
                yield ("controls",), f"region '{region}' has no routing control; name its ARN here"
        owner: dict[str, str] = {}
        for region, arn in controls.items():
            if region not in weights:
                yield ("controls", region), f"this route has no region '{region}'{did_you_mean(region, weights)}"
            if (other := owner.setdefault(arn, region)) != region:
                yield (
                    ("controls", region),
                    f"this is the routing control of region '{other}' too; one drains the other",
                )

    def remarks(self, route: str) -> Sequence[str]:
        """Which other routes move with `route`, because they have a routing control in common."""
        own = set(self._controls([route]))
        others = [name for name in self._routes if name != route and own & set(self._controls([name]))]
        return (
            [f"{', '.join(others)} has a routing control in common with {route} and moves with it"] if others else []
        )

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """Asks one endpoint, the next where it does not answer. A region that is on has its normal weight, else 0."""
        try:
            view = self._cluster.read(self._controls(routes), self._cluster.deadline())
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))
        return {route: self._state(route, view) for route in routes}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes` by as few calls of ten controls each as there can be, one nearly always. Writes.

        Each call is all or nothing, and no route is split that fits into one. Raises Refused for what a switch or a
        safety rule does not allow, Conflict where an endpoint does not say `before`, Failed where nothing was written
        for another reason, Indeterminate where an answer was lost or where the calls before the failed one stand.
        """
        for change in changes:
            self._refuse(change)
        deadline = self._cluster.deadline()
        answering = self._expected(changes, deadline)
        batches = self._batches(changes)
        for number, (states, routes) in enumerate(batches):
            try:
                self._cluster.update(states, answering, deadline)
            except FailoverError as error:
                if number:
                    raise self._halfway(error, routes, [each for _, each in batches], number) from None
                raise
        return ""

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where more than half of all endpoints say `wanted` and none that answers says otherwise.

        Fail where all that answer agree on something else; unknown in between, with the endpoint's region.
        """
        views = self._cluster.views(self._controls([route]), self._cluster.deadline())
        states = {at: self._state(route, view) for at, view in views.items() if not isinstance(view, Failed)}
        silent = [f"{at}: {view.what}" for at, view in views.items() if isinstance(view, Failed)]
        most = len(states) * 2 > len(views)
        if not most:
            return unknown(f"{route}: only {len(states)} of {len(views)} ARC endpoints answer", *silent)
        others = {at: seen for at, seen in states.items() if seen != wanted}
        if not others:
            return passed(f"{route}: {len(states)} of {len(views)} ARC endpoints say {say(wanted)}")
        lines = [
            f"{route}: ARC's endpoint in {at} says {_said(seen)}, not {say(wanted)}" for at, seen in others.items()
        ]
        agree = len(others) == len(states) and len({_said(seen) for seen in others.values()}) == 1
        known = all(isinstance(seen, RouteState) for seen in others.values())
        return failed(*lines) if agree and known else unknown(*lines)

    def _controls(self, routes: Iterable[str]) -> Sequence[str]:
        return list(dict.fromkeys(arn for route in routes for arn in self._by_region(route).values()))

    def _by_region(self, route: str) -> Mapping[str, str]:
        spec = self._routes[route]
        return {region: spec.config.controls[region] for region in spec.route.weights}

    def _state(self, route: str, view: View) -> RouteState | Unknown:
        controls = self._by_region(route)
        if absent := [f"{arn} (region {region})" for region, arn in controls.items() if arn not in view]:
            return Unknown(f"the ARC cluster has no routing control {' or '.join(absent)}")
        normal = self._routes[route].route.weights
        return RouteState({region: normal[region] if view[arn] else 0 for region, arn in controls.items()})

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left with every routing control off",
                next="keep or restore one region first",
            )
        if change.after.ttl is not None:
            raise Refused(
                "ttl-unsupported",
                f"{change.resource} would get a TTL, which a routing control does not have",
                next="leave 'ttl' out of this route",
            )
        normal = self._routes[change.route].route.weights
        for region, weight in change.after.weights.items():
            if weight not in (0, normal[region]):
                raise Refused(
                    "weights-unsupported",
                    f"a routing control can only switch {region} on ({normal[region]}) or off (0), "
                    f"and {change.resource} would give it {weight}",
                    where=self._cluster.where,
                    next="drain in one stage (stages: [0]), or use a router that has weights",
                )

    def _expected(self, changes: Sequence[RouteChange], deadline: float) -> Sequence[Endpoint]:
        """The endpoints that answer, all of which say what each change is to replace."""
        views = self._cluster.views(self._controls([change.route for change in changes]), deadline)
        answering = {at: view for at, view in views.items() if not isinstance(view, Failed)}
        if not answering:
            silent = next(view for view in views.values() if isinstance(view, Failed))
            raise Failed(f"{silent.what}; nothing was written", where=silent.where, next=silent.next)
        for change in changes:
            seen = {at: self._state(change.route, view) for at, view in answering.items()}
            found = list(dict.fromkeys(_said(state) for state in seen.values()))
            if len(found) > 1:
                listed = "; ".join(f"{at}: {_said(state)}" for at, state in seen.items())
                raise Failed(
                    f"ARC's endpoints do not agree about {change.resource} ({listed}); nothing was written",
                    where=self._cluster.where,
                    next="somebody has just changed it: see who; they agree within seconds, then resume",
                )
            if found != [_said(change.before)]:
                raise Conflict(change.resource, say(change.before), found[0])
        return list(answering)

    def _batches(self, changes: Sequence[RouteChange]) -> list[tuple[dict[str, bool], list[str]]]:
        """What to set in each call, and by which routes. A route with more controls than a call is raised first."""
        batches: list[tuple[dict[str, bool], list[str]]] = []
        asked: dict[str, tuple[bool, str]] = {}
        for change in changes:
            states = {}
            for region, arn in self._by_region(change.route).items():
                on = change.after.weights[region] > 0
                other, route = asked.setdefault(arn, (on, change.route))
                if other is not on:
                    raise Failed(
                        f"{route} and {change.route} share a routing control and want it on and off at once",
                        where=self._cluster.where,
                        next="give each its own routing control, or move both alike",
                    )
                if on is not (change.before.weights[region] > 0):
                    states[arn] = on
            order = sorted(states, key=lambda arn: not states[arn])
            for start in range(0, len(order), MOST_CONTROLS):
                part = {arn: states[arn] for arn in order[start : start + MOST_CONTROLS]}
                if not batches or len(batches[-1][0] | part) > MOST_CONTROLS:
                    batches.append(({}, []))
                batches[-1][0].update(part)
                batches[-1][1].append(change.route)
        return batches

    def _halfway(
        self, error: FailoverError, routes: Sequence[str], batches: Sequence[Sequence[str]], number: int
    ) -> Indeterminate:
        done = ", ".join(dict.fromkeys(route for batch in batches[:number] for route in batch))
        left = ", ".join(dict.fromkeys(route for batch in batches[number + 1 :] for route in batch))
        what = "moved or not" if isinstance(error, Indeterminate) else "not moved"
        parts = [f"moved: {done}", f"{what}: {', '.join(routes)}"] + ([f"not moved: {left}"] if left else [])
        why = error.what.removesuffix("; nothing was written")
        return Indeterminate(
            f"call {number + 1} of {len(batches)} did not go through ({why}); {'; '.join(parts)}",
            where=self._cluster.where,
            next=error.next,
        )


def _said(state: RouteState | Unknown) -> str:
    return state.why if isinstance(state, Unknown) else say(state)
