"""Other libraries' detectors as functions from one recording to scores.

Where a library is missing, its detectors are left out and its name is listed.

    pip install river pysad pyod scikit-learn

Streaming ones learn as they go, each feature apart, and the highest score counts; batch ones
learn on the first part that is not counted. Scores from 0 to 1 are multiplied by 100, the scale on
which `Alarm` counts peaks; their order, which is all a swept threshold sees, stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.corpora import Series

# -> (steps,), a scale of its own up to about 100, higher = more anomalous
Scorer = Callable[[Series], np.ndarray]


def filled(x: np.ndarray) -> np.ndarray:
    """Replace missing values, which these libraries refuse, by the mean of the values before."""
    seen = x == x
    mean = np.cumsum(np.where(seen, x, 0.0), axis=0) / np.maximum(np.cumsum(seen, axis=0), 1)
    return np.where(seen, x, mean)


def one_by_one(make: Callable[[], Any], score_then_learn: Callable[[Any, float], float]) -> Scorer:
    """Return a scorer with a univariate streaming model for each feature.

    Values are scaled to 0..1 by the range of the learning part.
    """

    def score(series: Series) -> np.ndarray:
        x = filled(series.x)
        low = x[: series.learn].min(axis=0)
        high = x[: series.learn].max(axis=0)
        x = (x - low) / np.where(high > low, high - low, 1.0)
        columns = []
        for feature in x.T:
            model = make()
            columns.append([score_then_learn(model, float(value)) for value in feature])
        return 100 * np.max(np.array(columns), axis=0)

    return score


def on_the_first_part(
    make: Callable[[], Any], score: Callable[[Any, np.ndarray], np.ndarray]
) -> Scorer:
    """Return a scorer with a batch model fitted once on the learning part."""

    def run(series: Series) -> np.ndarray:
        x = filled(series.x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(score(make().fit(x[: series.learn]), x), dtype=float)

    return run


def river_peers() -> dict[str, Scorer]:
    from river import anomaly, preprocessing

    def tree(model: Any, value: float) -> float:
        # learned first: its scaler must have seen the value, as in river's own examples
        model.learn_one({"x": value})
        return float(model.score_one({"x": value}))

    def gauss(model: Any, value: float) -> float:
        try:
            score = model.score_one(None, value)
        except TypeError:  # its rolling variance can fall below zero, and its root is then complex
            score = 0.0
        model.learn_one(None, value)
        return float(score)

    return {
        "river half-space trees": one_by_one(
            lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1), tree
        ),
        "river Gaussian scorer": one_by_one(
            lambda: anomaly.GaussianScorer(window_size=500, grace_period=100), gauss
        ),
    }


def pysad_peers() -> dict[str, Scorer]:
    from pysad.models import KNNCAD

    def run(series: Series) -> np.ndarray:
        columns = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for feature in filled(series.x).T:
                model = KNNCAD(probationary_period=max(series.learn, 120))
                columns.append(
                    [
                        float(np.nan_to_num(model.fit_score_partial(np.array([value]))))
                        for value in feature
                    ]
                )
        return 100 * np.max(np.array(columns), axis=0)

    return {"pysad KNN-CAD": run}


def sklearn_peers() -> dict[str, Scorer]:
    from sklearn.ensemble import IsolationForest

    return {
        "scikit-learn isolation forest": on_the_first_part(
            lambda: IsolationForest(random_state=0), lambda model, x: -100 * model.score_samples(x)
        )
    }


def pyod_peers() -> dict[str, Scorer]:
    from pyod.models.ecod import ECOD

    def make() -> Any:
        class Fitted(ECOD):  # type: ignore[misc]
            def fit(self, x: np.ndarray, y: object = None) -> Fitted:
                super().fit(x)
                return self

        return Fitted()

    return {"PyOD ECOD": on_the_first_part(make, lambda model, x: model.decision_function(x))}


LIBRARIES = {
    "river": river_peers,
    "pysad": pysad_peers,
    "sklearn": sklearn_peers,
    "pyod": pyod_peers,
}


def installed() -> tuple[dict[str, Scorer], list[str]]:
    """Return the peers that can run here, and the libraries that are missing."""
    found: dict[str, Scorer] = {}
    for library, peers in LIBRARIES.items():
        if find_spec(library):
            found |= peers()
    return found, [library for library in LIBRARIES if not find_spec(library)]
