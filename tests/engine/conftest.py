from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from failover.engine import estate, live


def one_by_one(calls: Mapping[Any, Callable[[], Any]], late: Callable[[Any], Any]) -> dict[Any, Any]:
    """What `gather` does, in this thread: its order is known, and thousands of runs take seconds."""
    del late
    found: dict[Any, Any] = {}
    errors: list[BaseException] = []
    for key, call in calls.items():
        try:
            found[key] = call()
        except BaseException as error:  # noqa: BLE001 - raised below, when all were called
            errors.append(error)
    if errors:
        raise errors[0]
    return found


@pytest.fixture(scope="module")
def in_turn() -> Iterator[None]:
    """The engine's parallel calls happen one after another, in the order in which they were asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estate, "gather", one_by_one)
        patch.setattr(live, "gather", one_by_one)
        yield
