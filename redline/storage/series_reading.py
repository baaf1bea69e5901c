"""Queries of what is stored of fleets: series, states and points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

from redline.detection.arrays import Array
from redline.engine.fleet.stored import ColumnStates, SeriesRecord, SeriesSteps, StoredStates
from redline.storage.checksums import verify_row
from redline.storage.encoding import settings_from_json, unpack_state
from redline.storage.errors import StoreDamaged
from redline.storage.schema import fleet_states_table, parts_table, segments_table, series_table
from redline.storage.series_codec import decode_keys, decode_part, run_starts
from redline.storage.series_writing import QUERY_KEYS

_cached_settings = lru_cache(maxsize=1_000)(settings_from_json)
_T = TypeVar("_T")


def load_series_records(c: sa.Connection) -> list[SeriesRecord]:
    """Return all series, by their numbers."""
    query = sa.select(series_table).order_by(series_table.c.number)
    rows = (verify_row(series_table, row) for row in c.execute(query).mappings())
    return [SeriesRecord(**{**row, "settings": _cached_settings(row["settings"])}) for row in rows]


def load_column_states(c: sa.Connection) -> Iterator[StoredStates]:
    """Yield all stored states, the oldest commit first."""
    t = fleet_states_table.c
    for key in c.execute(sa.select(t.key).order_by(t.commit, t.key)).scalars().all():
        found = c.execute(sa.select(fleet_states_table).where(t.key == key)).mappings().one()
        row = verify_row(fleet_states_table, found)
        states = ColumnStates(
            key=key,
            settings=_cached_settings(row["settings"]),
            series=np.frombuffer(row["series"], "<i8"),
            arrays=_decoded(unpack_state, row["arrays"]),
        )
        yield StoredStates(row["commit"], states)


def known_series(c: sa.Connection) -> Array:
    """Return the numbers of all series, in order."""
    query = sa.select(series_table.c.number).order_by(series_table.c.number)
    return np.array(c.execute(query).scalars().all(), np.int64)


def mark_known(numbers: Array, known: Array) -> Array:
    """Return (n,) bool: whether numbers (n,) are among the sorted `known`."""
    if not len(known):
        return np.zeros(len(numbers), bool)
    places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    return np.asarray(known[places] == numbers)


def keep_known(steps: SeriesSteps, known: Array) -> SeriesSteps:
    """Return those of steps sorted by series whose series is among the sorted `known`."""
    if not len(steps.series):
        return steps
    starts = run_starts(steps.series)
    there = mark_known(steps.series[starts], known)
    if there.all():
        return steps
    return steps.pick(np.repeat(there, np.diff(starts, append=len(steps.series))))


def read_steps_after(c: sa.Connection, commit: int) -> Iterator[SeriesSteps]:
    """Yield the steps of the segments that hold commits after one, part by part."""
    known = known_series(c)
    t = segments_table.c
    later = sa.select(t.id).where(t.visible & (t.commit > commit)).order_by(t.commit)
    for segment in c.execute(later).scalars().all():
        own = parts_table.c.segment == segment
        ids = sa.select(parts_table.c.id).where(own).order_by(parts_table.c.id)
        for id in c.execute(ids).scalars().all():
            yield keep_known(load_part(c, id), known)


def newest_parts(c: sa.Connection, since: float) -> list[int]:
    """Return the parts with points since a time, those with the newest ones first."""
    span = (since, np.inf)
    numbers = (0, np.iinfo(np.int64).max)
    return [part.id for part in _parts_of(c, numbers, span, newest_first=True)]


def load_part_if_there(c: sa.Connection, id: int) -> SeriesSteps | None:
    """Return the steps of a part; None = it was merged into another one meanwhile."""
    there = c.execute(sa.select(parts_table.c.id).where(parts_table.c.id == id)).first()
    return load_part(c, id) if there else None


def load_part(c: sa.Connection, id: int) -> SeriesSteps:
    """Return the steps of a part; StoreDamaged = they are not what was written."""
    return _decoded(decode_part, _part_data(c, id))


def _part_data(c: sa.Connection, id: int) -> bytes:
    found = c.execute(sa.select(parts_table).where(parts_table.c.id == id)).mappings().one()
    data: bytes = verify_row(parts_table, found)["rows"]
    return data


def _decoded(decode: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return decode(data)
    except ValueError as error:
        raise StoreDamaged(
            f"the store is damaged: {error}; restore a backup with "
            "`python -m redline restore BACKUP`"
        ) from error


def read_series_steps(
    c: sa.Connection, number: int, since: float | None, until: float | None, limit: int
) -> SeriesSteps:
    """Return steps and late points of one series between two times, by time, oldest first.

    At most `limit`: the first ones from `since` on, or without it the last ones.
    """
    there = sa.select(series_table.c.number).where(series_table.c.number == number)
    if limit < 1 or c.execute(there).first() is None:
        return SeriesSteps.empty()
    start = -np.inf if since is None else since
    end = np.inf if until is None else until
    found: list[tuple[int, int, SeriesSteps]] = []  # commit and id of a part, what it holds
    for part in _parts_of(c, (number, number), (start, end), newest_first=since is None):
        edge = part.oldest if since is not None else part.newest
        if _are_enough(found, limit, edge, newest_first=since is None):
            break
        found.append((part.commit, part.id, _own_steps(load_part(c, part.id), number, start, end)))
    if not found:
        return SeriesSteps.empty()
    steps = SeriesSteps.join([own for _, _, own in sorted(found, key=lambda each: each[:2])])
    steps = steps.pick(np.argsort(steps.time, kind="stable"))
    return steps.pick(slice(-limit, None) if since is None else slice(limit))


def _parts_of(
    c: sa.Connection, numbers: tuple[int, int], span: tuple[float, float], newest_first: bool
) -> Sequence[Any]:
    """Return (id, commit, first_series, last_series, oldest, newest) of parts, without their rows.

    Args:
        c: a connection that reads.
        numbers: the lowest and the highest series of which one may be in a part.
        span: the seconds since the epoch that its points may overlap, both ends included.
        newest_first: whether to order them by their newest point, backwards, or by their oldest.
    """
    p = parts_table.c
    s = segments_table.c
    order = p.newest.desc() if newest_first else p.oldest
    query = (
        sa.select(p.id, s.commit, p.first_series, p.last_series, p.oldest, p.newest)
        .join_from(segments_table, parts_table, p.segment == s.id)
        .where(s.visible & (s.oldest <= span[1]) & (s.newest >= span[0]))
        .where((p.last_series >= numbers[0]) & (p.first_series <= numbers[1]))
        .where((p.oldest <= span[1]) & (p.newest >= span[0]))
        .order_by(order)
    )
    return c.execute(query).all()


def _are_enough(
    found: Sequence[tuple[int, int, SeriesSteps]], limit: int, edge: float, newest_first: bool
) -> bool:
    """Return whether `limit` points lie before all that a part at `edge` can hold."""
    if sum(len(steps.time) for _, _, steps in found) < limit:
        return False
    before = (steps.time > edge if newest_first else steps.time < edge for _, _, steps in found)
    return sum(int(inside.sum()) for inside in before) >= limit


def _own_steps(steps: SeriesSteps, number: int, start: float, end: float) -> SeriesSteps:
    """Return what a part holds of one series between two times."""
    first, last = np.searchsorted(steps.series, [number, number + 1])
    own = steps.pick(slice(first, last))
    return own.pick((own.time >= start) & (own.time <= end))


def match_series_times(c: sa.Connection, numbers: Array, times: Array) -> Array:
    """Return (n,) bool: whether each series (n,) has a point at exactly this time (n,).

    Only the parts that can hold one of them are read, each once.
    """
    found = np.zeros(len(numbers), bool)
    wanted = np.flatnonzero(_mark_present(c, numbers))
    if not len(wanted):
        return found
    wanted = wanted[np.argsort(numbers[wanted], kind="stable")]
    series = numbers[wanted]
    time = times[wanted]
    ends = (int(series[0]), int(series[-1]))
    span = (float(time.min()), float(time.max()))
    for part in _parts_of(c, ends, span, newest_first=True):
        first = np.searchsorted(series, part.first_series)
        last = np.searchsorted(series, part.last_series, side="right")
        inside = (time[first:last] >= part.oldest) & (time[first:last] <= part.newest)
        open_ones = first + np.flatnonzero(inside & ~found[wanted[first:last]])
        if len(open_ones):
            keys = _decoded(decode_keys, _part_data(c, part.id))
            found[wanted[open_ones]] = _mark_pairs(series[open_ones], time[open_ones], keys)
    return found


def _mark_present(c: sa.Connection, numbers: Array) -> Array:
    """Return (n,) bool: whether there are series with these numbers (n,)."""
    distinct = np.unique(numbers).tolist()
    number = series_table.c.number
    known: list[int] = []
    for at in range(0, len(distinct), QUERY_KEYS):
        query = sa.select(number).where(number.in_(distinct[at : at + QUERY_KEYS]))
        known += c.execute(query).scalars().all()
    return mark_known(numbers, np.sort(np.array(known, np.int64)))


def _mark_pairs(series: Array, time: Array, keys: tuple[Array, Array]) -> Array:
    """Return (n,) bool: whether pairs of series and time are among those of a part."""
    rows = np.isin(keys[0], series) & np.isin(keys[1], time)
    pairs = set(zip(keys[0][rows].tolist(), keys[1][rows].tolist()))
    return np.array([pair in pairs for pair in zip(series.tolist(), time.tolist())], bool)
