"""The text formats of Prometheus's targets: known pages, any series there and back, wrong lines."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources import exposition
from redline.sources.directory import SeriesDirectory
from redline.sources.exposition import read_exposition
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import TimeRange
from redline.sources.series import SeriesKey, series_key

NOW = 1_767_571_200.0
PAGE = b"""\
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1767571200500
http_requests_total{method="post",code="400"}    3

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\\\DIR\\\\FILE.TXT",error="Cannot find file:\\n\\"FILE.TXT\\""} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05",} 24054
\thttp_request_duration_seconds_sum\t53423\t
http_request_duration_seconds_count 144320\r
{"quoted.name", "label.name"="}"} 5e-3
nothing NaN
"""  # noqa: E501
SAMPLES = [
    ('http_requests_total{code="200",method="post"}', NOW + 0.5, 1027.0),
    ('http_requests_total{code="400",method="post"}', NOW, 3.0),
    (
        'msdos_file_access_time_seconds{error="Cannot find file:\\n\\"FILE.TXT\\"",'
        'path="C:\\\\DIR\\\\FILE.TXT"}',
        NOW,
        1.458255915e9,
    ),
    ("metric_without_timestamp_and_labels", NOW, 12.47),
    ('http_request_duration_seconds_bucket{le="0.05"}', NOW, 24054.0),
    ("http_request_duration_seconds_sum", NOW, 53423.0),
    ("http_request_duration_seconds_count", NOW, 144320.0),
    ('quoted.name{"label.name"="}"}', NOW, 5e-3),
    ("nothing", NOW, math.nan),
]


def listed(batch, directory):
    texts = [directory.texts[number] for number in batch.series]
    return list(zip(texts, batch.time.tolist(), batch.value.tolist(), strict=True))


def test_a_known_page_is_read_and_read_again_alike():
    directory = SeriesDirectory()
    for _ in range(3):
        batch = read_exposition(PAGE, directory, NOW)
        assert str(listed(batch, directory)) == str(SAMPLES)
        assert batch.left_out == {"value too large": 1}
        assert batch.types == {
            "http_requests_total": "counter",
            "http_request_duration_seconds": "histogram",
        }


def test_openmetrics_has_seconds_exemplars_and_an_end():
    page = (
        b'# TYPE foo histogram\nfoo_bucket{le="1.0"} 17 1767571200.25 # {id="a} 1"} 0.5 1767571200'
        b'\nfoo_count 17 # {id="b"} 9\nfoo_sum 3.5\n# EOF\n'
    )
    directory = SeriesDirectory()
    for _ in range(2):
        batch = read_exposition(page, directory, NOW, openmetrics=True)
        assert listed(batch, directory) == [
            ('foo_bucket{le="1.0"}', NOW + 0.25, 17.0),
            ("foo_count", NOW, 17.0),
            ("foo_sum", NOW, 3.5),
        ]
    for cut in (page[:-7], page[: len(page) // 2], b""):
        with pytest.raises(SubmissionRefused, match="# EOF at the end"):
            read_exposition(cut, directory, NOW, openmetrics=True)


def test_labels_of_the_target_are_added_and_those_of_the_page_kept():
    directory = SeriesDirectory()
    page = b'up{job="inner",x="1"} 1\n'
    for job in ("a", "b", "a"):
        batch = read_exposition(page, directory, NOW, target=[("job", job)])
        assert listed(batch, directory)[0][0] == f'up{{exported_job="inner",job="{job}",x="1"}}'
    assert len(directory.texts) == 2


def test_times_out_of_range_are_counted():
    directory = SeriesDirectory()
    batch = read_exposition(b"a 1 5\nb 2\n", directory, NOW, allowed=TimeRange(NOW, NOW))
    assert batch.left_out == {"time out of range": 1} and batch.value.tolist() == [2.0]


def test_a_series_that_is_not_allowed_is_left_out():
    directory = SeriesDirectory()
    page = b'a{b="%b"} 1\nc 2\n' % (b"x" * 2_000)
    for refused in (1, 0):
        batch = read_exposition(page, directory, NOW)
        assert batch.left_out == {"invalid series": 1} and len(batch.refusals) == refused
        assert listed(batch, directory) == [("c", NOW, 2.0)]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        *(
            (line, "a number as the value")
            for line in (b"a", b"a x", b"a 1_0", b"a 1 2 3", b"a{} ")
        ),
        *((line, "a number as the value") for line in (b"a 0x1p3", b'a{b="c"}', b"a\xc2\xa01")),
        *((b"a 1 %b" % t, "a number as the time") for t in (b"x", b"1_0")),
        *((line, "a label such as") for line in (b"a{b} 1", b'a{b="c} 1', b'a{b="c"d="e"} 1')),
        *((line, "a label such as") for line in (b'a{"b"} 1', b'a{b="c",,} 1', b"a{b='c'} 1")),
        *((line, "the name of a metric") for line in (b"{} 1", b'="x" 1', b'{a="b"} 1')),
        (b'a{b="\xff"} 1', "UTF-8"),
        (b"a" * 70_000 + b" 1", "at most 65,536 bytes"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_of_the_page_is_taken(line, wanted, known):
    directory = SeriesDirectory()
    if known:
        read_exposition(b'good 1\na 1\na{b="c"} 2\na{} 2\n', directory, NOW)
    with pytest.raises(SubmissionRefused, match=wanted) as caught:
        read_exposition(b"good 1\n\n" + line + b"\n" + b"good 2\n", directory, NOW)
    assert caught.value.field == "line 3"
    assert len(str(caught.value)) < 300


names = st.sampled_from(["up", "a:b", "x_total", "mit Leer", 'q"'])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
keys = st.builds(
    lambda name, labels: series_key(name, labels.items()),
    names,
    st.dictionaries(st.sampled_from(["a", "le", "mount.point", "ü"]), texts, max_size=4),
)
values = st.floats(-1e75, 1e75) | st.just(math.nan)
rows = st.lists(st.tuples(keys, values, st.none() | st.integers(0, 2**41)), max_size=10)


def escape(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_line(key: SeriesKey, value: float, moment: int | None) -> str:
    """Return a line of a page, as a client library writes it."""
    plain = exposition.PLAIN_LABEL.fullmatch
    parts = [
        f'{name if plain(name) else chr(34) + escape(name) + chr(34)}="{escape(text)}"'
        for name, text in key.labels
    ]
    if not plain(key.name.replace(":", "_")):
        head = f"{{{','.join([chr(34) + escape(key.name) + chr(34), *parts])}}}"
    else:
        head = f"{key.name}{{{','.join(parts)}}}" if parts else key.name
    return f"{head} {value!r}" + (f" {moment}" if moment is not None else "")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(rows)
def test_any_series_is_read_as_it_was_written(samples):
    page = "".join(write_line(*sample) + "\n" for sample in samples).encode()
    directory = SeriesDirectory()
    for _ in range(2):
        batch = read_exposition(page, directory, NOW)
        found = [directory.key(int(number)) for number in batch.series]
        assert found == [key for key, *_ in samples]
        np.testing.assert_array_equal(batch.value, [value for _, value, _ in samples])
        times = [NOW if moment is None else moment / 1000 for *_, moment in samples]
        assert batch.time.tolist() == times


def test_a_page_beyond_a_limit_is_refused(monkeypatch):
    monkeypatch.setattr(exposition, "MAX_LINES", 2)
    with pytest.raises(SubmissionRefused, match="2 lines"):
        read_exposition(b"a 1\n" * 3, SeriesDirectory(), NOW)
    monkeypatch.setattr(exposition, "MAX_PAGE", 3)
    with pytest.raises(SubmissionRefused, match="at most 3 bytes"):
        read_exposition(b"a 1\n", SeriesDirectory(), NOW)


def test_long_lines_take_time_in_proportion():
    for line in (
        *(b"a{" + b'b="c",' * 10_000, b'a{b="' + b"\\\\" * 32_000, b"a 1" + b" " * 60_000 + b"x y"),
        *(b"a " + b"1" * 60_000 + b" #", b"a 1 #" + b" {" * 30_000 + b"\x00", b'{"' * 30_000),
    ):
        began = time.thread_time()
        try:
            read_exposition(line, SeriesDirectory(), NOW)
        except SubmissionRefused as refusal:
            assert refusal.field == "line 1"
        assert time.thread_time() - began < 1
