"""The text formats in which a target exposes its metrics to Prometheus, read to batches.

Both are read: Prometheus's own (times in ms) and OpenMetrics (times in seconds, `# EOF`). As in
Prometheus, a page with a wrong line is refused as a whole: half a page would look like series that
have ended.

>>> directory = SeriesDirectory()
>>> page = b'# TYPE hits_total counter\\nhits_total{path="/"} 3\\nload 0.5 1767571200000\\n'
>>> batch = read_exposition(page, directory, now=1_767_571_260)
>>> [directory.texts[number] for number in batch.series], batch.value.tolist(), batch.types
(['hits_total{path="/"}', 'load'], [3.0, 0.5], {'hits_total': 'counter'})
>>> batch.time.tolist()
[1767571260.0, 1767571200.0]
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
from redline.sources.series import MAX_LABEL_NAME, PLAIN_LABEL, SeriesKey, series_key

MAX_PAGE = 64 * 2**20  # bytes
MAX_LINES = 500_000
MAX_LINE = 65_536  # bytes
MAX_FAMILIES_OF_PAGE = 20_000
METRIC_TYPES = frozenset(
    (
        *("unknown", "untyped", "counter", "gauge", "histogram", "gaugehistogram"),
        *("summary", "info", "stateset"),
    )
)
BARE_NAME = r"[^\s{}\"#,=]+"
QUOTED_TEXT = r'"((?:[^"\\]|\\.)*)"'
NAME_PART = re.compile(rf"({BARE_NAME})?[ \t]*(\{{)?[ \t]*")
QUOTED_NAME = re.compile(rf"{QUOTED_TEXT}[ \t]*(,|(?=\}}))[ \t]*")
LABEL_PART = re.compile(
    rf"(?:({PLAIN_LABEL.pattern})|{QUOTED_TEXT})[ \t]*=[ \t]*{QUOTED_TEXT}[ \t]*(,|(?=\}}))[ \t]*"
)
TEXT_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
TEXT_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}
# value, time, and an exemplar of OpenMetrics, which is not read
VALUE_PART = re.compile(r"[ \t]*(\S+)(?:[ \t]+([^\s#]+))?[ \t]*(?:#[ \t]*\{.*)?")
NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)", re.I | re.A)
UNDERSCORE = b"_"  # which `float` takes between digits


def read_exposition(
    page: bytes,
    directory: SeriesDirectory,
    now: float,
    openmetrics: bool = False,
    target: Iterable[tuple[str, str]] = (),
    allowed: TimeRange = ANY_TIME,
) -> SampleBatch:
    """Return the samples of a page.

    Args:
        page: the body of the answer.
        directory: gives the series their numbers.
        now: the time of samples that carry none, in seconds since the Unix epoch.
        openmetrics: whether the answer's type is that of OpenMetrics.
        target: labels that are added to each series, such as job and instance; a label of the
            same name on the page is kept as exported_NAME, as in Prometheus.
        allowed: the times that are taken.

    Raises:
        SubmissionRefused: names the first wrong line.
    """
    if len(page) > MAX_PAGE or page.count(b"\n") > MAX_LINES:
        wanted = f"a page of at most {MAX_PAGE:,} bytes and {MAX_LINES:,} lines"
        raise SubmissionRefused("page", wanted, f"{len(page):,} and {page.count(10):,}")
    lines = page.split(b"\n")
    if openmetrics:
        lines = lines_before_end(lines)
    how = (directory, now, 1.0 if openmetrics else 1e3, tuple(target))
    reader = PageReader(*how)
    try:
        reader.read_known(lines)
        values = reader.value_array()
    except ValueError:  # of a value; a refusal is one too, and comes again with its line
        reader = PageReader(*how)
        for place, line in enumerate(lines, 1):
            reader.read_line(line, place)
        values = reader.value_array()
    return reader.finish(values, allowed)


def lines_before_end(lines: list[bytes]) -> list[bytes]:
    """Return the lines before `# EOF`, by which a page of OpenMetrics says that it is whole."""
    while lines and not lines[-1]:
        lines.pop()
    if not lines or lines[-1].rstrip() != b"# EOF":
        came = repr(lines[-1][:80]) if lines else "nothing"
        raise SubmissionRefused(f"line {max(1, len(lines))}", "# EOF at the end", came)
    return lines[:-1]


class PageReader:
    """Reads the lines of one page."""

    def __init__(
        self,
        directory: SeriesDirectory,
        now: float,
        per_second: float,
        target: tuple[tuple[str, str], ...],
    ) -> None:
        self.directory = directory
        # a series of the page is another one with other labels of the target
        self.door: Door = directory.door(f"exposition {target!r}")
        self.now = now
        self.per_second = per_second  # units of time
        self.target = target
        self.numbers: list[int] = []
        self.values: list[bytes | float] = []
        self.times: list[tuple[int, float]] = []  # of samples that carry one: index, seconds
        self.types: dict[str, str] = {}
        self.refusals: list[SubmissionRefused] = []

    def read_known(self, lines: list[bytes]) -> None:
        """Read lines, known series by a shorter way.

        Nearly every line is a known series, a space and a value. The bytes that were found in the
        door are a whole series, so a line that begins with them and goes on with a space has a
        value next; it has nothing else where no other space comes.
        """
        get = self.door.get
        numbers = self.numbers
        values = self.values
        for place, line in enumerate(lines, 1):
            series, _, value = line.rpartition(b" ")
            number = get(series)
            if number is not None and value:
                numbers.append(number)
                values.append(value)
            else:
                self.read_line(line, place)

    def value_array(self) -> np.ndarray:
        """Return the values (n,) as floats; ValueError where one is no number."""
        joined = b" ".join(value for value in self.values if type(value) is bytes)
        if UNDERSCORE in joined:
            raise ValueError
        return np.array(list(map(float, self.values)), dtype=np.float64)

    def finish(self, value: np.ndarray, allowed: TimeRange) -> SampleBatch:
        """Return the batch."""
        time = np.full(len(value), float(self.now))
        for at, seconds in self.times:
            time[at] = seconds
        series = np.array(self.numbers, dtype=np.int64)
        return make_batch(series, time, value, allowed, {}, self.refusals, self.types)

    def read_comment(self, line: bytes) -> None:
        """Take the type of a metric family over; other comments say nothing."""
        words = line.split(None, 3)
        if len(words) < 4 or words[0] != b"#" or words[1] != b"TYPE":
            return
        family = words[2].strip(b'"').decode(errors="replace")
        kind = words[3].strip().decode(errors="replace").lower()
        if kind == "untyped":
            kind = "unknown"
        room = len(self.types) < MAX_FAMILIES_OF_PAGE and len(family) <= MAX_LABEL_NAME
        if kind in METRIC_TYPES and room:
            self.types[family] = kind

    def read_line(self, line: bytes, place: int) -> None:
        """Read a line of any form."""
        if line[:1] == b"#":
            self.read_comment(line)
            return
        if not line.strip():
            return
        if len(line) > MAX_LINE:
            raise line_error(place, f"at most {MAX_LINE:,} bytes", b"%d bytes" % len(line))
        try:
            text = line.decode().strip(" \t\r")
        except UnicodeDecodeError:
            raise line_error(place, "UTF-8", line) from None
        name, labels, at = self.parse_series(text, place)
        found = VALUE_PART.fullmatch(text, at)
        if found is None or not NUMBER.fullmatch(found[1]):
            raise line_error(place, "a number as the value", text[at:].encode())
        if found[2] is not None:
            if not NUMBER.fullmatch(found[2]):
                raise line_error(place, "a number as the time", found[2].encode())
            self.times.append((len(self.numbers), float(found[2]) / self.per_second))
        raw = text[:at].rstrip(" \t").encode()
        number = self.door.get(raw)
        if number is None:
            number = self.new_series(raw, name, labels)
        self.numbers.append(number)
        self.values.append(float(found[1]))

    def parse_series(self, text: str, place: int) -> tuple[str, list[tuple[str, str]], int]:
        """Return the name, the labels and the place after them."""
        found = NAME_PART.match(text)
        assert found is not None  # it matches nothing, too
        name = found[1] or ""
        at = found.end()
        labels: list[tuple[str, str]] = []
        if found[2] is None:
            if not name:
                raise line_error(place, "the name of a metric", text.encode())
            return name, labels, found.end(1)
        if not name:
            quoted = QUOTED_NAME.match(text, at)
            if quoted is None:
                raise line_error(place, "the name of a metric", text.encode())
            name = unescape_text(quoted[1])
            at = quoted.end()
        while text[at : at + 1] != "}":
            label = LABEL_PART.match(text, at)
            if label is None:
                raise line_error(place, 'a label such as job="web"', text[at:].encode())
            key = label[1] if label[1] is not None else unescape_text(label[2])
            labels.append((key, unescape_text(label[3])))
            at = label.end()
        return name, labels, at + 1

    def new_series(self, raw: bytes, name: str, labels: list[tuple[str, str]]) -> int:
        """Return the number of a series that is new to the door."""
        own = {label for label, _ in self.target}
        kept = [(f"exported_{label}" if label in own else label, text) for label, text in labels]
        try:
            key: SeriesKey = series_key(name, [*kept, *self.target])
        except SubmissionRefused as refusal:
            if len(self.refusals) < MAX_REFUSALS:
                self.refusals.append(refusal)
            self.directory.remember(self.door, raw, INVALID_SERIES)
            return INVALID_SERIES
        return self.directory.assign(self.door, raw, key)


def unescape_text(text: str) -> str:
    """Return a label's value without escapes; one that is not known stands for itself."""
    if "\\" not in text:
        return text
    return TEXT_ESCAPE.sub(lambda found: TEXT_ESCAPES.get(found[1], found[0]), text)


def line_error(place: int, wanted: str, came: bytes) -> SubmissionRefused:
    """Return the refusal of a line; the first is line 1."""
    text = came.decode(errors="replace")
    shown = ascii(text if len(text) <= 80 else text[:79] + "…") if text else "nothing"
    return SubmissionRefused(f"line {place}", wanted, shown)
