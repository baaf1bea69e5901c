"""Transactions as columns: one array for each field of a payment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PAYMENT_KINDS = ("location", "amount", "merchant_category", "hour", "payment_method")
ANOMALY_SIZES = ("hardly", "clearly", "plainly")  # how far an anomaly lies outside of the habit
SECONDS_A_DAY = 86_400.0  # seconds


class PaymentTruth(NamedTuple):
    """What the generator knows of each transaction; kinds stand in the order of PAYMENT_KINDS."""

    is_anomaly: np.ndarray  # (n,) bool
    kinds: np.ndarray  # (n,) uint8, bit k set: kind k is outside of the habit
    size: (
        np.ndarray
    )  # (n,) int8, the largest size of its kinds as an index of ANOMALY_SIZES, -1 = normal
    plain: np.ndarray  # (n,) bool: amount >= 3 times the usual maximum, or a value never used
    moved: np.ndarray  # (n,) int32, transactions since the user moved for good, -1 = has not


class Transactions(NamedTuple):
    """Columns of n transactions in order of time."""

    transaction_id: np.ndarray  # (n,) text, unique
    user_id: np.ndarray  # (n,) int64
    amount: np.ndarray  # (n,) float64 > 0, in the currency
    timestamp: np.ndarray  # (n,) float64, seconds since the Unix epoch, UTC
    location: np.ndarray  # (n,) text, the country
    merchant_category: np.ndarray  # (n,) text
    payment_method: np.ndarray  # (n,) text
    merchant_id: np.ndarray  # (n,) text, "" = unknown
    device_id: np.ndarray  # (n,) text, "" = unknown
    currency: np.ndarray  # (n,) text, "" = unknown
    truth: PaymentTruth | None = None  # None: unknown

    def rows(self, chosen: slice | np.ndarray) -> Transactions:
        """Return some of the transactions: a slice, indices or a mask."""
        truth = self.truth
        if truth is not None:
            truth = PaymentTruth(*(column[chosen] for column in truth))
        columns = {name: getattr(self, name)[chosen] for name in self._fields[:-1]}
        return Transactions(**columns, truth=truth)


def hour_of_day(timestamp: np.ndarray) -> np.ndarray:
    """Return the hour of the day in UTC, 0 <= hour < 24, same shape."""
    hour: np.ndarray = np.floor(timestamp) % SECONDS_A_DAY / 3600.0
    return hour


def user_ranks(user: np.ndarray) -> np.ndarray:
    """Return how many transactions of the same user stand before each one, (n,).

    >>> user_ranks(np.array([7, 3, 7, 7, 3]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(user, kind="stable")
    ordered = user[order]
    place = np.arange(len(user))
    first = np.ones(len(user), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    begin = np.maximum.accumulate(np.where(first, place, 0))
    rank = np.empty(len(user), np.intp)
    rank[order] = place - begin
    return rank
