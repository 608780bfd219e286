"""Draws `docs/demo.svg`: the demo's own screen, caught while it runs, and its measured end.

`python -m docs.picture` starts a lab of its own and takes a minute.
"""

import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from failover.cli import running
from failover.lab.demo import Demo, summary
from failover.report.progress import Screen

_WIDTH = 104
_CAUGHT: list[Any] = []


class Caught(Screen):
    """A screen that keeps its last picture of the switchover of the planned evacuation."""

    def event(self, event: Any) -> None:
        super().event(event)
        if event["kind"] == "step-done" and event["step"] == "promote" and not _CAUGHT:
            _CAUGHT.append(self.draw())


def main() -> None:
    """Play the demo once and write the picture."""
    running.Screen = Caught  # type: ignore[misc]  # the demo draws on whatever screen is there
    say = Console(stderr=True).print
    with tempfile.TemporaryDirectory(prefix="failover-picture-") as place:
        Path(place).chmod(0o711)
        terminal = Console(file=io.StringIO(), force_terminal=True, width=_WIDTH)
        faces = Demo(Path(place) / "lab", say, terminal).play()
    paper = Console(file=io.StringIO(), record=True, force_terminal=True, width=_WIDTH)
    paper.print(Group(Text("$ failover lab demo", "bold"), _CAUGHT[0], Text("\n".join(summary(faces)))))
    target = Path(__file__).parent / "demo.svg"
    picture = re.sub(r"@font-face \{.*?\}", "", paper.export_svg(title="failover lab demo"), flags=re.DOTALL)
    target.write_text(picture.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas"), encoding="utf-8")
    say(f"wrote {target}")


if __name__ == "__main__":
    sys.exit(main())
