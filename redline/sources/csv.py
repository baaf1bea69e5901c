"""Real streams: measured numbers, live from this machine or played back from a CSV file.

>>> recording = read_csv(b"time,load (%)\\n2026-01-05 00:00,40\\n2026-01-05 00:05,41.5\\n")
>>> recording.names, recording.units, recording.period
(('load',), ('%',), 300.0)
>>> recording.columns.guess
'time: `time` (ISO, no zone, read as UTC); values: `load (%)`; no labels'
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redline.sources.csv_cells import (
    CsvError,
    CsvTable,
    NumberReader,
    cell_kind,
    check_text,
    decode_text,
    detect_table,
    load_bytes,
    parse_number,
)
from redline.sources.recording import Columns, Recording, split_unit
from redline.sources.timestamps import (
    COMPACT,
    EPOCH_UNITS,
    PATTERNS,
    SECONDS_PER_UNIT,
    TIME_OF_DAY,
    TIMESTAMP_FORMATS,
    UNIT_ALIASES,
    TimestampReader,
    epoch_seconds,
    matched_numbers,
    timestamp_pattern,
)
from streams import KINDS, Chunk, FloatArray, LabelArray

LARGEST_CELL = 1e75  # of a value: its fourth power is still a number, so no detector overflows
YEARS = (-62_135_596_800, 253_402_300_799)  # seconds since the Unix epoch: the years 1 to 9999
TIME_NAMED = re.compile(r"date|time|stamp|datum|zeit|\bts\b|\bds\b|\bday\b")
TIME_NAMES = frozenset((
    "time", "timestamp", "time_stamp", "_time", "time_ms", "timestamp_ms", "t", "ts", "ds", "date", "datetime",  # noqa: E501
    "epoch", "epoch_s", "epoch_ms", "unix", "unixtime", "unix_time",
))  # fmt: skip
LABEL_NAMES = frozenset((
    "label", "labels", "anomaly", "anomalies", "anomalous", "is_anomaly", "isanomaly", "is_anomalous", "outlier", "is_outlier",  # noqa: E501
    "is_bad", "fault", "is_fault", "truth", "ground_truth",
))  # fmt: skip
NOT_VALUES = frozenset(("changepoint", "changepoints", "change_point", "is_changepoint"))
COUNTERS = frozenset(
    ("", "index", "idx", "row", "step", "id", "no", "nr", "#", "unnamed: 0", "column 1")
)


def guess_columns(table: CsvTable, head: list[list[str]]) -> Columns:
    """Which column is what, by their names and the first rows."""
    cells = {name: [row[at] for row in head] for at, name in enumerate(table.names)}
    plain = {
        name: split_unit(name)[0].lower().replace(" ", "_").replace("-", "_")
        for name in table.names
    }
    time = find_time_column(cells, plain, table)
    clock = find_time_of_day(cells, time)
    free = [name for name in table.names if name not in (time, clock)]
    label = next(
        (name for name in free if plain[name] in LABEL_NAMES and is_label_column(cells[name])), None
    )
    values = [name for name in free if name != label and plain[name] not in NOT_VALUES]
    counters = [
        name
        for name in values
        if table.header and name.lower() in COUNTERS and is_row_counter(cells[name])
    ]
    return Columns(
        time,
        tuple(name for name in values if name not in counters or counters == values),
        label,
        clock,
    )


def find_time_column(
    cells: dict[str, list[str]], plain: dict[str, str], table: CsvTable
) -> str | None:
    """The column of time stamps: in words before in numbers, well named before not."""
    sorts = {
        name: Counter(cell_kind(cell, table.decimal) for cell in column)
        for name, column in cells.items()
    }
    stamps = [name for name, sort in sorts.items() if sort["stamp"] > sort["text"] + sort["number"]]
    called = [
        name
        for name in cells
        if plain[name] in TIME_NAMES and split_unit(name)[1].lower() in ("", *UNIT_ALIASES)
    ]
    numeric = [
        name
        for name in called
        if sorts[name]["number"] and is_increasing(cells[name], table.decimal)
    ]
    if not table.header:
        numeric = [
            name
            for name in list(cells)[:1]
            if is_increasing(cells[name], table.decimal, 9.4e8) and len(cells) > 1
        ]
    well = [name for name in stamps if TIME_NAMED.search(name.lower())]
    return next(iter(well + numeric + stamps), None)


def is_increasing(column: list[str], decimal: str, start: float = -np.inf) -> bool:
    """Numbers that mostly grow, all above `start`: times rather than measurements."""
    values = np.array(
        [np.nan if (value := parse_number(cell, decimal)) is None else value for cell in column]
    )
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(
        values.min() > start and np.count_nonzero(np.diff(values) >= 0) * 2 >= len(values) - 1
    )


def find_time_of_day(cells: Mapping[str, list[str]], time: str | None) -> str | None:
    """The column of times of day, beside a column of dates without any."""
    if not time or any(":" in cell for cell in cells[time]):
        return None
    clocks = (
        name
        for name, column in cells.items()
        if column and all(TIME_OF_DAY.fullmatch(cell.strip()) for cell in column)
    )
    return next((name for name in clocks if name != time), None)


def is_row_counter(column: list[str]) -> bool:
    """0, 1, 2, ... or 1, 2, 3, ...: the number of the row."""
    return column[:1] in (["0"], ["1"]) and column == [
        str(int(column[0]) + at) for at in range(len(column))
    ]


def validate_columns(columns: Columns, table: CsvTable, head: list[list[str]]) -> Columns:
    """Return the columns asked for, once the file has them; times of day that were not named
    still belong to their dates.
    """
    asked = [
        name
        for name in (columns.time, columns.clock, columns.label, *columns.features)
        if name is not None
    ]
    for name in asked:
        if name not in table.names:
            raise CsvError(f"there is no column `{name}`; the file has {list_names(table.names)}")
    if len(set(asked)) < len(asked):
        raise CsvError(
            f"the column `{Counter(asked).most_common(1)[0][0]}` is asked for twice; "
            "give each column one part"
        )
    if columns.stamps not in ("", *TIMESTAMP_FORMATS):
        raise CsvError(
            f'time stamps cannot be read as "{columns.stamps}"; wanted one of '
            f"{', '.join(TIMESTAMP_FORMATS)}"
        )
    if not columns.features:
        raise CsvError("no column of values was chosen; choose at least one")
    if columns.clock and not columns.time:
        raise CsvError(f"the time of day `{columns.clock}` needs a column of dates; choose one")
    cells = {
        name: [row[at] for row in head]
        for at, name in enumerate(table.names)
        if name not in asked or name == columns.time
    }
    return replace(
        columns,
        features=tuple(columns.features),
        clock=columns.clock or find_time_of_day(cells, columns.time),
    )


def list_names(names: Iterable[str], most: int = 8) -> str:
    """Column names for a sentence."""
    names = [f"`{name}`" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# a row that is only called anomalous; a row that says nothing
UNNAMED_KIND = -1
UNSAID = -2
NORMAL_WORDS = ("false", "no", "n", "f", "normal", "none", "ok", "good")
ANOMALY_WORDS = (
    "true",
    "yes",
    "y",
    "t",
    "anomaly",
    "anomalous",
    "abnormal",
    "outlier",
    "bad",
    "fault",
)
LABEL_WORDS = (
    dict.fromkeys(NORMAL_WORDS, 0)
    | dict.fromkeys(ANOMALY_WORDS, UNNAMED_KIND)
    | {kind: at for at, kind in enumerate(KINDS)}
)


def parse_label(cell: str) -> tuple[int, ...] | None:
    """The kinds a label cell names, one for all features or one each; None where it is no label."""
    kinds: list[int] = []
    for part in cell.strip().lower().split("/"):
        value = parse_number(part)
        kind = LABEL_WORDS.get(
            part,
            {0.0: 0, 1.0: UNNAMED_KIND}.get(value, UNSAID if value != value else None)
            if value is not None
            else None,
        )
        if kind is None:
            return None
        kinds.append(kind)
    return tuple(kinds)


def is_label_column(column: list[str]) -> bool:
    """Most cells are labels and not all are missing."""
    said = [parse_label(cell) for cell in set(column)]
    return any(kinds and set(kinds) != {UNSAID} for kinds in said) and said.count(None) * 2 <= len(
        said
    )


class LabelReader:
    """A column of labels, read a block at a time."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}  # each different cell, numbered as it came
        self.codes: list[np.ndarray] = []

    def add(self, cells: tuple[str, ...]) -> None:
        """Learns a block."""
        self.codes.append(
            np.array([self.words.setdefault(cell, len(self.words)) for cell in cells], np.int64)
        )

    def finish(self, table: CsvTable, column: str, features: int) -> tuple[LabelArray, int]:
        """Index into KINDS (steps, features), and how many rows said nothing."""
        codes = np.concatenate(self.codes)
        kinds = np.zeros((len(self.words), features), np.int8)
        for word, code in self.words.items():
            said = parse_label(word)
            if said is None or len(said) not in (1, features):
                step = int((codes == code).argmax())
                table.fail(
                    step,
                    column,
                    (
                        f"a label (0 or 1, true or false, or {', '.join(KINDS)}; with / "
                        f"between those of {features} features)"
                    ),
                )
            kinds[code] = said
        labels = kinds[codes]
        unsaid = int((labels == UNSAID).any(axis=1).sum())
        labels[labels == UNSAID] = 0
        for at in range(features):
            labels[:, at] = name_kinds(labels[:, at])
        return labels, unsaid


def name_kinds(kinds: LabelArray) -> LabelArray:
    """Plain anomalies called by the length of their run: one step a point, more a collective
    one.
    """
    plain = np.concatenate(([False], kinds == UNNAMED_KIND, [False]))
    beside = plain[:-2] | plain[2:]
    return np.where(
        plain[1:-1], np.where(beside, KINDS.index("collective"), KINDS.index("point")), kinds
    ).astype(np.int8)


def read_csv(
    data: bytes | str | Path, columns: Columns | None = None, title: str = ""
) -> "Recording":
    """The recording in a CSV file: its bytes, or the path of one; raises CsvError, and then nothing
    was read.

    `columns` says which column is what; without it that is guessed, and `Recording.columns.guess`
    says how.
    """
    text, remark = decode_text(load_bytes(data))
    table, head = detect_table(check_text(text))
    title = title or ("Your data" if isinstance(data, bytes) else Path(data).name)
    try:
        chosen = validate_columns(columns, table, head) if columns else guess_columns(table, head)
        return assemble_recording(
            replace(table, blank=chosen.time is None),
            chosen,
            columns is None,
            head,
            (title, remark),
        )
    except CsvError as error:
        error.names = table.names
        raise


def assemble_recording(
    table: CsvTable, chosen: Columns, guess: bool, head: list[list[str]], said: tuple[str, str]
) -> "Recording":
    """Reads all rows as the columns say, and keeps what they make."""
    numbers = {name: NumberReader(table.decimal) for name in chosen.features}
    clock = choose_clock(table, chosen, head) if chosen.time else None
    labels = LabelReader() if chosen.label else None
    steps, blank = read_cells(
        table, chosen, numbers | {chosen.time or "": clock, chosen.label or "": labels}
    )
    chosen, left = kept_columns(table, chosen, numbers, guess)
    x = np.stack(
        [numbers[name].finish(table, name) for name in chosen.features], axis=1
    )  # (steps, features), NaN = missing
    time, how = build_times(table, chosen, clock, steps)
    label, unsaid = (
        labels.finish(table, chosen.label, x.shape[1]) if labels and chosen.label else (None, 0)
    )
    notes = {"blank rows": blank, "rows without a label": unsaid} | clip_values(x)
    columns = replace(
        chosen, names=table.names, guess=csv_summary(table, chosen, how, left, said[1])
    )
    return Recording(said[0], Chunk(time, x, label), columns, notes)


def read_cells(table: CsvTable, chosen: Columns, readers: Mapping[str, Any]) -> tuple[int, int]:
    """Gives each column's reader its cells, a block at a time; counts the steps and the blank rows
    between them.
    """
    at = {name: index for index, name in enumerate(table.names)}
    steps = blank = 0
    for block in table.blocks():
        blank += len(block.raw) - len(block.rows)
        steps += len(block.rows)
        cells = list(zip(*block.rows))
        for name, reader in readers.items() if cells else ():
            if reader:
                reader.add(
                    timestamp_cells(cells, chosen, at) if name == chosen.time else cells[at[name]]
                )
    if not steps:
        raise CsvError("the file has column names and no rows; wanted at least one row of numbers")
    return steps, blank


class ElapsedReader:
    """A column of times that are numbers: since the Unix epoch, or since the start in a unit that
    the header names.
    """

    def __init__(self, decimal: str, unit: str) -> None:
        self.numbers = NumberReader(decimal)
        self.unit = unit

    def add(self, cells: list[str]) -> None:
        """Learns a block."""
        self.numbers.add(tuple(cells))

    def finish(self, order: str) -> tuple[FloatArray, str]:
        """Seconds since the Unix epoch (steps,), NaN where a cell is no time, with a word on how
        they were read.
        """
        values = np.concatenate(self.numbers.values)
        known = np.abs(values[np.isfinite(values)])
        middle = np.median(np.minimum(known, 1e21)) if len(known) else 0.0
        unit = (
            order
            if order in SECONDS_PER_UNIT
            else next((name for start, name in reversed(EPOCH_UNITS) if middle >= start), "")
        )
        how = f"{unit} since 1970" if unit else f"{self.unit}, counted from 1970-01-01"
        with np.errstate(over="ignore"):
            return values * SECONDS_PER_UNIT[unit or self.unit], how


def timestamp_cells(
    cells: list[tuple[str, ...]], chosen: Columns, at: Mapping[str, int]
) -> list[str]:
    """The time stamps of a block, put together where date and time of day are apart."""
    dates = cells[at[chosen.time or ""]]
    return (
        list(dates)
        if chosen.clock is None
        else [
            f"{date.strip()} {clock.strip()}" for date, clock in zip(dates, cells[at[chosen.clock]])
        ]
    )


def choose_clock(
    table: CsvTable, chosen: Columns, head: list[list[str]]
) -> TimestampReader | ElapsedReader:
    """The reader that fits the time stamps, by the first of them."""
    at = {name: index for index, name in enumerate(table.names)}
    cells = [cell.strip() for cell in timestamp_cells(list(zip(*head)), chosen, at)] if head else []
    numbers = [cell for cell in cells if cell_kind(cell, table.decimal) == "number"]
    compact = numbers and all(map(is_compact, numbers))
    if chosen.stamps in SECONDS_PER_UNIT or (len(numbers) * 2 > len(cells) and not compact):
        return ElapsedReader(
            table.decimal, UNIT_ALIASES.get(split_unit(chosen.time or "")[1].lower(), "seconds")
        )
    patterns = Counter(pattern for cell in cells if (pattern := timestamp_pattern(cell)))
    return TimestampReader(patterns.most_common(1)[0][0] if patterns else PATTERNS[0])


def is_compact(cell: str) -> bool:
    """A day written without separators, such as 20260105, rather than a count of seconds."""
    found = COMPACT.fullmatch(cell)
    return (
        found is not None
        and "1900" <= cell[:4] < "2100"
        and bool(np.isfinite(epoch_seconds(np.array([matched_numbers(found)]).T))[0])
    )


def build_times(
    table: CsvTable, chosen: Columns, clock: TimestampReader | ElapsedReader | None, steps: int
) -> tuple[FloatArray, str]:
    """Seconds since the Unix epoch (steps,), with a word on how they were read; refuses a row
    without a time.
    """
    if clock is None:
        return np.arange(steps, dtype=float), ""
    time, how = clock.finish(chosen.stamps if chosen.stamps != "ISO" else "")
    wrong = ~((time >= YEARS[0]) & (time <= YEARS[1]))
    if wrong.any():
        form = how.split(",")[0].replace("ISO", "ISO, such as 2026-01-31 14:05:00")
        beside = f", with the time of day in `{chosen.clock}`" if chosen.clock else ""
        table.fail(
            int(wrong.argmax()),
            chosen.time or "",
            f"a time stamp ({form}) of a day that exists{beside}",
        )
    return time, how


def kept_columns(
    table: CsvTable, chosen: Columns, numbers: Mapping[str, NumberReader], guess: bool
) -> tuple[Columns, dict[str, str]]:
    """The columns without those that hold no values, where they were guessed; with what was left
    out and why.
    """
    used = (chosen.time, chosen.clock, chosen.label, *chosen.features)
    left = {name: "" for name in table.names if name not in used}
    if not guess:
        return chosen, left
    left |= {name: "text" for name, each in numbers.items() if each.text}
    left |= {
        name: "empty"
        for name, each in numbers.items()
        if not each.filled and not split_unit(name)[1]
    }
    features = tuple(name for name in chosen.features if name not in left)
    if not any(numbers[name].filled for name in features):
        raise CsvError(
            f"no column holds numbers; the file has {list_names(table.names)}; wanted "
            "rows of numbers, separated by commas, semicolons, tabs or bars"
        )
    return replace(chosen, features=features), left


def clip_values(x: FloatArray) -> dict[str, int]:
    """Makes infinite values and those beyond LARGEST missing, in place, and counts them and the
    missing ones.
    """
    huge = np.abs(x) > LARGEST_CELL
    x[huge] = np.nan
    infinite = int(huge.sum())
    return {
        "missing values": int(np.isnan(x).sum()) - infinite,
        "infinite values read as missing": infinite,
    }


def csv_summary(
    table: CsvTable, chosen: Columns, how: str, left: Mapping[str, str], remark: str
) -> str:
    """How the file was understood, for a person who can correct it."""
    stamp = f"`{chosen.time}`" + (f" and `{chosen.clock}`" if chosen.clock else "")
    parts = [
        f"time: {stamp} ({how})"
        if chosen.time
        else "no time, each row is one second from 1970-01-01 on"
    ]
    parts += [
        f"values: {list_names(chosen.features)}",
        f"labels: `{chosen.label}`" if chosen.label else "no labels",
    ]
    if left:
        parts.append(
            "left out: "
            + ", ".join(
                f"`{name}`" + (f" ({why})" if why else "") for name, why in list(left.items())[:8]
            )
        )
    if table.names[0] == "column 1" and not table.header:
        parts.append("no line of column names")
    if table.decimal == ",":
        parts.append("decimal comma")
    return "; ".join([*parts, remark] if remark else parts)
