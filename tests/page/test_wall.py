"""The overview as a wall display: what is unusual, worst first, made once for all visitors."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.engine.wording import SEVERITIES
from redline.incidents.incident import OPEN
from redline.incidents.registry import IncidentQuery
from redline.page import wall
from redline.page.wall import Wall, thinned_steps, wall_document, wall_line
from redline.settings import Settings
from redline.sources.payload import to_json
from streams import STREAMS
from tests.behaviour.page import Browser

NAMES = ("wave", "cpu", "machine", "iot")


@pytest.fixture
def service() -> Service:
    monitor = Monitor({name: MonitoredStream(STREAMS[name](seed=3, rate=0.0)) for name in NAMES})
    for feed in monitor.feeds.values():
        feed.applied = Settings(threshold=6.0)
        monitor.backfill(feed, 600)
    service = assemble_service(lambda store: monitor)
    monitor.commit_results(force=True)
    return service


def fault(service: Service, name: str, size: float, steps: int = 1) -> None:
    """Show a shift in a stream, as if it came live."""
    monitor = service.monitor
    monitor.inject(name, "shift", size)
    feed = monitor.feeds[name]
    with feed.lock:
        feed.append(feed.stream.take(steps), monitor.wall())
    feed.catch_up(feed.applied_track, steps)
    monitor.commit_results(force=True)


def test_what_is_unusual_is_a_tile_the_worst_first_and_the_rest_is_calm(service):
    calm = wall_document(service)
    assert calm["tiles"] == [] and calm["counts"]["calm"] == len(NAMES)
    fault(service, "iot", 8.0, 3)
    fault(service, "wave", 40.0, 3)
    shown = wall_document(service)
    assert [tile["stream"] for tile in shown["tiles"]] == ["wave", "iot"]
    ranks = [SEVERITIES.index(tile["severity"]) for tile in shown["tiles"]]
    assert ranks == sorted(ranks, reverse=True) and ranks[0] > ranks[1]
    assert shown["tiles"][0]["severity"] == "critical"
    assert [row["stream"] for row in shown["calm"]] == ["cpu", "machine"]
    counts = {**dict.fromkeys(SEVERITIES, 0), "calm": 2}
    for tile in shown["tiles"]:
        counts[tile["severity"]] += 1
    assert shown["counts"] == counts


def test_a_tile_says_what_now_what_was_expected_since_when_and_of_which_incident(service):
    fault(service, "wave", 40.0)
    feed = service.monitor.feeds["wave"]
    (incident,) = service.incidents.find(IncidentQuery("wave", (OPEN,))).incidents
    (tile,) = wall_document(service)["tiles"]
    value = feed.tape.read("x", feed.end - 1, feed.end)[0, 0]
    assert float(tile["value"].replace(",", "")) == pytest.approx(value, rel=0.05)
    low, high = map(float, tile["expected"].split(" to "))
    assert low < high and not low <= value <= high
    assert tile["title"] == feed.stream.title and tile["unit"] == feed.stream.units[0]
    assert tile["open"] and tile["incident"].startswith("open, ")
    assert tile["for"] == "0 s" and incident.start > 0
    assert tile["line"]["hot"][-1] == len(tile["line"]["y"]) - 1, "the newest point is anomalous"


def test_the_headline_names_the_worst_stream_with_its_severity_and_since_when(service):
    assert wall_document(service)["headline"]["text"] == "All calm: 4 streams watched."
    assert wall_document(service)["headline"]["stream"] == ""
    fault(service, "machine", 8.0, 3)
    fault(service, "cpu", 60.0, 3)
    said = wall_document(service)["headline"]
    (incident,) = service.incidents.find(IncidentQuery("cpu", (OPEN,))).incidents
    since = wall.wording.format_time(incident.start, service.monitor.feeds["cpu"].stream.period)
    assert said["stream"] == "cpu" and said["title"] == service.monitor.feeds["cpu"].stream.title
    assert said["text"].startswith("critical (9") and said["text"].endswith(f"since {since}")


def test_of_two_streams_with_one_severity_the_one_that_stands_out_more_comes_first(service):
    fault(service, "cpu", 40.0, 3)
    fault(service, "wave", 400.0, 3)
    tiles = wall_document(service)["tiles"]
    assert [tile["severity"] for tile in tiles] == ["critical", "critical"]
    index = {
        state.feed.name: state.severity_index
        for state in wall.stream_states(service, wall.live_incidents(service))
    }
    assert index["wave"] > index["cpu"] and index["iot"] == 0
    assert [tile["stream"] for tile in tiles] == ["wave", "cpu"]


def test_a_tile_that_is_back_in_its_band_says_the_value_of_its_alarm_beside_the_one_now(service):
    fault(service, "wave", 40.0)
    (tile,) = wall_document(service)["tiles"]
    assert tile["alarm"] == "", "the alarm is the value now"
    feed = service.monitor.feeds["wave"]
    peak = service.incidents.find(IncidentQuery("wave", (OPEN,))).incidents[0].peak
    with feed.lock:
        chunk = feed.stream.take(4)
        feed.append(chunk._replace(x=np.zeros_like(chunk.x)), service.monitor.wall())
    feed.catch_up(feed.applied_track, 4)
    service.monitor.commit_results(force=True)
    (tile,) = wall_document(service)["tiles"]
    at = wall.wording.format_time(peak.time, feed.stream.period)
    value = float(tile["alarm"].removeprefix(f"alarm {at}: ").split()[0])
    assert value == pytest.approx(peak.value, rel=0.05)
    assert tile["alarm"].endswith(f", now {tile['value']} {tile['unit']}")
    assert abs(float(tile["value"])) < 0.1


def test_an_acknowledged_incident_has_no_red_frame_and_a_stream_of_many_features_names_one(service):
    fault(service, "machine", 40.0, 3)
    (incident,) = service.incidents.find(IncidentQuery("machine", (OPEN,))).incidents
    service.incidents.acknowledge(incident.id, "me", time.time())
    (tile,) = wall_document(service)["tiles"]
    stream = service.monitor.feeds["machine"].stream
    assert not tile["open"] and tile["incident"].startswith("acknowledged")
    assert tile["title"] == f"{stream.title} · {stream.names[incident.peak.feature]}"


def test_the_newest_step_counts_where_no_incident_is_open(service):
    fault(service, "cpu", 40.0, 2)
    service.incidents.items.clear()
    (tile,) = wall_document(service)["tiles"]
    assert tile["incident"] == "no incident" and not tile["open"]
    assert tile["for"] == wall.wording.format_span(service.monitor.feeds["cpu"].stream.period)


def test_many_streams_are_counted_and_a_part_of_them_is_sent(service, monkeypatch):
    monkeypatch.setattr(wall, "MAX_TILES", 1)
    monkeypatch.setattr(wall, "MAX_CALM_ROWS", 1)
    fault(service, "iot", 40.0, 3)
    fault(service, "wave", 40.0, 3)
    shown = wall_document(service)
    assert len(shown["tiles"]) == len(shown["calm"]) == shown["more"] == 1
    assert shown["counts"]["calm"] == 2 and shown["counts"]["critical"] == 2


def test_no_anomaly_is_lost_between_the_points_of_a_line(service):
    score = np.zeros(240)
    score[[7, 100, 239]] = 9.0
    kept = thinned_steps(score, 40)
    assert len(kept) == 40 and {7, 100, 239} <= set(kept.tolist())
    assert np.all(np.diff(kept) > 0)
    fault(service, "wave", 40.0, 3)
    rows = wall.newest_rows(service.monitor.feeds["wave"])
    line = wall_line(rows, 0, 6.0, 80)
    assert len(line["y"]) == len(line["low"]) == len(line["high"]) == 80
    assert all(0 <= level <= wall.LINE_SCALE for level in line["y"])


def test_the_line_of_a_feature_is_red_only_where_that_feature_is_anomalous(service):
    x = np.random.default_rng(4).normal(size=(400, 2))
    x[300, 1] = 60.0
    service.monitor.submit("pump", 1.7e9 + np.arange(400.0), x, ("calm", "loud"))
    service.monitor.beat()
    rows = wall.newest_rows(service.monitor.feeds["pump"])
    assert wall_line(rows, 0, 3.5, 80)["hot"] == []
    (loud,) = wall_line(rows, 1, 3.5, 80)["hot"]
    assert wall_line(rows, 1, 3.5, 80)["y"][loud] == wall.LINE_SCALE
    (row,) = [row for row in wall_document(service)["calm"] if row["stream"] == "pump"]
    assert row["title"] == "pump · loud" and row["line"]["y"][row["line"]["hot"][0]] == 1_000


def test_a_stream_without_numbers_has_a_row_without_a_line(service):
    service.monitor.submit("oven", np.array([1.7e9]), np.array([[np.nan]]))
    service.monitor.beat()
    shown = {row["stream"]: row for row in wall_document(service)["calm"]}
    assert shown["oven"]["value"] == "–" and shown["oven"]["line"]["y"] == []


def test_it_is_made_once_for_all_visitors_and_only_for_who_looks_at_it(service, monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(service.monitor, "clock", lambda: seconds[0])
    display = Wall(service)
    first = display.renewed()
    assert display.renewed() is first
    seconds[0] += 2.0
    assert display.renewed() is not first
    monkeypatch.setattr(service.monitor, "start", lambda: None)
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        browser = Browser(client)
        (callback,) = [c for c in browser.callbacks if c["output"] == "wall.data"]
        shown = browser.press("slow.n_intervals", callback["output"], domain="overview")
        document = shown["wall"]["data"]
        assert document == json.loads(to_json(wall_document(service)))
        body: dict[str, Any] = {
            "output": callback["output"],
            "outputs": {"id": "wall", "property": "data"},
            "inputs": [browser.filled(each) for each in callback["inputs"]],
            "changedPropIds": ["slow.n_intervals"],
        }
        body["inputs"][1]["value"] = "wave"
        answer = client.post("/_dash-update-component", json=body)
        assert "tiles" not in answer.text, answer.text
