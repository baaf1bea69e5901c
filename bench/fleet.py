"""The fleet: time of a tick and of a push, and memory of a stream; `python -m bench.fleet`.

Window 120, 600 steps at hand, values float64, scores kept as float32; nothing is stored. Times are
those of one core, so that other programs disturb them little; best, median and worst of many are
printed, since some ticks close a block of all streams at once. `--costly` prints only the table of
the detectors that step in cohorts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from detectors import DETECTORS
from redline.engine.fleet.fleets import START_STEPS, Fleet, GridFleet, SequenceFleet
from redline.engine.fleet.single_step import STEPPED
from redline.settings import Settings

WINDOW = 120  # steps
STREAMS = 100_000
FEW = 5_000
CAPACITY = 600  # steps at hand
MEASURED = 130  # ticks or pushes, more than a window
DETECTORS_SHOWN = ("rolling z-score", "EWMA")
OTHER_PHASES = 0.2  # share of the streams
COSTLY_STREAMS = 1_000
COSTLY_STEPS = 8_448  # steps of each before the ticks are measured: the memory of seasons is full
DISTINCT = 10  # streams of which all others are copies at first
COSTLY_TICKS = 1_024  # two searches for seasons


def resident_bytes() -> int:
    """Return the memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


class DetectorClock:
    """Count the seconds that a fleet spends in its detector."""

    def __init__(self, fleet: Fleet) -> None:
        self.seconds = 0.0
        self.step = fleet.detector.step
        fleet.detector.step = self.timed  # type: ignore[method-assign]

    def timed(self, *arguments: np.ndarray) -> tuple[np.ndarray, ...]:
        """Do what the detector does."""
        began = time.process_time()
        verdict = self.step(*arguments)
        self.seconds += time.process_time() - began
        return verdict


def show_ticks(name: str, streams: int, late: float = 0.0) -> None:
    """Print the times of ticks of all streams, a share of which has joined at other ticks."""
    rng = np.random.default_rng(0)
    fleet = GridFleet(Settings(name, WINDOW), CAPACITY)
    fleet.join(streams)
    for column in rng.permutation(streams)[: int(late * streams)]:
        fleet.counters["step"][column] = rng.integers(WINDOW)  # as good as another phase
    clock = DetectorClock(fleet)
    for step in range(2 * START_STEPS):
        fleet.tick(float(step), rng.normal(size=streams))
    whole, part = [], []
    for step in range(MEASURED):
        values = rng.normal(size=streams)
        clock.seconds = 0.0
        began = time.process_time()
        fleet.tick(float(step), values)
        whole.append(1000 * (time.process_time() - began))
        part.append(1000 * clock.seconds)
    phases = f", {late:.0%} at other phases" if late else ""
    print(
        f"tick of {streams:,} streams, {name}{phases}: best {min(whole):.1f}"
        f" median {np.median(whole):.1f} worst {max(whole):.1f} ms, of which detector best"
        f" {min(part):.1f} median {np.median(part):.1f} worst {max(part):.1f} ms",
        flush=True,
    )


def costly_values(rng: np.random.Generator, step: int, streams: int) -> np.ndarray:
    """Return a value of each stream, (streams,): noise on seasons of 20 to 200 steps."""
    season = 20 * (1 + np.arange(streams) % DISTINCT)
    return 3 * np.sin(2 * np.pi * step / season) + rng.normal(size=streams)


def aged_fleet(chosen: Settings) -> GridFleet:
    """Return a fleet of streams that have taken many steps, all at the same."""
    rng = np.random.default_rng(0)
    few = GridFleet(chosen, CAPACITY)
    few.join(DISTINCT)
    for step in range(COSTLY_STEPS):
        few.tick(float(step), costly_values(rng, step, DISTINCT))
    states = few.copy_columns(few.columns)
    fleet = GridFleet(chosen, CAPACITY)
    for _ in range(COSTLY_STREAMS // DISTINCT):
        fleet.paste_columns(fleet.join(DISTINCT), states)
    return fleet


def show_costly_ticks(name: str) -> None:
    """Print a row of the table: milliseconds of a tick of streams that step in cohorts."""
    chosen = Settings(name, WINDOW)
    fleet = aged_fleet(chosen)
    rng = np.random.default_rng(1)
    taken = []
    for step in range(COSTLY_STEPS, COSTLY_STEPS + COSTLY_TICKS):
        values = costly_values(rng, step, COSTLY_STREAMS)
        began = time.process_time()
        fleet.tick(float(step), values)
        taken.append(1000 * (time.process_time() - began))
    figures = (np.median(taken), np.percentile(taken, 99), max(taken))
    cells = " | ".join(f"{figure:.1f}" for figure in figures)
    print(f"| {name} | {cells} | {fleet.nbytes / COSTLY_STREAMS / 1000:,.0f} |", flush=True)


def show_costly() -> None:
    """Print the table of the detectors that step in cohorts."""
    print(
        f"| {COSTLY_STREAMS:,} streams, window {WINDOW} | median ms a tick | 99 % | worst |"
        " kB a stream |\n|---|---|---|---|---|"
    )
    for name in DETECTORS:
        if name not in STEPPED:
            show_costly_ticks(name)


def show_pushes(name: str, streams: int, shuffled: bool, mixed: bool) -> None:
    """Print the pace of pushes of one point of each stream."""
    rng = np.random.default_rng(0)
    fleet = SequenceFleet(Settings(name, WINDOW), CAPACITY)
    columns = fleet.join(streams)
    if mixed:
        ahead = columns[rng.random(streams) < OTHER_PHASES]
        for lead in range(WINDOW):  # each of those is at a phase of its own
            some = ahead[np.arange(len(ahead)) % WINDOW >= lead]
            fleet.push(some, np.full(len(some), float(lead)), rng.normal(size=len(some)))
    for step in range(START_STEPS):
        fleet.push(columns, np.full(streams, float(step)), rng.normal(size=streams))
    if shuffled:
        columns = rng.permutation(columns)
    taken = []
    for step in range(MEASURED):
        times = np.full(streams, float(step))
        values = rng.normal(size=streams)
        began = time.process_time()
        fleet.push(columns, times, values)
        taken.append(time.process_time() - began)
    order = "shuffled" if shuffled else "in order"
    phases = f"{OTHER_PHASES:.0%} at other phases" if mixed else "one phase"
    best, median = (f"{streams / t:,.0f}" for t in (min(taken), float(np.median(taken))))
    print(
        f"push of {streams:,}, {name}, {order}, {phases}: {best} points/s at best, {median} median"
        f" ({1000 * np.median(taken):.1f} ms, worst {1000 * max(taken):.1f})",
        flush=True,
    )


def show_memory(name: str, clock: type[GridFleet | SequenceFleet]) -> None:
    """Fill a fleet past its start and its history, and print the bytes of a stream."""
    before = resident_bytes()
    fleet = clock(Settings(name, WINDOW), CAPACITY)
    columns = fleet.join(STREAMS)
    values = np.zeros(STREAMS)
    for step in range(CAPACITY):
        if isinstance(fleet, GridFleet):
            fleet.tick(float(step), values)
        else:
            fleet.push(columns, np.full(STREAMS, float(step)), values)
    print(
        f"memory of a stream, {fleet.clock}, {name}: {fleet.nbytes / STREAMS / 1000:.2f} kB of"
        f" arrays, {(resident_bytes() - before) / STREAMS / 1000:.2f} kB more in the process",
        flush=True,
    )


def main() -> None:
    """Print all figures, or only those of the costly detectors."""
    if "--costly" in sys.argv:
        show_costly()
        return
    for name in DETECTORS_SHOWN:
        for clock in (GridFleet, SequenceFleet):
            show_memory(name, clock)
        for late in (0.0, OTHER_PHASES):
            show_ticks(name, STREAMS, late)
        for streams in (FEW, STREAMS):
            for shuffled in (False, True):
                for mixed in (False, True):
                    show_pushes(name, streams, shuffled, mixed)
    show_costly()


if __name__ == "__main__":
    main()
