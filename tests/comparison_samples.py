"""Small labelled files, detectors of known skill and their comparison, for several tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from redline.evaluation import comparison, metrics
from redline.evaluation.comparison import EvaluationPlan
from redline.reports import html
from streams import KINDS, Chunk

POINT = KINDS.index("point")
NAN = float("nan")


def laid(steps: int, **spans: tuple[int, int]) -> np.ndarray:
    """Labels (steps, 1) with a kind from its first to its last step."""
    label = np.zeros((steps, 1), np.int8)
    for kind, (first, last) in spans.items():
        label[first : last + 1] = KINDS.index(kind)
    return label


def raised(steps: int, at: dict[int, float]) -> np.ndarray:
    """Scores (steps,), 0 but where said."""
    score = np.zeros(steps)
    score[list(at)] = list(at.values())
    return score


def same(a: Any, b: Any) -> bool:
    """Equal, NaN equal to NaN."""
    return np.array_equal(np.asarray(a, dtype=float), np.asarray(b, dtype=float), equal_nan=True)


def file_of(steps: int = 1_000, every: int = 100) -> Chunk:
    """A file with a labelled point at each `every` steps, its value 10 there, 0 elsewhere."""
    label = np.zeros((steps, 1), np.int8)
    label[every // 2 :: every] = POINT
    return Chunk(np.arange(steps) * 60.0, label * 10.0, label)


def scorer(name: str, window: int, x: np.ndarray) -> comparison.TrialResult:
    """Detectors to be compared: one sees all from window 120 on, one the later half, one nothing,
    one another part with each window.
    """
    score = x[:, 0] / 2
    if name == "half":
        score[: len(x) // 2] = 0.0
    if name == "fickle":
        score[slice(500, None) if window == 60 else slice(400)] = 0.0
    if name == "blind" or (name == "sharp" and window < 120):
        score = np.zeros(len(x))
    if name == "broken":
        raise ValueError("it wants <a library>")
    return comparison.TrialResult(score, score, np.zeros(len(x), int), np.full(len(x), NAN))


def entries_of(
    chunk: Chunk, plan: EvaluationPlan, names: tuple[str, ...] = ("blind", "half", "sharp")
) -> list[comparison.ComparisonEntry]:
    jobs = [
        (name, window)
        for name in names
        for window in ((60, 120) if chunk.label is not None else (120,))
    ]
    trials = comparison.run_trials(chunk.x, jobs, scorer, [])
    # measured times would decide at random between entries of equal metrics
    timed = (t._replace(micros=2.0 if t.detector == "half" else 1.0) for t in trials)
    return comparison.sort_entries(comparison.rank_trials(timed, chunk, plan))


def described(
    chunk: Chunk, plan: EvaluationPlan, **facts: Any
) -> tuple[dict[str, Any], html.ReportPlot]:
    """A document with what the command line adds, and its picture."""
    entries = entries_of(chunk, plan)
    alarm, label = entries[0].trial.alarm, chunk.label
    fates = metrics.event_outcomes(alarm, label, plan.threshold)
    runs, hit = (
        np.array([fate[:2] for fate in fates]).reshape(-1, 2),
        np.array([fate.delay == fate.delay for fate in fates], bool),
    )
    called, false = (
        np.flatnonzero(alarm > plan.threshold),
        metrics.false_alarm_steps(alarm, label, plan.threshold),
    )
    given = {
        "source": "mine.csv",
        "names": ["load"],
        "from": "a",
        "to": "b",
        "notes": {},
        "joint_alarms": 0,
        "picture": "Alarms",
        "sentence": "So.",
    }
    alarms = [
        call._asdict() | {"time": None}
        for call in comparison.list_alarms(entries[0].trial, chunk, plan.threshold)
    ]
    given |= {"units": [""], "alarms": alarms, "faults": [], "reading": ["This way."]}
    document = given | comparison.comparison_document(entries, chunk, plan) | facts
    names = tuple(document["names"])
    seen = html.ReportPlot(
        chunk.time,
        chunk.x,
        names,
        ("",) * len(names),
        alarm,
        plan.threshold,
        called,
        false,
        runs,
        hit,
        plan.cut,
    )
    return document, seen
