"""The records of a topic, read to points: JSON events, lists and lines of them, blocks of Arrow.

Records with one number for each source become samples of series, those with several features
points of pushed sources; each keeps the place of the record that it came from. A record that cannot
be read is refused by itself, with a sentence, and the others are read.

>>> reader = RecordReader(SeriesDirectory())
>>> found = reader.read([b'{"source": "oven", "time": 1767571200, "value": 20.5}', b"hello"])
>>> [reader.directory.texts[number] for number in found.series], found.value.tolist()
(['oven'], [20.5])
>>> [(each.place, each.reason[:12]) for each in found.refused]
[(1, 'body: wanted')]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import orjson

from redline.sources.arrow import is_arrow
from redline.sources.directory import SeriesDirectory
from redline.sources.payload import (
    SINGLE_FEATURE,
    BodyError,
    SubmittedPoints,
    parse_document,
    parse_submission,
)
from redline.sources.point_bodies import (
    SINGLE_KEYS,
    batch_of_names,
    is_wide,
    parse_arrow,
    parse_points,
    parse_wide,
)
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import ANY_TIME, SampleBatch, TimeRange

MAX_RECORD = 8 * 2**20  # bytes of one record; a broker takes 1 MiB by default
SMALL_RECORD = 4_096  # bytes: a larger one is checked for the number of its parts before parsing
SINGLE_EVENT = frozenset(SINGLE_KEYS)
MANY_EVENT = frozenset(("source", "time", "values"))
# kinds of records: those of the first two are read together with their neighbours
SINGLES, MANY, OTHER = range(3)
Document = tuple[int, Any]  # (place of its record, its parsed value or its bytes)


class RefusedRecord(NamedTuple):
    """A record that was not read, or not all of it."""

    place: int  # among the records that were read together
    reason: str


class SourceRows(NamedTuple):
    """Points of one pushed source."""

    points: SubmittedPoints
    owner: np.ndarray  # (n,) int, the place of the record of each point


class RecordPoints(NamedTuple):
    """The points of some records, in the order in which they came."""

    series: np.ndarray  # (n,) int64, numbers of the directory
    time: np.ndarray  # (n,) seconds since the Unix epoch
    value: np.ndarray  # (n,) NaN = missing
    owner: np.ndarray  # (n,) int, the place of the record of each sample
    sources: Sequence[SourceRows]
    refused: Sequence[RefusedRecord]


class RecordReader:
    """Reads records to points; one for any number of topics, for one thread at a time."""

    def __init__(self, directory: SeriesDirectory) -> None:
        """Make a reader whose series have the numbers of a directory."""
        self.directory = directory

    def read(self, records: Sequence[bytes | None], allowed: TimeRange = ANY_TIME) -> RecordPoints:
        """Return the points of some records.

        Args:
            records: their values; None is a record without one.
            allowed: the times that samples of series may have.
        """
        turn = ReaderTurn(self.directory, allowed)
        documents = turn.parse(records)
        for kind, group in groupby(documents, lambda document: kind_of(document[1])):
            turn.add_surely(kind, list(group))
        return turn.result()


def kind_of(document: Any) -> int:
    """Return whether a parsed record is one number, several features, or of another form.

    >>> kind_of({"source": "oven", "time": 0, "value": 1}), kind_of([]), kind_of(b"")
    (0, 2, 2)
    """
    if type(document) is not dict or type(document.get("time")) is list:
        return OTHER
    keys = document.keys()
    return SINGLES if keys == SINGLE_EVENT else MANY if keys == MANY_EVENT else OTHER


class ReaderTurn:
    """What is read of some records so far."""

    def __init__(self, directory: SeriesDirectory, allowed: TimeRange) -> None:
        self.directory = directory
        self.allowed = allowed
        self.parts: list[tuple[SampleBatch, np.ndarray]] = []  # with the place of each record
        self.sources: list[SourceRows] = []
        self.refused: list[RefusedRecord] = []

    def parse(self, records: Sequence[bytes | None]) -> Iterator[Document]:
        """Yield the JSON of each record, or its bytes where it is a block of Arrow."""
        for place, record in enumerate(records):
            try:
                yield place, parse_record(record)
            except BodyError as error:
                self.refuse(place, error)
            except RecursionError:
                self.refuse(place, BodyError("body", "JSON", "JSON that is nested too deeply"))

    def add_surely(self, kind: int, documents: list[Document]) -> None:
        """Add neighbouring records; one on which reading fails unforeseen is refused.

        Read again it would fail again, and stop all that come after it.
        """
        before = len(self.parts), len(self.sources), len(self.refused)
        try:
            self.add(kind, documents)
        except Exception as error:  # noqa: BLE001
            parts, sources, refused = before
            del self.parts[parts:], self.sources[sources:], self.refused[refused:]
            if len(documents) > 1:
                for document in documents:
                    self.add_surely(kind, [document])
                return
            came = f"one on which reading fails ({type(error).__name__})"
            self.refuse(documents[0][0], BodyError("body", "a record that can be read", came))

    def refuse(self, place: int, error: Exception) -> None:
        """Refuse one record."""
        self.refused.append(RefusedRecord(place, str(error)))

    def add(self, kind: int, documents: list[Document]) -> None:
        """Add the points of neighbouring records of one kind."""
        if kind == OTHER:
            for place, document in documents:
                self.add_alone(place, document)
        else:
            self.divide(self.add_singles if kind == SINGLES else self.add_many, documents)

    def divide(self, add: Callable[[list[Document]], bool], documents: list[Document]) -> None:
        """Add records together; where that cannot be, each half by itself, down to one."""
        alone = len(documents) == 1
        try:
            if add(documents):
                return
        except (BodyError, SubmissionRefused) as error:
            if alone:
                self.refuse(documents[0][0], error)
        if not alone:
            half = len(documents) // 2
            self.divide(add, documents[:half])
            self.divide(add, documents[half:])

    def add_singles(self, documents: list[Document]) -> bool:
        """Add records of one number each; False = some are refused, and nothing was added."""
        batch = parse_points([each for _, each in documents], self.directory, self.allowed)
        if batch is None:  # no text for a source
            parse_submission(documents[0][1] if len(documents) == 1 else [d for _, d in documents])
            raise BodyError("body", "points of sources", "others")
        if batch.left_out:
            if len(documents) == 1:
                self.add_batch(documents[0][0], batch)
            return len(documents) == 1
        self.parts.append((batch, np.array([place for place, _ in documents])))
        return True

    def add_many(self, documents: list[Document]) -> bool:
        """Add records of several features each."""
        owners: dict[str, list[int]] = {}
        found = parse_submission([each for _, each in documents])
        for place, document in documents:
            owners.setdefault(document["source"], []).append(place)
        for points in found:
            self.add_points(np.array(owners[points.source]), points)
        return True

    def add_alone(self, place: int, document: Any) -> None:
        """Add the points of one record of any form, or refuse it."""
        try:
            batch = self.read_batch(document)
            if batch is not None:
                self.add_batch(place, batch)
                return
            for points in parse_submission(document):
                self.add_points(np.full(len(points.time), place), points)
        except (BodyError, SubmissionRefused, ImportError) as error:
            self.refuse(place, error)

    def read_batch(self, document: Any) -> SampleBatch | None:
        """Return the samples of a record; None = it has features, or is no record of points."""
        if isinstance(document, bytes):
            return parse_arrow(document, self.directory, self.allowed)
        if is_wide(document):
            return parse_wide(document, self.directory, self.allowed)
        return parse_points(document, self.directory, self.allowed)

    def add_points(self, owner: np.ndarray, points: SubmittedPoints) -> None:
        """Add points of one source, with the place of the record of each; one number is a series.

        What is left out is that of the first record: they come one by one then.
        """
        if points.names != SINGLE_FEATURE:
            self.sources.append(SourceRows(points, owner))
            return
        names = [points.source] * len(points.time)
        value = points.x[:, 0]
        batch = batch_of_names(names, points.time, value, self.directory, self.allowed)
        if batch.left_out:
            self.add_batch(int(owner[0]), batch)
        else:
            self.parts.append((batch, owner))

    def add_batch(self, place: int, batch: SampleBatch) -> None:
        """Add the samples of one record; it is refused for those that are left out."""
        count = len(batch.series)
        if count:
            self.parts.append((batch, np.full(count, place)))
        if batch.left_out:
            self.refused.append(RefusedRecord(place, left_out_reason(batch)))

    def result(self) -> RecordPoints:
        """Return all that was added."""
        batches = [batch for batch, _ in self.parts]
        if not batches:
            empty = np.empty(0)
            places = np.empty(0, np.int64)
            return RecordPoints(places, empty, empty, places, self.sources, self.refused)
        return RecordPoints(
            np.concatenate([batch.series for batch in batches]),
            np.concatenate([batch.time for batch in batches]),
            np.concatenate([batch.value for batch in batches]),
            np.concatenate([owner for _, owner in self.parts]),
            self.sources,
            self.refused,
        )


def parse_record(record: bytes | None) -> Any:
    """Return the JSON of a record, a value or a list of its lines; a block of Arrow as it is.

    Raises:
        BodyError: it is neither, or too large.
    """
    if not record:
        raise BodyError("body", "a record with a value", "one without")
    if len(record) > MAX_RECORD:
        wanted = f"at most {MAX_RECORD:,} bytes in a record; write smaller ones"
        raise BodyError("body", wanted, f"{len(record):,}")
    if is_arrow(record):
        return record
    if len(record) <= SMALL_RECORD:
        try:
            return orjson.loads(record)
        except orjson.JSONDecodeError:
            pass  # lines, or it is said what is wrong
    return parse_document(record)


def left_out_reason(batch: SampleBatch) -> str:
    """Return in a sentence what was left out of the samples of a record."""
    count = sum(batch.left_out.values())
    total = count + len(batch.series)
    reason = str(batch.refusals[0]) if batch.refusals else ", ".join(sorted(batch.left_out))
    return f"{count:,} of its {total:,} points are left out: {reason}"
