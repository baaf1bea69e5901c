"""The commands `init`, `token`, `backup` and `restore`."""

from __future__ import annotations

import time
from pathlib import Path

from redline.access.tokens import append_token, expiry_after, format_expiry, mint_token
from redline.cli.errors import UsageError, usage_errors
from redline.cli.output import print_status
from redline.cli.settings_file import commented_settings
from redline.storage.backup import restore_backup
from redline.storage.opening import is_address, name_database
from redline.storage.sqlite import SqliteStore


def write_settings_file(path: Path, stream: str, force: bool) -> None:
    """Write a commented settings file; overwrite an existing one only if `force` is set."""
    if path.exists() and not force:
        raise UsageError(
            f"{path} is there already; choose another name, or write over it with --force"
        )
    path.write_text(commented_settings(stream), encoding="utf-8")
    print_status(f"wrote {path}; start it with `python -m redline run --config {path}`")


def create_token(role: str, name: str, file: Path, days: float | None) -> None:
    """Print a new token, and append its hash to the token file; without `days` it never expires."""
    with usage_errors():
        until = None if days is None else expiry_after(days, time.time())
        secret, line = mint_token(role, name, until)
        append_token(file, line)
    expiry = "" if until is None else f", valid until {format_expiry(until)}"
    print_status(f"added to {file}{expiry}; this is the only time the token is shown:")
    print(secret)


def back_up_store(path: Path, db: str) -> None:
    """Write a backup of a store, which may be in use."""
    if is_address(db):
        raise UsageError(server_line(db, "backup", f"pg_dump --format=custom --file={path}"))
    store = SqliteStore(db, write=False)
    try:
        written = store.backup(path)
    finally:
        store.close()
    print_status(
        f"wrote {written}, {path.stat().st_size:,} bytes; "
        f"restore it with `python -m redline restore {path}`"
    )


def restore_store(path: Path, db: str) -> None:
    """Replace a store by a backup; the store must not be in use."""
    if is_address(db):
        raise UsageError(server_line(db, "restore", f"pg_restore --clean --if-exists {path}"))
    restore_backup(path, db)
    print_status(f"{db} is {path} again; what was there before is {db}.before")


def server_line(db: str, command: str, program: str) -> str:
    """Return the sentence that names the server's own program in place of a command."""
    return (
        f"`{command}` copies files; for a database of a server use `{program} "
        f"--dbname={name_database(db)}`, see docs/store.md"
    )
