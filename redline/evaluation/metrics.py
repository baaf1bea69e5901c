"""Metrics of scores and alarms against labels: precision, recall, delay, curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from detectors import Verdict
from streams import KINDS

HIT_TOLERANCE = 10  # steps after the last of an event in which an alarm still hits it
# standard deviations; the best threshold is chosen from these, the positions of the page's slider
THRESHOLD_GRID = np.round(np.arange(1.5, 12.05, 0.1), 1)
# outcomes of a row; IN_GAP = flagged, but the row is a gap, which no metric counts
QUIET, CAUGHT, FALSE_ALARM, MISSED_ROW, IN_GAP = range(5)
_GAP = KINDS.index("dropout")


class RowTruth(NamedTuple):
    """The labels of all features, joined to one truth for each row."""

    anomalous: np.ndarray  # (steps,) bool, any feature of any kind but a dropout
    judged: np.ndarray  # (steps,) bool, False where the only label is a dropout: not counted


class Metrics(NamedTuple):
    """Metrics at one threshold; NaN = undefined.

    None = no labels, or no times for what is counted per day.
    """

    steps: int
    unscored: int  # rows without a score; an anomalous one of them counts as missed
    anomalies: int  # rows with a score above the threshold
    alarms: int  # rows with an alarm score above it
    alarms_per_day: float | None
    row_precision: float | None = None
    row_recall: float | None = None
    row_f1: float | None = None
    events: int | None = None
    hits: int | None = None  # events with an alarm
    false_alarms: int | None = None  # alarms in no event
    event_precision: float | None = None  # hits / (hits + false alarms)
    event_recall: float | None = None
    event_f1: float | None = None
    delay: float | None = None  # steps from an event's first to its first alarm, mean over hits
    false_alarms_per_day: float | None = None


class ThresholdCurve(NamedTuple):
    """Counts, precision, recall and F1 at each of many thresholds; None without labels."""

    thresholds: np.ndarray  # (n,), standard deviations; every other array has this shape
    anomalies: np.ndarray
    alarms: np.ndarray
    row_precision: np.ndarray | None = None
    row_recall: np.ndarray | None = None
    row_f1: np.ndarray | None = None
    hits: np.ndarray | None = None
    false_alarms: np.ndarray | None = None
    event_precision: np.ndarray | None = None
    event_recall: np.ndarray | None = None
    event_f1: np.ndarray | None = None


class RankedCurve(NamedTuple):
    """A curve over all distinct scores as thresholds, from the highest down, with its area."""

    x: np.ndarray  # (n,) false-positive rate, or recall
    y: np.ndarray  # (n,) true-positive rate, or precision
    area: float  # NaN where one of the two classes is empty


class EventOutcome(NamedTuple):
    """Whether and when one event was hit."""

    first: int  # step
    last: int  # step
    delay: float  # steps from its first to the first alarm, NaN = no alarm
    open: bool  # no alarm yet, and an alarm on a later row could still hit it


def row_truth(label: np.ndarray | None) -> RowTruth | None:
    """Join labels (steps, features) to the truth of rows; None without labels.

    >>> row_truth(np.array([[0, 0], [1, 7], [0, 7]]))
    RowTruth(anomalous=array([False,  True, False]), judged=array([ True,  True, False]))
    """
    if label is None:
        return None
    kinds = label[:, None] if label.ndim == 1 else label  # (steps, features), index into KINDS
    gap = kinds == _GAP
    anomalous = ((kinds != 0) & ~gap).any(axis=1)
    return RowTruth(anomalous, anomalous | ~gap.any(axis=1))


def event_runs(truth: np.ndarray) -> np.ndarray:
    """Return the first and last step of each run of True, (events, 2).

    >>> event_runs(np.array([True, True, False, True]))
    array([[0, 1], [3, 3]])
    """
    edges = np.diff(np.concatenate([[False], truth, [False]]).astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1], axis=1)


def row_scores(scores: np.ndarray) -> np.ndarray:
    """Return the maximum score of each row, (steps,), of scores (steps, features).

    A row is NaN where all its scores are NaN.
    """
    rows: np.ndarray = np.fmax.reduce(scores, axis=1)
    return rows


def most_anomalous_feature(verdict: Verdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (score, feature, expected) of each row, all (steps,), of a verdict.

    feature: the one with the highest part of the score; expected: its centre, NaN = none.
    """
    parts = verdict.score if verdict.parts is None else verdict.parts[:, 0]  # (steps, features)
    feature = np.where(np.isnan(parts), -1.0, parts).argmax(axis=1)
    expected = (
        np.full(len(parts), np.nan)
        if verdict.centre is None
        else verdict.centre.reshape(parts.shape)[np.arange(len(parts)), feature]
    )
    return row_scores(verdict.score), feature, expected


def compute_metrics(
    score: np.ndarray,
    alarm: np.ndarray,
    label: np.ndarray | None,
    threshold: float,
    time: np.ndarray | None = None,
) -> Metrics:
    """Return the metrics at one threshold.

    Args:
        score: (steps,) score of each row, NaN = no opinion
        alarm: (steps,) alarm score of each row, NaN = no opinion
        label: (steps, features) index into KINDS; None = no labels
        threshold: standard deviations
        time: (steps,) seconds; a rate per day divides by the days from the earliest to the latest
    """
    flagged = score > threshold
    raised = alarm > threshold
    days = _days(time)
    counts = Metrics(
        steps=len(score),
        unscored=int(np.isnan(score).sum()),
        anomalies=int(flagged.sum()),
        alarms=int(raised.sum()),
        alarms_per_day=None if days is None else ratio(raised.sum(), days),
    )
    truth = row_truth(label)
    if truth is None:
        return counts
    right = (flagged & truth.anomalous).sum()
    wrong = (flagged & truth.judged & ~truth.anomalous).sum()
    delays = _delays(raised, event_runs(truth.anomalous))  # (events,) steps, NaN = missed
    hits = int((~np.isnan(delays)).sum())
    false = int((raised & _outside(truth)).sum())
    return counts._replace(
        **_precision_recall_f1("row", right, wrong, truth.anomalous.sum(), ratio),
        **_precision_recall_f1("event", hits, false, len(delays), ratio),
        events=len(delays),
        hits=hits,
        false_alarms=false,
        delay=ratio(np.nansum(delays), hits),
        false_alarms_per_day=None if days is None else ratio(false, days),
    )


def threshold_curve(
    score: np.ndarray,
    alarm: np.ndarray,
    label: np.ndarray | None,
    thresholds: np.ndarray = THRESHOLD_GRID,
) -> ThresholdCurve:
    """Return the metrics of `compute_metrics` at every threshold.

    Scores are sorted once; each threshold is then a binary search.
    """
    thresholds = np.asarray(thresholds, dtype=float)
    counts = ThresholdCurve(thresholds, _above(score, thresholds), _above(alarm, thresholds))
    truth = row_truth(label)
    if truth is None:
        return counts
    runs = event_runs(truth.anomalous)
    right = _above(score[truth.anomalous], thresholds)
    wrong = _above(score[truth.judged & ~truth.anomalous], thresholds)
    hits = _above(_peaks(alarm, runs), thresholds)
    false = _above(alarm[_outside(truth)], thresholds)
    with np.errstate(invalid="ignore"):
        return counts._replace(
            **_precision_recall_f1("row", right, wrong, truth.anomalous.sum(), ratios),
            **_precision_recall_f1("event", hits, false, len(runs), ratios),
            hits=hits,
            false_alarms=false,
        )


def best_threshold(points: ThresholdCurve, by: str = "event") -> float | None:
    """Return the threshold with the best F1, the middle one of those that tie.

    by: "event" or "row". None where no F1 is defined.
    """
    f1 = points.event_f1 if by == "event" else points.row_f1
    if f1 is None or not np.isfinite(f1).any():
        return None
    best = np.flatnonzero(f1 == np.nanmax(f1))
    return float(points.thresholds[best[len(best) // 2]])


def threshold_for_rate(score: np.ndarray, rate: float) -> float:
    """Return the lowest score that at most `rate` of the scored rows exceed; NaN without a score.

    rate: a share of the rows, from 0 to below 1; ValueError for any other.

    >>> threshold_for_rate(np.arange(200.0), 0.01)
    197.0
    """
    if not 0 <= rate < 1:
        raise ValueError(
            f"rate must be a share of the steps, from 0 to below 1, got {rate}; "
            "0.01 is one step in a hundred"
        )
    known = np.sort(score[~np.isnan(score)])
    if not len(known):
        return float("nan")
    above = int(rate * len(known) + 1e-9)  # how many scores may exceed the threshold
    return float(known[-1 - above])


def row_outcomes(
    score: np.ndarray, label: np.ndarray | None, threshold: float
) -> np.ndarray | None:
    """Return the outcome of each row, (steps,) int8; None without labels.

    One of QUIET, CAUGHT, FALSE_ALARM, MISSED_ROW and IN_GAP.
    """
    truth = row_truth(label)
    if truth is None:
        return None
    flagged = score > threshold
    # the first condition that holds decides
    conditions = [flagged & truth.anomalous, flagged & truth.judged, truth.anomalous, flagged]
    codes = [np.int8(code) for code in (CAUGHT, FALSE_ALARM, MISSED_ROW, IN_GAP)]
    return np.select(conditions, codes, np.int8(QUIET))


def event_outcomes(
    alarm: np.ndarray, label: np.ndarray | None, threshold: float
) -> list[EventOutcome]:
    """Return the outcome of each event in order of time; empty without labels."""
    truth = row_truth(label)
    if truth is None:
        return []
    runs = event_runs(truth.anomalous)
    delays = _delays(alarm > threshold, runs)
    last_chance = runs[:, 1] + HIT_TOLERANCE  # (events,) last step that would hit the event
    still_open = np.isnan(delays) & (last_chance >= len(alarm))
    return [
        EventOutcome(first, last, delay, is_open)
        for (first, last), delay, is_open in zip(
            runs.tolist(), delays.tolist(), still_open.tolist()
        )
    ]


def false_alarm_steps(alarm: np.ndarray, label: np.ndarray | None, threshold: float) -> np.ndarray:
    """Return the steps of the alarms in no event, in order; empty without labels."""
    truth = row_truth(label)
    if truth is None:
        return np.zeros(0, dtype=int)
    return np.flatnonzero((alarm > threshold) & _outside(truth))


def last_event_outcome(
    alarm: np.ndarray, label: np.ndarray | None, threshold: float, step: int | None = None
) -> EventOutcome | None:
    """Return the outcome of the event that contains `step`, or of the newest where it is None.

    None where there is no such event.
    """
    found = event_outcomes(alarm, label, threshold)
    if step is not None:
        found = [event for event in found if event.first <= step <= event.last]
    return found[-1] if found else None


def roc_curve(score: np.ndarray, label: np.ndarray) -> RankedCurve:
    """Return the true-positive against the false-positive rate over rows; its area is the ROC AUC.

    A row without a score ranks last.
    """
    right, wrong = _cumulative_counts(score, label)
    if not right[-1] or not wrong[-1]:
        return RankedCurve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), float("nan"))
    x = np.append(0, wrong) / wrong[-1]
    y = np.append(0, right) / right[-1]
    return RankedCurve(x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)))


def precision_recall_curve(score: np.ndarray, label: np.ndarray) -> RankedCurve:
    """Return precision against recall over rows; its area is the average precision (by steps).

    A row without a score ranks last.
    """
    right, wrong = _cumulative_counts(score, label)
    if not right[-1]:
        return RankedCurve(np.array([0.0, 1.0]), np.array([float("nan")] * 2), float("nan"))
    x = right / right[-1]
    y = right / (right + wrong)
    area = float(np.sum(np.diff(x, prepend=0) * y))
    return RankedCurve(np.append(0, x), np.append(y[0], y), area)


def _cumulative_counts(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count anomalous and other judged rows at or above each distinct score, from the highest down.

    Returns two arrays (distinct scores,); NaN counts as a score below all.
    """
    truth = row_truth(label)
    assert truth is not None
    ranks = np.where(np.isnan(score), -1.0, score)[truth.judged]  # (judged rows,)
    if not len(ranks):
        return np.zeros(1, dtype=int), np.zeros(1, dtype=int)
    order = np.argsort(-ranks, kind="stable")
    # the last row of each run of equal scores: (judged rows,) -> (distinct scores,)
    ends = np.append(np.flatnonzero(np.diff(ranks[order])), len(order) - 1)
    right = np.cumsum(truth.anomalous[truth.judged][order])[ends]
    return right, ends + 1 - right


def _precision_recall_f1(
    unit: str, right: Any, wrong: Any, wanted: float, divide: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    """Return precision, recall and F1 as fields for a unit, "row" or "event".

    right, wrong: detections that are true and false; wanted: how many there are to detect. divide:
    `ratio` for the numbers of Metrics, `ratios` for the arrays of a ThresholdCurve.
    """
    return {
        f"{unit}_precision": divide(right, right + wrong),
        f"{unit}_recall": divide(right, wanted),
        f"{unit}_f1": divide(2 * right, right + wrong + wanted),
    }


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN where whole is 0."""
    return float(part / whole) if whole else float("nan")


def ratios(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """Return part / whole elementwise, same shape as `part`, NaN where whole is 0."""
    whole = np.broadcast_to(whole, part.shape)
    shares: np.ndarray = np.full(part.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole != 0)
    return shares


def _days(time: np.ndarray | None) -> float | None:
    """Return the days from the earliest time (seconds) to the latest; None without times."""
    if time is None:
        return None
    return float(np.ptp(time)) / 86_400 if len(time) else 0.0


def _above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the values above each threshold, (thresholds,); NaN is never above."""
    known = np.sort(values[~np.isnan(values)])
    above: np.ndarray = len(known) - np.searchsorted(known, thresholds, side="right")
    return above


def event_ends(runs: np.ndarray, steps: int) -> np.ndarray:
    """Return the first step too late to hit each event, (events,), at most `steps`."""
    ends: np.ndarray = np.minimum(runs[:, 1] + HIT_TOLERANCE + 1, steps)
    return ends


def _peaks(alarm: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Return the highest alarm score that hits each event, (events,), -inf = none."""
    if not len(runs):
        return np.zeros(0)
    # first and end of each event in turn, (2 * events,): every second segment is an event's
    spans = np.stack([runs[:, 0], event_ends(runs, len(alarm))], axis=1).ravel()
    padded = np.append(np.where(np.isnan(alarm), -np.inf, alarm), -np.inf)
    peaks: np.ndarray = np.maximum.reduceat(padded, spans)[::2]
    return peaks


def _delays(raised: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Return steps from the first of each event to its first alarm, (events,), NaN = not hit.

    raised: (steps,) bool, whether there is an alarm.
    """
    # the last entry, too late for any event, stands for "no alarm"
    steps = np.append(np.flatnonzero(raised), len(raised) + HIT_TOLERANCE)
    first = steps[np.searchsorted(steps, runs[:, 0])]  # (events,)
    return np.where(first < event_ends(runs, len(raised)), first - runs[:, 0], np.nan)


def _outside(truth: RowTruth) -> np.ndarray:
    """Return the judged steps that hit no event, (steps,) bool: an alarm there is false."""
    steps = len(truth.anomalous)
    runs = event_runs(truth.anomalous)
    change = np.zeros(steps + 1, dtype=int)  # +1 where an event begins, -1 where it can't be hit
    np.add.at(change, runs[:, 0], 1)
    np.add.at(change, event_ends(runs, steps), -1)
    outside: np.ndarray = truth.judged & (np.cumsum(change[:-1]) == 0)
    return outside
