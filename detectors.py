"""Detectors: each scores every step of its streams against their past, in standard deviations, then learns it.

A detector is a dataclass of settings with one method of its own, `advance` (or `expect`, for those that predict a value); `Detector` gives the rest.
The definitions, one number at a time, stand in tests/twins.py; the promises every detector keeps stand in tests/contract.py.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

CEILING = 100.0  # standard deviations: the highest score there is, and the score of any deviation where nothing ever moved
LARGEST = 1e100  # a value beyond it, infinity too, is no measurement and counts as missing: its square must still be a number
TINY = 1e-150  # the spread of what never moves, in any unit: 2 * LARGEST / TINY is still a number
FORMAT = 1  # of saved states; another one is refused
CELLS = 1 << 15  # numbers worked on at once, 256 KiB: what a core keeps close
WIDE = 32  # streams from which one call per step is faster than one scan per stream

Array = np.ndarray[Any, np.dtype[Any]]
State = dict[str, Array]
Direction = Literal["both", "high", "low"]


class Verdict(NamedTuple):
    """What `advance` says of each step of a chunk."""

    score: Array  # (steps, streams), standard deviations >= 0, NaN = no opinion
    centre: Array | None = None  # (steps, streams), the value expected, in the data's unit; None = no band
    spread: Array | None = None  # (steps, streams), one believable deviation, in the data's unit; None = no band
    parts: Array | None = None  # (steps, streams, features), they add up to score; None = one feature, the score itself


class Transducer(ABC):
    """Something with a past: it turns a chunk into as many steps, moves its state, and its state is named arrays, nothing else.

    `read` takes the input in and makes the state at first sight; `pieces` cuts it where learning happens at absolute steps.
    """

    joint: ClassVar[bool] = False  # looks across the features of a stream: x is (steps, streams, features)
    state: State | None

    @abstractmethod
    def begin(self, shape: tuple[int, ...]) -> State:
        """The state before the first step; shape is (streams,) or, for a joint one, (streams, features)."""

    def read(self, values: Any) -> Array:
        """The input as floats of the right shape, NaN = missing; a ValueError says what was wanted, what came, what to do."""
        x: Array = np.asarray(values, dtype=np.float64)
        if self.joint and x.ndim == 2:
            x = x[..., None]  # one feature
        wanted = "(steps, streams, features)" if self.joint else "(steps, streams)"
        if x.ndim != 2 + self.joint:
            raise ValueError(f"{type(self).__name__} wants {wanted}, got the shape {x.shape}; one stream of plain values is x[:, None]")
        if self.state is None:
            self.state = {"step": np.array(0), "shape": np.array(x.shape[1:]), **self.begin(x.shape[1:])}
        if self.state["shape"].tolist() != [*x.shape[1:]]:
            began = tuple(self.state["shape"].tolist())
            raise ValueError(f"{type(self).__name__} began with {began} as {wanted[8:]}, got {x.shape[1:]}; use a new one, or fit() to begin again")
        if not np.abs(x).max(initial=0.0) <= LARGEST:  # false for a NaN too
            x = np.where(np.abs(x) <= LARGEST, x, np.nan)
        return x

    def pieces(self, x: Array, block: int, most: int = 1) -> Iterator[tuple[int, Array]]:
        """(offset in its block, rows): x cut at the absolute multiples of `block` steps, up to `most` whole blocks together; moves the clock."""
        clock = self._held["step"]
        while True:
            offset = int(clock) % block
            size = min(len(x) // block, most) * block if not offset and len(x) >= block else block - offset
            piece, x = x[:size], x[size:]
            yield offset, piece
            clock += len(piece)
            if not len(x):
                return

    @property
    def _held(self) -> State:
        if self.state is None:
            raise ValueError(f"{type(self).__name__} has no state yet: give it some steps first, with update() or fit()")
        return self.state

    def save(self, path: str | Path) -> None:
        """Write settings and state as .npz, without pickle; `load` carries on from there to the bit."""
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, **{"_header": np.array(json.dumps(self._header())), **self._held})

    def load(self, path: str | Path) -> Self:
        """Take the state written by `save`; one of another detector, other settings or another version is a ValueError."""
        with np.load(path, allow_pickle=False) as saved:
            header = json.loads(str(saved["_header"])) if "_header" in saved else {}
            for what, mine in self._header().items():
                if header.get(what) != mine:
                    raise ValueError(
                        f"{path} holds a state with {what} {header.get(what)!r}, wanted {mine!r}; load it into a detector made like the saved one"
                    )
            self.state = {name: saved[name] for name in saved.files if name != "_header"}
        return self

    def _header(self) -> dict[str, Any]:
        settings = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        plain: dict[str, Any] = json.loads(json.dumps({"detector": type(self).__name__, "format": FORMAT, "settings": settings}, default=repr))
        return plain

    def inside(self, name: str, member: Transducer) -> Within:
        """`with self.inside("level", member): ...` lets a member work on the part of this state that bears its name."""
        return Within(self, name, member)


class Within:
    """A member's state is the part of its owner's whose names begin with the member's name and a dot."""

    def __init__(self, owner: Transducer, name: str, member: Transducer) -> None:
        self.owner, self.prefix, self.member = owner, name + ".", member

    def __enter__(self) -> None:
        held, n = self.owner._held, len(self.prefix)
        self.member.state = {key[n:]: held[key] for key in held if key.startswith(self.prefix)} or None

    def __exit__(self, *error: object) -> None:
        self.owner._held.update({self.prefix + key: value for key, value in (self.member.state or {}).items()})
        self.member.state = None


@dataclass
class Detector(Transducer):
    """A streaming transducer: each step is scored against the past, then learned.

    x       (steps, streams) or, for a joint detector, (steps, streams, features), floats, NaN = missing
    scores  (steps, streams), floats >= 0 in standard deviations, higher = stranger, NaN = no opinion

    Cutting x into other chunks changes no bit of the scores. A new detector writes `begin` (its state) and `advance`, and a line in DETECTORS.
    """

    window: int = 120  # steps of past that count; a missing step is a step
    floor: float | tuple[float, ...] = 0.0  # smallest believable spread, the data's unit, one for all streams or one each
    direction: Direction = "both"  # which side is strange

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
        """Values that must have been seen within the window before there is an opinion: half of it."""
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
        """(low, high) between which each step of x would score at most the threshold, an unwatched side at infinity; None without a band."""
        _, centre, spread, _ = self.preview(x)
        if centre is None or spread is None:
            return None
        reach = threshold * spread  # (steps, streams), the data's unit
        low = np.full_like(centre, -np.inf) if self.direction == "high" else centre - reach
        high = np.full_like(centre, np.inf) if self.direction == "low" else centre + reach
        return low, high

    def explain(self, x: Any) -> Array:
        """How much of each score each feature carries, (steps, streams, features); they add up to score(x)."""
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


@dataclass
class Expecting(Detector):
    """A detector that predicts each value: it writes `expect`, and its score is |x - centre| / spread."""

    @abstractmethod
    def expect(self, x: Array) -> tuple[Array, Array]:
        """(centre, spread), both (steps, streams) in the data's unit, of each step from those before it; NaN = not enough past. Then learn x."""

    def advance(self, x: Any) -> Verdict:
        """Score by the distance from what was expected."""
        x = self.read(x)
        centre, spread = self.expect(x)
        spread = np.maximum(spread, self._floor)  # NaN stays NaN
        score = np.minimum(self.sided(x - centre) / spread, CEILING)
        return Verdict(score, centre, spread)


def joined(chunks: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The pairs one after another."""
    if len(chunks) == 1:
        return chunks[0]
    first, second = zip(*chunks)
    return np.concatenate(first), np.concatenate(second)


def running(add: np.ufunc, rows: Array) -> Array:
    """rows[i] = add(rows[i - 1], rows[i]) down the steps, in place; (..., steps, streams). One order, so no bit depends on the route."""
    if rows.shape[-1] < WIDE:
        return add.accumulate(rows, axis=-2, out=rows)
    for i in range(1, rows.shape[-2]):
        add(rows[..., i - 1, :], rows[..., i, :], out=rows[..., i, :])
    return rows


def sums_before(carry: Array, rows: Array) -> tuple[Array, Array]:
    """(the sum before each of the rows, the sum after all): carry (..., streams), rows (..., steps, streams)."""
    if rows.shape[-2] == 1:
        return carry[..., None, :], carry + rows[..., 0, :]  # what follows gives the same bits, in more time
    sums = np.concatenate((carry[..., None, :], rows), axis=-2)
    running(np.add, sums)
    return sums[..., :-1, :], sums[..., -1, :].copy()


# Moments: a stack (3, ...) of how many values were seen, their sum, the sum of their squares, all about an anchor. With one of the values
# as the anchor they are exact at any offset: the anchor's distance from the mean is at most sqrt(n) spreads.


def moments(x: Array, anchor: Array, out: Array | None = None) -> Array:
    """The moments of each value by itself, a missing one adding nothing."""
    m = np.empty((3, *x.shape)) if out is None else out
    np.subtract(x, anchor, out=m[1])
    seen = m[1] == m[1]
    m[0] = seen
    if not seen.all():
        m[1][~seen] = 0.0
    np.multiply(m[1], m[1], out=m[2])
    return m


def shifted(m: Array, by: Array) -> Array:
    """The same values' moments about an anchor lower by `by`."""
    n, total, squares = m
    moved = total + n * by
    return np.stack((n, moved, squares + by * (total + moved)))


def centre_and_spread(m: Array, anchor: Array, least: float | Array) -> tuple[Array, Array]:
    """Mean and standard deviation from moments, NaN where fewer than `least` values (or less weight) were seen."""
    n, total, squares = m
    few = n < least
    if few.any():
        n = np.where(few, np.nan, n)
    mean = total / n
    variance = squares / n - mean * mean
    return anchor + mean, np.sqrt(np.maximum(variance, 0.0))


def first_seen(x: Array) -> Array:
    """(blocks, steps, streams) -> (blocks, streams): each block's first value, 0 where it has none."""
    if not x.shape[1]:
        return np.zeros((len(x), x.shape[2]))
    seen = x == x
    first: Array = x[:, 0] if seen[:, 0].all() else np.nan_to_num(np.take_along_axis(x, seen.argmax(axis=1)[:, None], axis=1)[:, 0])
    return first


def last_seen(x: Array, before: Array) -> Array:
    """(steps, streams) -> (streams,): the last value, or the one before where all are missing."""
    last: Array
    if len(x) and (x[-1] == x[-1]).all():
        last = x[-1].copy()
    else:
        last = np.where((x == x).any(axis=0), first_seen(x[None, ::-1])[0], before)
    return last


@dataclass
class RollingZ(Expecting):
    """How many standard deviations from the mean of the last `window` steps.

    z = |x - mean| / std, both over the steps before x. Cost: constant per step, whatever the window; 4 numbers per step of the window and stream.
    When it fails: an outlier inside the window widens the band for a whole window and hides the next; a season longer than the window is "strange".
    Source: W. A. Shewhart, Economic Control of Quality of Manufactured Product, 1931; the joining of blocks: T. Chan, G. Golub, R. LeVeque,
    Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.

    >>> z = RollingZ(window=4)
    >>> z.update([[1.0], [3.0], [1.0], [3.0], [7.0]]).ravel()
    array([       nan,        nan, 1.        , 1.41421356, 5.        ])
    """

    # Steps are cut into blocks of `window` at absolute multiples. The window before a step is the end of the block before (its "tail", summed
    # backwards once, when that block closed) and the beginning of its own (the "head", summed as it comes). Nothing is ever subtracted from a sum,
    # so nothing outlives the window. Anchors: the tail's is its block's last value, the head's is its first; each is a member of what it anchors.

    def begin(self, shape: tuple[int, ...]) -> State:
        """The open block's values, the tails of the block before, the head, and both anchors."""
        size = (self.window, *shape)
        return {"past": np.full(size, np.nan), "tails": np.zeros((3, *size)), "head": np.zeros((3, *shape)), "anchors": np.zeros((2, *shape))}

    def expect(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the window before each step."""
        most = max(1, CELLS // (self.window * max(1, x.shape[1])))
        return joined([self._piece(offset, rows) for offset, rows in self.pieces(x, self.window, most)])

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        held, size = self._held, min(len(rows), self.window)
        x = rows.reshape(max(1, len(rows) // self.window), size, rows.shape[1])  # (blocks, steps, streams)
        tails, old = self._tails(offset, x)  # (3, blocks, steps, streams), (blocks, streams)
        new, fresh = held["anchors"][1:], held["head"][0] == 0
        if fresh.any():
            new = np.where(fresh, first_seen(x), new)  # (blocks, streams)
        start = np.broadcast_to(held["head"][:, None], (3, len(x), x.shape[2]))  # several blocks come whole: all start with nothing
        heads, head = sums_before(start, moments(x, new[:, None]))
        anchor = np.where(heads[0] > 0, new[:, None], old[:, None]) if fresh.any() else new[:, None]
        centre, spread = centre_and_spread(heads + shifted(tails, old[:, None] - anchor), anchor, self.least)
        held["head"], held["anchors"][1] = head[:, -1], new[-1]
        held["past"][offset : offset + size] = x[-1]
        if offset + size == self.window:
            self._close()
        return centre.reshape(rows.shape), spread.reshape(rows.shape)

    def _tails(self, offset: int, x: Array) -> tuple[Array, Array]:
        """The moments of what is left of the block before, for each step, and their anchors."""
        held = self._held
        if len(x) == 1:
            return held["tails"][:, None, offset : offset + x.shape[1]], held["anchors"][:1]
        anchors = np.concatenate((held["anchors"][:1], first_seen(x[:-1, ::-1])))
        tails = np.empty((3, *x.shape))
        tails[:, 0] = held["tails"]
        running(np.add, moments(x[:-1], anchors[1:, None], tails[:, 1:])[..., ::-1, :])
        return tails, anchors

    def _close(self) -> None:
        """The block is full: sum it backwards, from its last value, for the block that follows."""
        held = self._held
        held["head"] = np.zeros_like(held["head"])
        held["anchors"][0] = first_seen(held["past"][None, ::-1])[0]
        width = max(1, CELLS // self.window)  # streams at once
        for i in range(0, held["past"].shape[1], width):
            near = slice(i, i + width)
            running(np.add, moments(held["past"][:, near], held["anchors"][0, near], held["tails"][:, :, near])[:, ::-1])


@dataclass
class Ewma(Expecting):
    """How many standard deviations from an exponentially weighted mean, both weighted by age.

    Weights decay**age, decay = 1 - 2 / (window + 1), missing steps weighing nothing. Cost: constant per step; 5 numbers per stream, the least of all.
    When it fails: a steady slope biases the mean by half a window of it, and a huge spike stays in the spread for several windows.
    Source: S. W. Roberts, Control Chart Tests Based on Geometric Moving Averages, 1959; J. M. Lucas, M. S. Saccucci, Exponentially Weighted Moving
    Average Control Schemes, 1990.

    >>> Ewma(window=4).update([[1.0], [3.0], [1.0], [3.0], [7.0]]).ravel().round(3)
    array([  nan,   nan, 1.291, 1.506, 4.906])
    """

    # The weights grow instead of the past shrinking: plain running sums of weight * moment, brought back to 1 at absolute multiples of `_block`.

    def __post_init__(self) -> None:
        super().__post_init__()
        decay = 1 - 2 / (self.window + 1)
        self._block = 8 * self.window  # steps; a jump seen from an anchor across it still leaves 9 digits by the block's end
        self._weights = decay ** -np.arange(self._block + 1.0)[:, None]  # (block + 1, 1), of the step at each offset
        self._enough = decay * (1 - decay**self.least) / (1 - decay) * (1 - 1e-9)  # the weight of `least` values in a row, one step later

    def begin(self, shape: tuple[int, ...]) -> State:
        """The weighted moments, their anchor, and the last value seen, the anchor to come."""
        return {"sums": np.zeros((3, *shape)), "anchor": np.zeros(shape), "last": np.zeros(shape)}

    def expect(self, x: Array) -> tuple[Array, Array]:
        """Weighted mean and standard deviation of all steps before each step."""
        return joined([self._piece(offset, rows) for offset, rows in self.pieces(x, self._block)])

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        held, weights = self._held, self._weights[offset : offset + len(rows)]
        fresh = held["sums"][0] == 0
        if fresh.any():
            held["anchor"] = np.where(fresh, first_seen(rows[None])[0], held["anchor"])
        before, held["sums"] = sums_before(held["sums"], moments(rows, held["anchor"]) * weights)
        held["last"] = last_seen(rows, held["last"])
        centre, spread = centre_and_spread(before, held["anchor"], self._enough * weights)
        if offset + len(rows) == self._block:
            held["sums"] = shifted(held["sums"], held["anchor"] - held["last"]) / self._weights[-1]
            held["anchor"] = held["last"]
        return centre, spread


@dataclass
class Alarm(Transducer):
    """When to call someone: `update(scores)` gives the score where an alarm may be raised, 0 where it is held back, NaN where there is none.

    Refractory: only a record of the last `refractory` steps passes. Rise: of records that follow one another within `pause` steps only the first
    passes, and those that have since grown by `growth`. Habituation: what passes is divided by 1 + how many peaks at least as high passed before,
    each forgotten over `memory` steps. Records under `quiet` pass as they are, uncounted. No threshold is needed here; it comes last.
    Cost: about 100 ns per step, 20 microseconds per alarm. When it fails: a second, lower event within the refractory steps is not reported.

    >>> Alarm().update([[0.5], [9.0], [9.5], [3.0], [0.1]]).ravel()
    array([0.5, 9. , 0. , 0. , 0. ])
    """

    refractory: int = 100  # steps
    pause: int = 10  # steps
    growth: float = 2.0  # ratio of scores
    memory: int = 5000  # steps
    quiet: float = 2.5  # standard deviations
    bins: ClassVar[int] = 32  # of the histogram of peaks, by ratio from `quiet` to CEILING

    def __post_init__(self) -> None:
        self.state = None

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last scores, when and how high the present rise last passed, and the peaks so far."""
        past = np.zeros((self.refractory, *shape))
        return {
            "past": past,
            "record": np.full(shape, -self.pause - 1),
            "rise": np.zeros(shape),
            "peaks": np.zeros((self.bins, *shape)),
            "counted": np.zeros(shape, int),
        }

    def update(self, scores: Any) -> Array:
        """The alarm scores of these scores, same shape."""
        scores = self.read(scores)
        held, clock, steps = self._held, int(self._held["step"]), len(scores)
        both = np.concatenate((held["past"], np.nan_to_num(scores)))  # (refractory + steps, streams)
        record = both[self.refractory :] > highest(both, self.refractory)[:steps]
        alarms: Array = np.where(record | np.isnan(scores), scores, 0.0)
        loud = record & (scores >= self.quiet)
        for step in np.flatnonzero(loud.any(axis=1)):
            streams = np.flatnonzero(loud[step])
            alarms[step, streams] = self._passed(clock + int(step), scores[step, streams], streams)
        held["past"] = both[steps:].copy()
        held["step"] += steps
        return alarms

    def _passed(self, now: int, scores: Array, streams: Array) -> Array:
        """The alarm scores of records at one step, in some of the streams."""
        held = self._held
        rising = now - held["record"][streams] <= self.pause
        held["record"][streams] = now
        passing = ~rising | (scores >= self.growth * held["rise"][streams])
        alarms, streams = np.where(passing, scores, 0.0), streams[passing]
        held["rise"][streams] = scores[passing]
        place = np.log(scores[passing] / self.quiet) / np.log(CEILING / self.quiet) * self.bins
        place = np.clip(place.astype(int), 0, self.bins - 1)
        peaks = held["peaks"][:, streams] * np.exp((held["counted"][streams] - now) / self.memory)  # (bins, streams)
        as_high = np.where(np.arange(self.bins)[:, None] >= place, peaks, 0.0).sum(axis=0)
        alarms[passing] /= 1 + as_high
        peaks[place, np.arange(len(streams))] += 1
        held["peaks"][:, streams], held["counted"][streams] = peaks, now
        return alarms


def highest(x: Array, width: int) -> Array:
    """The maximum of each `width` rows in a row: (steps, streams) -> (steps - width + 1, streams)."""
    have = 1
    while have < width:
        more = min(have, width - have)
        x, have = np.maximum(x[:-more], x[more:]), have + more
    return x


class Listing(Mapping[str, type[Detector]]):
    """Detectors by the name a person reads; one that lives in a room of redline/ is imported when first asked for."""

    def __init__(self, entries: dict[str, type[Detector] | str]) -> None:
        self._entries = entries

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


DETECTORS = Listing(
    {
        "rolling z-score": RollingZ,
        "EWMA": Ewma,
    }
)
