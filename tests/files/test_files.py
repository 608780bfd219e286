"""Wrong files, each beside what a person is told about it; and the same files against the schemas for editors.

`python -m tests.files.test_files` writes what is said now into the `.expected` files, to be read in the diff.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from failover import registry, resolution, secret
from failover.errors import Invalid
from failover.report.problems import render
from failover.runbook import Runbook
from failover.topology import Topology
from failover.yaml import Document, parse

HERE = Path(__file__).parent
KINDS = ("topologies", "runbooks")
WRONG = sorted(path for kind in KINDS for path in (HERE / kind).glob("*.yaml"))


def document(path: Path) -> Document:
    return parse(path.read_bytes(), path.name)


class Library:
    """The runbooks that come with the product, and those in `library/`."""

    bundled = registry.FileLibrary()

    def names(self) -> list[str]:
        return sorted([*self.bundled.names(), *(path.stem for path in (HERE / "library").glob("*.yaml"))])

    def open(self, name: str) -> Document:
        own = {path.stem: path for path in (HERE / "library").glob("*.yaml")}
        return document(own[name]) if name in own else self.bundled.open(name)


def topology() -> Topology:
    return registry.open_estate(document(HERE / "failover.yaml")).topology


def open_topology(path: Path) -> Topology:
    return registry.open_estate(document(path)).topology


def open_runbook(path: Path) -> Runbook:
    return resolution.validate(document(path), topology(), Library())


OPEN: dict[str, Callable[[Path], object]] = {"topologies": open_topology, "runbooks": open_runbook}


def said(path: Path) -> str:
    secret._known.clear()
    with pytest.raises(Invalid) as refused:
        OPEN[path.parent.name](path)
    return render(refused.value.problems) + "\n"


@pytest.mark.parametrize("path", WRONG, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_said_of_a_wrong_file(path: Path) -> None:
    assert said(path) == path.with_suffix(".expected").read_text(encoding="utf-8")


if __name__ == "__main__":
    for wrong in WRONG:
        wrong.with_suffix(".expected").write_text(said(wrong), encoding="utf-8")
