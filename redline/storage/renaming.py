"""The renaming of stored sources that have a name which the page uses itself."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Container
from typing import Any

import sqlalchemy as sa

from redline.sources.pushed import RESERVED_NAMES
from redline.storage.schema import (
    anomalies_table,
    applied_table,
    audit_table,
    incidents_table,
    labels_table,
    meta_table,
    streams_table,
    watches_table,
)

DISMISSED_PREFIX = "dismissed "  # before the name of a stream, in the table meta
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
    c.execute(streams_table.update().where(streams_table.c.name == old).values(name=new))
    for table in (anomalies_table, applied_table):
        c.execute(table.update().where(table.c.stream == old).values(stream=new))
    for table in (incidents_table, watches_table, labels_table):
        _rename_bodies(c, table, old, new)
    named = meta_table.c.name == DISMISSED_PREFIX + old
    c.execute(meta_table.update().where(named).values(name=DISMISSED_PREFIX + new))
    row: dict[str, Any] = {"who": "redline", "what": "renamed a source", "stream": new}
    c.execute(audit_table.insert().values(**row, at=time.time(), detail=json.dumps({"from": old})))


def _rename_bodies(c: sa.Connection, table: sa.Table, old: str, new: str) -> None:
    """Rename the stream in the column and in the JSON of each row."""
    (key,) = table.primary_key.columns
    for id, body in c.execute(sa.select(key, table.c.body).where(table.c.stream == old)).all():
        changed = json.dumps({**json.loads(body), "stream": new})
        c.execute(table.update().where(key == id).values(stream=new, body=changed))
