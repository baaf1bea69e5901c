"""Streams of Arrow IPC, read to columns of names, times and numbers.

A stream is a schema, then dictionaries and record batches: metadata as FlatBuffers, then a body
with the bytes of the columns. Two layouts are read: a row for each point (`source`, `time`,
`value`), or a row for each time (`time`, and a column for each source).

Nothing is taken on trust: lengths and counts are checked before room is made for what they
announce, and places within the bytes before these are read. The reader is of this project, and no
library, because a stream comes from outside: a library of native code ends the whole program where
such a check is missing. Source: "Arrow Columnar Format", versions 1.0 to 1.5, of the Apache Arrow
project.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from redline.sources.compression import CODECS, decompress_buffer
from redline.sources.flat_tables import FlatTable
from redline.sources.pushed import TOTAL_QUEUE_POINTS, SubmissionRefused

CONTINUATION = b"\xff\xff\xff\xff"  # before each message
FILE_MAGIC = b"ARROW1"
SCHEMA, DICTIONARY, RECORDS = 1, 2, 3  # kinds of messages
MESSAGE_HEAD = 8  # bytes: CONTINUATION, the length of the metadata
TYPES = (
    *("none", "null", "int", "floating point", "binary", "utf8", "bool", "decimal", "date"),
    *("time", "timestamp", "interval", "list", "struct", "union", "fixed size binary"),
    *("fixed size list", "map", "duration", "large binary", "large utf8", "large list"),
    *("run-end encoded", "binary view", "utf8 view", "list view", "large list view"),
)
FLOATS = (np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8"))  # by precision
UNITS = (1, 1_000, 1_000_000, 1_000_000_000)  # of a timestamp, in a second
TEXTS = ("utf8", "large utf8", "utf8 view")
ROWS = ("source", "time", "value")  # the columns of the layout with a row for each point
# column -> what is wanted of it, the types that it may have
COLUMN_TYPES = {
    "source": ("a column of texts", TEXTS),
    "time": ("a column of timestamps, or of seconds", ("timestamp", "int", "floating point")),
}
VALUES = ("a column of numbers", ("int", "floating point", "null"))
SIZE = struct.Struct("<q")  # of a compressed buffer, before it
STORED = -1  # in place of the size: this buffer is not compressed
VIEW_INLINE = 12  # bytes of a text that stands within its view
VIEW = np.dtype([("length", "<i4"), ("prefix", "<u4"), ("buffer", "<i4"), ("offset", "<i4")])


class ArrowLimits(NamedTuple):
    """The limits of one stream."""

    columns: int = 10_000
    batches: int = 10_000  # dictionaries included
    names: int = 250_000  # texts of all columns and dictionaries
    cells: int = TOTAL_QUEUE_POINTS  # values of all columns
    size: int = 64 * 2**20  # bytes of all buffers together, decompressed


class ArrowColumn(NamedTuple):
    """A column as the schema describes it."""

    name: str
    kind: str  # of TYPES
    dtype: np.dtype  # of its numbers, or of the offsets of its texts
    unit: int  # of a timestamp, in a second; of other numbers 1
    dictionary: int | None  # the id of its dictionary; None = it has none
    codes: np.dtype  # of the places in its dictionary


class ArrowPoints(NamedTuple):
    """The points of one record batch, n of them."""

    names: Sequence[str]  # the different sources, or one for each point
    place: np.ndarray | None  # (n,) of the source of each point in `names`; None = one for each
    time: np.ndarray  # (n,) seconds since the Unix epoch
    value: np.ndarray  # (n,) NaN = missing


def is_arrow(body: bytes) -> bool:
    """Return whether a body begins as a stream of Arrow does, or a file of it; JSON never does."""
    return body.startswith((CONTINUATION, FILE_MAGIC))


def read_arrow(body: bytes, limits: ArrowLimits = ArrowLimits()) -> Iterator[ArrowPoints]:  # noqa: B008
    """Yield the points of each record batch of a stream.

    Raises:
        SubmissionRefused: not such a stream, other columns, or beyond a limit.
        ImportError: it is compressed and the library for that is missing; says what to install.
    """
    if body.startswith(FILE_MAGIC):
        wanted = "a stream of Arrow IPC, as pyarrow.ipc.new_stream writes it"
        raise SubmissionRefused("body", wanted, "a file of Arrow IPC")
    messages = read_messages(body, limits.batches)
    first = next(messages, None)
    if first is None or first.kind != SCHEMA:
        raise SubmissionRefused("body", "a stream that begins with its schema", "another")
    reader = BatchReader(read_schema(first.header, limits.columns), limits)
    for message in messages:
        if message.kind == DICTIONARY:
            reader.read_dictionary(message)
        elif message.kind == RECORDS:
            yield reader.read_records(message)
        else:
            wanted = "record batches and dictionaries after the schema"
            raise SubmissionRefused("body", wanted, f"a message of kind {message.kind}")


class ArrowMessage(NamedTuple):
    """One message of a stream."""

    kind: int
    header: FlatTable
    body: memoryview


def read_messages(data: bytes, most: int) -> Iterator[ArrowMessage]:
    """Yield the messages of a stream, at most so many after the first."""
    at = 0
    view = memoryview(data)
    for count in range(most + 2):
        if at == len(data):
            return
        head = data[at : at + MESSAGE_HEAD]
        if not head.startswith(CONTINUATION):
            wanted = "FF FF FF FF before each message, as since version 0.15 of Arrow"
            raise SubmissionRefused("body", wanted, f"{head.hex(' ') or 'none'} at byte {at:,}")
        size = int.from_bytes(head[len(CONTINUATION) :], "little")
        start = at + MESSAGE_HEAD
        if not size and len(head) == MESSAGE_HEAD:  # the end of the stream
            refuse_rest(len(data) - start)
            return
        refuse_truncated(start + size, len(data))
        if count > most:
            break
        table = FlatTable.root(data[start : start + size])
        header = table.table(2)
        length = table.number(3, "q")
        if header is None or length < 0:
            raise SubmissionRefused("body", "a message with a header and a body", "none")
        at = start + size + length
        refuse_truncated(at, len(data))
        yield ArrowMessage(table.number(1, "B"), header, view[start + size : at])
    raise SubmissionRefused("body", f"at most {most:,} batches; write larger ones", "more")


def refuse_truncated(end: int, size: int) -> None:
    """Refuse a stream that ends within a message."""
    if end > size:
        wanted = "a whole stream; close its writer before it is sent"
        raise SubmissionRefused("body", wanted, f"{size:,} bytes of at least {end:,}")


def refuse_rest(size: int) -> None:
    """Refuse bytes after the end of a stream."""
    if size:
        wanted = "one stream; send others by themselves"
        raise SubmissionRefused("body", wanted, f"{size:,} bytes after its end")


def read_schema(schema: FlatTable, most: int) -> list[ArrowColumn]:
    """Return the columns of a schema."""
    if schema.number(0, "h"):
        raise SubmissionRefused("body", "numbers with the lowest byte first", "the highest first")
    return [read_column(field) for field in schema.tables(1, most, "columns")]


def read_column(field: FlatTable) -> ArrowColumn:
    """Return one column of a schema; SubmissionRefused for a type that no column may have."""
    name = field.text(0)
    code = field.number(2, "B")
    kind = TYPES[code] if code < len(TYPES) else f"type {code}"
    wanted, kinds = COLUMN_TYPES.get(name, VALUES)
    table = field.table(3)
    dtype = None if table is None or kind not in kinds else number_type(kind, table)
    if table is None or dtype is None:
        raise SubmissionRefused(shorten_name(name), wanted, f"one of type {kind}")
    place = table.number(0, "h") if kind == "timestamp" else -1
    unit = UNITS[place] if 0 <= place < len(UNITS) else 1
    encoding = field.table(4)
    if encoding is None:
        return ArrowColumn(name, kind, dtype, unit, None, dtype)
    index = encoding.table(1)
    codes = np.dtype("<i4") if index is None else whole_number(index)
    if codes is None or kind not in TEXTS:
        raise SubmissionRefused(shorten_name(name), wanted, "one with a dictionary of others")
    return ArrowColumn(name, kind, dtype, unit, encoding.number(0, "q"), codes)


def number_type(kind: str, table: FlatTable) -> np.dtype | None:
    """Return the type of a column's numbers, or of the offsets of its texts; None = none."""
    if kind == "int":
        return whole_number(table)
    if kind == "floating point":
        precision = table.number(0, "h")
        return FLOATS[precision] if 0 <= precision < len(FLOATS) else None
    return np.dtype("<i8" if kind in ("timestamp", "large utf8") else "<i4")


def whole_number(table: FlatTable) -> np.dtype | None:
    """Return the type that a table of whole numbers describes; None = there is none."""
    bits = table.number(0, "i")
    if bits not in (8, 16, 32, 64):
        return None
    return np.dtype(f"<{'i' if table.number(1, '?') else 'u'}{bits // 8}")


def shorten_name(name: str) -> str:
    """Return the name of a column as an answer may hold it."""
    return name if len(name) <= 80 else f"{name[:79]}…"


class BufferReader:
    """The buffers of one message, taken one after the other."""

    def __init__(self, message: ArrowMessage, records: FlatTable, budget: SizeBudget) -> None:
        """Begin with the first buffer; budget: of the whole stream."""
        self.body = message.body
        self.places = records.longs(2, 2)  # (n, 2) offset and length
        self.at = 0
        self.budget = budget
        compression = records.table(3)
        code = -1 if compression is None else compression.number(0, "b")
        if compression is not None and not 0 <= code < len(CODECS):
            raise SubmissionRefused("body", "buffers compressed with lz4 or zstd", f"codec {code}")
        self.codec = "" if compression is None else CODECS[code]

    def take(self) -> memoryview:
        """Return the bytes of the next buffer, decompressed."""
        if self.at >= len(self.places):
            raise SubmissionRefused("body", "the buffers of every column", f"{self.at:,} of them")
        offset, length = self.places[self.at].tolist()
        self.at += 1
        if offset < 0 or length < 0 or offset + length > len(self.body):
            wanted = f"buffers within the {len(self.body):,} bytes of their message"
            raise SubmissionRefused("body", wanted, f"{length:,} bytes at {offset:,}")
        data = self.body[offset : offset + length]
        if self.codec and length:
            return self._decompress(data)
        self.budget.spend(length)
        return data

    def numbers(self, dtype: np.dtype, count: int) -> np.ndarray:
        """Return the next buffer as so many numbers, or more where it holds more."""
        return as_numbers(self.take(), dtype, count)

    def _decompress(self, data: memoryview) -> memoryview:
        """Return what a compressed buffer holds: its size stands before it."""
        if len(data) < SIZE.size:
            raise SubmissionRefused("body", "the size of a compressed buffer before it", "none")
        size = SIZE.unpack_from(data)[0]
        rest = data[SIZE.size :]
        if size == STORED:
            self.budget.spend(len(rest))
            return rest
        self.budget.spend(size)
        return decompress_buffer(rest, self.codec, size)


class SizeBudget:
    """The bytes that the buffers of a stream may take together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.spent = 0

    def spend(self, size: int) -> None:
        """Count some bytes; SubmissionRefused where they are too many."""
        self.spent += size
        if size < 0 or self.spent > self.most:
            wanted = f"at most {self.most:,} bytes in all columns; send them in parts"
            raise SubmissionRefused("body", wanted, "a negative size" if size < 0 else "more")


def as_numbers(data: memoryview, dtype: np.dtype, count: int) -> np.ndarray:
    """Return the first numbers of a buffer, (count,); SubmissionRefused where it has fewer."""
    if count * dtype.itemsize > len(data):
        wanted = f"a buffer of {count:,} numbers of {dtype.itemsize} bytes"
        raise SubmissionRefused("body", wanted, f"{len(data):,} bytes")
    return np.frombuffer(data, dtype, count)


class BatchReader:
    """Reads the dictionaries and record batches of one stream."""

    def __init__(self, columns: Sequence[ArrowColumn], limits: ArrowLimits) -> None:
        """Take the columns of the schema; SubmissionRefused where they are of no known layout."""
        self.columns = columns
        self.limits = limits
        self.budget = SizeBudget(limits.size)
        self.dictionaries: dict[int, list[str]] = {}
        self.names_read = 0
        self.cells_read = 0
        names = [column.name for column in columns]
        self.has_rows = "source" in names or "value" in names  # a row for each point
        self.sources = [name for name in names if name != "time"]  # of the other layout
        wanted = "the columns source, time, value; or time, and one for each source"
        if self.has_rows and sorted(names) != sorted(ROWS):
            raise SubmissionRefused("body", wanted, shorten_name(", ".join(names)))
        if len(set(names)) < len(names) or "time" not in names or not self.sources:
            raise SubmissionRefused("body", wanted, shorten_name(", ".join(names)) or "none")

    def read_dictionary(self, message: ArrowMessage) -> None:
        """Read the texts of a dictionary, in place of those before it or after them."""
        number = message.header.number(0, "q")
        records = message.header.table(1)
        column = next((one for one in self.columns if one.dictionary == number), None)
        if column is None or records is None:
            raise SubmissionRefused("body", "dictionaries of the columns", f"one of {number}")
        before = self.dictionaries.get(number, []) if message.header.number(2, "?") else []
        count = self._count_rows(records)
        found = self._read_texts(
            BufferReader(message, records, self.budget), column, count, records
        )
        self.dictionaries[number] = before + found

    def read_records(self, message: ArrowMessage) -> ArrowPoints:
        """Return the points of a record batch."""
        records = message.header
        rows = self._count_rows(records)
        buffers = BufferReader(message, records, self.budget)
        nodes = records.longs(1, 2)  # (columns, 2) rows and missing ones
        if len(nodes) != len(self.columns) or (nodes[:, 0] != rows).any():
            wanted = f"{len(self.columns):,} columns of {rows:,} rows"
            raise SubmissionRefused("body", wanted, f"{len(nodes):,}, or of others")
        self.cells_read += rows * (1 if self.has_rows else len(self.sources))
        if self.cells_read > self.limits.cells:
            wanted = f"at most {self.limits.cells:,} points; send them in parts"
            raise SubmissionRefused("body", wanted, "more")
        names: list[str] = []
        place = None
        time = np.empty(0)
        values = []
        for column, missing in zip(self.columns, nodes[:, 1].tolist()):
            if column.name == "source":
                names, place = self._read_sources(buffers, column, rows, missing, records)
            elif column.name == "time":
                time = read_times(buffers, column, rows, missing)
            else:
                values.append(read_values(buffers, column, rows, missing))
        if self.has_rows:
            return ArrowPoints(names, place, time, values[0])
        width = len(values)
        place = np.tile(np.arange(width), rows)
        return ArrowPoints(self.sources, place, np.repeat(time, width), np.stack(values, 1).ravel())

    def _count_rows(self, records: FlatTable) -> int:
        """Return the rows of a batch, which may not be more than the limit."""
        rows = records.number(0, "q")
        if not 0 <= rows <= self.limits.cells:
            wanted = f"0 to {self.limits.cells:,} rows; send more in parts"
            raise SubmissionRefused("body", wanted, f"{rows:,}")
        return rows

    def _read_sources(
        self,
        buffers: BufferReader,
        column: ArrowColumn,
        rows: int,
        missing: int,
        records: FlatTable,
    ) -> tuple[list[str], np.ndarray | None]:
        """Return the names of a batch, and the place in them for each row if they are others."""
        if missing:
            raise SubmissionRefused("source", "a name in every row", f"{missing:,} rows without")
        if column.dictionary is None:
            return self._read_texts(buffers, column, rows, records), None
        buffers.take()  # which are missing: none
        codes = buffers.numbers(column.codes, rows)
        names = self.dictionaries.get(column.dictionary, [])
        if rows and not (codes.min() >= 0 and codes.max() < len(names)):
            wanted = f"places in a dictionary of {len(names):,} names"
            raise SubmissionRefused("source", wanted, f"{codes.min():,} to {codes.max():,}")
        return names, codes.astype(np.int64)

    def _read_texts(
        self, buffers: BufferReader, column: ArrowColumn, count: int, records: FlatTable
    ) -> list[str]:
        """Return so many texts."""
        self.names_read += count
        if self.names_read > self.limits.names:
            wanted = f"at most {self.limits.names:,} names; send them in parts, or a dictionary"
            raise SubmissionRefused("source", wanted, "more")
        buffers.take()  # which are missing: none
        if column.kind == "utf8 view":
            return read_views(buffers, count, records)
        if not count:
            buffers.take()
            buffers.take()
            return []
        offsets = buffers.numbers(column.dtype, count + 1)
        data = buffers.take()
        if offsets[0] < 0 or offsets[-1] > len(data) or (offsets[1:] < offsets[:-1]).any():
            raise SubmissionRefused("source", f"texts within {len(data):,} bytes", "others")
        return decode_texts(bytes(data), offsets[:-1].tolist(), offsets[1:].tolist())


def read_views(buffers: BufferReader, count: int, records: FlatTable) -> list[str]:
    """Return so many texts that stand within their views, or in one of several buffers."""
    views = buffers.take()
    counts = records.longs(4, 1)[:, 0].tolist()
    if len(counts) != 1 or not 0 <= counts[0] <= len(buffers.places):
        raise SubmissionRefused("body", "the number of buffers of a column of views", f"{counts}")
    parts = [views, *(buffers.take() for _ in range(counts[0]))]
    view = as_numbers(views, VIEW, count)
    length = view["length"].astype(np.int64)
    inline = length <= VIEW_INLINE
    part = np.where(inline, 0, view["buffer"].astype(np.int64) + 1)
    at = np.where(inline, VIEW.itemsize * np.arange(count) + 4, view["offset"].astype(np.int64))
    if ((part < 0) | (part >= len(parts)) | (~inline & (part < 1))).any():
        raise SubmissionRefused("source", f"texts in {len(parts) - 1:,} buffers", "another")
    sizes = np.array(list(map(len, parts)), dtype=np.int64)
    begins = np.cumsum(sizes) - sizes
    if ((length < 0) | (at < 0) | (at + length > sizes[part])).any():
        raise SubmissionRefused("source", "texts within their buffers", "others")
    buffers.budget.spend(int(length.sum()))  # several views may be of the same bytes
    starts = begins[part] + at
    return decode_texts(b"".join(parts), starts.tolist(), (starts + length).tolist())


def decode_texts(data: bytes, starts: Sequence[int], ends: Sequence[int]) -> list[str]:
    """Return the texts between places of the bytes."""
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in zip(starts, ends)]
    try:
        return [data[start:end].decode() for start, end in zip(starts, ends)]
    except UnicodeDecodeError as error:
        raise SubmissionRefused("source", "names in UTF-8", error.reason) from None


def read_times(buffers: BufferReader, column: ArrowColumn, rows: int, missing: int) -> np.ndarray:
    """Return the times of a batch, (rows,) seconds since the Unix epoch."""
    if missing:
        raise SubmissionRefused("time", "a time in every row", f"{missing:,} rows without")
    buffers.take()  # which are missing: none
    time = buffers.numbers(column.dtype, rows)
    if column.unit == UNITS[-1] and not (time % 1_000).any():
        return np.asarray(time // 1_000 / UNITS[-2])  # exact, as nanoseconds in a float are not
    return np.asarray(time / np.float64(column.unit), dtype=np.float64)


def read_values(buffers: BufferReader, column: ArrowColumn, rows: int, missing: int) -> np.ndarray:
    """Return the values of a column, (rows,) float64, NaN = missing."""
    if column.kind == "null":
        return np.full(rows, np.nan)
    validity = buffers.take()
    value = buffers.numbers(column.dtype, rows).astype(np.float64)
    if missing:
        bits = as_numbers(validity, np.dtype(np.uint8), -(-rows // 8))
        value[np.unpackbits(bits, count=rows, bitorder="little") == 0] = np.nan
    return value
