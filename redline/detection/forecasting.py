"""Forecasts: detectors that predict the next value from the last ones, judged by how wrong they
have lately been.
"""

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
    """A detector that writes `forecast`; its spread is the 90th percentile of its last `window`
    absolute errors, as that of a Gaussian.
    """

    @abstractmethod
    def forecast(self, x: Array) -> Array:
        """The value expected at each step, (steps, streams), NaN = cannot tell. Then learn x."""

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last absolute errors."""
        return {"past": np.full((self.window, *shape), np.nan)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """The forecast, and how wrong the forecasts before it were."""
        centre = self.forecast(x)
        errors = sliding_windows(self.remember(np.abs(x - centre)), self.window)
        spread, _ = rank_windows(
            errors,
            lambda ordered, seen: rank_quantile(ordered, seen, 0.9) / P90_ABS_GAUSSIAN,
            self.least,
        )
        return centre, spread


def mean_of_views(views: Array, least: int = 1) -> Array:
    """The mean along the last axis, exact where all are equal; NaN where fewer than `least` are
    seen.
    """
    low = np.fmin.reduce(views, axis=-1)
    above = np.subtract(
        views, low[..., None], order="C"
    )  # one memory order, so one order of summing
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

    >>> MovingAverage(window=4).update([[1.0], [2.0], [3.0], [2.0], [1.0], [2.0], [9.0]]).ravel().round(3)
    array([  nan,   nan,   nan, 0.   , 1.175, 0.244, 8.732])
    """  # noqa: E501

    @property
    def span(self) -> int:
        """Steps in the mean."""
        return max(6, self.window // 8)

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last errors and the last values."""
        return {**super().begin(shape), "last": np.full((self.span, *shape), np.nan)}

    def forecast(self, x: Array) -> Array:
        """The mean of the last steps."""
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

    KEPT: ClassVar[int] = 4096  # steps
    LOOK: ClassVar[int] = 256  # steps
    TURNS: ClassVar[int] = 3  # seasons

    def begin(self, shape: tuple[int, ...]) -> State:
        """The errors, the last KEPT steps by their place in the block, and the season of each
        stream, 0 = none.
        """
        return {
            **super().begin(shape),
            "kept": np.full((self.KEPT, *shape), np.nan),
            "season": np.zeros(shape, int),
        }

    def forecast(self, x: Array) -> Array:
        """The season's value and the level of late."""
        return np.concatenate([self._piece(rows) for _, rows in self.pieces(x, self.LOOK)])

    def _piece(self, rows: Array) -> Array:
        state = self._state
        clock = int(self._state["step"])
        state["kept"][np.arange(clock, clock + len(rows)) % self.KEPT] = rows
        usual = self.usual(
            np.arange(clock - self.span, clock + len(rows))
        )  # (span + steps, streams)
        late = self.remember(rows, "last") - usual
        if (clock + len(rows)) % self.LOOK == 0:
            self._look(clock + len(rows))
        return usual[self.span :] + mean_of_views(sliding_windows(late, self.span))

    def usual(self, steps: Array) -> Array:
        """The median of the values up to TURNS seasons before each of the steps; 0 in a stream
        without a season.
        """
        # (streams,)
        state = self._state
        season = self._state["season"]
        if not np.count_nonzero(season):
            return np.zeros((len(steps), len(season)))
        then = (
            steps[:, None] - season * np.arange(1, self.TURNS + 1)[:, None, None]
        )  # (turns, steps, streams)
        values = state["kept"][then % self.KEPT, np.arange(len(season))]
        values = np.where(then > steps[-1] - self.KEPT, values, np.nan)
        ordered = np.sort(np.moveaxis(values, 0, -1), axis=-1)
        return np.where(season > 0, rank_quantile(ordered, count_known(ordered), 0.5), 0.0)

    def _look(self, clock: int) -> None:
        """Find each stream's season anew."""
        state = self._state
        known = (
            np.roll(state["kept"], -clock, axis=0)[-clock:]
            if clock < self.KEPT
            else np.roll(state["kept"], -clock, axis=0)
        )
        for stream in range(known.shape[1]):
            state["season"][stream] = find_season(known[:, stream], int(state["season"][stream]))


@dataclass
class Autoregressive(ForecastDetector):
    """How far from what the last LAGS steps foretell by a linear rule, in units of its own usual
    error.

    Forecast: level + sum of c[i] (x[t - i] - level), c by least squares over the last 4 windows,
    refitted every window / 2 steps, with a ridge and with values beyond four deviations cut off.
    Cost: one sort of the window per step, one system of LAGS equations per refit. When it fails: a
    drift or a long fault becomes its own best prediction after the first steps; what is anomalous
    is the change, not the state. Source: G. U. Yule, On a Method of Investigating Periodicities in
    Disturbed Series, 1927.

    >>> x = np.sin(np.arange(400) / 5) + 0.01 * np.random.default_rng(0).normal(size=400)
    >>> x[390] += 0.1  # a tenth of the wave's height
    >>> bool(Autoregressive().update(x[:, None])[390] > 6)
    True
    """

    LAGS: ClassVar[int] = 8  # steps
    RIDGE: ClassVar[float] = 1e-4  # of the mean square

    def __post_init__(self) -> None:
        super().__post_init__()
        self._block = max(4, self.window // 2)  # steps
        self._learned = self._block * -(
            -max(4 * self.window, 5 * self.LAGS) // self._block
        )  # steps

    def begin(self, shape: tuple[int, ...]) -> State:
        """The errors, the last values, those learned from by their place in the block, the rule and
        the level it is about.
        """
        sizes = {"last": self.LAGS, "kept": self._learned}
        return {
            **super().begin(shape),
            **{name: np.full((size, *shape), np.nan) for name, size in sizes.items()},
            "rule": np.zeros((self.LAGS, *shape)),  # oldest lag first
            "level": np.full(shape, np.nan),
        }

    def forecast(self, x: Array) -> Array:
        """The rule on the last steps."""
        return np.concatenate(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self._block)]
        )

    def _piece(self, offset: int, rows: Array) -> Array:
        state = self._state
        place = int(self._state["step"]) % self._learned
        state["kept"][place : place + len(rows)] = rows
        away = (
            sliding_windows(self.remember(rows, "last"), self.LAGS) - state["level"][:, None]
        )  # (steps, streams, lags)
        centre: Array = state["level"] + np.add.reduce(
            np.multiply(np.nan_to_num(away), state["rule"].T, order="C"), axis=-1
        )
        if offset + len(rows) == self._block:
            self._refit(place + len(rows))
        return centre

    def _refit(self, place: int) -> None:
        """Least squares of each kept step on the LAGS before it, missing ones at the level."""
        state = self._state
        x = np.roll(state["kept"], -place, axis=0)  # (learned, streams), oldest first
        level = mean_of_views(x.T, self.least)  # (streams,)
        away = np.nan_to_num(x - level)
        ordered = np.sort(np.abs(away.T), axis=-1)
        reach = 4 / P90_ABS_GAUSSIAN * rank_quantile(ordered, ordered.shape[-1], 0.9)
        away = np.clip(away, -reach, reach)
        lags = sliding_windows(away, self.LAGS)  # (learned - LAGS, streams, LAGS)
        square = np.einsum("tsi,tsj->sij", lags, lags)
        square += np.maximum(self.RIDGE * np.einsum("sii->s", square), TINY)[
            :, None, None
        ] * np.eye(self.LAGS)
        state["rule"][:] = np.linalg.solve(
            square, np.einsum("tsi,ts->si", lags, away[self.LAGS :])[..., None]
        )[..., 0].T
        state["level"] = level
