"""The one loop: takes steps from the streams, keeps the last of them, and scores each once under every setting that is applied or looked at."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from detectors import DETECTORS, Alarm, Detector, Verdict
from redline.settings import Settings, checked
from streams import Chunk, Stream

BUFFER = 10_000  # steps kept of each stream
TRACKS = 64  # tracks kept over all streams
IDLE = 120.0  # seconds after which a track that nobody looks at is dropped
BEAT = 0.1  # seconds between two takes
PACE = 10.0  # steps a wall second at 1x, for streams without a clock of their own
SLICE = 0.02  # seconds one slice of a filling track may take
MEASURED = 64  # steps from which a chunk tells the pace of a detector rather than the cost of a call
RETRY = 5.0  # seconds until a failed stream is tried again
JOURNAL = 1_000  # anomalies remembered of each stream
SPEEDS = (1, 2, 5, 10, 20, 50, 100)

log = logging.getLogger("redline")


def score(detector: Detector, x: np.ndarray) -> Verdict:
    """Advances `detector` by x (steps, features): a joint one sees the features together, any other each as a stream of its own."""
    return detector.advance(x[:, None, :] if detector.joint else x)


class Tape:
    """The last `capacity` rows of some named columns; a row is known by its absolute step number."""

    def __init__(self, capacity: int, columns: Mapping[str, tuple[int, Any]], start: int = 0):
        self.capacity, self.end, self.kept = capacity, start, 0
        self.room = capacity + capacity // 4  # rows; when it is full the last `capacity` of them move to the front
        self.used = 0
        self.columns = {name: np.zeros((self.room, width), dtype) for name, (width, dtype) in columns.items()}

    @property
    def first(self) -> int:
        return self.end - self.kept

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds rows (steps, width) to each column; only the last `capacity` of them stay."""
        steps = len(next(iter(rows.values())))
        skip = max(0, steps - self.capacity)
        if self.used + steps - skip > self.room:
            keep = min(self.kept, self.capacity - min(steps, self.capacity))
            for column in self.columns.values():
                column[:keep] = column[self.used - keep : self.used].copy()
            self.used = keep
        for name, column in self.columns.items():
            column[self.used : self.used + steps - skip] = rows[name][skip:]
        self.used += steps - skip
        self.end += steps
        self.kept = min(self.kept + steps - skip, self.capacity, self.used)

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """A copy of the rows first..end of one column; they must be on the tape."""
        offset = self.used - self.end
        return self.columns[name][first + offset : end + offset].copy()


class Anomaly(NamedTuple):
    """One step above the threshold, as it was found: what the journal, the pop-ups and later the alerts are told."""

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


class Failure(NamedTuple):
    """What went wrong in one stream, under an id that is also in the log."""

    id: str
    text: str


class Track:
    """A detector and its alarm on one stream, with what they said of every step of the buffer."""

    def __init__(self, settings: Settings, floors: tuple[float, ...], start: int):
        self.settings, self.start = settings, start
        self.detector = DETECTORS[settings.detector](window=settings.window, direction=settings.direction, floor=floors)  # type: ignore[arg-type]
        self.alarm = Alarm(refractory=settings.refractory, memory=settings.habituation)
        self.tape: Tape | None = None  # made when the first verdict shows which columns there are
        self.wanted = 0.0  # monotonic seconds of the last look
        self.seconds = 0.0  # spent scoring
        self.scored = 0  # steps
        self.failure: Failure | None = None

    @property
    def end(self) -> int:
        return self.start if self.tape is None else self.tape.end

    @property
    def pace(self) -> float:
        """Seconds a step takes to score."""
        return self.seconds / self.scored if self.scored else 0.0

    @property
    def slice(self) -> int:
        """How many steps fit into one slice of time."""
        return int(min(max(SLICE / self.pace, 64), 5_000)) if self.scored > 64 else 1_000

    def advance(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Scores the next steps x (steps, features), then learns them; each step comes here once, and its rows go to `append`."""
        began = time.perf_counter()
        verdict = score(self.detector, x)
        parts = verdict.score if verdict.parts is None else verdict.parts[:, 0, :]  # (steps, features), adds up to or is the score
        row = np.fmax.reduce(verdict.score, axis=1)[:, None]  # (steps, 1), NaN = no opinion
        rows = {"score": row, "alarm": self.alarm.update(row), "parts": parts}
        if verdict.centre is not None and verdict.spread is not None:
            rows |= {"centre": verdict.centre, "spread": verdict.spread}
        if len(x) >= MEASURED or not self.scored:
            self.seconds, self.scored = self.seconds + time.perf_counter() - began, self.scored + len(x)
        return rows

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keeps what `advance` said beside the buffer."""
        if self.tape is None:
            self.tape = Tape(BUFFER, {name: (value.shape[1], float) for name, value in rows.items()}, self.start)
        self.tape.append(rows)

    def skip(self, steps: int) -> None:
        """Leaves out steps that the buffer has already lost: no opinion on them."""
        if self.tape is None:
            self.start += steps
        else:
            self.tape.append({name: np.full((steps, column.shape[1]), np.nan) for name, column in self.tape.columns.items()})

    def read(self, name: str, first: int, end: int) -> np.ndarray | None:
        """Rows first..end of a column, NaN where nothing is scored; None if this detector has no such column."""
        if self.tape is None or name not in self.tape.columns:
            return None if name in ("centre", "spread") else np.full((end - first, 1), np.nan)
        a, b = min(max(first, self.tape.first), end), max(min(end, self.tape.end), first)
        rows = np.full((end - first, self.tape.columns[name].shape[1]), np.nan)
        if a < b:
            rows[a - first : b - first] = self.tape.read(name, a, b)
        return rows

    def bounds(self, threshold: float, first: int, end: int) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """The expected range (steps, features) at a threshold, in the features' units; NaN = no opinion, None = a detector without a band."""
        centre, spread = self.read("centre", first, end), self.read("spread", first, end)
        return (None, None) if centre is None or spread is None else (centre - threshold * spread, centre + threshold * spread)


@dataclass
class Feed:
    """One stream with its buffer, its tracks, the settings applied to it and what was found under them."""

    name: str
    stream: Stream
    real: bool = False  # keeps its own clock; any other is played at PACE steps a second
    applied: Settings = field(default_factory=Settings)
    undone: list[Settings] = field(default_factory=list)  # applied before, newest last
    tracks: dict[tuple[str, int, str, int, int], Track] = field(default_factory=dict)
    journal: deque[Anomaly] = field(default_factory=lambda: deque(maxlen=JOURNAL))
    lock: threading.RLock = field(default_factory=threading.RLock)
    points: int = 0
    anomalies: int = 0
    alarms: int = 0
    run: int = 0  # anomalous steps in a row, up to the newest
    noted: int = 0  # step up to which anomalies were counted: none is counted twice, whatever is applied
    due: float = 0.0  # steps owed by the clock
    arrived: float | None = None  # wall seconds at which the newest step came
    opened: float = field(default_factory=time.time)  # wall seconds
    labelled: bool = False
    failure: Failure | None = None
    retry: float = 0.0  # monotonic seconds before which a failed stream is left alone
    about: Any = None  # what the page must remember of the source, an uploaded file for one
    id: str = field(default_factory=lambda: uuid4().hex[:8])  # another slot content, another id

    def __post_init__(self) -> None:
        width = len(self.stream.names)
        self.tape = Tape(BUFFER, {"time": (1, float), "x": (width, float), "label": (width, np.int8)})

    @property
    def end(self) -> int:
        return self.tape.end

    @property
    def watched(self) -> Track:
        """The track of the applied settings."""
        return self.track(self.applied)

    def track(self, settings: Settings) -> Track:
        """The track of these settings, made when it is not there yet; a new one starts at the buffer's oldest step."""
        with self.lock:
            found = self.tracks.get(settings.key)
            if found is None:
                found = self.tracks[settings.key] = Track(settings, tuple(self.stream.floors), self.tape.first)
            return found

    def append(self, chunk: Chunk, now: float) -> None:
        """Puts a chunk on the tape."""
        label = np.zeros(chunk.x.shape, np.int8) if chunk.label is None else chunk.label
        self.labelled = chunk.label is not None
        self.tape.append({"time": chunk.time[:, None], "x": chunk.x, "label": label})
        self.points += len(chunk.x)
        self.arrived = now

    def catch_up(self, track: Track, steps: int) -> None:
        """Scores at most `steps` of what this track has not seen yet; readers are held up only while rows are copied."""
        with self.lock:
            if track.end < self.tape.first:
                track.skip(self.tape.first - track.end)
            first, end = track.end, min(track.end + steps, self.tape.end)
            x = self.tape.read("x", first, end)
        if first == end:
            return
        rows = track.advance(x)
        with self.lock:
            track.append(rows)
            first = max(first, self.noted)
            if track is self.tracks.get(self.applied.key) and first < end:
                self.note(track, first, end)

    def note(self, track: Track, first: int, end: int) -> None:
        """Counts and remembers the anomalies among steps first..end; the threshold of this moment decides, and is not asked again."""
        threshold, self.noted = self.applied.threshold, end
        row, alarm = track.read("score", first, end)[:, 0], track.read("alarm", first, end)[:, 0]  # type: ignore[index]
        above = row > threshold
        low, high = track.bounds(threshold, first, end)
        parts, x, times = track.read("parts", first, end), self.tape.read("x", first, end), self.tape.read("time", first, end)
        for i in np.flatnonzero(above).tolist():
            f = int(np.nanargmax(parts[i]))  # type: ignore[index]
            self.run = self.run + 1 if i == 0 or above[i - 1] else 1
            self.anomalies += 1
            self.alarms += int(alarm[i] > threshold)
            bottom, top = (low[i, f], high[i, f]) if low is not None and high is not None else (np.nan, np.nan)
            called = bool(alarm[i] > threshold)
            self.journal.append(Anomaly(self.anomalies, first + i, times[i, 0], f, x[i, f], bottom, top, row[i], threshold, self.run, called))
        self.run = self.run if above[-1] else 0


class Monitor:
    """Owns the clock, the feeds and the one thread that writes them; everybody else only reads."""

    def __init__(
        self, streams: Mapping[str, tuple[Stream, bool]], clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ):
        self.clock, self.wall, self.speed = clock, wall, 1.0
        self.feeds = {name: Feed(name, stream, real) for name, (stream, real) in streams.items()}
        self.wake, self.stopping = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        self.beaten = clock()

    # --- what readers and visitors may ask for

    def want(self, name: str, settings: Settings) -> Track:
        """The track somebody looks at; when it is new, the loop is woken to fill it."""
        feed = self.feeds[name]
        with feed.lock:
            track = feed.track(checked(settings, tuple(DETECTORS)))
            track.wanted = self.clock()
        if track.end < feed.end:
            self.wake.set()
        return track

    def progress(self, name: str, track: Track) -> float:
        """The share of the buffer that a track has scored, 0 to 1."""
        tape = self.feeds[name].tape
        return min(1.0, max(0.0, 1 - (tape.end - track.end) / max(tape.kept, 1)))

    def apply(self, name: str, settings: Settings) -> None:
        """Makes these the stream's settings for everybody; what was found before stays as it was found."""
        feed = self.feeds[name]
        self.want(name, settings)
        with feed.lock:
            if settings != feed.applied:
                feed.undone = [*feed.undone[-19:], feed.applied]
                feed.applied = settings

    def undo(self, name: str) -> Settings:
        """Takes the last apply back."""
        feed = self.feeds[name]
        with feed.lock:
            if feed.undone:
                feed.applied = feed.undone.pop()
                self.want(name, feed.applied)
            return feed.applied

    def inject(self, name: str, kind: str, size: float) -> int:
        """Makes an anomaly happen now; the number of the step that shows it first."""
        feed = self.feeds[name]
        with feed.lock:
            feed.stream.inject(kind, size)
            return feed.end

    def open(self, name: str, stream: Stream, about: Any = None, steps: int = 0) -> Feed:
        """Puts a stream in a slot, the newest wins; `steps` of it are taken at once."""
        feed = Feed(name, stream, False, about=about)
        self.fill_back(feed, steps)
        self.feeds[name] = feed
        self.wake.set()
        return feed

    # --- the loop

    def start(self) -> None:
        """Starts the thread; the feeds are filled back first, so that nobody waits for a past."""
        self.thread = threading.Thread(target=self.run, name="monitor", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.wake.set()
        if self.thread:
            self.thread.join(timeout=1.0)

    def run(self) -> None:
        for feed in list(self.feeds.values()):
            if not feed.real and not self.stopping.is_set():
                self.guarded(feed, lambda feed=feed: self.fill_back(feed, BUFFER))  # type: ignore[misc]
        self.beaten = self.clock()
        while not self.stopping.is_set():
            self.beat()
            until = self.beaten + BEAT
            while self.fill() and self.clock() < until and not self.stopping.is_set():
                pass
            self.wake.wait(max(0.0, until - self.clock()))
            self.wake.clear()

    def fill_back(self, feed: Feed, steps: int) -> None:
        """Takes steps at once, as if the stream had been watched for a while."""
        chunk = feed.stream.take(steps)
        if len(chunk.x):
            with feed.lock:
                feed.append(chunk, self.wall())
            feed.catch_up(feed.watched, steps)

    def beat(self) -> None:
        """One round: every stream gives what is due, and its applied track scores it."""
        now = self.clock()
        elapsed, self.beaten = min(now - self.beaten, 1.0), now  # a machine that slept owes no burst
        for feed in list(self.feeds.values()):
            if feed.failure is None or now >= feed.retry:
                self.guarded(feed, lambda feed=feed: self.take(feed, elapsed))  # type: ignore[misc]
        self.drop_idle(now)

    def take(self, feed: Feed, elapsed: float) -> None:
        feed.due += elapsed * PACE * self.speed
        steps = BUFFER if feed.real else int(feed.due)
        feed.due -= int(feed.due)
        if steps:
            with feed.lock:  # nobody injects while the stream gives
                chunk = feed.stream.take(steps)
                if len(chunk.x):
                    feed.append(chunk, self.wall())
        feed.catch_up(feed.watched, feed.watched.slice)
        feed.failure = None

    def fill(self) -> bool:
        """Advances the most recently wanted track that lags by one slice; False when none lags."""
        lagging = [(track.wanted, feed, track) for feed, track in self.tracks() if track.end < feed.end and track.failure is None]
        if not lagging:
            return False
        _, feed, track = max(lagging, key=lambda item: item[0])
        try:
            feed.catch_up(track, track.slice)
        except Exception as error:  # noqa: BLE001  one detector's fault must not stop the others; it is logged and shown
            track.failure = failed(f"{track.settings.detector} on {feed.name}", error)
        return True

    def tracks(self) -> Iterator[tuple[Feed, Track]]:
        for feed in list(self.feeds.values()):
            for track in list(feed.tracks.values()):
                yield feed, track

    def drop_idle(self, now: float) -> None:
        """Lets go of tracks that nobody looked at for a while, and of the least looked at when there are too many."""
        spare = sorted(
            ((track.wanted, feed, key) for feed in self.feeds.values() for key, track in list(feed.tracks.items()) if key != feed.applied.key),
            key=lambda t: t[0],
        )
        excess = len(spare) + len(self.feeds) - TRACKS
        for i, (wanted, feed, key) in enumerate(spare):
            if i < excess or wanted < now - IDLE:
                with feed.lock:
                    feed.tracks.pop(key, None)

    def guarded(self, feed: Feed, work: Callable[[], None]) -> None:
        """Runs one stream's work; its failure is logged, shown on its tab and tried again, and the other streams go on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  the boundary between streams
            feed.failure = failed(feed.name, error)
            feed.retry = self.clock() + RETRY


def failed(what: str, error: Exception) -> Failure:
    """Logs an error with its traceback under a new id."""
    failure = Failure(uuid4().hex[:6], f"{what}: {error}")
    log.error("%s failed, id %s", what, failure.id, exc_info=error)
    return failure
