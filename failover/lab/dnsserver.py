"""The laboratory's authoritative DNS server: `python -m failover.lab.dnsserver DIRECTORY`.

It answers from the zone that it reads from Route 53's API again and again. While the API does not answer it
keeps serving what it read last, as the real servers do.
"""

import asyncio
import logging
import random
import signal
import struct
import sys
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
from botocore.exceptions import BotoCoreError, ClientError

from failover.lab import zone as route53
from failover.lab.answers import answer
from failover.lab.state import LOOPBACK, Lab, read

REFRESH = 0.2
IDLE = 10.0
UDP_LIMIT = 1232
_HEADER = 12
_log = logging.getLogger(__name__)


class Server:
    """Answers wire-format queries from the last zone that was read."""

    def __init__(self, endpoint: str, zone: str) -> None:
        self._api = route53.client(endpoint)
        self._id = zone
        self._zone: route53.Zone | None = None
        self._dice = random.Random()  # noqa: S311 - dice, not a secret

    async def refresh(self) -> None:
        """Read the zone until cancelled."""
        reachable = True
        while True:
            try:
                self._zone = await asyncio.to_thread(route53.read, self._api, self._id)
                reachable = True
            except (BotoCoreError, ClientError) as error:
                if reachable:
                    _log.warning("serving the last good answer: %s", error)
                reachable = False
            await asyncio.sleep(REFRESH)

    def respond(self, wire: bytes, limit: int) -> bytes | None:
        """The answer to `wire`, or None where it is not a query at all."""
        if len(wire) < _HEADER or wire[2] & 0x80:
            return None
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return _format_error(wire)
        size = max(512, min(limit, query.payload)) if limit == UDP_LIMIT else limit
        try:
            response = answer(query, self._zone, route53.ZONE, self._dice)
        except (dns.exception.DNSException, ValueError, NotImplementedError):
            _log.exception("no answer to %s", query.question)
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.SERVFAIL)
        try:
            return response.to_wire(max_size=size)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire(max_size=size)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one TCP connection: each message behind two bytes with its length."""
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    wire = await reader.readexactly(length)
                if (response := self.respond(wire, 65535)) is None:
                    return
                writer.write(struct.pack("!H", len(response)) + response)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """The same over UDP."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's own class is one only by its methods.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.respond(data, UDP_LIMIT)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


def _format_error(wire: bytes) -> bytes:
    # Only the identifier and the opcode of such a query can be trusted.
    flags = 0x8000 | (wire[2] & 0x78) << 8 | dns.rcode.FORMERR
    return wire[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, 0)


async def serve(lab: Lab) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = Server(lab.endpoint, lab.zone)
    where = (LOOPBACK, lab.dns_port)
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=where)
    listener = await asyncio.start_server(server.stream, *where)
    refresher = asyncio.create_task(server.refresh())
    await stop.wait()
    refresher.cancel()
    listener.close()
    transport.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    asyncio.run(serve(read(Path(sys.argv[1]))))
