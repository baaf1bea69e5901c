"""The flagship's definition, slow and one number at a time: blocks of 32 steps, each scored by what
the blocks before it taught.

The season finder is a function with tests of its own; here it is taken as given.
"""

from __future__ import annotations

from math import ceil, exp, floor, inf, isnan, log, log1p, nan, pi, sqrt

import numpy as np

from redline.detection.seasonality import find_season

Values = list[float]
BLOCK, MEMORY, LOOK, NEAR, KEPT, CELL = 32, 8192, 512, 16, 2048, 1024
TINY, CEILING = 1e-150, 100.0


def mean(values: Values) -> float:
    return sum(values) / len(values) if values else 0.0


def pace(learned: int, before: float, window: float) -> float:
    return (
        max(1 - (1 - 1 / window) ** learned, learned / max(before + learned, 1)) if learned else 0.0
    )


class Channel:
    """One feature of one stream."""

    def __init__(self, window: int) -> None:
        self.window, self.least = window, max(2, window // 5)
        self.n, self.mean, self.variance, self.noise, self.volatility, self.repeats = (
            0,
            0.0,
            0.0,
            0.0,
            1.0,
            1.0,
        )
        self.held = self.shaken = self.swayed = self.run = 0
        self.sway = 1.0
        self.move, self.moves, self.was = 0.0, 0, 0.0
        self.smooth, self.last, self.low, self.high = 0.0, nan, inf, -inf
        self.lags, self.products, self.weights = [0.0, 0.0], [0.0] * 5, [0.0, 0.0]
        self.clean: Values = []  # of every step
        self.shock: Values = []
        self.season = 0
        self.seen: Values = []
        self.records = 0.0
        self.begin_block()

    @property
    def ready(self) -> bool:
        return self.n >= self.least

    def begin_block(self) -> None:
        now = len(self.clean)
        self.x: Values = []
        self.seasonless: Values = []
        self.surprise: Values = []
        self.gap: Values = []
        self.smoothed: Values = []
        self.spread = max(sqrt(max(self.variance, self.move * max(1.0, self.window / BLOCK))), TINY)
        self.expected = [self.ago(self.clean, t) for t in range(now, now + BLOCK)]
        self.usual = []
        for t in range(now, now + BLOCK):
            around = (
                [v for s in range(t - NEAR, t + NEAR + 1) for v in self.back(self.shock, s)]
                if self.season
                else []
            )
            self.usual.append(mean(around) if len(around) >= NEAR else self.noise)
        self.shake = [max(sqrt(usual * max(self.volatility, 0.5)), TINY) for usual in self.usual]

    def back(self, ring: Values, t: int) -> Values:
        first = ceil((BLOCK + NEAR) / self.season)
        steps = [
            t - (first + k) * self.season
            for k in range(3)
            if (first + k) * self.season < MEMORY - 2 * BLOCK
        ]
        return [ring[s] for s in steps if s >= 0 and not isnan(ring[s])]

    def ago(self, ring: Values, t: int) -> float:
        if not self.season:
            return 0.0
        values = self.back(ring, t)
        return mean(values) if values else nan

    def step(self, x: float, tail: float) -> tuple[float, float, float, float] | None:
        """(lasting, novel, both squared; sudden, stuck) of one step; None = no opinion."""
        place = len(self.x)
        seasonless = x - self.expected[place]
        deviation = seasonless - self.mean if self.n else nan
        before = [
            0.0 if isnan(v) else v for v in self.lags + [v - self.mean for v in self.seasonless]
        ]
        surprise = deviation - self.weights[0] * before[-1] - self.weights[1] * before[-2]
        shake = self.shake[place]
        known = not isnan(surprise) and self.ready
        self.x.append(x)
        self.seasonless.append(seasonless)
        self.surprise.append(surprise)
        self.keep_cleaned(x, surprise, shake)
        deviations = min(max(deviation / self.spread, -8.0), 8.0) if known else 0.0
        self.smooth += (deviations - self.smooth) / 16
        self.smoothed.append(self.smooth if known else nan)
        usual = 9 * self.sway
        lasting = max(
            (3 * min(abs(self.smooth) / max(sqrt(usual), 1.0), 3.0)) ** 2 - min(usual, 1.0), 0.0
        )
        self.run = self.run + 1 if x == self.last else 0
        self.last = x
        surprisal = -self.run * log(max(self.repeats, 0.1))
        stuck = sharp(sqrt(max(0.0, 2 * surprisal - log1p(2 * pi * surprisal))))
        novel = self.novelty(x, surprise, shake)
        return (
            (lasting, novel, sharp(abs(surprise) / (shake * exp(tail))), stuck) if known else None
        )

    def keep_cleaned(self, x: float, surprise: float, shake: float) -> None:
        reach = 3 * shake if self.ready else inf
        within = min(max(surprise, -reach), reach) if not isnan(surprise) else nan
        self.clean.append(x if isnan(surprise) else x - (surprise - within))
        self.shock.append(within * within)

    def novelty(self, x: float, surprise: float, shake: float) -> float:
        gap = min((abs(x - v) for v in self.seen), default=nan) if not isnan(x) else nan
        self.gap.append(gap)
        if (
            self.seen and not self.low <= x <= self.high
        ):  # a record: no news as far as it is usual where they come in flocks
            gap = min(gap, max(abs(surprise) - 5 * shake * self.records / (16 + self.records), 0.0))
        reach = max(max(self.high, x) - min(self.low, x), TINY) if self.seen else nan
        return (
            2 * 100**2 * gap / reach * min(gap / (1.5 * shake), 1.0) ** 2 * min(self.n / 740, 1.0)
            if abs(surprise) > 0
            else 0.0
        )

    # A full block

    def learn(self) -> None:
        if not self.n:
            self.mean = next((v for v in self.seasonless if not isnan(v)), 0.0)
        deviation = [v - self.mean for v in self.seasonless]
        self.learn_repeats()
        self.learn_values()
        calm = self.calm("held", [abs(d) / self.spread for d in deviation])
        loud = [abs(s) / k for s, k in zip(self.surprise, self.shake)]
        self.learn_weights(deviation, [c and not v > 4 for c, v in zip(calm, loud)])
        self.learn_noise(loud)
        self.learn_sway()
        self.learn_level(deviation, calm)
        if len(self.clean) % LOOK == 0:
            self.look()
        self.begin_block()

    def learn_repeats(self) -> None:
        before = [self.edge if hasattr(self, "edge") else nan, *self.x[:-1]]
        same = [float(x == b) for x, b in zip(self.x, before) if not isnan(x)]
        self.repeats += pace(len(same), self.n, self.window) * (mean(same) - self.repeats)
        self.edge = self.x[-1]

    def learn_values(self) -> None:
        values = [(x, g) for x, g in zip(self.x, self.gap) if not isnan(x)]
        self.records *= (1 - 1 / self.window) ** BLOCK
        if not values:
            return
        self.records += sum(not self.low <= x <= self.high for x, _ in values) if self.seen else 0
        self.low, self.high = (
            min(self.low, min(x for x, _ in values)),
            max(self.high, max(x for x, _ in values)),
        )
        cell = (self.high - self.low) / CELL
        self.seen = sorted(set(self.seen) | {x for x, gap in values if not self.seen or gap > cell})
        if len(self.seen) > KEPT:
            self.seen = list(
                {floor((v - self.low) / cell): v for v in reversed(self.seen)}.values()
            )[::-1]

    def calm(self, counter: str, deviations: Values) -> list[bool]:
        count = getattr(self, counter)
        strange = [self.ready and d > 3 for d in deviations]
        calm = [
            not isnan(d) and not (s and count < self.window) for d, s in zip(deviations, strange)
        ]
        many, present = sum(strange), sum(not isnan(d) for d in deviations)
        setattr(
            self, counter, count + many if 2 * many > present else max(count - (present - many), 0)
        )
        return calm

    def learn_weights(self, deviation: Values, calm: list[bool]) -> None:
        before = self.lags + deviation
        lags = [0.0 if isnan(d) else d for d in before]
        triples = [(lags[t + 2], lags[t + 1], lags[t]) for t in range(BLOCK) if calm[t]]
        new = [
            sum(a * a for _, a, _ in triples),
            sum(a * b for _, a, b in triples),
            sum(b * b for _, _, b in triples),
        ]
        new += [sum(y * a for y, a, _ in triples), sum(y * b for y, _, b in triples)]
        self.products = [
            p * (1 - 1 / self.window) ** len(triples) + v for p, v in zip(self.products, new)
        ]
        size = max(self.products[0] + self.products[2], TINY**2)
        aa, ab, bb, ya, yb = (p / size for p in self.products)
        solved = np.linalg.solve([[aa + 1e-6, ab], [ab, bb + 1e-6]], [ya, yb])
        self.weights = np.clip(solved, -2, 2).tolist()
        self.lags = before[-2:]

    def learn_noise(self, loud: Values) -> None:
        self.loud = [v if self.ready else nan for v in loud]
        calm = self.calm("shaken", loud)
        squares = [s * s for s, c in zip(self.surprise, calm) if c]
        ratios = []
        for value, usual in zip(self.surprise, self.usual):
            if self.ready and not isnan(value):
                ratios.append(
                    min(
                        min(abs(value) / sqrt(usual), 100.0) ** 2 if usual > 0 else 1.0,
                        9 * self.volatility,
                    )
                )
        self.noise += pace(len(squares), self.n, self.window) * (mean(squares) - self.noise)
        self.volatility += pace(len(ratios), inf, max(1.0, self.window / 5)) * (
            mean(ratios) - self.volatility
        )

    def learn_sway(self) -> None:
        calm = self.calm("swayed", [abs(s) / max(sqrt(self.sway), 1 / 3) for s in self.smoothed])
        squares = [s * s for s, c in zip(self.smoothed, calm) if c]
        self.sway += pace(len(squares), self.n - self.least + 32, 10 * self.window) * (
            mean(squares) - self.sway
        )

    def learn_level(self, deviation: Values, calm: list[bool]) -> None:
        learned = [d for d, c in zip(deviation, calm) if c]
        middle = mean(learned)
        square, rate = (
            mean([(d - middle) ** 2 for d in learned]),
            pace(len(learned), self.n, self.window),
        )
        if not self.n:
            self.noise = square
        level, solid = self.mean + middle, len(learned) >= BLOCK // 2
        self.mean += rate * middle
        self.lags = [lag - rate * middle for lag in self.lags]
        self.variance = (1 - rate) * self.variance + rate * (square + (1 - rate) * middle**2)
        if solid:
            if self.moves:
                weight = min(max(BLOCK / self.window / 2, 1 / self.moves), 1.0)
                self.move += weight * ((level - self.was) ** 2 - self.move)
            self.moves, self.was = self.moves + 1, level
        self.n += len(learned)

    def look(self) -> None:
        old, now = self.season, len(self.clean)
        self.season = find_season(np.array(self.clean[-MEMORY:]), old)
        if self.season == old or (old and self.season and abs(self.season - old) < 0.1 * old):
            return
        values = [
            self.clean[t] - self.ago(self.clean, t) for t in range(max(0, now - self.window), now)
        ]
        values = [v for v in values if not isnan(v)]
        if len(values) < self.least:
            self.season = old
            return
        self.mean = mean(values)
        self.variance = self.noise = mean([(v - self.mean) ** 2 for v in values])
        self.products, self.weights, self.lags = [0.0] * 5, [0.0, 0.0], [0.0, 0.0]
        self.held = self.shaken = self.moves = 0
        self.move, self.volatility = 0.0, 1.0
        self.shock = [nan] * now


def sharp(deviations: float) -> float:
    return min(3 * min(deviations / 3.3, CEILING) ** 3, 8.0)


def ensemble(rows: list[Values], window: int) -> Values:
    """The scores of one stream."""
    channels, tail, scores = [Channel(window) for _ in rows[0]], 0.0, []
    for t, row in enumerate(rows):
        told = [channel.step(x, tail) for channel, x in zip(channels, row)]
        lasting, novel, sudden, stuck = (
            zip(*[each for each in told if each]) if any(told) else ((0.0,),) * 4
        )
        energy = sum(lasting) + sum(novel) / len(row) + max(sudden) ** 2 + max(stuck) ** 2
        scores.append(min(sqrt(energy), CEILING) if any(told) else nan)
        if (t + 1) % BLOCK == 0:
            for channel in channels:
                channel.learn()
            steps = [
                [v for v in step if not isnan(v)]
                for step in zip(*(channel.loud for channel in channels))
            ]
            over = sum(any(v / exp(tail) > 3 for v in step) for step in steps)
            tail = max(tail + 0.02 * (over - 0.01 * sum(bool(step) for step in steps)), 0.0)
    return scores
