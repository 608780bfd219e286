"""The consul probe against a real agent, and against what only looks like one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.probes.consul import ConsulProbe, ConsulProbeConfig
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.consuls import READERS, TOKENS, Two
from tests.probes.servers import black_hole, dripping, free_port, http, request, reset, self_signed, serving, silent
from tests.routers.specs import until

NOBODY = "c0c0c0c0-1111-2222-3333-444444444444"
NO_NODES = "c1c1c1c1-1111-2222-3333-444444444444"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("consul"))
    try:
        two.start()
        two.east.put("acl/policy", {"Name": "web", "Rules": 'service "web" { policy = "read" }'})
        two.east.put("acl/token", {"SecretID": NOBODY, "Policies": []})
        two.east.put("acl/token", {"SecretID": NO_NODES, "Policies": [{"Name": "web"}]})
        two.reset({"web": ("web-1", "web-2")})
        two.east.put("acl/token/00000000-0000-0000-0000-000000000002", {"Policies": []})
        yield two
    finally:
        two.stop()


@pytest.fixture
def two(servers: Two, monkeypatch: pytest.MonkeyPatch) -> Two:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", TOKENS["east"])
    monkeypatch.setenv("READER", READERS["east"])
    monkeypatch.setenv("NOBODY", NOBODY)
    monkeypatch.setenv("NO_NODES", NO_NODES)
    monkeypatch.setenv("WRONG", "11111111-2222-3333-4444-555555555555")
    return servers


class TestConsulProbe(ProbeContract):
    provider = ConsulProbe

    @pytest.fixture
    def good(self, two: Two) -> dict[str, Any]:
        return {"address": two.east.url, "service": "web", "passing": 2, "token": {"env": "READER"}}

    @pytest.fixture
    def bad(self, two: Two) -> dict[str, Any]:
        return {"address": two.east.url, "service": "web", "passing": 3, "token": {"env": "READER"}}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with serving(silent) as port:
            yield {"address": f"http://127.0.0.1:{port}", "service": "web", "timeout": "500ms"}


@pytest.mark.parametrize(
    ("config", "outcome", "said"),
    [
        ({}, Outcome.PASS, "2 of 2 instances are passing (at least 1)"),
        ({"datacenter": "west"}, Outcome.PASS, "web in west at http"),
        ({"passing": 3}, Outcome.FAIL, "2 of 2 instances are passing (at least 3)"),
        ({"tag": "blue"}, Outcome.PASS, "2 of 2 instances"),
        ({"tag": "green"}, Outcome.FAIL, "no instance is registered (at least 1)"),
        ({"service": "nobody"}, Outcome.FAIL, "no instance is registered"),
        ({"datacenter": "north"}, Outcome.UNKNOWN, "does not get through to the datacenter: No path to datacenter"),
        ({"token": {"env": "WRONG"}}, Outcome.UNKNOWN, "does not know the token (ACL not found)"),
        ({"token": {"env": "NOBODY"}}, Outcome.UNKNOWN, "refuses it to this token: Permission denied"),
        ({"token": {"env": "NO_NODES"}}, Outcome.UNKNOWN, "it shows no nodes: the token may not read them"),
        ({"token": None}, Outcome.UNKNOWN, "refuses it to who comes without a token"),
        ({"token": {"env": "NOT_SET_AT_ALL"}}, Outcome.UNKNOWN, "the environment variable NOT_SET_AT_ALL is not set"),
    ],
)
def test_what_it_sees(two: Two, config: dict[str, Any], outcome: Outcome, said: str) -> None:
    whole = {"address": two.east.url, "service": "web", "token": {"env": "READER"}, "timeout": "5s", **config}
    verdict = see(ConsulProbe, whole)
    assert verdict.outcome is outcome, str(verdict)
    assert said in str(verdict)


def test_what_is_critical_or_in_maintenance_does_not_count(two: Two) -> None:
    config = {"address": two.west.url, "service": "web", "token": {"env": "READER"}, "passing": 2}
    for path, query, undone in (
        ("agent/check/fail/up-web-1", "", "agent/check/pass/up-web-1"),
        ("agent/service/maintenance/web-1", "enable=true", "agent/service/maintenance/web-1"),
    ):
        two.west.put(path, query=query)
        until(lambda: see(ConsulProbe, config).outcome is Outcome.FAIL, 5, "1 of 2")
        assert "1 of 2 instances are passing (at least 2)" in str(see(ConsulProbe, config))
        two.west.put(undone, query="enable=false")
        until(lambda: see(ConsulProbe, config).passed, 5, "2 of 2")


@pytest.mark.parametrize("of", ["agent/maintenance", "agent/service/maintenance/web-1"])
def test_what_our_router_has_drained_can_be_found_fit_to_come_back(two: Two, of: str) -> None:
    config = {"address": two.west.url, "service": "web", "token": {"env": "READER"}, "passing": 2}
    two.west.put(of, query="enable=true&reason=failover:+route+web%40consul,+region+west+is+drained")
    until(lambda: "drained by failover" in str(see(ConsulProbe, config)), 5, "the maintenance")
    assert see(ConsulProbe, config).passed
    two.west.put("agent/check/fail/up-web-1")
    until(lambda: see(ConsulProbe, config).outcome is Outcome.FAIL, 5, "1 of 2")
    two.west.put("agent/check/pass/up-web-1")
    two.west.put(of, query="enable=false")
    until(lambda: "drained" not in str(see(ConsulProbe, config)), 5, "the end")
    assert see(ConsulProbe, config).passed


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (http(body=b"<html>"), "something that is not JSON"),
        (http(body=b'{"a": 1}'), "is not a list of instances"),
        (http(body=b"7"), "is not a list of instances"),
        (http(body=b'[{"Checks": [{}]}]'), "is not a list of instances"),
        (http("500 Oops", b"No cluster leader"), "has no leader"),
        (http("500 Oops", b"rpc error: secret \x1b[2J"), "answers 500: rpc error"),
        (http("301 Moved", head="Location: http://192.0.2.1/\r\n"), "redirects elsewhere"),
        (reset, "broke its answer off"),
        (lambda *_: None, "broke its answer off"),
        (lambda connection, _: request(connection) and connection.sendall(b"SSH-2.0\r\n"), "broke its answer off"),
        (dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n[", b" "), "gave no answer within"),
    ],
)
def test_what_cannot_be_asked_is_unknown(handler: Any, said: str) -> None:
    with serving(handler) as port:
        verdict = see(ConsulProbe, {"address": f"http://127.0.0.1:{port}", "service": "web", "timeout": "600ms"})
    assert verdict.outcome is Outcome.UNKNOWN
    assert said in str(verdict)
    assert str(verdict).isprintable()


def test_an_agent_that_is_gone_is_unknown() -> None:
    verdict = see(ConsulProbe, {"address": f"http://127.0.0.1:{free_port()}", "service": "web"})
    assert verdict.outcome is Outcome.UNKNOWN, "the service may well run where its agent does not"
    assert "cannot be reached: connection refused" in str(verdict)
    with black_hole() as port:
        verdict = see(ConsulProbe, {"address": f"http://127.0.0.1:{port}", "service": "web", "timeout": "500ms"})
    assert verdict.outcome is Outcome.UNKNOWN


def test_tls(tmp_path: Path) -> None:
    tls, ca_file = self_signed(tmp_path)
    body = b'[{"Checks": [{"CheckID": "up", "Status": "passing"}]}]'
    with serving(http(body=body), tls) as port:
        config = {"address": f"https://localhost:{port}", "service": "web"}
        assert see(ConsulProbe, {**config, "ca_file": str(ca_file)}).passed
        assert see(ConsulProbe, config).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "127.0.0.1:8500"},
        {"address": "https://user:secret@consul:8501"},
        {"passing": 0},
        {"service": ""},
        {"service": "web/../kv"},
        {"timeout": 0},
        {"token": "s3cret"},
        {"port": 8500},
    ],
)
def test_mistakes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConsulProbeConfig.model_validate({"address": "http://127.0.0.1:8500", "service": "web", **wrong})
