"""The rates of counters: what Prometheus counts up, as a number a second."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from redline.detection.arrays import Array

MAX_FAMILIES = 50_000  # metric families whose type is kept
COUNTER_SUFFIXES = ("_total", "_count", "_sum", "_bucket")
DISTRIBUTIONS = ("histogram", "summary")  # types of which the series with a suffix are counters


class MetricTypes:
    """The types of metric families, as senders say them; a bounded number of them."""

    def __init__(self, max_families: int = MAX_FAMILIES) -> None:
        self.max_families = max_families
        self.types: dict[str, str] = {}
        self.refused = 0  # families for which there was no room

    def update(self, types: Mapping[str, str]) -> None:
        """Take the types of a batch over."""
        for family, kind in types.items():
            if family in self.types or len(self.types) < self.max_families:
                self.types[family] = kind
            else:
                self.refused += 1

    def is_counter(self, name: str) -> bool:
        """Return whether a metric counts up: by its type, else by the suffix of its name.

        >>> types = MetricTypes()
        >>> types.update({"queue_count": "gauge", "ticks": "counter", "latency": "histogram"})
        >>> [types.is_counter(name) for name in ("queue_count", "ticks", "ticks_total")]
        [False, True, True]
        >>> [types.is_counter(name) for name in ("latency_bucket", "latency", "x_total", "x")]
        [True, False, True, False]
        """
        suffix = next((end for end in COUNTER_SUFFIXES if name.endswith(end)), "")
        kind = self.types.get(name, "unknown")
        if kind == "unknown" and suffix:
            kind = self.types.get(name.removesuffix(suffix), "unknown")
        if kind == "counter":
            return True
        return bool(suffix) and kind in ("unknown", *DISTRIBUTIONS)


class CounterRates:
    """The rates of many counters, by column.

    A rate is the increase since the column's sample before, by the seconds between the two. A
    value that is smaller than the one before is a reset: the counter began again at 0, so all of
    the value is increase, as in Prometheus. The first sample of a column has no rate.

    >>> rates = CounterRates()
    >>> rates.update(np.array([7, 7, 7]), np.array([0.0, 10.0, 20.0]), np.array([5.0, 25.0, 8.0]))
    array([nan, 2. , 0.8])
    """

    def __init__(self) -> None:
        self.last_time = np.empty(0)  # (columns,) seconds since the Unix epoch, NaN = none yet
        self.last_value = np.empty(0)  # (columns,) the counter then, NaN = none yet
        self.out_of_order = 0  # samples that were not newer than the one before

    def update(self, columns: np.ndarray, time: Array, value: Array) -> Array:
        """Return the rate a second of each sample (n,), then keep the newest of each column.

        NaN where there is none: the first of a column, a missing value, a sample that is not newer
        than all before it; the last two are not kept either.

        Args:
            columns: (n,) int, any of them more than once, each in the order of its samples.
            time: (n,) seconds since the Unix epoch.
            value: (n,) counters, NaN = missing.
        """
        rates = np.full(len(columns), np.nan)
        rows = np.flatnonzero(~np.isnan(value) & np.isfinite(time))
        if not len(rows):
            return rates
        self._grow(int(columns[rows].max()) + 1)
        rows = rows[np.argsort(columns[rows], kind="stable")]  # by column, then as they came
        rows = self._newer(rows, columns, time)
        column = columns[rows]
        now = time[rows]
        counter = value[rows]
        first = np.ones(len(rows), bool)  # of its column in this call
        first[1:] = column[1:] != column[:-1]
        before = np.concatenate(([np.nan], now[:-1]))
        base = np.concatenate(([np.nan], counter[:-1]))
        before[first] = self.last_time[column[first]]
        base[first] = self.last_value[column[first]]
        increase = np.where(counter < base, counter, counter - base)
        rates[rows] = increase / (now - before)
        last = np.ones(len(rows), bool)
        last[:-1] = first[1:]
        self.last_time[column[last]] = now[last]
        self.last_value[column[last]] = counter[last]
        return rates

    def newest(self, columns: np.ndarray) -> tuple[Array, Array]:
        """Return time and value of the newest sample of each column (m,), NaN = none yet."""
        time = np.full(len(columns), np.nan)
        value = np.full(len(columns), np.nan)
        known = columns < len(self.last_time)
        time[known] = self.last_time[columns[known]]
        value[known] = self.last_value[columns[known]]
        return time, value

    def set_newest(self, columns: np.ndarray, time: Array, value: Array) -> None:
        """Make these the newest samples of columns (m,), as `newest` returned them."""
        if len(columns):
            self._grow(int(columns.max()) + 1)
            self.last_time[columns] = time
            self.last_value[columns] = value

    def forget(self, columns: np.ndarray) -> None:
        """Begin anew in these columns (m,): their series ended, or others take their places."""
        known = columns[columns < len(self.last_time)]
        self.last_time[known] = np.nan
        self.last_value[known] = np.nan

    def _newer(self, rows: np.ndarray, columns: np.ndarray, time: Array) -> np.ndarray:
        """Return those of rows, sorted by column, that are newer than all before in their column"""
        column = columns[rows]
        start = np.ones(len(rows), bool)
        start[1:] = column[1:] != column[:-1]
        newer = ~(time[rows] <= self.last_time[column])  # True where there is none yet
        if not start.all():
            # the place of each time among all times, and above it the place of its column:
            # the greatest so far never comes from another column
            place = np.unique(time[rows], return_inverse=True)[1]
            place = place + np.cumsum(start) * len(rows)
            greatest = np.maximum.accumulate(place)
            newer[1:] &= start[1:] | (place[1:] > greatest[:-1])
        self.out_of_order += int(np.count_nonzero(~newer))
        kept: Array = rows[newer]
        return kept

    def _grow(self, columns: int) -> None:
        """Make room for columns, by doubling."""
        room = columns - len(self.last_time)
        if room > 0:
            more = np.full(max(room, len(self.last_time)), np.nan)
            self.last_time = np.concatenate((self.last_time, more))
            self.last_value = np.concatenate((self.last_value, more))
