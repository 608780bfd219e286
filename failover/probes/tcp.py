"""Opens a TCP connection and closes it."""

import socket
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from failover.clock import Clock
from failover.probes.looking import broken, look
from failover.schema import Model
from failover.units import Duration
from failover.verdict import Outcome, Verdict, passed, worst

Port = Annotated[int, Field(ge=1, le=65535)]


class TcpProbeConfig(Model):
    """`timeout` bounds the whole look, name resolution included."""

    host: Annotated[str, Field(min_length=1)]
    port: Port
    timeout: Duration = 2.0


class TcpProbe:
    """Passes where one of the host's addresses accepts, fails where all refuse, and is unknown otherwise."""

    Config: ClassVar[type[BaseModel]] = TcpProbeConfig

    def __init__(self, config: TcpProbeConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def probe(self) -> Verdict:
        """One connection, `timeout` at most."""
        asked = f"connect to {self._config.host} port {self._config.port}"
        return look(asked, self._config.timeout, self._clock, self._see)

    def _see(self) -> Verdict:
        address = (self._config.host, self._config.port)
        try:
            socket.create_connection(address, self._config.timeout, all_errors=True).close()
        except ExceptionGroup as group:
            seen = [broken(error) for error in group.exceptions if isinstance(error, OSError)]
            blind = [verdict for verdict in seen if verdict.outcome is Outcome.UNKNOWN]
            return worst(blind or seen)
        return passed("accepted")
