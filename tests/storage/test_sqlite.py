"""The store in a file, and the loop on it: submissions, trouble, backup, damage."""

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from store_rig import (
    START,
    numbers,
    push,
    rounds,
    simulated,
    watching,
)

from detectors import DETECTORS
from docs.tables import filled
from redline.api.service import assemble_service
from redline.engine import outbox
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Limits
from redline.incidents.incident import Policy
from redline.settings import Settings
from redline.sources import pushed
from redline.sources.pushed import RESERVED_NAMES, QueueFull, SubmissionCounts, SubmissionRefused
from redline.storage import (
    backup,
    encoding,
    errors,
    schema,
    sqlite,
    waiting,
)
from redline.storage.errors import StoreError
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore
from streams import STREAMS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "redline.db"


@pytest.fixture
def kept(path):
    opened = SqliteStore(path)
    yield opened
    opened.close()


def test_a_source_may_send_only_so_many_old_points_in_a_minute(kept, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pushed.clocks, "monotonic", lambda: now[0])
    monitor = watching(kept, limits=Limits(late=600))
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


@pytest.mark.parametrize("name", [*sorted(RESERVED_NAMES), "Wave", " iot "])
def test_a_source_cannot_have_a_name_that_the_page_uses(kept, name):
    monitor = watching(kept)
    with pytest.raises(SubmissionRefused, match=r"does not use itself.*choose another"):
        monitor.submit(name, *numbers(3))
    assert not monitor.feeds
