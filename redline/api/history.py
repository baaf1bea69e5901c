"""The history of a stream: points with scores and anomalies, from the store or the buffer.

It can be thinned, after scoring, and is written as JSON, JSON lines or CSV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from redline.engine.feed import Feed
from redline.engine.fleet.series_views import SeriesFeed
from redline.engine.fleet.stored import ANOMALY_FLAG
from redline.sources import payload
from redline.sources.csv_cells import csv_quote
from redline.storage.errors import StoreError
from redline.storage.reading import AnomalyQuery
from redline.storage.sql_store import SqlStore

PIECE_CELLS = 25_000  # values written at once, so that a long answer takes little memory
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
OWN_COLUMNS = ("step", "time", "score", "anomaly")  # of a CSV, beside the features
HistoryFormat = Literal["json", "csv", "ndjson"]


class HistoryRows(NamedTuple):
    """Some steps of one stream, oldest first."""

    step: np.ndarray  # (n,) absolute
    time: np.ndarray  # (n,) seconds since the Unix epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion
    anomaly: np.ndarray  # (n,) bool, as it was found when it came

    def at(self, which: Any) -> HistoryRows:
        """Return the rows at these indices."""
        return HistoryRows(*(column[which] for column in self))


class HistoryRange(NamedTuple):
    """The time range, limit and thinning of a request for history."""

    start: float = -np.inf  # seconds since the Unix epoch, included
    end: float = np.inf  # not included
    limit: int = 1_000
    oldest: bool = False  # the first `limit` of the range rather than its last
    thin: int = 0  # about how many to leave, 0 = all


def history_rows(feed: Feed, store: SqlStore | None, asked: HistoryRange) -> HistoryRows:
    """Return the steps of a range from the store, or from the buffer if they are not stored.

    The buffer answers without a store, for streams whose points are not stored, and before a
    stream's first commit. Raises StoreError when the store cannot be read: an answer from the
    buffer alone would look like the whole range.
    """
    found = None
    if store and (feed.stores_points or isinstance(feed, SeriesFeed)):
        try:
            if isinstance(feed, SeriesFeed):
                found = rows_of_series(store, feed.number, asked)
            else:
                found = rows_from_store(store, feed.name, asked)
        except StoreError as error:
            todo = "then ask again; /health says how the store does"
            raise StoreError(
                f"the stored points of {feed.name} cannot be read: {error}; {todo}"
            ) from error
    found = select_rows(rows_from_buffer(feed), asked) if found is None else found
    return thin_rows(found, asked.thin) if asked.thin else found


def rows_from_store(store: SqlStore, name: str, asked: HistoryRange) -> HistoryRows | None:
    """Return the stored steps of a range, late ones included; None = the stream is not stored.

    The step is -1 where late ones make the number unknown.
    """
    since = None if asked.start == -np.inf else asked.start
    until = None if asked.end == np.inf else float(np.nextafter(asked.end, -np.inf))
    found = store.points(name, since, until, asked.limit)
    if found is None:
        return None
    n = len(found.time)
    step = np.full(n, -1) if found.first is None else found.first + np.arange(n)
    anomalous = np.zeros(n, bool)
    if n:
        start = float(found.time[0])
        end = float(found.time[-1])
        anomalies = store.anomalies(AnomalyQuery((name,), start, end, limit=n))
        anomalous = np.isin(found.time, [each["time"] for each in anomalies])
    return HistoryRows(step, found.time, found.x, found.score, anomalous)


def rows_of_series(store: SqlStore, number: int, asked: HistoryRange) -> HistoryRows:
    """Return the stored steps of a series in a range, late ones included, whose step is -1."""
    since = None if asked.start == -np.inf else asked.start
    until = None if asked.end == np.inf else float(np.nextafter(asked.end, -np.inf))
    found = store.read_series(number, since, until, asked.limit)
    anomaly = (found.flags & ANOMALY_FLAG) > 0
    return HistoryRows(found.step, found.time, found.value[:, None], found.score, anomaly)


def rows_from_buffer(feed: Feed) -> HistoryRows:
    """Return the whole buffer with its scores and anomalies."""
    track = feed.applied_track
    with feed.lock:
        first = feed.tape.first
        end = feed.end
        times = feed.tape.read("time", first, end)[:, 0]
        x = feed.tape.read("x", first, end)
        score = track.read("score", first, end)[:, 0]  # type: ignore[index]
        finalized = feed.finalized
        journal = list(feed.journal)
    step = np.arange(first, end)
    # a full journal has lost older anomalies: there the threshold decides
    journal_start = journal[0].step if len(journal) == feed.journal.maxlen else first
    older = (step < journal_start) & (step < finalized) & (score > feed.applied.threshold)
    anomaly = np.isin(step, [a.step for a in journal]) | older
    return HistoryRows(step, times, x, score, anomaly)


def select_rows(found: HistoryRows, asked: HistoryRange) -> HistoryRows:
    """Return the rows in a time range, the oldest or the newest `limit` of them."""
    which = np.flatnonzero((found.time >= asked.start) & (found.time < asked.end))
    return found.at(which[: asked.limit] if asked.oldest else which[-asked.limit :])


def thin_rows(found: HistoryRows, most: int) -> HistoryRows:
    """Return about `most` rows: the lowest and highest of each feature in each bucket of steps.

    Anomalous rows are all kept.
    """
    width = 2 * found.x.shape[1] * len(found.step) // most
    if width < 2:
        return found
    # buckets at multiples of a power of two, so that a moving range keeps the same rows
    bucket = found.step // (1 << (width - 1).bit_length())
    keep = found.anomaly.copy()
    is_last = np.append(bucket[1:] != bucket[:-1], True)  # of its bucket
    for column in found.x.T:
        missing = np.isnan(column)
        for value in (np.where(missing, -np.inf, column), np.where(missing, -np.inf, -column)):
            # sorted by bucket, then value: the last row of a bucket has its highest value
            keep[np.lexsort((value, bucket))[is_last]] = True
    return found.at(keep)


def format_rows(feed: Feed, found: HistoryRows, form: HistoryFormat) -> Iterator[bytes]:
    """Yield rows of a stream as the pieces of an answer.

    One piece holds about PIECE_CELLS values, however wide the rows are.
    """
    names = feed.stream.names
    rows_at_once = max(1, PIECE_CELLS // (len(names) + 4))
    starts = range(0, len(found.step), rows_at_once)
    pieces = (found.at(slice(start, start + rows_at_once)) for start in starts)
    if form == "csv":
        yield csv_heading(names)
        yield from map(csv_lines, pieces)
    elif form == "ndjson":
        for piece in pieces:
            points = ({"source": feed.name, **point} for point in point_documents(names, piece))
            yield b"".join(payload.to_json(point) + b"\n" for point in points)
    else:
        about = {"source": feed.name, "names": list(names), "units": list(feed.stream.units)}
        yield payload.to_json(about)[:-1] + b',"points":['
        for number, piece in enumerate(pieces):
            yield b"," * (number > 0) + payload.to_json(point_documents(names, piece))[1:-1]
        yield b"]}"


def point_documents(names: Sequence[str], rows: HistoryRows) -> list[dict[str, Any]]:
    """Return rows as objects; a stream of one unnamed feature has a value, others have values."""
    single = tuple(names) == payload.SINGLE_FEATURE
    return [
        {
            "step": step,
            "time": at,
            **({"value": x[0]} if single else {"values": dict(zip(names, x))}),
            "score": score,
            "anomaly": anomaly,
        }
        for step, at, x, score, anomaly in zip(*(column.tolist() for column in rows))
    ]


def csv_heading(names: Sequence[str]) -> bytes:
    """Return the first line of a CSV; a feature with the name of another column gets one apart.

    >>> csv_heading(["load", "score"])
    b'step,time,load,value of score,score,anomaly\\n'
    """
    heads = ("step", "time", *map(partial(_feature_heading, names), names), "score", "anomaly")
    return (",".join(map(csv_quote, heads)) + "\n").encode()


def _feature_heading(names: Sequence[str], name: str) -> str:
    """Return the heading of one of the features."""
    heading = name
    while heading in OWN_COLUMNS or (heading != name and heading in names):
        heading = f"value of {heading}"
    return heading


def csv_lines(rows: HistoryRows) -> bytes:
    """Return a line a step; an empty cell is a missing value or no score."""
    lines = []
    for step, at, x, score, anomaly in zip(*(column.tolist() for column in rows)):
        cells = ["" if value != value else repr(value) for value in (*x, score)]
        lines.append(f"{step},{at!r},{','.join(cells)},{int(anomaly)}\n")
    return "".join(lines).encode()
