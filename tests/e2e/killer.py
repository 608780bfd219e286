"""The product in a process that kills itself at one point: `python -m tests.e2e.killer POINT WHEN WORD…`.

POINT is `route N`, `edge N` or `record N`, the n-th write to Route 53, to HAProxy or by RFC 2136; `fence`, `promote`
or `rejoin`, a write to a database; `off`, a server that was turned off to be rewound; or `journal KIND N`, the n-th
event of that kind. WHEN is before or after.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from failover.cli.main import run
from failover.databases import _postgres_rejoin as hands
from failover.databases.postgres import Postgres
from failover.routers.haproxy import Haproxy
from failover.routers.rfc2136 import Rfc2136
from failover.routers.route53 import Route53
from failover.stores.sqlite import SqliteStore
from failover.world import MemberChange, Role


def main(point: str, when: str, words: list[str]) -> int:
    seen: Counter[str] = Counter()

    def watch(owner: Any, method: str, name: Callable[..., str]) -> None:
        original = getattr(owner, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            what = name(*arguments)
            seen[what] += 1
            here = point in (what, f"{what} {seen[what]}")
            if here and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **named)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, method, watched)

    watch(Route53, "write", lambda *_: "route")
    watch(Haproxy, "write", lambda *_: "edge")
    watch(Rfc2136, "write", lambda *_: "record")
    watch(Postgres, "write", _member)
    watch(hands, "turn_off", lambda *_: "off")
    watch(SqliteStore, "append", _event)
    return run(words)


def _member(_: Postgres, change: MemberChange) -> str:
    names: dict[Role, str] = {Role.FENCED: "fence", Role.PRIMARY: "promote", Role.REPLICA: "rejoin"}
    return names[change.after]


def _event(_: SqliteStore, stream: str, __: int, event: str) -> str:
    data = json.loads(event)
    if not stream.startswith("run/"):
        return "lock"
    changes = data.get("changes", [{}])
    subject = f" {changes[0]['after']}" if data["kind"] == "intent" and "database" in changes[0] else ""
    return f"journal {data['kind']}{subject}"


def argv(point: str, when: str) -> Sequence[str]:
    """How such a process is started."""
    return (sys.executable, "-m", "tests.e2e.killer", point, when)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
