"""examples/consul-two-datacenters, by the command line as people run it, against real agents with ACLs on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.consul_shop import EAST, EXAMPLE, README, WEST, Shop, addresses, chain, resolver, shop, two, weights
from tests.e2e.product import failover
from tests.routers.specs import until

__all__ = ["shop", "two"]
QUERY = "web.query.consul"


def test_the_example_is_valid_as_it_stands(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "failover.yaml", tmp_path)
    failover(tmp_path / "failover.yaml", "validate")


def answers(shop: Shop, *, drained: bool) -> None:
    """Hold what clients see to this; Consul's DNS may be a moment behind its catalog, never longer."""
    east, west = shop.two.east, shop.two.west
    until(lambda: addresses(east, QUERY) == (WEST if drained else EAST), 5, "the prepared query in east")
    assert addresses(west, QUERY) == WEST
    assert weights(west, "chat.service.east.consul") == ([] if drained else [50, 50])
    assert weights(east, "chat.service.west.consul") == ([100, 100] if drained else [50, 50])
    assert chain(east) == ({"west"} if drained else {"east"})
    assert chain(west) == {"west"}


def test_a_region_leaves_in_each_of_the_three_ways_and_returns(shop: Shop) -> None:
    answers(shop, drained=False)
    plan = shop("plan", "drain", "-i", "region=east")
    assert "Nothing was changed" in plan.said
    assert "can only be written while Consul's primary datacenter east has a leader" in plan.said
    assert shop.writes() == []
    shop("run", "drain", "-i", "region=east", "--yes")
    assert shop.weights() == {
        "web": {"east": 0, "west": 100},
        "chat": {"east": 0, "west": 100},
        "api": {"east": 0, "west": 1},
    }
    answers(shop, drained=True)
    shop("run", "restore", "-i", "region=east", "--yes")
    answers(shop, drained=False)
    assert shop.standing() == shop.stood
    proven = shop("evidence", "east", "--max-age", "1h").out
    assert [line.split()[:2] for line in proven.splitlines()[1:]] == [
        ["east", each] for each in ("web", "chat", "api")
    ]
    assert proven.count("unchanged") == 3
    assert "no drain of it is on record" in shop("evidence", "west", "--max-age", "1h", code=1).out


def test_the_readme_shows_the_plan_that_is_printed_today(shop: Shop) -> None:
    shop.edit(
        lambda document: document["drain"].update(yaml.safe_load((EXAMPLE / "failover.yaml").read_text())["drain"])
    )
    [shown] = [block.split("```")[0] for block in README.split("```\n")[1:] if block.startswith("2 drain")]
    assert shown in shop("plan", "drain", "-i", "region=east").out


def test_an_undone_run_leaves_no_trace(shop: Shop) -> None:
    before = {"Kind": "service-resolver", "Name": "api", "ConnectTimeout": "7s", "Meta": {"owner": "Zoë"}}
    shop.two.east.put("config", before)
    stood = shop.standing()
    shop("run", "drain", "-i", "region=west", "-i", "pace=immediate", "--yes")
    assert chain(shop.two.west) == {"east"}
    assert addresses(shop.two.west, QUERY) == EAST
    shop("undo", shop.last(), "--yes")
    assert shop.standing() == stood
    assert resolver(shop.two.east) == before


def test_a_share_that_a_mode_cannot_do_is_refused_in_the_plan(shop: Shop) -> None:
    def staged(document: Any) -> None:
        for service in ("web", "api"):
            del document["services"][service]["routes"][0]["stages"]

    shop.edit(staged)
    refused = shop("plan", "drain", "-i", "region=east", code=3)
    assert "web@consul can only switch a region on and off, not to east 50; it can do stage 0" in refused.said
    assert "set 'stages: [0]' on that route" in refused.said
    shop("plan", "drain", "-i", "region=east", "-i", "pace=immediate")
    assert shop.writes() == []


def by_hand_resolver(shop: Shop) -> None:
    shop.two.east.put("config", {"Kind": "service-resolver", "Name": "api", "Redirect": {"Datacenter": "east"}})


def by_hand_maintenance(shop: Shop) -> None:
    for one in ("web-1", "web-2"):
        shop.two.west.put(f"agent/service/maintenance/{one}", query="enable=true&reason=disk+swap")
    until(lambda: "maintenance" in str(shop.standing()["web west"]), 5, "the maintenance")


def by_hand_weight(shop: Shop) -> None:
    for place, one in enumerate(("chat-1", "chat-2"), 1):
        shop.two.register(shop.two.west, "chat", one, f"192.0.2.2{place}", 7)
    until(lambda: weights(shop.two.west, "chat.service.west.consul") == [7, 7], 5, "the weight")


@pytest.mark.parametrize(
    ("service", "region", "first", "edit", "found"),
    [
        ("api", "east", "PUT /v1/config", by_hand_resolver, "east 1, west 0"),
        ("web", "east", "PUT /v1/session/create", by_hand_maintenance, "east 100, west 0"),
        ("chat", "east", "PUT /v1/session/create", by_hand_weight, "east 50, west 7"),
    ],
)
def test_what_was_edited_by_hand_between_plan_and_write_stays(
    shop: Shop, service: str, region: str, first: str, edit: Callable[[Shop], None], found: str
) -> None:
    """The edit comes with the first request of the write itself: everything was read, planned and checked before."""
    shop.only(service)
    seen: list[Any] = []

    def meddle() -> None:
        edit(shop)
        seen.append(shop.standing())

    shop.when(region, first, meddle)
    stopped = shop("run", "drain", "-i", "region=east", "-i", "pace=immediate", "--yes", code=3)
    assert f"but it is {found} now; somebody else changed it" in stopped.said
    assert "find out who changed it and why; then plan again" in stopped.said
    assert shop.standing() == seen[0] != shop.stood
    assert shop.writes() == [line for line in shop.writes() if line.startswith(first)]
