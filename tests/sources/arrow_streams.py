"""Streams of Arrow IPC, written by Arrow's own library."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

MS = pa.timestamp("ms", "UTC")
START = 1_767_571_200  # seconds since the epoch


def write_stream(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    """Return a stream of batches of the same columns."""
    stream = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with pa.ipc.new_stream(stream, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return stream.getvalue()


def point_batch(
    source: Any = ("oven", "pump"),
    time: Any = (START, START + 60),
    value: Any = (20.5, 3),
    kinds: tuple[Any, Any, Any] = (None, None, None),
) -> pa.RecordBatch:
    """Return a batch with a row for each point; kinds: the types of the columns."""
    columns = dict(zip(("source", "time", "value"), (source, time, value)))
    arrays = {
        name: each if isinstance(each, pa.Array) else pa.array(list(each), kind)
        for (name, each), kind in zip(columns.items(), kinds)
    }
    return pa.record_batch(arrays)


def usual_streams() -> list[bytes]:
    """Return streams of each form that is read."""
    plain = point_batch()
    texts = (pa.large_utf8(), pa.string_view(), pa.dictionary(pa.int8(), pa.utf8()))
    long_names = ("a name that is longer than a view", "Öfen", "oven")
    three = (long_names, (START,) * 3, (1.5, None, -2e3))
    wide = pa.record_batch({"time": pa.array([START, 5], MS), "oven": [1, None], "pump": [0.5, 2]})
    return [
        write_stream(plain, plain),
        *(write_stream(point_batch(*three, (kind, pa.int64(), None))) for kind in texts),
        write_stream(point_batch(*three, (texts[2], MS, pa.float32())), compression="zstd"),
        write_stream(point_batch(*three, (texts[1], MS, None)), compression="lz4"),
        write_stream(wide),
    ]
