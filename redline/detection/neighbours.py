"""Detectors by distance to the past: a step is anomalous when nothing like it was before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectors import CEILING, Calibration, Detector, State, Verdict
from redline.detection.arrays import (
    TINY,
    Array,
    cache_tiles,
    carry_forward,
    running_reduce,
    sliding_windows,
)


@dataclass
class NearestNeighbours(Detector):
    """How far the last few steps are, together, from the nearest such run in the past.

    d = root mean square gap between the last `lags` values, weighted FADE**age, and those of the
    `neighbours`-th nearest run of the last MEMORY windows. A missing value is the one before it,
    and a run that ends in one has no neighbour. The root of d goes through the calibration, and the
    score is at most d / floor. With a direction, the step must lie to that side of the end of the
    nearest run. Cost: lags * MEMORY * window per step; 2 * MEMORY * window numbers per stream. When
    it fails: a fault seen more than `neighbours` times is known; where everything is always new, as
    on a random walk, nothing is anomalous. The `lags` - 1 steps after an anomalous one are
    anomalous with it. Source: E. M. Knorr, R. T. Ng, Algorithms for Mining Distance-Based Outliers
    in Large Datasets, 1998; S. Ramaswamy, R. Rastogi, K. Shim, Efficient Algorithms for Mining
    Outliers from Large Data Sets, 2000.

    >>> x = np.sin(np.arange(600) / 4) + 0.1 * np.random.default_rng(1).normal(size=600)
    >>> x[585] = -x[585]  # a value the wave often takes, but not here
    >>> NearestNeighbours(window=60).update(x[:, None])[583:590].ravel().round(1)
    array([ 0.5,  0.5, 11.6, 12.1,  9.5,  6.9,  2.9])
    """

    lags: int = 4  # steps in a run
    neighbours: int = 5  # runs; the distance to the last of them counts
    MEMORY: ClassVar[int] = 4  # windows of runs
    FADE: ClassVar[float] = 0.6  # weight of a squared gap, for each step it is back

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runs = self.MEMORY * self.window
        weights = self.FADE ** np.arange(self.lags)
        self._weights = weights / weights.sum()
        self._scale = Calibration(window=4 * self.window)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the values that all the runs hold, and the last one seen before them."""
        return {
            "past": np.full((self._runs + self.lags - 1, *shape), np.nan),
            "last": np.full(shape, np.nan),
        }

    def move_on(self, learned: State, now: State) -> State:
        """Keep the runs learned; the newest values are only the beginning of the next run."""
        run = slice(self._runs, None)  # lags - 1 values
        learned["past"][run] = now["past"][run]
        return learned | {"last": now["last"]}

    def advance(self, x: Any) -> Verdict:
        """Score by the distance to the runs before, then learn this one."""
        x = self.read(x)
        distance, side = self._nearest(x)
        with self.inside("scale", self._scale):
            score = np.minimum(self._scale.update(np.sqrt(distance)), distance / self._floor)
        if self.direction != "both":
            score = np.where(self.sided(side) > 0, score, 0.0 * score)  # NaN stays NaN
        return Verdict(score)

    def _nearest(self, x: Array) -> tuple[Array, Array]:
        """Return each step's distance to the runs before, and by how much it lies above the end of
        the nearest one; both (steps, streams), the second only with a direction.
        """
        state = self._state
        steps = len(x)
        seen = self.remember(x)
        full = carry_forward(seen, state["last"])[1:]
        if steps:
            state["last"] = full[steps - 1].copy()
        # each (steps, streams, runs): the last values of the runs before a step, the values one
        # step before them, and so on
        runs = [
            sliding_windows(full[lag : len(full) - self.lags + 1 + lag], self._runs)
            for lag in reversed(range(self.lags))
        ]
        # 0, NaN where the run ends in a missing value
        ends = sliding_windows(np.where(seen == seen, 0.0, np.nan)[self.lags - 1 :], self._runs)
        rank = min(self.neighbours, self.least) - 1
        distance = np.empty_like(x)
        side = np.empty_like(x)
        for near in cache_tiles(x.shape, self._runs):
            squares = ends[near].copy()
            for lag, run in enumerate(runs):
                now = full[len(full) - steps - lag : len(full) - lag][near]
                squares += self._weights[lag] * (run[near] - now[..., None]) ** 2
            if self.direction != "both":
                nearest = np.where(squares == squares, squares, np.inf).argmin(axis=-1)
                end = np.take_along_axis(runs[0][near], nearest[..., None], axis=-1)[..., 0]
                side[near] = x[near] - end
            squares.sort(axis=-1)  # NaN last
            few = np.isnan(squares[..., self.least - 1])
            distance[near] = np.where(few, np.nan, np.sqrt(squares[..., rank]))
        return distance + 0.0 * x, side  # NaN where x is


@dataclass
class Novelty(Detector):
    """How far from the nearest value ever seen, compared with how close values lie over their whole
    range.

    E = distance * steps seen, at most HORIZON / range so far: how many values that gap would hold
    if all were evenly spread; score = RATE * sqrt(E), a fixed map. On ground gained in the last
    `window` it is also compared with what records there added: in a flock of them, as on a ramp,
    one more is no news. Values are remembered one for each of KEPT places of the range. It looks
    for half a `window` before it speaks. Cost: KEPT per step, KEPT numbers per stream. When it
    fails: everything is new once, so it never alarms twice for a fault, nor for an old value at the
    wrong time. Source: S. Marsland, Novelty Detection in Learning Systems, 2003; how wide the gaps
    between seen values are: R. Pyke, Spacings, 1965.

    >>> x = np.tile(np.arange(10.0), 30)
    >>> Novelty().fit(x[:, None]).score([[4.0], [4.5], [11.0]]).ravel().round(1)
    array([0. , 3.3, 6.6])
    """

    KEPT: ClassVar[int] = 2048  # values; a new one nearer than 1 / KEPT of the range is not kept
    BLOCK: ClassVar[int] = 64  # steps
    HORIZON: ClassVar[int] = 10_000  # steps; more do not make a gap more anomalous
    # records; after so many in a window, the next may add half of what they usually add
    FLOCK: ClassVar[float] = 16.0
    # even gaps; what one record adds counts as no more, lest one fault hide the next
    MOST: ClassVar[float] = 10.0
    RATE: ClassVar[float] = 0.8  # measured on Gaussian noise

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the values remembered, the open block, the range, and the records so far.

        Records: their number, what counts of what they added, and the ground gained up and down.
        """
        return {
            "kept": np.full((*shape, self.KEPT), np.inf),  # ascending, the rest infinite
            "block": np.full((self.BLOCK, *shape), np.nan),
            "ends": np.stack((np.full(shape, np.inf), np.full(shape, -np.inf))),  # lowest, highest
            "seen": np.zeros(shape, int),  # steps
            "records": np.zeros((4, *shape)),  # before the open block
            "fresh": np.zeros((4, *shape)),  # in the open block
        }

    def advance(self, x: Any) -> Verdict:
        """Score by the distance to all values before, then remember them."""
        x = self.read(x)
        scores = [self._piece(offset, rows) for offset, rows in self.pieces(x, self.BLOCK)]
        return Verdict(np.concatenate(scores))

    def _piece(self, offset: int, rows: Array) -> Array:
        """Return the scores of a piece of a block; at its end, learn the block."""
        state = self._state
        steps = len(rows)
        state["block"][offset : offset + steps] = rows
        # (1 + steps, streams): what was seen before each step, then after the last
        low = np.fmin.accumulate(np.concatenate((state["ends"][:1], rows)))
        high = np.fmax.accumulate(np.concatenate((state["ends"][1:], rows)))
        seen = np.concatenate((state["seen"][None], rows == rows)).cumsum(axis=0)
        # (steps, streams)
        reach = np.maximum(high - low, TINY)[:-1]
        n = np.where(seen < self.least, np.nan, np.minimum(seen, self.HORIZON))[:-1]
        distance = self._distance(offset, rows)
        spacing = self._spacing(reach / n, rows, low[:-1], high[:-1])
        score = np.minimum(self.RATE * np.sqrt(distance / spacing), distance / self._floor)
        state["ends"] = np.stack((low[-1], high[-1]))
        state["seen"] = seen[-1]
        if offset + steps == self.BLOCK:
            self._keep()
        return np.asarray(np.minimum(score, CEILING))

    def _spacing(self, even: Array, rows: Array, low: Array, high: Array) -> Array:
        """Return the gap that is expected of each step, and count the records; (steps, streams).

        It is the even one; on ground gained lately what records usually add, as far as they come in
        flocks.
        """
        state = self._state
        records, added, up, down = state["records"]
        gained = (rows > high - up) | (rows < low + down)
        spacing = np.where(gained, np.maximum(even, added / (self.FLOCK + records)), even)
        above = np.maximum(rows - high, 0.0)
        below = np.maximum(low - rows, 0.0)
        record = (above + below > 0) & (even == even)
        counted = np.minimum(above + below, self.MOST * spacing)
        # (4, steps, streams), as in `begin`
        fresh = np.where(record, np.stack((np.ones_like(rows), counted, above, below)), 0.0)
        sums = running_reduce(np.add, np.concatenate((state["fresh"][:, None], fresh), axis=1))
        state["fresh"] = sums[:, -1].copy()  # a copy, or all the sums would stay in memory
        return np.asarray(spacing)

    def _distance(self, offset: int, rows: Array) -> Array:
        """Return the distance to the nearest value before, 0 where it is on the watched side."""
        state = self._state
        out = np.empty_like(rows)
        earlier = np.arange(self.BLOCK) < offset + np.arange(len(rows))[:, None]  # (steps, BLOCK)
        # (BLOCK, streams) -> (steps, streams, BLOCK), NaN from the step itself on
        recent = np.where(earlier[:, None], np.moveaxis(state["block"], 0, -1), np.nan)
        for near in cache_tiles(rows.shape, self.KEPT + self.BLOCK):
            x = rows[near][..., None]
            gaps = (x - state["kept"][near[1]], x - recent[near])
            above = np.minimum(*(least_positive(gap) for gap in gaps))
            below = np.minimum(*(least_positive(-gap) for gap in gaps))
            out[near] = self.sided(np.where(above <= below, above, -below))
        return np.where(rows == rows, out, np.nan)

    def _keep(self) -> None:
        """Keep the lowest value of each place that has one, and let the records fade."""
        state = self._state
        state["records"] = state["records"] * (1 - 1 / self.window) ** self.BLOCK + state["fresh"]
        state["fresh"] = np.zeros_like(state["fresh"])
        low, high = np.where(state["seen"] > 0, state["ends"], 0.0)[..., None]
        # (streams, KEPT + BLOCK), ascending
        values = np.concatenate((state["kept"], np.moveaxis(state["block"], 0, -1)), axis=-1)
        values = np.sort(np.where(values == values, values, np.inf), axis=-1)
        place = np.floor((values - low) / np.maximum(high - low, TINY) * (self.KEPT - 1))
        known = values < np.inf
        known[..., 1:] &= place[..., 1:] != place[..., :-1]  # the first of each place
        state["kept"] = np.sort(np.where(known, values, np.inf), axis=-1)[..., : self.KEPT]


def least_positive(gaps: Array) -> Array:
    """Return the smallest gap that is not negative along the last axis, infinite without one."""
    least: Array = np.where(gaps >= 0, gaps, np.inf).min(axis=-1)
    return least
