"""Measures of a score against labels: average precision, VUS-PR, F1 at a false-alarm rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.corpora import runs


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the precision-recall steps, equal scores together, NaN scores last.

    >>> round(average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])), 4)
    0.8333
    >>> average_precision(np.zeros(10), np.arange(10) < 3)
    0.3
    """  # noqa: E501
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    hits = np.cumsum(truth[order])
    last = np.append(ranked[1:] != ranked[:-1], True)
    precision = (hits / np.arange(1, len(hits) + 1))[last]
    recall = hits[last] / max(hits[-1], 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def soft_labels(truth: np.ndarray, reach: int) -> np.ndarray:
    """Return 1 inside an event, sqrt(1 - distance / (reach + 1)) up to `reach` steps beside it."""
    steps = np.arange(len(truth))
    soft = truth.astype(float)
    for first, last in runs(truth):
        away = np.maximum(np.maximum(first - steps, steps - last), 0)
        slope = np.sqrt(np.clip(1 - away / (reach + 1), 0, 1))
        soft = np.maximum(soft, np.where(away <= reach, slope, 0.0))
    return soft


def range_pr(score: np.ndarray, truth: np.ndarray, reach: int, thresholds: np.ndarray) -> float:
    """Return the area under range precision and recall, labels softened over `reach` steps.

    Recall is weighted by the share of events with any detection.
    """
    soft = soft_labels(truth, reach)
    order = np.argsort(score, kind="stable")
    above = np.append(np.cumsum(soft[order][::-1])[::-1], 0.0)
    place = np.searchsorted(score[order], thresholds, side="left")
    hits = above[place]
    raised = len(score) - place
    highest = np.array([score[max(0, a - reach) : b + reach + 1].max() for a, b in runs(truth)])
    existence = (highest[:, None] >= thresholds).mean(axis=0)
    recall = np.minimum(hits / ((truth.sum() + soft.sum()) / 2), 1.0) * existence
    precision = hits / np.maximum(raised, 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def vus_pr(score: np.ndarray, truth: np.ndarray, widest: int = 100) -> float:
    """Return the volume under the precision-recall surface.

    That is the mean area over reaches from 0 to the median event, `widest` steps at most. Source:
    J. Paparrizos et al., Volume Under the Surface, 2022; 250 thresholds at equal ranks, 10 reaches.
    """
    score = np.where(np.isnan(score), -np.inf, score)
    found = runs(truth)
    if not found:
        return float("nan")
    most = int(min(widest, np.median([b - a + 1 for a, b in found])))
    thresholds = np.unique(np.sort(score)[np.linspace(0, len(score) - 1, 250).astype(int)])[::-1]
    return float(
        np.mean(
            [range_pr(score, truth, int(reach), thresholds) for reach in np.linspace(0, most, 10)]
        )
    )


def counts(
    scores: Sequence[np.ndarray], truths: Sequence[np.ndarray], thresholds: np.ndarray
) -> np.ndarray:
    """Return counts at scores of at least each threshold, (runs, 4, thresholds).

    The four: hits, false alarms, anomalous rows, other rows.
    """
    found = np.zeros((len(scores), 4, len(thresholds)))
    for i, (score, truth) in enumerate(zip(scores, truths)):
        score = np.where(np.isnan(score), -np.inf, score)
        for row, part in enumerate((np.sort(score[truth]), np.sort(score[~truth]))):
            found[i, row] = len(part) - np.searchsorted(part, thresholds)
            found[i, 2 + row] = len(part)
    return found


def f1_at_rate(
    scores: Sequence[np.ndarray], truths: Sequence[np.ndarray], rate: float = 0.25, splits: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Return (F1, false-alarm rate) on halves of the runs, each (2 * splits,).

    The threshold is the best of the other half among those at or under the rate.
    """
    known = np.concatenate(scores)
    levels = np.unique(known[np.isfinite(known)])
    thresholds = np.append(
        levels[np.unique(np.linspace(0, len(levels) - 1, 1000).astype(int))], np.inf
    )
    table = counts(scores, truths, thresholds)
    rng = np.random.default_rng(0)
    found = []

    def judged(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits, false, anomalous, calm = table[half].sum(axis=0)
        return 2 * hits / (hits + false + anomalous), false / calm

    for _ in range(splits):
        shuffled = rng.permutation(len(scores))
        a = judged(shuffled[::2])
        b = judged(shuffled[1::2])
        for (f1, alarms), other in ((a, b), (b, a)):
            best = int(np.argmax(np.where(alarms <= rate, f1, -1.0)))
            found.append((other[0][best], other[1][best]))
    f1, alarms = np.array(found).T
    return f1, alarms


def event_counts(
    alarms: Sequence[np.ndarray],
    windows: Sequence[Sequence[tuple[int, int]]],
    learns: Sequence[int],
    thresholds: np.ndarray,
    tolerance: int,
) -> np.ndarray:
    """Return events hit, false alarms and events of each series, (series, 3, thresholds).

    An event is hit by an alarm of at least the threshold from its first step to `tolerance` after
    its last; every other alarm is false. The first `learn` steps are not judged.
    """
    found = np.zeros((len(alarms), 3, len(thresholds)))
    for i, (alarm, spans, learn) in enumerate(zip(alarms, windows, learns)):
        alarm = np.where(np.isnan(alarm), 0.0, alarm)
        outside = np.arange(len(alarm)) >= learn
        for first, last in spans:
            outside[first : last + tolerance + 1] = False
            judged = alarm[max(first, learn) : last + tolerance + 1]
            if last >= learn:
                found[i, 0] += judged.max() >= thresholds
                found[i, 2] += 1
        false = np.sort(alarm[outside])
        found[i, 1] = len(false) - np.searchsorted(false, thresholds)
    return found


def event_f1(
    alarms: Sequence[np.ndarray],
    windows: Sequence[Sequence[tuple[int, int]]],
    learns: Sequence[int],
    tolerance: int = 10,
    fixed: float = 3.5,
    splits: int = 50,
) -> tuple[np.ndarray, float]:
    """Return the event-F1 of each half at the best threshold of the other, and at a fixed one.

    The halves are (2 * splits,), of the series drawn at random.
    """
    levels = np.unique(np.concatenate([a[np.isfinite(a) & (a > 0)] for a in alarms]))
    places = np.unique(np.linspace(0, len(levels) - 1, 1000).astype(int))
    thresholds = np.append(levels[places], np.inf)
    table = event_counts(alarms, windows, learns, thresholds, tolerance)
    at_fixed = event_counts(alarms, windows, learns, np.array([fixed]), tolerance)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        shuffled = rng.permutation(len(alarms))
        a, b = (_f1_of_counts(table[half].sum(axis=0)) for half in (shuffled[::2], shuffled[1::2]))
        found += [b[np.argmax(a)], a[np.argmax(b)]]
    return np.array(found), float(_f1_of_counts(at_fixed.sum(axis=0))[0])


def _f1_of_counts(counts: np.ndarray) -> np.ndarray:
    hits, false, events = counts
    return np.asarray(2 * hits / np.maximum(hits + false + events, 1))


def interval(
    values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean, draws: int = 2000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a statistic over rows drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(0, len(values), (draws, len(values)))]
    low, high = np.quantile(statistic(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)
