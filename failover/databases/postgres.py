"""PostgreSQL 13 to 18 with streaming replication: switchover, failover, and bringing the old primary back.

`user` is a superuser. Access to a member's host (`data`, `bin`, `via`) is needed for what SQL cannot do: to see
that a server is off, to count what it would lose, and to rewind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import psycopg
from psycopg import sql
from pydantic import Field

from failover.clock import Clock
from failover.databases import _postgres_fence as fence
from failover.databases import _postgres_hail as hail
from failover.databases import _postgres_rejoin as hands
from failover.databases._postgres_estate import Estate
from failover.databases._postgres_link import Session, why
from failover.databases._postgres_view import Seen, lsn
from failover.errors import Conflict, Failed, Indeterminate, Refused, did_you_mean
from failover.ports import Mistake
from failover.schema import Model
from failover.secret import Secret
from failover.units import Duration
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import Member, MemberChange, Role

_PROMOTING = 0.002
_FOLLOWING = 0.001
_STARTING = 0.02
_GLANCE = 1.0
"""Seconds that the other members have to answer while a promotion waits for them."""


class PostgresMember(Model):
    """One server. `data`, `bin` and `via` give access to its host; `fence` is a command that proves it off."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    data: str = ""
    bin: str = ""
    via: tuple[str, ...] | None = None
    fence: tuple[str, ...] = ()


class PostgresConfig(Model):
    """`timeout` bounds every connection and statement, `within` every change as a whole."""

    database: str = "postgres"
    user: str
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str = ""
    timeout: Annotated[Duration, Field(gt=0)] = 3.0
    within: Annotated[Duration, Field(gt=0)] = 300.0
    members: dict[str, PostgresMember]


class Postgres:
    """One replicated PostgreSQL cluster, one member a region."""

    Config = PostgresConfig
    path_version: ClassVar[str] = "1"

    def __init__(self, name: str, config: Any, primary: str, clock: Clock) -> None:  # noqa: ARG002 - the port's
        self.name = name
        self.config: PostgresConfig = config
        self.clock = clock
        self.write_timeout = config.within
        self._estate = Estate(name, config, clock)

    @classmethod
    def mistakes(cls, config: PostgresConfig, regions: Sequence[str]) -> Iterable[Mistake]:
        for region, member in config.members.items():
            if region not in regions:
                yield ("members", region), f"region '{region}' is not declared{did_you_mean(region, regions)}"
            if len({bool(member.data), bool(member.bin), member.via is not None}) > 1:
                yield (
                    ("members", region),
                    "'data', 'bin' and 'via' belong together: they give access to the member's host",
                )
        if len(config.members) < 2:
            yield ("members",), "at least two members are needed: one to leave and one to promote"

    def can_fence(self, region: str) -> bool:
        """Whether a fencing command or access to its host is declared for that member."""
        member = self.config.members.get(region)
        return member is not None and (bool(member.fence) or region in self._estate.hosts)

    def read(self) -> Mapping[str, Member]:
        """Every member, asked in parallel. Commits that would be lost are counted on the old primary's host.

        Takes at most twice the timeout and a little. Writes nothing.
        """
        return self._estate.members(self._estate.observe(), full=True)

    def close(self) -> None:
        """Close the connections that are kept between calls."""
        for link in self._estate.links.values():
            link.close()

    def write(self, change: MemberChange) -> str:
        """Make `change`: fence, take a fence back, promote, or follow another primary.

        Raises Conflict where the member is in another role, Refused where another member takes writes.
        """
        try:
            match change.before, change.after:
                case Role.PRIMARY, Role.FENCED:
                    return self._stop_writes(change)
                case ((Role.UNKNOWN | Role.STOPPED), Role.FENCED):
                    return self._prove_off(change)
                case Role.FENCED, Role.PRIMARY:
                    return self._allow_writes(change)
                case Role.REPLICA, Role.PRIMARY:
                    return self._promote(change)
                case Role.REPLICA, Role.REPLICA:
                    return self._repoint(change)
                case ((Role.FENCED | Role.DIVERGED | Role.STOPPED | Role.UNKNOWN), Role.REPLICA):
                    return self._rejoin(change)
        except psycopg.Error as error:
            raise Failed(
                why(error), where=change.resource, next="failover status shows whether it answers; then resume"
            ) from None
        raise Failed(
            f"nothing makes a {change.after} of a {change.before} here", where=change.resource, next="plan again"
        )

    def caught_up(self, source: str, target: str, within: float) -> Verdict:
        """Wait until `target` has replayed `source`'s WAL to its end, and `source` has written nothing meanwhile."""
        deadline = self.clock.monotonic() + within
        links = self._estate.links
        bound = within + self.config.timeout
        try:
            with links[source].session(bound) as theirs, links[target].session(bound) as ours:
                while True:
                    replayed = _replayed(ours)
                    recovering, read_only, end = _state(theirs)
                    if recovering or not read_only:
                        return failed(f"{source} is not fenced, so it may still be written to")
                    if replayed >= end:
                        return passed(f"{target} has replayed {lsn(replayed)}; {source} ends at {lsn(end)}")
                    while replayed < end:
                        if self.clock.monotonic() >= deadline:
                            return failed(
                                f"{target} is {end - replayed} bytes behind {source} after {within:g} s:"
                                f" {lsn(replayed)} of {lsn(end)}"
                            )
                        self.clock.sleep(_FOLLOWING)
                        replayed = _replayed(ours)
        except psycopg.Error as error:
            return unknown(f"the positions of {source} and {target} could not be compared: {why(error)}")
        except Failed as error:
            return unknown(str(error))

    def _stop_writes(self, change: MemberChange) -> str:
        self._compare(change, self._glance())
        link = self._estate.links[change.region]
        with link.session(4 * self.config.timeout) as session:
            end = fence.up(session, link.pids, self.clock, self.config.timeout, change.resource)
        return f"{change.region} acknowledges no writes after {end}"

    def _allow_writes(self, change: MemberChange) -> str:
        answers = self._estate.observe(seconds=self._patience)
        found = self._estate.members(answers, full=False)
        if found[change.region].role is not Role.PRIMARY or not self._half_fenced(change.region):
            self._compare(change, found)
        self._only_primary(change, found)
        mine = answers[change.region]
        if not isinstance(mine, Seen):
            raise Failed(
                "it does not run, so it cannot take writes again",
                where=change.resource,
                next=f"start it on its host without standby.signal, once no other member was promoted ({mine.why})",
            )
        newer = [
            region for region, seen in answers.items() if isinstance(seen, Seen) and seen.timeline > mine.timeline
        ]
        if newer:
            raise Refused(
                "two-primaries",
                f"its history was left: {', '.join(newer)} is on a newer timeline than {mine.timeline}",
                where=change.resource,
                next=f"make it a replica: failover promote {change.database} --to {newer[0]}",
            )
        with self._estate.links[change.region].session(2 * self.config.timeout) as session:
            fence.down(session, self.clock, self.config.timeout, change.resource)
        return f"{change.region} takes writes again"

    def _half_fenced(self, region: str) -> bool:
        with self._estate.links[region].session() as session:
            return bool(fence.half(session))

    def _prove_off(self, change: MemberChange) -> str:
        answers = self._estate.observe()
        self._compare(change, self._estate.members(answers, full=False))
        hail.not_our_mistake(answers[change.region], change.resource)
        declared, host = self.config.members[change.region].fence, self._estate.hosts.get(change.region)
        if declared:
            fence.run_device(declared, self.config.within, change.resource)
            how = "its fencing command proved it off"
        elif host:
            self._estate.links[change.region].close()
            hands.turn_off(host, self.config.within / 3)
            how = "it does not run, and would start as a standby"
        else:
            raise Failed(
                "nothing proves it off: neither a fencing command nor access to its host is declared",
                where=change.resource,
                next="turn it off yourself, then accept the guard unfenced-primary by name",
            )
        self._estate.proven[change.region] = how
        return f"{change.region}: {how}"

    def _promote(self, change: MemberChange) -> str:
        found = self._glance()
        self._compare(change, found)
        self._only_primary(change, found)
        deadline = self.clock.monotonic() + self.config.within
        with self._estate.links[change.region].session(self.config.within) as session:
            if fence.left(session):
                fence.down(session, self.clock, self.config.timeout, change.resource)
            if not session.value("SELECT pg_promote(wait => false)"):
                raise Failed(
                    "it could not be told to promote", where=change.resource, next="look at its log, then resume"
                )
            try:
                while session.value("SELECT pg_is_in_recovery()"):
                    if self.clock.monotonic() >= deadline:
                        self._unsure(change, f"it was told to, but still replays after {self.config.within:g} s")
                    self.clock.sleep(_PROMOTING)
            except psycopg.Error as error:
                self._unsure(change, why(error))
        return f"{change.region} is the primary"

    def _repoint(self, change: MemberChange) -> str:
        found = self._glance()
        self._compare(change, found)
        source = self._source(change, found)
        deadline = self.clock.monotonic() + self.config.within
        with self._estate.links[change.region].session(2 * self.config.timeout) as session:
            present = session.value("SELECT current_setting('primary_conninfo')") or source.conninfo
            following = hands.conninfo(present, source.options)
            session.run(sql.SQL("ALTER SYSTEM SET primary_conninfo = {}").format(sql.Literal(following)))
            session.rows("SELECT pg_reload_conf()")
        return self._wait_for_stream(change, deadline)

    def _rejoin(self, change: MemberChange) -> str:
        deadline = self.clock.monotonic() + self.config.within
        found = self._estate.members(self._estate.observe(), full=False)
        self._compare(change, found)
        source = self._source(change, found)
        host = self._estate.hosts.get(change.region)
        if host is None:
            raise Failed(
                f"it has to be rewound to {change.primary}'s history on its own host, to which no access is declared",
                where=change.resource,
                next="there: stop it; pg_rewind --target-pgdata=DATA --source-server='host="
                f"{source.options['host']} port={source.options['port']} user={source.options['user']}"
                f" dbname={source.options['dbname']}'; touch DATA/standby.signal; set primary_conninfo; remove"
                " default_transaction_read_only from postgresql.auto.conf; start it. Or declare data, bin and via",
            )
        with self._estate.links[change.primary].session(self.config.within) as session:
            # pg_rewind takes the source's timeline from its last checkpoint, which may be older than its promotion.
            session.run("SET statement_timeout = 0")
            session.run("CHECKPOINT")
            session.run("RESET statement_timeout")
        self._estate.links[change.region].close()
        hands.rejoin(host, source, self.clock, max(1.0, deadline - self.clock.monotonic()))
        self._estate.proven.pop(change.region, None)
        return self._wait_for_stream(change, deadline)

    def _source(self, change: MemberChange, found: Mapping[str, Member]) -> hands.Source:
        following = found.get(change.primary)
        if following is None or following.role is not Role.PRIMARY:
            raise Failed(
                f"it cannot follow {change.primary or 'nobody'}, which is"
                f" {following.role if following else 'not a member'} and not the primary",
                where=change.resource,
                next="promote a primary first",
            )
        with self._estate.links[change.primary].session() as session:
            timeline, conninfo = session.row(
                "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int,"
                " current_setting('primary_conninfo')"
            )
        options = self._estate.options(change.primary)
        password = options.pop("password", "")
        return hands.Source(change.primary, options, password, timeline, conninfo)

    def _wait_for_stream(self, change: MemberChange, deadline: float) -> str:
        while True:
            found = self._glance()[change.region]
            if found.role is Role.REPLICA and found.streaming:
                return f"{change.region} follows {change.primary}"
            if self.clock.monotonic() >= deadline:
                raise Failed(
                    f"it runs as {found.role} but does not stream from {change.primary}"
                    f" within {self.config.within:g} s{f': {found.detail}' if found.detail else ''}",
                    where=change.resource,
                    next=f"look at its log: can its primary_conninfo log in to {change.primary}? Then resume",
                )
            self.clock.sleep(_STARTING)

    @property
    def _patience(self) -> float:
        return min(_GLANCE, self.config.timeout)

    def _glance(self) -> Mapping[str, Member]:
        """The roles as SQL tells them, without what takes long."""
        return self._estate.members(self._estate.observe(seconds=self._patience, hosts=False), full=False)

    def _compare(self, change: MemberChange, found: Mapping[str, Member]) -> None:
        role = found[change.region].role
        if role is not change.before:
            detail = found[change.region].detail
            raise Conflict(change.resource, str(change.before), f"{role} ({detail})" if detail else str(role))

    def _only_primary(self, change: MemberChange, found: Mapping[str, Member]) -> None:
        for region, member in found.items():
            if region != change.region and member.role is Role.PRIMARY:
                raise Refused(
                    "two-primaries",
                    f"{region} takes writes",
                    seen=(f"{region} is {member.role}",),
                    where=change.resource,
                    next=f"fence {region} first, as a switchover does",
                )

    def _unsure(self, change: MemberChange, reason: str) -> NoReturn:
        raise Indeterminate(
            f"it may or may not have been promoted: {reason}",
            where=change.resource,
            next="resume reads back what it is",
        )


def _state(session: Session) -> tuple[bool, bool, int]:
    recovering, read_only, end = session.row(
        "SELECT pg_is_in_recovery(), (SELECT reset_val = 'on' FROM pg_settings"
        " WHERE name = 'default_transaction_read_only'),"
        " CASE WHEN pg_is_in_recovery() THEN 0 ELSE (pg_current_wal_flush_lsn() - '0/0')::bigint END"
    )
    return recovering, read_only, end


def _replayed(session: Session) -> int:
    return int(session.value("SELECT coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint"))
