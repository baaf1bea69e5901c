"""Streams that stand at the same step under the same settings, scored in one call: the same bits
for a fraction of the time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from detectors import State, Transducer
from redline.engine.track import Track


def advance_stacked(tracks: Sequence[Track], x: np.ndarray) -> list[dict[str, np.ndarray]]:
    """What `advance` of each track says of its features in x (steps, tracks, features), to the bit;
    nothing is touched when it fails.
    """
    began, (steps, many, width), lead = time.perf_counter(), x.shape, tracks[0].settings
    one = Track(lead, tuple(floor for track in tracks for floor in track.floors), 0)
    verdict = load_stacked([track.detector for track in tracks], one.detector).advance(
        x.reshape(steps, -1)
    )  # type: ignore[attr-defined]
    row = np.fmax.reduce(
        verdict.score.reshape(x.shape), axis=2
    )  # (steps, tracks), NaN = no opinion
    columns = {
        "parts": verdict.score,
        "centre": verdict.centre,
        "spread": verdict.spread,
    }  # (steps, tracks * features)
    alarm = load_stacked([track.alarm for track in tracks], one.alarm).update(row)  # type: ignore[attr-defined]
    unload_stacked(one.detector, [track.detector for track in tracks])
    unload_stacked(one.alarm, [track.alarm for track in tracks])
    rows = []
    spent = (time.perf_counter() - began) / many
    for i, track in enumerate(tracks):
        mine = slice(i * width, (i + 1) * width)
        told = {name: column[:, mine] for name, column in columns.items() if column is not None}
        rows.append({"score": row[:, i : i + 1], "alarm": alarm[:, i : i + 1]} | told)
        track.seconds = track.seconds + spent
        track.scored = track.scored + steps
    return rows


# What these compute of one stream they compute of many, operation for operation: the same bits
# (`tests/test_cohort.py`). The others solve or
# sum over all streams in one call, whose bits depend on how many there are.
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
MIN_STACKED = 8  # streams from which it pays
MAX_STACKED_STEPS = 256  # a longer chunk is fast enough alone
STACKED_CELLS = 1 << 18  # values scored at once; more would leave the cache


def stack_states(states: Sequence[State]) -> State:
    """The states of transducers at the same step as the state of one that sees all their streams;
    arrays of its own.
    """
    one = {
        name: value.copy()
        if not value.ndim
        else np.concatenate([state[name] for state in states], axis=-1)
        for name, value in states[0].items()
    }
    one["shape"] = np.array([one["shape"].sum()])
    return one


def split_states(one: State, widths: Sequence[int]) -> list[State]:
    """The way back: a state for each of the transducers, which have so many streams; arrays of
    their own, so that none keeps the others' alive.
    """
    shared = {name: value for name, value in one.items() if not value.ndim}
    apart = [(name, value) for name, value in one.items() if value.ndim and name != "shape"]
    states = []
    first = 0
    for width in widths:
        mine = slice(first, first := first + width)
        state = {name: value[..., mine].copy() for name, value in apart}
        states.append(
            state
            | {name: value.copy() for name, value in shared.items()}
            | {"shape": np.array([width])}
        )
    return states


def load_stacked(members: Sequence[Transducer], one: Transducer) -> Transducer:
    """`one`, made like the members, with all their states; `returned` gives these back as it has
    left them.
    """
    one.state = stack_states([member.state for member in members if member.state is not None])
    return one


def unload_stacked(one: Transducer, members: Sequence[Transducer]) -> None:
    assert one.state is not None
    for member, state in zip(
        members,
        split_states(one.state, [int(m.state["shape"][0]) for m in members if m.state is not None]),
    ):
        member.state = state
