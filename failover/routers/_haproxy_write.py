"""Changing servers' weights on several HAProxy processes: all of them or none, as far as sockets allow.

HAProxy's socket has no compare-and-set, and the commands of one line are not carried out as one. So each line begins
and ends by showing the servers: what it really replaced is known, and where that is not what was expected, it is put
back. Writers on one machine wait for each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from failover.clock import Clock
from failover.errors import Conflict, Failed, FailoverError, Indeterminate
from failover.routers._haproxy_servers import Server, Servers, Unclear, parse
from failover.routers._haproxy_socket import Instance, Unheard, lines

Seen = Mapping[str, Servers]
"""The servers of each backend, as one instance shows them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One server going from one weight to another, for the sake of a route."""

    route: str
    backend: str
    server: str
    before: int
    after: int

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.server}"

    @property
    def command(self) -> str:
        return f"set weight {self.name} {self.after}"

    def back(self) -> "Step":
        return replace(self, before=self.after, after=self.before)


class _Overtaken(Exception):
    """A server was not as expected when its line was carried out."""

    def __init__(self, route: str, wanted: str, found: str) -> None:
        super().__init__(found)
        self.route = route
        self.wanted = wanted


class _Refusal(Exception):
    """HAProxy did not take a command; the message is what it said."""


def show(instance: Instance, backends: Sequence[str], seconds: float) -> Mapping[str, Servers | Unclear]:
    """The servers of each of `backends`. Writes nothing. Raises Unheard."""
    found: dict[str, Servers | Unclear] = {}
    commands = [_show(backend) for backend in backends]
    answers = [text for line in lines(commands) for text in instance.ask(line, seconds)]
    for backend, text in zip(backends, answers, strict=True):
        try:
            found[backend] = parse(text, backend)
        except Unclear as error:
            found[backend] = Unclear(_missing(backend) if text.startswith("Can't find backend") else str(error))
    return found


@dataclass
class Transaction:
    """Steps on one instance after another. What was done before one fails is put back where that is possible."""

    where: str
    clock: Clock
    seconds: float
    """Bounds each exchange."""
    whole: float
    """Bounds all writing, and then all putting back."""
    done: list[tuple[Instance, list[Step]]] = field(default_factory=list)
    _deadline: float = 0.0

    def __post_init__(self) -> None:
        self._deadline = self.clock.monotonic() + self.whole

    def run(self, instance: Instance, steps: Sequence[Step], seen: Seen) -> None:
        """Carry out `steps`, raises before lowers. Writes.

        Raises Conflict or Failed where all that was written has been put back, Indeterminate otherwise.
        """
        ordered = sorted(steps, key=lambda step: step.after < step.before)
        try:
            for part in _parts(ordered):
                self._carry_out(instance, part, seen)
        except Unheard as error:
            if error.sent:
                raise self._lost(str(error)) from None
            raise self._undone(Failed(str(error), where=self.where, next="check that it runs")) from None
        except _Refusal as error:
            raise self._undone(self._words(instance, str(error))) from None
        except _Overtaken as error:
            conflict = Conflict(f"route {error.route} on {instance}", error.wanted, str(error))
            raise self._undone(conflict) from None

    def _carry_out(self, instance: Instance, steps: Sequence[Step], seen: Seen) -> None:
        backends = list(dict.fromkeys(step.backend for step in steps))
        shows = [_show(backend) for backend in backends]
        answers = self._ask(instance, [*shows, *(step.command for step in steps), *shows])
        try:
            first, last = (
                {backend: parse(text, backend) for backend, text in zip(backends, part, strict=True)}
                for part in (answers[: len(shows)], answers[-len(shows) :])
            )
        except Unclear as error:
            raise Unheard(f"{instance}: {error}", sent=True) from None
        # From here on it is known what each weight was and is: that much can be put back.
        moved = [
            replace(step, before=first[step.backend][step.server].weight)
            for step in steps
            if _weight(first, step) is not None and _weight(last, step) == step.after
        ]
        ours = {step.name for at, earlier in self.done if at == instance for step in earlier}
        self.done.append((instance, moved))
        for text in answers[len(shows) : -len(shows)]:
            if text:
                raise _Refusal(text)
        routes = {step.backend: step.route for step in steps}
        for backend in backends:
            for name, server in seen[backend].items():
                at, now = f"{backend}/{name}", first[backend].get(name)
                if at not in ours and (now is None or now.put != server.put):
                    raise _Overtaken(routes[backend], f"{at} {_say(server)}", f"{at} {_say(now)}")
        for step in steps:
            if _weight(last, step) != step.after:
                found = _say(last[step.backend].get(step.server))
                raise _Overtaken(step.route, f"{step.name} {step.after}", f"{step.name} {found}")

    def _undone(self, error: FailoverError) -> FailoverError:
        """`error`, once everything that was done is put back; Indeterminate where that did not work."""
        problems = []
        self._deadline = self.clock.monotonic() + self.whole
        for instance, steps in reversed(self.done):
            for part in _parts([step.back() for step in steps if step.before != step.after]):
                backends = list(dict.fromkeys(step.backend for step in part))
                shows = [_show(backend) for backend in backends]
                try:
                    answers = self._ask(instance, [*(step.command for step in part), *shows])
                    now = {b: parse(text, b) for b, text in zip(backends, answers[-len(shows) :], strict=True)}
                except (Unheard, Unclear) as lost:
                    problems.append(str(lost))
                    continue
                problems += [
                    f"{step.name} on {instance} is not {step.after} again"
                    for step in part
                    if step.server not in now[step.backend] or now[step.backend][step.server].weight != step.after
                ]
        if not problems:
            return error
        return Indeterminate(
            f"{error.what}; and not all that had been written could be put back: {'; '.join(problems)}",
            where=self.where,
            next="look at 'show servers state' on every instance, and make them agree before anything else",
        )

    def _ask(self, instance: Instance, commands: Sequence[str]) -> list[str]:
        left = self._deadline - self.clock.monotonic()
        if left <= 0:
            raise Unheard(f"{instance} was not asked: the time for writing, {self.whole:g} s, is over", sent=False)
        return instance.ask(commands, min(self.seconds, left))

    def _lost(self, why: str) -> Indeterminate:
        before = ", ".join(dict.fromkeys(str(instance) for instance, _ in self.done))
        return Indeterminate(
            f"weights were sent to an instance, but its answer was lost ({why}); they may be set there or not"
            + (f"; on {before} they are" if before else ""),
            where=self.where,
            next="make it answer again, and read the weights back before anything else; resume does",
        )

    def _words(self, instance: Instance, said: str) -> Failed:
        if said.startswith("Permission denied"):
            what = f"{instance} lets nobody write: its socket is not of level admin"
            then = "write 'level admin' behind that 'stats socket' in haproxy.cfg and reload, or name another socket"
        elif "static LB algorithm" in said:
            what = f"{instance} has a backend with a static balance algorithm, which takes no shares ({said})"
            then = "say 'switch: true' at the route, or use roundrobin, leastconn, random or hash-type consistent"
        else:
            what, then = f"{instance} refuses: {said.splitlines()[0]}", "see to what it says, then plan again"
        return Failed(f"{what}; nothing was changed", where=self.where, next=then)


def _show(backend: str) -> str:
    return f"show servers state {backend}"


def _missing(backend: str) -> str:
    return f"there is no backend '{backend}'; check the route's 'backend' against haproxy.cfg"


def _parts(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """`steps` in as many parts as lines; each leaves room for showing its backends before and after."""
    widest = max((len(_show(step.backend)) for step in steps), default=0)
    commands = [step.command + " " * (2 * widest + 2) for step in steps]
    start = 0
    for line in lines(commands):
        yield steps[start : start + len(line)]
        start += len(line)


def _weight(seen: Seen, step: Step) -> int | None:
    server = seen[step.backend].get(step.server)
    return None if server is None else server.weight


def _say(server: Server | None) -> str:
    if server is None:
        return "gone"
    return f"{server.weight} ({server.held})" if server.held else str(server.weight)
