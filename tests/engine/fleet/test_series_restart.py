"""A restart of the series: nothing that was committed is lost or doubled, same bits after it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import redline.engine.fleet.series_states as states_module
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.maintenance import MaintenanceWindow, MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.track import Track
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import Receipt
from redline.storage.sqlite import SqliteStore

START = 1_767_571_200.0  # seconds since the Unix epoch
EWMA = Settings("EWMA", 20, 3.0)


class StoredRig:
    """A series monitor on a real store, which can be ended and started again."""

    def __init__(self, path: Path, setting: Settings = EWMA) -> None:
        self.path = path
        self.setting = setting
        self.clock = 0.0
        self.maintenance = MaintenanceWindows()
        self.values: dict[str, list[float]] = {}
        self.start()

    def start(self) -> None:
        self.store = SqliteStore(self.path)
        self.outbox = Outbox(self.store)
        self.directory = SeriesDirectory()
        self.monitor = SeriesMonitor(
            self.directory,
            self.outbox,
            self.store,
            maintenance=self.maintenance,
            next_id=itertools.count(1 + self.store.last_anomaly_id()).__next__,
            settings=self.setting,
        )
        self.monitor.take_turn(0.0)
        assert self.monitor.restored

    def restart(self) -> None:
        """End without any farewell, as a kill does after the last commit."""
        self.store.close()
        self.start()

    def send(self, names: list[str], values: np.ndarray | None = None) -> Receipt:
        series = np.array([self.directory.number(name) for name in names])
        if values is None:
            values = np.random.default_rng(int(self.clock)).normal(size=len(names))
        times = START + self.clock + np.arange(len(names))
        self.clock += len(names)
        for name, value in zip(names, values.tolist()):
            self.values.setdefault(name, []).append(value)
        return self.monitor.submit(series, times, values)

    def turn(self) -> None:
        self.monitor.take_turn(0.0)
        self.outbox.flush(0.0, force=True)
        assert self.outbox.trouble is None
        self.monitor.settle()

    def check(self, settings_of: dict[str, Settings] | None = None) -> None:
        """Compare every stored step with a track of its own."""
        for name, values in self.values.items():
            number = self.monitor.find(name)
            assert number is not None
            setting = (settings_of or {}).get(name, self.setting)
            stored = self.store.read_series(number, None, None, 100_000)
            assert stored.step.tolist() == [*range(len(values))]
            np.testing.assert_array_equal(stored.value, values)
            alone = Track(setting, (0.0,), 0)
            wanted = alone.advance(np.array(values)[:, None])["score"][:, 0]
            assert (np.isnan(stored.score) == np.isnan(wanted)).all()
            np.testing.assert_allclose(stored.score, wanted, rtol=0.01, atol=0.01)
            assert (stored.flags & 1).tolist() == (wanted > setting.threshold).tolist()
            summary = self.monitor.summary(number)
            assert summary.steps == len(values) and summary.settings == setting
            assert summary.anomalies == np.count_nonzero(wanted > setting.threshold)
            fleet, column = self.monitor.roster.fleet_of(number)
            for state, array in fleet.copy_state(column).items():
                np.testing.assert_array_equal(array, alone.copy_state()[state], state)


@pytest.mark.parametrize("tile", [2, 2_048])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turns=st.lists(
        st.one_of(st.just("restart"), st.lists(st.integers(0, 5), min_size=1, max_size=40)),
        min_size=2,
        max_size=14,
    )
)
def test_what_was_committed_goes_on_to_the_same_bits(tmp_path_factory, monkeypatch, tile, turns):
    monkeypatch.setattr(states_module, "TILE", tile)
    monkeypatch.setattr(states_module, "STATES_EVERY", 7)
    rig = StoredRig(tmp_path_factory.mktemp("series") / "redline.db")
    for turn in turns:
        if turn == "restart":
            rig.restart()
        else:
            receipt = rig.send([f"s{series}" for series in turn])
            rig.turn()
            assert receipt.result(0).accepted == len(turn)
    rig.restart()
    rig.check()
    rig.store.close()


def test_a_repeat_of_what_is_only_in_the_store_is_known(tmp_path):
    rig = StoredRig(tmp_path / "redline.db")
    rig.send(["a"] * 50)
    rig.turn()
    rig.restart()
    series = np.full(2, rig.directory.numbers["a"])
    receipt = rig.monitor.submit(series, START + np.array([7.0, 7.5]), np.zeros(2))
    rig.turn()
    assert tuple(receipt.result(0)) == (0, 1, 1), "one was there, one is late"
    again = rig.monitor.submit(series, START + np.array([7.0, 7.5]), np.zeros(2))
    rig.turn()
    assert tuple(again.result(0)) == (0, 2, 0)
    assert rig.monitor.summary(rig.directory.numbers["a"]).newest == START + 49


def test_settings_and_removals_outlive_a_restart(tmp_path):
    rig = StoredRig(tmp_path / "redline.db")
    other = Settings("EWMA", 20, 5.0)
    for _ in range(20):
        rig.send(["a", "b", "c"])
        rig.turn()
    rig.monitor.apply(rig.directory.numbers["a"], other)
    gone = rig.directory.numbers["c"]
    removed = rig.monitor.remove(gone)
    rig.turn()
    assert removed.result(0) is None
    rig.restart()
    assert rig.monitor.names() == ["a", "b"]
    assert rig.monitor.summary(rig.directory.numbers["a"]).settings == other
    del rig.values["c"]
    rig.send(["a", "b", "c"])
    rig.turn()
    assert rig.directory.numbers["c"] > gone, "a number is never given twice"
    rig.restart()
    assert rig.monitor.summary(rig.directory.numbers["c"]).steps == 1
    assert rig.monitor.summary(rig.directory.numbers["a"]).steps == 21


def test_a_commit_that_fails_is_tried_again_and_nothing_is_acknowledged_before(tmp_path):
    rig = StoredRig(tmp_path / "redline.db")
    receipt = rig.send(["a", "b"])
    rig.store.close()
    rig.monitor.take_turn(0.0)
    rig.outbox.flush(0.0, force=True)
    assert rig.outbox.trouble is not None and not receipt.done()
    rig.store = rig.outbox.store = SqliteStore(rig.path)
    rig.monitor.store = rig.store
    rig.outbox.flush(5.0, force=True)
    rig.monitor.settle()
    assert receipt.result(0).accepted == 2
    rig.restart()
    rig.check()


def test_states_of_another_version_are_learned_again_from_the_stored_steps(tmp_path, monkeypatch):
    rig = StoredRig(tmp_path / "redline.db")
    for _ in range(10):
        rig.send(["a", "b"] * 20)
        rig.turn()
    monkeypatch.setattr("redline.engine.fleet.fleets.FLEET_FORMAT", 2)
    rig.restart()
    rig.send(["a", "b"])
    rig.turn()
    rig.restart()
    summary = rig.monitor.summary(rig.directory.numbers["a"])
    assert summary.steps == 201 and summary.newest == START + 400


def test_a_silent_series_is_forgotten_and_goes_on_when_it_sends_again(tmp_path):
    rig = StoredRig(tmp_path / "redline.db")
    for _ in range(10):
        rig.send(["quiet", "busy"] * 20)
        rig.turn()
    number = rig.directory.numbers["quiet"]
    seen = rig.monitor.roster["seen"]
    seen[number] -= 1_000.0
    assert rig.monitor.forget_silent(seen[rig.directory.numbers["busy"]] - 500) == ["quiet"]
    assert rig.monitor.find("quiet") is None and rig.directory.dormant == {number}
    rig.send(["busy"])
    rig.turn()
    for _ in range(2):  # also when it was forgotten before a restart
        rig.restart()
        assert rig.monitor.names() == ["busy"]
    receipt = rig.send(["quiet", "busy"])
    rig.turn()
    assert receipt.result(0).accepted == 2 and rig.directory.numbers["quiet"] == number
    rig.check()
    rig.restart()
    rig.check()


def test_series_that_are_forgotten_make_room_for_others(tmp_path):
    rig = StoredRig(tmp_path / "redline.db")
    rig.directory.max_series = 2
    rig.send(["a", "b"])
    rig.turn()
    assert rig.directory.number("c") < 0
    rig.monitor.forget_silent(rig.monitor.roster["seen"].max() + 1)
    rig.turn()
    assert rig.directory.number("c") >= 0 and rig.directory.number("a") >= 0
    assert rig.directory.number("b") < 0, "there is no room for a third"


def alarms_of(rig: StoredRig, name: str) -> list[int]:
    stored = rig.store.read_series(rig.directory.numbers[name], None, None, 1_000)
    return stored.step[stored.flags & 2 > 0].tolist()


@pytest.mark.parametrize("every", [1, 7, 1_000], ids=["stored", "some", "scored again"])
@pytest.mark.parametrize("removed", [False, True], ids=["window", "window removed"])
@pytest.mark.parametrize("restart", [*range(50, 56)])
def test_an_alarm_that_a_window_holds_back_is_held_over_a_restart(
    tmp_path, monkeypatch, every, removed, restart
):
    monkeypatch.setattr(states_module, "STATES_EVERY", every)
    rig = StoredRig(tmp_path / "redline.db")
    window = MaintenanceWindow("a", START + 98.5, START + 105.5, "ann", 0.0)  # steps 50 to 52
    window = rig.maintenance.add(window)
    rig.send(["a", "b"] * 50, np.repeat(np.arange(50.0) % 3, 2))
    rig.turn()
    for step in range(50, 56):
        if step == restart:
            if removed and step > 52:  # what is over is not judged again
                rig.maintenance.remove(window.id)
            rig.restart()
        peak = 20.0 ** (step - 48) if step <= 54 else 1.0
        rig.send(["a", "b"], np.array([peak, peak]))
        rig.turn()
    for name, first in (("a", 53), ("b", 50)):
        assert alarms_of(rig, name)[0] == first
    for _ in range(2):
        for name in "ab":
            summary = rig.monitor.summary(rig.directory.numbers[name])
            assert summary.alarms == len(alarms_of(rig, name))
        assert not rig.monitor.reports.held, "the run is over"
        rig.restart()
