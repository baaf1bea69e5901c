"""Statements that each database has in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

COPIED_ROWS = 8  # from so many on COPY is faster than a statement for each
COPIED_TYPES: dict[type[Any], str] = {  # as COPY calls them
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.Float: "float8",
    sa.String: "text",
    sa.Boolean: "bool",
    sa.LargeBinary: "bytea",
}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_many(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that have the same columns."""
    if c.dialect.name == "postgresql" and len(rows) >= COPIED_ROWS:
        copy_rows(c, table, rows)
    else:
        c.execute(table.insert(), rows)


def copy_rows(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by COPY in its binary form, which PostgreSQL alone has."""
    quote = c.dialect.identifier_preparer.quote
    names = list(rows[0])
    columns = ", ".join(map(quote, names))
    types = [COPIED_TYPES[type(table.c[name].type)] for name in names]
    connection = c.connection.driver_connection
    assert connection is not None
    statement = f"COPY {quote(table.name)} ({columns}) FROM STDIN (FORMAT BINARY)"
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row([row[name] for name in names])
    except c.dialect.loaded_dbapi.Error as error:
        lost = bool(connection.closed)
        if lost:
            c.invalidate()
        raise sa.exc.DBAPIError(statement, None, error, connection_invalidated=lost) from error


def insert_new(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those rows whose keys are not there."""
    c.execute(INSERTS[c.dialect.name](table).on_conflict_do_nothing(), rows)


def upsert(c: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; those whose keys are there are replaced."""
    insert = INSERTS[c.dialect.name](table)
    keys = [column.name for column in table.primary_key.columns]
    changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    c.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def truncate(c: sa.Connection, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a number that is not negative without its fraction."""
    # a cast rounds in PostgreSQL; SQLite may lack the function
    return sa.cast(value if c.dialect.name == "sqlite" else sa.func.floor(value), sa.BigInteger)
