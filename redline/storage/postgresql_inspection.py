"""What a database of a PostgreSQL server holds, read without changing it."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from redline.storage.postgresql_address import DatabaseAddress
from redline.storage.postgresql_session import LEASE_KEY
from redline.storage.schema import meta_table, points_table, segments_table, streams_table

# settings of a server that a store relies on, each "on"; "off" loses what was acknowledged, or
# never frees what the retention has deleted
NEEDED_SETTINGS = ("fsync", "full_page_writes", "autovacuum")
OWNERS = (
    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
    f"WHERE locktype = 'advisory' AND classid = {LEASE_KEY} AND granted "
    "AND d.datname = current_database()"
)


class DatabaseReport(NamedTuple):
    """What `inspect_database` found."""

    name: str  # of the database, as messages name it
    server: str  # version of PostgreSQL
    empty: bool  # whether it has no tables yet
    version: int | None  # of the tables; None = the database is no store of Redline
    bytes: int  # size of the database
    owned: bool  # whether a running Redline has the lease
    off: tuple[str, ...]  # those of NEEDED_SETTINGS that are off
    committed: float | None  # wall seconds of the newest commit of points; None = there is none
    newest: float | None  # seconds since the epoch, of the newest stored point


def inspect_database(db: str) -> DatabaseReport:
    """Return what a database is like, whether or not a Redline uses it.

    Raises:
        StoreError: it cannot be reached or read.
    """
    address = DatabaseAddress.parse(db)
    engine = address.make_engine(execution_options={"postgresql_readonly": True})
    try:
        with address.translate_errors(), engine.begin() as c:
            tables = set(sa.inspect(c).get_table_names())
            known = {"meta", "streams", "points", "segments"} <= tables
            own = sa.select(meta_table.c.value).where(meta_table.c.name == "version")
            version = str(c.execute(own).scalar() or "") if known else ""
            return DatabaseReport(
                name=address.name,
                server=str(c.exec_driver_sql("SHOW server_version").scalar()).split()[0],
                empty=not tables,
                version=int(version) if version.isdecimal() else None,
                bytes=int(c.execute(sa.select(_database_size())).scalar_one()),
                owned=bool(c.exec_driver_sql(OWNERS).scalar()),
                off=tuple(
                    name
                    for name in NEEDED_SETTINGS
                    if c.exec_driver_sql(f"SHOW {name}").scalar() == "off"
                ),
                committed=_highest(c, streams_table.c.seen, "arrived") if known else None,
                newest=_highest(c, points_table.c.newest, "newest") if known else None,
            )
    finally:
        engine.dispose()


def _database_size() -> sa.ColumnElement[int]:
    return sa.func.pg_database_size(sa.func.current_database())


def _highest(c: sa.Connection, column: sa.Column[float], of_segments: str) -> float | None:
    """Return the highest value of a column, also of the segments; None = there is none."""
    t = segments_table.c
    queries = (
        sa.select(sa.func.max(column)),
        sa.select(sa.func.max(t[of_segments])).where(t.n > 0),
    )
    found = (c.execute(query).scalar() for query in queries)
    return max((float(value) for value in found if value is not None), default=None)
