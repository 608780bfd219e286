"""Files made to hurt: refused in words, within bounded time and memory, by the same way that every file is read."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.files import test_files as files

LOOP = "runbook: r\nsteps:\n"
HOSTILE: dict[str, tuple[str, str]] = {
    "alias bomb": (
        "regions: &a [east, west]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "aliases expand to more than 200,000 values; use fewer",
    ),
    "deep nesting": ("topology: " + "[" * 100_000, "nested more than 64 deep; flatten it"),
    "fifty megabytes": ("topology: shop\n" + "# a comment that goes on\n" * 2_000_000, "larger than 4 MiB; split it"),
    "tags": ("topology: !!python/object/apply:os.system [x]\n", "tags are not allowed"),
    "many mistakes": (LOOP + "  - drian: {}\n" * 10_000, "unknown verb 'drian'; did you mean 'drain'?"),
    "many duplicate keys": ("topology: shop\n" * 100_000, "too many problems; the rest was not read"),
    "loops in loops": (
        LOOP + "  - each: {a: &l [" + ", ".join(map(str, range(2_000))) + "]}\n    steps:\n"
        "      - each: {b: *l}\n        steps:\n          - each: {c: *l}\n            wait: 1s\n",
        "this makes more than 20,000 steps; split the runbook",
    ),
    "loops in loops around a mistake": (
        LOOP + "  - each: {a: &l [" + ", ".join(map(str, range(2_000))) + "]}\n    steps:\n"
        "      - each: {b: *l}\n        steps:\n          - each: {c: *l}\n            wait: 1\n",
        "1 has no unit; write 1s, 1min or 1h",
    ),
    "calls in calls": (LOOP + "  - runbook: tree-1\n" * 30, "this makes more than 20,000 steps; split the runbook"),
    "a name as long as a book": (LOOP + f"  - runbook: {'n' * 1_000_000}\n", "there is no runbook called"),
    "a duration as long as a book": (LOOP + f"  - wait: {'9' * 1_000_000}s\n", "is longer than ten years"),
    "a region as long as a book": (LOOP + f"  - drain: {{region: {'r' * 1_000_000}}}\n", "is not declared"),
    "references": (LOOP + f'  - approve: "{"${" * 500_000}"\n', "is never closed"),
}
REFUSE = """
import resource, sys
from pathlib import Path
from failover import registry, resolution
from failover.errors import Invalid
from failover.report.problems import render
from failover.yaml import load, parse
top = registry.open_estate(load(Path(sys.argv[2]))).topology

class Library:
    def names(self):
        return [f"tree-{n}" for n in range(1, 9)]

    def open(self, name):
        if name not in self.names():
            raise KeyError(name)
        n = int(name[5:])
        below = f"  - runbook: tree-{n + 1}\\n" * 30 if n < 7 else "  - wait: 1s\\n" * 30
        return parse(f"runbook: {name}\\nsteps:\\n{below}", name)

base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (base + 400 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
try:
    document = load(Path(sys.argv[1]))
    resolution.validate(document, top, Library()) if "runbook" in document.root else registry.open_estate(document)
except Invalid as refused:
    said = render(refused.problems)
    assert len(said) < 200_000, len(said)
    print(said)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds its child's memory by /proc and RLIMIT_AS")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_little_time_and_memory(name: str, tmp_path: Path) -> None:
    text, said = HOSTILE[name]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    child = subprocess.run(
        [sys.executable, "-c", REFUSE, path, files.HERE / "failover.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.stdout.endswith("Nothing was run.\n"), child.stderr[-2000:]
    assert said in child.stdout
