"""Mode redirect: one config entry for all datacenters, and what stood before it."""

from collections.abc import Mapping
from typing import Any

import pytest

from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.testing.routers import change
from failover.verdict import Outcome
from failover.world import Unknown
from tests.consuls import Proxy, Two, answer
from tests.routers.consul.mesh import (
    EASTLESS,
    FULL,
    WEB,
    WESTLESS,
    entry,
    put_entry,
    router,
    settles,
    through,
)
from tests.routers.specs import until

BEFORE: list[Any] = [
    None,
    {},
    {"Failover": {"*": {"Datacenters": ["west", "east"]}}},
    {"ConnectTimeout": "7s", "Meta": {"owner": 'Zoë "the boss"', "note": "x" * 500}},
    {"DefaultSubset": "v1", "Subsets": {"v1": {"Filter": 'Service.Meta.version == "1"'}}},
    {"Redirect": {"Service": "api"}},
    {"Subsets": {f"v{n}": {"Filter": f'Service.Meta.version == "{n}"'} for n in range(100)}},
]


def test_puts_back_exactly_what_stood_before(two: Two) -> None:
    services = {f"before-{n}@mesh": f"before-{n}" for n in range(len(BEFORE))}
    routes = {route: {"service": service} for route, service in services.items()}
    for service, before in zip(services.values(), BEFORE, strict=True):
        if before is not None:
            put_entry(two, service, **before)
    stood = {service: entry(two, service) for service in services.values()}
    ways = [(FULL, EASTLESS), (EASTLESS, WESTLESS), (WESTLESS, FULL)]
    for before, after in ways:
        # A new router each time: what is put back comes from Consul, not from whoever drained.
        router(two, "redirect", routes=routes).write([change(route, before, after) for route in services])
        for route in services:
            settles(router(two, "redirect", routes=routes), after, route)
    assert {service: entry(two, service) for service in services.values()} == stood


def test_what_is_too_large_to_be_remembered_is_left_alone(two: Two) -> None:
    put_entry(two, Subsets={f"v{n}": {"Filter": f'Service.Meta.version == "{n}{"0" * 80}"'} for n in range(300)})
    stood = entry(two)
    with pytest.raises(Refused, match="too large to be remembered"):
        router(two, "redirect").write([change(WEB, FULL, EASTLESS)])
    assert entry(two) == stood


def test_a_redirect_of_somebody_else_is_seen_and_left_to_them(two: Two) -> None:
    put_entry(two, Redirect={"Datacenter": "west"})
    stood = entry(two)
    one = router(two, "redirect")
    assert one.read([WEB]) == {WEB: EASTLESS}
    for after in (FULL, WESTLESS):
        with pytest.raises(Refused, match="redirects already, not by failover") as refused:
            one.write([change(WEB, EASTLESS, after)])
        assert "consul config read -kind service-resolver -name web" in refused.value.next
    assert entry(two) == stood


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"Redirect": {"Datacenter": "north"}}, "redirects to datacenter 'north', which is no region of this route"),
        (
            {"Redirect": {"Datacenter": "west"}, "Meta": {"failover-drained": "east", "failover-before-00": "{"}},
            "its Meta no longer says what stood before",
        ),
        (
            {"Redirect": {"Datacenter": "west"}, "Meta": {"failover-drained": "east", "failover-before-00": "7"}},
            "its Meta no longer says what stood before",
        ),
    ],
)
def test_a_resolver_that_says_something_else_is_unknown(two: Two, body: Any, why: str) -> None:
    put_entry(two, **body)
    stood = entry(two)
    one = router(two, "redirect")
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown)
    assert why in seen.why
    for before, after in ((FULL, EASTLESS), (EASTLESS, FULL)):
        with pytest.raises(Refused, match="nothing was written"):
            one.write([change(WEB, before, after)])
    assert entry(two) == stood


def test_a_change_made_while_it_was_drained_is_not_undone(two: Two) -> None:
    one = router(two, "redirect")
    one.write([change(WEB, FULL, EASTLESS)])
    put_entry(two, **{**entry(two), "ConnectTimeout": "9s"})
    stood = entry(two)
    assert one.read([WEB]) == {WEB: EASTLESS}
    with pytest.raises(Refused, match="was changed by somebody after it was drained"):
        one.write([change(WEB, EASTLESS, FULL)])
    assert entry(two) == stood


@pytest.mark.parametrize(("before", "after"), [("FULL", "EASTLESS"), ("EASTLESS", "FULL"), ("EASTLESS", "WESTLESS")])
def test_somebody_faster_between_the_read_and_the_write_wins(
    two: Two, proxies: Mapping[str, Proxy], before: str, after: str
) -> None:
    states = {"FULL": FULL, "EASTLESS": EASTLESS, "WESTLESS": WESTLESS}
    if before == "EASTLESS":
        router(two, "redirect").write([change(WEB, FULL, EASTLESS)])

    def faster(line: str) -> str:
        if line.startswith("PUT /v1/config") and len(proxies["east"].writes()) == 1:
            put_entry(two, Redirect={"Datacenter": "east"}, ConnectTimeout="9s")
        return ""

    proxies["east"].fault = faster
    with pytest.raises(Conflict) as conflict:
        through(two, proxies, "redirect").write([change(WEB, states[before], states[after])])
    assert "east 50, west 0" in conflict.value.what
    assert entry(two) == {
        "Kind": "service-resolver",
        "Name": "web",
        "ConnectTimeout": "9s",
        "Redirect": {"Datacenter": "east"},
    }


def test_a_deletion_spares_what_somebody_wrote_just_before_it(two: Two, proxies: Mapping[str, Proxy]) -> None:
    """Consul 1.8 does not compare on DELETE, so what is deleted is an entry of our own that does nothing."""
    router(two, "redirect").write([change(WEB, FULL, EASTLESS)])

    def faster(line: str) -> str:
        # The second reading of the entry comes between the write that takes the redirect back and the deletion.
        reads = [seen for seen, _ in proxies["east"].seen if seen.startswith("GET /v1/config")]
        if len(reads) == 2 and line.startswith("GET /v1/config"):
            put_entry(two, ConnectTimeout="9s")
        return ""

    proxies["east"].fault = faster
    through(two, proxies, "redirect").write([change(WEB, EASTLESS, FULL)])
    assert entry(two) == {"Kind": "service-resolver", "Name": "web", "ConnectTimeout": "9s"}


def test_a_lost_deletion_leaves_an_entry_that_does_nothing(two: Two, proxies: Mapping[str, Proxy]) -> None:
    router(two, "redirect").write([change(WEB, FULL, EASTLESS)])
    proxies["east"].fault = lambda line: "close" if line.startswith("DELETE") else ""
    one = through(two, proxies, "redirect")
    with pytest.raises(Indeterminate):
        one.write([change(WEB, EASTLESS, FULL)])
    proxies["east"].fault = lambda _: ""
    assert one.read([WEB]) == {WEB: FULL}
    settles(one, FULL)
    one.write([change(WEB, FULL, WESTLESS)])
    one.write([change(WEB, WESTLESS, FULL)])
    assert entry(two) is None


@pytest.mark.parametrize(
    ("fault", "kind", "made"),
    [
        ("lose", Indeterminate, True),
        ("close", Indeterminate, False),
        ("hang", Indeterminate, False),
        (answer("<html>nginx</html>"), Indeterminate, False),
        (answer("rpc error making call: leadership lost while committing log", "500 Oops"), Indeterminate, False),
        (answer("No cluster leader", "500 Internal Server Error"), Failed, False),
        (answer("rate limit reached", "429 Too Many Requests"), Failed, False),
        (answer("", "301 Moved", Location="http://192.0.2.1/"), Failed, False),
        (answer({"odd": 1}), Indeterminate, False),
    ],
)
def test_what_became_of_a_write(
    two: Two, proxies: Mapping[str, Proxy], fault: Any, kind: type[FailoverError], made: bool
) -> None:
    proxies["east"].fault = lambda line: fault if line.startswith("PUT") else ""
    with pytest.raises((Failed, Indeterminate)) as error:
        through(two, proxies, "redirect").write([change(WEB, FULL, EASTLESS)])
    assert type(error.value) is kind, error.value
    assert error.value.next
    assert len(proxies["east"].writes()) == 1, "a write is never tried twice"
    assert router(two, "redirect").read([WEB]) == {WEB: EASTLESS if made else FULL}


def test_a_dead_datacenter_is_drained_by_a_redirect(two: Two, proxies: Mapping[str, Proxy]) -> None:
    proxies["west"].stop()
    one = through(two, proxies, "redirect")
    assert one.read([WEB]) == {WEB: FULL}
    one.write([change(WEB, FULL, WESTLESS)])
    settles(one, WESTLESS)
    verdict = one.settled(WEB, WESTLESS, "")
    assert "in east, web leads to east" in str(verdict)
    assert "west is drained, and nobody there can be told" in str(verdict)
    assert one.settled(WEB, FULL, "").outcome is Outcome.UNKNOWN
    proxies["west"].start()


def test_a_redirect_needs_the_primary_datacenter_and_says_so(two: Two, proxies: Mapping[str, Proxy]) -> None:
    one = through(two, proxies, "redirect")
    assert "primary datacenter east has a leader" in one.remarks(WEB)[0]
    proxies["east"].stop()
    [seen] = one.read([WEB]).values()
    assert isinstance(seen, Unknown)
    assert "are written in the primary datacenter, which cannot be asked" in seen.why
    with pytest.raises(Failed, match="cannot be reached: connection refused"):
        one.write([change(WEB, FULL, EASTLESS)])
    proxies["east"].start()
    one.write([change(WEB, FULL, EASTLESS)])
    until(lambda: two.west.get("config/service-resolver/web"), 10, "the copy")
    proxies["east"].stop()
    assert one.read([WEB]) == {WEB: EASTLESS}, "whoever is left has it already"
    settles(one, EASTLESS)
    proxies["east"].start()
