"""The figures that matter, each beside a peer in the same run. `python -m bench [NAME]...`."""

import sys
from collections.abc import Callable

from bench import scale, startup, steps
from bench.peers import Row


def _switchover() -> list[Row]:
    from bench import switchover

    return switchover.rows()


def _routes() -> list[Row]:
    from bench import routes

    return routes.rows()


def _checks() -> list[Row]:
    from bench import checks

    return checks.rows()


def _dns_updates() -> list[Row]:
    from bench import dns_updates

    return dns_updates.rows()


PARTS: dict[str, Callable[[], list[Row]]] = {
    "startup": startup.rows,
    "steps": steps.rows,
    "scale": scale.rows,
    "switchover": _switchover,
    "routes": _routes,
    "checks": _checks,
    "dns": _dns_updates,
}


def main() -> int:
    """Print one table; the exit code is 2 for a part that does not exist."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        print(f"there is no bench called {unknown[0]}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{'what':<46} {'ours':>12} {'peer':>12} {'ratio':>7}  peer")
    for name in chosen:
        for row in PARTS[name]():
            ratio = f"{row.ours / row.peer:.2f}" if row.peer else ""
            peer = f"{row.peer:,.3f} {row.unit}" if row.peer else ""
            print(
                f"{row.what:<46} {f'{row.ours:,.3f} {row.unit}':>12} {peer:>12} {ratio:>7}  {row.beside}", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
