"""The ranking of 100,000 series: the time of a page of rows in each order and with each filter, of
the swim lanes, and of the answer to what was unusual in a period.

`python -m bench.fleet_ranking` prints, for series that are all at one step and for series that are
each at a step of their own, the best and the median of some repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from redline.engine.fleet.ranking import ORDERS, RankingQuery, SeriesRanking
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.fleet.swim_lanes import LanesQuery, SwimLanes
from redline.engine.fleet.worst_scores import WorstScores, level_of
from redline.engine.outbox import Outbox
from redline.incidents.unusual import unusual_between
from redline.sources.directory import SeriesDirectory

STREAMS = 100_000
STEPS = 70  # of each, so that its line is whole
REPEATS = 15


def ranked_series(streams: int, mixed: bool) -> SeriesMonitor:
    """Return a monitor of series with random values; mixed: at 30 different steps."""
    rng = np.random.default_rng(0)
    directory = SeriesDirectory()
    numbers = np.array(
        [
            directory.number(f'node_load1{{host="h{i % 1_000}",job="j{i % 7}",part="{i}"}}')
            for i in range(streams)
        ]
    )
    monitor = SeriesMonitor(directory, Outbox(None))
    for step in range(STEPS):
        late = step < 30 and mixed
        sent = numbers[rng.random(streams) * 30 <= step] if late else numbers
        monitor.submit(sent, np.full(len(sent), 1.7e9 + step), rng.normal(size=len(sent)))
        monitor.process()
        monitor.outbox.flush(0.0, force=True)
        monitor.settle()
    return monitor


def show(name: str, call: Callable[[], object]) -> None:
    """Print the times of repeated calls, and of the first one."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(1_000 * (time.perf_counter() - began))
    print(
        f"  {name}: first {taken[0]:.1f}, best {min(taken):.1f}, median {np.median(taken):.1f} ms",
        flush=True,
    )


def show_rankings(streams: int, mixed: bool) -> None:
    """Print the times of all orders and filters."""
    print(f"{streams:,} series, {'at 30 different steps' if mixed else 'all at one step'}")
    ranking = SeriesRanking(ranked_series(streams, mixed))
    for by in ORDERS:
        show(f"order {by}", partial(ranking.page, RankingQuery(by=by)))
    show("part of a name", partial(ranking.page, RankingQuery('host="H17')))
    show("selector", partial(ranking.page, RankingQuery('{host=~"h17.*",job!="j3"}')))
    numbers = [row.number for row in ranking.page().rows]
    show(f"{len(numbers)} lines", lambda: [ranking.recent(number) for number in numbers])


def fill_hours(worst: WorstScores) -> float:
    """Give each series a score in every cell of six hours; return the end, seconds."""
    rng = np.random.default_rng(1)
    for ring in worst.rings:
        ratio = rng.exponential(0.2, ring.levels.shape[1])
        level = level_of(ratio)
        for row in range(ring.cells):
            ring.levels[row] = np.roll(level, 37 * row)
    return float(((worst.wide.newest or 0) + 1) * worst.wide.seconds)


def show_lanes(streams: int) -> None:
    """Print the times of the lanes of six hours by each label, of the answer, and of a turn."""
    series = ranked_series(streams, False)
    end = fill_hours(series.worst)
    lanes = SwimLanes(series, SeriesRanking(series).index)
    print(f"{streams:,} series, six hours of worst scores")
    for label in ("host", "job", "part", ""):
        wanted = LanesQuery(label, cells=3, wide=True)
        show(f"200 lanes by {label or 'series'}, 6 h", partial(lanes.table, wanted))
        show(f"200 lanes by {label or 'series'}, 20 min", partial(lanes.table, LanesQuery(label)))
    for hours in (6, 1):
        show(f"unusual, {hours} h", partial(unusual_between, lanes, end - 3_600 * hours, end))
    numbers = np.arange(streams)
    turn = (numbers, np.full(streams, end - 1), np.full(streams, 0.5), end)
    show("recording a step of each", partial(series.worst.record, *turn))
    print(f"  {series.worst.nbytes / streams:,.0f} bytes a series")


def main() -> None:
    """Print the times for both kinds of series, and of the lanes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    streams = parser.parse_args().streams
    for mixed in (False, True):
        show_rankings(streams, mixed)
    show_lanes(streams)


if __name__ == "__main__":
    main()
