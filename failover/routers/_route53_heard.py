"""Whether an authoritative server's weighted answers, which are drawn, are those of the wanted weights."""

from collections.abc import Mapping

from failover.routers._dns import Server, answer, ask
from failover.routers._route53_group import plain
from failover.verdict import Verdict, failed, passed
from failover.world import RouteState

_SAMPLES = 8
_SURELY_SEEN = 0.01


def heard(
    at: Server, record: str, kind: str, values: Mapping[str, frozenset[str]], wanted: RouteState, timeout: float
) -> Verdict:
    """What `at` answers for `record`, asked several times, beside the `values` of each region and the weights wanted.

    Fails where an answer is not of a region that is on, where its TTL is too long, and where a region that is on
    never comes up although it surely should. Raises Unanswered.
    """
    on = {region for region, weight in wanted.weights.items() if weight}
    served = frozenset[str]().union(*(values[region] for region in on))
    aliased = any(not values[region] for region in values)
    seen: set[str] = set()
    for _ in range(_SAMPLES):
        records = answer(ask(at, record, kind, timeout), record, kind)
        if records is None:
            return failed(f"{at} has no {record} {kind}")
        said = {plain(kind, each.to_text()) for each in records}
        spoken = ", ".join(sorted(said))
        for region in values:
            if region not in on and said & (values[region] - served):
                return failed(f"{at} still answers {spoken}, which is {region}")
        if not said <= served and not aliased:
            return failed(f"{at} answers {spoken}, which belongs to no region")
        if said <= served and wanted.ttl is not None and records.ttl > wanted.ttl:
            return failed(f"{at} still answers with TTL {records.ttl} s, wanted {wanted.ttl} s")
        seen |= {region for region in on if said & values[region]}
    if aliased:
        return passed(f"{at} answers {record} {kind}; which region that is cannot be told of aliases")
    whole = sum(wanted.weights.values())
    for region in on - seen:
        if (1 - wanted.weights[region] / whole) ** _SAMPLES < _SURELY_SEEN:
            return failed(f"{at} did not answer with {region} in {_SAMPLES} answers")
    return passed(f"{at} answers so: {', '.join(sorted(on))}")
