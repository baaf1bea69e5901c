"""The selection: streams of a fleet that take one step together, each at its own step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array

Where = slice | Array


class Selection(NamedTuple):
    """Columns of a fleet, each once, with the steps that each has taken before."""

    columns: Array  # (n,) int
    where: Where  # the same columns, as a slice where they are neighbours
    steps: int | Array  # one number where all have taken as many, else (n,)

    def row(self, length: int) -> int | Array:
        """Return the place of the next step in a ring or a block of `length` steps."""
        return self.steps % length

    def read(self, array: Array, row: int | Array) -> Array:
        """Return the row of each column: array (..., rows, streams) -> (..., n)."""
        if isinstance(row, int):
            found: Array = array[..., row, self.where]
            return found
        if array.ndim == 2:
            return np.asarray(array[row, self.columns])
        return np.stack([self.read(layer, row) for layer in array])

    def write(self, array: Array, row: int | Array, values: Array) -> None:
        """Set the row of each column: array (rows, streams), values (n,)."""
        if isinstance(row, int):
            array[row, self.where] = values
        else:
            array[row, self.columns] = values

    def at(self, place: int | Array, wanted: int) -> Where | None:
        """Return the columns whose place is the wanted one; None = there is none.

        place: one number for all, or (n,).
        """
        if isinstance(place, int):
            return self.where if place == wanted else None
        chosen = self.columns[place == wanted]
        return chosen if len(chosen) else None


def select(columns: Array, step: Array) -> Selection:
    """Return a selection of columns (n,), n > 0, by the steps (streams,) of the whole fleet."""
    n = len(columns)
    first = int(columns[0])
    where: Where = columns
    if columns[-1] - first == n - 1 and (n < 3 or (columns[1:] > columns[:-1]).all()):
        where = slice(first, first + n)
    taken = step[where]
    steps = int(taken[0]) if (taken == taken[0]).all() else np.array(taken)
    return Selection(columns, where, steps)
