"""Simulated transactions of users with habits, reproducible by seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from redline.payments.habits import (
    CATEGORIES,
    COUNTRIES,
    METHODS,
    DrawnValues,
    Habits,
    HabitSettings,
    ValueHabit,
    draw_habits,
    true_posterior,
)
from redline.payments.transactions import (
    PAYMENT_KINDS,
    SECONDS_A_DAY,
    PaymentTruth,
    Transactions,
    user_ranks,
)

BEGIN = 1_767_225_600.0  # seconds since the Unix epoch: 2026-01-01
POOL = 200  # merchants of a category
FAVOURITES = 3  # merchants of a user in each category
CURRENCIES = {
    **dict.fromkeys(("DE", "FR", "ES", "IT", "NL", "AT", "BE", "PT", "IE"), "EUR"),
    "US": "USD",
    "IN": "INR",
    "GB": "GBP",
    "JP": "JPY",
    "CA": "CAD",
    "AU": "AUD",
    "BR": "BRL",
}


class Deviation(NamedTuple):
    """How each transaction leaves the habit of its user, by kind."""

    size: np.ndarray  # (n, kinds) index of ANOMALY_SIZES, -1 = not outside
    little: np.ndarray  # (n, kinds) bool: a normal one that leaves it a little


class SimulatedPayments(NamedTuple):
    """Transactions with the logarithm of the true odds that each is anomalous, (n,)."""

    transactions: Transactions
    log_odds: np.ndarray


def generate_payments(
    users: int = 200, count: int = 20_000, seed: int = 0, settings: HabitSettings | None = None
) -> SimulatedPayments:
    """Draw transactions in order of time; the same arguments give the same ones.

    Raises:
        ValueError: no user, or no transaction.
    """
    if users < 1 or count < 1:
        raise ValueError(f"wanted 1 user and 1 transaction at least; came {users} and {count}")
    settings = settings or HabitSettings()
    rng = np.random.default_rng((seed, users, count))
    habits = draw_habits(rng, users, settings)
    user = rng.choice(users, size=count, p=rng.dirichlet(np.full(users, 8.0)))
    days = max(1, round(count / users / settings.a_day))
    day = np.sort(rng.integers(days, size=count))
    moved = draw_moves(rng, user, users, settings)
    deviation = draw_deviations(rng, habits.leaving[user], settings)
    drawn = draw_values(rng, habits, user + users * (moved >= 0), deviation, settings)
    progress = np.arange(count) / count - 0.5
    drift = progress * rng.normal(0, settings.drift, size=users)[user]
    later = progress * rng.normal(0, settings.hour_drift, size=users)[user]
    hour = (drawn.hour + later) % 24
    timestamp = BEGIN + SECONDS_A_DAY * day + np.floor(3600 * hour)
    order = np.argsort(timestamp, kind="stable")
    # the moves and the drift follow the drawn order: within a day the order of time may differ
    anomalous = np.any(deviation.size >= 0, axis=1)
    truth = PaymentTruth(
        anomalous,
        ((deviation.size >= 0) << np.arange(len(PAYMENT_KINDS))).sum(axis=1).astype(np.uint8),
        deviation.size.max(axis=1),
        np.any(deviation.size >= (1, 2, 1, 9, 1), axis=1),
        moved,
    )
    columns = name_columns(rng, drawn, user, timestamp, np.exp(drawn.log_amount + drift), seed)
    log_odds = true_posterior(habits, drawn, settings)
    found = columns._replace(truth=truth).rows(order)
    return SimulatedPayments(found._replace(transaction_id=columns.transaction_id), log_odds[order])


def draw_moves(
    rng: np.random.Generator, user: np.ndarray, users: int, settings: HabitSettings
) -> np.ndarray:
    """Return the transactions of its user since the move, (n,), -1 = before or no move."""
    rank = user_ranks(user)
    total = np.bincount(user, minlength=users)
    at = np.round(total * rng.uniform(*settings.move_at, size=users)).astype(int)
    moves = rng.random(users) < settings.movers
    since = np.where(moves[user], rank - at[user], -1)
    return np.maximum(since, -1).astype(np.int32)


def draw_deviations(
    rng: np.random.Generator, leaving: np.ndarray, settings: HabitSettings
) -> Deviation:
    """Draw which transactions are anomalous or leave the habit a little, and by which kinds.

    leaving: (n,) share of the normal ones of the same user that leave it.
    """
    n = len(leaving)
    q = np.array(settings.kinds)
    sets = np.arange(1, 1 << len(q))[:, None] >> np.arange(len(q)) & 1  # (31, kinds)
    weight = np.prod(np.where(sets, q, 1 - q), axis=1)
    kinds = sets[rng.choice(len(sets), size=n, p=weight / weight.sum())] > 0
    anomalous = rng.random(n) < settings.anomalous
    size = rng.choice(len(settings.sizes), size=(n, len(q)), p=settings.sizes)
    left = rng.choice(len(q), size=n, p=settings.little_kinds)
    leaves = ~anomalous & (rng.random(n) < leaving)
    return Deviation(
        np.where(kinds & anomalous[:, None], size, -1).astype(np.int8),
        leaves[:, None] & (left[:, None] == np.arange(len(q))),
    )


def draw_values(
    rng: np.random.Generator,
    habits: Habits,
    habit: np.ndarray,
    deviation: Deviation,
    settings: HabitSettings,
) -> DrawnValues:
    """Draw the values of each transaction; habit: (n,) its row of the habits."""
    n = len(habit)
    values = [
        draw_codes(rng, kind, habit, deviation.size[:, i], deviation.little[:, i])
        for kind, i in zip(habits.values, (0, 2, 4))
    ]
    anomalous = (deviation.size >= 0).any(axis=1)
    own = rng.random(n) >= np.where(anomalous, settings.anomalous_device, settings.new_device)
    favourite = rng.random(n) < np.where(
        anomalous, settings.anomalous_favourite, settings.favourite
    )
    return DrawnValues(
        habit,
        np.stack(values, axis=1),
        draw_log_amounts(rng, habits, habit, deviation, settings),
        draw_hours(rng, habits, habit, deviation, settings),
        own,
        favourite,
    )


def draw_codes(
    rng: np.random.Generator,
    kind: ValueHabit,
    habit: np.ndarray,
    size: np.ndarray,
    little: np.ndarray,
) -> np.ndarray:
    """Draw a country, category or method for each transaction, (n,)."""
    # (habits, 5, values): usual, little, then each size
    tables = np.concatenate((kind.usual[None], kind.little[None], kind.odd))
    sums = np.cumsum(tables, axis=-1)
    which = np.where(size >= 0, 2 + size, np.where(little, 1, 0))
    draw = rng.random(len(habit))
    code = np.empty(len(habit), np.intp)
    for part in range(0, len(habit), 65_536):
        near = slice(part, part + 65_536)
        below = sums[which[near], habit[near]] <= draw[near, None]
        code[near] = below.sum(axis=1)
    codes: np.ndarray = np.minimum(code, tables.shape[-1] - 1)
    return codes


def draw_log_amounts(
    rng: np.random.Generator,
    habits: Habits,
    habit: np.ndarray,
    deviation: Deviation,
    settings: HabitSettings,
) -> np.ndarray:
    """Draw the logarithm of each amount, (n,)."""
    z = rng.normal(size=len(habit))
    while (far := np.abs(z) > 2).any():
        z[far] = rng.normal(size=np.count_nonzero(far))
    draw = rng.random(len(habit))
    bounds = np.log(settings.factors)
    size = deviation.size[:, 1]
    beyond = bounds[size] + draw * (bounds[np.minimum(size + 1, 3)] - bounds[size])
    above = np.where(size >= 0, beyond, draw * np.log(settings.gift))
    outside = (size >= 0) | deviation.little[:, 1]
    spread = habits.spread[habit]
    drawn: np.ndarray = habits.centre[habit] + np.where(outside, 2 * spread + above, z * spread)
    return drawn


def draw_hours(
    rng: np.random.Generator,
    habits: Habits,
    habit: np.ndarray,
    deviation: Deviation,
    settings: HabitSettings,
) -> np.ndarray:
    """Draw the hour of the day of each transaction, (n,)."""
    n = len(habit)
    hours = habits.hours[habit]
    known = np.count_nonzero(hours == hours, axis=1)
    pick = np.floor(rng.random(n) * known).astype(int)
    usual = hours[np.arange(n), pick]
    near = usual + habits.width[habit] * rng.normal(size=n)
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    draw = rng.random(n)
    low, high = settings.shifted
    shifted = usual + sign * (low + draw * (high - low))
    gaps = np.array(settings.gaps)
    size = deviation.size[:, 3]
    from_edge = gaps[size] + draw * (gaps[np.minimum(size + 1, 3)] - gaps[size])
    middle, half = habits.gap[habit].T
    odd = middle + sign * (1 - from_edge) * half
    hour: np.ndarray = np.where(size >= 0, odd, np.where(deviation.little[:, 3], shifted, near))
    return hour % 24


def name_columns(
    rng: np.random.Generator,
    drawn: DrawnValues,
    user: np.ndarray,
    timestamp: np.ndarray,
    amount: np.ndarray,
    seed: int,
) -> Transactions:
    """Return the columns as a program that takes payments would send them."""
    n = len(user)
    country, category, method = drawn.values.T
    users = int(user.max()) + 1
    pick = rng.integers(FAVOURITES, size=n)
    # a favourite is a fixed merchant of the habit, of each category
    mixed = (drawn.habit * 7919 + category * 104_729 + pick * 15_485_863) % POOL
    number = category * POOL + np.where(drawn.favourite, mixed, rng.integers(POOL, size=n))
    merchants = np.array([f"M{each:05d}" for each in range(len(CATEGORIES) * POOL)])
    devices = np.array([f"D{each}-{i}" for each in range(users) for i in (1, 2)])
    own = devices[2 * user + (rng.random(n) < 0.3)]
    new = np.array([f"N{each:08x}" for each in rng.integers(1 << 32, size=n)])
    names = np.array(list(COUNTRIES))
    currency = np.array([CURRENCIES.get(each, "USD") for each in COUNTRIES])
    return Transactions(
        np.array([f"T{seed}-{each:07d}" for each in range(n)]),
        user.astype(np.int64),
        np.round(np.maximum(amount, 0.01), 2),
        timestamp,
        names[country],
        np.array(list(CATEGORIES))[category],
        np.array(list(METHODS))[method],
        merchants[number],
        np.where(drawn.own_device, own, new),
        currency[country],
    )
