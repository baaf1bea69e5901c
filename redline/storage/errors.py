"""Errors of the store, explained in a sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa


class StoreError(OSError):
    """The store cannot do its work; says why and what to do."""


class StoreDamaged(StoreError):
    """What is stored is not what was written."""


class TemporaryStoreError(StoreError):
    """The store cannot do its work now; the same may succeed later."""

    until: ClassVar[str]  # what it waits for


class StoreFull(TemporaryStoreError):
    """There is no room to write."""

    until = "there is room"


class StoreUnreachable(TemporaryStoreError):
    """The server of the store does not answer."""

    until = "it answers"


DAMAGED = "is damaged"
FULL = "cannot grow: its disk is full or its size is limited"
ERROR_KINDS = {DAMAGED: StoreDamaged, FULL: StoreFull}  # of errors; any other is a StoreError
ERROR_CAUSES = (
    (
        ("is locked", "busy"),
        "is locked by another program",
        "close what holds it open (a database browser, a copy under way)",
    ),
    (
        ("full", "disk i/o error", "too large"),
        FULL,
        "make room",
    ),
    (
        ("malformed", "not a database", "corrupt"),
        DAMAGED,
        "restore a backup with `python -m redline restore BACKUP`, or move it away to begin anew",
    ),
    (
        ("readonly", "unable to open", "permission"),
        "cannot be written",
        "check that the folder exists and that you may write there",
    ),
)


def explain_error(path: Path, error: Exception) -> StoreError:
    """Return what went wrong with the file, and what to do, in a sentence."""
    said = str(getattr(error, "orig", None) or error)
    for signs, what, todo in ERROR_CAUSES:
        if any(sign in said.lower() for sign in signs):
            return ERROR_KINDS.get(what, StoreError)(f"{path} {what} ({said}); {todo}")
    return StoreError(f"{path} cannot be used ({said})")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise the errors of the database as StoreErrors."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise explain_error(path, error) from error
