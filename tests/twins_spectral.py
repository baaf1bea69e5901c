"""Reference implementations, as those of tests/twins.py, of the shape detectors."""

from __future__ import annotations

from cmath import exp, pi
from math import isnan, log, nan, sqrt

import numpy as np
from twins import Twin, Values
from twins_families import calibrated, carried, least
from twins_start import with_robust_start


def run_to(x: Values, t: int, width: int) -> Values:
    """Return the values of a run that ends at step t; those before the first equal the last."""
    full = carried(x)
    run = [full[s] if s >= 0 else nan for s in range(t - width + 1, t + 1)]
    return [(0.0 if isnan(run[-1]) else run[-1]) if isnan(value) else value for value in run]


def judged(x: Values, window: int, misfit) -> Values:
    """Return the calibrated size of misfit(t) where a value and half a window before it are."""
    raw = []
    for t, value in enumerate(x):
        known = sum(not isnan(each) for each in x[max(0, t - window) : t])
        raw.append(nan if isnan(value) or known < least(window) else abs(misfit(t)))
    return calibrated(raw, 4 * window)


def spectral_residual(x: Values, window: int) -> Values:
    def misfit(t: int) -> float:
        run = [value - run_to(x, t, window)[-1] for value in run_to(x, t, window)]
        mean = sum(run) / window
        size = sqrt(sum((value - mean) ** 2 for value in run) / window)
        if not size:
            return 0.0
        terms = range(1, window // 2 + 1)
        spectrum = {
            k: sum(
                (value - mean) / size * exp(-2j * pi * k * s / window)
                for s, value in enumerate(run)
            )
            for k in terms
        }
        level = {k: log(abs(value) + 1e-6) for k, value in spectrum.items()}
        ends = {**level, 0: level[1], window // 2 + 1: level[window // 2]}
        left = {
            k: spectrum[k]
            / (abs(spectrum[k]) + 1e-6)
            * np.exp(level[k] - (ends[k - 1] + ends[k] + ends[k + 1]) / 3)
            for k in terms
        }
        both = {
            **left,
            **{window - k: value.conjugate() for k, value in left.items() if 2 * k != window},
        }
        if window % 2 == 0:
            both[window // 2] = complex(left[window // 2].real)
        back = [
            abs(sum(value * exp(2j * pi * k * s / window) for k, value in both.items()).real)
            / window
            for s in range(window)
        ]
        return back[-1] / (sum(back) / window) if sum(back) else 0.0

    return judged(x, window, misfit)


def subspace(x: Values, window: int) -> Values:
    width, block = max(2, min(window, max(4, window // 8))), max(1, window // 8)
    full = carried(x)

    def learned(end: int) -> tuple[list[float], float] | None:
        """Return the weights of a run's other values, and the centre, learned before `end`."""
        steps = range(end - window, end)
        if sum(s >= 0 and not isnan(x[s]) for s in steps) < least(window):
            return None
        values = [full[s] if s >= 0 and not isnan(full[s]) else nan for s in steps]
        last = values[-1]
        centre = last + sum(0.0 if isnan(v) else v - last for v in values) / window
        moved = [0.0 if isnan(v) else v - centre for v in values]
        runs = np.array([moved[i : i + width] for i in range(window - width + 1)])
        _, sizes, directions = np.linalg.svd(runs)
        rank, energy = min(3, width - 1), [*(sizes**2).tolist(), 0.0, 0.0, 0.0, 0.0]
        shares = [
            max(0.0, 1 - (1 + 1e-9) * energy[rank] / e) if e > 1e-9 * energy[0] else 0.0
            for e in energy[:rank]
        ]
        main = np.array([d * sqrt(share) for d, share in zip(directions, shares)])
        tip = main[:, -1]
        return list(main[:, :-1].T @ tip / max(1 - tip @ tip, 0.05)), centre

    def misfit(t: int) -> float:
        found = learned(t // block * block) if t >= block else None
        if found is None:
            return nan
        weights, centre = found
        run = run_to(x, t, width)
        return (
            run[-1] - centre - sum(weight * (value - centre) for weight, value in zip(weights, run))
        )

    return judged(x, window, misfit)


PLAIN: dict[str, Twin] = {"spectral residual": spectral_residual, "subspace": subspace}

TWINS: dict[str, Twin] = {name: with_robust_start(twin) for name, twin in PLAIN.items()}
