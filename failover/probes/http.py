"""Asks an HTTP or HTTPS address once and judges its status and its body."""

from functools import partial
from pathlib import Path
from socket import socket
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from failover.clock import Clock
from failover.probes._exchange import BODY_LIMIT, Answer, Exchange, GarbledError, checked_url, cut
from failover.probes.looking import look
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed


class HttpProbeConfig(Model):
    """`expect` are the good statuses, `contains` a text that the first MiB of the body must have.

    `timeout` bounds the whole exchange, body included. Redirects are not followed: they are a status like any other.
    """

    url: str
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    expect: tuple[Annotated[int, Field(ge=100, le=599)], ...] = (200,)
    contains: str = ""
    headers: dict[str, str | Secret] = {}
    timeout: Duration = 2.0
    ca_file: Path | None = None
    verify: bool = True

    @field_validator("expect")
    @classmethod
    def _some(cls, expect: tuple[int, ...]) -> tuple[int, ...]:
        if not expect:
            raise ValueError("no status would be good; write at least one, like [200]")
        return expect

    @field_validator("url")
    @classmethod
    def _checked(cls, url: str) -> str:
        return checked_url(url)


class HttpProbe:
    """Passes where a good status came back, and the text where one is wanted.

    Another status, a refused or broken connection and a certificate that is not accepted fail. Silence, an
    unreachable network and a name that cannot be resolved are unknown.
    """

    Config: ClassVar[type[BaseModel]] = HttpProbeConfig

    def __init__(self, config: HttpProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._exchange = Exchange(
            config.url, config.method, config.headers, config.timeout, config.ca_file, verify=config.verify
        )

    def probe(self) -> Verdict:
        """One request, `timeout` at most."""
        open_now: list[socket] = []
        see = partial(self._see, open_now)
        return look(self._exchange.shown, self._config.timeout, self._clock, see, partial(cut, open_now))

    def _see(self, open_now: list[socket]) -> Verdict:
        try:
            return self._judge(self._exchange.go(open_now))
        except GarbledError as error:
            return failed(str(error))

    def _judge(self, answer: Answer) -> Verdict:
        if answer.status not in self._config.expect:
            to = f" to {answer.headers['Location'].split('?')[0]}" if "Location" in answer.headers else ""
            return failed(f"{answer.came}{to}, expected {' or '.join(map(str, self._config.expect))}")
        if self._config.contains and self._config.contains not in answer.body.decode("utf-8", "replace"):
            short = " in its first MiB" if len(answer.body) == BODY_LIMIT else ""
            return failed(f"{answer.came}, but '{self._config.contains}' is not in its body{short}")
        return passed(answer.came)
