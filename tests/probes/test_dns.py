import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from pydantic import ValidationError

from failover.probes.dns import DnsProbe, DnsProbeConfig, split
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.parts import program
from tests.probes.servers import answering_udp, free_port, serving, silent

ZONE = """
$TTL 60
@      SOA ns1 admin 1 3600 600 86400 60
       NS  ns1
ns1    A   127.0.0.1
www    A   192.0.2.1
www    A   192.0.2.2
six    AAAA 2001:db8::1
shop   CNAME www
far    CNAME elsewhere.example.
text   TXT "spring sale"
"""
LARGE = "".join(f"large TXT {number:03}{'x' * 200}\n" for number in range(40))

Ask = Callable[..., tuple[Outcome, str]]


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real name server with one zone, shop.test."""
    named = program("named", "bind9")
    home, port = tmp_path_factory.mktemp("bind"), free_port()
    (home / "shop.test").write_text(ZONE + LARGE)
    (home / "named.conf").write_text(
        f"""
        options {{
            directory "{home}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
            recursion no; dnssec-validation no; pid-file none; session-keyfile none; lock-file none;
        }};
        controls {{}};
        zone "shop.test" {{ type primary; file "shop.test"; }};
        """
    )
    with subprocess.Popen([named, "-g", "-c", home / "named.conf"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        log = []
        for line in server.stderr:
            log.append(line)
            if line.endswith(" running\n"):
                break
        else:
            pytest.fail("BIND did not start:\n" + "".join(log))
        yield f"127.0.0.1:{port}"
        server.terminate()
        server.stderr.read()


@pytest.fixture
def ask(bind: str) -> Ask:
    return lambda name, **config: asked(bind, name, **config)


def asked(server: str, name: str = "www.shop.test", **config: Any) -> tuple[Outcome, str]:
    """The outcome and the one line of evidence, without what was asked and the time it took."""
    verdict = see(DnsProbe, {"server": server, "name": name, "timeout": "2s", **config})
    [line] = verdict.evidence
    start = f"{name} {config.get('type', 'A')} at {server}: "
    assert line.startswith(start), line
    return verdict.outcome, line.removeprefix(start).rsplit(" (", 1)[0]


class TestDnsProbe(ProbeContract):
    provider = DnsProbe

    @pytest.fixture
    def good(self, bind: str) -> dict[str, Any]:
        return {"server": bind, "name": "www.shop.test", "expect": ["192.0.2.1", "192.0.2.2"]}

    @pytest.fixture
    def bad(self, bind: str) -> dict[str, Any]:
        return {"server": bind, "name": "nowhere.shop.test"}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with answering_udp(lambda _: []) as port:
            yield {"server": f"127.0.0.1:{port}", "name": "www.shop.test", "timeout": "500ms"}


class TestDnsProbeOverTcp(TestDnsProbe):
    @pytest.fixture
    def good(self, bind: str) -> dict[str, Any]:
        return {"server": bind, "name": "www.shop.test", "tcp": True}

    @pytest.fixture
    def bad(self) -> dict[str, Any]:
        return {"server": f"127.0.0.1:{free_port()}", "name": "www.shop.test", "tcp": True}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with serving(silent) as port:
            yield {"server": f"127.0.0.1:{port}", "name": "www.shop.test", "tcp": True, "timeout": "500ms"}


BOTH = "192.0.2.1, 192.0.2.2"


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("www.shop.test", {}, (Outcome.PASS, f"answered {BOTH}")),
        ("www.shop.test", {"tcp": True}, (Outcome.PASS, f"answered {BOTH}")),
        ("www.shop.test.", {"expect": ["192.0.2.2", "192.0.2.1", "192.0.2.3"]}, (Outcome.PASS, f"answered {BOTH}")),
        ("www.shop.test", {"expect": ["192.0.2.1"]}, (Outcome.FAIL, f"answered {BOTH}, expected only 192.0.2.1")),
        ("www.shop.test", {"min_answers": 2}, (Outcome.PASS, f"answered {BOTH}")),
        ("www.shop.test", {"min_answers": 3}, (Outcome.FAIL, f"answered {BOTH}, expected 3 or more")),
        ("shop.shop.test", {}, (Outcome.PASS, f"answered {BOTH}")),
        ("shop.shop.test", {"type": "CNAME", "expect": ["www.shop.test"]}, (Outcome.PASS, "answered www.shop.test.")),
        ("far.shop.test", {}, (Outcome.FAIL, "answered no record, expected 1 or more")),
        ("six.shop.test", {"type": "AAAA", "expect": ["2001:DB8:0::1"]}, (Outcome.PASS, "answered 2001:db8::1")),
        ("text.shop.test", {"type": "TXT", "expect": ['"spring sale"']}, (Outcome.PASS, 'answered "spring sale"')),
        ("six.shop.test", {}, (Outcome.FAIL, "answered no record, expected 1 or more")),
        ("six.shop.test", {"min_answers": 0}, (Outcome.PASS, "answered no record")),
        ("nowhere.shop.test", {"min_answers": 0}, (Outcome.FAIL, "answered NXDOMAIN")),
        ("www.elsewhere.test", {}, (Outcome.FAIL, "answered REFUSED")),
    ],
)
def test_what_it_makes_of_real_answers(
    ask: Ask, name: str, config: dict[str, Any], expected: tuple[Outcome, str]
) -> None:
    assert ask(name, **config) == expected


def test_an_answer_too_large_for_udp_is_asked_for_again(ask: Ask) -> None:
    assert ask("large.shop.test", type="TXT", min_answers=40)[0] is Outcome.PASS


def test_a_port_where_nobody_listens_fails() -> None:
    assert asked(f"127.0.0.1:{free_port()}") == (Outcome.FAIL, "connection refused")


def test_a_server_whose_name_cannot_be_resolved_is_unknown() -> None:
    outcome, said = asked("ns1.invalid:53", timeout="5s")
    assert (outcome, said.split(":")[0]) == (Outcome.UNKNOWN, "its name cannot be resolved")


def answer(wire: bytes, *addresses: str) -> dns.message.Message:
    query = dns.message.from_wire(wire)
    made = dns.message.make_response(query)
    for address in addresses:
        made.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
    return made


def test_answers_to_other_questions_are_not_listened_to() -> None:
    def astray(wire: bytes) -> list[bytes]:
        other = answer(wire, "198.51.100.66")
        other.id ^= 1
        other_name = dns.message.make_response(dns.message.make_query("other.test", "A", id=other.id ^ 1))
        return [b"", b"garbage", other.to_wire(), other_name.to_wire(), wire, answer(wire, "192.0.2.1").to_wire()]

    with answering_udp(astray) as port:
        assert asked(f"127.0.0.1:{port}") == (Outcome.PASS, "answered 192.0.2.1")


def test_garbage_without_end_is_unknown_in_time() -> None:
    with answering_udp(lambda _: [b"garbage"] * 50) as port:
        assert asked(f"127.0.0.1:{port}", timeout="300ms") == (Outcome.UNKNOWN, "no answer within 0.30 s")


def test_a_broken_server_fails() -> None:
    def servfail(wire: bytes) -> list[bytes]:
        made = answer(wire)
        made.set_rcode(dns.rcode.SERVFAIL)
        return [made.to_wire()]

    with answering_udp(servfail) as port:
        assert asked(f"127.0.0.1:{port}") == (Outcome.FAIL, "answered SERVFAIL")


def test_an_answer_cut_off_without_tcp_to_ask_again_fails() -> None:
    def cut(wire: bytes) -> list[bytes]:
        made = answer(wire)
        made.flags |= dns.flags.TC
        return [made.to_wire()]

    with answering_udp(cut) as port:
        assert asked(f"127.0.0.1:{port}") == (Outcome.FAIL, "connection refused")


def test_a_tcp_answer_that_drips_is_unknown_in_time() -> None:
    def handler(connection: Any, over: Any) -> None:
        connection.recv(65536)
        connection.sendall(b"\xff\xff")
        while not over.wait(0.1):
            connection.sendall(b"x")

    with serving(handler) as port:
        begun = time.monotonic()
        expected = (Outcome.UNKNOWN, "no answer within 0.50 s")
        assert asked(f"127.0.0.1:{port}", tcp=True, timeout="500ms") == expected
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"\x00\x04HTTP", "what it answers is not dns"),
        (b"\x00\xffshort", "it closed the connection before its answer was whole"),
    ],
)
def test_what_is_not_dns_over_tcp_fails(first: bytes, said: str) -> None:
    def handler(connection: Any, over: Any) -> None:  # noqa: ARG001 - a handler
        connection.recv(65536)
        connection.sendall(first)

    with serving(handler) as port:
        assert asked(f"127.0.0.1:{port}", tcp=True) == (Outcome.FAIL, said)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("ns1.example:5353", ("ns1.example", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_servers_are_named_in_every_usual_form(server: str, expected: tuple[str, int]) -> None:
    assert split(server) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"server": "ns1:dns"}, "'ns1:dns' is not a server; write 192.0.2.1"),
        ({"server": "ns1:70000"}, "'ns1:70000' is not a server"),
        ({"server": ":53"}, "':53' is not a server"),
        ({"name": "a..b"}, "'a..b' is not a domain name"),
        ({"type": "AB"}, "'AB' is not a record type"),
        ({"expect": ["192.0.2.300"]}, "'192.0.2.300' under 'expect' cannot be the answer to a question for A"),
        ({"type": "AAAA", "expect": ["192.0.2.1"]}, "cannot be the answer to a question for AAAA"),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DnsProbeConfig.model_validate({"server": "192.0.2.1", "name": "www.shop.test", **config})
    assert message in caught.value.errors()[0]["msg"]
