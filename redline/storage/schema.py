"""The schema of the store and its migrations."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from redline.storage.errors import StoreError

SCHEMA_VERSION = 5  # of the tables below
tables = sa.MetaData()
# SQLite counts its own rows by INTEGER only
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def checksum_column() -> sa.Column[int]:
    """Return the column of a row's checksum; NULL in rows of version 1."""
    return sa.Column("crc", sa.BigInteger)


def name_indices(name: str, column: str, *more: str) -> tuple[sa.Index, sa.Index]:
    """Return the index of a column of names, for either database.

    An ordered index of PostgreSQL refuses a text of more than 2,700 bytes, and with it the commit;
    the name of a series may be longer.
    """
    hashed = sa.Index(name, column, postgresql_using="hash")
    ordered = sa.Index(name, column, *more)
    return ordered.ddl_if(dialect="sqlite"), hashed.ddl_if(dialect="postgresql")


def name_key(name: str, column: str) -> tuple[sa.Constraint, sa.Index]:
    """Return the primary key of names in SQLite, and the index in its place in PostgreSQL."""
    key = sa.PrimaryKeyConstraint(column)
    hashed = sa.Index(name, column, postgresql_using="hash")
    return key.ddl_if(dialect="sqlite"), hashed.ddl_if(dialect="postgresql")


meta_table = sa.Table(
    "meta",
    tables,
    sa.Column("name", sa.String, nullable=False),
    sa.Column("value", sa.String, nullable=False),
    checksum_column(),
    *name_key("meta_name", "name"),
)
streams_table = sa.Table(
    "streams",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("names", sa.String, nullable=False),  # JSON, of the features
    sa.Column("units", sa.String, nullable=False),  # JSON
    sa.Column("origin", sa.String, nullable=False),  # JSON, what the numbers depend on
    sa.Column("applied", sa.String, nullable=False),  # JSON, the settings
    sa.Column("undone", sa.String, nullable=False),  # JSON, those applied before, newest last
    sa.Column("counts", sa.String, nullable=False),  # JSON, the counters
    sa.Column("end", sa.BigInteger, nullable=False),  # steps committed
    sa.Column("pushed", sa.Boolean, nullable=False),  # whether programs push it in
    sa.Column("seen", sa.Float, nullable=False),  # wall seconds of the last commit
    checksum_column(),
)
points_table = sa.Table(
    "points",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("stream", Id, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),  # absolute number of the first step
    sa.Column("n", sa.Integer, nullable=False),  # steps
    sa.Column("oldest", sa.Float, nullable=False),  # seconds since the epoch, of the first step
    sa.Column("newest", sa.Float, nullable=False),  # of the last
    sa.Column("arrived", sa.Float, nullable=False),  # wall seconds
    sa.Column(
        "rows", sa.LargeBinary, nullable=False
    ),  # (n, 3 + features) little-endian float64: time, score, alarm, values
    checksum_column(),
    sa.Index("points_step", "stream", "first", unique=True),
    sa.Index("points_time", "stream", "newest", "n"),
)
late_table = sa.Table(
    "late",
    tables,
    sa.Column("stream", Id, primary_key=True),
    sa.Column("time", sa.Float, primary_key=True),  # seconds since the epoch
    sa.Column("arrived", sa.Float, nullable=False),
    sa.Column("x", sa.LargeBinary, nullable=False),  # (features,) little-endian float64
    checksum_column(),
)
anomalies_table = sa.Table(
    "anomalies",
    tables,
    sa.Column(
        "id", Id, primary_key=True, autoincrement=False
    ),  # in the order found, over all streams
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),  # counts those of its stream
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("time", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("place", sa.Integer, nullable=False),  # of the feature among the stream's
    sa.Column("feature", sa.String, nullable=False),
    sa.Column("value", sa.Float),  # the feature's unit; NULL = missing
    sa.Column("low", sa.Float),  # expected range; NULL = the detector has no band
    sa.Column("high", sa.Float),
    sa.Column("score", sa.Float, nullable=False),  # standard deviations
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("run", sa.BigInteger, nullable=False),  # anomalous steps in a row
    sa.Column("alarm", sa.Boolean, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("found", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
    *name_indices("anomalies_stream", "stream", "time"),
    sa.Index("anomalies_time", "time"),
)
incidents_table = sa.Table(
    "incidents",
    tables,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("body", sa.String, nullable=False),  # JSON, all of it
    sa.Column("changed", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
    *name_indices("incidents_stream", "stream", "start"),
    sa.Index("incidents_state", "state", "start"),
    sa.Index("incidents_changed", "state", "changed"),
)
watches_table = sa.Table(
    "watches",
    tables,
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # JSON, where the joining of alarms stands
    checksum_column(),
    *name_key("watches_stream", "stream"),
)
labels_table = sa.Table(
    "labels",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("end", sa.Float, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # JSON: who, why
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
    *name_indices("labels_stream", "stream", "start"),
)
applied_table = sa.Table(
    "applied",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("settings", sa.String, nullable=False),  # JSON
    checksum_column(),
    *name_indices("applied_stream", "stream", "at"),
)
audit_table = sa.Table(
    "audit",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    sa.Column("who", sa.String, nullable=False),
    sa.Column("what", sa.String, nullable=False),
    sa.Column("stream", sa.String),
    sa.Column("detail", sa.String, nullable=False),  # JSON
    checksum_column(),
)
snapshots_table = sa.Table(
    "snapshots",
    tables,
    sa.Column("stream", Id, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),  # the state stands before this step
    sa.Column(
        "state", sa.LargeBinary, nullable=False
    ),  # named arrays; empty = a new track begins here
    checksum_column(),
)
TABLES_BEFORE_CHECKSUMS = tuple(tables.tables)  # of version 1; newer tables follow
maintenance_table = sa.Table(
    "maintenance",
    tables,
    sa.Column("id", Id, primary_key=True, autoincrement=False),  # of the window
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("end", sa.Float, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # JSON: who, why
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
)
series_table = sa.Table(
    "series",
    tables,
    sa.Column("number", Id, primary_key=True, autoincrement=False),  # never given twice
    sa.Column("name", sa.String, nullable=False),
    sa.Column("settings", sa.String, nullable=False),  # JSON, those applied now
    sa.Column("creator", sa.String, nullable=False),  # who sent its first points
    sa.Column("opened", sa.Float, nullable=False),  # wall seconds
    sa.Column("forgotten", sa.Boolean, nullable=False),  # not watched until it sends again
    checksum_column(),
    sa.UniqueConstraint("name").ddl_if(dialect="sqlite"),
    sa.Index("series_name", sa.func.md5(sa.text("name")), unique=True).ddl_if(dialect="postgresql"),
)
fleet_states_table = sa.Table(
    "fleet_states",
    tables,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("commit", sa.BigInteger, nullable=False),  # the states hold its steps
    sa.Column("settings", sa.String, nullable=False),  # JSON, of the fleet
    sa.Column("series", sa.LargeBinary, nullable=False),  # (n,) little-endian int64
    sa.Column("arrays", sa.LargeBinary, nullable=False),  # named arrays
    checksum_column(),
)
segments_table = sa.Table(
    "segments",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("level", sa.Integer, nullable=False),  # how often its points were merged
    sa.Column("visible", sa.Boolean, nullable=False),  # False = being built or being deleted
    sa.Column("n", sa.BigInteger, nullable=False),  # points
    sa.Column("oldest", sa.Float, nullable=False),  # seconds since the epoch, of its points
    sa.Column("newest", sa.Float, nullable=False),
    sa.Column("commit", sa.BigInteger, nullable=False),  # number of the newest commit in it
    sa.Column("began", sa.Float, nullable=False),  # wall seconds, of its oldest commit
    sa.Column("arrived", sa.Float, nullable=False),  # wall seconds, of its newest commit
    checksum_column(),
)
parts_table = sa.Table(
    "parts",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("segment", Id, nullable=False),
    sa.Column("first_series", sa.BigInteger, nullable=False),
    sa.Column("last_series", sa.BigInteger, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),  # points
    sa.Column("oldest", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("newest", sa.Float, nullable=False),
    sa.Column("rows", sa.LargeBinary, nullable=False),  # see redline/storage/series_codec.py
    checksum_column(),
    sa.Index("parts_series", "segment", "last_series", "first_series", "oldest", "newest", "n"),
)


@sa.event.listens_for(points_table, "after_create")
@sa.event.listens_for(parts_table, "after_create")
def _store_as_it_is(target: sa.Table, c: sa.Connection, **more: object) -> None:
    """Keep PostgreSQL from compressing points, which takes longer than to store them."""
    if c.dialect.name == "postgresql":
        c.exec_driver_sql(f'ALTER TABLE {target.name} ALTER COLUMN "rows" SET STORAGE EXTERNAL')


groups_table = sa.Table(
    "groups",
    tables,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch, of the first member
    sa.Column("body", sa.String, nullable=False),  # JSON, all of it
    sa.Column("changed", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
)
rules_table = sa.Table(
    "rules",
    tables,
    sa.Column("id", Id, primary_key=True, autoincrement=False),  # of the rule, never given twice
    sa.Column("body", sa.String, nullable=False),  # JSON: the selector, the settings, who
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    checksum_column(),
)
FLEET_TABLES = (series_table, fleet_states_table, segments_table, parts_table)


# the statements and new tables that lead from version 1 to 2, from 2 to 3, ...
MIGRATIONS: tuple[Sequence[sa.TextClause | sa.Table], ...] = (
    tuple(sa.text(f"ALTER TABLE {name} ADD COLUMN crc BIGINT") for name in TABLES_BEFORE_CHECKSUMS),
    (maintenance_table,),
    FLEET_TABLES,
    (groups_table, rules_table),
)


def prepare_schema(c: sa.Connection, name: str) -> None:
    """Create the tables, or migrate those of an older version.

    Raises:
        StoreError: the database is of another program, or of a newer version.
    """
    there = set(sa.inspect(c).get_table_names())
    if not there:
        tables.create_all(c)
        c.execute(meta_table.insert().values(name="version", value=str(SCHEMA_VERSION)))
        return
    if "meta" not in there:
        raise StoreError(f"{name} is a database of another program; choose another file with --db")
    version = int(
        c.execute(sa.select(meta_table.c.value).where(meta_table.c.name == "version")).scalar_one()
    )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{name} was written by a newer Redline (tables {version}, this one knows "
            f"{SCHEMA_VERSION}); update Redline, or choose another file"
        )
    for statements in MIGRATIONS[version - 1 :]:
        for change in statements:
            if isinstance(change, sa.Table):
                change.create(c)
            else:
                c.execute(change)
    # an index is no new version: an older Redline keeps it up to date without knowing it
    for index in incidents_table.indexes:
        index.create(c, checkfirst=True)
    c.execute(
        meta_table.update().where(meta_table.c.name == "version").values(value=str(SCHEMA_VERSION))
    )
