"""The View: marks, spans, truth and sentences, from numbers written by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.engine import wording
from redline.page import view
from redline.page.view import MIN_SPAN_STEPS, TrackRows, make_view

STREAM = SimpleNamespace(title="CPU", names=("CPU",), units=("%",), period=1.0)


def track_rows(score, x=None, stream=STREAM, first=100, **changes):
    """Return rows with the given scores, expected between 20 and 45."""
    score = np.asarray(score, float)
    n, features = len(score), len(stream.names)
    x = np.full((n, features), 30.0) if x is None else np.asarray(x, float).reshape(n, features)
    base = TrackRows(
        stream,
        first,
        first + n,
        np.arange(n) + 50_000.0,
        x,
        None,
        score,
        score,
        np.tile(score[:, None], features),
        None,
        None,
    )
    band = {"low": np.full((n, features), 20.0), "high": np.full((n, features), 45.0)}
    return base._replace(**{**band, **changes})


def test_a_mark_says_value_expected_range_deviations_and_which_in_a_row():
    seen = make_view(track_rows([1, 4, 5, 1], [30, 90, 97, 30]), 3.5, None, None)
    assert [(m.row, m.severity) for m in seen.marks] == [(1, "info"), (2, "info")]
    reason = "97 %, expected 20 to 45, 5.0 σ above, second in a row"
    assert seen.marks[1].reason == f"{reason}, severity 71 of 100"
    assert (
        seen.sentence
        == "CPU was unusual at 13:53:22: 97 %, expected 20 to 45, 5.0 σ above, second in a row."
    )


def test_of_a_run_that_is_over_the_step_that_stands_out_most_is_explained():
    seen = make_view(track_rows([1, 5, 9, 4, 1], [30, 80, 97, 31, 30]), 3.5, None, None)
    assert seen.sentence.startswith("CPU was unusual at 13:53:22: 97 %, expected 20 to 45, 9.0 σ")


def test_the_view_says_how_severe_its_newest_anomaly_was_and_whether_it_goes_on():
    for scores, severity, ongoing in (
        ([1, 9, 4, 1], "critical", False),
        ([9, 1, 1, 6], "warning", True),
        ([1, 9, 4], "critical", True),
        ([1, 1], "", False),
        ([np.nan, np.nan], "", False),
    ):
        seen = make_view(track_rows(scores, [5] * len(scores)), 3.5, None, None)
        assert (seen.severity, seen.ongoing) == (severity, ongoing), scores


def test_a_run_that_is_still_going_on_is_said_in_the_present():
    assert make_view(track_rows([1, 9, 9], [30, 5, 5]), 3.5, None, None).sentence.startswith(
        "CPU is unusual since 13:53:21: 5 %, expected 20 to 45, 9.0 σ below"
    )


@pytest.mark.parametrize(("score", "word"), [(3.6, "info"), (5.3, "warning"), (7.0, "critical")])
def test_severity_follows_the_ratio_of_score_and_threshold(score, word):
    assert wording.severity(score, 3.5) == word


def test_no_opinion_is_never_a_mark_and_learning_is_said():
    seen = make_view(track_rows([math.nan] * 5), 3.5, None, None)
    assert not seen.marks and seen.sentence == "CPU: learning what is normal."


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 30))
def test_a_mark_once_drawn_stays_when_more_rows_come(flags, more):
    score = np.where(flags, 9.0, 1.0)
    early = make_view(track_rows(score), 3.5, None, None).marks
    late = make_view(track_rows(np.concatenate([score, np.full(more, 9.0)])), 3.5, None, None).marks
    assert late[: len(early)] == early


@given(st.lists(st.booleans(), max_size=60))
def test_every_anomalous_row_is_a_mark_or_inside_a_span(flags):
    seen = make_view(track_rows(np.where(flags, 9.0, 1.0)), 3.5, None, None)
    shown = {m.row for m in seen.marks} | {row for a, b in seen.spans for row in range(a, b + 1)}
    assert shown == set(np.flatnonzero(flags).tolist())
    assert all(b - a + 1 >= MIN_SPAN_STEPS for a, b in seen.spans)


def test_events_are_cut_to_the_view_and_absent_where_no_truth_is_known():
    events = [
        (0, 50, "shift", "missed"),
        (90, 101, "point", "caught"),
        (103, 103, "point", "missed"),
        (900, 901, "drift", "open"),
    ]
    seen = make_view(track_rows([1, 1, 1, 1]), 3.5, None, events)
    shown = [(event.first, event.last, event.outcome) for event in seen.truth]
    assert shown == [(0, 1, "caught"), (3, 3, "missed")]
    assert make_view(track_rows([1.0]), 3.5, None, None).truth is None


def test_a_mark_belongs_to_each_feature_above_the_threshold_else_to_the_one_that_carries_most():
    assert view.anomalous_features(np.array([4.0, 1.0, 5.0]), 3.5) == [0, 2]
    assert view.anomalous_features(np.array([1.0, 2.5, math.nan]), 3.5) == [1]


def test_a_detector_without_a_band_says_its_score():
    assert (
        make_view(track_rows([1, 6.04], low=None, high=None), 3.5, None, None).marks[0].reason
        == "30.0 %, score 6.0 σ, severity 82 of 100"
    )


def test_the_line_breaks_where_time_jumps_and_not_where_it_repeats_or_goes_back():
    time = np.array([0.0, 1, 2, 2, 1, 2, 4, 5.4])
    assert np.flatnonzero(view.line_breaks(time, 1.0)).tolist() == [6]


def test_gaps_are_runs_without_a_value_or_jumps_in_time_and_learning_is_no_opinion():
    two = SimpleNamespace(title="T", names=("a", "b"), units=("", ""), period=1.0)
    x = np.ones((8, 2))
    x[3] = np.nan
    x[5, 1] = np.nan
    score = [math.nan, math.nan, 1, math.nan, 1, 1, 1, math.nan]
    rows = track_rows(score, x, two)
    time = rows.time.copy()
    time[7] += 9
    seen = make_view(rows._replace(time=time, scored=107), 3.5, None, None)
    found = [(gap.first - 50_000, gap.last - 50_000, gap.feature, gap.text) for gap in seen.gaps]
    assert found == [
        (2.5, 3.5, None, "no data"),
        (6.0, 16.0, None, "no data"),
        (4.5, 5.5, 1, "no data"),
        (-0.5, 1.5, None, "learning"),  # not the last step, which is not scored yet
    ]


def test_the_first_of_a_run_leads_and_whatever_is_more_severe():
    seen = make_view(track_rows([1, 4, 4, 9, 9, 1, 4]), 3.5, None, None)
    assert [mark.leads for mark in seen.marks] == [True, False, True, False, True]
    assert np.flatnonzero(seen.red[:, 0]).tolist() == [1, 2, 3, 4, 6]


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1e12))
def test_any_number_can_be_written(value, spread):
    assert wording.format_quantity(value, "B/s", spread)
    assert wording.format_time(value, 1.0)


def test_a_detector_that_explains_its_score_says_which_feature_it_is_mostly():
    names = ("user", "system", "idle")
    stream = SimpleNamespace(title="CPU", names=names, units=("%",) * 3, period=1.0)
    rows = track_rows([1, 8.0], stream=stream)
    explained = rows._replace(parts=np.array([[1.0, 0, 0], [1.6, 5.0, 1.4]]))
    seen = make_view(explained, 3.5, None, None)
    assert f", mostly {names[1]} (62 %), severity" in seen.marks[0].reason
    assert seen.sentence.endswith(f", mostly {names[1]} (62 %).")
    alone = make_view(
        rows._replace(parts=np.array([[1.0, 1, 1], [8.0, 7.0, 1.0]])), 3.5, None, None
    )
    assert "mostly" not in alone.sentence, "its parts are scores of their own, no shares"


KINDS_OF_EVIDENCE = ("lasting", "novel", "sudden", "stuck")


def test_the_sentence_names_the_strongest_kind_of_evidence_on_one_feature():
    rows = track_rows([1, 8.0], [30, 90], kinds=KINDS_OF_EVIDENCE, kind=np.array([[0], [2]]))
    seen = make_view(rows, 3.5, None, None)
    reason = "90 %, expected 20 to 45, 8.0 σ above, mostly sudden"
    assert seen.sentence.endswith(f": {reason}.")
    assert seen.marks[0].reason.startswith(f"{reason}, severity")


def test_the_sentence_names_the_strongest_kind_of_evidence_with_its_feature_among_several():
    stream = SimpleNamespace(title="Oven", names=("heat", "flow"), units=("°C", ""), period=1.0)
    evidence = {"kinds": KINDS_OF_EVIDENCE, "kind": np.array([[0, 0], [2, 3]])}
    parts = np.array([[1.0, 0.0], [2.0, 6.0]])
    seen = make_view(track_rows([1, 8.0], None, stream, parts=parts, **evidence), 3.5, None, None)
    assert seen.sentence.endswith(", mostly stuck on flow (75 %).")
    assert ", mostly stuck on flow (75 %), severity" in seen.marks[0].reason
