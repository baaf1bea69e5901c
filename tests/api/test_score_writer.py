"""The score writer: which scores are written, as what, and what becomes of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from starlette.testclient import TestClient

from redline.api import score_writer
from redline.api.addresses import ServerAnswer, post_body
from redline.api.score_writer import WRITE_HEADERS, parse_write_address
from redline.api.server import build_server
from redline.api.service import Service, assemble_service, server_options
from redline.engine.monitor import Monitor
from redline.settings import ServerSettings
from redline.sources.directory import SeriesDirectory
from redline.sources.prometheus import DEFAULT_LIMITS, LabelledReader, read_remote_write
from redline.sources.pushed import SubmissionRefused
from redline.sources.score_messages import ScoredPoints, encode_scores, score_labels, stale_points

START = 1_767_571_200  # seconds since the Unix epoch
ADDRESS = "http://ann:a-secret@prometheus:9090"
LOAD = 'load{host="a"}'
Received = dict[str, list[tuple[int, float]]]


class Receiver:
    """What a Prometheus would have got, and what it answers."""

    def __init__(self, *answers: ServerAnswer | OSError) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.urls: list[str] = []
        self.directory = SeriesDirectory()
        self.series: Received = {}
        self.ended: dict[str, float] = {}

    def post(self, url: str, body: bytes) -> ServerAnswer:
        self.urls.append(url)
        self.bodies.append(body)
        answer = self.answers.pop(0) if self.answers else ServerAnswer(204, 0.0, "")
        if isinstance(answer, OSError):
            raise answer
        if answer.status < 300:
            batch = read_remote_write(body, self.directory)
            assert not batch.refusals and set(batch.left_out) <= {"stale marker"}
            for number, time, value in zip(*map(np.ndarray.tolist, batch[:3])):
                name = str(self.directory.texts[number])
                self.series.setdefault(name, []).append((int(time - START), value))
            for number, time in zip(batch.ended.tolist(), batch.ended_time.tolist()):
                self.ended[str(self.directory.texts[number])] = round(time - START, 3)
        return answer


def made(receiver: Receiver, *selectors: str) -> Service:
    """Return a service whose scores go to a receiver, when the test says so."""
    settings = ServerSettings(remote_write=ADDRESS, remote_write_select=selectors)
    options = server_options(settings, {})
    wall = START + 10_000.0
    service = assemble_service(
        lambda store: Monitor({}, wall=lambda: wall, store=store), None, options
    )
    service.score_writer.post = receiver.post
    service.monitor.process_pushed()
    return service


def push(service: Service, first: int, last: int, **peaks: float) -> None:
    """Push a point a second of two series; peaks: of `load`, by the second as "s150"."""
    directory = service.doors.directory
    numbers = np.array([directory.number(LOAD), directory.number("calm")])
    for at in range(first, last):
        values = np.array([peaks.get(f"s{at}", at % 3), at % 3], float)
        service.monitor.submit_series(numbers, np.full(2, START + float(at)), values)
        service.monitor.process_pushed()


def write_all(service: Service) -> None:
    while service.score_writer.waiting:
        service.score_writer.send_waiting()


def test_scores_of_a_series_in_alarm_are_written_until_its_incident_is_over():
    receiver = Receiver()
    service = made(receiver)
    push(service, 0, 150)
    assert not service.score_writer.queue, "nothing is in alarm"
    push(service, 150, 175, s150=90)
    write_all(service)
    score = receiver.series['redline_score{host="a",metric="load"}']
    anomaly = receiver.series['redline_anomaly{host="a",metric="load"}']
    assert set(receiver.series) == {
        'redline_score{host="a",metric="load"}',
        'redline_anomaly{host="a",metric="load"}',
    }
    assert score[0][0] == 150 and score[0][1] > 7 and anomaly[0] == (150, 1)
    assert [time for time, _ in score] == [time for time, _ in anomaly] == list(range(150, 171))
    assert {value for _, value in anomaly[1:]} == {0}
    assert receiver.ended == dict.fromkeys(receiver.series, 170.001), "the incident is over"
    assert service.score_writer.report()["counts"]["sent"] == len(score) + 1


def test_a_person_ends_an_incident_and_the_scores_end_with_it():
    receiver = Receiver()
    service = made(receiver)
    push(service, 0, 155, s150=90)
    (incident,) = service.incidents.items
    service.incidents.resolve(incident, "ann", START + 10_000.0)
    push(service, 155, 156)
    service.score_writer.on_batches([], True)
    write_all(service)
    assert set(receiver.ended.values()) == {154.001}
    assert not service.score_writer.written


def test_a_selection_is_written_always_and_once():
    receiver = Receiver()
    service = made(receiver, '{host=~"a|b"}', "redline_score")
    push(service, 0, 155, s150=90)
    write_all(service)
    score = receiver.series['redline_score{host="a",metric="load"}']
    times = [time for time, _ in score]
    assert times == list(range(times[0], 155)) and times[0] < 100
    assert len(receiver.series) == 2 and not receiver.ended
    flags = receiver.series['redline_anomaly{host="a",metric="load"}']
    assert [time for time, flag in flags if flag] == [150]


def test_scores_of_scores_are_never_written():
    receiver = Receiver()
    service = made(receiver, '{metric="load"}')
    number = service.doors.directory.number('redline_score{metric="load"}')
    for at in range(155):
        value = np.array([90.0 if at == 150 else at % 3])
        service.monitor.submit_series(np.array([number]), np.array([START + float(at)]), value)
        service.monitor.process_pushed()
    assert service.incidents.live_streams() and not service.score_writer.queue


def points(size: int) -> ScoredPoints:
    return ScoredPoints(START * 1000 + np.arange(size), np.ones(size), np.zeros(size, bool))


def test_what_does_not_fit_is_dropped_the_oldest_first_and_counted(monkeypatch):
    monkeypatch.setattr(score_writer, "MAX_WAITING_SCORES", 10)
    receiver = Receiver()
    service = made(receiver)
    writer = service.score_writer
    for name in "abc":
        writer._put(name, points(4))
    assert writer.waiting == 8 and [each.name for each in writer.queue] == ["b", "c"]
    writer.stop()
    assert writer.report()["counts"]["dropped"] == 12 and not writer.waiting
    page = TestClient(build_server(service), base_url="http://localhost").get("/metrics").text
    assert 'redline_written_points_total{outcome="dropped"} 12' in page
    assert "redline_write_queue_points 0" in page


def test_a_request_holds_so_many_points(monkeypatch):
    monkeypatch.setattr(score_writer, "REQUEST_SCORES", 5)
    receiver = Receiver()
    writer = made(receiver).score_writer
    for name in "abc":
        writer._put(name, points(4))
    writer.send_waiting()
    assert len(receiver.series) == 4 and writer.waiting == 4


@pytest.mark.parametrize(
    ("answers", "outcome", "tries"),
    [
        ([ServerAnswer(503, 0, ""), OSError("refused"), ServerAnswer(429, 7, "")], "sent", 4),
        ([ServerAnswer(400, 0, "out of order")], "rejected", 1),
        ([ServerAnswer(302, 0, "")], "rejected", 1),
        ([ServerAnswer(500, 0, "a-secret")] * 20, "failed", 9),
    ],
)
def test_what_may_help_is_tried_again_and_all_is_counted(
    answers, outcome, tries, monkeypatch, caplog
):
    receiver = Receiver(*answers)
    writer = made(receiver).score_writer
    pauses: list[float] = []
    monkeypatch.setattr(writer.stopping, "wait", pauses.append)
    with caplog.at_level(logging.WARNING, "redline"):
        writer._put("a", points(3))
        writer.send_waiting()
    report = writer.report()
    assert report["counts"] == dict.fromkeys(report["counts"], 0) | {outcome: 3}
    assert len(receiver.bodies) == tries and len(set(receiver.bodies)) == 1
    assert (
        pauses == list((1.0, 2.0, 7.0) if outcome == "sent" else score_writer.PAUSES)[: tries - 1]
    )
    assert len(caplog.records) == 1, "once, however often it fails"
    assert "a-secret" not in f"{caplog.text} {report}" and report["to"] == "prometheus:9090"


def test_the_wire_format_is_that_of_prometheus():
    marker = stale_points(5)
    times = np.array([-5, 0, START * 1000])
    scored = ScoredPoints(times, np.array([0.0, 1.5, 100.0]), np.array([False, True, False]))
    directory = SeriesDirectory()
    data = encode_scores({'{"a b","c.d"="e"}': [scored], "metric": [marker]})
    samples = LabelledReader(data, directory, DEFAULT_LIMITS).walk(look_up=False)
    names = [directory.texts[number] for number in samples.series.tolist()]
    rows = list(zip(names, samples.time.tolist(), samples.value.tolist()))
    labels = '{_c_d="e",metric="a b"}'
    for metric, values, own in (
        ("redline_score", (0.0, 1.5, 100.0), rows[:3]),
        ("redline_anomaly", (0.0, 1.0, 0.0), rows[3:6]),
    ):
        assert own == [(metric + labels, *pair) for pair in zip(times.tolist(), values)]
    assert [row[:2] for row in rows[6:]] == [
        ('redline_score{metric="metric"}', 5),
        ('redline_anomaly{metric="metric"}', 5),
    ]


def test_labels_are_those_of_the_series_and_its_metric_in_order():
    labels = score_labels('load{Zone="1",exported_metric="x",host="a",metric="y"}', "redline_score")
    assert labels == [
        ("Zone", "1"),
        ("__name__", "redline_score"),
        ("exported_exported_metric", "y"),
        ("exported_metric", "x"),
        ("host", "a"),
        ("metric", "load"),
    ]


class Prometheus(BaseHTTPRequestHandler):
    """Takes what is written with the right name and password; moved for any other path."""

    seen: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Prometheus.seen.append((self.path, dict(self.headers), body))
        status = 204 if self.path == "/api/v1/write" else 302
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/api/v1/write")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Prometheus.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_request_as_it_is_sent(port):
    url = parse_write_address(f"http://ann:secret@127.0.0.1:{port}")
    assert post_body(url, b"body", WRITE_HEADERS, 5.0).status == 204
    ((path, headers, body),) = Prometheus.seen
    assert path == "/api/v1/write" and body == b"body"
    assert headers["Authorization"] == "Basic YW5uOnNlY3JldA=="
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent.items() >= {name.lower(): value for name, value in WRITE_HEADERS.items()}.items()
    assert post_body(f"http://127.0.0.1:{port}/other", b"", {}, 5.0).status == 302
    assert len(Prometheus.seen) == 2, "no redirect is followed"
    with pytest.raises(OSError, match="refused"):
        post_body("http://127.0.0.1:1/", b"", {}, 5.0)


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://a/b", "http://", "http://ann:pw@:x/"])
def test_a_wrong_address_ends_the_start_without_saying_it(url, monkeypatch):
    with pytest.raises(SubmissionRefused, match="remote-write: wanted an address") as caught:
        server_options(ServerSettings(remote_write=url), {})
    assert "pw" not in str(caught.value)
    with pytest.raises(ValueError, match="selector"):
        server_options(ServerSettings(remote_write_select=("{",)), {})


def test_the_library_that_is_missing_is_named_at_the_start(monkeypatch):
    monkeypatch.setattr("redline.api.service.has_snappy", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'redline\[prometheus\]'"):
        server_options(ServerSettings(remote_write=ADDRESS), {})


def test_only_what_is_in_alarm_and_no_simulator_is_written(monkeypatch):
    service = made(Receiver())
    batches = []
    service.monitor.listeners.insert(0, lambda found, committed: batches.extend(found))
    push(service, 0, 151, s150=90)
    writer = service.score_writer
    writer.written.clear()
    writer.stop()
    monkeypatch.setattr(service.incidents, "live_of", lambda name: None)
    writer.on_batches(batches, True)
    assert batches and not writer.queue, "an anomaly, but no incident"
    monkeypatch.setattr(service.incidents, "live_of", lambda name: object())
    writer.on_batches([batch._replace(stored_apart=False) for batch in batches], True)
    writer.on_batches([batch._replace(live=False) for batch in batches], True)
    assert not writer.queue, "a simulator's time is not that of a Prometheus"
    writer.on_batches(batches, True)
    assert writer.waiting == 1
