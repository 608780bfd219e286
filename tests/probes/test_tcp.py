import socket
from collections.abc import Iterator
from typing import Any

import pytest

from failover.probes.tcp import TcpProbe
from failover.testing.probes import ProbeContract, see
from failover.verdict import Outcome
from tests.probes.servers import black_hole, free_port, serving, silent


class TestTcpProbe(ProbeContract):
    provider = TcpProbe

    @pytest.fixture
    def good(self) -> Iterator[dict[str, Any]]:
        with serving(silent) as port:
            yield {"host": "127.0.0.1", "port": port}

    @pytest.fixture
    def bad(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": free_port()}

    @pytest.fixture
    def blind(self) -> Iterator[dict[str, Any]]:
        with black_hole() as port:
            yield {"host": "127.0.0.1", "port": port, "timeout": "500ms"}


def test_its_evidence_names_what_was_asked() -> None:
    port = free_port()
    [line] = see(TcpProbe, {"host": "127.0.0.1", "port": port}).evidence
    assert line.startswith(f"connect to 127.0.0.1 port {port}: connection refused (")


def addresses(*ports: int) -> Any:
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


def test_one_address_that_accepts_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(silent) as port:
        monkeypatch.setattr(socket, "getaddrinfo", addresses(free_port(), port))
        assert see(TcpProbe, {"host": "shop.example", "port": 80}).passed


def test_it_fails_where_all_addresses_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(free_port(), free_port()))
    assert see(TcpProbe, {"host": "shop.example", "port": 80}).outcome is Outcome.FAIL


def test_one_silent_address_makes_it_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as hole:
        monkeypatch.setattr(socket, "getaddrinfo", addresses(hole, free_port()))
        verdict = see(TcpProbe, {"host": "shop.example", "port": 80, "timeout": "300ms"})
    assert verdict.outcome is Outcome.UNKNOWN


def test_a_name_that_cannot_be_resolved_is_unknown() -> None:
    verdict = see(TcpProbe, {"host": "shop.invalid", "port": 80, "timeout": "5s"})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "its name cannot be resolved" in str(verdict)
