"""Metrics of scores and alarms against labels: precision, recall, delay, curves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detectors import Verdict
from streams import KINDS

HIT_TOLERANCE = 10  # steps after the last of an event in which an alarm still hits it
THRESHOLD_GRID = np.round(
    np.arange(1.5, 12.05, 0.1), 1
)  # standard deviations, what a best one is chosen from: the slider's own positions
QUIET, CAUGHT, FALSE_ALARM, MISSED_ROW, IN_GAP = range(
    5
)  # what became of a row; IN_GAP: flagged, but the row is a gap and counts nowhere
_GAP = KINDS.index("dropout")


class RowTruth(NamedTuple):
    """What the labels say of each row."""

    anomalous: np.ndarray  # (steps,) bool, any feature of any kind but a dropout
    judged: (
        np.ndarray
    )  # (steps,) bool, False where a dropout is all there is: in nobody's recall or precision


class Metrics(NamedTuple):
    """How well one threshold did; NaN: undefined, None: no labels (times, for what is counted per
    day).
    """

    steps: int
    unscored: int  # rows without an opinion; an anomalous one of them counts as missed
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
    delay: float | None = (
        None  # steps from the first of an event to its first alarm, mean over the hit ones
    )
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
    """One curve over all thresholds there are, from the strictest to the loosest, with its area."""

    x: np.ndarray  # (n,) false-positive rate, or recall
    y: np.ndarray  # (n,) true-positive rate, or precision
    area: float  # NaN where one of the two classes is empty


class EventOutcome(NamedTuple):
    """What became of one event."""

    first: int  # step
    last: int  # step
    delay: float  # steps from its first to the first alarm, NaN: none
    open: bool  # no alarm yet, and one could still come in time


def row_truth(label: np.ndarray | None) -> RowTruth | None:
    """Fold (steps, features) kinds into the truth of rows; None when there are no labels.

    >>> row_truth(np.array([[0, 0], [1, 7], [0, 7]]))
    Truth(anomalous=array([False,  True, False]), judged=array([ True,  True, False]))
    """
    if label is None:
        return None
    kinds = label[:, None] if label.ndim == 1 else label  # (steps, features), index into KINDS
    gap = kinds == _GAP
    anomalous = ((kinds != 0) & ~gap).any(axis=1)
    return RowTruth(anomalous, anomalous | ~gap.any(axis=1))


def event_runs(truth: np.ndarray) -> np.ndarray:
    """First and last step of each run of truth, (events, 2).

    >>> event_runs(np.array([True, True, False, True]))
    array([[0, 1], [3, 3]])
    """
    edges = np.diff(np.concatenate([[False], truth, [False]]).astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1], axis=1)


def row_scores(scores: np.ndarray) -> np.ndarray:
    """The score of each row, (steps,), of scores (steps, features): their maximum, NaN where none
    has an opinion.
    """
    rows: np.ndarray = np.fmax.reduce(scores, axis=1)
    return rows


def most_anomalous_feature(verdict: Verdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, feature, expected) of each row, all (steps,), of a verdict on (steps, features): the
    strangest feature speaks for the row.
    """
    parts = verdict.score if verdict.parts is None else verdict.parts[:, 0]  # (steps, features)
    feature = np.where(np.isnan(parts), -1.0, parts).argmax(axis=1)
    expected = (
        np.full(len(parts), np.nan)
        if verdict.centre is None
        else verdict.centre[np.arange(len(parts)), feature]
    )
    return row_scores(verdict.score), feature, expected


def compute_metrics(
    score: np.ndarray,
    alarm: np.ndarray,
    label: np.ndarray | None,
    threshold: float,
    time: np.ndarray | None = None,
) -> Metrics:
    """Count row scores and alarm scores, both (steps,) with NaN for no opinion, against labels
    (steps, features) at one threshold.

    time: (steps,) seconds, for what is counted per day: days are those from the earliest time to
    the latest.
    """
    called = alarm > threshold
    days = _days(time)
    a_day = None if days is None else _ratio(called.sum(), days)
    seen = Metrics(
        len(score),
        int(np.isnan(score).sum()),
        int((score > threshold).sum()),
        int(called.sum()),
        a_day,
    )
    truth = row_truth(label)
    if truth is None:
        return seen
    flagged = score > threshold
    right = (flagged & truth.anomalous).sum()
    wrong = (flagged & truth.judged & ~truth.anomalous).sum()
    delays = _delays(called, event_runs(truth.anomalous))  # (events,) steps, NaN: missed
    hits = int((~np.isnan(delays)).sum())
    false = int((called & _outside(truth)).sum())
    return seen._replace(
        **_named("row", right, wrong, truth.anomalous.sum()),
        **_named("event", hits, false, len(delays)),
        events=len(delays),
        hits=hits,
        false_alarms=false,
        delay=_ratio(np.nansum(delays), hits),
        false_alarms_per_day=None if days is None else _ratio(false, days),
    )


def threshold_curve(
    score: np.ndarray,
    alarm: np.ndarray,
    label: np.ndarray | None,
    thresholds: np.ndarray = THRESHOLD_GRID,
) -> ThresholdCurve:
    """What `judge` counts, at every threshold in one pass: sort once, then look each threshold up."""
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
            **_named("row", right, wrong, truth.anomalous.sum()),
            **_named("event", hits, false, len(runs)),
            hits=hits,
            false_alarms=false,
        )


def best_threshold(points: ThresholdCurve, by: str = "event") -> float | None:
    """The threshold with the best F1 of "event"s or "row"s, the middle one of those that tie; None
    where no F1 exists.
    """
    f1 = points.event_f1 if by == "event" else points.row_f1
    if f1 is None or not np.isfinite(f1).any():
        return None
    best = np.flatnonzero(f1 == np.nanmax(f1))
    return float(points.thresholds[best[len(best) // 2]])


def threshold_for_rate(score: np.ndarray, rate: float) -> float:
    """The lowest of the scores that at most `rate` of the scored rows are above (0.01: about 1 % of
    steps); NaN without a score.

    >>> threshold_for_rate(np.arange(200.0), 0.01)
    197.0
    """
    if not 0 <= rate < 1:
        raise ValueError(
            f"rate must be a share of the steps, from 0 to below 1, got {rate}; 0.01 "
            "is one step in a hundred"
        )
    known = np.sort(score[~np.isnan(score)])
    return float(known[-1 - int(rate * len(known) + 1e-9)]) if len(known) else float("nan")


def row_outcomes(
    score: np.ndarray, label: np.ndarray | None, threshold: float
) -> np.ndarray | None:
    """What became of each row, (steps,) int8: QUIET, CAUGHT, FALSE, MISSED or IN_GAP; None without
    labels.
    """
    truth = row_truth(label)
    if truth is None:
        return None
    flagged = score > threshold
    cases = [flagged & truth.anomalous, flagged & truth.judged, truth.anomalous, flagged]
    return np.select(
        cases,
        [np.int8(CAUGHT), np.int8(FALSE_ALARM), np.int8(MISSED_ROW), np.int8(IN_GAP)],
        np.int8(QUIET),
    )


def event_outcomes(
    alarm: np.ndarray, label: np.ndarray | None, threshold: float
) -> list[EventOutcome]:
    """What became of each event, in order of time; empty without labels."""
    truth = row_truth(label)
    if truth is None:
        return []
    runs = event_runs(truth.anomalous)
    delays = _delays(alarm > threshold, runs)
    return [
        EventOutcome(
            int(a), int(b), float(d), bool(np.isnan(d) and b + HIT_TOLERANCE >= len(alarm))
        )
        for (a, b), d in zip(runs, delays)
    ]


def false_alarm_steps(alarm: np.ndarray, label: np.ndarray | None, threshold: float) -> np.ndarray:
    """The steps of the alarms in no event, in order; none without labels."""
    truth = row_truth(label)
    return (
        np.flatnonzero((alarm > threshold) & _outside(truth)) if truth else np.zeros(0, dtype=int)
    )


def last_event_outcome(
    alarm: np.ndarray, label: np.ndarray | None, threshold: float, step: int | None = None
) -> EventOutcome | None:
    """The fate of the event that holds `step`, an injected one say, or of the newest; None when
    there is no such event.
    """
    found = event_outcomes(alarm, label, threshold)
    if step is not None:
        found = [fate for fate in found if fate.first <= step <= fate.last]
    return found[-1] if found else None


def roc_curve(score: np.ndarray, label: np.ndarray) -> RankedCurve:
    """True-positive against false-positive rate over rows, a row without an opinion ranking last;
    the area is the ROC AUC.
    """
    right, wrong = _ranking(score, label)
    if not right[-1] or not wrong[-1]:
        return RankedCurve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), float("nan"))
    x = np.append(0, wrong) / wrong[-1]
    y = np.append(0, right) / right[-1]
    return RankedCurve(x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)))


def precision_recall_curve(score: np.ndarray, label: np.ndarray) -> RankedCurve:
    """Precision against recall over rows, a row without an opinion ranking last; the area is the
    average precision (by steps).
    """
    right, wrong = _ranking(score, label)
    if not right[-1]:
        return RankedCurve(np.array([0.0, 1.0]), np.array([float("nan")] * 2), float("nan"))
    x = right / right[-1]
    y = right / (right + wrong)
    return RankedCurve(
        np.append(0, x), np.append(y[0], y), float(np.sum(np.diff(x, prepend=0) * y))
    )


def _ranking(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anomalous and other judged rows at or above each distinct score, from the highest down; NaN
    below all.
    """
    truth = row_truth(label)
    assert truth is not None
    ranks = np.where(np.isnan(score), -1.0, score)[truth.judged]
    order = np.argsort(-ranks, kind="stable")
    ends = (
        np.append(np.flatnonzero(np.diff(ranks[order])), len(order) - 1)
        if len(order)
        else np.array([], dtype=int)
    )
    right = np.cumsum(truth.anomalous[truth.judged][order])[ends]
    wrong = ends + 1 - right
    return (right, wrong) if len(ends) else (np.zeros(1, dtype=int), np.zeros(1, dtype=int))


def _named(what: str, right: Any, wrong: Any, wanted: Any) -> dict[str, Any]:
    """Precision, recall and F1 under the names they have in Figures and Curve."""
    return {
        f"{what}_precision": _ratio(right, right + wrong),
        f"{what}_recall": _ratio(right, wanted),
        f"{what}_f1": _ratio(2 * right, right + wrong + wanted),
    }


def _ratio(part: Any, whole: Any) -> Any:
    """part / whole, NaN for 0 / 0 and for a whole of 0."""
    if np.ndim(part) == 0 and np.ndim(whole) == 0:
        return float(part / whole) if whole else float("nan")
    whole = np.broadcast_to(whole, np.shape(part))
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def _days(time: np.ndarray | None) -> float | None:
    return None if time is None else float(np.ptp(time)) / 86_400 if len(time) else 0.0


def _above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values are above each threshold; NaN never is."""
    known = np.sort(values[~np.isnan(values)])
    above: np.ndarray = len(known) - np.searchsorted(known, thresholds, side="right")
    return above


def _ends(runs: np.ndarray, steps: int) -> np.ndarray:
    """The first step too late to hit each event, (events,)."""
    ends: np.ndarray = np.minimum(runs[:, 1] + HIT_TOLERANCE + 1, steps)
    return ends


def _peaks(alarm: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The highest alarm score in reach of each event, (events,), -inf where there is none."""
    if not len(runs):
        return np.zeros(0)
    spans = np.stack([runs[:, 0], _ends(runs, len(alarm))], axis=1).ravel()
    peaks: np.ndarray = np.maximum.reduceat(
        np.append(np.where(np.isnan(alarm), -np.inf, alarm), -np.inf), spans
    )[::2]
    return peaks


def _delays(called: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Steps from the first of each event to its first alarm, (events,), NaN where none is in reach."""
    steps = np.append(
        np.flatnonzero(called), len(called) + HIT_TOLERANCE
    )  # the last one: never in reach
    first = steps[np.searchsorted(steps, runs[:, 0])]
    return np.where(first < _ends(runs, len(called)), first - runs[:, 0], np.nan)


def _outside(truth: RowTruth) -> np.ndarray:
    """Judged steps in reach of no event, (steps,) bool: an alarm there is false."""
    steps = len(truth.anomalous)
    runs = event_runs(truth.anomalous)
    change = np.zeros(steps + 1, dtype=int)
    np.add.at(change, runs[:, 0], 1)
    np.add.at(change, _ends(runs, steps), -1)
    outside: np.ndarray = truth.judged & (np.cumsum(change[:-1]) == 0)
    return outside
