"""The search for settings: a detector, window and threshold for a stream, labelled or not.

With labels the detectors compete for the best event F1, as in `comparison`. Without labels nothing
says which alarms are right, so the proposal is cautious: each of a few different detectors gets the
lowest threshold with at most one alarm in 1,000 rows, and the one whose clearest alarm stands out
most above it is proposed. bench/presets.py measures what that finds on recorded series.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from detectors import DETECTORS, Alarm, Direction
from redline.evaluation.comparison import (
    ComparisonEntry,
    EvaluationPlan,
    Trial,
    TrialResult,
    count_noun,
    rank_trials,
    suggest_settings,
)
from redline.evaluation.metrics import (
    THRESHOLD_GRID,
    most_anomalous_feature,
    row_truth,
    threshold_curve,
)
from redline.settings import SETTINGS_BY_NAME
from streams import Chunk

MIN_ROWS = 200  # fewer show no detector's usual scores
MAX_SEARCHED_ROWS = 20_000  # the newest rows are searched; more would take minutes
ROWS_PER_REPORT = 500  # rows scored between two reports of progress
LABELLED_WINDOWS = (60, 120, 240)  # steps; tried with labels, beside a detector's own window
MAX_ALARM_RATE = 1.0  # alarms in 1,000 rows that a proposal without labels raises at most
MIN_THRESHOLD = 3.0  # standard deviations; noise alone often reaches less
# (detector, window): each looks at something else; the first is proposed where none stands out more
UNLABELLED_CANDIDATES = (
    ("ensemble", 120),
    ("novelty", 120),
    ("seasonal", 480),
    ("autoregressive", 480),
)


class FoundSettings(NamedTuple):
    """Proposed settings, with the reason in one sentence."""

    detector: str
    window: int  # steps
    threshold: float  # standard deviations, a position of the page's slider
    direction: Direction
    alarms: float  # expected per 1,000 steps
    why: str


class SearchProgress(NamedTuple):
    """How far a search is."""

    done: float  # share of the work, 0 to 1
    trying: str  # what is tried now; "" at the end
    best: FoundSettings | None  # the best so far; at the end the proposal, None = there is none


class CautiousTrial(NamedTuple):
    """A trial with the lowest threshold that alarms no more often than wanted."""

    trial: Trial
    threshold: float

    @property
    def alarms(self) -> int:
        """Return how many alarms it raises."""
        return int((self.trial.alarm > self.threshold).sum())

    @property
    def contrast(self) -> float:
        """Return its highest alarm in thresholds, 0 = it raises none."""
        highest = float(np.nan_to_num(self.trial.alarm).max())
        return highest / self.threshold if highest > self.threshold else 0.0


def find_settings(
    x: np.ndarray,
    label: np.ndarray | None = None,
    floors: tuple[float, ...] = (),
    detectors: Sequence[str] = (),
) -> Iterator[SearchProgress]:
    """Search for settings; yield the progress after each slice of rows, at the end the proposal.

    It holds no thread and shares nothing: stop iterating to cancel. A slice takes a small part of
    a second; a search of 10,000 rows takes many seconds, so keep it off an event loop. Only the
    newest MAX_SEARCHED_ROWS rows are searched. Labels that name no anomaly count as none.

    Args:
        x: (steps, features) in any unit, NaN = missing.
        label: (steps, features) index into KINDS; None = no labels.
        floors: the smallest believable spread of each feature, in its unit; () = 0 for all.
        detectors: those that compete where there are labels; () = all.

    Raises:
        ValueError: x has fewer than MIN_ROWS rows; raised by the first `next`.
    """
    if len(x) < MIN_ROWS:
        raise ValueError(
            f"wanted at least {MIN_ROWS} rows to find settings for, got {len(x)}; wait for more"
        )
    x = x[-MAX_SEARCHED_ROWS:]
    label = None if label is None else label[-MAX_SEARCHED_ROWS:]
    floors = floors or (0.0,) * x.shape[1]
    truth = row_truth(label)
    if truth is not None and truth.anomalous.any():
        yield from _search_labelled(x, label, floors, detectors or tuple(DETECTORS))
    else:
        yield from _search_unlabelled(x, floors)


def cautious_threshold(alarm: np.ndarray) -> float | None:
    """Return the lowest threshold from MIN_THRESHOLD on with at most MAX_ALARM_RATE alarms.

    alarm: (steps,) alarm scores, NaN = no opinion. None where even the highest alarms too often.

    >>> alarm = np.zeros(2000)
    >>> alarm[[300, 900, 1500]] = 8.0, 6.0, 3.45
    >>> cautious_threshold(alarm)
    3.5
    """
    allowed = MAX_ALARM_RATE * len(alarm) / 1000
    counts = threshold_curve(alarm, alarm, None).alarms  # (thresholds,)
    fitting = np.flatnonzero((counts <= allowed) & (THRESHOLD_GRID >= MIN_THRESHOLD))
    return float(THRESHOLD_GRID[fitting[0]]) if len(fitting) else None


def _search_labelled(
    x: np.ndarray,
    label: np.ndarray | None,
    floors: tuple[float, ...],
    detectors: Sequence[str],
) -> Iterator[SearchProgress]:
    """Yield the progress of a search for the best event F1."""
    plan = EvaluationPlan(float(SETTINGS_BY_NAME["threshold"].default), timed=False)
    chunk = Chunk(np.arange(len(x), dtype=np.float64), x, label)
    jobs = {name: _labelled_windows(name) for name in detectors}
    total = sum(map(len, jobs.values()))
    done = 0
    entries: list[ComparisonEntry] = []
    best: FoundSettings | None = None
    for name, windows in jobs.items():
        trials = []
        for window in windows:
            trial = yield from _run_trial((name, window), x, floors, (done, total, best))
            trials += [trial] if trial else []
            done += 1
        entries += rank_trials(trials, chunk, plan)
        best = _suggested(entries, plan)
    if best is None:  # no detector hits an event at any threshold
        yield from _search_unlabelled(x, floors)
    else:
        yield SearchProgress(1.0, "", best)


def _labelled_windows(name: str) -> list[int]:
    """Return the windows to try, none for a detector whose extra is not installed."""
    try:
        own = DETECTORS[name].window
    except ImportError:
        return []
    return sorted({*LABELLED_WINDOWS, own})


def _suggested(entries: list[ComparisonEntry], plan: EvaluationPlan) -> FoundSettings | None:
    """Return the settings of the best of some entries; None where none hits an event."""
    found = suggest_settings(entries, plan)
    if found is None:
        return None
    entry = next(entry for entry in entries if entry.trial.detector == found.detector)
    alarms = int((entry.trial.alarm > found.threshold).sum())
    rate = 1000 * alarms / len(entry.trial.alarm)
    return FoundSettings(found.detector, found.window, found.threshold, "both", rate, found.why)


def _search_unlabelled(x: np.ndarray, floors: tuple[float, ...]) -> Iterator[SearchProgress]:
    """Yield the progress of a search for settings with few alarms that other detectors share."""
    best: FoundSettings | None = None
    trials: list[CautiousTrial] = []
    for done, job in enumerate(UNLABELLED_CANDIDATES):
        trial = yield from _run_trial(job, x, floors, (done, len(UNLABELLED_CANDIDATES), best))
        threshold = None if trial is None else cautious_threshold(trial.alarm)
        if trial is not None and threshold is not None:
            trials.append(CautiousTrial(trial, threshold))
            best = _clearest(trials)
    yield SearchProgress(1.0, "", best)


def _clearest(trials: Sequence[CautiousTrial]) -> FoundSettings:
    """Return the settings of the trial whose clearest alarm stands out most, the first of ties."""
    best = max(trials, key=lambda trial: trial.contrast)
    rows = len(best.trial.alarm)
    counted = f"{count_noun(best.alarms, 'alarm')} in {rows:,} rows"
    why = f"{counted}: nothing stands out, so the threshold lies above all of them."
    if best.contrast:
        why = (
            f"{counted}, the clearest at {best.contrast:.1f} times the threshold, the most of "
            f"{count_noun(len(trials), 'candidate')}; without labels it is only a start."
        )
    rate = 1000 * best.alarms / rows
    return FoundSettings(best.trial.detector, best.trial.window, best.threshold, "both", rate, why)


def _run_trial(
    job: tuple[str, int],
    x: np.ndarray,
    floors: tuple[float, ...],
    state: tuple[int, int, FoundSettings | None],
) -> Generator[SearchProgress, None, Trial | None]:
    """Score x by a detector with its window, slice by slice; None where it cannot run.

    state: trials done before, all trials, the best settings so far.
    """
    name, window = job
    done, total, best = state
    began = perf_counter()
    parts = []
    try:
        detector = DETECTORS[name](window=window, floor=floors)
        for first in range(0, len(x), ROWS_PER_REPORT):
            share = first / len(x)
            yield SearchProgress((done + share) / total, f"{name}, window {window}", best)
            rows = x[first : first + ROWS_PER_REPORT]
            verdict = detector.advance(rows[:, None, :] if detector.joint else rows)
            parts.append(most_anomalous_feature(verdict))
    # a setting it does not take, a matrix without an inverse, a missing extra
    except (ValueError, ArithmeticError, ImportError):
        return None
    score, feature, expected = (np.concatenate(column) for column in zip(*parts))
    alarm = Alarm(refractory=int(SETTINGS_BY_NAME["refractory"].default)).update(score[:, None])
    micros = (perf_counter() - began) / len(x) * 1e6
    return Trial(name, window, TrialResult(score, alarm[:, 0], feature, expected), micros)
