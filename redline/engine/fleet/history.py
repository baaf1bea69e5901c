"""The history: the last times, values and scores of the streams of a fleet, in ring buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from detectors import GLITCH_CHECKS
from redline.detection.arrays import Array
from redline.engine.fleet.selection import Selection


class Steps(NamedTuple):
    """The newest steps of one stream that are at hand, oldest first, all (n,)."""

    time: Array  # seconds since the Unix epoch
    value: Array  # in the stream's unit, NaN = missing
    score: Array  # standard deviations, NaN = no opinion; rounded to float32


class FleetHistory(ABC):
    """Ring buffers (capacity, streams): one row is one step of the streams.

    Values are float64. Scores are kept as float32, which is what is drawn: 7 digits.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < GLITCH_CHECKS[-1]:
            raise ValueError(
                f"capacity is at least {GLITCH_CHECKS[-1]} steps, which a start is checked for, "
                f"got {capacity}"
            )
        self.capacity = capacity
        self.arrays: dict[str, Array] = {
            "value": np.zeros((capacity, 0)),
            "score": np.zeros((capacity, 0), np.float32),
        }

    def grow(self, size: int, steps: int) -> None:
        """Make room for `size` columns; memory is taken when they are written.

        steps: the most that any stream has taken. Rows that none has reached are not copied, so
        that they take no memory.
        """
        used = self.used_rows(steps)
        for name, array in self.arrays.items():
            if array.ndim == 2:
                larger = np.zeros((self.capacity, size), array.dtype)
                larger[:used, : array.shape[1]] = array[:used]
                self.arrays[name] = larger

    @abstractmethod
    def used_rows(self, steps: int) -> int:
        """Return how many rows may have been written; no stream took more than `steps`."""

    @abstractmethod
    def row(self, chosen: Selection) -> int | Array:
        """Return the row of the next step of these streams."""

    @abstractmethod
    def newest_rows(self, count: int, steps: int) -> Array:
        """Return the rows of the last `count` steps, oldest first; `steps` have been taken."""

    @abstractmethod
    def write_time(self, rows: int | Array, chosen: Selection, time: Array | float) -> None:
        """Keep the time of a step of these streams."""

    @abstractmethod
    def keep_times(self, rows: Array, column: int, time: Array) -> None:
        """Keep the times of older steps of one stream, both (n,)."""

    def write(self, chosen: Selection, time: Array | float, value: Array, score: Array) -> None:
        """Keep a step of these streams; value and score (n,)."""
        row = self.row(chosen)
        self.write_time(row, chosen, time)
        chosen.write(self.arrays["value"], row, value)
        chosen.write(self.arrays["score"], row, score)

    def newest_values(self, columns: Array, count: int, steps: int) -> Array:
        """Return the last `count` values of streams that took as many steps, (count, n)."""
        rows = self.newest_rows(count, steps)
        return np.asarray(self.arrays["value"][rows[:, None], columns])

    def read(self, column: int, count: int, steps: int) -> Steps:
        """Return the last `count` steps of a stream that took `steps`."""
        rows = self.newest_rows(count, steps)
        time = self.arrays["time"]
        return Steps(
            time[rows] if time.ndim == 1 else time[rows, column],
            self.arrays["value"][rows, column],
            self.arrays["score"][rows, column].astype(np.float64),
        )

    def find_times(self, columns: Array, times: Array, steps: Array, kept: Array) -> Array:
        """Return whether one of the last `kept` steps of streams had exactly a time, all (n,)."""
        known = self.arrays["time"]
        known = known[:, columns] if known.ndim == 2 else known[:, None]
        taken = steps if self.arrays["time"].ndim == 2 else self.newest_rows(1, 0)[0] + 1
        age = (taken - 1 - np.arange(self.capacity)[:, None]) % self.capacity  # in steps
        return np.asarray(((known == times) & (age < kept)).any(axis=0))

    def keep_values(self, columns: Array, values: Array, steps: int) -> None:
        """Keep the last values, (count, n), of streams that took `steps`, and nothing else."""
        rows = self.newest_rows(len(values), steps)
        self.arrays["value"][rows[:, None], columns] = values

    def replace(self, column: int, newest: Steps, steps: int) -> None:
        """Keep these as the newest steps of a stream that took `steps`, at most `capacity`."""
        newest = Steps(*(column[-self.capacity :] for column in newest))
        rows = self.newest_rows(len(newest.value), steps)
        self.keep_times(rows, column, newest.time)
        self.arrays["value"][rows, column] = newest.value
        self.arrays["score"][rows, column] = newest.score

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


class SequenceHistory(FleetHistory):
    """The history of streams that step by themselves: each has times and rows of its own."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.arrays["time"] = np.zeros((capacity, 0))

    def used_rows(self, steps: int) -> int:
        """Return the rows up to the longest stream."""
        return min(steps, self.capacity)

    def row(self, chosen: Selection) -> int | Array:
        """Return the place of each stream's own step."""
        return chosen.row(self.capacity)

    def newest_rows(self, count: int, steps: int) -> Array:
        """Return the places of the stream's own steps."""
        return np.arange(steps - count, steps) % self.capacity

    def write_time(self, rows: int | Array, chosen: Selection, time: Array | float) -> None:
        """Keep the time of each stream's step."""
        chosen.write(self.arrays["time"], rows, np.asarray(time))

    def keep_times(self, rows: Array, column: int, time: Array) -> None:
        """Keep the times of the stream's own steps."""
        self.arrays["time"][rows, column] = time


class GridHistory(FleetHistory):
    """The history of streams that step together: they share times and rows."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.arrays["time"] = np.full(capacity, np.nan)
        self.arrays["ticks"] = np.array(0)  # so far, with the present one

    @property
    def ticks(self) -> int:
        return int(self.arrays["ticks"])

    def begin_tick(self) -> None:
        """Take the next row."""
        self.arrays["ticks"] += 1

    def used_rows(self, steps: int) -> int:
        """Return all rows: a stream that was adopted has steps before the first tick."""
        return self.capacity

    def row(self, chosen: Selection) -> int | Array:
        """Return the place of the present tick."""
        return (self.ticks - 1) % self.capacity

    def newest_rows(self, count: int, steps: int) -> Array:
        """Return the places of the last ticks."""
        return np.arange(self.ticks - count, self.ticks) % self.capacity

    def write_time(self, rows: int | Array, chosen: Selection, time: Array | float) -> None:
        """Keep the time of the tick."""
        self.arrays["time"][rows] = time

    def keep_times(self, rows: Array, column: int, time: Array) -> None:
        """Keep the times of rows without a tick; the others have the time of theirs."""
        own = self.arrays["time"]
        own[rows] = np.where(np.isnan(own[rows]), time, own[rows])
