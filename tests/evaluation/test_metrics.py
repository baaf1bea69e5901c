"""Metrics against labels: examples counted by hand, and a slow twin that counts row by row."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
from comparison_samples import laid, raised, same
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.evaluation import metrics
from redline.evaluation.metrics import compute_metrics, event_runs, row_truth, threshold_curve
from streams import KINDS

POINT, SHIFT, GAP = (KINDS.index(kind) for kind in ("point", "shift", "dropout"))
NAN = float("nan")


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
