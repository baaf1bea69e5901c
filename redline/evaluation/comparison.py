"""Labels against detections, on one stream or file: precision, recall, delay, curves, ranking.

Rows and events are counted apart. A *row* is caught where its score is above the threshold. An
*event*, a run of anomalous rows, is hit by an alarm from its first step to 10 after its last;
several alarms in one event count once, alarms in no event are false. Nothing is ever
point-adjusted. A figure that does not exist is NaN (no detection has no precision); without labels
it is None.
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
    _ends,
    _ratio,
    best_threshold,
    compute_metrics,
    event_runs,
    false_alarm_steps,
    precision_recall_curve,
    roc_curve,
    row_truth,
    threshold_curve,
)
from streams import Chunk


def count_noun(count: int | None, noun: str) -> str:
    """A count with its noun: "1 event", "2 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class TrialResult(NamedTuple):
    """What a detector says of every row."""

    score: np.ndarray  # (steps,), NaN = no opinion
    alarm: np.ndarray  # (steps,), NaN = no opinion
    feature: np.ndarray  # (steps,) int, the one that carries most of the score
    expected: (
        np.ndarray
    )  # (steps,), what that feature should have been, in its unit; NaN = nothing expected


class Trial(NamedTuple):
    """What one detector with one window said of every row."""

    detector: str
    window: int  # steps
    said: TrialResult
    micros: float  # microseconds a row took

    @property
    def score(self) -> np.ndarray:
        return self.said.score

    @property
    def alarm(self) -> np.ndarray:
        return self.said.alarm


class TrialFailure(NamedTuple):
    """Why one detector with one window could not be tried."""

    detector: str
    window: int  # steps
    why: str


class FoundAlarm(NamedTuple):
    """One alarm as a person is told of it."""

    step: int
    feature: int  # the one that carries most of the score
    value: float | None  # of that feature, in its unit
    expected: float | None  # None: the detector expects no value
    score: float | None  # standard deviations; None where several detectors call together
    false: bool | None  # in no event; None without labels


class EvaluationPlan(NamedTuple):
    """How detectors are compared: which rows they are judged on, and between which thresholds they
    may choose.
    """

    threshold: float  # the one that everybody starts with
    # settings are learned on the rows before it, judged on those from it on; 0: both on all rows
    cut: int = 0
    thresholds: np.ndarray = THRESHOLD_GRID
    timed: bool = True  # the rows have times of their own; else nothing is counted per day


class ComparisonEntry(NamedTuple):
    """One detector in the ranking; what needs labels is None without them."""

    trial: Trial  # under its best window, over all rows
    start: Metrics  # at the plan's threshold, on the judged rows
    threshold: float | None  # the best one of the rows it may learn from
    learned: Metrics | None  # at that threshold, on the rows it was learned from
    best: Metrics | None  # at that threshold, on the judged rows
    points: ThresholdCurve  # figures against the threshold, on the judged rows
    roc: RankedCurve | None
    precision_recall: RankedCurve | None


class Suggestion(NamedTuple):
    """Settings to start with, and the reason in one sentence."""

    detector: str
    window: int  # steps
    threshold: float
    why: str


TrialScorer = Callable[[str, int, np.ndarray], TrialResult]  # detector, window, x (steps, features)


def learning_rows(label: np.ndarray | None, share: float) -> int:
    """How many of the first rows to learn from: `share` of them, an event begun there being taken
    whole; ValueError where that leaves nothing.
    """
    truth = row_truth(label)
    if truth is None or not 0 < share < 1:
        raise ValueError(
            f"learning needs labels and a share of the rows between 0 and 1; got {share}"
            + ("" if truth else " and no labels")
        )
    runs = event_runs(truth.anomalous)
    cut = round(share * len(truth.anomalous))
    while ((runs[:, 0] < cut) & (_ends(runs, len(truth.anomalous)) > cut)).any():
        cut = int(_ends(runs, len(truth.anomalous))[runs[:, 0] < cut].max())
    if not (runs[:, 0] < cut).any() or cut == len(truth.anomalous):
        raise ValueError(
            f"the first {share:.0%} of {len(truth.anomalous):,} rows hold no whole "
            "anomaly, or all there is: choose another share to learn from"
        )
    return cut


def run_trials(
    x: np.ndarray, jobs: Iterable[tuple[str, int]], scorer: TrialScorer, faults: list[TrialFailure]
) -> Iterator[Trial]:
    """Run each (detector, window) over x (steps, features), one at a time, as they are asked for;
    one that cannot run is noted in `faults`.
    """
    for detector, window in jobs:
        began = perf_counter()
        try:
            said = scorer(detector, window, x)
        except (
            ValueError,
            ArithmeticError,
            ImportError,
        ) as error:  # a wrong setting, a matrix without an inverse, a missing extra
            faults.append(TrialFailure(detector, window, str(error) or type(error).__name__))
        else:
            yield Trial(detector, window, said, (perf_counter() - began) / max(len(x), 1) * 1e6)


def rank_trials(
    tried: Iterable[Trial], chunk: Chunk, plan: EvaluationPlan
) -> Iterator[ComparisonEntry]:
    """One entry for each detector as soon as its windows are tried; of those the best on the rows
    it may learn from stays.
    """
    for _, group in groupby(tried, key=lambda trial: trial.detector):
        yield _entry(max(group, key=lambda trial: _merit(trial, chunk.label, plan)), chunk, plan)


def sort_entries(entries: Iterable[ComparisonEntry]) -> list[ComparisonEntry]:
    """The best first: by event F1, then average precision, then speed, on the judged rows; without
    labels as they came.
    """
    return sorted(
        entries,
        key=lambda entry: (
            *(_order(figure) for figure in _standing(entry)),
            entry.trial.micros if entry.best else 0.0,
        ),
    )


def suggest_settings(entries: Iterable[ComparisonEntry], plan: EvaluationPlan) -> Suggestion | None:
    """The settings with the best event F1 on the rows one may learn from; then row F1, then speed;
    None where nothing could be learned.
    """
    able = [
        entry
        for entry in entries
        if entry.learned and entry.threshold is not None and entry.learned.hits
    ]
    if not able:
        return None
    able.sort(key=_promise)
    best = able[0]
    second = able[1] if len(able) > 1 else None
    return Suggestion(
        best.trial.detector,
        best.trial.window,
        best.threshold or plan.threshold,
        _why(best, second, plan),
    )


def alarm_agreement(called: Sequence[np.ndarray]) -> np.ndarray:
    """How far detectors agree, (detectors, detectors): the share of the row's alarms with one of
    the column's within REACH steps; NaN: no alarm.
    """
    near = [_near(steps) for steps in called]
    return np.array(
        [[_ratio((mine & theirs).sum(), mine.sum()) for theirs in near] for mine in called]
    ).reshape(len(called), -1)


def joint_alarms(called: Sequence[np.ndarray]) -> np.ndarray:
    """The steps at which half of the detectors or more call within REACH steps of each other, the
    first alarm of each such time.
    """
    if not called:
        return np.zeros(0, dtype=int)
    agreed = 2 * np.sum([_near(steps) for steps in called], axis=0) >= len(called)
    first = [
        np.flatnonzero(np.any([steps[a : b + 1] for steps in called], axis=0)) + a
        for a, b in event_runs(agreed)
    ]
    return np.array([steps[0] for steps in first if len(steps)], dtype=int)


def list_alarms(trial: Trial, chunk: Chunk, threshold: float) -> list[FoundAlarm]:
    """Every alarm of a detector, in order of time."""
    false = set(false_alarm_steps(trial.alarm, chunk.label, threshold).tolist())
    return [
        FoundAlarm(
            step,
            int(feature := trial.said.feature[step]),
            _plain(chunk.x[step, feature]),
            _plain(trial.said.expected[step]),
            _plain(trial.score[step]),
            None if chunk.label is None else step in false,
        )
        for step in np.flatnonzero(trial.alarm > threshold).tolist()
    ]


def list_joint_alarms(tried: Sequence[Trial], chunk: Chunk, threshold: float) -> list[FoundAlarm]:
    """Every joint alarm, with the feature that most of those calling near it name."""
    alarms = [trial.alarm > threshold for trial in tried]
    found = []
    for step in joint_alarms(alarms).tolist():
        near = slice(max(0, step - HIT_TOLERANCE), step + HIT_TOLERANCE + 1)
        named = np.concatenate(
            [trial.said.feature[near][called[near]] for trial, called in zip(tried, alarms)]
        )
        feature = int(np.bincount(named).argmax())
        found.append(FoundAlarm(step, feature, _plain(chunk.x[step, feature]), None, None, None))
    return found


def _near(called: np.ndarray) -> np.ndarray:
    """Steps at most REACH from an alarm, (steps,) bool."""
    near: np.ndarray = (
        np.convolve(called, np.ones(2 * HIT_TOLERANCE + 1), mode="full")[
            HIT_TOLERANCE : HIT_TOLERANCE + len(called)
        ]
        > 0
    )
    return near


def periodic_baseline(chunk: Chunk, plan: EvaluationPlan, every: int = 100) -> Metrics:
    """The figures of an alarm every `every` steps that never looks: what a detector must beat, on
    the judged rows.
    """
    steps = np.arange(len(chunk.x))
    ticks = np.where(steps % every == every - 1, np.inf, 0.0)
    rows = slice(plan.cut, None)
    return compute_metrics(
        *_part(ticks, ticks, chunk, rows), plan.threshold, _time(chunk, plan, rows)
    )


def comparison_document(
    entries: Sequence[ComparisonEntry], chunk: Chunk, plan: EvaluationPlan
) -> dict[str, Any]:
    """Everything there is to report as plain values, ready for JSON: NaN becomes None; the ranking
    keeps the order of `entries`.
    """
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
        "learned": _plain(entry.learned and entry.learned._asdict()),
        "best": _plain(entry.best and entry.best._asdict()),
        "roc_area": _plain(entry.roc and entry.roc.area),
        "average_precision": _plain(entry.precision_recall and entry.precision_recall.area),
        "curve": _plain(entry.points._asdict()),
        "roc": _drawn(entry.roc),
        "pr": _drawn(entry.precision_recall),
    }


def _drawn(whole: RankedCurve | None, points: int = 120) -> dict[str, list[float | None]] | None:
    """A curve with few enough points to draw, evenly along it, both ends kept."""
    if whole is None:
        return None
    along = np.concatenate(
        [[0], np.cumsum(np.abs(np.diff(whole.x)) + np.abs(np.diff(np.nan_to_num(whole.y))))]
    )
    keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)))
    return {"x": _plain(whole.x[keep].round(4)), "y": _plain(whole.y[keep].round(4))}


def _plain(value: Any) -> Any:
    """Numbers, lists and dicts of the standard library, None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value


def _part(
    score: np.ndarray, alarm: np.ndarray, chunk: Chunk, rows: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    return score[rows], alarm[rows], None if chunk.label is None else chunk.label[rows]


def _time(chunk: Chunk, plan: EvaluationPlan, rows: slice) -> np.ndarray | None:
    return chunk.time[rows] if plan.timed else None


def _promise(entry: ComparisonEntry) -> tuple[float, float, float]:
    """A key that puts first what did best on the rows it was learned from."""
    return (
        _order(entry.learned and entry.learned.event_f1),
        _order(entry.learned and entry.learned.row_f1),
        entry.trial.micros,
    )


def _standing(entry: ComparisonEntry) -> tuple[float | None, float | None]:
    return (
        entry.best and entry.best.event_f1,
        entry.precision_recall and entry.precision_recall.area,
    )


def _order(figure: float | None) -> float:
    """A key that puts the highest figure first and an undefined one last."""
    return 1.0 if figure is None or np.isnan(figure) else -figure


def _merit(trial: Trial, label: np.ndarray | None, plan: EvaluationPlan) -> tuple[float, float]:
    """How good a window is on the rows one may learn from: best event F1, then average precision."""
    if label is None:
        return (0.0, 0.0)
    rows = slice(plan.cut or None)
    f1 = threshold_curve(
        trial.score[rows], trial.alarm[rows], label[rows], plan.thresholds
    ).event_f1
    best = float(np.nanmax(f1)) if f1 is not None and np.isfinite(f1).any() else -1.0
    return (
        best,
        float(np.nan_to_num(precision_recall_curve(trial.score[rows], label[rows]).area, nan=-1.0)),
    )


def _entry(trial: Trial, chunk: Chunk, plan: EvaluationPlan) -> ComparisonEntry:
    """Choose the threshold on the rows one may learn from, then judge on the others."""
    first = slice(plan.cut or None)
    rest = slice(plan.cut, None)
    learning, judged = (_part(trial.score, trial.alarm, chunk, rows) for rows in (first, rest))
    time = _time(chunk, plan, rest)
    score, _, label = judged
    threshold = best_threshold(threshold_curve(*learning, plan.thresholds))
    return ComparisonEntry(
        trial,
        compute_metrics(*judged, plan.threshold, time),
        threshold,
        None
        if threshold is None
        else compute_metrics(*learning, threshold, _time(chunk, plan, first)),
        None if threshold is None else compute_metrics(*judged, threshold, time),
        threshold_curve(*judged, plan.thresholds),
        None if label is None else roc_curve(score, label),
        None if label is None else precision_recall_curve(score, label),
    )


def _why(best: ComparisonEntry, second: ComparisonEntry | None, plan: EvaluationPlan) -> str:
    """The sentence of a suggestion."""
    learned = best.learned
    judged = best.best
    assert learned is not None and judged is not None
    rival = (
        f"; next comes {second.trial.detector} with {second.learned.event_f1:.2f}"
        if second and second.learned
        else ""
    )
    found = f"it hits {_hits(learned)} (event F1 {learned.event_f1:.2f}{rival})"
    if plan.cut:
        return (
            f"on the first {plan.cut:,} rows {found}; on the {judged.steps:,} rows after "
            f"them {_hits(judged)}{_few(learned)}."
        )
    return f"{found}, chosen and judged on the same rows: expect less on new ones{_few(learned)}."


def _hits(figures: Metrics) -> str:
    return (
        f"{figures.hits} of {count_noun(figures.events, 'event')} with "
        f"{count_noun(figures.false_alarms, 'false alarm')}"
    )


def _few(learned: Metrics) -> str:
    return (
        f"; {count_noun(learned.events, 'event')} can say little"
        if (learned.events or 0) < 10
        else ""
    )
