"""A batch of samples of many time series, as arrays: what every door hands on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from redline.sources.pushed import SubmissionRefused
from redline.sources.timestamps import CALENDAR_TIMES

LARGEST_SAMPLE = 1e75  # of a value: its fourth power is still finite, so no detector overflows
STALE_BITS = 0x7FF0000000000002  # of the NaN by which Prometheus says that a series has ended
MAX_REFUSALS = 10  # refusals that a batch lists; all are counted
# what a directory answers in place of a number, with the reason under which it is counted
NOT_SELECTED = -1
NO_ROOM = -2
INVALID_SERIES = -3
REASONS = {
    NOT_SELECTED: "not selected",
    NO_ROOM: "no room for the series",
    INVALID_SERIES: "invalid series",
}
STALE = "stale marker"
OUT_OF_TIME = "time out of range"
TOO_LARGE = "value too large"


class TimeRange(NamedTuple):
    """The times that samples may have, in seconds since the Unix epoch, both inclusive."""

    first: float = CALENDAR_TIMES[0]
    last: float = CALENDAR_TIMES[1]


ANY_TIME = TimeRange()


class SampleBatch(NamedTuple):
    """Samples in the order in which they came; the directory that read them knows the series."""

    series: np.ndarray  # (n,) int64, the number of the series in the directory
    time: np.ndarray  # (n,) seconds since the Unix epoch
    value: np.ndarray  # (n,) NaN = missing
    ended: np.ndarray  # (m,) int64, the numbers of series that a stale marker ended
    ended_time: np.ndarray  # (m,) seconds since the Unix epoch
    left_out: Mapping[str, int]  # reason -> samples that are not in the batch
    refusals: Sequence[SubmissionRefused]  # what was wrong with the first of them
    types: Mapping[str, str]  # metric family -> its type, where the sender says it


def make_batch(
    series: np.ndarray,
    time: np.ndarray,
    value: np.ndarray,
    allowed: TimeRange = ANY_TIME,
    left_out: Mapping[str, int] | None = None,
    refusals: Sequence[SubmissionRefused] = (),
    types: Mapping[str, str] | None = None,
) -> SampleBatch:
    """Return a batch; what cannot be taken is left out and counted.

    Args:
        series: (n,) numbers of a directory, negative ones for reasons.
        time: (n,) seconds since the Unix epoch.
        value: (n,) stale markers included.
        allowed: the times that are taken.
        left_out: what the reader left out before, by reason.
        refusals: what it said about that.
        types: metric family -> type.
    """
    counts = Counter(left_out or {})
    keep = series >= 0
    if not keep.all():
        for number, reason in REASONS.items():
            counts[reason] += int(np.count_nonzero(series == number))
    in_time = (time >= allowed.first) & (time <= allowed.last)  # False for NaN too
    counts[OUT_OF_TIME] += int(np.count_nonzero(keep & ~in_time))
    keep &= in_time
    stale = np.ascontiguousarray(value).view(np.uint64) == STALE_BITS
    stale &= keep
    counts[STALE] += int(np.count_nonzero(stale))
    keep &= ~stale
    large = keep & (np.abs(value) > LARGEST_SAMPLE)
    counts[TOO_LARGE] += int(np.count_nonzero(large))
    keep &= ~large
    ended = series[stale]
    ended_time = time[stale]
    if not keep.all():
        series = series[keep]
        time = time[keep]
        value = value[keep]
    found = {reason: count for reason, count in counts.items() if count}
    return SampleBatch(
        series, time, value, ended, ended_time, found, tuple(refusals[:MAX_REFUSALS]), types or {}
    )
