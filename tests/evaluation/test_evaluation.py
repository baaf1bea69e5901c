"""Figures against labels: examples counted by hand, a slow twin that counts one row at a time, and
the report made of them.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from time import perf_counter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import Verdict
from redline.evaluation import comparison, metrics
from redline.evaluation.comparison import EvaluationPlan, Trial
from redline.evaluation.metrics import compute_metrics, event_runs, row_truth, threshold_curve
from redline.reports import html, ranking
from redline.reports.table import Table
from streams import KINDS, Chunk

POINT, SHIFT, GAP = KINDS.index("point"), KINDS.index("shift"), KINDS.index("dropout")
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


# --- by hand


def test_truth_of_rows_leaves_a_gap_out_unless_something_else_is_wrong() -> None:
    label = np.array([[0, 0], [POINT, GAP], [0, GAP], [GAP, GAP], [0, SHIFT]], np.int8)
    truth = row_truth(label)
    assert truth is not None
    assert truth.anomalous.tolist() == [False, True, False, False, True]
    assert truth.judged.tolist() == [True, True, False, False, True]
    assert row_truth(None) is None


def test_events_are_runs() -> None:
    assert event_runs(np.array([], bool)).tolist() == []
    assert event_runs(np.array([False, True, True, False, True])).tolist() == [[1, 2], [4, 4]]


def test_figures_counted_by_hand() -> None:
    # Events 5..9 and 40..40. Rows above 3: 6, 7 (caught), 19, 20, 51 (false); 12 has no opinion.
    label = laid(60, shift=(5, 9), point=(40, 40))
    score = raised(60, {6: 4.0, 7: 9.0, 12: NAN, 19: 5.0, 20: 5.0, 51: 5.0})
    # Alarms: 7 and 19 hit the first event (19 is 10 after its last), 20 is too late; 51 is 11 after
    # the second event.
    figures = compute_metrics(
        score, score * (score != 4.0), label, 3.0, np.arange(60) * 86_400 / 59
    )
    assert (figures.steps, figures.unscored, figures.anomalies, figures.alarms) == (60, 1, 5, 4)
    assert (figures.row_precision, figures.row_recall) == (2 / 5, 2 / 6)
    assert figures.row_f1 == pytest.approx(4 / 11)
    assert (figures.events, figures.hits, figures.false_alarms) == (2, 1, 2)
    assert (figures.event_precision, figures.event_recall, figures.event_f1) == (
        1 / 3,
        1 / 2,
        2 / 5,
    )
    assert figures.delay == 2.0
    assert (figures.alarms_per_day, figures.false_alarms_per_day) == (4.0, 2.0)


def test_an_alarm_between_two_near_events_hits_both() -> None:
    score = raised(30, {8: 5.0})
    figures = compute_metrics(score, score, laid(30, shift=(2, 3), point=(8, 8)), 3.0)
    assert (figures.hits, figures.false_alarms, figures.delay) == (2, 0, (6 + 0) / 2)


def test_a_gap_counts_nowhere() -> None:
    label = laid(40, dropout=(20, 24))
    score = raised(40, {22: 9.0})
    figures = compute_metrics(score, score, label, 3.0)
    assert (figures.anomalies, figures.alarms, figures.events, figures.false_alarms) == (1, 1, 0, 0)
    assert same(
        [figures.row_precision, figures.event_precision, figures.row_recall], [NAN, NAN, NAN]
    )
    assert (
        metrics.row_outcomes(score, label, 3.0).tolist() == [0] * 22 + [metrics.IN_GAP] + [0] * 17
    )  # type: ignore[union-attr]


def test_what_does_not_exist_is_nan_and_never_0_or_1() -> None:
    silent = compute_metrics(np.zeros(30), np.zeros(30), laid(30, point=(5, 5)), 3.0)
    assert same([silent.row_precision, silent.event_precision, silent.delay], [NAN] * 3)
    assert (silent.row_recall, silent.event_recall, silent.row_f1, silent.event_f1) == (
        0.0,
        0.0,
        0.0,
        0.0,
    )
    clean = compute_metrics(raised(30, {3: 9.0}), raised(30, {3: 9.0}), laid(30), 3.0)
    assert same([clean.row_recall, clean.event_recall], [NAN] * 2)
    assert (clean.row_precision, clean.event_precision) == (0.0, 0.0)
    empty = compute_metrics(np.zeros(0), np.zeros(0), laid(0), 3.0, np.zeros(0))
    assert (empty.steps, empty.alarms) == (0, 0)
    assert same([empty.event_f1, empty.alarms_per_day], [NAN, NAN])


def test_without_labels_every_figure_that_needs_them_is_none() -> None:
    score = raised(30, {3: 9.0})
    figures = compute_metrics(score, score, None, 3.0, np.arange(30.0))
    assert figures.anomalies == figures.alarms == 1
    assert all(value is None for value in figures[5:])
    assert all(value is None for value in threshold_curve(score, score, None)[3:])
    assert metrics.row_outcomes(score, None, 3.0) is None
    assert metrics.event_outcomes(score, None, 3.0) == []
    assert metrics.last_event_outcome(score, None, 3.0) is None
    assert metrics.best_threshold(threshold_curve(score, score, None)) is None
    assert not len(metrics.false_alarm_steps(score, None, 3.0))


def test_outcomes_name_each_row() -> None:
    label = laid(8, shift=(2, 4))
    score = np.array([0, 5, 5, NAN, 0, 5, 0, 0])
    wanted = [
        metrics.QUIET,
        metrics.FALSE_ALARM,
        metrics.CAUGHT,
        metrics.MISSED_ROW,
        metrics.MISSED_ROW,
        metrics.FALSE_ALARM,
        0,
        0,
    ]
    assert metrics.row_outcomes(score, label, 3.0).tolist() == wanted  # type: ignore[union-attr]


def test_the_last_event_is_caught_missed_or_still_open() -> None:
    label = laid(60, shift=(5, 9), point=(50, 50))
    caught = metrics.last_event_outcome(raised(60, {53: 9.0}), label, 3.0)
    assert caught == metrics.EventOutcome(50, 50, 3.0, False)
    still = metrics.last_event_outcome(np.zeros(60), label, 3.0)
    assert still is not None and np.isnan(still.delay) and still.open
    missed = metrics.last_event_outcome(np.zeros(60), label, 3.0, step=7)
    assert missed is not None and missed.first == 5 and np.isnan(missed.delay) and not missed.open
    assert metrics.last_event_outcome(np.zeros(60), label, 3.0, step=20) is None


def test_best_threshold_is_the_middle_of_the_best() -> None:
    label = laid(60, point=(20, 20))
    score = raised(60, {20: 6.0, 40: 3.0})
    thresholds = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    points = threshold_curve(score, score, label, thresholds)
    assert points.event_f1 is not None
    assert points.event_f1.tolist() == [2 / 3, 2 / 3, 1.0, 1.0, 1.0, 0.0]
    assert metrics.best_threshold(points) == metrics.best_threshold(points, by="row") == 4.0
    assert (
        metrics.best_threshold(threshold_curve(np.zeros(5), np.zeros(5), laid(5), thresholds))
        is None
    )


def test_a_threshold_for_a_rate_is_passed_by_no_more_than_that() -> None:
    score = np.concatenate([np.arange(1000.0), [NAN] * 50])
    found = metrics.threshold_for_rate(score, 0.01)
    assert found == 989.0 and (score > found).sum() == 10
    assert np.isnan(metrics.threshold_for_rate(np.array([NAN]), 0.01))
    with pytest.raises(ValueError, match="from 0 to below 1, got 5"):
        metrics.threshold_for_rate(score, 5)


def test_areas_by_hand() -> None:
    label = laid(4, point=(1, 1)) | laid(4, point=(3, 3))
    score = np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.roc_curve(score, label).area == 1.0
    assert metrics.precision_recall_curve(score, label).area == 1.0
    worse = np.array([0.1, 0.2, 0.35, 0.8])  # one of four pairs is in the wrong order
    assert metrics.roc_curve(worse, label).area == 0.75
    assert metrics.precision_recall_curve(worse, label).area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    blind = metrics.roc_curve(np.full(4, NAN), label)
    assert blind.area == 0.5 and metrics.precision_recall_curve(np.full(4, NAN), label).area == 0.5
    assert np.isnan(metrics.roc_curve(score, laid(4)).area) and np.isnan(
        metrics.precision_recall_curve(score, laid(4)).area
    )


# --- one row at a time


def share(part: float, whole: float) -> float:
    return part / whole if whole else NAN


def slow_rows(score: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Row figures from their definition, one row at a time."""
    right = wrong = wanted = 0
    for value, row in zip(score.tolist(), label.tolist()):
        kinds = set(row) - {0}
        bad, gap = bool(kinds - {GAP}), kinds == {GAP}
        wanted += bad
        right += value > threshold and bad
        wrong += value > threshold and not bad and not gap
    f1 = share(2 * right, 2 * right + wrong + wanted - right)
    return {
        "row_precision": share(right, right + wrong),
        "row_recall": share(right, wanted),
        "row_f1": f1,
    }


def slow_events(alarm: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Event figures from their definition, one row at a time."""
    runs: list[list[int]] = []
    for step, row in enumerate(label.tolist()):
        if set(row) - {0, GAP}:
            if runs and runs[-1][1] == step - 1:
                runs[-1][1] = step
            else:
                runs.append([step, step])
    calls = [step for step, value in enumerate(alarm.tolist()) if value > threshold]
    firsts = [min((c for c in calls if a <= c <= b + 10), default=None) for a, b in runs]
    delays = [c - a for (a, _), c in zip(runs, firsts) if c is not None]
    false = sum(
        set(label[c].tolist()) - {0} != {GAP} and not any(a <= c <= b + 10 for a, b in runs)
        for c in calls
    )
    return {
        "events": len(runs),
        "hits": len(delays),
        "false_alarms": false,
        "event_precision": share(len(delays), len(delays) + false),
        "event_recall": share(len(delays), len(runs)),
        "event_f1": share(2 * len(delays), len(delays) + false + len(runs)),
        "delay": share(sum(delays), len(delays)),
    }


def slow_judge(
    score: np.ndarray, alarm: np.ndarray, label: np.ndarray, threshold: float
) -> dict[str, float]:
    """Every figure from its definition."""
    counts = {
        "anomalies": sum(s > threshold for s in score.tolist()),
        "alarms": sum(a > threshold for a in alarm.tolist()),
    }
    return counts | slow_rows(score, label, threshold) | slow_events(alarm, label, threshold)


@st.composite
def watched(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, alarm scores and labels of up to 80 rows, with ties, gaps and missing opinions."""
    steps, features = draw(st.integers(0, 80)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    score = random.integers(0, 8, steps) + random.choice([0.0, 0.5, NAN], steps, p=[0.6, 0.3, 0.1])
    alarm = np.where(random.random(steps) < 0.3, score, 0.0)
    rate = draw(st.sampled_from([0.0, 0.05, 0.4]))
    label = np.where(
        random.random((steps, features)) < rate, random.integers(1, 8, (steps, features)), 0
    ).astype(np.int8)
    return score, alarm, np.repeat(label, draw(st.integers(1, 4)), axis=0)[:steps]


THRESHOLDS = np.array([-1.0, 0.0, 0.5, 2.0, 3.5, 7.0, 7.5, 9.0])


@given(watched())
@settings(max_examples=150, deadline=None)
def test_figures_equal_the_slow_twin(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    for threshold in (0.5, 3.5, 9.0):
        figures = compute_metrics(*case, threshold)
        wanted = slow_judge(*case, threshold)
        got = [getattr(figures, name) for name in wanted]
        assert np.allclose(got, list(wanted.values()), rtol=1e-12, equal_nan=True), dict(
            zip(wanted, zip(got, wanted.values()))
        )


@given(watched())
@settings(max_examples=100, deadline=None)
def test_a_curve_is_judge_at_each_threshold(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    points = threshold_curve(*case, THRESHOLDS)
    for i, threshold in enumerate(THRESHOLDS):
        figures = compute_metrics(*case, threshold)
        for name in points._fields[1:]:
            assert same(getattr(points, name)[i], getattr(figures, name)), (name, threshold)


@given(watched())
@settings(max_examples=100, deadline=None)
def test_outcomes_fates_and_figures_tell_the_same_story(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    score, alarm, label = case
    figures, codes = compute_metrics(*case, 3.5), metrics.row_outcomes(score, label, 3.5)
    assert codes is not None
    counts = np.bincount(codes, minlength=5)
    assert counts[[metrics.CAUGHT, metrics.FALSE_ALARM, metrics.IN_GAP]].sum() == figures.anomalies
    right, wrong, missed = counts[
        [metrics.CAUGHT, metrics.FALSE_ALARM, metrics.MISSED_ROW]
    ].tolist()
    assert same(figures.row_precision, right / (right + wrong) if right + wrong else NAN)
    assert same(figures.row_recall, right / (right + missed) if right + missed else NAN)
    fates = metrics.event_outcomes(alarm, label, 3.5)
    assert len(fates) == figures.events
    delays = [fate.delay for fate in fates if fate.delay == fate.delay]
    assert len(delays) == figures.hits and same(figures.delay, np.mean(delays) if delays else NAN)
    assert len(metrics.false_alarm_steps(alarm, label, 3.5)) == figures.false_alarms


@given(watched())
@settings(max_examples=100, deadline=None)
def test_areas_equal_their_definitions(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    score, _, label = case
    truth = row_truth(label)
    assert truth is not None
    known = np.where(np.isnan(score), -1.0, score)
    bad, good = known[truth.anomalous], known[truth.judged & ~truth.anomalous]
    pairs = [
        1.0 if b > g else 0.5 if b == g else 0.0 for b in bad for g in good
    ]  # the chance that an anomalous row outranks another
    assert np.isclose(
        metrics.roc_curve(score, label).area, np.mean(pairs) if pairs else NAN, equal_nan=True
    )
    total, recall = 0.0, 0.0
    for threshold in sorted(set(known.tolist()), reverse=True):
        right, wrong = (bad >= threshold).sum(), (good >= threshold).sum()
        if len(bad) and right + wrong:
            total, recall = (
                total + (right / len(bad) - recall) * right / (right + wrong),
                right / len(bad),
            )
    assert np.isclose(
        metrics.precision_recall_curve(score, label).area,
        total if len(bad) else NAN,
        equal_nan=True,
    )


@given(watched(), st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.99]))
@settings(max_examples=60, deadline=None)
def test_a_threshold_for_a_rate_is_the_lowest_that_holds(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], rate: float
) -> None:
    score = case[0][~np.isnan(case[0])]
    found = metrics.threshold_for_rate(case[0], rate)
    if not len(score):
        assert np.isnan(found)
        return
    assert (score > found).mean() <= rate
    lower = score[score < found]
    assert not len(lower) or (score > lower.max()).mean() > rate


def test_a_curve_over_a_whole_buffer_is_quick() -> None:
    random = np.random.default_rng(0)
    score = np.abs(random.normal(size=10_000))
    label = np.repeat(random.random((1_000, 3)) < 0.03, 10, axis=0).astype(np.int8)
    spent = []
    for _ in range(20):
        began = perf_counter()
        threshold_curve(score, score, label, np.linspace(1, 12, 60))
        spent.append(perf_counter() - began)
    assert min(spent) < 0.003, (
        f"{min(spent) * 1e3:.1f} ms for 10,000 steps and 60 thresholds, 3 ms at most"
    )


# --- ranking


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


def test_ranking_puts_the_best_first_with_its_best_window() -> None:
    chunk, plan = file_of(), EvaluationPlan(3.5)
    entries = entries_of(chunk, plan)
    assert [entry.trial.detector for entry in entries] == ["sharp", "half", "blind"]
    assert (
        entries[0].trial.window == 120
        and entries[0].best is not None
        and entries[0].best.event_f1 == 1.0
    )
    found = comparison.suggest_settings(entries, plan)
    assert found is not None and (found.detector, found.window) == ("sharp", 120)
    assert 1.5 <= found.threshold < 5.0
    counted = (
        "it hits 10 of 10 events with 0 false alarms (event F1 1.00; next comes half with 0.67)"
    )
    assert found.why == f"{counted}, chosen and judged on the same rows: expect less on new ones."


def test_each_entry_is_there_as_soon_as_its_detector_is_done() -> None:
    chunk, asked = file_of(), []

    def jobs() -> Any:
        for job in [("blind", 60), ("half", 60), ("half", 120), ("sharp", 60)]:
            asked.append(job)
            yield job

    ranking = comparison.rank_trials(
        comparison.run_trials(chunk.x, jobs(), scorer, []), chunk, EvaluationPlan(3.5)
    )
    assert next(ranking).trial.detector == "blind" and ("half", 120) not in asked
    assert next(ranking).trial.detector == "half" and len(asked) == 4


def test_one_that_cannot_run_stops_nobody() -> None:
    chunk, faults = file_of(), []  # type: tuple[Chunk, list[evaluate.Fault]]
    jobs = [(name, 120) for name in ("broken", "half", "broken", "sharp")]
    entries = comparison.sort_entries(
        comparison.rank_trials(
            comparison.run_trials(chunk.x, jobs, scorer, faults), chunk, EvaluationPlan(3.5)
        )
    )
    assert [entry.trial.detector for entry in entries] == ["sharp", "half"]
    assert faults == [comparison.TrialFailure("broken", 120, "it wants <a library>")] * 2
    with pytest.raises(TypeError):  # a programmer's mistake is no fault of the file's
        list(
            comparison.run_trials(
                chunk.x, [("half", "120")], lambda name, window, x: window + 1, []
            )
        )  # type: ignore[list-item, arg-type, return-value]


def test_alarms_are_told_one_by_one_by_the_feature_that_raised_them() -> None:
    verdict = Verdict(
        np.array([[1.0, 9.0], [NAN, 4.0], [NAN, NAN]]),
        np.array([[5.0, 6.0], [NAN, 8.0], [NAN, NAN]]),
    )
    score, feature, expected = metrics.most_anomalous_feature(verdict)
    assert (
        same(score, [9, 4, NAN]) and feature.tolist() == [1, 1, 0] and same(expected, [6, 8, NAN])
    )
    shared = Verdict(np.array([[9.0]]), parts=np.array([[[3.0, 6.0]]]))
    assert [value.tolist() for value in metrics.most_anomalous_feature(shared)[:2]] == [
        [9.0],
        [1],
    ] and np.isnan(metrics.most_anomalous_feature(shared)[2]).all()
    x, label = np.array([[1.0, 30.0], [2.0, NAN], [0.0, 0.0]]), laid(3, point=(2, 2))
    trial = Trial("any", 60, comparison.TrialResult(score, score, feature, expected), 1.0)
    alone = comparison.list_alarms(trial, Chunk(np.arange(3.0), x, None), 3.0)
    assert alone == [(0, 1, 30.0, 6.0, 9.0, None), (1, 1, None, 8.0, 4.0, None)]
    assert [
        call.false for call in comparison.list_alarms(trial, Chunk(np.arange(3.0), x, label), 3.0)
    ] == [True, True]
    assert comparison.list_joint_alarms([trial, trial], Chunk(np.arange(3.0), x, None), 3.0) == [
        (0, 1, 30.0, None, None, None)
    ]


def test_what_is_learned_does_not_depend_on_what_it_is_judged_on() -> None:
    chunk = file_of()
    label = chunk.label
    assert label is not None
    cut = comparison.learning_rows(label, 0.7)
    assert cut == 700
    other = Chunk(
        chunk.time,
        chunk.x,
        np.where(np.arange(1_000)[:, None] < cut, label, POINT - label).astype(np.int8),
    )
    names = ("blind", "half", "sharp", "fickle")
    mine, theirs = (
        {e.trial.detector: e for e in entries_of(each, EvaluationPlan(3.5, cut), names)}
        for each in (chunk, other)
    )
    assert (
        mine["fickle"].trial.window == 60
        and entries_of(chunk, EvaluationPlan(3.5), names)[1].trial.window == 120
    )
    for name, entry in mine.items():
        assert (entry.trial.window, entry.threshold) == (
            theirs[name].trial.window,
            theirs[name].threshold,
        )
        assert same(entry.learned, theirs[name].learned)
    assert mine["sharp"].best != theirs["sharp"].best
    chosen = [
        comparison.suggest_settings(each.values(), EvaluationPlan(3.5, cut))
        for each in (mine, theirs)
    ]
    assert chosen[0] is not None and chosen[1] is not None and chosen[0][:3] == chosen[1][:3]
    assert (
        "on the first 700 rows it hits 7 of 7 events" in chosen[0].why
        and "on the 300 rows after them 3 of 3 events" in chosen[0].why
    )


def test_learning_takes_a_begun_event_whole() -> None:
    label = laid(100, shift=(60, 74)) | laid(100, point=(80, 80)) | laid(100, drift=(95, 96))
    assert (
        comparison.learning_rows(label, 0.7) == 91
    )  # 60..74 reaches to 84 and into 80, which reaches to 90
    assert comparison.learning_rows(label, 0.92) == 92
    for share, words in ((0.5, "no whole anomaly"), (0.96, "all there is")):
        with pytest.raises(ValueError, match=words):
            comparison.learning_rows(label, share)
    with pytest.raises(ValueError, match="no labels"):
        comparison.learning_rows(None, 0.7)
    with pytest.raises(ValueError, match=r"between 0 and 1; got 1.5"):
        comparison.learning_rows(label, 1.5)


def test_agreement_by_hand() -> None:
    first, second, third = (
        raised(60, {10: 1, 40: 1}) > 0,
        raised(60, {20: 1}) > 0,
        np.zeros(60, bool),
    )
    assert same(
        comparison.alarm_agreement([first, second, third]),
        [[1, 0.5, 0], [1, 1, 0], [NAN, NAN, NAN]],
    )
    assert comparison.joint_alarms([first, second, third]).tolist() == [10]
    assert comparison.joint_alarms([first]).tolist() == [10, 40]
    assert comparison.joint_alarms([]).tolist() == []


def test_a_clock_never_looks() -> None:
    figures = comparison.periodic_baseline(file_of(), EvaluationPlan(3.5))
    assert (figures.alarms, figures.hits, figures.false_alarms) == (10, 0, 10)


# --- the document and the report


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
    told = [
        call._asdict() | {"time": None}
        for call in comparison.list_alarms(entries[0].trial, chunk, plan.threshold)
    ]
    given |= {"units": [""], "alarms": told, "faults": [], "reading": ["This way."]}
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


def test_a_document_is_json_and_invents_nothing() -> None:
    chunk = file_of()
    document, _ = described(chunk, EvaluationPlan(3.5))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["ranking"][0]["suggested"] and document["agreement"] is None
    bare, _ = described(Chunk(chunk.time, chunk.x, None), EvaluationPlan(3.5))
    assert json.loads(json.dumps(bare, allow_nan=False)) == bare
    assert bare["suggestion"] is bare["clock"] is bare["events"] is None
    for row in bare["ranking"]:
        assert (
            row["best"]
            is row["learned"]
            is row["threshold"]
            is row["roc"]
            is row["pr"]
            is row["roc_area"]
            is None
        )
        assert row["start"]["event_recall"] is None and row["curve"]["row_recall"] is None
    assert {row["detector"]: row["agreement"] for row in bare["ranking"]} == {
        "half": 0.5,
        "sharp": 0.25,
        "blind": None,
    }


class Tags(HTMLParser):
    """Every tag is closed in order, and nothing is asked of anywhere else."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert tag not in ("script", "link", "img", "iframe", "object") and not {
            name for name, _ in attrs
        } & {"src", "href", "onclick", "onload"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(text: str) -> Tags:
    """A page after the checks that every report must pass."""
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert (
        "http" not in text
        and "nan" not in re.sub(r">[^<]*<", "><", text).lower()
        and "None" not in text
    )
    for drawing in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(drawing)
    return tags


@pytest.mark.parametrize(
    "plan", [EvaluationPlan(3.5), EvaluationPlan(3.5, 700)], ids=["whole", "learned"]
)
def test_a_report_is_one_closed_page(plan: EvaluationPlan) -> None:
    text = html.render_report(*described(file_of(), plan))
    tags = read_page(text)
    assert tags.seen.count("table") == 2 and tags.seen.count("tr") == (2 + 3) + (1 + 10)
    assert text.count("learned here") == (plan.cut > 0)
    assert "<em>suggested</em>" in text


def test_a_report_without_labels_speaks_of_no_truth() -> None:
    chunk = file_of()
    text = html.render_report(*described(Chunk(chunk.time, chunk.x, None), EvaluationPlan(3.5)))
    read_page(text)
    body = text[text.index("<main>") :]
    assert "Agreement" in body
    for word in ("precision", "recall", "F1", "truth", "missed", "suggested"):
        assert word not in body


def test_a_report_escapes_what_it_is_given() -> None:
    evil = '<script>alert("&")</script>'
    text = html.render_report(
        *described(
            file_of(),
            EvaluationPlan(3.5),
            source=evil,
            names=[evil],
            picture=evil,
            sentence=evil,
            notes={evil: 1},
            reading=[evil],
        )
    )
    read_page(text)
    assert evil not in text and text.count("&lt;script&gt;") >= 6
    chunk = file_of()
    document, seen = described(Chunk(chunk.time, chunk.x, None), EvaluationPlan(3.5))
    document["ranking"][0]["detector"] = evil
    text = html.render_report(document, seen)
    read_page(text)
    assert evil not in text and text.count("&lt;script&gt;") >= 4


@pytest.mark.parametrize(
    "x",
    [
        np.full((50, 1), NAN),
        np.full((50, 1), 7.0),
        np.full((1, 1), 3.0),
        np.where(np.arange(5_000)[:, None] % 7, 1e12, NAN),
        np.zeros((50, 9)),
    ],
    ids=["missing", "flat", "one row", "holes", "nine features"],
)
def test_a_report_draws_any_numbers(x: np.ndarray) -> None:
    names = tuple(f"f{i}" for i in range(x.shape[1]))
    document, _ = described(file_of(), EvaluationPlan(3.5), names=list(names))
    none = np.zeros(0, int)
    seen = html.ReportPlot(
        None,
        x,
        names,
        ("",) * len(names),
        x[:, 0] * NAN,
        3.5,
        np.array([0]),
        none,
        np.zeros((0, 2), int),
        none,
    )
    text = html.render_report(document, seen)
    read_page(text)
    assert ("The first 6 of 9 features" in text) == (len(names) == 9)


def test_a_report_names_who_could_not_run_and_why() -> None:
    fault = comparison.TrialFailure("broken", 60, "it wants <a library>")._asdict()
    document, seen = described(
        file_of(), EvaluationPlan(3.5), faults=[fault, fault | {"window": 120}]
    )
    text = html.render_report(document, seen)
    assert read_page(text).seen.count("tr") == (2 + 3 + 2) + (1 + 10)
    assert text.count("did not run: it wants &lt;a library&gt;") == 2
    assert ranking.failure_lines(document) == ["broken did not run: it wants <a library>"]
    assert [row[:3] for row in ranking.ranking_table(document).rows][3:] == [
        ("!", "broken", 60),
        ("!", "broken", 120),
    ]


def test_a_report_lists_each_alarm_with_its_feature() -> None:
    first = {
        "step": 4,
        "time": None,
        "feature": 1,
        "value": 7.5,
        "expected": None,
        "score": 9.0,
        "false": True,
    }
    named = {"names": ["load", "heat"], "units": ["", "°C"]}
    page = html.render_report(
        *described(
            file_of(), EvaluationPlan(3.5), alarms=[first, first | {"false": False}], **named
        )
    )
    rows = re.findall(r"<tr><th scope=\"row\">row 5</th>(.*?)</tr>", page)
    assert rows == [
        "<td>heat, °C</td><td>7.50</td><td>9.00</td><td>no</td>",
        "<td>heat, °C</td><td>7.50</td><td>9.00</td><td>yes</td>",
    ]
    assert '<th scope="col">expected</th>' not in page
    assert "The first 500 of 501." in html.render_report(
        *described(file_of(), EvaluationPlan(3.5), alarms=[first] * 501, **named)
    )
    assert "one by one" not in html.render_report(
        *described(file_of(), EvaluationPlan(3.5), alarms=[])
    )


def test_a_long_line_keeps_its_extremes_and_its_holes() -> None:
    values = np.sin(np.arange(100_000) / 50)
    values[[777, 50_000]] = [99.0, -99.0]
    values[60_000:60_010] = NAN
    points = html.thin_line(values)
    assert len(points) < 3 * html.COLUMNS
    drawn = [value for _, value in points]
    assert (
        max(drawn, key=lambda v: -1e9 if np.isnan(v) else v) == 99.0
        and np.nanmin(drawn) == -99.0
        and np.isnan(drawn).sum() == 1
    )
    steps = [step for step, _ in points]
    assert steps == sorted(steps)


def test_a_table_as_text_markdown_and_csv() -> None:
    small = Table(("name", "share"), [("a|b", 0.5), ("c", None), ("d", NAN)])
    assert small.text() == "name  share\na|b    0.50\nc         -\nd         -"
    assert (
        small.markdown() == "| name | share |\n|---|---:|\n| a\\|b | 0.50 |\n| c | - |\n| d | - |"
    )
    assert small.csv() == "name,share\na|b,0.5\nc,\nd,"
    assert Table(("name", "share"), []).text() == "name  share"


def test_trial_times_are_per_row() -> None:
    (trial,) = comparison.run_trials(np.zeros((1_000, 1)), [("blind", 60)], scorer, [])
    assert isinstance(trial, Trial) and 0 < trial.micros < 1_000
