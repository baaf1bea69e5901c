"""InfluxDB's line protocol, read to batches of samples.

A line is `measurement,tag=value field=1.5,other=2i 1767571200000000000`. Each field is a series:
its name is the measurement, a dot and the field, its labels are the tags. Numbers and booleans (1
and 0) are taken; text is left out and counted. A wrong line is refused with its number, and the
other lines of the body are taken: a partial write, as InfluxDB 1 and 3 make it.

>>> directory = SeriesDirectory()
>>> body = b'cpu,host=db3 user=1.5,on=t,note="ok" 1767571200\\ncpu user=\\n'
>>> batch = read_line_protocol(body, directory, now=0, precision="s")
>>> [directory.texts[number] for number in batch.series], batch.value.tolist(), batch.left_out
(['cpu.user{host="db3"}', 'cpu.on{host="db3"}'], [1.5, 1.0], {'text': 1, 'wrong line': 1})
>>> batch.refusals[0].field
'line 2'
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from redline.sources.directory import Door, SeriesDirectory
from redline.sources.pushed import SubmissionRefused
from redline.sources.samples import (
    ANY_TIME,
    INVALID_SERIES,
    MAX_REFUSALS,
    SampleBatch,
    TimeRange,
    make_batch,
)
from redline.sources.series import series_key

MAX_BODY = 64 * 2**20  # bytes
MAX_POINTS = 250_000  # lines, and values, of a body
MAX_LINE_BYTES = 65_536
PRECISIONS = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}  # units of time in a second
BOOLEANS = {
    **dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), 1.0),
    **dict.fromkeys((b"f", b"F", b"false", b"False", b"FALSE"), 0.0),
}
INTEGER_RANGES = {ord("i"): (-(2**63), 2**63 - 1), ord("u"): (0, 2**64 - 1)}
INTEGER = re.compile(rb"-?\d{1,20}")
FLOAT = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
TIME = re.compile(rb"-?\d{1,19}")
LARGEST_TIME = 1e19  # of those digits
WORD_BYTES = rb"(?:[^\\ \n]|\\[^\n]?)"
HEAD = re.compile(WORD_BYTES + rb"+")
FIELD = re.compile(rb'((?:[^\\ \n=,]|\\[^\n]?)+)=("(?:[^"\\]|\\.)*"|[^", \n\r]+)', re.DOTALL)
REST = re.compile(rb" *(-?\d+)? *\r?(?:\n|\Z)")
UNESCAPED_COMMA = re.compile(r"((?:[^\\,]|\\.)*),", re.DOTALL)
UNESCAPED_EQUALS = re.compile(r"((?:[^\\=]|\\.)*)=(.*)", re.DOTALL)
NAME_ESCAPE = re.compile(r"\\([,= ])")
LAST_DIGIT = ord("9")  # what ends a number otherwise is a letter, which has a higher code
FLOAT_ONLY = (
    b'_\t\r\v\f"'  # what `float` takes though a field may not have it, and what begins text
)
TEXT_VALUE = "text"
WRONG_LINE = "wrong line"


def read_line_protocol(
    body: bytes,
    directory: SeriesDirectory,
    now: float,
    precision: str = "ns",
    allowed: TimeRange = ANY_TIME,
) -> SampleBatch:
    """Return the samples of a body; `refusals` has the first wrong lines, `left_out` all.

    Args:
        body: lines.
        directory: gives the series their numbers.
        now: the time of lines that carry none, in seconds since the Unix epoch.
        precision: the unit of the times, a key of PRECISIONS.
        allowed: the times that are taken.

    Raises:
        SubmissionRefused: no such precision, or a body beyond a limit.
    """
    if precision not in PRECISIONS:
        raise SubmissionRefused("precision", ", ".join(PRECISIONS), ascii(precision)[:80])
    if len(body) > MAX_BODY:
        wanted = f"at most {MAX_BODY:,} bytes; send it in parts"
        raise SubmissionRefused("body", wanted, f"{len(body):,}")
    lines = body.count(b"\n")
    if lines > MAX_POINTS:
        wanted = f"at most {MAX_POINTS:,} lines; send them in parts"
        raise SubmissionRefused("body", wanted, f"{lines:,}")
    try:
        reader = LineReader(directory, now, PRECISIONS[precision])
        reader.read(body, look_up=True)
        numbers = reader.values_and_times()
    except WrongNumber:
        reader = LineReader(directory, now, PRECISIONS[precision])
        reader.read(body, look_up=False)
        numbers = reader.values_and_times()
    return reader.finish(*numbers, allowed)


class WrongNumber(Exception):
    """A number that was not looked at when its line was read, and is none."""


class LineReader:
    """Reads the lines of one body."""

    def __init__(self, directory: SeriesDirectory, now: float, per_second: float) -> None:
        self.directory = directory
        self.door: Door = directory.door("line protocol")
        self.now = float(now)
        self.per_second = per_second  # units of time
        self.numbers: list[int] = []
        self.values: list[bytes | float] = []  # as written, or read
        self.times: list[bytes | None] = []  # by line, as written; None = now
        self.counts: list[int] = []  # by line: its values
        self.left_out: Counter[str] = Counter()
        self.refusals: list[SubmissionRefused] = []

    def read(self, body: bytes, look_up: bool) -> None:
        """Read all lines; one in which text is quoted may go over several of them.

        Known series in a plain line are looked up where `look_up`; their numbers are read later.
        """
        special = b'"' in body or b"\\" in body
        at = 0
        place = 1
        end = len(body)
        while at < end:
            line_end = body.find(b"\n", at)
            line_end = end if line_end < 0 else line_end
            line = body[at:line_end]
            plain = look_up and not (special and (b'"' in line or b"\\" in line))
            if not (plain and self.read_plain(line)):
                try:
                    line_end = self.read_any(body, at, line_end)
                except SubmissionRefused as refusal:
                    self.refuse(place, refusal)
                place += body.count(b"\n", at, line_end)
                self.refuse_many()
            at = line_end + 1
            place += 1
        self.refuse_many()

    def refuse_many(self) -> None:
        """Refuse a body of more values than are taken at once."""
        if len(self.values) > MAX_POINTS:
            wanted = f"at most {MAX_POINTS:,} values; send them in parts"
            raise SubmissionRefused("body", wanted, f"{len(self.values):,} or more")

    def read_plain(self, line: bytes) -> bool:
        """Read a line without quotes and escapes; return False, and read nothing, if it is odd."""
        parts = line.split(b" ")
        if len(parts) == 3:
            head, fields, moment = parts
        elif len(parts) == 2:
            head, fields = parts
            moment = None
        else:
            return False
        get = self.door.get
        values: list[bytes] = []
        numbers = []
        for field in fields.split(b","):
            name, _, value = field.partition(b"=")
            number = get(head + b" " + name)
            if number is None or not value:
                return False
            numbers.append(number)
            values.append(value)
        self.numbers += numbers
        self.values += values
        self.times.append(moment)
        self.counts.append(len(values))
        return True

    def values_and_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the values and the times in seconds, each (n,).

        Raises:
            WrongNumber: one is no number.
        """
        written = b" ".join(value for value in self.values if type(value) is bytes)
        moments = b"".join(moment for moment in self.times if moment is not None)
        if len(written.translate(None, FLOAT_ONLY)) < len(written):
            raise WrongNumber
        if moments.translate(None, b"-0123456789"):
            raise WrongNumber
        try:
            values = [
                float(value)
                if type(value) is float or value[-1] <= LAST_DIGIT  # type: ignore[index]
                else field_value(value)  # type: ignore[arg-type]
                for value in self.values
            ]
            times = [np.nan if moment is None else int(moment) for moment in self.times]
            time = np.array(times, dtype=np.float64)
            if (np.abs(time) > LARGEST_TIME).any():
                raise WrongNumber
            time /= self.per_second
            time[np.isnan(time)] = self.now
            return np.array(values, dtype=np.float64), np.repeat(time, self.counts)
        except (ValueError, OverflowError):
            raise WrongNumber from None

    def read_any(self, body: bytes, at: int, line_end: int) -> int:
        """Read a line of any form at a place; return where it ends.

        Raises:
            SubmissionRefused: it is wrong; nothing of it is taken.
        """
        line = body[at:line_end].strip(b" \t\r")
        if not line or line.startswith(b"#"):
            return line_end
        at += len(body[at:line_end]) - len(body[at:line_end].lstrip(b" \t"))
        limit = min(len(body), at + MAX_LINE_BYTES)
        head = HEAD.match(body, at, limit)
        if head is None or body[head.end() : head.end() + 1] != b" ":
            raise SubmissionRefused("line", "a measurement, a space and fields", shown(line))
        fields, end = self.find_fields(body, head.end(), limit, line_end)
        rest = REST.match(body, end)
        if rest is None or (rest[1] and not TIME.fullmatch(rest[1])):
            came = shown(body[end : max(end, line_end)])
            raise SubmissionRefused("line", "a whole number as the time", came)
        values = [(name, field_value(written)) for name, written in fields]
        found = [(name, value) for name, value in values if value is not None]
        self.take(head[0], found, rest[1])
        if len(found) < len(values):
            self.left_out[TEXT_VALUE] += len(values) - len(found)
        return rest.end() - (body[rest.end() - 1 : rest.end()] == b"\n")

    def find_fields(
        self, body: bytes, at: int, limit: int, line_end: int
    ) -> tuple[list[tuple[bytes, bytes]], int]:
        """Return the fields at a place, as (name, value as written), and where they end."""
        while body[at : at + 1] == b" ":
            at += 1
        fields = []
        while True:
            field = FIELD.match(body, at, limit)
            if field is None:
                wanted = "fields such as temp=20.5,on=true"
                raise SubmissionRefused("line", wanted, shown(body[at:line_end]))
            fields.append((field[1], field[2]))
            at = field.end()
            if body[at : at + 1] != b",":
                return fields, at
            at += 1

    def take(self, head: bytes, fields: list[tuple[bytes, float]], moment: bytes | None) -> None:
        """Take the values of a line; raise SubmissionRefused if its names are wrong."""
        numbers = [self.series_number(head, name) for name, _ in fields]
        self.numbers += numbers
        self.values += [value for _, value in fields]
        self.times.append(moment)
        self.counts.append(len(fields))

    def series_number(self, head: bytes, field: bytes) -> int:
        """Return the number of a field of a measurement with tags."""
        raw = head + b" " + field
        number = self.door.get(raw)
        if number is not None:
            return number
        try:
            names = UNESCAPED_COMMA.findall(head.decode() + ",")
            name = f"{unescape_name(names[0])}.{unescape_name(field.decode())}"
        except UnicodeDecodeError:
            raise SubmissionRefused("line", "UTF-8", shown(raw)) from None
        tags = []
        for tag in names[1:]:
            pair = UNESCAPED_EQUALS.fullmatch(tag)
            if pair is None or not pair[1] or not pair[2]:
                raise SubmissionRefused("line", "tags such as host=db3", shown(tag.encode()))
            tags.append((unescape_name(pair[1]), unescape_name(pair[2])))
        if not names[0]:
            raise SubmissionRefused("line", "the name of a measurement", shown(raw))
        try:
            key = series_key(name, tags)
        except SubmissionRefused as refusal:
            if len(self.refusals) < MAX_REFUSALS:
                self.refusals.append(refusal)
            self.directory.remember(self.door, raw, INVALID_SERIES)
            return INVALID_SERIES
        return self.directory.assign(self.door, raw, key)

    def refuse(self, place: int, refusal: SubmissionRefused) -> None:
        """Count a wrong line; the first is line 1."""
        self.left_out[WRONG_LINE] += 1
        if len(self.refusals) < MAX_REFUSALS:
            field = f"line {place}"
            self.refusals.append(SubmissionRefused(field, refusal.wanted, refusal.came))

    def finish(self, value: np.ndarray, time: np.ndarray, allowed: TimeRange) -> SampleBatch:
        """Return the batch."""
        series = np.array(self.numbers, dtype=np.int64)
        return make_batch(series, time, value, allowed, self.left_out, self.refusals)


def field_value(written: bytes) -> float | None:
    """Return the value of a field, None for text.

    Raises:
        SubmissionRefused: it is none of the types of a field.
    """
    if written[:1] == b'"':
        return None
    value = BOOLEANS.get(written)
    if value is None:
        value = parse_field_number(written)
    if value is None:
        wanted = "a number such as 20.5, 20i or 20u, a boolean, or quoted text"
        raise SubmissionRefused("line", wanted, shown(written))
    return value


def parse_field_number(written: bytes) -> float | None:
    """Return a number of a field, None if it is none.

    >>> texts = (b"-1.5e3", b"7i", b"7u", b"-7u", b"1_0", b"nan", b"")
    >>> [parse_field_number(text) for text in texts]
    [-1500.0, 7.0, 7.0, None, None, None, None]
    """
    if FLOAT.fullmatch(written):
        return float(written)
    bounds = INTEGER_RANGES.get(written[-1]) if written else None
    if bounds is None or not INTEGER.fullmatch(written, 0, len(written) - 1):
        return None
    number = int(written[:-1])
    return float(number) if bounds[0] <= number <= bounds[1] else None


def unescape_name(text: str) -> str:
    """Return a measurement, tag or field without its escapes."""
    return NAME_ESCAPE.sub(r"\1", text) if "\\" in text else text


def shown(came: bytes) -> str:
    """Return a part of a line as text short enough for an answer."""
    text = came.decode(errors="replace")
    return ascii(text if len(text) <= 80 else text[:79] + "…") if text else "nothing"
