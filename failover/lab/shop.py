"""The shop's HTTP service in one region: `python -m failover.lab.shop DIRECTORY REGION`."""

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from failover.lab import postgres
from failover.lab.orders import Orders, Unavailable
from failover.lab.state import Lab, Region, read

IDLE = 15.0
LIMIT = 16 * 1024
LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes
    keep: bool


class Bad(Exception):
    """A request that cannot be understood."""


class Shop:
    """Answers requests of one region."""

    def __init__(self, region: str, orders: Orders) -> None:
        self._region = region
        self._orders = orders

    async def respond(self, request: Request) -> tuple[HTTPStatus, dict[str, object]]:
        """The status and the JSON document that answer `request`."""
        match request.method, request.path:
            case "GET", "/live":
                return HTTPStatus.OK, {"region": self._region}
            case "GET", "/health":
                return await self._health()
            case "POST", "/orders":
                return await self._order(request.body)
            case _, "/live" | "/health" | "/orders":
                return HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{request.path} does not take {request.method}"}
            case _:
                return HTTPStatus.NOT_FOUND, {"error": f"there is no {request.path}"}

    async def _health(self) -> tuple[HTTPStatus, dict[str, object]]:
        objections = await self._orders.objections()
        primary = next((name for name, objection in objections.items() if not objection), None)
        databases = {name: objection or "writable" for name, objection in objections.items()}
        status = HTTPStatus.OK if primary else HTTPStatus.SERVICE_UNAVAILABLE
        document: dict[str, object] = {"region": self._region, "primary": primary, "databases": databases}
        return status, document if primary else {**document, "error": "no PostgreSQL takes writes"}

    async def _order(self, body: bytes) -> tuple[HTTPStatus, dict[str, object]]:
        try:
            order = json.loads(body)["id"]
        except (ValueError, KeyError, TypeError):
            order = None
        if not isinstance(order, str) or not 0 < len(order) <= LONGEST_ID or not order.isprintable():
            error = f'send {{"id": "…"}} with 1 to {LONGEST_ID} printable characters'
            return HTTPStatus.BAD_REQUEST, {"error": error}
        try:
            await self._orders.write(order, self._region)
        except Unavailable as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"id": order, "error": f"not written: {error}"}
        return HTTPStatus.CREATED, {"id": order, "region": self._region}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, request after request."""
        try:
            while request := await _request(reader):
                writer.write(_response(*await self.respond(request), keep=request.keep))
                await writer.drain()
                if not request.keep:
                    return
        except Bad as error:
            writer.write(_response(HTTPStatus.BAD_REQUEST, {"error": str(error)}, keep=False))
        except (TimeoutError, ConnectionError):
            return
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Request | None:
    try:
        async with asyncio.timeout(IDLE):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, version = first.split()
            fields = (line.partition(":") for line in lines if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in fields}
            if "transfer-encoding" in headers:
                raise Bad("send a Content-Length")
            length = int(headers.get("content-length", 0))
            if not 0 <= length <= LIMIT:
                raise Bad(f"the body may have {LIMIT} bytes")
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise Bad(f"the head may have {LIMIT} bytes") from None
    except ValueError:
        raise Bad("this is not HTTP") from None
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Request(method, path.partition("?")[0], body, keep)


def _response(status: HTTPStatus, document: dict[str, object], *, keep: bool) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + body


async def serve(lab: Lab, region: Region) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    databases = {other.name: postgres.conninfo(lab, other, postgres.APPLICATION) for other in lab.regions.values()}
    shop = Shop(region.name, Orders(databases))
    listener = await asyncio.start_server(shop.connection, region.address, lab.shop_port, limit=LIMIT, backlog=512)
    await stop.wait()
    listener.close()


if __name__ == "__main__":
    _lab = read(Path(sys.argv[1]))
    asyncio.run(serve(_lab, _lab.region(sys.argv[2])))
