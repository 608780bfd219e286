"""How the routers put a route's state into words."""

from failover.world import RouteState


def say(state: RouteState) -> str:
    """`state` for a person: each region's weight, and the TTL."""
    weights = ", ".join(f"{region} {weight}" for region, weight in state.weights.items())
    return weights if state.ttl is None else f"{weights}, TTL {state.ttl} s"
