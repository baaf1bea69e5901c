"""What programs push in: each source's bounded queue, and the receipt that says when its points are
safe.

A source's time goes forward strictly. A point whose time is known already is a *repeat*: ignored
and counted. One that comes after a newer one is *late*: kept for the history, never scored, and
counted. When a queue is full the whole submission is *refused* and counted: nothing is dropped in
silence.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from streams import STREAMS, Chunk, Stream

SOURCE_QUEUE_POINTS = 100_000  # points one source may have waiting
TOTAL_QUEUE_POINTS = 1_000_000  # points all sources together may have waiting
PERIOD_SAMPLE = 64  # points that tell how long a step takes
MAX_NAME_LENGTH = 200  # characters of a name
MAX_FEATURES = 1_000  # features of a source
# seconds that a time may lie ahead of the clock here: a stray 2099 would make all that follows late
MAX_SECONDS_AHEAD = 86_400.0
OVERVIEW = "overview"
THIS_MACHINE = "this-machine"
YOUR_DATA = "your-data"
# names that the page uses for its own tabs: a source with one of them would be taken for that tab
RESERVED_NAMES = frozenset((OVERVIEW, THIS_MACHINE, YOUR_DATA, *STREAMS))
EARLIEST_TIME = -62_135_596_800.0  # seconds since the Unix epoch: the year 1


class SubmissionRefused(ValueError):
    """A submission that was not taken: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: str) -> None:
        super().__init__(f"{field}: wanted {wanted}; came {came}")
        self.field = field
        self.wanted = wanted
        self.came = came


class QueueFull(SubmissionRefused):
    """The queue has no room now: send the same points again in a while."""


class SubmissionCounts(NamedTuple):
    """What became of the points of one submission."""

    accepted: int  # scored and kept
    repeated: int  # known already, ignored
    late: int  # kept unscored


class Receipt(Future[SubmissionCounts]):
    """Resolves when the points it stands for are committed; where there is no ledger, when they are
    scored.
    """


class Submission(NamedTuple):
    time: np.ndarray  # (n,) seconds since the Unix epoch, in the order they were sent
    x: np.ndarray  # (n, features), NaN = missing
    receipt: Receipt


def validate_points(time: np.ndarray, x: np.ndarray, now: float) -> tuple[np.ndarray, np.ndarray]:
    """The arrays as floats, (n,) and (n, features), or Refused."""
    time = np.asarray(time, dtype=np.float64).reshape(-1)
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) != len(time) or not 1 <= x.shape[1] <= MAX_FEATURES:
        raise SubmissionRefused(
            "values",
            f"one row of 1 to {MAX_FEATURES:,} features for each of {len(time)} times",
            f"the shape {x.shape}",
        )
    right = (time >= EARLIEST_TIME) & (time <= now + MAX_SECONDS_AHEAD)  # false for a NaN too
    if not right.all():
        raise SubmissionRefused(
            "time",
            "seconds since the Unix epoch, at most a day ahead of the clock here",
            repr(float(time[~right][0])),
        )
    if len(time) > SOURCE_QUEUE_POINTS:
        raise SubmissionRefused(
            "points",
            f"at most {SOURCE_QUEUE_POINTS:,} in one submission",
            f"{len(time):,}; send them in parts",
        )
    return time, x


def validate_source_name(name: str, names: Sequence[str]) -> None:
    """Refuse an unreadable name of a source or feature, and a reserved name of a source."""
    for field, each in (("source", name), *(("values", each) for each in names)):
        if (
            not isinstance(each, str)
            or not each.strip()
            or len(each) > MAX_NAME_LENGTH
            or not each.isprintable()
        ):
            raise SubmissionRefused(
                field,
                f"a name of 1 to {MAX_NAME_LENGTH} printable characters",
                repr(each)[: MAX_NAME_LENGTH + 20],
            )
    if name.strip().casefold() in RESERVED_NAMES:
        wanted = "a name that Redline does not use itself"
        came = f"{name!r}, which is a tab of its page; choose another, such as {name + '-1'!r}"
        raise SubmissionRefused("source", wanted, came)
    if len(set(names)) < len(names):
        raise SubmissionRefused("values", "every feature once", ", ".join(names)[:MAX_NAME_LENGTH])


class QueueBudget:
    """The points that all sources together have waiting."""

    def __init__(self, limit: int = TOTAL_QUEUE_POINTS) -> None:
        self.limit = limit
        self.waiting = 0
        self.lock = threading.Lock()

    def enter(self, points: int) -> bool:
        """Whether there was room; if so it is taken."""
        with self.lock:
            if self.waiting + points > self.limit:
                return False
            self.waiting += points
            return True

    def leave(self, points: int) -> None:
        with self.lock:
            self.waiting -= points


class PushedStream(Stream):
    """A source that programs push into; its features are those of its first submission."""

    about = "Pushed in by a program."
    period = 1.0

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        units: Sequence[str] = (),
        budget: QueueBudget | None = None,
        known: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Make a source without points.

        Args:
            title: its name.
            names: its features.
            units: their units; none where left out.
            budget: the queue space it shares with other sources.
            known: returns (n,) bool, which of these times (n,) were accepted before.
        """
        self.title = title
        self.names = tuple(names)
        self.units = tuple(units) or ("",) * len(names)
        self.floors = (0.0,) * len(self.names)
        self.notes: Counter[str] = Counter()
        self.known = known or (lambda times: np.zeros(len(times), bool))
        self.last = -np.inf  # seconds since the epoch, of the newest point given
        self.gaps: list[float] = []  # seconds between its first points
        self.given = 0  # points given by `take`, ever: the absolute step of the next
        self.queue: deque[Submission] = deque()
        self.waiting = 0  # points queued and not given yet
        self.budget = budget or QueueBudget()
        self.lock = threading.Lock()
        self.rest = self.nothing = Chunk(
            np.empty(0), np.empty((0, len(self.names))), None
        )  # sorted out, not given yet
        self.late: list[Chunk] = []  # late points, until the monitor fetches them
        self.aside: set[float] = set()  # times of late points that the ledger may not know yet
        self.open: deque[tuple[int, Receipt, SubmissionCounts]] = (
            deque()
        )  # receipts waiting for that step to be safe

    def resume(self, given: int, last: float, period: float, notes: Mapping[str, int]) -> None:
        """Continue after `given` points, the newest at `last` (seconds since the epoch)."""
        self.given = given
        self.last = last
        self.period = period
        self.notes.update(notes)

    # any thread

    def aligned(self, x: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The columns in this source's order, NaN where a feature was left out; a feature it does
        not have is refused.
        """
        if tuple(names) == self.names or (not names and x.shape[1] == len(self.names)):
            return x
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise SubmissionRefused(
                "values",
                f"features of {self.title}: {', '.join(self.names)}",
                ", ".join(unknown) or f"{x.shape[1]} columns",
            )
        whole = np.full((len(x), len(self.names)), np.nan)
        whole[:, [self.names.index(name) for name in names]] = x
        return whole

    def put(self, time: np.ndarray, x: np.ndarray) -> Receipt:
        """Queues points (n,), (n, features); Full when they do not fit."""
        receipt = Receipt()
        with self.lock:
            if self.waiting + len(time) > SOURCE_QUEUE_POINTS or not self.budget.enter(len(time)):
                self.notes["refused"] += len(time)
                full = (
                    f"{self.waiting:,} of {SOURCE_QUEUE_POINTS:,} waiting here and "
                    f"{self.budget.waiting:,} of {self.budget.limit:,} in all; send again "
                    "later"
                )
                raise QueueFull(
                    "points", f"room for {len(time):,} in the queue of {self.title}", full
                )
            self.queue.append(Submission(time, x, receipt))
            self.waiting += len(time)
        return receipt

    # the monitor's thread

    def take(self, steps: int) -> Chunk:
        """At most so many of the points waiting, those in order and new."""
        if not len(self.rest.time) and self.queue:
            self.rest = self.gathered()
        time, x, _ = chunk = self.rest
        if len(time) <= steps:
            self.rest = self.nothing
        else:
            chunk = Chunk(time[:steps], x[:steps], None)
            self.rest = Chunk(time[steps:], x[steps:], None)
        self.leave(len(chunk.time))
        return chunk

    @property
    def more(self) -> bool:
        """Whether something is sorted out and not given; what is queued meanwhile waits its turn,
        or no round would ever end.
        """
        return len(self.rest.time) > 0

    def leave(self, points: int) -> None:
        with self.lock:
            self.waiting -= points
        self.budget.leave(points)

    def gathered(self) -> Chunk:
        """Everything queued, sorted out; each receipt learns what became of its points."""
        submissions = list(self.queue)
        one = submissions[0]
        time = (
            np.concatenate([each.time for each in submissions])
            if len(submissions) > 1
            else one.time
        )
        x = np.concatenate([each.x for each in submissions]) if len(submissions) > 1 else one.x
        newest = np.maximum.accumulate(
            np.concatenate(([self.last], time))
        )  # (1 + n,) before each point
        fresh = time > newest[:-1]
        late = np.zeros(len(time), bool) if fresh.all() else self.parted(time, fresh)
        self.answer(submissions, fresh, late)
        if not fresh.all():
            self.put_aside(time[late], x[late])
            self.count(len(time) - int(fresh.sum()), int(late.sum()))
            time = time[fresh]
            x = x[fresh]
        self.rate(time)
        self.last = float(newest[-1])
        return Chunk(time, x, None)

    def answer(
        self, submissions: Sequence[Submission], fresh: np.ndarray, late: np.ndarray
    ) -> None:
        """What each receipt will say, once the steps up to its last are safe."""
        start = 0
        for each in submissions:
            self.queue.popleft()
            span = slice(start, start := start + len(each.time))
            accepted = int(np.count_nonzero(fresh[span]))
            after = int(np.count_nonzero(late[span]))
            self.given += accepted
            self.open.append(
                (
                    self.given,
                    each.receipt,
                    SubmissionCounts(accepted, len(each.time) - accepted - after, after),
                )
            )

    def parted(self, time: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Which of the points that are not fresh are late (n,); the others repeat a time that was
        kept.
        """
        old = np.flatnonzero(~fresh)
        seen = (
            np.isin(time[old], time[fresh])
            | np.isin(time[old], list(self.aside))
            | self.known(time[old])
        )
        first = np.zeros(len(old), bool)
        first[np.unique(time[old], return_index=True)[1]] = True
        late = np.zeros(len(time), bool)
        late[old[first & ~seen]] = True
        return late

    def put_aside(self, time: np.ndarray, x: np.ndarray) -> None:
        if len(time):
            self.late.append(Chunk(time, x, None))
            self.aside.update(time.tolist())

    def rate(self, fresh: np.ndarray) -> None:
        """The seconds a step takes, by the first of them."""
        if self.given < PERIOD_SAMPLE and len(fresh):
            before = [self.last] if np.isfinite(self.last) else []
            self.gaps = [*self.gaps, *np.diff([*before, *fresh[:PERIOD_SAMPLE]]).tolist()][
                :PERIOD_SAMPLE
            ]
            self.period = float(np.median(self.gaps)) if self.gaps else 1.0

    def count(self, old: int, late: int) -> None:
        """Those that are not given leave the queue; repeats and late ones are counted."""
        self.leave(old)
        for fact, number in (("repeated", old - late), ("late", late)):
            if number:
                self.notes[fact] += number

    def resolve(self, stored: int) -> None:
        """Answers the receipts whose points are safe, now that all steps before `stored` are."""
        self.aside.clear()
        while self.open and self.open[0][0] <= stored:
            _, receipt, taken = self.open.popleft()
            if receipt.set_running_or_notify_cancel():
                receipt.set_result(taken)

    def abandon(self, error: BaseException) -> None:
        """Fails every receipt that still waits: its points are not acknowledged."""
        with self.lock:
            waiting = [each.receipt for each in self.queue] + [
                receipt for _, receipt, _ in self.open
            ]
            self.queue.clear()
        self.open.clear()
        for receipt in waiting:
            if receipt.set_running_or_notify_cancel():
                receipt.set_exception(error)
