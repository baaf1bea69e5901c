"""The streams that programs push points into: a bounded queue of submissions per source.

The monitor reads a queue, compares each point's time with the newest time of the source before it,
and sorts the points into three kinds:

- *fresh*: newer than all points before it. It is scored and stored.
- *repeated*: not newer, and the source already has a point at this time. It is ignored and counted.
- *late*: not newer, and the first point at this time. It is stored without a score and counted.

Each submission has a receipt, which resolves to these counts once its points are committed. A
submission that does not fit into the queue is refused as a whole and counted.
"""

from __future__ import annotations

import itertools
import re
import threading
import time as clocks
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from redline.sources.timestamps import CALENDAR_TIMES
from streams import STREAMS, Chunk, Stream

SOURCE_QUEUE_POINTS = 100_000  # points one source may have waiting
TOTAL_QUEUE_POINTS = 1_000_000  # points all sources together may have waiting
LATE_AT_ONCE = 5_000  # late points that one turn of the loop stores: some 0.1 s
PERIOD_SAMPLE = 64  # first intervals between points, whose median is the period
MAX_NAME_LENGTH = 500  # characters of a name: a series of Kubernetes has some 400
MAX_MARKS = 4  # combining marks in a row: more of them cover the lines around
# Unicode's Default_Ignorable_Code_Point that are printable to Python, and the empty Braille cell
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
MAX_REFUSAL_LENGTH = 500  # characters of each half of a refusal
MAX_FEATURES = 1_000  # features of a source
# How far a time may lie ahead of this machine's clock: after a point from tomorrow every other one
# until then would be late. A slow source may be ahead by more than a fast one.
PERIODS_AHEAD = 60.0  # periods of the source
MAX_SECONDS_AHEAD = 86_400.0
OVERVIEW = "overview"
THIS_MACHINE = "this-machine"
YOUR_DATA = "your-data"
ALL_STREAMS = "streams"
FLEET = "fleet"
# names that the page uses for its own tabs: a source with one of them would be taken for that tab
RESERVED_NAMES = frozenset((OVERVIEW, THIS_MACHINE, YOUR_DATA, ALL_STREAMS, FLEET, *STREAMS))


class SubmissionRefused(ValueError):
    """A submission that was not queued; names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: str) -> None:
        self.field = field
        self.wanted = wanted[:MAX_REFUSAL_LENGTH]  # it may list the features of a source
        self.came = came[:MAX_REFUSAL_LENGTH]
        super().__init__(f"{field}: wanted {self.wanted}; came {self.came}")


class QueueFull(SubmissionRefused):
    """A submission that does not fit into the queue now; it can be sent again later."""


class SourceQuotaReached(SubmissionRefused):
    """A new source of a client that has created as many as one client may."""


class SubmissionCounts(NamedTuple):
    """The points of one submission, counted by kind."""

    accepted: int  # fresh: scored and stored
    repeated: int  # ignored
    late: int  # stored without a score


class Receipt(Future[SubmissionCounts]):
    """The future counts of a submission.

    It resolves when the points are committed; without a store, when they are scored.
    """


class Submission(NamedTuple):
    """Points of one source that were sent together."""

    time: np.ndarray  # (n,) seconds since the Unix epoch, in the order they were sent
    x: np.ndarray  # (n, features), NaN = missing
    receipt: Receipt


class UnresolvedReceipt(NamedTuple):
    """A receipt that resolves to `counts` once all steps before `end` are stored."""

    end: int  # absolute step
    receipt: Receipt
    counts: SubmissionCounts


def validate_points(
    time: np.ndarray, x: np.ndarray, latest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points as floats: times (n,) and values (n, features).

    Args:
        time: seconds since the Unix epoch.
        x: (n, features), or (n,) for one feature; NaN = missing.
        latest: seconds since the Unix epoch, the last time that is allowed.

    Raises:
        SubmissionRefused: a shape, a time or the number of points is not allowed.
    """
    time = np.asarray(time, dtype=np.float64).reshape(-1)
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) != len(time) or not 1 <= x.shape[1] <= MAX_FEATURES:
        raise SubmissionRefused(
            "values",
            f"one row of 1 to {MAX_FEATURES:,} features for each of {len(time)} times",
            f"the shape {x.shape}",
        )
    valid = (time >= CALENDAR_TIMES[0]) & (time <= latest)  # False for NaN too
    if not valid.all():
        raise SubmissionRefused(
            "time",
            f"seconds since the Unix epoch, at most {latest:.0f}, which is a little ahead of the "
            "clock here",
            f"{float(time[~valid][0])!r}; check the clock and the unit of the sender",
        )
    if len(time) > SOURCE_QUEUE_POINTS:
        raise SubmissionRefused(
            "points",
            f"at most {SOURCE_QUEUE_POINTS:,} in one submission",
            f"{len(time):,}; send them in parts",
        )
    return time, x


def latest_time(now: float, ahead: float, period: float = 0.0) -> float:
    """Return the last time that a source may send, `ahead` of now or more; all in seconds.

    >>> latest_time(0, 600, 1), latest_time(0, 600, 60), latest_time(0, 600, 86_400)
    (600, 3600.0, 86400.0)
    """
    return now + max(ahead, min(PERIODS_AHEAD * period, MAX_SECONDS_AHEAD))


def normal_name(name: str) -> str:
    """Return a name as it is kept: without spaces around it, accents as one character (NFC).

    >>> normal_name(" cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name).strip()


def is_visible(name: str) -> bool:
    """Return whether a name can be told from others by looking at it.

    >>> [is_visible(name) for name in ("Ofen 3", "oven\u3164", "a\u2800b", "a" + 5 * "\u0301")]
    [True, False, False, False]
    """
    if not name.isprintable() or INVISIBLE.search(name):
        return False
    apart = unicodedata.normalize("NFD", name)
    marks = (unicodedata.category(character) in ("Mn", "Me") for character in apart)
    runs = (sum(run) for is_mark, run in itertools.groupby(marks) if is_mark)
    return max(runs, default=0) <= MAX_MARKS


def validate_source_name(name: str, names: Sequence[str]) -> None:
    """Raise SubmissionRefused for a name that is empty, too long, invisible or reserved.

    Feature names must also differ from each other.
    """
    for field, each in (("source", name), *(("values", each) for each in names)):
        if (
            not isinstance(each, str)
            or not each.strip()
            or len(each) > MAX_NAME_LENGTH
            or not is_visible(each)
        ):
            raise SubmissionRefused(
                field,
                f"a name of 1 to {MAX_NAME_LENGTH} printable characters",
                ascii(each)[: MAX_NAME_LENGTH + 20],
            )
    if name.strip().casefold() in RESERVED_NAMES:
        wanted = "a name that Redline does not use itself"
        came = f"{name!r}, which is a tab of its page; choose another, such as {name + '-1'!r}"
        raise SubmissionRefused("source", wanted, came)
    if len(set(map(normal_name, names))) < len(names):
        raise SubmissionRefused("values", "every feature once", ", ".join(names)[:MAX_NAME_LENGTH])


class QueueBudget:
    """A limit on the points that wait in the queues of all sources together."""

    def __init__(self, limit: int = TOTAL_QUEUE_POINTS) -> None:
        self.limit = limit
        self.waiting = 0
        self.lock = threading.Lock()

    def reserve(self, points: int) -> bool:
        """Reserve space for so many points; return False, and reserve nothing, if there is less."""
        with self.lock:
            if self.waiting + points > self.limit:
                return False
            self.waiting += points
            return True

    def release(self, points: int) -> None:
        """Release the space of points that left a queue."""
        with self.lock:
            self.waiting -= points


class OldAllowance:
    """How many points that are not newer than the newest may still be sent: each is looked up.

    The caller holds a lock.
    """

    def __init__(self, a_minute: int = 200_000) -> None:
        self.a_minute = a_minute
        self.left = float(a_minute)
        self.moment = clocks.monotonic()  # seconds, of the last look

    def refuse_beyond(self, old: int, of: str = "") -> None:
        """Raise QueueFull for more old points than are left; `of` says of what, in its text."""
        now = clocks.monotonic()
        refilled = self.left + (now - self.moment) * self.a_minute / 60
        self.left = min(float(self.a_minute), refilled)
        self.moment = now
        if old > self.left:
            wanted = f"at most {self.a_minute:,} late or repeated points{of} in a minute"
            raise QueueFull("points", wanted, f"{old:,} more; send again later")

    def spend(self, old: int) -> None:
        """Count old points that were taken."""
        self.left -= old


class PushedStream(Stream):
    """A source that programs push points into; its features are those of its first submission."""

    about = "Pushed in by a program."
    period = 1.0

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        units: Sequence[str] = (),
        budget: QueueBudget | None = None,
        known: Callable[[np.ndarray], np.ndarray] | None = None,
        old_allowance: OldAllowance | None = None,
    ) -> None:
        """Make a source without points.

        Args:
            title: its name.
            names: its features.
            units: their units; none where left out.
            budget: the queue space it shares with other sources.
            known: returns (m,) bool, at which of the first m of times (n,) the source has a point;
                m < n, but at least 1, where finding out about all of them would take long.
            old_allowance: of its late and repeated points.
        """
        self.title = title
        self.names = tuple(names)
        self.units = tuple(units) or ("",) * len(names)
        self.floors = (0.0,) * len(self.names)
        self.notes: Counter[str] = Counter()
        self.known = known or (lambda times: np.zeros(len(times), bool))
        self.newest_time = -np.inf  # seconds since the Unix epoch, of the newest fresh point
        self.intervals: list[float] = []  # seconds between its first points
        self.end = 0  # fresh points ever: the absolute step of the next one
        self.queue: deque[Submission] = deque()
        self.sorting = 0  # submissions being sorted, the first of the queue
        # of those: old times not looked up yet, in order, and those that the source had already
        self.unknown_times: np.ndarray | None = None
        self.known_times: list[np.ndarray] = []
        self.waiting = 0  # points queued, or sorted and not taken yet
        self.budget = budget or QueueBudget()
        self.lock = threading.Lock()
        self.empty = Chunk(np.empty(0), np.empty((0, len(self.names))), None)
        self.sorted_rest = self.empty  # fresh points that are not taken yet
        self.late: list[Chunk] = []  # late points that are not taken yet
        self.old_allowance = old_allowance or OldAllowance()
        self.late_times: set[float] = set()  # of late points that may not be stored yet
        self.unresolved: deque[UnresolvedReceipt] = deque()  # by increasing end

    def resume(self, end: int, newest_time: float, period: float, notes: Mapping[str, int]) -> None:
        """Continue at step `end`, after a point at `newest_time` (seconds since the Unix epoch)."""
        self.end = end
        self.newest_time = newest_time
        self.period = period
        self.notes.update(notes)

    # --- for any thread

    def to_columns(self, x: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return x (n, names) with the columns of this source, NaN for features not in `names`.

        Without `names`, x must have all features in this source's order.

        Raises:
            SubmissionRefused: a feature that this source does not have.
        """
        if names and x.shape[1] != len(names):
            wanted = f"a column for each of the {len(names)} features"
            raise SubmissionRefused("values", wanted, f"{x.shape[1]} columns")
        if tuple(names) == self.names or (not names and x.shape[1] == len(self.names)):
            return x
        names = [normal_name(name) for name in names]
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise SubmissionRefused(
                "values",
                f"features of {self.title}: {', '.join(self.names)}",
                ", ".join(unknown) or f"{x.shape[1]} columns",
            )
        columns = np.full((len(x), len(self.names)), np.nan)
        columns[:, [self.names.index(name) for name in names]] = x
        return columns

    def enqueue(self, time: np.ndarray, x: np.ndarray) -> Receipt:
        """Queue validated points: times (n,) and values (n, features).

        Raises:
            QueueFull: they do not fit.
        """
        receipt = Receipt()
        points = len(time)
        old = int(np.count_nonzero(time <= self.newest_time))
        with self.lock:
            try:
                self.old_allowance.refuse_beyond(old, f" of {self.title}")
            except QueueFull:
                self.notes["refused"] += points
                raise
            if self.waiting + points > SOURCE_QUEUE_POINTS or not self.budget.reserve(points):
                self.notes["refused"] += points
                came = (
                    f"{self.waiting:,} of {SOURCE_QUEUE_POINTS:,} waiting here and "
                    f"{self.budget.waiting:,} of {self.budget.limit:,} in all; send again later"
                )
                raise QueueFull("points", f"room for {points:,} in the queue of {self.title}", came)
            self.queue.append(Submission(time, x, receipt))
            self.waiting += points
            self.old_allowance.spend(old)
        return receipt

    # --- for the monitor's thread

    def take(self, steps: int) -> Chunk:
        """Return at most so many fresh points."""
        if not len(self.sorted_rest.time) and self.queue:
            self.sorted_rest = self.sort_queue()
        chunk = self.sorted_rest
        if len(chunk.time) <= steps:
            self.sorted_rest = self.empty
        else:
            self.sorted_rest = Chunk(chunk.time[steps:], chunk.x[steps:], None)
            chunk = Chunk(chunk.time[:steps], chunk.x[:steps], None)
        self.release(len(chunk.time))
        return chunk

    def take_late(self) -> tuple[Chunk, ...]:
        """Return late points that were sorted out, LATE_AT_ONCE at most; the rest stays."""
        late: list[Chunk] = []
        room = LATE_AT_ONCE
        while self.late and room:
            chunk = self.late.pop(0)
            if len(chunk.time) > room:
                self.late.insert(0, Chunk(chunk.time[room:], chunk.x[room:], None))
                chunk = Chunk(chunk.time[:room], chunk.x[:room], None)
            late.append(chunk)
            room -= len(chunk.time)
        return tuple(late)

    @property
    def has_more(self) -> bool:
        """Whether sorted points are left to take.

        Points queued since then do not count: else a round of the monitor might never end.
        """
        return len(self.sorted_rest.time) > 0

    def release(self, points: int) -> None:
        """Release the queue space of points that were taken or are not scored."""
        with self.lock:
            self.waiting -= points
        self.budget.release(points)

    def sort_queue(self) -> Chunk:
        """Empty the queue into fresh, repeated and late points; return the fresh ones.

        Where it takes long to tell late points from repeated ones, nothing is returned yet, and the
        next call goes on with the same submissions.
        """
        self.sorting = self.sorting or len(self.queue)
        submissions = list(itertools.islice(self.queue, self.sorting))
        time = submissions[0].time
        x = submissions[0].x
        if len(submissions) > 1:
            time = np.concatenate([submission.time for submission in submissions])
            x = np.concatenate([submission.x for submission in submissions])
        # (1 + n,) the newest time before each point, then the newest of all
        newest = np.maximum.accumulate(np.concatenate(([self.newest_time], time)))
        fresh = time > newest[:-1]
        if not fresh.all() and not self.look_up(time[~fresh]):
            return self.empty
        self.sorting = 0
        late = np.zeros(len(time), bool) if fresh.all() else self.late_mask(time, fresh)
        self.defer_receipts(submissions, fresh, late)
        if not fresh.all():
            self.set_aside_late(time[late], x[late])
            self.count_unscored(len(time) - int(fresh.sum()), int(late.sum()))
            time = time[fresh]
            x = x[fresh]
        self.update_period(time)
        self.newest_time = float(newest[-1])
        return Chunk(time, x, None)

    def look_up(self, times: np.ndarray) -> bool:
        """Find out at which of these times (n,) there is a point already; False = not all yet."""
        if self.unknown_times is None:
            self.unknown_times = np.unique(times)  # in order, so that neighbours are read at once
            self.known_times = []
        known = self.known(self.unknown_times)
        self.known_times.append(self.unknown_times[: len(known)][known])
        self.unknown_times = self.unknown_times[len(known) :]
        if len(self.unknown_times):
            return False
        self.unknown_times = None
        return True

    def defer_receipts(
        self, submissions: Sequence[Submission], fresh: np.ndarray, late: np.ndarray
    ) -> None:
        """Move the submissions' receipts from the queue to `unresolved`, with their counts.

        Args:
            submissions: the first ones of the queue.
            fresh: (n,) bool, which of their points are fresh.
            late: (n,) bool, which of their points are late.
        """
        start = 0
        for submission in submissions:
            self.queue.popleft()
            points = len(submission.time)
            span = slice(start, start + points)
            start += points
            accepted = int(np.count_nonzero(fresh[span]))
            late_points = int(np.count_nonzero(late[span]))
            counts = SubmissionCounts(accepted, points - accepted - late_points, late_points)
            self.end += accepted
            self.unresolved.append(UnresolvedReceipt(self.end, submission.receipt, counts))

    def late_mask(self, time: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Return which points are late (n,); those neither fresh nor late are repeated."""
        old = np.flatnonzero(~fresh)
        old_time = time[old]
        seen = (
            np.isin(old_time, time[fresh])
            | np.isin(old_time, list(self.late_times))
            | np.isin(old_time, np.concatenate(self.known_times))
        )
        first = np.zeros(len(old), bool)  # of several old points at one time, the first
        first[np.unique(old_time, return_index=True)[1]] = True
        late = np.zeros(len(time), bool)
        late[old[first & ~seen]] = True
        return late

    def set_aside_late(self, time: np.ndarray, x: np.ndarray) -> None:
        """Keep late points (n,), (n, features) for `take_late`."""
        if len(time):
            self.late.append(Chunk(time, x, None))
            self.late_times.update(time.tolist())

    def update_period(self, fresh: np.ndarray) -> None:
        """Set the period to the median interval between the first points; `fresh` are times (n,).

        Call it before `newest_time` is updated.
        """
        first_points = self.end - len(fresh) < PERIOD_SAMPLE  # those before are counted in `end`
        if first_points and len(fresh):
            before = [self.newest_time] if np.isfinite(self.newest_time) else []
            new = np.diff([*before, *fresh[:PERIOD_SAMPLE]]).tolist()
            self.intervals = [*self.intervals, *new][:PERIOD_SAMPLE]
            self.period = float(np.median(self.intervals)) if self.intervals else 1.0

    def count_unscored(self, old: int, late: int) -> None:
        """Count repeated and late points and release their queue space.

        Args:
            old: the points of both kinds.
            late: how many of them are late.
        """
        self.release(old)
        for kind, points in (("repeated", old - late), ("late", late)):
            if points:
                self.notes[kind] += points

    def resolve(self, stored: int) -> None:
        """Resolve the receipts whose points are stored, now that all steps before `stored` are."""
        self.late_times.clear()
        while self.unresolved and self.unresolved[0].end <= stored:
            _, receipt, counts = self.unresolved.popleft()
            if receipt.set_running_or_notify_cancel():
                receipt.set_result(counts)

    def abandon(self, error: BaseException) -> None:
        """Fail every receipt that is not resolved: its points are not acknowledged."""
        with self.lock:
            receipts = [submission.receipt for submission in self.queue]
            receipts += [unresolved.receipt for unresolved in self.unresolved]
            self.queue.clear()
        self.unresolved.clear()
        for receipt in receipts:
            if receipt.set_running_or_notify_cancel():
                receipt.set_exception(error)
