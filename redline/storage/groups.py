"""The stored groups of incidents."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row
from redline.storage.schema import groups_table


def write_groups(
    c: sa.Connection, rows: Sequence[Mapping[str, Any]], gone: Sequence[str] = ()
) -> None:
    """Insert or replace groups, each with its id and start, and delete those that are gone."""
    now = time.time()
    for id in (*gone, *(row["id"] for row in rows)):
        c.execute(groups_table.delete().where(groups_table.c.id == id))
    for row in rows:
        columns = {"id": row["id"], "start": row["start"], "body": json.dumps(row), "changed": now}
        c.execute(groups_table.insert().values(seal_row(groups_table, columns)))


def read_groups(c: sa.Connection) -> list[dict[str, Any]]:
    """Return all groups, oldest first."""
    query = sa.select(groups_table).order_by(groups_table.c.start, groups_table.c.id)
    rows = [verify_row(groups_table, row) for row in c.execute(query).mappings()]
    return [json.loads(row["body"]) for row in rows]
