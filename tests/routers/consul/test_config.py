"""What a file can get wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Invalid
from failover.routers.consul import Consul
from tests.routers.consul.mesh import (
    WEB,
)
from tests.routers.specs import spec


@pytest.mark.parametrize(
    ("route", "weights", "ttl", "wrong"),
    [
        ({"mode": "redirect"}, {"a": 1, "b": 1}, None, []),
        ({"mode": "redirect"}, {"a": 1, "b": 1, "c": 1}, None, [(("weights",), "exactly two regions")]),
        ({"mode": "redirect"}, {"a": 1, "b": 0}, None, [(("weights", "b"), "a weight above 0")]),
        ({"mode": "redirect", "query": "q"}, {"a": 1, "b": 1}, None, [(("query",), "no meaning for a redirect")]),
        ({"mode": "redirect", "of": "node"}, {"a": 1, "b": 1}, None, [(("of",), "no meaning for a redirect")]),
        ({"mode": "maintenance"}, {"a": 2, "b": 1}, None, [(("weights", "b"), "2 at least")]),
        ({"mode": "maintenance"}, {"a": 2, "b": 2}, 60, [(("ttl",), "dns_config")]),
        ({"mode": "weights"}, {"a": 65536, "b": 2}, None, [(("weights", "a"), "at most 65535")]),
        ({"mode": "weights"}, {"a": 65535, "b": 2}, None, [(("weights",), "add up to 65537")]),
        ({"mode": "weights"}, {"a": 65535, "b": 0}, None, []),
        ({"mode": "maintenance", "service": ""}, {"a": 2, "b": 2}, None, [(("service",), "empty")]),
    ],
)
def test_mistakes_of_a_route(route: Any, weights: Any, ttl: Any, wrong: list[tuple[Any, str]]) -> None:
    config = Consul.RouteConfig.model_validate({"service": "web", **route})
    found = list(Consul.mistakes(spec(WEB, config, weights, ttl)))
    assert [path for path, _ in found] == [path for path, _ in wrong]
    for (_, message), (_, words) in zip(found, wrong, strict=True):
        assert words in message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"datacenters": {}}, "at least 1 item"),
        ({"datacenters": {"a": {"address": "consul:8500"}}}, "looks like http://192.0.2.1:8500"),
        ({"datacenters": {"a": {"address": "http://u:p@consul:8500"}}}, "no user, no path"),
        ({"datacenters": {"a": {"address": "http://consul:8500/v1"}}}, "no user, no path"),
        ({"datacenters": {"a": {"address": "http://consul:99999"}}}, "looks like http://192.0.2.1:8500"),
        ({"datacenters": {"a": {"address": "http://consul:8500", "token": "s3cret"}}}, "never stands in a file"),
        ({"datacenters": {"east": {"address": "http://c:8500"}}, "primary": "esat"}, "did you mean 'east'"),
        ({"datacenters": {"a": {"address": "http://c:8500"}}, "key_file": "k.pem"}, "name 'cert_file' too"),
        ({"datacenters": {"a": {"address": "http://c:8500"}}, "timeout": "0s"}, "greater than 0"),
    ],
)
def test_mistakes_of_a_router(config: Any, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Consul.Config.model_validate(config)
    assert said in str(error.value)
    assert "s3cret" not in str(error.value.errors()[0]["msg"])


def test_what_is_wrong_between_a_router_and_its_routes() -> None:
    config = Consul.Config.model_validate({"datacenters": {"east": {"address": "http://127.0.0.1:9"}}})
    routes = {
        name: spec(name, Consul.RouteConfig.model_validate({"service": "web", "mode": "redirect"}), weights, None)
        for name, weights in ((WEB, {"east": 1, "esat": 1}), ("other@mesh", {"east": 1, "west": 1}))
    }
    with pytest.raises(Invalid) as invalid:
        Consul("mesh", config, routes, SYSTEM)
    said = str(invalid.value)
    assert "route web@mesh: region 'esat' has no entry under 'datacenters'; did you mean 'east'?" in said
    assert "say which it is with 'primary'" in said
    assert "route other@mesh and route web@mesh both steer service 'web'" in said
