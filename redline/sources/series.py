"""The identity of a time series: a name and its labels, in one canonical text.

>>> key = series_key("http_requests_total", [("job", "web"), ("code", "200"), ("empty", "")])
>>> format_series(key)
'http_requests_total{code="200",job="web"}'
>>> parse_series(format_series(key)) == key
True
>>> format_series(series_key("disk usage", [("mount.point", 'C:\\\\'), ("note", "a\\nb\\u200b")]))
'{"disk usage","mount.point"="C:\\\\\\\\",note="a\\\\nb\\\\u200b"}'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from redline.sources.pushed import RESERVED_NAMES, SubmissionRefused, is_visible

METRIC_LABEL = "__name__"  # the label that holds the name of a series, as in Prometheus
MAX_SERIES_LABELS = 64  # of one series
MAX_LABEL_NAME = 200  # characters of the name of a label, or of a metric
MAX_LABEL_VALUE = 1_024  # characters
MAX_SERIES_TEXT = 2_000  # characters of the name and the labels of a series together
PLAIN_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:.]*")
PLAIN_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
LABEL_PAIR = re.compile(rf"(?:({PLAIN_LABEL.pattern})|{QUOTED})={QUOTED}(,|\}}\Z)")
# a text of letters, digits and signs that need no escape, as nearly all are
PLAIN_SERIES = re.compile(rf"({PLAIN_METRIC.pattern})\{{([^\\]*)\}}")
PLAIN_PAIR = re.compile(rf'({PLAIN_LABEL.pattern})="([^"]*)"')
QUOTED_METRIC = re.compile(rf"{QUOTED}(,|\}}\Z)")
SIMPLE_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
ESCAPED_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
ESCAPED_CHARACTERS |= {character: character for character in "\\\"'`"}


class SeriesKey(NamedTuple):
    """What tells one time series from another."""

    name: str
    labels: tuple[tuple[str, str], ...]  # (name, value) by name; no value is empty


def series_key(name: str, labels: Iterable[tuple[str, str]]) -> SeriesKey:
    """Return the key of a series; a label without a value counts as absent, as in Prometheus.

    Raises:
        SubmissionRefused: no name, a label twice, or more of them, or longer, than is allowed.
    """
    pairs = tuple(sorted(pair for pair in labels if pair[1]))
    if not 0 < len(name) <= MAX_LABEL_NAME:
        wanted = f"a metric name of 1 to {MAX_LABEL_NAME} characters"
        raise SubmissionRefused("series", wanted, _count(name))
    if len(pairs) > MAX_SERIES_LABELS:
        wanted = f"at most {MAX_SERIES_LABELS} labels of a series"
        raise SubmissionRefused("series", wanted, f"{len(pairs)} of {_short(name)}")
    for label, value in pairs:
        if not 0 < len(label) <= MAX_LABEL_NAME:
            wanted = f"label names of 1 to {MAX_LABEL_NAME} characters"
            raise SubmissionRefused("series", wanted, f"{_count(label)} in {_short(name)}")
        if len(value) > MAX_LABEL_VALUE:
            wanted = f"label values of at most {MAX_LABEL_VALUE:,} characters"
            raise SubmissionRefused("series", wanted, f"{_count(value)} in {_short(name)}")
    size = len(name) + sum(len(label) + len(value) for label, value in pairs)
    if size > MAX_SERIES_TEXT:
        wanted = f"at most {MAX_SERIES_TEXT:,} characters of name and labels together"
        raise SubmissionRefused("series", wanted, f"{size:,} in {_short(name)}")
    if len(dict(pairs)) < len(pairs):
        label = next(one[0] for one, after in pairwise(pairs) if one[0] == after[0])
        wanted = "every label once"
        raise SubmissionRefused("series", wanted, f"{_short(label)} twice in {_short(name)}")
    return SeriesKey(name, pairs)


def format_series(key: SeriesKey) -> str:
    """Return the canonical text of a series, which is also a selector of Prometheus that takes it.

    What cannot be seen is escaped, so that two series never look alike. A name without labels that
    the page uses itself is followed by empty braces.
    """
    plain = PLAIN_METRIC.fullmatch(key.name)
    if plain and not key.labels:
        return f"{key.name}{{}}" if key.name.casefold() in RESERVED_NAMES else key.name
    parts = [
        f'{label if PLAIN_LABEL.fullmatch(label) else _quote(label)}="{escape_label(value)}"'
        for label, value in key.labels
    ]
    if plain:
        return f"{key.name}{{{','.join(parts)}}}"
    return f"{{{','.join((_quote(key.name), *parts))}}}"


def parse_series(text: str) -> SeriesKey:
    """Return the series of a canonical text.

    Any other text, such as the name of a pushed source, is a name without labels.
    """
    plain = _parse_plain(text)
    if plain is not None:
        return plain
    try:
        key = _parse_braces(text)
        if format_series(key) == text:
            return key
    except ValueError:
        pass
    return SeriesKey(text, ())


def escape_label(value: str) -> str:
    """Return a label's value with its quotes, backslashes and invisible characters escaped."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    ascii_only = not (unicodedata.is_normalized("NFC", value) and is_visible(value))
    return "".join(_escape_character(character, ascii_only) for character in value)


def unescape_label(text: str) -> str:
    """Return what an escaped label stands for; ValueError names an escape that is not known."""
    return ESCAPE.sub(_unescape, text) if "\\" in text else text


def _parse_plain(text: str) -> SeriesKey | None:
    """Return the series of a short canonical text without escapes, None for any other one."""
    if len(text) > MAX_LABEL_NAME or not (text.isascii() and text.isprintable()):
        return None
    found = PLAIN_SERIES.fullmatch(text)
    if found is None:
        return None
    pairs = PLAIN_PAIR.findall(found[2])
    names = [label for label, value in pairs if value]
    whole = ",".join(f'{label}="{value}"' for label, value in pairs)
    if not pairs or whole != found[2] or names != sorted(set(names)) or len(names) < len(pairs):
        return None
    return SeriesKey(found[1], tuple(pairs))


def _parse_braces(text: str) -> SeriesKey:
    """Return the series of a text of the canonical form, in any order of its labels."""
    name, brace, _ = text.partition("{")
    if not brace or text.endswith("{}"):
        name = text.removesuffix("{}")
        if not PLAIN_METRIC.fullmatch(name):
            raise ValueError(text)
        return SeriesKey(name, ())
    at = len(name) + 1
    end = ""
    if not name:
        found = QUOTED_METRIC.match(text, at)
        if found is None:
            raise ValueError(text)
        name = unescape_label(found[1])
        at = found.end()
        end = found[2]
    labels = []
    while end != "}":
        found = LABEL_PAIR.match(text, at)
        if found is None:
            raise ValueError(text)
        label = found[1] if found[2] is None else unescape_label(found[2])
        labels.append((label, unescape_label(found[3])))
        at = found.end()
        end = found[4]
    return series_key(name, labels)


def _quote(name: str) -> str:
    return f'"{escape_label(name)}"'


def _escape_character(character: str, ascii_only: bool) -> str:
    if character in SIMPLE_ESCAPES:
        return SIMPLE_ESCAPES[character]
    if character.isascii():
        shown = character.isprintable()
    else:
        shown = not ascii_only
    if shown:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescape(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    if code:
        return chr(int(code, 16))
    if found[3] not in ESCAPED_CHARACTERS:
        raise ValueError(f"an escape such as \\n, \\\\ or \\u00e9 was wanted; came \\{found[3]}")
    return ESCAPED_CHARACTERS[found[3]]


def _count(text: str) -> str:
    return f"{len(text):,} characters"


def _short(text: str) -> str:
    return ascii(text[:60])
