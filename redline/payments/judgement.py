"""How well scores find the anomalous transactions: overall, by kind and by size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from redline.evaluation.metrics import precision_recall_curve
from redline.payments.transactions import ANOMALY_SIZES, PAYMENT_KINDS, PaymentTruth

PRECISION = 0.9  # that a threshold is chosen for


class PaymentFigures(NamedTuple):
    """Figures of some transactions at a threshold."""

    name: str
    anomalies: int
    average_precision: float  # NaN without anomalies
    precision: float  # NaN where nothing is flagged
    recall: float


def average_precision(score: np.ndarray, anomalous: np.ndarray) -> float:
    """Return the area under precision against recall; NaN without an anomaly."""
    return precision_recall_curve(score, anomalous.astype(np.int8)[:, None]).area


def threshold_for_precision(
    score: np.ndarray, anomalous: np.ndarray, wanted: float = PRECISION
) -> float:
    """Return the lowest threshold above which so large a share is anomalous; infinity if none.

    >>> threshold_for_precision(np.array([4.0, 3, 2, 1]), np.array([1, 1, 0, 0]) > 0)
    3.0
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    share = np.cumsum(anomalous[order]) / np.arange(1, len(order) + 1)
    whole = np.append(ranked[1:] < ranked[:-1], True)  # equal scores are flagged together
    enough = np.flatnonzero((share >= wanted) & whole)
    return float(ranked[enough[-1]]) if len(enough) else float("inf")


def judge_payments(
    score: np.ndarray, truth: PaymentTruth, threshold: float | None = None
) -> list[PaymentFigures]:
    """Return the figures of all anomalies, of each kind, each size, and of plain ones.

    Those of a part leave the other anomalies out, but for the threshold.

    Args:
        score: (n,) higher = more anomalous.
        threshold: a score of it or above is flagged; None: the lowest of a precision of PRECISION.
    """
    anomalous = truth.is_anomaly
    if threshold is None:
        threshold = threshold_for_precision(score, anomalous)
    parts = {"all": anomalous}
    parts |= {kind: (truth.kinds >> bit & 1) > 0 for bit, kind in enumerate(PAYMENT_KINDS)}
    alone = "{} alone".format
    parts |= {alone(kind): truth.kinds == 1 << bit for bit, kind in enumerate(PAYMENT_KINDS)}
    parts |= {size: truth.size == number for number, size in enumerate(ANOMALY_SIZES)}
    parts["plain"] = truth.plain
    flagged = score >= threshold
    rows = []
    for name, part in parts.items():
        judged = part | ~anomalous
        found = np.count_nonzero(flagged & part)
        taken = np.count_nonzero(flagged & judged)
        count = int(np.count_nonzero(part))
        rows.append(
            PaymentFigures(
                name,
                count,
                average_precision(score[judged], part[judged]),
                found / taken if taken else float("nan"),
                found / count if count else float("nan"),
            )
        )
    return rows
