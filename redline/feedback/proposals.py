"""Proposals of settings that agree with more of the labels people gave."""

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
    _few,
    _share,
    label_mask,
    merge_labels,
)
from redline.settings import SETTINGS_BY_NAME, Settings

MISSED_TOLERANCE = 10  # steps after a missed one in which an anomaly still finds it
WINDOW_RATIOS = (1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)  # windows that are tried, of the one applied
THRESHOLD_MARGIN = 0.05  # a label is fitted with ease when the threshold could move by this share


class LabelledHistory(NamedTuple):
    """What the stream's buffer holds."""

    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    label: np.ndarray | None  # (n, features) index into KINDS, None = the stream knows no truth


class Proposal(NamedTuple):
    """Settings that agree with more of the labels than those applied; whether they are taken is for
    a person to say.
    """

    settings: Settings
    marks: int  # labels in the buffer
    fits: int  # how many of them these settings agree with
    fits_now: int  # and how many those applied
    alarms: float  # a day, in the buffer
    alarms_now: float
    text: str


class TriedSettings(NamedTuple):
    """What one window says of the buffer and of what was labelled in it."""

    settings: Settings
    score: np.ndarray  # (n,) NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    expected: np.ndarray  # (labels,) the highest score in each span that is said to be expected
    missed: np.ndarray  # (labels,) and in reach of each that was missed


HistoryScorer = Callable[
    [Settings, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # x (n, features) -> scores and alarm scores, (n,)
ThresholdJudge = Callable[
    [np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray | None
]  # score, alarm, label, thresholds -> F1 at each


def propose_settings(
    past: LabelledHistory,
    labels: Iterable[Label],
    settings: Settings,
    scorer: HistoryScorer,
    judge: ThresholdJudge | None = None,
) -> Proposal | None:
    """Window and threshold that fit more of the labels in the buffer than `settings` do; None under
    MARKS labels, or when none do.

    Of those that fit the most: with ease, then the best F1 against the stream's own truth and the
    labels, then the smallest change.
    """
    said = [label for label in labels if len(label_mask(past.time, label))]
    if len(said) < MIN_LABELS:
        return None
    grid = _grid()
    tried = [
        _tried(past, said, replace(settings, window=window), scorer)
        for window in candidate_windows(settings.window, len(past.x))
    ]
    truth = None if past.label is None else merge_labels(past.label, past.time, said)
    judged = [
        None if judge is None or truth is None else judge(one.score, one.alarm, truth, grid)
        for one in tried
    ]
    ranked = [
        (*rank, one, t)
        for one, f1 in zip(tried, judged)
        for rank, t in zip(_ranks(one, f1, grid, settings), grid.tolist())
    ]
    fits, *_, best, threshold = max(ranked, key=lambda each: each[:-2])
    now = next(one for one in tried if one.settings == settings)
    fits_now = int(_fits(now, np.array([settings.threshold]))[0])
    if fits <= fits_now:
        return None
    alarms = _a_day(best.alarm, threshold, past.time)
    alarms_now = _a_day(now.alarm, settings.threshold, past.time)
    words = f"window {best.settings.window}, threshold {threshold:g} fits {_share(fits, len(said))}"
    words += f"; alarms a day {_few(alarms_now)} → {_few(alarms)}"
    return Proposal(
        replace(best.settings, threshold=threshold),
        len(said),
        fits,
        fits_now,
        alarms,
        alarms_now,
        words,
    )


def candidate_windows(window: int, steps: int) -> list[int]:
    """The windows that are tried, the present one among them: none too long to have an opinion on
    most of the buffer.

    >>> candidate_windows(60, 10_000), candidate_windows(60, 200)
    ([30, 40, 60, 90, 120, 180], [30, 40, 60])
    """
    low = int(SETTINGS_BY_NAME["window"].low)
    high = min(int(SETTINGS_BY_NAME["window"].high), steps // 3)
    return sorted(
        {window} | {w for share in WINDOW_RATIOS if low <= (w := round(window * share)) <= high}
    )


def _grid() -> np.ndarray:
    """The thresholds of the slider."""
    row = SETTINGS_BY_NAME["threshold"]
    grid: np.ndarray = np.round(np.arange(row.low, row.high + 0.05, 0.1), 1)
    return grid


def _tried(
    past: LabelledHistory, said: Sequence[Label], settings: Settings, scorer: HistoryScorer
) -> TriedSettings:
    """Scores the buffer under one setting; a span without a score was not flagged."""
    score, alarm = scorer(settings, past.x)
    known = np.nan_to_num(score, nan=0.0)
    peaks: dict[str, list[float]] = {EXPECTED_LABEL: [], MISSED_LABEL: []}
    for label in said:
        rows = label_mask(past.time, label)
        last = rows.max() if label.kind == EXPECTED_LABEL else rows.max() + MISSED_TOLERANCE
        peaks[label.kind].append(float(known[rows.min() : last + 1].max()))
    return TriedSettings(
        settings, score, alarm, np.array(peaks[EXPECTED_LABEL]), np.array(peaks[MISSED_LABEL])
    )


def _fits(one: TriedSettings, thresholds: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """How many labels each threshold agrees with, also when it moves by a margin either way."""
    expected = one.expected[:, None] <= thresholds * (1 - margin)
    missed = one.missed[:, None] > thresholds * (1 + margin)
    fits: np.ndarray = expected.sum(axis=0) + missed.sum(axis=0)
    return fits


def _ranks(
    one: TriedSettings, f1: np.ndarray | None, grid: np.ndarray, now: Settings
) -> list[tuple[int, int, float, float]]:
    """How good each threshold is under one window, the more the better, in the order that `propose`
    states.
    """
    gain = np.zeros(len(grid)) if f1 is None else np.round(np.nan_to_num(f1, nan=0.0), 2)
    change = np.abs(np.log(grid / now.threshold)) + abs(math.log(one.settings.window / now.window))
    return list(
        zip(
            _fits(one, grid).tolist(),
            _fits(one, grid, THRESHOLD_MARGIN).tolist(),
            gain.tolist(),
            (-change).tolist(),
        )
    )


def _a_day(alarm: np.ndarray, threshold: float, time: np.ndarray) -> float:
    days = float(np.ptp(time)) / 86_400 if len(time) else 0.0
    return int((alarm > threshold).sum()) / days if days else math.nan
