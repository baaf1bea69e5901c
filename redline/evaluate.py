"""Labels against detections, on one stream or file: precision, recall, delay, curves, ranking.

Rows and events are counted apart. A *row* is caught where its score is above the threshold. An *event*, a run of anomalous rows,
is hit by an alarm from its first step to 10 after its last; several alarms in one event count once, alarms in no event are false.
Nothing is ever point-adjusted. A figure that does not exist is NaN (no detection has no precision); without labels it is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from detectors import Verdict
from streams import KINDS, Chunk

REACH = 10  # steps after the last of an event in which an alarm still hits it
THRESHOLDS = np.round(np.arange(1.5, 12.05, 0.1), 1)  # standard deviations, what a best one is chosen from: the slider's own positions
QUIET, CAUGHT, FALSE, MISSED, IN_GAP = range(5)  # what became of a row; IN_GAP: flagged, but the row is a gap and counts nowhere

_GAP = KINDS.index("dropout")


class Truth(NamedTuple):
    """What the labels say of each row."""

    anomalous: np.ndarray  # (steps,) bool, any feature of any kind but a dropout
    judged: np.ndarray  # (steps,) bool, False where a dropout is all there is: in nobody's recall or precision


class Figures(NamedTuple):
    """How well one threshold did; NaN: undefined, None: no labels (times, for what is counted per day)."""

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
    delay: float | None = None  # steps from the first of an event to its first alarm, mean over the hit ones
    false_alarms_per_day: float | None = None


class Curve(NamedTuple):
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


class Ranked(NamedTuple):
    """One curve over all thresholds there are, from the strictest to the loosest, with its area."""

    x: np.ndarray  # (n,) false-positive rate, or recall
    y: np.ndarray  # (n,) true-positive rate, or precision
    area: float  # NaN where one of the two classes is empty


class Fate(NamedTuple):
    """What became of one event."""

    first: int  # step
    last: int  # step
    delay: float  # steps from its first to the first alarm, NaN: none
    open: bool  # no alarm yet, and one could still come in time


def counted(count: int | None, noun: str) -> str:
    """A count with its noun: "1 event", "2 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def rows_truth(label: np.ndarray | None) -> Truth | None:
    """Fold (steps, features) kinds into the truth of rows; None when there are no labels.

    >>> rows_truth(np.array([[0, 0], [1, 7], [0, 7]]))
    Truth(anomalous=array([False,  True, False]), judged=array([ True,  True, False]))
    """
    if label is None:
        return None
    kinds = label[:, None] if label.ndim == 1 else label  # (steps, features), index into KINDS
    gap = kinds == _GAP
    anomalous = ((kinds != 0) & ~gap).any(axis=1)
    return Truth(anomalous, anomalous | ~gap.any(axis=1))


def events(truth: np.ndarray) -> np.ndarray:
    """First and last step of each run of truth, (events, 2).

    >>> events(np.array([True, True, False, True]))
    array([[0, 1], [3, 3]])
    """
    edges = np.diff(np.concatenate([[False], truth, [False]]).astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1], axis=1)


def row_scores(scores: np.ndarray) -> np.ndarray:
    """The score of each row, (steps,), of scores (steps, features): their maximum, NaN where none has an opinion."""
    rows: np.ndarray = np.fmax.reduce(scores, axis=1)
    return rows


def strangest(verdict: Verdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, feature, expected) of each row, all (steps,), of a verdict on (steps, features): the strangest feature speaks for the row."""
    parts = verdict.score if verdict.parts is None else verdict.parts[:, 0]  # (steps, features)
    feature = np.where(np.isnan(parts), -1.0, parts).argmax(axis=1)
    expected = np.full(len(parts), np.nan) if verdict.centre is None else verdict.centre[np.arange(len(parts)), feature]
    return row_scores(verdict.score), feature, expected


def judge(score: np.ndarray, alarm: np.ndarray, label: np.ndarray | None, threshold: float, time: np.ndarray | None = None) -> Figures:
    """Count row scores and alarm scores, both (steps,) with NaN for no opinion, against labels (steps, features) at one threshold.

    time: (steps,) seconds, for what is counted per day: days are those from the earliest time to the latest.
    """
    called = alarm > threshold
    days = _days(time)
    a_day = None if days is None else _ratio(called.sum(), days)
    seen = Figures(len(score), int(np.isnan(score).sum()), int((score > threshold).sum()), int(called.sum()), a_day)
    truth = rows_truth(label)
    if truth is None:
        return seen
    flagged = score > threshold
    right, wrong = (flagged & truth.anomalous).sum(), (flagged & truth.judged & ~truth.anomalous).sum()
    delays = _delays(called, events(truth.anomalous))  # (events,) steps, NaN: missed
    hits, false = int((~np.isnan(delays)).sum()), int((called & _outside(truth)).sum())
    return seen._replace(
        **_named("row", right, wrong, truth.anomalous.sum()),
        **_named("event", hits, false, len(delays)),
        events=len(delays),
        hits=hits,
        false_alarms=false,
        delay=_ratio(np.nansum(delays), hits),
        false_alarms_per_day=None if days is None else _ratio(false, days),
    )


def curve(score: np.ndarray, alarm: np.ndarray, label: np.ndarray | None, thresholds: np.ndarray = THRESHOLDS) -> Curve:
    """What `judge` counts, at every threshold in one pass: sort once, then look each threshold up."""
    thresholds = np.asarray(thresholds, dtype=float)
    counts = Curve(thresholds, _above(score, thresholds), _above(alarm, thresholds))
    truth = rows_truth(label)
    if truth is None:
        return counts
    runs = events(truth.anomalous)
    right, wrong = _above(score[truth.anomalous], thresholds), _above(score[truth.judged & ~truth.anomalous], thresholds)
    hits, false = _above(_peaks(alarm, runs), thresholds), _above(alarm[_outside(truth)], thresholds)
    with np.errstate(invalid="ignore"):
        return counts._replace(
            **_named("row", right, wrong, truth.anomalous.sum()), **_named("event", hits, false, len(runs)), hits=hits, false_alarms=false
        )


def best_threshold(points: Curve, by: str = "event") -> float | None:
    """The threshold with the best F1 of "event"s or "row"s, the middle one of those that tie; None where no F1 exists."""
    f1 = points.event_f1 if by == "event" else points.row_f1
    if f1 is None or not np.isfinite(f1).any():
        return None
    best = np.flatnonzero(f1 == np.nanmax(f1))
    return float(points.thresholds[best[len(best) // 2]])


def threshold_for_rate(score: np.ndarray, rate: float) -> float:
    """The lowest of the scores that at most `rate` of the scored rows are above (0.01: about 1 % of steps); NaN without a score.

    >>> threshold_for_rate(np.arange(200.0), 0.01)
    197.0
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be a share of the steps, from 0 to below 1, got {rate}; 0.01 is one step in a hundred")
    known = np.sort(score[~np.isnan(score)])
    return float(known[-1 - int(rate * len(known) + 1e-9)]) if len(known) else float("nan")


def outcomes(score: np.ndarray, label: np.ndarray | None, threshold: float) -> np.ndarray | None:
    """What became of each row, (steps,) int8: QUIET, CAUGHT, FALSE, MISSED or IN_GAP; None without labels."""
    truth = rows_truth(label)
    if truth is None:
        return None
    flagged = score > threshold
    cases = [flagged & truth.anomalous, flagged & truth.judged, truth.anomalous, flagged]
    return np.select(cases, [np.int8(CAUGHT), np.int8(FALSE), np.int8(MISSED), np.int8(IN_GAP)], np.int8(QUIET))


def fates(alarm: np.ndarray, label: np.ndarray | None, threshold: float) -> list[Fate]:
    """What became of each event, in order of time; empty without labels."""
    truth = rows_truth(label)
    if truth is None:
        return []
    runs = events(truth.anomalous)
    delays = _delays(alarm > threshold, runs)
    return [Fate(int(a), int(b), float(d), bool(np.isnan(d) and b + REACH >= len(alarm))) for (a, b), d in zip(runs, delays)]


def false_alarms(alarm: np.ndarray, label: np.ndarray | None, threshold: float) -> np.ndarray:
    """The steps of the alarms in no event, in order; none without labels."""
    truth = rows_truth(label)
    return np.flatnonzero((alarm > threshold) & _outside(truth)) if truth else np.zeros(0, dtype=int)


def last_event_caught(alarm: np.ndarray, label: np.ndarray | None, threshold: float, step: int | None = None) -> Fate | None:
    """The fate of the event that holds `step`, an injected one say, or of the newest; None when there is no such event."""
    found = fates(alarm, label, threshold)
    if step is not None:
        found = [fate for fate in found if fate.first <= step <= fate.last]
    return found[-1] if found else None


def roc(score: np.ndarray, label: np.ndarray) -> Ranked:
    """True-positive against false-positive rate over rows, a row without an opinion ranking last; the area is the ROC AUC."""
    right, wrong = _ranking(score, label)
    if not right[-1] or not wrong[-1]:
        return Ranked(np.array([0.0, 1.0]), np.array([0.0, 1.0]), float("nan"))
    x, y = np.append(0, wrong) / wrong[-1], np.append(0, right) / right[-1]
    return Ranked(x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)))


def precision_recall(score: np.ndarray, label: np.ndarray) -> Ranked:
    """Precision against recall over rows, a row without an opinion ranking last; the area is the average precision (by steps)."""
    right, wrong = _ranking(score, label)
    if not right[-1]:
        return Ranked(np.array([0.0, 1.0]), np.array([float("nan")] * 2), float("nan"))
    x, y = right / right[-1], right / (right + wrong)
    return Ranked(np.append(0, x), np.append(y[0], y), float(np.sum(np.diff(x, prepend=0) * y)))


class Said(NamedTuple):
    """What a detector says of every row."""

    score: np.ndarray  # (steps,), NaN = no opinion
    alarm: np.ndarray  # (steps,), NaN = no opinion
    feature: np.ndarray  # (steps,) int, the one that carries most of the score
    expected: np.ndarray  # (steps,), what that feature should have been, in its unit; NaN = nothing expected


class Trial(NamedTuple):
    """What one detector with one window said of every row."""

    detector: str
    window: int  # steps
    said: Said
    micros: float  # microseconds a row took

    @property
    def score(self) -> np.ndarray:
        return self.said.score

    @property
    def alarm(self) -> np.ndarray:
        return self.said.alarm


class Fault(NamedTuple):
    """Why one detector with one window could not be tried."""

    detector: str
    window: int  # steps
    why: str


class Call(NamedTuple):
    """One alarm as a person is told of it."""

    step: int
    feature: int  # the one that carries most of the score
    value: float | None  # of that feature, in its unit
    expected: float | None  # None: the detector expects no value
    score: float | None  # standard deviations; None where several detectors call together
    false: bool | None  # in no event; None without labels


class Plan(NamedTuple):
    """How detectors are compared: which rows they are judged on, and between which thresholds they may choose."""

    threshold: float  # the one that everybody starts with
    cut: int = 0  # settings are learned on the rows before it, judged on those from it on; 0: both on all rows
    thresholds: np.ndarray = THRESHOLDS
    timed: bool = True  # the rows have times of their own; else nothing is counted per day


class Entry(NamedTuple):
    """One detector in the ranking; what needs labels is None without them."""

    trial: Trial  # under its best window, over all rows
    start: Figures  # at the plan's threshold, on the judged rows
    threshold: float | None  # the best one of the rows it may learn from
    learned: Figures | None  # at that threshold, on the rows it was learned from
    best: Figures | None  # at that threshold, on the judged rows
    points: Curve  # figures against the threshold, on the judged rows
    roc: Ranked | None
    precision_recall: Ranked | None


class Suggestion(NamedTuple):
    """Settings to start with, and the reason in one sentence."""

    detector: str
    window: int  # steps
    threshold: float
    why: str


Scorer = Callable[[str, int, np.ndarray], Said]  # detector, window, x (steps, features)


def learning_rows(label: np.ndarray | None, share: float) -> int:
    """How many of the first rows to learn from: `share` of them, an event begun there being taken whole; ValueError where that leaves nothing."""
    truth = rows_truth(label)
    if truth is None or not 0 < share < 1:
        raise ValueError(f"learning needs labels and a share of the rows between 0 and 1; got {share}" + ("" if truth else " and no labels"))
    runs = events(truth.anomalous)
    cut = round(share * len(truth.anomalous))
    while ((runs[:, 0] < cut) & (_ends(runs, len(truth.anomalous)) > cut)).any():
        cut = int(_ends(runs, len(truth.anomalous))[runs[:, 0] < cut].max())
    if not (runs[:, 0] < cut).any() or cut == len(truth.anomalous):
        raise ValueError(
            f"the first {share:.0%} of {len(truth.anomalous):,} rows hold no whole anomaly, or all there is: choose another share to learn from"
        )
    return cut


def trials(x: np.ndarray, jobs: Iterable[tuple[str, int]], scorer: Scorer, faults: list[Fault]) -> Iterator[Trial]:
    """Run each (detector, window) over x (steps, features), one at a time, as they are asked for; one that cannot run is noted in `faults`."""
    for detector, window in jobs:
        began = perf_counter()
        try:
            said = scorer(detector, window, x)
        except (ValueError, ArithmeticError, ImportError) as error:  # a wrong setting, a matrix without an inverse, a missing extra
            faults.append(Fault(detector, window, str(error) or type(error).__name__))
        else:
            yield Trial(detector, window, said, (perf_counter() - began) / max(len(x), 1) * 1e6)


def rank(tried: Iterable[Trial], chunk: Chunk, plan: Plan) -> Iterator[Entry]:
    """One entry for each detector as soon as its windows are tried; of those the best on the rows it may learn from stays."""
    for _, group in groupby(tried, key=lambda trial: trial.detector):
        yield _entry(max(group, key=lambda trial: _merit(trial, chunk.label, plan)), chunk, plan)


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """The best first: by event F1, then average precision, then speed, on the judged rows; without labels as they came."""
    return sorted(entries, key=lambda entry: (*(_order(figure) for figure in _standing(entry)), entry.trial.micros if entry.best else 0.0))


def suggest(entries: Iterable[Entry], plan: Plan) -> Suggestion | None:
    """The settings with the best event F1 on the rows one may learn from; then row F1, then speed; None where nothing could be learned."""
    able = [entry for entry in entries if entry.learned and entry.threshold is not None and entry.learned.hits]
    if not able:
        return None
    able.sort(key=_promise)
    best, second = able[0], able[1] if len(able) > 1 else None
    return Suggestion(best.trial.detector, best.trial.window, best.threshold or plan.threshold, _why(best, second, plan))


def agreement(called: Sequence[np.ndarray]) -> np.ndarray:
    """How far detectors agree, (detectors, detectors): the share of the row's alarms with one of the column's within REACH steps; NaN: no alarm."""
    near = [_near(steps) for steps in called]
    return np.array([[_ratio((mine & theirs).sum(), mine.sum()) for theirs in near] for mine in called]).reshape(len(called), -1)


def joint_alarms(called: Sequence[np.ndarray]) -> np.ndarray:
    """The steps at which half of the detectors or more call within REACH steps of each other, the first alarm of each such time."""
    if not called:
        return np.zeros(0, dtype=int)
    agreed = 2 * np.sum([_near(steps) for steps in called], axis=0) >= len(called)
    first = [np.flatnonzero(np.any([steps[a : b + 1] for steps in called], axis=0)) + a for a, b in events(agreed)]
    return np.array([steps[0] for steps in first if len(steps)], dtype=int)


def calls(trial: Trial, chunk: Chunk, threshold: float) -> list[Call]:
    """Every alarm of a detector, in order of time."""
    false = set(false_alarms(trial.alarm, chunk.label, threshold).tolist())
    return [
        Call(
            step,
            int(feature := trial.said.feature[step]),
            _plain(chunk.x[step, feature]),
            _plain(trial.said.expected[step]),
            _plain(trial.score[step]),
            None if chunk.label is None else step in false,
        )
        for step in np.flatnonzero(trial.alarm > threshold).tolist()
    ]


def joint_calls(tried: Sequence[Trial], chunk: Chunk, threshold: float) -> list[Call]:
    """Every joint alarm, with the feature that most of those calling near it name."""
    alarms = [trial.alarm > threshold for trial in tried]
    found = []
    for step in joint_alarms(alarms).tolist():
        near = slice(max(0, step - REACH), step + REACH + 1)
        named = np.concatenate([trial.said.feature[near][called[near]] for trial, called in zip(tried, alarms)])
        feature = int(np.bincount(named).argmax())
        found.append(Call(step, feature, _plain(chunk.x[step, feature]), None, None, None))
    return found


def _near(called: np.ndarray) -> np.ndarray:
    """Steps at most REACH from an alarm, (steps,) bool."""
    near: np.ndarray = np.convolve(called, np.ones(2 * REACH + 1), mode="full")[REACH : REACH + len(called)] > 0
    return near


def clock(chunk: Chunk, plan: Plan, every: int = 100) -> Figures:
    """The figures of an alarm every `every` steps that never looks: what a detector must beat, on the judged rows."""
    steps = np.arange(len(chunk.x))
    ticks = np.where(steps % every == every - 1, np.inf, 0.0)
    rows = slice(plan.cut, None)
    return judge(*_part(ticks, ticks, chunk, rows), plan.threshold, _time(chunk, plan, rows))


def document(entries: Sequence[Entry], chunk: Chunk, plan: Plan) -> dict[str, Any]:
    """Everything there is to report as plain values, ready for JSON: NaN becomes None; the ranking keeps the order of `entries`."""
    best, truth = suggest(entries, plan), rows_truth(chunk.label)
    matrix = agreement([entry.trial.alarm[plan.cut :] > plan.threshold for entry in entries])
    rows = [_plain_entry(entry, best) for entry in entries]
    if truth is None:
        for i, row in enumerate(rows):
            others = np.delete(matrix[i], i)
            row["agreement"] = _plain(np.mean(others)) if len(others) else None
    return {
        "rows": len(chunk.x),
        "labels": truth is not None,
        "events": None if truth is None else len(events(truth.anomalous)),
        "learned_rows": plan.cut or None,
        "threshold": plan.threshold,
        "reach": REACH,
        "ranking": rows,
        "suggestion": None if best is None else best._asdict(),
        "clock": None if truth is None else _plain(clock(chunk, plan)._asdict()),
        "agreement": None if truth is not None else _plain(matrix),
    }


def _plain_entry(entry: Entry, best: Suggestion | None) -> dict[str, Any]:
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


def _drawn(whole: Ranked | None, points: int = 120) -> dict[str, list[float | None]] | None:
    """A curve with few enough points to draw, evenly along it, both ends kept."""
    if whole is None:
        return None
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(whole.x)) + np.abs(np.diff(np.nan_to_num(whole.y))))])
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


def _part(score: np.ndarray, alarm: np.ndarray, chunk: Chunk, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    return score[rows], alarm[rows], None if chunk.label is None else chunk.label[rows]


def _time(chunk: Chunk, plan: Plan, rows: slice) -> np.ndarray | None:
    return chunk.time[rows] if plan.timed else None


def _promise(entry: Entry) -> tuple[float, float, float]:
    """A key that puts first what did best on the rows it was learned from."""
    return _order(entry.learned and entry.learned.event_f1), _order(entry.learned and entry.learned.row_f1), entry.trial.micros


def _standing(entry: Entry) -> tuple[float | None, float | None]:
    return entry.best and entry.best.event_f1, entry.precision_recall and entry.precision_recall.area


def _order(figure: float | None) -> float:
    """A key that puts the highest figure first and an undefined one last."""
    return 1.0 if figure is None or np.isnan(figure) else -figure


def _merit(trial: Trial, label: np.ndarray | None, plan: Plan) -> tuple[float, float]:
    """How good a window is on the rows one may learn from: best event F1, then average precision."""
    if label is None:
        return (0.0, 0.0)
    rows = slice(plan.cut or None)
    f1 = curve(trial.score[rows], trial.alarm[rows], label[rows], plan.thresholds).event_f1
    best = float(np.nanmax(f1)) if f1 is not None and np.isfinite(f1).any() else -1.0
    return (best, float(np.nan_to_num(precision_recall(trial.score[rows], label[rows]).area, nan=-1.0)))


def _entry(trial: Trial, chunk: Chunk, plan: Plan) -> Entry:
    """Choose the threshold on the rows one may learn from, then judge on the others."""
    first, rest = slice(plan.cut or None), slice(plan.cut, None)
    learning, judged = (_part(trial.score, trial.alarm, chunk, rows) for rows in (first, rest))
    time = _time(chunk, plan, rest)
    score, _, label = judged
    threshold = best_threshold(curve(*learning, plan.thresholds))
    return Entry(
        trial,
        judge(*judged, plan.threshold, time),
        threshold,
        None if threshold is None else judge(*learning, threshold, _time(chunk, plan, first)),
        None if threshold is None else judge(*judged, threshold, time),
        curve(*judged, plan.thresholds),
        None if label is None else roc(score, label),
        None if label is None else precision_recall(score, label),
    )


def _why(best: Entry, second: Entry | None, plan: Plan) -> str:
    """The sentence of a suggestion."""
    learned, judged = best.learned, best.best
    assert learned is not None and judged is not None
    rival = f"; next comes {second.trial.detector} with {second.learned.event_f1:.2f}" if second and second.learned else ""
    found = f"it hits {_hits(learned)} (event F1 {learned.event_f1:.2f}{rival})"
    if plan.cut:
        return f"on the first {plan.cut:,} rows {found}; on the {judged.steps:,} rows after them {_hits(judged)}{_few(learned)}."
    return f"{found}, chosen and judged on the same rows: expect less on new ones{_few(learned)}."


def _hits(figures: Figures) -> str:
    return f"{figures.hits} of {counted(figures.events, 'event')} with {counted(figures.false_alarms, 'false alarm')}"


def _few(learned: Figures) -> str:
    return f"; {counted(learned.events, 'event')} can say little" if (learned.events or 0) < 10 else ""


def _ranking(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anomalous and other judged rows at or above each distinct score, from the highest down; NaN below all."""
    truth = rows_truth(label)
    assert truth is not None
    ranks = np.where(np.isnan(score), -1.0, score)[truth.judged]
    order = np.argsort(-ranks, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(ranks[order])), len(order) - 1) if len(order) else np.array([], dtype=int)
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
    ends: np.ndarray = np.minimum(runs[:, 1] + REACH + 1, steps)
    return ends


def _peaks(alarm: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The highest alarm score in reach of each event, (events,), -inf where there is none."""
    if not len(runs):
        return np.zeros(0)
    spans = np.stack([runs[:, 0], _ends(runs, len(alarm))], axis=1).ravel()
    peaks: np.ndarray = np.maximum.reduceat(np.append(np.where(np.isnan(alarm), -np.inf, alarm), -np.inf), spans)[::2]
    return peaks


def _delays(called: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Steps from the first of each event to its first alarm, (events,), NaN where none is in reach."""
    steps = np.append(np.flatnonzero(called), len(called) + REACH)  # the last one: never in reach
    first = steps[np.searchsorted(steps, runs[:, 0])]
    return np.where(first < _ends(runs, len(called)), first - runs[:, 0], np.nan)


def _outside(truth: Truth) -> np.ndarray:
    """Judged steps in reach of no event, (steps,) bool: an alarm there is false."""
    steps = len(truth.anomalous)
    runs = events(truth.anomalous)
    change = np.zeros(steps + 1, dtype=int)
    np.add.at(change, runs[:, 0], 1)
    np.add.at(change, _ends(runs, steps), -1)
    outside: np.ndarray = truth.judged & (np.cumsum(change[:-1]) == 0)
    return outside
