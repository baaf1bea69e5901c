"""Restoring a backup of the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from redline.storage.errors import StoreError, translate_errors
from redline.storage.sqlite import SqliteStore, acquire_owner_lock, create_private


def restore_backup(backup: str | Path, path: str | Path) -> None:
    """Puts a backup in the place of a store that is not open; the one that was there is kept
    beside it as PATH.before.
    """
    source = Path(backup)
    target = Path(path)
    with translate_errors(source):
        checked = SqliteStore(source, write=False)
        with checked.reader.connect() as c:
            verdict = c.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
            there = set(sa.inspect(c).get_table_names())
        checked.close()
    if verdict != "ok" or "meta" not in there:
        raise StoreError(f"{source} is no whole backup of a store ({verdict}); choose another")
    with translate_errors(target):
        owner = acquire_owner_lock(target)
    part = target.with_name(target.name + ".part")
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
