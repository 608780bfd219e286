"""The laboratory's own processes beside PostgreSQL: started, and waited for until they really answer."""

import http.client
import sys
from collections.abc import Callable

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from failover.errors import Failed
from failover.lab import zone
from failover.lab.process import Process, alive, marked, spawn, tail, until
from failover.lab.state import LOOPBACK, Lab, Region

START = 40.0


def start_api(lab: Lab) -> Process:
    """Route 53's API, in memory."""
    arguments = ["-m", "moto.server", "-H", LOOPBACK, "-p", str(lab.api_port)]
    return spawn(lab.directory, "route53", [sys.executable, *arguments], lab.log("route53"))


def start(lab: Lab, part: str, module: str, *arguments: str) -> Process:
    """One of the laboratory's own modules as a process."""
    argv = [sys.executable, "-m", f"failover.lab.{module}", str(lab.directory), *arguments]
    return spawn(lab.directory, part, argv, lab.log(part))


def start_shop(lab: Lab, region: Region) -> Process:
    """The shop of one region."""
    return start(lab, shop_part(region), "shop", region.name)


def shop_part(region: Region) -> str:
    return f"shop-{region.name}"


def running(lab: Lab, part: str) -> list[Process]:
    """The processes of one part that run now."""
    return [process for process in marked(lab.directory) if process.part == part]


def wait_for_api(lab: Lab, process: Process) -> None:
    _wait(lab, process, zone.probe(lab))


def wait_for_dns(lab: Lab, process: Process) -> None:
    """Until the name server has given every region's address."""
    wanted = {region.address for region in lab.regions.values()}
    seen: set[str] = set()

    def complete() -> bool:
        seen.update(resolve(lab))
        return wanted <= seen

    _wait(lab, process, complete)


def wait_for_shop(lab: Lab, region: Region, process: Process, path: str) -> None:
    """Until the shop answers `path` with 200."""
    _wait(lab, process, lambda: _fetch(lab, region, path) == 200)


def resolve(lab: Lab) -> list[str]:
    """The shop's addresses in one answer of the lab's name server; none where it does not answer."""
    query = dns.message.make_query(zone.RECORD, dns.rdatatype.A)
    try:
        response = dns.query.udp(query, LOOPBACK, timeout=0.5, port=lab.dns_port)
    except (dns.exception.DNSException, OSError):
        return []
    return [str(record) for rrset in response.answer for record in rrset]


def _fetch(lab: Lab, region: Region, path: str) -> int:
    connection = http.client.HTTPConnection(region.address, lab.shop_port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _wait(lab: Lab, process: Process, answers: Callable[[], bool]) -> None:
    if not until(lambda: answers() or not alive(process), START, 0.05) or not alive(process):
        log = lab.log(process.part)
        raise Failed(f"{process.part} does not answer: {tail(log.read_text(errors='replace'))}", where=str(log))
