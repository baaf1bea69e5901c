"""Runs: anomalous steps in a row, and the alarm that a maintenance window holds back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    """Where a stream is in a run of anomalous steps."""

    length: int = 0  # anomalous steps in a row, up to the newest
    held: bool = False  # whether an alarm of this run was held back by a maintenance window


class RunSteps(NamedTuple):
    """The anomalous steps among the newest of a stream, all (m,), and the run after them."""

    rows: list[int]  # their places
    length: list[int]  # anomalous steps in a row, this one included
    alarm: list[bool]
    after: Run


def follow_run(above: np.ndarray, due: np.ndarray, muted: np.ndarray | None, run: Run) -> RunSteps:
    """Return the anomalous steps and the alarms among the newest steps of a stream, all (n,) bool.

    No step that is muted is an alarm. Where the run of anomalous steps goes on after them, the
    first step that is not muted is the alarm that was held back.

    Args:
        above: which scores are above the threshold.
        due: which alarm scores are.
        muted: which steps lie in a maintenance window; None = none does.
        run: the run before them.

    >>> follow_run(*np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]], bool), Run(2))
    RunSteps(rows=[0, 1, 3], length=[3, 4, 1], alarm=[False, True, False], \
after=Run(length=1, held=False))
    """
    rows = np.flatnonzero(above).tolist()
    lengths = []
    alarms = []
    length, held = run
    for i in rows:
        length = length + 1 if i == 0 or above[i - 1] else 1
        wanted = bool(due[i]) or (held and length > 1)
        held = wanted and muted is not None and bool(muted[i])
        lengths.append(length)
        alarms.append(wanted and not held)
    length = length if len(above) and above[-1] else 0 if len(above) else length
    return RunSteps(rows, lengths, alarms, Run(length, held and bool(length)))
