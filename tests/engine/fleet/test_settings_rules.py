"""Rules of settings: on the series that are there, on those that come, over a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from redline.engine.fleet import rule_work
from redline.engine.fleet.settings_rules import MAX_RULES, RulePersistence, SettingsRules
from redline.engine.track import Track
from redline.settings import Settings, SettingsError
from redline.sources.pushed import SubmissionRefused
from redline.sources.series import parse_series
from tests.engine.fleet.test_series_monitor import EWMA, Rig, alone
from tests.engine.fleet.test_series_restart import StoredRig
from tests.engine.fleet.test_series_views import NAMES, Service

HOSTS = [f'load{{host="h{i}",job="{"web" if i % 2 else "db"}"}}' for i in range(12)]
WEB = [name for name in HOSTS if "web" in name]
STEPS = 60


def settings_of(monitor) -> dict[str, Settings]:
    return {
        name: monitor.summary(monitor.directory.numbers[name]).settings for name in monitor.names()
    }


def send_rows(rig: Rig, values: np.ndarray, first: int = 0) -> None:
    """Let all series take rows of values (steps, series)."""
    for i, row in enumerate(values):
        rig.counts(*((name, first + i, value) for name, value in zip(HOSTS, row.tolist())))


def add_rule(monitor, select: str, **given):
    rule = monitor.rules.add(select, given, "ann", 1.0)
    monitor.apply_rule(rule)
    return rule


def test_a_rule_changes_the_series_it_takes_and_they_keep_their_state() -> None:
    rig = Rig()
    values = np.random.default_rng(1).normal(size=(2 * STEPS, len(HOSTS)))
    send_rows(rig, values[:STEPS])
    rule = add_rule(rig.monitor, '{job=~"we.*"}', threshold=4.5, refractory=EWMA.refractory)
    assert rig.monitor.has_work and rig.monitor.rule_work.left(rule.id) == len(HOSTS)
    rig.turn()
    assert rig.monitor.rule_work.left(rule.id) == 0 and rig.monitor.rules.rules[rule.id].done
    new = replace(EWMA, threshold=4.5)
    assert settings_of(rig.monitor) == {name: new if name in WEB else EWMA for name in HOSTS}
    send_rows(rig, values[STEPS:], STEPS)
    for i, name in enumerate(HOSTS):  # the threshold is no part of a score
        np.testing.assert_array_equal(rig.scores[name], alone(values[:, i]))


def test_another_detector_learns_from_the_steps_at_hand_as_of_a_single_series() -> None:
    """The rule gives the same scores as settings that are applied to each series."""
    values = np.random.default_rng(2).normal(size=(2 * STEPS, len(HOSTS)))
    rigs = [Rig(), Rig()]
    for rig in rigs:
        send_rows(rig, values[:STEPS])
    add_rule(rigs[0].monitor, "load", detector="rolling z-score", window=15)
    for name in HOSTS:
        changed = replace(EWMA, detector="rolling z-score", window=15)
        rigs[1].monitor.apply(rigs[1].number(name), changed)
    for rig in rigs:
        rig.turn()
        send_rows(rig, values[STEPS:], STEPS)
    assert settings_of(rigs[0].monitor) == settings_of(rigs[1].monitor)
    for name in HOSTS:
        np.testing.assert_array_equal(rigs[0].scores[name], rigs[1].scores[name])
    track = Track(changed, (0.0,), 0)
    track.advance(values[:STEPS, :1])
    np.testing.assert_array_equal(
        rigs[0].scores[HOSTS[0]][STEPS:], track.advance(values[STEPS:, :1])["score"][:, 0]
    )


@pytest.mark.parametrize(
    "given", [{"threshold": 2.0}, {"detector": "rolling z-score"}, {"window": 35}]
)
def test_series_that_move_together_are_as_those_that_move_alone(given: dict) -> None:
    """Of any phase, with missing values, some with more steps than are at hand."""
    draw = np.random.default_rng(3)
    counts = [3, 9, 40, 41, 100, 300, 605, 700, 1_250]
    past = [draw.normal(size=count) for count in counts]
    for values in past:
        values[draw.random(len(values)) < 0.05] = np.nan
        values[-2:] = 30.0  # a run that is not over
    later = draw.normal(size=(30, len(counts)))
    rigs = [Rig(), Rig()]
    for rig, name, values in ((r, n, v) for r in rigs for n, v in zip(HOSTS, past)):
        rig.counts(*((name, i, value) for i, value in enumerate(values.tolist())))
    add_rule(rigs[0].monitor, "{}", **given)
    for name in HOSTS[: len(counts)]:
        rigs[1].monitor.apply(rigs[1].number(name), replace(EWMA, **given))
    for rig in rigs:
        rig.turn()
    assert_same_series(rigs, counts)
    for rig in rigs:
        for i, row in enumerate(later):
            rig.counts(*((name, 2_000 + i, v) for name, v in zip(HOSTS, row.tolist())))
    assert_same_series(rigs, counts)
    assert rigs[0].scores.keys() == rigs[1].scores.keys()
    for name, scores in rigs[0].scores.items():
        np.testing.assert_array_equal(scores, rigs[1].scores[name])


def assert_same_series(rigs: list[Rig], counts: list[int]) -> None:
    """Compare what two monitors know of so many series."""
    for name in HOSTS[: len(counts)]:
        found = [rig.monitor.summary(rig.number(name)) for rig in rigs]
        assert found[0] == found[1]
        histories = [rig.monitor.read_past(rig.number(name), 2_000) for rig in rigs]
        for one, other in zip(*histories):
            np.testing.assert_array_equal(one, other)


def test_a_fleet_that_all_series_have_left_takes_no_memory() -> None:
    rig = Rig()
    send_rows(rig, np.ones((3, len(HOSTS))))
    before = rig.monitor.roster.fleets[0].nbytes
    add_rule(rig.monitor, "{}", threshold=9.0)
    rig.turn()
    empty, full = rig.monitor.roster.fleets
    assert empty.nbytes < before / 4 and full.nbytes >= before / 2
    rig.monitor.rules.remove(1)
    rig.counts(("new", 100, 1.0))
    assert settings_of(rig.monitor)["new"] == EWMA and len(rig.monitor.roster) == len(HOSTS) + 1


def test_a_new_series_begins_with_the_rules_that_take_it_the_later_ones_last() -> None:
    rig = Rig()
    add_rule(rig.monitor, "{}", threshold=6.0, window=30)
    add_rule(rig.monitor, '{job="web"}', threshold=4.0)
    rig.turn()
    rig.counts(*((name, 0, 1.0) for name in [*HOSTS, "other"]))
    every = replace(EWMA, threshold=6.0, window=30)
    wanted = {name: replace(every, threshold=4.0) if name in WEB else every for name in HOSTS}
    assert settings_of(rig.monitor) == wanted | {"other": every}
    rig.monitor.rules.remove(2)
    rig.counts(('load{host="h99",job="web"}', 1, 1.0))
    assert settings_of(rig.monitor)['load{host="h99",job="web"}'] == every
    assert settings_of(rig.monitor)[WEB[0]].threshold == 4.0, "it keeps what it has"


def test_a_turn_does_a_bounded_part_and_samples_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    send_rows(rig, np.ones((3, len(HOSTS))))
    ticks = iter(range(10_000))
    monkeypatch.setattr(rule_work.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(rule_work.RuleWork.take_slice, "__defaults__", (4.0,))
    monkeypatch.setattr(rule_work, "BATCH_SERIES", 1)
    rule = add_rule(rig.monitor, "{}", threshold=4.0)
    left = []
    for step in range(4):
        assert rig.counts((HOSTS[0], 10 + step, 1.0)) == (1, 0, 0)
        left.append(rig.monitor.rule_work.left(rule.id))
    assert left == [8, 4, 0, 0]
    assert {each.threshold for each in settings_of(rig.monitor).values()} == {4.0}


def test_a_rule_that_is_removed_or_replaced_stops() -> None:
    rig = Rig()
    send_rows(rig, np.ones((3, len(HOSTS))))
    first = add_rule(rig.monitor, "load", threshold=4.0)
    second = add_rule(rig.monitor, "load{}", window=30)
    assert list(rig.monitor.rules.rules) == [second.id] and first.id != second.id
    assert second.settings == {"threshold": 4.0, "window": 30}, "they are one rule"
    rig.turn()
    assert set(settings_of(rig.monitor).values()) == {replace(EWMA, threshold=4.0, window=30)}
    third = add_rule(rig.monitor, "{}", threshold=9.0)
    rig.monitor.rules.remove(third.id)
    rig.turn()
    assert {each.threshold for each in settings_of(rig.monitor).values()} == {4.0}


def test_what_is_no_rule_is_refused() -> None:
    saved = []
    rules = SettingsRules()
    rules.restore([], 7, RulePersistence(lambda row, replaced: saved.append(row["id"])))
    with pytest.raises(SubmissionRefused, match="selector"):
        rules.add("{job=", {"threshold": 4.0}, "ann", 0.0)
    with pytest.raises(SettingsError, match="threshold"):
        rules.add("{}", {"threshold": 400.0}, "ann", 0.0)
    for i in range(MAX_RULES):
        rules.add(f"m{i}", {"threshold": 4.0}, "ann", 0.0)
    with pytest.raises(SubmissionRefused, match="at most 100 rules"):
        rules.add("another", {"threshold": 4.0}, "ann", 0.0)
    rules.add("m3", {"threshold": 5.0}, "ann", 0.0)
    assert saved == list(range(8, 8 + MAX_RULES + 1)), "an id is never used twice"
    key = parse_series("m3")
    assert rules.settings_of(key, EWMA) == replace(EWMA, threshold=5.0)


def test_rules_outlive_a_kill_and_one_that_was_under_way_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = StoredRig(tmp_path / "redline.db")
    persistence = RulePersistence(rig.store.save_rule, rig.store.drop_rule)
    rig.monitor.rules.restore(*rig.store.rules(), persistence)
    for _ in range(30):
        rig.send(HOSTS)
        rig.turn()
    add_rule(rig.monitor, '{job="db"}', threshold=5.0)
    rig.turn()
    rule = add_rule(rig.monitor, '{job="web"}', threshold=4.0)
    monkeypatch.setattr(rig.monitor.rule_work.take_slice.__func__, "__defaults__", (-1.0,))
    rig.turn()
    assert rig.monitor.rule_work.left(rule.id) == len(HOSTS)
    monkeypatch.undo()
    monkeypatch.setattr(
        "redline.engine.fleet.series_monitor.SettingsRules",
        lambda: restored_rules(rig.store),
    )
    rig.restart()
    assert [(r.select, r.done) for r in rig.monitor.rules.rules.values()] == [
        ('{job="db"}', True),
        ('{job="web"}', False),
    ]
    rig.turn()
    wanted = {n: replace(EWMA, threshold=4.0 if n in WEB else 5.0) for n in HOSTS}
    assert settings_of(rig.monitor) == wanted and rig.monitor.rules.rules[rule.id].done
    rig.restart()
    assert settings_of(rig.monitor) == wanted and not rig.monitor.rule_work.queue
    rig.send([*HOSTS, 'load{host="h77",job="db"}'])
    rig.turn()
    assert settings_of(rig.monitor)['load{host="h77",job="db"}'].threshold == 5.0
    for name in HOSTS:  # steps that were found under another threshold stay as they were
        stored = rig.store.read_series(rig.monitor.find(name), None, None, 1_000)
        np.testing.assert_allclose(stored.score, alone(np.array(rig.values[name])), atol=0.01)


def restored_rules(store) -> SettingsRules:
    rules = SettingsRules()
    rules.restore(*store.rules(), RulePersistence(store.save_rule, store.drop_rule))
    return rules


def test_a_forgotten_series_goes_on_under_the_rule(tmp_path: Path) -> None:
    rig = StoredRig(tmp_path / "redline.db")
    for _ in range(10):
        rig.send(HOSTS[:2])
        rig.turn()
    assert len(rig.monitor.forget_silent(2e10)) == 2
    add_rule(rig.monitor, "{}", threshold=7.0)
    rig.turn()
    rig.send(HOSTS[:1])
    rig.turn()
    assert settings_of(rig.monitor) == {HOSTS[0]: replace(EWMA, threshold=7.0)}


def test_a_series_that_is_looked_at_follows_and_the_change_can_be_taken_back(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path / "redline.db")
    service.send(300)
    feed = service.monitor.feed(NAMES[0])
    service.turn()
    before = feed.applied
    series = service.monitor.series
    add_rule(series, "{}", window=60, threshold=4.0)
    service.turn()
    after = replace(before, window=60, threshold=4.0)
    assert feed.applied == after and feed.undone == [before]
    assert series.summary(feed.number).settings == after
    service.send(100)
    assert feed.end == 400
    assert service.monitor.undo(NAMES[0]) == before
    service.turn()
    assert series.summary(feed.number).settings == before
