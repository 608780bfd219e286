"""An estate in memory, for commands that run in the test's own process."""

import json
from pathlib import Path
from typing import Any

import pytest

from failover.cli import main
from failover.databases import memory as databases
from failover.probes import memory as probes
from failover.routers import memory as routers
from failover.verdict import failed

TOPOLOGY = """
topology: memory
regions: [east, west]
services:
  web:
    routes: [{{router: dns, weights: {{east: 100, west: 100}}}}]
    checks: {{up: {{memory: {{shared: "{name}-${{region}}"}}}}}}
databases:
  orders: {{primary: east, memory: {{regions: [east, west], shared: "{name}"}}}}
routers: {{dns: {{memory: {{shared: "{name}"}}}}}}
drain: {{stages: [50, 0], soak: 0s}}
store: {{sqlite: {{path: {place}/journal.db}}}}
"""


class Estate:
    """An estate whose routers, databases and probes outlive each command, since all commands run in this process."""

    def __init__(self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = str(place)
        self.place = place
        self.topology = place / "failover.yaml"
        self.topology.write_text(TOPOLOGY.format(name=self.name, place=place))
        self._capsys = capsys
        monkeypatch.setenv("FAILOVER_TOPOLOGY", str(self.topology))
        monkeypatch.chdir(place)

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command to its end in this process; what it printed on stdout. `err` has the rest."""
        got = main.run(list(words))
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert got == code, f"failover {' '.join(words)} ended with {got}\n{captured.out}\n{captured.err}"
        assert "\x1b" not in captured.out + captured.err
        return captured.out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, "--json", code=code))

    def weights(self) -> dict[str, int]:
        return dict(self.json("status")["routes"]["web@dns"]["weights"])

    def last(self) -> str:
        return str(self.json("runs")["runs"][-1]["run"])

    def sick(self, region: str) -> None:
        probes.verdicts[f"{self.name}-{region}"] = failed("its cable was cut")

    def well(self) -> None:
        probes.forget()


def forget() -> None:
    """Whatever commands have done to estates in memory, the next one finds them new."""
    probes.forget()
    routers.forget()
    databases.forget()
