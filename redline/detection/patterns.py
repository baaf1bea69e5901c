"""Distances from the present pattern of a stream to those of its past."""

from __future__ import annotations

import numpy as np

from redline.detection.arrays import CACHE_CELLS, Array

PATTERN_MEMORY = 1020  # the latest patterns, with which the present one is compared
PATTERN_STEPS = 8  # steps of a pattern; the sums below are made by doubling, three times
DOUBT_STEPS = 64  # steps after which a suspicious pattern counts
NEIGHBOURS = 5  # parts of the patterns, of each of which the nearest counts


def pattern_distances(present: Array, past: Array, known: int, doubtful: Array) -> Array:
    """Return the mean distance of each pattern to its nearest in five parts of the past.

    The parts are every fifth pattern, so that one lucky match does not decide. Euclidean distances
    over PATTERN_STEPS steps; NaN where less than five patterns are known.

    Args:
        present: (PATTERN_STEPS - 1 + steps, channels) values, of which each step ends a pattern.
        past: (PATTERN_STEPS - 1 + PATTERN_MEMORY, channels) values before them.
        known: how many of the past patterns, the newest, were seen.
        doubtful: (DOUBT_STEPS, channels) bool, which of the newest do not count yet.

    Returns (steps, channels).
    """
    steps = len(present) - PATTERN_STEPS + 1
    out = np.full((steps, present.shape[1]), np.nan)
    if known < NEIGHBOURS or not steps:
        return out
    known = min(known, PATTERN_MEMORY)
    columns = past[PATTERN_MEMORY - known :].T.copy()  # (channels, known + 7)
    rows = present.T.copy()  # (channels, steps + 7)
    few = max(1, CACHE_CELLS // (rows.shape[1] * columns.shape[1]))
    newest = min(known, DOUBT_STEPS)
    for first in range(0, len(rows), few):
        some = slice(first, first + few)
        apart = rows[some, :, None] - columns[some, None, :]
        apart *= apart
        for step in (1, 2, 4):  # sums over 2, 4 and 8 steps in a row, always in the same order
            apart = apart[:, step:, step:] + apart[:, :-step, :-step]
        hidden = doubtful[DOUBT_STEPS - newest :, some].T  # (channels, newest)
        if hidden.any():
            apart[:, :, known - newest :][
                np.broadcast_to(hidden[:, None], (*apart.shape[:2], newest))
            ] = np.inf
        nearest = [
            np.sqrt(apart[:, :, part::NEIGHBOURS].min(axis=-1)) for part in range(NEIGHBOURS)
        ]
        out[:, some] = (sum(nearest[1:], start=nearest[0]) / NEIGHBOURS).T
    return out
