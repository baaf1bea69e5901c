"""JSON dropped in place of a CSV file: columns and rows are read, anything else is refused."""

import tracemalloc

import pytest

from redline.sources.csv import read_csv
from redline.sources.csv_cells import CsvError


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [1, 2, 3]}',
        b' [{"a": 1}, {"a": 2}, {"a": 3}]\n',
        b'{"a": 1}\n{"a": 2}\n\n{"a": 3}\n',
    ],
)
def test_a_list_is_a_column_and_not_a_row(text):
    recording = read_csv(text, title="a.json")
    assert recording.names == ("a",) and recording.x.tolist() == [[1.0], [2.0], [3.0]]


def test_columns_with_times_and_nulls_are_read_as_those_of_a_csv_file():
    text = b'{"time": ["2026-01-05T00:00:00Z", "2026-01-05T00:01:00Z"], "load (%)": [1.5, null]}'
    recording = read_csv(text)
    assert recording.period == 60.0 and recording.units == ("%",)
    assert str(recording.x.tolist()) == "[[1.5], [nan]]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": [1, 2], "b": [1]}', "columns of one length, came a: 2, b: 1"),
        (b"[1, 2, 3]", "came a list of something else"),
        (b'{"a": [[1], [2]]}', "lists or objects within 'a'"),
        (b'{"a": []}', "no row"),
        (b"[]", "came a list of something else"),
    ],
)
def test_json_that_is_no_table_is_refused_in_a_sentence(text, said):
    with pytest.raises(CsvError, match=said):
        read_csv(text)


def test_what_only_begins_like_json_stays_a_csv_file():
    assert read_csv(b"[load],heat\n1,2\n3,4\n").x.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_json_nested_thousands_deep_is_refused_without_a_traceback():
    with pytest.raises(CsvError):
        read_csv(b"[" * 100_000)


SPARSE = b"[" + b",".join(b'{"k%d":1}' % i for i in range(6_000)) + b"]"
HUGE = {  # what is small as a file and large once it is read -> what is said of it
    "a name of its own in each row": (SPARSE, "at most 1,000 columns"),
    "a million empty rows": (b"[" + b",".join([b"{}"] * 1_100_000) + b"]", "at most 1,000,000 "),
    "many rows of which one is wide": (
        b"[{%s},%s]" % (b",".join(b'"c%d":1' % i for i in range(999)), b",".join([b"{}"] * 9_000)),
        "at most 5,000,000 values",
    ),
    "a list of millions": (b"[" + b",".join([b"1"] * 5_100_000) + b"]", "5,000,000 values"),
    "millions of values": (b'{"a":[' + b",".join([b"1"] * 5_100_000) + b"]}", "5,000,000 values"),
}


@pytest.mark.parametrize("what", HUGE)
def test_json_that_grows_when_it_is_read_is_refused_before_it_does(what):
    text, said = HUGE[what]
    tracemalloc.start()
    try:
        with pytest.raises(CsvError, match=said):
            read_csv(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30 * 2**20, f"{peak / 2**20:.0f} MiB"


@pytest.mark.parametrize(
    "text",
    [
        b'{"%s": [[1]]}' % (b"k" * 100_000),
        b'{"%s": [1], "b": [1, 2]}' % (b"k" * 100_000),
        '{"a\u202eb": [[1]]}'.encode(),
    ],
)
def test_a_refusal_repeats_no_long_or_unseen_name(text):
    with pytest.raises(CsvError) as caught:
        read_csv(text)
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()
