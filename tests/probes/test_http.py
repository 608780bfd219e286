import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.probes.http import HttpProbe, HttpProbeConfig
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.probes.servers import (
    black_hole,
    dripping,
    free_port,
    http,
    request,
    reset,
    self_signed,
    serving,
    silent,
)

CANARY = "canary-5f1d7c"


class TestHttpProbe(ProbeContract):
    provider = HttpProbe

    @pytest.fixture
    def good(self) -> Iterator[dict[str, Any]]:
        with serving(http()) as port:
            yield {"url": f"http://127.0.0.1:{port}/health", "contains": "ok"}

    @pytest.fixture
    def bad(self) -> Iterator[dict[str, Any]]:
        with serving(http("503 Service Unavailable")) as port:
            yield {"url": f"http://127.0.0.1:{port}/health"}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with serving(silent) as port:
            yield {"url": f"http://127.0.0.1:{port}/health", "timeout": "500ms"}


def seen(port: int, path: str = "/health", scheme: str = "http", **config: Any) -> tuple[Outcome, str]:
    """The outcome and the one line of evidence, without the address before it and the time after it."""
    url = f"{scheme}://127.0.0.1:{port}{path}"
    verdict = see(HttpProbe, {"url": url, "timeout": "1s", **config})
    [line] = verdict.evidence
    assert line.startswith(f"{config.get('method', 'GET')} {url}: "), line
    return verdict.outcome, line.split(": ", 1)[1].rsplit(" (", 1)[0]


@pytest.mark.parametrize(
    ("handler", "config", "expected"),
    [
        (http(), {}, (Outcome.PASS, "200 OK")),
        (http("204 No Content", b""), {"expect": [200, 204]}, (Outcome.PASS, "204 No Content")),
        (http("204 No Content", b""), {}, (Outcome.FAIL, "204 No Content, expected 200")),
        (http("500 Oops"), {"expect": [200, 204]}, (Outcome.FAIL, "500 Internal Server Error, expected 200 or 204")),
        (http("799 Odd"), {}, (Outcome.FAIL, "799, expected 200")),
        (http(), {"contains": "fine"}, (Outcome.FAIL, "200 OK, but 'fine' is not in its body")),
        (http(body="Zürich".encode()), {"contains": "Zürich"}, (Outcome.PASS, "200 OK")),
        (http(body=b"\xff\xfe ok"), {"contains": "ok"}, (Outcome.PASS, "200 OK")),
        (http(), {"method": "HEAD"}, (Outcome.PASS, "200 OK")),
        (
            http("301 Moved", head="Location: https://elsewhere.example/x?token=1\r\n"),
            {},
            (Outcome.FAIL, "301 Moved Permanently to https://elsewhere.example/x, expected 200"),
        ),
        (http("302 Found", head="Location: /x\r\n"), {"expect": [302]}, (Outcome.PASS, "302 Found")),
        (reset, {}, (Outcome.FAIL, "connection reset by peer")),
        (lambda *_: None, {}, (Outcome.FAIL, "remote end closed connection without response")),
    ],
)
def test_what_it_makes_of_an_answer(handler: Any, config: dict[str, Any], expected: tuple[Outcome, str]) -> None:
    with serving(handler) as port:
        outcome, said = seen(port, **config)
        if handler is not reset and said == "connection reset by peer":
            said = "remote end closed connection without response"
        assert (outcome, said) == expected


def test_a_large_body_is_read_up_to_a_limit() -> None:
    with serving(http(body=b"." * 3_000_000 + b"ok")) as port:
        expected = "200 OK, but 'ok' is not in its body in its first MiB"
        assert seen(port, contains="ok") == (Outcome.FAIL, expected)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 100\r\n\r\nok",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5\r\nok",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
    ids=["length", "chunk", "last-chunk", "no-chunk"],
)
def test_a_body_that_breaks_off_fails(rest: bytes) -> None:
    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest)

    with serving(handler) as port:
        assert seen(port) == (Outcome.FAIL, "its answer broke off")


@pytest.mark.parametrize("rest", [b"\r\nok", b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"])
def test_a_body_may_end_with_its_connection_or_come_in_chunks(rest: bytes) -> None:
    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest)

    with serving(handler) as port:
        assert seen(port, contains="ok") == (Outcome.PASS, "200 OK")


def test_a_request_is_written_as_servers_want_it() -> None:
    asked: list[bytes] = []

    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        asked.append(request(connection))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with serving(handler) as port:
        url = f"http://127.0.0.1:{port}/h%C3%A9?a=b"
        assert see(HttpProbe, {"url": url, "method": "POST", "expect": [204]}).passed
    first, *rest = asked[0].split(b"\r\n")
    assert first == b"POST /h%C3%A9?a=b HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}".encode(), b"Content-Length: 0", b"Accept-Encoding: identity"} <= set(rest)


def test_what_is_not_http_fails() -> None:
    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        request(connection)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with serving(handler) as port:
        assert seen(port) == (Outcome.FAIL, "what it answers is not HTTP: BadStatusLine")


def test_a_refused_connection_fails() -> None:
    assert seen(free_port()) == (Outcome.FAIL, "connection refused")


def test_a_black_hole_is_unknown() -> None:
    with black_hole() as port:
        assert seen(port, timeout="300ms") == (Outcome.UNKNOWN, "no answer within 0.30 s")


def test_a_name_that_cannot_be_resolved_is_unknown() -> None:
    verdict = see(HttpProbe, {"url": "http://shop.invalid/health", "timeout": "5s"})
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.evidence[0].startswith("GET http://shop.invalid/health: its name cannot be resolved: ")


def test_a_resolver_that_hangs_is_unknown_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolving.wait(10))
    verdict = see(HttpProbe, {"url": "http://shop.example/health", "timeout": "200ms"})
    resolving.set()
    assert verdict.outcome is Outcome.UNKNOWN
    assert "no answer within 0.20 s" in str(verdict)


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["status", "header", "body", "chunks"],
)
def test_an_answer_that_drips_is_unknown_in_time_and_is_hung_up_on(first: bytes, drop: bytes) -> None:
    with serving(dripping(first, drop)) as port:
        begun = time.monotonic()
        assert seen(port, timeout="500ms") == (Outcome.UNKNOWN, "no answer within 0.50 s")
        assert time.monotonic() - begun < 3
        _nobody_looks()


def test_a_tls_handshake_that_drips_is_unknown_in_time_and_is_hung_up_on() -> None:
    def handler(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        while not over.wait(0.1):
            connection.sendall(b"\x03")

    with serving(handler) as port:
        assert seen(port, scheme="https", timeout="500ms") == (Outcome.UNKNOWN, "no answer within 0.50 s")
        _nobody_looks()


def _nobody_looks() -> None:
    for _ in range(100):
        if not any(thread.name == "bounded" for thread in threading.enumerate()):
            return
        time.sleep(0.05)
    pytest.fail("the look goes on behind our back")


def test_tls_with_its_own_authority_passes(tmp_path: Path) -> None:
    context, file = self_signed(tmp_path)
    with serving(http(), context) as port:
        assert seen(port, scheme="https", ca_file=str(file)) == (Outcome.PASS, "200 OK")


def test_tls_that_nobody_vouches_for_fails_unless_told_not_to_look(tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path)
    with serving(http(), context) as port:
        outcome, said = seen(port, scheme="https")
        assert (outcome, said.split(":")[0]) == (Outcome.FAIL, "its certificate is not accepted")
        assert seen(port, scheme="https", verify=False) == (Outcome.PASS, "200 OK")


def test_tls_for_another_name_fails(tmp_path: Path) -> None:
    context, file = self_signed(tmp_path, "elsewhere.example")
    with serving(http(), context) as port:
        outcome, said = seen(port, scheme="https", ca_file=str(file))
        assert (outcome, said.split(":")[0]) == (Outcome.FAIL, "its certificate is not accepted")


def test_tls_asked_of_a_plain_server_fails() -> None:
    with serving(lambda connection, _: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        outcome, said = seen(port, scheme="https")
        assert (outcome, said.split(":")[0]) == (Outcome.FAIL, "no TLS connection")


def test_a_tls_handshake_that_hangs_is_unknown() -> None:
    with serving(silent) as port:
        assert seen(port, scheme="https", timeout="500ms") == (Outcome.UNKNOWN, "no answer within 0.50 s")


def test_a_missing_ca_file_is_unknown_and_says_so(tmp_path: Path) -> None:
    with serving(http()) as port:
        outcome, said = seen(port, scheme="https", ca_file=str(tmp_path / "none.pem"))
    assert outcome is Outcome.UNKNOWN
    assert "none.pem cannot be used: No such file or directory; name a readable file" in said


def test_headers_are_sent_and_secrets_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def handler(connection: socket.socket, over: threading.Event) -> None:  # noqa: ARG001 - a handler
        asked.append(request(connection))
        connection.sendall(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /{CANARY}\r\n\r\n".encode())

    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    with serving(handler) as port:
        _, said = seen(port, headers={"X-Plain": "plain", "Authorization": {"env": "SHOP_TOKEN"}})
    assert f"Authorization: {CANARY}\r\n".encode() in asked[0]
    assert b"X-Plain: plain\r\n" in asked[0]
    assert said == "302 Found to /[secret], expected 200"


def test_a_secret_that_is_not_set_is_unknown_and_says_so() -> None:
    outcome, said = seen(free_port(), headers={"Authorization": {"env": "FAILOVER_NOT_SET"}})
    assert outcome is Outcome.UNKNOWN
    assert "the environment variable FAILOVER_NOT_SET is not set; export FAILOVER_NOT_SET" in said


def test_a_secret_that_no_header_can_hold_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", f"{CANARY}\r\nX-Other: 1")
    outcome, said = seen(free_port(), headers={"Authorization": {"env": "SHOP_TOKEN"}})
    assert outcome is Outcome.UNKNOWN
    assert "the value of header Authorization has a character that no header can have" in said
    assert CANARY not in said


def test_a_query_is_asked_but_not_shown() -> None:
    with serving(http()) as port:
        verdict = see(HttpProbe, {"url": f"http://127.0.0.1:{port}/health?token={CANARY}"})
    assert verdict.passed
    assert verdict.evidence[0].startswith(f"GET http://127.0.0.1:{port}/health?…: 200 OK (")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"https://shop:{CANARY}@shop.example/", "send them in headers"),
        ("https://shop@shop.example/", "send them in headers"),
        ("shop.example/health", "a URL begins with http:// or https:// and a host"),
        ("ftp://shop.example/", "a URL begins with http:// or https:// and a host"),
        ("https:///health", "a URL begins with http:// or https:// and a host"),
        ("http://[::1/health", "this is not a URL"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpProbeConfig.model_validate({"url": url})
    [error] = caught.value.errors(include_url=False)
    assert message in error["msg"]
    assert CANARY not in error["msg"]


def test_a_list_of_no_good_status_is_refused() -> None:
    with pytest.raises(ValidationError, match="no status would be good"):
        HttpProbeConfig.model_validate({"url": "http://shop.example/", "expect": []})
