"""Restoring a backup of the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from redline.storage.checksums import verify_store
from redline.storage.errors import StoreError, translate_errors
from redline.storage.files import acquire_owner_lock, create_private, log_file
from redline.storage.sqlite import SqliteStore


def restore_backup(backup: str | Path, path: str | Path) -> None:
    """Replace a store that is not open by a backup; the old one stays beside it as PATH.before.

    Raises:
        StoreError: the backup is damaged or no store, or the store is in use.
    """
    source = Path(backup)
    target = Path(path).resolve()
    part = target.with_name(target.name + ".part")
    if source.resolve() in (target, part):
        raise StoreError(f"{source} would be overwritten by its own restore; rename it first")
    refuse_unfinished(source)
    refuse_damaged(source)
    with translate_errors(target):
        owner = acquire_owner_lock(target)
    part.unlink(missing_ok=True)
    create_private(part)
    shutil.copyfile(source, part)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    if target.exists():
        target.replace(target.with_name(target.name + ".before"))
    for side in ("-wal", "-shm"):
        Path(f"{target}{side}").unlink(missing_ok=True)
    part.replace(target)
    owner.close()


def refuse_unfinished(backup: Path) -> None:
    """Raise a StoreError if a file has a log beside it, which a copy of it would lose."""
    log = log_file(backup)
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{backup} is in use, or was not closed: what is in {log.name} would be lost; make a "
            "backup of it with `python -m redline backup`, and restore that"
        )


def refuse_damaged(backup: Path) -> None:
    """Raise a StoreError if a file is not a whole backup of a store."""
    store = SqliteStore(backup, write=False)
    try:
        with store.reading() as c:
            verify_store(c, deep=True)
            known = "meta" in sa.inspect(c).get_table_names()
    except StoreError as error:
        raise StoreError(
            f"{backup} is no whole backup of a store ({error}); choose another"
        ) from error
    finally:
        store.close()
    if not known:
        raise StoreError(f"{backup} is no backup of a store; choose another")
