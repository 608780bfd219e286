"""What the routers' tests share: routes, free ports, and a wait for something to become true."""

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from failover.ports import RouteSpec
from failover.topology import Route

LOOPBACK = "127.0.0.1"


def spec(identity: str, config: Any, weights: Mapping[str, int], ttl: int | None = 60) -> RouteSpec:
    service, _, router = identity.partition("@")
    return RouteSpec(Route(identity, service, router, weights, ttl, None, {}, ()), config)


def free_port() -> int:
    """A port of loopback that is free for TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((LOOPBACK, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)
