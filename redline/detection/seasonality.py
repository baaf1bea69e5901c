"""The season of a series: the number of steps after which it repeats, by autocorrelation."""

from __future__ import annotations

import numpy as np

from redline.detection.arrays import Array

MIN_SEASON = 8  # steps
MAX_SEASON = 2400  # steps
MIN_AUTOCORRELATION = 0.5  # above it, repeating the last season predicts better than the mean
# a whole part of the best season is preferred, a day to a week, if its autocorrelation is at least
# this share of the best one
SUB_SEASON_SHARE = 0.9
MAX_DEVIATIONS = 4.0  # median deviations; a spike counts as no larger


def find_season(x: Array, old: int = 0) -> int:
    """Return the steps per season, 0 = none; `old` stays unless another is clearly better.

    The season is the lag beyond the first dip, at half the length at most, with the highest
    autocorrelation, which must be at least MIN_AUTOCORRELATION. Missing steps (NaN) count as the
    mean.

    >>> t = np.arange(600)
    >>> find_season(np.sin(2 * np.pi * t / 50))
    50
    >>> find_season(np.random.default_rng(0).normal(size=600))
    0
    """
    correlation = autocorrelation(x)  # (lags,)
    last = min(MAX_SEASON, len(correlation) - 1)
    first = _first_lag(correlation, last)
    if first + 2 >= last:
        return 0
    best = first + int(np.argmax(correlation[first : last + 1]))
    if correlation[best] < MIN_AUTOCORRELATION:
        return 0
    part = shortest_sub_season(correlation, best, first)
    if part >= last:
        return 0
    season = refine_season(correlation, part, first, last)
    if old and old < last and not is_better_season(correlation, season, old):
        return old
    return season


def _first_lag(correlation: Array, last: int) -> int:
    """Return the first lag that may be a season: beyond the dip after lag 0, `last` without one."""
    if len(correlation) <= 1 or correlation[1] <= 0:
        return MIN_SEASON
    dips = np.flatnonzero(correlation < correlation[1] / 2)
    return max(MIN_SEASON, int(dips[0])) if len(dips) else last


def autocorrelation(x: Array) -> Array:
    """Return the autocorrelation at lags 0 to half the length; empty where nothing moves.

    Spikes are cut to MAX_DEVIATIONS.
    """
    x = np.nan_to_num(x - np.nanmean(x)) if (x == x).any() else np.zeros(len(x))
    # 1.4826 turns a Gaussian's median deviation into its standard deviation
    reach = MAX_DEVIATIONS * 1.4826 * np.median(np.abs(x)) if len(x) else 0.0
    if reach > 0:
        x = np.clip(x, -reach, reach)
        x = x - x.mean()
    size = np.abs(x).max(initial=0.0)
    if not size:
        return np.zeros(0)
    x = x / size
    half = len(x) // 2
    length = -(-(len(x) + half) // 512) * 512  # padded, so that lags up to half do not wrap around
    spectrum = np.fft.rfft(x, length)
    sums = np.fft.irfft(spectrum * np.conj(spectrum), length)[: half + 1]
    terms = len(x) - np.arange(half + 1)  # (lags,) in each sum
    return np.asarray(sums / sums[0] * (len(x) / terms))


def shortest_sub_season(correlation: Array, best: int, first: int) -> float:
    """Return the shortest whole part of the best season that is nearly as good."""
    enough = SUB_SEASON_SHARE * correlation[best] - 0.02
    part = best / np.arange(best // first, 1, -1)
    width = np.maximum(1, (0.05 * part).astype(int))
    lows = np.maximum(first, part.astype(int) - width)
    highs = part.astype(int) + width
    good = np.flatnonzero(correlation >= enough)
    near = np.searchsorted(good, lows) < np.searchsorted(good, highs, side="right")
    for low, high in zip(lows[near].tolist(), highs[near].tolist()):
        peak = low + int(np.argmax(correlation[low : high + 1]))
        if low < peak < high and correlation[peak] >= enough:
            return float(peak)
    return float(best)


def refine_season(correlation: Array, season: float, first: int, last: int) -> int:
    """Return the season to the step.

    It is measured at the highest multiple that is still a peak: all its turns share an error of one
    step.
    """
    top = correlation[int(season)]
    season = peak_vertex(correlation, int(season), (first, last))
    times = 2
    while times * season + 2 < last + 1:
        width = max(1, int(season / 8))
        low = int(times * season) - width
        high = min(last, int(times * season) + width)
        peak = low + int(np.argmax(correlation[low : high + 1]))
        if correlation[peak] < 0.8 * top:
            break
        season = max(float(first), peak_vertex(correlation, peak, (first, last)) / times)
        times *= 2
    return round(season)


def peak_vertex(correlation: Array, peak: int, limits: tuple[int, int]) -> float:
    """Return the vertex of a parabola fitted around a peak; a noisy peak is broad."""
    width = max(2, peak // 16)
    low = max(limits[0], peak - width)
    high = min(limits[1], peak + width)
    if high - low < 3:
        return float(peak)
    # least squares; seen from their middle the lags are symmetric, so the sums separate
    middle = (low + high) / 2
    lags = np.arange(low, high + 1) - middle
    squares = lags * lags
    bend = squares - squares.mean()
    near = correlation[low : high + 1]
    square = float((bend * near).sum() / (bend * bend).sum())
    if square >= 0:  # no peak
        return float(peak)
    slope = float((lags * near).sum() / squares.sum())
    return min(max(middle - slope / (2 * square), float(low)), float(high))


def is_better_season(correlation: Array, season: int, old: int) -> bool:
    """Return whether to change to another season.

    A near one must fit better, a whole part of the old one always wins, any other must be clearly
    better.
    """
    if abs(season - old) < 0.1 * old:
        return bool(correlation[season] >= correlation[old] + 0.02 * (1 - correlation[old]))
    is_part = season < old and abs(old / season - round(old / season)) < 0.1
    return is_part or bool(correlation[season] >= correlation[old] + 0.02)
