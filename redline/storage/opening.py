"""The choice of the database that `--db` names: a file, or a server."""

from __future__ import annotations

import re
from pathlib import Path

from redline.storage.retention import Retention
from redline.storage.sql_store import DEFAULT_RETENTION, SqlStore
from redline.storage.sqlite import SqliteStore

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(db: str | Path) -> bool:
    """Return whether `--db` names a database of a server, not a file.

    >>> is_address("postgresql+psycopg://redline@localhost/redline"), is_address("redline.db")
    (True, False)
    """
    return isinstance(db, str) and ADDRESS.match(db) is not None


def name_database(db: str | Path) -> str:
    """Return the store as messages name it: without a password; StoreError = it is none."""
    if not is_address(db):
        return str(db)
    from redline.storage.postgresql_address import DatabaseAddress

    return DatabaseAddress.parse(str(db)).name


def open_database(
    db: str | Path,
    keep: Retention = DEFAULT_RETENTION,
    write: bool = True,
    merge: bool = True,
) -> SqlStore:
    """Open the store that `--db` names.

    Args:
        db: a file, made where it is missing, or an address such as
            postgresql+psycopg://USER@HOST/DATABASE.
        keep: how much the retention leaves.
        write: False = only read what is there.
        merge: whether the points of fleets are merged, in a thread of the store's own.

    Raises:
        StoreError: it cannot be opened.
    """
    if not is_address(db):
        return SqliteStore(db, keep, write, merge)
    from redline.storage.postgresql import PostgresStore

    return PostgresStore(str(db), keep, write, merge)
