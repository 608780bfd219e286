"""HAProxy's server-state-file: what lets a reload keep the weights.

Source: `server-state-file` and `load-server-state-from-file` in HAProxy's configuration manual.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from failover.errors import Failed
from failover.routers._haproxy_socket import Instance

Save = Callable[[Instance, float], None]
_MODE = 0o644


class StateFile:
    """The file at `path`, or none where that is empty."""

    def __init__(self, where: str, path: str) -> None:
        self.where = where
        self.path = path

    @contextmanager
    def ready(self) -> Iterator[Save]:
        """A function that saves what an instance shows, in one move. Raises Failed where the file cannot be written.

        That is found out before any weight is set. The function raises Unheard or OSError. Writes.
        """
        if not self.path:
            yield lambda _instance, _seconds: None
            return
        target = Path(self.path).resolve()
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            raise Failed(
                f"the state file {self.path} cannot be written: {(error.strerror or str(error)).lower()}; "
                "nothing was written",
                where=self.where,
                next="let this user write in that directory, or leave 'state_file' out",
            ) from None

        def save(instance: Instance, seconds: float) -> None:
            [text] = instance.ask(["show servers state"], seconds)
            with os.fdopen(os.dup(handle), "w") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
            self._like_before(handle, target)
            Path(name).replace(target)
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

        try:
            yield save
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - it is gone where it was moved

    @staticmethod
    def _like_before(handle: int, target: Path) -> None:
        try:
            before = target.stat()
        except FileNotFoundError:
            os.fchmod(handle, _MODE)
            return
        os.fchmod(handle, before.st_mode & 0o7777)
        with suppress(PermissionError):
            os.fchown(handle, before.st_uid, before.st_gid)
