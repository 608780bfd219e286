"""The probe prometheus, against a real server; its queries need no scraped data."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from failover.clock import SYSTEM
from failover.errors import Failed
from failover.probes.prometheus import PrometheusProbe, PrometheusProbeConfig
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.probes.prometheus import Prometheus
from tests.probes.servers import black_hole, free_port, serving

TWO = 'label_replace(vector(1), "site", "east", "", "") or label_replace(vector(9), "site", "west", "", "")'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus of our own."""
    with Prometheus(tmp_path_factory.mktemp("prometheus")) as made:
        yield made.url


class TestPrometheusProbe(ProbeContract):
    provider = PrometheusProbe

    @pytest.fixture
    def good(self, server: str) -> dict[str, Any]:
        return {"url": server, "query": "vector(5)", "min": 1}

    @pytest.fixture
    def bad(self, server: str) -> dict[str, Any]:
        return {"url": server, "query": "vector(5)", "max": 1}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with black_hole() as port:
            yield {"url": f"http://127.0.0.1:{port}", "query": "vector(5)", "min": 1, "timeout": "500ms"}


CASES: dict[str, tuple[str, dict[str, float], Outcome, str]] = {
    "within": ("vector(5)", {"min": 5, "max": 5}, Outcome.PASS, "query vector(5): 5 ("),
    "a scalar": ("5", {"min": 5}, Outcome.PASS, "query 5: 5 ("),
    "below": ("vector(5)", {"min": 6}, Outcome.FAIL, "query vector(5): 5, at least 6 is good ("),
    "above": ("vector(5)", {"max": 4.5}, Outcome.FAIL, "query vector(5): 5, at most 4.5 is good ("),
    "one of two": (TWO, {"max": 5}, Outcome.FAIL, "site=west: 9, at most 5 is good ("),
    "both": (TWO, {"max": 9}, Outcome.PASS, "site=east: 1 ("),
    "nothing": ("no_such_series", {"min": 1}, Outcome.UNKNOWN, "it gives no series"),
    "no number": ("vector(0) / 0", {"min": 1}, Outcome.UNKNOWN, "nan"),
    "infinite": ("vector(1) / 0", {"max": 100}, Outcome.FAIL, "inf, at most 100 is good"),
    "a text": ('"five"', {"min": 1}, Outcome.UNKNOWN, "the query gives something else than numbers"),
    "a range": ("up[5m]", {"min": 1}, Outcome.UNKNOWN, ""),
    "a mistake": ("sum(", {"min": 1}, Outcome.UNKNOWN, "parse error"),
    "no bounds": ("vector(5)", {}, Outcome.UNKNOWN, "neither 'min' nor 'max' says what is good"),
}


@pytest.mark.parametrize(("query", "bounds", "outcome", "says"), CASES.values(), ids=list(CASES))
def test_what_it_makes_of_an_answer(
    server: str, query: str, bounds: dict[str, float], outcome: Outcome, says: str
) -> None:
    verdict = see(PrometheusProbe, {"url": server + "/", "query": query, **bounds})
    assert verdict.outcome is outcome
    assert says in verdict.evidence[0]


@pytest.mark.parametrize(
    ("query", "value"), [("vector(1840)", 1840.0), ("2 * 21", 42.0), (f"sum({TWO})", 10.0)], ids=str
)
def test_its_value(server: str, query: str, value: float) -> None:
    assert number(server, query) == value


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("no_such_series", "the query gives 0 series and one is needed"),
        (TWO, "the query gives 2 series and one is needed"),
        ("vector(0) / 0", "the query gives nan"),
        ("sum(", "refuses"),
    ],
    ids=["none", "two", "nan", "mistake"],
)
def test_what_is_no_value(server: str, query: str, says: str) -> None:
    with pytest.raises(Failed, match=says) as found:
        number(server, query)
    assert found.value.next


def test_a_server_that_is_not_there_gives_no_value() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Failed, match="cannot be asked: connection refused"):
        number(url, "1")
    assert see(PrometheusProbe, {"url": url, "query": "1", "min": 1}).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>a proxy</html>", "what answers is not Prometheus: 200 OK"),
        (b"[1]", "refuses"),
        (json.dumps({"status": "success", "data": {}}).encode(), "something else than numbers"),
        (json.dumps({"status": "error", "error": "too busy"}).encode(), "refuses: too busy"),
    ],
)
def test_what_is_not_prometheus_is_unknown(body: bytes, says: str) -> None:
    def answer(connection: Any, over: threading.Event) -> None:  # noqa: ARG001 - every handler is called alike
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with serving(answer) as port:
        verdict = see(PrometheusProbe, {"url": f"http://127.0.0.1:{port}", "query": "1", "min": 1})
    assert verdict.outcome is Outcome.UNKNOWN
    assert says in verdict.evidence[0]


def test_bounds_that_nothing_can_meet_are_told() -> None:
    with pytest.raises(ValueError, match="'min' is above 'max'"):
        PrometheusProbeConfig.model_validate({"url": "http://m:9090", "query": "1", "min": 2, "max": 1})


def number(url: str, query: str) -> float:
    return PrometheusProbe(PrometheusProbeConfig.model_validate({"url": url, "query": query}), SYSTEM).value()
