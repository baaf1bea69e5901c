"""Each detector's definition, slow and one number at a time, written apart from it: the fast one must equal it.

A twin takes one stream as plain floats (a joint one: the stream's rows) and the window, and gives its scores; NaN = missing, or no opinion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from math import ceil, floor, fsum, inf, isnan, nan, sqrt

import twins_flagship

Values = list[float]
Twin = Callable[[Values, int], Values]

CEILING = 100.0
NORMAL = statistics.NormalDist()


def seen(values: Values) -> Values:
    return [value for value in values if not isnan(value)]


def before(x: Values, t: int, window: int) -> Values:
    """What was seen in the `window` steps before step t; too little of it is nothing."""
    values = seen(x[max(0, t - window) : t])
    return values if len(values) >= max(2, (window + 1) // 2) else []


def deviations(value: float, centre: float, spread: float) -> float:
    if isnan(value) or isnan(centre):
        return nan
    gap = abs(value - centre)
    return min(gap / spread if spread else inf if gap else 0.0, CEILING)


def quantile(values: Values, share: float) -> float:
    ordered, place = sorted(values), share * (len(values) - 1)
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (place - floor(place)) * (high - low)


def rolling_z(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        scores.append(deviations(value, statistics.mean(past), statistics.pstdev(past)) if past else nan)
    return scores


def median_mad(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        middle = statistics.median(past) if past else nan
        scores.append(deviations(value, middle, statistics.median(abs(v - middle) for v in past) / NORMAL.inv_cdf(0.75)) if past else nan)
    return scores


def interquartile(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        first, third = (quantile(past, 0.25), quantile(past, 0.75)) if past else (nan, nan)
        scores.append(deviations(value, (first + third) / 2, (third - first) / (2 * NORMAL.inv_cdf(0.75))))
    return scores


def weighted(x: Values, t: int, window: int) -> tuple[float, float]:
    """Mean and standard deviation of everything before step t, weighted by decay**age."""
    decay = 1 - 2 / (window + 1)
    pairs = [(decay ** (t - 1 - i), x[i]) for i in range(t) if not isnan(x[i])]
    weight = fsum(w for w, _ in pairs)
    least = max(2, (window + 1) // 2)
    if weight < fsum(decay ** (age + 1) for age in range(least)) / decay * (1 - 1e-9):
        return nan, nan
    mean = fsum(w * v for w, v in pairs) / weight
    return mean, sqrt(fsum(w * (v - mean) ** 2 for w, v in pairs) / weight)


def ewma(x: Values, window: int) -> Values:
    return [deviations(value, *weighted(x, t, window)) for t, value in enumerate(x)]


def cusum(x: Values, window: int) -> Values:
    scores, up, down = [], 0.0, 0.0
    for t, value in enumerate(x):
        mean, spread = weighted(x, t, window)
        z = deviations(value, mean, spread)
        if isnan(z):
            scores.append(nan)
            continue
        z = min(z, 8.0) * (1 if value >= mean else -1)
        up, down = max(0.0, up + z - 0.5), max(0.0, down - z - 0.5)
        scores.append(min(sqrt(1.7 * max(up, down)), CEILING))
    return scores


TWINS: dict[str, Twin] = {
    "rolling z-score": rolling_z,
    "median and MAD": median_mad,
    "interquartile range": interquartile,
    "EWMA": ewma,
    "CUSUM": cusum,
    "ensemble": twins_flagship.ensemble,  # type: ignore[dict-item]
}
