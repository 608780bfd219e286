"""Route 53: weighted records, one record set per region.

A change is one ChangeResourceRecordSets batch that deletes a route's record sets exactly as they were read and
creates them anew. The API makes all of a batch or nothing, and refuses to delete what is not exactly so: that is
the compare-and-set. It is also the only way to change the TTL of a weighted group, whose members must agree.
Sources: API_ChangeResourceRecordSets, API_ListResourceRecordSets and API_GetChange of the Route 53 API Reference.
"""

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from pydantic import BaseModel, field_validator

from failover.clock import Clock
from failover.errors import Conflict, Failed, Refused, did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._dns import Server, Unanswered, answer, ask, each
from failover.routers._route53_api import Api, RecordSet, Rejected, Route53Config, canonical
from failover.routers._words import say
from failover.schema import Model
from failover.verdict import Verdict, failed, passed, unknown, worst
from failover.world import RouteChange, RouteState, Unknown

WEIGHT_LIMIT = 255
LONGEST_TTL = 2**31 - 1
BATCH_RECORDS, BATCH_CHARACTERS = 1000, 32_000
_LABEL = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_ROUNDS = 3
_SAMPLES = 8
_STILL_NEWS = 1.0
_SURELY_SEEN = 0.01


class Route53Route(Model):
    """A weighted record. `set_identifiers` names a region's record set where it is not called like the region."""

    record: str
    type: Literal["A", "AAAA", "CNAME"] = "A"
    set_identifiers: Mapping[str, str] = {}

    @field_validator("record")
    @classmethod
    def _fully_qualified(cls, record: str) -> str:
        labels = record.removesuffix(".").split(".")
        if len(record) > 254 or len(labels) < 2 or not all(len(x) < 64 and _LABEL.fullmatch(x) for x in labels):
            raise ValueError(f"'{record}' is not a full domain name; it looks like shop.example.com.")
        return canonical(record)


@dataclass(frozen=True)
class Group:
    """The record sets of one route by region, as the API lists them."""

    sets: Mapping[str, RecordSet]

    @property
    def state(self) -> RouteState:
        """Weights, and the highest TTL that any of them has; alias records have none."""
        ttls = [record["TTL"] for record in self.sets.values() if "TTL" in record]
        return RouteState({region: record["Weight"] for region, record in self.sets.items()}, max(ttls, default=None))

    def at(self, state: RouteState) -> "Group":
        """The same record sets, whole, with only weight and TTL as `state` has them."""
        moved = {}
        for region, record in self.sets.items():
            ttl = {"TTL": state.ttl} if "TTL" in record and state.ttl is not None else {}
            moved[region] = {**record, "Weight": state.weights[region], **ttl}
        return Group(moved)

    def values(self, region: str) -> frozenset[str]:
        """The record data that an answer from `region` holds; empty for an alias, whose target decides."""
        record = self.sets[region]
        return frozenset(_plain(record["Type"], each["Value"]) for each in record.get("ResourceRecords", ()))


class Route53:
    """Weighted records of one hosted zone."""

    Config: ClassVar[type[BaseModel]] = Route53Config
    RouteConfig: ClassVar[type[BaseModel]] = Route53Route
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: Route53Config, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.write_timeout = config.retry_for + config.connect_timeout + config.read_timeout
        self._routes = routes
        self._api = Api(name, config, clock)
        self._groups: dict[str, Group] = {}
        self._in_sync: dict[str, tuple[bool, float]] = {}
        self._servers: tuple[Server, ...] | None = config.name_servers or None
        self._guard = threading.Lock()
        self._asking = threading.Lock()

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Weights, TTL and set identifiers that Route 53 cannot hold."""
        weights, config = spec.route.weights, spec.config
        whole = sum(weights.values())
        if whole > WEIGHT_LIMIT:
            yield (
                ("weights",),
                f"the weights add up to {whole}; {WEIGHT_LIMIT} is Route 53's limit, and one region may have to "
                "take all of it: use smaller weights in the same proportion",
            )
        if spec.route.ttl is not None and spec.route.ttl > LONGEST_TTL:
            yield ("ttl",), f"Route 53 takes a TTL up to {LONGEST_TTL} s"
        for region in config.set_identifiers:
            if region not in weights:
                near = did_you_mean(region, weights)
                yield ("set_identifiers", region), f"this route has no region '{region}'{near}"
        names = _identifiers(spec)
        for region, identifier in names.items():
            if not 1 <= len(identifier) <= 128:
                yield ("set_identifiers", region), "a set identifier has 1 to 128 characters"
        if len(set(names.values())) < len(names):
            yield ("set_identifiers",), "two regions have the same set identifier; each needs its own"

    def weight_limit(self, route: str) -> int:  # noqa: ARG002 - the port's signature
        """The same for every route: a weight is one octet."""
        return WEIGHT_LIMIT

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The weights and TTL of each of `routes`; Unknown where the records are not one weighted set per region."""
        try:
            groups = self._look(routes, self._api.deadline())
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))
        return {route: group if isinstance(group, Unknown) else group.state for route, group in groups.items()}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make all of `changes` or none, in one batch; the receipt is Route 53's change id, empty if nothing moved.

        Raises Refused for weights that must not be, Conflict where a record is not as `before` says, Failed where
        nothing was written for another reason, Indeterminate where the answer was lost. Writes.
        """
        for change in changes:
            self._refuse(change)
        deadline = self._api.deadline()
        sent: list[dict[str, Any]] = []
        refusal = ""
        for _ in range(_ROUNDS):
            before = self._expected(changes, deadline)
            after = {change.route: before[change.route].at(change.after) for change in changes}
            batch = self._batch([(before[r], group) for r, group in after.items() if group != before[r]])
            if not batch:
                return ""
            if batch == sent:
                break
            try:
                receipt = self._api.change(batch, "failover: " + changes[0].reason, deadline)
            except Rejected as error:
                sent, refusal = batch, str(error)
                continue
            with self._guard:
                self._groups.update(after)
            return receipt
        raise Failed(
            f"Route 53 refused the change of zone {self.config.zone}: {refusal}; nothing was written",
            where=f"router {self.name}",
            next="the records are what was expected, so correct what it names",
        )

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:
        """Pass where Route 53 says INSYNC and every name server answers without the drained regions, TTL in bounds.

        Weighted answers are drawn, so each server is asked several times. Fail where the records are no longer
        `wanted`; unknown, with the server's name, where one does not answer so yet.
        """
        deadline = self._api.deadline()
        try:
            if receipt and not self._synced(receipt, deadline):
                return unknown(f"{route}: Route 53's change {receipt} is PENDING")
            group = self._groups.get(route) if receipt else None
            if group is None or group.state != wanted:
                found = self._look([route], deadline)[route]
                if isinstance(found, Unknown):
                    return unknown(f"{route}: {found.why}")
                group = found
            servers = self._name_servers(deadline)
        except Failed as error:
            return unknown(f"{route}: {error.what}")
        if group.state != wanted:
            return failed(f"{route}: Route 53 has {say(group.state)}, not {say(wanted)}")
        in_sync = (f"{route}: Route 53's change {receipt} is INSYNC",) if receipt else ()
        if not servers:
            why = f"{route}: the zone is private and the router has no 'name_servers', so none could be asked"
            return passed(*in_sync, why) if receipt else unknown(why)
        config = self._routes[route].config
        seen = worst(each(servers, lambda at: self._answers(at, config, group, wanted)))
        return passed(*in_sync, *seen.evidence) if seen.passed else seen

    def _look(self, routes: Sequence[str], deadline: float) -> Mapping[str, Group | Unknown]:
        keys = {route: (self._routes[route].config.record, self._routes[route].config.type) for route in routes}
        found = self._api.record_sets(keys.values(), deadline)
        groups = {route: self._grouped(self._routes[route], found[key]) for route, key in keys.items()}
        with self._guard:
            self._groups.update({route: group for route, group in groups.items() if isinstance(group, Group)})
        return groups

    def _grouped(self, spec: RouteSpec, records: Sequence[RecordSet]) -> Group | Unknown:
        what = f"{spec.config.record} {spec.config.type} in zone {self.config.zone}"
        if not records:
            return Unknown(f"there is no record {what}")
        if any("Weight" not in record for record in records):
            return Unknown(f"record {what} is not weighted; it needs one weighted record set per region")
        names = _identifiers(spec)
        by_name = {record["SetIdentifier"]: record for record in records}
        if absent := [f"'{name}' (region {region})" for region, name in names.items() if name not in by_name]:
            there = ", ".join(f"'{name}'" for name in by_name)
            return Unknown(f"record {what} has no set identifier {' or '.join(absent)}; it has {there}")
        if alien := [f"'{name}'" for name in by_name if name not in names.values()]:
            return Unknown(f"record {what} has a set identifier that belongs to no region: {', '.join(alien)}")
        return Group({region: by_name[name] for region, name in names.items()})

    def _refuse(self, change: RouteChange) -> None:
        weights = change.after.weights
        if not any(weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any region that takes traffic; "
                "Route 53 would then answer with all of them",
                next="keep or restore one region first",
            )
        for region, weight in weights.items():
            if not 0 <= weight <= WEIGHT_LIMIT:
                raise Refused(
                    "weight-limit",
                    f"{change.resource} would give {region} {weight}; Route 53 takes weights from 0 to "
                    f"{WEIGHT_LIMIT}",
                    next="use smaller normal weights in the same proportion",
                )

    def _expected(self, changes: Sequence[RouteChange], deadline: float) -> Mapping[str, Group]:
        groups = {}
        found = self._look([change.route for change in changes], deadline)
        for change in changes:
            group = found[change.route]
            if isinstance(group, Unknown):
                raise Conflict(change.resource, say(change.before), group.why)
            if group.state != change.before:
                raise Conflict(change.resource, say(change.before), say(group.state))
            if change.after.ttl is not None and group.state.ttl is None:
                raise Refused(
                    "ttl-unsupported",
                    f"{change.resource} would get a TTL, but its records are aliases, whose targets set it",
                    next="leave 'ttl' out of this route",
                )
            groups[change.route] = group
        return groups

    def _batch(self, moves: Sequence[tuple[Group, Group]]) -> list[dict[str, Any]]:
        batch: list[dict[str, Any]] = []
        for before, after in moves:
            if self.config.exact:
                batch += [{"Action": "DELETE", "ResourceRecordSet": record} for record in before.sets.values()]
            action = "CREATE" if self.config.exact else "UPSERT"
            batch += [{"Action": action, "ResourceRecordSet": record} for record in after.sets.values()]
        twice = 1 if self.config.exact else 2
        values = [v["Value"] for item in batch for v in item["ResourceRecordSet"].get("ResourceRecords", ())]
        if len(values) * twice > BATCH_RECORDS or sum(map(len, values)) * twice > BATCH_CHARACTERS:
            raise Failed(
                f"the change of {len(moves)} routes is larger than one batch of Route 53 may be ({BATCH_RECORDS} "
                f"records, {BATCH_CHARACTERS} characters); nothing was written",
                where=f"router {self.name}",
                next="move fewer services at a time",
            )
        return batch

    def _synced(self, change: str, deadline: float) -> bool:
        with self._asking:
            done, asked = self._in_sync.get(change, (False, -_STILL_NEWS))
            # All routes of a batch share one change; asking for each would spend the account's five calls a second.
            if not done and self.clock.monotonic() - asked >= _STILL_NEWS:
                done = self._api.in_sync(change, deadline)
                self._in_sync[change] = (done, self.clock.monotonic())
            return done

    def _name_servers(self, deadline: float) -> tuple[Server, ...]:
        if self._servers is None:
            self._servers = self._api.name_servers(deadline)
        return self._servers

    def _answers(self, at: Server, config: Route53Route, group: Group, wanted: RouteState) -> Verdict:
        values = {region: group.values(region) for region in group.sets}
        on = {region for region, weight in wanted.weights.items() if weight}
        served = frozenset[str]().union(*(values[region] for region in on))
        aliased = any(not values[region] for region in values)
        seen: set[str] = set()
        for _ in range(_SAMPLES):
            try:
                records = answer(
                    ask(at, config.record, config.type, self.config.dns_timeout), config.record, config.type
                )
            except Unanswered as error:
                return unknown(str(error))
            if records is None:
                return unknown(f"{at} has no {config.record} {config.type}")
            said = {_plain(config.type, record.to_text()) for record in records}
            for region in values:
                if region not in on and said & (values[region] - served):
                    return unknown(f"{at} still answers {', '.join(sorted(said))}, which is {region}")
            if not said <= served and not aliased:
                return unknown(f"{at} answers {', '.join(sorted(said))}, which belongs to no region")
            if said <= served and wanted.ttl is not None and records.ttl > wanted.ttl:
                return unknown(f"{at} still answers with TTL {records.ttl} s, wanted {wanted.ttl} s")
            seen |= {region for region in on if said & values[region]}
        whole = sum(wanted.weights.values())
        for region in on - seen:
            if values[region] and (1 - wanted.weights[region] / whole) ** _SAMPLES < _SURELY_SEEN:
                return unknown(f"{at} did not answer with {region} in {_SAMPLES} answers")
        return passed(f"{at} answers so: {', '.join(sorted(on))}")


def _identifiers(spec: RouteSpec) -> Mapping[str, str]:
    return {region: spec.config.set_identifiers.get(region, region) for region in spec.route.weights}


def _plain(kind: str, value: str) -> str:
    text = canonical(value) if kind == "CNAME" else value
    try:
        data = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)
    except dns.exception.DNSException:
        return text
    return data.to_text()
