"""A table of plain values, as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io

from redline.reports.table import Table

NAN = float("nan")


def test_a_table_as_text_markdown_and_csv() -> None:
    small = Table(("name", "share"), [("a|b", 0.5), ("c", None), ("d", NAN)])
    assert small.text() == "name  share\na|b    0.50\nc         -\nd         -"
    assert (
        small.markdown() == "| name | share |\n|---|---:|\n| a\\|b | 0.50 |\n| c | - |\n| d | - |"
    )
    assert small.csv() == "name,share\na|b,0.5\nc,\nd,"
    assert Table(("name", "share"), []).text() == "name  share"


def test_no_cell_of_a_csv_is_a_formula_to_a_spreadsheet() -> None:
    texts = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "'=1", "-2.5", "it's", "load")
    rows = [(text, -2.5) for text in texts]
    cells = list(csv.reader(io.StringIO(Table(("=head", "-x"), rows).csv(), newline="")))
    assert cells[0] == ["'=head", "'-x"]
    assert [first for first, _ in cells[1:]] == [
        *("'=1+1", "'+1+1", "'-1+1", "'@SUM(A1)", "'\tx", "'\rx", "''=1", "-2.5", "it's", "load")
    ]
    assert {number for _, number in cells[1:]} == {"-2.5"}, "numbers stay as they are"
