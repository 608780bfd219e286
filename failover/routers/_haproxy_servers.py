"""What HAProxy says of a backend's servers, and how a region's weight is spread over its own.

Source: `show servers state` in HAProxy's management guide, section 9.3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from failover.world import RouteState

SERVER_LIMIT = 256
"""The greatest weight that HAProxy gives a server."""
_NEEDED = ("be_name", "srv_name", "srv_op_state", "srv_admin_state", "srv_uweight", "srv_iweight")
_HELD = (
    (0x04, "disabled in haproxy.cfg"),
    (0x01, "in maintenance"),
    (0x02, "in maintenance with the server that it tracks"),
    (0x20, "in maintenance, since its name does not resolve"),
    (0x08, "in drain state"),
    (0x10, "in drain state with the server that it tracks"),
)


class Unclear(Exception):
    """A backend is in a state that no weights can express; the message says which one and the way out."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a backend: its weight now, the one in haproxy.cfg, and whether anything holds it off."""

    name: str
    weight: int
    initial: int
    admin: int
    up: bool

    @property
    def held(self) -> str:
        """Why it gets no new traffic whatever its weight, in words; empty where nothing holds it."""
        return next((words for bit, words in _HELD if self.admin & bit), "")

    @property
    def put(self) -> tuple[int, int]:
        """What somebody can set by hand."""
        return self.weight, self.admin


Servers = Mapping[str, Server]


def parse(answer: str, backend: str) -> Servers:
    """The servers of `backend` in what `show servers state` said. Raises Unclear."""
    version, _, rest = answer.partition("\n")
    header, _, rows = rest.partition("\n")
    columns = header.removeprefix("# ").split()
    if version != "1" or not set(_NEEDED) <= set(columns):
        said = answer.splitlines()[0] if answer else "nothing"
        raise Unclear(f"backend {backend}: HAProxy says '{said}'")
    found = {}
    for row in rows.splitlines():
        values = dict(zip(columns, row.split(), strict=False))
        if values.get("be_name") != backend:
            continue
        try:
            state, admin, weight, initial = (int(values[name]) for name in _NEEDED[2:])
        except (KeyError, ValueError):
            raise Unclear(f"backend {backend}: HAProxy's line '{row}' cannot be understood") from None
        name = values["srv_name"]
        found[name] = Server(name, weight, initial, admin, state != 0)
    return found


def assign(
    servers: Servers, backend: str, regions: Mapping[str, Sequence[str]], others: Sequence[str]
) -> Mapping[str, Sequence[Server]]:
    """Each region's servers. Raises Unclear where one is missing, nobody's or claimed twice."""
    owners: dict[str, str] = {}
    for region, patterns in regions.items():
        for pattern in patterns:
            names = _matching(servers, pattern)
            if not names:
                raise Unclear(f"backend {backend} has no server '{pattern}', which region '{region}' names")
            for name in names:
                if owners.setdefault(name, region) != region:
                    raise Unclear(f"server {backend}/{name} belongs to '{owners[name]}' and to '{region}'")
    aside = {name for pattern in others for name in _matching(servers, pattern)}
    if both := sorted(aside & set(owners)):
        raise Unclear(f"server {backend}/{both[0]} belongs to '{owners[both[0]]}' and stands in 'others'")
    if nobodys := sorted(set(servers) - set(owners) - aside):
        raise Unclear(
            f"servers of backend {backend} belong to no region: {', '.join(nobodys)}; "
            "name them in the route's 'servers', or in its 'others' to leave them alone"
        )
    return {region: [servers[name] for name in servers if owners.get(name) == region] for region in regions}


def state(members: Mapping[str, Sequence[Server]], backend: str) -> RouteState:
    """The weight of each region: the sum of its servers', or 0 where all of them are held off by hand.

    Raises Unclear where the weights within a region are not those that its sum gives: somebody set them one by one,
    and bringing the region back would not bring them back.
    """
    weights = {}
    for region, servers in members.items():
        total = sum(server.weight for server in servers)
        due = spread(total, servers)
        if any(server.weight != due[server.name] for server in servers):
            now = ", ".join(f"{server.name} {server.weight} (there {server.initial})" for server in servers)
            raise Unclear(
                f"the weights of {region}'s servers in backend {backend} do not stand to each other as in "
                f"haproxy.cfg: {now}; somebody set them one by one, or a write was cut off. Keep a server out of "
                f"traffic by 'set server {backend}/SERVER state maint' instead, and give each its weight back by "
                f"'set weight {backend}/SERVER 100%'"
            )
        weights[region] = 0 if servers and all(server.held for server in servers) else total
    return RouteState(weights)


def spread(weight: int, servers: Sequence[Server]) -> Mapping[str, int]:
    """`weight` over `servers` as their weights in haproxy.cfg stand to each other: for their own sum, exactly those.

    What is left over goes to the largest remainders, in the order of haproxy.cfg.
    """
    claims = [server.initial for server in servers]
    if not any(claims):
        claims = [1] * len(servers)
    whole = sum(claims)
    parts = [weight * claim // whole for claim in claims]
    first = sorted(range(len(servers)), key=lambda at: (-(weight * claims[at] % whole), at))
    for at in first[: weight - sum(parts)]:
        parts[at] += 1
    return {server.name: part for server, part in zip(servers, parts, strict=True)}


def held(members: Mapping[str, Sequence[Server]], backend: str) -> Iterable[str]:
    """A sentence for each server that something other than its weight holds off."""
    for servers in members.values():
        for server in servers:
            if server.held:
                yield f"{backend}/{server.name} is {server.held}"


def _matching(servers: Servers, pattern: str) -> list[str]:
    if pattern in servers:
        return [pattern]
    return [name for name in servers if fnmatchcase(name, pattern)]
