"""Scores as messages of Prometheus remote write 1.0: two series for each stream.

`redline_score` is the score in standard deviations, `redline_anomaly` is 1 where it is above the
threshold, else 0. Both have the labels of the stream, and its own metric as the label `metric`.

>>> score_labels('load{host="db3"}', "redline_score")
[('__name__', 'redline_score'), ('host', 'db3'), ('metric', 'load')]
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from redline.sources.samples import STALE_BITS
from redline.sources.series import METRIC_LABEL, PLAIN_LABEL, parse_series

SCORE_METRIC = "redline_score"
ANOMALY_METRIC = "redline_anomaly"
OWN_PREFIX = "redline_"  # of the metrics that Redline makes itself
METRIC_LABEL_NAME = "metric"
EXPORTED = "exported_"  # before a label of the stream that has the name of another, as Prometheus
NO_LABEL_CHARACTER = re.compile(r"[^A-Za-z0-9_]")
CACHED_STREAMS = 20_000  # whose encoded labels are kept
SAMPLE = struct.Struct("<2sBQB")  # tag and length of a sample, tag of its value, value, tag of time
SERIES_TAG = b"\x0a"
LABEL_TAG = b"\x0a"
SAMPLE_TAG = b"\x12"
VALUE_TAG = 0x09
TIME_TAG = 0x10
FLOAT_BYTES = 9  # of a value with its tag
ONE = int(np.float64(1.0).view(np.uint64))


class ScoredPoints(NamedTuple):
    """Scores of one stream, all (n,)."""

    time: np.ndarray  # int64 ms since the Unix epoch, ascending
    score: np.ndarray  # float64 standard deviations, or the stale marker
    anomaly: np.ndarray  # bool, above the threshold
    stale: bool = False  # whether they only say that the series end


def stale_points(time: int) -> ScoredPoints:
    """Return the points that say that the scores of a stream end at a time in ms."""
    return ScoredPoints(np.array([time]), np.array([np.nan]), np.array([False]), stale=True)


def encode_scores(streams: Mapping[str, Iterable[ScoredPoints]]) -> bytes:
    """Return the message of scores, by the name of the stream; not compressed yet."""
    message = bytearray()
    for name, parts in streams.items():
        score, anomaly = encoded_labels(name)
        scores = [score]
        anomalies = [anomaly]
        for points in parts:
            times = points.time.tolist()
            bits = np.ascontiguousarray(points.score, np.float64).view(np.uint64).tolist()
            flags = [ONE if flag else 0 for flag in points.anomaly.tolist()]
            if points.stale:
                bits = flags = [STALE_BITS] * len(times)
            scores += map(encode_sample, times, bits)
            anomalies += map(encode_sample, times, flags)
        for series in (b"".join(scores), b"".join(anomalies)):
            message += SERIES_TAG + encode_varint(len(series)) + series
    return bytes(message)


def encode_sample(time: int, bits: int) -> bytes:
    """Return a sample with its tag: a time in ms and the bits of a float."""
    at = encode_varint(time)
    head = SAMPLE_TAG + bytes((FLOAT_BYTES + 1 + len(at),))
    return SAMPLE.pack(head, VALUE_TAG, bits, TIME_TAG) + at


def encode_varint(number: int) -> bytes:
    """Return a whole number of up to 64 bits as a varint; a negative one as its complement."""
    number &= (1 << 64) - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


@lru_cache(CACHED_STREAMS)
def encoded_labels(name: str) -> tuple[bytes, bytes]:
    """Return the labels of both series of a stream, as they stand in a message."""
    score, anomaly = (
        b"".join(
            LABEL_TAG + encode_varint(len(pair)) + pair
            for pair in map(encode_pair, score_labels(name, metric))
        )
        for metric in (SCORE_METRIC, ANOMALY_METRIC)
    )
    return score, anomaly


def encode_pair(label: tuple[str, str]) -> bytes:
    """Return the name and the value of a label as they stand in a message."""
    name, value = (text.encode(errors="replace") for text in label)
    parts = (b"\x0a", encode_varint(len(name)), name, b"\x12", encode_varint(len(value)), value)
    return b"".join(parts)


def score_labels(name: str, metric: str) -> list[tuple[str, str]]:
    """Return the labels of a series of scores, in the order that remote write asks for.

    A name of a label that Prometheus does not take is written with underscores.
    """
    key = parse_series(name)
    labels = {METRIC_LABEL: metric, METRIC_LABEL_NAME: key.name}
    for label, value in key.labels:
        plain = label
        if not PLAIN_LABEL.fullmatch(label):
            plain = f"_{NO_LABEL_CHARACTER.sub('_', label)}".replace("__", "_")
        while plain in labels:
            plain = EXPORTED + plain
        labels[plain] = value
    return sorted(labels.items())
