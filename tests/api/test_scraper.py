"""The scraper against a real HTTP server: pages, their counters, and targets that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from redline.api.doors import Doors
from redline.api.scraper import Scraper, ScrapeTarget, fetch_page, parse_targets
from redline.engine.monitor import Monitor
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import SubmissionRefused

START = 1_767_571_200.0  # seconds since the Unix epoch


class Exporter(BaseHTTPRequestHandler):
    """Answers /metrics with a page that counts its readings, any other path with an error."""

    readings = 0

    def do_GET(self) -> None:
        if self.path == "/secret" and self.headers["Authorization"] != "Basic YW5uOnNlY3JldA==":
            self.send_error(401)
            return
        if self.path not in ("/metrics", "/secret"):
            self.send_error(503)
            return
        Exporter.readings += 1
        page = f"# TYPE hits_total counter\nhits_total {30 * Exporter.readings}\nload 0.5\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Exporter.readings = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Played:
    """A scraper whose clock and loop the test plays."""

    def __init__(self, *urls: str) -> None:
        self.now = START
        self.monitor = Monitor({}, wall=lambda: self.now)
        doors = Doors(SeriesDirectory())
        self.monitor = Monitor({}, wall=lambda: self.now, directory=doors.directory)
        self.scraper = Scraper(parse_targets(urls), 15.0, self.monitor, doors, fetch_page)

    def scrape(self) -> ScrapeTarget:
        (target,) = self.scraper.targets
        self.scraper.scrape(target)
        while self.monitor.series.has_work:
            self.monitor.process_pushed()
        self.now += 15.0
        return target

    def values(self, metric: str) -> list[float]:
        labels = dict(self.scraper.targets[0].labels)
        name = f'{metric}{{instance="{labels["instance"]}",job="scrape"}}'
        number = self.monitor.series.find(name)
        if number is None:
            return []
        return np.round(self.monitor.series.read_past(number, 100).value, 6).tolist()


def test_a_page_is_read_again_and_again_and_counters_become_rates(address: str) -> None:
    played = Played(address)
    for _ in range(3):
        target = played.scrape()
    assert played.values("load") == [0.5] * 3
    assert played.values("hits_total") == [2.0, 2.0], "30 in 15 s; the first has no rate"
    assert played.values("up") == [1.0] * 3
    assert target.report()["scraped"] == 3 and target.report()["trouble"] is None


def test_a_target_that_fails_is_down_and_says_why(address: str) -> None:
    played = Played(address + "/other")
    target = played.scrape()
    assert played.values("up") == [0.0] and target.report()["trouble"] == "status 503"
    nothing = Played("http://127.0.0.1:9")  # the port that discards
    assert "refused" in str(nothing.scrape().report()["trouble"])
    assert nothing.values("up") == [0.0]


def test_it_goes_on_by_itself_until_it_is_stopped(address: str) -> None:
    played = Played(address)
    played.scraper.interval = 0.05
    played.scraper.start()
    for _ in range(200):
        if Exporter.readings >= 3:
            break
        threading.Event().wait(0.02)
    played.scraper.stop()
    assert Exporter.readings >= 3


@pytest.mark.parametrize("url", ["db3:9100", "ftp://db3", "http://", ""])
def test_what_is_no_address_of_a_page_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SubmissionRefused, match="wanted an address"):
        parse_targets([url])


def test_a_password_in_an_address_is_sent_and_not_reported(address: str) -> None:
    played = Played(address.replace("://", "://ann:secret@") + "/secret")
    target = played.scrape()
    assert target.scraped == 1 and "ann" not in str(target.report())
    assert dict(target.labels)["instance"] == address.removeprefix("http://")
