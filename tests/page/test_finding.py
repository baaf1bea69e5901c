"""The search for settings: one at a time for all visitors, shown, cancelled, and never on the
event loop.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.feed import Feed, MonitoredStream
from redline.engine.monitor import Monitor
from redline.feedback.labels import Label
from redline.page import finding
from redline.page.finding import SettingsSearches, needs_search
from redline.page.preview import preview_fields
from redline.settings import Settings, initial_settings
from redline.sources.csv import read_csv
from streams import STREAMS
from tests.behaviour.page import Browser

CSV = "\n".join(["t,x", *(f"{i},{20 + i % 7}" for i in range(700))]).encode()
PATIENCE = 10.0  # seconds after which a test fails instead of waiting for ever


class Step(NamedTuple):
    done: float
    trying: str
    best: Any


class Best(NamedTuple):
    detector: str = "EWMA"
    window: int = 90
    threshold: float = 4.2
    direction: str = "high"
    why: str = "EWMA <b>hits</b> 9 of 10 events"


class Finder:
    """A search that goes on when the test says so, and remembers what it was given."""

    def __init__(self, best: Any = Best(), error: Exception | None = None) -> None:  # noqa: B008
        self.best = best
        self.error = error
        self.given: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()
        self.begun = threading.Semaphore(0)  # released at each step
        self.go = threading.Semaphore(0)  # acquired after each step

    def __call__(self, *past: Any) -> Iterator[Step]:
        self.given.append(past)
        self.threads.add(threading.current_thread().name)
        yield from self.steps()

    def steps(self) -> Iterator[Step]:
        for done, trying, best in ((0.2, "EWMA", None), (0.6, "CUSUM, window 60", self.best)):
            self.begun.release()
            yield Step(done, trying, best)
            assert self.go.acquire(timeout=PATIENCE)
            if self.error:
                raise self.error
        yield Step(1.0, "", self.best)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came")


@pytest.fixture
def service() -> Service:
    names = ("wave", "cpu")
    monitor = Monitor({name: MonitoredStream(STREAMS[name](seed=3)) for name in names})
    for feed in monitor.feeds.values():
        monitor.backfill(feed, 600)
    return assemble_service(lambda store: monitor)


def begin(service: Service, finder: Finder) -> tuple[SettingsSearches, Any]:
    searches = SettingsSearches(service, finder)
    search = searches.request(service.monitor.feeds["wave"])
    assert finder.begun.acquire(timeout=PATIENCE)
    return searches, search


def test_a_search_says_what_it_tries_and_ends_with_settings_and_their_reason(service):
    finder = Finder()
    searches, search = begin(service, finder)
    wait_until(lambda: searches.progress_text(search) == "Trying EWMA.")
    finder.go.release()
    wait_until(lambda: search.done == 0.6)
    assert searches.progress_text(search) == (
        "Trying CUSUM, window 60; best so far EWMA, window 90, threshold 4.2 σ."
    )
    finder.go.release()
    wait_until(lambda: not search.live)
    applied = service.monitor.feeds["wave"].applied
    wanted = Settings("EWMA", 90, 4.2, "high", applied.refractory, applied.habituation)
    assert search.found == wanted and search.text == Best().why
    assert search.past is None, "the copy of the buffer is not kept"
    assert finder.threads == {"settings search"}


def test_it_sees_the_newest_steps_with_the_labels_that_people_gave(service, monkeypatch):
    monkeypatch.setattr(finding, "MAX_SEARCHED", 500)
    feed = service.monitor.feeds["wave"]
    at = float(feed.tape.read("time", 300, 301)[0, 0])
    service.labels.add(Label("wave", at, at, "missed", "page", 0.0), 1)
    finder = Finder()
    searches, search = begin(service, finder)
    x, label, floors = finder.given[0]
    assert x.shape == (500, 1) and np.array_equal(x, feed.tape.read("x", 100, 600))
    assert label[200, 0] and not feed.tape.read("label", 300, 301)[0, 0]
    assert floors == tuple(feed.stream.floors)
    searches.leave(search.id)
    finder.go.release(2)


def test_a_second_request_joins_and_another_stream_waits_for_its_turn(service):
    finder = Finder()
    searches, search = begin(service, finder)
    joined = searches.request(service.monitor.feeds["wave"])
    other = searches.request(service.monitor.feeds["cpu"])
    assert joined is search and len(finder.given) == 1
    title = service.monitor.feeds["wave"].stream.title
    assert searches.progress_text(other) == f"Waits for the search on {title}."
    finder.go.release(4)
    wait_until(lambda: not other.live)
    assert len(finder.given) == 2 and search.found == other.found is not None
    wait_until(lambda: searches.thread is None)


def test_it_ends_when_the_last_one_who_waits_for_it_cancels(service):
    finder = Finder()
    searches, search = begin(service, finder)
    searches.request(service.monitor.feeds["wave"])
    searches.leave(search.id)
    assert search.live, "another visitor waits for it"
    queued = searches.request(service.monitor.feeds["cpu"])
    searches.leave(queued.id)
    searches.leave(search.id)
    assert not search.live and search.found is None and "cancelled" in search.text
    finder.go.release(2)
    wait_until(lambda: searches.thread is None)
    assert len(finder.given) == 1, "the queued one was never begun"
    assert search.found is None and search.done < 1.0


@pytest.mark.parametrize(
    ("best", "error", "said"),
    [
        (None, None, "No proposal: no settings"),
        (Best(window=5_000), None, "No proposal: window: wanted"),
        (None, ValueError("wanted at least 200 rows; came 3"), "No proposal: wanted at least 200"),
        (None, KeyError("oops"), "The search failed; look for "),
    ],
)
def test_a_search_without_a_result_says_why_and_the_next_one_runs(service, best, error, said):
    finder = Finder(best, error)
    searches, search = begin(service, finder)
    finder.go.release(2)
    wait_until(lambda: not search.live)
    assert search.found is None and search.text.startswith(said)
    finder.error = None
    again = searches.request(service.monitor.feeds["wave"])
    finder.go.release(2)
    wait_until(lambda: not again.live)
    assert again.id != search.id and len(finder.given) == 2


def test_too_many_that_wait_are_refused_and_old_ones_are_dropped(service, monkeypatch):
    monkeypatch.setattr(finding, "MAX_WAITING", 0)
    searches = SettingsSearches(service, Finder())
    with pytest.raises(RuntimeError, match="at most 0 searches"):
        searches.request(service.monitor.feeds["wave"])
    monkeypatch.undo()
    monkeypatch.setattr(finding, "KEPT_SEARCHES", 2)
    finder = Finder()
    searches = SettingsSearches(service, finder)
    for _ in range(5):
        finder.go.release(2)
        search = searches.request(service.monitor.feeds["wave"])
        wait_until(lambda search=search: not search.live)
    assert list(searches.searches) == [4, 5]


def test_on_the_page_it_becomes_a_preview_of_this_visitor_once(service, monkeypatch):
    finder = Finder()
    monkeypatch.setattr(app, "find_settings", finder)
    monkeypatch.setattr(service.monitor, "start", lambda: None)  # the loop runs by hand
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor = Browser(client)
        shown = visitor.press("find-settings.n_clicks", "finding.data", domain="wave")
        assert not shown["find-progress"]["hidden"] and not shown["searching"]["disabled"]
        away = visitor.press("domain.value", "finding.data", domain="cpu")
        assert away["find-progress"]["hidden"] and away["searching"]["disabled"]
        back = visitor.press("domain.value", "finding.data", domain="wave")
        assert not back["find-progress"]["hidden"]
        finder.go.release(2)
        answers: list[Any] = []

        def is_over() -> bool:
            answers.append(visitor.press("searching.n_intervals", "finding.data"))
            return bool(answers[-1]["searching"]["disabled"])

        wait_until(is_over)
        assert answers[-1]["found"]["data"] == {
            "detector": "EWMA",
            "window": 90,
            "threshold": 4.2,
            "direction": "high",
        }
        assert answers[-1]["found-said"]["children"] == Best().why, "text, which Dash escapes"
        again = visitor.press("domain.value", "finding.data", domain="wave")
        assert again["found"]["data"] is None, "the controls are moved once"
        other = Browser(client)
        none = other.press("domain.value", "finding.data", domain="wave")
        assert none["found"]["data"] is None and none["finding"]["data"] is None
        assert service.monitor.feeds["wave"].applied == Settings(), "nothing is applied"


def test_on_the_page_it_can_be_cancelled(service, monkeypatch):
    finder = Finder()
    monkeypatch.setattr(app, "find_settings", finder)
    monkeypatch.setattr(service.monitor, "start", lambda: None)
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor = Browser(client)
        visitor.press("find-settings.n_clicks", "finding.data", domain="wave")
        shown = visitor.press("find-cancel.n_clicks", "finding.data", domain="wave")
        assert shown["find-progress"]["hidden"] and shown["searching"]["disabled"]
        assert "cancelled" in shown["found-said"]["children"]
        finder.go.release(2)


def file_url(rows: int) -> str:
    """Return a small file as the browser sends it."""
    x = np.random.default_rng(5).normal(20, 1, rows)
    lines = [f"{i},{value:.3f}" for i, value in enumerate(x)]
    return "data:text/csv;base64," + b64encode("\n".join(["t,x", *lines]).encode()).decode()


def upload(visitor: Browser, rows: int = 700) -> None:
    """Drop a file on the page, and let the search for its settings begin."""
    visitor.held["upload"].update(contents=file_url(rows), filename="a.csv")
    visitor.press("upload.contents", "upload-said.children", domain="your-data")


def ended(visitor: Browser) -> Any:
    """Return the answer of the poll that finds the search over."""
    answers: list[Any] = []

    def is_over() -> bool:
        answers.append(visitor.press("searching.n_intervals", "finding.data"))
        return bool(answers[-1]["searching"]["disabled"])

    wait_until(is_over)
    return answers[-1]


@pytest.fixture
def finder(service: Service, monkeypatch: pytest.MonkeyPatch) -> Finder:
    finder = Finder()
    monkeypatch.setattr(app, "find_settings", finder)
    monkeypatch.setattr(service.monitor, "start", lambda: None)
    return finder


def test_a_file_that_was_read_is_searched_by_itself_whole_and_starts_with_what_is_found(
    service, finder
):
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor = Browser(client)
        upload(visitor)
        begun = visitor.press("read.data", "finding.data")
        assert not begun["find-progress"]["hidden"]
        visitor.press("show-all.n_clicks", "upload-said.children")  # another feed, the same file
        finder.go.release(2)
        answer = ended(visitor)
        assert answer["found"]["data"]["detector"] == "EWMA"
        assert answer["found-said"]["children"] == f"It starts with these: {Best().why}"
        assert len(finder.given) == 1 and finder.given[0][0].shape == (700, 1)
        feed = service.monitor.feeds["your-data"]
        assert preview_fields(feed.applied) == answer["found"]["data"]
        assert feed.finalized == feed.end == 700, "all of its rows are scored under them"
        assert feed.applied == initial_settings(feed.stream) and not needs_search(feed)
        visitor.press("replay.n_clicks", "upload-said.children")
        replayed = service.monitor.feeds["your-data"]
        assert replayed.applied == feed.applied and not needs_search(replayed)


def test_what_a_person_chose_meanwhile_for_a_file_stays(service, finder):
    searches = SettingsSearches(service, finder)
    feed = service.monitor.open("your-data", read_csv(CSV, title="a.csv"), CSV, 700)
    search = searches.request(feed)
    service.monitor.apply("your-data", Settings(threshold=7.0))
    finder.go.release(2)
    wait_until(lambda: not search.live)
    assert not search.started and search.found is not None and search.text == Best().why
    assert service.monitor.feeds["your-data"] is feed and feed.applied.threshold == 7.0


def test_another_file_that_was_dropped_meanwhile_stays(service, finder, monkeypatch):
    searches = SettingsSearches(service, finder)
    monitor = service.monitor
    feed = monitor.open("your-data", read_csv(CSV, title="a.csv"), CSV, 700)
    others = []
    backfill = monitor.backfill

    def drop_another(again: Feed, steps: int) -> None:
        monkeypatch.setattr(monitor, "backfill", backfill)
        backfill(again, steps)
        others.append(monitor.open("your-data", read_csv(b"t,x\n0,1\n1,2\n", title="b.csv")))

    search = searches.request(feed)
    monkeypatch.setattr(monitor, "backfill", drop_another)
    finder.go.release(2)
    wait_until(lambda: not search.live)
    assert not search.started and monitor.feeds["your-data"] is others[0]


def test_the_file_of_the_command_line_starts_with_what_is_found_too(service, finder):
    feed = service.monitor.open("your-data", read_csv(CSV, title="a.csv"), CSV, 700)
    finder.go.release(2)
    app.build_app(service)
    wait_until(lambda: service.monitor.feeds["your-data"] is not feed)
    found = service.monitor.feeds["your-data"]
    assert (found.applied.detector, found.applied.window) == ("EWMA", 90)
    assert found.end == 700


def test_a_control_that_was_moved_meanwhile_stays(service, finder):
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor = Browser(client)
        upload(visitor)
        visitor.press("read.data", "finding.data")
        visitor.held["threshold"]["value"] = 6.5
        finder.go.release(2)
        answer = ended(visitor)
        assert answer["found"]["data"] is None
        said = answer["found-said"]["children"]
        assert said.startswith("It starts with these: ") and "controls were moved" in said


def test_a_file_with_settings_of_its_own_and_a_replay_are_not_searched(service, finder):
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        visitor = Browser(client)
        upload(visitor)
        known = visitor.held["read"]["data"]
        assert known == service.monitor.feeds["your-data"].id
        visitor.press("replay.n_clicks", "upload-said.children")
        assert visitor.held["read"]["data"] == known
        late = visitor.press("read.data", "finding.data")
        assert late["finding"]["data"] is None, "of a feed that is gone"
        feed = service.monitor.feeds["your-data"]
        assert needs_search(feed)
        feed.applied = Settings(threshold=7.0)
        assert not needs_search(feed) and not needs_search(service.monitor.feeds["cpu"])
