"""The outbox: result batches kept in order until the store has committed them."""

from __future__ import annotations

import threading
from collections import deque

from redline.engine.fleet.stored import FleetCommit
from redline.engine.results import Batch, Failure, ResultStore, log_failure

MAX_COMMIT_DELAY = 1.0  # seconds that a batch which is not urgent may wait for others
COMMIT_RETRY = 1.0  # seconds until a failed commit is tried again
# seconds of failing commits after which listeners get the batches uncommitted, so that a full disk
# does not keep an alert from being sent
FAILING_PATIENCE = 10.0
MAX_WAITING_BATCHES = 5_000  # kept while commits fail; beyond it the oldest are dropped, counted


class Outbox:
    """Batches on their way to the store; without a store they are final at once."""

    def __init__(self, store: ResultStore | None) -> None:
        self.store = store
        self.waiting: deque[Batch] = deque()
        self.fleets: deque[FleetCommit] = deque()  # committed with the batches that wait by then
        self.lock = threading.Lock()
        self.trouble: Failure | None = None
        self.failing_since = 0.0  # monotonic seconds
        self.retry = 0.0  # monotonic seconds before which no commit is tried again
        self.committed = 0.0  # monotonic seconds of the last commit
        self.published = 0  # how many of those waiting the listeners have got already
        self.lost = 0  # batches dropped
        self.streams_with_gaps: set[str] = set()  # those of which a batch was dropped

    def enqueue(self, batch: Batch) -> None:
        """Add a batch, from any thread."""
        with self.lock:
            self.waiting.append(batch)

    def enqueue_fleet(self, commit: FleetCommit) -> None:
        """Add what the fleets store; for the thread that calls `flush`."""
        self.fleets.append(commit)

    def flush(self, now: float, force: bool = False) -> tuple[list[Batch], list[Batch]]:
        """Commit the waiting batches when they are due.

        Args:
            now: monotonic seconds.
            force: commit also what is not due.

        Returns:
            The batches that are durable now, and those that listeners should get.
        """
        batches = list(self.waiting)
        fleets = list(self.fleets)
        if not (batches or fleets) or not (force or self._is_due(batches, now)):
            return [], []
        try:
            if self.store:
                self.store.commit(batches, fleets=fleets)
        except Exception as error:  # noqa: BLE001  logged, shown and tried again: the loop goes on
            return [], self._fail(error, now)
        for _ in batches:
            self.waiting.popleft()
        self.fleets.clear()
        unpublished = batches[self.published :]
        self.published = 0
        self.trouble = None
        self.committed = now
        self.retry = 0.0
        return batches, unpublished

    def _is_due(self, batches: list[Batch], now: float) -> bool:
        overdue = now - self.committed >= MAX_COMMIT_DELAY
        urgent = bool(self.fleets) or any(batch.urgent for batch in batches)
        return now >= self.retry and (overdue or urgent)

    def _fail(self, error: Exception, now: float) -> list[Batch]:
        """Note a failed commit; return the batches that listeners should get without it."""
        if self.trouble is None:
            self.failing_since = now
            self.trouble = log_failure("the store", error)
        text = f"{error}. Nothing acknowledged is lost; what is new waits and is tried again"
        self.trouble = self.trouble._replace(text=text)
        self.retry = now + COMMIT_RETRY
        patient = now - self.failing_since < FAILING_PATIENCE
        unpublished = [] if patient else list(self.waiting)[self.published :]
        self.published += len(unpublished)
        self._drop_oldest()
        return unpublished

    def _drop_oldest(self) -> None:
        """Drop the oldest batches beyond the limit, never those a client waits for."""
        with self.lock:
            excess = len(self.waiting) - MAX_WAITING_BATCHES
            kept: deque[Batch] = deque()
            published = self.published
            for place, batch in enumerate(self.waiting):
                if excess <= 0 or batch.awaited:
                    kept.append(batch)
                    continue
                excess -= 1
                self.lost += 1
                self.published -= place < published
                self.streams_with_gaps.add(batch.name)
            self.waiting = kept
