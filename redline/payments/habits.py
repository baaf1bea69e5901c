"""The hidden habits of simulated users, and how likely a transaction is under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# popularity of each value among users, and its weight among plain anomalies
COUNTRIES: dict[str, tuple[float, float]] = {
    "US": (20, 1), "IN": (16, 1), "GB": (10, 1), "DE": (9, 1), "FR": (8, 1), "BR": (7, 2),
    "JP": (6, 1), "CA": (6, 1), "AU": (5, 1), "ES": (5, 1), "IT": (5, 1), "MX": (5, 2),
    "NL": (4, 1), "PL": (4, 1), "SE": (3, 1), "CH": (3, 1), "AT": (3, 1), "BE": (3, 1),
    "PT": (3, 1), "IE": (3, 1), "SG": (3, 1), "AE": (2, 2), "ZA": (2, 2), "TR": (2, 3),
    "KR": (2, 1), "TH": (1, 3), "ID": (1, 4), "PH": (1, 6), "VN": (1, 6), "NG": (1, 12),
    "UA": (1, 6), "RO": (1, 6), "RU": (1, 12), "CN": (2, 4), "HK": (1, 4), "PA": (0.3, 8),
    "KY": (0.1, 6), "BZ": (0.1, 6), "VE": (0.2, 8), "BY": (0.2, 8),
}  # fmt: skip
CATEGORIES: dict[str, tuple[float, float]] = {
    "Grocery": (20, 0.5), "Restaurant": (16, 0.5), "Retail": (16, 1), "Fuel": (10, 1),
    "Transport": (10, 1), "Pharmacy": (7, 1), "Entertainment": (6, 1), "Utilities": (5, 1),
    "Clothing": (5, 1), "Travel": (4, 2), "Hotel": (3, 2), "Health": (3, 1),
    "Education": (2, 1), "Software": (3, 1), "Sports": (2, 1), "Books": (2, 0.5),
    "Home": (2, 1), "Electronics": (3, 5), "Jewellery": (0.6, 8), "Gift Cards": (0.6, 9),
    "Gambling": (0.5, 8), "Cryptocurrency": (0.5, 9), "Money Transfer": (0.7, 9),
    "Dating": (0.3, 5),
}  # fmt: skip
METHODS: dict[str, tuple[float, float]] = {
    "Credit Card": (20, 1), "Debit Card": (18, 1), "Digital Wallet": (14, 1),
    "Bank Transfer": (6, 2), "Direct Debit": (5, 0.5), "Instalments": (3, 1),
    "Prepaid Card": (1, 6), "Wire": (0.8, 9), "Cash Advance": (0.5, 7), "Crypto": (0.4, 8),
}  # fmt: skip
VALUE_TABLES = (COUNTRIES, CATEGORIES, METHODS)
WRAPS = np.array((-24.0, 0.0, 24.0))  # hours
LEAST_DENSITY = 1e-300


@dataclass(frozen=True)
class HabitSettings:
    """The probabilities of the simulation; all of them may be set.

    Sizes are drawn for each kind by itself. A transaction that is anomalous has each kind with its
    own probability, under the condition that it has one at least.
    """

    anomalous: float = 0.05  # share of transactions
    kinds: tuple[float, ...] = (0.22, 0.22, 0.22, 0.22, 0.22)  # of each of PAYMENT_KINDS
    sizes: tuple[float, ...] = (0.3, 0.3, 0.4)  # of each of ANOMALY_SIZES
    little: tuple[float, float] = (0.02, 0.04)  # share of a user's normal ones that leave a little
    little_kinds: tuple[float, ...] = (0.15, 0.35, 0.15, 0.3, 0.05)  # what they leave
    gift: float = 1.5  # such a normal amount is up to so many times the usual maximum
    shifted: tuple[float, float] = (1.5, 3.0)  # hours that such a normal hour is moved
    factors: tuple[float, ...] = (1.05, 1.5, 3.0, 20.0)  # times the maximum: bounds of the sizes
    gaps: tuple[float, ...] = (0.3, 0.5, 0.75, 1.0)  # of half the longest gap between usual hours
    movers: float = 0.1  # share of users who move for good
    move_at: tuple[float, float] = (0.45, 0.7)  # of all their transactions
    drift: float = 0.1  # standard deviation of the change of log amount over the whole time
    hour_drift: float = 0.4  # the same of the hours
    new_device: float = 0.005  # of normal transactions
    anomalous_device: float = 0.5  # of anomalous ones: from a device that is not the user's
    favourite: float = 0.75  # of normal transactions: at one of the user's merchants
    anomalous_favourite: float = 0.25
    a_day: float = 3.0  # transactions of a user


class ValueHabit(NamedTuple):
    """What users take of one kind of value; rows are habits, columns all values."""

    usual: np.ndarray  # (habits, values) probabilities
    little: np.ndarray  # (habits, values) of a normal transaction that leaves the habit a little
    odd: np.ndarray  # (sizes, habits, values) of an anomaly of each size


class Habits(NamedTuple):
    """The habits of all users before a move, then of all after it: (2 * users,) rows."""

    values: tuple[ValueHabit, ...]  # countries, categories, methods
    centre: np.ndarray  # (habits,) of log amount
    spread: np.ndarray  # (habits,) standard deviation of log amount, which is cut at 2 of them
    hours: np.ndarray  # (habits, 4) usual hours of the day, NaN = fewer
    width: np.ndarray  # (habits,) hours
    gap: np.ndarray  # (habits, 2) middle and half width of the longest gap, hours
    leaving: np.ndarray  # (habits,) share of normal transactions that leave the habit a little


class DrawnValues(NamedTuple):
    """Transactions as numbers, beside the habit that each came from."""

    habit: np.ndarray  # (n,) row of the habits
    values: np.ndarray  # (n, 3) country, category, method
    log_amount: np.ndarray  # (n,) less the drift
    hour: np.ndarray  # (n,) less the drift
    own_device: np.ndarray  # (n,) bool
    favourite: np.ndarray  # (n,) bool


def draw_habits(rng: np.random.Generator, users: int, settings: HabitSettings) -> Habits:
    """Draw what users are used to before and after a move; those who stay keep the first half."""
    first = [
        draw_value_habit(rng, users, table, most, rare)
        for table, most, rare in zip(VALUE_TABLES, (3, 5, 3), (2, 3, 1))
    ]
    after = draw_value_habit(rng, users, COUNTRIES, 3, 2)
    categories = draw_value_habit(rng, users, CATEGORIES, 5, 3)
    second = (after, categories, first[2])
    values = tuple(
        ValueHabit(
            np.concatenate((a.usual, b.usual)),
            np.concatenate((a.little, b.little)),
            np.concatenate((a.odd, b.odd), axis=1),
        )
        for a, b in zip(first, second)
    )
    count = rng.integers(2, 5, size=users)
    slots = rng.permuted(np.tile((0.0, 1.0, 2.0, 3.0, 4.0), (users, 1)), axis=1)[:, :4]
    hours = 7.5 + 3.4 * slots + rng.normal(0, 0.6, size=(users, 4))  # 07:30 to 21:00
    hours = np.where(np.arange(4) < count[:, None], hours % 24, np.nan)
    centre = rng.normal(4.3, 0.8, size=users)
    spread = rng.uniform(0.35, 0.75, size=users)
    width = rng.uniform(0.5, 1.1, size=users)
    leaving = rng.uniform(*settings.little, size=users)
    return Habits(
        values,
        np.tile(centre, 2),
        np.tile(spread, 2),
        np.tile(hours, (2, 1)),
        np.tile(width, 2),
        np.tile(longest_gap(hours), (2, 1)),
        np.tile(leaving, 2),
    )


def draw_value_habit(
    rng: np.random.Generator,
    users: int,
    table: dict[str, tuple[float, float]],
    most: int,
    rare: int,
) -> ValueHabit:
    """Draw 1 to `most` usual values of each user by popularity, and `rare` occasional ones."""
    popular, risky = np.array(list(table.values())).T
    # the largest of log weight + Gumbel noise are a draw without replacement
    ranked = np.argsort(-(np.log(popular) + rng.gumbel(size=(users, len(popular)))), axis=1)
    place = np.empty_like(ranked)
    np.put_along_axis(place, ranked, np.arange(len(popular))[None], axis=1)
    count = rng.integers(1 if most == 3 else 2, most + 1, size=users)[:, None]
    weight = np.where(place < count, 2.0 ** -np.minimum(place, 8), 0.0)
    occasional = ((place >= count) & (place < count + rare)).astype(float)
    outside = place >= count + rare
    odd = np.stack((occasional, outside * popular, outside * risky))
    return ValueHabit(
        *(part / part.sum(axis=-1, keepdims=True) for part in (weight, occasional, odd))
    )


def longest_gap(hours: np.ndarray) -> np.ndarray:
    """Return middle and half width of the longest gap between usual hours, (users, 2)."""
    ordered = np.sort(hours, axis=1)  # NaN last
    after = np.roll(ordered, -1, axis=1)
    last = np.isnan(after) | (np.arange(hours.shape[1]) == hours.shape[1] - 1)
    length = np.where(last, ordered[:, :1] + 24.0, after) - ordered
    widest = np.nanargmax(length, axis=1)[:, None]
    half = np.take_along_axis(length, widest, axis=1) / 2
    begin = np.take_along_axis(ordered, widest, axis=1)
    return np.concatenate(((begin + half) % 24, half), axis=1)


def truncated_density(z: np.ndarray) -> np.ndarray:
    """Return the density of a standard normal that is cut at -2 and 2."""
    inside = np.abs(z) <= 2.0
    return np.where(inside, np.exp(-0.5 * z * z) / (np.sqrt(2 * np.pi) * 0.9544997), 0.0)


def uniform_density(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Return the density of a uniform draw between two bounds."""
    return np.where((x >= low) & (x <= high), 1.0 / (np.asarray(high) - low), 0.0)


class KindDensity(NamedTuple):
    """The density of one kind of value of each transaction, (n,)."""

    usual: np.ndarray
    little: np.ndarray
    odd: np.ndarray  # over all sizes


def value_density(
    habit: ValueHabit, row: np.ndarray, code: np.ndarray, sizes: np.ndarray
) -> KindDensity:
    """Return the probability of a country, category or method."""
    odd = np.tensordot(sizes, habit.odd[:, row, code], axes=1)
    return KindDensity(habit.usual[row, code], habit.little[row, code], odd)


def amount_density(habits: Habits, drawn: DrawnValues, settings: HabitSettings) -> KindDensity:
    """Return the density of a log amount."""
    spread = habits.spread[drawn.habit]
    away = drawn.log_amount - habits.centre[drawn.habit]
    above = away - 2 * spread
    bounds = np.log(settings.factors)
    odd = sum(
        share * uniform_density(above, low, high)
        for share, low, high in zip(settings.sizes, bounds, bounds[1:])
    )
    little = uniform_density(above, 0.0, np.log(settings.gift))
    return KindDensity(truncated_density(away / spread) / spread, little, np.asarray(odd))


def hour_density(habits: Habits, drawn: DrawnValues, settings: HabitSettings) -> KindDensity:
    """Return the density of an hour of the day, of which each usual hour is as frequent."""
    hours = habits.hours[drawn.habit]  # (n, 4)
    width = habits.width[drawn.habit][:, None]
    away = (drawn.hour[:, None] - hours + 12) % 24 - 12
    z = (away[..., None] + WRAPS) / width[..., None]  # (n, 4, 3)
    usual = np.nanmean(np.exp(-0.5 * z * z).sum(axis=-1) / (width * np.sqrt(2 * np.pi)), axis=1)
    low, high = settings.shifted
    little = np.nanmean(
        np.where(np.isnan(away), np.nan, uniform_density(np.abs(away), low, high) / 2), axis=1
    )
    middle, half = habits.gap[drawn.habit].T
    from_edge = 1 - np.abs((drawn.hour - middle + 12) % 24 - 12) / half
    odd = sum(
        share * uniform_density(from_edge, low, high) / (2 * half)
        for share, low, high in zip(settings.sizes, settings.gaps, settings.gaps[1:])
    )
    return KindDensity(usual, little, np.asarray(odd))


def true_posterior(habits: Habits, drawn: DrawnValues, settings: HabitSettings) -> np.ndarray:
    """Return the logarithm of the odds that each transaction is anomalous, (n,).

    No detector can rank better on average: it knows every habit and every probability.
    """
    sizes = np.array(settings.sizes)
    value = [
        value_density(habit, drawn.habit, drawn.values[:, i], sizes)
        for i, habit in enumerate(habits.values)
    ]
    amount = amount_density(habits, drawn, settings)
    hour = hour_density(habits, drawn, settings)
    kinds = (value[0], amount, value[1], hour, value[2])  # in the order of PAYMENT_KINDS
    usual = np.prod([kind.usual for kind in kinds], axis=0)
    leaving = habits.leaving[drawn.habit]
    normal = (1 - leaving) * usual
    odd = np.ones_like(usual)
    for number, (kind, share) in enumerate(zip(kinds, settings.little_kinds)):
        others = np.prod([k.usual for i, k in enumerate(kinds) if i != number], axis=0)
        normal += leaving * share * others * kind.little
    for kind, q in zip(kinds, settings.kinds):
        odd = odd * ((1 - q) * kind.usual + q * kind.odd)
    none = np.prod(1 - np.array(settings.kinds))
    odd = (odd - none * usual) / (1 - none)
    own = drawn.own_device
    kept = drawn.favourite
    device = np.where(own, 1 - settings.anomalous_device, settings.anomalous_device)
    device = device / np.where(own, 1 - settings.new_device, settings.new_device)
    merchant = np.where(kept, settings.anomalous_favourite, 1 - settings.anomalous_favourite)
    merchant = merchant / np.where(kept, settings.favourite, 1 - settings.favourite)
    prior = settings.anomalous / (1 - settings.anomalous)
    top = np.log(np.maximum(odd, LEAST_DENSITY)) + np.log(device * merchant * prior)
    posterior: np.ndarray = top - np.log(np.maximum(normal, LEAST_DENSITY))
    return posterior
