"""The demo fleet: the same numbers however they are asked for, and a truth that they follow."""

import time
from itertools import islice

import numpy as np
import pytest

from redline.sources.demo_fleet import (
    DEMO_BLOCK,
    DEMO_METRICS,
    FIRST_FAILURE_BLOCK,
    SAME_TIME,
    STAGGER,
    DemoFleet,
)
from redline.sources.series import parse_series

SERIES = 800


def all_failures(fleet, blocks=40):
    return [f for block in range(blocks) for f in fleet.failures(block)]


def test_numbers_do_not_depend_on_what_was_asked_before():
    fleet = DemoFleet(SERIES, 3)
    steps = [0, 5 * DEMO_BLOCK, 7, 5 * DEMO_BLOCK - 1, 90 * DEMO_BLOCK, 7]
    values = [fleet.values(step) for step in steps]
    for step, value in zip(reversed(steps), reversed(values)):
        assert (DemoFleet(SERIES, 3).values(step) == value).all()
    assert (DemoFleet(SERIES, 4).values(7) != values[2]).all()


def test_names_are_canonical_and_differ():
    fleet = DemoFleet(SERIES + 7)
    keys = [parse_series(name) for name in fleet.names]
    assert len(set(fleet.names)) == SERIES + 7
    assert {label for key in keys for label, _ in key.labels} == {"host", "job", "rack"}
    assert all(dict(key.labels)["host"] == fleet.hosts[h] for key, h in zip(keys, fleet.host))


def test_a_series_is_sampled_once_a_period():
    fleet = DemoFleet(SERIES, 1, period=5.0, start=1_000.0)
    assert np.allclose(fleet.times(12) - fleet.times(11), 5.0)
    assert (fleet.times(0) >= 1_000).all() and (fleet.times(0) < 1_005).all()


def test_a_failure_is_of_one_host_and_leaves_some_of_its_series_calm():
    fleet = DemoFleet(SERIES, 5)
    joint = [failure for failure in all_failures(fleet) if failure.joint]
    assert len(joint) > 40
    for failure in joint:
        assert {fleet.hosts[h] for h in fleet.host[failure.members]} == {failure.host}
        assert 0.15 < len(failure.members) / len(DEMO_METRICS) < 0.8
        assert failure.onsets.min() == failure.start
        assert failure.onsets.max() - failure.start <= STAGGER
        assert failure.end > failure.onsets.max()
    spans = [failure.onsets.max() - failure.start for failure in joint]
    assert min(spans) < 10 and max(spans) > 40


def test_other_hosts_fail_in_the_same_seconds():
    fleet = DemoFleet(SERIES, 5)
    blocks = [fleet.failures(block) for block in range(FIRST_FAILURE_BLOCK, 40)]
    assert {sum(failure.joint for failure in failures) for failures in blocks} == {1, 2}
    for failures in blocks:
        starts = [failure.start for failure in failures]
        assert len({failure.host for failure in failures}) == len(failures)
        assert max(starts) - min(starts) <= SAME_TIME
    assert not fleet.failures(FIRST_FAILURE_BLOCK - 1)


def test_members_deviate_from_their_onset_to_the_end_and_all_others_never():
    fleet = DemoFleet(SERIES, 8)
    (failure,) = islice((f for f in all_failures(fleet) if f.joint), 1)
    first = int((failure.start - fleet.start) // fleet.period) - 2
    last = int((failure.end - fleet.start) // fleet.period) + 3
    for step in range(first, last):
        noise = fleet._noise(step // DEMO_BLOCK)[step % DEMO_BLOCK]
        at = fleet.times(step)
        season = fleet.swing * np.sin(2 * np.pi / 86_400 * at + fleet.phase)
        shift = (fleet.values(step) - fleet.level - season) / fleet.spread - noise
        own = at[failure.members]
        active = (failure.onsets <= own) & (own < failure.end)
        wanted = np.where(active, failure.sizes, 0.0)
        assert shift[failure.members] == pytest.approx(wanted, abs=1e-6)
        host = fleet.hosts.index(failure.host)
        calm = np.setdiff1d(np.flatnonzero(fleet.host == host), failure.members)
        assert np.abs(shift[calm]).max() < 1e-6


@pytest.mark.parametrize("series", [1, 3, 41])
def test_a_small_fleet_runs_too(series):
    fleet = DemoFleet(series, 2)
    values = np.array([fleet.values(step) for step in range(5 * DEMO_BLOCK)])
    assert values.shape == (5 * DEMO_BLOCK, series) and np.isfinite(values).all()


def test_a_step_of_5000_series_costs_about_a_millisecond():
    fleet = DemoFleet(5_000, 1)
    best = np.inf
    for block in range(3):
        began = time.process_time()
        for step in range(block * DEMO_BLOCK, (block + 1) * DEMO_BLOCK):
            fleet.values(step)
        best = min(best, (time.process_time() - began) / DEMO_BLOCK)
    assert best < 0.004
