"""The search for settings: what it proposes with labels and without, its progress, its end."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DETECTORS, Alarm
from redline.evaluation import comparison, finder, metrics
from redline.evaluation.finder import FoundSettings, find_settings
from redline.settings import Settings, validate_settings
from streams import STREAMS

FEW = ("rolling z-score", "EWMA")


def noise(rows: int, features: int = 1) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(rows, features))


def alarms_of(found: FoundSettings, x: np.ndarray) -> np.ndarray:
    """Return the steps at which the found settings alarm, scored at once as any reader would."""
    detector = DETECTORS[found.detector](window=found.window, floor=(0.0,) * x.shape[1])
    score = detector.update(x[:, None, :] if detector.joint else x)
    alarm = Alarm().update(metrics.row_scores(score)[:, None])[:, 0]
    return np.flatnonzero(alarm > found.threshold)


def test_with_labels_it_proposes_what_the_comparison_suggests() -> None:
    stream = STREAMS["cpu"](seed=5, rate=0.05)
    chunk = stream.take(1_500)
    *_, last = find_settings(chunk.x, chunk.label, stream.floors, FEW)
    plan = comparison.EvaluationPlan(3.5, timed=False)
    jobs = [(name, window) for name in FEW for window in (60, 120, 240)]

    def scorer(name: str, window: int, x: np.ndarray) -> comparison.TrialResult:
        verdict = DETECTORS[name](window=window, floor=stream.floors).advance(x)
        score, feature, expected = metrics.most_anomalous_feature(verdict)
        alarm = Alarm().update(score[:, None])[:, 0]
        return comparison.TrialResult(score, alarm, feature, expected)

    trials = comparison.run_trials(chunk.x, jobs, scorer, [])
    wanted = comparison.suggest_settings(comparison.rank_trials(trials, chunk, plan), plan)
    assert wanted is not None and last.best is not None
    assert last.best[:3] == wanted[:3] and "events" in last.best.why


def test_without_labels_it_finds_what_stands_out_and_alarms_at_most_once_in_1000_rows() -> None:
    x = noise(2_000)
    x[[900, 1_800], 0] += 15.0
    *_, last = find_settings(x)
    found = last.best
    assert found is not None
    steps = alarms_of(found, x)
    assert set(steps) <= {900, 1_800} and len(steps) == 2
    assert found.alarms == pytest.approx(1000 * len(steps) / len(x)) and found.alarms <= 1
    assert f"{len(steps)} alarms in 2,000 rows" in found.why
    assert validate_settings(Settings(*found[:4])).threshold == found.threshold


@pytest.mark.parametrize("rows", [finder.MIN_ROWS, 999, 1_500])
def test_noise_alone_raises_no_more_alarms_than_wanted(rows: int) -> None:
    x = noise(rows, 2)
    x[rows // 2 :: 7, 1] = np.nan
    *_, last = find_settings(x, np.zeros(x.shape, np.int8), (0.1, 0.1))
    assert last.best is not None and last.best.threshold >= finder.MIN_THRESHOLD
    assert last.best.alarms <= finder.MAX_ALARM_RATE


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_stream_that_never_moves_gets_settings_too(value: float) -> None:
    *_, last = find_settings(np.full((400, 1), value))
    assert last.best is not None and last.best.alarms == 0
    assert last.best.detector == finder.UNLABELLED_CANDIDATES[0][0]


def test_the_progress_only_grows_names_what_is_tried_and_ends_at_one() -> None:
    steps = list(find_settings(noise(1_200)))
    done = [step.done for step in steps]
    assert done == sorted(done) and done[0] == 0.0 and done[-1] == 1.0
    assert steps[0].trying == "ensemble, window 120" and steps[0].best is None
    assert len(steps) > 2 * len(finder.UNLABELLED_CANDIDATES), "a detector takes several slices"
    assert steps[-2].best is not None and steps[-1].trying == ""


def test_a_search_that_is_closed_does_nothing_more() -> None:
    search = find_settings(noise(1_200))
    next(search)
    search.close()
    assert list(search) == []


def test_only_the_newest_rows_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "MAX_SEARCHED_ROWS", 1_000)
    x = noise(1_400)
    x[100] = 1e6
    assert list(find_settings(x)) == list(find_settings(x[-1_000:]))


def test_too_few_rows_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="wanted at least 200 rows to find settings for, got 199"):
        next(find_settings(noise(199)))


def test_a_detector_that_cannot_run_stops_no_other() -> None:
    stream = STREAMS["cpu"](seed=5, rate=0.05)
    chunk = stream.take(600)
    DETECTORS.add({"broken": "redline.detection.nowhere:Nothing"})
    try:
        *_, last = find_settings(chunk.x, chunk.label, stream.floors, ("broken", "EWMA"))
    finally:
        del DETECTORS._entries["broken"]
    assert last.best is not None and last.best.detector == "EWMA"


def test_a_cautious_threshold_is_the_lowest_that_fits_and_none_where_none_does() -> None:
    alarm = np.zeros(2_000)
    alarm[::400] = 50.0
    assert finder.cautious_threshold(alarm) is None
    alarm[::400] = (5.0, 6.0, 7.0, 8.0, 9.0)
    threshold = finder.cautious_threshold(alarm)
    assert threshold == 7.0
    assert (alarm > threshold).sum() == 2 and (alarm > threshold - 0.1).sum() == 3
