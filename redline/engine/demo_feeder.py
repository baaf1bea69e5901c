"""The demo feeder, which submits the steps of the demo fleet to a monitor as they fall due."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import numpy as np

from redline.engine.monitor import Monitor
from redline.engine.results import log
from redline.sources.demo_fleet import DemoFleet

DEMO_PERIOD = 5.0  # seconds a step
DEMO_PAST = 300  # steps that a new fleet has behind it
POINTS_AT_ONCE = 100_000  # of a submission
COMMIT_PATIENCE = 60.0  # seconds until a submission is sent again


class DemoFeeder:
    """A thread that submits a demo fleet: first its past at once, then each step at its time.

    The step of a time is the same in every run, so a restart goes on where the last one ended.
    """

    def __init__(self, monitor: Monitor, series: int, seed: int) -> None:
        """Make a feeder that is not running yet; series beyond the directory's room are left out.

        Args:
            monitor: takes the samples.
            series: how many.
            seed: of the fleet.
        """
        self.monitor = monitor
        self.fleet = DemoFleet(series, seed, DEMO_PERIOD, start=0.0)
        directory = monitor.series.directory
        numbers = np.array([directory.number(name) for name in self.fleet.names])
        self.places = np.flatnonzero(numbers >= 0)  # of the series that are taken
        self.numbers = numbers[self.places]
        self.step = 0  # the next one

    def start(self) -> None:
        """Start the thread; it ends when the monitor stops."""
        threading.Thread(target=self.run, name="demo fleet", daemon=True).start()

    def run(self) -> None:
        """Submit steps until the monitor stops."""
        stopping = self.monitor.stopping
        while not self.monitor.series.restored:
            if stopping.wait(0.1):
                return
        self.step = self.first_step()
        while not stopping.is_set():
            due = int(self.monitor.wall() // DEMO_PERIOD)  # all its samples are taken by then
            if self.step < due:
                if not self.submit(due):
                    stopping.wait(1.0)
            else:
                stopping.wait((due + 1) * DEMO_PERIOD - self.monitor.wall())

    def first_step(self) -> int:
        """Return the first step to submit: the oldest of the past, or the first not known yet."""
        oldest = int(self.monitor.wall() // DEMO_PERIOD) - DEMO_PAST
        places = self.monitor.series.roster
        known = self.numbers[places.knows(self.numbers)]
        newest = float(places["newest"][known].max(initial=-np.inf))
        return max(oldest, int(newest // DEMO_PERIOD) + 1) if np.isfinite(newest) else oldest

    def submit(self, end: int) -> bool:
        """Submit some of the steps before `end` and wait for them; return whether they are taken.

        If they are not, they are submitted again later; those that are taken already count as
        repeated.
        """
        count = max(1, POINTS_AT_ONCE // max(1, len(self.numbers)))
        steps = range(self.step, min(end, self.step + count))
        time = np.concatenate([self.fleet.times(step)[self.places] for step in steps])
        value = np.concatenate([self.fleet.values(step)[self.places] for step in steps])
        sent = self.monitor.submit_series(np.tile(self.numbers, len(steps)), time, value)
        receipts = [receipt for _, receipt in sent.taken]
        done, waiting = wait(receipts, COMMIT_PATIENCE)
        errors: list[BaseException] = [error for _, error in sent.refused]
        errors += [error for receipt in done if (error := receipt.exception()) is not None]
        if errors and not self.monitor.stopping.is_set():
            log.warning("a step of the demo fleet is not taken yet: %s", errors[0])
        if errors or waiting:
            return False
        self.step = steps.stop
        return True
