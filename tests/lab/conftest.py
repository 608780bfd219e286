"""One laboratory for all tests that leave it as they found it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.lab.lab import down, mend_region, up
from failover.lab.state import Lab


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab") / "one"
    yield up(directory)
    down(directory)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    for region in shared.regions:
        mend_region(shared.directory, region)


def traces(directory: Path) -> list[str]:
    """Every process whose command line, environment or working directory names `directory`."""
    name = os.fsencode(directory)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            seen = command + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
        except OSError:
            continue
        if name in seen:
            found.append(f"{entry.name} {command!r}")
    return found
