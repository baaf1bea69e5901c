"""A table of plain values, as aligned text, Markdown or CSV.

>>> print(Table(("detector", "F1"), [("EWMA", 0.5), ("CUSUM", float("nan"))]).text())
detector    F1
EWMA      0.50
CUSUM        -
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redline.sources.csv_cells import csv_quote

Cell = str | float | None  # of a table; int and bool are floats to a type checker


class Table(NamedTuple):
    """Named columns and rows of cells; an undefined cell (None or NaN) is written as a dash."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def text(self) -> str:
        """Return columns padded with spaces, numbers aligned to the right."""
        cells = [self.heads, *(tuple(map(format_cell, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        aligns = [str.rjust if self._is_numeric(i) else str.ljust for i in range(len(self.heads))]
        return "\n".join(
            "  ".join(align(c, w) for c, w, align in zip(row, widths, aligns)).rstrip()
            for row in cells
        )

    def markdown(self) -> str:
        """Return a GitHub table; bars inside a cell are escaped."""
        rules = ["---:" if self._is_numeric(i) else "---" for i in range(len(self.heads))]
        lines = [
            "| " + " | ".join(format_cell(cell).replace("|", "\\|") for cell in row) + " |"
            for row in (self.heads, *self.rows)
        ]
        return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])

    def csv(self) -> str:
        """Return one line a row, numbers with all digits, an undefined cell empty.

        A spreadsheet calculates none of its texts.
        """
        rows = (self.heads, *self.rows)
        return "\n".join(",".join(map(_csv_cell, row)) for row in rows).rstrip("\n")

    def _is_numeric(self, column: int) -> bool:
        known = [row[column] for row in self.rows if row[column] is not None]
        return bool(known) and all(isinstance(cell, int | float) for cell in known)


def _csv_cell(cell: Cell) -> str:
    if is_absent(cell):
        return ""
    return csv_quote(cell) if isinstance(cell, str) else str(cell)


def is_absent(value: Cell) -> bool:
    """Return whether a value is undefined: None or NaN."""
    return value is None or value != value


def format_cell(value: Cell) -> str:
    """Format a cell: integers with separators, fractions with two or three digits, else a dash.

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
        return _format_fraction(value)
    return str(value)


def _format_fraction(value: float) -> str:
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if 0.995 <= size < 1:
        return f"{value:.3f}"  # two digits would round it up to 1.00
    if size >= 0.01 or not size:
        return f"{value:.2f}"
    return f"{value:.1g}"
