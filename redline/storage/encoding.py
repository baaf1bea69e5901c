"""Encoding of points, states and settings as stored bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

import numpy as np

from redline.engine.results import Batch
from redline.settings import Settings

NUMBER_TYPE = re.compile(r"[<>|][biuf]\d{1,2}", re.ASCII)  # as numpy writes it, without more
ROW_HEADER = 3  # columns of a row of points before the features: time, score, alarm


def pack_state(state: Mapping[str, np.ndarray]) -> bytes:
    """Return named arrays as bytes; {} is no bytes."""
    if not state:
        return b""
    head = json.dumps(
        [(name, value.dtype.str, value.shape) for name, value in state.items()]
    ).encode()
    return (
        len(head).to_bytes(4, "little")
        + head
        + b"".join(np.ascontiguousarray(value).tobytes() for value in state.values())
    )


def unpack_state(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays that `pack_state` packed.

    Raises:
        ValueError: the bytes are no packed state.
    """
    try:
        head_end = 4 + int.from_bytes(data[:4], "little")
        forms = json.loads(data[4:head_end]) if data else []
        state: dict[str, np.ndarray] = {}
        at = head_end if data else 0
        for name, kind, shape in forms:
            state[str(name)] = value = _array_at(data, at, kind, shape)
            at += value.nbytes
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"wanted a packed state, came other bytes ({error})") from error
    if at != len(data) or len(state) != len(forms):
        raise ValueError("wanted a packed state, came one that is cut, or of arrays named twice")
    return state


def _array_at(data: bytes, at: int, kind: str, shape: Sequence[int]) -> np.ndarray:
    """Return the array of a type and shape that begins at a byte; ValueError = there is none."""
    if not NUMBER_TYPE.fullmatch(kind) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("no array of numbers")
    dtype = np.dtype(kind)
    size = math.prod(shape)
    if size * dtype.itemsize > len(data) - at:
        raise ValueError("an array longer than the rest")
    return np.frombuffer(data, dtype, size, at).reshape(shape)


def encode_rows(batch: Batch) -> bytes:
    """Return the points of a batch as rows (n, 3 + features) of float64."""
    rows = np.empty((len(batch.time), ROW_HEADER + batch.x.shape[1]), "<f8")
    rows[:, 0] = batch.time
    rows[:, 1] = batch.score
    rows[:, 2] = batch.alarm
    rows[:, ROW_HEADER:] = batch.x
    return rows.tobytes()


def encode_chunks(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Return batches of one stream as chunks; contiguous ones become one."""
    chunks: list[dict[str, Any]] = []
    for batch in batches:
        if chunks and chunks[-1]["first"] + chunks[-1]["n"] == batch.first:
            last = chunks[-1]
            chunks[-1] = last | {
                "n": last["n"] + len(batch.time),
                "newest": float(batch.time[-1]),
                "rows": last["rows"] + encode_rows(batch),
            }
        else:
            times = {"oldest": float(batch.time[0]), "newest": float(batch.time[-1])}
            chunks.append(
                {"first": batch.first, "n": len(batch.time), "rows": encode_rows(batch), **times}
            )
    return chunks


@lru_cache(maxsize=1_000)
def settings_json(value: Settings | tuple[str, ...]) -> str:
    """Return settings or names as JSON."""
    return json.dumps(asdict(value) if isinstance(value, Settings) else value)


def decode_rows(chunks: Sequence[bytes], features: int) -> np.ndarray:
    """Return the rows (n, 3 + features) of some chunks."""
    return np.frombuffer(b"".join(chunks), "<f8").reshape(-1, ROW_HEADER + features)


def settings_from_json(text: str) -> Settings:
    """Return the settings in a JSON text, without those that this version does not know."""
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in json.loads(text).items() if name in known})


def finite_or_none(value: float) -> float | None:
    """Return a number, or None for NaN, which the database stores as NULL."""
    return None if value != value else float(value)


def none_to_nan(value: float | None) -> float:
    """Return a number, or NaN for None."""
    return float("nan") if value is None else value


def journal_row(row: Any) -> tuple[Any, ...]:
    """Return a stored row as the fields of an Anomaly."""
    place = (
        row.number,
        row.step,
        row.time,
        row.place,
        none_to_nan(row.value),
        none_to_nan(row.low),
        none_to_nan(row.high),
    )
    return (*place, row.score, row.threshold, row.run, row.alarm, row.id)


def late_matrix(points: Sequence[Any], features: int) -> np.ndarray:
    """Return late points as rows (n, 3 + features), without a score."""
    rows = np.full((len(points), ROW_HEADER + features), np.nan)
    for row, point in zip(rows, points):
        row[0] = point.time
        row[ROW_HEADER:] = np.frombuffer(point.x, "<f8")
    return rows
