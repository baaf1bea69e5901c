"""The swim lanes: the same as a plain loop over all series and steps."""

from __future__ import annotations

import numpy as np
import pytest

from redline.engine.fleet import label_columns
from redline.engine.fleet.label_columns import LabelColumns
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.fleet.swim_lanes import LanesQuery, SwimLanes, hold, worst_places
from redline.engine.fleet.worst_scores import AT_THRESHOLD, NO_LEVEL, level_of
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory
from redline.sources.series import parse_series
from tests.engine.fleet.test_series_monitor import START, Rig

SETTING = Settings("EWMA", 20, 3.0)
NAMES = [f'load{{host="h{i % 6}",job="{"web" if i % 2 else "db"}"}}' for i in range(6)]
NAMES += [f'free{{host="h{i % 6}"}}' for i in range(6)]
STEPS = 120
FAULTY, FAULT = NAMES[8], 100  # the series, and the step of its fault


def filled_lanes(steps: int = STEPS) -> tuple[Rig, SwimLanes]:
    """Return lanes of series with a step each 10 s, one of which has a fault."""
    rig = Rig(SETTING)
    values = np.random.default_rng(3).normal(20, 1, (steps, len(NAMES)))
    values[FAULT, NAMES.index(FAULTY)] = 60.0
    for step, row in enumerate(values.tolist()):
        rig.counts(*((name, 10 * step, value) for name, value in zip(NAMES, row)))
    return rig, SwimLanes(rig.monitor, NameIndex(rig.directory))


def plain_lanes(rig: Rig, groups: dict[str, list[str]], columns: int) -> dict[str, list[int]]:
    """Return the levels of each group of series, by a loop."""
    lanes = {}
    for value, members in groups.items():
        scores = np.array([rig.scores[name] for name in members])[:, -columns:]
        lanes[value] = level_of(scores / SETTING.threshold).max(axis=0).tolist()
    return lanes


@pytest.mark.parametrize("label", ["host", "__name__", ""])
def test_every_cell_is_what_a_loop_over_the_series_finds(label: str) -> None:
    rig, lanes = filled_lanes()
    groups: dict[str, list[str]] = {}
    for name in NAMES:
        key = parse_series(name)
        labels = {"__name__": key.name, **dict(key.labels)}
        groups.setdefault(labels[label] if label else name, []).append(name)
    table = lanes.table(LanesQuery(label, columns=90))
    assert {lane.value: lane.levels.tolist() for lane in table.lanes} == plain_lanes(
        rig, groups, 90
    )
    assert table.start == START + 10 * (STEPS - 90) and table.seconds == 10
    worst = [lane.worst for lane in table.lanes]
    assert worst == sorted(worst, reverse=True)
    assert table.lanes[0].number == rig.number(FAULTY)
    hot = sum(max(levels) > AT_THRESHOLD for levels in plain_lanes(rig, groups, 90).values())
    assert (table.found, table.anomalous, table.series) == (len(groups), hot, len(NAMES))


def test_the_filter_and_the_most_lanes_count_all_but_show_the_worst() -> None:
    _, lanes = filled_lanes()
    table = lanes.table(LanesQuery("host", "free", lanes=2))
    assert [lane.series for lane in table.lanes] == [1, 1] and table.found == 6
    assert table.lanes[0].value == "h2" and table.series == 6
    of_job = lanes.table(LanesQuery("job"))
    assert (of_job.series, of_job.without, of_job.found) == (6, 6, 2)
    assert lanes.table(LanesQuery("nothing")).lanes == []
    single = lanes.table(LanesQuery("", '{host="h2"}'))
    assert {lane.value for lane in single.lanes} == {NAMES[2], NAMES[8]}


def test_a_series_that_was_forgotten_or_removed_is_in_no_lane() -> None:
    rig, lanes = filled_lanes()
    assert lanes.table(LanesQuery("host")).lanes[0].series == 2
    rig.monitor.roster.leave(rig.number(NAMES[2]))  # its name is kept
    assert {lane.value for lane in lanes.table(LanesQuery("", "h2")).lanes} == {FAULTY}
    assert lanes.table(LanesQuery("host")).lanes[0].series == 1
    rig.monitor.remove(rig.number(FAULTY))
    rig.turn()
    assert FAULTY not in rig.directory.numbers
    table = lanes.table(LanesQuery("host"))
    assert "h2" not in {lane.value for lane in table.lanes}
    assert table.series == len(NAMES) - 2


def test_a_cell_leads_to_its_worst_step() -> None:
    _, lanes = filled_lanes()
    time = START + 10 * FAULT
    for label, value in (("host", "h2"), ("__name__", "free"), ("", FAULTY)):
        moment = lanes.find_moment(label, value, "", time - 60, time + 60)
        assert moment == (FAULTY, FAULT, time)
    other = lanes.find_moment("host", "h2", "load", time - 60, time + 60)
    assert other is not None and other.name == NAMES[2]
    assert lanes.find_moment("host", "h9", "", time, time + 10) is None
    assert lanes.find_moment("rack", "r1", "", time, time + 10) is None
    assert lanes.find_moment("", "unknown", "", time, time + 10) is None
    between = lanes.find_moment("", FAULTY, "", time + 2, time + 4)
    assert between == (FAULTY, FAULT, time), "the score that stands for the cell"


def test_a_score_stands_until_the_next_one_but_not_for_long() -> None:
    levels = np.zeros((2, 14), np.uint16)
    levels[0, [1, 4]] = 7, 9
    levels[1, 13] = 5
    held = hold(levels, 30.0)
    assert held[0].tolist() == [0, 7, 7, 7, 9, 9, 9, 9, *[NO_LEVEL] * 6]
    assert held[1].tolist() == [NO_LEVEL] * 13 + [5]
    assert hold(levels, 180.0)[0].tolist()[:4] == [0, 7, 7, 0]


def test_the_worst_places_are_those_of_a_plain_sort() -> None:
    level = np.random.default_rng(0).integers(0, 5, 60).astype(np.uint16)
    plain = sorted(range(60), key=lambda i: (-int(level[i]), i))
    for count in (1, 7, 59, 60, 200):
        assert worst_places(level, count).tolist() == plain[:count]


def test_label_columns_follow_the_directory_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(label_columns, "MAX_LABEL_COLUMNS", 2)
    directory = SeriesDirectory()
    columns = LabelColumns(directory)
    assert columns.refresh() == {}
    first = directory.number('up{host="a",rack="1"}')
    assert list(columns.refresh()) == ["__name__", "host"]
    second = directory.number('up{host="b"}')
    host = columns.refresh()["host"]
    assert [host.values[host.codes[n]] for n in (first, second)] == ["a", "b"]
    directory.remove([first])
    assert columns.refresh()["host"].codes[first] == label_columns.WITHOUT


def test_without_series_there_is_no_lane() -> None:
    rig = Rig(SETTING)
    lanes = SwimLanes(rig.monitor, NameIndex(rig.directory))
    for label in ("", "host"):
        table = lanes.table(LanesQuery(label))
        assert (table.lanes, table.columns, table.found) == ([], 0, 0)
    assert isinstance(lanes.series, SeriesMonitor)
