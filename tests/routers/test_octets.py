"""Records as octets: what is read and written so is what dnspython reads and writes."""

import struct
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.clock import SYSTEM
from failover.routers._octets import answered, message, owner, replacement
from failover.routers._stream import _answers
from failover.routers.rfc2136 import Rfc2136
from failover.world import RouteState
from tests.routers.specs import spec

ZONE = "example.test."
RECORD = f"www.{ZONE}"
NORMAL = {"east": 50, "west": 30}
KINDS: dict[str, dict[str, Any]] = {
    "A": {"addresses": {"east": ["192.0.2.1", "192.0.2.2"], "west": ["192.0.2.11"]}},
    "AAAA": {"addresses": {"east": ["2001:db8::1"], "west": ["2001:DB8::b", "2001:db8::c"]}},
    "SRV": {"targets": {"east": f"east.{ZONE}:443", "west": f"West.{ZONE}:8443"}, "priority": 7},
}
TEXTS = {
    "A": ["192.0.2.1", "192.0.2.2", "192.0.2.11", "198.51.100.1"],
    "AAAA": ["2001:db8::1", "2001:db8::b", "2001:db8::c", "2001:db8::ffff"],
    "SRV": [
        f"{priority} {weight} {port} {host}"
        for priority in (7, 8)
        for weight in (0, 5, 65_535)
        for port, host in ((443, f"east.{ZONE}"), (8443, f"west.{ZONE}"), (443, f"EAST.{ZONE}"), (443, "other.test."))
    ],
}


def router(kind: str) -> Rfc2136:
    config = Rfc2136.Config.model_validate({"server": "127.0.0.1:9", "zone": ZONE})
    model = Rfc2136.RouteConfig.model_validate({"record": RECORD, "type": kind, **KINDS[kind]})
    return Rfc2136("dns", config, {"www@dns": spec("www@dns", model, NORMAL)}, SYSTEM)


def response(kind: str, texts: list[str], ttl: int = 60, flags: int = 0) -> bytes:
    query = dns.message.make_query(RECORD, kind)
    made = dns.message.make_response(query)
    made.flags = (made.flags | dns.flags.AA) ^ flags
    if texts:
        made.answer.append(dns.rrset.from_text_list(RECORD, ttl, "IN", kind, texts))
    return made.to_wire()


@given(st.data())
def test_what_is_read_at_a_glance_is_what_a_closer_look_finds(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    texts = data.draw(st.lists(st.sampled_from(TEXTS[kind]), unique=True, max_size=4))
    one, wire = router(kind), response(kind, texts, data.draw(st.integers(0, 2**31 - 1)))
    glance = one._usual("www@dns", wire)
    closer = one._state("www@dns", one._records("www@dns", wire))
    if glance is not None:
        assert glance[0] == closer
    else:
        assert not isinstance(closer, RouteState) or f"EAST.{ZONE}" in str(texts)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("weights", [NORMAL, {"east": 0, "west": 30}, {"east": 50, "west": 0}])
def test_what_is_usual_is_read_at_a_glance(kind: str, weights: dict[str, int]) -> None:
    one = router(kind)
    wire = response(kind, list(one._config("www@dns").records(weights)), 5)
    assert (seen := one._usual("www@dns", wire)) is not None
    assert seen[0] == RouteState(weights, 5)


@pytest.mark.parametrize(
    "flags", [dns.flags.AA, dns.flags.TC, dns.flags.QR, 2, 3, 5], ids=["AA", "TC", "QR", "SERVFAIL", "NXDOMAIN", "5"]
)
def test_an_answer_that_is_not_whole_or_not_theirs_is_looked_at_closely(flags: int) -> None:
    assert router("A")._usual("www@dns", response("A", ["192.0.2.11"], flags=flags)) is None


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_nonsense_is_never_taken_for_an_answer_of_more_than_it_has(junk: bytes, keep: int, start: int) -> None:
    config = router("A")._config("www@dns")
    wire = response("A", ["192.0.2.1", "192.0.2.2"])
    spoiled = wire[:keep] + junk + wire[start:]
    seen = answered(spoiled, config.question, config.kind)
    if seen is not None:
        try:
            told = dns.message.from_wire(spoiled, ignore_trailing=True)
        except dns.exception.DNSException:
            return
        assert {record.to_wire() for rrset in told.answer for record in rrset} == seen[1]
    _answers(spoiled, config.question)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", [RECORD, ZONE, "www.other.test.", "www.notexample.test."])
def test_an_update_is_what_dnspython_makes_of_the_same(kind: str, name: str) -> None:
    zone, record = dns.name.from_text(ZONE), dns.name.from_text(name)
    config = router(kind)._config("www@dns")
    before, after = {"east": 50, "west": 30}, {"east": 0, "west": 9}
    expected = dns.update.UpdateMessage(zone, id=7)
    expected.present(record, dns.rdataset.from_text_list("IN", kind, 0, config.records(before)))
    expected.replace(record, dns.rdataset.from_text_list("IN", kind, 60, config.records(after)))
    made = replacement(owner(record, zone), config.kind, config.rdata(before), config.rdata(after), 60)
    sent = message(zone, [made])
    sent.id = 7
    found, wanted = (dns.message.from_wire(each.to_wire()).to_text().splitlines() for each in (sent, expected))
    assert sorted(found) == sorted(wanted)


def test_a_response_is_to_the_question_that_was_asked() -> None:
    config = router("A")._config("www@dns")
    wire = response("A", ["192.0.2.1"])
    assert _answers(wire, config.question)
    assert _answers(wire.replace(b"www", b"WWW"), config.question)
    assert not _answers(wire.replace(b"www", b"api"), config.question)
    assert not _answers(struct.pack("!HHHHHH", 1, 0x8400, 0, 0, 0, 0), config.question)
    assert _answers(struct.pack("!HHHHHH", 1, 0x8405, 0, 0, 0, 0), config.question)
