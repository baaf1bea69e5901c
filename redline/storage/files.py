"""The files of a store: the database, its log and its lock, as the file system sees them."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from redline.storage.errors import StoreDamaged, StoreError

SMALLEST_PAGE = 512  # bytes of a database that holds something


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name; None = it is gone."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def refuse_cut(path: Path, write: bool) -> None:
    """Raise a StoreError where there is nothing to read, or a store that was cut."""
    refuse_no_path(path)
    if not write and not path.exists():
        raise StoreError(f"{path} does not exist; name the file that `python app.py --db` writes")
    if not path.exists():
        return
    if not path.is_file():  # never a device or a pipe: an empty file is removed, and replaced
        raise StoreError(f"{path} is no file; name one that may become the store")
    size = path.stat().st_size
    log = log_file(path)
    if size < stored_size(path) and not (log.exists() and log.stat().st_size):
        raise StoreDamaged(
            f"{path} is damaged: it was cut to {size:,} bytes; restore a backup with "
            "`python -m redline restore BACKUP`"
        )
    owner = owner_file(path)
    if size < SMALLEST_PAGE and owner.exists():  # the database would take it for a new one
        raise StoreDamaged(
            f"{path} held a store and is empty now; restore a backup with `python -m redline "
            f"restore BACKUP`, or delete it and {owner} to begin anew"
        )


def refuse_no_path(path: Path) -> None:
    """Raise a StoreError for a name under which there can be no file."""
    if str(path) == ":memory:":  # SQLite would keep nothing, in a database of each connection
        raise StoreError(":memory: is no file; --db '' keeps nothing")
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            said = os.strerror(error.errno).lower()
            raise StoreError(f"{path} cannot be a file: {said}; name another with --db") from error


def remove_empty(path: Path) -> None:
    """Remove a file that could not be made a store, as on a full disk.

    Left empty, it would be taken for a store that lost what it held.
    """
    with suppress(OSError):
        if path.is_file() and not path.stat().st_size:
            path.unlink()


def stored_size(path: Path) -> int:
    """Return the bytes that a database says it has, in its header; 0 = it says nothing."""
    with path.open("rb") as file:
        header = file.read(32)
    if len(header) < 32 or not header.startswith(b"SQLite format 3\0"):
        return 0
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    return pages * (65_536 if page_size == 1 else page_size)


def owner_file(path: Path) -> Path:
    """Return the file that is locked while a store is in use, the same for every link to it."""
    whole = path.resolve()
    return whole.with_name(whole.name + "-owner")


def log_file(path: Path) -> Path:
    """Return the write-ahead log of a database, the same for every link to it."""
    whole = path.resolve()
    return whole.with_name(whole.name + "-wal")


def create_private(path: Path) -> None:
    """Create a file that only its owner may read, unless it is there.

    SQLite would leave that to the umask. The files beside it (-wal, -shm) take its mode.
    """
    with suppress(OSError):  # SQLite says what is wrong, in its words
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def acquire_owner_lock(path: Path) -> sqlite3.Connection:
    """Lock the file for this process until the connection is closed or the process ends.

    Two Redlines on one file would store every step twice.

    Raises:
        StoreError: another process has the lock, or the file has a second name, under which another
            process would lock something else.
    """
    if path.exists() and path.stat().st_nlink > 1:
        raise StoreError(
            f"{path} has a second name (a hard link), under which another Redline could use it at "
            "the same time; remove the other name, or use a copy that `backup` makes"
        )
    create_private(owner_file(path))
    lock = sqlite3.connect(
        owner_file(path), timeout=0, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if "locked" not in str(error):
            raise
        raise StoreError(
            f"{path} is in use by another Redline; stop that one, or choose another file with --db"
        ) from error
    return lock
