"""What was unusual in a period: the worst series, and the label values that explain them best.

The same statistic as that of the correlation, over the scores instead of the incidents: with c
anomalous series of a label value where e were expected, chance has at most the probability
exp(-gain).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from redline.engine.fleet.swim_lanes import SwimLanes, worst_places
from redline.engine.fleet.worst_scores import AT_THRESHOLD
from redline.incidents.correlation import poisson_gain

UNUSUAL_ROWS = 12  # series, and label values, of an answer
LEAST_GAIN = 3.0  # of a label value that is listed
LEAST_SERIES = 2  # anomalous ones of it


class UnusualSeries(NamedTuple):
    """One series of the answer."""

    name: str
    score: float  # the worst, standard deviations
    threshold: float


class UnusualValue(NamedTuple):
    """One label value of the answer."""

    label: str
    value: str
    anomalous: int  # series of it with an anomaly in the period
    series: int  # of it
    gain: float


class UnusualPeriod(NamedTuple):
    """The answer."""

    series: list[UnusualSeries]  # those with an anomaly, the worst first
    values: list[UnusualValue]  # the one that explains most first
    anomalous: int  # series with an anomaly
    watched: int  # series that pass the filter


def unusual_between(
    lanes: SwimLanes,
    start: float,
    end: float,
    part: str = "",
    rows: int = UNUSUAL_ROWS,
    by: str = "",
) -> UnusualPeriod:
    """Return what was unusual between two times, seconds since the Unix epoch.

    Args:
        lanes: of all series.
        start: the first time.
        end: the first time not wanted any more.
        part: of the names of series, or a selector.
        rows: series, and label values, at most.
        by: the label whose values are wanted; "" = of any label.
    """
    level = lanes.series.worst.worst_between(start, end)
    numbers = lanes.numbers(part, len(level))
    level = level[numbers]
    hot = level > AT_THRESHOLD
    texts = lanes.series.directory.texts
    found = []
    for place in worst_places(np.where(hot, level, 0), rows).tolist():
        name = texts[int(numbers[place])]
        if hot[place] and name is not None:
            score = lanes.score_of(int(numbers[place]), int(level[place]))
            found.append(UnusualSeries(name, *score))
    values = _unusual_values(lanes, numbers, hot, rows, by)
    return UnusualPeriod(found, values, int(np.count_nonzero(hot)), len(numbers))


def _unusual_values(
    lanes: SwimLanes, numbers: np.ndarray, hot: np.ndarray, rows: int, by: str
) -> list[UnusualValue]:
    """Return the label values with more anomalous series than chance explains."""
    total = int(np.count_nonzero(hot))
    found = []
    columns = lanes.labels.refresh()
    if by:
        columns = {by: columns[by]} if by in columns else {}
    for label, column in columns.items():
        codes = column.codes[numbers[numbers < len(column.codes)]]
        own = hot[: len(codes)]
        carriers = np.bincount(codes[codes >= 0])
        anomalous = np.bincount(codes[own & (codes >= 0)], minlength=len(carriers))
        for code in np.flatnonzero(anomalous >= LEAST_SERIES).tolist():
            count, of = int(anomalous[code]), int(carriers[code])
            gain = poisson_gain(count, total * of / len(numbers))
            if gain >= LEAST_GAIN:
                found.append(UnusualValue(label, column.values[code], count, of, gain))
    found.sort(key=lambda each: (-each.gain, each.series, each.label, each.value))
    return found[:rows]
