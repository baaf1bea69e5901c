"""A feed and its lock: readers do not wait for a replay, and nothing is lost meanwhile."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from redline.api.service import assemble_service
from redline.engine.monitor import Monitor
from redline.engine.track import Track
from redline.page.query import ViewQuery
from redline.settings import Settings
from redline.storage.sqlite import SqliteStore

STEPS = 600
START = 1.7e9  # seconds since the epoch
PATIENCE = 10.0  # seconds after which a test fails instead of waiting for ever
PAUSE = 0.0005  # seconds, so that no thread keeps the others from their turn
OTHER = Settings("EWMA", 40, 1.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store in which the source `pump` has 600 steps."""
    path = tmp_path / "redline.db"
    with closing(SqliteStore(path)) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        submit(monitor, 0, STEPS)
        monitor.process_pushed()
    return path


def submit(monitor: Monitor, first: int, end: int) -> None:
    x = np.random.default_rng(5).normal(size=2 * STEPS)[first:end]
    monitor.submit("pump", START + np.arange(first, end), x[:, None])


def restored(path: Path) -> tuple[np.ndarray, int, Settings]:
    """The scores, the final step and the settings after a restart that nothing disturbs."""
    with closing(SqliteStore(path, write=False)) as store:
        monitor = Monitor({}, wall=lambda: START + 1e6, store=store)
        feed = monitor.feeds["pump"]
        monitor.restore_feed(feed)
        return feed.applied_track.scores(0, STEPS)[0], feed.finalized, feed.applied


def test_readers_do_not_wait_for_a_replay_and_nothing_that_comes_meanwhile_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_scores, end, applied = restored(path)
    replaying, released = threading.Event(), threading.Event()
    advance = Track.advance

    def held_up(track: Track, x: np.ndarray) -> dict[str, np.ndarray]:
        if threading.current_thread().name == "replay":
            replaying.set()
            assert released.wait(PATIENCE)
        return advance(track, x)

    monkeypatch.setattr(Track, "advance", held_up)
    with closing(SqliteStore(path)) as store:
        service = assemble_service(
            lambda store: Monitor({}, wall=lambda: START + 1e6, store=store), store
        )
        monitor = service.monitor
        feed = monitor.feeds["pump"]
        replay = threading.Thread(target=monitor.restore_feed, args=(feed,), name="replay")
        replay.start()
        assert replaying.wait(PATIENCE)

        def look() -> None:
            query = ViewQuery(service, "pump", Settings(), 600)
            looked.append((query.sentence(), query.status()))
            monitor.apply("pump", OTHER)
            submit(monitor, STEPS, STEPS + 50)

        looked: list[tuple[str, str]] = []
        reader = threading.Thread(target=look, name="reader")
        reader.start()
        reader.join(PATIENCE)
        assert looked and not reader.is_alive(), "a reader waits for the replay"
        released.set()
        replay.join(PATIENCE)
        assert feed.finalized == end and feed.points == STEPS
        score, _ = feed.track(applied).scores(0, STEPS)
        assert np.array_equal(score, quiet_scores, equal_nan=True)
        assert feed.applied == OTHER and feed.undone[-1] == applied
        monitor.process_pushed()
        assert feed.points == feed.end == feed.finalized == STEPS + 50


def test_threads_that_read_apply_and_append_at_once_see_whole_rows(path: Path) -> None:
    """One thread appends and scores, others read rows and apply settings: what they read fits."""
    monitor = Monitor({}, wall=lambda: START + 1e6)
    submit(monitor, 0, 200)
    monitor.process_pushed()
    feed = monitor.feeds["pump"]
    done = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not done.is_set():
            with feed.lock:
                track = feed.applied_track
                first, end = feed.tape.first, min(track.end, feed.end)
                x = feed.tape.read("x", first, end)
                score, alarm = track.scores(first, end)
            time.sleep(PAUSE)
            if not len(x) == len(score) == len(alarm):
                faults.append(f"{len(x)} rows, {len(score)} scores, {len(alarm)} alarm scores")

    def tune() -> None:
        while not done.is_set():
            for settings in (OTHER, Settings(threshold=1.5)):
                monitor.apply("pump", settings)
                time.sleep(PAUSE)

    threads = [threading.Thread(target=work) for work in (read, read, tune)]
    for thread in threads:
        thread.start()
    for first in range(200, 1_200, 20):
        submit(monitor, first, first + 20)
        monitor.process_pushed()
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not faults and not any(thread.is_alive() for thread in threads)
    assert feed.points == feed.end == 1_200
    numbers = [anomaly.number for anomaly in feed.journal]
    steps = [anomaly.step for anomaly in feed.journal]
    assert len(numbers) > 50
    assert numbers == list(range(1, len(numbers) + 1)), "an anomaly was counted twice"
    assert len(set(steps)) == len(steps), "a step was judged twice"
