from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from failover.weights import active, shared, staged, switched

REGIONS = ("east", "west", "north", "south")

normals = st.lists(st.sampled_from(REGIONS), min_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.integers(0, 300) for name in names})
)
normals = normals.filter(lambda normal: any(normal.values()))
percents = st.integers(0, 100)
Move = Callable[[Mapping[str, int], Mapping[str, int], str, int], dict[str, int]]


def by_weight(normal: Mapping[str, int], now: Mapping[str, int], region: str, percent: int) -> dict[str, int]:
    return staged(normal, active(normal, now) - {region}, region, percent)


def by_switch(normal: Mapping[str, int], now: Mapping[str, int], region: str, percent: int) -> dict[str, int]:
    return switched(normal, active(normal, now) - {region}, region, percent)


BOTH = pytest.mark.parametrize("move", [by_weight, by_switch])


@st.composite
def choices(draw: st.DrawFn) -> tuple[dict[str, int], str, set[str]]:
    """Normal weights, a region that leaves, and some of the others, who are active."""
    normal = draw(normals)
    region = draw(st.sampled_from(sorted(normal)))
    others = draw(st.sets(st.sampled_from(sorted(set(normal) - {region}))))
    return normal, region, others


@given(choices(), percents)
def test_the_whole_is_kept_while_somebody_is_there_to_carry_it(choice: Any, percent: int) -> None:
    normal, region, others = choice
    assume(others or percent)
    weights = staged(normal, others, region, percent)
    assert sum(weights.values()) == sum(normal.values())
    assert set(weights) == set(normal)
    assert all(weight >= 0 for weight in weights.values())


@given(choices())
def test_without_anybody_left_all_are_zero(choice: Any) -> None:
    normal, region, _ = choice
    assert not any(staged(normal, set(), region, 0).values())
    assert not any(switched(normal, set(), region, 0).values())
    assert not any(shared(normal, set()).values())


@given(choices(), percents)
def test_only_the_victim_and_the_active_have_weight(choice: Any, percent: int) -> None:
    normal, region, others = choice
    for weights in (staged(normal, others, region, percent), switched(normal, others, region, percent)):
        assert {name for name, weight in weights.items() if weight} <= others | {region}


@given(choices())
def test_at_zero_the_victim_has_nothing_and_at_a_hundred_its_own_share(choice: Any) -> None:
    normal, region, others = choice
    assert staged(normal, others, region, 0)[region] == 0
    assert staged(normal, others, region, 100) == shared(normal, others | {region})
    assert switched(normal, others, region, 0)[region] == 0
    assert switched(normal, others, region, 100)[region] == normal[region]


@given(choices(), st.lists(percents, min_size=2))
def test_the_victims_weight_never_rises_as_its_percentage_falls(choice: Any, stages: list[int]) -> None:
    normal, region, others = choice
    falling = [staged(normal, others, region, percent)[region] for percent in sorted(stages, reverse=True)]
    assert all(high >= low for high, low in pairwise(falling))


@given(choices())
def test_whoever_stays_gets_no_less_than_before_but_for_one_of_rounding(choice: Any) -> None:
    normal, region, others = choice
    assume(others)
    before, after = shared(normal, others | {region}), shared(normal, others)
    assert {name for name in others if after[name] < before[name] - 1} == set()


@given(choices())
def test_the_active_keep_some_weight_so_that_they_are_not_taken_for_drained(choice: Any) -> None:
    normal, region, others = choice
    after = staged(normal, others, region, 0)
    assert {name for name in others if normal[name] and not after[name]} == set()


@BOTH
@given(normals, st.data())
def test_the_order_of_two_drains_does_not_matter(move: Move, normal: dict[str, int], data: st.DataObject) -> None:
    takers = sorted(name for name, weight in normal.items() if weight)
    assume(len(takers) > 1)
    one, other = data.draw(st.permutations(takers))[:2]

    def drain(first: str, second: str) -> dict[str, int]:
        return move(normal, move(normal, normal, first, 0), second, 0)

    assert drain(one, other) == drain(other, one)


@BOTH
@given(normals, st.data())
def test_the_stages_on_the_way_do_not_matter(move: Move, normal: dict[str, int], data: st.DataObject) -> None:
    region = data.draw(st.sampled_from(sorted(normal)))
    stages = sorted(data.draw(st.sets(st.integers(1, 99))), reverse=True)
    now: dict[str, int] = dict(normal)
    for percent in stages if move is by_weight else []:
        now = move(normal, now, region, percent)
    assert move(normal, now, region, 0) == move(normal, normal, region, 0)


@BOTH
@given(normals, st.data())
def test_restoring_everybody_gives_exactly_the_normal_weights(
    move: Move, normal: dict[str, int], data: st.DataObject
) -> None:
    drained = data.draw(st.sets(st.sampled_from(sorted(normal)), min_size=1, max_size=len(normal) - 1))
    now: dict[str, int] = dict(normal)
    for region in data.draw(st.permutations(sorted(drained))):
        now = move(normal, now, region, 0)
    for region in data.draw(st.permutations(sorted(drained))):
        now = move(normal, now, region, 100)
    assume(active(normal, now) == set(normal))
    assert now == normal


@given(choices())
def test_a_switch_never_raises_anybody_above_normal(choice: Any) -> None:
    normal, region, others = choice
    for percent in (0, 100):
        weights = switched(normal, others, region, percent)
        assert all(weights[name] in (0, normal[name]) for name in normal)
        assert all(weights[name] == normal[name] for name in others)


@pytest.mark.parametrize(
    ("normal", "others", "region", "percent", "wanted"),
    [
        ({"a": 100, "b": 100}, {"b"}, "a", 0, {"a": 0, "b": 200}),
        ({"a": 100, "b": 100}, {"b"}, "a", 25, {"a": 25, "b": 175}),
        ({"a": 50, "b": 30, "c": 20}, {"b", "c"}, "a", 0, {"a": 0, "b": 60, "c": 40}),
        ({"a": 50, "b": 30, "c": 20}, {"b", "c"}, "a", 50, {"a": 25, "b": 45, "c": 30}),
        ({"a": 1, "b": 1, "c": 1}, {"b", "c"}, "a", 0, {"a": 0, "b": 2, "c": 1}),
        ({"a": 10, "b": 0}, {"b"}, "a", 0, {"a": 0, "b": 10}),
        ({"a": 10, "b": 0}, {"b"}, "a", 100, {"a": 10, "b": 0}),
        ({"a": 10, "b": 0, "c": 0}, {"b", "c"}, "a", 0, {"a": 0, "b": 5, "c": 5}),
        ({"a": 10, "b": 10, "c": 10}, {"b"}, "a", 0, {"a": 0, "b": 30, "c": 0}),
        ({"a": 10, "b": 10}, set(), "a", 50, {"a": 20, "b": 0}),
    ],
)
def test_shares(normal: Any, others: Any, region: str, percent: int, wanted: Any) -> None:
    assert staged(normal, others, region, percent) == wanted


@pytest.mark.parametrize(
    ("normal", "current", "wanted"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a", "b"}),
        ({"a": 1, "b": 1}, {"a": 0, "b": 2}, {"b"}),
        ({"a": 1, "b": 0}, {"a": 1, "b": 0}, {"a", "b"}),
        ({"a": 1, "b": 1}, {"b": 2}, {"b"}),
        ({"a": 1, "b": 1}, {"a": 0, "b": 2, "stranger": 9}, {"b"}),
    ],
)
def test_active(normal: Any, current: Any, wanted: Any) -> None:
    assert active(normal, current) == wanted
