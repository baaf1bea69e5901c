"""Streams: sources of numbers, among them twelve simulated ones with labelled anomalies.

A simulated stream has two layers. The *base* is a season plus noise, made in blocks of
SIMULATION_BLOCK steps. A block is a pure function of (seed, block), so the numbers do not depend on
how they are cut into chunks, and no error accumulates over ten million steps. The *events* are the
anomalies: a shuffled deck of them is dealt over each era, another pure function of (seed, rate,
era), and added to the base when steps are taken.

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
from functools import cached_property
from itertools import accumulate, count, pairwise
from types import MappingProxyType
from typing import ClassVar, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LabelArray = NDArray[np.int8]
SizeRange = tuple[float, float]  # least and most
Shape = Callable[[np.random.Generator, int], FloatArray]
Preset = Mapping[str, str | int | float]  # settings by the names of redline/settings.py
KINDS = ("none", "point", "contextual", "collective", "shift", "drift", "stuck", "dropout")
SIMULATION_START = 1_767_571_200  # seconds since the Unix epoch: 2026-01-05T00:00:00Z, a Monday
# steps made at once; a recurrence starts one block earlier, so a block needs only the one before
SIMULATION_BLOCK = 512
# steps without an anomaly between two events, fewer only where the rate is too high for that
MIN_CALM_STEPS = 24
MAX_STUCK_EVENTS = 64  # stuck values remembered, more than can overlap


class Chunk(NamedTuple):
    """Some steps of a stream, in order."""

    time: FloatArray  # (steps,) seconds since the Unix epoch, UTC
    x: FloatArray  # (steps, features) in the stream's units, NaN = missing
    label: LabelArray | None  # (steps, features) index into KINDS; None = truth unknown


class Stream(ABC):
    """A source of numbers: features with names and units, taken a few steps at a time."""

    title: str = ""  # a word or two, for a tab
    about: str = ""  # one sentence, for a table
    names: tuple[str, ...]
    units: tuple[str, ...]
    floors: tuple[float, ...]  # the smallest believable spread of each feature, in its unit
    period: float  # seconds per step
    preset: Preset = MappingProxyType({})  # what it starts with; the rest are the defaults
    limits: ClassVar[tuple[SizeRange, ...]] = ()  # what each feature can physically be; () = any
    # counts to report to the user, such as "repeated times": 3
    notes: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def take(self, steps: int) -> Chunk:
        """Return the next steps; a live source may return fewer, or none."""

    def inject(self, kind: str, size: float) -> None:
        """Add an anomaly at the next step; ValueError for a stream that is not simulated."""
        raise ValueError(
            "an anomaly can be injected into a simulated stream only; "
            f"{self.title or type(self).__name__} is real"
        )


class Injection(NamedTuple):
    """An injected anomaly; a list of them replays what was seen."""

    step: int  # absolute, the first one it shows on
    kind: str
    size: float  # local noise standard deviations


class SimulatedEvent(NamedTuple):
    """One anomaly, drawn and ready to be added to the base."""

    start: int  # absolute step
    kind: str
    features: tuple[int, ...]
    # (length, features) local noise standard deviations, signed; of a kind without a size only the
    # length counts
    shape: FloatArray
    offset: int = 0  # contextual: steps to the hour of the season whose value is shown

    @property
    def stop(self) -> int:
        """Return the first step after it."""
        return self.start + len(self.shape)


def level(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a full deviation from the first step to the last."""
    return np.ones(length)


def ramp(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a deviation that grows by the same amount each step."""
    return np.arange(1, length + 1) / length


def wear(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a deviation that grows ever faster, as when a bearing fails."""
    return np.asarray(np.expm1(2 * ramp(draw, length)) / np.expm1(2))


def burst(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a ragged run to one side, its first step the full deviation."""
    return np.concatenate(([1.0], draw.uniform(0.6, 1.0, length - 1)))


def swing(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a ragged run to both sides in turn, its first step the full deviation."""
    return burst(draw, length) * (-1.0) ** np.arange(length)


def crash(draw: np.random.Generator, length: int) -> FloatArray:
    """Return a full deviation at once that decays exponentially."""
    return np.exp(-1.5 * np.arange(length) / length)


class Habit(NamedTuple):
    """How often a kind of anomaly occurs in a domain, how long and of what shape."""

    times: int  # events per era
    shortest: int  # steps
    longest: int  # steps
    shape: Shape = level


HABITS = {
    "point": Habit(24, 1, 1),
    "contextual": Habit(3, 2, 4),
    "collective": Habit(3, 4, 8, burst),
    "shift": Habit(1, 12, 20),
    "drift": Habit(1, 16, 24, ramp),
    "stuck": Habit(1, 6, 10),
    "dropout": Habit(2, 1, 4),
}


def autoregressive(z: FloatArray, memory: float) -> FloatArray:
    """Return first-order autoregressive noise of unit spread.

    z: (2 SIMULATION_BLOCK, features) unit Gaussians -> the last SIMULATION_BLOCK steps; memory:
    share of the step before.
    """

    def next_value(past: float, new: float) -> float:
        return memory * past + new

    scaled = (z * (1 - memory**2) ** 0.5).T.tolist()
    paths = [list(accumulate(feature, next_value))[SIMULATION_BLOCK:] for feature in scaled]
    return np.array(paths).T


def volatility(z: FloatArray) -> FloatArray:
    """Return the spreads of a GARCH(1, 1) process, around 1: a big move makes the next ones big.

    z: (2 SIMULATION_BLOCK, features) unit Gaussians -> the last SIMULATION_BLOCK steps.
    """
    news = 0.08
    memory = 0.9

    def next_variance(variance: float, z: float) -> float:
        return 1 - news - memory + variance * (news * z * z + memory)

    variances = [
        list(accumulate(feature, next_variance, initial=1.0))[SIMULATION_BLOCK:-1]
        for feature in z.T.tolist()
    ]
    return np.array(variances).T ** 0.5


def lognormal(centre: FloatArray, z: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray]:
    """Return log-normal amounts of mean `centre` and their standard deviation.

    sigma: the standard deviation of the logarithm.
    """
    return centre * np.exp(sigma * z - sigma**2 / 2), centre * np.expm1(sigma**2) ** 0.5


def bump(hour: FloatArray, at: float, width: float) -> FloatArray:
    """Return a bump from 0 to 1 and back over the day, highest at the hour `at`.

    width: hours to each side, about.
    """
    return np.exp((np.cos((hour - at) * np.pi / 12) - 1) / (width * np.pi / 12) ** 2)


def weekend(day: FloatArray) -> FloatArray:
    """Return 0 on a working day, 1 on Saturday and Sunday, with soft edges.

    day: days since Monday at midnight.
    """
    away = np.abs((day - 6 + 3.5) % 7 - 3.5)  # days from the midnight between the two
    return np.clip((1.1 - away) / 0.2, 0, 1)


# suits most domains (bench/presets.py); short refractory steps and no habituation, for the next
# event comes soon
FORECAST_PRESET: MappingProxyType[str, str | int | float] = MappingProxyType(
    {
        "detector": "autoregressive",
        "window": 240,
        "threshold": 4.2,
        "refractory": 5,
        "habituation": 1,
    }
)


# a stream of which nothing is known: of real series it raises about as few false alarms as
# *Find settings* allows, and needs no past for that (python -m bench.presets --start)
UNKNOWN_PRESET: MappingProxyType[str, str | int | float] = MappingProxyType(
    {"detector": "ensemble", "window": 120, "threshold": 6.0}
)


class Simulated(Stream):
    """Base of the simulated domains, whose anomalies are labelled.

    A subclass sets its features, defines one season (`profile`) and its noise (`base`), and how its
    anomalies occur (`habits`). Sizes are in standard deviations of the noise at that step, so the
    same size is as hard to detect everywhere.
    """

    preset: Preset = FORECAST_PRESET
    season: ClassVar[int]  # steps until the pattern repeats
    limits: ClassVar[tuple[SizeRange, ...]]  # what each feature can physically be
    sides: ClassVar[tuple[int, ...]]  # which way a feature's anomalies go: 1 up, -1 down, 0 either
    habits: ClassVar[Mapping[str, Habit]] = HABITS
    together: ClassVar[frozenset[str]] = frozenset()  # kinds that strike every feature at once

    def __init_subclass__(cls) -> None:
        cls.about = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())

    def __init__(
        self,
        seed: int = 0,
        rate: float = 0.01,
        injections: Iterable[tuple[int, str, float]] = (),
        sizes: SizeRange = (5.0, 10.0),
    ) -> None:
        if not 0 <= rate <= 0.1:
            raise ValueError(
                "wanted a rate, the anomalous share of steps, from 0 to 0.1; got "
                f"{rate}; 0.01 is one step in a hundred"
            )
        if seed < 0:
            raise ValueError(f"wanted a seed, a whole number of 0 or more; got {seed}")
        self.seed = seed
        self.rate = rate
        self.sizes = sizes  # of the dealt anomalies, local noise standard deviations
        self.step = 0  # absolute number of the next step
        self.injections: list[Injection] = []  # all of them, for a replay
        self._profile = self.profile()  # (season, features)
        self._blocks: dict[int, tuple[FloatArray, FloatArray]] = {}  # the last few made
        self._decks: dict[int, list[SimulatedEvent]] = {}  # the last few dealt
        # not over yet, or only just: a sensor may stick at their last value
        self._injected: list[SimulatedEvent] = []
        # by first step of a stuck event: (features,) the values just before it
        self._stuck_values: dict[int, FloatArray] = {}
        for injection in injections:
            self._add(Injection(*injection))

    @abstractmethod
    def profile(self) -> FloatArray:
        """Return the value without noise at each step of the season, (season, features).

        The season starts on Monday at midnight.
        """

    @abstractmethod
    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the profile `calm` with noise, and the standard deviation of that noise.

        All three (SIMULATION_BLOCK, features).
        """

    def calendar(self) -> tuple[FloatArray, FloatArray]:
        """Return the hour of the day and the share of weekend, 0 to 1; both (season,)."""
        seconds = self.period * np.arange(self.season)
        return seconds / 3600 % 24, weekend(seconds / 86_400)

    # public methods

    def take(self, steps: int) -> Chunk:
        """Return the next steps, all of them."""
        start = self.step
        self.skip(steps)
        stop = self.step
        first_edge = start - start % SIMULATION_BLOCK + SIMULATION_BLOCK
        edges = (start, *range(first_edge, stop, SIMULATION_BLOCK), stop)
        values, labels = zip(*(self._overlay(*piece) for piece in pairwise(edges)))
        self._injected = [event for event in self._injected if event.stop >= stop]
        time = SIMULATION_START + self.period * np.arange(start, stop, dtype=np.float64)
        return Chunk(time, np.concatenate(values), np.concatenate(labels))

    def skip(self, steps: int) -> None:
        """Advance without making the steps between; any number takes no time."""
        if steps < 0:
            raise ValueError(
                f"wanted a number of steps, 0 or more, for a stream has no way back; got {steps}"
            )
        self.step += steps

    def inject(self, kind: str, size: float) -> None:
        """Add an anomaly from the next step on; a second one at once starts a step later."""
        taken = {event.start for event in self._injected}
        step = next(step for step in count(self.step) if step not in taken)
        self._add(Injection(step, kind, size))

    # the base

    def draw(self, purpose: str, number: int) -> np.random.Generator:
        """Return the random generator of one purpose and one block, era or step.

        All are independent of each other and of each other's use.
        """
        key = (self.seed, crc32(f"{type(self).__name__} {purpose}".encode()), number)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def white(self, purpose: str, block: int) -> FloatArray:
        """Return independent unit Gaussians, (2 SIMULATION_BLOCK, features).

        The first half is the block before, on which a recurrence starts.
        """
        shape = (SIMULATION_BLOCK, len(self.names))
        return np.concatenate(
            [self.draw(purpose, number).standard_normal(shape) for number in (block, block + 1)]
        )

    def wander(self, block: int) -> FloatArray:
        """Return a slow smooth drift around 0 of about unit spread, (SIMULATION_BLOCK, features).

        It interpolates a Gaussian at each block's edge by a smoothstep.
        """
        left, right = (
            self.draw("wander", number).standard_normal(len(self.names))
            for number in (block, block + 1)
        )
        part = (np.arange(SIMULATION_BLOCK) / SIMULATION_BLOCK)[:, None]
        return left + (right - left) * part**2 * (3 - 2 * part)

    def _block(self, block: int) -> tuple[FloatArray, FloatArray]:
        """Return a block's values within their limits, and the standard deviation of their noise.

        Both (SIMULATION_BLOCK, features).
        """
        if block not in self._blocks:
            self._blocks = {
                number: made for number, made in self._blocks.items() if abs(number - block) == 1
            }
            steps = np.arange(block * SIMULATION_BLOCK, (block + 1) * SIMULATION_BLOCK)
            calm = self._profile[steps % self.season]
            values, spread = self.base(block, calm)
            self._blocks[block] = np.clip(values, *np.transpose(self.limits)), spread
        return self._blocks[block]

    def _base(self, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
        """Return what `_block` does for any steps, as copies; both (stop - start, features)."""
        first = start // SIMULATION_BLOCK
        last = max(start, stop - 1) // SIMULATION_BLOCK
        values, spreads = zip(*(self._block(block) for block in range(first, last + 1)))
        cut = slice(start - first * SIMULATION_BLOCK, stop - first * SIMULATION_BLOCK)
        return np.concatenate(values)[cut], np.concatenate(spreads)[cut]

    # the events

    @cached_property
    def _era(self) -> int:
        """Return the steps of one deck of events, so that the anomalous share is `rate`."""
        anomalous = sum(
            habit.times * (habit.shortest + habit.longest) / 2 for habit in self.habits.values()
        )
        return round(anomalous / self.rate)

    def _deck(self, era: int) -> list[SimulatedEvent]:
        """Return the events of an era: a shuffled deck, with gaps of random length between.

        So events never touch, and every kind occurs.
        """
        if era not in self._decks:
            draw = self.draw("events", era)
            kinds = draw.permutation(
                [kind for kind, habit in self.habits.items() for _ in range(habit.times)]
            ).tolist()
            lasts = [
                int(draw.integers(self.habits[kind].shortest, self.habits[kind].longest + 1))
                for kind in kinds
            ]
            sizes = draw.uniform(*self.sizes, len(kinds)).tolist()
            starts = self._deal_starts(draw, era, kinds, lasts)
            self._decks = {
                number: deck for number, deck in self._decks.items() if abs(number - era) == 1
            }
            self._decks[era] = [self._event(*card) for card in zip(starts, kinds, sizes, lasts)]
        return self._decks[era]

    def _deal_starts(
        self, draw: np.random.Generator, era: int, kinds: list[str], lasts: list[int]
    ) -> list[int]:
        """Return the absolute first step of each event.

        A contextual one is moved within its gap to where the season allows the largest shift.
        """
        end = (era + 1) * self._era
        free = self._era - sum(lasts)
        calm = min(MIN_CALM_STEPS, free // (2 * len(kinds)))
        weights = draw.uniform(0.2, 1.8, len(kinds) + 1)
        gaps = calm + (weights / weights.sum() * (free - calm * len(kinds))).astype(int)
        stops = end - self._era + np.cumsum(gaps[:-1] + lasts)
        starts: list[int] = (stops - lasts).tolist()
        for i, kind in enumerate(kinds):
            if kind == "contextual":
                low = starts[i - 1] + lasts[i - 1] + calm if i else starts[i]
                high = starts[i + 1] - calm - lasts[i] if i + 1 < len(kinds) else end - lasts[i]
                shift = self._largest_shift[np.arange(low, high + 1) % self.season]
                starts[i] = low + int(draw.choice(np.flatnonzero(shift >= 0.9 * shift.max())))
        return starts

    @cached_property
    def _largest_shift(self) -> FloatArray:
        """Return the distance from each step of the season to its most different step, (season,).

        In noise standard deviations, of the feature where it is largest.
        """
        _, spread = self._base(0, self.season)
        away = np.maximum(
            self._profile.max(0) - self._profile, self._profile - self._profile.min(0)
        )
        return np.asarray((away / spread).max(1))

    def _event(self, start: int, kind: str, size: float, last: int = 0) -> SimulatedEvent:
        """Return an event; length, feature, side and shape are drawn by a generator of its own."""
        draw = self.draw("event", start)
        habit = self.habits.get(kind, HABITS[kind])
        last = last or int(draw.integers(habit.shortest, habit.longest + 1))
        feature = int(draw.integers(len(self.names)))
        side = int(draw.choice((-1, 1)))
        features = tuple(range(len(self.names))) if kind in self.together else (feature,)
        sides = [self.sides[each] or side for each in features]
        shape = size * habit.shape(draw, last)[:, None] * sides
        event = SimulatedEvent(start, kind, features, shape)
        return self._as_contextual(event, size) if kind == "contextual" else event

    def _as_contextual(self, event: SimulatedEvent, size: float) -> SimulatedEvent:
        """Return a contextual event: values of another hour, in one feature.

        Hour and feature are those whose profile is nearest to `size` deviations from the present.
        """
        _, spread = self._base(event.start, event.start + 1)
        now = event.start % self.season
        away = np.abs(self._profile - self._profile[now]) / spread  # (season, features)
        hour, feature = np.unravel_index(int(np.abs(away - size).argmin()), away.shape)
        return event._replace(features=(int(feature),), offset=int(hour) - now)

    def _add(self, injection: Injection) -> None:
        """Check an injection, record it for a replay, and make it an event."""
        if injection.kind not in KINDS[1:]:
            raise ValueError(
                f"wanted a kind of anomaly, one of {', '.join(KINDS[1:])}; got {injection.kind!r}"
            )
        if not 0 < injection.size < np.inf:
            raise ValueError(
                "wanted a size in noise standard deviations, above 0; got "
                f"{injection.size}; 8 is easy to see"
            )
        if injection.step < self.step:
            raise ValueError(
                f"wanted an injection at step {self.step} or later; got {injection.step}"
            )
        self.injections.append(injection)
        self._injected.append(self._event(*injection))

    # the two together

    def _events(self, start: int, stop: int) -> list[SimulatedEvent]:
        """Return the events that touch these steps, those dealt before those injected."""
        eras = range(start // self._era, (stop - 1) // self._era + 1) if self.rate else ()
        events = [event for era in eras for event in self._deck(era)] + self._injected
        return [event for event in events if event.start < stop and event.stop > start]

    def _overlay(self, start: int, stop: int) -> tuple[FloatArray, LabelArray]:
        """Return values and labels, the base with every event; both (stop - start, features)."""
        x, spread = self._base(start, stop)
        label = np.zeros(x.shape, np.int8)
        for event in self._events(start, stop):
            first = max(start, event.start)
            there = np.ix_(range(first - start, min(stop, event.stop) - start), event.features)
            x[there] = self._apply_event(event, first, x[there], spread[there])
            label[there] = KINDS.index(event.kind)
        return x, label

    def _apply_event(
        self, event: SimulatedEvent, first: int, x: FloatArray, spread: FloatArray
    ) -> FloatArray:
        """Return the values x with an event, (steps, features of the event).

        first: the absolute step of the first value.
        """
        if event.kind == "dropout":
            return np.full_like(x, np.nan)
        if event.kind == "stuck":
            return np.tile(self._values_before(event.start)[list(event.features)], (len(x), 1))
        if event.kind == "contextual":
            step = np.arange(first, first + len(x))
            moved = (
                self._profile[(step + event.offset) % self.season]
                - self._profile[step % self.season]
            )
            deviation = moved[:, list(event.features)]
        else:
            deviation = spread * event.shape[first - event.start :][: len(x)]
        low, high = np.transpose([self.limits[feature] for feature in event.features])
        return np.clip(x + deviation, low, high)

    def _values_before(self, start: int) -> FloatArray:
        """Return the values before step `start`, which a stuck sensor repeats: (features,)."""
        if start not in self._stuck_values:
            step = max(start - 1, 0)
            calm, _ = self._base(step, step + 1)
            shown = self._overlay(step, start)[0] if start else calm
            self._stuck_values = dict(list(self._stuck_values.items())[-MAX_STUCK_EVENTS:]) | {
                start: np.where(np.isnan(shown), calm, shown)[0]
            }
        return self._stuck_values[start]


class Wave(Simulated):
    """A plain sine with noise, the smallest stream that has a season."""

    title = "Wave"
    # a short window follows the slope, but of few values the deviation is uncertain: alarm late
    preset = FORECAST_PRESET | {
        "detector": "rolling z-score",
        "window": 24,
        "threshold": 4.8,
    }
    names = ("signal",)
    units = ("V",)
    floors = (0.02,)
    period = 0.1
    season = 160
    limits = ((-100.0, 100.0),)
    sides = (0,)
    habits = HABITS | {"collective": Habit(3, 5, 9, swing)}

    def profile(self) -> FloatArray:
        return np.sin(2 * np.pi * np.arange(self.season) / self.season)[:, None]

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = np.full_like(calm, 0.45)
        return calm + spread * self.white("noise", block)[SIMULATION_BLOCK:], spread


class Cpu(Simulated):
    """The processor of an office server, busy in work hours, idle at night and at the weekend."""

    title = "CPU"
    names = ("CPU",)
    units = ("%",)
    floors = (0.5,)
    period = 300.0
    season = 7 * 288
    limits = ((0.0, 100.0),)
    sides = (1,)

    def profile(self) -> FloatArray:
        hour, rest = self.calendar()
        work = (
            1 / (1 + np.exp(0.8 * (8.8 - hour)))
            - 1 / (1 + np.exp(0.7 * (18.2 - hour)))
            - 0.2 * bump(hour, 12.8, 0.8)
        )
        return (17 + 24 * work * (1 - 0.75 * rest))[:, None]

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = 3 + 0.05 * calm
        return calm + self.wander(block) + spread * autoregressive(
            self.white("noise", block), 0.5
        ), spread


class Finance(Simulated):
    """A price that strays like a walk, with crashes and spikes, and how much of it is traded."""

    title = "Finance"
    preset = FORECAST_PRESET | {"threshold": 4.4}  # heavy tails
    names = ("price", "volume")
    units = ("USD", "lots")
    floors = (0.05, 5.0)
    period = 60.0
    season = 1440
    limits = ((0.0, np.inf), (0.0, np.inf))
    sides = (0, 1)
    habits = HABITS | {"collective": Habit(3, 6, 10, crash)}

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        volume = (
            380 + 330 * bump(hour, 14.5, 2.5) + 160 * bump(hour, 8, 2) + 120 * bump(hour, 20, 1.5)
        )
        return np.stack([np.full(self.season, 182.0), volume], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        z = self.white("noise", block)
        fair = calm[:, :1]
        spread = 0.0025 * fair
        price = fair * (1 + 0.01 * self.wander(block)[:, :1]) + spread * autoregressive(
            z[:, :1], 0.97
        )
        volume, loose = lognormal(calm[:, 1:], autoregressive(z[:, 1:], 0.5), 0.12)
        return np.hstack([price, volume]), np.hstack([spread, loose])


class Network(Simulated):
    """Traffic of an access line in and out, with evening peaks, weekends, and floods of packets."""

    title = "Network"
    preset = FORECAST_PRESET | {"threshold": 4.4}  # heavy tails
    names = ("in", "out")
    units = ("Mbit/s", "Mbit/s")
    floors = (5.0, 2.0)
    period = 600.0
    season = 7 * 144
    limits = ((0.0, 2500.0), (0.0, 2500.0))
    sides = (1, 1)
    habits = HABITS | {"collective": Habit(4, 5, 10, burst)}

    def profile(self) -> FloatArray:
        hour, rest = self.calendar()
        evening = bump(hour, 20, 3.5)
        day = bump(hour, 13, 4) * (0.75 + 0.5 * rest)
        return np.stack([150 + 170 * evening + 100 * day, 60 + 40 * evening + 55 * day], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = 0.14 * calm
        return calm * (1 + 0.03 * self.wander(block)) + spread * autoregressive(
            self.white("noise", block), 0.4
        ), spread


class Fraud(Simulated):
    """Payments by bank and by UPI, the mean amount of each minute, with sudden large transfers and
    bursts of them.
    """

    title = "Fraud"
    preset = FORECAST_PRESET | {"window": 120, "threshold": 4.8}  # heavy tails
    names = ("bank", "UPI")
    units = ("INR", "INR")
    floors = (100.0, 10.0)
    period = 60.0
    season = 1440
    limits = ((0.0, np.inf), (0.0, np.inf))
    sides = (1, 1)
    habits = HABITS | {"collective": Habit(5, 4, 8, burst)}

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        bank = 3600 + 3300 * bump(hour, 13.5, 4)
        upi = 430 + 150 * bump(hour, 12.5, 3) + 300 * bump(hour, 20, 3.5)
        return np.stack([bank, upi], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        return lognormal(calm, autoregressive(self.white("noise", block), 0.3), 0.13)


class Electricity(Simulated):
    """The power a small factory draws, shift by shift, with equipment that trips or stays on."""

    title = "Electricity"
    names = ("load",)
    units = ("kW",)
    floors = (0.5,)
    period = 300.0
    season = 7 * 288
    limits = ((0.0, 400.0),)
    sides = (0,)
    habits = HABITS | {"shift": Habit(2, 10, 18)}

    def profile(self) -> FloatArray:
        hour, rest = self.calendar()
        shifts = 1 / (1 + np.exp(0.9 * (6.5 - hour))) - 1 / (1 + np.exp(0.9 * (21.5 - hour)))
        peaks = 0.3 * bump(hour, 10, 2) + 0.25 * bump(hour, 18, 2)
        return (78 + 38 * (shifts + peaks) * (1 - 0.6 * rest))[:, None]

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = 3.5 + 0.045 * calm
        return calm + 1.5 * self.wander(block) + spread * autoregressive(
            self.white("noise", block), 0.6
        ), spread


class Machine(Simulated):
    """The bearing of a machine that runs in hourly cycles, wears, and is serviced before it
    fails.
    """

    title = "Machine"
    names = ("temperature", "vibration")
    units = ("°C", "mm/s")
    floors = (0.2, 0.03)
    period = 20.0
    season = 180
    limits = ((-40.0, 200.0), (0.0, 50.0))
    sides = (1, 1)
    habits = HABITS | {"drift": Habit(2, 18, 30, wear)}
    together = frozenset({"drift"})
    service = 6000  # steps between two services

    def profile(self) -> FloatArray:
        cycle = np.arange(self.season) / self.season * 24  # the bump's day is one cycle
        loaded = bump(cycle, 8, 6)
        return np.stack([55 + 9 * np.roll(loaded, 12), 1.9 + 1.5 * loaded], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        worn = (
            np.arange(block * SIMULATION_BLOCK, (block + 1) * SIMULATION_BLOCK)
            % self.service
            / self.service
        )
        # (SIMULATION_BLOCK,) 0 after a service, near 1 before
        worn = np.where(worn < 0.96, np.expm1(3 * worn) / np.expm1(3), 22 * (1 - worn))
        spread = np.tile((1.0, 0.18), (SIMULATION_BLOCK, 1))
        values = calm + spread * (2.5 * worn[:, None] + 0.3 * self.wander(block))
        return values + spread * autoregressive(self.white("noise", block), 0.5), spread


class Server(Simulated):
    """Requests to a web shop, with an evening peak, rushes and outages."""

    title = "Server"
    names = ("requests",)
    units = ("1/min",)
    floors = (5.0,)
    period = 60.0
    season = 1440
    limits = ((0.0, np.inf),)
    sides = (0,)
    habits = HABITS | {"collective": Habit(3, 6, 10, crash), "shift": Habit(2, 10, 18)}

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        return (760 + 520 * bump(hour, 20, 3.5) + 330 * bump(hour, 12, 3.5))[:, None]

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = 2 * np.sqrt(calm)  # twice that of a Poisson count: visitors come in crowds
        return calm * (1 + 0.02 * self.wander(block)) + spread * autoregressive(
            self.white("noise", block), 0.4
        ), spread


class Stocks(Simulated):
    """A share's minute returns, calm and wild by turns, with extreme moves, and its volume."""

    title = "Stocks"
    preset = FORECAST_PRESET | {"window": 60, "threshold": 4.5}  # heavy tails
    names = ("return", "volume")
    units = ("%", "k shares")
    floors = (0.005, 0.2)
    period = 60.0
    season = 1440
    limits = ((-100.0, np.inf), (0.0, np.inf))
    sides = (0, 1)
    habits = HABITS | {"collective": Habit(3, 5, 9, swing)}

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        volume = 16 + 14 * bump(hour, 14.5, 3) + 10 * bump(hour, 20.5, 2.5)
        return np.stack([np.zeros(self.season), volume], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        z = self.white("noise", block)
        spread = 0.08 * volatility(z[:, :1])
        volume, loose = lognormal(calm[:, 1:], autoregressive(z[:, 1:], 0.4), 0.12)
        return np.hstack([spread * z[SIMULATION_BLOCK:, :1], volume]), np.hstack([spread, loose])


class Iot(Simulated):
    """The climate of a greenhouse by three sensors that stick, drop out and drift."""

    title = "IoT"
    names = ("humidity", "temperature", "pressure")
    units = ("%", "°C", "hPa")
    floors = (0.5, 0.1, 0.1)
    period = 300.0
    season = 288
    limits = ((0.0, 100.0), (-40.0, 85.0), (300.0, 1100.0))
    sides = (0, 0, 0)
    habits = HABITS | {
        "drift": Habit(2, 18, 30, ramp),
        "stuck": Habit(3, 8, 14),
        "dropout": Habit(4, 2, 6),
    }

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        sun = bump(hour, 14.5, 5)
        tide = np.cos((hour - 10) * np.pi / 6)
        return np.stack([68 - 13 * sun, 17.5 + 5.2 * sun, 1013 + 0.5 * tide], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = np.tile((2.2, 0.8, 0.6), (SIMULATION_BLOCK, 1))
        slow = self.wander(block) * (1.0, 0.5, 2.0)
        return calm + slow + spread * autoregressive(self.white("noise", block), 0.7), spread


class WebService(Simulated):
    """Traffic of a web service, smooth by day and by week, with bursts, dips, dead spells, and
    deployments that shift its level.
    """

    title = "Web service"
    names = ("requests", "latency", "errors")
    units = ("1/s", "ms", "%")
    floors = (1.0, 0.5, 0.01)
    period = 60.0
    season = 7 * 1440
    limits = ((0.0, np.inf), (0.0, np.inf), (0.0, 100.0))
    sides = (0, 1, 1)
    habits = HABITS | {
        "collective": Habit(4, 5, 10, burst),
        "shift": Habit(2, 14, 24),
        "dropout": Habit(1, 12, 24),
    }

    def profile(self) -> FloatArray:
        hour, rest = self.calendar()
        load = 0.3 + (0.45 * bump(hour, 14, 4) + 0.3 * bump(hour, 20.5, 2.5)) * (1 - 0.35 * rest)
        return np.stack([900 * load, 70 + 60 * load**2, 0.3 + 0.2 * load], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = calm * (0.015, 0.015, 0.04)
        slow = calm * (0.01, 0.005, 0.02) * self.wander(block)
        return calm + slow + spread * autoregressive(self.white("noise", block), 0.2), spread


class Health(Simulated):
    """A patient at a bedside monitor who sleeps, rests and walks, with sensors that come off, and
    minutes in which all four signs get worse together.
    """

    title = "Health"
    names = ("heart rate", "oxygen", "breathing", "blood pressure")
    units = ("1/min", "%", "1/min", "mmHg")
    floors = (0.5, 0.1, 0.2, 0.5)
    period = 60.0
    season = 1440
    limits = ((0.0, 300.0), (0.0, 100.0), (0.0, 80.0), (0.0, 300.0))
    sides = (1, -1, 1, -1)
    habits = HABITS | {
        "shift": Habit(2, 12, 20),
        "drift": Habit(2, 16, 30, ramp),
        "dropout": Habit(4, 2, 8),
    }
    together = frozenset({"shift", "drift"})

    def profile(self) -> FloatArray:
        hour, _ = self.calendar()
        asleep = bump(hour, 2, 4.5)
        active = bump(hour, 10, 1) + 0.7 * bump(hour, 16.5, 1.2)
        signs = ((72, -13, 22), (97, -1.2, -0.6), (15, -2.5, 5), (122, -14, 12))
        return np.stack([rest + low * asleep + high * active for rest, low, high in signs], 1)

    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = np.tile((2.0, 0.3, 0.7, 3.0), (SIMULATION_BLOCK, 1))
        slow = 0.6 * spread * self.wander(block)
        return calm + slow + spread * autoregressive(self.white("noise", block), 0.5), spread


STREAMS: dict[str, type[Simulated]] = {
    "wave": Wave,
    "cpu": Cpu,
    "finance": Finance,
    "network": Network,
    "fraud": Fraud,
    "electricity": Electricity,
    "machine": Machine,
    "server": Server,
    "stocks": Stocks,
    "iot": Iot,
    "web-service": WebService,
    "health": Health,
}
