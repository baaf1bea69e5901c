"""Which series are taken: selectors in Prometheus's own syntax.

>>> selection = parse_selectors(['up', '{__name__=~"node_.*",mode!="idle"}'])
>>> keys = [SeriesKey("up", ()), SeriesKey("node_cpu", (("mode", "user"),)),
...         SeriesKey("node_cpu", (("mode", "idle"),)), SeriesKey("other", ())]
>>> [selection.takes(key) for key in keys]
[True, True, False, False]
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from redline.sources.pushed import SubmissionRefused
from redline.sources.series import PLAIN_LABEL, SeriesKey, unescape_label

NAME_LABEL = "__name__"
MAX_SELECTOR = 4_096  # characters
MAX_REPEATS = 3  # unbounded repeats of a regular expression; the third only at its end
MAX_WAYS = 4_096  # in which the other repeats may match
ANY_COUNT = 10**9
LARGE_REPEAT = 64  # a repeat of more counts as unbounded
STRING = r"""(?:"([^"\\]*(?:\\.[^"\\]*)*)"|'([^'\\]*(?:\\.[^'\\]*)*)'|`([^`]*)`)"""
SPACES = r"\s*"
METRIC = re.compile(rf"{SPACES}([A-Za-z_:][A-Za-z0-9_:.]*)?{SPACES}")
MATCHER = re.compile(
    rf"{SPACES}(?:({PLAIN_LABEL.pattern})|{STRING}){SPACES}(?:(=~|!~|!=|=){SPACES}{STRING}{SPACES})?"
)
# of a regular expression: an escape, a class, a repeat, or any other character
REGEX_PART = re.compile(
    r"(\\.)|(\[\^?\]?(?:\\.|[^\]\\])*\])|([*+?]|\{\d+(?:,\d*)?\}|\{,\d+\})|(.)", re.DOTALL
)
UNSUPPORTED = re.compile(r"\\[1-9QEpPCz]|\[\[:|\(\?[^:PimsU-]|\(\?P[=>]|\(\?<|\\[AZ]|[*+?}]\+")


class LabelMatcher(NamedTuple):
    """One condition on a label; an absent label has the value ""."""

    label: str
    operator: str  # = != =~ !~
    value: str
    pattern: re.Pattern[str] | None = None  # of =~ and !~, which match the whole value

    def matches(self, value: str) -> bool:
        """Return whether a value of the label meets the condition."""
        if self.pattern is None:
            return (value == self.value) == (self.operator == "=")
        return (self.pattern.fullmatch(value) is not None) == (self.operator == "=~")


class SeriesSelection:
    """Several selectors: a series is taken if any of them takes it."""

    def __init__(self, selectors: tuple[tuple[LabelMatcher, ...], ...]) -> None:
        self.selectors = selectors

    @cached_property
    def labels(self) -> frozenset[str]:
        """Return the labels that matter."""
        return frozenset(one.label for selector in self.selectors for one in selector)

    def takes(self, key: SeriesKey) -> bool:
        """Return whether a series is taken."""
        values = dict(key.labels)
        values[NAME_LABEL] = key.name
        return any(
            all(one.matches(values.get(one.label, "")) for one in selector)
            for selector in self.selectors
        )


def parse_selectors(texts: Iterable[str]) -> SeriesSelection:
    """Return the selection of some selectors; each must have a matcher that "" does not meet.

    Raises:
        SubmissionRefused: not a selector, or a regular expression that might take too long.
    """
    return SeriesSelection(tuple(map(parse_selector, texts)))


def parse_selector(text: str) -> tuple[LabelMatcher, ...]:
    """Return the matchers of one selector; SubmissionRefused where it is none."""
    if len(text) > MAX_SELECTOR:
        came = f"{len(text):,}"
        raise SubmissionRefused("selector", f"at most {MAX_SELECTOR:,} characters", came)
    begin = METRIC.match(text)
    assert begin is not None  # it matches nothing, too
    matchers = [LabelMatcher(NAME_LABEL, "=", begin[1])] if begin[1] else []
    at = begin.end()
    if at < len(text):
        if text[at] != "{":
            raise selector_error(text, at)
        at = _parse_matchers(text, at + 1, matchers)
    if text[at:].strip():
        raise selector_error(text, at)
    if all(one.matches("") for one in matchers):
        wanted = 'a matcher that an absent label does not meet, such as __name__=~".+"'
        raise SubmissionRefused("selector", wanted, text[:80] or "nothing")
    return tuple(matchers)


def _parse_matchers(text: str, at: int, matchers: list[LabelMatcher]) -> int:
    """Add the matchers between braces; return the place after the closing one."""
    while not text[at:].lstrip().startswith("}"):
        found = MATCHER.match(text, at)
        if found is None:
            raise selector_error(text, at)
        label = found[1] if found[1] is not None else _string(text, found, 2)
        if found[5] is not None:
            matchers.append(_make_matcher(text, label, found[5], _string(text, found, 6)))
        elif found[1] is None:  # a quoted name alone is that of the metric
            matchers.append(LabelMatcher(NAME_LABEL, "=", label))
        else:
            raise selector_error(text, found.end())
        at = found.end()
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "}":
            raise selector_error(text, at)
    return text.index("}", at) + 1


def selector_error(text: str, at: int) -> SubmissionRefused:
    """Return the refusal of a selector that is wrong at a place."""
    wanted = 'a selector such as node_load1 or {__name__=~"node_.*",mode!="idle"}'
    came = f"{text[at : at + 40]!r} at character {at + 1}" if text[at:] else "an end too early"
    return SubmissionRefused("selector", wanted, came)


def _string(text: str, found: re.Match[str], group: int) -> str:
    """Return a quoted string, of which the groups are those with ", ' and `."""
    if found[group + 2] is not None:
        return found[group + 2]
    quoted = found[group] if found[group] is not None else found[group + 1]
    try:
        return unescape_label(quoted)
    except ValueError as error:
        raise SubmissionRefused("selector", "known escapes", str(error)) from None


def _make_matcher(text: str, label: str, operator: str, value: str) -> LabelMatcher:
    pattern = compile_regex(value) if operator.endswith("~") else None
    return LabelMatcher(label, operator, value, pattern)


def compile_regex(text: str) -> re.Pattern[str]:
    """Return an operator's regular expression, in the part of RE2's syntax that Python shares.

    Python's matching goes back and tries again, so an expression is refused in which that may take
    more than the square of a value's length: repeats within repeats, or many of them.

    Raises:
        SubmissionRefused: says what is not allowed in it.
    """
    unsupported = UNSUPPORTED.search(REGEX_PART.sub(_without_literals, text))
    if unsupported:
        came = f"{unsupported.group()!r} in {text[:80]!r}"
        raise SubmissionRefused("selector", "what RE2 and Python both know", came)
    refuse_slow_regex(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text, re.ASCII | re.DOTALL)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        wanted = "a regular expression of RE2"
        raise SubmissionRefused("selector", wanted, f"{text[:80]!r}: {error}") from None


def _without_literals(found: re.Match[str]) -> str:
    """Return a part of an expression, an escaped backslash and a class without what is in them."""
    if found[1] == "\\\\" or (found[2] and not found[2].startswith("[[:")):
        return "x"
    return found[0]


def refuse_slow_regex(text: str) -> None:
    """Refuse an expression that may take more than the square of a value's length."""
    repeats = 0  # without a small upper limit
    ways = 1  # in which all others may match
    last_at = 0
    # by open group: whether a repeat or an alternative is in it
    groups = [False]
    closed = False  # the part before is a group with one of these
    before = ""
    for part in REGEX_PART.finditer(text):
        if part[3] and before != "(":  # of (?: it is no repeat
            count = repeat_range(part[3])
            if closed and part[3] != "?":
                wanted = "no repeat of a group that has a repeat or alternatives in it"
                raise SubmissionRefused("selector", wanted, text[:80])
            groups[-1] = True
            if count > LARGE_REPEAT:
                repeats += 1
                last_at = part.end()
            else:
                ways *= count
            closed = False
        elif part[4] == "(":
            groups.append(False)
            closed = False
        elif part[4] == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
        else:
            groups[-1] |= part[4] == "|"
            closed = False
        before = part[0]
    if repeats > MAX_REPEATS or (repeats == MAX_REPEATS and last_at < len(text)):
        wanted = f"at most {MAX_REPEATS} of * and +, the last at the end"
        raise SubmissionRefused("selector", wanted, text[:80])
    if ways > MAX_WAYS:
        wanted = f"at most {MAX_WAYS:,} ways in which ? and {{n,m}} may match"
        raise SubmissionRefused("selector", wanted, text[:80])


def repeat_range(repeat: str) -> int:
    """Return how many counts a repeat allows.

    >>> [repeat_range(repeat) for repeat in ("?", "{3}", "{1,3}", "{2,}", "{,5}")]
    [2, 1, 3, 1000000000, 6]
    """
    if repeat == "?":
        return 2
    if repeat in "*+":
        return ANY_COUNT
    least, comma, most = repeat[1:-1].partition(",")
    first = int(least[:9] or 0)
    if not comma:
        return 1 if first <= LARGE_REPEAT else ANY_COUNT
    return min(ANY_COUNT, max(1, int(most[:9]) - first + 1)) if most else ANY_COUNT
