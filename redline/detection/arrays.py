"""Array kernels shared by the detectors: windows, ranks, running sums and moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# the spread of what never moves, in any unit: 2 * LARGEST_VALUE / TINY is still finite
TINY = 1e-150
CACHE_CELLS = 1 << 15  # numbers worked on at once, 256 KiB: they stay in a core's cache
MEDIAN_ABS_GAUSSIAN = 0.6744897501960817  # median of |z|, z a standard Gaussian
P90_ABS_GAUSSIAN = 1.6448536269514722  # its 90th percentile
FEW_STREAMS = 8  # with fewer streams, plain floats are faster than one call per step
MANY_STREAMS = 32  # from so many streams on, one call per step is faster than one scan per stream
Array = np.ndarray[Any, np.dtype[Any]]
Layers = tuple[Array, Array, Array]
# number, sum and sum of squares of values minus an anchor, as a stack (3, ...) or its layers
Moments = Array | Layers


def rolling_max(x: Array, width: int) -> Array:
    """Return the maximum of each `width` rows in a row.

    (steps, streams) -> (steps - width + 1, streams).
    """
    covered = 1  # rows that each maximum covers
    while covered < width:
        more = min(covered, width - covered)
        x = np.maximum(x[:-more], x[more:])
        covered += more
    return x


def concatenate_parts(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Concatenate tuples of arrays: the first arrays, the second arrays, and so on."""
    return parts[0] if len(parts) == 1 else tuple(np.concatenate(column) for column in zip(*parts))


def running_reduce(add: np.ufunc, rows: Array) -> Array:
    """Set rows[i] = add(rows[i - 1], rows[i]) down the steps, in place; (..., steps, streams).

    Both ways add in the same order, so to the same bits.
    """
    if rows.shape[-1] < MANY_STREAMS:
        return add.accumulate(rows, axis=-2, out=rows)
    for i in range(1, rows.shape[-2]):
        add(rows[..., i - 1, :], rows[..., i, :], out=rows[..., i, :])
    return rows


def sums_before(carry: Array, rows: Array) -> Array:
    """Return the sum before each of the rows: carry (..., streams), rows (..., steps, streams)."""
    if rows.shape[-2] == 1:
        return carry[..., None, :]  # the same bits as below, in less time
    return running_reduce(np.add, np.concatenate((carry[..., None, :], rows[..., :-1, :]), axis=-2))


def moments(
    x: Array, anchor: Array, weights: float | Array = 1.0, out: Array | None = None
) -> Array:
    """Return the weighted moments of each single value, 0 for a missing one: (3, ...)."""
    m = np.empty((3, *x.shape)) if out is None else out
    np.subtract(x, anchor, out=m[2])
    missing = m[2] != m[2]
    m[0] = weights
    if np.count_nonzero(missing):
        m[0][missing] = m[2][missing] = 0.0
    np.multiply(m[2], weights, out=m[1])
    np.multiply(m[1], m[2], out=m[2])
    return m


def shift_moments(m: Moments, by: Array) -> Layers:
    """Return the moments of the same values about an anchor lower by `by`."""
    n, total, squares = m
    moved = total + n * by
    return n, moved, squares + by * (total + moved)


def merge_moments(a: Moments, b: Moments) -> Layers:
    """Return the moments of the values of both, about the same anchor."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def centre_and_spread(
    m: Moments, anchor: Array, least: float | Array, out: Array | tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Return mean and standard deviation from moments.

    NaN where fewer than `least` values, or less weight, were seen.
    """
    n, total, squares = m
    few = n < least
    if np.count_nonzero(few):
        n = np.where(few, np.nan, n)
    mean, spread = (None, None) if out is None else out
    mean = np.divide(total, n, out=mean)
    spread = np.divide(squares, n, out=spread)
    spread -= mean * mean
    np.maximum(spread, 0.0, out=spread)  # rounding
    np.sqrt(spread, out=spread)
    mean += anchor
    return mean, spread


def first_known(x: Array) -> Array:
    """Return the first value of each block, 0 where it has none.

    (blocks, steps, streams) -> (blocks, streams).
    """
    if not x.shape[1]:
        return np.zeros((len(x), x.shape[2]))
    seen = x == x
    if seen[:, 0].all():
        first: Array = x[:, 0]
        return first
    place = seen.argmax(axis=1)[:, None]  # (blocks, 1, streams)
    return np.asarray(np.nan_to_num(np.take_along_axis(x, place, axis=1)[:, 0]))


def last_known(x: Array, before: Array) -> Array:
    """Return the last value of each stream, `before` where all are missing.

    (steps, streams) -> (streams,), an array of its own.
    """
    if len(x) and (x[-1] == x[-1]).all():
        last: Array = x[-1].copy()
        return last
    return np.where((x == x).any(axis=0), first_known(x[None, ::-1])[0], before)


def carry_forward(x: Array, before: Array) -> Array:
    """Return `before` (...) and then x (steps, ...), missing values replaced by the last one seen.

    (1 + steps, ...).
    """
    rows = np.concatenate((before[None], x))
    if np.count_nonzero(rows == rows) == rows.size:
        return rows
    step = np.arange(len(rows)).reshape(-1, *[1] * before.ndim)
    newest = np.maximum.accumulate(np.where(rows == rows, step, 0), axis=0)  # step of the last seen
    return np.take_along_axis(rows, newest, axis=0)


def rank_windows(
    views: Array, gauge: Callable[[Array, int | Array], Array | tuple[Array, Array]], least: int
) -> Array:
    """Apply `gauge` to sorted windows, a cacheful at a time: (steps, streams, width) -> (2, steps,
    streams).

    gauge: takes windows sorted with the missing values last, and how many values each has; returns
    two arrays, or one, which is then returned twice. NaN where fewer than `least` were seen.
    """
    out = np.empty((2, *views.shape[:2]))
    for steps, streams in cache_tiles(views.shape[:2], views.shape[2]):
        ordered = views[steps, streams].copy()
        ordered.sort(axis=-1)
        seen = count_known(ordered)
        out[:, steps, streams] = gauge(ordered, seen)
        if not isinstance(seen, int):
            out[:, steps, streams][:, seen < least] = np.nan
    return out


def sliding_windows(rows: Array, width: int) -> Array:
    """Return a view of the `width` rows before each further one.

    (width + steps, ...) -> (steps, ..., width).
    """
    rows = np.ascontiguousarray(rows)
    shape = (len(rows) - width, *rows.shape[1:], width)
    strides = (*rows.strides, rows.strides[0])
    return np.ndarray(shape, rows.dtype, rows, 0, strides)


def cache_tiles(shape: tuple[int, ...], width: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of a (steps, streams) array, each of which fits into the cache `width` times."""
    steps, streams = shape
    down = max(1, CACHE_CELLS // max(1, width * streams))
    across = max(1, CACHE_CELLS // width)
    for i in range(0, steps, down):
        for j in range(0, streams, across):
            yield slice(i, i + down), slice(j, j + across)


def count_known(ordered: Array) -> int | Array:
    """Count the values along the last axis, sorted with the missing ones last.

    One int where none is missing, else an array.
    """
    last = ordered[..., -1]
    if (last == last).all():
        return int(ordered.shape[-1])
    counts: Array = (ordered == ordered).sum(axis=-1)
    return counts


def rank_quantile(ordered: Array, seen: int | Array, share: float) -> Array:
    """Return a quantile along the last axis, linear between two values; NaN of none.

    ordered: sorted with the missing last; seen: how many values (see `count_known`).
    """
    place: Any = share * (seen - 1)
    if isinstance(seen, int):
        low = ordered[..., math.floor(place)]
        high = ordered[..., math.ceil(place)]
    else:
        below = np.floor(place).astype(int)[..., None]
        above = np.ceil(place).astype(int)[..., None]
        low = np.take_along_axis(ordered, below, axis=-1)[..., 0]
        high = np.take_along_axis(ordered, above, axis=-1)[..., 0]
    between: Array = low + place % 1 * (high - low)
    return between


def kth_smallest_distance(ranks: Array, centre: Array, place: int) -> Array:
    """Return the place-th smallest distance, from 0, of sorted values (window, ...) to a centre.

    The values no farther are neighbours in rank, so the farther end of the shortest such run is it:
    no second sort is needed.
    """
    below = centre - ranks[: len(ranks) - place]
    above = ranks[place:] - centre
    distance: Array = np.minimum.reduce(np.maximum(below, above, out=below), axis=0)
    return distance
