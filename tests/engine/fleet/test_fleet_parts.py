"""The parts of a fleet: selections, column arrays, cohorts and the memory of the alarm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DETECTORS, Alarm
from redline.engine.fleet.cohorts import CohortDetector, StateLayout, cohort_detector
from redline.engine.fleet.columns import ColumnArrays
from redline.engine.fleet.fleets import GridFleet, SequenceFleet
from redline.engine.fleet.selection import select
from redline.engine.fleet.single_step import alarm_step
from redline.settings import Settings


@pytest.mark.parametrize(
    ("columns", "where"),
    [
        ([4, 5, 6], slice(4, 7)),
        ([4], slice(4, 5)),
        ([4, 6, 5, 7], None),
        ([7, 6, 5], None),
        ([1, 2, 4], None),
    ],
)
def test_neighbours_are_selected_as_a_slice(columns: list[int], where: slice | None) -> None:
    chosen = select(np.array(columns), np.full(9, 3))
    assert chosen.where == where if where else chosen.where is chosen.columns
    assert chosen.steps == 3


def test_streams_at_other_steps_read_and_write_rows_of_their_own() -> None:
    chosen = select(np.array([2, 3, 4]), np.array([0, 0, 7, 8, 10]))
    array = np.arange(20).reshape(4, 5)
    assert chosen.row(4).tolist() == [3, 0, 2]
    assert chosen.read(array, chosen.row(4)).tolist() == [17, 3, 14]
    assert chosen.read(np.stack((array, -array)), chosen.row(4)).tolist()[1] == [-17, -3, -14]
    chosen.write(array, chosen.row(4), np.array([-1, -2, -3]))
    assert [array[3, 2], array[0, 3], array[2, 4]] == [-1, -2, -3]
    assert chosen.at(chosen.row(4), 0).tolist() == [3] and chosen.at(chosen.row(4), 1) is None


def test_columns_grow_by_a_quarter_and_keep_what_they_hold() -> None:
    columns = ColumnArrays({"a": np.full((2, 1), np.nan), "b": np.array([7])})
    sizes = []
    for size in (1, 2, 3, 4, 5, 6, 30, 31):
        columns.grow(size)
        columns.clear(np.array([size - 1]))
        columns["b"][size - 1] = size
        sizes.append(columns.allocated)
    assert sizes == [1, 2, 3, 4, 5, 6, 30, 37]
    assert columns["b"][:6].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isnan(columns["a"][:, [0, 5, 29]]).all()


def test_a_growing_fleet_gives_the_bits_of_one_that_was_large_at_once() -> None:
    x = np.random.default_rng(2).normal(size=(60, 50))
    small, large = (SequenceFleet(Settings("rolling z-score", 10)) for _ in range(2))
    large.join(50)
    for step in range(60):
        if step < 50:
            small.join(1)
        columns = small.columns
        pushed = [
            fleet.push(columns, np.full(len(columns), float(step)), x[step, columns])
            for fleet in (small, large)
        ]
        np.testing.assert_array_equal(pushed[0].score, pushed[1].score)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("subspace", "novelty") else pytest.mark.slow)
        for name in DETECTORS
    ],
)
def test_states_are_taken_apart_and_stacked_whatever_their_layout(name: str) -> None:
    def make(floor: float):
        return DETECTORS[name](window=16, floor=floor)

    layout = StateLayout(make)
    x = np.random.default_rng(4).normal(size=(200, 5))
    whole = make(0.0)
    whole.advance(x)
    parts = [layout.take(whole.state, np.array(places)) for places in ([3], [0, 4], [1, 2])]
    for part, places in zip(parts, ([3], [0, 4], [1, 2])):
        alone = make(0.0)
        alone.advance(x[:, places])
        assert alone.fits(part)
        assert {k: v.shape for k, v in part.items()} == {k: v.shape for k, v in alone.state.items()}
        assert all(not np.shares_memory(value, whole.state[key]) for key, value in part.items())
    again = layout.stack(parts)
    back = layout.take(again, np.argsort([3, 0, 4, 1, 2]))
    assert back.keys() == whole.state.keys()
    for key, value in whole.state.items():
        np.testing.assert_array_equal(back[key], value)


def groups_of(detector: CohortDetector) -> list[list[int]]:
    return sorted(sorted(cohort.columns.tolist()) for cohort in detector.cohorts.values())


def test_cohorts_split_and_join_as_their_streams_step() -> None:
    detector = cohort_detector(Settings("subspace", 16))
    steps = np.zeros(6, int)

    def step(*columns: int) -> list[list[int]]:
        detector.step(np.ones(len(columns)), select(np.array(columns), steps))
        steps[list(columns)] += 1
        return groups_of(detector)

    detector.join(np.arange(4), np.zeros(4))
    assert step(0, 1, 2, 3) == [[0, 1, 2, 3]]
    assert step(1, 2) == [[0, 3], [1, 2]]
    assert step(0, 3) == [[0, 1, 2, 3]]
    detector.join(np.array([4, 5]), np.array([0.0, 1.0]))  # another floor is another detector
    assert step(4, 5) == [[0, 1, 2, 3], [4], [5]]
    assert step(4, 5) == [[0, 1, 2, 3, 4], [5]]
    detector.leave(np.array([1, 5]))
    assert groups_of(detector) == [[0, 2, 3, 4]]
    assert detector.home[:6].tolist().count(-1) == 2


def test_streams_that_step_together_are_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = GridFleet(Settings("half-space trees", 16))
    fleet.join(5)
    fleet.tick(0.0, np.ones(5))
    monkeypatch.setattr(StateLayout, "take", None)
    monkeypatch.setattr(StateLayout, "stack", None)
    for step in range(1, 40):
        fleet.tick(float(step), np.ones(5))


@given(
    scores=st.lists(
        st.sampled_from([np.nan, 0.0, 0.5, 1.0, 2.5, 2.6, 3.0, 4.0, 9.0, 9.0, 50.0, 100.0]),
        min_size=1,
        max_size=80,
    ),
    refractory=st.integers(0, 9),
    behind=st.integers(0, 5),
)
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
def test_the_alarm_of_single_steps_is_the_alarm(scores, refractory, behind) -> None:
    """Two streams, one some steps behind the other; ties and falling scores are frequent."""
    setting = Settings(refractory=refractory, habituation=20)
    alarm = alarm_step(setting)
    alarm.join(np.arange(2))
    alone = Alarm(refractory=refractory, memory=20)
    wanted = alone.update(np.array(scores)[:, None])[:, 0]
    steps = np.zeros(2, int)
    said: list[list[float]] = [[], []]
    for clock in range(len(scores) + behind):
        columns = [c for c in (0, 1) if 0 <= clock - c * behind < len(scores)]
        if not columns:
            continue
        now = np.array([scores[clock - c * behind] for c in columns])
        found = alarm.step(now, select(np.array(columns), steps))
        steps[columns] += 1
        for column, score in zip(columns, found.tolist()):
            said[column].append(score)
    for each in said:
        np.testing.assert_array_equal(each, wanted)
    for column in (0, 1):
        state = alarm.read_state(np.array([column]), len(scores))
        for name, value in alone.state.items():
            np.testing.assert_array_equal(state[name], value)
