"""Neighbours and joint detectors: hard histories against their twins, and what each of them
promises beyond the contract.
"""

from __future__ import annotations

import math
from typing import Any

import contract
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins_families import TWINS

from detectors import CEILING, DETECTORS, Detector
from redline.detection.arrays import Array
from redline.detection.multivariate import (
    HalfSpaceTrees,
    LocalOutlierFactor,
    Mahalanobis,
    TreePlan,
    rarity_table,
    tree_plan,
)
from redline.detection.neighbours import NearestNeighbours, Novelty

NAMES = list(TWINS)
JOINT = [name for name in NAMES if DETECTORS[name].joint]


def noise(steps: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(steps, *shape))


def after(detector: Detector, past: Array, *steps: Any) -> Array:
    """The score of each step, had it come right after the past."""
    detector.fit(past)
    return np.array(
        [detector.score(np.reshape(step, (1, *past.shape[1:])))[0, 0] for step in steps]
    )


# Twins

few = settings(max_examples=12, deadline=None, derandomize=True)
gaps = st.lists(
    st.sampled_from(["", "", "", "", "gap", "spike", "shift", "same"]), min_size=40, max_size=90
)


def history(events: list[str], features: int, seed: int) -> Array:
    """(steps, features) of noise, with what the events say; no two gaps between its values
    alike.
    """
    x, level = noise(len(events), features, seed=seed), 0.0
    for step, event in enumerate(events):
        level += 25.0 * (event == "shift")
        x[step] += level + 1e4 * (event == "spike")
        if event == "gap":
            x[step, step % (features + 1) :] = np.nan
        elif event == "same" and step:
            x[step] = x[step - 1]
    return x


@few
@given(events=gaps, seed=st.integers(0, 99), window=st.integers(2, 17))
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "half-space trees" else ())
        for name in NAMES
    ],
)
def test_twin_of_hard_histories(name: str, events: list[str], seed: int, window: int) -> None:
    make, slow = DETECTORS[name], TWINS[name]
    x = history(events, 3 if make.joint else 1, seed)
    wanted: Any = slow((x if make.joint else x[:, 0]).tolist(), window)  # type: ignore[arg-type]
    scores = make(window=window).update(x[:, None] if make.joint else x)[:, 0]
    np.testing.assert_allclose(scores, wanted, rtol=1e-6, atol=1e-6)


@few
@given(events=gaps, seed=st.integers(0, 99), window=st.integers(2, 17))
@pytest.mark.parametrize("name", NAMES)
def test_neither_the_zero_nor_the_neighbours_matter(
    name: str, events: list[str], seed: int, window: int
) -> None:
    make = DETECTORS[name]
    x = np.round(history(events, 6, seed) * 2**20) / 2**20
    x = x.reshape(-1, 3, 2) if make.joint else x[:, :3]
    together = make(window=window).update(x)
    np.testing.assert_allclose(
        make(window=window).update(x[:, 1:2])[:, 0], together[:, 1], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        make(window=window).update(x + 2.0**30), together, rtol=1e-3, atol=1e-3
    )


@few
@given(events=gaps, seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 90), max_size=6))
@pytest.mark.parametrize("name", JOINT)
def test_no_chunking_changes_a_part(
    name: str, events: list[str], seed: int, cuts: list[int]
) -> None:
    make, x = DETECTORS[name], history(events, 6, seed).reshape(-1, 2, 3)
    whole, cut = make(window=12).advance(x), contract.in_chunks(make(window=12), x, sorted(cuts))
    assert contract.same(whole.score, cut.score) and contract.same(whole.parts, cut.parts)


# Joint


@pytest.mark.parametrize("name", JOINT)
def test_a_strange_feature_carries_the_score(name: str) -> None:
    detector = DETECTORS[name]().fit(noise(900, 1, 3))
    step = np.array([[[0.3, 9.0, -0.2]]])
    parts = detector.explain(step)[0, 0]
    assert detector.score(step)[0, 0] > 3.5 and parts[1] > 0.8 * parts.sum() and (parts >= 0).all()


@pytest.mark.parametrize("name", JOINT)
def test_a_missing_feature_leaves_the_others_their_say(name: str) -> None:
    calm, strange, silent = after(
        DETECTORS[name](), noise(900, 1, 2), [0.1, np.nan], [12.0, np.nan], [np.nan, np.nan]
    )
    assert calm < 2 and strange > 3.5 and np.isnan(silent)


@pytest.mark.parametrize("name", JOINT)
def test_the_return_from_an_unwatched_side_is_quiet(name: str) -> None:
    x = noise(900, 1, 2)
    x[-2] -= 20
    low, back = DETECTORS[name](direction="high").update(x)[-2:, 0]
    assert low < 2 and back < 2


def test_mahalanobis_of_one_feature_is_how_many_deviations() -> None:
    x = noise(960, 1, 1) * 7 + 3
    past = x[-120:]
    assert after(Mahalanobis(), x, 40.0)[0] == pytest.approx(
        abs(40 - past.mean()) / past.std(), rel=1e-9
    )


def test_mahalanobis_sees_what_breaks_a_correlation() -> None:
    x = noise(800, 1, 1) + 0.05 * noise(800, 1, 2, seed=1)
    along, across, half = after(Mahalanobis(), x, [2.0, 2.0], [1.0, -1.0], [1.0, np.nan])
    assert along < 3 and across > 10 and half < 1.5


@pytest.mark.parametrize(
    ("features", "square"), [(1, 9.0), (2, 11.829), (3, 14.156), (5, 18.205), (10, 26.900)]
)
def test_lengths_of_many_features_are_as_rare_as_three_deviations(
    features: int, square: float
) -> None:
    assert rarity_table(features)[features - 1, round(math.sqrt(square) * 64)] == pytest.approx(
        3, abs=0.02
    )


def test_local_outlier_factor_finds_what_no_single_distance_does() -> None:
    tight, wide = noise(600, 1, 2) * 0.3, noise(600, 1, 2, seed=1) * 3 + 20
    x = np.concatenate((tight, wide), axis=1).reshape(1200, 1, 2)
    beside_the_tight, inside_the_wide = after(
        LocalOutlierFactor(window=200), x, [2.5, 2.5], [22.5, 22.5]
    )
    assert beside_the_tight > 3.5 > 2 > inside_the_wide


def test_local_outlier_factor_of_values_that_return_is_calm() -> None:
    x = np.random.default_rng(3).integers(0, 2, (3000, 1, 2)).astype(float)
    assert not (LocalOutlierFactor().update(x) > 3).any()


def test_half_space_trees_know_an_empty_middle() -> None:
    x = noise(900, 1, 2) * 0.3 + np.where(np.arange(900) % 4 < 2, 0.0, 12.0)[:, None, None]
    x = np.random.default_rng(2).permutation(x)
    middle, low, high = after(HalfSpaceTrees(), x, [6.0, 6.0], [0.0, 0.0], [12.0, 12.0])
    assert middle > 2 * max(low, high)


def test_half_space_trees_score_farther_as_stranger() -> None:
    scores = after(
        HalfSpaceTrees(), noise(900, 1, 2), *([[far, 0.0] for far in (3.0, 6.0, 12.0, 50.0)])
    )
    assert (np.diff(scores) > 0).all() and scores[1] > 3 and scores[-1] < CEILING


def test_a_forest_depends_on_its_seed_and_on_nothing_else() -> None:
    x = noise(700, 1, 3)
    first, again, other = (HalfSpaceTrees(seed=seed).update(x) for seed in (0, 0, 1))
    assert contract.same(first, again) and not contract.same(first, other)
    small, large = tree_plan(0, 10, 8, 3, 6), tree_plan(0, 20, 8, 3, 6)
    assert all(
        contract.same(a, b[:10])
        for name, a, b in zip(TreePlan._fields, small, large)
        if name in ("begin", "last", "places")
    )


@pytest.mark.parametrize("features", [1, 4, 30, 200])
def test_every_feature_is_looked_at_by_some_tree(features: int) -> None:
    feature = HalfSpaceTrees()._plan(features).feature
    assert set(feature.ravel()) == set(range(features))


def test_a_leaf_has_one_number() -> None:
    forest = tree_plan(0, 25, 8, 3, 3)
    cells = np.stack(np.meshgrid(*[np.arange(256)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    for tree in range(25):
        last = forest.last[tree].astype(int)
        inside = cells[(cells <= last[:2]).all(axis=1)]
        cell = np.repeat(inside, last[2] + 1, axis=0)
        cell = np.concatenate((cell, np.tile(np.arange(last[2] + 1), len(inside))[:, None]), axis=1)
        leaves = forest.places[tree, np.arange(3), cell].sum(axis=1)
        assert sorted(leaves) == list(range(256))


def test_a_forest_is_small() -> None:
    state = HalfSpaceTrees().fit(noise(600, 10, 1)).state or {}
    assert sum(value.nbytes for value in state.values()) / 10 < 40_000  # bytes per stream


# Neighbours


def wave(steps: int) -> Array:
    return (np.sin(np.arange(steps) / 4) + 0.05 * noise(steps))[:, None]


def test_nearest_neighbours_see_a_value_at_the_wrong_time() -> None:
    x = wave(901)
    top = int(np.argmax(x[880:, 0])) + 880
    x[top] *= -1  # the wave's bottom, where its top belongs
    scores = NearestNeighbours(window=60).update(x)[:, 0]
    assert scores[top] > 4 and np.nanmax(scores[600:top]) < 4


def test_nearest_neighbours_know_a_fault_seen_often() -> None:
    x = wave(2000)
    faults = np.arange(1200, 2000, 50)
    x[faults] += 5
    scores = NearestNeighbours(window=100).update(x)[faults, 0]
    assert (scores[:3] > 4).all() and (scores[6:] < scores[0] / 4).all()


def test_a_run_that_ends_in_a_gap_is_nobodys_neighbour() -> None:
    x = wave(900)
    x[500:860:3] = np.nan
    scores = NearestNeighbours(window=40).update(x)[:, 0]
    assert (
        np.isnan(scores[500:860:3]).all()
        and not np.isnan(scores[501:860:3]).any()
        and (scores[860:] < 4).all()
    )


def test_novelty_is_new_once() -> None:
    x = np.random.default_rng(5).integers(0, 50, 900).astype(float)
    x[[500, 700]] = 90
    scores = Novelty().update(x[:, None])[:, 0]
    assert scores[500] > 3.5 and scores[700] == 0 and (np.delete(scores, 500)[200:] < 3).all()


@pytest.mark.slow
def test_novelty_remembers_for_ever_in_little_room() -> None:
    x = np.concatenate((noise(4000, 1) * 100 + 5000, noise(16_000, 1, seed=1)))
    detector = Novelty().fit(x)
    old, never = after(detector, x, x[777], 2000.0)
    kept = (detector.state or {})["kept"]
    assert kept.shape == (1, Novelty.KEPT) and old < 2 and never > 3.5


def test_a_gap_becomes_no_stranger_beyond_the_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Novelty, "HORIZON", 300)
    tens = np.arange(1200.0)[:, None] % 10 * 10
    early, late, latest = (after(Novelty(), tens[:steps], 45.0)[0] for steps in (100, 400, 1200))
    assert early < late == latest


def test_novelty_becomes_rare() -> None:
    scores = Novelty().update(noise(12_000, 3))
    early, late = ((scores[part] > 3).mean() for part in (slice(200, 2000), slice(8000, None)))
    assert 0.0009 < early < 0.008 and late < early


@pytest.mark.parametrize(
    ("make", "direction"),
    [(NearestNeighbours, "high"), (NearestNeighbours, "low"), (Novelty, "high"), (Novelty, "low")],
)
def test_a_direction_only_silences_the_other_side(make: type[Detector], direction: Any) -> None:
    x = noise(900, 1)
    both, one = (
        make(window=40).update(x)[200:],
        make(window=40, direction=direction).update(x)[200:],
    )
    assert ((one == both) | (one == 0)).all() and 0.3 < np.mean(one[both > 0] > 0) < 0.7
