"""All members of one PostgreSQL cluster, seen together."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from failover.clock import Clock
from failover.databases import _postgres_fence as fence
from failover.databases import _postgres_hail as hail
from failover.databases._postgres_host import Host
from failover.databases._postgres_link import Link, why
from failover.databases._postgres_view import (
    History,
    Seen,
    Silent,
    ask,
    ask_history,
    fork,
    leader,
    lsn,
    member,
    parse_history,
    silent,
)  # fmt: skip
from failover.errors import Failed
from failover.world import Member, Role

if TYPE_CHECKING:
    from failover.databases.postgres import PostgresConfig

_TRIES = 10
_AGAIN = 0.002
_LEFT_BEHIND = (Role.DIVERGED, Role.STOPPED, Role.FENCED)

Answers = Mapping[str, Seen | Silent]


class Estate:
    """Connections and hosts of all members, and what they say. Writes nothing."""

    def __init__(self, name: str, config: "PostgresConfig", clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self.links = {region: Link(self._options_of(region), config.timeout) for region in config.members}
        self.hosts = {
            region: Host(f"database {name}/{region}", member.data, member.bin, member.via)
            for region, member in config.members.items()
            if member.data and member.bin and member.via is not None
        }
        self.proven: dict[str, str] = {}
        """Members that a fence has shown to be off, and how; forgotten when they answer."""
        self._histories: dict[tuple[str, int], History] = {}
        self._counted: dict[tuple[str, int, str], int | None] = {}

    def options(self, region: str) -> dict[str, Any]:
        """libpq's parameters for a member, the password among them. Raises Failed where that cannot be read."""
        config = self._config
        member = config.members[region]
        options: dict[str, Any] = {
            "host": member.host,
            "port": member.port,
            "user": config.user,
            "dbname": config.database,
            "sslmode": config.sslmode,
        }
        if config.sslrootcert:
            options["sslrootcert"] = config.sslrootcert
        if config.password:
            options["password"] = config.password.reveal()
        return options

    def observe(self, *, seconds: float | None = None, hosts: bool = True) -> Answers:
        """What every member answers within `seconds`; the hosts of silent ones are asked where `hosts` says so."""
        bound = self._config.timeout if seconds is None else seconds
        late = Silent(f"no answer within {bound:g} s")

        def one(region: str) -> Seen | Silent:
            answer = self._ask(region, bound)
            if isinstance(answer, Silent) and not answer.answers and hosts and region in self.hosts:
                return self._look(region, answer)
            return answer

        patience = bound + (self._config.timeout if hosts and self.hosts else 0) + 0.5
        answers = self._each(one, late, patience)
        for region, answer in answers.items():
            if isinstance(answer, Seen) or answer.answers:
                self.proven.pop(region, None)
        first = answers.get(leader(answers))
        if not isinstance(first, Seen):
            return answers
        return {
            region: Silent(f"it belongs to another cluster, with system identifier {answer.system}")
            if isinstance(answer, Seen) and answer.system != first.system
            else answer
            for region, answer in answers.items()
        }

    def members(self, answers: Answers, *, full: bool) -> dict[str, Member]:
        """The roles that follow from `answers`; in `full` with what has to be waited for and counted."""
        first = leader(answers)
        newest = answers.get(first)
        if not isinstance(newest, Seen):
            newest = None
        return {region: self._member(region, answer, first, newest, full) for region, answer in answers.items()}

    def _member(self, region: str, answer: Seen | Silent, first: str, newest: Seen | None, full: bool) -> Member:
        timeline = answer.timeline if isinstance(answer, Seen) else answer.look.timeline if answer.look else 0
        left = bool(newest and 0 < timeline < newest.timeline)
        if isinstance(answer, Silent):
            found = silent(answer, self.proven.get(region, ""))
        else:
            parted = self._parted(region, timeline, first, newest) if newest and left and answer.recovering else None
            found = member(answer, newest, parted[1] if parted else None)
            if found.role is Role.REPLICA:
                streaming = newest is not None and self._streams(answer, first, newest)
                lag = self._lag(region, answer, newest, streaming) if full else None
                found = replace(found, streaming=streaming, lag=lag)
                if full and lag is None:
                    found = replace(found, detail=_with(found.detail, _unmeasured(answer, newest)))
            elif full and found.role is Role.PRIMARY:
                found = replace(found, detail=self._half_fenced(region))
        if full and newest and left and not newest.read_only and found.role in _LEFT_BEHIND:
            end = str(answer.end) if isinstance(answer, Seen) else answer.look.end if answer.look else ""
            found = replace(found, lost=self._lost(region, timeline, end, first, newest))
        return found

    def _ask(self, region: str, seconds: float) -> Seen | Silent:
        deadline = self._clock.monotonic() + seconds
        connected = False
        try:
            with self.links[region].session(seconds) as session:
                connected = True
                return ask(session)
        except psycopg.Error as error:
            if error.sqlstate or connected or isinstance(error, psycopg.errors.ConnectionTimeout):
                return Silent(why(error), answers=hail.refuses(error))
            return self._hail(region, why(error), max(0.1, deadline - self._clock.monotonic()))
        except Failed as error:
            return Silent(error.what, asked=False)

    def _hail(self, region: str, reason: str, seconds: float) -> Silent:
        """What a failed log-in says of the member: that it is there, or nothing."""
        member = self._config.members[region]
        if not hail.named(member.host, member.port):
            return Silent(reason, asked=False)
        there = {"host": member.host, "port": member.port}
        options = {**there, "user": self._config.user, "dbname": self._config.database}
        return Silent(reason, answers=hail.answers(options, seconds, self._clock))

    def _half_fenced(self, region: str) -> str:
        try:
            with self.links[region].session() as session:
                return fence.half(session)
        except (psycopg.Error, Failed):
            return ""

    def _look(self, region: str, answer: Silent) -> Silent:
        try:
            return replace(answer, look=self.hosts[region].look(self._config.timeout))
        except Failed as error:
            return replace(answer, why=f"{answer.why}; {error.what}")

    def _streams(self, seen: Seen, first: str, newest: Seen) -> bool:
        if seen.receiver != "streaming" or seen.timeline != newest.timeline:
            return False
        addresses = {(member.host, member.port): region for region, member in self._config.members.items()}
        # An address that nobody declared may be the primary's name in another network; its timeline is right.
        return addresses.get(seen.sender, first) == first

    def _lag(self, region: str, seen: Seen, newest: Seen | None, streaming: bool) -> float | None:
        if newest is None:
            return None
        for _ in range(_TRIES if streaming else 0):
            if seen.position >= newest.position:
                break
            self._clock.sleep(_AGAIN)
            again = self._ask(region, self._config.timeout)
            if isinstance(again, Silent):
                break
            seen = again
        if seen.position >= newest.position:
            return 0.0
        # Both times are the primary's clock's: the one now, the other from the record that was replayed last.
        return None if seen.last_commit is None else max(0.0, newest.now - seen.last_commit)

    def _parted(self, region: str, timeline: int, first: str, newest: Seen | None) -> tuple[int, int] | None:
        """The timeline and position up to which a member's history is the newest one's; None where that is hidden."""
        if newest is None:
            return None
        try:
            common = fork(self._history(region, timeline), self._history(first, newest.timeline))
        except (psycopg.Error, Failed):
            return None
        return common if common[0] else None

    def _history(self, region: str, timeline: int) -> History:
        if timeline <= 1:
            return parse_history(1, "")
        if (region, timeline) not in self._histories:
            try:
                with self.links[region].session() as session:
                    text = ask_history(session, timeline)
            except (psycopg.Error, Failed):
                if region not in self.hosts:
                    raise
                text = self.hosts[region].history(timeline, self._config.timeout)
            if not text:
                raise Failed(f"{region} has no history of its timeline {timeline}")
            self._histories[region, timeline] = parse_history(timeline, text)
        return self._histories[region, timeline]

    def _lost(self, region: str, timeline: int, end: str, first: str, newest: Seen) -> int | None:
        parted = self._parted(region, timeline, first, newest)
        if parted is None or region not in self.hosts:
            return None
        key = (region, parted[1], end)
        if key not in self._counted:
            try:
                self._counted[key] = self.hosts[region].commits_after(timeline, lsn(parted[1]), self._config.timeout)
            except Failed:
                return None
        return self._counted[key]

    def _each(self, work: Callable[[str], Seen | Silent], late: Silent, seconds: float) -> dict[str, Seen | Silent]:
        """`work` for every member at the same time; `late` for those that do not finish within `seconds`."""
        found: dict[str, Seen | Silent] = {}

        def run(region: str) -> None:
            found[region] = work(region)

        deadline = self._clock.monotonic() + seconds
        threads = [threading.Thread(target=run, args=(region,), daemon=True) for region in self._config.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        return {region: found.get(region, late) for region in self._config.members}

    def _options_of(self, region: str) -> Callable[[], dict[str, Any]]:
        return lambda: self.options(region)


def _unmeasured(seen: Seen, newest: Seen | None) -> str:
    if newest is None:
        return "no primary answers, so how far it is behind cannot be told"
    behind = f"{max(0, newest.position - seen.position):,} bytes"
    return f"has replayed no commit since it started, so only that it is {behind} behind can be told"


def _with(one: str, other: str) -> str:
    return f"{one}; {other}" if one else other
