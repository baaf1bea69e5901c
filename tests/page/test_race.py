"""The race after an injection: who catches the fault, in order, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from dash import no_update
from starlette.testclient import TestClient

import app
from detectors import DETECTORS
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import MAX_TRACKS, Monitor
from redline.evaluation.metrics import HIT_TOLERANCE
from redline.page import race as race_module
from redline.page.race import Race, Races, last_chance, race_row, race_update
from redline.settings import Settings
from streams import STREAMS
from tests.behaviour.page import Browser

STEPS = 800
# enough of them for a race; all of them would make each of these tests slow
RUNNERS = ("rolling z-score", "moving average", "EWMA", "CUSUM", "seasonal")


@pytest.fixture(autouse=True)
def few_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "DETECTORS", {name: DETECTORS[name] for name in RUNNERS})


def watched(*names: str) -> Monitor:
    monitor = Monitor({name: MonitoredStream(STREAMS[name](seed=3)) for name in names})
    for feed in monitor.feeds.values():
        monitor.backfill(feed, STEPS)
    return monitor


@pytest.fixture
def monitor() -> Monitor:
    return watched("wave")


def run(monitor: Monitor, races: Races, steps: int = 1) -> Race | None:
    """Play some steps of the wave, score them on every track, and look at its race."""
    feed = monitor.feeds["wave"]
    monitor.backfill(feed, steps)
    races.look(feed)
    while monitor.fill_tracks():
        pass
    return races.look(feed)


def injected(monitor: Monitor, kind: str, size: float, name: str = "wave") -> Races:
    races = Races(monitor)
    monitor.inject(name, kind, size)
    races.start(monitor.feeds[name])
    return races


def test_each_detector_lights_up_when_it_catches_the_fault_and_the_end_counts_them(monitor):
    races = injected(monitor, "point", 20.0)
    at_once = run(monitor, races)
    first_caught = dict(at_once.caught)
    assert first_caught and set(first_caught.values()) == {0.0} and not at_once.over
    assert f"caught by {len(first_caught)} of {len(RUNNERS)} so far, first: " in at_once.sentence
    done = run(monitor, races, HIT_TOLERANCE + 1)
    assert done.over and set(done.delays) == set(RUNNERS)
    assert f"caught by {len(done.caught)} of {len(RUNNERS)}, first: " in done.sentence
    assert done.sentence.endswith("at once")


def test_the_delays_are_those_of_the_tracks_in_the_time_of_the_stream(monitor):
    races = injected(monitor, "drift", 9.0)
    feed = monitor.feeds["wave"]
    step = feed.stream.injections[-1].step
    done = run(monitor, races, 60)
    assert done.over and done.caught
    last = last_chance(feed, step)
    assert step + 16 + HIT_TOLERANCE <= last + 1 <= step + 24 + HIT_TOLERANCE, (
        "a drift has 16 to 24"
    )
    for name, delay in done.delays.items():
        settings = Settings(detector=name)
        _, alarm = feed.tracks[settings.key].scores(step, last + 1)
        above = np.flatnonzero(alarm > settings.threshold)
        assert delay == (above[0] if len(above) else np.inf), name
    order = [delay for _, delay in done.caught]
    assert order == sorted(order) and order[0] > 0, "a drift begins small"
    name, delay = done.caught[0]
    assert f"first: {name}, {delay * feed.stream.period:.1f}".removesuffix(".0") in done.sentence


def test_a_fault_that_none_catches_says_so(monitor):
    monitor.apply("wave", Settings(threshold=12.0))
    races = injected(monitor, "point", 1.0)
    done = run(monitor, races, HIT_TOLERANCE + 2)
    assert done.over and not done.caught
    assert done.sentence == f"caught by none of {len(RUNNERS)}, up to 10 steps after its end"


def test_a_gap_is_nothing_that_a_detector_judges(monitor):
    done = run(monitor, injected(monitor, "dropout", 5.0))
    assert done.over and "no values" in done.sentence


def test_the_newest_fault_has_the_race_and_one_of_another_stream_in_the_slot_has_none(monitor):
    races = injected(monitor, "point", 20.0)
    run(monitor, races)
    monitor.inject("wave", "shift", 8.0)
    feed = monitor.feeds["wave"]
    races.start(feed)
    assert races.look(feed).kind == "shift"
    feed.id = "another"
    assert races.look(feed) is None


def test_a_fault_that_left_the_buffer_before_it_was_judged_has_no_race(monitor, monkeypatch):
    races = injected(monitor, "point", 20.0)
    feed = monitor.feeds["wave"]
    monitor.backfill(feed, feed.capacity + 1)
    assert races.look(feed) is None and "wave" not in races.newest


def test_at_most_two_races_run_and_the_others_wait_for_one_that_somebody_looks_at(monkeypatch):
    names = list(STREAMS)[:3]
    monitor = watched(*names)
    races = Races(monitor)
    for name in names:
        monitor.inject(name, "shift", 8.0)
        races.start(monitor.feeds[name])
    first, second, third = (races.look(monitor.feeds[name]) for name in names)
    assert not first.waits_for and not second.waits_for
    assert third.sentence == f"waits for the race on {monitor.feeds[names[0]].stream.title}"
    monkeypatch.setattr(race_module, "ABANDONED_SECONDS", -1.0)
    assert not races.look(monitor.feeds[names[2]]).waits_for
    spare = MAX_TRACKS - len(STREAMS) - 2
    assert race_module.MAX_RACES * len(DETECTORS) + len(DETECTORS) <= spare, "and one comparison"


def test_its_tracks_come_after_the_one_that_a_visitor_looks_at(monitor):
    monitor.clock = iter(np.arange(0.0, 1e4, 0.01)).__next__
    races = injected(monitor, "point", 20.0)
    looked_at = monitor.request_track("wave", Settings(window=90))
    races.look(monitor.feeds["wave"])
    assert monitor.fill_tracks() and looked_at.end > 0
    others = [t for t in monitor.feeds["wave"].tracks.values() if t is not looked_at]
    assert sum(t.end > 0 for t in others) == 1, "only the applied one"


def test_a_browser_is_sent_the_race_only_when_it_changed(monitor):
    races = injected(monitor, "point", 20.0)
    run(monitor, races)
    feed = monitor.feeds["wave"]
    held: dict[str, Any] = {}
    assert race_update(races, feed, None, held)["race"]
    again: dict[str, Any] = {}
    assert race_update(races, feed, held, again) == {} and again == held
    other = watched("cpu").feeds["cpu"]
    assert race_update(races, other, held, again) == {"race": []}
    assert race_update(Races(monitor), feed, {}, again) == {}, "there never was one"


def test_the_row_has_a_dot_for_each_detector_those_that_caught_it_first(monitor):
    done = run(monitor, injected(monitor, "point", 20.0), HIT_TOLERANCE + 2)
    dots, sentence = race_row(done)
    looks = [dot.className if hasattr(dot, "className") else "" for dot in dots.children]
    assert len(looks) == len(RUNNERS) and sentence.children == done.sentence
    assert looks[: len(done.caught)] == ["first"] + ["hit"] * (len(done.caught) - 1)
    assert set(looks[len(done.caught) :]) <= {""}


def test_a_click_on_inject_starts_it_and_every_visitor_sees_it(monkeypatch):
    monitor = watched("wave")
    monkeypatch.setattr(monitor, "start", lambda: None)  # the loop runs by hand
    service: Service = assemble_service(lambda store: monitor)
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor, other = Browser(client), Browser(client)
        visitor.press("inject-point.n_clicks", "injected.children", size=20.0)
        monitor.backfill(monitor.feeds["wave"], 1)
        while monitor.fill_tracks():
            pass
        for each in (visitor, other):
            shown = each.press("tick.n_intervals", "race.children", domain="wave")
            assert "so far, first:" in json.dumps(shown["race"])
            again = each.press("tick.n_intervals", "race.children", domain="wave")
            assert "race" not in again or again["race"]["children"] is no_update
