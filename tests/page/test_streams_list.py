"""The list of all streams: its tab, its rows, its filter and order; sent to who looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.incidents.incident import OPEN
from redline.incidents.registry import IncidentQuery
from redline.page import layout, streams_list
from redline.page.link import settings_from_link
from redline.page.query import incident_popups
from redline.page.streams_list import StreamsList, wanted_rows
from redline.page.wall import wall_document
from redline.settings import Settings
from redline.sources.pushed import ALL_STREAMS, FLEET, SubmissionRefused, validate_source_name
from streams import STREAMS
from tests.behaviour.page import Browser

START = 1_767_571_200.0
SERIES = [f'load{{host="h{i:02d}",job="{"web" if i % 2 else "db"}"}}' for i in range(40)]
HOSTILE = 'up{host="<img src=x onerror=owned=1>"}'


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    names = ("wave", "machine")
    monitor = Monitor({name: MonitoredStream(STREAMS[name](seed=3, rate=0.0)) for name in names})
    for feed in monitor.feeds.values():
        feed.applied = Settings(threshold=8.0)
        monitor.backfill(feed, 300)
    service = assemble_service(lambda store: monitor)
    monitor.commit_results(force=True)
    monkeypatch.setattr(monitor, "start", lambda: None)
    return service


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        yield Browser(client)


def send(service: Service, names: list[str], values: np.ndarray, since: float = 0.0) -> None:
    """Let the loop take values (steps, series), 10 s apart."""
    monitor = service.monitor
    numbers = [monitor.series.directory.number(name) for name in names]
    steps = len(values)
    times = START + since + 10.0 * np.arange(steps)
    monitor.submit_series(np.tile(numbers, steps), np.repeat(times, len(names)), values.ravel())
    monitor.process_pushed()
    monitor.commit_results(force=True)


def calm_values(names: list[str], steps: int = 90) -> np.ndarray:
    return np.random.default_rng(2).uniform(20, 21, (steps, len(names)))


def with_fault(service: Service, faulty: int = 17) -> None:
    values = calm_values(SERIES)
    values[-1, faulty] = 90.0
    send(service, SERIES, values)


def listed(service: Service, **wanted: Any) -> dict[str, Any]:
    order = {"by": "unusual", "descending": None, "page": 0, "part": "", **wanted}
    return StreamsList(service).document(wanted_rows(order["part"], order))


def test_the_tab_is_there_as_soon_as_there_is_more_than_the_tabs_show(service: Service) -> None:
    monitor = service.monitor
    assert ALL_STREAMS not in layout.tab_titles(monitor)
    for i in range(layout.MAX_PUSHED_TABS + 1):
        assert ALL_STREAMS not in layout.tab_titles(monitor)
        monitor.submit(f"pump {i}", np.array([START]), np.array([[1.0]]))
        monitor.beat()
    assert layout.tab_titles(monitor)[ALL_STREAMS] == "Streams 27"
    send(service, SERIES, calm_values(SERIES, 1))
    titles = layout.tab_titles(monitor)
    assert list(titles)[-3:] == ["your-data", ALL_STREAMS, FLEET]
    assert titles[ALL_STREAMS] == "Streams 67"


def test_one_series_is_enough_and_its_count_is_renewed(service: Service, browser: Browser) -> None:
    send(service, SERIES[:1], calm_values(SERIES[:1], 3))
    first = browser.press("slow.n_intervals", "sparks.data", domain="wave")
    assert first["names"]["data"][-2:] == ["Streams 3", "Fleet"] and "Streams 3" in str(
        first["domain"]
    )
    same = browser.press("slow.n_intervals", "sparks.data", domain="wave")
    assert "domain" not in same
    send(service, SERIES[1:3], calm_values(SERIES[1:3], 3))
    more = browser.press("slow.n_intervals", "sparks.data", domain="wave")
    assert "Streams 5" in str(more["domain"]["children"])


def test_no_source_may_take_the_name_of_the_tab_and_a_link_opens_it(service: Service) -> None:
    with pytest.raises(SubmissionRefused, match="a tab of its page"):
        validate_source_name("Streams", ("value",))
    assert settings_from_link(service.monitor, "?domain=streams")["domain"] == ALL_STREAMS


def test_the_series_with_a_fault_is_the_first_row_and_says_why(service: Service) -> None:
    with_fault(service)
    document = listed(service)
    assert document["said"] == "1 to 42 of 42" and not document["more"]
    row = document["rows"][0]
    assert row["stream"] == SERIES[17]
    assert (row["title"], row["labels"]) == ("load", "host=h17, job=web")
    assert row["value"] == "90" and row["threshold"] == "5" and row["above"]
    assert row["incident"] == {"severity": "critical", "state": OPEN}
    assert row["line"]["y"][-1] == 1_000 and row["line"]["hot"][-1] == len(row["line"]["y"]) - 1
    assert not service.monitor.views.feeds, "no row opens a feed"
    others = {each["stream"]: each for each in document["rows"]}
    assert others["wave"]["title"] == STREAMS["wave"].title and others["wave"]["threshold"] == "8"
    assert others["machine"]["labels"] in service.monitor.feeds["machine"].stream.names


def test_an_open_incident_stays_in_front_when_its_series_is_calm_again(service: Service) -> None:
    with_fault(service)
    calm = calm_values(SERIES, 2)
    calm[-1, 5] = 24.0
    send(service, SERIES, calm, since=900.0)
    (incident,) = service.incidents.find(IncidentQuery(SERIES[17], (OPEN,))).incidents
    service.incidents.items = {incident.id: incident}
    first, second = listed(service)["rows"][:2]
    assert first["stream"] == SERIES[17] and not first["above"] and first["incident"]
    assert second["stream"] == SERIES[5] and second["above"] and second["incident"] is None


def test_what_is_typed_and_chosen_gives_the_rows(service: Service) -> None:
    with_fault(service)
    assert len(listed(service, part="host=")["rows"]) == 40
    found = listed(service, part='{job="web"}')
    assert found["said"] == "1 to 20 of 20 of 42"
    assert all("job=web" in row["labels"] for row in found["rows"])
    none = listed(service, part="nothing")
    assert none["rows"] == [] and none["said"] == "No stream is like this."
    names = [row["stream"] for row in listed(service, by="name", part="load")["rows"]]
    assert names == SERIES
    turned = listed(service, by="name", descending=True, part="load")
    assert [row["stream"] for row in turned["rows"]] == SERIES[::-1] and turned["descending"]


def test_a_page_is_that_of_the_text_it_was_chosen_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fault(service)
    monkeypatch.setattr(streams_list, "PAGE_ROWS", 10)
    whole = [row["stream"] for page in range(5) for row in listed(service, page=page)["rows"]]
    assert len(set(whole)) == 42
    second = listed(service, page=1)
    assert (second["said"], second["more"]) == ("11 to 20 of 42", "and 22 more")
    assert wanted_rows("load", {"by": "name", "descending": None, "page": 3, "part": ""}).page == 0
    assert (
        wanted_rows("load", {"by": "name", "descending": None, "page": 3, "part": "load"})[3] == 3
    )
    assert wanted_rows(None, None) == ("", "unusual", None, 0, 10)


def test_it_is_sent_only_to_who_looks_at_it(service: Service, browser: Browser) -> None:
    send(service, [*SERIES, HOSTILE], calm_values([*SERIES, HOSTILE]))
    shown = browser.press("slow.n_intervals", "streams-rows.data", domain="streams")
    rows = shown["streams-rows"]["data"]["rows"]
    assert len(rows) == 43 and HOSTILE in {row["stream"] for row in rows}
    callback = next(c for c in browser.callbacks if c["output"] == "streams-rows.data")
    browser.held["domain"]["value"] = "wave"
    body: dict[str, Any] = {
        "output": callback["output"],
        "outputs": {"id": "streams-rows", "property": "data"},
        "inputs": [browser.filled(each) for each in callback["inputs"]],
        "changedPropIds": ["slow.n_intervals"],
    }
    answer = browser.client.post("/_dash-update-component", json=body)
    assert answer.status_code == 204 or "rows" not in answer.text.replace("streams-rows", "")


def test_the_cards_beside_the_list_count_all_streams(service: Service, browser: Browser) -> None:
    with_fault(service)
    cards = browser.press("tick.n_intervals", "chart.figure", domain="streams")
    assert cards["status"]["children"] == "watching 42 streams"


def test_the_overview_counts_series_and_names_the_worst_one(service: Service) -> None:
    send(service, SERIES, calm_values(SERIES))
    service.incidents.items.clear()
    calm = wall_document(service)
    assert calm["headline"]["text"] == "All calm: 42 streams watched."
    assert calm["counts"]["calm"] == 42
    values = calm_values(SERIES, 1)
    values[0, 3] = 90.0
    send(service, SERIES, values, since=900.0)
    found = wall_document(service)
    assert found["headline"]["stream"] == found["headline"]["title"] == SERIES[3]
    assert found["headline"]["severity"] == "critical"
    assert found["headline"]["text"].startswith("critical (")
    assert found["counts"] == {"critical": 1, "warning": 0, "info": 0, "calm": 41}
    assert found["tiles"] == [] and found["more"] == 1
    assert not service.monitor.views.feeds


def test_a_worse_stream_comes_before_a_series_in_the_sentence(service: Service) -> None:
    values = calm_values(SERIES)
    values[-1, 3] = 25.0
    send(service, SERIES, values)
    monitor = service.monitor
    monitor.inject("wave", "shift", 400.0)
    feed = monitor.feeds["wave"]
    with feed.lock:
        feed.append(feed.stream.take(3), monitor.wall())
    feed.catch_up(feed.applied_track, 3)
    monitor.commit_results(force=True)
    found = wall_document(service)
    assert found["headline"]["stream"] == "wave"
    assert found["counts"]["calm"] <= 40 and found["more"] >= 1


def test_an_info_of_a_series_does_not_pop_up_but_a_warning_does(service: Service) -> None:
    with_fault(service)
    (found,) = service.incidents.find(IncidentQuery(limit=10)).incidents
    assert [each["stream"] for each in incident_popups(service.monitor, [found])] == [SERIES[17]]
    slight = found._replace(severity="info")
    assert incident_popups(service.monitor, [slight]) == []
    assert incident_popups(service.monitor, [found._replace(stream="unknown")]) == []
    of_wave = slight._replace(stream="wave")
    assert [each["kind"] for each in incident_popups(service.monitor, [of_wave])] == ["info"]


def test_a_series_with_the_longest_name_is_opened(service: Service, browser: Browser) -> None:
    name = f'load{{host="{"x" * 1_900}"}}'
    send(service, [name], calm_values([name]))
    browser.press("domain.value", "shown.data", domain=name)
    assert browser.held["shown"]["data"] == name
