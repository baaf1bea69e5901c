"""The labels of all series as columns of numbers, by which they are grouped at once."""

from __future__ import annotations

import threading
from operator import is_not
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.sources.directory import SeriesDirectory
from redline.sources.series import METRIC_LABEL, parse_series

MAX_LABEL_COLUMNS = 24  # those of the labels that came first; a column takes 4 bytes a series
WITHOUT = -1  # the code of a series that lacks a label


class LabelColumn(NamedTuple):
    """The values of one label."""

    codes: Array  # (numbers,) int32: the place of the value of each series, or WITHOUT
    values: list[str]


class LabelColumns:
    """The columns of the labels of a directory; for any thread. Each text is read once."""

    def __init__(self, directory: SeriesDirectory) -> None:
        self.directory = directory
        self.lock = threading.Lock()
        self.texts: list[str | None] = []  # as the directory had them
        self.columns: dict[str, LabelColumn] = {}
        self.places: dict[str, dict[str, int]] = {}  # by label: value -> code

    def refresh(self) -> dict[str, LabelColumn]:
        """Take over the names that are new; return the columns by label."""
        with self.lock:
            texts = list(self.directory.texts)
            known = self.texts
            if len(texts) != len(known) or any(map(is_not, texts, known)):
                self._grow(len(texts))
                for number, text in enumerate(texts):
                    if number >= len(known) or text is not known[number]:
                        self._enter(number, text)
                self.texts = texts
            return dict(self.columns)

    def _grow(self, size: int) -> None:
        """Make room for so many numbers."""
        for label, column in self.columns.items():
            more = size - len(column.codes)
            if more > 0:
                codes = np.concatenate((column.codes, np.full(more, WITHOUT, np.int32)))
                self.columns[label] = column._replace(codes=codes)

    def _enter(self, number: int, text: str | None) -> None:
        """Enter the labels of a number; None = it has none any more."""
        for each in self.columns.values():
            each.codes[number] = WITHOUT
        if text is None:
            return
        name, labels = parse_series(text)
        for label, value in ((METRIC_LABEL, name), *labels):
            column = self.columns.get(label) or self._new_column(label)
            if column is not None:
                places = self.places[label]
                code = places.setdefault(value, len(places))
                if code == len(column.values):
                    column.values.append(value)
                column.codes[number] = code

    def _new_column(self, label: str) -> LabelColumn | None:
        """Return the column of a new label; None where there are enough of them."""
        if len(self.columns) >= MAX_LABEL_COLUMNS:
            return None
        size = max(len(self.directory.texts), *(len(c.codes) for c in self.columns.values()), 0, 1)
        column = LabelColumn(np.full(size, WITHOUT, np.int32), [])
        self.columns[label] = column
        self.places[label] = {}
        return column
