"""A monitor on a store, whose thread a test plays, with points to push into it."""

import numpy as np

from redline.engine import monitor as loop
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.incidents.registry import IncidentQuery
from redline.sources.pushed import SubmissionCounts
from redline.storage.errors import StoreError
from streams import STREAMS, Chunk, Stream

LIST_ALL = IncidentQuery(limit=100)


class Failing:
    """A ledger in front of another one that fails while it is told to."""

    def __init__(self, inner):
        self.inner, self.broken = inner, False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def commit(self, batches, fleets=()):
        if self.broken:
            raise StoreError("the disk is full; make room")
        self.inner.commit(batches, fleets=fleets)


class Ticking(Stream):
    """A stream with a clock of its own: two steps whenever it is asked."""

    title, names, units, floors, period = "Ticking", ("value",), ("",), (0.0,), 1.0

    def __init__(self):
        self.step = 0

    def take(self, steps):
        self.step += 2
        at = np.arange(self.step - 2, self.step)
        return Chunk(START + at, np.sin(at * 0.7)[:, None], None)


START = 1_700_000_000.0  # seconds since the epoch


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def watching(ledger, streams=None, limits=loop.NO_LIMITS):
    """A monitor whose thread a test plays."""
    made = Monitor(
        streams or {}, clock=Clock(), wall=lambda: START + 1e6, store=ledger, limits=limits
    )
    made.restore_all()
    return made


def numbers(steps, seed=5, features=1):
    """Time (steps,) and x (steps, features) with a spike now and then."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(steps, features))
    x[draw.random((steps, features)) < 0.01] += 9.0
    return START + np.arange(steps, dtype=float), x


def push(monitor, name, time, x, sizes, names=()):
    """Submits in chunks of these sizes over and over, a round of the loop after each; what became
    of all of them.
    """
    taken, at, turn = [], 0, 0
    while at < len(time):
        size = sizes[turn % len(sizes)]
        receipt = monitor.submit(name, time[at : at + size], x[at : at + size], names)
        monitor.process_pushed()
        taken.append(receipt.result(timeout=0))
        at, turn = at + size, turn + 1
    return SubmissionCounts(*(sum(each) for each in zip(*taken)))


def simulated(name="cpu", seed=4):
    return {name: MonitoredStream(STREAMS[name](seed=seed))}


def rounds(monitor, count):
    for _ in range(count):
        monitor.clock.now += loop.BEAT_SECONDS
        monitor.beat()


def columns(track, first, end):
    return {
        name: track.read(name, first, end)
        for name in ("score", "alarm", "centre", "spread", "parts")
    }


class Rows:
    def __init__(self, incidents, watches):
        self.incidents, self.watches, self.dropped = incidents, watches, ()


def incident(number, state, start=START):
    return {"id": f"i{number:03}", "stream": f"s{number}", "state": state, "start": start}


def sweep_all(kept, now):
    kept.sweeper.sweep(now)
    while kept.sweeper.unfinished:
        kept.sweeper.sweep(now)
