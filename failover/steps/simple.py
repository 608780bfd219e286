"""The steps that move nothing themselves: check, command, approve, wait, notify."""

from failover import verbs
from failover.errors import Failed
from failover.health import check_ids, databases_of, out_of_service, regions_health
from failover.steps.actions import Ask, Context, Look, Note, Pause, Run, Scope, Steps, Tell
from failover.world import World

_EVERY = 1.0
"""Seconds between two looks at a region that is waited for."""


def check_scope(context: Context, spec: verbs.Check) -> Scope:
    """The databases that the checks need; the checks themselves are looked at by the step."""
    services = _services(context, spec)
    checks = check_ids(context.topology, services, _regions(context, spec))
    routes = (route.id for name in services for route in context.topology.services[name].routes)
    return Scope(tuple(routes) if spec.regions == verbs.SURVIVORS else (), databases_of(context.topology, checks))


def check(context: Context, spec: verbs.Check, world: World) -> Steps:
    """Look until all checks pass, for `within` at most. Unknown is not a pass, and who is drained is no survivor."""
    services, regions = _services(context, spec), _regions(context, spec)
    if spec.regions == verbs.SURVIVORS:
        out = out_of_service(context.topology, services, world)
        serving = tuple(region for region in regions if region not in out)
        if serving and serving != regions:
            away = ", ".join(region for region in regions if region in out)
            yield Note(f"{away} takes no traffic now, and is not counted on")
            regions = serving
    ids = check_ids(context.topology, services, regions)
    about = ", ".join(regions)
    present = [context.topology.services[name] for name in services if _takes_part(context, name, regions)]
    if not present:
        yield Note(f"no service takes traffic in {about}, so there is nothing to check")
        return
    bare = [service.name for service in present if not service.checks]
    if bare:
        raise Failed(
            f"{about} cannot be counted on (unknown): no checks are declared for {', '.join(bare)}",
            next="declare a check for each service, or name the services to look at",
        )
    for left in range(int(spec.within / _EVERY), -1, -1):
        seen = yield Look(ids, about)
        if seen.verdict is None:
            return
        verdict = regions_health(context.topology, services, regions, seen.world)
        if verdict.passed:
            return
        if left:
            yield Pause(_EVERY, f"until {about} is healthy")
    raise Failed(
        f"{about} cannot be counted on ({verdict.outcome}): {'; '.join(verdict.evidence)}",
        next="mend what is named; then resume, or run it again",
    )


def command(context: Context, spec: verbs.Command, world: World) -> Steps:  # noqa: ARG001 - every step is called alike
    """Run the program; anything but exit code 0 fails the step."""
    seen = yield Run(spec.argv, spec.env, spec.timeout, spec.repeatable)
    if seen.verdict is not None and not seen.verdict.passed:
        raise Failed("; ".join(seen.verdict.evidence), next="see to it, then resume the run, or undo it")


def approve(context: Context, spec: verbs.Approve, world: World) -> Steps:  # noqa: ARG001 - every step is called alike
    """Stop until a person agrees."""
    yield Ask(spec.message)


def wait(context: Context, spec: verbs.Wait, world: World) -> Steps:  # noqa: ARG001 - every step is called alike
    """Let time pass."""
    if spec.seconds:
        yield Pause(spec.seconds, "wait")


def notify(context: Context, spec: verbs.Notify, world: World) -> Steps:  # noqa: ARG001 - every step is called alike
    """Send the message."""
    yield Tell(spec.to, spec.message)


def nothing(context: Context, spec: verbs.Spec) -> Scope:  # noqa: ARG001 - every scope is asked alike
    """These steps start from no part of the world."""
    return Scope()


def _services(context: Context, spec: verbs.Check) -> tuple[str, ...]:
    return tuple(context.topology.services) if spec.services == verbs.ALL else spec.services


def _takes_part(context: Context, name: str, regions: tuple[str, ...]) -> bool:
    service = context.topology.services[name]
    return not service.routes or bool(set(service.regions) & set(regions))


def _regions(context: Context, spec: verbs.Check) -> tuple[str, ...]:
    declared = tuple(context.topology.regions)
    if spec.regions == verbs.SURVIVORS:
        return tuple(region for region in declared if region != spec.of)
    return declared if spec.regions == verbs.ALL else spec.regions
