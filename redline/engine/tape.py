"""The tape: the last rows of named columns, addressed by absolute step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from streams import Chunk

BUFFER_STEPS = 10_000  # steps kept of each stream


class Tape:
    """The last `capacity` rows of named columns, addressed by absolute step."""

    def __init__(self, capacity: int, columns: Mapping[str, tuple[int, Any]], start: int = 0):
        self.capacity = capacity
        self.end = start
        self.kept = 0  # rows that can be read
        # rows; when all are used the last `capacity` of them move to the front
        self.allocated = capacity + capacity // 4
        self.used = 0  # rows
        self.columns = {
            name: np.zeros((self.allocated, width), dtype)
            for name, (width, dtype) in columns.items()
        }

    @property
    def first(self) -> int:
        return self.end - self.kept

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows (steps, width) to each column; only the last `capacity` of them stay."""
        steps = len(next(iter(rows.values())))
        skip = max(0, steps - self.capacity)
        if self.used + steps - skip > self.allocated:
            keep = min(self.kept, self.capacity - min(steps, self.capacity))
            for column in self.columns.values():
                column[:keep] = column[self.used - keep : self.used].copy()
            self.used = keep
        for name, column in self.columns.items():
            column[self.used : self.used + steps - skip] = rows[name][skip:]
        self.used += steps - skip
        self.end += steps
        self.kept = min(self.kept + steps - skip, self.capacity, self.used)

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """Return a copy of the rows first..end of one column; they must be on the tape."""
        offset = self.used - self.end
        return self.columns[name][first + offset : end + offset].copy()


def split_chunk(chunk: Chunk, steps: int) -> Iterator[Chunk]:
    """Cut a chunk into parts of at most so many steps."""
    for i in range(0, len(chunk.time), steps):
        part = slice(i, i + steps)
        label = None if chunk.label is None else chunk.label[part]
        yield Chunk(chunk.time[part], chunk.x[part], label)
