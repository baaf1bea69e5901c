"""The season of a series: the number of steps after which it repeats, by autocorrelation."""

from __future__ import annotations

import numpy as np

from redline.detection.arrays import Array

# steps
MIN_SEASON = 8
MAX_SEASON = 2400
MIN_AUTOCORRELATION = (
    0.5  # autocorrelation; above it, repeating the last season beats saying the mean
)
# of the best autocorrelation is enough for a season that is a part of the best one: a day rather
# than a week
SUB_SEASON_SHARE = 0.9


def find_season(x: Array, old: int = 0) -> int:
    """Steps per season, 0 when there is none; `old` stays unless another is clearly better.

    A season's autocorrelation is the best beyond the first dip, at least CLEAR, at half the length
    at most. Missing steps (NaN) count as the mean.

    >>> t = np.arange(600)
    >>> find_season(np.sin(2 * np.pi * t / 50)), find_season(np.random.default_rng(0).normal(size=600))
    (50, 0)
    """  # noqa: E501
    likeness = autocorrelation(x)
    last = min(MAX_SEASON, len(likeness) - 1)
    dips = (
        np.flatnonzero(likeness < likeness[1] / 2)
        if len(likeness) > 1 and likeness[1] > 0
        else np.array([1])
    )
    first = max(MIN_SEASON, int(dips[0])) if len(dips) else last
    if first + 2 >= last:
        return 0
    best = first + int(np.argmax(likeness[first : last + 1]))
    part = sub_season_share(likeness, best, first)
    if likeness[best] < MIN_AUTOCORRELATION or part >= last:
        return 0
    season = refine_season(likeness, part, first, last)
    return season if not old or old >= last or is_better_season(likeness, season, old) else old


def autocorrelation(x: Array) -> Array:
    """At lags 0 to half the length, spikes cut to four median deviations; empty where nothing
    moves.
    """
    x = np.nan_to_num(x - np.nanmean(x)) if (x == x).any() else np.zeros(len(x))
    reach = 4 * 1.4826 * np.median(np.abs(x)) if len(x) else 0.0
    if reach > 0:
        x = np.clip(x, -reach, reach)
        x = x - x.mean()
    size = np.abs(x).max(initial=0.0)
    if not size:
        return np.zeros(0)
    x = x / size
    half = len(x) // 2
    length = -(-(len(x) + half) // 512) * 512  # lags up to half do not wrap around
    wave = np.fft.rfft(x, length)
    sums = np.fft.irfft(wave * np.conj(wave), length)[: half + 1]
    return np.asarray(sums / sums[0] * (len(x) / (len(x) - np.arange(half + 1))))


def sub_season_share(likeness: Array, best: int, first: int) -> float:
    """The shortest whole part of the best season that is nearly as good."""
    for parts in range(best // first, 1, -1):
        part = best / parts
        width = max(1, int(0.05 * part))
        low = max(first, int(part) - width)
        high = int(part) + width
        peak = low + int(np.argmax(likeness[low : high + 1]))
        if low < peak < high and likeness[peak] >= SUB_SEASON_SHARE * likeness[best] - 0.02:
            return float(peak)
    return float(best)


def refine_season(likeness: Array, season: float, first: int, last: int) -> int:
    """The season to the step: measured at the highest multiple that is still a peak, where an error
    of one step is shared by all.
    """
    top = likeness[int(season)]
    season = peak_vertex(likeness, int(season), (first, last))
    times = 2
    while times * season + 2 < last + 1:
        width = max(1, int(season / 8))
        low = int(times * season) - width
        high = min(last, int(times * season) + width)
        peak = low + int(np.argmax(likeness[low : high + 1]))
        if likeness[peak] < 0.8 * top:
            break
        season = max(float(first), peak_vertex(likeness, peak, (first, last)) / times)
        times *= 2
    return round(season)


def peak_vertex(likeness: Array, peak: int, limits: tuple[int, int]) -> float:
    """The top of the parabola through a peak's neighbours: a noisy peak is broad."""
    width = max(2, peak // 16)
    low = max(limits[0], peak - width)
    high = min(limits[1], peak + width)
    away = np.arange(low, high + 1) - float(peak)
    if len(away) < 4:
        return float(peak)
    square, slope, _ = np.polyfit(away, likeness[low : high + 1], 2)
    return float(peak) if square >= 0 else float(np.clip(peak - slope / (2 * square), low, high))


def is_better_season(likeness: Array, season: int, old: int) -> bool:
    """Is another season worth a change? A near one if it fits better, a whole part of the old one
    always, any other if clearly better.
    """
    if abs(season - old) < 0.1 * old:
        return bool(likeness[season] >= likeness[old] + 0.02 * (1 - likeness[old]))
    part = season < old and abs(old / season - round(old / season)) < 0.1
    return part or bool(likeness[season] >= likeness[old] + 0.02)
