"""The one loop: takes steps from the streams, keeps the last of them, and scores each once under
every setting that is applied or looked at.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detectors import DETECTORS
from redline.engine.feed import Feed
from redline.engine.outbox import Outbox
from redline.engine.results import (
    Batch,
    BatchListener,
    Failure,
    RestoredStream,
    ResultStore,
    log,
    log_failure,
)
from redline.engine.stacking import MIN_STACKED, STACKED_CELLS, advance_stacked
from redline.engine.tape import BUFFER_STEPS
from redline.engine.track import Track
from redline.settings import Settings, validate_settings
from redline.sources.pushed import (
    PushedStream,
    QueueBudget,
    Receipt,
    SubmissionRefused,
    validate_points,
    validate_source_name,
)
from streams import Stream

MAX_TRACKS = 64  # tracks kept over all streams
IDLE_SECONDS = 120.0  # seconds after which a track that nobody looks at is dropped
BEAT_SECONDS = 0.1  # seconds between two takes
SIMULATED_PACE = 10.0  # steps a wall second at 1x, for streams without a clock of their own
RETRY_SECONDS = 5.0  # seconds until a failed stream is tried again
SPEEDS = (1, 2, 5, 10, 20, 50, 100)
# pushed streams with a whole buffer; those beyond keep BUFFER / 10 steps at hand, the rest is in
# the ledger
MANY_SOURCES = 100
ENDING = 5.0  # seconds that the loop's thread is waited for when the program ends
# seconds for each stream that totals are good for, so that counting many takes a hundredth of the
# time
COUNTING_SECONDS = 5e-5


def running(thread: threading.Thread) -> str:
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
    """What programs may do."""

    create: bool = True  # whether a source that nobody knows yet is opened at its first submission
    streams: int = 10_000  # pushed sources


NO_LIMITS = Limits()
Past = Callable[
    [str, None, float, int], Any
    # (stream, None, until seconds since the epoch, how many) -> the last points until then, None =
    # unknown
]
Truth = Callable[
    [str, np.ndarray | None, np.ndarray], np.ndarray | None
]  # (stream, its label (n, features), time (n,)) -> label


def known_label(name: str, label: np.ndarray | None, time: np.ndarray) -> np.ndarray | None:
    """The stream's own truth."""
    return label


class Monitor:
    """Owns the clock, the feeds and the one thread that writes them; everybody else only reads."""

    truth: Truth = staticmethod(
        known_label
    )  # what people said of a stream comes on top of its own labels
    counted = (-np.inf, Totals(0, 0, 0, 0.0))  # monotonic seconds, and what was counted then
    past: Past | None = (
        None  # where the points of real streams are found that the buffer no longer has
    )

    def __init__(
        self,
        streams: Mapping[str, tuple[Stream, bool]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        ledger: ResultStore | None = None,
        limits: Limits = NO_LIMITS,
    ):
        self.clock = clock
        self.wall = wall
        self.ledger = ledger
        self.limits = limits
        self.speed = 1.0
        self.beaten = clock()
        self.outbox = Outbox(ledger)
        self.numbers = itertools.count(1 + (ledger.newest() if ledger else 0))
        self.feeds: dict[str, Feed] = {}
        self.clocked: dict[
            str, Feed
        ] = {}  # those that give steps by the clock: all but the pushed ones
        self.looked: dict[str, Feed] = {}  # pushed ones that somebody looks at
        self.arrivals: deque[str] = deque()  # pushed ones with something to do
        self.broken: set[str] = (
            set()
        )  # pushed ones that failed and are tried again at the next beat
        self.changed: deque[Feed] = deque()  # those with settings that the ledger does not know yet
        self.applies = self.safe = (
            0  # times that settings were applied, and how many of them are in the ledger
        )
        self.owing: dict[str, PushedStream] = {}  # those with receipts to answer
        self.listeners: list[
            BatchListener
        ] = []  # told of every batch after its commit, in the loop's thread; they must not wait
        self.room = QueueBudget()
        self.creating = threading.Lock()
        self.wake = threading.Event()
        self.stopping = threading.Event()
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
        now = self.clock()
        feeds = list(self.feeds.values())
        if now - self.counted[0] > COUNTING_SECONDS * len(feeds):
            arrived = max((feed.arrived or 0.0 for feed in feeds), default=0.0)
            sums = sum(feed.points for feed in feeds), sum(feed.anomalies for feed in feeds)
            self.counted = now, Totals(len(feeds), *sums, arrived)
        return self.counted[1]

    def want(self, name: str, settings: Settings) -> Track:
        """The track somebody looks at; when it is new, the loop is woken to fill it."""
        feed = self.feeds[name]
        with feed.lock:
            track = feed.track(validate_settings(settings, tuple(DETECTORS)))
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
        """Makes these the stream's settings for everybody; what was found before stays as it was
        found.
        """
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
        """Waits until what was applied by now is in the ledger; False when that takes longer. Not
        for the loop's own thread.
        """
        wanted = self.applies
        until = self.clock() + patience
        while self.safe < wanted and self.clock() < until:
            time.sleep(0.002)
        return self.safe >= wanted

    def roused(self, feed: Feed) -> None:
        """Waits a moment for a stream whose past is still being fetched."""
        until = self.clock() + RETRY_SECONDS
        while self.thread and not feed.ready and self.clock() < until:
            time.sleep(0.005)

    def inject(self, name: str, kind: str, size: float) -> int:
        """Makes an anomaly happen now; the number of the step that shows it first."""
        feed = self.feeds[name]
        with feed.lock:
            feed.stream.inject(kind, size)
            return feed.end

    def open(self, name: str, stream: Stream, about: Any = None, steps: int = 0) -> Feed:
        """Puts a stream in a slot, the newest wins; `steps` of it are taken at once. The same file
        again keeps its settings.
        """
        feed = Feed(
            name, stream, False, about=about, outbox=self.outbox, numbers=self.numbers.__next__
        )
        old = self.recalled(name)
        if old is not None and json.loads(old.origin) == feed.origin:
            feed.applied = old.applied
            feed.undone = list(old.undone)
        self.fill_back(feed, steps)
        self.adopt(feed)
        self.wake.set()
        return feed

    def recalled(self, name: str) -> RestoredStream | None:
        """What the ledger knows of a stream; None where it cannot be asked just now."""
        try:
            return self.ledger.restore(name) if self.ledger else None
        except OSError as error:
            log.warning("%s starts under the default settings: %s", name, error)
            return None

    def submit(
        self, name: str, time: np.ndarray, x: np.ndarray, names: Sequence[str] = ()
    ) -> Receipt:
        """Takes points from any thread: time (n,) seconds since the epoch, x (n, features); the
        receipt resolves when they are safe.

        `names` are the features of x in its order; a source has those of its first submission.
        Refused says what is wrong, Full to send again.
        """
        time, x = validate_points(time, x, self.wall())
        feed = self.feeds.get(name) or self.created(name, tuple(names), x.shape[1])
        if not isinstance(feed.stream, PushedStream):
            raise SubmissionRefused(
                "source",
                "a source that programs push into",
                f"{name!r}, which Redline feeds itself; choose another name",
            )
        if self.stopping.is_set():
            raise SubmissionRefused(
                "points", "a service that runs", "them while it ends; send again"
            )
        receipt = feed.stream.put(time, feed.stream.aligned(x, names))
        self.arrivals.append(name)
        self.wake.set()
        return receipt

    def created(self, name: str, names: tuple[str, ...], width: int) -> Feed:
        """The feed of a source that is seen for the first time."""
        validate_source_name(name, names)
        names = names or (
            ("value",) if width == 1 else tuple(f"value {i + 1}" for i in range(width))
        )
        if len(names) != width:
            raise SubmissionRefused(
                "values", f"{width} names, one for each column", f"{len(names)}"
            )
        with self.creating:
            there = len(self.feeds) - len(self.clocked)
            if name in self.feeds:
                return self.feeds[name]
            if not self.limits.create:
                raise SubmissionRefused(
                    "source",
                    "a source that is known; new ones are not opened here, by the setting create",
                    repr(name),
                )
            if there >= self.limits.streams:
                raise SubmissionRefused(
                    "source",
                    f"at most {self.limits.streams:,} pushed sources, by the setting streams",
                    f"another, {name!r}",
                )
            return self.adopt(self.pushed(name, names))

    def pushed(self, name: str, names: Sequence[str], units: Sequence[str] = ()) -> Feed:
        """A feed for a pushed source, its buffer as long as memory allows."""
        stream = PushedStream(name, names, units)
        many = len(self.feeds) - len(self.clocked) >= MANY_SOURCES
        feed = Feed(
            name,
            stream,
            True,
            max(
                BUFFER_STEPS // 10,
                min(BUFFER_STEPS // 10 if many else BUFFER_STEPS, 20 * BUFFER_STEPS // len(names)),
            ),
        )
        stream.room = self.room
        stream.known = lambda times: self.known(feed, times)
        return feed

    def adopt(self, feed: Feed) -> Feed:
        """Takes a feed in."""
        feed.outbox = self.outbox
        feed.numbers = self.numbers.__next__
        if not feed.pushed:
            self.clocked[feed.name] = feed
        self.feeds[feed.name] = feed
        return feed

    def adopt_pushed(self) -> None:
        """Takes the sources in that programs pushed in before; their past comes when somebody
        pushes or looks.
        """
        for name, names, units in self.ledger.pushed() if self.ledger else ():
            if name not in self.feeds:
                self.adopt(self.pushed(name, names, units)).ready = False

    def known(self, feed: Feed, times: np.ndarray) -> np.ndarray:
        """Which of these times (n,) the source has sent before: those at hand, else those in the
        ledger.
        """
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
        """End the thread: what was taken is committed, what was not is told so. Return whether it
        has ended.
        """
        self.stopping.set()
        self.wake.set()
        thread = self.thread
        if thread is None:
            return True
        thread.join(timeout=ENDING)
        if not thread.is_alive():
            return True
        where = running(thread)
        log.warning(
            (
                "the loop still runs %.0f s after it was told to end, in %s; nothing more "
                "is acknowledged"
            ),
            ENDING,
            where,
        )
        return False

    def run(self) -> None:
        self.begin()
        self.beaten = self.clock()
        while not self.stopping.is_set():
            self.beat()
            self.between(self.beaten + BEAT_SECONDS)
        self.pump()
        self.settle(force=True)
        for feed in list(self.feeds.values()):
            if isinstance(feed.stream, PushedStream):
                feed.stream.abandon(
                    ConnectionAbortedError(
                        "Redline has ended; these points are not acknowledged, send them again"
                    )
                )

    def begin(self) -> None:
        """Every stream gets its past: from the ledger, or filled back."""
        for feed in list(self.clocked.values()):
            if not self.stopping.is_set() and not (feed.real and feed.ready):
                self.guarded(feed, lambda feed=feed: self.revive(feed))  # type: ignore[misc]

    def between(self, until: float) -> None:
        """From one beat to the next: commits what comes in, fills tracks that somebody looks at,
        sleeps.
        """
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
            feed.applied = validate_settings(old.applied, tuple(DETECTORS))
            feed.undone = list(old.undone)
        if old is not None and feed.same(old):
            feed.recall(old, self.wall())
        elif not feed.real:
            self.fill_back(feed, BUFFER_STEPS)
        feed.ready = True
        feed.failure = None

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
        """One round: every stream gives what is due, its applied track scores it, and the ledger
        takes it.
        """
        now = self.clock()
        # a machine that slept owes no burst
        elapsed = min(now - self.beaten, 1.0)
        self.beaten = now
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
        feed.due += elapsed * SIMULATED_PACE * self.speed
        steps = BUFFER_STEPS if feed.real else int(feed.due)
        feed.due -= int(feed.due)
        if steps:
            with feed.lock:  # nobody injects while the stream gives
                chunk = feed.stream.take(steps)
                if len(chunk.x):
                    feed.append(chunk, self.wall())
        feed.catch_up(feed.watched, feed.watched.slice)
        feed.failure = None

    def pump(self) -> None:
        """Takes what was pushed and commits; while commits fail nothing is taken, so that queues
        fill and say so.
        """
        now = self.clock()
        applies = self.applies
        while self.changed:
            feed = self.changed.popleft()
            self.guarded(feed, feed.declare)
        names = (
            {self.arrivals.popleft() for _ in range(len(self.arrivals))}
            if self.trouble is None
            else set()
        )
        feeds = [self.feeds[name] for name in names]
        self.broken.update(
            feed.name for feed in feeds if feed.failure is not None and now < feed.retry
        )
        feeds = [feed for feed in feeds if feed.name not in self.broken]
        while feeds:
            feeds = [
                feed for feed in feeds if self.guarded(feed, lambda feed=feed: self.receive(feed))
            ]  # type: ignore[misc]
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
        assert isinstance(stream, PushedStream)
        if feed.watched.end < feed.end:
            feed.catch_up(feed.watched, BUFFER_STEPS)
        chunk = stream.take(feed.capacity // 2)
        self.owing[feed.name] = stream
        if stream.late:
            late = tuple(stream.late)
            stream.late = []
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
            most = max(MIN_STACKED, STACKED_CELLS // (rank[2] * rank[3])) if rank else 1
            for i in range(0, len(kin), most):
                if not rank or not self.scored(kin[i : i + most]):
                    for feed, _ in kin[i : i + most]:
                        self.guarded(
                            feed, lambda feed=feed: feed.catch_up(feed.watched, BUFFER_STEPS)
                        )  # type: ignore[misc]

    def scored(self, kin: Sequence[tuple[Feed, Track]]) -> bool:
        """Scores streams of one rank together; False when that is not possible, and nothing has
        happened.
        """
        if len(kin) < MIN_STACKED:
            return False
        try:
            x = np.concatenate(
                [feed.tape.read("x", track.end, feed.end) for feed, track in kin], axis=1
            )
            rows = advance_stacked([track for _, track in kin], x.reshape(len(x), len(kin), -1))
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

    def told(self, listener: BatchListener, batches: list[Batch]) -> None:
        try:
            listener(batches)
        except Exception as error:  # noqa: BLE001  a listener's fault must not stop the loop; it is logged
            log_failure("a listener", error)

    def fill(self) -> bool:
        """Advances the most recently wanted track that lags by one slice; False when none lags."""
        now = self.clock()
        lagging = [
            (track.wanted, feed, track)
            for feed, track in self.tracks()
            if track.end < feed.end and now >= track.retry
        ]
        if not lagging:
            return False
        _, feed, track = max(lagging, key=lambda item: item[0])
        try:
            feed.catch_up(track, track.slice)
        except Exception as error:  # noqa: BLE001  one detector's fault must not stop the others; it is logged, shown and tried again
            track = feed.tracks.get(track.settings.key, track)
            track.failure = log_failure(f"{track.settings.detector} on {feed.name}", error)
            track.retry = self.clock() + RETRY_SECONDS
        return True

    def near(self) -> list[Feed]:
        """The feeds whose tracks may lag: those by the clock, and the pushed ones that somebody
        looks at.
        """
        return [*list(self.clocked.values()), *list(self.looked.values())]

    def tracks(self) -> Iterator[tuple[Feed, Track]]:
        for feed in self.near():
            for track in list(feed.tracks.values()):
                yield feed, track

    def drop_idle(self, now: float) -> None:
        """Lets go of tracks that nobody looked at for a while, and of the least looked at when
        there are too many.
        """
        near = self.near()
        spare = sorted(
            (
                (track.wanted, feed, key)
                for feed in near
                for key, track in list(feed.tracks.items())
                if key != feed.applied.key
            ),
            key=lambda t: t[0],
        )
        excess = len(spare) + len(near) - MAX_TRACKS
        for i, (wanted, feed, key) in enumerate(spare):
            if i < excess or wanted < now - IDLE_SECONDS:
                with feed.lock:
                    feed.tracks.pop(key, None)
        for feed in list(self.looked.values()):
            if len(feed.tracks) < 2 and feed.watched.wanted < now - IDLE_SECONDS:
                del self.looked[feed.name]

    def guarded(self, feed: Feed, work: Callable[[], Any]) -> Any:
        """Runs one stream's work, whose answer it gives; its failure is logged, shown on its tab
        and tried again, and the other streams go on.
        """
        try:
            return work()
        except Exception as error:  # noqa: BLE001  the boundary between streams
            feed.failure = log_failure(feed.name, error)
            feed.retry = self.clock() + RETRY_SECONDS
            if feed.pushed:
                self.broken.add(feed.name)
            return None
