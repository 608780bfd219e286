"""The numbers that the demo stands on."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.lab.measure import Entry, Ledger, failures, longest_gap, lost, measure, shares

TIMES = st.floats(0, 100, allow_nan=False)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    found = []
    for number in range(draw(st.integers(0, 30))):
        intended, took = draw(TIMES), draw(st.floats(0, 3))
        region = draw(st.sampled_from(["east", "west", ""]))
        ok = bool(region) and draw(st.booleans())
        found.append(Entry(f"o{number}", intended, intended + took, "", region, ok, "" if ok else "refused"))
    return found


WINDOWS = st.tuples(TIMES, TIMES).map(sorted)


def entry(name: str, intended: float, took: float = 0.01, *, ok: bool = True, region: str = "east") -> Entry:
    return Entry(name, intended, intended + took, "127.0.1.1", region, ok, "" if ok else "refused")


@given(entries(), WINDOWS)
def test_every_request_of_the_window_is_acknowledged_or_failed(found: list[Entry], window: list[float]) -> None:
    start, end = window
    seen = measure(found, start, end, {item.id for item in found})
    assert seen.requests == seen.failed + seen.orders_acknowledged == sum(start <= e.intended < end for e in found)
    assert 0 <= seen.slow <= seen.orders_acknowledged
    assert seen.failed == sum(failures(found, start, end).values())
    assert seen.orders_lost == 0


@given(entries(), WINDOWS)
def test_the_longest_gap_holds_no_acknowledgement_and_is_as_long_as_it_gets(
    found: list[Entry], window: list[float]
) -> None:
    start, end = window
    gap = longest_gap(found, start, end)
    inside = sorted(e.finished for e in found if e.acknowledged and start <= e.finished <= end)
    assert 0 <= gap <= end - start
    if not inside:
        assert gap == end - start
    else:
        # n answers cut the window into n + 1 pieces, the longest of which is at least their mean.
        assert gap >= (end - start) / (len(inside) + 1) - 1e-9
        assert gap >= max(inside[0] - start, end - inside[-1])


@given(entries(), entries(), WINDOWS)
def test_more_acknowledgements_never_make_the_gap_longer(
    found: list[Entry], more: list[Entry], window: list[float]
) -> None:
    assert longest_gap([*found, *more], *window) <= longest_gap(found, *window)


@given(entries(), WINDOWS)
def test_the_order_of_the_ledger_does_not_matter(found: list[Entry], window: list[float]) -> None:
    assert measure(found, window[0], window[1], set()) == measure(found[::-1], window[0], window[1], set())


@given(entries(), st.sets(st.integers(0, 30).map("o{}".format)))
def test_lost_is_what_was_acknowledged_and_is_not_stored(found: list[Entry], stored: set[str]) -> None:
    gone = lost(found, stored)
    assert not gone & stored
    assert gone | stored >= {e.id for e in found if e.acknowledged}
    assert measure(found, 0, 101, stored).orders_lost == len(gone)


@given(entries(), WINDOWS)
def test_shares_are_of_those_who_reached_a_region(found: list[Entry], window: list[float]) -> None:
    seen = shares(found, *window)
    assert "" not in seen
    assert not seen or sum(seen.values()) == pytest.approx(1)


def test_a_window_by_hand() -> None:
    found = [
        entry("a", 1.0),
        entry("b", 2.0, 1.5),
        entry("c", 3.0, ok=False),
        entry("d", 6.0, region="west"),
        entry("late", 9.0, 3.0, ok=False),
        entry("outside", 10.0),
    ]
    seen = measure(found, 1.0, 10.0, {"a", "b"})
    assert (seen.requests, seen.failed, seen.slow, seen.orders_acknowledged, seen.orders_lost) == (5, 2, 1, 3, 1)
    assert seen.longest_gap_s == pytest.approx(10.0 - 6.01)
    assert shares(found, 1.0, 7.0) == {"east": 0.75, "west": 0.25}
    assert failures(found, 1.0, 10.0) == {"refused": 2}


def test_a_ledger_is_read_as_it_grows_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    assert ledger.entries() == []
    lines = [json.dumps(asdict(entry(name, 1.0))) for name in "abc"]
    path.write_text(f"{lines[0]}\n{lines[1][:20]}")
    assert [e.id for e in ledger.entries()] == ["a"]
    path.write_text("\n".join(lines) + "\n")
    assert [e.id for e in ledger.entries()] == ["a", "b", "c"]
    assert [e.id for e in ledger.entries()] == ["a", "b", "c"]
