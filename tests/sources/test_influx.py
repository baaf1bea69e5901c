"""InfluxDB's line protocol: known lines, any point there and back, wrong lines among right ones."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources import influx
from redline.sources.directory import SeriesDirectory
from redline.sources.influx import read_line_protocol
from redline.sources.pushed import SubmissionRefused

NOW = 1_767_571_200.0
NS = 1_767_571_200_000_000_000


def read(body, directory=None, **options):
    directory = directory or SeriesDirectory()
    batch = read_line_protocol(body, directory, NOW, **options)
    texts = [directory.texts[number] for number in batch.series]
    return list(zip(texts, batch.time.tolist(), batch.value.tolist(), strict=True)), batch


@pytest.mark.parametrize(
    ("line", "samples"),
    [
        (b"cpu,host=a usage=1.5 %d" % NS, [('cpu.usage{host="a"}', NOW, 1.5)]),
        (b"cpu usage=1", [("cpu.usage", NOW, 1.0)]),
        (b"m a=1i,b=2u,c=-3i", [("m.a", NOW, 1.0), ("m.b", NOW, 2.0), ("m.c", NOW, -3.0)]),
        (b"m a=t,b=FALSE,c=True", [("m.a", NOW, 1.0), ("m.b", NOW, 0.0), ("m.c", NOW, 1.0)]),
        (b"m a=1e3,b=-.5,c=+2.", [("m.a", NOW, 1e3), ("m.b", NOW, -0.5), ("m.c", NOW, 2.0)]),
        (b'm a="x",b=1', [("m.b", NOW, 1.0)]),
        (b'm a="x, y=2 \\" \n z",b=1 %d' % NS, [("m.b", NOW, 1.0)]),
        (rb"a\,b\ c,t\ 1=v\=1\,2 f\ 2=3", [('{"a,b c.f 2","t 1"="v=1,2"}', NOW, 3.0)]),
        (rb"a\b,t=C:\x f=1", [('{"a\\\\b.f",t="C:\\\\x"}', NOW, 1.0)]),
        (b'm,t="q" f=1', [('m.f{t="\\"q\\""}', NOW, 1.0)]),  # quotes are part of a tag
        (b"m,b=2,a=1 f=1", [('m.f{a="1",b="2"}', NOW, 1.0)]),
        (b"m,a=b=c f=1", [('m.f{a="b=c"}', NOW, 1.0)]),
        (b"  m f=1  %d \r" % NS, [("m.f", NOW, 1.0)]),
        (b"m f=1 -1000000000", [("m.f", -1.0, 1.0)]),
        (b"# a comment\n\n \nm f=1", [("m.f", NOW, 1.0)]),
        ("größe,ort=Köln wert=1".encode(), [('{"größe.wert",ort="Köln"}', NOW, 1.0)]),
        (b"m f=1e300", []),
        (b"", []),
    ],
)
def test_known_lines(line, samples):
    directory = SeriesDirectory()
    for body in (line, line, line + b"\n", b"x y=1\n" + line):
        found, batch = read(body, directory)
        assert [sample for sample in found if sample[0] != "x.y"] == samples
        assert not batch.refusals and "wrong line" not in batch.left_out


@pytest.mark.parametrize("unit", influx.PRECISIONS)
def test_times_in_each_precision_are_whole_seconds_to_the_bit(unit):
    for seconds in range(1_767_571_200, 1_767_571_260):
        moment = seconds * int(influx.PRECISIONS[unit])
        assert read(b"m f=1 %d" % moment, precision=unit)[0] == [("m.f", float(seconds), 1.0)]


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(SubmissionRefused, match="precision: wanted ns, us, ms, s"):
        read(b"m f=1", precision="h")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        *((line, "a measurement, a space") for line in (b"m", b"m,a=b", b"m\\ f=1")),
        *(
            (line, "fields such as")
            for line in (b"m f", b"m f=", b"m =1", b"m f=1,", b"m f=1,,g=2")
        ),
        *((line, "fields such as") for line in (b'm f="x', b"m , f=1")),
        *((b"m f=" + v, "a number such as") for v in (b"x", b"1x", b"1_0", b"0x1", b"1.5i", b"i")),
        *((b"m f=" + v, "a number such as") for v in (b"nan", b"inf", b"-1u", b"1\t", b"--1")),
        *((b"m f=" + v, "a number such as") for v in (b"9223372036854775808i", b"1" * 21 + b"u")),
        *((line, "the time") for line in (b"m f=1 x", b"m f=1 1.5", b"m f=1 1 2", b'm f="a"b')),
        (b"m f=1 1_0", "the time"),
        (b"m f=1 " + b"9" * 20, "the time"),
        *((line, "tags such as") for line in (b"m,a f=1", b"m,=b f=1", b"m,a= f=1", b"m, f=1")),
        (b",a=b f=1", "the name of a measurement"),
        (b"m\xff f=1", "UTF-8"),
    ],
)
def test_a_wrong_line_is_named_and_the_others_are_taken(line, wanted, known):
    directory = SeriesDirectory()
    if known:
        read(b"m f=1\nm f=1 5\nm,a=b f=1\na b=1\nc d=1", directory)
    found, batch = read(b"a b=1\n" + line + b"\nc d=2\n", directory)
    assert found == [("a.b", NOW, 1.0), ("c.d", NOW, 2.0)]
    assert batch.left_out == {"wrong line": 1}
    refusal = batch.refusals[0]
    assert refusal.field == "line 2" and wanted in refusal.wanted and refusal.came
    assert len(str(refusal)) < 300


def test_lines_are_counted_within_text():
    body = b'm a="x\ny\nz",b=1\nm b\n'
    _, batch = read(body)
    assert [refusal.field for refusal in batch.refusals] == ["line 4"]


def test_a_series_that_is_not_allowed_is_left_out():
    body = b"m,t=%b f=1,g=2\nm f=3\n" % (b"x" * 1_025)
    directory = SeriesDirectory()
    for _ in range(2):
        found, batch = read(body, directory)
        assert found == [("m.f", NOW, 3.0)] and batch.left_out == {"invalid series": 2}


def test_a_body_beyond_a_limit_is_refused(monkeypatch):
    monkeypatch.setattr(influx, "MAX_POINTS", 3)
    for body in (b"m f=1\n" * 4, b"m a=1,b=2\nm a=1,b=2\n"):
        for directory in (SeriesDirectory(), SeriesDirectory()):
            with pytest.raises(SubmissionRefused, match="at most 3"):
                read(body, directory)
    monkeypatch.setattr(influx, "MAX_BODY", 5)
    with pytest.raises(SubmissionRefused, match="at most 5 bytes"):
        read(b"m f=12")


@pytest.mark.parametrize("line", [b'm f="\n', b"m\n", b"m f=1,\\\n", b'm a="b",\n', b'"\\\n'])
def test_a_body_of_wrong_lines_is_refused_in_time(line):
    body = line * (1_000_000 // len(line))
    began = time.thread_time()
    try:
        read(body)
    except SubmissionRefused as refusal:
        assert "at most" in refusal.wanted
    assert time.thread_time() - began < 5


label = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='\n\r\\"\t'), min_size=1, max_size=8
).filter(lambda text: text.strip() == text and not text.startswith("#"))
numbers = st.floats(-1e75, 1e75) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
points = st.lists(
    st.tuples(
        label,
        st.dictionaries(label, label, max_size=3),
        st.dictionaries(label, numbers | st.text(max_size=6), min_size=1, max_size=4),
        st.none() | st.integers(-(2**35), 2**37),
    ),
    max_size=8,
)


def write_value(value):
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value)
    return f"{value}i" if isinstance(value, int) else repr(value)


def escape(text):
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def write_point(measurement, tags, fields, moment):
    head = ",".join([escape(measurement), *(f"{escape(k)}={escape(v)}" for k, v in tags.items())])
    body = ",".join(f"{escape(k)}={write_value(v)}" for k, v in fields.items())
    return f"{head} {body}" + (f" {moment}" if moment is not None else "")


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(points)
def test_any_point_is_read_as_it_was_written(points):
    body = "\n".join(write_point(*point) for point in points).encode()
    expected = [
        (f"{measurement}.{field}", tags, NOW if moment is None else float(moment), float(value))
        for measurement, tags, fields, moment in points
        for field, value in fields.items()
        if not isinstance(value, str)
    ]
    directory = SeriesDirectory()
    for _ in range(2):
        batch = read_line_protocol(body, directory, NOW, "s")
        keys = [directory.key(int(number)) for number in batch.series]
        found = [
            (key.name, dict(key.labels), moment, value)
            for key, moment, value in zip(
                keys, batch.time.tolist(), batch.value.tolist(), strict=True
            )
        ]
        assert found == expected
        texts = sum(isinstance(v, str) for _, _, fields, _ in points for v in fields.values())
        assert batch.left_out == ({"text": texts} if texts else {})
        assert not any(math.isnan(value) for value in batch.value)
