"""DNS messages over one TCP connection (RFC 7766): all that happens on it is over within a given time."""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import dns.exception
import dns.message

from failover.clock import Clock
from failover.routers._dns import Server, address

_AT_ONCE = 64


class Stream:
    """A connection to `at`. Raises Unanswered or OSError where none can be made within `seconds`.

    Each exchange on it takes `seconds` at most. Raises OSError, TimeoutError among them, or EOFError.
    """

    def __init__(self, at: Server, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock.monotonic() + seconds
        host = address(at, seconds)
        self._socket = socket.create_connection((host, at.port), self._left())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._socket.close()

    def exchange(self, wire: bytes) -> bytes:
        """The message that answers `wire`."""
        self._end = self._clock.monotonic() + self._seconds
        self._send([wire])
        return self._receive()

    def ask(self, queries: Sequence[dns.message.Message]) -> list[dns.message.Message]:
        """The responses to `queries`, in their order; many are under way at once. DNSException is nonsense."""
        self._end = self._clock.monotonic() + self._seconds
        found: dict[int, dns.message.Message] = {}
        for start in range(0, len(queries), _AT_ONCE):
            waiting = {position: queries[position] for position in range(start, len(queries))[:_AT_ONCE]}
            self._send([query.to_wire() for query in waiting.values()])
            while waiting:
                response = dns.message.from_wire(self._receive())
                # A server may answer in another order than it was asked (RFC 7766, section 7).
                position = next((each for each, query in waiting.items() if query.is_response(response)), None)
                if position is None:
                    raise EOFError("it answers what it was not asked")
                found[position] = response
                del waiting[position]
        return [found[position] for position in range(len(queries))]

    def _send(self, wires: Sequence[bytes]) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))

    def _receive(self) -> bytes:
        return self._exactly(struct.unpack("!H", self._exactly(2))[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            self._socket.settimeout(self._left())
            more = self._socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _left(self) -> float:
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left
