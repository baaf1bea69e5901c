"""The worst scores: of each series the worst one in each of the newest cells of time.

Two rings: narrow cells for the last minutes, wide ones for the last hours. A score is kept as a
level, a whole number that grows with score / threshold, so that six hours of 100,000 series take
no more than 720 bytes each and are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array

NO_LEVEL = 0  # no score fell into the cell
AT_THRESHOLD = 2_049  # the highest level that is not anomalous
_STEPS = 2_048  # levels for each doubling of 1 + score / threshold
_HIGHEST = 65_535
NARROW_SECONDS, NARROW_CELLS = 10, 180  # half an hour
WIDE_SECONDS, WIDE_CELLS = 60, 360  # six hours
MAX_AHEAD = 300.0  # seconds that a sample may be ahead of the wall clock


def level_of(ratio: Array) -> Array:
    """Return the levels of score / threshold, all (n,) uint16; NaN gives NO_LEVEL.

    >>> level_of(np.array([np.nan, -1.0, 0.0, 1.0, 1.001, 3.0, 1e30])).tolist()
    [0, 1, 1, 2049, 2051, 4097, 65535]
    """
    level = 1 + np.ceil(_STEPS * np.log2(1 + np.maximum(ratio, 0.0)))
    return np.where(level == level, np.minimum(level, _HIGHEST), NO_LEVEL).astype(np.uint16)


def ratio_of(level: Array) -> Array:
    """Return score / threshold of levels, (n,) float; NaN of NO_LEVEL.

    >>> ratio_of(np.array([0, 1, 2049, 4097], np.uint16)).tolist()
    [nan, 0.0, 1.0, 3.0]
    """
    ratio = np.exp2((level.astype(float) - 1) / _STEPS) - 1
    return np.where(level == NO_LEVEL, np.nan, ratio)


class LevelColumns(NamedTuple):
    """The worst levels of all series in equal columns of time, oldest first."""

    levels: Array  # (columns, numbers) uint16
    start: float  # seconds since the Unix epoch, of the first column
    seconds: float  # of a column


class WorstRing:
    """The worst level of each series in the newest cells of one width; a row is a cell.

    One thread records, others read: what they get is what some moment showed.
    """

    def __init__(self, seconds: int, cells: int) -> None:
        """Make a ring; seconds: of a cell."""
        self.seconds = seconds
        self.cells = cells
        self.levels = np.zeros((cells, 0), np.uint16)
        self.newest: int | None = None  # the cell of the newest sample, counted from the epoch

    @property
    def nbytes(self) -> int:
        return self.levels.nbytes

    def record(self, series: Array, time: Array, level: Array) -> None:
        """Take in levels of series, all (n,), at any times; those before the ring are left out."""
        if not len(series):
            return
        cell = np.floor(time / self.seconds).astype(np.int64)
        newest = int(cell.max())
        self._advance(newest)
        assert self.newest is not None
        self.make_room(int(series.max()) + 1)
        if newest == cell.min() and newest > self.newest - self.cells:  # all in one cell
            np.maximum.at(self.levels[newest % self.cells], series, level)
            return
        inside = cell > self.newest - self.cells
        if not inside.all():
            series, cell, level = series[inside], cell[inside], level[inside]
        flat = self.levels.reshape(-1)
        np.maximum.at(flat, cell % self.cells * self.levels.shape[1] + series, level)

    def _advance(self, cell: int) -> None:
        """Begin the cells up to this one, empty."""
        if self.newest is None:
            self.newest = cell
        new = min(cell - self.newest, self.cells)
        if new > 0:
            self.levels[np.arange(cell - new + 1, cell + 1) % self.cells] = NO_LEVEL
            self.newest = cell

    def make_room(self, size: int) -> None:
        """Make room for so many numbers."""
        before = self.levels.shape[1]
        if size > before:
            larger = np.zeros((self.cells, max(size, before + before // 4)), np.uint16)
            larger[:, :before] = self.levels
            self.levels = larger

    def merge(self, other: WorstRing) -> None:
        """Take in the levels of a ring of the same width; those before this ring are left out."""
        if other.newest is None:
            return
        self._advance(other.newest)
        assert self.newest is not None
        size = other.levels.shape[1]
        self.make_room(size)
        first = max(other.newest, self.newest) - self.cells + 1
        rows = np.arange(first, other.newest + 1) % self.cells
        for row in rows.tolist():
            own = self.levels[row, :size]
            np.maximum(own, other.levels[row], out=own)

    def rows(self, start: float, end: float) -> Array:
        """Return the rows of the cells that a time touches, (rows,), oldest first.

        start, end: seconds since the Unix epoch; what is no longer in the ring is left out.
        """
        if self.newest is None:
            return np.zeros(0, int)
        first = max(int(start // self.seconds), self.newest - self.cells + 1)
        last = min(int(-(-end // self.seconds)) - 1, self.newest)
        if first > last:
            return np.zeros(0, int)
        return np.arange(first, last + 1) % self.cells

    def columns(self, count: int, cells: int) -> LevelColumns:
        """Return the newest columns, at most `count` of them, each of so many cells."""
        if self.newest is None:
            return LevelColumns(np.zeros((0, 0), np.uint16), 0.0, self.seconds * cells)
        count = min(count, self.cells // cells)
        last = self.newest // cells  # columns begin at whole multiples, so that they stay the same
        first = last - count + 1
        cell = np.arange(first * cells, (last + 1) * cells)
        levels = self.levels
        # of the first and the last column some cells may not be there: others of it stand for them
        rows = np.clip(cell, self.newest - self.cells + 1, self.newest) % self.cells
        found = levels[rows[0::cells]]
        for i in range(1, cells):
            np.maximum(found, levels[rows[i::cells]], out=found)
        return LevelColumns(found, float(first * cells * self.seconds), self.seconds * cells)


class WorstScores:
    """Both rings of all series."""

    def __init__(self) -> None:
        self.narrow = WorstRing(NARROW_SECONDS, NARROW_CELLS)
        self.wide = WorstRing(WIDE_SECONDS, WIDE_CELLS)

    @property
    def rings(self) -> Sequence[WorstRing]:
        return (self.narrow, self.wide)

    @property
    def nbytes(self) -> int:
        return sum(ring.nbytes for ring in self.rings)

    def record(self, series: Array, time: Array, ratio: Array, wall: float) -> None:
        """Take in scores of series, all (n,), in any order.

        Args:
            series: their numbers.
            time: seconds since the Unix epoch; one that is far ahead of `wall` is of a wrong clock,
                and would empty the rings: it is left out.
            ratio: score / threshold, NaN = no opinion.
            wall: seconds since the Unix epoch.
        """
        if not len(series):
            return
        for ring in self.rings:
            ring.make_room(int(series.max()) + 1)  # for those without a score too
        level = level_of(ratio)
        usable = (level > NO_LEVEL) & (time <= wall + MAX_AHEAD)
        if not usable.all():
            series, time, level = series[usable], time[usable], level[usable]
        for ring in self.rings:
            ring.record(series, time, level)

    def merge(self, other: WorstScores) -> None:
        """Take in the scores of another object."""
        for ring, more in zip(self.rings, other.rings):
            ring.merge(more)

    def known_since(self) -> float | None:
        """Return the time of the oldest cell, seconds since the Unix epoch; None = none is known.

        It may be before the first score.
        """
        wide = self.wide
        if wide.newest is None:
            return None
        return float((wide.newest - wide.cells + 1) * wide.seconds)

    def ring_of(self, start: float) -> WorstRing:
        """Return the ring with the narrowest cells that goes back to a time."""
        narrow = self.narrow
        if narrow.newest is None or start < (narrow.newest - narrow.cells + 1) * narrow.seconds:
            return self.wide
        return narrow

    def worst_between(self, start: float, end: float) -> Array:
        """Return the worst level of each series from a time to another, (numbers,) uint16."""
        ring = self.ring_of(start)
        levels = ring.levels
        worst = np.zeros(levels.shape[1], np.uint16)
        for row in ring.rows(start, end).tolist():
            np.maximum(worst, levels[row], out=worst)
        return worst
