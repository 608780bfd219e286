"""PowerDNS: LUA records that answer with one address, picked at random by weight.

The API has no compare-and-set (PowerDNS/pdns issue 6247). So a write reads again just before its PATCH, leaves a mark
of its own in the record set's comments, waits for `race_window`, and reads a third time: of several writers of this
product in the same moment the last one wins and the others are told so, as long as each gets from reading to writing
within that window. Another tool's change that falls between the reading and the PATCH, some milliseconds, is
overwritten; `remarks` says so before anybody agrees.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import Mistake, RouteSpec
from failover.routers._answers import agreed, allows, ask_all
from failover.routers._dns import Server, answer, ask
from failover.routers._powerdns_api import Api, PowerDnsConfig, kept, mark, marked
from failover.routers._powerdns_lua import WEIGHT_LIMIT, NotOurs, PowerDnsRoute
from failover.routers._words import say
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import RouteChange, RouteState, Unknown

_SAMPLES = 4
_SHADOWS = ("A", "AAAA", "CNAME", "ALIAS")
"""Types whose records would be answered beside a LUA record, or in its place."""
Rrsets = Mapping[str, Mapping[str, Any]]
"""The record sets at one name by type, as the API has them."""


class PowerDns:
    """LUA records of one zone, a weight per region."""

    Config: ClassVar[type[BaseModel]] = PowerDnsConfig
    RouteConfig: ClassVar[type[BaseModel]] = PowerDnsRoute
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: PowerDnsConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = 6 * config.timeout + config.race_window
        self._routes = routes
        self._api = Api(name, config, clock)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Addresses that are missing, shared or none, and weights that a LUA record cannot hold."""
        config: PowerDnsRoute = spec.config
        return config.mistakes(spec.route.weights)

    def weight_limit(self, route: str) -> int:  # noqa: ARG002 - the port's signature
        """The same for every route."""
        return WEIGHT_LIMIT

    def remarks(self, route: str) -> Sequence[str]:
        """What the API cannot do."""
        record = self._config(route).record
        return (
            f"PowerDNS's API compares nothing before it writes: leave {record} alone with other tools meanwhile, "
            "since a change of theirs in the same moment would be overwritten.",
        )

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The weights and TTL of each of `routes`; Unknown where its LUA record is not as this router writes it."""
        try:
            found, _ = self._look(routes)
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))
        return {route: self._state(route, found[self._config(route).record]) for route in routes}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes` by one PATCH, all or none. Writes. The receipt is the zone's serial after it.

        Raises Refused for weights that cannot be given, Conflict where a record is not as `before` says or was
        changed by somebody else in the same moment, Failed where the server refused, and Indeterminate where its
        answer was lost or only a part still stands.
        """
        for change in changes:
            self._refuse(change)
        found, zone = self._look([change.route for change in changes])
        for change in changes:
            self._compare(change, found)
        moved = [change for change in changes if change.before != change.after]
        if not moved:
            return str(zone["serial"])
        if not zone.get("soa_edit_api") and len(self.config.name_servers) > 1:
            raise self._api.failed(
                f"does not raise the serial of {self.config.zone} with a change, so that its secondaries would not "
                "learn of it; nothing was written",
                f"pdnsutil set-meta {self.config.zone} SOA-EDIT-API DEFAULT, or set soa_edit_api by the API",
            )
        self._refuse_to_delete(moved)
        token = uuid.uuid4().hex[:12]
        problem = self._api.replace(self._rrsets(moved, found, token))
        self.clock.sleep(self.config.race_window)
        serial = self._verify(moved, token, problem)
        told = self._api.notify() if self.config.notify else ""
        return f"{serial} {told}".rstrip()

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:
        """Pass where the API has `wanted` and every name server has that serial of the zone and answers so.

        Unknown where one does not yet; the evidence names it.
        """
        try:
            found, zone = self._look([route])
        except Failed as error:
            return unknown(error.what)
        state = self._state(route, found[self._config(route).record])
        if state != wanted:
            return unknown(f"{self.config.url} has {state}, wanted {wanted}")
        serial, _, told = receipt.partition(" ")
        look = partial(self._answers, route, wanted, int(serial) if serial.isdecimal() else zone["serial"])
        verdict = agreed(ask_all(self.config.name_servers, (), look, look).values())
        if told and not verdict.passed:
            said = f"the secondaries were not notified ({told}); pdns_control notify {self.config.zone} does it"
            return unknown(*verdict.evidence, said)
        return verdict

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """What each name server and each resolver answers now, all asked at once."""
        config = self._config(route)
        problem, serial = "", 0
        try:
            found, zone = self._look([route])
            serial = zone["serial"]
            if (state := self._state(route, found[config.record])) != wanted:
                problem = f"{self.config.url} has {state}, wanted {wanted}"
        except Failed as error:
            problem = error.what
        known = partial(self._answers, route, wanted, serial)
        on = [region for region, weight in wanted.weights.items() if weight]
        return ask_all(
            self.config.name_servers,
            self.config.resolvers,
            # A few answers look alike at many weights: without the API nobody can say that these are the wanted ones.
            (lambda at: _doubt(known(at), problem)) if problem else known,
            lambda at: allows(at, config.record, config.type, config.values, on, self.config.dns_timeout),
        )

    def _config(self, route: str) -> PowerDnsRoute:
        config: PowerDnsRoute = self._routes[route].config
        return config

    def _look(self, routes: Sequence[str]) -> tuple[Mapping[str, Rrsets], Mapping[str, Any]]:
        """The record sets at each route's name, and the zone itself as it was before the first. Raises Failed."""
        end = self.clock.monotonic() + 2 * self.config.timeout
        found: dict[str, Rrsets] = {}
        zones = []
        for record in dict.fromkeys(self._config(route).record for route in routes):
            zones.append(self._api.zone(record, end - self.clock.monotonic()))
            found[record] = {each["type"]: each for each in zones[-1]["rrsets"] if each["name"].lower() == record}
        return found, zones[0] if zones else self._api.zone("", self.config.timeout)

    def _state(self, route: str, rrsets: Rrsets) -> RouteState | Unknown:
        config = self._config(route)
        rrset = rrsets.get("LUA", {"records": []})
        own = [record for record in rrset["records"] if record["content"].split(" ")[0] == config.type]
        if shadow := [kind for kind in _SHADOWS if kind in rrsets]:
            return Unknown(f"{config.record} has records of type {', '.join(shadow)} beside its LUA record")
        if not own:
            normal = config.content(self._routes[route].route.weights)
            return Unknown(f"there is no LUA record of type {config.type} at {config.record}; make one: LUA {normal}")
        shown = " and ".join(record["content"] for record in own)
        if len(own) > 1:
            return Unknown(f"{config.record} has {len(own)} LUA records of type {config.type}: {shown}")
        if own[0].get("disabled"):
            return Unknown(f"the LUA record at {config.record} is disabled: {shown}")
        try:
            weights = config.weights(shown, self._routes[route].route.weights)
        except NotOurs as error:
            return Unknown(f"the LUA record at {config.record} {error}: {shown}")
        return RouteState(weights, rrset["ttl"])

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any address",
                next="keep or restore one region first",
            )
        for region, weight in change.after.weights.items():
            if not 0 <= weight <= WEIGHT_LIMIT:
                raise Refused(
                    "weight-limit",
                    f"{change.resource} would give {region} {weight}; this router gives weights up to {WEIGHT_LIMIT}",
                    where=self._api.where,
                    next="use smaller normal weights in the same proportion",
                )

    def _compare(self, change: RouteChange, found: Mapping[str, Rrsets]) -> None:
        state = self._state(change.route, found[self._config(change.route).record])
        if isinstance(state, Unknown):
            raise Conflict(change.resource, say(change.before), state.why)
        if state != change.before:
            raise Conflict(change.resource, say(change.before), say(state))

    def _refuse_to_delete(self, changes: Sequence[RouteChange]) -> None:
        end = self.clock.monotonic() + self.config.timeout
        for record in dict.fromkeys(self._config(change.route).record for change in changes):
            hidden = self._api.disabled(record, "LUA", end - self.clock.monotonic())
            if hidden:
                raise self._api.failed(
                    f"has disabled LUA records at {record}, which a change would delete: {' and '.join(hidden)}; "
                    "nothing was written",
                    "delete them or enable them",
                )

    def _rrsets(
        self, changes: Sequence[RouteChange], found: Mapping[str, Rrsets], token: str
    ) -> Sequence[Mapping[str, Any]]:
        """The LUA record sets as `changes` make them, with everything in them that is somebody else's."""
        made: dict[str, dict[str, Any]] = {}
        for change in changes:
            config = self._config(change.route)
            there = found[config.record]["LUA"]
            whole = made.setdefault(
                config.record,
                {
                    "name": config.record,
                    "type": "LUA",
                    "ttl": None,
                    "records": list(there["records"]),
                    "comments": [*kept(there.get("comments", ())), *mark(token)],
                },
            )
            ttl = there["ttl"] if change.after.ttl is None else change.after.ttl
            others = {record["content"].split(" ")[0] for record in there["records"]}
            ours = {
                self._config(each.route).type for each in changes if self._config(each.route).record == config.record
            }
            if whole["ttl"] not in (None, ttl) or (ttl != there["ttl"] and others - ours):
                raise Refused(
                    "ttl-shared",
                    f"{change.resource} would change the TTL of all LUA records at {config.record}, and not all of "
                    "them are to change so",
                    where=self._api.where,
                    next="give the routes of one name the same 'ttl' and move them together, or leave 'ttl' out",
                )
            whole["ttl"] = ttl
            whole["records"] = [
                {"content": config.content(change.after.weights), "disabled": False}
                if record["content"].split(" ")[0] == config.type
                else record
                for record in whole["records"]
            ]
        return list(made.values())

    def _verify(self, changes: Sequence[RouteChange], token: str, problem: FailoverError | None) -> int:
        """The zone's serial, where all of `changes` still stand as this write made them."""
        try:
            found, zone = self._look([change.route for change in changes])
        except Failed as error:
            raise Indeterminate(
                f"a change was sent and cannot be read back: {error.what}", where=error.where, next=error.next
            ) from None
        lost: list[tuple[RouteChange, RouteState | Unknown]] = []
        stand: list[RouteChange] = []
        for change in changes:
            rrsets = found[self._config(change.route).record]
            mine = marked(rrsets.get("LUA", {}).get("comments", ()), token)
            state = self._state(change.route, rrsets)
            if mine and state == change.after:
                stand.append(change)
            else:
                lost.append((change, state))
        if not lost:
            return int(zone["serial"])
        if stand:
            raise Indeterminate(
                f"written: {', '.join(change.route for change in stand)}; changed by somebody else in the same "
                f"moment: {', '.join(change.route for change, _ in lost)}",
                where=self._api.where,
                next="find out who else writes to this zone; resume reads what is there and plans again",
            )
        change, state = next(((each, seen) for each, seen in lost if seen != each.before), lost[0])
        if problem is not None and state == change.before:
            raise problem
        seen = state.why if isinstance(state, Unknown) else say(state)
        raise Conflict(change.resource, say(change.before), seen)

    def _answers(self, route: str, wanted: RouteState, serial: int, at: Server) -> Verdict:
        config, timeout = self._config(route), self.config.dns_timeout
        soa = answer(ask(at, self.config.zone, "SOA", timeout), self.config.zone, "SOA")
        if not soa:
            return failed(f"{at} does not answer for zone {self.config.zone}")
        if serial and (soa[0].serial - serial) % 2**32 >= 2**31:
            return failed(f"{at} still has serial {soa[0].serial} of {self.config.zone}, wanted {serial}")
        owners = {value: region for region, own in config.values.items() for value in own}
        seen: set[str] = set()
        for _ in range(_SAMPLES):
            records = answer(ask(at, config.record, config.type, timeout), config.record, config.type)
            if not records:
                return failed(f"{at} answers no {config.record} {config.type}; is enable-lua-records on there?")
            for text in sorted(record.to_text() for record in records):
                region = owners.get(text)
                if region is None or not wanted.weights.get(region):
                    whose = f"which is {region}" if region else "which belongs to no region"
                    return failed(f"{at} still answers {text}, {whose}")
                seen.add(text)
            if wanted.ttl is not None and records.ttl > wanted.ttl:
                return failed(f"{at} still answers with TTL {records.ttl} s, wanted {wanted.ttl} s")
        return passed(f"{at} has serial {soa[0].serial} and answers {', '.join(sorted(seen))}")


def _doubt(verdict: Verdict, problem: str) -> Verdict:
    return unknown(*verdict.evidence, problem) if verdict.passed else verdict
