"""The one loop: takes steps from the streams, keeps the last of them, and scores each once under every setting that is applied or looked at."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from detectors import DETECTORS, FORMAT, Alarm, Detector, Verdict
from redline.cohort import ALIKE, CELLS, FEW, STEPS, lent, returned
from redline.intake import Pushed, Receipt, Refused, Room, fitting, named
from redline.ledger import Anomaly as Anomaly
from redline.ledger import Batch, Ledger, Listener, Outbox, Remembered, Snapshot, log
from redline.ledger import Failure as Failure
from redline.ledger import failed as failed
from redline.settings import Settings, SettingsError, checked
from streams import Chunk, Simulated, Stream

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
MANY = 100  # pushed streams with a whole buffer; those beyond keep BUFFER / 10 steps at hand, the rest is in the ledger
ENDING = 5.0  # seconds that the loop's thread is waited for when the program ends
COUNTING = 5e-5  # seconds for each stream that totals are good for, so that counting many takes a hundredth of the time
SNAPSHOTS = 4  # snapshots of a track's state that a buffer's length of steps takes


def score(detector: Detector, x: np.ndarray) -> Verdict:
    """Advances `detector` by x (steps, features): a joint one sees the features together, any other each as a stream of its own."""
    return detector.advance(x[:, None, :] if detector.joint else x)


def running(thread: threading.Thread) -> str:
    """Name the function that a thread is in, with its file and line."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return "no function any more"
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"


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


class Track:
    """A detector and its alarm on one stream, with what they said of every step of the buffer."""

    def __init__(self, settings: Settings, floors: tuple[float, ...], start: int, capacity: int = BUFFER):
        self.settings, self.floors, self.start, self.capacity = settings, floors, start, capacity
        self.begun = start  # the step at which its detector began to learn; a restart moves `start`, never this
        self.skips = 0  # times that steps were left out
        try:
            self.detector = DETECTORS[settings.detector](window=settings.window, direction=settings.direction, floor=floors)  # type: ignore[arg-type]
        except ValueError as error:
            raise SettingsError(f"window: wanted one that {settings.detector} takes ({error}); came {settings.window}") from error
        self.alarm = Alarm(refractory=settings.refractory, memory=settings.habituation)
        self.tape: Tape | None = None  # made when the first verdict shows which columns there are
        self.wanted = 0.0  # monotonic seconds of the last look
        self.seconds = 0.0  # spent scoring
        self.scored = 0  # steps
        self.failure: Failure | None = None
        self.retry = 0.0  # monotonic seconds before which it is left alone after a failure

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
            self.tape = Tape(self.capacity, {name: (value.shape[1], float) for name, value in rows.items()}, self.start)
        self.tape.append(rows)

    def skip(self, steps: int) -> None:
        """Leaves out steps that the buffer has already lost: no opinion on them."""
        if self.tape is None and self.begun == self.start:
            self.begun = self.start = self.start + steps
        elif self.tape is None:
            self.start, self.skips = self.start + steps, self.skips + 1
        else:
            self.skips += 1
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

    def saved(self) -> dict[str, np.ndarray]:
        """All it remembers, as named arrays of its own."""
        parts = {"detector": self.detector.state or {}, "alarm": self.alarm.state or {}}
        return {"format": np.array(FORMAT)} | {f"{part}.{name}": value.copy() for part, held in parts.items() for name, value in held.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `saved` gave; {} is the state before the first step."""
        if state and int(state["format"]) != FORMAT:
            raise ValueError(f"wanted a detector's state of format {FORMAT}, came {int(state['format'])}, from another version of Redline")
        for part, held in (("detector.", self.detector), ("alarm.", self.alarm)):
            held.state = {name.removeprefix(part): value.copy() for name, value in state.items() if name.startswith(part)} or None

    def bounds(self, threshold: float, first: int, end: int) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """The expected range (steps, features) at a threshold, in the features' units; NaN = no opinion, None = a detector without a band."""
        centre, spread = self.read("centre", first, end), self.read("spread", first, end)
        return (None, None) if centre is None or spread is None else (centre - threshold * spread, centre + threshold * spread)


def advance_together(tracks: Sequence[Track], x: np.ndarray) -> list[dict[str, np.ndarray]]:
    """What `advance` of each track says of its features in x (steps, tracks, features), to the bit; nothing is touched when it fails."""
    began, (steps, many, width), lead = time.perf_counter(), x.shape, tracks[0].settings
    one = Track(lead, tuple(floor for track in tracks for floor in track.floors), 0)
    verdict = lent([track.detector for track in tracks], one.detector).advance(x.reshape(steps, -1))  # type: ignore[attr-defined]
    row = np.fmax.reduce(verdict.score.reshape(x.shape), axis=2)  # (steps, tracks), NaN = no opinion
    columns = {"parts": verdict.score, "centre": verdict.centre, "spread": verdict.spread}  # (steps, tracks * features)
    alarm = lent([track.alarm for track in tracks], one.alarm).update(row)  # type: ignore[attr-defined]
    returned(one.detector, [track.detector for track in tracks])
    returned(one.alarm, [track.alarm for track in tracks])
    rows, spent = [], (time.perf_counter() - began) / many
    for i, track in enumerate(tracks):
        mine = slice(i * width, (i + 1) * width)
        told = {name: column[:, mine] for name, column in columns.items() if column is not None}
        rows.append({"score": row[:, i : i + 1], "alarm": alarm[:, i : i + 1]} | told)
        track.seconds, track.scored = track.seconds + spent, track.scored + steps
    return rows


def origin(stream: Stream) -> dict[str, Any]:
    """What a stream's numbers depend on: the same origin gives the same numbers."""
    about: dict[str, Any] = {"kind": type(stream).__name__, "names": list(stream.names)}
    if isinstance(stream, Simulated):
        return about | {"seed": stream.seed, "rate": stream.rate, "sizes": list(stream.sizes)}
    return about | {"title": stream.title, "total": getattr(stream, "total", None)}


def pieces(chunk: Chunk, steps: int) -> Iterator[Chunk]:
    """A chunk in parts of at most so many steps."""
    for i in range(0, len(chunk.time), steps):
        part = slice(i, i + steps)
        yield Chunk(chunk.time[part], chunk.x[part], None if chunk.label is None else chunk.label[part])


@dataclass
class Feed:
    """One stream with its buffer, its tracks, the settings applied to it and what was found under them."""

    name: str
    stream: Stream
    real: bool = False  # keeps its own clock; any other is played at PACE steps a second
    capacity: int = BUFFER  # steps
    applied: Settings = field(default_factory=Settings)
    undone: list[Settings] = field(default_factory=list)  # applied before, newest last
    tracks: dict[tuple[str, int, str, int, int], Track] = field(default_factory=dict)
    journal: deque[Anomaly] = field(default_factory=lambda: deque(maxlen=JOURNAL))
    lock: threading.RLock = field(default_factory=threading.RLock)
    points: int = 0
    anomalies: int = 0
    alarms: int = 0
    run: int = 0  # anomalous steps in a row, up to the newest
    noted: int = 0  # step up to which results are final and anomalies counted: none is counted twice, whatever is applied
    stored: int = 0  # step up to which results are in the ledger
    snapped: tuple[Track, int, int] | None = None  # track, its skips and step of the newest snapshot
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
    numbers: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)  # gives each anomaly its id

    def __post_init__(self) -> None:
        self.tape = self.blank(0)
        self.origin = origin(self.stream)
        self.plain = json.dumps(self.origin)

    def blank(self, start: int) -> Tape:
        """An empty buffer whose next step is `start`."""
        width = len(self.stream.names)
        return Tape(self.capacity, {"time": (1, float), "x": (width, float), "label": (width, np.int8)}, start)

    @property
    def end(self) -> int:
        return self.tape.end

    @property
    def watched(self) -> Track:
        """The track of the applied settings."""
        return self.track(self.applied)

    @property
    def pushed(self) -> bool:
        return isinstance(self.stream, Pushed)

    def rank(self, track: Track) -> tuple[Any, ...] | None:
        """What streams share whose tracks can score their new steps as one; None = this one goes alone."""
        steps, state = self.tape.end - track.end, track.detector.state
        if state is None or track.settings.detector not in ALIKE or steps > STEPS or track.end < self.tape.first:
            return None
        return track.settings.key, int(state["step"]), steps, len(self.stream.names)

    def track(self, settings: Settings) -> Track:
        """The track of these settings, made when it is not there yet; a new one starts at the buffer's oldest step."""
        found = self.tracks.get(settings.key)
        if found is not None:
            return found
        with self.lock:
            return self.tracks.setdefault(settings.key, Track(settings, tuple(self.stream.floors), self.tape.first, self.capacity))

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
        try:
            rows = track.advance(x)
        except Exception:
            self.begin_anew(track)
            raise
        self.learn(track, rows)

    def begin_anew(self, track: Track) -> None:
        """Puts another track in its place, since a failure may have left it with a part of some steps learned."""
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
        """Makes the newest steps (n,) of the applied track final; the threshold of this moment decides, and is not asked again."""
        first, self.noted = track.end - len(score), track.end
        above = score > self.applied.threshold
        found = self.found(track, first, score, alarm) if above.any() else []
        self.run = self.run if above[-1] else 0
        self.hand_on(score, alarm, found)

    def found(self, track: Track, first: int, score: np.ndarray, alarm: np.ndarray) -> list[Anomaly]:
        """Counts and remembers the anomalies among the steps from `first` on."""
        threshold, end = self.applied.threshold, first + len(score)
        above, anomalies = score > threshold, []
        low, high = track.bounds(threshold, first, end)
        parts, x, times = track.read("parts", first, end), self.tape.read("x", first, end), self.tape.read("time", first, end)
        for i in np.flatnonzero(above).tolist():
            f = int(np.nanargmax(parts[i]))  # type: ignore[index]
            self.run = self.run + 1 if i == 0 or above[i - 1] else 1
            self.anomalies += 1
            self.alarms += (called := bool(alarm[i] > threshold))
            bottom, top = (float(low[i, f]), float(high[i, f])) if low is not None and high is not None else (np.nan, np.nan)
            place = (self.anomalies, first + i, float(times[i, 0]), f, float(x[i, f]), bottom, top)
            anomalies.append(Anomaly(*place, float(score[i]), threshold, self.run, called, self.numbers()))
        self.journal.extend(anomalies)
        return anomalies

    def hand_on(self, score: np.ndarray, alarm: np.ndarray, found: list[Anomaly], late: tuple[Chunk, ...] = ()) -> None:
        """Sends the newest final steps (n,) on their way to the ledger; none of them when only settings or late points are new."""
        first = self.noted - len(score)
        time, x = self.tape.read("time", first, self.noted)[:, 0], self.tape.read("x", first, self.noted)
        said = (first, time, x, score, alarm, found, self.applied, self.snapshot())
        about = (self.real, self.live, self.stream.names, self.stream.units, self.source(), self.counts())
        self.outbox.put(Batch(self.name, *said, *about, tuple(self.undone), late, self.pushed))

    def declare(self, late: tuple[Chunk, ...] = ()) -> None:
        """Sends on what is new beside steps: the applied settings, late points."""
        with self.lock:
            self.hand_on(np.empty(0), np.empty(0), [], late)

    def snapshot(self) -> Snapshot | None:
        """Where a restart may begin, now and then: a track of its own history needs no state, only the step it began at."""
        track, since = self.watched, self.noted - self.capacity
        anew = self.snapped is None or self.snapped[:2] != (track, track.skips)
        if not anew and self.snapped and track.end - self.snapped[2] < self.capacity // SNAPSHOTS:
            return None
        begins = anew and not track.skips and track.begun == track.start >= self.tape.first
        step = track.start if begins else track.end
        self.snapped = (track, track.skips, step)
        return Snapshot(step, {} if begins else track.saved(), anew, since)

    def source(self) -> str:
        """What the numbers depend on, with what was injected, as JSON."""
        injections = getattr(self.stream, "injections", None)
        return json.dumps(self.origin | {"injections": [tuple(each) for each in injections[-JOURNAL:]]}) if injections else self.plain

    def counts(self) -> dict[str, Any]:
        """The counters, as of the newest final step."""
        points = self.points - (self.tape.end - self.noted)
        counted = {"points": points, "anomalies": self.anomalies, "alarms": self.alarms, "run": self.run, "begun": self.watched.begun}
        return counted | {"notes": dict(self.stream.notes), "period": self.stream.period}

    def same(self, old: Remembered) -> bool:
        """Whether this is the stream that a ledger remembers, so that its steps go on."""
        before = {name: value for name, value in json.loads(old.origin).items() if name != "injections"}
        return old.end > 0 and (self.real or isinstance(self.stream, Simulated)) and before == self.origin

    def recall(self, old: Remembered, now: float) -> None:
        """Goes on where the ledger says: the rows since a snapshot are scored again, to the same bits; after one of another version, anew."""
        chunk, counts, track = self.again(old), old.counts, Track(old.applied, tuple(self.stream.floors), old.first, self.capacity)
        try:
            track.load(old.state)
            track.begun, snapped = counts["begun"], (track, 0, old.first)
        except ValueError as error:
            snapped = None  # so that the next one takes its place
            log.warning("%s learns anew from step %d on: %s", self.name, old.first, error)
        with self.lock:
            self.applied, self.undone, self.tape = old.applied, list(old.undone), self.blank(old.first)
            self.tracks, self.snapped, self.noted, self.stored = {old.applied.key: track}, snapped, old.end, old.end
            for piece in pieces(chunk, self.capacity // 2):
                self.append(piece, now)
                self.catch_up(track, self.capacity)
            self.points, self.anomalies, self.alarms, self.run = (counts[name] for name in ("points", "anomalies", "alarms", "run"))
            self.journal.extend(Anomaly(*each) for each in old.anomalies)

    def again(self, old: Remembered) -> Chunk:
        """The steps from the snapshot to the last one committed: out of the ledger, or made once more by the simulator."""
        stream = self.stream
        if isinstance(stream, Simulated):
            injections = [(int(step), kind, float(size)) for step, kind, size in json.loads(old.origin).get("injections", [])]
            self.stream = type(stream)(stream.seed, stream.rate, injections, stream.sizes)
            self.stream.skip(old.first)
            return self.stream.take(old.end - old.first)
        if isinstance(stream, Pushed):
            stream.given, stream.last, stream.period = old.end, float(old.time[-1]) if len(old.time) else -np.inf, old.counts["period"]
            stream.notes.update(old.counts["notes"])
        return Chunk(old.time, old.x, None)


class Totals(NamedTuple):
    """All streams together."""

    streams: int
    points: int
    anomalies: int
    arrived: float  # wall seconds at which the newest step of any came, 0 = none yet


class Limits(NamedTuple):
    """What programs may do."""

    create: bool = True  # whether a source that nobody knows yet is opened at its first submission
    streams: int = 10_000  # pushed sources


OPEN = Limits()


Past = Callable[[str, None, float, int], Any]  # (stream, None, until seconds since the epoch, how many) -> the last points until then, None = unknown
Truth = Callable[[str, np.ndarray | None, np.ndarray], np.ndarray | None]  # (stream, its label (n, features), time (n,)) -> label


def known(name: str, label: np.ndarray | None, time: np.ndarray) -> np.ndarray | None:
    """The stream's own truth."""
    return label


class Monitor:
    """Owns the clock, the feeds and the one thread that writes them; everybody else only reads."""

    truth: Truth = staticmethod(known)  # what people said of a stream comes on top of its own labels
    counted = (-np.inf, Totals(0, 0, 0, 0.0))  # monotonic seconds, and what was counted then
    past: Past | None = None  # where the points of real streams are found that the buffer no longer has

    def __init__(
        self,
        streams: Mapping[str, tuple[Stream, bool]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ledger: Ledger | None = None,
        limits: Limits = OPEN,
    ):
        self.clock, self.wall, self.ledger, self.limits, self.speed, self.beaten = clock, wall, ledger, limits, 1.0, clock()
        self.outbox, self.numbers = Outbox(ledger), itertools.count(1 + (ledger.newest() if ledger else 0))
        self.feeds: dict[str, Feed] = {}
        self.clocked: dict[str, Feed] = {}  # those that give steps by the clock: all but the pushed ones
        self.looked: dict[str, Feed] = {}  # pushed ones that somebody looks at
        self.arrivals: deque[str] = deque()  # pushed ones with something to do
        self.broken: set[str] = set()  # pushed ones that failed and are tried again at the next beat
        self.changed: deque[Feed] = deque()  # those with settings that the ledger does not know yet
        self.applies = self.safe = 0  # times that settings were applied, and how many of them are in the ledger
        self.owing: dict[str, Pushed] = {}  # those with receipts to answer
        self.listeners: list[Listener] = []  # told of every batch after its commit, in the loop's thread; they must not wait
        self.room, self.creating = Room(), threading.Lock()
        self.wake, self.stopping = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        for name, (stream, real) in streams.items():
            self.adopt(Feed(name, stream, real, ready=ledger is None))
        self.adopt_pushed()

    # --- what readers and visitors may ask for

    @property
    def trouble(self) -> Failure | None:
        """Why nothing can be committed now; None = all is well."""
        return self.outbox.trouble

    @property
    def totals(self) -> Totals:
        """What there is in all; of 10,000 streams half a second old at most, however many ask."""
        now, feeds = self.clock(), list(self.feeds.values())
        if now - self.counted[0] > COUNTING * len(feeds):
            arrived = max((feed.arrived or 0.0 for feed in feeds), default=0.0)
            sums = sum(feed.points for feed in feeds), sum(feed.anomalies for feed in feeds)
            self.counted = now, Totals(len(feeds), *sums, arrived)
        return self.counted[1]

    def want(self, name: str, settings: Settings) -> Track:
        """The track somebody looks at; when it is new, the loop is woken to fill it."""
        feed = self.feeds[name]
        with feed.lock:
            track = feed.track(checked(settings, tuple(DETECTORS)))
            track.wanted = self.clock()
        if feed.pushed:
            self.looked[name] = feed
            if not feed.ready:
                self.arrivals.append(name)
        if track.end < feed.end or not feed.ready:
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
        self.roused(feed)
        with feed.lock:
            if settings != feed.applied:
                feed.undone = [*feed.undone[-19:], feed.applied]
                feed.applied = settings
                self.change(feed)
        self.wake.set()

    def undo(self, name: str) -> Settings:
        """Takes the last apply back."""
        feed = self.feeds[name]
        self.roused(feed)
        with feed.lock:
            if feed.undone:
                feed.applied = feed.undone.pop()
                self.change(feed)
                self.want(name, feed.applied)
            return feed.applied

    def change(self, feed: Feed) -> None:
        """Has the loop tell the ledger which settings are applied."""
        self.changed.append(feed)  # first: the loop takes what it counts for told
        self.applies += 1

    def kept(self, patience: float = 2.0) -> bool:
        """Waits until what was applied by now is in the ledger; False when that takes longer. Not for the loop's own thread."""
        wanted, until = self.applies, self.clock() + patience
        while self.safe < wanted and self.clock() < until:
            time.sleep(0.002)
        return self.safe >= wanted

    def roused(self, feed: Feed) -> None:
        """Waits a moment for a stream whose past is still being fetched."""
        until = self.clock() + RETRY
        while self.thread and not feed.ready and self.clock() < until:
            time.sleep(0.005)

    def inject(self, name: str, kind: str, size: float) -> int:
        """Makes an anomaly happen now; the number of the step that shows it first."""
        feed = self.feeds[name]
        with feed.lock:
            feed.stream.inject(kind, size)
            return feed.end

    def open(self, name: str, stream: Stream, about: Any = None, steps: int = 0) -> Feed:
        """Puts a stream in a slot, the newest wins; `steps` of it are taken at once. The same file again keeps its settings."""
        feed = Feed(name, stream, False, about=about, outbox=self.outbox, numbers=self.numbers.__next__)
        old = self.recalled(name)
        if old is not None and json.loads(old.origin) == feed.origin:
            feed.applied, feed.undone = old.applied, list(old.undone)
        self.fill_back(feed, steps)
        self.adopt(feed)
        self.wake.set()
        return feed

    def recalled(self, name: str) -> Remembered | None:
        """What the ledger knows of a stream; None where it cannot be asked just now."""
        try:
            return self.ledger.restore(name) if self.ledger else None
        except OSError as error:
            log.warning("%s starts under the default settings: %s", name, error)
            return None

    def submit(self, name: str, time: np.ndarray, x: np.ndarray, names: Sequence[str] = ()) -> Receipt:
        """Takes points from any thread: time (n,) seconds since the epoch, x (n, features); the receipt resolves when they are safe.

        `names` are the features of x in its order; a source has those of its first submission. Refused says what is wrong, Full to send again.
        """
        time, x = fitting(time, x, self.wall())
        feed = self.feeds.get(name) or self.created(name, tuple(names), x.shape[1])
        if not isinstance(feed.stream, Pushed):
            raise Refused("source", "a source that programs push into", f"{name!r}, which Redline feeds itself; choose another name")
        if self.stopping.is_set():
            raise Refused("points", "a service that runs", "them while it ends; send again")
        receipt = feed.stream.put(time, feed.stream.aligned(x, names))
        self.arrivals.append(name)
        self.wake.set()
        return receipt

    def created(self, name: str, names: tuple[str, ...], width: int) -> Feed:
        """The feed of a source that is seen for the first time."""
        named(name, names)
        names = names or (("value",) if width == 1 else tuple(f"value {i + 1}" for i in range(width)))
        if len(names) != width:
            raise Refused("values", f"{width} names, one for each column", f"{len(names)}")
        with self.creating:
            there = len(self.feeds) - len(self.clocked)
            if name in self.feeds:
                return self.feeds[name]
            if not self.limits.create:
                raise Refused("source", "a source that is known; new ones are not opened here, by the setting create", repr(name))
            if there >= self.limits.streams:
                raise Refused("source", f"at most {self.limits.streams:,} pushed sources, by the setting streams", f"another, {name!r}")
            return self.adopt(self.pushed(name, names))

    def pushed(self, name: str, names: Sequence[str], units: Sequence[str] = ()) -> Feed:
        """A feed for a pushed source, its buffer as long as memory allows."""
        stream = Pushed(name, names, units)
        many = len(self.feeds) - len(self.clocked) >= MANY
        feed = Feed(name, stream, True, max(BUFFER // 10, min(BUFFER // 10 if many else BUFFER, 20 * BUFFER // len(names))))
        stream.room, stream.known = self.room, lambda times: self.known(feed, times)
        return feed

    def adopt(self, feed: Feed) -> Feed:
        """Takes a feed in."""
        feed.outbox, feed.numbers = self.outbox, self.numbers.__next__
        if not feed.pushed:
            self.clocked[feed.name] = feed
        self.feeds[feed.name] = feed
        return feed

    def adopt_pushed(self) -> None:
        """Takes the sources in that programs pushed in before; their past comes when somebody pushes or looks."""
        for name, names, units in self.ledger.pushed() if self.ledger else ():
            if name not in self.feeds:
                self.adopt(self.pushed(name, names, units)).ready = False

    def known(self, feed: Feed, times: np.ndarray) -> np.ndarray:
        """Which of these times (n,) the source has sent before: those at hand, else those in the ledger."""
        held = feed.tape.read("time", feed.tape.first, feed.tape.end)[:, 0]
        found = np.isin(times, held)
        if self.ledger and not found.all():
            found[~found] = self.ledger.known(feed.name, times[~found])
        return found

    # --- the loop

    def start(self) -> None:
        """Starts the thread; the feeds are filled back first, so that nobody waits for a past."""
        self.thread = threading.Thread(target=self.run, name="monitor", daemon=True)
        self.thread.start()

    def stop(self) -> bool:
        """End the thread: what was taken is committed, what was not is told so. Return whether it has ended."""
        self.stopping.set()
        self.wake.set()
        thread = self.thread
        if thread is None:
            return True
        thread.join(timeout=ENDING)
        if not thread.is_alive():
            return True
        where = running(thread)
        log.warning("the loop still runs %.0f s after it was told to end, in %s; nothing more is acknowledged", ENDING, where)
        return False

    def run(self) -> None:
        self.begin()
        self.beaten = self.clock()
        while not self.stopping.is_set():
            self.beat()
            self.between(self.beaten + BEAT)
        self.pump()
        self.settle(force=True)
        for feed in list(self.feeds.values()):
            if isinstance(feed.stream, Pushed):
                feed.stream.abandon(ConnectionAbortedError("Redline has ended; these points are not acknowledged, send them again"))

    def begin(self) -> None:
        """Every stream gets its past: from the ledger, or filled back."""
        for feed in list(self.clocked.values()):
            if not self.stopping.is_set() and not (feed.real and feed.ready):
                self.guarded(feed, lambda feed=feed: self.revive(feed))  # type: ignore[misc]

    def between(self, until: float) -> None:
        """From one beat to the next: commits what comes in, fills tracks that somebody looks at, sleeps."""
        while not self.stopping.is_set():
            self.pump()
            busy = self.fill() or bool(self.arrivals)
            if (left := until - self.clock()) <= 0:
                return
            if not busy:
                self.wake.wait(left)
                self.wake.clear()

    def revive(self, feed: Feed) -> None:
        """Fetches what the ledger remembers of a stream; one that it does not know is filled back."""
        old = self.ledger.restore(feed.name) if self.ledger and not feed.ready else None
        if old is not None:
            feed.applied, feed.undone = checked(old.applied, tuple(DETECTORS)), list(old.undone)
        if old is not None and feed.same(old):
            feed.recall(old, self.wall())
        elif not feed.real:
            self.fill_back(feed, BUFFER)
        feed.ready, feed.failure = True, None

    def fill_back(self, feed: Feed, steps: int) -> None:
        """Takes steps at once, as if the stream had been watched for a while."""
        chunk = feed.stream.take(steps)
        feed.live = False
        if len(chunk.x):
            with feed.lock:
                feed.append(chunk, self.wall())
            feed.catch_up(feed.watched, steps)
        feed.live = True

    def beat(self) -> None:
        """One round: every stream gives what is due, its applied track scores it, and the ledger takes it."""
        now = self.clock()
        elapsed, self.beaten = min(now - self.beaten, 1.0), now  # a machine that slept owes no burst
        for feed in list(self.clocked.values()):
            if feed.failure is None or now >= feed.retry:
                self.guarded(feed, lambda feed=feed: self.take(feed, elapsed))  # type: ignore[misc]
        self.arrivals.extend(name for name in self.broken if now >= self.feeds[name].retry)
        self.broken.difference_update(self.arrivals)
        self.pump()
        self.drop_idle(now)

    def take(self, feed: Feed, elapsed: float) -> None:
        if not feed.ready:
            self.revive(feed)
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

    def pump(self) -> None:
        """Takes what was pushed and commits; while commits fail nothing is taken, so that queues fill and say so."""
        now, applies = self.clock(), self.applies
        while self.changed:
            feed = self.changed.popleft()
            self.guarded(feed, feed.declare)
        names = {self.arrivals.popleft() for _ in range(len(self.arrivals))} if self.trouble is None else set()
        feeds = [self.feeds[name] for name in names]
        self.broken.update(feed.name for feed in feeds if feed.failure is not None and now < feed.retry)
        feeds = [feed for feed in feeds if feed.name not in self.broken]
        while feeds:
            feeds = [feed for feed in feeds if self.guarded(feed, lambda feed=feed: self.receive(feed))]  # type: ignore[misc]
            self.score(feeds)
            feeds = [feed for feed in feeds if feed.failure is None and feed.stream.more]  # type: ignore[attr-defined]
        self.settle()
        if self.trouble is None:
            self.safe = applies

    def receive(self, feed: Feed) -> bool:
        """Takes what was pushed into one source, or a part of it; whether there was any."""
        if not feed.ready:
            self.revive(feed)
        stream = feed.stream
        assert isinstance(stream, Pushed)
        if feed.watched.end < feed.end:
            feed.catch_up(feed.watched, BUFFER)
        chunk = stream.take(feed.capacity // 2)
        self.owing[feed.name] = stream
        if stream.late:
            late, stream.late = tuple(stream.late), []
            feed.declare(late)
        feed.failure = None
        if not len(chunk.time):
            return False
        with feed.lock:
            feed.append(chunk, self.wall())
        return True

    def score(self, feeds: Sequence[Feed]) -> None:
        """Scores what feeds have received: those of one rank together, the others each by itself."""
        ranks: dict[Any, list[tuple[Feed, Track]]] = {}
        for feed in feeds:
            track = feed.watched  # asked once: meanwhile somebody may apply other settings
            ranks.setdefault(feed.rank(track), []).append((feed, track))
        for rank, kin in ranks.items():
            most = max(FEW, CELLS // (rank[2] * rank[3])) if rank else 1
            for i in range(0, len(kin), most):
                if not rank or not self.scored(kin[i : i + most]):
                    for feed, _ in kin[i : i + most]:
                        self.guarded(feed, lambda feed=feed: feed.catch_up(feed.watched, BUFFER))  # type: ignore[misc]

    def scored(self, kin: Sequence[tuple[Feed, Track]]) -> bool:
        """Scores streams of one rank together; False when that is not possible, and nothing has happened."""
        if len(kin) < FEW:
            return False
        try:
            x = np.concatenate([feed.tape.read("x", track.end, feed.end) for feed, track in kin], axis=1)
            rows = advance_together([track for _, track in kin], x.reshape(len(x), len(kin), -1))
        except Exception as error:  # noqa: BLE001  each is tried by itself, and the one whose fault it is says so
            log.warning("%d streams could not be scored together: %s", len(kin), error)
            return False
        for (feed, track), each in zip(kin, rows):
            self.guarded(feed, lambda feed=feed, track=track, each=each: feed.learn(track, each))  # type: ignore[misc]
        return True

    def settle(self, force: bool = False) -> None:
        """Commits what waits, answers receipts, tells the listeners."""
        done, tell = self.outbox.settle(self.clock(), force)
        for batch in done:
            if batch.name in self.feeds:
                self.feeds[batch.name].stored = max(self.feeds[batch.name].stored, batch.end)
        if self.trouble is None:
            for name, stream in list(self.owing.items()):
                stream.resolve(self.feeds[name].stored)
                if not stream.open:
                    del self.owing[name]
        while self.outbox.holes:
            self.feeds[self.outbox.holes.pop()].watched.skips += 1
        for listener in self.listeners if tell else ():
            self.told(listener, tell)

    def told(self, listener: Listener, batches: list[Batch]) -> None:
        try:
            listener(batches)
        except Exception as error:  # noqa: BLE001  a listener's fault must not stop the loop; it is logged
            failed("a listener", error)

    def fill(self) -> bool:
        """Advances the most recently wanted track that lags by one slice; False when none lags."""
        now = self.clock()
        lagging = [(track.wanted, feed, track) for feed, track in self.tracks() if track.end < feed.end and now >= track.retry]
        if not lagging:
            return False
        _, feed, track = max(lagging, key=lambda item: item[0])
        try:
            feed.catch_up(track, track.slice)
        except Exception as error:  # noqa: BLE001  one detector's fault must not stop the others; it is logged, shown and tried again
            track = feed.tracks.get(track.settings.key, track)
            track.failure, track.retry = failed(f"{track.settings.detector} on {feed.name}", error), self.clock() + RETRY
        return True

    def near(self) -> list[Feed]:
        """The feeds whose tracks may lag: those by the clock, and the pushed ones that somebody looks at."""
        return [*list(self.clocked.values()), *list(self.looked.values())]

    def tracks(self) -> Iterator[tuple[Feed, Track]]:
        for feed in self.near():
            for track in list(feed.tracks.values()):
                yield feed, track

    def drop_idle(self, now: float) -> None:
        """Lets go of tracks that nobody looked at for a while, and of the least looked at when there are too many."""
        near = self.near()
        spare = sorted(
            ((track.wanted, feed, key) for feed in near for key, track in list(feed.tracks.items()) if key != feed.applied.key), key=lambda t: t[0]
        )
        excess = len(spare) + len(near) - TRACKS
        for i, (wanted, feed, key) in enumerate(spare):
            if i < excess or wanted < now - IDLE:
                with feed.lock:
                    feed.tracks.pop(key, None)
        for feed in list(self.looked.values()):
            if len(feed.tracks) < 2 and feed.watched.wanted < now - IDLE:
                del self.looked[feed.name]

    def guarded(self, feed: Feed, work: Callable[[], Any]) -> Any:
        """Runs one stream's work, whose answer it gives; its failure is logged, shown on its tab and tried again, and the other streams go on."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  the boundary between streams
            feed.failure = failed(feed.name, error)
            feed.retry = self.clock() + RETRY
            if feed.pushed:
                self.broken.add(feed.name)
            return None
