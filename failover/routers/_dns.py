"""Asking DNS servers one question directly, for the routers that have to see what each of them answers."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from failover.verdict import Verdict

_TRIES = 2
_ALIKE = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


class Unanswered(Exception):
    """A server gave no usable answer; the message says which one and what happened."""


@dataclass(frozen=True, slots=True)
class Server:
    """A DNS server, by address or by name, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server(value: object) -> Server:
    """`host:port`, `host` or `[address]:port` as a Server; the port is 53 where there is none. Raises ValueError."""
    if isinstance(value, Server):
        return value
    text = str(value)
    try:
        return Server(str(ipaddress.ip_address(text)), 53)
    except ValueError:
        host, colon, port = text.rpartition(":")
    host, port = (host, port) if colon else (text, "53")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or any(c.isspace() or c in "/@" for c in host):
        raise ValueError(f"'{text}' is not a server; write host:port, like 192.0.2.53:53 or ns1.example.com:53")
    return Server(host, int(port))


ServerText = Annotated[
    Server,
    BeforeValidator(server),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "description": "host:port, like 192.0.2.53:53"}),
]
"""A server, written in a file as `host:port`."""


def address(at: Server, timeout: float) -> str:
    """The IP address of `at`, by the system's resolvers where it is given by name. Raises Unanswered."""
    try:
        return str(ipaddress.ip_address(at.host))
    except ValueError:
        if at.host == "localhost":
            return "127.0.0.1"
    try:
        found = dns.resolver.Resolver().resolve_name(at.host, lifetime=timeout)
        return next(iter(found.addresses()))
    except (dns.exception.DNSException, StopIteration, OSError) as error:
        raise Unanswered(f"{at}: its name cannot be resolved here ({type(error).__name__})") from None


def question(name: str | dns.name.Name, kind: str, *, recursive: bool = False) -> dns.message.QueryMessage:
    """A query for an authoritative server, which is not to recurse, or for a resolver, which is."""
    query = dns.message.make_query(name, kind)
    if not recursive:
        query.flags &= ~dns.flags.RD
    return query


def ask(
    at: Server, name: str | dns.name.Name, kind: str, timeout: float, *, recursive: bool = False
) -> dns.message.Message:
    """What `at` answers, over UDP, and over TCP where the answer is truncated: NOERROR or NXDOMAIN.

    Takes twice `timeout` seconds at most for a UDP question, since one datagram may get lost. Raises Unanswered.
    """
    host = address(at, timeout)
    for _ in range(_TRIES):
        query = question(name, kind, recursive=recursive)
        try:
            response, _ = dns.query.udp_with_fallback(query, host, timeout, at.port, ignore_unexpected=True)
        except dns.exception.Timeout:
            continue
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise Unanswered(f"{at} cannot be asked: {reason(error)}") from None
        if response.rcode() not in _ALIKE:
            raise Unanswered(f"{at} answers {dns.rcode.to_text(response.rcode())} for {name} {kind}")
        return response
    raise Unanswered(f"{at} gave no answer within {timeout:g} s, asked {_TRIES} times")


def answer(response: dns.message.Message, name: str | dns.name.Name, kind: str) -> dns.rrset.RRset | None:
    """The records of exactly that name and type in `response`, or None."""
    wanted = dns.name.from_text(name) if isinstance(name, str) else name
    return response.get_rrset(response.answer, wanted, dns.rdataclass.IN, dns.rdatatype.from_text(kind))


def reason(error: BaseException) -> str:
    """`error` in a few words, without a stack of wrappers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, EOFError):
        return str(error) or "the connection was closed"
    return str(error) or type(error).__name__


def each(servers: Sequence[Server], look: Callable[[Server], Verdict]) -> Iterable[Verdict]:
    """`look` at all of `servers` at the same time; the verdicts come in their order."""
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        return list(pool.map(look, servers))


def full_name(name: str) -> str:
    """`name` in lower case and with its last dot. Raises ValueError where it is not a full domain name."""
    try:
        full = dns.name.from_text(name)
    except dns.exception.DNSException:
        raise ValueError(f"'{name}' is not a domain name; it looks like shop.example.com.") from None
    if len(full) < 2:
        raise ValueError(f"'{name}' is not a full domain name; it looks like shop.example.com.")
    return full.to_text().lower()
