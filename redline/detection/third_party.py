"""Outlier models of other libraries as detectors, calibrated to standard deviations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from detectors import DETECTORS, Calibration, DetectorList, State
from redline.detection.arrays import TINY, Array
from redline.detection.multivariate import JointDetector

MISSING_LIBRARY = "{} needs {}, which is not installed: pip install 'redline[learned]'"
THIRD_PARTY = {  # display name: (the library it needs, the class)
    "isolation forest": ("sklearn", "IsolationForest"),
    "LOF of scikit-learn": ("sklearn", "DensityFactor"),
    "one-class SVM": ("sklearn", "OneClassSvm"),
    "ECOD": ("pyod", "Ecod"),
}


def register_available(listing: DetectorList = DETECTORS) -> list[str]:
    """List the detectors whose library is installed, and return their names.

    No library is imported before a model is fitted.
    """
    found = {
        name: f"redline.detection.third_party:{kind}"
        for name, (library, kind) in THIRD_PARTY.items()
        if find_spec(library)
    }
    listing.add(found)
    return list(found)


def missing_library(name: str) -> str | None:
    """Return what to install for a detector whose library is missing; None for any other name."""
    library, kind = THIRD_PARTY.get(name, ("", ""))
    if not library or find_spec(library):
        return None
    return MISSING_LIBRARY.format(name, globals()[kind].library)


@dataclass
class ThirdPartyDetector(JointDetector):
    """Base of the detectors around another library's model.

    A subclass defines `make_model` and `score_rows`. The model of each stream is fitted every REFIT
    windows on the last `reach` windows, in spreads from each feature's centre; a missing feature
    counts as at its centre. Its own score, higher = more anomalous, goes through the calibration.
    The state holds the rows it was fitted on, never the model: a loaded state fits it again, to the
    same bits. `parts` share the score out in proportion to the features' squared deviations.
    """

    seed: int = 0
    reach: ClassVar[int] = 4
    REFIT: ClassVar[int] = 2  # windows
    # steps; in a shorter window the model sees too little to find a spike of 20 deviations
    SHORTEST: ClassVar[int] = 2
    # spreads; nothing finer counts, or the floor would mean nothing to a model without units
    GRAIN: ClassVar[float] = 2.0**-7
    ALONE: ClassVar[bool] = False  # score one row at a time: the model mixes the rows it is given
    library: ClassVar[str] = "scikit-learn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < self.SHORTEST:
            raise ValueError(
                f"window is at least {self.SHORTEST} steps for {type(self).__name__}, "
                f"which learns from {self.reach} of them; got {self.window}"
            )
        self._scale = Calibration(window=self.reach * self.window)
        # by stream: the rows as bytes, the model fitted on them
        self._fitted: dict[int, tuple[bytes, Any]] = {}

    @abstractmethod
    def make_model(self) -> Any:
        """Return a new model with `fit(rows)`, rows (steps, features) without NaN."""

    @abstractmethod
    def score_rows(self, model: Any, rows: Array) -> Array:
        """Return how anomalous each of the rows is, (rows,).

        In any unit in which a Gaussian's tail is no heavier than that of |z|.
        """

    @property
    def block(self) -> int:
        """Return the steps from one fit to the next."""
        return self.REFIT * self.window

    @property
    def renewals(self) -> tuple[int, ...]:
        return (self.block, self._scale.block)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the rows that the models are fitted on, in spreads, NaN = missing."""
        return {**super().begin(shape), "rows": np.full((self.reach * self.window, *shape), np.nan)}

    def spreads(self, x: Array) -> Array:
        """Return the distances from the centre in spreads, rounded to GRAIN."""
        rounded: Array = np.round(super().spreads(x) / self.GRAIN) * self.GRAIN
        return rounded

    def deviations(self, raw: Array) -> Array:
        """Calibrate the models' scores."""
        with self.inside("scale", self._scale):
            return self._scale.update(raw)

    def learn(self, z: Array) -> None:
        """Keep the rows; a model is fitted when it is first needed."""
        self._state["rows"] = z

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """Return the scores of each stream's model, NaN without one, and the squared deviations."""
        raw = np.full(z.shape[:2], np.nan)
        for stream in range(z.shape[1]):
            model = self._model(stream)
            if model is not None:
                for rows in self._batches(len(z)):
                    raw[rows, stream] = self.score_rows(model, z[rows, stream])
        return raw, z * z

    def _batches(self, steps: int) -> Iterator[slice]:
        """Return the slices of rows that are scored in one call."""
        step = 1 if self.ALONE else max(1, steps)
        return (slice(i, i + step) for i in range(0, steps, step))

    def _model(self, stream: int) -> Any:
        """Return the model of a stream, None before there is enough to learn from."""
        rows = self._state["rows"][:, stream]  # (steps, features)
        key = rows.tobytes()
        if self._fitted.get(stream, (b"", None))[0] != key:
            rows = np.nan_to_num(rows[(rows == rows).any(axis=-1)])
            self._fitted[stream] = (key, self._fit(rows) if len(rows) >= self.least else None)
        return self._fitted[stream][1]

    def _fit(self, rows: Array) -> Any:
        model = self.make_model()
        model.fit(rows)
        return model

    def import_library(self, module: str) -> Any:
        """Import a module of the library; the ImportError says what to install."""
        try:
            return import_module(module)
        except ImportError as error:
            raise ImportError(MISSING_LIBRARY.format(type(self).__name__, self.library)) from error


@dataclass
class IsolationForest(ThirdPartyDetector):
    """How few random cuts it takes to set a step apart from the last windows; scikit-learn's
    isolation forest, refitted every second window.

    2**-(mean depth of the step in the trees / depth expected among so many steps), of one feature
    its negative reciprocal, calibrated. Cost: trees * log2(steps) per step, but 3 ms and more to
    ask at all; 50 ms per fit and stream. When it fails: beyond all it has seen every place is
    equally far, so a spike of 50 deviations scores as one of 5; between two operating points it
    cuts late. Windows under 32 steps are refused. Source: F. T. Liu, K. M. Ting, Z.-H. Zhou,
    Isolation Forest, 2008.
    """

    trees: int = 50
    SHORTEST: ClassVar[int] = 32

    def make_model(self) -> Any:
        return self.import_library("sklearn.ensemble").IsolationForest(
            n_estimators=self.trees, random_state=self.seed
        )

    def score_rows(self, model: Any, rows: Array) -> Array:
        anomalous = np.round(-np.asarray(model.score_samples(rows)), 9)  # finer is rounding
        return -1 / anomalous if rows.shape[1] == 1 else anomalous


@dataclass
class DensityFactor(ThirdPartyDetector):
    """How much thinner the last windows lie around a step than around its neighbours there;
    scikit-learn's LOF, refitted every second window.

    The root of the logarithm of the local outlier factor, of one feature the fourth root,
    calibrated. Cost: neighbours * log(steps) per step, a millisecond to ask at all; 5 ms per fit
    and stream. When it fails: more than `neighbours` anomalies alike are a neighbourhood of their
    own; with many features all distances are alike. Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng,
    J. Sander, LOF: Identifying Density-Based Local Outliers, 2000.
    """

    neighbours: int = 20  # steps

    def make_model(self) -> Any:
        nearest = max(1, min(self.neighbours, self.least - 1))
        return self.import_library("sklearn.neighbors").LocalOutlierFactor(
            n_neighbors=nearest, algorithm="kd_tree", novelty=True
        )

    def score_rows(self, model: Any, rows: Array) -> Array:
        factor: Array = np.maximum(np.log(-np.asarray(model.score_samples(rows))), 0.0)
        return np.sqrt(factor) if rows.shape[1] > 1 else factor**0.25


@dataclass
class OneClassSvm(ThirdPartyDetector):
    """How far outside the smooth boundary around the last windows; scikit-learn's one-class SVM,
    refitted every second window.

    log(-log(mean of Gaussian kernels on the support vectors)), calibrated; most steps are support
    vectors, for a boundary around the few leaves a plateau within, on which no step is more
    anomalous than another. Cost: support vectors * features per step, 0.3 ms to ask at all; 5 ms
    per fit and stream. When it fails: an anomaly in the window is a support vector of its own and
    hides the next one like it. Source: B. Schölkopf, J. C. Platt, J. Shawe-Taylor, A. J. Smola, R.
    C. Williamson, Estimating the Support of a High-Dimensional Distribution, 2001.
    """

    nu: float = 0.8  # share of the steps that are support vectors at least
    FLAT: ClassVar[float] = 1e-9  # of -log of the mean kernel; smaller is rounding

    def make_model(self) -> Any:
        return self.import_library("sklearn.svm").OneClassSVM(nu=self.nu, gamma="auto")

    def score_rows(self, model: Any, rows: Array) -> Array:
        # mean kernel; 1 = all support vectors are where the row is
        near = np.asarray(model.score_samples(rows)) / model.dual_coef_.sum()
        anomalous: Array = np.log(np.maximum(-np.log(np.maximum(near, TINY)), self.FLAT))
        return anomalous


@dataclass
class Ecod(ThirdPartyDetector):
    """How far in the tails of each feature by itself; PyOD's ECOD, refitted every second window.

    Sum over the features of -log(share of the window at least as extreme), calibrated. No
    parameter. Cost: sorts the rows anew for every step, 2 ms. When it fails: it counts its tail, so
    nothing is rarer than one in reach * window, and windows under 60 steps are refused; it sees
    each feature alone, so it misses odd pairs. Source: Z. Li, Y. Zhao, X. Hu, N. Botta, C. Ionescu,
    G. H. Chen, ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution
    Functions, 2022.
    """

    reach: ClassVar[int] = 8
    SHORTEST: ClassVar[int] = 60
    library: ClassVar[str] = "PyOD"
    ALONE: ClassVar[bool] = True

    def make_model(self) -> Any:
        return self.import_library("pyod.models.ecod").ECOD()

    def score_rows(self, model: Any, rows: Array) -> Array:
        return np.asarray(model.decision_function(rows))
