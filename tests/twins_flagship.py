"""The flagship's definition, slow and one number at a time: blocks of 32 steps, each scored by what
the blocks before it taught.

The season finder is a function with tests of its own; here it is taken as given.
"""

from __future__ import annotations

from math import ceil, exp, floor, inf, isnan, log, log1p, nan, pi, sqrt

import numpy as np

from redline.detection.ensemble import (
    AT_TAIL,
    COMMON,
    DISBELIEF,
    FAR,
    FIRST_PACE,
    LAST_PACE,
    LEAST_NOVELTY,
    LIGHTEST_TAIL,
    LOUDEST_RUN,
    NEWS,
    PACE_BLOCKS,
    RARE_RUN,
    RECORD_HALF_LIFE,
    SUDDEN,
    SUDDEN_POWER,
    TAIL,
    USUAL_NOVELTY,
    USUAL_SURPRISE,
    VISIBLE,
)
from redline.detection.seasonality import find_season

Values = list[float]
BLOCK, MEMORY, LOOK, SEARCH, NEAR, KEPT, CELL = 32, 8192, 512, 128, 16, 2048, 1024
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
        self.filled: Values = []  # of every step, missing ones carried forward
        self.doubt: list[bool] = []  # of every step: does its pattern wait to be learned?
        self.count = 0  # of values seen, anomalous or not
        self.near = [[0.0, 0.0], [0.0, 0.0]]  # level and variance: of values, of them less a season
        self.usual_pattern, self.compared = 0.0, 0
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
        self.doubts: list[float] = []
        self.away: Values = []
        self.first_pattern = max(8, now - 1020)
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

    def step(self, x: float) -> dict[str, float] | None:
        """What one step tells of each kind of evidence; None = no opinion."""
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
        self.run = self.run + 1 if x == self.last else 0
        self.last = x
        surprisal = -self.run * log(max(self.repeats, 0.1))
        rarity = sqrt(max(0.0, 2 * surprisal - log1p(2 * pi * surprisal)))
        novel = self.novelty(x, surprise, shake)
        away = abs(seasonless - self.near[1][0]) / self.near_spread(1)
        self.doubts.append(sqrt(abs(surprise) / shake) * sqrt(away))
        return (
            {
                "lasting": self.smooth**2 / max(self.sway, 1 / 256),
                "novel": novel if abs(surprise) > 0 else 0.0,
                "sudden": min(abs(surprise) / shake, away),
                "stuck": min((rarity / RARE_RUN) ** 3, LOUDEST_RUN) ** 2,
            }
            if known
            else None
        )

    def near_spread(self, which: int) -> float:
        return max(sqrt(self.near[which][1]), TINY)

    def keep_cleaned(self, x: float, surprise: float, shake: float) -> None:
        reach = 3 * shake if self.ready else inf
        within = min(max(surprise, -reach), reach) if not isnan(surprise) else nan
        self.clean.append(x if isnan(surprise) else x - (surprise - within))
        self.shock.append(within * within)

    def novelty(self, x: float, surprise: float, shake: float) -> float:
        gap = min((abs(x - v) for v in self.seen), default=nan) if not isnan(x) else nan
        self.gap.append(gap)
        self.filled.append(x if not isnan(x) else self.filled[-1] if self.filled else 0.0)
        away = self.pattern_distance() if not isnan(x) else nan
        self.away.append(away)
        reach = max(self.high - self.low, TINY) if self.seen else nan
        unit = VISIBLE * sqrt(reach * sqrt(reach * self.near_spread(0)))
        news = min(gap, max(abs(surprise) - 5 * shake, 0.0)) / reach
        parts = (
            gap / unit,
            max(away - COMMON * self.usual_pattern, 0.0) / unit,
            NEWS * news,
        )
        known = sum(part for part in parts if not isnan(part))
        return min(known * min(self.count / RECORD_HALF_LIFE, 1.0), CEILING)

    def pattern_distance(self) -> float:
        """The mean distance to the nearest in five parts of the patterns, every fifth one each."""
        now = len(self.clean) - len(self.x)  # where the block began
        steps = range(self.first_pattern, now)
        if len(steps) < 5:
            return nan
        present = ([0.0] * 8 + self.filled)[-8:]
        nearest = []
        for part in range(5):
            found = [
                sum((a - b) ** 2 for a, b in zip(present, self.filled[t - 7 : t + 1]))
                for t in steps[part::5]
                if not (self.doubt[t] and t >= now - 64)
            ]
            nearest.append(sqrt(min(found, default=inf)))
        return sum(nearest) / 5

    # A full block

    def learn(self) -> None:
        if not self.n:
            self.mean = next((v for v in self.seasonless if not isnan(v)), 0.0)
        deviation = [v - self.mean for v in self.seasonless]
        self.learn_repeats()
        self.learn_values()
        self.doubt += [self.n > 0 and d > 3 for d in self.doubts]
        away = [d for d in self.away if not isnan(d)]
        if away:
            self.usual_pattern += pace(len(away), self.compared, 1020) * (
                mean(away) - self.usual_pattern
            )
        self.compared += len(away)
        calm = self.calm("held", [abs(d) / self.spread for d in deviation])
        loud = [abs(s) / k for s, k in zip(self.surprise, self.shake)]
        self.learn_weights(deviation, [c and not v > 4 for c, v in zip(calm, loud)])
        self.learn_noise(loud)
        self.learn_sway()
        self.learn_level(deviation, calm)
        self.learn_near()
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
        if not values:
            return
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
        anomalous = [self.ready and d > 3 for d in deviations]
        calm = [
            not isnan(d) and not (s and count < self.window) for d, s in zip(deviations, anomalous)
        ]
        many, present = sum(anomalous), sum(not isnan(d) for d in deviations)
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

    def learn_near(self) -> None:
        for near, block in zip(self.near, (self.x, self.seasonless)):
            values = [v for v in block if not isnan(v)]
            if not values:
                continue
            rate, middle = pace(len(values), self.count, 120), mean(values)
            moved = middle - near[0]
            near[0] += rate * moved
            near[1] = (1 - rate) * (near[1] + rate * moved**2) + rate * mean(
                [(v - middle) ** 2 for v in values]
            )
        self.count += sum(not isnan(v) for v in self.x)

    def look(self) -> None:
        old, now = self.season, len(self.clean)
        past = self.clean[max(0, now - MEMORY) : now - SEARCH]
        self.season = find_season(np.array(past), old)
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
        self.near[1] = [self.mean, self.variance]
        self.products, self.weights, self.lags = [0.0] * 5, [0.0, 0.0], [0.0, 0.0]
        self.held = self.shaken = self.moves = 0
        self.move, self.volatility = 0.0, 1.0
        self.shock = [nan] * now


class Scale:
    """What is usual of a stream: the slow quantiles of its block maxima, in logarithms."""

    def __init__(self) -> None:
        self.median, self.surprising = log(USUAL_NOVELTY), log(USUAL_SURPRISE)
        self.decile = self.median - 1.2005 * TAIL
        self.blocks, self.unusual = [0, 0], 0

    @property
    def tail(self) -> float:
        shape = min(max((self.median - self.decile) / 1.2005, LIGHTEST_TAIL), 0.5)
        return exp(max(self.median, log(LEAST_NOVELTY)) + FAR * shape)

    def learn(self, novelty: Values, surprise: Values) -> None:
        top, largest = max(novelty, default=0.0), max(surprise, default=0.0)
        if len(novelty) >= BLOCK // 2 and top > 0:
            far = log(top) > self.median + log(2)
            held = far and self.unusual < 16
            self.unusual = self.unusual + held if far else 0
            if not held:
                rate = self.pace(0)
                self.decile += rate * (0.1 - (log(top) < self.decile))
                self.median += rate * (0.5 - (log(top) < self.median))
                self.blocks[0] += 1
        if len(surprise) >= BLOCK // 2 and largest > 0:
            moved = self.surprising + self.pace(1) * (0.85 - (log(largest) < self.surprising))
            self.surprising = max(moved, log(USUAL_SURPRISE))
            self.blocks[1] += 1

    def pace(self, which: int) -> float:
        return max(FIRST_PACE / (1 + self.blocks[which] / PACE_BLOCKS), LAST_PACE)


def ensemble(rows: list[Values], window: int) -> Values:
    """The scores of one stream."""
    channels, scale, scores = [Channel(window) for _ in rows[0]], Scale(), []
    novelty, surprise = [], []
    for t, row in enumerate(rows):
        told = [each for channel, x in zip(channels, row) if (each := channel.step(x))]
        if told:
            novel = sqrt(sum(each["novel"] ** 2 for each in told) / len(row))
            sudden = max(each["sudden"] for each in told)
            novelty.append(novel)
            surprise.append(sudden)
            doubt = (exp(scale.surprising) / USUAL_SURPRISE) ** DISBELIEF
            beyond = sudden / (SUDDEN * doubt)
            energy = max(mean([each["lasting"] for each in told]) - 1, 0.0)
            energy += (AT_TAIL * novel / scale.tail) ** 2
            energy += (3.5 * min(beyond, CEILING) ** SUDDEN_POWER) ** 2
            energy += sum(each["stuck"] for each in told) / len(row)
        scores.append(min(sqrt(energy), CEILING) if told else nan)
        if (t + 1) % BLOCK == 0:
            for channel in channels:
                channel.learn()
            scale.learn(novelty, surprise)
            novelty, surprise = [], []
    return scores
