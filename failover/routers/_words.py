"""How the routers put a route's state into words."""

from collections.abc import Collection

from failover.world import RouteState


def say(state: RouteState) -> str:
    """`state` for a person: each region's weight, and the TTL."""
    weights = ", ".join(f"{region} {weight}" for region, weight in state.weights.items())
    return weights if state.ttl is None else f"{weights}, TTL {state.ttl} s"


def names(items: Collection[str], most: int = 20) -> str:
    """All of `items`, or the first `most` of them and how many more there are."""
    shown = ", ".join(list(items)[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
