"""What is learned over all users: how new values come, how amounts and hours scatter, and what
anomalies look like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from redline.payments.profiles import HOUR_BINS, KERNEL, KERNEL_GRID, VALUE_FEATURES, Attributes

TABLE_SIZE = 1 << 16  # cells of the hashed counts of a feature
RANKED = 3  # of VALUE_FEATURES, the first: those whose values are counted over all users
HISTORIES = 12  # classes of users by the logarithm of their number of transactions
AMOUNT_BINS = 96
AMOUNT_RANGE = (-8.0, 16.0)  # deviations
HOUR_SURPRISES = 32
HOUR_RANGE = (-10.0, 6.0)  # log2 of the density over that of a uniform hour
BITS_BINS = 320
BITS_RANGE = (-20.0, 60.0)  # evidence, bits
CALM_BITS = -5.0  # that half of the normal ones have, before any was seen
FEW_BEYOND = 20.0  # transactions; where fewer lie beyond, rarity goes on with the evidence
POPULATION_MEMORY = 500_000.0  # transactions
SHARE_PRIOR = 20.0  # transactions that the first shares of values are worth
LEAST_HISTORY = 3  # class of users from which on a new value says which values are new
FADED = 1e-12  # keeps what has faded away from 0 / 0
LEAST_RATE = 1e-6  # of new values, and of others
UNKNOWN_VALUES = 40.0  # how many values a feature has, before any was seen
COUNTS = (  # the arrays of a population that are counted; all else is computed from them
    *("usual", "fresh", "risky", "tried", "new", "odd_known", "moments", "within", "amounts"),
    *("odd_amounts", "surprises", "odd_surprises", "evidence", "hours"),
)


class Observation(NamedTuple):
    """What one transaction tells about all users; arrays (n, ...)."""

    of: Attributes
    history: np.ndarray  # (n,) class of the user by number of transactions
    known: np.ndarray  # (n, 5) 0 to 1: how sure the user has used the value before
    normal: np.ndarray  # (n,) probability
    odd: np.ndarray  # (n, 5) probability that country, category, method, amount, hour are outside
    deviation: np.ndarray  # (n,) of the amount, in standard deviations
    surprise: np.ndarray  # (n,) of the hour, as in HOUR_RANGE
    bits: np.ndarray  # (n,) evidence of all features together
    away: np.ndarray  # (n,) log amount less the user's mean, NaN = too few


def history_class(seen: np.ndarray) -> np.ndarray:
    """Return the class of users by their number of transactions so far.

    >>> history_class(np.array([0, 1, 2, 3, 7, 5_000])).tolist()
    [0, 1, 1, 2, 3, 11]
    """
    return np.minimum(np.log2(seen + 1.0).astype(np.intp), HISTORIES - 1)


def bin_of(value: np.ndarray, bounds: tuple[float, float], bins: int) -> np.ndarray:
    """Return the bin of each value; those outside are in the first or the last."""
    low, high = bounds
    cell = np.floor((value - low) * (bins / (high - low)))
    return np.clip(cell, 0, bins - 1).astype(np.intp)


def bin_centres(bounds: tuple[float, float], bins: int) -> np.ndarray:
    """Return the middle of each bin."""
    low, high = bounds
    return low + (np.arange(bins) + 0.5) * (high - low) / bins


def smooth_rows(rows: np.ndarray) -> np.ndarray:
    """Return histograms (..., bins), each bin with a part of its neighbours."""
    wide = np.concatenate((rows[..., :1], rows, rows[..., -1:]), axis=-1)
    return 0.25 * wide[..., :-2] + 0.5 * rows + 0.25 * wide[..., 2:]


class Population:
    """Counts over all users; they move once a block, so that no cut of the input changes them.

    Each begins with a believable prior that is worth some transactions.
    """

    def __init__(self) -> None:
        features = len(VALUE_FEATURES)
        self.usual = np.zeros((RANKED, TABLE_SIZE))  # counts of values among normal ones
        self.fresh = np.zeros((RANKED, TABLE_SIZE))  # among normal ones that are new to their user
        self.risky = np.zeros((RANKED, TABLE_SIZE))  # among those outside of a habit
        # [new, all] by feature and history; new values become rare as a history grows
        newness = np.minimum(1.0, 1.5 / np.exp2(np.arange(HISTORIES)))
        floor = np.array([0.01, 0.02, 0.01, 0.2, 0.01])[:, None]
        first = np.clip(newness, floor, 0.95)
        self.tried = np.full((features, HISTORIES), 20.0)
        self.new = first * self.tried
        self.odd_known = np.full((features, 2), 5.0)  # [new, known] among anomalies
        self.moments = np.array([20.0, 20 * 4.0, 20 * (16.0 + 1.0)])  # count, sum, squares
        self.within = np.array([20.0, 20 * 0.3])  # count, squares about a user's own mean
        z = bin_centres(AMOUNT_RANGE, AMOUNT_BINS)
        normal = np.exp(-0.5 * z * z) + 2e-3 * np.exp(-np.abs(z) / 3)
        above = 0.95 / (1 + np.exp(-4 * (z - 2.0))) * np.exp(-np.maximum(z - 2, 0) / 5) + 0.005
        self.amounts = 300 * np.tile(normal / normal.sum(), (HISTORIES, 1))
        self.odd_amounts = 100 * above / above.sum()
        u = bin_centres(HOUR_RANGE, HOUR_SURPRISES)
        likely = np.exp(-0.5 * ((u - 1.5) / 1.5) ** 2) + 1e-3
        self.surprises = 100 * np.tile(likely / likely.sum(), (HISTORIES, 1))
        unlikely = likely * np.exp2(-u)
        self.odd_surprises = 100 * np.tile(unlikely / unlikely.sum(), (HISTORIES, 1))
        calm = np.exp2(-np.maximum(bin_centres(BITS_RANGE, BITS_BINS) - CALM_BITS, -1e3))
        calm[bin_centres(BITS_RANGE, BITS_BINS) < CALM_BITS] = 0.0
        self.evidence = 300 * calm / calm.sum()
        self.hours = np.full(HOUR_BINS, 2.0)
        self._prepare()

    def state(self) -> dict[str, np.ndarray]:
        """Return the counts as named arrays: copies."""
        return {name: getattr(self, name).copy() for name in COUNTS}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from counts that `state` returned; their names and shapes were checked."""
        for name in COUNTS:
            setattr(self, name, state[name].copy())
        self._prepare()

    def _prepare(self) -> None:
        """Compute what scoring looks up, from the counts."""
        rate = (self.new + FADED) / (self.tried + 2 * FADED)
        self.rate_new = np.clip(rate, LEAST_RATE, 1 - LEAST_RATE)  # (5, HISTORIES)
        self.odd_new = self.odd_known[:, 0] / self.odd_known.sum(axis=1)
        count, total, squares = self.moments
        self.mean = total / count
        self.variance_within = max(self.within[1] / self.within[0], 0.01)
        spread = squares / count - self.mean**2
        self.variance_between = max(spread - self.variance_within, 0.05 * self.variance_within)
        usual = smooth_rows(self.amounts) + FADED
        odd = smooth_rows(self.odd_amounts)
        self.amount_ratio = (odd / odd.sum()) / (usual / usual.sum(axis=1, keepdims=True))
        usual = smooth_rows(self.surprises) + FADED
        odd = smooth_rows(self.odd_surprises)
        usual = usual / usual.sum(axis=1, keepdims=True)
        self.hour_ratio = (odd / odd.sum(axis=1, keepdims=True)) / usual
        self.hour_share = self.hours / self.hours.sum()
        beyond = np.cumsum(self.evidence[::-1])[::-1]
        rarity = -np.log2(beyond / beyond[0])
        last = max(1, int(np.count_nonzero(beyond >= FEW_BEYOND)) - 1)
        low, high = BITS_RANGE
        self.bits_edges = low + np.arange(BITS_BINS) * (high - low) / BITS_BINS
        further = rarity[last] + self.bits_edges[last:] - self.bits_edges[last]
        self.rarity = np.concatenate((rarity[:last], further))
        tables = (self.usual, self.fresh, self.risky)
        self._totals = [table.sum(axis=1) for table in tables]

    def shares(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of each value among normal ones that are new to their user, and among
        anomalies, (n, 3).
        """
        cell = (keys[:, :RANKED] % TABLE_SIZE).astype(np.intp)
        feature = np.arange(RANKED)
        usual, fresh, risky = self._totals
        share = self.usual[feature, cell] + SHARE_PRIOR / UNKNOWN_VALUES
        share = 0.5 * (share / (usual + SHARE_PRIOR) + 1 / UNKNOWN_VALUES)
        new = self.fresh[feature, cell] + SHARE_PRIOR * share
        odd = self.risky[feature, cell] + SHARE_PRIOR * share
        return new / (fresh + SHARE_PRIOR), odd / (risky + SHARE_PRIOR)

    def rarity_bits(self, bits: np.ndarray) -> np.ndarray:
        """Return -log2 of the share of normal transactions with so much evidence or more, (n,)."""
        rare: np.ndarray = np.interp(bits, self.bits_edges, self.rarity)
        return rare

    def learn(self, seen: Observation) -> None:
        """Learn a block of transactions."""
        keep = np.exp(-len(seen.history) / POPULATION_MEMORY)
        for name in COUNTS:
            counts = getattr(self, name)
            counts *= keep
        self._learn_values(seen)
        normal = seen.normal
        amount = seen.of.log_amount
        self.moments += np.stack((normal, normal * amount, normal * amount**2)).sum(axis=1)
        some = np.isfinite(seen.away)
        self.within += (normal[some].sum(), (normal[some] * seen.away[some] ** 2).sum())
        cell = bin_of(seen.deviation, AMOUNT_RANGE, AMOUNT_BINS)
        np.add.at(self.amounts, (seen.history, cell), normal)
        np.add.at(self.odd_amounts, cell, seen.odd[:, 3])
        cell = bin_of(seen.surprise, HOUR_RANGE, HOUR_SURPRISES)
        np.add.at(self.surprises, (seen.history, cell), normal)
        np.add.at(self.odd_surprises, (seen.history, cell), seen.odd[:, 4])
        cell = bin_of(seen.bits, BITS_RANGE, BITS_BINS)
        np.add.at(self.evidence, cell, normal)
        at = np.floor(seen.of.hour * (KERNEL_GRID / 24)).astype(np.intp)
        self.hours += (normal[:, None] * KERNEL[at]).sum(axis=0)
        self._prepare()

    def _learn_values(self, seen: Observation) -> None:
        """Learn which values there are, and how often one is new to its user."""
        given = seen.of.keys != 0
        for feature in range(len(VALUE_FEATURES)):
            rows = given[:, feature]
            if VALUE_FEATURES[feature] == "merchant_id":  # in a new category each one is new
                rows = rows & (seen.known[:, 1] >= 0.5)
            history = seen.history[rows]
            normal = seen.normal[rows]
            new = 1 - seen.known[rows, feature]
            np.add.at(self.tried[feature], history, normal)
            np.add.at(self.new[feature], history, normal * new)
            odd = 1 - normal
            self.odd_known[feature] += ((odd * new).sum(), (odd * (1 - new)).sum())
            if feature < RANKED:
                cell = (seen.of.keys[rows, feature] % TABLE_SIZE).astype(np.intp)
                np.add.at(self.usual[feature], cell, normal)
                np.add.at(self.fresh[feature], cell, normal * new * (history >= LEAST_HISTORY))
                np.add.at(self.risky[feature], cell, seen.odd[rows, feature])
