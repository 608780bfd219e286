"""What all probes share: a bound on their time, evidence without secrets, and what a broken connection says.

Who answers "no" has been seen to fail. Silence, and whatever keeps us from asking, is unknown: from one vantage
point blindness is not death.
"""

import socket
import ssl
from collections.abc import Callable

from failover.bounded import bounded
from failover.clock import Clock
from failover.errors import Failed
from failover.secret import redact
from failover.units import duration
from failover.verdict import Verdict, failed, unknown

LONGEST = 300


def nothing() -> None:
    """For a look that ends by itself soon after its time is over."""


def look(
    asked: str, seconds: float, clock: Clock, see: Callable[[], Verdict], cut: Callable[[], None] = nothing
) -> Verdict:
    """The verdict of `see` within `seconds`, each line with what was `asked` before it and the time taken after it.

    Never raises: what `see` cannot see is unknown. `cut` breaks the connection that `see` waits on.
    """
    begun = clock.monotonic()
    try:
        verdict = bounded(seconds, see, cut)
    except TimeoutError:
        verdict = unknown(f"no answer within {duration(seconds)}")
    except OSError as error:
        verdict = broken(error)
    except Failed as error:
        verdict = unknown(f"not asked: {error.what}; {error.next}")
    except Exception as error:  # noqa: BLE001 - a probe's own mistake must not end the run that asks it
        verdict = unknown(f"not seen: {type(error).__name__}: {error}")
    took = round((clock.monotonic() - begun) * 1000)
    return Verdict(verdict.outcome, tuple(f"{plain(asked)}: {plain(line)} ({took} ms)" for line in verdict.evidence))


def broken(error: OSError) -> Verdict:
    """What it says about the other side that a connection to it broke with `error`."""
    if isinstance(error, socket.gaierror):
        return unknown(f"its name cannot be resolved: {error.strerror}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return failed(f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return failed(f"no TLS connection: {error.reason or error.strerror}")
    why = (error.strerror or str(error)).lower()
    return failed(why) if isinstance(error, ConnectionError) else unknown(why)


def plain(text: str) -> str:
    """`text` on one line, fit for a terminal and a journal: no secrets, no control characters, not too long."""
    line = redact(text)
    if not line.isprintable():
        line = "".join(mark if mark.isprintable() else " " for mark in line)
    line = " ".join(line.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
