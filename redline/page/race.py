"""The race after an injection: which detectors catch the fault, and how soon each does."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from dash import html

from detectors import DETECTORS
from redline.engine.feed import Feed
from redline.engine.monitor import Monitor
from redline.engine.wording import format_span
from redline.evaluation.metrics import HIT_TOLERANCE, row_truth
from redline.page.compare import GAP_KIND
from redline.page.layout import INJECT_NAMES
from redline.page.panels import aria_attribute
from redline.settings import Settings

MAX_RACES = 2  # run at the same time, each with a track per detector
ABANDONED_SECONDS = 10.0  # since a visitor looked: the race gives up its place for another


@dataclass
class Race:
    """One injected fault, and how each detector fares with it under the settings of its start."""

    stream: str
    feed_id: str
    kind: str
    step: int  # the first of the fault
    period: float  # seconds per step
    settings: dict[str, Settings]  # detector -> its settings; those that cannot run are left out
    delays: dict[str, float] = field(default_factory=dict)  # steps to the alarm, inf = missed
    asked: float = -math.inf  # monotonic seconds at which a visitor looked
    progress: float = 0.0  # share of the buffer that the slowest detector has scored
    waits_for: str = ""  # the stream whose race has to end first

    @property
    def caught(self) -> list[tuple[str, float]]:
        """Return (detector, steps to its alarm) of those that caught it, the first one first."""
        found = [(name, delay) for name, delay in self.delays.items() if math.isfinite(delay)]
        return sorted(found, key=lambda each: each[1])

    @property
    def over(self) -> bool:
        """Return whether each detector has caught or missed it, or none can."""
        return self.kind == GAP_KIND or len(self.delays) == len(self.settings)

    @property
    def sentence(self) -> str:
        """Return what is known so far, in a sentence."""
        name = INJECT_NAMES.get(self.kind, self.kind)
        if self.kind == GAP_KIND:
            return f"a {name} has no values that a detector could judge"
        if self.waits_for:
            return f"waits for the race on {self.waits_for}"
        count = len(self.settings)
        caught = self.caught
        if not caught:
            if self.over:
                return f"caught by none of {count}, up to {HIT_TOLERANCE} steps after its end"
            if self.progress < 0.99:
                return f"{count} detectors read the past first: {100 * self.progress:.0f} %"
            return f"{count} detectors are looking"
        first, delay = caught[0]
        soon = format_span(delay * self.period) if delay else "at once"
        so_far = "" if self.over else " so far"
        return f"caught by {len(caught)} of {count}{so_far}, first: {first}, {soon}"

    @property
    def version(self) -> str:
        """Return what changes with what is shown of the race."""
        return f"{self.feed_id} {self.step} {len(self.delays)} {self.sentence}"


class Races:
    """The newest race of each stream, the same for all visitors; it goes on while one looks."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.newest: dict[str, Race] = {}  # by stream
        self.lock = threading.Lock()

    def start(self, feed: Feed) -> None:
        """Start the race for the newest injected fault of a stream.

        Every detector runs under the applied settings, only its own way; making the detectors may
        take a moment, so this is not for the event loop.
        """
        injections = getattr(feed.stream, "injections", ())
        if not injections:
            return
        newest = injections[-1]
        settings = {}
        for name in DETECTORS:
            wanted = replace(feed.applied, detector=name)
            try:
                self.monitor.request_track(feed.name, wanted, patient=True)
            except (ImportError, ValueError):  # a missing library, a window it cannot take
                continue
            settings[name] = wanted
        race = Race(feed.name, feed.id, newest.kind, newest.step, feed.stream.period, settings)
        with self.lock:
            self.newest[feed.name] = race

    def look(self, feed: Feed) -> Race | None:
        """Return the race of a stream, as far as its tracks are; None = there is none.

        Its tracks are asked for after those that visitors look at, so that these come first.
        """
        race = self.newest.get(feed.name)
        if race is None or race.feed_id != feed.id:
            return None
        if race.over:
            return race
        if race.step < feed.tape.first:  # the fault left the buffer before it was judged
            self.newest.pop(feed.name, None)
            return None
        with self.lock:
            other = self._race_in_the_way(race)
            race.waits_for = self.monitor.feeds[other.stream].stream.title if other else ""
            if other is None:
                race.asked = self.monitor.clock()
                self._advance(race, feed)
        return race

    def _race_in_the_way(self, race: Race) -> Race | None:
        """Return a race that has to end before this one goes on."""
        since = self.monitor.clock() - ABANDONED_SECONDS
        running = [
            other
            for other in self.newest.values()
            if not other.over and other.asked >= since and other.stream in self.monitor.feeds
        ]
        if race in running or len(running) < MAX_RACES:
            return None
        return running[0]

    def _advance(self, race: Race, feed: Feed) -> None:
        """Judge the detectors that are not judged yet."""
        last = last_chance(feed, race.step)
        slowest = 1.0
        for name, settings in race.settings.items():
            if name in race.delays:
                continue
            track = self.monitor.request_track(feed.name, settings, patient=True)
            slowest = min(slowest, self.monitor.progress(feed.name, track))
            end = track.end if last is None else min(track.end, last + 1)
            if end > race.step:
                with feed.lock:
                    _, alarm = track.scores(race.step, end)
                found = np.flatnonzero(alarm > settings.threshold)
                if len(found):
                    race.delays[name] = float(found[0])
                elif last is not None and end > last:
                    race.delays[name] = math.inf
        race.progress = slowest


def last_chance(feed: Feed, step: int) -> int | None:
    """Return the last step at which an alarm catches the fault that begins at `step`.

    None = the fault goes on, as far as the buffer knows.
    """
    with feed.lock:
        truth = row_truth(feed.tape.read("label", step, feed.end))
    assert truth is not None
    over = np.flatnonzero(~truth.anomalous)
    return step + int(over[0]) - 1 + HIT_TOLERANCE if len(over) else None


def race_row(race: Race) -> list[Any]:
    """Return a dot for each detector, those that caught the fault first, and the sentence."""
    caught = race.caught
    dots = [
        html.I(
            className="first" if place == 0 else "hit",
            title=f"{name}, {format_span(delay * race.period) if delay else 'at once'}",
        )
        for place, (name, delay) in enumerate(caught)
    ]
    names = dict(caught)
    dots += [
        html.I(title=f"{name}, {'missed' if name in race.delays else 'not yet'}")
        for name in race.settings
        if name not in names
    ]
    return [
        html.Span(dots, className="dots", **aria_attribute("hidden", "true")),
        html.Span(race.sentence, role="status"),
    ]


def race_update(
    races: Races, feed: Feed, held: Any, new_held: dict[str, Any]
) -> dict[str, list[Any]]:
    """Return {"race": what is shown of it} where a browser shows something else, else {}.

    Args:
        races: of all streams.
        feed: the stream.
        held: what the browser held before this redraw, None = nothing.
        new_held: what it will hold; gets "race", the version of what is shown.
    """
    race = races.look(feed)
    version = race.version if race else ""
    new_held["race"] = version
    if version == (held or {}).get("race", ""):
        return {}
    return {"race": race_row(race) if race else []}
