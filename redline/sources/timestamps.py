"""Time stamps as people write them, read as seconds since the Unix epoch."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from streams import FloatArray

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
EPOCH_UNITS = (
    (1e8, "seconds"),
    (1e11, "milliseconds"),
    (1e14, "microseconds"),
    (1e17, "nanoseconds"),
    (1e20, ""),
)  # from this number on
UNIT_ALIASES = {"s": "seconds", "sec": "seconds", "ms": "milliseconds", "us": "microseconds", "µs": "microseconds", "ns": "nanoseconds"} | {  # noqa: E501
    "min": "minutes", "h": "hours", "hr": "hours", "d": "days",
}  # fmt: skip
DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9})\d*)?)?(?:\s?(?P<p>[AaPp][Mm]))?"  # noqa: E501
ZONE = r"(?:\s?(?P<z>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?"
PATTERN_TAIL = rf"(?:(?:[ T]|, ){CLOCK})?{ZONE}"
WORD = r"(?P<n>[A-Za-z]{3,9})"
PATTERNS = (
    re.compile(
        rf"(?P<y>\d{{4}})(?P<s>[-/.])(?P<a>\d{{1,2}})(?:(?P=s)(?P<b>\d{{1,2}}))?{PATTERN_TAIL}",
        re.ASCII,
    ),
    re.compile(
        rf"(?P<y>\d{{4}})(?P<a>\d\d)(?P<b>\d\d)(?:[ T]?(?P<H>\d\d):?(?P<M>\d\d)(?::?(?P<S>\d\d)(?:[.,](?P<f>\d{{1,9}})\d*)?)?)?{ZONE}",  # noqa: E501
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
    """The first pattern a cell fits; None: it is no time stamp."""
    word = cell.strip()
    return (
        next((pattern for pattern in PATTERNS if pattern.fullmatch(word)), None)
        if len(word) <= 60
        else None
    )


def matched_fields(found: re.Match[str], value: Callable[[str], Any]) -> tuple[Any, ...]:
    """Year, month, day (or day, month), hour, minute, second, nanosecond and zone of a stamp;
    `value` gives a group as integers.
    """
    group = found.re.groupindex
    text = {name: found[name] for name in group if found[name] is not None}
    number_of = {name: value(name) if name in text else 0 for name in "yabHMSf"}
    year = number_of["y"]
    hour = number_of["H"]
    if len(text["y"]) == 2:
        year = year + np.where(year < 70, 2000, 1900)
    if "p" in text:
        hour = np.where((hour < 1) | (hour > 12), 99, hour % 12 + 12 * (text["p"].lower() == "pm"))
    first = (
        number_of["a"]
        if "n" not in text
        else 1 + MONTHS.index(text["n"][:3].lower())
        if text["n"][:3].lower() in MONTHS
        else 0
    )
    second = number_of["b"] if "b" in text else 1
    nanoseconds = number_of["f"] * 10 ** (9 - len(text["f"])) if "f" in text else 0
    return (
        year,
        first,
        second,
        hour,
        number_of["M"],
        number_of["S"],
        nanoseconds,
        zone_seconds(text.get("z", "")),
    )


def matched_numbers(found: re.Match[str]) -> list[int]:
    """The numbers of one stamp, as `fields` orders them."""
    return [int(part) for part in matched_fields(found, lambda name: int(found[name]))]


def zone_seconds(zone: str) -> int:
    """Seconds that a zone's clocks are ahead of UTC."""
    if zone[:1] not in ("+", "-"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)


class TimestampReader:
    """A column of time stamps in words, read a block at a time."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.parts: list[np.ndarray] = []  # (8, steps) integers, see `fields`
        self.steps = 0
        self.first = -1  # the step of the first cell that is no such stamp
        self.zone = False  # one of them names its zone

    def add(self, cells: list[str]) -> None:
        """Learns a block; nothing more after a cell that does not fit."""
        if self.first >= 0:
            return
        parts = self.groupwise(cells)
        self.parts.append(self.cellwise(cells) if parts is None else parts)
        self.steps += len(cells)

    def groupwise(self, cells: list[str]) -> np.ndarray | None:
        """All cells, those of one shape at once; None where some do not fit or the shapes are
        many.
        """
        if len(set(map(len, cells))) == 1 and (parts := self.columnwise(cells)) is not None:
            return parts
        shapes: dict[str, list[int]] = {}
        for index, cell in enumerate(cells):
            shapes.setdefault(cell.translate(DIGITS_TO_ZERO), []).append(index)
        parts = np.zeros((8, len(cells)), np.int64)
        for at in shapes.values() if len(shapes) <= 64 else ():
            some = self.columnwise([cells[index] for index in at])
            if some is None:
                return None
            parts[:, at] = some
        return parts if len(shapes) <= 64 else None

    def columnwise(self, cells: list[str]) -> np.ndarray | None:
        """All cells at once, where they differ from the first in the digits of its numbers only;
        None where they do not.
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
        self.zone |= found["z"] is not None
        ten = 10 ** np.arange(9)[::-1]

        def values(name: str) -> np.ndarray:
            start, stop = spans[name]
            return digits[:, start:stop] @ ten[9 - stop + start :]

        parts = matched_fields(found, values)
        return np.stack([np.broadcast_to(np.asarray(part, np.int64), len(cells)) for part in parts])

    def cellwise(self, cells: list[str]) -> np.ndarray:
        """The cells one at a time, up to the first that does not fit."""
        parts = []
        for at, cell in enumerate(cells):
            found = self.pattern.fullmatch(cell.strip())
            if not found:
                self.first = self.steps + at
                break
            self.zone |= found["z"] is not None
            parts.append(matched_numbers(found))
        return np.array(parts, np.int64).reshape(-1, 8).T

    def finish(self, order: str) -> tuple[FloatArray, str]:
        """Seconds since the Unix epoch (steps,), NaN where a stamp cannot be, with a word on how
        they were read.
        """
        parts = np.concatenate(self.parts, axis=1)
        how = "ISO" if self.pattern in PATTERNS[:2] else "with the month's name"
        if self.pattern is AMBIGUOUS:
            how, parts = resolve_order(parts, order)
        time = epoch_seconds(parts)
        if self.first >= 0:
            time = np.append(time, np.nan)
        return time, how + (", with a zone, in UTC" if self.zone else ", no zone, read as UTC")


def resolve_order(parts: np.ndarray, order: str) -> tuple[str, np.ndarray]:
    """Day and month in their places: as ordered, else as the numbers allow, else so that the rows
    lie closest together.
    """
    swapped = parts[[0, 2, 1, 3, 4, 5, 6, 7]]
    day = "day/month/year"
    month = "month/day/year"
    if order in (day, month):
        return order, swapped if order == day else parts
    if parts[1:3].max(initial=0) > 12:
        return (day, swapped) if parts[1].max() > 12 else (month, parts)
    travel = [np.nansum(np.abs(np.diff(epoch_seconds(each)))) for each in (swapped, parts)]
    return (
        (f"{day}, could be {month}", swapped)
        if travel[0] <= travel[1]
        else (f"{month}, could be {day}", parts)
    )


def epoch_seconds(parts: np.ndarray) -> FloatArray:
    """Seconds since the Unix epoch (steps,) of the numbers of `fields` (8, steps); NaN where there
    is no such day or hour.
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
