"""Wording of anomalies: severity, numbers with units, times and reasons as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo

from detectors import CEILING

SEVERITIES = ("info", "warning", "critical")  # score / threshold from 1, from 1.5, from 2
# the zone that times are written in: UTC, but for a page that is shown in that of its viewer
VIEWER_ZONE: ContextVar[tzinfo] = ContextVar("viewer zone", default=UTC)
SI_UNITS = ("B/s", "B", "bit/s", "W", "Hz", "V", "A", "Wh")  # units that take an SI prefix
DURATION_UNITS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}  # seconds
# of a note: control characters but line ends, marks that turn the direction, half characters
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
ORDINALS = (
    "",
    "",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)


def severity(score: float, threshold: float) -> str:
    """Return info from the threshold on, warning from 1.5 times it, critical from 2 times it.

    >>> severity(7.0, 3.5)
    'critical'
    """
    return SEVERITIES[int(score >= 1.5 * threshold) + int(score >= 2 * threshold)]


def severity_index(score: float, threshold: float) -> int:
    """Return the severity as one number from 0 to 100: 50 at the threshold.

    It is linear in score / threshold from 0 to 50 up to the threshold, to 75 at 1.5 times it and to
    90 at 2 times it, and beyond that 100 - 20 / (score / threshold), so that a larger score never
    has a smaller index. NaN, no opinion, is 0.

    >>> [severity_index(score, 4.0) for score in (0.0, 4.0, 6.0, 8.0, 16.0, 1e9)]
    [0, 50, 75, 90, 95, 100]
    """
    ratio = score / threshold
    if ratio >= 2:
        return round(100 - 20 / ratio)
    if ratio >= 1.5:
        return round(75 + 30 * (ratio - 1.5))
    return round(50 * ratio) if ratio > 0 else 0


def decimals_for(spread: float) -> int:
    """Return how many decimals show the first digit of a spread."""
    return max(0, -math.floor(math.log10(spread))) if spread > 0 and math.isfinite(spread) else 0


def format_number(value: float, spread: float = math.nan) -> str:
    """Format a number with the decimals that its spread asks for, else three significant digits.

    >>> format_number(1013.26, 0.5), format_number(0.012345), format_number(48210.0)
    ('1,013.3', '0.0123', '48,210')
    """
    if not math.isfinite(value):
        return "–"
    decimals = (
        decimals_for(spread)
        if math.isfinite(spread) and spread > 0
        else 3 - 1 - math.floor(math.log10(abs(value)))
        if value
        else 0
    )
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def format_quantity(value: float, unit: str, spread: float = math.nan) -> str:
    """Format a number with its unit, with an SI prefix where the unit takes one.

    >>> format_quantity(97.04, "%", 5.0), format_quantity(1_234_567.0, "B/s")
    ('97 %', '1.23 MB/s')
    """
    scale, unit = si_scale(value, unit)
    return f"{format_number(value / scale, spread / scale)} {unit}".strip()


def si_scale(value: float, unit: str) -> tuple[float, str]:
    """Return what to divide a value by, and the unit with the SI prefix that goes with it.

    A unit that takes no prefix stays as it is.

    >>> si_scale(-28_630_988.0, "B/s"), si_scale(4_000.0, "lots")
    ((1000000, 'MB/s'), (1, 'lots'))
    """
    if unit not in SI_UNITS or not math.isfinite(value) or abs(value) < 1000:
        return 1, unit
    power = min(int(math.log10(abs(value)) // 3), 5)
    return 1000**power, " kMGTP"[power] + unit


def format_score(score: float) -> str:
    """Format a score; one at the end of the scale says that it may be higher.

    >>> format_score(5.14), format_score(100.0)
    ('5.1 σ', '≥ 100 σ')
    """
    return f"≥ {CEILING:.0f} σ" if score >= CEILING else f"{score:.1f} σ"


def format_time(time: float, period: float) -> str:
    """Format the time of a step, as fine as its period, with the day if the period is long.

    It is UTC, unless VIEWER_ZONE says another zone.

    >>> format_time(1767571200.25, 1.0), format_time(1767571200.25, 0.1)
    ('00:00:00', '00:00:00.2')
    >>> format_time(1767571200.25, 300.0), format_time(1767571200.25, 3600.0)
    ('Mon 00:00', '5 Jan 00:00')
    """
    try:
        at = datetime.fromtimestamp(time, VIEWER_ZONE.get())
    except (OverflowError, ValueError, OSError):
        return "–"
    if period >= 3600:
        return f"{at.day} {at:%b %H:%M}" if period < 86400 else f"{at.day} {at:%b %Y}"
    if period >= 60:
        return f"{at:%a %H:%M}"
    return f"{at:%H:%M:%S}" + (f".{at.microsecond // 100_000}" if period < 1 else "")


def explanation(contributions: Sequence[tuple[str, float]]) -> str:
    """Return what contributed most to a score, with its share in percent; "" = nothing to tell.

    Args:
        contributions: what contributed, such as a feature or a part of a detector on a feature,
            and how much. They add up to the score; those that are not above 0 are left out.

    >>> explanation([("bearing 1", 1.9), ("novelty of the pattern on bearing 2", 3.1)])
    'mostly novelty of the pattern on bearing 2 (62 %)'
    >>> explanation([("a", 1.0), ("b", 1.5), ("c", 1.0)]), explanation([("a", 3.0)])
    ('most of all b (43 %)', '')
    """
    known = [(name, amount) for name, amount in contributions if amount > 0]
    if len(contributions) < 2 or not known:
        return ""
    name, most = max(known, key=lambda each: each[1])
    share = most / sum(amount for _, amount in known)
    return f"{'mostly' if share > 0.5 else 'most of all'} {name} ({100 * share:.0f} %)"


def format_span(seconds: float) -> str:
    """Format a length of time in its one or two largest units.

    >>> format_span(0.4), format_span(27.3), format_span(281.0)
    ('0.4 s', '27 s', '4 min 41 s')
    >>> format_span(7_260.0), format_span(200_000.0), format_span(86_400.0)
    ('2 h 1 min', '2 d 7 h', '1 d')
    """
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    parts = []
    for unit, length in DURATION_UNITS.items():
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def anomaly_reason(
    value: float,
    expected: tuple[float, float],
    score: float,
    unit: str,
    run: int = 1,
    kind: str = "",
) -> str:
    """Return why a step is anomalous, in the detector's own numbers.

    kind: the strongest kind of evidence, of a detector that has several.

    >>> anomaly_reason(97.0, (20.0, 45.0), 5.1, "%", 3)
    '97 %, expected 20 to 45, 5.1 σ above, third in a row'
    >>> anomaly_reason(37_000_000.0, (-28_630_988.0, 34_891_610.0), 3.7, "B/s")
    '37 MB/s, expected -29 to 35 MB/s, 3.7 σ above'
    >>> anomaly_reason(5.04, (2.0, 4.96), 3.5, "mm/s")
    '5.04 mm/s, expected 2.00 to 4.96, 3.5 σ above'
    >>> anomaly_reason(4.0, (2.0, 4.96), 5.6, "mm/s", kind="stuck")
    '4.0 mm/s, expected 2.0 to 5.0, score 5.6 σ, mostly stuck'
    """
    low, high = expected
    inside = low <= value <= high
    beyond = max(value - high, low - value, (high - low) / 1000)  # rounding must not hide it
    grain = (high - low) / 16 if inside else min((high - low) / 16, beyond)
    words = [format_quantity(value, unit, grain)]
    if math.isfinite(low):
        scale, prefix = si_scale(max(abs(low), abs(high)), unit)
        ends = [format_number(end / scale, grain / scale) for end in expected]
        words.append(f"expected {ends[0]} to {ends[1]}{f' {prefix}' if scale > 1 else ''}")
    if math.isfinite(low) and not inside:
        words.append(f"{format_score(score)} {'above' if value > high else 'below'}")
    else:
        words.append(f"score {format_score(score)}")
    if kind:
        words.append(f"mostly {kind}")
    if run > 1:
        words.append(f"{ORDINALS[run] if run < len(ORDINALS) else f'number {run}'} in a row")
    return ", ".join(words)


def visible_note(text: str) -> str:
    """Return what a person wrote without what cannot be seen; its lines stay lines.

    >>> visible_note(" the door\\r\\n\\twas open\\u202e ")
    'the door\\nwas open'
    """
    lines = UNSEEN.sub(" ", text).split("\n")
    return "\n".join(" ".join(line.split()) for line in lines).strip()
