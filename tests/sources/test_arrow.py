"""Streams of Arrow IPC: what Arrow's own library writes is read, all else is refused."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources.arrow import ArrowLimits, is_arrow, read_arrow
from redline.sources.pushed import SubmissionRefused
from tests.sources.arrow_streams import MS, START, point_batch, usual_streams, write_stream

TEXTS = (
    *(pa.utf8(), pa.large_utf8(), pa.string_view()),
    *(pa.dictionary(pa.int8(), pa.utf8()), pa.dictionary(pa.uint32(), pa.large_utf8())),
)
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
TIMES = (*(pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "UTC", "Asia/Tokyo")),)
VALUES = (pa.float64(), pa.float32(), pa.int64(), pa.uint8(), pa.int16(), pa.uint64())
NAMES = st.text(max_size=16) | st.sampled_from(["oven", "Ofen 3", "x" * 40])


def read_points(data: bytes, **limits: int) -> list[tuple[str, float, float]]:
    """Return the points of a stream, with None for NaN so that they can be compared."""
    found = []
    for part in read_arrow(data, ArrowLimits()._replace(**limits)):
        names = part.names
        if part.place is not None:
            names = [part.names[place] for place in part.place.tolist()]
        values = [None if value != value else value for value in part.value.tolist()]
        found += list(zip(names, part.time.tolist(), values, strict=True))
    return found


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """Return batches of the same columns, and their points."""
    kinds = tuple(map(draw, map(st.sampled_from, (TEXTS, TIMES, VALUES))))
    found = []
    points = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.lists(st.tuples(NAMES, st.integers(-(2**31), 2**33)), max_size=9))
        numbers = st.none() | st.integers(0, 200)
        values = draw(st.lists(numbers, min_size=len(rows), max_size=len(rows)))
        names = [name for name, _ in rows]
        times = [second for _, second in rows]
        ticks = [second * UNITS[kinds[1].unit] for second in times]
        found.append(point_batch(names, ticks, values, kinds))
        points += zip(names, times, values, strict=True)
    return found, points


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(batches(), st.sampled_from([None, "lz4", "zstd"]))
def test_what_the_library_writes_is_read(made, compression):
    written, points = made
    assert read_points(write_stream(*written, compression=compression)) == points


@pytest.mark.parametrize("ns", [START * 10**9 + 1_000, START * 10**9 + 123_456_789, -1, -1_000])
def test_nanoseconds_are_as_exact_as_a_float_can_be(ns):
    batch = point_batch(("a",), (ns,), (1,), (None, pa.timestamp("ns"), None))
    (point,) = read_points(write_stream(batch))
    assert abs(point[1] - ns / 1e9) <= np.spacing(abs(ns / 1e9))
    if ns % 1_000 == 0:
        assert point[1] == float(f"{ns // 1_000}e-6")


def test_times_in_seconds_and_a_column_without_values():
    batch = point_batch(("a", "b"), (0.5, 1e9), (None, None), (None, pa.float64(), pa.null()))
    assert read_points(write_stream(batch)) == [("a", 0.5, None), ("b", 1e9, None)]
    assert read_points(write_stream(point_batch(time=(1, 2)))) == [
        ("oven", 1, 20.5),
        ("pump", 2, 3),
    ]


def test_a_column_for_each_source():
    wide = pa.record_batch(
        {"oven": [1, None], "time": pa.array([START * 1000, 5_000], MS), "Ofen 3": [0.5, 2]}
    )
    assert read_points(write_stream(wide, wide))[:4] == [
        *(("oven", START, 1.0), ("Ofen 3", START, 0.5)),
        *(("oven", 5.0, None), ("Ofen 3", 5.0, 2.0)),
    ]


def test_a_slice_and_a_dictionary_that_grows_and_one_that_is_replaced():
    whole = point_batch(("a", "b", "c", "d"), (1, 2, 3, 4), (1, None, 3, 4))
    assert read_points(write_stream(whole.slice(1, 2))) == [("b", 2, None), ("c", 3, 3)]
    first = pa.array(["a", "b"]).dictionary_encode()
    for texts in (["a", "b", "c"], ["x", "y", "c"]):
        second = pa.DictionaryArray.from_arrays(pa.array([0, 2], pa.int32()), texts)
        data = write_stream(point_batch(first), point_batch(second))
        assert [name for name, _, _ in read_points(data)] == ["a", "b", texts[0], "c"]


def test_a_stream_without_its_end_mark_is_read():
    data = write_stream(point_batch())
    assert data.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    assert read_points(data[:-8]) == read_points(data)


@pytest.mark.parametrize("data", usual_streams())
def test_a_stream_that_is_cut_is_refused(data):
    assert is_arrow(data)
    whole = read_points(data)
    cuts = 0
    for end in range(len(data)):
        try:
            found = read_points(data[:end])
        except SubmissionRefused as refusal:
            assert refusal.field == "body"
            cuts += 1
        else:
            assert found == whole[: len(found)], "only between two messages"
    assert cuts >= len(data) - 5


A, B = pa.array(["a"]), pa.array([1])
FOREIGN = {
    "source": [pa.array([1]), pa.array([b"a"]), pa.array([["a"]]), B.dictionary_encode()],
    "time": [A, pa.array([None], MS), pa.array([1], pa.date32()), pa.array([True])],
    "value": [A, pa.array([True]), pa.array([[1.0]]), B.dictionary_encode(), pa.array([1], MS)],
}


@pytest.mark.parametrize(
    ("name", "column"), [(name, each) for name, columns in FOREIGN.items() for each in columns]
)
def test_a_column_of_another_type_is_named(name, column):
    columns = {"source": A, "time": B, "value": B} | {name: column}
    with pytest.raises(SubmissionRefused) as caught:
        read_points(write_stream(pa.record_batch(columns)))
    assert caught.value.field == name


@pytest.mark.parametrize(
    "names", ["source time", "time value", "source value", "source time value more", "time", "a"]
)
def test_columns_that_are_missing_or_too_many_are_refused(names):
    columns = {name: A if name == "source" else B for name in names.split()}
    with pytest.raises(SubmissionRefused, match="the columns source, time, value"):
        read_points(write_stream(pa.record_batch(columns)))


def test_a_name_that_is_missing_and_a_column_twice_are_refused():
    with pytest.raises(SubmissionRefused, match="source: wanted a name in every row"):
        read_points(write_stream(point_batch(("a", None))))
    twice = pa.RecordBatch.from_arrays([B, B, B], names=["time", "a", "a"])
    with pytest.raises(SubmissionRefused, match="one for each source"):
        read_points(write_stream(twice))


def test_other_bytes_are_refused():
    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, point_batch().schema) as writer:
        writer.write_batch(point_batch())
    data = write_stream(point_batch())
    schema = point_batch().schema.serialize().to_pybytes()
    others = {
        "a file of Arrow": file.getvalue().to_pybytes(),
        "bytes after its end": data + b"x",
        "begins with its schema": data[len(schema) :],
        "before each message": b"{}" + data,
        "after the schema": schema + data,
    }
    for words, body in others.items():
        with pytest.raises(SubmissionRefused, match=words):
            read_points(body)


def test_limits_hold_before_room_is_made():
    batch = point_batch(pa.array(["a", "b"]).dictionary_encode())
    data = write_stream(batch, batch, batch)
    for limit, words in (
        ({"cells": 5}, "at most 5 points"),
        ({"cells": 1}, "0 to 1 rows"),
        ({"columns": 2}, "at most 2 columns"),
        ({"batches": 2}, "at most 2 batches"),
        ({"names": 1}, "at most 1 names"),
        ({"size": 100}, "at most 100 bytes"),
    ):
        with pytest.raises(SubmissionRefused, match=words):
            read_points(data, **limit)
    assert len(read_points(data, cells=6, columns=3, batches=4, names=2, size=500)) == 6


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_stream_takes_no_more_than_the_limit(codec):
    rows = 1_000_000
    columns = {"time": pa.array(np.zeros(rows, np.int64)), "a": pa.array(np.zeros(rows))}
    data = write_stream(pa.record_batch(columns), compression=codec)
    assert len(data) < 200_000 and len(read_points(data)) == rows
    tracemalloc.start()
    try:
        with pytest.raises(SubmissionRefused, match="at most 1,000,000 bytes in all columns"):
            read_points(data, size=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    sizes = struct.pack("<q", 8 * rows)
    for lie in (8 * rows - 8, 8 * rows + 8, -2):  # the size that stands before a buffer
        with pytest.raises(SubmissionRefused, match=r"compressed with|a negative size"):
            read_points(data.replace(sizes, struct.pack("<q", lie)))


def test_rows_without_bytes_are_refused():
    batch = pa.record_batch({"time": pa.nulls(3), "a": pa.nulls(3)})
    with pytest.raises(SubmissionRefused, match="timestamps"):
        read_points(write_stream(batch))
    many = pa.record_batch({"time": pa.array([1, 2]), "a": pa.nulls(2)})
    data = write_stream(many).replace(struct.pack("<q", 2), struct.pack("<q", 2**40))
    with pytest.raises(SubmissionRefused, match="rows; send more in parts"):
        read_points(data)


def test_views_of_the_same_bytes_count_each():
    text = "x" * 1_000
    view = struct.pack("<i4sii", len(text), text[:4].encode(), 0, 0)
    buffers = [None, pa.py_buffer(view * 50), pa.py_buffer(text.encode())]
    array = pa.Array.from_buffers(pa.string_view(), 50, buffers)
    data = write_stream(point_batch(array, [1] * 50, [1] * 50))
    assert len(read_points(data)) == 50
    with pytest.raises(SubmissionRefused, match="at most 20,000 bytes"):
        read_points(data, size=20_000)


@pytest.mark.parametrize("kind", [pa.utf8(), pa.string_view(), pa.dictionary(pa.int8(), pa.utf8())])
def test_a_byte_that_is_another_is_refused_or_read(kind):
    names = ("a name of more than twelve", "b", "Öfen")
    data = write_stream(point_batch(names, (1, 2, 3), (1, None, 3), (kind, None, None)))
    read = 0
    for at in range(len(data)):
        for byte in (0, 1, 127, 255):
            try:
                read += len(read_points(data[:at] + bytes([byte]) + data[at + 1 :])) > 0
            except SubmissionRefused as refusal:
                assert len(str(refusal).split()) > 3
    assert read > len(data)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    assert len(read_points(write_stream(point_batch()))) == 2
    with pytest.raises(ImportError, match=r"pip install 'redline\[arrow\]'"):
        read_points(write_stream(point_batch(), compression="lz4"))


@pytest.mark.parametrize("offsets", [(0, 4, 9), (-1, 4, 8), (4, 0, 8), (0, 9, 8)])
def test_texts_beyond_their_buffer_are_refused(offsets):
    data = write_stream(point_batch())
    usual = struct.pack("<iii", 0, 4, 8)
    assert data.count(usual) == 1
    with pytest.raises(SubmissionRefused, match="source: wanted texts within 8 bytes"):
        read_points(data.replace(usual, struct.pack("<iii", *offsets)))
