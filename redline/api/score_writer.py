"""The score writer: sends the scores of streams in alarm to a Prometheus by remote write."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from redline.api.addresses import ServerAnswer, host_of, parse_address, post_body
from redline.engine.fleet.stored import ANOMALY_FLAG, SeriesSteps
from redline.engine.results import Batch, log
from redline.incidents.registry import Incidents
from redline.incidents.secrets import SecretRedactor, secret_pieces
from redline.sources.compression import compress_block
from redline.sources.directory import SeriesDirectory
from redline.sources.score_messages import (
    OWN_PREFIX,
    ScoredPoints,
    encode_scores,
    stale_points,
)
from redline.sources.selectors import SeriesSelection, parse_selectors
from redline.sources.series import parse_series

WRITE_PATH = "/api/v1/write"
WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
WRITE_TIMEOUT = 30.0  # seconds
MAX_WAITING_SCORES = 500_000  # points that wait to be sent; each takes about 20 bytes
REQUEST_SCORES = 5_000  # points of one request, at most
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)  # seconds before a request is sent again
LONGEST_PAUSE = 60.0  # seconds, whatever the server asks for
UNASKED, SELECTED, UNSELECTED = 0, 1, 2  # whether the selection takes a series
TOO_MANY, TOO_EARLY = 429, 500  # statuses: send again later; also all from the second on


class NamedScores(NamedTuple):
    """Scores of one stream that wait."""

    name: str
    points: ScoredPoints


def parse_write_address(url: str) -> str:
    """Return the address that scores are written to.

    >>> parse_write_address("http://localhost:9090")
    'http://localhost:9090/api/v1/write'

    Raises:
        SubmissionRefused: it is no address.
    """
    return parse_address("remote-write", url, WRITE_PATH).geturl()


@dataclass
class ScoreWriter:
    """Sends scores from a thread of its own; what takes them in never waits.

    Of a stream in alarm, which has a live incident, every scored step is sent; when the incident
    is over, a marker that its scores end. Of a series that the selection takes, every step is
    sent always. Points beyond the queue's limit are dropped, the oldest first, and counted.
    """

    url: str  # "" = nothing is sent
    incidents: Incidents
    directory: SeriesDirectory
    selection: SeriesSelection | None = None
    post: Callable[[str, bytes], ServerAnswer] = field(
        default=partial(post_body, headers=WRITE_HEADERS, timeout=WRITE_TIMEOUT)
    )

    def __post_init__(self) -> None:
        self.queue: deque[NamedScores] = deque()
        self.waiting = 0  # points
        self.counts: Counter[str] = Counter()  # points sent, rejected, failed, dropped
        self.written: dict[str, int] = {}  # stream in alarm -> ms of its newest point that was sent
        self.selected = np.zeros(0, np.uint8)  # by number of a series
        self.trouble = ""  # what went wrong the last time; "" = nothing
        self.condition = threading.Condition()  # guards the queue and the counts
        self.stopping = threading.Event()
        shown = self.url.replace(self.url.rpartition("@")[0], "").partition("?")[0]
        self.redactor = SecretRedactor(secret_pieces(self.url, shown) if self.url else ())

    def start(self) -> None:
        """Begin to send."""
        if self.url:
            threading.Thread(target=self._run, name="remote write", daemon=True).start()

    def stop(self) -> None:
        """End the thread after the request that it is at; what waits is counted as dropped."""
        self.stopping.set()
        with self.condition:
            self.counts["dropped"] += self.waiting
            self.queue.clear()
            self.waiting = 0
            self.condition.notify_all()

    # --- for the thread of the loop

    def on_batches(self, batches: Sequence[Batch], committed: bool) -> None:
        """Take the scores of streams in alarm from new results; for a list of listeners."""
        for batch in batches:
            real = batch.live and (batch.stored_apart or batch.stores_points)
            if not real or not len(batch.time) or self._is_selected(batch.name):
                continue
            if batch.name in self.written or self.incidents.live_of(batch.name) is not None:
                self._take_batch(batch)
        for name in [name for name in self.written if self.incidents.live_of(name) is None]:
            self._put(name, stale_points(self.written.pop(name) + 1))

    def on_steps(self, steps: SeriesSteps) -> None:
        """Take the scores of selected series from newly scored steps."""
        if self.selection is None:
            return
        rows = np.flatnonzero(self._mark_selected(steps.series) & np.isfinite(steps.score))
        rows = rows[np.argsort(steps.series[rows], kind="stable")]
        chosen = steps.pick(rows)
        time = to_milliseconds(chosen.time)
        anomaly = (chosen.flags & ANOMALY_FLAG) > 0
        begins = np.flatnonzero(np.diff(chosen.series, prepend=-1)).tolist()
        for begin, end in zip(begins, [*begins[1:], len(rows)]):
            name = self.directory.texts[int(chosen.series[begin])]
            if name is not None:
                own = slice(begin, end)
                self._put(name, ScoredPoints(time[own], chosen.score[own], anomaly[own]))

    def _take_batch(self, batch: Batch) -> None:
        """Take the scores of one stream in alarm."""
        if batch.name.startswith(OWN_PREFIX):  # scores of scores, and so on
            return
        anomaly = np.zeros(len(batch.time), bool)
        anomaly[[found.step - batch.first for found in batch.anomalies]] = True
        kept = np.isfinite(batch.score)
        if kept.any():
            time = to_milliseconds(batch.time[kept])
            self.written[batch.name] = int(time[-1])
            self._put(batch.name, ScoredPoints(time, batch.score[kept], anomaly[kept]))

    def _is_selected(self, name: str) -> bool:
        """Return whether the selection takes a series, so that its steps come anyway."""
        number = self.directory.numbers.get(name)
        if self.selection is None or number is None:
            return False
        return bool(self._mark_selected(np.array([number]))[0])

    def _mark_selected(self, series: np.ndarray) -> np.ndarray:
        """Return whether the selection takes series (n,), (n,) bool; it is asked once for each."""
        assert self.selection is not None
        beyond = int(series.max(initial=-1)) + 1 - len(self.selected)
        if beyond > 0:
            self.selected = np.pad(self.selected, (0, beyond + len(self.selected)))
        for number in np.unique(series[self.selected[series] == UNASKED]).tolist():
            key = parse_series(self.directory.texts[number] or OWN_PREFIX)  # None: just removed
            taken = not key.name.startswith(OWN_PREFIX) and self.selection.takes(key)
            self.selected[number] = SELECTED if taken else UNSELECTED
        return np.asarray(self.selected[series] == SELECTED)

    def _put(self, name: str, points: ScoredPoints) -> None:
        """Queue points; the oldest ones make room."""
        with self.condition:
            self.queue.append(NamedScores(name, points))
            self.waiting += len(points.time)
            while self.waiting > MAX_WAITING_SCORES:
                self.counts["dropped"] += self._pop_oldest()
            self.condition.notify_all()

    def _pop_oldest(self) -> int:
        """Remove the oldest points from the queue; return how many."""
        size = len(self.queue.popleft().points.time)
        self.waiting -= size
        return size

    # --- for the thread that sends

    def _run(self) -> None:
        while not self.stopping.is_set():
            with self.condition:
                self.condition.wait_for(lambda: self.queue or self.stopping.is_set())
            self.send_waiting()

    def send_waiting(self) -> None:
        """Send what waits, one request; count what becomes of it."""
        streams: dict[str, list[ScoredPoints]] = {}
        size = 0
        with self.condition:
            while self.queue and (not size or size < REQUEST_SCORES):
                name, points = self.queue.popleft()
                streams.setdefault(name, []).append(points)
                size += len(points.time)
            self.waiting -= size
        if not size:
            return
        try:
            outcome = self._send(compress_block(encode_scores(streams)))
        except Exception as error:  # noqa: BLE001  one failure must not end the thread
            outcome = "failed"
            self._note(f"{type(error).__name__}: {error}")
        with self.condition:
            self.counts[outcome] += size

    def _send(self, body: bytes) -> str:
        """Send a request, again where that may help; return what became of it."""
        for pause in (*PAUSES, math.inf):
            wait = 0.0
            try:
                answer = self.post(self.url, body)
            except OSError as error:
                self._note(f"no answer: {error}")
            else:
                if 200 <= answer.status < 300:
                    self._note("")
                    return "sent"
                self._note(f"status {answer.status} {answer.text}".strip())
                if answer.status < TOO_EARLY and answer.status != TOO_MANY:
                    return "rejected"  # as the protocol says: it would be refused again
                wait = min(answer.wait, LONGEST_PAUSE)
            if pause == math.inf or self.stopping.wait(max(pause, wait)):
                break
        return "failed"

    def _note(self, trouble: str) -> None:
        """Keep what went wrong, and log the first time that it does."""
        text = self.redactor.redact(trouble)
        if text and not self.trouble:
            log.warning("scores are not written to %s: %s", host_of(self.url), text)
        self.trouble = text

    def report(self) -> dict[str, Any] | None:
        """Return how it goes, without what the address may hold of a password; None = unused."""
        if not self.url:
            return None
        with self.condition:
            counts = {name: self.counts[name] for name in ("sent", "rejected", "failed", "dropped")}
            return {
                "to": host_of(self.url),
                "waiting": self.waiting,
                "counts": counts,
                "trouble": self.trouble or None,
            }


def to_milliseconds(time: np.ndarray) -> np.ndarray:
    """Return times (n,) in seconds as whole milliseconds, (n,) int64."""
    return np.asarray(np.rint(time * 1_000), np.int64)


def parse_selection(selectors: Sequence[str]) -> SeriesSelection | None:
    """Return the selection of some selectors, None without one; raise SubmissionRefused."""
    return parse_selectors(selectors) if selectors else None
