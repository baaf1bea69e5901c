"""The doors: what the ways in that bring samples of many series share."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.engine.monitor import Monitor, SeriesReceipts
from redline.sources.directory import SeriesDirectory
from redline.sources.payload import BodyError
from redline.sources.pushed import QueueFull, SubmissionRefused
from redline.sources.rates import CounterRates, MetricTypes
from redline.sources.samples import (
    LARGEST_SAMPLE,
    NO_ROOM,
    OUT_OF_TIME,
    REASONS,
    TOO_LARGE,
    SampleBatch,
)

# reason -> the field, what was wanted, what came
WANTED = {
    REASONS[NO_ROOM]: (
        "series",
        "series, by the setting series; select fewer, or raise it",
        "of others",
    ),
    OUT_OF_TIME: (
        "time",
        "seconds since the Unix epoch, at most ten minutes ahead of the clock here",
        "with another; check the clock and the unit of the sender",
    ),
    TOO_LARGE: ("value", f"numbers up to {LARGEST_SAMPLE:g}", "with a larger one"),
}
MAX_UNPACKED = 64 * 2**20  # bytes of a body that came compressed


class Doors:
    """What all doors share: the rates of counters, and what was left out of the batches.

    A counter becomes its rate a second: what is unusual about it is how fast it grows.
    """

    def __init__(self, directory: SeriesDirectory) -> None:
        """Make doors to the series of a directory."""
        self.directory = directory
        self.types = MetricTypes()
        self.rates = CounterRates()
        self.is_counter: dict[int, bool] = {}  # by number, of the series asked about before
        self.left_out: Counter[str] = Counter()  # samples that were not taken, by reason
        self.lock = threading.Lock()
        self.turn = threading.Lock()  # of one batch with counters, until its points are queued

    def count_left_out(self, batch: SampleBatch) -> None:
        """Count the samples that are not in a batch."""
        with self.lock:
            self.left_out.update(batch.left_out)

    def to_rates(self, batch: SampleBatch) -> tuple[SampleBatch, RatesBefore]:
        """Return a batch with counters as rates, and how the counters were before.

        A counter without a sample before it has no rate yet, and gives no point.
        """
        with self.lock:
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
        rates = batch._replace(series=batch.series[kept], time=batch.time[kept], value=value[kept])
        return rates, before

    def put_back(self, before: RatesBefore) -> None:
        """Take counters back, so that the same samples can be sent again."""
        with self.lock:
            before.restore(self.rates)

    def submit(
        self, monitor: Monitor, batch: SampleBatch, client: str, rates: bool
    ) -> SeriesReceipts:
        """Queue the samples of a batch, counted for a client; `rates` = counters become rates.

        What a full queue refuses can be sent again: the counters are as they were before.
        """
        self.count_left_out(batch)
        if not rates:
            return monitor.submit_series(batch.series, batch.time, batch.value, client)
        with self.turn:  # two batches of the same counters must not cross
            points, before = self.to_rates(batch)
            found = monitor.submit_series(points.series, points.time, points.value, client)
            if any(isinstance(error, QueueFull) for _, error in found.refused):
                self.put_back(before)
        return found

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


def refusals_of(
    batch: SampleBatch, directory: SeriesDirectory, reasons: Sequence[str]
) -> list[SubmissionRefused]:
    """Return a refusal for each of some reasons for which samples are not in a batch."""
    found = []
    for reason in reasons:
        count = batch.left_out.get(reason, 0)
        if count:
            field, wanted, came = WANTED[reason]
            if reason == REASONS[NO_ROOM]:
                wanted = f"at most {directory.max_series:,} {wanted}"
            found.append(SubmissionRefused(field, wanted, f"{count:,} samples {came}"))
    return found


class RatesBefore:
    """The newest samples of some counters as they were before a batch."""

    def __init__(self, columns: np.ndarray, rates: CounterRates) -> None:
        self.columns = columns  # (m,) ascending
        self.time, self.value = rates.newest(columns)

    def restore(self, rates: CounterRates) -> None:
        """Put back what was the newest sample of these columns."""
        rates.set_newest(self.columns, self.time, self.value)


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
