"""Detectors: each scores every step of its streams against their past, then learns it.

A detector is a dataclass of settings with two methods of its own: `begin`, its first state, and
`advance` (or `expect`, if it predicts a value). `Detector` provides the rest. tests/twins.py
defines each one number at a time; tests/contract.py checks what all of them guarantee.
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
from io import SEEK_END
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple, Self
from zipfile import BadZipFile, ZipFile

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

# standard deviations: the highest score, and the score of any deviation where nothing ever moved
CEILING = 100.0
# a larger value, infinity too, is no measurement and counts as missing: its square must be finite
LARGEST_VALUE = 1e100
STATE_FORMAT = 3  # of saved states; another one is refused
LARGEST_COUNT = 2**53  # steps; a float64 counts no further
NO_STATE = (
    "{} is no state: wanted a file that save() of {} wrote, got {}; save it again, or "
    "begin anew with fit()"
)
# what numpy and zipfile raise on a file that is no saved state
UNREADABLE_STATE = (
    *(ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError, OSError),
    *(BadZipFile, zlib.error),
)
GLITCH_CHECKS = (32, 64, 128)  # steps after which all values so far are checked for glitches
MAX_GLITCHES = 3  # values; more of them are no glitches
GLITCH_RATIO = 10.0  # times the largest distance of all others from the median
State = dict[str, Array]
Direction = Literal["both", "high", "low"]


class Verdict(NamedTuple):
    """The result of `advance` for each step of a chunk."""

    score: Array  # (steps, streams), standard deviations >= 0, NaN = no opinion
    # shaped like the input: the value expected, in the data's unit; None = no band
    centre: Array | None = None
    # shaped like the input: one believable deviation, in the data's unit; None = no band
    spread: Array | None = None
    # (steps, streams, features), they add up to score; None = one feature, the score itself
    parts: Array | None = None
    # (steps, streams, features, kinds), they add up to parts; None = one kind of evidence
    evidence: Array | None = None


class Transducer(ABC):
    """A function with memory: it turns a chunk into as many steps and updates its state.

    The state is named arrays and nothing else. `read` checks the input and creates the state at the
    first call; `pieces` cuts the input where learning happens at absolute steps.
    """

    joint: ClassVar[bool] = False  # looks across features: x is (steps, streams, features)
    # arrays of the state that may come to hold NaN though those of the first state hold none
    undefined: ClassVar[frozenset[str]] = frozenset()
    state: State | None

    @abstractmethod
    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the state before the first step.

        shape: (streams,) or, for a joint one, (streams, features).
        """

    def read(self, values: Any) -> Array:
        """Return the input as floats of the right shape, NaN = missing.

        Raises ValueError for another shape, or another number of streams than before.
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
            self.state = self._first_state(x.shape[1:])
        if self.state["shape"].tolist() != [*x.shape[1:]]:
            began = tuple(self.state["shape"].tolist())
            raise ValueError(
                f"{type(self).__name__} began with {began} as {wanted[8:]}, got "
                f"{x.shape[1:]}; use a new one, or fit() to begin again"
            )
        # then no value is larger or missing; one pass, which is enough for most inputs
        if np.vdot(x, x) <= LARGEST_VALUE:
            return x
        known = np.abs(x) <= LARGEST_VALUE  # false for a NaN too
        return x if np.count_nonzero(known) == x.size else np.where(known, x, np.nan)

    def _first_state(self, shape: tuple[int, ...]) -> State:
        """Return the whole state before the first step, with the clock and the shape."""
        return {"step": np.array(0), "shape": np.array(shape), **self.begin(shape)}

    def pieces(self, x: Array, block: int, most: int = 1) -> Iterator[tuple[int, Array]]:
        """Yield (offset in its block, rows): x cut at the absolute multiples of `block` steps.

        Up to `most` whole blocks come together. Moves the clock; without steps, one empty piece.
        """
        clock = self._state["step"]
        while True:
            offset = int(clock) % block
            if not offset and len(x) >= block:
                size = min(len(x) // block, most) * block
            else:
                size = block - offset
            piece = x[:size]
            x = x[size:]
            yield offset, piece
            clock += len(piece)
            if not len(x):
                return

    def remember(self, x: Array, name: str = "past") -> Array:
        """Return the rows kept under a name in the state and then x, (kept + steps, ...).

        The last of them, as many as before, are kept.
        """
        state = self._state
        rows = np.concatenate((state[name], x))
        state[name] = rows[len(x) :].copy()
        return rows

    @property
    def _state(self) -> State:
        """Return the state; a ValueError before the first step."""
        if self.state is None:
            raise ValueError(
                f"{type(self).__name__} has no state yet: give it some steps first, "
                "with update() or fit()"
            )
        return self.state

    def save(self, path: str | Path) -> None:
        """Write settings and state as .npz, without pickle.

        After `load` the scores continue to the same bits.
        """
        header = np.array(json.dumps(self._header()))
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, **{"_header": header, **self._state})

    def load(self, path: str | Path) -> Self:
        """Read the state written by `save`.

        Raises ValueError for any other file, and for a state of another detector, other settings or
        another version.
        """
        with open(path, "rb") as file:
            try:
                refuse_compressed(file)
                state = dict(np.load(file, allow_pickle=False))
                header = dict(json.loads(str(state.pop("_header"))))
            except UNREADABLE_STATE as error:
                raise ValueError(
                    NO_STATE.format(path, type(self).__name__, "one that cannot be read as such")
                ) from error
        for what, mine in self._header().items():
            if (came := header.get(what)) != mine:
                raise ValueError(
                    f"{path} holds a state with {what} {came!r}, wanted {mine!r}; load "
                    "it into a detector made like the saved one"
                )
        if not self.fits(state):
            raise ValueError(
                NO_STATE.format(
                    path,
                    type(self).__name__,
                    f"one with other arrays, or of other shapes: {', '.join(state) or 'none'}",
                )
            )
        self.state = state
        return self

    def fits(self, state: State, wanted: tuple[int, ...] | None = None) -> bool:
        """Return whether a state has all arrays of the first one, of the same shapes and types.

        It may have more: the arrays of a member come with its first step. Values that no state has
        do not fit: a count below 0 and below that of the first state, NaN or infinity where the
        first state has none.

        wanted: the shape that it must be of, as `begin` takes it; None = any.
        """
        shape = state.get("shape", np.zeros(0))
        if shape.shape != (1 + self.joint,) or shape.dtype.kind != "i" or shape.min() < 0:
            return False
        if wanted is not None and shape.tolist() != [*wanted]:
            return False
        # a first state of more streams than the arrays have numbers would take memory for nothing
        if math.prod(shape.tolist()) > max(value.size for value in state.values()):
            return False
        first = self._first_state(tuple(shape.tolist()))
        forms = _forms(first)
        if "early" in state:
            early = {"early": np.zeros((GLITCH_CHECKS[-1], *shape)), "seen_early": np.array(0)}
            forms |= _forms(early)
        if not _forms(state).items() >= forms.items():
            return False
        return all(
            _is_possible(value, first.get(name), name in self.undefined)
            for name, value in state.items()
        )

    def _header(self) -> dict[str, Any]:
        """Return what a saved state must share with the detector that loads it."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        header = {"detector": type(self).__name__, "format": STATE_FORMAT, "settings": settings}
        plain: dict[str, Any] = json.loads(json.dumps(header, default=repr))
        return plain

    def inside(self, name: str, member: Transducer) -> MemberState:
        """Let a member work on its part of this state: `with self.inside("scale", member): ...`."""
        return MemberState(self, name, member)


def refuse_compressed(file: BinaryIO) -> None:
    """Raise ValueError for an archive of more bytes than its file: `save` compresses nothing.

    A small file could else take any memory.
    """
    with ZipFile(file) as archive:
        content = sum(entry.file_size for entry in archive.infolist())
    if content > file.seek(0, SEEK_END):
        raise ValueError("compressed")
    file.seek(0)


def _is_possible(value: np.ndarray, first: np.ndarray | None, undefined: bool) -> bool:
    """Return whether an array of a state can have come from the array of the first state.

    undefined: it may come to hold NaN.
    """
    if value.dtype.kind in "iu":  # numbers of steps and places in an array
        # a first state may hold a step long before the first: never yet
        least = 0 if first is None else min(0, first.min(initial=0))
        return not value.size or bool(value.min() >= least and value.max() <= LARGEST_COUNT)
    if value.dtype.kind != "f" or first is None:
        return True
    return bool(
        (undefined or not np.isnan(value).any() or np.isnan(first).any())
        and (not np.isinf(value).any() or np.isinf(first).any())
    )


def _forms(state: State) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and type of each array."""
    return {name: (value.shape, value.dtype) for name, value in state.items()}


class MemberState:
    """A context in which a member has its part of the owner's state.

    Its arrays are those whose names begin with the member's name and a dot.
    """

    def __init__(self, owner: Transducer, name: str, member: Transducer) -> None:
        self.owner = owner
        self.prefix = name + "."
        self.member = member

    def __enter__(self) -> None:
        state = self.owner._state
        n = len(self.prefix)
        own = {key[n:]: value for key, value in state.items() if key.startswith(self.prefix)}
        self.member.state = own or None

    def __exit__(self, *error: object) -> None:
        own = self.member.state or {}
        self.owner._state.update({self.prefix + key: value for key, value in own.items()})
        self.member.state = None


@dataclass
class Detector(Transducer):
    """A transducer that scores each step against the past, then learns it.

    x: (steps, streams) or, for a joint detector, (steps, streams, features); floats, NaN = missing
    scores: (steps, streams), standard deviations >= 0, higher = more anomalous, NaN = no opinion

    Cutting x into other chunks changes no bit of the scores. A glitch among the first values is
    forgotten by step 128 (`with_robust_start`). A new detector needs `begin` (its state), `advance`
    and a line in DETECTORS.
    """

    kinds: ClassVar[tuple[str, ...]] = ()  # names of the kinds of evidence in a verdict
    # arrays of the state that hold the stream's newest steps, not what was learned from all of them
    newest: ClassVar[frozenset[str]] = frozenset()
    can_freeze: ClassVar[bool] = True  # whether what was learned can be told from these
    window: int = 120  # steps of past that count; a missing step is a step
    # smallest believable spread, the data's unit, one for all streams or one each
    floor: float | tuple[float, ...] = 0.0
    direction: Direction = "both"  # which side is anomalous

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap `advance` of every subclass in `with_robust_start`."""
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
        """Return the values that must lie in the window before there is a score: half of it."""
        return max(2, (self.window + 1) // 2)

    @property
    def renewals(self) -> tuple[int, ...]:
        """Return from how many steps to how many what is learned is renewed; () = at every step."""
        return ()

    def move_on(self, learned: State, now: State) -> State:
        """Return the state of a frozen model after some steps, which it has not learned.

        Args:
            learned: the state before them; it may be changed.
            now: the state after them.
        """
        return learned | {name: now[name] for name in self.newest}

    @abstractmethod
    def advance(self, x: Any) -> Verdict:
        """Score each step against the past, then learn it; all that moves the state calls this."""

    def update(self, x: Any) -> Array:
        """Return the scores of x, each step scored before it is learned."""
        return self.advance(x).score

    def fit(self, x: Any) -> Self:
        """Forget everything, then learn the history x; later updates continue to learn."""
        self.state = None
        self.advance(x)
        return self

    def score(self, x: Any) -> Array:
        """Return the scores that update(x) would, without moving the state."""
        return self.preview(x).score

    def predict(self, x: Any, threshold: float = 3.0) -> Array:
        """Return score(x) > threshold; never True where there is no opinion."""
        flags: Array = self.score(x) > threshold
        return flags

    def bounds(self, x: Any, threshold: float = 3.0) -> tuple[Array, Array] | None:
        """Return (low, high) between which a step scores at most the threshold, or None.

        Both shaped like x, in the data's unit; an unwatched side is infinite. None: the detector
        has no band. A joint one may score a step inside for other reasons than its distance.
        """
        verdict = self.preview(x)
        centre = verdict.centre
        spread = verdict.spread
        if centre is None or spread is None:
            return None
        reach = threshold * spread  # (steps, streams), the data's unit
        low = np.full_like(centre, -np.inf) if self.direction == "high" else centre - reach
        high = np.full_like(centre, np.inf) if self.direction == "low" else centre + reach
        return low, high

    def explain(self, x: Any) -> Array:
        """Return each feature's part of the scores, (steps, streams, features).

        The parts add up to score(x).
        """
        verdict = self.preview(x)
        return verdict.score[..., None] if verdict.parts is None else verdict.parts

    def preview(self, x: Any) -> Verdict:
        """Return the verdict that advance(x) would, without moving the state."""
        kept = self.state
        self.state = None if kept is None else {name: value.copy() for name, value in kept.items()}
        try:
            return self.advance(x)
        finally:
            self.state = kept

    def sided(self, deviation: Array) -> Array:
        """Return how far a deviation lies to the watched side, >= 0."""
        if self.direction == "both":
            return np.abs(deviation)
        return np.maximum(deviation if self.direction == "high" else -deviation, 0.0)


def with_robust_start(advance: Callable[[Any, Any], Verdict]) -> Callable[[Any, Any], Verdict]:
    """Return an `advance` that checks its first values for glitches after GLITCH_CHECKS steps.

    Where other glitches are found than before, it forgets all and learns the steps so far anew,
    with the glitches missing. Until the last check the state holds the values as `early`, and the
    number of steps as `seen_early`; a start without a glitch is scored as without the checks.
    """

    @wraps(advance)
    def robust(self: Detector, x: Any) -> Verdict:
        if self.state is not None and "early" not in self.state:
            return advance(self, x)  # the start is over, or an outer `advance` checks it
        begins = self.state is None
        x = self.read(x)
        shape = (GLITCH_CHECKS[-1], *x.shape[1:])
        early = np.full(shape, np.nan) if begins else self._state.pop("early")
        clock = 0 if begins else int(self._state.pop("seen_early"))  # not all detectors move `step`
        early[clock : clock + len(x)] = x[: len(early) - clock]
        verdicts = []
        done = 0  # steps of x
        for end, found in _changed_glitches(early, clock, clock + len(x)):
            verdicts.append(advance(self, x[done : end - clock]))
            done = end - clock
            self.state = self._first_state(x.shape[1:])
            advance(self, np.where(found, np.nan, early[:end]))
        if done < len(x) or not verdicts:
            verdicts.append(advance(self, x[done:]))
        if clock + len(x) < len(early):
            self._state.update(early=early, seen_early=np.array(clock + len(x)))
        return verdicts[0] if len(verdicts) == 1 else concatenate_verdicts(verdicts)

    return robust


def concatenate_verdicts(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict of all steps of these, in their order."""
    columns: list[Any] = [
        None if column[0] is None else np.concatenate(column) for column in zip(*verdicts)
    ]
    return Verdict(*columns)


def _changed_glitches(early: Array, clock: int, now: int) -> Iterator[tuple[int, Array]]:
    """Yield (end, glitches of the first `end` values) where they differ from those known before.

    Only the ends in GLITCH_CHECKS after step `clock` and up to step `now` count.
    """
    known = None
    for before, end in pairwise((0, *GLITCH_CHECKS)):
        if clock < end <= now:
            known = find_glitches(early[:before]) if known is None else known
            found = find_glitches(early[:end])
            if found[before:].any() or (found[:before] != known).any():
                yield end, found
            known = found


def find_glitches(x: Array) -> Array:
    """Return which of the first values, (steps, ...), are glitches: missing values are none.

    At most MAX_GLITCHES values, and one in 16 of those seen, each GLITCH_RATIO times as far from
    the median as any other value. None where all others are equal: no unit to measure in.
    """
    found = np.zeros(x.shape, bool)
    suspect = may_have_glitches(x) if len(x) >= 16 else np.zeros(x.shape[1:], bool)
    if not suspect.any():
        return found
    x = x[:, suspect]  # (steps, suspects)
    ordered = np.sort(x.T, axis=-1)
    seen = count_known(ordered)
    away = np.nan_to_num(np.abs(x - rank_quantile(ordered, seen, 0.5)))
    far = np.sort(away, axis=0)[::-1]  # the farthest first
    limit = np.full(x.shape[1], np.inf)
    for few in range(1, min(MAX_GLITCHES, len(x) // 16) + 1):
        rest = far[few]  # the largest distance of all others
        apart = (far[few - 1] > GLITCH_RATIO * rest) & (rest > 0) & (16 * few <= np.asarray(seen))
        limit = np.where(apart, far[few - 1], limit)
    found[:, suspect] = away >= limit
    return found


def may_have_glitches(x: Array) -> Array:
    """Return where `find_glitches` may find any, (...), from x (steps, ...); cheap.

    The median of the first seven values is no glitch. Seen from it, all but the glitches lie within
    2 / (GLITCH_RATIO - 1) of the distance of the farthest.
    """
    ordered = np.sort(x[: 2 * MAX_GLITCHES + 1], axis=0)
    centre = np.where(ordered[-1] == ordered[-1], ordered[MAX_GLITCHES], np.nan)
    away = np.abs(x - centre)
    beyond = away >= 0.3 * np.fmax.reduce(away, axis=0)
    few: Array = np.add.reduce(beyond, axis=0, dtype=np.int64) <= MAX_GLITCHES
    return few  # true too where one of the seven is missing


@dataclass
class Expecting(Detector):
    """A detector that predicts each value in `expect`; the score is |x - centre| / spread."""

    @abstractmethod
    def expect(self, x: Array) -> tuple[Array, ...]:
        """Return (centre, spread) of each step from those before it, then learn x.

        Both (steps, streams) in the data's unit; NaN = not enough past. The spread must be an array
        of its own, neither state nor a view, for it is raised to the floor in place.
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
    """Return the threshold above which that share of the scores lies, NaN not counted.

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
    """A map from any raw score >= 0 to standard deviations, learned from its own past.

    The line on which the past median becomes 0.67 and the 90th percentile 1.64, as for |z|.
    `update(raw)` scores, then learns, over the last `window` learned values, renewed every window /
    8 steps. It freezes while its score is above `level`, but at most for `window` steps: a long
    anomaly stays visible, a lasting change is at last accepted. The tail is that line and not
    counted, so no score but CEILING is a limit. When it fails: a raw score with a tail heavier than
    a Gaussian's alarms too often; take its square root or logarithm first. Cost: one sort of the
    window in window / 8 steps.
    """

    window: int = 120  # steps
    level: ClassVar[float] = 3.0  # standard deviations; a fixed one, whatever the user's threshold
    FAINT: ClassVar[float] = (
        1e-9  # of the median; raw scores that differ by less differ by rounding
    )

    def __post_init__(self) -> None:
        self.state = None

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the values learned, the line, and the last calm step."""
        return {
            "past": np.full((self.window, *shape), np.nan),  # NaN = not learned
            "line": np.full((2, *shape), np.nan),  # median, one standard deviation
            "calm": np.zeros(shape, int),
        }

    def update(self, raw: Any) -> Array:
        """Return standard deviations, same shape; NaN where raw is, and until half a window."""
        x = self.read(raw)
        return np.concatenate(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)]
        )

    @property
    def block(self) -> int:
        """Return the steps from one renewal of the line to the next."""
        return max(1, self.window // 8)

    def _piece(self, offset: int, raw: Array) -> Array:
        """Return the scores of a piece of a block, and keep what is learned of it."""
        state = self._state
        median, unit = state["line"]
        score: Array = np.clip(MEDIAN_ABS_GAUSSIAN + (raw - median) / unit, 0.0, CEILING)
        step = np.arange(len(raw))[:, None] + state["step"]
        # (1 + steps, streams), the last calm step before each step and at it
        calm = np.concatenate((state["calm"][None], np.where(score > self.level, 0, step)))
        running_reduce(np.maximum, calm)
        frozen = step - calm[1:]  # steps since the last calm one
        self.remember(np.where((frozen <= 0) | (frozen > self.window), raw, np.nan))
        state["calm"] = calm[-1]
        if offset + len(raw) == self.block:
            self._renew()
        return score

    def _renew(self) -> None:
        """Compute the line from the values learned, if there are enough."""
        state = self._state
        # (window, streams) -> (streams, window)
        ordered = np.sort(np.moveaxis(state["past"], 0, -1), axis=-1)
        seen = count_known(ordered)
        median = rank_quantile(ordered, seen, 0.5)
        high = rank_quantile(ordered, seen, 0.9)
        width = np.maximum(np.maximum(high - median, self.FAINT * median), TINY)
        line = np.stack((median, width / (P90_ABS_GAUSSIAN - MEDIAN_ABS_GAUSSIAN)))
        state["line"] = np.where(seen >= (self.window + 1) // 2, line, state["line"])


@dataclass
class Alarm(Transducer):
    """Suppression of repeated alarms: keeps a score where an alarm may be raised, else gives 0.

    Refractory: only a record of the last `refractory` steps passes. Renewal: an alarm goes on until
    the score has been under `quiet` for `pause` steps, and meanwhile only what is `growth` times as
    high passes, as what last passed or as all of the refractory steps. Habituation: what passes is
    divided by 1 + the number of peaks at least as high that passed before over `habit` (so many
    halve the next), each forgotten over `memory` steps. Records under `quiet` pass as they are,
    uncounted. NaN stays NaN. The threshold is applied afterwards. Cost: about 100 ns per step, 20
    microseconds per alarm. When it fails: a second, lower event within the refractory steps is not
    reported.

    >>> Alarm().update([[0.5], [9.0], [9.5], [3.0], [0.1]]).ravel()
    array([0.5, 9. , 0. , 0. , 0. ])
    """

    refractory: int = 60  # steps
    pause: int = 25  # steps
    growth: float = 2.0  # ratio of scores
    memory: int = 1000  # steps
    # peaks; ten of the loudest surprises in a thousand steps still pass the default threshold
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
        """Return the last scores, the present alarm, and the histogram of peaks."""
        return {
            "past": np.zeros((max(1, self.refractory), *shape)),
            "loud": np.full(shape, -self.pause - 1),  # the last step at or above `quiet`
            "rise": np.zeros(shape),  # the score that passed last
            "peaks": np.zeros((self.bins, *shape)),
            "counted": np.zeros(shape, int),  # the step of the last peak
        }

    def update(self, scores: Any) -> Array:
        """Return the alarm scores of these scores, same shape."""
        scores = self.read(scores)
        state = self._state
        steps = len(scores)
        # (steps, streams), the highest score of the refractory steps before each
        rows = self.remember(np.nan_to_num(scores))
        before = rolling_max(rows, len(state["past"]))[:steps] * (self.refractory > 0)
        loud = scores >= self.quiet
        clock = state["step"] + np.arange(steps)[:, None]
        # (1 + steps, streams), the last loud step before each step and at it
        last = np.concatenate((state["loud"][None], np.where(loud, clock, -self.pause - 1)))
        running_reduce(np.maximum, last)
        growth = np.where(clock - last[:-1] <= self.pause, self.growth, 0.0)  # 0 = no alarm goes on
        alarms: Array = np.where((scores > before) | np.isnan(scores), scores, 0.0)
        for step in np.flatnonzero((loud & (alarms > 0)).any(axis=1)):
            streams = np.flatnonzero(loud[step] & (alarms[step] > 0))
            records = scores[step, streams]
            wanted = growth[step, streams] * np.minimum(state["rise"], before[step])[streams]
            now = np.full(len(streams), clock[step, 0])
            alarms[step, streams] = self._pass_records(now, records, records >= wanted, streams)
        state["loud"] = last[-1].copy()  # a copy, or the whole chunk would stay in memory
        state["step"] += steps
        return alarms

    def _pass_records(self, now: Array, scores: Array, passing: Array, streams: Array) -> Array:
        """Return the alarm scores of records in some streams, and count the peaks.

        All are (records,): `now` is the step of each, `passing` which of them pass.
        """
        state = self._state
        alarms = np.where(passing, scores, 0.0)
        streams = streams[passing]
        now = now[passing]
        state["rise"][streams] = scores[passing]
        place = np.log(scores[passing] / self.quiet) / np.log(CEILING / self.quiet) * self.bins
        place = np.clip(place.astype(int), 0, self.bins - 1)
        fade = np.exp((state["counted"][streams] - now) / self.memory)
        peaks = state["peaks"][:, streams] * fade  # (bins, streams)
        as_high = np.where(np.arange(self.bins)[:, None] >= place, peaks, 0.0)
        count = running_reduce(np.add, as_high)[-1]  # in one order, however many streams
        alarms[passing] /= 1 + count / self.habit
        peaks[place, np.arange(len(streams))] += 1
        state["peaks"][:, streams] = peaks
        state["counted"][streams] = now
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
    # is left of the block before (the "tail") and the beginning of its own (the "head"). Heads are
    # summed as steps come. Tails are summed backwards from the block's end: when a block closes,
    # only the sums at every `_part` steps are kept (the "marks"); those between are computed again,
    # part by part, when needed. Nothing is ever subtracted from a sum, so no value, nor its
    # rounding error, outlives the window. Anchors: the tail's is its block's last value, the head's
    # its first; each is one of the values it anchors.

    @property
    def _part(self) -> int:
        """Return the steps between two marks."""
        return math.isqrt(self.window - 1) + 1

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last values by their place in the block, the sums, and both anchors.

        The sums are those at the marks, in the present part of the tail, and of the head.
        """
        parts = -(-self.window // self._part)
        sums = {"marks": (3, parts + 1), "tails": (3, self._part), "head": (3,), "anchors": (2,)}
        return {
            "past": np.full((self.window, *shape), np.nan),
            **{name: np.zeros((*size, *shape)) for name, size in sums.items()},
        }

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Return mean and standard deviation of the window before each step."""
        most = max(1, CACHE_CELLS // (self.window * max(1, x.shape[1])))
        return concatenate_parts(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.window, most)]
        )

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        """Return centre and spread of a piece of a block, or of whole blocks."""
        state = self._state
        size = min(len(rows), self.window)
        x = rows.reshape(-1, size, rows.shape[1])  # (blocks, steps, streams)
        # (3, blocks, steps, streams), their anchors (blocks, streams)
        tails, old = self._tails(offset, x)
        new = state["anchors"][1:]
        fresh = state["head"][0] == 0
        if begins := np.count_nonzero(fresh):
            new = np.where(fresh, first_known(x), new)  # (blocks, streams)
        # the head so far; that of whole blocks begins empty
        before = state["head"][:, None] if len(x) == 1 else np.zeros((3, len(x), x.shape[2]))
        m = moments(x, new[:, None])
        heads = sums_before(before, m)
        anchor = np.where(heads[0] > 0, new[:, None], old[:, None]) if begins else new[:, None]
        window = merge_moments(heads, shift_moments(tails, old[:, None] - anchor))
        centre, spread = centre_and_spread(window, anchor, self.least)
        state["anchors"][1] = new[-1]
        np.add(heads[:, -1, -1], m[:, -1, -1], out=state["head"])
        state["past"][offset : offset + size] = x[-1]
        if offset + size == self.window:
            self._close()
        return centre.reshape(rows.shape), spread.reshape(rows.shape)

    def _tails(self, offset: int, x: Array) -> tuple[Array, Array]:
        """Return the moments of what is left of the block before, for each step, and their anchors.

        (3, blocks, steps, streams), (blocks, streams).
        """
        state = self._state
        first = offset // self._part
        last = (offset + x.shape[1] - 1) // self._part
        if offset % self._part == 0 or last > first:
            parts = [self._sums(part) for part in range(first, last + 1)]
            state["tails"][:, : parts[-1].shape[1]] = parts[-1]
            state["tails"][:, parts[-1].shape[1] :] = 0.0  # the last part may be shorter
            tails = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        else:
            tails = state["tails"]
        start = offset - first * self._part
        tails = tails[:, None, start : start + x.shape[1]]
        anchors = state["anchors"][:1]
        if len(x) == 1:
            return tails, anchors
        anchors = np.concatenate((anchors, first_known(x[:-1, ::-1])))
        # of the blocks after the first, summed backwards from the end of the block before
        backwards = moments(x[:-1], anchors[1:, None])[..., ::-1, :]
        later = running_reduce(np.add, backwards)[..., ::-1, :]
        return np.concatenate((tails, later), axis=1), anchors

    def _sums(self, part: int, near: slice | Array = slice(None)) -> Array:
        """Return the moments from each step of a part to its block's end, (3, steps, streams)."""
        state = self._state
        steps = slice(part * self._part, (part + 1) * self._part)
        m = moments(state["past"][steps, near], state["anchors"][0, near])
        m[:, -1] += state["marks"][:, part + 1, near]
        return running_reduce(np.add, m[:, ::-1])[:, ::-1]

    def _close(self) -> None:
        """Empty the head and compute the marks of the full block."""
        width = max(1, CACHE_CELLS // self._part)  # streams at once
        for i in range(0, self._state["past"].shape[1], width):
            self._close_streams(slice(i, i + width))

    def _close_streams(self, near: slice | Array) -> None:
        """Do this for some of the streams."""
        state = self._state
        state["head"][:, near] = 0.0
        state["tails"][..., near] = 0.0  # so that equal steps leave equal states, however cut
        state["anchors"][0, near] = last_known(state["past"][:, near], state["anchors"][0, near])
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

    # Instead of the past shrinking, the weights of new steps grow: plain running sums of weight *
    # moment, scaled back to weight 1 at absolute multiples of `_block`.

    def __post_init__(self) -> None:
        super().__post_init__()
        decay = 1 - 2 / (self.window + 1)
        # steps; a jump away from the anchor still leaves 9 digits at the block's end
        self._block = 8 * self.window
        # (block + 1, 1), of the step at each offset
        self._weights = decay ** -np.arange(self._block + 1.0)[:, None]
        # the weight of `least` values in a row, one step later
        self._enough = decay * (1 - decay**self.least) / (1 - decay) * (1 - 1e-9)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the weighted moments and their anchor."""
        return {"sums": np.zeros((3, *shape)), "anchor": np.zeros(shape)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Return weighted mean and standard deviation of all steps before each step."""
        out = np.empty((2, *x.shape))
        for offset, steps, near in self._cachefuls(x):
            self._piece(offset, x[steps, near], near, out[:, steps, near])
        return out[0], out[1]

    def _cachefuls(self, x: Array) -> Iterator[tuple[int, slice, slice]]:
        """Yield (offset in its block, steps, streams) of all of x; close each block at its end."""
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
        """Write centre and spread of some streams to `out`, (2, steps, streams).

        Updates their sums.
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

    def _close(self, near: slice | Array = slice(None)) -> None:
        """Move the anchor to the mean and scale the weights back to 1."""
        state = self._state
        sums = state["sums"][:, near]
        old = state["anchor"][near]
        n, total, _ = sums
        anchor = old + np.divide(total, n, out=np.zeros_like(n), where=n > 0)
        state["sums"][:, near] = np.stack(shift_moments(sums, old - anchor)) / self._weights[-1]
        state["anchor"][near] = anchor


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

    >>> x = np.r_[np.tile([0.0, 1.0], 100), np.tile([1.0, 2.0], 10)]
    >>> bool(Cusum(window=40).update(x[:, None])[-1] > 3)
    True
    """

    newest: ClassVar[frozenset[str]] = frozenset(("piled",))
    slack: float = 0.5  # standard deviations a step may deviate for nothing
    LIMIT: ClassVar[float] = 8.0  # standard deviations one step can add
    MOST: ClassVar[float] = 30.0  # of S; the score of that is 7.1
    RATE: ClassVar[float] = 1.7  # score**2 per S; measured on Gaussian noise

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the expectation's state, and S up and down."""
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
            self._accumulate(z, self._state["piled"][:, near], score[steps, near])
        return Verdict(score)

    def _accumulate(self, z: Array, piled: Array, score: Array) -> None:
        """Write the scores of some streams from their z, both (steps, streams).

        Updates their sums `piled`, (2, streams).
        """
        sides = np.empty((2, *z.shape))  # up and down
        np.subtract(z, self.slack, out=sides[0])
        np.subtract(-self.slack, z, out=sides[1])
        unknown = z != z
        if missing := np.count_nonzero(unknown):
            sides[:, unknown] = 0.0
        accumulate_cusum(piled, sides, self.MOST)
        high = sides[1 if self.direction == "low" else 0]
        if self.direction == "both":
            np.maximum(sides[0], sides[1], out=high)
        np.sqrt(np.multiply(high, self.RATE, out=high), out=score)
        if missing:
            score[unknown] = np.nan


def accumulate_cusum(carry: Array, rows: Array, most: float) -> None:
    """Set rows[i] = rows[i - 1] + rows[i], clipped to 0 and `most`, down the steps.

    rows: (sides, steps, streams); carry: (sides, streams), the sum before the first. Both are
    changed in place.
    """

    def add_clipped(total: float, step: float) -> float:
        total += step
        if total <= 0:
            return 0.0
        return total if total < most else most

    if rows.shape[-1] < FEW_STREAMS:  # plain floats are faster than one call per step
        for side, totals in zip(rows, carry.tolist()):
            for stream, total in enumerate(totals):
                steps = side[:, stream].tolist()
                sums = accumulate(steps, add_clipped, initial=total)
                side[:, stream] = list(sums)[1:]
    else:
        before = carry
        for i in range(rows.shape[1]):
            before = np.add(before, rows[:, i], out=rows[:, i])
            np.clip(before, 0.0, most, out=before)
    carry[:] = rows[:, -1]


@dataclass
class RankDetector(Expecting):
    """A detector whose expectation is computed from the sorted window by `gauge`."""

    @abstractmethod
    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """Return (centre, spread), both (...), of windows (..., window) sorted, the missing last.

        seen: how many values each window has.
        """

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the window."""
        return {"past": np.full((self.window, *shape), np.nan)}

    def expect(self, x: Array) -> tuple[Array, ...]:
        """Gauge the window before each step."""
        windows = sliding_windows(self.remember(x), self.window)  # (steps, streams, window)
        return tuple(rank_windows(windows, self.gauge, self.least))


@dataclass
class MedianMad(RankDetector):
    """How many robust deviations from the median of the last `window` steps.

    |x - median| / (1.4826 * median(|window - median|)). Cost: one sort of the window per step. Up
    to half the window may be outliers. When it fails: where more than half of the window is one and
    the same value the spread is 0 and any other value is CEILING; give a floor. Source: F. R.
    Hampel, The Influence Curve and Its Role in Robust Estimation, 1974; B. Iglewicz, D. C. Hoaglin,
    How to Detect and Handle Outliers, 1993.

    >>> MedianMad(window=4).update([[1.0], [2.0], [3.0], [4.0], [9.0]]).ravel().round(3)
    array([  nan,   nan, 2.023, 1.349, 4.384])
    """

    def gauge(self, ordered: Array, seen: int | Array) -> tuple[Array, Array]:
        """Return the median, and the median distance from it as that of a Gaussian."""
        median = rank_quantile(ordered, seen, 0.5)
        if isinstance(seen, int):
            ranks = np.ascontiguousarray(np.moveaxis(ordered, -1, 0))
            below = kth_smallest_distance(ranks, median, (seen - 1) // 2)
            above = below if seen % 2 else kth_smallest_distance(ranks, median, seen // 2)
            return median, (below + 0.5 * (above - below)) / MEDIAN_ABS_GAUSSIAN
        distances = np.sort(np.abs(ordered - median[..., None]), axis=-1)
        return median, rank_quantile(distances, seen, 0.5) / MEDIAN_ABS_GAUSSIAN


class DetectorList(Mapping[str, type[Detector]]):
    """Detector classes by their display names.

    An entry "module:class" is imported when it is first asked for.
    """

    def __init__(self, entries: dict[str, type[Detector] | str]) -> None:
        self._entries = entries

    def add(self, entries: Mapping[str, type[Detector] | str]) -> None:
        """Append entries."""
        self._entries |= entries

    def __getitem__(self, name: str) -> type[Detector]:
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, detector = entry.partition(":")
            entry = getattr(import_module(module), detector)
            self._entries[name] = entry
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
