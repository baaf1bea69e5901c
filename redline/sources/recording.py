"""The stream of a file: its rows are played back as they are."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from redline.sources.csv_cells import defuse_formula
from streams import KINDS, Chunk, FloatArray, Stream

GAP_PERIODS = 1.5  # periods between two rows above which they count as a jump in time


@dataclass(frozen=True)
class Columns:
    """The role of each column of a file; pass a corrected one to `read_csv`."""

    time: str | None  # None: the file has no time, each row is one second
    features: tuple[str, ...]
    label: str | None = None  # None: the anomalies are not known
    clock: str | None = None  # the time of day, where `time` is only the date
    stamps: str = ""  # one of TIMESTAMP_FORMATS; "" = guess
    names: tuple[str, ...] = ()  # every column of the file, in order; set by read_csv
    guess: str = ""  # how the file was read, for display; set by read_csv


UNIT = re.compile(r"(?s)(.*\S)\s*[(\[]([^()\[\]]*)[)\]]")


def split_unit(name: str) -> tuple[str, str]:
    """Return the name and the unit of a header such as "temp (°C)" or "temp [°C]"."""
    found = UNIT.fullmatch(name)
    return (found[1], found[2].strip()) if found else (name, "")


def typical_period(time: FloatArray) -> float:
    """Return the median of the forward time steps in seconds; 1 if there is none."""
    steps = np.diff(time)
    forward = steps[steps > 0]
    return max(float(np.round(np.median(forward), 6)), 1e-6) if len(forward) else 1.0


class Recording(Stream):
    """A file played back, one row per step; no row is inserted, sorted or dropped."""

    about = "A file of your own, played back."

    def __init__(self, title: str, rows: Chunk, columns: Columns, notes: Mapping[str, int]) -> None:
        self.title = title
        self.columns = columns
        self.time, self.x, self.label = rows
        for array in (self.time, self.x, *(() if self.label is None else (self.label,))):
            array.setflags(write=False)
        pairs = [split_unit(heading) for heading in columns.features]
        if len({name for name, _ in pairs}) < len(pairs):  # they differ only in their units
            pairs = [(heading, "") for heading in columns.features]
        self.names = tuple(name for name, _ in pairs)
        self.units = tuple(unit for _, unit in pairs)
        self.floors = (0.0,) * len(self.names)
        self.period = typical_period(self.time)
        self.position = 0  # rows played
        step = np.diff(self.time)
        counted = {
            "repeated times": (step == 0).sum(),
            "backward times": (step < 0).sum(),
            "jumps in time": (step > GAP_PERIODS * self.period).sum(),
        }
        self.notes = {name: int(count) for name, count in (counted | dict(notes)).items() if count}

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self.time)

    @property
    def rest(self) -> int:
        """Number of rows that are not played yet."""
        return self.total - self.position

    def take(self, steps: int) -> Chunk:
        """Return the next rows; fewer at the end, then none."""
        rows = slice(self.position, min(self.position + max(int(steps), 0), self.total))
        self.position = rows.stop
        return Chunk(
            self.time[rows], self.x[rows], None if self.label is None else self.label[rows]
        )


def write_csv(stream: Stream, steps: int, file: str | Path | TextIO) -> int:
    """Write the next steps of a stream; return the number of rows, fewer at the stream's end.

    `read_csv` reads the same numbers back. Labels are written if the stream has them.
    """
    if isinstance(file, str | Path):
        with open(file, "w", encoding="utf-8", newline="") as opened:
            return write_csv(stream, steps, opened)
    rows = csv.writer(file, lineterminator="\n")
    written = 0
    while written < steps and len((chunk := stream.take(min(steps - written, 10_000))).time):
        if not written:
            names = map(column_heading, stream.names, stream.units)
            headings = ["time", *map(defuse_formula, names)]
            rows.writerow(headings if chunk.label is None else [*headings, "label"])
        rows.writerows(csv_rows(chunk))
        written += len(chunk.time)
    return written


def column_heading(name: str, unit: str) -> str:
    """Return a column name that `split_unit` splits again."""
    return f"{name} ({unit})" if unit or UNIT.fullmatch(name) else name


def csv_rows(chunk: Chunk) -> Iterator[list[str]]:
    """Yield the rows of a chunk: time, values and, if labelled, the label.

    The label is the kind of anomaly of each feature, with / between, or one kind if all are equal.
    """
    for i, timestamp in enumerate(iso_timestamps(chunk.time)):
        values = chunk.x[i].tolist()
        cells = [timestamp, *("" if math.isnan(value) else repr(value) for value in values)]
        if chunk.label is not None:
            kinds = [KINDS[kind] for kind in chunk.label[i].tolist()]
            cells.append(kinds[0] if len(set(kinds)) == 1 else "/".join(kinds))
        yield cells


def iso_timestamps(time: FloatArray) -> list[str]:
    """Return ISO 8601 times in UTC, with the decimals needed to read the same floats back.

    time: seconds since the Unix epoch.
    """
    whole = np.floor(time)
    for digits in (0, 1, 3, 6, 9):
        part = np.round((time - whole) * 10**digits).astype(np.int64)
        if (part < 10**digits).all() and (whole + part * 10 ** (9 - digits) / 1e9 == time).all():
            break
    days = np.datetime_as_string(whole.astype(np.int64).astype("datetime64[s]")).tolist()
    return [
        f"{day}Z" if not digits else f"{day}.{each:0{digits}d}Z"
        for day, each in zip(days, part.tolist())
    ]
