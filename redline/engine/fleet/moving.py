"""The moving: streams of one fleet go to a fleet under other settings, many at once.

Only between STEPPED detectors, whose streams step together whatever step each is at. Each stream
has the same state, counters and history as one that is moved alone.
"""

from __future__ import annotations

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.fleets import SequenceFleet
from redline.engine.fleet.single_step import STEPPED
from redline.settings import Settings

KEPT_COUNTERS = ("points", "anomalies", "alarms", "last_time")


def moves_together(before: Settings, after: Settings) -> bool:
    """Return whether many streams can go from one setting to another at once."""
    return before.detector in STEPPED and after.detector in STEPPED


def steps_at_hand(fleet: SequenceFleet, columns: Array) -> Array:
    """Return how many steps of streams (n,) the history has, (n,)."""
    kept = fleet.counters["step"][columns] - fleet.counters["since"][columns]
    at_hand: Array = np.minimum(kept, fleet.capacity)
    return at_hand


def move_columns(source: SequenceFleet, columns: Array, target: SequenceFleet) -> Array:
    """Let streams (n,) of a fleet join another one; return their columns there, (n,) ascending.

    Under another threshold alone they keep their state; else they learn from the steps at hand,
    and their steps are counted from the first of these. They are still in the source, too.
    """
    own = target.join(len(columns), source.floors[columns])
    if source.settings.key == target.settings.key:
        target.paste_columns(own, source.copy_columns(columns))
        target.counters["since"][own] = source.counters["since"][columns]
        taken = int(source.counters["step"][columns].max(initial=0))
        used = source.history.used_rows(taken)
        for name, array in source.history.arrays.items():
            target.history.arrays[name][:used, own] = array[:used, columns]
    else:
        _learn(source, columns, target, own)
        for name in KEPT_COUNTERS:
            target.counters[name][own] = source.counters[name][columns]
    target.counters["run"][own] = 0
    return own


def _learn(source: SequenceFleet, columns: Array, target: SequenceFleet, own: Array) -> None:
    """Let streams (n,) take their steps at hand again, each with the score that it had."""
    kept = steps_at_hand(source, columns)
    first = source.counters["step"][columns] - kept
    arrays = source.history.arrays
    for step in range(int(kept.max(initial=0))):
        some = step < kept
        rows = (first[some] + step) % source.capacity
        place = columns[some]
        target.push(own[some], arrays["time"][rows, place], arrays["value"][rows, place])
        target.history.arrays["score"][step, own[some]] = arrays["score"][rows, place]
