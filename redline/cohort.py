"""Streams that stand at the same step under the same settings, scored in one call: the same bits for a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors import State, Transducer

# What these compute of one stream they compute of many, operation for operation: the same bits (`tests/test_cohort.py`). The others solve or
# sum over all streams in one call, whose bits depend on how many there are.
ALIKE = frozenset(("rolling z-score", "median and MAD", "interquartile range", "percentile", "moving average", "EWMA", "CUSUM", "seasonal"))
FEW = 8  # streams from which it pays
STEPS = 256  # a longer chunk is fast enough alone
CELLS = 1 << 18  # values scored at once; more would leave the cache


def stacked(states: Sequence[State]) -> State:
    """The states of transducers at the same step as the state of one that sees all their streams; arrays of its own."""
    one = {name: value.copy() if not value.ndim else np.concatenate([state[name] for state in states], axis=-1) for name, value in states[0].items()}
    one["shape"] = np.array([one["shape"].sum()])
    return one


def parted(one: State, widths: Sequence[int]) -> list[State]:
    """The way back: a state for each of the transducers, which have so many streams; arrays of their own, so that none keeps the others' alive."""
    shared = {name: value for name, value in one.items() if not value.ndim}
    apart = [(name, value) for name, value in one.items() if value.ndim and name != "shape"]
    states, first = [], 0
    for width in widths:
        mine = slice(first, first := first + width)
        state = {name: value[..., mine].copy() for name, value in apart}
        states.append(state | {name: value.copy() for name, value in shared.items()} | {"shape": np.array([width])})
    return states


def lent(members: Sequence[Transducer], one: Transducer) -> Transducer:
    """`one`, made like the members, with all their states; `returned` gives these back as it has left them."""
    one.state = stacked([member.state for member in members if member.state is not None])
    return one


def returned(one: Transducer, members: Sequence[Transducer]) -> None:
    assert one.state is not None
    for member, state in zip(members, parted(one.state, [int(m.state["shape"][0]) for m in members if m.state is not None])):
        member.state = state
