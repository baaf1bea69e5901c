"""Stacking: streams at the same step under the same settings are scored in one call, same bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from detectors import State, Transducer
from redline.engine.feed import Feed
from redline.engine.track import Track

# Detectors that compute many streams operation for operation as they compute one, so to the same
# bits (tests/engine/test_stacking.py). The others solve or sum over all streams in one call, whose
# bits depend on how many there are.
STACKABLE = frozenset(
    (
        "rolling z-score",
        "median and MAD",
        "interquartile range",
        "percentile",
        "moving average",
        "EWMA",
        "CUSUM",
        "seasonal",
    )
)
MIN_STACKED = 8  # streams from which stacking is faster
MAX_STACKED_STEPS = 256  # a longer chunk is fast enough alone
STACKED_CELLS = 1 << 18  # values scored at once; more would leave the cache
_T = TypeVar("_T", bound=Transducer)


class StackingKey(NamedTuple):
    """What streams share that can be scored in one call."""

    settings: tuple[str, int, str, int, int]
    step: int  # of the detector's state
    steps: int  # to be scored
    features: int

    @property
    def streams_at_once(self) -> int:
        return max(MIN_STACKED, STACKED_CELLS // (self.steps * self.features))


def stacking_key(feed: Feed, track: Track) -> StackingKey | None:
    """Return what lets this track be scored with others; None = it must be scored alone."""
    steps = feed.end - track.end
    state = track.detector.state
    if state is None or steps > MAX_STACKED_STEPS or track.end < feed.tape.first:
        return None
    if track.settings.detector not in STACKABLE:
        return None
    return StackingKey(track.settings.key, int(state["step"]), steps, len(feed.stream.names))


def advance_stacked(tracks: Sequence[Track], x: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Return what `advance` of each track gives, to the bit; on an error no track has changed.

    Args:
        tracks: tracks with the same stacking key.
        x: (steps, tracks, features), the next steps of each.
    """
    began = time.perf_counter()
    steps, many, width = x.shape
    floors = tuple(floor for track in tracks for floor in track.floors)
    one = Track(tracks[0].settings, floors, 0)
    detectors = [track.detector for track in tracks]
    alarms = [track.alarm for track in tracks]
    verdict = _load(one.detector, detectors).advance(x.reshape(steps, -1))
    row = np.fmax.reduce(verdict.score.reshape(x.shape), axis=2)  # (steps, tracks)
    alarm = _load(one.alarm, alarms).update(row)
    _unload(one.detector, detectors)
    _unload(one.alarm, alarms)
    # (steps, tracks * features)
    columns = {"parts": verdict.score, "centre": verdict.centre, "spread": verdict.spread}
    seconds = (time.perf_counter() - began) / many
    rows = []
    for i, track in enumerate(tracks):
        own = slice(i * width, (i + 1) * width)
        parts = {name: column[:, own] for name, column in columns.items() if column is not None}
        rows.append({"score": row[:, i : i + 1], "alarm": alarm[:, i : i + 1]} | parts)
        track.count_time(seconds, steps)
    return rows


def stack_states(states: Sequence[State]) -> State:
    """Return the states of transducers at the same step as one state over all their streams."""
    one = {}
    for name, value in states[0].items():
        scalar = not value.ndim
        one[name] = (
            value.copy() if scalar else np.concatenate([state[name] for state in states], axis=-1)
        )
    one["shape"] = np.array([one["shape"].sum()])
    return one


def split_states(one: State, widths: Sequence[int]) -> list[State]:
    """Return the stacked state cut into states of so many streams each, with their own arrays."""
    shared = {name: value for name, value in one.items() if not value.ndim}
    stacked = {name: value for name, value in one.items() if value.ndim and name != "shape"}
    states = []
    first = 0
    for width in widths:
        state = {name: value[..., first : first + width].copy() for name, value in stacked.items()}
        state |= {name: value.copy() for name, value in shared.items()}
        states.append(state | {"shape": np.array([width])})
        first += width
    return states


def _load(one: _T, members: Sequence[Transducer]) -> _T:
    """Give `one` the stacked states of the members."""
    one.state = stack_states([member.state for member in members if member.state is not None])
    return one


def _unload(one: Transducer, members: Sequence[Transducer]) -> None:
    """Give the members their parts of the state of `one`."""
    assert one.state is not None
    widths = [int(member.state["shape"][0]) for member in members if member.state is not None]
    for member, state in zip(members, split_states(one.state, widths)):
        member.state = state
