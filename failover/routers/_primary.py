"""The primary of a zone that takes dynamic updates: one connection an exchange, and its answers in clear words.

Sources: RFC 2136 sections 2.2 and 3 for the response codes, RFC 8945 section 5.3 for those of TSIG.
"""

import binascii
from collections.abc import Sequence
from typing import Annotated, Literal

import dns.exception
import dns.message
import dns.rcode
import dns.tsig
import dns.update
from pydantic import Field, field_validator

from failover.clock import Clock
from failover.errors import Failed, Indeterminate
from failover.routers._dns import ServerText, Unanswered, full_name, reason
from failover.routers._stream import Stream
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration

_UNMET = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
_WORDS = {
    dns.rcode.REFUSED: ("refuses updates from {who} (REFUSED)", "allow it in the zone's update-policy or ACL"),
    dns.rcode.NOTAUTH: (
        "does not take an update of zone {zone} from {who} (NOTAUTH)",
        "check that it is the primary of 'zone', and that its ACL wants {key} there",
    ),
    dns.rcode.NOTZONE: (
        "says that a record is not in zone {zone} (NOTZONE)",
        "check 'zone' and the routes' 'record'",
    ),
    dns.rcode.SERVFAIL: ("failed inside (SERVFAIL)", "look at its log: often the zone's journal cannot be written"),
    dns.rcode.FORMERR: ("does not understand the update (FORMERR)", "check that it is a primary that takes updates"),
    dns.rcode.NOTIMP: ("does not take dynamic updates (NOTIMP)", "allow them on the server, or name another one"),
}
_TSIG_WORDS = (
    (
        dns.tsig.PeerBadKey,
        "does not know the key '{key}', or not for this zone (BADKEY)",
        "check tsig name and algorithm on both sides, and the zone's ACL",
    ),
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

    `resolvers` are recursive ones, whose caches decide when clients hear of a change. `timeout` bounds each exchange
    with a server.
    """

    server: ServerText
    zone: str
    tsig: Tsig | None = None
    name_servers: tuple[ServerText, ...] = ()
    resolvers: tuple[ServerText, ...] = ()
    timeout: Annotated[Duration, Field(gt=0)] = 5.0

    @field_validator("zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        return full_name(zone)


class Unmet(Exception):
    """A prerequisite of an update does not hold; nothing was written. The message is the response code."""


class Primary:
    """Talks to the server of `config` over TCP. Each call takes twice the config's timeout at most."""

    def __init__(self, name: str, config: Rfc2136Config, clock: Clock) -> None:
        self.where = f"router {name}"
        self.config = config
        self._clock = clock

    def ask(self, questions: Sequence[bytes]) -> list[bytes]:
        """The responses to queries of `questions`, over one connection, as they came. Raises Failed."""
        with self._connected() as stream:
            try:
                return stream.ask(questions)
            except (OSError, EOFError) as error:
                raise self._unanswered(error) from None

    def understood(self, wire: bytes) -> dns.message.Message:
        """The response in `wire`. Raises Failed."""
        try:
            return dns.message.from_wire(wire)
        except dns.exception.DNSException as error:
            raise self._unanswered(error) from None

    def update(self, message: dns.update.UpdateMessage) -> None:
        """Have `message` carried out. Writes.

        Raises Unmet where a prerequisite does not hold, Failed where the server refused for another reason or was
        not reached, Indeterminate where its answer did not come or cannot be trusted. A refusal needs no signature:
        a server that does not know the key or the zone has none to give.
        """
        key = self._key()
        if key is not None:
            message.use_tsig(key)
        with self._connected() as stream:
            try:
                wire = stream.exchange(message.to_wire())
            except (OSError, EOFError) as error:
                raise self._lost(reason(error)) from None
        code, signed = self._code(message, wire)
        if code in _UNMET:
            raise Unmet(dns.rcode.to_text(code))
        if code != dns.rcode.NOERROR:
            said, then = _WORDS.get(code, (f"answers {dns.rcode.to_text(code)}", "look at its log"))
            names = {"zone": self.config.zone, **self._who()}
            raise self.failed(f"{said.format(**names)}; nothing was written", then.format(**names))
        if key is not None and not signed:
            raise self._lost("it was not signed")

    def _code(self, message: dns.update.UpdateMessage, wire: bytes) -> tuple[dns.rcode.Rcode, bool]:
        """The response code in `wire`, and whether it was signed. Raises Failed and Indeterminate."""
        try:
            response = dns.message.from_wire(wire, keyring=message.keyring, request_mac=message.mac)
        except dns.tsig.PeerError as error:
            raise self._unsigned(error) from None
        except dns.exception.DNSException as error:
            try:
                response = dns.message.from_wire(wire)
            except dns.exception.DNSException:
                raise self._lost(f"it was damaged or signed wrongly: {reason(error)}") from None
        if not message.is_response(response):
            raise self._lost("it answers something else")
        return response.rcode(), response.had_tsig

    def _who(self) -> dict[str, str]:
        key = f"key '{self.config.tsig.name}'" if self.config.tsig else ""
        return {"who": key or "a client without a key", "key": key or "no key"}

    def _connected(self) -> Stream:
        at = self.config.server
        try:
            return Stream(at, self.config.timeout, self._clock)
        except Unanswered as error:
            raise Failed(str(error), where=self.where, next="check 'server'") from None
        except OSError as error:
            said = f"cannot be reached over TCP: {reason(error)}; nothing was written"
            raise self.failed(said, "check that it runs and that the network lets port 53 through") from None

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

    def _unanswered(self, error: Exception) -> Failed:
        return self.failed(f"did not answer: {reason(error)}", "check that it runs")

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
