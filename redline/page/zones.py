"""The zone of the times on the page: that of who looks at it, of each call that a browser makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from redline.engine.wording import VIEWER_ZONE
from redline.sources.recording import Recording
from streams import Simulated, Stream

# the zone that the call of a browser names; VIEWER_ZONE differs while times of a file are written
CALL_ZONE: ContextVar[tzinfo] = ContextVar("zone of the call", default=UTC)
ZONE_HEADER = b"x-redline-zone"  # of a call: the zone's name, as the browser knows it
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+){0,2}")
MAX_ZONE_NAME = 64  # characters
MOST_TICKS = 8  # under the plot
DAY = 86_400  # seconds
TENTHS = "%H:%M:%S.%f"
# seconds from one tick to the next: those up to an hour divide every zone's distance from UTC
SHORT_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
HOUR_STEPS = (2, 3, 6, 12)
DAY_STEPS = (1, 2, 5, 10)  # of the days of a month, which begins anew
MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120)


@lru_cache(256)
def find_zone(name: str) -> tzinfo:
    """Return the zone with this name; UTC where there is none, or its rules are not installed.

    >>> find_zone("Europe/Berlin"), find_zone("../etc/passwd")
    (zoneinfo.ZoneInfo(key='Europe/Berlin'), datetime.timezone.utc)
    """
    if name == "UTC" or len(name) > MAX_ZONE_NAME or not ZONE_NAME.fullmatch(name):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def zone_name(zone: tzinfo) -> str:
    """Return the name of a zone as the browser knows it."""
    return zone.key if isinstance(zone, ZoneInfo) else "UTC"


@contextmanager
def called_in_zone(headers: list[tuple[bytes, bytes]]) -> Iterator[None]:
    """Write times in the zone that the headers of a call name; in UTC without one."""
    names = [value for name, value in headers if name == ZONE_HEADER]
    zone = find_zone(names[0].decode("latin-1") if names else "UTC")
    tokens = CALL_ZONE.set(zone), VIEWER_ZONE.set(zone)
    try:
        yield
    finally:
        CALL_ZONE.reset(tokens[0])
        VIEWER_ZONE.reset(tokens[1])


@contextmanager
def times_of(stream: Stream | None) -> Iterator[None]:
    """Write the times of a stream: those of a simulation or of a file are as they are, in UTC."""
    if not isinstance(stream, Simulated | Recording):
        yield
        return
    token = VIEWER_ZONE.set(UTC)
    try:
        yield
    finally:
        VIEWER_ZONE.reset(token)


def zone_words(time: float) -> str:
    """Return the short name of the zone at a time, such as "CET".

    time: seconds since the epoch.
    """
    return datetime.fromtimestamp(time, VIEWER_ZONE.get()).strftime("%Z")


def format_moment(time: float) -> str:
    """Return a moment of the world's clock, in seconds since the epoch, with its date."""
    return f"{datetime.fromtimestamp(int(time), VIEWER_ZONE.get()):%Y-%m-%dT%H:%M:%S}"


def local_day(time: float) -> date:
    """Return the day of a time, in seconds since the epoch."""
    return datetime.fromtimestamp(time, VIEWER_ZONE.get()).date()


def time_ticks(low: float, high: float) -> dict[str, Any]:
    """Return the ticks of a time axis in ms from low to high, seconds since the epoch.

    They are at round times of the zone, on both sides of a change of its clock; the day is written
    where it changes.
    """
    zone = VIEWER_ZONE.get()
    times, patterns = _round_times(low, high, zone) if high > low else ([], ("", ""))
    texts = []
    day = ""
    for time in times:
        first, second = (_tick_text(time, pattern, zone) for pattern in patterns)
        texts.append(first if second == day else f"{first}<br>{second}")
        day = second
    return {"tickmode": "array", "tickvals": [1_000 * time for time in times], "ticktext": texts}


def _tick_text(time: float, pattern: str, zone: tzinfo) -> str:
    """Return a time by a pattern: %f has one digit, and a day of the month no leading zero."""
    at = datetime.fromtimestamp(round(time, 3), zone)
    if pattern == TENTHS:
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    return at.strftime(pattern).removeprefix("0" if pattern.startswith("%d") else "")


def _round_times(low: float, high: float, zone: tzinfo) -> tuple[list[float], tuple[str, str]]:
    """Return the round times from low to high, and the patterns of both lines of their texts."""
    span = high - low
    for step in SHORT_STEPS:
        if span / step <= MOST_TICKS:
            # the zone's distance from UTC at the beginning
            ahead = datetime.fromtimestamp(low, zone).utcoffset() or timedelta()
            first = -(-(low + ahead.total_seconds()) // step) * step - ahead.total_seconds()
            count = int((high - first) // step) + 1
            fine = TENTHS if step < 1 else "%H:%M:%S"
            pattern = (fine if step < 60 else "%H:%M", "%d %b")
            return [round(first + i * step, 3) for i in range(max(count, 0))], pattern
    day = datetime.fromtimestamp(low, zone).date()
    days = [day + timedelta(n) for n in range(min(int(span / DAY) + 2, 40_000))]
    for hours in HOUR_STEPS:
        if span / 3_600 / hours <= MOST_TICKS:
            at = [_midnight(each, zone, hour) for each in days for hour in range(0, 24, hours)]
            return [time for time in at if low <= time <= high], ("%H:%M", "%d %b")
    for step in DAY_STEPS:
        if span / DAY / step <= MOST_TICKS:
            at = [_midnight(each, zone) for each in days if (each.day - 1) % step == 0]
            return [time for time in at if low <= time <= high], ("%d %b", "%Y")
    firsts = [each for each in days if each.day == 1]
    for months in MONTH_STEPS:
        found = [each for each in firsts if (12 * each.year + each.month - 1) % months == 0]
        if len(found) <= MOST_TICKS:
            break
    at = [_midnight(each, zone) for each in found]
    return [time for time in at if low <= time <= high], ("%b", "%Y")


def _midnight(day: date, zone: tzinfo, hour: int = 0) -> float:
    """Return the time of an hour of a day in a zone, seconds since the epoch."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=zone).timestamp()


def axis_seconds(x: str | float) -> float:
    """Return a value of the chart's x axis, a date or milliseconds, in seconds since the epoch.

    >>> axis_seconds("2026-01-05 00:00:01.5"), axis_seconds(1767571201500)
    (1767571201.5, 1767571201.5)
    """
    value = x.replace(" ", "T") if isinstance(x, str) else round(x * 1000)
    return float(np.datetime64(value, "us").astype(np.int64) / 1e6)
