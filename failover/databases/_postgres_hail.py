"""Whether a server that does not let us in is there all the same: our mistake must not look like a dead primary."""

import socket
import struct
from collections.abc import Callable
from typing import Any

import psycopg

from failover.clock import Clock
from failover.databases._postgres_view import Seen, Silent
from failover.errors import Refused

_PROTOCOL = 3 << 16
_LONGEST = 4096
_OUT_OF_ORDER = ("57", "58", "XX", "53100", "53200")
"""SQLSTATEs of a server that is starting, stopping, broken or out of disk or memory, whoever asks it."""


def refuses(error: psycopg.Error) -> bool:
    """Whether a server that runs properly has said no to us in particular."""
    return bool(error.sqlstate) and not str(error.sqlstate).startswith(_OUT_OF_ORDER)


def answers(options: dict[str, Any], seconds: float, clock: Clock) -> bool:
    """Whether a server is there that would let somebody in, or has a reason of ours not to. Logs nobody in.

    libpq does not give the SQLSTATE of a failed log-in, and its words depend on the server's language. So the first
    message of the protocol is sent once more, in the clear and with no secret in it; the kind of the reply counts.
    """
    deadline = clock.monotonic() + seconds
    names = {"user": options["user"], "database": options["dbname"], "application_name": "failover"}
    text = b"".join(part.encode() + b"\0" for name in names.items() for part in name) + b"\0"
    try:
        with _connect(str(options["host"]), options["port"], seconds) as wire:
            wire.sendall(struct.pack("!II", 8 + len(text), _PROTOCOL) + text)
            reply = _reply(wire, lambda: max(0.01, deadline - clock.monotonic()))
    except (OSError, EOFError):
        return False
    if reply[:1] == b"R":
        return True
    fields = {field[:1]: field[1:].decode(errors="replace") for field in reply[5:].split(b"\0")}
    return not fields.get(b"C", _OUT_OF_ORDER[0]).startswith(_OUT_OF_ORDER)


def not_our_mistake(answer: Seen | Silent, where: str) -> None:
    """Raise Refused where nothing says that the member is dead, so that nobody turns it off."""
    if not isinstance(answer, Silent) or (answer.asked and not answer.answers):
        return
    if answer.look and not answer.look.running:
        return
    if answer.answers:
        what = f"it answers: {answer.why}; that is our own mistake, not a dead primary"
    else:
        what = f"it could not be asked: {answer.why}; that is our own mistake, and says nothing of a primary"
    raise Refused(
        "unknown-primary",
        what,
        seen=(answer.why,),
        where=where,
        next="mend what it says (the password, the user, the database, the name or the number of connections) and"
        " plan again; if it is out of order all the same, stop its server or cut it off first",
    )


def named(host: str, port: int) -> bool:
    """Whether `host` is an address, or a name that exists as far as anybody says."""
    if host.startswith("/"):
        return True
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return error.errno not in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return True


def _reply(wire: socket.socket, left: Callable[[], float]) -> bytes:
    """The first message back, its kind and length included. Raises EOFError where it is none of a log-in."""
    reply, size = b"", 5
    while len(reply) < size:
        wire.settimeout(left())
        more = wire.recv(size - len(reply))
        if not more:
            raise EOFError
        reply += more
        if len(reply) == 5:
            size = 1 + int.from_bytes(reply[1:], "big")
            if reply[:1] not in (b"R", b"E") or size > _LONGEST:
                raise EOFError
    return reply


def _connect(host: str, port: int, seconds: float) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), seconds)
    wire = socket.socket(socket.AF_UNIX)
    try:
        wire.settimeout(seconds)
        wire.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        wire.close()
        raise
    return wire
