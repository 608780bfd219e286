"""The sessions on servers of one HAProxy process: counted, and shut down.

Source: `show stat` and `shutdown sessions server` in HAProxy's management guide, section 9.3.
"""

import csv
from collections.abc import Sequence

from failover.errors import Failed, Indeterminate
from failover.routers._haproxy_servers import Server
from failover.routers._haproxy_socket import Instance, Unheard, lines


def count(instance: Instance, backend: str, servers: Sequence[Server], seconds: float) -> int:
    """Current sessions on `servers`, and requests queued for them. Writes nothing. Raises Failed."""
    try:
        [text] = instance.ask([f"show stat {backend} 4 -1"], seconds)
    except Unheard as error:
        raise Failed(f"its connections cannot be counted: {error}", next="see to that instance") from None
    rows = {row.get("svname"): row for row in csv.DictReader(text.removeprefix("# ").splitlines())}
    try:
        return sum(int(rows[server.name]["scur"]) + int(rows[server.name]["qcur"] or 0) for server in servers)
    except (KeyError, ValueError):
        said = text.splitlines()[0][:60] if text else "nothing"
        raise Failed(
            f"its connections cannot be counted: {instance} says '{said}' of backend {backend}",
            next="look at 'show stat' on that socket",
        ) from None


def close(instance: Instance, backend: str, servers: Sequence[Server], seconds: float, where: str) -> None:
    """Shut down every session on `servers`. Writes. Raises Failed or Indeterminate."""
    commands = [f"shutdown sessions server {backend}/{server.name}" for server in servers]
    for line in lines(commands):
        try:
            answers = instance.ask(line, seconds)
        except Unheard as error:
            kind = Indeterminate if error.sent else Failed
            raise kind(str(error), where=where, next="count the connections again; resume does") from None
        for command, text in zip(line, answers, strict=True):
            if text:
                admin = "; its socket is not of level admin" if text.startswith("Permission") else ""
                raise Failed(
                    f"{instance} refuses '{command}': {text.splitlines()[0]}{admin}",
                    where=where,
                    next="see to what it says, or let the connections end by themselves",
                )
