"""What a Prometheus reads of Redline itself: read back by the reader of such pages."""

from __future__ import annotations

from starlette.testclient import TestClient

from redline.api.routes.metrics import Metric, format_metrics
from redline.api.server import build_server
from redline.api.service import assemble_service
from redline.engine.monitor import Monitor
from redline.sources.directory import SeriesDirectory
from redline.sources.exposition import read_exposition
from redline.sources.series import parse_series

START = 1_767_571_200  # seconds since the Unix epoch
NAMES = ('load{host="a\\"b"}', "calm")


def read(page: bytes) -> tuple[dict[str, float], dict[str, str]]:
    directory = SeriesDirectory()
    batch = read_exposition(page, directory, now=float(START))
    names = [str(directory.texts[number]) for number in batch.series]
    return dict(zip(names, batch.value.tolist())), dict(batch.types)


def test_counts_and_live_incidents_are_read_back() -> None:
    service = assemble_service(
        lambda store: Monitor({}, wall=lambda: START + 10_000.0, store=store)
    )
    with TestClient(build_server(service), base_url="http://localhost") as client:
        rows = [
            {"time": START + at, "values": {NAMES[0]: 90 if at == 150 else at % 3, "calm": at % 3}}
            for at in range(151)
        ]
        assert client.post("/api/submit", json=rows).json()["accepted"] == 302
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found, types = read(answer.content)
    assert found["redline_streams"] == 2 and found["redline_points_total"] == 302
    assert found["redline_anomalies_total"] == found["redline_incidents"] == 1
    assert types["redline_points_total"] == "counter" and types["redline_ready"] == "gauge"
    (scored,) = [name for name in found if name.startswith("redline_incident_score")]
    assert parse_series(scored).labels == (("severity", "critical"), ("stream", NAMES[0]))
    assert found[scored] > 7


def test_any_text_of_a_label_comes_back() -> None:
    text = 'a"b\\c\nd{e}=,é'
    page = format_metrics([Metric("x", "gauge", "X.", [({"stream": text}, 1.5)])])
    directory = SeriesDirectory()
    batch = read_exposition(page.encode(), directory, now=float(START))
    assert directory.key(int(batch.series[0])).labels == (("stream", text),)
