"""The flagship detector: four kinds of evidence on one scale, one configuration for every
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectors import CEILING, Detector, State, Verdict
from redline.detection.arrays import TINY, Array, first_known, running_reduce
from redline.detection.seasonality import find_season

# steps; it learns at absolute multiples, so that a history is scored in blocks and a tick by the
# same lines
LEARNING_BLOCK = 32
SEASON_MEMORY = 8192  # steps of cleaned past, for the season
SEASON_CHECK_STEPS = 512  # steps between two looks for a season
SEASONS_AVERAGED = 3  # seasons before, whose mean is expected
SEASON_NEIGHBOURHOOD = 16  # steps on either side that tell how noisy this hour of the season is
NOVELTY_MEMORY = 2048  # values that stand for all ever seen
RANGE_PARTS = 1024  # parts of the range within which two values are the same
UNLEARNED_DEVIATION = (
    3.0  # standard deviations; what scores higher is not learned, for at most a window
)
LASTING_STEPS = 16  # steps over which a deviation must last
# windows over which it is learned how far what lasts usually strays: in one window that is seen
# once or twice
STRAY_WINDOWS = 10
FAMILIAR_SURPRISES = 1.5  # usual surprises; a value nearer to one ever seen is less new
# records in a window; usual surprises: one more record is no news within half of them after so
# many, within all after many
FLOCK = 16.0
TIMID = 5.0
# values; one in n / 2 of n values is a record: from so many on that is as rare as 3 standard
# deviations
RECORD_HALF_LIFE = 740.0
# weight of what lasts; most that one short surprise can say
LASTING = 3.0
LOUDEST = 8.0
# standard deviations of a surprise that alone scores 3: a little rarer than 3, since the parts add
# up
ALONE = 3.3
# share of steps on which the sudden part may pass 3 in a stream whose noise has a heavy tail
RARE = 0.01
OFTEN = 0.1  # a value repeats at least so often, as far as anybody believes


@dataclass
class Ensemble(Detector):
    """Four kinds of evidence, each silent until it has something to say; their squares add up to
    the square of the score.

    Expected is the mean of the last three seasons (found by autocorrelation) plus a slow level.
    Lasting: the deviation smoothed over 16 steps, in units of the largest of noise, usual wandering
    and three times how far it usually strays. Sudden: the error of a two-lag prediction. Novel: the
    distance to the nearest value ever seen, over the range. Stuck: a run of equal values. What is
    anomalous is not learned, for at most a window. Cost: 10 microseconds per step of a history,
    0.15 MB per feature. When it fails: before a season was seen twice; where anomalies are more
    frequent than one step in a hundred. Sources: E. S. Page, Continuous Inspection Schemes, 1954
    (lasting); H. Robbins, S. Monro, A Stochastic Approximation Method, 1951 (heavy tails); C. C.
    Aggarwal, S. Sathe, Theoretical Foundations and Algorithms for Outlier Ensembles, 2015.

    >>> x = np.random.default_rng(1).normal(size=(400, 1, 2))
    >>> x[390, 0, 1] = 9.0
    >>> Ensemble(window=100).fit(x[:390]).explain(x[390:391]).round(0)
    array([[[ 0., 51.]]])
    """

    joint: ClassVar[bool] = True
    window: int = 500  # steps over which level and noise are learned

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = np.arange(
            LEARNING_BLOCK + 1
        )  # how much so many steps count against a window of them, a fifth of it, STRAYS of it
        reaches = (self.window, max(1.0, self.window / 5), STRAY_WINDOWS * self.window)
        self._fade, self._fade_fast, self._fade_slow = (
            1 - (1 - 1 / reach) ** counts for reach in reaches
        )

    @property
    def least(self) -> int:
        """Values that must have been learned before there is an opinion: a fifth of the window."""
        return max(2, self.window // 5)

    def begin(self, shape: tuple[int, ...]) -> State:
        """What is known of each channel, a channel being one feature of one stream; `open` is the
        block that is not learned yet.
        """
        size = shape[0] * shape[1]
        zeros = {
            name: np.zeros(size)
            for name in (
                "n",
                "mean",
                "variance",
                "held",
                "move",
                "moves",
                "was",
                "records",
                "noise",
                "shaken",
                "tail",
                "carry",
                "run",
                "swayed",
            )
        }
        return {
            **zeros,
            **{name: np.ones(size) for name in ("volatility", "repeats", "sway")},
            **{name: np.full(size, np.nan) for name in ("first", "last", "edge", "low", "high")},
            "lags": np.zeros((2, size)),
            "products": np.zeros((5, size)),
            "weights": np.zeros((2, size)),
            "open": np.full((5, LEARNING_BLOCK, size), np.nan),
            "season": np.zeros(size, int),
            "expected": np.zeros((LEARNING_BLOCK, size)),
            "usual": np.zeros((LEARNING_BLOCK, size)),
            "shake": np.full((LEARNING_BLOCK, size), TINY),
            "spread": np.full(size, TINY),
            "floor": np.broadcast_to(
                self._floor
                if np.shape(self._floor) == shape[1:]
                else np.reshape(self._floor, (-1, 1)),
                shape,
            ).flatten(),
            "clean": np.full((SEASON_MEMORY, size), np.nan),
            "shock": np.full((SEASON_MEMORY, size), np.nan),
            "seen": np.full((size, NOVELTY_MEMORY), np.inf),
            "kept": np.zeros(size, int),
        }

    def advance(self, x: Any) -> Verdict:
        """Score by the root of the summed squares; `parts` shares the score out as the squares
        are.
        """
        x = self.read(x)
        flat = self._from_first(x.reshape(len(x), x.shape[1] * x.shape[2]))  # (steps, channels)
        energy = np.concatenate(
            [self._piece(offset, rows) for offset, rows in self.pieces(flat, LEARNING_BLOCK)]
        ).reshape(x.shape)
        known = energy == energy
        energy = np.where(known, energy, 0.0)
        total = energy.sum(axis=-1)
        score = np.where(known.any(axis=-1), np.minimum(np.sqrt(total), CEILING), np.nan)
        return Verdict(score, parts=energy * (score / np.maximum(total, TINY))[..., None])

    def _from_first(self, x: Array) -> Array:
        """How far each value is from the first one its channel ever had, so that it does not matter
        where zero is.
        """
        state = self._state
        first = np.where((x == x).any(axis=0), first_known(x[None])[0], np.nan)
        state["first"] = np.where(state["first"] == state["first"], state["first"], first)
        return np.asarray(x - known_or_0(state["first"]))

    # One piece of a block: nothing here depends on where the piece begins

    def _piece(self, offset: int, x: Array) -> Array:
        """(steps, channels) of squared evidence, NaN = no opinion; keeps the piece until its block
        is full.
        """
        state = self._state
        here = slice(offset, offset + len(x))
        seasonless = x - state["expected"][here]
        deviation = np.where(state["n"] > 0, seasonless - state["mean"], np.nan)
        state["open"][:2, here] = x, seasonless
        surprise = deviation - self._guess(here)
        shake = state["shake"][here]
        state["open"][2, here] = surprise
        self._remember_cleaned(here, x, surprise, shake)
        known = (surprise == surprise) & (state["n"] >= self.least)
        lasting = self._lasting(here, np.where(known, deviation, np.nan))
        stuck = self._stuck(x)
        sudden = sharpen(self.sided(surprise) / (shake * np.exp(state["tail"])))
        novel = self._novel(here, x, surprise)
        energy = np.where(
            known,
            lasting
            + novel / state["shape"][1]
            + self._loudest(sudden, known)
            + self._loudest(sharpen(stuck), known),
            np.nan,
        )
        if here.stop == LEARNING_BLOCK:
            self._learn(int(state["step"]) + len(x))
        return energy

    def _guess(self, here: slice) -> Array:
        """The deviation that two lags predict; a missing one counts as none."""
        state = self._state
        lags = known_or_0(
            np.concatenate((state["lags"], state["open"][1, : here.stop] - state["mean"]))
        )
        first, second = state["weights"]
        return np.asarray(
            first * lags[here.start + 1 : here.stop + 1] + second * lags[here.start : here.stop]
        )

    def _remember_cleaned(self, here: slice, x: Array, surprise: Array, shake: Array) -> None:
        """Keep values with no more than an anomalous surprise in them, lest an anomaly be expected
        a season later.
        """
        # MEMORY is a multiple of BLOCK, so a piece never goes over its end
        state = self._state
        first = int(self._state["step"]) % SEASON_MEMORY
        reach = np.where(state["n"] >= self.least, UNLEARNED_DEVIATION, np.inf) * shake
        within = np.minimum(np.maximum(surprise, -reach), reach)
        state["clean"][first : first + len(x)] = np.where(
            surprise == surprise, x - (surprise - within), x
        )
        state["shock"][first : first + len(x)] = within * within

    def _lasting(self, here: slice, deviation: Array) -> Array:
        """Squared weight of the smoothed deviation beyond its usual one; NaN = not known.

        The recurrence is a running sum of terms weighted by decay**-place, which a block keeps
        small.
        """
        state = self._state
        decay = 1 - 1 / LASTING_STEPS
        place = decay ** np.arange(here.start + 1, here.stop + 1)[:, None]
        terms = np.clip(known_or_0(deviation) / state["spread"], -LOUDEST, LOUDEST) / (
            LASTING_STEPS * place
        )
        if not len(terms):
            return terms
        terms[0] += state["carry"]
        smooth = running_reduce(np.add, terms)
        state["carry"] = smooth[-1] * (
            decay**LEARNING_BLOCK if here.stop == LEARNING_BLOCK else 1.0
        )
        smooth *= place
        state["open"][4, here] = np.where(deviation == deviation, smooth, np.nan)
        usual = LASTING**2 * state["sway"]
        energy = (
            LASTING
            * np.minimum(self.sided(smooth) / np.sqrt(np.maximum(usual, 1.0)), UNLEARNED_DEVIATION)
        ) ** 2
        return np.asarray(np.maximum(energy - np.minimum(usual, 1.0), 0.0))

    def _stuck(self, x: Array) -> Array:
        """How rare so long a run of equal values is, in standard deviations: p = repeats **
        length.
        """
        state = self._state
        if not len(x):
            return x
        same = x == np.concatenate((state["last"][None], x[:-1]))
        place = np.arange(1.0, len(x) + 1)[:, None]
        broken = np.concatenate((-state["run"][None], np.where(same, -np.inf, place)))
        length = place - running_reduce(np.maximum, broken)[1:]
        state["last"], state["run"] = x[-1].copy(), length[-1].copy()
        return surprisal_to_deviations(length * -np.log(np.maximum(state["repeats"], OFTEN)))

    def _novel(self, here: slice, x: Array, surprise: Array) -> Array:
        """Squared weight of the distance to the nearest value ever seen over the range: a value
        that doubles the range reaches the ceiling.

        It counts less where it is small beside the noise, or little is known yet.
        """
        state = self._state
        gap = self._state["open"][3, here]
        for channel in range(x.shape[1]):
            if state["kept"][channel]:
                gap[:, channel] = nearest_distance(
                    state["seen"][channel, : state["kept"][channel]], x[:, channel]
                )
        low = state["low"]
        high = state["high"]
        shake = state["shake"][here]
        usual = TIMID * shake * state["records"] / (FLOCK + state["records"])
        news = np.where(
            (x > high) | (x < low), np.minimum(gap, np.maximum(np.abs(surprise) - usual, 0.0)), gap
        )
        share = (
            news
            / np.maximum(np.fmax(high, x) - np.fmin(low, x), TINY)
            * np.minimum(state["n"] / RECORD_HALF_LIFE, 1.0)
        )
        share *= np.minimum(news / (FAMILIAR_SURPRISES * shake), 1.0) ** 2
        return np.asarray(np.where(self.sided(surprise) > 0, 2 * CEILING**2 * share, 0.0))

    def _loudest(self, evidence: Array, known: Array) -> Array:
        """The squared evidence of each stream's loudest feature, 0 for the others: one surprise is
        told once.
        """
        shape = (len(evidence), *self._state["shape"])
        if shape[2] == 1:
            return np.asarray(np.where(known, evidence * evidence, 0.0))
        each = np.where(known, evidence, -1.0).reshape(shape)
        first = np.arange(shape[2]) == each.argmax(axis=-1)[..., None]
        return np.asarray(np.where(first, np.maximum(each, 0.0) ** 2, 0.0).reshape(evidence.shape))

    # A full block: learn it

    def _learn(self, now: int) -> None:
        """Learn the open block, step `now` coming next."""
        state = self._state
        x, seasonless, surprise, gap, smooth = state["open"]
        fresh = state["n"] == 0
        state["mean"] = np.where(fresh, first_known(seasonless[None])[0], state["mean"])
        deviation = seasonless - state["mean"]  # (BLOCK, channels), NaN = missing
        self._learn_repeats(x)
        self._learn_novelty(x, gap)
        calm = self._calm("held", np.abs(deviation) / state["spread"])
        loud = np.abs(surprise) / state["shake"]
        self._learn_weights(deviation, calm & ~(loud > UNLEARNED_DEVIATION + 1))
        self._learn_noise(surprise, loud)
        self._learn_sway(smooth)
        self._learn_level(deviation, calm, fresh)
        state["open"].fill(np.nan)
        state["edge"] = state["last"].copy()
        if now % SEASON_CHECK_STEPS == 0:
            self._look(now)
        self._prepare(now)

    def _calm(self, counter: str, deviations: Array) -> Array:
        """Which steps may be learned: those not anomalous, and all once anomalous ones were held
        back for a window.
        """
        state = self._state
        present = deviations == deviations
        anomalous = (deviations > UNLEARNED_DEVIATION) & (state["n"] >= self.least)
        calm = present & ~(anomalous & (state[counter] < self.window))
        many = np.add.reduce(anomalous, dtype=np.int64)
        all_ = np.add.reduce(present, dtype=np.int64)
        state[counter] = np.where(
            2 * many > all_, state[counter] + many, np.maximum(state[counter] - (all_ - many), 0)
        )
        return np.asarray(calm)

    def _pace(self, learned: Array, before: Array) -> Array:
        """How much a block counts against what was learned before: exponential forgetting, a plain
        mean while young.
        """
        return np.asarray(
            np.maximum(self._fade[learned], learned / np.maximum(before + learned, 1))
        )

    def _learn_level(self, deviation: Array, calm: Array, fresh: Array) -> None:
        """Mean, variance, and how far the block's mean has moved from the last one's."""
        state = self._state
        learned = np.add.reduce(calm, dtype=np.int64)
        pace = self._pace(learned, state["n"])
        mean = masked_mean(deviation, calm)
        square = masked_mean((deviation - mean) ** 2, calm)
        level = state["mean"] + mean
        solid = learned >= LEARNING_BLOCK // 2
        state["noise"] = np.where(fresh, square, state["noise"])
        state["mean"], state["lags"] = (
            state["mean"] + pace * mean,
            state["lags"] - pace * mean,
        )  # or a level that moved would seem a surprise
        state["variance"] = (1 - pace) * state["variance"] + pace * (
            square + (1 - pace) * mean * mean
        )
        moved = solid & (state["moves"] > 0)
        step = np.where(moved, level - state["was"], 0.0)
        weight = np.where(
            moved,
            np.minimum(
                np.maximum(LEARNING_BLOCK / self.window / 2, 1 / np.maximum(state["moves"], 1)), 1.0
            ),
            0.0,
        )
        state["move"] = (1 - weight) * state["move"] + weight * step * step
        state["moves"] += solid
        state["was"] = np.where(solid, level, state["was"])
        state["n"] = state["n"] + learned

    def _learn_sway(self, smooth: Array) -> None:
        """The mean square of the smoothed deviation: a whole spread, with the weight of two times
        LONG steps, until it was seen.
        """
        state = self._state
        calm = self._calm(
            "swayed", np.abs(smooth) / np.maximum(np.sqrt(state["sway"]), 1 / LASTING)
        )
        learned = np.add.reduce(calm, dtype=np.int64)
        pace = np.maximum(
            self._fade_slow[learned],
            learned / np.maximum(state["n"] - self.least + 2 * LASTING_STEPS + learned, 1),
        )
        state["sway"] = state["sway"] + pace * (masked_mean(smooth**2, calm) - state["sway"])

    def _learn_noise(self, surprise: Array, loud: Array) -> None:
        """The variance of surprises, how volatile they are lately, and how heavy their tail is: the
        share above 3 is brought down to RARE.
        """
        state = self._state
        known = (loud == loud) & (self._state["n"] >= self.least)
        calm = self._calm("shaken", loud)
        pace = self._pace(np.add.reduce(calm, dtype=np.int64), state["n"])
        usual = state["usual"]
        volatility = state["volatility"]
        state["noise"] = state["noise"] + pace * (masked_mean(surprise**2, calm) - state["noise"])
        ratio = np.where(
            usual > 0,
            np.minimum(np.abs(surprise) / np.maximum(np.sqrt(usual), TINY), CEILING) ** 2,
            1.0,
        )
        lately = masked_mean(np.minimum(ratio, UNLEARNED_DEVIATION**2 * volatility), known)
        state["volatility"] = volatility + self._fade_fast[np.add.reduce(known, dtype=np.int64)] * (
            lately - volatility
        )
        shape = (LEARNING_BLOCK, *state["shape"])
        over = (
            (np.where(known, loud / np.exp(state["tail"]), 0.0) > UNLEARNED_DEVIATION)
            .reshape(shape)
            .any(axis=-1)
            .sum(axis=0)
        )
        steps = known.reshape(shape).any(axis=-1).sum(axis=0)
        state["tail"] = np.maximum(
            state["tail"] + np.repeat(0.02 * (over - RARE * steps), shape[2]), 0.0
        )

    def _learn_weights(self, deviation: Array, calm: Array) -> None:
        """The weights of the two lags, by least squares over a window of exponentially forgotten
        products.
        """
        state = self._state
        before = np.concatenate((state["lags"], deviation))  # NaN = missing, whatever the level
        lags = known_or_0(before)
        now, first, second = (
            np.where(calm, lags[2 - lag : 2 - lag + LEARNING_BLOCK], 0.0) for lag in range(3)
        )
        new = np.stack(
            [
                np.add.reduce(a * b)
                for a, b in (
                    (first, first),
                    (first, second),
                    (second, second),
                    (now, first),
                    (now, second),
                )
            ]
        )
        state["products"] = (
            state["products"] * (1 - self._fade[np.add.reduce(calm, dtype=np.int64)]) + new
        )
        size = np.maximum(state["products"][0] + state["products"][2], TINY**2)
        aa, ab, bb, ya, yb = state["products"] / size
        aa = aa + 1e-6
        bb = bb + 1e-6
        state["weights"] = np.clip(
            np.stack((ya * bb - yb * ab, yb * aa - ya * ab)) / (aa * bb - ab * ab), -2.0, 2.0
        )
        state["lags"] = before[-2:].copy()

    def _learn_repeats(self, x: Array) -> None:
        state = self._state
        present = x == x
        same = x == np.concatenate((state["edge"][None], x[:-1]))
        pace = self._pace(np.add.reduce(present, dtype=np.int64), state["n"])
        state["repeats"] = state["repeats"] + pace * (
            masked_mean(same.astype(float), present) - state["repeats"]
        )

    def _learn_novelty(self, x: Array, gap: Array) -> None:
        """Add the values that stand for something new, one for each cell of the range when there
        are too many.
        """
        state = self._state
        records = np.add.reduce((x > state["high"]) | (x < state["low"]), dtype=np.int64)
        state["records"] = state["records"] * (1 - self._fade[LEARNING_BLOCK]) + records
        state["low"], state["high"] = (
            np.fmin(state["low"], np.fmin.reduce(x)),
            np.fmax(state["high"], np.fmax.reduce(x)),
        )
        cell = (state["high"] - state["low"]) / RANGE_PARTS
        new = np.where(state["kept"] > 0, gap > cell, x == x)
        for channel in np.flatnonzero(new.any(axis=0)):
            seen = np.union1d(
                state["seen"][channel, : state["kept"][channel]], x[new[:, channel], channel]
            )
            if len(seen) > NOVELTY_MEMORY:
                seen = seen[
                    np.unique(
                        np.floor((seen - state["low"][channel]) / cell[channel]), return_index=True
                    )[1]
                ]
            state["seen"][channel, : len(seen)], state["kept"][channel] = seen, len(seen)

    # The season

    def _look(self, now: int) -> None:
        """Look for each channel's season anew; another one begins with what it would have said."""
        state = self._state
        past = state["clean"][np.arange(max(0, now - SEASON_MEMORY), now) % SEASON_MEMORY]
        for channel in range(past.shape[1]):
            old = int(state["season"][channel])
            season = find_season(past[:, channel], old)
            state["season"][channel] = season
            if (
                season != old
                and not (old and season and abs(season - old) < 0.1 * old)
                and not self._begin_season(channel, now)
            ):
                state["season"][channel] = old  # the next look will tell

    def _begin_season(self, channel: int, now: int) -> bool:
        """Level, variance and noise of a window of the past, seen with this season; False = too
        little was seen of late.
        """
        state = self._state
        one = slice(channel, channel + 1)
        steps = np.arange(max(0, now - self.window), now)
        values = state["clean"][steps % SEASON_MEMORY, one] - self._expected(steps, now, one)
        present = values == values
        if present.sum() < self.least:
            return False
        state["mean"][one] = masked_mean(values, present)
        state["variance"][one] = state["noise"][one] = masked_mean(
            (values - state["mean"][one]) ** 2, present
        )
        state["products"][:, one] = state["weights"][:, one] = state["lags"][:, one] = 0.0
        state["held"][one] = state["shaken"][one] = state["moves"][one] = state["move"][one] = 0.0
        state["volatility"][one] = 1.0
        state["shock"][:, one] = np.nan
        return True

    def _prepare(self, now: int) -> None:
        """What the next block expects, and its usual squared surprise at each step."""
        state = self._state
        steps = np.arange(now, now + LEARNING_BLOCK)
        every = slice(None)
        wandering = state["move"] * max(
            1.0, self.window / LEARNING_BLOCK
        )  # each block's step of the level taken at random
        state["spread"] = np.maximum(
            np.sqrt(np.maximum(state["variance"], wandering)), state["floor"]
        )
        state["expected"] = self._expected(steps, now, every)
        state["usual"][:] = state["noise"]
        if state["season"].any():
            around = self._seasons_ago(
                state["shock"],
                np.arange(now - SEASON_NEIGHBOURHOOD, now + LEARNING_BLOCK + SEASON_NEIGHBOURHOOD),
                every,
            )  # (SEASONS, steps, channels)
            present = around == around
            total = np.where(present, around, 0.0).sum(axis=0)
            count = present.sum(axis=0)
            total, count = (
                np.lib.stride_tricks.sliding_window_view(
                    each, 2 * SEASON_NEIGHBOURHOOD + 1, axis=0
                ).sum(axis=-1)
                for each in (total, count)
            )
            state["usual"] = np.where(
                (count >= SEASON_NEIGHBOURHOOD) & (state["season"] > 0),
                total / np.maximum(count, 1),
                state["usual"],
            )
        state["shake"] = np.maximum(
            np.sqrt(state["usual"] * np.maximum(state["volatility"], 0.5)), state["floor"]
        )

    def _expected(self, steps: Array, now: int, channels: slice) -> Array:
        """The mean of the last seasons at the same place, 0 without a season, NaN where none of
        them was seen.
        """
        state = self._state
        if not state["season"][channels].any():
            return np.zeros((len(steps), state["season"][channels].size))
        before = self._seasons_ago(state["clean"], steps, channels)
        present = before == before
        mean = np.where(present, before, 0.0).sum(axis=0) / np.where(
            present.any(axis=0), present.sum(axis=0), np.nan
        )
        return np.where(state["season"][channels] > 0, mean, 0.0)

    def _seasons_ago(self, ring: Array, steps: Array, channels: slice) -> Array:
        """(SEASONS, steps, channels) of a ring, whole seasons back, the nearest one that is all
        learned first.
        """
        season = self._state["season"][channels]
        near = np.ceil((LEARNING_BLOCK + SEASON_NEIGHBOURHOOD) / np.maximum(season, 1)).astype(int)
        back = (near + np.arange(SEASONS_AVERAGED)[:, None]) * season  # (SEASONS, channels)
        rows = steps[None, :, None] - back[:, None, :]
        found = ring[:, channels][rows % SEASON_MEMORY, np.arange(season.size)]
        return np.where(
            (rows >= 0)
            & (rows > steps[-1] - SEASON_MEMORY)
            & (back[:, None, :] < SEASON_MEMORY - 2 * LEARNING_BLOCK),
            found,
            np.nan,
        )


def known_or_0(x: Array) -> Array:
    """0 for what is missing."""
    return np.asarray(np.where(x == x, x, 0.0))


def masked_mean(x: Array, chosen: Array) -> Array:
    """(channels,): the mean of the chosen steps, 0 where none is."""
    return np.asarray(
        np.add.reduce(np.where(chosen, x, 0.0))
        / np.maximum(np.add.reduce(chosen, dtype=np.int64), 1)
    )


def sharpen(deviations: Array) -> Array:
    """3 stays 3, less is much less, more is more up to LOUDEST: a part is silent until it has
    something to say.
    """
    return np.asarray(
        np.minimum(UNLEARNED_DEVIATION * np.minimum(deviations / ALONE, CEILING) ** 3, LOUDEST)
    )


def surprisal_to_deviations(surprisal: Array) -> Array:
    """About the |z| whose two-sided Gaussian tail is exp(-surprisal)."""
    return np.asarray(np.sqrt(np.maximum(2 * surprisal - np.log1p(2 * np.pi * surprisal), 0.0)))


def nearest_distance(ordered: Array, x: Array) -> Array:
    """The distance of each value to the nearest of the ordered ones; a missing value's is
    missing.
    """
    place = np.searchsorted(ordered, x)
    below = ordered[np.maximum(place - 1, 0)]
    above = ordered[np.minimum(place, len(ordered) - 1)]
    return np.asarray(np.minimum(np.abs(x - below), np.abs(above - x)))
