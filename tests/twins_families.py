"""The definitions of the detectors that live in rooms of redline/, slow and one number at a time, as those of tests/twins.py."""

from __future__ import annotations

from math import erfc, exp, fsum, gamma, inf, isnan, log, nan, pi, sqrt

from twins import CEILING, Twin, Values

Row = list[float]  # one step of a stream, its features


def least(window: int) -> int:
    return max(2, (window + 1) // 2)


# Joint detectors: what a block of steps is judged by was learned before it began


def centre_and_spread(values: Values, window: int) -> tuple[float, float]:
    known = [value for value in values if not isnan(value)]
    if len(known) < least(window):
        return nan, nan
    mean = known[0] + fsum(value - known[0] for value in known) / len(known)
    return mean, sqrt(fsum((value - mean) ** 2 for value in known) / len(known))


def in_spreads(row: Row, gauges: list[tuple[float, float]]) -> Row:
    """Each feature's distance from its centre, NaN = missing or too little past."""
    out = []
    for value, (centre, spread) in zip(row, gauges):
        gap = value - centre
        out.append(max(-1000.0, min(1000.0, gap / spread)) if spread else gap and gap * inf and (1000.0 if gap > 0 else -1000.0))
    return [nan if isnan(value) or isnan(gauge[0]) else z for value, gauge, z in zip(row, gauges, out)]


def solved(matrix: list[Row], right: Row) -> Row:
    """The x with matrix x = right, by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right)]
    for i, row in enumerate(rows):
        for other in rows[i + 1 :]:
            share = other[i] / row[i]
            other[:] = [b - share * a for a, b in zip(row, other)]
    out: Row = []
    for row in reversed(rows):
        known = fsum(a * b for a, b in zip(reversed(row[:-1]), out))
        out.append((row[-1] - known) / row[len(rows) - 1 - len(out)])
    return out[::-1]


def gaussian_tail(z: float) -> float:
    """The negative logarithm of how often a Gaussian lies beyond +-z."""
    if z < 20:
        return -log(erfc(z / sqrt(2)))
    mills = z
    for i in range(60, 0, -1):
        mills = z + i / mills
    return z * z / 2 + log(mills) + log(pi / 2) / 2


def length_tail(d: float, features: int) -> float:
    """The same for the length of so many independent Gaussians."""
    total = exp(d * d / 2 - gaussian_tail(d)) if features % 2 else 1.0
    for more in range(4 - features % 2, features + 1, 2):
        total += (d * d / 2) ** (more / 2 - 1) / gamma(more / 2)
    return d * d / 2 - log(total)


def as_rare(d: float, features: int) -> float:
    """The |z| as rare as that length, linear between multiples of 1/64."""
    if features == 1 or d > 110:
        return min(d, CEILING)
    ends = []
    for length in (int(d * 64) / 64, int(d * 64 + 1) / 64):
        low, high, tail = 0.0, length + 1, length_tail(length, features)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if gaussian_tail(middle) < tail else (low, middle)
        ends.append(low)
    return min(ends[0] + (d * 64 % 1) * (ends[1] - ends[0]), CEILING)


def correlations(window_rows: list[Row]) -> list[Row]:
    """A missing feature at its centre; shrunk by a thousandth."""
    columns = [[0.0 if isnan(value) else value for value in column] for column in zip(*window_rows)]
    sizes = [sqrt(fsum(value * value for value in column)) or 1.0 for column in columns]
    pairs = range(len(columns))
    product = [[fsum(a * b for a, b in zip(columns[i], columns[j])) / (sizes[i] * sizes[j]) for j in pairs] for i in pairs]
    return [[1.0 if i == j else 0.999 * product[i][j] for j in pairs] for i in pairs]


def mahalanobis(rows: list[Row], window: int) -> Values:
    scores, block = [], max(1, window // 8)
    for t, row in enumerate(rows):
        learned = rows[max(0, t - t % block - window) : t - t % block]
        gauges = [centre_and_spread([past[i] for past in learned], window) for i in range(len(row))]
        z = in_spreads(row, gauges)
        known = [i for i, value in enumerate(z) if not isnan(value)]
        if not known:
            scores.append(nan)
            continue
        past_rows = [in_spreads(past, gauges) for past in learned]
        matrix, seen = correlations(past_rows), sum(not all(map(isnan, past)) for past in past_rows)
        some = [z[i] for i in known]
        squared = fsum(a * b for a, b in zip(some, solved([[matrix[i][j] for j in known] for i in known], some)))
        scores.append(as_rare(sqrt(max(0.0, squared) / (1 + 2 * (len(row) - 1) / seen)), len(known)))
    return scores


Near = list[tuple[float, Row]]  # how far, and which


def around(point: Row, others: list[Row], features: list[int], nearest: int) -> Near:
    """The nearest, and all that are as near as the last of them."""

    def far(other: Row) -> float:
        return sqrt(fsum((point[i] - other[i]) ** 2 for i in features) * len(point) / len(features))

    pairs = sorted(((far(other), other) for other in others), key=lambda pair: pair[0])
    return [pair for pair in pairs if pair[0] <= pairs[nearest - 1][0]]


def density(near: Near, own: dict[int, Near]) -> float:
    return len(near) / fsum(max(d, 0.01, own[id(other)][-1][0]) for d, other in near)


def local_outlier_factor(rows: list[Row], window: int) -> Values:
    scores, block, nearest = [], max(1, window // 4), max(1, min(10, least(window) - 1))
    for t, row in enumerate(rows):
        learned = rows[max(0, t - t % block - window) : t - t % block]
        gauges = [centre_and_spread([past[i] for past in learned], window) for i in range(len(row))]
        z = in_spreads(row, gauges)
        known = [i for i, value in enumerate(z) if not isnan(value)]
        if not known:
            scores.append(nan)
            continue
        past_rows = [in_spreads(past, gauges) for past in learned]
        points = [[0.0 if isnan(value) else value for value in past] for past in past_rows if not all(map(isnan, past))]
        every = list(range(len(row)))
        own = {id(point): around(point, [other for other in points if other is not point], every, nearest) for point in points}
        near = around(z, points, known, nearest)
        factor = fsum(density(own[id(other)], own) for _, other in near) / len(near) / density(near, own)
        scores.append(max(0.0, min(2.25 * sqrt(len(known)) * log(factor), CEILING)))
    return scores


TWINS: dict[str, Twin] = {
    "Mahalanobis": mahalanobis,  # type: ignore[dict-item]
    "local outlier factor": local_outlier_factor,  # type: ignore[dict-item]
}
