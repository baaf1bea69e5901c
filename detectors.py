"""Detectors: each scores every step of its streams against their past, in standard deviations, then
learns it.

A detector is a dataclass of settings with one method of its own, `advance` (or `expect`, for those
that predict a value); `Detector` gives the rest. The definitions, one number at a time, stand in
tests/twins.py; the promises every detector keeps stand in tests/contract.py.
"""

from __future__ import annotations

import json
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np

from redline.detection.arrays import (
    CACHE_CELLS,
    FEW_STREAMS,
    MEDIAN_ABS_GAUSSIAN,
    P90_ABS_GAUSSIAN,
    TINY,
    Array,
    cache_tiles,
    centre_and_spread,
    concatenate_parts,
    count_known,
    first_known,
    kth_smallest_distance,
    last_known,
    merge_moments,
    moments,
    rank_quantile,
    rank_windows,
    rolling_max,
    running_reduce,
    shift_moments,
    sliding_windows,
    sums_before,
)

# standard deviations: the highest score there is, and the score of any deviation where nothing ever
# moved
CEILING = 100.0
# a value beyond it, infinity too, is no measurement and counts as missing: its square must still be
# a number
LARGEST_VALUE = 1e100
STATE_FORMAT = 3  # of saved states; another one is refused
NO_STATE = (
    "{} is no state: wanted a file that save() of {} wrote, got {}; save it again, or "
    "begin anew with fit()"
)
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    MemoryError,
    OSError,
    BadZipFile,
    zlib.error,
)  # raised of any other file
JUDGED = (
    32,
    64,
    128,
)  # steps after which all values so far are judged for glitches; later ones never are
GLITCHES = 3  # values; more of them are no glitches
GLITCH = 10.0  # times the largest distance of all others from the median
State = dict[str, Array]
Direction = Literal["both", "high", "low"]


class Verdict(NamedTuple):
    """What `advance` says of each step of a chunk."""

    score: Array  # (steps, streams), standard deviations >= 0, NaN = no opinion
    centre: Array | None = (
        None  # (steps, streams), the value expected, in the data's unit; None = no band
    )
    spread: Array | None = (
        None  # (steps, streams), one believable deviation, in the data's unit; None = no band
    )
    parts: Array | None = (
        # (steps, streams, features), they add up to score; None = one feature, the score itself
        None
    )


class Transducer(ABC):
    """Something with a past: it turns a chunk into as many steps, moves its state, and its state is
    named arrays, nothing else.

    `read` takes the input in and makes the state at first sight; `pieces` cuts it where learning
    happens at absolute steps.
    """

    joint: ClassVar[bool] = (
        False  # looks across the features of a stream: x is (steps, streams, features)
    )
    state: State | None

    @abstractmethod
    def begin(self, shape: tuple[int, ...]) -> State:
        """The state before the first step; shape is (streams,) or, for a joint one, (streams,
        features).
        """

    def read(self, values: Any) -> Array:
        """The input as floats of the right shape, NaN = missing; a ValueError says what was wanted,
        what came, what to do.
        """
        x: Array = np.asarray(values, dtype=np.float64)
        if self.joint and x.ndim == 2:
            x = x[..., None]  # one feature
        wanted = "(steps, streams, features)" if self.joint else "(steps, streams)"
        if x.ndim != 2 + self.joint:
            raise ValueError(
                f"{type(self).__name__} wants {wanted}, got the shape {x.shape}; one "
                "stream of plain values is x[:, None]"
            )
        if self.state is None:
            self.state = self._begun(x.shape[1:])
        if self.state["shape"].tolist() != [*x.shape[1:]]:
            began = tuple(self.state["shape"].tolist())
            raise ValueError(
                f"{type(self).__name__} began with {began} as {wanted[8:]}, got "
                f"{x.shape[1:]}; use a new one, or fit() to begin again"
            )
        if (
            np.vdot(x, x) <= LARGEST_VALUE
        ):  # so none is larger or missing; one pass, and most often the only one
            return x
        known = np.abs(x) <= LARGEST_VALUE  # false for a NaN too
        return x if np.count_nonzero(known) == x.size else np.where(known, x, np.nan)

    def _begun(self, shape: tuple[int, ...]) -> State:
        """The whole state before the first step."""
        return {"step": np.array(0), "shape": np.array(shape), **self.begin(shape)}

    def pieces(self, x: Array, block: int, most: int = 1) -> Iterator[tuple[int, Array]]:
        """(offset in its block, rows): x cut at the absolute multiples of `block` steps, up to
        `most` whole blocks together; moves the clock.
        """
        clock = self._state["step"]
        while True:
            offset = int(clock) % block
            size = (
                min(len(x) // block, most) * block
                if not offset and len(x) >= block
                else block - offset
            )
            piece = x[:size]
            x = x[size:]
            yield offset, piece
            clock += len(piece)
            if not len(x):
                return

    def remember(self, x: Array, name: str = "past") -> Array:
        """The rows kept under that name in the state and then x, (kept + steps, ...); as many as
        before, the last, are kept on.
        """
        state = self._state
        rows = np.concatenate((state[name], x))
        state[name] = rows[len(x) :].copy()
        return rows

    @property
    def _state(self) -> State:
        if self.state is None:
            raise ValueError(
                f"{type(self).__name__} has no state yet: give it some steps first, "
                "with update() or fit()"
            )
        return self.state

    def save(self, path: str | Path) -> None:
        """Write settings and state as .npz, without pickle; `load` carries on from there to the
        bit.
        """
        with open(path, "wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                **{"_header": np.array(json.dumps(self._header())), **self._state},
            )

    def load(self, path: str | Path) -> Self:
        """Take the state written by `save`; what is none, or one of another detector, other
        settings or another version is a ValueError.
        """
        with open(path, "rb") as file:
            try:
                state = dict(np.load(file, allow_pickle=False))
                header = dict(json.loads(str(state.pop("_header"))))
            except UNREADABLE as error:
                raise ValueError(
                    NO_STATE.format(path, type(self).__name__, "one that cannot be read as such")
                ) from error
        for what, mine in self._header().items():
            if (came := header.get(what)) != mine:
                raise ValueError(
                    f"{path} holds a state with {what} {came!r}, wanted {mine!r}; load "
                    "it into a detector made like the saved one"
                )
        if not self._fits(state):
            raise ValueError(
                NO_STATE.format(
                    path,
                    type(self).__name__,
                    f"one with other arrays, or of other shapes: {', '.join(state) or 'none'}",
                )
            )
        self.state = state
        return self

    def _fits(self, state: State) -> bool:
        """Whether all that a state begins with is there, of the same shapes and types; a member's
        arrays come later.
        """
        shape = state.get("shape", np.zeros(0))
        if shape.shape != (1 + self.joint,) or shape.dtype.kind != "i" or shape.min() < 0:
            return False
        begun = self._begun(tuple(shape.tolist()))
        if "early" in state:
            begun |= {"early": np.zeros((JUDGED[-1], *shape)), "seen_early": np.array(0)}
        mine = {name: (value.shape, value.dtype) for name, value in state.items()}
        return (
            mine.items()
            >= {name: (value.shape, value.dtype) for name, value in begun.items()}.items()
        )

    def _header(self) -> dict[str, Any]:
        settings = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        plain: dict[str, Any] = json.loads(
            json.dumps(
                {"detector": type(self).__name__, "format": STATE_FORMAT, "settings": settings},
                default=repr,
            )
        )
        return plain

    def inside(self, name: str, member: Transducer) -> Within:
        """`with self.inside("level", member): ...` lets a member work on the part of this state
        that bears its name.
        """
        return Within(self, name, member)


class Within:
    """A member's state is the part of its owner's whose names begin with the member's name and a
    dot.
    """

    def __init__(self, owner: Transducer, name: str, member: Transducer) -> None:
        self.owner = owner
        self.prefix = name + "."
        self.member = member

    def __enter__(self) -> None:
        state = self.owner._state
        n = len(self.prefix)
        self.member.state = {
            key[n:]: state[key] for key in state if key.startswith(self.prefix)
        } or None

    def __exit__(self, *error: object) -> None:
        self.owner._state.update(
            {self.prefix + key: value for key, value in (self.member.state or {}).items()}
        )
        self.member.state = None


@dataclass
class Detector(Transducer):
    """A streaming transducer: each step is scored against the past, then learned.

    x       (steps, streams) or, for a joint detector, (steps, streams, features), floats, NaN = missing
    scores  (steps, streams), floats >= 0 in standard deviations, higher = more anomalous, NaN = no opinion

    Cutting x into other chunks changes no bit of the scores. A glitch among the first values is
    forgotten by step 128 (`with_robust_start`). A new detector writes `begin` (its state) and
    `advance`, and a line in DETECTORS.
    """  # noqa: E501

    window: int = 120  # steps of past that count; a missing step is a step
    floor: float | tuple[float, ...] = (
        0.0  # smallest believable spread, the data's unit, one for all streams or one each
    )
    direction: Direction = "both"  # which side is anomalous

    def __init_subclass__(cls, **options: Any) -> None:
        """Give every `advance` a robust start."""
        super().__init_subclass__(**options)
        if "advance" in vars(cls):
            cls.advance = with_robust_start(cls.advance)  # type: ignore[assignment, method-assign]

    def __post_init__(self) -> None:
        self.state = None
        if self.window < 2:
            raise ValueError(f"window is at least 2 steps, got {self.window}")
        if self.direction not in ("both", "high", "low"):
            raise ValueError(f'direction is "both", "high" or "low", got {self.direction!r}')
        if not np.all(np.asarray(self.floor) >= 0):
            raise ValueError(f"floor is a spread of 0 or more in the data's unit, got {self.floor}")
        self._floor = np.maximum(self.floor, TINY)

    @property
    def least(self) -> int:
        """Values that must have been seen within the window before there is an opinion: half of
        it.
        """
        return max(2, (self.window + 1) // 2)

    @abstractmethod
    def advance(self, x: Any) -> Verdict:
        """Score each step against the past, then learn it: the one verb that moves the state."""

    def update(self, x: Any) -> Array:
        """The scores of x, each step judged before it is learned."""
        return self.advance(x).score

    def fit(self, x: Any) -> Self:
        """Forget everything, then learn the history x; it keeps learning afterwards."""
        self.state = None
        self.advance(x)
        return self

    def score(self, x: Any) -> Array:
        """The scores update(x) would give, the state untouched."""
        return self.preview(x).score

    def predict(self, x: Any, threshold: float = 3.0) -> Array:
        """score(x) > threshold; never True where there is no opinion."""
        flags: Array = self.score(x) > threshold
        return flags

    def bounds(self, x: Any, threshold: float = 3.0) -> tuple[Array, Array] | None:
        """(low, high) between which each step of x would score at most the threshold, an unwatched
        side at infinity; None without a band.
        """
        _, centre, spread, _ = self.preview(x)
        if centre is None or spread is None:
            return None
        reach = threshold * spread  # (steps, streams), the data's unit
        low = np.full_like(centre, -np.inf) if self.direction == "high" else centre - reach
        high = np.full_like(centre, np.inf) if self.direction == "low" else centre + reach
        return low, high

    def explain(self, x: Any) -> Array:
        """How much of each score each feature carries, (steps, streams, features); they add up to
        score(x).
        """
        score, _, _, parts = self.preview(x)
        return score[..., None] if parts is None else parts

    def preview(self, x: Any) -> Verdict:
        """The verdict advance(x) would give, the state untouched."""
        kept = self.state
        self.state = None if kept is None else {name: value.copy() for name, value in kept.items()}
        try:
            return self.advance(x)
        finally:
            self.state = kept

    def sided(self, deviation: Array) -> Array:
        """How far a deviation lies to the watched side, >= 0."""
        if self.direction == "both":
            return np.abs(deviation)
        return np.maximum(deviation if self.direction == "high" else -deviation, 0.0)


def with_robust_start(advance: Callable[[Any, Any], Verdict]) -> Callable[[Any, Any], Verdict]:
    """Return an `advance` whose first values are judged for glitches after the steps JUDGED.

    Where others are found than before, it forgets all and learns the steps so far anew, glitches
    missing. Until the last of these steps the values lie in the state as `early`, and how many
    steps they are as `seen_early`; a start without a glitch is scored as if it were not judged.
    """

    @wraps(advance)
    def robust(self: Detector, x: Any) -> Verdict:
        if self.state is not None and "early" not in self.state:
            return advance(self, x)  # the start is over, or an outer `advance` sees to it
        begins = self.state is None
        x = self.read(x)
        shape = (JUDGED[-1], *x.shape[1:])
        early = np.full(shape, np.nan) if begins else self._state.pop("early")
        clock = 0 if begins else int(self._state.pop("seen_early"))  # not all detectors move `step`
        early[clock : clock + len(x)] = x[: len(early) - clock]
        # steps
        verdicts = []
        done = 0
        for end, found in _other_glitches(early, clock, clock + len(x)):
            verdicts.append(advance(self, x[done : end - clock]))
            done = end - clock
            self.state = self._begun(x.shape[1:])
            advance(self, np.where(found, np.nan, early[:end]))
        if done < len(x) or not verdicts:
            verdicts.append(advance(self, x[done:]))
        if clock + len(x) < len(early):
            self._state.update(early=early, seen_early=np.array(clock + len(x)))
        return verdicts[0] if len(verdicts) == 1 else _one_verdict(verdicts)

    return robust


def _one_verdict(verdicts: list[Verdict]) -> Verdict:
    columns: list[Any] = [
        None if column[0] is None else np.concatenate(column) for column in zip(*verdicts)
    ]
    return Verdict(*columns)


def _other_glitches(early: Array, clock: int, now: int) -> Iterator[tuple[int, Array]]:
    """Yield (end, glitches of the first `end` values) where they are others than known before.

    Only the ends in JUDGED after step `clock` and up to step `now` are looked at.
    """
    known = None
    for before, end in pairwise((0, *JUDGED)):
        if clock < end <= now:
            known = glitches(early[:before]) if known is None else known
            found = glitches(early[:end])
            if found[before:].any() or (found[:before] != known).any():
                yield end, found
            known = found


def glitches(x: Array) -> Array:
    """Return which of the first values, (steps, ...), are glitches: missing values are none.

    Few values, GLITCHES and one in 16 of those seen at most, each GLITCH times as far from the
    median as any other value. None where all others are equal: there is no unit to measure in.
    """
    found = np.zeros(x.shape, bool)
    suspect = maybe_glitches(x) if len(x) >= 16 else np.zeros(x.shape[1:], bool)
    if not suspect.any():
        return found
    x = x[:, suspect]  # (steps, suspects)
    ordered = np.sort(x.T, axis=-1)
    seen = count_known(ordered)
    away = np.nan_to_num(np.abs(x - rank_quantile(ordered, seen, 0.5)))
    far = np.sort(away, axis=0)[::-1]  # the farthest first
    limit = np.full(x.shape[1], np.inf)
    for few in range(1, min(GLITCHES, len(x) // 16) + 1):
        apart = (far[few - 1] > GLITCH * far[few]) & (far[few] > 0) & (16 * few <= np.asarray(seen))
        limit = np.where(apart, far[few - 1], limit)
    found[:, suspect] = away >= limit
    return found


def maybe_glitches(x: Array) -> Array:
    """Return where `glitches` could find any, (...), from x (steps, ...), at a fraction of its
    cost.

    The median of the first seven values is no glitch. Seen from it, all but the glitches lie within
    2 / (GLITCH - 1) of the distance of the farthest.
    """
    ordered = np.sort(x[: 2 * GLITCHES + 1], axis=0)
    centre = np.where(ordered[-1] == ordered[-1], ordered[GLITCHES], np.nan)
    away = np.abs(x - centre)
    beyond = away >= 0.3 * np.fmax.reduce(away, axis=0)
    few: Array = np.add.reduce(beyond, axis=0, dtype=np.int64) <= GLITCHES
    return few  # true too where one of the seven is missing


@dataclass
class Expecting(Detector):
    """A detector that predicts each value: it writes `expect`, and its score is |x - centre| /
    spread.
    """

    @abstractmethod
    def expect(self, x: Array) -> tuple[Array, ...]:
        """(centre, spread), both (steps, streams) in the data's unit, of each step from those
        before it; NaN = not enough past. Then learn x.

        The spread is an array of its own, neither state nor a view: it is raised to the floor in
        place.
        """

    def advance(self, x: Any) -> Verdict:
        """Score by the distance from what was expected."""
        x = self.read(x)
        if not len(x):
            return Verdict(x, x, x)
        centre, spread = self.expect(x)
        score = np.empty_like(x)
        floor = np.broadcast_to(self._floor, x.shape)
        for near in cache_tiles(x.shape, 2):
            away = self.sided(x[near] - centre[near])
            away /= np.maximum(spread[near], floor[near], out=spread[near])  # NaN stays NaN
            np.minimum(away, CEILING, out=score[near])
        return Verdict(score, centre, spread)


def threshold_for(scores: Any, contamination: float = 0.05) -> float:
    """The threshold above which that share of the scores lies; steps without an opinion do not
    count.

    >>> threshold_for([np.nan, 1.0, 2.0, 3.0, 4.0], contamination=0.25)
    3.0
    """
    if not 0 < contamination < 1:
        raise ValueError(
            f"contamination is a share of the steps between 0 and 1, got {contamination}"
        )
    known = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    known = known[: np.count_nonzero(known == known)]
    if not len(known):
        raise ValueError("no step has a score yet: give the detector more past first")
    return float(known[max(0, len(known) - 1 - int(contamination * len(known)))])


@dataclass
class Calibration(Transducer):
    """Any raw score >= 0 on the one scale: its past median becomes 0.67 and its 90th
    percentile 1.64, as for |z|, and the tail is that line.

    `update(raw)` scores, then learns, over the last `window` learned values, renewed every window /
    8 steps. It freezes while its score is above `level`, but at most for `window` steps: a long
    anomaly stays visible, a lasting change is at last accepted. Nothing is counted in the tail, so
    its height has no limit below CEILING. When it fails: a raw score with a tail heavier than a
    Gaussian's alarms too often; take its square root or logarithm first. Cost: one sort of the
    window in window / 8 steps.
    """

    window: int = 120  # steps
    level: ClassVar[float] = 3.0  # standard deviations; never the slider's
    FAINT: ClassVar[float] = (
        1e-9  # of the median: raw scores that differ by less, differs by rounding
    )

    def __post_init__(self) -> None:
        self.state = None

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last steps as learned, NaN = not; the line (median, unit); the last step that was
        calm.
        """
        return {
            "past": np.full((self.window, *shape), np.nan),
            "line": np.full((2, *shape), np.nan),
            "calm": np.zeros(shape, int),
        }

    def update(self, raw: Any) -> Array:
        """Standard deviations, same shape; NaN where raw is, and before half a window was seen."""
        x = self.read(raw)
        return np.concatenate(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self._block)]
        )

    @property
    def _block(self) -> int:
        return max(1, self.window // 8)

    def _piece(self, offset: int, raw: Array) -> Array:
        state, (median, unit) = self._state, self._state["line"]
        score: Array = np.clip(MEDIAN_ABS_GAUSSIAN + (raw - median) / unit, 0.0, CEILING)
        step = np.arange(len(raw))[:, None] + state["step"]
        calm = np.concatenate(
            (state["calm"][None], np.where(score > self.level, 0, step))
        )  # (1 + steps, streams), the step of the last calm
        running_reduce(np.maximum, calm)
        self.remember(
            np.where(
                step - calm[1:] <= 0, raw, np.where(step - calm[1:] > self.window, raw, np.nan)
            )
        )
        state["calm"] = calm[-1]
        if offset + len(raw) == self._block:
            self._renew()
        return score

    def _renew(self) -> None:
        # (streams, window)
        state = self._state
        ordered = np.sort(np.moveaxis(self._state["past"], 0, -1), axis=-1)
        seen = count_known(ordered)
        median = rank_quantile(ordered, seen, 0.5)
        high = rank_quantile(ordered, seen, 0.9)
        line = np.stack(
            (
                median,
                np.maximum(np.maximum(high - median, self.FAINT * median), TINY)
                / (P90_ABS_GAUSSIAN - MEDIAN_ABS_GAUSSIAN),
            )
        )
        state["line"] = np.where(seen >= (self.window + 1) // 2, line, state["line"])


@dataclass
class Alarm(Transducer):
    """When to call someone: `update(scores)` gives the score where an alarm may be raised, 0 where
    it is held back, NaN where there is none.

    Refractory: only a record of the last `refractory` steps passes. Renewal: an alarm goes on until
    the score has been under `quiet` for `pause` steps, and meanwhile only what is `growth` times as
    high passes, as what last passed or as all of the refractory steps. Habituation: what passes is
    divided by 1 + the number of peaks at least as high that passed before over `habit` (so many
    halve the next), each forgotten over `memory` steps. Records under `quiet` pass as they are,
    uncounted. No threshold is needed here; it comes last. Cost: about 100 ns per step, 20
    microseconds per alarm. When it fails: a second, lower event within the refractory steps is not
    reported.

    >>> Alarm().update([[0.5], [9.0], [9.5], [3.0], [0.1]]).ravel()
    array([0.5, 9. , 0. , 0. , 0. ])
    """

    refractory: int = 60  # steps
    pause: int = 25  # steps
    growth: float = 2.0  # ratio of scores
    memory: int = 1000  # steps
    # peaks; ten of the loudest surprise a thousand steps still call at the default threshold
    habit: float = 8.0
    quiet: float = 2.5  # standard deviations
    bins: ClassVar[int] = 32  # of the histogram of peaks, by ratio from `quiet` to CEILING

    def __post_init__(self) -> None:
        self.state = None
        if (
            min(self.refractory, self.pause, self.memory - 1, self.growth - 1) < 0
            or not 0 < self.quiet < CEILING
        ):
            raise ValueError(
                "refractory and pause are 0 or more, memory and growth 1 or more, "
                f"quiet between 0 and {CEILING:g}, got {self}"
            )
        if not self.habit > 0:
            raise ValueError(f"habit is a number of peaks above 0, got {self.habit}")

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last scores, the last loud step, how high the present alarm last passed, and the
        peaks so far.
        """
        return {
            "past": np.zeros((max(1, self.refractory), *shape)),
            "loud": np.full(shape, -self.pause - 1),
            "rise": np.zeros(shape),
            "peaks": np.zeros((self.bins, *shape)),
            "counted": np.zeros(shape, int),
        }

    def update(self, scores: Any) -> Array:
        """The alarm scores of these scores, same shape."""
        scores = self.read(scores)
        state = self._state
        steps = len(scores)
        before = rolling_max(self.remember(np.nan_to_num(scores)), len(state["past"]))[:steps] * (
            self.refractory > 0
        )  # of the refractory steps
        loud = scores >= self.quiet
        clock = state["step"] + np.arange(steps)[:, None]
        last = running_reduce(
            np.maximum,
            np.concatenate((state["loud"][None], np.where(loud, clock, -self.pause - 1))),
        )
        growth = np.where(clock - last[:-1] <= self.pause, self.growth, 0.0)  # 0 = no alarm goes on
        alarms: Array = np.where((scores > before) | np.isnan(scores), scores, 0.0)
        for step in np.flatnonzero((loud & (alarms > 0)).any(axis=1)):
            streams = np.flatnonzero(loud[step] & (alarms[step] > 0))
            wanted = growth[step, streams] * np.minimum(state["rise"], before[step])[streams]
            alarms[step, streams] = self._passed(
                int(clock[step, 0]), scores[step, streams], scores[step, streams] >= wanted, streams
            )
        state["loud"] = last[-1].copy()  # or the whole chunk would stay with it
        state["step"] += steps
        return alarms

    def _passed(self, now: int, scores: Array, passing: Array, streams: Array) -> Array:
        """The alarm scores of records at one step, in some of the streams."""
        state = self._state
        alarms = np.where(passing, scores, 0.0)
        streams = streams[passing]
        state["rise"][streams] = scores[passing]
        place = np.log(scores[passing] / self.quiet) / np.log(CEILING / self.quiet) * self.bins
        place = np.clip(place.astype(int), 0, self.bins - 1)
        peaks = state["peaks"][:, streams] * np.exp(
            (state["counted"][streams] - now) / self.memory
        )  # (bins, streams)
        as_high = running_reduce(
            np.add, np.where(np.arange(self.bins)[:, None] >= place, peaks, 0.0)
        )[-1]  # in one order, however many streams
        alarms[passing] /= 1 + as_high / self.habit
        peaks[place, np.arange(len(streams))] += 1
        state["peaks"][:, streams], state["counted"][streams] = peaks, now
        return alarms


@dataclass
class RollingZ(Expecting):
    """How many standard deviations from the mean of the last `window` steps.

    z = |x - mean| / std, both over the steps before x. Cost: constant per step, whatever the
    window; 2 numbers per step of the window and stream. When it fails: an outlier inside the window
    widens the band for a whole window and hides the next; a season longer than the window is
    an anomaly. Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product, 1931;
    the joining of blocks: T. Chan, G. Golub, R. LeVeque, Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances, 1979.

    >>> z = RollingZ(window=4)
    >>> z.update([[1.0], [3.0], [1.0], [3.0], [7.0]]).ravel()
    array([       nan,        nan, 1.        , 1.41421356, 5.        ])
    """

    # Steps are cut into blocks of `window` at absolute multiples. The window before a step is what
    # is left of the block before (the "tail") and the
    # beginning of its own (the "head"). Heads are summed as steps come. Tails are summed backwards
    # from the block's end: when a block closes only the
    # sums at every `_part` steps are kept (the "marks"), those between are made again, part by
    # part, when needed. Nothing is ever subtracted from a
    # sum, so nothing outlives the window. Anchors: the tail's is its block's last value, the head's
    # is its first; each is one of what it anchors.

    @property
    def _part(self) -> int:
        return math.isqrt(self.window - 1) + 1  # steps

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last values by their place in the block, the sums at the marks and in the present
        part, the head, and both anchors.
        """
        parts = -(-self.window // self._part)
        sums = {"marks": (3, parts + 1), "tails": (3, self._part), "head": (3,), "anchors": (2,)}
        return {
            "past": np.full((self.window, *shape), np.nan),
            **{name: np.zeros((*size, *shape)) for name, size in sums.items()},
        }

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Mean and standard deviation of the window before each step."""
        most = max(1, CACHE_CELLS // (self.window * max(1, x.shape[1])))
        return concatenate_parts(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.window, most)]
        )

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        state = self._state
        size = min(len(rows), self.window)
        x = rows.reshape(-1, size, rows.shape[1])  # (blocks, steps, streams)
        tails, old = self._tails(
            offset, x
        )  # (3, blocks, steps, streams), their anchors (blocks, streams)
        new = state["anchors"][1:]
        fresh = state["head"][0] == 0
        if begins := np.count_nonzero(fresh):
            new = np.where(fresh, first_known(x), new)  # (blocks, streams)
        before = (
            state["head"][:, None] if len(x) == 1 else np.zeros((3, len(x), x.shape[2]))
        )  # whole blocks start with nothing
        m = moments(x, new[:, None])
        heads = sums_before(before, m)
        anchor = np.where(heads[0] > 0, new[:, None], old[:, None]) if begins else new[:, None]
        centre, spread = centre_and_spread(
            merge_moments(heads, shift_moments(tails, old[:, None] - anchor)), anchor, self.least
        )
        state["anchors"][1] = new[-1]
        np.add(heads[:, -1, -1], m[:, -1, -1], out=state["head"])
        state["past"][offset : offset + size] = x[-1]
        if offset + size == self.window:
            self._close()
        return centre.reshape(rows.shape), spread.reshape(rows.shape)

    def _tails(self, offset: int, x: Array) -> tuple[Array, Array]:
        """The moments of what is left of the block before, for each step, and their anchors."""
        state = self._state
        first = offset // self._part
        last = (offset + x.shape[1] - 1) // self._part
        if offset % self._part == 0 or last > first:
            parts = [self._sums(part) for part in range(first, last + 1)]
            state["tails"][:, : parts[-1].shape[1]] = parts[-1]
            tails = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        else:
            tails = state["tails"]
        start = offset - first * self._part
        tails = tails[:, None, start : start + x.shape[1]]
        anchors = state["anchors"][:1]
        if len(x) == 1:
            return tails, anchors
        anchors = np.concatenate((anchors, first_known(x[:-1, ::-1])))
        return np.concatenate(
            (
                tails,
                running_reduce(np.add, moments(x[:-1], anchors[1:, None])[..., ::-1, :])[
                    ..., ::-1, :
                ],
            ),
            axis=1,
        ), anchors

    def _sums(self, part: int, near: slice = slice(None)) -> Array:
        """The moments of all from each step of a part to the end of its block, (3, steps,
        streams).
        """
        state = self._state
        steps = slice(part * self._part, (part + 1) * self._part)
        m = moments(state["past"][steps, near], state["anchors"][0, near])
        m[:, -1] += state["marks"][:, part + 1, near]
        return running_reduce(np.add, m[:, ::-1])[:, ::-1]

    def _close(self) -> None:
        """The block is full: the head begins anew, and the marks are set for the block that
        follows.
        """
        state = self._state
        state["head"][:] = 0.0
        state["anchors"][0] = last_known(state["past"], state["anchors"][0])
        width = max(1, CACHE_CELLS // self._part)  # streams at once
        for i in range(0, state["past"].shape[1], width):
            near = slice(i, i + width)
            for part in reversed(range(state["marks"].shape[1] - 1)):
                state["marks"][:, part, near] = self._sums(part, near)[:, 0]


@dataclass
class Ewma(Expecting):
    """How many standard deviations from an exponentially weighted mean, both weighted by age.

    Weights decay**age, decay = 1 - 2 / (window + 1), missing steps weighing nothing. Cost: constant
    per step; 4 numbers per stream, the least of all. When it fails: a steady slope biases the mean
    by half a window of it, and a huge spike stays in the spread for several windows. Source: S. W.
    Roberts, Control Chart Tests Based on Geometric Moving Averages, 1959; J. M. Lucas, M. S.
    Saccucci, Exponentially Weighted Moving Average Control Schemes, 1990.

    >>> Ewma(window=4).update([[1.0], [3.0], [1.0], [3.0], [7.0]]).ravel().round(3)
    array([  nan,   nan, 1.291, 1.506, 4.906])
    """

    # The weights grow instead of the past shrinking: plain running sums of weight * moment, brought
    # back to 1 at absolute multiples of `_block`.

    def __post_init__(self) -> None:
        super().__post_init__()
        decay = 1 - 2 / (self.window + 1)
        self._block = (
            8 * self.window
        )  # steps; a jump seen from an anchor across it still leaves 9 digits by the block's end
        self._weights = (
            decay ** -np.arange(self._block + 1.0)[:, None]
        )  # (block + 1, 1), of the step at each offset
        self._enough = (
            decay * (1 - decay**self.least) / (1 - decay) * (1 - 1e-9)
        )  # the weight of `least` values in a row, one step later

    def begin(self, shape: tuple[int, ...]) -> State:
        """The weighted moments and their anchor."""
        return {"sums": np.zeros((3, *shape)), "anchor": np.zeros(shape)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Weighted mean and standard deviation of all steps before each step."""
        out = np.empty((2, *x.shape))
        for offset, steps, near in self._cachefuls(x):
            self._piece(offset, x[steps, near], near, out[:, steps, near])
        return out[0], out[1]

    def _cachefuls(self, x: Array) -> Iterator[tuple[int, slice, slice]]:
        """(offset in its block, steps, streams) of all of x; a block is closed after its last."""
        end = 0
        for offset, rows in self.pieces(x, self._block):
            steps = slice(end, end := end + len(rows))
            for _, near in cache_tiles((1, x.shape[1]), 2 * len(rows)):
                yield offset, steps, near
            if offset + len(rows) == self._block:
                self._close()

    def _piece(
        self, offset: int, rows: Array, near: slice, out: Array | tuple[Array, Array]
    ) -> None:
        """Centre and spread of some streams into `out`, (2, steps, streams), their sums moved
        on.
        """
        sums = self._state["sums"][:, near]
        anchor = self._state["anchor"][near]
        weights = self._weights[offset : offset + len(rows)]
        fresh = sums[0] == 0
        if np.count_nonzero(fresh):
            np.copyto(anchor, first_known(rows[None])[0], where=fresh)
        m = moments(rows, anchor, weights)
        before = sums_before(sums, m)
        centre_and_spread(before, anchor, self._enough * weights, out)
        np.add(before[:, -1], m[:, -1], out=sums)

    def _close(self) -> None:
        """Move the anchor to the mean and bring the weights back to 1."""
        state = self._state
        n, total, _ = state["sums"]
        anchor = state["anchor"] + np.divide(total, n, out=np.zeros_like(n), where=n > 0)
        state["sums"] = (
            np.stack(shift_moments(state["sums"], state["anchor"] - anchor)) / self._weights[-1]
        )
        state["anchor"] = anchor


@dataclass
class Cusum(Ewma):
    """How far small deviations to one side have piled up: a shift too small for any single step to
    show.

    S = max(0, S + z - slack) to each side, at most MOST, z = (x - mean) / std from the
    exponentially weighted past and at most LIMIT; score = sqrt(RATE * max S), a fixed map that
    makes the exponential tail of S Gaussian. Cost: constant per step. It has no band: S is not a
    value. When it fails: after a shift it alarms until S has run down, 60 steps at most; it says
    where a run ended, not which step was anomalous. Source: E. S. Page, Continuous Inspection
    Schemes, 1954.

    >>> bool(Cusum(window=40).update(np.r_[np.tile([0.0, 1.0], 100), np.tile([1.0, 2.0], 10)][:, None])[-1] > 3)
    True
    """  # noqa: E501

    slack: float = 0.5  # standard deviations a step may deviate for nothing
    LIMIT: ClassVar[float] = 8.0  # standard deviations one step can add
    MOST: ClassVar[float] = 30.0  # of S; the score of that is 7.1
    RATE: ClassVar[float] = 1.7  # score**2 per S; measured on Gaussian noise

    def begin(self, shape: tuple[int, ...]) -> State:
        """The expectation's state, and S up and down."""
        return {**super().begin(shape), "piled": np.zeros((2, *shape))}

    def advance(self, x: Any) -> Verdict:
        """Score by the sum, with this step in it."""
        x = self.read(x)
        score = np.empty_like(x)
        floor = self._floor
        for offset, steps, near in self._cachefuls(x) if len(x) else ():
            rows = x[steps, near]
            centre, spread = np.empty((2, *rows.shape))
            self._piece(offset, rows, near, (centre, spread))
            z = np.subtract(rows, centre, out=centre)
            z /= np.maximum(spread, floor[near] if floor.size > 1 else floor, out=spread)
            np.minimum(np.maximum(z, -self.LIMIT, out=z), self.LIMIT, out=z)
            self._climb(z, self._state["piled"][:, near], score[steps, near])
        return Verdict(score)

    def _climb(self, z: Array, piled: Array, score: Array) -> None:
        """The scores of some streams from their z, both (steps, streams); their sums, (2, streams),
        move on.
        """
        sides = np.empty((2, *z.shape))  # up and down
        np.subtract(z, self.slack, out=sides[0])
        np.subtract(-self.slack, z, out=sides[1])
        unknown = z != z
        if missing := np.count_nonzero(unknown):
            sides[:, unknown] = 0.0
        accumulate_cusum(piled, sides, self.MOST)
        high = (
            np.maximum(sides[0], sides[1], out=sides[0])
            if self.direction == "both"
            else sides[0 if self.direction == "high" else 1]
        )
        np.sqrt(np.multiply(high, self.RATE, out=high), out=score)
        if missing:
            score[unknown] = np.nan


def accumulate_cusum(carry: Array, rows: Array, most: float) -> None:
    """rows[i] = rows[i - 1] + rows[i], held between 0 and `most`, down the steps, begun from the
    carry, both in place; (sides, steps, streams).
    """
    if rows.shape[-1] < FEW_STREAMS:  # plain floats are faster than calls
        for side, begun in zip(rows, carry.tolist()):
            for stream, pile in enumerate(begun):
                steps = side[:, stream].tolist()
                piles = accumulate(
                    steps,
                    lambda pile, step: (
                        0.0 if (to := pile + step) <= 0 else to if to < most else most
                    ),
                    initial=pile,
                )
                side[:, stream] = list(piles)[1:]
    else:
        before = carry
        for i in range(rows.shape[1]):
            before = np.add(before, rows[:, i], out=rows[:, i])
            np.clip(before, 0.0, most, out=before)
    carry[:] = rows[:, -1]


@dataclass
class RankDetector(Expecting):
    """A detector that expects from the sorted window: it writes `gauge`."""

    @abstractmethod
    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """(centre, spread), both (...), from windows (..., window) sorted with the missing last;
        `seen` values each.
        """

    def begin(self, shape: tuple[int, ...]) -> State:
        """The window."""
        return {"past": np.full((self.window, *shape), np.nan)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Gauge the window before each step."""
        return tuple(
            rank_windows(sliding_windows(self.remember(x), self.window), self.gauge, self.least)
        )


@dataclass
class MedianMad(RankDetector):
    """How many robust deviations from the median of the last `window` steps.

    |x - median| / (1.4826 * median(|window - median|)). Cost: one sort of the window per step. Up to half the window may be outliers.
    When it fails: where more than half of the window is one and the same value the spread is 0 and
    any other value is CEILING; give a floor. Source: F. R. Hampel, The Influence Curve and Its Role
    in Robust Estimation, 1974; B. Iglewicz, D. C. Hoaglin, How to Detect and Handle Outliers, 1993.

    >>> MedianMad(window=4).update([[1.0], [2.0], [3.0], [4.0], [9.0]]).ravel().round(3)
    array([  nan,   nan, 2.023, 1.349, 4.384])
    """  # noqa: E501

    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """Median, and the median distance from it."""
        median = rank_quantile(ordered, seen, 0.5)
        if isinstance(seen, int):
            ranks = np.ascontiguousarray(np.moveaxis(ordered, -1, 0))
            below = kth_smallest_distance(ranks, median, (seen - 1) // 2)
            above = below if seen % 2 else kth_smallest_distance(ranks, median, seen // 2)
            return median, (below + 0.5 * (above - below)) / MEDIAN_ABS_GAUSSIAN
        return median, rank_quantile(
            np.sort(np.abs(ordered - median[..., None]), axis=-1), seen, 0.5
        ) / MEDIAN_ABS_GAUSSIAN


class DetectorList(Mapping[str, type[Detector]]):
    """Detectors by the name a person reads; one that lives in a room of redline/ is imported when
    first asked for.
    """

    def __init__(self, entries: dict[str, type[Detector] | str]) -> None:
        self._entries = entries

    def add(self, entries: Mapping[str, type[Detector] | str]) -> None:
        """List these too, after all others."""
        self._entries |= entries

    def __getitem__(self, name: str) -> type[Detector]:
        entry = self._entries[name]
        if isinstance(entry, str):
            room, _, detector = entry.partition(":")
            entry = self._entries[name] = getattr(import_module(room), detector)
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


DETECTORS = DetectorList(
    {
        "rolling z-score": RollingZ,
        "median and MAD": MedianMad,
        "interquartile range": "redline.detection.quantiles:Interquartile",
        "percentile": "redline.detection.quantiles:Percentile",
        "moving average": "redline.detection.forecasting:MovingAverage",
        "EWMA": Ewma,
        "CUSUM": Cusum,
        "seasonal": "redline.detection.forecasting:Seasonal",
        "autoregressive": "redline.detection.forecasting:Autoregressive",
        "spectral residual": "redline.detection.spectral:SpectralResidual",
        "subspace": "redline.detection.spectral:Subspace",
        "nearest neighbours": "redline.detection.neighbours:NearestNeighbours",
        "novelty": "redline.detection.neighbours:Novelty",
        "Mahalanobis": "redline.detection.multivariate:Mahalanobis",
        "half-space trees": "redline.detection.multivariate:HalfSpaceTrees",
        "local outlier factor": "redline.detection.multivariate:LocalOutlierFactor",
        "ensemble": "redline.detection.ensemble:Ensemble",
    }
)
