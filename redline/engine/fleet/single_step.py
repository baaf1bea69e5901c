"""Single steps: the plain detectors and the alarm for many streams, whatever step each is at.

Each class computes one step of its detector operation for operation, so to the same bits, in place
on arrays that all streams share. Of what is kept of a stream only what the step needs is touched.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from detectors import (
    CEILING,
    DETECTORS,
    Alarm,
    Cusum,
    Detector,
    Ewma,
    Expecting,
    MedianMad,
    RankDetector,
    RollingZ,
    State,
    Transducer,
    Verdict,
)
from redline.detection.arrays import (
    Array,
    centre_and_spread,
    count_known,
    merge_moments,
    moments,
    rank_quantile,
    rank_windows,
    running_reduce,
    shift_moments,
)
from redline.detection.forecasting import MovingAverage, Seasonal, error_size, mean_of_views
from redline.detection.quantiles import Interquartile, Percentile
from redline.detection.seasonality import find_season
from redline.engine.fleet.columns import ColumnArrays
from redline.engine.fleet.selection import Selection
from redline.settings import Settings


class SharedState(Transducer):
    """A transducer whose state is columns of shared arrays, each stream at its own step.

    Arrays named in `rings` are kept as ring buffers, the step modulo their length; in the state of
    one stream alone they are in the order of the steps.
    """

    rings: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[dict[str, Any]] = {}  # arrays (streams,) beside the state: name -> first value
    keeps_step: ClassVar[bool] = True  # alone it counts its steps
    columns: ColumnArrays

    def share(self) -> None:
        """Replace the state by columns."""
        self.own = tuple(self.begin((1,)))
        more = {name: np.array([value]) for name, value in self.extra.items()}
        self.columns = ColumnArrays(self.begin((1,)) | more)
        self.state = self.columns.arrays

    def read_state(self, columns: Array, steps: int) -> State:
        """Return the state of these streams, all at this step, as of a transducer of their own."""
        state: State = {
            "step": np.array(steps if self.keeps_step else 0),
            "shape": np.array([len(columns)]),
        }
        for name in self.own:
            value = self.columns[name][..., columns]
            state[name] = (
                np.roll(value, -(steps % len(value)), axis=0) if name in self.rings else value
            )
        return state

    def write_state(self, columns: Array, steps: int, state: State) -> None:
        """Give these streams, all at this step, the state of a transducer of their own."""
        for name in self.own:
            value = state[name]
            if name in self.rings:
                value = np.roll(value, steps % len(value), axis=0)
            self.columns[name][..., columns] = value


class SingleStep(SharedState, Expecting):
    """A plain detector that takes single steps of streams at any phase.

    The robust start is the fleet's: it has the first values, see `relearn`.
    """

    own_start: ClassVar[bool] = False
    tile: ClassVar[int | None] = 1 << 15  # streams at once; an array of them stays in the cache
    extra: ClassVar[dict[str, Any]] = {"floor": 0.0}
    alone: Detector  # the same detector for streams of their own

    def join(self, columns: Array, floors: Array) -> None:
        """Begin these streams; floors: (n,), the data's unit."""
        self.columns.grow(int(columns.max()) + 1)
        self.columns.clear(columns)
        self.columns["floor"][columns] = np.maximum(floors, self._floor)

    def leave(self, columns: Array) -> None:
        """Forget these streams: their columns are cleared when they are used again."""

    def relearn(self, columns: Array, x: Array) -> None:
        """Let these streams forget all and learn x, (steps, n), all that they have seen."""
        alone = self.alone
        alone.state = alone._first_state(x.shape[1:])
        alone.advance(x)
        self.write_state(columns, len(x), alone._state)
        alone.state = None

    def step(self, x: Array, chosen: Selection) -> Verdict:
        """Score the next value of each stream, x (n,), then learn it; the verdict is (n,)."""
        centre, spread = self.expect_step(x, chosen)
        away = self.sided(x - centre)
        away /= np.maximum(spread, self.columns["floor"][chosen.where], out=spread)
        return Verdict(np.minimum(away, CEILING, out=away), centre, spread)

    @abstractmethod
    def expect_step(self, x: Array, chosen: Selection) -> tuple[Array, Array]:
        """Return (centre, spread), as `expect` for one step, then learn x; all (n,)."""

    def copy_columns(self, columns: Array) -> dict[str, Array]:
        """Return copies of the states of some streams."""
        return self.columns.copy_of(columns)

    def paste_columns(self, columns: Array, arrays: dict[str, Array]) -> None:
        """Put back what `copy_columns` returned, into columns (n,) that have joined.

        Raises:
            ValueError: the arrays are of another detector or of other settings.
        """
        if not self.columns.fits(arrays, len(columns)):
            raise ValueError(f"wanted the columns of {type(self.alone).__name__}, came other ones")
        self.columns.paste_at(columns, arrays)

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes


class RollingZStep(SingleStep, RollingZ):
    """The rolling z-score, one step of streams at any phase."""

    def expect_step(self, x: Array, chosen: Selection) -> tuple[Array, Array]:
        """Return mean and standard deviation of the window."""
        state = self._state
        offset = chosen.row(self.window)
        self._open_parts(offset, chosen)
        tails = chosen.read(state["tails"], offset % self._part)  # (3, n)
        old, new = state["anchors"][:, chosen.where]
        head = state["head"][:, chosen.where]
        fresh = head[0] == 0
        begins = np.count_nonzero(fresh)
        if begins:
            new = np.where(fresh, np.nan_to_num(x), new)
        anchor = np.where(fresh, old, new) if begins else new
        window = merge_moments(head, shift_moments(tails, old - anchor))
        centre, spread = centre_and_spread(window, anchor, self.least)
        state["head"][:, chosen.where] = head + moments(x, new)
        if begins:
            state["anchors"][1, chosen.where] = new
        chosen.write(state["past"], offset, x)
        full = chosen.at(offset, self.window - 1)
        if full is not None:
            self._close_streams(full)
        return centre, spread

    def _open_parts(self, offset: int | Array, chosen: Selection) -> None:
        """Compute the sums of the present part of the tail where a part begins."""
        starts = chosen.at(offset % self._part, 0)
        if starts is None:
            return
        if isinstance(offset, int):
            sums = self._sums(offset // self._part, starts)  # (3, steps of the part, streams)
            self._state["tails"][:, : sums.shape[1], starts] = sums
            self._state["tails"][:, sums.shape[1] :, starts] = 0.0
            return
        begins = offset % self._part == 0
        self._open_each(offset[begins], chosen.columns[begins])

    def _open_each(self, first: Array, columns: Array) -> None:
        """Do this for streams at several parts; first: (n,), the offset at which each begins."""
        state = self._state
        rows = first + np.arange(self._part)[:, None]  # (part, n), the last part may be shorter
        inside = rows < self.window
        past = np.where(inside, state["past"][np.minimum(rows, self.window - 1), columns], np.nan)
        m = moments(past, state["anchors"][0, columns])
        m[:, -1] += state["marks"][:, first // self._part + 1, columns]
        sums = running_reduce(np.add, m[:, ::-1])[:, ::-1]
        state["tails"][:, :, columns] = np.where(inside, sums, 0.0)


class EwmaStep(SingleStep, Ewma):
    """The exponentially weighted mean, one step of streams at any phase."""

    def expect_step(self, x: Array, chosen: Selection) -> tuple[Array, Array]:
        """Return weighted mean and standard deviation."""
        state = self._state
        offset = chosen.row(self._block)
        weights = self._weights[offset, 0]
        sums = state["sums"][:, chosen.where]
        anchor = state["anchor"][chosen.where]
        fresh = sums[0] == 0
        if np.count_nonzero(fresh):
            anchor = np.where(fresh, np.nan_to_num(x), anchor)
            state["anchor"][chosen.where] = anchor
        centre, spread = centre_and_spread(sums, anchor, self._enough * weights)
        state["sums"][:, chosen.where] = sums + moments(x, anchor, weights)
        full = chosen.at(offset, self._block - 1)
        if full is not None:
            self._close(full)
        return centre, spread


class CusumStep(EwmaStep, Cusum):
    """The cumulated sum, one step of streams at any phase."""

    def step(self, x: Array, chosen: Selection) -> Verdict:
        """Score the sum with this step in it; there is no band."""
        centre, spread = self.expect_step(x, chosen)
        z = np.subtract(x, centre, out=centre)
        z /= np.maximum(spread, self.columns["floor"][chosen.where], out=spread)
        np.minimum(np.maximum(z, -self.LIMIT, out=z), self.LIMIT, out=z)
        score = np.empty((1, len(x)))
        piled = self._state["piled"][:, chosen.where]  # (2, n)
        self._accumulate(z[None], piled, score)
        self._state["piled"][:, chosen.where] = piled
        return Verdict(score[0])


class RankStep(SingleStep, RankDetector):
    """A detector of the sorted window, one step of streams at any phase."""

    rings: ClassVar[tuple[str, ...]] = ("past",)  # sorted, so their order does not matter
    keeps_step: ClassVar[bool] = False

    def expect_step(self, x: Array, chosen: Selection) -> tuple[Array, Array]:
        """Gauge the window."""
        past = self._state["past"]
        windows = past[:, chosen.where].T[None]  # (1, n, window)
        centre, spread = rank_windows(windows, self.gauge, self.least)[:, 0]
        chosen.write(past, chosen.row(self.window), x)
        return centre, spread


class MedianMadStep(RankStep, MedianMad):
    """Median and MAD, one step of streams at any phase."""


class InterquartileStep(RankStep, Interquartile):
    """The interquartile range, one step of streams at any phase."""


class PercentileStep(RankStep, Percentile):
    """The percentiles, one step of streams at any phase."""


class MovingAverageStep(SingleStep, MovingAverage):
    """The moving average, one step of streams at any phase."""

    rings: ClassVar[tuple[str, ...]] = ("past", "last")
    keeps_step: ClassVar[bool] = False

    def expect_step(self, x: Array, chosen: Selection) -> tuple[Array, Array]:
        """Return the forecast, and the size of the errors before it."""
        past = self._state["past"]
        errors = past[:, chosen.where].T[None]  # (1, n, window)
        spread = rank_windows(errors, error_size, self.least)[0, 0]
        centre = self.forecast_step(x, chosen)
        chosen.write(past, chosen.row(self.window), np.abs(x - centre))
        return centre, spread

    def forecast_step(self, x: Array, chosen: Selection) -> Array:
        """Return the value expected of each stream, (n,), then learn x."""
        last = self._last(chosen)
        chosen.write(self._state["last"], chosen.row(self.span), x)
        return mean_of_views(last.T)

    def _last(self, chosen: Selection) -> Array:
        """Return the last values, (span, n), in the order of the steps."""
        rows = (chosen.steps + np.arange(self.span)[:, None]) % self.span  # (span, 1 or n)
        return np.asarray(self._state["last"][rows, chosen.columns])


class SeasonalStep(MovingAverageStep, Seasonal):
    """The season's value, one step of streams at any phase."""

    keeps_step: ClassVar[bool] = True

    def forecast_step(self, x: Array, chosen: Selection) -> Array:
        """Return the season's value plus the recent level."""
        kept = self._state["kept"]
        chosen.write(kept, chosen.row(self.KEPT), x)
        usual = self._usual(chosen)  # (span + 1, n)
        errors = self._last(chosen) - usual[:-1]
        chosen.write(self._state["last"], chosen.row(self.span), x)
        forecast: Array = usual[-1] + mean_of_views(errors.T)
        if chosen.at(chosen.row(self.LOOK), self.LOOK - 1) is not None:
            self._find_seasons(chosen)
        return forecast

    def _usual(self, chosen: Selection) -> Array:
        """Return the median of the values of the seasons before, of the last steps and this one."""
        season = self._state["season"][chosen.where]  # (n,)
        usual = np.zeros((self.span + 1, len(season)))
        seasonal = np.flatnonzero(season)
        if not len(seasonal):
            return usual
        steps = chosen.steps if isinstance(chosen.steps, int) else chosen.steps[seasonal]
        turns = np.arange(1, self.TURNS + 1)[:, None, None]
        past = steps + np.arange(-self.span, 1)[:, None]  # (span + 1, 1 or seasonal)
        earlier = past - season[seasonal] * turns  # (turns, span + 1, seasonal)
        values = self._state["kept"][earlier % self.KEPT, chosen.columns[seasonal]]
        end = (steps // self.LOOK + 1) * self.LOOK  # of the block
        values = np.where(earlier >= end - self.KEPT, values, np.nan)
        ordered = np.sort(np.moveaxis(values, 0, -1), axis=-1)
        usual[:, seasonal] = rank_quantile(ordered, count_known(ordered), 0.5)
        return usual

    def _find_seasons(self, chosen: Selection) -> None:
        """Find the seasons anew of the streams that are at the end of a block."""
        state = self._state
        clocks = np.broadcast_to(chosen.steps, len(chosen.columns)) + 1
        due = clocks % self.LOOK == 0
        for column, clock in zip(chosen.columns[due].tolist(), clocks[due].tolist()):
            known = np.roll(state["kept"][:, column], -clock)[-clock:]  # oldest first
            state["season"][column] = find_season(known, int(state["season"][column]))


class AlarmStep(SharedState, Alarm):
    """The alarm filter, one step of streams at any phase.

    The highest score of the refractory steps is remembered with its step, and looked for again
    among them only when that step is over.
    """

    rings: ClassVar[tuple[str, ...]] = ("past",)
    extra: ClassVar[dict[str, Any]] = {"peak": 0.0, "peak_step": 0}

    def join(self, columns: Array) -> None:
        """Begin these streams."""
        self.columns.grow(int(columns.max()) + 1)
        self.columns.clear(columns)

    def write_state(self, columns: Array, steps: int, state: State) -> None:
        """Give these streams the state of an alarm of their own."""
        super().write_state(columns, steps, state)
        # over, so that it is looked for
        self.columns["peak_step"][columns] = steps - len(state["past"]) - 1

    def step(self, scores: Array, chosen: Selection) -> Array:
        """Return the alarm scores of these scores, both (n,)."""
        state = self._state
        where = chosen.where
        before = self._highest(scores, chosen)
        loud = scores >= self.quiet
        alarms = np.where((scores > before) | (scores != scores), scores, 0.0)
        records = np.flatnonzero(loud & (alarms > 0))
        if len(records):
            self._pass(scores, before, alarms, records, chosen)
        if np.count_nonzero(loud):
            state["loud"][where] = np.where(loud, chosen.steps, state["loud"][where])
        return alarms

    def _highest(self, scores: Array, chosen: Selection) -> Array:
        """Return the highest score of the refractory steps before, (n,), then learn the score."""
        state = self._state
        past = state["past"]
        peak = state["peak"][chosen.where]
        peak_step = state["peak_step"][chosen.where]
        over = np.flatnonzero(chosen.steps - peak_step > len(past))
        if len(over):
            peak[over], peak_step[over] = self._look_for_peaks(over, chosen)
        before = peak.copy() if self.refractory else np.zeros_like(peak)
        known = np.nan_to_num(scores)
        higher = known >= peak  # of equal ones the newest
        state["peak"][chosen.where] = np.where(higher, known, peak)
        state["peak_step"][chosen.where] = np.where(higher, chosen.steps, peak_step)
        chosen.write(past, chosen.row(len(past)), known)
        return before

    def _look_for_peaks(self, over: Array, chosen: Selection) -> tuple[Array, Array]:
        """Return the highest score of the refractory steps and its newest step, both (over,)."""
        past = self._state["past"]
        steps = chosen.steps if isinstance(chosen.steps, int) else chosen.steps[over]
        rows = (steps - 1 - np.arange(len(past))[:, None]) % len(past)  # newest first
        scores = past[rows, chosen.columns[over]]  # (refractory, over)
        age = scores.argmax(axis=0)  # the first of equal ones, so the newest
        return scores[age, np.arange(len(over))], steps - 1 - age

    def _pass(
        self, scores: Array, before: Array, alarms: Array, records: Array, chosen: Selection
    ) -> None:
        """Let the records pass that may, and write their alarm scores."""
        state = self._state
        columns = chosen.columns[records]
        now = np.broadcast_to(chosen.steps, len(scores))[records]
        growth = np.where(now - state["loud"][columns] <= self.pause, self.growth, 0.0)
        wanted = growth * np.minimum(state["rise"][columns], before[records])
        record = scores[records]
        alarms[records] = self._pass_records(now, record, record >= wanted, columns)


STEPPED: dict[str, type[SingleStep]] = {
    "rolling z-score": RollingZStep,
    "median and MAD": MedianMadStep,
    "interquartile range": InterquartileStep,
    "percentile": PercentileStep,
    "moving average": MovingAverageStep,
    "EWMA": EwmaStep,
    "CUSUM": CusumStep,
    "seasonal": SeasonalStep,
}


def single_step(settings: Settings) -> SingleStep:
    """Return the detector of these settings, one of STEPPED, for single steps of many streams."""
    detector = STEPPED[settings.detector](window=settings.window, direction=settings.direction)
    detector.alone = DETECTORS[settings.detector](
        window=settings.window, direction=settings.direction
    )
    detector.share()
    return detector


def alarm_step(settings: Settings) -> AlarmStep:
    """Return the alarm filter of these settings for single steps of many streams."""
    alarm = AlarmStep(refractory=settings.refractory, memory=settings.habituation)
    alarm.share()
    return alarm
