"""The topic feeder: hands the records of a broker to the monitor, in a thread of its own.

A record is committed to its broker (Kafka, Redis, MQTT) only when the store holds its points. What
was read after the last commit is read again after a kill; the store then knows its points, and they
count as repeated. So nothing is lost and nothing counts twice, without a transaction of the broker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from redline.access.refusal_log import RefusalLog
from redline.api.doors import Doors
from redline.engine.monitor import Monitor
from redline.engine.results import log, log_failure
from redline.sources.consumer import Consumer, ConsumerOptions, Record
from redline.sources.directory import SeriesDirectory
from redline.sources.payload import SubmittedPoints
from redline.sources.pushed import QueueFull, Receipt, SubmissionRefused
from redline.sources.records import RecordPoints, RecordReader
from redline.sources.samples import TimeRange, make_batch

TOPIC_CREATOR = ""  # its sources count as those of the operator, who chose what is read
READ_RECORDS = 5_000  # that are taken from the library at once
READ_SECONDS = 0.1  # that it waits for the first of them
BUSY_SECONDS = 0.02  # the same, while points are not committed
PIECE_BYTES = 2**20  # of records that are parsed together; a single one may be larger
PIECE_POINTS = 50_000  # that are submitted together
MAX_UNCOMMITTED = 200_000  # points read and not committed, above which no more records are taken
FULL_SECONDS = (0.02, 1.0)  # until what a full queue refused is sent again, at first and at most
STATE_SECONDS = 1.0  # between two looks at how far behind it is
SESSION_SECONDS = 5.0  # until a failed session is begun again
END_SECONDS = 5.0  # that the commits of the last points may take at the end


class TopicEnded(Exception):
    """It is stopped: what was not submitted is read again the next time."""


@dataclass(eq=False)
class SeriesPart:
    """Samples of series of some records."""

    series: np.ndarray  # (n,) numbers of the directory
    time: np.ndarray  # (n,) seconds since the Unix epoch
    value: np.ndarray  # (n,)
    owner: np.ndarray  # (n,) places of the records

    def cut(self, rows: np.ndarray | slice) -> SeriesPart:
        """Return some of the samples."""
        return SeriesPart(self.series[rows], self.time[rows], self.value[rows], self.owner[rows])


@dataclass(eq=False)
class SourcePart:
    """Points of one pushed source of some records."""

    points: SubmittedPoints
    owner: np.ndarray  # (n,) places of the records

    def cut(self, rows: np.ndarray | slice) -> SourcePart:
        """Return some of the points."""
        points = self.points._replace(time=self.points.time[rows], x=self.points.x[rows])
        return SourcePart(points, self.owner[rows])


Part = SeriesPart | SourcePart


class Taken(NamedTuple):
    """Points that are in the queues, with their receipt."""

    part: Part
    receipt: Receipt


@dataclass(eq=False)
class Piece:
    """Records that were read together, until their points are committed."""

    consumer: Consumer  # that read them
    messages: Sequence[Record]
    taken: list[Taken] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)  # places of records
    letters: list[Future[None]] = field(default_factory=list)  # records that are set aside
    points: int = 0

    @property
    def done(self) -> bool:
        """Whether all its points are committed or failed, and its dead letters written."""
        written = all(letter.done() for letter in self.letters)
        return written and all(each.receipt.done() for each in self.taken)


@dataclass
class TopicFeeder:
    """Reads what some options name until it is stopped."""

    options: ConsumerOptions
    monitor: Monitor
    doors: Doors
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.reader = RecordReader(self.doors.directory)
        self.counts: Counter[str] = Counter()
        self.state: Mapping[str, Any] = {}
        self.trouble = ""
        self.last_refusal = ""
        self.refusal_log = RefusalLog()
        self.pieces: deque[Piece] = deque()
        self.uncommitted = 0  # points
        self.next_look = float("-inf")  # monotonic seconds

    # --- for any thread

    def start(self) -> None:
        """Begin to read."""
        name = self.options.kind.lower()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Read no more; what was read is still committed, see `join`."""
        self.stopping.set()

    def join(self) -> None:
        """Wait until the last records are committed, a few seconds at most."""
        if self.thread is not None:
            self.thread.join(2 * END_SECONDS)

    def report(self) -> dict[str, Any]:
        """Return how it goes, without secrets."""
        counted = ("records", "points", "repeated", "late", "refused", "dead_letters")
        return {
            **self.options.describe(),
            **self.state,
            **{name: self.counts[name] for name in counted},
            "dead_letters_lost": self.counts["dead_letters_lost"],
            "waiting": self.uncommitted,
            "trouble": self.trouble or None,
            "last_refusal": self.last_refusal or None,
        }

    # --- its thread

    @property
    def ended(self) -> bool:
        """Whether nothing is taken any more: it is stopped, or the monitor is."""
        return self.stopping.is_set() or self.monitor.stopping.is_set()

    def _run(self) -> None:
        while not self.ended:
            try:
                self._read_records()
            except Exception as error:  # noqa: BLE001  begun again from the last commit
                self._set_trouble(log_failure(f"reading from {self.options.kind}", error).text)
                self.stopping.wait(SESSION_SECONDS)

    def _read_records(self) -> None:
        """Read from the last commit on, until it is stopped."""
        self.pieces.clear()
        self.uncommitted = 0
        consumer = self.options.connect(self.monitor.wall)
        try:
            with contextlib.suppress(TopicEnded):
                while not self.ended:
                    self.turn(consumer)
            until = time.monotonic() + END_SECONDS
            while self._settle(consumer) and self.pieces and time.monotonic() < until:
                time.sleep(BUSY_SECONDS)
        finally:
            self.state = {}
            consumer.close()

    def turn(self, consumer: Consumer) -> None:
        """Take the records that have come, and mark those whose points are committed."""
        consumer.hold(self.uncommitted > MAX_UNCOMMITTED)
        messages = consumer.read(READ_RECORDS, BUSY_SECONDS if self.pieces else READ_SECONDS)
        self._note_trouble(consumer.trouble)
        for piece in cut_messages(messages):
            self._take(consumer, piece)
            while self.uncommitted > MAX_UNCOMMITTED:
                self._wait(consumer, BUSY_SECONDS)
        self._settle(consumer)
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + STATE_SECONDS
            self.state = consumer.state()

    def _note_trouble(self, trouble: str) -> None:
        """Log what is wrong once, and that it is well again."""
        if trouble == self.trouble:
            return
        if trouble:
            log.warning("%s: %s; it is tried again", self.options.kind, trouble)
        else:
            log.info("%s: it is read again", self.options.kind)
        self._set_trouble(trouble)

    def _set_trouble(self, trouble: str) -> None:
        """Keep what is wrong, "" = nothing, for those who ask and for the page."""
        self.trouble = trouble
        if trouble:
            self.monitor.source_troubles[self.options.kind] = trouble
        else:
            self.monitor.source_troubles.pop(self.options.kind, None)

    def _wait(self, consumer: Consumer, seconds: float) -> None:
        """Wait a moment for the store; the broker still knows that we are here.

        Raises:
            TopicEnded: it is stopped.
        """
        if self.ended:
            raise TopicEnded
        consumer.hold(True)
        consumer.read(1, seconds)
        self._note_trouble(consumer.trouble)
        self._settle(consumer)

    def _take(self, consumer: Consumer, messages: Sequence[Record]) -> None:
        """Read some records and submit their points."""
        piece = Piece(consumer, messages)
        allowed = TimeRange(last=self.monitor.latest_time())
        found = self.reader.read([message.value() for message in messages], allowed)
        for refused in found.refused:
            self._refuse(piece, refused.place, refused.reason)
        for part in cut_points(found, min(PIECE_POINTS, self.monitor.limits.late)):
            self._submit(consumer, piece, part)
        self.counts["records"] += len(messages)
        self.uncommitted += piece.points
        self.pieces.append(piece)

    def _submit(self, consumer: Consumer, piece: Piece, part: Part) -> None:
        """Put points into the queues; wait while these are full."""
        rest = self._put(piece, part)
        seconds, most = FULL_SECONDS
        while rest is not None:
            self._wait(consumer, seconds)
            seconds = min(2 * seconds, most)
            rest = self._put(piece, rest)

    def _put(self, piece: Piece, part: Part) -> Part | None:
        """Put points into the queues; return those for which there is no room."""
        budget = self.monitor.budget
        if budget.waiting and budget.waiting + len(part.owner) > budget.limit:
            return part
        if isinstance(part, SeriesPart):
            return self._put_series(piece, part)
        return self._put_source(piece, part)

    def _put_series(self, piece: Piece, part: SeriesPart) -> SeriesPart | None:
        """Submit samples; return those for which the queue has no room."""
        batch = make_batch(part.series, part.time, part.value)
        found = self.doors.submit(self.monitor, batch, TOPIC_CREATOR, rates=False)
        refused = [(name, error) for name, error in found.refused if not self._ends(error)]
        rows = RowsByName(part, self.doors.directory)
        together = rows.others([name for name, _ in (*found.taken, *refused) if name])
        full = np.zeros(len(part.series), bool)
        for name, receipt in found.taken:
            self._keep(piece, part.cut(rows.of(name) if name else together), receipt)
        for name, error in refused:
            if isinstance(error, QueueFull):
                full |= rows.of(name) if name else together
            else:
                self._refuse_rows(piece, part.owner[rows.of(name) if name else rows.gone], error)
        return part.cut(full) if full.any() else None

    def _put_source(self, piece: Piece, part: SourcePart) -> SourcePart | None:
        """Submit points of a source; return those for which its queue has no room."""
        source, names, moments, x = part.points
        try:
            receipt = self.monitor.submit(source, moments, x, names, TOPIC_CREATOR)
        except QueueFull:
            return part
        except SubmissionRefused as error:
            self._ends(error)
            records = np.unique(part.owner)
            if len(records) == 1:
                self._refuse(piece, int(records[0]), str(error))
                return None
            full = [self._put_source(piece, part.cut(part.owner == own)) for own in records]
            waiting = [each for each in full if each is not None]
            return join_sources(waiting) if waiting else None
        self._keep(piece, part, receipt)
        return None

    def _ends(self, error: Exception) -> bool:
        """Raise TopicEnded where the monitor refuses because it ends; else return False."""
        if self.monitor.stopping.is_set():
            raise TopicEnded from error
        return False

    def _keep(self, piece: Piece, part: Part, receipt: Receipt) -> None:
        piece.taken.append(Taken(part, receipt))
        piece.points += len(part.owner)

    def _refuse_rows(self, piece: Piece, owner: np.ndarray, error: Exception) -> None:
        for place in np.unique(owner).tolist():
            self._refuse(piece, place, str(error))

    def _refuse(self, piece: Piece, place: int, reason: str) -> None:
        """Count a record that cannot be taken, log it, and set it aside."""
        if place in piece.refused:
            return
        piece.refused.add(place)
        message = piece.messages[place]
        self.counts["refused"] += 1
        self.last_refusal = f"{piece.consumer.where(message)}: {reason}"
        self.refusal_log.add(f"a record of {self.last_refusal} is not taken", time.monotonic())
        letter = piece.consumer.set_aside(message, reason)
        if letter is not None:
            piece.letters.append(letter)

    def _settle(self, consumer: Consumer) -> bool:
        """Mark the records whose points are committed; False = some never will be.

        Points whose receipt failed are submitted again, unless it ends.
        """
        consumer.poll()
        committed: list[Record] = []
        failed: list[Taken] = []
        while self.pieces and self.pieces[0].done and not failed:
            piece = self.pieces[0]
            failed = [each for each in piece.taken if each.receipt.exception() is not None]
            if not failed:
                self._count(piece)
                self.uncommitted -= piece.points
                committed += piece.messages
                self.pieces.popleft()
        if committed:
            consumer.mark(committed)
        if failed and not self.ended:
            self._put_again(self.pieces[0], failed)
        return not failed

    def _put_again(self, piece: Piece, failed: list[Taken]) -> None:
        """Submit points again that were not stored; refuse those of a source that was removed."""
        piece.taken = [each for each in piece.taken if each not in failed]
        self.uncommitted -= piece.points
        piece.points = sum(len(each.part.owner) for each in piece.taken)
        for part, receipt in failed:
            error = receipt.exception()
            if isinstance(error, SubmissionRefused):
                self._refuse_rows(piece, part.owner, error)
                continue
            rest = self._put(piece, part)
            if rest is not None:  # at the next turn
                self._keep(piece, rest, receipt)
        self.uncommitted += piece.points

    def _count(self, piece: Piece) -> None:
        """Count what became of the points of a piece."""
        for each in piece.taken:
            counts = each.receipt.result()
            self.counts["points"] += counts.accepted
            self.counts["repeated"] += counts.repeated
            self.counts["late"] += counts.late
        for letter in piece.letters:
            error = letter.exception()
            self.counts["dead_letters" if error is None else "dead_letters_lost"] += 1
            if error is not None:
                text = f"a dead letter is not written: {error}"
                self.refusal_log.add(text, time.monotonic())


class RowsByName:
    """Which rows of a part are of which source, as the monitor names them."""

    def __init__(self, part: SeriesPart, directory: SeriesDirectory) -> None:
        self.part = part
        self.directory = directory

    def of(self, name: str) -> np.ndarray:
        """Return which rows are of a source, (n,) bool."""
        return np.asarray(self.part.series == self.directory.numbers.get(name, -1))

    @property
    def gone(self) -> np.ndarray:
        """Return which rows are of series that were too many: these have no name, (n,) bool."""
        numbers, places = np.unique(self.part.series, return_inverse=True)
        texts = self.directory.texts
        return np.array([texts[number] is None for number in numbers.tolist()], bool)[places]

    def others(self, names: Sequence[str]) -> np.ndarray:
        """Return which rows are of no such source and not gone, (n,) bool."""
        found = ~self.gone
        for name in names:
            found &= ~self.of(name)
        return found


def cut_messages(messages: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Yield messages in pieces of about PIECE_BYTES, at least one each."""
    begin = 0
    size = 0
    for at, message in enumerate(messages):
        size += len(message.value() or b"")
        if size >= PIECE_BYTES:
            yield messages[begin : at + 1]
            begin = at + 1
            size = 0
    if begin < len(messages):
        yield messages[begin:]


def cut_points(found: RecordPoints, most: int) -> Iterator[Part]:
    """Yield the points of some records in parts of at most so many."""
    samples = SeriesPart(found.series, found.time, found.value, found.owner)
    for begin in range(0, len(found.series), most):
        yield samples.cut(slice(begin, begin + most))
    for points, owner in found.sources:
        rows = SourcePart(points, owner)
        for begin in range(0, len(owner), most):
            yield rows.cut(slice(begin, begin + most))


def join_sources(parts: Sequence[SourcePart]) -> SourcePart:
    """Return points of one source and the same features as one part."""
    points = parts[0].points._replace(
        time=np.concatenate([part.points.time for part in parts]),
        x=np.concatenate([part.points.x for part in parts]),
    )
    return SourcePart(points, np.concatenate([part.owner for part in parts]))
