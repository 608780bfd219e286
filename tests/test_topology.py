"""Topologies of several shapes, and what is made of them; and that no file, however wrong, is met with a crash."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from failover import registry, resolution, secret
from failover.engine.estate import Estate
from failover.errors import Invalid
from failover.lab import document as lab
from failover.lab.state import Lab, Region
from failover.report.problems import render
from failover.report.schema import topology_schema
from failover.world import CheckId
from failover.yaml import parse
from tests.files import test_files as files

SHAPES = files.HERE / "valid" / "topologies"


def estate(name: str) -> Estate:
    return registry.open_estate(files.document(SHAPES / f"{name}.yaml"))


def test_databases_only() -> None:
    topology = estate("databases-only").topology
    assert list(topology.regions) == ["east", "west"]
    assert {name: spec.primary for name, spec in topology.databases.items()} == {"orders": "east", "ledger": "west"}
    assert (topology.services, topology.routes, topology.store) == ({}, {}, None)
    assert topology.objectives.survivors == 1


def test_services_only() -> None:
    found = estate("services-only")
    [route] = found.topology.routes.values()
    assert (route.id, route.weights, route.ttl, route.stages) == ("web@edge", {"blue": 1, "green": 0}, None, None)
    assert (found.probes, found.databases) == ({}, {})


def test_two_routes_on_one_router() -> None:
    topology = estate("two-routes-on-one-router").topology
    routes = topology.routes
    assert list(routes) == ["web@dns/public", "web@dns/api", "web@bind"]
    assert [route.ttl for route in routes.values()] == [60, None, None]
    assert routes["web@dns/public"].stages == (25, 0)
    assert routes["web@dns/api"].config == {"record": "api.example.com.", "type": "CNAME"}
    web = topology.services["web"]
    assert (web.load, web.capacity, web.regions) == (10.5, {"east": 20, "west": 20.5}, ("east", "west"))
    assert topology.objectives.lag == 0


def test_region_variables_in_checks() -> None:
    found = estate("region-variables")
    regions = ("eu-west-1", "eu-central-1", "us-east-1")
    assert set(found.probes) == {
        *(CheckId("web", check, region) for check in ("port", "page") for region in regions[:2]),
        *(CheckId("batch", "port", region) for region in regions),
    }
    page: Any = found.probes[CheckId("web", "page", "eu-central-1")]
    assert page.vantages[""]._config.url == "http://192.0.2.2:8081/eu-central-1"
    assert page.vantages[""]._config.contains == "${not filled in}"
    port: Any = found.probes[CheckId("batch", "port", "us-east-1")]
    assert (port.vantages[""]._config.host, port.vantages[""]._config.port, port.vantages[""]._config.timeout) == (
        "192.0.2.3",
        8082,
        2.0,
    )


def test_what_the_lab_writes_is_right(tmp_path: Path) -> None:
    regions = {
        name: Region(name, f"127.0.0.{number}", tmp_path / name) for number, name in ((2, "east"), (3, "west"))
    }
    made = Lab(tmp_path, regions, 8080, 5432, 5353, 5000, "Z0123456789", tmp_path / "bin", ("setpriv",))
    lab.write(made)
    found = registry.open_estate(parse(made.topology.read_bytes(), "failover.yaml"))
    topology = found.topology
    assert topology.name == "shop-lab"
    assert list(topology.regions) == ["east", "west"]
    assert [(check.name, check.needs) for check in topology.services["web"].checks] == [
        ("live", ()),
        ("orders", ("orders",)),
    ]
    assert len(found.probes) == 4
    Draft202012Validator(topology_schema()).validate(pyyaml.safe_load(made.topology.read_text()))


CANARY = "canary-7b1f3d"
LEAKS = {
    "a secret": "postgres: {user: u, password: %s, members: {}}",
    "beside another mistake": "postgres: {usr: u, password: %s, members: {}}",
    "a misspelled key": "postgres: {user: u, pasword: %s, members: {}}",
    "a key that is shifted": "password: %s",
    "of another kind": "postgres: {user: u, password: {value: %s}, members: {}}",
    "in a list": "postgres: {user: u, password: [%s], members: {}}",
    "in syntax": "postgres: {user: u, password: %s, members: {]}",
    "quoted": 'postgres: {user: u, "password": "%s", members: 5}',
    "on a line of its own": "postgres:\n      user: 5\n      password: >-\n        %s\n      members: 5",
}


@pytest.mark.parametrize("name", LEAKS)
def test_no_secret_is_shown_with_a_mistake(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_known", set())
    text = (
        f"topology: t\nregions: [east, west]\ndatabases:\n  orders:\n    primary: east\n    {LEAKS[name] % CANARY}\n"
    )
    with pytest.raises(Invalid) as refused:
        registry.open_estate(parse(text, "failover.yaml"))
    assert CANARY not in render(refused.value.problems)
    assert CANARY not in str(refused.value)


WHOLE = pyyaml.safe_load("""
topology: shop
regions: {east: {address: 192.0.2.1}, west: {address: 192.0.2.2}}
services:
  web:
    routes:
      - {router: dns, record: www.example.com., ttl: 30s, weights: {east: 50, west: 50}}
      - {router: mem, name: x, weights: {east: 1, west: 1}, stages: [50, 0]}
      - {router: bind, record: a.example.com., weights: {east: 1, west: 1}, addresses: {east: [192.0.2.1], west: [192.0.2.2]}}
    capacity: {east: 100, west: 100}
    load: 50
    checks:
      live: {http: {url: "http://${address}/live", headers: {A: {env: B}}}}
      port: {tcp: {host: "${address}", port: 80}, needs: [orders]}
databases:
  orders: {primary: east, memory: {regions: [east, west]}}
  ledger:
    primary: east
    postgres: {user: u, password: {env: P}, members: {east: {host: 192.0.2.1}, west: {host: 192.0.2.2, port: 5433}}}
routers:
  dns: {route53: {zone: Z0123456789, name_servers: ["192.0.2.53:53"]}}
  mem: {memory: {}}
  bind: {rfc2136: {server: 192.0.2.53, zone: example.com, tsig: {name: k, secret: {file: f}}}}
notifiers: {chat: {webhook: {url: {env: CHAT}, timeout: 3s}}}
drain: {ttl: 5s, stages: [50, 0], soak: 1s}
objectives: {survivors: 1, lag: 10s}
store: {memory: {}}
""")  # noqa: E501 - one route a line
EVERY = [
    pyyaml.safe_load((files.HERE / "valid" / "runbooks" / f"{name}.yaml").read_text())
    for name in ("every-verb", "loops")
]
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e300, 10**40, "", "x", "${region}", "${nope}", "${", "all", "survivors", "east",
    "30s", "9" * 400 + "d", "a\x1bb", [], [1], ["x", ["y"]], [[]], [None], [{"a": []}], {}, {"x": 1}, {"str": 3},
    {"env": "A", "file": "B"}, {"${region}": 1},
]  # fmt: skip


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [*([at] if at else []), *(place for key, item in items for place in places(item, (*at, key)))]


@st.composite
def spoiled(draw: st.DrawFn, whole: Any) -> Any:
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(tree) or [("topology",)]))
        inside = tree
        for step in way:
            inside = inside[step]
        match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
            case "replace":
                inside[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case "remove" if last in inside or isinstance(inside, list):
                del inside[last]
            case _ if isinstance(inside, dict) and last in inside:
                inside[draw(st.sampled_from([f"{last}x", last[1:], "needs", "each", "steps", "id"]))] = inside.pop(
                    last
                )
    return tree


def well_said(invalid: Invalid) -> None:
    assert invalid.problems
    for problem in invalid.problems:
        assert problem.line
        assert problem.message
        assert "Input should" not in problem.message
        assert "error" not in problem.message.lower()
    assert render(invalid.problems).endswith("Nothing was run.")


@settings(deadline=None, max_examples=300)
@given(spoiled(WHOLE))
def test_a_spoiled_topology_is_read_or_refused(tree: Any) -> None:
    try:
        document = parse(pyyaml.safe_dump(tree), "failover.yaml")
        registry.open_estate(document)
    except Invalid as invalid:
        well_said(invalid)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(EVERY).flatmap(spoiled))
def test_a_spoiled_runbook_is_read_or_refused(tree: Any) -> None:
    try:
        document = parse(pyyaml.safe_dump(tree), "r.yaml")
        resolution.validate(document, files.topology(), files.Library())
    except Invalid as invalid:
        well_said(invalid)


def test_the_whole_topology_is_right() -> None:
    assert len(registry.open_estate(parse(pyyaml.safe_dump(WHOLE), "failover.yaml")).probes) == 4
