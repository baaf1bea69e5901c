"""The ranking of 100,000 series: the time of a page of rows in each order and with each filter.

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
from redline.engine.outbox import Outbox
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


def main() -> None:
    """Print the times for both kinds of series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    streams = parser.parse_args().streams
    for mixed in (False, True):
        show_rankings(streams, mixed)


if __name__ == "__main__":
    main()
