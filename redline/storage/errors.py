"""Errors of the store, explained in a sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


class StoreError(OSError):
    """The store cannot do what it should: a sentence for a person, with what to do."""


ERROR_CAUSES = (
    (
        ("is locked", "busy"),
        "is locked by another program",
        "close what holds it open (a database browser, a copy under way)",
    ),
    (
        ("full", "disk i/o error", "too large"),
        "cannot grow: its disk is full or its size is limited",
        "make room",
    ),
    (
        ("malformed", "not a database", "corrupt"),
        "is damaged",
        "restore a backup with `python -m redline restore BACKUP`, or move it away to begin anew",
    ),
    (
        ("readonly", "unable to open", "permission"),
        "cannot be written",
        "check that the folder exists and that you may write there",
    ),
)


def explain_error(path: Path, error: Exception) -> StoreError:
    """What went wrong with the file, and what to do, as a sentence."""
    said = str(getattr(error, "orig", None) or error)
    for signs, what, todo in ERROR_CAUSES:
        if any(sign in said.lower() for sign in signs):
            return StoreError(f"{path} {what} ({said}); {todo}")
    return StoreError(f"{path} cannot be used ({said})")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turns the errors of the database into sentences."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise explain_error(path, error) from error
