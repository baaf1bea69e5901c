"""Checksums of stored rows: added when a row is written, verified when it is read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa

from redline.storage.errors import StoreDamaged
from redline.storage.schema import (
    fleet_states_table,
    meta_table,
    parts_table,
    segments_table,
    tables,
)

VERIFIED_ROWS = 1_000  # rows fetched at once when the whole store is verified
VERIFIED_LARGE_ROWS = {parts_table: 16, fleet_states_table: 1}  # of tables with large ones
LARGEST_EXACT = 2**53  # whole numbers up to it are equal to their floats


@cache
def _sealed_columns(table: sa.Table) -> tuple[str, ...]:
    """Return the columns a checksum covers: not the row's own number, which the database gives."""
    return tuple(column.name for column in table.columns if column.name not in ("id", "crc"))


def _canonical(value: Any) -> Any:
    """Return a value as it is after the database: numbers as floats, bytes as their checksum."""
    if isinstance(value, bytes):
        return len(value), zlib.crc32(value)
    if isinstance(value, int | float) and abs(value) <= LARGEST_EXACT:
        return float(value)
    return value


def row_checksum(table: sa.Table, row: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a row's columns."""
    values = tuple(_canonical(row[name]) for name in _sealed_columns(table))
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def seal_row(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row to be written, with its checksum."""
    return {**row, "crc": row_checksum(table, row)}


def verify_row(table: sa.Table, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row that was read, without its checksum.

    Raises:
        StoreDamaged: the row is not what was written. A row of an older version has no checksum.
    """
    values = dict(row)
    crc = values.pop("crc")
    if crc is not None and crc != row_checksum(table, values):
        raise StoreDamaged(
            f"the store is damaged: a row of its table {table.name} does not match its checksum; "
            "restore a backup with `python -m redline restore BACKUP`"
        )
    return values


def rewrite_rows(
    c: sa.Connection,
    table: sa.Table,
    condition: sa.ColumnElement[bool],
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """Change columns of rows; `change` returns the new values of a row."""
    for found in c.execute(sa.select(table).where(condition)).mappings().all():
        row = verify_row(table, found)
        key = sa.and_(*(column == row[column.name] for column in table.primary_key.columns))
        changed = seal_row(table, {**row, **change(row)})
        c.execute(table.update().where(key).values(changed))


def write_meta(c: sa.Connection, name: str, value: str) -> None:
    """Insert or replace a row of the table meta."""
    c.execute(meta_table.delete().where(meta_table.c.name == name))
    c.execute(meta_table.insert().values(seal_row(meta_table, {"name": name, "value": value})))


def verify_store(c: sa.Connection, deep: bool) -> None:
    """Verify every row, and the structure of the file.

    Args:
        c: a connection that reads.
        deep: whether to compare the indices with their tables too, which takes longer.

    Raises:
        StoreDamaged: something is not as it was written.
    """
    verdict = c.exec_driver_sql(f"PRAGMA {'integrity_check' if deep else 'quick_check'}(1)")
    found = str(verdict.scalar())
    if found != "ok":
        raise StoreDamaged(
            f"the store is damaged ({found.splitlines()[0]}); restore a backup with "
            "`python -m redline restore BACKUP`"
        )
    verify_rows(c)


def verify_rows(c: sa.Connection) -> None:
    """Verify every row, and that none of fleets is missing; raise StoreDamaged.

    The tables of version 1 have no checksums.
    """
    inspector = sa.inspect(c)
    present = set(inspector.get_table_names())
    for table in tables.sorted_tables:
        columns = inspector.get_columns(table.name) if table.name in present else []
        if "crc" not in {column["name"] for column in columns}:
            continue
        at_once = VERIFIED_LARGE_ROWS.get(table, VERIFIED_ROWS)
        rows = c.execute(sa.select(table).execution_options(yield_per=at_once))
        for row in rows.mappings():
            verify_row(table, row)
    if segments_table.name in present:
        verify_segments(c)


def verify_segments(c: sa.Connection) -> None:
    """Verify that every visible segment has all its parts, and every part its segment.

    Raises:
        StoreDamaged: a row is missing.
    """
    own = parts_table.c.segment
    held = dict(c.execute(sa.select(own, sa.func.sum(parts_table.c.n)).group_by(own)).all())
    t = segments_table.c
    whole = all(
        held.pop(row.id, 0) == row.n or not row.visible
        for row in c.execute(sa.select(t.id, t.n, t.visible))
    )
    if held or not whole:
        raise StoreDamaged(
            "the store is damaged: points of fleets are missing; restore a backup with "
            "`python -m redline restore BACKUP`"
        )
