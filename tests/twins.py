"""Reference implementations of the detectors, slow and one number at a time.

Each is written independently of the fast one, which must equal it. A twin takes one stream as plain
floats (a joint one: the stream's rows) and the window, and returns its scores; NaN = missing, or no
opinion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from math import ceil, copysign, floor, fsum, inf, isnan, nan, sqrt

import numpy as np
import twins_flagship
from twins_start import with_robust_start

from redline.detection.seasonality import find_season

Values = list[float]
Twin = Callable[[Values, int], Values]

CEILING = 100.0
NORMAL = statistics.NormalDist()


def seen(values: Values) -> Values:
    return [value for value in values if not isnan(value)]


def before(x: Values, t: int, window: int) -> Values:
    """Return the values seen in the `window` steps before step t, none if they are too few."""
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
        scores.append(
            deviations(value, statistics.mean(past), statistics.pstdev(past)) if past else nan
        )
    return scores


def median_mad(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        middle = statistics.median(past) if past else nan
        scores.append(
            deviations(
                value,
                middle,
                statistics.median(abs(v - middle) for v in past) / NORMAL.inv_cdf(0.75),
            )
            if past
            else nan
        )
    return scores


def interquartile(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        first, third = (quantile(past, 0.25), quantile(past, 0.75)) if past else (nan, nan)
        scores.append(
            deviations(value, (first + third) / 2, (third - first) / (2 * NORMAL.inv_cdf(0.75)))
        )
    return scores


def percentile(x: Values, window: int) -> Values:
    scores = []
    for t, value in enumerate(x):
        past = before(x, t, window)
        low, high = (quantile(past, 0.05), quantile(past, 0.95)) if past else (nan, nan)
        scores.append(
            deviations(value, (low + high) / 2, (high - low) / (2 * NORMAL.inv_cdf(0.95)))
        )
    return scores


def by_errors(x: Values, forecasts: Values, window: int) -> Values:
    """Return the scores of forecasts in units of the 90th percentile of the errors before."""
    errors = [abs(value - forecast) for value, forecast in zip(x, forecasts)]
    scores = []
    for t, value in enumerate(x):
        past = before(errors, t, window)
        scores.append(
            deviations(
                value, forecasts[t], quantile(past, 0.9) / NORMAL.inv_cdf(0.95) if past else nan
            )
        )
    return scores


def average(values: Values) -> float:
    return statistics.mean(seen(values)) if seen(values) else nan


def moving_average(x: Values, window: int) -> Values:
    span = max(6, window // 8)
    return by_errors(x, [average(x[max(0, t - span) : t]) for t in range(len(x))], window)


def seasonal(x: Values, window: int) -> Values:
    """Return the scores; the season is taken from `find_season`, which has tests of its own."""
    span, season, forecasts = max(6, window // 8), 0, []
    for t in range(len(x)):
        if t and t % 256 == 0:
            season = find_season(np.array(x[max(0, t - 4096) : t]), season)

        def usual(step: int, season: int = season) -> float:
            turns = seen([x[step - turn * season] for turn in (1, 2, 3) if step >= turn * season])
            return statistics.median(turns) if turns else nan

        late = [x[i] - (usual(i) if season else 0.0) for i in range(max(0, t - span), t)]
        forecasts.append((usual(t) if season else 0.0) + average(late))
    return by_errors(x, forecasts, window)


def least_squares(rows: list[Values], wanted: Values) -> Values:
    """Return the weights w that minimise sum (row . w - wanted)**2 + ridge |w|**2.

    By the normal equations and elimination.
    """
    n = len(rows[0])
    square = [
        [fsum(row[i] * row[j] for row in rows) for j in range(n)]
        + [fsum(row[i] * y for row, y in zip(rows, wanted))]
        for i in range(n)
    ]
    ridge = max(1e-4 * fsum(square[i][i] for i in range(n)), 1e-150)
    for i in range(n):
        square[i][i] += ridge
    for i in range(n):
        for j in range(n):
            if i != j:
                factor = square[j][i] / square[i][i]
                square[j] = [a - factor * b for a, b in zip(square[j], square[i])]
    return [square[i][n] / square[i][i] for i in range(n)]


def autoregressive(x: Values, window: int) -> Values:
    block = max(4, window // 2)
    learned, level, rule, forecasts = block * -(-max(4 * window, 40) // block), nan, [0.0] * 8, []
    believed, furthest, far = (
        [nan] * 8,
        inf,
        0,
    )  # values cut off, the largest error, how many beyond it
    for t in range(len(x)):
        if t and t % block == 0:
            past = [nan] * (learned - t) + x[max(0, t - learned) : t]
            level = average(past) if len(seen(past)) >= max(2, (window + 1) // 2) else nan
            away = [0.0 if isnan(v - level) else v - level for v in past]
            reach = 4 / NORMAL.inv_cdf(0.95) * quantile([abs(v) for v in away], 0.9)
            away = [max(-reach, min(reach, v)) for v in away]
            rule = least_squares([away[i : i + 8] for i in range(learned - 8)], away[8:])
            missed = [
                abs(away[i + 8] - fsum(w * v for w, v in zip(rule, away[i : i + 8])))
                for i in range(learned - 8)
                if not isnan(past[i + 8])
            ]
            furthest = 4 / NORMAL.inv_cdf(0.95) * quantile(missed, 0.9) if missed else inf
        forecasts.append(
            level
            + fsum(
                w * (0.0 if isnan(v - level) else v - level) for w, v in zip(rule, believed[-8:])
            )
        )
        error = x[t] - forecasts[t]
        far = far + 1 if abs(error) > furthest else 0
        cut = 1 <= far <= 2
        believed.append(forecasts[t] + copysign(furthest, error) if cut else x[t])
    return by_errors(x, forecasts, window)


def weighted(x: Values, t: int, window: int) -> tuple[float, float]:
    """Return mean and standard deviation of all values before step t, weighted by decay**age."""
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
        up, down = (min(max(0.0, pile), 30.0) for pile in (up + z - 0.5, down - z - 0.5))
        scores.append(sqrt(1.7 * max(up, down)))
    return scores


PLAIN: dict[str, Twin] = {
    "rolling z-score": rolling_z,
    "median and MAD": median_mad,
    "interquartile range": interquartile,
    "percentile": percentile,
    "moving average": moving_average,
    "EWMA": ewma,
    "CUSUM": cusum,
    "seasonal": seasonal,
    "autoregressive": autoregressive,
    "ensemble": twins_flagship.ensemble,  # type: ignore[dict-item]
}

TWINS: dict[str, Twin] = {name: with_robust_start(twin) for name, twin in PLAIN.items()}
