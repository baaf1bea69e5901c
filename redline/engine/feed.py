"""The feed: one stream with its buffer, its tracks and its applied settings."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from redline.engine.maintenance import MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.results import (
    Anomaly,
    Batch,
    Failure,
    RestoredStream,
    Snapshot,
    StreamInfo,
    log,
)
from redline.engine.runs import Run, follow_run
from redline.engine.tape import BUFFER_STEPS, Tape, split_chunk
from redline.engine.track import Track
from redline.settings import Settings
from redline.sources.pushed import PushedStream
from redline.sources.recording import Recording
from streams import Chunk, Simulated, Stream

JOURNAL_LENGTH = 1_000  # anomalies remembered of each stream
MAX_UNDO = 20  # settings applied before that an undo can go back to
SNAPSHOTS_PER_BUFFER = 4  # snapshots of a track's state while the buffer fills once


class MonitoredStream(NamedTuple):
    """A stream for the monitor to watch."""

    stream: Stream
    own_clock: bool = False  # its steps come in real time; the monitor plays any other
    settings: Settings = Settings()  # until others are applied


class SnapshotMark(NamedTuple):
    """Which snapshot was taken last."""

    track: Track
    skips: int  # of the track at that time
    step: int


def stream_origin(stream: Stream) -> dict[str, Any]:
    """Return what a stream's numbers depend on: the same origin gives the same numbers."""
    about: dict[str, Any] = {"kind": type(stream).__name__, "names": list(stream.names)}
    if isinstance(stream, Simulated):
        return about | {"seed": stream.seed, "rate": stream.rate, "sizes": list(stream.sizes)}
    return about | {"title": stream.title, "total": getattr(stream, "total", None)}


@dataclass
class Feed:
    """One stream with its buffer, its tracks, its applied settings and what they found.

    The loop's thread writes; `lock` is held only while rows or references are exchanged, so a
    reader that takes it never waits for a detector.
    """

    name: str
    stream: Stream
    own_clock: bool = False  # False: the monitor plays it at SIMULATED_PACE steps a second
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
    held: bool = False  # whether an alarm of this run was held back by a maintenance window
    finalized: int = 0  # step up to which results are final; no later change counts them again
    committed: int = 0  # step up to which results are in the store
    last_snapshot: SnapshotMark | None = None
    due: float = 0.0  # steps owed by the clock
    arrived: float | None = None  # wall seconds at which the newest step came
    creator: str = ""  # of a pushed source: the token or address that sent its first points
    submitted: float = 0.0  # of a pushed source: wall seconds at which it last sent anything
    opened: float = field(default_factory=time.time)  # wall seconds
    labelled: bool = False
    ready: bool = True  # False: its past has not been restored from the store yet
    live: bool = True  # False while its past is backfilled
    settings_applied: int = 0  # times that settings were applied
    settings_stored: int = 0  # how many of them are in the store
    failure: Failure | None = None
    retry: float = 0.0  # monotonic seconds before which a failed stream is not tried again
    about: Any = None  # what the page keeps with the source, for example an uploaded file
    id: str = field(default_factory=lambda: uuid4().hex[:8])  # changes with the stream in a slot
    outbox: Outbox = field(default_factory=lambda: Outbox(None))
    maintenance: MaintenanceWindows = field(default_factory=MaintenanceWindows)
    next_id: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)

    def __post_init__(self) -> None:
        self.tape = self.empty_tape(0)
        self.origin = stream_origin(self.stream)
        self.origin_json = json.dumps(self.origin)

    def empty_tape(self, start: int) -> Tape:
        """Return an empty buffer whose next step is `start`."""
        width = len(self.stream.names)
        columns = {"time": (1, float), "x": (width, float), "label": (width, np.int8)}
        return Tape(self.capacity, columns, start)

    @property
    def end(self) -> int:
        return self.tape.end

    @property
    def applied_track(self) -> Track:
        """The track of the applied settings."""
        return self.track(self.applied)

    @property
    def pushed(self) -> bool:
        return isinstance(self.stream, PushedStream)

    @property
    def stores_points(self) -> bool:
        """Whether the store keeps its points, since the stream cannot give them a second time."""
        return self.own_clock

    @property
    def info(self) -> StreamInfo:
        stream = self.stream
        return StreamInfo(stream.title, stream.names, stream.units, stream.period)

    def track(self, settings: Settings) -> Track:
        """Return the track of these settings; a new one starts at the buffer's oldest step."""
        found = self.tracks.get(settings.key)
        if found is not None:
            return found
        with self.lock:
            new = Track(settings, tuple(self.stream.floors), self.tape.first, self.capacity)
            return self.tracks.setdefault(settings.key, new)

    def bounds(
        self, track: Track, threshold: float, first: int, end: int
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Return the expected range of a track, two arrays (steps, features), within the limits of
        the stream: nothing is expected beyond what is possible.

        NaN = no opinion; None = a detector without a band.
        """
        low, high = track.bounds(threshold, first, end)
        if low is None or high is None or not self.stream.limits:
            return low, high  # type: ignore[return-value]
        least, most = np.transpose(self.stream.limits)
        return np.clip(low, least, most), np.clip(high, least, most)

    def append(self, chunk: Chunk, now: float) -> None:
        """Add a chunk to the buffer; `now` is wall seconds."""
        self.labelled = chunk.label is not None
        self.tape.append(_tape_rows(chunk))
        self.points += len(chunk.x)
        self.arrived = now

    def catch_up(self, track: Track, steps: int) -> None:
        """Score at most `steps` of the steps that this track has not scored yet."""
        with self.lock:
            if track.end < self.tape.first:
                track.skip(self.tape.first - track.end)
            first = track.end
            end = min(track.end + steps, self.tape.end)
            x = self.tape.read("x", first, end)  # (steps, features)
        if first == end:
            return
        try:
            rows = track.advance(x)
        except Exception:
            self.replace_track(track)
            raise
        self.store_scores(track, rows)

    def replace_track(self, track: Track) -> None:
        """Replace a track that failed, since it may have learned a part of some steps."""
        with self.lock:
            if self.tracks.get(track.settings.key) is track:
                del self.tracks[track.settings.key]
                self.track(track.settings).requested_at = track.requested_at

    def store_scores(self, track: Track, rows: Mapping[str, np.ndarray]) -> None:
        """Keep the scores of a track's next steps; those of the applied track become final."""
        with self.lock:
            first = track.end
            track.append(rows)
            track.failure = None
            new = max(first, self.finalized)
            if track is self.tracks.get(self.applied.key) and new < track.end:
                score = rows["score"][new - first :, 0]
                self._finalize(track, score, rows["alarm"][new - first :, 0])

    def _finalize(self, track: Track, score: np.ndarray, alarm: np.ndarray) -> None:
        """Make the newest steps (n,) of the applied track final.

        Here a step is compared with the applied threshold and becomes an anomaly or not. What
        the page draws is compared with the previewed threshold, in redline/page/view.py.
        """
        self.finalized = track.end
        above = score > self.applied.threshold  # (n,) bool
        time = self.tape.read("time", track.end - len(score), track.end)[:, 0]
        muted = self.maintenance.covering(self.name, time)
        found = []
        if above.any():
            found = self._collect_anomalies(track, above, score, alarm, muted)
        else:
            self.run, self.held = Run()
        self._emit(score, alarm, found, muted=muted)

    def _collect_anomalies(
        self,
        track: Track,
        above: np.ndarray,
        score: np.ndarray,
        alarm: np.ndarray,
        muted: np.ndarray | None,
    ) -> list[Anomaly]:
        """Count and remember the steps that are `above`, of the newest steps (n,) of the track.

        None of the steps that are `muted` (n,) is an alarm.
        """
        threshold = self.applied.threshold
        end = track.end
        first = end - len(score)
        low, high = self.bounds(track, threshold, first, end)  # (n, features)
        parts = track.read("parts", first, end)
        assert parts is not None
        x = self.tape.read("x", first, end)
        time = self.tape.read("time", first, end)[:, 0]
        found = follow_run(above, alarm > threshold, muted, Run(self.run, self.held))
        self.run, self.held = found.after
        anomalies = []
        for i, run, is_alarm in zip(found.rows, found.length, found.alarm):
            feature = int(np.nanargmax(parts[i]))
            self.anomalies += 1
            self.alarms += is_alarm
            anomalies.append(
                Anomaly(
                    number=self.anomalies,
                    step=first + i,
                    time=float(time[i]),
                    feature=feature,
                    value=float(x[i, feature]),
                    low=np.nan if low is None else float(low[i, feature]),
                    high=np.nan if high is None else float(high[i, feature]),
                    score=float(score[i]),
                    threshold=threshold,
                    run=run,
                    alarm=is_alarm,
                    id=self.next_id(),
                )
            )
        self.journal.extend(anomalies)
        return anomalies

    def _emit(
        self,
        score: np.ndarray,
        alarm: np.ndarray,
        found: list[Anomaly],
        late: tuple[Chunk, ...] = (),
        muted: np.ndarray | None = None,
    ) -> None:
        """Put the newest final steps (n,) into the outbox; n = 0 for settings or late points."""
        first = self.finalized - len(score)
        self.outbox.enqueue(
            Batch(
                name=self.name,
                first=first,
                time=self.tape.read("time", first, self.finalized)[:, 0],
                x=self.tape.read("x", first, self.finalized),
                score=score,
                alarm=alarm,
                anomalies=found,
                applied=self.applied,
                snapshot=self.snapshot(),
                stores_points=self.stores_points,
                live=self.live,
                names=self.stream.names,
                units=self.stream.units,
                origin=self.origin_document(),
                counts=self.counts(),
                undone=tuple(self.undone),
                late=late,
                awaited=self.pushed,
                title=self.stream.title,
                period=self.stream.period,
                muted=muted,
            )
        )

    def emit_settings(self) -> None:
        """Put the applied settings into the outbox."""
        with self.lock:
            self._emit(np.empty(0), np.empty(0), [])

    def emit_late(self, late: tuple[Chunk, ...]) -> None:
        """Put points older than the newest into the outbox; they are stored without a score."""
        with self.lock:
            self._emit(np.empty(0), np.empty(0), [], late)

    def snapshot(self) -> Snapshot | None:
        """Return where a restart may begin, now and then; None = an older snapshot will do.

        A track that has scored all of its history needs no state, only the step it began at.
        """
        track = self.applied_track
        last = self.last_snapshot
        voids_older = last is None or (last.track, last.skips) != (track, track.skips)
        recent = last and track.end - last.step < self.capacity // SNAPSHOTS_PER_BUFFER
        if recent and not voids_older:
            return None
        # whether the buffer still has every step that the track has learned from
        complete = not track.skips and track.learned_since == track.start >= self.tape.first
        from_start = voids_older and complete
        step = track.start if from_start else track.end
        self.last_snapshot = SnapshotMark(track, track.skips, step)
        state = {} if from_start else track.copy_state()
        return Snapshot(step, state, voids_older, since=self.finalized - self.capacity)

    def origin_document(self) -> str:
        """Return what the numbers depend on, with the injected faults, as JSON."""
        injections = getattr(self.stream, "injections", None)
        if not injections:
            return self.origin_json
        newest = [tuple(each) for each in injections[-JOURNAL_LENGTH:]]
        return json.dumps(self.origin | {"injections": newest})

    def counts(self) -> dict[str, Any]:
        """Return the counters, as of the newest final step."""
        return {
            "points": self.points - (self.tape.end - self.finalized),
            "anomalies": self.anomalies,
            "alarms": self.alarms,
            "run": self.run,
            "held": self.held,
            "begun": self.applied_track.learned_since,
            "notes": dict(self.stream.notes),
            "period": self.stream.period,
            "creator": self.creator,
        }

    def continues(self, old: RestoredStream) -> bool:
        """Return whether this is the stream that the store knows, so that its steps go on."""
        before = json.loads(old.origin)
        before.pop("injections", None)
        endless = self.own_clock or isinstance(self.stream, Simulated)
        return old.end > 0 and endless and before == self.origin

    def restore(self, old: RestoredStream, now: float) -> None:
        """Continue where the store says; `now` is wall seconds.

        The rows since the snapshot are scored again, to the same bits, on a tape and a track of
        their own; readers see the feed as it was until both are exchanged at the end. A state of
        another version is dropped: the stream then learns anew from these rows.
        """
        chunk = self._replay_chunk(old)
        track = Track(old.applied, tuple(self.stream.floors), old.first, self.capacity)
        mark: SnapshotMark | None = None  # None: the next snapshot is taken at once
        try:
            track.load_state(old.state)
            track.learned_since = old.counts["begun"]
            mark = SnapshotMark(track, 0, old.first)
        except ValueError as error:
            log.warning("%s learns anew from step %d on: %s", self.name, old.first, error)
        tape = self.empty_tape(old.first)
        for piece in split_chunk(chunk, self.capacity // 2):
            tape.append(_tape_rows(piece))
            track.append(track.advance(piece.x))
        with self.lock:
            self._exchange(old, tape, track, now)
            self.last_snapshot = mark
            self.labelled = self.labelled or chunk.label is not None

    def _exchange(self, old: RestoredStream, tape: Tape, track: Track, now: float) -> None:
        """Put restored rows, scores and counters in place."""
        self.tape = tape
        self.tracks = {old.applied.key: track}
        self.finalized = old.end
        self.committed = old.end
        self.points = old.counts["points"]
        self.anomalies = old.counts["anomalies"]
        self.alarms = old.counts["alarms"]
        self.run = old.counts["run"]
        self.held = old.counts.get("held", False)
        self.journal.extend(Anomaly(*each) for each in old.anomalies)
        if tape.end > tape.first:
            self.arrived = now

    def _replay_chunk(self, old: RestoredStream) -> Chunk:
        """Return the steps from the snapshot to the last one committed.

        They come out of the store, or once more from the simulator.
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
            newest_time = float(old.time[-1]) if len(old.time) else -np.inf
            stream.resume(old.end, newest_time, old.counts["period"], old.counts["notes"])
        return Chunk(old.time, old.x, None)


def _tape_rows(chunk: Chunk) -> dict[str, np.ndarray]:
    label = np.zeros(chunk.x.shape, np.int8) if chunk.label is None else chunk.label
    return {"time": chunk.time[:, None], "x": chunk.x, "label": label}


def is_finished(feed: Feed) -> bool:
    """Return whether the feed plays a recording that is at its end."""
    return isinstance(feed.stream, Recording) and not feed.stream.rest
