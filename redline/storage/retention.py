"""Retention: deleting what is stored and too old or too many."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import sqlalchemy as sa

from redline.settings import ServerSettings
from redline.storage.errors import StoreError
from redline.storage.record_retention import (
    FREQUENT_SWEEPS,
    RARE_SWEEPS,
    RecordLimits,
    RecordSweep,
)
from redline.storage.schema import anomalies_table, late_table, points_table, snapshots_table
from redline.storage.series_segments import sweep_segments
from redline.storage.writing import BatchWriter

SWEEP_CHUNKS = 500  # chunks, late points and anomalies that one transaction looks at
SWEEP_POINTS = 100_000  # points that it deletes at most, but for the rest of a chunk
SWEEP_EVERY = 60.0  # seconds between two passes
RARE_SWEEPS_EVERY = 3_600.0  # seconds between two passes that look for what gone streams left
SWEEP_BUDGET = 0.05  # seconds that one turn of a pass may take; a transaction is always finished
SWEEP_REST = 4.0  # pause between two turns of a pass, in multiples of the time the turn took
_log = logging.getLogger("redline")


class Retention(NamedTuple):
    """How much is kept."""

    days: float = 30.0  # of points and anomalies, counted from their arrival
    rows: int = 50_000_000  # points over all streams, about 35 bytes each
    # of audit lines and resolved incidents, and of what streams that are gone have left
    record_days: float = 365.0
    record_rows: int = 1_000_000  # of audit lines, resolved incidents and applied settings, each

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> Retention:
        """Return what a server keeps that is started with these settings."""
        return cls(
            settings.retention_days,
            settings.retention_rows,
            settings.record_days,
            settings.record_rows,
        )


class RetentionSweeper:
    """Deletes what exceeds the retention, in passes made of short turns between commits."""

    def __init__(
        self,
        keep: Retention,
        batch_writer: BatchWriter,
        transaction: Callable[[], AbstractContextManager[sa.Connection]],
        delete_dropped: Callable[[], None],
        release_room: Callable[[sa.Connection], None],
    ) -> None:
        """Make a sweeper.

        Args:
            keep: how much stays.
            batch_writer: holds the number of points stored.
            transaction: opens a transaction of the store's writer.
            delete_dropped: is called when segments were dropped, to have their points deleted.
            release_room: gives back what a transaction has freed, as its last statement.
        """
        self.release_room = release_room
        self.delete_dropped = delete_dropped
        self.keep = keep
        self.batch_writer = batch_writer
        self.transaction = transaction
        self.cursor: int | None = None  # id of the last chunk a pass has looked at; None = no pass
        self.record_sweeps: list[RecordSweep] = []  # those that a pass has not finished
        self.next_rare_sweeps = 0.0  # wall seconds
        self.unfinished = False  # whether the pass goes on
        self.next_turn = 0.0  # monotonic seconds before which an unfinished pass rests
        self.last_turn = (time.monotonic(), time.time())  # monotonic and wall seconds

    def run_if_due(self) -> None:
        """Run one turn: of a new pass once a minute, or of an unfinished pass after its rest.

        A turn ends with its budget, so that commits go on between turns. After a jump of the clock
        it is unknown what is too old, so the pass is put off.
        """
        now = time.monotonic()
        elapsed = now - self.last_turn[0]
        wall_elapsed = time.time() - self.last_turn[1]
        due = now >= self.next_turn if self.unfinished else elapsed >= SWEEP_EVERY
        if not due:
            return
        began = time.monotonic()
        self.last_turn = (began, time.time())
        if abs(wall_elapsed - elapsed) > SWEEP_EVERY:
            self.unfinished = False
            _log.warning(
                "the clock jumped by %.0f s; nothing is deleted by age until it is steady",
                wall_elapsed - elapsed,
            )
            return
        try:
            self.sweep(time.time())
            while self.unfinished and time.monotonic() - began < SWEEP_BUDGET:
                self.sweep(time.time())
        except StoreError as error:
            self.unfinished = False
            _log.warning("nothing old was deleted: %s", error)
        self.next_turn = time.monotonic() + SWEEP_REST * (time.monotonic() - began)

    def sweep(self, now: float) -> int:
        """Run one small transaction of a pass; return how many chunks it deleted.

        `now` is wall seconds. What a restart needs stays. Each call goes on where the last one
        ended; `unfinished` says whether there is more to look at.
        """
        oldest_kept = now - 86_400 * self.keep.days
        limits = RecordLimits(now - 86_400 * self.keep.record_days, self.keep.record_rows)
        sweeps = self.record_sweeps if self.unfinished else self._due_record_sweeps(now)
        with self.transaction() as c:
            total = self._count_points(c)
            of_fleets, dropped = sweep_segments(c, oldest_kept, self.keep.rows - total)
            total, cursor, deleted = self._sweep_points(
                c, oldest_kept, total, self.keep.rows - of_fleets
            )
            more_late = sweep_late_points(c, oldest_kept)
            more_anomalies = sweep_anomalies(c, oldest_kept)
            self.record_sweeps = [sweep for sweep in sweeps if sweep(c, limits)]
            self.release_room(c)
        if dropped:
            self.delete_dropped()
        self.batch_writer.total = total
        self.cursor = cursor
        more = more_late or more_anomalies or bool(self.record_sweeps)
        self.unfinished = more or cursor is not None
        return deleted

    def _due_record_sweeps(self, now: float) -> list[RecordSweep]:
        """Return what a new pass at `now` (wall seconds) deletes of the records."""
        wait = self.next_rare_sweeps - now
        if 0 < wait <= RARE_SWEEPS_EVERY:  # not after the clock was set back
            return list(FREQUENT_SWEEPS)
        self.next_rare_sweeps = now + RARE_SWEEPS_EVERY
        return [*FREQUENT_SWEEPS, *RARE_SWEEPS]

    def _count_points(self, c: sa.Connection) -> int:
        """Return the points stored in chunks."""
        total = self.batch_writer.total
        if total is None:
            total = int(c.execute(sa.select(sa.func.sum(points_table.c.n))).scalar() or 0)
        return total

    def _sweep_points(
        self, c: sa.Connection, oldest_kept: float, total: int, room: int
    ) -> tuple[int, int | None, int]:
        """Delete chunks from the oldest on: too old ones, and those of `total` beyond `room`.

        Returns the points left, the id of the chunk to go on after (None = no chunk is left to
        look at) and how many chunks were deleted.
        """
        restart_step = (
            sa.select(sa.func.min(snapshots_table.c.step))
            .where(snapshots_table.c.stream == points_table.c.stream)
            .scalar_subquery()
        )
        end = points_table.c.first + points_table.c.n
        deletable = (end <= sa.func.coalesce(restart_step, 0)).label("deletable")
        smallest_total = total - SWEEP_POINTS
        chunks = c.execute(
            sa.select(points_table.c.id, points_table.c.n, points_table.c.arrived, deletable)
            .where(points_table.c.id > (self.cursor or 0))
            .order_by(points_table.c.id)
            .limit(SWEEP_CHUNKS)
        ).all()
        finished = len(chunks) < SWEEP_CHUNKS  # the newest chunk is among them
        cursor = self.cursor
        deleted: list[int] = []
        for chunk in chunks:
            if chunk.arrived >= oldest_kept and total <= room:
                finished = True  # the newer ones are kept too
                break
            if total <= smallest_total:
                finished = False  # enough for one transaction; the next one goes on here
                break
            cursor = chunk.id
            if chunk.deletable:
                deleted.append(chunk.id)
                total -= chunk.n
        c.execute(points_table.delete().where(points_table.c.id.in_(deleted)))
        return total, None if finished else cursor, len(deleted)


def sweep_late_points(c: sa.Connection, oldest_kept: float) -> bool:
    """Delete some late points that are too old; return whether there may be more."""
    key = sa.tuple_(late_table.c.stream, late_table.c.time)
    old = (
        sa.select(late_table.c.stream, late_table.c.time)
        .where(late_table.c.arrived < oldest_kept)
        .limit(SWEEP_CHUNKS)
    )
    return c.execute(late_table.delete().where(key.in_(old))).rowcount == SWEEP_CHUNKS


def sweep_anomalies(c: sa.Connection, oldest_kept: float) -> bool:
    """Delete some anomalies that are too old; return whether there may be more.

    The newest one stays, since a restart counts ids from it.
    """
    oldest = c.execute(
        sa.select(anomalies_table.c.id, anomalies_table.c.found)
        .order_by(anomalies_table.c.id)
        .limit(SWEEP_CHUNKS)
    ).all()
    old = [row.id for row in oldest[:-1] if row.found < oldest_kept]
    c.execute(anomalies_table.delete().where(anomalies_table.c.id.in_(old)))
    return len(old) == SWEEP_CHUNKS - 1
