"""The comparison of detectors on one file: trials, ranking, suggested settings.

Rows and events are counted apart. A *row* is caught where its score is above the threshold. An
*event*, a run of anomalous rows, is hit by an alarm from its first step to 10 after its last;
several alarms in one event count once, alarms in no event are false. Nothing is point-adjusted. An
undefined metric is NaN (precision without detections); one that needs labels is None without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from redline.evaluation.metrics import (
    HIT_TOLERANCE,
    THRESHOLD_GRID,
    Metrics,
    RankedCurve,
    ThresholdCurve,
    best_threshold,
    compute_metrics,
    event_ends,
    event_runs,
    false_alarm_steps,
    precision_recall_curve,
    ratio,
    roc_curve,
    row_truth,
    threshold_curve,
)
from streams import Chunk


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun: "1 event", "2 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class TrialResult(NamedTuple):
    """The output of a detector for every row."""

    score: np.ndarray  # (steps,), NaN = no opinion
    alarm: np.ndarray  # (steps,), NaN = no opinion
    feature: np.ndarray  # (steps,) int, the one with the highest part of the score
    expected: np.ndarray  # (steps,) expected value of that feature, in its unit; NaN = none


class Trial(NamedTuple):
    """One detector with one window, run over a file."""

    detector: str
    window: int  # steps
    result: TrialResult
    micros: float  # microseconds per row

    @property
    def score(self) -> np.ndarray:
        return self.result.score

    @property
    def alarm(self) -> np.ndarray:
        return self.result.alarm


class TrialFailure(NamedTuple):
    """Why one detector with one window could not run."""

    detector: str
    window: int  # steps
    why: str


class FoundAlarm(NamedTuple):
    """One alarm as a report lists it."""

    step: int
    feature: int  # the one with the highest part of the score
    value: float | None  # of that feature, in its unit
    expected: float | None  # None: the detector expects no value
    score: float | None  # standard deviations; None for a joint alarm of several detectors
    false: bool | None  # in no event; None without labels


class EvaluationPlan(NamedTuple):
    """How detectors are compared: thresholds, and the rows to learn and to judge on."""

    threshold: float  # the same for all detectors, before any is tuned
    # settings are learned on the rows before it, judged on those from it on; 0 = both on all rows
    cut: int = 0
    thresholds: np.ndarray = THRESHOLD_GRID  # a detector's best one is chosen from these
    timed: bool = True  # the rows have times; without, nothing is counted per day


class ComparisonEntry(NamedTuple):
    """One detector in the ranking; fields that need labels are None without them."""

    trial: Trial  # under its best window, over all rows
    start: Metrics  # at the plan's threshold, on the judged rows
    threshold: float | None  # the best one on the learning rows
    learned: Metrics | None  # at that threshold, on the learning rows
    best: Metrics | None  # at that threshold, on the judged rows
    points: ThresholdCurve  # metrics against the threshold, on the judged rows
    roc: RankedCurve | None
    precision_recall: RankedCurve | None


class Suggestion(NamedTuple):
    """Suggested settings, with the reason in one sentence."""

    detector: str
    window: int  # steps
    threshold: float
    why: str


TrialScorer = Callable[[str, int, np.ndarray], TrialResult]  # detector, window, x (steps, features)


def learning_rows(label: np.ndarray | None, share: float) -> int:
    """Return how many of the first rows to learn from: a share of all, to the end of an event.

    Raises ValueError without labels, for a share not between 0 and 1, and where no event lies in
    the learning rows or no row is left to judge on.
    """
    truth = row_truth(label)
    if truth is None or not 0 < share < 1:
        raise ValueError(
            f"learning needs labels and a share of the rows between 0 and 1; got {share}"
            + ("" if truth else " and no labels")
        )
    rows = len(truth.anomalous)
    runs = event_runs(truth.anomalous)
    starts = runs[:, 0]
    ends = event_ends(runs, rows)
    cut = round(share * rows)
    while ((starts < cut) & (ends > cut)).any():
        cut = int(ends[starts < cut].max())
    if not (starts < cut).any() or cut == rows:
        raise ValueError(
            f"the first {share:.0%} of {rows:,} rows hold no whole anomaly, or all there is: "
            "choose another share to learn from"
        )
    return cut


def run_trials(
    x: np.ndarray,
    jobs: Iterable[tuple[str, int]],
    scorer: TrialScorer,
    failures: list[TrialFailure],
) -> Iterator[Trial]:
    """Yield a trial for each (detector, window), run over x (steps, features) one at a time.

    One that cannot run is appended to `failures`.
    """
    for detector, window in jobs:
        began = perf_counter()
        try:
            result = scorer(detector, window, x)
        # a wrong setting, a matrix without an inverse, a missing extra
        except (ValueError, ArithmeticError, ImportError) as error:
            failures.append(TrialFailure(detector, window, str(error) or type(error).__name__))
        else:
            micros = (perf_counter() - began) / max(len(x), 1) * 1e6
            yield Trial(detector, window, result, micros)


def rank_trials(
    trials: Iterable[Trial], chunk: Chunk, plan: EvaluationPlan
) -> Iterator[ComparisonEntry]:
    """Yield one entry for each detector, as soon as its windows have run.

    The trials of a detector must be adjacent; the one that is best on the learning rows is kept.
    """
    for _, group in groupby(trials, key=lambda trial: trial.detector):
        best = max(group, key=lambda trial: _learning_quality(trial, chunk.label, plan))
        yield _entry(best, chunk, plan)


def sort_entries(entries: Iterable[ComparisonEntry]) -> list[ComparisonEntry]:
    """Sort by event F1, then average precision, both on the judged rows, then speed; best first.

    Without labels the order stays as it is.
    """

    def rank(entry: ComparisonEntry) -> tuple[float, float, float]:
        curve = entry.precision_recall
        return (
            _descending(entry.best.event_f1 if entry.best else None),
            _descending(curve.area if curve else None),
            entry.trial.micros if entry.best else 0.0,
        )

    return sorted(entries, key=rank)


def suggest_settings(entries: Iterable[ComparisonEntry], plan: EvaluationPlan) -> Suggestion | None:
    """Return the settings with the best event F1 on the learning rows, then row F1, then speed.

    None where no detector hits an event there.
    """
    able = [entry for entry in entries if entry.learned and entry.learned.hits]
    if not able:
        return None
    able.sort(key=_learned_rank)
    best = able[0]
    second = able[1] if len(able) > 1 else None
    threshold = best.threshold or plan.threshold
    why = _suggestion_reason(best, second, plan)
    return Suggestion(best.trial.detector, best.trial.window, threshold, why)


def alarm_agreement(raised: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far detectors agree, (detectors, detectors), NaN = the row has no alarm.

    Each is the share of the row's alarms with one of the column's within HIT_TOLERANCE steps.
    raised: of each detector (steps,) bool, whether there is an alarm.
    """
    near = [_near_alarm(alarms) for alarms in raised]
    return np.array(
        [[ratio((mine & theirs).sum(), mine.sum()) for theirs in near] for mine in raised]
    ).reshape(len(raised), -1)


def joint_alarms(raised: Sequence[np.ndarray]) -> np.ndarray:
    """Return the steps of the alarms that at least half of the detectors share.

    They share an alarm where theirs lie within HIT_TOLERANCE steps; the first of each is returned.
    raised: of each detector (steps,) bool, whether there is an alarm.
    """
    if not raised:
        return np.zeros(0, dtype=int)
    agreed = 2 * np.sum([_near_alarm(alarms) for alarms in raised], axis=0) >= len(raised)
    first = [
        np.flatnonzero(np.any([alarms[a : b + 1] for alarms in raised], axis=0)) + a
        for a, b in event_runs(agreed)
    ]
    return np.array([steps[0] for steps in first if len(steps)], dtype=int)


def list_alarms(trial: Trial, chunk: Chunk, threshold: float) -> list[FoundAlarm]:
    """Return every alarm of a detector, in order of time."""
    false = set(false_alarm_steps(trial.alarm, chunk.label, threshold).tolist())
    return [
        FoundAlarm(
            step,
            int(feature := trial.result.feature[step]),
            _plain(chunk.x[step, feature]),
            _plain(trial.result.expected[step]),
            _plain(trial.score[step]),
            None if chunk.label is None else step in false,
        )
        for step in np.flatnonzero(trial.alarm > threshold).tolist()
    ]


def list_joint_alarms(trials: Sequence[Trial], chunk: Chunk, threshold: float) -> list[FoundAlarm]:
    """Return every joint alarm with the feature that most of the alarms near it name."""
    raised = [trial.alarm > threshold for trial in trials]
    found = []
    for step in joint_alarms(raised).tolist():
        near = slice(max(0, step - HIT_TOLERANCE), step + HIT_TOLERANCE + 1)
        named = np.concatenate(
            [trial.result.feature[near][alarms[near]] for trial, alarms in zip(trials, raised)]
        )
        feature = int(np.bincount(named).argmax())
        found.append(FoundAlarm(step, feature, _plain(chunk.x[step, feature]), None, None, None))
    return found


def _near_alarm(raised: np.ndarray) -> np.ndarray:
    """Return the steps at most HIT_TOLERANCE from an alarm, (steps,) bool."""
    # (steps + 2 * HIT_TOLERANCE,): how many alarms lie within the tolerance
    counts = np.convolve(raised, np.ones(2 * HIT_TOLERANCE + 1), mode="full")
    near: np.ndarray = counts[HIT_TOLERANCE : HIT_TOLERANCE + len(raised)] > 0
    return near


def periodic_baseline(chunk: Chunk, plan: EvaluationPlan, every: int = 100) -> Metrics:
    """Return the metrics, on the judged rows, of an alarm every `every` steps.

    It ignores the data: a detector is useful only if it does better.
    """
    steps = np.arange(len(chunk.x))
    alarm = np.where(steps % every == every - 1, np.inf, 0.0)
    rows = slice(plan.cut, None)
    parts = _select_rows(alarm, alarm, chunk, rows)
    return compute_metrics(*parts, plan.threshold, _times(chunk, plan, rows))


def comparison_document(
    entries: Sequence[ComparisonEntry], chunk: Chunk, plan: EvaluationPlan
) -> dict[str, Any]:
    """Return the comparison as plain values for JSON, NaN as None, in the order of `entries`."""
    best = suggest_settings(entries, plan)
    truth = row_truth(chunk.label)
    matrix = alarm_agreement([entry.trial.alarm[plan.cut :] > plan.threshold for entry in entries])
    rows = [_plain_entry(entry, best) for entry in entries]
    if truth is None:
        for i, row in enumerate(rows):
            others = np.delete(matrix[i], i)
            row["agreement"] = _plain(np.mean(others)) if len(others) else None
    return {
        "rows": len(chunk.x),
        "labels": truth is not None,
        "events": None if truth is None else len(event_runs(truth.anomalous)),
        "learned_rows": plan.cut or None,
        "threshold": plan.threshold,
        "reach": HIT_TOLERANCE,
        "ranking": rows,
        "suggestion": None if best is None else best._asdict(),
        "clock": None if truth is None else _plain(periodic_baseline(chunk, plan)._asdict()),
        "agreement": None if truth is not None else _plain(matrix),
    }


def _plain_entry(entry: ComparisonEntry, best: Suggestion | None) -> dict[str, Any]:
    trial = entry.trial
    return {
        "detector": trial.detector,
        "suggested": best is not None and best.detector == trial.detector,
        "window": trial.window,
        "threshold": entry.threshold,
        "micros": round(trial.micros, 3),
        "start": _plain(entry.start._asdict()),
        "learned": _plain(entry.learned._asdict()) if entry.learned else None,
        "best": _plain(entry.best._asdict()) if entry.best else None,
        "roc_area": _plain(entry.roc.area) if entry.roc else None,
        "average_precision": _plain(entry.precision_recall.area)
        if entry.precision_recall
        else None,
        "curve": _plain(entry.points._asdict()),
        "roc": _thin_curve(entry.roc),
        "pr": _thin_curve(entry.precision_recall),
    }


def _thin_curve(
    curve: RankedCurve | None, points: int = 120
) -> dict[str, list[float | None]] | None:
    """Return at most `points` points of a curve, evenly along it, with both ends."""
    if curve is None:
        return None
    lengths = np.abs(np.diff(curve.x)) + np.abs(np.diff(np.nan_to_num(curve.y)))
    along = np.concatenate([[0], np.cumsum(lengths)])  # distance from the start to each point
    keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)))
    return {"x": _plain(curve.x[keep].round(4)), "y": _plain(curve.y[keep].round(4))}


def _plain(value: Any) -> Any:
    """Convert to plain numbers, lists and dicts, NaN to None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value


def _select_rows(
    score: np.ndarray, alarm: np.ndarray, chunk: Chunk, rows: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return scores, alarm scores and labels of some rows."""
    return score[rows], alarm[rows], None if chunk.label is None else chunk.label[rows]


def _times(chunk: Chunk, plan: EvaluationPlan, rows: slice) -> np.ndarray | None:
    return chunk.time[rows] if plan.timed else None


def _learned_rank(entry: ComparisonEntry) -> tuple[float, float, float]:
    """Return a sort key: event F1, row F1, both on the learning rows, then speed; best first."""
    learned = entry.learned
    return (
        _descending(learned.event_f1 if learned else None),
        _descending(learned.row_f1 if learned else None),
        entry.trial.micros,
    )


def _descending(figure: float | None) -> float:
    """Return a sort key for a figure from 0 to 1: the highest first, an undefined one last."""
    return 1.0 if figure is None or np.isnan(figure) else -figure


def _learning_quality(
    trial: Trial, label: np.ndarray | None, plan: EvaluationPlan
) -> tuple[float, float]:
    """Return (best event F1, average precision) on the learning rows, -1 = undefined."""
    if label is None:
        return (0.0, 0.0)
    rows = slice(plan.cut or None)
    score = trial.score[rows]
    f1 = threshold_curve(score, trial.alarm[rows], label[rows], plan.thresholds).event_f1
    best = float(np.nanmax(f1)) if f1 is not None and np.isfinite(f1).any() else -1.0
    area = precision_recall_curve(score, label[rows]).area
    return best, float(np.nan_to_num(area, nan=-1.0))


def _entry(trial: Trial, chunk: Chunk, plan: EvaluationPlan) -> ComparisonEntry:
    """Choose the threshold on the learning rows, then compute the metrics on the judged ones."""
    first = slice(plan.cut or None)
    rest = slice(plan.cut, None)
    learning = _select_rows(trial.score, trial.alarm, chunk, first)
    judged = _select_rows(trial.score, trial.alarm, chunk, rest)
    time = _times(chunk, plan, rest)
    threshold = best_threshold(threshold_curve(*learning, plan.thresholds))
    learned = None
    best = None
    if threshold is not None:
        learned = compute_metrics(*learning, threshold, _times(chunk, plan, first))
        best = compute_metrics(*judged, threshold, time)
    score, _, label = judged
    return ComparisonEntry(
        trial,
        start=compute_metrics(*judged, plan.threshold, time),
        threshold=threshold,
        learned=learned,
        best=best,
        points=threshold_curve(*judged, plan.thresholds),
        roc=None if label is None else roc_curve(score, label),
        precision_recall=None if label is None else precision_recall_curve(score, label),
    )


def _suggestion_reason(
    best: ComparisonEntry, second: ComparisonEntry | None, plan: EvaluationPlan
) -> str:
    """Return the sentence that justifies a suggestion."""
    learned = best.learned
    judged = best.best
    assert learned is not None and judged is not None
    rival = ""
    if second and second.learned:
        rival = f"; next comes {second.trial.detector} with {second.learned.event_f1:.2f}"
    found = f"it hits {_hits(learned)} (event F1 {learned.event_f1:.2f}{rival})"
    events = learned.events or 0
    caution = f"; {count_noun(events, 'event')} can say little" if events < 10 else ""
    if plan.cut:
        return (
            f"on the first {plan.cut:,} rows {found}; "
            f"on the {judged.steps:,} rows after them {_hits(judged)}{caution}."
        )
    return f"{found}, chosen and judged on the same rows: expect less on new ones{caution}."


def _hits(figures: Metrics) -> str:
    events = count_noun(figures.events or 0, "event")
    false = count_noun(figures.false_alarms or 0, "false alarm")
    return f"{figures.hits} of {events} with {false}"
