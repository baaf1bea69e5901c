"""A scikit-learn estimator around any detector, for its pipelines and searches."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from detectors import DETECTORS, Detector, Verdict, threshold_for
from redline.detection.arrays import Array

MISSING_SKLEARN = (
    "our detectors as scikit-learn estimators need scikit-learn, which is not installed: "
    "pip install 'redline[learned]'"
)
try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(MISSING_SKLEARN) from error


class RedlineOutlier(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn outlier detector that wraps one of DETECTORS.

    The rows of X are steps in order of time, its columns the features of one stream. `fit` learns a
    history. All other methods score X as the steps that would follow it, each learned before the
    next is scored, and then forget X; rows in another order, or a part of them, score differently.
    The sign is scikit-learn's: `score_samples` is
    minus the score in standard deviations, so higher is more normal; `decision_function` is below 0
    where `predict` says -1. A row without an opinion is NaN and counts as normal, +1. Missing
    values (NaN) are allowed. `contamination` is the share of the history's own rows that `predict`
    then flags, when they come once more; without it the threshold is `threshold` standard
    deviations. Source of the interface: L. Buitinck and others, API Design for Machine Learning
    Software, 2013.

    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> RedlineOutlier("rolling z-score").fit(x).predict([[0.1, -0.2], [0.3, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        detector: str = "ensemble",
        window: int | None = None,  # steps; None: the detector's own
        direction: str = "both",
        threshold: float = 3.0,  # standard deviations
        contamination: float | None = None,  # share of the history; None: the threshold above
    ) -> None:
        self.detector = detector
        self.window = window
        self.direction = direction
        self.threshold = threshold
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Forget everything, then learn the history X (steps, features); y is ignored."""
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.detector_ = self._make_detector().fit(self._as_input(x))
        threshold = self.threshold
        if self.contamination is not None:
            threshold = self._threshold(x, self.contamination)
        self.offset_ = -threshold
        return self

    def score_samples(self, X: Any) -> Array:
        """Return minus the score of each row, (steps,), NaN = no opinion.

        Standard deviations <= 0: higher is more normal.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return -self._scores(x)

    def decision_function(self, X: Any) -> Array:
        """Return `score_samples` plus the threshold, (steps,), standard deviations.

        Below 0 is an anomaly.
        """
        decision: Array = self.score_samples(X) - self.offset_
        return decision

    def predict(self, X: Any) -> Array:
        """Return -1 for an anomaly, +1 for all else, (steps,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _threshold(self, x: Array, contamination: float) -> float:
        """Return the threshold above which that share of the history's rows score."""
        scores = self._scores(x)
        if np.isnan(scores).all():
            raise ValueError(
                f"no row has a score after a history of n_samples = {len(x)}; give a "
                "longer one, a shorter window or no contamination"
            )
        return threshold_for(scores, contamination)

    def _make_detector(self) -> Detector:
        if self.detector not in DETECTORS:
            raise ValueError(
                f"there is no detector {self.detector!r}; there are {', '.join(DETECTORS)}"
            )
        settings: dict[str, Any] = {"direction": self.direction}
        if self.window is not None:
            settings["window"] = self.window
        return DETECTORS[self.detector](**settings)

    def _as_input(self, x: Array) -> Array:
        """Return rows as one stream of a joint detector, else as one stream per feature."""
        return x[:, None, :] if DETECTORS[self.detector].joint else x

    def _scores(self, x: Array) -> Array:
        """Return the scores of rows that follow the history, each its most anomalous feature's."""
        verdict: Verdict = self.detector_.preview(self._as_input(x))
        scores: Array = np.fmax.reduce(verdict.score, axis=1)
        return scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
