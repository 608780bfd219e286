"""A bound on calls that cannot be trusted to keep one: name resolution, or a peer that sends a byte a second."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def bounded(seconds: float, call: Callable[[], T], cut: Callable[[], None]) -> T:
    """What `call` returns or raises; TimeoutError where that takes longer than `seconds`.

    `call` runs in a thread of its own. Where it is late, `cut` breaks the connection that it waits on, and its end
    is not waited for.
    """
    answer: Future[T] = Future()
    threading.Thread(target=_work, args=(call, answer), daemon=True, name="bounded").start()
    try:
        return answer.result(timeout=seconds)
    finally:
        if not answer.done():
            cut()
        del answer


def _work(call: Callable[[], T], answer: Future[T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - carried to the caller, who raises it
        answer.set_exception(error)
    finally:
        # An error refers to this frame; if the frame referred to the error, its connection would stay open.
        del call, answer
