"""Profiles of users as columns: what each has paid, where, how and when, slowly forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from redline.payments.transactions import Transactions, hour_of_day

VALUE_FEATURES = ("location", "merchant_category", "payment_method", "merchant_id", "device_id")
SLOTS = 12  # values kept of each feature; the least used one makes room
HOUR_BINS = 24
HOUR_WIDTH = 0.7  # standard deviation of the kernel, hours
KERNEL_GRID = 240  # places of an hour of the day in the table of the kernel
FIRST_ROWS = 1_024
HASH_LENGTH = 64  # characters of a text that count
UNREST_KEPT = 0.8  # of the count of anomalies, after one more transaction
LEAST_AMOUNT = 0.01


@dataclass(frozen=True)
class ProfileSettings:
    """How long a profile remembers, and how little it takes an anomaly for a habit."""

    memory: float = 120.0  # transactions of the user; an older one counts less than 1 / e
    least_weight: float = 0.1  # of what was surely anomalous, so that a user may move
    clip: float = 3.0  # deviations; a farther amount moves the profile no more than this one


class Attributes(NamedTuple):
    """What profiles take of transactions."""

    keys: np.ndarray  # (n, 5) uint32 hashes in the order of VALUE_FEATURES, 0 = unknown
    log_amount: np.ndarray  # (n,)
    hour: np.ndarray  # (n,) hour of the day, UTC
    timestamp: np.ndarray  # (n,) seconds since the Unix epoch

    def rows(self, chosen: slice | np.ndarray) -> Attributes:
        """Return those of some transactions."""
        return Attributes(*(column[chosen] for column in self))


class Standing(NamedTuple):
    """What a profile says of a transaction before it has learned it."""

    seen: np.ndarray  # (n,) transactions of the user so far
    known: np.ndarray  # (n, 5) decayed count of the same value
    total: np.ndarray  # (n, 5) decayed count of all values
    amounts: np.ndarray  # (n,) decayed count of amounts
    mean: np.ndarray  # (n,) of log amount
    variance: np.ndarray  # (n,)
    hour_mass: np.ndarray  # (n,) decayed count of transactions an hour at this hour
    gap: np.ndarray  # (n,) seconds since the last one, NaN = first
    usual_gap: np.ndarray  # (n,) seconds, NaN = unknown
    unrest: np.ndarray  # (n,) decayed count of anomalies among the last transactions
    place: np.ndarray  # (n, 5) slot of the same value, else of the least used one


def make_kernel() -> np.ndarray:
    """Return what a transaction at each hour adds to each bin, (KERNEL_GRID, HOUR_BINS), an hour.

    A wrapped normal density, of which each row has the sum 1.
    """
    at = np.arange(KERNEL_GRID) * (24.0 / KERNEL_GRID)
    away = (np.arange(HOUR_BINS) - at[:, None] + 12) % 24 - 12
    weight = np.exp(-0.5 * (away / HOUR_WIDTH) ** 2)
    kernel: np.ndarray = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel


KERNEL = make_kernel()
MULTIPLIERS = np.random.default_rng(20_260_101).integers(
    1 << 63, size=HASH_LENGTH, dtype=np.uint64
) | np.uint64(1)


def hash_texts(texts: np.ndarray) -> np.ndarray:
    """Return a hash of each text, (n,) uint32, 0 for an empty one alone.

    >>> hash_texts(np.array(["", "GB", "US"])).astype(bool).tolist()
    [False, True, True]
    """
    plain = np.ascontiguousarray(texts, dtype=np.str_)
    width = plain.dtype.itemsize // 4
    if not len(plain) or not width:
        return np.zeros(len(plain), np.uint32)
    characters = plain.view(np.uint32).reshape(len(plain), width)
    mixed = np.zeros(len(plain), np.uint64)
    for place in range(min(width, HASH_LENGTH)):
        mixed += characters[:, place] * MULTIPLIERS[place]
    mixed ^= mixed >> np.uint64(29)
    mixed *= MULTIPLIERS[0]
    key = (mixed >> np.uint64(32)).astype(np.uint32)
    return np.where(characters[:, 0] == 0, np.uint32(0), np.maximum(key, np.uint32(1)))


def take_attributes(transactions: Transactions) -> Attributes:
    """Return what profiles take of transactions.

    Raises:
        ValueError: an amount or a time is not finite.
    """
    for name in ("amount", "timestamp"):
        wrong = ~np.isfinite(getattr(transactions, name))
        if wrong.any():
            which = transactions.transaction_id[wrong.argmax()]
            raise ValueError(f"transaction {which}: wanted a finite {name}")
    keys = np.stack([hash_texts(getattr(transactions, name)) for name in VALUE_FEATURES], axis=1)
    amount = np.log(np.maximum(transactions.amount, LEAST_AMOUNT))
    return Attributes(keys, amount, hour_of_day(transactions.timestamp), transactions.timestamp)


class UserProfiles:
    """The profiles of all users; state: named arrays, a row a user, about 660 bytes each."""

    def __init__(self, settings: ProfileSettings | None = None) -> None:
        self.settings = settings or ProfileSettings()
        self.users = 0
        self.state = self._first_state(FIRST_ROWS)
        self._ordered = np.zeros(0, np.int64)  # ids in order
        self._row_of = np.zeros(0, np.intp)  # their rows

    @staticmethod
    def _first_state(rows: int) -> dict[str, np.ndarray]:
        features = len(VALUE_FEATURES)
        return {
            "user_id": np.zeros(rows, np.int64),
            "seen": np.zeros(rows, np.int32),
            "keys": np.zeros((rows, features, SLOTS), np.uint32),
            "weights": np.zeros((rows, features, SLOTS), np.float32),
            "totals": np.zeros((rows, features), np.float32),
            "count": np.zeros(rows, np.float32),
            "mean": np.zeros(rows, np.float32),
            "variance": np.zeros(rows, np.float32),
            "hours": np.zeros((rows, HOUR_BINS), np.float32),
            "unrest": np.zeros(rows, np.float32),
            "last": np.full(rows, np.nan),
            "gap": np.full(rows, np.nan, np.float32),
        }

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays."""
        arrays = (*self.state.values(), self._ordered, self._row_of)
        return sum(array.nbytes for array in arrays)

    def saved(self) -> dict[str, np.ndarray]:
        """Return the rows of the users as named arrays: copies."""
        return {name: array[: self.users].copy() for name, array in self.state.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from rows that `saved` returned; their names and shapes were checked."""
        self.users = len(state["user_id"])
        self.state = self._first_state(max(FIRST_ROWS, self.users))
        for name, array in self.state.items():
            array[: self.users] = state[name]
        self._row_of = np.argsort(state["user_id"], kind="stable")
        self._ordered = state["user_id"][self._row_of]

    def find_rows(self, users: np.ndarray) -> np.ndarray:
        """Return the row of each user, (n,); one not seen before gets a new row."""
        place = np.searchsorted(self._ordered, users)
        inside = np.minimum(place, max(0, self.users - 1))
        missing = self._ordered[inside] != users if self.users else np.ones(len(users), bool)
        if missing.any():
            self._add(np.unique(users[missing]))
            place = np.searchsorted(self._ordered, users)
        return self._row_of[place]

    def _add(self, new: np.ndarray) -> None:
        """Add users that are not there, in the order of their ids."""
        wanted = self.users + len(new)
        rows = len(self.state["seen"])
        if wanted > rows:
            more = max(wanted, rows + rows // 4) - rows
            empty = self._first_state(more)
            for name in list(self.state):
                self.state[name] = np.concatenate((self.state[name], empty[name]))
        self.state["user_id"][self.users : wanted] = new
        at = np.searchsorted(self._ordered, new)
        self._ordered = np.insert(self._ordered, at, new)
        self._row_of = np.insert(self._row_of, at, np.arange(self.users, wanted))
        self.users = wanted

    def look_up(self, rows: np.ndarray, of: Attributes) -> Standing:
        """Return what the profiles say of a transaction of each user; no user comes twice."""
        state = self.state
        keys = state["keys"][rows]  # (n, 5, SLOTS)
        weights = state["weights"][rows]
        same = keys == of.keys[..., None]
        place = np.where(same.any(axis=-1), same.argmax(axis=-1), weights.argmin(axis=-1))
        known = np.where(same, weights, np.float32(0)).max(axis=-1)
        known[of.keys == 0] = 0.0
        low = np.floor(of.hour).astype(np.intp)
        part = of.hour - low
        hours = state["hours"]
        mass = (1 - part) * hours[rows, low] + part * hours[rows, (low + 1) % HOUR_BINS]
        return Standing(
            state["seen"][rows],
            known.astype(np.float64),
            state["totals"][rows].astype(np.float64),
            state["count"][rows].astype(np.float64),
            state["mean"][rows].astype(np.float64),
            state["variance"][rows].astype(np.float64),
            mass,
            of.timestamp - state["last"][rows],
            state["gap"][rows].astype(np.float64),
            state["unrest"][rows].astype(np.float64),
            place,
        )

    def learn(
        self,
        rows: np.ndarray,
        of: Attributes,
        standing: Standing,
        normal: np.ndarray,
        spread: np.ndarray,
        times: float = 1.0,
    ) -> None:
        """Learn a transaction of each user.

        Args:
            normal: (n,) probability that it is no anomaly.
            spread: (n,) a deviation of log amount that is believable.
            times: as how many transactions it counts; above 1 its amount is believed as it is.
        """
        state = self.state
        weight = times * np.maximum(normal, self.settings.least_weight)
        keep = 1 - 1 / self.settings.memory
        self._learn_values(rows, of, standing, weight, keep)
        count = keep * standing.amounts + weight
        step = weight / count
        reach = self.settings.clip * spread if times <= 1 else np.full(len(rows), np.inf)
        away = np.where(
            standing.amounts > 0,
            np.clip(of.log_amount - standing.mean, -reach, reach),
            of.log_amount,
        )
        state["mean"][rows] = standing.mean + step * away
        grown = (1 - step) * (standing.variance + step * away * away)
        state["variance"][rows] = np.where(standing.amounts > 0, grown, 0.0)
        state["count"][rows] = count
        cell = np.floor(of.hour * (KERNEL_GRID / 24)).astype(np.intp)
        hours = state["hours"][rows] * np.float32(keep)
        state["hours"][rows] = hours + weight.astype(np.float32)[:, None] * KERNEL[cell]
        gap = np.where(np.isnan(standing.usual_gap), standing.gap, standing.usual_gap)
        few = np.minimum(standing.seen, self.settings.memory)
        state["gap"][rows] = gap + (standing.gap - gap) / np.maximum(few, 1)
        state["last"][rows] = np.fmax(state["last"][rows], of.timestamp)
        state["unrest"][rows] = UNREST_KEPT * standing.unrest + 1 - normal
        state["seen"][rows] += 1

    def _learn_values(
        self,
        rows: np.ndarray,
        of: Attributes,
        standing: Standing,
        weight: np.ndarray,
        keep: float,
    ) -> None:
        state = self.state
        given = of.keys != 0  # (n, 5)
        faded = np.where(given, np.float32(keep), np.float32(1))
        weights = state["weights"][rows] * faded[..., None]
        added = np.where(given, weight[:, None], 0.0)
        place = standing.place[..., None]
        known = keep * standing.known + added
        at_place = np.take_along_axis(weights, place, axis=-1)[..., 0]
        np.put_along_axis(weights, place, np.where(given, known, at_place)[..., None], axis=-1)
        state["weights"][rows] = weights
        users = rows[:, None]
        features = np.arange(len(VALUE_FEATURES))
        before = state["keys"][users, features, standing.place]
        state["keys"][users, features, standing.place] = np.where(given, of.keys, before)
        state["totals"][rows] = standing.total * faded + added

    def as_documents(self, users: np.ndarray) -> list[dict[str, Any]]:
        """Return what is usual for some users, as a person would read it."""
        state = self.state
        documents = []
        for user, row in zip(users.tolist(), self.find_rows(users)):
            spread = float(np.sqrt(state["variance"][row]))
            mean = float(state["mean"][row])
            hours = state["hours"][row]
            documents.append(
                {
                    "user_id": user,
                    "count": int(state["seen"][row]),
                    "typical_minimum": round(float(np.exp(mean - 2 * spread)), 2),
                    "typical_maximum": round(float(np.exp(mean + 2 * spread)), 2),
                    "usual_hours": np.flatnonzero(hours > 1.5 * hours.mean()).tolist(),
                    "updated": float(state["last"][row]),
                }
            )
        return documents
