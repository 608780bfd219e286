"""The example with BIND and HAProxy, on real ones: a region leaves and comes back, and no request fails."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.onprem import ADDRESSES, WWW, Site, Visitors, answered, site, tell
from tests.e2e.product import ROOT, failover
from tests.routers.bind import SECRET, ZONE
from tests.routers.specs import LOOPBACK

EXAMPLE = ROOT / "examples" / "onprem-bind-haproxy"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("onprem")) as made:
        yield made


@pytest.fixture
def here(running: Site) -> Site:
    running.normal()
    return running


def example(place: Path, here: Site, *shorter: tuple[str, str]) -> Path:
    """The example's own file, with this test's places in it, and shorter waits where a test has to sit them out."""
    text = (EXAMPLE / "failover.yaml").read_text(encoding="utf-8")
    dns = (here.bind.primary.port, here.bind.secondary.port)
    shops, edges = here.shops, here.edges
    for old, new in (
        ("{address: 192.0.2.10, port: 8080}", f"{{address: {LOOPBACK}, port: {shops['east'].port}}}"),
        ("{address: 198.51.100.10, port: 8080}", f"{{address: {LOOPBACK}, port: {shops['west'].port}}}"),
        ("[192.0.2.53:53, 198.51.100.53:53]", str([f"{LOOPBACK}:{port}" for port in dns])),
        ("server: 192.0.2.53:53", f"server: {LOOPBACK}:{dns[0]}"),
        ("[192.0.2.1:9999, 198.51.100.1:9999]", str([f"{LOOPBACK}:{edge.port}" for edge in edges])),
        ("zone: example.com.", f"zone: {ZONE}"),
        ("record: www.example.com.", f"record: {WWW}"),
        *shorter,
    ):
        assert text.count(old) == 1, f"the example has changed: {old}"
        text = text.replace(old, new)
    path = place / "failover.yaml"
    path.write_text(text)
    return path


QUICK = (("ttl: 60s", "ttl: 2s"), ("ttl: 10s", "ttl: 1s"), ("soak: 30s", "soak: 500ms"))


def test_the_example_is_valid_as_it_stands(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "failover.yaml", tmp_path)
    failover(tmp_path / "failover.yaml", "validate", FAILOVER_TSIG=SECRET)


def test_the_readme_shows_what_is_printed_today(tmp_path: Path, here: Site) -> None:
    here.bind.put(WWW, list(ADDRESSES.values()), ttl=60)
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\$ failover (.*)\n((?:.|\n)*?)(?=^\$ |^```$)", readme, re.MULTILINE))
    assert list(shown) == ["status", "plan evacuate-region -i region=east"]
    topology = example(tmp_path, here)
    for command, text in shown.items():
        assert _unnamed(tell(topology, *command.split()).out) == _unnamed(text)


def _unnamed(text: str) -> str:
    """A plan's hash is that of its places too, which are this test's."""
    return re.sub(r"\b[0-9a-f]{12}\b", "HASH", text.strip())


def test_a_region_leaves_and_comes_back_and_no_request_fails(tmp_path: Path, here: Site) -> None:
    topology = example(tmp_path, here, *QUICK)
    with Visitors([edge.front for edge in here.edges]).open() as visitors:
        planned = tell(topology, "plan", "evacuate-region", "-i", "region=east", "--json")
        assert planned.json["refused"] is None
        tell(topology, "run", "evacuate-region", "-i", "region=east", "--yes")
        gone = time.monotonic()
        status = tell(topology, "status", "--json").json["routes"]
        without = time.monotonic()
        assert {name: one["weights"] for name, one in status.items()} == {
            "web@dns": {"east": 0, "west": 100},
            "web@edge": {"east": 0, "west": 200},
        }
        for server in (here.bind.primary, here.bind.secondary):
            assert answered(server.port, WWW) == {ADDRESSES["west"]}
        for edge in here.edges:
            assert edge.weights("web") == {"east1": 0, "east2": 0, "west1": 100, "west2": 100}
        tell(topology, "run", "restore-region", "-i", "region=east", "--yes")
        back = time.monotonic()
        status = tell(topology, "status", "--json").json["routes"]
        end = time.monotonic()
    assert visitors.failed == []
    assert set(visitors.regions(gone, without)) == {"west"}
    assert set(visitors.regions(back, end)) == {"east", "west"}
    assert {name: one["weights"] for name, one in status.items()} == {
        "web@dns": {"east": 100, "west": 100},
        "web@edge": {"east": 100, "west": 100},
    }
    for server in (here.bind.primary, here.bind.secondary):
        assert answered(server.port, WWW) == set(ADDRESSES.values())
    for edge in here.edges:
        assert edge.weights("web") == {"east1": 50, "east2": 50, "west1": 50, "west2": 50}


def test_an_edge_that_was_reloaded_meanwhile_is_named_and_nothing_moves(tmp_path: Path, here: Site) -> None:
    topology = example(tmp_path, here, *QUICK)
    reloaded, other = here.edges
    other.tell("set weight web/east1 0", "set weight web/east2 0", "set weight web/west1 100")
    other.tell("set weight web/west2 100")
    done = tell(topology, "run", "evacuate-region", "-i", "region=east", "--yes", code=1)
    assert "the instances differ" in done.said
    assert f"{LOOPBACK}:{reloaded.port} has east 100, west 100" in done.said
    assert answered(here.bind.primary.port, WWW) == set(ADDRESSES.values())
    assert other.weights("web") == {"east1": 0, "east2": 0, "west1": 100, "west2": 100}
