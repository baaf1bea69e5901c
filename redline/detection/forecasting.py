"""Forecasting detectors: the error of a forecast in units of its usual errors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from detectors import Expecting, State
from redline.detection.arrays import (
    P90_ABS_GAUSSIAN,
    TINY,
    Array,
    count_known,
    rank_quantile,
    rank_windows,
    sliding_windows,
)
from redline.detection.seasonality import find_season


@dataclass
class ForecastDetector(Expecting):
    """Base of the detectors that define `forecast`.

    The spread is the 90th percentile of the last `window` absolute errors, as that of a Gaussian.
    """

    @abstractmethod
    def forecast(self, x: Array) -> Array:
        """Return the value expected at each step, (steps, streams), NaN = unknown; then learn x."""

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last absolute errors."""
        return {"past": np.full((self.window, *shape), np.nan)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Return the forecast, and the size of the errors before it."""
        centre = self.forecast(x)
        errors = sliding_windows(self.remember(np.abs(x - centre)), self.window)
        spread, _ = rank_windows(errors, error_size, self.least)
        return centre, spread


def error_size(ordered: Array, seen: int | Array) -> Array:
    """Return the 90th percentile of sorted absolute errors, (..., window), as that of a Gaussian.

    seen: how many errors each window has, see `count_known`.
    """
    return rank_quantile(ordered, seen, 0.9) / P90_ABS_GAUSSIAN


def mean_of_views(views: Array, least: int = 1) -> Array:
    """Return the mean along the last axis, exact where all are equal.

    NaN where fewer than `least` values are there.
    """
    low = np.fmin.reduce(views, axis=-1)
    above = np.subtract(views, low[..., None], order="C")  # one memory order: one order of summing
    missing = above != above
    if not np.count_nonzero(missing):
        return np.asarray(low + np.add.reduce(above, axis=-1) / above.shape[-1])
    above[missing] = 0.0
    seen = above.shape[-1] - np.count_nonzero(missing, axis=-1)
    return np.where(seen < least, np.nan, low + np.add.reduce(above, axis=-1) / np.maximum(seen, 1))


@dataclass
class MovingAverage(ForecastDetector):
    """How far from the mean of the last few steps, in units of its own usual error.

    Forecast: the mean of the last window / 8 steps, at least 6. It follows slow waves and wandering
    that a whole window calls anomalous. Cost: one sort of the window per step. When it fails: on a
    stream that leaps to and fro, like a square wave, every leap is "usual"; a slow drift is
    followed and never seen. Source: P. R. Winters, Forecasting Sales by Exponentially Weighted
    Moving Averages, 1960 (the idea of judging a forecast by its errors); ADTK, Anomaly Detection
    Toolkit, 2019 (level shift against a short window).

    >>> x = np.array([1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 9.0])
    >>> MovingAverage(window=4).update(x[:, None]).ravel().round(3)
    array([  nan,   nan,   nan, 0.   , 1.175, 0.244, 8.732])
    """

    newest: ClassVar[frozenset[str]] = frozenset(("last",))

    @property
    def span(self) -> int:
        """Return the steps in the mean."""
        return max(6, self.window // 8)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last errors and the last values."""
        return {**super().begin(shape), "last": np.full((self.span, *shape), np.nan)}

    def forecast(self, x: Array) -> Array:
        """Return the mean of the last steps."""
        return mean_of_views(sliding_windows(self.remember(x, "last"), self.span))


@dataclass
class Seasonal(MovingAverage):
    """How far from the same place in the seasons before, in units of its own usual error.

    Forecast: the median of the values one, two and three seasons ago, plus the mean error of that
    over the last window / 8 steps. The season is found by autocorrelation in the last KEPT steps,
    looked for again every LOOK steps; without one, this is the moving average. Cost: one sort of
    the window per step, a Fourier transform every LOOK steps; KEPT numbers per stream. When it
    fails: in the first two turns of a season, and where one is longer than KEPT / 2 steps or
    changes its length within a few turns. Source: R. J. Hyndman, G. Athanasopoulos, Forecasting:
    Principles and Practice, 2021 (seasonal naive).

    >>> t = np.arange(600)
    >>> x = 10 * np.sin(2 * np.pi * t / 50) + np.random.default_rng(0).normal(size=600)
    >>> x[590] = x[565]  # a value of every season, at the wrong time of it
    >>> Seasonal().update(x[:, None])[588:593].ravel().round(0)
    array([ 1.,  1., 16.,  2.,  2.])
    """

    newest: ClassVar[frozenset[str]] = frozenset(("last", "step"))
    KEPT: ClassVar[int] = 4096  # steps
    LOOK: ClassVar[int] = 256  # steps
    TURNS: ClassVar[int] = 3  # seasons

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the errors, the last KEPT steps (a ring buffer), and each stream's season."""
        return {
            **super().begin(shape),
            "kept": np.full((self.KEPT, *shape), np.nan),
            "season": np.zeros(shape, int),  # steps, 0 = none
        }

    def move_on(self, learned: State, now: State) -> State:
        """Let the clock go on over the season that was learned, which repeats itself."""
        clock = int(learned["step"])
        steps = np.arange(clock, int(now["step"]))[:, None]
        season = np.maximum(learned["season"], 1)  # (streams,)
        earlier = clock - season + (steps - clock) % season
        kept = learned["kept"]
        kept[steps % self.KEPT, np.arange(len(season))] = kept[
            earlier % self.KEPT, np.arange(len(season))
        ]
        return super().move_on(learned, now)

    def forecast(self, x: Array) -> Array:
        """Return the season's value plus the recent level."""
        return np.concatenate([self._piece(rows) for _, rows in self.pieces(x, self.LOOK)])

    def _piece(self, rows: Array) -> Array:
        """Return the forecasts of a piece of a block; at its end, find the seasons anew."""
        state = self._state
        clock = int(state["step"])
        end = clock + len(rows)
        state["kept"][np.arange(clock, end) % self.KEPT] = rows
        usual = self.usual(np.arange(clock - self.span, end))  # (span + steps, streams)
        errors = self.remember(rows, "last") - usual
        if end % self.LOOK == 0:
            self._update_seasons(end)
        return usual[self.span :] + mean_of_views(sliding_windows(errors, self.span))

    def usual(self, steps: Array) -> Array:
        """Return the median of the values 1 to TURNS seasons before each of the steps.

        (steps,) -> (steps, streams); 0 in a stream without a season. How far back values count is
        set by the end of the block of the last step, not of the chunk in which the steps come.
        """
        state = self._state
        season = state["season"]  # (streams,)
        if not np.count_nonzero(season):
            return np.zeros((len(steps), len(season)))
        turns = np.arange(1, self.TURNS + 1)[:, None, None]
        earlier = steps[:, None] - season * turns  # (turns, steps, streams)
        values = state["kept"][earlier % self.KEPT, np.arange(len(season))]
        end = (steps[-1] // self.LOOK + 1) * self.LOOK  # of the block
        values = np.where(earlier >= end - self.KEPT, values, np.nan)
        ordered = np.sort(np.moveaxis(values, 0, -1), axis=-1)  # (steps, streams, turns)
        return np.where(season > 0, rank_quantile(ordered, count_known(ordered), 0.5), 0.0)

    def _update_seasons(self, clock: int) -> None:
        """Find each stream's season anew in the kept steps."""
        state = self._state
        known = np.roll(state["kept"], -clock, axis=0)  # oldest first
        if clock < self.KEPT:
            known = known[-clock:]
        for stream in range(known.shape[1]):
            state["season"][stream] = find_season(known[:, stream], int(state["season"][stream]))


@dataclass
class Autoregressive(ForecastDetector):
    """How far from what the last LAGS steps foretell by a linear rule, in units of its own usual
    error.

    Forecast: level + sum of c[i] (x[t - i] - level), c by least squares over the last 4 windows,
    refitted every window / 2 steps, with a ridge and with values beyond four deviations cut off. Up
    to two values in a row that lie more than four usual errors from their forecasts foretell as if
    they were four away, so that what follows a spike is no anomaly. Cost: one sort of the window
    per step, one system of LAGS equations per refit, one step alone per value cut off. When it
    fails: a drift or a long fault becomes its own best prediction after the first steps; what is
    anomalous is the change, not the state. Source: G. U. Yule, On a Method of Investigating
    Periodicities in Disturbed Series, 1927.

    >>> x = np.sin(np.arange(400) / 5) + 0.01 * np.random.default_rng(0).normal(size=400)
    >>> x[390] += 0.1  # a tenth of the wave's height
    >>> bool(Autoregressive().update(x[:, None])[390] > 6)
    True
    """

    newest: ClassVar[frozenset[str]] = frozenset(("last", "far"))
    LAGS: ClassVar[int] = 8  # steps
    RIDGE: ClassVar[float] = 1e-4  # of the mean square
    CUT: ClassVar[float] = 4.0  # deviations, or usual errors, beyond which a value is cut off
    MOST_CUT: ClassVar[int] = 2  # values in a row; more of them are a new level

    def __post_init__(self) -> None:
        super().__post_init__()
        self._block = max(4, self.window // 2)  # steps
        least = max(4 * self.window, 5 * self.LAGS)
        self._learned = -(-least // self._block) * self._block  # steps, whole blocks

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the errors, the last values (cut off), those to learn from, and the rule about a
        level with the largest error that is believed.
        """
        return {
            **super().begin(shape),
            "last": np.full((self.LAGS, *shape), np.nan),
            "kept": np.full((self._learned, *shape), np.nan),  # ring buffer
            "rule": np.zeros((self.LAGS, *shape)),  # oldest lag first
            "level": np.full(shape, np.nan),
            "reach": np.full(shape, np.inf),
            "far": np.zeros(shape, int),  # values in a row, up to the newest, beyond the reach
        }

    def forecast(self, x: Array) -> Array:
        """Apply the rule to the last steps."""
        return np.concatenate(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self._block)]
        )

    def _piece(self, offset: int, rows: Array) -> Array:
        """Return the forecasts of a piece of a block; at its end, refit the rule."""
        state = self._state
        place = int(state["step"]) % self._learned
        state["kept"][place : place + len(rows)] = rows
        values = np.concatenate((state["last"], rows))  # (LAGS + steps, streams)
        centre = self._apply_rule(values)
        self._cut_off(values, centre)
        state["last"] = values[len(rows) :].copy()
        if offset + len(rows) == self._block:
            self._refit(place + len(rows))
        return centre

    def _apply_rule(self, values: Array) -> Array:
        """Return what the LAGS values before each further one foretell, (steps, streams)."""
        state = self._state
        lags = sliding_windows(values, self.LAGS)  # (steps, streams, LAGS)
        away = np.nan_to_num(lags - state["level"][:, None])
        terms = np.multiply(away, state["rule"].T, order="C")
        centre: Array = state["level"] + np.add.reduce(terms, axis=-1)
        return centre

    def _cut_off(self, values: Array, centre: Array) -> None:
        """Cut off each value that lies too far from its forecast, and forecast what follows anew.

        Args:
            values: (LAGS + steps, streams), changed in place.
            centre: (steps, streams) the forecasts, changed in place.
        """
        state = self._state
        steps = len(centre)
        far = np.abs(values[self.LAGS :] - centre) > state["reach"]  # (steps, streams)
        found = far.any(axis=1)
        row = 0
        while True:
            skipped = int(found[row:].argmax()) if found[row:].any() else steps - row
            if skipped:
                state["far"][:] = 0
            row += skipped
            if row >= steps:
                return
            state["far"] = np.where(far[row], state["far"] + 1, 0)
            cut = far[row] & (state["far"] <= self.MOST_CUT)
            side = np.sign(values[self.LAGS + row] - centre[row])
            values[self.LAGS + row, cut] = (centre[row] + side * state["reach"])[cut]
            row += 1
            last = min(row + self.LAGS, steps)  # what the value foretells
            if row < last and cut.any():
                centre[row:last] = self._apply_rule(values[row : self.LAGS + last])
                error = np.abs(values[self.LAGS + row : self.LAGS + last] - centre[row:last])
                far[row:last] = error > state["reach"]
                found[row:last] = far[row:last].any(axis=1)

    def _refit(self, place: int) -> None:
        """Fit each kept step by the LAGS before it, missing values counting as the level."""
        state = self._state
        x = np.roll(state["kept"], -place, axis=0)  # (learned, streams), oldest first
        level = mean_of_views(x.T, self.least)  # (streams,)
        away = np.nan_to_num(x - level)
        ordered = np.sort(np.abs(away.T), axis=-1)
        reach = self.CUT / P90_ABS_GAUSSIAN * rank_quantile(ordered, ordered.shape[-1], 0.9)
        away = np.clip(away, -reach, reach)
        lags = sliding_windows(away, self.LAGS)  # (learned - LAGS, streams, LAGS)
        square = np.einsum("tsi,tsj->sij", lags, lags)  # (streams, LAGS, LAGS)
        ridge = np.maximum(self.RIDGE * np.einsum("sii->s", square), TINY)
        square += ridge[:, None, None] * np.eye(self.LAGS)
        products = np.einsum("tsi,ts->si", lags, away[self.LAGS :])
        rule = np.linalg.solve(square, products[..., None])[..., 0]  # (streams, LAGS)
        state["rule"][:] = rule.T
        errors = away[self.LAGS :] - np.add.reduce(lags * rule, axis=-1)
        ordered = np.sort(np.where(np.isnan(x[self.LAGS :]), np.nan, np.abs(errors)).T, axis=-1)
        reach = self.CUT * error_size(ordered, count_known(ordered))
        state["reach"] = np.where(np.isnan(reach), np.inf, reach)
        state["level"] = level
