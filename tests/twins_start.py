"""Reference implementation of the robust start: scores as if the first values had no glitches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from math import isnan, nan
from typing import Any

ENDS = (32, 64, 128)  # steps after which the first values are judged


def without_glitches(values: list[float]) -> list[float]:
    """Replace by nan the largest group, three and one in 16 at most, ten times as far as the
    rest.
    """
    known = [value for value in values if not isnan(value)]
    for few in (3, 2, 1):
        if len(known) < 16 * few:
            continue
        middle = statistics.median(known)
        away = sorted((abs(value - middle) for value in known), reverse=True)
        rest = away[few]
        if rest > 0 and away[few - 1] > 10 * rest:
            return [nan if abs(value - middle) > 10 * rest else value for value in values]
    return values


def cleaned(steps: list[Any]) -> list[Any]:
    """Do the same for plain values or for rows, each feature by itself."""
    if not steps or not isinstance(steps[0], list):
        return without_glitches(steps)
    return [list(row) for row in zip(*map(without_glitches, map(list, zip(*steps))))]


def with_robust_start(twin: Callable[[Any, int], list[float]]) -> Callable[[Any, int], list[float]]:
    """Score the steps up to an end by a past cleaned as of the end before; from the last end on, by
    that one.
    """

    def scores(x: Any, window: int) -> list[float]:
        out: list[float] = []
        begins = [0, *(end for end in ENDS if end < len(x))]
        for begin, end in zip(begins, [*begins[1:], len(x)]):
            out += twin(cleaned(x[:begin]) + x[begin:end], window)[begin:]
        return out

    return scores
