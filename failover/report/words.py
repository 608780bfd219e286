"""One change, one verdict, one event, each in a line that a tired person understands."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from failover.clock import stamp
from failover.errors import FailoverError, Refused
from failover.units import count, duration
from failover.world import Change, Role, RouteChange, RouteState, World, decode

WIDTH = 108
"""The longest line, where a text can be broken: two panes beside each other on a wide screen still hold it."""

_STANDING = 6
"""How many services, and how many databases, a sentence about where a run stands can name."""

_ROLES = {
    (Role.PRIMARY, Role.FENCED): "stop its writes",
    (Role.FENCED, Role.PRIMARY): "let it take writes again",
    (Role.UNKNOWN, Role.FENCED): "fence it by its device",
    (Role.STOPPED, Role.FENCED): "fence it by its device",
    (Role.REPLICA, Role.PRIMARY): "promote it",
}


def share(state: RouteState, region: str) -> str:
    """The part of a route's traffic that `region` gets, as a percentage."""
    return f"{100 * fraction(state, region):.0f} %" if any(state.weights.values()) else "-"


def fraction(state: RouteState, region: str) -> float:
    """The same from 0 to 1; 0 where nobody gets any."""
    return state.weights.get(region, 0) / (sum(state.weights.values()) or 1)


def change_line(change: Change) -> str:
    """What `change` does, without its reason."""
    if isinstance(change, RouteChange):
        service = change.route.partition("@")[0]
        return f"{service:<8} {'   '.join(series([change.before, change.after]))}"
    what = _ROLES.get((change.before, change.after), f"follow {change.primary}")
    return f"{change.database:<8} {change.region}: {what} ({change.before} → {change.after})"


def series(states: list[RouteState]) -> list[str]:
    """A region's shares one after another, `east 50 → 25 → 0 %`, for each that moves; then the TTL if it does."""
    lines = []
    for region in states[0].weights:
        shares = [share(state, region).removesuffix(" %") for state in states]
        moved = [one for index, one in enumerate(shares) if index == 0 or one != shares[index - 1]]
        if len(moved) > 1:
            lines.append(f"{region} {' → '.join(moved)} %")
    ttls = [state.ttl for state in states]
    moved_ttls = [str(one) for index, one in enumerate(ttls) if index == 0 or one != ttls[index - 1]]
    if len(moved_ttls) > 1:
        lines.append(f"TTL {' → '.join(moved_ttls)} s")
    return lines


def event_lines(event: Mapping[str, Any]) -> list[str]:
    """The lines that the journal's `event` is worth to whoever watches a run; most bookkeeping is worth none."""
    match event["kind"]:
        case "intent" if event.get("command"):
            return ["run " + " ".join(event["command"])]
        case "intent":
            return [change_line(decode(change)) for change in event["changes"]]
        case "outcome" if event["result"] != "done" and event.get("error"):
            return [f"{event['result']}: {event['error']}"]
        case "check":
            return [f"{event['what']}: {event['outcome']}" + _evidence(event)]
        case "settled":
            return ["settled: every name server and router answers so"]
        case "converged":
            return _converged(event)
        case "connections":
            return _connections(event)
        case "guard":
            waived = "waived" if event["accepted"] else "refuses"
            return [f"guard {event['guard']} {waived}: {'; '.join(event['evidence'])}"]
        case "step-done":
            return ["done"]
        case "step-failed":
            return [f"failed: {event['error']}"]
        case "step-skipped":
            return [f"skipped: {event['reason']}"]
        case "note":
            return [event["text"]]
        case "run-adopted":
            owner = event["owner"]
            return [f"taken up by {owner['by']} on {owner['host']}, process {owner['pid']}"]
        case "run-stopped":
            return [f"stopped: {event['error']}"]
        case "run-ended":
            return [f"ended: {event['status']}" + (f", {event['error']}" if event.get("error") else "")]
    return []


def _converged(event: Mapping[str, Any]) -> list[str]:
    """How long it took until everybody answered so, and who does not yet."""
    [route] = event["routes"]
    took = sorted(event["seconds"].values())
    lines = []
    if took:
        half, most = took[(len(took) - 1) // 2], took[(len(took) - 1) * 95 // 100]
        lines.append(
            f"{route}: {count(len(took), 'server')} {'answers' if len(took) == 1 else 'answer'} so, "
            f"half after {duration(half)}, 95 % after "
            f"{duration(most)}, the last after {duration(took[-1])}"
        )
    return lines + [f"{route}: {server} does not yet: {'; '.join(why)}" for server, why in event["late"].items()]


def _connections(event: Mapping[str, Any]) -> list[str]:
    lines = []
    for route, number in event["left"].items():
        if isinstance(number, str):
            lines.append(f"{route}: connections to {event['region']} cannot be counted: {number}")
        else:
            ended = " and were ended" if number and event["closed"] else ""
            lines.append(f"{route}: {count(number, 'connection')} to {event['region']} were left{ended}")
    return lines + [f"connections could not be ended: {problem}" for problem in event["problems"]]


def _evidence(event: Mapping[str, Any]) -> str:
    lines: list[str] = event["evidence"]
    return f" ({'; '.join(lines)})" if lines and event["outcome"] != "pass" else ""


def error_lines(error: FailoverError, tail: str = "") -> list[str]:
    """An error as it is shown: what, where, what was seen, what next; `tail` says what has become of the world."""
    if isinstance(error, Refused):
        lines = filled("refused  ", f"{error.guard}: {error.what}".split(" "))
        next_word = "ways out"
    else:
        word = {4: "unclear", 5: "held", 6: "stopped"}.get(error.exit_code, "failed")
        lines = filled(f"{word:<8} ", error.what.split(" "))
        next_word = "next"
    if error.where:
        lines += filled("         where: ", error.where.split("; "), "; ")
    for line in getattr(error, "seen", ()):
        lines += filled("         seen: ", line.split(" "))
    if error.next:
        lines += filled(f"         {next_word}: ", error.next.split("; "), "; ")
    if tail:
        lines.append(f"         {tail}")
    return lines


def filled(first: str, parts: Iterable[str], joint: str = " ", width: int = WIDTH) -> list[str]:
    """`first` and `parts` behind it; what does not fit goes on below, where the first of them stands. No part is
    broken, so that a command can be copied."""
    lines: list[str] = []
    for part in parts:
        if not lines:
            lines = [first + part]
        elif len(lines[-1]) + len(joint) + len(part) <= width:
            lines[-1] += joint + part
        else:
            lines[-1] = (lines[-1] + joint).rstrip()
            lines.append(" " * len(first) + part)
    return lines


def standing(world: World) -> str:
    """Where traffic goes and who takes writes, as last seen: what somebody asks who hears that a run has stopped."""
    routes = [
        f"{route.partition('@')[0]} {', '.join(f'{region} {share(state, region)}' for region in state.weights)}"
        for route, state in world.routes.items()
        if isinstance(state, RouteState)
    ]
    databases = [
        f"{name} takes writes in {', '.join(world.primaries(name)) or 'no region that can be seen'}"
        for name in world.databases
    ]
    return "; ".join((*_few(routes), *_few(databases)))


def _few(lines: Iterable[str]) -> list[str]:
    distinct = list(dict.fromkeys(lines))
    rest = len(distinct) - _STANDING
    return [*distinct[:_STANDING], *([f"and {rest} more, see failover status"] if rest > 0 else [])]


def stage_line(stage: Sequence[RouteChange], region: str) -> str:
    """What `region` has of the traffic again once `stage` is taken back: `east 50 %`, or `east 38 to 40 %`."""
    shares = sorted({round(100 * fraction(change.before, region)) for change in stage})
    return f"{region} {shares[0]} %" if len(shares) == 1 else f"{region} {shares[0]} to {shares[-1]} %"


def ago(then: float, now: float) -> str:
    """How long ago, as `3 d ago`."""
    return (
        f"{duration(max(0.0, now - then)).split('.')[0].removesuffix(' s')} s ago"
        if now - then < 60
        else (" ".join(duration(now - then).split()[:2]) + " ago")
    )


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """`rows` as aligned columns, two spaces apart."""
    listed = list(rows)
    if not listed:
        return []
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]


def when(wall: float) -> str:
    """A time for a person: UTC to the second."""
    return stamp(wall)[:19].replace("T", " ") + "Z"
