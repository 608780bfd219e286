"""One writer at a time: a lock in Consul's key-value store, by a session that ends by itself.

Agents have no compare-and-set, and two writers who each drain another region would leave nobody. So whoever is
about to write holds the route's key, reads again, and writes within the session's life.

Source: https://developer.hashicorp.com/consul/docs/automate/session
"""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from failover._consul import Agent
from failover.clock import Clock
from failover.errors import Failed, FailoverError
from failover.secret import redact

_LEAST_TTL = 10.0
_EVERY = 0.05


@contextmanager
def held(agent: Agent, keys: Sequence[str], clock: Clock, deadline: float, ttl: float) -> Iterator[None]:
    """Hold all of `keys`, in their order, waited for until `deadline`. Raises Failed where that does not come to be.

    The session lives `ttl` seconds at least, and outlives no process by more than twice that.
    """
    asked = {"Name": "failover", "TTL": f"{max(ttl, _LEAST_TTL):.0f}s", "LockDelay": "1s", "Behavior": "delete"}
    try:
        # Without the node's own health check: it is the lock that has to stay where an agent is in doubt.
        made = agent.put("session/create", {**asked, "NodeChecks": [], "Checks": []}, dc=agent.datacenter)
        session = str(made["ID"])
    except (KeyError, TypeError):
        raise _not_held(agent, "its answer to a new session has no ID", "look at the agent's log") from None
    except FailoverError as error:
        raise _not_held(agent, error.what, error.next) from None
    try:
        for key in sorted(keys):
            _acquire(agent, key, session, clock, deadline)
        yield
    finally:
        with suppress(FailoverError):
            for key in keys:
                if _holder(agent, key) == session:
                    agent.delete(f"kv/{key}", dc=agent.datacenter)
        with suppress(FailoverError):
            agent.put(f"session/destroy/{session}", dc=agent.datacenter)


def _acquire(agent: Agent, key: str, session: str, clock: Clock, deadline: float) -> None:
    who = f"failover on {platform.node()}"
    while True:
        try:
            if agent.put(f"kv/{key}", who, acquire=session, dc=agent.datacenter) is True:
                return
        except FailoverError as error:
            raise _not_held(agent, error.what, error.next) from None
        if clock.monotonic() >= deadline:
            raise _not_held(
                agent,
                f"somebody else holds the lock {key}, or did a moment ago",
                f"see who by `consul kv get {key}`; where that process has died, it ends by itself within a minute",
            )
        clock.sleep(_EVERY)


def _holder(agent: Agent, key: str) -> str:
    body = agent.get(f"kv/{key}").body
    return str(body[0].get("Session", "")) if body else ""


def _not_held(agent: Agent, why: str, then: str) -> Failed:
    return Failed(
        f"the lock of a write was not taken: {redact(why)}; nothing was written", where=agent.where, next=then
    )
