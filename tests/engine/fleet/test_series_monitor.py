"""The series monitor: each sample has the score that its series alone would give it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.engine.fleet.intake import find_fresh, first_of_each
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.maintenance import MaintenanceWindow, MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.results import Batch
from redline.engine.track import Track
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import QueueBudget, QueueFull, Receipt

START = 1_767_571_200.0  # seconds since the Unix epoch
EWMA = Settings("EWMA", 20, 3.0)


class Rig:
    """A series monitor without a store, and what it put into its outbox."""

    def __init__(self, setting: Settings = EWMA, **more: object) -> None:
        self.outbox = Outbox(None)
        self.directory = SeriesDirectory()
        self.monitor = SeriesMonitor(
            self.directory,
            self.outbox,
            settings=setting,
            **more,  # type: ignore[arg-type]
        )
        self.batches: list[Batch] = []
        self.scores: dict[str, list[float]] = {}

    def number(self, name: str) -> int:
        return self.directory.number(name)

    def send(self, *samples: tuple[str, float, float]) -> Receipt:
        """Submit samples (name, seconds after START, value)."""
        names, times, values = zip(*samples)
        series = np.array([self.number(name) for name in names])
        return self.monitor.submit(series, START + np.array(times, float), np.array(values, float))

    def turn(self) -> None:
        """Let the loop take a turn, commit it and resolve the receipts."""
        self.monitor.process()
        for commit in self.outbox.fleets:
            for number, step, score in zip(*(commit.steps[i] for i in (0, 1, 4))):
                if step >= 0:
                    name = self.directory.texts[number] or ""
                    self.scores.setdefault(name, []).append(float(score))
        batches, _ = self.outbox.flush(0.0, force=True)
        self.batches += batches
        self.monitor.settle()

    def counts(self, *samples: tuple[str, float, float]) -> tuple[int, int, int]:
        """Send samples, let the loop take them, and return what the receipt says."""
        receipt = self.send(*samples)
        self.turn()
        return tuple(receipt.result(0))  # type: ignore[return-value]


def alone(values: np.ndarray, setting: Settings = EWMA) -> np.ndarray:
    """Return the scores of a series alone."""
    return Track(setting, (0.0,), 0).advance(values[:, None])["score"][:, 0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=30), min_size=1, max_size=25))
def test_scores_do_not_depend_on_what_comes_together(turns: list[list[int]]) -> None:
    """Each turn has samples of any of five series, each any number of times."""
    rig = Rig()
    draw = np.random.default_rng(7)
    values: dict[str, list[float]] = {}
    clock = 0.0
    for turn in turns:
        samples = []
        for series in turn:
            clock += 1.0
            samples.append((f"s{series}", clock, float(draw.normal() + 20 * (draw.random() < 0.1))))
            values.setdefault(f"s{series}", []).append(samples[-1][2])
        assert rig.counts(*samples) == (len(samples), 0, 0)
    assert rig.scores.keys() == values.keys()
    for name, own in values.items():
        np.testing.assert_array_equal(rig.scores[name], alone(np.array(own)))


def test_each_sample_is_fresh_repeated_or_late() -> None:
    rig = Rig()
    assert rig.counts(("a", 10, 1), ("b", 10, 1), ("a", 20, 2)) == (3, 0, 0)
    assert rig.counts(("a", 20, 2), ("a", 15, 9), ("a", 30, 3)) == (1, 1, 1)
    assert rig.counts(("a", 10, 1), ("b", 20, 1)) == (1, 1, 0)  # at hand, not the newest
    # of one turn: fresh, its repeat, older, its repeat, fresh again
    assert rig.counts(("b", 30, 1), ("b", 30, 1), ("b", 25, 1), ("b", 25, 1), ("b", 31, 1)) == (
        2,
        2,
        1,
    )
    summary = rig.monitor.summary(rig.number("b"))
    assert (summary.steps, summary.points, summary.newest) == (4, 4, START + 31)
    assert dict(rig.monitor.counts) == {"repeated": 4, "late": 2}


def test_two_submissions_of_one_turn_each_get_their_own_counts() -> None:
    rig = Rig()
    first = rig.send(("a", 10, 1), ("a", 5, 1))
    second = rig.send(("a", 10, 1), ("b", 1, 1))
    rig.turn()
    assert tuple(first.result(0)) == (1, 0, 1) and tuple(second.result(0)) == (1, 1, 0)


def test_what_does_not_fit_is_refused_and_counted() -> None:
    rig = Rig(budget=QueueBudget(3))
    rig.send(("a", 1, 1), ("a", 2, 1))
    with pytest.raises(QueueFull, match="room for 2"):
        rig.send(("b", 1, 1), ("b", 2, 1))
    assert rig.monitor.intake.counts["refused"] == 2
    rig.turn()
    assert rig.counts(("b", 1, 1), ("b", 2, 1)) == (2, 0, 0)


def test_anomalies_have_a_band_and_counts_as_those_of_a_stream_alone() -> None:
    rig = Rig()
    draw = np.random.default_rng(3)
    values = draw.normal(size=200)
    values[[120, 121, 160]] = 30.0
    for step, value in enumerate(values.tolist()):
        rig.counts(("a", step, value), ("calm", step, 1.0))
    score = alone(values)
    found = [anomaly for batch in rig.batches for anomaly in batch.anomalies]
    assert [each.step for each in found] == np.flatnonzero(score > 3.0).tolist()
    assert [each.number for each in found] == [*range(1, len(found) + 1)]
    assert {batch.name for batch in rig.batches} == {"a"}
    run = {each.step: each.run for each in found}
    assert run[120] == 1 and run[121] == 2 and run[160] == 1
    peak = next(each for each in found if each.step == 120)
    assert peak.alarm and peak.low < 0 < peak.high < peak.value == 30.0
    assert rig.monitor.summary(rig.number("a")).anomalies == len(found)


def test_no_step_of_a_maintenance_window_is_an_alarm() -> None:
    windows = MaintenanceWindows()
    windows.add(MaintenanceWindow("a", START + 49.5, START + 51.5, "ann", 0.0))
    rig = Rig(maintenance=windows)
    for step in range(60):
        value = 50.0 * 5 ** (step - 50) if 50 <= step < 53 else float(step % 3)
        rig.counts(("a", step, value), ("b", step, value))
    alarms = {batch.name: [] for batch in rig.batches}
    for batch in rig.batches:
        alarms[batch.name] += [each.step for each in batch.anomalies if each.alarm]
    assert alarms["b"][0] == 50
    assert alarms["a"][0] == 52  # held back until the window is over


def test_a_followed_series_reports_its_calm_steps_too() -> None:
    rig = Rig()
    rig.counts(("a", 1, 1), ("b", 1, 1))
    rig.monitor.reports.followers.append(lambda: ["b", "unknown"])
    rig.counts(("a", 2, 1), ("b", 2, 1))
    assert [(batch.name, batch.first) for batch in rig.batches] == [("b", 1)]


@pytest.mark.parametrize(
    "after", [Settings("EWMA", 20, 4.0), Settings("rolling z-score", 30, 3.0)], ids=["σ", "new"]
)
def test_settings_are_applied_and_other_series_stay(after: Settings) -> None:
    rig = Rig()
    values = np.random.default_rng(5).normal(size=(2, 260))
    for step in range(200):
        rig.counts(("a", step, values[0, step]), ("b", step, values[1, step]))
    rig.monitor.apply(rig.number("a"), after)
    for step in range(200, 260):
        rig.counts(("a", step, values[0, step]), ("b", step, values[1, step]))
    # of a new detector: it has learned what was at hand, which is all here
    np.testing.assert_array_equal(rig.scores["a"][200:], alone(values[0], after)[200:])
    np.testing.assert_array_equal(rig.scores["b"], alone(values[1]))
    summary = rig.monitor.summary(rig.number("a"))
    assert summary.settings == after and summary.steps == 260
    assert len(rig.monitor.roster.fleets) == 2


def test_a_removed_series_is_gone_and_begins_anew() -> None:
    rig = Rig()
    number = rig.number("a")
    rig.counts(("a", 1, 1), ("b", 1, 1))
    removed = rig.monitor.remove(number)
    rig.turn()
    assert removed.result(0) is None
    assert rig.monitor.find("a") is None and rig.monitor.find("b") is not None
    assert rig.counts(("a", 1, 1)) == (1, 0, 0)
    assert rig.number("a") != number
    assert rig.monitor.summary(rig.number("a")).steps == 1


def test_waiting_samples_fail_when_the_loop_ends() -> None:
    rig = Rig()
    waiting = rig.send(("a", 1, 1))
    scored = rig.send(("a", 2, 1))
    rig.monitor.process()
    late = rig.send(("a", 3, 1))
    rig.monitor.abandon(ConnectionAbortedError("ended"))
    for receipt in (waiting, scored, late):
        assert isinstance(receipt.exception(0), ConnectionAbortedError)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=40),
    st.lists(st.integers(-1, 6), min_size=4, max_size=4),
)
def test_fresh_and_first_agree_with_a_plain_loop(
    samples: list[tuple[int, int]], newest: list[int]
) -> None:
    series = np.array([sample[0] for sample in samples], int)
    time = np.array([sample[1] for sample in samples], float)
    newest_time = np.array(newest, float)
    seen: set[tuple[int, int]] = set()
    for i, (number, at) in enumerate(samples):
        fresh = at > newest[number]
        newest[number] = max(newest[number], at)
        assert find_fresh(series, time, newest_time)[i] == fresh
        assert first_of_each(series, time)[i] == ((number, at) not in seen)
        seen.add((number, at))
