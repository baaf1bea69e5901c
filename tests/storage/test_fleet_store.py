"""What the store keeps of fleets: commits, reads, merging, crashes, damage, removal, migration."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from store_rig import Rows

from redline.engine.fleet.stored import (
    ALARM_FLAG,
    ANOMALY_FLAG,
    LATE_STEP,
    ColumnStates,
    FleetCommit,
    SeriesRecord,
    SeriesSteps,
)
from redline.engine.monitor import Monitor
from redline.settings import Settings
from redline.storage import series_merging, series_segments, series_writing
from redline.storage.backup import restore_backup
from redline.storage.errors import StoreDamaged, StoreError
from redline.storage.inspection import inspect_store
from redline.storage.opening import open_database
from redline.storage.retention import Retention
from redline.storage.schema import FLEET_TABLES, groups_table, rules_table
from redline.storage.series_codec import score_codes, scores_from_codes
from redline.storage.sql_store import SqlStore
from redline.storage.sqlite import SqliteStore

START = 1_700_000_000.0  # seconds since the epoch
SERIES = 30
LATE_SHARE = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "redline.db"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts of few points, so that few points take all ways."""
    monkeypatch.setattr(series_writing, "PLAIN_PART", 64)
    monkeypatch.setattr(series_merging, "PACKED_PART", 50)
    monkeypatch.setattr(series_merging, "WRITTEN_PARTS", 3)
    monkeypatch.setattr(series_merging, "DELETED_PARTS", 5)


def open_store(db: Path | str) -> SqlStore:
    """Return the store; a test merges itself, with `merge_all` or turn by turn."""
    return open_database(db, merge=False)


def records(count: int = SERIES) -> list[SeriesRecord]:
    return [
        SeriesRecord(number, f"up{{host={number}}}", Settings(window=10 + number), "me", START)
        for number in range(1, count + 1)
    ]


def commits(count: int, seed: int = 7) -> list[SeriesSteps]:
    """Return steps in any order of series, some of them twice in a commit, some late."""
    draw = np.random.default_rng(seed)
    ends = np.zeros(SERIES + 1, np.int64)
    made = []
    for at in range(count):
        numbers = draw.permutation(np.repeat(np.arange(1, SERIES + 1), 2))[: draw.integers(1, 50)]
        late = draw.random(len(numbers)) < LATE_SHARE
        step = np.full(len(numbers), LATE_STEP)
        for place in np.flatnonzero(~late):
            step[place] = ends[numbers[place]]
            ends[numbers[place]] += 1
        time = START + 10.0 * at + np.arange(len(numbers)) / 100
        time[late] -= 5.0 + np.round(draw.random(int(late.sum())) * 10 * at, 3)
        value = np.round(draw.normal(size=len(numbers)), 2)
        value[draw.random(len(numbers)) < 0.1] = np.nan
        flags = draw.choice(
            np.array([0, ANOMALY_FLAG, ALARM_FLAG + ANOMALY_FLAG], np.uint8), len(value)
        )
        score = np.where(late, np.nan, np.abs(draw.normal(size=len(value))))
        made.append(SeriesSteps(numbers, step, time, value, score, flags))
    return made


def fill(store: SqlStore, steps: Sequence[SeriesSteps]) -> None:
    store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), records())])
    for each in steps:
        store.commit([], fleets=[FleetCommit(each)])


def merge_all(store: SqlStore) -> int:
    """Merge until nothing is left to do; return the number of transactions."""
    turns = 0
    while store.merger.run_turn():
        turns += 1
        assert turns < 10_000, "it merges the same over and over"
    return turns


def of_series(steps: Sequence[SeriesSteps], number: int) -> SeriesSteps:
    """Return what a store should answer of one series: by time, scores rounded."""
    own = SeriesSteps.join([each.pick(each.series == number) for each in steps])
    own = own.pick(np.argsort(own.time, kind="stable"))
    return own._replace(score=scores_from_codes(score_codes(own.score)))


def assert_same(found: SeriesSteps, wanted: SeriesSteps) -> None:
    for name, column in zip(found._fields, found):
        assert column.tobytes() == getattr(wanted, name).tobytes(), name


def assert_holds(store: SqlStore, steps: Sequence[SeriesSteps]) -> None:
    """Assert that each series is read back as it was committed, and all of it after commit 0."""
    for number in range(1, SERIES + 1):
        found = store.read_series(number, None, None, 10**6)
        assert_same(found, of_series(steps, number))
    pieces = list(store.steps_after(0))
    assert sum(len(piece.series) for piece in pieces) == sum(len(each.series) for each in steps)
    whole = SeriesSteps.join(pieces)
    for number in range(1, SERIES + 1):
        step = whole.step[whole.series == number]
        assert (np.diff(step[step != LATE_STEP]) == 1).all(), "the steps come in their order"


def segments(store: SqlStore) -> list[series_segments.Segment]:
    with store.reading() as c:
        return series_segments.load_segments(c)


def test_series_and_states_come_back(db: Path | str) -> None:
    arrays = {"ring": np.arange(6.0).reshape(2, 3), "count": np.array([4, 5, 6])}
    old = ColumnStates("a", Settings(), np.array([1, 2, 3]), arrays)
    new = old._replace(series=np.array([3, 1]), settings=Settings(window=99))
    steps = commits(3)
    with closing(open_store(db)) as store:
        fill(store, steps[:1])
        store.commit([], fleets=[FleetCommit(steps[1], states=[old, old._replace(key="b")])])
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), states=[new])])
        changed = records()[4]._replace(settings=Settings(threshold=9.0), name="other")
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), [changed])])
    with closing(open_store(db)) as store:
        wanted = records()
        wanted[4] = changed
        assert list(store.load_records()) == wanted
        found = list(store.load_states())
        assert [(each.commit, each.states.key) for each in found] == [(2, "a"), (2, "b")]
        assert found[0].states.settings == Settings(window=99)
        assert found[0].states.series.tolist() == [3, 1]
        assert found[1].states.series.tolist() == [1, 2, 3]
        for name, array in arrays.items():
            assert found[1].states.arrays[name].tobytes() == array.tobytes()
        store.commit([], fleets=[FleetCommit(steps[2], obsolete=["a", "none"])])
        assert [each.states.key for each in store.load_states()] == ["b"]
        after = SeriesSteps.join(list(store.steps_after(2)))
        assert len(after.series) == len(steps[2].series), "the number of a commit only grows"


def test_names_may_be_longer_than_an_index_of_the_database_holds(db: Path | str) -> None:
    draw = np.random.default_rng(4)
    name = "".join(map(chr, draw.integers(0x4E00, 0x9FFF, 2_000)))  # 6,000 bytes, no two alike
    line = {"id": 1, "stream": name, "start": START, "end": START, "at": START, "kind": "missed"}
    incident = {"id": "i1", "stream": name, "state": "open", "start": START}
    with closing(open_store(db)) as store:
        record = SeriesRecord(1, name, Settings(), "me", START)
        for creator in ("me", "you"):
            record = record._replace(creator=creator)
            store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), [record])])
        assert store.load_records() == [record]
        with pytest.raises(StoreError):
            twin = record._replace(number=2)
            store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), [twin])])
        for _ in range(2):
            store.save_label(line)
            store.save_window(line)
            store.dismiss(name, [1])
            store.save_incidents(Rows([incident], [{"stream": name, "step": 3}]))
        assert len(store.labels(name)) == 1 and store.dismissed() == {name: [1]}
        assert store.incidents() == ([incident], [{"stream": name, "step": 3}])


def test_states_hold_the_steps_before_them_and_none_after(db: Path | str) -> None:
    steps = commits(4)
    states = ColumnStates("a", Settings(), np.array([1]), {})
    with closing(open_store(db)) as store:
        fill(store, [])
        fleets = [
            FleetCommit(steps[0]),
            FleetCommit(steps[1], states=[states]),
            FleetCommit(steps[2]),
            FleetCommit(steps[3]),
        ]
        store.commit([], fleets=fleets)
        (found,) = store.load_states()
        after = SeriesSteps.join(list(store.steps_after(found.commit)))
        assert len(after.series) == len(steps[2].series) + len(steps[3].series)
        assert_holds(store, steps)


def test_a_commit_that_fails_adds_nothing_and_takes_no_number(db: Path | str) -> None:
    steps = commits(2)
    same_name = SeriesRecord(99, records()[0].name, Settings())
    with closing(open_store(db)) as store:
        fill(store, steps[:1])
        before = store.series_writer.commit
        with pytest.raises(StoreError):
            store.commit([], fleets=[FleetCommit(steps[1]), FleetCommit(steps[1], [same_name])])

        def fail(save: object) -> None:
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            store.commit([], fail, fleets=[FleetCommit(steps[1])])
        assert store.series_writer.commit == before
        assert_holds(store, steps[:1])


@pytest.mark.parametrize(
    ("db", "merged"),
    [("sqlite", False), ("sqlite", True), ("postgresql", True)],
    indirect=["db"],
)
def test_a_series_is_read_by_time(db: Path | str, small_parts: None, merged: bool) -> None:
    steps = commits(100)
    with closing(open_store(db)) as store:
        fill(store, steps)
        if merged:
            merge_all(store)
        draw = np.random.default_rng(1)
        for _ in range(60):
            number = int(draw.integers(1, SERIES + 1))
            whole = of_series(steps, number)
            since, until = np.sort(draw.choice(whole.time, 2))
            limit = int(draw.integers(1, 60))
            for start, end in ((since, until), (None, until), (since, None), (None, None)):
                own = whole.pick(
                    (whole.time >= (-np.inf if start is None else start))
                    & (whole.time <= (np.inf if end is None else end))
                )
                cut = slice(-limit, None) if start is None else slice(limit)
                assert_same(store.read_series(number, start, end, limit), own.pick(cut))
        assert len(store.read_series(1, None, None, 0).time) == 0
        assert len(store.read_series(1, START + 1e9, None, 5).time) == 0
        assert len(store.read_series(999, None, None, 5).time) == 0


@pytest.mark.parametrize("merged", [False, True])
def test_times_are_found_that_are_there(db: Path | str, small_parts: None, merged: bool) -> None:
    steps = commits(60)
    with closing(open_store(db)) as store:
        fill(store, steps)
        if merged:
            merge_all(store)
        whole = SeriesSteps.join(steps)
        draw = np.random.default_rng(2)
        rows = draw.permutation(len(whole.series))[:200]
        numbers = np.append(whole.series[rows], [1, 999, 2])
        times = np.append(whole.time[rows], [START - 1e9, whole.time[0], START + 0.123456])
        found = store.match_series(numbers, times)
        assert found[:200].all() and not found[200:].any()
        other = np.where(whole.series[rows] == 1, 2, 1)
        pairs = set(zip(whole.series.tolist(), whole.time.tolist()))
        wanted = [pair in pairs for pair in zip(other.tolist(), whole.time[rows].tolist())]
        assert store.match_series(other, whole.time[rows]).tolist() == wanted
        assert store.match_series(numbers[:0], times[:0]).tolist() == []


def test_merging_loses_nothing_and_leaves_few_segments(db: Path | str, small_parts: None) -> None:
    steps = commits(150)
    with closing(open_store(db)) as store:
        fill(store, [])
        for each in steps:
            store.commit([], fleets=[FleetCommit(each)])
            merge_all(store)
        found = segments(store)
        assert all(segment.visible for segment in found)
        # 150 = 2 * 64 + 2 * 8 + 6
        assert [segment.level for segment in found] == [2, 2, 1, 1, *[0] * 6]
        assert [segment.commit for segment in found] == [64, 128, 136, 144, *range(145, 151)]
        assert_holds(store, steps)
        with store.reading() as c:
            query = "SELECT segment, first_series, last_series, n FROM parts ORDER BY id"
            rows = [row for row in c.exec_driver_sql(query) if row.segment == found[0].id]
        assert len(rows) > 10 and all(row.n <= 50 for row in rows)
        assert all(a.last_series <= b.first_series for a, b in pairwise(rows))


def test_many_segments_are_merged_at_once(path: Path) -> None:
    steps = commits(40)
    with closing(open_store(path)) as store:
        fill(store, steps)
        assert store.merger.run_turn() and store.merger.behind
        merge_all(store)
        assert [segment.level for segment in segments(store)] == [1, 1]
        assert_holds(store, steps)


def test_a_segment_stays_small_enough_for_the_retention(path: Path, small_parts: None) -> None:
    steps = commits(60)
    with closing(open_store(path)) as store:
        store.merger.limits = series_merging.SegmentLimits(150, 1e9)
        fill(store, steps)
        merge_all(store)
        found = segments(store)
        assert all(segment.n <= 150 for segment in found) and len(found) > 5
        assert_holds(store, steps)


def test_a_restart_reads_little_more_than_it_needs(
    db: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_merging, "MERGED_SEGMENTS", 2)
    steps = commits(40)
    states = ColumnStates("a", Settings(), np.array([1]), {})
    with closing(open_store(db)) as store:
        fill(store, [])
        for number, each in enumerate(steps, 1):
            store.commit([], fleets=[FleetCommit(each, states=[states] if number == 13 else ())])
            merge_all(store)
        (found,) = store.load_states()
        assert found.commit == 13
        read = sum(len(piece.series) for piece in store.steps_after(found.commit))
        needed = sum(len(each.series) for each in steps[13:])
        # of the earlier commits at most those in one segment of the levels that are free
        free = sum(len(each.series) for each in steps[12:13])
        assert needed <= read <= needed + free
        assert_holds(store, steps)
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), states=[states])])
        many = len(segments(store))
        merge_all(store)
        assert len(segments(store)) < many, "newer states set them free"
        assert_holds(store, steps)


@pytest.mark.parametrize("late", [False, True])
def test_a_kill_at_any_moment_of_a_merge(
    path: Path, tmp_path: Path, small_parts: None, late: bool
) -> None:
    """The file as it is after each transaction is what a killed process leaves."""
    steps = commits(24 if late else 8)
    with closing(open_store(path)) as store:
        fill(store, steps)
        turns = 0
        copies = []
        while True:
            copy = tmp_path / f"killed {turns}.db"
            store.backup(copy)
            copies.append(copy)
            turns += 1
            if not store.merger.run_turn():
                break
        assert_holds(store, steps)
    assert turns > 5
    for copy in copies:
        with closing(open_store(copy)) as again:
            again.verify(deep=True)
            assert_holds(again, steps)
            merge_all(again)
            assert_holds(again, steps)
            assert all(segment.visible for segment in segments(again))
            with again.reading() as c:
                orphans = (
                    "SELECT count(*) FROM parts WHERE segment NOT IN (SELECT id FROM segments)"
                )
                assert c.exec_driver_sql(orphans).scalar() == 0


def test_reads_are_whole_while_another_thread_merges(db: Path | str, small_parts: None) -> None:
    steps = commits(64)
    wanted = of_series(steps, 3)
    with closing(open_store(db)) as store:
        fill(store, steps)
        done = threading.Event()

        def merge() -> None:
            try:
                merge_all(store)
            finally:
                done.set()

        thread = threading.Thread(target=merge)
        thread.start()
        reads = 0
        while not done.is_set() or reads < 3:
            assert_same(store.read_series(3, None, None, 10**6), wanted)
            assert sum(len(piece.series) for piece in store.steps_after(0)) == sum(
                len(each.series) for each in steps
            )
            reads += 1
        thread.join()
        assert_holds(store, steps)


def test_the_store_merges_by_itself_and_ends(
    db: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_merging, "MERGE_REST", 0.0)
    steps = commits(8)
    merged = threading.Event()
    with closing(open_database(db)) as store:
        assert store.merger.thread is None, "without fleets there is no thread"
        run_turn = store.merger.run_turn

        def noted() -> bool:
            more = run_turn()
            if not more and any(segment.level for segment in segments(store)):
                merged.set()
            return more

        monkeypatch.setattr(store.merger, "run_turn", noted)
        fill(store, steps)
        assert merged.wait(20)
        assert_holds(store, steps)
        thread = store.merger.thread
        assert thread is not None
    assert not thread.is_alive()


def test_only_merging_does_not_wait_for_the_disk(path: Path) -> None:
    def durable(c: sa.Connection) -> int:
        return int(c.exec_driver_sql("PRAGMA synchronous").scalar_one())

    with closing(open_store(path)) as store:
        assert store.merger.writing == store.rewriting
        with pytest.raises(RuntimeError), store.rewriting() as c:
            assert durable(c) == 1, "NORMAL"
            c.exec_driver_sql("DELETE FROM meta")
            raise RuntimeError
        with store.writing() as c:
            assert durable(c) == 2, "FULL again"
            assert c.exec_driver_sql("SELECT count(*) FROM meta").scalar() == 1


def test_a_removed_series_is_not_read_and_goes_with_merging(
    db: Path | str, small_parts: None
) -> None:
    steps = commits(24)
    with closing(open_store(db)) as store:
        fill(store, steps)
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), removed=[5, SERIES, 999])])
        for merge in (False, True):
            if merge:
                merge_all(store)
            for number in (5, SERIES):
                assert len(store.read_series(number, None, None, 9).time) == 0
            whole = SeriesSteps.join(list(store.steps_after(0)))
            assert set(whole.series.tolist()) == set(range(1, SERIES)) - {5}
            own = of_series(steps, 5)
            assert not store.match_series(own.series, own.time).any()
        kept = sum(int((~np.isin(each.series, [5, SERIES])).sum()) for each in steps)
        assert sum(segment.n for segment in segments(store)) == kept
        assert len(store.load_records()) == SERIES - 2
    with closing(open_store(db)) as store:
        assert store.last_series() == SERIES, "its number is not given again"


def flip_bit(path: Path, table: str, column: str) -> None:
    """Change one bit of a value behind the store's back."""
    with closing(sqlite3.connect(path)) as other, other:
        key, data = other.execute(f"SELECT rowid, {column} FROM {table} LIMIT 1").fetchone()
        damaged = bytearray(data)
        damaged[len(damaged) // 2] ^= 4
        other.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes(damaged), key))


def answers_of_fleets(path: Path) -> str:
    """Return everything the store answers about fleets, as text."""
    with closing(open_store(path)) as store:
        found: list[object] = [store.load_records(), store.last_series()]
        for each in store.load_states():
            found += [each.commit, each.states.settings, each.states.series.tolist()]
            found += [(name, array.tolist()) for name, array in each.states.arrays.items()]
        for number in range(1, SERIES + 1):
            steps = store.read_series(number, None, None, 10**6)
            found += [column.tolist() for column in steps]
        found += [[column.tolist() for column in piece] for piece in store.steps_after(0)]
    return repr(found)


def test_a_flipped_bit_is_an_error_or_changes_nothing(path: Path, tmp_path: Path) -> None:
    states = ColumnStates("a", Settings(), np.array([1, 2]), {"x": np.sqrt(np.arange(4_000.0))})
    with closing(open_store(path)) as store:
        fill(store, commits(60))
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), states=[states])])
        merge_all(store)
        whole = store.backup(tmp_path / "whole.db").read_bytes()
    before = answers_of_fleets(path)
    draw = np.random.default_rng(12)
    found = 0
    for flip in range(30):
        damaged = bytearray(whole)
        place = int(draw.integers(len(whole)))
        damaged[place] ^= 1 << int(draw.integers(8))
        copy = tmp_path / f"{flip}.db"
        copy.write_bytes(damaged)
        try:
            assert answers_of_fleets(copy) == before, f"a bit of byte {place} changed an answer"
        except StoreError:
            found += 1
    assert found > 5, "the other bits are in bytes that hold nothing"


@pytest.mark.parametrize("merged", [False, True])
def test_a_damaged_part_is_an_error_for_every_reader(path: Path, merged: bool) -> None:
    steps = commits(8)
    with closing(open_store(path)) as store:
        fill(store, steps)
        if merged:
            merge_all(store)
        flip_bit(path, "parts", "rows")
        first = int(steps[0].series.min())
        for read in (
            lambda: store.read_series(first, None, None, 10**6),
            lambda: list(store.steps_after(0)),
            lambda: store.match_series(steps[0].series, steps[0].time),
            lambda: store.verify(deep=False),
        ):
            with pytest.raises(StoreDamaged, match="its table parts"):
                read()
        assert store.damage is not None
    report = inspect_store(path)
    assert report is not None and "its table parts" in report.faults[0]
    with pytest.raises(StoreDamaged):
        open_store(path)


def test_a_damaged_part_is_not_merged_and_not_deleted(path: Path) -> None:
    steps = commits(8)
    with closing(open_store(path)) as store:
        fill(store, steps)
        flip_bit(path, "parts", "rows")
        assert store.merger.run_turn()
        with pytest.raises(StoreDamaged):
            merge_all(store)
        assert sum(segment.visible for segment in segments(store)) == len(steps)


@pytest.mark.parametrize("table", ["segments", "parts"])
def test_a_part_that_is_missing_is_found(path: Path, table: str) -> None:
    steps = commits(8)
    with closing(open_store(path)) as store:
        fill(store, steps)
        merge_all(store)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(f"DELETE FROM {table} WHERE id = (SELECT max(id) FROM {table})")
        with pytest.raises(StoreDamaged, match="points of fleets are missing"):
            store.verify(deep=False)


def test_damaged_states_and_series_are_found(path: Path) -> None:
    states = ColumnStates("a", Settings(), np.array([1]), {"x": np.zeros(9)})
    with closing(open_store(path)) as store:
        fill(store, [])
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), states=[states])])
        flip_bit(path, "fleet_states", "arrays")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE series SET name = 'x' WHERE number = 3")
        with pytest.raises(StoreDamaged, match="fleet_states"):
            list(store.load_states())
        with pytest.raises(StoreDamaged, match="series"):
            store.load_records()


def points_left(store: SqlStore) -> int:
    return sum(len(piece.series) for piece in store.steps_after(0))


def test_the_oldest_segments_go_when_points_are_too_many(db: Path | str) -> None:
    steps = commits(40)
    counts = [len(each.series) for each in steps]
    with closing(open_database(db, Retention(rows=600), merge=False)) as store:
        store.merger.limits = series_merging.SegmentLimits(200, 1e9)
        fill(store, steps)
        merge_all(store)
        largest = max(segment.n for segment in segments(store))
        store.sweeper.sweep(0.0)
        left = points_left(store)
        assert 600 - largest <= left <= 600 < sum(counts)
        kept = SeriesSteps.join(list(store.steps_after(0)))
        newest = SeriesSteps.join(steps[-10:])
        assert np.isin(newest.time, kept.time).all(), "the newest stay"
        assert not all(segment.visible for segment in segments(store))
        turns = merge_all(store)
        assert turns > 0 and all(segment.visible for segment in segments(store))
        assert points_left(store) == left
        with store.reading() as c:
            assert c.exec_driver_sql("SELECT sum(n) FROM parts").scalar() == left


def test_old_segments_go_but_not_what_a_restart_reads(db: Path | str) -> None:
    steps = commits(20)
    states = ColumnStates("a", Settings(), np.array([1]), {})
    with closing(open_store(db)) as store:
        fill(store, steps[:12])
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), states=[states])])
        for each in steps[12:]:
            store.commit([], fleets=[FleetCommit(each)])
        needed = sum(len(each.series) for each in steps[12:])
        store.sweeper.sweep(0.0)
        assert_holds(store, steps)
        store.sweeper.sweep(5e9)
        assert points_left(store) == needed
        store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), obsolete=["a"])])
        store.sweeper.sweep(5e9)
        assert points_left(store) == 0
        merge_all(store)
        assert segments(store) == []
    with closing(open_store(db)) as store:
        assert store.series_writer.commit == 20, "a number is not given twice"
        store.commit([], fleets=[FleetCommit(steps[0])])
        assert segments(store)[0].commit == 21


def test_points_of_fleets_and_of_others_are_counted_together(db: Path | str) -> None:
    steps = commits(30)
    counts = [len(each.series) for each in steps]
    with closing(open_database(db, Retention(rows=500), merge=False)) as store:
        fill(store, steps[:20])
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        monitor.submit("pump", START + np.arange(100.0), np.zeros(100))
        monitor.process_pushed()
        for each in steps[20:]:
            store.commit([], fleets=[FleetCommit(each)])
        store.sweeper.sweep(0.0)
        points = store.points("pump")
        assert points is not None and len(points.time) == 100, "a restart reads them"
        fitting = np.cumsum(counts[::-1]) <= 400
        in_order = sum(counts[20:]) <= 400
        assert in_order and points_left(store) == np.cumsum(counts[::-1])[fitting][-1]


def test_older_points_of_others_make_room_for_those_of_fleets(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monkeypatch.setattr("redline.engine.monitor.MANY_SOURCES", 0)  # buffers of 100 steps
    steps = commits(20)
    of_fleets = sum(len(each.series) for each in steps)
    with closing(SqliteStore(path, Retention(rows=of_fleets + 400), merge=False)) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        for at in range(0, 1_000, 50):
            monitor.submit("pump", START + np.arange(at, at + 50.0), np.zeros(50))
            monitor.process_pushed()
        fill(store, steps)
        store.sweeper.sweep(0.0)
        while store.sweeper.unfinished:
            store.sweeper.sweep(0.0)
        assert points_left(store) == of_fleets
        points = store.points("pump")
        assert points is not None and 350 <= len(points.time) <= 400


def test_a_segment_is_a_small_part_of_what_is_kept() -> None:
    limits = series_merging.SegmentLimits.from_retention
    assert limits(Retention(rows=8_000_000, days=16.0)) == (1_000_000, 2 * 86_400)
    assert limits(Retention(rows=10**12)).points == 32_000_000


def test_what_the_retention_drops_does_not_come_back_with_a_merge(
    db: Path | str, small_parts: None
) -> None:
    steps = commits(8)
    with closing(open_database(db, Retention(rows=100), merge=False)) as store:
        fill(store, steps)
        for _ in range(2):
            assert store.merger.run_turn()
        assert store.merger.merge is not None
        store.sweeper.sweep(0.0)
        left = points_left(store)
        assert 0 < left <= 100
        merge_all(store)
        assert points_left(store) == left
        assert all(segment.visible and segment.level == 0 for segment in segments(store))


def test_dropped_points_are_deleted_without_another_commit(path: Path) -> None:
    with closing(open_store(path)) as store:
        calls: list[int] = []
        store.sweeper.delete_dropped = lambda: calls.append(1)
        fill(store, commits(3))
        store.sweeper.sweep(0.0)
        assert calls == []
        store.sweeper.sweep(5e9)
        store.sweeper.sweep(5e9)
        assert calls == [1]


def test_a_store_of_version_3_gets_the_tables(db: Path | str) -> None:
    with closing(open_store(db)) as store, store.writing() as c:
        for table in (*FLEET_TABLES, groups_table, rules_table):
            table.drop(c)
        c.execute(sa.text("UPDATE meta SET value = '3', crc = NULL WHERE name = 'version'"))
    steps = commits(20)
    with closing(open_store(db)) as store:
        fill(store, steps)
        merge_all(store)
        assert_holds(store, steps)
        with store.reading() as c:
            indices = sa.inspect(c).get_indexes("parts")
            assert [index["name"] for index in indices] == ["parts_series"]


def test_a_backup_holds_the_fleets(path: Path, tmp_path: Path) -> None:
    steps = commits(12)
    with closing(open_store(path)) as store:
        fill(store, steps)
        merge_all(store)
        made = store.backup(tmp_path / "copy.db")
    report = inspect_store(made)
    assert report is not None and not report.faults
    assert report.newest == max(each.time.max() for each in steps)
    shutil.rmtree(path, ignore_errors=True)
    restore_backup(made, path)
    with closing(open_store(path)) as store:
        assert_holds(store, steps)
