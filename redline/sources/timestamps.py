"""Timestamps in the usual notations, read as seconds since the Unix epoch."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from streams import FloatArray

# seconds since the Unix epoch of the first and the last moment: the years 1 to 9999
CALENDAR_TIMES = (-62_135_596_800.0, 253_402_300_799.0)
TIMESTAMP_FORMATS = (
    "ISO",
    "day/month/year",
    "month/day/year",
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
)
SECONDS_PER_UNIT = {
    "seconds": 1.0,
    "milliseconds": 1e-3,
    "microseconds": 1e-6,
    "nanoseconds": 1e-9,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
}
# the unit of numbers since the Unix epoch, by the number from which on it is likely
EPOCH_UNITS = (
    (1e8, "seconds"),
    (1e11, "milliseconds"),
    (1e14, "microseconds"),
    (1e17, "nanoseconds"),
    (1e20, ""),  # too large for any unit
)
UNIT_ALIASES = {
    "s": "seconds",
    "sec": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "µs": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes",
    "h": "hours",
    "hr": "hours",
    "d": "days",
}
MAX_TIMESTAMP_LENGTH = 60  # characters
MAX_SHAPES = 64  # shapes of the cells of a block that are read together
DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# groups of the patterns: y year; a, b month and day in the order of the text, or the day alone (b)
# beside the month's name (n); H M S hour, minute, second; f fraction; p am or pm; z zone
FRACTION = r"(?:[.,](?P<f>\d{1,9})\d*)?"
CLOCK = rf"(?P<H>\d{{1,2}}):(?P<M>\d\d)(?::(?P<S>\d\d){FRACTION})?(?:\s?(?P<p>[AaPp][Mm]))?"
COMPACT_CLOCK = rf"(?P<H>\d\d):?(?P<M>\d\d)(?::?(?P<S>\d\d){FRACTION})?"
ZONE = r"(?:\s?(?P<z>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?"
PATTERN_TAIL = rf"(?:(?:[ T]|, ){CLOCK})?{ZONE}"
WORD = r"(?P<n>[A-Za-z]{3,9})"
PATTERNS = (
    re.compile(
        rf"(?P<y>\d{{4}})(?P<s>[-/.])(?P<a>\d{{1,2}})(?:(?P=s)(?P<b>\d{{1,2}}))?{PATTERN_TAIL}",
        re.ASCII,
    ),
    re.compile(
        rf"(?P<y>\d{{4}})(?P<a>\d\d)(?P<b>\d\d)(?:[ T]?{COMPACT_CLOCK})?{ZONE}",
        re.ASCII,
    ),
    re.compile(
        rf"(?P<a>\d{{1,2}})(?P<s>[-/.])(?P<b>\d{{1,2}})(?P=s)(?P<y>\d{{4}}|\d\d){PATTERN_TAIL}",
        re.ASCII,
    ),
    re.compile(rf"(?P<b>\d{{1,2}})[- /]{WORD}[- /](?P<y>\d{{4}}){PATTERN_TAIL}", re.ASCII),
    re.compile(rf"{WORD} (?P<b>\d{{1,2}}),? (?P<y>\d{{4}}){PATTERN_TAIL}", re.ASCII),
)
COMPACT, AMBIGUOUS = PATTERNS[1:3]
TIME_OF_DAY = re.compile(CLOCK + ZONE, re.ASCII)


def timestamp_pattern(cell: str) -> re.Pattern[str] | None:
    """Return the first pattern that fits a cell; None if it is not a timestamp."""
    word = cell.strip()
    if len(word) > MAX_TIMESTAMP_LENGTH:
        return None
    return next((pattern for pattern in PATTERNS if pattern.fullmatch(word)), None)


def matched_fields(found: re.Match[str], value: Callable[[str], Any]) -> tuple[Any, ...]:
    """Return the eight fields of a timestamp, or of a column of timestamps that differ in digits.

    The fields: year, month, day (day, month if the pattern is AMBIGUOUS and the text is so
    ordered), hour, minute, second, nanosecond, seconds that the zone is ahead of UTC. An impossible
    field becomes one that `epoch_seconds` reads as NaN.

    value: returns the number in a group of the pattern, an int or (cells,) integers.
    """
    group = found.re.groupindex
    text = {name: found[name] for name in group if found[name] is not None}
    number_of = {name: value(name) if name in text else 0 for name in "yabHMSf"}
    year = number_of["y"]
    if len(text["y"]) == 2:
        year = year + np.where(year < 70, 2000, 1900)
    month = number_of["a"] if "n" not in text else month_number(text["n"])
    day = number_of["b"] if "b" in text else 1
    hour = number_of["H"]
    if "p" in text:
        hour = np.where((hour < 1) | (hour > 12), 99, hour % 12 + 12 * (text["p"].lower() == "pm"))
    minute = number_of["M"]
    second = number_of["S"]
    nanosecond = number_of["f"] * 10 ** (9 - len(text["f"])) if "f" in text else 0
    zone = zone_seconds(text.get("z", ""))
    return year, month, day, hour, minute, second, nanosecond, zone


def month_number(name: str) -> int:
    """Return the number of a month by the first three letters of its name; 0 if there is none."""
    start = name[:3].lower()
    return 1 + MONTHS.index(start) if start in MONTHS else 0


def matched_numbers(found: re.Match[str]) -> list[int]:
    """Return the eight fields of one timestamp, as `matched_fields` orders them."""
    return [int(part) for part in matched_fields(found, lambda name: int(found[name]))]


def zone_seconds(zone: str) -> int:
    """Return the seconds that a zone such as +05:30 is ahead of UTC; 0 for "", Z, UTC and GMT."""
    if zone[:1] not in ("+", "-"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)


class TimestampReader:
    """Reads a column of timestamps in one pattern, a block of cells at a time."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.parts: list[np.ndarray] = []  # (8, steps) integers, see `matched_fields`
        self.steps = 0
        self.first_bad = -1  # the step of the first cell that does not fit; -1 = all fit
        self.has_zone = False  # whether a cell names its zone

    def add(self, cells: list[str]) -> None:
        """Read a block; nothing after the first cell that does not fit."""
        if self.first_bad >= 0:
            return
        parts = self.read_by_shape(cells)
        self.parts.append(self.read_one_by_one(cells) if parts is None else parts)
        self.steps += len(cells)

    def read_by_shape(self, cells: list[str]) -> np.ndarray | None:
        """Return the fields (8, cells); cells that differ only in digits are read together.

        None if a cell does not fit or there are too many shapes.
        """
        if len(set(map(len, cells))) == 1 and (parts := self.read_together(cells)) is not None:
            return parts
        shapes: dict[str, list[int]] = {}
        for index, cell in enumerate(cells):
            shapes.setdefault(cell.translate(DIGITS_TO_ZERO), []).append(index)
        if len(shapes) > MAX_SHAPES:
            return None
        parts = np.zeros((8, len(cells)), np.int64)
        for indices in shapes.values():
            group = self.read_together([cells[index] for index in indices])
            if group is None:
                return None
            parts[:, indices] = group
        return parts

    def read_together(self, cells: list[str]) -> np.ndarray | None:
        """Return the fields (8, cells) of cells that differ only in the digits of their numbers.

        None if they differ in more or do not fit.
        """
        found = self.pattern.fullmatch(cells[0])
        if not found:
            return None
        codes = np.array(cells).view(np.uint32).reshape(len(cells), -1)  # (cells, characters)
        spans = {
            name: found.span(name)
            for name in "yabHMSf"
            if name in self.pattern.groupindex and found[name]
        }
        free = np.zeros(codes.shape[1], bool)
        for start, stop in spans.values():
            free[start:stop] = True
        digits = codes - 48  # (cells, characters), unsigned: anything else is far above 9
        if not ((codes == codes[0]) | (free & (digits < 10))).all():
            return None
        self.has_zone |= found["z"] is not None
        powers = 10 ** np.arange(9)[::-1]

        def values(name: str) -> np.ndarray:
            start, stop = spans[name]
            return digits[:, start:stop] @ powers[9 - stop + start :]

        parts = matched_fields(found, values)
        return np.stack([np.broadcast_to(np.asarray(part, np.int64), len(cells)) for part in parts])

    def read_one_by_one(self, cells: list[str]) -> np.ndarray:
        """Return the fields (8, cells) up to the first cell that does not fit."""
        parts = []
        for index, cell in enumerate(cells):
            found = self.pattern.fullmatch(cell.strip())
            if not found:
                self.first_bad = self.steps + index
                break
            self.has_zone |= found["z"] is not None
            parts.append(matched_numbers(found))
        return np.array(parts, np.int64).reshape(-1, 8).T

    def finish(self, order: str) -> tuple[FloatArray, str]:
        """Return seconds since the Unix epoch (steps,) and a phrase on how they were read.

        NaN for an impossible timestamp. The times stop at the first cell that does not fit, which
        is NaN too.

        order: "day/month/year", "month/day/year" or "" = guess; for ambiguous dates.
        """
        parts = np.concatenate(self.parts, axis=1)
        how = "ISO" if self.pattern in PATTERNS[:2] else "with the month's name"
        if self.pattern is AMBIGUOUS:
            how, parts = resolve_order(parts, order)
        time = epoch_seconds(parts)
        if self.first_bad >= 0:
            time = np.append(time, np.nan)
        return time, how + (", with a zone, in UTC" if self.has_zone else ", no zone, read as UTC")


def resolve_order(parts: np.ndarray, order: str) -> tuple[str, np.ndarray]:
    """Return the order of day and month in the text, and the fields in the order month, day.

    Without an `order` it is guessed: the one in which no month is above 12; if both are possible,
    the one in which the times lie closer together.

    parts: (8, steps), fields 1 and 2 as in the text.
    """
    swapped = parts[[0, 2, 1, 3, 4, 5, 6, 7]]
    day = "day/month/year"
    month = "month/day/year"
    if order in (day, month):
        return order, swapped if order == day else parts
    if parts[1:3].max(initial=0) > 12:
        return (day, swapped) if parts[1].max() > 12 else (month, parts)
    travel = [np.nansum(np.abs(np.diff(epoch_seconds(each)))) for each in (swapped, parts)]
    if travel[0] <= travel[1]:
        return f"{day}, could be {month}", swapped
    return f"{month}, could be {day}", parts


def epoch_seconds(parts: np.ndarray) -> FloatArray:
    """Return seconds since the Unix epoch (steps,) of the fields (8, steps) of timestamps.

    NaN where there is no such day or time. See `matched_fields`.
    """
    year, month, day, hour, minute, second, nanosecond, zone = parts
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    length = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
    real = (
        (month >= 1)
        & (month <= 12)
        & (day >= 1)
        & (day <= length.astype(np.int64))
        & (minute < 60)
        & (second <= 60)
    )
    real &= (hour < 24) | ((hour == 24) & (minute == 0) & (second == 0))
    whole = days * 86400 + hour * 3600 + minute * 60 + second - zone
    return np.where(real, whole + nanosecond / 1e9, np.nan)
