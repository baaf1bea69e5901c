"""The store by itself and under the loop: one transaction, bit-equal restarts, queries, retention,
migrations, backup, trouble.
"""

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from detectors import DETECTORS
from docs.tables import filled
from redline.api.server import build_server
from redline.api.service import assemble_service
from redline.engine import monitor as loop
from redline.engine import outbox, tape, track
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Limits, Monitor
from redline.feedback.labels import Label
from redline.incidents.incident import Policy
from redline.incidents.registry import IncidentQuery
from redline.settings import Settings
from redline.sources import pushed
from redline.sources.pushed import QueueFull, SubmissionCounts, SubmissionRefused
from redline.storage import (
    backup,
    checksums,
    encoding,
    errors,
    reading,
    record_retention,
    retention,
    schema,
    sqlite,
    waiting,
)
from redline.storage.errors import StoreError
from redline.storage.reading import AnomalyQuery
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore
from streams import STREAMS, Chunk, Stream

START = 1_700_000_000.0  # seconds since the epoch
LIST_ALL = IncidentQuery(limit=100)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "redline.db"


@pytest.fixture
def kept(path):
    opened = SqliteStore(path)
    yield opened
    opened.close()


def watching(ledger, streams=None, limits=loop.NO_LIMITS):
    """A monitor whose thread a test plays."""
    made = Monitor(
        streams or {}, clock=Clock(), wall=lambda: START + 1e6, store=ledger, limits=limits
    )
    made.restore_all()
    return made


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def numbers(steps, seed=5, features=1):
    """Time (steps,) and x (steps, features) with a spike now and then."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(steps, features))
    x[draw.random((steps, features)) < 0.01] += 9.0
    return START + np.arange(steps, dtype=float), x


def push(monitor, name, time, x, sizes, names=()):
    """Submits in chunks of these sizes over and over, a round of the loop after each; what became
    of all of them.
    """
    taken, at, turn = [], 0, 0
    while at < len(time):
        size = sizes[turn % len(sizes)]
        receipt = monitor.submit(name, time[at : at + size], x[at : at + size], names)
        monitor.process_pushed()
        taken.append(receipt.result(timeout=0))
        at, turn = at + size, turn + 1
    return SubmissionCounts(*(sum(each) for each in zip(*taken)))


def test_a_restart_at_any_point_goes_on_to_the_same_bits(path):
    time, x = numbers(14_000, features=2)
    x[-3:] += 60.0  # ends in the middle of a run of anomalies
    whole = watching(None)
    push(whole, "pump", time, x, [5_000], ("flow", "heat"))
    draw, at = np.random.default_rng(3), 0
    while at < len(time):
        kept = SqliteStore(path)
        monitor = watching(kept)
        end = min(len(time), at + int(draw.integers(1, 2_500)))
        push(monitor, "pump", time[at:end], x[at:end], [1, 700, 33], ("flow", "heat"))
        kept.close()  # nothing of the monitor is told that it ends
        at = end
    kept = SqliteStore(path)
    feed, other = watching(kept).feeds["pump"], whole.feeds["pump"]
    monitor.store = kept
    monitor.restore_feed(feed)
    assert feed.end == feed.committed == len(time) and feed.points == len(time)
    assert (feed.anomalies, feed.alarms, feed.run) == (
        other.anomalies,
        other.alarms,
        other.run,
    ) and feed.run > 1
    assert feed.applied_track.learned_since == other.applied_track.learned_since == 0
    for name in ("score", "alarm", "centre", "spread", "parts"):
        assert np.array_equal(
            feed.applied_track.read(name, 4_000, 14_000),
            other.applied_track.read(name, 4_000, 14_000),
            equal_nan=True,
        )
    assert [a[:-1] for a in feed.journal] == [
        a[:-1] for a in list(other.journal)[-len(feed.journal) :]
    ]
    stored = kept.points("pump", limit=20_000)
    assert stored.time.tolist() == time.tolist() and np.array_equal(stored.x, x)
    assert np.array_equal(
        stored.score[4_000:], other.applied_track.read("score", 4_000, 14_000)[:, 0], equal_nan=True
    )
    kept.close()


def simulated(name="cpu", seed=4):
    return {name: MonitoredStream(STREAMS[name](seed=seed))}


def rounds(monitor, count):
    for _ in range(count):
        monitor.clock.now += loop.BEAT_SECONDS
        monitor.beat()


def columns(track, first, end):
    return {
        name: track.read(name, first, end)
        for name in ("score", "alarm", "centre", "spread", "parts")
    }


def test_a_simulated_stream_goes_on_where_it_was_and_finds_nothing_twice(path):
    whole = watching(None, simulated())
    rounds(whole, 100)
    whole.inject("cpu", "point", 20.0)
    rounds(whole, 3_400)
    kept = SqliteStore(path)
    monitor = watching(kept, simulated())
    rounds(monitor, 100)
    monitor.inject("cpu", "point", 20.0)
    for beats in (
        1,
        900,
        2_500 - 1,
    ):  # killed in between: what was committed counts, the steps since are made again
        rounds(monitor, beats)
        kept.close()
        kept = SqliteStore(path)
        monitor = watching(kept, simulated())
    feed, other = monitor.feeds["cpu"], whole.feeds["cpu"]
    rounds(monitor, other.end - feed.end)
    rounds(whole, feed.end - other.end)
    for name, value in columns(feed.applied_track, feed.end - 9_000, feed.end).items():
        assert np.array_equal(
            value, other.applied_track.read(name, feed.end - 9_000, feed.end), equal_nan=True
        ), name
    kept.commit(list(monitor.outbox.waiting))
    found = kept.anomalies(AnomalyQuery(limit=10_000))
    assert sorted(a["step"] for a in found) == [
        a.step for a in other.journal
    ] and feed.anomalies == other.anomalies == len(found)
    assert kept.points("cpu").time.size == 0
    kept.close()


def test_another_seed_is_another_world_and_takes_the_place_of_the_first(path):
    kept = SqliteStore(path)
    rounds(watching(kept, simulated(seed=4)), 20)
    monitor = watching(kept, simulated(seed=5))
    rounds(monitor, 20)
    assert (
        len(kept.anomalies(AnomalyQuery(limit=10_000)))
        == monitor.feeds["cpu"].anomalies
        == len(monitor.feeds["cpu"].journal)
    )
    assert monitor.feeds["cpu"].end == tape.BUFFER_STEPS + 20
    kept.close()


def test_what_is_applied_survives_with_the_way_back_and_the_scores_of_the_new_track(
    path, monkeypatch
):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 4_000)
    time, x = numbers(9_000)
    kept, whole = SqliteStore(path), watching(None)
    monitor = watching(kept)
    for each in (monitor, whole):
        push(each, "pump", time[:6_000], x[:6_000], [500])
        each.apply("pump", Settings("EWMA", 40, 4.5))
        each.process_pushed()
    kept.close()
    kept = SqliteStore(path)
    monitor = watching(kept)
    for each in (monitor, whole):
        push(each, "pump", time[6_000:], x[6_000:], [500])
    feed, other = monitor.feeds["pump"], whole.feeds["pump"]
    assert (
        feed.applied == Settings("EWMA", 40, 4.5)
        and feed.applied_track.learned_since == other.applied_track.learned_since
    )
    for name, value in columns(feed.applied_track, 5_000, 9_000).items():
        assert np.array_equal(
            value, other.applied_track.read(name, 5_000, 9_000), equal_nan=True
        ), name
    assert (
        monitor.wait_until_stored(patience=0.0)
        and monitor.undo("pump") == Settings()
        and not monitor.wait_until_stored(patience=0.0)
    )
    monitor.process_pushed()
    assert monitor.wait_until_stored(patience=0.0)
    assert [each["settings"]["detector"] for each in kept.history("pump")] == [
        "rolling z-score",
        "EWMA",
        "rolling z-score",
    ]
    kept.close()


def test_a_repeat_is_ignored_and_a_late_one_kept_unscored_also_after_a_restart(path):
    time, x = numbers(300)
    gap = np.arange(300) != 100
    kept = SqliteStore(path)
    monitor = watching(kept)
    assert push(monitor, "pump", time[gap], x[gap], [7]) == SubmissionCounts(299, 0, 0)
    assert push(
        monitor, "pump", time[[90, 100, 100, 120]], x[[90, 100, 100, 120]], [4]
    ) == SubmissionCounts(0, 3, 1)
    kept.close()
    kept = SqliteStore(path)
    monitor = watching(kept)
    assert push(monitor, "pump", time, x, [300]) == SubmissionCounts(0, 300, 0)
    assert push(
        monitor, "pump", np.array([START + 0.5, START + 400]), np.ones((2, 1)), [2]
    ) == SubmissionCounts(1, 0, 1)
    assert monitor.feeds["pump"].stream.notes == {"repeated": 303, "late": 2}
    found = kept.points("pump")
    assert (
        found.time.tolist() == sorted([*time.tolist(), START + 0.5, START + 400])
        and found.first is None
    )
    assert np.flatnonzero(np.isnan(found.score[40:])).tolist() == [61]
    kept.close()


@pytest.fixture
def chunks_read(monkeypatch):
    """The chunks of points that were read from the store, as (first step, steps) in order."""
    read = []

    def verify(table, row):
        if table is schema.points_table:
            read.append((row["first"], row["n"]))
        return checksums.verify_row(table, row)

    monkeypatch.setattr(reading, "verify_row", verify)
    return read


def test_late_points_read_only_the_chunks_they_fall_into(kept, chunks_read):
    time, x = numbers(40_000)
    monitor = watching(kept)
    present = np.arange(40_000) % 5_000 != 77
    push(monitor, "pump", time[present], x[present], [500])
    ends = [0, 77, 25_077]  # known, late, late; the last 10,000 points are in the buffer
    counts = push(monitor, "pump", time[ends], x[ends], [3])
    assert counts == SubmissionCounts(0, 1, 2)
    assert [steps for _, steps in chunks_read] == [500, 500]
    del chunks_read[:]
    between = np.array([START - 5.0, START + 499.5])  # before the first chunk, between two
    assert push(monitor, "pump", between, np.ones((2, 1)), [2]) == SubmissionCounts(0, 0, 2)
    assert len(chunks_read) <= 1
    again = np.concatenate([time[ends], between])
    assert push(monitor, "pump", again, np.ones((5, 1)), [5]) == SubmissionCounts(0, 5, 0)


def test_late_points_of_many_chunks_are_sorted_in_turns(kept, chunks_read, monkeypatch):
    monkeypatch.setattr(reading, "MATCHED_CHUNKS", 4)
    monkeypatch.setattr(reading, "TIMES_IN_QUERY", 7)
    time, x = numbers(40_000)
    monitor = watching(kept)
    present = np.arange(40_000) % 100 != 77
    push(monitor, "pump", time[present], x[present], [500])
    draw = np.random.default_rng(6)
    old = draw.permutation(28_000)[:300]
    news = START + 40_000 + np.arange(300.0)
    mixed = np.concatenate([np.stack([time[old], news], axis=1).reshape(-1), time[old]])
    owed = [
        monitor.submit("pump", part, np.ones((len(part), 1))) for part in (mixed[:250], mixed[250:])
    ]
    turns = 0
    while not owed[1].done():
        other = monitor.submit("pipe", np.array([START + turns]), np.ones((1, 1)))
        monitor.process_pushed()
        assert other.done() and len(chunks_read) <= 4
        del chunks_read[:]
        turns += 1
    assert turns > 10
    first, second = (receipt.result(timeout=0) for receipt in owed)
    late = int(np.sum(~present[old]))
    assert first == SubmissionCounts(
        125, 125 - int(np.sum(~present[old[:125]])), int(np.sum(~present[old[:125]]))
    )
    assert second.accepted == 175 and first.late + second.late == late
    assert first.repeated + second.repeated == 600 - late
    assert monitor.feeds["pump"].stream.waiting == 0 and monitor.budget.waiting == 0
    found = kept.points("pump", limit=50_000)
    wanted = np.concatenate([time[present], time[old][~present[old]], news])
    assert found.time.tolist() == sorted(wanted.tolist())


def test_many_late_points_are_stored_in_turns_and_acknowledged_after_the_last(kept, monkeypatch):
    monkeypatch.setattr(pushed, "LATE_AT_ONCE", 100)
    monitor = watching(kept)
    time, x = numbers(1_000)
    push(monitor, "pump", time[1::2], x[1::2], [250])
    commit = kept.commit
    sizes = []

    def counted(batches, fleets):
        sizes.append(sum(len(chunk.time) for batch in batches for chunk in batch.late))
        commit(batches, fleets=fleets)

    monkeypatch.setattr(kept, "commit", counted)
    receipt = monitor.submit("pump", time[::2], x[::2])
    for turn in range(5):
        assert not receipt.done(), f"acknowledged after {turn} of 5 turns"
        monitor.process_pushed()
    assert receipt.result(0) == SubmissionCounts(0, 0, 500)
    assert sizes == [100] * 5
    assert np.array_equal(kept.points("pump", limit=2_000).time, time)


def test_a_source_may_send_only_so_many_old_points_in_a_minute(kept, monkeypatch):
    monkeypatch.setattr(pushed, "OLD_A_MINUTE", 600)
    now = [0.0]
    monkeypatch.setattr(pushed.clocks, "monotonic", lambda: now[0])
    monitor = watching(kept)
    time, x = numbers(1_000)
    push(monitor, "pump", time[1:], x[1:], [999])
    for _ in range(6):
        push(monitor, "pump", time[:100], x[:100], [100])
    with pytest.raises(QueueFull, match="at most 600 late or repeated points of pump in a minute"):
        monitor.submit("pump", time[:1], x[:1])
    monitor.submit("pump", time[-1:] + 1.0, x[-1:])
    now[0] = 10.0
    push(monitor, "pump", time[:100], x[:100], [100])
    assert monitor.feeds["pump"].stream.notes["refused"] == 1


def test_a_full_queue_refuses_the_whole_and_loses_nothing(kept):
    monitor = watching(kept)
    time, x = numbers(120_000)
    first = monitor.submit("pump", time[:60_000], x[:60_000])
    with pytest.raises(
        QueueFull, match="room for 60,000 in the queue of pump; came 60,000 of 100,000 waiting here"
    ):
        monitor.submit("pump", time[60_000:], x[60_000:])
    monitor.process_pushed()
    assert first.result(timeout=0) == SubmissionCounts(60_000, 0, 0)
    assert push(monitor, "pump", time[60_000:], x[60_000:], [60_000]) == SubmissionCounts(
        60_000, 0, 0
    )
    assert monitor.feeds["pump"].stream.notes["refused"] == 60_000 and monitor.budget.waiting == 0
    assert kept.points("pump", limit=200_000).time.tolist() == time.tolist()


@pytest.mark.parametrize(
    ("name", "time", "x", "names", "said"),
    [
        (
            "pump",
            [np.nan],
            [1.0],
            (),
            "time: wanted seconds since the Unix epoch, at most ",
        ),
        ("pump", [4e9], [1.0], (), "time: wanted seconds"),
        (
            "pump",
            [START],
            [1.0, 2.0],
            (),
            "values: wanted one row of 1 to 1,000 features for each of 1 times; came the shape",
        ),
        ("", [START], [1.0], (), "source: wanted a name of 1 to 500 printable characters; came ''"),
        ("a\nb", [START], [1.0], (), "source: wanted a name"),
        ("pump", [START], [[1.0, 2.0]], ("a", "a"), "values: wanted every feature once"),
        ("cpu", [START], [1.0], (), "source: wanted a source that programs push into; came 'cpu'"),
    ],
)
def test_a_submission_that_cannot_be_is_refused_by_field(kept, name, time, x, names, said):
    with pytest.raises(SubmissionRefused) as refusal:
        watching(kept, simulated()).submit(name, np.array(time), np.array(x), names)
    assert str(refusal.value).startswith(said)


INVISIBLE_NAMES = ["oven\u3164", "a\u2800b", "\u115f", "x\ufe0f", "a\u200db", "\U000e0101"]


@pytest.mark.parametrize("name", [*INVISIBLE_NAMES, "a" + 5 * "\u0301"])
def test_a_name_that_looks_like_another_is_refused(kept, name):
    monitor = watching(kept)
    for source, names in ((name, ()), ("pump", (name,))):
        with pytest.raises(SubmissionRefused, match="printable characters") as error:
            monitor.submit(source, np.array([START]), np.array([[1.0]]), names)
        assert error.value.came.isascii()
    assert not monitor.feeds


def test_names_that_look_the_same_are_the_same(kept):
    monitor = watching(kept)
    for source, names in (("caf\u00e9", ("\u00e9",)), (" cafe\u0301 ", (" e\u0301",))):
        monitor.submit(source, np.array([START]), np.array([[1.0]]), names)
    assert list(monitor.feeds) == ["caf\u00e9"]
    assert monitor.feeds["caf\u00e9"].stream.names == ("\u00e9",)


def test_features_that_look_the_same_do_not_come_together(kept):
    twice = ("\u00e9", "e\u0301")
    with pytest.raises(SubmissionRefused, match="every feature once"):
        watching(kept).submit("cafe", np.array([START]), np.array([[1.0, 2.0]]), twice)


def test_new_sources_are_opened_only_where_that_is_allowed_and_up_to_a_number(kept):
    monitor = watching(kept, limits=Limits(create=True, streams=2))
    for name in ("a", "b"):
        push(monitor, name, *numbers(3), [3])
    with pytest.raises(SubmissionRefused, match="at most 2 pushed sources"):
        monitor.submit("c", *numbers(3))
    with pytest.raises(SubmissionRefused, match="by the setting create"):
        watching(kept, limits=Limits(create=False)).submit("c", *numbers(3))
    assert watching(kept, limits=Limits(create=False)).submit("a", *numbers(3))


def test_features_come_in_any_order_and_a_strange_one_is_refused(kept):
    monitor, (time, x) = watching(kept), numbers(4, features=2)
    push(monitor, "pump", time[:2], x[:2], [2], ("flow", "heat"))
    push(monitor, "pump", time[2:3], x[2:3, ::-1], [1], ("heat", "flow"))
    push(monitor, "pump", time[3:], x[3:, :1], [1], ("flow",))
    with pytest.raises(SubmissionRefused, match="features of pump: flow, heat; came rain"):
        monitor.submit("pump", time[3:] + 1, x[3:], ("flow", "rain"))
    found = kept.points("pump").x
    assert np.array_equal(found[:3], x[:3]) and found[3, 0] == x[3, 0] and np.isnan(found[3, 1])


class Failing:
    """A ledger in front of another one that fails while it is told to."""

    def __init__(self, inner):
        self.inner, self.broken = inner, False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def commit(self, batches, fleets=()):
        if self.broken:
            raise StoreError("the disk is full; make room")
        self.inner.commit(batches, fleets=fleets)


def test_while_commits_fail_nothing_is_acknowledged_and_afterwards_everything_is(kept, caplog):
    front, heard = Failing(kept), []
    monitor, (time, x) = watching(front, simulated()), numbers(2_000)
    monitor.listeners.append(lambda batches, committed: heard.extend(batches))
    push(monitor, "pump", time[:500], x[:500], [500])
    front.broken, told = True, len(heard)
    owed = monitor.submit("pump", time[500:1_000], x[500:1_000])
    rounds(monitor, 5)
    later = monitor.submit("pump", time[1_000:], x[1_000:])
    again = monitor.submit("pump", time[500:1_000], x[500:1_000])  # a client that lost patience
    rounds(monitor, 50)
    assert not owed.done() and not later.done() and not again.done() and len(heard) == told
    assert (
        "the disk is full; make room" in monitor.trouble.text
        and caplog.text.count("the store failed") == 1
    )
    assert monitor.feeds["cpu"].end > 5 and kept.points("pump").time.size == 500
    rounds(monitor, 60)
    assert len(heard) > told  # a call for help does not wait for a disk for ever
    front.broken = False
    rounds(monitor, 12)
    assert [each.result(timeout=0) for each in (owed, later, again)] == [
        SubmissionCounts(500, 0, 0),
        SubmissionCounts(1_000, 0, 0),
        SubmissionCounts(0, 500, 0),
    ]
    assert monitor.trouble is None and kept.points("pump").time.tolist() == time.tolist()
    assert len({(batch.name, batch.first) for batch in heard}) == len(heard)  # told once
    assert kept.anomalies(AnomalyQuery(streams=("pump",), limit=1_000))[-1]["number"] == 1


def test_a_late_point_is_not_acknowledged_before_it_is_kept(kept):
    front, (time, x) = Failing(kept), numbers(50)
    monitor = watching(front)
    push(monitor, "pump", time[1:], x[1:], [49])
    front.broken = True
    owed = monitor.submit("pump", time[:1], x[:1])
    rounds(monitor, 15)
    assert not owed.done()
    front.broken = False
    rounds(monitor, 15)
    assert (
        owed.result(timeout=0) == SubmissionCounts(0, 0, 1)
        and kept.points("pump").time.tolist() == time.tolist()
    )


def test_batches_that_wait_too_long_are_given_up_counted_and_the_next_restart_is_still_exact(
    path, monkeypatch
):
    monkeypatch.setattr(outbox, "MAX_WAITING_BATCHES", 40)
    kept = SqliteStore(path)
    front = Failing(kept)
    monitor, whole = watching(front, simulated()), watching(None, simulated())
    for each in (monitor, whole):
        rounds(each, 50)
    front.broken = True
    rounds(monitor, 200)
    front.broken = False
    rounds(monitor, 50)
    rounds(whole, 250)
    assert 100 < monitor.outbox.lost < 250
    kept.commit(list(monitor.outbox.waiting))
    kept.close()
    kept = SqliteStore(path)
    feed, other = watching(kept, simulated()).feeds["cpu"], whole.feeds["cpu"]
    assert feed.end == other.end
    assert np.array_equal(
        feed.applied_track.read("score", feed.end - 20, feed.end),
        other.applied_track.read("score", feed.end - 20, feed.end),
    )
    kept.close()


class Ticking(Stream):
    """A stream with a clock of its own: two steps whenever it is asked."""

    title, names, units, floors, period = "Ticking", ("value",), ("",), (0.0,), 1.0

    def __init__(self):
        self.step = 0

    def take(self, steps):
        self.step += 2
        at = np.arange(self.step - 2, self.step)
        return Chunk(START + at, np.sin(at * 0.7)[:, None], None)


def test_a_hole_in_what_is_kept_of_a_live_stream_takes_a_new_snapshot(path, monkeypatch):
    monkeypatch.setattr(outbox, "MAX_WAITING_BATCHES", 20)
    kept = SqliteStore(path)
    front = Failing(kept)
    monitor = watching(front, {"tick": MonitoredStream(Ticking(), own_clock=True)})
    rounds(monitor, 30)
    front.broken = True
    rounds(monitor, 100)
    front.broken = False
    rounds(monitor, 100)
    before = monitor.feeds["tick"]
    assert monitor.outbox.lost > 50
    kept.close()
    kept = SqliteStore(path)
    feed = watching(kept, {"tick": MonitoredStream(Ticking(), own_clock=True)}).feeds["tick"]
    assert feed.end == before.end and feed.failure is None
    first = feed.tape.first
    assert np.array_equal(
        feed.applied_track.read("score", first, feed.end),
        before.applied_track.read("score", first, feed.end),
        equal_nan=True,
    )
    kept.close()


def test_a_full_disk_is_said_and_the_commit_goes_through_once_there_is_room(kept):
    monitor, (time, x) = watching(kept), numbers(50_000)
    push(monitor, "pump", time[:1_000], x[:1_000], [1_000])
    with kept.lock:
        pages = (
            kept.writer.raw_connection()
            .driver_connection.execute("PRAGMA page_count")
            .fetchone()[0]
        )
        kept.writer.raw_connection().driver_connection.execute(
            f"PRAGMA max_page_count={pages + 20}"
        )
    owed = monitor.submit("pump", time[1_000:], x[1_000:])
    rounds(monitor, 3)
    assert "its disk is full" in monitor.trouble.text and not owed.done()
    kept.writer.raw_connection().driver_connection.execute("PRAGMA max_page_count=1073741823")
    rounds(monitor, 12)
    assert (
        owed.result(timeout=0) == SubmissionCounts(49_000, 0, 0)
        and kept.points("pump", limit=60_000).time.tolist() == time.tolist()
    )


def test_a_start_on_a_full_disk_leaves_nothing_that_looks_like_a_lost_store(path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(sqlite, "WRITER_PRAGMAS", ("max_page_count=1", *sqlite.WRITER_PRAGMAS))
        for _ in range(2):
            with pytest.raises(errors.StoreFull, match="its disk is full or its size is limited"):
                SqliteStore(path)
    SqliteStore(path).close()
    path.write_bytes(b"")
    with pytest.raises(errors.StoreDamaged, match="held a store and is empty now"):
        SqliteStore(path)


def test_a_store_is_opened_once_its_disk_has_room(path, monkeypatch):
    monkeypatch.setattr(waiting, "ROOM_SECONDS", 0.01)
    full = pytest.MonkeyPatch()
    full.setattr(sqlite, "WRITER_PRAGMAS", ("max_page_count=1", *sqlite.WRITER_PRAGMAS))
    said = []

    def say(sentence):
        said.append(sentence)
        threading.Timer(0.1, full.undo).start()

    waiting.open_when_room(lambda: SqliteStore(path), say).close()
    assert len(said) == 1 and said[0].endswith("waits until there is room (Ctrl-C ends it)")
    damaged = path.with_name("other.db")
    damaged.write_bytes(b"no store" * 1_000)
    with pytest.raises(StoreError):
        waiting.open_when_room(lambda: SqliteStore(damaged), say)
    assert len(said) == 1


def test_a_snooze_that_ends_while_the_disk_is_full_silences_nobody(kept):
    """A spike on one stream while the snooze on the other is over, and neither can be written."""
    streams = {name: MonitoredStream(STREAMS[name](seed=3, rate=0.0)) for name in ("cpu", "wave")}
    service = assemble_service(lambda store: watching(store, streams), kept)
    monitor, heard = service.monitor, []
    service.incidents.policy = Policy(quiet=5_000)  # so that the first is still live
    service.recorder.listeners.append(
        lambda changes: heard.extend((change.incident.stream, change.what) for change in changes)
    )
    for name in monitor.feeds:
        monitor.apply(name, Settings(threshold=6.0))
    rounds(monitor, 30)
    monitor.inject("cpu", "point", 40.0)
    rounds(monitor, 15)
    assert heard == [("cpu", "opened")]
    service.incidents.snooze(
        next(iter(service.incidents.items)), "ann", 0.0, "10 min"
    )  # over long since
    connection = kept.writer.raw_connection().driver_connection
    connection.execute("PRAGMA query_only=1")
    monitor.inject("wave", "point", 40.0)
    rounds(monitor, 130)  # a call for help does not wait for a disk for ever
    connection.execute("PRAGMA query_only=0")
    assert ("wave", "opened") in heard, heard
    rounds(monitor, 30)
    assert ("cpu", "woke") in heard


def test_a_file_that_another_program_locks_is_tried_again(kept, path, monkeypatch):
    monitor, (time, x) = watching(kept), numbers(20)
    kept.writer.raw_connection().driver_connection.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    owed = monitor.submit("pump", time, x)
    rounds(monitor, 1)
    assert "is locked by another program" in monitor.trouble.text and not owed.done()
    other.execute("ROLLBACK")
    other.close()
    rounds(monitor, 12)
    assert owed.result(timeout=0) == SubmissionCounts(20, 0, 0)


def test_files_that_are_no_store_are_named_with_what_to_do(path, tmp_path):
    with SqliteStore(path).writing() as c:
        c.exec_driver_sql("CREATE TABLE more (a)")
    loop_of_links = tmp_path / "loop.db"
    loop_of_links.symlink_to(loop_of_links)
    damaged, foreign, newer = (
        tmp_path / "damaged.db",
        tmp_path / "foreign.db",
        tmp_path / "newer.db",
    )
    damaged.write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE customers (id)")
    other.close()
    SqliteStore(newer).close()
    with sqlite3.connect(newer) as other:
        other.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    other.close()
    said = {
        damaged: "is damaged",
        foreign: "a database of another program",
        newer: f"newer Redline .tables 99, this one knows {schema.SCHEMA_VERSION}",
        tmp_path: "is no file",
        Path(":memory:"): "is no file; --db '' keeps nothing",
        loop_of_links: "cannot be a file: too many levels of symbolic links; name another",
        tmp_path / ("x" * 300): "cannot be a file: file name too long",
    }
    for file, words in said.items():
        with pytest.raises(StoreError, match=words):
            SqliteStore(file)
    with pytest.raises(StoreError, match="does not exist"):
        SqliteStore(tmp_path / "none.db", write=False)
    assert not (tmp_path / "none.db").exists()


def test_one_file_has_one_redline(kept, path):
    with pytest.raises(
        StoreError,
        match="is in use by another Redline; stop that one, or choose another file with --db",
    ):
        SqliteStore(path)
    looked = SqliteStore(path, write=False)  # who only reads may
    assert looked.last_anomaly_id() == 0
    looked.close()


def test_the_id_of_a_removed_anomaly_is_not_given_again(path):
    store = SqliteStore(path)
    monitor = watching(store)
    push(monitor, "pump", *numbers(2_000), [2_000])
    last = store.last_anomaly_id()
    monitor.remove_source("pump")
    monitor.beat()
    store.close()
    store = SqliteStore(path)
    monitor = watching(store)
    assert last > 0 and not store.anomalies() and store.last_anomaly_id() == last
    push(monitor, "pipe", *numbers(2_000), [2_000])
    assert min(row["id"] for row in store.anomalies()) == last + 1
    store.close()


def test_an_older_store_is_brought_up_to_date_in_one_transaction(path, monkeypatch):
    SqliteStore(path).close()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 7)
    create, alter = ["CREATE TABLE new (a)"], ["ALTER TABLE new ADD b"]
    broken = [*alter, "ALTER TABLE nowhere ADD c"]
    monkeypatch.setattr(schema, "MIGRATIONS", ([], [], [], [], create, broken))
    with pytest.raises(StoreError, match="nowhere"):
        SqliteStore(path)
    monkeypatch.setattr(schema, "MIGRATIONS", ([], [], [], [], create, alter))
    migrated = SqliteStore(path)
    with migrated.reading() as c:
        assert c.exec_driver_sql("SELECT a, b FROM new").all() == []
        assert c.exec_driver_sql("SELECT value FROM meta").scalar() == "7"
    migrated.close()


def test_points_are_found_by_time_oldest_first_whatever_the_chunks(kept):
    monitor, (time, x) = watching(kept), numbers(5_000)
    push(monitor, "pump", time, x, [1, 1, 1, 2, 40, 900, 1])
    assert kept.points("nobody") is None
    for since, until, limit in (
        (None, None, 10_000),
        (None, None, 7),
        (START + 100.5, None, 9),
        (START + 10, START + 4_000, 5_000),
        (None, START + 99, 50),
    ):
        inside = np.flatnonzero((time >= (since or -np.inf)) & (time <= (until or np.inf)))
        wanted = inside[:limit] if since is not None else inside[-limit:]
        found = kept.points("pump", since, until, limit)
        assert (
            np.array_equal(found.time, time[wanted])
            and np.array_equal(found.x, x[wanted])
            and found.first == wanted[0]
        )
    assert kept.points("pump", START + 9_000).time.size == 0


def test_points_pushed_one_by_one_become_few_chunks(kept):
    monitor, (time, x) = watching(kept), numbers(400)
    push(monitor, "pump", time, x, [1])
    with kept.reading() as c:
        assert c.exec_driver_sql("SELECT count(*), sum(n) FROM points").one()[0] < 120
    assert np.array_equal(kept.points("pump").x, x)


def test_anomalies_are_found_by_every_field_and_page_by_page(path):
    kept = SqliteStore(
        path,
    )
    monitor, (time, x) = watching(kept), numbers(4_000, features=2)
    push(monitor, "pump", time, x, [500], ("flow", "heat"))
    push(monitor, "pipe", time, x, [500], ("flow", "heat"))
    whole = kept.anomalies(AnomalyQuery(limit=1_000))
    journal = monitor.feeds["pump"].journal
    assert [a["id"] for a in whole] == sorted((a["id"] for a in whole), reverse=True)
    mine = kept.anomalies(AnomalyQuery(streams=("pump",), limit=1_000))
    assert [a["step"] for a in mine][::-1] == [a.step for a in journal] and len(whole) == 2 * len(
        journal
    )
    assert {a["feature"] for a in mine} == {"flow", "heat"} and mine[0]["low"] < mine[0]["high"]
    narrow = AnomalyQuery(
        ("pump",),
        START + 1_000,
        START + 3_000,
        severities=("critical",),
        alarms=True,
        feature="heat",
        limit=1_000,
    )
    wanted = [
        a["id"]
        for a in mine
        if START + 1_000 <= a["time"] <= START + 3_000
        and a["severity"] == "critical"
        and a["alarm"]
        and a["feature"] == "heat"
    ]
    assert wanted and [a["id"] for a in kept.anomalies(narrow)] == wanted
    pages, before = [], None
    while page := kept.anomalies(AnomalyQuery(before=before, limit=17)):
        pages, before = [*pages, *page], page[-1]["id"]
    assert pages == whole
    assert [a["id"] for a in kept.anomalies(AnomalyQuery(after=whole[9]["id"], limit=5))] == [
        a["id"] for a in whole[4:9]
    ][::-1]
    assert sum(count for _, count in kept.daily("pump")) == len(mine)
    kept.close()


def test_retention_leaves_what_a_restart_needs(path):
    time, x = numbers(40_000)
    kept = SqliteStore(path, Retention(rows=15_000))
    push(watching(kept), "pump", time, x, [250])
    while kept.sweeper.sweep(0.0):
        pass
    left = kept.points("pump", limit=50_000)
    assert 15_000 - 500 <= len(left.time) <= 15_000 and left.time[-1] == time[-1]
    kept.sweeper.keep = Retention(days=1.0)
    while kept.sweeper.sweep(5e9):
        pass
    assert (
        10_000 <= len(kept.points("pump", limit=50_000).time) <= 12_750
        and len(kept.anomalies()) == 1
    )
    monitor = watching(kept)
    monitor.restore_feed(monitor.feeds["pump"])
    assert monitor.feeds["pump"].end == 40_000 and monitor.feeds["pump"].tape.kept == 10_000
    assert monitor.next_id() > 300  # ids are not used twice
    kept.close()


def test_what_retention_deletes_leaves_the_file(path):
    def pages(what):
        with closing(sqlite3.connect(path)) as c:
            return c.execute(f"PRAGMA {what}").fetchone()[0]

    kept = SqliteStore(path, Retention(rows=1_000))
    push(watching(kept), "pump", *numbers(60_000), [250])
    before = pages("page_count")
    while kept.sweeper.sweep(0.0):
        pass
    assert pages("freelist_count") == 0 and pages("page_count") < before / 2
    kept.close()


def stored(path):
    """Points in the file, as another program counts them."""
    with closing(sqlite3.connect(path)) as c:
        return c.execute("SELECT coalesce(sum(n), 0) FROM points").fetchone()[0]


@pytest.mark.slow
def test_retention_keeps_up_with_many_times_a_transaction_a_pass(path, monkeypatch):
    """The real loop on the real store; a pass each half second, 100 chunks a transaction, many more
    written meanwhile.
    """
    monkeypatch.setattr(retention, "SWEEP_EVERY", 0.5)
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 100)
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monkeypatch.setattr(loop, "MANY_SOURCES", 0)  # buffers of 100 steps
    names, limit, size = (
        [f"pump {i}" for i in range(20)],
        10_000,
        64,
    )  # so many steps are never joined
    kept = SqliteStore(path, Retention(rows=limit))
    monitor = Monitor({}, store=kept)
    monitor.start()
    counts, at, began = [], 0, time.monotonic()
    while time.monotonic() - began < 4.0:
        moments = START + np.arange(at, at + size, dtype=float)
        receipts = [monitor.submit(name, moments, np.zeros((size, 1))) for name in names]
        for receipt in receipts:
            receipt.result(timeout=10.0)
        at += size
        counts.append((time.monotonic() - began, stored(path)))
    monitor.stop()
    kept.close()
    late = [count for when, count in counts if when > 2.0]
    assert at * len(names) > 4 * limit
    assert min(late) <= limit + 2 * size * len(
        names
    )  # a pass gets there, however much came meanwhile
    again = SqliteStore(path)
    monitor = watching(again)
    for name in names:
        monitor.restore_feed(monitor.feeds[name])
        assert monitor.feeds[name].end == at and monitor.feeds[name].tape.kept == 100
    again.close()


def test_a_pass_of_the_retention_goes_on_in_short_turns(path, monkeypatch):
    time, x = numbers(40_000)
    kept = SqliteStore(path, Retention(rows=15_000))
    push(watching(kept), "pump", time, x, [250])
    now = {"tick": 100.0, "wall": 1e9}

    def ticking():  # each look at the clock takes a hundredth of a second
        now["tick"] += 0.01
        now["wall"] += 0.01
        return now["tick"]

    monkeypatch.setattr(retention.time, "monotonic", ticking)
    monkeypatch.setattr(retention.time, "time", lambda: now["wall"])
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept.sweeper.last_turn, left = (0.0, 1e9 - 100.0), [stored(path)]
    while not left[1:] or kept.sweeper.unfinished:
        kept.sweeper.run_if_due()
        left.append(stored(path))
        assert len(left) < 1_000
    assert 15_000 - 250 <= left[-1] <= 15_000
    turns = np.flatnonzero(np.diff(left))
    assert len(turns) > 1 and np.diff(turns).min() > 1  # between two turns it rests
    assert np.abs(np.diff(left)).max() <= 6 * 10 * 250  # and each is short
    kept.sweeper.run_if_due()
    assert stored(path) == left[-1]
    kept.close()


def test_chunks_that_a_restart_needs_hold_up_no_others(path, monkeypatch):
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept = SqliteStore(path, Retention(rows=25_000))
    monitor = watching(kept)
    push(monitor, "still", *numbers(10_000), [250])  # 40 chunks, all of them needed
    push(monitor, "pump", *numbers(40_000), [250])
    kept.sweeper.sweep(0.0)
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(0.0)
    assert stored(path) <= 25_000 and len(kept.points("still", limit=50_000).time) == 10_000
    kept.close()


def test_anomalies_and_late_points_too_old_go_in_small_transactions(path, monkeypatch):
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept = SqliteStore(path, Retention(days=1.0))
    monitor, (time, x) = watching(kept), numbers(3_000)
    push(monitor, "pump", time[1::2], x[1::2], [250])
    push(monitor, "pump", time[:100:2], x[:100:2], [25])  # late
    found = len(kept.anomalies(AnomalyQuery(limit=1_000)))
    assert found > 15
    kept.sweeper.sweep(5e9)
    assert len(kept.anomalies(AnomalyQuery(limit=1_000))) == found - 9
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(5e9)
    with closing(sqlite3.connect(path)) as c:
        assert c.execute("SELECT count(*) FROM late").fetchone()[0] == 0
    assert len(kept.anomalies()) == 1
    kept.close()


def test_small_chunks_are_joined_though_the_retention_took_the_first(path, monkeypatch):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monkeypatch.setattr(loop, "MANY_SOURCES", 0)  # buffers of 100 steps
    kept = SqliteStore(path, Retention(rows=100))
    monitor, (time, x) = watching(kept), numbers(4_000)
    for end in range(20, 4_001, 20):
        push(monitor, "pump", time[end - 20 : end], x[end - 20 : end], [20])
        kept.sweeper.sweep(0.0)
        left = kept.points("pump", limit=5_000)
        assert min(end, 100) <= len(left.x) and np.array_equal(left.x, x[end - len(left.x) : end])
        assert left.first == end - len(left.x)
    kept.close()


def test_a_commit_that_fails_does_not_count_its_points(kept):
    kept.sweeper.keep = Retention(rows=1_000)
    monitor = watching(kept)
    push(monitor, "pump", *numbers(500), [250])
    kept.sweeper.sweep(0.0)
    before = kept.batch_writer.total

    def failing(*_):
        raise StoreError("no room")

    commit = kept.commit
    kept.commit = lambda batches, fleets: commit(batches, failing, fleets=fleets)
    time, x = numbers(700)
    monitor.submit("pump", time[500:], x[500:])
    monitor.process_pushed()
    assert kept.batch_writer.total == before == 500


def test_a_closed_store_refuses_instead_of_opening_the_file_again(path, tmp_path):
    kept = SqliteStore(path)
    push(watching(kept), "pump", *numbers(100), [50])
    kept.close()
    other = SqliteStore(path)
    asked = (
        lambda: kept.record("ann", "apply"),
        lambda: kept.commit([]),
        lambda: kept.points("pump"),
        lambda: kept.backup(tmp_path / "copy.db"),
    )
    for ask in asked:
        with pytest.raises(StoreError, match="is closed, because Redline ends; start it again"):
            ask()
    assert other.audit() == [] and not (tmp_path / "copy.db").exists()
    other.close()
    kept.close()


def test_a_loop_that_outlives_the_service_writes_and_acknowledges_nothing(
    path, monkeypatch, caplog
):
    """A stream that blocks keeps the loop from ending in time; then it goes on beside a second
    program on the file.
    """
    monkeypatch.setattr(Monitor.stop, "__defaults__", (0.1,))
    entered, released = threading.Event(), threading.Event()

    class Stuck(Stream):
        names, units, floors, title = ("value",), ("",), (0.0,), "Stuck"

        def take(self, steps):
            if receipts:
                entered.set()
                released.wait(10.0)
            return Chunk(np.empty(0), np.empty((0, 1)), None)

    receipts = []
    kept = SqliteStore(path)
    service = assemble_service(
        lambda store: Monitor({"stuck": MonitoredStream(Stuck(), own_clock=True)}, store=store),
        kept,
    )
    monitor = service.monitor
    time, x = numbers(200)
    with TestClient(build_server(service)):
        monitor.submit("pump", time[:100], x[:100]).result(timeout=10.0)
        receipts.append(None)
        assert entered.wait(10.0)
        receipts.append(monitor.submit("pump", time[100:], x[100:]))
    assert kept.closed and monitor.thread.is_alive()
    assert "the loop still runs" in caplog.text and "in wait (threading.py" in caplog.text
    other = SqliteStore(path)  # the file is free
    released.set()
    monitor.thread.join(10.0)
    assert not monitor.thread.is_alive()
    with pytest.raises(ConnectionAbortedError, match="not acknowledged"):
        receipts[1].result(timeout=0)
    assert len(other.points("pump").time) == 100
    other.close()


def test_a_clock_that_jumps_deletes_nothing(kept, monkeypatch):
    kept.sweeper.keep = Retention(days=1.0)
    push(watching(kept), "pump", *numbers(40_000), [250])
    now = {"tick": 100.0, "wall": 1e9}
    monkeypatch.setattr(retention.time, "monotonic", lambda: now["tick"])
    monkeypatch.setattr(retention.time, "time", lambda: now["wall"])
    kept.sweeper.last_turn, swept = (100.0, 1e9), []
    monkeypatch.setattr(kept.sweeper, "sweep", swept.append)
    for tick, wall in ((61.0, 61.0), (61.0, 1e8), (61.0, -2e8), (61.0, 61.5)):
        now = {"tick": now["tick"] + tick, "wall": now["wall"] + wall}
        kept.sweeper.run_if_due()
    assert len(swept) == 2


def test_a_backup_taken_under_way_is_whole_and_can_be_put_back(path, tmp_path):
    time, x = numbers(3_000)
    kept = SqliteStore(path)
    monitor = watching(kept)
    push(monitor, "pump", time[:2_000], x[:2_000], [100])
    copy = kept.backup(tmp_path / "copy.db")
    with pytest.raises(StoreError, match="is there already"):
        kept.backup(copy)
    push(monitor, "pump", time[2_000:], x[2_000:], [100])
    with pytest.raises(StoreError, match="in use by another Redline"):
        backup.restore_backup(copy, path)
    kept.close()
    backup.restore_backup(copy, path)
    kept = SqliteStore(path)
    assert kept.points("pump").time.tolist() == time[:2_000].tolist()
    monitor = watching(kept)
    assert push(monitor, "pump", time, x, [1_000]) == SubmissionCounts(1_000, 2_000, 0)
    kept.close()
    (tmp_path / "bad.db").write_bytes(copy.read_bytes()[:20_000])
    with pytest.raises(StoreError):
        backup.restore_backup(tmp_path / "bad.db", path)
    assert SqliteStore(path, write=False).points("pump").time.size == 3_000


class Rows:
    def __init__(self, incidents, watches):
        self.incidents, self.watches, self.dropped = incidents, watches, ()


def test_incidents_stand_in_the_transaction_of_their_batches(kept):
    monitor, fail = watching(kept), [True]

    def write(save):
        save(
            Rows(
                [{"id": "i1", "stream": "pump", "state": "open", "start": START, "peak": 1.5}],
                [{"stream": "pump", "step": 3}],
            )
        )
        if fail:
            raise RuntimeError(fail.pop())

    commit = kept.commit
    kept.commit = lambda batches, fleets: commit(batches, write, fleets=fleets)
    owed = monitor.submit("pump", *numbers(10))
    monitor.process_pushed()
    assert kept.incidents() == ([], []) and kept.points("pump") is None and not owed.done()
    rounds(monitor, 12)
    assert kept.incidents() == (
        [{"id": "i1", "stream": "pump", "state": "open", "start": START, "peak": 1.5}],
        [{"stream": "pump", "step": 3}],
    )
    assert (
        owed.done()
        and kept.points("pump").time.size == 10
        and [each[:3] for each in kept.pushed_streams()] == [("pump", ("value",), ("",))]
    )


def test_labels_and_the_audit_log_are_kept(kept):
    kept.put_label("pump", (START, START + 5), "expected", {"id": 7, "who": "ann"})
    kept.put_label("pipe", (START, START), "missed one")
    assert [each["body"] for each in kept.labels("pump")] == [{"id": 7, "who": "ann"}]
    kept.delete_label(7)
    kept.delete_label(7)
    assert not kept.labels("pump") and len(kept.labels()) == 1
    for turn in range(5):
        kept.record("ann", "apply", "pump", {"turn": turn})
    log = kept.audit(limit=2)
    assert [each["detail"]["turn"] for each in log + kept.audit(limit=9, before=log[-1]["id"])] == [
        4,
        3,
        2,
        1,
        0,
    ]


def count_rows(path, table):
    with closing(sqlite3.connect(path)) as c:
        return c.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def incident(number, state, start=START):
    return {"id": f"i{number:03}", "stream": f"s{number}", "state": state, "start": start}


@pytest.fixture
def recorded(path, monkeypatch):
    """Return a store with more records than it keeps, some of a source that was removed."""
    monkeypatch.setattr(record_retention, "RECORDS_AT_ONCE", 4)
    kept = SqliteStore(path, Retention(record_days=365.0, record_rows=20))
    monitor = watching(kept)
    for name in ("pump", "pipe"):
        push(monitor, name, *numbers(100), [50])
    for threshold in range(30):
        monitor.apply("pump", Settings(threshold=2.0 + threshold / 10))
        monitor.process_pushed()
    with kept.writing() as c:
        line = {"at": time.time(), "stream": "gone", "settings": "{}"}
        c.execute(schema.applied_table.insert(), [line] * 3)
    states = [*["resolved"] * 30, *["open", "acknowledged", "snoozed"] * 2]
    rows = [incident(number, state) for number, state in enumerate(states)]
    watches = [{"stream": name} for name in ("pump", "gone", "s30", *"abcdefgh")]
    kept.save_incidents(Rows(rows, watches))
    for name in ("pump", "gone"):
        kept.save_label({"id": len(name), "stream": name, "start": 0, "end": 0, "kind": "missed"})
        kept.dismiss(name, [1])
    kept.dismiss("never", [1])
    for number in range(30):
        kept.record("ann", "apply", "pump", {"number": number})
    yield kept
    kept.close()


def sweep_all(kept, now):
    kept.sweeper.sweep(now)
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(now)


def test_records_that_are_too_many_go_and_what_is_in_force_stays(recorded):
    sweep_all(recorded, time.time())
    numbers = [line["detail"]["number"] for line in recorded.audit(limit=99)]
    assert numbers == list(range(29, 9, -1))
    applied = recorded.history(limit=99)
    assert len(applied) == 21 and applied[-1]["stream"] == "pipe", "its only ones are in force"
    found, left = recorded.incidents()
    assert sum(each["state"] == "resolved" for each in found) == 20 and len(found) == 26
    assert {watch["stream"] for watch in left} == {"pump", "s30"}
    assert len(recorded.labels()) == 2 and set(recorded.dismissed()) == {"pump", "gone"}


def test_records_that_are_too_old_go_and_what_is_in_force_stays(recorded):
    sweep_all(recorded, time.time() + 366 * 86_400)
    assert recorded.audit() == []
    assert {line["stream"] for line in recorded.history(limit=99)} == {"pump", "pipe"}
    found = sorted(each["id"] for each in recorded.incidents()[0])
    assert found == [f"i{number:03}" for number in range(30, 36)], "those that are not resolved"
    assert [label["stream"] for label in recorded.labels()] == ["pump"]
    assert set(recorded.dismissed()) == {"pump"}


def test_records_go_in_small_transactions_and_their_pass_goes_on(path, monkeypatch):
    monkeypatch.setattr(record_retention, "RECORDS_AT_ONCE", 10)
    kept = SqliteStore(path, Retention(record_rows=5))
    for number in range(25):
        kept.record("ann", "apply", None, {"number": number})
    left = [25]
    while not left[1:] or kept.sweeper.unfinished:
        kept.sweeper.sweep(time.time())
        left.append(count_rows(path, "audit"))
    assert left == [25, 15, 5, 5]
    kept.close()


def test_what_gone_streams_left_is_looked_for_once_an_hour(path):
    kept = SqliteStore(path)
    now = time.time()
    counts = []
    for moment in (now, now + 60, now + 3_601, now - 86_400):
        kept.save_incidents(Rows([], [{"stream": "gone"}]))
        kept.sweeper.sweep(moment)
        counts.append(count_rows(path, "watches"))
    assert counts == [0, 1, 0, 0], "the last after the clock was set back"
    kept.close()


def test_a_file_without_the_index_of_the_records_gets_it(path):
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as c:
        c.execute("DROP INDEX incidents_changed")
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as c:
        indexes = {row[1] for row in c.execute("PRAGMA index_list(incidents)")}
    assert "incidents_changed" in indexes


@pytest.mark.parametrize("name", list(DETECTORS))
def test_the_state_of_every_detector_comes_back(kept, name, monkeypatch):
    monkeypatch.setattr(
        "redline.engine.monitor.BUFFER_STEPS", 400
    )  # steps: so a restart begins at a state, not at the first step
    monitor, (time, x) = watching(kept), numbers(2_700, features=2)
    whole = watching(None)
    for each in (monitor, whole):
        receipt = each.submit("pump", time[:1], x[:1])
        each.process_pushed()
        each.apply("pump", Settings(name, 30))
        push(each, "pump", time[1:2_600], x[1:2_600], [650])
    assert receipt.done()
    state = monitor.feeds["pump"].applied_track.copy_state()
    back = encoding.unpack_state(encoding.pack_state(state))
    assert set(back) == set(state) and all(
        np.array_equal(back[key], state[key], equal_nan=back[key].dtype.kind == "f")
        for key in state
    )
    again = watching(kept)
    for each in (again, whole):
        push(each, "pump", time[2_600:], x[2_600:], [7])
    ends = [each.feeds["pump"].applied_track.read("score", 2_600, 2_700) for each in (again, whole)]
    assert kept.load_stream("pump").first > 2_000
    assert np.array_equal(*ends, equal_nan=True)


def test_after_a_state_of_another_version_a_stream_learns_anew_and_loses_nothing(
    path, monkeypatch, caplog
):
    monkeypatch.setattr(
        "redline.engine.monitor.BUFFER_STEPS", 400
    )  # steps: so a restart begins at a state, not at the first step
    (time, x), counted, begun = numbers(2_900), [0], []
    for version, first, end in ((1, 0, 2_700), (2, 2_700, 2_800), (2, 2_800, 2_900)):
        monkeypatch.setattr("redline.engine.track.STATE_FORMAT", version)
        kept = SqliteStore(path)
        monitor = watching(kept)
        push(monitor, "pump", time[first:end], x[first:end], [50])
        feed = monitor.feeds["pump"]
        assert feed.failure is None and feed.points == end and feed.anomalies >= counted[-1]
        counted.append(feed.anomalies)
        begun.append(feed.applied_track.learned_since)
        kept.close()
    assert (
        begun[0] == 0 < 2_000 < begun[1] == begun[2]
        and caplog.text.count("learns anew from step") == 1
    )
    alone = track.Track(feed.applied, (0.0,), begun[1]).advance(x[begun[1] :])
    assert np.array_equal(
        feed.applied_track.read("score", 2_800, 2_900),
        alone["score"][2_800 - begun[1] :],
        equal_nan=True,
    )


def test_the_document_names_every_table_and_quotes_what_is_said():
    text = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    assert filled(text) == text, "docs/store.md is stale: run `make docs`"
    assert all(what in text for _, what, _ in errors.ERROR_CAUSES)
    assert (
        f"{Retention().rows:,}" in text
        and f"({Retention().days:g})" in text
        and f"{outbox.MAX_WAITING_BATCHES:,} batches" in text
        and f"{outbox.FAILING_PATIENCE:g} seconds" in text
    )


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_the_files_of_the_store_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "redline.db"
    before = os.umask(0o022)
    try:
        store = SqliteStore(path)
        store.record("me", "was here")
        store.backup(tmp_path / "copy.db")
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        store.close()
        backup.restore_backup(tmp_path / "copy.db", path)
    finally:
        os.umask(before)
    names = {"redline.db", "redline.db-wal", "redline.db-shm", "redline.db-owner", "copy.db"}
    assert names <= set(files) and set(files.values()) == {0o600}, files
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)  # as an operator may want it
    SqliteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# --- names that the page uses itself


@pytest.mark.parametrize("name", ["overview", "your-data", "this-machine", "wave", "Wave", " iot "])
def test_a_source_cannot_have_a_name_that_the_page_uses(kept, name):
    monitor = watching(kept)
    with pytest.raises(SubmissionRefused, match=r"does not use itself.*choose another"):
        monitor.submit(name, *numbers(3))
    assert not monitor.feeds


@pytest.fixture
def colliding(path, monkeypatch):
    """A store of before names were reserved: its points, and the texts of its incidents."""
    with monkeypatch.context() as patch, closing(SqliteStore(path)) as older:
        patch.setattr(pushed, "RESERVED_NAMES", frozenset())
        service = assemble_service(lambda ledger: watching(ledger), older)
        time, x = numbers(400)
        x[350] += 40.0
        for name in ("your-data", "your-data (pushed)"):
            receipt = service.monitor.submit(name, time, x)
            service.monitor.beat()
            assert receipt.result(1).accepted == 400
        service.monitor.apply("your-data", Settings(window=80))
        service.labels.add(Label("your-data", START, START + 5, "expected", "ann", 0.0), 1)
        service.labels.dismiss("your-data")
        service.monitor.beat()
        found = [incident.text for incident in service.incidents.find(LIST_ALL).incidents]
        assert found and older.history("your-data")
        return older.points("your-data", None, None, 1_000), found


def test_a_stored_source_with_a_name_of_the_page_goes_on_under_another(path, colliding, caplog):
    points, texts = colliding
    renamed = "your-data (pushed 2)"
    with closing(SqliteStore(path)) as store:
        service = assemble_service(lambda ledger: watching(ledger), store)
        feeds = service.monitor.feeds
        assert set(feeds) == {renamed, "your-data (pushed)"}
        after = store.points(renamed, None, None, 1_000)
        assert np.array_equal(points.time, after.time) and np.array_equal(points.x, after.x)
        assert np.array_equal(points.score, after.score, equal_nan=True)
        assert store.anomalies(AnomalyQuery((renamed,))) and store.history(renamed)
        assert [each.stream for each in service.labels.of_stream(renamed)] == [renamed]
        assert set(store.dismissed()) == {renamed}
        found = service.incidents.find(LIST_ALL).incidents
        assert [incident.text for incident in found] == texts
        assert {incident.stream for incident in found} == set(feeds)
        assert {watch["stream"] for watch in store.incidents()[1]} <= set(feeds)
        assert store.audit(1)[0]["detail"] == {"from": "your-data"}
        receipt = service.monitor.submit(renamed, points.time + 400, points.x)
        service.monitor.beat()
        assert receipt.result(1).accepted == 400 and feeds[renamed].applied.window == 80
        with pytest.raises(SubmissionRefused, match="your-data"):
            service.monitor.submit("your-data", points.time, points.x)
    assert f"{renamed!r}; push to that name" in caplog.text
    with closing(SqliteStore(path)) as store:
        assert [name for name, *_ in store.pushed_streams()].count(renamed) == 1, "renamed once"
