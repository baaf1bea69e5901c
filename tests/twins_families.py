"""Reference implementations, as those of tests/twins.py, of the distance and joint detectors."""

from __future__ import annotations

from math import erfc, exp, floor, fsum, gamma, inf, isnan, log, log2, nan, pi, sqrt

import numpy as np
from twins import CEILING, NORMAL, Twin, Values, quantile, seen
from twins_start import with_robust_start

Row = list[float]  # one step of a stream, its features


def least(window: int) -> int:
    return max(2, (window + 1) // 2)


def calibrated(raw: Values, window: int) -> Values:
    """Return raw scores in standard deviations by the line of `Calibration`.

    The median of the last `window` values learned becomes 0.67, their 90th percentile 1.64; renewed
    every window / 8 steps.
    """
    scores, kept, calm, block = [], [], 0, max(1, window // 8)
    median, unit = nan, nan
    for t, value in enumerate(raw):
        score = (
            nan
            if isnan(value) or isnan(median)
            else max(0.0, min(NORMAL.inv_cdf(0.75) + (value - median) / unit, CEILING))
        )
        calm = calm if score > 3 else t
        kept.append(value if t == calm or t - calm > window else nan)
        if t % block == block - 1 and len(seen(kept[-window:])) >= (window + 1) // 2:
            median, high = (quantile(seen(kept[-window:]), share) for share in (0.5, 0.9))
            unit = max(high - median, 1e-9 * median, 1e-150) / (
                NORMAL.inv_cdf(0.95) - NORMAL.inv_cdf(0.75)
            )
        scores.append(score)
    return scores


def carried(x: Values) -> Values:
    """Replace each missing value by the one before it."""
    out, last = [], nan
    for value in x:
        last = last if isnan(value) else value
        out.append(last)
    return out


def nearest_neighbours(x: Values, window: int) -> Values:
    full, raw = carried(x), []
    for t in range(len(x)):
        found = []
        for end in range(max(3, t - 4 * window), t):
            gaps = [0.6**lag * (full[t - lag] - full[end - lag]) ** 2 for lag in range(4)]
            if not isnan(x[end]) and not any(map(isnan, gaps)):
                found.append(sqrt(fsum(gaps) / fsum(0.6**lag for lag in range(4))))
        enough = len(found) >= least(window) and not isnan(x[t])
        raw.append(sqrt(sorted(found)[min(5, least(window)) - 1]) if enough else nan)
    return calibrated(raw, 4 * window)


def novelty(x: Values, window: int) -> Values:
    scores: Values = []
    kept: Values = []
    records, added, up, down = 0.0, 0.0, 0.0, 0.0  # of the blocks before
    fresh = []  # of each record of this block what counts of it, and its ground
    for t, value in enumerate(x):
        past = seen(x[:t])
        if t % 64 == 0:
            fade = (1 - 1 / window) ** 64
            records = records * fade + len(fresh)
            added = added * fade + fsum(counted for counted, _ in fresh)
            up = up * fade + fsum(max(0.0, ground) for _, ground in fresh)
            down = down * fade + fsum(max(0.0, -ground) for _, ground in fresh)
            fresh = []
        if t and t % 64 == 0 and past:
            width = (max(past) - min(past)) or 1e-150
            places = {
                floor((old - min(past)) / width * 2047): old
                for old in sorted(kept + seen(x[t - 64 : t]), reverse=True)
            }
            kept = list(places.values())  # the lowest of each place
        if isnan(value) or len(past) < least(window):
            scores.append(nan)
            continue
        gap = min(abs(value - old) for old in kept + seen(x[t - t % 64 : t]))
        width = max(past) - min(past)
        spacing = (width or 1e-150) / len(past)
        above, below = value - max(past), min(past) - value
        if above > -up or below > -down:
            spacing = max(spacing, added / (16 + records))
        if above > 0 or below > 0:
            fresh.append((min(max(above, below), 10 * spacing), above if above > 0 else -below))
        scores.append(min(0.8 * sqrt(gap / spacing), CEILING))
    return scores


# Joint detectors: what a block of steps is judged by was learned before it began


def centre_and_spread(values: Values, window: int) -> tuple[float, float]:
    known = [value for value in values if not isnan(value)]
    if len(known) < least(window):
        return nan, nan
    mean = known[0] + fsum(value - known[0] for value in known) / len(known)
    return mean, sqrt(fsum((value - mean) ** 2 for value in known) / len(known))


def in_spreads(row: Row, gauges: list[tuple[float, float]]) -> Row:
    """Return each feature's distance from its centre, NaN = missing or too little past."""
    out = []
    for value, (centre, spread) in zip(row, gauges):
        gap = value - centre
        out.append(
            max(-1000.0, min(1000.0, gap / spread))
            if spread
            else gap and gap * inf and (1000.0 if gap > 0 else -1000.0)
        )
    return [
        nan if isnan(value) or isnan(gauge[0]) else z for value, gauge, z in zip(row, gauges, out)
    ]


def solved(matrix: list[Row], right: Row) -> Row:
    """Return the x with matrix x = right, by elimination."""
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
    """Return minus the logarithm of the probability that a Gaussian lies beyond +-z."""
    if z < 20:
        return -log(erfc(z / sqrt(2)))
    mills = z
    for i in range(60, 0, -1):
        mills = z + i / mills
    return z * z / 2 + log(mills) + log(pi / 2) / 2


def length_tail(d: float, features: int) -> float:
    """Return the same for the length of so many independent Gaussians."""
    total = exp(d * d / 2 - gaussian_tail(d)) if features % 2 else 1.0
    for more in range(4 - features % 2, features + 1, 2):
        total += (d * d / 2) ** (more / 2 - 1) / gamma(more / 2)
    return d * d / 2 - log(total)


def as_rare(d: float, features: int) -> float:
    """Return the |z| as rare as that length, linear between multiples of 1/64."""
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
    product = [
        [fsum(a * b for a, b in zip(columns[i], columns[j])) / (sizes[i] * sizes[j]) for j in pairs]
        for i in pairs
    ]
    return [[1.0 if i == j else 0.999 * product[i][j] for j in pairs] for i in pairs]


def taught(rows: list[Row], t: int, block: int, window: int) -> tuple[list[Row], Row, list[int]]:
    """(the window before step t's block, step t, the features known of it), all in spreads from the
    centre.
    """
    learned = rows[max(0, t - t % block - window) : t - t % block]
    gauges = [centre_and_spread([past[i] for past in learned], window) for i in range(len(rows[t]))]
    z = in_spreads(rows[t], gauges)
    return (
        [in_spreads(past, gauges) for past in learned],
        z,
        [i for i, value in enumerate(z) if not isnan(value)],
    )


def mahalanobis(rows: list[Row], window: int) -> Values:
    scores, block = [], max(1, window // 8)
    for t, row in enumerate(rows):
        past_rows, z, known = taught(rows, t, block, window)
        if not known:
            scores.append(nan)
            continue
        matrix, seen = correlations(past_rows), sum(not all(map(isnan, past)) for past in past_rows)
        some = [z[i] for i in known]
        squared = fsum(
            a * b
            for a, b in zip(some, solved([[matrix[i][j] for j in known] for i in known], some))
        )
        scores.append(
            as_rare(sqrt(max(0.0, squared) / (1 + 2 * (len(row) - 1) / seen)), len(known))
        )
    return scores


Near = list[tuple[float, float, Row]]  # how far, how much it counts, and which


def around(point: Row, others: list[Row], features: list[int], nearest: int) -> Near:
    """The nearest; those as far as the last of them share the places that are left."""

    def far(other: Row) -> float:
        return sqrt(fsum((point[i] - other[i]) ** 2 for i in features) * len(point) / len(features))

    pairs = sorted(((far(other), other) for other in others), key=lambda pair: pair[0])
    last = pairs[nearest - 1][0]
    edge, end = last * (1 - 1e-9), last * (1 + 1e-9)
    nearer, tied = sum(d < edge for d, _ in pairs), sum(edge <= d <= end for d, _ in pairs)
    return [
        (d, 1.0 if d < edge else (nearest - nearer) / tied, other) for d, other in pairs if d <= end
    ]


def density(near: Near, own: dict[int, Near]) -> float:
    return fsum(count for _, count, _ in near) / fsum(
        count * max(d, 0.05, own[id(other)][-1][0]) for d, count, other in near
    )


def local_outlier_factor(rows: list[Row], window: int) -> Values:
    scores, block, nearest = [], max(1, window // 4), max(1, min(10, least(window) - 1))
    for t, row in enumerate(rows):
        past_rows, z, known = taught(rows, t, block, window)
        if not known:
            scores.append(nan)
            continue
        points = [
            [0.0 if isnan(value) else value for value in past]
            for past in past_rows
            if not all(map(isnan, past))
        ]
        every = list(range(len(row)))
        own = {
            id(point): around(
                point, [other for other in points if other is not point], every, nearest
            )
            for point in points
        }
        near = around(z, points, known, nearest)
        factor = (
            fsum(count * density(own[id(other)], own) for _, count, other in near)
            / nearest
            / density(near, own)
        )
        scores.append(max(0.0, min(2.25 * sqrt(len(known)) * log(factor), CEILING)))
    return scores


Box = list[tuple[float, float]]  # from where to where, of each feature of a tree


def emptiness(
    z: Row, points: list[Row], few: float, box: Box, halvings: list[int]
) -> tuple[float, float]:
    """(log2 of the density where z is, log2 of the densest place) below one node; the box's rim
    catches all that is beyond.
    """
    depth = 8 - len(halvings)
    if len(points) <= few or not halvings:
        here = log2(max(len(points), 2.0**-4)) + depth
        return here, here
    i = halvings[0]
    low, high = box[i]
    middle = (low + high) / 2
    halves = [
        [point for point in points if (point[i] >= middle) == upper] for upper in (False, True)
    ]
    boxes = [[*box[:i], (low, middle), *box[i + 1 :]], [*box[:i], (middle, high), *box[i + 1 :]]]
    below = [emptiness(z, half, few, part, halvings[1:]) for half, part in zip(halves, boxes)]
    return below[z[i] >= middle][0], max(below[0][1], below[1][1])


def with_changes(rows: list[Row]) -> list[Row]:
    """Each feature, then each one's change since it was last seen."""
    last, out = [nan] * len(rows[0]), []
    for row in rows:
        out.append([*row, *[value - old for value, old in zip(row, last)]])
        last = [old if isnan(value) else value for value, old in zip(row, last)]
    return out


def half_space_trees(plain: list[Row], window: int) -> Values:
    raw, rows, block = [], with_changes(plain), window
    every, few = range(len(rows[0])), min(len(rows[0]), 3)
    trees = [dealt_tree(tree, few, len(rows[0])) for tree in range(25)]
    for t, row in enumerate(rows):
        now = t - t % block
        learned = rows[max(0, now - 2 * window) : now]
        gauges = [centre_and_spread([past[i] for past in learned], window) for i in every]
        z, points = in_spreads(row, gauges), [in_spreads(past, gauges) for past in learned]
        if all(map(isnan, z)):
            raw.append(nan)
            continue
        span = [
            in_spreads(past, gauges) for past in rows[max(0, now - 2 * window - 7 * block) : now]
        ]
        ends = [seen([past[i] for past in span]) or [0.0] for i in every]
        wide = [max(max(end) - min(end), 1.0) * (1 + 2 / 64) for end in ends]
        low = [min(end) - length / 66 for end, length in zip(ends, wide)]
        points = [
            [0.0 if isnan(value) else value for value in point]
            for point in points
            if not all(map(isnan, point))
        ]
        z = [0.0 if isnan(value) else value for value in z]
        total = 25 * fsum(
            48 * few / len(z) * max(0.0, (z[i] - low[i]) / wide[i] - 1, (low[i] - z[i]) / wide[i])
            for i in every
        )
        for chosen, begins, halvings in trees:
            box = [
                (low[i] + begin * wide[i], low[i] + (begin + length) * wide[i])
                for i, (begin, length) in zip(chosen, begins)
            ]
            here, densest = emptiness(
                [z[i] for i in chosen],
                [[point[i] for i in chosen] for point in points],
                0.1 * len(points),
                box,
                halvings,
            )
            total += densest - here
        raw.append(sqrt(total / 25))
    return calibrated(raw, 4 * window)


def dealt_tree(tree: int, few: int, features: int) -> tuple[list[int], Box, list[int]]:
    """(its features; begin and length of each one's box in ranges; which of them each level
    halves).
    """
    deals = [
        int(i)
        for deal in range(75)
        for i in np.random.default_rng((0, 25, deal)).permutation(features)
    ]
    draw = np.random.default_rng((0, tree))
    halvings, centres = draw.integers(few, size=8).tolist(), draw.random(few).tolist()
    return (
        deals[tree * few : (tree + 1) * few],
        [(c - 2 * max(c, 1 - c), 4 * max(c, 1 - c)) for c in centres],
        halvings,
    )


PLAIN: dict[str, Twin] = {
    "nearest neighbours": nearest_neighbours,
    "novelty": novelty,
    "Mahalanobis": mahalanobis,  # type: ignore[dict-item]
    "half-space trees": half_space_trees,  # type: ignore[dict-item]
    "local outlier factor": local_outlier_factor,  # type: ignore[dict-item]
}

TWINS: dict[str, Twin] = {name: with_robust_start(twin) for name, twin in PLAIN.items()}
