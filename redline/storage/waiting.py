"""Waiting for a store that cannot be opened yet: its disk is full, or its server is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from redline.storage.errors import StoreError, TemporaryStoreError
from redline.storage.sql_store import SqlStore

ROOM_SECONDS = 2.0  # seconds between two tries


def open_when_room(open_store: Callable[[], SqlStore], say: Callable[[str], None]) -> SqlStore:
    """Return the opened store; where its disk is full or its server away, say so once and wait.

    Raises:
        StoreError: it cannot be opened for another reason.
    """
    waiting = False
    while True:
        try:
            return open_store()
        except TemporaryStoreError as error:
            if not waiting:
                say(f"{error}. Redline waits until {error.until} (Ctrl-C ends it)")
            waiting = True
            time.sleep(ROOM_SECONDS)


class RoomWatch:
    """Opens a store in a thread of its own, as soon as that is possible."""

    def __init__(self, open_store: Callable[[], SqlStore]) -> None:
        self.open_store = open_store
        self.store: SqlStore | None = None
        self.opened = threading.Event()  # set once `store` is there
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="room", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.ended.wait(ROOM_SECONDS):
            try:
                self.store = self.open_store()
            except StoreError:  # it was said already, or is said by the next start
                continue
            self.opened.set()
            return

    def end(self) -> SqlStore | None:
        """End the watch; return the store, None = it could not be opened yet."""
        self.ended.set()
        self.thread.join()
        return self.store
