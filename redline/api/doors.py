"""The doors: samples of many series, each of which becomes a source of its own."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.api.payload import BodyError, SubmittedPoints
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import QueueFull, SubmissionRefused
from redline.sources.rates import CounterRates, MetricTypes
from redline.sources.samples import SampleBatch
from redline.sources.selectors import parse_selectors

MAX_UNPACKED = 64 * 2**20  # bytes of a body that came compressed


class Doors:
    """The series that came in through any door, the rates of counters, and what was left out.

    A counter becomes its rate a second: what is unusual about it is how fast it grows.
    """

    def __init__(self, selectors: Sequence[str] = ()) -> None:
        """Make doors without series.

        Args:
            selectors: which series are taken, as Prometheus writes it; all are, without one.

        Raises:
            SubmissionRefused: one of them is no selector.
        """
        takes = parse_selectors(selectors).takes if selectors else None
        self.directory = SeriesDirectory(takes)
        self.types = MetricTypes()
        self.rates = CounterRates()
        self.is_counter: dict[int, bool] = {}  # by number, of the series asked about before
        self.left_out: Counter[str] = Counter()  # samples that were not taken, by reason
        self.lock = threading.Lock()
        self.turn = threading.Lock()  # of one batch with counters, until its points are queued

    def split(self, batch: SampleBatch) -> list[SubmittedPoints]:
        """Return the samples of a batch by source, each in the order in which they came."""
        with self.lock:
            self.left_out.update(batch.left_out)
        return self._by_source(batch.series, batch.time, batch.value)

    def split_rates(self, batch: SampleBatch) -> tuple[list[SubmittedPoints], RatesBefore]:
        """Return the samples by source, counters as rates, and how the counters were before.

        A counter without a sample before it has no rate yet, and gives no point.
        """
        with self.lock:
            self.left_out.update(batch.left_out)
            known = self.types.types
            if any(known.get(family) != kind for family, kind in batch.types.items()):
                self.types.update(batch.types)
                self.is_counter.clear()
            self.rates.forget(batch.ended)
            counters = self._counters(batch.series)
            columns = batch.series[counters]
            before = RatesBefore(np.unique(columns), self.rates)
            value = batch.value.copy()
            value[counters] = self.rates.update(columns, batch.time[counters], value[counters])
        kept = ~(np.isnan(value) & counters & ~np.isnan(batch.value))
        return self._by_source(batch.series[kept], batch.time[kept], value[kept]), before

    def put_back(
        self, before: RatesBefore, refused: Sequence[tuple[str, SubmissionRefused]]
    ) -> None:
        """Take the counters of full sources back, so that the same samples can be sent again."""
        names = [source for source, error in refused if isinstance(error, QueueFull)]
        numbers = self.directory.numbers
        with self.lock:
            before.restore(self.rates, [numbers[name] for name in names if name in numbers])

    def report(self) -> dict[str, Any]:
        """Return how many series came in, and what was left out, by reason."""
        with self.lock:
            return {
                "series": len(self.directory.numbers),
                "left_out": dict(self.left_out),
                "counters_out_of_order": self.rates.out_of_order,
            }

    def _counters(self, series: np.ndarray) -> np.ndarray:
        """Return which samples are of counters, (n,) bool."""
        numbers, places = np.unique(series, return_inverse=True)
        for number in numbers.tolist():
            if number not in self.is_counter:
                name = self.directory.key(number).name
                self.is_counter[number] = self.types.is_counter(name)
        found = [self.is_counter[number] for number in numbers.tolist()]
        return np.array(found, bool)[places]

    def _by_source(
        self, series: np.ndarray, time: np.ndarray, value: np.ndarray
    ) -> list[SubmittedPoints]:
        """Return samples (n,) by source."""
        if not len(series):
            return []
        order = np.argsort(series, kind="stable")
        cuts = np.flatnonzero(np.diff(series[order])) + 1
        found = []
        for rows in np.split(order, cuts):
            source = self.directory.texts[series[rows[0]]]
            if source is not None:  # it was not removed meanwhile
                found.append(SubmittedPoints(source, (), time[rows], value[rows, None]))
        return found


class RatesBefore:
    """The newest samples of some counters as they were before a batch."""

    def __init__(self, columns: np.ndarray, rates: CounterRates) -> None:
        self.columns = columns  # (m,) ascending
        self.time, self.value = rates.newest(columns)

    def restore(self, rates: CounterRates, columns: Sequence[int]) -> None:
        """Put back what was the newest sample of these columns."""
        chosen = np.isin(self.columns, np.array(columns, dtype=np.int64))
        rates.set_newest(self.columns[chosen], self.time[chosen], self.value[chosen])


def unpack_gzip(body: bytes) -> bytes:
    """Return a body without its gzip compression, at most MAX_UNPACKED bytes of it.

    Raises:
        BodyError: not gzip, or larger.
    """
    reader = zlib.decompressobj(wbits=31)
    try:
        data = reader.decompress(body, MAX_UNPACKED + 1)
    except zlib.error as error:
        raise BodyError("body", "gzip, as Content-Encoding says", f"{error}") from None
    if len(data) > MAX_UNPACKED:
        wanted = f"at most {MAX_UNPACKED:,} bytes unpacked; send it in parts"
        raise BodyError("body", wanted, "more")
    if not reader.eof:
        raise BodyError("body", "gzip, as Content-Encoding says", "a part of it")
    return data
