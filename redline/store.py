"""History that survives: points, anomalies, incidents, labels and applied settings in one SQLite file.

One writer, many readers (WAL). A commit is on the disk before it returns (synchronous FULL), so what is acknowledged survives a killed process and,
on a disk that keeps its word, a power cut. Points stand in chunks, a blob of float64 rows each: that is what 200,000 points a second need.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from redline.codec import REST, chunks_of, nan, number, packed, read_rows, settings_of, unpacked, written
from redline.ledger import Anomaly, Batch, Snapshot
from redline.settings import Settings

VERSION = 1  # of the tables below
JOIN = 64  # chunks of a stream that become one, so that points pushed one by one are read back fast
LABELLED = "newest label"  # in the table meta: the highest id that a person's label ever had
DISMISSED = "dismissed "  # before the name of a stream, in the table meta
JOURNAL = 1_000  # anomalies a restart shows again
SWEEP = 500  # chunks, late points and anomalies that one transaction of the retention looks at
SWEPT = 100_000  # points that it deletes at most, but for the rest of a chunk
SWEEP_EVERY = 60.0  # seconds between two passes of the retention
SWEEP_BUDGET = 0.05  # seconds that one turn of a pass may take; a transaction under way is finished
SWEEP_REST = 4.0  # times as long as its turn took, the retention then leaves the loop alone
PATIENCE = 2.0  # seconds a commit waits for somebody else's lock

log = logging.getLogger("redline")
tables = sa.MetaData()
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts its own rows by INTEGER only
meta = sa.Table("meta", tables, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String, nullable=False))
streams = sa.Table(
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
)
points = sa.Table(
    "points",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("stream", Id, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),  # absolute number of the first step
    sa.Column("n", sa.Integer, nullable=False),  # steps
    sa.Column("oldest", sa.Float, nullable=False),  # seconds since the epoch, of the first step
    sa.Column("newest", sa.Float, nullable=False),  # of the last
    sa.Column("arrived", sa.Float, nullable=False),  # wall seconds
    sa.Column("rows", sa.LargeBinary, nullable=False),  # (n, 3 + features) little-endian float64: time, score, alarm, values
    sa.Index("points_step", "stream", "first", unique=True),
    sa.Index("points_time", "stream", "newest", "n"),
)
late = sa.Table(
    "late",
    tables,
    sa.Column("stream", Id, primary_key=True),
    sa.Column("time", sa.Float, primary_key=True),  # seconds since the epoch
    sa.Column("arrived", sa.Float, nullable=False),
    sa.Column("x", sa.LargeBinary, nullable=False),  # (features,) little-endian float64
)
anomalies = sa.Table(
    "anomalies",
    tables,
    sa.Column("id", Id, primary_key=True, autoincrement=False),  # in the order found, over all streams
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
    sa.Index("anomalies_stream", "stream", "time"),
    sa.Index("anomalies_time", "time"),
)
incidents = sa.Table(
    "incidents",
    tables,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("body", sa.String, nullable=False),  # JSON, all of it
    sa.Column("changed", sa.Float, nullable=False),  # wall seconds
    sa.Index("incidents_stream", "stream", "start"),
    sa.Index("incidents_state", "state", "start"),
)
watches = sa.Table(
    "watches",
    tables,
    sa.Column("stream", sa.String, primary_key=True),
    sa.Column("body", sa.String, nullable=False),  # JSON, where the joining of alarms stands
)
labels = sa.Table(
    "labels",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("start", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("end", sa.Float, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # JSON: who, why
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    sa.Index("labels_stream", "stream", "start"),
)
applied = sa.Table(
    "applied",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("settings", sa.String, nullable=False),  # JSON
    sa.Index("applied_stream", "stream", "at"),
)
audit = sa.Table(
    "audit",
    tables,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),  # wall seconds
    sa.Column("who", sa.String, nullable=False),
    sa.Column("what", sa.String, nullable=False),
    sa.Column("stream", sa.String),
    sa.Column("detail", sa.String, nullable=False),  # JSON
)
snapshots = sa.Table(
    "snapshots",
    tables,
    sa.Column("stream", Id, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),  # the state stands before this step
    sa.Column("state", sa.LargeBinary, nullable=False),  # named arrays; empty = a new track begins here
)
MIGRATIONS: tuple[Sequence[str], ...] = ()  # the statements that lead from version 1 to 2, from 2 to 3, ...


class StoreError(OSError):
    """The store cannot do what it should: a sentence for a person, with what to do."""


class Keep(NamedTuple):
    """For how long things are kept."""

    days: float = 30.0  # of points and anomalies, since they came
    rows: int = 50_000_000  # points over all streams, about 35 bytes each


class Remembered(NamedTuple):
    """What a restart needs of a stream."""

    end: int  # steps committed
    first: int  # the step before which the state stands, and the first of the rows
    state: dict[str, np.ndarray]
    time: np.ndarray  # (end - first,) seconds since the epoch; (0,) where points are not kept
    x: np.ndarray  # (end - first, features)
    applied: Settings
    undone: list[Settings]
    names: tuple[str, ...]
    units: tuple[str, ...]
    origin: str
    counts: dict[str, Any]
    anomalies: list[tuple[Any, ...]]  # oldest first, the fields of the loop's Anomaly


class Points(NamedTuple):
    """Points of one stream, oldest first."""

    names: tuple[str, ...]
    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion, late ones too
    alarm: np.ndarray  # (n,)
    first: int | None = None  # absolute number of the first step; None = unknown, because late points lie between


class Query(NamedTuple):
    """Which anomalies; every field narrows the answer."""

    stream: str | None = None
    since: float | None = None  # seconds since the epoch
    until: float | None = None
    after: int | None = None  # an id: those found after it, oldest first
    before: int | None = None  # an id: those found before it, for the next page
    severities: tuple[str, ...] = ()
    alarms: bool = False  # only those that should call somebody
    feature: str | None = None
    limit: int = 100


Describe = Callable[[Anomaly, str], tuple[str, str]]  # (anomaly, unit) -> severity and reason, in words


def plain(anomaly: Anomaly, unit: str) -> tuple[str, str]:
    return "", ""


# --- the file

CAUSES = (
    (("is locked", "busy"), "is locked by another program", "close what holds it open (a database browser, a copy under way)"),
    (("full", "disk i/o error", "too large"), "cannot grow: its disk is full or its size is limited", "make room"),
    (
        ("malformed", "not a database", "corrupt"),
        "is damaged",
        "restore a backup with `python -m redline restore BACKUP`, or move it away to begin anew",
    ),
    (("readonly", "unable to open", "permission"), "cannot be written", "check that the folder exists and that you may write there"),
)


def explained(path: Path, error: Exception) -> StoreError:
    """What went wrong with the file, and what to do, as a sentence."""
    said = str(getattr(error, "orig", None) or error)
    for signs, what, todo in CAUSES:
        if any(sign in said.lower() for sign in signs):
            return StoreError(f"{path} {what} ({said}); {todo}")
    return StoreError(f"{path} cannot be used ({said})")


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """Turns the errors of the database into sentences."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise explained(path, error) from error


def engine(path: Path, write: bool) -> sa.Engine:
    """SQLAlchemy on the file; a transaction of the writer takes the lock at once, one of a reader sees one moment."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        for line in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16000") if write else ("query_only=ON",):
            connection.execute(f"PRAGMA {line}")
        return connection

    made = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.StaticPool if write else sa.pool.QueuePool)
    sa.event.listen(made, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN"))
    return made


def owned(path: Path) -> sqlite3.Connection:
    """Holds the file for this process: a second Redline on it would write every step twice. The lock goes with the process, whatever ends it."""
    lock = sqlite3.connect(f"{path}-owner", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if "locked" not in str(error):
            raise
        raise StoreError(f"{path} is in use by another Redline; stop that one, or choose another file with --db") from error
    return lock


def prepare(c: sa.Connection, path: Path) -> None:
    """Makes the tables, or brings those of an older version up to this one."""
    there = set(sa.inspect(c).get_table_names())
    if not there:
        tables.create_all(c)
        c.execute(meta.insert().values(name="version", value=str(VERSION)))
        return
    if "meta" not in there:
        raise StoreError(f"{path} is a database of another program; choose another file with --db")
    version = int(c.execute(sa.select(meta.c.value).where(meta.c.name == "version")).scalar_one())
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer Redline (tables {version}, this one knows {VERSION}); update Redline, or choose another file"
        )
    for statements in MIGRATIONS[version - 1 :]:
        for statement in statements:
            c.exec_driver_sql(statement)
    c.execute(meta.update().where(meta.c.name == "version").values(value=str(VERSION)))


class Known(NamedTuple):
    """What the writer remembers of a stream between commits."""

    id: int
    end: int
    settings: Settings | None
    tail: tuple[int, ...] = ()  # first steps of its newest small chunks, which follow one another
    upto: int = -1  # the step after them


class Store:
    """The file, open: `commit` from the loop's thread, everything else from any."""

    def __init__(self, path: str | Path, keep: Keep = Keep(), describe: Describe = plain, write: bool = True) -> None:  # noqa: B008  constants
        self.path, self.keep, self.describe = Path(path), keep, describe
        self.lock = threading.RLock()
        self.closed = False
        self.beside: Callable[[Sequence[Batch], Callable[[Any], None]], None] | None = None  # writes incidents within a commit
        self.known_streams: dict[str, Known] = {}
        self.total: int | None = None  # points stored
        self.cursor = 0  # the chunk the retention looked at last
        self.unfinished = False  # whether its pass goes on
        self.resume = 0.0  # monotonic seconds before which it does not
        self.swept = (time.monotonic(), time.time())  # of its last turn
        with speaking(self.path):
            if not write and not self.path.exists():
                raise StoreError(f"{self.path} does not exist; name the file that `python app.py --db` writes")
            self.owner = owned(self.path) if write else None
            try:
                self.open(write)
            except BaseException:
                self.close()
                raise

    def open(self, write: bool) -> None:
        self.reader = engine(self.path, write=False)
        if not write:
            return
        self.writer = engine(self.path, write=True)
        with self.writer.begin() as c:
            prepare(c, self.path)
            for id, name, end, settings in c.execute(sa.select(streams.c.id, streams.c.name, streams.c.end, streams.c.applied)):
                self.known_streams[name] = Known(id, end, settings_of(settings))

    def close(self) -> None:
        """Let go of the file, after a transaction under way; whoever asks later is refused."""
        with self.lock:
            self.closed = True
            for made in (getattr(self, "writer", None), getattr(self, "reader", None)):
                if made is not None:
                    made.dispose()
            if self.owner is not None:
                self.owner.close()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction of the writer: all of it or nothing."""
        with self.lock:
            self.refuse_closed()
            with speaking(self.path), self.writer.begin() as c:
                yield c

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One moment of the file."""
        self.refuse_closed()
        with speaking(self.path), self.reader.begin() as c:
            yield c

    def refuse_closed(self) -> None:
        """Raise a StoreError once the store is closed: its engines would open the file again, which may be another's."""
        if self.closed:
            raise StoreError(f"{self.path} is closed, because Redline ends; start it again")

    # --- what the loop writes

    def commit(self, batches: Sequence[Batch]) -> None:
        """Points, scores, anomalies, settings, positions and snapshots of these batches in one transaction, and what stands beside them."""
        with self.lock:
            before, total = dict(self.known_streams), self.total
            try:
                with self.writing() as c:
                    self.put(c, batches)
                    if self.beside:
                        self.beside(batches, lambda rows: self.put_incidents(c, rows))
            except BaseException:
                self.known_streams, self.total = before, total
                raise
        self.sweep_now_and_then()

    def put(self, c: sa.Connection, batches: Sequence[Batch]) -> None:
        by_name: dict[str, list[Batch]] = {}
        for batch in batches:
            by_name.setdefault(batch.name, []).append(batch)
        self.put_streams(c, by_name)
        self.put_points(c, by_name)
        self.put_snapshots(c, [(self.known_streams[batch.name].id, batch.snapshot) for batch in batches if batch.snapshot])
        late_rows = [self.late_rows(batch) for batch in batches if batch.late]
        if late_rows:
            c.execute(late.insert().prefix_with("OR IGNORE", dialect="sqlite"), [row for rows in late_rows for row in rows])
        found = [self.anomaly_row(batch, anomaly) for batch in batches for anomaly in batch.anomalies]
        if found:
            c.execute(anomalies.insert(), found)

    def put_streams(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """Position, counters and settings of each stream after its newest batch; a stream that begins anew forgets what it was."""
        changed: list[dict[str, Any]] = []
        history: list[dict[str, Any]] = []
        now = time.time()
        for name, batches in by_name.items():
            known, row = self.known_streams.get(name), self.stream_row(batches, now)
            if known is not None and known.end and any(batch.first == 0 and len(batch.time) for batch in batches):
                self.wipe(c, name, known.id)
            if known is None:
                id = c.execute(streams.insert().values(row)).inserted_primary_key
                known = Known(int(id[0]) if id else 0, 0, None)
            else:
                changed.append(row | {"key": known.id})
            settings = known.settings
            for batch in batches:
                if batch.applied != settings:
                    settings = batch.applied
                    history.append({"at": now, "stream": name, "settings": written(settings)})
            self.known_streams[name] = known._replace(end=row["end"], settings=settings)
        if changed:
            columns: dict[str, Any] = {column: sa.bindparam(column) for column in changed[0] if column != "key"}
            c.execute(streams.update().where(streams.c.id == sa.bindparam("key")).values(columns), changed)
        if history:
            c.execute(applied.insert(), history)

    def stream_row(self, batches: Sequence[Batch], now: float) -> dict[str, Any]:
        newest = batches[-1]
        row: dict[str, Any] = {"name": newest.name, "names": written(newest.names), "units": written(newest.units), "origin": newest.origin}
        row |= {"applied": written(newest.applied), "undone": f"[{', '.join(map(written, newest.undone))}]"}
        return row | {"counts": json.dumps(newest.counts), "end": newest.end, "pushed": newest.owed, "seen": now}

    def wipe(self, c: sa.Connection, name: str, id: int) -> None:
        for table in (points, late, snapshots):
            c.execute(table.delete().where(table.c.stream == id))
        c.execute(anomalies.delete().where(anomalies.c.stream == name))
        self.known_streams[name] = self.known_streams[name]._replace(tail=())
        self.total = None

    def put_points(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """One chunk for each run of steps; now and then the small ones become one."""
        now = time.time()
        news = {name: chunks_of([batch for batch in each if batch.kept and len(batch.time)]) for name, each in by_name.items()}
        rows = [chunk | {"stream": self.known_streams[name].id, "arrived": now} for name, chunks in news.items() for chunk in chunks]
        if not rows:
            return
        c.execute(points.insert(), rows)
        if self.total is not None:
            self.total += sum(row["n"] for row in rows)
        for name, chunks in news.items():
            known = self.known_streams[name]
            tail, upto = known.tail, known.upto
            for chunk in chunks:
                tail = (*(tail if chunk["first"] == upto else ()), chunk["first"]) if chunk["n"] < JOIN else ()
                upto = chunk["first"] + chunk["n"]
            if len(tail) >= JOIN // 2 + known.id % JOIN:  # not all streams in the same commit
                self.join(c, known.id, tail[0])
                tail = ()
            self.known_streams[name] = known._replace(tail=tail, upto=upto)

    def join(self, c: sa.Connection, id: int, first: int) -> None:
        """Make one chunk of those from a step on; the retention may have deleted the first of them."""
        those = (points.c.stream == id) & (points.c.first >= first)
        old = c.execute(sa.select(points).where(those).order_by(points.c.first)).all()
        if len(old) < 2:
            return
        whole = {"stream": id, "first": old[0].first, "n": sum(row.n for row in old), "rows": b"".join(row.rows for row in old)}
        c.execute(points.delete().where(those))
        c.execute(points.insert().values(whole | {"oldest": old[0].oldest, "newest": old[-1].newest, "arrived": old[-1].arrived}))

    def put_snapshots(self, c: sa.Connection, news: Sequence[tuple[int, Snapshot]]) -> None:
        """The new states (stream, snapshot) in their order; older ones go when a restart would not begin there any more."""
        standing: dict[int, list[Snapshot]] = {}
        for id, new in news:
            standing[id] = [*([] if new.anew else standing.get(id, [])), new]
        if not standing:
            return
        mine, step = snapshots.c.stream == sa.bindparam("id"), snapshots.c.step
        void = [{"id": id} for id, new in news if new.anew]
        if void:
            c.execute(snapshots.delete().where(mine), void)
        rows = [{"stream": id, "step": new.step, "state": packed(new.state)} for id, each in standing.items() for new in each]
        c.execute(snapshots.insert().prefix_with("OR REPLACE", dialect="sqlite"), rows)
        begin = sa.select(sa.func.max(step)).where(mine & (step <= sa.bindparam("since"))).scalar_subquery()
        c.execute(snapshots.delete().where(mine & (step < begin)), [{"id": id, "since": each[-1].since} for id, each in standing.items()])

    def late_rows(self, batch: Batch) -> list[dict[str, Any]]:
        id, now = self.known_streams[batch.name].id, time.time()
        return [
            {"stream": id, "time": moment, "arrived": now, "x": row.astype("<f8").tobytes()}
            for each in batch.late
            for moment, row in zip(each.time.tolist(), each.x)
        ]

    def anomaly_row(self, batch: Batch, a: Anomaly) -> dict[str, Any]:
        severity, reason = self.describe(a, batch.units[a.feature])
        row = {"id": a.id, "stream": batch.name, "number": a.number, "step": a.step, "time": a.time, "place": a.feature}
        row |= {"feature": batch.names[a.feature], "value": number(a.value), "low": number(a.low), "high": number(a.high), "score": a.score}
        return row | {"threshold": a.threshold, "run": a.run, "alarm": a.alarm, "severity": severity, "reason": reason, "found": time.time()}

    # --- what the loop asks for

    def newest(self) -> int:
        """The highest id of an anomaly; 0 where there is none."""
        with self.reading() as c:
            return int(c.execute(sa.select(sa.func.max(anomalies.c.id))).scalar() or 0)

    def pushed(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Name, features and units of the sources that programs pushed, the newest first."""
        asked = sa.select(streams.c.name, streams.c.names, streams.c.units).where(streams.c.pushed).order_by(streams.c.seen.desc(), streams.c.id)
        with self.reading() as c:
            return [(row.name, tuple(json.loads(row.names)), tuple(json.loads(row.units))) for row in c.execute(asked)]

    def restore(self, name: str) -> Remembered | None:
        """What a restart needs of a stream: the oldest snapshot there is and the rows since; None where nothing is known."""
        with self.reading() as c:
            about = c.execute(sa.select(streams).where(streams.c.name == name)).first()
            if about is None:
                return None
            state = c.execute(sa.select(snapshots).where(snapshots.c.stream == about.id).order_by(snapshots.c.step).limit(1)).first()
            first = state.step if state else about.end
            mine = (points.c.stream == about.id) & (points.c.first + points.c.n > first)
            chunks = c.execute(sa.select(points.c.first, points.c.rows).where(mine).order_by(points.c.first)).all()
            latest = sa.select(anomalies).where(anomalies.c.stream == name).order_by(anomalies.c.id.desc()).limit(JOURNAL)
            found = [journalled(row) for row in c.execute(latest)][::-1]
        names = tuple(json.loads(about.names))
        rows = read_rows([chunk.rows for chunk in chunks], len(names))
        rows = rows[first - chunks[0].first :] if chunks else rows
        if chunks and len(rows) != about.end - first:
            raise StoreError(f"{self.path} is damaged: {name} lacks steps between {first} and {about.end}; restore a backup")
        undone = [settings_of(json.dumps(each)) for each in json.loads(about.undone)]
        known = (settings_of(about.applied), undone, names, tuple(json.loads(about.units)), about.origin, json.loads(about.counts))
        return Remembered(about.end, first, unpacked(state.state if state else b""), rows[:, 0], rows[:, REST:], *known, found)

    def known(self, name: str, times: np.ndarray) -> np.ndarray:
        """Which of these times (n,), seconds since the epoch, a stream has a point of."""
        found = np.zeros(len(times), bool)
        with self.reading() as c:
            about = c.execute(sa.select(streams.c.id, streams.c.names).where(streams.c.name == name)).first()
            if about is None or not len(times):
                return found
            low, high, width = float(times.min()), float(times.max()), len(json.loads(about.names))
            chunk = (points.c.stream == about.id) & (points.c.newest >= low) & (points.c.oldest <= high)
            for (rows,) in c.execute(sa.select(points.c.rows).where(chunk)):
                found |= np.isin(times, read_rows([rows], width)[:, 0])
            aside = sa.select(late.c.time).where((late.c.stream == about.id) & late.c.time.between(low, high))
            return found | np.isin(times, c.execute(aside).scalars().all())

    # --- what people and programs ask for

    def points(self, name: str, since: float | None = None, until: float | None = None, limit: int = 10_000) -> Points | None:
        """Points of a stream, oldest first, times included: the first `limit` from `since` on, or without it the last ones. None: no such stream."""
        with self.reading() as c:
            about = c.execute(sa.select(streams.c.id, streams.c.names).where(streams.c.name == name)).first()
            if about is None:
                return None
            names, span = tuple(json.loads(about.names)), (nan_to(since, -np.inf), nan_to(until, np.inf))
            chunks = first_chunks(c, about.id, span, limit) if since is not None else last_chunks(c, about.id, span[1], limit)
            rows = read_rows([chunk.rows for chunk in chunks], len(names))
            inside = (rows[:, 0] >= span[0]) & (rows[:, 0] <= span[1])
            first = chunks[0].first + int(inside.argmax()) if inside.any() else None
            rows = rows[inside]
            low = span[0] if since is not None or len(rows) < limit else float(rows[0, 0])
            aside = late_points(c, about.id, (low, span[1]), limit)
        first = None if len(aside) else first
        rows = np.concatenate([rows, spread(aside, len(names))])
        rows = rows[np.argsort(rows[:, 0], kind="stable")] if len(aside) else rows
        skip = max(0, len(rows) - limit) if since is None else 0
        rows = rows[skip : skip + limit]
        return Points(names, rows[:, 0], rows[:, REST:], rows[:, 1], rows[:, 2], None if first is None else first + skip)

    def anomalies(self, query: Query = Query()) -> list[dict[str, Any]]:  # noqa: B008  constants
        """Anomalies, the newest first; oldest first after an id. `before` the last id of a page gives the next page."""
        t = anomalies.c
        wanted = [
            t.stream == query.stream if query.stream is not None else None,
            t.time >= query.since if query.since is not None else None,
            t.time <= query.until if query.until is not None else None,
            t.id > query.after if query.after is not None else None,
            t.id < query.before if query.before is not None else None,
            t.severity.in_(query.severities) if query.severities else None,
            t.alarm if query.alarms else None,
            t.feature == query.feature if query.feature is not None else None,
        ]
        asked = sa.select(anomalies).where(*[each for each in wanted if each is not None]).limit(query.limit)
        with self.reading() as c:
            return [dict(row) for row in c.execute(asked.order_by(t.id if query.after is not None else t.id.desc())).mappings()]

    def history(self, stream: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Applied settings, the newest first: at (wall seconds), stream, settings."""
        asked = sa.select(applied).order_by(applied.c.id.desc()).limit(limit)
        with self.reading() as c:
            rows = c.execute(asked if stream is None else asked.where(applied.c.stream == stream)).mappings()
            return [dict(row) | {"settings": json.loads(row["settings"])} for row in rows]

    def daily(self, stream: str, days: int = 30) -> list[tuple[int, int]]:
        """Anomalies a day, oldest first: (days since the epoch, how many), by the stream's own time."""
        day = sa.cast(anomalies.c.time / 86_400, sa.Integer)
        asked = sa.select(day, sa.func.count()).where(anomalies.c.stream == stream).group_by(day).order_by(day.desc()).limit(days)
        with self.reading() as c:
            return [(int(when), int(count)) for when, count in c.execute(asked)][::-1]

    def record(self, who: str, what: str, stream: str | None = None, detail: Mapping[str, Any] | None = None) -> None:
        """A line of the audit log; secrets do not belong into `detail`."""
        with self.writing() as c:
            c.execute(audit.insert().values(at=time.time(), who=who, what=what, stream=stream, detail=json.dumps(dict(detail or {}))))

    def audit(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The audit log, the newest first; `before` an id gives the next page."""
        asked = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        with self.reading() as c:
            rows = c.execute(asked if before is None else asked.where(audit.c.id < before)).mappings()
            return [dict(row) | {"detail": json.loads(row["detail"])} for row in rows]

    # --- incidents and labels, as those who join and judge them hand them in

    def put_incidents(self, c: sa.Connection, rows: Any) -> None:
        """Writes rows.incidents (each with id, stream, state, start) and rows.watches (each with stream), the newest word counts."""
        now = time.time()
        for row in rows.incidents:
            c.execute(incidents.delete().where(incidents.c.id == row["id"]))
            known = {name: row[name] for name in ("id", "stream", "state", "start")}
            c.execute(incidents.insert().values(**known, body=json.dumps(row), changed=now))
        for row in rows.watches:
            c.execute(watches.delete().where(watches.c.stream == row["stream"]))
            c.execute(watches.insert().values(stream=row["stream"], body=json.dumps(row)))

    def save_incidents(self, rows: Any) -> None:
        """The same in a transaction of its own: what a person did."""
        with self.writing() as c:
            self.put_incidents(c, rows)

    def incidents(self, limit: int = 2_000) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(incidents, watches): every one that is not resolved, and the newest of the others, oldest first."""
        alive = sa.select(incidents.c.id).where(incidents.c.state != "resolved")
        latest = sa.select(incidents.c.id).order_by(incidents.c.start.desc()).limit(limit)
        asked = sa.select(incidents.c.body).where(incidents.c.id.in_(alive) | incidents.c.id.in_(latest)).order_by(incidents.c.start)
        with self.reading() as c:
            stood = [json.loads(body) for body in c.execute(sa.select(watches.c.body)).scalars()]
            return [json.loads(body) for body in c.execute(asked).scalars()], stood

    def put_label(self, stream: str, span: tuple[float, float], kind: str, detail: Mapping[str, Any] | None = None) -> int:
        """A person's word on a span of a stream, seconds since the epoch, both ends included; its id."""
        row = {"stream": stream, "start": span[0], "end": span[1], "kind": kind, "body": json.dumps(dict(detail or {})), "at": time.time()}
        with self.writing() as c:
            id = c.execute(labels.insert().values(row)).inserted_primary_key
            self.given(c, (detail or {}).get("id", 0))
        return int(id[0]) if id else 0

    def drop_label(self, id: int) -> bool:
        """Takes a label back; whether there was one."""
        with self.writing() as c:
            body: Any = c.execute(sa.select(labels.c.body).where(labels.c.id == id)).scalar()
            if body is not None:
                self.given(c, json.loads(body).get("id", 0))  # a file from before has only the labels to tell
            return c.execute(labels.delete().where(labels.c.id == id)).rowcount > 0

    def given(self, c: sa.Connection, id: int) -> None:
        """Keep the highest id that a label ever had, so that it is never given again."""
        newest = c.execute(sa.select(meta.c.value).where(meta.c.name == LABELLED)).scalar()
        if newest is None:
            c.execute(meta.insert().values(name=LABELLED, value=str(id)))
        elif id > int(newest):
            c.execute(meta.update().where(meta.c.name == LABELLED).values(value=str(id)))

    def newest_label(self) -> int:
        """Return the highest id that a label ever had; 0 where none is known."""
        with self.reading() as c:
            return int(c.execute(sa.select(meta.c.value).where(meta.c.name == LABELLED)).scalar() or 0)

    def labels(self, stream: str | None = None) -> list[dict[str, Any]]:
        """People's labels, oldest first."""
        asked = sa.select(labels).order_by(labels.c.start)
        with self.reading() as c:
            rows = c.execute(asked if stream is None else asked.where(labels.c.stream == stream)).mappings()
            return [dict(row) | {"body": json.loads(row["body"])} for row in rows]

    def dismiss(self, stream: str, ids: Sequence[int]) -> None:
        """Keeps with which labels a proposal of settings was dismissed."""
        name = DISMISSED + stream
        with self.writing() as c:
            c.execute(meta.delete().where(meta.c.name == name))
            c.execute(meta.insert().values(name=name, value=json.dumps(list(ids))))

    def dismissed(self) -> dict[str, list[int]]:
        """The ids of the labels of each stream whose proposal was dismissed."""
        with self.reading() as c:
            rows = c.execute(sa.select(meta).where(meta.c.name.startswith(DISMISSED, autoescape=True))).all()
        return {row.name.removeprefix(DISMISSED): json.loads(row.value) for row in rows}

    # --- retention, backup

    def sweep_now_and_then(self) -> None:
        """Delete what is too old or too many: a pass once a minute, in short turns until it is done.

        A turn ends with its budget and the next one follows after a rest, so that commits go on between.
        After a jump of the clock nobody knows what is too old: the pass is put off.
        """
        ticks, wall = time.monotonic() - self.swept[0], time.time() - self.swept[1]
        if time.monotonic() < self.resume if self.unfinished else ticks < SWEEP_EVERY:
            return
        began = time.monotonic()
        self.swept = (began, time.time())
        if abs(wall - ticks) > SWEEP_EVERY:
            self.unfinished = False
            log.warning("the clock jumped by %.0f s; nothing is deleted by age until it is steady", wall - ticks)
            return
        try:
            self.sweep(time.time())
            while self.unfinished and time.monotonic() - began < SWEEP_BUDGET:
                self.sweep(time.time())
        except StoreError as error:
            self.unfinished = False
            log.warning("nothing old was deleted: %s", error)
        self.resume = time.monotonic() + SWEEP_REST * (time.monotonic() - began)

    def sweep(self, now: float) -> int:
        """Delete some of what is too old or too many, in one small transaction; return how many chunks went.

        What a restart needs stays. `unfinished` says whether there is more to look at; each call goes on after the last.
        """
        edge = now - 86_400 * self.keep.days
        with self.writing() as c:
            total, cursor, gone = self.sweep_points(c, edge)
            more = [self.sweep_late(c, edge), self.sweep_anomalies(c, edge), cursor > 0]
            c.exec_driver_sql("PRAGMA incremental_vacuum(1000)")
        self.total, self.cursor, self.unfinished = total, cursor, any(more)
        return gone

    def sweep_points(self, c: sa.Connection, edge: float) -> tuple[int, int, int]:
        """Delete chunks from the oldest on: (points left, the chunk to go on after or 0, how many chunks went)."""
        needed = sa.select(sa.func.min(snapshots.c.step)).where(snapshots.c.stream == points.c.stream).scalar_subquery()
        free = (points.c.first + points.c.n <= sa.func.coalesce(needed, 0)).label("free")
        oldest = sa.select(points.c.id, points.c.n, points.c.arrived, free).where(points.c.id > self.cursor)
        total = self.total
        if total is None:
            total = int(c.execute(sa.select(sa.func.sum(points.c.n))).scalar() or 0)
        least = total - SWEPT
        gone: list[int] = []
        cursor = self.cursor
        looked = c.execute(oldest.order_by(points.c.id).limit(SWEEP)).all()
        for row in looked:
            if row.arrived >= edge and total <= self.keep.rows:
                cursor = 0
                break
            if total <= least:
                break
            cursor = row.id
            if row.free:
                gone.append(row.id)
                total -= row.n
        else:
            cursor = cursor if len(looked) == SWEEP else 0  # fewer: the last chunk was among them
        c.execute(points.delete().where(points.c.id.in_(gone)))
        return total, cursor, len(gone)

    def sweep_late(self, c: sa.Connection, edge: float) -> bool:
        """Delete late points that are too old; whether there may be more."""
        key = sa.tuple_(late.c.stream, late.c.time)
        old = sa.select(late.c.stream, late.c.time).where(late.c.arrived < edge).limit(SWEEP)
        return c.execute(late.delete().where(key.in_(old))).rowcount == SWEEP

    def sweep_anomalies(self, c: sa.Connection, edge: float) -> bool:
        """Delete anomalies that are too old, never the newest, whose id a restart counts from; whether there may be more."""
        asked = sa.select(anomalies.c.id, anomalies.c.found).order_by(anomalies.c.id).limit(SWEEP)
        first = c.execute(asked).all()
        old = [row.id for row in first[:-1] if row.found < edge]
        c.execute(anomalies.delete().where(anomalies.c.id.in_(old)))
        return len(old) == SWEEP - 1

    def backup(self, path: str | Path) -> Path:
        """A whole copy of this moment, while everything goes on; a file that is there already is not touched."""
        self.refuse_closed()
        target = Path(path)
        if target.exists():
            raise StoreError(f"{target} is there already; name a new file for the backup")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        with speaking(target), self.reader.connect() as c:
            raw = c.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA query_only=OFF")
            try:
                raw.execute("VACUUM INTO ?", (str(part),))
            finally:
                raw.execute("PRAGMA query_only=ON")
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.rename(target)
        return target


def nan_to(value: float | None, bound: float) -> float:
    return bound if value is None else value


def journalled(row: Any) -> tuple[Any, ...]:
    """A row of the anomalies as the fields of the loop's Anomaly."""
    place = (row.number, row.step, row.time, row.place, nan(row.value), nan(row.low), nan(row.high))
    return (*place, row.score, row.threshold, row.run, row.alarm, row.id)


def first_chunks(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """The chunks, in order of time, that hold the first `limit` points of a span."""
    mine = (points.c.stream == id) & (points.c.newest >= span[0]) & (points.c.oldest <= span[1])
    return enough(c.execute(sa.select(points).where(mine).order_by(points.c.newest)), limit, span[0])


def last_chunks(c: sa.Connection, id: int, until: float, limit: int) -> list[Any]:
    """The chunks, in order of time, that hold the last `limit` points up to a time."""
    mine = points.c.stream == id
    over = sa.select(points).where(mine & (points.c.newest > until) & (points.c.oldest <= until)).order_by(points.c.newest).limit(1)
    edge = c.execute(over).all()
    under = sa.select(points).where(mine & (points.c.newest <= until)).order_by(points.c.newest.desc())
    return (enough(c.execute(under), limit, None)[::-1]) + list(edge)


def enough(found: sa.CursorResult[Any], limit: int, since: float | None) -> list[Any]:
    """Chunks until they hold `limit` points; the first one may begin before `since`, so it does not count."""
    chunks, held = [], 0
    for chunk in found:
        chunks.append(chunk)
        held += chunk.n if since is None or chunk.oldest >= since else 0
        if held >= limit:
            break
    found.close()
    return chunks


def late_points(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """Late points of a span, at most `limit`, the newest."""
    inside = (late.c.stream == id) & (late.c.time >= span[0]) & (late.c.time <= span[1])
    return list(c.execute(sa.select(late.c.time, late.c.x).where(inside).order_by(late.c.time.desc()).limit(limit)))


def spread(aside: Sequence[Any], features: int) -> np.ndarray:
    """Late points as rows (n, 3 + features), without a score."""
    rows = np.full((len(aside), REST + features), np.nan)
    for row, each in zip(rows, aside):
        row[0], row[REST:] = each.time, np.frombuffer(each.x, "<f8")
    return rows


def restore(backup: str | Path, path: str | Path) -> None:
    """Puts a backup in the place of a store that nobody has open; the one that was there is kept beside it as PATH.before."""
    source, target = Path(backup), Path(path)
    with speaking(source):
        checked = Store(source, write=False)
        with checked.reader.connect() as c:
            verdict = c.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
            there = set(sa.inspect(c).get_table_names())
        checked.close()
    if verdict != "ok" or "meta" not in there:
        raise StoreError(f"{source} is no whole backup of a store ({verdict}); choose another")
    with speaking(target):
        owner = owned(target)
    part = target.with_name(target.name + ".part")
    shutil.copyfile(source, part)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    if target.exists():
        target.replace(target.with_name(target.name + ".before"))
    for side in ("-wal", "-shm"):
        Path(f"{target}{side}").unlink(missing_ok=True)
    part.replace(target)
    owner.close()


class Shut:
    """Stands where a store could not be opened: nothing is acknowledged, every commit says why, the page goes on."""

    def __init__(self, why: StoreError) -> None:
        self.why = why

    def commit(self, batches: Sequence[Batch]) -> None:
        raise self.why

    def restore(self, name: str) -> Remembered | None:
        return None

    def pushed(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        return []

    def newest(self) -> int:
        return 0

    def known(self, name: str, times: np.ndarray) -> np.ndarray:
        return np.zeros(len(times), bool)

    def close(self) -> None:
        """Nothing is open."""
