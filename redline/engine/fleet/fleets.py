"""The fleets: streams under one setting, stepping by themselves or on a grid of times."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from detectors import GLITCH_CHECKS, LARGEST_VALUE, STATE_FORMAT, State, find_glitches
from redline.detection.arrays import Array
from redline.engine.fleet.cohorts import CohortDetector, cohort_detector
from redline.engine.fleet.columns import ColumnArrays
from redline.engine.fleet.history import FleetHistory, GridHistory, SequenceHistory, Steps
from redline.engine.fleet.selection import Selection, Where, select
from redline.engine.fleet.single_step import STEPPED, SingleStep, alarm_step, single_step
from redline.engine.track import Track
from redline.settings import Settings

FLEET_FORMAT = 1  # of copied columns; another one is refused
HISTORY_STEPS = 600  # steps at hand of each stream
# points of one stream in one push; more are scored faster as a chunk of that stream alone
LONG_RUN = 32
START_STEPS = GLITCH_CHECKS[-1]  # steps after which no start is checked any more
STREAM_COUNTERS: dict[str, Any] = {
    "step": 0,  # steps taken
    "since": 0,  # the first step that the history may have
    "points": 0,  # samples that came
    "anomalies": 0,  # steps whose score was above the threshold
    "alarms": 0,  # steps whose alarm score was
    "run": 0,  # anomalous steps in a row, up to the newest
    "last_time": np.nan,  # seconds since the Unix epoch, of the newest sample
    "live": False,  # whether a stream is in the column
}


class ScoredSteps(NamedTuple):
    """The results of steps of some streams, all (n,), in the order in which the points were given.

    The band is NaN where the detector has none.
    """

    column: Array
    step: Array  # of its stream, from 0
    time: Array  # seconds since the Unix epoch
    value: Array  # in the stream's unit, NaN = missing
    score: Array  # standard deviations, NaN = no opinion
    alarm_score: Array
    centre: Array  # the value expected, in the stream's unit
    spread: Array  # one believable deviation, in the stream's unit
    anomaly: Array  # bool, score > threshold
    alarm: Array  # bool, alarm score > threshold


def empty_steps(n: int) -> ScoredSteps:
    """Return results of n steps to be filled in."""
    kinds: dict[str, type] = dict.fromkeys(ScoredSteps._fields, float)
    kinds |= {"column": int, "step": int, "anomaly": bool, "alarm": bool}
    return ScoredSteps(**{name: np.empty(n, kind) for name, kind in kinds.items()})


class Fleet(ABC):
    """Streams of one feature under one setting: their states, buffers and counters are columns.

    A stream joins and gets a column; when it leaves, a later one gets the column. Each has the
    scores that it would have alone: to the bit under STEPPED detectors, else to 1e-9. Under STEPPED
    detectors streams step together whatever step each is at; under others those at the same step.
    """

    clock: ClassVar[str]

    def __init__(self, settings: Settings, capacity: int = HISTORY_STEPS) -> None:
        """Make an empty fleet; capacity: steps at hand of each stream."""
        self.settings = settings
        self.capacity = capacity
        self.size = 0  # columns so far, live or left
        self.detector: SingleStep | CohortDetector = (
            single_step(settings) if settings.detector in STEPPED else cohort_detector(settings)
        )
        self.alarm = alarm_step(settings)
        self.counters = ColumnArrays({name: np.array([v]) for name, v in STREAM_COUNTERS.items()})
        self.floors = np.zeros(0)  # (streams,) smallest believable spread, the stream's unit
        self.history = self.new_history()

    @abstractmethod
    def new_history(self) -> FleetHistory:
        """Return the empty history of this clock."""

    @property
    def columns(self) -> Array:
        """Return the columns of the live streams, ascending."""
        return np.flatnonzero(self.counters["live"][: self.size])

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays, those allocated for later streams too."""
        parts = (self.detector, self.alarm.columns, self.counters, self.history)
        return self.floors.nbytes + sum(part.nbytes for part in parts)

    def join(self, count: int, floors: float | Array = 0.0) -> Array:
        """Begin `count` streams and return their columns, (count,) ascending.

        floors: the smallest believable spread of all, or (count,) of each, in the stream's unit.
        """
        free = np.flatnonzero(~self.counters["live"][: self.size])[:count]
        columns = np.concatenate((free, self.size + np.arange(count - len(free))))
        return self.join_at(columns, floors)

    def join_at(self, columns: Array, floors: float | Array = 0.0) -> Array:
        """Begin streams in these columns, (n,) ascending, of which none is live; return them."""
        if not len(columns):
            return columns
        self.size = max(self.size, int(columns[-1]) + 1)
        self._grow()
        self.counters.clear(columns)
        self.counters["live"][columns] = True
        self.floors[columns] = floors
        self.detector.join(columns, self.floors[columns])
        self.alarm.join(columns)
        return columns

    def _grow(self) -> None:
        """Make room for all columns."""
        if self.size > self.counters.allocated:
            self.counters.grow(self.size)
            steps = int(self.counters["step"].max(initial=0))
            self.history.grow(self.counters.allocated, steps)
            more = self.counters.allocated - len(self.floors)
            self.floors = np.concatenate((self.floors, np.zeros(more)))

    def leave(self, columns: Any) -> None:
        """End these streams: what is known of them is forgotten, their columns are free.

        Raises:
            ValueError: one of the columns holds no stream.
        """
        chosen = np.unique(self._live(columns))
        if len(chosen):
            self.detector.leave(chosen)
            self.counters["live"][chosen] = False

    def _live(self, columns: Any) -> Array:
        """Return columns as an array (n,).

        Raises ValueError where one of them holds no stream.
        """
        found = np.asarray(columns, dtype=np.int64).reshape(-1)
        if len(found):
            inside = found.min() >= 0 and found.max() < self.size
            if not inside or not self.counters["live"][found].all():
                raise ValueError(
                    f"wanted columns of live streams, of {self.size} in all, came one that is "
                    "free; join() gives a stream its column"
                )
        return found

    # One step of some streams

    def _step(
        self, chosen: Selection, time: Any, value: Array, out: ScoredSteps, place: Where
    ) -> None:
        """Take a step of streams, time and value (n,), and write its results to places of `out`."""
        x = value
        known = np.abs(value) <= LARGEST_VALUE  # false for a NaN too
        if np.count_nonzero(known) < len(known):
            x = np.where(known, value, np.nan)
        verdict = self.detector.step(x, chosen)
        alarm_score = self.alarm.step(verdict.score, chosen)
        self.history.write(chosen, time, value, verdict.score)
        anomaly = verdict.score > self.settings.threshold
        alarm = alarm_score > self.settings.threshold
        out.column[place] = chosen.columns
        out.step[place] = chosen.steps
        out.time[place] = time
        out.value[place] = value
        out.score[place] = verdict.score
        out.alarm_score[place] = alarm_score
        out.centre[place] = np.nan if verdict.centre is None else verdict.centre
        out.spread[place] = np.nan if verdict.spread is None else verdict.spread
        out.anomaly[place] = anomaly
        out.alarm[place] = alarm
        self._count(chosen, anomaly, alarm)
        if not self.detector.own_start:
            self._check_starts(chosen)

    def _count(self, chosen: Selection, anomaly: Array, alarm: Array) -> None:
        """Count a step of these streams."""
        counters, where = self.counters, chosen.where
        counters["step"][where] += 1
        if np.count_nonzero(anomaly):
            counters["anomalies"][where] += anomaly
            counters["alarms"][where] += alarm
            counters["run"][where] += 1
        counters["run"][where] *= anomaly

    # The robust start, where the detector leaves it to the fleet

    def _check_starts(self, chosen: Selection) -> None:
        """Check the first values of the streams that have now taken so many steps."""
        steps = chosen.steps + 1  # taken now
        if (isinstance(steps, int) and steps not in GLITCH_CHECKS) or np.min(steps) > START_STEPS:
            return
        for before, end in pairwise((0, *GLITCH_CHECKS)):
            at_end = chosen.at(steps, end)
            if at_end is not None:
                self._check_start(np.arange(self.size)[at_end], before, end)

    def _check_start(self, columns: Array, before: int, end: int) -> None:
        """Learn anew where other glitches are found in `end` values than in those before."""
        early = self._first_values(columns, end)
        known = find_glitches(early[:before])
        found = find_glitches(early)
        changed = found[before:].any(axis=0) | (found[:before] != known).any(axis=0)
        if changed.any() and isinstance(self.detector, SingleStep):
            x = np.where(found, np.nan, early)[:, changed]
            self.detector.relearn(columns[changed], x)

    def _first_values(self, columns: Array, steps: int) -> Array:
        """Return all values of streams that took so few steps, (steps, n), NaN = missing."""
        values = self.history.newest_values(columns, steps, steps)
        return np.where(np.abs(values) <= LARGEST_VALUE, values, np.nan)

    # Single streams

    def read_history(self, column: int) -> Steps:
        """Return the newest steps of a stream, as many as are at hand."""
        self._live(column)
        steps = int(self.counters["step"][column])
        count = min(steps - int(self.counters["since"][column]), self.capacity)
        return self.history.read(column, count, steps)

    def has_times(self, columns: Any, times: Array) -> Array:
        """Return whether streams took a step at hand at exactly a time, all (n,)."""
        chosen = self._live(columns)
        steps = self.counters["step"][chosen]
        kept = np.minimum(steps - self.counters["since"][chosen], self.capacity)
        found: Array = self.history.find_times(chosen, times, steps, kept)
        return found

    def copy_state(self, column: int) -> State:
        """Return what a track of this stream alone would remember, for `Track.load_state`."""
        columns = self._live(column)
        steps = int(self.counters["step"][column])
        if not steps:
            return {}
        detector = self.detector.read_state(columns, steps)
        if not self.detector.own_start and steps < START_STEPS:
            early = np.full((START_STEPS, 1), np.nan)
            early[:steps] = self._first_values(columns, steps)
            detector |= {"early": early, "seen_early": np.array(steps)}
        alarm = self.alarm.read_state(columns, steps)
        return (
            {"format": np.array(STATE_FORMAT)}
            | {f"detector.{name}": value for name, value in detector.items()}
            | {f"alarm.{name}": value for name, value in alarm.items()}
        )

    def adopt(
        self,
        column: int,
        state: Mapping[str, Array],
        newest: Steps | None = None,
        counts: Mapping[str, Any] | None = None,
    ) -> None:
        """Give a stream what a track of its own remembers: the reverse of `copy_state`.

        newest: the last steps that it scored, at most `capacity`; None = none are at hand.
        counts: its counters, by the names of STREAM_COUNTERS.
        Raises:
            ValueError: the state is of another detector or of other settings.
        """
        columns = self._live(column)
        track = Track(self.settings, (float(self.floors[column]),), 0)
        track.load_state(state)
        detector, alarm = track.detector.state, track.alarm.state
        if detector is None or alarm is None:
            return
        steps = int(alarm["step"])
        early = self._early_steps(detector)
        if newest is None or len(newest.value) < len(early.value):
            newest = early
        self.detector.write_state(columns, steps, detector)
        self.alarm.write_state(columns, steps, alarm)
        if isinstance(self.detector, CohortDetector):
            self.detector.merge()
        values = {"points": steps, **(counts or {}), "step": steps}
        values["since"] = steps - min(len(newest.value), self.capacity)
        for name, value in values.items():
            self.counters[name][column] = value
        self.history.replace(column, newest, steps)

    def _early_steps(self, detector: State) -> Steps:
        """Return the first values that a state holds while its start is not over."""
        steps = int(detector.get("seen_early", 0))
        values = detector["early"][:steps].ravel() if steps else np.zeros(0)
        nothing = np.full(steps, np.nan)
        return Steps(nothing, values, nothing)

    # What a restart goes on from

    def copy_columns(self, columns: Any) -> dict[str, Array]:
        """Return copies of what some streams (n,) remember; the steps at hand are left out.

        Of streams whose start is still checked the first values are there.
        """
        chosen = self._live(columns)
        parts = {
            "detector": self.detector.copy_columns(chosen),
            "alarm": self.alarm.columns.copy_of(chosen),
            "counters": self.counters.copy_of(chosen),
        }
        arrays = {f"{part}.{name}": a for part, own in parts.items() for name, a in own.items()}
        return arrays | {
            "header": np.frombuffer(json.dumps(self._header()).encode(), np.uint8),
            "floors": self.floors[chosen],
            "early": self._early_values(chosen),
        }

    def _early_values(self, columns: Array) -> Array:
        """Return the first values of streams (n,) in a start, (steps, n); NaN for all others."""
        if self.detector.own_start:
            return np.zeros((0, len(columns)))
        steps = self.counters["step"][columns]
        steps = np.where(steps < START_STEPS, steps, 0)
        early = np.full((int(steps.max(initial=0)), len(columns)), np.nan)
        for taken in np.unique(steps[steps > 0]).tolist():
            same = np.flatnonzero(steps == taken)
            early[:taken, same] = self.history.newest_values(columns[same], taken, taken)
        return early

    def paste_columns(self, columns: Any, arrays: Mapping[str, Array]) -> None:
        """Give streams (n,) that have just joined what `copy_columns` returned.

        Raises:
            ValueError: the arrays are of another fleet; the streams are as they joined then.
        """
        chosen = self._live(columns)
        came = json.loads(bytes(arrays["header"]))
        if came != self._header():
            raise ValueError(f"wanted states of {self._header()}, came those of {came}")
        parts: dict[str, dict[str, Array]] = {}
        for name, value in arrays.items():
            part, _, own = name.partition(".")
            parts.setdefault(part, {})[own] = value
        shared = {"alarm": self.alarm.columns, "counters": self.counters}
        for name, arrays_of in shared.items():
            if not arrays_of.fits(parts.get(name, {}), len(chosen)):
                raise ValueError(f"wanted the {name} of {len(chosen)} streams, came other arrays")
        self.detector.paste_columns(chosen, parts.get("detector", {}))
        self.alarm.columns.paste_at(chosen, parts["alarm"])
        self.counters.paste_at(chosen, parts["counters"])
        self.floors[chosen] = arrays["floors"]
        steps = self.counters["step"][chosen]
        self.counters["since"][chosen] = steps
        early = arrays["early"]
        for taken in np.unique(steps[steps <= len(early)]).tolist():
            same = np.flatnonzero(steps == taken)
            self.history.keep_values(chosen[same], early[:taken, same], taken)

    def _header(self) -> dict[str, Any]:
        """Return what states must share with the fleet that goes on from them."""
        return {
            "format": [FLEET_FORMAT, STATE_FORMAT],
            "clock": self.clock,
            "settings": [*self.settings.key],
        }


class SequenceFleet(Fleet):
    """A fleet whose streams step by themselves: each point is one step of its stream."""

    clock: ClassVar[str] = "sequence"

    def new_history(self) -> FleetHistory:
        """Return an empty history with times and rows of each stream."""
        return SequenceHistory(self.capacity)

    def push(self, columns: Any, times: Any, values: Any) -> ScoredSteps:
        """Take a step for each point, all (n,), in any order; a column may come several times.

        The points of one column are in the order of their times, and newer than its `last_time`:
        late ones are the caller's to set aside.
        Raises:
            ValueError: the shapes differ, or a column holds no stream; nothing has been taken.
        """
        chosen = self._live(columns)
        time = np.asarray(times, dtype=np.float64)
        value = np.asarray(values, dtype=np.float64)
        if not time.shape == value.shape == chosen.shape:
            raise ValueError(
                f"wanted columns, times and values alike (n,), got {chosen.shape}, "
                f"{time.shape} and {value.shape}"
            )
        out = empty_steps(len(chosen))
        for rows in self._rounds(chosen, time, value, out):
            self._push_round(rows, chosen, time, value, out)
        return out

    def _push_round(
        self, rows: Array | None, columns: Array, time: Array, value: Array, out: ScoredSteps
    ) -> None:
        """Take one step of each column in these rows; None = all of them."""
        tile = self.detector.tile or len(columns)
        for i in range(0, len(columns) if rows is None else len(rows), tile):
            place: Where = slice(i, i + tile) if rows is None else rows[i : i + tile]
            now = select(columns[place], self.counters["step"])
            self._step(now, time[place], value[place], out, place)
            self.counters["points"][now.where] += 1
            self.counters["last_time"][now.where] = time[place]

    def _rounds(
        self, columns: Array, time: Array, value: Array, out: ScoredSteps
    ) -> Iterator[Array | None]:
        """Yield rows of points, in each no column twice, so that all come in their order.

        Rows come by column: what neighbours remember lies side by side. None stands for all rows
        as they are. The points of a column that has very many are scored at once and not yielded.
        """
        if not len(columns):
            return
        if (columns[1:] > columns[:-1]).all():
            yield None
            return
        newest = np.full(self.size, -1)  # the last row of each column
        newest[columns] = np.arange(len(columns))
        each_once = newest[newest >= 0]
        if len(each_once) == len(columns):
            yield each_once
            return
        order = np.argsort(columns, kind="stable")
        ordered = columns[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(np.append(starts, len(ordered)))
        for first, count in zip(starts[counts > LONG_RUN], counts[counts > LONG_RUN]):
            self._push_run(order[first : first + count], columns, time, value, out)
        short = counts <= LONG_RUN
        starts, counts = starts[short], counts[short]
        for repeat in range(int(counts.max(initial=0))):
            yield order[starts[counts > repeat] + repeat]

    def _push_run(
        self, rows: Array, columns: Array, time: Array, value: Array, out: ScoredSteps
    ) -> None:
        """Score all points of one column as a chunk of a track of its own."""
        column = int(columns[rows[0]])
        before = self.read_history(column)
        first = int(self.counters["step"][column])
        track = Track(self.settings, (float(self.floors[column]),), first)
        track.load_state(self.copy_state(column))
        found = track.advance(value[rows, None])
        score = found["score"][:, 0]
        out.column[rows] = column
        out.step[rows] = first + np.arange(len(rows))
        out.time[rows] = time[rows]
        out.value[rows] = value[rows]
        out.score[rows] = score
        out.alarm_score[rows] = found["alarm"][:, 0]
        for name, band in (("centre", out.centre), ("spread", out.spread)):
            band[rows] = found[name][:, 0] if name in found else np.nan
        anomaly = score > self.settings.threshold
        alarm = out.alarm_score[rows] > self.settings.threshold
        out.anomaly[rows] = anomaly
        out.alarm[rows] = alarm
        new = Steps(time[rows], value[rows], score)
        newest = Steps(*(np.append(a, b)[-self.capacity :] for a, b in zip(before, new)))
        calm = np.flatnonzero(~anomaly)
        run = int(self.counters["run"][column]) + len(rows)
        counts = {
            "points": self.counters["points"][column] + len(rows),
            "anomalies": self.counters["anomalies"][column] + np.count_nonzero(anomaly),
            "alarms": self.counters["alarms"][column] + np.count_nonzero(alarm),
            "run": len(rows) - 1 - calm[-1] if len(calm) else run,
            "last_time": time[rows[-1]],
        }
        self.adopt(column, track.copy_state(), newest, counts)


class GridFleet(Fleet):
    """A fleet on a grid of times: each tick is one step of all its streams."""

    clock: ClassVar[str] = "grid"
    history: GridHistory

    def new_history(self) -> GridHistory:
        """Return an empty history whose times and rows all streams share."""
        return GridHistory(self.capacity)

    def tick(self, time: float, values: Any) -> ScoredSteps:
        """Take one step of all live streams at a time, seconds since the Unix epoch.

        values: (size,), one for each column, NaN = no sample came; those of free columns are not
        read. The results are in the order of `columns`.
        Raises:
            ValueError: the values are not one for each column; nothing has been taken.
        """
        value = np.asarray(values, dtype=np.float64)
        if value.shape != (self.size,):
            raise ValueError(f"wanted one value for each of {self.size} columns, got {value.shape}")
        columns = self.columns
        out = empty_steps(len(columns))
        self.history.begin_tick()
        tile = self.detector.tile or max(1, len(columns))
        for i in range(0, len(columns), tile):
            place = slice(i, i + tile)
            now = select(columns[place], self.counters["step"])
            sample = value[now.where]
            self._step(now, time, sample, out, place)
            came = sample == sample
            self.counters["points"][now.where] += came
            self.counters["last_time"][now.where][came] = time
        return out
