"""Shapes: detectors that ask whether the last values go together as the window's values do, in its
spectrum or in its main directions.
"""

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
    """A detector that writes `misfit`; its score is the size of that on the one scale, by the
    shared calibration.

    A missing value counts as the one before it. No score is above the misfit, or the step from the
    last value seen, in floors.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scale = Calibration(window=4 * self.window)

    @property
    def width(self) -> int:
        """Steps of a run, the one judged among them."""
        return self.window

    @property
    def block(self) -> int:
        """Steps from one `learn` to the next."""
        return self.window

    @abstractmethod
    def misfit(self, runs: Array, streams: slice) -> Array:
        """How badly the last of each run, (steps, streams, width) without gaps, fits the others:
        (steps, streams), any unit, signed.
        """

    def learn(self) -> None:
        """Called at the absolute multiples of `block` steps."""

    def begin(self, shape: tuple[int, ...]) -> State:
        """The last values, the missing ones filled, and which of them were seen."""
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
        """(the misfit of each step, the most it can be in the data's unit), both (steps,
        streams).
        """
        full = carry_forward(x, self._state["filled"][-1])
        filled = self.remember(full[1:], "filled")
        runs = sliding_windows(
            np.concatenate((filled[self.window - self.width + 1 :], filled[-1:])), self.width
        )  # (steps, streams, width)
        seen = sliding_windows(self.remember(x == x, "there"), self.window).sum(
            axis=-1
        )  # before each step
        raw = np.empty(x.shape)
        for here in cache_tiles(x.shape, 4 * self.width):
            run = np.where(
                np.isnan(runs[here]), np.nan_to_num(runs[here][..., -1:]), runs[here]
            )  # what was before the first value is like now
            raw[here] = self.misfit(run, here[1])
        if offset + len(x) == self.block:
            self.learn()
        return np.where((seen >= self.least) & (x == x), raw, np.nan), self.size(raw, x - full[:-1])

    def size(self, raw: Array, step: Array) -> Array:
        """What a floor is compared with, >= 0, the data's unit."""
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
        """Saliency over its mean, to the side of the step."""
        centred = runs - runs[..., -1:]
        centred = centred - centred.mean(axis=-1, keepdims=True)
        size = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True))
        spectrum = np.fft.rfft(centred / np.where(size > 0, size, 1.0), axis=-1)[
            ..., 1:
        ]  # nothing stands still
        amplitude = np.abs(spectrum) + 1e-6
        level = np.log(amplitude)
        padded = np.concatenate((level[..., :1], level, level[..., -1:]), axis=-1)
        smooth = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / self.SMOOTH
        residual = spectrum / amplitude * np.exp(level - smooth)
        saliency = np.abs(
            np.fft.irfft(
                np.concatenate((residual[..., :1] * 0.0, residual), axis=-1),
                n=runs.shape[-1],
                axis=-1,
            )
        )
        usual = saliency.mean(axis=-1)
        size = np.where(size[..., 0] > 0, saliency[..., -1] / np.where(usual > 0, usual, 1.0), 0.0)
        return np.asarray(np.copysign(size, runs[..., -1] - runs[..., -2]))

    def size(self, raw: Array, step: Array) -> Array:
        """The step from the last value seen."""
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
    FAINT: ClassVar[float] = (
        # of the strongest direction's energy: what is no direction, and no difference between two
        1e-9
    )
    LEAST: ClassVar[float] = 0.05  # of the last value's length that lies outside of them

    @property
    def width(self) -> int:
        """Steps of a run."""
        return max(2, min(self.window, max(4, self.window // 8)))

    @property
    def block(self) -> int:
        """Steps from one renewal to the next."""
        return max(1, self.window // 8)

    def begin(self, shape: tuple[int, ...]) -> State:
        """What each of the other values of a run says of the last one, (width - 1, streams), and
        the window's centre; NaN = nothing yet.
        """
        return {
            **super().begin(shape),
            "weights": np.full((self.width - 1, *shape), np.nan),
            "centre": np.zeros(shape),
        }

    def misfit(self, runs: Array, streams: slice) -> Array:
        """How far the last value is from where the others and the main directions put it."""
        weights = self._state["weights"][:, streams]
        centre = self._state["centre"][streams]
        told = np.zeros(runs.shape[:2])
        for i in range(
            self.width - 1
        ):  # one after another, so that no bit depends on the number of steps
            told = told + weights[i] * (runs[..., i] - centre)
        own = runs[..., -1] - centre
        return np.where(
            np.abs(own - told) > self.FAINT * (np.abs(own) + np.abs(told)), own - told, 0.0
        )

    def learn(self) -> None:
        """The main directions of the window's runs, and what they make of the last value: the least
        squares of its others on them.
        """
        state = self._state
        filled = self._state["filled"]
        few = state["there"].sum(axis=0) < self.least
        first = np.where(few, 0.0, np.nan_to_num(filled[-1]))
        centre = first + np.where(few, 0.0, np.nan_to_num(filled - first)).mean(axis=0)
        runs = sliding_windows(
            np.concatenate((np.nan_to_num(filled - centre), filled[-1:] * 0.0)), self.width
        )  # (runs, streams, width)
        products = np.einsum("rsi,rsj->sij", runs, runs)
        values, vectors = np.linalg.eigh(products)
        rank = min(self.RANK, self.width - 1)
        # (streams, 1, directions), (streams, 1, 1)
        used = values[:, None, -rank:]
        next_ = values[:, None, -rank - 1, None]
        share = np.where(
            used > self.FAINT * values[:, None, -1:],
            1 - (1 + self.FAINT) * next_ / np.where(used > 0, used, 1.0),
            0.0,
        )
        main = vectors[..., -rank:] * np.sqrt(
            np.maximum(share, 0.0)
        )  # (streams, width, directions)
        last = main[:, -1]
        rest = np.maximum(1 - (last * last).sum(axis=-1), self.LEAST)
        weights = np.einsum("sid,sd->is", main[:, :-1], last) / rest
        state["weights"], state["centre"] = np.where(few, np.nan, weights), centre
