"""The profile detector: the evidence that a transaction does not fit its user, feature by feature.

Evidence is a likelihood ratio in bits: how much likelier the transaction is if it lies outside of
the habit than if it does not. Features add up. The score is on the scale of the project: the |z|
that a Gaussian exceeds as rarely as a normal transaction has so much evidence, learned over all
users. So about 3 in 1,000 normal transactions score 3 or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from detectors import CEILING
from redline.detection.multivariate import log_tail
from redline.payments.population import (
    AMOUNT_BINS,
    AMOUNT_RANGE,
    HOUR_RANGE,
    HOUR_SURPRISES,
    RANKED,
    Observation,
    Population,
    bin_of,
    history_class,
)
from redline.payments.profiles import (
    VALUE_FEATURES,
    Attributes,
    ProfileSettings,
    Standing,
    UserProfiles,
    take_attributes,
)
from redline.payments.transactions import Transactions, user_ranks

FEATURES = (*VALUE_FEATURES, "amount", "hour", "pace")
BLOCK = 4_096  # transactions between two renewals of what is learned over all users
OUTSIDE = 0.15  # probability that an anomaly is outside of the habit in one of the five kinds
NONE_OUTSIDE = (1 - OUTSIDE) ** 5
PRIOR_BITS = float(np.log2(0.05 / 0.95))  # that a transaction is anomalous
MOST_BITS = 20.0  # of evidence of one feature
LEAST_KINDS = 2.0**-12  # likelihood ratio of the five kinds together
FAST = 0.02  # of the usual gap: the mean gap of a burst
BURSTS = 0.01  # share of anomalies that come in bursts
FEW = 8.0  # transactions of a user's own that are worth as much as those of all users
OCCASIONAL = 2.0  # decayed count of a value that is taken now and then
MOVING = 0.5  # how much more frequent new values are after an anomaly
TAUGHT_TIMES = 10.0  # transactions that one is worth which a person called expected
SURE = 0.9  # decayed count from which on a value is known


class PaymentVerdict(NamedTuple):
    """What is said of each transaction."""

    score: np.ndarray  # (n,) standard deviations >= 0, at most CEILING
    parts: np.ndarray  # (n, 8) in the order of FEATURES, they add up to the score
    bits: np.ndarray  # (n,) of evidence, may be below 0
    evidence: np.ndarray  # (n, 8) bits of each feature
    deviation: np.ndarray  # (n,) of the amount from the user's, standard deviations
    known: np.ndarray  # (n, 5) decayed count of the value, in the order of VALUE_FEATURES
    seen: np.ndarray  # (n,) transactions of the user before


@lru_cache(maxsize=1)
def tail_table() -> tuple[np.ndarray, np.ndarray]:
    """Return bits of rarity, ascending, and the |z| that is exceeded so rarely."""
    z = np.arange(0, 40, 1 / 64)
    return -log_tail(z) / np.log(2), z


def bits_to_deviations(bits: np.ndarray) -> np.ndarray:
    """Return the |z| that a Gaussian exceeds with the probability 2**-bits; 0 without evidence.

    >>> bits_to_deviations(np.array([-2.0, 1.0, 8.532, 20.0])).round(2).tolist()
    [0.0, 0.67, 3.0, 4.9]
    """
    table, z = tail_table()
    score: np.ndarray = np.minimum(np.interp(np.maximum(bits, 0.0), table, z), CEILING)
    return score


def mixed_bits(ratio: np.ndarray) -> np.ndarray:
    """Return the evidence of a kind of which an anomaly is outside with the probability OUTSIDE."""
    most = 2.0**MOST_BITS
    bits: np.ndarray = np.log2(1 - OUTSIDE + OUTSIDE * np.minimum(ratio, most))
    return bits


class ProfileDetector:
    """Scores each transaction against the profile of its user, then learns it.

    Cutting the input into other batches changes no bit of the scores. Transactions of one user
    come in order; a user is learned one transaction after another, all users beside each other.
    """

    def __init__(self, settings: ProfileSettings | None = None) -> None:
        self.profiles = UserProfiles(settings)
        self.population = Population()
        self.seen = 0
        self._waiting: list[Observation] = []  # of the block that has begun

    def update(self, transactions: Transactions) -> PaymentVerdict:
        """Score transactions, then learn them."""
        of = take_attributes(transactions)
        verdicts = []
        begin = 0
        while begin < len(of.hour):
            end = min(len(of.hour), begin + BLOCK - self.seen % BLOCK)
            piece = slice(begin, end)
            verdicts.append(self._advance(transactions.user_id[piece], of.rows(piece)))
            self.seen += end - begin
            begin = end
            if self.seen % BLOCK == 0:
                self.population.learn(join_observations(self._waiting))
                self._waiting = []
        if not verdicts:
            return empty_verdict()
        return PaymentVerdict(*(np.concatenate(column) for column in zip(*verdicts)))

    def teach(self, transactions: Transactions) -> None:
        """Learn transactions that a person called expected, as TAUGHT_TIMES usual ones.

        Nothing is scored, and what is learned over all users stays as it is.

        Raises:
            ValueError: an amount or a time is not finite.
        """
        of = take_attributes(transactions)
        ranks = user_ranks(transactions.user_id)
        for rank in range(int(ranks.max(initial=-1)) + 1):
            now = ranks == rank
            rows = self.profiles.find_rows(transactions.user_id[now])
            standing = self.profiles.look_up(rows, of.rows(now))
            _, spread = self._expected_amount(standing)
            self.profiles.learn(
                rows, of.rows(now), standing, np.ones(len(rows)), spread, TAUGHT_TIMES
            )

    def state(self) -> dict[str, np.ndarray]:
        """Return all that it knows as named arrays: profiles, population, the block begun."""
        waiting = join_observations(self._waiting) if self._waiting else nothing_observed()
        block = {**waiting.of._asdict(), **waiting._asdict()}
        del block["of"]
        parts = {
            "profiles": self.profiles.saved(),
            "population": self.population.state(),
            "block": block,
        }
        named = {
            f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()
        }
        return {"seen": np.array(self.seen), **named}

    @classmethod
    def from_state(
        cls, state: Mapping[str, np.ndarray], settings: ProfileSettings | None = None
    ) -> ProfileDetector:
        """Return a detector that goes on from a state, to the same bits.

        Raises:
            ValueError: an array is missing, or of another type or shape.
        """
        detector = cls(settings)
        check_state(state, detector.state())
        block = {
            name.removeprefix("block."): state[name] for name in state if name.startswith("block.")
        }
        of = Attributes(*(block.pop(name) for name in Attributes._fields))
        detector.seen = int(state["seen"])
        if len(of.hour):
            detector._waiting = [Observation(of, **block)]
        for part, load in (
            ("profiles.", detector.profiles.load),
            ("population.", detector.population.load_state),
        ):
            load({n.removeprefix(part): a for n, a in state.items() if n.startswith(part)})
        return detector

    def _advance(self, users: np.ndarray, of: Attributes) -> PaymentVerdict:
        """Score and learn a part of a block: the first transaction of each user, then the next."""
        rows = self.profiles.find_rows(users)
        ranks = user_ranks(users)
        order = np.argsort(ranks, kind="stable")
        shares = np.stack(self.population.shares(of.keys))[:, order]  # (2, n, 3)
        ordered = of.rows(order)
        ends = np.cumsum(np.bincount(ranks))
        found = []
        for begin, end in zip((0, *ends[:-1]), ends):
            near = slice(begin, end)
            found.append(
                self._advance_users(rows[order[near]], ordered.rows(near), shares[:, near])
            )
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        verdict = PaymentVerdict(*(np.concatenate(c)[back] for c in zip(*(f[0] for f in found))))
        learned = [np.concatenate(c)[back] for c in zip(*(f[1] for f in found))]
        self._waiting.append(Observation(of, *learned))
        return verdict

    def _advance_users(
        self, rows: np.ndarray, of: Attributes, shares: np.ndarray
    ) -> tuple[PaymentVerdict, tuple[np.ndarray, ...]]:
        """Score and learn one transaction of each of some users.

        Return the verdict and what Observation takes beside the attributes.
        """
        standing = self.profiles.look_up(rows, of)
        history = history_class(standing.seen)
        centre, spread = self._expected_amount(standing)
        deviation = (of.log_amount - centre) / spread
        surprise = self._hour_density(standing, of)
        population = self.population
        cell = bin_of(deviation, AMOUNT_RANGE, AMOUNT_BINS)
        amount = population.amount_ratio[history, cell]
        cell = bin_of(surprise, HOUR_RANGE, HOUR_SURPRISES)
        hour = population.hour_ratio[history, cell]
        values, known = self._value_ratios(standing, of, history, shares)
        ratios = np.concatenate((values[:, :RANKED], amount[:, None], hour[:, None]), axis=1)
        kinds = mixed_bits(ratios)  # (n, 5) country, category, method, amount, hour
        together = kinds[:, 0] + kinds[:, 1] + kinds[:, 2] + kinds[:, 3] + kinds[:, 4]
        # at least one of the kinds is outside
        one = np.maximum((np.exp2(together) - NONE_OUTSIDE) / (1 - NONE_OUTSIDE), LEAST_KINDS)
        flat = np.abs(together) < 1e-9
        stretch = np.where(flat, 1.0, np.log2(one) / np.where(flat, 1.0, together))
        scaled = kinds * stretch[:, None]
        others = np.log2(values[:, RANKED:])  # (n, 2) merchant, device
        parts = np.stack((*scaled[:, :3].T, *others.T, *scaled[:, 3:].T, self._pace(standing)), 1)
        bits = np.zeros(len(rows))
        for part in parts.T:
            bits = bits + part
        score = bits_to_deviations(population.rarity_bits(bits))
        # log2(1 + ratio) is above 0 for each feature; the score is shared out in proportion
        weights = np.log1p(np.exp2(parts))
        whole = np.zeros(len(rows))
        for weight in weights.T:
            whole = whole + weight
        shared = weights * (score / whole)[:, None]
        odds = np.exp2(np.minimum(bits + PRIOR_BITS, 60.0))
        normal = 1 / (1 + odds)
        outside = OUTSIDE * ratios / (1 - OUTSIDE + OUTSIDE * ratios) * (1 - normal)[:, None]
        many = standing.amounts >= 10
        away = np.where(many, of.log_amount - standing.mean, np.nan)
        self.profiles.learn(rows, of, standing, normal, spread)
        verdict = PaymentVerdict(
            score, shared, bits, parts, deviation, standing.known, standing.seen
        )
        return verdict, (history, known, normal, outside, deviation, surprise, bits, away)

    def _expected_amount(self, standing: Standing) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the next log amount of each user.

        A user of few transactions borrows from all.
        """
        population = self.population
        within = population.variance_within
        borrowed = within / population.variance_between  # transactions
        count = standing.amounts
        centre = (count * standing.mean + borrowed * population.mean) / (count + borrowed)
        own = (count * standing.variance + FEW * within) / (count + FEW)
        return centre, np.sqrt(own + within / (count + borrowed))

    def _hour_density(self, standing: Standing, of: Attributes) -> np.ndarray:
        """Return log2 of the density of the hour for its user over that of a uniform one."""
        low = np.floor(of.hour).astype(np.intp)
        total = standing.amounts
        borrowed = 1.0
        mass = standing.hour_mass + borrowed * self.population.hour_share[low]
        surprise: np.ndarray = np.log2(24 * mass / (total + borrowed))
        return surprise

    def _value_ratios(
        self, standing: Standing, of: Attributes, history: np.ndarray, shares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return likelihood ratios of the five values, and how sure each is known, both (n, 5)."""
        population = self.population
        new = population.rate_new[:, history].T  # (n, 5)
        known = np.minimum(standing.known / SURE, 1.0)
        usual, risky = shares
        total = standing.total[:, :RANKED]
        rate = new[:, :RANKED]
        # several anomalies in a row look like a move, in which new values are frequent
        moving = 1 + MOVING * standing.unrest**2
        borrowed = moving[:, None] * total * rate / (1 - rate) + 0.01
        own = (standing.known[:, :RANKED] + borrowed * usual) / (total + borrowed)
        # what the user takes often is not outside of the habit
        ranked = risky * np.exp(-standing.known[:, :RANKED] / OCCASIONAL) / own
        # merchants and devices are too many to be ranked: only whether they are new
        fresh = new[:, RANKED:]
        odd = population.odd_new[RANKED:]
        sure = known[:, RANKED:]
        seldom = sure * (1 - odd) / (1 - fresh) + (1 - sure) * odd / fresh
        # in a new category each merchant is new, which is no further evidence
        category = known[:, 1]
        seldom[:, 0] = category * seldom[:, 0] + 1 - category
        ratios = np.concatenate((ranked, seldom), axis=1)
        return np.where(of.keys != 0, ratios, 1.0), known

    def _pace(self, standing: Standing) -> np.ndarray:
        """Return the evidence of a gap that is much shorter than the user's, bits."""
        gap = np.maximum(standing.gap, 0.0) / np.maximum(standing.usual_gap, 1.0)
        known = (standing.seen >= 10) & (gap == gap)
        share = np.where(known, gap, 1.0)
        ratio = np.exp(share * (1 - 1 / FAST)) / FAST
        return np.where(known, np.log2(1 - BURSTS + BURSTS * ratio), 0.0)


def join_observations(parts: Sequence[Observation]) -> Observation:
    """Return parts of a block as one."""
    of = Attributes(*(np.concatenate(columns) for columns in zip(*(each.of for each in parts))))
    columns = [list(column) for column in zip(*(each[1:] for each in parts))]
    return Observation(of, *map(np.concatenate, columns))


def nothing_observed() -> Observation:
    """Return the observation of no transactions."""
    wide = len(VALUE_FEATURES)
    none = np.zeros(0)
    of = Attributes(np.zeros((0, wide), np.uint32), none, none, none)
    many = np.zeros((0, wide))
    return Observation(of, np.zeros(0, np.intp), many, none, many, none, none, none, none)


def check_state(state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError where arrays are not those of a profile detector.

    All of a part have as many rows as the others; rows of profiles and blocks may be any number.
    """
    if set(state) != set(like):
        odd = ", ".join(sorted(set(state) ^ set(like))[:3])
        raise ValueError(f"wanted the state of a profile detector; missing or not known: {odd}")
    rows: dict[str, int] = {}
    for name, wanted in like.items():
        came = state[name]
        part = name.partition(".")[0]
        free = part in ("profiles", "block")  # in the number of rows
        same = came.shape[free:] == wanted.shape[free:] and came.ndim == wanted.ndim
        if free and same:
            same = rows.setdefault(part, len(came)) == len(came)
        if not same or came.dtype != wanted.dtype:
            raise ValueError(
                f"{name}: wanted {wanted.dtype} of the shape {wanted.shape}; "
                f"came {came.dtype} of the shape {came.shape}"
            )


def empty_verdict() -> PaymentVerdict:
    """Return the verdict of no transactions."""
    none = np.zeros(0)
    wide = np.zeros((0, len(FEATURES)))
    known = np.zeros((0, len(VALUE_FEATURES)))
    return PaymentVerdict(none, wide, none, wide, none, known, np.zeros(0, np.int32))


DAY_PARTS = (  # hours before which a part of the day ends
    (5, "at night"),
    (11, "in the morning"),
    (17, "in the afternoon"),
    (24, "in the evening"),
)
NAMED_SHARE = 0.12  # of the score; a feature with less is not named
NAMED_BITS = 0.01  # of evidence; a feature with less says nothing
NAMED_SCORE = 2.0  # score from which on something is named
NOUNS = {
    "location": "country",
    "merchant_category": "category",
    "payment_method": "method",
    "merchant_id": "merchant",
    "device_id": "device",
}


def describe_payment(transactions: Transactions, verdict: PaymentVerdict, row: int) -> str:
    """Return one sentence that says what of a transaction does not fit its user."""
    seconds = int(transactions.timestamp[row] % 86_400)
    method = transactions.payment_method[row]
    words = (
        str(transactions.location[row]),
        f"{transactions.amount[row]:,.2f}",
        f"by {method}" if method else "",
        f"at {seconds // 3600:02d}:{seconds // 60 % 60:02d}",
    )
    what = " ".join(filter(None, words))
    parts = verdict.parts[row]
    least = NAMED_SHARE * verdict.score[row]
    reasons = [
        describe_feature(FEATURES[feature], verdict, row, seconds // 3600)
        for feature in np.argsort(-parts)
        if parts[feature] >= least and verdict.evidence[row, feature] > NAMED_BITS
    ]
    if verdict.score[row] < NAMED_SCORE:
        reasons = []
    return f"{what}: {', '.join(reasons) or 'as usual for this user'}"


def describe_feature(feature: str, verdict: PaymentVerdict, row: int, hour: int) -> str:
    """Return what one feature says, such as `new country`."""
    if feature == "amount":
        side = "above" if verdict.deviation[row] > 0 else "below"
        return f"amount {abs(verdict.deviation[row]):.1f} deviations {side} this user's"
    if feature == "hour":
        return f"unusual {next(name for before, name in DAY_PARTS if hour < before)}"
    if feature == "pace":
        return "soon after the last one"
    known = verdict.known[row, VALUE_FEATURES.index(feature)]
    return f"{'new' if known < SURE else 'rare'} {NOUNS[feature]}"
