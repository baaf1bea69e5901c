"""What a store file holds and whether it is whole, read without changing it.

>>> inspect_store(Path("there is no such file.db")) is None
True
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from redline.storage.checksums import verify_rows
from redline.storage.errors import StoreDamaged, translate_errors
from redline.storage.files import log_file, owner_file

REPORTED_FAULTS = 10  # faults of integrity_check that are read; one is enough to restore a backup


class StoreReport(NamedTuple):
    """What `inspect_store` found."""

    faults: tuple[str, ...]  # of the structure and of the rows; empty = the file is whole
    version: int | None  # of the tables; None = the file is no store of Redline
    bytes: int  # size of the file
    free_bytes: int  # of its pages that hold nothing
    committed: float | None  # wall seconds of the newest commit of points; None = there is none
    newest: float | None  # seconds since the epoch, of the newest stored point


def inspect_store(path: Path) -> StoreReport | None:
    """Return what a store file is like, whether or not a server has it open; None = no such file.

    Raises:
        StoreError: the file cannot be read, or is damaged beyond the questions.
    """
    if not path.exists():
        return None
    with translate_errors(path), closing(_open_unchanged(path)) as database:
        faults = [row[0] for row in _ask(database, f"PRAGMA integrity_check({REPORTED_FAULTS})")]
        tables = {row[0] for row in _ask(database, "SELECT name FROM sqlite_master")}
        sizes = {name: _value(database, f"PRAGMA {name}") for name in ("page_size", "page_count")}
        free = _value(database, "PRAGMA freelist_count")
        faults = [] if faults == ["ok"] else faults
        whole = not faults
        known = whole and {"meta", "streams", "points"} <= tables
        fleets = known and "segments" in tables
        version = _value(database, "SELECT value FROM meta WHERE name = 'version'") if known else ""
        return StoreReport(
            faults=(*faults, *(_damaged_rows(path) if known else ())),
            version=int(version) if str(version or "").isdecimal() else None,
            bytes=sizes["page_size"] * sizes["page_count"],
            free_bytes=sizes["page_size"] * free,
            committed=_highest(database, "seen", "streams", "arrived", fleets) if known else None,
            newest=_highest(database, "newest", "points", "newest", fleets) if known else None,
        )


def _highest(
    database: sqlite3.Connection, column: str, table: str, of_segments: str, fleets: bool
) -> float | None:
    """Return the highest value of a column, also of the segments where there are fleets."""
    questions = [f"SELECT max({column}) FROM {table}"]
    if fleets:
        questions.append(f"SELECT max({of_segments}) FROM segments WHERE n > 0")
    values = (_value(database, question) for question in questions)
    return max((value for value in values if value is not None), default=None)


def _damaged_rows(path: Path) -> list[str]:
    """Return what the checksums of the rows say, empty = they match."""
    engine = sa.create_engine("sqlite://", creator=lambda: _open_unchanged(path))
    try:
        with engine.connect() as c:
            verify_rows(c)
    except StoreDamaged as error:
        return [str(error)]
    finally:
        engine.dispose()
    return []


def is_owned(path: Path) -> bool:
    """Return whether a running Redline holds a store: the lock that `acquire_owner_lock` takes."""
    lock = owner_file(path)
    if not lock.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{_address(lock)}?mode=ro", uri=True, timeout=0)) as database:
            _ask(database, "SELECT name FROM sqlite_master")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    return False


def _open_unchanged(path: Path) -> sqlite3.Connection:
    """Return a connection that leaves no side file behind.

    Without a write-ahead log the file is opened as immutable: a plain reader would create the log
    and its index, which would then belong to whoever asks, perhaps not to the server's user. A log
    without its index, as in a copy, still gets one.
    """
    mode = "mode=ro" if log_file(path).exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{_address(path)}?{mode}", uri=True)


def _address(path: Path) -> str:
    return path.absolute().as_uri()


def _ask(database: sqlite3.Connection, question: str) -> list[tuple[Any, ...]]:
    return database.execute(question).fetchall()


def _value(database: sqlite3.Connection, question: str) -> Any:
    rows = _ask(database, question)
    return rows[0][0] if rows else None
