"""Tokens, the environment, time, and nonsense, for every mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from failover._consul import Agent as ConsulAgent
from failover._consul import Tls
from failover.clock import SYSTEM
from failover.errors import Failed, Refused
from failover.secret import Secret
from failover.testing.routers import change
from failover.world import RouteState, Unknown
from tests.consuls import ROOT, TOKENS, Proxy, Two, answer
from tests.probes.servers import dripping, http, self_signed, serving
from tests.routers.consul.mesh import (
    EASTLESS,
    FULL,
    SERVICES,
    WEB,
    router,
    through,
)


def test_a_token_goes_to_its_own_datacenter_and_none_comes_from_the_environment(
    two: Two, proxies: Mapping[str, Proxy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {proxies['east'].url.split('/')[2]} login thief password thief")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hostile")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "192.0.2.1:1")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, "http://192.0.2.1:1")
    for mode in ("redirect", "maintenance", "weights"):
        one = through(two, proxies, mode)
        one.write([change(WEB, FULL, EASTLESS if mode != "weights" else RouteState({"east": 0, "west": 100}))])
        assert one.answers(WEB, EASTLESS)
        two.reset(SERVICES)
    for region, proxy in proxies.items():
        assert {token for _, token in proxy.seen} == {TOKENS[region]}
    assert proxies["east"].writes()


@pytest.mark.usefixtures("two")
def test_a_transaction_carries_the_token_too(proxies: Mapping[str, Proxy]) -> None:
    proxy = proxies["east"]
    agent = ConsulAgent("here", proxy.url, "east", Secret({"env": "CONSUL_EAST"}), 2)
    made = agent.client().txn.put([{"KV": {"Verb": "set", "Key": "failover/txn", "Value": "eA=="}}])
    assert made["Errors"] is None
    assert proxy.seen[-1] == ("PUT /v1/txn HTTP/1.1", TOKENS["east"])


@pytest.mark.usefixtures("two")
def test_without_a_declared_token_there_is_none(
    proxies: Mapping[str, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", TOKENS["east"])
    agent = ConsulAgent("here", proxies["east"].url, "east", None, 2)
    with pytest.raises(Failed, match="refuses it to who comes without a token: Permission denied"):
        agent.put("kv/failover/x", "y")
    assert {token for _, token in proxies["east"].seen} == {""}


@pytest.mark.parametrize("mode", ["redirect", "maintenance", "weights"])
@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("secret", "said", "then"),
    [
        ("11111111-2222-3333-4444-555555555555", "does not know the token (ACL not found)", "Secret(env: CONSUL_"),
        (ROOT[:8] + "\n" + ROOT[8:], "has a character that no header can have", "line breaks"),
        ("", "the environment variable CONSUL_", "export CONSUL_"),
    ],
)
def test_a_wrong_token_is_said_and_not_shown(
    two: Two, monkeypatch: pytest.MonkeyPatch, mode: str, secret: str, said: str, then: str
) -> None:
    for region in TOKENS:
        monkeypatch.setenv(f"CONSUL_{region.upper()}", secret)
    one = router(two, mode)
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown)
    assert said in seen.why
    with pytest.raises(Failed) as error:
        one.write([change(WEB, FULL, EASTLESS)])
    assert said in error.value.what
    assert then in error.value.next
    assert not secret or secret not in str(error.value)
    assert not one.settled(WEB, FULL, "").passed


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("redirect", "refuses it to this token: Permission denied"),
        ("maintenance", "the lock of a write was not taken"),
    ],
)
def test_what_a_token_may_not_is_said(two: Two, mode: str, said: str) -> None:
    one = router(two, mode, who="READER")
    assert one.read([WEB]) == {WEB: FULL}
    with pytest.raises(Failed) as error:
        one.write([change(WEB, FULL, EASTLESS)])
    assert said in error.value.what
    assert "nothing was written" in error.value.what
    assert "let the token for east do that" in error.value.next


@pytest.mark.parametrize("mode", ["redirect", "maintenance", "weights"])
@pytest.mark.parametrize(
    "nonsense",
    [
        answer("<html>"),
        answer("[[[[[[[["),
        answer([1, 2]),
        answer("seven"),
        answer(7),
        answer({"ModifyIndex": "x"}),
        answer([{"Node": {}, "Service": None}]),
        answer("rpc error", "500 Oops"),
        answer("", "302 Found", Location="http://192.0.2.1/"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        "hang",
        "close",
    ],
)
def test_nonsense_is_unknown_and_writes_nothing(
    two: Two, proxies: Mapping[str, Proxy], mode: str, nonsense: Any
) -> None:
    for proxy in proxies.values():
        proxy.fault = lambda _: nonsense
    one = through(two, proxies, mode, timeout="300ms")
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown)
    assert seen.why
    with pytest.raises((Failed, Refused)):
        one.write([change(WEB, FULL, EASTLESS)])
    assert [line for proxy in proxies.values() for line in proxy.writes()] == []
    assert not one.settled(WEB, FULL, "").passed
    assert not any(verdict.passed for name, verdict in one.answers(WEB, FULL).items() if "dns" not in name)


@pytest.mark.usefixtures("two")
def test_an_index_that_goes_backwards_is_forgotten(proxies: Mapping[str, Proxy]) -> None:
    proxy = proxies["east"]
    indexes = iter(["7", "7", "3", "nonsense", "-1", "9", "9"])
    proxy.fault = lambda _: answer({"at": len(proxy.seen)}, X_Consul_Index=next(indexes))
    agent = ConsulAgent("here", proxy.url, "east", None, 1)
    deadline = SYSTEM.monotonic() + 10
    assert agent.watch("kv/x", lambda body: body["at"] == 7, SYSTEM, deadline)
    asked = [dict(parse_qsl(line.split()[1].partition("?")[2])).get("index", "") for line, _ in proxy.seen]
    assert asked == ["", "7", "7", "", "", "", "9"]


def test_a_watch_ends_in_time(two: Two) -> None:
    agent = ConsulAgent("here", two.east.url, "east", Secret({"env": "CONSUL_EAST"}), 0.5)
    begun = SYSTEM.monotonic()
    assert not agent.watch("health/service/web", lambda _: False, SYSTEM, begun + 1)
    assert SYSTEM.monotonic() - begun < 4


def test_an_answer_that_never_ends_is_given_up_on() -> None:
    with serving(dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", b" ")) as port:
        agent = ConsulAgent("here", f"http://127.0.0.1:{port}", "east", None, 0.5)
        begun = SYSTEM.monotonic()
        with pytest.raises(Failed, match=r"gave no answer within 0\.5 s"):
            agent.get("kv/x")
        assert SYSTEM.monotonic() - begun < 3


def test_tls_believes_the_authorities_that_are_named(tmp_path: Path) -> None:
    tls, ca_file = self_signed(tmp_path)
    reply = http(body=b"[1]")
    with serving(reply, tls) as port:
        url = f"https://localhost:{port}"
        assert ConsulAgent("here", url, "east", None, 2, Tls(ca_file)).get("kv/x").body == [1]
        with pytest.raises(Failed, match=r"no TLS connection: .*certificate verify failed"):
            ConsulAgent("here", url, "east", None, 2).get("kv/x")
        with pytest.raises(Failed, match="cannot be asked"):
            ConsulAgent("here", url, "east", None, 2, Tls(tmp_path / "none.pem")).get("kv/x")
