"""HAProxy: the weights of a backend's servers, by the runtime API on its stats socket.

A region's weight is spread over its servers in the proportion of haproxy.cfg, and is 0 where all of them have weight
0. The state `drain` or `maint` of a server is never written. Weight 0 and drain do the same to traffic (no new
balanced requests, persistent ones still served, health still checked), but a server has one drain flag, and lifting
it would lift what somebody else set; and `state ready` lifts maintenance with it. So the weight is this tool's, and
the state is people's: a region whose servers are all held off reads 0, and is not brought back here.

The socket has no compare-and-set, and other connections' commands come between those of one line (seen on 2.6, with
one thread too). So weights are read again directly before they are written; the line that writes them shows the
servers before and after, and what it replaced unexpectedly is put back. Writers on one machine wait for each other;
those on several are kept apart by the store's lock on a region.

Source: HAProxy's management guide, section 9.3.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.ports import Mistake, RouteSpec
from failover.routers._haproxy_config import HaproxyConfig, HaproxyRoute, mistakes
from failover.routers._haproxy_file import StateFile
from failover.routers._haproxy_lock import alone
from failover.routers._haproxy_servers import SERVER_LIMIT, Server, Servers, Unclear, assign, held, spread, state
from failover.routers._haproxy_sessions import close, count
from failover.routers._haproxy_socket import Instance, Unheard
from failover.routers._haproxy_write import Seen, Step, Transaction, show
from failover.routers._words import say
from failover.verdict import Verdict, failed, passed, unknown, worst
from failover.world import RouteChange, RouteState, Unknown

Found = Mapping[Instance, Mapping[str, Servers | Unclear] | Unheard]
"""What each instance shows of each backend, or why it does not."""


class Haproxy:
    """Backends of one or several HAProxy processes, which must all agree."""

    Config: ClassVar[type[BaseModel]] = HaproxyConfig
    RouteConfig: ClassVar[type[BaseModel]] = HaproxyRoute
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: HaproxyConfig, routes: Mapping[str, RouteSpec], clock: Clock) -> None:
        self.name = name
        self.config = config
        self.clock = clock
        self.where = f"router {name}"
        self._whole = config.timeout * len(config.instances)
        # To wait for other writers, to read and to save the state; to write to each, and to put each back.
        self.write_timeout = 3 * config.timeout + 2 * self._whole
        self._routes = routes
        self._file = StateFile(self.where, config.state_file)

    @classmethod
    def mistakes(cls, spec: RouteSpec) -> Iterable[Mistake]:
        """Servers that are missing or shared, weights that they cannot have, and a TTL, which HAProxy has not."""
        return mistakes(spec)

    def weight_limit(self, route: str) -> int:
        """As much as the servers of the region with the fewest can take; 0 where the balance algorithm is static."""
        config = self._routes[route].config
        return 0 if config.switch else SERVER_LIMIT * min(len(names) for names in config.servers.values())

    def read(self, routes: Sequence[str]) -> Mapping[str, RouteState | Unknown]:
        """Asks every instance: the state that all of them show; `Unknown` where they differ or one is silent."""
        seen = self._look(routes)
        return {route: self._agreed(route, seen) for route in routes}

    def write(self, changes: Sequence[RouteChange]) -> str:
        """Set weights on one instance after another, raised ones first. Writes, and saves the state file.

        All instances are read before the first is written, so that a dead one fails it all. Raises Refused for what
        HAProxy cannot have, Conflict where a backend is not as `before` says, Failed where nothing stands, and
        Indeterminate where an answer was lost.
        """
        self._write(changes, cut_off=False)
        return ""

    def half_made(self, change: RouteChange) -> bool:
        """Whether some instances show `before` and all others `after`: a write that was cut off between them."""
        return self._halves(change, self._look([change.route]))

    def complete(self, changes: Sequence[RouteChange]) -> None:
        """The same where some of the instances show `after` already. Writes, and raises what `write` raises."""
        self._write(changes, cut_off=True)

    def settled(self, route: str, wanted: RouteState, receipt: str) -> Verdict:  # noqa: ARG002 - the port's signature
        """Pass where every instance shows `wanted`; the evidence names servers that are held off by hand."""
        return worst(self._settled(route, wanted, *one) for one in self._look([route]).items())

    def connections(self, route: str, region: str) -> int:
        """The sessions on the region's servers now (scur), and those queued for them, on all instances together.

        In HTTP mode that is requests and upgraded connections; an idle kept-alive connection belongs to no server.
        """
        found = 0
        for instance, members in self._members(route):
            found += count(instance, self._routes[route].config.backend, members[region], self.config.timeout)
        return found

    def close_connections(self, route: str, region: str) -> None:
        """Shut down every session on the region's servers, on all instances. Writes."""
        for instance, members in self._members(route):
            config = self._routes[route].config
            close(instance, config.backend, members[region], self.config.timeout, self.where)

    def remarks(self, route: str) -> Sequence[str]:
        """What a reload does, and whom weight 0 does not stop."""
        backend = self._routes[route].config.backend
        path = self.config.state_file
        kept = (
            f"A reload of HAProxy takes the weights of {backend} from {path}, which is written after every change, "
            "if haproxy.cfg says load-server-state-from-file global; otherwise it forgets them."
            if path
            else f"A reload or restart of HAProxy forgets the weights set here and goes back to haproxy.cfg's: "
            f"do not reload it while a region of {backend} is out, or have the reload save the server state first."
        )
        return (
            kept,
            f"Clients that a cookie or a stick table binds to a server of {backend} stay there at weight 0.",
        )

    def _write(self, changes: Sequence[RouteChange], *, cut_off: bool) -> None:
        for change in changes:
            self._refuse(change)
        moved = [change for change in changes if change.before != change.after]
        with alone(self.config.instances, self.clock, self.config.timeout, self.where):
            plans = self._plan(changes, moved, cut_off=cut_off)
            if not moved:
                return
            with self._file.ready() as save:
                work = Transaction(self.where, self.clock, self.config.timeout, self._whole)
                for instance, (steps, seen) in plans.items():
                    work.run(instance, steps, seen)
                try:
                    save(self.config.instances[0], self.config.timeout)
                except (Unheard, OSError) as error:
                    raise Indeterminate(
                        f"the weights are set, but {self.config.state_file} could not be written ({error}): "
                        "a reload of HAProxy would forget them",
                        where=self.where,
                        next="see to that file; resume reads the weights back and goes on",
                    ) from None

    def _look(self, routes: Sequence[str]) -> Found:
        backends = list(dict.fromkeys(self._routes[route].config.backend for route in routes))

        def one(instance: Instance) -> Mapping[str, Servers | Unclear] | Unheard:
            try:
                return show(instance, backends, self.config.timeout)
            except Unheard as error:
                return error

        instances = self.config.instances
        with ThreadPoolExecutor(max_workers=len(instances)) as pool:
            return dict(zip(instances, pool.map(one, instances), strict=True))

    def _agreed(self, route: str, seen: Found) -> RouteState | Unknown:
        backend = self._routes[route].config.backend
        members: dict[Instance, Mapping[str, Sequence[Server]]] = {}
        states: dict[Instance, RouteState] = {}
        why = []
        for instance, found in seen.items():
            if isinstance(found, Unheard):
                why.append(str(found))
                continue
            try:
                members[instance] = self._assigned(route, found)
                states[instance] = state(members[instance], backend)
            except Unclear as error:
                why.append(f"{instance}: {error}")
        if why:
            return Unknown("; ".join(why))
        if len(set(states.values())) > 1:
            return Unknown(_apart(backend, states, members))
        return next(iter(states.values()))

    def _halves(self, change: RouteChange, seen: Found) -> bool:
        states = set()
        for found in seen.values():
            try:
                if isinstance(found, Unheard):
                    raise found
                states.add(state(self._assigned(change.route, found), self._routes[change.route].config.backend))
            except (Unheard, Unclear):
                return False
        return len(states) == 2 and states == {change.before, change.after}

    def _assigned(self, route: str, found: Mapping[str, Servers | Unclear]) -> Mapping[str, Sequence[Server]]:
        config = self._routes[route].config
        servers = found[config.backend]
        if isinstance(servers, Unclear):
            raise servers
        return assign(servers, config.backend, config.servers, config.others)

    def _refuse(self, change: RouteChange) -> None:
        if not any(change.after.weights.values()):
            raise Refused(
                "all-weights-zero",
                f"{change.resource} would be left without any server that takes traffic",
                next="keep or restore one region first",
            )
        config, normal = self._routes[change.route].config, self._routes[change.route].route.weights
        limit = self.weight_limit(change.route)
        for region, weight in change.after.weights.items():
            if weight == change.before.weights.get(region):
                continue
            if config.switch and weight not in (0, normal[region]):
                raise Refused(
                    "weights-unsupported",
                    f"backend {config.backend} can only switch {region} on ({normal[region]}) or off (0), "
                    f"and {change.resource} would give it {weight}",
                    where=self.where,
                    next="drain in one stage (stages: [0]), or use a balance algorithm that is not static",
                )
            if weight > limit and not config.switch:
                raise Refused(
                    "weight-limit",
                    f"backend {config.backend} takes weights up to {limit} a region, "
                    f"and {change.resource} would give {region} {weight}",
                    where=self.where,
                    next="use smaller normal weights in the same proportion",
                )
        if change.after.ttl is not None:
            raise Refused(
                "ttl-unsupported",
                f"HAProxy has no TTL, and {change.resource} would get one of {change.after.ttl} s",
                where=self.where,
                next="leave the route's ttl out",
            )

    def _plan(
        self, changes: Sequence[RouteChange], moved: Sequence[RouteChange], *, cut_off: bool
    ) -> Mapping[Instance, tuple[Sequence[Step], Seen]]:
        """What to do on each instance, and what each has shown. Raises Failed or Conflict; nothing is written."""
        found = self._look([change.route for change in changes])
        heard = {}
        for instance, seen in found.items():
            if isinstance(seen, Unheard):
                raise Failed(
                    f"{seen}; nothing was written", where=self.where, next="see to that instance, then plan again"
                )
            heard[instance] = seen
        for change in changes:
            agreed = self._agreed(change.route, found)
            if agreed != change.before and not (cut_off and self._halves(change, found)):
                said = agreed.why if isinstance(agreed, Unknown) else say(agreed)
                raise Conflict(change.resource, say(change.before), said)
        plans = {}
        for instance, seen in heard.items():
            steps = [step for change in moved for step in self._steps(instance, change, seen)]
            plans[instance] = steps, {name: each for name, each in seen.items() if not isinstance(each, Unclear)}
        return plans

    def _steps(self, instance: Instance, change: RouteChange, found: Mapping[str, Servers | Unclear]) -> list[Step]:
        backend = self._routes[change.route].config.backend
        steps = []
        for region, servers in self._assigned(change.route, found).items():
            weight = change.after.weights.get(region, 0)
            if weight == change.before.weights.get(region, 0):
                continue
            if weight and all(server.held for server in servers):
                raise Failed(
                    f"{region} cannot take traffic on {instance}: {'; '.join(held({region: servers}, backend))}; "
                    "nothing was written",
                    where=self.where,
                    next=f"find out who holds it and why; lift it with: set server {backend}/SERVER state ready",
                )
            for name, share in spread(weight, servers).items():
                now = next(server.weight for server in servers if server.name == name)
                if share > SERVER_LIMIT:
                    raise Refused(
                        "weight-limit",
                        f"{change.resource} would give {region} {weight}, and of that server {backend}/{name} "
                        f"{share}, where HAProxy takes {SERVER_LIMIT} at most",
                        where=self.where,
                        next="use smaller normal weights, or more even ones within the region in haproxy.cfg",
                    )
                if share != now:
                    steps.append(Step(change.route, backend, name, now, share))
        return steps

    def _settled(
        self,
        route: str,
        wanted: RouteState,
        instance: Instance,
        found: Mapping[str, Servers | Unclear] | Unheard,
    ) -> Verdict:
        if isinstance(found, Unheard):
            return unknown(str(found))
        backend = self._routes[route].config.backend
        try:
            members = self._assigned(route, found)
            now = state(members, backend)
        except Unclear as error:
            return unknown(f"{instance}: {error}")
        line = f"{instance}: {backend} has {say(now)}"
        if now != wanted:
            return failed(f"{line}, wanted {say(wanted)}")
        return passed("; ".join((line, *held(members, backend))))

    def _members(self, route: str) -> Iterable[tuple[Instance, Mapping[str, Sequence[Server]]]]:
        """Every instance with each region's servers. Raises Failed before the first where one cannot be read."""
        members = []
        for instance, found in self._look([route]).items():
            try:
                if isinstance(found, Unheard):
                    raise found
                members.append((instance, self._assigned(route, found)))
            except (Unheard, Unclear) as error:
                raise Failed(str(error), where=self.where, next="see to that instance, then try again") from None
        return members


def _apart(
    backend: str, states: Mapping[Instance, RouteState], members: Mapping[Instance, Mapping[str, Sequence[Server]]]
) -> str:
    """The words for instances that differ: the odd one out, where there is one, and what makes it like the rest."""
    values = list(states.values())
    most = max(values, key=values.count)
    odd = [instance for instance, found in states.items() if found != most]
    same = next(instance for instance, found in states.items() if found == most)
    named = "; ".join(f"{instance} has {say(states[instance])}" for instance in odd)
    alike = "; ".join(_like(backend, instance, members[same], members[instance]) for instance in odd)
    return (
        f"the instances differ: {named}; {same} has {say(most)}. One was reloaded or changed by hand, or a run was "
        f"killed between them; to have them as {same} is: {alike}"
    )


def _like(
    backend: str, instance: Instance, wanted: Mapping[str, Sequence[Server]], now: Mapping[str, Sequence[Server]]
) -> str:
    """What to type to give the servers on `instance` the weights of `wanted`."""
    there, here = ({one.name: one for servers in each.values() for one in servers} for each in (wanted, now))
    sets = [
        f"set weight {backend}/{name} {there[name].weight}"
        for name, server in here.items()
        if name in there and there[name].weight != server.weight
    ]
    if sets:
        return instance.typed(";".join(sets))
    held_off = ", ".join(f"{backend}/{name}" for name, server in here.items() if server.held)
    return f"see who holds off {held_off or 'servers'} on one of them only (set server {backend}/SERVER state ready)"
