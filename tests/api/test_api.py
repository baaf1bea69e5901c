"""The API: answers, refusals and their texts, submitted points, and the stream of events."""

import asyncio
import csv
import io
import json
import math
import re
import sqlite3
import threading
import time
import tracemalloc
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from detectors import DETECTORS
from docs.tables import filled
from redline.access.actor import current_actor
from redline.access.hosts import Hosts
from redline.access.tokens import Token, Tokens, hash_secret
from redline.api import guard, history, sse
from redline.api.documents import anomaly_event
from redline.api.guard import RequestGuard
from redline.api.history import (
    HistoryRange,
    HistoryRows,
    csv_heading,
    csv_lines,
    rows_from_buffer,
    select_rows,
    thin_rows,
)
from redline.api.routes.state import status_report
from redline.api.server import connect_api
from redline.api.service import ServerOptions, assemble_service
from redline.api.sse import EventFilter, EventHub, ServerEvent
from redline.detection.third_party import IsolationForest
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Limits, Monitor
from redline.engine.wording import SEVERITIES, severity_index
from redline.settings import Settings
from redline.sources import payload
from redline.sources.csv import read_csv
from redline.sources.csv_cells import restore_formula
from redline.sources.payload import BodyError, parse_document, parse_submission
from redline.sources.pushed import SubmissionRefused
from redline.storage import reading
from redline.storage.sqlite import SqliteStore
from streams import STREAMS

NOON = 1_767_571_200.0  # 5 January 2026, 00:00 UTC


def history_csv(names, rows):
    """Return rows as a whole CSV."""
    return csv_heading(names) + csv_lines(rows)


@contextmanager
def served(monitor, **options):
    """Return a client of a server without the page; the loop is run by hand, one beat at a time."""
    server = FastAPI()
    service = connect_api(
        server, assemble_service(lambda store: monitor, options=ServerOptions(**options))
    )
    with TestClient(server, base_url="http://localhost") as client:
        client.service = service
        yield client


@pytest.fixture(scope="module")
def wave():
    """Return a simulated stream with a past that does not move."""
    monitor = Monitor(
        {
            "wave": MonitoredStream(STREAMS["wave"](seed=3)),
            "iot": MonitoredStream(STREAMS["iot"](seed=3)),
        }
    )
    for feed in monitor.feeds.values():
        monitor.backfill(feed, 3_000)
    with served(monitor) as client:
        yield client


@pytest.fixture
def running():
    """Return a client of a server whose loop runs, with pushed streams only."""
    monitor = Monitor({})
    monitor.start()
    with served(monitor) as client:
        yield client
    monitor.stop()


def refused(answer, status, field=None):
    """Check that an answer is a problem, and return the error of its field if one is named."""
    assert (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
    ), answer.text
    body = answer.json()
    assert (
        body["status"] == status
        and body["type"] == "about:blank"
        and body["title"]
        and body["detail"]
        and body["instance"].startswith("/")
    )
    if field is None:
        return body
    found = [error for error in body["errors"] if error["field"] == field]
    assert found and found[0]["wanted"] and "came" in found[0], body
    return found[0]


# --- points in, as bodies


@pytest.mark.parametrize(
    "body",
    [
        [{"source": "oven", "time": NOON + i, "value": float(i)} for i in range(3)],
        [
            {"source": "oven", "time": f"2026-01-05T00:00:0{i}Z", "values": {"value": i}}
            for i in range(3)
        ],
        {"source": "oven", "time": [NOON, NOON + 1, NOON + 2], "value": [0, 1.0, 2]},
        {
            "source": "oven",
            "time": ["2026-01-05", "2026-01-05T01:00:01+01:00", NOON + 2],
            "values": {"value": [0, 1, 2]},
        },
        [
            {"source": "oven", "time": [NOON, NOON + 1], "value": [0, 1]},
            {"source": "oven", "time": NOON + 2, "value": 2},
        ],
    ],
    ids=["list", "ISO", "columns", "mixed times", "columns and a point"],
)
def test_every_form_means_the_same_points(body):
    lines = b"\n".join(map(payload.to_json, body if isinstance(body, list) else [body])) + b"\n\n"
    for parts in (
        parse_submission(body),
        parse_submission(parse_document(lines, lines=True)),
        parse_submission(parse_document(lines)),
    ):
        assert {p.source for p in parts} == {"oven"} and {p.names for p in parts} == {("value",)}
        assert np.concatenate([p.time for p in parts]).tolist() == [NOON, NOON + 1, NOON + 2]
        assert np.concatenate([p.x for p in parts])[:, 0].tolist() == [0, 1, 2]


def test_features_keep_their_order_and_what_is_left_out_is_missing():
    points = [
        {"source": "a", "time": 0, "values": {"x": 1, "y": 2}},
        {"source": "b", "time": 0, "value": None},
    ]
    points += [
        {"source": "a", "time": 1, "values": {"y": 3, "z": 4}},
        {"source": "a", "time": 2, "values": {"z": 5, "x": None, "y": 6}},
    ]
    first, second = parse_submission(points)
    assert first.names == ("x", "y", "z") and second.source == "b"
    assert np.array_equal(
        first.x, [[1, 2, math.nan], [math.nan, 3, 4], [math.nan, 6, 5]], equal_nan=True
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"7", "body"),
        (b"[7]", "[0]"),
        (b'{"source": 7, "time": 0, "value": 1}', "source"),
        (b'{"source": "a", "value": 1}', "time"),
        (b'{"source": "a", "time": 0}', "a.value"),
        (b'{"source": "a", "time": 0, "value": 1, "values": {"b": 1}}', "a.value"),
        (b'{"source": "a", "time": 0, "val": 1}', "val"),
        (
            b'[{"source": "a", "time": 0, "value": 1}, {"source": "a", "time": 0, "vale": 1}]',
            "[1].vale",
        ),
        (b'{"source": "a", "time": 0, "value": "7"}', "a.value"),
        (b'{"source": "a", "time": 0, "value": true}', "a.value"),
        (b'{"source": "a", "time": 0, "value": 1e80}', "a.value"),
        (b'{"source": "a", "time": 0, "value": [1]}', "a.value"),
        (b'{"source": "a", "time": 0, "values": {}}', "a.values"),
        (b'{"source": "a", "time": 0, "values": 1}', "values"),
        (b'{"source": "a", "time": 0, "values": {"b": {"c": 1}}}', "a.values"),
        (b'{"source": "a", "time": "noon", "value": 1}', "a.time"),
        (b'{"source": "a", "time": null, "value": 1}', "a.time"),
        (b'{"source": "a", "time": [], "value": []}', "time"),
        (b'{"source": "a", "time": [0, 1], "value": [1]}', "value"),
        (b'{"source": "a", "time": [0, 1], "value": 1}', "value"),
        (b'{"source": "a", "time": [0, 1], "values": {"b": [1, "x"]}}', "values.b[1]"),
        (b'{"source": "a", "time": [0, "x"], "value": [1, 2]}', "time[1]"),
        (b'{"source": "a", "time": 0, "value": 1}\nrubbish\n', "line 2"),
        (b'{"source": "a", "time": 0, "value": 1}\n7\n', "[1]"),
    ],
)
def test_a_body_that_does_not_fit_names_field_wanted_and_came(body, field):
    with pytest.raises(BodyError) as caught:
        parse_submission(parse_document(body))
    assert (
        caught.value.field.endswith(field)
        and caught.value.wanted
        and len(caught.value.came) <= 2 * payload.MAX_SHOWN
    )


@pytest.mark.parametrize(
    ("came", "seconds"),
    [
        ("20260105", NOON),
        ("202601050630", NOON + 23_400),
        ("20260105063007", NOON + 23_407),
        ("20260105.0", 20_260_105.0),
        (20260105, 20_260_105.0),
        ("1767571200", NOON),
        ("-20260105", -20_260_105.0),
    ],
)
def test_a_text_of_as_many_digits_as_a_date_is_a_date(came, seconds):
    assert payload.parse_time(came, "time") == seconds


@pytest.mark.parametrize("came", ["20261305", "00000000", "202601052460", "٢٠٢٦٠١٠٥"])
def test_a_text_of_as_many_digits_as_a_date_that_is_none_is_refused(came):
    with pytest.raises(BodyError, match="time"):
        payload.parse_time(came, "time")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
)
pointlike = st.dictionaries(
    st.sampled_from(["source", "time", "value", "values", "x"]),
    anything | st.dictionaries(st.text(max_size=3), anything, max_size=3),
)


@given(st.lists(pointlike, max_size=3) | pointlike | anything)
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_any_json_is_points_or_a_misfit(body):
    try:
        found = parse_submission(body)
    except BodyError as error:
        assert error.field and error.wanted
    else:
        assert all(
            len(part.time) == len(part.x) >= 1 and part.x.shape[1] == len(part.names)
            for part in found
        )


def test_whatever_is_told_is_json():
    told = {"nan": math.nan, "array": np.array([1.0, math.inf]), 7: 2**63}
    assert json.loads(payload.to_json(told)) == {"nan": None, "array": [1.0, None], "7": 2**63}
    for odd in (2**70, -(2**64), "half \ud800"):
        assert json.loads(payload.to_json({"came": odd})) == {"came": odd}


# --- state


def test_health_is_live_and_ready_with_reasons(running):
    answer = running.get("/health")
    assert answer.status_code == 200 and answer.json() == {
        "live": True,
        "ready": True,
        "reasons": [],
        "notes": [],
    }


def test_a_loop_that_does_not_beat_is_not_live(wave):
    assert refused_health(wave) == ["the loop has not started"]
    running = Monitor({})
    running.start()
    running.stop()
    with served(running) as client:
        assert "has not beaten" in refused_health(client)[0]


def refused_health(client):
    answer = client.get("/health")
    assert answer.status_code == 503 and not answer.json()["ready"]
    return answer.json()["reasons"]


def test_streams_tell_features_units_and_applied_settings(wave):
    listed = wave.get("/api/streams").json()
    assert (
        [s["source"] for s in listed["streams"]] == ["wave", "iot"]
        and listed["total"] == 2
        and listed["next"] is None
    )
    iot = wave.get("/api/streams/iot").json()
    assert iot == listed["streams"][1] and iot["kind"] == "simulated" and iot["points"] == 3_000
    assert (
        iot["features"][1] == {"name": "temperature", "unit": "°C"}
        and iot["applied"]["detector"] == "rolling z-score"
    )
    page = wave.get("/api/streams", params={"limit": 1}).json()
    assert (
        page["next"] == "wave"
        and wave.get("/api/streams", params={"after": "wave"}).json()["streams"][0]["source"]
        == "iot"
    )


@pytest.mark.parametrize("path", ["/api/streams", "/api/alerts", "/api/groups"])
def test_a_page_after_what_is_gone_is_refused_instead_of_begun_again(wave, path):
    assert wave.get(path, params={"after": ""}).status_code == 200
    error = refused(wave.get(path, params={"after": "gone"}), 422, "after")
    assert "begin again" in error["wanted"]


def test_status_and_stats_count_the_same(wave):
    status, stats = wave.get("/api/status").json(), wave.get("/api/stats").json()["streams"]
    for name in ("points", "anomalies", "alarms"):
        assert status[name] == sum(stream[name] for stream in stats)
    assert status["points"] == 6_000 and wave.get("/api/stats", params={"source": "iot"}).json()[
        "streams"
    ] == [stats[1]]


def test_what_is_not_there_is_said(wave):
    for path in (
        "/api/streams/typo",
        "/api/data/typo",
        "/api/stats?source=typo",
        "/api/anomalies?source=typo",
    ):
        assert refused(wave.get(path), 404, "source")["came"] == "typo"
    assert "/api/typo" in refused(wave.get("/api/typo"), 404)["detail"] and refused(
        wave.post("/api/alerts/x/acknowledge"), 404
    )
    wrong = wave.get("/api/submit")
    assert (
        refused(wrong, 405)
        and wrong.headers["allow"] == "POST"
        and refused(wave.post("/api/streams"), 405)
    )


# --- points out


def test_data_comes_oldest_first_in_three_formats(wave):
    feed = wave.service.monitor.feeds["iot"]
    body = wave.get("/api/data/iot", params={"limit": 50}).json()
    points = body["points"]
    assert [p["step"] for p in points] == list(range(2_950, 3_000)) and body["names"] == list(
        feed.stream.names
    )
    want = feed.tape.read("x", 2_950, 3_000)
    assert [list(p["values"].values()) for p in points] == [
        [None if v != v else v for v in row] for row in want.tolist()
    ]
    lines = [
        json.loads(line)
        for line in wave.get(
            "/api/data/iot", params={"limit": 50, "format": "ndjson"}
        ).text.splitlines()
    ]
    assert lines == [{"source": "iot", **point} for point in points]
    rows = list(
        csv.DictReader(
            io.StringIO(wave.get("/api/data/iot", params={"limit": 50, "format": "csv"}).text)
        )
    )
    assert [float(r["humidity"] or "nan") for r in rows] == pytest.approx(
        want[:, 0].tolist(), nan_ok=True, abs=0
    ) and rows[0]["step"] == "2950"


@pytest.mark.parametrize(
    "names",
    [("score", "time"), ("step", "anomaly", "value of step"), ("=x", "'=x", "''=x", "load")],
)
def test_no_two_columns_of_a_csv_have_one_heading(names):
    (heads,) = csv.reader([csv_heading(names).decode()])
    assert len(set(heads)) == len(heads) == len(names) + 4
    assert [heads[i] for i in (0, 1, -2, -1)] == ["step", "time", "score", "anomaly"]
    read_back = [restore_formula(head) for head in heads[2:-2]]
    assert all(name in (head, head[-len(name) :]) for name, head in zip(names, read_back))
    assert len(set(read_back)) == len(names)


def test_a_range_is_paged_forward_from_its_start(wave):
    feed = wave.service.monitor.feeds["wave"]
    start, seen = feed.tape.read("time", 100, 101)[0, 0], []
    for _ in range(3):
        points = wave.get(
            "/api/data/wave", params={"start": start, "end": NOON + 20, "limit": 40}
        ).json()["points"]
        seen += [p["step"] for p in points]
        start = points[-1]["time"] + 1e-3
    assert seen == list(range(100, 200))
    iso = wave.get("/api/data/wave", params={"start": "2026-01-05T00:00:10Z", "limit": 1}).json()[
        "points"
    ][0]
    assert (
        iso["step"] == 100
        and refused(wave.get("/api/data/wave?start=noon"), 422, "start")["came"] == "'noon'"
    )
    for query, field in (
        ("limit=0", "limit"),
        ("limit=999999", "limit"),
        ("format=xml", "format"),
        ("thin=-1", "thin"),
    ):
        assert refused(wave.get(f"/api/data/wave?{query}"), 422, field)


def test_the_anomalies_of_the_data_are_those_that_were_found(wave):
    for name in ("wave", "iot"):
        feed = wave.service.monitor.feeds[name]
        points = wave.get(f"/api/data/{name}", params={"limit": 3_000}).json()["points"]
        assert [p["step"] for p in points if p["anomaly"]] == [
            a.step for a in feed.journal
        ] and feed.anomalies > 5


def test_thinning_keeps_every_anomaly_and_the_extremes_in_absolute_buckets(wave):
    feed = wave.service.monitor.feeds["wave"]
    whole = rows_from_buffer(feed)
    thin = thin_rows(whole, 200)
    assert len(thin.step) < 260 and set(whole.step[whole.anomaly]) <= set(thin.step)
    assert np.nanmin(thin.x) == np.nanmin(whole.x) and np.nanmax(thin.x) == np.nanmax(whole.x)
    later = thin_rows(whole.at(slice(64, None)), 200)  # the same buckets, so the same rows
    assert set(thin.step[thin.step >= 128]) == set(later.step[later.step >= 128])
    assert len(thin_rows(whole, 10_000).step) == 3_000


def test_missing_values_are_empty_cells_and_no_bucket_is_lost():
    steps = np.arange(40)
    x = np.where(steps[:, None] % 2, np.nan, steps[:, None] * 1.0)
    found = HistoryRows(steps, steps * 1.0, x, np.full(40, np.nan), np.zeros(40, bool))
    two = found._replace(x=np.ones((40, 2)))
    assert history_csv(["a,b"], found).decode().splitlines()[:3] == [
        'step,time,"a,b",score,anomaly',
        "0,0.0,0.0,,0",
        "1,1.0,,,0",
    ]
    heads = history_csv(["=cmd|' /C calc'!A0", "-1"], found).decode().splitlines()[0]
    assert heads == "step,time,'=cmd|' /C calc'!A0,-1,score,anomaly", "no formula"
    assert read_csv(history_csv(["=a", "@b"], two)).columns.names[2:4] == ("=a", "@b")
    assert thin_rows(found, 10).step.tolist() == [0, 6, 8, 14, 16, 22, 24, 30, 32, 38]
    assert select_rows(found, HistoryRange(10, 20, 3)).step.tolist() == [
        17,
        18,
        19,
    ] and select_rows(found, HistoryRange(10, 20, 3, True)).step.tolist() == [10, 11, 12]


# --- anomalies


def test_anomalies_are_listed_narrowed_and_paged(wave):
    newest = wave.get("/api/anomalies", params={"limit": 5}).json()
    assert len(newest["anomalies"]) == 5 and newest["next"] == newest["anomalies"][-1]["id"]
    every, after = [], 0
    while page := wave.get("/api/anomalies", params={"after": after, "limit": 20}).json()[
        "anomalies"
    ]:
        every, after = every + page, page[-1]["id"]
    assert [a["id"] for a in every] == list(range(1, len(every) + 1)) and every[-5:] == newest[
        "anomalies"
    ]
    one = every[0]
    assert (
        one["score"] > one["threshold"] and one["severity"] in SEVERITIES and "σ" in one["reason"]
    )
    assert all(
        a["severity_index"] == severity_index(a["score"], a["threshold"]) >= 50 for a in every
    )
    for query, keep in (
        ({"source": "iot"}, lambda a: a["source"] == "iot"),
        ({"severity": "critical"}, lambda a: a["severity"] == "critical"),
        ({"alarms": True}, lambda a: a["alarm"]),
        (
            {"source": "wave", "start": NOON + 100},
            lambda a: a["source"] == "wave" and a["time"] >= NOON + 100,
        ),
    ):
        assert (
            wave.get("/api/anomalies", params={"limit": 1_000, **query}).json()["anomalies"]
            == [a for a in every if keep(a)]
            != []
        )


# --- points in, as requests


def push(client, first, values, source="oven"):
    """Push a value a minute; return once the listeners were called, shortly after the answer."""
    answer = pushed(client, first, values, source)
    feeds, until = client.service.monitor.feeds, time.monotonic() + 5
    while (
        source in feeds
        and feeds[source].journal
        and client.service.hub.newest < feeds[source].journal[-1].id
    ):
        assert time.monotonic() < until, "the listeners were not told"
        time.sleep(0.001)
    return answer


def pushed(client, first, values, source):
    return client.post(
        "/api/submit",
        json={
            "source": source,
            "time": [NOON + 60 * (first + i) for i in range(len(values))],
            "value": list(values),
        },
    )


def test_what_is_pushed_is_scored_shown_and_found(running):
    calm = np.random.default_rng(1).normal(20, 0.5, 300).tolist()
    answer = push(running, 0, calm)
    assert answer.status_code == 200 and answer.json()["accepted"] == 300
    assert push(running, 300, [90.0]).json()["sources"] == {
        "oven": {"accepted": 1, "repeated": 0, "late": 0}
    }
    newest = running.get("/api/anomalies").json()["anomalies"][-1]
    assert (newest["source"], newest["value"], newest["step"], newest["severity"]) == (
        "oven",
        90.0,
        300,
        "critical",
    )
    stream = running.get("/api/streams/oven").json()
    assert stream["kind"] == "pushed" and stream["points"] == 301
    incident = running.get("/api/alerts").json()["incidents"][0]
    assert (
        incident["source"] == "oven"
        and incident["state"] == "open"
        and "oven is unusual" in incident["text"]
    )


def test_repeats_are_ignored_late_ones_kept_apart_both_counted(running):
    assert push(running, 5, [1, 2, 3]).json()["accepted"] == 3
    answer = running.post(
        "/api/submit",
        json={
            "source": "oven",
            "time": [NOON + 60 * k for k in (5, 6, 2, 8, 8)],
            "value": [9, 9, 9, 9, 9],
        },
    ).json()
    assert (answer["accepted"], answer["repeated"], answer["late"]) == (1, 3, 1)
    assert [p["value"] for p in running.get("/api/data/oven").json()["points"]] == [1, 2, 3, 9]
    queue = running.get("/api/status").json()["queue"]
    assert (queue["repeated"], queue["late"], queue["waiting"]) == (3, 1, 0)


def test_a_bad_submission_names_what_is_wrong_and_leaves_the_right_ones_in(running):
    assert refused(running.post("/api/submit", content=b"rubbish"), 422, "body")
    assert refused(
        running.post("/api/submit", json={"source": "\n", "time": 0, "value": 1}), 422, "source"
    )
    assert refused(
        running.post("/api/submit", json={"source": "a", "time": 9e11, "value": 1}), 422, "time"
    )
    mixed = running.post(
        "/api/submit",
        json=[{"source": "good", "time": 0, "value": 1}, {"source": " ", "time": 0, "value": 1}],
    )
    assert (
        refused(mixed, 422)["sources"]["good"]["accepted"] == 1
        and running.get("/api/streams/good").status_code == 200
    )
    assert push(running, 0, [1.0]).status_code == 200
    assert refused(
        running.post(
            "/api/submit", json={"source": "oven", "time": NOON + 99, "values": {"other": 1}}
        ),
        422,
        "values",
    )


def test_a_body_of_many_sources_is_answered_source_by_source_and_holds_nobody_up(
    running, monkeypatch
):
    on_the_loop = []
    submit = running.service.monitor.submit
    monkeypatch.setattr(
        running.service.monitor,
        "submit",
        lambda *words: on_the_loop.append(asyncio._get_running_loop()) or submit(*words),
    )
    points = [{"source": f"s{i}", "time": NOON, "value": i} for i in range(90)]
    body = running.post("/api/submit", json=[*points, {"source": " ", "time": NOON, "value": 1}])
    assert refused(body, 422)["accepted"] == 90 and len(body.json()["sources"]) == 90
    again = running.post("/api/submit", json=points).json()
    assert again["repeated"] == 90 and again["sources"]["s7"] == {
        "accepted": 0,
        "repeated": 1,
        "late": 0,
    }
    assert len(on_the_loop) == 181 and not any(on_the_loop)


def test_lines_are_taken_whatever_their_content_type(running):
    body = b'{"source": "a", "time": 1, "value": 1}\n{"source": "b", "time": "1970-01-01T00:00:02", "values": {"x": 1, "y": null}}\n'  # noqa: E501
    for kind in ("application/x-ndjson", "application/x-www-form-urlencoded"):
        assert set(
            running.post("/api/submit", content=body, headers={"content-type": kind}).json()[
                "sources"
            ]
        ) == {"a", "b"}
    assert running.get("/api/data/b").json()["points"][0]["values"] == {"x": 1, "y": None}


# --- settings


def test_configure_applies_undoes_and_refuses_in_the_words_of_the_table(wave):
    answer = wave.post(
        "/api/configure", json={"source": "iot", "threshold": 5, "detector": "EWMA"}
    ).json()
    assert answer["before"]["threshold"] == 3.5 and (
        answer["applied"]["threshold"],
        answer["applied"]["detector"],
    ) == (5, "EWMA")
    assert wave.service.monitor.feeds["iot"].applied.detector == "EWMA"
    assert (
        wave.post("/api/configure", json={"source": "iot", "undo": True}).json()["applied"]
        == answer["before"]
    )
    for change, field in (
        ({"threshold": 99}, "threshold"),
        ({"detector": "x"}, "detector"),
        ({"window": 1.5}, "window"),
        ({}, "body"),
        ({"undo": True, "threshold": 5}, "undo"),
    ):
        assert refused(wave.post("/api/configure", json={"source": "iot", **change}), 422, field)
    assert refused(wave.post("/api/configure", json={"source": "x", "threshold": 5}), 404, "source")


def test_what_changes_no_settings_is_not_logged_and_an_undo_of_nothing_is_refused(kept):
    client = kept()
    push(client, 0, [1.0, 2.0])
    change = {"source": "oven", "threshold": 5}
    refused(client.post("/api/configure", json={"source": "oven", "undo": True}), 409)
    assert not client.service.store.audit()
    for _ in range(2):
        assert client.post("/api/configure", json=change).json()["applied"]["threshold"] == 5
    client.post("/api/configure", json={"source": "oven", "undo": True})
    refused(client.post("/api/configure", json={"source": "oven", "undo": True}), 409)
    assert [line["what"] for line in client.service.store.audit()] == ["undo", "apply"]


def test_a_window_that_a_detector_refuses_is_refused_in_its_words(wave, monkeypatch):
    monkeypatch.setitem(DETECTORS._entries, "EWMA", IsolationForest)
    error = refused(
        wave.post("/api/configure", json={"source": "iot", "detector": "EWMA", "window": 20}),
        422,
        "window",
    )
    assert "at least 32 steps" in error["wanted"] and error["came"] == "20"
    assert wave.get("/api/streams/iot").json()["applied"]["window"] != 20


# --- incidents


def test_incidents_are_acknowledged_snoozed_and_resolved(running):
    push(running, 0, np.random.default_rng(1).normal(20, 0.5, 300).tolist())
    push(running, 300, [90.0])
    id = running.get("/api/alerts").json()["incidents"][0]["id"]
    assert running.get(f"/api/alerts/{id}").json()["peak"]["feature"] == "value"
    assert running.post(f"/api/alerts/{id}/acknowledge").json()["state"] == "acknowledged"
    assert (
        running.post(f"/api/alerts/{id}/snooze", params={"for": "1 h"}).json()["state"] == "snoozed"
    )
    assert refused(running.post(f"/api/alerts/{id}/snooze", params={"for": "2 h"}), 422, "for")
    assert (
        running.post(f"/api/alerts/{id}/resolve", params={"note": "door was open"}).json()["state"]
        == "resolved"
    )
    assert "resolved" in refused(running.post(f"/api/alerts/{id}/acknowledge"), 409)["detail"]
    entries = [
        (e["what"], e["note"])
        for e in running.get(f"/api/alerts/{id}").json()["history"]
        if e["who"] == "local"
    ]
    assert entries == [("acknowledged", ""), ("snoozed", "1 h"), ("resolved", "door was open")]
    assert running.get("/api/alerts", params={"state": "open"}).json()["total"] == 0
    noted = running.post(f"/api/alerts/{id}/note", params={"note": "hinge mended"})
    last = noted.json()["history"][-1]
    assert (last["what"], last["who"], last["note"]) == ("noted", "local", "hinge mended")
    for empty in ("", " ", "\x00\u202e"):
        assert refused(running.post(f"/api/alerts/{id}/note", params={"note": empty}), 422, "note")
    assert running.post("/api/alerts/x/note", params={"note": "a"}).status_code == 404


# --- the guard


READ_TOKEN = "the token of a reader"
PUSH_TOKEN = "the token of a pusher"


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


def test_a_token_opens_what_its_role_may_do():
    tokens = Tokens(
        [
            Token("read", hash_secret(READ_TOKEN), "reader"),
            Token("push", hash_secret(PUSH_TOKEN), "pusher"),
        ]
    )
    with served(Monitor({}), tokens=tokens) as client:
        client.service.monitor.start()
        assert client.get("/health").status_code == 200
        answer = client.get("/api/status")
        assert refused(answer, 401) and "Basic" in answer.headers["www-authenticate"]
        assert client.get("/api/status", headers=bearer(READ_TOKEN)).status_code == 200
        assert refused(client.post("/api/submit", json={}, headers=bearer(READ_TOKEN)), 403)
        point = {"source": "a", "time": 0, "value": 1}
        assert client.post("/api/submit", json=point, headers=bearer(PUSH_TOKEN)).status_code == 200
        client.service.monitor.stop()


def test_wrong_tokens_are_held_back_and_counted():
    tokens = Tokens([Token("read", hash_secret(READ_TOKEN), "reader")])
    with served(Monitor({}), tokens=tokens) as client:
        assert client.get("/api/status", headers=bearer(READ_TOKEN)).status_code == 200
        for path in ("/api/status", "/", "/docs"):
            answers = [
                client.get(path, headers=bearer(f"wrong token {path} {i}")) for i in range(100)
            ]
        assert refused(answers[-1], 429) and 1 <= int(answers[-1].headers["retry-after"]) <= 5
        counted = client.get("/api/status", headers=bearer(READ_TOKEN)).json()["requests"]
        assert counted["wrong_token"] + counted["throttled"] == 300
        assert counted["wrong_token"] < 12 and client.get("/health").status_code != 429


def test_a_body_too_big_is_refused_also_where_it_does_not_say_so(running):
    running.service.options = running.service.options._replace(body=100)
    assert (
        "at most 100 bytes"
        in refused(running.post("/api/submit", content=b" " * 101), 413)["detail"]
    )
    assert refused(running.post("/api/submit", content=iter([b" " * 60, b" " * 60])), 413)
    assert running.get("/api/status").json()["requests"]["too_big"] == 2


def test_a_body_of_the_page_that_is_too_big_is_told_the_limit_of_the_page(running, monkeypatch):
    monkeypatch.setattr(guard, "MAX_PAGE_BODY", 200)
    running.service.options = running.service.options._replace(body=100)

    @running.app.post("/update")
    async def update(request: Request):
        return len(await request.body())

    assert running.post("/update", content=b" " * 150).json() == 150
    said = refused(running.post("/update", content=b" " * 201), 413)["detail"]
    assert said == "wanted a body of at most 200 bytes, came 201; choose a smaller file"
    said = refused(running.post("/update", content=iter([b" " * 101, b" " * 100])), 413)["detail"]
    assert said == "wanted a body of at most 200 bytes, came more; choose a smaller file"


def test_one_who_asks_too_often_is_told_when_to_come_back():
    with served(Monitor({}), rate=2) as client:
        answers = [client.get("/api/status") for _ in range(6)]
        assert [a.status_code for a in answers[:4]] == [200] * 4 and refused(answers[-1], 429)
        assert (
            int(answers[-1].headers["retry-after"]) >= 1
            and client.get("/health").status_code != 429
        )


def test_a_page_whose_name_was_pointed_here_gets_nothing_and_changes_nothing(wave):
    evil = {"Host": "evil.example:8050", "Origin": "http://evil.example:8050"}
    threshold = wave.get("/api/status").json()
    change = {"source": "iot", "threshold": 5}
    answer = wave.post("/api/configure", json=change, headers=evil)
    assert (
        answer.status_code == 421 and answer.headers["content-type"] == "application/problem+json"
    )
    problem = answer.json()
    assert problem["title"] == "Misdirected Request" and problem["instance"] == "/api/configure"
    assert "came 'evil.example:8050'" in problem["detail"] and "--allow-host" in problem["detail"]
    for path in ("/health", "/api/data/iot", "/api/stream/anomalies", "/docs", "/openapi.json"):
        assert wave.get(path, headers=evil).status_code == 421, path
    assert wave.get("/api/status").json()["streams"] == threshold["streams"]
    assert (
        wave.get("/health", headers=[("Host", "localhost"), ("Host", "localhost")]).status_code
        == 400
    )


@pytest.mark.parametrize("path", ["/api/labels", "/api/configure"])
def test_a_body_without_points_is_small(path):
    many = {"source": "pump", "x": [{}] * 40_000}
    with served(Monitor({})) as client:
        problem = refused(client.post(path, json=many), 413)
        assert "at most 65,536 bytes" in problem["detail"]


@pytest.mark.parametrize("path", ["/api/submit", "/api/labels", "/api/configure"])
def test_a_body_that_turns_out_too_big_is_a_413_wherever_it_is_read(path):
    def pieces(count):
        for _ in range(count):
            yield b" " * 100

    with served(Monitor({}), body=1_000) as client:
        kind = {"content-type": "application/json"}
        problem = refused(client.post(path, content=pieces(50), headers=kind), 413)
        assert "at most 1,000 bytes" in problem["detail"]
        assert client.get("/api/status").json()["requests"]["too_big"] == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.service.bodies, "most", 500)
            busy = client.post(path, content=pieces(9), headers=kind)
        assert refused(busy, 429) and busy.headers["retry-after"] == "1"


def test_requests_for_another_host_are_counted_and_logged_once_a_second(caplog, monkeypatch):
    now = [1e6]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    with served(Monitor({})) as client:
        for _ in range(50):
            client.get("/", headers={"Host": "evil.example"})
        now[0] += 1.5
        client.get("/api/status", headers={"Host": "evil.example\x1b[31m"})
        assert client.get("/api/status").json()["requests"]["wrong_host"] == 51
    lines = [r.getMessage() for r in caplog.records if "request from" in r.getMessage()]
    assert len(lines) == 2 and "'evil.example'" in lines[0] and "testclient" in lines[0]
    assert "; 50 since the last such line" in lines[1] and "\x1b" not in lines[1]


def test_behind_a_proxy_or_on_every_address_a_name_is_allowed_and_a_token_is_still_needed():
    tokens = Tokens([Token("operate", hash_secret(READ_TOKEN), "me")])
    hosts = Hosts.from_options("0.0.0.0", ["redline.example"])
    with served(Monitor({}), tokens=tokens, hosts=hosts, cors=("*",)) as client:
        for host, status in (
            ("redline.example", 200),
            ("10.0.0.4:8050", 200),
            ("evil.example", 421),
        ):
            headers = {"Host": host, **bearer(READ_TOKEN)}
            assert client.get("/api/status", headers=headers).status_code == status
        assert client.get("/api/status", headers={"Host": "redline.example"}).status_code == 401
        asked = {
            "Host": "evil.example",
            "Origin": "http://evil.example",
            "Access-Control-Request-Method": "POST",
        }
        preflight = client.options("/api/configure", headers=asked)
        assert (
            preflight.status_code == 421 and "access-control-allow-origin" not in preflight.headers
        )


def test_an_event_stream_ends_with_its_token():
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        tokens = Tokens([Token("read", hash_secret(READ_TOKEN), "reader")])
        service = assemble_service(lambda store: Monitor({}), options=ServerOptions(tokens))

        async def events(scope, receive, send):
            assert scope["state"]["who"] == current_actor("nobody") == "reader"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for i in range(5):
                await send({"type": "http.response.body", "body": b"event", "more_body": True})
                if i == 1:
                    tokens.tokens = ()  # as when its line is removed from the file

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/stream/anomalies",
            "headers": [(b"authorization", f"Bearer {READ_TOKEN}".encode())],
        }
        await RequestGuard(events, service)(scope, None, send)
        return [(message.get("body"), message.get("more_body")) for message in sent]

    assert asyncio.run(run())[1:] == [(b"event", True), (b"event", True), (b"", False)]
    assert current_actor("page") == "page"


def test_every_answer_has_the_security_headers(wave):
    evil = {"Host": "evil.example:8050"}
    for answer in (
        wave.get("/api/status"),
        wave.get("/api/nothing"),
        wave.get("/docs"),
        wave.get("/docs/reference.js"),
        wave.get("/openapi.json"),
        wave.post("/api/submit", content=b"{"),
        wave.get("/api/status", headers=evil),
    ):
        headers = answer.headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "script-src 'self';" in wave.get("/docs").headers["content-security-policy"]


def test_only_a_proxy_that_is_trusted_says_who_asks():
    forged = [{"X-Forwarded-For": f"10.1.1.{i}"} for i in range(12)]
    for proxies, count in (((), 0), (("10.0.0.4",), 0), (("10.0.0.0/24", "127.0.0.1"), 12)):
        with served(Monitor({}), rate=2, proxies=proxies) as client:
            client = TestClient(client.app, "http://localhost", client=("127.0.0.1", 5_000))
            answers = [client.get("/api/status", headers=each).status_code for each in forged]
            assert answers.count(200) == max(count, 4), proxies
            through = {"X-Forwarded-For": "10.9.9.9, 10.0.0.7"}  # the first one may be forged
            if count:
                codes = [client.get("/api/status", headers=through).status_code for _ in forged]
                assert codes.count(200) == 4


def test_other_pages_may_ask_only_where_the_operator_says_so(wave):
    origin = {"origin": "https://ops.example"}
    assert "access-control-allow-origin" not in wave.get("/api/status", headers=origin).headers
    assert refused(
        wave.post("/api/configure", json={"source": "iot", "threshold": 5}, headers=origin), 403
    )
    with served(Monitor({}), cors=("https://ops.example",)) as client:
        assert (
            client.get("/api/status", headers=origin).headers["access-control-allow-origin"]
            == "https://ops.example"
        )
        asked = {
            **origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        assert client.options("/api/configure", headers=asked).status_code == 200


# --- events


def noted(ids, stream="a", rank=0):
    return [ServerEvent(i, stream, rank, b'{"id":%d}' % i) for i in ids]


def ids(parts):
    return [
        int(line[4:])
        for part in parts
        for line in part.decode().splitlines()
        if line.startswith("id: ")
    ]


async def first(hub, after, count, wish=EventFilter()):  # noqa: B008
    """Return the ids of the first `count` events that a client is sent."""
    seen, parts = [], hub.follow(wish, after)
    async for part in parts:
        seen += ids([part])
        if len(seen) >= count:
            break
    await parts.aclose()
    return seen


def test_kept_events_hold_no_spare_room():
    def held():
        return tracemalloc.get_traced_memory()[0]

    document = {"id": 1, "source": "oven", "severity": "info", "text": "x" * 300}
    tracemalloc.start()
    try:
        before = held()
        events = [anomaly_event(document) for _ in range(500)]
        assert (held() - before) / len(events) < 1_000  # bytes
    finally:
        tracemalloc.stop()


def test_a_client_that_comes_back_misses_nothing_and_gets_nothing_twice():
    stored = noted(range(1, 6_000))

    async def scene():
        hub = EventHub(lambda wanted, after, most: [e for e in stored if e.id > after][:most])
        hub.publish(stored[:-1_000])
        behind = asyncio.create_task(first(hub, 0, 5_999 + 50))
        await asyncio.sleep(0)
        for i in range(0, 1_000, 100):
            hub.publish(stored[-1_000 + i :][:100])
            await asyncio.sleep(0)
        for event in noted(range(6_000, 6_050)):
            hub.publish([event])
            await asyncio.sleep(0)
        return await asyncio.wait_for(behind, 5)

    hub_kept, sse.REPLAY_EVENTS = sse.REPLAY_EVENTS, 2_000  # so that the oldest come from the store
    try:
        assert asyncio.run(scene()) == list(range(1, 6_050))
    finally:
        sse.REPLAY_EVENTS = hub_kept


def test_what_the_store_knows_before_the_hub_is_sent_once():
    async def scene():
        hub = EventHub(
            lambda wanted, after, most: [e for e in noted(range(1, 13)) if e.id > after][:most],
            newest=10,
        )
        client = asyncio.create_task(first(hub, 0, 13))
        while not hub.clients:
            await asyncio.sleep(0.001)
        hub.publish(noted([11, 12, 13]))
        return await asyncio.wait_for(client, 5)

    assert asyncio.run(scene()) == list(range(1, 14))


def test_replays_are_counted_and_only_two_read_the_store_at_once():
    release = threading.Event()
    reading_now: list[EventFilter] = []
    most_at_once = []

    def load(wanted, after, most):
        reading_now.append(wanted)
        most_at_once.append(len(reading_now))
        release.wait(5)
        reading_now.pop()
        return noted([7], "b", 2)

    async def scene():
        hub = EventHub(load, newest=10)
        wish = EventFilter(frozenset("b"), 1)
        followers = [hub.follow(wish, 0) for _ in range(6)]
        for follower in followers:
            await anext(follower)
        assert len(hub.clients) == 6, "each is counted from its first line"
        replays = [asyncio.create_task(anext(follower)) for follower in followers]
        while len(most_at_once) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # a third one would have begun by now
        assert reading_now == [wish] * 2, "the store is asked for nothing but what is wanted"
        for replay in replays[:4]:  # who leaves makes no room for another read
            replay.cancel()
        await asyncio.sleep(0.02)
        assert len(reading_now) == 2
        release.set()
        parts = await asyncio.wait_for(asyncio.gather(*replays, return_exceptions=True), 5)
        for follower in followers:
            await follower.aclose()
        assert max(most_at_once) == 2 and not hub.clients
        return ids(part for part in parts if isinstance(part, bytes))

    assert asyncio.run(scene()) == [7, 7]


def test_a_replay_from_the_store_is_filtered_and_goes_on_with_what_is_in_memory():
    stored = noted(range(1, 1_400), "a") + noted(range(1_400, 1_410), "b", 2)

    def load(wanted, after, most):
        return [e for e in stored if e.id > after and wanted.matches(e)][:most]

    async def scene():
        hub = EventHub(load, newest=1_405)  # a restart: nothing is in memory
        client = asyncio.create_task(first(hub, 0, 12, EventFilter(frozenset("b"), 1)))
        while not hub.clients:
            await asyncio.sleep(0.001)
        hub.publish(noted(range(1_406, 1_410), "b", 2))
        hub.publish(noted([1_410], "a", 2) + noted([1_411, 1_412], "b", 2))
        return await asyncio.wait_for(client, 5)

    assert asyncio.run(scene()) == [*range(1_400, 1_410), 1_411, 1_412]


def test_without_an_id_only_what_comes_is_sent_and_only_what_is_wanted():
    async def scene():
        hub = EventHub()
        hub.publish(noted(range(1, 10)))
        client = asyncio.create_task(first(hub, None, 2, EventFilter(frozenset("b"), 1)))
        await asyncio.sleep(0.01)
        hub.publish(noted([10], "b") + noted([11], "a", 2) + noted([12, 13], "b", 2))
        return await asyncio.wait_for(client, 5)

    assert asyncio.run(scene()) == [12, 13]


def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody():
    async def scene():
        hub = EventHub()
        stuck, reader = (
            hub.follow(EventFilter(), None),
            asyncio.create_task(first(hub, None, 3_000)),
        )
        await anext(stuck)
        waiting = asyncio.create_task(anext(stuck))
        await asyncio.sleep(0.01)
        for i in range(1, 3_001, 100):
            hub.publish(noted(range(i, i + 100)))
            await asyncio.sleep(0)
        await waiting
        assert await asyncio.wait_for(reader, 5) == list(range(1, 3_001))
        rest = [part async for part in stuck]
        return hub, rest

    hub, rest = asyncio.run(scene())
    assert (
        hub.slow == 1 and not hub.clients and b"Last-Event-ID" in rest[-1] and not ids(rest)
    )  # nothing is held for it


def test_nothing_is_held_for_one_who_was_let_go():
    client = sse.EventClient(EventFilter(), 0)
    assert [client.offer(event) for event in noted(range(1, sse.CLIENT_QUEUE_EVENTS + 2))] == [
        True
    ] * sse.CLIENT_QUEUE_EVENTS + [False]
    assert client.slow and not client.queue


def test_silence_is_broken_by_a_comment_and_the_end_is_said(monkeypatch):
    monkeypatch.setattr(sse, "HEARTBEAT", 0.01)

    async def scene():
        hub = EventHub()
        parts = hub.follow(EventFilter(), None)
        beginning = [await anext(parts), await anext(parts)]
        hub.close()
        return beginning + [part async for part in parts], hub

    parts, hub = asyncio.run(scene())
    assert (
        parts[0].startswith(b"retry: ")
        and parts[1].startswith(b": ")
        and b"stops" in parts[-1]
        and not hub.clients
    )


def test_an_event_is_the_anomaly_of_the_list(running):
    push(running, 0, np.random.default_rng(1).normal(20, 0.5, 300).tolist())
    push(running, 300, [90.0])
    kept = list(running.service.hub.kept)
    assert [json.loads(event.data) for event in kept] == running.get("/api/anomalies").json()[
        "anomalies"
    ]
    assert (
        kept[-1].frame.startswith(b"id: %d\nevent: anomaly\ndata: {" % kept[-1].id)
        and kept[-1].frame.endswith(b"}\n\n")
        and kept[-1].rank == 2
    )


def test_the_openapi_lists_every_route(wave):
    paths = wave.get("/openapi.json").json()["paths"]
    wanted = (
        "/health /api/status /api/stats /api/streams /api/data/{source} /api/anomalies "
        "/api/alerts /api/groups /api/stream/anomalies /api/submit /api/configure"
    )
    assert set(wanted.split()) <= set(paths)
    shown = wave.get("/docs").text
    assert all(path in shown for path in paths) and "@import" not in shown
    assert re.findall(r"src=\S+|https?:", shown) == ["src='/docs/reference.js'></script>"]
    assert wave.get("/docs/reference.js").headers["content-type"].startswith("text/javascript")


# --- with a store


@pytest.fixture
def kept(tmp_path):
    """Return a function that starts a server on the same store each time it is called."""
    lives = []

    def live():
        store = SqliteStore(tmp_path / "redline.db")
        server = FastAPI()
        service = connect_api(
            server, assemble_service(lambda store: Monitor({}, store=store), store)
        )
        monitor = service.monitor
        monitor.start()
        client = TestClient(server, base_url="http://localhost")
        client.service = service
        lives.append((monitor, store))
        return client

    def end():
        while lives:
            monitor, store = lives.pop()
            monitor.stop()
            store.close()

    live.end = end
    yield live
    end()


def calm_then_hot(client):
    push(client, 0, np.random.default_rng(1).normal(20, 0.5, 300).tolist())
    push(client, 300, [90.0])


def test_what_was_found_said_and_changed_is_there_after_a_restart(kept):
    client = kept()
    calm_then_hot(client)
    before = client.get("/api/anomalies").json()["anomalies"]
    id = client.get("/api/alerts").json()["incidents"][0]["id"]
    assert client.post(f"/api/alerts/{id}/acknowledge").json()["state"] == "acknowledged"
    label = client.post(
        "/api/labels",
        json={
            "source": "oven",
            "kind": "expected",
            "start": NOON,
            "feature": "value",
            "note": "door",
        },
    ).json()
    client.post("/api/configure", json={"source": "oven", "threshold": 5})
    assert (
        client.service.store.history("oven")[0]["settings"]["threshold"] == 5
    )  # answered means on disk
    for step in (1, 2):
        client.post(
            "/api/labels", json={"source": "oven", "kind": "expected", "start": NOON + 60 * step}
        )
    assert client.service.labels.is_proposal_due("oven")
    client.service.labels.dismiss("oven")
    points = client.get("/api/data/oven", params={"limit": 500}).json()
    kept.end()
    again = kept()
    assert again.get("/api/anomalies").json()["anomalies"] == before and before[-1]["value"] == 90.0
    assert again.get(f"/api/alerts/{id}").json()["state"] == "acknowledged"
    assert again.get("/api/labels", params={"source": "oven"}).json()["labels"][0] == label
    assert again.get("/api/streams/oven").json()["applied"]["threshold"] == 5
    assert (
        again.get("/api/data/oven", params={"limit": 500}).json() == points
        and len(points["points"]) == 301
    )
    assert [line["what"] for line in again.service.store.audit()] == [
        *["labelled expected"] * 2,
        "apply",
        "labelled expected",
        "acknowledged",
    ]
    assert not again.service.labels.is_proposal_due("oven")
    assert again.delete(f"/api/labels/{label['id']}").status_code == 200 and refused(
        again.delete(f"/api/labels/{label['id']}"), 404
    )


def test_the_id_of_a_label_is_never_given_again(kept):
    word = {"source": "oven", "kind": "expected", "start": NOON}
    client = kept()
    push(client, 0, [1.0, 2.0])
    given = [client.post("/api/labels", json=word).json()["id"] for _ in range(3)]
    for id in given[:0:-1]:  # the newest first, the oldest stays
        client.delete(f"/api/labels/{id}")
    kept.end()
    client = kept()
    given.append(client.post("/api/labels", json=word).json()["id"])
    for id in (given[0], given[-1]):  # none stays
        client.delete(f"/api/labels/{id}")
    kept.end()
    given.append(kept().post("/api/labels", json=word).json()["id"])
    assert given == [1, 2, 3, 4, 5]


def test_the_id_of_a_label_removed_from_a_file_of_before_is_not_given_again(kept):
    word = {"source": "oven", "kind": "expected", "start": NOON}
    client = kept()
    push(client, 0, [1.0, 2.0])
    given = [client.post("/api/labels", json=word).json()["id"] for _ in range(2)]
    with client.service.store.writing() as c:
        c.exec_driver_sql("DELETE FROM meta WHERE name = 'newest label'")
    kept.end()
    client = kept()
    client.delete(f"/api/labels/{given[-1]}")
    kept.end()
    assert kept().post("/api/labels", json=word).json()["id"] == 3


def test_a_client_goes_on_after_a_restart_where_it_was(kept):
    client = kept()
    calm_then_hot(client)
    found = [a["id"] for a in client.get("/api/anomalies").json()["anomalies"]]
    kept.end()
    again = kept()
    push(again, 301, [95.0])
    newest = again.get("/api/anomalies").json()["anomalies"][-1]["id"]
    assert newest > found[-1] and asyncio.run(first(again.service.hub, 0, len(found) + 1)) == [
        *found,
        newest,
    ]


def test_the_history_holds_late_points_and_narrows_like_the_journal(kept):
    client = kept()
    calm_then_hot(client)
    assert (
        client.post("/api/submit", json={"source": "oven", "time": NOON + 30, "value": 7}).json()[
            "late"
        ]
        == 1
    )
    points = client.get("/api/data/oven", params={"end": NOON + 61, "limit": 10}).json()["points"]
    assert [(p["time"] - NOON, p["score"]) for p in points] == [
        (0, None),
        (30, None),
        (60, None),
    ] and points[1]["value"] == 7
    hot = client.get("/api/data/oven", params={"start": NOON + 300 * 60}).json()["points"]
    assert [(p["value"], p["anomaly"]) for p in hot] == [(90.0, True)]
    every = client.get("/api/anomalies", params={"limit": 100}).json()["anomalies"]
    for query, keep in (
        ({"severity": "critical"}, lambda a: a["severity"] == "critical"),
        ({"alarms": True, "source": "oven"}, lambda a: a["alarm"]),
        ({"start": NOON + 300 * 60}, lambda a: a["step"] == 300),
        ({"after": every[0]["id"], "limit": 1}, lambda a: a is every[1]),
    ):
        assert client.get("/api/anomalies", params={"limit": 100, **query}).json()["anomalies"] == [
            a for a in every if keep(a)
        ]


def test_points_that_cannot_be_read_from_the_store_are_not_passed_off_as_all_there_are(
    kept, monkeypatch
):
    client = kept()
    calm_then_hot(client)
    monitor = client.service.monitor
    simulated = monitor.open("wave", STREAMS["wave"](seed=3), steps=100)

    def broken(*_):
        raise sqlite3.OperationalError("disk I/O error")

    whole = client.get("/api/data/oven", params={"limit": 500})
    assert len(whole.json()["points"]) == 301
    with monkeypatch.context() as patched:
        patched.setattr(reading, "last_chunks", broken)
        answer = client.get("/api/data/oven", params={"limit": 500})
        problem = refused(answer, 503)
        assert answer.headers["retry-after"] == "5"
        assert (
            "points of oven cannot be read" in problem["detail"]
            and "disk I/O error" in problem["detail"]
        )
        assert "make room; then ask again" in problem["detail"]
        end = simulated.end  # read first: more steps come while the answer is made
        assert len(client.get("/api/data/wave").json()["points"]) >= end > 0  # never stored
    assert client.get("/api/data/oven", params={"limit": 500}).json() == whole.json()


def test_anomalies_of_many_sources_read_no_more_rows_than_are_answered(kept, monkeypatch):
    client = kept()
    rng = np.random.default_rng(1)
    values = rng.normal(20, 0.5, 400)
    values[100::20] += 50.0
    for source in ("oven", "pump", "pipe"):
        push(client, 0, values.tolist(), source)
    read = []
    verify = reading.verify_row

    def counted(table, row):
        read.append(row)
        return verify(table, row)

    monkeypatch.setattr(reading, "verify_row", counted)
    every = client.get("/api/anomalies", params={"limit": 10_000}).json()["anomalies"]
    wanted = [each for each in every if each["source"] in ("oven", "pipe")]
    read.clear()
    asked = {"source": ["oven", "pipe"], "limit": 5}
    found = client.get("/api/anomalies", params=asked).json()["anomalies"]
    assert found == wanted[-5:] and len(read) == 5
    last_of_oven = [each["source"] for each in wanted].index("pipe") - 1
    asked["after"] = wanted[last_of_oven - 2]["id"]
    onwards = client.get("/api/anomalies", params=asked).json()["anomalies"]
    assert onwards == wanted[last_of_oven - 1 :][:5] and onwards[-1]["source"] == "pipe"


def test_labels_that_do_not_fit_are_refused(running):
    push(running, 0, [1.0, 2.0])
    word = {"source": "oven", "kind": "missed", "start": NOON}
    assert (
        running.post("/api/labels", json={**word, "end": "2026-01-05T01:00:00Z"}).status_code == 201
    )
    for change, field in (
        ({"kind": "odd"}, "kind"),
        ({"start": "noon"}, "start"),
        ({"end": NOON - 1}, "end"),
        ({"start": -1e300}, "start"),
        ({"end": 1e300}, "end"),
        ({"note": "\ud800"}, "note"),
        ({"feature": "x"}, "feature"),
    ):
        body = json.dumps({**word, **change})
        headers = {"content-type": "application/json"}
        answer = running.post("/api/labels", content=body, headers=headers)
        assert refused(answer, 422, field)
    assert refused(running.post("/api/labels", json={**word, "source": "x"}), 404, "source")


def test_a_maintenance_window_is_set_listed_and_taken_back(kept):
    client = kept()
    push(client, 0, np.random.default_rng(1).normal(20, 0.5, 300).tolist())
    span = {"source": "oven", "start": "2026-01-05T05:00:00Z", "end": NOON + 86_400, "note": "door"}
    answer = client.post("/api/maintenance", json=span)
    assert answer.status_code == 201
    window = answer.json()
    assert (window["source"], window["note"], window["id"]) == ("oven", "door", 1)
    assert client.get("/api/maintenance").json()["windows"] == [window]
    assert client.get("/api/maintenance", params={"source": "oven"}).json()["windows"] == [window]
    push(client, 300, [90.0])
    found = client.get("/api/anomalies").json()["anomalies"]
    assert found and not any(each["alarm"] for each in found)
    assert not client.get("/api/alerts").json()["incidents"]
    assert client.delete("/api/maintenance/1").json() == window
    assert refused(client.delete("/api/maintenance/1"), 404)
    assert [line["what"] for line in client.service.store.audit()] == [
        "took a maintenance window back",
        "set a maintenance window",
    ]
    for change, field in (({"end": NOON - 1e9}, "end"), ({"start": "soon"}, "start")):
        assert refused(client.post("/api/maintenance", json={**span, **change}), 422, field)
    assert refused(client.post("/api/maintenance", json={**span, "source": "x"}), 404, "source")


def test_the_routes_in_the_document_are_those_there_are():
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    assert filled(text) == text, "docs/api.md is stale: run `make docs`"


# --- wide answers


def test_a_wide_answer_is_limited_by_its_values_and_written_in_pieces(tmp_path, monkeypatch):
    names = [f"f{i}" for i in range(100)]
    monitor = Monitor({})
    x = np.random.default_rng(1).normal(size=(900, 100))
    monitor.submit("wide", np.arange(900.0), x, names)
    monitor.process_pushed()
    with served(monitor) as client:
        problem = refused(client.get("/api/data/wide", params={"limit": 20_001}), 422)
        assert "at most 20,000 points of 100 features" in problem["detail"]
        whole = client.get("/api/data/wide", params={"limit": 900}).json()["points"]
        assert [list(point["values"].values()) for point in whole] == x[-len(whole) :].tolist()
        for form in ("json", "ndjson", "csv"):
            one = client.get("/api/data/wide", params={"limit": 900, "format": form}).content
            with monkeypatch.context() as patch:
                patch.setattr(history, "PIECE_CELLS", 500)
                pieces = client.get("/api/data/wide", params={"limit": 900, "format": form})
            assert pieces.content == one


# --- sources that are removed


def test_a_source_is_removed_with_its_points_and_may_come_again(tmp_path):
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=1))}, store=store)
        monitor.start()
        with served(monitor) as client:
            client.service.store = store
            body = {"source": "oven", "time": list(range(300)), "value": [1.0] * 299 + [90.0]}
            assert client.post("/api/submit", json=body).json()["accepted"] == 300
            assert store.anomalies(reading.AnomalyQuery(("oven",)))
            assert client.delete("/api/streams/oven").json() == {"removed": "oven"}
            refused(client.get("/api/streams/oven"), 404)
            assert store.anomalies(reading.AnomalyQuery(("oven",))) == []
            assert store.points("oven") is None and store.pushed_streams() == []
            assert store.audit(1)[0]["what"] == "remove" and store.audit(1)[0]["stream"] == "oven"
            assert client.post("/api/submit", json=body).json()["accepted"] == 300, "as if new"
            refused(client.delete("/api/streams/wave"), 422)
            refused(client.delete("/api/streams/nothing"), 404)
        monitor.stop()
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        assert [name for name, *_ in store.pushed_streams()] == ["oven"]


def test_many_names_fill_the_table_only_until_they_are_removed():
    monitor = Monitor({}, limits=Limits(streams=5))
    monitor.start()
    with served(monitor) as client:
        for name in "abcde":
            client.post("/api/submit", json={"source": name, "time": 1, "value": 1}).json()
        full = client.post("/api/submit", json={"source": "f", "time": 1, "value": 1})
        assert "at most 5 pushed sources" in refused(full, 422)["detail"]
        client.delete("/api/streams/c")
        again = client.post("/api/submit", json={"source": "f", "time": 1, "value": 1})
        assert again.json()["accepted"] == 1
    monitor.stop()


def test_one_token_creates_only_so_many_sources_also_after_a_restart(tmp_path):
    names = {"meter": "push", "scada": "push", "ann": "operate"}
    tokens = Tokens(
        Token(role, hash_secret(f"the secret token of {name}"), name)
        for name, role in names.items()
    )
    limits = Limits(streams=10, client_streams=3)

    def bearer(name):
        return {"authorization": f"Bearer the secret token of {name}"}

    def push(client, name, *sources):
        body = [{"source": source, "time": 1, "value": 1} for source in sources]
        return client.post("/api/submit", json=body, headers=bearer(name))

    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monitor = Monitor({}, store=store, limits=limits)
        monitor.start()
        with served(monitor, tokens=tokens) as client:
            assert push(client, "meter", "a", "b", "c").json()["accepted"] == 3
            error = refused(push(client, "meter", "d"), 403, "source")
            assert error["wanted"].startswith("at most 3 sources created by token meter")
            assert "remove some with DELETE" in error["came"]
            assert push(client, "meter", "a").json()["repeated"] == 1, "a known one is no new one"
            several = refused(push(client, "meter", "a", "e", "f"), 403)
            assert several["detail"] == "2 of 3 sources refused"
            assert push(client, "scada", "d", "e").json()["accepted"] == 2, "another token may"
            removed = client.delete("/api/streams/b", headers=bearer("ann"))
            assert removed.status_code == 200
            assert push(client, "meter", "f").json()["accepted"] == 1
            status = client.get("/api/status", headers=bearer("ann")).json()
            assert status["sources"] == {"pushed": 5, "series": 0, "forgotten": 0, "refused": 3}
        monitor.stop()
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monitor = Monitor({}, store=store, limits=limits)
        monitor.start()
        with served(monitor, tokens=tokens) as client:
            refused(push(client, "meter", "g"), 403)
            assert push(client, "scada", "g").json()["accepted"] == 1
        monitor.stop()


def test_without_tokens_one_address_creates_only_so_many_sources():
    monitor = Monitor({}, limits=Limits(client_streams=2))
    monitor.start()
    with served(monitor) as client:
        for name in "ab":
            client.post("/api/submit", json={"source": name, "time": 1, "value": 1}).json()
        third = client.post("/api/submit", json={"source": "c", "time": 1, "value": 1})
        assert "created by address testclient" in refused(third, 403, "source")["wanted"]
        monitor.submit("c", np.ones(1), np.ones(1))  # this program itself
    monitor.stop()


class Wall:
    """The clock on the wall, in seconds since the epoch, which a test moves."""

    now = 1e9

    def __call__(self):
        return self.now


def forgetful_service(store, wall):
    """Return a service that forgets sources after 100 s, whose loop the test plays."""
    limits = Limits(silent_seconds=100.0)
    return assemble_service(lambda _: Monitor({}, store=store, wall=wall, limits=limits), store)


def test_a_silent_source_is_forgotten_counted_and_in_the_audit_log(tmp_path):
    wall = Wall()
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        service = forgetful_service(store, wall)
        monitor = service.monitor
        monitor.add_source("never sent", ["value"])  # the operator wants it
        for name in ("oven", "hall"):
            monitor.submit(name, np.arange(300.0), np.ones(300))
        monitor.process_pushed()
        wall.now += 99.0
        monitor.beat()
        assert set(monitor.feeds) == {"never sent", "oven", "hall"}
        monitor.submit("hall", np.ones(1), np.ones(1))  # a repeat is no silence
        wall.now += 2.0
        monitor.next_forgetting = 0.0
        monitor.beat()
        assert set(monitor.feeds) == {"never sent", "hall"}
        counts = {"pushed": 2, "series": 0, "forgotten": 1, "refused": 0}
        assert status_report(service)["sources"] == counts
        line = store.audit(1)[0]
        assert (line["who"], line["what"], line["stream"]) == ("redline", "forget", "oven")
        assert len(store.points("oven").time) == 300, "the history stays"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_forgotten_source_goes_on_where_it_was_when_it_sends_again(tmp_path, restarted):
    wall = Wall()
    store = SqliteStore(tmp_path / "redline.db")
    monitor = forgetful_service(store, wall).monitor
    columns = ("temp", "door")
    monitor.submit("oven", np.arange(300.0), np.ones((300, 2)), columns, "token meter")
    monitor.process_pushed()
    monitor.apply("oven", Settings("EWMA", 40, 3.0))
    monitor.process_pushed()
    wall.now += 101.0
    monitor.beat()
    if restarted:
        store.close()
        store = SqliteStore(tmp_path / "redline.db")
        monitor = forgetful_service(store, wall).monitor
    assert not monitor.feeds and set(monitor.forgotten) == {"oven"}
    monitor.limits = monitor.limits._replace(create=False)  # it is no new source
    receipt = monitor.submit("oven", np.array([300.0]), np.ones((1, 1)), ("temp",), "token x")
    monitor.process_pushed()
    assert receipt.result(timeout=0).accepted == 1
    feed = monitor.feeds["oven"]
    assert feed.applied == Settings("EWMA", 40, 3.0) and feed.end == 301
    assert feed.stream.names == columns and feed.creator == "token meter"
    assert len(store.points("oven").time) == 301 and not monitor.forgotten
    assert not any(source.forgotten for source in store.pushed_streams())
    store.close()


def test_a_forgotten_source_can_be_removed_for_good(tmp_path):
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monitor = Monitor({}, store=store, limits=Limits(silent_seconds=1.0))
        monitor.submit("oven", np.arange(3.0), np.ones(3))
        monitor.process_pushed()
        monitor.feeds["oven"].submitted -= 2.0
        monitor.beat()
        assert "oven" in monitor.forgotten
        monitor.start()
        with served(monitor) as client:
            refused(client.get("/api/streams/oven"), 404)
            assert client.delete("/api/streams/oven").json() == {"removed": "oven"}
            assert store.points("oven") is None and not monitor.forgotten
            refused(client.delete("/api/streams/oven"), 404)
        monitor.stop()


def test_features_have_a_limit_over_all_sources():
    monitor = Monitor({}, limits=Limits(features=10))
    monitor.submit("a", np.arange(3.0), np.ones((3, 6)))
    with pytest.raises(SubmissionRefused, match="at most 10 features of all pushed sources"):
        monitor.submit("b", np.arange(3.0), np.ones((3, 5)))
    monitor.submit("b", np.arange(3.0), np.ones((3, 4)))


def test_a_list_of_streams_restores_only_some_of_them(tmp_path):
    names = [f"s{i}" for i in range(120)]
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        older = Monitor({}, store=store)
        for name in names:
            older.submit(name, np.arange(3.0), np.ones(3))
        older.process_pushed()
    with closing(SqliteStore(tmp_path / "redline.db")) as store:
        monitor = Monitor({}, store=store)
        monitor.start()
        with served(monitor) as client:
            listed = client.get("/api/streams", params={"limit": 1_000}).json()["streams"]
        asleep = sum(feed.ready for feed in monitor.feeds.values())
        monitor.stop()
    assert len(listed) == 120 and asleep <= 50
