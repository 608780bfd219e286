"""What is happening: a live screen on a terminal, one plain line an event elsewhere."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TextIO

from failover.clock import SYSTEM, stamp
from failover.report.words import event_lines
from failover.runbook import Runbook


class Progress(Protocol):
    """Follows a run: `event` gets the journal's events, `note` what happens in between."""

    def event(self, event: Mapping[str, Any]) -> None: ...

    def note(self, step: str, text: str) -> None: ...

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """While this is open, it is on the screen."""
        ...


class Lines:
    """A line an event, and what `extra` says every two seconds. A terminal that has gone does not stop a run."""

    _EVERY = 2.0

    def __init__(self, stream: TextIO | None = None, extra: Callable[[], list[str]] = list) -> None:
        self._stream = stream or sys.stderr
        self._extra = extra
        self._last = ""

    def event(self, event: Mapping[str, Any]) -> None:
        for text in event_lines(event):
            self._write(stamp(event["at"])[11:19], event.get("step", ""), text)

    def note(self, step: str, text: str) -> None:
        if text != self._last:
            self._last = text
            self._write(stamp(SYSTEM.wall())[11:19], step, text)

    def say(self, text: str) -> None:
        """A line of its own."""
        self._write(stamp(SYSTEM.wall())[11:19], "", text)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        over = threading.Event()

        def follow() -> None:
            while SYSTEM.sleep(self._EVERY, over):
                for line in self._extra():
                    self.say(line)

        threading.Thread(target=follow, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _write(self, at: str, step: str, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"{at}  {step:<20} {text}", file=self._stream, flush=True)


class Screen:
    """A live screen: the steps with their times, each region's traffic as a bar and its health, the latest lines.

    `extra` gives further lines, such as what customers see, each time it is drawn.
    """

    _LATEST = 6
    _STEPS = 16

    def __init__(
        self,
        runbook: Runbook,
        traffic: Callable[[], Mapping[str, Mapping[str, float]]],
        health: Callable[[], Mapping[str, str]] = dict,
        extra: Callable[[], list[str]] = list,
        console: Any = None,
    ) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True)
        self._runbook = runbook
        self._traffic = traffic
        self._health = health
        self._extra = extra
        self._turn = threading.RLock()
        self._status: dict[str, str] = {}
        self._times: dict[str, tuple[float, float | None]] = {}
        self._latest: list[tuple[str, str, str]] = []
        self._note = ""
        self._began = SYSTEM.monotonic()

    def event(self, event: Mapping[str, Any]) -> None:
        with self._turn:
            step = event.get("step", "")
            match event["kind"]:
                case "step-started":
                    self._status[step], self._times[step] = "running", (event["at"], None)
                case "step-done" | "step-failed" | "step-skipped" as kind:
                    self._status[step] = kind.removeprefix("step-")
                    self._times[step] = (self._times.get(step, (event["at"], None))[0], event["at"])
            for text in event_lines(event):
                self._latest = [*self._latest[1 - self._LATEST :], (stamp(event["at"])[11:19], step, text)]
            self._note = ""

    def note(self, step: str, text: str) -> None:
        with self._turn:
            self._note = f"{step}: {text}" if step else text

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        from rich.live import Live

        live = Live(console=self.console, get_renderable=self.draw, refresh_per_second=5)
        with contextlib.suppress(OSError):
            live.start(refresh=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                live.stop()

    def draw(self) -> Any:
        """The screen as it is now."""
        from rich import box
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        with self._turn:
            now = SYSTEM.wall()
            steps = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
            for number, step in self._visible():
                status = self._status.get(step.id, "")
                mark, style = _MARKS.get(status, ("·", "dim"))
                began, ended = self._times.get(step.id, (now, now))
                took = f"{(ended or now) - began:.1f} s" if status else ""
                steps.add_row(Text(mark, style), Text(f"{number} {step.id}", style), step.verb, took)
            bars = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
            unsaid = dict(self._health())
            for service, shares in self._traffic().items():
                for index, (region, part) in enumerate(shares.items()):
                    health = Text(unsaid.pop(region, ""), "dim")
                    bars.add_row(service if index == 0 else "", region, _bar(part), f"{part:.0%}", health)
            latest = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
            for at, name, text in self._latest:
                latest.add_row(Text(at, "dim"), Text(name, "cyan"), Text(text, overflow="fold"))
            rows: list[Any] = [steps, "", bars]
            rows += [Text(line, "bold") for line in self._extra()]
            rows += ["", latest, Text(self._note or " ", "dim")]
            subject = " ".join(str(value) for value in self._runbook.inputs.values() if isinstance(value, str))
            title = f"{self._runbook.name} {subject} · {SYSTEM.monotonic() - self._began:.0f} s"
            return Panel(Group(*rows), title=title, title_align="left", box=box.ROUNDED)

    def _visible(self) -> list[tuple[int, Any]]:
        steps = list(enumerate(self._runbook.steps, 1))
        active = next((at for at, (_, step) in enumerate(steps) if self._status.get(step.id, "") in _AHEAD), 0)
        first = max(0, min(active - 6, len(steps) - self._STEPS))
        return steps[first : first + self._STEPS]


_AHEAD = ("", "running")
_MARKS = {
    "running": ("▶", "bold yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}


def _bar(part: float) -> Any:
    from rich.text import Text

    full = round(30 * part)
    return Text("█" * full, "green") + Text("░" * (30 - full), "dim")
