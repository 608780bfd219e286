"""Route 53's rules, answered from memory."""

from collections import Counter
from random import Random

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from failover.lab.answers import answer, pick
from failover.lab.zone import Record, Zone, grouped

DICE = Random(1)  # noqa: S311 - dice
NAME = "shop.lab.example."
AUTHORITY = "ns.lab.example. hostmaster.lab.example. 1 7200 900 1209600 5"
ZONE = grouped(
    [
        Record("lab.example.", "SOA", 900, (AUTHORITY,)),
        Record("lab.example.", "NS", 900, ("ns.lab.example",)),
        Record("plain.lab.example.", "A", 60, ("127.0.0.1", "127.0.0.2")),
        Record("other.lab.example.", "CNAME", 60, (NAME,)),
        Record("a.deep.lab.example.", "A", 60, ("127.0.0.3",)),
        Record(NAME, "A", 5, ("127.0.1.1",), "east", 50),
        Record(NAME, "A", 5, ("127.0.2.1",), "west", 50),
    ]
)


def weighted(**weights: int) -> list[Record]:
    return [Record(NAME, "A", 5, (name,), name, weight) for name, weight in weights.items()]


def picked(records: list[Record], times: int = 6000) -> dict[str, float]:
    dice = Random(7)  # noqa: S311 - dice
    counts = Counter(record.values[0] for _ in range(times) for record in pick(records, dice))
    return {name: count / times for name, count in counts.items()}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"east": 50, "west": 50}, {"east": 0.5, "west": 0.5}),
        ({"east": 25, "west": 75}, {"east": 0.25, "west": 0.75}),
        ({"east": 1, "west": 1, "north": 2}, {"east": 0.25, "west": 0.25, "north": 0.5}),
        ({"east": 0, "west": 1}, {"west": 1.0}),
        ({"east": 0, "west": 0}, {"east": 0.5, "west": 0.5}),
        ({"east": 0}, {"east": 1.0}),
    ],
)
def test_a_weighted_record_is_picked_with_its_share(weights: dict[str, int], shares: dict[str, float]) -> None:
    assert picked(weighted(**weights)) == pytest.approx(shares, abs=0.02)


def test_one_of_the_weighted_records_answers_and_only_one() -> None:
    assert len(pick(weighted(east=50, west=50), DICE)) == 1


def ask(name: str, kind: str, zone: Zone | None = ZONE, kind_class: str = "IN") -> dns.message.Message:
    return answer(dns.message.make_query(name, kind, kind_class), zone, "lab.example.", DICE)


def test_records_without_identifier_are_answered_whole() -> None:
    response = ask("plain.lab.example.", "A")
    assert {str(record) for record in response.answer[0]} == {"127.0.0.1", "127.0.0.2"}
    assert response.flags & dns.flags.AA


def test_names_are_found_in_any_case_and_answered_in_the_callers() -> None:
    response = ask("ShOp.LAB.example.", "A")
    assert response.answer[0].name.to_text() == "ShOp.LAB.example."


def test_a_name_in_a_value_is_a_full_one_without_its_dot() -> None:
    assert str(ask("lab.example.", "NS").answer[0][0]) == "ns.lab.example."


def test_an_alias_is_answered_for_every_type() -> None:
    assert str(ask("other.lab.example.", "A").answer[0][0]) == NAME


@pytest.mark.parametrize(
    ("name", "kind", "code", "authorities"),
    [
        ("nothing.lab.example.", "A", dns.rcode.NXDOMAIN, 1),
        (NAME, "AAAA", dns.rcode.NOERROR, 1),
        ("deep.lab.example.", "A", dns.rcode.NOERROR, 1),
        ("lab.example.", "SOA", dns.rcode.NOERROR, 0),
        ("example.", "A", dns.rcode.REFUSED, 0),
        ("shop.lab.example.org.", "A", dns.rcode.REFUSED, 0),
    ],
)
def test_what_is_not_there_is_told_apart(name: str, kind: str, code: int, authorities: int) -> None:
    response = ask(name, kind)
    assert response.rcode() == code
    assert len(response.authority) == authorities
    assert all(rrset.ttl == 5 for rrset in response.authority)


def test_another_class_is_refused() -> None:
    assert ask(NAME, "A", kind_class="CH").rcode() == dns.rcode.REFUSED


def test_before_the_zone_was_read_nothing_is_claimed() -> None:
    assert ask(NAME, "A", None).rcode() == dns.rcode.SERVFAIL


def test_only_queries_are_answered() -> None:
    query = dns.message.make_query(NAME, "A")
    query.set_opcode(dns.opcode.STATUS)
    assert answer(query, ZONE, "lab.example.", DICE).rcode() == dns.rcode.NOTIMP
