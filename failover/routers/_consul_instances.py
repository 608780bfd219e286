"""The instances of a service in one datacenter, and the weight that a region has by them. No I/O.

Consul has maintenance as a check with a reserved id and a reason in words: critical while it stands, and so out of
every DNS answer and prepared query. Ours begins with our name; any other is somebody else's and stays.

Source: https://developer.hashicorp.com/consul/api-docs/agent/service#enable-maintenance-mode
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failover._consul import NODE_MAINTENANCE, SERVICE_MAINTENANCE, set_by_us

_ALIVE = "serfHealth"
"""The check by which the servers say whether a node is alive."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as the catalog has it. `theirs` is the reason of a maintenance that is not this route's own."""

    id: str
    node: str
    host: str
    """The node's address, where its agent listens."""
    address: str
    port: int
    weight: int
    ours: bool
    theirs: str | None
    passing: bool
    gone: bool
    """Whether the servers hold its node to be dead. No client is led there, and its agent may be past telling."""
    kind: str
    native: bool

    @property
    def out(self) -> bool:
        return self.ours or self.theirs is not None

    def __str__(self) -> str:
        return f"{self.id} on {self.node}"


def read_instances(found: Any, of: str) -> list[Instance]:
    """What /v1/health/service answered. Raises ValueError where it is something else."""
    try:
        return sorted((_instance(each, of) for each in found), key=lambda one: (one.node, one.id))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"what Consul answers is not a list of instances ({type(error).__name__}: {error})"
        ) from None


def _instance(found: Mapping[str, Any], of: str) -> Instance:
    node, service = found["Node"], found["Service"]
    own = NODE_MAINTENANCE if of == "node" else SERVICE_MAINTENANCE + service["ID"]
    kept = [
        check
        for check in found["Checks"]
        if check["CheckID"] in (NODE_MAINTENANCE, SERVICE_MAINTENANCE + service["ID"])
        and check["Status"] == "critical"
    ]
    ours = [check for check in kept if check["CheckID"] == own and set_by_us(check)]
    theirs = [check["Notes"] or "without a reason" for check in kept if check not in ours]
    return Instance(
        id=service["ID"],
        node=node["Node"],
        host=node["Address"],
        address=service.get("Address") or node["Address"],
        port=int(service["Port"]),
        weight=int(service["Weights"]["Passing"]),
        ours=bool(ours),
        theirs=theirs[0] if theirs else None,
        passing=all(check["Status"] == "passing" for check in found["Checks"]),
        gone=any(check["CheckID"] == _ALIVE and check["Status"] == "critical" for check in found["Checks"]),
        kind=service.get("Kind") or "",
        native=bool((service.get("Connect") or {}).get("Native")),
    )


def present(instances: Sequence[Instance]) -> Sequence[Instance]:
    """Those on nodes that are alive; all of them where none is, since steering is not health."""
    return [one for one in instances if not one.gone] or instances


def weight_of(instances: Sequence[Instance], normal: int | None) -> int:
    """The weight that a region has by its `instances`, one at least.

    0 where all are out, whoever put them there. In service, a switched region has its `normal` weight; with None it
    has that of its instances. What was left half done is between the two ends, so that both lead on from there;
    instances that somebody else keeps out, or whose node is gone while others are there, are not counted.
    """
    instances = present(instances)
    serving = [one for one in instances if not one.out]
    if not serving:
        return 0
    counted = [one for one in instances if one.theirs is None]
    if normal is not None:
        if len(serving) == len(counted):
            return normal
        return min(max(1, normal * len(serving) // len(counted)), normal - 1)
    weights = [0 if one.out else one.weight for one in counted]
    return weights[0] if len(set(weights)) == 1 else max(1, round(sum(weights) / len(weights)))


def differs(instances: Sequence[Instance], weight: int, *, weighted: bool) -> list[str]:
    """Which of `instances` are not as a region of that weight has them, each in words."""
    wrong = []
    instances = present(instances)
    for one in instances:
        if weight == 0:
            if not one.out:
                wrong.append(f"{one} takes traffic")
        elif one.theirs is not None:
            continue
        elif one.ours:
            wrong.append(f"{one} is in maintenance by failover")
        elif weighted and one.weight != weight:
            wrong.append(f"{one} has weight {one.weight}, wanted {weight}")
    if weight and not wrong and not any(not one.out for one in instances):
        wrong.append(f"every instance is in maintenance by somebody else ('{instances[0].theirs}')")
    return wrong
