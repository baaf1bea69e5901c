"""The checks of the readers that turn what other programs send into batches of samples.

Each reads the same bytes with two directories, one of which knows the usual series already: what a
reader finds by looking known bytes up must be what it finds by parsing them.
"""

from __future__ import annotations

from collections.abc import Callable

import cramjam
import numpy as np

from redline.sources.directory import SeriesDirectory
from redline.sources.exposition import read_exposition
from redline.sources.influx import PRECISIONS, read_line_protocol
from redline.sources.kafka import REFUSED_KEYS, parse_client_config
from redline.sources.payload import parse_document, to_json
from redline.sources.point_bodies import is_wide, parse_arrow, parse_points, parse_wide
from redline.sources.prometheus import (
    WRITE_V1,
    WRITE_V2,
    read_remote_write,
    read_write_request,
    read_write_request_v2,
)
from redline.sources.pushed import SubmissionRefused
from redline.sources.records import RecordReader
from redline.sources.samples import LARGEST_SAMPLE, MAX_REFUSALS, SampleBatch
from redline.sources.selectors import parse_selectors
from redline.sources.series import (
    MAX_LABEL_NAME,
    MAX_SERIES_LABELS,
    MAX_SERIES_TEXT,
    SeriesKey,
    format_series,
    parse_series,
)
from redline.sources.timestamps import CALENDAR_TIMES
from tests.sources.arrow_streams import usual_streams
from tests.sources.remote_write_messages import encode_v1, encode_v2

NOW = 1_767_571_200.0  # seconds since the epoch, of samples that carry no time
MS = int(NOW * 1_000)
SERIES = [
    ({"__name__": "up", "job": "node", "instance": f"db{i}:9100"}, [(MS + 15_000 * i, i / 3)])
    for i in range(4)
]
SERIES += [({"__name__": "requests_total", "code": "200"}, [(MS, 1.0), (MS + 15_000, 2.0)])]


def check_batch(batch: SampleBatch, directory: SeriesDirectory) -> list[object]:
    """Check what a batch promises; return all it says."""
    n = len(batch.series)
    assert batch.time.shape == batch.value.shape == (n,) == batch.series.shape
    assert batch.ended.shape == batch.ended_time.shape
    assert ((batch.time >= CALENDAR_TIMES[0]) & (batch.time <= CALENDAR_TIMES[1])).all()
    assert not (np.abs(batch.value) > LARGEST_SAMPLE).any()
    assert len(batch.refusals) <= MAX_REFUSALS and all(batch.left_out.values())
    numbers = [*batch.series.tolist(), *batch.ended.tolist()]
    for number in set(numbers):
        text = directory.texts[number]
        assert text is not None and text.isprintable()
        key = directory.key(number)
        assert format_series(key) == text or key == SeriesKey(text, ())
        assert len(key.labels) <= MAX_SERIES_LABELS
    texts = [directory.texts[number] for number in numbers]
    times = [*batch.time.tolist(), *batch.ended_time.tolist()]
    return [texts, times, batch.value.tobytes(), dict(batch.left_out)]


def read_alike(
    read: Callable[[bytes, SeriesDirectory], SampleBatch], data: bytes, usual: list[bytes]
) -> None:
    """Check that bytes are read alike whether or not the usual series are known."""
    outcomes: list[object] = []
    for known in ((), usual):
        directory = SeriesDirectory()
        for body in known:
            read(body, directory)
        try:
            outcomes.append(check_batch(read(data, directory), directory))
        except SubmissionRefused as refusal:
            outcomes.append(refusal.field)
            last = refusal
    assert outcomes[0] == outcomes[1]
    if not isinstance(outcomes[0], list):
        raise last


def read_message(data: bytes) -> None:
    """Read a message of remote write; the first byte says which version."""
    if data[:1] == b"2":
        read_alike(read_write_request_v2, data[1:], [encode_v2(SERIES)])
    else:
        read_alike(read_write_request, data[1:], [encode_v1(SERIES)])


def messages() -> list[bytes]:
    """Return messages of both versions."""
    stale = [({"__name__": "up"}, [(MS, float("nan")), (MS, 0.0), (0, 1.0), (-5, -0.0)])]
    return [
        *(b"1" + encode_v1(rows) for rows in (SERIES[:2], SERIES[3:], stale)),
        *(b"2" + encode_v2(rows, kind) for rows, kind in ((SERIES[:2], 1), (SERIES[3:], 0))),
    ]


def read_block(data: bytes) -> None:
    """Read a body of remote write as it comes; the first byte says which version."""
    version = WRITE_V2 if data[:1] == b"2" else WRITE_V1
    directory = SeriesDirectory()
    check_batch(read_remote_write(data[1:], directory, version), directory)


def blocks() -> list[bytes]:
    """Return bodies of both versions."""
    pack = cramjam.snappy.compress_raw
    return [data[:1] + bytes(pack(data[1:])) for data in messages()]


def read_page(data: bytes) -> None:
    """Read an exposition page; the first byte says which format."""
    openmetrics = data[:1] == b"o"
    usual = exposition_pages()[0][1:]

    def read(page: bytes, directory: SeriesDirectory) -> SampleBatch:
        return read_exposition(page, directory, NOW, openmetrics and page is not usual)

    read_alike(read, data[1:], [usual])


def exposition_pages() -> list[bytes]:
    """Return pages of both formats."""
    page = (
        b'# TYPE up gauge\nup{job="node",instance="db1:9100"} 1\nload 0.25 1767571200000\n'
        b'up{job="a\\"b",p="C:\\\\x\\n"} NaN\n{"quoted name","a.b"="c"} +Inf\nload 1e3\n'
    )
    openmetrics = b'# TYPE a counter\na_total{x="1"} 3 1767571200.5 # {id="7"} 1\nload 2\n# EOF\n'
    return [b"p" + page, b"o" + openmetrics, b"p\n"]


def read_lines(data: bytes) -> None:
    """Read a body of the line protocol; the first byte says in which precision."""
    precision = list(PRECISIONS)[data[0] % 4] if data else "s"

    def read(body: bytes, directory: SeriesDirectory) -> SampleBatch:
        return read_line_protocol(body, directory, NOW, precision)

    read_alike(read, data[1:], [lines()[0][1:]])


def lines() -> list[bytes]:
    """Return bodies of lines."""
    return [
        b"\x03cpu,host=a,cpu=1 user=1.5,n=3i,on=t 1767571200\ncpu,host=a user=2\nm f=-1e3 5\n",
        b'\x00m\\ x,t\\,a=b\\=c f="x, \\" y",g=2u 1767571200000000000\n# no\nm f=T\n',
        b'\x01m f="a\nb",g=1 1767571200000000\r\nm f\n',
    ]


def read_points(data: bytes) -> None:
    """Read a body of points of many sources; the first byte says whether of one a line."""
    body = parse_document(data[1:], lines=data[:1] == b"\n")
    directory = SeriesDirectory()
    batch = parse_wide(body, directory) if is_wide(body) else parse_points(body, directory)
    if batch is not None:
        check_batch(batch, directory)


def point_bodies() -> list[bytes]:
    """Return bodies of each form."""
    wide = {"time": NOW, "values": {"oven": 20.5, "pump": None, "up{}": 3}}
    points = [{"source": name, "time": NOW, "value": 1} for name in ("oven", "Öfen", "a b")]
    return [
        b" " + to_json(wide),
        b" " + to_json([wide, wide | {"time": "2026-01-05T00:00:00Z"}]),
        b" " + to_json(points),
        b"\n" + b"\n".join(map(to_json, points)),
    ]


def read_arrow_body(data: bytes) -> None:
    """Read a stream of Arrow IPC."""

    def read(body: bytes, directory: SeriesDirectory) -> SampleBatch:
        return parse_arrow(body, directory)

    read_alike(read, data, usual_streams()[:1])


def read_record(data: bytes) -> None:
    """Read records of a topic, of which NUL bytes are the ends, alone and among others."""
    records = data.split(b"\0")[:20] if not data.startswith(b"\xff") else [data]
    good = b'{"source": "oven", "time": 1767571200, "value": 20.5}'
    directory = SeriesDirectory()
    found = RecordReader(directory).read([good, *records, good])
    owners = [found.owner, *(each.owner for each in found.sources)]
    taken = set(np.concatenate(owners).tolist())
    refused = {each.place for each in found.refused}
    assert len(refused) == len(found.refused) and taken | refused == set(range(len(records) + 2))
    assert {0, len(records) + 1}.isdisjoint(refused), "those that are right are taken"
    assert all(10 < len(each.reason) < 2_000 for each in found.refused)
    assert len(found.series) == len(found.time) == len(found.value) == len(found.owner)
    assert all(directory.texts[number] for number in found.series.tolist())
    for points, owner in found.sources:
        assert points.x.shape == (len(owner), len(points.names)) and len(points.time) == len(owner)
    for place, record in enumerate(records):
        alone = RecordReader(SeriesDirectory()).read([record])
        here = int((np.concatenate(owners) == place + 1).sum())
        count = len(alone.owner) + sum(len(each.owner) for each in alone.sources)
        assert count == here, "read as it is alone"


def topic_records() -> list[bytes]:
    """Return records of every form, some of them together."""
    point = {"source": "oven", "time": 1_767_571_200, "value": 20.5}
    many = {"source": "mill", "time": 1_767_571_200, "values": {"a": 1, "b": None}}
    wide = {"time": 1_767_571_200, "values": {"a": 1, "b": None}}
    bodies = [point, many, wide, [point, point], {**point, "time": [1, 2], "value": [3, 4]}]
    records = list(map(to_json, bodies))
    return [*records, b"\0".join(records), b"\n".join(records[:1] * 3), *usual_streams()[:2]]


def read_client_lines(data: bytes) -> None:
    """Read a file of settings of the Kafka client."""
    found = parse_client_config(data.decode("latin-1"), {"WORD": "secret"})
    assert not set(found) & set(REFUSED_KEYS)
    lines = "\n".join(f"{key}={value}" for key, value in found.items())
    if "${" not in lines and "\n" not in "".join(found.values()):
        assert parse_client_config(lines, {}) == found


def client_files() -> list[bytes]:
    """Return files of settings of the Kafka client."""
    return [b"# mine\nsasl.username = ann\nsasl.password=${WORD}\n\n", b"client.id=a=b", b"x"]


def read_selector(data: bytes) -> None:
    """Read a selector, then ask it about some series."""
    selection = parse_selectors([data.decode(errors="replace")])
    for value in ("a" * 300, "node_cpu", "", "x=\n"):
        taken = selection.takes(SeriesKey("up", (("job", value),)))
        assert taken in (True, False)


def selectors() -> list[bytes]:
    """Return selectors."""
    return [
        b"up",
        b'{__name__=~"node_.*",mode!="idle"}',
        b"up{job!~'a|b[^c]{2,3}(x-.+)?',}",
        b'{"quoted name","a.b"=`c`,job="\\u00e9\\n"}',
    ]


def read_series(data: bytes) -> None:
    """Read the text of a series; what it is read to has a text that is read to the same."""
    key = parse_series(data.decode(errors="replace"))
    text = format_series(key)
    assert text.isprintable()
    if 0 < len(key.name) <= MAX_LABEL_NAME:
        assert parse_series(text) == key
    if key.labels:
        assert len(text) <= 12 * MAX_SERIES_TEXT


def series_texts() -> list[bytes]:
    """Return texts of series."""
    keys = [SeriesKey("up", (("job", "a"),)), SeriesKey("a b", (("c.d", 'e"\\\n\u200b'),))]
    return [format_series(key).encode() for key in keys] + [b"oven 3", b"wave{}"]
