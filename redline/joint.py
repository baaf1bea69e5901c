"""Detectors that look across the features of a stream: a step may be strange though each of its numbers is not."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from detectors import CEILING, Array, Detector, State, Verdict, first_seen, joined

LIMIT = 1000.0  # spreads: farther from the centre is no stranger
GRID = 64  # cells per unit of distance in the table that turns distances into deviations


@dataclass
class Joint(Detector):
    """A joint detector that learns in blocks: it writes `learn` and `judge`, both in spreads from the centre of each feature.

    Centre and spread (mean and standard deviation of the last `window` steps) and all that is learned are renewed at the absolute multiples
    of window / `refits` steps. A step is missing when all its features are; a feature with too little past counts as missing.
    A feature on the unwatched side counts as at its centre.
    """

    joint: ClassVar[bool] = True
    refits: ClassVar[int] = 8  # a window

    @abstractmethod
    def learn(self, z: Array, rows: Array) -> None:
        """Take in the window, z (window, streams, features), 0 = missing; rows (window, streams): which steps were seen."""

    @abstractmethod
    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """(score (steps, streams), parts (steps, streams, features)) of z (steps, streams, features), 0 where not `known`."""

    @property
    def block(self) -> int:
        """Steps from one renewal to the next."""
        return max(1, self.window // self.refits)

    def begin(self, shape: tuple[int, ...]) -> State:
        """The window, each step in its place by the clock; centre and spread of each feature, NaN = too little past."""
        return {"past": np.full((self.window, *shape), np.nan), "centre": np.full(shape, np.nan), "spread": np.ones(shape)}

    def advance(self, x: Any) -> Verdict:
        """Score each block by what was learned before it, then learn it."""
        x = self.read(x)
        score, parts = joined([self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)])
        return Verdict(score, parts=parts)

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        held = self._held
        z = np.clip((rows - held["centre"]) / held["spread"], -LIMIT, LIMIT)
        known = z == z
        if self.direction != "both":
            z = np.maximum(z, 0.0) if self.direction == "high" else np.minimum(z, 0.0)
        score, parts = self.judge(np.where(known, z, 0.0), known)
        silent = ~known.any(axis=-1)
        score[silent] = parts[silent] = np.nan
        held["past"][(int(held["step"]) + np.arange(len(rows))) % self.window] = rows
        if offset + len(rows) == self.block:
            self._renew()
        return score, parts

    def _renew(self) -> None:
        held, past = self._held, self._held["past"]
        seen = past == past
        anchor = first_seen(past.reshape(1, self.window, -1))[0].reshape(past.shape[1:])
        x, n = np.where(seen, past - anchor, 0.0), np.maximum(seen.sum(axis=0), 1)
        mean = x.sum(axis=0) / n
        x = np.where(seen, x - mean, 0.0)
        held["centre"] = np.where(n < self.least, np.nan, anchor + mean)
        held["spread"] = np.maximum(np.sqrt((x * x).sum(axis=0) / n), self._floor)
        self.learn(np.where(n < self.least, 0.0, np.clip(x / held["spread"], -LIMIT, LIMIT)), seen.any(axis=-1))


@dataclass
class Mahalanobis(Joint):
    """How far from the centre of the last `window` steps, measured along the features' own correlations.

    d**2 = z' R**-1 z, z = (x - mean) / std, R the correlations shrunk by SHRINK towards independence; the score is the |z| as rare as d is with that
    many independent Gaussian features, so with one feature it is |z|. `parts` are the squares of R**-1/2 z. A missing feature stands where the others
    let expect it, so it adds nothing. Cost: features**2 per step, features**3 per renewal and stream.
    When it fails: outliers in the window stretch the ellipse; what is no ellipse (two operating points) hides what lies between them.
    Source: P. C. Mahalanobis, On the Generalised Distance in Statistics, 1936; the shares: P. H. Garthwaite, I. Koch, Evaluating the Contributions of
    Individual Variables to a Quadratic Form, 2016.

    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(400, 1, 1)) + 0.1 * rng.normal(size=(400, 1, 2))
    >>> Mahalanobis().fit(x).score([[[1.0, 1.0]], [[1.0, -1.0]]]).ravel().round(1)
    array([ 0.6, 13.5])
    """

    SHRINK: ClassVar[float] = 1e-3  # of a correlation; features that always moved as one keep a believable difference

    def begin(self, shape: tuple[int, ...]) -> State:
        """R**-1/2 and R**-1 of each stream."""
        unit = np.broadcast_to(np.eye(shape[1]), (*shape, shape[1]))
        return {**super().begin(shape), "whiten": unit.copy(), "precision": unit.copy()}

    def learn(self, z: Array, rows: Array) -> None:
        """The roots of the correlations."""
        held, features = self._held, z.shape[-1]
        products = np.einsum("wsf,wsg->sfg", z, z)
        size = np.sqrt(np.einsum("sff->sf", products))  # 0 = never moved
        size[size == 0] = 1.0
        shrunk = (1 - self.SHRINK) * products / (size[:, :, None] * size[:, None, :])
        shrunk[:, range(features), range(features)] = 1.0
        values, vectors = np.linalg.eigh(shrunk)
        values = np.maximum(values, self.SHRINK / 2)[:, None, :]
        held["whiten"] = np.einsum("sfe,sge->sfg", vectors / np.sqrt(values), vectors)
        held["precision"] = np.einsum("sfe,sge->sfg", vectors / values, vectors)

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """The length of the whitened deviation, as rare as a Gaussian's."""
        partly: Array = np.logical_and(known.any(axis=-1), ~known.all(axis=-1))
        if partly.any():
            z[partly] = self._expected(z, known, partly)
        white = spanned(self._held["whiten"], z)
        squares = white * white
        squared = squares.sum(axis=-1)
        score = as_rare(np.sqrt(squared), known.sum(axis=-1))
        return score, squares * (score / np.where(squared > 0, squared, 1.0))[..., None]

    def _expected(self, z: Array, known: Array, partly: Array) -> Array:
        """The rows that are partly known, (rows, features), completed by the conditional mean of the rest."""
        precision = np.broadcast_to(self._held["precision"], (*z.shape, z.shape[-1]))[partly]  # (rows, features, features)
        gone = ~known[partly]
        pull = -spanned(precision[None], z[partly])
        system = np.where(gone[:, :, None] & gone[:, None, :], precision, np.eye(z.shape[-1]))
        filled: Array = z[partly] + np.linalg.solve(system, np.where(gone, pull, 0.0)[..., None])[..., 0]
        return filled


def spanned(matrix: Array, z: Array) -> Array:
    """matrix (..., features, features) times z (..., features), one feature after another, so that no bit depends on the number of steps."""
    out = matrix[..., 0] * z[..., :1]
    for feature in range(1, z.shape[-1]):
        out = out + matrix[..., feature] * z[..., feature : feature + 1]
    return out


def as_rare(distance: Array, features: Array) -> Array:
    """The |z| that is exceeded as rarely as the length of so many independent Gaussians exceeds `distance`; linear between multiples of 1 / GRID."""
    table = rarity(int(features.max(initial=1)))
    place = np.minimum(distance * GRID, table.shape[1] - 1.001)
    cell = place.astype(int)
    rows = np.maximum(features - 1, 0)
    low, high = table[rows, cell], table[rows, cell + 1]
    score: Array = np.minimum(low + (place - cell) * (high - low), CEILING)
    return score


@lru_cache(maxsize=8)
def rarity(features: int) -> Array:
    """(features, cells): |z| for each length, for 1, 2, ... features; from the logarithms of the tails."""
    length, z = (np.arange(2 * int(CEILING) * cells) / cells for cells in (GRID, 16 * GRID))
    half, one = length**2 / 2, log_tail(z)
    tails = [one[::16], -half]
    with np.errstate(divide="ignore"):
        for more in range(3, features + 1):
            tails.append(np.logaddexp(tails[-2], (more / 2 - 1) * np.log(half) - half - math.lgamma(more / 2)))
    return np.stack([length, *(np.interp(-tail, -one, z) for tail in tails[1:])])[:features]


def log_tail(z: Array) -> Array:
    """The logarithm of how often a Gaussian lies beyond +-z; z ascending from 0."""
    near, far = np.split(z, [np.searchsorted(z, 30.0)])
    tail = -(far**2) / 2 - np.log(far * math.sqrt(math.pi / 2)) + np.log1p(-1 / far**2 + 3 / far**4)
    return np.concatenate(([math.log(math.erfc(each / math.sqrt(2))) for each in near.tolist()], tail))
