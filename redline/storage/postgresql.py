"""The store in a database of a PostgreSQL server.

The tables are those of SQLite. One process writes, which has the lease of the database; a commit is
on the server's disk before it returns. While the server is away every call is refused, and goes
through again once it is back: nothing that was acknowledged is lost, and nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from redline.engine.fleet.stored import FleetCommit
from redline.engine.results import Batch
from redline.storage.errors import StoreDamaged, StoreError
from redline.storage.postgresql_address import DatabaseAddress
from redline.storage.postgresql_session import WriterSession
from redline.storage.retention import Retention
from redline.storage.sql_store import DEFAULT_RETENTION, ExtraWrites, SqlStore

ENCODING = "UTF8"  # of the database; names of sources may be in any language


class PostgresStore(SqlStore):
    """An open database of a PostgreSQL server."""

    def __init__(
        self,
        db: str,
        keep: Retention = DEFAULT_RETENTION,
        write: bool = True,
        merge: bool = True,
    ) -> None:
        """Open the database, and make the tables where they are missing.

        Args:
            db: its address; a password may also come from PGPASSWORD or PGPASSFILE.
            keep: how much the retention leaves.
            write: False = only read what is there.
            merge: whether the points of fleets are merged, in a thread of the store's own.
        """
        self.address = DatabaseAddress.parse(db)
        super().__init__(self.address.name, keep, merge and write)
        # what the last commit has written, where its answer was lost, and what of it is stored
        self.unanswered: tuple[Batch | FleetCommit, ...] = ()
        self.stored: tuple[Batch | FleetCommit, ...] = ()
        self.rewritten_by = 0  # connection of the last transaction of the merging
        self.session: WriterSession | None = None
        self.reader = self.address.make_engine(
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            pool_pre_ping=True,
        )
        if write:
            self.session = WriterSession(self.address)
            try:
                self._open(self.session)
            except BaseException:
                self.close()
                raise

    def _open(self, session: WriterSession) -> None:
        with self.address.translate_errors(), session.engine.begin() as c:
            encoding = c.exec_driver_sql("SHOW server_encoding").scalar()
            if encoding != ENCODING:
                raise StoreError(
                    f"{self.name} stores text as {encoding}, which lacks letters; make it anew "
                    f"with `createdb --encoding={ENCODING} --template=template0`"
                )
            unmerged = self._take_up(c)
            session.claim(c)
        if unmerged:
            self._wake_merger()

    def close(self) -> None:
        self.merger.end()
        with self.lock:
            self.closed = True
            if self.session is not None:
                self.session.close()
            self.reader.dispose()

    @property
    def _writer(self) -> WriterSession:
        """Return the session that writes; StoreError = the store is closed or only read."""
        self.refuse_closed()
        if self.session is None:
            raise StoreError(f"{self.name} was opened to be read only")
        return self.session

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        with self.lock, self.address.translate_errors():
            self._settle()
            with self._writer.transaction() as c:
                yield c

    @contextmanager
    def rewriting(self) -> Iterator[sa.Connection]:
        with self.lock, self.address.translate_errors():
            self._settle()
            with self._writer.transaction(durable=False) as c:
                if self.rewritten_by != self._writer.connections:
                    # a crash of the server may have undone the last of these transactions
                    first = not self.rewritten_by
                    self.rewritten_by = self._writer.connections
                    if not first:
                        raise StoreError(f"the connection to {self.name} was lost meanwhile")
                yield c

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self.refuse_closed()
        try:
            with self.address.translate_errors(), self.reader.begin() as c:
                yield c
        except StoreDamaged as error:
            self.damage = error
            raise

    def commit(
        self,
        batches: Sequence[Batch],
        extra_writes: ExtraWrites | None = None,
        *,
        fleets: Sequence[FleetCommit] = (),
    ) -> None:
        """Store what is not stored yet, as `SqlStore.commit` does.

        A commit whose answer was lost is tried again by the caller, with the same objects and more.
        """
        with self.lock:
            with self.address.translate_errors():
                self._settle()
            there = {id(each) for each in self.stored}
            batches = [batch for batch in batches if id(batch) not in there]
            fleets = [fleet for fleet in fleets if id(fleet) not in there]
            self.unanswered = (*batches, *fleets)
            super().commit(batches, extra_writes, fleets=fleets)
            self.unanswered = ()
            self.stored = ()

    def _settle(self) -> None:
        """Find out what became of a commit whose answer was lost."""
        writer = self._writer
        if writer.unanswered is None:
            return
        if writer.resolve():
            self.stored += self.unanswered
            with self.reading() as c:
                self._read_positions(c)
        self.unanswered = ()
