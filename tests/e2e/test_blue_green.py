"""examples/blue-green, with a real HAProxy and customers who send requests all the while."""

import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.onprem import Visitors
from tests.e2e.product import ROOT, Done, failover
from tests.routers.haproxies import Haproxy, Shop, shops
from tests.routers.specs import LOOPBACK, free_port

EXAMPLE = ROOT / "examples" / "blue-green"
RELEASE = ("run", "release.yaml", "--purpose", "release", "--yes")
QUICK = {
    "soak: 1min": "soak: 300ms",
    "every: 5s": "every: 100ms",
    "connections: 30s": "connections: 5s",
    "rise: 2}": "rise: 2, every: 50ms}",
}


@dataclass
class Site:
    """The example's own files, with this test's places in them and shorter waits."""

    place: Path
    colours: Mapping[str, Shop]
    edge: Haproxy
    public: int

    def __call__(self, *words: str, code: int = 0) -> Done:
        return failover(self.place / "failover.yaml", *words, code=code, cwd=self.place)

    def deploy(self, script: str) -> None:
        (self.place / "deploy").write_text(f"#!/bin/sh\n{script}\n")
        (self.place / "deploy").chmod(stat.S_IRWXU)

    def last(self) -> str:
        return str(self("runs", "--json").json["runs"][-1]["run"])


def replaced(name: str, changes: Mapping[str, str]) -> str:
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, f"the example has changed: {old}"
        text = text.replace(old, new)
    return text


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        colours = stack.enter_context(shops("blue", "green"))
        public, home = free_port(), tmp_path / "haproxy"
        edge = Haproxy(home, "")
        blue, green = (f"{LOOPBACK}:{shop.port}" for shop in colours.values())
        run, kept = "/run/haproxy/admin.sock", "/var/lib/haproxy/server-state"
        places = {run: edge.socket, kept: str(home / "state"), ":8080": f"{LOOPBACK}:{public}"}
        places |= {"127.0.0.1:8001": blue, "127.0.0.1:8002": green}
        (home / "haproxy.cfg").write_text(replaced("haproxy.cfg", places))
        stack.callback(edge.stop)
        edge.start()
        (tmp_path / "failover.yaml").write_text(
            replaced(
                "failover.yaml",
                {
                    f"[{run}]": f"[{edge.socket}]",
                    kept: str(home / "state"),
                    "port: 8001": f"port: {colours['blue'].port}",
                    "port: 8002": f"port: {colours['green'].port}",
                    **QUICK,
                },
            )
            + f"store: {{sqlite: {{path: {tmp_path / 'journal.db'}}}}}\n"
        )
        shutil.copy(EXAMPLE / "release.yaml", tmp_path)
        site = Site(tmp_path, colours, edge, public)
        site.deploy('echo "$1 $FAILOVER_REGION" >> deployed')
        site("drain", "green", "--yes")
        yield site


def test_the_example_is_valid_as_it_stands(tmp_path: Path) -> None:
    for name in ("failover.yaml", "release.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    failover(tmp_path / "failover.yaml", "validate", "release.yaml", cwd=tmp_path)


def test_a_release_and_its_undo_fail_no_request(site: Site) -> None:
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}
    with Visitors([site.public]).open() as visitors:
        began = time.monotonic()
        site(*RELEASE, "-i", "to=green", "-i", "from=blue")
        released = time.monotonic()
        assert site.edge.weights("shop") == {"blue": 0, "green": 200}
        site("status")
        still = time.monotonic()
        site("undo", site.last(), "--yes")
        assert site.edge.weights("shop") == {"blue": 200, "green": 0}
        undone = time.monotonic()
        site("status")
        end = time.monotonic()
    assert visitors.failed == []
    assert set(visitors.regions(began, released)) == {"blue", "green"}
    assert set(visitors.regions(released, still)) == {"green"}
    assert set(visitors.regions(undone, end)) == {"blue"}
    assert (site.place / "deployed").read_text() == "green green\n"
    site.edge.stop()
    site.edge.start()
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}, "a reload keeps what was set"


def test_the_next_release_goes_the_other_way(site: Site) -> None:
    site(*RELEASE, "-i", "to=green", "-i", "from=blue")
    site(*RELEASE, "-i", "to=blue", "-i", "from=green")
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}
    paths = site("evidence", "--json").json["paths"]
    assert {path["region"]: path["exact"]["purpose"] for path in paths} == {"blue": "release", "green": "release"}


def test_a_version_that_does_badly_with_customers_loses_its_stage(site: Site) -> None:
    green, before = site.colours["green"], site.colours["green"].served
    green.health = lambda: 503 if green.served > before + 20 else 200
    with Visitors([site.public]).open() as visitors:
        done = site(*RELEASE, "-i", "to=green", "-i", "from=blue", code=6)
    assert "expected 200" in done.said
    assert visitors.failed == []
    weights = site.edge.weights("shop")
    assert weights["green"] < 100 <= weights["blue"], "less than what it had when it failed"
    site("undo", site.last(), "--yes")
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}


@pytest.mark.parametrize(
    ("sick", "script", "code", "says"),
    [
        ("", "exit 1", 6, "./deploy exit code 1"),
        ("blue", "true", 1, "blue cannot be counted on (fail)"),
    ],
    ids=["the deployment fails", "the live one is not well"],
)
def test_nothing_moves_where_something_is_wrong_before(
    site: Site, sick: str, script: str, code: int, says: str
) -> None:
    if sick:
        site.colours[sick].health = lambda: 503
    site.deploy(script)
    done = site(*RELEASE, "-i", "to=green", "-i", "from=blue", code=code)
    assert says in done.said
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}


def test_an_idle_colour_that_is_down_is_mended_by_its_deployment(site: Site) -> None:
    site.colours["green"].health = lambda: 200 if (site.place / "deployed").exists() else 503
    site(*RELEASE, "-i", "to=green", "-i", "from=blue")
    assert site.edge.weights("shop") == {"blue": 0, "green": 200}


def test_colours_that_are_mixed_up_are_refused(site: Site) -> None:
    refused = site(*RELEASE, "-i", "to=blue", "-i", "from=green", code=3)
    assert "shop@edge would have no weight left in any region" in refused.said
    assert not (site.place / "deployed").exists(), "no deployment onto customers"
    assert site.edge.weights("shop") == {"blue": 200, "green": 0}
