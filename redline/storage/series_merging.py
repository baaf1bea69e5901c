"""Merging of segments: the points of several commits become parts of one series after the other.

A segment is what one commit has written, or several that were merged. Those of one level are merged
into one of the next level, in short transactions: the new segment is built unseen, then takes the
place of its sources in a single transaction, and only then their parts are deleted. What a process
that was killed leaves behind is unseen too, and deleted in the same way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from redline.detection.arrays import Array
from redline.engine.fleet.stored import SeriesSteps
from redline.storage.checksums import rewrite_rows
from redline.storage.errors import StoreDamaged, StoreError
from redline.storage.retention import Retention
from redline.storage.schema import parts_table, segments_table
from redline.storage.series_codec import encode_packed
from redline.storage.series_reading import keep_known, known_series, load_part
from redline.storage.series_segments import (
    Segment,
    load_segments,
    oldest_states,
    rewrite_segments,
)
from redline.storage.series_writing import (
    insert_parts,
    insert_segment,
    part_row,
    sort_steps,
)

MERGED_SEGMENTS = 8  # of one level that are merged
MOST_MERGED = 32  # when merging has fallen behind
PACKED_PART = 8_192  # points of a merged part
LARGEST_SEGMENT = 32_000_000  # points
SEGMENT_SHARE = 8  # a segment holds at most this part of what the retention keeps, as it goes whole
FREE_LEVELS = 2  # up to which segments are merged whatever a restart reads
FINAL_LEVEL = 100  # of segments that are as large as they may be
WRITTEN_PARTS = 12  # merged parts that one transaction writes
DELETED_PARTS = 10  # parts that one transaction deletes
MERGE_REST = 1.0  # pause after a turn, in multiples of the time it took
MERGE_RETRY_SECONDS = 60.0  # until merging is tried again after an error
_log = logging.getLogger("redline")
Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class SegmentLimits(NamedTuple):
    """How large a merged segment may be."""

    points: int
    seconds: float  # between its first commit and its last

    @classmethod
    def from_retention(cls, keep: Retention) -> SegmentLimits:
        """Return limits small enough for the retention to delete whole segments."""
        points = max(MERGED_SEGMENTS * PACKED_PART, keep.rows // SEGMENT_SHARE)
        return cls(min(LARGEST_SEGMENT, points), 86_400 * keep.days / SEGMENT_SHARE)

    def fit(self, segments: Sequence[Segment]) -> int:
        """Return how many of the first segments may be merged into one, at least 1."""
        points = np.cumsum([segment.n for segment in segments])
        seconds = np.array([segment.arrived for segment in segments]) - segments[0].began
        return max(1, int(((points <= self.points) & (seconds <= self.seconds)).sum()))


class Merge(NamedTuple):
    """A merge under way."""

    target: int  # id of the new segment
    sources: Sequence[Segment]
    parts: Iterator[SeriesSteps]  # those of the new segment that are not written yet
    written: list[Mapping[str, Any]]  # the rows of those that are, without their points


class SeriesMerger:
    """Merges segments in turns of one short transaction each, in a thread of its own."""

    def __init__(self, keep: Retention, reading: Transaction, writing: Transaction) -> None:
        """Make a merger.

        Args:
            keep: what the retention leaves.
            reading: opens a transaction that reads.
            writing: opens a transaction of the store's writer.
        """
        self.limits = SegmentLimits.from_retention(keep)
        self.reading = reading
        self.writing = writing
        self.merge: Merge | None = None  # under way
        self.behind = False  # whether more segments wait than a merge takes
        self.thread: threading.Thread | None = None
        self.woken = threading.Event()
        self.ended = threading.Event()

    def wake(self) -> None:
        """Look for work in the thread, which is started when it is first needed."""
        if self.thread is None and not self.ended.is_set():
            self.thread = threading.Thread(target=self._run, name="merging", daemon=True)
            self.thread.start()
        self.woken.set()

    def end(self) -> None:
        """End the thread after the turn under way; the next start begins that merge again."""
        self.ended.set()
        self.woken.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        while True:
            self.woken.wait()
            self.woken.clear()
            try:
                self._work()
            except StoreError as error:
                self.merge = None
                if not self.ended.is_set():
                    _log.warning("points of fleets are not merged: %s", error)
                if isinstance(error, StoreDamaged):
                    return
                self.ended.wait(MERGE_RETRY_SECONDS)
                self.woken.set()
            if self.ended.is_set():
                return

    def _work(self) -> None:
        """Take turns until there is nothing to do; rest between them unless it is behind."""
        more = True
        while more and not self.ended.is_set():
            began = time.monotonic()
            more = self.run_turn()
            self.ended.wait(0.0 if self.behind else MERGE_REST * (time.monotonic() - began))

    def run_turn(self) -> bool:
        """Do what one short transaction can do; return whether there may be more."""
        if self.merge is not None:
            self._go_on(self.merge)
            return True
        with self.reading() as c:
            segments = load_segments(c)
            restart = oldest_states(c)
        leftovers = [segment.id for segment in segments if not segment.visible]
        if leftovers:
            self._delete_some_parts(leftovers)
            return True
        chosen = choose_segments(segments, self.limits, restart)
        self.behind = len(chosen) > MERGED_SEGMENTS
        if chosen:
            self._begin(chosen)
        return bool(chosen)

    def _begin(self, sources: Sequence[Segment]) -> None:
        """Begin a merge; a segment that is alone is as large as it may be."""
        if len(sources) == 1:
            with self.writing() as c:
                rewrite_segments(c, sources, {"level": FINAL_LEVEL})
            return
        with self.reading() as c:
            known = known_series(c)
            ids = [part_ids(c, source.id) for source in sources]
        row = {
            "level": sources[0].level + 1,
            "visible": False,
            "n": 0,
            "oldest": np.inf,
            "newest": -np.inf,
            "commit": sources[-1].commit,
            "began": sources[0].began,
            "arrived": sources[-1].arrived,
        }
        with self.writing() as c:
            target = insert_segment(c, row)
        streams = [map(self._load, each) for each in ids]
        self.merge = Merge(target, sources, cut_parts(merge_sorted(streams), known), [])

    def _load(self, id: int) -> SeriesSteps:
        with self.reading() as c:
            return load_part(c, id)

    def _go_on(self, merge: Merge) -> None:
        """Write the next parts of a merge; with the last ones it takes its sources' place."""
        parts = islice(merge.parts, WRITTEN_PARTS)
        rows = [part_row(merge.target, part, encode_packed(part)) for part in parts]
        with self.writing() as c:
            insert_parts(c, rows)
            if len(rows) < WRITTEN_PARTS:
                replace_sources(c, merge, rows)
                self.merge = None
        merge.written.extend({**row, "rows": b""} for row in rows)

    def _delete_some_parts(self, segments: Sequence[int]) -> None:
        """Delete some parts of segments that are not visible, and with the last ones their rows."""
        own = parts_table.c.segment.in_(segments)
        with self.writing() as c:
            some = sa.select(parts_table.c.id).where(own).limit(DELETED_PARTS)
            gone = c.execute(parts_table.delete().where(parts_table.c.id.in_(some))).rowcount
            if gone < DELETED_PARTS:
                c.execute(segments_table.delete().where(segments_table.c.id.in_(segments)))


# --- what to merge


def part_ids(c: sa.Connection, segment: int) -> Sequence[int]:
    """Return the ids of the parts of a segment, in the order of their points."""
    own = parts_table.c.segment == segment
    query = sa.select(parts_table.c.id).where(own).order_by(parts_table.c.id)
    return c.execute(query).scalars().all()


def choose_segments(
    segments: Sequence[Segment], limits: SegmentLimits, restart: float
) -> Sequence[Segment]:
    """Return the segments to be merged next, () = none.

    Those of a level are taken from the oldest on, so a segment holds all commits between two.

    Args:
        segments: in the order of their commits.
        limits: how large the merged one may be; where two would be too large, one is returned.
        restart: the commit that a restart reads from. Larger segments hold no commits from before
            and after it, so that a restart reads little more than it needs.
    """
    for level in sorted({segment.level for segment in segments} - {FINAL_LEVEL}):
        own = [
            segment
            for segment in segments
            if segment.level == level and (level < FREE_LEVELS or segment.commit <= restart)
        ]
        if len(own) >= MERGED_SEGMENTS:
            most = MOST_MERGED if len(own) >= 2 * MERGED_SEGMENTS else MERGED_SEGMENTS
            own = own[:most]
            return own[: limits.fit(own)]
    return ()


def replace_sources(c: sa.Connection, merge: Merge, last: Sequence[Mapping[str, Any]]) -> None:
    """Let a merged segment take the place of its sources, once all its parts are written.

    Where the retention has dropped one of them meanwhile, nothing is changed: the merged segment
    stays unseen, and is deleted.
    """
    ids = [source.id for source in merge.sources]
    t = segments_table.c
    there = c.execute(sa.select(sa.func.count()).where(t.id.in_(ids) & t.visible)).scalar()
    if there != len(ids):
        return
    rows = [*merge.written, *last]
    values = {
        "visible": True,
        "n": sum(row["n"] for row in rows),
        "oldest": min((row["oldest"] for row in rows), default=np.inf),
        "newest": max((row["newest"] for row in rows), default=-np.inf),
    }
    rewrite_rows(c, segments_table, t.id == merge.target, lambda row: values)
    rewrite_segments(c, merge.sources, {"visible": False})


# --- the points


def merge_sorted(sources: Sequence[Iterator[SeriesSteps]]) -> Iterator[SeriesSteps]:
    """Yield the steps of several sources, sorted by series, then time, equal ones in their order.

    Each source yields its own in that order; one piece of each is held.
    """
    held = [next(source, None) for source in sources]
    while any(steps is not None for steps in held):
        edge = min(
            (int(steps.series[-1]), float(steps.time[-1])) for steps in held if steps is not None
        )
        emitted = []
        for place, steps in enumerate(held):
            if steps is None:
                continue
            end = _count_up_to(steps, edge)
            if end:
                emitted.append(steps.pick(slice(end)))
            held[place] = (
                steps.pick(slice(end, None))
                if end < len(steps.series)
                else next(sources[place], None)
            )
        yield sort_steps(SeriesSteps.join(emitted))


def _count_up_to(steps: SeriesSteps, edge: tuple[int, float]) -> int:
    """Return how many of sorted steps are not behind a series and time."""
    first, last = np.searchsorted(steps.series, [edge[0], edge[0] + 1])
    return int(first + np.searchsorted(steps.time[first:last], edge[1], side="right"))


def cut_parts(pieces: Iterable[SeriesSteps], known: Array) -> Iterator[SeriesSteps]:
    """Yield sorted pieces as parts of PACKED_PART points, without series that are not known."""
    held: list[SeriesSteps] = []
    size = 0
    for piece in pieces:
        kept = keep_known(piece, known)
        held.append(kept)
        size += len(kept.series)
        if size >= PACKED_PART:
            steps = SeriesSteps.join(held)
            whole = size - size % PACKED_PART
            for at in range(0, whole, PACKED_PART):
                yield steps.pick(slice(at, at + PACKED_PART))
            held = [steps.pick(slice(whole, None))]
            size -= whole
    if size:
        yield SeriesSteps.join(held)
