"""The speed table: every figure beside its peer, measured in the same run.

    python bench/speed.py            all rows, about three minutes
    python bench/speed.py tick live  some of tick, live, history, track, right, memory, forest

Peers come with `pip install -e .[bench]`; one that is not installed is shown as "-". Figures are
medians unless they say otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from detectors import DETECTORS, Detector, RollingZ
from redline.engine.stacking import STACKABLE

MANY = 100_000  # streams in a tick, or steps in a history
POINTS = 2_000  # given one by one
RNG = np.random.default_rng(0)
FAST = STACKABLE - {"seasonal"}  # detectors with a goal of microseconds; a season costs a transform


class Row(NamedTuple):
    """One line of the table."""

    what: str
    goal: str
    ours: str
    peer: str = "-"  # its name and its figure


def library(name: str) -> Any:
    """Return a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def seconds(run: Callable[[], object], times: int) -> np.ndarray:
    """Return what each of so many runs took, (times,) seconds."""
    took = np.empty(times)
    for i in range(times):
        began = time.perf_counter()
        run()
        took[i] = time.perf_counter() - began
    return took


def shaped(make: type[Detector], x: np.ndarray) -> np.ndarray:
    """Return (steps, streams) as the detector takes it; a joint one gets one feature."""
    return x[..., None] if make.joint else x


def one_by_one(learn: Callable[[float], object], points: int = POINTS) -> str:
    """Return microseconds per point of a peer that takes floats, the median of batches of 50."""
    values = RNG.normal(size=points).tolist()
    batches = [values[i : i + 50] for i in range(0, points, 50)]
    took = [
        seconds(lambda batch=batch: [learn(value) for value in batch], 1)[0] / len(batch)
        for batch in batches
    ]  # type: ignore[misc]
    return f"{np.median(took) * 1e6:.3g} µs"


# Peers that take one value at a time: score it, then learn it


def river_rolling(window: int) -> Callable[[float], object]:
    river = library("river.stats")
    utils = library("river.utils")
    mean = utils.Rolling(river.Mean(), window)
    variance = utils.Rolling(river.Var(), window)

    def learn(value: float) -> float:
        spread = variance.get()
        score = abs(value - mean.get()) / math.sqrt(spread) if spread else 0.0
        mean.update(value)
        variance.update(value)
        return score

    return learn


def river_weighted() -> Callable[[float], object]:
    river = library("river.stats")
    mean = river.EWMean(fading_factor=0.02)
    variance = river.EWVar(fading_factor=0.02)

    def learn(value: float) -> float:
        spread = variance.get()
        score = abs(value - mean.get()) / math.sqrt(spread) if spread > 0 else 0.0
        mean.update(value)
        variance.update(value)
        return score

    return learn


def river_gaussian() -> Callable[[float], object]:
    scorer = library("river.anomaly").GaussianScorer(window_size=500)

    def learn(value: float) -> float:
        score: float = scorer.score_one(None, value)
        scorer.learn_one(None, value)
        return score

    return learn


def river_trees(trees: int, height: int) -> Callable[[float], object]:
    model = library("river.anomaly").HalfSpaceTrees(
        n_trees=trees, height=height, window_size=250, limits={"x": (-4, 4)}, seed=1
    )

    def learn(value: float) -> float:
        score: float = model.score_one({"x": value})
        model.learn_one({"x": value})
        return score

    return learn


def pysad_neighbours() -> Callable[[float], object]:
    model = library("pysad.models").KNNCAD(probationary_period=100)
    return lambda value: model.fit_score_partial(np.array([value]))


def sklearn_forest() -> Callable[[float], object]:
    forest = (
        library("sklearn.ensemble").IsolationForest(random_state=0).fit(RNG.normal(size=(256, 1)))
    )
    return lambda value: forest.score_samples(np.array([[value]]))


def pyod_ecod() -> Callable[[float], object]:
    model = library("pyod.models.ecod").ECOD().fit(RNG.normal(size=(256, 1)))
    return lambda value: model.decision_function(np.array([[value]]))


def stumpy_online() -> Callable[[float], object]:
    stream = library("stumpy").stumpi(RNG.normal(size=500), m=20, egress=True)
    return stream.update


PEERS: tuple[
    tuple[str, str, Callable[[], Callable[[float], object]], int], ...
] = (  # library, what, maker, points
    ("river", "EW mean/var z", river_weighted, POINTS),
    ("river", "rolling mean/var z, W=500", lambda: river_rolling(500), POINTS),
    ("river", "GaussianScorer", river_gaussian, POINTS),
    ("river", "HalfSpaceTrees 10x8", lambda: river_trees(10, 8), POINTS),
    ("river", "HalfSpaceTrees 25x15", lambda: river_trees(25, 15), 500),
    ("pysad", "KNNCAD", pysad_neighbours, 1000),
    ("stumpy", "stumpi, m=20", stumpy_online, 500),
    ("sklearn", "IsolationForest, one row", sklearn_forest, 100),
    ("pyod", "ECOD, one row", pyod_ecod, 100),
)


# Sections


def tick() -> Iterator[Row]:
    """One step of 100,000 streams."""
    river = one_by_one(river_rolling(120)) if library("river") else ""
    peer = (
        f"river, one by one: about {float(river.split()[0]) * MANY / 1e3:.0f} ms" if river else "-"
    )
    notes = {
        "rolling z-score": "<= 3 ms, worst <= 60 ms",
        "EWMA": "<= 1 ms",
        "CUSUM": "<= 1 ms; to EWMA its two sums add 12 passes",
    }
    for name, goal in notes.items():
        detector = DETECTORS[name]()
        x = RNG.normal(size=(8, MANY))
        for i in range(130):
            detector.update(x[i % 8 : i % 8 + 1])
        took = 1e3 * np.array(
            [
                seconds(lambda row=x[i % 8 : i % 8 + 1]: detector.update(row), 1)[0]  # noqa: B023
                for i in range(250)
            ]
        )
        yield Row(
            f"{name}, {MANY:,} streams, one tick",
            goal,
            f"{np.median(took):.2f} ms, best {took.min():.2f}, worst {took.max():.1f}",
            peer,
        )
        peer = "-"


def live() -> Iterator[Row]:
    """One value of one stream through `update`."""
    for name, make in DETECTORS.items():
        detector = make()
        x = shaped(make, RNG.normal(size=(3 * POINTS, 1)))
        detector.fit(x[:POINTS])
        took = [
            seconds(lambda row=x[i : i + 1]: detector.update(row), 1)[0]  # noqa: B023
            for i in range(POINTS, 3 * POINTS)
        ]
        goal = "p50 <= 30 µs" if name in FAST else ""
        yield Row(
            f"{name}, one value",
            goal,
            f"p50 {np.median(took) * 1e6:.1f} µs, p99 {np.quantile(took, 0.99) * 1e6:.0f} µs",
        )
    for package, what, make_peer, points in PEERS:
        yield Row(
            f"peer: {package} {what}",
            "",
            "",
            one_by_one(make_peer(), points) if library(package) else "-",
        )


def history() -> Iterator[Row]:
    """100,000 steps of one stream at once."""
    x = RNG.normal(size=(MANY, 1))
    for window in (20, 120, 1440):
        ours = seconds(lambda: RollingZ(window=window).update(x), 7)  # noqa: B023
        yield Row(
            f"rolling z-score, history, W={window}",
            "<= 70 ns/point",
            f"{np.median(ours) / MANY * 1e9:.0f} ns/point",
            batches(x[:, 0], window),
        )
    peer = "-"
    if pandas := library("pandas"):
        few = pandas.Series(x[:POINTS, 0]).rolling(51)
        took = seconds(
            lambda: few.apply(lambda w: np.median(np.abs(w - np.median(w))), raw=True), 1
        )
        peer = f"pandas rolling.apply {took[0] / POINTS * 1e9:,.0f} ns"
    for name in ("median and MAD", "interquartile range"):
        took = seconds(lambda: DETECTORS[name](window=51).update(x), 5)  # noqa: B023
        ours = f"{np.median(took) / MANY * 1e9:.0f} ns/point, best {took.min() / MANY * 1e9:.0f}"
        yield Row(f"{name}, history, W=51", "<= 200 ns/point", ours, peer)
        peer = "-"
    took = seconds(
        lambda: DETECTORS["ensemble"]().update(shaped(DETECTORS["ensemble"], x[:20_000])), 2
    )
    yield Row(
        "ensemble, history", ">= 100,000 points/s", f"{20_000 / np.median(took):,.0f} points/s"
    )


def batches(x: np.ndarray, window: int) -> str:
    """Return nanoseconds per point of the peers' rolling z-scores, each step in its own window."""
    found = []
    if bottleneck := library("bottleneck"):
        took = seconds(
            lambda: (x - bottleneck.move_mean(x, window)) / bottleneck.move_std(x, window), 5
        )
        found.append(f"bottleneck {np.median(took) / MANY * 1e9:.1f} ns")
    if pandas := library("pandas"):
        series = pandas.Series(x)
        took = seconds(
            lambda: (series - series.rolling(window).mean()) / series.rolling(window).std(), 5
        )
        found.append(f"pandas {np.median(took) / MANY * 1e9:.1f} ns")
    return ", ".join(found) or "-"


def track() -> Iterator[Row]:
    """A new detector over the buffer of a stream: 10,000 steps, one feature."""
    x = RNG.normal(size=(10_000, 1))
    for name, make in DETECTORS.items():
        took = seconds(lambda: make().update(shaped(make, x)), 3)  # noqa: B023
        yield Row(
            f"{name}, 10,000 steps",
            "<= 10 ms" if name in FAST else "<= 1 s",
            f"{np.median(took) * 1e3:.1f} ms",
        )


def right() -> Iterator[Row]:
    """Rolling variance where it is hard."""
    grid = np.round(RNG.normal(size=(3000, 1)) * 2**20) / 2**20
    spike = grid.copy()
    spike[1000] = 1e12
    shift = grid.copy()
    shift[1000:] += 1e9
    truth = spread(grid)[:, 0]
    for what, x, first in (
        ("at 1e9", grid + 1e9, 121),
        ("120 steps after a spike of 1e12", spike, 1121),
        ("120 steps after a shift by 1e9", shift, 1121),
    ):
        ours = np.max(np.abs(spread(x)[first:, 0] / truth[first:] - 1))
        theirs = [
            f"{name} {np.nanmax(np.abs(std(x[:, 0])[first - 1 : -1] / truth[first:] - 1)):.1g}"
            for name, std in rolling_stds().items()
        ]
        yield Row(
            f"rolling std, relative error {what}",
            "<= 1e-6",
            f"{ours:.1g}",
            ", ".join(theirs) or "-",
        )
    flat = np.full((500, 1), 0.1)
    theirs = [f"{name} {np.nanmax(std(flat[:, 0])):.1g}" for name, std in rolling_stds().items()]
    yield Row(
        "rolling std of a constant",
        "0",
        f"{spread(flat)[121:].max():.0g}",
        ", ".join(theirs) or "-",
    )
    whole = RollingZ().update(spike)
    cut = RollingZ()
    same = (
        whole.tobytes()
        == np.concatenate([cut.update(part) for part in np.array_split(spike, 173)]).tobytes()
    )
    yield Row(
        "rolling z-score in 173 chunks",
        "no bit changes",
        "no bit changes" if same else "BITS CHANGE",
    )


def rolling_stds() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the peers' rolling standard deviations over 120 steps, each step in its own window."""
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if bottleneck := library("bottleneck"):
        found["bottleneck"] = lambda x: bottleneck.move_std(x, 120)
    if pandas := library("pandas"):
        found["pandas"] = lambda x: pandas.Series(x).rolling(120).std(ddof=0).to_numpy()
    if library("river"):
        found["river"] = river_stds
    return found


def river_stds(x: np.ndarray) -> np.ndarray:
    """Return river's rolling standard deviations, computed value by value."""
    variance = library("river.utils").Rolling(library("river.stats").Var(ddof=0), 120)
    stds = []
    for value in x.tolist():
        variance.update(value)
        stds.append(math.sqrt(max(variance.get(), 0.0)))
    return np.array(stds)


def spread(x: np.ndarray) -> np.ndarray:
    """Return the rolling standard deviation before each step, 0 where nothing moved."""
    found = RollingZ().advance(x).spread
    assert found is not None
    return np.where(found > 1e-100, found, 0.0)


def memory() -> Iterator[Row]:
    """What a detector remembers of one stream at its default window."""
    for name, make in DETECTORS.items():
        detector = make().fit(shaped(make, RNG.normal(size=(3000, 4))))
        held = sum(value.nbytes for value in (detector.state or {}).values()) / 4
        yield Row(f"{name}, state of one stream", "", f"{held / 1024:.2f} KiB")
    for package, what, make_peer, points in PEERS[:6]:
        yield Row(
            f"peer: {package} {what}",
            "",
            "",
            traced(make_peer, points) if library(package) else "-",
        )


def traced(make: Callable[[], Callable[[float], object]], points: int) -> str:
    """Return the memory of a peer after so many points, as Python's allocator counts it."""
    make()
    tracemalloc.start()
    learn = make()
    for value in RNG.normal(size=points).tolist():
        learn(value)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return f"{held / 1024:,.1f} KiB"


def forest() -> Iterator[Row]:
    """Half-space trees beside river's: speed, memory, and how well they separate anomalies."""
    if "half-space trees" not in DETECTORS:
        return
    x, truth = clusters(4000)
    make = DETECTORS["half-space trees"]
    took = seconds(lambda: make().update(x[:, None, :]), 5)
    crowd = make().fit(np.repeat(x[:500, None, :], 1000, axis=1))
    held = sum(value.nbytes for value in (crowd.state or {}).values()) / 1000
    auc = area(make().update(x[:, None, :])[:, 0], truth)
    peer = river_forest(x, truth) if library("river") else ("-", "-")
    ours = (
        f"{np.median(took) / len(x) * 1e6:.2f} µs/point, half of it to lay the trees anew "
        "every 120 steps"
    )
    yield Row(
        "half-space trees 25x8, history", ">= 10x river; of 10x8 it is 3 to 4x", ours, peer[0]
    )
    size = f"river 25x15 {traced(lambda: river_trees(25, 15), 300)}" if library("river") else "-"
    yield Row(
        "half-space trees, memory of a stream, 1,000 streams",
        "<= 1/50 of river",
        f"{held / 1024:,.0f} KiB",
        size,
    )
    yield Row("half-space trees, ROC AUC", "within 0.01 of river", f"{auc:.4f}", peer[1])


def clusters(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two clusters in three features with 1 % of the steps far from both.

    x (steps, features), truth (steps,).
    """
    rng = np.random.default_rng(5)
    x = rng.normal(size=(steps, 3)) * 0.3 + rng.choice([-1.0, 1.0], size=(steps, 1))
    truth = rng.random(steps) < 0.01
    x[truth] = rng.uniform(-3, 3, size=(truth.sum(), 3))
    return x, truth


def river_forest(x: np.ndarray, truth: np.ndarray) -> tuple[str, str]:
    """Return (time, AUC) of river's half-space trees of two sizes on the same steps."""
    times = []
    areas = []
    for trees, height in ((25, 15), (10, 8)):
        model = library("river.anomaly").HalfSpaceTrees(
            n_trees=trees,
            height=height,
            window_size=250,
            limits=dict.fromkeys("abc", (-4, 4)),
            seed=1,
        )
        scores = []
        began = time.perf_counter()
        for row in x.tolist():
            named = dict(zip("abc", row))
            scores.append(model.score_one(named))
            model.learn_one(named)
        times.append(
            f"{trees}x{height} {(time.perf_counter() - began) / len(x) * 1e6:.0f} µs/point"
        )
        areas.append(f"{trees}x{height} {area(np.array(scores), truth):.4f}")
    return f"river {', '.join(times)}", f"river {', '.join(areas)}"


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve; steps without a score are left out."""
    known = scores == scores
    scores = scores[known]
    truth = truth[known]
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    hits = truth.sum()
    return float((ranks[truth].sum() - hits * (hits + 1) / 2) / (hits * (len(truth) - hits)))


SECTIONS = {
    section.__name__: section for section in (tick, live, history, track, right, memory, forest)
}


def main() -> None:
    """Print the sections asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", choices=[[], *SECTIONS], help="all of them by default"
    )
    for name in parser.parse_args().sections or SECTIONS:
        print(
            f"\n### {name}: {(SECTIONS[name].__doc__ or '').strip()}\n\n| figure | "
            "goal | measured | peer |\n|---|---|---|---|"
        )
        for row in SECTIONS[name]():
            print("| " + " | ".join(row) + " |", flush=True)
    print(
        f"\nPython {platform.python_version()}, numpy {np.__version__}, "
        f"{os.cpu_count()} cores, {platform.machine()}."
    )


if __name__ == "__main__":
    main()
