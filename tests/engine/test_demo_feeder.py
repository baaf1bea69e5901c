"""The demo feeder: its past at once, each step at its time, and on from there after a restart."""

import numpy as np
import pytest

from redline.engine.demo_feeder import DEMO_PAST, DEMO_PERIOD, DemoFeeder
from redline.engine.monitor import Monitor
from redline.sources.directory import SeriesDirectory

SERIES = 50
NOW = 1_767_571_203.0


class Wall:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def wall():
    return Wall()


def running(wall, directory=None):
    monitor = Monitor({}, wall=wall, directory=directory)
    monitor.start()
    return monitor


def test_the_past_comes_at_once_and_later_steps_at_their_time(wall):
    monitor = running(wall)
    try:
        feeder = DemoFeeder(monitor, SERIES, seed=4)
        feeder.step = feeder.first_step()
        due = int(NOW // DEMO_PERIOD)
        assert feeder.step == due - DEMO_PAST
        while feeder.step < due:
            assert feeder.submit(due)
        assert monitor.series.totals.points == DEMO_PAST * SERIES
        newest = monitor.series.roster["newest"][feeder.numbers]
        assert (newest == feeder.fleet.times(due - 1)).all() and newest.max() < NOW
        again = DemoFeeder(monitor, SERIES, seed=4)
        assert again.first_step() == due
        wall.now += 3 * DEMO_PERIOD
        again.step = again.first_step()
        assert again.submit(due + 3)
        assert monitor.series.totals.points == (DEMO_PAST + 3) * SERIES
        assert not monitor.series.counts["repeated"] and not monitor.series.counts["late"]
    finally:
        monitor.stop()


def test_after_a_long_pause_only_the_newest_past_is_sent(wall):
    monitor = running(wall)
    try:
        feeder = DemoFeeder(monitor, SERIES, seed=4)
        feeder.step = feeder.first_step()
        assert feeder.submit(feeder.step + 1)
        wall.now += 1e6
        assert feeder.first_step() == int(wall.now // DEMO_PERIOD) - DEMO_PAST
    finally:
        monitor.stop()


def test_series_without_room_are_left_out(wall):
    monitor = running(wall, SeriesDirectory(max_series=7))
    try:
        feeder = DemoFeeder(monitor, SERIES, seed=4)
        feeder.step = feeder.first_step()
        assert feeder.submit(feeder.step + 2)
        assert len(monitor.series.names()) == 7 and monitor.series.totals.points == 14
    finally:
        monitor.stop()


def test_steps_that_are_refused_are_sent_again(wall, monkeypatch):
    monitor = running(wall)
    try:
        feeder = DemoFeeder(monitor, SERIES, seed=4)
        first = feeder.step = feeder.first_step()
        monkeypatch.setattr(monitor.budget, "limit", 0)
        assert not feeder.submit(first + 2) and feeder.step == first
        monkeypatch.undo()
        assert feeder.submit(first + 2) and feeder.step == first + 2
    finally:
        monitor.stop()


def test_the_thread_ends_with_the_monitor(wall):
    monitor = running(wall)
    feeder = DemoFeeder(monitor, SERIES, seed=4)
    monitor.stop()
    feeder.run()  # returns
    assert np.isfinite(feeder.fleet.values(feeder.step)).all()
