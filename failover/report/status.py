"""The whole estate on one screen, and the runs that there were."""

from collections.abc import Mapping
from typing import Any

from failover.engine.record import OPEN, Record
from failover.health import region_health, summary
from failover.report.words import ago, filled, share, table, when
from failover.topology import Topology
from failover.units import duration
from failover.world import Change, Member, Role, RouteChange, Unknown, World


def status_lines(
    topology: Topology, world: World, held: Mapping[str, Any], records: list[Record], now: float
) -> list[str]:
    """One row a region: its traffic by service, its databases, its health, and when it was last drained."""
    services = [service for service in topology.services.values() if service.routes]
    head = ("region", *(service.name for service in services), *topology.databases, "health", "last drained")
    rows = [head]
    for region in topology.regions:
        traffic = [_traffic(service.routes, region, world) for service in services]
        members = [_member(world.databases.get(name, {}).get(region)) for name in topology.databases]
        outcome, good, whole = summary(topology, region, world)
        rows.append((region, *traffic, *members, f"{outcome} {good}/{whole}", _drained(region, records, now)))
    lines = table(rows)
    lines += _unseen(topology, world)
    going = [record for record in records if record.status in OPEN]
    lines.append("")
    if going:
        for record in going:
            said = f"Run {record.id} ({record.started['runbook']}) is {record.status}"
            if record.status == "stopped":
                said += f": {record.error}; failover resume {record.id}"
            lines += filled("", said.split("; "), "; ")
    else:
        lines.append("Nothing is running. " + ("" if held else "No region is held."))
    lines += [
        f"Region {region} is held by run {lock['run']} since {when(lock['at'])}." for region, lock in held.items()
    ]
    return lines


def _traffic(routes: Any, region: str, world: World) -> str:
    said = []
    for route in routes:
        state = world.routes.get(route.id, Unknown("not looked at"))
        said.append("unknown" if isinstance(state, Unknown) else share(state, region))
    return "/".join(dict.fromkeys(said))


def _member(member: Member | None) -> str:
    if member is None:
        return "-"
    if member.role is Role.REPLICA:
        if member.lag is None:
            return "replica, lag unknown"
        return f"replica, {duration(member.lag)} behind" + ("" if member.streaming else ", not streaming")
    return str(member.role)


def _drained(region: str, records: list[Record], now: float) -> str:
    for record in reversed(records):
        if record.status == "done" and any(_left(region, change) for change in record.applied):
            return f"{ago(record.at, now)}  {record.started['purpose']} {record.id}"
    return "never"


def _left(region: str, change: Change) -> bool:
    if not isinstance(change, RouteChange):
        return False
    return bool(change.before.weights.get(region)) and not change.after.weights.get(region)


def _unseen(topology: Topology, world: World) -> list[str]:
    """Why, for everything that is not as it should be: nothing is left out because it could not be seen."""
    lines = [f"  {route}: {state}" for route, state in world.routes.items() if isinstance(state, Unknown)]
    for name, members in world.databases.items():
        for region, member in members.items():
            if member.role not in (Role.PRIMARY, Role.REPLICA):
                lines.append(f"  {name} in {region}: {member}")
    for service in topology.services.values():
        for region in topology.regions:
            verdict = region_health(service, region, world)
            if not verdict.passed and (not service.routes or region in service.regions):
                lines.append(f"  {region}: {'; '.join(verdict.evidence)}")
    said = dict.fromkeys(lines)
    return ["", *(part for line in said for part in filled("  ", line.strip().split("; "), "; "))] if said else []


def status_data(topology: Topology, world: World, held: Mapping[str, Any], records: list[Record]) -> dict[str, Any]:
    """The same for a program."""
    regions = {}
    for region in topology.regions:
        outcome, good, whole = summary(topology, region, world)
        regions[region] = {"health": str(outcome), "checks_passed": good, "checks": whole}
    return {
        "topology": topology.name,
        "regions": regions,
        "routes": {
            route: {"unknown": state.why}
            if isinstance(state, Unknown)
            else {"weights": dict(state.weights), "ttl": state.ttl}
            for route, state in world.routes.items()
        },
        "databases": {
            name: {
                region: {
                    "role": str(member.role),
                    "lag": member.lag,
                    "streaming": member.streaming,
                    "lost": member.lost,
                    "detail": member.detail,
                }
                for region, member in members.items()
            }
            for name, members in world.databases.items()
        },
        "checks": {
            str(check): {"outcome": str(verdict.outcome), "evidence": list(verdict.evidence)}
            for check, verdict in world.checks.items()
        },
        "held": {region: dict(lock) for region, lock in held.items()},
        "open_runs": [record.id for record in records if record.status in OPEN],
    }


def run_data(record: Record) -> dict[str, Any]:
    """A run for a program."""
    return {
        "run": record.id,
        "runbook": record.started["runbook"],
        "inputs": record.started["inputs"],
        "purpose": record.started["purpose"],
        "status": record.status,
        "exit_code": record.exit_code,
        "error": record.error,
        "plan": record.started["plan"],
        "fingerprint": record.started["fingerprint"],
        "regions": record.started["regions"],
        "started": record.started["at"],
        "seconds": round(record.at - record.started["at"], 3),
        "changes": len(record.applied),
        "accepted": record.accepted,
        "notes": record.notes,
        "steps": [
            {
                "id": name,
                "status": step.status,
                "seconds": round(step.ended - step.started, 3) if step.ended else None,
                "error": step.error,
            }
            for name, step in record.steps.items()
        ],
    }


def runs_lines(records: list[Record]) -> list[str]:
    """All runs, newest last."""
    rows = [("run", "runbook", "purpose", "status", "took", "changes")]
    rows += [
        (
            record.id,
            record.started["runbook"],
            record.started["purpose"],
            record.status,
            duration(record.at - record.started["at"]),
            str(len(record.applied)),
        )
        for record in records
    ]
    return table(rows) if records else ["There are no runs yet."]
