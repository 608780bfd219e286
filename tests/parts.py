"""The real parts that tests run against: found, or a failure in CI and a skip elsewhere."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_ROOT = Path(__file__).parent.parent
_PATH = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", str(_ROOT / ".parts/usr/bin"))
)


def missing(what: str) -> NoReturn:
    """A real part that is not here: a failure in CI, a skip elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """The path of a program that Debian's `package` brings."""
    found = shutil.which(name, path=_PATH)
    return found or missing(f"{name} is missing; install Debian's {package} (sh tests/parts.sh does)")
