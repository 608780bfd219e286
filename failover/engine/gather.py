"""Many bounded calls at once."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MOST_THREADS = 32
_PATIENCE = 60.0
"""Seconds after which a call that ought to have bounded itself is given up on."""


def gather(calls: Mapping[K, Callable[[], V]], late: Callable[[K], V], *, patience: float = _PATIENCE) -> dict[K, V]:
    """What each call returned, by its key. One that raises, raises here; one that never returns becomes `late`.

    The threads are daemons: a call that hangs for ever does not keep the process from ending.
    """
    todo: queue.SimpleQueue[tuple[K, Callable[[], V]]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[K, V | None, BaseException | None]] = queue.SimpleQueue()
    for item in calls.items():
        todo.put(item)

    def work() -> None:
        while True:
            try:
                key, call = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((key, call(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asked
                done.put((key, None, error))

    for _ in range(min(len(calls), _MOST_THREADS)):
        threading.Thread(target=work, daemon=True).start()
    found: dict[K, V] = {}
    errors: list[BaseException] = []
    for _ in calls:
        try:
            key, value, error = done.get(timeout=patience)
        except queue.Empty:
            break
        if error is not None:
            errors.append(error)
        else:
            found[key] = value  # type: ignore[assignment]  # a call without an error has returned a V
    if errors:
        raise errors[0]
    return {key: found[key] if key in found else late(key) for key in calls}
