"""The options that commands share, and what is made of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failover.errors import Usage, did_you_mean

if TYPE_CHECKING:
    from failover.engine.estate import Estate

TopologyFile = Annotated[
    Path | None,
    typer.Option("--topology", "-t", help="The topology file; failover.yaml or $FAILOVER_TOPOLOGY otherwise."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Inputs = Annotated[list[str] | None, typer.Option("--input", "-i", help="An input of the runbook, NAME=VALUE.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for machines.")]
PlanHash = Annotated[str, typer.Option("--plan", help="Run only if the plan still has this hash.")]
Accept = Annotated[list[str] | None, typer.Option("--accept", help="Waive one guard by name; needs --reason.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the run from the process that has it.")]
Purpose = Annotated[str, typer.Option("--purpose", help="incident, drill or release.")]


def estate_of(topology: Path | None) -> "Estate":
    """The estate of the topology to use."""
    from failover.registry import open_estate, topology_file
    from failover.yaml import load

    return open_estate(load(topology_file(topology)))


def accepted_guards(accept: list[str] | None, reason: str) -> dict[str, str]:
    """The guards to waive, with the reason. Raises Usage for one that does not exist or cannot be waived."""
    from failover.guards import ROUTE_GUARDS, WAIVABLE

    for name in accept or ():
        if name in ROUTE_GUARDS and name not in WAIVABLE:
            raise Usage(f"guard '{name}' cannot be waived", next=ROUTE_GUARDS[name][1])
        if name not in WAIVABLE:
            raise Usage(f"there is no guard called '{name}'{did_you_mean(name, WAIVABLE)}")
    if accept and not reason.strip():
        raise Usage(
            f"--accept {accept[0]} needs --reason",
            next="say in a few words why it is safe here; it stays in the run's record",
        )
    return dict.fromkeys(accept or (), reason)


def pairs(inputs: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping. Raises Usage for a word without an equals sign."""
    found: dict[str, str] = {}
    for word in inputs or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Usage(f"-i {word} is not NAME=VALUE", next="write it like -i region=east")
        if name in found:
            raise Usage(f"input '{name}' is given twice")
        found[name] = value
    return found


def purpose_of(word: str) -> str:
    """Raises Usage unless `word` is a purpose."""
    known = ("incident", "drill", "release")
    if word not in known:
        raise Usage(f"'{word}' is not a purpose{did_you_mean(word, known)}")
    return word


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
