"""Prometheus remote write: known bytes, what another encoder writes, and hostile messages."""

from __future__ import annotations

import math
import random
import struct
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources.compression import decompress_block
from redline.sources.directory import SeriesDirectory
from redline.sources.prometheus import (
    DEFAULT_LIMITS,
    WRITE_V1,
    WRITE_V2,
    LabelledReader,
    read_remote_write,
    read_write_request,
    read_write_request_v2,
)
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import STALE_BITS, TimeRange
from tests.sources.remote_write_messages import Request, WriteRequest, encode_v1, encode_v2

RECORDED = Path(__file__).with_name("remote_write_recorded.bin").read_bytes()
NOW = 1_767_571_200_000  # ms
STALE = struct.unpack("<d", STALE_BITS.to_bytes(8, "little"))[0]
WAYS = {
    WRITE_V1: (encode_v1, read_write_request),
    WRITE_V2: (encode_v2, read_write_request_v2),
}
# one series `up` of a job `a`, the value 1.5 at 1,767,571,200,000 ms
LABELS = b"\x0a\x0e\x0a\x08__name__\x12\x02up" + b"\x0a\x08\x0a\x03job\x12\x01a"
TIME = b"\x80\xb0\xd0\xdb\xb8\x33"
SAMPLE = b"\x12\x10\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x10" + TIME
ZERO = b"\x12\x07\x10" + TIME
ONE = b"\x0a\x2c" + LABELS + SAMPLE


def pack(data):
    return bytes(cramjam.snappy.compress_raw(data))


def listed(batch, directory):
    """Return the samples of a batch as (text, seconds, value)."""
    texts = [directory.texts[number] for number in batch.series]
    return list(zip(texts, batch.time.tolist(), batch.value.tolist(), strict=True))


@pytest.mark.parametrize("again", range(2))
def test_a_known_message_byte_by_byte(again):
    directory = SeriesDirectory()
    for _ in range(again + 1):
        batch = read_write_request(ONE, directory)
    assert listed(batch, directory) == [('up{job="a"}', 1_767_571_200.0, 1.5)]
    assert batch.left_out == {} and directory.key(0).labels == (("job", "a"),)


def test_a_known_message_of_version_2_byte_by_byte():
    symbols = b"".join(b"\x22%c%b" % (len(s), s) for s in (b"", b"__name__", b"up", b"job", b"a"))
    series = b"\x0a\x04\x01\x02\x03\x04" + SAMPLE + b"\x2a\x04\x08\x01\x18\x00"
    directory = SeriesDirectory()
    for _ in range(2):
        batch = read_write_request_v2(symbols + b"\x2a\x1e" + series, directory)
        assert listed(batch, directory) == [('up{job="a"}', 1_767_571_200.0, 1.5)]
    assert read_write_request_v2(symbols + b"\x2a\x1e" + series, SeriesDirectory()).types == {
        "up": "counter"
    }


def test_the_two_messages_name_the_same_series_alike():
    directory = SeriesDirectory()
    series = [({"__name__": "a", "x": str(i)}, [(NOW, i)]) for i in range(5)]
    first = read_write_request(encode_v1(series), directory)
    second = read_write_request_v2(encode_v2(series[::-1]), directory)
    assert first.series.tolist() == second.series.tolist()[::-1] == [0, 1, 2, 3, 4]


label_names = st.sampled_from(["a", "job", "__name2", "mount.point", "é"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
times = st.sampled_from([NOW, NOW + 15_000, 0, 1, 2**41]) | st.integers(-62135596800000, 2**47)
values = st.floats(-1e75, 1e75) | st.sampled_from([0.0, 1.0, math.nan])
one_series = st.tuples(
    st.dictionaries(label_names, texts, max_size=4).flatmap(
        lambda labels: st.sampled_from(["up", "node cpu", "x:y_total"]).map(
            lambda name: {"__name__": name, **labels}
        )
    ),
    st.lists(st.tuples(times, values), max_size=3),
)


@pytest.mark.parametrize("version", WAYS)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(one_series, max_size=6))
def test_what_another_encoder_writes_is_read(version, series):
    encode, read = WAYS[version]
    expected = [
        (
            frozenset((name, value) for name, value in labels.items() if value),
            moment / 1000,
            struct.pack("<d", value),
        )
        for labels, samples in series
        for moment, value in samples
    ]
    directory = SeriesDirectory()
    for _ in range(2):  # new series, then known ones
        batch = read(encode(series), directory)
        found = []
        for number, moment, value in zip(batch.series, batch.time, batch.value, strict=True):
            key = directory.key(int(number))
            labels = frozenset((("__name__", key.name), *key.labels))
            found.append((labels, moment, struct.pack("<d", value)))
        assert [e[:2] for e in found] == [e[:2] for e in expected]
        assert [e[2] for e in found] == [e[2] for e in expected]
        assert batch.left_out == {}


@pytest.mark.parametrize("known", [False, True])
def test_what_a_prometheus_sent_is_read_as_the_protobuf_library_reads_it(known):
    """Prometheus 2.42, which scraped itself and a node exporter that had just been stopped."""
    message = WriteRequest()
    message.ParseFromString(bytes(cramjam.snappy.decompress_raw(RECORDED)))
    rows = [
        (dict(sorted((label.name, label.value) for label in series.labels)), sample)
        for series in message.timeseries
        for sample in series.samples
    ]
    expected = [
        (labels, one.timestamp / 1_000, struct.pack("<d", one.value))
        for labels, one in rows
        if struct.pack("<d", one.value) != struct.pack("<d", STALE)
    ]
    directory = SeriesDirectory()
    if known:
        read_remote_write(RECORDED, directory)
    batch = read_remote_write(RECORDED, directory)
    keys = [directory.key(int(number)) for number in batch.series]
    found = [dict([("__name__", key.name), *key.labels]) for key in keys]
    values = [struct.pack("<d", value) for value in batch.value]
    assert list(zip(found, batch.time.tolist(), values, strict=True)) == expected
    assert np.isnan(batch.value).sum() == 26  # quantiles of nothing, which are no stale markers
    assert len(rows) == 500 and batch.left_out == {"stale marker": 10}


@pytest.mark.parametrize("version", WAYS)
def test_stale_markers_are_apart_from_other_missing_values(version):
    encode, read = WAYS[version]
    directory = SeriesDirectory()
    series = [({"__name__": n}, [(NOW, v)]) for n, v in (("a", STALE), ("b", math.nan), ("c", 1))]
    for _ in range(2):
        batch = read(encode(series), directory)
        assert batch.ended.tolist() == [0] and batch.ended_time.tolist() == [NOW / 1000]
        assert batch.series.tolist() == [1, 2] and np.isnan(batch.value[0])
        assert batch.left_out == {"stale marker": 1}


def test_a_stale_marker_ends_only_what_is_taken():
    directory = SeriesDirectory(lambda key: key.name == "a")
    series = [({"__name__": name}, [(NOW, STALE)]) for name in "ab"]
    batch = read_write_request(encode_v1(series), directory)
    assert batch.ended.tolist() == [0]
    assert batch.left_out == {"stale marker": 1, "not selected": 1}
    batch = read_write_request(encode_v1(series), directory, TimeRange(0, 1))
    assert not len(batch.ended) and batch.left_out["time out of range"] == 1


def test_histograms_and_exemplars_are_left_out_and_counted():
    message = WriteRequest()
    message.ParseFromString(encode_v1([({"__name__": "a"}, [(NOW, 1)])]))
    message.timeseries[0].exemplars.add(value=1, timestamp=NOW)
    message.timeseries[0].histograms.add(sum=1, timestamp=NOW)
    directory = SeriesDirectory()
    batch = read_write_request(message.SerializeToString(), directory)
    assert batch.left_out == {"exemplar": 1, "native histogram": 1} and len(batch.time) == 1
    message = Request()
    message.ParseFromString(encode_v2([({"__name__": "a"}, [(NOW, 1)])]))
    message.timeseries[0].exemplars.add(value=1, timestamp=NOW)
    message.timeseries[0].histograms.add(sum=1, timestamp=NOW)
    batch = read_write_request_v2(message.SerializeToString(), directory)
    assert batch.left_out == {"exemplar": 1, "native histogram": 1} and len(batch.time) == 1


def test_metadata_says_which_metrics_are_counters():
    message = WriteRequest()
    for kind, name in ((1, "a"), (2, "b"), (7, "c"), (8, "d"), (1, "")):
        message.metadata.add(type=kind, metric_family_name=name)
    batch = read_write_request(message.SerializeToString(), SeriesDirectory())
    assert batch.types == {"a": "counter", "b": "gauge", "c": "stateset"}


def test_fields_in_any_order_and_of_later_versions_are_read():
    labels = [LABELS[:16], LABELS[16:]]
    unknown = b"\x7a\x02hi" + b"\x78\x05" + b"\x79" + bytes(8) + b"\x7d" + bytes(4)
    bodies = [
        SAMPLE + LABELS,
        labels[1] + labels[0] + SAMPLE,
        labels[0] + SAMPLE + labels[1],
        labels[0] + unknown + SAMPLE + labels[1] + unknown,
        LABELS + b"\x12\x10\x10" + TIME + SAMPLE[2:11],  # the time first
        LABELS + b"\x12\x12\x78\x05" + SAMPLE[2:],
    ]
    directory = SeriesDirectory()
    for body in bodies:
        for data in (b"\x0a%c" % len(body) + body, unknown + b"\x0a%c" % len(body) + body):
            for _ in range(2):
                batch = read_write_request(data, directory)
                assert listed(batch, directory) == [('up{job="a"}', 1_767_571_200.0, 1.5)]
    assert len(directory.texts) == 1


def test_a_label_that_looks_like_a_sample_is_a_label():
    directory = SeriesDirectory()
    plain = {"__name__": "up"}
    longer = plain | {"a": "bc"}  # its label takes 9 bytes, as a sample of 0 does
    for labels in (plain, longer, plain, longer):
        for value in (0.0, 1.5):
            batch = read_write_request(encode_v1([(labels, [(NOW, value)])]), directory)
            # both are known: neither is taken for the other, which would take the slow way
            data = encode_v1([(labels, [(NOW, value)])])
            assert LabelledReader(data, directory, DEFAULT_LIMITS).walk(look_up=True) is not None
            text = "up" if labels == plain else 'up{a="bc"}'
            assert listed(batch, directory) == [(text, NOW / 1000, value)]
    for size in range(1, 12):  # after known labels comes anything as long as a sample
        for tail in (b"\x12\x10\x09" + bytes(15), b"\x12\x07\x10" + bytes(6), bytes(9)):
            series = LABELS + tail[:size] + tail[size:][::-1]
            outcomes = [outcome(b"\x0a%c" % len(series) + series, d) for d in (directory, None)]
            assert outcomes[0] == outcomes[1]


def outcome(data, directory=None):
    """Return what a message is read to, or why it is refused."""
    directory = directory or SeriesDirectory()
    try:
        batch = read_write_request(data, directory)
    except SubmissionRefused as refusal:
        return str(refusal)
    return listed(batch, directory)


def test_a_series_that_is_not_allowed_is_left_out_and_the_others_are_taken():
    rows = [
        {"job": "no name"},
        {"__name__": "ok"},
        {"__name__": "long", "a": "x" * 1_025},
        {"__name__": "many"} | {f"l{i}": "x" for i in range(65)},
        {"__name__": "n" * 201},
    ]
    series = [(labels, [(NOW, 1.0)]) for labels in rows]
    twice = b"\x0a%c" % (len(LABELS) + 10 + len(SAMPLE)) + LABELS + LABELS[16:] + SAMPLE
    broken = b"\x0a\x1f\x0a\x0d\x0a\x08__name__\x12\x01\xff" + SAMPLE
    extra = twice + broken.replace(b"\x1f", b"\x21", 1)
    directory = SeriesDirectory()
    for repeat in range(2):
        batch = read_write_request(encode_v1(series) + extra, directory)
        assert [text for text, *_ in listed(batch, directory)] == ["ok"]
        assert batch.left_out == {"invalid series": 6}
        assert len(batch.refusals) == (0 if repeat else 6)
        batch = read_write_request_v2(encode_v2(series), directory)
        assert [text for text, *_ in listed(batch, directory)] == ["ok"]
        assert batch.left_out == {"invalid series": 4}


def test_times_and_values_that_cannot_be_taken_are_counted():
    samples = [(NOW, 1e76), (NOW, math.inf), (NOW, -math.inf), (2**62, 1), (-(2**62), 1), (NOW, 2)]
    directory = SeriesDirectory()
    batch = read_write_request(encode_v1([({"__name__": "a"}, samples)]), directory)
    assert batch.left_out == {"value too large": 3, "time out of range": 2}
    assert batch.value.tolist() == [2]
    allowed = TimeRange(0, NOW / 1000 - 1)
    assert read_write_request(ONE, directory, allowed).left_out == {"time out of range": 1}


@pytest.mark.parametrize("version", WAYS)
@pytest.mark.parametrize("known", [False, True])
def test_a_message_cut_anywhere_is_refused_or_shorter(version, known):
    encode, read = WAYS[version]
    series = [({"__name__": "a", "b": "c" * n}, [(NOW, n)]) for n in (1, 0, 120, 2)]
    data = encode(series, 1) if version == WRITE_V2 else encode(series)
    directory = SeriesDirectory()
    if known:
        read(data, directory)
    whole = 0
    for size in range(len(data)):
        try:
            batch = read(data[:size], directory if known else SeriesDirectory())
        except SubmissionRefused as refusal:
            assert refusal.wanted and refusal.came
            continue
        whole += 1
        assert len(batch.time) < len(series)
    assert whole < 20


def test_varints_of_eleven_bytes_are_refused():
    long = b"\xff" * 10 + b"\x01"
    for data in (
        *(long, b"\x0a" + long, b"\x0a\x0b" + long, b"\x0a\x0c\x0a" + long, b"\x18" + long),
        b"\x0a\x0e\x12\x0c\x10" + long,
        b"\x0a\x0d\x12\x0b\x10" + b"\xff" * 9 + b"\x7f",  # of 10 bytes, 70 bits
        b"\xff" * 9 + b"\x7f",
    ):
        with pytest.raises(SubmissionRefused, match="number"):
            read_write_request(data, SeriesDirectory())
    for data in (b"\x22" + long, b"\x2a" + long, b"\x2a\x0d\x0a\x0b" + long):
        with pytest.raises(SubmissionRefused):
            read_write_request_v2(data, SeriesDirectory())


@pytest.mark.parametrize("data", [b"\x02\x00", b"\x0b", b"\x0c", b"\x0e", b"\x0f", b"\x00\x00"])
def test_groups_and_wire_types_that_do_not_exist_are_refused(data):
    for body in (data, b"\x0a%c" % len(data) + data, b"\x2a%c" % len(data) + data):
        with pytest.raises(SubmissionRefused):
            read_write_request(data, SeriesDirectory())
        with pytest.raises(SubmissionRefused):
            read_write_request_v2(body if body[0] == 0x2A else data, SeriesDirectory())


def test_references_that_lead_nowhere_are_refused():
    head = b"\x22\x00\x22\x01a"
    for refs in (b"\x01", b"\x00\x02", b"\x00\xff\xff\xff\xff\xff\x01", b"\x00\x80"):
        series = b"\x0a%c" % len(refs) + refs + SAMPLE
        for rest in (b"", b"\x78\x01"):
            data = head + b"\x2a%c" % len(series + rest) + series + rest
            with pytest.raises(SubmissionRefused, match=r"reference|symbol"):
                read_write_request_v2(data, SeriesDirectory())


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (b"\xff\xff\xff\xff\x0f" + b"x" * 100, "4,294,967,295"),  # 4 GB
        (b"\x80\x80\x80\x02" + b"x" * 100, "declare 4,194,304"),
        (b"\xff" * 11, "ff ff ff ff ff"),
        (b"\xff\xff\xff\xff\x1f", "ff ff ff ff 1f"),
        (b"", "no bytes"),
        (b"\x80", "80"),
        (b"\x05abc", "snappy"),
        (pack(b"a" * 100)[:-1], "snappy"),
        (pack(b"a" * 100) + b"a", "snappy"),
    ],
)
def test_a_body_that_is_no_block_of_snappy_takes_no_memory(body, came):
    tracemalloc.start()
    try:
        with pytest.raises(SubmissionRefused, match=came):
            read_remote_write(body, SeriesDirectory())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_body_beyond_a_limit_says_what_was_wanted_and_what_came():
    directory = SeriesDirectory()
    tight = DEFAULT_LIMITS._replace(compressed=1_000, size=2_000, series=3, samples=4, fields=40)
    many = [({"__name__": f"a{i}"}, [(NOW, 1)]) for i in range(4)]
    samples = [({"__name__": "a"}, [(NOW + i, 1) for i in range(5)])]
    labels = [({"__name__": "a"} | {f"l{i}": "x" for i in range(20)}, [(NOW, 1)])]
    for body, limit in (
        (bytes(1_001), "at most 1,000 bytes"),
        (pack(bytes(2_001)), "at most 2,000 bytes when decompressed"),
        (pack(encode_v1(many)), "at most 3 series"),
        (pack(encode_v1(samples)), "at most 4 samples"),
        (pack(encode_v1(labels)), "at most 40 fields"),
        (pack(b"\x78\x01" * 41), "at most 40 fields"),
        (pack(b"\x0a\x00" * 4), "at most 3 series"),
    ):
        with pytest.raises(SubmissionRefused, match=limit) as caught:
            read_remote_write(body, directory, limits=tight)
        assert any(digit.isdigit() for digit in caught.value.came)
    few = DEFAULT_LIMITS._replace(symbols=3)
    with pytest.raises(SubmissionRefused, match="at most 3 symbols"):
        read_remote_write(pack(encode_v2(many)), directory, WRITE_V2, limits=few)
    with pytest.raises(SubmissionRefused, match="Content-Type"):
        read_remote_write(pack(ONE), directory, "other.Message")


@pytest.mark.parametrize(
    "part",
    [
        *(b"\x78\x01", b"\x0a\x00", b"\x0a\x02\x0a\x00", b"\x0a\x02\x12\x00"),
        *(b"\x22\x00", b"\x2a\x00", b"\x2a\x02\x12\x00"),
    ],
)
def test_many_small_parts_are_refused_before_they_take_memory(part):
    data = part * (2 * 2**20 // len(part))
    limits = DEFAULT_LIMITS._replace(series=10_000, symbols=10_000, fields=20_000)
    for read in (read_write_request, read_write_request_v2):
        tracemalloc.start()
        with suppress(SubmissionRefused):
            read(data, SeriesDirectory(), limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 2**20, f"{peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("version", WAYS)
def test_changed_bytes_are_read_alike_whether_series_are_known_or_not(version):
    encode, read = WAYS[version]
    rng = random.Random(7)
    series = [({"__name__": "a", "b": str(i)}, [(NOW, i % 3)]) for i in range(4)]
    good = encode(series)
    directory = SeriesDirectory()
    read(good, directory)
    outcomes = set()
    for _ in range(3_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        results = []
        for each in (directory, SeriesDirectory()):
            try:
                batch = read(bytes(data), each)
                results.append(repr((listed(batch, each), batch.left_out)))
            except SubmissionRefused as refusal:
                results.append(refusal.field)
        assert results[0] == results[1]
        outcomes.add(results[0])
    assert len(outcomes) > 100


def test_a_missing_library_is_answered_by_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(ImportError, match=r"pip install 'redline\[prometheus\]'"):
        decompress_block(pack(b"abc"), 100, 100)


def test_a_known_series_costs_little():
    """Far below the goal of 400,000 samples a second, so that a busy machine passes."""
    series = [
        ({"__name__": f"metric_{i % 50}", "host": f"host-{i // 50}", "job": "node"}, [(NOW, i)])
        for i in range(5_000)
    ]
    for version, (encode, _) in WAYS.items():
        body = pack(encode(series))
        directory = SeriesDirectory()
        read_remote_write(body, directory, version)
        seconds = []
        for _ in range(5):
            began = time.thread_time()
            batch = read_remote_write(body, directory, version)
            seconds.append(time.thread_time() - began)
        assert len(batch.time) == 5_000 and min(seconds) < 0.1
