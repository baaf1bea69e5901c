"""The recorder, which folds batches into incidents in the transaction that stores the batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from redline.engine.fleet.stored import (
    FleetCommit,
    SeriesRecord,
    SeriesSteps,
    SeriesStore,
    StoredStates,
)
from redline.engine.results import Batch, RestoredStream, ResultStore, StoredSource, log
from redline.incidents.incident import Change
from redline.incidents.registry import Incidents, StoredIncidents
from redline.storage.sql_store import SqlStore

# a stream whose steps jump back further was replaced by another source; more steps than a
# commit that is tried again repeats
REPLACED_STEPS = 1_000
ChangeListener = Callable[[Sequence[Change]], None]


class IncidentRecorder(ResultStore, SeriesStore):
    """A store of batches and of the incidents that come from them.

    Changes are published once and in order, after the commit; if commits fail, without one.
    Without a store, incidents live in memory.
    """

    def __init__(
        self,
        incidents: Incidents,
        store: SqlStore | None,
        listeners: Sequence[ChangeListener] = (),
    ) -> None:
        self.incidents = incidents
        self.store = store
        self.listeners = list(listeners)
        self._unpublished: list[Change] = []

    def commit(self, batches: Sequence[Batch], *, fleets: Sequence[FleetCommit] = ()) -> None:
        assert self.store is not None
        self.store.commit(batches, lambda save: self._fold(batches, save), fleets=fleets)

    def load_stream(self, name: str) -> RestoredStream | None:
        return self.store.load_stream(name) if self.store else None

    def pushed_streams(self) -> Sequence[StoredSource]:
        return self.store.pushed_streams() if self.store else ()

    def forget_stream(self, name: str) -> None:
        if self.store:
            self.store.forget_stream(name)

    def last_anomaly_id(self) -> int:
        return self.store.last_anomaly_id() if self.store else 0

    def match_times(self, name: str, times: np.ndarray) -> np.ndarray:
        return self.store.match_times(name, times) if self.store else np.zeros(len(times), bool)

    def remove_stream(self, name: str) -> None:
        if self.store:
            self.store.remove_stream(name)

    # --- of the fleets nothing is folded in

    def load_records(self) -> Sequence[SeriesRecord]:
        return self.store.load_records() if self.store else ()

    def last_series(self) -> int:
        return self.store.last_series() if self.store else 0

    def load_states(self) -> Iterator[StoredStates]:
        return self.store.load_states() if self.store else iter(())

    def steps_after(self, commit: int) -> Iterator[SeriesSteps]:
        return self.store.steps_after(commit) if self.store else iter(())

    def read_series(
        self, number: int, since: float | None, until: float | None, limit: int
    ) -> SeriesSteps:
        if self.store is None:
            return SeriesSteps.empty()
        return self.store.read_series(number, since, until, limit)

    def scores_since(self, since: float) -> Iterator[SeriesSteps]:
        return self.store.scores_since(since) if self.store else iter(())

    def newest_anomalies(self, name: str) -> Sequence[tuple[Any, ...]]:
        return self.store.newest_anomalies(name) if self.store else ()

    def match_series(self, numbers: np.ndarray, times: np.ndarray) -> np.ndarray:
        return self.store.match_series(numbers, times) if self.store else np.zeros(len(times), bool)

    # --- for the monitor's thread

    def on_batches(self, batches: Sequence[Batch], committed: bool) -> None:
        """Publish the changes of incidents in batches; the monitor calls it after each commit."""
        if self.store is None or not committed:
            self._fold(batches, lambda rows: None)
        try:
            self._unpublished += self._end_replaced(batches)
            self._unpublished += self.incidents.end_snoozes(time.time())
        except OSError as error:  # tried again with the next batches; alerts are sent anyway
            log.warning("ended incidents could not be stored and are tried again: %s", error)
        changes = self._unpublished
        self._unpublished = []
        self.publish(changes)

    def publish(self, changes: Sequence[Change]) -> None:
        """Pass changes of incidents to the listeners."""
        for listener in self.listeners if changes else ():
            listener(changes)

    def _fold(self, batches: Sequence[Batch], save: Callable[[StoredIncidents], None]) -> None:
        """Fold live batches in; the backfill of a newly opened stream makes no incidents."""
        live = [batch for batch in batches if batch.live and len(batch.time)]
        self._unpublished += self.incidents.commit(live, time.time(), save)

    def _end_replaced(self, batches: Sequence[Batch]) -> list[Change]:
        """End the incidents of streams that another source replaced: their steps start anew."""
        now = time.time()
        watches = self.incidents.watches
        replaced = [
            batch.name
            for batch in batches
            if batch.live
            and batch.name in watches
            and batch.end + REPLACED_STEPS < watches[batch.name].step
        ]
        return [change for name in replaced for change in self.incidents.reset_stream(name, now)]
