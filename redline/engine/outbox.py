"""The outbox: result batches kept in order until the store has committed them."""

from __future__ import annotations

import threading
from collections import deque

from redline.engine.results import Batch, Failure, ResultStore, log_failure

MAX_COMMIT_DELAY = (
    1.0  # seconds that results without points, anomalies or news may wait for company
)
COMMIT_RETRY = 1.0  # seconds until a commit that failed is tried again
# seconds of failing commits after which the listeners are told all the same: a call for help does
# not wait for a disk
FAILING_PATIENCE = 10.0
MAX_WAITING_BATCHES = (
    5_000  # batches kept while commits fail; then the oldest that can be spared go, counted
)


class Outbox:
    """Batches on their way to the ledger; without one they are final at once."""

    def __init__(self, ledger: ResultStore | None) -> None:
        self.ledger = ledger
        self.waiting: deque[Batch] = deque()
        self.lock = threading.Lock()
        self.trouble: Failure | None = None
        self.since = self.retry = self.settled = (
            0.0  # monotonic seconds: first failure, next try, last commit
        )
        self.told = 0  # how many of those waiting the listeners know already
        self.lost = 0  # batches given up
        self.holes: set[str] = set()  # streams of which something was given up

    def put(self, batch: Batch) -> None:
        with self.lock:
            self.waiting.append(batch)

    def settle(self, now: float, force: bool = False) -> tuple[list[Batch], list[Batch]]:
        """Commits what waits, when somebody waits for it: (the batches that are safe now, those to
        tell).
        """
        batches = list(self.waiting)
        due = force or (
            now >= self.retry
            and (now - self.settled >= MAX_COMMIT_DELAY or any(batch.urgent for batch in batches))
        )
        if not batches or not due:
            return [], []
        try:
            if self.ledger:
                self.ledger.commit(batches)
        except Exception as error:  # noqa: BLE001  a ledger's fault must not stop the loop; it is logged, shown and tried again
            return [], self.failing(error, now)
        for _ in batches:
            self.waiting.popleft()
        told = self.told
        self.told = 0
        self.trouble = None
        self.settled = now
        self.retry = 0.0
        return batches, batches[told:]

    def failing(self, error: Exception, now: float) -> list[Batch]:
        """A commit failed: keeps what can be kept; the batches that should be told without it."""
        if self.trouble is None:
            self.since = now
            self.trouble = log_failure("the store", error)
        self.trouble = self.trouble._replace(
            text=f"{error}. Nothing acknowledged is lost; what is new waits and is tried again"
        )
        self.retry = now + COMMIT_RETRY
        tell = list(self.waiting)[self.told :] if now - self.since >= FAILING_PATIENCE else []
        self.told += len(tell)
        self.spare()
        return tell

    def spare(self) -> None:
        """Gives up the oldest batches above HELD, never those that somebody pushed in; their
        streams take a new snapshot.
        """
        with self.lock:
            over = len(self.waiting) - MAX_WAITING_BATCHES
            kept = []
            told = self.told
            for place, batch in enumerate(self.waiting):
                if over <= 0 or batch.owed:
                    kept.append(batch)
                    continue
                over = over - 1
                self.lost = self.lost + 1
                self.told = self.told - (place < told)
                self.holes.add(batch.name)
            self.waiting = deque(kept)
