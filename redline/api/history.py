"""An excerpt of a stream: some of its steps with what was said of them, from the store or the
buffer, thinned, as JSON, lines or CSV.

This room joins monitor and store for whoever asks for points; nothing is thinned before it is
scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from redline.api import payload
from redline.engine.feed import Feed
from redline.storage.errors import StoreError
from redline.storage.reading import AnomalyQuery
from redline.storage.sqlite import SqliteStore

JSON_PIECE_POINTS = 5_000  # points written at once, so that a long answer does not hold up others
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
HistoryFormat = Literal["json", "csv", "ndjson"]


class HistoryRows(NamedTuple):
    """Some steps of one stream, oldest first."""

    step: np.ndarray  # (n,) absolute
    time: np.ndarray  # (n,) seconds since the Unix epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion
    anomaly: np.ndarray  # (n,) bool, as it was found when it came

    def at(self, which: Any) -> HistoryRows:
        return HistoryRows(*(column[which] for column in self))


class HistoryRange(NamedTuple):
    """Which steps are asked for."""

    start: float = -np.inf  # seconds since the Unix epoch, included
    end: float = np.inf  # not included
    limit: int = 1_000
    oldest: bool = False  # the first `limit` of the range rather than its last
    thin: int = 0  # about how many to leave, 0 = all


def history_rows(feed: Feed, store: SqliteStore | None, asked: HistoryRange) -> HistoryRows:
    """Return the steps of a range: from the store where it keeps this stream's points, else those
    in the buffer.

    The buffer answers without a store, for streams whose points are not stored, and before a
    stream's first commit. Raises: StoreError when the store cannot be read: the buffer alone would
    pass for the whole range.
    """
    found = None
    if store and feed.real:
        try:
            found = rows_from_store(store, feed.name, asked)
        except StoreError as error:
            todo = "then ask again; /health says how the store does"
            raise StoreError(
                f"the stored points of {feed.name} cannot be read: {error}; {todo}"
            ) from error
    found = select_rows(rows_from_buffer(feed), asked) if found is None else found
    return thin_rows(found, asked.thin) if asked.thin else found


def rows_from_store(store: SqliteStore, name: str, asked: HistoryRange) -> HistoryRows | None:
    """The steps of a range out of the store, late ones among them (step -1 where those leave the
    number unknown).
    """
    since = None if asked.start == -np.inf else asked.start
    until = None if asked.end == np.inf else float(np.nextafter(asked.end, -np.inf))
    found = store.points(name, since, until, asked.limit)
    if found is None:
        return None
    step = (
        np.full(len(found.time), -1)
        if found.first is None
        else found.first + np.arange(len(found.time))
    )
    anomalous = np.zeros(len(found.time), bool)
    if len(found.time):
        said = store.anomalies(
            AnomalyQuery(name, float(found.time[0]), float(found.time[-1]), limit=len(found.time))
        )
        anomalous = np.isin(found.time, [each["time"] for each in said])
    return HistoryRows(step, found.time, found.x, found.score, anomalous)


def rows_from_buffer(feed: Feed) -> HistoryRows:
    """The whole buffer with what was said of it."""
    track = feed.applied_track
    with feed.lock:
        first = feed.tape.first
        end = feed.end
        times = feed.tape.read("time", first, end)[:, 0]
        x = feed.tape.read("x", first, end)
        score = track.read("score", first, end)[:, 0]  # type: ignore[index]
        noted = feed.finalized
        journal = list(feed.journal)
    step = np.arange(first, end)
    known = (
        journal[0].step if len(journal) == feed.journal.maxlen else first
    )  # older ones have left the journal
    anomaly = np.isin(step, [a.step for a in journal]) | (
        (step < known) & (step < noted) & (score > feed.applied.threshold)
    )
    return HistoryRows(step, times, x, score, anomaly)


def select_rows(found: HistoryRows, asked: HistoryRange) -> HistoryRows:
    which = np.flatnonzero((found.time >= asked.start) & (found.time < asked.end))
    return found.at(which[: asked.limit] if asked.oldest else which[-asked.limit :])


def thin_rows(found: HistoryRows, most: int) -> HistoryRows:
    """In absolute buckets of steps: of each the rows where a feature is lowest or highest, and
    every anomalous one.
    """
    width = 2 * found.x.shape[1] * len(found.step) // most
    if width < 2:
        return found
    bucket = found.step // (
        1 << (width - 1).bit_length()
    )  # buckets of a power of two, so that a moving range draws the same rows
    keep = found.anomaly.copy()
    edge = np.append(bucket[1:] != bucket[:-1], True)
    for column in found.x.T:
        for side in (
            np.where(np.isnan(column), -np.inf, column),
            np.where(np.isnan(column), -np.inf, -column),
        ):
            keep[np.lexsort((side, bucket))[edge]] = (
                True  # the last of a bucket has its highest value
            )
    return found.at(keep)


def format_rows(feed: Feed, found: HistoryRows, form: HistoryFormat) -> bytes:
    names = feed.stream.names
    if form == "csv":
        return history_csv(names, found)
    values = found.x.tolist() if names != payload.SINGLE_FEATURE else found.x[:, 0].tolist()
    columns = zip(
        found.step.tolist(),
        found.time.tolist(),
        values,
        found.score.tolist(),
        found.anomaly.tolist(),
    )
    if names == payload.SINGLE_FEATURE:
        points = [
            {"step": s, "time": t, "value": x, "score": z, "anomaly": a}
            for s, t, x, z, a in columns
        ]
    else:
        points = [
            {"step": s, "time": t, "values": dict(zip(names, x)), "score": z, "anomaly": a}
            for s, t, x, z, a in columns
        ]
    if form == "ndjson":
        return b"".join(payload.to_json({"source": feed.name, **point}) + b"\n" for point in points)
    head = payload.to_json(
        {"source": feed.name, "names": list(names), "units": list(feed.stream.units)}
    )
    pieces = [
        payload.to_json(points[i : i + JSON_PIECE_POINTS])[1:-1]
        for i in range(0, len(points), JSON_PIECE_POINTS)
    ]
    return head[:-1] + b',"points":[' + b",".join(pieces) + b"]}"


def history_csv(names: Sequence[str], found: HistoryRows) -> bytes:
    """A header, then a line a step; an empty cell is missing, or no opinion."""
    heads = ["step", "time", *names, "score", "anomaly"]
    lines = [",".join(csv_quote(head) for head in heads)]
    for step, at, x, score, anomaly in zip(
        found.step.tolist(),
        found.time.tolist(),
        found.x.tolist(),
        found.score.tolist(),
        found.anomaly.tolist(),
    ):
        cells = ["" if value != value else repr(value) for value in (*x, score)]
        lines.append(f"{step},{at!r},{','.join(cells)},{int(anomaly)}")
    return ("\n".join(lines) + "\n").encode()


def csv_quote(head: str) -> str:
    return '"' + head.replace('"', '""') + '"' if any(c in head for c in ',"\r\n') else head
