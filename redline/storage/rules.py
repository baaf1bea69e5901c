"""The stored rules of settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from redline.storage.checksums import seal_row, verify_row, write_meta
from redline.storage.schema import meta_table, rules_table

HIGHEST_RULE_ID = "newest settings rule"  # in the table meta: the highest id ever used


def write_rule(c: sa.Connection, rule: Mapping[str, Any], replaced: Iterable[int] = ()) -> None:
    """Insert a rule under its own id, or replace it, and delete those that it replaces."""
    for id in (*replaced, rule["id"]):
        delete_rule(c, id)
    row = {"id": rule["id"], "at": rule["at"], "body": json.dumps(dict(rule))}
    c.execute(rules_table.insert().values(seal_row(rules_table, row)))
    if rule["id"] > highest_rule(c):
        write_meta(c, HIGHEST_RULE_ID, str(rule["id"]))


def delete_rule(c: sa.Connection, id: int) -> None:
    """Delete the rule with this id, which is not given again."""
    c.execute(rules_table.delete().where(rules_table.c.id == id))


def highest_rule(c: sa.Connection) -> int:
    """Return the highest id that a rule ever had; 0 = there was none."""
    known = sa.select(meta_table.c.value).where(meta_table.c.name == HIGHEST_RULE_ID)
    return int(c.execute(known).scalar() or 0)


def read_rules(c: sa.Connection) -> tuple[list[dict[str, Any]], int]:
    """Return all rules in the order of their ids, and the highest id ever used."""
    query = sa.select(rules_table).order_by(rules_table.c.id)
    rows = [verify_row(rules_table, row) for row in c.execute(query).mappings()]
    return [json.loads(row["body"]) for row in rows], highest_rule(c)
