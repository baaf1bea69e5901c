"""Prints the service table: points scored and committed a second, recovery after kill -9, a history
query, event-stream clients.

`python -m bench.service` (a few minutes), `--quick` for a look, `--only submit` for one part;
beside each figure stands its goal. `--only retention` takes ten minutes and runs only when asked.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.followers import deliver, pushed
from redline.engine.monitor import Limits, Monitor
from redline.storage.retention import Retention
from redline.storage.sqlite import SqliteStore

ROOT = Path(__file__).parents[1]
START = 1_700_000_000.0  # seconds since the epoch


class Row(NamedTuple):
    """One figure beside its goal."""

    figure: str
    measured: str
    goal: str
    met: bool | None  # None = no goal of its own


@contextmanager
def watched() -> Iterator[tuple[Monitor, SqliteStore]]:
    """A monitor on a fresh store, its loop played by the caller, so that one core does it all."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "redline.db")
        limits = Limits(streams=10_000, features=10_000, client_streams=10_000)
        yield Monitor({}, wall=lambda: START + 1e9, store=store, limits=limits), store
        store.close()


def push(monitor: Monitor, points: int, sources: int, batch: int) -> tuple[float, float]:
    """Points a second of processor time and of the clock, through submit, score, commit and
    receipt; each source sends `batch` at once.
    """
    x = np.random.default_rng(1).normal(size=(points // sources, 1))
    t = START + np.arange(len(x), dtype=float)
    warm = [monitor.submit(f"source {i}", t[:1] - 1, x[:1]) for i in range(sources)]
    monitor.process_pushed()
    began = time.process_time(), time.perf_counter()
    for first in range(0, len(x), batch):
        part = slice(first, first + batch)
        receipts = [monitor.submit(f"source {i}", t[part], x[part]) for i in range(sources)]
        monitor.process_pushed()
        assert all(receipt.done() for receipt in receipts + warm)
    done = len(x) * sources
    return done / (time.process_time() - began[0]), done / (time.perf_counter() - began[1])


def submit(quick: bool) -> list[Row]:
    """One source and many, big and small batches."""
    points = 400_000 if quick else 2_000_000
    shapes = [
        (1, 10_000),
        (1, 1_000),
        (100, 1_000),
        (1_000, 200),
        (1_000, 100),
        (1_000, 10),
        (5_000, 1),
    ]
    rows = []
    for sources, batch in shapes:
        with watched() as (monitor, _):
            rate, clock = push(
                monitor, max(points // (1 if batch > 50 else 20), sources * batch), sources, batch
            )
        goal = 200_000 if batch >= 200 else None
        name = (
            f"submit, {sources:,} source{'s' * (sources > 1)} x {batch:,} points a batch, "
            "scored and committed"
        )
        rows.append(
            Row(
                name,
                f"{rate:,.0f} points/s of one core ({clock:,.0f} by the clock)",
                f">= {goal:,}" if goal else "",
                rate >= goal if goal else None,
            )
        )
    return rows


def history(quick: bool) -> list[Row]:
    """The last 10,000 points of one stream of 1,000, pushed in turns of ten points so that its
    chunks lie far apart.
    """
    points = 1_000_000 if quick else 10_000_000
    sources = points // 10_000
    with watched() as (monitor, store):
        x = np.random.default_rng(1).normal(size=(10_000, 1))
        t = START + np.arange(len(x), dtype=float)
        for first in range(0, len(x), 50):
            part = slice(first, first + 50)
            for i in range(sources):
                monitor.submit(f"source {i}", t[part], x[part])
            monitor.process_pushed()
        spent = []
        for i in range(0, sources, max(1, sources // 50)):
            began = time.perf_counter()
            found = store.points(f"source {i}", limit=10_000)
            spent.append(time.perf_counter() - began)
            assert found is not None and len(found.time) == 10_000
        size = store.path.stat().st_size
    slow = 1_000 * float(np.quantile(spent, 0.95))
    name = f"history query, last 10,000 points of one stream in {points // 10**6} M rows, p95"
    return [
        Row(
            name,
            f"{slow:.1f} ms ({size / points:.0f} bytes a point on disk)",
            "<= 30 ms",
            slow <= 30,
        )
    ]


def kill(quick: bool) -> list[Row]:
    """The kill test, run as the suite runs it."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/engine/test_durable.py",
        "-q",
        "-s",
        "-k",
        "kill",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    # a suite on a busy machine judges the median, the table the slowest
    said = [
        line.removeprefix("kill test: ")
        for line in done.stdout.splitlines()
        if line.startswith("kill test: ")
    ]
    goal = "25 kills: 0 lost, 0 doubled, bit-equal, back within 2 s"
    slowest = float(said[-1].partition("back within ")[2].split()[0]) if said else np.inf
    return [
        Row(
            "kill -9 at random under load",
            said[-1] if said else done.stdout[-300:],
            goal,
            done.returncode == 0 and slowest <= 2.0,
        )
    ]


def http(quick: bool) -> list[Row]:
    """Columns through a real server: reading JSON and answering are part of it."""
    rows = []
    for batch, points in ((10_000, 1_000_000), (1_000, 200_000)):
        rate, clock = pushed(points // (4 if quick else 1), batch)
        goal = 200_000 if batch == 10_000 else None
        name = f"POST /api/submit, columns of {batch:,} points, one client"
        said = f"{rate:,.0f} points/s of one core ({clock:,.0f} by the clock)"
        rows.append(Row(name, said, f">= {goal:,}" if goal else "", rate >= goal if goal else None))
    return rows


def events(quick: bool) -> list[Row]:
    """500 clients of the event stream, 10 of them not reading."""
    clients, stalled, seconds = (100, 5, 20.0) if quick else (500, 10, 60.0)
    found = deliver(clients, stalled, seconds)
    p50, p99 = np.quantile(found.late, (0.5, 0.99))
    said = (
        f"p50 {1_000 * p50:.0f} ms, p99 {1_000 * p99:.0f} ms over {found.events:,} events; "
        f"server {100 * found.share:.0f} % of a core"
    )
    told = f"{found.slow} let go and counted, memory +{found.grown:.0f} MiB"
    enough = bool(found.slow == stalled and found.grown < 100)
    held = (
        f"longest work in one turn {found.heart[0]:.0f} ms; one turn in a hundred came "
        f"{found.heart[1]:.0f} ms late"
    )
    name = f"event stream, {clients} clients, {stalled} not reading"
    return [
        Row(f"{name}: delivery", said, "p99 <= 1 s", p99 <= 1),
        Row(f"{name}: the slow ones", told, "counted, memory bounded", enough),
        Row(
            f"{name}: the server's event loop", held, "no turn works > 50 ms", found.heart[0] <= 50
        ),
    ]


def retention(quick: bool) -> list[Row]:
    """1,000 sources at 10 points a second for ten minutes, twice what may be kept."""
    sources, rate, kept, minutes = 1_000, 10, 3_000_000, 3 if quick else 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redline.db"
        store = SqliteStore(path, keep=Retention(rows=kept))
        limits = Limits(streams=sources, features=sources)
        monitor = Monitor({}, store=store, limits=limits)
        monitor.start()
        stored = [points_stored(path) for _ in paced_pushes(monitor, sources, rate, 60 * minutes)]
        monitor.stop()
        store.close()
    pushed_in_all = sources * rate * 60 * minutes
    allowed = kept + sources * rate * 60  # a pass a minute
    said = f"{max(stored):,} at most, {stored[-1]:,} at the end, of {pushed_in_all:,} pushed"
    goal = f"<= {kept:,} and the points of a minute"
    name = f"points stored under a limit of {kept:,}, {sources * rate:,} points/s"
    return [Row(name, said, goal, max(stored) <= allowed)]


def paced_pushes(monitor: Monitor, sources: int, rate: int, seconds: int) -> Iterator[int]:
    """Push `rate` points a second into each source, ten seconds at once; yield each second."""
    began, wall = time.monotonic(), time.time()
    x = np.random.default_rng(1).normal(size=(10 * rate, 1))
    for second in range(seconds):
        t = wall + second - 10 + np.arange(10 * rate) / rate
        for i in range(second % 10, sources, 10):  # a tenth of them at a time
            monitor.submit(f"source {i}", t, x)
        yield second
        time.sleep(max(began + second + 1 - time.monotonic(), 0))


def points_stored(path: Path) -> int:
    """Return how many points the store holds."""
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT coalesce(sum(n), 0) FROM points").fetchone()[0])


PARTS: dict[str, Callable[[bool], list[Row]]] = {
    "submit": submit,
    "http": http,
    "history": history,
    "events": events,
    "kill": kill,
    "retention": retention,
}
ONLY_WHEN_ASKED = "retention"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.service", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the points")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    asked = parser.parse_args()
    print("| figure | measured | goal | |\n|---|---|---|---|", flush=True)
    missed = 0
    for name, part in PARTS.items():
        wanted = name == asked.only if asked.only else name != ONLY_WHEN_ASKED
        for row in part(asked.quick) if wanted else ():
            missed += row.met is False
            print(
                (
                    f"| {row.figure} | {row.measured} | {row.goal} | "
                    f"{'' if row.met is None else 'met' if row.met else 'missed'} |"
                ),
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
