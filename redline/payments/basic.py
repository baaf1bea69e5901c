"""The basic detectors of transactions: models of feature rows that know no user."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from redline.detection.multivariate import HalfSpaceTrees
from redline.payments.profiles import LEAST_AMOUNT
from redline.payments.scoring import bits_to_deviations
from redline.payments.transactions import Transactions, hour_of_day

CODED = ("location", "merchant_category", "payment_method")
MISSING_FOREST = "the isolation forest needs scikit-learn: pip install 'redline[learned]'"
FOREST = {"n_estimators": 100, "max_samples": "auto", "contamination": 0.05, "random_state": 42}
TREES_WINDOW = 512  # transactions
LEAST_LEARNED = 100  # transactions


class PaymentFeatures:
    """Turns transactions into rows of numbers; values not learned are one level, "unseen"."""

    def __init__(self, learned: Transactions) -> None:
        self.levels = [np.unique(getattr(learned, name)) for name in CODED]

    def rows(self, transactions: Transactions) -> np.ndarray:
        """Return log amount, sine and cosine of the hour, then a column a level, (n, features)."""
        angle = hour_of_day(transactions.timestamp) * (2 * np.pi / 24)
        amount = np.log(np.maximum(transactions.amount, LEAST_AMOUNT))
        columns = [np.stack((amount, np.sin(angle), np.cos(angle)), axis=1)]
        for name, levels in zip(CODED, self.levels):
            value = getattr(transactions, name)
            place = np.minimum(np.searchsorted(levels, value), len(levels) - 1)
            code = np.where(levels[place] == value, place, len(levels))
            columns.append((code[:, None] == np.arange(len(levels) + 1)).astype(float))
        return np.concatenate(columns, axis=1)


def check_learned(learned: Transactions) -> None:
    """Raise ValueError where there are too few transactions to learn from."""
    if len(learned.amount) < LEAST_LEARNED:
        raise ValueError(
            f"wanted {LEAST_LEARNED} transactions to learn from; came {len(learned.amount)}"
        )


class BasicTrees:
    """Half-space trees over the features of transactions, in the order in which they come."""

    def __init__(self, learned: Transactions, learns: bool = True) -> None:
        check_learned(learned)
        self.features = PaymentFeatures(learned)
        self.learns = learns
        self.trees = HalfSpaceTrees(window=TREES_WINDOW)
        self.trees.fit(self.features.rows(learned)[:, None])

    def update(self, transactions: Transactions) -> np.ndarray:
        """Return the scores, (n,) standard deviations, NaN = no opinion; learn unless frozen."""
        x = self.features.rows(transactions)[:, None]
        if self.learns:
            return self.trees.update(x)[:, 0]
        step = int(self.trees.state["step"]) if self.trees.state else 0
        # what was learned is renewed at these steps: up to the next all rows see the same
        most = min(each - step % each for each in self.trees.renewals)
        scores = []
        for begin in range(0, len(x), most):
            kept = {name: value.copy() for name, value in (self.trees.state or {}).items()}
            scores.append(self.trees.update(x[begin : begin + most]))
            self.trees.state = self.trees.move_on(kept, self.trees.state or {})
        return np.concatenate(scores)[:, 0] if scores else np.zeros(0)


class BasicForest:
    """The isolation forest of PyOD, or the one of scikit-learn that it wraps, frozen."""

    def __init__(self, learned: Transactions) -> None:
        check_learned(learned)
        self.features = PaymentFeatures(learned)
        x = self.features.rows(learned)
        self.model: Any
        if find_spec("pyod"):
            from pyod.models.iforest import IForest

            self.model = IForest(**FOREST).fit(x)
            self._outlying = self.model.decision_function
        elif find_spec("sklearn"):
            from sklearn.ensemble import IsolationForest

            self.model = IsolationForest(**FOREST).fit(x)
            self._outlying = lambda rows: -self.model.score_samples(rows)
        else:
            raise ValueError(MISSING_FOREST)
        self.ordered = np.sort(self._outlying(x))

    def update(self, transactions: Transactions) -> np.ndarray:
        """Return the |z| that is as rare as the row is among the learned ones, (n,)."""
        outlying = self._outlying(self.features.rows(transactions))
        n = len(self.ordered)
        above = n - np.searchsorted(self.ordered, outlying)
        # beyond all that was learned it grows with the distance
        span = self.ordered[-1] - self.ordered[n // 2]
        beyond = np.maximum(outlying - self.ordered[-1], 0.0) / max(span, 1e-9)
        score: np.ndarray = bits_to_deviations(np.log2((n + 1) / (above + 0.5))) + beyond
        return score
