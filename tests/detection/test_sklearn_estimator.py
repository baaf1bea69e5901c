"""Ours by scikit-learn's verbs: its own checks, and that the answers are the detector's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from detectors import DETECTORS, threshold_for
from redline.detection.sklearn_estimator import RedlineOutlier

PAST = {
    "check_methods_subset_invariance": (
        "each step is judged against the steps before it: a part of the rows is another stream"
    ),
    "check_methods_sample_order_invariance": (
        "each step is judged against the steps before it: the same rows in another order "
        "are another stream"
    ),
}
CHECKED = [
    RedlineOutlier("rolling z-score", window=8),
    RedlineOutlier("EWMA", window=24, contamination=0.1),
]


@pytest.mark.parametrize("estimator", CHECKED, ids=lambda each: each.detector)
def test_checks_of_scikit_learn(estimator: RedlineOutlier) -> None:
    results = check_estimator(estimator, expected_failed_checks=PAST, on_skip=None, on_fail=None)
    failed = {
        each["check_name"]: each["exception"] for each in results if each["status"] == "failed"
    }
    assert not failed, failed
    assert {each["check_name"] for each in results if each["status"] == "xfail"} == set(PAST), (
        "a check that no longer fails comes off the list"
    )
    assert sum(each["status"] == "passed" for each in results) >= 40


def history(steps: int = 600, features: int = 2) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(steps, features))  # (steps, features), of spread 1


@pytest.mark.parametrize("name", ["EWMA", "Mahalanobis", "ensemble"])
def test_the_scores_are_the_detectors_own(name: str) -> None:
    x, make = history(), DETECTORS[name]
    shaped = x[:, None, :] if make.joint else x
    own = make(window=60).fit(shaped[:500]).update(shaped[500:]).max(axis=1)
    estimator = RedlineOutlier(name, window=60).fit(x[:500])
    assert (-estimator.score_samples(x[500:]) == own).all()
    assert (-estimator.score_samples(x[500:]) == own).all(), "judging moved the state"
    assert ((estimator.predict(x[500:]) == -1) == (own > 3)).all()


def test_contamination_is_the_share_of_the_history_that_is_flagged() -> None:
    x = history(1000)
    for share in (0.2, 0.05, 0.01):
        estimator = RedlineOutlier("EWMA", contamination=share).fit(x)
        assert np.sum(estimator.predict(x) == -1) == share * 1000
        assert estimator.offset_ == -threshold_for(-estimator.score_samples(x), share)


def test_no_opinion_is_normal() -> None:
    x = history(40)
    x[30] = np.nan
    estimator = RedlineOutlier("EWMA", window=20).fit(x[:30])
    assert np.isnan(estimator.score_samples(x[30:])[0]) and estimator.predict(x[30:])[0] == 1
    unborn = RedlineOutlier("EWMA").fit(x[:3])
    assert np.isnan(unborn.score_samples(x[:3])).all() and (unborn.predict(x[:3]) == 1).all()


def test_it_works_in_a_pipeline_and_a_search() -> None:
    x = history()
    x[[350, 450, 550]] += 12
    truth = np.where(x[:, 0] > 6, -1, 1)
    pipeline = make_pipeline(StandardScaler(), RedlineOutlier("EWMA", window=60))
    assert set(np.flatnonzero(pipeline.fit(x[:300]).predict(x[300:]) == -1)) >= {50, 150}
    search = GridSearchCV(
        pipeline,
        {"redlineoutlier__threshold": [0.1, 5.0]},
        scoring="f1_micro",
        cv=TimeSeriesSplit(3),
    ).fit(x, truth)
    assert search.best_params_ == {"redlineoutlier__threshold": 5.0}


def test_a_history_too_short_for_a_share_is_refused() -> None:
    with pytest.raises(ValueError, match="n_samples = 20; give a longer one"):
        RedlineOutlier("ensemble", contamination=0.1).fit(history(20))


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no detector 'z'; there are rolling z-score"):
        RedlineOutlier("z").fit(history())
    with pytest.raises(ValueError, match="contamination"):
        RedlineOutlier("EWMA", contamination=2.0).fit(history())


def test_a_missing_library_is_answered_by_the_line_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "redline.detection.sklearn_estimator")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'redline\[learned\]'"):
        __import__("redline.detection.sklearn_estimator")
