"""The path by which a service leaves a region, and when exactly that path was last gone to its end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from failover.engine.estate import Estate
from failover.engine.record import Record
from failover.runbook import Runbook
from failover.steps.traffic import stages_of
from failover.topology import Route, Service
from failover.units import duration
from failover.verbs import ALL, Drain
from failover.world import RouteChange

Path = Mapping[str, str]
"""What a path is made of, by the name of each part; free of what differs from run to run."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A run that took a service out of a region to the end. Times are in seconds since the epoch."""

    run: str
    purpose: str
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one service's way out of one region: the last run on exactly this path, the last on any path,
    and what is different between that one's path and this."""

    region: str
    service: str
    exact: Proof | None
    latest: Proof | None
    differs: tuple[str, ...]


def path(estate: Estate, service: Service, spec: Drain) -> Path:
    """The parts of the path by which `service` leaves the region of `spec` today. No I/O."""
    drain = estate.topology.drain
    soak = drain.soak if spec.soak is None else spec.soak
    parts = {
        "pace": spec.pace,
        "soak": duration(soak) if soak else "none",
        "on fail": drain.on_fail,
        "survivors": str(estate.topology.objectives.survivors),
        "needs": ", ".join(service.needs) or "nothing",
        "checks": ", ".join(sorted(check.name for check in service.checks)) or "none",
    }
    for route in service.routes:
        if spec.region in route.weights:
            parts |= _route(estate, route, spec)
    return parts


def _route(estate: Estate, route: Route, spec: Drain) -> Path:
    short = estate.topology.drain.ttl
    lowered = short is not None and route.ttl is not None and route.ttl > short and spec.pace == "staged"
    router = estate.routers[route.router]
    kind = "weights" if route.id in estate.context.weighted else "a switch"
    return {
        f"route {route.id}": f"{type(router).__name__}, path version {router.path_version}, {kind}",
        f"regions of {route.id}": ", ".join(sorted(route.weights)),
        f"stages of {route.id}": ", ".join(map(str, stages_of(estate.context, spec, route))),
        f"TTL of {route.id}": f"lowered to {duration(short)}" if lowered and short is not None else "kept",
    }


def paths(estate: Estate, runbook: Runbook) -> list[dict[str, object]]:
    """The paths that a run of `runbook` goes, one entry a drain step, for its record."""
    services = estate.topology.services
    return [
        {
            "step": step.id,
            "region": step.spec.region,
            "services": {
                name: dict(path(estate, services[name], step.spec))
                for name in (services if step.spec.services == ALL else step.spec.services)
                if step.spec.region in services[name].regions
            },
        }
        for step in runbook.steps
        if step.verb == "drain"
    ]


def evidence(estate: Estate, records: Iterable[Record], regions: Iterable[str]) -> list[Evidence]:
    """For each service in each of `regions`: when its path was last gone to the end, by the `records`, oldest first.

    A drain that found nothing to do has shown nothing; one whose traffic was moved counts, whatever came after it.
    """
    gone: dict[tuple[str, str], list[tuple[Proof, Path]]] = {}
    for record in records:
        for key, proof, parts in _proofs(record):
            gone.setdefault(key, []).append((proof, parts))
    found = []
    for region in regions:
        for service in estate.topology.services.values():
            if region not in service.regions:
                continue
            today = path(estate, service, Drain(region=region))
            runs = gone.get((region, service.name), [])
            exact = next((proof for proof, parts in reversed(runs) if parts == today), None)
            latest, parts = runs[-1] if runs else (None, today)
            found.append(Evidence(region, service.name, exact, latest, differences(parts, today)))
    return found


def differences(before: Path, today: Path) -> tuple[str, ...]:
    """What has changed from one path to the other, a few words each."""
    both = [name for name in before if name in today]
    lines = [f"{name}: {before[name]} → {today[name]}" for name in both if before[name] != today[name]]
    lines += [f"{name} is gone" for name in before if name not in today]
    lines += [f"{name} is new" for name in today if name not in before]
    return tuple(lines)


def _proofs(record: Record) -> Iterable[tuple[tuple[str, str], Proof, Path]]:
    for entry in record.started.get("paths", ()):
        step = record.steps.get(entry["step"])
        if step is None or step.status != "done" or step.ended is None:
            continue
        left = {
            change.route.partition("@")[0]
            for change in record.moved(entry["step"])
            if isinstance(change, RouteChange) and not change.after.weights.get(entry["region"])
        }
        for service, parts in entry["services"].items():
            if service in left:
                proof = Proof(record.id, record.started["purpose"], step.ended, step.ended - step.started)
                yield (entry["region"], service), proof, parts
