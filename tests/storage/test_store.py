"""What a store promises, on either database: bit-equal restarts, queries, retention, migrations."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from store_rig import (
    LIST_ALL,
    START,
    Failing,
    Rows,
    Ticking,
    columns,
    incident,
    numbers,
    push,
    rounds,
    simulated,
    sweep_all,
    watching,
)

from redline.api.server import build_server
from redline.api.service import assemble_service
from redline.engine import monitor as loop
from redline.engine import outbox, tape, track
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.settings import Settings
from redline.sources import pushed
from redline.sources.pushed import SubmissionCounts, SubmissionRefused
from redline.storage import (
    checksums,
    reading,
    record_retention,
    retention,
    schema,
)
from redline.storage.errors import StoreError
from redline.storage.opening import open_database
from redline.storage.reading import AnomalyQuery
from redline.storage.retention import Retention
from streams import Chunk, Stream

# of long tests that ask little of a database
SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


@pytest.fixture
def kept(db):
    opened = open_database(db)
    yield opened
    opened.close()


def test_a_restart_at_any_point_goes_on_to_the_same_bits(db):
    time, x = numbers(14_000, features=2)
    x[-3:] += 60.0  # ends in the middle of a run of anomalies
    whole = watching(None)
    push(whole, "pump", time, x, [5_000], ("flow", "heat"))
    draw, at = np.random.default_rng(3), 0
    while at < len(time):
        kept = open_database(db)
        monitor = watching(kept)
        end = min(len(time), at + int(draw.integers(1, 2_500)))
        push(monitor, "pump", time[at:end], x[at:end], [1, 700, 33], ("flow", "heat"))
        kept.close()  # nothing of the monitor is told that it ends
        at = end
    kept = open_database(db)
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


@SQLITE
def test_a_simulated_stream_goes_on_where_it_was_and_finds_nothing_twice(db):
    whole = watching(None, simulated())
    rounds(whole, 100)
    whole.inject("cpu", "point", 20.0)
    rounds(whole, 3_400)
    kept = open_database(db)
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
        kept = open_database(db)
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


def test_another_seed_is_another_world_and_takes_the_place_of_the_first(db):
    kept = open_database(db)
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
    db, monkeypatch
):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 4_000)
    time, x = numbers(9_000)
    kept, whole = open_database(db), watching(None)
    monitor = watching(kept)
    for each in (monitor, whole):
        push(each, "pump", time[:6_000], x[:6_000], [500])
        each.apply("pump", Settings("EWMA", 40, 4.5))
        each.process_pushed()
    kept.close()
    kept = open_database(db)
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


def test_a_repeat_is_ignored_and_a_late_one_kept_unscored_also_after_a_restart(db):
    time, x = numbers(300)
    gap = np.arange(300) != 100
    kept = open_database(db)
    monitor = watching(kept)
    assert push(monitor, "pump", time[gap], x[gap], [7]) == SubmissionCounts(299, 0, 0)
    assert push(
        monitor, "pump", time[[90, 100, 100, 120]], x[[90, 100, 100, 120]], [4]
    ) == SubmissionCounts(0, 3, 1)
    kept.close()
    kept = open_database(db)
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


@pytest.mark.parametrize(
    ("limit", "value"), [("MATCHED_CHUNKS", 4), ("MATCHED_BYTES", 3 * 500 * 4 * 8 + 1)]
)
def test_late_points_of_many_chunks_are_sorted_in_turns(
    kept, chunks_read, monkeypatch, limit, value
):
    """Of chunks of 500 steps, of four numbers each; either limit alone allows four of them."""
    monkeypatch.setattr(reading, limit, value)
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
    db, monkeypatch
):
    monkeypatch.setattr(outbox, "MAX_WAITING_BATCHES", 40)
    kept = open_database(db)
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
    kept = open_database(db)
    feed, other = watching(kept, simulated()).feeds["cpu"], whole.feeds["cpu"]
    assert feed.end == other.end
    assert np.array_equal(
        feed.applied_track.read("score", feed.end - 20, feed.end),
        other.applied_track.read("score", feed.end - 20, feed.end),
    )
    kept.close()


def test_a_hole_in_what_is_kept_of_a_live_stream_takes_a_new_snapshot(db, monkeypatch):
    monkeypatch.setattr(outbox, "MAX_WAITING_BATCHES", 20)
    kept = open_database(db)
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
    kept = open_database(db)
    feed = watching(kept, {"tick": MonitoredStream(Ticking(), own_clock=True)}).feeds["tick"]
    assert feed.end == before.end and feed.failure is None
    first = feed.tape.first
    assert np.array_equal(
        feed.applied_track.read("score", first, feed.end),
        before.applied_track.read("score", first, feed.end),
        equal_nan=True,
    )
    kept.close()


def test_one_store_has_one_redline(kept, db):
    with pytest.raises(
        StoreError,
        match="is in use by another Redline; stop that one, or choose another",
    ):
        open_database(db)
    looked = open_database(db, write=False)  # who only reads may
    assert looked.last_anomaly_id() == 0
    looked.close()


def test_the_id_of_a_removed_anomaly_is_not_given_again(db):
    store = open_database(db)
    monitor = watching(store)
    push(monitor, "pump", *numbers(2_000), [2_000])
    last = store.last_anomaly_id()
    monitor.remove_source("pump")
    monitor.beat()
    store.close()
    store = open_database(db)
    monitor = watching(store)
    assert last > 0 and not store.anomalies() and store.last_anomaly_id() == last
    push(monitor, "pipe", *numbers(2_000), [2_000])
    assert min(row["id"] for row in store.anomalies()) == last + 1
    store.close()


def test_an_older_store_is_brought_up_to_date_in_one_transaction(db, monkeypatch):
    open_database(db).close()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 7)
    create, alter = (
        [sa.text("CREATE TABLE new (a INTEGER)")],
        [sa.text("ALTER TABLE new ADD b INTEGER")],
    )
    broken = [*alter, sa.text("ALTER TABLE nowhere ADD c INTEGER")]
    monkeypatch.setattr(schema, "MIGRATIONS", ([], [], [], [], create, broken))
    with pytest.raises(StoreError, match="nowhere"):
        open_database(db)
    monkeypatch.setattr(schema, "MIGRATIONS", ([], [], [], [], create, alter))
    migrated = open_database(db)
    with migrated.reading() as c:
        assert c.exec_driver_sql("SELECT a, b FROM new").all() == []
        version = "SELECT value FROM meta WHERE name = 'version'"
        assert c.exec_driver_sql(version).scalar() == "7"
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


def test_anomalies_are_found_by_every_field_and_page_by_page(db):
    kept = open_database(db)
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


def test_retention_leaves_what_a_restart_needs(db):
    time, x = numbers(40_000)
    kept = open_database(db, Retention(rows=15_000))
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


def stored(kept):
    """Points in the store."""
    with kept.reading() as c:
        return c.exec_driver_sql("SELECT coalesce(sum(n), 0) FROM points").scalar()


@pytest.mark.slow
@SQLITE
def test_retention_keeps_up_with_many_times_a_transaction_a_pass(db, monkeypatch):
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
    kept = open_database(db, Retention(rows=limit))
    monitor = Monitor({}, store=kept)
    monitor.start()
    counts, at, began = [], 0, time.monotonic()
    while time.monotonic() - began < 4.0:
        moments = START + np.arange(at, at + size, dtype=float)
        receipts = [monitor.submit(name, moments, np.zeros((size, 1))) for name in names]
        for receipt in receipts:
            receipt.result(timeout=10.0)
        at += size
        counts.append((time.monotonic() - began, stored(kept)))
    monitor.stop()
    kept.close()
    late = [count for when, count in counts if when > 2.0]
    assert at * len(names) > 4 * limit
    assert min(late) <= limit + 2 * size * len(
        names
    )  # a pass gets there, however much came meanwhile
    again = open_database(db)
    monitor = watching(again)
    for name in names:
        monitor.restore_feed(monitor.feeds[name])
        assert monitor.feeds[name].end == at and monitor.feeds[name].tape.kept == 100
    again.close()


def test_a_pass_of_the_retention_goes_on_in_short_turns(db, monkeypatch):
    time, x = numbers(40_000)
    kept = open_database(db, Retention(rows=15_000))
    push(watching(kept), "pump", time, x, [250])
    now = {"tick": 100.0, "wall": 1e9}

    def ticking():  # each look at the clock takes a hundredth of a second
        now["tick"] += 0.01
        now["wall"] += 0.01
        return now["tick"]

    monkeypatch.setattr(retention.time, "monotonic", ticking)
    monkeypatch.setattr(retention.time, "time", lambda: now["wall"])
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept.sweeper.last_turn, left = (0.0, 1e9 - 100.0), [stored(kept)]
    while not left[1:] or kept.sweeper.unfinished:
        kept.sweeper.run_if_due()
        left.append(stored(kept))
        assert len(left) < 1_000
    assert 15_000 - 250 <= left[-1] <= 15_000
    turns = np.flatnonzero(np.diff(left))
    assert len(turns) > 1 and np.diff(turns).min() > 1  # between two turns it rests
    assert np.abs(np.diff(left)).max() <= 6 * 10 * 250  # and each is short
    kept.sweeper.run_if_due()
    assert stored(kept) == left[-1]
    kept.close()


def test_chunks_that_a_restart_needs_hold_up_no_others(db, monkeypatch):
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept = open_database(db, Retention(rows=25_000))
    monitor = watching(kept)
    push(monitor, "still", *numbers(10_000), [250])  # 40 chunks, all of them needed
    push(monitor, "pump", *numbers(40_000), [250])
    kept.sweeper.sweep(0.0)
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(0.0)
    assert stored(kept) <= 25_000 and len(kept.points("still", limit=50_000).time) == 10_000
    kept.close()


def test_anomalies_and_late_points_too_old_go_in_small_transactions(db, monkeypatch):
    monkeypatch.setattr(retention, "SWEEP_CHUNKS", 10)
    kept = open_database(db, Retention(days=1.0))
    monitor, (time, x) = watching(kept), numbers(3_000)
    push(monitor, "pump", time[1::2], x[1::2], [250])
    push(monitor, "pump", time[:100:2], x[:100:2], [25])  # late
    found = len(kept.anomalies(AnomalyQuery(limit=1_000)))
    assert found > 15
    kept.sweeper.sweep(5e9)
    assert len(kept.anomalies(AnomalyQuery(limit=1_000))) == found - 9
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(5e9)
    assert count_rows(kept, "late") == 0
    assert len(kept.anomalies()) == 1
    kept.close()


@SQLITE
def test_small_chunks_are_joined_though_the_retention_took_the_first(db, monkeypatch):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monkeypatch.setattr(loop, "MANY_SOURCES", 0)  # buffers of 100 steps
    kept = open_database(db, Retention(rows=100))
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


def test_a_closed_store_refuses_instead_of_opening_the_database_again(db):
    kept = open_database(db)
    push(watching(kept), "pump", *numbers(100), [50])
    kept.close()
    other = open_database(db)
    asked = (
        lambda: kept.record("ann", "apply"),
        lambda: kept.commit([]),
        lambda: kept.points("pump"),
    )
    for ask in asked:
        with pytest.raises(StoreError, match="is closed, because Redline ends; start it again"):
            ask()
    assert other.audit() == []
    other.close()
    kept.close()


def test_a_loop_that_outlives_the_service_writes_and_acknowledges_nothing(db, monkeypatch, caplog):
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
    kept = open_database(db)
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
    other = open_database(db)  # the file is free
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


def count_rows(kept, table):
    with kept.reading() as c:
        return c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()


@pytest.fixture
def recorded(db, monkeypatch):
    """Return a store with more records than it keeps, some of a source that was removed."""
    monkeypatch.setattr(record_retention, "RECORDS_AT_ONCE", 4)
    kept = open_database(db, Retention(record_days=365.0, record_rows=20))
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


def test_records_go_in_small_transactions_and_their_pass_goes_on(db, monkeypatch):
    monkeypatch.setattr(record_retention, "RECORDS_AT_ONCE", 10)
    kept = open_database(db, Retention(record_rows=5))
    for number in range(25):
        kept.record("ann", "apply", None, {"number": number})
    left = [25]
    while not left[1:] or kept.sweeper.unfinished:
        kept.sweeper.sweep(time.time())
        left.append(count_rows(kept, "audit"))
    assert left == [25, 15, 5, 5]
    kept.close()


def test_what_gone_streams_left_is_looked_for_once_an_hour(db):
    kept = open_database(db)
    now = time.time()
    counts = []
    for moment in (now, now + 60, now + 3_601, now - 86_400):
        kept.save_incidents(Rows([], [{"stream": "gone"}]))
        kept.sweeper.sweep(moment)
        counts.append(count_rows(kept, "watches"))
    assert counts == [0, 1, 0, 0], "the last after the clock was set back"
    kept.close()


def test_a_store_without_the_index_of_the_records_gets_it(db):
    with closing(open_database(db)) as store, store.writing() as c:
        c.exec_driver_sql("DROP INDEX incidents_changed")
    with closing(open_database(db)) as store, store.reading() as c:
        indexes = {index["name"] for index in sa.inspect(c).get_indexes("incidents")}
    assert "incidents_changed" in indexes


def test_after_a_state_of_another_version_a_stream_learns_anew_and_loses_nothing(
    db, monkeypatch, caplog
):
    monkeypatch.setattr(
        "redline.engine.monitor.BUFFER_STEPS", 400
    )  # steps: so a restart begins at a state, not at the first step
    (time, x), counted, begun = numbers(2_900), [0], []
    for version, first, end in ((1, 0, 2_700), (2, 2_700, 2_800), (2, 2_800, 2_900)):
        monkeypatch.setattr("redline.engine.track.STATE_FORMAT", version)
        kept = open_database(db)
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


@pytest.fixture
def colliding(db, monkeypatch):
    """A store of before names were reserved: its points, and the texts of its incidents."""
    with monkeypatch.context() as patch, closing(open_database(db)) as older:
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


def test_a_stored_source_with_a_name_of_the_page_goes_on_under_another(db, colliding, caplog):
    points, texts = colliding
    renamed = "your-data (pushed 2)"
    with closing(open_database(db)) as store:
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
    with closing(open_database(db)) as store:
        assert [name for name, *_ in store.pushed_streams()].count(renamed) == 1, "renamed once"
