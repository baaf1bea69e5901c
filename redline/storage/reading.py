"""Queries of what the loop has stored: streams, points, anomalies, applied settings."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from redline.engine.results import RestoredStream, StoredSource
from redline.storage.checksums import verify_row
from redline.storage.dialects import truncate
from redline.storage.encoding import (
    ROW_HEADER,
    decode_rows,
    journal_row,
    late_matrix,
    settings_from_json,
    unpack_state,
)
from redline.storage.errors import StoreError
from redline.storage.schema import (
    anomalies_table,
    applied_table,
    late_table,
    meta_table,
    points_table,
    snapshots_table,
    streams_table,
)

HIGHEST_ANOMALY_ID = "newest anomaly"  # in the table meta: the highest id when some were removed
RESTORED_ANOMALIES = 1_000  # newest anomalies of a stream that a restart reads
# what one comparison of times with the stored ones may take: some 20 ms
MATCHED_TIMES = 5_000
MATCHED_CHUNKS = 200
MATCHED_BYTES = 8 * 2**20
TIMES_IN_QUERY = 500  # times that one query looks up among the late points


class StoredPoints(NamedTuple):
    """Points of one stream, oldest first."""

    names: tuple[str, ...]
    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion, also for late points
    alarm: np.ndarray  # (n,) alarm scores
    # absolute number of the first step; None = unknown, because late points are among them
    first: int | None = None


class AnomalyQuery(NamedTuple):
    """Filters of stored anomalies; all given ones must hold."""

    streams: tuple[str, ...] = ()  # of any of these; () = of all
    since: float | None = None  # seconds since the epoch
    until: float | None = None
    after: int | None = None  # an id: those found after it, oldest first
    before: int | None = None  # an id: those found before it, for the next page
    severities: tuple[str, ...] = ()
    alarms: bool = False  # only those that raised an alarm
    feature: str | None = None
    limit: int = 100


# --- for the loop


def last_anomaly_id(c: sa.Connection) -> int:
    """Return the highest id that an anomaly ever had; 0 = there was none."""
    removed = sa.select(meta_table.c.value).where(meta_table.c.name == HIGHEST_ANOMALY_ID)
    stored = sa.select(sa.func.max(anomalies_table.c.id))
    return max(int(c.execute(query).scalar() or 0) for query in (removed, stored))


def list_pushed_streams(c: sa.Connection) -> list[StoredSource]:
    """Return the streams that clients push, last committed first."""
    t = streams_table.c
    query = (
        sa.select(t.name, t.names, t.units, t.counts, t.seen)
        .where(t.pushed)
        .order_by(t.seen.desc(), t.id)
    )
    found = []
    for row in c.execute(query):
        counts = json.loads(row.counts)
        found.append(
            StoredSource(
                name=row.name,
                names=tuple(json.loads(row.names)),
                units=tuple(json.loads(row.units)),
                creator=counts.get("creator", ""),
                seen=row.seen,
                forgotten=counts.get("forgotten", False),
            )
        )
    return found


def load_stream(c: sa.Connection, name: str, database: str) -> RestoredStream | None:
    """Return a stream's oldest snapshot with the rows since; None = the stream is unknown.

    Raises:
        StoreError: steps are missing; it names the `database`.
    """
    stream = _find_stream(c, name)
    if stream is None:
        return None
    snapshots = (
        sa.select(snapshots_table)
        .where(snapshots_table.c.stream == stream.id)
        .order_by(snapshots_table.c.step)
        .limit(1)
    )
    snapshot = next(iter(_verified(c, snapshots_table, snapshots)), None)
    first = snapshot.step if snapshot else stream.end
    names = tuple(json.loads(stream.names))
    rows = _rows_since(c, stream.id, first, len(names))
    if rows is None:
        rows = decode_rows([], len(names))
    elif len(rows) != stream.end - first:
        raise StoreError(
            f"{database} is damaged: {name} lacks steps between {first} and "
            f"{stream.end}; restore a backup"
        )
    try:
        state = unpack_state(snapshot.state if snapshot else b"")
    except ValueError as error:
        raise StoreError(
            f"{database} is damaged: the state of {name} cannot be read ({error}); restore a backup"
        ) from error
    return RestoredStream(
        end=stream.end,
        first=first,
        state=state,
        time=rows[:, 0],
        x=rows[:, ROW_HEADER:],
        applied=settings_from_json(stream.applied),
        undone=[settings_from_json(json.dumps(each)) for each in json.loads(stream.undone)],
        names=names,
        units=tuple(json.loads(stream.units)),
        origin=stream.origin,
        counts=json.loads(stream.counts),
        anomalies=newest_anomalies(c, name),
    )


def newest_anomalies(c: sa.Connection, name: str) -> list[tuple[Any, ...]]:
    """Return the newest anomalies of a stream or series, oldest first, as fields of Anomaly."""
    newest = (
        sa.select(anomalies_table)
        .where(anomalies_table.c.stream == name)
        .order_by(anomalies_table.c.id.desc())
        .limit(RESTORED_ANOMALIES)
    )
    return [journal_row(row) for row in _verified(c, anomalies_table, newest)][::-1]


def _verified(c: sa.Connection, table: sa.Table, query: sa.Select[Any]) -> list[Any]:
    """Return the rows of a query for whole rows of a table; StoreDamaged where one is damaged."""
    rows = list(c.execute(query))
    for row in rows:
        verify_row(table, row._mapping)
    return rows


def _rows_since(c: sa.Connection, id: int, first: int, features: int) -> np.ndarray | None:
    """Return the rows (n, 3 + features) of a stream from step `first` on; None = no chunk."""
    since = (points_table.c.stream == id) & (points_table.c.first + points_table.c.n > first)
    chunks = _verified(
        c, points_table, sa.select(points_table).where(since).order_by(points_table.c.first)
    )
    if not chunks:
        return None
    return decode_rows([chunk.rows for chunk in chunks], features)[first - chunks[0].first :]


def match_stored_times(c: sa.Connection, name: str, times: np.ndarray) -> np.ndarray:
    """Return (m,) bool: whether the stream has a point at the first m of times (n,), epoch seconds.

    Only the chunks that the times fall into are read, and at most MATCHED_CHUNKS of them or
    MATCHED_BYTES, so that the time this takes has a bound: m < n where that was not enough, but
    always at least 1.
    """
    stream = _find_stream(c, name)
    if stream is None:
        return np.zeros(len(times), bool)
    times = times[:MATCHED_TIMES]
    found = _match_chunks(c, stream, times)
    unmatched = np.flatnonzero(~found)
    for i in range(0, len(unmatched), TIMES_IN_QUERY):
        some = unmatched[i : i + TIMES_IN_QUERY]
        late = sa.select(late_table.c.time).where(
            late_table.c.stream == stream.id, late_table.c.time.in_(times[some].tolist())
        )
        found[some] = np.isin(times[some], c.execute(late).scalars().all())
    return found


def _match_chunks(c: sa.Connection, stream: Any, times: np.ndarray) -> np.ndarray:
    """Return (m,) bool: whether a chunk has a point at the first m of times (n,), n > 0."""
    width = len(json.loads(stream.names))
    found = np.zeros(len(times), bool)
    undecided = np.ones(len(times), bool)
    read_bytes = 0
    for _ in range(MATCHED_CHUNKS):
        first = int(undecided.argmax())
        span, chunk = _chunk_of_time(c, stream.id, float(times[first]))
        inside = undecided & (times >= span[0]) & (times <= span[1])
        if chunk is not None:
            found[inside] = np.isin(times[inside], decode_rows([chunk.rows], width)[:, 0])
            read_bytes += len(chunk.rows)
        undecided &= ~inside
        if not undecided.any():
            return found
        if read_bytes >= MATCHED_BYTES:
            break
    return found[: int(undecided.argmax())]


def _chunk_of_time(c: sa.Connection, id: int, time: float) -> tuple[tuple[float, float], Any]:
    """Return the span of time around `time` that one chunk decides, with that chunk.

    None instead of a chunk: there is no point within the span.
    """
    t = points_table.c
    # the points of a stream become newer from chunk to chunk, so no other can hold the time
    next_chunk = (t.stream == id) & (t.newest >= time)
    edges = sa.select(t.id, t.oldest, t.newest).where(next_chunk).order_by(t.newest).limit(1)
    edge = c.execute(edges).first()
    if edge is None:
        return (time, np.inf), None
    if edge.oldest > time:
        return (time, float(np.nextafter(edge.oldest, -np.inf))), None
    chunk = _verified(c, points_table, sa.select(points_table).where(t.id == edge.id))[0]
    return (chunk.oldest, chunk.newest), chunk


# --- for people and programs


def read_points(
    c: sa.Connection, name: str, since: float | None, until: float | None, limit: int
) -> StoredPoints | None:
    """Return points of a stream between two times, late ones among them; None = no such stream.

    At most `limit`: the first ones from `since` on, or without it the last ones.
    """
    stream = _find_stream(c, name)
    if stream is None:
        return None
    names = tuple(json.loads(stream.names))
    start = -np.inf if since is None else since
    end = np.inf if until is None else until
    if since is not None:
        chunks = first_chunks(c, stream.id, (start, end), limit)
    else:
        chunks = last_chunks(c, stream.id, end, limit)
    rows = decode_rows([chunk.rows for chunk in chunks], len(names))
    inside = (rows[:, 0] >= start) & (rows[:, 0] <= end)
    first = chunks[0].first + int(inside.argmax()) if inside.any() else None
    rows = rows[inside]
    if since is None and len(rows) >= limit:  # late points before these rows would be cut off
        start = float(rows[0, 0])
    late = late_points(c, stream.id, (start, end), limit)
    if late:
        first = None
        rows = np.concatenate([rows, late_matrix(late, len(names))])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
    skip = max(0, len(rows) - limit) if since is None else 0
    rows = rows[skip : skip + limit]
    return StoredPoints(
        names=names,
        time=rows[:, 0],
        x=rows[:, ROW_HEADER:],
        score=rows[:, 1],
        alarm=rows[:, 2],
        first=None if first is None else first + skip,
    )


def _find_stream(c: sa.Connection, name: str) -> Any:
    """Return the row of a stream; None = unknown."""
    own = sa.select(streams_table).where(streams_table.c.name == name)
    return next(iter(_verified(c, streams_table, own)), None)


def first_chunks(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """Return the chunks, in order of time, that hold the first `limit` points of a span."""
    overlapping = (
        (points_table.c.stream == id)
        & (points_table.c.newest >= span[0])
        & (points_table.c.oldest <= span[1])
    )
    query = sa.select(points_table).where(overlapping).order_by(points_table.c.newest)
    return fetch_chunks(c.execute(query), limit, span[0])


def last_chunks(c: sa.Connection, id: int, until: float, limit: int) -> list[Any]:
    """Return the chunks, in order of time, that hold the last `limit` points up to a time."""
    own = sa.select(points_table).where(points_table.c.stream == id)
    newest = points_table.c.newest
    across = own.where(newest > until, points_table.c.oldest <= until).order_by(newest).limit(1)
    before = own.where(newest <= until).order_by(newest.desc())
    edge = c.execute(across).all()
    return fetch_chunks(c.execute(before), limit, None)[::-1] + list(edge)


def fetch_chunks(result: sa.CursorResult[Any], limit: int, since: float | None) -> list[Any]:
    """Return chunks until they hold `limit` points; one that begins before `since` counts as 0."""
    chunks = []
    held = 0
    for chunk in result:
        verify_row(points_table, chunk._mapping)
        chunks.append(chunk)
        if since is None or chunk.oldest >= since:
            held += chunk.n
        if held >= limit:
            break
    result.close()
    return chunks


def late_points(c: sa.Connection, id: int, span: tuple[float, float], limit: int) -> list[Any]:
    """Return the late points of a span, the newest first, at most `limit`."""
    inside = (
        (late_table.c.stream == id)
        & (late_table.c.time >= span[0])
        & (late_table.c.time <= span[1])
    )
    query = sa.select(late_table).where(inside).order_by(late_table.c.time.desc()).limit(limit)
    return _verified(c, late_table, query)


def read_anomalies(c: sa.Connection, query: AnomalyQuery) -> list[dict[str, Any]]:
    """Return anomalies, the newest first, or after an id the oldest first."""
    t = anomalies_table.c
    conditions: list[sa.ColumnElement[bool]] = []
    if query.streams:
        conditions.append(t.stream.in_(query.streams))
    if query.since is not None:
        conditions.append(t.time >= query.since)
    if query.until is not None:
        conditions.append(t.time <= query.until)
    if query.after is not None:
        conditions.append(t.id > query.after)
    if query.before is not None:
        conditions.append(t.id < query.before)
    if query.severities:
        conditions.append(t.severity.in_(query.severities))
    if query.alarms:
        conditions.append(t.alarm)
    if query.feature is not None:
        conditions.append(t.feature == query.feature)
    order = t.id if query.after is not None else t.id.desc()
    selected = sa.select(anomalies_table).where(*conditions).order_by(order).limit(query.limit)
    return [verify_row(anomalies_table, row) for row in c.execute(selected).mappings()]


def count_anomalies_by_day(c: sa.Connection, stream: str, days: int) -> list[tuple[int, int]]:
    """Return (days since the epoch, anomalies) by the stream's own time, oldest first."""
    t = anomalies_table.c
    day = truncate(c, t.time / sa.literal_column("86400")).label("day")
    query = (
        sa.select(day, sa.func.count())
        .where(t.stream == stream)
        .group_by(day)
        .order_by(day.desc())
        .limit(days)
    )
    return [(int(number), int(count)) for number, count in c.execute(query)][::-1]


def read_applied_settings(c: sa.Connection, stream: str | None, limit: int) -> list[dict[str, Any]]:
    """Return applied settings, the newest first: at (wall seconds), stream, settings."""
    query = sa.select(applied_table).order_by(applied_table.c.id.desc()).limit(limit)
    if stream is not None:
        query = query.where(applied_table.c.stream == stream)
    rows = [verify_row(applied_table, row) for row in c.execute(query).mappings()]
    return [row | {"settings": json.loads(row["settings"])} for row in rows]
