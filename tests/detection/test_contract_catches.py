"""The contract catches: detectors with one fault each, and the check that must name it."""

from __future__ import annotations

from functools import partial
from typing import Any

import contract
import numpy as np
import pytest

from detectors import (
    CEILING,
    DETECTORS,
    Alarm,
    Cusum,
    Detector,
    MedianMad,
    RollingZ,
    State,
    Verdict,
)
from redline.detection.arrays import Array, sliding_windows
from redline.detection.neighbours import Novelty
from redline.detection.spectral import Subspace

FAULTS: dict[str, list[type[Detector]]] = {}


def breaks(*checks: str) -> Any:
    """The class under it has a fault that each of these checks must find."""

    def mark(faulty: Any) -> Any:
        for check in checks:
            FAULTS.setdefault(check, []).append(faulty)
        return faulty

    return mark


@breaks("judged_before_learned")
class LearnsFirst(MedianMad):
    def expect(self, x: Array) -> tuple[Array, Array]:
        rows = self.remember(x)
        with_itself = np.sort(
            sliding_windows(np.concatenate((rows[1:], rows[:1])), self.window), axis=-1
        )
        seen = (with_itself == with_itself).sum(axis=-1)
        centre, spread = self.gauge(with_itself, seen)
        return np.where(seen < self.least, np.nan, centre), np.where(
            seen < self.least, np.nan, spread
        )


@breaks("state_stops_growing")
class Grows(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        state = self._state
        state["log"] = np.concatenate(
            (state.get("log", np.zeros((0, verdict.score.shape[1]))), verdict.score)
        )
        return verdict


@breaks("chunks_change_no_bit", "the_zero_does_not_matter")
class RunningTotals(RollingZ):
    """The textbook's rolling variance: the difference of two totals, here begun anew in every
    chunk.
    """

    def expect(self, x: Array) -> tuple[Array, Array]:
        kept = self._state["past"]
        rows = np.concatenate((kept, x))
        kept[:] = rows[len(x) :]
        totals = np.nancumsum(np.stack((rows, rows**2, rows == rows)), axis=1)
        totals = np.concatenate((np.zeros((3, 1, x.shape[1])), totals), axis=1)
        with np.errstate(all="ignore"):
            total, squares, n = (totals[:, self.window : -1] - totals[:, : -self.window - 1]) / 1.0
            n = np.where(n < self.least, np.nan, n)
            return total / n, np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))


@breaks("equal_steps_leave_equal_states")
class LeavesTheRest(RollingZ):
    """What is left of a longer part stays beside a shorter one: no score shows it."""

    def _tails(self, offset: int, x: Array) -> tuple[Array, Array]:
        before = self._state["tails"].copy()
        found = super()._tails(offset, x)
        unused = self._state["tails"][0] == 0
        self._state["tails"][:, unused] = before[:, unused]
        return found


@breaks("chunks_change_no_bit", "no_future")
class ScalesByTheChunk(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        top = np.nanmax(verdict.score, initial=1.0)
        return verdict._replace(score=np.minimum(verdict.score * 10 / top, CEILING))


@breaks("no_future", "chunks_change_no_bit")
class ReadsTheNextStep(MedianMad):
    def advance(self, x: Any) -> Verdict:
        score, centre, spread, *_ = super().advance(x)
        score = score.copy()
        score[:-1] = np.maximum(score[:-1], score[1:])
        return Verdict(score, centre, spread)


@breaks("streams_are_strangers")
class LooksAtTheNeighbours(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        if not len(verdict.score):
            return verdict
        return verdict._replace(
            score=verdict.score
            / np.maximum(1, np.nan_to_num(verdict.score).mean(axis=1, keepdims=True) / 10)
        )


@breaks("fit_forgets", "state_is_all_there_is", "looking_leaves_the_state")
class RemembersInSecret(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        self._secret = self.__dict__.get("_secret", 1.0) * 0.5 ** np.count_nonzero(
            verdict.score > 6
        )
        return verdict._replace(score=np.minimum(verdict.score * (1 + self._secret), CEILING))


@breaks("fit_goes_on_learning")
class StopsLearning(MedianMad):
    def fit(self, x: Any) -> Any:
        super().fit(x)
        self._frozen = True
        return self

    def advance(self, x: Any) -> Verdict:
        return self.preview(x) if self.__dict__.pop("_frozen", False) else super().advance(x)


@breaks("looking_leaves_the_state")
class LookingMoves(MedianMad):
    def score(self, x: Any) -> Array:
        return self.update(x)


@breaks("state_is_all_there_is")
class KeepsObjects(MedianMad):
    def begin(self, shape: tuple[int, ...]) -> State:
        return {**super().begin(shape), "notes": np.array([None, "a note"], dtype=object)}


@breaks("foreign_states_are_refused")
class LoadsAnything(MedianMad):
    def _header(self) -> dict[str, Any]:
        return {}


@breaks("input_untouched")
class WritesToTheInput(MedianMad):
    def read(self, values: Any) -> Array:
        x = super().read(values)
        x *= 2
        return x


@breaks("input_untouched")
class KeepsTheInput(MedianMad):
    def remember(self, x: Array, name: str = "past") -> Array:
        rows = super().remember(x, name)
        if len(x) >= self.window:
            self._state[name] = x[-self.window :]
        return rows


@breaks("results_are_given_away")
class HandsOutItsState(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        state = self._state
        state["seen"] = verdict.score
        return verdict


@breaks("same_seed_same_scores")
class DrawsAtRandom(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        return verdict._replace(score=verdict.score * (1 - 1e-9 * np.random.random()))  # noqa: NPY002


@breaks("missing_stays_missing", "no_opinion_at_first")
class SaysZeroForUnknown(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        return verdict._replace(score=np.nan_to_num(verdict.score))


@breaks("nothing_learned_from_missing")
class LearnsMissingAsZero(RollingZ):
    def expect(self, x: Array) -> tuple[Array, Array]:
        return super().expect(np.nan_to_num(x))


@breaks("wrong_shapes_are_refused")
class TakesAnyShape(MedianMad):
    def read(self, values: Any) -> Array:
        x = np.asarray(values, dtype=float)
        return super().read(x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1))


@breaks("wrong_settings_are_refused")
class TakesAnySetting(MedianMad):
    def __post_init__(self) -> None:
        self.state, self._floor = None, np.maximum(self.floor, 0)


@breaks("nothing_is_something")
class FallsOverNothing(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        return verdict if len(verdict.score) else Verdict(np.zeros((1, verdict.score.shape[1])))


@breaks("three_is_rare")
class Shouts(MedianMad):
    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        centre, spread = super().gauge(ordered, seen)
        return centre, spread / 1.4826


@breaks("three_is_rare")
class Whispers(MedianMad):
    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        centre, spread = super().gauge(ordered, seen)
        return centre, spread * 1.4826


@breaks("scores_are_deviations")
class KeepsTheSign(MedianMad):
    def sided(self, deviation: Array) -> Array:
        return deviation


@breaks("the_unit_does_not_matter")
class AddsAnEpsilon(MedianMad):
    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        centre, spread = super().gauge(ordered, seen)
        return centre, spread + 1e-10


@breaks("a_spike_is_caught")
class HasAPoorScale(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        return verdict._replace(score=np.minimum(verdict.score, 2.9))


@breaks("the_unwatched_side_is_quiet")
class WatchesBothSides(MedianMad):
    def sided(self, deviation: Array) -> Array:
        return np.abs(deviation)


@breaks("a_floor_is_believed")
class IgnoresTheFloor(MedianMad):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._floor = np.maximum(0.0, 1e-150)


@breaks("constant_is_calm")
class AlarmsOnNoSpread(MedianMad):
    def advance(self, x: Any) -> Verdict:
        score, centre, spread, *_ = super().advance(x)
        return Verdict(np.where(spread < 1e-100, CEILING, score), centre, spread)


@breaks("one_quantum_up_is_accepted", "a_lasting_shift_is_accepted")
class NeverAccepts(MedianMad):
    def expect(self, x: Array) -> tuple[Array, Array]:
        out = np.empty((2, *x.shape))
        for t, row in enumerate(x):
            centre, spread = out[:, t] = self.gauge_now()
            strange = np.abs(row - centre) > 3 * spread
            self.remember(np.where(strange, centre, row)[None])
        return out[0], out[1]

    def gauge_now(self) -> Array:
        past = np.sort(self._state["past"].T, axis=-1)
        seen = (past == past).sum(axis=-1)
        return np.where(seen < self.least, np.nan, np.stack(self.gauge(past, seen)))


@breaks("a_glitch_at_the_start_is_forgotten")
class TakesGlitchesAsTheyCome(Cusum):
    def update(self, x: Any) -> Array:
        return Cusum.advance.__wrapped__(self, x).score  # type: ignore[attr-defined]


@breaks("a_glitch_at_the_start_is_forgotten")
class RemembersGlitchesForEver(Novelty):
    def update(self, x: Any) -> Array:
        return Novelty.advance.__wrapped__(self, x).score  # type: ignore[attr-defined]


@breaks("a_glitch_at_the_start_is_forgotten")
class IsSilentAfterAGlitch(MedianMad):
    def update(self, x: Any) -> Array:
        gone = np.maximum.accumulate(np.abs(x) > 1e4, axis=0)
        return np.where(gone, np.nan, super().update(x))


@breaks("a_shift_at_the_start_is_learned")
class HoldsBackForEver(MedianMad):
    """What lies far from the first 32 values is a glitch, however many they are."""

    def expect(self, x: Array) -> tuple[Array, ...]:
        state = self._state
        if "first" not in state:
            state["first"] = np.median(x[:32], axis=0)
        return super().expect(np.where(np.abs(x - state["first"]) > 100, state["first"], x))

    def advance(self, x: Any) -> Verdict:
        centre, spread = self.expect(x := self.read(x))
        return Verdict(np.minimum(np.abs(x - centre) / np.maximum(spread, 1e-150), CEILING))


@breaks("a_long_ramp_is_one_alarm")
class PilesUpForEver(Cusum):
    MOST = 1e9


@breaks("few_values_that_return_are_no_chaos")
class TellsApartByRounding(Subspace):
    FAINT = 0.0


@breaks("explanations_add_up")
class ExplainsBadly(MedianMad):
    def advance(self, x: Any) -> Verdict:
        verdict = super().advance(x)
        return verdict._replace(parts=verdict.score[..., None] / 2)


@breaks("bounds_bound")
class DrawsANarrowBand(MedianMad):
    def advance(self, x: Any) -> Verdict:
        score, centre, spread, *_ = super().advance(x)
        return Verdict(score, centre, None if spread is None else spread / 2)


@pytest.mark.parametrize(
    ("name", "faulty"),
    [(name, faulty) for name, classes in FAULTS.items() for faulty in classes],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_the_check_finds_the_fault(name: str, faulty: type[Detector]) -> None:
    check = next(check for check in contract.CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError):
        check(faulty)


@pytest.mark.parametrize("settings", [{"pause": 0}, {"growth": 1.0}, {"refractory": 1, "pause": 0}])
def test_the_check_of_ramps_finds_a_faulty_alarm(
    settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "Alarm", partial(Alarm, **settings))
    with pytest.raises(AssertionError, match="a slope of"):
        contract.a_long_ramp_is_one_alarm(DETECTORS["spectral residual"])


def test_every_check_has_caught_a_fault() -> None:
    assert {check.__name__ for check in contract.CHECKS} == set(FAULTS)


def test_check_runs_them_all() -> None:
    contract.check(MedianMad)
    with pytest.raises(AssertionError, match="state grows"):
        contract.check(Grows)
