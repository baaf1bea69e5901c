"""kill -9 while series are pushed: what was acknowledged is there once, with the same bits after.

Run as a program, this file is the service that is killed: it pushes into a monitor of its own, and
prints each round that is acknowledged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from redline.engine.monitor import Monitor
from redline.engine.track import Track
from redline.incidents.recorder import IncidentRecorder
from redline.incidents.registry import Incidents
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory
from redline.storage.opening import open_database

START = 1_767_571_200.0  # seconds since the Unix epoch
SERIES = 3_000  # more than a tile of states
ROUNDS = 100_000
SETTINGS = Settings()  # of every series; a rolling window has the largest state
CHECKED = (0, 1, 17, 2_047, 2_048, 2_999)


def values(step: int) -> np.ndarray:
    """Return the values of all series at a step, (SERIES,)."""
    found = np.random.default_rng(step).normal(20, 1, SERIES)
    found[step % SERIES] = 90.0
    return found


def open_monitor(db: Path | str) -> Monitor:
    """Return a monitor on the store, with its series restored."""
    recorder = IncidentRecorder(Incidents(), open_database(db))
    monitor = Monitor({}, wall=lambda: START + 10**7, store=recorder)
    monitor.series.settings = SETTINGS
    monitor.listeners.append(recorder.on_batches)
    monitor.process_pushed()
    assert monitor.series.restored
    return monitor


def push(db: Path | str, first: int) -> None:
    """Push from a round on, in requests of a third of the series, and print what is acknowledged.

    The round before is sent again: its points are repeats.
    """
    monitor = open_monitor(db)
    numbers = np.array([monitor.series.directory.number(f"s{i}") for i in range(SERIES)])
    for step in range(max(0, first - 1), ROUNDS):
        for part in np.array_split(np.arange(SERIES), 3):
            times = np.full(len(part), START + step)
            found = monitor.submit_series(numbers[part], times, values(step)[part])
            monitor.process_pushed()
            counts = found.taken[0][1].result(0)
            assert counts.late == 0 and counts.accepted + counts.repeated == len(part)
        print(step + 1, flush=True)


def kill_after(db: Path | str, first: int, seconds: float) -> int:
    """Push from a round on, kill the process after a while, return the rounds acknowledged."""
    command = [sys.executable, __file__, str(db), str(first)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    acknowledged = int(process.stdout.readline())  # it is up
    time.sleep(seconds)
    process.kill()
    rest = process.stdout.read().split("\n")
    process.wait()
    process.stdout.close()
    whole = [line for line in rest[:-1] if line]  # the last line may be cut
    return int(whole[-1]) if whole else acknowledged


@pytest.mark.parametrize(
    "kills",
    [2, pytest.param(int(os.environ.get("KILLS", 25)), marks=pytest.mark.hardship)],
    ids=["few", "many"],
)
def test_what_was_acknowledged_outlives_kills(db: Path | str, kills: int) -> None:
    draw = np.random.default_rng(5)
    rounds = 0
    back = []
    for _ in range(kills):
        rounds = max(rounds, kill_after(db, rounds, float(draw.uniform(0.3, 1.5))))
        began = time.perf_counter()
        monitor = open_monitor(db)
        back.append(time.perf_counter() - began)
        check(monitor, rounds)
        monitor.series.store.store.close()
    print(f"{kills} kills, {rounds * SERIES:,} points, back within {max(back):.1f} s")


def check(monitor: Monitor, rounds: int) -> None:
    """Compare some series with what was sent, and their states with tracks of their own."""
    directory: SeriesDirectory = monitor.series.directory
    store = monitor.series.store
    assert store is not None
    for i in CHECKED:
        number = directory.numbers[f"s{i}"]
        stored = store.read_series(number, None, None, ROUNDS)
        steps = len(stored.step)
        assert steps >= rounds, f"s{i} lost acknowledged points"
        assert stored.step.tolist() == [*range(steps)], f"s{i} has a point twice"
        assert stored.time.tolist() == [START + step for step in range(steps)]
        assert stored.value.tolist() == [float(values(step)[i]) for step in range(steps)]
        alone = Track(SETTINGS, (0.0,), 0)
        alone.advance(stored.value[:, None])
        fleet, column = monitor.series.roster.fleet_of(number)
        for name, array in fleet.copy_state(column).items():
            np.testing.assert_array_equal(array, alone.copy_state()[name], name)


if __name__ == "__main__":
    push(sys.argv[1], int(sys.argv[2]))
