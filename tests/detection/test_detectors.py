"""The detectors: every promise of the contract, and every definition of the twins, on every one of
them.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pickle
import pkgutil
from collections.abc import Callable
from typing import Any

import contract
import numpy as np
import pytest
import twins
import twins_families
import twins_spectral
from hypothesis import given, settings
from hypothesis import strategies as st

import detectors
import redline.detection
from detectors import (
    CEILING,
    DETECTORS,
    Alarm,
    Calibration,
    Detector,
    DetectorList,
    RollingZ,
    threshold_for,
)
from redline.detection import arrays
from redline.detection.arrays import Array
from redline.detection.forecasting import Seasonal
from redline.detection.third_party import THIRD_PARTY
from redline.detection.trained import TrainedDetector

NAMES = list(DETECTORS)
TWINS = {**twins.TWINS, **twins_families.TWINS, **twins_spectral.TWINS}
ORDER = """rolling z-score, median and MAD, interquartile range, percentile, moving average, EWMA, CUSUM, seasonal, autoregressive, spectral residual,
subspace, nearest neighbours, novelty, Mahalanobis, half-space trees, local outlier factor, ensemble""".replace(  # noqa: E501
    "\n", " "
).split(", ")


# The promises that take the longest streams, on the detectors that take the longest per step:
# these pairs are half of the contract's time. A new detector keeps all promises in `make fast`.
LONG = {"three_is_rare", "few_values_that_return_are_no_chaos", "a_long_ramp_is_one_alarm"}
LONG |= {"streams_are_strangers", "state_stops_growing", "a_glitch_at_the_start_is_forgotten"}
DEAR = {"spectral residual", "subspace", "nearest neighbours", "novelty", "Mahalanobis"}
DEAR |= {"half-space trees", "local outlier factor", "ensemble"}
PROMISES = [
    pytest.param(
        name,
        check,
        id=f"{name}-{check.__name__}",
        marks=pytest.mark.slow if name in DEAR and check.__name__ in LONG else (),
    )
    for name in NAMES
    for check in contract.CHECKS
]


@pytest.mark.parametrize(("name", "check"), PROMISES)
def test_contract(name: str, check: contract.Check) -> None:
    check(DETECTORS[name])


def test_every_detector_is_listed() -> None:
    for module in pkgutil.iter_modules(redline.detection.__path__, "redline.detection."):
        importlib.import_module(module.name)
    ours = {
        each
        for each in descendants(Detector)
        # the engine steps streams of some of them together, as the same detectors
        if each.__module__.split(".")[0] in ("detectors", "redline")
        and not each.__module__.startswith("redline.engine.")
        and not issubclass(each, TrainedDetector)  # listed when a model of theirs is run
    }
    listing = DetectorList(
        {
            f"redline.detection.third_party:{kind}": f"redline.detection.third_party:{kind}"
            for _, kind in THIRD_PARTY.values()
        }
    )  # those that need an extra
    assert {each for each in ours if not inspect.isabstract(each)} == {
        *DETECTORS.values(),
        *listing.values(),
    }


def descendants(base: type) -> set[type]:
    return {each for child in base.__subclasses__() for each in {child} | descendants(child)}


def test_the_list_has_its_order() -> None:
    assert NAMES[: len(ORDER)] == ORDER  # a new one comes last, where nobody's choice moves


def test_a_listed_room_is_imported_when_asked_for() -> None:
    listing = DetectorList({"rolling z-score": "detectors:RollingZ"})
    assert (
        listing["rolling z-score"] is listing["rolling z-score"] is RollingZ and len(listing) == 1
    )
    with pytest.raises(KeyError):
        listing["unheard of"]


# Twins


def one_stream(steps: int, seed: int, joint: bool) -> Array:
    """(steps, 1) or, joint, (steps, 1, 2), with missing steps, a spike, a shift; around 1e6."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, 2)) + 1e6
    x[rng.random(x.shape) < 0.06] = np.nan
    x[steps // 4 : steps // 4 + 14] = np.nan
    x[steps // 2 :, 0] += 40
    x[steps // 3 * 2] -= 1e4
    return x[:, None, :] if joint else x[:, :1]


def assert_twin(name: str, window: int, x: Array) -> None:
    """The fast scores are the slow ones."""
    slow: Any = TWINS[name]
    fast = DETECTORS[name](window=window).update(x)[:, 0]
    np.testing.assert_allclose(fast, slow(x[:, 0].tolist(), window), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("window", [2, 5, 12])
@pytest.mark.parametrize("name", NAMES)
def test_twin(name: str, window: int) -> None:
    assert_twin(name, window, one_stream(180, window, DETECTORS[name].joint))


def test_every_detector_has_a_twin() -> None:
    assert set(TWINS) == set(NAMES)


# Properties

values = st.one_of(
    st.integers(-50, 50).map(float),
    st.floats(-3, 3, width=32),
    st.just(float("nan")),
    st.sampled_from([1e9, -1e9, 1e12]),
)
histories = st.lists(values, min_size=1, max_size=60)
few = settings(max_examples=30, deadline=None, derandomize=True)


def stream(name: str, history: list[float]) -> Array:
    x = np.array(history)[:, None]
    return np.stack((x, x[::-1]), axis=-1) if DETECTORS[name].joint else x


@few
@given(history=histories, cuts=st.lists(st.integers(0, 60), max_size=8), window=st.integers(2, 9))
@pytest.mark.parametrize("name", NAMES)
def test_no_chunking_changes_a_bit(
    name: str, history: list[float], cuts: list[int], window: int
) -> None:
    x, make = stream(name, history), DETECTORS[name]
    assert contract.same(
        make(window=window).update(x),
        contract.in_chunks(make(window=window), x, sorted(cuts)).score,
    )


@few
@given(history=histories, window=st.integers(2, 9), power=st.sampled_from([-10, 10]))
@pytest.mark.parametrize("name", NAMES)
def test_no_unit_changes_a_bit(name: str, history: list[float], window: int, power: int) -> None:
    x, make = stream(name, history), DETECTORS[name]
    assert contract.same(make(window=window).update(x), make(window=window).update(x * 2.0**power))


@few
@given(history=histories, window=st.integers(2, 9))
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_numbers_or_no_opinion(name: str, history: list[float], window: int) -> None:
    x, make = stream(name, history), DETECTORS[name]
    scores = make(window=window).update(x)
    assert not (scores < 0).any() and not (scores > CEILING).any()
    assert np.isnan(scores[np.isnan(x).all(axis=-1) if make.joint else np.isnan(x)]).all()


@few
@given(history=histories, window=st.integers(2, 9))
@pytest.mark.parametrize(
    "name", ["rolling z-score", "median and MAD", "interquartile range", "percentile"]
)
def test_twin_of_hard_histories(name: str, history: list[float], window: int) -> None:
    assert_twin(name, window, stream(name, history))


# Rolling variance


@pytest.mark.parametrize("window", [2, 7, 60])
def test_rolling_spread_is_right_far_from_zero(window: int) -> None:
    noise = np.round(np.random.default_rng(1).normal(size=(500, 1)) * 2**20) / 2**20
    near, far = (
        RollingZ(window=window).advance(noise).spread,
        RollingZ(window=window).advance(noise + 1e9).spread,
    )
    np.testing.assert_allclose(far, near, rtol=1e-6)


@pytest.mark.parametrize("event", ["spike", "shift", "gap"])
def test_rolling_spread_recovers_within_a_window(event: str) -> None:
    noise = np.round(np.random.default_rng(2).normal(size=(400, 1)) * 2**20) / 2**20
    for at in range(150, 210):
        x = noise.copy()
        if event == "spike":
            x[at] = 1e12
        elif event == "shift":
            x[at:] += 1e9
        else:
            x[at : at + 20] = np.nan
        hit, plain = (
            RollingZ(window=60).advance(x).spread,
            RollingZ(window=60).advance(noise).spread,
        )
        after = at + 61 + 20 * (event == "gap")
        np.testing.assert_allclose(hit[after:], plain[after:], rtol=1e-6)


def test_rolling_spread_of_what_never_moves_is_nothing() -> None:
    x = np.concatenate((np.full((50, 1), 0.1), np.full((300, 1), 1e9 + 0.3)))
    spread = RollingZ(window=30).advance(x).spread
    assert (spread[81:] <= arrays.TINY).all()


def test_a_season_of_a_third_of_the_memory_is_the_same_in_any_chunks() -> None:
    x = 10 * np.sin(2 * np.pi * np.arange(6_300) / 1_330)[:, None]
    x += np.random.default_rng(0).normal(size=x.shape)
    whole = Seasonal(window=40).fit(x[:6_000])
    single = Seasonal(window=40).fit(x[:6_000])
    assert whole.state is not None
    assert whole.state["season"] > (Seasonal.KEPT - Seasonal.LOOK) / Seasonal.TURNS
    cut = np.concatenate([single.update(step[None]) for step in x[6_000:]])
    np.testing.assert_array_equal(whole.update(x[6_000:]), cut)


def test_a_season_is_not_read_from_places_that_were_written_over() -> None:
    class Forgetful(Seasonal):
        KEPT, LOOK = 256, 32

    x = np.sin(2 * np.pi * np.arange(513) / 100) + 0.1 * np.random.default_rng(8).normal(size=513)
    detector = Forgetful().fit(x[:512, None])
    season = int(detector.state["season"][0]) if detector.state else 0
    assert 95 <= season <= 105  # three of them are more than is kept, two are not
    assert detector.usual(np.array([512]))[0, 0] == np.median(
        [x[512 - season], x[512 - 2 * season]]
    )


# Settings and states


def odd_values(steps: int) -> np.ndarray:
    """Return values (steps, 4): noise with gaps and extremes, nothing, a constant, late noise."""
    rng = np.random.default_rng(1)
    x = np.full((steps, 4), np.nan)
    x[:, 0] = rng.normal(size=steps)
    x[::7, 0] = np.nan
    x[50::40, 0] = 1e75
    x[70::40, 0] = -1e75
    x[:, 2] = 3.0
    x[steps // 2 :, 3] = rng.normal(size=steps - steps // 2)
    return x


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_state_with_values_that_no_state_has_does_not_fit(name: str) -> None:
    detector = DETECTORS[name]()
    x = odd_values(400)
    for part in np.split(x[:, None] if detector.joint else x, [1, 10, 90, 250]):
        detector.update(part)
        assert detector.fits(detector.state), "a state that came of values fits, however odd"
    whole = dict(detector.state)
    spoiled = 0
    for key, value in whole.items():
        wrong = [-1, 2**60] if value.dtype.kind == "i" else []
        first = detector._first_state(tuple(whole["shape"].tolist())).get(key)
        if value.dtype.kind == "f" and first is not None and np.isfinite(first).all():
            wrong = [np.inf, -np.inf] + [np.nan] * (key not in detector.undefined)
        for each in wrong if value.size and key != "shape" else []:
            broken = value.copy()
            broken.flat[-1] = each
            assert not detector.fits({**whole, key: broken}), f"{key} with {each}"
            spoiled += 1
    assert spoiled


@pytest.mark.parametrize("steps", [1, 300])
def test_a_state_of_an_alarm_filter_that_was_never_loud_fits(steps: int) -> None:
    alarm = Alarm()
    alarm.update(np.zeros((steps, 2)))
    assert alarm.fits(alarm.state, (2,))
    assert not alarm.fits({**alarm.state, "loud": alarm.state["loud"] - 1}, (2,))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_detector_is_refused(name: str, tmp_path: Any) -> None:
    other = NAMES[NAMES.index(name) - 1]
    DETECTORS[other](window=9).fit(contract.noise(DETECTORS[other], 30)).save(
        tmp_path / "state.npz"
    )
    with pytest.raises(ValueError, match=DETECTORS[other].__name__):
        DETECTORS[name](window=9).load(tmp_path / "state.npz")


def test_a_state_of_another_version_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    RollingZ().fit(np.zeros((3, 1))).save(tmp_path / "state.npz")
    monkeypatch.setattr(detectors, "STATE_FORMAT", detectors.STATE_FORMAT + 1)
    with pytest.raises(
        ValueError, match=f"format {detectors.STATE_FORMAT - 1}, wanted {detectors.STATE_FORMAT}"
    ):
        RollingZ().load(tmp_path / "state.npz")


def written(save: Callable[..., None], *values: Any, **arrays: Any) -> bytes:
    """What one of numpy's writers puts into a file."""
    file = io.BytesIO()
    save(file, *values, **arrays)
    return file.getvalue()


def bent(*without: str, **arrays: Any) -> bytes:
    """A state of `RollingZ(window=9)` that lacks some arrays or has others."""
    detector = RollingZ(window=9).fit(np.zeros((30, 2)))
    whole = {"_header": np.array(json.dumps(detector._header())), **(detector.state or {})}
    return written(
        np.savez, **{name: value for name, value in whole.items() if name not in without} | arrays
    )


SQUEEZED = written(np.savez_compressed, a=np.arange(999))
NO_STATES = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "text": b"dear diary",
    "a pickle": pickle.dumps({"step": 3}),
    "one array": written(np.save, np.zeros((3, 2))),
    "half a file": bent()[:700],
    "squeezed, then bent": SQUEEZED[:60] + b"bent" * 5 + SQUEEZED[80:],
    "no header": bent("_header"),
    "a header that is no JSON": bent(_header=np.array("{")),
    "a header that is no table": bent(_header=np.array("3")),
    "no arrays": bent("step", "shape", "past", "marks", "tails", "head", "anchors"),
    "an array too few": bent("past"),
    "another window": bent(past=np.zeros((8, 2))),
    "words": bent(past=np.full((9, 2), "low")),
    "a shape below nothing": bent(shape=np.array([-1])),
    "a shape of a joint one": bent(shape=np.array([1, 2])),
}


@pytest.mark.parametrize("what", NO_STATES)
def test_a_file_that_is_no_state_is_refused_with_one_sentence(what: str, tmp_path: Any) -> None:
    (tmp_path / "state.npz").write_bytes(NO_STATES[what])
    detector = RollingZ(window=9).fit(np.ones((9, 2)))
    kept = detector.state
    sentence = r"state.npz is no state: wanted a file that save\(\) of RollingZ wrote, got one .*; save it again, or begin anew with fit\(\)$"  # noqa: E501
    with pytest.raises(ValueError, match=sentence) as refused:
        detector.load(tmp_path / "state.npz")
    assert "pickle" not in str(refused.value) and detector.state is kept


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        RollingZ().load(tmp_path / "state.npz")


def test_saving_nothing_says_so(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="no state yet"):
        RollingZ().save(tmp_path / "state.npz")


def test_threshold_for_a_share() -> None:
    scores = RollingZ().update(np.random.default_rng(0).normal(size=(5000, 2)))
    for share in (0.2, 0.05, 0.001):
        flagged = np.mean(scores[~np.isnan(scores)] > threshold_for(scores, share))
        assert abs(flagged - share) < 3e-4
    for wrong in (0.0, 1.0, 5):
        with pytest.raises(ValueError, match="contamination"):
            threshold_for(scores, wrong)
    with pytest.raises(ValueError, match="no step has a score"):
        threshold_for([np.nan])


# Calibration


def test_calibration_puts_raw_scores_on_the_scale() -> None:
    rng = np.random.default_rng(3)
    for raw in (
        np.abs(rng.normal(size=(2000, 50))),
        7 + 1e-3 * rng.normal(size=(2000, 50)),
        np.sqrt(rng.exponential(size=(2000, 50))),
    ):
        scores = Calibration().update(raw)
        assert 0.0009 <= np.mean(scores[120:] > 3) <= 0.008


def test_calibration_extrapolates_its_tail() -> None:
    raw = np.abs(np.random.default_rng(4).normal(size=(400, 1)))
    raw[-1] = 12.0
    assert 8 < Calibration().update(raw)[-1] < 16


def test_calibration_freezes_while_strange_and_accepts_what_lasts() -> None:
    raw = np.abs(np.random.default_rng(5).normal(size=(1500, 1)))
    raw[600:] += 20
    loud = Calibration(window=120).update(raw)[:, 0] > 3
    assert loud[600:720].all() and not loud[1200:].mean() > 0.02


@pytest.mark.parametrize("cuts", [[1, 2, 3, 60, 61, 200], list(range(1, 300))])
def test_calibration_and_alarm_in_chunks(cuts: list[int]) -> None:
    raw = np.abs(np.random.default_rng(6).normal(size=(300, 3))) * np.linspace(1, 4, 300)[:, None]
    raw[50:60, 1] = np.nan
    for make in (lambda: Calibration(window=30), lambda: Alarm(refractory=20)):
        whole, cut = make(), make()
        assert contract.same(
            whole.update(raw), np.concatenate([cut.update(chunk) for chunk in np.split(raw, cuts)])
        )


# Alarm


def alarms(scores: Any, threshold: float = 3.0, **settings: Any) -> list[int]:
    return np.flatnonzero(
        Alarm(**settings).update(np.asarray(scores, dtype=float)[:, None])[:, 0] > threshold
    ).tolist()


def test_what_follows_a_spike_foretold_by_what_came_before_is_no_anomaly() -> None:
    noise = np.random.default_rng(6).normal(size=4_000)
    x = np.zeros(len(noise))
    for t in range(1, len(x)):
        x[t] = 0.8 * x[t - 1] + noise[t]  # each value tells of the next
    spikes = np.arange(1_000, 4_000, 200)
    x[spikes] += 15.0
    score = DETECTORS["autoregressive"]().update(x[:, None])[:, 0]
    assert np.all(score[spikes] > 6)
    assert np.count_nonzero(score[spikes + 1] > 4) <= 3, "before: all 15"
    level = np.where(np.arange(len(x)) < 3_500, noise, noise + 30.0)
    shifted = DETECTORS["autoregressive"]().update(level[:, None])[:, 0]
    assert shifted[3_500] > 6 and shifted[3_900:].max() < 6, "a new level is believed"


def test_one_spike_is_one_alarm_at_its_first_step() -> None:
    scores = np.zeros(300)
    scores[[100, 101, 105, 150]] = 9, 9, 8, 9
    assert alarms(scores) == [100]


def test_after_the_refractory_steps_it_may_alarm_again() -> None:
    scores = np.zeros(300)
    scores[[100, 201]] = 9
    assert alarms(scores, memory=1) == [100, 201]
    assert alarms(scores, refractory=101, memory=1) == [100]


@pytest.mark.parametrize("steps", [60, 400, 3000])
@pytest.mark.parametrize("threshold", [2.6, 3.0, 3.5, 4.5])
def test_a_long_ramp_is_one_alarm(steps: int, threshold: float) -> None:
    assert len(alarms(np.linspace(0, 9, steps), threshold)) == 1


def test_without_refractory_steps_only_habituation_holds_back() -> None:
    passed = (
        Alarm(refractory=0, habit=1e9).update(np.array([[2.0], [6.0], [5.9], [0.0], [5.8]])).ravel()
    )
    assert passed.round(6).tolist() == [2.0, 6.0, 5.9, 0.0, 5.8]


def test_a_higher_event_passes_within_the_refractory_steps() -> None:
    scores = np.full(300, 0.5)
    scores[[100, 130]] = 4, 7
    assert alarms(scores) == [100, 130]


def test_it_gets_used_to_peaks_of_one_height_but_not_to_higher_ones() -> None:
    scores = np.zeros(3000)
    scores[200:2800:200] = 6
    scores[2900] = 12
    assert alarms(scores, 4.5) == [
        200,
        400,
        600,
        800,
        1000,
        2900,
    ]  # 6 / 1 ... 6 / 1.31 are over 4.5; the sixth peak is 6 / 1.36
    assert alarms(scores, habit=1.0, memory=5000) == [
        200,
        400,
        2900,
    ]  # 6 / 1, 6 / 1.96 are over 3; the third peak is 6 / 2.9


@pytest.mark.parametrize(
    "wrong", [{"quiet": 0.0}, {"quiet": CEILING}, {"habit": 0.0}, {"growth": 0.5}, {"memory": 0}]
)
def test_an_alarm_says_what_it_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*, got"):
        Alarm(**wrong)  # type: ignore[arg-type]


def test_it_forgets_peaks() -> None:
    scores = np.zeros(3000)
    scores[200:2800:200] = 6
    assert len(alarms(scores, memory=100)) == 13


def test_no_opinion_is_no_alarm() -> None:
    out = Alarm().update([[np.nan], [9.0], [np.nan]])[:, 0]
    assert np.isnan(out[0]) and out[1] == 9 and np.isnan(out[2])


def test_an_alarm_does_not_keep_the_chunk() -> None:
    alarm = Alarm()
    alarm.update(np.random.default_rng(3).normal(size=(2000, 3)))
    assert all(value.base is None for value in (alarm.state or {}).values())


def test_an_alarm_is_saved_and_loaded(tmp_path: Any) -> None:
    scores = np.abs(np.random.default_rng(7).normal(size=(600, 2))) * 2
    alarm = Alarm()
    alarm.update(scores[:400])
    alarm.save(tmp_path / "alarm.npz")
    assert contract.same(
        Alarm().load(tmp_path / "alarm.npz").update(scores[400:]), alarm.update(scores[400:])
    )
    with pytest.raises(ValueError, match="Alarm"):
        RollingZ().load(tmp_path / "alarm.npz")
