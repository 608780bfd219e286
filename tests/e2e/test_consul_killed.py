"""SIGKILL in the middle of a write to Consul; `resume` converges, and `undo` leads back to exactly what stood before.

Two of the cases wait until Consul has surely forgotten a write that nobody awaits any more. So all run side by side,
each on a service of its own.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.consuls import Two
from tests.e2e.consul_shop import WEST, Shop, addresses, chain, resolver, two, weights
from tests.e2e.laboratory import ended, events
from tests.e2e.product import Running
from tests.routers.specs import until

__all__ = ["two"]
KILLS = {
    "web": "PUT /v1/agent/service/maintenance",
    "chat": "PUT /v1/agent/service/register",
    "api": "PUT /v1/config",
}


@pytest.fixture
def shops(two: Two, tmp_path: Path) -> Iterator[dict[str, Shop]]:
    made = {}
    for service in KILLS:
        (tmp_path / service).mkdir()
        made[service] = Shop(two, tmp_path / service)
        made[service].only(service)
    yield made
    for shop in made.values():
        shop.close()


def killed(shop: Shop, first: str) -> str:
    """A run that dies with the first such request, which is carried out: only Consul knows what it did."""
    with Running(shop.topology, "run", "drain", "-i", "region=east", "--yes", **shop.secrets) as running:

        def kill() -> None:
            running.send(signal.SIGKILL)
            running.process.wait()

        for region in shop.proxies:
            shop.when(region, first, kill)
        running.end(-signal.SIGKILL)
    return shop.last()


def resumed(shop: Shop, run: str) -> None:
    assert shop("resume", run, "--yes", "--json").json["status"] == "done"
    ended(shop.topology)


def test_killed_in_the_middle_of_a_write(shops: dict[str, Shop]) -> None:
    two = shops["web"].two
    with ThreadPoolExecutor() as pool:
        runs = dict(zip(shops, pool.map(killed, shops.values(), KILLS.values()), strict=True))
        for shop, run in zip(shops.values(), runs.values(), strict=True):
            assert not events(shop.topology, run, "outcome"), "the write was under way"
        list(pool.map(resumed, shops.values(), runs.values()))
    assert addresses(two.east, "web.query.consul") == addresses(two.west, "web.query.consul") == WEST
    assert weights(two.west, "chat.service.east.consul") == []
    assert weights(two.west, "chat.service.west.consul") == [100, 100]
    assert chain(two.east) == chain(two.west) == {"west"}
    for service, run in runs.items():
        shops[service]("undo", run, "--yes")
    assert resolver(two.east) is None
    until(lambda: shops["web"].standing() == shops["web"].stood, 5, "all as it stood")
