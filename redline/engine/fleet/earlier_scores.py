"""The earlier scores: after a restart the worst scores of the last hours come from the store.

They are read in a thread of its own, the newest first, which rests as long as it works, so that the
loop and the requests go on; then the loop takes them over at once. Scores are compared with the
thresholds that are applied now.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.roster import Roster
from redline.engine.fleet.stored import SeriesSteps, SeriesStore
from redline.engine.fleet.worst_scores import MAX_AHEAD, WIDE_CELLS, WIDE_SECONDS, WorstScores
from redline.engine.results import log

EARLIER_SECONDS = 120.0  # that reading may take; what was not read by then is left out
THREAD_END_SECONDS = 2.0  # that ending may take


class EarlierScores:
    """Reads the stored scores once; for the loop, but for the thread that it starts."""

    def __init__(self, worst: WorstScores, roster: Roster, store: SeriesStore | None) -> None:
        """Make it without a thread.

        Args:
            worst: what gets the scores.
            roster: the series, and their thresholds.
            store: where the scores are; None = nowhere.
        """
        self.worst = worst
        self.roster = roster
        self.store = store
        self.found: deque[WorstScores] = deque()  # read, to be taken over
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()

    def begin(self) -> None:
        """Start reading, the first time that it is called after the series were restored."""
        if self.store is None or self.thread is not None:
            return
        newest = self.roster["newest"][: self.roster.size]
        newest = newest[np.isfinite(newest)]
        last = min(float(newest.max(initial=0.0)), time.time() + MAX_AHEAD)
        what = (last - WIDE_CELLS * WIDE_SECONDS, self._thresholds())
        self.thread = threading.Thread(
            target=self._run, args=what, name="earlier scores", daemon=True
        )
        self.thread.start()

    def _thresholds(self) -> Array:
        """Return the threshold of each series, (numbers,); NaN = it is in no fleet."""
        places = self.roster["fleet"][: self.roster.size]
        applied = [fleet.settings.threshold for fleet in self.roster.fleets]
        return np.array([*applied, np.nan])[places]  # -1 = in none

    def _run(self, since: float, thresholds: Array) -> None:
        """Read the scores since a time, seconds since the Unix epoch."""
        try:
            self.read(since, thresholds)
        except OSError as error:
            log.warning("the scores before the restart are not shown: %s", error)

    def read(self, since: float, thresholds: Array, seconds: float = EARLIER_SECONDS) -> None:
        """Read the scores since a time, for so many seconds at most, and leave them to the loop."""
        assert self.store is not None
        found = WorstScores()
        until = time.monotonic() + seconds
        began = time.perf_counter()
        for steps in self.store.scores_since(since):
            record_steps(found, steps, thresholds)
            if self.stopping.wait(time.perf_counter() - began) or time.monotonic() > until:
                break
            began = time.perf_counter()
        if not self.stopping.is_set():
            self.found.append(found)

    def take_over(self) -> None:
        """Add to the worst scores what was read."""
        while self.found:
            self.worst.merge(self.found.popleft())

    def stop(self) -> None:
        """End the thread."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(THREAD_END_SECONDS)


def record_steps(worst: WorstScores, steps: SeriesSteps, thresholds: Array) -> None:
    """Take stored steps in; those of series without a threshold, and late points, are left out."""
    steps = steps.pick((steps.step >= 0) & (steps.series < len(thresholds)))
    ratio = steps.score / thresholds[steps.series]
    worst.record(steps.series, steps.time, ratio, time.time())
