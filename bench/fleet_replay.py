"""A day of many series, replayed at speed: memory, disk and rows are judged.

`python -m bench.fleet_replay` (about five minutes) submits 24 hours of 10,000 series at 15 s, with
machines that fail together, to the real monitor with a real store. The store may keep a quarter of
the day, so that retention deletes for three quarters of it. A line is printed for each two hours;
at the end the counters are compared with the rows, and rows with what was sent. The exit code is 1
where a figure is above its limit.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from redline.engine.monitor import Monitor
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents
from redline.sources.demo_fleet import DemoFleet
from redline.sources.directory import SeriesDirectory
from redline.storage.retention import Retention
from redline.storage.series_segments import load_segments
from redline.storage.sqlite import SqliteStore

PERIOD = 15.0  # seconds between two samples of a series
DECIMALS = 2  # of the values
LOOK_EVERY = 7_200.0  # seconds of the replay between two lines
CHECKED = 40  # series whose stored points are compared with what was sent
MEMORY_GROWTH = 1.05  # last third against the second, at most
BYTES_A_POINT = 10.0  # on the disk, value and score, of series that all change
ROWS_KEPT = 1.25  # times what retention is to leave


class Replay:
    """A demo fleet that is submitted step by step, and what is measured meanwhile."""

    def __init__(self, path: Path, series: int, hours: float) -> None:
        self.fleet = DemoFleet(series, seed=11, period=PERIOD)
        self.steps = int(hours * 3_600 / PERIOD)
        self.path = path
        self.keep = series * self.steps // 4  # points
        self.store = SqliteStore(path, Retention(rows=self.keep))
        recorder = IncidentRecorder(Incidents(), self.store)
        directory = SeriesDirectory(max_series=series)
        end = self.fleet.start + PERIOD * (self.steps + 2)
        self.monitor = Monitor({}, wall=lambda: end, store=recorder, directory=directory)
        self.monitor.listeners.append(recorder.on_batches)
        self.monitor.process_pushed()
        self.numbers = np.array([directory.number(name) for name in self.fleet.names])
        self.lines: list[tuple[float, float, int]] = []  # MiB in memory and on disk, rows

    def values(self, step: int) -> np.ndarray:
        """Return a step of all series, (series,)."""
        return np.round(self.fleet.values(step), DECIMALS)

    def run(self) -> None:
        """Submit all steps, and look now and then."""
        began = time.perf_counter()
        every = int(LOOK_EVERY / PERIOD)
        print(
            "| hour | points | points/s | memory | file | points kept |\n|---|---|---|---|---|---|"
        )
        for step in range(self.steps):
            sent = self.monitor.submit_series(
                self.numbers, self.fleet.times(step), self.values(step)
            )
            self.monitor.process_pushed()
            for _, receipt in sent.taken:
                assert receipt.result(0).accepted == len(self.numbers)
            assert not sent.refused
            if (step + 1) % every == 0:
                pace = (step + 1) * len(self.numbers) / (time.perf_counter() - began)
                self.look(step + 1, pace)

    def look(self, steps: int, pace: float) -> None:
        """Let retention run as it does once a minute, and print a line."""
        self.store.sweeper.sweep(time.time())
        while self.store.sweeper.unfinished:
            self.store.sweeper.sweep(time.time())
        gc.collect()
        files = self.path.parent.glob(self.path.name + "*")
        size = sum(file.stat().st_size for file in files) / 2**20
        self.lines.append((resident(), size, self.rows()))
        memory, size, rows = self.lines[-1]
        hours = steps * PERIOD / 3_600
        points = steps * len(self.numbers)
        cells = f"{points:,} | {pace:,.0f} | {memory:.0f} MiB | {size:.0f} MiB | {rows:,}"
        print(f"| {hours:.0f} | {cells} |", flush=True)

    def rows(self) -> int:
        """Return the points that the store holds."""
        with self.store.reading() as c:
            return sum(segment.n for segment in load_segments(c) if segment.visible)

    def judge(self) -> bool:
        """Print the figures against their limits; return whether all hold."""
        memory, size, rows = (np.array(column, float) for column in zip(*self.lines))
        third = max(1, len(memory) // 3)
        growth = memory[-third:].mean() / memory[-2 * third : -third].mean()
        totals = self.monitor.series.totals
        sent = self.steps * len(self.numbers)
        wrong = self.wrong_rows()
        return all(
            [
                judged("memory, last third to the second", growth, MEMORY_GROWTH),
                judged("points kept, to what is to be kept", rows.max() / self.keep, ROWS_KEPT),
                judged("bytes a point in the file", size[-1] * 2**20 / rows[-1], BYTES_A_POINT),
                judged("points missing in the counters", sent - totals.points, 0),
                judged(f"points of {CHECKED} series wrong or missing in the store", wrong, 0),
            ]
        )

    def wrong_rows(self) -> int:
        """Return the stored points of some series that differ from what was sent, or are not there.

        What is stored must reach the counters without a hole.
        """
        places = np.linspace(0, len(self.numbers) - 1, CHECKED).astype(int)
        kept = [
            self.store.read_series(int(number), None, None, self.steps)
            for number in self.numbers[places]
        ]
        first = min(int(steps.step[0]) for steps in kept)
        sent = np.stack([self.values(step)[places] for step in range(first, self.steps)])
        wrong = 0
        for column, steps in enumerate(kept):
            number = int(self.numbers[places[column]])
            own = np.arange(int(steps.step[0]), self.monitor.series.summary(number).steps)
            if not np.array_equal(steps.step, own):
                wrong += abs(len(own) - len(steps.step)) or len(own)
                continue
            wrong += int(np.count_nonzero(steps.value != sent[own[0] - first :, column]))
        return wrong


def resident() -> float:
    """Return the memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / 2**20


def judged(words: str, found: float, limit: float) -> bool:
    """Print a figure beside its limit; return whether it holds."""
    good = found <= limit
    print(f"{words}: {found:,.4g} (at most {limit:,.4g}) {'met' if good else 'MISSED'}")
    return good


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(Path(folder) / "redline.db", chosen.series, chosen.hours)
        replay.run()
        good = replay.judge()
        replay.store.close()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
