"""The zone of the times on the page: that of the viewer, but for simulations and files."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.engine.wording import VIEWER_ZONE, format_time
from redline.page.zones import called_in_zone, find_zone, time_ticks, times_of
from redline.sources.csv import read_csv
from streams import STREAMS
from tests.behaviour.page import Browser

BERLIN = ZoneInfo("Europe/Berlin")
HEADERS = {"X-Redline-Zone": "Europe/Berlin"}
NOON = datetime(2026, 7, 6, 12, tzinfo=UTC).timestamp()  # 14:00 in Berlin
CSV = "\n".join(["t,x", *(f"2026-07-06 12:{i // 60:02d}:{i % 60:02d},{i % 7}" for i in range(300))])


@pytest.fixture
def service() -> Service:
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))}, wall=lambda: NOON + 1e6)
    monitor.backfill(monitor.feeds["wave"], 600)
    made = assemble_service(lambda store: monitor)
    values = np.random.default_rng(5).uniform(-1, 1, 300)
    values[-1] = 60.0
    monitor.submit("oven", NOON + np.arange(300.0), values)
    monitor.process_pushed()
    monitor.open("your-data", read_csv(CSV.encode(), title="a.csv"), None, 300)
    return made


def test_a_name_that_is_no_zone_is_utc() -> None:
    for name in ("Mars/Base", "../../etc/passwd", "Europe/Berlin\n", "x" * 500, "", "America"):
        assert find_zone(name) is UTC, name
    assert find_zone("Asia/Kolkata") == ZoneInfo("Asia/Kolkata")


def test_a_call_has_its_zone_and_a_stream_of_its_own_time_is_written_in_utc(service) -> None:
    assert format_time(NOON, 1.0) == "12:00:00"
    with called_in_zone([(b"x-redline-zone", b"Europe/Berlin")]):
        assert format_time(NOON, 1.0) == "14:00:00"
        feeds = service.monitor.feeds
        for name, said in (("wave", "12:00:00"), ("your-data", "12:00:00"), ("oven", "14:00:00")):
            with times_of(feeds[name].stream):
                assert format_time(NOON, 1.0) == said, name
        assert format_time(NOON, 1.0) == "14:00:00"
    assert VIEWER_ZONE.get() is UTC


@pytest.mark.parametrize("hours", [0.02, 0.3, 3, 12, 40, 200, 900, 9_000, 200_000])
@pytest.mark.parametrize("change", [(2026, 3, 29), (2026, 10, 25)])
def test_ticks_are_round_times_of_the_zone_on_both_sides_of_a_change_of_its_clock(
    hours, change
) -> None:
    at = datetime(*change, 1, tzinfo=UTC).timestamp()
    with called_in_zone([(b"x-redline-zone", b"Europe/Berlin")]):
        low, high = at - 1_800 * hours, at + 1_800 * hours
        ticks = time_ticks(low, high)
    times = np.array(ticks["tickvals"]) / 1_000
    assert 2 <= len(times) <= 9 and low <= times[0] and times[-1] <= high
    assert (np.diff(times) > 0).all()
    for time, text in zip(times, ticks["ticktext"]):
        local = datetime.fromtimestamp(time, BERLIN)
        first = text.split("<br>")[0]
        if ":" in first:
            assert local.strftime("%H:%M:%S").startswith(first)
            assert local.second % 5 == 0 and (hours < 12 or local.minute == 0)
        else:
            assert (local.hour, local.minute) == (0, 0) and local.strftime("%b") in first


def test_ticks_of_a_short_view_have_tenths_and_an_empty_one_has_none() -> None:
    ticks = time_ticks(NOON, NOON + 1.0)
    assert ticks["ticktext"][:2] == ["12:00:00.0<br>6 Jul", "12:00:00.2"]
    assert time_ticks(NOON, NOON)["tickvals"] == []


def test_the_page_writes_times_in_the_zone_of_the_call_and_the_api_in_utc(service, monkeypatch):
    monkeypatch.setattr(service.monitor, "start", lambda: None)  # the loop runs by hand
    server = app.build_app(service).server
    with TestClient(server, base_url="http://localhost", headers=HEADERS) as client:
        visitor = Browser(client)
        shown = visitor.press("domain.value", "chart.figure", domain="oven")
        assert "14:04:59" in shown["explain"]["children"]
        assert shown["pulse"]["data"]["zone"] == "Europe/Berlin"
        layout = shown["chart"]["figure"]["layout"]
        assert layout["xaxis"]["ticktext"][0].startswith("14:0")
        assert "CEST" in [each["text"] for each in layout["annotations"]]
        assert shown["chart"]["figure"]["data"][0]["x"][0] == NOON * 1_000, "the data stay in UTC"
        visitor.held["lower"]["value"] = "incidents"
        listed = str(visitor.press("lower.value", "incidents.children"))
        assert listed.count("14:04:59") == 2 and "12:04" not in listed
        wave = visitor.press("domain.value", "chart.figure", domain="wave")
        times = wave["chart"]["figure"]["layout"]["xaxis"]
        assert times["ticktext"][0].startswith(
            f"{datetime.fromtimestamp(times['tickvals'][0] / 1_000, UTC):%H:%M}"
        )
        assert wave["pulse"]["data"]["zone"] == "Europe/Berlin"
        (alert,) = client.get("/api/alerts?source=oven").json()["incidents"]
        assert "12:04:59" in alert["text"]
        client.headers.pop("X-Redline-Zone")
        again = visitor.press("domain.value", "chart.figure", domain="oven")
        assert "12:04:59" in again["explain"]["children"], "no answer of another zone is reused"
