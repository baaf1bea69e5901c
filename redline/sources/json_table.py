"""JSON in place of a CSV file: columns, a list of rows or a row a line, as the text of a table."""

import csv
import io
import json
from typing import Any

from redline.sources.csv_cells import MAX_COLUMN_NAME, MAX_COLUMNS, CsvError, visible_text

MAX_JSON_PARTS = 1_000_000  # objects and lists of a file: each takes 200 bytes of memory
MAX_JSON_CELLS = 5_000_000  # values of a file, and cells of its table
FORMS = 'columns such as {"load": [1, 2, 3]}, or rows such as [{"load": 1}, {"load": 2}]'


def table_of_json(text: bytes) -> bytes:
    """Return JSON columns or rows as the text of a CSV table; any other text as it is.

    Raises:
        CsvError: it is JSON, but no table.

    >>> table_of_json(b'{"a": [1, 2], "b": [3.5, null]}')
    b'a,b\\n1,3.5\\n2,\\n'
    >>> table_of_json(b'{"a": 1}\\n{"a": 2}')
    b'a\\n1\\n2\\n'
    """
    if text.lstrip()[:1] not in (b"{", b"[") or text.rstrip()[-1:] not in (b"}", b"]"):
        return text  # a CSV file may begin like JSON
    refuse_large_json(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = json_lines(text)
        if found is None:
            return text
    return write_table(table_columns(found))


def refuse_large_json(text: bytes) -> None:
    """Refuse a text that would take far more memory as objects than as a file."""
    parts = text.count(b"{") + text.count(b"[")
    if parts > MAX_JSON_PARTS:
        raise CsvError(
            f"this looks like JSON: wanted at most {MAX_JSON_PARTS:,} rows or columns, came "
            f"{parts:,}; a CSV file may hold more"
        )
    if text.count(b",") > MAX_JSON_CELLS:
        raise CsvError(
            f"this looks like JSON: wanted at most {MAX_JSON_CELLS:,} values; a CSV file may "
            "hold more"
        )


def column_name(name: str) -> str:
    """Return the name of a column as a refusal shows it."""
    return visible_text(name)[:MAX_COLUMN_NAME]


def row_names(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names in some rows, each once; CsvError = their table would be too large."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
        if len(names) > MAX_COLUMNS:
            raise CsvError(
                f"this is JSON: wanted at most {MAX_COLUMNS:,} columns, came rows with more names"
            )
    if len(names) * len(rows) > MAX_JSON_CELLS:
        raise CsvError(
            f"this is JSON: wanted a table of at most {MAX_JSON_CELLS:,} values, came "
            f"{len(rows):,} rows of {len(names):,} columns"
        )
    return list(names)


def json_lines(text: bytes) -> list[Any] | None:
    """Return the values of a text of one JSON value a line; None where it is none."""
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None


def table_columns(found: Any) -> dict[str, list[Any]]:
    """Return the columns of a JSON value; CsvError says what is wrong with it."""
    if isinstance(found, dict):
        columns = found
        if not all(isinstance(column, list) for column in found.values()):
            columns = {name: [value] for name, value in found.items()}  # one row
    elif found and all(isinstance(row, dict) for row in found):
        columns = {name: [row.get(name) for row in found] for name in row_names(found)}
    else:
        raise CsvError(f"this is JSON: wanted {FORMS}, came a list of something else")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        came = ", ".join(
            f"{column_name(name)}: {length:,}" for name, length in list(lengths.items())[:8]
        )
        raise CsvError(f"this is JSON: wanted columns of one length, came {came} values")
    for name, column in columns.items():
        if any(isinstance(value, dict | list) for value in column):
            raise CsvError(
                f"this is JSON: wanted {FORMS}, came lists or objects within {column_name(name)!r}"
            )
    if not any(lengths.values()):
        raise CsvError(f"this is JSON: wanted {FORMS}, came no row")
    return columns


def write_table(columns: dict[str, list[Any]]) -> bytes:
    """Return columns of equal length as a CSV text; null is an empty cell."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        rows.writerow(["" if value is None else value for value in row])
    return text.getvalue().encode("utf-8", "replace")
