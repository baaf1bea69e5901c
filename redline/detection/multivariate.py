"""Joint detectors: a step may be anomalous although each of its features alone is not."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from detectors import CEILING, Calibration, Detector, State, Verdict
from redline.detection.arrays import (
    CACHE_CELLS,
    Array,
    cache_tiles,
    carry_forward,
    concatenate_parts,
    first_known,
)

MAX_SPREADS = 1000.0  # spreads; a value farther from the centre is no more anomalous
MAX_SQUARED_DISTANCE = 1e12  # spreads squared, the distance to what is no neighbour
RARITY_GRID = 64  # cells per unit of distance in the table that turns distances into deviations


@dataclass
class JointDetector(Detector):
    """Base of the joint detectors that learn in blocks.

    A subclass defines `learn` and `judge`; both take values in spreads from the centre of each
    feature. Centre and spread (mean and standard deviation of the last `window` steps) and all that
    is learned are renewed at the absolute multiples of window / `refits` steps. A step is missing
    when all its features are; a feature with too little past counts as missing. A feature on the
    unwatched side counts as at its centre.
    """

    joint: ClassVar[bool] = True
    refits: ClassVar[int] = 8  # renewals per window
    reach: ClassVar[int] = 1  # windows learned from

    @abstractmethod
    def learn(self, z: Array) -> None:
        """Learn the last windows, z (steps, streams, features), NaN = missing."""

    @abstractmethod
    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """Return raw scores (steps, streams) and shares (steps, streams, features), in any unit.

        z: (steps, streams, features), 0 where not `known`.
        """

    def features(self, x: Array) -> Array:
        """Return the features that are judged, from those of a chunk."""
        return x

    def deviations(self, raw: Array) -> Array:
        """Convert the raw scores of a whole chunk, NaN = no opinion, to standard deviations."""
        return raw

    @property
    def block(self) -> int:
        """Return the steps from one renewal to the next."""
        return max(1, self.window // self.refits)

    @property
    def renewals(self) -> tuple[int, ...]:
        return (self.block,)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last windows as a ring buffer, and the centre and spread of each feature.

        The centre is `anchor`, a value the feature had, plus `mean`, the distance from it.
        """
        return {
            "past": np.full((self.reach * self.window, *shape), np.nan),
            "anchor": np.full(shape, np.nan),  # NaN = too little past
            "mean": np.zeros(shape),
            "spread": np.ones(shape),
        }

    def spreads(self, x: Array) -> Array:
        """Return the distances from the centre in spreads, NaN where missing or too little past."""
        state = self._state
        deviation = x - state["anchor"] - state["mean"]
        return np.clip(deviation / state["spread"], -MAX_SPREADS, MAX_SPREADS)

    def advance(self, x: Any) -> Verdict:
        """Score each block by what was learned before it, then learn it."""
        x = self.features(self.read(x))
        raw, shares = concatenate_parts(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)]
        )
        score = self.deviations(raw)
        total = shares.sum(axis=-1, keepdims=True)  # (steps, streams, 1)
        some = total > 0  # where not, all features share alike
        shares = np.where(some, shares, 1.0) / np.where(some, total, shares.shape[-1])
        return Verdict(score, parts=shares * score[..., None])

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        """Judge a piece of a block, then store it; at the end of the block, learn."""
        state = self._state
        z = self.spreads(rows)
        known = z == z
        if self.direction == "high":
            z = np.maximum(z, 0.0)
        elif self.direction == "low":
            z = np.minimum(z, 0.0)
        score, shares = self.judge(np.where(known, z, 0.0), known)
        score[~known.any(axis=-1)] = np.nan
        past = state["past"]
        steps = int(state["step"]) + np.arange(len(rows))
        past[steps % len(past)] = rows
        if offset + len(rows) == self.block:
            self.renew()
        return score, shares

    def renew(self) -> None:
        """Compute centre and spread of the last windows, then learn them."""
        state = self._state
        past = state["past"]  # (steps, streams, features)
        seen = past == past
        n = seen.sum(axis=0)  # (streams, features)
        anchor = first_known(past.reshape(1, len(past), -1))[0].reshape(past.shape[1:])
        x = np.where(seen, past - anchor, 0.0)
        mean = x.sum(axis=0) / np.maximum(n, 1)
        x = np.where(seen, x - mean, 0.0)
        spread = np.sqrt((x * x).sum(axis=0) / np.maximum(n, 1))
        state["anchor"] = np.where(n < self.least, np.nan, anchor)
        state["mean"] = mean
        state["spread"] = np.maximum(spread, self._floor)
        self.learn(self.spreads(past))


@dataclass
class Mahalanobis(JointDetector):
    """How far from the centre of the last `window` steps, measured along the features' own
    correlations.

    d**2 = z' R**-1 z, z = (x - mean) / std, R the correlations shrunk by SHRINK towards
    independence, times 1 + 2 (features - 1) / window for being estimated; the score is the |z| as
    rare as d is with so many independent Gaussian features, so with one feature it is |z|. `parts`
    are the squares of R**-1/2 z. A missing feature stands where the others let expect it, so it
    adds nothing. Cost: features**2 per step, features**3 per renewal and stream. When it fails:
    outliers in the window stretch the ellipse; what is no ellipse (two operating points) hides what
    is between. Source: P. C. Mahalanobis, On the Generalised Distance in Statistics, 1936; the
    shares: P. H. Garthwaite, I. Koch, Evaluating the Contributions of Individual Variables to a
    Quadratic Form, 2016.

    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(400, 1, 1)) + 0.1 * rng.normal(size=(400, 1, 2))
    >>> Mahalanobis().fit(x).score([[[1.0, 1.0]], [[1.0, -1.0]]]).ravel().round(1)
    array([ 0.6, 13.4])
    """

    # share of a correlation; features that always moved together keep a believable difference
    SHRINK: ClassVar[float] = 1e-3

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return R**-1/2 and R**-1 of each stream besides the last windows."""
        unit = np.broadcast_to(np.eye(shape[1]), (*shape, shape[1]))
        return {**super().begin(shape), "whiten": unit.copy(), "precision": unit.copy()}

    def learn(self, z: Array) -> None:
        """Compute R**-1/2 and R**-1; a missing feature counts as at its centre."""
        state = self._state
        features = z.shape[-1]
        seen = (z == z).any(axis=-1).sum(axis=0)  # (streams,) steps
        inflation = 1 + 2 * (features - 1) / np.maximum(seen, 1)  # R is estimated from few steps
        z = np.nan_to_num(z)
        products = np.einsum("wsf,wsg->sfg", z, z)  # (streams, features, features)
        size = np.sqrt(np.einsum("sff->sf", products))  # 0 = never moved
        size[size == 0] = 1.0
        shrunk = (1 - self.SHRINK) * products / (size[:, :, None] * size[:, None, :])
        shrunk[:, range(features), range(features)] = 1.0
        values, vectors = np.linalg.eigh(shrunk)
        # (streams, features) -> (streams, 1, features), one for each eigenvector
        values = (np.maximum(values, self.SHRINK / 2) * inflation[:, None])[:, None, :]
        state["whiten"] = np.einsum("sfe,sge->sfg", vectors / np.sqrt(values), vectors)
        state["precision"] = np.einsum("sfe,sge->sfg", vectors / values, vectors)

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """Return the |z| as rare as the length of the whitened deviation, and its squares."""
        partly: Array = np.logical_and(known.any(axis=-1), ~known.all(axis=-1))
        if partly.any():
            z[partly] = self._complete(z, known, partly)
        white = multiply_in_order(self._state["whiten"], z)
        squares = white * white
        distance = np.sqrt(squares.sum(axis=-1))
        return distance_to_deviations(distance, known.sum(axis=-1)), squares

    def _complete(self, z: Array, known: Array, partly: Array) -> Array:
        """Return the partly known steps, (rows, features), completed by the conditional mean.

        partly: (steps, streams) bool, which they are.
        """
        features = z.shape[-1]
        rows = z[partly]  # (steps, streams, features) -> (rows, features)
        gone = ~known[partly]
        # (rows, features, features), that of each row's stream
        precision = np.broadcast_to(self._state["precision"], (*z.shape, features))[partly]
        pull = -multiply_in_order(precision[None], rows)
        system = np.where(gone[:, :, None] & gone[:, None, :], precision, np.eye(features))
        missing = np.linalg.solve(system, np.where(gone, pull, 0.0)[..., None])[..., 0]
        filled: Array = rows + missing
        return filled


@dataclass
class LocalOutlierFactor(JointDetector):
    """How much thinner the last `window` steps lie around a step than around its nearest neighbours
    there.

    LOF = mean density of the neighbours / density of the step, density = 1 / mean reach to the
    `neighbours` nearest, reach = max(distance, the neighbour's own distance to its last one, NEAR);
    distances in spreads, over the features that are there; those as far as the last share its
    place. Score = RARE * sqrt(features) * log LOF, a fixed map. `parts` are the features' shares of
    the squared distances to the neighbours. Cost: window * features per step, window**2 * features
    per renewal and stream. When it fails: more than `neighbours` anomalies alike are a
    neighbourhood of their own; of a few values that return, one seen less than `neighbours` times
    is an outlier. Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, LOF: Identifying
    Density-Based Local Outliers, 2000.

    >>> x = np.random.default_rng(1).normal(size=(400, 1, 2))
    >>> x[::2] += 20
    >>> y = [[[0.0, 0.0]], [[10.0, 10.0]], [[20.0, 20.0]]]
    >>> LocalOutlierFactor().fit(x).score(y).ravel().round(1)
    array([0. , 8.2, 0.3])
    """

    neighbours: int = 10  # steps
    refits: ClassVar[int] = 4
    NEAR: ClassVar[float] = 0.05  # spreads; nothing is nearer
    SAME: ClassVar[float] = 1e-9  # of a distance: what differs by less, differs by rounding
    # deviations per log LOF of one feature; measured on Gaussian noise, as is the root of features
    RARE: ClassVar[float] = 2.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nearest = max(1, min(self.neighbours, self.least - 1))

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the window in spreads, and what is known of each of its steps."""
        streams, features = shape
        size = (streams, self.window)
        return {
            **super().begin(shape),
            "points": np.zeros((features, *size)),
            "gone": np.zeros(size),  # added to squared distances, large where the step is missing
            "reach": np.ones(size),  # distance to its last neighbour
            "density": np.ones(size),
        }

    def learn(self, z: Array) -> None:
        """Compute the density around each step of the window, itself left out.

        A missing feature counts as at its centre.
        """
        state = self._state
        self_away = np.eye(self.window) * MAX_SQUARED_DISTANCE  # no step is its own neighbour
        state["gone"] = np.where((z == z).any(axis=-1), 0.0, MAX_SQUARED_DISTANCE).T.copy()
        # (steps, streams, features) -> (features, streams, window)
        state["points"] = np.ascontiguousarray(np.nan_to_num(z).transpose(2, 1, 0))
        for stream in range(z.shape[1]):
            # (window, window), summed over the features
            squares = sum((each[:, None] - each) ** 2 for each in state["points"][:, stream])
            distance = np.sqrt(squares + self_away + state["gone"][stream])
            last, weight = self._neighbours(distance)
            reach = np.maximum(last[:, 0], self.NEAR)  # (window,)
            total = (weight * np.maximum(distance, reach)).sum(axis=-1)
            state["reach"][stream] = reach
            state["density"][stream] = self._nearest / total

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """Return deviations from the logarithm of the factor, a cacheful of streams at a time."""
        raw = np.empty(z.shape[:2])
        shares = np.empty(z.shape)
        for near in cache_tiles(z.shape[:2], self.window):
            raw[near], shares[near] = self._factor(z[near], known[near], near[1])
        return raw, shares

    def _neighbours(self, distance: Array) -> tuple[Array, Array]:
        """Return the distance to the last neighbour, (..., 1), and the weights, (..., window).

        Those as far as the last neighbour share the places that are left.
        """
        last = np.sort(distance, axis=-1)[..., self._nearest - 1, None]
        nearer = distance < last * (1 - self.SAME)
        tied = (distance <= last * (1 + self.SAME)) & ~nearer
        left = self._nearest - np.count_nonzero(nearer, axis=-1)
        share = left / np.count_nonzero(tied, axis=-1)  # of a place, for each of those tied
        weight: Array = nearer + tied * share[..., None]
        return last, weight

    def _factor(self, z: Array, known: Array, streams: slice) -> tuple[Array, Array]:
        """Return what `judge` does for some streams, z (steps, streams, features)."""
        state = self._state
        features = known.sum(axis=-1)  # (steps, streams), how many are known
        # one for each feature, (steps, streams, window)
        squares = [
            known[..., i, None] * (z[..., i, None] - points) ** 2
            for i, points in enumerate(state["points"][:, streams])
        ]
        rescale = z.shape[-1] / np.maximum(features, 1)  # for the features that are missing
        squared = sum(squares[1:], squares[0]) * rescale[..., None]
        distance = np.sqrt(squared + state["gone"][streams])
        _, weight = self._neighbours(distance)
        # (steps, streams, window) -> (steps, streams)
        reach = (weight * np.maximum(distance, state["reach"][streams])).sum(axis=-1)
        density = (weight * state["density"][streams]).sum(axis=-1)
        shares = np.stack([(weight * square).sum(axis=-1) for square in squares], axis=-1)
        factor = np.log(density * reach / self._nearest**2)
        return np.clip(self.RARE * np.sqrt(features) * factor, 0.0, CEILING), shares


@dataclass
class HalfSpaceTrees(JointDetector):
    """How empty a step's place is in a forest of trees that halve the space at random, filled with
    the last two windows.

    Each tree looks at FEW of the features and their changes. Each of its levels halves the range of
    one, laid 2 to 4 times as wide as that of the last SPAN renewals, and a branch ends where a
    tenth of the steps is left. Density = steps * 2**depth, EMPTY steps where there are none.
    Emptiness = mean over the trees of log2(densest place / place), plus BEYOND for each range that
    the step lies beyond it; its root goes through the calibration. `parts` are by how much it falls
    when a feature goes to its centre, where a missing one is. With a direction, no change counts.
    Cost: trees per step, trees * 2**depth per window; 4 * trees * 2**depth bytes per stream. When
    it fails: a step where many were before is never anomalous, whatever the season; it takes in a
    lasting change over two windows; windows under 48 steps are too few for a tail (2 % of noise
    over 3), and with a direction, half of the steps being at the centre, 0.2 to 2.6 % of noise are
    over 3. Source: S. C. Tan, K. M. Ting, T. F. Liu, Fast Anomaly Detection for Streaming Data,
    2011; here the trees are laid anew every window.

    >>> x = np.random.default_rng(1).normal(size=(900, 1, 2))
    >>> HalfSpaceTrees().fit(x).score([[[0.0, 0.0]], [[5.0, 5.0]]]).ravel().round(1)
    array([0. , 6.8])
    """

    newest: ClassVar[frozenset[str]] = frozenset(("last",))
    trees: int = 25
    depth: int = 8  # levels
    seed: int = 0
    refits: ClassVar[int] = 1
    reach: ClassVar[int] = 2
    SPAN: ClassVar[int] = 8  # renewals whose range the trees are laid over
    # features a tree looks at; more where the trees together would not look at all of them
    FEW: ClassVar[int] = 3
    FULL: ClassVar[float] = 0.1  # share of the steps; a fuller place is halved
    EMPTY: ClassVar[float] = 2.0**-4  # steps counted where there are none
    BEYOND: ClassVar[float] = 48.0  # halvings per range
    CALM: ClassVar[float] = 4.0  # halvings; up to so little, all features share alike

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._floor.ndim:  # of each feature, and the same of its changes
            self._floor = np.concatenate((self._floor, self._floor), axis=-1)
        self._scale = Calibration(window=4 * self.window)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last values, the ranges, and the place and the leaves of each tree."""
        streams = shape[0]
        features = 2 * shape[1]  # values, then changes
        both = (streams, features)
        per_tree = (streams, *self._plan(features).feature.shape)
        return {
            **super().begin(both),
            "last": np.full(shape, np.nan),  # the last value seen
            "ranges": np.full((self.SPAN, 2, *both), np.nan),  # lowest, highest value
            "low": np.zeros(both),  # spreads
            "wide": np.ones(both),  # spreads
            "start": np.zeros(per_tree),  # where the tree begins, spreads
            "fine": np.zeros(per_tree),  # cells per spread
            "leaves": np.zeros((streams, self.trees, 1 << self.depth), np.float32),  # emptiness
        }

    @property
    def renewals(self) -> tuple[int, ...]:
        return (self.block, self._scale.block)

    def features(self, x: Array) -> Array:
        """Return each value, and its change since the last one seen."""
        rows = carry_forward(x, self._state["last"])
        self._state["last"] = rows[-1].copy()
        return np.concatenate((x, x - rows[:-1]), axis=-1)

    def deviations(self, raw: Array) -> Array:
        """Calibrate the root: the logarithm of a Gaussian's density falls with the square."""
        with self.inside("scale", self._scale):
            return np.asarray(self._scale.update(np.sqrt(raw)))

    def learn(self, z: Array) -> None:
        """Lay the trees over the ranges of the last renewals, and drop the steps into them."""
        state = self._state
        plan = self._plan(z.shape[-1])
        past = state["past"]
        newest = [[np.fmin.reduce(past), np.fmax.reduce(past)]]  # (1, 2, streams, features)
        state["ranges"] = np.concatenate((state["ranges"][1:], newest))
        ranges = self.spreads(state["ranges"])  # (renewals, 2, streams, features)
        low = np.nan_to_num(np.fmin.reduce(ranges[:, 0]))
        high = np.nan_to_num(np.fmax.reduce(ranges[:, 1]))
        wide = np.maximum(high - low, 1.0)
        # widened, so that all that was seen lies inside the edges
        state["low"] = low - wide / 64
        state["wide"] = wide * (1 + 2 / 64)
        # (streams, features) -> (streams, trees, features of a tree)
        low_by_tree = state["low"][:, plan.feature]
        wide_by_tree = state["wide"][:, plan.feature]
        state["start"] = low_by_tree + plan.begin * wide_by_tree
        state["fine"] = plan.fine / wide_by_tree
        streams = np.arange(z.shape[1])
        most = max(1, CACHE_CELLS // self.window)  # streams at once
        for i in range(0, z.shape[1], most):
            near = slice(i, i + most)
            state["leaves"][near] = self._leaves(z[:, near], streams[near])

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """Return the mean emptiness over the trees, and its reduction without each feature."""
        half = z.shape[-1] // 2  # values, then changes
        if self.direction != "both":
            z[..., half:] = 0.0
        beyond = self._beyond(z)
        raw = np.empty(z.shape[:2])
        shares = np.zeros((*z.shape[:2], half))
        streams = np.arange(z.shape[1])
        for near in cache_tiles(z.shape[:2], 4 * self.trees):
            leaf = leaf_numbers(self._places(z[near], streams[near[1]]))
            raw[near] = self._emptiness(leaf, streams[near[1]]).sum(axis=-1) / self.trees
        raw += beyond.sum(axis=-1)
        step, stream = np.nonzero(raw > self.CALM)
        if len(step):
            less = self._reductions(z[step, stream], stream) + beyond[step, stream]
            shares[step, stream] = less[:, :half] + less[:, half:]
        return raw, shares

    def _beyond(self, z: Array) -> Array:
        """Return the emptiness of lying outside of a feature's range, same shape as z."""
        state = self._state
        above = (z - state["low"]) / state["wide"] - 1  # ranges
        below = (state["low"] - z) / state["wide"]
        looking = self._plan(z.shape[-1]).feature.shape[1]  # features of a tree
        outside = np.maximum(np.maximum(above, below), 0.0)
        # times the share of the trees that look at the feature
        beyond: Array = self.BEYOND * looking / z.shape[-1] * outside
        return beyond

    def _reductions(self, z: Array, streams: Array) -> Array:
        """Return how much less the mean emptiness is without each feature, (rows, features).

        z: (rows, features); streams: (rows,), the stream of each row.
        """
        plan = self._plan(z.shape[-1])
        places = self._places(z, streams)  # (rows, trees, features of a tree)
        leaf = leaf_numbers(places)  # (rows, trees)
        to_centre = self._places(np.zeros_like(z), streams) - places
        emptiness = self._emptiness(leaf, streams)
        less = [
            emptiness - self._emptiness(leaf + to_centre[..., i], streams)
            for i in range(places.shape[-1])
        ]
        # (rows, trees, features of a tree) -> (rows, trees * features of a tree)
        each: Array = np.maximum(np.stack(less, axis=-1), 0.0).reshape(len(z), -1) / self.trees
        return np.add.reduceat(each[:, plan.order], plan.first, axis=-1)

    def _plan(self, features: int) -> TreePlan:
        few = min(features, max(self.FEW, -(-features // self.trees)))
        return tree_plan(self.seed, self.trees, self.depth, few, features)

    def _places(self, z: Array, streams: Array) -> Array:
        """Return what each of a tree's features adds to the number of the leaf.

        z: (..., features) of these streams -> (..., trees, features of a tree).
        """
        plan = self._plan(z.shape[-1])
        state = self._state
        cell = np.take(z, plan.feature, axis=-1)
        cell -= state["start"][streams]
        cell *= state["fine"][streams]
        np.maximum(cell, 0.0, out=cell)
        np.minimum(cell, plan.last, out=cell)
        return plan.place(cell.astype(np.intp))

    def _emptiness(self, leaf: Array, streams: Array) -> Array:
        """Return the emptiness of leaves, (..., trees), of these streams."""
        leaves = self._state["leaves"]  # (streams, trees, leaves)
        first = (streams[:, None] * self.trees + np.arange(self.trees)) * leaves.shape[-1]
        found: Array = np.take(leaves, first + leaf).astype(np.float64)
        return found

    def _leaves(self, z: Array, streams: Array) -> Array:
        """Return the emptiness of each leaf, (streams, trees, leaves), with z dropped in.

        z: (steps, streams, features).
        """
        seen = (z == z).any(axis=-1)  # (steps, streams)
        size = (1 << self.depth, z.shape[1], self.trees)  # leaves, streams, trees
        column = np.arange(size[1] * size[2]).reshape(size[1:])  # (streams, trees)
        leaf = leaf_numbers(self._places(np.nan_to_num(z), streams))  # (steps, streams, trees)
        place = leaf * (size[1] * size[2]) + column  # in an array of that size, flattened
        counts = np.bincount(place[seen].ravel(), minlength=math.prod(size))
        # the steps in each place, from the leaves up to the root; each half the length
        layers = [counts.reshape(size).astype(np.float32)]
        for _ in range(self.depth):
            layers.append(layers[-1][::2] + layers[-1][1::2])
        few = (self.FULL * seen.sum(axis=0)[:, None]).astype(np.float32)
        # density, from the root down to the leaves; a place that is not halved hands its own down
        density = np.maximum(layers[-1], np.float32(self.EMPTY))
        for depth, (above, steps) in enumerate(pairwise(reversed(layers)), start=1):
            halves = (len(above), 2, *size[1:])
            own = np.maximum(steps, np.float32(self.EMPTY)).reshape(halves) * np.float32(1 << depth)
            kept = (above <= few)[:, None]
            density = np.where(kept, density[:, None], own).reshape(steps.shape)
        # (leaves, streams, trees) -> (streams, trees, leaves)
        return np.moveaxis(np.log2(density.max(axis=0) / density), 0, -1)


def leaf_numbers(places: Array) -> Array:
    """Return the number of each leaf: the sum over its tree's features, the last axis.

    Whole arrays are added, since a tree has few features.
    """
    return reduce(np.add, np.moveaxis(places, -1, 0))


class TreePlan(NamedTuple):
    """The random part of a forest; all but the last two are (trees, features of a tree, ...)."""

    feature: Array  # the index of the feature
    begin: Array  # where the tree begins, in ranges of the feature
    fine: Array  # cells per range
    last: Array  # the last cell
    # (..., cells) what a cell adds to the number of the leaf: its bits, put where the tree halves
    # this feature
    places: Array
    order: Array  # (trees * features of a tree,) by feature
    first: Array  # (features,) of each feature in that order

    def place(self, cell: Array) -> Array:
        """Return what these cells add to the number of the leaf, same shape as `cell`."""
        first = np.arange(self.feature.size).reshape(self.feature.shape) * self.places.shape[-1]
        found: Array = np.take(self.places, cell + first)
        return found


@lru_cache(maxsize=32)
def tree_plan(seed: int, trees: int, depth: int, few: int, features: int) -> TreePlan:
    """Draw the random part of a forest.

    Features are dealt to the trees until all are dealt, then again; the rest depends on the seed
    and each tree's number alone.
    """
    rounds = -(-trees * few // features)
    deals = [
        np.random.default_rng((seed, trees, number)).permutation(features)
        for number in range(rounds)
    ]
    feature = np.concatenate(deals)[: trees * few]
    draws = [np.random.default_rng((seed, tree)) for tree in range(trees)]
    # (trees, levels) -> (trees, 1, levels), which of its features a tree halves at each level
    halved = np.stack([draw.integers(few, size=depth) for draw in draws])[:, None]
    centre = np.stack([draw.random(few) for draw in draws])  # (trees, features of a tree)
    reach = 2 * np.maximum(centre, 1 - centre)  # so that one end of the range is an edge of a place
    mine = halved == np.arange(few)[:, None]  # (trees, features of a tree, levels)
    # the bit of the cell that counts at each level: the levels after it that halve the feature
    bit = mine[..., ::-1].cumsum(axis=-1)[..., ::-1] - 1
    cells = 2.0 ** mine.sum(axis=-1)
    cell = np.arange(1 << depth)
    places = np.zeros((trees, few, 1 << depth), np.intp)
    for level in range(depth):
        shift = np.maximum(bit[..., level, None], 0)
        places += (mine[..., level, None] & (cell >> shift)) << (depth - 1 - level)
    order = np.argsort(feature, kind="stable")
    first = np.searchsorted(feature[order], np.arange(features))
    return TreePlan(
        feature.reshape(trees, few),
        centre - reach,
        cells / (2 * reach),
        cells - 1,
        places,
        order,
        first,
    )


def multiply_in_order(matrix: Array, z: Array) -> Array:
    """Multiply matrix (..., features, features) by z (..., features), one feature after another.

    A matrix product's bits would depend on the number of steps.
    """
    out = matrix[..., 0] * z[..., :1]
    for feature in range(1, z.shape[-1]):
        out = out + matrix[..., feature] * z[..., feature : feature + 1]
    return out


def distance_to_deviations(distance: Array, features: Array) -> Array:
    """Return the |z| exceeded as rarely as the length of independent Gaussians exceeds `distance`.

    features: how many Gaussians, same shape. Linear between multiples of 1 / RARITY_GRID.
    """
    table = rarity_table(int(features.max(initial=1)))
    place = np.minimum(distance * RARITY_GRID, table.shape[1] - 1.001)
    cell = place.astype(int)
    rows = np.maximum(features - 1, 0)
    low = table[rows, cell]
    high = table[rows, cell + 1]
    score: Array = np.minimum(low + (place - cell) * (high - low), CEILING)
    return score


@lru_cache(maxsize=8)
def rarity_table(features: int) -> Array:
    """Return the |z| for each length and 1, 2, ... features, (features, cells).

    Computed from the logarithms of the tails, for the tails themselves underflow.
    """
    fine = 16 * RARITY_GRID
    length = np.arange(2 * int(CEILING) * RARITY_GRID) / RARITY_GRID
    z = np.arange(2 * int(CEILING) * fine) / fine
    half = length**2 / 2
    log_tail_z = log_tail(z)
    # of the length of 1, 2, ... Gaussians; each from the one two before
    tails = [log_tail_z[::16], -half]
    with np.errstate(divide="ignore"):
        for more in range(3, features + 1):
            term = (more / 2 - 1) * np.log(half) - half - math.lgamma(more / 2)
            tails.append(np.logaddexp(tails[-2], term))
    others = (np.interp(-tail, -log_tail_z, z) for tail in tails[1:])
    return np.stack([length, *others])[:features]


def log_tail(z: Array) -> Array:
    """Return the logarithm of the probability that a Gaussian lies beyond +-z, z ascending."""
    near, far = np.split(z, [np.searchsorted(z, 30.0)])
    exact = [math.log(math.erfc(each / math.sqrt(2))) for each in near.tolist()]
    # the asymptotic series, where erfc underflows
    series = np.log1p(-1 / far**2 + 3 / far**4)
    tail = -(far**2) / 2 - np.log(far * math.sqrt(math.pi / 2)) + series
    return np.concatenate((exact, tail))
