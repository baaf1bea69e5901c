"""Samples a second of each reader that turns what other programs send into arrays.

    python -m bench.doors                  all of them, about a minute
    python -m bench.doors --churn 10       and 10 million distinct label sets against the directory

One request holds 5,000 series with one sample each. Figures are of processor time: "new" is the
first request, in which every series is parsed, "known" the best of the others. Peers do what a
program would do with the usual library; one that is not installed is shown as "-". It needs the
packages of the extra `test`; the peer of exposition pages is prometheus_client.
"""

from __future__ import annotations

import argparse
import importlib
import math
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import cramjam
import numpy as np
import psutil

from redline.sources.directory import SeriesDirectory
from redline.sources.exposition import read_exposition
from redline.sources.influx import read_line_protocol
from redline.sources.payload import parse_document, parse_submission, to_json
from redline.sources.point_bodies import parse_points, parse_wide
from redline.sources.prometheus import WRITE_V1, WRITE_V2, read_remote_write
from redline.sources.rates import CounterRates
from redline.sources.samples import SampleBatch
from tests.sources.remote_write_messages import WriteRequest, encode_v1, encode_v2

SERIES = 5_000
REQUESTS = 4  # different ones, sent in turns
ROUNDS = 40
NOW = 1_767_571_200  # seconds since the epoch
HOSTS = 50
GOAL = "400,000"
RNG = random.Random(0)


class Door(NamedTuple):
    """One reader with what it reads."""

    name: str
    goal: str
    bodies: list[bytes]
    read: Callable[[bytes, SeriesDirectory], SampleBatch | None]
    peer: tuple[str, Callable[[bytes], Any]] | None = None


def label_sets() -> list[dict[str, str]]:
    """Return the labels of series as a node exporter has them."""
    return [
        {
            "__name__": f"node_metric_{i // HOSTS:03d}_seconds_total",
            "cpu": str(i % 8),
            "instance": f"host-{i % HOSTS:02d}.example.com:9100",
            "job": "node",
            "mode": "user",
        }
        for i in range(SERIES)
    ]


def draw_value() -> float:
    """Return a value; three of ten are 0, as among real metrics."""
    return 0.0 if RNG.random() < 0.3 else RNG.random() * 100


def remote_write_bodies(encode: Callable[..., bytes]) -> list[bytes]:
    """Return requests of remote write."""
    found = []
    for at in range(REQUESTS):
        moment = (NOW + 15 * at) * 1_000
        series = [(labels, [(moment, draw_value())]) for labels in label_sets()]
        found.append(bytes(cramjam.snappy.compress_raw(encode(series))))
    return found


def decode_with_protobuf(body: bytes) -> Any:
    """Return what a program makes of a request with the protobuf library: keys, times, values."""
    message = WriteRequest()
    message.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    keys = {}
    numbers = []
    times = []
    values = []
    for series in message.timeseries:
        key = tuple((label.name, label.value) for label in series.labels)
        for sample in series.samples:
            numbers.append(keys.setdefault(key, len(keys)))
            times.append(sample.timestamp)
            values.append(sample.value)
    return np.array(numbers), np.array(times) / 1_000, np.array(values)


def exposition_pages() -> list[bytes]:
    """Return pages of a target."""
    rows = []
    for labels in label_sets():
        pairs = ",".join(f'{name}="{value}"' for name, value in labels.items() if name[0] != "_")
        rows.append(f"{labels['__name__']}{{{pairs}}} ")
    return ["".join(f"{row}{draw_value()!r}\n" for row in rows).encode() for _ in range(REQUESTS)]


def parse_with_client(page: bytes) -> Any:
    """Return the families that Prometheus's own client library finds."""
    parser = importlib.import_module("prometheus_client.parser")
    return list(parser.text_string_to_metric_families(page.decode()))


def influx_bodies(fields: int) -> list[bytes]:
    """Return bodies of the line protocol with so many fields a line."""
    found = []
    for at in range(REQUESTS):
        moment = (NOW + 10 * at) * 10**9
        rows = [
            f"cpu,cpu=cpu{i % 8},host=host-{i // 8} "
            + ",".join(f"usage_{f}={draw_value()!r}" for f in range(fields))
            + f" {moment}"
            for i in range(SERIES // fields)
        ]
        found.append("\n".join(rows).encode())
    return found


def point_bodies(wide: bool) -> list[bytes]:
    """Return bodies of JSON: the wide form, or a point a line."""
    names = [f"host-{i % HOSTS:02d}.metric-{i // HOSTS}" for i in range(SERIES)]
    found = []
    for at in range(REQUESTS):
        moment = NOW + 15 * at
        values = {name: draw_value() for name in names}
        points = [
            {"source": name, "time": moment, "value": value} for name, value in values.items()
        ]
        lines = b"\n".join(map(to_json, points))
        found.append(to_json({"time": moment, "values": values}) if wide else lines)
    return found


def doors() -> list[Door]:
    """Return all readers."""
    return [
        Door(
            "remote write 1.0",
            GOAL,
            remote_write_bodies(encode_v1),
            lambda body, directory: read_remote_write(body, directory, WRITE_V1),
            ("protobuf", decode_with_protobuf),
        ),
        Door(
            "remote write 2.0",
            GOAL,
            remote_write_bodies(encode_v2),
            lambda body, directory: read_remote_write(body, directory, WRITE_V2),
        ),
        Door(
            "exposition page",
            "-",
            exposition_pages(),
            lambda body, directory: read_exposition(body, directory, NOW),
            ("prometheus_client", parse_with_client),
        ),
        *(
            Door(
                f"Influx, {fields} field{'s' * (fields > 1)} a line",
                "-",
                influx_bodies(fields),
                lambda body, directory: read_line_protocol(body, directory, NOW),
            )
            for fields in (1, 5)
        ),
        Door(
            "wide JSON",
            GOAL,
            point_bodies(wide=True),
            lambda body, directory: parse_wide(parse_document(body), directory),
        ),
        Door(
            "JSON lines",
            "250,000",
            point_bodies(wide=False),
            lambda body, directory: parse_points(parse_document(body, lines=True), directory),
            ("parse_submission", lambda body: parse_submission(parse_document(body, lines=True))),
        ),
    ]


def best_seconds(work: Callable[[bytes], Any], bodies: list[bytes], rounds: int) -> float:
    """Return the least seconds of several calls, on the bodies in turns."""
    least = math.inf
    for at in range(rounds):
        began = time.thread_time()
        work(bodies[at % len(bodies)])
        least = min(least, time.thread_time() - began)
    return least


def measure(door: Door) -> None:
    """Print the line of one reader."""
    directory = SeriesDirectory()
    began = time.thread_time()
    batch = door.read(door.bodies[0], directory)
    new = time.thread_time() - began
    assert batch is not None and len(batch.series) == len(directory.texts) == SERIES
    known = best_seconds(lambda body: door.read(body, directory), door.bodies, ROUNDS)
    peer = "-"
    if door.peer is not None:
        try:
            seconds = best_seconds(door.peer[1], door.bodies, ROUNDS // 8)
            peer = f"{SERIES / seconds:,.0f} {door.peer[0]}"
        except ImportError:
            peer = f"- {door.peer[0]}"
    size = len(door.bodies[0]) / SERIES
    print(
        f"{door.name:<24}{door.goal:>9}{SERIES / known:>12,.0f}{SERIES / new:>11,.0f}"
        f"{size:>8.0f}  {peer}",
        flush=True,
    )


def measure_rates() -> None:
    """Print how many counters a second become rates."""
    rates = CounterRates()
    columns = np.random.default_rng(0).permutation(SERIES)
    value = np.arange(SERIES, dtype=np.float64)
    seconds = math.inf
    for at in range(ROUNDS):
        began = time.thread_time()
        rates.update(columns, np.full(SERIES, float(NOW + at)), value + at)
        seconds = min(seconds, time.thread_time() - began)
    print(f"{'counters to rates':<24}{'-':>9}{SERIES / seconds:>12,.0f}")


def measure_directory(churn: int) -> None:
    """Print the memory of known series, then of distinct label sets without end."""
    bodies = []
    for at in range(20):
        series = [(labels | {"shard": str(at)}, [(NOW * 1_000, 1.0)]) for labels in label_sets()]
        bodies.append(bytes(cramjam.snappy.compress_raw(encode_v1(series))))
    tracemalloc.start()
    directory = SeriesDirectory()
    for body in bodies:
        read_remote_write(body, directory)
    size = tracemalloc.get_traced_memory()[0] / len(directory.texts)
    tracemalloc.stop()
    print(f"{len(directory.texts):,} series take {size:,.0f} bytes each, names and entries")
    before = resident()
    door = directory.door("churn")
    began = time.thread_time()
    for at in range(churn):
        raw = b'churn{pod="%030d"}' % at
        if door.get(raw) is None:
            directory.remember(door, raw, directory.number(raw.decode()))
    if churn:
        print(
            f"{churn:,} distinct series in {time.thread_time() - began:.0f} s: "
            f"{len(directory.numbers):,} numbered, {directory.counts['refused']:,} refused, "
            f"doors emptied {directory.counts['doors emptied']} times; "
            f"{(resident() - before) / 2**20:,.0f} MiB more"
        )


def resident() -> int:
    """Return the bytes that the process has in memory."""
    return psutil.Process().memory_info().rss


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--churn", type=float, default=0, help="millions of distinct label sets")
    chosen = options.parse_args()
    print(f"{'samples a second':<24}{'goal':>9}{'known':>12}{'new':>11}{'bytes':>8}  peer")
    for door in doors():
        measure(door)
    measure_rates()
    measure_directory(int(1e6 * chosen.churn))


if __name__ == "__main__":
    main()
