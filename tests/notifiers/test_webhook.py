import gc
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Failed
from failover.notifiers.webhook import WebhookConfig, WebhookNotifier
from tests.probes.servers import black_hole, dripping, free_port, http, request, self_signed, serving, silent

CANARY = "canary-webhook-33"


def notifier(**config: Any) -> WebhookNotifier:
    return WebhookNotifier("chat", WebhookConfig.model_validate({"timeout": "5s", **config}), SYSTEM)


def refusal(**config: Any) -> str:
    with pytest.raises(Failed) as caught:
        notifier(**config).send("east is drained")
    assert caught.value.where == "notifier chat"
    assert caught.value.next
    assert CANARY not in str(caught.value)
    return caught.value.what


@contextmanager
def receiving(status: str = "200 OK") -> Iterator[tuple[int, list[bytes]]]:
    """A server that keeps every request with its body."""
    came: list[bytes] = []

    def handler(connection: Any, over: Any) -> None:  # noqa: ARG001 - a handler
        whole = request(connection)
        head, _, body = whole.partition(b"\r\n\r\n")
        [length] = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        while len(body) < length:
            body += connection.recv(65536)
        came.append(head + b"\r\n\r\n" + body)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(handler) as port:
        yield port, came


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_a_message_is_posted_as_json(status: str) -> None:
    with receiving(status) as (port, came):
        notifier(url=f"http://127.0.0.1:{port}/hooks/1", headers={"X-Team": "shop"}).send('"east" → west\n🗾')
    [whole] = came
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hooks/1 HTTP/1.1\r\n")
    assert b"Content-Type: application/json\r\n" in head
    assert b"\r\nX-Team: shop" in head
    assert json.loads(body) == {"text": '"east" → west\n🗾'}


def test_secrets_are_sent_as_url_and_header_and_struck_from_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as (port, came):
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{port}/{CANARY}")
        monkeypatch.setenv("TOKEN", f"Bearer {CANARY}")
        chat = notifier(url={"env": "HOOK"}, headers={"Authorization": {"env": "TOKEN"}})
        chat.send("first")
        chat.send(f"the token is Bearer {CANARY}")
    assert f"POST /{CANARY} ".encode() in came[0]
    assert f"Authorization: Bearer {CANARY}\r\n".encode() in came[0]
    assert b'{"text": "the token is [secret]"}' in came[1]


@pytest.mark.parametrize("status", [301, 302, 400, 404, 410, 429, 500])
def test_any_other_status_fails(status: int) -> None:
    with serving(http(f"{status} No", head="Location: /elsewhere\r\n")) as port:
        assert refusal(url=f"http://127.0.0.1:{port}/{CANARY}") == f"127.0.0.1 answered {status}"


def test_a_secret_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{free_port()}/{CANARY}")
    assert refusal(url={"env": "HOOK"}) == "127.0.0.1 could not be reached: Connection refused"


@pytest.mark.parametrize(
    "handler",
    [silent, dripping(b"", b"H"), dripping(b"HTTP/1.1 200 OK\r\nX: ", b"a")],
    ids=["silent", "status", "header"],
)
def test_silence_fails_in_time(handler: Any) -> None:
    begun = time.monotonic()
    with serving(handler) as port:
        assert refusal(url=f"http://127.0.0.1:{port}/", timeout="500ms") == "127.0.0.1 did not answer within 0.50 s"
        assert time.monotonic() - begun < 3


def test_a_slow_body_is_not_waited_for() -> None:
    with serving(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"a")) as port:
        notifier(url=f"http://127.0.0.1:{port}/").send("east is drained")


def test_a_black_hole_fails_in_time() -> None:
    with black_hole() as port:
        assert refusal(url=f"http://127.0.0.1:{port}/", timeout="300ms") == "127.0.0.1 did not answer within 0.30 s"


def test_a_name_that_cannot_be_resolved_fails() -> None:
    assert refusal(url="http://chat.invalid/", timeout="5s").startswith("chat.invalid could not be reached: ")


def test_a_certificate_that_nobody_vouches_for_fails(tmp_path: Any) -> None:
    context, _ = self_signed(tmp_path)
    with serving(http(), context) as port:
        assert refusal(url=f"https://127.0.0.1:{port}/").startswith("127.0.0.1 could not be reached: ")


@pytest.mark.parametrize("value", ["not a url", f"http://shop:{CANARY}@chat.example/", f"http://[::1/{CANARY}"])
def test_a_secret_that_is_no_usable_url_fails(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOOK", value)
    assert refusal(url={"env": "HOOK"}).startswith("Secret(env: HOOK) holds no usable URL: a URL ")


def test_a_secret_that_no_header_can_hold_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", f"{CANARY}\r\nX-Other: 1")
    said = refusal(url="http://chat.example/", headers={"Authorization": {"env": "TOKEN"}})
    assert said == "header Authorization has a character that no header can have"


@pytest.mark.parametrize("url", ["chat.example/hook", "ftp://chat.example/", f"https://me:{CANARY}@chat.example/"])
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WebhookConfig.model_validate({"url": url})
    [error] = caught.value.errors(include_url=False)
    assert error["msg"].startswith("Value error, a URL ")
    assert CANARY not in error["msg"]


def test_nothing_is_left_open() -> None:
    with serving(http()) as port:
        notifier(url=f"http://127.0.0.1:{port}/").send("one")
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "bounded" and thread.is_alive()]
