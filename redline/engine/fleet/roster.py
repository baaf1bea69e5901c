"""The roster: where each series is, by its number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.columns import ColumnArrays
from redline.engine.fleet.fleets import SequenceFleet
from redline.settings import Settings

PLACES: dict[str, Any] = {
    "fleet": -1,  # the place of its fleet in the list, -1 = it is in none
    "column": 0,  # of its fleet
    "offset": 0,  # steps before the first that its fleet counts
    "newest": -np.inf,  # seconds since the Unix epoch, of its newest scored sample
    "seen": 0.0,  # wall seconds at which its newest sample of any kind came
    "shown": False,  # whether each of its steps is reported, because something follows it
}


class Roster:
    """The fleets, one for each setting in use, and the place of each series in them."""

    def __init__(self) -> None:
        self.places = ColumnArrays({name: np.array([value]) for name, value in PLACES.items()})
        self.size = 0  # numbers that have a place in the arrays
        self.fleets: list[SequenceFleet] = []
        self.by_settings: dict[Settings, int] = {}
        self.numbers: list[Array] = []  # of each fleet, (columns,): the series, -1 = a free column

    def __getitem__(self, name: str) -> Array:
        """Return an array of PLACES, (numbers,)."""
        return self.places[name]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.places["fleet"][: self.size] >= 0))

    def make_room(self, numbers: Array) -> None:
        """Make room for these series."""
        size = int(numbers.max(initial=-1)) + 1
        if size > self.size:
            self.places.grow(size)
            self.places.clear(np.arange(self.size, size))
            self.size = size

    def knows(self, numbers: Array) -> Array:
        """Return which series (n,) are in a fleet, (n,) bool; for any thread."""
        known = numbers < self.size
        known[known] = self.places["fleet"][numbers[known]] >= 0
        return known

    def fleet_under(self, settings: Settings) -> int:
        """Return the place of the fleet under these settings; a new one where there is none."""
        place = self.by_settings.get(settings)
        if place is None:
            place = len(self.fleets)
            self.fleets.append(SequenceFleet(settings))
            self.numbers.append(np.zeros(0, int))
            self.by_settings[settings] = place
        return place

    def join(self, numbers: Array, settings: Settings) -> Array:
        """Put series (n,) into the fleet under these settings; return their columns, (n,)."""
        self.make_room(numbers)
        place = self.fleet_under(settings)
        columns = self.fleets[place].join(len(numbers))
        self.enter(place, columns, numbers)
        return columns

    def enter(self, place: int, columns: Array, numbers: Array) -> None:
        """Note that series (n,) are in these columns of a fleet."""
        own = self.numbers[place]
        size = self.fleets[place].size
        if size > len(own):
            own = np.concatenate((own, np.full(max(size, len(own) * 5 // 4) - len(own), -1)))
            self.numbers[place] = own
        own[columns] = numbers
        self.places["fleet"][numbers] = place
        self.places["column"][numbers] = columns

    def leave(self, number: int) -> None:
        """Take a series out of its fleet."""
        place = int(self.places["fleet"][number])
        if place >= 0:
            column = int(self.places["column"][number])
            self.fleets[place].leave([column])
            self.numbers[place][column] = -1
            self.places["fleet"][number] = -1

    def leave_together(self, numbers: Array) -> None:
        """Take series (n,) of one fleet out of it."""
        place = int(self.places["fleet"][numbers[0]])
        columns = self.places["column"][numbers]
        self.fleets[place].leave(columns)
        self.numbers[place][columns] = -1
        self.places["fleet"][numbers] = -1

    def release_empty(self) -> None:
        """Put an empty fleet in the place of each that all series have left."""
        for place, fleet in enumerate(self.fleets):
            if fleet.size and not len(fleet.columns):
                self.fleets[place] = SequenceFleet(fleet.settings)
                self.numbers[place] = np.zeros(0, int)

    def fleet_of(self, number: int) -> tuple[SequenceFleet, int]:
        """Return the fleet of a series and its column there; KeyError where it is in none."""
        if not 0 <= number < self.size or self.places["fleet"][number] < 0:
            raise KeyError(number)
        place = int(self.places["fleet"][number])
        return self.fleets[place], int(self.places["column"][number])

    def tiles(self, width: int) -> Iterator[tuple[int, int]]:
        """Yield (fleet, tile) of all tiles, each of `width` columns; the last may have less."""
        for place, fleet in enumerate(self.fleets):
            for tile in range(-(-fleet.size // width)):
                yield place, tile

    def in_tile(self, place: int, tile: int, width: int) -> Array:
        """Return the series in a tile of a fleet, (n,), in the order of their columns."""
        own = self.numbers[place][tile * width : (tile + 1) * width]
        return own[own >= 0]

    def counts(self) -> dict[str, int]:
        """Return the points, anomalies and alarms of all series that are in a fleet."""
        return {
            name: sum(int(f.counters[name][f.columns].sum()) for f in self.fleets)
            for name in ("points", "anomalies", "alarms")
        }
