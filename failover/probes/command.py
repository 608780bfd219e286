"""Runs a program that looks, and takes its exit code for the verdict."""

import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from failover.clock import Clock
from failover.probes.looking import look
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed, unknown

_READ = 65_536
_FAILS = (1, 2)


class CommandProbeConfig(Model):
    """`argv` is run without a shell, with `env` added to the environment, for `timeout` at most."""

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    env: dict[str, str | Secret] = {}
    timeout: Duration = 5.0


class CommandProbe:
    """Passes at exit code 0 and fails at 1 and 2, as the Monitoring Plugins do.

    Any other code, a signal, a program that cannot be started and one that does not end are unknown. What it does
    besides looking is its author's: plans run it too.
    """

    Config: ClassVar[type[BaseModel]] = CommandProbeConfig

    def __init__(self, config: CommandProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One run, `timeout` at most; then its whole process group is killed. Never raises."""
        running: list[subprocess.Popen[bytes]] = []
        see = partial(self._see, running)
        return look(f"run {self._config.argv[0]}", self._config.timeout, self._clock, see, partial(_kill, running))

    def _see(self, running: list[subprocess.Popen[bytes]]) -> Verdict:
        named = self._config.env.items()
        env = {name: value.reveal() if isinstance(value, Secret) else value for name, value in named}
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command is what this looks with
                self._config.argv,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return unknown(f"it cannot be started: {(error.strerror or str(error)).lower()}")
        running.append(process)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        with process.stdout as output:
            said = output.read(_READ)
            while output.read(_READ):
                pass
        code = process.wait()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        line = f": {lines[0]}" if lines else ""
        if code == 0:
            return passed(f"exit code 0{line}")
        if code in _FAILS:
            return failed(f"exit code {code}{line}")
        return unknown(f"exit code {code}{line}" if code > 0 else f"ended by signal {-code}{line}")


def _kill(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
