"""Mode `redirect`: the mesh's own steering, by a service-resolver config entry.

Consul has one such entry for all datacenters: whoever writes it, it is stored in the primary one, which the others
copy. So a drained region is an entry that redirects everybody to the other region's datacenter. What stood before
is kept in the entry's own Meta, so that anybody can put it back, even where there was nothing.

Source: https://developer.hashicorp.com/consul/api-docs/config and .../docs/connect/config-entries/service-resolver
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from failover._consul import Agent, Unreached
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import RouteSpec
from failover.routers._consul_config import ConsulConfig
from failover.routers._words import say
from failover.verdict import Verdict, passed, unknown
from failover.world import RouteChange, RouteState, Unknown

KIND = "service-resolver"
_MARK, _BEFORE = "failover-drained", "failover-before-"
_VALUE, _KEYS = 512, 64
"""Octets in one value of a Meta, and keys in one: Consul's limits."""
_OWN = ("Kind", "Name", "CreateIndex", "ModifyIndex", "Namespace", "Partition")
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """The resolver as it is: `body` is None where there is none. `index` is what a write must name."""

    body: Body | None
    index: int
    drained: str | None = None
    """The region that we drained by it; empty where we have taken that back. None for an entry that is not ours."""
    before: Body | None = None
    """What stood there before we drained by it."""


class Garbled(ValueError):
    """An entry that carries our mark, and not what has to come with it."""


def read_entry(found: Any) -> Entry:
    """The entry that Consul answered with. Raises Garbled."""
    if found is None:
        return Entry(None, 0)
    if not isinstance(found, Mapping) or not isinstance(found.get("ModifyIndex"), int):
        raise Garbled("what Consul answers is not a config entry")
    body = {key: value for key, value in found.items() if key not in _OWN}
    meta = body.get("Meta") or {}
    if _MARK not in meta:
        return Entry(body, found["ModifyIndex"])
    try:
        before = json.loads("".join(meta[key] for key in sorted(meta) if key.startswith(_BEFORE)))
    except ValueError:
        before = ""
    if before is not None and not isinstance(before, dict):
        raise Garbled(f"it was drained by failover, but its Meta no longer says what stood before ({_BEFORE}…)")
    return Entry(body, found["ModifyIndex"], meta[_MARK], before)


def drained_body(before: Body | None, region: str, survivor: str) -> Body:
    """The entry that sends everybody to the datacenter `survivor`, and remembers `before`. Raises ValueError."""
    text = json.dumps(before, sort_keys=True, separators=(",", ":"))
    memory = {f"{_BEFORE}{at // _VALUE:02}": text[at : at + _VALUE] for at in range(0, len(text), _VALUE)}
    base = dict(before or {})
    base.pop("Failover", None)  # Consul refuses one beside a redirect
    meta = {**base.get("Meta", {}), _MARK: region, **memory}
    if len(meta) > _KEYS:
        raise ValueError(f"what stands there now is too large to be remembered beside it ({len(text)} octets)")
    return {**base, "Redirect": {**base.get("Redirect", {}), "Datacenter": survivor}, "Meta": meta}


class Redirect:
    """The routes of a router that are steered so."""

    def __init__(self, name: str, config: ConsulConfig, routes: Mapping[str, RouteSpec]) -> None:
        self.where = f"router {name}"
        self.config = config
        self._routes = routes
        self._agents = {region: config.agent(name, region) for region in config.datacenters}

    def read(self, route: str) -> RouteState | Unknown:
        """The state as the primary datacenter has it.

        Where that cannot be asked and the other datacenter's copy says that just that region is out, that is true
        for everybody who is left.
        """
        try:
            return self._state(route, self._entry(route, self._primary))
        except Unreached as error:
            return self._copied(route) or Unknown(
                f"service-resolver entries are written in the primary datacenter, which cannot be asked: {error.what}"
            )
        except (Failed, Garbled) as error:
            return Unknown(self._said(route, error))

    def check(self, change: RouteChange) -> Entry:
        """The entry that `change` is to replace. Raises Refused, Conflict or Failed."""
        route = change.route
        try:
            entry = self._entry(route, self._primary)
        except Garbled as error:
            raise self._by_hand(route, self._said(route, error)) from None
        state = self._state(route, entry)
        if isinstance(state, Unknown):
            raise self._by_hand(route, state.why)
        if state != change.before:
            raise Conflict(change.resource, say(change.before), say(state))
        if entry.drained is None and not all(state.weights.values()) and change.after != state:
            raise self._by_hand(
                route, f"service-resolver '{self._service(route)}' redirects already, not by failover"
            )
        if entry.drained:
            expected = drained_body(entry.before, entry.drained, self._survivor(route, entry.drained))
            if entry.body != expected:
                said = f"service-resolver '{self._service(route)}' was changed by somebody after it was drained"
                raise self._by_hand(route, f"{said}, and putting back what stood before would undo that")
        return entry

    def apply(self, change: RouteChange, entry: Entry) -> None:
        """Write `change` over `entry`, and over nothing else. Writes.

        Consul before 1.11 does not compare on DELETE. So where there was nothing before, the entry is first
        replaced, compared, by one that does nothing; only that one is deleted.
        """
        before = entry.body if entry.drained is None else entry.before
        off = [region for region, weight in change.after.weights.items() if not weight]
        if off:
            try:
                self._put(change, drained_body(before, off[0], self._survivor(change.route, off[0])), entry.index)
            except ValueError as error:
                raise self._by_hand(change.route, str(error)) from None
        elif before is not None:
            self._put(change, before, entry.index)
        else:
            self._put(change, {"Meta": {_MARK: "", f"{_BEFORE}00": "null"}}, entry.index)
            self._delete(change)

    def look(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """Whether each datacenter's own discovery chain leads only to regions that are on."""
        return {self._agent_name(region): self._chain(route, region, wanted)[1] for region in wanted.weights}

    def settled(self, route: str, wanted: RouteState) -> list[Verdict]:
        """The same, without a drained region's datacenter where that cannot be reached: nobody could tell it more."""
        seen = {region: self._chain(route, region, wanted) for region in wanted.weights}
        counted = [verdict for region, (reached, verdict) in seen.items() if reached or wanted.weights[region]]
        left = [
            passed(f"{'; '.join(verdict.evidence)}; {region} is drained, and nobody there can be told")
            for region, (reached, verdict) in seen.items()
            if not reached and not wanted.weights[region]
        ]
        return [*counted, *left]

    @property
    def _primary(self) -> Agent:
        return self._agents[self.config.primary]

    def _service(self, route: str) -> str:
        return str(self._routes[route].config.service)

    def _agent_name(self, region: str) -> str:
        return f"consul {self._agents[region].datacenter}"

    def _survivor(self, route: str, drained: str) -> str:
        [region] = [region for region in self._routes[route].route.weights if region != drained]
        return self.config.name_of(region)

    def _entry(self, route: str, agent: Agent, **how: str) -> Entry:
        # The primary's index is the only one that a write can name: each datacenter counts its own.
        return read_entry(agent.get(f"config/{KIND}/{self._service(route)}", **(how or {"consistent": ""})).body)

    def _said(self, route: str, error: Exception) -> str:
        what = (
            error.what if isinstance(error, FailoverError) else f"service-resolver '{self._service(route)}': {error}"
        )
        return str(what)

    def _state(self, route: str, entry: Entry) -> RouteState | Unknown:
        weights = self._routes[route].route.weights
        target = ((entry.body or {}).get("Redirect") or {}).get("Datacenter", "")
        if not target:
            return RouteState(weights)
        on = [region for region in weights if self.config.name_of(region) == target]
        if not on:
            said = f"service-resolver '{self._service(route)}' redirects to datacenter '{target}'"
            return Unknown(f"{said}, which is no region of this route")
        return RouteState({region: weight if region in on else 0 for region, weight in weights.items()})

    def _copied(self, route: str) -> RouteState | None:
        weights = self._routes[route].route.weights
        for region in weights:
            if region == self.config.primary:
                continue
            try:
                state = self._state(route, self._entry(route, self._agents[region], stale=""))
            except (Failed, Garbled):
                continue
            if isinstance(state, RouteState) and state.weights.get(self.config.primary) == 0:
                return state
        return None

    def _put(self, change: RouteChange, body: Body, index: int) -> None:
        whole = {**body, "Kind": KIND, "Name": self._service(change.route)}
        answer = self._primary.put("config", whole, dc=self._primary.datacenter, cas=index)
        if answer is True:
            return
        if answer is not False:
            raise Indeterminate(
                f"Consul answers {str(answer)[:60]!r} to a write of service-resolver '{whole['Name']}'; it may have "
                "been made or not",
                where=self.where,
                next="read it back before anything else; resume does",
            )
        try:
            found = self._state(change.route, self._entry(change.route, self._primary))
        except Garbled as error:
            found = Unknown(str(error))
        if found != change.before:
            raise Conflict(change.resource, say(change.before), str(found))
        raise Failed(
            f"{self._primary} refused the write of service-resolver '{whole['Name']}', because somebody wrote it in "
            "between; nothing was written by this",
            where=self.where,
            next=f"try again; if it stays so, {self.config.primary} is not the primary datacenter: check 'primary'",
        )

    def _delete(self, change: RouteChange) -> None:
        entry = self._entry(change.route, self._primary)
        if entry.drained != "":
            return  # somebody has drained or written it since: theirs to keep
        service = self._service(change.route)
        self._primary.delete(f"config/{KIND}/{service}", dc=self._primary.datacenter, cas=entry.index)

    def _by_hand(self, route: str, why: str) -> Refused:
        return Refused(
            "resolver-of-others",
            f"route {route}: {why}; nothing was written",
            where=self.where,
            next=f"see `consul config read -kind {KIND} -name {self._service(route)}`; delete or correct it by hand",
        )

    def _chain(self, route: str, region: str, wanted: RouteState) -> tuple[bool, Verdict]:
        agent, service = self._agents[region], self._service(route)
        try:
            found = agent.get(f"discovery-chain/{service}", **{"compile-dc": agent.datacenter}).body
            targets = {each["Datacenter"] for each in found["Chain"]["Targets"].values()}
        except Unreached as error:
            return False, unknown(error.what)
        except Failed as error:
            return True, unknown(error.what)
        except (KeyError, TypeError, AttributeError):
            return True, unknown(f"{agent} answers with something that is not a discovery chain")
        on = {self.config.name_of(name) for name, weight in wanted.weights.items() if weight}
        said = f"in {agent.datacenter}, {service} leads to {', '.join(sorted(targets)) or 'nothing'}"
        if not targets or (len(on) < len(wanted.weights) and targets - on):
            return True, unknown(f"{said}, wanted {' or '.join(sorted(on))}")
        if agent.datacenter in on and agent.datacenter not in targets:
            return True, unknown(f"{said}, wanted {agent.datacenter}")
        return True, passed(said)
