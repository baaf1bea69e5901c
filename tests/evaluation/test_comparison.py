"""The comparison of detectors: ranking, suggestion, joint alarms, the document."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from comparison_samples import described, entries_of, file_of, laid, raised, same, scorer

from detectors import Verdict
from redline.evaluation import comparison, metrics
from redline.evaluation.comparison import EvaluationPlan, Trial
from streams import KINDS, Chunk

POINT = KINDS.index("point")
NAN = float("nan")


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


def test_a_detector_that_cannot_run_stops_no_other() -> None:
    chunk, faults = file_of(), []  # type: tuple[Chunk, list[comparison.TrialFailure]]
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


def test_each_alarm_names_the_feature_that_raised_it() -> None:
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


def test_trial_times_are_per_row() -> None:
    (trial,) = comparison.run_trials(np.zeros((1_000, 1)), [("blind", 60)], scorer, [])
    assert isinstance(trial, Trial) and 0 < trial.micros < 1_000


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
