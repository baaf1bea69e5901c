"""The searches for settings that visitors ask for: one at a time, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.results import log_failure
from redline.incidents.incident import SYSTEM_ACTOR
from redline.page.preview import preview_fields
from redline.settings import Settings, initial_settings, validate_settings
from redline.sources.recording import Recording

MAX_SEARCHED = 10_000  # steps, the newest of the buffer
MAX_WAITING = 20  # searches in the queue; further ones are refused
KEPT_SEARCHES = 50  # searches that browsers may still ask about
WAITING = "waiting"
RUNNING = "running"
FOUND = "found"
ENDED = "ended"  # without a proposal: cancelled, failed, or nothing found

# A generator over x (steps, features), labels (steps, features) or None, and floors. What it gives
# has `done` from 0 to 1, `trying`, and `best`: settings with their reason in `why`, or None. The
# `best` of the last one is the proposal.
SettingsFinder = Callable[[np.ndarray, "np.ndarray | None", tuple[float, ...]], Iterator[Any]]


class SearchedHistory(NamedTuple):
    """What a search looks at: the newest steps of a stream's buffer."""

    x: np.ndarray  # (steps, features), NaN = missing
    label: np.ndarray | None  # (steps, features) index into KINDS, None = truth unknown
    floors: tuple[float, ...]  # of the features


@dataclass
class SettingsSearch:
    """One search on one stream; its fields change while it runs."""

    id: int
    stream: str
    subject: str  # what is searched, the same for a file that is played again
    title: str  # of the stream
    past: SearchedHistory | None  # None once it is over
    applied: Settings  # what the proposal takes the remaining settings from
    state: str = WAITING
    visitors: int = 1  # who wait for it
    done: float = 0.0  # share, 0 to 1
    text: str = ""  # what it does now, or how it ended
    found: Settings | None = None
    started: bool = False  # the stream runs under what was found, since nothing was chosen for it

    @property
    def live(self) -> bool:
        """Return whether it waits or runs."""
        return self.state in (WAITING, RUNNING)


class SettingsSearches:
    """The queue of searches of all visitors; a second request for a stream joins the first."""

    def __init__(self, service: Service, finder: SettingsFinder) -> None:
        self.service = service
        self.finder = finder
        self.searches: dict[int, SettingsSearch] = {}  # by id, oldest first
        self.waiting: deque[SettingsSearch] = deque()
        self.running: SettingsSearch | None = None
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self._next_id = count(1).__next__

    def request(self, feed: Feed) -> SettingsSearch:
        """Queue a search on a stream, or join the one that is there.

        Not for the event loop: it copies the buffer.

        Raises:
            RuntimeError: too many searches wait.
        """
        with self.lock:
            known = self._live_search(feed)
            if known is not None:
                known.visitors += 1
                return known
            if len(self.waiting) >= MAX_WAITING:
                raise RuntimeError(
                    f"wanted at most {MAX_WAITING} searches that wait; came another; try again "
                    "when some have ended"
                )
        past = read_history(self.service, feed)
        with self.lock:
            known = self._live_search(feed)
            if known is not None:
                known.visitors += 1
                return known
            subject = searched_subject(feed)
            search = SettingsSearch(
                self._next_id(), feed.name, subject, feed.stream.title, past, feed.applied
            )
            self.searches[search.id] = search
            self.waiting.append(search)
            over = [old for old in self.searches.values() if not old.live]
            for old in over[: max(0, len(self.searches) - KEPT_SEARCHES)]:
                del self.searches[old.id]
            if self.thread is None:
                self.thread = threading.Thread(
                    target=self._work, name="settings search", daemon=True
                )
                self.thread.start()
        return search

    def begin_with(self, feed: Feed | None) -> None:
        """Queue a search on a stream that is there from the start, where it needs one."""
        if feed is not None and needs_search(feed):
            self.request(feed)

    def _live_search(self, feed: Feed) -> SettingsSearch | None:
        subject = searched_subject(feed)
        live = [each for each in self.searches.values() if each.live and each.subject == subject]
        return live[0] if live else None

    def leave(self, id: int) -> None:
        """Wait for a search no more; it ends when no visitor waits for it."""
        with self.lock:
            search = self.searches.get(id)
            if search is None or not search.live:
                return
            search.visitors -= 1
            if search.visitors <= 0:
                self._end(search, ENDED, "The search was cancelled.")
                if search in self.waiting:
                    self.waiting.remove(search)

    def progress_text(self, search: SettingsSearch) -> str:
        """Return what a search does now, or how it ended."""
        if search.state != WAITING:
            return search.text
        with self.lock:
            ahead = [self.running, *self.waiting] if self.running else list(self.waiting)
        others = [each.title for each in ahead if each is not None and each is not search]
        return f"Waits for the search on {others[0]}." if others else "Begins."

    @staticmethod
    def _end(search: SettingsSearch, state: str, text: str) -> None:
        search.state = state
        search.text = text
        search.past = None

    def _work(self) -> None:
        """Run the searches in their order, until none waits."""
        while True:
            with self.lock:
                if not self.waiting:
                    self.running = None
                    self.thread = None
                    return
                search = self.running = self.waiting.popleft()
                search.state = RUNNING
                search.text = "Begins."
            try:
                self._run(search)
            except ValueError as error:  # too few steps, a setting that no control can show
                self._finish(search, f"No proposal: {error}.")
            except Exception as error:  # noqa: BLE001  logged and shown; the next search runs
                failure = log_failure(f"the search for settings of {search.stream}", error)
                self._finish(search, f"The search failed; look for {failure.id} in the log.")

    def _run(self, search: SettingsSearch) -> None:
        """Go through one search, as long as a visitor waits for it."""
        assert search.past is not None
        best = None
        for step in self.finder(*search.past):
            if not search.live:
                return
            best = step.best
            search.done = float(step.done)
            search.text = search_text(step.trying, step.best)
        if best is None:
            self._finish(search, "No proposal: no settings were found to suit these steps.")
        else:
            found = proposed_settings(search.applied, best)
            search.started = start_with(self.service, search, found)
            text = f"It starts with these: {best.why}" if search.started else best.why
            self._finish(search, text, found)

    def _finish(self, search: SettingsSearch, text: str, found: Settings | None = None) -> None:
        with self.lock:
            if search.live:
                search.found = found
                search.done = 1.0
                self._end(search, ENDED if found is None else FOUND, text)


def start_with(service: Service, search: SettingsSearch, found: Settings) -> bool:
    """Have a file start with what was found for it, unless it has settings of its own by now.

    It is opened again with as many rows as were played, so that all that is found in it follows
    these settings. Returns whether it was.
    """
    feed = service.monitor.feeds.get(search.stream)
    if feed is None or searched_subject(feed) != search.subject or not needs_search(feed):
        return False
    again = copy(feed.stream)
    assert isinstance(again, Recording)
    played = again.position
    again.position = 0
    again.preset = preset_of(found)
    changes = service.incidents.reset_stream(feed.name, time.time())
    opened = service.monitor.open(feed.name, again, feed.about, played, found, replaces=feed)
    service.publish(changes)
    if opened.stream is not again:  # another file was dropped meanwhile
        return False
    if feed.undone:  # a person chose other settings meanwhile
        service.monitor.apply(feed.name, feed.applied)
        return False
    service.audit(SYSTEM_ACTOR, "began with settings found", feed.name, **preview_fields(found))
    return True


def preset_of(settings: Settings) -> dict[str, Any]:
    """Return what differs from the defaults of all streams, as a preset has it."""
    defaults = Settings()
    return {
        each.name: getattr(settings, each.name)
        for each in fields(Settings)
        if getattr(settings, each.name) != getattr(defaults, each.name)
    }


def needs_search(feed: Feed) -> bool:
    """Return whether a file runs under the defaults of all streams: nothing was found for it."""
    unset = feed.applied == initial_settings(feed.stream) and not feed.undone
    return isinstance(feed.stream, Recording) and not feed.stream.preset and unset


def searched_subject(feed: Feed) -> str:
    """Return what a search is about: equal for two feeds that play the same file."""
    if not isinstance(feed.stream, Recording):
        return feed.id
    columns = feed.stream.columns
    return f"{feed.name} {hash((feed.about, columns.time, columns.features, columns.label))}"


def read_history(service: Service, feed: Feed) -> SearchedHistory:
    """Return copies of the newest steps of a stream, with the labels that people gave.

    Of a file they are its last rows, also those that are not played yet.
    """
    floors = tuple(feed.stream.floors)
    if isinstance(feed.stream, Recording):
        rows = slice(-MAX_SEARCHED, None)
        known = None if feed.stream.label is None else feed.stream.label[rows].copy()
        truth = service.truth(feed, known, feed.stream.time[rows])
        return SearchedHistory(feed.stream.x[rows].copy(), truth, floors)
    with feed.lock:
        first = max(feed.tape.first, feed.end - MAX_SEARCHED)
        x = np.array(feed.tape.read("x", first, feed.end))
        seconds = feed.tape.read("time", first, feed.end)[:, 0]
        label = np.array(feed.tape.read("label", first, feed.end)) if feed.labelled else None
    return SearchedHistory(x, service.truth(feed, label, seconds), floors)


def proposed_settings(applied: Settings, best: Any) -> Settings:
    """Return the settings applied with what a search found in place of the same.

    Raises:
        SettingsError: a control cannot show them.
    """
    return validate_settings(
        replace(
            applied,
            detector=best.detector,
            window=int(best.window),
            threshold=round(float(best.threshold), 1),
            direction=best.direction,
        )
    )


def search_text(trying: str, best: Any) -> str:
    """Return what a search tries now, and the best so far."""
    now = f"Trying {trying}" if trying else "Comparing"
    if best is None:
        return f"{now}."
    return (
        f"{now}; best so far {best.detector}, window {best.window}, threshold "
        f"{best.threshold:.1f} σ."
    )
