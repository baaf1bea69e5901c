"""Results: the final scores and anomalies of a stream, in batches, and the store they go to."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from redline.engine.fleet.stored import FleetCommit
from redline.engine.wording import anomaly_reason, severity, severity_index
from redline.settings import Settings
from streams import Chunk

log = logging.getLogger("redline")


class Anomaly(NamedTuple):
    """One step above the *applied* threshold when it was scored.

    It is recorded once and later settings do not change it. The marks of the chart are not these:
    see `redline.page.view.Mark`.
    """

    number: int  # counts the anomalies of its stream
    step: int
    time: float  # seconds since the epoch
    feature: int
    value: float  # in the feature's unit
    low: float  # expected range; NaN = the detector has no band
    high: float
    score: float  # standard deviations
    threshold: float
    run: int  # anomalous steps in a row, this one included
    alarm: bool  # whether its alarm score is above the threshold too, and no window holds it back
    id: int = 0  # unique among the anomalies of all streams, in the order they were found

    @property
    def severity(self) -> str:
        return severity(self.score, self.threshold)

    @property
    def severity_index(self) -> int:
        """The severity from 0 to 100, 50 = the threshold."""
        return severity_index(self.score, self.threshold)

    @property
    def expected(self) -> tuple[float, float] | None:
        """The expected range in the feature's unit; None = the detector has no band."""
        return None if self.low != self.low else (self.low, self.high)

    def reason(self, unit: str) -> str:
        """Return why the step is anomalous, in the detector's own numbers."""
        return anomaly_reason(self.value, (self.low, self.high), self.score, unit, self.run)


class Failure(NamedTuple):
    """What went wrong, under an id that is also in the log."""

    id: str
    text: str


def log_failure(what: str, error: Exception) -> Failure:
    """Log an error with its traceback under a new id."""
    failure = Failure(uuid4().hex[:6], f"{what}: {error}")
    log.error("%s failed, id %s", what, failure.id, exc_info=error)
    return failure


class StreamInfo(NamedTuple):
    """How a stream is described to people."""

    title: str
    names: tuple[str, ...]  # of the features
    units: tuple[str, ...]
    period: float  # seconds per step


class Snapshot(NamedTuple):
    """The state of a track before `step`: replaying the rows from there on gives the same bits."""

    step: int
    state: dict[str, np.ndarray]  # {} = a new track that begins here
    voids_older: bool  # whether older snapshots are of another track, and useless
    since: int  # the oldest step that a restart shows again


class Batch(NamedTuple):
    """Final results of some steps of one stream; no steps when only settings changed."""

    name: str
    first: int  # absolute number of the first step
    time: np.ndarray  # (n,) seconds since the Unix epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    anomalies: list[Anomaly]
    applied: Settings  # the settings that the scores were made under
    snapshot: Snapshot | None
    stores_points: (
        bool  # whether the store keeps the points; a simulator or a file can repeat its own
    )
    live: bool  # False: the backfill of a stream that was just opened, for which nothing is sent
    names: tuple[str, ...]  # of the features
    units: tuple[str, ...]
    origin: str  # JSON: what the stream's numbers depend on
    counts: dict[str, Any]  # the stream's counters after this batch
    undone: Sequence[Settings] = ()  # applied before, newest last
    late: tuple[Chunk, ...] = ()  # points older than the newest
    awaited: bool = False  # whether a client waits for these points to be acknowledged
    title: str = ""
    period: float = 1.0  # seconds per step
    muted: np.ndarray | None = None  # (n,) bool, steps in a maintenance window; None = none is

    @property
    def end(self) -> int:
        return self.first + len(self.time)

    @property
    def urgent(self) -> bool:
        """Whether its commit must not wait: points to acknowledge, anomalies, new settings."""
        no_steps = not len(self.time)
        return bool(self.anomalies or self.late or self.snapshot or no_steps or self.stores_points)

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(self.title or self.name, self.names, self.units, self.period)


class RestoredStream(NamedTuple):
    """The stored state of a stream: its oldest snapshot with the rows since."""

    end: int  # steps committed
    first: int  # the step of the snapshot, and the first of the rows
    state: dict[str, np.ndarray]  # of the snapshot
    time: np.ndarray  # (end - first,) seconds since the epoch; (0,) where points are not kept
    x: np.ndarray  # (end - first, features)
    applied: Settings
    undone: list[Settings]
    names: tuple[str, ...]
    units: tuple[str, ...]
    origin: str
    counts: dict[str, Any]
    anomalies: list[tuple[Any, ...]]  # the last ones, oldest first, with the fields of Anomaly


class StoredSource(NamedTuple):
    """A stream whose points clients push, as the store knows it."""

    name: str
    names: tuple[str, ...]  # of the features
    units: tuple[str, ...]
    creator: str = ""  # the token or address that sent its first points; "" = unknown
    seen: float = 0.0  # wall seconds of its last commit
    forgotten: bool = False  # whether it is not watched until it sends again


class ResultStore(ABC):
    """The interface of a store of results.

    Every method raises OSError when it cannot answer; its text is shown to people.
    """

    @abstractmethod
    def commit(self, batches: Sequence[Batch], *, fleets: Sequence[FleetCommit] = ()) -> None:
        """Store batches, and what fleets add, in one transaction: all of it or nothing."""

    @abstractmethod
    def load_stream(self, name: str) -> RestoredStream | None:
        """Return a stream's oldest snapshot with the rows since; None = the stream is unknown."""

    @abstractmethod
    def pushed_streams(self) -> Sequence[StoredSource]:
        """Return every stream whose points clients push."""

    @abstractmethod
    def forget_stream(self, name: str) -> None:
        """Mark a stream as forgotten until its next commit; an unknown one is no error."""

    @abstractmethod
    def last_anomaly_id(self) -> int:
        """Return the highest id that an anomaly ever had; 0 = there was none."""

    @abstractmethod
    def match_times(self, name: str, times: np.ndarray) -> np.ndarray:
        """Return (m,) bool: whether the stream has a point at the first m of times (n,), n > 0.

        Times are epoch seconds; m is at least 1, and less than n where more would take long.
        """

    @abstractmethod
    def remove_stream(self, name: str) -> None:
        """Delete everything that is stored of a stream; an unknown one is no error."""


# gets every batch once, in the loop's thread, and whether it is committed (False while commits
# have been failing for FAILING_PATIENCE); it must not block
BatchListener = Callable[[list[Batch], bool], None]
