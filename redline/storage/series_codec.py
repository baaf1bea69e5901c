"""Encoding of the points of fleets as stored parts: plain for a new one, packed for a merged one.

A part is a head and sections of bytes, one or two for each column. A plain part holds the columns
as they are, so that a commit is fast. A packed part holds, column by column, the differences of
successive rows as integers, split into planes of bytes, which zlib then compresses:

- values that are decimal fractions of few digits, in all rows of a series, as whole numbers of
  their last digit; other values as the bits that differ from the row before,
- times as milliseconds or microseconds where that gives the same float64, else as their bits,
- scores as float32 with `SCORE_BITS` bits of its fraction, which is 3 significant digits.

Everything but the scores comes back to the bit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.stored import LATE_STEP, SeriesSteps

SCORE_BITS = 10  # of the 23 bits of a float32's fraction that are kept of a score
SCORE_SHIFT = 23 - SCORE_BITS
NAN_SCORE = 0x7FC0_0000 >> SCORE_SHIFT  # the code of a missing score
PLAIN = 0  # forms of a part
PACKED = 1
SECTIONS = {PLAIN: 6, PACKED: 10}  # of each form
PART_HEAD = struct.Struct(
    "<BII"
)  # form, points, runs of one series; the lengths of sections follow
LENGTH_BYTES = 4
MOST_POINTS = 2**20  # of a part
COMPRESSION = 1  # of zlib: higher levels save a twentieth and take twice the time
STORED_FLAGS = 3  # those of a step
LATE_MARK = np.uint8(4)  # in the flags of a packed part: the point is a late one
GAP_MARK = np.uint8(8)  # its value is missing
GAP_BITS = np.uint64(0x7FF8_0000_0000_0000)  # of the NaN that numpy makes
DECIMALS = (0, 2, 3, 6, 9)  # digits after the point that are tried
POWERS = 10.0 ** np.arange(10)
NOT_DECIMAL = 255
LARGEST_WHOLE = 2.0**53  # float64 holds every whole number below it
TIME_UNITS = (1e3, 1e6)  # ticks a second that are tried
NO_UNIT = 255  # instead of the place of a unit: the bits of the times follow


def encode_plain(steps: SeriesSteps) -> bytes:
    """Return steps (n,), n > 0, as a plain part."""
    same_time = bool((steps.time == steps.time[0]).all())
    sections = (
        _narrow(steps.series),
        _narrow(steps.step),
        steps.time[: 1 if same_time else None].astype("<f8").tobytes(),
        steps.value.astype("<f8").tobytes(),
        score_codes(steps.score).astype("<u4").tobytes(),
        (steps.flags & STORED_FLAGS).astype(np.uint8).tobytes(),
    )
    return _join(PLAIN, len(steps.series), 0, sections)


def encode_packed(steps: SeriesSteps) -> bytes:
    """Return steps (n,), n > 0, as a packed part; those of a series stand together."""
    n = len(steps.series)
    late = steps.step == LATE_STEP
    gap = steps.value.view(np.uint64) == GAP_BITS
    flags = (steps.flags & STORED_FLAGS) | LATE_MARK * late | GAP_MARK * gap
    starts = run_starts(steps.series)
    counts = np.diff(starts, append=n)
    sections = (
        pack_integers(np.diff(steps.series[starts], prepend=0)),
        pack_integers(np.diff(counts, prepend=0)),
        pack_words(flags.astype(np.uint64)),
        pack_integers(np.diff(steps.step[~late], prepend=-1) - 1),
        *_pack_times(steps.time),
        *_pack_values(steps.value[~gap], _count_marks(~gap, starts)),
        pack_words(score_codes(steps.score).astype(np.uint64)),
    )
    return _join(PACKED, n, len(starts), sections)


def decode_part(data: bytes) -> SeriesSteps:
    """Return the steps of a part; ValueError = the bytes are none."""
    with _refused_as_no_part():
        form, n, runs, sections = _split(data)
        if form == PLAIN:
            return _decode_plain(n, sections)
        series, starts = _unpack_series(n, runs, sections)
        flags = unpack_words(sections[2], n).astype(np.uint8)
        on_time = flags & LATE_MARK == 0
        step = np.full(n, LATE_STEP, np.int64)
        step[on_time] = np.cumsum(unpack_integers(sections[3], int(on_time.sum())) + 1) - 1
        there = flags & GAP_MARK == 0
        value = np.full(n, np.nan)
        value[there] = _unpack_values(sections[6:9], _count_marks(there, starts))
        time = _unpack_times(n, sections[4], sections[5])
        score = scores_from_codes(unpack_words(sections[9], n))
        return SeriesSteps(series, step, time, value, score, flags & np.uint8(STORED_FLAGS))


def decode_keys(data: bytes) -> tuple[Array, Array]:
    """Return the series and the times (n,) of a part, which is faster than all of it."""
    with _refused_as_no_part():
        form, n, runs, sections = _split(data)
        if form == PLAIN:
            steps = _decode_plain(n, sections)
            return steps.series, steps.time
        return _unpack_series(n, runs, sections)[0], _unpack_times(n, sections[4], sections[5])


def run_starts(series: Array) -> Array:
    """Return where each run of one series begins in series (n,), n > 0."""
    return np.flatnonzero(np.append(True, series[1:] != series[:-1]))


def score_codes(score: Array) -> Array:
    """Return scores (n,) as uint32: sign, exponent and SCORE_BITS of a float32, rounded."""
    with np.errstate(over="ignore"):
        rough = score.astype(np.float32)
    bits = rough.view(np.uint32) + np.uint32(1 << (SCORE_SHIFT - 1))
    codes = bits >> np.uint32(SCORE_SHIFT)
    codes[np.isnan(score)] = NAN_SCORE
    return codes


def scores_from_codes(codes: Array) -> Array:
    """Return the scores (n,) that `score_codes` gave codes to."""
    return (codes.astype(np.uint32) << np.uint32(SCORE_SHIFT)).view(np.float32).astype(float)


@contextmanager
def _refused_as_no_part() -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, TypeError, struct.error, zlib.error) as error:
        raise ValueError(f"wanted a part, came other bytes ({error})") from error


def _join(form: int, n: int, runs: int, sections: Sequence[bytes]) -> bytes:
    lengths = (len(section) for section in sections)
    head = PART_HEAD.pack(form, n, runs) + struct.pack(f"<{len(sections)}I", *lengths)
    return head + b"".join(sections)


def _split(data: bytes) -> tuple[int, int, int, list[bytes]]:
    """Return form, points, runs and sections of a part."""
    form, n, runs = PART_HEAD.unpack_from(data)
    if form not in SECTIONS or not 0 < n <= MOST_POINTS or runs > n:
        raise ValueError("no such part")
    lengths = struct.unpack_from(f"<{SECTIONS[form]}I", data, PART_HEAD.size)
    ends = np.cumsum((PART_HEAD.size + LENGTH_BYTES * len(lengths), *lengths)).tolist()
    if ends[-1] != len(data):
        raise ValueError("a part of another length")
    return form, n, runs, [data[at:end] for at, end in pairwise(ends)]


def _narrow(numbers: Array) -> bytes:
    """Return int64 (n,) as int32 where that holds them, else as int64."""
    small = np.array_equal(numbers, numbers.astype(np.int32))
    return numbers.astype("<i4" if small else "<i8").tobytes()


def _decode_plain(n: int, sections: Sequence[bytes]) -> SeriesSteps:
    series, step = (
        np.frombuffer(section, f"<i{len(section) // n}", n).astype(np.int64)
        for section in sections[:2]
    )
    return SeriesSteps(
        series=series,
        step=step,
        time=np.broadcast_to(np.frombuffer(sections[2], "<f8"), (n,)),
        value=np.frombuffer(sections[3], "<f8", n),
        score=scores_from_codes(np.frombuffer(sections[4], "<u4", n)),
        flags=np.frombuffer(sections[5], np.uint8, n),
    )


def _count_marks(marks: Array, starts: Array) -> Array:
    """Return (runs,) how many of marks (n,) bool are set in each run from its start on."""
    return np.add.reduceat(marks.astype(np.int64), starts)


# --- sections


def pack_words(words: Array) -> bytes:
    """Return uint64 (n,) as compressed planes of bytes; those that are 0 throughout are left out.

    No bytes at all: every word is 0.
    """
    width = (int(words.max(initial=0)).bit_length() + 7) // 8
    if not width:
        return b""
    planes = words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T
    return bytes([width]) + zlib.compress(planes.tobytes(), COMPRESSION)


def unpack_words(data: bytes, n: int) -> Array:
    """Return the n words that `pack_words` packed."""
    words = np.zeros(n, np.uint64)
    if data:
        width = data[0]
        planes = zlib.decompress(memoryview(data)[1:], bufsize=max(1, width * n))
        for place, plane in enumerate(np.frombuffer(planes, np.uint8).reshape(width, n)):
            words |= plane.astype(np.uint64) << np.uint64(8 * place)
    return words


def pack_integers(numbers: Array) -> bytes:
    """Return int64 (n,) as compressed planes, small ones of either sign in few."""
    return pack_words(((numbers << 1) ^ (numbers >> 63)).view(np.uint64))


def unpack_integers(data: bytes, n: int) -> Array:
    """Return the n integers that `pack_integers` packed."""
    words = unpack_words(data, n)
    return (words >> np.uint64(1)).view(np.int64) ^ -(words & np.uint64(1)).view(np.int64)


def _pack_bits(numbers: Array) -> bytes:
    """Return float64 (n,) as the bits that differ from the number before."""
    bits = numbers.view(np.uint64)
    changed = bits.copy()
    changed[1:] ^= bits[:-1]
    return pack_words(changed)


def _unpack_bits(data: bytes, n: int) -> Array:
    return np.bitwise_xor.accumulate(unpack_words(data, n)).view(float)


def _whole_numbers(numbers: Array, factor: float) -> Array:
    """Return numbers times a factor, rounded to int64; 0 where that is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(numbers * factor)
    return np.where(np.abs(scaled) < LARGEST_WHOLE, scaled, 0.0).astype(np.int64)


def _same_bits(numbers: Array, others: Array) -> Array:
    """Return (n,) bool: whether float64 are equal to the bit, so that -0.0 is not 0.0."""
    return np.asarray(numbers.view(np.uint64) == others.view(np.uint64))


def _pack_times(time: Array) -> tuple[bytes, bytes]:
    """Return the unit of times, and the times."""
    for place, unit in enumerate(TIME_UNITS):
        ticks = _whole_numbers(time, unit)
        if _same_bits(ticks / unit, time).all():
            return bytes([place]), pack_integers(np.diff(ticks, prepend=0))
    return bytes([NO_UNIT]), _pack_bits(time)


def _unpack_times(n: int, unit: bytes, packed: bytes) -> Array:
    if unit[0] == NO_UNIT:
        return _unpack_bits(packed, n)
    return np.cumsum(unpack_integers(packed, n)) / TIME_UNITS[unit[0]]


def _pack_values(value: Array, counts: Array) -> tuple[bytes, bytes, bytes]:
    """Return the decimals of each run, its values as whole numbers, and the bits of other runs.

    Args:
        value: (n,) values without gaps.
        counts: (runs,) how many of them each series has, also 0.
    """
    decimals = np.where(counts > 0, NOT_DECIMAL, 0)
    wholes = np.zeros(len(value), np.int64)
    for digits in DECIMALS:
        undecided = np.flatnonzero(decimals == NOT_DECIMAL)
        if not len(undecided):
            break
        rows = np.flatnonzero(np.repeat(decimals == NOT_DECIMAL, counts))
        whole = _whole_numbers(value[rows], POWERS[digits])
        lengths = counts[undecided]
        same = _same_bits(whole / POWERS[digits], value[rows])
        fits = np.logical_and.reduceat(same, np.cumsum(lengths) - lengths)
        decimals[undecided[fits]] = digits
        fitting = np.repeat(fits, lengths)
        wholes[rows[fitting]] = whole[fitting]
    decimal = np.repeat(decimals != NOT_DECIMAL, counts)
    return (
        pack_words(decimals.astype(np.uint64)),
        pack_integers(np.diff(wholes[decimal], prepend=0)),
        _pack_bits(value[~decimal]),
    )


def _unpack_values(sections: Sequence[bytes], counts: Array) -> Array:
    """Return the values (n,) that `_pack_values` packed."""
    decimals = np.repeat(unpack_words(sections[0], len(counts)), counts)
    decimal = decimals != NOT_DECIMAL
    there = int(decimal.sum())
    value = np.empty(len(decimals))
    wholes = np.cumsum(unpack_integers(sections[1], there))
    value[decimal] = wholes / POWERS[decimals[decimal].astype(np.intp)]
    value[~decimal] = _unpack_bits(sections[2], len(decimals) - there)
    return value


def _unpack_series(n: int, runs: int, sections: Sequence[bytes]) -> tuple[Array, Array]:
    """Return the series (n,) and where the run of each begins (runs,)."""
    numbers = np.cumsum(unpack_integers(sections[0], runs))
    counts = np.cumsum(unpack_integers(sections[1], runs))
    if counts.sum() != n or counts.min() < 1:
        raise ValueError("runs of another length")
    return np.repeat(numbers, counts), np.cumsum(counts) - counts
