"""The states: what is stored of fleets so that a restart goes on to the same bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.fleets import ScoredSteps, SequenceFleet
from redline.engine.fleet.history import Steps
from redline.engine.fleet.roster import Roster
from redline.engine.fleet.stored import (
    ALARM_FLAG,
    ANOMALY_FLAG,
    ColumnStates,
    SeriesRecord,
    SeriesSteps,
    SeriesStore,
)
from redline.engine.results import log
from redline.engine.runs import Run, follow_run
from redline.engine.track import Track

TILE = 2_048  # columns of a fleet whose states are stored together
STATES_EVERY = 100  # steps of a series, on average, between two of its stored states


class SeriesStates:
    """The stored states of all series: which are due, and how they are put back.

    A fleet is cut into tiles of columns. Each commit stores a few of them, in turn, so that none
    takes long; what came after a tile's state is scored again at a restart.
    """

    def __init__(self, roster: Roster, held: set[int]) -> None:
        """Make it without states.

        Args:
            roster: where the series are.
            held: those with an alarm held back by a maintenance window; changed by a restart.
        """
        self.roster = roster
        self.held = held
        self.tiles: set[tuple[int, int]] = set()  # (fleet, tile) of which states are stored
        self.queue: deque[tuple[int, int]] = deque()  # those whose states are stored next
        self.owed = 0.0  # series whose states are due

    def due(self, points: int, touched: Array) -> list[ColumnStates]:
        """Return the states of some tiles; each series has its turn every STATES_EVERY steps.

        Those of tiles with series that have just joined or moved are due at once, so that the
        states of every series are stored.

        Args:
            points: scored since the last call.
            touched: (m,) the series that joined or moved since.
        """
        due = set()
        if len(touched):
            tiles = self.roster["column"][touched] // TILE
            due = set(zip(self.roster["fleet"][touched].tolist(), tiles.tolist()))
        self.owed += points / STATES_EVERY
        while self.owed > 0 and self.tiles:
            if not self.queue:
                self.queue.extend(sorted(self.tiles))
            place, tile = self.queue.popleft()
            due.add((place, tile))
            self.owed -= max(1, len(self.roster.in_tile(place, tile, TILE)))
        self.tiles |= due
        return [self._copy_tile(place, tile) for place, tile in sorted(due)]

    def _copy_tile(self, place: int, tile: int) -> ColumnStates:
        """Return the states of the series in one tile of a fleet."""
        fleet = self.roster.fleets[place]
        numbers = self.roster.in_tile(place, tile, TILE)
        arrays = fleet.copy_columns(self.roster["column"][numbers])
        arrays |= {"offset": self.roster["offset"][numbers], "tile": np.array(tile)}
        arrays["held"] = np.isin(numbers, list(self.held))
        key = f"{tile} {fleet.settings!r}"
        return ColumnStates(key, fleet.settings, numbers, arrays)

    def restore(self, records: Mapping[int, SeriesRecord], store: SeriesStore) -> list[str]:
        """Put all series of the store into an empty roster.

        Returns the keys of stored states that are of no series any more.
        """
        if not records:
            return []
        self.roster.make_room(np.array(list(records)))
        newest: dict[int, int] = {}  # series -> the commit of its newest state
        for commit, states in store.load_states():
            newest.update(dict.fromkeys(states.series.tolist(), commit))
        obsolete = []
        for commit, states in store.load_states():
            own = [
                place
                for place, number in enumerate(states.series.tolist())
                if newest[number] == commit
                and number in records
                and records[number].settings == states.settings
            ]
            if not own:
                obsolete.append(states.key)
            elif self._restore_tile(states, np.array(own)):
                self.tiles.add(
                    (self.roster.by_settings[states.settings], int(states.arrays["tile"]))
                )
        self.learn_again(records.values(), store)
        for steps in store.steps_after(min(newest.values(), default=0)):
            self._replay(steps)
        return obsolete

    def _restore_tile(self, states: ColumnStates, own: Array) -> bool:
        """Put states back where they were, of the series at the places `own` of the stored ones.

        False = they are of another version; nothing has changed.
        """
        fleet = self.roster.fleets[self.roster.fleet_under(states.settings)]
        arrays = dict(states.arrays)
        offset = arrays.pop("offset")
        held = arrays.pop("held", np.zeros(len(states.series), bool))  # older states have none
        width = len(states.series)
        columns = int(arrays.pop("tile")) * TILE + np.arange(width)
        fleet.join_at(columns)
        try:
            fleet.paste_columns(columns, arrays)
        except (ValueError, KeyError) as error:
            log.warning("%d series learn again from what is stored of them: %s", width, error)
            fleet.leave(columns)
            return False
        fleet.leave(columns[np.setdiff1d(np.arange(width), own)])
        numbers = states.series[own]
        self.roster.enter(self.roster.by_settings[states.settings], columns[own], numbers)
        self.roster["offset"][numbers] = offset[own]
        self.held.update(numbers[held[own]].tolist())
        self.roster["newest"][numbers] = fleet.counters["last_time"][columns[own]]
        return True

    def learn_again(self, records: Iterable[SeriesRecord], store: SeriesStore) -> None:
        """Let the series that are in no fleet learn from the last steps stored of them."""
        for record in records:
            number = record.number
            if self.roster["fleet"][number] >= 0:
                continue
            column = int(self.roster.join(np.array([number]), record.settings)[0])
            fleet, _ = self.roster.fleet_of(number)
            stored = store.read_series(number, None, None, fleet.capacity)
            stored = stored.pick(stored.step >= 0)
            if not len(stored.step):
                continue
            track = Track(record.settings, (float(fleet.floors[column]),), 0)
            track.advance(stored.value[:, None])
            newest = Steps(stored.time, stored.value, stored.score)
            flags = stored.flags
            counts = {
                "last_time": float(stored.time[-1]),
                "anomalies": np.count_nonzero(flags & ANOMALY_FLAG),
                "alarms": np.count_nonzero(flags & ALARM_FLAG),
            }
            fleet.adopt(column, track.copy_state(), newest, counts)
            self.roster["offset"][number] = int(stored.step[-1]) + 1 - len(stored.step)
            self.roster["newest"][number] = float(stored.time[-1])

    def _replay(self, steps: SeriesSteps) -> None:
        """Let series take stored steps that are newer than their states."""
        steps = steps.pick((steps.step >= 0) & self.roster.knows(steps.series))
        home = self.roster["fleet"][steps.series]
        for place in np.unique(home).tolist():
            fleet = self.roster.fleets[place]
            own = steps.pick(home == place) if len(self.roster.fleets) > 1 else steps
            column = self.roster["column"][own.series]
            taken = fleet.counters["step"][column] + self.roster["offset"][own.series]
            newer = own.step >= taken
            if newer.any():
                new = own.pick(newer)
                run = fleet.counters["run"][column[newer]]
                scored = fleet.push(column[newer], new.time, new.value)
                self.roster["newest"][new.series] = new.time
                self._follow_held(fleet, new, scored, run)

    def _follow_held(
        self, fleet: SequenceFleet, steps: SeriesSteps, scored: ScoredSteps, run: Array
    ) -> None:
        """Find which alarms are held back after stored steps (n,), and count those that were not.

        An alarm that is due and is not stored as one was held back, whatever windows there are now.

        run: (n,) anomalous steps in a row before them.
        """
        raised = steps.flags & ALARM_FLAG > 0
        differs = (scored.alarm != raised) | np.isin(steps.series, list(self.held))
        rows = np.flatnonzero(np.isin(steps.series, steps.series[differs]))
        rows = rows[np.argsort(steps.series[rows], kind="stable")]
        series = steps.series[rows]
        for own in np.split(rows, np.flatnonzero(series[1:] != series[:-1]) + 1):
            if not len(own):
                continue
            number = int(steps.series[own[0]])
            before = Run(int(run[own[0]]), number in self.held)
            due = scored.alarm[own]
            after = follow_run(scored.anomaly[own], due, ~raised[own], before).after
            self.held.discard(number)
            if after.held:
                self.held.add(number)
            column = int(scored.column[own[0]])
            more = np.count_nonzero(raised[own]) - np.count_nonzero(due)
            fleet.counters["alarms"][column] += more
