"""How healthy a region is for a service, judged from the checks that a world holds."""

from collections.abc import Iterable

from failover.topology import Provided, Service, Topology
from failover.verdict import Outcome, Verdict, passed, unknown, worst
from failover.weights import drained
from failover.world import CheckId, RouteState, Unknown, World


def check_ids(topology: Topology, services: Iterable[str], regions: Iterable[str]) -> tuple[CheckId, ...]:
    """Every check of `services` in those of `regions` in which they take traffic."""
    wanted = tuple(regions)
    return tuple(
        CheckId(service.name, check.name, region)
        for service in (topology.services[name] for name in services)
        for region in wanted
        if not service.routes or region in service.regions
        for check in service.checks
    )


def databases_of(topology: Topology, checks: Iterable[CheckId]) -> tuple[str, ...]:
    """The databases that any of `checks` needs."""
    needed = (
        name
        for identity in checks
        for check in topology.services[identity.service].checks
        if check.name == identity.check
        for name in check.needs
    )
    return tuple(dict.fromkeys(needed))


def region_health(service: Service, region: str, world: World) -> Verdict:
    """The worst of the checks of `service` in `region`; unknown without any.

    A check that needs a database which has no primary at present is set aside when it does not pass: its cause is
    known and lies elsewhere. It is never the last word: some other check has to pass.
    """
    counted: list[Verdict] = []
    explained: list[str] = []
    checks = [check for check in service.checks if not check.slows]
    for check in checks:
        identity = CheckId(service.name, check.name, region)
        verdict = world.checks.get(identity) or unknown(f"{identity} has not been looked at")
        orphaned = [name for name in check.needs if name in world.databases and not world.primaries(name)]
        if orphaned and not verdict.passed:
            explained.append(f"{identity} is set aside: {', '.join(orphaned)} has no primary")
        else:
            counted.append(verdict)
    if not checks:
        return unknown(f"service {service.name} declares no checks")
    if not counted:
        return unknown(*explained, f"and no other check of {service.name} says anything")
    verdict = worst(counted)
    return passed(*verdict.evidence, *explained) if verdict.passed else verdict


def out_of_service(topology: Topology, services: Iterable[str], world: World) -> set[str]:
    """The regions that are seen to be drained on every route of `services` that has them: nobody there is served."""
    out: set[str] = set()
    serving: set[str] = set()
    for route in (route for name in services for route in topology.services[name].routes):
        now = world.routes.get(route.id)
        gone = drained(route.weights, now.weights) if isinstance(now, RouteState) else set()
        out |= gone
        serving |= set(route.weights) - gone
    return out - serving


def regions_health(topology: Topology, services: Iterable[str], regions: Iterable[str], world: World) -> Verdict:
    """The worst health of `services` in `regions`."""
    wanted = tuple(regions)
    return worst(
        region_health(service, region, world)
        for service in (topology.services[name] for name in services)
        for region in wanted
        if not service.routes or region in service.regions
    )


def checks_health(topology: Topology, checks: Iterable[CheckId], world: World) -> Verdict:
    """The worst health among the services and regions that `checks` look at."""
    looked_at = dict.fromkeys((identity.service, identity.region) for identity in checks)
    return worst(region_health(topology.services[service], region, world) for service, region in looked_at)


def summary(topology: Topology, region: str, world: World) -> tuple[Outcome, int, int]:
    """For one line about `region`: its outcome, and how many of how many checks pass."""
    ids = check_ids(topology, topology.services, [region])
    good = sum(1 for identity in ids if identity in world.checks and world.checks[identity].passed)
    return regions_health(topology, topology.services, [region], world).outcome, good, len(ids)


def strain(topology: Topology, services: Iterable[str], regions: Iterable[str], world: World) -> Verdict | None:
    """The worst of the checks that slow a ramp, of `services` in those of `regions`; None where there are none."""
    slowing = {
        (service, check.name) for service in services for check in topology.services[service].checks if check.slows
    }
    seen = [
        world.checks.get(identity) or unknown(f"{identity} has not been looked at")
        for identity in check_ids(topology, dict.fromkeys(service for service, _ in slowing), regions)
        if (identity.service, identity.check) in slowing
    ]
    return worst(seen) if seen else None


def load_of(service: Service, world: World) -> float | Unknown | None:
    """The load of `service` in requests per second: as declared, or as its probe saw it; None where it has none."""
    if isinstance(service.load, Provided):
        return world.loads.get(service.name, Unknown("it has not been looked at"))
    return service.load


def loads_of(topology: Topology, services: Iterable[str]) -> tuple[str, ...]:
    """Those of `services` whose load has to be looked at."""
    return tuple(name for name in services if isinstance(topology.services[name].load, Provided))
