"""The tape: the last rows of named columns, addressed by absolute step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from streams import Chunk

BUFFER_STEPS = 10_000  # steps kept of each stream


class Tape:
    """The last `capacity` rows of some named columns; a row is known by its absolute step
    number.
    """

    def __init__(self, capacity: int, columns: Mapping[str, tuple[int, Any]], start: int = 0):
        self.capacity = capacity
        self.end = start
        self.kept = 0
        self.room = (
            capacity + capacity // 4
        )  # rows; when it is full the last `capacity` of them move to the front
        self.used = 0
        self.columns = {
            name: np.zeros((self.room, width), dtype) for name, (width, dtype) in columns.items()
        }

    @property
    def first(self) -> int:
        return self.end - self.kept

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds rows (steps, width) to each column; only the last `capacity` of them stay."""
        steps = len(next(iter(rows.values())))
        skip = max(0, steps - self.capacity)
        if self.used + steps - skip > self.room:
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
        """A copy of the rows first..end of one column; they must be on the tape."""
        offset = self.used - self.end
        return self.columns[name][first + offset : end + offset].copy()


def split_chunk(chunk: Chunk, steps: int) -> Iterator[Chunk]:
    """A chunk in parts of at most so many steps."""
    for i in range(0, len(chunk.time), steps):
        part = slice(i, i + steps)
        yield Chunk(
            chunk.time[part], chunk.x[part], None if chunk.label is None else chunk.label[part]
        )
