"""The NAB score against worked examples of the published description."""

from __future__ import annotations

import numpy as np
import pytest

from bench import nab

ONE = nab.Profile(1.0, 1.0, 1.0)


def spikes(steps: int, *at: int) -> np.ndarray:
    score = np.zeros(steps)
    score[list(at)] = 1.0
    return score


def raw(
    score: np.ndarray,
    windows: nab.Windows,
    profile: nab.Profile = ONE,
    learn: int = 0,
    threshold: float = 0.5,
) -> float:
    return float(nab.file_curve(score, windows, learn, profile, np.array([threshold]))[0])


@pytest.mark.parametrize(
    ("place", "worth"),
    [(-1.0, 0.98661), (-0.5, 0.84828), (0.0, 0.0), (1.0, -0.98661), (3.0, -1.0), (50.0, -1.0)],
)
def test_published_points_of_the_sigmoid(place: float, worth: float) -> None:
    assert float(nab.scaled_sigmoid(place)) == pytest.approx(worth, abs=1e-5)


def test_no_window_and_no_detection_score_nothing() -> None:
    assert raw(np.zeros(10), []) == 0


def test_first_step_of_a_window_is_worth_one_whatever_its_width() -> None:
    assert raw(spikes(10, 4), [(4, 5)]) == pytest.approx(1)
    assert raw(spikes(10, 4), [(4, 6)]) == pytest.approx(1)


def test_earlier_is_better_and_only_the_earliest_counts() -> None:
    assert raw(spikes(10, 4), [(4, 5)]) > raw(spikes(10, 5), [(4, 5)])
    assert raw(spikes(10, 4, 5), [(4, 5)]) == raw(spikes(10, 4), [(4, 5)])


def test_the_last_step_inside_and_the_first_behind_nearly_cancel() -> None:
    window = [(450, 549)]
    assert raw(spikes(1000, 549), window) + raw(spikes(1000, 550), window) + 1 == pytest.approx(
        0, abs=2e-3
    )


def test_a_worked_example_with_a_hit_a_miss_and_a_false_detection() -> None:
    # two detections in the first window (the first worth 1), one 3 steps behind it (3 / 4 of a
    # width: -0.954), the second window missed
    assert raw(spikes(100, 30, 31, 37), [(30, 34), (64, 68)]) == pytest.approx(-0.9540, abs=1e-4)


def test_a_false_detection_before_any_window_costs_all() -> None:
    assert raw(spikes(100, 3), [(30, 34)]) == pytest.approx(-2)


def test_profiles_scale_misses_and_false_detections() -> None:
    window, standard, low_fn, low_fp = (
        [(30, 39)],
        *(nab.PROFILES[k] for k in ("standard", "reward_low_FN_rate", "reward_low_FP_rate")),
    )
    assert raw(np.zeros(100), window, low_fn) == 2 * raw(np.zeros(100), window, standard)
    assert (
        raw(spikes(100, 0), [], low_fp)
        == 2 * raw(spikes(100, 0), [], standard)
        == pytest.approx(-0.22)
    )


def test_steps_for_learning_do_not_count() -> None:
    assert raw(spikes(100, 3), [(30, 34)], learn=15) == -1
    assert (
        raw(spikes(100, 3), [(2, 9)], learn=15) == 0
    )  # a window inside the learning part is neither missed nor found
    assert nab.limits([(2, 9), (30, 34)], 15, ONE) == (-1, 1)


def test_nan_never_detects() -> None:
    score = spikes(100, 30)
    score[5] = np.nan
    assert raw(score, [(30, 34)], threshold=-1e9) < raw(score, [(30, 34)]) == pytest.approx(1)


def test_scores_by_threshold_follow_the_steps_of_the_scores() -> None:
    score, windows = np.array([0.0, 0.2, 0.3, 0.0, 0.5, 0.5]), [(1, 2), (4, 4)]
    sheet = nab.sheet([score], [windows], [0], nab.Profile(1.0, 1.0, 5.0))
    weight, _ = nab.step_weights(6, windows, nab.Profile(1.0, 1.0, 5.0))
    assert sheet.thresholds.tolist() == [0.0, 0.2, 0.3, 0.5, np.inf]
    expected = [
        weight[1] + 1 + weight[0] + weight[3] + weight[5],
        weight[1] + 1 + weight[5],
        weight[2] + 1 + weight[5],
        -5 + 1 + weight[5],
        -10,
    ]
    np.testing.assert_allclose(sheet.raw[0], expected)


def test_null_is_0_and_perfect_is_100() -> None:
    windows, learns = [[(30, 39)], [(50, 59), (80, 89)]], [10, 10]
    perfect = [spikes(100, 30), spikes(100, 50, 80)]
    for profile in nab.PROFILES.values():
        sheet = nab.sheet(perfect, windows, learns, profile)
        assert nab.official(sheet) == (pytest.approx(100), 1.0)
        assert sheet.normalised(np.arange(2))[-1] == 0


def test_half_splits_share_each_group_and_judge_unseen_files() -> None:
    groups = ["a"] * 5 + ["b"] * 3 + ["c"] * 4
    first, second = nab.halves(groups, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(12))
    assert len(first) == len(second) == 6
    for group, least in (("a", 2), ("b", 1), ("c", 2)):
        assert min(sum(groups[i] == group for i in side) for side in (first, second)) == least
    windows = [[(30, 39)]] * 12
    sheet = nab.sheet([spikes(100, 30)] * 12, windows, [10] * 12, nab.PROFILES["standard"])
    np.testing.assert_allclose(nab.half_splits(sheet, groups, splits=3), 100)
