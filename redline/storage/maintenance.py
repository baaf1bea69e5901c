"""The stored maintenance windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row, write_meta
from redline.storage.schema import maintenance_table, meta_table

HIGHEST_WINDOW_ID = "newest maintenance window"  # in the table meta: the highest id ever used


def insert_window(c: sa.Connection, window: Mapping[str, Any]) -> None:
    """Store a maintenance window under its own id; it replaces one that has it already."""
    row = {
        **{name: window[name] for name in ("id", "stream", "start", "end", "at")},
        "body": json.dumps(dict(window)),
    }
    delete_window(c, window["id"])
    c.execute(maintenance_table.insert().values(seal_row(maintenance_table, row)))
    write_meta(c, HIGHEST_WINDOW_ID, str(window["id"]))


def delete_window(c: sa.Connection, id: int) -> None:
    """Delete the window with this id, which is not given again."""
    c.execute(maintenance_table.delete().where(maintenance_table.c.id == id))


def read_windows(c: sa.Connection) -> tuple[list[dict[str, Any]], int]:
    """Return the windows of all streams, oldest first, and the highest id ever used, 0 = none."""
    query = sa.select(maintenance_table).order_by(maintenance_table.c.id)
    rows = [verify_row(maintenance_table, row) for row in c.execute(query).mappings()]
    known = sa.select(meta_table.c.value).where(meta_table.c.name == HIGHEST_WINDOW_ID)
    return [json.loads(row["body"]) for row in rows], int(c.execute(known).scalar() or 0)
