"""The labelled series of the data folder, and three made here, compared with a slow reader."""

import csv
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from redline.sources.csv import read_csv
from redline.sources.recording import GAP_PERIODS

ROOT = Path(os.environ.get("REDLINE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def own_univariate() -> str:
    """Return a series in NAB's form, whose times repeat once, go back once and jump once."""
    minutes = [*range(0, 200, 5), 195, *range(190, 400, 5), *range(700, 1000, 5)]
    stamps = [
        f"{datetime.fromtimestamp(1_767_571_200 + 60 * minute, UTC):%Y-%m-%d %H:%M:%S}"
        for minute in minutes
    ]
    return "timestamp,value\n" + "".join(
        f"{stamp},{20 + (at % 12) / 7}\n" for at, stamp in enumerate(stamps)
    )


def own_multivariate() -> str:
    """Return a run in SKAB's form: semicolons, labels 0.0 and 1.0, CR LF, two seconds missing."""
    lines = ["datetime;Current;Volume Flow RateRMS;anomaly;changepoint"]
    for second in range(300):
        if second not in (50, 51):
            anomalous = 100 <= second < 140 or second == 200
            values = f"{1 + second % 7 / 10};{32 - 9 * anomalous}"
            stamp = f"{datetime.fromtimestamp(1_767_571_200 + second, UTC):%Y-%m-%d %H:%M:%S}"
            lines.append(f"{stamp};{values};{float(anomalous)};{float(second == 100)}")
    return "\r\n".join(lines) + "\r\n"


def at_hand(pattern: str, own: str) -> list:
    """Return the series made here, then the files of the data folder that exist."""
    paths = sorted(ROOT.glob(pattern))
    files = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]
    return [pytest.param(own.encode(), id="own"), *files]


def slowly(data: bytes | Path, delimiter: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return column names, seconds and values, read cell by cell with the standard library."""
    text = data.decode() if isinstance(data, bytes) else data.read_text()
    header, *rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    time = [datetime.fromisoformat(row[0]).replace(tzinfo=UTC).timestamp() for row in rows]
    return header[1:], np.array(time), np.array([[float(cell) for cell in row[1:]] for row in rows])


@pytest.mark.parametrize("data", at_hand("nab/data/*/*.csv", own_univariate()))
def test_univariate_series(data):
    names, time, x = slowly(data, ",")
    recording = read_csv(data)
    np.testing.assert_array_equal(recording.time, time)
    np.testing.assert_array_equal(recording.x, x)
    assert list(recording.names) == names
    assert recording.label is None
    assert (
        recording.columns.guess
        == "time: `timestamp` (ISO, no zone, read as UTC); values: `value`; no labels"
    )
    step = np.diff(time)
    counts = {
        "repeated times": np.sum(step == 0),
        "backward times": np.sum(step < 0),
        "jumps in time": np.sum(step > GAP_PERIODS * recording.period),
    }
    assert recording.notes == {note: count for note, count in counts.items() if count}


@pytest.mark.parametrize("data", at_hand("skab/valve1/*.csv", own_multivariate()))
def test_labelled_runs(data):
    names, time, x = slowly(data, ";")
    recording = read_csv(data)
    np.testing.assert_array_equal(recording.time, time)
    np.testing.assert_array_equal(recording.x, x[:, :-2])
    assert list(recording.names) == names[:-2]
    assert recording.period == 1
    assert recording.label.shape == recording.x.shape
    np.testing.assert_array_equal((recording.label > 0).all(axis=1), x[:, -2] > 0)
    assert "labels: `anomaly`; left out: `changepoint`" in recording.columns.guess


@pytest.mark.parametrize("data", at_hand("jumpstarter/*/*.csv", "0.5,1\n0.25,2\n"))
def test_series_without_header_or_time(data):
    text = data.decode() if isinstance(data, bytes) else data.read_text()
    rows = [[float(cell) for cell in line.split(",")] for line in text.splitlines()]
    recording = read_csv(data)
    np.testing.assert_array_equal(recording.x, rows)
    np.testing.assert_array_equal(recording.time, np.arange(len(rows)))
    assert recording.columns.guess.startswith("no time, each row is one second")


@pytest.mark.slow
def test_uneven_clocks_of_the_corpus_are_all_seen():
    """Of NAB's 58 series 25 are uneven: in 8 times repeat or go back, in 24 they jump."""
    series = at_hand("nab/data/*/*.csv", own_univariate())
    own, *corpus = [read_csv(param.values[0]).notes for param in series]
    assert own == {"repeated times": 1, "backward times": 1, "jumps in time": 1}
    turned = sum("repeated times" in each or "backward times" in each for each in corpus)
    jumped = sum("jumps in time" in each for each in corpus)
    assert len(corpus) < 58 or (turned, jumped, sum(map(bool, corpus))) == (8, 24, 25)
