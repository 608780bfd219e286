"""A run of twenty batches on Route 53 that breaks off at the ninth: it is resumed or reversed, exactly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from failover.engine.runner import read_record, runs
from failover.engine.undo import undo_runbook
from failover.errors import FailoverError, Indeterminate
from failover.registry import open_estate
from failover.testing import FakeClock
from failover.yaml import parse
from tests import worlds
from tests.routers.aws import Moto, NameServer, RecordSet
from tests.routers.route53_estate import NORMAL, TTL, Estate, record, sign_in

SERVICES = [f"s{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.stop()


class Shop:
    """Twenty services whose records go out in a batch each, since the API takes one route at a time here."""

    def __init__(self, moto: Moto, credentials: Path) -> None:
        self.zone = Estate(moto, credentials)
        self.names = NameServer(self._served)
        self._kept: tuple[int, list[RecordSet]] = -1, []
        names = [f"{name}.example.test." for name in SERVICES]
        moto.put(self.zone.zone, *(record(name, region) for name in names for region in NORMAL))
        config: dict[str, Any] = {
            "zone": self.zone.zone,
            "endpoint": self.zone.proxy.endpoint,
            "profile": "failover",
            "credentials_file": str(credentials),
            "compare_and_set": "exact",
            "name_servers": [self.names.address],
            "pace": {"rate": 1000, "burst": 1000},
        }
        topology = {
            "topology": "twenty",
            "regions": list(NORMAL),
            "services": {
                name: {
                    "routes": [
                        {"router": "dns", "record": f"{name}.example.test", "weights": NORMAL, "ttl": f"{TTL}s"}
                    ],
                    "checks": {"up": {"memory": {}}},
                }
                for name in SERVICES
            },
            "routers": {"dns": {"route53": config}},
            "store": {"memory": {}},
        }
        self.estate = open_estate(parse(json.dumps(topology), "failover.yaml"), FakeClock())
        self.before = self.records()

    def records(self) -> list[RecordSet]:
        return self.zone.moto.records(self.zone.zone)

    def _served(self) -> list[RecordSet]:
        """The same, listed once after each batch: everything is asked for one record at a time."""
        if self._kept[0] != len(self.zone.proxy.batches):
            self._kept = len(self.zone.proxy.batches), self.records()
        return self._kept[1]

    def close(self) -> None:
        self.names.close()
        self.zone.close()

    def broken_at(self, number: int, fault: str) -> None:
        """From now on the `number`th change of records meets `fault`, and no other."""
        turns = iter(range(1, 1000))
        self.zone.proxy.fault = lambda operation: (
            fault if operation == "ChangeResourceRecordSets" and next(turns) == number else ""
        )

    def gone(self) -> list[str]:
        """The services that have left east."""
        easts = {each["Name"]: each["Weight"] for each in self.records() if each.get("SetIdentifier") == "east"}
        return [name for name in SERVICES if easts[f"{name}.example.test."] == 0]

    def moves(self) -> list[str]:
        """The services whose records were taken out of or put into east, by the batches that the API has seen."""
        return [batch[0][1]["Name"].partition(".")[0] for batch in self.zone.proxy.batches]


@pytest.fixture
def shop(moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr("failover.routers._route53_batch.BATCH_RECORDS", 4)
    made = Shop(moto, sign_in(tmp_path, monkeypatch))
    yield made
    made.close()


FAULTS = {"AccessDenied": 8, "close": 8, "lose": 9}
"""What happens to the ninth batch, and how many services have moved by then."""


def broken_off(shop: Shop, fault: str) -> None:
    shop.broken_at(9, fault)
    with pytest.raises(FailoverError) as stopped:
        worlds.run(shop.estate, worlds.book(shop.estate, "drain", region="east"))
    assert not isinstance(stopped.value, Indeterminate), "reading back tells what was made"
    assert shop.gone() == SERVICES[: FAULTS[fault]]
    record = read_record(shop.estate, runs(shop.estate)[-1])
    assert record.status == "stopped"
    assert [change.resource for change in record.applied] == [f"route {name}@dns" for name in shop.gone()]


@pytest.mark.parametrize("fault", FAULTS)
def test_resumed_it_moves_what_is_left_and_nothing_twice(shop: Shop, fault: str) -> None:
    broken_off(shop, fault)
    assert worlds.resume(shop.estate).status == "done"
    assert shop.gone() == SERVICES
    assert shop.moves() == SERVICES, "each once, in order"


@pytest.mark.parametrize("fault", FAULTS)
def test_reversed_it_leaves_everything_as_it_was(shop: Shop, fault: str) -> None:
    broken_off(shop, fault)
    moved = shop.gone()
    seen = len(shop.moves())
    record = read_record(shop.estate, runs(shop.estate)[-1])
    worlds.take_up(shop.estate).abort("it is undone")
    undone = worlds.run(shop.estate, undo_runbook(record, shop.estate.topology))
    assert undone.status == "done"
    assert shop.records() == shop.before
    assert sorted(shop.moves()[seen:]) == moved, "each once, and nobody else"
