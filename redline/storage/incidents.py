"""The stored incidents."""

from __future__ import annotations

import json
import time
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row
from redline.storage.schema import incidents_table, watches_table


def write_incidents(c: sa.Connection, rows: Any) -> None:
    """Insert or replace incidents and the state of their grouping.

    Args:
        c: a connection within a transaction.
        rows: has `incidents` (each with id, stream, state, start), `watches` (each with stream) and
            `dropped`, the streams whose watch is deleted; a later row replaces an earlier one with
            the same key.
    """
    now = time.time()
    for row in rows.incidents:
        c.execute(incidents_table.delete().where(incidents_table.c.id == row["id"]))
        columns = {name: row[name] for name in ("id", "stream", "state", "start")}
        columns |= {"body": json.dumps(row), "changed": now}
        c.execute(incidents_table.insert().values(seal_row(incidents_table, columns)))
    for row in rows.watches:
        c.execute(watches_table.delete().where(watches_table.c.stream == row["stream"]))
        columns = {"stream": row["stream"], "body": json.dumps(row)}
        c.execute(watches_table.insert().values(seal_row(watches_table, columns)))
    for stream in rows.dropped:
        c.execute(watches_table.delete().where(watches_table.c.stream == stream))


def read_incidents(
    c: sa.Connection, limit: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (incidents, watches): all unresolved incidents and the last `limit`, oldest first."""
    unresolved = sa.select(incidents_table.c.id).where(incidents_table.c.state != "resolved")
    last = sa.select(incidents_table.c.id).order_by(incidents_table.c.start.desc()).limit(limit)
    incidents = (
        sa.select(incidents_table)
        .where(incidents_table.c.id.in_(unresolved) | incidents_table.c.id.in_(last))
        .order_by(incidents_table.c.start, incidents_table.c.id)
    )
    queries = ((incidents_table, incidents), (watches_table, sa.select(watches_table)))
    found_incidents, found_watches = (
        [json.loads(verify_row(table, row)["body"]) for row in c.execute(query).mappings()]
        for table, query in queries
    )
    return found_incidents, found_watches
