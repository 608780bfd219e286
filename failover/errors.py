"""Every way in which the product stops, each with what happened, where, and what to do next.

The exit codes are those of the command line: 1 failed, 2 usage or an invalid file, 3 refused by a guard,
4 indeterminate, 5 locked by somebody else, 6 interrupted and resumable.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class FailoverError(Exception):
    """Something that a person has to read: `what` happened, `where`, and what to do `next`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  next: {self.next}" if self.next else head


class Failed(FailoverError):
    """The work was tried and did not succeed; what had been done before stands."""


class Usage(FailoverError):
    """The command was called in a way that has no meaning."""

    exit_code = 2


class Refused(FailoverError):
    """A guard said no before anything was written. `guard` is its name, `seen` the evidence."""

    exit_code = 3

    def __init__(self, guard: str, what: str, *, seen: Sequence[str] = (), where: str = "", next: str = "") -> None:
        super().__init__(what, where=where, next=next)
        self.guard = guard
        self.seen = tuple(seen)


class Indeterminate(FailoverError):
    """A write may or may not have happened, and reading back did not tell."""

    exit_code = 4


class Locked(FailoverError):
    """Somebody else holds the region or carries out the run."""

    exit_code = 5


class Interrupted(FailoverError):
    """The run was stopped in a known state and can be resumed."""

    exit_code = 6


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file. Line and column count from 1; 0 means that the place is not known."""

    file: str
    line: int
    column: int
    message: str
    source: str = ""
    width: int = 1

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}  {self.message}"


class Invalid(FailoverError):
    """A file, or several, with all of their mistakes at once, in the order of their places."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message that names the nearest valid name, or the few that there are."""
    names = sorted(known)
    near = get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        swapped = [name for name in near if sorted(name) == sorted(word)]
        return f"; did you mean '{[*swapped, *near][0]}'?"
    if names and len(names) <= 12:
        return f"; known: {', '.join(names)}"
    return ""


class Conflict(Refused):
    """A write found another value than the one that it was to replace. Nothing was written by it."""

    def __init__(self, resource: str, expected: str, found: str) -> None:
        super().__init__(
            "changed-by-others",
            f"{resource} was to go from {expected}, but it is {found} now; somebody else changed it",
            seen=(f"expected {expected}", f"found {found}"),
            next="find out who changed it and why; then plan again, which starts from what is there now",
        )
