"""The store by itself and under the loop: one transaction, bit-equal restarts, queries, retention, migrations, backup, trouble."""

import numpy as np
import pytest

from redline import monitor as loop
from redline.intake import Taken
from redline.monitor import Monitor
from redline.store import Store

START = 1_700_000_000.0  # seconds since the epoch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "redline.db"


@pytest.fixture
def kept(path):
    opened = Store(path)
    yield opened
    opened.close()


def watching(ledger, streams=None, limits=loop.OPEN):
    """A monitor whose thread a test plays."""
    made = Monitor(streams or {}, clock=Clock(), wall=lambda: START + 1e6, ledger=ledger, limits=limits)
    made.begin()
    return made


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def numbers(steps, seed=5, features=1):
    """Time (steps,) and x (steps, features) with a spike now and then."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(steps, features))
    x[draw.random((steps, features)) < 0.01] += 9.0
    return START + np.arange(steps, dtype=float), x


def push(monitor, name, time, x, sizes, names=()):
    """Submits in chunks of these sizes over and over, a round of the loop after each; what became of all of them."""
    taken, at, turn = [], 0, 0
    while at < len(time):
        size = sizes[turn % len(sizes)]
        receipt = monitor.submit(name, time[at : at + size], x[at : at + size], names)
        monitor.pump()
        taken.append(receipt.result(timeout=0))
        at, turn = at + size, turn + 1
    return Taken(*(sum(each) for each in zip(*taken)))


def test_a_restart_at_any_point_goes_on_to_the_same_bits(path):
    time, x = numbers(14_000, features=2)
    whole = watching(None)
    push(whole, "pump", time, x, [5_000], ("flow", "heat"))
    draw, at = np.random.default_rng(3), 0
    while at < len(time):
        kept = Store(path)
        monitor = watching(kept)
        end = min(len(time), at + int(draw.integers(1, 2_500)))
        push(monitor, "pump", time[at:end], x[at:end], [1, 700, 33], ("flow", "heat"))
        kept.close()  # nothing of the monitor is told that it ends
        at = end
    kept = Store(path)
    feed, other = watching(kept).feeds["pump"], whole.feeds["pump"]
    monitor.ledger = kept
    monitor.revive(feed)
    assert feed.end == feed.stored == len(time) and feed.points == len(time)
    assert (feed.anomalies, feed.alarms, feed.run) == (other.anomalies, other.alarms, other.run)
    for name in ("score", "alarm", "centre", "spread", "parts"):
        assert np.array_equal(feed.watched.read(name, 4_000, 14_000), other.watched.read(name, 4_000, 14_000), equal_nan=True)
    assert [a[:-1] for a in feed.journal] == [a[:-1] for a in list(other.journal)[-len(feed.journal) :]]
    stored = kept.points("pump", limit=20_000)
    assert stored.time.tolist() == time.tolist() and np.array_equal(stored.x, x)
    assert np.array_equal(stored.score[4_000:], other.watched.read("score", 4_000, 14_000)[:, 0], equal_nan=True)
    kept.close()
