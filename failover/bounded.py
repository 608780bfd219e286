"""A bound on calls that cannot be trusted to keep one: name resolution, or a peer that sends a byte a second."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds that a worker waits for its next call before it ends."""


def bounded(seconds: float, call: Callable[[], T], cut: Callable[[], None]) -> T:
    """What `call` returns or raises; TimeoutError where that takes longer than `seconds`.

    `call` has a thread to itself: one that has nothing to do, or a new one. Where it is late, `cut` breaks the
    connection that it waits on, and its end is not waited for; its thread is free again when it has ended.
    """
    answer: Future[T] = Future()
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put((call, answer))
    try:
        return answer.result(timeout=seconds)
    finally:
        if not answer.done():
            cut()
        del answer


class _Worker:
    """A thread that makes one call after another, named "bounded" during each. It is in `_idle` while it has none."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            try:
                call, answer = self.calls.get(timeout=_PATIENCE)
            except Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has just taken it: a call is on its way
                    continue
                return
            thread.name = "bounded"
            try:
                tell = partial(answer.set_result, call())
            except BaseException as error:  # noqa: BLE001 - carried to the caller, who raises it
                tell = partial(answer.set_exception, error)
            thread.name = "bounded, idle"
            _idle.append(self)
            tell()
            # An error refers to this frame; if the frame referred to the error, its connection would stay open.
            del call, answer, tell


_idle: list[_Worker] = []
"""The last one to come is the first to go, so that those that are too many end."""

os.register_at_fork(after_in_child=_idle.clear)  # the threads stay behind in the parent
