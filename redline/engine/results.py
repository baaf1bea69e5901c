"""What the loop hands on: batches of final results, kept in order, committed together, tried again
while that fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import numpy as np

from redline.settings import Settings
from streams import Chunk

log = logging.getLogger("redline")


class Anomaly(NamedTuple):
    """One step above the threshold, as it was found: what the journal, the pop-ups and the alerts
    are told.
    """

    number: int  # counts the anomalies of its stream
    step: int
    time: float  # seconds since the epoch
    feature: int
    value: float  # the feature's unit
    low: float  # expected range; NaN = the detector has no band
    high: float
    score: float  # standard deviations
    threshold: float
    run: int  # how many anomalous steps in a row, this one included
    alarm: bool  # whether somebody should be called
    # counts the anomalies of all streams, in the order they were found; no two ever share one
    id: int = 0


class Failure(NamedTuple):
    """What went wrong, under an id that is also in the log."""

    id: str
    text: str


def log_failure(what: str, error: Exception) -> Failure:
    """Logs an error with its traceback under a new id."""
    failure = Failure(uuid4().hex[:6], f"{what}: {error}")
    log.error("%s failed, id %s", what, failure.id, exc_info=error)
    return failure


class Snapshot(NamedTuple):
    """Where a restart may begin: the state of a track before `step`. With the rows from there on it
    comes to the same bits.
    """

    step: int
    state: dict[str, np.ndarray]  # {} = a new track that begins here
    anew: bool  # every older snapshot is void
    since: int  # the oldest step that a restart wants to show again


class Batch(NamedTuple):
    """Some steps of one stream with what is finally said of them; there may be none, when only
    settings changed.
    """

    name: str
    first: int  # absolute number of the first step
    time: np.ndarray  # (n,) seconds since the Unix epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    anomalies: list[Anomaly]
    applied: Settings  # what it was judged under
    snapshot: Snapshot | None
    # whether the points are to be stored; those of a simulated stream or a file can be had again
    kept: bool
    # False: the past of a stream that has just been opened; nobody should be called for it
    live: bool
    names: tuple[str, ...]  # of the features
    units: tuple[str, ...]
    origin: str  # JSON: what the stream's numbers depend on
    counts: dict[str, Any]  # the stream's counters after this batch
    undone: Sequence[Settings] = ()  # applied before, newest last
    late: tuple[Chunk, ...] = ()  # points that came after newer ones
    owed: bool = False  # whether a program waits for these points to be acknowledged

    @property
    def end(self) -> int:
        return self.first + len(self.time)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it: points to acknowledge, anomalies, news."""
        return bool(self.anomalies or self.late or self.snapshot or not len(self.time) or self.kept)


class RestoredStream(Protocol):
    """What a ledger knows of a stream."""

    @property
    def end(self) -> int: ...  # steps committed
    @property
    def first(self) -> int: ...  # where its snapshot stands
    @property
    def state(self) -> Mapping[str, np.ndarray]: ...  # of the snapshot
    @property
    def time(self) -> np.ndarray: ...  # (end - first,), or (0,) where points are not kept
    @property
    def x(self) -> np.ndarray: ...  # (end - first, features), or (0, features)
    @property
    def applied(self) -> Settings: ...
    @property
    def undone(self) -> Sequence[Settings]: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def origin(self) -> str: ...
    @property
    def counts(self) -> Mapping[str, Any]: ...
    @property
    def anomalies(
        self,
    ) -> Sequence[tuple[Any, ...]]: ...  # the last of them, oldest first, the fields of Anomaly


class ResultStore(Protocol):
    """Where results are safe. `commit` is one transaction: all of it or nothing; an error says why
    in a sentence.
    """

    def commit(self, batches: Sequence[Batch]) -> None: ...
    def restore(self, name: str) -> RestoredStream | None: ...
    def pushed(
        self,
    ) -> Sequence[
        tuple[str, tuple[str, ...], tuple[str, ...]]
    ]: ...  # name, features, units of the streams that programs pushed
    def newest(self) -> int: ...  # the highest id of an anomaly
    def known(
        self, name: str, times: np.ndarray
    ) -> np.ndarray: ...  # (n,) whether a point of that time is kept


BatchListener = Callable[[list[Batch]], None]
