"""The engine without its thread: buffers, tracks, applied settings, failures, one clock that a test
moves.
"""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DETECTORS, Alarm
from redline.engine import monitor as room
from redline.engine.feed import MonitoredStream
from redline.engine.fleet.series_monitor import SERIES_SETTINGS
from redline.engine.monitor import MAX_TRACKS, Limits, Monitor
from redline.engine.tape import BUFFER_STEPS, Tape
from redline.engine.track import Track
from redline.settings import ServerSettings, Settings, SettingsError
from redline.sources.pushed import SubmissionRefused
from redline.storage.sqlite import SqliteStore
from streams import STREAMS, UNKNOWN_PRESET, Chunk, Stream


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Broken(Stream):
    """A stream that fails from its second take on, until it is mended."""

    title, names, units, floors, period = "Broken", ("value",), ("",), (0.0,), 1.0

    def __init__(self):
        self.taken, self.mended = 0, False

    def take(self, steps):
        self.taken += steps
        if self.taken > steps and not self.mended:
            raise OSError("the cable is out")
        return Chunk(np.arange(float(steps)), np.ones((steps, 1)), None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watched(clock):
    """A monitor on the wave and the CPU, filled back."""
    made = Monitor(
        {name: MonitoredStream(STREAMS[name](seed=3)) for name in ("wave", "cpu")},
        clock=clock,
        wall=lambda: 5_000.0,
    )
    for feed in made.feeds.values():
        made.backfill(feed, 2_000)
    return made


def beats(monitor, clock, count):
    for _ in range(count):
        clock.now += room.BEAT_SECONDS
        monitor.beat()
        while monitor.fill_tracks():
            pass


@given(st.lists(st.integers(0, 37), max_size=40))
def test_a_tape_keeps_the_last_rows_whatever_the_chunks(sizes):
    tape, seen = Tape(20, {"x": (1, float)}), np.zeros(0)
    for size in sizes:
        rows = np.arange(len(seen), len(seen) + size, dtype=float)
        seen = np.concatenate([seen, rows])
        tape.append({"x": rows[:, None]})
        assert (tape.end, tape.end - tape.first) == (len(seen), min(len(seen), 20))
        assert tape.read("x", tape.first, tape.end)[:, 0].tolist() == seen[tape.first :].tolist()


def test_a_stream_is_taken_at_its_pace_and_a_machine_that_slept_owes_no_burst(watched, clock):
    beats(watched, clock, 10)
    assert watched.feeds["wave"].end == 2_010
    watched.speed = 100
    beats(watched, clock, 1)
    assert watched.feeds["wave"].end == 2_110
    clock.now += 3_600
    watched.beat()
    assert watched.feeds["wave"].end <= 2_110 + 1_000


def test_a_track_scores_each_step_once_and_as_a_detector_alone_would(watched, clock):
    feed = watched.feeds["cpu"]
    track = watched.request_track("cpu", Settings("EWMA", 40))
    beats(watched, clock, 300)
    x = feed.tape.read("x", track.start, feed.end)
    alone = DETECTORS["EWMA"](window=40, floor=feed.stream.floors).update(x)
    assert np.array_equal(
        track.read("score", track.start, feed.end)[:, 0],
        np.fmax.reduce(alone, axis=1),
        equal_nan=True,
    )
    alarms = Alarm(refractory=feed.applied.refractory, memory=feed.applied.habituation).update(
        np.fmax.reduce(alone, axis=1)[:, None]
    )
    assert np.array_equal(track.read("alarm", track.start, feed.end), alarms, equal_nan=True)


def test_marks_on_steps_in_the_buffer_stay_when_new_steps_come(watched, clock):
    feed = watched.feeds["wave"]
    before = feed.applied_track.read("score", 500, 2_000)
    watched.speed = 100
    beats(watched, clock, 50)
    assert feed.end == 7_000
    assert np.array_equal(feed.applied_track.read("score", 500, 2_000), before, equal_nan=True)


def test_the_journal_counts_each_anomaly_once_whatever_is_applied(watched, clock):
    feed = watched.feeds["wave"]
    counted, rows = feed.anomalies, feed.applied_track.read("score", 0, feed.end)[:, 0]
    assert counted == (rows > feed.applied.threshold).sum() == len(feed.journal)
    watched.apply("wave", Settings("EWMA", 30, 2.0))
    while watched.fill_tracks():
        pass
    assert feed.anomalies == counted  # what was found is not found again under other settings
    beats(watched, clock, 200)
    new = feed.applied_track.read("score", 2_000, feed.end)[:, 0]
    assert feed.anomalies == counted + (new > 2.0).sum()
    assert [a.number for a in feed.journal] == list(range(1, feed.anomalies + 1))


def test_totals_are_of_all_streams_and_counted_now_and_then(watched, clock):
    before = watched.totals
    assert (
        before == (2, 4_000, sum(feed.anomalies for feed in watched.feeds.values()), 5_000.0)
        and before.anomalies
    )
    watched.feeds["wave"].points += 1
    assert watched.totals is before
    clock.now += room.BEAT_SECONDS
    assert watched.totals.points == 4_001


def test_an_apply_counts_as_stored_only_after_a_turn_that_began_after_it(watched):
    class Slow(deque):
        def append(self, feed):
            watched.process_pushed()
            super().append(feed)

    watched.unsaved_settings = Slow()
    watched.apply("cpu", Settings("EWMA", 40))
    assert not watched.wait_until_stored(patience=0.0)
    watched.process_pushed()
    assert watched.wait_until_stored(patience=0.0)


def test_settings_that_could_not_be_written_count_as_stored_only_after_another_try(
    watched, clock, caplog
):
    feed = watched.feeds["cpu"]
    broken = pytest.MonkeyPatch()
    broken.setattr(feed, "emit_settings", lambda: 1 / 0)
    watched.apply("cpu", Settings("EWMA", 40))
    for _ in range(3):
        watched.process_pushed()
        assert not watched.wait_until_stored(patience=0.0)
    assert caplog.text.count("storing the settings of cpu failed") == 1, "not tried at once again"
    broken.undo()
    clock.now += room.RETRY_SECONDS
    watched.process_pushed()
    assert watched.wait_until_stored(patience=0.0)


def test_an_undo_wakes_the_loop_as_an_apply_does(watched):
    for change in (
        lambda: watched.apply("cpu", Settings(threshold=7.0)),
        lambda: watched.undo("cpu"),
    ):
        watched.wake.clear()
        change()
        assert watched.wake.is_set()


def test_settings_that_cannot_be_stored_hold_up_none_of_another_stream(watched, monkeypatch):
    def failing():
        raise ValueError("no state to store")

    monkeypatch.setattr(watched.feeds["cpu"], "emit_settings", failing)
    watched.apply("cpu", Settings(threshold=7.0))
    watched.process_pushed()
    watched.apply("wave", Settings(threshold=7.0))
    assert not watched.wait_until_stored("wave", 0.0)
    watched.process_pushed()
    assert watched.wait_until_stored("wave", 0.0)
    assert not watched.wait_until_stored("cpu", 0.0)


def test_a_turn_stores_only_the_settings_queued_when_it_began(watched):
    class Refilled(deque):
        """Stands for a thread that applies settings as fast as the loop takes them."""

        taken = 0

        def popleft(self):
            self.taken += 1
            assert self.taken < 100, "the turn does not end"
            watched.apply("cpu", Settings("EWMA", 40, 3.0 + self.taken % 2))
            return super().popleft()

    watched.unsaved_settings = Refilled()
    watched.apply("cpu", Settings("EWMA", 40))
    watched.process_pushed()
    assert (watched.unsaved_settings.taken, len(watched.unsaved_settings)) == (1, 1)
    feed = watched.feeds["cpu"]
    assert feed.settings_stored == feed.settings_applied == 2, "the newest ones were written"


def test_an_apply_is_taken_back_and_the_threshold_alone_makes_no_track(watched):
    first = watched.feeds["cpu"].applied
    watched.apply("cpu", Settings(first.detector, first.window, 7.0))
    assert len(watched.feeds["cpu"].tracks) == 1
    watched.apply("cpu", Settings("EWMA", 99))
    assert watched.undo("cpu").threshold == 7.0
    assert watched.undo("cpu") == first == watched.undo("cpu")


def test_a_new_track_is_filled_in_slices_and_says_how_far_it_is(watched, monkeypatch):
    monkeypatch.setattr(Track, "steps_per_slice", property(lambda track: 500))
    track = watched.request_track("wave", Settings("rolling z-score", 33))
    shares = []
    while watched.fill_tracks():
        shares.append(watched.progress("wave", track))
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_tracks_of_a_long_buffer_are_fewer_the_last_requested_stay(watched, clock, monkeypatch):
    kept = watched.feeds["wave"].tape.kept
    monkeypatch.setattr(room, "MAX_TRACK_VALUES", 3 * kept)
    for window in range(10, 20):
        clock.now += 0.01
        watched.request_track("wave", Settings("EWMA", window))
    watched.evict_idle_tracks(clock.now)
    spare = [key for key in watched.feeds["wave"].tracks if key[0] == "EWMA"]
    assert [window for _, window, *_ in spare] == [17, 18, 19]


def test_there_are_at_most_so_many_tracks_and_the_applied_ones_stay(watched, clock):
    for window in range(10, 10 + MAX_TRACKS + 20):
        clock.now += 0.01
        watched.request_track("wave", Settings("EWMA", window))
    watched.evict_idle_tracks(clock.now)
    assert sum(len(feed.tracks) for feed in watched.feeds.values()) == MAX_TRACKS
    assert all(feed.applied.key in feed.tracks for feed in watched.feeds.values())
    watched.evict_idle_tracks(clock.now + room.IDLE_SECONDS + 1)
    assert [list(feed.tracks) for feed in watched.feeds.values()] == [
        [feed.applied.key] for feed in watched.feeds.values()
    ]


def test_one_stream_that_fails_is_said_and_tried_again_while_the_others_go_on(clock, caplog):
    broken = Broken()
    made = Monitor(
        {"broken": MonitoredStream(broken), "wave": MonitoredStream(STREAMS["wave"]())}, clock=clock
    )
    beats(made, clock, 30)
    failure = made.feeds["broken"].failure
    assert "the cable is out" in failure.text and failure.id in caplog.text
    assert made.feeds["wave"].end == 30
    broken.mended = True
    beats(made, clock, int(room.RETRY_SECONDS / room.BEAT_SECONDS) + 2)
    assert made.feeds["broken"].failure is None


@pytest.mark.parametrize("applied", [True, False])
def test_a_detector_that_fails_halfway_is_said_and_tried_again_from_the_oldest_step(
    watched, clock, monkeypatch, applied
):
    feed, settings = watched.feeds["wave"], Settings("EWMA", 60)
    watched.request_track("wave", settings)
    if applied:
        watched.apply("wave", settings)
    beats(watched, clock, 5)
    real, fails = Alarm.update, iter([True])

    def breaks(alarm, scores):
        if alarm is track.alarm and next(fails, False):
            raise MemoryError("a moment without memory")
        return real(alarm, scores)

    track = feed.tracks[settings.key]
    monkeypatch.setattr(Alarm, "update", breaks)
    beats(watched, clock, 1)
    failure = feed.failure or feed.tracks[settings.key].failure
    assert "a moment without memory" in failure.text
    beats(watched, clock, int(room.RETRY_SECONDS / room.BEAT_SECONDS) + 2)
    again = feed.tracks[settings.key]
    assert feed.failure is None and again.failure is None and again.end == feed.end
    x = feed.tape.read("x", feed.tape.first, feed.end)
    wanted = DETECTORS["EWMA"](window=60, floor=tuple(feed.stream.floors)).update(x)
    np.testing.assert_array_equal(again.read("score", feed.tape.first, feed.end), wanted)


def test_a_setting_out_of_bounds_names_what_was_wanted(watched):
    with pytest.raises(SettingsError, match="window: wanted 10 to 500 steps; came 3"):
        watched.request_track("wave", Settings(window=3))
    with pytest.raises(SettingsError, match="detector: wanted one of rolling z-score"):
        watched.request_track("wave", Settings("magic"))


def test_an_injected_spike_is_in_the_next_step(watched, clock):
    step = watched.inject("wave", "point", 12.0)
    beats(watched, clock, 2)
    feed = watched.feeds["wave"]
    assert feed.tape.read("label", step, step + 1)[0, 0] == 1
    assert feed.applied_track.read("score", step, step + 1)[0, 0] > feed.applied.threshold


def test_a_buffer_that_outruns_a_track_leaves_a_hole_not_a_shift(watched, clock):
    track = watched.request_track("wave", Settings("EWMA", 20))
    watched.fill_tracks()
    feed = watched.feeds["wave"]
    done = track.end
    feed.append(feed.stream.take(BUFFER_STEPS + 500), 0.0)
    while watched.fill_tracks():
        pass
    assert (
        track.end == feed.end
        and track.read("score", done, feed.tape.first + 1).shape[0] == feed.tape.first + 1 - done
    )
    assert np.isfinite(track.read("score", feed.end - 5, feed.end)).all()


# --- pushed points


def test_a_time_ahead_of_the_clock_is_refused_unless_the_source_is_that_slow():
    made = Monitor({}, wall=lambda: 1e6)
    hours = 1e6 - 3_600.0 * np.arange(20, 0, -1)
    made.submit("slow", hours, np.ones(20))
    made.process_pushed()
    assert made.feeds["slow"].stream.period == 3_600
    made.submit("slow", np.array([1e6 + 80_000]), np.ones(1))
    for name in ("fast", "slow"):
        with pytest.raises(SubmissionRefused, match=r"a little ahead.*check the clock"):
            made.submit(name, np.array([1e6 + 82_800 + 3_601]), np.ones(1))
    made.submit("fast", np.array([1e6 + 599]), np.ones(1))
    with pytest.raises(SubmissionRefused):
        made.submit("other", np.array([1e6 + 601]), np.ones(1))


def test_how_far_ahead_a_time_may_be_is_the_operators():
    made = Monitor({}, wall=lambda: 1e6, limits=Limits.from_settings(ServerSettings(ahead=5)))
    made.submit("fast", np.array([1e6 + 4]), np.ones(1))
    with pytest.raises(SubmissionRefused, match="ahead"):
        made.submit("fast", np.array([1e6 + 61]), np.ones(1))


@pytest.mark.parametrize("count", [2, 63, 64, 65, 500])
def test_the_period_is_that_of_the_first_points_however_many_come_at_once(count):
    made = Monitor({}, wall=lambda: 1e6)
    made.submit("minutes", 60.0 * np.arange(count), np.ones(count))
    made.process_pushed()
    assert made.feeds["minutes"].stream.period == 60


def test_few_sources_begin_with_the_preset_and_those_beyond_as_series_do(monkeypatch, tmp_path):
    monkeypatch.setattr("redline.engine.monitor.MAX_PRESET_FEATURES", 3)
    store = SqliteStore(tmp_path / "store.db")
    made = Monitor({}, wall=lambda: 1e6, store=store, source_preset=UNKNOWN_PRESET)
    for name, width in (("one", 1), ("two", 2), ("more", 1)):
        made.submit(name, np.arange(40.0), np.ones((40, width)))
    made.process_pushed()
    unknown = Settings(**UNKNOWN_PRESET)
    started = {name: feed.applied for name, feed in made.feeds.items()}
    assert started == {"one": unknown, "two": unknown, "more": SERIES_SETTINGS}
    assert unknown.detector == "ensemble" and unknown != Settings()

    made.apply("two", Settings(threshold=9.0))
    made.process_pushed()
    again = Monitor({}, wall=lambda: 1e6, store=store)  # under another preset, as of before
    for name in started:
        again.request_track(name, Settings())
    again.process_pushed()
    kept = {name: feed.applied for name, feed in again.feeds.items()}
    assert kept == started | {"two": Settings(threshold=9.0)}, "a source keeps what it ran under"
    store.close()


def test_a_full_queue_is_scored_in_turns_to_the_same_bits():
    x = np.random.default_rng(5).normal(size=40_000)
    found = []
    for seconds in (np.inf, 0.0):
        made = Monitor({}, wall=lambda: 1e6)
        receipt = made.submit("full", np.arange(30_000.0), x[:30_000])
        turns = 0
        while not receipt.done() and turns < 100:
            made.process_pushed(made.clock() + seconds)
            turns += 1
            if turns == 1:  # queued behind what is left
                receipt = made.submit("full", np.arange(30_000.0, 40_000.0), x[30_000:])
        feed = made.feeds["full"]
        score, _ = feed.applied_track.scores(feed.tape.first, feed.end)
        found.append((turns, feed.end, feed.anomalies, score))
    (once, *whole), (often, *parts) = found
    assert once == 2 and 100 > often >= 8 and whole[:2] == parts[:2]
    assert np.array_equal(whole[2], parts[2], equal_nan=True)
