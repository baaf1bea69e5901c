"""Write the generated tables into the documents that quote them, between their markers: `python
docs/tables.py`.
"""

import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from redline.api.server import routes_table
from redline.cli.listings import detectors_table, domains_table
from redline.reports.table import Table
from redline.storage.schema import tables


def schema_table() -> Table:
    """Return every table of the store with its columns."""
    rows = [
        (
            f"`{table.name}`",
            ", ".join(f"`{column.name}` {column.type!s}".lower() for column in table.columns),
        )
        for table in tables.sorted_tables
    ]
    return Table(("table", "columns"), sorted(rows))


def measured_domains_table() -> Table:
    """Return the table of domains with the figures that `bench.presets --write` measured."""
    with (ROOT / "docs/presets.csv").open(encoding="utf-8", newline="") as file:
        measured = {row["domain"]: row for row in csv.DictReader(file)}
    table = domains_table()
    rows = []
    for row in table.rows:
        figures = measured[str(row[0])]
        found = f"{float(figures['precision']):.2f}, {float(figures['recall']):.2f}"
        rows.append((*row, found))
    return Table((*table.heads, "precision, recall"), rows)


TABLES = {
    "domains": measured_domains_table,
    "detectors": detectors_table,
    "routes": routes_table,
    "schema": schema_table,
}
DOCUMENTS = ("README.md", "docs/api.md", "docs/store.md")


def filled(text: str) -> str:
    """Return a document with every table between `<!-- name -->` and `<!-- end -->` regenerated."""
    for name, table in TABLES.items():
        made = f"<!-- {name} -->\n{table().markdown().strip()}\n<!-- end -->"
        text = re.sub(
            rf"<!-- {name} -->.*?<!-- end -->", lambda _, made=made: made, text, flags=re.S
        )
    return text


if __name__ == "__main__":
    for document in (ROOT / name for name in DOCUMENTS):
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
