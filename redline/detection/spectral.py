"""Shape detectors: the last values against the window's spectrum or its main directions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from detectors import Calibration, Detector, State, Verdict
from redline.detection.arrays import (
    Array,
    cache_tiles,
    carry_forward,
    concatenate_parts,
    sliding_windows,
)


@dataclass
class WindowShapeDetector(Detector):
    """Base of the detectors that define `misfit`; the score is its size, calibrated.

    A missing value counts as the one before it. No score is above `size` in floors.
    """

    newest: ClassVar[frozenset[str]] = frozenset(("filled", "there"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scale = Calibration(window=4 * self.window)

    @property
    def width(self) -> int:
        """Return the steps of a run, with the one judged."""
        return self.window

    @property
    def block(self) -> int:
        """Return the steps from one `learn` to the next."""
        return self.window

    @property
    def renewals(self) -> tuple[int, ...]:
        return (self.block, self._scale.block)

    @abstractmethod
    def misfit(self, runs: Array, streams: slice) -> Array:
        """Return how badly the last value of each run fits the others, signed, in any unit.

        runs: (steps, streams, width) without gaps -> (steps, streams).
        """

    def learn(self) -> None:
        """Learn the window; called at the absolute multiples of `block` steps."""

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the last values, missing ones filled, and which of them were seen."""
        return {
            "filled": np.full((self.window, *shape), np.nan),
            "there": np.zeros((self.window, *shape), bool),
        }

    def advance(self, x: Any) -> Verdict:
        """Calibrate the misfits."""
        x = self.read(x)
        raw, step = concatenate_parts(
            [self._piece(offset, rows) for offset, rows in self.pieces(x, self.block)]
        )
        with self.inside("scale", self._scale):
            score = self._scale.update(self.sided(raw))
        return Verdict(np.minimum(score, step / self._floor))

    def _piece(self, offset: int, x: Array) -> tuple[Array, Array]:
        """Return the misfit and the size of each step of a piece of a block; both (steps, streams).

        At the end of the block, learn.
        """
        full = carry_forward(x, self._state["filled"][-1])
        filled = self.remember(full[1:], "filled")
        # a run ends with the step itself, so the last window has one row more: (steps, streams,
        # width)
        rows = np.concatenate((filled[self.window - self.width + 1 :], filled[-1:]))
        runs = sliding_windows(rows, self.width)
        # how many values were seen in the window before each step
        seen = sliding_windows(self.remember(x == x, "there"), self.window).sum(axis=-1)
        raw = np.empty(x.shape)
        for here in cache_tiles(x.shape, 4 * self.width):
            run = runs[here]
            last = np.nan_to_num(run[..., -1:])  # in place of what was before the first value
            raw[here] = self.misfit(np.where(np.isnan(run), last, run), here[1])
        if offset + len(x) == self.block:
            self.learn()
        known = (seen >= self.least) & (x == x)
        return np.where(known, raw, np.nan), self.size(raw, x - full[:-1])

    def size(self, raw: Array, step: Array) -> Array:
        """Return what a floor is compared with, >= 0, in the data's unit: the misfit itself.

        step: the difference from the last value seen.
        """
        return np.abs(raw)


@dataclass
class SpectralResidual(WindowShapeDetector):
    """How much the last step stands out of its window once what the window repeats is taken away.

    The window's spectrum is divided by its own smooth amplitude (the mean of SMOOTH frequencies),
    which leaves what does not repeat; back in time, the saliency of the last step is compared with
    the mean saliency of the window. Cost: two Fourier transforms of the window per step. When it
    fails: on pure noise every step stands out a little; a slow drift has no edge and does not stand
    out at all. Source: H. Ren et al., Time-Series Anomaly Detection Service at Microsoft, 2019; X.
    Hou, L. Zhang, Saliency Detection: A Spectral Residual Approach, 2007.

    >>> x = np.sin(np.arange(800) / 5) + 0.05 * np.random.default_rng(1).normal(size=800)
    >>> x[790] += 2
    >>> SpectralResidual(window=60).update(x[:, None])[788:791].ravel().round(1)
    array([0. , 0. , 5.6])
    """

    SMOOTH: ClassVar[int] = 3  # frequencies

    def misfit(self, runs: Array, streams: slice) -> Array:
        """Return the saliency over its mean, with the sign of the step from the value before."""
        centred = runs - runs[..., -1:]
        centred = centred - centred.mean(axis=-1, keepdims=True)
        size = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True))
        scaled = centred / np.where(size > 0, size, 1.0)
        spectrum = np.fft.rfft(scaled, axis=-1)[..., 1:]  # without the constant, which is 0
        amplitude = np.abs(spectrum) + 1e-6
        level = np.log(amplitude)
        padded = np.concatenate((level[..., :1], level, level[..., -1:]), axis=-1)
        smooth = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / self.SMOOTH
        residual = spectrum / amplitude * np.exp(level - smooth)
        whole = np.concatenate((residual[..., :1] * 0.0, residual), axis=-1)
        saliency = np.abs(np.fft.irfft(whole, n=runs.shape[-1], axis=-1))
        usual = saliency.mean(axis=-1)  # (steps, streams)
        relative = saliency[..., -1] / np.where(usual > 0, usual, 1.0)
        relative = np.where(size[..., 0] > 0, relative, 0.0)
        return np.asarray(np.copysign(relative, runs[..., -1] - runs[..., -2]))

    def size(self, raw: Array, step: Array) -> Array:
        """Return the size of the step from the last value seen."""
        return np.abs(step)


@dataclass
class Subspace(WindowShapeDetector):
    """How far a value is from where the run before it and the window's main directions put it.

    Runs of window / 8 values (at least 4) about the window's mean; their RANK main directions are
    found anew at the absolute multiples of window / 8 steps, each with the share of its energy
    above the next one's, so that of equal ones none is chosen. The others of a run and these
    directions say where its last value should be; the misfit is how far it is from there. It knows
    a season by its shape, wherever it stands. Cost: window / 8 per step; a small eigenproblem per
    renewal and stream. When it fails: a change along the main directions, a season grown by half,
    stays inside. On plain noise no few directions hold a run. Source: A. Lakhina, M. Crovella, C.
    Diot, Diagnosing Network-Wide Traffic Anomalies, 2004; N. Golyandina, A. Zhigljavsky, Singular
    Spectrum Analysis for Time Series, 2013 (on lags).

    >>> x = np.sin(np.arange(800) / 5) + 0.05 * np.random.default_rng(1).normal(size=800)
    >>> x[790] += 1
    >>> Subspace(window=60).update(x[:, None])[788:791].ravel().round(1)
    array([ 0.1,  1.2, 12.6])
    """

    RANK: ClassVar[int] = 3  # directions
    # share of the strongest direction's energy; less is no direction, and no difference of two
    FAINT: ClassVar[float] = 1e-9
    LEAST: ClassVar[float] = 0.05  # least share of the last value outside of the directions

    @property
    def width(self) -> int:
        """Return the steps of a run."""
        return max(2, min(self.window, max(4, self.window // 8)))

    @property
    def block(self) -> int:
        """Return the steps from one renewal to the next."""
        return max(1, self.window // 8)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return the window, its centre, and the weights that predict a run's last value."""
        return {
            **super().begin(shape),
            "weights": np.full((self.width - 1, *shape), np.nan),  # NaN = not learned yet
            "centre": np.zeros(shape),
        }

    def misfit(self, runs: Array, streams: slice) -> Array:
        """Return the distance of the last value from its prediction by the others of the run."""
        weights = self._state["weights"][:, streams]
        centre = self._state["centre"][streams]
        predicted = np.zeros(runs.shape[:2])
        # one after another: the bits of a matrix product would depend on the number of steps
        for i in range(self.width - 1):
            predicted = predicted + weights[i] * (runs[..., i] - centre)
        last = runs[..., -1] - centre
        away = last - predicted
        rounding = self.FAINT * (np.abs(last) + np.abs(predicted))
        return np.where(np.abs(away) > rounding, away, 0.0)

    def learn(self) -> None:
        """Find the main directions of the window's runs, and from them the weights.

        The prediction is the least-squares fit of the other values by the directions, extended to
        the last value.
        """
        state = self._state
        filled = state["filled"]  # (window, streams)
        few = state["there"].sum(axis=0) < self.least
        first = np.where(few, 0.0, np.nan_to_num(filled[-1]))
        centre = first + np.where(few, 0.0, np.nan_to_num(filled - first)).mean(axis=0)
        # the view leaves out the last row, so one is appended: (runs, streams, width)
        rows = np.concatenate((np.nan_to_num(filled - centre), filled[-1:] * 0.0))
        runs = sliding_windows(rows, self.width)
        products = np.einsum("rsi,rsj->sij", runs, runs)  # (streams, width, width)
        values, vectors = np.linalg.eigh(products)  # ascending
        rank = min(self.RANK, self.width - 1)
        used = values[:, None, -rank:]  # (streams, 1, directions)
        next_value = values[:, None, -rank - 1, None]  # (streams, 1, 1)
        above_next = 1 - (1 + self.FAINT) * next_value / np.where(used > 0, used, 1.0)
        share = np.where(used > self.FAINT * values[:, None, -1:], above_next, 0.0)
        main = vectors[..., -rank:] * np.sqrt(
            np.maximum(share, 0.0)
        )  # (streams, width, directions)
        last = main[:, -1]  # (streams, directions)
        outside = np.maximum(1 - (last * last).sum(axis=-1), self.LEAST)
        weights = np.einsum("sid,sd->is", main[:, :-1], last) / outside
        state["weights"] = np.where(few, np.nan, weights)
        state["centre"] = centre
