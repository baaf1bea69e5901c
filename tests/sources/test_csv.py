"""Streams of CSV files, read exactly or refused in a sentence, and the stream of this machine."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from redline.sources.csv import read_csv
from redline.sources.csv_cells import CsvError, defuse_formula, restore_formula
from redline.sources.machine import MachineReading, ThisMachine, read_machine
from redline.sources.recording import Columns, write_csv
from redline.sources.timestamps import TIMESTAMP_FORMATS
from streams import KINDS, STREAMS, Chunk, Stream


def steady(examples):
    return settings(derandomize=True, database=None, deadline=None, max_examples=examples)


START = 1_767_571_200.0  # 2026-01-05T00:00:00Z


def rows(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def kinds(recording) -> list[str]:
    return [KINDS[kind] for kind in recording.label[:, 0]]


class Table(Stream):
    """A stream of given rows."""

    def __init__(self, names, units, chunk):
        self.names = names
        self.units = units
        self.chunk = chunk
        self.floors = (0.0,) * len(names)
        self.period = 1.0

    def take(self, steps):
        taken = self.cut(slice(steps))
        self.chunk = self.cut(slice(steps, None))
        return taken

    def cut(self, rows):
        return Chunk(*(None if part is None else part[rows] for part in self.chunk))


# Written and read back


def check_round_trip(make, steps):
    file = io.StringIO()
    assert write_csv(make(), steps, file) == steps
    stream, recording = make(), read_csv(file.getvalue().encode())
    chunk = stream.take(steps)
    assert (recording.names, recording.units) == (stream.names, stream.units)
    for read, written in zip((recording.time, recording.x, recording.label), chunk):
        np.testing.assert_array_equal(read, written)
    return recording


@pytest.mark.parametrize("name", STREAMS)
@steady(6)
@given(seed=st.integers(0, 999), rate=st.sampled_from((0.0, 0.01, 0.1)), steps=st.integers(30, 400))
def test_simulated_stream_is_read_back_exactly(name, seed, rate, steps):
    recording = check_round_trip(lambda: STREAMS[name](seed=seed, rate=rate), steps)
    assert recording.period == STREAMS[name].period


texts = st.builds(  # some of which a spreadsheet would calculate
    "{}v{}".format,
    st.sampled_from(("", "", "=", "+", "-", "@", "'=", "'")),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8),
)
values = st.floats(-1e75, 1e75) | st.just(float("nan"))
shapes = st.tuples(st.integers(1, 12), st.integers(1, 4))  # (steps, features)


@steady(60)
@given(
    data=st.data(), shape=shapes, digits=st.sampled_from((0, 1, 3, 6, 9)), draw=st.integers(0, 99)
)
def test_any_stream_is_read_back_exactly(data, shape, digits, draw):
    steps, features = shape
    random = np.random.default_rng(draw)
    names = tuple(data.draw(st.lists(texts, min_size=features, max_size=features, unique=True)))
    units = tuple(random.choice(("°C", "%", "1/min"), features).tolist())
    time = np.round(random.uniform(-1e9, 4e9, steps), digits)
    label = random.integers(0, len(KINDS), (steps, features)).astype(np.int8)
    x = data.draw(arrays(float, (steps, features), elements=values))
    x[0, 0] = 1.0
    check_round_trip(lambda: Table(names, units, Chunk(time, x, label)), steps)


def test_features_with_different_labels_share_a_cell():
    chunk = Chunk(START + np.arange(2.0), np.ones((2, 2)), np.array([[0, 1], [5, 5]], np.int8))
    file = io.StringIO()
    write_csv(Table(("a", "b (c)"), ("%", ""), chunk), 9, file)
    assert file.getvalue() == (
        "time,a (%),b (c) (),label\n"
        "2026-01-05T00:00:00Z,1.0,1.0,none/point\n"
        "2026-01-05T00:00:01Z,1.0,1.0,drift\n"
    )
    assert read_csv(file.getvalue().encode()).names == ("a", "b (c)")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="'=+-@x1. \t\r", max_size=6))
def test_the_guard_against_formulas_loses_nothing(cell):
    assert restore_formula(defuse_formula(cell)) == cell


def test_a_column_name_is_no_formula_to_a_spreadsheet_and_is_read_back():
    names = ("=1+1", "+a", "-a", "@a", "'=a")
    chunk = Chunk(START + np.arange(2.0), np.full((2, 5), -1.0), None)
    file = io.StringIO()
    write_csv(Table(names, ("", "%", "", "", ""), chunk), 9, file)
    head, first, _ = file.getvalue().splitlines()
    assert head == "time,'=1+1,'+a (%),'-a,'@a,''=a"
    assert first.endswith(",-1.0,-1.0,-1.0,-1.0,-1.0"), "numbers stay as they are"
    assert read_csv(file.getvalue().encode()).names == names


def test_unlabelled_stream_has_no_label_column(tmp_path):
    chunk = Chunk(START + np.arange(3.0), np.ones((3, 1)), None)
    write_csv(Table(("a",), ("",), chunk), 3, tmp_path / "plain.csv")
    recording = read_csv(tmp_path / "plain.csv")
    assert recording.label is None
    assert recording.title == "plain.csv"


# Time stamps


@pytest.mark.parametrize(
    ("first", "second", "step", "how"),
    [
        ("2026-01-05 00:00:00", "2026-01-05 00:05:00", 300, "ISO, no zone, read as UTC"),
        ("2026-01-05T00:00:00Z", "2026-01-05T00:00:00.250Z", 0.25, "ISO, with a zone, in UTC"),
        ("2026-01-05T02:00:00+02:00", "2026-01-05T02:00:01+02:00", 1, "ISO, with a zone, in UTC"),
        ("2026-01-04T19:00:00-0500", "2026-01-05T00:00:01Z", 1, "ISO, with a zone, in UTC"),
        ("2026-01-05", "2026-01-06", 86400, "ISO, no zone, read as UTC"),
        ("2026/01/05 00:00", "2026/01/05 00:01", 60, "ISO, no zone, read as UTC"),
        ("20260105", "20260106", 86400, "ISO, no zone, read as UTC"),
        ("20260105T000000", "20260105T000001", 1, "ISO, no zone, read as UTC"),
        (
            "2026-01-05 00:00:00.1234567",
            "2026-01-05 00:00:01.1234567",
            1,
            "ISO, no zone, read as UTC",
        ),
        ("1767571200", "1767571260", 60, "seconds since 1970"),
        ("1767571200000", "1767571200500", 0.5, "milliseconds since 1970"),
        ("1767571200000000", "1767571200500000", 0.5, "microseconds since 1970"),
        ("1767571200000000000", "1767571201000000000", 1, "nanoseconds since 1970"),
        ("1767571200.5", "1767571201.5", 1, "seconds since 1970"),
        (
            "05.01.2026 00:00",
            "05.01.2026 00:10",
            600,
            "day/month/year, could be month/day/year, no zone, read as UTC",
        ),
        (
            "1/5/26 12:00 AM",
            "1/13/26 12:00 PM",
            8.5 * 86400,
            "month/day/year, no zone, read as UTC",
        ),
        ("5/1/2026", "13/1/2026", 8 * 86400, "day/month/year, no zone, read as UTC"),
        (
            "5-Jan-2026 00:00:00",
            "5-Jan-2026 00:00:10",
            10,
            "with the month's name, no zone, read as UTC",
        ),
        ("Jan 5, 2026", "January 6, 2026", 86400, "with the month's name, no zone, read as UTC"),
    ],
)
def test_time_stamps(first, second, step, how):
    recording = read_csv(rows("timestamp;value", f"{first};1", f"{second};2"))
    assert abs(recording.time[0] - START) < 1
    assert recording.period == step
    assert recording.columns.guess.startswith(
        f"time: `{recording.columns.time}` ({how}); values: `value`"
    )


def test_numbers_of_eight_digits_that_are_mostly_no_dates_are_seconds():
    seconds = [f"{second},1" for second in range(20_260_120, 20_260_180)]
    recording = read_csv(rows("time,value", *seconds))
    assert "seconds, counted from 1970" in recording.columns.guess and recording.period == 1


def test_order_of_day_and_month_is_the_one_that_keeps_rows_together():
    american = read_csv(
        rows("date,v", *(f"{month:02}/{day:02}/2026,1" for month in (1, 2) for day in range(1, 13)))
    )
    assert american.columns.guess.startswith(
        "time: `date` (month/day/year, could be day/month/year"
    )
    assert american.period == 86400
    other = read_csv(
        rows("date,v", "01/02/2026,1", "02/02/2026,1"),
        Columns("date", ("v",), stamps="month/day/year"),
    )
    assert other.time[0] == datetime(2026, 1, 2, tzinfo=UTC).timestamp()


@steady(60)
@given(
    moments=st.lists(
        st.datetimes(datetime(1700, 1, 1), datetime(2300, 1, 1)), min_size=1, max_size=20
    ),
    form=st.sampled_from(
        (
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%S.%f",
            "%Y%m%d %H%M%S",
            "%d.%m.%Y %H:%M:%S",
            "%m/%d/%Y %I:%M:%S %p",
            "%d %b %Y %H:%M:%S",
        )
    ),
    bare=st.booleans(),
)
def test_stamps_agree_with_the_standard_library(moments, form, bare):
    """A column read at once equals its cells read by strptime, also with unequal digits."""
    order = {"%d.%m": "day/month/year", "%m/%d": "month/day/year"}.get(form[:5], "")
    cells = [moment.strftime(form) for moment in moments]
    if bare and form[0] == "%" and form[2] in "./":
        cells = [cell.lstrip("0") for cell in cells]
    recording = read_csv(
        rows("time;v", *(f"{cell};1" for cell in cells)), Columns("time", ("v",), stamps=order)
    )
    truth = [datetime.strptime(cell, form).replace(tzinfo=UTC) for cell in cells]
    wanted = [
        (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1) for moment in truth
    ]
    np.testing.assert_allclose(recording.time, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "columns", [None, Columns("date", ("v",)), Columns("date", ("v",), clock="clock")]
)
def test_date_and_time_of_day_apart(columns):
    recording = read_csv(
        rows("date,clock,v", "2026-01-05,00:00:00,1", "2026-01-05,12:30:00,2"), columns
    )
    np.testing.assert_array_equal(recording.time, [START, START + 45000])
    assert (
        recording.columns.guess
        == "time: `date` and `clock` (ISO, no zone, read as UTC); values: `v`; no labels"
    )


def test_no_time_counts_seconds_and_says_so():
    recording = read_csv(b"1.5,2\n1.6,3\n\n1.7,4\n")
    np.testing.assert_array_equal(recording.time, [0, 1, 2])
    assert recording.columns.guess == (
        "no time, each row is one second from 1970-01-01 on; values: `column 1`, "
        "`column 2`; no labels; no line of column names"
    )
    assert recording.notes == {"blank rows": 1}


@pytest.mark.parametrize(
    ("stamps", "period"),
    [("", 60), ("day/month/year", 60), ("milliseconds", 0.06), ("minutes", 3600)],
)
def test_numbers_as_time_read_as_asked(stamps, period):
    data = b"time,v\n1767571200,1\n1767571260,2\n"
    assert read_csv(data, Columns("time", ("v",), stamps=stamps)).period == period


def test_elapsed_time_in_the_unit_of_its_header():
    recording = read_csv(b"time (ms),v\n0,1\n20,2\n40,3\n")
    assert recording.period == 0.02
    assert "(milliseconds, counted from 1970-01-01)" in recording.columns.guess


def test_numbers_called_time_that_do_not_rise_are_values():
    data = b"date,time\n2026-01-05,5\n2026-01-06,4\n2026-01-07,3\n2026-01-08,5\n"
    assert read_csv(data).names == ("time",)


# Rows as they are


def test_nothing_is_sorted_inserted_or_dropped():
    clock = [0, 60, 60, 120, 90, 150, 210, 600, 660]
    lines = (f"{datetime.fromtimestamp(START + s, UTC):%F %T},{s}" for s in clock)
    recording = read_csv(rows("timestamp,value", *lines))
    np.testing.assert_array_equal(recording.time - START, clock)
    np.testing.assert_array_equal(recording.x[:, 0], clock)
    assert recording.period == 60
    assert recording.notes == {"repeated times": 1, "backward times": 1, "jumps in time": 1}


def test_recording_plays_once_whatever_the_chunks():
    whole, recording = (
        read_csv(rows("v,label", *(f"{i},{i % 2}" for i in range(10)))) for _ in range(2)
    )
    whole = whole.take(10)
    parts = [recording.take(steps) for steps in (1, 0, 4, 9, 3)]
    assert [len(part.time) for part in parts] == [1, 0, 4, 5, 0]
    assert (recording.total, recording.rest) == (10, 0)
    for at in range(3):
        np.testing.assert_array_equal(np.concatenate([part[at] for part in parts]), whole[at])
    with pytest.raises(ValueError, match="simulated stream only"):
        recording.inject("point", 8)
    with pytest.raises(ValueError, match="read-only"):
        whole.x[0] = 1


# Cells and columns


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_encodings_and_line_ends(delimiter, encoding, end):
    cells = (("time", "wärme (°C)"), ("2026-01-05", '"1.5"'), ("2026-01-06", "2.5"))
    text = "".join(delimiter.join(row) + end for row in cells)
    recording = read_csv(text.encode(encoding))
    assert (recording.names, recording.units) == (("wärme",), ("°C",))
    np.testing.assert_array_equal(recording.x, [[1.5], [2.5]])
    assert ("read as Latin-1" in recording.columns.guess) == (encoding == "latin-1")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;b\n1,5;2\n-,25;3\n", [[1.5, 2], [-0.25, 3]]),
        ("a;b\n1.234,5;2\n12,25;3\n", [[1234.5, 2], [12.25, 3]]),
        ('a,b\n"1,234.5",2\n12.25,3\n', [[1234.5, 2], [12.25, 3]]),
        ("a;b\n1,234,567;2\n1,234;3\n", [[1234567, 2], [1234, 3]]),
        ("a,b\n,NaN\nnull,NA\n-,n/a\n1,2\n", [[np.nan] * 2] * 3 + [[1, 2]]),
        ("a,b\n1e999,-inf\n1,2\n", [[np.nan, np.nan], [1, 2]]),
        ("a,b\n1e75,-1e75\n1e76,2\n", [[1e75, -1e75], [np.nan, 2]]),
        (" a , b \n 1 , 2 \n", [[1, 2]]),
        ("a,b\n1,2,,\n3,4,\n", [[1, 2], [3, 4]]),
        ("sep=;\na;b\n1;2\n", [[1, 2]]),
        ("# made by a program\n# a,b\n1,2\n", [[1, 2]]),
        ("a\n1\n\n3\n\n\n", [[1], [np.nan], [3]]),
        ('a,"b\nc"\n1,2\n', [[1, 2]]),
        ("a;b,c\n1,2\n", [[1, 2]]),
    ],
)
def test_numbers_as_people_write_them(text, values):
    np.testing.assert_array_equal(read_csv(text.encode()).x, np.array(values, float))


def test_column_names_in_a_comment():
    recording = read_csv(b"# made by a program\n# when,a (%)\n2026-01-05,1\n2026-01-06,2\n")
    assert (recording.columns.time, recording.names, recording.units) == ("when", ("a",), ("%",))
    assert "column names" not in recording.columns.guess


def test_missing_and_infinite_values_are_counted():
    assert read_csv(b"a,b\n,1\n1e999,inf\n2,3\n").notes == {
        "missing values": 1,
        "infinite values read as missing": 2,
    }


def test_columns_that_are_no_values_are_left_out_and_named():
    text = rows(
        "index,time,host,load (%),note,label,changepoint",
        "0,2026-01-05,web,1,,0,0",
        "1,2026-01-06,web,2,,1,1",
        "2,2026-01-07,db,3,,0,0",
    )
    recording = read_csv(text)
    assert recording.columns.features == ("load (%)",)
    names = ["index", "time", "host", "load (%)", "note", "label", "changepoint"]
    assert list(recording.columns.names) == names
    assert recording.columns.guess == (
        "time: `time` (ISO, no zone, read as UTC); values: `load (%)`; labels: `label`; "
        "left out: `index`, `changepoint`, `host` (text), `note` (empty)"
    )


def test_a_guess_can_be_corrected():
    text = rows(
        "sent,got,rate,label",
        *(f"2026-01-05 00:00:0{i},2026-01-05 01:00:0{i},{i},{i % 2}" for i in range(5)),
    )
    guess = read_csv(text)
    assert (guess.columns.time, guess.columns.label) == ("sent", "label")
    corrected = read_csv(text, Columns(time="got", features=("rate", "label")))
    assert corrected.names == ("rate", "label")
    assert corrected.label is None
    np.testing.assert_array_equal(corrected.time, guess.time + 3600)
    assert "`got`" in corrected.columns.guess
    again = read_csv(text, guess.columns)
    assert replace(again.columns, guess="") == replace(guess.columns, guess="")


def test_repeated_names_get_a_number():
    recording = read_csv(b"t (\xc2\xb0C),t (\xc2\xb0F),x,x,\n1,2,3,4,5\n")
    assert recording.names == ("t (°C)", "t (°F)", "x", "x 2", "column 5")


# Labels


@pytest.mark.parametrize(
    "words",
    [
        ("0", "1"),
        ("0.0", "1.0"),
        ("false", "true"),
        ("False", "TRUE"),
        ("normal", "anomaly"),
        ("no", "yes"),
        ("none", "outlier"),
    ],
)
@pytest.mark.parametrize("name", ["label", "is_anomaly", "Anomaly", "is_bad"])
def test_plain_labels_are_named_by_the_length_of_their_run(words, name):
    truth = [0, 1, 0, 1, 1, 1, 0, 1]
    recording = read_csv(rows(f"v,{name}", *(f"{i},{words[at]}" for i, at in enumerate(truth))))
    assert kinds(recording) == ["none", "point", "none", *["collective"] * 3, "none", "point"]


def test_a_row_without_a_label_counts_as_none():
    recording = read_csv(
        rows("a,b,label", "1,2,drift", "1,2,", "1,2,none", "1,2,1", "1,2,point/stuck")
    )
    np.testing.assert_array_equal(recording.label, [[5, 5], [0, 0], [0, 0], [1, 1], [1, 6]])
    assert recording.notes == {"rows without a label": 1}


def test_a_score_called_anomaly_is_a_value():
    recording = read_csv(b"v,anomaly\n1,0.25\n2,0.75\n")
    assert recording.names == ("v", "anomaly")
    assert recording.label is None


# Bad files

BAD = {
    "empty": (b"", ["empty"]),
    "blank lines": (b"\n \n,,\n", ["empty"]),
    "comments": (b"# nothing\n# here", ["empty"]),
    "header only": (b"time,value\n", ["column names and no rows"]),
    "text in a number column": (
        b"time,value\n2026-01-05,1\n2026-01-06,broken\n2026-01-07,3\n",
        ["row 3, column `value`", "wanted a number", '"broken"'],
    ),
    "text after a quoted line break": (
        b'a,b\n1,"2\n"\n1,x\n3,3\n1,4\n',
        ["row 4, column `b`", '"x"'],
    ),
    "text after comments": (b"# one\n\n# two\na\n1\nx\n3\n", ["row 6, column `a`"]),
    "text after blank rows": (
        b"time,v\n2026-01-05,1\n\n,\n2026-01-06,x\n2026-01-07,1\n2026-01-08,1\n",
        ["row 5, column `v`"],
    ),
    "too few cells": (b"a,b\n1,2\n3\n", ["row 3 has 1 cell, wanted 2"]),
    "too many cells": (b"a,b\n1,2\n3,4,5\n", ["row 3 has 3 cells, wanted 2", "commas", "quotes"]),
    "all text": (b"who,what\nann,rest\nbob,work\n", ["no column holds numbers", "`who`, `what`"]),
    "missing time": (b"time,v\n2026-01-05,1\n,2\n", ["row 3, column `time`", "an empty cell"]),
    "no such day": (
        b"time,v\n2026-02-28,1\n2026-02-30,2\n",
        ["row 3, column `time`", '"2026-02-30"', "of a day that exists"],
    ),
    "no such day without separators": (
        b"time,v\n20260103,1\n20260104,2\n20261340,3\n20260106,4\n",
        ["row 4, column `time`", '"20261340"', "of a day that exists"],
    ),
    "no such hour": (b"time,v\n2026-01-05 23:00,1\n2026-01-05 25:00,2\n", ["row 3", "25:00"]),
    "no such minute": (b"time,v\n2026-01-05 23:00,1\n2026-01-05 23:60,2\n", ["row 3", "23:60"]),
    "no such digit": (
        b"time,v\n2026-01-05,1\n2026-01-0:,2\n2026-01-07,2\n",
        ["row 3", "2026-01-0:"],
    ),
    "first stamp broken": (
        b"date,v\nsoon,1\n01/02/2026,1\n02/02/2026,2\n",
        ["row 2, column `date`", '"soon"', "day/month/year"],
    ),
    "mixed stamps": (
        b"time,v\n2026-01-05,1\n2026-01-06,1\nyesterday,2\n",
        ["row 4, column `time`", '"yesterday"'],
    ),
    "beyond the years": (b"time,v\n9999-12-31 23:00:00-05:00,1\n", ["row 2, column `time`"]),
    "year 0": (b"time,v\n0000-01-01,1\n", ["row 2, column `time`"]),
    "epoch of another universe": (
        b"time,v\n1700000000,1\n1700000001,1\n1e300,1\n",
        ["row 4, column `time`", '"1e300"'],
    ),
    "no label": (
        b"v,label\n1,0\n2,1\n3,perhaps\n4,0\n",
        ["row 4, column `label`", '"perhaps"', "0 or 1", "point"],
    ),
    "labels for other features": (
        b"a,b,label\n1,2,none\n1,2,none/point/none\n",
        ["row 3, column `label`", "of 2 features"],
    ),
    "zip": (b"PK\x03\x04 spreadsheet", ["spreadsheet", "CSV"]),
    "NUL": (b"a,b\n1,2\n1,\x002\n", ["row 3", "0x00"]),
    "control": (b"a,b\r\n1,2\r\n\x07,2\r\n", ["row 3", "0x07"]),
    "half a UTF-16": (b"\xff\xfea\x00,", ["UTF-16"]),
    "giant line": (
        b"a,b\n1,2\n" + b"1," * 100_000 + b"1\n",
        ["row 3", "200,001 bytes long", "131,072"],
    ),
    "wide": (b",".join([b"a"] * 1001) + b"\n", ["1,001 columns", "1,000"]),
    "open quote": (b"a,b\n1,2\n" + b'"' + b"1,2\n" * 50_000, ["quote"]),
    "too many rows": (b"1\n" * 5_000_001, ["5,000,000 rows"]),
    "too large": (b"1" * 50_000_001, ["50 MB"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_a_sentence(name):
    data, parts = BAD[name]
    with pytest.raises(CsvError) as caught:
        read_csv(data)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        (Columns("when", ("v",)), "no column `when`; the file has `time`, `v`, `w`"),
        (Columns("time", ()), "no column of values"),
        (Columns("time", ("v", "v")), "`v` is asked for twice"),
        (Columns("time", ("w",)), "row 2, column `w`: wanted a number"),
        (Columns("v", ("time",)), "column `time`: wanted a number"),
        (Columns("w", ("v",)), "row 2, column `w`: wanted a time stamp"),
        (Columns("time", ("v",), label="w"), "row 2, column `w`: wanted a label"),
        (Columns(None, ("v",), clock="time"), "needs a column of dates"),
        (
            Columns("time", ("v",), stamps="tomorrow"),
            'cannot be read as "tomorrow"; wanted one of ISO',
        ),
        (
            Columns("time", ("v",), stamps="seconds"),
            "row 2, column `time`: wanted a time stamp (seconds",
        ),
    ],
)
def test_a_wrong_correction_gets_a_sentence(columns, part):
    with pytest.raises(CsvError) as caught:
        read_csv(b"time,v,w\n2026-01-05,1,x\n2026-01-06,2,y\n", columns)
    assert part in str(caught.value)
    assert caught.value.names == ("time", "v", "w")


def test_a_path_that_cannot_be_opened_gets_a_sentence(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path, "bad\0name"):
        with pytest.raises(CsvError, match="cannot open"):
            read_csv(path)


PIECES = st.sampled_from((
    *",;\t|\n\r\"'-.+#= /", "\r\n", '""', "1", "2.5", "1,5", "nan", "-inf", "1e999", "1e308", "abc", "time", "value", "label", "date", "index", "x",  # noqa: E501
    "a (b)",
    "2026-01-05", "2026-01-05 00:00:00", "2026-01-05T00:05:00Z", "01/02/2026", "13/13/2026", "9999-12-31", "0000-00-00", "20260105", "10:00 PM",  # noqa: E501
    "1767571200", "1767571200000", "Jan 5, 2026", "5-Foo-2026", "true", "point", "none/point", "\0", "\ufeff", "é", "٣", "²", "sep=;", "# a,b",  # noqa: E501
    "1_0", "0x1", "1,234.5", "1.234,5", "24:00", "\u2028", "\x85", "\x1a", "1" * 400,
))  # fmt: skip
ENCODINGS = st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"))
soup = st.builds(
    lambda parts, encoding: "".join(parts).encode(encoding, "replace"),
    st.lists(PIECES, max_size=40),
    ENCODINGS,
)
tables = st.builds(
    lambda delimiter, rows, encoding: "\n".join(delimiter.join(row) for row in rows).encode(
        encoding, "replace"
    ),
    st.sampled_from((",", ";", "\t", "|")),
    st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(PIECES, min_size=width, max_size=width), max_size=12)
    ),
    ENCODINGS,
)


@steady(500)
@given(data=st.binary(max_size=200) | soup | tables)
@example(b"date|a (b)|label\n1e308|1,5|1\n.|NULL|1\n1e308|1,5|1")
@example(b"01/02/2026\n" * 3)
@example(b"time (h),v\n1,1\n2,1\n3,1\n1e308,1")
@example(b'time,v\n"",1\n"\n2",2')
def test_hostile_bytes_give_a_recording_or_a_sentence(data):
    try:
        recording = read_csv(data)
    except CsvError as error:
        assert str(error)
        return
    check_valid(recording)
    again = read_csv(data, recording.columns)
    assert replace(again.columns, guess="") == replace(recording.columns, guess="")
    np.testing.assert_array_equal(again.x, recording.x)


@steady(300)
@given(data=tables, choose=st.data())
def test_hostile_corrections_give_a_recording_or_a_sentence(data, choose):
    try:
        names = read_csv(data).columns.names
    except CsvError as error:
        names = error.names
    name = st.sampled_from(names or ("none",))
    parts = choose.draw(
        st.tuples(
            st.none() | name,
            st.lists(name, max_size=3).map(tuple),
            st.none() | name,
            st.none() | name,
        )
    )
    stamps = choose.draw(st.sampled_from(("", *TIMESTAMP_FORMATS)))
    try:
        check_valid(read_csv(data, Columns(*parts, stamps=stamps)))
    except CsvError as error:
        assert error.names == names


def check_valid(recording):
    assert recording.total > 0
    assert np.isfinite(recording.time).all()
    assert recording.x.shape == (recording.total, len(recording.names))
    assert len(recording.units) == len(recording.names)
    assert not np.isinf(recording.x).any()
    assert len(set(recording.names)) == len(recording.names)
    assert recording.period > 0
    assert recording.label is None or (
        recording.label.shape == recording.x.shape
        and set(recording.label.ravel()) <= set(range(len(KINDS)))
    )


# This machine


class Fake:
    """A machine whose clock and counters are set by hand."""

    def __init__(self):
        self.now = START + 0.2
        self.reading = MachineReading(10.0, 40.0, 1000.0, 2000.0)
        self.reads = 0

    def clock(self):
        return self.now

    def read(self):
        self.reads += 1
        return self.reading

    def on(self, seconds, disk=0.0, network=0.0):
        self.now += seconds
        self.reading = self.reading._replace(
            disk=self.reading.disk + disk, network=self.reading.network + network
        )


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def machine(fake):
    return ThisMachine(fake.clock, fake.read)


def test_machine_gives_one_row_a_second(fake, machine):
    times = []
    for _ in range(100):
        fake.on(0.1, disk=50.0, network=7.0)
        times += machine.take(1000).time.tolist()
    assert times == [START + second for second in range(1, 11)]
    assert fake.reads == 11
    assert machine.notes == {}


def test_machine_rates_are_per_second_of_true_time(fake, machine):
    fake.on(1.1, disk=2200.0, network=110.0)
    chunk = machine.take(5)
    assert chunk.label is None
    np.testing.assert_allclose(chunk.x, [[10, 40, 2000, 100]])
    assert machine.take(0).x.shape == (0, 4)


def test_sleeping_machine_leaves_one_gap(fake, machine):
    fake.on(1)
    machine.take(10)
    fake.on(3600, disk=1e9)
    back = machine.take(10)
    np.testing.assert_array_equal(back.x, [[np.nan, 40, np.nan, np.nan]])
    assert len(machine.take(10).time) == 0
    fake.on(1, disk=500.0)
    after = machine.take(10)
    assert [back.time[0], after.time[0]] == [START + 3601, START + 3602]
    np.testing.assert_allclose(after.x[0, 2], 500)
    assert machine.notes == {"pauses": 1}


def test_clock_set_back_starts_anew(fake, machine):
    fake.on(-3600)
    assert machine.take(1).time == [START - 3600]
    fake.on(1, network=10.0)
    np.testing.assert_allclose(machine.take(1).x[0, 3], 10)
    assert machine.notes == {"clock set back": 1}


def test_no_rate_over_a_moment(fake, machine):
    """A rate over a few milliseconds says nothing: the row waits for half a second of counting."""
    fake.on(1.79)
    assert machine.take(1).time == [START + 1]
    fake.on(0.02, disk=10.0)
    assert len(machine.take(1).time) == 0
    fake.on(0.5, disk=10.0)
    chunk = machine.take(1)
    assert chunk.time == [START + 2]
    np.testing.assert_allclose(chunk.x[0, 2], 20 / 0.52)


def test_counters_that_go_back_are_missing_and_counted(fake, machine):
    fake.on(1, disk=-1.0, network=5.0)
    np.testing.assert_allclose(machine.take(1).x, [[10, 40, np.nan, 5]])
    assert machine.notes == {"disk counter went back": 1}


def test_machine_without_disk_counters(fake, machine, monkeypatch):
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    monkeypatch.setattr(
        psutil, "net_io_counters", lambda: SimpleNamespace(bytes_recv=2, bytes_sent=3)
    )
    assert read_machine()[2:] == (None, 5.0)
    fake.reading = fake.reading._replace(disk=None)
    fake.now += 1
    assert np.isnan(machine.take(1).x[0, 2])
    assert machine.notes == {"disk not known": 1}


def test_the_real_machine_answers():
    machine = ThisMachine()
    machine.read_at -= 1
    machine.second -= 1
    chunk = machine.take(10)
    assert chunk.x.shape == (1, 4)
    assert 0 <= chunk.x[0, 0] <= 100
    assert 0 < chunk.x[0, 1] <= 100
    assert len(machine.names) == len(machine.units) == len(machine.floors) == 4


def test_milliseconds_are_the_same_times_as_in_iso():
    milliseconds = (1_767_571_200_001, 809_584, 1_767_571_200_123)
    stamps = [datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms) for ms in milliseconds]
    counted = read_csv(rows("time_ms,v", *(f"{ms},1" for ms in milliseconds)))
    written = read_csv(rows("time,v", *(f"{stamp.isoformat()},1" for stamp in stamps)))
    assert counted.time.tolist() == written.time.tolist()
