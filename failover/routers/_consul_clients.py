"""What Consul's clients are told of a service's instances: by its catalog, by its DNS, and by prepared queries.

DNS is asked over TCP: over UDP Consul leaves records out without saying so, unless `enable_truncate` is set.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import dns.exception
import dns.query
import dns.rcode
import dns.rdatatype

from failover._consul import Agent
from failover.errors import Failed
from failover.ports import RouteSpec
from failover.routers._consul_agents import Agents
from failover.routers._consul_config import ConsulConfig
from failover.routers._consul_instances import Instance, differs, present
from failover.routers._dns import Server, Unanswered, address, question, reason
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import RouteState

_ALIKE = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


class Clients:
    """Looks at the answers of every datacenter of a route."""

    def __init__(self, config: ConsulConfig, routes: Mapping[str, RouteSpec], agents: Agents) -> None:
        self.config = config
        self._routes = routes
        self._agents = agents

    def look(self, route: str, wanted: RouteState) -> Mapping[str, Verdict]:
        """Whether each catalog, each DNS server and each prepared query answers `wanted` now. Never raises."""
        config = self._routes[route].config
        calls: dict[str, Callable[[], Verdict]] = {}
        for region in wanted.weights:
            at, name = self.config.datacenters[region].dns, self.config.name_of(region)
            calls[f"consul {name}"] = partial(self._catalog, route, region, wanted)
            if at:
                calls[f"dns {at} for {name}"] = partial(self._dns, at, route, region, wanted)
            if config.query:
                calls[f"query {config.query} in {name}"] = partial(self._query, route, region, wanted)
        with ThreadPoolExecutor(max_workers=len(calls)) as pool:
            return dict(zip(calls, pool.map(_try, calls.values()), strict=True))

    def _catalog(self, route: str, region: str, wanted: RouteState) -> Verdict:
        weight, name = wanted.weights[region], self.config.name_of(region)
        found = self._agents.instances(route, region)
        wrong = differs(found, weight, weighted=self._agents.weighted(route))
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            return failed(f"in {name}: {', '.join(wrong[:3])}{more}")
        counted = present(found)
        serving, gone = sum(not one.out for one in counted), len(found) - len(counted)
        left = f", {gone} on nodes that are gone" if gone else ""
        return passed(
            f"in {name}, {serving} of {len(found)} instances of {self._routes[route].config.service} are in "
            f"service{left}"
        )

    def _dns(self, at: Server, route: str, region: str, wanted: RouteState) -> Verdict:
        name = self.config.name_of(region)
        asked = f"{self._routes[route].config.service}.service.{name}.{self.config.domain.strip('.')}."
        weights = _srv_weights(at, asked, self.config.timeout)
        said = f"{at} answers {len(weights)} SRV records for {asked}"
        if not wanted.weights[region]:
            return failed(f"{said}, wanted none") if weights else passed(said)
        if not weights:
            return failed(f"{said}, wanted some: no instance there is healthy")
        if self._agents.weighted(route):
            return self._weighed(route, region, wanted.weights[region], weights, said)
        return passed(said)

    def _weighed(self, route: str, region: str, wanted: int, weights: Sequence[int], said: str) -> Verdict:
        others = sorted(set(weights) - {wanted})
        found: Sequence[Instance] = self._agents.instances(route, region) if others else ()
        # An instance in the state warning has another weight of its own, which nobody has changed.
        if others and (wanted not in weights or all(one.passing for one in found if not one.out)):
            return failed(f"{said} with weight {', '.join(map(str, others))}, wanted {wanted}")
        return passed(f"{said} with weight {wanted}")

    def _query(self, route: str, region: str, wanted: RouteState) -> Verdict:
        query = self._routes[route].config.query
        agent: Agent = self._agents.agent(region)
        found = agent.get(f"query/{query}/execute").body
        if found is None:
            return unknown(f"{agent} has no prepared query '{query}', or its token may not use it")
        try:
            to, many = str(found["Datacenter"]), len(found["Nodes"])
        except (KeyError, TypeError):
            return unknown(f"{agent} answers with something that is not a prepared query's result")
        on = {self.config.name_of(name) for name, weight in wanted.weights.items() if weight}
        said = f"prepared query '{query}' in {agent.datacenter} leads to {many} instances in {to}"
        if not many:
            hint = (
                ""
                if agent.datacenter in on
                else ("; it needs 'Failover' to a region that is on, and this token has to be valid there too")
            )
            return failed(f"prepared query '{query}' in {agent.datacenter} finds no instance{hint}")
        if to not in on or (agent.datacenter in on and to != agent.datacenter):
            return failed(f"{said}, wanted {agent.datacenter if agent.datacenter in on else ' or '.join(sorted(on))}")
        return passed(said)


def _srv_weights(at: Server, name: str, timeout: float) -> list[int]:
    try:
        response = dns.query.tcp(question(name, "SRV"), address(at, timeout), timeout, at.port)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise Unanswered(f"{at} cannot be asked: {reason(error)}") from None
    if response.rcode() not in _ALIKE:
        raise Unanswered(f"{at} answers {dns.rcode.to_text(response.rcode())} for {name}")
    return [record.weight for each in response.answer if each.rdtype == dns.rdatatype.SRV for record in each]


def _try(look: Callable[[], Verdict]) -> Verdict:
    try:
        return look()
    except Failed as error:
        return unknown(error.what)
    except Unanswered as error:
        return unknown(str(error))
