"""The runtime API of one HAProxy process: one line of commands a connection, and its answers.

Source: HAProxy's management guide, section 9.3 (Unix Socket commands). Commands are separated by semicolons, and an
empty line ends the answer to each.
"""

import ipaddress
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from failover.bounded import bounded

_LINE = 8_000
"""Characters of one line; HAProxy takes no more than its tune.bufsize, 16384 unless told otherwise."""
_CHUNK = 65_536


class Unheard(Exception):
    """An instance gave no usable answer. `sent` says whether it may have carried out what it was asked."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """One HAProxy process: the path of its stats socket, or a host and port where that listens on TCP."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """What writers on this machine have in common: the socket's directory, or the address."""
        return os.path.dirname(self.path) if self.path else str(self)  # noqa: PTH120 - a text is wanted

    def typed(self, line: str) -> str:
        """How a person has `line` carried out."""
        return f'echo "{line}" | socat stdio {self.path or f"TCP:{self}"}'

    def ask(self, commands: Sequence[str], seconds: float) -> list[str]:
        """The answer to each of `commands`, which HAProxy carries out in order. Raises Unheard.

        Other connections' commands may come between them: HAProxy carries out one command at a time, not one line.
        """
        line = ";".join(commands)
        if len(line) > _LINE:
            raise Unheard(f"{self}: a line of {len(line)} characters is too long for it", sent=False)
        talk = _Talk(self, line, seconds)
        try:
            text = bounded(seconds, talk, talk.cut)
        except TimeoutError:
            raise Unheard(f"{self} gave no whole answer within {seconds:g} s", sent=talk.sent) from None
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            what = f"the connection to {self} broke: {said}" if talk.sent else f"{self} cannot be reached: {said}"
            raise Unheard(what, sent=talk.sent) from None
        found = _answers(text)
        if len(found) != len(commands):
            why = "closed the connection without a word" if not text else "does not answer as HAProxy does"
            raise Unheard(f"{self} {why} ({len(found)} answers to {len(commands)} commands)", sent=True)
        return found


@dataclass
class _Talk:
    """One exchange, in a thread of its own. What was cut sends nothing any more."""

    instance: Instance
    line: str
    seconds: float
    sent: bool = False
    _gone: bool = False
    _made: socket.socket | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> str:
        with self._connected() as made:
            with self._guard:
                if self._gone:
                    raise TimeoutError
                self._made = made
                self.sent = True
            made.sendall(self.line.encode() + b"\n")
            parts = []
            while part := made.recv(_CHUNK):
                parts.append(part)
        return b"".join(parts).decode(errors="replace")

    def cut(self) -> None:
        with self._guard:
            self._gone = True
            if self._made is not None:
                with suppress(OSError):
                    self._made.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> socket.socket:
        at = self.instance
        if at.host:
            return socket.create_connection((at.host, at.port), self.seconds)
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(self.seconds)
            made.connect(at.path)
        except BaseException:
            made.close()
            raise
        return made


def lines(commands: Sequence[str], room: int = _LINE) -> list[list[str]]:
    """`commands` in as many lines as it takes; one that is too long by itself stays alone."""
    found: list[list[str]] = []
    used = room + 1
    for command in commands:
        if used + len(command) + 1 > room:
            found.append([])
            used = 0
        found[-1].append(command)
        used += len(command) + 1
    return found


def instance(value: object) -> Instance:
    """`/path/of/a.sock` or `host:port` as an Instance. Raises ValueError."""
    if isinstance(value, Instance):
        return value
    text = str(value)
    if text.startswith("/"):
        if len(text.encode()) > 107:
            raise ValueError(f"'{text}' is longer than the path of a socket can be (107 bytes)")
        return Instance(path=os.path.normpath(text))
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or not 0 < int(port) < 65536 or not _is_host(host, bare):
        raise ValueError(
            f"'{text}' is not a stats socket; write its whole path, like /run/haproxy/admin.sock, or host:port"
        )
    return Instance(host=bare, port=int(port))


InstanceText = Annotated[
    Instance,
    BeforeValidator(instance),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "description": "/run/haproxy/admin.sock, or host:port"}),
]
"""A stats socket, written in a file as its path or as `host:port`."""


def _is_host(written: str, bare: str) -> bool:
    if ":" not in bare:
        return not any(character.isspace() or character in "/@[]" for character in bare)
    with suppress(ValueError):
        return written != bare and ipaddress.ip_address(bare).version == 6
    return False


def _answers(text: str) -> list[str]:
    found, part = [], []
    for line in text.splitlines():
        if line:
            part.append(line)
        else:
            found.append("\n".join(part))
            part = []
    return [*found, "\n".join(part)] if part else found
