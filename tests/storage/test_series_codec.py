"""The bytes of stored parts: everything but the scores comes back to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.detection.arrays import Array
from redline.engine.fleet.stored import LATE_STEP, SeriesSteps
from redline.storage.series_codec import (
    decode_keys,
    decode_part,
    encode_packed,
    encode_plain,
    score_codes,
    scores_from_codes,
)

START = 1_700_000_000.0  # seconds since the epoch
SCORE_ERROR = 2.0**-11  # relative
STALE = np.uint64(0x7FF0_0000_0000_0002).view(np.float64)  # a NaN of other bits
ANY = st.floats(width=64)
DECIMAL = st.integers(-(10**9), 10**9).map(lambda whole: whole / 100)
RARE = st.sampled_from(
    [np.nan, STALE, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1.8e308, -1e300, 2.0**60]
)
VALUES = st.one_of(st.just(0.1), DECIMAL, RARE, ANY)
TIMES = st.one_of(
    st.integers(0, 10**7).map(lambda ms: START + ms / 1e3),
    st.integers(0, 10**9).map(lambda us: START + us / 1e6),
    st.floats(-1e12, 1e12),
)
SCORES = st.one_of(st.sampled_from([np.nan, np.inf, 0.0, 1e-30, 1e30]), st.floats(-1e5, 1e5))


@st.composite
def several_series(draw: st.DrawFn) -> SeriesSteps:
    """Draw steps of some series, with late points among them."""
    counts = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    numbers = draw(
        st.lists(st.integers(0, 2**40), min_size=len(counts), max_size=len(counts), unique=True)
    )
    n = sum(counts)

    def column(one: st.SearchStrategy[float]) -> Array:
        return np.array(draw(st.lists(one, min_size=n, max_size=n)))

    kind = draw(st.sampled_from([VALUES, DECIMAL, st.just(np.nan), ANY]))
    steps = [draw(st.integers(0, 2**50)) + np.arange(count) for count in counts]
    late = column(st.booleans())
    return SeriesSteps(
        series=np.repeat(sorted(numbers), counts),
        step=np.where(late, LATE_STEP, np.concatenate(steps)),
        time=column(TIMES),
        value=column(kind),
        score=column(SCORES),
        flags=column(st.integers(0, 3)).astype(np.uint8),
    )


@pytest.mark.parametrize("encode", [encode_plain, encode_packed])
@given(steps=several_series())
def test_a_part_comes_back_to_the_bit(encode, steps: SeriesSteps) -> None:
    data = encode(steps)
    found = decode_part(data)
    for name, column in zip(steps._fields, found):
        wanted = getattr(steps, name)
        assert column.dtype == wanted.dtype and len(column) == len(wanted)
        if name != "score":
            assert column.tobytes() == wanted.tobytes(), name
    keys = decode_keys(data)
    assert keys[0].tobytes() == steps.series.tobytes()
    assert keys[1].tobytes() == steps.time.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        [0.0, -0.0, 1.0],
        [-0.0],
        [np.nan, STALE, 2.5],
        [STALE],
        [np.inf, 1.0, -np.inf],
        [2.0**53, 2.0**53 + 2, 2.0**62, -(2.0**63), 1e300],
        [0.1 + 0.2, 0.3],
        [5e-324, 0.0],
        [1e-9, 123456.789, -7.25],
    ],
)
def test_numbers_that_look_alike_stay_apart(value: list[float]) -> None:
    n = len(value)
    steps = SeriesSteps(
        np.full(n, 7),
        np.arange(n),
        np.array(value),
        np.array(value),
        np.zeros(n),
        np.zeros(n, np.uint8),
    )
    for encode in (encode_plain, encode_packed):
        found = decode_part(encode(steps))
        assert found.value.tobytes() == steps.value.tobytes()
        assert found.time.tobytes() == steps.time.tobytes()


@given(st.lists(st.one_of(SCORES, ANY), min_size=1))
def test_a_score_keeps_three_digits_and_does_not_drift(scores: list[float]) -> None:
    score = np.array(scores)
    once = scores_from_codes(score_codes(score))
    assert np.array_equal(scores_from_codes(score_codes(once)), once, equal_nan=True)
    assert np.array_equal(np.isnan(once), np.isnan(score))
    usual = (np.abs(score) > 1e-37) & (np.abs(score) < 3e38)
    assert (np.abs(once[usual] / score[usual] - 1) <= SCORE_ERROR).all()
    exact = np.isinf(score) | (score == 0)
    assert np.array_equal(once[exact], score[exact])


@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_other_bytes_are_refused(data: bytes, place: int) -> None:
    with pytest.raises(ValueError, match="wanted a part, came other bytes"):
        decode_part(data)
    n = 50
    steps = SeriesSteps(
        np.repeat([3, 4], n // 2),
        np.arange(n),
        np.arange(n) * 0.1,
        np.ones(n),
        np.ones(n),
        np.zeros(n, np.uint8),
    )
    for whole in (encode_plain(steps), encode_packed(steps)):
        cut = whole[: place % len(whole)]
        with pytest.raises(ValueError, match="wanted a part, came other bytes"):
            decode_part(cut)


def test_what_hardly_changes_takes_little() -> None:
    draw = np.random.default_rng(3)
    series, n = 8, 1_000
    moving = np.round(np.cumsum(draw.normal(size=series * n)), 2)
    for value, score, most in (
        (moving, np.abs(draw.normal(size=series * n)), 4.0),
        (np.repeat(draw.normal(size=series), n), np.zeros(series * n), 0.3),
    ):
        steps = SeriesSteps(
            series=np.repeat(np.arange(series), n),
            step=np.tile(np.arange(n), series),
            time=np.tile(START + np.arange(n) * 15.0, series),
            value=value,
            score=score,
            flags=np.zeros(series * n, np.uint8),
        )
        assert len(encode_packed(steps)) < most * series * n
