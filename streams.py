"""Streams of numbers: the interface every source keeps, then ten simulated domains that know their own truth.

A simulated stream is laid in two layers. The *base* is a season plus noise, made in blocks of BLOCK steps; a block
is a pure function of (seed, block), so the numbers cannot depend on how they are cut into chunks, nothing is carried
from step to step and nothing wears out after ten million of them. The *events* are the anomalies: a deck of them is
dealt over each era, another pure function of (seed, rate, era), and laid over the base when steps are taken.

>>> cpu = STREAMS["cpu"](seed=7)
>>> chunk = cpu.take(600)
>>> chunk.x.shape, chunk.label.shape
((600, 1), (600, 1))
>>> cpu.inject("point", size=8)
>>> KINDS[int(cpu.take(1).label[0, 0])]
'point'
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import ClassVar, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
Shape = Callable[[np.random.Generator, int], Floats]

KINDS = ("none", "point", "contextual", "collective", "shift", "drift", "stuck", "dropout")
START = 1_767_571_200  # seconds since the Unix epoch: 2026-01-05T00:00:00Z, a Monday
BLOCK = 512  # steps made at once; also how far back a recurrence starts, so that a block needs only the one before it
CALM = 24  # steps without an anomaly between two events, fewer only where the rate leaves no room


# The interface


class Chunk(NamedTuple):
    """Some steps of a stream, in order."""

    time: Floats  # (steps,) seconds since the Unix epoch, UTC
    x: Floats  # (steps, features) in the stream's units, NaN = missing
    label: Labels | None  # (steps, features) index into KINDS; None = truth unknown


class Stream(ABC):
    """A source of numbers: features with names and units, taken a few steps at a time."""

    title: str = ""
    about: str = ""
    names: tuple[str, ...]
    units: tuple[str, ...]
    floors: tuple[float, ...]  # the smallest believable spread of each feature, in its unit
    period: float  # seconds per step
    notes: Mapping[str, int] = MappingProxyType({})  # counted facts worth telling, such as "repeated times": 3

    @abstractmethod
    def take(self, steps: int) -> Chunk:
        """The next steps; a live source gives fewer, perhaps none."""

    def inject(self, kind: str, size: float) -> None:
        """Makes an anomaly happen now; only a simulated stream can."""
        raise ValueError(f"an anomaly can be injected into a simulated stream only; {self.title or type(self).__name__} is real")


class Injection(NamedTuple):
    """An anomaly that somebody asked for; a list of them replays what was seen."""

    step: int  # absolute, the first one it shows on
    kind: str
    size: float  # local noise standard deviations


# Anomalies


class Event(NamedTuple):
    """One anomaly, drawn and ready to be laid over the base."""

    start: int  # absolute step
    kind: str
    features: tuple[int, ...]
    shape: Floats  # (length,) local noise standard deviations, signed; only its length counts for the kinds without a size
    offset: int = 0  # contextual: the steps to the hour of the season whose value is shown

    @property
    def stop(self) -> int:
        """The first step after it."""
        return self.start + len(self.shape)


def level(draw: np.random.Generator, length: int) -> Floats:
    """A full deviation from the first step to the last."""
    return np.ones(length)


def ramp(draw: np.random.Generator, length: int) -> Floats:
    """A deviation that grows by the same amount each step."""
    return np.arange(1, length + 1) / length


def burst(draw: np.random.Generator, length: int) -> Floats:
    """A ragged run to one side, its first step the full deviation."""
    return np.concatenate(([1.0], draw.uniform(0.6, 1.0, length - 1)))


def swing(draw: np.random.Generator, length: int) -> Floats:
    """A ragged run to both sides in turn, its first step the full deviation."""
    return burst(draw, length) * (-1.0) ** np.arange(length)


class Habit(NamedTuple):
    """How a kind of anomaly behaves in a domain."""

    times: int  # events an era, so the rate of the kind
    shortest: int  # steps
    longest: int  # steps
    shape: Shape = level


HABITS = MappingProxyType(
    {
        "point": Habit(14, 1, 1),
        "contextual": Habit(3, 3, 6),
        "collective": Habit(3, 6, 12, burst),
        "shift": Habit(1, 16, 28),
        "drift": Habit(1, 20, 36, ramp),
        "stuck": Habit(1, 10, 16),
        "dropout": Habit(2, 2, 6),
    }
)


# Noise


def autoregressive(z: Floats, memory: float) -> Floats:
    """Noise that remembers: each step keeps `memory` of the one before; unit spread in, unit spread out, BLOCK steps fewer."""
    scaled = (z * (1 - memory**2) ** 0.5).tolist()
    walk = accumulate(scaled, lambda past, new: memory * past + new)
    return np.array(list(walk)[BLOCK:])


# The simulator


class Simulated(Stream):
    """A domain that makes its own numbers and knows which of them are strange.

    A subclass states its features, draws one season (`profile`) and its noise (`base`), and says which anomalies suit it
    (`habits`). Sizes are in standard deviations of the noise at that step, so the same size is as hard everywhere.
    """

    season: ClassVar[int]  # steps until the pattern repeats
    limits: ClassVar[tuple[tuple[float, float], ...]]  # what each feature can physically be
    sides: ClassVar[tuple[int, ...]]  # which way a feature's anomalies go: 1 up, -1 down, 0 either
    habits: ClassVar[Mapping[str, Habit]] = HABITS
    together: ClassVar[frozenset[str]] = frozenset()  # kinds that strike every feature at once
    sizes: tuple[float, float] = (5.0, 10.0)  # drawn sizes, local noise standard deviations

    def __init__(self, seed: int = 0, rate: float = 0.01, injections: Iterable[tuple[int, str, float]] = ()) -> None:
        if not 0 <= rate <= 0.1:
            raise ValueError(f"rate is the anomalous share of steps, 0 to 0.1; got {rate}; ask for 0.01 to see about one step in a hundred")
        self.seed = seed
        self.rate = rate
        self.step = 0  # absolute number of the next step
        self.injections: list[Injection] = []
        self._profile = self.profile()  # (season, features), the calm value of each step of the season
        self._blocks: dict[int, tuple[Floats, Floats]] = {}
        self._decks: dict[int, list[Event]] = {}
        self._injected: list[Event] = []  # not over yet
        self._held: dict[Event, Floats] = {}
        for step, kind, size in injections:
            self._add(Injection(step, kind, size))

    @abstractmethod
    def profile(self) -> Floats:
        """(season, features): the calm value at each step of the season, which starts on Monday at midnight."""

    @abstractmethod
    def base(self, block: int, calm: Floats) -> tuple[Floats, Floats]:
        """(BLOCK, features) twice: the profile `calm` with its noise, and the standard deviation of that noise."""

    # what a user calls

    def take(self, steps: int) -> Chunk:
        """The next steps, all of them."""
        if steps < 0:
            raise ValueError(f"wanted a number of steps, 0 or more; got {steps}")
        start, stop = self.step, self.step + steps
        x, label = self._laid(start, stop)
        self.step = stop
        self._injected = [event for event in self._injected if event.stop > stop]
        return Chunk(START + self.period * np.arange(start, stop, dtype=np.float64), x, label)

    def inject(self, kind: str, size: float) -> None:
        """Shows an anomaly from the very next step on; a second one in the same breath starts one step later and lies on top."""
        busy = max((event.start + 1 for event in self._injected), default=0)
        self._add(Injection(max(self.step, busy), kind, size))

    # the base

    def draw(self, purpose: str, number: int) -> np.random.Generator:
        """The generator of one purpose and one block, era or step: no two share a number, none depends on another's use."""
        key = (self.seed, crc32(f"{type(self).__name__} {purpose}".encode()), number)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def white(self, purpose: str, block: int) -> Floats:
        """(2 BLOCK, features) independent unit Gaussians: those of the block before, for a recurrence to start on, and its own."""
        shape = (BLOCK, len(self.names))
        return np.concatenate([self.draw(purpose, number).standard_normal(shape) for number in (block, block + 1)])

    def _block(self, block: int) -> tuple[Floats, Floats]:
        """(BLOCK, features) twice: calm values within their limits, and the standard deviation of their noise."""
        if block not in self._blocks:
            self._blocks = {number: made for number, made in self._blocks.items() if abs(number - block) == 1}
            calm = self._profile[np.arange(block * BLOCK, (block + 1) * BLOCK) % self.season]
            values, spread = self.base(block, calm)
            low, high = np.array(self.limits).T
            self._blocks[block] = np.clip(values, low, high), spread
        return self._blocks[block]

    def _base(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """(stop - start, features) twice, as _block, of any steps."""
        first, last = start // BLOCK, max(start, stop - 1) // BLOCK
        blocks = [self._block(block) for block in range(first, last + 1)]
        cut = slice(start - first * BLOCK, stop - first * BLOCK)
        return np.concatenate([values for values, _ in blocks])[cut], np.concatenate([spread for _, spread in blocks])[cut]

    # the events

    def _era(self) -> int:
        """Steps over which one deck of events is dealt, so that their share is `rate`."""
        strange = sum(habit.times * (habit.shortest + habit.longest) / 2 for habit in self.habits.values())
        return round(strange / self.rate)

    def _deck(self, era: int) -> list[Event]:
        """The events of an era: a shuffled deck, dealt with uneven calm between, so they never touch and every kind comes."""
        if era in self._decks:
            return self._decks[era]
        draw, length = self.draw("events", era), self._era()
        kinds = draw.permutation([kind for kind, habit in self.habits.items() for _ in range(habit.times)])
        lasts = np.array([draw.integers(self.habits[kind].shortest, self.habits[kind].longest + 1) for kind in kinds])
        free = length - lasts.sum()
        calm = min(CALM, free // (2 * len(kinds)))
        weights = draw.uniform(0.2, 1.8, len(kinds) + 1)
        share = np.cumsum(weights)[:-1] / weights.sum() * (free - calm * len(kinds))
        starts = era * length + share.astype(int) + np.cumsum(lasts) - lasts + calm * np.arange(1, len(kinds) + 1)
        sizes = draw.uniform(*self.sizes, len(kinds))
        self._decks = {number: deck for number, deck in self._decks.items() if abs(number - era) == 1}
        self._decks[era] = [self._event(*card) for card in zip(starts.tolist(), kinds.tolist(), sizes.tolist(), lasts.tolist())]
        return self._decks[era]

    def _event(self, start: int, kind: str, size: float, last: int = 0) -> Event:
        """One event, its feature, side and shape drawn from a generator of its own."""
        draw, habit = self.draw("event", start), self.habits.get(kind, HABITS[kind])
        last = last or int(draw.integers(habit.shortest, habit.longest + 1))
        feature, side = int(draw.integers(len(self.names))), int(draw.choice((-1, 1)))
        features = tuple(range(len(self.names))) if kind in self.together else (feature,)
        shape = size * (self.sides[feature] or side) * habit.shape(draw, last)
        if kind != "contextual":
            return Event(start, kind, features, shape)
        return self._misplaced(Event(start, kind, features, shape), size)

    def _misplaced(self, event: Event, size: float) -> Event:
        """A contextual event: the feature and the other hour whose value lies nearest to `size` deviations from this one."""
        _, spread = self._base(event.start, event.start + 1)
        away = np.abs(self._profile - self._profile[event.start % self.season]) / spread  # (season, features)
        hour, feature = np.unravel_index(int(np.abs(away - size).argmin()), away.shape)
        return event._replace(features=(int(feature),), offset=int(hour) - event.start % self.season)

    def _add(self, injection: Injection) -> None:
        """Checks an injection, notes it for a replay and makes it an event."""
        if injection.kind not in KINDS[1:]:
            raise ValueError(f"wanted a kind of anomaly, one of {', '.join(KINDS[1:])}; got {injection.kind!r}")
        if not 0 < injection.size < np.inf:
            raise ValueError(f"wanted a size in noise standard deviations, above 0; got {injection.size}")
        self.injections.append(injection)
        self._injected.append(self._event(*injection))

    # the two together

    def _events(self, start: int, stop: int) -> list[Event]:
        """The events that touch these steps, those dealt before those injected."""
        dealt: list[Event] = []
        if self.rate:
            era = self._era()
            dealt = [event for number in range(start // era, (stop - 1) // era + 1) for event in self._deck(number)]
        return [event for event in dealt + self._injected if event.start < stop and event.stop > start]

    def _laid(self, start: int, stop: int) -> tuple[Floats, Labels]:
        """(stop - start, features) of values and of labels: the base with every event laid over it."""
        x, spread = self._base(start, stop)
        x = x.copy()
        label = np.zeros(x.shape, np.int8)
        for event in self._events(start, stop):
            rows = slice(max(start, event.start) - start, min(stop, event.stop) - start)
            columns = list(event.features)
            x[rows, columns] = self._changed(event, x[rows, columns], spread[rows, columns], start + rows.start)
            label[rows, columns] = KINDS.index(event.kind)
        return x, label

    def _changed(self, event: Event, x: Floats, spread: Floats, start: int) -> Floats:
        """(steps, features of the event): what it makes of the values x, which start at the absolute step `start`."""
        if event.kind == "dropout":
            return np.full_like(x, np.nan)
        if event.kind == "stuck":
            return np.broadcast_to(self._hold(event), x.shape)
        low, high = np.array(self.limits)[list(event.features)].T
        if event.kind == "contextual":
            step = np.arange(start, start + len(x))
            moved = self._profile[(step + event.offset) % self.season] - self._profile[step % self.season]
            return np.clip(x + moved[:, list(event.features)], low, high)
        deviation = event.shape[start - event.start :][: len(x), None] * spread
        return np.clip(x + deviation, low, high)

    def _hold(self, event: Event) -> Floats:
        """(features of the event,): the value it is stuck at, the last one shown before it."""
        step = max(event.start - 1, 0)
        x, _ = self._base(step, step + 1)
        return x[0, list(event.features)]


# The domains


class Wave(Simulated):
    """The plain season."""

    title = "Wave"
    about = "A plain sine with noise: the smallest stream that has a season."
    names, units, floors, period = ("signal",), ("V",), (0.02,), 0.1
    season, limits, sides = 160, ((-100.0, 100.0),), (0,)

    def profile(self) -> Floats:
        return 1.0 * np.sin(2 * np.pi * np.arange(self.season) / self.season)[:, None]

    def base(self, block: int, calm: Floats) -> tuple[Floats, Floats]:
        spread = np.full_like(calm, 0.35)
        return calm + spread * self.white("noise", block)[BLOCK:], spread


class Cpu(Simulated):
    """A server's processor."""

    title = "CPU"
    about = "The processor of an office server: busy in work hours, idle at night and at the weekend."
    names, units, floors, period = ("CPU",), ("%",), (0.5,), 300.0
    season, limits, sides = 2016, ((0.0, 100.0),), (1,)

    def profile(self) -> Floats:
        hour = np.arange(self.season) / 12 % 24
        work = np.arange(self.season) < 5 * 288
        rise = 1 / (1 + np.exp(-(hour - 8.5) * 1.6)) - 1 / (1 + np.exp(-(hour - 18) * 1.2))
        return (20 + np.where(work, 28, 6) * rise)[:, None]

    def base(self, block: int, calm: Floats) -> tuple[Floats, Floats]:
        spread = 2.5 + 0.04 * calm
        return calm + spread * autoregressive(self.white("noise", block)[:, 0], 0.5)[:, None], spread


STREAMS: dict[str, type[Simulated]] = {"wave": Wave, "cpu": Cpu}
