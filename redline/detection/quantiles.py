"""Quantile detectors: the distance from the range between two quantiles of the last steps."""

from __future__ import annotations

from dataclasses import dataclass

from detectors import RankDetector
from redline.detection.arrays import MEDIAN_ABS_GAUSSIAN, P90_ABS_GAUSSIAN, Array, rank_quantile


@dataclass
class Interquartile(RankDetector):
    """Tukey's fences: how far outside the middle half of the last `window` steps.

    |x - (Q1 + Q3) / 2| / ((Q3 - Q1) / 1.349); Tukey's fence at 1.5 (Q3 - Q1) beyond a quartile is
    2.7 on this scale. Cost: one sort per step. When it fails: where more than half of the window is
    one and the same value the spread is 0 and any other value is CEILING; give a floor. Source: J.
    W. Tukey, Exploratory Data Analysis, 1977.

    >>> Interquartile(window=4).update([[1.0], [2.0], [3.0], [4.0], [9.0]]).ravel().round(3)
    array([  nan,   nan, 4.047, 2.698, 5.846])
    """

    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """Return the middle of the quartiles, and their distance as that of a Gaussian."""
        first = rank_quantile(ordered, seen, 0.25)
        third = rank_quantile(ordered, seen, 0.75)
        return (first + third) / 2, (third - first) / (2 * MEDIAN_ABS_GAUSSIAN)


@dataclass
class Percentile(RankDetector):
    """How far outside the middle 90 % of the last `window` steps.

    |x - (P5 + P95) / 2| / ((P95 - P5) / 3.29): the edge of the middle 90 % is 1.64 on this scale,
    the rest is extrapolated, not counted. Up to a twentieth of the window on either side may be
    outliers. Cost: one sort of the window per step. When it fails: on a skewed stream the long side
    alarms too often; more outliers than that widen the band to themselves. Source: R. J. Hyndman,
    Y. Fan, Sample Quantiles in Statistical Packages, 1996 (type 7).

    >>> Percentile(window=4).update([[1.0], [2.0], [3.0], [4.0], [9.0]]).ravel().round(3)
    array([  nan,   nan, 5.483, 3.655, 7.92 ])
    """

    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """Return the middle of the two percentiles, and their distance as that of a Gaussian."""
        low = rank_quantile(ordered, seen, 0.05)
        high = rank_quantile(ordered, seen, 0.95)
        return (low + high) / 2, (high - low) / (2 * P90_ABS_GAUSSIAN)
