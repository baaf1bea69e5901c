"""Maintenance windows: time ranges of a stream in which nothing is alerted.

Steps in a window are scored, drawn and stored as all others, and their anomalies are found; none of
them is an alarm. A window refers to the stream's own time and only changes what is scored after it
was made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from redline.engine.wording import visible_note
from redline.sources.timestamps import CALENDAR_TIMES

MAX_WINDOWS = 1_000  # windows of one stream
MAX_ALL_WINDOWS = 20_000  # windows of all streams together
MAX_WINDOW_NOTE = 500  # characters


class MaintenanceError(ValueError):
    """A window that is not valid: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: object) -> None:
        super().__init__(f"{field}: wanted {wanted}; came {came!r}")
        self.field = field
        self.wanted = wanted
        self.came = repr(came)


class MaintenanceWindow(NamedTuple):
    """One time range of one stream in which nothing is alerted."""

    stream: str
    start: float  # seconds since the epoch, the stream's own
    end: float  # the same; later than `start`, itself within the window
    who: str
    at: float  # wall seconds since the epoch
    note: str = ""
    id: int = 0  # assigned when it is added


def validate_window(window: MaintenanceWindow) -> MaintenanceWindow:
    """Return the window, or raise MaintenanceError if it is not valid."""
    for name in ("start", "end"):
        value = getattr(window, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not CALENDAR_TIMES[0] <= value <= CALENDAR_TIMES[1]  # False for NaN too
        ):
            wanted = "seconds since the Unix epoch, in the years 1 to 9999"
            raise MaintenanceError(name, wanted, value)
    if window.end <= window.start:
        raise MaintenanceError("end", f"a time after the start, {window.start}", window.end)
    if len(window.note) > MAX_WINDOW_NOTE:
        wanted = f"at most {MAX_WINDOW_NOTE} characters"
        raise MaintenanceError("note", wanted, f"{len(window.note)}")
    if any("\ud800" <= character <= "\udfff" for character in window.note):
        raise MaintenanceError("note", "text that UTF-8 can hold", window.note)
    return window._replace(note=visible_note(window.note))


class WindowPersistence(NamedTuple):
    """The functions that store windows; what raises must have stored nothing."""

    save: Callable[[Mapping[str, Any]], None] = lambda row: None
    delete: Callable[[int], None] = lambda id: None


class MaintenanceWindows:
    """The maintenance windows of all streams.

    When a function of `persistence` raises, nothing has changed. An id is never used twice.

    >>> windows = MaintenanceWindows()
    >>> windows.covering("cpu", np.array([1.0, 2.0])) is None
    True
    >>> _ = windows.add(MaintenanceWindow("cpu", 2.0, 3.0, "ann", 0.0))
    >>> windows.covering("cpu", np.array([1.0, 2.0, 3.0, 4.0])).tolist()
    [False, True, True, False]
    """

    def __init__(self) -> None:
        self.persistence = WindowPersistence()
        self.items: dict[int, MaintenanceWindow] = {}  # by id
        # stream -> its windows; a tuple is replaced, never changed, so readers take no lock
        self.streams: dict[str, tuple[MaintenanceWindow, ...]] = {}
        self.newest = 0  # the highest id ever used
        self.version = 0  # number of changes; what was drawn for an older version is out of date
        self.lock = threading.RLock()

    def add(self, window: MaintenanceWindow) -> MaintenanceWindow:
        """Add a window and return it with its id.

        Raises:
            MaintenanceError: it is not valid, or there are too many already.
        """
        with self.lock:
            if len(self.streams.get(window.stream, ())) >= MAX_WINDOWS:
                wanted = f"at most {MAX_WINDOWS:,} of one stream; remove some"
                raise MaintenanceError("window", wanted, MAX_WINDOWS)
            if len(self.items) >= MAX_ALL_WINDOWS:
                wanted = f"at most {MAX_ALL_WINDOWS:,} of all streams; remove some"
                raise MaintenanceError("window", wanted, MAX_ALL_WINDOWS)
            window = validate_window(window)._replace(id=self.newest + 1)
            self.persistence.save(window._asdict())
            self.newest = window.id
            self._keep(window)
            self.version += 1
        return window

    def remove(self, id: int) -> MaintenanceWindow:
        """Remove a window and return it; KeyError if there is none with this id."""
        with self.lock:
            window = self.items[id]
            self.persistence.delete(id)
            del self.items[id]
            rest = tuple(each for each in self.streams[window.stream] if each.id != id)
            if rest:
                self.streams[window.stream] = rest
            else:
                del self.streams[window.stream]
            self.version += 1
        return window

    def of_stream(self, stream: str | None = None) -> list[MaintenanceWindow]:
        """Return the windows of a stream, None = of all, in the order they were added."""
        with self.lock:
            found = self.items.values() if stream is None else self.streams.get(stream, ())
            return list(found)

    def covering(self, stream: str, time: np.ndarray) -> np.ndarray | None:
        """Return which of times (n,), seconds since the epoch, lie in a window, (n,) bool.

        None = none of them does.
        """
        covered = np.zeros(len(time), bool)
        for window in self.streams.get(stream, ()):
            covered |= (window.start <= time) & (time <= window.end)
        return covered if covered.any() else None

    def restore(
        self,
        rows: Iterable[Mapping[str, Any]],
        newest: int = 0,
        persistence: WindowPersistence = WindowPersistence(),  # noqa: B008
    ) -> None:
        """Load stored windows into an empty object; `newest` is the highest id ever used."""
        with self.lock:
            windows = (MaintenanceWindow(**row) for row in rows)
            for window in sorted(windows, key=lambda each: each.id):
                self._keep(window)
            self.newest = max(newest, max(self.items, default=0))
            self.persistence = persistence

    def _keep(self, window: MaintenanceWindow) -> None:
        self.items[window.id] = window
        self.streams[window.stream] = (*self.streams.get(window.stream, ()), window)
