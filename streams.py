"""Streams give numbers, and ten simulated ones know which of theirs are anomalous.

A simulated stream is laid in two layers. The *base* is a season plus noise, made in blocks of BLOCK
steps; a block is a pure function of (seed, block), so the numbers cannot depend on how they are cut
into chunks, nothing is carried from step to step and nothing wears out after ten million of them.
The *events* are the anomalies: a deck of them is dealt over each era, another pure function of
(seed, rate, era), and laid over the base when steps are taken.

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
KINDS = ("none", "point", "contextual", "collective", "shift", "drift", "stuck", "dropout")
SIMULATION_START = 1_767_571_200  # seconds since the Unix epoch: 2026-01-05T00:00:00Z, a Monday
# steps made at once; also how far back a recurrence starts, so that a block needs only the one
# before it
SIMULATION_BLOCK = 512
MIN_CALM_STEPS = (
    24  # steps without an anomaly between two events, fewer only where the rate leaves no room
)
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
    notes: Mapping[str, int] = MappingProxyType(
        {}
    )  # counted facts worth telling, such as "repeated times": 3

    @abstractmethod
    def take(self, steps: int) -> Chunk:
        """The next steps; a live source gives fewer, perhaps none."""

    def inject(self, kind: str, size: float) -> None:
        """Makes an anomaly happen now; only a simulated stream can."""
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
    """One anomaly, drawn and ready to be laid over the base."""

    start: int  # absolute step
    kind: str
    features: tuple[int, ...]
    # (length,) local noise standard deviations, signed; only its length counts for the kinds
    # without a size
    shape: FloatArray
    offset: int = 0  # contextual: steps to the hour of the season whose value is shown

    @property
    def stop(self) -> int:
        """The first step after it."""
        return self.start + len(self.shape)


def level(draw: np.random.Generator, length: int) -> FloatArray:
    """A full deviation from the first step to the last."""
    return np.ones(length)


def ramp(draw: np.random.Generator, length: int) -> FloatArray:
    """A deviation that grows by the same amount each step."""
    return np.arange(1, length + 1) / length


def wear(draw: np.random.Generator, length: int) -> FloatArray:
    """A deviation that grows ever faster, as a bearing fails."""
    return np.asarray(np.expm1(2 * ramp(draw, length)) / np.expm1(2))


def burst(draw: np.random.Generator, length: int) -> FloatArray:
    """A ragged run to one side, its first step the full deviation."""
    return np.concatenate(([1.0], draw.uniform(0.6, 1.0, length - 1)))


def swing(draw: np.random.Generator, length: int) -> FloatArray:
    """A ragged run to both sides in turn, its first step the full deviation."""
    return burst(draw, length) * (-1.0) ** np.arange(length)


def crash(draw: np.random.Generator, length: int) -> FloatArray:
    """A full deviation at once that is won back little by little."""
    return np.exp(-1.5 * np.arange(length) / length)


class Habit(NamedTuple):
    """How a kind of anomaly behaves in a domain."""

    times: int  # events an era, so the rate of the kind
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
    """Noise that remembers `memory` of the step before: (2 BLOCK, features) of unit Gaussians in,
    the last BLOCK out, unit spread.
    """
    scaled = (z * (1 - memory**2) ** 0.5).T.tolist()
    paths = [
        list(accumulate(feature, lambda past, new: memory * past + new))[SIMULATION_BLOCK:]
        for feature in scaled
    ]
    return np.array(paths).T


def volatility(z: FloatArray) -> FloatArray:
    """GARCH(1, 1): (2 BLOCK, features) of unit Gaussians in, the last BLOCK spreads out, around 1;
    a big move makes the next ones big.
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
    """Amounts that are never negative, of mean `centre`, and their standard deviation; `sigma` is
    the spread of the logarithm.
    """
    return centre * np.exp(sigma * z - sigma**2 / 2), centre * np.expm1(sigma**2) ** 0.5


def bump(hour: FloatArray, at: float, width: float) -> FloatArray:
    """A hill from 0 to 1 and back over the day, highest `at` that hour, about `width` hours to each
    side.
    """
    return np.exp((np.cos((hour - at) * np.pi / 12) - 1) / (width * np.pi / 12) ** 2)


def weekend(day: FloatArray) -> FloatArray:
    """0 on a working day, 1 on Saturday and Sunday, with soft edges; `day` counts from Monday at
    midnight.
    """
    away = np.abs((day - 6 + 3.5) % 7 - 3.5)  # days from the midnight between the two
    return np.clip((1.1 - away) / 0.2, 0, 1)


class Simulated(Stream):
    """A domain that makes its own numbers and knows which of them are anomalous.

    A subclass states its features, draws one season (`profile`) and its noise (`base`), and says
    which anomalies suit it (`habits`). Sizes are in standard deviations of the noise at that step,
    so the same size is as hard everywhere.
    """

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
        self._injected: list[
            SimulatedEvent
        ] = []  # those not over yet or only just: a sensor may stick at their last value
        self._held: dict[
            int, FloatArray
        ] = {}  # by first step of a stuck event: (features,) shown just before
        for injection in injections:
            self._add(Injection(*injection))

    @abstractmethod
    def profile(self) -> FloatArray:
        """(season, features): the calm value at each step of the season, which starts on Monday at
        midnight.
        """

    @abstractmethod
    def base(self, block: int, calm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(BLOCK, features) twice: the profile `calm` with its noise, and the standard deviation of
        that noise.
        """

    def calendar(self) -> tuple[FloatArray, FloatArray]:
        """(season,) twice: the hour of the day, and how much of a weekend it is, 0 to 1."""
        seconds = self.period * np.arange(self.season)
        return seconds / 3600 % 24, weekend(seconds / 86_400)

    # what a user calls

    def take(self, steps: int) -> Chunk:
        """The next steps, all of them."""
        start = self.step
        self.skip(steps)
        stop = self.step
        edges = (
            start,
            *range(start - start % SIMULATION_BLOCK + SIMULATION_BLOCK, stop, SIMULATION_BLOCK),
            stop,
        )
        x, label = (
            np.concatenate(part) for part in zip(*(self._laid(*piece) for piece in pairwise(edges)))
        )
        self._injected = [event for event in self._injected if event.stop >= stop]
        return Chunk(
            SIMULATION_START + self.period * np.arange(start, stop, dtype=np.float64), x, label
        )

    def skip(self, steps: int) -> None:
        """Goes on without making the steps between, at once however many."""
        if steps < 0:
            raise ValueError(
                f"wanted a number of steps, 0 or more, for a stream has no way back; got {steps}"
            )
        self.step += steps

    def inject(self, kind: str, size: float) -> None:
        """Shows an anomaly from the very next step on; another in the same breath starts a step
        later and is laid on top.
        """
        taken = {event.start for event in self._injected}
        self._add(
            Injection(next(step for step in count(self.step) if step not in taken), kind, size)
        )

    # the base

    def draw(self, purpose: str, number: int) -> np.random.Generator:
        """The generator of one purpose and one block, era or step: no two share a number, none
        depends on another's use.
        """
        key = (self.seed, crc32(f"{type(self).__name__} {purpose}".encode()), number)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def white(self, purpose: str, block: int) -> FloatArray:
        """(2 BLOCK, features) independent unit Gaussians: those of the block before, for a
        recurrence to start on, and its own.
        """
        shape = (SIMULATION_BLOCK, len(self.names))
        return np.concatenate(
            [self.draw(purpose, number).standard_normal(shape) for number in (block, block + 1)]
        )

    def wander(self, block: int) -> FloatArray:
        """(BLOCK, features) of a slow smooth stray around 0, of about unit spread: a knot at each
        block's edge, joined softly.
        """
        left, right = (
            self.draw("wander", number).standard_normal(len(self.names))
            for number in (block, block + 1)
        )
        part = (np.arange(SIMULATION_BLOCK) / SIMULATION_BLOCK)[:, None]
        return left + (right - left) * part**2 * (3 - 2 * part)

    def _block(self, block: int) -> tuple[FloatArray, FloatArray]:
        """(BLOCK, features) twice: values within their limits, and the standard deviation of their
        noise.
        """
        if block not in self._blocks:
            self._blocks = {
                number: made for number, made in self._blocks.items() if abs(number - block) == 1
            }
            calm = self._profile[
                np.arange(block * SIMULATION_BLOCK, (block + 1) * SIMULATION_BLOCK) % self.season
            ]
            values, spread = self.base(block, calm)
            self._blocks[block] = np.clip(values, *np.transpose(self.limits)), spread
        return self._blocks[block]

    def _base(self, start: int, stop: int) -> tuple[FloatArray, FloatArray]:
        """(stop - start, features) twice: as _block, copied, of any steps."""
        first = start // SIMULATION_BLOCK
        last = max(start, stop - 1) // SIMULATION_BLOCK
        values, spreads = zip(*(self._block(block) for block in range(first, last + 1)))
        cut = slice(start - first * SIMULATION_BLOCK, stop - first * SIMULATION_BLOCK)
        return np.concatenate(values)[cut], np.concatenate(spreads)[cut]

    # the events

    @cached_property
    def _era(self) -> int:
        """Steps over which one deck of events is dealt, so that their share is `rate`."""
        anomalous = sum(
            habit.times * (habit.shortest + habit.longest) / 2 for habit in self.habits.values()
        )
        return round(anomalous / self.rate)

    def _deck(self, era: int) -> list[SimulatedEvent]:
        """The events of an era: a shuffled deck, dealt with uneven calm between, so they never
        touch and every kind comes.
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
            starts = self._dealt(draw, era, kinds, lasts)
            self._decks = {
                number: deck for number, deck in self._decks.items() if abs(number - era) == 1
            }
            self._decks[era] = [self._event(*card) for card in zip(starts, kinds, sizes, lasts)]
        return self._decks[era]

    def _dealt(
        self, draw: np.random.Generator, era: int, kinds: list[str], lasts: list[int]
    ) -> list[int]:
        """The absolute first step of each card; a contextual one slides within its calm to where
        the season has room for it.
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
                room = self._room[np.arange(low, high + 1) % self.season]
                starts[i] = low + int(draw.choice(np.flatnonzero(room >= 0.9 * room.max())))
        return starts

    @cached_property
    def _room(self) -> FloatArray:
        """(season,): how far, in noise standard deviations, the farthest other hour is from each
        step of the season.
        """
        _, spread = self._base(0, self.season)
        away = np.maximum(
            self._profile.max(0) - self._profile, self._profile - self._profile.min(0)
        )
        return np.asarray((away / spread).max(1))

    def _event(self, start: int, kind: str, size: float, last: int = 0) -> SimulatedEvent:
        """One event, its length, feature, side and shape drawn by a generator of its own."""
        draw = self.draw("event", start)
        habit = self.habits.get(kind, HABITS[kind])
        last = last or int(draw.integers(habit.shortest, habit.longest + 1))
        feature = int(draw.integers(len(self.names)))
        side = int(draw.choice((-1, 1)))
        features = tuple(range(len(self.names))) if kind in self.together else (feature,)
        event = SimulatedEvent(
            start, kind, features, size * (self.sides[feature] or side) * habit.shape(draw, last)
        )
        return self._misplaced(event, size) if kind == "contextual" else event

    def _misplaced(self, event: SimulatedEvent, size: float) -> SimulatedEvent:
        """A contextual event: the feature and the other hour whose calm value is nearest to `size`
        deviations from this one's.
        """
        _, spread = self._base(event.start, event.start + 1)
        now = event.start % self.season
        away = np.abs(self._profile - self._profile[now]) / spread  # (season, features)
        hour, feature = np.unravel_index(int(np.abs(away - size).argmin()), away.shape)
        return event._replace(features=(int(feature),), offset=int(hour) - now)

    def _add(self, injection: Injection) -> None:
        """Checks an injection, notes it for a replay and makes it an event."""
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
        """The events that touch these steps, those dealt before those injected."""
        eras = range(start // self._era, (stop - 1) // self._era + 1) if self.rate else ()
        events = [event for era in eras for event in self._deck(era)] + self._injected
        return [event for event in events if event.start < stop and event.stop > start]

    def _laid(self, start: int, stop: int) -> tuple[FloatArray, LabelArray]:
        """(stop - start, features) of values and of labels: the base with every event laid over
        it.
        """
        x, spread = self._base(start, stop)
        label = np.zeros(x.shape, np.int8)
        for event in self._events(start, stop):
            first = max(start, event.start)
            there = np.ix_(range(first - start, min(stop, event.stop) - start), event.features)
            x[there] = self._changed(event, first, x[there], spread[there])
            label[there] = KINDS.index(event.kind)
        return x, label

    def _changed(
        self, event: SimulatedEvent, first: int, x: FloatArray, spread: FloatArray
    ) -> FloatArray:
        """(steps, features of the event): what it makes of the values x, the first of them at the
        absolute step `first`.
        """
        if event.kind == "dropout":
            return np.full_like(x, np.nan)
        if event.kind == "stuck":
            return np.tile(self._hold(event.start)[list(event.features)], (len(x), 1))
        if event.kind == "contextual":
            step = np.arange(first, first + len(x))
            moved = (
                self._profile[(step + event.offset) % self.season]
                - self._profile[step % self.season]
            )
            deviation = moved[:, list(event.features)]
        else:
            deviation = spread * event.shape[first - event.start :][: len(x), None]
        low, high = np.transpose([self.limits[feature] for feature in event.features])
        return np.clip(x + deviation, low, high)

    def _hold(self, start: int) -> FloatArray:
        """(features,): what a sensor that sticks at the step `start` goes on showing, the values of
        the step before.
        """
        if start not in self._held:
            step = max(start - 1, 0)
            calm, _ = self._base(step, step + 1)
            shown = self._laid(step, start)[0] if start else calm
            self._held = dict(list(self._held.items())[-MAX_STUCK_EVENTS:]) | {
                start: np.where(np.isnan(shown), calm, shown)[0]
            }
        return self._held[start]


class Wave(Simulated):
    """A plain sine with noise, the smallest stream that has a season."""

    title = "Wave"
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
        worn = np.where(
            worn < 0.96, np.expm1(3 * worn) / np.expm1(3), 22 * (1 - worn)
        )  # (BLOCK,) 0 after a service, near 1 before
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
}
