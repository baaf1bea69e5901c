"""Detectors that look across the features of a stream: a step may be strange though each of its numbers is not."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from detectors import CEILING, Array, Detector, State, Verdict, first_seen, joined, tiles

LIMIT = 1000.0  # spreads: farther from the centre is no stranger
AWAY = 1e12  # spreads squared: a neighbour of nobody
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
    def learn(self, z: Array) -> None:
        """Take in the window, z (window, streams, features), NaN = missing."""

    @abstractmethod
    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """(score (steps, streams), shares (steps, streams, features), in any unit) of z (steps, streams, features), 0 where not `known`."""

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
        score, shares = joined([self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)])
        total = shares.sum(axis=-1, keepdims=True)
        shares = np.where(total > 0, shares, 1.0) / np.where(total > 0, total, shares.shape[-1])
        return Verdict(score, parts=shares * score[..., None])

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        held = self._held
        z = np.clip((rows - held["centre"]) / held["spread"], -LIMIT, LIMIT)
        known = z == z
        if self.direction != "both":
            z = np.maximum(z, 0.0) if self.direction == "high" else np.minimum(z, 0.0)
        score, shares = self.judge(np.where(known, z, 0.0), known)
        score[~known.any(axis=-1)] = np.nan
        held["past"][(int(held["step"]) + np.arange(len(rows))) % self.window] = rows
        if offset + len(rows) == self.block:
            self._renew()
        return score, shares

    def _renew(self) -> None:
        held, past = self._held, self._held["past"]
        seen = past == past
        anchor = first_seen(past.reshape(1, self.window, -1))[0].reshape(past.shape[1:])
        x, n = np.where(seen, past - anchor, 0.0), np.maximum(seen.sum(axis=0), 1)
        mean = x.sum(axis=0) / n
        x = np.where(seen, x - mean, 0.0)
        held["centre"] = np.where(n < self.least, np.nan, anchor + mean)
        held["spread"] = np.maximum(np.sqrt((x * x).sum(axis=0) / n), self._floor)
        self.learn(np.where(seen & (n >= self.least), np.clip(x / held["spread"], -LIMIT, LIMIT), np.nan))


@dataclass
class Mahalanobis(Joint):
    """How far from the centre of the last `window` steps, measured along the features' own correlations.

    d**2 = z' R**-1 z, z = (x - mean) / std, R the correlations shrunk by SHRINK towards independence, times 1 + 2 (features - 1) / window for being
    estimated; the score is the |z| as rare as d is with so many independent Gaussian features, so with one feature it is |z|. `parts` are the
    squares of R**-1/2 z. A missing feature stands where the others let expect it, so it adds nothing. Cost: features**2 per step, features**3 per
    renewal and stream. When it fails: outliers in the window stretch the ellipse; what is no ellipse (two operating points) hides what is between.
    Source: P. C. Mahalanobis, On the Generalised Distance in Statistics, 1936; the shares: P. H. Garthwaite, I. Koch, Evaluating the Contributions of
    Individual Variables to a Quadratic Form, 2016.

    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(400, 1, 1)) + 0.1 * rng.normal(size=(400, 1, 2))
    >>> Mahalanobis().fit(x).score([[[1.0, 1.0]], [[1.0, -1.0]]]).ravel().round(1)
    array([ 0.6, 13.4])
    """

    SHRINK: ClassVar[float] = 1e-3  # of a correlation; features that always moved as one keep a believable difference

    def begin(self, shape: tuple[int, ...]) -> State:
        """R**-1/2 and R**-1 of each stream."""
        unit = np.broadcast_to(np.eye(shape[1]), (*shape, shape[1]))
        return {**super().begin(shape), "whiten": unit.copy(), "precision": unit.copy()}

    def learn(self, z: Array) -> None:
        """The roots of the correlations, a missing feature being at its centre."""
        held, features, seen = self._held, z.shape[-1], (z == z).any(axis=-1).sum(axis=0)
        few, z = 1 + 2 * (features - 1) / np.maximum(seen, 1), np.nan_to_num(z)
        products = np.einsum("wsf,wsg->sfg", z, z)
        size = np.sqrt(np.einsum("sff->sf", products))  # 0 = never moved
        size[size == 0] = 1.0
        shrunk = (1 - self.SHRINK) * products / (size[:, :, None] * size[:, None, :])
        shrunk[:, range(features), range(features)] = 1.0
        values, vectors = np.linalg.eigh(shrunk)
        values = (np.maximum(values, self.SHRINK / 2) * few[:, None])[:, None, :]
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
        return as_rare(np.sqrt(squared), known.sum(axis=-1)), squares

    def _expected(self, z: Array, known: Array, partly: Array) -> Array:
        """The rows that are partly known, (rows, features), completed by the conditional mean of the rest."""
        precision = np.broadcast_to(self._held["precision"], (*z.shape, z.shape[-1]))[partly]  # (rows, features, features)
        gone = ~known[partly]
        pull = -spanned(precision[None], z[partly])
        system = np.where(gone[:, :, None] & gone[:, None, :], precision, np.eye(z.shape[-1]))
        filled: Array = z[partly] + np.linalg.solve(system, np.where(gone, pull, 0.0)[..., None])[..., 0]
        return filled


@dataclass
class LocalOutlierFactor(Joint):
    """How much thinner the last `window` steps lie around a step than around its nearest neighbours there.

    LOF = mean density of the neighbours / density of the step, density = 1 / mean reach to the `neighbours` nearest, reach = max(distance, the
    neighbour's own distance to its `neighbours`-th, NEAR); distances in spreads over the features that are there. the score
    is RARE * sqrt(features) * log LOF, a fixed map. `parts` are the features' shares of the squared distances to the neighbours.
    Cost: window * features per step, window**2 * features per renewal and stream. When it fails: more than `neighbours` anomalies alike are a
    neighbourhood of their own; with many features all distances are alike.
    Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, LOF: Identifying Density-Based Local Outliers, 2000.

    >>> x = np.random.default_rng(1).normal(size=(400, 1, 2)) + np.where(np.arange(400) % 2, 0, 20)[:, None, None]
    >>> LocalOutlierFactor().fit(x).score([[[0.0, 0.0]], [[10.0, 10.0]], [[20.0, 20.0]]]).ravel().round(1)
    array([0. , 8.2, 0.3])
    """

    neighbours: int = 10  # steps
    refits: ClassVar[int] = 4
    NEAR: ClassVar[float] = 0.01  # spreads; nothing is nearer
    RARE: ClassVar[float] = 2.25  # deviations per log LOF of one feature; measured on Gaussian noise, as is the root of their number

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nearest = max(1, min(self.neighbours, self.least - 1))

    def begin(self, shape: tuple[int, ...]) -> State:
        """The window in spreads, far away where nothing was seen; each step's distance to its last neighbour, and its density."""
        streams, features = shape
        size = (streams, self.window)
        return {
            **super().begin(shape),
            "points": np.zeros((features, *size)),
            "gone": np.zeros(size),
            "reach": np.ones(size),
            "density": np.ones(size),
        }

    def learn(self, z: Array) -> None:
        """The density around each step of the window, without that step; a missing feature is at its centre."""
        held, self_away = self._held, np.eye(self.window) * AWAY
        held["gone"] = np.where((z == z).any(axis=-1), 0.0, AWAY).T.copy()
        held["points"] = np.ascontiguousarray(np.nan_to_num(z).transpose(2, 1, 0))
        for stream in range(z.shape[1]):
            squares = sum((each[:, None] - each) ** 2 for each in held["points"][:, stream])
            distance = np.sqrt(squares + self_away + held["gone"][stream])
            last, among = self._neighbours(distance)
            held["reach"][stream] = np.maximum(last[:, 0], self.NEAR)
            held["density"][stream] = among.sum(axis=-1) / np.where(among, np.maximum(distance, held["reach"][stream]), 0.0).sum(axis=-1)

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """The logarithm of the factor, some streams at a time."""
        raw, shares = np.empty(z.shape[:2]), np.empty(z.shape)
        for near in tiles(z.shape[:2], self.window):
            raw[near], shares[near] = self._factor(z[near], known[near], near[1])
        return raw, shares

    def _neighbours(self, distance: Array) -> tuple[Array, Array]:
        """(distance to the last of the nearest (..., 1), which are as near (..., window)): ties belong together."""
        last = np.sort(distance, axis=-1)[..., self._nearest - 1, None]
        return last, distance <= last

    def _factor(self, z: Array, known: Array, streams: slice) -> tuple[Array, Array]:
        held = {name: self._held[name][..., streams, :] for name in ("points", "gone", "reach", "density")}
        gaps = [known[..., i, None] * (z[..., i, None] - points) ** 2 for i, points in enumerate(held["points"])]  # each (steps, streams, window)
        weight = z.shape[-1] / np.maximum(known.sum(axis=-1), 1)
        distance = np.sqrt(sum(gaps[1:], gaps[0]) * weight[..., None] + held["gone"])
        _, among = self._neighbours(distance)
        reach = np.where(among, np.maximum(distance, held["reach"]), 0.0).sum(axis=-1)
        density = np.where(among, held["density"], 0.0).sum(axis=-1)
        shares = np.stack([np.where(among, gap, 0.0).sum(axis=-1) for gap in gaps], axis=-1)
        factor = np.log(density * reach / among.sum(axis=-1) ** 2)
        return np.clip(self.RARE * np.sqrt(known.sum(axis=-1)) * factor, 0.0, CEILING), shares


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
