"""What a laboratory consists of, as one JSON file in its directory, and the lock on that directory."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.errors import FailoverError, Locked, Usage
from failover.lab.process import until

LOOPBACK = "127.0.0.1"
FILE = "lab.json"
_NEW = "lab.json.new"


class NoLab(FailoverError):
    """There is no laboratory where one was looked for."""


@dataclass(frozen=True, slots=True)
class Region:
    """One region: its loopback address, and the directory that belongs to its PostgreSQL."""

    name: str
    address: str
    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"


@dataclass(frozen=True, slots=True)
class Lab:
    """A laboratory. `via` is what runs a command as PostgreSQL's user, `shelter` is a second directory of the
    laboratory's own, for what that user could not reach in the first one."""

    directory: Path
    regions: Mapping[str, Region]
    shop_port: int
    postgres_port: int
    dns_port: int
    api_port: int
    zone: str = ""
    binaries: Path = Path()
    via: tuple[str, ...] = ()
    shelter: Path | None = None
    ready: bool = False

    @property
    def topology(self) -> Path:
        return self.directory / "failover.yaml"

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger.jsonl"

    @property
    def credentials(self) -> Path:
        return self.directory / "aws-credentials"

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.api_port}"

    def log(self, part: str) -> Path:
        return self.directory / "logs" / f"{part}.log"

    def secret(self, name: str) -> Path:
        return self.directory / "secrets" / f"{name}.password"

    def region(self, name: str) -> Region:
        if name not in self.regions:
            known = ", ".join(self.regions)
            raise Usage(
                f"there is no region '{name}' in the lab", where=str(self.directory), next=f"use one of: {known}"
            )
        return self.regions[name]


def save(lab: Lab) -> None:
    """Write the state file whole or not at all."""
    document = {
        "regions": {
            region.name: {"address": region.address, "home": str(region.home)} for region in lab.regions.values()
        },
        "ports": {
            "shop": lab.shop_port,
            "postgres": lab.postgres_port,
            "dns": lab.dns_port,
            "api": lab.api_port,
        },
        "zone": lab.zone,
        "binaries": str(lab.binaries),
        "via": list(lab.via),
        "shelter": str(lab.shelter) if lab.shelter else None,
        "ready": lab.ready,
    }
    new = lab.directory / _NEW
    with new.open("w") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    new.replace(lab.directory / FILE)


def read(directory: Path) -> Lab:
    """The laboratory in `directory`, finished or not. Raises NoLab."""
    path = directory / FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        ports = document["ports"]
        return Lab(
            directory=directory,
            regions={
                name: Region(name, region["address"], Path(region["home"]))
                for name, region in document["regions"].items()
            },
            shop_port=ports["shop"],
            postgres_port=ports["postgres"],
            dns_port=ports["dns"],
            api_port=ports["api"],
            zone=document["zone"],
            binaries=Path(document["binaries"]),
            via=tuple(document["via"]),
            shelter=Path(document["shelter"]) if document["shelter"] else None,
            ready=document["ready"],
        )
    except (FileNotFoundError, NotADirectoryError):
        raise NoLab("no lab is here", where=str(directory), next="start one: failover lab up") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        next_ = "failover lab down, then up"
        raise NoLab(f"the lab's state cannot be read: {error!r}", where=str(path), next=next_) from error


def ours(directory: Path) -> bool:
    """Whether everything in `directory` is a laboratory's, so that it may be removed."""
    names = {entry.name for entry in directory.iterdir()}
    return not names or FILE in names or names == {_NEW}


def load(directory: Path) -> Lab:
    """The laboratory in `directory`, which is up."""
    lab = read(directory.resolve())
    if not lab.ready:
        what = "the lab was never finished"
        raise NoLab(what, where=str(lab.directory), next="failover lab down, then up")
    return lab


@contextmanager
def locked(directory: Path, seconds: float = 0) -> Iterator[None]:
    """Hold the directory, so that nobody else starts, stops, breaks or mends its laboratory meanwhile."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NoLab("no lab is here", where=str(directory), next="start one: failover lab up") from None

    def taken() -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        if not until(taken, seconds):
            what = "somebody is starting, stopping, breaking or mending this lab right now"
            raise Locked(what, where=str(directory), next="wait for it to end, then try again")
        yield
    finally:
        os.close(handle)
