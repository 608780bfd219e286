"""Imports point downwards only, and nobody but the clock reads the time."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "failover"

FLOORS = {
    "failover": 0,
    "failover.aws": 0,
    "failover._consul": 1,
    "failover.bounded": 0,
    "failover.clock": 0,
    "failover.errors": 0,
    "failover.schema": 0,
    "failover.secret": 0,
    "failover.substitute": 0,
    "failover.units": 0,
    "failover.yaml": 0,
    "failover.health": 1,
    "failover.inputs": 1,
    "failover.runbook": 1,
    "failover.topology": 1,
    "failover.declaration": 1,
    "failover.resolution": 1,
    "failover.verbs": 1,
    "failover.verdict": 1,
    "failover.weights": 1,
    "failover.world": 1,
    "failover.ports": 2,
    "failover.guards": 3,
    "failover.steps.*": 3,
    "failover.engine.*": 4,
    "failover.databases.*": 5,
    "failover.notifiers.*": 5,
    "failover.probes.*": 5,
    "failover.routers.*": 5,
    "failover.stores.*": 5,
    "failover.cli.*": 6,
    "failover.lab.*": 6,
    "failover.registry": 6,
    "failover.report.*": 6,
    "failover.testing.*": 7,
}
PROVIDERS = ("databases", "notifiers", "probes", "routers", "stores")
TIMELESS_EXCEPT = {
    "failover.clock": "it is the clock",
    "failover.lab": "its servers and customers are the world outside, which does not run on the product's clock",
    "failover.testing": "the contract suites measure providers against real time",
}
READERS = {
    "time": {"sleep", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"},
    "asyncio": {"sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
LIBRARIES = ("boto3", "botocore", "psycopg", "pymysql", "redis", "dns", "consul", "moto", "urllib3")


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    typing_only: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> int | None:
    """The floor of `module`: its own entry, or that of the package it lies in."""
    if module in FLOORS:
        return FLOORS[module]
    parts = module.split(".")
    for end in range(len(parts), 1, -1):
        if (key := ".".join(parts[:end]) + ".*") in FLOORS:
            return FLOORS[key]
    return None


def imports(tree: ast.Module, module: str, *, package: bool) -> Iterator[Import]:
    """Every import of ours in a file, wherever it stands, each as the module that it loads."""
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: len(module.split(".")) - node.level + (1 if package else 0)]
                base = ".".join([*up, *([base] if base else [])])
            whole = [f"{base}.{alias.name}" for alias in node.names]
            names = [one if one in MODULES else base for one in whole]
        for name in names:
            if name == "failover" or name.startswith("failover."):
                yield Import(name, getattr(node, "lineno", 0), node in typing_only)


def imported(module: str) -> list[Import]:
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return list(imports(tree, module, package=path.stem == "__init__"))


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def is_provider(module: str) -> bool:
    return module.startswith(tuple(f"failover.{kind}." for kind in PROVIDERS))


def registered() -> set[str]:
    """The modules that entry points name: providers. The other modules beside them are their helpers."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    return {place.split(":")[0] for group in points.values() for place in group.values()}


def faults(module: str, one: Import, providers: set[str]) -> str:
    """What is wrong with this import; empty where nothing is."""
    mine, theirs = floor(module), floor(one.module)
    if mine is None or theirs is None:
        return f"has no floor: {module if mine is None else one.module}"
    if one.module not in MODULES:
        return "is no module of ours"
    if one.typing_only and package_of(module) == package_of(one.module):
        return ""
    if theirs > mine:
        return f"is on floor {theirs}, above {mine}"
    if is_provider(module) and theirs > 2:
        if package_of(one.module) != package_of(module):
            return "belongs to another kind of provider"
        if one.module in providers:
            return "is another provider"
    return ""


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor_and_imports_downwards(module: str) -> None:
    assert floor(module) is not None, f"{module} stands on no floor; say in FLOORS which one is its own"
    providers = registered()
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{one.line} imports {one.module}, which {fault}"
        for one in imported(module)
        if (fault := faults(module, one, providers))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("failover.errors", "from failover.world import World", "is on floor 1, above 0"),
        ("failover.guards", "import failover.engine.loop", "is on floor 4, above 3"),
        ("failover.steps.traffic", "from ..engine import loop", "is on floor 4, above 3"),
        ("failover.engine.loop", "def f():\n    from failover.cli import main", "is on floor 6, above 4"),
        ("failover.engine.loop", "if TYPE_CHECKING:\n    from failover import registry", "is on floor 6, above 4"),
        ("failover.engine.loop", "from failover.testing import FakeClock", "is on floor 7, above 4"),
        ("failover.routers.memory", "from failover.routers.route53 import Route53", "is another provider"),
        ("failover.routers.memory", "from failover.stores import memory", "belongs to another kind of provider"),
        ("failover.routers.memory", "from failover.guards import judge", "belongs to another kind of provider"),
        ("failover.routers.memory", "from failover.registry import found", "is on floor 6, above 5"),
        ("failover.world", "from failover.novelty import x", "has no floor: failover.novelty"),
    ],
)
def test_an_import_upwards_is_seen(module: str, line: str, fault: str) -> None:
    [found] = imports(ast.parse(line), module, package=False)
    assert faults(module, found, registered()) == fault


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("failover.routers.route53", "from failover.routers._words import say"),
        ("failover.steps.traffic", "from failover.weights import active"),
        ("failover.engine.readback", "if TYPE_CHECKING:\n    from failover.engine.live import Hands"),
        ("failover.registry", "from failover.engine.estate import Estate"),
    ],
)
def test_an_import_downwards_is_let_be(module: str, line: str) -> None:
    [found] = imports(ast.parse(line), module, package=False)
    assert faults(module, found, registered()) == ""


def test_every_floor_is_somebodys() -> None:
    empty = [
        entry
        for entry in FLOORS
        if not any(name == entry or (name + ".").startswith(entry.removesuffix("*")) for name in MODULES)
    ]
    assert empty == []


def test_every_registered_provider_is_there() -> None:
    assert registered() - set(MODULES) == set()


def readings(tree: ast.Module) -> Iterator[str]:
    """Every call by name that reads a time or sleeps without the clock."""
    aliases = {alias: (alias, names) for alias, names in READERS.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.asname and each.name in READERS:
                    aliases[each.asname] = (each.name, READERS[each.name])
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio"):
            for each in node.names:
                if each.name in READERS[node.module]:
                    yield f"line {node.lineno}: from {node.module} import {each.name}"
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in aliases and node.attr in aliases[owner][1]:
                yield f"line {node.lineno}: {aliases[owner][0]}.{node.attr}"


@pytest.mark.parametrize("module", MODULES)
def test_nobody_but_the_clock_reads_the_time(module: str) -> None:
    found = list(readings(ast.parse(MODULES[module].read_text(encoding="utf-8"))))
    if not any(module == exempt or module.startswith(f"{exempt}.") for exempt in TIMELESS_EXCEPT):
        assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nt.monotonic()",
        "from time import time",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\nread = datetime.now",
        "import asyncio\nasyncio.sleep(1)",
    ],
)
def test_a_reading_of_the_time_is_seen(line: str) -> None:
    assert len(list(readings(ast.parse(line)))) == 1


def test_the_exempt_need_their_exemption() -> None:
    used = {
        exempt
        for exempt in TIMELESS_EXCEPT
        for module, path in MODULES.items()
        if (module == exempt or module.startswith(f"{exempt}."))
        and list(readings(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert used == set(TIMELESS_EXCEPT)


@pytest.mark.parametrize("package", ["failover.steps", "failover.guards", "failover.weights", "failover.health"])
def test_the_pure_floors_do_no_io(package: str) -> None:
    doing = {"os", "socket", "subprocess", "pathlib", "threading", "time", "sqlite3", "io", "urllib", "http"}
    found = {
        (module, name)
        for module, path in MODULES.items()
        if module == package or module.startswith(f"{package}.")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] in doing
    }
    assert found == set()


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a new interpreter loads for `code`."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def test_help_imports_no_provider_library() -> None:
    loaded = loaded_by(
        "import sys; sys.argv = ['failover', '--help']\n"
        "from failover.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    sys.exit(end.code)"
    )
    assert "failover" in loaded
    assert loaded & {*LIBRARIES, "pydantic", "yaml"} == set(), "these alone take longer than the help"


def test_a_topology_loads_only_the_providers_that_it_names() -> None:
    loaded = loaded_by(
        "from failover.registry import open_estate\n"
        "from failover.yaml import parse\n"
        "open_estate(parse('''\n"
        "topology: t\n"
        "regions: [east, west]\n"
        "services: {web: {routes: [{router: dns, weights: {east: 1, west: 1}}], checks: {up: {memory: {}}}}}\n"
        "routers: {dns: {memory: {}}}\n"
        "store: {memory: {}}\n"
        "''', 'failover.yaml'))"
    )
    assert "failover" in loaded
    assert loaded & set(LIBRARIES) == set()
