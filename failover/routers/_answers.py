"""What each server answers now: all authoritative servers and all recursive resolvers, asked at the same time.

A resolver answers from its cache, so it is judged by a rule of its own: it passes as soon as all that it answers is
allowed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import dns.flags
import dns.name
import dns.rdata

from failover.routers._dns import Server, Unanswered, answer, ask
from failover.verdict import Verdict, failed, passed, unknown, worst

Look = Callable[[Server], Verdict]
Spell = Callable[[dns.rdata.Rdata], str]
_SAMPLES = 3


def ask_all(
    servers: Sequence[Server], resolvers: Sequence[Server], authoritative: Look, cached: Look
) -> Mapping[str, Verdict]:
    """`authoritative` looks at each of `servers` and `cached` at each of `resolvers`, all at once.

    The verdicts are by `name server H:P` and `resolver H:P`. A look that raises Unanswered is unknown. It takes as
    long as the slowest look, which bounds its own time.
    """
    looks = {
        **{f"name server {at}": (authoritative, at) for at in servers},
        **{f"resolver {at}": (cached, at) for at in resolvers},
    }
    with ThreadPoolExecutor(max_workers=max(1, len(looks))) as pool:
        return dict(zip(looks, pool.map(lambda one: _try(*one), looks.values()), strict=True))


def agreed(verdicts: Iterable[Verdict]) -> Verdict:
    """Pass where all pass; otherwise unknown, with what those have seen that do not: they may not have heard yet."""
    seen = list(verdicts)
    late = [line for verdict in seen if not verdict.passed for line in verdict.evidence]
    return unknown(*late) if late else worst(seen)


def allows(
    at: Server,
    name: str | dns.name.Name,
    kind: str,
    values: Mapping[str, Collection[str]],
    on: Collection[str],
    timeout: float,
    spell: Spell = lambda record: record.to_text().lower(),
) -> Verdict:
    """Whether the resolver `at` answers only what belongs to the regions in `on`.

    `values` are the records of each region, as `spell` writes a record. A region without values, as one that is an
    alias for something else, may answer anything. Fails where `at` answers anything else or nothing; unknown where
    it cannot be asked. TTLs are not judged: a cache has its own. Several caches may answer at one address, so it is
    asked a few times, each of which takes twice `timeout` seconds at most and one more where `at` is a name.
    """
    allowed = set(chain.from_iterable(values.get(region, ()) for region in on))
    anything = any(not values.get(region) for region in on)
    said: dict[str, int] = {}
    for _ in range(_SAMPLES):
        response = ask(at, name, kind, timeout, recursive=True)
        if not response.flags & dns.flags.RA:
            return unknown(f"{at} does no recursion for us; name it under name_servers, or allow it there")
        records = answer(response, name, kind)
        if not records:
            return failed(f"{at} says that there is no {name} {kind}")
        seen = {spell(record): records.ttl for record in records}
        for value in sorted(seen.keys() - allowed):
            owner = next((region for region, own in values.items() if value in own), "")
            if owner or not anything:
                whose = f"which is {owner}" if owner else "which belongs to no region"
                return failed(f"{at} still answers {value}, {whose}; its cache keeps it for {records.ttl} s")
        said |= seen
    return passed(f"{at} answers {', '.join(sorted(said))}")


def _try(look: Look, at: Server) -> Verdict:
    try:
        return look(at)
    except Unanswered as error:
        return unknown(str(error))
