"""DNS messages over one TCP connection (RFC 7766): all that happens on it is over within a given time."""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from failover.clock import Clock
from failover.routers._dns import Server, address

_AT_ONCE = 64
_HEAD = struct.Struct("!HHHHHH")
_RESPONSE = 0xF800, 0x8000
"""Of the flags QR and the opcode, and how they are in the answer to a query."""


class Stream:
    """A connection to `at`. Raises Unanswered or OSError where none can be made within `seconds`.

    Each exchange on it takes `seconds` at most. Raises OSError, TimeoutError among them, or EOFError.
    """

    def __init__(self, at: Server, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock.monotonic() + seconds
        self._come = bytearray()
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

    def ask(self, questions: Sequence[bytes]) -> list[bytes]:
        """The responses to queries of `questions`, in their order, as they came. EOFError is nonsense too.

        Some of the queries are always under way: where they were sent in groups, each waiting for its answers, the
        last of them would wait for the timer of TCP that joins small segments.
        """
        self._end = self._clock.monotonic() + self._seconds
        found: list[bytes] = [b""] * len(questions)
        waiting: dict[int, int] = {}
        sent = 0
        while waiting or sent < len(questions):
            if len(waiting) <= _AT_ONCE // 2 and sent < len(questions):
                more = range(sent, len(questions))[: _AT_ONCE - len(waiting)]
                self._send([_HEAD.pack(each & 0xFFFF, 0, 1, 0, 0, 0) + questions[each] for each in more])
                waiting |= {each & 0xFFFF: each for each in more}
                sent = more.stop
            wire = self._receive()
            # A server may answer in another order than it was asked (RFC 7766, section 7).
            position = waiting.pop(int.from_bytes(wire[:2], "big"), None)
            if position is None or not _answers(wire, questions[position]):
                raise EOFError("it answers what it was not asked")
            found[position] = wire
        return found

    def _send(self, wires: Sequence[bytes]) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))

    def _receive(self) -> bytes:
        (count,) = struct.unpack("!H", self._exactly(2))
        return self._exactly(count)

    def _exactly(self, count: int) -> bytes:
        while len(self._come) < count:
            self._socket.settimeout(self._left())
            more = self._socket.recv(65_536)
            if not more:
                raise EOFError
            self._come += more
        data = bytes(self._come[:count])
        del self._come[:count]
        return data

    def _left(self) -> float:
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left


def _answers(wire: bytes, question: bytes) -> bool:
    """Whether `wire` is a response to a query of `question`; one that reports an error may leave the question out."""
    if len(wire) < _HEAD.size:
        return False
    _, flags, questions, *_ = _HEAD.unpack_from(wire)
    if flags & _RESPONSE[0] != _RESPONSE[1]:
        return False
    if not questions:
        return bool(flags & 0xF)
    return questions == 1 and wire[_HEAD.size :][: len(question)].lower() == question.lower()
