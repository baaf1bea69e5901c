"""Writing of result batches into the tables of the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa

from redline.engine.results import Anomaly, Batch, Snapshot
from redline.settings import Settings
from redline.storage.checksums import seal_row, verify_row, write_meta
from redline.storage.dialects import insert_many, insert_new, upsert
from redline.storage.encoding import (
    encode_chunks,
    finite_or_none,
    pack_state,
    settings_from_json,
    settings_json,
)
from redline.storage.reading import HIGHEST_ANOMALY_ID, last_anomaly_id
from redline.storage.schema import (
    anomalies_table,
    applied_table,
    late_table,
    points_table,
    snapshots_table,
    streams_table,
)

# chunks of a stream that are merged into one, so that points pushed one by one are read back fast
MERGED_CHUNKS = 64


class KnownStream(NamedTuple):
    """What the writer remembers of a stream between commits."""

    id: int
    end: int  # steps committed
    settings: Settings | None
    tail: tuple[int, ...] = ()  # first steps of its newest small chunks, which are contiguous
    tail_end: int = -1  # the step after them


class BatchWriter:
    """Writes batches within a transaction of the caller; remembers the streams between commits."""

    def __init__(self) -> None:
        self.known_streams: dict[str, KnownStream] = {}
        self.total: int | None = None  # points stored over all streams; None = to be counted

    def load_streams(self, c: sa.Connection) -> None:
        """Read which streams are stored; forget what was remembered before."""
        self.known_streams = {}
        self.total = None
        for row in c.execute(sa.select(streams_table)):
            verify_row(streams_table, row._mapping)
            settings = settings_from_json(row.applied)
            self.known_streams[row.name] = KnownStream(row.id, row.end, settings)

    @contextmanager
    def undo_on_error(self) -> Iterator[None]:
        """Forget what was remembered within the block when it fails, as the database does."""
        streams = dict(self.known_streams)
        total = self.total
        try:
            yield
        except BaseException:
            self.known_streams = streams
            self.total = total
            raise

    def write_batches(self, c: sa.Connection, batches: Sequence[Batch]) -> None:
        """Write streams, points, snapshots, late points and anomalies."""
        by_name: dict[str, list[Batch]] = {}
        own = [batch for batch in batches if not batch.stored_apart]
        for batch in own:
            by_name.setdefault(batch.name, []).append(batch)
        self._write_streams(c, by_name)
        self._write_points(c, by_name)
        snapshots = [
            (self.known_streams[batch.name].id, batch.snapshot) for batch in own if batch.snapshot
        ]
        write_snapshots(c, snapshots)
        late = [row for batch in own for row in self._late_rows(batch)]
        if late:
            insert_new(c, late_table, [seal_row(late_table, row) for row in late])
        anomalies = [_anomaly_row(batch, each) for batch in batches for each in batch.anomalies]
        if anomalies:
            insert_many(c, anomalies_table, [seal_row(anomalies_table, row) for row in anomalies])

    def delete_stream(self, c: sa.Connection, name: str) -> None:
        """Delete a stream with its points, snapshots and anomalies."""
        known = self.known_streams.pop(name, None)
        if known is not None:
            delete_stream_rows(c, name, known.id)
            c.execute(streams_table.delete().where(streams_table.c.id == known.id))
            self.total = None

    def _write_streams(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """Write position, counters and settings of each stream after its newest batch.

        What is stored of a stream that starts again at step 0 is deleted first.
        """
        changed: list[dict[str, Any]] = []
        history: list[dict[str, Any]] = []
        now = time.time()
        for name, batches in by_name.items():
            known = self.known_streams.get(name)
            row = seal_row(streams_table, _stream_row(batches[-1], now))
            restarted = any(batch.first == 0 and len(batch.time) for batch in batches)
            if known is not None and known.end and restarted:
                delete_stream_rows(c, name, known.id)
                known = known._replace(tail=())
                self.total = None
            if known is None:
                id = c.execute(streams_table.insert().values(row)).inserted_primary_key
                known = KnownStream(int(id[0]) if id else 0, 0, None)
            else:
                changed.append(row | {"key": known.id})
            settings = known.settings
            for batch in batches:
                if batch.applied != settings:
                    settings = batch.applied
                    line = {"at": now, "stream": name, "settings": settings_json(settings)}
                    history.append(seal_row(applied_table, line))
            self.known_streams[name] = known._replace(end=row["end"], settings=settings)
        if changed:
            columns: dict[str, Any] = {
                column: sa.bindparam(column) for column in changed[0] if column != "key"
            }
            by_key = streams_table.c.id == sa.bindparam("key")
            c.execute(streams_table.update().where(by_key).values(columns), changed)
        if history:
            c.execute(applied_table.insert(), history)

    def _write_points(self, c: sa.Connection, by_name: Mapping[str, Sequence[Batch]]) -> None:
        """Write one chunk for each run of steps; merge the small ones now and then."""
        now = time.time()
        new_chunks = {
            name: encode_chunks(
                [batch for batch in batches if batch.stores_points and len(batch.time)]
            )
            for name, batches in by_name.items()
        }
        rows = [
            seal_row(points_table, chunk | {"stream": self.known_streams[name].id, "arrived": now})
            for name, chunks in new_chunks.items()
            for chunk in chunks
        ]
        if not rows:
            return
        insert_many(c, points_table, rows)
        if self.total is not None:
            self.total += sum(row["n"] for row in rows)
        for name, chunks in new_chunks.items():
            known = _extend_tail(self.known_streams[name], chunks)
            # the id spreads the merging, so that not all streams are merged in the same commit
            if len(known.tail) >= MERGED_CHUNKS // 2 + known.id % MERGED_CHUNKS:
                merge_chunks(c, known.id, known.tail[0])
                known = known._replace(tail=())
            self.known_streams[name] = known

    def _late_rows(self, batch: Batch) -> list[dict[str, Any]]:
        id = self.known_streams[batch.name].id
        now = time.time()
        return [
            {"stream": id, "time": moment, "arrived": now, "x": row.astype("<f8").tobytes()}
            for chunk in batch.late
            for moment, row in zip(chunk.time.tolist(), chunk.x)
        ]


def delete_stream_rows(c: sa.Connection, name: str, id: int) -> None:
    """Delete points, late points, snapshots and anomalies of a stream.

    The highest id of an anomaly is kept: a client that follows the anomalies asks for those after
    an id, so none may be given twice.
    """
    write_meta(c, HIGHEST_ANOMALY_ID, str(last_anomaly_id(c)))
    for table in (points_table, late_table, snapshots_table):
        c.execute(table.delete().where(table.c.stream == id))
    c.execute(anomalies_table.delete().where(anomalies_table.c.stream == name))


def _extend_tail(known: KnownStream, chunks: Sequence[Mapping[str, Any]]) -> KnownStream:
    """Add new chunks to a stream's contiguous small chunks; a large one or a gap starts anew."""
    tail = known.tail
    tail_end = known.tail_end
    for chunk in chunks:
        contiguous = tail if chunk["first"] == tail_end else ()
        tail = (*contiguous, chunk["first"]) if chunk["n"] < MERGED_CHUNKS else ()
        tail_end = chunk["first"] + chunk["n"]
    return known._replace(tail=tail, tail_end=tail_end)


def merge_chunks(c: sa.Connection, id: int, first: int) -> None:
    """Merge a stream's chunks from a step on; the retention may have deleted the first of them."""
    selected = (points_table.c.stream == id) & (points_table.c.first >= first)
    query = sa.select(points_table).where(selected).order_by(points_table.c.first)
    old = c.execute(query).all()
    for row in old:
        verify_row(points_table, row._mapping)
    if len(old) < 2:
        return
    merged = {
        "stream": id,
        "first": old[0].first,
        "n": sum(row.n for row in old),
        "oldest": old[0].oldest,
        "newest": old[-1].newest,
        "arrived": old[-1].arrived,
        "rows": b"".join(row.rows for row in old),
    }
    c.execute(points_table.delete().where(selected))
    c.execute(points_table.insert().values(seal_row(points_table, merged)))


def write_snapshots(c: sa.Connection, snapshots: Sequence[tuple[int, Snapshot]]) -> None:
    """Write new (stream id, snapshot) in order; delete those that no restart begins at now."""
    by_stream: dict[int, list[Snapshot]] = {}
    for id, new in snapshots:
        before = [] if new.voids_older else by_stream.get(id, [])
        by_stream[id] = [*before, new]
    if not by_stream:
        return
    same_stream = snapshots_table.c.stream == sa.bindparam("id")
    step = snapshots_table.c.step
    void = [{"id": id} for id, new in snapshots if new.voids_older]
    if void:
        c.execute(snapshots_table.delete().where(same_stream), void)
    rows = [
        seal_row(snapshots_table, {"stream": id, "step": new.step, "state": pack_state(new.state)})
        for id, kept in by_stream.items()
        for new in kept
    ]
    upsert(c, snapshots_table, rows)
    restart_step = (
        sa.select(sa.func.max(step))
        .where(same_stream & (step <= sa.bindparam("since")))
        .scalar_subquery()
    )
    c.execute(
        snapshots_table.delete().where(same_stream & (step < restart_step)),
        [{"id": id, "since": kept[-1].since} for id, kept in by_stream.items()],
    )


def _stream_row(newest: Batch, now: float) -> dict[str, Any]:
    return {
        "name": newest.name,
        "names": settings_json(newest.names),
        "units": settings_json(newest.units),
        "origin": newest.origin,
        "applied": settings_json(newest.applied),
        "undone": f"[{', '.join(map(settings_json, newest.undone))}]",
        "counts": json.dumps(newest.counts),
        "end": newest.end,
        "pushed": newest.awaited,
        "seen": now,
    }


def _anomaly_row(batch: Batch, anomaly: Anomaly) -> dict[str, Any]:
    return {
        "id": anomaly.id,
        "stream": batch.name,
        "number": anomaly.number,
        "step": anomaly.step,
        "time": anomaly.time,
        "place": anomaly.feature,
        "feature": batch.names[anomaly.feature],
        "value": finite_or_none(anomaly.value),
        "low": finite_or_none(anomaly.low),
        "high": finite_or_none(anomaly.high),
        "score": anomaly.score,
        "threshold": anomaly.threshold,
        "run": anomaly.run,
        "alarm": anomaly.alarm,
        "severity": anomaly.severity,
        "reason": anomaly.reason(batch.units[anomaly.feature]),
        "found": time.time(),
    }
