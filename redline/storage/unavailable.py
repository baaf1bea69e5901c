"""The stand-in for a store that could not be opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.stored import (
    FleetCommit,
    SeriesRecord,
    SeriesSteps,
    SeriesStore,
    StoredStates,
)
from redline.engine.results import Batch, RestoredStream, ResultStore, StoredSource
from redline.storage.errors import StoreError


class UnavailableStore(ResultStore, SeriesStore):
    """Takes the place of a store that could not be opened: every commit raises the reason.

    So nothing is acknowledged, and the page goes on.
    """

    def __init__(self, reason: StoreError) -> None:
        self.reason = reason

    def commit(self, batches: Sequence[Batch], *, fleets: Sequence[FleetCommit] = ()) -> None:
        """Raise the reason."""
        raise self.reason

    def load_stream(self, name: str) -> RestoredStream | None:
        """Return None: no stream is known."""
        return None

    def pushed_streams(self) -> list[StoredSource]:
        """Return no streams."""
        return []

    def forget_stream(self, name: str) -> None:
        """Raise the reason."""
        raise self.reason

    def last_anomaly_id(self) -> int:
        """Return 0: there are no anomalies."""
        return 0

    def match_times(self, name: str, times: np.ndarray) -> np.ndarray:
        """Return (n,) bool, all False."""
        return np.zeros(len(times), bool)

    def remove_stream(self, name: str) -> None:
        """Raise the reason."""
        raise self.reason

    def load_records(self) -> list[SeriesRecord]:
        """Return no series."""
        return []

    def last_series(self) -> int:
        """Return 0: no series is known."""
        return 0

    def load_states(self) -> Iterator[StoredStates]:
        """Yield nothing."""
        yield from ()

    def steps_after(self, commit: int) -> Iterator[SeriesSteps]:
        """Yield nothing."""
        yield from ()

    def read_series(
        self, number: int, since: float | None, until: float | None, limit: int
    ) -> SeriesSteps:
        """Return no steps."""
        return SeriesSteps.empty()

    def newest_anomalies(self, name: str) -> list[tuple[Any, ...]]:
        """Return no anomalies."""
        return []

    def match_series(self, numbers: Array, times: Array) -> Array:
        """Return (n,) bool, all False."""
        return np.zeros(len(numbers), bool)

    def close(self) -> None:
        """Do nothing: nothing is open."""
