"""The stored audit log."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row
from redline.storage.schema import audit_table


def insert_audit_line(
    c: sa.Connection, who: str, what: str, stream: str | None, detail: Mapping[str, Any]
) -> None:
    """Add a line to the audit log; `detail` must hold no secrets."""
    row = {
        "at": time.time(),
        "who": who,
        "what": what,
        "stream": stream,
        "detail": json.dumps(dict(detail)),
    }
    c.execute(audit_table.insert().values(seal_row(audit_table, row)))


def read_audit_log(c: sa.Connection, limit: int, before: int | None) -> list[dict[str, Any]]:
    """Return lines of the audit log, the newest first; with `before` those with a lower id."""
    query = sa.select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_table.c.id < before)
    rows = [verify_row(audit_table, row) for row in c.execute(query).mappings()]
    return [row | {"detail": json.loads(row["detail"])} for row in rows]
