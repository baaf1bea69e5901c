"""What a store keeps of fleets: the series, their steps, and states to restart from.

A *series* is a stream of a fleet under the number that the store knows it by. The number stays
when the stream moves to another column or fleet, and is never given twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.settings import Settings

ANOMALY_FLAG = 1  # the step's score was above the threshold
ALARM_FLAG = 2  # its alarm score was
LATE_STEP = -1  # the step of a late point, which is kept without a score


class SeriesSteps(NamedTuple):
    """Scored steps of any series, and late points, all (n,)."""

    series: Array  # int64, numbers of series
    step: Array  # int64, counted from 0 in each series; LATE_STEP = a late point
    time: Array  # seconds since the Unix epoch
    value: Array  # in the stream's unit, NaN = missing; kept to the bit
    score: Array  # standard deviations, NaN = no opinion; kept to a stated precision
    flags: Array  # uint8, a sum of ANOMALY_FLAG and ALARM_FLAG

    @classmethod
    def empty(cls) -> SeriesSteps:
        """Return no steps."""
        kinds = (np.int64, np.int64, float, float, float, np.uint8)
        return cls(*(np.empty(0, kind) for kind in kinds))

    @classmethod
    def join(cls, parts: Sequence[SeriesSteps]) -> SeriesSteps:
        """Return steps one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(*map(np.concatenate, zip(*parts))) if parts else cls.empty()

    def pick(self, rows: slice | Array) -> SeriesSteps:
        """Return some of the steps: a slice, places (m,) or a mask (n,)."""
        return SeriesSteps(*(column[rows] for column in self))


class SeriesRecord(NamedTuple):
    """A series as the store knows it."""

    number: int
    name: str  # its canonical text
    settings: Settings  # applied now
    creator: str = ""  # the token or address that sent its first points; "" = unknown
    opened: float = 0.0  # wall seconds
    forgotten: bool = False  # whether it is in no fleet until it sends again


class ColumnStates(NamedTuple):
    """The states of some streams of one fleet, from which a restart goes on."""

    key: str  # states under the same key replace each other
    settings: Settings  # of the fleet
    series: Array  # (n,) int64, in the order of the columns
    arrays: dict[str, Array]  # by name, as the fleet copied them


class StoredStates(NamedTuple):
    """States with the commit that they were stored in: they hold all steps up to it."""

    commit: int
    states: ColumnStates


class FleetCommit(NamedTuple):
    """What the fleets add in one transaction."""

    steps: SeriesSteps
    records: Sequence[SeriesRecord] = ()  # new ones, and those that have changed
    removed: Sequence[int] = ()  # series whose record and history are deleted
    states: Sequence[ColumnStates] = ()
    obsolete: Sequence[str] = ()  # keys of states that are deleted


class SeriesStore(ABC):
    """The part of a store that keeps fleets; a `FleetCommit` comes with `ResultStore.commit`.

    Every method raises OSError when it cannot answer; its text is shown to people.
    """

    @abstractmethod
    def load_records(self) -> Sequence[SeriesRecord]:
        """Return all series, by their numbers."""

    @abstractmethod
    def last_series(self) -> int:
        """Return the highest number that a series ever had; 0 = there was none."""

    @abstractmethod
    def load_states(self) -> Iterator[StoredStates]:
        """Yield all stored states, the oldest commit first."""

    @abstractmethod
    def steps_after(self, commit: int) -> Iterator[SeriesSteps]:
        """Yield the steps of all commits after one, at least: of each series in their order.

        Steps of earlier commits may be among them, and late points.
        """

    @abstractmethod
    def read_series(
        self, number: int, since: float | None, until: float | None, limit: int
    ) -> SeriesSteps:
        """Return steps and late points of one series by time, oldest first.

        At most `limit`: the first ones from `since` on, or without it the last ones up to `until`;
        both are seconds since the Unix epoch, included.
        """

    def scores_since(self, since: float) -> Iterator[SeriesSteps]:
        """Yield all steps since a time, seconds since the Unix epoch, the newest first, roughly.

        Some may come twice, and earlier ones, late points among them.
        """
        yield from ()

    @abstractmethod
    def newest_anomalies(self, name: str) -> Sequence[tuple[Any, ...]]:
        """Return the last anomalies of a series, oldest first, with the fields of Anomaly."""

    @abstractmethod
    def match_series(self, numbers: Array, times: Array) -> Array:
        """Return (n,) bool: whether each series (n,) has a point at exactly this time (n,)."""
