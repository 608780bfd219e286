"""What an authoritative server of Route 53 answers to a query. Pure, but for the dice."""

from collections.abc import Sequence
from random import Random

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from failover.lab.zone import Record, Zone


def pick(group: Sequence[Record], dice: Random) -> tuple[Record, ...]:
    """The records of one name and type that answer one query.

    Of weighted records one is picked, with its share of the sum as probability. Weight 0 is never picked,
    unless all are 0: then each is as likely as the other. Records without an identifier are answered whole.
    """
    alternatives = [record for record in group if record.identifier is not None]
    if not alternatives:
        return tuple(group)
    weights = [record.weight or 0 for record in alternatives]
    return tuple(dice.choices(alternatives, weights if any(weights) else None))


def answer(query: dns.message.Message, zone: Zone | None, origin: str, dice: Random) -> dns.message.Message:
    """The response to `query` from `zone`, which is None as long as it was never read."""
    response = dns.message.make_response(query)
    if query.opcode() != dns.opcode.QUERY:
        response.set_rcode(dns.rcode.NOTIMP)
        return response
    if len(query.question) != 1:
        response.set_rcode(dns.rcode.FORMERR)
        return response
    question = query.question[0]
    inside = question.name.is_subdomain(dns.name.from_text(origin))
    if question.rdclass != dns.rdataclass.IN or not inside:
        response.set_rcode(dns.rcode.REFUSED)
        return response
    if zone is None:
        response.set_rcode(dns.rcode.SERVFAIL)
        return response
    response.flags |= dns.flags.AA
    name = question.name.to_text().lower()
    kind = dns.rdatatype.to_text(question.rdtype)
    for candidate in (kind, "CNAME"):
        if group := zone.get((name, candidate)):
            response.answer.append(_rrset(question.name, pick(group, dice)))
            return response
    if not _exists(question.name, zone):
        response.set_rcode(dns.rcode.NXDOMAIN)
    if authority := zone.get((origin, "SOA")):
        response.authority.append(_negative(origin, authority))
    return response


def _exists(name: dns.name.Name, zone: Zone) -> bool:
    # A name that only has names below it exists too, without data.
    return any(dns.name.from_text(known).is_subdomain(name) for known, _ in zone)


def _rrset(name: dns.name.Name, records: Sequence[Record]) -> dns.rrset.RRset:
    values = [value for record in records for value in record.values]
    # Route 53 takes every name in a value for a full one, with its last dot or without.
    return dns.rrset.from_text_list(
        name, records[0].ttl, "IN", records[0].kind, values, origin=dns.name.root, relativize=False
    )


def _negative(origin: str, authority: Sequence[Record]) -> dns.rrset.RRset:
    rrset = _rrset(dns.name.from_text(origin), authority)
    # RFC 2308: a negative answer lives for the smaller of the SOA's own TTL and its last field.
    rrset.ttl = min(rrset.ttl, rrset[0].minimum)
    return rrset
