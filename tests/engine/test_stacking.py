"""Streams scored together: the bits of each are those it has alone, whatever stands beside it, and
one that fails fails alone.
"""

import numpy as np
import pytest

from detectors import DETECTORS
from redline.engine import monitor
from redline.engine.monitor import Monitor
from redline.engine.stacking import (
    MIN_STACKED,
    STACKABLE,
    advance_stacked,
    split_states,
    stack_states,
    stacking_key,
)
from redline.engine.track import Track
from redline.settings import Settings

START = 1_700_000_000.0  # seconds since the epoch


def values(steps, streams, features, seed=7):
    """(steps, streams, features) with spikes, gaps and streams that stand still."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(steps, streams, features)).cumsum(axis=0) * 0.1 + draw.normal(
        size=(steps, streams, features)
    )
    x[draw.random(x.shape) < 0.03] += 15.0
    x[draw.random(x.shape) < 0.02] = np.nan
    x[:, 0] = 5.0
    return x


def same(one, other):
    return set(one) == set(other) and all(
        np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


@pytest.mark.parametrize(
    "alone",
    [
        pytest.param(
            [0, 1, 7, 8, 32], id="five of them"
        ),  # the flat one, and both sides of where a vector ends
        pytest.param(range(33), id="all", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("name", "features"),
    [
        pytest.param(
            name,
            features,
            marks=pytest.mark.slow if features > 1 and name != "rolling z-score" else (),
        )
        for name in sorted(STACKABLE)
        for features in (1, 3)
    ],
)
def test_together_is_to_the_bit_what_each_says_alone(name, features, alone):
    """33 streams stand side by side; those of `alone` are compared with a track of their own.

    Scores are compared at each step, states at the first steps of each size and at the end: what
    differs in a state stays in it.
    """
    x, settings = values(700, 33, features), Settings(name, 40)
    beside = [Track(settings, (0.0,) * features, 0) for _ in range(33)]
    others = {i: Track(settings, (0.0,) * features, 0) for i in alone}
    at, seen = 0, [0] * 101  # seen: how often each size came
    for size in [3, *[1] * 90, 7, 100, *[1, 5] * 80]:
        part = x[at : at + size]
        if at:
            rows = advance_stacked(beside, part)
        else:
            rows = [track.advance(part[:, i]) for i, track in enumerate(beside)]
        assert all(same(rows[i], track.advance(part[:, i])) for i, track in others.items()), at
        at, seen[size] = at + size, seen[size] + 1
        if seen[size] < 4 or at == 680:
            assert all(
                same(beside[i].copy_state(), track.copy_state()) for i, track in others.items()
            ), at
    assert at == 680
    assert all(
        value.base is None for track in beside for value in track.detector.state.values()
    )  # nobody's memory hangs on the others'


def test_only_detectors_that_there_are_and_that_look_at_each_stream_alone_are_called_alike():
    assert set(DETECTORS) >= STACKABLE and not any(DETECTORS[name].joint for name in STACKABLE)


def test_states_are_stacked_and_parted_by_their_widths():
    states = [
        {"step": np.array(4), "shape": np.array([n]), "a": np.full((2, n), n)} for n in (1, 3, 2)
    ]
    one = stack_states(states)
    assert (
        one["shape"].tolist() == [6]
        and one["a"][0].tolist() == [1, 3, 3, 3, 2, 2]
        and one["step"] is not states[0]["step"]
    )
    assert all(same(back, state) for back, state in zip(split_states(one, [1, 3, 2]), states))


def watching():
    heard = {}

    def listen(batches, committed):
        for batch in batches:
            heard.setdefault(batch.name, []).append(batch)

    made = Monitor({}, wall=lambda: START + 1e6)
    made.listeners.append(listen)
    return made, heard


def push(monitor, names, x, size):
    """All of these sources send `size` points at once, until x (steps, sources, features) is
    sent.
    """
    for at in range(0, len(x), size):
        part = x[at : at + size]
        receipts = [
            monitor.submit(name, START + np.arange(at, at + len(part)), part[:, i])
            for i, name in enumerate(names)
        ]
        monitor.process_pushed()
        assert all(receipt.done() for receipt in receipts)


def told(batches):
    """What listeners heard of one stream: scores, alarm scores, anomalies without the ids that all
    streams share.
    """
    score, alarm = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("score", "alarm")
    )
    return score, alarm, [a[:-1] for batch in batches for a in batch.anomalies]


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 60])
def test_the_loop_finds_the_same_in_many_sources_as_in_each_of_them(size, monkeypatch):
    x, names = values(600, 20, 1), [f"pump {i}" for i in range(20)]
    together = []
    monkeypatch.setattr(
        monitor,
        "advance_stacked",
        lambda tracks, x: together.append(len(tracks)) or advance_stacked(tracks, x),
    )
    many, heard = watching()
    push(many, names[:3], x[:200, :3], 50)  # these are ahead
    many.submit(names[0], [START - 1.0], [[1.0]])  # late
    push(many, names[3:], x[:, 3:], size)
    push(many, names[:3], x[:, :3], 200)  # repeats, then new ones
    assert together and max(together) == 17
    for i, name in enumerate(names):
        alone, only = watching()
        push(alone, [name], x[:, i : i + 1], 600)
        for one, other in zip(told(heard[name]), told(only[name])):
            assert (
                np.array_equal(one, other, equal_nan=True)
                if isinstance(one, np.ndarray)
                else repr(one) == repr(other)
            )
        assert many.feeds[name].applied_track.pace > 0


def test_settings_applied_in_the_middle_of_a_round_disturb_no_score(monkeypatch):
    x, names, other = (
        values(300, MIN_STACKED + 1, 1),
        [f"pump {i}" for i in range(MIN_STACKED + 1)],
        Settings("EWMA", 20),
    )
    monitor, _ = watching()
    for name in names:
        monitor.submit(name, [START - 1], [[0.0]])
        monitor.process_pushed()
        monitor.apply(name, Settings("EWMA", 60))
    push(monitor, names, x[:250], 250)
    feed = monitor.feeds[names[2]]
    feed.catch_up(monitor.request_track(feed.name, other), 300)

    def keyed(one, track):
        found = stacking_key(one, track)
        if one is feed:
            monitor.apply(feed.name, other)
        return found

    monkeypatch.setattr("redline.engine.monitor.stacking_key", keyed)
    for i, name in enumerate(names):
        monitor.submit(name, START + np.arange(250, 300), x[250:, i])
    monitor.process_pushed()
    feed.catch_up(feed.applied_track, 50)
    alone = Track(other, (0.0,), 0).advance(np.concatenate([np.zeros((1, 1)), x[:, 2]]))
    assert feed.applied == other and np.array_equal(
        feed.applied_track.read("score", 0, 301), alone["score"], equal_nan=True
    )


def test_a_round_ends_whatever_is_pushed_meanwhile(monkeypatch):
    monitor, _ = watching()
    owed, score = [monitor.submit("pump", [START], [[0.0]])], monitor._score_received

    def scored(feeds):
        assert len(owed) == 1, "the round took what came in its course"
        owed.append(monitor.submit("pump", [START + 1], [[0.0]]))
        score(feeds)

    monkeypatch.setattr(monitor, "_score_received", scored)
    monitor.process_pushed()
    assert [receipt.done() for receipt in owed] == [True, False]
    monkeypatch.undo()
    monitor.process_pushed()
    assert owed[1].done()


def test_one_that_fails_fails_alone(monkeypatch, caplog):
    x, names = values(40, MIN_STACKED + 1, 1), [f"pump {i}" for i in range(MIN_STACKED + 1)]
    monitor, _ = watching()
    push(monitor, names, x[:20], 20)
    monitor.feeds[names[2]].applied_track.detector.state["head"] = np.zeros(
        (2, 1)
    )  # as no detector would leave it
    for i, name in enumerate(names):
        monitor.submit(name, [START + 20], x[20:21, i])
    monitor.process_pushed()
    assert [feed.name for feed in monitor.feeds.values() if feed.failure] == [names[2]]
    assert all(feed.applied_track.end == 21 for feed in monitor.feeds.values() if not feed.failure)
    assert "could not be scored together" in caplog.text
