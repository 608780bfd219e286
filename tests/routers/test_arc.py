"""The arc router against five endpoints on loopback."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Refused
from failover.ports import SupportsRemarks, SupportsWeights
from failover.routers.arc import Arc
from failover.testing import FakeClock
from failover.testing.routers import RouterContract, change, state
from failover.verdict import Outcome
from failover.world import RouteState, Unknown
from tests.routers import arc_server
from tests.routers.arc_server import REGIONS, AtLeast, control
from tests.routers.route53_estate import sign_in
from tests.routers.specs import spec

WEB, API = "web@arc", "api@arc"
NORMAL = {"east": 50, "west": 50}
FULL, EASTLESS, WESTLESS = (
    RouteState(weights) for weights in (NORMAL, {"east": 0, "west": 50}, {"east": 50, "west": 0})
)
UPDATE, GET, LIST = "UpdateRoutingControlStates", "GetRoutingControlState", "ListRoutingControls"


def controls(route: str, regions: Mapping[str, int] = NORMAL) -> dict[str, str]:
    return {region: control(f"{route.partition('@')[0]}{region}") for region in regions}


class Estate:
    """A cluster of its own with the controls of two routes, all of them on."""

    routes = (WEB, API)
    patience = 5.0

    def __init__(
        self, credentials: Path, routes: Sequence[str] = (WEB, API), regions: Mapping[str, int] = NORMAL
    ) -> None:
        self.credentials = credentials
        self.names, self.regions = routes, regions
        self.arc = arc_server.Arc({arn: True for route in routes for arn in controls(route, regions).values()})

    def make(self, clock: Any = SYSTEM, own: Mapping[str, Mapping[str, str]] | None = None, **settings: Any) -> Arc:
        config = Arc.Config.model_validate(
            {
                "endpoints": self.arc.endpoints,
                "profile": "failover",
                "credentials_file": str(self.credentials),
                "connect_timeout": "500ms",
                "read_timeout": "1s",
                "retry_for": "10s",
                **settings,
            }
        )
        routes = {
            route: spec(
                route,
                Arc.RouteConfig(controls=(own or {}).get(route) or controls(route, self.regions)),
                self.regions,
                None,
            )
            for route in self.names
        }
        return Arc("arc", config, routes, clock)

    def stranger(self) -> Arc:
        return self.make(profile="stranger")

    def meddle(self, route: str) -> None:
        self.arc.states[controls(route)["west"]] = False

    def stop(self) -> None:
        self.arc.stop()

    def start(self) -> None:
        self.arc.start()

    def fails(self, fault: str, *operations: str, regions: Sequence[str] = REGIONS) -> None:
        self.arc.fault = lambda region, operation: fault if operation in operations and region in regions else ""

    def on(self, route: str = WEB) -> dict[str, bool]:
        return {region: self.arc.states[arn] for region, arn in controls(route, self.regions).items()}


@pytest.fixture(autouse=True)
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return sign_in(tmp_path, monkeypatch)


@pytest.fixture
def estate(credentials: Path) -> Iterator[Estate]:
    made = Estate(credentials)
    yield made
    made.stop()


class TestContract(RouterContract):
    @pytest.fixture
    def harness(self, estate: Estate) -> Estate:
        return estate

    # Between a re-read and a write somebody may always come: the API compares nothing.
    test_lets_exactly_one_of_several_writers_win = None  # type: ignore[assignment]


class TestContractWithTwoOfFiveGone(RouterContract):
    """One endpoint refuses connections and one takes them and never answers."""

    @pytest.fixture
    def harness(self, estate: Estate) -> Iterator[Estate]:
        estate.arc.stop(REGIONS[1])
        estate.arc.fault = lambda region, _: "slow" if region == REGIONS[3] else ""
        estate.make = _impatient(estate)  # type: ignore[method-assign]
        started = estate.arc.start
        estate.start = lambda: (started(), estate.arc.stop(REGIONS[1]))[0]  # type: ignore[method-assign,func-returns-value]
        return estate

    test_lets_exactly_one_of_several_writers_win = None  # type: ignore[assignment]
    # The same code as above, whoever answers.
    test_refuses_a_weight_that_it_cannot_give = None  # type: ignore[assignment]
    test_refuses_to_leave_nobody = None  # type: ignore[assignment]
    test_fails_clearly_with_wrong_credentials = None  # type: ignore[assignment]


def _impatient(estate: Estate) -> Any:
    make = estate.make
    return lambda **settings: make(**{"read_timeout": "200ms", "connect_timeout": "200ms", **settings})


def test_sets_all_of_a_drain_in_one_call_and_overrides_no_rule(estate: Estate) -> None:
    one = estate.make()
    assert not isinstance(one, SupportsWeights)
    one.write([change(WEB, FULL, EASTLESS), change(API, FULL, WESTLESS)])
    [update] = estate.arc.updates
    assert update == {
        "UpdateRoutingControlStateEntries": [
            {"RoutingControlArn": control("webeast"), "RoutingControlState": "Off"},
            {"RoutingControlArn": control("apiwest"), "RoutingControlState": "Off"},
        ]
    }
    assert (estate.on(), estate.on(API)) == ({"east": False, "west": True}, {"east": True, "west": False})


def test_the_endpoints_take_turns(estate: Estate) -> None:
    one = estate.make()
    for _ in range(10):
        one.read([WEB])
    asked = [region for region, _ in estate.arc.calls][::2]
    assert sorted(asked) == sorted(REGIONS * 2)
    begun = set()
    for _ in range(30):
        estate.arc.calls.clear()
        estate.make().read([WEB])
        begun.add(estate.arc.calls[0][0])
    assert len(begun) > 1


@pytest.mark.parametrize(
    "fault",
    ["EndpointTemporarilyUnavailableException", "ThrottlingException", "InternalServerException", "close", "slow"],
)
def test_a_read_goes_on_to_the_next_endpoint(estate: Estate, fault: str) -> None:
    estate.fails(fault, GET, regions=REGIONS[:4])
    one = estate.make(read_timeout="200ms")
    assert state(one, WEB) == FULL
    assert estate.arc.calls[-1][0] == REGIONS[4]


@pytest.mark.parametrize("fault", ["EndpointTemporarilyUnavailableException", "ThrottlingException"])
def test_a_write_that_was_not_taken_goes_on_to_the_next_endpoint(estate: Estate, fault: str) -> None:
    estate.fails(fault, UPDATE, regions=REGIONS[:4])
    estate.make().write([change(WEB, FULL, EASTLESS)])
    assert len(estate.arc.updates) == 1
    assert estate.on() == {"east": False, "west": True}


def test_an_endpoint_that_dies_between_reading_and_writing_is_passed_over(estate: Estate) -> None:
    one = estate.make()
    one.read([WEB])
    expected = one._expected

    def then_die(*given: Any) -> Any:
        found = expected(*given)
        estate.arc.stop(*REGIONS[:2])
        return found

    one._expected = then_die  # type: ignore[method-assign]
    for before, after in ((FULL, EASTLESS), (EASTLESS, FULL)):
        try:
            one.write([change(WEB, before, after)])
        except Indeterminate:
            # An endpoint that closes a connection which was open already may have taken what was sent.
            assert estate.on() == {region: weight > 0 for region, weight in before.weights.items()}
            return
        estate.arc.start()
    assert estate.on() == {"east": True, "west": True}


@pytest.mark.parametrize(
    ("fault", "made"), [("lose", True), ("hang", True), ("close", False), ("InternalServerException", False)]
)
def test_a_lost_answer_is_indeterminate_and_not_repeated(estate: Estate, fault: str, made: bool) -> None:
    estate.fails(fault, UPDATE)
    one = estate.make(read_timeout="300ms")
    with pytest.raises(Indeterminate, match="but its answer was lost") as lost:
        one.write([change(WEB, FULL, EASTLESS)])
    assert "read the states back" in lost.value.next
    assert [operation for _, operation in estate.arc.calls].count(UPDATE) == 1
    assert state(one, WEB) == (EASTLESS if made else FULL)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("AccessDeniedException", Failed, "access denied: AccessDeniedException by the test; nothing was written"),
        ("ConflictException", Failed, "conflicts with another request: .*; nothing was written"),
        ("ServiceLimitExceededException", Failed, "says ServiceLimitExceededException: .*; nothing was written"),
        (
            "ThrottlingException",
            Failed,
            r"no endpoint .* answers within 10 s \(.*Throttling.*\); nothing was written",
        ),
    ],
)
def test_what_is_refused_is_told_in_words(estate: Estate, fault: str, kind: type[FailoverError], words: str) -> None:
    estate.fails(fault, UPDATE)
    with pytest.raises(kind, match=words) as error:
        estate.make(clock=FakeClock()).write([change(WEB, FULL, EASTLESS)])
    assert error.value.where == "router arc"
    assert error.value.next
    assert estate.on() == {"east": True, "west": True}


def test_a_safety_rule_refuses_and_is_never_overridden(estate: Estate) -> None:
    rule = AtLeast("BothInService", 2, frozenset(controls(WEB).values()))
    estate.arc.rules = [rule]
    with pytest.raises(Refused) as refused:
        estate.make().write([change(WEB, FULL, EASTLESS), change(API, FULL, EASTLESS)])
    assert (refused.value.guard, refused.value.exit_code) == ("safety-rule", 3)
    assert rule.arn in refused.value.what
    assert "at least 2 must be On; nothing was written" in refused.value.what
    assert f"--safety-rules-to-override {rule.arn}" in refused.value.next
    assert all("SafetyRulesToOverride" not in update for update in estate.arc.updates)
    assert all(estate.arc.states.values())


def test_a_rule_holds_what_the_re_read_cannot(estate: Estate) -> None:
    """Somebody turns the survivor off between our reading and our writing."""
    estate.arc.rules = [AtLeast("OneInService", 1, frozenset(controls(WEB).values()))]
    estate.arc.before_update = lambda: estate.meddle(WEB)
    with pytest.raises(Refused, match="OneInService"):
        estate.make().write([change(WEB, FULL, EASTLESS)])
    assert estate.on() == {"east": True, "west": False}


def test_endpoints_that_disagree_stop_a_write(estate: Estate) -> None:
    estate.arc.lag(*REGIONS[:4])
    estate.meddle(WEB)
    for before in (FULL, WESTLESS):
        with pytest.raises(Failed, match=r"endpoints do not agree about route web@arc .*; nothing was written"):
            estate.make().write([change(WEB, before, EASTLESS)])
    assert estate.arc.updates == []
    estate.arc.catch_up()
    with pytest.raises(Conflict):
        estate.make().write([change(WEB, FULL, EASTLESS)])


@pytest.mark.parametrize(
    ("lagging", "gone", "outcome", "words"),
    [
        (0, 0, Outcome.PASS, "5 of 5 ARC endpoints say east 0, west 50"),
        (0, 2, Outcome.PASS, "3 of 5 ARC endpoints say east 0, west 50"),
        (0, 3, Outcome.UNKNOWN, "only 2 of 5 ARC endpoints answer"),
        (1, 0, Outcome.UNKNOWN, "ARC's endpoint in us-east-1 says east 50, west 50, not east 0, west 50"),
        (4, 0, Outcome.UNKNOWN, "ARC's endpoint in us-east-1 says east 50, west 50"),
        (1, 2, Outcome.UNKNOWN, "ARC's endpoint in us-east-1 says"),
        (5, 0, Outcome.FAIL, "ARC's endpoint in us-east-1 says"),
        (5, 5, Outcome.UNKNOWN, "only 0 of 5 ARC endpoints answer"),
    ],
)
def test_it_has_settled_when_most_endpoints_say_so_and_none_otherwise(
    estate: Estate, lagging: int, gone: int, outcome: Outcome, words: str
) -> None:
    one = estate.make()
    estate.arc.lag(*REGIONS[:lagging])
    one.write([change(WEB, FULL, EASTLESS)])
    if gone:
        estate.arc.stop(*REGIONS[5 - gone :])
    verdict = one.settled(WEB, EASTLESS, "")
    assert verdict.outcome is outcome
    assert words in str(verdict)
    estate.arc.catch_up()
    estate.arc.start()
    assert one.settled(WEB, EASTLESS, "").passed


SIX = tuple(f"s{number}@arc" for number in range(12))


def test_many_controls_are_listed_and_set_in_tens(credentials: Path) -> None:
    estate = Estate(credentials, SIX)
    try:
        one = estate.make()
        assert set(one.read(SIX).values()) == {FULL}
        assert {operation for _, operation in estate.arc.calls} == {LIST}
        one.write([change(route, FULL, EASTLESS) for route in SIX])
        sizes = [len(update["UpdateRoutingControlStateEntries"]) for update in estate.arc.updates]
        assert sizes == [10, 2]
        assert set(one.read(SIX).values()) == {EASTLESS}
        number = iter(range(9))
        estate.arc.fault = lambda _, operation: (
            "AccessDeniedException" if operation == UPDATE and next(number) == 1 else ""
        )
        with pytest.raises(Indeterminate) as halfway:
            one.write([change(route, EASTLESS, FULL) for route in SIX])
        assert halfway.value.what == (
            "call 2 of 2 did not go through (access denied: AccessDeniedException by the test); "
            f"moved: {', '.join(SIX[:10])}; not moved: {', '.join(SIX[10:])}"
        )
        assert list(one.read(SIX).values()) == [FULL] * 10 + [EASTLESS] * 2
    finally:
        estate.stop()


def test_a_route_larger_than_a_call_is_raised_before_it_is_lowered(credentials: Path) -> None:
    regions = {f"r{number:02}": 1 for number in range(22)}
    estate = Estate(credentials, (WEB,), regions)
    try:
        half = {region: int(place < 11) for place, region in enumerate(regions)}
        other = {region: 1 - on for region, on in half.items()}
        estate.arc.states = {arn: bool(half[region]) for region, arn in controls(WEB, regions).items()}
        estate.make().write([change(WEB, RouteState(half), RouteState(other))])
        states = [
            each["RoutingControlState"]
            for update in estate.arc.updates
            for each in update["UpdateRoutingControlStateEntries"]
        ]
        assert states == ["On"] * 11 + ["Off"] * 11
        assert estate.on() == {region: bool(on) for region, on in other.items()}
    finally:
        estate.stop()


def test_shared_controls_are_remarked_on_and_cannot_go_two_ways(estate: Estate) -> None:
    shared = {WEB: controls(WEB), API: controls(WEB)}
    one = estate.make(own=shared)
    assert isinstance(one, SupportsRemarks)
    assert one.remarks(WEB) == ["api@arc has a routing control in common with web@arc and moves with it"]
    assert estate.make().remarks(WEB) == []
    with pytest.raises(Failed, match="share a routing control and want it on and off at once"):
        one.write([change(WEB, FULL, EASTLESS), change(API, FULL, WESTLESS)])
    assert estate.arc.updates == []
    one.write([change(WEB, FULL, EASTLESS), change(API, FULL, EASTLESS)])
    assert len(estate.arc.updates[0]["UpdateRoutingControlStateEntries"]) == 1


def test_a_control_that_is_not_there_is_named(estate: Estate) -> None:
    one = estate.make(own={WEB: {"east": control("webeast"), "west": control("gone")}})
    why = f"the ARC cluster has no routing control {control('gone')} (region west)"
    assert one.read([WEB, API]) == {WEB: Unknown(why), API: FULL}
    with pytest.raises(Conflict, match="has no routing control"):
        one.write([change(WEB, FULL, EASTLESS)])


def test_a_ttl_is_refused(estate: Estate) -> None:
    with pytest.raises(Refused, match="would get a TTL, which a routing control does not have"):
        estate.make().write([change(WEB, FULL, RouteState(EASTLESS.weights, 5))])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile": "stranger"}, "the AWS access key is not valid"),
        ({"profile": "nobody"}, "there are no usable AWS credentials"),
        ({"credentials_file": "/nowhere"}, "the credentials file /nowhere is not there"),
        (
            {"endpoints": [{"endpoint": "http://127.0.0.1:9", "region": "us-east-1"}]},
            "no endpoint of the ARC cluster",
        ),
    ],
)
def test_what_keeps_it_from_reading_is_told(estate: Estate, settings: dict[str, Any], words: str) -> None:
    one = estate.make(**settings, clock=FakeClock())
    seen = one.read([WEB])[WEB]
    assert isinstance(seen, Unknown)
    assert seen.why.startswith(words)
    assert one.settled(WEB, FULL, "").outcome is Outcome.UNKNOWN


def test_each_endpoint_is_signed_for_its_own_region(estate: Estate) -> None:
    swapped = [
        {**each, "region": region}
        for each, region in zip(estate.arc.endpoints, REGIONS[1:] + REGIONS[:1], strict=True)
    ]
    seen = estate.make(endpoints=swapped).read([WEB])[WEB]
    assert seen == Unknown("the AWS secret key is wrong, or this clock is")


@pytest.mark.parametrize(
    ("given", "weights", "ttl", "path", "words"),
    [
        ({"east": "webeast"}, NORMAL, None, ("controls",), "region 'west' has no routing control"),
        (
            {"east": "e", "west": "w", "wst": "x"},
            NORMAL,
            None,
            ("controls", "wst"),
            "this route has no region 'wst'; did you mean 'west'?",
        ),
        (
            {"east": "e", "west": "e"},
            NORMAL,
            None,
            ("controls", "west"),
            "this is the routing control of region 'east' too",
        ),
        (
            {"east": "e", "west": "w"},
            {"east": 1, "west": 0},
            None,
            ("weights", "west"),
            "a routing control is on or off",
        ),
        ({"east": "e", "west": "w"}, NORMAL, 60, ("ttl",), "a routing control has no TTL"),
    ],
)
def test_mistakes_in_a_route(
    given: dict[str, str], weights: dict[str, int], ttl: int | None, path: tuple[str, ...], words: str
) -> None:
    config = Arc.RouteConfig(controls={region: control(name) for region, name in given.items()})
    [(where, message)] = Arc.mistakes(spec(WEB, config, weights, ttl))
    assert where == path
    assert message.startswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoints": []}, "no endpoint is named"),
        ({"endpoints": [{"endpoint": "arc.example.com", "region": "us-east-1"}]}, "is not a URL"),
        (
            {"endpoints": [{"endpoint": "https://a", "region": "x"}, {"endpoint": "https://b", "region": "x"}]},
            "region x stands here twice",
        ),
        (
            {"endpoints": [{"endpoint": "https://a", "region": "x"}, {"endpoint": "https://a", "region": "y"}]},
            "endpoint https://a stands here twice",
        ),
    ],
)
def test_endpoints_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Arc.Config.model_validate(settings)


def test_a_control_that_is_no_arn_is_refused() -> None:
    with pytest.raises(ValidationError, match="is not a routing control's ARN"):
        Arc.RouteConfig(controls={"east": "webeast"})
