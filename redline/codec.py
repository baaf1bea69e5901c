"""How the store writes things: batches, states and settings as bytes and text, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

import numpy as np

from redline.ledger import Batch
from redline.settings import Settings

REST = 3  # columns of a row of points before the features: time, score, alarm


def packed(state: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as bytes; {} is no bytes."""
    if not state:
        return b""
    head = json.dumps([(name, value.dtype.str, value.shape) for name, value in state.items()]).encode()
    return len(head).to_bytes(4, "little") + head + b"".join(np.ascontiguousarray(value).tobytes() for value in state.values())


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The way back from `packed`."""
    state: dict[str, np.ndarray] = {}
    at = 4 + int.from_bytes(data[:4], "little")
    for name, kind, shape in json.loads(data[4:at]) if data else ():
        value = np.frombuffer(data, kind, int(np.prod(shape)), at).reshape(shape)
        state[name], at = value, at + value.nbytes
    return state


def rows_of(batch: Batch) -> bytes:
    """The points of a batch as rows (n, 3 + features) of float64."""
    rows = np.empty((len(batch.time), REST + batch.x.shape[1]), "<f8")
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, REST:] = batch.time, batch.score, batch.alarm, batch.x
    return rows.tobytes()


def chunks_of(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Batches of one stream as chunks, those that follow one another as one."""
    chunks: list[dict[str, Any]] = []
    for batch in batches:
        if chunks and chunks[-1]["first"] + chunks[-1]["n"] == batch.first:
            last = chunks[-1]
            chunks[-1] = last | {"n": last["n"] + len(batch.time), "newest": float(batch.time[-1]), "rows": last["rows"] + rows_of(batch)}
        else:
            times = {"oldest": float(batch.time[0]), "newest": float(batch.time[-1])}
            chunks.append({"first": batch.first, "n": len(batch.time), "rows": rows_of(batch), **times})
    return chunks


@lru_cache(maxsize=1_000)
def written(value: Settings | tuple[str, ...]) -> str:
    """Settings or names as JSON."""
    return json.dumps(asdict(value) if isinstance(value, Settings) else value)


def read_rows(chunks: Sequence[bytes], features: int) -> np.ndarray:
    """(n, 3 + features) out of blobs."""
    return np.frombuffer(b"".join(chunks), "<f8").reshape(-1, REST + features)


def settings_of(text: str) -> Settings:
    """Settings out of JSON; what another version knew and this one does not is left out."""
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in json.loads(text).items() if name in known})


def number(value: float) -> float | None:
    """NaN as NULL."""
    return None if value != value else float(value)


def nan(value: float | None) -> float:
    return float("nan") if value is None else value
