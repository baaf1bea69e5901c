"""The feed: one stream with its buffer, its tracks and its applied settings."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np

from redline.engine.outbox import Outbox
from redline.engine.results import Anomaly, Batch, Failure, RestoredStream, Snapshot, log
from redline.engine.stacking import MAX_STACKED_STEPS, STACKABLE
from redline.engine.tape import BUFFER_STEPS, Tape, split_chunk
from redline.engine.track import Track
from redline.settings import Settings
from redline.sources.pushed import PushedStream
from redline.sources.recording import Recording
from streams import Chunk, Simulated, Stream

JOURNAL_LENGTH = 1_000  # anomalies remembered of each stream
SNAPSHOTS_PER_BUFFER = 4  # snapshots of a track's state that a buffer's length of steps takes


def stream_origin(stream: Stream) -> dict[str, Any]:
    """What a stream's numbers depend on: the same origin gives the same numbers."""
    about: dict[str, Any] = {"kind": type(stream).__name__, "names": list(stream.names)}
    if isinstance(stream, Simulated):
        return about | {"seed": stream.seed, "rate": stream.rate, "sizes": list(stream.sizes)}
    return about | {"title": stream.title, "total": getattr(stream, "total", None)}


@dataclass
class Feed:
    """One stream with its buffer, its tracks, the settings applied to it and what was found under
    them.
    """

    name: str
    stream: Stream
    real: bool = False  # keeps its own clock; any other is played at PACE steps a second
    capacity: int = BUFFER_STEPS  # steps
    applied: Settings = field(default_factory=Settings)
    undone: list[Settings] = field(default_factory=list)  # applied before, newest last
    tracks: dict[tuple[str, int, str, int, int], Track] = field(default_factory=dict)
    journal: deque[Anomaly] = field(default_factory=lambda: deque(maxlen=JOURNAL_LENGTH))
    lock: threading.RLock = field(default_factory=threading.RLock)
    points: int = 0
    anomalies: int = 0
    alarms: int = 0
    run: int = 0  # anomalous steps in a row, up to the newest
    # step up to which results are final and anomalies counted: none is counted twice, whatever is
    # applied
    noted: int = 0
    stored: int = 0  # step up to which results are in the ledger
    snapped: tuple[Track, int, int] | None = (
        None  # track, its skips and step of the newest snapshot
    )
    due: float = 0.0  # steps owed by the clock
    arrived: float | None = None  # wall seconds at which the newest step came
    opened: float = field(default_factory=time.time)  # wall seconds
    labelled: bool = False
    ready: bool = True  # False: what the ledger remembers of it is not here yet
    live: bool = True  # False while its past is filled back
    failure: Failure | None = None
    retry: float = 0.0  # monotonic seconds before which a failed stream is left alone
    about: Any = None  # what the page must remember of the source, an uploaded file for one
    id: str = field(default_factory=lambda: uuid4().hex[:8])  # another slot content, another id
    outbox: Outbox = field(default_factory=lambda: Outbox(None))
    numbers: Callable[[], int] = field(
        default_factory=lambda: itertools.count(1).__next__
    )  # gives each anomaly its id

    def __post_init__(self) -> None:
        self.tape = self.blank(0)
        self.origin = stream_origin(self.stream)
        self.plain = json.dumps(self.origin)

    def blank(self, start: int) -> Tape:
        """An empty buffer whose next step is `start`."""
        width = len(self.stream.names)
        return Tape(
            self.capacity,
            {"time": (1, float), "x": (width, float), "label": (width, np.int8)},
            start,
        )

    @property
    def end(self) -> int:
        return self.tape.end

    @property
    def watched(self) -> Track:
        """The track of the applied settings."""
        return self.track(self.applied)

    @property
    def pushed(self) -> bool:
        return isinstance(self.stream, PushedStream)

    def rank(self, track: Track) -> tuple[Any, ...] | None:
        """What streams share whose tracks can score their new steps as one; None = this one goes
        alone.
        """
        steps = self.tape.end - track.end
        state = track.detector.state
        if (
            state is None
            or track.settings.detector not in STACKABLE
            or steps > MAX_STACKED_STEPS
            or track.end < self.tape.first
        ):
            return None
        return track.settings.key, int(state["step"]), steps, len(self.stream.names)

    def track(self, settings: Settings) -> Track:
        """The track of these settings, made when it is not there yet; a new one starts at the
        buffer's oldest step.
        """
        found = self.tracks.get(settings.key)
        if found is not None:
            return found
        with self.lock:
            return self.tracks.setdefault(
                settings.key,
                Track(settings, tuple(self.stream.floors), self.tape.first, self.capacity),
            )

    def append(self, chunk: Chunk, now: float) -> None:
        """Puts a chunk on the tape."""
        label = np.zeros(chunk.x.shape, np.int8) if chunk.label is None else chunk.label
        self.labelled = chunk.label is not None
        self.tape.append({"time": chunk.time[:, None], "x": chunk.x, "label": label})
        self.points += len(chunk.x)
        self.arrived = now

    def catch_up(self, track: Track, steps: int) -> None:
        """Scores at most `steps` of what this track has not seen yet; readers are held up only
        while rows are copied.
        """
        with self.lock:
            if track.end < self.tape.first:
                track.skip(self.tape.first - track.end)
            first = track.end
            end = min(track.end + steps, self.tape.end)
            x = self.tape.read("x", first, end)
        if first == end:
            return
        try:
            rows = track.advance(x)
        except Exception:
            self.begin_anew(track)
            raise
        self.learn(track, rows)

    def begin_anew(self, track: Track) -> None:
        """Puts another track in its place, since a failure may have left it with a part of some
        steps learned.
        """
        with self.lock:
            if self.tracks.get(track.settings.key) is track:
                del self.tracks[track.settings.key]
                self.track(track.settings).wanted = track.wanted

    def learn(self, track: Track, rows: Mapping[str, np.ndarray]) -> None:
        """Keeps what a track said of its next steps; of the applied one it is final."""
        with self.lock:
            first = track.end
            track.append(rows)
            track.failure = None
            new = max(first, self.noted)
            if track is self.tracks.get(self.applied.key) and new < track.end:
                self.note(track, rows["score"][new - first :, 0], rows["alarm"][new - first :, 0])

    def note(self, track: Track, score: np.ndarray, alarm: np.ndarray) -> None:
        """Makes the newest steps (n,) of the applied track final; the threshold of this moment
        decides, and is not asked again.
        """
        first = track.end - len(score)
        self.noted = track.end
        above = score > self.applied.threshold
        found = self.found(track, first, score, alarm) if above.any() else []
        self.run = self.run if above[-1] else 0
        self.hand_on(score, alarm, found)

    def found(
        self, track: Track, first: int, score: np.ndarray, alarm: np.ndarray
    ) -> list[Anomaly]:
        """Counts and remembers the anomalies among the steps from `first` on."""
        threshold = self.applied.threshold
        end = first + len(score)
        above = score > threshold
        anomalies = []
        low, high = track.bounds(threshold, first, end)
        parts = track.read("parts", first, end)
        x = self.tape.read("x", first, end)
        times = self.tape.read("time", first, end)
        for i in np.flatnonzero(above).tolist():
            f = int(np.nanargmax(parts[i]))  # type: ignore[index]
            self.run = self.run + 1 if i == 0 or above[i - 1] else 1
            self.anomalies += 1
            self.alarms += (called := bool(alarm[i] > threshold))
            bottom, top = (
                (float(low[i, f]), float(high[i, f]))
                if low is not None and high is not None
                else (np.nan, np.nan)
            )
            place = (self.anomalies, first + i, float(times[i, 0]), f, float(x[i, f]), bottom, top)
            anomalies.append(
                Anomaly(*place, float(score[i]), threshold, self.run, called, self.numbers())
            )
        self.journal.extend(anomalies)
        return anomalies

    def hand_on(
        self,
        score: np.ndarray,
        alarm: np.ndarray,
        found: list[Anomaly],
        late: tuple[Chunk, ...] = (),
    ) -> None:
        """Sends the newest final steps (n,) on their way to the ledger; none of them when only
        settings or late points are new.
        """
        first = self.noted - len(score)
        time = self.tape.read("time", first, self.noted)[:, 0]
        x = self.tape.read("x", first, self.noted)
        said = (first, time, x, score, alarm, found, self.applied, self.snapshot())
        about = (
            self.real,
            self.live,
            self.stream.names,
            self.stream.units,
            self.source(),
            self.counts(),
        )
        self.outbox.put(Batch(self.name, *said, *about, tuple(self.undone), late, self.pushed))

    def declare(self, late: tuple[Chunk, ...] = ()) -> None:
        """Sends on what is new beside steps: the applied settings, late points."""
        with self.lock:
            self.hand_on(np.empty(0), np.empty(0), [], late)

    def snapshot(self) -> Snapshot | None:
        """Where a restart may begin, now and then: a track of its own history needs no state, only
        the step it began at.
        """
        track = self.watched
        since = self.noted - self.capacity
        anew = self.snapped is None or self.snapped[:2] != (track, track.skips)
        if (
            not anew
            and self.snapped
            and track.end - self.snapped[2] < self.capacity // SNAPSHOTS_PER_BUFFER
        ):
            return None
        begins = anew and not track.skips and track.begun == track.start >= self.tape.first
        step = track.start if begins else track.end
        self.snapped = (track, track.skips, step)
        return Snapshot(step, {} if begins else track.saved(), anew, since)

    def source(self) -> str:
        """What the numbers depend on, with what was injected, as JSON."""
        injections = getattr(self.stream, "injections", None)
        return (
            json.dumps(
                self.origin | {"injections": [tuple(each) for each in injections[-JOURNAL_LENGTH:]]}
            )
            if injections
            else self.plain
        )

    def counts(self) -> dict[str, Any]:
        """The counters, as of the newest final step."""
        points = self.points - (self.tape.end - self.noted)
        counted = {
            "points": points,
            "anomalies": self.anomalies,
            "alarms": self.alarms,
            "run": self.run,
            "begun": self.watched.begun,
        }
        return counted | {"notes": dict(self.stream.notes), "period": self.stream.period}

    def same(self, old: RestoredStream) -> bool:
        """Whether this is the stream that a ledger remembers, so that its steps go on."""
        before = {
            name: value for name, value in json.loads(old.origin).items() if name != "injections"
        }
        return (
            old.end > 0
            and (self.real or isinstance(self.stream, Simulated))
            and before == self.origin
        )

    def recall(self, old: RestoredStream, now: float) -> None:
        """Goes on where the ledger says: the rows since a snapshot are scored again, to the same
        bits; after one of another version, anew.
        """
        chunk = self.again(old)
        counts = old.counts
        track = Track(old.applied, tuple(self.stream.floors), old.first, self.capacity)
        try:
            track.load(old.state)
            track.begun = counts["begun"]
            snapped = (track, 0, old.first)
        except ValueError as error:
            snapped = None  # so that the next one takes its place
            log.warning("%s learns anew from step %d on: %s", self.name, old.first, error)
        with self.lock:
            self.applied, self.undone, self.tape = (
                old.applied,
                list(old.undone),
                self.blank(old.first),
            )
            self.tracks = {old.applied.key: track}
            self.snapped = snapped
            self.noted = old.end
            self.stored = old.end
            for piece in split_chunk(chunk, self.capacity // 2):
                self.append(piece, now)
                self.catch_up(track, self.capacity)
            self.points, self.anomalies, self.alarms, self.run = (
                counts[name] for name in ("points", "anomalies", "alarms", "run")
            )
            self.journal.extend(Anomaly(*each) for each in old.anomalies)

    def again(self, old: RestoredStream) -> Chunk:
        """The steps from the snapshot to the last one committed: out of the ledger, or made once
        more by the simulator.
        """
        stream = self.stream
        if isinstance(stream, Simulated):
            injections = [
                (int(step), kind, float(size))
                for step, kind, size in json.loads(old.origin).get("injections", [])
            ]
            self.stream = type(stream)(stream.seed, stream.rate, injections, stream.sizes)
            self.stream.skip(old.first)
            return self.stream.take(old.end - old.first)
        if isinstance(stream, PushedStream):
            stream.given = old.end
            stream.last = float(old.time[-1]) if len(old.time) else -np.inf
            stream.period = old.counts["period"]
            stream.notes.update(old.counts["notes"])
        return Chunk(old.time, old.x, None)


def is_finished(feed: Feed) -> bool:
    return isinstance(feed.stream, Recording) and not feed.stream.rest
