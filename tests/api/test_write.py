"""Samples from programs that know other formats: each series is a stream of its own."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import cramjam
import pytest
from starlette.testclient import TestClient

from redline.api.server import build_server
from redline.api.service import Service, assemble_service, server_options
from redline.engine.monitor import Limits, Monitor
from redline.settings import ServerSettings
from redline.sources.directory import SeriesDirectory
from redline.sources.prometheus import WRITE_V2
from redline.storage.sqlite import SqliteStore
from tests.sources.remote_write_messages import Series, encode_v1, encode_v2

START = 1_767_571_200  # seconds since the epoch
NOW = START + 86_400.0
UP = 'up{job="web"}'
PROTOBUF = {"content-type": "application/x-protobuf", "content-encoding": "snappy"}
LABELS = {"__name__": "up", "job": "web"}
REQUESTS = {"__name__": "requests_total", "job": "web"}


def made(kept: SqliteStore | None = None, **more: Any) -> Service:
    return assemble_service(lambda store: Monitor({}, wall=lambda: NOW, store=store, **more), kept)


@pytest.fixture
def service() -> Service:
    return made()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(build_server(service), base_url="http://localhost") as client:
        yield client


def sent(client: TestClient, series: list[Series], version: str = "") -> Any:
    message = encode_v2(series) if version else encode_v1(series)
    kind = f"application/x-protobuf;proto={version}" if version else PROTOBUF["content-type"]
    body = bytes(cramjam.snappy.compress_raw(message))
    return client.post("/api/v1/write", content=body, headers={**PROTOBUF, "content-type": kind})


def points(service: Service, name: str) -> list[tuple[float, float]]:
    feed = service.feed(name)
    with feed.lock:
        time = feed.tape.read("time", feed.tape.first, feed.end)[:, 0]
        x = feed.tape.read("x", feed.tape.first, feed.end)[:, 0]
    return list(zip((time - START).tolist(), x.tolist()))


def samples(*pairs: tuple[float, float]) -> list[tuple[int, float]]:
    return [(int((START + at) * 1000), value) for at, value in pairs]


@pytest.mark.parametrize("version", ["", WRITE_V2])
def test_each_series_of_remote_write_is_a_source(client, service, version):
    answer = sent(client, [(LABELS, samples((0, 1.0), (15, 0.0)))], version)
    assert answer.status_code == 204 and not answer.content
    assert answer.headers["x-prometheus-remote-write-samples-written"] == "2"
    assert points(service, UP) == [(0, 1.0), (15, 0.0)]
    assert sent(client, [(LABELS, samples((15, 0.0)))], version).status_code == 204
    assert service.monitor.series.counts["repeated"] == 1


def test_a_counter_is_its_rate_and_what_a_full_queue_refused_can_be_sent_again(
    client, service, monkeypatch
):
    sent(client, [(REQUESTS, samples((0, 100.0), (10, 150.0)))])
    name = 'requests_total{job="web"}'
    assert points(service, name) == [(10, 5.0)], "the first sample has no rate"
    monkeypatch.setattr(service.monitor.budget, "limit", 0)
    full = sent(client, [(REQUESTS, samples((20, 250.0)))])
    assert full.status_code == 429 and full.headers["retry-after"] == "1"
    monkeypatch.undo()
    assert sent(client, [(REQUESTS, samples((20, 250.0)))]).status_code == 204
    assert points(service, name) == [(10, 5.0), (20, 10.0)]


def test_what_can_never_be_taken_is_named_and_the_rest_is_written(client, service):
    odd = {"__name__": "odd", "name": "x" * 1_000, "other": "x" * 1_000}
    answer = sent(client, [(odd, samples((0, 1.0))), (LABELS, samples((0, 1.0)))])
    assert answer.status_code == 400 and answer.json()["written"] == 1
    assert answer.json()["errors"][0]["field"] == "series"
    assert points(service, UP) == [(0, 1.0)]


def test_what_is_left_out_is_counted(client):
    late = [(LABELS, samples((0, 1.0), (10 * 86_400, 1.0), (15, float("nan"))))]
    assert sent(client, late).status_code == 204
    doors = client.get("/api/status").json()["doors"]
    assert doors["left_out"] == {"time out of range": 1} and doors["series"] == 1


def test_a_body_that_is_none_and_one_in_an_unknown_message_are_refused(client):
    assert client.post("/api/v1/write", content=b"\xff" * 9, headers=PROTOBUF).status_code == 422
    assert sent(client, [], "io.prometheus.write.v9.Request").status_code == 422


def test_one_setting_picks_which_series_are_taken():
    settings = ServerSettings(select=('{__name__="up",job!="db"}',))
    service = made(directory=SeriesDirectory.from_settings(settings))
    with TestClient(build_server(service), base_url="http://localhost") as client:
        others = [({**LABELS, "job": "db"}, samples((0, 1.0))), (REQUESTS, samples((0, 1.0)))]
        assert sent(client, [*others, (LABELS, samples((0, 1.0)))]).status_code == 204
        assert service.monitor.series.names() == [UP]
        left_out = client.get("/api/status").json()["doors"]["left_out"]
        assert left_out == {"not selected": 2}


def test_a_wrong_selector_ends_the_start_with_a_sentence():
    with pytest.raises(ValueError, match="selector"):
        server_options(ServerSettings(select=("{job=",)), {})


def test_line_protocol_is_taken_plain_and_packed(client, service):
    line = f"room,host=a temperature=20.5,door=t {START}\nroom,host=a temperature=21 {START + 60}\n"
    assert client.post("/api/v2/write?precision=s", content=line).status_code == 204
    packed = gzip.compress(f"room,host=a temperature=22 {START + 120}".encode())
    headers = {"content-encoding": "gzip", "authorization": "Token any"}
    sent = client.post("/api/v2/write?precision=s&org=o&bucket=b", content=packed, headers=headers)
    assert sent.status_code == 204
    assert points(service, 'room.temperature{host="a"}') == [(0, 20.5), (60, 21.0), (120, 22.0)]
    assert points(service, 'room.door{host="a"}') == [(0, 1.0)]


def test_a_wrong_line_is_named_and_the_others_are_written(client, service):
    lines = f"room temperature=20 {START}\nroom temperature= {START}\n"
    answer = client.post("/api/v2/write?precision=s", content=lines)
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "line 2"
    assert points(service, "room.temperature") == [(0, 20.0)]


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"a b=1")[:-4], gzip.compress(bytes(2**27))],
    ids=["none", "cut", "too large"],
)
def test_a_packed_body_that_is_cut_wrong_or_too_large_is_refused(client, body):
    answer = client.post("/api/v2/write", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 422


def test_the_wide_form_has_a_number_for_each_of_many_sources(client, service):
    body = {"time": START, "values": {"oven": 20.5, "pump": None, "wave": 1.0}}
    for accepted in (2, 0):  # what is refused once is refused again
        answer = client.post("/api/submit", json=body)
        assert answer.status_code == 422, "one name is a tab of the page"
        assert answer.json()["accepted"] == accepted
    assert points(service, "oven") == [(0, 20.5)]
    rows = [{"time": START + at, "values": {"oven": at}} for at in (60, 120)]
    assert client.post("/api/submit", json=rows).json()["accepted"] == 2
    assert points(service, "oven") == [(0, 20.5), (60, 60.0), (120, 120.0)]


def test_series_beyond_the_limit_are_refused_and_the_others_go_on():
    service = made(directory=SeriesDirectory(max_series=1))
    with TestClient(build_server(service), base_url="http://localhost") as client:
        both = [(LABELS, samples((0, 1.0))), ({"__name__": "other"}, samples((0, 1.0)))]
        answer = sent(client, both)
        assert answer.status_code == 400 and answer.json()["written"] == 1
        assert "at most 1 series" in answer.json()["errors"][0]["wanted"]
        answer = client.post("/api/submit", json={"time": START, "values": {"a": 1, UP: 2}})
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "source"


def test_one_client_creates_only_so_many_series():
    limits = Limits(client_series=2)
    service = made(limits=limits)
    with TestClient(build_server(service), base_url="http://localhost") as client:
        assert client.post(
            "/api/submit", json={"time": START, "values": {"a": 1, "b": 2}}
        ).is_success
        answer = client.post("/api/submit", json={"time": START + 1, "values": {"b": 1, "c": 2}})
        assert answer.json()["accepted"] == 1 and "by the setting client-series" in answer.text
        assert service.monitor.series.names() == ["a", "b"]
        assert client.delete("/api/streams/a").is_success
        assert client.post("/api/submit", json={"time": START, "values": {"c": 2}}).is_success


def test_a_time_ahead_is_refused_and_the_others_are_taken():
    service = made()
    with TestClient(build_server(service), base_url="http://localhost") as client:
        rows = [{"time": at, "values": {"a": 1}} for at in (START, NOW + 3_600)]
        answer = client.post("/api/submit", json=rows)
        assert answer.status_code == 422 and answer.json()["accepted"] == 1
        assert answer.json()["errors"][0]["field"] == "time"


def test_a_series_is_described_configured_labelled_and_removed(tmp_path):
    store = SqliteStore(tmp_path / "redline.db")
    service = made(store)
    with TestClient(build_server(service), base_url="http://localhost") as client:
        use_series(client)
    store.close()


def use_series(client: TestClient) -> None:
    """Send a series, and do with it what can be done with a stream."""
    rows = [{"time": START + at, "values": {"oven": at % 3}} for at in range(300)]
    assert client.post("/api/submit", json=rows).json()["accepted"] == 300
    listed = client.get("/api/streams").json()["streams"]
    assert [(each["source"], each["end"], each["kind"]) for each in listed] == [
        ("oven", 300, "pushed")
    ]
    change = client.post("/api/configure", json={"source": "oven", "threshold": 5})
    assert change.status_code == 200, change.text
    rows = [{"time": START + 300, "values": {"oven": 90}}]
    assert client.post("/api/submit", json=rows).json()["accepted"] == 1
    (anomaly,) = client.get("/api/anomalies?source=oven&limit=1").json()["anomalies"]
    assert (anomaly["source"], anomaly["step"], anomaly["threshold"]) == ("oven", 300, 5.0)
    label = {"source": "oven", "start": START + 300, "end": START + 300, "kind": "expected"}
    assert client.post("/api/labels", json=label).status_code == 201
    assert client.get("/api/streams/oven").json()["applied"]["threshold"] == 5
    assert client.get("/api/status").json()["sources"]["series"] == 1
    assert client.delete("/api/streams/oven").json() == {"removed": "oven"}
    assert client.get("/api/streams/oven").status_code == 404
