"""The grouping of alarms into incidents, what people do about them, and their rows."""

import json
import math
import threading
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.engine.results import Anomaly, StreamInfo
from redline.incidents.grouping import MAX_HISTORY, Watch, fold_batch
from redline.incidents.incident import (
    SNOOZES,
    STATES,
    SYSTEM_ACTOR,
    IncidentSettled,
    Policy,
    UnknownIncident,
    incident_from_row,
    incident_row,
)
from redline.incidents.registry import MAX_RESOLVED, IncidentQuery, Incidents, StoredIncidents
from redline.settings import Settings

CPU = StreamInfo("CPU", ("CPU",), ("%",), 1.0)
START = 1_767_571_200.0  # seconds since the epoch of step 0
POLICY = Policy(minimum=1, quiet=5, release=0.7, cooldown=10)
THRESHOLD = 3.0


class Batch(NamedTuple):
    """The fields of a monitor's batch that incidents use."""

    name: str
    first: int
    time: np.ndarray
    score: np.ndarray
    anomalies: list
    applied: Settings
    live: bool = True
    info: StreamInfo = CPU
    muted: np.ndarray | None = None


def batch(score, called=None, name="cpu", first=0, features=None):
    """Return a batch at threshold 3; `called` = the rows that are alarms, None = all anomalies."""
    score = np.asarray(score, dtype=float)
    time = START + first + np.arange(len(score))
    rows = np.flatnonzero(score > THRESHOLD).tolist()
    anomalies = [
        Anomaly(
            n,
            first + i,
            time[i],
            (features or {}).get(i, 0),
            90.0 + score[i],
            20.0,
            45.0,
            score[i],
            THRESHOLD,
            1,
            called is None or i in called,
        )
        for n, i in enumerate(rows)
    ]
    return Batch(name, first, time, score, anomalies, Settings(threshold=THRESHOLD))


def cut(whole, ends):
    """Yield the same steps in several batches."""
    edges = sorted({0, *(min(end, len(whole.score)) for end in ends), len(whole.score)})
    for a, b in pairwise(edges):
        inside = [anomaly for anomaly in whole.anomalies if a <= anomaly.step - whole.first < b]
        yield Batch(
            whole.name, whole.first + a, whole.time[a:b], whole.score[a:b], inside, whole.applied
        )


@pytest.fixture
def incidents():
    return Incidents(POLICY)


def whats(changes):
    return [(change.what, change.notify) for change in changes]


QUIET = [0.0] * 5


# --- grouping


def test_alarms_join_until_the_score_has_been_low_for_long_enough(incidents):
    changes = incidents.fold(batch([0, 4, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]), now=0.0)
    assert whats(changes) == [("opened", True), ("worse", True), ("resolved", True)]
    (incident,) = incidents.find().incidents
    assert (incident.first, incident.last, incident.alarms, incident.anomalies) == (1, 6, 2, 2)
    assert (incident.start, incident.end) == (START + 1, START + 6)
    assert (incident.peak.score, incident.peak.step, incident.severity, incident.state) == (
        5.0,
        6,
        "warning",
        "resolved",
    )
    assert [(entry.what, entry.who, entry.time) for entry in incident.history] == [
        ("opened", SYSTEM_ACTOR, START + 1),
        ("warning", SYSTEM_ACTOR, START + 6),
        ("resolved", SYSTEM_ACTOR, START + 11),
    ]


def test_hysteresis_a_score_above_the_release_keeps_it_open(incidents):
    dancing = [4, *[2.2, 0, 0, 0, 0] * 6]  # 2.2 is under the threshold and over 0.7 of it
    incidents.fold(batch(dancing), now=0.0)
    assert incidents.find().incidents[0].state == "open"
    incidents.fold(batch([2.0] * 5, first=len(dancing)), now=0.0)
    assert incidents.find().incidents[0].state == "resolved"


def test_steps_without_an_opinion_are_not_calm(incidents):
    incidents.fold(batch([4, *[math.nan] * 50, 0, 0, 0, 0]), now=0.0)
    assert incidents.find().incidents[0].live
    incidents.fold(batch([0], first=55), now=0.0)
    assert not incidents.find().incidents[0].live


def test_what_does_not_last_long_enough_is_no_incident():
    incidents = Incidents(replace(POLICY, minimum=3))
    assert incidents.fold(batch([4, 4, *QUIET]), now=0.0) == []
    assert incidents.find().total == 0
    changes = incidents.fold(batch([4, 0, 2.5, 0, *QUIET], first=30), now=0.0)
    assert whats(changes) == [("opened", True), ("resolved", True)]
    assert changes[0].incident.history[0].time == START + 32, (
        "it opens when it has lasted, not before"
    )
    assert changes[0].incident.first == 30


def test_in_the_cool_down_an_alarm_is_more_of_the_same_and_calls_nobody(incidents):
    incidents.fold(batch([4, *QUIET]), now=0.0)
    again = incidents.fold(batch([0, 4, *QUIET], first=6), now=0.0)
    assert whats(again) == [("reopened", False), ("resolved", False)]
    worse = incidents.fold(batch([7, *QUIET], first=13), now=0.0)
    assert whats(worse) == [("worse", True), ("resolved", True)]
    (incident,) = incidents.find().incidents
    assert (
        incident.alarms,
        incident.anomalies,
        incident.severity,
        incident.first,
        incident.last,
    ) == (3, 3, "critical", 0, 13)
    after = incidents.fold(batch([0] * 10 + [4], first=19), now=0.0)
    assert whats(after) == [("opened", True)]
    assert incidents.find().total == 2


def test_a_note_on_an_ended_incident_does_not_keep_it_from_opening_again(incidents):
    incidents.fold(batch([4, *QUIET]), now=0.0)
    (incident,) = incidents.find().incidents
    noted = incidents.annotate(incident.id, "ann", 7.0, "the door")
    assert (noted.what, noted.notify, noted.incident.state) == ("noted", False, "resolved")
    again = incidents.fold(batch([0, 4, *QUIET], first=6), now=0.0)
    assert whats(again) == [("reopened", False), ("resolved", False)]
    (incident,) = incidents.find().incidents
    assert [entry.note for entry in incident.history if entry.what == "noted"] == ["the door"]


def test_a_note_on_an_incident_whose_stream_is_gone_is_kept(incidents):
    incidents.fold(batch([4, *QUIET]), now=0.0)
    (incident,) = incidents.find().incidents
    incidents.reset_stream("cpu", 1.0)  # it was removed, or another file opened in its place
    incidents.annotate(incident.id, "ann", 7.0, "the door")
    (after,) = incidents.find().incidents
    assert after.history[-1].note == "the door" and "cpu" not in incidents.watches


@pytest.mark.parametrize("what", ["annotate", "resolve"])
def test_a_note_holds_nothing_that_cannot_be_seen(incidents, what):
    incidents.fold(batch([4]), now=0.0)
    (incident,) = incidents.find().incidents
    unseen = " \x00red\x1b[31m \u202etxt.exe\r\nnext\tline\u2028 \ud800\x85"
    change = getattr(incidents, what)(incident.id, "ann", 7.0, unseen)
    assert change.incident.history[-1].note == "red [31m txt.exe\nnext line"


def test_openings_are_numbered_over_all_streams_without_those_that_are_snoozed(incidents):
    first, *_ = incidents.fold(batch([4]), now=0.0)
    incidents.fold(batch([0, 7], first=1), now=0.0)  # worse
    incidents.fold(batch([4], name="oven"), now=0.0)
    assert incidents.newest_opening == 3
    assert [i.stream for i in incidents.opened_since(0)] == ["cpu", "oven"]
    assert [i.stream for i in incidents.opened_since(2)] == ["oven"]
    incidents.snooze(first.incident.id, "ann", 0.0, "1 h")
    incidents.fold(batch([0] * 20 + [4], first=3), now=60.0)
    assert incidents.find().total == 3 and incidents.newest_opening == 3


def test_an_anomaly_without_an_alarm_begins_nothing_but_is_counted_in_what_there_is(incidents):
    assert incidents.fold(batch([4, 5, 4], called=()), now=0.0) == []
    incidents.fold(batch([4, 5, 4], called=(1,), first=3), now=0.0)
    (incident,) = incidents.find().incidents
    assert (incident.first, incident.alarms, incident.anomalies) == (4, 1, 2)


def test_an_incident_knows_all_features_it_was_seen_in(incidents):
    three = StreamInfo("Machine", ("speed", "heat", "load"), ("%",) * 3, 1.0)
    found = batch([4, 5, 4, 4], features={0: 2, 1: 1, 2: 2, 3: 0})
    incidents.fold(found._replace(info=three), now=0.0)
    (incident,) = incidents.find().incidents
    assert (incident.features, incident.peak.feature) == ((2, 1, 0), 1)


def test_the_peak_is_the_strangest_by_its_own_threshold(incidents):
    incidents.fold(batch([5]), now=0.0)
    loose = batch([6], first=1)
    loose = loose._replace(
        applied=Settings(threshold=6.0), anomalies=[loose.anomalies[0]._replace(threshold=5.9)]
    )
    incidents.fold(loose, now=0.0)
    (incident,) = incidents.find().incidents
    assert (incident.peak.score, incident.severity) == (5.0, "warning")


def test_each_severity_is_announced_once(incidents):
    changes = incidents.fold(batch([3.1, 3.2, 4.6, 4.7, 3.1, 6.0, 9.0]), now=0.0)
    assert [(c.what, c.incident.severity) for c in changes] == [
        ("opened", "info"),
        ("worse", "warning"),
        ("worse", "critical"),
    ]


def test_the_past_of_a_stream_just_opened_calls_nobody(incidents):
    past = batch([4, 7, *QUIET, *[0] * 10, 4])._replace(live=False)
    assert whats(incidents.fold(past, now=0.0)) == [
        ("opened", False),
        ("worse", False),
        ("resolved", False),
        ("opened", False),
    ]
    assert incidents.undelivered() == []
    assert whats(incidents.fold(batch([7], first=18), now=0.0)) == [("worse", True)], (
        "what goes on is told as soon as it gets worse"
    )


def test_streams_are_strangers():
    both, alone = Incidents(POLICY), Incidents(POLICY)
    a, b = batch([4, 0, 5, *QUIET]), batch([0, 9, 0, 0, 0, 0, 0, 0], name="wave")
    both.commit([a, b], 0.0, both.save)
    alone.fold(a, 0.0)
    assert both.find(IncidentQuery(stream="cpu")).incidents == alone.find().incidents


def test_a_calm_stream_costs_nothing(incidents):
    incidents.fold(batch([0.0] * 100), now=0.0)
    assert incidents.watches == {}, "ten thousand calm streams need no watch"


def test_the_steps_of_a_batch_count_once(incidents):
    twice = batch([0, 4, 5, 0, 0])
    incidents.fold(twice, now=0.0)
    seen = incidents.find().incidents
    assert incidents.fold(twice, now=0.0) == []
    assert incidents.fold(batch([9, 9], first=3), now=0.0) == [], "steps that were folded already"
    assert incidents.find().incidents == seen
    assert whats(incidents.fold(batch([0, 0, 9], first=3), now=0.0)) == [("worse", True)], (
        "of an overlap only what is new"
    )


# --- independence of the cuts

SCORES = st.lists(
    st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.2, 3.1, 4.6, 7.0, math.nan]), min_size=1, max_size=120
)
POLICIES = st.builds(
    Policy,
    st.integers(1, 4),
    st.integers(1, 8),
    st.sampled_from([0.5, 0.7, 1.0]),
    st.integers(0, 20),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SCORES, POLICIES, st.lists(st.integers(1, 120), max_size=12), st.sets(st.integers(0, 119)))
def test_the_same_steps_give_the_same_incidents_however_they_are_cut(score, policy, ends, called):
    how = policy
    whole, one = fold_batch(Watch("cpu"), batch(score, called), how, 0.0), Watch("cpu")
    changes = []
    for part in cut(batch(score, called), ends):
        one, more = fold_batch(one, part, how, 0.0)
        changes += more
    assert repr((one, changes)) == repr(whole)  # repr: a NaN equals no other


def twin(score, policy, called):
    """Count incidents step by step: (first, last, alarms, anomalies, step of the end) of each."""
    done, live, low = [], None, 0
    for step, value in enumerate(score):
        alarm = value > THRESHOLD and step in called
        if live is None and alarm:
            if done and done[-1][4] is not None and step < done[-1][4] + 1 + policy.cooldown:
                live, low = done.pop(), 0
            else:
                live, low = [step, step, 0, 0, None], 0
        if live is None:
            continue
        if value > policy.release * THRESHOLD:
            live[1], low = step, 0
            live[2] += alarm
            live[3] += value > THRESHOLD
        elif value <= policy.release * THRESHOLD:
            low += 1
        if low == policy.quiet:
            live[4] = step
            done.append(live)
            live = None
    return done + ([live] if live else [])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SCORES, POLICIES, st.sets(st.integers(0, 119)))
def test_the_fold_equals_a_slow_twin(score, policy, called):
    policy = replace(policy, minimum=1)
    incidents = Incidents(policy)
    incidents.fold(batch(score, called), now=0.0)
    found = sorted(incidents.items.values(), key=lambda i: i.first)
    ends = [None if i.live else int(i.history[-1].time - START) for i in found]
    assert [[i.first, i.last, i.alarms, i.anomalies, end] for i, end in zip(found, ends)] == twin(
        score, policy, called
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    SCORES,
    st.integers(0, 120),
    st.sampled_from(["acknowledge", "10 min", "until normal", "resolve"]),
    st.lists(st.integers(1, 120), max_size=6),
)
def test_a_replay_with_what_people_did_gives_the_same(score, step, act, ends):
    """People act between batches, so only the steps before and after that may be cut otherwise."""

    def played(*cuts):
        incidents = Incidents(POLICY)
        for part in cut(batch(score), [step, *cuts]):
            if part.first == step:
                for incident in [i for i in incidents.items.values() if i.live]:
                    done(incidents, act, incident.id)
            incidents.fold(part, now=100.0)
        return list(incidents.items.values())

    assert repr(played()) == repr(played(*ends))


def done(incidents, act, id):
    if act in SNOOZES:
        return incidents.snooze(id, "ann", 50.0, act)
    return getattr(incidents, act)(id, "ann", 50.0)


# --- changes by people


def test_who_acknowledged_is_remembered_and_only_worse_calls_again(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    change = incidents.acknowledge(opened.incident.id, "ann", now=7.0)
    assert (change.incident.state, change.incident.acknowledged, change.notify) == (
        "acknowledged",
        "ann",
        False,
    )
    assert change.incident.history[-1] == ("acknowledged", "ann", START, 7.0, "")
    assert incidents.fold(batch([3.5], first=1), now=8.0) == []
    assert whats(incidents.fold(batch([6.5], first=2), now=8.0)) == [("worse", True)]
    assert incidents.get(opened.incident.id).state == "acknowledged"


def test_a_snooze_calls_nobody_and_ends_on_the_wall_clock(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    id = opened.incident.id
    incidents.snooze(id, "ann", now=0.0, length="10 min")
    assert whats(incidents.fold(batch([6.5], first=1), now=599.0)) == [("worse", False)]
    assert incidents.end_snoozes(599.9) == []
    (woke,) = incidents.end_snoozes(600.0)
    assert (woke.what, woke.notify, woke.incident.state, woke.incident.severity) == (
        "woke",
        True,
        "open",
        "critical",
    )
    assert incidents.end_snoozes(601.0) == []


def test_what_opens_while_its_stream_is_snoozed_is_born_snoozed(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    incidents.snooze(opened.incident.id, "ann", now=0.0, length="1 h")
    assert whats(incidents.fold(batch([0] * 30, first=1), now=10.0)) == [("resolved", False)]
    (second,) = incidents.fold(batch([3.5], first=31), now=20.0)
    assert (second.notify, second.incident.state) == (False, "snoozed")
    assert whats(incidents.end_snoozes(3_600.0)) == [("woke", True)]


def test_until_normal_ends_with_the_incident(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    incidents.snooze(opened.incident.id, "ann", now=0.0, length="until normal")
    assert incidents.end_snoozes(1e12) == []
    assert whats(incidents.fold(batch([6.5, *[0] * 30], first=1), now=1e12)) == [
        ("worse", False),
        ("resolved", False),
    ]
    assert incidents.get(opened.incident.id).until == 0.0
    assert whats(incidents.fold(batch([3.5], first=32), now=10.0)) == [("opened", True)]


def test_what_a_person_resolved_stays_so_unless_it_gets_worse(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    change = incidents.resolve(opened.incident.id, "ann", now=5.0, note="expected")
    assert (change.what, change.notify, change.incident.history[-1].note) == (
        "resolved",
        True,
        "expected",
    )
    assert incidents.fold(batch([3.6, 3.7], first=1), now=6.0) == []
    assert incidents.watches["cpu"].suppressed == 2, "what is held back is counted"
    (worse,) = incidents.fold(batch([4.8], first=3), now=6.0)
    assert worse.what == "opened" and worse.incident.id != opened.incident.id


def test_a_resolved_incident_and_an_unknown_one_cannot_be_changed(incidents):
    (opened, _) = incidents.fold(batch([3.5, *QUIET]), now=0.0)
    for act in ("acknowledge", "resolve", "10 min"):
        with pytest.raises(IncidentSettled, match="resolved since"):
            done(incidents, act, opened.incident.id)
        with pytest.raises(UnknownIncident, match="'nonsense'"):
            done(incidents, act, "nonsense")
    with pytest.raises(ValueError, match="10 min, 1 h, until normal; came 'for ever'"):
        incidents.snooze(opened.incident.id, "ann", 0.0, "for ever")


def test_a_replaced_stream_begins_anew(incidents):
    (opened,) = incidents.fold(batch([0, 0, 3.5]), now=0.0)
    (over,) = incidents.reset_stream("cpu", now=1.0)
    assert (over.what, over.incident.history[-1].note) == ("resolved", "the stream was replaced")
    (again,) = incidents.fold(batch([3.5]), now=2.0)
    assert again.what == "opened" and again.incident.id != opened.incident.id
    assert incidents.reset_stream("wave", now=1.0) == []


def test_a_stream_that_is_gone_leaves_no_watch_but_for_a_snooze():
    saved = []
    incidents = Incidents(POLICY, saved.append)
    (opened,) = incidents.fold(batch([0, 0, 3.5]), now=0.0)
    assert list(incidents.watches) == ["cpu"]
    incidents.reset_stream("cpu", now=1.0)
    assert incidents.watches == {} and list(saved[-1].dropped) == ["cpu"]
    incidents.mark_notified({opened.incident.id: "info"})
    assert incidents.watches == {} and incidents.get(opened.incident.id).notified_severity == "info"
    with pytest.raises(IncidentSettled):
        incidents.acknowledge(opened.incident.id, "ann", 2.0)
    (opened,) = incidents.fold(batch([0, 0, 3.5]), now=3.0)
    incidents.snooze(opened.incident.id, "ann", 3.0, "10 min")
    incidents.reset_stream("cpu", now=4.0)
    (again,) = incidents.fold(batch([3.5]), now=5.0)
    assert again.incident.state == "snoozed", "the snooze of the stream goes on"

    def full(rows):
        raise OSError("the disk is full")

    incidents.save = full
    before = dict(incidents.watches)
    with pytest.raises(OSError, match="full"):
        incidents.reset_stream("cpu", now=5_000.0)
    assert incidents.watches == before and incidents.get(again.incident.id).live


def test_calls_that_reached_nobody_are_known_at_the_next_start(incidents):
    (opened,) = incidents.fold(batch([3.5]), now=0.0)
    assert [c.incident.id for c in incidents.undelivered()] == [opened.incident.id]
    incidents.mark_notified({opened.incident.id: "info"})
    assert incidents.undelivered() == []
    incidents.fold(batch([9.0], first=1), now=0.0)
    assert [c.incident.severity for c in incidents.undelivered()] == ["critical"]
    incidents.mark_notified({"long gone": "info"})


def test_the_history_of_a_flapping_incident_is_bounded(incidents):
    for n in range(2 * MAX_HISTORY):
        incidents.fold(batch([4, *QUIET], first=6 * n), now=0.0)
    (incident,) = incidents.find().incidents
    assert incident.alarms == 2 * MAX_HISTORY
    assert len(incident.history) == MAX_HISTORY
    assert (incident.history[0].what, incident.history[-1].what) == ("opened", "resolved")


# --- lists, rows


def test_the_list_is_filtered_and_paged_live_ones_first(incidents):
    for n in range(7):
        incidents.fold(batch([4.0 if n % 2 else 7.0, *[0] * 30], name=f"s{n}", first=n), now=0.0)
    incidents.fold(batch([4.0], name="live"), now=0.0)
    everything = incidents.find()
    assert [i.stream for i in everything.incidents] == [
        "live",
        "s6",
        "s5",
        "s4",
        "s3",
        "s2",
        "s1",
        "s0",
    ]
    assert [i.stream for i in incidents.find(IncidentQuery(severity="critical")).incidents] == [
        "s6",
        "s4",
        "s2",
        "s0",
    ]
    assert incidents.find(IncidentQuery(states=("open",))).total == 1
    seen, after = [], ""
    for _ in range(4):
        page = incidents.find(IncidentQuery(limit=2, after=after))
        seen, after = seen + page.incidents, page.after
    assert (seen, after, page.total) == (everything.incidents, "", 8)


def test_old_resolved_incidents_leave_memory():
    incidents = Incidents(POLICY)
    incidents.fold(batch([4.0], name="live"), now=0.0)
    incidents.fold(batch([4.0, *[0] * 24] * (MAX_RESOLVED * 5 // 4 + 1)), now=0.0)
    assert MAX_RESOLVED <= len(incidents.items) <= MAX_RESOLVED * 5 // 4
    assert incidents.find(IncidentQuery(stream="live")).total == 1


def test_rows_are_json_and_restore_everything(incidents):
    saved = StoredIncidents([], [])
    incidents = Incidents(
        POLICY,
        lambda rows: (saved.incidents.extend(rows.incidents), saved.watches.extend(rows.watches)),
    )
    bandless = batch([0, 4, 5])
    bandless.anomalies[1] = bandless.anomalies[1]._replace(low=math.nan, high=math.nan)
    (opened, _) = incidents.fold(bandless, now=0.0)
    incidents.fold(batch([4.0, *[0] * 7], name="wave"), now=0.0)
    incidents.snooze(opened.incident.id, "ann", 3.0, "until normal")
    newest = json.loads(
        json.dumps(
            StoredIncidents(
                {r["id"]: r for r in saved.incidents}.values(),
                {r["stream"]: r for r in saved.watches}.values(),
            ),
            default=list,
        )
    )
    twin = Incidents(POLICY)
    twin.restore(StoredIncidents(*newest))
    assert repr(twin.find()) == repr(incidents.find())
    after = batch([0, 9, *QUIET], first=3), batch([9], name="wave", first=12)
    assert repr([twin.fold(b, 5.0) for b in after]) == repr([incidents.fold(b, 5.0) for b in after])
    for incident in incidents.items.values():
        assert repr(
            incident_from_row(json.loads(json.dumps(incident_row(incident), allow_nan=False)))
        ) == repr(incident)


def test_nothing_has_changed_when_it_cannot_be_written():
    def full(rows):
        raise OSError("the disk is full")

    incidents = Incidents(POLICY, full)
    with pytest.raises(OSError, match="full"):
        incidents.fold(batch([4.0]), now=0.0)
    assert incidents.find().total == 0
    (opened,) = incidents.commit([batch([4.0])], 0.0, lambda rows: None)
    with pytest.raises(OSError, match="full"):
        incidents.acknowledge(opened.incident.id, "ann", 1.0)
    assert incidents.get(opened.incident.id).state == "open"


def test_a_transaction_that_fails_after_all_is_made_up_for_by_the_next_one(incidents):
    """The rows were passed on, then the commit failed: the batches come again, with newer ones."""
    whole = batch([0, 4, *QUIET, *[0] * 10, 0, 5, 9, 0])
    first, second = list(cut(whole, [18]))
    lost, kept = [], []
    changes = incidents.commit([first], 0.0, lost.append)
    more = incidents.commit([first, second], 0.0, kept.append)
    twin = Incidents(POLICY)
    assert changes + more == twin.commit([first, second], 0.0, twin.save)
    (rows,) = kept
    assert sorted(map(repr, rows.incidents)) == sorted(
        repr(incident_row(i)) for i in twin.items.values()
    )
    assert (
        [r["stream"] for r in rows.watches] == ["cpu"]
        and rows.watches[0]["former"] is None
        and rows.watches[0]["current"]
    )
    incidents.commit([batch([0] * 3, first=len(whole.score))], 0.0, kept.append)
    assert [r["id"] for r in kept[1].incidents] == [], "once is enough"
    closing = batch([0] * 9, first=len(whole.score) + 3)
    assert (
        len(incidents.commit([closing], 0.0, lost.append)) == 1
        and incidents.commit([closing], 0.0, kept.append) == []
    )
    assert [
        (r["state"], w["former"]["id"] == r["id"])
        for r in kept[2].incidents
        for w in kept[2].watches
    ] == [("resolved", True)]


def test_whatever_is_written_is_written_under_the_lock_of_the_store():
    """A commit folds while it locks the store, so a change with another lock could deadlock."""
    lock, held = threading.RLock(), []
    incidents = Incidents(POLICY, lambda rows: held.append(lock._is_owned()), lock)
    (opened,) = incidents.fold(batch([4.0]), now=0.0)
    for length in SNOOZES:
        incidents.snooze(opened.incident.id, "ann", 0.0, length)
    incidents.acknowledge(opened.incident.id, "ann", 0.0)
    incidents.mark_notified({opened.incident.id: "info"})
    incidents.end_snoozes(math.inf)
    incidents.resolve(opened.incident.id, "ann", 0.0)
    incidents.reset_stream("cpu", 0.0)
    assert len(held) == 9 and all(held)
    reader = threading.Thread(
        target=lambda: held.append(
            (
                incidents.find().total,
                incidents.undelivered(),
                incidents.get(opened.incident.id).state,
            )
        )
    )
    with lock:
        reader.start()
        reader.join(5.0)
    assert held[-1] == (1, [], "resolved"), "who reads never waits"


def test_only_what_a_restart_would_miss_is_written():
    written = []
    incidents = Incidents(POLICY, written.append)
    incidents.fold(batch([4.0, *[0] * 20]), now=0.0)
    incidents.fold(batch([0.0] * 20, first=21), now=0.0)
    assert [(len(rows.incidents), len(rows.watches)) for rows in written] == [(1, 1), (0, 0)]


# --- texts


def test_the_sentence_says_what_since_when_and_why():
    incidents = Incidents(POLICY)
    incidents.fold(batch([7.0]), now=0.0)
    (incident,) = incidents.find().incidents
    assert incident.text == "CPU is unusual since 00:00:00: 97 %, expected 20 to 45, 7.0 σ above."
    incidents.fold(batch([4.0, 8.0, *QUIET], first=1), now=0.0)
    (incident,) = incidents.find().incidents
    assert incident.text == (
        "CPU was unusual from 00:00:00 to 00:00:02: 98 %, expected 20 to 45, 8.0 σ above; 3 alarms."
    )


def test_the_sentence_names_the_features_of_a_stream_that_has_several():
    machine = StreamInfo("Machine", ("speed", "heat"), ("%", "%"), 1.0)
    incidents = Incidents(POLICY)
    incidents.fold(batch([7.0, *QUIET], features={0: 1})._replace(info=machine), now=0.0)
    later = batch([7.0, 8.0], first=30, features={0: 1, 1: 0})._replace(info=machine)
    incidents.fold(later, now=0.0)
    second, first = incidents.find().incidents
    assert first.text.startswith("Machine, heat, was unusual at 00:00:00: 97 %")
    assert second.text.startswith("Machine, heat and speed, is unusual since 00:00:30: speed 98 %")


def test_the_states_are_those_that_the_api_documents():
    assert set(STATES) == {"open", "acknowledged", "snoozed", "resolved"}
