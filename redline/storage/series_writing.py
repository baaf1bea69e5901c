"""Writing of what fleets add: new points as a segment of their own, series and states."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa

from redline.engine.fleet.stored import ColumnStates, FleetCommit, SeriesRecord, SeriesSteps
from redline.storage.checksums import seal_row, write_meta
from redline.storage.dialects import insert_many, upsert
from redline.storage.encoding import pack_state, settings_json
from redline.storage.reading import HIGHEST_ANOMALY_ID, last_anomaly_id
from redline.storage.schema import (
    anomalies_table,
    fleet_states_table,
    meta_table,
    parts_table,
    segments_table,
    series_table,
)
from redline.storage.series_codec import encode_plain

NEWEST_COMMIT = "newest fleet commit"  # in the table meta, when its segment was removed
HIGHEST_SERIES = "newest series"  # in the table meta: the highest number when one was removed
PLAIN_PART = 16_384  # points of a part that a commit writes
QUERY_KEYS = 500  # keys that one statement names


class SeriesWriter:
    """Writes commits of fleets within a transaction of the caller; counts them."""

    def __init__(self) -> None:
        self.commit = 0  # number of the newest commit

    def load_commit(self, c: sa.Connection) -> None:
        """Read the number of the newest commit."""
        known = sa.select(meta_table.c.value).where(meta_table.c.name == NEWEST_COMMIT)
        commits = (segments_table.c.commit, fleet_states_table.c.commit)
        queries = (known, *(sa.select(sa.func.max(commit)) for commit in commits))
        self.commit = max(int(c.execute(query).scalar() or 0) for query in queries)

    @contextmanager
    def undo_on_error(self) -> Iterator[None]:
        """Forget what was counted within the block when it fails, as the database does."""
        commit = self.commit
        try:
            yield
        except BaseException:
            self.commit = commit
            raise

    def write_fleets(self, c: sa.Connection, fleets: Sequence[FleetCommit]) -> None:
        """Write points, series and states, in the order given.

        Fleets share a commit number up to the next states, so that states hold all steps up to
        their number, and no later ones.
        """
        steps: list[SeriesSteps] = []
        for fleet in fleets:
            delete_series(c, fleet.removed)
            write_records(c, fleet.records)
            delete_states(c, fleet.obsolete)
            if len(fleet.steps.series):
                steps.append(fleet.steps)
            if fleet.states:
                self._write_steps(c, steps)
                steps = []
                write_states(c, fleet.states, self.commit)
        self._write_steps(c, steps)

    def _write_steps(self, c: sa.Connection, new: Sequence[SeriesSteps]) -> None:
        """Write steps as a segment under the next commit number."""
        if not new:
            return
        self.commit += 1
        now = time.time()
        steps = sort_steps(SeriesSteps.join(new))
        segment = {
            "level": 0,
            "visible": True,
            "n": len(steps.series),
            "oldest": float(steps.time.min()),
            "newest": float(steps.time.max()),
            "commit": self.commit,
            "began": now,
            "arrived": now,
        }
        id = insert_segment(c, segment)
        parts = (
            steps.pick(slice(at, at + PLAIN_PART)) for at in range(0, len(steps.series), PLAIN_PART)
        )
        insert_parts(c, [part_row(id, part, encode_plain(part)) for part in parts])


def sort_steps(steps: SeriesSteps) -> SeriesSteps:
    """Return steps by series, then by time; equal ones stay in their order."""
    series = steps.series
    if (series[1:] < series[:-1]).any():
        steps = steps.pick(np.argsort(series, kind="stable"))  # fast where it is nearly sorted
    series = steps.series
    back = steps.time[1:] < steps.time[:-1]
    if (back & (series[1:] == series[:-1])).any():
        steps = steps.pick(np.lexsort((steps.time, series)))
    return steps


# --- rows


def insert_segment(c: sa.Connection, segment: dict[str, Any]) -> int:
    """Insert a row of a segment; return its id."""
    row = seal_row(segments_table, segment)
    id = c.execute(segments_table.insert().values(row)).inserted_primary_key
    assert id is not None
    return int(id[0])


def part_row(segment: int, steps: SeriesSteps, data: bytes) -> dict[str, Any]:
    """Return the row of a part with sorted steps (n,), n > 0."""
    row = {
        "segment": segment,
        "first_series": int(steps.series[0]),
        "last_series": int(steps.series[-1]),
        "n": len(steps.series),
        "oldest": float(steps.time.min()),
        "newest": float(steps.time.max()),
        "rows": data,
    }
    return seal_row(parts_table, row)


def insert_parts(c: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of parts, in the order of their points."""
    if rows:
        insert_many(c, parts_table, rows)


def write_records(c: sa.Connection, records: Sequence[SeriesRecord]) -> None:
    """Insert series, or change those that are there."""
    if not records:
        return
    rows = [record._asdict() | {"settings": settings_json(record.settings)} for record in records]
    upsert(c, series_table, [seal_row(series_table, row) for row in rows])


def highest_series(c: sa.Connection) -> int:
    """Return the highest number that a series ever had; 0 = there was none."""
    removed = sa.select(meta_table.c.value).where(meta_table.c.name == HIGHEST_SERIES)
    stored = sa.select(sa.func.max(series_table.c.number))
    return max(int(c.execute(query).scalar() or 0) for query in (removed, stored))


def delete_series(c: sa.Connection, numbers: Sequence[int]) -> None:
    """Delete series with their anomalies; their points are not read any more, and go when merged.

    The highest id of an anomaly is kept, since none may be given twice.
    """
    if not numbers:
        return
    write_meta(c, HIGHEST_SERIES, str(highest_series(c)))
    write_meta(c, HIGHEST_ANOMALY_ID, str(last_anomaly_id(c)))
    for at in range(0, len(numbers), QUERY_KEYS):
        some = [int(number) for number in numbers[at : at + QUERY_KEYS]]
        names = sa.select(series_table.c.name).where(series_table.c.number.in_(some))
        c.execute(anomalies_table.delete().where(anomalies_table.c.stream.in_(names)))
        c.execute(series_table.delete().where(series_table.c.number.in_(some)))


def write_states(c: sa.Connection, states: Sequence[ColumnStates], commit: int) -> None:
    """Write states under the number of a commit; they replace those of the same keys."""
    delete_states(c, [each.key for each in states])
    rows = [
        {
            "key": each.key,
            "commit": commit,
            "settings": settings_json(each.settings),
            "series": each.series.astype("<i8").tobytes(),
            "arrays": pack_state(each.arrays),
        }
        for each in states
    ]
    c.execute(fleet_states_table.insert(), [seal_row(fleet_states_table, row) for row in rows])


def delete_states(c: sa.Connection, keys: Sequence[str]) -> None:
    """Delete states by their keys; unknown ones are no error."""
    for at in range(0, len(keys), QUERY_KEYS):
        some = keys[at : at + QUERY_KEYS]
        c.execute(fleet_states_table.delete().where(fleet_states_table.c.key.in_(some)))
