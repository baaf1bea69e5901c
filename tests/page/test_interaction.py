"""What a person does on the page, without a browser: label, preview, undo, search, act on incidents
of any stream, and what the page says where there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dash import no_update
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.feed import Feed, MonitoredStream
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.incidents.incident import Incident
from redline.page import figure, layout, panels
from redline.page.actions import act_on_incident, label_picked, mute_picked
from redline.page.callbacks.panels import empty_panel, incident_filter, open_counts
from redline.page.incident_list import IncidentFilter, find_incidents, incident_list, state_words
from redline.page.link import settings_from_link
from redline.page.preview import preview_state
from redline.page.query import ViewQuery, heartbeat
from redline.page.redraw import announce_incidents, redraw, silenceable
from redline.settings import Settings, initial_settings
from redline.storage.sqlite import SqliteStore
from streams import STREAMS
from tests.behaviour.page import Browser

START = 1_767_571_200.0  # seconds since the epoch, 5 January 2026


def push(
    monitor: Monitor,
    name: str,
    spikes: int = 0,
    steps: int = 300,
    since: float = 0,
) -> None:
    """Push minutes of a calm source, with so many spikes at its end, each an incident."""
    x = np.random.default_rng(11).uniform(-1, 1, steps)
    for i in range(spikes):
        x[steps - 1 - 90 * i] = 60.0
    monitor.submit(name, START + since + 60 * np.arange(steps), x[:, None])
    monitor.beat()


def incident_of(service: Service, name: str) -> Incident:
    """Return the last incident of a stream."""
    return [i for i in service.incidents.items.values() if i.stream == name][-1]


@pytest.fixture
def service() -> Service:
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))})
    monitor.backfill(monitor.feeds["wave"], 3_000)
    return assemble_service(lambda store: monitor)


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    service.monitor.start = lambda: None  # type: ignore[method-assign]
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        yield Browser(client)


def texts(node: Any) -> str:
    """Return all text of components, in their order."""
    if isinstance(node, list | tuple):
        return " ".join(map(texts, node))
    if hasattr(node, "to_plotly_json"):
        return texts(getattr(node, "children", None))
    return "" if node is None else str(node)


def test_a_pushed_stream_says_since_when_it_is_silent_also_after_a_restart(tmp_path: Path) -> None:
    hour = [1_000_000_000.0]
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        monitor = Monitor({}, store=store, wall=lambda: hour[0])
        monitor.submit("oven", hour[0] - 60.0 * np.arange(100)[::-1], np.ones((100, 1)))
        monitor.beat()
        hour[0] += 3_600
        heard = heartbeat(monitor, monitor.feeds["oven"], None)
        assert (heard["since"], heard["age"], heard["period"]) == (1e9, 3_600.0, 60.0)
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        seen = store.pushed_streams()[0].seen
        again = Monitor({}, store=store)
        feed = again.feeds["oven"]
        again.restore_feed(feed)
        assert feed.arrived is not None and feed.arrived > seen
        assert heartbeat(again, feed, None)["since"] == seen


def test_a_label_is_refused_for_another_stream_than_it_was_picked_on(service: Service) -> None:
    push(service.monitor, "oven")
    wave = service.monitor.feeds["wave"]
    oven = service.monitor.feeds["oven"]
    picked = {"stream": wave.id, "range": ["2026-01-05 00:00:10", "2026-01-05 00:00:10"]}
    assert "click a point of this stream" in label_picked(service, oven, picked, "missed")
    assert "click a point" in label_picked(service, None, picked, "missed")
    assert "click a point" in label_picked(service, wave, None, "missed")
    assert not service.labels.items
    said = label_picked(service, wave, picked, "missed")
    assert said.startswith("missed: ") and "00:00:10" in said and said.endswith("by page")
    assert [(i.stream, i.start) for i in service.labels.items.values()] == [("wave", START + 10)]


def test_a_picked_span_becomes_a_maintenance_window_drawn_grey_and_taken_back(
    service: Service, browser: Browser
) -> None:
    push(service.monitor, "oven")
    oven = service.monitor.feeds["oven"]
    wave = service.monitor.feeds["wave"]
    picked = {"stream": oven.id, "range": ["2026-01-05 03:00:00", "2026-01-05 02:00:00"]}
    assert "zoom to a span of this stream" in mute_picked(service, wave, picked)
    moment = {"stream": oven.id, "range": ["2026-01-05 03:00:00"] * 2}
    assert "a time after the start" in mute_picked(service, oven, moment)
    assert not service.monitor.maintenance.items
    before = redrawn(service)
    said = mute_picked(service, oven, picked)
    assert said.startswith("no alerts: ") and "02:00" in said and "set by page" in said
    assert redrawn(service, before["seen"])["chart"] is not no_update, "drawn at once"
    view = ViewQuery(service, "oven", oven.applied, 600).view
    spans = [shape for shape in figure.layout_shapes(view, "light") if shape["type"] == "rect"]
    hour = [1000 * (START + 7_200), 1000 * (START + 10_800)]
    assert hour in [[shape["x0"], shape["x1"]] for shape in spans]
    texts_drawn = [each["text"] for each in figure.layout_annotations(view, "light", 600)]
    assert "no alerts" in texts_drawn
    assert "no alerts, by page  Take back" in texts(
        panels.maintenance_list(oven, service.monitor.maintenance.of_stream("oven"))
    )
    browser.held["act"]["data"] = {"window": 1, "asked": 1}
    browser.press("act.data", "done.data")
    assert not service.monitor.maintenance.items
    assert not ViewQuery(service, "oven", oven.applied, 600).view.maintenance


def redrawn(service: Service, held: Any = None) -> dict[str, Any]:
    """Return the redraw of a source for a browser that holds something."""
    query = ViewQuery(service, "oven", service.monitor.feeds["oven"].applied, 600)
    return redraw(query, "light", {}, "event", held)


def test_pop_ups_tell_of_every_stream_once_and_name_it(service: Service) -> None:
    push(service.monitor, "oven", spikes=1)
    first = announce_incidents(service, None)
    assert first == {"heard": 1}, "what opened before the page did is no news"
    assert announce_incidents(service, 1) == {}
    push(service.monitor, "kiln", spikes=1)
    answer = announce_incidents(service, 1)
    (news,) = answer["news"]
    assert answer["heard"] == 2 and (news["stream"], news["kind"]) == ("kiln", "critical")
    assert news["title"] == "kiln · critical"
    assert news["step"] == incident_of(service, "kiln").peak.step
    assert announce_incidents(service, 99) == {"heard": 2}, "a server that was started again"


def test_the_flagship_names_its_evidence_in_the_sentence_of_a_stream(service: Service) -> None:
    push(service.monitor, "oven", spikes=1)
    settings = Settings("ensemble", 60)
    service.monitor.request_track("oven", settings)
    while service.monitor.fill_tracks():
        pass
    sentence = ViewQuery(service, "oven", settings, 600).view.sentence
    assert "oven is unusual since " in sentence and sentence.endswith(", mostly sudden.")


def test_the_settings_show_what_the_stream_itself_starts_with() -> None:
    stream = STREAMS["cpu"](seed=3)
    feed = Feed("cpu", stream, applied=initial_settings(stream))
    assert feed.applied.detector != Settings().detector, "a preset that differs from the defaults"
    head, *rows = [
        [texts(cell) for cell in row.children]
        for row in walk_rows(panels.settings_panel(feed, [])[0])
    ]
    assert head == ["setting", "applied", "starts with", "what it does"]
    assert ["detector", *[feed.applied.detector] * 2] in [row[:3] for row in rows]


def walk_rows(table: Any) -> list[Any]:
    """Return the rows of a table with a head and a body."""
    head, body = table.children
    return [head.children, *body.children]


def test_what_is_snoozed_does_not_pop_up(service: Service) -> None:
    push(service.monitor, "oven", spikes=1)
    act_on_incident(service, incident_of(service, "oven").id, "snooze 1 h")
    push(service.monitor, "oven", steps=200, since=60 * 300)
    push(service.monitor, "oven", spikes=1, steps=100, since=60 * 500)
    assert len(service.incidents.items) == 2 and service.incidents.newest_opening == 1


def test_the_live_incident_of_a_stream_can_be_silenced_from_the_plot(
    service: Service, browser: Browser
) -> None:
    push(service.monitor, "oven", spikes=1)
    incident = incident_of(service, "oven")
    feed = service.monitor.feeds["oven"]
    assert silenceable(service, feed) == {"id": incident.id, "start": incident.start * 1_000}
    assert silenceable(service, service.monitor.feeds["wave"]) is None
    act = {"incident": incident.id, "act": "snooze 1 h", "asked": 1, "picked": True}
    browser.held["act"]["data"] = act
    answer = browser.press("act.data", "labelled.children", domain="oven")
    assert answer["labelled"]["children"].startswith("oven: snoozed until ")
    assert "incident-said" not in answer, "it is answered where it was clicked"
    assert silenceable(service, feed) is None, "it is silent already"


def test_an_incident_of_a_simulated_stream_says_so_in_lists_and_pop_ups(service: Service) -> None:
    monitor = service.monitor
    monitor.inject("wave", "shift", 60.0)
    wave = monitor.feeds["wave"]
    with wave.lock:
        wave.append(wave.stream.take(3), monitor.wall())
    wave.catch_up(wave.applied_track, 3)
    monitor.commit_results(force=True)
    push(monitor, "oven", spikes=1)
    shown = incident_list(service.incidents, monitor.feeds, IncidentFilter())
    entries = [str(entry) for entry in shown if "is-" in str(getattr(entry, "className", ""))]
    assert len(entries) == 2
    assert [("simulated" in entry) for entry in entries if "'wave'" in entry] == [True]
    assert [("simulated" in entry) for entry in entries if "'oven'" in entry] == [False]
    popups = announce_incidents(service, 0)["news"]
    titles = {popup["stream"]: popup["title"] for popup in popups}
    assert titles["wave"].endswith(" · simulated") and titles["oven"] == "oven · critical"


def test_an_empty_tab_shows_nothing_of_the_tab_before(browser: Browser) -> None:
    browser.press("tick.n_intervals", "chart.figure", domain="wave")
    assert browser.held["seen"]["data"]
    found = browser.press("domain.value", "chart.figure", domain="your-data")
    assert found["seen"]["data"] is None and not found["chart"]["figure"]["data"]
    assert not found["curve"]["figure"]["data"]
    assert found["overview-line"]["data"] is None and found["covers"]["children"] == ""
    assert found["lane-row"]["hidden"]
    shown = {name: found[name]["children"] for name in (*app.NUMBERS, "points", "anomalies")}
    assert shown == {**dict.fromkeys(app.NUMBERS, "–"), "points": "0", "anomalies": "0"}
    assert found["history"]["children"][0]["props"]["children"] == app.NO_FILE
    for panel, element in layout.PANEL_ELEMENTS.items():
        if panel not in ("incidents", "log"):
            answer = browser.press("lower.value", "compare.children", lower=panel)
            assert "No points here yet." in str(answer[element]["children"]), panel


def test_an_empty_panel_that_is_a_table_is_a_row() -> None:
    assert type(empty_panel("table")[0]).__name__ == "Tr"
    assert type(empty_panel("days")[0]).__name__ == "P"


def test_the_browser_is_told_whether_its_controls_preview(service: Service) -> None:
    feed = service.monitor.feeds["wave"]
    state = preview_state(feed, 3)
    assert (state["stream"], state["undoable"], state["events"]) == ("wave", False, 3)
    assert state["applied"]["threshold"] == feed.applied.threshold
    app.apply_settings(service, feed, Settings(threshold=5.0))
    assert preview_state(feed)["undoable"] and preview_state(feed)["applied"]["threshold"] == 5.0


def test_an_undo_or_apply_that_changes_nothing_is_neither_claimed_nor_logged(
    tmp_path: Path,
) -> None:
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        made = assemble_service(
            lambda store: Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))}, store=store),
            store,
        )
        feed = made.monitor.feeds["wave"]
        made.monitor.restore_feed(feed)
        same = app.apply_settings(made, feed, feed.applied)
        none = app.apply_settings(made, feed, None)
        assert "already" in same["acted"] and "no change" in none["acted"]
        assert not store.audit()
        app.apply_settings(made, feed, Settings(threshold=5.0))
        assert "Back to" in app.apply_settings(made, feed, None)["acted"]
        assert "no change" in app.apply_settings(made, feed, None)["acted"]
        assert len(store.audit()) == 2


def test_expected_labels_alone_are_no_events_and_a_sentence_says_so(service: Service) -> None:
    push(service.monitor, "oven")
    service.labels.add(Label("oven", START, START + 600, "expected", "ann", 0.0), 1)
    answer = panels.preview_numbers(ViewQuery(service, "oven", Settings(), 600), "event")
    for number in ("precision", "recall", "caught"):
        assert texts(answer[number]) == "no labelled anomaly in the buffer", number


def test_of_sixty_sources_none_is_out_of_reach(service: Service) -> None:
    monitor = service.monitor
    push(monitor, "pump 0", spikes=1)
    for i in range(1, 60):
        push(monitor, f"pump {i}", steps=3)
    counts = open_counts(service)
    assert counts["pump 0"] == 1
    titles = list(layout.tab_titles(monitor, counts))
    pushed = [name for name in titles if name.startswith("pump")]
    assert len(pushed) == layout.MAX_PUSHED_TABS and pushed[0] == "pump 0"
    assert pushed[-1] == "pump 59" and titles[-2:] == ["your-data", "streams"], (
        "the fleet is of series"
    )
    assert "pump 7" not in titles
    assert settings_from_link(monitor, "?domain=pump 7")["domain"] == "pump 7"
    assert "pump 7" in layout.tab_titles(monitor, counts, ["pump 7", "gone"])
    assert "gone" not in layout.tab_titles(monitor, counts, ["pump 7", "gone"])


def test_a_tab_counts_the_incidents_that_are_open_not_those_that_have_ended(
    service: Service,
) -> None:
    push(service.monitor, "oven", spikes=1)
    assert incident_of(service, "oven").live and open_counts(service) == {"oven": 1}
    push(service.monitor, "oven", steps=60, since=300 * 60)
    assert not incident_of(service, "oven").live, "it has ended by itself, a moment ago"
    assert not open_counts(service)


def test_a_stream_beyond_the_tabs_gets_one_that_can_be_closed(
    service: Service, browser: Browser
) -> None:
    for i in range(30):
        push(service.monitor, f"pump {i}", steps=3)
    found = browser.press("slow.n_intervals", "sparks.data", domain="pump 2")
    assert found["opened"]["data"] == ["pump 2"] and "pump 2" in found["names"]["data"]
    closable = [tab for tab in found["domain"]["children"] if "data-close" in str(tab)]
    assert [tab["props"]["value"] for tab in closable] == ["pump 2"]
    browser.held["opened"]["data"] = []
    assert (
        "pump 2" not in browser.press("opened.data", "sparks.data", domain="wave")["names"]["data"]
    )


def test_the_search_finds_any_stream_by_a_part_of_its_name(
    service: Service, browser: Browser
) -> None:
    for name in ("Cold pump", "pump", "<b>pump</b>", *(f"fan {i}" for i in range(20))):
        push(service.monitor, name, steps=3)
    assert layout.search_streams(service.monitor, "PUMP ")[0] == "pump"
    assert set(layout.search_streams(service.monitor, "ump")) == {
        "Cold pump",
        "pump",
        "<b>pump</b>",
    }
    assert layout.search_streams(service.monitor, "  ") == []
    assert "and 8 more" in texts(layout.found_streams(service.monitor, "fan"))
    assert "No stream" in texts(layout.found_streams(service.monitor, "zebra"))
    answer = browser.press("search.value", "streams-found.children", search="cold")
    (found,) = answer["streams-found"]["children"]
    assert found["props"]["data-domain"] == "Cold pump"


def listed(service: Service, **wanted: Any) -> str:
    """Return the text of the list of incidents under a filter."""
    feeds = service.monitor.feeds
    return texts(incident_list(service.incidents, feeds, IncidentFilter(**wanted)))


def test_incidents_of_all_streams_are_listed_by_day_and_filtered(service: Service) -> None:
    push(service.monitor, "oven", spikes=2)
    push(service.monitor, "kiln", spikes=1, since=86_400)
    days = ["2026-01-06", "2026-01-05"]
    text = listed(service)
    assert sorted(days, key=text.index) == days and "oven" in text and "kiln" in text
    assert "kiln" not in listed(service, stream="oven")
    assert "oven" not in listed(service, part="KIL")
    assert "No incident passes" in listed(service, part="zebra")
    assert listed(service, stream="wave") == "No incidents."
    live = incident_filter("oven", "all", "critical", "live", None)
    found, hidden = find_incidents(service.incidents, service.monitor.feeds, live)
    assert {i.stream for i in found} == {"oven", "kiln"} and not hidden
    assert all(i.live and i.severity == "critical" for i in found)
    this = incident_filter("oven", "stream", "info", "resolved", "kiln")
    found, _ = find_incidents(service.incidents, service.monitor.feeds, this)
    assert [i.stream for i in found] == ["oven"] and not found[0].live


def test_an_act_says_what_was_done_and_by_whom(service: Service) -> None:
    push(service.monitor, "oven", spikes=1)
    id = incident_of(service, "oven").id
    assert act_on_incident(service, id, "acknowledge") == "oven: acknowledged by page."
    assert "acknowledged by page" in listed(service)
    said = act_on_incident(service, id, "snooze 1 h")
    at = np.datetime64(int(incident_of(service, "oven").until), "s").item().strftime("%H:%M")
    assert said == f"oven: snoozed until {at} UTC by page."
    assert state_words(incident_of(service, "oven")) == f"snoozed until {at} UTC by page"
    said = act_on_incident(service, id, "snooze until normal")
    assert said == "oven: snoozed until normal by page."
    assert act_on_incident(service, id, "expected") == "oven: expected by page."
    assert state_words(incident_of(service, "oven")) == "resolved by page (expected)"
    assert act_on_incident(service, id, "resolve") == "It is resolved already."
    assert "not kept" in act_on_incident(service, "nobody", "resolve")


def test_a_note_is_kept_shown_and_audited_on_live_and_resolved_incidents(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        made = assemble_service(lambda store: Monitor({}, store=store), store)
        push(made.monitor, "oven", spikes=1)
        id = incident_of(made, "oven").id
        for empty in (" ", "\x00\u202e\n"):
            assert act_on_incident(made, id, "note", empty) == "An empty note is not kept."
        act_on_incident(made, id, "note", "door <b>open</b>")
        act_on_incident(made, id, "resolve")
        act_on_incident(made, id, "note", "door mended")
        assert "page: door <b>open</b>" in listed(made) and "page: door mended" in listed(made)
        assert [line["detail"].get("note") for line in store.audit()][::2] == [
            "door mended",
            "door <b>open</b>",
        ]
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        again = assemble_service(lambda store: Monitor({}, store=store), store)
        assert "page: door mended" in listed(again)
