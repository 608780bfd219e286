"""Customers who order on a fixed schedule: `python -m failover.lab.customers DIRECTORY RATE`.

The schedule does not wait for answers, and latency counts from the moment at which an order was to be sent,
so that a stall is seen by everybody who would have come during it. Nobody tries again.
"""

import asyncio
import json
import os
import random
import signal
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype

from failover.clock import SYSTEM
from failover.lab.measure import Entry
from failover.lab.state import LOOPBACK, Lab, read
from failover.lab.zone import RECORD

CUSTOMERS = 20
TIMEOUT = 3.0
ASK_AGAIN = 1.0
_LIMIT = 64 * 1024


class Unresolved(Exception):
    """The shop's name has no address."""


class Resolver:
    """One customer's resolver. Its first answer is as old as `share` says, so that caches expire one by one."""

    def __init__(self, port: int, share: float) -> None:
        self._port = port
        self._share = share
        self._address = ""
        self._expires = 0.0
        self._turn = asyncio.Lock()

    async def address(self) -> str:
        """The shop's address, from the cache while it is fresh."""
        async with self._turn:
            if SYSTEM.monotonic() >= self._expires:
                await self._ask()
            return self._address

    async def _ask(self) -> None:
        query = dns.message.make_query(RECORD, dns.rdatatype.A)
        while True:
            try:
                response = await dns.asyncquery.udp(query, LOOPBACK, timeout=ASK_AGAIN, port=self._port)
                break
            except dns.exception.Timeout:
                continue
            except OSError as error:
                raise Unresolved("the name server does not answer") from error
        answers = [rrset for rrset in response.answer if rrset.rdtype == dns.rdatatype.A]
        if not answers:
            raise Unresolved(f"{RECORD} has no address")
        self._address = random.choice([str(record) for record in answers[0]])  # noqa: S311 - dice, not a secret
        self._expires = SYSTEM.monotonic() + answers[0].ttl * self._share
        self._share = 1.0


class Crowd:
    """All customers together, and the ledger of what happened to their orders."""

    def __init__(self, lab: Lab, rate: float) -> None:
        self._port = lab.shop_port
        self._interval = 1 / rate
        self._regions = {region.address: region.name for region in lab.regions.values()}
        self._resolvers = [Resolver(lab.dns_port, (n + 1) / CUSTOMERS) for n in range(CUSTOMERS)]
        self._ledger = os.open(lab.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._epoch = SYSTEM.wall() - SYSTEM.monotonic()
        self._run = uuid.uuid4().hex[:8]

    async def order(self, stop: asyncio.Event) -> None:
        """Send orders until `stop`, then wait for the answers to those under way."""
        start = SYSTEM.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                intended = start + number * self._interval
                try:
                    async with asyncio.timeout_at(intended):
                        await stop.wait()
                except TimeoutError:
                    group.create_task(self._one(number, intended))
                    number += 1

    async def _one(self, number: int, intended: float) -> None:
        order = f"{self._run}-{number:06d}"
        address, why = "", ""
        try:
            async with asyncio.timeout_at(intended + TIMEOUT):
                address = await self._resolvers[number % CUSTOMERS].address()
                status, text = await _post(address, self._port, order)
            if not 200 <= status < 300:
                why = f"{status}: {text}"
        except TimeoutError:
            why = f"no answer within {TIMEOUT:g} s"
        except ConnectionRefusedError:
            why = "connection refused"
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            why = "connection dropped"
        except (Unresolved, dns.exception.DNSException, OSError, ValueError, LookupError) as error:
            why = f"{type(error).__name__}: {error}"
        self._write(
            Entry(
                id=order,
                intended=self._epoch + intended,
                finished=self._epoch + SYSTEM.monotonic(),
                address=address,
                region=self._regions.get(address, ""),
                acknowledged=not why,
                why=why,
            )
        )

    def _write(self, entry: Entry) -> None:
        os.write(self._ledger, json.dumps(asdict(entry)).encode() + b"\n")


async def _post(address: str, port: int, order: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(address, port, limit=_LIMIT)
    try:
        body = json.dumps({"id": order}).encode()
        head = (
            f"POST /orders HTTP/1.1\r\nHost: {RECORD.rstrip('.')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lengths = [line.partition(":")[2] for line in headers if line.lower().startswith("content-length:")]
        answer = json.loads(await reader.readexactly(int(lengths[0]) if lengths else 0))
        return int(status.split()[1]), str(answer.get("error", ""))
    finally:
        writer.close()


async def serve(lab: Lab, rate: float) -> None:
    """Order until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Crowd(lab, rate).order(stop)


if __name__ == "__main__":
    asyncio.run(serve(read(Path(sys.argv[1])), float(sys.argv[2])))
