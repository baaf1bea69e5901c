"""History that survives: points, anomalies, incidents, labels and applied settings in one SQLite
file.

One writer, many readers (WAL). A commit is on the disk before it returns (synchronous FULL), so
what is acknowledged survives a killed process and, on a disk that keeps its word, a power cut.
Points stand in chunks, a blob of float64 rows each: that is what 200,000 points a second need.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from redline.engine.results import Anomaly, Batch, RestoredStream, ResultStore, Snapshot
from redline.settings import Settings
from redline.storage.encoding import (
    ROW_HEADER,
    decode_rows,
    encode_chunks,
    finite_or_none,
    journal_row,
    late_matrix,
    none_to_bound,
    pack_state,
    settings_from_json,
    settings_json,
    unpack_state,
)
from redline.storage.errors import StoreError, translate_errors
from redline.storage.renaming import DISMISSED_PREFIX, rename_reserved_sources
from redline.storage.schema import (
    anomalies_table,
    applied_table,
    audit_table,
    incidents_table,
    labels_table,
    late_table,
    meta_table,
    points_table,
    prepare_schema,
    snapshots_table,
    streams_table,
    watches_table,
)

MERGED_CHUNKS = (
    64  # chunks of a stream that become one, so that points pushed one by one are read back fast
)
NEWEST_LABEL = "newest label"  # in the table meta: the highest id that a person's label ever had
RESTORED_ANOMALIES = 1_000  # anomalies a restart shows again
SWEEP_CHUNKS = (
    500  # chunks, late points and anomalies that one transaction of the retention looks at
)
SWEPT = 100_000  # points that it deletes at most, but for the rest of a chunk
SWEEP_EVERY = 60.0  # seconds between two passes of the retention
SWEEP_BUDGET = 0.05  # seconds that one turn of a pass may take; a transaction under way is finished
SWEEP_REST = 4.0  # times as long as its turn took, the retention then leaves the loop alone
LOCK_TIMEOUT = 2.0  # seconds a commit waits for another one's lock
_log = logging.getLogger("redline")


class Retention(NamedTuple):
    """For how long things are kept."""

    days: float = 30.0  # of points and anomalies, since they came
    rows: int = 50_000_000  # points over all streams, about 35 bytes each


class StoredPoints(NamedTuple):
    """Points of one stream, oldest first."""

    names: tuple[str, ...]
    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion, late ones too
    alarm: np.ndarray  # (n,)
    first: int | None = (
        None  # absolute number of the first step; None = unknown, because late points lie between
    )


class AnomalyQuery(NamedTuple):
    """Which anomalies; every field narrows the answer."""

    stream: str | None = None
    since: float | None = None  # seconds since the epoch
    until: float | None = None
    after: int | None = None  # an id: those found after it, oldest first
    before: int | None = None  # an id: those found before it, for the next page
    severities: tuple[str, ...] = ()
    alarms: bool = False  # only those that raised an alarm
    feature: str | None = None
    limit: int = 100


def create_engine(path: Path, write: bool) -> sa.Engine:
    """SQLAlchemy on the file; a transaction of the writer takes the lock at once, one of a reader
    sees one moment.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        for line in (
            ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16000")
            if write
            else ("query_only=ON",)
        ):
            connection.execute(f"PRAGMA {line}")
        return connection

    made = sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.pool.StaticPool if write else sa.pool.QueuePool
    )
    sa.event.listen(
        made, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
    )
    return made


def acquire_owner_lock(path: Path) -> sqlite3.Connection:
    """Holds the file for this process: a second Redline on it would write every step twice. The
    lock goes with the process, whatever ends it.
    """
    lock = sqlite3.connect(
        f"{path}-owner", timeout=0, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if "locked" not in str(error):
            raise
        raise StoreError(
            f"{path} is in use by another Redline; stop that one, or choose another file with --db"
        ) from error
    return lock


class KnownStream(NamedTuple):
    """What the writer remembers of a stream between commits."""

    id: int
    end: int
    settings: Settings | None
    tail: tuple[int, ...] = ()  # first steps of its newest small chunks, which follow one another
    upto: int = -1  # the step after them


AlsoWrite = Callable[[Callable[[Any], None]], None]


class SqliteStore(ResultStore):
    """The file, open: `commit` from the loop's thread, everything else from any."""

    def __init__(
        self,
        path: str | Path,
        keep: Retention = Retention(),  # noqa: B008
        write: bool = True,
    ) -> None:
        self.path = Path(path)
        self.keep = keep
        self.lock = threading.RLock()
        self.closed = False
        self.known_streams: dict[str, KnownStream] = {}
        self.total: int | None = None  # points stored
        self.cursor = 0  # the chunk the retention looked at last
        self.unfinished = False  # whether its pass goes on
        self.resume = 0.0  # monotonic seconds before which it does not
        self.swept = (time.monotonic(), time.time())  # of its last turn
        with translate_errors(self.path):
            if not write and not self.path.exists():
                raise StoreError(
                    f"{self.path} does not exist; name the file that `python app.py --db` writes"
                )
            self.owner = acquire_owner_lock(self.path) if write else None
            try:
                self.open(write)
            except BaseException:
                self.close()
                raise

    def open(self, write: bool) -> None:
        self.reader = create_engine(self.path, write=False)
        if not write:
            return
        self.writer = create_engine(self.path, write=True)
        with self.writer.begin() as c:
            prepare_schema(c, self.path)
            rename_reserved_sources(c)
            for id, name, end, settings in c.execute(
                sa.select(
                    streams_table.c.id,
                    streams_table.c.name,
                    streams_table.c.end,
                    streams_table.c.applied,
                )
            ):
                self.known_streams[name] = KnownStream(id, end, settings_from_json(settings))

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
            with translate_errors(self.path), self.writer.begin() as c:
                yield c

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One moment of the file."""
        self.refuse_closed()
        with translate_errors(self.path), self.reader.begin() as c:
            yield c

    def refuse_closed(self) -> None:
        """Raise a StoreError once the store is closed: its engines would open the file again, which
        may be another's.
        """
        if self.closed:
            raise StoreError(f"{self.path} is closed, because Redline ends; start it again")

    # --- what the loop writes

    def commit(self, batches: Sequence[Batch], also: AlsoWrite | None = None) -> None:
        """Store points, scores, anomalies, settings and snapshots in one transaction.

        `also` is called within it, with the function that writes rows of incidents.
        """
        with self.lock:
            before = dict(self.known_streams)
            total = self.total
            try:
                with self.writing() as c:
                    self.put(c, batches)
                    if also:
                        also(lambda rows: self.put_incidents(c, rows))
            except BaseException:
                self.known_streams = before
                self.total = total
                raise
        self.sweep_now_and_then()

    def put(self, c: sa.Connection, batches: Sequence[Batch]) -> None:
        by_name: dict[str, list[Batch]] = {}
        for batch in batches:
            by_name.setdefault(batch.name, []).append(batch)
        self.put_streams(c, by_name)
        self.put_points(c, by_name)
        self.put_snapshots(
            c,
            [
                (self.known_streams[batch.name].id, batch.snapshot)
                for batch in batches
                if batch.snapshot
            ],
        )
        late_rows = [self.late_rows(batch) for batch in batches if batch.late]
        if late_rows:
            c.execute(
                late_table.insert().prefix_with("OR IGNORE", dialect="sqlite"),
                [row for rows in late_rows for row in rows],
            )
        found = [
            self.anomaly_row(batch, anomaly) for batch in batches for anomaly in batch.anomalies
        ]
        if found:
            c.execute(anomalies_table.insert(), found)

    def put_streams(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """Position, counters and settings of each stream after its newest batch; a stream that
        begins anew forgets what it was.
        """
        changed: list[dict[str, Any]] = []
        history: list[dict[str, Any]] = []
        now = time.time()
        for name, batches in by_name.items():
            known = self.known_streams.get(name)
            row = self.stream_row(batches, now)
            if (
                known is not None
                and known.end
                and any(batch.first == 0 and len(batch.time) for batch in batches)
            ):
                self.wipe(c, name, known.id)
            if known is None:
                id = c.execute(streams_table.insert().values(row)).inserted_primary_key
                known = KnownStream(int(id[0]) if id else 0, 0, None)
            else:
                changed.append(row | {"key": known.id})
            settings = known.settings
            for batch in batches:
                if batch.applied != settings:
                    settings = batch.applied
                    history.append({"at": now, "stream": name, "settings": settings_json(settings)})
            self.known_streams[name] = known._replace(end=row["end"], settings=settings)
        if changed:
            columns: dict[str, Any] = {
                column: sa.bindparam(column) for column in changed[0] if column != "key"
            }
            c.execute(
                streams_table.update()
                .where(streams_table.c.id == sa.bindparam("key"))
                .values(columns),
                changed,
            )
        if history:
            c.execute(applied_table.insert(), history)

    def stream_row(self, batches: Sequence[Batch], now: float) -> dict[str, Any]:
        newest = batches[-1]
        row: dict[str, Any] = {
            "name": newest.name,
            "names": settings_json(newest.names),
            "units": settings_json(newest.units),
            "origin": newest.origin,
        }
        row |= {
            "applied": settings_json(newest.applied),
            "undone": f"[{', '.join(map(settings_json, newest.undone))}]",
        }
        return row | {
            "counts": json.dumps(newest.counts),
            "end": newest.end,
            "pushed": newest.owed,
            "seen": now,
        }

    def wipe(self, c: sa.Connection, name: str, id: int) -> None:
        for table in (points_table, late_table, snapshots_table):
            c.execute(table.delete().where(table.c.stream == id))
        c.execute(anomalies_table.delete().where(anomalies_table.c.stream == name))
        self.known_streams[name] = self.known_streams[name]._replace(tail=())
        self.total = None

    def put_points(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """One chunk for each run of steps; now and then the small ones become one."""
        now = time.time()
        news = {
            name: encode_chunks([batch for batch in each if batch.kept and len(batch.time)])
            for name, each in by_name.items()
        }
        rows = [
            chunk | {"stream": self.known_streams[name].id, "arrived": now}
            for name, chunks in news.items()
            for chunk in chunks
        ]
        if not rows:
            return
        c.execute(points_table.insert(), rows)
        if self.total is not None:
            self.total += sum(row["n"] for row in rows)
        for name, chunks in news.items():
            known = self.known_streams[name]
            tail = known.tail
            upto = known.upto
            for chunk in chunks:
                tail = (
                    (*(tail if chunk["first"] == upto else ()), chunk["first"])
                    if chunk["n"] < MERGED_CHUNKS
                    else ()
                )
                upto = chunk["first"] + chunk["n"]
            if (
                len(tail) >= MERGED_CHUNKS // 2 + known.id % MERGED_CHUNKS
            ):  # not all streams in the same commit
                self.join(c, known.id, tail[0])
                tail = ()
            self.known_streams[name] = known._replace(tail=tail, upto=upto)

    def join(self, c: sa.Connection, id: int, first: int) -> None:
        """Make one chunk of those from a step on; the retention may have deleted the first of
        them.
        """
        those = (points_table.c.stream == id) & (points_table.c.first >= first)
        old = c.execute(sa.select(points_table).where(those).order_by(points_table.c.first)).all()
        if len(old) < 2:
            return
        whole = {
            "stream": id,
            "first": old[0].first,
            "n": sum(row.n for row in old),
            "rows": b"".join(row.rows for row in old),
        }
        c.execute(points_table.delete().where(those))
        c.execute(
            points_table.insert().values(
                whole
                | {"oldest": old[0].oldest, "newest": old[-1].newest, "arrived": old[-1].arrived}
            )
        )

    def put_snapshots(self, c: sa.Connection, news: Sequence[tuple[int, Snapshot]]) -> None:
        """The new states (stream, snapshot) in their order; older ones go when a restart would not
        begin there any more.
        """
        standing: dict[int, list[Snapshot]] = {}
        for id, new in news:
            standing[id] = [*([] if new.anew else standing.get(id, [])), new]
        if not standing:
            return
        mine = snapshots_table.c.stream == sa.bindparam("id")
        step = snapshots_table.c.step
        void = [{"id": id} for id, new in news if new.anew]
        if void:
            c.execute(snapshots_table.delete().where(mine), void)
        rows = [
            {"stream": id, "step": new.step, "state": pack_state(new.state)}
            for id, each in standing.items()
            for new in each
        ]
        c.execute(snapshots_table.insert().prefix_with("OR REPLACE", dialect="sqlite"), rows)
        begin = (
            sa.select(sa.func.max(step))
            .where(mine & (step <= sa.bindparam("since")))
            .scalar_subquery()
        )
        c.execute(
            snapshots_table.delete().where(mine & (step < begin)),
            [{"id": id, "since": each[-1].since} for id, each in standing.items()],
        )

    def late_rows(self, batch: Batch) -> list[dict[str, Any]]:
        id = self.known_streams[batch.name].id
        now = time.time()
        return [
            {"stream": id, "time": moment, "arrived": now, "x": row.astype("<f8").tobytes()}
            for each in batch.late
            for moment, row in zip(each.time.tolist(), each.x)
        ]

    def anomaly_row(self, batch: Batch, a: Anomaly) -> dict[str, Any]:
        row = {
            "id": a.id,
            "stream": batch.name,
            "number": a.number,
            "step": a.step,
            "time": a.time,
            "place": a.feature,
        }
        row |= {
            "feature": batch.names[a.feature],
            "value": finite_or_none(a.value),
            "low": finite_or_none(a.low),
            "high": finite_or_none(a.high),
            "score": a.score,
        }
        return row | {
            "threshold": a.threshold,
            "run": a.run,
            "alarm": a.alarm,
            "severity": a.severity,
            "reason": a.reason(batch.units[a.feature]),
            "found": time.time(),
        }

    # --- what the loop asks for

    def newest(self) -> int:
        """The highest id of an anomaly; 0 where there is none."""
        with self.reading() as c:
            return int(c.execute(sa.select(sa.func.max(anomalies_table.c.id))).scalar() or 0)

    def pushed(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Name, features and units of the sources that programs pushed, the newest first."""
        asked = (
            sa.select(streams_table.c.name, streams_table.c.names, streams_table.c.units)
            .where(streams_table.c.pushed)
            .order_by(streams_table.c.seen.desc(), streams_table.c.id)
        )
        with self.reading() as c:
            return [
                (row.name, tuple(json.loads(row.names)), tuple(json.loads(row.units)))
                for row in c.execute(asked)
            ]

    def restore(self, name: str) -> RestoredStream | None:
        """What a restart needs of a stream: the oldest snapshot there is and the rows since; None
        where nothing is known.
        """
        with self.reading() as c:
            about = c.execute(sa.select(streams_table).where(streams_table.c.name == name)).first()
            if about is None:
                return None
            state = c.execute(
                sa.select(snapshots_table)
                .where(snapshots_table.c.stream == about.id)
                .order_by(snapshots_table.c.step)
                .limit(1)
            ).first()
            first = state.step if state else about.end
            mine = (points_table.c.stream == about.id) & (
                points_table.c.first + points_table.c.n > first
            )
            chunks = c.execute(
                sa.select(points_table.c.first, points_table.c.rows)
                .where(mine)
                .order_by(points_table.c.first)
            ).all()
            latest = (
                sa.select(anomalies_table)
                .where(anomalies_table.c.stream == name)
                .order_by(anomalies_table.c.id.desc())
                .limit(RESTORED_ANOMALIES)
            )
            found = [journal_row(row) for row in c.execute(latest)][::-1]
        names = tuple(json.loads(about.names))
        rows = decode_rows([chunk.rows for chunk in chunks], len(names))
        rows = rows[first - chunks[0].first :] if chunks else rows
        if chunks and len(rows) != about.end - first:
            raise StoreError(
                f"{self.path} is damaged: {name} lacks steps between {first} and "
                f"{about.end}; restore a backup"
            )
        undone = [settings_from_json(json.dumps(each)) for each in json.loads(about.undone)]
        known = (
            settings_from_json(about.applied),
            undone,
            names,
            tuple(json.loads(about.units)),
            about.origin,
            json.loads(about.counts),
        )
        return RestoredStream(
            about.end,
            first,
            unpack_state(state.state if state else b""),
            rows[:, 0],
            rows[:, ROW_HEADER:],
            *known,
            found,
        )

    def known(self, name: str, times: np.ndarray) -> np.ndarray:
        """Which of these times (n,), seconds since the epoch, a stream has a point of."""
        found = np.zeros(len(times), bool)
        with self.reading() as c:
            about = c.execute(
                sa.select(streams_table.c.id, streams_table.c.names).where(
                    streams_table.c.name == name
                )
            ).first()
            if about is None or not len(times):
                return found
            low = float(times.min())
            high = float(times.max())
            width = len(json.loads(about.names))
            chunk = (
                (points_table.c.stream == about.id)
                & (points_table.c.newest >= low)
                & (points_table.c.oldest <= high)
            )
            for (rows,) in c.execute(sa.select(points_table.c.rows).where(chunk)):
                found |= np.isin(times, decode_rows([rows], width)[:, 0])
            aside = sa.select(late_table.c.time).where(
                (late_table.c.stream == about.id) & late_table.c.time.between(low, high)
            )
            return found | np.isin(times, c.execute(aside).scalars().all())

    # --- what people and programs ask for

    def points(
        self, name: str, since: float | None = None, until: float | None = None, limit: int = 10_000
    ) -> StoredPoints | None:
        """Points of a stream, oldest first, times included: the first `limit` from `since` on, or
        without it the last ones. None: no such stream.
        """
        with self.reading() as c:
            about = c.execute(
                sa.select(streams_table.c.id, streams_table.c.names).where(
                    streams_table.c.name == name
                )
            ).first()
            if about is None:
                return None
            names = tuple(json.loads(about.names))
            span = (none_to_bound(since, -np.inf), none_to_bound(until, np.inf))
            chunks = (
                first_chunks(c, about.id, span, limit)
                if since is not None
                else last_chunks(c, about.id, span[1], limit)
            )
            rows = decode_rows([chunk.rows for chunk in chunks], len(names))
            inside = (rows[:, 0] >= span[0]) & (rows[:, 0] <= span[1])
            first = chunks[0].first + int(inside.argmax()) if inside.any() else None
            rows = rows[inside]
            low = span[0] if since is not None or len(rows) < limit else float(rows[0, 0])
            aside = late_points(c, about.id, (low, span[1]), limit)
        first = None if len(aside) else first
        rows = np.concatenate([rows, late_matrix(aside, len(names))])
        rows = rows[np.argsort(rows[:, 0], kind="stable")] if len(aside) else rows
        skip = max(0, len(rows) - limit) if since is None else 0
        rows = rows[skip : skip + limit]
        return StoredPoints(
            names,
            rows[:, 0],
            rows[:, ROW_HEADER:],
            rows[:, 1],
            rows[:, 2],
            None if first is None else first + skip,
        )

    def anomalies(self, query: AnomalyQuery = AnomalyQuery()) -> list[dict[str, Any]]:  # noqa: B008  constants
        """Anomalies, the newest first; oldest first after an id. `before` the last id of a page
        gives the next page.
        """
        t = anomalies_table.c
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
        asked = (
            sa.select(anomalies_table)
            .where(*[each for each in wanted if each is not None])
            .limit(query.limit)
        )
        with self.reading() as c:
            return [
                dict(row)
                for row in c.execute(
                    asked.order_by(t.id if query.after is not None else t.id.desc())
                ).mappings()
            ]

    def history(self, stream: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Applied settings, the newest first: at (wall seconds), stream, settings."""
        asked = sa.select(applied_table).order_by(applied_table.c.id.desc()).limit(limit)
        with self.reading() as c:
            rows = c.execute(
                asked if stream is None else asked.where(applied_table.c.stream == stream)
            ).mappings()
            return [dict(row) | {"settings": json.loads(row["settings"])} for row in rows]

    def daily(self, stream: str, days: int = 30) -> list[tuple[int, int]]:
        """Anomalies a day, oldest first: (days since the epoch, how many), by the stream's own
        time.
        """
        day = sa.cast(anomalies_table.c.time / 86_400, sa.Integer)
        asked = (
            sa.select(day, sa.func.count())
            .where(anomalies_table.c.stream == stream)
            .group_by(day)
            .order_by(day.desc())
            .limit(days)
        )
        with self.reading() as c:
            return [(int(when), int(count)) for when, count in c.execute(asked)][::-1]

    def record(
        self,
        who: str,
        what: str,
        stream: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """A line of the audit log; secrets do not belong into `detail`."""
        with self.writing() as c:
            c.execute(
                audit_table.insert().values(
                    at=time.time(),
                    who=who,
                    what=what,
                    stream=stream,
                    detail=json.dumps(dict(detail or {})),
                )
            )

    def audit(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The audit log, the newest first; `before` an id gives the next page."""
        asked = sa.select(audit_table).order_by(audit_table.c.id.desc()).limit(limit)
        with self.reading() as c:
            rows = c.execute(
                asked if before is None else asked.where(audit_table.c.id < before)
            ).mappings()
            return [dict(row) | {"detail": json.loads(row["detail"])} for row in rows]

    # --- incidents and labels, as those who join and judge them hand them in

    def put_incidents(self, c: sa.Connection, rows: Any) -> None:
        """Writes rows.incidents (each with id, stream, state, start) and rows.watches (each with
        stream), the newest word counts.
        """
        now = time.time()
        for row in rows.incidents:
            c.execute(incidents_table.delete().where(incidents_table.c.id == row["id"]))
            known = {name: row[name] for name in ("id", "stream", "state", "start")}
            c.execute(incidents_table.insert().values(**known, body=json.dumps(row), changed=now))
        for row in rows.watches:
            c.execute(watches_table.delete().where(watches_table.c.stream == row["stream"]))
            c.execute(watches_table.insert().values(stream=row["stream"], body=json.dumps(row)))

    def save_incidents(self, rows: Any) -> None:
        """The same in a transaction of its own: what a person did."""
        with self.writing() as c:
            self.put_incidents(c, rows)

    def incidents(self, limit: int = 2_000) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(incidents, watches): every one that is not resolved, and the newest of the others,
        oldest first.
        """
        alive = sa.select(incidents_table.c.id).where(incidents_table.c.state != "resolved")
        latest = (
            sa.select(incidents_table.c.id).order_by(incidents_table.c.start.desc()).limit(limit)
        )
        asked = (
            sa.select(incidents_table.c.body)
            .where(incidents_table.c.id.in_(alive) | incidents_table.c.id.in_(latest))
            .order_by(incidents_table.c.start)
        )
        with self.reading() as c:
            stood = [
                json.loads(body) for body in c.execute(sa.select(watches_table.c.body)).scalars()
            ]
            return [json.loads(body) for body in c.execute(asked).scalars()], stood

    def put_label(
        self,
        stream: str,
        span: tuple[float, float],
        kind: str,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """A person's word on a span of a stream, seconds since the epoch, both ends included; its
        id.
        """
        row = {
            "stream": stream,
            "start": span[0],
            "end": span[1],
            "kind": kind,
            "body": json.dumps(dict(detail or {})),
            "at": time.time(),
        }
        with self.writing() as c:
            id = c.execute(labels_table.insert().values(row)).inserted_primary_key
            self.given(c, (detail or {}).get("id", 0))
        return int(id[0]) if id else 0

    def save_label(self, row: Mapping[str, Any]) -> None:
        """Store a label under its own id."""
        self.put_label(row["stream"], (row["start"], row["end"]), row["kind"], row)

    def delete_label(self, id: int) -> None:
        """Delete the label with this id; its id is not given again."""
        for row in self.labels():
            if row["body"]["id"] == id:
                self.drop_label(row["id"])

    def drop_label(self, id: int) -> bool:
        """Takes a label back; whether there was one."""
        with self.writing() as c:
            body: Any = c.execute(
                sa.select(labels_table.c.body).where(labels_table.c.id == id)
            ).scalar()
            if body is not None:
                self.given(
                    c, json.loads(body).get("id", 0)
                )  # a file from before has only the labels to tell
            return c.execute(labels_table.delete().where(labels_table.c.id == id)).rowcount > 0

    def given(self, c: sa.Connection, id: int) -> None:
        """Keep the highest id that a label ever had, so that it is never given again."""
        newest = c.execute(
            sa.select(meta_table.c.value).where(meta_table.c.name == NEWEST_LABEL)
        ).scalar()
        if newest is None:
            c.execute(meta_table.insert().values(name=NEWEST_LABEL, value=str(id)))
        elif id > int(newest):
            c.execute(
                meta_table.update().where(meta_table.c.name == NEWEST_LABEL).values(value=str(id))
            )

    def newest_label(self) -> int:
        """Return the highest id that a label ever had; 0 where none is known."""
        with self.reading() as c:
            return int(
                c.execute(
                    sa.select(meta_table.c.value).where(meta_table.c.name == NEWEST_LABEL)
                ).scalar()
                or 0
            )

    def labels(self, stream: str | None = None) -> list[dict[str, Any]]:
        """People's labels, oldest first."""
        asked = sa.select(labels_table).order_by(labels_table.c.start)
        with self.reading() as c:
            rows = c.execute(
                asked if stream is None else asked.where(labels_table.c.stream == stream)
            ).mappings()
            return [dict(row) | {"body": json.loads(row["body"])} for row in rows]

    def dismiss(self, stream: str, ids: Sequence[int]) -> None:
        """Keeps with which labels a proposal of settings was dismissed."""
        name = DISMISSED_PREFIX + stream
        with self.writing() as c:
            c.execute(meta_table.delete().where(meta_table.c.name == name))
            c.execute(meta_table.insert().values(name=name, value=json.dumps(list(ids))))

    def dismissed(self) -> dict[str, list[int]]:
        """The ids of the labels of each stream whose proposal was dismissed."""
        with self.reading() as c:
            rows = c.execute(
                sa.select(meta_table).where(
                    meta_table.c.name.startswith(DISMISSED_PREFIX, autoescape=True)
                )
            ).all()
        return {row.name.removeprefix(DISMISSED_PREFIX): json.loads(row.value) for row in rows}

    # --- retention, backup

    def sweep_now_and_then(self) -> None:
        """Delete what is too old or too many: a pass once a minute, in short turns until it is
        done.

        A turn ends with its budget and the next one follows after a rest, so that commits go on
        between. After a jump of the clock it is unknown what is too old: the pass is put off.
        """
        ticks = time.monotonic() - self.swept[0]
        wall = time.time() - self.swept[1]
        if time.monotonic() < self.resume if self.unfinished else ticks < SWEEP_EVERY:
            return
        began = time.monotonic()
        self.swept = (began, time.time())
        if abs(wall - ticks) > SWEEP_EVERY:
            self.unfinished = False
            _log.warning(
                "the clock jumped by %.0f s; nothing is deleted by age until it is steady",
                wall - ticks,
            )
            return
        try:
            self.sweep(time.time())
            while self.unfinished and time.monotonic() - began < SWEEP_BUDGET:
                self.sweep(time.time())
        except StoreError as error:
            self.unfinished = False
            _log.warning("nothing old was deleted: %s", error)
        self.resume = time.monotonic() + SWEEP_REST * (time.monotonic() - began)

    def sweep(self, now: float) -> int:
        """Delete some of what is too old or too many, in one small transaction; return how many
        chunks went.

        What a restart needs stays. `unfinished` says whether there is more to look at; each call
        goes on after the last.
        """
        edge = now - 86_400 * self.keep.days
        with self.writing() as c:
            total, cursor, gone = self.sweep_points(c, edge)
            more = [self.sweep_late(c, edge), self.sweep_anomalies(c, edge), cursor > 0]
            c.exec_driver_sql("PRAGMA incremental_vacuum(1000)")
        self.total = total
        self.cursor = cursor
        self.unfinished = any(more)
        return gone

    def sweep_points(self, c: sa.Connection, edge: float) -> tuple[int, int, int]:
        """Delete chunks from the oldest on: (points left, the chunk to go on after or 0, how many
        chunks went).
        """
        needed = (
            sa.select(sa.func.min(snapshots_table.c.step))
            .where(snapshots_table.c.stream == points_table.c.stream)
            .scalar_subquery()
        )
        free = (points_table.c.first + points_table.c.n <= sa.func.coalesce(needed, 0)).label(
            "free"
        )
        oldest = sa.select(points_table.c.id, points_table.c.n, points_table.c.arrived, free).where(
            points_table.c.id > self.cursor
        )
        total = self.total
        if total is None:
            total = int(c.execute(sa.select(sa.func.sum(points_table.c.n))).scalar() or 0)
        least = total - SWEPT
        gone: list[int] = []
        cursor = self.cursor
        looked = c.execute(oldest.order_by(points_table.c.id).limit(SWEEP_CHUNKS)).all()
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
            cursor = (
                cursor if len(looked) == SWEEP_CHUNKS else 0
            )  # fewer: the last chunk was among them
        c.execute(points_table.delete().where(points_table.c.id.in_(gone)))
        return total, cursor, len(gone)

    def sweep_late(self, c: sa.Connection, edge: float) -> bool:
        """Delete late points that are too old; whether there may be more."""
        key = sa.tuple_(late_table.c.stream, late_table.c.time)
        old = (
            sa.select(late_table.c.stream, late_table.c.time)
            .where(late_table.c.arrived < edge)
            .limit(SWEEP_CHUNKS)
        )
        return c.execute(late_table.delete().where(key.in_(old))).rowcount == SWEEP_CHUNKS

    def sweep_anomalies(self, c: sa.Connection, edge: float) -> bool:
        """Delete anomalies that are too old, never the newest, whose id a restart counts from;
        whether there may be more.
        """
        asked = (
            sa.select(anomalies_table.c.id, anomalies_table.c.found)
            .order_by(anomalies_table.c.id)
            .limit(SWEEP_CHUNKS)
        )
        first = c.execute(asked).all()
        old = [row.id for row in first[:-1] if row.found < edge]
        c.execute(anomalies_table.delete().where(anomalies_table.c.id.in_(old)))
        return len(old) == SWEEP_CHUNKS - 1

    def backup(self, path: str | Path) -> Path:
        """A whole copy of this moment, while everything goes on; a file that is there already is
        not touched.
        """
        self.refuse_closed()
        target = Path(path)
        if target.exists():
            raise StoreError(f"{target} is there already; name a new file for the backup")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        with translate_errors(target), self.reader.connect() as c:
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


def first_chunks(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """The chunks, in order of time, that hold the first `limit` points of a span."""
    mine = (
        (points_table.c.stream == id)
        & (points_table.c.newest >= span[0])
        & (points_table.c.oldest <= span[1])
    )
    return fetch_chunks(
        c.execute(sa.select(points_table).where(mine).order_by(points_table.c.newest)),
        limit,
        span[0],
    )


def last_chunks(c: sa.Connection, id: int, until: float, limit: int) -> list[Any]:
    """The chunks, in order of time, that hold the last `limit` points up to a time."""
    mine = points_table.c.stream == id
    over = (
        sa.select(points_table)
        .where(mine & (points_table.c.newest > until) & (points_table.c.oldest <= until))
        .order_by(points_table.c.newest)
        .limit(1)
    )
    edge = c.execute(over).all()
    under = (
        sa.select(points_table)
        .where(mine & (points_table.c.newest <= until))
        .order_by(points_table.c.newest.desc())
    )
    return (fetch_chunks(c.execute(under), limit, None)[::-1]) + list(edge)


def fetch_chunks(found: sa.CursorResult[Any], limit: int, since: float | None) -> list[Any]:
    """Chunks until they hold `limit` points; the first one may begin before `since`, so it does not
    count.
    """
    chunks = []
    held = 0
    for chunk in found:
        chunks.append(chunk)
        held += chunk.n if since is None or chunk.oldest >= since else 0
        if held >= limit:
            break
    found.close()
    return chunks


def late_points(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """Late points of a span, at most `limit`, the newest."""
    inside = (
        (late_table.c.stream == id)
        & (late_table.c.time >= span[0])
        & (late_table.c.time <= span[1])
    )
    return list(
        c.execute(
            sa.select(late_table.c.time, late_table.c.x)
            .where(inside)
            .order_by(late_table.c.time.desc())
            .limit(limit)
        )
    )


class UnavailableStore(ResultStore):
    """Stands where a store could not be opened: nothing is acknowledged, every commit says why, the
    page goes on.
    """

    def __init__(self, why: StoreError) -> None:
        self.why = why

    def commit(self, batches: Sequence[Batch]) -> None:
        raise self.why

    def restore(self, name: str) -> RestoredStream | None:
        return None

    def pushed(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        return []

    def newest(self) -> int:
        return 0

    def known(self, name: str, times: np.ndarray) -> np.ndarray:
        return np.zeros(len(times), bool)

    def close(self) -> None:
        """Nothing is open."""
