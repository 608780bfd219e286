"""Asks Prometheus, or what speaks its HTTP API, for a number and judges it.

An instant query (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
"""

import json
import math
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import BaseModel, Field, field_validator, model_validator

from failover.bounded import bounded
from failover.clock import Clock
from failover.errors import Failed
from failover.probes._exchange import Answer, Exchange, GarbledError, checked_url, cut
from failover.probes.looking import look, plain
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed, unknown, worst

_SHOWN = 5


class PrometheusProbeConfig(Model):
    """Every series that `query` gives has to be at least `min` and at most `max`. `url` is the server's, without the
    path of its API."""

    url: str
    query: str = Field(min_length=1)
    min: float | None = None
    max: float | None = None
    headers: dict[str, str | Secret] = {}
    timeout: Duration = 3.0
    ca_file: Path | None = None
    verify: bool = True

    @field_validator("url")
    @classmethod
    def _checked(cls, url: str) -> str:
        return checked_url(url).rstrip("/")

    @model_validator(mode="after")
    def _bounds(self) -> "PrometheusProbeConfig":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("'min' is above 'max', so nothing could pass")
        return self


class PrometheusProbe:
    """Passes where every series is within the bounds, fails where one is not.

    No series at all, a value that is no number, an error and silence are unknown: they say nothing of a service.
    """

    Config: ClassVar[type[BaseModel]] = PrometheusProbeConfig

    def __init__(self, config: PrometheusProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        url = f"{config.url}/api/v1/query?{urlencode({'query': config.query})}"
        self._exchange = Exchange(url, "GET", config.headers, config.timeout, config.ca_file, verify=config.verify)

    def probe(self) -> Verdict:
        """One query, `timeout` at most. Never raises."""
        if self._config.min is None and self._config.max is None:
            return unknown(f"query {plain(self._config.query)}: neither 'min' nor 'max' says what is good")
        open_now: list[socket] = []
        asked = f"query {plain(self._config.query)}"
        see = partial(self._see, open_now)
        return look(asked, self._config.timeout, self._clock, see, partial(cut, open_now))

    def value(self) -> float:
        """The one number that the query gives. Raises Failed where it gives none, or several."""
        open_now: list[socket] = []
        try:
            found = bounded(self._config.timeout, lambda: self._numbers(open_now), partial(cut, open_now))
        except TimeoutError:
            raise Failed(
                f"Prometheus at {self._config.url} gave no answer", next="make it answer, or declare a number"
            ) from None
        if len(found) != 1:
            raise Failed(
                f"the query gives {len(found)} series and one is needed: {plain(self._config.query)}",
                next="put an aggregation around it, like sum(…)",
            )
        [value] = found.values()
        if not math.isfinite(value):
            raise Failed(f"the query gives {value}: {plain(self._config.query)}", next="see why it is no number")
        return value

    def _see(self, open_now: list[socket]) -> Verdict:
        found = self._numbers(open_now)
        if not found:
            return unknown("it gives no series")
        return worst(self._judge(name, value) for name, value in found.items())

    def _judge(self, name: str, value: float) -> Verdict:
        low, high = self._config.min, self._config.max
        said = f"{name}{value:g}"
        if math.isnan(value):
            return unknown(said)
        if low is not None and value < low:
            return failed(f"{said}, at least {low:g} is good")
        if high is not None and value > high:
            return failed(f"{said}, at most {high:g} is good")
        return passed(said)

    def _numbers(self, open_now: list[socket]) -> dict[str, float]:
        """The value of each series, by its labels. Raises Failed where the answer holds none."""
        try:
            answer = self._exchange.go(open_now)
        except GarbledError as error:
            raise Failed(f"Prometheus at {self._config.url}: {error}", next="see that this is Prometheus") from None
        except TimeoutError:
            raise
        except OSError as error:
            # That Prometheus is down says nothing of what it was to tell about.
            why = (error.strerror or str(error)).lower()
            raise Failed(f"Prometheus at {self._config.url} cannot be asked: {why}", next="make it answer") from None
        data = _decoded(answer)
        if data.get("status") != "success":
            why = data.get("error") or answer.came
            raise Failed(f"Prometheus at {self._config.url} refuses: {plain(str(why))}", next="correct the query")
        try:
            result, kind = data["data"]["result"], data["data"]["resultType"]
            if kind == "scalar":
                return {"": float(result[1])}
            return {_named(series["metric"]): float(series["value"][1]) for series in result}
        except (KeyError, TypeError, ValueError, IndexError):
            raise Failed("the query gives something else than numbers", next="ask for a vector or a scalar") from None


def _decoded(answer: Answer) -> dict[str, Any]:
    try:
        data = json.loads(answer.body)
    except ValueError:
        raise Failed(f"what answers is not Prometheus: {answer.came}", next="correct 'url'") from None
    return data if isinstance(data, dict) else {}


def _named(metric: dict[str, str]) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(metric.items())[:_SHOWN])
    return f"{labels}: " if labels else ""
