"""The rows of segments, in which the points of fleets are stored: a commit each, or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from redline.storage.checksums import rewrite_rows, verify_row, write_meta
from redline.storage.schema import fleet_states_table, points_table, segments_table
from redline.storage.series_writing import NEWEST_COMMIT


class Segment(NamedTuple):
    """A stored segment, without its parts."""

    id: int
    level: int
    visible: bool
    n: int  # points
    oldest: float  # seconds since the epoch, of its points
    newest: float
    commit: int  # the newest in it
    began: float  # wall seconds of its oldest commit
    arrived: float  # wall seconds of its newest


def load_segments(c: sa.Connection) -> list[Segment]:
    """Return all segments, also those that are not visible, in the order of their commits."""
    query = sa.select(segments_table).order_by(segments_table.c.commit, segments_table.c.id)
    rows = c.execute(query).mappings().all()
    return [Segment(**verify_row(segments_table, row)) for row in rows]


def oldest_states(c: sa.Connection) -> float:
    """Return the commit that a restart reads from; infinite = there are no states."""
    oldest = c.execute(sa.select(sa.func.min(fleet_states_table.c.commit))).scalar()
    return np.inf if oldest is None else float(oldest)


def rewrite_segments(
    c: sa.Connection, segments: Iterable[Segment], values: Mapping[str, Any]
) -> None:
    """Change columns of segments."""
    ids = [segment.id for segment in segments]
    rewrite_rows(c, segments_table, segments_table.c.id.in_(ids), lambda row: values)


def sweep_segments(c: sa.Connection, oldest_kept: float, room: int) -> tuple[int, int]:
    """Drop whole segments that are too old or too many, from the oldest on.

    Those that a restart reads stay, and of those too many the ones that are newer than the oldest
    chunk of other points. The merging deletes what a dropped segment holds.

    Args:
        c: a connection that writes.
        oldest_kept: wall seconds of the oldest arrival that stays.
        room: points that may stay.

    Returns:
        The points left, and how many segments were dropped.
    """
    segments = [segment for segment in load_segments(c) if segment.visible]
    left = sum(segment.n for segment in segments)
    if not segments:
        return 0, 0
    restart = oldest_states(c)
    first = sa.select(points_table.c.arrived).order_by(points_table.c.id).limit(1)
    oldest_chunk = c.execute(first).scalar()
    dropped = []
    for segment in segments:
        next_ = oldest_chunk is None or segment.arrived <= oldest_chunk
        too_many = left > room and next_
        if segment.commit > restart or not (too_many or segment.arrived < oldest_kept):
            break
        dropped.append(segment)
        left -= segment.n
    if dropped:
        rewrite_segments(c, dropped, {"visible": False})
        write_meta(c, NEWEST_COMMIT, str(segments[-1].commit))
    return left, len(dropped)
