"""The renaming of stored sources that have a name which the page uses itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping
from typing import Any

import sqlalchemy as sa

from redline.sources.pushed import RESERVED_NAMES
from redline.storage.audit import insert_audit_line
from redline.storage.checksums import rewrite_rows
from redline.storage.labels import DISMISSED_PREFIX
from redline.storage.schema import (
    anomalies_table,
    applied_table,
    incidents_table,
    labels_table,
    maintenance_table,
    meta_table,
    streams_table,
    watches_table,
)

_log = logging.getLogger("redline")


def rename_reserved_sources(c: sa.Connection) -> None:
    """Rename pushed sources of an older store that the page would take for its own tabs.

    Such a source was overwritten by an upload, or shown in place of the overview. Its history
    stays whole under the new name; what was recorded in the audit log keeps the old one.
    """
    names = set(c.execute(sa.select(streams_table.c.name)).scalars())
    pushed = sa.select(streams_table.c.name).where(streams_table.c.pushed)
    for old in sorted(RESERVED_NAMES.intersection(c.execute(pushed).scalars())):
        new = free_name(old, names)
        names.add(new)
        _rename_source(c, old, new)
        _log.warning(
            "the store has a source %r, a name that the page uses itself: its history is now that "
            "of %r; push to that name",
            old,
            new,
        )


def free_name(old: str, taken: Container[str]) -> str:
    """Return a name for a source that cannot keep its own.

    >>> free_name("wave", {"wave"}), free_name("wave", {"wave", "wave (pushed)"})
    ('wave (pushed)', 'wave (pushed 2)')
    """
    new = f"{old} (pushed)"
    count = 1
    while new in taken:
        count += 1
        new = f"{old} (pushed {count})"
    return new


def _rename_source(c: sa.Connection, old: str, new: str) -> None:
    """Give everything that is stored of a source another name."""
    rewrite_rows(c, streams_table, streams_table.c.name == old, lambda row: {"name": new})
    for table in (anomalies_table, applied_table):
        rewrite_rows(c, table, table.c.stream == old, lambda row: {"stream": new})

    def rename_in_body(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"stream": new, "body": json.dumps({**json.loads(row["body"]), "stream": new})}

    for table in (incidents_table, watches_table, labels_table, maintenance_table):
        rewrite_rows(c, table, table.c.stream == old, rename_in_body)
    named = meta_table.c.name == DISMISSED_PREFIX + old
    rewrite_rows(c, meta_table, named, lambda row: {"name": DISMISSED_PREFIX + new})
    insert_audit_line(c, "redline", "renamed a source", new, {"from": old})
