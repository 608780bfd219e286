"""Moving a database's primary: fence, then promote. Planned where the old primary answers, unplanned where not."""

from collections.abc import Generator, Mapping

from failover import verbs
from failover.errors import Failed as StepFailed
from failover.errors import FailoverError, Indeterminate, Locked, Refused
from failover.steps.actions import Action, CatchUp, Changes, Context, Follow, Scope, Seen, Steps
from failover.world import Member, MemberChange, Role, World

_OFF = (Role.UNKNOWN, Role.STOPPED)
Part = Generator[Action, Seen, World]


def promote_scope(context: Context, spec: verbs.Promote) -> Scope:
    """All members of the databases in question."""
    return Scope(databases=tuple(_databases(context, spec)))


def promote(context: Context, spec: verbs.Promote, world: World) -> Steps:
    """Move each database's primary where `spec` says, and leave the others following it."""
    for database in _databases(context, spec):
        move = _Move(context, database, spec.within)
        target = move.target(spec, world)
        if target:
            world = yield from move.to(target, world)
        if spec.back_to or spec.to:
            world = yield from move.rejoin_all(world)


class _Move:
    """One database on its way."""

    def __init__(self, context: Context, database: str, within: float) -> None:
        self.context = context
        self.database = database
        self.within = within

    def target(self, spec: verbs.Promote, world: World) -> str:
        """The region to go to; empty where the primary is not in the region to be left."""
        members = world.databases[self.database]
        if spec.back_to and self.context.topology.databases[self.database].primary != spec.back_to:
            return ""
        if spec.to or spec.back_to:
            return self._declared(spec.to or spec.back_to, members)
        primary = self._primary(world)
        leaving = spec.away_from
        if leaving not in members or (primary and primary != leaving):
            return self._unfinished(primary, leaving, members)
        if not primary and members[leaving].role is Role.REPLICA:
            raise Refused(
                "unknown-primary",
                f"{self.database} has no primary that can be seen, and {leaving} holds only a replica of it",
                seen=self._seen(members),
                next=f"find the primary, or choose the new one by name: failover promote {self.database} --to REGION",
            )
        return self._most_advanced(leaving, members)

    def to(self, target: str, world: World) -> Part:
        """The primary ends in `target`; a reachable old one follows it."""
        source = self._primary(world)
        if source == target:
            return (yield from self._follow_up(target, world))
        if source:
            world = yield from self._make_replica(target, source, world)
        elif self._answers_fenced(target, world):
            world = yield from self._change(target, Role.PRIMARY, target, world, f"{target} takes writes again")
            return (yield from self._follow_up(target, world))
        else:
            source = self._half_fenced(target, world)
        if source:
            return (yield from self._switch_over(source, target, world))
        return (yield from self._fail_over(target, world))

    def rejoin_all(self, world: World) -> Part:
        """Every member that has left the primary's history, or is down, becomes a replica again."""
        primary = self._primary(world)
        for region, member in world.databases[self.database].items():
            if primary and region != primary and member.role in (Role.FENCED, Role.DIVERGED, Role.STOPPED):
                world = yield from self._make_replica(region, primary, world)
        return (yield from self._repoint(primary, world)) if primary else world

    def _switch_over(self, source: str, target: str, world: World) -> Part:
        if self._role(source, world) is Role.PRIMARY:
            reason = f"stop writes in {source} before {target} takes over"
            world = yield from self._change(source, Role.FENCED, target, world, reason)
        try:
            seen = yield CatchUp(self.database, source, target, self.within)
            if seen.verdict is not None and not seen.verdict.passed:
                raise StepFailed(
                    f"{self.database} in {target} did not replay all of {source}'s writes within {self.within:g} s: "
                    + "; ".join(seen.verdict.evidence)
                )
            reason = f"{target} has every write of {source}"
            world = yield from self._change(target, Role.PRIMARY, target, seen.world, reason, stoppable=False)
        except (Indeterminate, Locked):
            raise
        except FailoverError as error:
            reason = f"{source} takes writes again: {target} could not be promoted"
            back = MemberChange(self.database, source, Role.FENCED, Role.PRIMARY, reason, source, recovery=True)
            try:
                yield Changes((back,), stoppable=False)
            except (Indeterminate, Locked):
                raise
            except FailoverError as worse:
                raise StepFailed(
                    f"{error.what}; and {source} could not be made to take writes again: {worse.what}",
                    next=f"nobody takes writes to {self.database} now: mend {source} or {target}, then resume",
                ) from worse
            error.next = f"{self.database} takes writes in {source} as before; " + (
                error.next or "mend it and resume"
            )
            raise
        self._verify(target, world)
        return (yield from self._follow_up(target, world))

    def _fail_over(self, target: str, world: World) -> Part:
        for region, member in world.databases[self.database].items():
            if region != target and member.role in _OFF and (self.database, region) in self.context.fenceable:
                reason = f"prove that {region} cannot take writes"
                world = yield from self._change(region, Role.FENCED, target, world, reason, planned=False)
        reason = f"the primary is gone and {target} is the most advanced copy"
        world = yield from self._change(target, Role.PRIMARY, target, world, reason, planned=False)
        self._verify(target, world)
        return (yield from self._repoint(target, world))

    def _follow_up(self, primary: str, world: World) -> Part:
        world = yield from self._repoint(primary, world)
        for region in world.databases[self.database]:
            if region != primary and self._handed_over(region, world):
                world = yield from self._make_replica(region, primary, world)
        return world

    def _repoint(self, primary: str, world: World) -> Part:
        for region, member in world.databases[self.database].items():
            if region != primary and member.role is Role.REPLICA and not member.streaming:
                world = yield from self._change(region, Role.REPLICA, primary, world, f"follow {primary}")
        return world

    def _make_replica(self, region: str, primary: str, world: World) -> Part:
        role = self._role(region, world)
        if role is Role.REPLICA:
            return world
        planned = self._handed_over(region, world)
        reason = f"{region} follows {primary} again"
        world = yield from self._change(region, Role.REPLICA, primary, world, reason, planned=planned)
        lag = self.context.topology.objectives.lag
        seen = yield Follow(self.database, region, lag, self.within)
        if seen.verdict is not None and not seen.verdict.passed:
            raise StepFailed(
                f"{self.database} in {region} does not follow {primary}: {'; '.join(seen.verdict.evidence)}",
                next="customers are not affected; mend the replica, then resume",
            )
        return seen.world

    def _change(
        self,
        region: str,
        after: Role,
        primary: str,
        world: World,
        reason: str,
        *,
        planned: bool = True,
        stoppable: bool = True,
    ) -> Part:
        before = self._role(region, world)
        change = MemberChange(self.database, region, before, after, reason, primary, planned)
        seen = yield Changes((change,), stoppable)
        return seen.world

    def _verify(self, target: str, world: World) -> None:
        if world.primaries(self.database) != (target,):
            raise StepFailed(
                f"{self.database} should have its one primary in {target} now",
                where="; ".join(self._seen(world.databases[self.database])),
                next="look at both servers before anything else; two primaries lose writes",
            )

    def _primary(self, world: World) -> str:
        primaries = world.primaries(self.database)
        if len(primaries) > 1:
            raise Refused(
                "split-brain",
                f"{self.database} has {len(primaries)} primaries: {', '.join(primaries)}",
                seen=self._seen(world.databases[self.database]),
                next="stop all but one of them by hand; nothing here may choose which writes to lose",
            )
        return primaries[0] if primaries else ""

    def _half_fenced(self, target: str, world: World) -> str:
        """The old primary of a switchover that was cut off after its fence, which answers still."""
        fenced = [
            region
            for region in world.databases[self.database]
            if region != target and self._answers_fenced(region, world)
        ]
        return fenced[0] if len(fenced) == 1 else ""

    def _handed_over(self, region: str, world: World) -> bool:
        """Whether the member was the primary until a planned move, and has nothing that the new one lacks."""
        return self._answers_fenced(region, world) or world.databases[self.database][region].ours

    def _answers_fenced(self, region: str, world: World) -> bool:
        member = world.databases[self.database][region]
        return member.role is Role.FENCED and member.position is not None

    def _unfinished(self, primary: str, leaving: str, members: Mapping[str, Member]) -> str:
        left = members.get(leaving)
        return primary if left and (left.role is Role.FENCED or left.ours) else ""

    def _declared(self, region: str, members: Mapping[str, Member]) -> str:
        if region not in members:
            raise StepFailed(
                f"database {self.database} has no member in {region}",
                next=f"choose one of {', '.join(members)}",
            )
        return region

    def _most_advanced(self, leaving: str, members: Mapping[str, Member]) -> str:
        positions = {
            region: member.position
            for region, member in members.items()
            if region != leaving and member.role is Role.REPLICA and member.position is not None
        }
        if not positions:
            raise Refused(
                "replica-lag",
                f"{self.database} has no replica outside {leaving} that can be asked how far it is",
                seen=self._seen(members),
                next="make a replica answer, or promote one by name: failover promote --to REGION",
            )
        return max(positions, key=lambda region: positions[region] or 0)

    def _role(self, region: str, world: World) -> Role:
        return world.databases[self.database][region].role

    def _seen(self, members: Mapping[str, Member]) -> tuple[str, ...]:
        return tuple(
            f"{region} is {member.role}" + (f" ({member.detail})" if member.detail else "")
            for region, member in members.items()
        )


def _databases(context: Context, spec: verbs.Promote) -> tuple[str, ...]:
    return tuple(context.topology.databases) if spec.databases == verbs.ALL else spec.databases
