"""The arithmetic of shares: which weight each region has while one of them leaves or comes back.

Everything follows from the normal weights and from who is active, never from the way there: a drain that was cut
off and resumed ends with the weights of one that was not.
"""

from collections.abc import Collection, Mapping


def active(normal: Mapping[str, int], current: Mapping[str, int]) -> set[str]:
    """The regions that are not drained: those with traffic, and standbys, whose normal weight is zero."""
    return {region for region in normal if current.get(region, 0) > 0 or normal[region] == 0}


def drained(normal: Mapping[str, int], current: Mapping[str, int]) -> set[str]:
    """The regions that have traffic in normal times and none now."""
    return set(normal) - active(normal, current)


def shared(normal: Mapping[str, int], regions: Collection[str]) -> dict[str, int]:
    """The whole of the normal weight, shared among `regions` as their normal weights stand to each other.

    Where only standbys are left they share it equally. Without any region all are zero, which a guard refuses.
    """
    whole = sum(normal.values())
    claims = {region: normal[region] for region in normal if region in regions}
    if not any(claims.values()):
        claims = dict.fromkeys(claims, 1)
    return {**dict.fromkeys(normal, 0), **_apportion(whole, claims)}


def staged(normal: Mapping[str, int], others: Collection[str], region: str, percent: int) -> dict[str, int]:
    """The weights with `region` at `percent` of the share that is its own while `others` are active too."""
    present = shared(normal, {*others, region})
    absent = shared(normal, set(others) - {region})
    claims = {name: present[name] * percent + absent[name] * (100 - percent) for name in normal}
    return {**dict.fromkeys(normal, 0), **_apportion(sum(normal.values()), claims)}


def switched(normal: Mapping[str, int], others: Collection[str], region: str, percent: int) -> dict[str, int]:
    """The same for a router that only switches on and off: nobody's weight is raised above its normal one."""
    on = {name: normal[name] if name in others else 0 for name in normal}
    return {**on, region: normal[region] * percent // 100}


def _apportion(whole: int, claims: Mapping[str, int]) -> dict[str, int]:
    total = sum(claims.values())
    if total == 0:
        return dict.fromkeys(claims, 0)
    parts = {name: whole * claim // total for name, claim in claims.items()}
    remainders = sorted(claims, key=lambda name: -(whole * claims[name] % total))
    for name in remainders[: whole - sum(parts.values())]:
        parts[name] += 1
    return parts
