"""A feeder with a real broker, whose turns the test plays: the store is a commit of the monitor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redline.api.doors import Doors
from redline.api.topic_feeder import TopicFeeder
from redline.engine.monitor import Limits, Monitor
from redline.sources.consumer import ConsumerOptions
from redline.sources.directory import SeriesDirectory

START = 1_767_571_200.0  # seconds since the epoch
PATIENCE = 15.0  # seconds


class Watching:
    """A monitor that outlives the feeders which read for it."""

    def __init__(self, **limits: int) -> None:
        directory = SeriesDirectory()
        self.monitor = Monitor({}, directory=directory, limits=Limits(**limits))
        self.doors = Doors(directory)

    def commit(self) -> None:
        """Keep all points that wait."""
        self.monitor.process_pushed()
        while self.monitor.series.has_work:
            self.monitor.process_pushed()

    @property
    def points(self) -> int:
        """Return how many points are kept."""
        return self.monitor.totals.points


class Fed:
    """A feeder and its consumer."""

    def __init__(self, options: ConsumerOptions, watching: Watching) -> None:
        self.feeder = TopicFeeder(options, watching.monitor, watching.doors)
        self.consumer: Any = options.connect(watching.monitor.wall)

    def turn_until(self, look: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return the report once a look finds something in it, after some turns."""
        until = time.monotonic() + PATIENCE
        while True:
            self.feeder.next_look = float("-inf")
            self.feeder.turn(self.consumer)
            found = self.feeder.report()
            if look(found):
                return found
            assert time.monotonic() < until, found
