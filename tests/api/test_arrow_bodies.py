"""Streams of Arrow IPC as bodies of POST /api/submit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from redline.api.routes.submit import ARROW_TYPE
from redline.api.server import build_server
from redline.api.service import Service, assemble_service
from redline.engine.monitor import Monitor
from redline.sources.directory import SeriesDirectory
from redline.sources.point_bodies import parse_arrow
from tests.sources.arrow_streams import MS, START, point_batch, write_stream

ARROW = {"content-type": ARROW_TYPE}


@pytest.fixture
def service() -> Service:
    return assemble_service(lambda store: Monitor({}, wall=lambda: START + 86_400.0, store=store))


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(build_server(service), base_url="http://localhost") as client:
        yield client


def sent(client: TestClient, body: bytes, headers: dict[str, str] = ARROW) -> Any:
    return client.post("/api/submit", content=body, headers=headers)


def test_points_are_committed_and_counted_as_in_any_other_form(client, service):
    body = write_stream(point_batch())
    assert sent(client, body).json() == {"accepted": 2, "repeated": 0, "late": 0, "sources": {}}
    assert sent(client, body, {}).json()["repeated"] == 2, "known by its first bytes"
    wide = pa.record_batch({"time": pa.array([START * 1000 + 60_000], MS), "oven": [4]})
    assert sent(client, write_stream(wide)).json()["accepted"] == 1
    assert service.monitor.series.names() == ["oven", "pump"]
    feed = service.feed("oven")
    assert feed.tape.read("x", feed.tape.first, feed.end)[:, 0].tolist() == [20.5, 4.0]


def test_a_wrong_body_is_a_problem_that_names_the_part(client, service):
    for body, field in (
        (write_stream(point_batch())[:-20], "body"),
        (b"{}", "body"),
        (b"", "body"),
        (write_stream(point_batch(("a", None))), "source"),
        (write_stream(point_batch(value=("a", "b"))), "value"),
        (write_stream(point_batch((), (), (), (pa.utf8(), MS, pa.float64()))), "body"),
    ):
        answer = sent(client, body)
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == field
    assert not service.monitor.series.names()


def test_a_wrong_name_a_late_time_and_a_large_value_are_refused_and_the_rest_is_taken(client):
    names = ("ok", "wave", "ok", "big")
    batch = point_batch(names, (START, START, START * 10, START), (1, 2, 3, 1e80))
    answer = sent(client, write_stream(batch))
    assert answer.status_code == 422 and answer.json()["accepted"] == 1
    assert {error["field"] for error in answer.json()["errors"]} == {"source", "time", "value"}


def test_a_library_that_is_missing_is_a_problem_that_says_what_to_install(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    answer = sent(client, write_stream(point_batch(), compression="zstd"))
    assert answer.status_code == 415 and "pip install 'redline[arrow]'" in answer.json()["detail"]


def test_a_name_of_a_dictionary_that_no_row_has_makes_no_series():
    directory = SeriesDirectory()
    source = pa.DictionaryArray.from_arrays(pa.array([2, 0], pa.int8()), ["c", "", "a"])
    batch = parse_arrow(write_stream(point_batch(source)), directory)
    assert [directory.texts[number] for number in batch.series] == ["a", "c"]
    assert len(directory.texts) == 2 and not batch.refusals
