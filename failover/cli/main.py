"""The command line. Nothing heavy is imported before a command needs it."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import typer

from failover.cli import act, lab, see
from failover.errors import Failed, FailoverError, Interrupted, Usage

_CALLED_WRONGLY: Any = typer.BadParameter.__base__
"""What typer raises for a word or an option that it does not know; it gives it no public name."""

app = typer.Typer(
    name="failover",
    help="Take a region out of service and bring it back: for an incident, a drill and a release, on one path.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("status", see.status),
    ("check", act.check),
    ("plan", see.plan),
    ("run", act.run),
    ("resume", act.resume),
    ("abort", act.abort),
    ("undo", act.undo),
    ("drain", act.drain),
    ("restore", act.restore),
    ("promote", act.promote),
    ("drill", act.drill),
    ("release", act.release),
    ("runs", see.runs),
    ("show", see.show),
    ("evidence", see.evidence),
    ("validate", see.validate),
    ("schema", see.schema),
    ("providers", see.providers),
)
for _name, _function in _COMMANDS:
    app.command(_name)(_function)
app.add_typer(lab.app, name="lab")


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        from failover import __version__

        typer.echo(f"failover {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: run a command and leave with its exit code."""
    # A large topology is a million small objects that live to the end; looking through them again finds no garbage.
    gc.set_threshold(200_000, 50, 100)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors are shown, never raised."""
    from failover.cli import output

    as_json = "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments
    output.encodable()
    try:
        if as_json:
            return _json(arguments)
        app(arguments, prog_name="failover")
    except FailoverError as error:
        output.failure(error, as_json=as_json)
        return error.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except Exception as error:  # noqa: BLE001 - the last floor: whatever it is, a person or a program gets it whole
        output.failure(output.defect(error), as_json=as_json)
        return Failed.exit_code
    return 0


def _json(arguments: list[str]) -> int:
    """As `app` on its own, but a command called wrongly is one JSON document too."""
    try:
        code = app(arguments, prog_name="failover", standalone_mode=False)
    except _CALLED_WRONGLY as error:
        raise Usage(error.format_message(), next="failover --help") from None
    except typer.Abort:
        raise Interrupted(
            "stopped by hand", next="nothing was changed; failover status says whether a run is open"
        ) from None
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
