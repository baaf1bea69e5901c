"""The reader of CSV files: it guesses the role of each column and returns a recording.

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
from redline.sources.json_table import table_of_json
from redline.sources.recording import Columns, Recording, split_unit
from redline.sources.timestamps import (
    CALENDAR_TIMES,
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

LARGEST_CELL = 1e75  # its fourth power is still a finite float, so no detector overflows
EARLIEST_COUNT = 9.4e8  # seconds since the Unix epoch, October 1999: above, an unnamed time column
TIME_NAMED = re.compile(r"date|time|stamp|datum|zeit|\bts\b|\bds\b|\bday\b")
TIME_NAMES = frozenset((
    "time", "timestamp", "time_stamp", "_time", "time_ms", "timestamp_ms", "t", "ts", "ds",
    "date", "datetime", "epoch", "epoch_s", "epoch_ms", "unix", "unixtime", "unix_time",
))  # fmt: skip
LABEL_NAMES = frozenset((
    "label", "labels", "anomaly", "anomalies", "anomalous", "is_anomaly", "isanomaly",
    "is_anomalous", "outlier", "is_outlier", "is_bad", "fault", "is_fault", "truth", "ground_truth",
))  # fmt: skip
NOT_VALUES = frozenset(("changepoint", "changepoints", "change_point", "is_changepoint"))
COUNTERS = frozenset(
    ("", "index", "idx", "row", "step", "id", "no", "nr", "#", "unnamed: 0", "column 1")
)


def guess_columns(table: CsvTable, head: list[list[str]]) -> Columns:
    """Guess the role of each column from the names and the first rows."""
    cells = {name: [row[i] for row in head] for i, name in enumerate(table.names)}
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
    """Return the column of times, None if there is none.

    First choice: timestamps under a name that speaks of time; second: increasing numbers under such
    a name (without a header, in the first column); third: timestamps under any name.

    Args:
        cells: the first cells of each column.
        plain: the name of each column in lower case, without its unit.
    """
    kinds = {
        name: Counter(cell_kind(cell, table.decimal) for cell in column)
        for name, column in cells.items()
    }
    stamps = [name for name, kind in kinds.items() if kind["stamp"] > kind["text"] + kind["number"]]
    if table.header:
        named = [
            name
            for name in cells
            if plain[name] in TIME_NAMES and split_unit(name)[1].lower() in ("", *UNIT_ALIASES)
        ]
        numeric = [
            name
            for name in named
            if kinds[name]["number"] and is_increasing(cells[name], table.decimal)
        ]
    else:
        numeric = [
            name
            for name in list(cells)[:1]
            if is_increasing(cells[name], table.decimal, EARLIEST_COUNT) and len(cells) > 1
        ]
    named_stamps = [name for name in stamps if TIME_NAMED.search(name.lower())]
    return next(iter(named_stamps + numeric + stamps), None)


def is_increasing(column: list[str], decimal: str, start: float = -np.inf) -> bool:
    """Return whether the numbers of a column mostly grow, all above `start`, as times do."""
    numbers = [parse_number(cell, decimal) for cell in column]
    values = np.array([np.nan if number is None else number for number in numbers])
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(
        values.min() > start and np.count_nonzero(np.diff(values) >= 0) * 2 >= len(values) - 1
    )


def find_time_of_day(cells: Mapping[str, list[str]], time: str | None) -> str | None:
    """Return the column of times of day if the column `time` holds only dates, else None."""
    if not time or any(":" in cell for cell in cells[time]):
        return None
    clocks = (
        name
        for name, column in cells.items()
        if column and all(TIME_OF_DAY.fullmatch(cell.strip()) for cell in column)
    )
    return next((name for name in clocks if name != time), None)


def is_row_counter(column: list[str]) -> bool:
    """Return whether a column numbers the rows: 0, 1, 2, ... or 1, 2, 3, ..."""
    if column[:1] not in (["0"], ["1"]):
        return False
    return column == [str(int(column[0]) + i) for i in range(len(column))]


def validate_columns(columns: Columns, table: CsvTable, head: list[list[str]]) -> Columns:
    """Return the columns that the user asked for, with a column of times of day if one is needed.

    head: the first rows.

    Raises:
        CsvError: the file lacks one of them, or they do not fit together.
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
            "give each column one role"
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
        name: [row[i] for row in head]
        for i, name in enumerate(table.names)
        if name not in asked or name == columns.time
    }
    return replace(
        columns,
        features=tuple(columns.features),
        clock=columns.clock or find_time_of_day(cells, columns.time),
    )


def list_names(names: Iterable[str], most: int = 8) -> str:
    """Return column names for a sentence, at most so many."""
    names = [f"`{name}`" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


UNNAMED_KIND = -1  # label of an anomaly without a kind
MISSING_LABEL = -2
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
    | {kind: i for i, kind in enumerate(KINDS)}
)


def parse_label(cell: str) -> tuple[int, ...] | None:
    """Return the kinds in a label cell, one for all features or one each; None if it is no label.

    A kind is an index into KINDS, UNNAMED_KIND or MISSING_LABEL.
    """
    kinds: list[int] = []
    for part in cell.strip().lower().split("/"):
        kind = LABEL_WORDS.get(part)
        if kind is None:
            kind = number_label(parse_number(part))
        if kind is None:
            return None
        kinds.append(kind)
    return tuple(kinds)


def number_label(value: float | None) -> int | None:
    """Return the label that a number stands for: 0, 1 or missing; None if it is no label."""
    if value is None:
        return None
    if np.isnan(value):
        return MISSING_LABEL
    return {0.0: 0, 1.0: UNNAMED_KIND}.get(value)


def is_label_column(column: list[str]) -> bool:
    """Return whether most different cells of a column are labels, and one is not missing."""
    labels = [parse_label(cell) for cell in set(column)]
    labelled = any(kinds and set(kinds) != {MISSING_LABEL} for kinds in labels)
    return labelled and labels.count(None) * 2 <= len(labels)


class LabelReader:
    """Reads a column of labels, a block of cells at a time."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}  # the code of each different cell: 0, 1, ...
        self.codes: list[np.ndarray] = []  # of the cells of each block

    def add(self, cells: tuple[str, ...]) -> None:
        """Read a block."""
        self.codes.append(
            np.array([self.words.setdefault(cell, len(self.words)) for cell in cells], np.int64)
        )

    def finish(self, table: CsvTable, column: str, features: int) -> tuple[LabelArray, int]:
        """Return indices into KINDS (steps, features) and the number of rows without a label.

        Raises:
            CsvError: a cell is not a label.
        """
        codes = np.concatenate(self.codes)
        kinds = np.zeros((len(self.words), features), np.int8)
        for word, code in self.words.items():
            label = parse_label(word)
            if label is None or len(label) not in (1, features):
                step = int((codes == code).argmax())
                wanted = (
                    f"a label (0 or 1, true or false, or {', '.join(KINDS)}; with / "
                    f"between those of {features} features)"
                )
                table.fail(step, column, wanted)
            kinds[code] = label
        labels = kinds[codes]
        missing = int((labels == MISSING_LABEL).any(axis=1).sum())
        labels[labels == MISSING_LABEL] = 0
        for feature in range(features):
            labels[:, feature] = name_kinds(labels[:, feature])
        return labels, missing


def name_kinds(kinds: LabelArray) -> LabelArray:
    """Replace UNNAMED_KIND in the labels (steps,) of a feature by the kind of its run's length.

    A run of one step is a point anomaly, a longer one a collective anomaly.
    """
    unnamed = np.concatenate(([False], kinds == UNNAMED_KIND, [False]))
    in_run = unnamed[:-2] | unnamed[2:]
    named = np.where(in_run, KINDS.index("collective"), KINDS.index("point"))
    return np.where(unnamed[1:-1], named, kinds).astype(np.int8)


def read_csv(
    data: bytes | str | Path, columns: Columns | None = None, title: str = ""
) -> Recording:
    """Return the recording in a CSV file, or in one with the same table as JSON.

    Args:
        data: the bytes of the file, or its path.
        columns: the role of each column; without it that is guessed, and `Recording.columns.guess`
            says how.
        title: the name of the recording; by default the name of the file.

    Raises:
        CsvError: it cannot be read.
    """
    text, remark = decode_text(load_bytes(data))
    table, head = detect_table(check_text(table_of_json(text)))
    title = title or ("Your data" if isinstance(data, bytes) else Path(data).name)
    try:
        chosen = validate_columns(columns, table, head) if columns else guess_columns(table, head)
        table = replace(table, blank=chosen.time is None)
        return assemble_recording(table, chosen, columns is None, head, title, remark)
    except CsvError as error:
        error.names = table.names
        raise


def assemble_recording(
    table: CsvTable,
    chosen: Columns,
    guessed: bool,
    head: list[list[str]],
    title: str,
    remark: str,
) -> Recording:
    """Read all rows and return their recording.

    Args:
        chosen: the role of each column.
        guessed: whether the roles are a guess; columns without numbers are then left out.
        head: the first rows, for the notation of the times.
        remark: how the text was decoded, "" = as usual.
    """
    numbers = {name: NumberReader(table.decimal) for name in chosen.features}
    clock = choose_clock(table, chosen, head) if chosen.time else None
    labels = LabelReader() if chosen.label else None
    steps, blank = read_cells(
        table, chosen, numbers | {chosen.time or "": clock, chosen.label or "": labels}
    )
    chosen, left_out = kept_columns(table, chosen, numbers, guessed)
    values = [numbers[name].finish(table, name) for name in chosen.features]
    x = np.stack(values, axis=1)  # (steps, features), NaN = missing
    time, how = build_times(table, chosen, clock, steps)
    label = None
    unlabelled = 0
    if labels and chosen.label:
        label, unlabelled = labels.finish(table, chosen.label, x.shape[1])
    notes = {"blank rows": blank, "rows without a label": unlabelled} | clip_values(x)
    summary = csv_summary(table, chosen, how, left_out, remark)
    columns = replace(chosen, names=table.names, guess=summary)
    return Recording(title, Chunk(time, x, label), columns, notes)


def read_cells(table: CsvTable, chosen: Columns, readers: Mapping[str, Any]) -> tuple[int, int]:
    """Pass each column's cells to its reader; return the steps and the blank rows between them.

    readers: by the name of a column, an object with `add`, or None; "" for a role without a column.
    """
    at = {name: index for index, name in enumerate(table.names)}
    steps = 0
    blank = 0
    for block in table.blocks():
        blank += len(block.raw) - len(block.rows)
        steps += len(block.rows)
        cells = list(zip(*block.rows))
        for name, reader in readers.items() if cells else ():
            if not reader:
                continue
            if name == chosen.time:
                reader.add(timestamp_cells(cells, chosen, at))
            else:
                reader.add(cells[at[name]])
    if not steps:
        raise CsvError("the file has column names and no rows; wanted at least one row of numbers")
    return steps, blank


class ElapsedReader:
    """Reads a column of times that are numbers, a block of cells at a time.

    They count from the Unix epoch, or are small numbers in the unit that the header names.
    """

    def __init__(self, decimal: str, unit: str) -> None:
        self.numbers = NumberReader(decimal)
        self.unit = unit

    def add(self, cells: list[str]) -> None:
        """Read a block."""
        self.numbers.add(tuple(cells))

    def finish(self, order: str) -> tuple[FloatArray, str]:
        """Return seconds since the Unix epoch (steps,) and a phrase on how they were read.

        NaN for a cell that is not a number. order: the unit since the Unix epoch, else it is
        guessed from the size of the numbers.
        """
        values = np.concatenate(self.numbers.values)
        known = np.abs(values[np.isfinite(values)])
        middle = np.median(np.minimum(known, 1e21)) if len(known) else 0.0
        unit = next((name for start, name in reversed(EPOCH_UNITS) if middle >= start), "")
        if order in SECONDS_PER_UNIT:
            unit = order
        how = f"{unit} since 1970" if unit else f"{self.unit}, counted from 1970-01-01"
        seconds = SECONDS_PER_UNIT[unit or self.unit]
        with np.errstate(over="ignore"):
            # divided, 1500 ms are the float nearest to 1.5 s, as they are in an ISO time
            return values * seconds if seconds >= 1 else values / round(1 / seconds), how


def timestamp_cells(
    cells: list[tuple[str, ...]], chosen: Columns, at: Mapping[str, int]
) -> list[str]:
    """Return the timestamps of a block, joined if date and time of day are in two columns.

    Args:
        cells: the columns of the block.
        at: the index of each column by its name.
    """
    dates = cells[at[chosen.time or ""]]
    if chosen.clock is None:
        return list(dates)
    clocks = cells[at[chosen.clock]]
    return [f"{date.strip()} {clock.strip()}" for date, clock in zip(dates, clocks)]


def choose_clock(
    table: CsvTable, chosen: Columns, head: list[list[str]]
) -> TimestampReader | ElapsedReader:
    """Return a reader for the notation of the first timestamps."""
    at = {name: index for index, name in enumerate(table.names)}
    cells = [cell.strip() for cell in timestamp_cells(list(zip(*head)), chosen, at)] if head else []
    numbers = [cell for cell in cells if cell_kind(cell, table.decimal) == "number"]
    # most, not all: one impossible date must not turn a column of dates into seconds
    compact = sum(map(is_compact, numbers)) * 2 > len(numbers)
    if chosen.stamps in SECONDS_PER_UNIT or (len(numbers) * 2 > len(cells) and not compact):
        return ElapsedReader(
            table.decimal, UNIT_ALIASES.get(split_unit(chosen.time or "")[1].lower(), "seconds")
        )
    patterns = Counter(pattern for cell in cells if (pattern := timestamp_pattern(cell)))
    return TimestampReader(patterns.most_common(1)[0][0] if patterns else PATTERNS[0])


def is_compact(cell: str) -> bool:
    """Return whether a number is a date without separators, such as 20260105."""
    found = COMPACT.fullmatch(cell)
    return (
        found is not None
        and "1900" <= cell[:4] < "2100"
        and bool(np.isfinite(epoch_seconds(np.array([matched_numbers(found)]).T))[0])
    )


def build_times(
    table: CsvTable, chosen: Columns, clock: TimestampReader | ElapsedReader | None, steps: int
) -> tuple[FloatArray, str]:
    """Return seconds since the Unix epoch (steps,) and a phrase on how they were read.

    Without a time column each row is a second, from 1970 on.

    Raises:
        CsvError: a row has no time in the years 1 to 9999.
    """
    if clock is None:
        return np.arange(steps, dtype=float), ""
    time, how = clock.finish(chosen.stamps if chosen.stamps != "ISO" else "")
    wrong = ~((time >= CALENDAR_TIMES[0]) & (time <= CALENDAR_TIMES[1]))
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
    table: CsvTable, chosen: Columns, numbers: Mapping[str, NumberReader], guessed: bool
) -> tuple[Columns, dict[str, str]]:
    """Return the columns that are kept, and the others by name with the reason, "" = not chosen.

    Guessed features that hold text or nothing are left out; an empty one with a unit is kept.

    Raises:
        CsvError: no guessed feature holds numbers.
    """
    used = (chosen.time, chosen.clock, chosen.label, *chosen.features)
    left_out = {name: "" for name in table.names if name not in used}
    if not guessed:
        return chosen, left_out
    left_out |= {name: "text" for name, column in numbers.items() if column.text}
    empty = [name for name, column in numbers.items() if not column.filled]
    left_out |= {name: "empty" for name in empty if not split_unit(name)[1]}
    features = tuple(name for name in chosen.features if name not in left_out)
    if not any(numbers[name].filled for name in features):
        raise CsvError(
            f"no column holds numbers; the file has {list_names(table.names)}; wanted "
            "rows of numbers, separated by commas, semicolons, tabs or bars"
        )
    return replace(chosen, features=features), left_out


def clip_values(x: FloatArray) -> dict[str, int]:
    """Make infinite values and those beyond LARGEST_CELL missing in x (steps, features), in place.

    Returns the counts of these and of the missing values.
    """
    huge = np.abs(x) > LARGEST_CELL
    x[huge] = np.nan
    infinite = int(huge.sum())
    return {
        "missing values": int(np.isnan(x).sum()) - infinite,
        "infinite values read as missing": infinite,
    }


def csv_summary(
    table: CsvTable, chosen: Columns, how: str, left_out: Mapping[str, str], remark: str
) -> str:
    """Describe how the file was read, for a user who can correct it."""
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
    if left_out:
        reasons = list(left_out.items())[:8]
        named = [f"`{name}` ({reason})" if reason else f"`{name}`" for name, reason in reasons]
        parts.append(f"left out: {', '.join(named)}")
    if table.names[0] == "column 1" and not table.header:
        parts.append("no line of column names")
    if table.decimal == ",":
        parts.append("decimal comma")
    return "; ".join([*parts, remark] if remark else parts)
