"""The store in one SQLite file: nothing else needs to run for it.

One writer, many readers (WAL). A commit is on the disk before it returns (synchronous FULL), so
what is acknowledged survives a killed process and, on a disk that does what it says, a power cut.
Points are stored in chunks, a blob of float64 rows each: 200,000 points a second need that.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from redline.storage.checksums import verify_store
from redline.storage.errors import StoreDamaged, StoreError, translate_errors
from redline.storage.files import (
    acquire_owner_lock,
    create_private,
    file_identity,
    log_file,
    refuse_cut,
    remove_empty,
)
from redline.storage.retention import Retention
from redline.storage.sql_store import DEFAULT_RETENTION, SqlStore

VERIFIED_AT_START = 16 * 2**20  # bytes of a file that is verified before it is used
MAX_WAL_BYTES = 16 * 2**20  # that the log of the database keeps after it was written back
RELEASED_PAGES = 1_000  # of the file that one transaction gives back at most
LOCK_TIMEOUT = 2.0  # seconds a commit waits for another program's lock
WRITER_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "cache_size=-16000",
    f"journal_size_limit={MAX_WAL_BYTES}",
)
READER_PRAGMAS = ("query_only=ON",)
_log = logging.getLogger("redline")


def open_engine(path: Path, write: bool) -> sa.Engine:
    """Return an SQLAlchemy engine on the file.

    A transaction of the writer takes the lock at once; one of a reader sees the file as it was when
    it began.
    """

    def connect() -> sqlite3.Connection:
        if write:
            create_private(path)
        connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        for pragma in WRITER_PRAGMAS if write else READER_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    pool = sa.pool.StaticPool if write else sa.pool.QueuePool
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=pool)
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql(begin))
    return engine


def release_pages(c: sa.Connection) -> None:
    """Give free pages at the end of the file back, RELEASED_PAGES at most.

    One statement for all of them would free only the first: it stops after each page as a query
    does after each row, and the driver does not go on, because these rows have no columns.
    """
    free = int(c.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
    connection = c.connection.driver_connection
    assert connection is not None
    for _ in range(min(free, RELEASED_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")


class SqliteStore(SqlStore):
    """An open SQLite file."""

    def __init__(
        self,
        path: str | Path,
        keep: Retention = DEFAULT_RETENTION,
        write: bool = True,
        merge: bool = True,
    ) -> None:
        """Open the file, and create it where it is missing.

        Args:
            path: the file.
            keep: how much the retention leaves.
            write: False = only read a file that exists.
            merge: whether the points of fleets are merged, in a thread of the store's own.
        """
        super().__init__(str(Path(path)), keep, merge and write)
        self.path = Path(path)
        with translate_errors(self.path):
            refuse_cut(self.path, write)
            new = not self.path.exists() or not self.path.stat().st_size
            self.owner = acquire_owner_lock(self.path) if write else None
            try:
                self._open(write)
            except BaseException:
                self.close()
                if new and write:
                    remove_empty(self.path)
                raise

    def _open(self, write: bool) -> None:
        self.reader = open_engine(self.path, write=False)
        if not write:
            return
        self.writer = open_engine(self.path, write=True)
        with self.writer.begin() as c:
            unmerged = self._take_up(c)
        self.identities = self._file_identities()
        if self.path.stat().st_size <= VERIFIED_AT_START:
            self.verify(deep=True)
        else:
            threading.Thread(target=self._verify_aside, name="verify", daemon=True).start()
        if unmerged:
            self._wake_merger()

    def verify(self, deep: bool) -> None:
        """Verify every row and the structure of the file; raise StoreDamaged."""
        with self.reading() as c:
            verify_store(c, deep)

    def _verify_aside(self) -> None:
        """Verify a large file while it is in use; what is found is kept as `damage`."""
        try:
            self.verify(deep=False)
        except StoreError as error:
            if not self.closed:
                _log.error("%s", error)

    def close(self) -> None:
        self.merger.end()
        with self.lock:
            self.closed = True
            for engine in (getattr(self, "writer", None), getattr(self, "reader", None)):
                if engine is not None:
                    engine.dispose()
            if self.owner is not None:
                self.owner.close()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        with self.lock:
            self.refuse_closed()
            self.refuse_replaced()
            with translate_errors(self.path), self.writer.begin() as c:
                yield c
            self.refuse_replaced()  # else what was just stored would be gone with the file

    @contextmanager
    def rewriting(self) -> Iterator[sa.Connection]:
        # a power cut may undo it, but the next commit waits for it too: the log is in order
        with self.lock:
            self.refuse_closed()
            with translate_errors(self.path):
                connection = self.writer.raw_connection()
                try:
                    connection.execute("PRAGMA synchronous=NORMAL")
                    with self.writing() as c:
                        yield c
                finally:
                    connection.execute("PRAGMA synchronous=FULL")
                    connection.close()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self.refuse_closed()
        try:
            with translate_errors(self.path), self.reader.begin() as c:
                yield c
        except StoreDamaged as error:
            self.damage = error
            raise

    def release_room(self, c: sa.Connection) -> None:
        release_pages(c)

    def refuse_replaced(self) -> None:
        """Raise a StoreError if the file is no longer the one that was opened."""
        if self._file_identities() != self.identities:
            raise StoreError(
                f"{self.path} was removed or replaced while Redline used it, so nothing is "
                "stored any more; put the file back, or restore a backup, and start again"
            )

    def _file_identities(self) -> list[tuple[int, int] | None]:
        """Return what tells this file and its log from others of the same names."""
        return [file_identity(self.path), file_identity(log_file(self.path))]

    def backup(self, path: str | Path) -> Path:
        """Write a consistent copy to a new file while the store stays in use; return its path.

        Raises:
            StoreError: the file exists already.
        """
        self.refuse_closed()
        target = Path(path)
        if target.exists():
            raise StoreError(f"{target} is there already; name a new file for the backup")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        create_private(part)
        with translate_errors(target), self.reader.connect() as c:
            connection = c.connection.driver_connection
            assert connection is not None
            connection.execute("PRAGMA query_only=OFF")
            try:
                connection.execute("VACUUM INTO ?", (str(part),))
            finally:
                connection.execute("PRAGMA query_only=ON")
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.rename(target)
        return target
