"""A series that is looked at: a feed with its past, the fleet's scores, and settings to try out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from redline.engine.fleet.series_monitor import SERIES_SETTINGS
from redline.engine.fleet.series_views import SeriesFeed
from redline.engine.monitor import IDLE_SECONDS, Monitor
from redline.engine.track import Track
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents
from redline.settings import Settings
from redline.storage.sqlite import SqliteStore

START = 1_767_571_200.0  # seconds since the Unix epoch
DEFAULT = SERIES_SETTINGS
NAMES = ("node_load{host=a}", "node_load{host=b}")


class Service:
    """A monitor on a store, whose loop the test plays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.values = np.random.default_rng(3).normal(20, 1, (3_000, 2))
        self.values[1_500:1_503, 0] = 60.0
        self.sent = 0
        self.open()

    def open(self) -> None:
        self.incidents = Incidents()
        self.store = SqliteStore(self.path)
        recorder = IncidentRecorder(self.incidents, self.store)
        self.monitor = Monitor(
            {}, clock=lambda: self.now, wall=lambda: START + 10**6, store=recorder
        )
        self.monitor.listeners.append(recorder.on_batches)
        self.monitor.series.reports.followers.append(self.incidents.live_streams)
        self.turn()

    def turn(self) -> None:
        self.monitor.process_pushed()
        self.monitor.views.fill()

    def send(self, steps: int) -> None:
        """Send so many steps of both series, 100 a request."""
        for first in range(self.sent, self.sent + steps, 100):
            count = min(100, self.sent + steps - first)
            numbers = [self.monitor.series.directory.number(name) for name in NAMES]
            time = START + 15.0 * np.arange(first, first + count)
            values = self.values[first : first + count]
            found = self.monitor.submit_series(
                np.tile(numbers, count), np.repeat(time, 2), values.ravel()
            )
            self.turn()
            assert found.taken[0][1].result(0).accepted == 2 * count
        self.sent += steps

    def looked_at(self) -> SeriesFeed:
        feed = self.monitor.feed(NAMES[0])
        assert isinstance(feed, SeriesFeed)
        self.monitor.request_track(feed.name, feed.applied)
        self.turn()
        assert feed.ready and feed.failure is None
        return feed

    def scores(self, feed: SeriesFeed) -> np.ndarray:
        return feed.applied_track.scores(feed.tape.first, feed.end)[0]

    def alone(self, setting: Settings = DEFAULT) -> np.ndarray:
        track = Track(setting, (0.0,), 0)
        return track.advance(self.values[: self.sent, :1])["score"][:, 0]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "redline.db")
    yield service
    service.store.close()


def test_a_series_is_looked_at_with_its_past_and_goes_on(service: Service) -> None:
    service.send(1_400)
    assert not service.monitor.views.feeds, "nothing is looked at"
    feed = service.looked_at()
    assert (feed.tape.first, feed.end) == (0, 1_400)
    assert feed.stream.period == 15.0
    np.testing.assert_allclose(service.scores(feed), service.alone(), rtol=0.01, atol=0.01)
    service.send(600)  # with an alarm
    assert feed.end == 2_000
    np.testing.assert_array_equal(service.scores(feed)[1_400:], service.alone()[1_400:])
    assert [each.step for each in feed.journal if each.alarm][-1] == 1_500
    low, high = feed.bounds(feed.applied_track, DEFAULT.threshold, 1_500, 1_501)
    assert low is not None and high is not None and low[0, 0] < 20 < high[0, 0] < 60


def test_an_alarm_of_a_series_opens_an_incident_and_calm_steps_end_it(service: Service) -> None:
    service.send(1_501)
    opened = [each for each in service.incidents.items.values() if each.peak.step == 1_500]
    assert opened and opened[0].stream == NAMES[0] and opened[0].live
    service.send(600)
    assert not service.incidents.items[opened[0].id].live
    assert not service.incidents.live_streams()


def test_settings_are_tried_out_and_applied(service: Service) -> None:
    service.send(500)
    feed = service.looked_at()
    trial = Settings("EWMA", 30, 4.0)
    track = service.monitor.request_track(feed.name, trial)
    while service.monitor.fill_tracks():
        pass
    assert track.end == 500 and feed.applied == DEFAULT
    service.monitor.apply(feed.name, trial)
    service.turn()
    assert feed.settings_stored == feed.settings_applied == 1
    number = service.monitor.series.find(feed.name)
    assert number is not None
    assert service.monitor.series.summary(number).settings == trial
    service.send(100)
    np.testing.assert_array_equal(service.scores(feed), service.alone(trial))
    assert service.monitor.undo(feed.name) == DEFAULT
    service.turn()
    assert service.monitor.series.summary(number).settings == DEFAULT
    service.store.close()
    service.open()
    assert service.looked_at().applied == DEFAULT


def test_a_view_is_filled_from_the_store_after_a_restart(service: Service) -> None:
    service.send(1_600)
    service.store.close()
    service.open()
    feed = service.looked_at()
    assert (feed.tape.first, feed.end) == (0, 1_600)
    assert (
        feed.anomalies == np.count_nonzero(service.alone() > DEFAULT.threshold) == len(feed.journal)
    )
    service.send(100)
    np.testing.assert_array_equal(service.scores(feed)[1_600:], service.alone()[1_600:])


def test_a_view_that_was_just_filled_is_not_idle(service: Service) -> None:
    service.now = 10 * IDLE_SECONDS
    service.send(200)
    feed = service.looked_at()
    service.monitor.evict_idle_tracks(service.now)
    assert service.monitor.feed(NAMES[0]) is feed and feed.end == 200


def test_what_is_not_looked_at_any_more_is_closed_and_opened_anew(service: Service) -> None:
    service.send(200)
    feed = service.looked_at()
    service.now += IDLE_SECONDS / 2
    service.monitor.evict_idle_tracks(service.now)
    assert service.monitor.views.feeds
    service.now += IDLE_SECONDS
    service.monitor.evict_idle_tracks(service.now)
    assert not service.monitor.views.feeds and not service.monitor.series.reports.watchers
    service.send(100)
    again = service.looked_at()
    assert again is not feed and again.end == 300 and again.id != feed.id


def test_a_removed_series_is_unknown_and_its_points_are_gone(service: Service) -> None:
    service.send(1_600)
    service.looked_at()
    removed = service.monitor.remove_source(NAMES[0])
    service.turn()
    assert removed.result(0) is None
    assert service.monitor.find_feed(NAMES[0]) is None and service.monitor.knows(NAMES[1])
    assert service.store.newest_anomalies(NAMES[0]) == []
    with pytest.raises(KeyError):
        service.monitor.request_track(NAMES[0], DEFAULT)


def test_points_by_name_go_into_the_series(service: Service) -> None:
    service.send(100)
    later = np.array([START + 10**5])
    receipt = service.monitor.submit(NAMES[0], later, np.array([21.0]))
    service.turn()
    assert receipt.result(0).accepted == 1 and not service.monitor.feeds
    with pytest.raises(ValueError, match="is a series"):
        service.monitor.submit(NAMES[0], later + 15, np.ones((1, 2)), ("a", "b"))
