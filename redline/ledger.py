"""What the loop hands on: batches of final results, kept in order, committed together, tried again while that fails."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import numpy as np

from redline.settings import Settings
from streams import Chunk

LAZY = 1.0  # seconds that results without points, anomalies or news may wait for company
AGAIN = 1.0  # seconds until a commit that failed is tried again
PATIENCE = 10.0  # seconds of failing commits after which the listeners are told all the same: a call for help does not wait for a disk
HELD = 5_000  # batches kept while commits fail; then the oldest that can be spared go, counted

log = logging.getLogger("redline")


class Anomaly(NamedTuple):
    """One step above the threshold, as it was found: what the journal, the pop-ups and the alerts are told."""

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
    id: int = 0  # counts the anomalies of all streams, in the order they were found; no two ever share one


class Failure(NamedTuple):
    """What went wrong, under an id that is also in the log."""

    id: str
    text: str


def failed(what: str, error: Exception) -> Failure:
    """Logs an error with its traceback under a new id."""
    failure = Failure(uuid4().hex[:6], f"{what}: {error}")
    log.error("%s failed, id %s", what, failure.id, exc_info=error)
    return failure


class Snapshot(NamedTuple):
    """Where a restart may begin: the state of a track before `step`. With the rows from there on it comes to the same bits."""

    step: int
    state: dict[str, np.ndarray]  # {} = a new track that begins here
    anew: bool  # every older snapshot is void
    since: int  # the oldest step that a restart wants to show again


class Batch(NamedTuple):
    """Some steps of one stream with what is finally said of them; there may be none, when only settings changed."""

    name: str
    first: int  # absolute number of the first step
    time: np.ndarray  # (n,) seconds since the Unix epoch
    x: np.ndarray  # (n, features), NaN = missing
    score: np.ndarray  # (n,) standard deviations, NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    anomalies: list[Anomaly]
    applied: Settings  # what it was judged under
    snapshot: Snapshot | None
    kept: bool  # whether the points are to be stored; those of a simulated stream or a file can be had again
    live: bool  # False: the past of a stream that has just been opened; nobody should be called for it
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


class Remembered(Protocol):
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
    def anomalies(self) -> Sequence[tuple[Any, ...]]: ...  # the last of them, oldest first, the fields of Anomaly


class Ledger(Protocol):
    """Where results are safe. `commit` is one transaction: all of it or nothing; an error says why in a sentence."""

    def commit(self, batches: Sequence[Batch]) -> None: ...
    def restore(self, name: str) -> Remembered | None: ...
    def pushed(self) -> Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]]: ...  # name, features, units of the streams that programs pushed
    def newest(self) -> int: ...  # the highest id of an anomaly
    def known(self, name: str, times: np.ndarray) -> np.ndarray: ...  # (n,) whether a point of that time is kept


class Outbox:
    """Batches on their way to the ledger; without one they are final at once."""

    def __init__(self, ledger: Ledger | None) -> None:
        self.ledger = ledger
        self.waiting: deque[Batch] = deque()
        self.lock = threading.Lock()
        self.trouble: Failure | None = None
        self.since = self.retry = self.settled = 0.0  # monotonic seconds: first failure, next try, last commit
        self.told = 0  # how many of those waiting the listeners know already
        self.lost = 0  # batches given up
        self.holes: set[str] = set()  # streams of which something was given up

    def put(self, batch: Batch) -> None:
        with self.lock:
            self.waiting.append(batch)

    def settle(self, now: float, force: bool = False) -> tuple[list[Batch], list[Batch]]:
        """Commits what waits, when somebody waits for it: (the batches that are safe now, those to tell)."""
        batches = list(self.waiting)
        due = force or (now >= self.retry and (now - self.settled >= LAZY or any(batch.urgent for batch in batches)))
        if not batches or not due:
            return [], []
        try:
            if self.ledger:
                self.ledger.commit(batches)
        except Exception as error:  # noqa: BLE001  a ledger's fault must not stop the loop; it is logged, shown and tried again
            return [], self.failing(error, now)
        for _ in batches:
            self.waiting.popleft()
        told, self.told, self.trouble, self.settled, self.retry = self.told, 0, None, now, 0.0
        return batches, batches[told:]

    def failing(self, error: Exception, now: float) -> list[Batch]:
        """A commit failed: keeps what can be kept; the batches that should be told without it."""
        if self.trouble is None:
            self.since, self.trouble = now, failed("the store", error)
        self.trouble = self.trouble._replace(text=f"{error}. Nothing acknowledged is lost; what is new waits and is tried again")
        self.retry = now + AGAIN
        tell = list(self.waiting)[self.told :] if now - self.since >= PATIENCE else []
        self.told += len(tell)
        self.spare()
        return tell

    def spare(self) -> None:
        """Gives up the oldest batches above HELD, never those that somebody pushed in; their streams take a new snapshot."""
        with self.lock:
            over, kept, told = len(self.waiting) - HELD, [], self.told
            for place, batch in enumerate(self.waiting):
                if over <= 0 or batch.owed:
                    kept.append(batch)
                    continue
                over, self.lost, self.told = over - 1, self.lost + 1, self.told - (place < told)
                self.holes.add(batch.name)
            self.waiting = deque(kept)


Listener = Callable[[list[Batch]], None]
