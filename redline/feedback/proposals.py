"""The proposal of settings that agree with more of the labels people gave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from redline.feedback.labels import (
    EXPECTED_LABEL,
    MIN_LABELS,
    MISSED_LABEL,
    Label,
    LabelledRows,
    merge_labels,
)
from redline.settings import SETTINGS_BY_NAME, Settings

MISSED_TOLERANCE = 10  # steps after a missed one in which an anomaly still counts as finding it
WINDOW_RATIOS = (1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)  # windows tried / the applied window
# a label fits with a margin if it also fits with the threshold moved by this share either way
THRESHOLD_MARGIN = 0.05


class LabelledHistory(NamedTuple):
    """The contents of a stream's buffer."""

    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    label: np.ndarray | None  # (n, features) index into KINDS, None = unknown


class Proposal(NamedTuple):
    """Settings that agree with more of the labels than those applied; a person decides on them."""

    settings: Settings
    marks: int  # labels in the buffer
    fits: int  # how many of them these settings agree with
    fits_now: int  # how many of them the applied settings agree with
    alarms: float  # a day, in the buffer
    alarms_now: float  # the same under the applied settings
    text: str


class TriedSettings(NamedTuple):
    """The scores of the buffer under one window."""

    settings: Settings
    score: np.ndarray  # (n,) NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    expected: np.ndarray  # (labels,) highest score in each span labelled "expected"
    missed: np.ndarray  # (labels,) highest score in each "missed" span and the steps after it


# settings, x (n, features) -> scores (n,) and alarm scores (n,)
HistoryScorer = Callable[[Settings, np.ndarray], tuple[np.ndarray, np.ndarray]]
# score, alarm, label, thresholds -> F1 at each threshold
ThresholdJudge = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray | None]


def propose_settings(
    past: LabelledHistory,
    labels: Iterable[Label],
    settings: Settings,
    scorer: HistoryScorer,
    judge: ThresholdJudge | None = None,
) -> Proposal | None:
    """Return the window and threshold that fit the most labels in the buffer.

    Among those the one that fits the most with a margin, then that with the best F1 against the
    stream's own truth and the labels, then that with the smallest change. None if the buffer has
    less than MIN_LABELS labels or `settings` fit as many.
    """
    rows_of = LabelledRows(past.time).of_label
    inside = [label for label in labels if len(rows_of(label))]
    if len(inside) < MIN_LABELS:
        return None
    thresholds = _slider_thresholds()
    tried = [
        _try_settings(past, inside, replace(settings, window=window), scorer)
        for window in candidate_windows(settings.window, len(past.x))
    ]
    truth = None if past.label is None else merge_labels(past.label, past.time, inside)
    ranked = []
    for one in tried:
        f1 = None
        if judge is not None and truth is not None:
            f1 = judge(one.score, one.alarm, truth, thresholds)
        ranks = _ranks(one, f1, thresholds, settings)
        ranked += [(rank, one, t) for rank, t in zip(ranks, thresholds.tolist())]
    rank, best, threshold = max(ranked, key=lambda each: each[0])
    fits = rank[0]
    now = next(one for one in tried if one.settings == settings)
    fits_now = int(_fits(now, np.array([settings.threshold]))[0])
    if fits <= fits_now:
        return None
    marks = len(inside)
    alarms = _alarms_a_day(best.alarm, threshold, past.time)
    alarms_now = _alarms_a_day(now.alarm, settings.threshold, past.time)
    agreement = f"your {marks} marks" if fits == marks else f"{fits} of your {marks} marks"
    text = (
        f"window {best.settings.window}, threshold {threshold:g} fits {agreement}; "
        f"alarms a day {_format_count(alarms_now)} → {_format_count(alarms)}"
    )
    proposed = replace(best.settings, threshold=threshold)
    return Proposal(proposed, marks, fits, fits_now, alarms, alarms_now, text)


def candidate_windows(window: int, steps: int) -> list[int]:
    """Return the windows to try, the present one among them, in steps.

    None is longer than a third of the buffer, so that each scores most of it.

    >>> candidate_windows(60, 10_000), candidate_windows(60, 200)
    ([30, 40, 60, 90, 120, 180], [30, 40, 60])
    """
    low = int(SETTINGS_BY_NAME["window"].low)
    high = min(int(SETTINGS_BY_NAME["window"].high), steps // 3)
    scaled = [round(window * ratio) for ratio in WINDOW_RATIOS]
    return sorted({window, *(each for each in scaled if low <= each <= high)})


def _slider_thresholds() -> np.ndarray:
    """Return the thresholds that the page's slider can be set to."""
    row = SETTINGS_BY_NAME["threshold"]
    thresholds: np.ndarray = np.round(np.arange(row.low, row.high + 0.05, 0.1), 1)
    return thresholds


def _try_settings(
    past: LabelledHistory, labels: Sequence[Label], settings: Settings, scorer: HistoryScorer
) -> TriedSettings:
    """Score the buffer under some settings; a span without a score counts as not flagged."""
    score, alarm = scorer(settings, past.x)
    known = np.nan_to_num(score, nan=0.0)
    peaks: dict[str, list[float]] = {EXPECTED_LABEL: [], MISSED_LABEL: []}
    rows_of = LabelledRows(past.time).of_label
    for label in labels:
        rows = rows_of(label)
        last = rows.max() if label.kind == EXPECTED_LABEL else rows.max() + MISSED_TOLERANCE
        peaks[label.kind].append(float(known[rows.min() : last + 1].max()))
    return TriedSettings(
        settings, score, alarm, np.array(peaks[EXPECTED_LABEL]), np.array(peaks[MISSED_LABEL])
    )


def _fits(one: TriedSettings, thresholds: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Return how many labels each threshold agrees with, even if moved by a margin either way."""
    expected = one.expected[:, None] <= thresholds * (1 - margin)
    missed = one.missed[:, None] > thresholds * (1 + margin)
    fits: np.ndarray = expected.sum(axis=0) + missed.sum(axis=0)
    return fits


def _ranks(
    one: TriedSettings, f1: np.ndarray | None, thresholds: np.ndarray, now: Settings
) -> list[tuple[int, int, float, float]]:
    """Return the rank of each threshold under one window, higher = better.

    In the order of `propose_settings`: labels fitted, fitted with a margin, F1, minus the change.
    """
    if f1 is None:
        f1 = np.zeros(len(thresholds))
    f1 = np.round(np.nan_to_num(f1, nan=0.0), 2)
    window_change = abs(math.log(one.settings.window / now.window))
    change = np.abs(np.log(thresholds / now.threshold)) + window_change
    return list(
        zip(
            _fits(one, thresholds).tolist(),
            _fits(one, thresholds, THRESHOLD_MARGIN).tolist(),
            f1.tolist(),
            (-change).tolist(),
        )
    )


def _alarms_a_day(alarm: np.ndarray, threshold: float, time: np.ndarray) -> float:
    """Return the number of alarms a day above a threshold; NaN if no time has passed."""
    days = float(np.ptp(time)) / 86_400 if len(time) else 0.0
    return int((alarm > threshold).sum()) / days if days else math.nan


def _format_count(count: float) -> str:
    """Return a count a day as text.

    >>> _format_count(1234.5), _format_count(6.2), _format_count(0.31), _format_count(0.0)
    ('1,234', '6', '0.3', '0')
    """
    if math.isnan(count):
        return "–"
    return f"{count:,.0f}" if count >= 1 or not count else f"{count:.1g}"
