"""Column arrays: named arrays whose last axis is the streams of a fleet, grown by a quarter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.selection import Where


class ColumnArrays:
    """Named arrays (..., streams), each with the same number of columns.

    A column has no defined values before `clear`; memory is taken when it is first written.
    """

    def __init__(self, first: Mapping[str, Array]) -> None:
        """Make arrays without columns; first: (..., 1), the values of a cleared column."""
        self.first = dict(first)
        self.arrays = {
            name: np.zeros((*value.shape[:-1], 0), value.dtype) for name, value in first.items()
        }
        self.allocated = 0  # columns

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def grow(self, size: int) -> None:
        """Make room for `size` columns: at least a quarter more than before, if it must grow."""
        if size <= self.allocated:
            return
        before = self.allocated
        self.allocated = max(size, before + before // 4)
        for name, array in self.arrays.items():
            # zeros take no memory until they are written
            larger = np.zeros((*array.shape[:-1], self.allocated), array.dtype)
            larger[..., :before] = array
            self.arrays[name] = larger

    def clear(self, columns: Where) -> None:
        """Set columns to the first values."""
        for name, value in self.first.items():
            self.arrays[name][..., columns] = value

    def copy_of(self, columns: Array) -> dict[str, Array]:
        """Return copies of some columns."""
        return {name: np.array(array[..., columns]) for name, array in self.arrays.items()}

    def paste_at(self, columns: Array, arrays: Mapping[str, Array]) -> None:
        """Put back what `copy_of` returned, into other columns (n,) perhaps; there must be room."""
        for name, array in arrays.items():
            self.arrays[name][..., columns] = array

    def fits(self, arrays: Mapping[str, Array], count: int) -> bool:
        """Return whether these can be what `copy_of` so many columns returned."""
        return arrays.keys() == self.arrays.keys() and all(
            arrays[name].shape == (*value.shape[:-1], count) and arrays[name].dtype == value.dtype
            for name, value in self.first.items()
        )
