"""After a restart the worst scores of the last hours are those of before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from redline.engine.fleet.earlier_scores import EarlierScores
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.swim_lanes import LanesQuery, SwimLanes
from redline.engine.fleet.worst_scores import WorstScores, ratio_of
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore
from tests.engine.fleet.test_series_restart import START, StoredRig

HOSTS = [f'load{{host="h{i}"}}' for i in range(5)]
STEPS = 60


@pytest.fixture
def rig(tmp_path: Path) -> StoredRig:
    """Return a monitor on a store with steps 30 s apart, in one of which a host fails."""
    rig = StoredRig(tmp_path / "redline.db")
    values = np.random.default_rng(1).normal(size=(STEPS, len(HOSTS)))
    values[50, 2] = 40.0
    numbers = np.array([rig.directory.number(name) for name in HOSTS])
    for step, row in enumerate(values):
        rig.monitor.submit(numbers, np.full(len(HOSTS), START + 30.0 * step), row)
        rig.turn()
    return rig


def levels(worst: WorstScores, ring: int = 1) -> np.ndarray:
    """Return score / threshold of each series in each of the newest cells, NaN = none."""
    seen = worst.rings[ring].columns(30, 1).levels
    return ratio_of(seen[:, : len(HOSTS)].ravel()).reshape(len(seen), -1)


def test_the_lanes_are_there_again_after_a_restart(rig: StoredRig) -> None:
    before = [levels(rig.monitor.worst, ring) for ring in (0, 1)]
    assert np.nanmax(before[1]) > 2 and before[1].shape == (30, 5)
    rig.restart()
    assert rig.monitor.worst.wide.newest is None and not rig.monitor.has_work
    rig.monitor.earlier.begin()
    rig.monitor.earlier.thread.join(10.0)
    rig.send(HOSTS[:1])  # the loop goes on meanwhile
    rig.turn()
    assert not rig.monitor.earlier.found
    for ring, wanted in enumerate(before):
        # scores are stored to a stated precision
        np.testing.assert_allclose(levels(rig.monitor.worst, ring), wanted, rtol=0.02, atol=0.02)
    lanes = SwimLanes(rig.monitor, NameIndex(rig.directory)).table(LanesQuery(label="host"))
    assert lanes.lanes[0].value == "h2" and lanes.found == len(HOSTS)
    rig.monitor.earlier.begin()
    assert not rig.monitor.has_work, "it reads once"


def test_scores_of_the_present_are_not_lost_to_those_of_the_past(rig: StoredRig) -> None:
    rig.restart()
    number = rig.directory.numbers[HOSTS[4]]
    now = START + 30.0 * STEPS
    rig.monitor.worst.record(np.array([number]), np.array([now]), np.array([9.0]), now)
    rig.monitor.earlier.begin()
    rig.monitor.earlier.thread.join(10.0)
    rig.monitor.take_turn(0.0)
    assert ratio_of(rig.monitor.worst.worst_between(now, now + 60))[number] == pytest.approx(
        9, 0.01
    )
    failed = ratio_of(rig.monitor.worst.worst_between(START + 1_500, START + 1_530))
    assert failed[rig.directory.numbers[HOSTS[2]]] > 2


def test_reading_ends_after_its_time_and_when_it_is_stopped(rig: StoredRig) -> None:
    rig.restart()
    asked = []

    def scores_since(since):
        for steps in SqliteStore.scores_since(rig.store, since):
            asked.append(len(steps.step))
            yield steps

    class Slow:
        pass

    slow = Slow()
    slow.scores_since = scores_since
    earlier = EarlierScores(rig.monitor.worst, rig.monitor.roster, slow)  # type: ignore[arg-type]
    thresholds = earlier._thresholds()
    earlier.read(START, thresholds, seconds=-1.0)
    assert len(asked) == 1 and len(earlier.found) == 1, "what was read is taken over"
    earlier.stop()
    earlier.read(START, thresholds)
    assert len(asked) == 2 and len(earlier.found) == 1


def test_the_loop_of_a_monitor_reads_them(rig: StoredRig) -> None:
    rig.store.close()
    store = SqliteStore(rig.path)
    monitor = Monitor({}, store=store)
    monitor.start()
    try:
        worst = monitor.series.worst
        assert monitor.stopping.wait(0.0) is False
        for _ in range(500):
            if worst.wide.newest is not None:
                break
            monitor.stopping.wait(0.01)
        assert np.nanmax(levels(worst)) > 2
    finally:
        assert monitor.stop()
        store.close()
