"""The ensemble: a detector of four kinds of evidence, with one configuration for every stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectors import CEILING, Detector, State, Verdict
from redline.detection.arrays import (
    MANY_STREAMS,
    TINY,
    Array,
    carry_forward,
    concatenate_parts,
    first_known,
    running_reduce,
)
from redline.detection.patterns import (
    DOUBT_STEPS,
    PATTERN_MEMORY,
    PATTERN_STEPS,
    pattern_distances,
)
from redline.detection.seasonality import find_season

# steps; it learns at absolute multiples, so that a history is scored a block at a time, and a tick
# by the same code
LEARNING_BLOCK = 32
SEASON_MEMORY = 8192  # steps of cleaned past that are kept; a power of two
SEASON_CHECK_STEPS = 512  # steps between two searches for a season
# a search is spread over the last steps before it takes effect, a few channels at each; a multiple
# of the block. Half a millisecond a channel: a thousand streams take 4 ms at each of these steps
SEARCH_STEPS = 128
SEARCHED_STEPS = SEASON_MEMORY - SEARCH_STEPS  # the past in which a season is found
FEW_CHANNELS = 128  # whose surprises in the last seasons stay in the cache
SEASONS_AVERAGED = 3  # seasons before, whose mean is expected
SEASON_NEIGHBOURHOOD = 16  # steps on either side that measure the noise at a place of the season
RANGE_MEMORY = 2048  # values that stand for all ever seen
RANGE_PARTS = 1024  # parts of the range within which two values are the same
# standard deviations; what scores higher is not learned, for at most a window
UNLEARNED_DEVIATION = 3.0
LASTING_STEPS = 16  # steps over which a deviation must last
# windows over which the usual size of lasting deviations is learned; one window holds only one or
# two of them
STRAY_WINDOWS = 10
LARGEST_DEVIATION = 8.0  # spreads; the most that one step adds to what lasts
NEAR_STEPS = 120  # steps over which the near level and its deviation are learned
# values; the n-th is a record with probability 2 / n, from here on as rare as 3 standard deviations
RECORD_HALF_LIFE = 740.0
VISIBLE = 0.07  # of noise and range together; what is so far from all that was seen scores 1
CERTAIN_SURPRISE = 5.0  # usual surprises; what goes beyond is news whatever the noise
COMMON = 0.5  # share of the usual distance to the nearest patterns that is no novelty
NEWS = 150.0  # standard deviations of news as large as the range
SUDDEN = 3.6  # usual deviations; one surprise of so many scores 3.5 by itself
# of its growth beyond, which no cap ties: a surprise of twice as many deviations scores four times
# as high, which passes where an alarm halves what was often as high
SUDDEN_POWER = 2.0
# the least of a stream's usual largest surprises in a block; events alone lift it from 3.06 to 3.44
# in the simulated domain where they do most; of 3.3 to 3.5 chosen by the figures of all corpora
USUAL_SURPRISE = 3.45
DISBELIEF = 7.0  # power with which a stream that is often surprised is believed less
# share of blocks whose largest surprise is below the usual one; faults in one block of seven
# are not learned as usual
USUAL_SHARE = 0.85
ALONE = 3.5  # standard deviations, the score of SUDDEN deviations alone
# the novelty's largest values of a block, on a logarithmic scale, as a Frechet distribution
USUAL_NOVELTY = 1.2  # median before anything is known
LEAST_NOVELTY = 2.3  # the least median: that of Gaussian noise
TAIL = 0.2  # shape before anything is known
LIGHTEST_TAIL = 0.1
HEAVIEST_TAIL = 0.5
DECILE_TO_MEDIAN = 1.2005  # shapes between decile and median, log(log(10) / log(2))
FAR = 2.7  # shapes from the median to what is rare; 3.84 to what is as rare as 3.5 deviations
AT_TAIL = 3.1  # the score of that
UNUSUAL = 2.0  # times the median; a block with a larger value is not learned
UNUSUAL_BLOCKS = 16  # the most in a row that are not learned
FIRST_PACE = 0.15  # of a slow quantile at its first block, in logarithms
LAST_PACE = 0.014  # and its least
PACE_BLOCKS = 16  # blocks after which it is half the first
LEAST_SWAY = 1 / 256  # square; the mean of 16 deviations that alternate
OFTEN = 0.1  # the least share of repeated values that is assumed
RARE_RUN = 2.5  # standard deviations of a run of equal values that scores 1, its cube counts
LOUDEST_RUN = 8.0  # standard deviations; the most that a run of equal values scores
# lags whose products the least squares need: 2 the value, 1 and 0 the one and the two before it
PAIRS = ([1, 1, 0, 2, 2], [1, 0, 0, 1, 0])
# arrays of the state, (channels,), that begin with 0 or with 1
BEGIN_WITH_0 = (
    *("n", "seen", "mean", "variance", "held", "move", "moves", "was"),
    *("noise", "shaken", "carry", "run", "swayed", "usual_pattern", "compared"),
)
BEGIN_WITH_1 = ("volatility", "repeats", "sway")
BEGIN_MISSING = ("first", "last", "edge", "low", "high")


@dataclass
class Ensemble(Detector):
    """Four kinds of evidence, each silent until it has something to say; their squares add up to
    the square of the score.

    Expected is the mean of the last three seasons (found by autocorrelation) plus a slow level;
    the band is what two lags make of that, give or take the usual surprises.
    Novel: how far the value lies from every value seen, and the last eight steps from every
    pattern of the last thousand, in a unit of noise and range; on the stream's own scale, the tail
    of its block maxima. Sudden: what is a surprise to a two-lag prediction and far from the near
    level too; a stream that is often surprised is believed less. Lasting: the deviation smoothed
    over 16 steps, over its usual size, averaged over the features. Stuck: a run of equal values.
    What is anomalous is not learned, for at most a window; a suspicious pattern is remembered 64
    steps later. Cost: 13 microseconds per step of a history, 0.16 MB per feature.
    When it fails: before a season was seen twice; a fault in one of many features that lasts less
    than 16 steps. Sources: E. S. Page, Continuous Inspection Schemes, 1954 (lasting); H. Robbins,
    S. Monro, A Stochastic Approximation Method, 1951 (slow quantiles); E. Keogh, J. Lin, A. Fu, HOT
    SAX, 2005 (the distance to the nearest pattern); A. Siffer et al., Anomaly Detection in Streams
    with Extreme Value Theory, 2017 (the tail of a stream's own past).

    >>> x = np.random.default_rng(1).normal(size=(400, 1, 2))
    >>> x[390, 0, 1] = 9.0
    >>> Ensemble(window=100).fit(x[:390]).explain(x[390:391]).round(0)
    array([[[ 0., 31.]]])
    """

    joint: ClassVar[bool] = True
    can_freeze: ClassVar[bool] = False  # level, noise and habits are of the newest steps
    undefined: ClassVar[frozenset[str]] = frozenset(("lags",))
    kinds: ClassVar[tuple[str, ...]] = ("lasting", "novel", "sudden", "stuck")
    window: int = 500  # steps over which level and noise are learned

    def __post_init__(self) -> None:
        super().__post_init__()
        # (steps learned,) the weight of so many steps against what was learned before
        self._fade = exponential_weights(self.window)
        self._fade_fast = exponential_weights(max(1.0, self.window / 5))
        self._fade_slow = exponential_weights(STRAY_WINDOWS * self.window)
        self._fade_near = exponential_weights(NEAR_STEPS)
        self._fade_patterns = exponential_weights(PATTERN_MEMORY)

    @property
    def least(self) -> int:
        """Return the values that must be learned before there is a score: a fifth of the window."""
        return max(2, self.window // 5)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return what is known of each channel, one feature of one stream."""
        size = shape[0] * shape[1]  # channels
        per_feature = np.shape(self._floor) == shape[1:]
        floor = self._floor if per_feature else np.reshape(self._floor, (-1, 1))
        return {
            **{name: np.zeros(size) for name in BEGIN_WITH_0},
            **{name: np.ones(size) for name in BEGIN_WITH_1},
            **{name: np.full(size, np.nan) for name in BEGIN_MISSING},
            # (2, channels), near level and variance: of the values, of the values less the season
            "near": np.zeros((2, size)),
            "near_variance": np.zeros((2, size)),
            "lags": np.zeros((2, size)),  # the last deviations
            "products": np.zeros((5, size)),  # of lags, for the least squares
            "weights": np.zeros((2, size)),  # of the lags in a prediction
            # the block not learned yet: values, values less the season, surprises, distances to the
            # nearest value, smoothed deviations, values with missing ones carried forward, doubts,
            # distances to the nearest patterns
            "open": np.full((8, LEARNING_BLOCK, size), np.nan),
            # (2, BLOCK, streams), its novelty and its surprise, NaN = no opinion
            "open_peaks": np.full((2, LEARNING_BLOCK, shape[0]), np.nan),
            "season": np.zeros(size, int),  # steps, 0 = none
            "since": np.zeros(size, int),  # the step at which it took effect
            "found": np.zeros(size, int),  # the season found by the present search
            "searched": np.zeros(size, bool),  # whether it has come to the channel
            "expected": np.zeros((LEARNING_BLOCK, size)),  # the season's values in this block
            "usual": np.zeros((LEARNING_BLOCK, size)),  # usual squared surprise at each step
            "shake": np.full((LEARNING_BLOCK, size), TINY),  # usual surprise, at least the floor
            "spread": np.full(size, TINY),
            "floor": np.broadcast_to(floor, shape).flatten(),
            "clean": np.full((size, SEASON_MEMORY), np.nan),  # ring buffer of cleaned values
            "shock": np.full((size, SEASON_MEMORY), np.nan),  # ring buffer of squared surprises
            "values": np.full((size, RANGE_MEMORY), np.inf),  # values seen, ascending
            "kept": np.zeros(size, int),  # how many of them
            # (channels, steps), the steps of the patterns in multiples of the grain, a power of two
            # about as large as the range; missing values carried forward
            "past": np.zeros((size, PATTERN_MEMORY + PATTERN_STEPS - 1), np.float32),
            "grain": power_of_two(np.broadcast_to(floor, shape).flatten()),
            "doubtful": np.zeros((size, DOUBT_STEPS), bool),  # the newest patterns not to trust yet
            # (streams,) logarithms: decile and median of the novelty's largest values of a block,
            # and the usual largest surprise
            "decile": np.full(shape[0], np.log(USUAL_NOVELTY) - DECILE_TO_MEDIAN * TAIL),
            "median": np.full(shape[0], np.log(USUAL_NOVELTY)),
            "surprising": np.full(shape[0], np.log(USUAL_SURPRISE)),
            # (2, streams), blocks learned of each, and those of the novelty in a row that were not
            "blocks": np.zeros((2, shape[0])),
            "unusual": np.zeros(shape[0]),
        }

    def advance(self, x: Any) -> Verdict:
        """Score by the root of the summed squares, which `parts` shares out in proportion."""
        x = self.read(x)
        # (steps, streams, features) -> (steps, channels), and back
        channels = self._from_first(x.reshape(len(x), x.shape[1] * x.shape[2]))
        told = [self._piece(offset, rows) for offset, rows in self.pieces(channels, LEARNING_BLOCK)]
        *kinds, centre, spread = (each.reshape(x.shape) for each in concatenate_parts(told))
        energy = kinds[0] + kinds[1] + kinds[2] + kinds[3]  # NaN = no opinion
        known = energy == energy
        energy = np.where(known, energy, 0.0)
        total = energy.sum(axis=-1)
        score = np.where(known.any(axis=-1), np.minimum(np.sqrt(total), CEILING), np.nan)
        share = (score / np.maximum(total, TINY))[..., None]
        evidence = np.where(known[..., None], np.stack(kinds, axis=-1), 0.0) * share[..., None]
        return Verdict(score, centre, spread, energy * share, evidence)

    def _from_first(self, x: Array) -> Array:
        """Subtract each channel's first value, so that the zero of the unit does not matter."""
        state = self._state
        first = np.where((x == x).any(axis=0), first_known(x[None])[0], np.nan)
        state["first"] = np.where(state["first"] == state["first"], state["first"], first)
        return np.asarray(x - known_or_0(state["first"]))

    # One piece of a block: nothing here depends on where the piece begins

    def _piece(self, offset: int, x: Array) -> tuple[Array, ...]:
        """Return squared evidence of each kind, predicted value and usual surprise.

        Each (steps, channels), NaN = no opinion. The piece is kept until its block is full, which
        is then learned.
        """
        state = self._state
        here = slice(offset, offset + len(x))
        seasonless = x - state["expected"][here]
        deviation = np.where(state["n"] > 0, seasonless - state["mean"], np.nan)
        state["open"][:2, here] = x, seasonless
        guess = self._guess(here)
        surprise = deviation - guess
        shake = state["shake"][here]
        enough = state["n"] >= self.least
        usual = state["expected"][here] + (state["mean"] + known_or_0(state["first"]))
        centre = np.where(enough, usual + guess, np.nan)
        spread = np.where(enough, shake, np.nan)
        state["open"][2, here] = surprise
        self._remember_cleaned(here, x, surprise, shake)
        known = (surprise == surprise) & enough
        lasting = self._lasting(here, np.where(known, deviation, np.nan))
        novel = self._novel(here, x, surprise, known)
        sudden = self._sudden(here, seasonless, surprise, known)
        stuck = self._stuck(x, known)
        lasting = np.where(known, lasting, np.nan)
        self._search_seasons(len(x))
        if here.stop == LEARNING_BLOCK:
            self._learn(int(state["step"]) + len(x))
        return lasting, novel, sudden, stuck, centre, spread

    def _guess(self, here: slice) -> Array:
        """Predict the deviation at each step from the two before it; a missing one counts as 0."""
        state = self._state
        block = state["open"][1, : here.stop] - state["mean"]
        lags = known_or_0(np.concatenate((state["lags"], block)))  # (2 + steps, channels)
        first, second = state["weights"]
        one_back = lags[here.start + 1 : here.stop + 1]
        two_back = lags[here.start : here.stop]
        return np.asarray(first * one_back + second * two_back)

    def _remember_cleaned(self, here: slice, x: Array, surprise: Array, shake: Array) -> None:
        """Store the values with their surprises cut to what is not anomalous.

        Otherwise an anomaly would be expected a season later.
        """
        state = self._state
        # SEASON_MEMORY is a multiple of LEARNING_BLOCK, so a piece never wraps around
        first = int(state["step"]) % SEASON_MEMORY
        place = slice(first, first + len(x))
        reach = np.where(state["n"] >= self.least, UNLEARNED_DEVIATION, np.inf) * shake
        within = np.minimum(np.maximum(surprise, -reach), reach)
        state["clean"][:, place] = np.where(surprise == surprise, x - (surprise - within), x).T
        state["shock"][:, place] = (within * within).T

    def _lasting(self, here: slice, deviation: Array) -> Array:
        """Return the square of the smoothed deviation over its usual size, less the usual 1.

        The recurrence is a running sum of terms weighted by decay**-place, a weight that a block
        keeps small.
        """
        state = self._state
        decay = 1 - 1 / LASTING_STEPS
        weights = decay ** np.arange(here.start + 1, here.stop + 1)[:, None]  # (steps, 1)
        terms = np.clip(
            known_or_0(deviation) / state["spread"], -LARGEST_DEVIATION, LARGEST_DEVIATION
        )
        terms /= LASTING_STEPS * weights
        if not len(terms):
            return terms
        terms[0] += state["carry"]
        smooth = running_reduce(np.add, terms)
        closes = here.stop == LEARNING_BLOCK  # the weights of the next block begin anew
        state["carry"] = smooth[-1] * (decay**LEARNING_BLOCK if closes else 1.0)
        smooth *= weights
        state["open"][4, here] = np.where(deviation == deviation, smooth, np.nan)
        usual = np.maximum(state["sway"], LEAST_SWAY)
        squares = np.where(deviation == deviation, self.sided(smooth) ** 2 / usual, np.nan)
        return self._beyond_usual(squares)

    def _beyond_usual(self, squares: Array) -> Array:
        """Return by how much their mean over the features exceeds 1, shared out in proportion."""
        each = self._by_stream(squares)
        present = each == each
        each = np.where(present, each, 0.0)
        mean = each.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)
        share = np.maximum(mean - 1.0, 0.0) / np.maximum(each.sum(axis=-1), TINY)
        return np.asarray((each * share[..., None]).reshape(squares.shape))

    def _by_stream(self, x: Array) -> Array:
        """Return (steps, channels) as (steps, streams, features)."""
        return x.reshape(len(x), *self._state["shape"])

    def _stuck(self, x: Array, known: Array) -> Array:
        """Return how rare so long a run of equal values is, cubed and squared, over the features.

        The probability of a run is repeats ** length.
        """
        state = self._state
        if not len(x):
            return x
        same = x == np.concatenate((state["last"][None], x[:-1]))
        place = np.arange(1.0, len(x) + 1)[:, None]
        # (1 + steps, channels), the place of the last change before or at each step
        changed = np.concatenate((-state["run"][None], np.where(same, -np.inf, place)))
        length = place - running_reduce(np.maximum, changed)[1:]
        state["last"] = x[-1].copy()
        state["run"] = length[-1].copy()
        rarity = surprisal_to_deviations(length * -np.log(np.maximum(state["repeats"], OFTEN)))
        run = np.minimum((rarity / RARE_RUN) ** 3, LOUDEST_RUN)
        return np.asarray(np.where(known, run * run, 0.0) / state["shape"][1])

    def _novel(self, here: slice, x: Array, surprise: Array, known: Array) -> Array:
        """Return the squared novelty, on the scale of the stream's own past.

        It counts less while little is known yet, and not on the side that is not watched.
        """
        state = self._state
        gap = state["open"][3, here]  # a view: the distances are stored for learning
        gap[:] = nearest_distances(state["values"], state["kept"], x)
        pattern = self._pattern_distances(here, x) - COMMON * state["usual_pattern"]
        reach = np.maximum(state["high"] - state["low"], state["floor"])
        unit = VISIBLE * np.sqrt(reach * np.sqrt(reach * self._near_spreads()[0]))
        beyond = np.maximum(np.abs(surprise) - CERTAIN_SURPRISE * state["shake"][here], 0.0)
        news = np.fmin(gap, beyond) / reach
        novelty = (
            known_or_0(gap) + known_or_0(np.maximum(pattern, 0.0))
        ) / unit + NEWS * known_or_0(news)
        novelty *= np.minimum(state["seen"] / RECORD_HALF_LIFE, 1.0)
        watched = known & (self.sided(surprise) > 0)
        squares = np.where(watched, np.minimum(novelty, CEILING), 0.0) ** 2
        each = self._by_stream(squares)
        mean = np.sqrt(each.sum(axis=-1) / each.shape[-1])
        judged = self._by_stream(known).any(axis=-1)
        state["open_peaks"][0, here] = np.where(judged, mean, np.nan)
        scale = AT_TAIL / self._novelty_tail()  # (streams,)
        each = each * (scale * scale)[:, None] / each.shape[-1]
        return np.asarray(each.reshape(squares.shape))

    def _pattern_distances(self, here: slice, x: Array) -> Array:
        """Return the distance of the pattern that ends at each step, NaN at missing values."""
        state = self._state
        filled = state["open"][5]
        last = state["past"][:, -1] * state["grain"]
        before = filled[here.start - 1] if here.start else last
        filled[here] = carry_forward(x, before)[1:]
        earlier = PATTERN_STEPS - 1 - here.start  # steps of the first pattern before this block
        rows = (filled[max(0, -earlier) : here.stop] / state["grain"]).T
        if earlier > 0:
            rows = np.concatenate((state["past"][:, -earlier:], rows), axis=1)
        known = int(state["step"]) - here.start - PATTERN_STEPS  # at the block's begin
        away = pattern_distances(rows, state["past"], known, state["doubtful"])
        state["open"][7, here] = np.where(x == x, away * state["grain"], np.nan)
        return np.asarray(state["open"][7, here])

    def _novelty_tail(self) -> Array:
        """Return the novelty that a step of each stream passes as rarely as few deviations.

        The tail of the largest values of a block is taken for a Frechet distribution, whose shape
        its lower half tells: in the upper one are the faults.
        """
        state = self._state
        shape = (state["median"] - state["decile"]) / DECILE_TO_MEDIAN
        shape = np.minimum(np.maximum(shape, LIGHTEST_TAIL), HEAVIEST_TAIL)
        return np.asarray(np.exp(np.maximum(state["median"], np.log(LEAST_NOVELTY)) + FAR * shape))

    def _near_spreads(self) -> Array:
        """Return the deviations around the near levels, (2, channels), at least the floor."""
        return np.asarray(np.maximum(np.sqrt(self._state["near_variance"]), self._state["floor"]))

    def _sudden(self, here: slice, seasonless: Array, surprise: Array, known: Array) -> Array:
        """Return the squared evidence of each stream's most surprising feature, 0 for the others.

        A surprise must be one to the prediction and far from the near level too. One that shows in
        several features counts once.
        """
        state = self._state
        surprising = surprise / state["shake"][here]
        away = (seasonless - state["near"][1]) / self._near_spreads()[1]
        state["open"][6, here] = np.sqrt(np.abs(surprising)) * np.sqrt(np.abs(away))
        both = np.minimum(self.sided(surprising), self.sided(away))
        each = self._by_stream(np.where(known & (both == both), both, -1.0))
        largest = each.max(axis=-1)
        state["open_peaks"][1, here] = np.where(largest >= 0, largest, np.nan)
        usual = np.exp(state["surprising"]) / USUAL_SURPRISE
        evidence = np.maximum(each, 0.0) / (SUDDEN * usual**DISBELIEF)[:, None]
        evidence = ALONE * np.minimum(evidence, CEILING) ** SUDDEN_POWER
        loudest = np.arange(each.shape[-1]) == each.argmax(axis=-1)[..., None]
        return np.asarray(np.where(loudest, evidence * evidence, 0.0).reshape(both.shape))

    # A full block: learn it

    def _learn(self, now: int) -> None:
        """Learn the open block; `now` is the next step."""
        state = self._state
        x, seasonless, surprise, gap, smooth = state["open"][:5]
        fresh = state["n"] == 0
        state["mean"] = np.where(fresh, first_known(seasonless[None])[0], state["mean"])
        deviation = seasonless - state["mean"]  # (BLOCK, channels), NaN = missing
        self._learn_repeats(x)
        self._learn_values(x, gap)
        self._learn_patterns()
        self._learn_peaks()
        calm = self._learnable("held", np.abs(deviation) / state["spread"])
        loud = np.abs(surprise) / state["shake"]
        self._learn_weights(deviation, calm & ~(loud > UNLEARNED_DEVIATION + 1))
        self._learn_noise(surprise, loud)
        self._learn_sway(smooth)
        self._learn_level(deviation, calm, fresh)
        self._learn_near()
        state["open"].fill(np.nan)
        state["open_peaks"].fill(np.nan)
        state["edge"] = state["last"].copy()
        if now % SEASON_CHECK_STEPS == 0:
            self._begin_seasons(now)
        self._prepare(now)

    def _learnable(self, counter: str, deviations: Array) -> Array:
        """Return which steps may be learned, (BLOCK, channels) bool.

        Those not anomalous, and all once anomalous ones were held back for a window; the array
        `counter` of the state counts the steps held back.
        """
        state = self._state
        present = deviations == deviations
        anomalous = (deviations > UNLEARNED_DEVIATION) & (state["n"] >= self.least)
        calm = present & ~(anomalous & (state[counter] < self.window))
        many = np.add.reduce(anomalous, dtype=np.int64)
        others = np.add.reduce(present, dtype=np.int64) - many
        fewer = np.maximum(state[counter] - others, 0)
        state[counter] = np.where(many > others, state[counter] + many, fewer)
        return np.asarray(calm)

    def _learn_level(self, deviation: Array, calm: Array, fresh: Array) -> None:
        """Learn mean, variance, and how far the block's mean has moved from the last one's."""
        state = self._state
        learned = np.add.reduce(calm, dtype=np.int64)
        pace = learning_pace(self._fade, learned, state["n"])
        mean = masked_mean(deviation, calm, learned)
        square = masked_mean((deviation - mean) ** 2, calm, learned)
        level = state["mean"] + mean
        solid = learned >= LEARNING_BLOCK // 2
        state["noise"] = np.where(fresh, square, state["noise"])
        state["mean"] = state["mean"] + pace * mean
        state["lags"] = state["lags"] - pace * mean  # or a level that moved would be a surprise
        added = square + (1 - pace) * mean * mean
        state["variance"] = (1 - pace) * state["variance"] + pace * added
        moved = solid & (state["moves"] > 0)
        step = np.where(moved, level - state["was"], 0.0)
        pace_of_moves = np.maximum(
            LEARNING_BLOCK / self.window / 2, 1 / np.maximum(state["moves"], 1)
        )
        weight = np.where(moved, np.minimum(pace_of_moves, 1.0), 0.0)
        state["move"] = (1 - weight) * state["move"] + weight * step * step
        state["moves"] += solid
        state["was"] = np.where(solid, level, state["was"])
        state["n"] = state["n"] + learned

    def _learn_sway(self, smooth: Array) -> None:
        """Learn the mean square of the smoothed deviation.

        It begins as a whole spread, with the weight of 2 * LASTING_STEPS steps.
        """
        state = self._state
        usual = np.maximum(np.sqrt(state["sway"]), 1 / UNLEARNED_DEVIATION)
        calm = self._learnable("swayed", np.abs(smooth) / usual)
        learned = np.add.reduce(calm, dtype=np.int64)
        before = state["n"] - self.least + 2 * LASTING_STEPS
        pace = learning_pace(self._fade_slow, learned, before)
        square = masked_mean(smooth * smooth, calm, learned)
        state["sway"] = state["sway"] + pace * (square - state["sway"])

    def _learn_noise(self, surprise: Array, loud: Array) -> None:
        """Learn the variance of surprises, their recent volatility, and how heavy their tail is.

        loud: (BLOCK, channels) surprises in units of the usual ones.
        """
        state = self._state
        known = (loud == loud) & (state["n"] >= self.least)
        calm = self._learnable("shaken", loud)
        learned = np.add.reduce(calm, dtype=np.int64)
        pace = learning_pace(self._fade, learned, state["n"])
        usual = state["usual"]
        volatility = state["volatility"]
        square = masked_mean(surprise * surprise, calm, learned)
        state["noise"] = state["noise"] + pace * (square - state["noise"])
        relative = np.abs(surprise) / np.maximum(np.sqrt(usual), TINY)
        relative = np.where(usual > 0, np.minimum(relative, CEILING) ** 2, 1.0)
        most = UNLEARNED_DEVIATION**2 * volatility
        count = np.add.reduce(known, dtype=np.int64)
        lately = masked_mean(np.minimum(relative, most), known, count)
        state["volatility"] = volatility + self._fade_fast[count] * (lately - volatility)

    def _learn_weights(self, deviation: Array, calm: Array) -> None:
        """Learn the weights of the two lags by least squares, with exponential forgetting."""
        state = self._state
        before = np.concatenate((state["lags"], deviation))  # (2 + BLOCK, channels), NaN = missing
        lags = known_or_0(before)
        lags = np.where(calm, sliding_lags(lags), 0.0)  # (3, BLOCK, channels), the newest last
        new = np.add.reduce(lags[PAIRS[0]] * lags[PAIRS[1]], axis=1)  # (5, channels)
        kept = 1 - self._fade[np.add.reduce(calm, dtype=np.int64)]
        state["products"] = state["products"] * kept + new
        # solve [[aa, ab], [ab, bb]] weights = [ya, yb] by Cramer's rule, with a ridge
        size = np.maximum(state["products"][0] + state["products"][2], TINY**2)
        aa, ab, bb, ya, yb = state["products"] / size
        aa = aa + 1e-6
        bb = bb + 1e-6
        weights = np.stack((ya * bb - yb * ab, yb * aa - ya * ab)) / (aa * bb - ab * ab)
        state["weights"] = np.clip(weights, -2.0, 2.0)
        state["lags"] = before[-2:].copy()

    def _learn_repeats(self, x: Array) -> None:
        """Learn the share of values that equal the one before."""
        state = self._state
        present = x == x
        same = x == np.concatenate((state["edge"][None], x[:-1]))
        count = np.add.reduce(present, dtype=np.int64)
        pace = learning_pace(self._fade, count, state["n"])
        share = masked_mean(same, present, count)
        state["repeats"] = state["repeats"] + pace * (share - state["repeats"])

    def _learn_values(self, x: Array, gap: Array) -> None:
        """Add the values farther than a cell of the range from all seen.

        When there are too many, one for each cell is kept.
        """
        state = self._state
        state["low"] = np.fmin(state["low"], np.fmin.reduce(x))
        state["high"] = np.fmax(state["high"], np.fmax.reduce(x))
        cell = (state["high"] - state["low"]) / RANGE_PARTS
        new = np.where(state["kept"] > 0, gap > cell, x == x)
        channels = np.flatnonzero(new.any(axis=0))
        if not len(channels):
            return
        fresh = np.sort(np.where(new, x, np.inf)[:, channels], axis=0)
        fresh[1:][fresh[1:] == fresh[:-1]] = np.inf
        before = state["values"][channels, : state["kept"].max()]
        values = np.concatenate((before, fresh.T), axis=1)
        values.sort(axis=1, kind="stable")  # merges what is ascending already; the infinite last
        kept = np.count_nonzero(values < np.inf, axis=1)
        for i in np.flatnonzero(kept > RANGE_MEMORY):
            above = values[i, : kept[i]] - state["low"][channels[i]]
            _, first = np.unique(np.floor(above / cell[channels[i]]), return_index=True)
            kept[i] = len(first)
            values[i, : kept[i]] = values[i, first]
        values[np.arange(values.shape[1]) >= kept[:, None]] = np.inf
        width = min(values.shape[1], RANGE_MEMORY)
        state["values"][channels, :width] = values[:, :width]
        state["kept"][channels] = kept

    def _learn_patterns(self) -> None:
        """Add the block's patterns, and learn their usual distance to the nearest.

        Those that end with a suspicious value wait.
        """
        state = self._state
        reach = np.fmax(state["high"] - state["low"], state["floor"])
        grain = np.maximum(power_of_two(reach), state["grain"])
        if (grain > state["grain"]).any():
            moved = state["past"] * (state["grain"] / grain)[:, None]
            state["past"] = moved.astype(np.float32)
            state["grain"] = grain
        newest = (state["open"][5] / grain).T.astype(np.float32)
        state["past"] = np.concatenate((state["past"][:, LEARNING_BLOCK:], newest), axis=1)
        away = state["open"][7]
        present = away == away
        learned = np.add.reduce(present, dtype=np.int64)
        pace = learning_pace(self._fade_patterns, learned, state["compared"])
        moved = np.where(
            learned > 0, masked_mean(away, present, learned) - state["usual_pattern"], 0.0
        )
        state["usual_pattern"] = state["usual_pattern"] + pace * moved
        state["compared"] = state["compared"] + learned
        doubtful = (state["open"][6] > UNLEARNED_DEVIATION) & (state["n"] > 0)
        older = state["doubtful"][:, LEARNING_BLOCK:]
        state["doubtful"] = np.concatenate((older, doubtful.T), axis=1)

    def _learn_peaks(self) -> None:
        """Move the slow quantiles of the block maxima of novelty and surprise, in logarithms.

        A block that is far beyond the usual is not learned, unless many in a row are.
        """
        state = self._state
        peaks = np.fmax.reduce(state["open_peaks"], axis=1)  # (2, streams)
        enough = (state["open_peaks"] == state["open_peaks"]).sum(axis=1) >= LEARNING_BLOCK // 2
        enough &= peaks > 0
        height = np.log(np.where(enough, peaks, 1.0))
        unusual = enough[0] & (height[0] > state["median"] + np.log(UNUSUAL))
        held = unusual & (state["unusual"] < UNUSUAL_BLOCKS)
        state["unusual"] = np.where(
            unusual, state["unusual"] + held, np.where(enough[0], 0, state["unusual"])
        )
        learned = enough & ~np.stack((held, np.zeros_like(held)))
        novelty, surprise = np.where(
            learned, np.maximum(FIRST_PACE / (1 + state["blocks"] / PACE_BLOCKS), LAST_PACE), 0.0
        )
        state["decile"] = state["decile"] + novelty * (0.1 - (height[0] < state["decile"]))
        state["median"] = state["median"] + novelty * (0.5 - (height[0] < state["median"]))
        surprising = state["surprising"] + surprise * (
            USUAL_SHARE - (height[1] < state["surprising"])
        )
        state["surprising"] = np.maximum(surprising, np.log(USUAL_SURPRISE))
        state["blocks"] = state["blocks"] + learned

    def _learn_near(self) -> None:
        """Learn the near levels and variances, from all values, anomalous or not."""
        state = self._state
        values = np.moveaxis(state["open"][:2], 1, 0)  # (BLOCK, 2, channels)
        present = values == values
        learned = np.add.reduce(present, dtype=np.int64)  # (2, channels)
        pace = learning_pace(self._fade_near, learned, state["seen"])
        mean = masked_mean(values, present, learned)
        square = masked_mean((values - mean) ** 2, present, learned)
        moved = np.where(learned > 0, mean - state["near"], 0.0)
        state["near"] = state["near"] + pace * moved
        added = pace * square + (1 - pace) * pace * moved * moved
        state["near_variance"] = (1 - pace) * state["near_variance"] + added
        state["seen"] = state["seen"] + learned[0]

    # The season

    def _search_seasons(self, steps: int) -> None:
        """Find the seasons of this piece's share of the channels.

        All are searched for in the past before the search began, so that it does not matter which
        share a channel is in.
        """
        state = self._state
        left = SEASON_CHECK_STEPS - int(state["step"]) % SEASON_CHECK_STEPS
        waiting = np.flatnonzero(~state["searched"])
        if left > SEARCH_STEPS or not len(waiting):
            return
        begun = int(state["step"]) + left - SEARCH_STEPS
        past = np.arange(max(0, begun - SEARCHED_STEPS), begun) % SEASON_MEMORY
        for channel in waiting[: share_of_work(len(waiting), left, steps)]:
            old = int(state["season"][channel])
            state["found"][channel] = find_season(state["clean"][channel, past], old)
            state["searched"][channel] = True

    def _begin_seasons(self, now: int) -> None:
        """Let the seasons found take effect; with another one, level and noise are measured anew.

        Where too little was seen for that, the old one stays until the next search.
        """
        state = self._state
        old = state["season"]
        found = state["found"]
        near = (np.minimum(old, found) > 0) & (np.abs(found - old) < 0.1 * old)
        others = np.flatnonzero((found != old) & ~near)
        state["season"] = found.copy()
        state["searched"].fill(False)
        refused = others[~self._measure_anew(others, now)]
        state["season"][refused] = old[refused]

    def _measure_anew(self, channels: Array, now: int) -> Array:
        """Measure level, variance and noise of the last window with the new seasons of channels.

        Returns (channels,) bool, where enough was seen in that window; the others are left alone.
        """
        state = self._state
        steps = np.arange(max(0, now - self.window), now)
        values = state["clean"][channels[:, None], steps % SEASON_MEMORY].T
        values = values - self._expected(steps, channels)
        present = values == values
        count = np.add.reduce(present, dtype=np.int64)
        enough: Array = count >= self.least
        mean = masked_mean(values, present, count)
        variance = masked_mean((values - mean) ** 2, present, count)[enough]
        begun = channels[enough]
        state["mean"][begun] = mean[enough]
        state["variance"][begun] = variance
        state["noise"][begun] = variance
        state["near"][1, begun] = mean[enough]
        state["near_variance"][1, begun] = variance
        for name in ("products", "weights", "lags", "held", "shaken", "moves", "move"):
            state[name][..., begun] = 0.0
        state["volatility"][begun] = 1.0
        state["since"][begun] = now
        return enough

    def _prepare(self, now: int) -> None:
        """Compute what the next block expects, and the usual surprise at each of its steps."""
        state = self._state
        steps = np.arange(now, now + LEARNING_BLOCK)
        # variance of a level that takes each block's step at random, over a window
        wandering = state["move"] * max(1.0, self.window / LEARNING_BLOCK)
        spread = np.sqrt(np.maximum(state["variance"], wandering))
        state["spread"] = np.maximum(spread, state["floor"])
        state["expected"] = self._expected(steps, np.arange(len(state["season"])))
        state["usual"][:] = state["noise"]
        seasonal = np.flatnonzero(state["season"])
        for begin in range(0, len(seasonal), FEW_CHANNELS):
            some = seasonal[begin : begin + FEW_CHANNELS]
            total, count = self._surprises_around(now, some)
            mean = total / np.maximum(count, 1)
            usual = np.where(count >= SEASON_NEIGHBOURHOOD, mean, state["noise"][some])
            state["usual"][:, some] = usual
        shake = np.sqrt(state["usual"] * np.maximum(state["volatility"], 0.5))
        state["shake"] = np.maximum(shake, state["floor"])

    def _surprises_around(self, now: int, channels: Array) -> tuple[Array, Array]:
        """Return sum and number of the squared surprises around each step of the next block, in the
        last seasons, since they took effect; both (BLOCK, channels).
        """
        state = self._state
        first = now - SEASON_NEIGHBOURHOOD
        steps = np.arange(first, now + LEARNING_BLOCK + SEASON_NEIGHBOURHOOD)
        around = self._seasons_ago(state["shock"], steps, channels, state["since"][channels])
        present = around == around
        # (seasons, channels, steps) -> (channels, steps) -> (BLOCK, channels)
        total = sum_neighbourhoods(np.where(present, around, 0.0).sum(axis=0))
        count = sum_neighbourhoods(present.sum(axis=0))
        return total.T, count.T

    def _expected(self, steps: Array, channels: Array) -> Array:
        """Return the mean of the last seasons at the same place, (steps, channels).

        0 without a season, NaN where none of them was seen.
        """
        season = self._state["season"][channels]
        if not season.any():
            return np.zeros((len(steps), season.size))
        before = self._seasons_ago(self._state["clean"], steps, channels, np.zeros_like(season))
        present = before == before
        count = np.where(present.any(axis=0), present.sum(axis=0), np.nan)
        mean = np.where(present, before, 0.0).sum(axis=0) / count  # (channels, steps)
        return np.where(season > 0, mean.T, 0.0)

    def _seasons_ago(self, ring: Array, steps: Array, channels: Array, first: Array) -> Array:
        """Return the values of a ring buffer whole seasons ago, (seasons, channels, steps).

        The nearest season that is all learned comes first; NaN where the ring does not reach, and
        before the `first` step (channels,).
        """
        season = self._state["season"][channels]
        near = np.ceil((LEARNING_BLOCK + SEASON_NEIGHBOURHOOD) / np.maximum(season, 1)).astype(int)
        back = (near + np.arange(SEASONS_AVERAGED)[:, None]) * season  # (seasons, channels)
        rows = steps - back[..., None]
        found = ring[channels[:, None], rows % SEASON_MEMORY]
        oldest = np.maximum(first, steps[-1] + 1 - SEASON_MEMORY)  # (channels,)
        inside = rows >= oldest[:, None]
        inside &= back[..., None] < SEASON_MEMORY - 2 * LEARNING_BLOCK
        return np.where(inside, found, np.nan)


def exponential_weights(window: float) -> Array:
    """Return the weight of 0, 1, ... LEARNING_BLOCK new steps against a window of older ones."""
    return np.asarray(1 - (1 - 1 / window) ** np.arange(LEARNING_BLOCK + 1))


def learning_pace(fade: Array, learned: Array, before: Array) -> Array:
    """Return the weight of a block against what was learned before, both in steps.

    Exponential forgetting by `fade`; a plain mean while little was learned.
    """
    return np.asarray(np.maximum(fade[learned], learned / np.maximum(before + learned, 1)))


def sliding_lags(x: Array) -> Array:
    """Return x two steps ago, one step ago and now: (2 + steps, channels) -> (3, steps, channels).

    A view.
    """
    shape = (3, len(x) - 2, x.shape[1])
    return np.ndarray(shape, x.dtype, np.ascontiguousarray(x), 0, (x.strides[0], *x.strides))


def power_of_two(x: Array) -> Array:
    """Return the least power of two above each value: a factor that rounds nothing."""
    return np.asarray(np.ldexp(1.0, np.frexp(x)[1]))


def known_or_0(x: Array) -> Array:
    """Replace missing values by 0."""
    return np.asarray(np.where(x == x, x, 0.0))


def masked_mean(x: Array, chosen: Array, count: Array) -> Array:
    """Return the mean of the chosen steps, 0 without any: (steps, ...) -> (...).

    count: (...), how many they are.
    """
    mean: Array = np.add.reduce(np.where(chosen, x, 0.0)) / np.maximum(count, 1)
    return mean


def sum_neighbourhoods(x: Array) -> Array:
    """Return the sum around each step: (..., steps + 2 * SEASON_NEIGHBOURHOOD) -> (..., steps)."""
    width = 2 * SEASON_NEIGHBOURHOOD + 1
    return np.asarray(np.lib.stride_tricks.sliding_window_view(x, width, axis=-1).sum(axis=-1))


def share_of_work(waiting: int, left: int, steps: int) -> int:
    """Return how many of those that wait are due in `steps` of the steps left.

    An even share at each step, rounded up, so that none waits after the last.
    """
    done = 0
    for remaining in range(left, left - steps, -1):
        done += -(-(waiting - done) // remaining)
    return done


def surprisal_to_deviations(surprisal: Array) -> Array:
    """Return about the |z| whose two-sided Gaussian tail is exp(-surprisal)."""
    return np.asarray(np.sqrt(np.maximum(2 * surprisal - np.log1p(2 * np.pi * surprisal), 0.0)))


def nearest_distances(ordered: Array, kept: Array, x: Array) -> Array:
    """Return the distance of each value to the nearest of its channel, (steps, channels).

    NaN where it is missing, or where there is none.

    Args:
        ordered: (channels, size) ascending, infinite after the first `kept` (channels,).
        x: (steps, channels).
    """
    place = count_below(ordered, kept, x)
    channel = np.arange(len(ordered))
    below = ordered[channel, np.maximum(place - 1, 0)]
    above = ordered[channel, np.minimum(place, np.maximum(kept - 1, 0))]
    distance = np.minimum(np.abs(x - below), np.abs(above - x))
    return np.where(kept > 0, distance, np.nan)


def count_below(ordered: Array, kept: Array, x: Array) -> Array:
    """Return how many values of its channel are less than each value, (steps, channels).

    Both ways count the same.
    """
    place = np.zeros(x.shape, int)
    if len(ordered) < MANY_STREAMS:
        for channel, size in enumerate(kept):
            place[:, channel] = np.searchsorted(ordered[channel, :size], x[:, channel])
        return place
    # all at once by bisection, from the highest bit of the count down
    flat = ordered.ravel()
    before = np.arange(len(ordered)) * ordered.shape[1] - 1
    bit = 1 << int(kept.max()).bit_length()
    while bit := bit >> 1:
        more = place + bit
        inside = more <= kept
        less = flat[before + np.where(inside, more, 1)] < x
        place = np.where(inside & less, more, place)
    return place
