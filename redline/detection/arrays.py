"""Array kernels shared by the detectors: windows, ranks, running sums and moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

TINY = 1e-150  # the spread of what never moves, in any unit: 2 * LARGEST / TINY is still a number
CACHE_CELLS = 1 << 15  # numbers worked on at once, 256 KiB: what a core keeps close
# the median of |z| and its 90th percentile, z a standard Gaussian
MEDIAN_ABS_GAUSSIAN = 0.6744897501960817
P90_ABS_GAUSSIAN = 1.6448536269514722
FEW_STREAMS = 8  # streams up to which plain floats are faster than calls
MANY_STREAMS = 32  # streams from which one call per step is faster than one scan per stream
Array = np.ndarray[Any, np.dtype[Any]]
Layers = tuple[Array, Array, Array]
Moments = Array | Layers  # a stack (3, ...) or its layers


def rolling_max(x: Array, width: int) -> Array:
    """The maximum of each `width` rows in a row: (steps, streams) -> (steps - width + 1,
    streams).
    """
    have = 1
    while have < width:
        more = min(have, width - have)
        x = np.maximum(x[:-more], x[more:])
        have = have + more
    return x


def concatenate_parts(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Tuples of arrays, put together one by one."""
    return parts[0] if len(parts) == 1 else tuple(np.concatenate(column) for column in zip(*parts))


def running_reduce(add: np.ufunc, rows: Array) -> Array:
    """rows[i] = add(rows[i - 1], rows[i]) down the steps, in place; (..., steps, streams). One
    order, so no bit depends on the route.
    """
    if rows.shape[-1] < MANY_STREAMS:
        return add.accumulate(rows, axis=-2, out=rows)
    for i in range(1, rows.shape[-2]):
        add(rows[..., i - 1, :], rows[..., i, :], out=rows[..., i, :])
    return rows


def sums_before(carry: Array, rows: Array) -> Array:
    """The sum before each of the rows: carry (..., streams), rows (..., steps, streams)."""
    if rows.shape[-2] == 1:
        return carry[..., None, :]  # what follows gives the same bits, in more time
    return running_reduce(np.add, np.concatenate((carry[..., None, :], rows[..., :-1, :]), axis=-2))


def moments(
    x: Array, anchor: Array, weights: float | Array = 1.0, out: Array | None = None
) -> Array:
    """The weighted moments of each value by itself, a missing one adding nothing."""
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
    """The same values' moments about an anchor lower by `by`."""
    n, total, squares = m
    moved = total + n * by
    return n, moved, squares + by * (total + moved)


def merge_moments(a: Moments, b: Moments) -> Layers:
    """The moments of the values of both, about the same anchor."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def centre_and_spread(
    m: Moments, anchor: Array, least: float | Array, out: Array | tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Mean and standard deviation from moments, NaN where fewer than `least` values (or less
    weight) were seen.
    """
    n, total, squares = m
    few = n < least
    if np.count_nonzero(few):
        n = np.where(few, np.nan, n)
    mean, spread = (None, None) if out is None else out
    mean = np.divide(total, n, out=mean)
    spread = np.divide(squares, n, out=spread)
    spread -= mean * mean
    np.sqrt(np.maximum(spread, 0.0, out=spread), out=spread)
    mean += anchor
    return mean, spread


def first_known(x: Array) -> Array:
    """(blocks, steps, streams) -> (blocks, streams): each block's first value, 0 where it has
    none.
    """
    if not x.shape[1]:
        return np.zeros((len(x), x.shape[2]))
    seen = x == x
    first: Array = (
        x[:, 0]
        if seen[:, 0].all()
        else np.nan_to_num(np.take_along_axis(x, seen.argmax(axis=1)[:, None], axis=1)[:, 0])
    )
    return first


def last_known(x: Array, before: Array) -> Array:
    """(steps, streams) -> (streams,): the last value, or the one before where all are missing."""
    whole = len(x) and (x[-1] == x[-1]).all()
    last: Array = (
        x[-1].copy()
        if whole
        else np.where((x == x).any(axis=0), first_known(x[None, ::-1])[0], before)
    )
    return last


def carry_forward(x: Array, before: Array) -> Array:
    """`before` (...) and then x (steps, ...), each missing value being the last one seen: (1 +
    steps, ...).
    """
    rows = np.concatenate((before[None], x))
    if np.count_nonzero(rows == rows) == rows.size:
        return rows
    step = np.arange(len(rows)).reshape(-1, *[1] * before.ndim)
    return np.take_along_axis(
        rows, np.maximum.accumulate(np.where(rows == rows, step, 0), axis=0), axis=0
    )


def rank_windows(
    views: Array, gauge: Callable[[Array, int | Array], Array | tuple[Array, Array]], least: int
) -> Array:
    """gauge(sorted windows, how many seen) of windows (steps, streams, width), a cacheful at a
    time; NaN where fewer than `least` were seen.

    The result is (2, steps, streams): the two things that gauge gives, or one of them twice.
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
    """The `width` rows before each further one, as a view: (width + steps, ...) -> (steps, ...,
    width).
    """
    rows = np.ascontiguousarray(rows)
    return np.ndarray(
        (len(rows) - width, *rows.shape[1:], width),
        rows.dtype,
        rows,
        0,
        (*rows.strides, rows.strides[0]),
    )


def cache_tiles(shape: tuple[int, ...], width: int) -> Iterator[tuple[slice, slice]]:
    """Slices of a (steps, streams) array of which each, times `width`, fits near the core."""
    steps, streams = shape
    down = max(1, CACHE_CELLS // max(1, width * streams))
    across = max(1, CACHE_CELLS // width)
    for i in range(0, steps, down):
        for j in range(0, streams, across):
            yield slice(i, i + down), slice(j, j + across)


def count_known(ordered: Array) -> int | Array:
    """How many are not missing along the last axis: one number where that is all of them."""
    last = ordered[..., -1]
    seen: int | Array = (
        ordered.shape[-1] if (last == last).all() else (ordered == ordered).sum(axis=-1)
    )
    return seen


def rank_quantile(ordered: Array, seen: int | Array, share: float) -> Array:
    """The value below which `share` of those seen lie, linear between two, along the last axis; NaN
    of none.
    """
    place: Any = share * (seen - 1)
    if isinstance(seen, int):
        low = ordered[..., math.floor(place)]
        high = ordered[..., math.ceil(place)]
    else:
        low, high = (
            np.take_along_axis(ordered, side(place).astype(int)[..., None], axis=-1)[..., 0]
            for side in (np.floor, np.ceil)
        )
    between: Array = low + place % 1 * (high - low)
    return between


def kth_smallest_distance(ranks: Array, centre: Array, place: int) -> Array:
    """The place-th smallest distance, from 0, of (window, ...) sorted values: those no farther are
    a run, whose two ends tell; no second sort.
    """
    below = centre - ranks[: len(ranks) - place]
    above = ranks[place:] - centre
    distance: Array = np.minimum.reduce(np.maximum(below, above, out=below), axis=0)
    return distance
