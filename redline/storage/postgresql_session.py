"""The session that writes to PostgreSQL: it alone has the lease, and knows its last commit.

The lease is an advisory lock of the session, so it ends with the connection. Whoever connects again
needs the lock again. Each transaction also compares a mark in the table meta with the one that this
process has written last, and replaces it: a process that lost its lease meanwhile changes nothing,
and after a connection was lost during a commit the mark says whether it was done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, write_meta
from redline.storage.errors import StoreError
from redline.storage.postgresql_address import DatabaseAddress
from redline.storage.schema import meta_table

LEASE_KEY = 0x7265646C  # of the advisory lock, one for each database
WRITER_MARK = "writer"  # in the table meta: the process that writes, and its last transaction
LEASE_PATIENCE = 2.0  # seconds for the server to notice that the last owner is gone
LEASE_RETRY = 0.05  # seconds between two tries
SESSION_SETTINGS = {
    "lock_timeout": "5s",
    # the server frees the lease of a machine that vanished after 25 s
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds
}
SET = "SELECT set_config(%s, %s, false)"
# a commit waits for the disk, whatever the server's default is
SET_DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
TRY_LEASE = f"SELECT pg_try_advisory_lock({LEASE_KEY}, 0)"
END_OWN_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = %s AND pid <> pg_backend_pid() AND usename = current_user"
)


class WriterSession:
    """The one connection that writes, and what it has committed last; for one thread at a time."""

    def __init__(self, address: DatabaseAddress) -> None:
        self.address = address
        self.token = uuid.uuid4().hex  # of this process and store
        self.connections = 0  # made so far
        self.attempts = 0
        self.last = 0  # number of the last transaction that was committed
        self.unanswered: int | None = None  # of one whose commit has not been answered
        self.engine = address.make_engine(pool_size=1, max_overflow=0)
        sa.event.listen(self.engine, "connect", self._take_lease)

    def _take_lease(self, connection: Any, record: Any) -> None:
        """Prepare a new connection: it becomes that of the session only with the lease."""
        try:
            with connection.cursor() as cursor:
                own = f"redline-{self.token}"
                for name, value in {**SESSION_SETTINGS, "application_name": own}.items():
                    cursor.execute(SET, (name, value))
                cursor.execute(SET_DURABLE)
                patience = time.monotonic() + LEASE_PATIENCE
                while not cursor.execute(TRY_LEASE).fetchone()[0]:
                    # the server may not have noticed that an earlier connection was lost
                    cursor.execute(END_OWN_SESSIONS, (own,))
                    if time.monotonic() >= patience:
                        raise StoreError(
                            f"{self.address.name} is in use by another Redline; stop that one, or "
                            "choose another database with --db"
                        )
                    time.sleep(LEASE_RETRY)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self.connections += 1

    def claim(self, c: sa.Connection) -> None:
        """Write the mark of this process within its first transaction."""
        write_meta(c, WRITER_MARK, self._mark(0))

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[sa.Connection]:
        """Open a transaction; one that is not durable may be undone by a crash of the server.

        The mark of that one stays as it is, since it has to be true after a crash.

        Raises:
            StoreError: another process has the lease, or has written since.
        """
        self.attempts += 1
        number = self.attempts if durable else self.last
        c = self._begin(number)
        try:
            if not durable:
                c.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield c
            self.unanswered = number if durable else None
            c.commit()
            self.unanswered = None
            self.last = number
        finally:
            c.close()  # rolls back what is not committed

    def _begin(self, number: int) -> sa.Connection:
        """Return a connection in a transaction that has replaced the mark.

        A connection that was lost since it was last used is made anew.
        """
        for last_try in (False, True):
            c = self.engine.connect()
            try:
                self._advance(c, number)
                return c
            except BaseException as error:
                c.close()
                lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
                if last_try or not lost:
                    raise
        raise AssertionError("unreachable")

    def _advance(self, c: sa.Connection, number: int) -> None:
        """Compare the mark with that of the last transaction, and replace it."""
        row = seal_row(meta_table, {"name": WRITER_MARK, "value": self._mark(number)})
        t = meta_table.c
        own = (t.name == WRITER_MARK) & (t.value == self._mark(self.last))
        if c.execute(meta_table.update().where(own).values(row)).rowcount != 1:
            raise StoreError(
                f"{self.address.name} is not as this Redline left it: another one has written to "
                "it, or it was set back to an earlier state; start this one again"
            )

    def resolve(self) -> bool:
        """Return whether the transaction whose commit was not answered was committed."""
        if self.unanswered is None:
            return False
        mark = sa.select(meta_table.c.value).where(meta_table.c.name == WRITER_MARK)
        with self.engine.connect() as c:
            done = c.execute(mark).scalar() == self._mark(self.unanswered)
        if done:
            self.last = self.unanswered
        self.unanswered = None
        return done

    def _mark(self, number: int) -> str:
        return f"{self.token} {number}"

    def close(self) -> None:
        """Give the lease back."""
        with suppress(sa.exc.DBAPIError, sa.exc.TimeoutError, StoreError):
            pool = self.engine.pool
            if isinstance(pool, sa.pool.QueuePool) and pool.checkedin():
                with self.engine.connect() as c:
                    c.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        self.engine.dispose()
