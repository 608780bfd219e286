"""The laboratory's fencing device: `python -m failover.lab.fence DIRECTORY REGION`.

It ends the region's PostgreSQL at once and makes its data directory a standby's, so that whoever starts it
later gets no second writable primary. Exit code 0 means that nothing of it runs any more.
"""

import sys
from pathlib import Path

from failover.errors import Failed, FailoverError, Usage
from failover.lab import postgres
from failover.lab.state import load


def fence(directory: Path, name: str) -> None:
    """Fence one region, or raise."""
    lab = load(directory)
    region = lab.region(name)
    # Before the kill, so that nobody can start it as a primary any more, and after it, because a promotion
    # that was under way removes the file again.
    postgres.become_standby(region)
    postgres.kill(lab, region)
    postgres.become_standby(region)
    if left := postgres.running(region):
        pids = ", ".join(str(process.pid) for process in left)
        raise Failed(f"PostgreSQL in {name} still runs: {pids}", where=str(region.data))


def main(arguments: list[str]) -> int:
    """Fence what the command line names."""
    try:
        if len(arguments) != 2:
            raise Usage("two arguments are expected", next="python -m failover.lab.fence DIRECTORY REGION")
        fence(Path(arguments[0]), arguments[1])
    except (FailoverError, OSError) as error:
        sys.stderr.write(f"not fenced: {error}\n")
        return error.exit_code if isinstance(error, FailoverError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
