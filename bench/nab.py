"""The NAB score of a list of score series: 0 = no detections, 100 = all at once and none false.

Written from the published description: Lavin and Ahmad, Evaluating Real-time Anomaly Detection
Algorithms, 2015, section II. A step whose score is at or above the threshold is a detection. In
each labelled window only the earliest detection counts, worth the scaled sigmoid S(y) = 2 / (1 +
exp(5 y)) - 1 of its place y in the window (-1 at the left edge, towards 0 at the right edge),
divided by S(-1) so that the first step is worth 1; a window without one costs the weight of a miss.
Every detection outside the windows costs S(y) of its distance behind the last window in widths of
that window, -1 before the first window and from 3 on. One threshold for all files: the one with the
best sum. Reported: 100 (sum - null) / (perfect - null).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Profile(NamedTuple):
    """The weights of a true detection, a false one and a missed window."""

    hit: float
    false: float
    miss: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
    "reward_low_FN_rate": Profile(1.0, 0.11, 2.0),
}

Windows = Sequence[tuple[int, int]]  # first and last step, both inside


def scaled_sigmoid(place: np.ndarray | float) -> np.ndarray:
    """Return S(y) as defined above, -1 from 3 on.

    >>> [round(float(scaled_sigmoid(y)), 5) for y in (-1.0, -0.5, 0.0, 1.0, 3.0)]
    [0.98661, 0.84828, 0.0, -0.98661, -1.0]
    """
    place = np.asarray(place, float)
    return np.where(place >= 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(place, 3))) - 1)


def step_weights(steps: int, windows: Windows, profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of a detection at each step, and its window, -1 = none; both (steps,)."""
    weight = np.full(steps, -profile.false)
    inside = np.full(steps, -1)
    for k, (first, last) in enumerate(windows):
        width = last - first + 1
        behind = np.arange(1, steps - last)  # steps after it; a later window overwrites its part
        weight[last + 1 :] = scaled_sigmoid(behind / max(width - 1, 1)) * profile.false
        place = -np.arange(width, 0, -1) / width
        weight[first : last + 1] = scaled_sigmoid(place) * (profile.hit / scaled_sigmoid(-1.0))
        inside[first : last + 1] = k
    return weight, inside


def file_curve(
    score: np.ndarray, windows: Windows, learn: int, profile: Profile, thresholds: np.ndarray
) -> np.ndarray:
    """Return the raw score of one file at each of the ascending thresholds.

    NaN scores never detect; the first `learn` steps do not count.
    """
    weight, inside = step_weights(len(score), windows, profile)
    score = np.where(np.isnan(score), -np.inf, score)
    outside = np.flatnonzero(inside[learn:] < 0) + learn
    order = outside[np.argsort(score[outside], kind="stable")]
    # cost of all from the k-th smallest up
    cost = np.concatenate([np.cumsum(weight[order][::-1])[::-1], [0.0]])
    total = cost[np.searchsorted(score[order], thresholds, side="left")]
    for k in np.unique(inside[learn:]):
        if k < 0:
            continue
        here = np.flatnonzero(inside[learn:] == k) + learn
        earliest = np.searchsorted(np.maximum.accumulate(score[here]), thresholds, side="left")
        total = total + np.append(weight[here], -profile.miss)[earliest]
    return total


def limits(windows: Windows, learn: int, profile: Profile) -> tuple[float, float]:
    """Return the raw scores of no detections and of perfect ones on one file.

    A window that ends within the learning part counts for neither.
    """
    counted = sum(last >= learn for _, last in windows)
    return -profile.miss * counted, profile.hit * counted


def thresholds_of(
    scores: Sequence[np.ndarray], learns: Sequence[int], at_most: int | None = None
) -> np.ndarray:
    """Return all scores, ascending, and infinity; at most `at_most` scores, at equal ranks."""
    found = np.unique(
        np.concatenate([s[learn:][np.isfinite(s[learn:])] for s, learn in zip(scores, learns)])
    )
    if at_most is not None and len(found) > at_most:
        found = found[np.unique(np.linspace(0, len(found) - 1, at_most).astype(int))]
    return np.append(found, np.inf)


class Sheet(NamedTuple):
    """The raw scores of all files at all thresholds, and those of no and of perfect detections."""

    thresholds: np.ndarray  # (thresholds,) ascending
    raw: np.ndarray  # (files, thresholds)
    null: np.ndarray  # (files,)
    perfect: np.ndarray  # (files,)

    def normalised(self, files: np.ndarray) -> np.ndarray:
        """Return the NAB score of these files at each threshold."""
        null = self.null[files].sum()
        perfect = self.perfect[files].sum()
        return 100 * (self.raw[files].sum(axis=0) - null) / (perfect - null)


def sheet(
    scores: Sequence[np.ndarray],
    windows: Sequence[Windows],
    learns: Sequence[int],
    profile: Profile,
    at_most: int | None = None,
) -> Sheet:
    """Score every file at every threshold."""
    thresholds = thresholds_of(scores, learns, at_most)
    raw = np.array(
        [
            file_curve(s, w, learn, profile, thresholds)
            for s, w, learn in zip(scores, windows, learns)
        ]
    )
    ends = np.array([limits(w, learn, profile) for w, learn in zip(windows, learns)])
    return Sheet(thresholds, raw, ends[:, 0], ends[:, 1])


def official(sheet: Sheet) -> tuple[float, float]:
    """Return (NAB score, threshold) of the official sweep: the one best threshold for all files."""
    curve = sheet.normalised(np.arange(len(sheet.raw)))
    best = int(np.argmax(curve))
    return float(curve[best]), float(sheet.thresholds[best])


def halves(groups: Sequence[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the files into two halves, each group evenly; an odd one goes to the smaller half."""
    sides: tuple[list[int], list[int]] = ([], [])
    for group in sorted(set(groups)):
        members = rng.permutation([i for i, g in enumerate(groups) if g == group])
        first = int(len(sides[0]) > len(sides[1]))
        sides[first].extend(members[::2])
        sides[1 - first].extend(members[1::2])
    return np.sort(sides[0]), np.sort(sides[1])


def half_splits(sheet: Sheet, groups: Sequence[str], splits: int = 50, seed: int = 0) -> np.ndarray:
    """Return NAB scores of one half at the best threshold of the other half, (2 * splits,)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        a, b = halves(groups, rng)
        on_a = sheet.normalised(a)
        on_b = sheet.normalised(b)
        found += [on_b[np.argmax(on_a)], on_a[np.argmax(on_b)]]
    return np.array(found)
