"""The intake: samples of any series in one bounded queue, until the loop takes them in turns."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.sources.pushed import QueueBudget, QueueFull, Receipt, SubmissionCounts

# kinds of points, as the receipts count them
FRESH = 0
REPEATED = 1
LATE = 2


class SeriesSubmission(NamedTuple):
    """Samples that were sent together."""

    series: Array  # (n,) int64, numbers of the directory
    time: Array  # (n,) seconds since the Unix epoch
    value: Array  # (n,) NaN = missing
    creator: str  # the client, whose new series are counted
    receipt: Receipt


class Turn(NamedTuple):
    """The samples that the loop takes at once, in the order in which they came."""

    submissions: Sequence[SeriesSubmission]
    series: Array  # (n,)
    time: Array  # (n,)
    value: Array  # (n,)
    owner: Array  # (n,) int, the place of its submission


class SeriesIntake:
    """A queue of submissions, bounded by the points in it; submitted to from any thread."""

    def __init__(self, budget: QueueBudget) -> None:
        """Make an empty queue; budget: what it shares with the queues of other sources."""
        self.budget = budget
        self.queue: deque[SeriesSubmission] = deque()
        self.waiting = 0  # points
        self.counts: Counter[str] = Counter()  # points refused, repeated, late
        self.lock = threading.Lock()

    def submit(self, series: Array, time: Array, value: Array, creator: str = "") -> Receipt:
        """Queue samples, all (n,), of one client; the receipt resolves when they are committed.

        Raises:
            QueueFull: they do not fit; the same can be sent again later.
        """
        points = len(series)
        if not self.budget.reserve(points):
            with self.lock:
                self.counts["refused"] += points
            came = f"{self.budget.waiting:,} of {self.budget.limit:,} waiting; send again later"
            raise QueueFull("points", f"room for {points:,} in the queue", came)
        receipt = Receipt()
        with self.lock:
            self.queue.append(SeriesSubmission(series, time, value, creator, receipt))
            self.waiting += points
        return receipt

    def take(self, points: int) -> Turn | None:
        """Return waiting submissions, at most so many points but at least one; None = none."""
        taken: list[SeriesSubmission] = []
        room = points
        with self.lock:
            while self.queue and (not taken or len(self.queue[0].series) <= room):
                taken.append(self.queue.popleft())
                room -= len(taken[-1].series)
            self.waiting -= points - room
        if not taken:
            return None
        self.budget.release(points - room)
        sizes = [len(each.series) for each in taken]
        return Turn(
            taken,
            series=np.concatenate([each.series for each in taken]),
            time=np.concatenate([each.time for each in taken]),
            value=np.concatenate([each.value for each in taken]),
            owner=np.repeat(np.arange(len(taken)), sizes),
        )

    def abandon(self, error: BaseException) -> None:
        """Fail the receipts of all that waits: it is not acknowledged."""
        with self.lock:
            waiting = list(self.queue)
            self.queue.clear()
            self.budget.release(self.waiting)
            self.waiting = 0
        for submission in waiting:
            fail_receipt(submission.receipt, error)


def find_fresh(series: Array, time: Array, newest: Array) -> Array:
    """Return which samples (n,) are newer than all before them of their series, (n,) bool.

    Args:
        series: (n,) int, the same number any number of times, in the order in which they came.
        time: (n,) seconds since the Unix epoch.
        newest: (numbers,) seconds, the newest time of each series before; -inf = none.

    >>> find_fresh(np.array([0, 1, 0, 0]), np.array([5.0, 5, 4, 6]), np.array([3.0, 5])).tolist()
    [True, False, False, True]
    """
    fresh: Array = time > newest[series]
    if len(series) < 2 or (series[1:] > series[:-1]).all():
        return fresh
    order = np.argsort(series, kind="stable")
    number = series[order]
    begins = np.concatenate(([True], number[1:] != number[:-1]))
    if begins.all():
        return fresh
    # the place of each time among all times, and above it the place of its series: the greatest
    # so far never comes from another series
    place = np.unique(time[order], return_inverse=True)[1] + np.cumsum(begins) * len(order)
    greatest = np.maximum.accumulate(place)
    newer = np.ones(len(order), bool)
    newer[1:] = begins[1:] | (place[1:] > greatest[:-1])
    fresh[order] &= newer
    return fresh


def first_of_each(series: Array, time: Array) -> Array:
    """Return which samples (n,) are the first of their series at their time, (n,) bool.

    >>> first_of_each(np.array([0, 0, 1, 0]), np.array([5.0, 5, 5, 4])).tolist()
    [True, False, True, True]
    """
    order = np.lexsort((time, series))  # stable, so of equal ones the first comes first
    first = np.ones(len(order), bool)
    same = (series[order][1:] == series[order][:-1]) & (time[order][1:] == time[order][:-1])
    first[order[1:][same]] = False
    return first


def resolve_receipt(receipt: Receipt, kinds: Array) -> None:
    """Resolve a receipt with the kinds (n,) of its points."""
    if receipt.set_running_or_notify_cancel():
        counts = np.bincount(kinds, minlength=3).tolist()
        receipt.set_result(SubmissionCounts(*counts))


def fail_receipt(receipt: Receipt, error: BaseException) -> None:
    """Fail a receipt: its points are not acknowledged."""
    if receipt.set_running_or_notify_cancel():
        receipt.set_exception(error)
