"""The storage of fleets, measured: `python -m bench.fleet_store --points 100000000`.

It prints the time of a commit, the speed of merging, the bytes a point takes on the disk, and the
time of reads. `--recorded FILE` adds points of real series: an .npz file with `time` (n,), seconds,
and `values` (series, n).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from redline.engine.fleet.stored import FleetCommit, SeriesRecord, SeriesSteps
from redline.settings import Settings
from redline.storage.retention import Retention
from redline.storage.schema import parts_table
from redline.storage.series_codec import encode_packed
from redline.storage.series_merging import PACKED_PART
from redline.storage.sqlite import SqliteStore

START = 1_700_000_000.0  # seconds since the epoch
STREAMS = 10_000  # of the stored history
COMMIT_STEPS = 10  # steps of each of them in a commit
READ_POINTS = 10_000  # of one stream
REPEATS = 15
SCORED_OVER = 60  # steps that the score of a recorded value compares it with


def open_new(folder: str, streams: int) -> SqliteStore:
    """Return a new store with records of so many series, which merges nothing by itself."""
    keep = Retention(rows=10**9)
    store = SqliteStore(Path(folder) / f"{streams}.db", keep, merge=False)
    records = [SeriesRecord(i, f"series {i}", Settings()) for i in range(1, streams + 1)]
    store.commit([], fleets=[FleetCommit(SeriesSteps.empty(), records)])
    return store


def one_step(draw: np.random.Generator, streams: int, step: int, shared: bool) -> SeriesSteps:
    """Return a step of each stream, at one time in order, or at their own times in any order."""
    series = np.arange(1, streams + 1)
    return SeriesSteps(
        series=series if shared else draw.permutation(series),
        step=np.full(streams, step),
        time=np.full(streams, START + step) + (0.0 if shared else draw.random(streams)),
        value=draw.normal(size=streams),
        score=np.abs(draw.normal(size=streams)),
        flags=np.zeros(streams, np.uint8),
    )


def measure_commits(folder: str) -> None:
    """Print what a durable commit of one point a stream takes."""
    draw = np.random.default_rng(1)
    for streams in (5_000, 100_000):
        with closing(open_new(folder, streams)) as store:
            for shared, words in ((True, "one time"), (False, "own times, any order")):
                taken = []
                for step in range(REPEATS):
                    commit = FleetCommit(one_step(draw, streams, step, shared))
                    began = time.perf_counter()
                    store.commit([], fleets=[commit])
                    taken.append(1e3 * (time.perf_counter() - began))
                print(
                    f"commit of {streams:7,} points, {words:20}: best {min(taken):6.2f} ms, "
                    f"median {np.median(taken):6.2f} ms"
                )


def history(points: int) -> Iterator[SeriesSteps]:
    """Yield commits of random walks with two decimals; every other stream stands still."""
    draw = np.random.default_rng(2)
    level = np.round(draw.normal(100, 20, STREAMS), 2)
    moving = np.arange(STREAMS) % 2
    for first in range(0, points // STREAMS, COMMIT_STEPS):
        change = draw.normal(0, 0.5, (COMMIT_STEPS, STREAMS)) * moving
        value = np.round(level + np.cumsum(change, axis=0), 2)
        level = value[-1]
        score = np.abs(draw.normal(size=value.shape)) * moving
        step = np.arange(first, first + COMMIT_STEPS)
        yield SeriesSteps(
            series=np.repeat(np.arange(1, STREAMS + 1), COMMIT_STEPS),
            step=np.tile(step, STREAMS),
            time=np.tile(START + 15.0 * step, STREAMS),
            value=value.T.ravel(),
            score=score.T.ravel(),
            flags=(score.T.ravel() > 4).astype(np.uint8),
        )


def measure_history(folder: str, points: int) -> None:
    """Print the speed of merging and of reads over many points."""
    with closing(open_new(folder, STREAMS)) as store:
        merged = np.zeros(2)  # seconds of the clock, and of the processor
        for number, steps in enumerate(history(points), 1):
            store.commit([], fleets=[FleetCommit(steps)])
            began = time.perf_counter(), time.process_time()
            while store.merger.run_turn():
                pass
            merged += (time.perf_counter() - began[0], time.process_time() - began[1])
            if number % 100 == 0:
                print(f"... {number * len(steps.series):,} points", flush=True)
        with store.reading() as c:
            n = sa.func.sum(parts_table.c.n)
            size = sa.func.sum(sa.func.length(parts_table.c.rows))
            held, taken = c.execute(sa.select(n, size)).one()
            parts = c.execute(sa.select(sa.func.count()).select_from(parts_table)).scalar()
        print(
            f"merging {held:,} points through all levels: {held / merged[0]:,.0f} points/s, "
            f"{held / merged[1]:,.0f} a second of processor time"
        )
        print(f"{taken / held:.2f} bytes a point in {parts:,} parts, half of them changing")
        measure_reads(store, points)


def measure_reads(store: SqliteStore, points: int) -> None:
    """Print the time of the last points of a stream, of all steps, and of looking for times."""
    draw = np.random.default_rng(3)
    taken = []
    for number in draw.integers(1, STREAMS + 1, 2 * REPEATS).tolist():
        began = time.perf_counter()
        found = store.read_series(number, None, None, READ_POINTS)
        taken.append(1e3 * (time.perf_counter() - began))
        assert len(found.series) == min(READ_POINTS, points // STREAMS)
    print(
        f"last {len(found.series):,} points of one stream: best {min(taken):.1f} ms, "
        f"median {np.median(taken):.1f} ms, worst {max(taken):.1f} ms"
    )
    began = time.perf_counter()
    read = sum(len(steps.series) for steps in store.steps_after(0))
    print(f"steps after a commit: {read / (time.perf_counter() - began):,.0f} points/s")
    began = time.perf_counter()
    newest = START + 15.0 * (points // STREAMS - 1)
    there = store.match_series(np.arange(1, 5_001), np.full(5_000, newest))
    assert there.all()
    print(f"whether 5,000 newest points are there: {1e3 * (time.perf_counter() - began):.0f} ms")


def measure_bytes(words: str, time_: np.ndarray, values: np.ndarray) -> None:
    """Print what merged parts of series (series, n) take, and the speed of their encoding."""
    score = np.full(values.shape, np.nan)
    for step in range(SCORED_OVER, values.shape[1]):
        past = values[:, step - SCORED_OVER : step]
        spread = past.std(axis=1)
        moved = np.abs(values[:, step] - past.mean(axis=1))
        score[:, step] = np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0)
    streams, steps = values.shape
    whole = SeriesSteps(
        series=np.repeat(np.arange(1, streams + 1), steps),
        step=np.tile(np.arange(steps), streams),
        time=np.tile(time_, streams),
        value=values.ravel(),
        score=score.ravel(),
        flags=(score.ravel() > 4).astype(np.uint8),
    )
    began = time.perf_counter()
    size = sum(
        len(encode_packed(whole.pick(slice(at, at + PACKED_PART))))
        for at in range(0, len(whole.series), PACKED_PART)
    )
    speed = len(whole.series) / (time.perf_counter() - began)
    print(
        f"{words}: {size / len(whole.series):.2f} bytes a point, {streams:,} series of {steps:,}, "
        f"encoded at {speed:,.0f} points/s"
    )


def measure_codec(recorded: str | None) -> None:
    """Print the bytes a point takes in synthetic and in recorded series."""
    draw = np.random.default_rng(4)
    moments = START + np.arange(1_000.0)
    walks = np.cumsum(draw.normal(size=(100, 1_000)), axis=1)
    measure_bytes("synthetic, random walks as they are", moments, walks)
    measure_bytes("synthetic, with two decimals", moments, np.round(walks, 2))
    measure_bytes("synthetic, constant", moments, np.full((100, 1_000), 0.1))
    if recorded:
        with np.load(recorded) as file:
            moments, values = file["time"], file["values"]
        still = (values == values[:, :1]).all(axis=1)
        rates = np.diff(values[~still], axis=1) / np.diff(moments)
        measure_bytes("recorded, constant", moments, values[still])
        measure_bytes("recorded, changing", moments, values[~still])
        measure_bytes("recorded, changing, as rates", moments[1:], rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=5_000_000)
    parser.add_argument("--recorded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_commits(folder)
        measure_codec(options.recorded)
        measure_history(folder, options.points)


if __name__ == "__main__":
    main()
