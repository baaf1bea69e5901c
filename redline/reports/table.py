"""A table of plain values, as aligned text, Markdown or CSV.

>>> print(Table(("detector", "F1"), [("EWMA", 0.5), ("CUSUM", float("nan"))]).text())
detector    F1
EWMA      0.50
CUSUM        -
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """Named columns and rows of text, numbers and None; what does not exist, None or NaN, is drawn
    as a dash.
    """

    heads: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def text(self) -> str:
        """Columns padded with spaces, those of numbers to the right."""
        cells = [self.heads, *(tuple(map(format_cell, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        right = [self._numeric(i) for i in range(len(self.heads))]
        lines = [
            "  ".join(
                cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right)
            ).rstrip()
            for row in cells
        ]
        return "\n".join(lines)

    def markdown(self) -> str:
        """A GitHub table; bars inside a cell are escaped."""
        rule = (
            "|"
            + "|".join("---:" if self._numeric(i) else "---" for i in range(len(self.heads)))
            + "|"
        )
        lines = [
            "| " + " | ".join(format_cell(cell).replace("|", "\\|") for cell in row) + " |"
            for row in (self.heads, *self.rows)
        ]
        return "\n".join([lines[0], rule, *lines[1:]])

    def csv(self) -> str:
        """One line a row, numbers in full, nothing where a value does not exist."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.heads)
        writer.writerows([["" if is_absent(cell) else cell for cell in row] for row in self.rows])
        return file.getvalue().rstrip("\n")

    def _numeric(self, column: int) -> bool:
        kinds = [row[column] for row in self.rows if row[column] is not None]
        return bool(kinds) and all(isinstance(cell, int | float) for cell in kinds)


def is_absent(value: Any) -> bool:
    """None and NaN: a figure that does not exist."""
    return value is None or value != value


def format_cell(value: Any) -> str:
    """A cell for a person: whole numbers with separators, fractions with two or three digits, a
    dash for what does not exist.

    >>> [format_cell(v) for v in (12_000, 0.256, 0.998, 1234.6, 0.0031, None, True, "EWMA")]
    ['12,000', '0.26', '0.998', '1,235', '0.003', '-', 'yes', 'EWMA']
    """
    if is_absent(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        size = abs(value)
        if 0.995 <= size < 1:  # nearly all is not all
            return f"{value:.3f}"
        return (
            f"{value:,.0f}"
            if size >= 100
            else f"{value:.1f}"
            if size >= 10
            else f"{value:.2f}"
            if size >= 0.01 or not size
            else f"{value:.1g}"
        )
    return str(value)
