"""The monitor: the one loop that takes steps from the streams and scores each once per setting."""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from redline.engine.feed import MAX_UNDO, Feed, MonitoredStream
from redline.engine.fleet.series_monitor import SERIES_SETTINGS, SeriesLimits, SeriesMonitor
from redline.engine.fleet.series_reports import SERIES_NAMES
from redline.engine.fleet.series_views import SeriesViews
from redline.engine.fleet.stored import SeriesStore
from redline.engine.maintenance import MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.results import (
    Batch,
    BatchListener,
    Failure,
    RestoredStream,
    ResultStore,
    StoredSource,
    StreamInfo,
    log,
    log_failure,
)
from redline.engine.stacking import MIN_STACKED, StackingKey, advance_stacked, stacking_key
from redline.engine.tape import BUFFER_STEPS, split_chunk
from redline.engine.track import Track
from redline.settings import ServerSettings, Settings, initial_settings, validate_settings
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import (
    OldAllowance,
    PushedStream,
    QueueBudget,
    Receipt,
    SourceQuotaReached,
    SubmissionRefused,
    latest_time,
    normal_name,
    validate_points,
    validate_source_name,
)
from redline.sources.recording import Recording
from streams import UNKNOWN_PRESET, Preset, Stream

# Tracks kept over all streams: two races and a comparison of all detectors, and a track for each of
# the streams of the page, with room to spare
MAX_TRACKS = 96
# values, steps x features, that the tracks kept beside the applied ones may have scores of; one
# takes about 40 bytes
MAX_TRACK_VALUES = 10_000_000
# values of a recording that are kept, so that every row of it can be reached
MAX_RECORDING_VALUES = 500_000
IDLE_SECONDS = 120.0  # seconds after which a track that is not requested is evicted
PATIENT_SECONDS = 3.0  # seconds that a patient request of a track stands back behind others
BEAT_SECONDS = 0.1  # seconds between two rounds
MAX_ELAPSED = 1.0  # seconds a round makes up for; a machine that slept owes no burst
SIMULATED_PACE = 10.0  # steps a wall second at 1x, for streams without a clock of their own
RETRY_SECONDS = 5.0  # seconds until a failed stream is tried again
STOP_SECONDS = 5.0  # seconds that ending the loop may take
SPEEDS = (1, 2, 5, 10, 20, 50, 100)
FORGETTING_SECONDS = 1.0  # seconds between two looks for silent sources
FORGOTTEN_AT_ONCE = 5  # silent sources; each costs a commit
TURN_SECONDS = 0.5  # that full queues may keep the other streams waiting
# pushed streams with a whole buffer; those beyond it keep a tenth, the rest is in the store
MANY_SOURCES = 100
# features of pushed sources that begin with the preset given; those beyond begin as a series does,
# with a detector that takes a thousandth of its memory and a tenth of its time
MAX_PRESET_FEATURES = 200
# seconds per stream for which totals are good, so that counting takes a hundredth of the time
COUNTING_SECONDS = 5e-5
COUNTING_SERIES = 1e-6  # the same, per series
_T = TypeVar("_T")


def running_function(thread: threading.Thread) -> str:
    """Name the function that a thread is in, with its file and line."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return "no function any more"
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"


class Totals(NamedTuple):
    """All streams together."""

    streams: int
    points: int
    anomalies: int
    arrived: float  # wall seconds at which the newest step of any came, 0 = none yet


class Limits(NamedTuple):
    """What clients that push points may do."""

    create: bool = True  # whether a new source is opened at its first submission
    streams: int = 3_000  # pushed sources
    features: int = 5_000  # of all pushed sources together; each has its buffer
    client_streams: int = 2_000  # pushed sources that one client has created
    client_series: int = 20_000  # series that one client has created
    silent_seconds: float = 0.0  # after which a pushed source is forgotten; 0 = never
    ahead: float = 600.0  # seconds that a time may be ahead of the clock, of a fast source
    late: int = 200_000  # old points a minute, of one source and of all series together

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> Limits:
        """Return the limits that a server is started with."""
        return cls(
            create=bool(settings.create),
            streams=settings.streams,
            features=settings.features,
            client_streams=settings.client_streams,
            client_series=settings.client_series,
            silent_seconds=86_400.0 * settings.forget_days,
            ahead=settings.ahead,
            late=settings.late_limit,
        )


NO_LIMITS = Limits()


class SeriesReceipts(NamedTuple):
    """What became of samples of many series, by the source, "" = all series together."""

    taken: list[tuple[str, Receipt]]
    refused: list[tuple[str, SubmissionRefused]]


class Monitor:
    """Owns the clock, the feeds and the one thread that writes them; all others only read."""

    thread: threading.Thread | None = None  # of the loop; None = it was not started

    def __init__(
        self,
        streams: Mapping[str, MonitoredStream],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        store: ResultStore | None = None,
        limits: Limits = NO_LIMITS,
        directory: SeriesDirectory | None = None,
        source_preset: Preset = MappingProxyType({}),
    ):
        """Make the feeds; `start` runs the loop.

        Args:
            streams: by name; pushed sources are not among them, they are added later.
            clock: returns monotonic seconds.
            wall: returns seconds since the epoch.
            store: where results are committed; None = they are final at once.
            limits: what clients that push points may do.
            directory: the numbers of the series that come in through the doors.
            source_preset: what a pushed source begins with, while they are few.
        """
        self.source_preset = source_preset
        self.clock, self.wall = clock, wall
        self.store = store
        self.limits = limits
        self.budget = QueueBudget()
        self.speed = 1.0
        self.last_beat = clock()
        self.outbox = Outbox(store)
        self.maintenance = MaintenanceWindows()
        self.next_id = itertools.count(1 + (store.last_anomaly_id() if store else 0)).__next__
        self.feeds: dict[str, Feed] = {}
        self.clocked: dict[str, Feed] = {}  # all but the pushed ones: they give steps by the clock
        self.viewed: dict[str, Feed] = {}  # pushed ones of which a track was requested lately
        self.sources_to_process: deque[str] = deque()  # pushed ones with something to process
        self.sources_to_retry: set[str] = set()  # pushed ones to be tried again at a later round
        self.unsaved_settings: deque[Feed] = deque()  # feeds whose settings are to be stored
        self.forgotten: dict[str, StoredSource] = {}  # not watched until they send again
        self.next_forgetting = -math.inf  # monotonic seconds
        self.refused_sources = 0  # submissions that would have created a source beyond a limit
        # feeds whose settings could not be put into the outbox, monotonic seconds of the next try
        self.failed_settings: dict[str, tuple[Feed, float]] = {}
        self.removals: deque[tuple[str, Future[None]]] = deque()  # sources to be removed
        # feeds whose settings were put into the outbox, and how often they had been applied by then
        self.emitted_settings: list[tuple[Feed, int]] = []
        self.unacknowledged: dict[str, PushedStream] = {}  # those with receipts to resolve
        self.listeners: list[BatchListener] = []
        # get the name of each source that is forgotten, in the loop's thread
        self.forgetting_listeners: list[Callable[[str], None]] = []
        self.creating = threading.Lock()
        self.wake = threading.Event()
        self.stopping = threading.Event()
        self.source_troubles: dict[str, str] = {}  # what brings points -> why it brings none now
        self.series = SeriesMonitor(
            directory or SeriesDirectory(),
            self.outbox,
            store if isinstance(store, SeriesStore) else None,
            self.budget,
            self.maintenance,
            self.next_id,
            SeriesLimits(limits.create, limits.client_series, limits.late),
        )
        self.views = SeriesViews(self.series)
        self._totals = (-np.inf, Totals(0, 0, 0, 0.0))  # monotonic seconds of the counting, counts
        self._add_streams(streams)
        self._add_known_sources()

    def _add_streams(self, streams: Mapping[str, MonitoredStream]) -> None:
        """Add the streams that are not pushed."""
        ready = self.store is None
        for name, (stream, own_clock, settings) in streams.items():
            self._add_feed(self._make_feed(name, stream, own_clock, ready=ready, applied=settings))

    # --- what readers and visitors may ask for

    @property
    def trouble(self) -> Failure | None:
        """Why nothing can be committed now; None = commits succeed."""
        return self.outbox.trouble

    @property
    def trouble_sentences(self) -> list[str]:
        """What a person must know: nothing is stored, or points do not come; each is retried."""
        sources = sorted(self.source_troubles.copy().items())
        found = [f"{kind}: {why}; it is tried again." for kind, why in sources]
        if self.trouble is not None:
            found.insert(0, f"Nothing is stored now: {self.trouble.text}; it is tried again.")
        return found

    @property
    def totals(self) -> Totals:
        """The counts of all streams; of 10,000 streams at most half a second old."""
        now = self.clock()
        feeds = list(self.feeds.values())
        good_for = COUNTING_SECONDS * len(feeds) + COUNTING_SERIES * self.series.roster.size
        if now - self._totals[0] > good_for:
            series = self.series.totals
            points = sum(feed.points for feed in feeds) + series.points
            anomalies = sum(feed.anomalies for feed in feeds) + series.anomalies
            arrived = max((feed.arrived or 0.0 for feed in feeds), default=series.arrived)
            streams = len(feeds) + series.streams
            self._totals = now, Totals(streams, points, anomalies, max(arrived, series.arrived))
        return self._totals[1]

    def find_feed(self, name: str) -> Feed | None:
        """Return the feed of a stream, or of a series, which is then looked at; None = unknown."""
        return self.feeds.get(name) or self.views.open(name)

    def knows(self, name: str) -> bool:
        """Return whether there is a stream or a series with this name."""
        return name in self.feeds or self.series.find(name) is not None

    def describe(self, name: str) -> StreamInfo | None:
        """Return how a stream or a series is described, without looking at it; None = unknown."""
        feed = self.feeds.get(name) or self.views.feeds.get(name)
        if feed is not None:
            return feed.info
        if self.series.find(name) is None:
            return None
        return StreamInfo(name, SERIES_NAMES, ("",), 1.0)

    def feed(self, name: str) -> Feed:
        """Return the feed of a stream, as `find_feed`; KeyError = there is no such stream."""
        found = self.find_feed(name)
        if found is None:
            raise KeyError(name)
        return found

    def request_track(self, name: str, settings: Settings, patient: bool = False) -> Track:
        """Return the track of these settings; the loop is woken to fill a new one.

        A patient request is served after all others of the last PATIENT_SECONDS.
        """
        feed = self.feed(name)
        asked = self.clock() - (PATIENT_SECONDS if patient else 0.0)
        with feed.lock:
            track = feed.track(validate_settings(settings))
            track.requested_at = max(track.requested_at, asked)
        if feed.pushed:
            self.viewed[name] = feed
            if not feed.ready:
                self.sources_to_process.append(name)
        if track.end < feed.end or not feed.ready:
            self.wake.set()
        return track

    def progress(self, name: str, track: Track) -> float:
        """Return the share of the buffer that a track has scored, 0 to 1."""
        tape = self.feed(name).tape
        return min(1.0, max(0.0, 1 - (tape.end - track.end) / max(tape.kept, 1)))

    def apply(self, name: str, settings: Settings) -> None:
        """Apply settings to a stream; anomalies found before stay as they were found."""
        feed = self.feed(name)
        self.request_track(name, settings)
        self._wait_until_restored(feed)
        with feed.lock:
            if settings != feed.applied:
                feed.undone = [*feed.undone[1 - MAX_UNDO :], feed.applied]
                feed.applied = settings
                self._settings_changed(feed)
        self.wake.set()

    def undo(self, name: str) -> Settings:
        """Take the last `apply` back; return the settings that are applied now."""
        feed = self.feed(name)
        self._wait_until_restored(feed)
        with feed.lock:
            if feed.undone:
                feed.applied = feed.undone.pop()
                self._settings_changed(feed)
                self.request_track(name, feed.applied)
                self.wake.set()
            return feed.applied

    def _settings_changed(self, feed: Feed) -> None:
        """Have the loop store the applied settings."""
        feed.settings_applied += 1  # before queueing: what the loop takes must be counted
        self.unsaved_settings.append(feed)

    def wait_until_stored(self, name: str | None = None, patience: float = 2.0) -> bool:
        """Wait until the settings of a stream, None = of all, applied by now are stored.

        False = not within `patience` seconds. Not for the loop's own thread.
        """
        feeds = list(self.feeds.values()) if name is None else [self.feed(name)]
        wanted = [(feed, feed.settings_applied) for feed in feeds]
        until = self.clock() + patience
        while waiting := any(feed.settings_stored < count for feed, count in wanted):
            if self.clock() >= until:
                break
            time.sleep(0.002)
        return not waiting

    def _wait_until_restored(self, feed: Feed) -> None:
        """Wait a moment for a stream whose past is being restored."""
        until = self.clock() + RETRY_SECONDS
        while self.thread and not feed.ready and self.clock() < until:
            time.sleep(0.005)

    def inject(self, name: str, kind: str, size: float) -> int:
        """Inject a fault into a simulated stream; return the step that shows it first."""
        feed = self.feed(name)
        self._wait_until_restored(feed)
        with feed.lock:
            feed.stream.inject(kind, size)
            return feed.end

    def open(
        self,
        name: str,
        stream: Stream,
        about: Any = None,
        steps: int = 0,
        applied: Settings | None = None,
        replaces: Feed | None = None,
    ) -> Feed:
        """Put a stream in a slot, the newest wins, and take `steps` of it at once.

        The buffer of a recording holds all of its rows, up to MAX_RECORDING_VALUES. The same file
        again keeps its settings.

        Args:
            name: the slot.
            stream: what is put there.
            about: where it came from, such as the bytes of its file.
            steps: those taken at once.
            applied: the settings that it runs under; None = those the store knows, else its own.
            replaces: the feed whose place it takes; where another one took it meanwhile, that one
                stays and is returned. None = the place of any.
        """
        capacity = recording_capacity(stream) if isinstance(stream, Recording) else BUFFER_STEPS
        feed = self._make_feed(name, stream, own_clock=False, about=about, capacity=capacity)
        old = self._restore_quietly(name)
        if old is not None and json.loads(old.origin) == feed.origin:
            feed.applied = old.applied
            feed.undone = list(old.undone)
        if applied is not None:
            feed.applied = applied
        self.backfill(feed, steps)
        present = self.feeds.get(name)
        if replaces is not None and present is not None and present is not replaces:
            return present
        self._add_feed(feed)
        if applied is not None:
            self._settings_changed(feed)
        self.wake.set()
        return feed

    def _restore_quietly(self, name: str) -> RestoredStream | None:
        """Return what the store knows of a stream; None also where it cannot answer now."""
        try:
            return self.store.load_stream(name) if self.store else None
        except OSError as error:
            log.warning("%s starts under the default settings: %s", name, error)
            return None

    # --- points that clients push

    def submit(
        self,
        name: str,
        time: np.ndarray,
        x: np.ndarray,
        names: Sequence[str] = (),
        creator: str = "",
    ) -> Receipt:
        """Queue points of a source, from any thread; the receipt resolves when they are committed.

        Args:
            name: the source; a new one is opened where the limits allow.
            time: (n,) seconds since the epoch.
            x: (n, features).
            names: the features of x in its order; a source has those of its first submission.
            creator: the client, whose new sources are counted; "" = this program.

        Raises:
            SubmissionRefused: says what is wrong; QueueFull: send the same again later.
        """
        if name not in self.feeds:  # one of an older store may have a name as it came
            name = normal_name(name)
            if self.series.find(name) is not None:
                return self._submit_to_series(name, time, x, names)
        known = self.feeds.get(name)
        latest = self.latest_time(known.stream.period if known else 0.0)
        time, x = validate_points(time, x, latest)
        feed = known or self._create_source(name, tuple(names), x.shape[1], creator)
        if not isinstance(feed.stream, PushedStream):
            wanted = "a source that programs push into"
            came = f"{name!r}, which Redline feeds itself; choose another name"
            raise SubmissionRefused("source", wanted, came)
        self._refuse_while_stopping()
        feed.submitted = self.wall()
        receipt = feed.stream.enqueue(time, feed.stream.to_columns(x, names))
        self.sources_to_process.append(name)
        self.wake.set()
        return receipt

    def _refuse_while_stopping(self) -> None:
        """Refuse points while the loop ends; SubmissionRefused says so."""
        if self.stopping.is_set():
            wanted = "a service that runs"
            raise SubmissionRefused("points", wanted, "them while it ends; send again")

    def latest_time(self, period: float = 0.0) -> float:
        """Return the last time that a source with this period may send now, all in seconds."""
        return latest_time(self.wall(), self.limits.ahead, period)

    def _submit_to_series(
        self, name: str, time: np.ndarray, x: np.ndarray, names: Sequence[str]
    ) -> Receipt:
        """Queue points of a name that is a series; see `submit`."""
        time, x = validate_points(time, x, self.latest_time())
        if x.shape[1] != 1 or tuple(names) not in ((), SERIES_NAMES):
            wanted = f"one number a point: {name!r} is a series, as other doors send them"
            raise SubmissionRefused("values", wanted, ", ".join(names) or f"{x.shape[1]} columns")
        numbers = np.full(len(time), self.series.directory.numbers[name])
        receipt = self.series.submit(numbers, time, x[:, 0])
        self.wake.set()
        return receipt

    def submit_series(
        self, series: np.ndarray, time: np.ndarray, value: np.ndarray, creator: str = ""
    ) -> SeriesReceipts:
        """Queue samples of series, all (n,), from any thread; see `SeriesMonitor.submit`.

        A series that has the name of a source is that source. The samples of new series beyond a
        limit are refused, those of the others are taken.
        """
        receipts: list[tuple[str, Receipt]] = []
        refused: list[tuple[str, SubmissionRefused]] = []
        known = self.series.roster.knows(series)
        if not known.all():
            kept = np.ones(len(series), bool)
            new: list[int] = []
            for number in np.unique(series[~known]).tolist():
                name = self.series.directory.texts[number]
                if name in self.feeds or name in self.forgotten:
                    rows = series == number
                    kept &= ~rows
                    try:
                        receipt = self.submit(str(name), time[rows], value[rows], (), creator)
                        receipts.append((str(name), receipt))
                    except SubmissionRefused as error:
                        refused.append((str(name), error))
                else:
                    new.append(number)
            beyond, refusal = self.series.refuse_new(new, creator)
            if refusal is not None:
                kept &= ~np.isin(series, beyond)
                self.refused_sources += len(beyond)
                refused.append(("", refusal))
            series, time, value = series[kept], time[kept], value[kept]
        if len(series):
            try:
                self._refuse_while_stopping()
                receipts.append(("", self.series.submit(series, time, value, creator)))
            except SubmissionRefused as error:
                refused.append(("", error))
        self.wake.set()
        return SeriesReceipts(receipts, refused)

    def _create_source(self, name: str, names: tuple[str, ...], width: int, creator: str) -> Feed:
        """Return the feed of a source whose first points these are, or that was forgotten."""
        validate_source_name(name, names)
        numbered = tuple(f"value {i + 1}" for i in range(width))
        names = tuple(map(normal_name, names)) or (("value",) if width == 1 else numbered)
        if len(names) != width:
            wanted = f"{width} names, one for each column"
            raise SubmissionRefused("values", wanted, f"{len(names)}")
        with self.creating:
            if name in self.feeds:
                return self.feeds[name]
            past = self.forgotten.get(name, StoredSource(name, names, (), creator))
            try:
                self._refuse_beyond_limits(past)
            except SubmissionRefused:
                self.refused_sources += 1
                raise
            return self.add_source(name, past.names, creator=creator)

    def _refuse_beyond_limits(self, source: StoredSource) -> None:
        """Refuse a source that would be one too many; a forgotten one is no new one."""
        name = repr(source.name)
        if not self.limits.create and source.name not in self.forgotten:
            wanted = "a source that is known; new ones are not opened here, by the setting "
            raise SubmissionRefused("source", wanted + "create", name)
        pushed = [feed for feed in list(self.feeds.values()) if feed.pushed]
        if len(pushed) >= self.limits.streams:
            wanted = f"at most {self.limits.streams:,} pushed sources, by the setting streams"
            raise SubmissionRefused("source", wanted, f"another, {name}")
        created = sum(feed.creator == source.creator for feed in pushed) if source.creator else 0
        if created >= self.limits.client_streams:
            wanted = (
                f"at most {self.limits.client_streams:,} sources created by {source.creator}, by "
                "the setting client-streams"
            )
            advice = "remove some with DELETE /api/streams/{source}, or raise the setting"
            raise SourceQuotaReached("source", wanted, f"another, {name}; {advice}")
        width = len(source.names)
        taken = sum(len(feed.stream.names) for feed in pushed)
        if taken + width > self.limits.features:
            raise SubmissionRefused(
                "values",
                f"at most {self.limits.features:,} features of all pushed sources, by the setting "
                "features",
                f"{width:,} more, of {name}, beside {taken:,}",
            )

    def add_source(
        self,
        name: str,
        names: Sequence[str],
        units: Sequence[str] = (),
        ready: bool = True,
        creator: str = "",
    ) -> Feed:
        """Add a pushed source, with a buffer as long as the number of sources allows.

        One that was forgotten keeps its features and its creator, and continues its past.
        """
        past = self.forgotten.pop(name, None)
        if past is not None:
            _, names, units, creator, *_ = past
            ready = False
        known = partial(self._accepted_before, name)
        allowance = OldAllowance(self.limits.late)
        stream = PushedStream(name, names, units, self.budget, known, allowance)
        many = len(self.feeds) - len(self.clocked) >= MANY_SOURCES
        most = BUFFER_STEPS // 10 if many else BUFFER_STEPS
        capacity = max(BUFFER_STEPS // 10, min(most, 20 * BUFFER_STEPS // len(names)))
        stream.preset = self._starting_preset(len(names))
        feed = self._make_feed(
            name,
            stream,
            own_clock=True,
            capacity=capacity,
            ready=ready,
            applied=initial_settings(stream),
        )
        feed.creator = creator
        feed.submitted = self.wall()
        return self._add_feed(feed)

    def _starting_preset(self, width: int) -> Preset:
        """Return what a new pushed source of so many features begins with."""
        pushed = [feed for feed in list(self.feeds.values()) if feed.pushed]
        taken = sum(len(feed.stream.names) for feed in pushed)
        if not self.source_preset or taken + width <= MAX_PRESET_FEATURES:
            return self.source_preset
        return {name: getattr(SERIES_SETTINGS, name) for name in UNKNOWN_PRESET}

    def remove_source(self, name: str) -> Future[None]:
        """Remove a pushed source with its points, from any thread.

        The future resolves when the loop has removed it, and fails with the error of the store.
        Points that wait in its queue are refused.

        Raises:
            SubmissionRefused: the stream is not a pushed source.
        """
        number = self.series.find(name)
        if number is not None:
            self.views.close(name)
            removed = self.series.remove(number)
            self.wake.set()
            return removed
        feed = self.feeds.get(name)
        if feed is not None and not isinstance(feed.stream, PushedStream):
            wanted = "a source that programs push into"
            raise SubmissionRefused("source", wanted, f"{name!r}, which Redline feeds itself")
        removed = Future()
        self.removals.append((name, removed))
        self.wake.set()
        return removed

    def _remove_sources(self) -> None:
        """Remove the sources that were asked to be removed, once nothing of them waits."""
        for _ in range(len(self.removals)):
            name, removed = self.removals.popleft()
            try:
                self._remove_source(name)
            except OSError as error:
                removed.set_exception(error)
            else:
                removed.set_result(None)

    def _remove_source(self, name: str) -> None:
        """Commit what waits, delete what is stored of a source, then drop it."""
        if name not in self.feeds and name not in self.forgotten:  # asked for twice
            return
        self._commit_before_drop(name)
        if self.store:
            self.store.remove_stream(name)
        self.forgotten.pop(name, None)
        if name in self.feeds:
            came = f"{name!r}, removed"
            self._drop_feed(name, SubmissionRefused("source", "a source that is there", came))

    def _commit_before_drop(self, name: str) -> None:
        """Commit what waits, so that nothing of a source comes later; OSError = it failed."""
        self.commit_results(force=True)
        if self.trouble is not None:
            raise OSError(f"{name} was not removed: {self.trouble.text}")

    def _drop_feed(self, name: str, refusal: Exception) -> None:
        """Drop the feed of a pushed source; what waits in its queue is refused."""
        stream = self.feeds.pop(name).stream
        self.viewed.pop(name, None)
        self.unacknowledged.pop(name, None)
        self.sources_to_retry.discard(name)
        assert isinstance(stream, PushedStream)
        stream.abandon(refusal)
        stream.release(stream.waiting)

    def _forget_silent_sources(self, now: float) -> None:
        """Forget some of the pushed sources that have been silent for too long.

        One that never sent anything was opened by the operator, and stays.
        """
        if not self.limits.silent_seconds or now < self.next_forgetting:
            return
        self.next_forgetting = now + FORGETTING_SECONDS
        since = self.wall() - self.limits.silent_seconds
        silent = [
            feed.name
            for feed in list(self.feeds.values())
            if feed.pushed and feed.submitted < since and (feed.end or not feed.ready)
        ]
        for name in silent[:FORGOTTEN_AT_ONCE]:
            try:
                self._forget_source(name)
            except OSError as error:
                log.warning("the silent source %s is not forgotten yet: %s", name, error)
                return
        forgotten = self.series.forget_silent(since) if self.trouble is None else []
        if forgotten:
            log.info("%d silent series are forgotten, such as %s", len(forgotten), forgotten[0])

    def _forget_source(self, name: str) -> None:
        """Drop the feed of a source; its history and settings stay in the store."""
        feed = self.feeds[name]
        self._commit_before_drop(name)
        with self.creating:  # no submission may find it neither here nor there
            if self.store:
                self.store.forget_stream(name)
                stream = feed.stream
                self.forgotten[name] = StoredSource(name, stream.names, stream.units, feed.creator)
            self._drop_feed(name, ConnectionAbortedError(f"{name} was forgotten; send again"))
        for listener in self.forgetting_listeners:
            try:
                listener(name)
            except Exception as error:  # noqa: BLE001  logged: a listener must not stop the loop
                log_failure("a listener", error)

    def _add_known_sources(self) -> None:
        """Add the pushed sources of the store; their past is restored on the first request."""
        for source in self.store.pushed_streams() if self.store else ():
            if source.forgotten:
                self.forgotten[source.name] = source
            elif source.name not in self.feeds:
                feed = self.add_source(
                    source.name, source.names, source.units, ready=False, creator=source.creator
                )
                feed.submitted = source.seen

    def _accepted_before(self, name: str, times: np.ndarray) -> np.ndarray:
        """Return (m,) bool: which of the first m of times (n,) the source has sent before.

        m < n where the store needs another call for the rest.
        """
        tape = self.feeds[name].tape
        found = np.isin(times, tape.read("time", tape.first, tape.end)[:, 0])
        unknown = np.flatnonzero(~found)
        if not self.store or not len(unknown):
            return found
        matched = self.store.match_times(name, times[unknown])
        found[unknown[: len(matched)]] = matched
        return found if len(matched) == len(unknown) else found[: unknown[len(matched)]]

    def _make_feed(self, name: str, stream: Stream, own_clock: bool, **fields: Any) -> Feed:
        shared: dict[str, Any] = {
            "outbox": self.outbox,
            "next_id": self.next_id,
            "maintenance": self.maintenance,
        }
        return Feed(name, stream, own_clock, **shared, **fields)

    def _add_feed(self, feed: Feed) -> Feed:
        if not feed.pushed:
            self.clocked[feed.name] = feed
        self.feeds[feed.name] = feed
        return feed

    # --- the loop

    def start(self) -> None:
        """Start the loop's thread; it restores or backfills the feeds first."""
        self.thread = threading.Thread(target=self.run, name="monitor", daemon=True)
        self.thread.start()

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """End the loop: what was taken is committed, the rest is refused.

        Returns False when the thread still runs after `timeout` seconds; a closed store then
        refuses it, and nothing more is acknowledged.
        """
        self.stopping.set()
        self.wake.set()
        thread = self.thread
        if thread is None:
            return True
        thread.join(timeout=timeout)
        if not thread.is_alive():
            return True
        text = "the loop still runs %g s after it was asked to end, in %s; nothing more is "
        log.warning(text + "acknowledged", timeout, running_function(thread))
        return False

    def run(self) -> None:
        """Run the loop until `stop`."""
        self.restore_all()
        self.last_beat = self.clock()
        while not self.stopping.is_set():
            self.beat()
            if self.series.restored:
                self.series.earlier.begin()
            self._work_until(self.last_beat + BEAT_SECONDS)
        self.series.earlier.stop()
        self.process_pushed()
        while self.series.has_work and self.trouble is None:
            self.process_pushed()
        self.commit_results(force=True)
        ended = "Redline has ended; these points are not acknowledged, send them again"
        for feed in list(self.feeds.values()):
            if isinstance(feed.stream, PushedStream):
                feed.stream.abandon(ConnectionAbortedError(ended))
        self.series.abandon(ConnectionAbortedError(ended))

    def restore_all(self) -> None:
        """Restore or backfill every stream that is not pushed; pushed ones wait for a request."""
        for feed in list(self.clocked.values()):
            if not self.stopping.is_set() and not (feed.own_clock and feed.ready):
                self._isolated(feed, partial(self.restore_feed, feed))

    def _work_until(self, until: float) -> None:
        """Process pushed points and fill requested tracks until `until`, monotonic seconds."""
        while not self.stopping.is_set():
            self.process_pushed(self.clock() + TURN_SECONDS)
            self.views.fill()
            busy = self.fill_tracks() or bool(self.sources_to_process) or self._has_series()
            left = until - self.clock()
            if left <= 0:
                return
            if not busy:
                self.wake.wait(left)
                self.wake.clear()

    def restore_feed(self, feed: Feed) -> None:
        """Restore a feed from the store; backfill one that the store does not know."""
        old = self.store.load_stream(feed.name) if self.store and not feed.ready else None
        if old is not None:
            with feed.lock:
                feed.applied = validate_settings(old.applied)
                feed.undone = list(old.undone)
        if old is not None and feed.continues(old):
            feed.restore(old, self.wall())
        elif not feed.own_clock:
            self.backfill(feed, BUFFER_STEPS)
        feed.ready = True
        feed.failure = None

    def backfill(self, feed: Feed, steps: int) -> None:
        """Take so many steps at once, as if the stream had been watched before."""
        chunk = feed.stream.take(steps)
        feed.live = False
        for piece in split_chunk(chunk, feed.capacity):  # each row is scored before it may leave
            with feed.lock:
                feed.append(piece, self.wall())
            feed.catch_up(feed.applied_track, feed.capacity)
        feed.live = True

    def beat(self) -> None:
        """Run one round: each stream gives its due steps, which are scored and committed."""
        now = self.clock()
        elapsed = min(now - self.last_beat, MAX_ELAPSED)
        self.last_beat = now
        for feed in list(self.clocked.values()):
            if feed.failure is None or now >= feed.retry:
                self._isolated(feed, partial(self._take_due, feed, elapsed))
        due = [name for name in self.sources_to_retry if now >= self.feeds[name].retry]
        self.sources_to_process.extend(due)
        self.sources_to_retry.difference_update(self.sources_to_process)
        self.process_pushed(self.clock() + TURN_SECONDS)
        self._remove_sources()
        self._forget_silent_sources(now)
        self.evict_idle_tracks(now)

    def _take_due(self, feed: Feed, elapsed: float) -> None:
        """Take the steps that are due after `elapsed` seconds and score them."""
        if not feed.ready:
            self.restore_feed(feed)
        feed.due += elapsed * SIMULATED_PACE * self.speed
        steps = BUFFER_STEPS if feed.own_clock else int(feed.due)
        feed.due -= int(feed.due)
        if steps:
            with feed.lock:  # an injection must not come between
                chunk = feed.stream.take(steps)
                if len(chunk.x):
                    feed.append(chunk, self.wall())
        feed.catch_up(feed.applied_track, feed.applied_track.steps_per_slice)
        feed.failure = None

    def process_pushed(self, until: float = math.inf) -> None:
        """Score what clients pushed, and commit it with changed settings.

        While commits fail nothing is taken, so that the queues fill and refuse: backpressure.
        What other threads apply or push meanwhile is left to the next call, so that this one ends.

        Args:
            until: monotonic seconds after which the rest is left to the next call.
        """
        now = self.clock()
        self._emit_settings(now)
        if self._has_series() or not self.series.restored:
            self.series.take_turn(now)
        arrived = feeds = self._arrived_feeds(now)
        while feeds:
            feeds = [feed for feed in feeds if self._isolated(feed, partial(self._receive, feed))]
            self._score_received(feeds)
            feeds = [feed for feed in feeds if feed.failure is None and _has_more(feed)]
            if self.clock() >= until:
                break
        # those with a rest, and with what was queued behind it
        self.sources_to_process.extend(
            feed.name for feed in arrived if not feed.failure and _waits(feed)
        )
        self.commit_results()
        if self.trouble is None:
            for feed, count in self.emitted_settings:
                feed.settings_stored = count
            self.emitted_settings = []

    def _has_series(self) -> bool:
        """Whether a turn of the series can be taken; none is while commits fail."""
        return self.trouble is None and self.series.has_work

    def _emit_settings(self, now: float) -> None:
        """Put changed settings into the outbox; what fails is tried again after a while."""
        failed = list(self.failed_settings.values())
        self.failed_settings.clear()
        for feed, retry in failed:
            if now < retry:
                self.failed_settings[feed.name] = (feed, retry)
            else:
                self.unsaved_settings.append(feed)
        for _ in range(len(self.unsaved_settings)):
            feed = self.unsaved_settings.popleft()
            count = feed.settings_applied
            if self.find_feed(feed.name) is not feed:  # it was removed
                feed.settings_stored = count
                continue
            try:
                feed.emit_settings()
                self.emitted_settings.append((feed, count))
            except Exception as error:  # noqa: BLE001  logged and tried again: the others go on
                log_failure(f"storing the settings of {feed.name}", error)
                self.failed_settings[feed.name] = (feed, now + RETRY_SECONDS)

    def _arrived_feeds(self, now: float) -> list[Feed]:
        """Return the pushed feeds with something to process, without those that failed lately."""
        if self.trouble is not None:
            return []
        names = {self.sources_to_process.popleft() for _ in range(len(self.sources_to_process))}
        feeds = [self.feeds[name] for name in names if name in self.feeds]  # others were removed
        waiting = (feed.name for feed in feeds if feed.failure is not None and now < feed.retry)
        self.sources_to_retry.update(waiting)
        return [feed for feed in feeds if feed.name not in self.sources_to_retry]

    def _receive(self, feed: Feed) -> bool:
        """Append what was pushed into one source, or a part of it; return whether there was any."""
        if not feed.ready:
            self.restore_feed(feed)
        stream = feed.stream
        assert isinstance(stream, PushedStream)
        if feed.applied_track.end < feed.end:
            feed.catch_up(feed.applied_track, BUFFER_STEPS)
        chunk = stream.take(feed.capacity // 2)
        self.unacknowledged[feed.name] = stream
        late = stream.take_late()
        if late:
            feed.emit_late(late)
        feed.failure = None
        if not len(chunk.time):
            return False
        with feed.lock:
            feed.append(chunk, self.wall())
        return True

    def _score_received(self, feeds: Sequence[Feed]) -> None:
        """Score new steps: feeds with the same stacking key in one call, the others alone."""
        groups: dict[StackingKey | None, list[tuple[Feed, Track]]] = {}
        for feed in feeds:
            track = feed.applied_track  # read once: other settings may be applied meanwhile
            groups.setdefault(stacking_key(feed, track), []).append((feed, track))
        for key, group in groups.items():
            size = key.streams_at_once if key else 1
            for i in range(0, len(group), size):
                part = group[i : i + size]
                if key is None or not self._score_stacked(part):
                    for feed, _ in part:
                        self._isolated(feed, partial(_catch_up, feed))

    def _score_stacked(self, group: Sequence[tuple[Feed, Track]]) -> bool:
        """Score feeds with the same key in one call; False = not possible, nothing has changed."""
        if len(group) < MIN_STACKED:
            return False
        tracks = [track for _, track in group]
        try:
            new = [feed.tape.read("x", track.end, feed.end) for feed, track in group]
            x = np.stack(new, axis=1)  # (steps, tracks, features)
            rows = advance_stacked(tracks, x)
        except Exception as error:  # noqa: BLE001  each is then tried alone, and says what is wrong
            log.warning("%d streams could not be scored together: %s", len(group), error)
            return False
        for (feed, track), scores in zip(group, rows):
            self._isolated(feed, partial(feed.store_scores, track, scores))
        return True

    def commit_results(self, force: bool = False) -> None:
        """Commit what waits, resolve receipts and call the listeners."""
        committed, unpublished = self.outbox.flush(self.clock(), force)
        for batch in committed:
            if batch.name in self.feeds:
                feed = self.feeds[batch.name]
                feed.committed = max(feed.committed, batch.end)
        if self.trouble is None:
            self._resolve_receipts()
            if not self.outbox.fleets:
                self.series.settle()
        while self.outbox.streams_with_gaps:
            name = self.outbox.streams_with_gaps.pop()
            if name in self.feeds:
                self.feeds[name].applied_track.skips += 1
        for listener in self.listeners if unpublished else ():
            self._publish(listener, unpublished)

    def _resolve_receipts(self) -> None:
        for name, stream in list(self.unacknowledged.items()):
            if stream.late:  # some of what was sent is not stored yet
                continue
            stream.resolve(self.feeds[name].committed)
            if not stream.unresolved:
                del self.unacknowledged[name]

    def _publish(self, listener: BatchListener, batches: list[Batch]) -> None:
        try:
            listener(batches, self.trouble is None)
        except Exception as error:  # noqa: BLE001  logged: a listener must not stop the loop
            log_failure("a listener", error)

    def fill_tracks(self) -> bool:
        """Advance the last requested track that lags by one slice; False = none lags."""
        now = self.clock()
        lagging = [
            (track.requested_at, feed, track)
            for feed, track in self._tracks()
            if track.end < feed.end and now >= track.retry
        ]
        if not lagging:
            return False
        _, feed, track = max(lagging, key=lambda item: item[0])
        try:
            feed.catch_up(track, track.steps_per_slice)
        except Exception as error:  # noqa: BLE001  logged, shown, tried again: the others go on
            track = feed.tracks.get(track.settings.key, track)
            track.failure = log_failure(f"{track.settings.detector} on {feed.name}", error)
            track.retry = self.clock() + RETRY_SECONDS
        return True

    def _active_feeds(self) -> list[Feed]:
        """Return the feeds whose tracks may lag: clocked ones and viewed pushed ones."""
        pushed = list(self.viewed.values())
        return [*list(self.clocked.values()), *pushed, *list(self.views.feeds.values())]

    def _tracks(self) -> Iterator[tuple[Feed, Track]]:
        for feed in self._active_feeds():
            for track in list(feed.tracks.values()):
                yield feed, track

    def evict_idle_tracks(self, now: float) -> None:
        """Evict tracks not requested for a while, and the oldest ones when there are too many."""
        spare = [
            (track.requested_at, feed, track.settings.key)
            for feed, track in self._tracks()
            if track.settings.key != feed.applied.key
        ]
        spare.sort(key=lambda item: item[0])
        excess = len(spare) + len(self._active_feeds()) - MAX_TRACKS
        values = sum(feed.tape.kept * len(feed.stream.names) for _, feed, _ in spare)
        for i, (requested_at, feed, key) in enumerate(spare):
            too_much = values > MAX_TRACK_VALUES
            values -= feed.tape.kept * len(feed.stream.names)
            if i < excess or too_much or requested_at < now - IDLE_SECONDS:
                with feed.lock:
                    feed.tracks.pop(key, None)
        for feed in list(self.viewed.values()):
            if len(feed.tracks) < 2 and feed.applied_track.requested_at < now - IDLE_SECONDS:
                del self.viewed[feed.name]
        self.views.close_idle(now - IDLE_SECONDS)

    def _isolated(self, feed: Feed, work: Callable[[], _T]) -> _T | None:
        """Run one stream's work; its failure is logged, shown and tried again, others go on."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  the boundary between streams
            feed.failure = log_failure(feed.name, error)
            feed.retry = self.clock() + RETRY_SECONDS
            if feed.pushed:
                self.sources_to_retry.add(feed.name)
            return None


def recording_capacity(recording: Recording) -> int:
    """Return how many of its rows a recording's buffer holds: all, where there is room for them."""
    most = MAX_RECORDING_VALUES // len(recording.names)
    return max(min(recording.total, most), BUFFER_STEPS)


def _waits(feed: Feed) -> bool:
    stream = feed.stream
    return isinstance(stream, PushedStream) and (stream.waiting > 0 or bool(stream.late))


def _has_more(feed: Feed) -> bool:
    return isinstance(feed.stream, PushedStream) and feed.stream.has_more


def _catch_up(feed: Feed) -> None:
    feed.catch_up(feed.applied_track, BUFFER_STEPS)
