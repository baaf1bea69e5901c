"""Cohorts: streams of one detector at the same phase, which take their steps in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectors import DETECTORS, Detector, State, Verdict
from redline.detection.arrays import Array
from redline.engine.fleet.selection import Selection
from redline.settings import Settings

MakeDetector = Callable[[float], Detector]  # of a floor


@dataclass
class Cohort:
    """A detector with the stacked state of some streams; it lives as long as they stay together."""

    detector: Detector
    columns: Array  # (n,) int, in the order of the state
    floor: float

    @property
    def phase(self) -> tuple[Any, ...]:
        """Return what streams share that can take a step in one call."""
        state = self.detector.state or {}
        scalars = ((name, value.item()) for name, value in state.items() if not value.ndim)
        return (self.floor, "early" in state, *sorted(scalars))


class StateLayout:
    """Where the streams are in the arrays of a detector's state, found by trying."""

    def __init__(self, make: MakeDetector) -> None:
        self.make = make
        two, three = (self._state_of(streams) for streams in (2, 3))
        # array -> (its axis of streams, entries of one stream there)
        self.axes: dict[str, tuple[int, int]] = {}
        # "shape", its own and its members' -> entries of one stream that its first number counts
        self.counts: dict[str, int] = {}
        for name, value in two.items():
            if name.rpartition(".")[2] == "shape":
                self.counts[name] = int(three[name][0] - value[0])
            for axis, (less, more) in enumerate(zip(value.shape, three[name].shape)):
                if less != more:
                    self.axes[name] = (axis, more - less)

    def _state_of(self, streams: int) -> State:
        """Return the state after one step, which has the arrays of all members."""
        detector = self.make(0.0)
        detector.advance(np.zeros((1, streams)))
        return detector.state or {}

    def take(self, state: State, places: Array) -> State:
        """Return copies of the states of the streams at some places."""
        part = {}
        for name, value in state.items():
            if name in self.axes:
                axis, width = self.axes[name]
                entries = (places[:, None] * width + np.arange(width)).ravel()
                part[name] = np.take(value, entries, axis=axis)
            else:
                part[name] = value.copy()
        self._count(part, len(places))
        return part

    def stack(self, states: Sequence[State]) -> State:
        """Return the states of streams at the same phase as one."""
        one = {}
        for name, value in states[0].items():
            if name in self.axes:
                axis, _ = self.axes[name]
                one[name] = np.concatenate([state[name] for state in states], axis=axis)
            else:
                one[name] = value.copy()
        self._count(one, sum(int(state["shape"][0]) for state in states))
        return one

    def _count(self, state: State, streams: int) -> None:
        """Write how many streams a state is of."""
        for name, width in self.counts.items():
            state[name][0] = width * streams


class CohortDetector:
    """A detector of any kind for the streams of a fleet, one call for each cohort.

    A cohort whose streams do not all take a step is split; cohorts that come to the same phase are
    joined. So streams that step together cost no copy of their states.
    """

    own_start: ClassVar[bool] = True  # its detectors check their first values themselves
    tile: ClassVar[int | None] = None  # a cohort is not cut

    def __init__(self, make: MakeDetector) -> None:
        self.make = make
        self.layout = StateLayout(make)
        self.cohorts: dict[int, Cohort] = {}
        self.next_id = 0
        self.home = np.zeros(0, int)  # (streams,) the cohort of each, -1 = none
        self.row = np.zeros((3, 0))  # (3, streams) of one step: value or score, centre, spread

    def join(self, columns: Array, floors: Array) -> None:
        """Begin these streams; floors: (n,), the data's unit."""
        size = int(columns.max()) + 1
        if size > len(self.home):
            more = max(size, len(self.home) * 5 // 4) - len(self.home)
            self.home = np.concatenate((self.home, np.full(more, -1)))
            self.row = np.zeros((3, len(self.home)))
        for floor in np.unique(floors).tolist():
            self._open(Cohort(self.make(floor), columns[floors == floor], floor))

    def leave(self, columns: Array) -> None:
        """Forget these streams."""
        for number in self._split(columns):
            del self.cohorts[number]
        self.home[columns] = -1

    def step(self, x: Array, chosen: Selection) -> Verdict:
        """Score the next value of each stream, x (n,), then learn it; the verdict is (n,)."""
        stepping = self._split(chosen.columns)
        self.row[0, chosen.where] = x
        band = True
        for number in stepping:
            cohort = self.cohorts[number]
            rows = self.row[:1, cohort.columns]  # (1, streams)
            verdict = cohort.detector.advance(rows)
            self.row[0, cohort.columns] = verdict.score[0]
            band = verdict.centre is not None and verdict.spread is not None
            if verdict.centre is not None and verdict.spread is not None:
                self.row[1, cohort.columns] = verdict.centre.ravel()
                self.row[2, cohort.columns] = verdict.spread.ravel()
        self.merge()
        score, centre, spread = self.row[:, chosen.where].copy()
        return Verdict(score, centre, spread) if band else Verdict(score)

    def _open(self, cohort: Cohort) -> int:
        """Add a cohort and return its number."""
        number = self.next_id
        self.next_id += 1
        self.cohorts[number] = cohort
        self.home[cohort.columns] = number
        return number

    def _split(self, columns: Array) -> list[int]:
        """Return the cohorts of these streams, split so that they have no others."""
        numbers, counts = np.unique(self.home[columns], return_counts=True)
        found = []
        for number, count in zip(numbers.tolist(), counts.tolist()):
            cohort = self.cohorts[number]
            if count < len(cohort.columns):
                inside = np.isin(cohort.columns, columns)
                found.append(self._open(self._part(cohort, inside)))
                rest = self._part(cohort, ~inside)
                self.cohorts[number] = rest
            else:
                found.append(number)
        return found

    def _part(self, cohort: Cohort, inside: Array) -> Cohort:
        """Return a cohort of some of the streams of another, (streams,) bool."""
        part = Cohort(self.make(cohort.floor), cohort.columns[inside], cohort.floor)
        if cohort.detector.state is not None:
            part.detector.state = self.layout.take(cohort.detector.state, np.flatnonzero(inside))
        return part

    def merge(self) -> None:
        """Join the cohorts that are at the same phase."""
        same: dict[tuple[Any, ...], list[int]] = {}
        for number, cohort in self.cohorts.items():
            same.setdefault(cohort.phase, []).append(number)
        for numbers in same.values():
            if len(numbers) == 1:
                continue
            parts = [self.cohorts.pop(number) for number in numbers]
            columns = np.concatenate([part.columns for part in parts])
            one = Cohort(self.make(parts[0].floor), columns, parts[0].floor)
            states = [part.detector.state for part in parts if part.detector.state is not None]
            one.detector.state = self.layout.stack(states) if states else None
            self._open(one)

    def read_state(self, columns: Array, steps: int) -> State:
        """Return the state of one stream, (1,) columns, as of a detector of its own."""
        cohort = self.cohorts[int(self.home[columns[0]])]
        if cohort.detector.state is None:
            return {}
        return self.layout.take(cohort.detector.state, np.flatnonzero(cohort.columns == columns[0]))

    def write_state(self, columns: Array, steps: int, state: State) -> None:
        """Give one stream, (1,) columns, the state of a detector of its own."""
        number = self._split(columns)[0]
        self.cohorts[number].detector.state = {name: value.copy() for name, value in state.items()}

    def copy_columns(self, columns: Array) -> dict[str, Array]:
        """Return copies of the states of some streams, with their places among `columns`."""
        place = np.full(len(self.home), -1)
        place[columns] = np.arange(len(columns))
        arrays = {}
        for number, home in enumerate(np.unique(self.home[columns]).tolist()):
            cohort = self.cohorts[home]
            inside = np.flatnonzero(place[cohort.columns] >= 0)
            arrays[f"{number}.columns"] = place[cohort.columns[inside]]
            arrays[f"{number}.floor"] = np.array(cohort.floor)
            state = cohort.detector.state
            for name, value in (self.layout.take(state, inside) if state else {}).items():
                arrays[f"{number}.state.{name}"] = value
        return arrays

    def paste_columns(self, columns: Array, arrays: dict[str, Array]) -> None:
        """Put back what `copy_columns` returned, into columns (n,) that have joined.

        Raises:
            ValueError: the arrays are of another detector or of other settings.
        """
        cohorts = self._cohorts_of(arrays)
        self.leave(columns)
        for cohort in cohorts:
            cohort.columns = columns[cohort.columns]
            self._open(cohort)
        self.merge()

    def _cohorts_of(self, arrays: dict[str, Array]) -> list[Cohort]:
        """Return the cohorts that were copied; ValueError if they are of another detector."""
        cohorts = []
        for number in range(sum(name.endswith(".columns") for name in arrays)):
            prefix = f"{number}.state."
            state = {
                name.removeprefix(prefix): value.copy()
                for name, value in arrays.items()
                if name.startswith(prefix)
            }
            floor = float(arrays[f"{number}.floor"])
            cohort = Cohort(self.make(floor), arrays[f"{number}.columns"].copy(), floor)
            if state and not cohort.detector.fits(state):
                kind = type(cohort.detector).__name__
                raise ValueError(f"wanted the states of {kind}, came other ones")
            cohort.detector.state = state or None
            cohorts.append(cohort)
        return cohorts

    @property
    def nbytes(self) -> int:
        states = (cohort.detector.state or {} for cohort in self.cohorts.values())
        return sum(value.nbytes for state in states for value in state.values())


def cohort_detector(settings: Settings) -> CohortDetector:
    """Return the detector of these settings for the streams of a fleet."""

    def make(floor: float) -> Detector:
        return DETECTORS[settings.detector](
            window=settings.window, direction=settings.direction, floor=floor
        )

    return CohortDetector(make)
