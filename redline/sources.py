"""Real streams: measured numbers, live from this machine or played back from a CSV file.

>>> recording = read_csv(b"time,load (%)\\n2026-01-05 00:00,40\\n2026-01-05 00:05,41.5\\n")
>>> recording.names, recording.units, recording.period
(('load',), ('%',), 300.0)
>>> recording.columns.guess
'time: `time` (ISO, no zone, read as UTC); values: `load (%)`; no labels'
"""

import csv
import re
import time as wall
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import psutil

from redline.cells import CsvError, Numbers, Table, checked, decoded, loaded, number, sort_of, table_of
from redline.stamps import COMPACT, EPOCH, PATTERNS, SECONDS, STAMPS, TIME_OF_DAY, UNITS, Stamps, numbers_in, seconds, stamp_pattern
from streams import KINDS, Chunk, Floats, Labels, Stream

LARGEST = 1e75  # of a value: its fourth power is still a number, so no detector overflows
YEARS = (-62_135_596_800, 253_402_300_799)  # seconds since the Unix epoch: the years 1 to 9999
BREAK = 1.5  # periods between two rows, above which the drawn line breaks


@dataclass(frozen=True)
class Columns:
    """Which column of a file is what; pass a corrected one to `read_csv`."""

    time: str | None  # None: the file has no time, each row is one second
    features: tuple[str, ...]
    label: str | None = None  # None: the truth is unknown
    clock: str | None = None  # the time of day, where `time` is only the date
    stamps: str = ""  # one of STAMPS; "" = guess
    names: tuple[str, ...] = ()  # every column of the file, in its order; filled in by read_csv
    guess: str = ""  # how the file was understood, for a person; filled in by read_csv


# What is in which column

TIME_NAMED = re.compile(r"date|time|stamp|datum|zeit|\bts\b|\bds\b|\bday\b")
TIME_NAMES = frozenset((
    "time", "timestamp", "time_stamp", "_time", "time_ms", "timestamp_ms", "t", "ts", "ds", "date", "datetime",
    "epoch", "epoch_s", "epoch_ms", "unix", "unixtime", "unix_time",
))  # fmt: skip
LABEL_NAMES = frozenset((
    "label", "labels", "anomaly", "anomalies", "anomalous", "is_anomaly", "isanomaly", "is_anomalous", "outlier", "is_outlier",
    "is_bad", "fault", "is_fault", "truth", "ground_truth",
))  # fmt: skip
NOT_VALUES = frozenset(("changepoint", "changepoints", "change_point", "is_changepoint"))
COUNTERS = frozenset(("", "index", "idx", "row", "step", "id", "no", "nr", "#", "unnamed: 0", "column 1"))
UNIT = re.compile(r"(?s)(.*\S)\s*[(\[]([^()\[\]]*)[)\]]")


def parted(name: str) -> tuple[str, str]:
    """Name and unit of a header such as "temp (°C)" or "temp [°C]"."""
    found = UNIT.fullmatch(name)
    return (found[1], found[2].strip()) if found else (name, "")


def guessed(table: Table, head: list[list[str]]) -> Columns:
    """Which column is what, by their names and the first rows."""
    cells = {name: [row[at] for row in head] for at, name in enumerate(table.names)}
    plain = {name: parted(name)[0].lower().replace(" ", "_").replace("-", "_") for name in table.names}
    time = time_of(cells, plain, table)
    clock = clock_of_day(cells, time)
    free = [name for name in table.names if name not in (time, clock)]
    label = next((name for name in free if plain[name] in LABEL_NAMES and is_label(cells[name])), None)
    values = [name for name in free if name != label and plain[name] not in NOT_VALUES]
    counters = [name for name in values if table.header and name.lower() in COUNTERS and counts_rows(cells[name])]
    return Columns(time, tuple(name for name in values if name not in counters or counters == values), label, clock)


def time_of(cells: dict[str, list[str]], plain: dict[str, str], table: Table) -> str | None:
    """The column of time stamps: in words before in numbers, well named before not."""
    sorts = {name: Counter(sort_of(cell, table.decimal) for cell in column) for name, column in cells.items()}
    stamps = [name for name, sort in sorts.items() if sort["stamp"] > sort["text"] + sort["number"]]
    called = [name for name in cells if plain[name] in TIME_NAMES and parted(name)[1].lower() in ("", *UNITS)]
    numeric = [name for name in called if sorts[name]["number"] and rises(cells[name], table.decimal)]
    if not table.header:
        numeric = [name for name in list(cells)[:1] if rises(cells[name], table.decimal, 9.4e8) and len(cells) > 1]
    well = [name for name in stamps if TIME_NAMED.search(name.lower())]
    return next(iter(well + numeric + stamps), None)


def rises(column: list[str], decimal: str, start: float = -np.inf) -> bool:
    """Numbers that mostly grow, all above `start`: times rather than measurements."""
    values = np.array([np.nan if (value := number(cell, decimal)) is None else value for cell in column])
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > start and np.count_nonzero(np.diff(values) >= 0) * 2 >= len(values) - 1)


def clock_of_day(cells: Mapping[str, list[str]], time: str | None) -> str | None:
    """The column of times of day, beside a column of dates without any."""
    if not time or any(":" in cell for cell in cells[time]):
        return None
    clocks = (name for name, column in cells.items() if column and all(TIME_OF_DAY.fullmatch(cell.strip()) for cell in column))
    return next((name for name in clocks if name != time), None)


def counts_rows(column: list[str]) -> bool:
    """0, 1, 2, ... or 1, 2, 3, ...: the number of the row."""
    return column[:1] in (["0"], ["1"]) and column == [str(int(column[0]) + at) for at in range(len(column))]


def agreed(columns: Columns, table: Table, head: list[list[str]]) -> Columns:
    """The columns somebody asked for, once the file has them; times of day that nobody claimed still belong to their dates."""
    asked = [name for name in (columns.time, columns.clock, columns.label, *columns.features) if name is not None]
    for name in asked:
        if name not in table.names:
            raise CsvError(f"there is no column `{name}`; the file has {listed(table.names)}")
    if len(set(asked)) < len(asked):
        raise CsvError(f"the column `{Counter(asked).most_common(1)[0][0]}` is asked for twice; give each column one part")
    if columns.stamps not in ("", *STAMPS):
        raise CsvError(f'time stamps cannot be read as "{columns.stamps}"; wanted one of {", ".join(STAMPS)}')
    if not columns.features:
        raise CsvError("no column of values was chosen; choose at least one")
    if columns.clock and not columns.time:
        raise CsvError(f"the time of day `{columns.clock}` needs a column of dates; choose one")
    cells = {name: [row[at] for row in head] for at, name in enumerate(table.names) if name not in asked or name == columns.time}
    return replace(columns, features=tuple(columns.features), clock=columns.clock or clock_of_day(cells, columns.time))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Column names for a sentence."""
    names = [f"`{name}`" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Labels

PLAIN, UNSAID = -1, -2  # a row that is only called anomalous; a row that says nothing
NORMAL = ("false", "no", "n", "f", "normal", "none", "ok", "good")
STRANGE = ("true", "yes", "y", "t", "anomaly", "anomalous", "abnormal", "outlier", "bad", "fault")
TRUTH = dict.fromkeys(NORMAL, 0) | dict.fromkeys(STRANGE, PLAIN) | {kind: at for at, kind in enumerate(KINDS)}


def truth(cell: str) -> tuple[int, ...] | None:
    """The kinds a label cell names, one for all features or one each; None where it is no label."""
    kinds: list[int] = []
    for part in cell.strip().lower().split("/"):
        value = number(part)
        kind = TRUTH.get(part, {0.0: 0, 1.0: PLAIN}.get(value, UNSAID if value != value else None) if value is not None else None)
        if kind is None:
            return None
        kinds.append(kind)
    return tuple(kinds)


def is_label(column: list[str]) -> bool:
    """Most cells are labels and not all are missing."""
    said = [truth(cell) for cell in set(column)]
    return any(kinds and set(kinds) != {UNSAID} for kinds in said) and said.count(None) * 2 <= len(said)


class Truth:
    """A column of labels, read a block at a time."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}  # each different cell, numbered as it came
        self.codes: list[np.ndarray] = []

    def add(self, cells: tuple[str, ...]) -> None:
        """Learns a block."""
        self.codes.append(np.array([self.words.setdefault(cell, len(self.words)) for cell in cells], np.int64))

    def finish(self, table: Table, column: str, features: int) -> tuple[Labels, int]:
        """Index into KINDS (steps, features), and how many rows said nothing."""
        codes = np.concatenate(self.codes)
        kinds = np.zeros((len(self.words), features), np.int8)
        for word, code in self.words.items():
            said = truth(word)
            if said is None or len(said) not in (1, features):
                step = int((codes == code).argmax())
                table.fail(step, column, f"a label (0 or 1, true or false, or {', '.join(KINDS)}; with / between those of {features} features)")
            kinds[code] = said
        labels = kinds[codes]
        unsaid = int((labels == UNSAID).any(axis=1).sum())
        labels[labels == UNSAID] = 0
        for at in range(features):
            labels[:, at] = named(labels[:, at])
        return labels, unsaid


def named(kinds: Labels) -> Labels:
    """Plain anomalies called by the length of their run: one step a point, more a collective one."""
    plain = np.concatenate(([False], kinds == PLAIN, [False]))
    beside = plain[:-2] | plain[2:]
    return np.where(plain[1:-1], np.where(beside, KINDS.index("collective"), KINDS.index("point")), kinds).astype(np.int8)


# Reading


def read_csv(data: bytes | str | Path, columns: Columns | None = None, title: str = "") -> "Recording":
    """The recording in a CSV file: its bytes, or the path of one; raises CsvError, and then nothing was read.

    `columns` says which column is what; without it that is guessed, and `Recording.columns.guess` says how.
    """
    text, remark = decoded(loaded(data))
    table, head = table_of(checked(text))
    title = title or ("Your data" if isinstance(data, bytes) else Path(data).name)
    try:
        chosen = agreed(columns, table, head) if columns else guessed(table, head)
        return assembled(replace(table, blank=chosen.time is None), chosen, columns is None, head, (title, remark))
    except CsvError as error:
        error.names = table.names
        raise


def assembled(table: Table, chosen: Columns, guess: bool, head: list[list[str]], said: tuple[str, str]) -> "Recording":
    """Reads all rows as the columns say, and keeps what they make."""
    numbers = {name: Numbers(table.decimal) for name in chosen.features}
    clock = clock_of(table, chosen, head) if chosen.time else None
    labels = Truth() if chosen.label else None
    steps, blank = gathered(table, chosen, numbers | {chosen.time or "": clock, chosen.label or "": labels})
    chosen, left = kept(table, chosen, numbers, guess)
    x = np.stack([numbers[name].finish(table, name) for name in chosen.features], axis=1)  # (steps, features), NaN = missing
    time, how = times(table, chosen, clock, steps)
    label, unsaid = labels.finish(table, chosen.label, x.shape[1]) if labels and chosen.label else (None, 0)
    notes = {"blank rows": blank, "rows without a label": unsaid} | bounded(x)
    columns = replace(chosen, names=table.names, guess=sentence(table, chosen, how, left, said[1]))
    return Recording(said[0], Chunk(time, x, label), columns, notes)


def gathered(table: Table, chosen: Columns, readers: Mapping[str, Any]) -> tuple[int, int]:
    """Gives each column's reader its cells, a block at a time; counts the steps and the blank rows between them."""
    at = {name: index for index, name in enumerate(table.names)}
    steps = blank = 0
    for block in table.blocks():
        blank += len(block.raw) - len(block.rows)
        steps += len(block.rows)
        cells = list(zip(*block.rows))
        for name, reader in readers.items() if cells else ():
            if reader:
                reader.add(stamp_cells(cells, chosen, at) if name == chosen.time else cells[at[name]])
    if not steps:
        raise CsvError("the file has column names and no rows; wanted at least one row of numbers")
    return steps, blank


# The time of a row


class Elapsed:
    """A column of times that are numbers: since the Unix epoch, or since the start in a unit that the header names."""

    def __init__(self, decimal: str, unit: str) -> None:
        self.numbers = Numbers(decimal)
        self.unit = unit

    def add(self, cells: list[str]) -> None:
        """Learns a block."""
        self.numbers.add(tuple(cells))

    def finish(self, order: str) -> tuple[Floats, str]:
        """Seconds since the Unix epoch (steps,), NaN where a cell is no time, with a word on how they were read."""
        values = np.concatenate(self.numbers.values)
        known = np.abs(values[np.isfinite(values)])
        middle = np.median(np.minimum(known, 1e21)) if len(known) else 0.0
        unit = order if order in SECONDS else next((name for start, name in reversed(EPOCH) if middle >= start), "")
        how = f"{unit} since 1970" if unit else f"{self.unit}, counted from 1970-01-01"
        with np.errstate(over="ignore"):
            return values * SECONDS[unit or self.unit], how


def stamp_cells(cells: list[tuple[str, ...]], chosen: Columns, at: Mapping[str, int]) -> list[str]:
    """The time stamps of a block, put together where date and time of day are apart."""
    dates = cells[at[chosen.time or ""]]
    return list(dates) if chosen.clock is None else [f"{date.strip()} {clock.strip()}" for date, clock in zip(dates, cells[at[chosen.clock]])]


def clock_of(table: Table, chosen: Columns, head: list[list[str]]) -> Stamps | Elapsed:
    """The reader that fits the time stamps, by the first of them."""
    at = {name: index for index, name in enumerate(table.names)}
    cells = [cell.strip() for cell in stamp_cells(list(zip(*head)), chosen, at)] if head else []
    numbers = [cell for cell in cells if sort_of(cell, table.decimal) == "number"]
    compact = numbers and all(map(is_compact, numbers))
    if chosen.stamps in SECONDS or (len(numbers) * 2 > len(cells) and not compact):
        return Elapsed(table.decimal, UNITS.get(parted(chosen.time or "")[1].lower(), "seconds"))
    patterns = Counter(pattern for cell in cells if (pattern := stamp_pattern(cell)))
    return Stamps(patterns.most_common(1)[0][0] if patterns else PATTERNS[0])


def is_compact(cell: str) -> bool:
    """A day written without separators, such as 20260105, rather than a count of seconds."""
    found = COMPACT.fullmatch(cell)
    return found is not None and "1900" <= cell[:4] < "2100" and bool(np.isfinite(seconds(np.array([numbers_in(found)]).T))[0])


def times(table: Table, chosen: Columns, clock: Stamps | Elapsed | None, steps: int) -> tuple[Floats, str]:
    """Seconds since the Unix epoch (steps,), with a word on how they were read; refuses a row without a time."""
    if clock is None:
        return np.arange(steps, dtype=float), ""
    time, how = clock.finish(chosen.stamps if chosen.stamps != "ISO" else "")
    wrong = ~((time >= YEARS[0]) & (time <= YEARS[1]))
    if wrong.any():
        form = how.split(",")[0].replace("ISO", "ISO, such as 2026-01-31 14:05:00")
        beside = f", with the time of day in `{chosen.clock}`" if chosen.clock else ""
        table.fail(int(wrong.argmax()), chosen.time or "", f"a time stamp ({form}) of a day that exists{beside}")
    return time, how


def kept(table: Table, chosen: Columns, numbers: Mapping[str, Numbers], guess: bool) -> tuple[Columns, dict[str, str]]:
    """The columns without those that hold no values, where they were guessed; with what was left out and why."""
    used = (chosen.time, chosen.clock, chosen.label, *chosen.features)
    left = {name: "" for name in table.names if name not in used}
    if not guess:
        return chosen, left
    left |= {name: "text" for name, each in numbers.items() if each.text}
    left |= {name: "empty" for name, each in numbers.items() if not each.filled and not parted(name)[1]}
    features = tuple(name for name in chosen.features if name not in left)
    if not any(numbers[name].filled for name in features):
        raise CsvError(
            f"no column holds numbers; the file has {listed(table.names)}; wanted rows of numbers, separated by commas, semicolons, tabs or bars"
        )
    return replace(chosen, features=features), left


def bounded(x: Floats) -> dict[str, int]:
    """Makes infinite values and those beyond LARGEST missing, in place, and counts them and the missing ones."""
    huge = np.abs(x) > LARGEST
    x[huge] = np.nan
    infinite = int(huge.sum())
    return {"missing values": int(np.isnan(x).sum()) - infinite, "infinite values read as missing": infinite}


def sentence(table: Table, chosen: Columns, how: str, left: Mapping[str, str], remark: str) -> str:
    """How the file was understood, for a person who can correct it."""
    stamp = f"`{chosen.time}`" + (f" and `{chosen.clock}`" if chosen.clock else "")
    parts = [f"time: {stamp} ({how})" if chosen.time else "no time, each row is one second from 1970-01-01 on"]
    parts += [f"values: {listed(chosen.features)}", f"labels: `{chosen.label}`" if chosen.label else "no labels"]
    if left:
        parts.append("left out: " + ", ".join(f"`{name}`" + (f" ({why})" if why else "") for name, why in list(left.items())[:8]))
    if table.names[0] == "column 1" and not table.header:
        parts.append("no line of column names")
    if table.decimal == ",":
        parts.append("decimal comma")
    return "; ".join([*parts, remark] if remark else parts)


# Playing back


def period_of(time: Floats) -> float:
    """The median step in seconds of those that go forward; 1 where none does."""
    steps = np.diff(time)
    forward = steps[steps > 0]
    return max(float(np.round(np.median(forward), 6)), 1e-6) if len(forward) else 1.0


def gaps(time: Floats, period: float) -> np.ndarray:
    """Where the drawn line breaks before a row (steps,): a jump of more than BREAK periods, either way."""
    return np.abs(np.diff(time, prepend=time[:1])) > BREAK * period


class Recording(Stream):
    """A file played back, a row a step: nothing inserted, sorted or dropped."""

    about = "A file of your own, played back."

    def __init__(self, title: str, rows: Chunk, columns: Columns, notes: Mapping[str, int]) -> None:
        self.title, self.columns = title, columns
        self.time, self.x, self.label = rows
        for array in (self.time, self.x, *(() if self.label is None else (self.label,))):
            array.setflags(write=False)
        pairs = [parted(name) for name in columns.features]
        if len({name for name, _ in pairs}) < len(pairs):
            pairs = [(whole, "") for whole in columns.features]
        self.names, self.units = tuple(name for name, _ in pairs), tuple(unit for _, unit in pairs)
        self.floors = (0.0,) * len(self.names)
        self.period = period_of(self.time)
        self.breaks = gaps(self.time, self.period)  # (steps,)
        self.position = 0  # rows played
        step = np.diff(self.time)
        counted = {"repeated times": (step == 0).sum(), "backward times": (step < 0).sum(), "jumps in time": (step > BREAK * self.period).sum()}
        self.notes = {name: int(count) for name, count in (counted | dict(notes)).items() if count}

    @property
    def total(self) -> int:
        """All rows."""
        return len(self.time)

    @property
    def rest(self) -> int:
        """Rows not played yet."""
        return self.total - self.position

    def take(self, steps: int) -> Chunk:
        """The next rows; fewer at the end, then none."""
        rows = slice(self.position, min(self.position + max(int(steps), 0), self.total))
        self.position = rows.stop
        return Chunk(self.time[rows], self.x[rows], None if self.label is None else self.label[rows])


# Writing


def write_csv(stream: Stream, steps: int, file: str | Path | TextIO) -> int:
    """Writes the next steps of a stream, labelled where it knows the truth, for `read_csv` to read back exactly; returns the rows written."""
    if isinstance(file, str | Path):
        with open(file, "w", encoding="utf-8", newline="") as opened:
            return write_csv(stream, steps, opened)
    rows, written = csv.writer(file, lineterminator="\n"), 0
    while written < steps and len((chunk := stream.take(min(steps - written, 10_000))).time):
        if not written:
            rows.writerow(["time", *map(headed, stream.names, stream.units), *(["label"] if chunk.label is not None else [])])
        rows.writerows(cells_of(chunk))
        written += len(chunk.time)
    return written


def headed(name: str, unit: str) -> str:
    """A column name that `parted` takes apart again."""
    return f"{name} ({unit})" if unit or UNIT.fullmatch(name) else name


def cells_of(chunk: Chunk) -> Iterator[list[str]]:
    """The rows of a chunk: time, values, and the kinds of its features, one word where they agree, else with / between."""
    for at, stamp in enumerate(stamped(chunk.time)):
        cells = [stamp, *("" if value != value else repr(value) for value in chunk.x[at].tolist())]
        if chunk.label is not None:
            kinds = [KINDS[kind] for kind in chunk.label[at].tolist()]
            cells.append(kinds[0] if len(set(kinds)) == 1 else "/".join(kinds))
        yield cells


def stamped(time: Floats) -> list[str]:
    """ISO stamps in UTC, with as many decimals as it takes to give the same float back."""
    whole = np.floor(time)
    for digits in (0, 1, 3, 6, 9):
        part = np.round((time - whole) * 10**digits).astype(np.int64)
        if (part < 10**digits).all() and (whole + part * 10 ** (9 - digits) / 1e9 == time).all():
            break
    days = np.datetime_as_string(whole.astype(np.int64).astype("datetime64[s]")).tolist()
    return [f"{day}Z" if not digits else f"{day}.{each:0{digits}d}Z" for day, each in zip(days, part.tolist())]


# This machine


class Reading(NamedTuple):
    """What the operating system says at one moment."""

    cpu: float  # % of all cores since the reading before
    memory: float  # %
    disk: float | None  # bytes read and written since the start; None: not known here
    network: float | None  # bytes received and sent since the start; None: not known here


def read_machine() -> Reading:
    """Asks the operating system."""
    return Reading(psutil.cpu_percent(), psutil.virtual_memory().percent, counted("disk"), counted("network"))


def counted(what: str) -> float | None:
    """Bytes through all disks or network cards; None where the system does not say, as in some containers."""
    try:
        if what == "disk":
            disk = psutil.disk_io_counters()
            return None if disk is None else float(disk.read_bytes + disk.write_bytes)
        network = psutil.net_io_counters()
        return None if network is None else float(network.bytes_recv + network.bytes_sent)
    except (OSError, RuntimeError, NotImplementedError, psutil.Error):
        return None


class ThisMachine(Stream):
    """The load of the machine this runs on, a row for each second of the wall clock in which somebody asks.

    After more than ASLEEP seconds without a row there is one gap and no burst: the first row back has memory only, because
    an average over a sleep says nothing about now. Shorter pauses are averaged over their true length.
    """

    title = "This machine"
    about = "CPU, memory, disk and network of the machine this runs on, live."
    names = ("CPU", "memory", "disk", "network")
    units = ("%", "%", "B/s", "B/s")
    floors = (2.0, 0.2, 50_000.0, 10_000.0)
    period = 1.0
    ASLEEP = 5.0  # seconds

    def __init__(self, clock: Callable[[], float] = wall.time, read: Callable[[], Reading] = read_machine) -> None:
        self.clock, self.read = clock, read
        self.at = clock()  # seconds since the Unix epoch of the reading before
        self.second = np.floor(self.at)  # of the row before
        self.before = read()
        self.notes: dict[str, int] = {}

    def take(self, steps: int) -> Chunk:
        """One row when a second has begun since the last one; else none. A clock set back starts anew from there."""
        now = self.clock()
        second = np.floor(now)
        early = 0 <= now - self.at < self.period / 2  # too soon after the reading before for a rate
        if steps < 1 or early or self.second - self.period <= second <= self.second:
            return Chunk(np.empty(0), np.empty((0, 4)), None)
        reading = self.read()
        row = self.row(reading, now - self.at)
        self.at, self.second, self.before = now, second, reading
        return Chunk(np.array([second]), np.array([row]), None)

    def row(self, new: Reading, elapsed: float) -> list[float]:
        """CPU, memory, disk and network (features,), NaN = missing, after so many seconds."""
        if not 0 < elapsed <= self.ASLEEP:
            self.note("pauses" if elapsed > 0 else "clock set back")
            return [np.nan, new.memory, np.nan, np.nan]
        old = self.before
        return [new.cpu, new.memory, self.rate("disk", old.disk, new.disk, elapsed), self.rate("network", old.network, new.network, elapsed)]

    def rate(self, what: str, old: float | None, new: float | None, elapsed: float) -> float:
        """Bytes per second between two readings; NaN, counted, where there is none."""
        if new is None or old is None:
            self.note(f"{what} not known")
        elif new < old:
            self.note(f"{what} counter went back")
        else:
            return (new - old) / elapsed
        return np.nan

    def note(self, fact: str) -> None:
        """Counts a fact."""
        self.notes[fact] = self.notes.get(fact, 0) + 1
