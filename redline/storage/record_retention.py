"""The retention of records: lines of the audit log, settings, incidents, labels, maintenance.

Open incidents, and the newest settings and all labels of stored streams, are never deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from redline.storage.labels import DISMISSED_PREFIX
from redline.storage.schema import (
    applied_table,
    audit_table,
    incidents_table,
    labels_table,
    maintenance_table,
    meta_table,
    streams_table,
    watches_table,
)

RECORDS_AT_ONCE = 500  # rows of each table that one transaction deletes at most


class RecordLimits(NamedTuple):
    """Which records are too old, and how many of each kind stay."""

    oldest: float  # wall seconds
    rows: int


# deletes some records within a transaction; returns whether there may be more
RecordSweep = Callable[[sa.Connection, RecordLimits], bool]


def _stored_names() -> sa.Select[Any]:
    return sa.select(streams_table.c.name)


def _delete_some(c: sa.Connection, key: sa.Column[Any], *conditions: Any) -> bool:
    """Delete rows by their key, RECORDS_AT_ONCE at most; return whether there may be more."""
    some = sa.select(key).where(*conditions).order_by(key).limit(RECORDS_AT_ONCE)
    return c.execute(key.table.delete().where(key.in_(some))).rowcount == RECORDS_AT_ONCE


def _last_excess(c: sa.Connection, table: sa.Table, rows: int) -> int:
    """Return the highest number of a row that is one too many; numbers are given in order."""
    return int(c.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0) - rows


def sweep_audit_lines(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete lines of the audit log that are too old or too many, from the oldest on."""
    t = audit_table.c
    excess = _last_excess(c, audit_table, limits.rows)
    first = sa.select(t.id, t.at).order_by(t.id).limit(RECORDS_AT_ONCE)
    old = [row.id for row in c.execute(first) if row.at < limits.oldest or row.id <= excess]
    c.execute(audit_table.delete().where(t.id.in_(old)))
    return len(old) == RECORDS_AT_ONCE


def sweep_applied_settings(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete applied settings that are too many; the newest of each stored stream stay."""
    t = applied_table.c
    excess = _last_excess(c, applied_table, limits.rows)
    if excess <= 0:
        return False
    newest = sa.select(sa.func.max(t.id)).where(t.stream.in_(_stored_names())).group_by(t.stream)
    return _delete_some(c, t.id, t.id <= excess, t.id.not_in(newest))


def sweep_resolved_incidents(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete resolved incidents that did not change for too long, or are too many."""
    t = incidents_table.c
    resolved = t.state == "resolved"
    count = c.execute(sa.select(sa.func.count()).where(resolved)).scalar_one()
    first = sa.select(t.id, t.changed).where(resolved).order_by(t.changed).limit(RECORDS_AT_ONCE)
    old = [
        row.id
        for number, row in enumerate(c.execute(first))
        if row.changed < limits.oldest or number < count - limits.rows
    ]
    c.execute(incidents_table.delete().where(t.id.in_(old)))
    return len(old) == RECORDS_AT_ONCE


def sweep_settings_of_gone_streams(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete old applied settings of streams that are not stored any more."""
    t = applied_table.c
    return _delete_some(c, t.id, t.at < limits.oldest, t.stream.not_in(_stored_names()))


def sweep_labels_of_gone_streams(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete old labels of streams that are not stored any more."""
    t = labels_table.c
    return _delete_some(c, t.id, t.at < limits.oldest, t.stream.not_in(_stored_names()))


def sweep_past_windows(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete maintenance windows that were made and have ended long ago."""
    t = maintenance_table.c
    return _delete_some(c, t.id, t.at < limits.oldest, t.end < limits.oldest)


def sweep_dismissals_of_gone_streams(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete the dismissed proposals of streams that are neither stored nor labelled any more."""
    t = meta_table.c
    stream = sa.func.substr(t.name, len(DISMISSED_PREFIX) + 1)
    return _delete_some(
        c,
        t.name,
        t.name.startswith(DISMISSED_PREFIX, autoescape=True),
        stream.not_in(_stored_names()),
        stream.not_in(sa.select(labels_table.c.stream)),
    )


def sweep_watches_of_gone_streams(c: sa.Connection, limits: RecordLimits) -> bool:
    """Delete the watches of streams that are not stored any more and have no open incident."""
    t = watches_table.c
    unresolved = sa.select(incidents_table.c.stream).where(incidents_table.c.state != "resolved")
    return _delete_some(c, t.stream, t.stream.not_in(_stored_names()), t.stream.not_in(unresolved))


# what every pass of the retention deletes; the numbers and ages are found by an index
FREQUENT_SWEEPS: tuple[RecordSweep, ...] = (
    sweep_audit_lines,
    sweep_applied_settings,
    sweep_resolved_incidents,
)
# these look at a whole table each
RARE_SWEEPS: tuple[RecordSweep, ...] = (
    sweep_settings_of_gone_streams,
    sweep_labels_of_gone_streams,
    sweep_past_windows,
    sweep_dismissals_of_gone_streams,
    sweep_watches_of_gone_streams,
)
