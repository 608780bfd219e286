"""Route 53: weighted records, one record set per region.

A change is one ChangeResourceRecordSets batch that deletes a route's record sets exactly as they were read and
creates them anew. The API makes all of a batch or nothing, and refuses to delete what is not exactly so: that is
the compare-and-set. It is also the only way to change the TTL of a weighted group, whose members must agree.
Sources: API_ChangeResourceRecordSets, API_ListResourceRecordSets and API_GetChange of the Route 53 API Reference.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import Mistake, RouteSpec
from failover.routers._answers import allows, ask_all
from failover.routers._dns import Server
from failover.routers._route53_api import Api, Rejected, Route53Config
from failover.routers._route53_batch import BATCH_CHARACTERS, BATCH_RECORDS, Move, fits, pack
from failover.routers._route53_group import WEIGHT_LIMIT, Group, Route53Route, grouped, mistakes, plain
from failover.routers._route53_heard import heard
from failover.routers._words import names, say
from failover.units import duration
from failover.verdict import Outcome, Verdict, failed, passed, unknown, worst
from failover.world import RouteChange, RouteState, Unknown

_ROUNDS = 3
_STILL_NEWS = 1.0
_USUALLY_IN_SYNC = 60.0


class Route53:
    """Weighted records of one hosted zone, public or private."""

    Config: ClassVar[type[BaseModel]] = Route53Config
    RouteConfig: ClassVar[type[BaseModel]] = Route53Route
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: Route53Config, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self._routes = routes
        self._api = Api(name, config, clock)
        self.write_timeout = self._api.budget(self._records(routes)) + config.longest
        self._groups: dict[str, Group] = {}
        self._own: dict[str, str] = {}
        self._pending: dict[str, tuple[float, float]] = {}
        self._in_sync: set[str] = set()
        self._servers: tuple[Server, ...] | None = config.name_servers or None
        self._guard = threading.Lock()
        self._asking = threading.Lock()

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Weights, TTL and set identifiers that Route 53 cannot hold."""
        return mistakes(spec)

    def weight_limit(self, route: str) -> int:  # noqa: ARG002 - the port's signature
        """The same for every route: a weight is one octet."""
        return WEIGHT_LIMIT

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """The weights and TTL of each of `routes`; Unknown where the records are not one weighted set per region."""
        try:
            groups = self._look(routes, self._api.deadline(self._records(routes)))
        except Failed as error:
            return dict.fromkeys(routes, Unknown(error.what))
        return {route: group if isinstance(group, Unknown) else group.state for route, group in groups.items()}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Make `changes` in as few batches as the API's limits allow, one nearly always. Writes.

        Each batch is all or nothing, and no route is split. The receipt holds Route 53's change ids; it is empty if
        nothing moved. Raises Refused for weights that must not be, Conflict where a record is not as `before` says,
        Failed where nothing was written for another reason, Indeterminate where an answer was lost, or where batches
        before the one that failed stand; it names what was moved and what was not.
        """
        for change in changes:
            self._refuse(change)
        deadline = self._api.deadline(self._records([change.route for change in changes]))
        batches = pack(self._moves(changes, deadline))
        receipts: list[str] = []
        for number, batch in enumerate(batches):
            try:
                receipts.append(self._send(batch, deadline, number))
            except FailoverError as error:
                if number:
                    raise self._halfway(error, batches, number) from None
                raise
        return " ".join(receipt for receipt in receipts if receipt)

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:
        """Pass where Route 53 says INSYNC and every name server answers without the drained regions, TTL in bounds.

        Weighted answers are drawn, so each server is asked several times. The zone of a private router has no name
        servers to ask but those that it declares; without them its resolvers are asked. Fail where the records are
        no longer `wanted`; unknown, with the server's name, where one does not answer so yet.
        """
        deadline = self._api.deadline()
        try:
            if waiting := self._waiting(route, receipt, deadline):
                return unknown(f"{route}: {waiting}")
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
        resolvers = () if servers else self.config.resolvers
        if not servers and not resolvers:
            why = f"{route}: the zone is private and the router has neither 'name_servers' nor 'resolvers' to ask"
            return passed(*in_sync, why) if receipt else unknown(why)
        seen = worst(self._answers(route, group, wanted, servers, resolvers).values())
        return passed(*in_sync, *seen.evidence) if seen.passed else unknown(*seen.evidence)

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """Whether each name server and each declared resolver answers `wanted` now. Never raises."""
        deadline = self._api.deadline()
        try:
            group = self._groups.get(route) or self._look([route], deadline)[route]
            servers = self._name_servers(deadline)
        except Failed as error:
            return {f"router {self.name}": unknown(f"{route}: {error.what}")}
        if isinstance(group, Unknown):
            return {f"router {self.name}": unknown(f"{route}: {group.why}")}
        return self._answers(route, group, wanted, servers, self.config.resolvers)

    def _records(self, routes: Iterable[str]) -> int:
        specs = [self._routes[route] for route in routes]
        return sum(len(spec.route.weights) * len(spec.config.type) for spec in specs)

    def _look(self, routes: Sequence[str], deadline: float) -> Mapping[str, Group | Unknown]:
        keys = [key for route in routes for key in self._routes[route].config.keys]
        found = self._api.record_sets(keys, deadline)
        groups = {route: grouped(self._routes[route], found, self.config.zone) for route in routes}
        with self._guard:
            self._groups.update({route: group for route, group in groups.items() if isinstance(group, Group)})
        return groups

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

    def _moves(self, changes: Sequence[RouteChange], deadline: float) -> list[Move]:
        """What has to move for `changes`. Raises Conflict where a record is not as `before` says."""
        found = self._look([change.route for change in changes], deadline)
        exact = self._api.exact()
        moves = []
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
            move = Move(change, group, group.at(change.after), exact)
            if not fits(move.size):
                raise Failed(
                    f"{change.resource} alone is larger than one batch of Route 53 may be ({BATCH_RECORDS} records, "
                    f"{BATCH_CHARACTERS} characters); nothing was written",
                    where=self._api.where,
                    next="give its record sets fewer values",
                )
            if move.after != move.before:
                moves.append(move)
        return moves

    def _send(self, moves: Sequence[Move], deadline: float, number: int) -> str:
        sent: list[dict[str, Any]] = []
        refusal = ""
        # A re-read has to be just before its write; the batches before this one have taken their time.
        fresh = number == 0 or moves[0].exact
        for _ in range(_ROUNDS):
            if not fresh:
                moves = self._moves([move.change for move in moves], deadline)
            batch = [item for move in moves for item in move.items()]
            if not batch:
                return ""
            if batch == sent:
                break
            try:
                receipt = self._api.change(batch, "failover: " + moves[0].change.reason, deadline)
            except Rejected as error:
                sent, refusal, fresh = batch, str(error), False
                continue
            with self._guard:
                self._groups.update({move.change.route: move.after for move in moves})
                self._own.update({move.change.route: receipt for move in moves})
            return receipt
        raise Failed(
            f"Route 53 refused the change of zone {self.config.zone}: {refusal}; nothing was written",
            where=self._api.where,
            next="the records are what was expected, so correct what it names",
        )

    def _halfway(self, error: FailoverError, batches: Sequence[Sequence[Move]], number: int) -> Indeterminate:
        moved = [move.change.route for batch in batches[:number] for move in batch]
        doubtful = [move.change.route for move in batches[number]] if isinstance(error, Indeterminate) else []
        later = batches[number + bool(doubtful) :]
        left = [move.change.route for batch in later for move in batch]
        parts = [f"moved: {names(moved)}"]
        parts += [f"moved or not: {names(doubtful)}"] if doubtful else []
        parts += [f"not moved: {names(left)}"] if left else []
        why = error.what.removesuffix("; nothing was written")
        return Indeterminate(
            f"batch {number + 1} of {len(batches)} did not go through ({why}); {'; '.join(parts)}",
            where=self._api.where,
            next=error.next,
        )

    def _waiting(self, route: str, receipt: str, deadline: float) -> str:
        """What of `receipt` is still PENDING; empty where all that concerns `route` is INSYNC."""
        ids = receipt.split()
        ids = [own] if (own := self._own.get(route)) in ids and own else ids
        with self._asking:
            for change in ids:
                if change in self._in_sync:
                    continue
                now = self.clock.monotonic()
                since, asked = self._pending.get(change, (now, now - _STILL_NEWS))
                # All routes of a batch share one change; asking for each would spend the account's calls.
                if now - asked >= _STILL_NEWS:
                    if self._api.in_sync(change, deadline):
                        self._in_sync.add(change)
                        continue
                    self._pending[change] = (since, self.clock.monotonic())
                long = now - since > _USUALLY_IN_SYNC
                more = (
                    f" for {duration(now - since)}; a minute is usual: see the AWS Health Dashboard" if long else ""
                )
                return f"Route 53's change {change} is PENDING{more}"
        return ""

    def _name_servers(self, deadline: float) -> tuple[Server, ...]:
        if self._servers is None:
            self._servers = self._api.name_servers(deadline)
        return self._servers

    def _answers(
        self,
        route: str,
        group: Group,
        wanted: RouteState,
        servers: Sequence[Server],
        resolvers: Sequence[Server],
    ) -> Mapping[str, Verdict]:
        config, timeout = self._routes[route].config, self.config.dns_timeout
        on = [region for region, weight in wanted.weights.items() if weight]

        def authoritative(at: Server) -> Verdict:
            return _all(heard(at, config.record, kind, group.values(kind), wanted, timeout) for kind in config.type)

        def cached(at: Server) -> Verdict:
            return _all(self._allowed(at, config, kind, group, on) for kind in config.type)

        return ask_all(servers, resolvers, authoritative, cached)

    def _allowed(self, at: Server, config: Route53Route, kind: str, group: Group, on: Sequence[str]) -> Verdict:
        values, timeout = group.values(kind), self.config.dns_timeout
        return allows(at, config.record, kind, values, on, timeout, lambda record: plain(kind, record.to_text()))


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    """The first that is no pass, without asking further; else a pass with what all of them saw."""
    lines: list[str] = []
    for verdict in verdicts:
        if verdict.outcome is not Outcome.PASS:
            return verdict
        lines += verdict.evidence
    return passed(*lines)
