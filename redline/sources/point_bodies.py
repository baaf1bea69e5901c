"""Points of many sources in one body, read to a batch of samples.

Three forms are read: the wide one, an object with one time and the values of any number of sources,
alone or in a list or one a line; single points, one value each, in a list or one a line; and
streams of Arrow IPC. These need no object for a source, so that a source costs a look at a table.

>>> directory = SeriesDirectory()
>>> batch = parse_wide({"time": 1767571200, "values": {"oven": 20.5, "pump": None}}, directory)
>>> [directory.texts[number] for number in batch.series], batch.value.tolist()
(['oven', 'pump'], [20.5, nan])
>>> point = {"source": "oven", "time": 1767571260, "value": 21}
>>> batch = parse_points([point], directory)
>>> batch.series.tolist(), batch.time.tolist(), batch.value.tolist()
([0], [1767571260.0], [21.0])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress
from operator import itemgetter
from typing import Any

import numpy as np

from redline.sources.arrow import read_arrow
from redline.sources.directory import SeriesDirectory
from redline.sources.payload import (
    SINGLE_FEATURE,
    BodyError,
    number_column,
    parse_time,
    time_column,
)
from redline.sources.pushed import SubmissionRefused, normal_name, validate_source_name
from redline.sources.samples import (
    ANY_TIME,
    INVALID_SERIES,
    MAX_REFUSALS,
    NO_ROOM,
    SampleBatch,
    TimeRange,
    make_batch,
)

WIDE_KEYS = frozenset(("time", "values"))
WIDE_FORM = 'an object such as {"time": 1767571200, "values": {"oven": 20.5, "pump": 3}}'
SINGLE_KEYS = ("source", "time", "value")
single_parts = itemgetter(*SINGLE_KEYS)


def is_wide(body: Any) -> bool:
    """Return whether a body is of the wide form: its first object names no source."""
    first = body[0] if isinstance(body, list) and body else body
    return isinstance(first, dict) and "values" in first and "source" not in first


def parse_wide(body: Any, directory: SeriesDirectory, allowed: TimeRange = ANY_TIME) -> SampleBatch:
    """Return the samples of a body in the wide form, or of a list of such objects.

    A source whose name is not allowed is left out and counted.

    Raises:
        BodyError: names the first part that is wrong.
    """
    items = body if isinstance(body, list) else [body]
    tables = []
    times = []
    for at, item in enumerate(items):
        where = f"[{at}]" if isinstance(body, list) else ""
        if not isinstance(item, dict) or item.keys() != WIDE_KEYS:
            raise BodyError(where or "body", WIDE_FORM, item)
        if type(item["values"]) is not dict:
            raise BodyError(f"{where}.values".lstrip("."), "numbers by source", item["values"])
        tables.append(item["values"])
        times.append(parse_time(item["time"], f"{where}.time".lstrip(".")))
    counts = list(map(len, tables))
    values = list(chain.from_iterable(table.values() for table in tables))
    value = number_column(values, "values")
    time = np.repeat(np.array(times, dtype=np.float64), counts)
    return batch_of_names(chain.from_iterable(tables), time, value, directory, allowed)


def parse_points(
    body: Any, directory: SeriesDirectory, allowed: TimeRange = ANY_TIME
) -> SampleBatch | None:
    """Return the samples of a list of single points.

    None where an item has another form, such as several features: `parse_submission` reads it, or
    says what is wrong with it.

    Raises:
        BodyError: names the first part that is wrong.
    """
    if not isinstance(body, list) or set(map(type, body)) != {dict}:
        return None
    try:
        names, times, values = zip(*map(single_parts, body), strict=True)
    except KeyError:
        return None
    if sum(map(len, body)) != len(SINGLE_KEYS) * len(body) or set(map(type, names)) != {str}:
        return None
    if list in set(map(type, times)):  # columns of one source
        return None
    value = number_column(list(values), "value")
    return batch_of_names(names, time_column(times, "time"), value, directory, allowed)


def parse_arrow(
    body: bytes, directory: SeriesDirectory, allowed: TimeRange = ANY_TIME
) -> SampleBatch:
    """Return the samples of a stream of Arrow IPC.

    A source whose name is not allowed is left out and counted.

    Raises:
        SubmissionRefused: names the first part that is wrong.
        ImportError: a library that it needs is missing; says what to install.
    """
    refusals: list[SubmissionRefused] = []
    parts = []
    for points in read_arrow(body):
        if points.place is None:
            series = numbers_of(points.names, directory, refusals)
        else:
            series = numbers_at(points.names, points.place, directory, refusals)
        parts.append((series, points.time, points.value))
    if not sum(len(series) for series, _, _ in parts):
        raise SubmissionRefused("body", "one point or more", "none")
    series, time, value = map(np.concatenate, zip(*parts))
    return make_batch(series, time, value, allowed, refusals=refusals)


def numbers_at(
    names: Sequence[str],
    place: np.ndarray,
    directory: SeriesDirectory,
    refusals: list[SubmissionRefused],
) -> np.ndarray:
    """Return the number of the source at each place (n,) among names, (n,) int64.

    A name without a place, as a dictionary may have it, makes no series.
    """
    used = np.zeros(len(names), bool)
    used[place] = True
    if used.all():
        numbers = numbers_of(names, directory, refusals)
        return np.asarray(numbers[place])
    numbers = np.zeros(len(names), np.int64)
    numbers[used] = numbers_of(list(compress(names, used.tolist())), directory, refusals)
    return np.asarray(numbers[place])


def batch_of_names(
    names: Iterable[str],
    time: np.ndarray,
    value: np.ndarray,
    directory: SeriesDirectory,
    allowed: TimeRange,
) -> SampleBatch:
    """Return the batch of these sources, times (n,) in seconds and values (n,)."""
    refusals: list[SubmissionRefused] = []
    series = numbers_of(list(names), directory, refusals)
    return make_batch(series, time, value, allowed, refusals=refusals)


def numbers_of(
    names: Sequence[str], directory: SeriesDirectory, refusals: list[SubmissionRefused]
) -> np.ndarray:
    """Return the numbers of sources, (n,) int64; what is refused is added to the refusals."""
    door = directory.door("points")
    numbers = list(map(door.get, names))
    if None in numbers:
        for at, number in enumerate(numbers):
            if number is None:
                numbers[at] = new_source(names[at], directory, refusals)
    return np.array(numbers, dtype=np.int64)


def new_source(name: str, directory: SeriesDirectory, refusals: list[SubmissionRefused]) -> int:
    """Return the number of a source that is new to the directory.

    One that is refused is not remembered, so that it is refused again when it comes again.
    """
    try:
        validate_source_name(name, SINGLE_FEATURE)
        number = directory.number(normal_name(name))
        if number == NO_ROOM:
            wanted = f"at most {directory.max_series:,} names of sources"
            raise SubmissionRefused("source", wanted, f"another, {name!r}")
    except SubmissionRefused as refusal:
        if len(refusals) < MAX_REFUSALS:
            refusals.append(refusal)
        return INVALID_SERIES
    directory.remember(directory.door("points"), name, number)
    return number
