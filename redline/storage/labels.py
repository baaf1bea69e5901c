"""The stored labels, with the proposals that were dismissed for them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row, write_meta
from redline.storage.schema import labels_table, meta_table

HIGHEST_LABEL_ID = "newest label"  # in the table meta: the highest id a label ever had
DISMISSED_PREFIX = "dismissed "  # in the table meta, before the name of a stream


def insert_label(
    c: sa.Connection,
    stream: str,
    span: tuple[float, float],
    kind: str,
    detail: Mapping[str, Any],
) -> int:
    """Store a label of a span (seconds since the epoch, both ends included); return its row id.

    `detail["id"]`, where given, is the label's own id; it replaces one that has it already.
    """
    row = {
        "stream": stream,
        "start": span[0],
        "end": span[1],
        "kind": kind,
        "body": json.dumps(dict(detail)),
        "at": time.time(),
    }
    own_id = detail.get("id", 0)
    if 0 < own_id <= highest_label_id(c):  # it may be there, where the answer to it was lost
        for row_id in find_label_rows(c, own_id, stream):
            c.execute(labels_table.delete().where(labels_table.c.id == row_id))
    key = c.execute(labels_table.insert().values(seal_row(labels_table, row))).inserted_primary_key
    _raise_highest_label_id(c, own_id)
    return int(key[0]) if key else 0


def find_label_rows(c: sa.Connection, id: int, stream: str | None = None) -> list[int]:
    """Return the row ids of the label with this own id, of any stream or of one: one, or none."""
    t = labels_table.c
    alike = sa.select(t.id, t.body).where(t.body.contains(f'"id": {int(id)}'))
    if stream is not None:
        alike = alike.where(t.stream == stream)
    return [row.id for row in c.execute(alike) if json.loads(row.body).get("id") == id]


def delete_label_row(c: sa.Connection, id: int) -> None:
    """Delete the label with this row id; an unknown one is no error."""
    own = labels_table.c.id == id
    body: Any = c.execute(sa.select(labels_table.c.body).where(own)).scalar()
    if body is None:
        return
    # files of an older version hold the highest id only in the labels themselves
    _raise_highest_label_id(c, json.loads(body).get("id", 0))
    c.execute(labels_table.delete().where(own))


def read_labels(c: sa.Connection, stream: str | None) -> list[dict[str, Any]]:
    """Return the labels of a stream, or of all, oldest first."""
    query = sa.select(labels_table).order_by(labels_table.c.start, labels_table.c.id)
    if stream is not None:
        query = query.where(labels_table.c.stream == stream)
    rows = [verify_row(labels_table, row) for row in c.execute(query).mappings()]
    return [row | {"body": json.loads(row["body"])} for row in rows]


def highest_label_id(c: sa.Connection) -> int:
    """Return the highest id that a label ever had; 0 = none is known."""
    query = sa.select(meta_table.c.value).where(meta_table.c.name == HIGHEST_LABEL_ID)
    return int(c.execute(query).scalar() or 0)


def _raise_highest_label_id(c: sa.Connection, id: int) -> None:
    """Store the id as the highest one where it is, so that no id is given twice."""
    own = meta_table.c.name == HIGHEST_LABEL_ID
    highest = c.execute(sa.select(meta_table.c.value).where(own)).scalar()
    if highest is None or id > int(highest):
        write_meta(c, HIGHEST_LABEL_ID, str(id))


def write_dismissed_proposal(c: sa.Connection, stream: str, ids: Sequence[int]) -> None:
    """Store the ids of the labels for which a stream's proposal of settings was dismissed."""
    write_meta(c, DISMISSED_PREFIX + stream, json.dumps(list(ids)))


def read_dismissed_proposals(c: sa.Connection) -> dict[str, list[int]]:
    """Return the label ids of each stream whose proposal was dismissed."""
    own = meta_table.c.name.startswith(DISMISSED_PREFIX, autoescape=True)
    rows = c.execute(sa.select(meta_table).where(own)).all()
    for row in rows:
        verify_row(meta_table, row._mapping)
    return {row.name.removeprefix(DISMISSED_PREFIX): json.loads(row.value) for row in rows}
