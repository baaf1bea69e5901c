"""The views: a series that is looked at as an ordinary feed, as long as it is looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from detectors import Alarm
from redline.engine.feed import MAX_UNDO, Feed
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.fleet.series_reports import ReportedSteps
from redline.engine.fleet.stored import SeriesSteps
from redline.engine.results import Anomaly, log_failure
from redline.engine.track import Track
from redline.settings import Settings
from streams import Chunk, Stream

MAX_VIEWS = 200  # series that are looked at
PERIOD_STEPS = 64  # newest steps of which the median interval is the period


class SeriesStream(Stream):
    """A series as a stream: its steps come from the fleet, so none are taken here."""

    about = "A series that programs send."
    names = ("value",)
    units = ("",)
    floors = (0.0,)

    def __init__(self, title: str) -> None:
        self.title = title
        self.period = 1.0

    def take(self, steps: int) -> Chunk:
        """Return no steps."""
        return Chunk(np.empty(0), np.empty((0, 1)), None)


@dataclass
class SeriesFeed(Feed):
    """A series that is looked at: the fleet scores its steps, this keeps them to be drawn."""

    number: int = 0
    change: Callable[[int, Settings], None] = field(default=lambda number, settings: None)

    @property
    def stores_points(self) -> bool:
        """Whether the store has its points: the fleet's, not those of a source."""
        return False

    def emit_settings(self) -> None:
        """Have the applied settings applied in the fleet."""
        self.change(self.number, self.applied)

    def _finalize(self, track: Track, score: np.ndarray, alarm: np.ndarray) -> None:
        """Leave it to the fleet to say what is anomalous."""

    def show_past(self, past: SeriesSteps, anomalies: int, alarms: int) -> None:
        """Fill the buffer with the steps before, whose scores stay as they were given.

        The expected range is computed again from these steps alone.
        """
        first = int(past.step[0]) if len(past.step) else 0
        tape = self.empty_tape(first)
        track = Track(self.applied, tuple(self.stream.floors), first, self.capacity)
        if len(past.step):
            rows = track.advance(past.value[:, None])
            given = np.where(np.isnan(past.score), rows["score"][:, 0], past.score)
            alarm = Alarm(refractory=self.applied.refractory, memory=self.applied.habituation)
            rows |= {"score": given[:, None], "parts": given[:, None]}
            rows["alarm"] = alarm.update(given[:, None])
            tape.append(_tape_columns(past.time, past.value))
            track.append(rows)
            self.stream.period = median_interval(past.time, self.stream.period)
        with self.lock:
            asked = (each.requested_at for each in self.tracks.values())
            track.requested_at = max(asked, default=0.0)  # else it would be closed as idle
            self.tape = tape
            self.tracks = {self.applied.key: track}
            self.finalized = self.committed = self.points = tape.end
            self.anomalies = anomalies
            self.alarms = alarms
            self.arrived = float(past.time[-1]) if len(past.step) else None

    def take_scored(self, found: ReportedSteps) -> None:
        """Add the newest steps of the series, as the fleet scored them."""
        batch = found.batch
        with self.lock:
            track = self.tracks.get(batch.applied.key)
            follows = track is not None and track.end == self.tape.end
            self.tape.append(_tape_columns(batch.time, batch.x[:, 0]))
            if track is not None and follows and track.tape is not None:
                scored = found.scored
                columns = {
                    "score": scored.score,
                    "alarm": scored.alarm_score,
                    "parts": scored.score,
                    "centre": scored.centre,
                    "spread": scored.spread,
                }
                missing = np.full(len(scored.score), np.nan)
                track.append(
                    {name: columns.get(name, missing)[:, None] for name in track.tape.columns}
                )
            self._count(batch.anomalies)
            self.finalized = self.committed = self.points = self.tape.end
            self.arrived = float(batch.time[-1])

    def _count(self, anomalies: list[Anomaly]) -> None:
        """Count and remember new anomalies."""
        self.journal.extend(anomalies)
        self.anomalies += len(anomalies)
        self.alarms += sum(each.alarm for each in anomalies)


class SeriesViews:
    """The feeds of the series that are looked at; opened from any thread, filled by the loop."""

    def __init__(self, series: SeriesMonitor) -> None:
        """Make it without feeds."""
        self.series = series
        self.feeds: dict[str, SeriesFeed] = {}
        self.to_fill: deque[SeriesFeed] = deque()
        series.move_listeners.append(self.follow_move)

    def open(self, name: str) -> SeriesFeed | None:
        """Return the feed of a series, which the loop will fill; None = no such series."""
        known = self.feeds.get(name)
        if known is not None:
            return known
        number = self.series.find(name)
        if number is None:
            return None
        settings = self.series.summary(number).settings
        feed = SeriesFeed(
            name,
            SeriesStream(name),
            own_clock=True,
            applied=settings,
            ready=False,
            number=number,
            change=self.series.apply,
            maintenance=self.series.maintenance,
        )
        feed = self.feeds.setdefault(name, feed)
        self.to_fill.append(feed)
        return feed

    # --- for the loop

    def fill(self) -> None:
        """Fill the feeds that were opened with the past of their series."""
        for _ in range(len(self.to_fill)):
            feed = self.to_fill.popleft()
            if feed.ready:
                continue
            try:
                summary = self.series.summary(feed.number)
                feed.applied = summary.settings  # a rule may have changed them meanwhile
                past = self.series.read_past(feed.number, feed.capacity)
                feed.show_past(past, summary.anomalies, summary.alarms)
                if self.series.store is not None:
                    stored = self.series.store.newest_anomalies(feed.name)
                    feed.journal.extend(Anomaly(*each) for each in stored)
                feed.failure = None
            except Exception as error:  # noqa: BLE001  one series must not stop the others
                feed.failure = log_failure(feed.name, error)
            feed.ready = True
            self.series.reports.watchers[feed.number] = feed.take_scored

    def follow_move(self, number: int, settings: Settings) -> None:
        """Take over the settings that a rule gave to a series."""
        for feed in list(self.feeds.values()):
            if feed.number == number and feed.applied != settings:
                with feed.lock:
                    feed.undone = [*feed.undone[1 - MAX_UNDO :], feed.applied]
                    feed.applied = settings

    def close_idle(self, since: float) -> list[str]:
        """Close the feeds of which nothing was requested since; return their names.

        since: monotonic seconds.
        """
        requested = {
            name: max((track.requested_at for track in list(feed.tracks.values())), default=0.0)
            for name, feed in list(self.feeds.items())
            if feed.ready
        }
        newest_first = sorted(requested, key=lambda name: -requested[name])
        idle = [
            name
            for place, name in enumerate(newest_first)
            if requested[name] < since or place >= MAX_VIEWS
        ]
        for name in idle:
            self.close(name)
        return idle

    def close(self, name: str) -> None:
        """Close the feed of a series; one that is not open is no error."""
        feed = self.feeds.pop(name, None)
        if feed is not None:
            self.series.reports.watchers.pop(feed.number, None)


def median_interval(time: np.ndarray, otherwise: float) -> float:
    """Return the median seconds between the newest steps, time (n,).

    >>> median_interval(np.array([0.0, 15, 30, 75, 90]), 1.0)
    15.0
    """
    steps = np.diff(time[-PERIOD_STEPS:])
    return float(np.median(steps)) if len(steps) else otherwise


def _tape_columns(time: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    """Return steps (n,) as rows of a tape."""
    label = np.zeros((len(time), 1), np.int8)
    return {"time": time[:, None], "x": value[:, None], "label": label}
