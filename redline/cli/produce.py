"""The command `produce`: writes a simulated stream or a CSV file to a Kafka topic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from redline.cli.errors import UsageError, usage_errors
from redline.cli.output import print_status
from redline.sources.arrow_writer import write_arrow
from redline.sources.csv import read_csv
from redline.sources.kafka import (
    MISSING_KAFKA,
    TopicOptions,
    TopicProducer,
    check_brokers,
    check_topic_name,
    find_trouble,
    has_kafka,
    read_client_config,
)
from redline.sources.payload import SINGLE_FEATURE, to_json
from redline.sources.pushed import validate_source_name
from streams import STREAMS, Chunk, Stream

TAKEN_STEPS = 1_000  # that a stream gives at once
FLUSH_SECONDS = 30.0  # that a broker may take to acknowledge what was written


@dataclass(frozen=True)
class ProduceChoices:
    """What is written, and where to."""

    kafka: str
    topic: str
    csv: Path | None = None
    stream: str | None = None
    steps: int | None = None  # None: all of a file, 1,000 of a simulated stream
    block: int = 0  # points of a record of Arrow, 0 = a JSON event a record
    rate: float = 0.0  # steps a second, 0 = as fast as it goes
    seed: int = 0
    source: str | None = None  # its name in the records; None = that of the stream or file
    kafka_config: str | None = None


def produce_records(choices: ProduceChoices) -> None:
    """Write the records, and say how many.

    Raises:
        UsageError: a wrong choice; OSError: the broker does not take them.
    """
    with usage_errors():
        stream, name = open_stream(choices)
        names = source_names(name, stream.names)
        options = TopicOptions(
            check_brokers(choices.kafka),
            check_topic_name("topic", choices.topic),
            "",
            config=read_client_config(choices.kafka_config),
        )
        for each in names:
            validate_source_name(each, SINGLE_FEATURE)
    if not has_kafka():
        raise UsageError(MISSING_KAFKA)
    producer = TopicProducer(options)
    if trouble := find_trouble(producer.producer, options):
        raise OSError(trouble)
    began = time.monotonic()
    records = points = 0
    waiting: list[Future[None]] = []
    for record, count in record_values(stream, name, choices):
        if choices.rate:
            due = began + points / len(names) / choices.rate
            time.sleep(max(0.0, due - time.monotonic()))
        waiting.append(producer.write(options.topic, record(), name.encode()))
        if len(waiting) >= TAKEN_STEPS:
            waiting = check_written(waiting)
        records += 1
        points += count
    if producer.flush(FLUSH_SECONDS):
        raise OSError(f"not all is written: no Kafka broker answers at {options.brokers}")
    check_written(waiting)
    seconds = max(time.monotonic() - began, 1e-9)
    print_status(
        f"wrote {records:,} records with {points:,} points of {name} to {options.topic} "
        f"({points / seconds:,.0f} points a second)"
    )


def open_stream(choices: ProduceChoices) -> tuple[Stream, str]:
    """Return what is written, and its name."""
    if (choices.csv is None) == (choices.stream is None):
        raise ValueError("say what is written: either --csv FILE or --stream NAME")
    if choices.csv is not None:
        recording = read_csv(choices.csv)
        return recording, choices.source or choices.csv.stem
    if choices.stream not in STREAMS:
        raise ValueError(f"--stream: wanted one of {', '.join(STREAMS)}; came {choices.stream!r}")
    return STREAMS[choices.stream](seed=choices.seed), choices.source or f"{choices.stream}-1"


def source_names(name: str, features: tuple[str, ...]) -> list[str]:
    """Return the names of the sources of a block: one for each feature.

    >>> source_names("oven", ("value",)), source_names("oven", ("temp", "load"))
    (['oven'], ['oven.temp', 'oven.load'])
    """
    return [name] if len(features) == 1 else [f"{name}.{feature}" for feature in features]


def record_values(
    stream: Stream, name: str, choices: ProduceChoices
) -> Iterator[tuple[Callable[[], bytes], int]]:
    """Yield for each record the function that makes it and the number of its points.

    It is made when it is due: under a rate a simulated step gets the time of that moment.
    """
    stamped = bool(choices.rate) and choices.csv is None
    steps = choices.steps or (math.inf if choices.csv is not None else TAKEN_STEPS)
    names = source_names(name, stream.names)
    rows = max(1, choices.block // len(names)) if choices.block else 1
    while steps > 0:
        size = int(min(steps, rows if choices.block else TAKEN_STEPS))
        chunk = stream.take(size)
        if not len(chunk.time):
            return
        steps -= len(chunk.time)
        for begin in range(0, len(chunk.time), rows):
            part = Chunk(chunk.time[begin : begin + rows], chunk.x[begin : begin + rows], None)
            if choices.block:
                yield partial(block, names, part, stamped), part.x.size
            else:
                yield partial(event, name, stream.names, part, stamped), part.x.size


def now(part: Chunk, stamped: bool) -> np.ndarray:
    """Return the times (n,) of some steps, or those until now, a millisecond apart."""
    if not stamped:
        return part.time
    return time.time() - 1e-3 * np.arange(len(part.time))[::-1]


def block(names: list[str], part: Chunk, stamped: bool) -> bytes:
    """Return some steps as a block of Arrow."""
    return write_arrow(names, now(part, stamped), part.x)


def event(name: str, features: tuple[str, ...], part: Chunk, stamped: bool) -> bytes:
    """Return one step as a JSON event."""
    found = {"source": name, "time": now(part, stamped)[0].item()}
    values = part.x[0].tolist()
    if len(features) == 1:
        return to_json({**found, "value": values[0]})
    return to_json({**found, "values": dict(zip(features, values))})


def check_written(waiting: list[Future[None]]) -> list[Future[None]]:
    """Return those that are not written yet; raise the error of one that will not be."""
    left = []
    for each in waiting:
        if each.done():
            each.result()
        else:
            left.append(each)
    return left
