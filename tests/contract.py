"""The contract of every detector, as checks that can be run on any class.

`check(MyDetector)` runs them all. CHECKS is the list, each a function of the class that raises
AssertionError with what is violated. x is (steps, streams), for a joint detector (steps, streams, 2
features). No check depends on a detector's name.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from detectors import CEILING, Alarm, Detector, Verdict

Array = np.ndarray[Any, np.dtype[Any]]
Make = type[Detector]
Check = Callable[[Make], None]

W = 24  # steps, the window of most checks: short, so that a few hundred steps hold many of them
LOUD = 3.0  # standard deviations, the threshold all detectors share
CALLED = 3.5  # standard deviations, the threshold of the page's alarms
GRID = 2.0**-20  # of noise(): adding 1e9 is exact
CHECKS: list[Check] = []


def promise(check: Check) -> Check:
    CHECKS.append(check)
    return check


def check(make: Make) -> None:
    """Run every check on a detector class; the first that fails raises AssertionError."""
    for each in CHECKS:
        each(make)


# Inputs of the checks


def shaped(make: Make, x: Array) -> Array:
    """Return (steps, streams) as the detector takes it.

    A joint one gets a second feature, made of the same steps in another order of streams.
    """
    if not make.joint:
        return x
    second = np.roll(x, 1, axis=1) + np.roll(x, 7, axis=0) / 2
    return np.stack((x, second), axis=-1)


def noise(make: Make, steps: int, streams: int = 2, seed: int = 0, wave: float = 1.0) -> Array:
    """Return Gaussian noise on a slow wave, in multiples of GRID."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, streams)) + wave * np.sin(np.arange(steps) / 9)[:, None]
    return shaped(make, np.round(x / GRID) * GRID)


def dirty(make: Make, steps: int, streams: int = 3, seed: int = 0) -> Array:
    """Return noise with spikes, missing steps, a long gap and a shift.

    It is off the grid, so that every sum is rounded and another order of summing shows.
    """
    rng = np.random.default_rng(seed + 1)
    x = noise(make, steps, streams, seed) / 3
    x[rng.random(x.shape[:2]) < 0.02] *= 20
    x[rng.random(x.shape[:2]) < 0.05] = np.nan
    x[steps // 3 : steps // 3 + 2 * W, 0] = np.nan
    x[steps // 2 :, 1] += 9
    return x


def flat(make: Make, *levels: tuple[int, float]) -> Array:
    """Return one stream constant at each (steps, level) in turn, all features alike."""
    x = np.concatenate([np.full((steps, 1), level) for steps, level in levels])
    return np.repeat(x[..., None], 2, axis=-1) if make.joint else x


def same(a: Array | None, b: Array | None) -> bool:
    """Return whether two arrays are equal to the last bit, or both None."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def in_chunks(detector: Detector, x: Array, cuts: Array | list[int]) -> Verdict:
    """Return the verdicts of the chunks, concatenated."""
    columns = zip(*[detector.advance(chunk) for chunk in np.split(x, cuts)])
    return Verdict(*[None if column[0] is None else np.concatenate(column) for column in columns])


def state_of(detector: Detector) -> dict[str, Array]:
    return {name: value.copy() for name, value in (detector.state or {}).items()}


def same_state(a: dict[str, Array], b: dict[str, Array]) -> bool:
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)


# Time


@promise
def chunks_change_no_bit(make: Make) -> None:
    x, rng = dirty(make, 22 * W), np.random.default_rng(3)
    whole = make(window=W).advance(x)
    one_by_one = [*range(1, 3 * W), 5 * W, 5 * W]
    for cuts in (one_by_one, *(np.sort(rng.integers(0, len(x), 12)) for _ in range(3))):
        cut = in_chunks(make(window=W), x, cuts)
        for part in Verdict._fields:
            assert same(getattr(whole, part), getattr(cut, part)), (
                f"cut at {list(cuts)}, {part} changes"
            )


@promise
def equal_steps_leave_equal_states(make: Make) -> None:
    x, rng = dirty(make, 15 * W), np.random.default_rng(4)
    for steps in (*range(13 * W, 14 * W), len(x)):
        whole, cut = make(window=W), make(window=W)
        whole.advance(x[:steps])
        in_chunks(cut, x[:steps], np.sort(rng.integers(0, steps, 12)))
        assert same_state(state_of(whole), state_of(cut)), f"another state after {steps} steps"


@promise
def no_future(make: Make) -> None:
    x = dirty(make, 14 * W)
    other, now = x.copy(), 11 * W + 5
    other[now:] = other[now:][::-1] * 3 + 1
    before, after = make(window=W).advance(x), make(window=W).advance(other)
    for part in Verdict._fields:
        a, b = getattr(before, part), getattr(after, part)
        assert a is None or same(a[:now], b[:now]), f"{part} of a step changes with later steps"


@promise
def judged_before_learned(make: Make) -> None:
    x = noise(make, 12 * W, 1)
    verdicts = []
    for size in (1.0, 1e3):
        detector, step = make(window=W).fit(x[:-1]), x[-1:] * size
        verdicts.append(detector.advance(step))
    for part in ("centre", "spread"):
        assert same(getattr(verdicts[0], part), getattr(verdicts[1], part)), (
            f"{part} depends on the value it judges"
        )
    assert verdicts[1].score >= verdicts[0].score, (
        "a value a thousand times as far scores lower: it was learned before it was judged"
    )


@promise
def streams_are_strangers(make: Make) -> None:
    x = dirty(make, 16 * W, 3)
    crowd = np.repeat(x, 30, axis=1)
    crowd[:, ::3] *= 1e6
    crowd[3 * W : 4 * W, ::3] = np.nan
    together, alone = make(window=W).update(crowd), make(window=W).update(x[:, 1:2])
    for column in (31, 32, 59):
        np.testing.assert_allclose(
            together[:, column],
            alone[:, 0],
            rtol=1e-9,
            atol=1e-9,
            err_msg="a stream's scores change with its neighbours",
        )


# State


@promise
def fit_forgets(make: Make) -> None:
    x = dirty(make, 12 * W)
    used = make(window=W)
    used.update(x[::-1] * 5)
    assert same(
        used.fit(x[: 9 * W]).update(x[9 * W :]), make(window=W).fit(x[: 9 * W]).update(x[9 * W :])
    ), "fit remembers what was before"


@promise
def fit_goes_on_learning(make: Make) -> None:
    x = dirty(make, 12 * W)
    fitted = in_chunks(make(window=W).fit(x[: 9 * W]), x[9 * W :], [W])
    assert same(fitted.score, make(window=W).update(x)[9 * W :]), "fit then update is not update"


@promise
def looking_leaves_the_state(make: Make) -> None:
    x = dirty(make, 12 * W)
    detector = make(window=W).fit(x[: 9 * W])
    before = state_of(detector)
    scores = detector.score(x[9 * W :])
    flags = detector.predict(x[9 * W :], LOUD)
    detector.bounds(x[9 * W :])
    detector.explain(x[9 * W :])
    assert detector.state is not None and same_state(before, state_of(detector)), (
        "score, predict, bounds or explain moved the state"
    )
    assert (flags == (scores > LOUD)).all() and not flags[np.isnan(scores)].any(), (
        "predict is not score > threshold"
    )
    assert same(scores, detector.update(x[9 * W :])), "score is not what update gives"
    assert make(window=W).score(x).shape == x.shape[:2], "score needs no past"


@promise
def state_is_all_there_is(make: Make) -> None:
    x = dirty(make, 14 * W)
    detector = make(window=W).fit(x[: 9 * W + 5])
    assert all(
        isinstance(value, np.ndarray) and value.dtype != object
        for value in state_of(detector).values()
    ), "the state holds more than arrays"
    twin = make(window=W)
    twin.state = state_of(detector)
    with tempfile.TemporaryDirectory() as folder:
        detector.save(Path(folder) / "state.npz")
        loaded = make(window=W).load(Path(folder) / "state.npz")
    scores = detector.update(x[9 * W + 5 :])
    assert same(scores, twin.update(x[9 * W + 5 :])), "a twin given the state goes on otherwise"
    assert same(scores, loaded.update(x[9 * W + 5 :])), "a saved and loaded state goes on otherwise"
    assert same_state(state_of(detector), state_of(twin)), "a twin given the state ends in another"


@promise
def foreign_states_are_refused(make: Make) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"
        make(window=W).fit(noise(make, 3 * W)).save(path)
        said = refusal(lambda: make(window=W + 1).load(path))
        assert str(W) in said and str(W + 1) in said, (
            f"a state of another window is not refused with both windows: {said}"
        )
        np.savez(path, anything=np.zeros(3))
        assert make.__name__ in refusal(lambda: make(window=W).load(path)), (
            "a file that is no state is not refused"
        )


@promise
def state_stops_growing(make: Make) -> None:
    x = noise(make, 160 * W, 1)
    detector = make(window=W).fit(x[: 80 * W])
    shapes = {name: value.shape for name, value in state_of(detector).items()}
    detector.update(x[80 * W :])
    assert shapes == {name: value.shape for name, value in state_of(detector).items()}, (
        "the state grows with what was seen"
    )


@promise
def input_untouched(make: Make) -> None:
    for x in (noise(make, 10 * W), dirty(make, 10 * W)):
        kept, detector = x.copy(), make(window=W)
        scores = detector.update(x)
        assert same(x, kept), "the input was written to"
        before = state_of(detector)
        x[:] = 7
        assert same_state(before, state_of(detector)), "the state shares memory with the input"
        kept.flags.writeable = False
        assert same(scores, make(window=W).update(kept)), "a read-only input is scored otherwise"
        assert same(scores, make(window=W).update(np.asfortranarray(kept))), (
            "the memory order of the input changes the scores"
        )
        assert same(scores, make(window=W).update(kept.tolist())), (
            "a plain list is scored otherwise"
        )


@promise
def results_are_given_away(make: Make) -> None:
    x = dirty(make, 10 * W)
    detector, careful = make(window=W), make(window=W)
    for step in range(8 * W, 10 * W, 3):
        for part in detector.advance(x[step : step + 3]):
            if part is not None and part.flags.writeable:
                part[:] = 7
        careful.advance(x[step : step + 3])
    assert same_state(state_of(detector), state_of(careful)), (
        "writing to a result changes the state"
    )


@promise
def same_seed_same_scores(make: Make) -> None:
    x, kept = dirty(make, 10 * W), np.random.get_state()  # noqa: NPY002
    first = make(window=W).update(x)
    np.random.seed(4)  # noqa: NPY002
    second = make(window=W).update(x)
    np.random.set_state(kept)  # noqa: NPY002
    assert same(first, second), "two detectors with the same settings disagree"


# Missing, wrong, short


@promise
def missing_stays_missing(make: Make) -> None:
    x = dirty(make, 20 * W)
    gone = np.isnan(x).all(axis=-1) if make.joint else np.isnan(x)
    scores = make(window=W).update(x)
    assert np.isnan(scores[gone]).all(), "a missing step has a score"
    assert not np.isnan(scores[-2 * W :][~gone[-2 * W :]]).any(), "no opinion long after a gap"
    for other in (np.inf, -np.inf, 1e200):
        assert same(scores, make(window=W).update(np.where(np.isnan(x), other, x))), (
            f"{other} is not treated as missing"
        )
    assert np.isnan(make(window=W).update(np.full_like(x, np.nan))).all(), (
        "an opinion on a stream that never spoke"
    )


@promise
def nothing_learned_from_missing(make: Make) -> None:
    x = noise(make, 12 * W, 1) + 50
    x[11 * W : 11 * W + 3] = np.nan
    x[-1] += 20
    scores = make(window=W).update(x)
    assert not np.isnan(scores[11 * W + 3 :]).any(), "three missing steps made it forget"
    assert np.max(scores[11 * W + 3 : -1]) < 3 * LOUD, (
        "three missing steps made plain noise anomalous"
    )
    assert scores[-1] > LOUD, (
        "three missing steps hide a spike of 20 deviations: they were learned as numbers"
    )


@promise
def no_opinion_at_first(make: Make) -> None:
    scores = make(window=W).update(noise(make, 20 * W))
    assert np.isnan(scores[:2]).all(), "an opinion without a past"
    assert not np.isnan(scores[12 * W :]).any(), "no opinion after twelve windows"
    first = np.isnan(scores).argmin(axis=0)
    assert not any(np.isnan(scores[start:, stream]).any() for stream, start in enumerate(first)), (
        "the opinion comes and goes"
    )


@promise
def wrong_shapes_are_refused(make: Make) -> None:
    for shape in ((), (5,), (5, 2, 2, 2), *(() if make.joint else ((5, 2, 2),))):
        said = refusal(lambda shape=shape: make(window=W).update(np.zeros(shape)))
        assert str(shape) in said and "steps" in said, (
            f"the refusal does not say what was wanted and what came: {said!r}"
        )
    detector = make(window=W).fit(noise(make, 3 * W, 2))
    before = state_of(detector)
    assert "2" in refusal(lambda: detector.update(noise(make, 3, 5))), (
        "another number of streams is not refused"
    )
    assert same_state(before, state_of(detector)), "a refused input moved the state"


@promise
def wrong_settings_are_refused(make: Make) -> None:
    for wrong in ({"window": 1}, {"direction": "up"}, {"floor": -1.0}):
        said = refusal(lambda settings=wrong: make(**settings))
        assert next(iter(wrong)) in said, f"{wrong} is not refused by name: {said!r}"


def refusal(act: Callable[[], object]) -> str:
    """Return the message of the ValueError; empty if there was none."""
    try:
        act()
    except ValueError as error:
        return str(error)
    return ""


@promise
def nothing_is_something(make: Make) -> None:
    x = noise(make, 3 * W)
    detector = make(window=W)
    assert detector.update(x[:0]).shape == (0, 2), "no steps are not no scores"
    detector.update(x)
    before = state_of(detector)
    assert detector.advance(x[:0]).score.shape == (0, 2) and same_state(
        before, state_of(detector)
    ), "no steps move the state"


# The scale


@promise
def three_is_rare(make: Make) -> None:
    x = np.random.default_rng(9).normal(size=(2600, 40, 2) if make.joint else (2600, 40))
    scores = make().update(x)
    known = scores[100:][~np.isnan(scores[100:])]
    assert known.size > 70_000, f"only {known.size} of 100,000 steps have a score"
    share = np.mean(known > LOUD)
    assert 0.0009 <= share <= 0.008, (
        f"{share:.4%} of Gaussian steps score above 3, wanted 0.09 % to 0.8 %"
    )


@promise
def scores_are_deviations(make: Make) -> None:
    scores = make(window=W).update(dirty(make, 20 * W))
    assert scores.dtype == np.float64 and np.nanmin(scores) >= 0 and np.nanmax(scores) <= CEILING, (
        "scores lie between 0 and CEILING"
    )


@promise
def the_unit_does_not_matter(make: Make) -> None:
    x = dirty(make, 16 * W)
    assert same(make(window=W).update(x), make(window=W).update(1024 * x)), (
        "1024 times the values, other scores"
    )


@promise
def the_zero_does_not_matter(make: Make) -> None:
    x = noise(make, 16 * W)
    near, far = make(window=W).update(x), make(window=W).update(x + 1e9)
    np.testing.assert_allclose(
        far, near, rtol=1e-3, atol=1e-3, err_msg="values around 1e9, other scores"
    )


@promise
def few_values_that_return_are_no_chaos(make: Make) -> None:
    """A switch that is seldom on, and values on a coarse grid: much is equal there, and what
    rounding tells apart must not decide.
    """
    rng, steps = np.random.default_rng(0), 100 * W
    for x in (1.0 * (rng.random((steps, 2)) < 0.02), np.round(rng.normal(size=(steps, 2)) * 2) / 2):
        x = shaped(make, x)
        together = make(window=2 * W).update(x)
        alone, far = make(window=2 * W).update(x[:, :1]), make(window=2 * W).update(x + 1e9)
        np.testing.assert_allclose(
            alone,
            together[:, :1],
            rtol=1e-6,
            atol=1e-6,
            err_msg="a stream's scores change with its neighbours",
        )
        np.testing.assert_allclose(
            far, together, rtol=1e-2, atol=1e-2, err_msg="values around 1e9, other scores"
        )


@promise
def a_spike_is_caught(make: Make) -> None:
    for sign in (1, -1):
        x = noise(make, 20 * W, 2)
        x[-1] += sign * 50
        assert (make(window=W).update(x)[-1] > LOUD).all(), (
            f"a spike of {sign * 50} deviations scores {make(window=W).update(x)[-1]}"
        )


@promise
def the_unwatched_side_is_quiet(make: Make) -> None:
    for direction, sign in (("high", 1), ("low", -1)):
        x = noise(make, 20 * W, 1)
        x[-1] += sign * 50
        assert make(window=W, direction=direction).update(x)[-1] > LOUD, (
            f"direction {direction} misses its own side"
        )
        x[-1] -= sign * 100
        assert make(window=W, direction=direction).update(x)[-1] <= LOUD, (
            f"direction {direction} alarms on the other side"
        )


@promise
def a_floor_is_believed(make: Make) -> None:
    x = noise(make, 20 * W, 2)
    x[-1] += 50
    plain = make(window=W).update(x)[-1]
    for floor in (1e6, (1e6, 1e6)):
        assert (make(window=W, floor=floor).update(x)[-1] < np.minimum(plain, LOUD)).all(), (
            "a spike far below the floor is loud"
        )


# The first values

GLITCHES = (  # steps; each tuple in a stream of its own, the first stream without any
    *((), (0,), (1,), (5,), (17,), (31,), (32,), (50,), (63,), (64,), (80,), (99,)),
    *((0, 1), (10, 11), (40, 90), (62, 65)),
)


@promise
def a_glitch_at_the_start_is_forgotten(make: Make) -> None:
    """One or two values of 65,535 among the first hundred of noise with deviation 1.

    One and two windows after them a spike of 10 deviations is caught by whoever has an opinion,
    after three windows by whoever has one of the stream without, and noise is as quiet as ever.
    """
    for window in sorted({60, make().window}):
        x = np.random.default_rng(21).normal(size=(5501, len(GLITCHES), 2))
        clean = x.copy() if make.joint else x[..., 0].copy()
        for stream, steps in enumerate(GLITCHES):
            x[list(steps), stream] = 65_535.0
        x = x if make.joint else x[..., 0]
        for spike in (100 + window, 100 + 2 * window, 100 + 3 * window, 5500):
            past = x[: spike + 1].copy()
            past[spike] = 10.0
            scores = make(window=window).update(past)
            last = scores[-1]
            told = f"window {window}, a spike at step {spike} scores {last.round(1)}"
            late = (spike >= 100 + 3 * window and last[0] == last[0]) or spike == 5500
            assert not (late and np.isnan(last).any()), f"{told}: no opinion"
            assert not (last <= CALLED).any(), told
            if spike == 100 + window:
                cut = in_chunks(make(window=window), past, [*range(1, 140, 7)])
                assert same(scores, cut.score), f"window {window}: other scores in chunks"
        share, usual = (
            np.nanmean(np.where(quiet == quiet, quiet > LOUD, np.nan), axis=0)
            for quiet in (scores[100:-1], make(window=window).update(clean)[100:-1])
        )
        told = f"window {window}: {share.round(4)} of the quiet steps are above 3"
        most = max(0.008, 1.1 * usual.mean())  # `three_is_rare` asks this of the default window
        assert 0.0009 <= share.mean() <= most, f"{told}, {usual.mean():.4f} without glitches"
        assert (share <= 0.016).all(), told  # one stream is a small sample


@promise
def a_shift_at_the_start_is_learned(make: Make) -> None:
    """A shift by 1,000 deviations is no glitch, wherever it falls between two judgements."""
    shifts = (50, 31, 62, 63, 95, 126, 127)  # steps
    x = np.random.default_rng(22).normal(size=(40 * W, len(shifts), 2))
    for stream, step in enumerate(shifts):
        x[step:, stream] += 1000.0
    x = x if make.joint else x[..., 0]
    scores = make(window=W).update(x)
    assert not np.isnan(scores[128 + 10 * W :]).any(), "no opinion long after a shift"
    loud = (scores[128 + 15 * W :] > LOUD).mean(axis=0)
    assert (loud <= 0.05).all(), f"long after a shift at steps {shifts} {loud.round(2)} alarm"


# What lasts


@promise
def constant_is_calm(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for level in (0.0, 0.1, -1e9):
            scores = make(window=W).update(flat(make, (30 * W, level)))
            assert not (scores > LOUD).any(), f"a stream that never moves from {level} alarms"


@promise
def one_quantum_up_is_accepted(make: Make) -> None:
    scores = make(window=W).update(flat(make, (12 * W, 0.1), (30 * W, 0.1 + 1e-3)))
    assert not (scores[-10 * W :] > LOUD).any(), "a flat stream one quantum up alarms for ever"


@promise
def a_lasting_shift_is_accepted(make: Make) -> None:
    x = noise(make, 40 * W, 2, wave=0.0)
    x[20 * W :] += 30
    loud = make(window=W).update(x) > LOUD
    before, after = loud[10 * W : 20 * W].mean(), loud[30 * W :].mean()
    assert after <= before + 0.05, (
        f"ten windows after a shift {after:.0%} of the steps alarm, before it {before:.0%}"
    )


@promise
def a_long_ramp_is_one_alarm(make: Make) -> None:
    """Flat noise without a tail, then 4,000 steps of 0.02 to 1 deviation each; the alarm may be
    told again while it doubles within two windows.
    """
    slopes, rng = (0.02, 0.05, 0.1, 0.3, 1.0), np.random.default_rng(12)
    climb = np.maximum(np.arange(5000) - 999, 0)[:, None] * slopes
    x = rng.uniform(-(3**0.5), 3**0.5, size=(5000, len(slopes), 2)) + climb[..., None]
    detector = make()
    alarms = Alarm().update(scores := detector.update(x if make.joint else x[..., 0]))
    for stream, slope in enumerate(slopes):
        called = np.flatnonzero(alarms[1000:, stream] > CALLED)
        heights = scores[1000:][called, stream]
        told = (
            f"a slope of {slope} deviations a step alarms after {called} steps with "
            f"{heights.round(1)}"
        )
        assert not len(called) or called[-1] - called[0] <= 2 * detector.window, told
        assert (heights[1:] >= 2 * heights[:-1]).all(), told


# What it says


@promise
def explanations_add_up(make: Make) -> None:
    x = dirty(make, 12 * W)
    detector = make(window=W).fit(x[: 9 * W])
    parts, scores = detector.explain(x[9 * W :]), detector.score(x[9 * W :])
    features = x.shape[2] if make.joint else 1
    assert parts.shape == (*scores.shape, features), f"explain gives {parts.shape}"
    known = ~np.isnan(scores)
    np.testing.assert_allclose(
        parts.sum(axis=-1)[known],
        scores[known],
        rtol=1e-9,
        atol=1e-9,
        err_msg="the parts do not add up to the score",
    )
    evidence = detector.preview(x[9 * W :]).evidence
    assert (evidence is None) == (not make.kinds), "kinds and evidence disagree"
    if evidence is not None:
        assert evidence.shape == (*parts.shape, len(make.kinds))
        assert (evidence[known] >= 0).all(), "evidence against an anomaly"
        np.testing.assert_allclose(
            evidence.sum(axis=-1)[known],
            parts[known],
            rtol=1e-9,
            atol=1e-9,
            err_msg="the kinds of evidence do not add up to the parts",
        )


@promise
def bounds_bound(make: Make) -> None:
    x = dirty(make, 16 * W)
    detector = make(window=W)
    band, scores = detector.bounds(x, LOUD), detector.score(x)
    verdict = detector.preview(x)
    assert (band is None) == (verdict.centre is None) == (verdict.spread is None), (
        "bounds and centre disagree on whether there is a band"
    )
    if band is not None:
        low, high = band
        assert low.shape == high.shape == x.shape, "the band is not shaped like the input"
        usual = noise(make, 40 * W)
        judged = make(window=W).preview(usual)
        assert judged.centre is not None and judged.spread is not None
        away = (np.abs(usual - judged.centre) / judged.spread)[20 * W :]
        assert (away <= LOUD).mean() >= 0.95, "plain noise lies outside the band"
        assert (away > 1).mean() >= 0.05, "the band is too wide to say anything"
    if band is not None and not make.joint:
        sure = ~np.isnan(scores) & (np.abs(scores - LOUD) > 1e-6)
        assert (((x < low) | (x > high)) == (scores > LOUD))[sure].all(), (
            "outside the band is not above the threshold"
        )
