"""A store of tables: what is the same in every SQL database."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import sqlalchemy as sa

from redline.detection.arrays import Array
from redline.engine.fleet.stored import (
    FleetCommit,
    SeriesRecord,
    SeriesSteps,
    SeriesStore,
    StoredStates,
)
from redline.engine.results import Batch, RestoredStream, ResultStore, StoredSource
from redline.storage.audit import insert_audit_line, read_audit_log
from redline.storage.checksums import rewrite_rows
from redline.storage.errors import StoreDamaged, StoreError
from redline.storage.groups import read_groups, write_groups
from redline.storage.incidents import read_incidents, write_incidents
from redline.storage.labels import (
    delete_label_row,
    find_label_rows,
    highest_label_id,
    insert_label,
    read_dismissed_proposals,
    read_labels,
    write_dismissed_proposal,
)
from redline.storage.maintenance import delete_window, insert_window, read_windows
from redline.storage.reading import (
    AnomalyQuery,
    StoredPoints,
    count_anomalies_by_day,
    last_anomaly_id,
    list_pushed_streams,
    load_stream,
    match_stored_times,
    newest_anomalies,
    read_anomalies,
    read_applied_settings,
    read_points,
)
from redline.storage.renaming import rename_reserved_sources
from redline.storage.retention import Retention, RetentionSweeper
from redline.storage.rules import delete_rule, read_rules, write_rule
from redline.storage.schema import prepare_schema, streams_table
from redline.storage.series_merging import SeriesMerger
from redline.storage.series_reading import (
    load_column_states,
    load_part_if_there,
    load_series_records,
    match_series_times,
    newest_parts,
    read_series_steps,
    read_steps_after,
)
from redline.storage.series_segments import load_segments
from redline.storage.series_writing import SeriesWriter, highest_series
from redline.storage.writing import BatchWriter

MAX_LISTINGS = 5  # of the parts, where some are merged while the others are read
DEFAULT_RETENTION = Retention()
ALL_ANOMALIES = AnomalyQuery()
# is called within the transaction, with the function that writes rows of incidents
ExtraWrites = Callable[[Callable[[Any], None]], None]


class SqlStore(ResultStore, SeriesStore):
    """An open database; `commit` is called by the loop's thread, all else by any thread.

    Every method raises StoreError when it cannot do its work. What opens and ends a transaction is
    the database's own, and given by the class that inherits.
    """

    def __init__(self, name: str, keep: Retention, merge: bool) -> None:
        """Make a store whose database is not open yet.

        Args:
            name: the database, as messages name it.
            keep: how much the retention leaves.
            merge: whether the points of fleets are merged, in a thread of the store's own.
        """
        self.name = name
        self.lock = threading.RLock()
        self.closed = False
        self.batch_writer = BatchWriter()
        self.series_writer = SeriesWriter()
        self.merger = SeriesMerger(keep, self.reading, self.rewriting)
        self.merges = merge
        self.sweeper = RetentionSweeper(
            keep, self.batch_writer, self.writing, self._wake_merger, self.release_room
        )
        self.damage: StoreDamaged | None = None  # found while reading

    @abstractmethod
    def writing(self) -> AbstractContextManager[sa.Connection]:
        """Open a transaction of the writer: all of it is stored or nothing."""

    @abstractmethod
    def rewriting(self) -> AbstractContextManager[sa.Connection]:
        """Open a transaction that only arranges anew what is stored.

        It does not wait for the disk: a crash may undo it, but never one that was committed before.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[sa.Connection]:
        """Open a transaction of a reader: it sees the database as it was when it began."""

    @abstractmethod
    def close(self) -> None:
        """Close the database once a transaction under way has ended; later calls are refused."""

    def release_room(self, c: sa.Connection) -> None:
        """Give back what a pass of the retention has freed."""

    def refuse_closed(self) -> None:
        """Raise a StoreError once the store is closed.

        Its engines would open the database again, which another process may own by then.
        """
        if self.closed:
            raise StoreError(f"{self.name} is closed, because Redline ends; start it again")

    def _take_up(self, c: sa.Connection) -> bool:
        """Prepare the tables and read what the writers remember; return whether to merge."""
        prepare_schema(c, self.name)
        rename_reserved_sources(c)
        self._read_positions(c)
        return bool(load_segments(c))

    def _read_positions(self, c: sa.Connection) -> None:
        """Read what the writers remember between commits."""
        self.batch_writer.load_streams(c)
        self.series_writer.load_commit(c)

    def _wake_merger(self) -> None:
        if self.merges:
            self.merger.wake()

    # --- for the loop

    def commit(
        self,
        batches: Sequence[Batch],
        extra_writes: ExtraWrites | None = None,
        *,
        fleets: Sequence[FleetCommit] = (),
    ) -> None:
        """Store points, scores, anomalies, settings, snapshots and fleets in one transaction.

        `extra_writes` is called within it, with the function that writes rows of incidents.
        """
        with (
            self.lock,
            self.batch_writer.undo_on_error(),
            self.series_writer.undo_on_error(),
            self.writing() as c,
        ):
            if batches:
                self.batch_writer.write_batches(c, batches)
            self.series_writer.write_fleets(c, fleets)
            if extra_writes:
                extra_writes(lambda rows: write_incidents(c, rows))
        if fleets:
            self._wake_merger()
        self.sweeper.run_if_due()

    def last_anomaly_id(self) -> int:
        """Return the highest id that an anomaly ever had; 0 = there was none."""
        with self.reading() as c:
            return last_anomaly_id(c)

    def pushed_streams(self) -> list[StoredSource]:
        """Return the streams that clients push, last committed first."""
        with self.reading() as c:
            return list_pushed_streams(c)

    def load_stream(self, name: str) -> RestoredStream | None:
        """Return a stream's oldest snapshot with the rows since; None = the stream is unknown."""
        with self.reading() as c:
            return load_stream(c, name, self.name)

    def match_times(self, name: str, times: np.ndarray) -> np.ndarray:
        """Return (m,) bool: whether the stream has a point at the first m of times (n,), n > 0.

        Times are epoch seconds; m is at least 1, and less than n where more would take long.
        """
        with self.reading() as c:
            return match_stored_times(c, name, times)

    def forget_stream(self, name: str) -> None:
        """Mark a stream as forgotten until its next commit; an unknown one is no error."""

        def with_mark(row: Mapping[str, Any]) -> dict[str, Any]:
            return {"counts": json.dumps({**json.loads(row["counts"]), "forgotten": True})}

        with self.writing() as c:
            rewrite_rows(c, streams_table, streams_table.c.name == name, with_mark)

    def remove_stream(self, name: str) -> None:
        """Delete everything that is stored of a stream; an unknown one is no error.

        Incidents, labels and the audit log stay: they say what happened.
        """
        with self.lock, self.batch_writer.undo_on_error(), self.writing() as c:
            self.batch_writer.delete_stream(c, name)

    # --- fleets

    def load_records(self) -> list[SeriesRecord]:
        """Return all series, by their numbers."""
        with self.reading() as c:
            return load_series_records(c)

    def last_series(self) -> int:
        """Return the highest number that a series ever had; 0 = there was none."""
        with self.reading() as c:
            return highest_series(c)

    def load_states(self) -> Iterator[StoredStates]:
        """Yield all stored states, the oldest commit first."""
        with self.reading() as c:
            yield from load_column_states(c)

    def steps_after(self, commit: int) -> Iterator[SeriesSteps]:
        """Yield the steps of all commits after one, at least: of each series in their order."""
        with self.reading() as c:
            yield from read_steps_after(c, commit)

    def read_series(
        self, number: int, since: float | None, until: float | None, limit: int
    ) -> SeriesSteps:
        """Return steps and late points of one series by time, oldest first.

        At most `limit`: the first ones from `since` on, or without it the last ones up to `until`.
        """
        with self.reading() as c:
            return read_series_steps(c, number, since, until, limit)

    def scores_since(self, since: float) -> Iterator[SeriesSteps]:
        """Yield all steps since a time, the newest first; each part is read by itself.

        Between two of them nothing is locked. Steps that were merged meanwhile come from the new
        part, some twice.
        """
        done: set[int] = set()
        for _ in range(MAX_LISTINGS):
            with self.reading() as c:
                wanted = [id for id in newest_parts(c, since) if id not in done]
            gone = False
            for id in wanted:
                with self.reading() as c:
                    steps = load_part_if_there(c, id)
                done.add(id)
                gone |= steps is None
                if steps is not None:
                    yield steps
            if not gone:
                return

    def newest_anomalies(self, name: str) -> list[tuple[Any, ...]]:
        """Return the last anomalies of a series, oldest first, with the fields of Anomaly."""
        with self.reading() as c:
            return newest_anomalies(c, name)

    def match_series(self, numbers: Array, times: Array) -> Array:
        """Return (n,) bool: whether each series (n,) has a point at exactly this time (n,)."""
        with self.reading() as c:
            return match_series_times(c, numbers, times)

    # --- for people and programs

    def points(
        self, name: str, since: float | None = None, until: float | None = None, limit: int = 10_000
    ) -> StoredPoints | None:
        """Return points of a stream between two times (seconds since the epoch), oldest first.

        At most `limit`: the first ones from `since` on, or without it the last ones. None = no such
        stream.
        """
        with self.reading() as c:
            return read_points(c, name, since, until, limit)

    def anomalies(self, query: AnomalyQuery = ALL_ANOMALIES) -> list[dict[str, Any]]:
        """Return anomalies, the newest first, or after an id the oldest first.

        The last id of a page as `before` gives the next page.
        """
        with self.reading() as c:
            return read_anomalies(c, query)

    def history(self, stream: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return applied settings, the newest first: at (wall seconds), stream, settings."""
        with self.reading() as c:
            return read_applied_settings(c, stream, limit)

    def daily(self, stream: str, days: int = 30) -> list[tuple[int, int]]:
        """Return (days since the epoch, anomalies) by the stream's own time, oldest first."""
        with self.reading() as c:
            return count_anomalies_by_day(c, stream, days)

    def record(
        self,
        who: str,
        what: str,
        stream: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a line to the audit log; `detail` must hold no secrets."""
        with self.writing() as c:
            insert_audit_line(c, who, what, stream, detail or {})

    def audit(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Return lines of the audit log, the newest first; with `before` those with a lower id."""
        with self.reading() as c:
            return read_audit_log(c, limit, before)

    # --- incidents and labels

    def save_incidents(self, rows: Any) -> None:
        """Store rows of incidents in a transaction of their own: what a person did."""
        with self.writing() as c:
            write_incidents(c, rows)

    def incidents(self, limit: int = 2_000) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return (incidents, watches): all unresolved incidents and the last `limit`."""
        with self.reading() as c:
            return read_incidents(c, limit)

    def save_groups(self, rows: Sequence[Mapping[str, Any]], gone: Sequence[str] = ()) -> None:
        """Store groups of incidents, each with its id and start; delete those that are gone."""
        with self.writing() as c:
            write_groups(c, rows, gone)

    def groups(self) -> list[dict[str, Any]]:
        """Return all groups of incidents, oldest first."""
        with self.reading() as c:
            return read_groups(c)

    def put_label(
        self,
        stream: str,
        span: tuple[float, float],
        kind: str,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Store a label of a span (seconds since the epoch, both ends included); return its row id.

        `detail["id"]`, where given, is the label's own id.
        """
        with self.writing() as c:
            return insert_label(c, stream, span, kind, detail or {})

    def save_label(self, row: Mapping[str, Any]) -> None:
        """Store a label under its own id."""
        self.put_label(row["stream"], (row["start"], row["end"]), row["kind"], row)

    def delete_label(self, id: int) -> None:
        """Delete the label with this own id, which is not given again."""
        with self.writing() as c:
            for row_id in find_label_rows(c, id):
                delete_label_row(c, row_id)

    def newest_label(self) -> int:
        """Return the highest id that a label ever had; 0 = none is known."""
        with self.reading() as c:
            return highest_label_id(c)

    def labels(self, stream: str | None = None) -> list[dict[str, Any]]:
        """Return the labels of a stream, or of all, oldest first."""
        with self.reading() as c:
            return read_labels(c, stream)

    def dismiss(self, stream: str, ids: Sequence[int]) -> None:
        """Store the ids of the labels for which a stream's proposal of settings was dismissed."""
        with self.writing() as c:
            write_dismissed_proposal(c, stream, ids)

    def dismissed(self) -> dict[str, list[int]]:
        """Return the label ids of each stream whose proposal was dismissed."""
        with self.reading() as c:
            return read_dismissed_proposals(c)

    def save_window(self, row: Mapping[str, Any]) -> None:
        """Store a maintenance window under its own id."""
        with self.writing() as c:
            insert_window(c, row)

    def drop_window(self, id: int) -> None:
        """Delete the maintenance window with this id, which is not given again."""
        with self.writing() as c:
            delete_window(c, id)

    def windows(self) -> tuple[list[dict[str, Any]], int]:
        """Return all maintenance windows, oldest first, and the highest id ever used."""
        with self.reading() as c:
            return read_windows(c)

    def save_rule(self, row: Mapping[str, Any], replaced: Iterable[int] = ()) -> None:
        """Store a rule of settings under its own id, and delete those that it replaces."""
        with self.writing() as c:
            write_rule(c, row, replaced)

    def drop_rule(self, id: int) -> None:
        """Delete the rule of settings with this id, which is not given again."""
        with self.writing() as c:
            delete_rule(c, id)

    def rules(self) -> tuple[list[dict[str, Any]], int]:
        """Return all rules of settings, and the highest id ever used."""
        with self.reading() as c:
            return read_rules(c)
