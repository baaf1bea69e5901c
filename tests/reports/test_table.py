"""A table of plain values, as text, Markdown and CSV."""

from __future__ import annotations

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
