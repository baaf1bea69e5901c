"""The flagship against its slow twin where seasons begin and end, and the season finder against
what a season is.
"""

from __future__ import annotations

import numpy as np
import pytest
from twins_flagship import ensemble

from detectors import Alarm
from redline.detection.ensemble import (
    LEARNING_BLOCK,
    RANGE_MEMORY,
    SEARCH_STEPS,
    SEASON_CHECK_STEPS,
    SEASON_MEMORY,
    Ensemble,
    nearest_distances,
)
from redline.detection.patterns import PATTERN_MEMORY, pattern_distances
from redline.detection.seasonality import autocorrelation, find_season
from streams import KINDS, STREAMS


def stream(steps: int, season: int, seed: int = 0) -> np.ndarray:
    """(steps, 1, 2): a season with noise and an anomaly of each sort, beside a slow walk."""
    rng, t = np.random.default_rng(seed), np.arange(steps)
    first = 3 * np.sin(2 * np.pi * t / season) + rng.normal(size=steps) * 0.3
    second = np.cumsum(rng.normal(size=steps)) * 0.1 + rng.normal(size=steps)
    first[steps // 2] += 6
    first[steps // 2 + 100 : steps // 2 + 130] += 2
    second[steps // 3 : steps // 3 + 12] = second[steps // 3]
    second[steps // 4 : steps // 4 + 40] = np.nan
    second[3 * steps // 4 :] += 60
    return np.stack((first, second), axis=-1)[:, None]


@pytest.mark.parametrize(
    ("window", "season", "steps"),
    [
        (60, 24, 1100),
        pytest.param(65, 24, 1100, marks=pytest.mark.slow),
        pytest.param(100, 150, 1400, marks=pytest.mark.slow),
    ],
)
def test_twin_through_seasons(window: int, season: int, steps: int) -> None:
    x = stream(steps, season)
    fast = Ensemble(window=window)
    scores = fast.update(x)[:, 0]
    assert fast.state is not None and abs(fast.state["season"][0] - season) <= 2, (
        "the twin would not be tried on a season"
    )
    np.testing.assert_allclose(scores, ensemble(x[:, 0].tolist(), window), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_twin_when_a_season_ends() -> None:
    x = stream(1500, 40)
    x[700:, 0, 0] = np.random.default_rng(3).normal(size=800)
    np.testing.assert_allclose(
        Ensemble(window=50).update(x)[:, 0], ensemble(x[:, 0].tolist(), 50), rtol=1e-6, atol=1e-7
    )


def test_chunks_change_no_bit_through_seasons() -> None:
    x = stream(1500, 24)
    whole, cut = Ensemble(window=100).advance(x), Ensemble(window=100)
    chunks = [cut.advance(chunk) for chunk in np.split(x, [1, 30, 511, 512, 513, 900, 1300])]
    for part in ("score", "parts"):
        assert (
            np.concatenate([getattr(chunk, part) for chunk in chunks]).tobytes()
            == getattr(whole, part).tobytes()
        )


@pytest.mark.parametrize("season", [12, 24, 96, 288, 700])
@pytest.mark.parametrize("seed", range(3))
def test_a_season_is_found(season: int, seed: int) -> None:
    rng, t = np.random.default_rng(seed), np.arange(4096)
    shape = np.cumsum(rng.normal(size=season))
    shape -= np.linspace(0, shape[-1], season)
    found = find_season((shape / shape.std())[t % season] + 0.3 * rng.normal(size=4096))
    assert abs(found - season) <= max(1, 0.01 * season)


def test_no_season_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    slow = np.cos(2 * np.pi * np.arange(2000) / 1200)  # seen less than twice
    for x in (
        slow,
        rng.normal(size=2000),
        np.zeros(2000),
        np.full(100, np.nan),
        np.arange(3.0),
        np.arange(0.0),
    ):
        assert find_season(x) == 0


def test_a_day_is_found_in_a_week_of_equal_days_and_a_week_where_the_weekend_differs() -> None:
    t, rng = np.arange(7 * 48 * 6), np.random.default_rng(2)
    day = np.sin(2 * np.pi * t / 48)
    assert abs(find_season(day + 0.2 * rng.normal(size=len(t))) - 48) <= 1
    working = np.where(t // 48 % 7 < 5, 1.0, 0.0)
    assert abs(find_season(day * working + working + 0.1 * rng.normal(size=len(t))) - 7 * 48) <= 2


def test_a_season_is_kept_unless_another_is_clearly_better() -> None:
    x = np.sin(2 * np.pi * np.arange(1000) / 50) + 0.1 * np.random.default_rng(0).normal(size=1000)
    assert find_season(x, old=50) == 50
    assert find_season(x, old=70) == 50


def test_autocorrelation_is_that_of_its_definition() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 200)
    centred = x - x.mean()
    slow = [
        np.mean(centred[lag:] * centred[: 200 - lag]) / np.mean(centred**2) for lag in range(101)
    ]
    np.testing.assert_allclose(autocorrelation(x), slow, atol=1e-12)


def test_what_one_feature_did_is_told_of_it() -> None:
    x = np.random.default_rng(5).normal(size=(600, 1, 3))
    x[-1, 0, 1] = 12.0
    parts = Ensemble().fit(x[:-1]).explain(x[-1:])[0, 0]
    assert parts[1] > 0.9 * parts.sum() > 3


def test_a_stuck_feature_is_caught_and_a_coarse_one_is_not() -> None:
    x = np.random.default_rng(6).normal(size=(1200, 1, 2))
    x[:, 0, 1] = np.round(x[:, 0, 1])
    calm = Ensemble().update(x)[400:, 0]
    x[1000:1015, 0, 0] = x[1000, 0, 0]
    stuck = Ensemble().update(x)[:, 0]
    assert np.mean(calm > 3) < 0.02 and stuck[1008:1015].min() > 3.5


@pytest.mark.parametrize("window", [60, 120])
def test_a_stream_that_wanders_is_not_red_and_a_fault_in_it_is(window: int) -> None:
    rng = np.random.default_rng(9)
    walk = rng.normal(size=(6000, 1, 1))
    for step in range(1, len(walk)):
        walk[step] += 0.98 * walk[step - 1]  # it comes back within some fifty steps
    scores = Ensemble(window=window).update(walk)[:, 0]
    assert np.mean(scores > 3.5) < 0.03
    walk[5000:] += 60
    assert Ensemble(window=window).update(walk)[5000, 0] > 9


def test_what_strays_less_than_its_noise_is_held_to_its_noise() -> None:
    x = np.random.default_rng(10).normal(size=(1500, 1, 1))
    calm = Ensemble().update(x)[:, 0]
    x[1200:1260] += 2.5
    assert np.median(Ensemble().update(x)[1220:1260, 0]) > 5 > 1.5 > np.median(calm[1220:1260])


def test_a_season_found_after_a_gap_waits_until_its_level_is_known() -> None:
    """One that is found at step 1,024, just after a gap of 410 steps: the season's mean and the
    level must not both be expected.
    """
    wave = 100 * np.sin(2 * np.pi * np.arange(4096) / 220)
    x = (1000 + wave + np.random.default_rng(0).normal(size=4096))[:, None, None]
    x[600:1010] = np.nan
    fast = Ensemble()
    scores = fast.update(x)[:, 0]
    assert fast.state is not None and abs(fast.state["season"][0] - 220) < 5
    assert np.nanmean(scores > 3) < 0.005  # 0.010 where the season comes without its level


def test_seasons_are_searched_for_in_even_shares_and_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    past, each = [], []

    def search(x: np.ndarray, old: int) -> int:
        past.append(len(x))
        return find_season(x, old)

    monkeypatch.setattr("redline.detection.ensemble.find_season", search)
    detector = Ensemble(window=60)
    for row in np.random.default_rng(0).normal(size=(2 * SEASON_CHECK_STEPS, 1, 1, 250)):
        before = len(past)
        detector.advance(row)
        each.append(len(past) - before)
    counts = np.reshape(each, (2, SEASON_CHECK_STEPS))
    assert counts[:, -SEARCH_STEPS:].min() == 1 and counts.max() == 2  # 250 in 128 steps
    assert (counts.sum(axis=1) == 250).all()
    first = SEASON_CHECK_STEPS - SEARCH_STEPS
    assert past == [first] * 250 + [SEASON_CHECK_STEPS + first] * 250
    assert detector.state is not None and not detector.state["searched"].any()


def test_the_nearest_values_are_the_same_of_many_channels_at_once() -> None:
    rng = np.random.default_rng(4)
    kept = np.append(rng.integers(0, 300, 38), [0, 300])
    ordered = np.full((40, 300), np.inf)
    for row, size in zip(ordered, kept):
        row[:size] = np.unique(np.round(rng.normal(size=3000), 3))[:size]
    x = np.round(rng.normal(size=(9, 40)), 3)
    x[3] = np.nan
    x[4], x[5] = -99.0, 99.0
    x[6] = np.where(kept > 0, ordered[:, 0], 0.0)
    many = nearest_distances(ordered, kept, x)
    few = [
        nearest_distances(*(a[i : i + 8] for a in (ordered, kept)), x[:, i : i + 8])
        for i in range(0, 40, 8)
    ]
    assert many.tobytes() == np.concatenate(few, axis=1).tobytes()
    for (step, channel), found in np.ndenumerate(many):
        away = np.abs(ordered[channel, : kept[channel]] - x[step, channel])
        wanted = away.min() if len(away) else np.nan
        np.testing.assert_equal(found, wanted)


def test_an_anomaly_is_not_expected_a_season_later() -> None:
    x = 3 * np.sin(2 * np.pi * np.arange(2000) / 100)[:, None, None] + 0.2 * np.random.default_rng(
        7
    ).normal(size=(2000, 1, 1))
    x[1500, 0] += 8
    scores = Ensemble().update(x)[:, 0]
    assert scores[1500] > 9 and scores[[1600, 1700, 1800]].max() < 3


def test_the_values_that_stand_for_all_are_few() -> None:
    rng, fast = np.random.default_rng(8), Ensemble(window=50)
    for power in range(8):
        fast.update(rng.normal(size=(SEASON_MEMORY // 8, 1, 1)) * 4.0**power)
    assert fast.state is not None and 0 < fast.state["kept"][0] <= RANGE_MEMORY
    assert (
        np.diff(fast.state["values"][0, : fast.state["kept"][0]]) > 0
    ).all() and SEASON_MEMORY % LEARNING_BLOCK == 0


def test_a_level_that_moves_is_no_surprise_where_a_block_begins() -> None:
    """On a steady ramp the level is moved by what a whole block adds, and what two lags expect must
    move with it.
    """
    x = np.random.default_rng(1).normal(size=6500) + 0.3 * np.maximum(np.arange(6500) - 1499, 0)
    fast, surprises = Ensemble(), []
    for block in np.split(x, range(LEARNING_BLOCK, 6500, LEARNING_BLOCK))[:-1]:
        fast.update(block[:-1, None, None])
        assert fast.state is not None
        surprises.append(fast.state["open"][2, 0, 0] / fast.state["shake"][0, 0])
        fast.update(block[-1:, None, None])
    assert np.abs(np.mean(surprises[100:])) < 0.3  # 3.3 where the lags stay behind


def test_records_that_come_in_flocks_are_no_news() -> None:
    """A ramp of 0.02 deviations a step over 5,000 steps: each record is new, yet hardly news."""
    called = 0
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=6500) + 0.02 * np.maximum(
            np.arange(6500) - 1499, 0
        )
        alarms = Alarm().update(Ensemble().update(x[:, None, None]))[1500:, 0]
        called += int((alarms > 3.5).sum())
    assert called / 4 <= 8  # 25 where a record is always news


def test_events_that_return_do_not_excuse_each_other() -> None:
    """Of large payments, 8 deviations in a noise with a tail, once in 500 steps, nearly all are
    called: they must not make the stream look often surprised.
    """
    chunk = STREAMS["fraud"](seed=101, sizes=(8.0, 8.0)).take(9000)
    assert chunk.label is not None
    alarms = Alarm().update(Ensemble().update(chunk.x[:, None]))[:, 0]
    points = np.flatnonzero((chunk.label == KINDS.index("point")).any(axis=1))
    called = alarms[points[points > 3000]] > 3.5
    assert called.mean() >= 0.9, f"{called.sum()} of {len(called)} are called"


def test_distances_of_patterns_are_those_of_their_definition_and_one_step_as_many() -> None:
    rng = np.random.default_rng(7)
    past = rng.normal(size=(2, 7 + PATTERN_MEMORY)).astype(np.float32)
    present = np.concatenate((past[:, -7:], rng.normal(size=(2, 3)).astype(np.float32)), axis=1)
    doubtful = rng.random((2, 64)) < 0.2
    for known in (5, 23, 64, 1019, 5000):
        many = pattern_distances(present, past, known, doubtful)
        for step in range(3):
            one = pattern_distances(present[:, step : step + 8], past, known, doubtful)
            assert one.tobytes() == many[step : step + 1].tobytes(), "another sum for one step"
            for channel in range(2):
                count = min(known, PATTERN_MEMORY)
                ends = np.arange(PATTERN_MEMORY - count, PATTERN_MEMORY) + 8
                waits = np.concatenate((np.zeros(PATTERN_MEMORY - 64, bool), doubtful[channel]))
                apart = np.array(
                    [
                        np.inf
                        if waits[end - 8]
                        else np.linalg.norm(
                            present[channel, step : step + 8] - past[channel, end - 8 : end]
                        )
                        for end in ends
                    ]
                )
                nearest = [apart[part::5].min() for part in range(5)]
                np.testing.assert_allclose(many[step, channel], np.mean(nearest), rtol=1e-5)
    assert np.isnan(pattern_distances(present, past, 4, doubtful)).all()


def test_the_band_follows_a_season_each_feature_in_its_own_unit() -> None:
    x = stream(1500, 24)
    detector = Ensemble(window=100)
    whole = detector.advance(x)
    assert whole.centre is not None and whole.spread is not None
    assert whole.centre.shape == whole.spread.shape == x.shape
    late = slice(1400, None)
    season = 3 * np.sin(2 * np.pi * np.arange(1500) / 24)
    assert np.abs(whole.centre[late, 0, 0] - season[late]).max() < 0.6, "the season is not expected"
    assert 0.2 < whole.spread[late, 0, 0].mean() < 0.6, "the noise is 0.3"
    assert np.abs(whole.centre[late, 0, 1] - x[late, 0, 1]).mean() < 3, "nor is the level after 60"


def test_each_kind_of_evidence_is_named_where_it_speaks() -> None:
    x = np.random.default_rng(8).normal(size=(1300, 1, 2))
    x[900, 0, 1] = 9.0  # a spike of one feature
    x[1000:1012, 0, 0] = x[1000, 0, 0]  # a sensor that repeats its value
    x[1100:1200] += 2.5  # a shift of both
    evidence = Ensemble(window=200).advance(x).evidence
    assert evidence is not None

    def strongest(step: int) -> tuple[int, str]:
        feature, kind = np.unravel_index(evidence[step, 0].argmax(), evidence.shape[2:])
        return int(feature), Ensemble.kinds[kind]

    assert strongest(900)[0] == 1 and strongest(900)[1] in ("sudden", "novel")
    assert strongest(1011) == (0, "stuck")
    assert strongest(1150)[1] == "lasting"
