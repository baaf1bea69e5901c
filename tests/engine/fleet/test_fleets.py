"""The contract of the fleets: each stream has what a track of its own gives, whatever stands beside
it, whenever it comes, and over a restart; to the bit for plain detectors.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DETECTORS
from redline.detection.ensemble import SEARCH_STEPS, SEASON_CHECK_STEPS
from redline.engine.fleet.fleets import (
    LONG_RUN,
    Fleet,
    GridFleet,
    ScoredSteps,
    SequenceFleet,
)
from redline.engine.fleet.single_step import STEPPED
from redline.engine.stacking import STACKABLE
from redline.engine.track import Track
from redline.settings import Settings

WINDOW = 22  # steps; the sums of a rolling window end in a shorter part
CAPACITY = 150  # steps at hand
STREAMS = 26  # as many as ever join one fleet of a test


def numbers(steps: int, streams: int = STREAMS, seed: int = 3) -> np.ndarray:
    """Return (steps, streams): waves, spikes, gaps, a flat one, glitches at the start."""
    draw = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * np.arange(steps) / 25)[:, None] * draw.integers(0, 4, streams)
    x = draw.normal(size=(steps, streams)) + 3 * wave
    x = np.pad(x, ((0, max(0, 128 - steps)), (0, max(0, 6 - streams))))
    x[draw.random(x.shape) < 0.02] += 25.0
    x[draw.random(x.shape) < 0.03] = np.nan
    x[:, 0] = 5.0
    x[3, 1] = 900.0  # found at step 32
    x[40, 2] = -900.0  # found at step 64
    x[100, 3] = 900.0  # found at step 128
    x[5, 4] = x[70, 4] = np.inf
    x[:32, 5] = np.nan
    return x[:steps, :streams]


class Rehearsal:
    """A fleet with the numbers of its streams, and what it said of each.

    A stream is a column from its join to its leave; it takes the numbers of its own stream in turn.
    """

    def __init__(self, fleet: Fleet, x: np.ndarray) -> None:
        self.fleet = fleet
        self.x = x
        self.stream: dict[int, int] = {}  # column -> stream
        self.said: dict[int, list[tuple]] = {}  # stream -> its steps

    def join(self, count: int) -> None:
        """Let the next streams join."""
        for column in self.fleet.join(count).tolist():
            stream = len(self.said)
            self.stream[column] = stream
            self.said[stream] = []

    def leave(self, column: int) -> int:
        """Let a stream leave; return its number."""
        self.fleet.leave([column])
        return self.stream.pop(column)

    def value(self, column: int, ahead: int = 0) -> float:
        stream = self.stream[column]
        return float(self.x[len(self.said[stream]) + ahead, stream])

    def hear(self, steps: ScoredSteps) -> None:
        for step in zip(*steps):
            self.said[self.stream[int(step[0])]].append(step)

    def push(self, columns: np.ndarray, time: float) -> None:
        """Push the next point of each of the columns."""
        seen: dict[int, int] = {}
        values = []
        for column in columns.tolist():
            values.append(self.value(column, seen.get(column, 0)))
            seen[column] = seen.get(column, 0) + 1
        assert isinstance(self.fleet, SequenceFleet)
        self.hear(self.fleet.push(columns, time + np.arange(len(columns)) / 1000, values))

    def tick(self, time: float) -> None:
        """Let a tick come, with the next number of each stream; some have no sample."""
        values = np.full(self.fleet.size, 77.0)  # of free columns, which are not read
        for column in self.stream:
            values[column] = self.value(column)
        assert isinstance(self.fleet, GridFleet)
        self.hear(self.fleet.tick(time, values))

    def restart(self) -> None:
        """Go on with another fleet from states that went through a file."""
        columns = self.fleet.columns
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **self.fleet.copy_columns(columns))
        file.seek(0)
        other = type(self.fleet)(self.fleet.settings, self.fleet.capacity)
        places = other.join(len(columns))  # without those that left, so others than before
        if len(places):
            other.paste_columns(places, dict(np.load(file, allow_pickle=False)))
        self.fleet = other
        moved = dict(zip(columns.tolist(), places.tolist()))
        self.stream = {moved[column]: stream for column, stream in self.stream.items()}

    def check(self) -> None:
        """Compare all that was said with tracks of their own, and what is remembered."""
        exact = self.fleet.settings.detector in STEPPED
        column_of = {stream: column for column, stream in self.stream.items()}
        for stream, steps in self.said.items():
            if not steps:
                continue
            said = ScoredSteps(*(np.array(column) for column in zip(*steps)))
            track = Track(self.fleet.settings, (0.0,), 0)
            alone = track.advance(self.x[: len(steps), stream : stream + 1])
            threshold = self.fleet.settings.threshold
            assert said.step.tolist() == [*range(len(steps))]
            assert_equal(said.value, self.x[: len(steps), stream], exact=True)
            assert_equal(said.score, alone["score"][:, 0], exact)
            assert_equal(said.alarm_score, alone["alarm"][:, 0], exact)
            for name in ("centre", "spread"):
                band = alone.get(name, np.full((len(steps), 1), np.nan))
                assert_equal(getattr(said, name), band[:, 0], exact)
            assert (said.anomaly == (said.score > threshold)).all()
            assert (said.alarm == (said.alarm_score > threshold)).all()
            if stream in column_of:
                self.check_memory(column_of[stream], said, track, exact)

    def check_memory(self, column: int, said: ScoredSteps, track: Track, exact: bool) -> None:
        """Compare state, history and counters of a live stream."""
        state = self.fleet.copy_state(column)
        assert state.keys() == track.copy_state().keys()
        for name, value in track.copy_state().items():
            assert state[name].dtype == value.dtype and state[name].shape == value.shape, name
            if exact:
                assert_equal(state[name], value, exact)
        history = self.fleet.read_history(column)
        since = int(self.fleet.counters["since"][column])  # the last restart
        kept = min(len(said.step) - since, self.fleet.capacity)
        said_kept = slice(len(said.step) - kept, None)
        assert_equal(history.time, said.time[said_kept], exact=True)
        assert_equal(history.value, said.value[said_kept], exact=True)
        assert_equal(
            history.score.astype(np.float32), said.score[said_kept].astype(np.float32), True
        )
        counters = {name: array[column] for name, array in self.fleet.counters.arrays.items()}
        came = said.value == said.value if self.fleet.clock == "grid" else np.ones(len(said.step))
        calm = np.flatnonzero(~said.anomaly)
        assert counters["step"] == len(said.step)
        assert counters["points"] == np.count_nonzero(came)
        assert counters["anomalies"] == np.count_nonzero(said.anomaly)
        assert counters["alarms"] == np.count_nonzero(said.alarm)
        assert counters["run"] == len(said.step) - 1 - (calm[-1] if len(calm) else -1)
        if np.count_nonzero(came):
            assert counters["last_time"] == said.time[np.flatnonzero(came)[-1]]


def detectors_with(*fast: str, among: Iterable[str] = DETECTORS) -> list:
    """Return all detectors, those not named here marked as slow."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in among]


def assert_equal(got: np.ndarray, wanted: np.ndarray, exact: bool) -> None:
    if exact:
        np.testing.assert_array_equal(got, wanted)
    else:
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_detectors_that_are_scored_together_today_are_exact_in_a_fleet() -> None:
    assert STEPPED.keys() == STACKABLE


@pytest.mark.parametrize("name", detectors_with("rolling z-score", "seasonal", "Mahalanobis"))
def test_pushed_streams_are_scored_as_alone(name: str) -> None:
    draw = np.random.default_rng(1)
    rehearsal = Rehearsal(SequenceFleet(Settings(name, WINDOW), CAPACITY), numbers(1_500))
    rehearsal.join(5)
    for call in range(160):
        columns = rehearsal.fleet.columns
        some = columns[draw.random(len(columns)) < draw.choice([0.3, 0.8, 1.0])]
        often = draw.choice(some, 3 * len(some)) if len(some) and call % 3 == 0 else some[:0]
        points = np.concatenate((some, often))
        rehearsal.push(draw.permutation(points) if call % 4 else points, 10.0 * call)
        if call in (20, 70, 90):
            rehearsal.join(call // 10)
        if call in (50, 100):
            rehearsal.leave(int(columns[call // 25]))
            rehearsal.join(1 + call // 100)
        if call in (45, 61, 110):
            rehearsal.restart()
    rehearsal.check()


@pytest.mark.parametrize("name", detectors_with("EWMA", "percentile", "half-space trees"))
def test_streams_on_a_grid_are_scored_as_alone(name: str) -> None:
    rehearsal = Rehearsal(GridFleet(Settings(name, WINDOW), CAPACITY), numbers(400))
    rehearsal.join(6)
    for tick in range(330):
        rehearsal.tick(60.0 * tick)
        if tick in (17, 150):
            rehearsal.join(4)
        if tick in (60, 155):
            rehearsal.leave(tick // 60)
        if tick == 200:
            rehearsal.join(3)  # two columns are used again
        if tick in (31, 64, 210):
            rehearsal.restart()
    assert len(rehearsal.fleet.columns) == 15 and len(rehearsal.said) == 17
    rehearsal.check()


@pytest.mark.parametrize("tile", [pytest.param(7, marks=pytest.mark.slow), None])
@pytest.mark.parametrize("name", detectors_with("rolling z-score", "CUSUM", among=STEPPED))
def test_many_streams_are_scored_as_alone(name: str, tile: int | None) -> None:
    """72 streams, in turn all, a half and a few of them: on both sides of where kernels differ."""
    fleet = SequenceFleet(Settings(name, WINDOW), CAPACITY)
    rehearsal = Rehearsal(fleet, numbers(250, 72, seed=8))
    rehearsal.join(72)
    fleet.detector.tile = tile or fleet.detector.tile
    for call in range(190):
        some = (slice(None), slice(None), slice(0, 36), slice(30, 72, 2), slice(5, 9))[call % 5]
        rehearsal.push(fleet.columns[some], float(call))
    assert len(set(fleet.counters["step"][:72].tolist())) == 3
    rehearsal.check()


@pytest.mark.parametrize("name", ["seasonal", "EWMA"])
def test_long_memories_wrap_around_as_alone(name: str) -> None:
    """700 steps hold two searches for a season; the second stream is at another phase."""
    x = numbers(1_000, 3, seed=9) + 20 * np.sin(np.arange(1_000) / 4)[:, None]
    rehearsal = Rehearsal(SequenceFleet(Settings(name, 60), CAPACITY), x)
    rehearsal.join(3)
    for step in range(700):
        rehearsal.push(rehearsal.fleet.columns[: 3 if step % 5 else 2], float(step))
    if name == "seasonal":
        assert (rehearsal.fleet.detector.columns["season"][:3] > 0).all()
    rehearsal.check()


def test_a_season_as_long_as_can_be_remembered_is_the_same_in_a_fleet() -> None:
    setting = Settings("seasonal", WINDOW)
    x = 10 * np.sin(2 * np.pi * np.arange(6_400) / 1_330)[:, None]
    x += np.random.default_rng(0).normal(size=x.shape)
    track = Track(setting, (0.0,), 0)
    track.advance(x[:6_000])
    assert track.detector.state["season"] > (4_096 - 256) / 3
    fleet = SequenceFleet(setting, CAPACITY)
    fleet.join(1)
    fleet.adopt(0, track.copy_state())
    said = [fleet.push([0], [0.0], value).score[0] for value in x[6_000:]]
    assert_equal(np.array(said), track.advance(x[6_000:])["score"][:, 0], exact=True)


@pytest.mark.parametrize("direction", ["high", "low"])
@pytest.mark.parametrize("name", ["CUSUM", "median and MAD", "Mahalanobis"])
def test_settings_and_floors_reach_the_detector(name: str, direction: str) -> None:
    setting = Settings(name, WINDOW, threshold=2.0, direction=direction, refractory=0)
    fleet = SequenceFleet(setting, CAPACITY)
    floors = np.array([0.0, 2.0, 0.5, 2.0])
    columns = fleet.join(4, floors)
    x = numbers(200, 4, seed=5)
    said = [fleet.push(columns, np.full(4, float(step)), x[step]) for step in range(200)]
    for stream, floor in enumerate(floors.tolist()):
        alone = Track(setting, (floor,), 0).advance(x[:, stream : stream + 1])
        for name, rows in (("score", alone["score"]), ("alarm_score", alone["alarm"])):
            got = np.array([getattr(steps, name)[stream] for steps in said])
            assert_equal(got, rows[:, 0], exact=setting.detector in STEPPED)


@given(
    order=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    moved=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_neither_cuts_nor_the_order_of_other_streams_change_a_bit(order, cuts, moved) -> None:
    """The same points, in calls cut otherwise and with the streams mixed otherwise."""
    x = numbers(100, 4)

    def scores(groups: list[list[int]]) -> list[list[float]]:
        fleet = SequenceFleet(Settings("rolling z-score", 5), 128)
        fleet.join(4)
        said: list[list[float]] = [[], [], [], []]
        taken = [0] * 4
        for group in groups:
            values = []
            for column in group:
                values.append(x[taken[column], column])
                taken[column] += 1
            steps = fleet.push(np.array(group, int), np.zeros(len(group)), values)
            for column, score in zip(steps.column.tolist(), steps.score.tolist()):
                said[column].append(score)
        return said

    ends = [0, *sorted(cut for cut in cuts if cut < len(order)), len(order)]
    cut_order = [order[a:b] for a, b in pairwise(ends)]
    mixed = [*order]
    moved.shuffle(mixed)
    whole = scores([[column] for column in order])
    for other in (scores(cut_order), scores([mixed])):
        for a, b in zip(whole, other):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["EWMA", "moving average", "Mahalanobis"])
def test_a_run_of_one_stream_in_one_call_is_its_points_one_by_one(name: str) -> None:
    rehearsal = Rehearsal(SequenceFleet(Settings(name, WINDOW), CAPACITY), numbers(900))
    rehearsal.join(5)
    run = np.full(LONG_RUN + 60, 1)
    for time, columns in enumerate([run, [0, 1, 2], run, [*run, *[4] * 200, 3, 0, 3], [1, 2, 0]]):
        rehearsal.push(np.array(columns), 10.0 * time)
    rehearsal.check()


@pytest.mark.parametrize("name", ["rolling z-score", "seasonal", "half-space trees"])
@pytest.mark.parametrize("steps", [10, 90, 170])
@pytest.mark.parametrize("kind", [SequenceFleet, GridFleet])
def test_a_stream_moves_from_fleet_to_track_and_back(name: str, steps: int, kind: type) -> None:
    """It goes on as if it had stayed, before and after its start is over."""
    setting = Settings(name, WINDOW)
    x = numbers(400, 4)
    alone = Track(setting, (0.0,), 0).advance(x[:, 1:2])["score"][:, 0]
    track = Track(setting, (0.0,), 0)
    track.advance(x[:steps, 1:2])
    fleet = kind(setting, CAPACITY)
    fleet.join(3)

    def step(time: int, values: list[float]) -> ScoredSteps:
        if isinstance(fleet, GridFleet):
            return fleet.tick(float(time), values)
        return fleet.push([0, 1, 2], np.full(3, float(time)), values)

    for time in range(7):
        step(time, [1.0, 2.0, 3.0])
    fleet.leave([2])
    assert fleet.join(1).tolist() == [2]
    fleet.adopt(2, track.copy_state(), counts={"anomalies": 7})
    said = [step(7 + i, [1.0, 2.0, x[i, 1]]).score[2] for i in range(steps, 250)]
    assert_equal(np.array(said), alone[steps:250], exact=name in STEPPED)
    assert fleet.counters["step"][2] == fleet.counters["points"][2] == 250 or kind is GridFleet
    assert fleet.counters["anomalies"][2] == 7 + np.count_nonzero(np.array(said) > 3.5)
    back = Track(setting, (0.0,), 0)
    back.load_state(fleet.copy_state(2))
    assert_equal(back.advance(x[250:, 1:2])["score"][:, 0], alone[250:], exact=name in STEPPED)


def test_a_stream_that_leaves_leaves_nothing_behind() -> None:
    fleet = SequenceFleet(Settings("EWMA", WINDOW), CAPACITY)
    fleet.join(3)
    for step in range(40):
        fleet.push([0, 1, 2], np.full(3, float(step)), [1.0, step % 3, 5.0])
    fleet.leave([1])
    assert fleet.columns.tolist() == [0, 2]
    assert fleet.join(2, floors=0.5).tolist() == [1, 3]
    assert fleet.copy_state(1) == {} and len(fleet.read_history(1).time) == 0
    assert fleet.counters["points"][1] == 0 and fleet.floors[1] == 0.5


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    fleet = SequenceFleet(Settings("EWMA", WINDOW), CAPACITY)
    fleet.join(3)
    fleet.push([0, 1, 2], [0.0] * 3, [1.0] * 3)
    fleet.leave([1])
    before = fleet.copy_columns([0, 2])
    for columns in ([1], [0, 3], [-1]):
        with pytest.raises(ValueError, match="columns of live streams"):
            fleet.push(columns, np.zeros(len(columns)), np.zeros(len(columns)))
    with pytest.raises(ValueError, match="wanted columns, times and values alike"):
        fleet.push([0, 2], [0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="columns of live streams"):
        fleet.leave([1])
    with pytest.raises(ValueError, match="state of"):
        other = Track(Settings("CUSUM", WINDOW), (0.0,), 0)
        other.advance(np.zeros((200, 1)))
        fleet.adopt(0, {"format": np.array(3)} | other.copy_state() | {"detector.sums": np.ones(3)})
    with pytest.raises(ValueError, match="at least 128 steps"):
        SequenceFleet(Settings(), 100)
    grid = GridFleet(Settings("EWMA", WINDOW), CAPACITY)
    grid.join(2)
    with pytest.raises(ValueError, match="one value for each of 2 columns"):
        grid.tick(0.0, [1.0])
    assert grid.history.ticks == 0
    after = fleet.copy_columns([0, 2])
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


@pytest.mark.parametrize("name", ["EWMA", "subspace"])
def test_states_of_another_fleet_are_refused(name: str) -> None:
    fleet = SequenceFleet(Settings(name, WINDOW), CAPACITY)
    fleet.join(3)
    fleet.push([0, 1, 2], [0.0] * 3, [1.0] * 3)
    states = fleet.copy_columns([0, 2])
    for other in (
        SequenceFleet(Settings(name, WINDOW + 1), CAPACITY),
        GridFleet(Settings(name, WINDOW), CAPACITY),
    ):
        with pytest.raises(ValueError, match="wanted states of"):
            other.paste_columns(other.join(2), states)
    part = "detector.sums" if name == "EWMA" else "detector.0.state.weights"
    for broken in ("alarm.loud", "counters.step", part):
        fresh = SequenceFleet(Settings(name, WINDOW), CAPACITY)
        with pytest.raises(ValueError, match="came other"):
            fresh.paste_columns(fresh.join(2), states | {broken: np.zeros(2)})
        assert fresh.counters["step"].tolist() == [0, 0]


def test_nothing_pushed_is_nothing_scored() -> None:
    fleet = SequenceFleet(Settings("EWMA", WINDOW), CAPACITY)
    assert len(fleet.push([], [], []).score) == 0
    assert len(fleet.join(0)) == 0
    grid = GridFleet(Settings("ensemble", WINDOW), CAPACITY)
    assert len(grid.tick(0.0, []).score) == 0
    assert grid.join(2).tolist() == [0, 1]
    assert np.isnan(grid.tick(1.0, [1.0, 2.0]).score).all()
    assert grid.read_history(0).time.tolist() == [1.0]


def test_no_tick_of_flagships_searches_more_than_its_share_of_seasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = []
    monkeypatch.setattr(
        "redline.detection.ensemble.find_season", lambda x, old: searches.append(1) or 0
    )
    fleet = GridFleet(Settings("ensemble", WINDOW), CAPACITY)
    fleet.join(200)
    values = np.random.default_rng(2).normal(size=(SEASON_CHECK_STEPS, 200))
    most = 0
    for step, row in enumerate(values):
        before = len(searches)
        fleet.tick(float(step), row)
        most = max(most, len(searches) - before)
    assert len(searches) == 200
    assert most == -(-200 // SEARCH_STEPS) == 2


def test_a_season_is_the_same_in_a_fleet_that_splits_and_restarts_in_the_search() -> None:
    steps = 700
    wave = 2 * np.sin(2 * np.pi * np.arange(steps)[:, None] / [61, 73, 90, 104, 83])
    x = wave + np.random.default_rng(5).normal(size=(steps, 5))
    chosen = Settings("ensemble", 60)
    fleet = SequenceFleet(chosen, CAPACITY)
    fleet.join(5)
    scores = np.full((steps, 5), np.nan)

    def push(columns: list[int], first: int, end: int) -> None:
        for step in range(first, end):
            times = np.full(len(columns), float(step))
            scores[step, columns] = fleet.push(columns, times, x[step, columns]).score

    push([0, 1, 2, 3, 4], 0, 410)  # the search is from step 384 to 512
    push([0, 4], 410, 480)
    states = fleet.copy_columns(np.arange(5))
    fleet = SequenceFleet(chosen, CAPACITY)
    fleet.paste_columns(fleet.join(5), states)
    push([1, 2, 3], 410, 480)
    push([0, 1, 2, 3, 4], 480, steps)
    for stream in range(5):
        alone = DETECTORS["ensemble"](window=60)
        np.testing.assert_allclose(
            scores[:, stream], alone.update(x[:, None, [stream]])[:, 0], rtol=1e-9, atol=1e-12
        )
        assert alone.state is not None and alone.state["season"][0] > 0
