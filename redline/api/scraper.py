"""The scraper: reads the metrics pages of targets every few seconds, as a Prometheus does."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from redline.api.addresses import prepare_request
from redline.api.doors import Doors
from redline.engine.monitor import Monitor
from redline.engine.results import log
from redline.sources.exposition import MAX_PAGE, read_exposition
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import SampleBatch, make_batch
from redline.sources.series import SeriesKey, format_series

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8"
SCRAPE_TIMEOUT = 10.0  # seconds, at most the interval
UP = "up"  # the series that says whether a target answered: 1 or 0
CREATOR = "scrape"


class Page(NamedTuple):
    """What a target answered."""

    body: bytes
    openmetrics: bool


@dataclass
class ScrapeTarget:
    """A page of metrics that is read again and again."""

    url: str
    labels: tuple[tuple[str, str], ...]  # added to each of its series, as Prometheus does
    scraped: int = 0  # times that it was read and taken
    failed: int = 0
    samples: int = 0  # of the last page
    trouble: str = ""  # what went wrong the last time; "" = nothing

    def report(self) -> dict[str, Any]:
        """Return how it goes, without what the address may hold of a password."""
        return {
            "instance": dict(self.labels)["instance"],
            "scraped": self.scraped,
            "failed": self.failed,
            "samples": self.samples,
            "trouble": self.trouble or None,
        }


def parse_targets(urls: Sequence[str]) -> list[ScrapeTarget]:
    """Return the targets of some addresses; the path is /metrics where there is none.

    >>> parse_targets(["http://db3:9100"])[0].url
    'http://db3:9100/metrics'
    >>> parse_targets(["http://db3:9100"])[0].labels
    (('instance', 'db3:9100'), ('job', 'scrape'))

    Raises:
        SubmissionRefused: one of them is no address of a page.
    """
    targets = []
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            wanted = "an address such as http://localhost:9100/metrics"
            raise SubmissionRefused("scrape", wanted, repr(url))
        path = parts.path if parts.path.strip("/") else "/metrics"
        instance = parts.netloc.rpartition("@")[2]
        labels = (("instance", instance), ("job", CREATOR))
        targets.append(ScrapeTarget(parts._replace(path=path).geturl(), labels))
    return targets


def fetch_page(url: str, timeout: float) -> Page:
    """Return the page at an address; a name and a password in it are sent as basic access.

    Raises:
        OSError: there is no answer, or it is an error; ValueError: it is too large.
    """
    request = prepare_request(url, {"Accept": ACCEPT})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = answer.read(MAX_PAGE + 1)
            kind = answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"status {error.code}") from None
    except http.client.HTTPException as error:
        raise OSError(f"no valid answer: {type(error).__name__}") from None
    if len(body) > MAX_PAGE:
        raise ValueError(f"wanted a page of at most {MAX_PAGE:,} bytes, came a larger one")
    return Page(body, kind == "application/openmetrics-text")


@dataclass
class Scraper:
    """Reads its targets in a thread each, until it is stopped."""

    targets: Sequence[ScrapeTarget]
    interval: float  # seconds from one reading of a target to the next
    monitor: Monitor
    doors: Doors
    fetch: Callable[[str, float], Page] = fetch_page
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to read, each target at a moment of its own."""
        for place, target in enumerate(self.targets):
            delay = self.interval * place / len(self.targets)
            threading.Thread(target=self._run, args=(target, delay), daemon=True).start()

    def stop(self) -> None:
        """End the threads, each after what it is at."""
        self.stopping.set()

    def _run(self, target: ScrapeTarget, delay: float) -> None:
        due = time.monotonic() + delay
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            self.scrape(target)
            due = max(due + self.interval, time.monotonic())  # what was missed is not made up for

    def scrape(self, target: ScrapeTarget) -> None:
        """Read a target once and queue its samples, with one that says whether it answered."""
        now = self.monitor.wall()
        try:
            page = self.fetch(target.url, min(SCRAPE_TIMEOUT, self.interval))
            batch = read_exposition(
                page.body, self.doors.directory, now, page.openmetrics, target.labels
            )
            self._take(batch)
            target.samples = len(batch.series)
            target.scraped += 1
            trouble = ""
        except (OSError, ValueError) as error:  # a refused page is a ValueError too
            target.failed += 1
            trouble = str(error)
        if trouble and not target.trouble:
            log.warning("%s is not scraped: %s", dict(target.labels)["instance"], trouble)
        target.trouble = trouble
        up = self.doors.directory.number(format_series(SeriesKey(UP, target.labels)))
        if up >= 0:
            with contextlib.suppress(SubmissionRefused):
                self._take(
                    make_batch(np.array([up]), np.array([now]), np.array([float(not trouble)]))
                )

    def _take(self, batch: SampleBatch) -> None:
        """Queue the samples of a batch, counters as rates."""
        found = self.doors.submit(self.monitor, batch, CREATOR, rates=True)
        for _, refusal in found.refused:
            raise refusal
