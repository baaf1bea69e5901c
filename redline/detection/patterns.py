"""Distances from the present pattern of a stream to those of its past."""

from __future__ import annotations

import numpy as np

from redline.detection.arrays import CACHE_CELLS, Array

PATTERN_MEMORY = 1020  # the latest patterns, with which the present one is compared
PATTERN_STEPS = 8  # steps of a pattern; the sums below are made by doubling, three times
DOUBT_STEPS = 64  # steps after which a suspicious pattern counts
NEIGHBOURS = 5  # parts of the patterns, of each of which the nearest counts
FARTHEST = 1e15  # the largest value compared: the sum of eight squares is a number in 32 bits


def pattern_distances(present: Array, past: Array, known: int, doubtful: Array) -> Array:
    """Return the mean distance of each pattern to its nearest in five parts of the past.

    The parts are every fifth pattern, so that one lucky match does not decide. Euclidean distances
    over PATTERN_STEPS steps; NaN where less than five patterns are known. The sums are made in 32
    bits, in the same order for one step as for many.

    Args:
        present: (channels, PATTERN_STEPS - 1 + steps) values, of which each step ends a pattern.
        past: (channels, PATTERN_STEPS - 1 + PATTERN_MEMORY) values before them, in 32 bits.
        known: how many of the past patterns, the newest, were seen.
        doubtful: (channels, DOUBT_STEPS) bool, which of the newest do not count yet.

    Returns (steps, channels).
    """
    channels = len(present)
    steps = present.shape[1] - PATTERN_STEPS + 1
    out = np.full((steps, channels), np.nan)
    if known < NEIGHBOURS or not steps:
        return out
    known = min(known, PATTERN_MEMORY)
    rows = np.clip(present, -FARTHEST, FARTHEST).astype(np.float32)
    columns = past[:, PATTERN_MEMORY - known :]  # (channels, known + 7)
    newest = min(known, DOUBT_STEPS)
    hidden = doubtful[:, DOUBT_STEPS - newest :]  # (channels, newest)
    few = max(1, 2 * CACHE_CELLS // (rows.shape[1] * columns.shape[1]))  # channels in the cache
    many = max(1, 2 * CACHE_CELLS // (steps * known))  # whose distances are
    for first in range(0, channels, many):
        some = slice(first, first + many)
        apart = _squared_distances(rows[some], columns[some], few)  # (many, steps, known)
        waiting = hidden[some]
        if waiting.any():
            np.copyto(apart[:, :, known - newest :], np.inf, where=waiting[:, None])
        nearest = np.sqrt(_nearest_of_parts(apart).astype(np.float64))
        total = nearest[..., 0]
        for part in range(1, NEIGHBOURS):
            total = total + nearest[..., part]
        out[:, some] = (total / NEIGHBOURS).T
    return out


def _squared_distances(rows: Array, columns: Array, few: int) -> Array:
    """Return the squared distances between all patterns of rows and of columns.

    (channels, 7 + steps), (channels, 7 + known) -> (channels, steps, known), a `few` channels at
    once.
    """
    tiles = []
    one = rows.shape[1] == PATTERN_STEPS  # of one step only every other sum is needed
    for first in range(0, len(rows), few):
        some = slice(first, first + few)
        apart = rows[some, :, None] - columns[some, None, :]
        apart *= apart
        for step in (1, 2, 4):  # sums over 2, 4 and 8 steps in a row, always in the same order
            later = apart[:, 1::2, step:] if one else apart[:, step:, step:]
            earlier = apart[:, ::2, :-step] if one else apart[:, :-step, :-step]
            apart = later + earlier
        tiles.append(apart)
    return tiles[0] if len(tiles) == 1 else np.concatenate(tiles)


def _nearest_of_parts(apart: Array) -> Array:
    """Return the least of every fifth of the last axis, which is overwritten: (..., NEIGHBOURS).

    By halves, each a multiple of five long: a minimum of neighbours in memory is fast.
    """
    size = apart.shape[-1]
    while size > NEIGHBOURS:
        half = -(-size // (2 * NEIGHBOURS)) * NEIGHBOURS
        rest = size - half
        np.minimum(apart[..., :rest], apart[..., half:size], out=apart[..., :rest])
        size = half
    return apart[..., :NEIGHBOURS]
