"""A real Kafka broker to a real server: how many records and points a second of the server's
processor reach its SQLite store, and how late a single event is seen.

`python -m bench.kafka` prints both. The broker (`make servers`) and the writer of the records run
beside the server; their own time does not count, but they take theirs of a machine of few cores.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from bench.followers import Follower, Server, serving
from bench.kafka_broker import KafkaBroker, missing
from redline.sources.arrow_writer import write_arrow
from tests.sources.arrow_streams import point_batch, write_stream

START = 1_767_571_200  # seconds since the epoch
SOURCES = 1_000
EVENTS = 300_000  # records of one point
BLOCKS = 2_000  # records of 1,000 points: one of each source
RATE = 100.0  # events a second, to see how late they come
SECONDS = 40.0  # so long
LEARNED = 150  # points of a source before
PATIENCE = 300.0  # seconds


def single_events() -> list[bytes]:
    """Return a JSON event for each point, of one source after the other."""
    draw = np.random.default_rng(1).normal(size=EVENTS).round(4).tolist()
    return [
        f'{{"source":"s{at % SOURCES}","time":{START + at // SOURCES},"value":{value}}}'.encode()
        for at, value in enumerate(draw)
    ]


def blocks() -> list[bytes]:
    """Return blocks of Arrow with a row for each point, one of each source."""
    draw = np.random.default_rng(1).normal(size=(BLOCKS, SOURCES))
    names = pa.array([f"s{at}" for at in range(SOURCES)]).dictionary_encode()
    return [
        write_stream(point_batch(names, pa.array(np.full(SOURCES, START + at)), pa.array(x)))
        for at, x in enumerate(draw)
    ]


def topic_status(server: Server) -> dict[str, Any]:
    """Return what the server says of its topic."""
    found: dict[str, Any] = server.ask("/api/status")["kafka"]
    return found


def wait_for(server: Server, look: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the status of the topic once a look finds something in it."""
    until = time.monotonic() + PATIENCE
    while not look(found := topic_status(server)):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def throughput(broker: KafkaBroker, name: str, records: list[bytes]) -> str:
    """Return a sentence: records that are in the topic are read to the store."""
    topic = broker.make_topic(f"bench-{name}")
    broker.write(topic, records)
    began = time.perf_counter()
    with serving("--kafka", broker.address, "--topic", topic, "--kafka-group", topic) as server:
        wait_for(server, lambda found: found["records"])
        spent = server.seconds
        first = topic_status(server)["records"]
        began = time.perf_counter()
        total = len(records)
        found = wait_for(server, lambda found: found["records"] == total and not found["waiting"])
        seconds = server.seconds - spent
        wall = time.perf_counter() - began
    done = total - first
    points = done * found["points"] / total
    assert found["repeated"] == found["refused"] == 0
    return (
        f"{name}: {done / seconds:,.0f} records and {points / seconds:,.0f} points a "
        f"CPU-second of the server ({done / wall:,.0f} and {points / wall:,.0f} a second of the "
        f"clock, {total:,} records)"
    )


def configure(server: Server, change: dict[str, Any]) -> None:
    """Apply settings to a source."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/configure",
        json.dumps(change).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60):
        pass


async def follow_events(server: Server, write: Callable[[], None]) -> np.ndarray:
    """Return how late the anomalies come, (n,) seconds, while a function writes events."""
    late: list[float] = []
    loop = asyncio.get_running_loop()
    line, _ = await loop.create_connection(
        lambda: Follower(late, reads=True), "127.0.0.1", server.port
    )
    await asyncio.to_thread(write)
    await asyncio.sleep(2)
    line.abort()
    return np.array(late)


def latency(broker: KafkaBroker) -> str:
    """Return a sentence: from the time of an event to that at which a follower sees it.

    A follower sees anomalies, so the threshold is low and each source swings: about half of the
    events are anomalies.
    """
    from confluent_kafka import Producer

    topic = broker.make_topic("bench-late")
    now = time.time() - LEARNED
    draw = np.random.default_rng(2)
    names = [f"s{at}" for at in range(10)]
    x = draw.normal(size=(LEARNED, len(names)))
    broker.write(topic, [write_arrow(names, now - 1 + np.arange(LEARNED), x)])
    producer = Producer({"bootstrap.servers": broker.address, "log_level": "0", "linger.ms": 0})

    def write() -> None:
        begin = time.monotonic()
        for at in range(int(RATE * SECONDS)):
            time.sleep(max(0.0, begin + at / RATE - time.monotonic()))
            value = float(draw.normal(0, 3))
            event = {"source": names[at % len(names)], "time": time.time(), "value": value}
            producer.produce(topic, json.dumps(event).encode())
            producer.poll(0)
        producer.flush(10)

    with serving("--kafka", broker.address, "--topic", topic, "--kafka-group", topic) as server:
        wait_for(server, lambda found: found["points"] == LEARNED * len(names))
        for name in names:
            body = {"source": name, "detector": "EWMA", "window": 120, "threshold": 1.5}
            configure(server, body)
        late = asyncio.run(follow_events(server, write))
    middle, worst = 1e3 * np.percentile(late, [50, 99])
    return (
        f"a single event, {RATE:g} a second: {middle:.0f} ms p50, {worst:.0f} ms p99 from its time "
        f"to a follower of the anomalies ({len(late):,} of them)"
    )


def main() -> None:
    """Print the figures."""
    if reason := missing():
        raise SystemExit(reason)
    broker = KafkaBroker()
    try:
        broker.start()
        for name, records in (("single-events", single_events()), ("blocks", blocks())):
            print(throughput(broker, name, records), flush=True)
        print(latency(broker))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
