"""Keeps what it is told to say: for tests and simulation."""

from typing import ClassVar

from pydantic import BaseModel

from failover.clock import Clock
from failover.schema import Model

messages: dict[str, list[str]] = {}
"""What was sent, by the notifiers' `shared` names."""


class MemoryNotifierConfig(Model):
    """Notifiers with the same `shared` name write to the same entry of `messages`."""

    shared: str = ""


def forget() -> None:
    """Drop every message of shared notifiers."""
    messages.clear()


class MemoryNotifier:
    """Appends each message to `log`."""

    Config: ClassVar[type[BaseModel]] = MemoryNotifierConfig

    def __init__(self, name: str, config: MemoryNotifierConfig, clock: Clock) -> None:  # noqa: ARG002 - the port's
        self.name = name
        self.log = messages.setdefault(config.shared, []) if config.shared else []

    def send(self, message: str) -> None:
        self.log.append(message)
