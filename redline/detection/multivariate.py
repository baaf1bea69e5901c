"""Detectors that look across the features of a stream: a step may be anomalous though each of its
numbers is not.
"""

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

MAX_SPREADS = 1000.0  # spreads: farther from the centre is no more anomalous
MAX_SQUARED_DISTANCE = 1e12  # spreads squared: without any neighbour
RARITY_GRID = 64  # cells per unit of distance in the table that turns distances into deviations


@dataclass
class JointDetector(Detector):
    """A joint detector that learns in blocks: it writes `learn` and `judge`, both in spreads from
    the centre of each feature.

    Centre and spread (mean and standard deviation of the last `window` steps) and all that is
    learned are renewed at the absolute multiples of window / `refits` steps. A step is missing when
    all its features are; a feature with too little past counts as missing. A feature on the
    unwatched side counts as at its centre.
    """

    joint: ClassVar[bool] = True
    refits: ClassVar[int] = 8  # a window
    reach: ClassVar[int] = 1  # windows learned from

    @abstractmethod
    def learn(self, z: Array) -> None:
        """Take in the last windows, z (steps, streams, features), NaN = missing."""

    @abstractmethod
    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """(raw scores (steps, streams), shares (steps, streams, features), in any unit) of z
        (steps, streams, features), 0 where not `known`.
        """

    def features(self, x: Array) -> Array:
        """What it looks at in a chunk."""
        return x

    def deviations(self, raw: Array) -> Array:
        """Return the raw scores of a whole chunk, NaN = no opinion, in standard deviations."""
        return raw

    @property
    def block(self) -> int:
        """Steps from one renewal to the next."""
        return max(1, self.window // self.refits)

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last windows, each step in its place by the clock; each feature's centre as a value
        it had and the mean's distance from it.
        """
        gauge = {
            "anchor": np.full(shape, np.nan),
            "mean": np.zeros(shape),
            "spread": np.ones(shape),
        }  # NaN = too little past
        return {"past": np.full((self.reach * self.window, *shape), np.nan), **gauge}

    def spreads(self, x: Array) -> Array:
        """How many spreads from the centre, NaN where missing or not known."""
        held = self._held
        return np.clip(
            (x - held["anchor"] - held["mean"]) / held["spread"], -MAX_SPREADS, MAX_SPREADS
        )

    def advance(self, x: Any) -> Verdict:
        """Score each block by what was learned before it, then learn it."""
        x = self.features(self.read(x))
        raw, shares = concatenate_parts(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)]
        )
        score = self.deviations(raw)
        total = shares.sum(axis=-1, keepdims=True)
        shares = np.where(total > 0, shares, 1.0) / np.where(total > 0, total, shares.shape[-1])
        return Verdict(score, parts=shares * score[..., None])

    def _piece(self, offset: int, rows: Array) -> tuple[Array, Array]:
        held = self._held
        z = self.spreads(rows)
        known = z == z
        if self.direction != "both":
            z = np.maximum(z, 0.0) if self.direction == "high" else np.minimum(z, 0.0)
        score, shares = self.judge(np.where(known, z, 0.0), known)
        score[~known.any(axis=-1)] = np.nan
        held["past"][(int(held["step"]) + np.arange(len(rows))) % len(held["past"])] = rows
        if offset + len(rows) == self.block:
            self.renew()
        return score, shares

    def renew(self) -> None:
        """Learn the last windows."""
        held = self._held
        past = self._held["past"]
        seen = past == past
        n = seen.sum(axis=0)
        anchor = first_known(past.reshape(1, len(past), -1))[0].reshape(past.shape[1:])
        x = np.where(seen, past - anchor, 0.0)
        mean = x.sum(axis=0) / np.maximum(n, 1)
        x = np.where(seen, x - mean, 0.0)
        spread = np.sqrt((x * x).sum(axis=0) / np.maximum(n, 1))
        held["anchor"], held["mean"], held["spread"] = (
            np.where(n < self.least, np.nan, anchor),
            mean,
            np.maximum(spread, self._floor),
        )
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

    SHRINK: ClassVar[float] = (
        1e-3  # of a correlation; features that always moved as one keep a believable difference
    )

    def begin(self, shape: tuple[int, ...]) -> State:
        """R**-1/2 and R**-1 of each stream."""
        unit = np.broadcast_to(np.eye(shape[1]), (*shape, shape[1]))
        return {**super().begin(shape), "whiten": unit.copy(), "precision": unit.copy()}

    def learn(self, z: Array) -> None:
        """The roots of the correlations, a missing feature being at its centre."""
        held = self._held
        features = z.shape[-1]
        seen = (z == z).any(axis=-1).sum(axis=0)
        few = 1 + 2 * (features - 1) / np.maximum(seen, 1)
        z = np.nan_to_num(z)
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
        white = span_of(self._held["whiten"], z)
        squares = white * white
        squared = squares.sum(axis=-1)
        return distance_to_deviations(np.sqrt(squared), known.sum(axis=-1)), squares

    def _expected(self, z: Array, known: Array, partly: Array) -> Array:
        """The rows that are partly known, (rows, features), completed by the conditional mean of
        the rest.
        """
        precision = np.broadcast_to(self._held["precision"], (*z.shape, z.shape[-1]))[
            partly
        ]  # (rows, features, features)
        gone = ~known[partly]
        pull = -span_of(precision[None], z[partly])
        system = np.where(gone[:, :, None] & gone[:, None, :], precision, np.eye(z.shape[-1]))
        filled: Array = (
            z[partly] + np.linalg.solve(system, np.where(gone, pull, 0.0)[..., None])[..., 0]
        )
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

    >>> x = np.random.default_rng(1).normal(size=(400, 1, 2)) + np.where(np.arange(400) % 2, 0, 20)[:, None, None]
    >>> LocalOutlierFactor().fit(x).score([[[0.0, 0.0]], [[10.0, 10.0]], [[20.0, 20.0]]]).ravel().round(1)
    array([0. , 8.2, 0.3])
    """  # noqa: E501

    neighbours: int = 10  # steps
    refits: ClassVar[int] = 4
    NEAR: ClassVar[float] = 0.05  # spreads; nothing is nearer
    SAME: ClassVar[float] = 1e-9  # of a distance: what differs by less, differs by rounding
    RARE: ClassVar[float] = (
        # deviations per log LOF of one feature; measured on Gaussian noise, as is the root of their
        # number
        2.25
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nearest = max(1, min(self.neighbours, self.least - 1))

    def begin(self, shape: tuple[int, ...]) -> State:
        """The window in spreads, far away where nothing was seen; each step's distance to its last
        neighbour, and its density.
        """
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
        """The density around each step of the window, without that step; a missing feature is at
        its centre.
        """
        held = self._held
        self_away = np.eye(self.window) * MAX_SQUARED_DISTANCE
        held["gone"] = np.where((z == z).any(axis=-1), 0.0, MAX_SQUARED_DISTANCE).T.copy()
        held["points"] = np.ascontiguousarray(np.nan_to_num(z).transpose(2, 1, 0))
        for stream in range(z.shape[1]):
            squares = sum((each[:, None] - each) ** 2 for each in held["points"][:, stream])
            distance = np.sqrt(squares + self_away + held["gone"][stream])
            last, weight = self._neighbours(distance)
            held["reach"][stream] = np.maximum(last[:, 0], self.NEAR)
            held["density"][stream] = self._nearest / (
                weight * np.maximum(distance, held["reach"][stream])
            ).sum(axis=-1)

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """The logarithm of the factor, some streams at a time."""
        raw = np.empty(z.shape[:2])
        shares = np.empty(z.shape)
        for near in cache_tiles(z.shape[:2], self.window):
            raw[near], shares[near] = self._factor(z[near], known[near], near[1])
        return raw, shares

    def _neighbours(self, distance: Array) -> tuple[Array, Array]:
        """(distance to the last of the nearest (..., 1), how much each counts (..., window)): those
        as far as the last share the places left.
        """
        last = np.sort(distance, axis=-1)[..., self._nearest - 1, None]
        nearer = distance < last * (1 - self.SAME)
        tied = (distance <= last * (1 + self.SAME)) & ~nearer
        left = self._nearest - np.count_nonzero(nearer, axis=-1)
        weight: Array = nearer + tied * (left / np.count_nonzero(tied, axis=-1))[..., None]
        return last, weight

    def _factor(self, z: Array, known: Array, streams: slice) -> tuple[Array, Array]:
        held = {
            name: self._held[name][..., streams, :]
            for name in ("points", "gone", "reach", "density")
        }
        gaps = [
            known[..., i, None] * (z[..., i, None] - points) ** 2
            for i, points in enumerate(held["points"])
        ]  # each (steps, streams, window)
        weight = z.shape[-1] / np.maximum(known.sum(axis=-1), 1)
        distance = np.sqrt(sum(gaps[1:], gaps[0]) * weight[..., None] + held["gone"])
        _, count = self._neighbours(distance)
        reach = (count * np.maximum(distance, held["reach"])).sum(axis=-1)
        density = (count * held["density"]).sum(axis=-1)
        shares = np.stack([(count * gap).sum(axis=-1) for gap in gaps], axis=-1)
        factor = np.log(density * reach / self._nearest**2)
        return np.clip(self.RARE * np.sqrt(known.sum(axis=-1)) * factor, 0.0, CEILING), shares


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

    trees: int = 25
    depth: int = 8  # levels
    seed: int = 0
    refits: ClassVar[int] = 1
    reach: ClassVar[int] = 2
    SPAN: ClassVar[int] = 8  # renewals whose range the trees are laid over
    FEW: ClassVar[int] = (
        3  # features a tree looks at; more where the trees could not look at all otherwise
    )
    FULL: ClassVar[float] = 0.1  # of the steps; a fuller place is halved
    EMPTY: ClassVar[float] = 2.0**-4  # steps
    BEYOND: ClassVar[float] = 48.0  # halvings per range
    CALM: ClassVar[float] = 4.0  # halvings; so little has no parts but even ones

    def __post_init__(self) -> None:
        super().__post_init__()
        self._floor = (
            np.concatenate((self._floor, self._floor), axis=-1) if self._floor.ndim else self._floor
        )
        self._scale = Calibration(window=4 * self.window)

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last values; ranges so far, and of now; where each tree begins, how fine it is along
        its features, and the emptiness of each leaf.
        """
        streams = shape[0]
        features = 2 * shape[1]
        both = (streams, features)
        grid = np.zeros((streams, *self._plan(features).feature.shape))
        ranges = {
            "ranges": np.full((self.SPAN, 2, *both), np.nan),
            "low": np.zeros(both),
            "wide": np.ones(both),
        }
        trees = {
            "start": grid,
            "fine": grid.copy(),
            "leaves": np.zeros((streams, self.trees, 1 << self.depth), np.float32),
        }
        return {**super().begin(both), "last": np.full(shape, np.nan), **ranges, **trees}

    def features(self, x: Array) -> Array:
        """Each value, and its change since the last one seen."""
        rows = carry_forward(x, self._held["last"])
        self._held["last"] = rows[-1].copy()
        return np.concatenate((x, x - rows[:-1]), axis=-1)

    def deviations(self, raw: Array) -> Array:
        """Calibrated; the root, because the logarithm of a Gaussian's density falls with the
        square.
        """
        with self.inside("scale", self._scale):
            return np.asarray(self._scale.update(np.sqrt(raw)))

    def learn(self, z: Array) -> None:
        """Lay the trees over the ranges, drop the steps into them."""
        held = self._held
        plan = self._plan(z.shape[-1])
        past = self._held["past"]
        held["ranges"] = np.concatenate(
            (held["ranges"][1:], [[np.fmin.reduce(past), np.fmax.reduce(past)]])
        )
        ranges = self.spreads(held["ranges"])  # (renewals, 2, streams, features)
        low = np.nan_to_num(np.fmin.reduce(ranges[:, 0]))
        high = np.nan_to_num(np.fmax.reduce(ranges[:, 1]))
        wide = np.maximum(high - low, 1.0)
        held["low"], held["wide"] = (
            low - wide / 64,
            wide * (1 + 2 / 64),
        )  # spreads; what was seen lies inside the edges
        wide = held["wide"][:, plan.feature]  # (streams, trees, features of a tree)
        held["start"], held["fine"] = (
            held["low"][:, plan.feature] + plan.begin * wide,
            plan.fine / wide,
        )
        most = max(1, CACHE_CELLS // self.window)  # streams at once
        for i in range(0, z.shape[1], most):
            near = slice(i, i + most)
            held["leaves"][near] = self._leaves(z[:, near], np.arange(z.shape[1])[near])

    def judge(self, z: Array, known: Array) -> tuple[Array, Array]:
        """The mean over the trees, and how much less it is without each feature."""
        half = z.shape[-1] // 2
        plan = self._plan(z.shape[-1])
        if self.direction != "both":
            z[..., half:] = 0.0
        outside = np.maximum(
            (z - self._held["low"]) / self._held["wide"] - 1,
            (self._held["low"] - z) / self._held["wide"],
        )
        beyond = (
            self.BEYOND * plan.feature.shape[1] / z.shape[-1] * np.maximum(outside, 0.0)
        )  # the share of the trees that look at it
        raw = np.empty(z.shape[:2])
        shares = np.zeros((*z.shape[:2], half))
        for near in cache_tiles(z.shape[:2], 4 * self.trees):
            leaf = leaf_numbers(self._places(z[near], np.arange(z.shape[1])[near[1]]))
            raw[near] = self._found(leaf, np.arange(z.shape[1])[near[1]]).sum(axis=-1) / self.trees
        raw += beyond.sum(axis=-1)
        step, stream = np.nonzero(raw > self.CALM)
        if len(step):
            less = self._less(z[step, stream], stream) + beyond[step, stream]
            shares[step, stream] = less[:, :half] + less[:, half:]
        return raw, shares

    def _less(self, z: Array, streams: Array) -> Array:
        """How much less the mean over the trees is without each feature, (rows, features), of z
        (rows, features) in these streams.
        """
        # (rows, trees, features of a tree)
        plan = self._plan(z.shape[-1])
        places = self._places(z, streams)
        leaf = leaf_numbers(places)
        instead = self._places(np.zeros_like(z), streams) - places
        found = self._found(leaf, streams)
        less = [
            found - self._found(leaf + instead[..., i], streams) for i in range(places.shape[-1])
        ]
        each: Array = np.maximum(np.stack(less, axis=-1), 0.0).reshape(len(z), -1) / self.trees
        return np.add.reduceat(each[:, plan.order], plan.first, axis=-1)

    def _plan(self, features: int) -> TreePlan:
        return tree_plan(
            self.seed,
            self.trees,
            self.depth,
            min(features, max(self.FEW, -(-features // self.trees))),
            features,
        )

    def _places(self, z: Array, streams: Array) -> Array:
        """What each of a tree's features adds to the number of the leaf, (..., trees, features of a
        tree), of z (..., features) in these streams.
        """
        plan = self._plan(z.shape[-1])
        held = self._held
        cell = np.take(z, plan.feature, axis=-1)
        cell -= held["start"][streams]
        cell *= held["fine"][streams]
        return plan.place(
            np.minimum(np.maximum(cell, 0.0, out=cell), plan.last, out=cell).astype(np.intp)
        )

    def _found(self, leaf: Array, streams: Array) -> Array:
        """The emptiness of these leaves, (..., trees), in these streams."""
        leaves = self._held["leaves"]  # (streams, trees, leaves)
        first = (streams[:, None] * self.trees + np.arange(self.trees)) * leaves.shape[-1]
        found: Array = np.take(leaves, first + leaf).astype(np.float64)
        return found

    def _leaves(self, z: Array, streams: Array) -> Array:
        """The emptiness of each leaf, (streams, trees, leaves), when z (steps, streams, features)
        is dropped into the trees.
        """
        seen = (z == z).any(axis=-1)
        leaf = leaf_numbers(self._places(np.nan_to_num(z), streams))
        size = (1 << self.depth, z.shape[1], self.trees)
        leaf = leaf * (size[1] * size[2]) + np.arange(size[1] * size[2]).reshape(size[1:])
        layers = [
            np.bincount(leaf[seen].ravel(), minlength=math.prod(size))
            .reshape(size)
            .astype(np.float32)
        ]  # steps
        for _ in range(self.depth):
            layers.append(layers[-1][::2] + layers[-1][1::2])
        few = (self.FULL * seen.sum(axis=0)[:, None]).astype(np.float32)
        full = np.maximum(
            layers[-1], np.float32(self.EMPTY)
        )  # density; a place that is not halved hands its own down
        for depth, (above, steps) in enumerate(pairwise(reversed(layers)), start=1):
            own = np.maximum(steps, np.float32(self.EMPTY)).reshape(
                len(above), 2, *size[1:]
            ) * np.float32(1 << depth)
            full = np.where((above <= few)[:, None], full[:, None], own).reshape(steps.shape)
        return np.moveaxis(np.log2(full.max(axis=0) / full), 0, -1)


def leaf_numbers(places: Array) -> Array:
    """The number of each leaf, from what each of its tree's features adds; whole arrays added, for
    the features are few.
    """
    return reduce(np.add, np.moveaxis(places, -1, 0))


class TreePlan(NamedTuple):
    """The random part of a forest; all but the last two (trees, features of a tree, ...)."""

    feature: Array  # which
    begin: Array  # where the tree begins, of the feature's range
    fine: Array  # cells per range
    last: Array  # cell
    # (.., cells) what a cell adds to the number of the leaf: its bits, put where the tree halves
    # this feature
    places: Array
    order: Array  # (trees * features of a tree,) by feature
    first: Array  # (features,) of each feature in that order

    def place(self, cell: Array) -> Array:
        """What these cells add, (..., trees, features of a tree)."""
        first = np.arange(self.feature.size).reshape(self.feature.shape) * self.places.shape[-1]
        found: Array = np.take(self.places, cell + first)
        return found


@lru_cache(maxsize=32)
def tree_plan(seed: int, trees: int, depth: int, few: int, features: int) -> TreePlan:
    """Features are dealt to the trees until all are dealt, then again; the rest depends on the seed
    and each tree's number alone.
    """
    rounds = -(-trees * few // features)
    feature = np.concatenate(
        [np.random.default_rng((seed, trees, deal)).permutation(features) for deal in range(rounds)]
    )[: trees * few]
    draws = [np.random.default_rng((seed, tree)) for tree in range(trees)]
    halved = np.stack([draw.integers(few, size=depth) for draw in draws])[
        :, None
    ]  # (trees, 1, levels)
    centre = np.stack([draw.random(few) for draw in draws])
    reach = 2 * np.maximum(centre, 1 - centre)  # so that one end of the range is an edge of a place
    mine = halved == np.arange(few)[:, None]  # (trees, features of a tree, levels)
    bit = mine[..., ::-1].cumsum(axis=-1)[..., ::-1] - 1  # of the cell, that stands at this level
    cells = 2.0 ** mine.sum(axis=-1)
    cell = np.arange(1 << depth)
    places = np.zeros((trees, few, 1 << depth), np.intp)
    for level in range(depth):
        places += (mine[..., level, None] & (cell >> np.maximum(bit[..., level, None], 0))) << (
            depth - 1 - level
        )
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


def span_of(matrix: Array, z: Array) -> Array:
    """matrix (..., features, features) times z (..., features), one feature after another, so that
    no bit depends on the number of steps.
    """
    out = matrix[..., 0] * z[..., :1]
    for feature in range(1, z.shape[-1]):
        out = out + matrix[..., feature] * z[..., feature : feature + 1]
    return out


def distance_to_deviations(distance: Array, features: Array) -> Array:
    """The |z| that is exceeded as rarely as the length of so many independent Gaussians exceeds
    `distance`; linear between multiples of 1 / GRID.
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
    """(features, cells): |z| for each length, for 1, 2, ... features; from the logarithms of the
    tails.
    """
    length, z = (
        np.arange(2 * int(CEILING) * cells) / cells for cells in (RARITY_GRID, 16 * RARITY_GRID)
    )
    half = length**2 / 2
    one = log_tail(z)
    tails = [one[::16], -half]
    with np.errstate(divide="ignore"):
        for more in range(3, features + 1):
            tails.append(
                np.logaddexp(
                    tails[-2], (more / 2 - 1) * np.log(half) - half - math.lgamma(more / 2)
                )
            )
    return np.stack([length, *(np.interp(-tail, -one, z) for tail in tails[1:])])[:features]


def log_tail(z: Array) -> Array:
    """The logarithm of how often a Gaussian lies beyond +-z; z ascending from 0."""
    near, far = np.split(z, [np.searchsorted(z, 30.0)])
    tail = -(far**2) / 2 - np.log(far * math.sqrt(math.pi / 2)) + np.log1p(-1 / far**2 + 3 / far**4)
    return np.concatenate(
        ([math.log(math.erfc(each / math.sqrt(2))) for each in near.tolist()], tail)
    )
