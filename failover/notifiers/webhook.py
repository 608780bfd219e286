"""Posts a message as JSON, `{"text": …}`, to a webhook: Slack, Mattermost, Teams' workflows, or one's own."""

import json
import re
from typing import ClassVar, NoReturn

import urllib3
from pydantic import BaseModel, field_validator
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from failover.bounded import bounded
from failover.clock import Clock
from failover.errors import Failed
from failover.schema import Model
from failover.secret import Secret, redact
from failover.units import Duration, duration

SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
URL_FORM = "a URL begins with http:// or https:// and a host, like https://chat.example/hooks/4711"


class WebhookConfig(Model):
    """`url` is often a secret itself. `headers` are sent besides the content type.

    `timeout` bounds the whole call.
    """

    url: str | Secret
    headers: dict[str, str | Secret] = {}
    timeout: Duration = 5.0

    @field_validator("url")
    @classmethod
    def _checked(cls, url: str | Secret) -> str | Secret:
        if isinstance(url, str):
            _parse(url)
        return url


class WebhookNotifier:
    """Delivered is what was answered with a status from 200 to 299. Redirects are not followed."""

    Config: ClassVar[type[BaseModel]] = WebhookConfig

    def __init__(self, name: str, config: WebhookConfig, clock: Clock) -> None:  # noqa: ARG002 - the port's
        self.name = name
        self._config = config

    def send(self, message: str) -> None:
        """Deliver `message`, without any secret in it, within `timeout`.

        Raises Failed where it was not accepted; after a timeout it may have been delivered all the same.
        """
        url = self._url()
        headers = {"Content-Type": "application/json", "User-Agent": "failover", **self._headers()}
        body = json.dumps({"text": redact(message)}).encode()
        try:
            status = bounded(self._config.timeout, lambda: self._post(url.url, headers, body), lambda: None)
        except (HTTPError, OSError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
                self._fail(
                    f"{url.host} did not answer within {duration(self._config.timeout)}", "see whether it is up"
                )
            reason = getattr(cause, "strerror", None) or type(cause).__name__
            self._fail(f"{url.host} could not be reached: {reason}", "check its address, and the network from here")
        if not 200 <= status <= 299:
            self._fail(f"{url.host} answered {status}", "check the URL and the headers; the message was not accepted")

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        with urllib3.PoolManager(timeout=urllib3.Timeout(total=self._config.timeout)) as pool:
            answer = pool.request(
                "POST", url, body=body, headers=headers, retries=False, redirect=False, preload_content=False
            )
            answer.close()
            return answer.status

    def _url(self) -> Url:
        url = self._config.url
        if isinstance(url, str):
            return _parse(url)
        try:
            return _parse(url.reveal())
        except ValueError as error:
            self._fail(f"{url!r} holds no usable URL: {error}", "correct what it holds")

    def _headers(self) -> dict[str, str]:
        headers = self._config.headers
        values = {key: value.reveal() if isinstance(value, Secret) else value for key, value in headers.items()}
        for key, value in values.items():
            if not SENDABLE.fullmatch(value):
                self._fail(f"header {key} has a character that no header can have", "look for line breaks in it")
        return values

    def _fail(self, what: str, todo: str) -> NoReturn:
        raise Failed(what, where=f"notifier {self.name}", next=todo) from None


def _parse(url: str) -> Url:
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise ValueError(URL_FORM) from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(URL_FORM)
    if parts.auth is not None:
        raise ValueError("a URL with a password in it ends up in logs; write url: {env: NAME}, or use headers")
    return parts
