"""Points a second from a request's body to the durable commit, by the way in.

`python -m bench.fleet_service` (a minute). A request has one point of each series. Requests go into
the real monitor with a real store on this disk, one after the other. One thread does all of it:
reading, scoring, writing; only merging goes on beside it. Then a process that pushes is killed,
and the time is printed until another one has all series back. It needs the packages of the extra
`test`.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cramjam
import numpy as np
import pyarrow

from redline.engine.monitor import Monitor
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents
from redline.sources.directory import SeriesDirectory
from redline.sources.payload import parse_document, to_json
from redline.sources.point_bodies import parse_arrow, parse_points, parse_wide
from redline.sources.prometheus import WRITE_V1, read_remote_write
from redline.sources.samples import SampleBatch
from redline.storage.sqlite import SqliteStore
from tests.sources.remote_write_messages import encode_v1

NOW = 1_767_571_200.0  # seconds since the Unix epoch
PERIOD = 15.0  # seconds between two samples of a series
WARM_UP = 3  # rounds of all series before those that count
ROUNDS = 8  # rounds that count, of which the median is printed
MAX_SERIES = 1_000_000


class WayIn(NamedTuple):
    """How bodies are written and read."""

    name: str
    goal: int  # points a second
    write: Callable[[list[str], float, np.ndarray], bytes]
    read: Callable[[bytes, SeriesDirectory], SampleBatch]


def ndjson_body(names: list[str], at: float, values: np.ndarray) -> bytes:
    """Return an object a line, each a point."""
    points = zip(names, values.tolist())
    lines = (to_json({"source": name, "time": at, "value": value}) for name, value in points)
    return b"\n".join(lines)


def wide_body(names: list[str], at: float, values: np.ndarray) -> bytes:
    """Return one object with a number for each series."""
    return to_json({"time": at, "values": dict(zip(names, values.tolist()))})


def remote_write_body(names: list[str], at: float, values: np.ndarray) -> bytes:
    """Return a message of Prometheus."""
    series = [
        ({"__name__": "node_load1", "instance": name}, [(int(at * 1000), value)])
        for name, value in zip(names, values.tolist())
    ]
    return bytes(cramjam.snappy.compress_raw(encode_v1(series)))


def arrow_body(names: list[str], at: float, values: np.ndarray) -> bytes:
    """Return a stream of Arrow with one record batch."""
    times = pyarrow.array(np.full(len(names), int(at * 1000)), pyarrow.timestamp("ms", "UTC"))
    batch = pyarrow.record_batch({"source": names, "time": times, "value": values})
    stream = io.BytesIO()
    with pyarrow.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return stream.getvalue()


WAYS_IN = (
    WayIn("NDJSON", 250_000, ndjson_body, lambda b, d: parse_points(parse_document(b, True), d)),
    WayIn("wide form", 400_000, wide_body, lambda b, d: parse_wide(parse_document(b, False), d)),
    WayIn(
        "remote write", 400_000, remote_write_body, lambda b, d: read_remote_write(b, d, WRITE_V1)
    ),
    WayIn("Arrow", 1_000_000, arrow_body, parse_arrow),
)


def open_monitor(path: Path) -> Monitor:
    """Return a monitor on a store, as the server has it."""
    store = IncidentRecorder(Incidents(), SqliteStore(path))
    directory = SeriesDirectory(max_series=MAX_SERIES)
    monitor = Monitor({}, wall=lambda: NOW + 10**6, store=store, directory=directory)
    monitor.listeners.append(store.on_batches)
    monitor.process_pushed()
    assert monitor.series.restored
    return monitor


def bodies(way: WayIn, series: int, rounds: int) -> Iterator[bytes]:
    """Yield the body of each round, with a point of every series."""
    draw = np.random.default_rng(0)
    names = [f"host{i // 100:04d}-metric{i % 100:02d}" for i in range(series)]
    for step in range(rounds):
        values = np.round(draw.normal(20, 2, series), 2)
        yield way.write(names, NOW + step * PERIOD, values)


def take(monitor: Monitor, way: WayIn, body: bytes) -> None:
    """Read a body, score its points and commit them."""
    batch = way.read(body, monitor.series.directory)
    found = monitor.submit_series(batch.series, batch.time, batch.value)
    monitor.process_pushed()
    for _, receipt in found.taken:
        assert receipt.result(0).accepted == len(batch.series)


def measure(way: WayIn, series: int) -> None:
    """Print the points a second of one way in."""
    with tempfile.TemporaryDirectory() as folder:
        monitor = open_monitor(Path(folder) / "redline.db")
        seconds = []
        for step, body in enumerate(bodies(way, series, WARM_UP + ROUNDS)):
            began = time.perf_counter()
            take(monitor, way, body)
            if step >= WARM_UP:
                seconds.append(time.perf_counter() - began)
        pace = series / float(np.median(seconds))
        verdict = "met" if pace >= way.goal else "missed"
        print(
            f"| {way.name} | {series:,} | {pace:,.0f} | {way.goal:,} | {verdict} |",
            flush=True,
        )
        monitor.series.store.store.close()  # type: ignore[union-attr]


def measure_restart(series: int) -> None:
    """Print how long a process that was killed takes until another one has all series back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redline.db"
        command = [sys.executable, "-m", "bench.fleet_service", "--push", str(path)]
        command += ["--series", str(series)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20)]
            os.kill(process.pid, signal.SIGKILL)
        acknowledged = int(lines[-1])
        began = time.perf_counter()
        monitor = open_monitor(path)
        seconds = time.perf_counter() - began
        totals = monitor.series.totals
        lost = max(0, acknowledged - totals.points)
        print(f"restart of {totals.streams:,} series, killed under load: {seconds:.1f} s (<= 10), ")
        print(f"{acknowledged:,} points acknowledged, {lost} lost")


def push(path: Path, series: int) -> None:
    """Push for ever, and print how many points are acknowledged after each round."""
    monitor = open_monitor(path)
    way = WAYS_IN[1]
    taken = 0
    for body in bodies(way, series, 10**6):
        take(monitor, way, body)
        taken += series
        print(taken, flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, nargs="+", default=[5_000, 100_000])
    parser.add_argument("--push", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.push:
        push(chosen.push, chosen.series[0])
        return
    print("| way in | series | points/s, committed | goal | |")
    print("|---|---|---|---|---|")
    for series in chosen.series:
        for way in WAYS_IN:
            measure(way, series)
            gc.collect()
    measure_restart(max(chosen.series))


if __name__ == "__main__":
    main()
