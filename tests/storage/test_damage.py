"""What happens to the file from outside is found, said, and never served or acknowledged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from redline.api.service import assemble_service
from redline.engine.maintenance import MaintenanceWindow
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.storage import sqlite
from redline.storage.backup import restore_backup
from redline.storage.errors import StoreDamaged, StoreError
from redline.storage.inspection import inspect_store, is_owned
from redline.storage.schema import FLEET_TABLES, groups_table, rules_table
from redline.storage.sqlite import SqliteStore

START = 1_700_000_000.0  # seconds since the epoch
STREAMS = ("pump", "oven", "door")
STEPS = 900
NEWER = tuple(table.name for table in (*FLEET_TABLES, groups_table, rules_table))


def fill_store(path: Path) -> None:
    """Write streams with points, late ones and anomalies, labels, settings and an audit log."""
    with closing(SqliteStore(path)) as store:
        service = assemble_service(lambda s: Monitor({}, wall=lambda: START + 1e6, store=s), store)
        monitor = service.monitor
        draw = np.random.default_rng(4)
        for name in STREAMS:
            x = draw.normal(size=STEPS)
            x[draw.integers(100, STEPS, 12)] += 15
            for at in range(0, STEPS, 100):
                steps = np.arange(at, at + 100)
                monitor.submit(name, START + steps, x[steps])
                monitor.process_pushed()
            monitor.submit(name, np.array([START + 0.5]), np.array([1.0]))
            monitor.process_pushed()
            label = Label(name, START, START + 5, "missed", "me", START, id=len(store.labels()) + 1)
            store.save_label(label._asdict())
            store.record("me", "looked", name)


def answers(path: Path) -> str:
    """Return everything the store answers, as text."""
    with closing(SqliteStore(path)) as store:
        found: list[object] = [store.anomalies(), store.labels(), store.history(), store.audit()]
        found += [
            store.last_anomaly_id(),
            sorted(store.pushed_streams()),
            store.incidents(),
            store.dismissed(),
        ]
        for name in STREAMS:
            points = store.points(name)
            assert points is not None
            found += [points.names, *(column.tolist() for column in points[1:5])]
            old = store.load_stream(name)
            assert old is not None
            found += [old.end, old.first, old.time.tolist(), old.x.tolist(), old.applied]
            found += [{name: value.tobytes() for name, value in sorted(old.state.items())}]
    return repr(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "redline.db"
    fill_store(path)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "redline.db"))


def test_a_flipped_bit_is_found_or_changes_no_answer(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    before = answers(Path(shutil.copy(whole, tmp_path / "before.db")))
    draw = np.random.default_rng(11)
    found = 0
    for flip in range(40):
        damaged = bytearray(data)
        place = int(draw.integers(len(data)))
        damaged[place] ^= 1 << int(draw.integers(8))
        path = tmp_path / f"{flip}.db"
        path.write_bytes(damaged)
        try:
            assert answers(path) == before, f"a bit of byte {place} changed an answer"
        except StoreError:
            found += 1
    assert found > 15, "the other bits are in bytes that hold nothing"


def test_a_file_that_was_cut_is_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    for kept in (0, 1, 100, 4_096, len(data) // 2, len(data) - 4_096, len(data) - 1):
        path = tmp_path / f"{kept}.db"
        path.write_bytes(data)
        SqliteStore(path).close()
        path.write_bytes(data[:kept])
        with pytest.raises(StoreError, match=r"damaged|empty now"):
            SqliteStore(path)


def test_an_empty_file_that_was_no_store_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    SqliteStore(tmp_path / "new.db").close()


def test_a_value_damaged_under_way_is_not_served_and_health_says_so(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        service = assemble_service(lambda s: Monitor({}, store=s), store)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE points SET rows = zeroblob(length(rows)) WHERE id = 1")
            other.execute("UPDATE anomalies SET value = 1.0 WHERE id = 3")
        with pytest.raises(StoreDamaged, match="its table points does not match its checksum"):
            service.store.points(STREAMS[0], limit=STEPS)  # type: ignore[union-attr]
        assert store.damage is not None and "restore a backup" in str(store.damage)
        with pytest.raises(StoreDamaged, match="its table anomalies"):
            store.anomalies()
        found = store.points(STREAMS[1])
        assert found is not None and len(found.time) == STEPS + 1, "the others are whole"


def test_a_large_file_is_verified_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE late SET arrived = 0")
    monkeypatch.setattr(sqlite, "VERIFIED_AT_START", 0)
    with closing(SqliteStore(path)) as store:
        for thread in threading.enumerate():
            if thread.name == "verify":
                thread.join(20)
        assert store.damage is not None and "its table late" in str(store.damage)


@pytest.mark.parametrize("side", ["", "-wal"])
@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_acknowledged_once_the_file_is_gone(path: Path, side: str, again: bool) -> None:
    with closing(SqliteStore(path)) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        first = monitor.submit("new", np.array([START]), np.array([1.0]))
        monitor.process_pushed()
        assert first.result(timeout=0).accepted == 1
        file = Path(f"{path}{side}")
        file.unlink()
        if again:
            file.touch()
        receipt = monitor.submit("new", np.array([START + 1]), np.array([1.0]))
        monitor.process_pushed()
        assert not receipt.done()
        assert monitor.trouble and "was removed or replaced" in monitor.trouble.text


def test_a_link_to_a_store_in_use_is_in_use(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere.db"
    link.symlink_to(path)
    with closing(SqliteStore(path)):
        assert is_owned(link)
        with pytest.raises(StoreError, match="in use by another"):
            SqliteStore(link)
    with closing(SqliteStore(link)) as store:
        Path(f"{path}-wal").unlink()
        with pytest.raises(StoreError, match="was removed or replaced"):
            store.record("me", "looked")
    assert not [file.name for file in tmp_path.glob("elsewhere.db-*")]


def test_a_file_with_a_second_name_is_refused(path: Path, tmp_path: Path) -> None:
    """Each name would have a lock and a log of its own: what one Redline stores the other loses."""
    second = tmp_path / "second.db"
    second.hardlink_to(path)
    for name in (path, second):
        with pytest.raises(StoreError, match=r"has a second name \(a hard link\)"):
            SqliteStore(name)
    second.unlink()
    SqliteStore(path).close()


def test_a_damaged_value_is_found_in_a_backup_and_by_the_doctor(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with closing(SqliteStore(path)) as store:
        store.backup(backup)
    report = inspect_store(backup)
    assert report is not None and report.faults == ()
    with closing(sqlite3.connect(backup)) as other, other:
        other.execute("UPDATE anomalies SET value = 1.0 WHERE id = 3")
    report = inspect_store(backup)
    assert report is not None and "its table anomalies" in report.faults[0]
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"no whole backup.*its table anomalies"):
        restore_backup(backup, path)
    assert path.read_bytes() == before


def test_a_restore_loses_no_log_and_overwrites_no_backup(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with closing(SqliteStore(path)) as store:
        store.record("me", "looked")
        assert Path(f"{path}-wal").stat().st_size
        with pytest.raises(StoreError, match=r"what is in .*-wal would be lost"):
            restore_backup(path, tmp_path / "new.db")
        store.backup(copy)
    part = copy.rename(tmp_path / "other.db.part")
    whole = part.read_bytes()
    for target in (tmp_path / "other.db", part):
        with pytest.raises(StoreError, match="overwritten by its own restore"):
            restore_backup(part, target)
    assert part.read_bytes() == whole


def test_a_pipe_or_a_folder_is_no_store_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        with pytest.raises(StoreError, match="is no file"):
            SqliteStore(place)
    assert pipe.is_fifo() and [each.name for each in tmp_path.iterdir()] == ["pipe"]


def drop_tables(database: sqlite3.Connection, names: Sequence[str]) -> None:
    """Drop tables that an older version does not have."""
    for name in names:
        database.execute(f"DROP TABLE {name}")


def test_a_store_of_version_1_is_taken_up(path: Path) -> None:
    before = answers(path)
    with closing(sqlite3.connect(path)) as old, old:
        drop_tables(old, ["maintenance", *NEWER])
        tables = old.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()
        for (name,) in tables:
            old.execute(f"ALTER TABLE {name} DROP COLUMN crc")
        old.execute("UPDATE meta SET value = '1' WHERE name = 'version'")
    assert answers(path) == before
    with closing(SqliteStore(path)) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        monitor.submit("new", np.array([START]), np.array([1.0]))
        monitor.process_pushed()
    with closing(sqlite3.connect(path)) as new:
        sealed = new.execute("SELECT count(crc), count(*) FROM points").fetchone()
        assert sealed[0] == 1 and sealed[1] > 1


def test_a_store_of_version_2_gets_a_table_of_maintenance_windows(path: Path) -> None:
    before = answers(path)
    with closing(sqlite3.connect(path)) as old, old:
        drop_tables(old, ["maintenance", *NEWER])
        old.execute("UPDATE meta SET value = '2' WHERE name = 'version'")
    with closing(SqliteStore(path)) as store:
        assert store.windows() == ([], 0)
        window = MaintenanceWindow("oven", START, START + 9, "ann", START, id=1)
        store.save_window(window._asdict())
        assert store.windows() == ([window._asdict()], 1)
    assert answers(path) == before
    with closing(sqlite3.connect(path)) as new, new:
        new.execute('UPDATE maintenance SET "end" = "end" + 1')
    with pytest.raises(StoreDamaged, match="maintenance"):
        SqliteStore(path)


def test_the_log_of_the_database_shrinks_again(path: Path) -> None:
    with closing(SqliteStore(path)) as store, closing(sqlite3.connect(path)) as reader:
        monitor = Monitor({}, wall=lambda: START + 1e9, store=store)
        reader.execute("BEGIN").execute("SELECT count(*) FROM points").fetchone()
        x = np.random.default_rng(1).normal(size=(50_000, 60))
        monitor.submit("wide", START + np.arange(50_000), x, [f"f{i}" for i in range(60)])
        monitor.process_pushed()
        log = Path(f"{path}-wal")
        assert log.stat().st_size > sqlite.MAX_WAL_BYTES, (
            "a reader keeps it from being written back"
        )
        reader.execute("ROLLBACK")
        for step in range(3):
            monitor.submit("more", np.array([START + step]), np.array([1.0]))
            monitor.process_pushed()
        until = time.monotonic() + 10
        while log.stat().st_size > sqlite.MAX_WAL_BYTES and time.monotonic() < until:
            time.sleep(0.01)
        assert log.stat().st_size <= sqlite.MAX_WAL_BYTES
