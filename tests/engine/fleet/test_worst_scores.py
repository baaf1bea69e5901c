"""The worst scores in cells of time: the same as a dictionary of all samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.engine.fleet.worst_scores import (
    AT_THRESHOLD,
    MAX_AHEAD,
    NO_LEVEL,
    WorstRing,
    WorstScores,
    level_of,
    ratio_of,
)

WALL = 1_767_571_200.0

one_sample = st.tuples(st.integers(0, 12), st.integers(0, 400), st.integers(1, 60_000))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(one_sample, min_size=1, max_size=12), min_size=1, max_size=12))
def test_a_ring_has_the_worst_of_each_series_and_cell(
    turns: list[list[tuple[int, int, int]]],
) -> None:
    ring = WorstRing(10, 12)
    plain: dict[tuple[int, int], int] = {}
    for turn in turns:
        series, time, level = (np.array(column) for column in zip(*turn))
        ring.record(series, time.astype(float), level.astype(np.uint16))
        for number, second, each in turn:
            place = (second // 10, number)
            plain[place] = max(plain.get(place, 0), each)
    newest = max(cell for cell, _ in plain)
    size = ring.levels.shape[1]
    for cells in (1, 3):
        found = ring.columns(4, cells)
        assert found.start + 4 * 10 * cells == (newest // cells + 1) * 10 * cells
        for column, row in enumerate(found.levels):
            first = round(found.start) // 10 + column * cells
            kept = range(max(first, newest - 11), first + cells)
            wanted = [max(plain.get((c, n), 0) for c in kept) for n in range(size)]
            assert row.tolist() == wanted


turns_of_samples = st.lists(st.lists(one_sample, min_size=1, max_size=12), max_size=6)


@settings(max_examples=80, deadline=None)
@given(turns_of_samples, turns_of_samples)
def test_a_ring_that_is_merged_is_as_one_that_took_all(
    earlier: list[list[tuple[int, int, int]]], later: list[list[tuple[int, int, int]]]
) -> None:
    past, present, both = WorstRing(10, 12), WorstRing(10, 12), WorstRing(10, 12)
    for rings, turns in (((past, both), earlier), ((present, both), later)):
        for turn in turns:
            series, time, level = (np.array(column) for column in zip(*turn))
            for ring in rings:
                ring.record(series, time.astype(float), level.astype(np.uint16))
    present.merge(past)
    assert present.newest == both.newest
    if both.newest is None:
        return
    for cell in range(both.newest - 11, both.newest + 1):
        found, wanted = (ring.levels[cell % 12] for ring in (present, both))
        size = min(len(found), len(wanted))
        assert found[:size].tolist() == wanted[:size].tolist()
        assert not found[size:].any() and not wanted[size:].any()


def test_a_period_has_the_worst_of_the_cells_that_it_touches() -> None:
    worst = WorstScores()
    for minute in range(40):
        ratio = np.array([0.5, 3.0 if minute == 35 else 0.2, 4.0 if minute == 2 else 0.1])
        worst.record(np.arange(3), np.full(3, WALL + 60 * minute), ratio, WALL + 2_400)
    late = ratio_of(worst.worst_between(WALL + 60 * 34, WALL + 60 * 37))
    np.testing.assert_allclose(late, [0.5, 3.0, 0.1], rtol=2e-3, atol=1e-3)
    assert worst.ring_of(WALL + 60 * 34) is worst.narrow
    whole = ratio_of(worst.worst_between(WALL, WALL + 2_400))
    np.testing.assert_allclose(whole, [0.5, 3.0, 4.0], rtol=2e-3, atol=1e-3)
    assert worst.ring_of(WALL) is worst.wide
    before = worst.worst_between(WALL - 900, WALL)
    assert before.tolist() == [NO_LEVEL] * 3
    assert worst.worst_between(2e11, 1e11).tolist() == [NO_LEVEL] * 3


def test_a_clock_that_is_far_ahead_empties_nothing() -> None:
    worst = WorstScores()
    worst.record(np.array([0]), np.array([WALL]), np.array([2.0]), WALL)
    ahead = WALL + MAX_AHEAD + 1
    worst.record(np.array([1]), np.array([ahead]), np.array([9.0]), WALL)
    worst.record(np.array([1]), np.array([np.inf]), np.array([9.0]), WALL)
    assert worst.worst_between(WALL - 60, ahead + 60)[0] > AT_THRESHOLD
    assert worst.narrow.newest == int(WALL) // 10


def test_what_has_no_score_leaves_its_cell_empty() -> None:
    worst = WorstScores()
    worst.record(np.array([0, 1]), np.array([WALL, WALL]), np.array([np.nan, 0.0]), WALL)
    assert worst.worst_between(WALL - 60, WALL + 60).tolist() == [NO_LEVEL, 1]


@given(st.floats(0, 1e6))
def test_a_level_is_anomalous_exactly_above_the_threshold(ratio: float) -> None:
    level = level_of(np.array([ratio]))
    assert (level[0] > AT_THRESHOLD) == (ratio > 1)
    assert ratio_of(level)[0] == pytest.approx(ratio, rel=2e-3, abs=1e-3)
