"""Writes streams of Arrow IPC: a row for each time, a column of numbers for each source.

All columns are floats of 64 bits, a missing value is NaN, so that a stream is a schema, and one
record batch whose body is the columns as they lie in memory. The metadata are FlatBuffers, written
from the front: a table, then what it refers to. Source: "Arrow Columnar Format", version 1.5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from redline.sources.arrow import CONTINUATION, RECORDS, SCHEMA

VERSION = 4  # of the metadata: V5
FLOATING_POINT = 3  # the kind of a type
DOUBLE_PRECISION = 2  # its precision
ALIGNMENT = 8  # bytes; of a message, of a buffer, and of the largest number of a table


class FlatNumber(NamedTuple):
    """A number of a table, in a format of `struct`."""

    form: str
    value: int


class FlatWriter:
    """Bytes of tables, written one after the other."""

    def __init__(self) -> None:
        self.data = bytearray(4)  # the place of the root

    def pad(self, remainder: int = 0) -> int:
        """Add zeros until the length is a multiple of ALIGNMENT and a remainder; return it."""
        self.data += bytes((remainder - len(self.data)) % ALIGNMENT)
        return len(self.data)

    def refer(self, place: int, target: int) -> None:
        """Write at a place how far from it a target is."""
        struct.pack_into("<I", self.data, place, target - place)

    def table(self, fields: Mapping[int, FlatNumber | Callable[[], int]]) -> int:
        """Write a table, then what it refers to; return where it begins.

        fields: by number, a number itself or a function that writes the target and returns its
            place.
        """
        sizes = {
            at: struct.calcsize(f"<{field.form}") if isinstance(field, FlatNumber) else 4
            for at, field in fields.items()
        }
        places: dict[int, int] = {}
        end = 4  # after the place of the list of fields
        for at in sorted(sizes, key=lambda at: sizes[at]):
            end += -end % sizes[at]
            places[at] = end
            end += sizes[at]
        count = 1 + max(fields)
        entries = [places.get(at, 0) for at in range(count)]
        listed = self.pad()
        self.data += struct.pack(f"<{2 + count}H", 4 + 2 * count, end, *entries)
        begin = self.pad()
        self.data += struct.pack("<i", begin - listed) + bytes(end - 4)
        for at, field in fields.items():
            if isinstance(field, FlatNumber):
                struct.pack_into(f"<{field.form}", self.data, begin + places[at], field.value)
        for at, field in fields.items():
            if not isinstance(field, FlatNumber):
                self.refer(begin + places[at], field())
        return begin

    def text(self, text: str) -> int:
        """Write a text; return where it begins."""
        encoded = text.encode()
        begin = self.pad()
        self.data += struct.pack("<I", len(encoded)) + encoded + b"\0"
        return begin

    def records(self, rows: np.ndarray) -> int:
        """Write a list of records of whole numbers, (n, width); return where it begins."""
        begin = self.pad(ALIGNMENT - 4)  # so that the records are aligned
        self.data += struct.pack("<I", len(rows)) + rows.astype("<i8").tobytes()
        return begin

    def tables(self, writers: Sequence[Callable[[], int]]) -> int:
        """Write a list of tables; return where it begins."""
        begin = self.pad()
        self.data += struct.pack("<I", len(writers)) + bytes(4 * len(writers))
        for at, write in enumerate(writers):
            self.refer(begin + 4 + 4 * at, write())
        return begin


def write_arrow(names: Sequence[str], time: np.ndarray, x: np.ndarray) -> bytes:
    """Return a stream with the values of some sources at some times.

    Args:
        names: of the sources, each once, none of them "time".
        time: (n,) seconds since the Unix epoch.
        x: (n, sources), NaN = missing.
    """
    schema = FlatWriter()
    columns = [lambda name=name: _write_field(schema, name) for name in ("time", *names)]
    schema.refer(0, _write_message(schema, SCHEMA, 0, {1: lambda: schema.tables(columns)}))
    rows, width = len(time), 1 + len(names)
    size = rows * 8
    body = np.concatenate([time[None], x.T]).astype("<f8").tobytes()
    nodes = np.tile([rows, 0], (width, 1))
    # of each column where missing values are listed, which they are not, then its numbers
    begins = np.repeat(size * np.arange(width), 2)
    buffers = np.stack([begins, np.tile([0, size], width)], axis=1)
    batch = FlatWriter()
    parts: dict[int, FlatNumber | Callable[[], int]] = {
        0: FlatNumber("q", rows),
        1: lambda: batch.records(nodes),
        2: lambda: batch.records(buffers),
    }
    batch.refer(0, _write_message(batch, RECORDS, len(body), parts))
    end = CONTINUATION + bytes(4)
    return _framed(schema) + _framed(batch) + body + end


def _write_message(
    writer: FlatWriter,
    kind: int,
    body: int,
    header: Mapping[int, FlatNumber | Callable[[], int]],
) -> int:
    """Write the table of a message with a body of so many bytes; return where it begins."""
    return writer.table(
        {
            0: FlatNumber("h", VERSION),
            1: FlatNumber("B", kind),
            2: lambda: writer.table(header),
            3: FlatNumber("q", body),
        }
    )


def _write_field(writer: FlatWriter, name: str) -> int:
    """Write the table of a column of floats; return where it begins."""
    return writer.table(
        {
            0: lambda: writer.text(name),
            1: FlatNumber("?", True),
            2: FlatNumber("B", FLOATING_POINT),
            3: lambda: writer.table({0: FlatNumber("h", DOUBLE_PRECISION)}),
            5: lambda: writer.tables([]),
        }
    )


def _framed(writer: FlatWriter) -> bytes:
    """Return the metadata of a message with what stands before them."""
    size = writer.pad()
    return CONTINUATION + struct.pack("<i", size) + bytes(writer.data)
