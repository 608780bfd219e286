"""Routes of the rfc2136 router: what is wrong in a file, and what a record set says."""

from collections.abc import Mapping, Sequence
from typing import Any

import dns.rdataset
import pytest
from pydantic import ValidationError

from failover.routers.rfc2136 import Rfc2136
from failover.world import Unknown
from tests.routers.bind import ADDRESSES, ZONE
from tests.routers.specs import spec

WEB = "web@dns"
NORMAL = {"east": 50, "west": 50}
TARGETS = {"east": "e.example.test.:443", "west": "w.example.test.:443"}
PLACE = tuple[str | int, ...]


def wrong(weights: Mapping[str, int], **config: Any) -> list[tuple[PLACE, str]]:
    made = Rfc2136.RouteConfig.model_validate({"record": "web.example.test", **config})
    return list(Rfc2136.mistakes(spec(WEB, made, weights)))


@pytest.mark.parametrize(
    ("addresses", "weights", "wrong"),
    [
        ({"east": ["192.0.2.1"]}, NORMAL, (("addresses",), "region 'west' has no addresses")),
        ({"east": ["192.0.2.1"], "west": ["nowhere"]}, NORMAL, (("addresses", "west", 0), "'nowhere' is not an IP")),
        ({"east": ["192.0.2.1"], "west": ["::1"]}, NORMAL, (("addresses", "west", 0), "::1 is not an IPv4 address")),
        (
            {"east": ["192.0.2.1"], "west": ["192.0.2.1"]},
            NORMAL,
            (("addresses", "west", 0), "192.0.2.1 belongs to region 'east' too"),
        ),
        (
            {"east": ["192.0.2.1", "192.0.2.1"], "west": ["192.0.2.2"]},
            NORMAL,
            (("addresses", "east", 1), "192.0.2.1 stands here twice"),
        ),
        (
            {"east": ["192.0.2.1"], "west": ["192.0.2.2"], "eastt": ["192.0.2.3"]},
            NORMAL,
            (("addresses", "eastt"), "this route has no region 'eastt'; did you mean 'east'?"),
        ),
        (
            {"east": ["192.0.2.1"], "west": ["192.0.2.2"]},
            {"east": 50, "west": 0},
            (("weights", "west"), "plain DNS only switches"),
        ),
    ],
)
def test_mistakes_in_a_route(
    addresses: dict[str, list[str]], weights: dict[str, int], wrong: tuple[tuple[str | int, ...], str]
) -> None:
    config = Rfc2136.RouteConfig.model_validate({"record": "web.example.test", "addresses": addresses})
    [(path, message)] = Rfc2136.mistakes(spec(WEB, config, weights))
    assert path == wrong[0]
    assert message.startswith(wrong[1])


def test_a_route_without_mistakes_has_none() -> None:
    config = Rfc2136.RouteConfig.model_validate({"record": "web.example.test", "addresses": ADDRESSES})
    assert list(Rfc2136.mistakes(spec(WEB, config, NORMAL))) == []
    assert config.record == "web.example.test."


@pytest.mark.parametrize("server", ["", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:99999", "http://x:53", "a b:53"])
def test_a_server_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ValidationError, match="is not a server; write host:port"):
        Rfc2136.Config.model_validate({"server": server, "zone": ZONE})


@pytest.mark.parametrize(
    ("server", "said"),
    [("192.0.2.1", "192.0.2.1:53"), ("::1", "[::1]:53"), ("[::1]:5353", "[::1]:5353"), ("ns1", "ns1:53")],
)
def test_a_server_is_written_with_and_without_a_port(server: str, said: str) -> None:
    assert str(Rfc2136.Config.model_validate({"server": server, "zone": ZONE}).server) == said


@pytest.mark.parametrize(
    ("targets", "weights", "place", "said"),
    [
        ({"east": "e.example.test.:443"}, NORMAL, ("targets",), "region 'west' has no target"),
        (
            {**TARGETS, "west": "w.example.test."},
            NORMAL,
            ("targets", "west"),
            "'w.example.test.' is no target",
        ),
        ({**TARGETS, "west": "192.0.2.1:443"}, NORMAL, ("targets", "west"), "'192.0.2.1:443' is no target; write"),
        ({**TARGETS, "west": ".:443"}, NORMAL, ("targets", "west"), "'.:443' is no target; write"),
        ({**TARGETS, "west": "w.example.test.:0"}, NORMAL, ("targets", "west"), "'w.example.test.:0' is no target"),
        (
            {**TARGETS, "west": "E.example.test:443"},
            NORMAL,
            ("targets", "west"),
            "E.example.test:443 belongs to region 'east' too; one drains the other",
        ),
        ({**TARGETS, "wst": "x.example.test.:443"}, NORMAL, ("targets", "wst"), "this route has no region 'wst'"),
        (TARGETS, {"east": 40_000, "west": 40_000}, ("weights",), "the weights add up to 80000; 65535 is the limit"),
    ],
)
def test_mistakes_in_a_route_of_srv(
    targets: dict[str, str], weights: dict[str, int], place: PLACE, said: str
) -> None:
    [(path, message)] = wrong(weights, type="SRV", targets=targets)
    assert path == place
    assert message.startswith(said)


def test_a_standby_of_srv_needs_no_weight() -> None:
    assert wrong({"east": 100, "west": 0}, type="SRV", targets=TARGETS) == []


@pytest.mark.parametrize(
    "config",
    [
        {"type": "SRV", "addresses": ADDRESSES},
        {"type": "SRV", "addresses": ADDRESSES, "targets": TARGETS},
        {"type": "SRV"},
        {"targets": TARGETS},
        {"addresses": ADDRESSES, "targets": TARGETS},
        {"addresses": ADDRESSES, "priority": 10},
        {},
    ],
)
def test_a_route_has_addresses_or_targets(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"type (SRV has 'targets'|A has 'addresses')"):
        Rfc2136.RouteConfig.model_validate({"record": ZONE, **config})


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (["10 50 443 e.example.test.", "10 50 443 W.Example.test."], {"east": 50, "west": 50}),
        (["10 7 443 e.example.test."], {"east": 7, "west": 0}),
        (
            ["10 0 443 e.example.test."],
            "has weight 0 for east, which is not off: clients still choose it",
        ),
        (["20 50 443 e.example.test."], "has priority 20 for east, the topology says 10"),
        (["10 50 444 e.example.test."], "has targets that belong to no region: e.example.test.:444"),
        (
            ["10 50 443 e.example.test.", "10 60 443 e.example.test."],
            "has 2 records for east; it takes one: '10 50 443 e.example.test.', '10 60 443 e.example.test.'",
        ),
    ],
)
def test_what_a_set_of_srv_says(records: Sequence[str], found: dict[str, int] | str) -> None:
    config = Rfc2136.RouteConfig.model_validate(
        {"record": "_x._tcp.example.test", "type": "SRV", "targets": TARGETS, "priority": 10}
    )
    seen = config.weights(dns.rdataset.from_text_list("IN", "SRV", 60, records), NORMAL)
    if isinstance(found, str):
        assert isinstance(seen, Unknown)
        assert seen.why.startswith(f"_x._tcp.example.test. {found}")
    else:
        assert seen == found


def test_a_region_of_weight_zero_has_no_srv_record() -> None:
    config = Rfc2136.RouteConfig.model_validate(
        {"record": "_x._tcp.example.test", "type": "SRV", "targets": TARGETS, "priority": 10}
    )
    assert config.records({"east": 0, "west": 100}) == ("10 100 443 w.example.test.",)
