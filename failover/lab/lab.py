"""The laboratory as a whole: up, down, broken, mended, and with customers."""

import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from shutil import rmtree
from typing import Literal

from failover.errors import Failed, FailoverError, Usage
from failover.lab import document, install, measure, parts, postgres, process, zone
from failover.lab.state import FILE, LOOPBACK, Lab, NoLab, Region, load, locked, ours, read, save

ADDRESSES = {"east": "127.0.1.1", "west": "127.0.2.1"}
RATE = 60.0
PATIENCE = 10.0
How = Literal["web", "database", "region"]
HOWS: tuple[How, ...] = ("web", "database", "region")
CUSTOMERS = "customers"
# Below the range from which the kernel gives ports to outgoing connections.
_PORTS = range(10_000, 32_000)


class AlreadyUp(FailoverError):
    """A laboratory is in this directory already."""


def _silent(_: str) -> None:
    return


def up(directory: Path, progress: Callable[[str], None] = _silent) -> Lab:
    """Start a laboratory in `directory` and return when every part of it answers."""
    directory = directory.resolve()
    if not directory.exists():
        directory.mkdir(parents=True)
        # PostgreSQL's user has to pass through; the secrets in it have modes of their own.
        directory.chmod(0o711)
    with locked(directory):
        if not ours(directory):
            what = "the directory is not empty and no lab is in it"
            raise Usage(what, where=str(directory), next="name a directory that does not exist yet")
        if (directory / FILE).exists():
            raise AlreadyUp(_state(directory), where=str(directory), next="failover lab down")
        try:
            return _build(directory, progress)
        except BaseException:
            _remove(directory)
            raise


def down(directory: Path) -> int:
    """Stop everything of the laboratory in `directory`, remove it, and return how many processes ended."""
    directory = directory.resolve()
    if not directory.exists():
        return _stop(directory)
    with locked(directory, PATIENCE):
        if not ours(directory):
            what = "no lab is here, so nothing was removed"
            raise NoLab(what, where=str(directory), next="name the directory that 'up' was given")
        return _remove(directory)


def break_region(directory: Path, region: str, how: How) -> int:
    """Kill a region's shop, its database, or both, without notice. Returns how many processes died."""
    lab = load(directory)
    broken = lab.region(region)
    if how not in HOWS:
        raise Usage(f"'{how}' is not a way to break a region", next=f"use one of: {', '.join(HOWS)}")

    def victims() -> list[process.Process]:
        shop = parts.running(lab, parts.shop_part(broken)) if how != "database" else []
        return shop + (postgres.running(broken) if how != "web" else [])

    with locked(lab.directory, PATIENCE):
        died = process.end(victims, signal.SIGKILL)
        postgres.clear(lab, broken)
    return died


def mend_region(directory: Path, region: str) -> list[str]:
    """Start again what of a region does not run, as it is on disk. Returns the parts that were started."""
    lab = load(directory)
    mended = lab.region(region)
    started: list[str] = []
    with locked(lab.directory, PATIENCE):
        if not postgres.running(mended):
            postgres.start(lab, mended)
            started.append(f"postgres-{region}")
        if not parts.running(lab, parts.shop_part(mended)):
            parts.wait_for_shop(lab, mended, parts.start_shop(lab, mended), "/live")
            started.append(parts.shop_part(mended))
    return started


def running(lab: Lab) -> dict[str, bool]:
    """Each part of the laboratory and whether it runs."""
    found = {found.part for found in process.marked(lab.directory)}
    shops = {part: part in found for part in map(parts.shop_part, lab.regions.values())}
    databases = {f"postgres-{region.name}": bool(postgres.running(region)) for region in lab.regions.values()}
    return {
        **{part: part in found for part in ("route53", "dns")},
        **shops,
        **databases,
        CUSTOMERS: CUSTOMERS in found,
    }


def start_customers(lab: Lab, rate: float = RATE) -> None:
    """Let customers order, `rate` times a second, until they are stopped."""
    if not rate > 0:
        raise Usage(f"{rate:g} orders a second cannot be sent", next="use a rate above 0")
    with locked(lab.directory, PATIENCE):
        if parts.running(lab, CUSTOMERS):
            raise AlreadyUp("customers are ordering already", where=str(lab.directory), next="stop them first")
        ledger = measure.Ledger(lab.ledger)
        before = len(ledger.entries())
        customers = parts.start(lab, CUSTOMERS, CUSTOMERS, f"{rate:g}")

        def ordered() -> bool:
            return len(ledger.entries()) > before or not process.alive(customers)

        if not process.until(ordered, parts.START) or not process.alive(customers):
            raise Failed("the customers do not order", where=str(lab.log(CUSTOMERS)))


def stop_customers(lab: Lab) -> bool:
    """No new orders; those under way end first. Returns whether there were customers."""
    return bool(process.end(lambda: parts.running(lab, CUSTOMERS), signal.SIGTERM))


def _build(directory: Path, progress: Callable[[str], None]) -> Lab:
    lab = _plan(directory)
    save(lab)
    for name, mode in (("logs", 0o755), ("secrets", 0o700)):
        (directory / name).mkdir(mode=mode)
    if lab.shelter:
        lab.shelter.mkdir(mode=0o711)
        lab.shelter.chmod(0o711)
    if not install.runnable(lab.binaries, lab.via):
        progress("copying PostgreSQL to where its user can run it")
        lab = replace(lab, binaries=install.copy(lab.binaries, (lab.shelter or directory) / "postgresql"))
        save(lab)
    primary, replica = lab.regions.values()
    api = parts.start_api(lab)
    progress(f"postgres in {primary.name}, the primary")
    postgres.create_primary(lab, primary)
    shops = [(region, parts.start_shop(lab, region)) for region in lab.regions.values()]
    progress("route 53 and its name server")
    parts.wait_for_api(lab, api)
    zone.write_credentials(lab)
    lab = replace(lab, zone=zone.create(lab))
    save(lab)
    name_server = parts.start(lab, "dns", "dnsserver")
    progress(f"postgres in {replica.name}, streaming from {primary.name}")
    postgres.create_replica(lab, replica, primary)
    parts.wait_for_dns(lab, name_server)
    progress("the shop in both regions")
    for region, shop in shops:
        parts.wait_for_shop(lab, region, shop, "/health")
    document.write(lab)
    lab = replace(lab, ready=True)
    save(lab)
    return lab


def _plan(directory: Path) -> Lab:
    via = install.via()
    shelter = None if not via or install.reachable(directory, via) else install.shelter()
    homes = shelter or directory
    shop, database, names, api = _free_ports(4)
    return Lab(
        directory=directory,
        regions={name: Region(name, address, homes / name) for name, address in ADDRESSES.items()},
        shop_port=shop,
        postgres_port=database,
        dns_port=names,
        api_port=api,
        binaries=install.packaged(),
        via=via,
        shelter=shelter,
    )


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    dice = SystemRandom()
    while len(found) < count:
        port = dice.choice(_PORTS)
        if port not in found and all(_free(host, port) for host in (LOOPBACK, *ADDRESSES.values())):
            found.append(port)
    return found


def _free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def _state(directory: Path) -> str:
    lab = read(directory)
    if lab.ready and all(works for part, works in running(lab).items() if part in ("route53", "dns")):
        return "a lab is up here already"
    return "what is left of a lab that was not taken down is here"


def _stop(directory: Path, regions: tuple[Region, ...] = ()) -> int:
    # An immediate shutdown, where PostgreSQL still gives its shared memory back.
    databases = sum(process.end(partial(postgres.using, region), signal.SIGQUIT, 3) for region in regions)
    return databases + process.end(lambda: process.marked(directory), signal.SIGKILL)


def _remove(directory: Path) -> int:
    try:
        lab = read(directory)
    except NoLab:
        lab = None
    regions = tuple(lab.regions.values()) if lab else ()
    ended = _stop(directory, regions)
    if lab:
        for region in regions:
            postgres.clear(lab, region)
        if lab.shelter and lab.shelter.exists():
            rmtree(lab.shelter)
    # The state goes last, so that a removal that was cut short can be done again.
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name.startswith(FILE)):
        if entry.is_dir() and not entry.is_symlink():
            rmtree(entry)
        else:
            entry.unlink()
    directory.rmdir()
    return ended
