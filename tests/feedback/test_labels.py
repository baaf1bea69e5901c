"""People's labels as truth, and the settings proposed from them."""

import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, Alarm
from redline.engine import track
from redline.evaluation import metrics
from redline.feedback import labels
from redline.feedback.labels import (
    EXPECTED_LABEL,
    MAX_NOTE_LENGTH,
    MIN_LABELS,
    MISSED_LABEL,
    Label,
    LabelError,
    LabelledRows,
    LabelPersistence,
    LabelRegistry,
    merge_labels,
)
from redline.feedback.proposals import LabelledHistory, propose_settings
from redline.settings import Settings
from streams import KINDS, STREAMS

POINT, COLLECTIVE, GAP = (KINDS.index(kind) for kind in ("point", "collective", "dropout"))
TIME = np.arange(10.0)


def said(kind, start, end=None, **more):
    return Label(
        "cpu",
        float(start),
        float(start if end is None else end),
        kind,
        "ann",
        **{"at": 0.0, **more},
    )


def score(applied, x):
    """Return the scores and alarm scores that the monitor gives x under these settings."""
    detector = DETECTORS[applied.detector](window=applied.window, direction=applied.direction)
    row = np.fmax.reduce(track.score_features(detector, x).score, axis=1)[:, None]
    return row[:, 0], Alarm(refractory=applied.refractory, memory=applied.habituation).update(row)[
        :, 0
    ]


def event_f1(score, alarm, label, thresholds):
    return metrics.threshold_curve(score, alarm, label, thresholds).event_f1


# --- labels as truth


def test_the_word_of_a_person_goes_over_the_streams_own_truth():
    own = np.zeros((10, 2), np.int8)
    own[2:5, 0], own[7] = COLLECTIVE, GAP
    truth = merge_labels(
        own,
        TIME,
        [said(EXPECTED_LABEL, 3, 7), said(MISSED_LABEL, 8, 9, feature=1), said(MISSED_LABEL, 0)],
    )
    assert truth.T.tolist() == [
        [POINT, 0, COLLECTIVE, 0, 0, 0, 0, GAP, 0, 0],
        [POINT, 0, 0, 0, 0, 0, 0, GAP, COLLECTIVE, COLLECTIVE],
    ]
    assert own[3, 0] == COLLECTIVE, "what the stream said is left as it was"


def test_a_gap_cannot_be_expected_but_a_person_may_say_that_one_was_missed():
    own = np.full((10, 1), GAP, np.int8)
    assert merge_labels(own, TIME, [said(EXPECTED_LABEL, 0, 9)]).tolist() == own.tolist()
    assert merge_labels(own, TIME, [said(MISSED_LABEL, 4)])[4, 0] == POINT


def test_the_newest_word_wins():
    own = np.zeros((10, 1), np.int8)
    two = [said(MISSED_LABEL, 4, at=2.0), said(EXPECTED_LABEL, 4, at=1.0)]
    assert merge_labels(own, TIME, two)[4, 0] == merge_labels(own, TIME, two[::-1])[4, 0] == POINT
    assert (
        merge_labels(
            own, TIME, [said(EXPECTED_LABEL, 4, at=1.0, id=2), said(MISSED_LABEL, 4, at=1.0, id=1)]
        )[4, 0]
        == 0
    )


def test_without_a_word_nothing_is_touched():
    own = np.zeros((10, 1), np.int8)
    assert merge_labels(own, TIME, []) is own
    assert merge_labels(None, TIME, [said(MISSED_LABEL, 100)]) is None


def test_a_point_between_two_steps_is_the_nearer_one_and_one_outside_is_none():
    own = np.zeros((10, 1), np.int8)
    assert np.flatnonzero(merge_labels(own, TIME, [said(MISSED_LABEL, 4.4)])).tolist() == [4]
    assert np.flatnonzero(merge_labels(own, TIME, [said(MISSED_LABEL, 4.6)])).tolist() == [5]
    assert merge_labels(own, TIME, [said(MISSED_LABEL, -0.1), said(MISSED_LABEL, 9.1)]) is own


def test_labels_count_in_precision_and_recall_also_where_there_is_no_other_truth():
    scores = np.array([0, 9, 0, 0, 9, 0, 0, 0, 9, 0], float)
    mine = [said(EXPECTED_LABEL, 1), said(MISSED_LABEL, 4), said(MISSED_LABEL, 6)]
    figures = metrics.compute_metrics(scores, scores, merge_labels(None, TIME, mine), 3.0)
    assert (figures.row_precision, figures.row_recall) == (0.5, 0.5), (
        "row 8 is nobody's: not right, not wrong"
    )
    figures = metrics.compute_metrics(
        scores, scores, merge_labels(np.zeros((10, 1), np.int8), TIME, mine), 3.0
    )
    assert (figures.row_precision, figures.row_recall) == (1 / 3, 0.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([EXPECTED_LABEL, MISSED_LABEL]), st.integers(0, 9), st.integers(0, 4)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_merging_equals_asking_of_each_row_who_spoke_last(spoken):
    mine = [
        said(kind, start, min(start + length, 9), at=float(n))
        for n, (kind, start, length) in enumerate(spoken)
    ]
    truth = metrics.row_truth(merge_labels(None, TIME, mine))
    for row in range(10):
        last = next((label.kind for label in mine[::-1] if label.start <= row <= label.end), None)
        assert (truth.anomalous[row], truth.judged[row]) == (last == MISSED_LABEL, last is not None)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 12).map(float), min_size=1, max_size=12),
    st.integers(-2, 28),
    st.integers(0, 10),
)
def test_the_rows_of_a_label_are_those_that_a_scan_finds_whatever_their_order(times, start, length):
    time = np.array(times)
    label = said(MISSED_LABEL, start / 2, (start + length) / 2)
    rows = np.flatnonzero((time >= label.start) & (time <= label.end))
    if not len(rows) and time.min() <= label.start and label.end <= time.max():
        rows = np.array([int(np.abs(time - (label.start + label.end) / 2).argmin())])
    assert LabelledRows(time).of_label(label).tolist() == rows.tolist()


# --- validation


def test_the_note_of_a_label_holds_nothing_that_cannot_be_seen() -> None:
    label = LabelRegistry().add(said(MISSED_LABEL, 1, note=" red\x1b[31m\u202e txt.exe\nnext "))
    assert label.note == "red [31m txt.exe\nnext"


@pytest.mark.parametrize(
    ("label", "features", "words"),
    [
        (said("odd", 1), 1, "kind: wanted expected or missed; came 'odd'"),
        (said(MISSED_LABEL, 0, 1e300), 1, "end: wanted .* in the years 1 to 9999; came 1e.300"),
        (said(MISSED_LABEL, -1e300, 0), 1, "start: wanted .* in the years 1 to 9999; came -1e.300"),
        (said(MISSED_LABEL, 1, note="\ud800"), 1, "note: wanted text that UTF-8 can hold"),
        (
            said(MISSED_LABEL, math.nan),
            1,
            "start: wanted seconds since .*; came nan",
        ),
        (
            said(MISSED_LABEL, 1)._replace(end="tomorrow"),
            1,
            "end: wanted seconds since the Unix epoch, .*; came 'tomorrow'",
        ),
        (said(MISSED_LABEL, 1)._replace(start=True), 1, "start: .* came True"),
        (said(MISSED_LABEL, 2, 1), 1, "end: wanted a time not before the start, 2.0; came 1.0"),
        (said(MISSED_LABEL, 1, feature=2), 2, "feature: wanted none, or one of the 2"),
        (said(MISSED_LABEL, 1, feature=-1), 2, "feature: wanted none"),
        (
            said(MISSED_LABEL, 1, note="x" * (MAX_NOTE_LENGTH + 1)),
            1,
            "note: wanted at most 500 characters",
        ),
    ],
)
def test_a_label_that_cannot_be_taken_says_why(label, features, words):
    with pytest.raises(LabelError, match=words):
        LabelRegistry().add(label, features)


def test_labels_are_kept_taken_back_and_restored():
    kept = {}
    mine = LabelRegistry(LabelPersistence(lambda row: kept.update({row["id"]: row}), kept.pop))
    first, second = (
        mine.add(said(EXPECTED_LABEL, 1, note="backup")),
        mine.add(said(MISSED_LABEL, 3, 4, feature=1), features=2),
    )
    mine.add(said(MISSED_LABEL, 5)._replace(stream="wave"))
    assert [label.id for label in mine.of_stream("cpu")] == [first.id, second.id]
    assert mine.remove(first.id) == first
    with pytest.raises(KeyError):
        mine.remove(first.id)
    twin = LabelRegistry()
    twin.restore(json.loads(json.dumps(list(kept.values()))))
    assert twin.items == mine.items
    assert twin.add(said(MISSED_LABEL, 9)).id == 4, "an id is given once"


def test_a_label_that_cannot_be_written_is_not_there():
    def full(row):
        raise OSError("the disk is full")

    mine = LabelRegistry(LabelPersistence(full))
    with pytest.raises(OSError, match="full"):
        mine.add(said(MISSED_LABEL, 1))
    assert mine.items == {}


def test_one_stream_may_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(labels, "MAX_LABELS", 2)
    mine = LabelRegistry()
    for start in (1, 2):
        mine.add(said(MISSED_LABEL, start))
    with pytest.raises(LabelError, match="at most 2 of one stream"):
        mine.add(said(MISSED_LABEL, 3))
    mine.add(said(MISSED_LABEL, 3)._replace(stream="wave"))


def test_all_streams_together_may_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(labels, "MAX_ALL_LABELS", 2)
    mine = LabelRegistry()
    first = mine.add(said(MISSED_LABEL, 1))
    mine.add(said(MISSED_LABEL, 2)._replace(stream="wave"))
    with pytest.raises(LabelError, match="at most 2 of all streams"):
        mine.add(said(MISSED_LABEL, 3)._replace(stream="iot"))
    mine.remove(first.id)
    assert mine.of_stream("cpu") == []
    mine.add(said(MISSED_LABEL, 3)._replace(stream="iot"))


# --- proposals


def noisy(spikes, steps=3_000, seed=7):
    """Return noise without truth, a step a minute, with spikes {step: standard deviations}."""
    x = np.random.default_rng(seed).normal(size=(steps, 1))
    for step, size in spikes.items():
        x[step, 0] = size
    return LabelledHistory(np.arange(steps) * 60.0, x, None)


APPLIED = Settings(detector="rolling z-score", window=60, threshold=3.5)


def marks(past, spoken):
    return [said(kind, past.time[step]) for step, kind in spoken.items()]


def test_three_labels_make_a_proposal_and_two_do_not():
    past = noisy({700: 4.8, 1200: -4.9, 1900: 4.7, 2500: 9.0})
    three = marks(past, {700: EXPECTED_LABEL, 1200: EXPECTED_LABEL, 1900: EXPECTED_LABEL})
    assert propose_settings(past, three[:2], APPLIED, score) is None
    made = propose_settings(past, three, APPLIED, score)
    assert (made.marks, made.fits, made.fits_now) == (3, 3, 0)
    assert made.alarms < made.alarms_now
    assert made.settings == replace(
        APPLIED, window=made.settings.window, threshold=made.settings.threshold
    ), "nothing else is touched"
    scores, _ = score(made.settings, past.x)
    assert all(scores[step] <= made.settings.threshold for step in (700, 1200, 1900))
    assert scores[2500] > made.settings.threshold, "the smallest change that does it"


def test_missed_ones_lower_the_threshold():
    past = noisy({700: 3.3, 1200: -3.2, 1900: 3.3})
    made = propose_settings(
        past,
        marks(past, {700: MISSED_LABEL, 1200: MISSED_LABEL, 1900: MISSED_LABEL}),
        replace(APPLIED, threshold=6.0),
        score,
    )
    assert made.fits == 3 and made.settings.threshold < 3.4 and made.alarms > made.alarms_now


def test_a_threshold_between_the_two_kinds_keeps_away_from_both():
    past = noisy({700: 5.0, 1200: 4.9, 1900: 8.0, 2500: 8.0})
    made = propose_settings(
        past,
        marks(
            past,
            {700: EXPECTED_LABEL, 1200: EXPECTED_LABEL, 1900: MISSED_LABEL, 2500: MISSED_LABEL},
        ),
        APPLIED,
        score,
    )
    scores, _ = score(made.settings, past.x)
    assert max(scores[700], scores[1200]) <= 0.95 * made.settings.threshold
    assert min(scores[1900], scores[2500]) > 1.05 * made.settings.threshold


def by_window(peaks, fill):
    """Return a scorer: `peaks[window]` at rows 100, 200, ..., `fill[window]` at 1000, 1010, ..."""

    def scorer(applied, x):
        row = np.zeros(len(x))
        row[1000::10] = fill.get(applied.window, 0.0)
        row[100 : 100 * (1 + len(peaks[60])) : 100] = peaks.get(applied.window, peaks[60])
        return row, row

    return scorer


def test_a_window_is_proposed_where_no_threshold_could_fit():
    past = noisy({}, steps=1441)  # one day
    past.time[-1] = past.time[0] + 86_400.0
    spoken = marks(
        past,
        {
            100: EXPECTED_LABEL,
            200: EXPECTED_LABEL,
            300: MISSED_LABEL,
            400: MISSED_LABEL,
            500: MISSED_LABEL,
        },
    )
    scorer = by_window(
        {60: [8.0, 7.0, 6.0, 6.0, 6.0], 90: [3.0, 3.1, 6.0, 6.0, 6.0]}, {60: 5.0, 90: 3.2}
    )
    made = propose_settings(past, spoken, replace(APPLIED, threshold=4.0), scorer)
    assert made.text == "window 90, threshold 4 fits your 5 marks; alarms a day 50 → 3"
    assert (made.fits, made.fits_now, made.alarms, made.alarms_now) == (5, 3, 3.0, 50.0)
    scorer = by_window({60: [8.0, 7.0, 6.0, 6.0, 6.0]}, {})
    made = propose_settings(past, spoken[:3], replace(APPLIED, threshold=4.0), scorer)
    assert made.text == "window 60, threshold 8.5 fits 2 of your 3 marks; alarms a day 5 → 0", (
        "no window helps: the smallest change"
    )


def test_nothing_is_proposed_where_the_settings_fit_already_or_nothing_fits_better():
    past = noisy({700: 9.0, 1200: 9.0, 1900: 9.0})
    assert (
        propose_settings(
            past,
            marks(past, {700: MISSED_LABEL, 1200: MISSED_LABEL, 1900: MISSED_LABEL}),
            APPLIED,
            score,
        )
        is None
    )
    again = marks(past, {700: MISSED_LABEL, 1200: MISSED_LABEL, 1900: MISSED_LABEL})
    assert (
        propose_settings(
            past, [label._replace(start=-1e6, end=-1e6) for label in again], APPLIED, score
        )
        is None
    ), "labels that the buffer has lost"


def test_a_late_answer_within_reach_finds_a_missed_one_and_spoils_no_expected_one():
    past, scorer = noisy({}), by_window({60: [8.0, 8.0, 8.0]}, {})

    def proposed(kind, early, threshold):
        return propose_settings(
            past,
            marks(past, {step - early: kind for step in (100, 200, 300)}),
            replace(APPLIED, threshold=threshold),
            scorer,
        )

    assert proposed(MISSED_LABEL, 10, 9.0).fits == 3
    assert proposed(MISSED_LABEL, 11, 9.0) is None
    assert proposed(EXPECTED_LABEL, 0, 4.0).fits == 3
    assert proposed(EXPECTED_LABEL, 1, 4.0) is None


def test_on_a_stream_with_truth_the_best_f1_decides_among_what_fits():
    past, scorer = (
        noisy({})._replace(label=np.zeros((3_000, 1), np.int8)),
        by_window({60: [8.0, 8.0, 8.0]}, {}),
    )
    past.label[400] = COLLECTIVE
    spoken, seen = marks(past, {100: EXPECTED_LABEL, 200: EXPECTED_LABEL, 400: EXPECTED_LABEL}), []

    def judge(score, alarm, label, thresholds):
        seen.append(label)
        return np.where(thresholds == 10.2, 0.9, 0.8)

    made = propose_settings(past, spoken, replace(APPLIED, threshold=4.0), scorer, judge)
    assert (made.settings.threshold, made.fits) == (10.2, 3)
    assert not seen[0].any(), "what somebody said is part of the truth it is judged by"
    assert (
        propose_settings(past, spoken, replace(APPLIED, threshold=4.0), scorer).settings.threshold
        == 8.5
    ), "else the smallest change"


def test_a_proposal_on_a_simulated_stream_with_the_real_judge():
    past = LabelledHistory(*STREAMS["cpu"](seed=5, rate=0.004).take(6_000))
    scores, _ = score(APPLIED, past.x)
    false = [int(i) for i in np.flatnonzero((scores > 3.5) & (past.label == 0).all(axis=1))[:3]]
    made = propose_settings(
        past, marks(past, dict.fromkeys(false, EXPECTED_LABEL)), APPLIED, score, event_f1
    )
    assert made.fits == 3 and made.alarms < made.alarms_now


def test_a_dismissed_proposal_comes_back_only_after_another_label():
    mine = LabelRegistry()
    for start in range(MIN_LABELS):
        assert not mine.is_proposal_due("cpu")
        newest = mine.add(said(EXPECTED_LABEL, start))
    assert mine.is_proposal_due("cpu") and not mine.is_proposal_due("wave")
    mine.dismiss("cpu")
    assert not mine.is_proposal_due("cpu")
    mine.add(said(EXPECTED_LABEL, 9))
    assert mine.is_proposal_due("cpu")
    mine.dismiss("cpu")
    mine.remove(newest.id)
    assert mine.is_proposal_due("cpu")


def test_a_dismissal_under_way_does_not_take_back_a_later_one():
    kept, others = {}, []

    def dismiss(stream, ids):
        if not others:  # meanwhile another visitor adds a label and dismisses too
            others.append(threading.Thread(target=add_and_dismiss))
            others[0].start()
            others[0].join(0.2)
        kept[stream] = ids

    def add_and_dismiss():
        mine.add(said(EXPECTED_LABEL, 9))
        mine.dismiss("cpu")

    mine = LabelRegistry(LabelPersistence(dismiss=dismiss))
    for start in range(MIN_LABELS):
        mine.add(said(EXPECTED_LABEL, start))
    mine.dismiss("cpu")
    others[0].join()
    assert not mine.is_proposal_due("cpu")
    assert kept == mine.dismissed == {"cpu": [1, 2, 3, 4]}


def test_a_dismissal_is_kept_and_taken_up_again():
    kept, rows = {}, []
    mine = LabelRegistry(LabelPersistence(rows.append, dismiss=kept.__setitem__))
    for start in range(MIN_LABELS):
        mine.add(said(EXPECTED_LABEL, start))
    mine.dismiss("cpu")
    twin = LabelRegistry()
    twin.restore(rows, kept)
    assert not twin.is_proposal_due("cpu")
    twin.add(said(EXPECTED_LABEL, 9))
    assert twin.is_proposal_due("cpu")
