"""gdnsd: regions forced down by its admin_state file, on one or several servers that must all agree.

A forced state stands in a file, so it survives a restart. A region is off where all of its states are forced down,
and on otherwise; only lines that this tool has written are ever removed. Where other people's lines force a region
down, it reads as off and is not brought back here; where they force one of its states up, it is unknown.

The file has no compare-and-set. It is compared as a whole directly before it is replaced by one rename, under a lock
that other runs take too, so what is overwritten can only be the work of an editor that saves in between. With
several servers, those written before one fails are put back.

Sources: gdnsd(8) and gdnsdctl(8) of gdnsd 3.8.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused, did_you_mean
from failover.ports import Mistake, RouteSpec
from failover.routers._answers import allows, ask_all
from failover.routers._dns import Server, answer, ask
from failover.routers._gdnsd_config import GdnsdConfig, GdnsdRoute, GdnsdServer, mistakes
from failover.routers._gdnsd_file import Unclear, holding, parse, rewritten, switched
from failover.routers._gdnsd_host import Changed, Host, Look, Lost, Unchanged, Unseen
from failover.routers._words import say
from failover.verdict import Verdict, passed, unknown, worst
from failover.world import RouteChange, RouteState, Unknown


class Gdnsd:
    """Records of gdnsd's plugins, each region switched on or off."""

    Config: ClassVar[type[BaseModel]] = GdnsdConfig
    RouteConfig: ClassVar[type[BaseModel]] = GdnsdRoute
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: GdnsdConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.where = f"router {name}"
        # To look at all; to write to each, and to put each back.
        self.write_timeout = config.timeout * (1 + 2 * len(config.servers))
        self._routes = routes
        self._hosts = [Host(each.admin_state, each.ctl, each.via, config.timeout) for each in config.servers]

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """States and addresses that are missing, shared or not such, and weights that a switch cannot have."""
        return mistakes(spec)

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """What the files say, which all servers' must alike; `Unknown` where one's gdnsd does not answer."""
        looks = self._look()
        return {route: self._agreed(route, looks) for route in routes}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Rewrite the file of one server after another. Writes.

        Raises Refused for weights that a switch does not have, Conflict where a file is not as `before` says, Failed
        where nothing stands, and Indeterminate where a host did not say how it ended.
        """
        self._write(changes, cut_off=False)
        return ""

    def half_made(self, change: RouteChange) -> bool:
        """Whether some files say `before` and all others `after`: a write that was cut off between two servers."""
        return self._halves(change, self._look())

    def complete(self, changes: Sequence[RouteChange]) -> None:
        """The same where some of the files say `after` already. Writes, and raises what `write` raises."""
        self._write(changes, cut_off=True)

    def _write(self, changes: Sequence[RouteChange], *, cut_off: bool) -> None:
        for change in changes:
            self._refuse(change)
        looks = self._look()
        for look in looks.values():
            if isinstance(look, Unseen):
                raise Failed(
                    f"{look}; nothing was written", where=self.where, next="see to that server, then plan again"
                )
        for change in changes:
            found = self._agreed(change.route, looks)
            if found != change.before and not (cut_off and self._halves(change, looks)):
                said = found.why if isinstance(found, Unknown) else say(found)
                raise Conflict(change.resource, say(change.before), said)
        files = {
            host: (look.content, self._content(host, look.content, changes))
            for host, look in looks.items()
            if isinstance(look, Look)
        }
        self._replace({host: pair for host, pair in files.items() if pair[0] != pair[1]}, changes)

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where every server's file, its gdnsd's states and its answers are as wanted."""
        shown = (self._shows(route, wanted, *one) for one in self._look().items())
        return worst([*shown, *self._answers(route, wanted, ()).values()])

    def answers(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """Whether each server and each resolver answers nothing but addresses of the regions that are on.

        A plugin may answer those of its first choice only, so not all of them have to be there.
        """
        return self._answers(route, wanted, self.config.resolvers)

    def remarks(self, route: str) -> Sequence[str]:
        """What happens to caches."""
        record = self._routes[route].config.record
        return (
            f"gdnsd's TTLs are not lowered: resolvers may answer {record} from their caches for as long as its zone "
            "file says.",
        )

    def _look(self) -> Mapping[Host, Look | Unseen]:
        def one(host: Host) -> Look | Unseen:
            try:
                return host.look()
            except Unseen as error:
                return error

        with ThreadPoolExecutor(max_workers=len(self._hosts)) as pool:
            return dict(zip(self._hosts, pool.map(one, self._hosts), strict=True))

    def _agreed(self, route: str, looks: Mapping[Host, Look | Unseen]) -> RouteState | Unknown:
        states: dict[Host, RouteState] = {}
        why = []
        for host, look in looks.items():
            try:
                if isinstance(look, Unseen):
                    raise look
                states[host] = self._state(route, look)
            except Unseen as error:
                why.append(str(error))
            except Unclear as error:
                why.append(f"{host}: {error}")
        if why:
            return Unknown("; ".join(why))
        if len(set(states.values())) > 1:
            listed = "; ".join(f"{host} has {say(state)}" for host, state in states.items())
            return Unknown(f"the servers differ: {listed}; make their files agree")
        return next(iter(states.values()))

    def _halves(self, change: RouteChange, looks: Mapping[Host, Look | Unseen]) -> bool:
        states = set()
        for look in looks.values():
            try:
                if isinstance(look, Unseen):
                    raise look
                states.add(self._state(change.route, look))
            except (Unseen, Unclear):
                return False
        return len(states) == 2 and states == {change.before, change.after}

    def _state(self, route: str, look: Look) -> RouteState:
        """What the file says of `route`. Raises Unclear."""
        spec = self._routes[route]
        for keys in spec.config.states.values():
            for key in keys:
                if key not in look.states:
                    raise Unclear(f"gdnsd has no state '{key}'{did_you_mean(key, look.states)}")
        return self._state_of(route, look.content)

    def _state_of(self, route: str, content: bytes) -> RouteState:
        spec = self._routes[route]
        on = switched(parse(content), spec.config.states)
        return RouteState({region: weight if on[region] else 0 for region, weight in spec.route.weights.items()})

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would have all of its regions forced down",
                next="keep or restore one region first",
            )
        normal = self._routes[change.route].route.weights
        for region, weight in change.after.weights.items():
            if weight not in (0, normal[region]):
                raise Refused(
                    "weights-unsupported",
                    f"gdnsd can only be told that {region} is up ({normal[region]}) or down (0), "
                    f"and {change.resource} would give it {weight}",
                    where=self.where,
                    next="drain in one stage (stages: [0]), or use a router that has weights",
                )
        if change.after.ttl is not None:
            raise Refused(
                "ttl-unsupported",
                f"{change.resource} would get a TTL of {change.after.ttl} s, and gdnsd's are in its zone files",
                where=self.where,
                next="leave the route's ttl out",
            )

    def _content(self, host: Host, content: bytes, changes: Sequence[RouteChange]) -> bytes:
        """`content` with `changes` made. Raises Failed where other people's lines keep it from being so."""
        down: list[str] = []
        free: list[str] = []
        for change in changes:
            for region, keys in self._routes[change.route].config.states.items():
                if change.before.weights[region] != change.after.weights[region]:
                    (free if change.after.weights[region] else down).extend(keys)
        after = rewritten(content, down, free)
        for change in changes:
            try:
                if self._state_of(change.route, after) == change.after:
                    continue
                why = ""
            except Unclear as error:
                why = f": {error}"
            lines = ", ".join(map(str, holding(parse(after), [*down, *free])))
            raise Failed(
                f"{change.resource} cannot be made {say(change.after)}: {lines or 'a line'} in {host} is somebody "
                f"else's and holds it{why}; nothing was written",
                where=self.where,
                next="find out who wrote it and why; remove it by hand, then plan again",
            )
        return after

    def _replace(self, files: Mapping[Host, tuple[bytes, bytes]], changes: Sequence[RouteChange]) -> None:
        done: list[Host] = []
        for host, (before, after) in files.items():
            try:
                host.replace(before, after)
            except Changed as error:
                resource = ", ".join(change.resource for change in changes)
                conflict = Conflict(resource, f"as {host} had it", "another content")
                raise self._undone(conflict, done, files) from error
            except Unchanged as error:
                failed = Failed(f"{error}; nothing stands", where=self.where, next="see to that, then plan again")
                raise self._undone(failed, done, files) from None
            except Lost as error:
                stands = f"; {', '.join(map(str, done))} was rewritten" if done else ""
                raise Indeterminate(
                    f"a server's host was told, but did not say how it ended ({error}); its file may be rewritten or "
                    f"not{stands}",
                    where=self.where,
                    next="make it answer again, and read the files back before anything else; resume does",
                ) from None
            done.append(host)

    def _undone(
        self, error: FailoverError, done: Sequence[Host], files: Mapping[Host, tuple[bytes, bytes]]
    ) -> FailoverError:
        """`error`, once the files that were replaced are put back; Indeterminate where that did not work."""
        problems = []
        for host in reversed(done):
            before, after = files[host]
            try:
                host.replace(after, before)
            except (Changed, Unchanged, Lost) as problem:
                problems.append(str(problem))
        if not problems:
            return error
        return Indeterminate(
            f"{error.what}; and what had been written could not be put back: {'; '.join(problems)}",
            where=self.where,
            next="compare the servers' files, and make them agree before anything else",
        )

    def _shows(self, route: str, wanted: RouteState, host: Host, look: Look | Unseen) -> Verdict:
        """Whether one server's file and states are as wanted."""
        if isinstance(look, Unseen):
            return unknown(str(look))
        try:
            now = self._state(route, look)
        except Unclear as error:
            return unknown(f"{host}: {error}")
        if now != wanted:
            return unknown(f"{host} has {say(now)}, wanted {say(wanted)}")
        for region, keys in self._routes[route].config.states.items():
            shown = {key: look.states[key] for key in keys}
            forced = [key for key, state in shown.items() if state.startswith("DOWN") and state.endswith("!")]
            if bool(wanted.weights[region]) == (len(forced) == len(keys)):
                listed = ", ".join(f"{key} {state}" for key, state in shown.items())
                return unknown(
                    f"{host} has {say(now)}, but its gdnsd still shows {listed}; if that stays, see in its log "
                    "whether it reads this file (state_dir) and takes it"
                )
        return passed(f"{host} has {say(now)}, and gdnsd shows it")

    def _answers(self, route: str, wanted: RouteState, resolvers: Sequence[Server]) -> Mapping[str, Verdict]:
        config = self._routes[route].config
        values = {region: config.of(region) for region in config.addresses}
        on = [region for region, weight in wanted.weights.items() if weight]
        # Each look asks twice at most and may have a name to resolve; all of them are at once.
        seconds = min(5.0, self.config.timeout / 3)
        servers = list(dict.fromkeys(each.dns for each in self.config.servers))
        return ask_all(
            servers,
            resolvers,
            lambda at: _authoritative(at, config, values, on, seconds),
            lambda at: allows(at, config.record, config.type, values, on, seconds),
        )


def _authoritative(
    at: Server, config: Any, values: Mapping[str, frozenset[str]], on: Sequence[str], seconds: float
) -> Verdict:
    records = answer(ask(at, config.record, config.type, seconds), config.record, config.type)
    if not records:
        return unknown(f"{at} answers no {config.record} {config.type}")
    seen = sorted(str(ipaddress.ip_address(record.to_text())) for record in records)
    for address in seen:
        owner = next((region for region, own in values.items() if address in own), "")
        if not owner:
            return unknown(f"{at} answers {address} for {config.record}, which belongs to no region")
        if owner not in on:
            return unknown(
                f"{at} still answers {address}, which is {owner}; if that stays, too few others are up for the "
                "plugin's up_thresh, and it answers all"
            )
    return passed(f"{at} answers {', '.join(seen)}")


__all__ = ["Gdnsd", "GdnsdConfig", "GdnsdRoute", "GdnsdServer"]
