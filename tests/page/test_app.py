"""The page without a browser: its layout, its callbacks, its command line and its errors."""

import base64
import json
import socket
from contextlib import closing
from typing import Any

import numpy as np
import orjson
import pytest
from dash import no_update
from starlette.testclient import TestClient

import app
from detectors import DETECTORS
from redline.access.tokens import Token, Tokens, hash_secret
from redline.api.service import ServerOptions, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.engine.wording import format_time
from redline.feedback.labels import Label
from redline.page import compare, layout, panels, query, redraw, upload
from redline.page.actions import add_label, find_proposal
from redline.page.brush import brush_data
from redline.page.dash_app import require_one_process
from redline.page.link import settings_from_link
from redline.page.query import ViewQuery
from redline.page.view import read_track_rows, recording_sentence
from redline.settings import ServerSettings, Settings, initial_settings
from redline.sources import csv
from redline.sources.csv_cells import CsvError
from redline.sources.pushed import (
    ALL_STREAMS,
    FLEET,
    OVERVIEW,
    RESERVED_NAMES,
    THIS_MACHINE,
    YOUR_DATA,
)
from redline.sources.recording import Columns, Recording
from redline.storage.sqlite import SqliteStore
from streams import KINDS, STREAMS, UNKNOWN_PRESET, Chunk

IDS = """tick domain detector window threshold chart explain points anomalies rate status clock age
alarms precision recall curve history compare pause speed golive apply undo export share upload
theme bell"""
LOADS = [40 + (i * 7) % 5 + (60 if i == 700 else 0) for i in range(900)]  # %, one anomaly
CSV = b"time,load (%)\n" + b"".join(
    f"2026-01-05 00:{i // 60:02d}:{i % 60:02d},{load}\n".encode() for i, load in enumerate(LOADS)
)


@pytest.fixture
def monitor():
    made = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))})
    made.backfill(made.feeds["wave"], 3_000)
    return made


@pytest.fixture
def service(monitor):
    return assemble_service(lambda store: monitor)


def redrawn(service, held=None, theme="light", span=600):
    """Return the redraw of the wave, live, for a browser that holds `held`."""
    query = ViewQuery(service, "wave", Settings(), span)
    return redraw.redraw(query, theme, {}, "event", held)


def ids(component):
    """Return the ids of a component and of all inside it."""
    found = {component.id} if getattr(component, "id", None) else set()
    children = getattr(component, "children", None)
    children = children if isinstance(children, list | tuple) else [children]
    for child in [*children, getattr(component, "label", None)]:
        if hasattr(child, "to_plotly_json"):
            found |= ids(child)
    return found


def test_the_ids_that_outside_scripts_rely_on_are_there(monitor):
    wanted = set(IDS.split()) | {f"inject-{kind}" for kind in KINDS if kind != "none"}
    assert wanted <= ids(app.page_layout(monitor, 500, 0))


def test_the_tabs_are_the_overview_the_streams_with_the_wave_first_this_machine_and_your_data():
    assert list(layout.TAB_TITLES) == ["overview", *STREAMS, "this-machine", "your-data"]
    assert next(iter(STREAMS)) == "wave"
    tabs = {*layout.TAB_TITLES, OVERVIEW, THIS_MACHINE, YOUR_DATA, ALL_STREAMS, FLEET}
    assert tabs <= RESERVED_NAMES, "no source may have the name of a tab"


def test_the_page_starts_each_stream_with_its_preset():
    made = app.build_monitor(ServerSettings(), None)
    applied = {name: feed.applied for name, feed in made.feeds.items()}
    presets = {name: initial_settings(kind()) for name, kind in STREAMS.items()}
    unknown = Settings(**UNKNOWN_PRESET)
    assert applied == presets | {"this-machine": unknown}
    assert applied["wave"].detector == "rolling z-score" and applied["wave"] != Settings()
    pushed = made.add_source("furnace", ("value",))
    assert pushed.applied == initial_settings(pushed.stream) == unknown != Settings()


def test_an_unknown_path_is_a_problem_and_never_the_page(service):
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        for path in ("/health-typo", "/api/typo"):
            answer = client.get(path)
            assert (
                answer.status_code == 404
                and answer.headers["content-type"] == "application/problem+json"
                and path in answer.json()["detail"]
            )
        assert "Redline" in client.get("/").text


def test_the_page_brings_the_small_build_of_plotly_and_no_other(service):
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        page = client.get("/").text
        assert "/assets/plotly-basic.min.js" in page and "plotly.min.js" not in page


def test_no_part_of_the_page_is_served_under_the_name_of_another_site(service):
    server = app.build_app(service).server
    script = "/assets/page.js"
    body = {"output": "injected.children", "outputs": {}, "inputs": [], "changedPropIds": []}
    evil = {"Host": "evil.example:8050", "Origin": "http://evil.example:8050"}
    with TestClient(server, base_url="http://localhost", raise_server_exceptions=False) as client:
        assert client.get("/").status_code == client.get(script).status_code == 200
        assert client.get("/", headers={"Host": "redline.localhost:8050"}).status_code == 200
        for path in ("/", script, "/_dash-layout", "/_dash-dependencies", "/docs", "/nothing"):
            assert client.get(path, headers=evil).status_code == 421, path
        answer = client.post("/_dash-update-component", json=body, headers=evil)
        assert answer.status_code == 421 and answer.json()["status"] == 421
        local = client.post("/_dash-update-component", json=body)
        assert local.status_code == 400 and "outputs" in local.json()["detail"], "the host is right"


def test_no_body_of_the_page_is_read_before_the_guards_let_it_in(monitor):
    """Dash reads whole bodies in a middleware of its own, which must come after ours."""
    tokens = Tokens([Token("operate", hash_secret("a" * 20), "me")])
    service = assemble_service(lambda store: monitor, options=ServerOptions(tokens))
    server = app.build_app(service).server
    read = []

    def body():
        for _ in range(100):
            read.append(1)
            yield b" " * 1_000

    with TestClient(server, base_url="http://localhost", raise_server_exceptions=False) as client:
        for headers, status in (({}, 401), ({"Host": "evil.example"}, 421)):
            headers = {**headers, "Content-Type": "application/json"}
            answer = client.post("/_dash-update-component", content=body(), headers=headers)
            assert answer.status_code == status and len(read) <= 1, len(read)
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            read.clear()


def test_a_browser_is_sent_only_what_it_lacks_and_both_ways_show_the_same(service, monitor):
    def ask(held: Any) -> Any:
        answer = redrawn(service, held)
        chart = answer["chart"]
        sent = None if chart is no_update else json.loads(orjson.dumps(chart))
        return sent, json.loads(json.dumps(answer["seen"]))

    whole, held = ask(None)
    assert ask(held)[0] is None
    monitor.backfill(monitor.feeds["wave"], 7)
    patch, after = ask(held)
    assert held["end"] == 3_000 and after["end"] == 3_007
    grown = [
        op
        for op in patch["operations"]
        if op["operation"] == "Extend" and op["location"][-1] == "x"
    ]
    assert {len(op["params"]["value"]) for op in grown} == {7}
    again, _ = ask(None)
    x = again["data"][2]["x"]
    assert x[-7:] == grown[2]["params"]["value"] and x[:-7] == whole["data"][2]["x"]
    named = {
        op["location"][-1]: op["params"]["value"]
        for op in patch["operations"]
        if op["location"][0] == "layout"
    }
    assert named["yaxis"] == again["layout"]["yaxis"] and named["xaxis"] == again["layout"]["xaxis"]


@pytest.mark.parametrize("other", [{"detector": "EWMA"}, {"window": 90}])
def test_a_plot_drawn_before_its_track_was_ready_is_sent_again_with_band_and_scores(
    service, monitor, other
):
    def ask(held: Any) -> Any:
        answer = redraw.redraw(
            ViewQuery(service, "wave", Settings(**other), 600), "light", {}, "event", held
        )
        return answer["chart"], json.loads(json.dumps(answer["seen"]))

    _, held = ask(None)
    assert not held["whole"]
    while monitor.fill_tracks():
        pass
    monitor.backfill(monitor.feeds["wave"], 5)
    while monitor.fill_tracks():
        pass
    chart, held = ask(held)
    chart = json.loads(orjson.dumps(chart))
    scores = next(trace["y"] for trace in chart["data"] if trace["name"] == "score")
    assert held["whole"] and None not in scores[-600:]


def test_what_many_look_at_is_drawn_once_until_somebody_says_what_is_true(service, monitor):
    first = redrawn(service)["chart"]
    assert redrawn(service)["chart"] is first
    assert redrawn(service, theme="dark")["chart"] is not first
    service.labels.version += 1
    assert redrawn(service)["chart"] is not first


def test_what_was_drawn_is_kept_for_a_moment_only(service, monitor, monkeypatch):
    def ask() -> Any:
        return redrawn(service)["chart"]

    assert ask() is ask() and len(query.answer_cache) > 1
    monkeypatch.setattr(query, "ANSWER_SECONDS", -1.0)
    assert ask() is not ask() and not query.answer_cache


def test_who_looks_at_a_stream_that_stands_sees_a_label_at_once(service, monitor):
    held = json.loads(json.dumps(redrawn(service)["seen"]))
    assert redrawn(service, held)["chart"] is no_update
    service.labels.version += 1
    assert redrawn(service, held)["chart"] is not no_update


def test_a_browser_that_fell_behind_the_buffer_gets_the_whole_plot(monkeypatch):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=2))})
    service = assemble_service(lambda store: monitor)
    feed = monitor.feeds["wave"]
    feed.capacity = 1_000
    feed.tape = feed.empty_tape(0)
    monitor.backfill(feed, 1_000)
    first = redrawn(service, span=10_000)["seen"]
    for _ in range(16):
        monitor.backfill(feed, 100)
    answer = redrawn(service, first, span=10_000)
    assert answer["seen"]["plot_first"] == first["plot_first"]
    assert b'"operations"' not in orjson.dumps(answer["chart"])


def test_a_plot_is_sent_whole_only_when_its_first_step_moves(service, monitor):
    feed = monitor.feeds["wave"]
    held = None
    whole = []
    for _ in range(130):
        seen = ViewQuery(service, "wave", Settings(), 600)
        answer = redraw.redraw(seen, "light", {}, "event", held)
        whole.append(b'"operations"' not in orjson.dumps(answer["chart"]))
        assert seen.end - seen.first >= 750 or not seen.first
        held = answer["seen"]
        monitor.backfill(feed, 5)
    assert sum(whole) == 1 + 650 // 300


def test_a_moved_threshold_only_compares_and_numbers_say_old_and_new(service, monitor):
    before = query.ViewQuery(service, "wave", Settings(threshold=2.0), 600)
    numbers = panels.preview_numbers(before, "event")
    old = before.applied_metrics()
    new = before.preview_metrics()
    assert new.alarms > old.alarms and len(monitor.feeds["wave"].tracks) == 1
    assert [part.children for part in numbers["alarms"]] == [
        f"{old.alarms:,} → ",
        f"{new.alarms:,}",
    ]


def test_numbers_that_stand_together_count_the_same(service):
    seen = ViewQuery(service, "wave", Settings(threshold=2.5), 600)
    found = seen.preview_metrics()

    def last(by):
        numbers = panels.preview_numbers(seen, by)
        return {name: parts[-1].children for name, parts in numbers.items()}

    steps = last("row")
    assert steps["alarms"] == f"{found.anomalies:,} steps" != f"{found.alarms:,} steps"
    caught, total = (int(word) for word in steps["caught"].split()[::2])
    assert steps["recall"] == f"{caught / total:.2f}"
    events = last("event")
    assert events["alarms"] == f"{found.alarms:,}"
    assert events["caught"] == f"{found.hits} of {found.events}"
    assert events["recall"] == f"{found.hits / found.events:.2f}"


@pytest.mark.parametrize("threshold", [1.5, 2.0, 3.0, 5.0])
def test_no_mark_lies_in_a_missed_event_and_none_says_other_than_its_event(service, threshold):
    seen = ViewQuery(service, "wave", Settings(threshold=threshold), 3_000).view
    red = {mark.row: mark.outcome for mark in seen.marks}
    assert red and {event.outcome for event in seen.truth} >= {"caught"}
    for event in seen.truth:
        inside = {red[row] for row in range(event.first, event.last + 1) if row in red}
        assert inside <= {event.outcome} and not (inside and event.outcome == "missed")


def test_without_labels_nothing_is_invented(service, monitor):
    upload.show_recording(monitor, csv.read_csv(CSV, title="load.csv"), CSV, 900)
    answer = panels.preview_numbers(ViewQuery(service, layout.YOUR_DATA, Settings(), 600), "row")
    assert [answer[name].children for name in ("precision", "recall", "caught")] == [
        "no labels for this stream"
    ] * 3
    assert monitor.feeds[layout.YOUR_DATA].anomalies >= 1


def test_a_dropped_file_becomes_your_data_and_a_bad_one_leaves_it_as_it_was(monitor):
    upload.receive_file(
        monitor, "data:text/csv;base64," + base64.b64encode(CSV).decode(), "load.csv"
    )
    feed = monitor.feeds[layout.YOUR_DATA]
    assert feed.end == 900, "all of its rows are there at once"
    assert "Read 900 rows from load.csv: " in upload.guess_boxes(feed)["guess"]
    rubbish = "data:;base64," + base64.b64encode(b"\x00\x01rubbish").decode()
    with pytest.raises(CsvError):
        upload.receive_file(monitor, rubbish, "bad.bin")
    with pytest.raises(CsvError, match="drop it again"):
        upload.receive_file(monitor, "data:;base64,***", "bad.bin")
    assert monitor.feeds[layout.YOUR_DATA] is feed
    boxes = {"time": "time", "stamps": "ISO", "values": ["load (%)"], "label": None}
    upload.reread_file(monitor, upload.corrected_columns(boxes))
    assert monitor.feeds[layout.YOUR_DATA].stream.names == ("load",)
    upload.replay_file(monitor, whole=True)
    assert monitor.feeds[layout.YOUR_DATA].end == 900


def test_the_first_view_of_a_file_shows_all_its_rows_and_its_sentence_speaks_of_them(monitor):
    x = np.random.default_rng(6).normal(20, 1, (2_000, 1))
    x[[1_200, 1_700]] = [[60.0], [95.0]]
    time = np.arange(2_000) * 300.0 + 1.7e9
    made = Recording("pump.csv", Chunk(time, x, None), Columns("time", ("load",)), {})
    upload.show_recording(monitor, made, b"")
    service = assemble_service(lambda store: monitor)
    span = app.opened_span(layout.YOUR_DATA, "wave", 600)
    feed = monitor.feeds[layout.YOUR_DATA]
    seen = ViewQuery(service, layout.YOUR_DATA, Settings(threshold=9.0), span)
    assert (seen.view.first, seen.view.end) == (0, 2_000) and len(seen.view.time) == 2_000
    at = format_time(float(time[1_700]), 3_600)
    said = f"pump.csv was unusual twice in all 2,000 rows, most of all at {at}: 95"
    assert seen.sentence().startswith(f"Preview: {said}")
    rows = read_track_rows(feed, seen.track, 9.0, 0, 2_000)
    calm = recording_sentence(rows, 1e9, 2_000)
    assert calm == "pump.csv looks normal: nothing above the threshold in all 2,000 rows."
    last = read_track_rows(feed, seen.track, 9.0, 1_500, 2_000)
    said = recording_sentence(last, 9.0, 2_000)
    assert "was unusual once in the last 500 of 2,000 rows, at " in said


def test_a_tab_after_that_of_a_file_does_not_keep_its_length():
    whole = layout.WHOLE_SPAN
    assert app.opened_span("wave", layout.YOUR_DATA, whole) == layout.DEFAULT_SPAN
    assert app.opened_span("wave", layout.YOUR_DATA, 2_000) is no_update
    assert app.opened_span("wave", "cpu", whole) is no_update


def long_recording(rows=24_000, features=1):
    """Return a labelled recording with a spike every 1,000 rows, and its spikes."""
    x = np.random.default_rng(5).normal(size=(rows, features))
    spikes = np.arange(700, rows, 1_000)
    x[spikes] += 12
    label = np.zeros((rows, features), np.int8)
    label[spikes] = KINDS.index("point")
    names = tuple(f"load {i}" for i in range(features))
    time = np.arange(rows) * 60.0 + 1.7e9
    return Recording("long.csv", Chunk(time, x, label), Columns("time", names), {}), spikes


def test_every_row_of_a_file_is_scored_and_reached_and_the_numbers_beside_it_agree(monitor):
    recording, spikes = long_recording()
    upload.show_recording(monitor, recording, b"", recording.total)
    service = assemble_service(lambda store: monitor)
    feed = monitor.feeds[layout.YOUR_DATA]
    settings = Settings(threshold=7.0)
    seen = ViewQuery(service, layout.YOUR_DATA, settings, 600)
    numbers = seen.preview_metrics()
    applied = seen.applied_metrics()
    assert (numbers.events, numbers.hits, numbers.false_alarms) == (24, 24, 0)
    assert (applied.steps, applied.anomalies) == (feed.points, feed.anomalies)
    assert seen.coverage == "applied → preview, all 24,000 steps"
    oldest = ViewQuery(service, layout.YOUR_DATA, settings, 600, 600 + spikes[0]).view
    assert spikes[0] in [oldest.first + mark.row for mark in oldest.marks]


def test_a_long_range_is_thinned_after_scoring_and_keeps_every_anomalous_step(monitor):
    recording, spikes = long_recording()
    upload.show_recording(monitor, recording, b"", recording.total)
    service = assemble_service(lambda store: monitor)
    settings = Settings(threshold=7.0)
    seen = ViewQuery(service, layout.YOUR_DATA, settings, 1_000_000).view
    assert len(seen.time) < 12_000 and seen.first == 0
    assert [int(seen.steps[mark.row]) for mark in seen.marks] == spikes.tolist()
    assert [int(seen.steps[event.first]) for event in seen.truth] == spikes.tolist()
    assert seen.x[:, 0].max() == recording.x.max() and seen.x[:, 0].min() == recording.x.min()
    assert not seen.breaks.any()
    earlier = ViewQuery(service, layout.YOUR_DATA, settings, 1_000_000, 23_000).view
    kept = set(seen.steps.tolist())
    assert len(earlier.time) < len(seen.time)
    assert set(earlier.steps[:-1].tolist()) <= kept, "a row once drawn stays"
    drawn = redraw.redraw(
        ViewQuery(service, layout.YOUR_DATA, settings, 1_000_000), "light", {}, "event", None
    )
    assert len(orjson.dumps(drawn["chart"])) < 1_500_000


def test_of_a_file_beyond_the_limit_every_row_is_scored_and_the_page_says_what_is_shown(
    monitor, monkeypatch
):
    monkeypatch.setattr("redline.engine.monitor.MAX_RECORDING_VALUES", 20_000)
    recording, spikes = long_recording(features=2)
    upload.show_recording(monitor, recording, b"", recording.total)
    service = assemble_service(lambda store: monitor)
    feed = monitor.feeds[layout.YOUR_DATA]
    assert feed.tape.kept == 10_000 and feed.finalized == 24_000
    found = {anomaly.step for anomaly in feed.journal}
    assert set(spikes.tolist()) <= found
    seen = ViewQuery(service, layout.YOUR_DATA, Settings(), 600)
    assert seen.coverage == "over the last 10,000 of 24,000 steps"


def test_the_brush_shows_the_whole_buffer_its_anomalies_and_what_is_in_sight(service, monitor):
    recording, spikes = long_recording()
    upload.show_recording(monitor, recording, b"", recording.total)
    service = assemble_service(lambda store: monitor)
    query = ViewQuery(service, layout.YOUR_DATA, Settings(threshold=7.0), 600, 12_000)
    shown = brush_data(query, None)
    assert (shown["first"], shown["end"]) == (0, 24_000)
    assert (shown["left"], shown["right"], shown["live"]) == (11_400, 12_000, False)
    assert np.round(np.array(shown["marks"]) * 24_000, -1).tolist() == spikes.tolist()
    assert len(shown["line"]) == 600 and max(filter(None, shown["line"])) == 1.0
    assert shown["text"] == "10 h of 16 d 16 h" and 0 < shown["learning"] < 0.01
    edges = [recording.time[11_700] * 1_000, recording.time[11_760] * 1_000]
    zoomed = brush_data(query, edges)
    assert (zoomed["left"], zoomed["right"]) == (11_700, 11_760)
    assert len(orjson.dumps(shown)) < 6_000


def test_the_times_of_the_brush_are_no_finer_than_a_second():
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))})
    monitor.backfill(monitor.feeds["wave"], 3_000)
    assert monitor.feeds["wave"].stream.period < 1
    shown = brush_data(
        ViewQuery(assemble_service(lambda store: monitor), "wave", Settings(), 600), None
    )
    assert [len(text) for _, text in shown["ticks"]] == [len("00:00:00")] * 3


def test_nothing_is_expected_beyond_what_a_stream_can_physically_be():
    monitor = Monitor({"cpu": MonitoredStream(STREAMS["cpu"](seed=3))})
    monitor.backfill(monitor.feeds["cpu"], 3_000)
    service = assemble_service(lambda store: monitor)
    feed = monitor.feeds["cpu"]
    wide = Settings(threshold=6.0)
    free = feed.applied_track.bounds(6.0, 0, 3_000)[0]
    assert np.nanmin(free) < -5, "the detector alone expects less than 0 %"
    seen = ViewQuery(service, "cpu", wide, 3_000).view
    assert np.nanmin(seen.low) == 0.0 and np.nanmax(seen.high) <= 100.0
    assert seen.clock == "simulated time, UTC"
    assert feed.journal and all(0 <= anomaly.low <= anomaly.high <= 100 for anomaly in feed.journal)


def test_a_sparkline_shows_the_feature_that_is_anomalous_and_only_its_marks(monitor):
    x = np.random.default_rng(6).normal(size=(900, 2))
    x[850, 1] += 40
    x[800, 0] += 12
    columns = Columns("time", ("calm", "loud"))
    recording = Recording("two.csv", Chunk(np.arange(900) + 1.7e9, x, None), columns, {})
    upload.show_recording(monitor, recording, b"", 900)
    feed = monitor.feeds[layout.YOUR_DATA]
    feed.applied = Settings(threshold=8.0)
    spark = query.sparkline(feed, 0)
    assert spark["name"] == "loud"
    assert [spark["line"][mark][1] for mark in spark["marks"]] == [1.0], "only on its own line"


def test_of_sixty_columns_eight_are_drawn_the_worst_first_and_a_visitor_may_choose(monitor):
    x = np.random.default_rng(8).normal(size=(900, 60))
    for feature, size in ((41, 90), (7, 60), (23, 30)):
        x[850, feature] += size
    columns = Columns("time", tuple(f"c{i}" for i in range(60)))
    recording = Recording("wide.csv", Chunk(np.arange(900) + 1.7e9, x, None), columns, {})
    upload.show_recording(monitor, recording, b"", 900)
    service = assemble_service(lambda store: monitor)

    def ask(held=None, chosen=None):
        seen = ViewQuery(service, layout.YOUR_DATA, Settings(threshold=8.0), 600)
        answer = redraw.redraw(seen, "light", {}, "event", held, chosen)
        chart = (
            json.loads(orjson.dumps(answer["chart"])) if answer["chart"] is not no_update else {}
        )
        lanes = [trace["name"] for trace in chart.get("data", ()) if trace["name"][0] == "c"]
        return lanes, json.loads(json.dumps(answer["seen"])), answer

    lanes, held, answer = ask()
    assert lanes[:3] == ["c41", "c7", "c23"] and len(lanes) == 8
    assert answer["lanes"][:2] == ["c0", "c1"] and not answer["no_lanes"]
    assert answer["lanes_said"] == "8 of 60 columns are drawn, the worst first"
    assert not ask(held)[0], "what is drawn stays"
    lanes, held, answer = ask(held, ["c5", "gone", "c7"])
    assert lanes == ["c5", "c7"] and "also anomalous: c23, c41" in answer["lanes_said"]


def test_while_settings_are_previewed_each_number_says_of_which_it_is(service, monitor):
    applied = monitor.feeds["wave"].applied
    same = ViewQuery(service, "wave", applied, 600)
    shown = panels.preview_numbers(same, "event")
    assert [len(shown[name]) for name in ("alarms", "precision", "recall", "caught")] == [1] * 4
    assert same.coverage == "over all 3,000 steps" and not same.sentence().startswith("Preview")
    # a threshold that changes no number
    near = Settings(**{**vars(applied), "threshold": applied.threshold + 1e-9})
    other = ViewQuery(service, "wave", near, 600)
    shown = panels.preview_numbers(other, "event")
    assert [len(shown[name]) for name in ("alarms", "precision", "recall", "caught")] == [2] * 4
    assert other.coverage == "applied → preview, all 3,000 steps"
    assert other.sentence() == f"Preview: {same.sentence()}"


def test_best_f1_is_available_while_a_new_window_is_still_scored(service, monitor):
    query = ViewQuery(service, "wave", Settings(window=91), 600)
    assert not query.preview_metrics().events, "nothing is scored under it yet"
    answer = redraw.redraw(query, "light", {}, "event", None)
    assert answer["pulse"]["events"] == query.applied_metrics().events > 0


def test_behind_a_preview_stand_the_marks_that_only_the_applied_settings_have(service, monitor):
    feed = monitor.feeds["wave"]
    applied = ViewQuery(service, "wave", feed.applied, 3_000).view
    assert applied.faint == () and len(applied.marks) > 3
    preview = ViewQuery(service, "wave", Settings(threshold=7.0), 3_000).view
    red = set(np.flatnonzero(preview.red.any(axis=1)).tolist())
    lost = set(np.flatnonzero(applied.red.any(axis=1)).tolist()) - red
    assert lost and {row for row, _ in preview.faint} == lost
    chart = redraw.chart_figure(
        ViewQuery(service, "wave", Settings(threshold=7.0), 3_000),
        {"theme": "light", "stream": "s", "revision": 0, "zoom": None, "lanes": [0]},
        None,
    )
    name = "only under the applied settings"
    (faint,) = [trace for trace in chart["data"] if trace["name"] == name]
    assert len(faint["x"]) == len(lost) and faint["marker"]["line"]["dash"] == "dot"


@pytest.mark.parametrize("other", [{"threshold": 2.5}, {"detector": "EWMA", "window": 90}])
def test_other_settings_replace_band_and_scores_and_leave_the_lines(service, monitor, other):
    """Applied to what the browser holds, the patch makes the plot that is sent whole."""

    def ask(settings, held):
        query = ViewQuery(service, "wave", settings, 600)
        answer = redraw.redraw(query, "light", {}, "event", held)
        chart = answer["chart"]
        sent = None if chart is no_update else json.loads(orjson.dumps(chart))
        return sent, json.loads(json.dumps(answer["seen"]))

    held_chart, held = ask(Settings(), None)
    first, waiting = (None, held) if "threshold" in other else ask(Settings(**other), held)
    assert first is None and waiting["look"] == held["look"], "the old plot stays meanwhile"
    monitor.backfill(monitor.feeds["wave"], 3)
    while monitor.fill_tracks():
        pass
    patch, held = ask(Settings(**other), waiting)
    for op in patch["operations"]:
        *path, last = op["location"]
        place = held_chart
        for key in path:
            place = place[key]
        value = op["params"]["value"]
        if op["operation"] == "Extend":
            place[last].extend(value)
        else:
            place[last] = value
    whole, _ = ask(Settings(**other), None)
    for mine, sent in zip(held_chart["data"], whole["data"], strict=True):
        for axis in ("x", "y"):
            a, b = (np.array(trace.get(axis, []), float) for trace in (mine, sent))
            assert a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)
    assert held["points"] == len(whole["data"][0]["x"])
    assert len(json.dumps(patch)) < 0.6 * len(json.dumps(whole))
    assert held_chart["layout"]["meta"] == whole["layout"]["meta"]


def test_a_link_is_followed_and_a_wrong_one_says_what_is_wrong(monitor):
    link = "?domain=wave&detector=EWMA&window=30&threshold=4.5&range=2000"
    assert settings_from_link(monitor, link)["window"] == 30
    assert "threshold" in settings_from_link(monitor, "?domain=wave&threshold=900")["acted"]
    assert "not here" in settings_from_link(monitor, "?domain=nowhere")["acted"]


def test_every_detector_has_its_row_in_compare(service, monitor):
    compare.comparison_rows(service, monitor.feeds["wave"], Settings(), "row")
    while monitor.fill_tracks():
        pass
    rows = compare.comparison_rows(service, monitor.feeds["wave"], Settings(), "row")
    names = [row.children[0].children.children for row in rows]
    assert sorted(names) == sorted(DETECTORS) and all(len(row.children) == 9 for row in rows)


def test_a_detector_that_refuses_has_a_row_that_says_why(service, monitor, monkeypatch):
    class Picky(DETECTORS["EWMA"]):
        def __post_init__(self):
            raise ValueError("wanted a window of at least 200 steps; came 60; choose a longer one")

    monkeypatch.setattr("redline.page.compare.DETECTORS", {**DETECTORS, "picky": Picky})
    for module in ("redline.engine.track", "redline.settings"):
        monkeypatch.setattr(f"{module}.DETECTORS", {**DETECTORS, "picky": Picky})
    rows = compare.comparison_rows(service, monitor.feeds["wave"], Settings(), "row")
    assert len(rows) == len(DETECTORS) + 1
    name, reason = rows[-1].children
    assert name.children.children == "picky" and "at least 200 steps" in reason.children


def test_looking_back_and_going_live(service, monitor):
    live = ViewQuery(service, "wave", Settings(threshold=2.5), 600)
    end = query.view_end("earlier", live, None)
    assert end == 2_700
    back = ViewQuery(service, "wave", Settings(threshold=2.5), 600, end)
    assert query.view_end("later", back, None) is None
    assert query.view_end("pause", back, None) is None
    assert query.view_end("pause", live, None) == 3_000
    assert query.view_end("goto", live, {"step": 2_990}) == 3_000, "frozen, whatever comes"
    found = query.view_end("previous", live, None)
    score = live.track.read("score", 0, 3_000)[:, 0]
    assert score[found - 300] > live.settings.threshold


def test_looking_back_beyond_the_buffer_finds_what_the_store_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        service = assemble_service(lambda store: Monitor({}, store=store), store)
        made = service.monitor
        x = np.random.default_rng(3).normal(size=3_000)
        for i in range(0, 3_000, 250):
            made.submit("oven", np.arange(i, i + 250) + 1.7e9, x[i : i + 250, None])
            made.beat()
        feed = made.feeds["oven"]
        assert feed.tape.first > 1_500
        back = ViewQuery(service, "oven", Settings(), 600, 900)
        seen = back.view
        assert (seen.first, seen.end) == (300, 900) and seen.x[:, 0].tolist() == x[300:900].tolist()
        assert np.isfinite(seen.score).all() and np.isnan(seen.low).all()
        edge = ViewQuery(service, "oven", Settings(), 600, feed.tape.first + 300)
        over = edge.view
        assert (
            over.x[:, 0].tolist() == x[edge.first : edge.end].tolist()
            and len(over.time) == edge.end - edge.first
        )


def test_what_people_say_counts_as_truth_and_settings_are_proposed(service, monitor):
    feed = monitor.feeds["wave"]
    settings = Settings(threshold=2.5)
    before = ViewQuery(service, "wave", settings, 600).preview_metrics()
    false = [
        a
        for a in ViewQuery(service, "wave", settings, 3_000).view.marks
        if a.outcome == "false alarm"
    ]
    assert false
    for mark in false[:3]:
        at = float(feed.tape.read("time", mark.row, mark.row + 1)[0, 0])
        add_label(service, feed, (at, at), "missed")
    after = ViewQuery(service, "wave", settings, 600).preview_metrics()
    assert after.row_recall > before.row_recall and after.row_precision > before.row_precision
    found = find_proposal(service, feed)
    assert found is None or found.fits > found.fits_now


def test_a_label_given_or_taken_back_by_a_program_counts_at_once(service, monitor):
    settings = Settings(threshold=2.5)
    at = float(monitor.feeds["wave"].tape.read("time", 2_900, 2_901)[0, 0])

    def ask() -> Any:
        now = ViewQuery(service, "wave", settings, 600)
        curve = redraw.curve_update(now, "row", "light")
        return now.preview_metrics(), now.view.truth, curve

    before = ask()
    label = service.labels.add(Label("wave", at, at + 5, "missed", "a program", 0.0), 1)
    said = ask()
    service.labels.remove(label.id)
    assert said[0] != before[0] and said[1] != before[1] and said[2] is not before[2]
    assert ask()[:2] == before[:2]


def test_a_taken_port_gets_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            SystemExit, match=r"port \d+ on 127.0.0.1 cannot be used .* choose another with --port"
        ):
            app.main(["--no-browser", "--port", str(taken.getsockname()[1])])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--port", "99999"], "wanted 1 to 65,535"), (["--interval", "1"], "wanted 100 to 60,000")],
)
def test_the_command_line_names_what_it_wanted(words, said, capsys):
    with pytest.raises(SystemExit):
        app.parse_arguments(words)
    assert said in capsys.readouterr().err


def test_a_second_worker_is_refused(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.raises(RuntimeError, match="wanted one worker"):
        require_one_process()


def test_without_a_file_nothing_is_stored_and_points_are_taken() -> None:
    settings = ServerSettings(db="")
    store = app.open_store(settings)
    assert store is None
    service = app.start_service(settings, ServerOptions(), store)
    receipt = service.monitor.submit("oven", np.arange(3.0), np.ones(3))
    service.monitor.process_pushed()
    assert receipt.result(0).accepted == 3
