"""The primary of a zone that takes dynamic updates: one connection an exchange, and its answers in clear words.

Sources: RFC 2136 sections 2.2 and 3 for the response codes, RFC 8945 section 5.3 for those of TSIG.
"""

import binascii
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
from pydantic import Field, field_validator

from failover.errors import Failed, Indeterminate
from failover.routers._dns import ServerText, Unanswered, address, reason
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration

_UNMET = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
_WORDS = {
    dns.rcode.REFUSED: ("refuses updates from this key", "allow it in the zone's update-policy or ACL"),
    dns.rcode.NOTAUTH: ("is not the primary of zone {zone}", "check 'server' and 'zone'"),
    dns.rcode.NOTZONE: ("says that a record is not in zone {zone}", "check 'zone' and the routes' 'record'"),
    dns.rcode.SERVFAIL: ("failed inside (SERVFAIL)", "look at its log: often the zone's journal cannot be written"),
    dns.rcode.FORMERR: ("does not understand the update (FORMERR)", "check that it is a primary that takes updates"),
    dns.rcode.NOTIMP: ("does not take dynamic updates (NOTIMP)", "allow them on the server, or name another one"),
}
_TSIG_WORDS = (
    (dns.tsig.PeerBadKey, "does not know the key '{key}' (BADKEY)", "check tsig name and algorithm on both sides"),
    (dns.tsig.PeerBadSignature, "says that the secret of key '{key}' is wrong (BADSIG)", "check the secret"),
    (dns.tsig.PeerBadTime, "says that the clocks differ too much (BADTIME)", "set the time here or there"),
    (dns.tsig.PeerBadTruncation, "wants longer signatures (BADTRUNC)", "use a longer tsig algorithm"),
)


class Tsig(Model):
    """A shared key. `secret` is in base64, as `tsig-keygen` prints it."""

    name: str
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1", "hmac-md5"] = (
        "hmac-sha256"
    )
    secret: Secret


class Rfc2136Config(Model):
    """The zone's primary. `name_servers` are asked whether a change has settled; by default just the primary.

    `timeout` bounds each exchange with a server.
    """

    server: ServerText
    zone: str
    tsig: Tsig | None = None
    name_servers: tuple[ServerText, ...] = ()
    timeout: Annotated[Duration, Field(gt=0)] = 5.0

    @field_validator("zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        return full_name(zone)


class Unmet(Exception):
    """A prerequisite of an update does not hold; nothing was written. The message is the response code."""


class Primary:
    """Talks to the server of `config` over TCP. Each exchange takes twice the config's timeout at most."""

    def __init__(self, name: str, config: Rfc2136Config) -> None:
        self.where = f"router {name}"
        self.config = config

    def ask(self, queries: Sequence[dns.message.Message]) -> list[dns.message.Message]:
        """The responses to `queries`, over one connection. Raises Failed."""
        with self._connected() as connection:
            try:
                return [dns.query.tcp(query, "", self.config.timeout, sock=connection) for query in queries]
            except (dns.exception.DNSException, OSError, EOFError) as error:
                raise self.failed(f"did not answer: {reason(error)}", "check that it runs") from None

    def update(self, message: dns.update.UpdateMessage) -> None:
        """Have `message` carried out. Writes.

        Raises Unmet where a prerequisite does not hold, Failed where the server refused for another reason or was
        not reached, Indeterminate where its answer did not come or cannot be trusted.
        """
        key = self._key()
        if key is not None:
            message.use_tsig(key)
        with self._connected() as connection:
            try:
                response = dns.query.tcp(message, "", self.config.timeout, sock=connection)
            except dns.tsig.PeerError as error:
                raise self._unsigned(error) from None
            except dns.exception.FormError as error:
                raise self._lost(f"it was damaged or not signed: {reason(error)}") from None
            except (dns.exception.DNSException, OSError, EOFError) as error:
                raise self._lost(reason(error)) from None
        code = response.rcode()
        if code in _UNMET:
            raise Unmet(dns.rcode.to_text(code))
        if code != dns.rcode.NOERROR:
            said, then = _WORDS.get(code, (f"answers {dns.rcode.to_text(code)}", "look at its log"))
            raise self.failed(f"{said.format(zone=self.config.zone)}; nothing was written", then)
        if key is not None and not response.had_tsig:
            raise self._lost("it was not signed")

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        at = self.config.server
        try:
            made = socket.create_connection((address(at, self.config.timeout), at.port), self.config.timeout)
        except Unanswered as error:
            raise Failed(str(error), where=self.where, next="check 'server'") from None
        except OSError as error:
            said = f"cannot be reached over TCP: {reason(error)}; nothing was written"
            raise self.failed(said, "check that it runs and that the network lets port 53 through") from None
        with made:
            made.setblocking(False)
            yield made

    def _key(self) -> dns.tsig.Key | None:
        tsig = self.config.tsig
        if tsig is None:
            return None
        try:
            return dns.tsig.Key(tsig.name, tsig.secret.reveal(), tsig.algorithm)
        except (binascii.Error, ValueError):
            raise Failed(
                f"the secret of TSIG key '{tsig.name}' is not base64; nothing was written",
                where=self.where,
                next="write it as tsig-keygen prints it",
            ) from None

    def failed(self, said: str, then: str) -> Failed:
        """What `said` about this server, as an error."""
        return self.error(f"DNS server {self.config.server} {said}", then)

    def error(self, what: str, then: str) -> Failed:
        """`what` happened with this router, and what to do then."""
        return Failed(what, where=self.where, next=then)

    def _unsigned(self, error: dns.tsig.PeerError) -> Failed:
        name = self.config.tsig.name if self.config.tsig else ""
        for kind, said, then in _TSIG_WORDS:
            if isinstance(error, kind):
                return self.failed(f"{said.format(key=name)}; nothing was written", then)
        return self.failed(f"refuses the signature ({reason(error)}); nothing was written", "check the TSIG key")

    def _lost(self, why: str) -> Indeterminate:
        return Indeterminate(
            f"an update was sent to DNS server {self.config.server}, but its answer was lost ({why}); "
            "it may have been made or not",
            where=self.where,
            next="read the records back before anything else; resume does",
        )


def full_name(name: str) -> str:
    try:
        full = dns.name.from_text(name)
    except dns.exception.DNSException:
        raise ValueError(f"'{name}' is not a domain name; it looks like shop.example.com.") from None
    if len(full) < 2:
        raise ValueError(f"'{name}' is not a full domain name; it looks like shop.example.com.")
    return full.to_text().lower()
