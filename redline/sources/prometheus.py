"""Prometheus remote write, versions 1.0 and 2.0, read to batches of samples.

A message is a list of series with their samples. Most of them are known series with one sample:
these are found by walking over the lengths, looked up by the bytes of their labels, and their
samples read with numpy, all at once. Any other series is read field by field.

Nothing is taken on trust: lengths and counts are checked before room is made for what they
announce. A message that is broken, or beyond a limit, is refused as a whole; a series whose labels
are not allowed is left out and counted.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from redline.sources.compression import decompress_block
from redline.sources.directory import Door, SeriesDirectory
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import (
    ANY_TIME,
    INVALID_SERIES,
    MAX_REFUSALS,
    SampleBatch,
    TimeRange,
    make_batch,
)
from redline.sources.series import MAX_LABEL_NAME, METRIC_LABEL, series_key
from redline.sources.wire import (
    BYTES,
    FIXED64,
    VARINT,
    fields,
    read_varint,
    signed,
    wire_error,
)

TYPE_NAMES = (
    *("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info"),
    "stateset",
)
LEFT_OUT_V1 = {3: "exemplar", 4: "native histogram"}  # fields of a series
LEFT_OUT_V2 = {3: "native histogram", 4: "exemplar"}
WRITE_V1 = "prometheus.WriteRequest"
WRITE_V2 = "io.prometheus.write.v2.Request"
# of a sample that ends a series: the tag of the field and the length of the message before it, the
# tags of value and time within it; the time is a varint of 6 bytes from 1971-02 to 2109-05
SAMPLE_SIZE = 18  # bytes: 12 10 09 value(8) 10 time(6)
ZERO_SIZE = 9  # bytes: 12 07 10 time(6); a value of 0 is not sent
SAMPLE_BYTES = np.arange(-SAMPLE_SIZE, 0)
TIME_SHIFTS = np.arange(0, 42, 7)
DOUBLE = struct.Struct("<d")
LONGEST_ENDING = 64  # bytes after a sample that are remembered within a message
SHORTEST_LABEL = 6  # bytes of a label with empty name and value
MAX_REFERENCE = 5  # bytes of a reference, a varint of 32 bits
SMALLEST_SERIES = 20  # bytes; a shorter one has no labels, or no sample


class RemoteWriteLimits(NamedTuple):
    """The limits of one request."""

    compressed: int = 8 * 2**20  # bytes
    size: int = 64 * 2**20  # bytes, decompressed
    series: int = 100_000
    samples: int = 250_000
    fields: int = 1_000_000  # of all that is read field by field
    symbols: int = 200_000  # of version 2.0
    families: int = 20_000  # metric families whose type is given


DEFAULT_LIMITS = RemoteWriteLimits()


def read_remote_write(
    body: bytes,
    directory: SeriesDirectory,
    version: str = WRITE_V1,
    allowed: TimeRange = ANY_TIME,
    limits: RemoteWriteLimits = DEFAULT_LIMITS,
) -> SampleBatch:
    """Return the samples of a request's body, a message compressed with Snappy.

    Args:
        body: the body as it came.
        directory: gives the series their numbers.
        version: the message that the request's type names.
        allowed: the times that are taken.
        limits: of the request.

    Raises:
        SubmissionRefused: not such a message, or beyond a limit.
        ImportError: the library for Snappy is missing; says what to install.
    """
    data = decompress_block(body, limits.compressed, limits.size)
    if version == WRITE_V1:
        return read_write_request(data, directory, allowed, limits)
    if version == WRITE_V2:
        return read_write_request_v2(data, directory, allowed, limits)
    raise SubmissionRefused("Content-Type", f"{WRITE_V1} or {WRITE_V2}", version)


def read_write_request(
    data: bytes,
    directory: SeriesDirectory,
    allowed: TimeRange = ANY_TIME,
    limits: RemoteWriteLimits = DEFAULT_LIMITS,
) -> SampleBatch:
    """Return the samples of a message of version 1.0, decompressed; raise SubmissionRefused."""
    reader = LabelledReader(data, directory, limits)
    samples = reader.walk(look_up=True)
    if samples is None:  # what follows some labels only looked like one sample
        reader = LabelledReader(data, directory, limits)
        samples = reader.walk(look_up=False)
    return reader.finish(samples, allowed)


def read_write_request_v2(
    data: bytes,
    directory: SeriesDirectory,
    allowed: TimeRange = ANY_TIME,
    limits: RemoteWriteLimits = DEFAULT_LIMITS,
) -> SampleBatch:
    """Return the samples of a message of version 2.0, decompressed; raise SubmissionRefused."""
    reader = SymbolReader(data, directory, limits)
    samples = reader.walk(look_up=True)
    if samples is None:
        reader = SymbolReader(data, directory, limits)
        samples = reader.walk(look_up=False)
    return reader.finish(samples, allowed)


class Samples(NamedTuple):
    """Samples in the order of the message."""

    series: np.ndarray  # (n,) int64, numbers of the directory, negative ones for reasons
    time: np.ndarray  # (n,) int64 ms since the Unix epoch
    value: np.ndarray  # (n,) float64, stale markers included


class SingleSamples:
    """Series of which each seems to have one sample, in one of the two usual forms."""

    def __init__(self) -> None:
        self.ends: list[int] = []  # the places where the samples end
        self.zeros: list[int] = []  # indices of those whose value seems to be left out

    def read(self, data: bytes) -> tuple[np.ndarray, np.ndarray] | None:
        """Return their times in ms and values, each (n,); None where one is not as it seemed."""
        ends = np.array(self.ends, dtype=np.int64)
        tail = np.frombuffer(data, np.uint8)[ends[:, None] + SAMPLE_BYTES]  # (n, 18)
        value = np.ascontiguousarray(tail[:, 3:11]).view("<f8")[:, 0]
        digits = tail[:, 12:]  # (n, 6) of a varint, the lowest first
        time = ((digits & 127).astype(np.int64) << TIME_SHIFTS).sum(axis=1)
        zero = np.zeros(len(ends), bool)
        zero[self.zeros] = True
        whole = (tail[:, 0] == 0x12) & (tail[:, 1] == 0x10) & (tail[:, 2] == 0x09)
        short = (tail[:, 9] == 0x12) & (tail[:, 10] == 0x07)
        plain = np.where(zero, short, whole) & (tail[:, 11] == 0x10)
        plain &= (digits[:, :5] > 127).all(axis=1) & (digits[:, 5] < 128)
        return (time, np.where(zero, 0.0, value)) if plain.all() else None


class MessageReader(ABC):
    """What both versions share: counting, limits, samples that are read one by one."""

    def __init__(self, data: bytes, directory: SeriesDirectory, limits: RemoteWriteLimits) -> None:
        self.data = data
        self.directory = directory
        self.limits = limits
        self.single = SingleSamples()
        self.numbers: list[int] = []  # of the series in `single`
        # series that are read field by field: how many of the others are before, start, end
        self.odd: list[tuple[int, int, int]] = []
        self.places: list[float] = []  # of the samples of these among those of the others
        self.odd_series: list[int] = []
        self.times: list[int] = []
        self.values: list[float] = []
        self.fields_read = 0
        self.left_out: Counter[str] = Counter()
        self.refusals: list[SubmissionRefused] = []
        self.types: dict[str, str] = {}

    @abstractmethod
    def walk(self, look_up: bool) -> Samples | None:
        """Return the samples; None where a series that was looked up is not as it seemed."""

    @abstractmethod
    def read_odd(self, before: float, start: int, end: int) -> None:
        """Read one series field by field; `before` is its place among the others."""

    def read_all_odd(self) -> None:
        """Read the series that were put aside."""
        for before, start, end in self.odd:
            self.read_odd(before - 0.5, start, end)

    def merge(self) -> Samples | None:
        """Return the samples of both ways in the order of the message."""
        found = self.single.read(self.data)
        if found is None:
            return None
        time, value = found
        series = np.array(self.numbers, dtype=np.int64)
        if not self.times:
            return Samples(series, time, value)
        place = np.concatenate((np.arange(len(series)), self.places))
        order = np.argsort(place, kind="stable")
        return Samples(
            np.concatenate((series, np.array(self.odd_series, dtype=np.int64)))[order],
            np.concatenate((time, np.array(self.times, dtype=np.int64)))[order],
            np.concatenate((value, self.values))[order],
        )

    def finish(self, samples: Samples | None, allowed: TimeRange) -> SampleBatch:
        """Return the batch."""
        series, time, value = samples or Samples(*(np.empty(0, np.int64),) * 2, np.empty(0))
        return make_batch(
            series, time / 1000, value, allowed, self.left_out, self.refusals, self.types
        )

    def read_sample(self, before: float, start: int, end: int) -> None:
        """Read one sample of the series at a place; the caller adds its number."""
        value = 0.0
        time = 0
        data = self.data
        if end - start == SAMPLE_SIZE - 2 and data[start] == 0x09 and data[start + 9] == 0x10:
            value = DOUBLE.unpack_from(data, start + 1)[0]  # as nearly all are, without a loop
            time, after = read_varint(data, start + 10, end)
            start = after
            time = signed(time)
        for number, kind, at, _ in self.counted_fields(start, end):
            if number == 1:
                require_kind("value of a sample", kind, FIXED64)
                value = DOUBLE.unpack_from(self.data, at)[0]
            elif number == 2:
                require_kind("time of a sample", kind, VARINT)
                time = signed(at)
        self.places.append(before)
        self.times.append(time)
        self.values.append(value)
        self.refuse_many("samples", len(self.times), self.limits.samples)

    def counted_fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield the fields of a message, as `fields` does, and count them."""
        for field in fields(self.data, start, end):
            self.fields_read += 1
            if self.fields_read > self.limits.fields:
                self.refuse_many("fields", self.fields_read, self.limits.fields)
            yield field

    def refuse_many(self, what: str, count: int, most: int) -> None:
        """Refuse a message of more parts than the limit."""
        if count > most:
            wanted = f"at most {most:,} {what} in a request"
            raise SubmissionRefused("body", wanted, f"{count:,} or more; send them in parts")

    def refuse_series(self, refusal: SubmissionRefused) -> None:
        """Keep what was wrong with the first series."""
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(refusal)

    def assign(self, door: Door, raw: bytes, pairs: list[tuple[bytes, bytes]]) -> int:
        """Return the number of a series by its labels, INVALID_SERIES where they are not allowed"""
        try:
            labels = [(name.decode(), value.decode()) for name, value in pairs]
            names = [value for name, value in labels if name == METRIC_LABEL]
            if len(names) > 1:
                raise SubmissionRefused("series", f"{METRIC_LABEL} once", f"{len(names)} of them")
            others = [pair for pair in labels if pair[0] != METRIC_LABEL]
            key = series_key("".join(names), others)
        except UnicodeDecodeError as error:
            self.refuse_series(SubmissionRefused("series", "labels in UTF-8", str(error.reason)))
        except SubmissionRefused as refusal:
            self.refuse_series(refusal)
        else:
            return self.directory.assign(door, raw, key)
        self.directory.remember(door, raw, INVALID_SERIES)
        return INVALID_SERIES


def require_kind(what: str, kind: int, wanted: int) -> None:
    """Refuse a field whose wire type is not the wanted one."""
    if kind != wanted:
        raise SubmissionRefused("body", f"a {what} of wire type {wanted}", f"wire type {kind}")


class LabelledReader(MessageReader):
    """Reads version 1.0, in which each series carries its labels."""

    def __init__(self, data: bytes, directory: SeriesDirectory, limits: RemoteWriteLimits) -> None:
        super().__init__(data, directory, limits)
        self.door = directory.door("remote write")

    def walk(self, look_up: bool) -> Samples | None:
        """Go from series to series; look each up by all but the bytes of one sample.

        The bytes that were found in the door are whole labels, so what follows them begins with
        a field: if it has one of the two usual forms, it is one sample and nothing else.
        """
        data = self.data
        get = self.door.get if look_up else {}.get
        end = len(data)
        at = 0
        numbers = self.numbers
        ends = self.single.ends
        most = self.limits.series
        while at < end:
            if data[at] != 0x0A:
                at = self.read_other(at)
                continue
            start = at + 2
            size = data[at + 1] if start <= end else 128
            if size > 127:
                size, start = read_varint(data, at + 1, end)
            at = start + size
            if at > end:
                raise wire_error("a series that ends within its message", end, "the end of it")
            if size >= SMALLEST_SERIES:
                number = get(data[start : at - SAMPLE_SIZE])
                if number is None or data[at - SAMPLE_SIZE] != 0x12:  # else one more label
                    number = get(data[start : at - ZERO_SIZE])
                    if number is not None:
                        self.single.zeros.append(len(ends))
                if number is not None:
                    numbers.append(number)
                    ends.append(at)
                    continue
            self.odd.append((len(ends), start, at))
            if len(self.odd) > most:
                break
        self.refuse_many("series", len(self.odd) + len(numbers), most)
        self.read_all_odd()
        return self.merge()

    def read_other(self, at: int) -> int:
        """Read a field of the message that does not begin as a series does; return its end."""
        number, kind, start, end = next(self.counted_fields(at, len(self.data)))
        if number == 1:
            require_kind("series", kind, BYTES)
            self.odd.append((len(self.numbers), start, end))
        elif number == 3:
            require_kind("metadata", kind, BYTES)
            self.read_metadata(start, end)
        return end

    def read_metadata(self, start: int, end: int) -> None:
        """Read the type of a metric family."""
        kind_of_metric = 0
        name = b""
        for number, kind, at, field_end in self.counted_fields(start, end):
            if number == 1:
                require_kind("type of a metric", kind, VARINT)
                kind_of_metric = at
            elif number == 2:
                require_kind("name of a metric", kind, BYTES)
                name = self.data[at:field_end]
        self.refuse_many("metric families", len(self.types) + 1, self.limits.families)
        family = name.decode(errors="replace")
        if 0 < len(family) <= MAX_LABEL_NAME and kind_of_metric < len(TYPE_NAMES):
            self.types[family] = TYPE_NAMES[kind_of_metric]

    def read_odd(self, before: float, start: int, end: int) -> None:
        """Read a series: its labels, which nearly always come first, then all else."""
        at = self.labels_end(start, end)
        first_sample = len(self.odd_series)
        split = False  # labels come after something else
        for number, kind, part, part_end in self.counted_fields(at, end):
            if number == 2:
                require_kind("sample", kind, BYTES)
                self.read_sample(before, part, part_end)
            elif number in LEFT_OUT_V1:
                self.left_out[LEFT_OUT_V1[number]] += 1
            split |= number == 1
        series = self.find_series(start, end if split else at, split)
        self.odd_series += [series] * (len(self.times) - first_sample)

    def find_series(self, start: int, end: int, split: bool) -> int:
        """Return the number of the series whose labels are here, alone or `split` by others."""
        if split:
            return self.assign({}, b"", self.read_labels(start, end))
        raw = self.data[start:end]
        found = self.door.get(raw)
        return self.assign(self.door, raw, self.read_labels(start, end)) if found is None else found

    def labels_end(self, start: int, end: int) -> int:
        """Return the place where the labels at the beginning of a series end."""
        at = start
        while at < end and self.data[at] == 0x0A:
            size, at = read_varint(self.data, at + 1, end)
            at += size
            self.fields_read += 1
        if at > end:
            raise wire_error("a label that ends within its series", end, "the end of it")
        self.refuse_many("fields", self.fields_read, self.limits.fields)
        return at

    def read_labels(self, start: int, end: int) -> list[tuple[bytes, bytes]]:
        """Return the labels among the fields of a series."""
        pairs: list[tuple[bytes, bytes]] = []
        at = start
        while at < end:
            found = self.short_label(at, end)
            if found is None:  # what is left is read field by field
                return pairs + self.read_other_labels(at, end)
            pairs.append(found)
            at += 2 + self.data[at + 1]
            self.fields_read += 1
        self.refuse_many("fields", self.fields_read, self.limits.fields)
        return pairs

    def short_label(self, at: int, end: int) -> tuple[bytes, bytes] | None:
        """Return a label that consists of its name and value, all lengths of one byte; else None.

        That is 0a and a length, then 0a, a length and the name, then 12, a length and the value.
        """
        data = self.data
        if end - at < SHORTEST_LABEL or data[at] != 0x0A or data[at + 2] != 0x0A:
            return None
        size = data[at + 1]
        name_end = at + 4 + data[at + 3]
        label_end = at + 2 + size
        if size > 127 or label_end > end or name_end + 2 > label_end or data[name_end] != 0x12:
            return None
        if name_end + 2 + data[name_end + 1] != label_end:
            return None
        return data[at + 4 : name_end], data[name_end + 2 : label_end]

    def read_other_labels(self, start: int, end: int) -> list[tuple[bytes, bytes]]:
        """Return the labels among the fields of a series, in any form."""
        pairs = []
        for number, kind, at, label_end in self.counted_fields(start, end):
            if number != 1:
                continue
            require_kind("label", kind, BYTES)
            parts = {1: b"", 2: b""}
            for part, part_kind, first, last in self.counted_fields(at, label_end):
                if part in parts:
                    require_kind("name or value of a label", part_kind, BYTES)
                    parts[part] = self.data[first:last]
            pairs.append((parts[1], parts[2]))
        return pairs


class SymbolReader(MessageReader):
    """Reads version 2.0, in which labels are places in a table of symbols at the message's head."""

    def __init__(self, data: bytes, directory: SeriesDirectory, limits: RemoteWriteLimits) -> None:
        super().__init__(data, directory, limits)
        # the places change from message to message, so each symbol has a number of its own in
        # one door, and a series is looked up in the other by the numbers of its symbols
        self.symbol_door = directory.door("remote write 2.0 symbols")
        self.door = directory.door("remote write 2.0")
        self.symbols: list[bytes] = []
        self.ids = np.empty(0, np.int64)  # (symbols,)
        self.references: list[bytes] = []  # of the series in `single`
        self.single_types: list[str] = []
        self.odd_references: list[bytes] = []  # of the series in `odd`
        self.odd_types: list[str] = []
        self.odd_counts: list[int] = []  # samples
        self.endings = {b"": TYPE_NAMES[0]}  # what may follow a sample -> the type it says

    def walk(self, look_up: bool) -> Samples | None:
        """Find symbols and series, then read those of one sample at once, then the others."""
        spans = self.find_parts()
        self.number_symbols()
        for start, end in spans:
            if not (look_up and self.find_single(start, end)):
                self.odd.append((len(self.references), start, end))
        self.read_all_odd()
        self.numbers = self.look_up(self.references, self.single_types)
        odd = self.look_up(self.odd_references, self.odd_types)
        self.odd_series = np.repeat(odd, self.odd_counts).tolist()
        return self.merge()

    def find_parts(self) -> list[tuple[int, int]]:
        """Collect the symbols; return where the series begin and end."""
        data = self.data
        spans = []
        end = len(data)
        at = 0
        while at < end:
            tag = data[at]
            if tag in (0x22, 0x2A):
                start = at + 2
                size = data[at + 1] if start <= end else 128
                if size > 127:
                    size, start = read_varint(data, at + 1, end)
                at = start + size
                if at > end:
                    raise wire_error("a part that ends within its message", end, "the end of it")
                number = tag >> 3
            else:
                number, kind, start, at = next(self.counted_fields(at, end))
                if number in (4, 5):
                    require_kind("symbol or series", kind, BYTES)
            if number == 4:
                self.symbols.append(data[start:at])
                self.refuse_many("symbols", len(self.symbols), self.limits.symbols)
            elif number == 5:
                spans.append((start, at))
                self.refuse_many("series", len(spans), self.limits.series)
        return spans

    def number_symbols(self) -> None:
        """Give each symbol its number."""
        ids = list(map(self.symbol_door.get, self.symbols))
        for at, found in enumerate(ids):
            if found is None:
                new = next(self.directory.symbol_ids)
                self.directory.remember(self.symbol_door, self.symbols[at], new)
                ids[at] = new
        self.ids = np.array(ids, dtype=np.int64)

    def find_single(self, start: int, end: int) -> bool:
        """Put a series aside if it has references, one sample and perhaps metadata, in this order;
        return whether it has.
        """
        data = self.data
        if end - start < 2 + ZERO_SIZE or data[start] != 0x0A:
            return False
        sample = start + 2 + data[start + 1]
        begin = data[sample : sample + 3]
        if begin == b"\x12\x10\x09":
            sample_end = sample + SAMPLE_SIZE
        elif begin == b"\x12\x07\x10":
            sample_end = sample + ZERO_SIZE
        else:
            return False
        if sample_end > end or data[start + 1] > 127:
            return False
        kind = self.endings.get(data[sample_end:end]) or self.learn_ending(sample_end, end)
        if kind is None:
            return False
        if begin == b"\x12\x07\x10":
            self.single.zeros.append(len(self.references))
        self.references.append(data[start + 2 : sample])
        self.single.ends.append(sample_end)
        self.single_types.append(kind)
        return True

    def learn_ending(self, start: int, end: int) -> str | None:
        """Return the type that the fields after a sample say; None if they say more than that."""
        kind_of_metric = TYPE_NAMES[0]
        for number, kind, at, field_end in self.counted_fields(start, end):
            if number == 5 and kind == BYTES:
                kind_of_metric = self.read_type(at, field_end)
            elif number != 6:  # when the counter began
                return None
        if end - start <= LONGEST_ENDING:
            self.endings[self.data[start:end]] = kind_of_metric
        return kind_of_metric

    def read_type(self, start: int, end: int) -> str:
        """Return the type in metadata."""
        found = 0
        for number, kind, at, _ in self.counted_fields(start, end):
            if number == 1:
                require_kind("type of a metric", kind, VARINT)
                found = at
        return TYPE_NAMES[found] if found < len(TYPE_NAMES) else TYPE_NAMES[0]

    def look_up(self, references: list[bytes], types: list[str]) -> list[int]:
        """Return the numbers of series by their references; `types` are those of new ones."""
        places, bounds = decode_references(references, len(self.symbols))
        raw = self.ids[places].tobytes() if len(places) else b""
        starts = bounds.tolist()
        get = self.door.get
        keys = [raw[8 * a : 8 * b] for a, b in pairwise(starts)]
        found = list(map(get, keys))
        return [
            self.new_series(keys[at], places[starts[at] : starts[at + 1]].tolist(), types[at])
            if number is None
            else number
            for at, number in enumerate(found)
        ]

    def new_series(self, raw: bytes, places: list[int], kind: str) -> int:
        """Return the number of a series by the places of its labels among the symbols."""
        known = self.door.get(raw)  # twice in this message
        if known is not None:
            return known
        texts = [self.symbols[place] for place in places]
        pairs = list(zip(texts[::2], texts[1::2], strict=True))
        number = self.assign(self.door, raw, pairs)
        if number >= 0 and kind != TYPE_NAMES[0] and len(self.types) < self.limits.families:
            self.types[dict(pairs)[METRIC_LABEL.encode()].decode()] = kind
        return number

    def read_odd(self, before: float, start: int, end: int) -> None:
        """Read a series field by field."""
        references = []
        kind_of_metric = TYPE_NAMES[0]
        first_sample = len(self.times)
        for number, kind, at, field_end in self.counted_fields(start, end):
            if number == 1 and kind == VARINT:
                references.append(self.data[field_end - varint_size(at) : field_end])
            elif number == 1:
                require_kind("list of references", kind, BYTES)
                references.append(self.data[at:field_end])
            elif number == 2:
                require_kind("sample", kind, BYTES)
                self.read_sample(before, at, field_end)
            elif number == 5:
                require_kind("metadata", kind, BYTES)
                kind_of_metric = self.read_type(at, field_end)
            elif number in LEFT_OUT_V2:
                self.left_out[LEFT_OUT_V2[number]] += 1
        self.odd_references.append(b"".join(references))
        self.odd_types.append(kind_of_metric)
        self.odd_counts.append(len(self.times) - first_sample)


def varint_size(number: int) -> int:
    """Return how many bytes a varint takes at least."""
    return max(1, -(-number.bit_length() // 7))


def decode_references(packed: list[bytes], symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the references of series, one list of varints after the other.

    Args:
        packed: by series, its varints.
        symbols: how many symbols there are to refer to.

    Returns:
        (n,) int64 places of symbols, and (series + 1,) where those of each series begin.

    Raises:
        SubmissionRefused: not varints, or an odd number of a series, or no such symbol.
    """
    codes = np.frombuffer(b"".join(packed), np.uint8)
    sizes = np.array(list(map(len, packed)), dtype=np.int64)
    last = codes < 128  # (bytes,) of its varint
    ends = np.flatnonzero(last) + 1
    begins = np.concatenate(([0], ends))[: len(ends)]
    cuts = np.concatenate(([0], np.cumsum(sizes)))  # (series + 1,) in bytes
    bounds = np.concatenate(([0], np.cumsum(last)))[cuts]  # (series + 1,) in varints
    length = ends - begins
    if not last[cuts[1:][sizes > 0] - 1].all() or (length > MAX_REFERENCE).any():
        wanted = f"references of up to {MAX_REFERENCE} bytes each"
        raise SubmissionRefused("body", wanted, "a longer one, or one without an end")
    if (np.diff(bounds) % 2).any():
        raise SubmissionRefused("body", "two references for each label", "an odd number of them")
    places = np.zeros(len(ends), np.int64)
    for digit in range(int(length.max(initial=0))):
        there = length > digit
        places[there] |= (codes[begins[there] + digit] & 127).astype(np.int64) << 7 * digit
    if len(places) and places.max() >= symbols:
        wanted = f"references to the {symbols:,} symbols of the message"
        raise SubmissionRefused("body", wanted, f"one to symbol {places.max():,}")
    return places, bounds
