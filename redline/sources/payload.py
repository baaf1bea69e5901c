"""The bodies of requests and answers: JSON, and submitted points (one, a list, columns, lines).

>>> columns = {"source": "oven", "time": [0, 60], "values": {"temp": [20.5, None]}}
>>> [(p.source, p.names, p.x.tolist()) for p in parse_submission(columns)]
[('oven', ('temp',), [[20.5], [nan]])]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import orjson

from redline.sources.pushed import MAX_FEATURES

POINT_KEYS = frozenset(("source", "time", "value", "values"))
SINGLE_FEATURE = ("value",)  # the one feature of a source that sends bare values
LARGEST_SUBMITTED = 1e75  # of a value: its fourth power is still finite, so no detector overflows
# of one body: what is parsed takes many times the bytes it came in
MAX_CELLS = 2_000_000  # points times features, or commas
MAX_ITEMS = 250_000  # objects, lists or lines
MAX_SHOWN = 80  # characters of a wrong value that an answer repeats
MAX_TEXT = 600  # characters of a field's name, or of what was wanted, that an answer holds
COMPACT_DATE_DIGITS = (8, 12, 14)  # of a date YYYYMMDD without a time, with HHMM, with HHMMSS
POINT_FORM = 'an object such as {"source": "oven", "time": 1767571200, "value": 20.5}'


class BodyError(ValueError):
    """A wrong body or query: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: Any) -> None:
        self.field = cut_text(field)
        self.wanted = cut_text(wanted)
        self.came = shorten(came)
        super().__init__(f"{self.field}: wanted {self.wanted}; came {self.came}")


class SubmittedPoints(NamedTuple):
    """The points of one source in a body."""

    source: str
    names: tuple[str, ...]  # features as submitted
    time: np.ndarray  # (n,) seconds since the Unix epoch, UTC
    x: np.ndarray  # (n, features), NaN = missing


def shorten(value: Any) -> str:
    """Return a value as text short enough for an answer."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def cut_text(text: str) -> str:
    """Return text of which a part came from a client as at most MAX_TEXT characters."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def json_fragment(text: str) -> orjson.Fragment:
    """Return JSON text as a value that `to_json` writes unchanged."""
    return orjson.Fragment(text)


def to_json(value: Any) -> bytes:
    """Return a value as JSON: NaN and infinity as null, numpy arrays as lists, others as text."""
    try:
        return orjson.dumps(
            value, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        )
    except TypeError:  # a lone surrogate or an integer beyond 64 bits, sent by a client
        return json.dumps(value, default=str).encode()


def parse_document(body: bytes, lines: bool = False) -> Any:
    """Return the value of a JSON text, or the list of the values on its lines.

    Raises BodyError where it is not JSON, or of too many parts.
    """
    refuse_many_items(body)
    if not lines:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if len(body.split(None, 1)) < 2 or b"\n" not in body.strip():
                raise BodyError("body", "JSON, or a JSON object a line", f"{error}") from None
    rows = [row for row in body.split(b"\n") if row.strip()]
    try:
        found = orjson.loads(b"[" + b",".join(rows) + b"]")
    except orjson.JSONDecodeError:
        raise find_bad_line(rows) from None
    return found


def refuse_many_items(body: bytes) -> None:
    """Refuse a body of more parts than fit, before it is parsed.

    Brackets and commas within texts count too; a name is not made of thousands of them.
    """
    counts = {
        "objects": (body.count(b"{"), MAX_ITEMS),
        "lists": (body.count(b"["), MAX_ITEMS),
        "lines": (body.count(b"\n"), MAX_ITEMS),
        "values": (body.count(b","), MAX_CELLS),
    }
    for name, (count, most) in counts.items():
        if count > most:
            raise BodyError("body", f"at most {most:,} {name}; send it in parts", f"{count:,}")


def find_bad_line(rows: list[bytes]) -> BodyError:
    """Return the error of the first line that is not JSON."""
    for number, row in enumerate(rows, 1):
        try:
            orjson.loads(row)
        except orjson.JSONDecodeError as error:
            return BodyError(f"line {number}", POINT_FORM, f"{error}")
    return BodyError("body", "one JSON object a line", "lines that are none together")


def parse_submission(body: Any) -> list[SubmittedPoints]:
    """Return the points of a body by source; BodyError names the first wrong one."""
    items = body if isinstance(body, list) else [body]
    if not items:
        raise BodyError("body", "one point or more", "an empty list")
    single: dict[str, list[dict[str, Any]]] = {}
    found = []
    for at, item in enumerate(items):
        if (
            type(item) is not dict
            or not POINT_KEYS.issuperset(item)
            or type(item.get("source")) is not str
            or "time" not in item
        ):
            raise explain_item(item, f"[{at}]" if isinstance(body, list) else "")
        if type(item["time"]) is list:
            found.append(points_from_columns(item, f"[{at}]." if isinstance(body, list) else ""))
        else:
            single.setdefault(item["source"], []).append(item)
    return found + [points_from_rows(source, points) for source, points in single.items()]


def explain_item(item: Any, where: str) -> BodyError:
    """Return the error of an item that is no point."""
    if not isinstance(item, dict):
        return BodyError(where or "body", POINT_FORM, item)
    if unknown := set(item) - POINT_KEYS:
        return BodyError(
            f"{where}.{min(unknown)}".lstrip("."),
            f"no other field than {', '.join(sorted(POINT_KEYS))}",
            item[min(unknown)],
        )
    name = "time"
    wanted = "Unix seconds or ISO 8601"
    if not isinstance(item.get("source"), str):
        name = "source"
        wanted = "a text"
    return BodyError(f"{where}.{name}".lstrip("."), wanted, item.get(name, "nothing"))


def points_from_columns(item: dict[str, Any], where: str) -> SubmittedPoints:
    """Return the points of an object with a list of times and a list of values per feature."""
    time = time_column(item["time"], f"{where}time")
    values = point_value(item, where)
    if not isinstance(values, dict):
        values = {SINGLE_FEATURE[0]: values}
    if not values:
        raise BodyError(f"{where}values", "one feature or more", values)
    refuse_many_cells(f"{where}values", len(time), len(values))
    x = np.empty((len(time), len(values)))
    for at, (name, column) in enumerate(values.items()):
        field = f"{where}values.{name}" if "values" in item else f"{where}value"
        if type(column) is not list or len(column) != len(time):
            came = f"{len(column)} of them" if type(column) is list else column
            raise BodyError(field, f"a list of {len(time)} numbers, one for each time", came)
        x[:, at] = number_column(column, field)
    return SubmittedPoints(item["source"], tuple(values), time, x)


def point_value(item: dict[str, Any], where: str = "") -> Any:
    """Return the value or values of a point: one of the two fields must be there, not both."""
    if ("value" in item) == ("values" in item):
        came = "both" if "value" in item else "neither"
        raise BodyError(
            f"{where}value", "either value, a number, or values, numbers by feature", came
        )
    if "values" in item and type(item["values"]) is not dict:
        raise BodyError(
            f"{where}values", 'numbers by feature, such as {"temp": 20.5}', item["values"]
        )
    return item["values"] if "values" in item else item["value"]


def points_from_rows(source: str, points: list[dict[str, Any]]) -> SubmittedPoints:
    """Return single points of one source in their order; a feature that one leaves out is NaN."""
    where = f"{source}."
    values = [point_value(point, where) for point in points]
    named = [value if type(value) is dict else {SINGLE_FEATURE[0]: value} for value in values]
    names = tuple(dict.fromkeys(chain.from_iterable(named)))
    if not names:
        raise BodyError(f"{where}values", "one feature or more", {})
    refuse_many_cells(f"{where}values", len(points), len(names))
    if all(len(value) == len(names) for value in named):
        cells = map(itemgetter(*names), named)
        flat = list(cells) if len(names) == 1 else list(chain.from_iterable(cells))
    else:
        flat = [value.get(name) for value in named for name in names]
    x = number_column(flat, f"{where}{'value' if names == SINGLE_FEATURE else 'values'}")
    time = time_column([point["time"] for point in points], f"{where}time")
    return SubmittedPoints(source, names, time, x.reshape(-1, len(names)))


def refuse_many_cells(field: str, points: int, features: int) -> None:
    """Refuse points whose values would not fit, before room is made for them."""
    if features > MAX_FEATURES:
        raise BodyError(field, f"at most {MAX_FEATURES:,} features", f"{features:,}")
    if points * features > MAX_CELLS:
        came = f"{points:,} points of {features:,} features; send them in parts"
        raise BodyError(field, f"at most {MAX_CELLS:,} values of a source", came)


def number_column(column: list[Any], field: str) -> np.ndarray:
    """Return a list of numbers as (n,) floats, NaN where it has null."""
    kinds = set(map(type, column))
    if not kinds <= {int, float, NoneType}:
        at = next(i for i, value in enumerate(column) if type(value) not in (int, float, NoneType))
        raise BodyError(
            f"{field}[{at}]" if len(column) > 1 else field,
            "a number, or null where it is missing",
            column[at],
        )
    numbers = np.array(column, dtype=np.float64)
    too_large = np.abs(numbers) > LARGEST_SUBMITTED
    if too_large.any():
        raise BodyError(field, f"numbers up to {LARGEST_SUBMITTED:g}", float(numbers[too_large][0]))
    return numbers


def time_column(column: Sequence[Any], field: str) -> np.ndarray:
    """Return a list of Unix seconds and ISO times as (n,) seconds since the Unix epoch."""
    if not len(column):
        raise BodyError(field, "one time or more", "an empty list")
    if set(map(type, column)) <= {int, float}:
        return np.array(column, dtype=np.float64)
    one = len(column) == 1
    return np.array(
        [parse_time(value, field if one else f"{field}[{at}]") for at, value in enumerate(column)]
    )


def parse_time(value: Any, field: str) -> float:
    """Return one time in seconds since the Unix epoch; an ISO time without a zone is UTC.

    A text of 8, 12 or 14 digits is a date, as in a CSV file; of any other number, seconds.

    >>> iso = "2026-01-05T00:00:00Z", "2026-01-05 01:00+01:00", "1767571200.5"
    >>> [parse_time(text, "time") for text in iso]
    [1767571200.0, 1767571200.0, 1767571200.5]
    >>> [parse_time(value, "time") for value in ("20260105", "20260105063000", 20260105)]
    [1767571200.0, 1767594600.0, 20260105.0]
    """
    if type(value) in (int, float):
        return float(value)
    try:
        if not isinstance(value, str):
            raise ValueError
        if value.isdecimal() and len(value) in COMPACT_DATE_DIGITS:
            return parse_iso(f"{value[:8]}T{value[8:] or '00'}")
        if value.replace(".", "", 1).lstrip("-").isdecimal():
            return float(value)
        return parse_iso(value)
    except (ValueError, OverflowError):
        raise BodyError(
            field, "Unix seconds or an ISO 8601 time such as 2026-01-05T00:00:00Z", value
        ) from None


def parse_iso(text: str) -> float:
    """Return an ISO 8601 time in seconds since the Unix epoch."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
