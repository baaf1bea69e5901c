"""The swim lanes: the worst scores of all series folded to some lanes, the worst lanes first.

A lane is a series, or all series that share the value of a label; a cell of it is the worst score
of a column of time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.label_columns import WITHOUT, LabelColumn, LabelColumns
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.fleet.worst_scores import AT_THRESHOLD, NO_LEVEL, LevelColumns, ratio_of

MAX_SWIM_LANES = 200  # lanes made, whatever the number of series
HELD_SECONDS = 90.0  # that a score stands for, until the next one comes
MAX_MOMENT_STEPS = 10_000  # of one series, among which the worst of a cell is looked for


class LanesQuery(NamedTuple):
    """Which lanes are wanted."""

    label: str = ""  # by which series are grouped; "" = each is a lane
    part: str = ""  # of the name of a series, or a selector such as up{job="web"}
    columns: int = 120  # of time
    cells: int = 1  # of a column
    wide: bool = False  # cells of a minute
    lanes: int = MAX_SWIM_LANES


class SwimLane(NamedTuple):
    """One lane."""

    value: str  # of the label, or the name of the series
    series: int  # that it is folded from
    levels: Array  # (columns,) uint16
    number: int  # of the series with the worst level
    worst: int  # that level


class SwimLaneTable(NamedTuple):
    """The lanes of a query, and what they are taken from."""

    lanes: list[SwimLane]
    start: float  # seconds since the Unix epoch, of the first column
    seconds: float  # of a column
    columns: int
    found: int  # lanes in all
    anomalous: int  # of them with an anomaly
    series: int  # that pass the filter and have the label
    without: int  # that pass the filter, but lack the label


class SeriesMoment(NamedTuple):
    """A step of a series."""

    name: str
    step: int
    time: float  # seconds since the Unix epoch


class SwimLanes:
    """The lanes of all series; for any thread."""

    def __init__(self, series: SeriesMonitor, index: NameIndex) -> None:
        self.series = series
        self.index = index
        self.labels = LabelColumns(series.directory)

    def numbers(self, part: str, size: int) -> Array:
        """Return the series below a number that are watched and pass a filter, (n,) ascending."""
        roster = self.series.roster
        fleet = roster["fleet"]
        numbers = np.flatnonzero(fleet[: min(size, roster.size)] >= 0)
        return numbers[self.index.matching(numbers, part)] if part.strip() else numbers

    def table(self, wanted: LanesQuery) -> SwimLaneTable:
        """Return the lanes that are wanted, the worst first."""
        worst = self.series.worst
        ring = worst.wide if wanted.wide else worst.narrow
        seen = ring.columns(wanted.columns, wanted.cells)
        numbers = self.numbers(wanted.part, seen.levels.shape[1])
        peak = np.zeros(seen.levels.shape[1], np.uint16)
        for row in seen.levels:
            np.maximum(peak, row, out=peak)
        if not wanted.label:
            return self._single_lanes(wanted, seen, numbers, peak)
        column = self.labels.refresh().get(wanted.label)
        codes = np.full(len(numbers), WITHOUT) if column is None else _codes(column, numbers)
        own = numbers[codes != WITHOUT]
        lanes, found, anomalous = (
            ([], 0, 0)
            if column is None or not len(own)
            else _folded(column, codes[codes != WITHOUT], own, seen, peak, wanted.lanes)
        )
        return _table_of(lanes, seen, found, anomalous, len(own), len(numbers) - len(own))

    def _single_lanes(
        self, wanted: LanesQuery, seen: LevelColumns, numbers: Array, peak: Array
    ) -> SwimLaneTable:
        """Return a lane for each of the worst series."""
        level = peak[numbers]
        chosen = numbers[worst_places(level, wanted.lanes)]
        held = hold(seen.levels[:, chosen].T, seen.seconds)
        texts = self.series.directory.texts
        lanes = [
            SwimLane(text, 1, levels, number, int(peak[number]))
            for number, levels in zip(chosen.tolist(), held)
            if (text := texts[number]) is not None
        ]
        anomalous = int(np.count_nonzero(level > AT_THRESHOLD))
        return _table_of(lanes, seen, len(numbers), anomalous, len(numbers), 0)

    def choices(self) -> dict[str, int]:
        """Return the labels that series can be grouped by, with the values of each."""
        columns = self.labels.refresh()
        return {label: len(column.values) for label, column in columns.items()}

    def score_of(self, number: int, level: int) -> tuple[float, float]:
        """Return the score of a level of a series, and its threshold; NaN where it has left."""
        try:
            fleet, _ = self.series.roster.fleet_of(number)
        except KeyError:
            return np.nan, np.nan
        threshold = fleet.settings.threshold
        return float(ratio_of(np.array(level, np.uint16))) * threshold, threshold

    def find_moment(
        self, label: str, value: str, part: str, start: float, end: float
    ) -> SeriesMoment | None:
        """Return the worst step of a lane between two times; None = there is none.

        Args:
            label: by which the lanes are grouped; "" = each is a series.
            value: of the lane.
            part: the filter of the lanes.
            start: seconds since the Unix epoch.
            end: seconds since the Unix epoch, not included.
        """
        level = self.series.worst.worst_between(start, end)
        if label:
            numbers = self.numbers(part, len(level))
            column = self.labels.refresh().get(label)
            if column is None or value not in column.values:
                return None
            numbers = numbers[_codes(column, numbers) == column.values.index(value)]
        else:
            number = self.series.find(value)
            numbers = np.array([] if number is None or number >= len(level) else [number], int)
        if not len(numbers):
            return None
        return self._worst_step(int(numbers[np.argmax(level[numbers])]), start, end)

    def _worst_step(self, number: int, start: float, end: float) -> SeriesMoment | None:
        """Return the worst step of a series between two times; the last one before, if none is."""
        name = self.series.directory.texts[number]
        try:
            fleet, column = self.series.roster.fleet_of(number)
            recent = fleet.read_history(column)
        except (KeyError, ValueError):  # it has left meanwhile
            return None
        if name is None:
            return None
        total = int(fleet.counters["step"][column] + self.series.roster["offset"][number])
        step = np.arange(total - len(recent.time), total)
        time, score = recent.time, recent.score
        store = self.series.store
        if store is not None and (not len(time) or time[0] > start):
            stored = store.read_series(number, start, end, MAX_MOMENT_STEPS)
            stored = stored.pick(stored.step >= 0)
            if len(stored.step):
                step, time, score = stored.step, stored.time, stored.score
        inside = np.flatnonzero((time >= start) & (time < end))
        if not len(inside):
            inside = np.flatnonzero(time < end)[-1:]
        if not len(inside):
            return None
        place = int(inside[np.argmax(np.nan_to_num(score[inside], nan=-np.inf))])
        return SeriesMoment(name, int(step[place]), float(time[place]))


def worst_places(level: Array, count: int) -> Array:
    """Return the places of the highest levels (n,), the highest first and equal ones in order."""
    if len(level) > count:
        least = np.partition(level, len(level) - count)[len(level) - count]
        above = np.flatnonzero(level > least)
        places = np.concatenate((above, np.flatnonzero(level == least)[: count - len(above)]))
    else:
        places = np.arange(len(level))
    order = np.lexsort((places, -level[places].astype(int)))
    return places[order]


def hold(levels: Array, seconds: float) -> Array:
    """Return levels (lanes, columns) in which a score stands until the next one comes.

    seconds: of a column. A gap longer than HELD_SECONDS, or than one column, stays a gap.
    """
    most = max(1, math.ceil(HELD_SECONDS / seconds))
    place = np.arange(levels.shape[1])
    last = np.maximum.accumulate(np.where(levels > NO_LEVEL, place, -most - 1), axis=1)
    held = np.take_along_axis(levels, np.maximum(last, 0), axis=1)
    return np.asarray(np.where(place - last <= most, held, NO_LEVEL))


def _codes(column: LabelColumn, numbers: Array) -> Array:
    """Return the codes of series (n,); WITHOUT where one is newer than the column."""
    if not len(column.codes):
        return np.full(len(numbers), WITHOUT)
    known = numbers < len(column.codes)
    return np.where(known, column.codes[np.minimum(numbers, len(column.codes) - 1)], WITHOUT)


def _folded(
    column: LabelColumn, codes: Array, numbers: Array, seen: LevelColumns, peak: Array, count: int
) -> tuple[list[SwimLane], int, int]:
    """Return the worst lanes of some groups, how many groups there are, and with an anomaly.

    Args:
        column: the label.
        codes: (n,) of the series.
        numbers: (n,) the series, n > 0.
        seen: their levels.
        peak: (numbers,) the worst of them.
        count: lanes that are wanted.
    """
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sizes = np.diff(np.append(first, len(ordered)))
    worst = np.maximum.reduceat(peak[numbers[order]], first)
    chosen = worst_places(worst, count)
    members = [numbers[order[i : i + n]] for i, n in zip(first[chosen], sizes[chosen])]
    together = np.concatenate(members)
    starts = np.cumsum([0, *map(len, members[:-1])])
    levels = np.empty((len(members), len(seen.levels)), np.uint16)
    for i, row in enumerate(seen.levels):
        levels[:, i] = np.maximum.reduceat(row[together], starts)
    values = column.values
    lanes = [
        SwimLane(values[code], len(own), row, int(own[np.argmax(peak[own])]), int(peak[own].max()))
        for code, own, row in zip(
            ordered[first[chosen]].tolist(), members, hold(levels, seen.seconds)
        )
    ]
    return lanes, len(worst), int(np.count_nonzero(worst > AT_THRESHOLD))


def _table_of(
    lanes: list[SwimLane],
    seen: LevelColumns,
    found: int,
    anomalous: int,
    series: int,
    without: int,
) -> SwimLaneTable:
    columns = len(seen.levels)
    return SwimLaneTable(
        lanes, seen.start, seen.seconds, columns, found, anomalous, series, without
    )
