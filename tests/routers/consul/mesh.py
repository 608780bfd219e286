"""The routers of these tests, and what is really there."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import dns.message
import dns.query

from failover.clock import SYSTEM
from failover.routers.consul import Consul
from failover.world import RouteState
from tests.consuls import Agent, Proxy, Two
from tests.routers.specs import spec, until

WEB, API = "web@mesh", "api@mesh"
NORMAL = {"east": 50, "west": 50}
FULL = RouteState(NORMAL)
EASTLESS, WESTLESS = RouteState({"east": 0, "west": 50}), RouteState({"east": 50, "west": 0})
SERVICES = {"web": ("web-1", "web-2"), "api": ("api-1",)}


def router(
    two: Two,
    mode: str,
    *,
    urls: Mapping[str, str] | None = None,
    who: str = "CONSUL",
    routes: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Mapping[str, int] = NORMAL,
    **config: Any,
) -> Consul:
    at = urls or {region: agent.url for region, agent in two.both.items()}
    datacenters = {
        region: {
            "address": at[region],
            "token": {"env": f"{who}_{region.upper()}"},
            "dns": agent.dns,
            "agents": {agent.node: at[region]},
        }
        for region, agent in two.both.items()
    }
    whole = {"datacenters": datacenters, "primary": "east", "timeout": "1s", "within": "5s", **config}
    query = {} if mode == "redirect" else {"query": "web"}
    mine = routes or {WEB: {"service": "web", **query}, API: {"service": "api"}}
    specs = {
        route: spec(route, Consul.RouteConfig.model_validate({"mode": mode, **one}), weights, None)
        for route, one in mine.items()
    }
    for each in specs.values():
        assert list(Consul.mistakes(each)) == []
    return Consul("mesh", Consul.Config.model_validate(whole), specs, SYSTEM)


def entry(two: Two, service: str = "web") -> Any:
    """The service-resolver in the primary datacenter without its indexes; None where there is none."""
    found = two.east.get(f"config/service-resolver/{service}")
    return found and {key: value for key, value in found.items() if not key.endswith("Index")}


def put_entry(two: Two, service: str = "web", **body: Any) -> None:
    two.east.put("config", {"Kind": "service-resolver", "Name": service, **body})


def through(two: Two, proxies: Mapping[str, Proxy], mode: str, **more: Any) -> Consul:
    return router(two, mode, urls={region: proxy.url for region, proxy in proxies.items()}, **more)


def settles(one: Consul, wanted: RouteState, route: str = WEB) -> None:
    until(lambda: one.settled(route, wanted, "").passed, 10, f"{one.settled(route, wanted, '')}")


def maintain(agent: Agent, one: str, reason: str, enable: bool = True) -> None:
    agent.put(f"agent/service/maintenance/{one}", query=f"enable={str(enable).lower()}&reason={quote(reason)}")


def reasons(agent: Agent, service: str = "web") -> dict[str, str]:
    """The maintenance reasons of a service's instances, by their ids."""
    return {
        one["Service"]["ID"]: check["Notes"]
        for one in agent.get(f"health/service/{service}")
        for check in one["Checks"]
        if "maintenance" in check["CheckID"]
    }


def srv(at: Agent, name: str) -> list[int]:
    """The weights of the SRV records that Consul's DNS answers."""
    response = dns.query.udp(dns.message.make_query(name, "SRV"), at.address, 3, at.ports["dns"])
    return sorted(record.weight for each in response.answer for record in each)
